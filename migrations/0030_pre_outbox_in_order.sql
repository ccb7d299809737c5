-- Why: what waits to be sent was claimed tenant by tenant, so that one tenant's flood held up the mails of all that came after it.
-- By kind it is the oldest first: a mail's kind ends with its id, which begins with its time. Forgotten passwords, of which
-- there is one an address and which are answered at once, come before.
-- Those that wait are few, and are sorted.

-- As in 0017, but for the order.
CREATE OR REPLACE FUNCTION ledger.claim_outbox(p_limit int, p_waits_s float8[])
RETURNS TABLE (o_tenant uuid, o_owner uuid, o_kind text, o_value bytea, o_tries int)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
BEGIN
    DELETE FROM ledger.deliveries d  -- of persons who were erased meanwhile
    WHERE d.due_at < clock_timestamp() - interval '1 day'
      AND NOT EXISTS (SELECT FROM ledger.secrets s WHERE s.tenant_id = d.tenant_id AND s.owner = d.owner AND s.kind = d.kind);
    RETURN QUERY
    WITH due AS MATERIALIZED (
        SELECT s.tenant_id, s.owner, s.kind, s.value
        FROM ledger.secrets s
        WHERE s.kind >= 'outbox ' AND s.kind < 'outbox!'
          AND NOT EXISTS (SELECT FROM ledger.deliveries d WHERE d.tenant_id = s.tenant_id AND d.owner = s.owner AND d.kind = s.kind
                                                            AND d.due_at > clock_timestamp())
        ORDER BY s.kind
        LIMIT p_limit FOR UPDATE OF s SKIP LOCKED
    ), claimed AS (
        INSERT INTO ledger.deliveries AS d (tenant_id, owner, kind, tries, due_at)
        SELECT x.tenant_id, x.owner, x.kind, 1, clock_timestamp() + p_waits_s[1] * interval '1 second' FROM due x
        ON CONFLICT ON CONSTRAINT deliveries_pkey DO UPDATE
            SET tries = d.tries + 1,
                due_at = clock_timestamp() + p_waits_s[least(d.tries + 1, cardinality(p_waits_s))] * interval '1 second'
            WHERE d.due_at <= clock_timestamp()  -- again: somebody may have claimed it since this statement's snapshot
        RETURNING d.tenant_id, d.owner, d.kind, d.tries
    )
    SELECT x.tenant_id, x.owner, x.kind, x.value, c.tries
    FROM due x JOIN claimed c ON c.tenant_id = x.tenant_id AND c.owner = x.owner AND c.kind = x.kind;
END
$$;
