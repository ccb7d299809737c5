-- Why: what was erased since the last look, by any tenant, is found by one range of an index on every PostgreSQL from 16 on. Led
-- by the tenant it needed the skip scan of 18; before that each look, twice a second, walked the whole index.
CREATE INDEX erased_subjects_since ON ledger.erased_subjects (erased_in, tenant_id, subject_id);
DROP INDEX ledger.erased_subjects_in;

-- And why: the last admin of a tenant is not erased. Who is an admin with a password is written down when the password is set
-- (commands/accounts.py, passworded); here for those who have one already. Read as the writer: row-level security is forced on
-- the owner too. By the unique index on an aggregate's versions, one look-up for each account.
SET LOCAL ROLE bitnexus_writer;
INSERT INTO ledger.secrets (tenant_id, owner, kind, value)
SELECT s.tenant_id, s.tenant_id, 'admin ' || s.owner, '\x01'
FROM ledger.secrets s
JOIN ledger.events v ON v.tenant_id = s.tenant_id AND v.originator_id = s.owner AND v.originator_version = 1
WHERE s.kind = 'password' AND v.topic = 'account.registered'
  AND (position('"role":"admin"'::bytea IN v.state) > 0 OR position('"role":"super_admin"'::bytea IN v.state) > 0)
ON CONFLICT DO NOTHING;
RESET ROLE;
