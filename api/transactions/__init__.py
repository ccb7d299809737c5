"""Sales: record, query, refund, sum up."""
