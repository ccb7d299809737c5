-- Why: service accounts have keys. The hash of a key is a secret (owner: the key's id, value: the account's id, then SHA-256 of the key),
-- and when a key was used last is shown to admins: kept here, to within five minutes, so that a busy key costs no more writes.
CREATE TABLE ledger.key_uses (
    tenant_id uuid        NOT NULL,
    key_id    uuid        NOT NULL,
    used_at   timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, key_id)
) WITH (fillfactor = 50);
ALTER TABLE ledger.key_uses ENABLE ROW LEVEL SECURITY;
ALTER TABLE ledger.key_uses FORCE ROW LEVEL SECURITY;
CREATE POLICY writer ON ledger.key_uses TO bitnexus_writer USING (true) WITH CHECK (true);
CREATE POLICY app ON ledger.key_uses FOR SELECT TO bitnexus_app USING (tenant_id = ledger.app_tenant());
GRANT SELECT, INSERT, UPDATE ON ledger.key_uses TO bitnexus_writer;
GRANT SELECT ON ledger.key_uses TO bitnexus_app;

-- The service account whose key it is; no row if there is no such key. That it was used is noted.
CREATE FUNCTION ledger.use_key(tenant uuid, p_key uuid, p_hash bytea) RETURNS TABLE (o_account uuid)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    NOTED_EVERY CONSTANT interval := '5 minutes';
    stored bytea;
BEGIN
    SELECT s.value INTO stored FROM ledger.secrets s WHERE s.tenant_id = tenant AND s.owner = p_key AND s.kind = 'api key';
    IF substr(stored, 17) IS DISTINCT FROM p_hash THEN
        RETURN;
    END IF;
    IF NOT EXISTS (SELECT FROM ledger.key_uses u WHERE u.tenant_id = tenant AND u.key_id = p_key
                   AND u.used_at > clock_timestamp() - NOTED_EVERY) THEN
        INSERT INTO ledger.key_uses AS u (tenant_id, key_id, used_at) VALUES (tenant, p_key, clock_timestamp())
        ON CONFLICT ON CONSTRAINT key_uses_pkey DO UPDATE SET used_at = excluded.used_at;
    END IF;
    RETURN QUERY SELECT encode(substr(stored, 1, 16), 'hex')::uuid;
END
$$;
REVOKE ALL ON FUNCTION ledger.use_key FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ledger.use_key TO bitnexus_app;
-- As in 0002: the writer owns what it does in everybody's stead.
GRANT CREATE ON SCHEMA ledger TO bitnexus_writer;
ALTER FUNCTION ledger.use_key OWNER TO bitnexus_writer;
REVOKE CREATE ON SCHEMA ledger FROM bitnexus_writer;
