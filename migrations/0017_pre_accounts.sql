-- Why: the flows of accounts (docs/accounts.md). A secret that counts once (a code, a hash that is replaced by a stronger one) is
-- replaced only if it is still the one that was looked at; and what has to be sent waits beside the other secrets, written in the
-- append's transaction, until it is sent.

-- All secrets of one owner, with their values.
CREATE FUNCTION ledger.read_secrets(tenant uuid, p_owner uuid) RETURNS TABLE (o_kind text, o_value bytea)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    EXECUTE format('SET LOCAL bitnexus.tenant = %L', tenant);
    RETURN QUERY SELECT s.kind, s.value FROM ledger.secrets s WHERE s.tenant_id = tenant AND s.owner = p_owner ORDER BY s.kind;
END
$$;

-- Compare and set: whether the secret was p_old (NULL: absent), and is p_new (NULL: absent) now. Of two at once one is told true.
CREATE FUNCTION ledger.replace_secret(tenant uuid, p_owner uuid, p_kind text, p_old bytea, p_new bytea) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF p_old IS NULL THEN
        INSERT INTO ledger.secrets (tenant_id, owner, kind, value)
        SELECT tenant, p_owner, p_kind, p_new WHERE p_new IS NOT NULL
        ON CONFLICT ON CONSTRAINT secrets_pkey DO NOTHING;
    ELSIF p_new IS NULL THEN
        DELETE FROM ledger.secrets s WHERE s.tenant_id = tenant AND s.owner = p_owner AND s.kind = p_kind AND s.value = p_old;
    ELSE
        UPDATE ledger.secrets s SET value = p_new
        WHERE s.tenant_id = tenant AND s.owner = p_owner AND s.kind = p_kind AND s.value = p_old;
    END IF;
    RETURN found;
END
$$;

-- The outbox: secrets whose kind begins with "outbox ". Few, and found without a search; what was sent is not among them any more.
CREATE INDEX secrets_outbox ON ledger.secrets (tenant_id, owner, kind) WHERE kind >= 'outbox ' AND kind < 'outbox!';

-- How often each was tried, and when it may be tried again. No row: never.
CREATE TABLE ledger.deliveries (
    tenant_id uuid             NOT NULL,
    owner     uuid             NOT NULL,
    kind      text COLLATE "C" NOT NULL CHECK (kind <> ''),
    tries     int              NOT NULL CHECK (tries >= 1),
    due_at    timestamptz      NOT NULL,
    PRIMARY KEY (tenant_id, owner, kind)
);
ALTER TABLE ledger.deliveries ENABLE ROW LEVEL SECURITY;
ALTER TABLE ledger.deliveries FORCE ROW LEVEL SECURITY;
CREATE POLICY writer ON ledger.deliveries TO bitnexus_writer USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE, DELETE ON ledger.deliveries TO bitnexus_writer;

-- Cross-tenant, for the role of projectors: at most p_limit that are due, for the caller alone until the wait of this try is over
-- (p_waits_s: seconds after the first, the second … try; the last one for all that follow). Whoever dies leaves them to others.
CREATE FUNCTION ledger.claim_outbox(p_limit int, p_waits_s float8[])
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

-- It was sent, or never will be. Not if it is another one by now: that one is due at once.
CREATE FUNCTION ledger.end_delivery(p_tenant uuid, p_owner uuid, p_kind text, p_value bytea) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM ledger.secrets s WHERE s.tenant_id = p_tenant AND s.owner = p_owner AND s.kind = p_kind AND s.value = p_value;
    DELETE FROM ledger.deliveries d WHERE d.tenant_id = p_tenant AND d.owner = p_owner AND d.kind = p_kind;
END
$$;

REVOKE ALL ON FUNCTION ledger.read_secrets, ledger.replace_secret, ledger.claim_outbox, ledger.end_delivery FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ledger.read_secrets, ledger.replace_secret TO bitnexus_app;
GRANT EXECUTE ON FUNCTION ledger.claim_outbox, ledger.end_delivery TO bitnexus_projector;

-- As in 0002: the writer owns what it does in everybody's stead.
GRANT CREATE ON SCHEMA ledger TO bitnexus_writer;
ALTER FUNCTION ledger.replace_secret OWNER TO bitnexus_writer;
ALTER FUNCTION ledger.claim_outbox OWNER TO bitnexus_writer;
ALTER FUNCTION ledger.end_delivery OWNER TO bitnexus_writer;
REVOKE CREATE ON SCHEMA ledger FROM bitnexus_writer;
