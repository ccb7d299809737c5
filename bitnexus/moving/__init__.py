"""A tenant leaves one installation and comes to another: docs/tenant-files.md says what travels, and in which form."""
