-- Why: an account can change its address, so that a tenant that is imported gives back what it claimed once.

-- An import: what an owner has reserved of a kind is given back by a later event, such as a change of address.
CREATE FUNCTION ledger.restore_releases(tenant uuid, r_kind text[], r_owner uuid[]) RETURNS bigint  -- how many there were
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    gone bigint;
BEGIN
    PERFORM ledger.restoring(tenant);
    DELETE FROM ledger.reservations r USING unnest(r_kind, r_owner) AS x (kind, owner)
    WHERE r.tenant_id = tenant AND r.kind = x.kind AND r.owner = x.owner;
    GET DIAGNOSTICS gone = ROW_COUNT;
    RETURN gone;
END
$$;

REVOKE ALL ON FUNCTION ledger.restore_releases FROM PUBLIC;
-- As in 0008: no role that a process can become.
GRANT EXECUTE ON FUNCTION ledger.restore_releases TO CURRENT_USER;
GRANT CREATE ON SCHEMA ledger TO bitnexus_writer;
ALTER FUNCTION ledger.restore_releases OWNER TO bitnexus_writer;
REVOKE CREATE ON SCHEMA ledger FROM bitnexus_writer;
