-- Why: an access token counts no more within 2 s of its session's end, in every process; and the keys that tokens are signed with
-- can be changed while everything runs.

-- What tokens name and what counts no more: the id of a session, or the tenant's own id while the tenant is suspended. Mutable, and
-- outside the hash: the events say what happened, this says it quickly. changed_in as in ledger.erased_subjects (0006): a process asks
-- "what changed since I last asked" without missing a transaction that was still under way then.
CREATE TABLE ledger.revocations (
    tenant_id  uuid        NOT NULL,
    id         uuid        NOT NULL,
    revoked    boolean     NOT NULL,  -- false: it counts again
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    changed_in xid8        NOT NULL DEFAULT pg_current_xact_id(),
    PRIMARY KEY (tenant_id, id)
);
-- For "changed since", of all tenants at once.
CREATE INDEX revocations_since ON ledger.revocations (changed_in, tenant_id, id);

ALTER TABLE ledger.revocations ENABLE ROW LEVEL SECURITY;
ALTER TABLE ledger.revocations FORCE ROW LEVEL SECURITY;
CREATE POLICY writer ON ledger.revocations TO bitnexus_writer USING (true) WITH CHECK (true);
CREATE POLICY app ON ledger.revocations FOR SELECT TO bitnexus_app USING (tenant_id = ledger.app_tenant());
CREATE POLICY projector ON ledger.revocations FOR SELECT TO bitnexus_projector USING (true);
GRANT SELECT, INSERT, UPDATE, DELETE ON ledger.revocations TO bitnexus_writer;
GRANT SELECT ON ledger.revocations TO bitnexus_app, bitnexus_projector;

-- The keys that access tokens are signed with, wrapped under a key that is derived from the root master key. Not a tenant's table, as
-- ledger.master_keys: it is about the installation. `id` is the token's `kid`: the thumbprint of the public key (RFC 7638).
CREATE TABLE ledger.token_keys (
    id             text COLLATE "C" PRIMARY KEY CHECK (id <> ''),
    wrapped        bytea            NOT NULL,
    created_at     timestamptz      NOT NULL DEFAULT clock_timestamp(),
    signs_from     timestamptz      NOT NULL,
    verifies_until timestamptz      NOT NULL  -- 'infinity': no later key was made yet
);
GRANT SELECT, INSERT, UPDATE, DELETE ON ledger.token_keys TO bitnexus_writer;
GRANT SELECT ON ledger.token_keys TO bitnexus_projector;

