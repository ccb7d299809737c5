-- Why: a command that only reads something, as a sale reads its products, may be decided upon what a process has at hand, without
-- asking first, if the append makes sure that it still stands. Of 15 commands a call of ledger.look_up goes, 16 µs of the server's
-- processor each.

-- ledger.append, and what its commands were decided upon is what the database has at the commit: of each read the owner's last event
-- has that hash, and with a kind the owner holds that key. Otherwise nothing of the call is written: SQLSTATE BN001, whose detail
-- lists the reads that no longer stand, as indices. The heads are locked by then, so nobody changes what was looked at before the commit;
-- that it is looked at after the appending makes two commands of one call meet, too, one of which changes what the other one read.
CREATE FUNCTION ledger.append_validating(
    p_tenants     uuid[],   -- these are ledger.append's
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
    k_tenant      uuid[],   -- of each read, in any order: its tenant, one of p_tenants
    k_kind        text[],   -- '': an aggregate by its id
    k_key         bytea[],  -- of a reservation; of an aggregate empty
    k_owner       uuid[],   -- the aggregate
    k_hash        bytea[]   -- of its last event
) RETURNS TABLE (
    o_status      smallint,
    o_position    bigint,
    o_recorded_at timestamptz,
    o_outcome     bytea,
    o_kind        text,
    o_owner       uuid
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
#variable_conflict use_variable
DECLARE
    k_dims   CONSTANT text := '[1:' || cardinality(k_tenant) || ']';
    outdated text;
BEGIN
    IF (array_dims(k_tenant) = k_dims AND k_tenant <@ p_tenants
        AND array_dims(k_kind) = k_dims AND array_position(k_kind, NULL) IS NULL
        AND array_dims(k_key) = k_dims AND array_position(k_key, NULL) IS NULL
        AND array_dims(k_owner) = k_dims AND array_position(k_owner, NULL) IS NULL
        AND array_dims(k_hash) = k_dims AND array_position(k_hash, NULL) IS NULL) IS NOT TRUE THEN
        RAISE EXCEPTION 'ledger.append_validating was given arrays that do not fit together' USING ERRCODE = '22023';
    END IF;

    RETURN QUERY SELECT * FROM ledger.append(p_tenants, c_tenant, c_id, c_fingerprint, c_outcome, c_events, e_originator,
        e_version, e_topic, e_state, e_metadata, r_command, r_kind, r_key, r_owner, r_claim, s_command, s_owner, s_kind, s_value);

    SELECT string_agg(x.n::text, ' ') INTO outdated
    FROM unnest(k_tenant, k_kind, k_key, k_owner, k_hash) WITH ORDINALITY AS x (tenant, kind, key, owner, hash, n)
    WHERE x.hash IS DISTINCT FROM (SELECT e.hash FROM ledger.events e WHERE e.tenant_id = x.tenant AND e.originator_id = x.owner
                                   ORDER BY e.originator_version DESC LIMIT 1)
       OR x.kind <> '' AND x.owner IS DISTINCT FROM (SELECT r.owner FROM ledger.reservations r
                                                     WHERE r.tenant_id = x.tenant AND r.kind = x.kind AND r.key = x.key);
    IF outdated IS NOT NULL THEN
        RAISE EXCEPTION 'what a command was decided upon has changed' USING ERRCODE = 'BN001', DETAIL = outdated;
    END IF;
END
$$;

REVOKE ALL ON FUNCTION ledger.append_validating FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ledger.append_validating TO bitnexus_app;

-- As in 0002: the writer owns what it does in everybody's stead.
GRANT CREATE ON SCHEMA ledger TO bitnexus_writer;
ALTER FUNCTION ledger.append_validating OWNER TO bitnexus_writer;
REVOKE CREATE ON SCHEMA ledger FROM bitnexus_writer;
