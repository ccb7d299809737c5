-- Why: the only way to write an event. What it promises, and why, stands in ledger/README.md.

-- Whether an array is a plain list: one dimension from 1 on (or empty), no NULL in it. NULL if there is no array.
CREATE FUNCTION ledger.is_list(items anyarray) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT (cardinality(items) = 0 OR array_ndims(items) = 1 AND array_lower(items, 1) = 1) AND array_position(items, NULL) IS NULL
$$;

CREATE FUNCTION ledger.append(
    p_tenants     uuid[],   -- distinct
    c_tenant      int[],    -- of each command: index into p_tenants, never decreasing
    c_id          uuid[],
    c_fingerprint bytea[],
    c_outcome     bytea[],
    c_events      int[],    -- how many events it carries; they follow each other in e_*
    e_originator  uuid[],
    e_version     int[],
    e_topic       text[],
    e_state       bytea[],
    e_metadata    bytea[],
    r_command     int[],    -- of each reservation: index of its command
    r_kind        text[],
    r_key         bytea[],
    r_owner       uuid[],
    r_claim       boolean[],  -- true claims, false releases; within a command releases come first
    s_command     int[],    -- of each secret: index of its command
    s_owner       uuid[],
    s_kind        text[],
    s_value       bytea[]   -- NULL deletes
) RETURNS TABLE (
    o_status      smallint,     -- 0 appended, 1 replayed, 2 id reused, 3 version conflict, 4 reservation taken, 5 too large, 6 unknown tenant
    o_position    bigint,
    o_recorded_at timestamptz,
    o_outcome     bytea,        -- of a replayed command: the stored one
    o_kind        text,         -- of a taken reservation
    o_owner       uuid          -- of a taken reservation: its holder; of a version conflict: the originator
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    LEAF_BYTES_MAX CONSTANT int := 65535;
    LEAF_BYTES_FIXED CONSTANT int := 97;  -- 1 + 32 + 16 + 8 + 16 + 4 + 8 and three lengths of 4
    STORED CONSTANT int := -1;
    n_tenants  CONSTANT int := cardinality(p_tenants);
    n_commands CONSTANT int := cardinality(c_id);
    n_events   CONSTANT int := cardinality(e_originator);
    releases   CONSTANT boolean := false = ANY (r_claim);
    decided    boolean := false;  -- whether collisions were looked for one by one
    head       record;
    found      record;
    e int; t int; o int; previous_t int;
    -- heads, by index into p_tenants: as they are, and as they will be
    h_position bigint[];
    h_hash     bytea[];
    h_recorded timestamptz[];
    n_position bigint[];
    n_hash     bytea[];
    -- the tenant whose commands are being chained
    position   bigint;
    hash       bytea;
    recorded   timestamptz;
    prefix     bytea;   -- tenant
    stamp      bytea;   -- recorded_at as leaf bytes
    -- per event; NULL position: its command was refused
    x_tenant   uuid[];
    x_position bigint[];
    x_recorded timestamptz[];
    x_hash     bytea[];
    -- per command
    y_status   smallint[];
    y_position bigint[];
    y_recorded timestamptz[];
    y_outcome  bytea[];
    y_kind     text[];
    y_owner    uuid[];
    y_first    int[];   -- of an id given twice in this call: the command that it repeats
    -- when collisions are looked for: equal things have one slot
    i_slot int[]; i_by int[];                  -- command ids; which command of this call has it
    v_slot int[]; v_by int[]; v_wanted int[];  -- versions; who has it (STORED: a stored event), who asked for it last
    -- reservations: operations in order, and by slot who holds the key, before and after
    o_command int[] := '{}'; o_slot int[] := '{}'; o_claim boolean[] := '{}'; o_holder uuid[] := '{}'; o_kinds text[] := '{}';
    k_command int[] := '{}'; k_kind text[] := '{}'; k_key bytea[] := '{}'; k_before uuid[] := '{}'; k_after uuid[] := '{}'; k_undo uuid[];
BEGIN
    -- Guards: malformed input is refused whole, before anything is locked. Subscripts and unnest then see the same elements.
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'ledger.append needs READ COMMITTED: it must see what the lock on the head waited for' USING ERRCODE = '25001';
    END IF;
    IF (ledger.is_list(p_tenants) AND n_tenants > 0 AND n_commands > 0
        AND ledger.is_list(c_tenant) AND ledger.is_list(c_id) AND ledger.is_list(c_fingerprint) AND ledger.is_list(c_outcome) AND ledger.is_list(c_events)
        AND ledger.is_list(e_originator) AND ledger.is_list(e_version) AND ledger.is_list(e_topic) AND ledger.is_list(e_state) AND ledger.is_list(e_metadata)
        AND ledger.is_list(r_command) AND ledger.is_list(r_kind) AND ledger.is_list(r_key) AND ledger.is_list(r_owner) AND ledger.is_list(r_claim)
        AND ledger.is_list(s_command) AND ledger.is_list(s_owner) AND ledger.is_list(s_kind)
        AND (cardinality(s_value) = 0 OR array_ndims(s_value) = 1 AND array_lower(s_value, 1) = 1)
        AND cardinality(c_tenant) = n_commands AND cardinality(c_fingerprint) = n_commands AND cardinality(c_outcome) = n_commands
        AND cardinality(c_events) = n_commands
        AND cardinality(e_version) = n_events AND cardinality(e_topic) = n_events AND cardinality(e_state) = n_events AND cardinality(e_metadata) = n_events
        AND cardinality(r_kind) = cardinality(r_command) AND cardinality(r_key) = cardinality(r_command)
        AND cardinality(r_owner) = cardinality(r_command) AND cardinality(r_claim) = cardinality(r_command)
        AND cardinality(s_owner) = cardinality(s_command) AND cardinality(s_kind) = cardinality(s_command) AND cardinality(s_value) = cardinality(s_command)
        AND (SELECT count(DISTINCT x) = n_tenants FROM unnest(p_tenants) x)
        AND (SELECT sum(x) = n_events AND min(x) >= 0 FROM unnest(c_events) x)
        AND (SELECT coalesce(min(x) >= 1, true) FROM unnest(e_version) x)
        AND (SELECT coalesce(min(x) >= 1 AND max(x) <= n_commands, true) FROM unnest(r_command) x)
        AND (SELECT coalesce(min(octet_length(x)) = 32 AND max(octet_length(x)) = 32, true) FROM unnest(r_key) x)
        AND (SELECT coalesce(min(x) >= 1 AND max(x) <= n_commands, true) FROM unnest(s_command) x)) IS NOT TRUE THEN
        RAISE EXCEPTION 'ledger.append was given arrays that do not fit together' USING ERRCODE = '22023';
    END IF;

    -- Lock the heads in tenant order, so that two flushes never wait for each other in a circle. Only then take the time.
    h_position := array_fill(NULL::bigint, ARRAY[n_tenants]);
    h_hash := array_fill(NULL::bytea, ARRAY[n_tenants]);
    h_recorded := array_fill(NULL::timestamptz, ARRAY[n_tenants]);
    FOR head IN SELECT h.tenant_id, h.position AS at, h.hash AS tip, h.recorded_at AS last
                FROM ledger.heads h WHERE h.tenant_id = ANY (p_tenants) ORDER BY h.tenant_id FOR UPDATE LOOP
        t := array_position(p_tenants, head.tenant_id);
        h_position[t] := head.at;
        h_hash[t] := head.tip;
        h_recorded[t] := head.last;
    END LOOP;
    recorded := clock_timestamp();
    FOR t IN 1 .. n_tenants LOOP
        h_recorded[t] := greatest(recorded, h_recorded[t]);
    END LOOP;

    y_status := array_fill(0::smallint, ARRAY[n_commands]);
    y_position := array_fill(NULL::bigint, ARRAY[n_commands]);
    y_recorded := array_fill(NULL::timestamptz, ARRAY[n_commands]);
    y_outcome := array_fill(NULL::bytea, ARRAY[n_commands]);
    y_kind := array_fill(NULL::text, ARRAY[n_commands]);
    y_owner := array_fill(NULL::uuid, ARRAY[n_commands]);
    x_tenant := array_fill(NULL::uuid, ARRAY[n_events]);
    e := 0;
    previous_t := 1;
    FOR c IN 1 .. n_commands LOOP
        t := c_tenant[c];
        IF t < previous_t OR t > n_tenants THEN
            RAISE EXCEPTION 'ledger.append was given commands out of tenant order' USING ERRCODE = '22023';
        END IF;
        previous_t := t;
        IF h_position[t] IS NULL THEN
            y_status[c] := 6;
        END IF;
        FOR i IN 1 .. c_events[c] LOOP
            e := e + 1;
            x_tenant[e] := p_tenants[t];
            IF octet_length(e_state[e]) + octet_length(e_metadata[e]) + octet_length(e_topic[e]) + LEAF_BYTES_FIXED > LEAF_BYTES_MAX AND y_status[c] = 0 THEN
                y_status[c] := 5;
            END IF;
        END LOOP;
    END LOOP;

    LOOP
        -- Optimistically: nearly always nothing collides. A key that is given back may be claimed again in the same call, so
        -- releases are looked at one by one from the start.
        IF decided OR NOT releases THEN
            -- Chain what is to be appended, in the order of the call.
            x_position := array_fill(NULL::bigint, ARRAY[n_events]);
            x_recorded := array_fill(NULL::timestamptz, ARRAY[n_events]);
            x_hash := array_fill(NULL::bytea, ARRAY[n_events]);
            n_position := h_position;
            n_hash := h_hash;
            e := 0;
            previous_t := 0;
            FOR c IN 1 .. n_commands LOOP
                IF y_status[c] <> 0 THEN
                    e := e + c_events[c];
                    CONTINUE;
                END IF;
                t := c_tenant[c];
                IF t <> previous_t THEN
                    IF previous_t > 0 THEN
                        n_position[previous_t] := position;
                        n_hash[previous_t] := hash;
                    END IF;
                    previous_t := t;
                    position := h_position[t];
                    hash := h_hash[t];
                    recorded := h_recorded[t];
                    prefix := uuid_send(p_tenants[t]);
                    stamp := int8send((extract(epoch FROM recorded) * 1000000)::bigint);
                END IF;
                FOR i IN 1 .. c_events[c] LOOP
                    e := e + 1;
                    position := position + 1;
                    hash := sha256('\x0001'::bytea || hash || prefix || int8send(position) || uuid_send(e_originator[e]) || int4send(e_version[e]) || stamp
                        || int4send(octet_length(e_topic[e])) || convert_to(e_topic[e], 'UTF8')
                        || int4send(octet_length(e_state[e])) || e_state[e]
                        || int4send(octet_length(e_metadata[e])) || e_metadata[e]);
                    x_position[e] := position;
                    x_hash[e] := hash;
                    x_recorded[e] := recorded;
                END LOOP;
                y_position[c] := position;
                y_recorded[c] := recorded;
            END LOOP;
            IF previous_t > 0 THEN
                n_position[previous_t] := position;
                n_hash[previous_t] := hash;
            END IF;

            BEGIN
                INSERT INTO ledger.commands (tenant_id, command_id, fingerprint, outcome, position, recorded_at)
                SELECT p_tenants[x.t], x.id, x.fingerprint, x.outcome, x.at, x.recorded
                FROM unnest(c_tenant, c_id, c_fingerprint, c_outcome, y_position, y_recorded, y_status) AS x (t, id, fingerprint, outcome, at, recorded, status)
                WHERE x.status = 0;
                INSERT INTO ledger.events (tenant_id, position, originator_id, originator_version, topic, recorded_at, state, metadata, hash)
                SELECT x.* FROM unnest(x_tenant, x_position, e_originator, e_version, e_topic, x_recorded, e_state, e_metadata, x_hash)
                    AS x (tenant, at, originator, version, topic, recorded, state, metadata, hash)
                WHERE x.at IS NOT NULL;
                IF decided THEN
                    DELETE FROM ledger.reservations r
                    USING unnest(k_command, k_kind, k_key, k_before, k_after) AS x (c, kind, key, before, after)
                    WHERE r.tenant_id = p_tenants[c_tenant[x.c]] AND r.kind = x.kind AND r.key = x.key AND x.before IS DISTINCT FROM x.after;
                    INSERT INTO ledger.reservations (tenant_id, kind, key, owner)
                    SELECT p_tenants[c_tenant[x.c]], x.kind, x.key, x.after
                    FROM unnest(k_command, k_kind, k_key, k_before, k_after) AS x (c, kind, key, before, after)
                    WHERE x.after IS NOT NULL AND x.before IS DISTINCT FROM x.after;
                ELSIF cardinality(r_command) > 0 THEN
                    INSERT INTO ledger.reservations (tenant_id, kind, key, owner)
                    SELECT p_tenants[c_tenant[x.c]], x.kind, x.key, x.owner
                    FROM unnest(r_command, r_kind, r_key, r_owner) AS x (c, kind, key, owner)
                    WHERE y_status[x.c] = 0;
                END IF;
                EXIT;
            EXCEPTION WHEN unique_violation THEN
                IF decided THEN
                    RAISE;
                END IF;
            END;
        END IF;
        decided := true;

        -- Somebody collided. What is stored does not change any more, the heads are locked. Equal ids, versions and keys get one
        -- slot each; then every command is decided in order, greedily: A takes X1, B wants X1 and Y1 and is refused, C gets Y1.
        FOR found IN
            SELECT x.c, k.fingerprint = x.fingerprint AS same, k.outcome, k.position AS at, k.recorded_at AS recorded
            FROM unnest(c_tenant, c_id, c_fingerprint) WITH ORDINALITY AS x (t, id, fingerprint, c)
            JOIN ledger.commands k ON k.tenant_id = p_tenants[x.t] AND k.command_id = x.id
        LOOP
            CONTINUE WHEN y_status[found.c] <> 0;
            y_status[found.c] := CASE WHEN found.same THEN 1 ELSE 2 END;
            IF found.same THEN
                y_outcome[found.c] := found.outcome;
                y_position[found.c] := found.at;
                y_recorded[found.c] := found.recorded;
            END IF;
        END LOOP;
        i_slot := ARRAY(SELECT dense_rank() OVER (ORDER BY x.t, x.id) FROM unnest(c_tenant, c_id) WITH ORDINALITY AS x (t, id, c) ORDER BY x.c);
        i_by := array_fill(0, ARRAY[n_commands]);
        v_slot := ARRAY(SELECT dense_rank() OVER (ORDER BY x.tenant, x.originator, x.version)
                        FROM unnest(x_tenant, e_originator, e_version) WITH ORDINALITY AS x (tenant, originator, version, e) ORDER BY x.e);
        v_by := array_fill(0, ARRAY[n_events]);
        v_wanted := v_by;
        FOR found IN
            SELECT x.e FROM unnest(x_tenant, e_originator, e_version) WITH ORDINALITY AS x (tenant, originator, version, e)
            JOIN ledger.events v ON v.tenant_id = x.tenant AND v.originator_id = x.originator AND v.originator_version = x.version
        LOOP
            v_by[v_slot[found.e]] := STORED;
        END LOOP;
        FOR found IN
            SELECT x.c, x.kind, x.key, x.owner, x.claim, r.owner AS before,
                   dense_rank() OVER (ORDER BY c_tenant[x.c], x.kind COLLATE "C", x.key) AS slot
            FROM unnest(r_command, r_kind, r_key, r_owner, r_claim) WITH ORDINALITY AS x (c, kind, key, owner, claim, n)
            LEFT JOIN ledger.reservations r ON r.tenant_id = p_tenants[c_tenant[x.c]] AND r.kind = x.kind AND r.key = x.key
            ORDER BY x.c, x.claim, x.n
        LOOP
            o_command := o_command || found.c;
            o_slot := o_slot || found.slot::int;
            o_claim := o_claim || found.claim;
            o_holder := o_holder || found.owner;
            o_kinds := o_kinds || found.kind;
            k_command[found.slot] := found.c;
            k_kind[found.slot] := found.kind;
            k_key[found.slot] := found.key;
            k_before[found.slot] := found.before;
            k_after[found.slot] := found.before;
        END LOOP;
        y_first := array_fill(NULL::int, ARRAY[n_commands]);
        e := 0;
        o := 1;
        FOR c IN 1 .. n_commands LOOP
            IF y_status[c] = 0 AND i_by[i_slot[c]] > 0 THEN
                t := i_by[i_slot[c]];
                y_status[c] := CASE WHEN c_fingerprint[t] = c_fingerprint[c] THEN 1 ELSE 2 END;
                y_first[c] := CASE WHEN c_fingerprint[t] = c_fingerprint[c] THEN t END;
            END IF;
            FOR i IN e + 1 .. e + c_events[c] LOOP
                EXIT WHEN y_status[c] <> 0;
                IF v_by[v_slot[i]] <> 0 OR v_wanted[v_slot[i]] = c THEN
                    y_status[c] := 3;
                    y_owner[c] := e_originator[i];
                END IF;
                v_wanted[v_slot[i]] := c;
            END LOOP;
            k_undo := k_after;
            WHILE o <= cardinality(o_command) AND o_command[o] = c LOOP
                IF y_status[c] <> 0 THEN
                    NULL;
                ELSIF NOT o_claim[o] THEN
                    IF k_after[o_slot[o]] = o_holder[o] THEN
                        k_after[o_slot[o]] := NULL;
                    END IF;
                ELSIF k_after[o_slot[o]] IS NOT NULL THEN
                    y_status[c] := 4;
                    y_kind[c] := o_kinds[o];
                    y_owner[c] := k_after[o_slot[o]];
                ELSE
                    k_after[o_slot[o]] := o_holder[o];
                END IF;
                o := o + 1;
            END LOOP;
            IF y_status[c] = 0 THEN
                i_by[i_slot[c]] := c;
                FOR i IN e + 1 .. e + c_events[c] LOOP
                    v_by[v_slot[i]] := c;
                END LOOP;
            ELSE
                k_after := k_undo;
            END IF;
            e := e + c_events[c];
        END LOOP;
    END LOOP;

    -- Of several values of one secret the last stands.
    IF cardinality(s_command) > 0 THEN
        WITH last AS (
            SELECT DISTINCT ON (1, 2, 3) p_tenants[c_tenant[x.c]] AS tenant, x.owner, x.kind, x.value
            FROM unnest(s_command, s_owner, s_kind, s_value) WITH ORDINALITY AS x (c, owner, kind, value, n)
            WHERE y_status[x.c] = 0 ORDER BY 1, 2, 3, x.c DESC, x.n DESC
        ), deleted AS (
            DELETE FROM ledger.secrets s USING last x WHERE x.value IS NULL AND s.tenant_id = x.tenant AND s.owner = x.owner AND s.kind = x.kind
        )
        INSERT INTO ledger.secrets (tenant_id, owner, kind, value)
        SELECT x.tenant, x.owner, x.kind, x.value FROM last x WHERE x.value IS NOT NULL
        ON CONFLICT ON CONSTRAINT secrets_pkey DO UPDATE SET value = excluded.value;
    END IF;

    UPDATE ledger.heads h SET position = x.at, hash = x.tip, recorded_at = x.recorded
    FROM unnest(p_tenants, n_position, n_hash, h_recorded) AS x (tenant, at, tip, recorded)
    WHERE h.tenant_id = x.tenant AND x.at > h.position;

    IF y_first IS NOT NULL THEN
        FOR c IN 1 .. n_commands LOOP
            IF y_first[c] IS NOT NULL THEN
                y_outcome[c] := c_outcome[y_first[c]];
                y_position[c] := y_position[y_first[c]];
                y_recorded[c] := y_recorded[y_first[c]];
            END IF;
        END LOOP;
    END IF;
    RETURN QUERY SELECT * FROM unnest(y_status, y_position, y_recorded, y_outcome, y_kind, y_owner);
END
$$;

-- A stream must be opened before anything is appended to it. Opening it again changes nothing.
CREATE FUNCTION ledger.open_stream(tenant uuid) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO ledger.heads (tenant_id, position, hash, recorded_at)
    VALUES (tenant, 0, sha256(convert_to('bitnexus ledger v1', 'UTF8') || '\x00'::bytea || uuid_send(tenant)), clock_timestamp())
    ON CONFLICT DO NOTHING;
$$;

-- The subject of each reference; the ids offered are taken where a reference is new.
CREATE FUNCTION ledger.open_subjects(tenant uuid, p_kind text, p_refs bytea[], p_subjects uuid[])
RETURNS TABLE (o_ref bytea, o_subject uuid)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO ledger.subjects (tenant_id, kind, ref, subject_id)
    SELECT tenant, p_kind, x.ref, x.subject FROM unnest(p_refs, p_subjects) AS x (ref, subject) ORDER BY x.ref
    ON CONFLICT DO NOTHING;
    RETURN QUERY SELECT s.ref, s.subject_id FROM ledger.subjects s WHERE s.tenant_id = tenant AND s.kind = p_kind AND s.ref = ANY (p_refs);
END
$$;

-- The wrapped key of each subject; the keys offered are taken where a subject has none.
CREATE FUNCTION ledger.open_subject_keys(tenant uuid, p_subjects uuid[], p_wrapped bytea[], p_master_key_id text)
RETURNS TABLE (o_subject uuid, o_wrapped bytea, o_master_key_id text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO ledger.subject_keys (tenant_id, subject_id, wrapped, master_key_id)
    SELECT tenant, x.subject, x.wrapped, p_master_key_id FROM unnest(p_subjects, p_wrapped) AS x (subject, wrapped) ORDER BY x.subject
    ON CONFLICT DO NOTHING;
    RETURN QUERY SELECT k.subject_id, k.wrapped, k.master_key_id FROM ledger.subject_keys k
                 WHERE k.tenant_id = tenant AND k.subject_id = ANY (p_subjects);
END
$$;

-- Events of aggregates, in order of each; to_version bounds what is read of them.
CREATE FUNCTION ledger.read_aggregates(tenant uuid, originators uuid[], to_version int)
RETURNS TABLE (o_position bigint, o_originator uuid, o_version int, o_topic text, o_recorded_at timestamptz, o_state bytea)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    EXECUTE format('SET LOCAL bitnexus.tenant = %L', tenant);
    RETURN QUERY SELECT v.position, v.originator_id, v.originator_version, v.topic, v.recorded_at, v.state FROM ledger.events v
                 WHERE v.tenant_id = tenant AND v.originator_id = ANY (originators) AND v.originator_version <= to_version
                 ORDER BY v.originator_id, v.originator_version;
END
$$;

-- The same for the holders of reservations: one round trip from SKUs to products.
CREATE FUNCTION ledger.read_holders(tenant uuid, p_kind text, p_keys bytea[])
RETURNS TABLE (o_key bytea, o_position bigint, o_originator uuid, o_version int, o_topic text, o_recorded_at timestamptz, o_state bytea)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    EXECUTE format('SET LOCAL bitnexus.tenant = %L', tenant);
    RETURN QUERY SELECT r.key, v.position, v.originator_id, v.originator_version, v.topic, v.recorded_at, v.state
                 FROM ledger.reservations r
                 JOIN ledger.events v ON v.tenant_id = r.tenant_id AND v.originator_id = r.owner
                 WHERE r.tenant_id = tenant AND r.kind = p_kind AND r.key = ANY (p_keys)
                 ORDER BY r.key, v.originator_version;
END
$$;

CREATE FUNCTION ledger.read_reservations(tenant uuid, p_kind text, p_keys bytea[]) RETURNS TABLE (o_key bytea, o_owner uuid)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    EXECUTE format('SET LOCAL bitnexus.tenant = %L', tenant);
    RETURN QUERY SELECT r.key, r.owner FROM ledger.reservations r WHERE r.tenant_id = tenant AND r.kind = p_kind AND r.key = ANY (p_keys);
END
$$;

CREATE FUNCTION ledger.read_secret(tenant uuid, p_owner uuid, p_kind text) RETURNS TABLE (o_value bytea)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    EXECUTE format('SET LOCAL bitnexus.tenant = %L', tenant);
    RETURN QUERY SELECT s.value FROM ledger.secrets s WHERE s.tenant_id = tenant AND s.owner = p_owner AND s.kind = p_kind;
END
$$;

CREATE FUNCTION ledger.read_command(tenant uuid, p_command uuid)
RETURNS TABLE (o_fingerprint bytea, o_outcome bytea, o_position bigint, o_recorded_at timestamptz)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    EXECUTE format('SET LOCAL bitnexus.tenant = %L', tenant);
    RETURN QUERY SELECT k.fingerprint, k.outcome, k.position, k.recorded_at FROM ledger.commands k
                 WHERE k.tenant_id = tenant AND k.command_id = p_command;
END
$$;

CREATE FUNCTION ledger.read_head(tenant uuid) RETURNS TABLE (o_position bigint, o_hash bytea, o_recorded_at timestamptz)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    EXECUTE format('SET LOCAL bitnexus.tenant = %L', tenant);
    RETURN QUERY SELECT h.position, h.hash, h.recorded_at FROM ledger.heads h WHERE h.tenant_id = tenant;
END
$$;

-- A tenant's stream by position: at most p_limit events after p_after.
CREATE FUNCTION ledger.read_stream(tenant uuid, p_after bigint, p_limit int)
RETURNS TABLE (o_position bigint, o_originator uuid, o_version int, o_topic text, o_recorded_at timestamptz, o_state bytea, o_metadata bytea, o_hash bytea)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    EXECUTE format('SET LOCAL bitnexus.tenant = %L', tenant);
    RETURN QUERY SELECT v.position, v.originator_id, v.originator_version, v.topic, v.recorded_at, v.state, v.metadata, v.hash FROM ledger.events v
                 WHERE v.tenant_id = tenant AND v.position > p_after AND v.position <= p_after + p_limit
                 ORDER BY v.position;
END
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA ledger FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ledger.is_list TO bitnexus_writer;
GRANT EXECUTE ON FUNCTION ledger.set_tenant, ledger.app_tenant TO bitnexus_writer, bitnexus_app, bitnexus_projector, bitnexus_platform;
GRANT EXECUTE ON FUNCTION ledger.append, ledger.open_stream, ledger.open_subjects, ledger.open_subject_keys,
    ledger.read_aggregates, ledger.read_holders, ledger.read_reservations, ledger.read_secret, ledger.read_command, ledger.read_head, ledger.read_stream TO bitnexus_app;
GRANT EXECUTE ON FUNCTION ledger.read_stream, ledger.read_head TO bitnexus_projector;

-- The writer owns what it must be able to do in everybody's stead. It cannot make anything new in the schema afterwards.
GRANT CREATE ON SCHEMA ledger TO bitnexus_writer;
ALTER FUNCTION ledger.append OWNER TO bitnexus_writer;
ALTER FUNCTION ledger.open_stream OWNER TO bitnexus_writer;
ALTER FUNCTION ledger.open_subjects OWNER TO bitnexus_writer;
ALTER FUNCTION ledger.open_subject_keys OWNER TO bitnexus_writer;
REVOKE CREATE ON SCHEMA ledger FROM bitnexus_writer;
