-- Why: the audit trail shows a tenant's security events, which lie among its sales as a few in a thousand.
-- transaction: none
CREATE INDEX CONCURRENTLY IF NOT EXISTS events_security ON ledger.events (tenant_id, position) WHERE split_part(topic, '.', 1) = ANY ('{account,invitation,person,security,service_account,session,tenant}'::text[]);
