-- Why: a tenant moves here from another installation with its recorded_at and its hashes (docs/tenant-files.md). Only the owner
-- may do that: whoever holds the app role can still choose neither a position, nor a hash, nor a time.

-- All of it happens in one transaction: until it commits, nobody sees anything of the tenant, and a killed one leaves nothing.
-- The head was made by the very transaction that asks, so no function below touches a tenant that is in use.
CREATE FUNCTION ledger.restoring(tenant uuid) RETURNS ledger.heads
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    head ledger.heads;
BEGIN
    SELECT h.* INTO head FROM ledger.heads h WHERE h.tenant_id = tenant AND h.xmin = pg_current_xact_id()::xid;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the tenant % was not begun by this transaction', tenant USING ERRCODE = '55000';
    END IF;
    RETURN head;
END
$$;

-- False: there is something of the tenant already. Waits for another import of it to end.
CREATE FUNCTION ledger.restore_begin(tenant uuid) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO ledger.heads (tenant_id, position, hash, recorded_at)
    VALUES (tenant, 0, sha256(convert_to('bitnexus ledger v1', 'UTF8') || '\x00'::bytea || uuid_send(tenant)), '-infinity')
    ON CONFLICT DO NOTHING;
    RETURN FOUND
        AND NOT EXISTS (SELECT FROM ledger.events x WHERE x.tenant_id = tenant)
        AND NOT EXISTS (SELECT FROM ledger.commands x WHERE x.tenant_id = tenant)
        AND NOT EXISTS (SELECT FROM ledger.reservations x WHERE x.tenant_id = tenant)
        AND NOT EXISTS (SELECT FROM ledger.secrets x WHERE x.tenant_id = tenant)
        AND NOT EXISTS (SELECT FROM ledger.subjects x WHERE x.tenant_id = tenant)
        AND NOT EXISTS (SELECT FROM ledger.subject_keys x WHERE x.tenant_id = tenant);
END
$$;

-- The next events of the stream. Nobody passes a position or a hash in: they are computed here, and the caller compares.
CREATE FUNCTION ledger.restore_events(
    tenant       uuid,
    e_originator uuid[],
    e_version    int[],
    e_topic      text[],
    e_recorded   timestamptz[],
    e_state      bytea[],
    e_metadata   bytea[]
) RETURNS TABLE (o_position bigint, o_hash bytea)  -- of the last one
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    LEAF_BYTES_MAX CONSTANT int := 65535;
    LEAF_BYTES_FIXED CONSTANT int := 97;  -- as in ledger.append
    n          CONSTANT int := cardinality(e_originator);
    prefix     CONSTANT bytea := uuid_send(tenant);
    head       ledger.heads := ledger.restoring(tenant);
    position   bigint := head.position;
    hash       bytea := head.hash;
    recorded   timestamptz := head.recorded_at;
    x_position bigint[] := array_fill(NULL::bigint, ARRAY[n]);
    x_hash     bytea[] := array_fill(NULL::bytea, ARRAY[n]);
BEGIN
    IF (n > 0
        AND ledger.is_list(e_originator) AND ledger.is_list(e_version) AND ledger.is_list(e_topic)
        AND ledger.is_list(e_recorded) AND ledger.is_list(e_state) AND ledger.is_list(e_metadata)
        AND cardinality(e_version) = n AND cardinality(e_topic) = n AND cardinality(e_recorded) = n
        AND cardinality(e_state) = n AND cardinality(e_metadata) = n) IS NOT TRUE THEN
        RAISE EXCEPTION 'ledger.restore_events was given arrays that do not fit together' USING ERRCODE = '22023';
    END IF;
    FOR e IN 1 .. n LOOP
        IF e_recorded[e] < recorded OR NOT isfinite(e_recorded[e]) THEN
            RAISE EXCEPTION 'the event at position % was recorded before the one that it follows', position + 1 USING ERRCODE = '22023';
        END IF;
        IF octet_length(e_state[e]) + octet_length(e_metadata[e]) + octet_length(e_topic[e]) + LEAF_BYTES_FIXED > LEAF_BYTES_MAX THEN
            RAISE EXCEPTION 'the event at position % is too large', position + 1 USING ERRCODE = '22023';
        END IF;
        position := position + 1;
        recorded := e_recorded[e];
        hash := sha256('\x0001'::bytea || hash || prefix || int8send(position) || uuid_send(e_originator[e]) || int4send(e_version[e])
            || int8send((extract(epoch FROM recorded) * 1000000)::bigint)
            || int4send(octet_length(e_topic[e])) || convert_to(e_topic[e], 'UTF8')
            || int4send(octet_length(e_state[e])) || e_state[e]
            || int4send(octet_length(e_metadata[e])) || e_metadata[e]);
        x_position[e] := position;
        x_hash[e] := hash;
    END LOOP;
    INSERT INTO ledger.events (tenant_id, position, originator_id, originator_version, topic, recorded_at, state, metadata, hash)
    SELECT tenant, x.* FROM unnest(x_position, e_originator, e_version, e_topic, e_recorded, e_state, e_metadata, x_hash)
        AS x (at, originator, version, topic, recorded, state, metadata, hash);
    UPDATE ledger.heads h SET position = position, hash = hash, recorded_at = recorded WHERE h.tenant_id = tenant;
    RETURN QUERY SELECT position, hash;
