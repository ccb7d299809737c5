-- Why: a view forgets a person by the person's subject. Without these it would read a tenant's every sale for it.
-- transaction: none
CREATE INDEX CONCURRENTLY IF NOT EXISTS transactions_subject ON views.transactions (tenant_id, buyer_subject_id) WHERE buyer_subject_id IS NOT NULL;
CREATE INDEX CONCURRENTLY IF NOT EXISTS refunds_subject ON views.refunds (tenant_id, buyer_subject_id) WHERE buyer_subject_id IS NOT NULL;
