-- Why: what 0013 added to the tables leads their keys from now on. The release before goes on with the old ones beside them.
-- transaction: none
CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS positions_generation ON views.positions (tenant_id, view, generation);
CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS positions_active ON views.positions (tenant_id, view) WHERE state = 'active';
CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS products_generation ON views.products (tenant_id, generation, product_id);
CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS transactions_generation ON views.transactions (tenant_id, generation, transaction_id);
CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS refunds_generation ON views.refunds (tenant_id, generation, refund_id);
CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS sales_by_day_generation ON views.sales_by_day (tenant_id, generation, day, currency);
CREATE INDEX CONCURRENTLY IF NOT EXISTS products_by_category ON views.products (tenant_id, generation, category, product_id) WHERE category IS NOT NULL;
CREATE INDEX CONCURRENTLY IF NOT EXISTS transactions_by_buyer ON views.transactions (tenant_id, generation, buyer_id, transaction_id) WHERE buyer_id IS NOT NULL;
CREATE INDEX CONCURRENTLY IF NOT EXISTS transactions_by_affiliate ON views.transactions (tenant_id, generation, affiliate_id, transaction_id) WHERE affiliate_id IS NOT NULL;
CREATE INDEX CONCURRENTLY IF NOT EXISTS refunds_by_transaction ON views.refunds (tenant_id, generation, transaction_id, refund_id) WHERE transaction_id IS NOT NULL;
CREATE INDEX CONCURRENTLY IF NOT EXISTS refunds_by_buyer ON views.refunds (tenant_id, generation, buyer_id, refund_id) WHERE buyer_id IS NOT NULL;
CREATE INDEX CONCURRENTLY IF NOT EXISTS refunds_by_affiliate ON views.refunds (tenant_id, generation, affiliate_id, refund_id) WHERE affiliate_id IS NOT NULL;