END
$$;

-- What the events claim, keyed for this installation. A key that two of them claim raises unique_violation.
CREATE FUNCTION ledger.restore_reservations(tenant uuid, r_kind text[], r_key bytea[], r_owner uuid[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM ledger.restoring(tenant);
    INSERT INTO ledger.reservations (tenant_id, kind, key, owner)
    SELECT tenant, x.kind, x.key, x.owner FROM unnest(r_kind, r_key, r_owner) AS x (kind, key, owner);
END
$$;

-- A person known by a reference is named by every one of their events; the first stands.
CREATE FUNCTION ledger.restore_subjects(tenant uuid, s_kind text[], s_ref bytea[], s_subject uuid[]) RETURNS bigint  -- how many were new
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    made bigint;
BEGIN
    PERFORM ledger.restoring(tenant);
    INSERT INTO ledger.subjects (tenant_id, kind, ref, subject_id)
    SELECT tenant, x.kind, x.ref, x.subject FROM unnest(s_kind, s_ref, s_subject) AS x (kind, ref, subject)
    ON CONFLICT DO NOTHING;
    GET DIAGNOSTICS made = ROW_COUNT;
    RETURN made;
END
$$;

-- Keys of persons, wrapped by this installation's master key. A subject that is given twice raises unique_violation.
CREATE FUNCTION ledger.restore_keys(tenant uuid, k_subject uuid[], k_wrapped bytea[], k_master_key_id text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM ledger.restoring(tenant);
    INSERT INTO ledger.subject_keys (tenant_id, subject_id, wrapped, master_key_id)
    SELECT tenant, x.subject, x.wrapped, k_master_key_id FROM unnest(k_subject, k_wrapped) AS x (subject, wrapped);
END
$$;

-- Who was erased stays so: as in ledger.append_erasing, whatever the file holds of them.
CREATE FUNCTION ledger.restore_erased(tenant uuid, subjects uuid[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM ledger.restoring(tenant);
    INSERT INTO ledger.erased_subjects (tenant_id, subject_id) SELECT tenant, x.subject FROM unnest(subjects) AS x (subject)
    ON CONFLICT DO NOTHING;
    DELETE FROM ledger.subject_keys k WHERE k.tenant_id = tenant AND k.subject_id = ANY (subjects);
    DELETE FROM ledger.subjects s WHERE s.tenant_id = tenant AND s.subject_id = ANY (subjects);
END
$$;

-- Those that were restored: the owner itself sees no row (forced row-level security).
CREATE FUNCTION ledger.restored_keys(tenant uuid, subjects uuid[]) RETURNS TABLE (o_subject uuid, o_wrapped bytea)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM ledger.restoring(tenant);
    RETURN QUERY SELECT k.subject_id, k.wrapped FROM ledger.subject_keys k
                 WHERE k.tenant_id = tenant AND k.subject_id = ANY (subjects);
END
$$;

-- The last word before the commit: the stream ends where it has to.
CREATE FUNCTION ledger.restore_finish(tenant uuid, p_position bigint, p_hash bytea) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    head ledger.heads := ledger.restoring(tenant);
BEGIN
    IF (head.position > 0 AND head.position = p_position AND head.hash = p_hash) IS NOT TRUE THEN
        RAISE EXCEPTION 'the stream ends at position %, not at %', head.position, p_position USING ERRCODE = '22023';
    END IF;
END
$$;

REVOKE ALL ON FUNCTION ledger.restoring, ledger.restore_begin, ledger.restore_events, ledger.restore_reservations, ledger.restore_subjects,
    ledger.restore_keys, ledger.restore_erased, ledger.restored_keys, ledger.restore_finish FROM PUBLIC;
-- No role that a process can become gets EXECUTE: the owner alone, whom only DATABASE_URL names.
GRANT EXECUTE ON FUNCTION ledger.restoring TO bitnexus_writer;
GRANT EXECUTE ON FUNCTION ledger.restore_begin, ledger.restore_events, ledger.restore_reservations, ledger.restore_subjects,
    ledger.restore_keys, ledger.restore_erased, ledger.restored_keys, ledger.restore_finish TO CURRENT_USER;

-- As in 0002: the writer owns what it does in everybody's stead.
GRANT CREATE ON SCHEMA ledger TO bitnexus_writer;
ALTER FUNCTION ledger.restore_begin OWNER TO bitnexus_writer;
ALTER FUNCTION ledger.restore_events OWNER TO bitnexus_writer;
ALTER FUNCTION ledger.restore_reservations OWNER TO bitnexus_writer;
ALTER FUNCTION ledger.restore_subjects OWNER TO bitnexus_writer;
ALTER FUNCTION ledger.restore_keys OWNER TO bitnexus_writer;
ALTER FUNCTION ledger.restore_erased OWNER TO bitnexus_writer;
ALTER FUNCTION ledger.restored_keys OWNER TO bitnexus_writer;
ALTER FUNCTION ledger.restore_finish OWNER TO bitnexus_writer;
REVOKE CREATE ON SCHEMA ledger FROM bitnexus_writer;
