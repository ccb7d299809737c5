-- Why: a list of the sales that were refunded, wholly or in part. Most never are, and are found along the primary key.
-- transaction: none
CREATE INDEX CONCURRENTLY IF NOT EXISTS transactions_by_status ON views.transactions (tenant_id, generation, status, transaction_id) WHERE status <> 'recorded';