-- A flush that ends sessions, or suspends or resumes a tenant: ledger.append_erasing as it is (which is ledger.append where nobody is
-- erased), and in the same transaction the revocations. A refused command revokes nothing.
CREATE FUNCTION ledger.append_revoking(
    p_tenants     uuid[],   -- these are ledger.append_erasing's
    c_tenant      int[],
    c_id          uuid[],
    c_fingerprint bytea[],
    c_outcome     bytea[],
    c_events      int[],
    e_originator  uuid[],
    e_version     int[],
    e_topic       text[],
    e_state       bytea[],
    e_metadata    bytea[],
    r_command     int[],
    r_kind        text[],
    r_key         bytea[],
    r_owner       uuid[],
    r_claim       boolean[],
    s_command     int[],
    s_owner       uuid[],
    s_kind        text[],
    s_value       bytea[],
    x_command     int[],
    x_subject     uuid[],
    v_command     int[],    -- of each revocation: index of its command
    v_id          uuid[],
    v_revoked     boolean[]
) RETURNS TABLE (
    o_status      smallint,
    o_position    bigint,
    o_recorded_at timestamptz,
    o_outcome     bytea,
    o_kind        text,
    o_owner       uuid
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    y_status   smallint[] := '{}';
    y_position bigint[] := '{}';
    y_recorded timestamptz[] := '{}';
    y_outcome  bytea[] := '{}';
    y_kind     text[] := '{}';
    y_owner    uuid[] := '{}';
    found      record;
BEGIN
    IF (ledger.is_list(v_command) AND ledger.is_list(v_id) AND ledger.is_list(v_revoked)
        AND cardinality(v_command) = cardinality(v_id) AND cardinality(v_command) = cardinality(v_revoked)
        AND (SELECT coalesce(min(x) >= 1 AND max(x) <= cardinality(c_id), true) FROM unnest(v_command) x)) IS NOT TRUE THEN
        RAISE EXCEPTION 'ledger.append_revoking was given arrays that do not fit together' USING ERRCODE = '22023';
    END IF;
    -- One row a command, in the order of the call: ledger.append_erasing gives them so.
    FOR found IN SELECT * FROM ledger.append_erasing(p_tenants, c_tenant, c_id, c_fingerprint, c_outcome, c_events, e_originator,
            e_version, e_topic, e_state, e_metadata, r_command, r_kind, r_key, r_owner, r_claim, s_command, s_owner, s_kind, s_value,
            x_command, x_subject) a LOOP
        y_status := y_status || found.o_status;
        y_position := y_position || found.o_position;
        y_recorded := y_recorded || found.o_recorded_at;
        y_outcome := y_outcome || found.o_outcome;
        y_kind := y_kind || found.o_kind;
        y_owner := y_owner || found.o_owner;
    END LOOP;

    -- Of several words about one id the last stands.
    INSERT INTO ledger.revocations AS r (tenant_id, id, revoked)
    SELECT DISTINCT ON (1, 2) p_tenants[c_tenant[x.c]], x.id, x.revoked
    FROM unnest(v_command, v_id, v_revoked) WITH ORDINALITY AS x (c, id, revoked, n)
    WHERE y_status[x.c] = 0 ORDER BY 1, 2, x.c DESC, x.n DESC
    ON CONFLICT ON CONSTRAINT revocations_pkey
    DO UPDATE SET revoked = excluded.revoked, changed_at = excluded.changed_at, changed_in = excluded.changed_in;

    RETURN QUERY SELECT * FROM unnest(y_status, y_position, y_recorded, y_outcome, y_kind, y_owner);
END
$$;

-- An hour after a session's end its last access token has long expired; after a tenant's resumption every process has heard of it.
-- A suspension stays until it is lifted. At most p_limit rows.
CREATE FUNCTION ledger.expire_revocations(p_limit int) RETURNS TABLE (o_deleted bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    KEPT    CONSTANT interval := '1 hour';
    deleted bigint;
BEGIN
    DELETE FROM ledger.revocations r WHERE (r.tenant_id, r.id) IN (
        SELECT o.tenant_id, o.id FROM ledger.revocations o
        WHERE o.changed_at < clock_timestamp() - KEPT AND NOT (o.revoked AND o.id = o.tenant_id)
        LIMIT p_limit FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS deleted = ROW_COUNT;
    RETURN QUERY SELECT deleted;
END
$$;

-- The first key is made by whichever process comes first; the others take that one.
CREATE FUNCTION ledger.begin_token_keys(p_id text, p_wrapped bytea) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    LOCK TABLE ledger.token_keys IN SHARE ROW EXCLUSIVE MODE;
    INSERT INTO ledger.token_keys (id, wrapped, signs_from, verifies_until)
    SELECT p_id, p_wrapped, clock_timestamp(), 'infinity' WHERE NOT EXISTS (SELECT FROM ledger.token_keys);
END
$$;

-- A new key, which signs p_after_s seconds from now. Those before it verify p_overlap_s longer than that, not longer than they did, and
-- are deleted when that is over.
CREATE FUNCTION ledger.rotate_token_keys(p_id text, p_wrapped bytea, p_after_s int, p_overlap_s int) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    signs_from CONSTANT timestamptz := clock_timestamp() + make_interval(secs => p_after_s);
    until      CONSTANT timestamptz := signs_from + make_interval(secs => p_overlap_s);
BEGIN
    LOCK TABLE ledger.token_keys IN SHARE ROW EXCLUSIVE MODE;
    DELETE FROM ledger.token_keys k WHERE k.verifies_until <= clock_timestamp();
    UPDATE ledger.token_keys k SET verifies_until = until WHERE k.verifies_until > until;
    INSERT INTO ledger.token_keys (id, wrapped, signs_from, verifies_until) VALUES (p_id, p_wrapped, signs_from, 'infinity');
END
$$;

REVOKE ALL ON FUNCTION ledger.append_revoking, ledger.expire_revocations, ledger.begin_token_keys, ledger.rotate_token_keys
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ledger.append_revoking TO bitnexus_app;
GRANT EXECUTE ON FUNCTION ledger.expire_revocations, ledger.begin_token_keys TO bitnexus_projector;
-- Rotating is the owner's: a process that is taken over must not be able to end everybody's tokens, or keep a key of its own.

-- As in 0002: the writer owns what it does in everybody's stead.
GRANT CREATE ON SCHEMA ledger TO bitnexus_writer;
ALTER FUNCTION ledger.append_revoking OWNER TO bitnexus_writer;
ALTER FUNCTION ledger.expire_revocations OWNER TO bitnexus_writer;
ALTER FUNCTION ledger.begin_token_keys OWNER TO bitnexus_writer;
ALTER FUNCTION ledger.rotate_token_keys OWNER TO bitnexus_writer;
REVOKE CREATE ON SCHEMA ledger FROM bitnexus_writer;
