"""Import of the Online Retail layout: rows (reads the file), plan (decides what is recorded)."""
