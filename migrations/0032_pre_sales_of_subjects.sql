-- Why: an export lists what was sold under a person's address, by its subject, a page at a time and the newest first. The indexes
-- that a view forgets by had no order: every page would have read and sorted all of the subject's rows. These serve both: what
-- is forgotten goes from all generations at once, so the generation comes after the subject.
-- transaction: none
CREATE INDEX CONCURRENTLY IF NOT EXISTS transactions_by_subject ON views.transactions (tenant_id, buyer_subject_id, generation, transaction_id) WHERE buyer_subject_id IS NOT NULL;
CREATE INDEX CONCURRENTLY IF NOT EXISTS refunds_by_subject ON views.refunds (tenant_id, buyer_subject_id, generation, refund_id) WHERE buyer_subject_id IS NOT NULL;
DROP INDEX CONCURRENTLY IF EXISTS views.transactions_subject;
DROP INDEX CONCURRENTLY IF EXISTS views.refunds_subject;
