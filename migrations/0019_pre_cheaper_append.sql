-- Why: a flush of 128 commands of one tenant takes a fifth less of the server's processor, one of a single command a quarter, one
-- over 50 tenants a twentieth. Arrays are unrolled side by side in a select list, which keeps no copy of each beside it as FROM
-- does; positions are given out apart from the chain, and at once where every command of one tenant carries one event. What
-- ledger.append promises is what it promised (0002_pre_append.sql, ledger/README.md).

-- The settings: a plan is made once, and every table is reached by its index. Plans live as long as their connection; those
-- that were made while the tables were empty read whole tables until somebody analyzed them.
CREATE OR REPLACE FUNCTION ledger.append(
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
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
#variable_conflict use_variable
DECLARE
    LEAF_BYTES_MAX CONSTANT int := 65535;
    LEAF_BYTES_FIXED CONSTANT int := 97;  -- 1 + 32 + 16 + 8 + 16 + 4 + 8 and three lengths of 4
    STORED CONSTANT int := -1;
    n_tenants  CONSTANT int := cardinality(p_tenants);
    n_commands CONSTANT int := cardinality(c_id);
    n_events   CONSTANT int := cardinality(e_originator);
    c_dims     CONSTANT text := '[1:' || n_commands || ']';  -- array_dims of a plain list of so many
    e_dims     CONSTANT text := '[1:' || n_events || ']';
    fits       boolean;           -- whether the arrays do
    single     boolean;           -- whether every command carries one event
    releases   boolean := false;
    refused    boolean := false;  -- whether some command was, so far
    decided    boolean := false;  -- whether collisions were looked for one by one
    head       record;
    found      record;
    e int; t int; o int;
    -- heads, by index into p_tenants: as they are (recorded_at: as it will be), and as they will be
    n_heads    int := 0;
    h_position bigint[];
    h_hash     bytea[];
    h_recorded timestamptz[];
    n_position bigint[];
    n_hash     bytea[];
    -- the tenant whose commands are being chained
    position   bigint;
    hash       bytea;
    clock      timestamptz;
    prefix     bytea;   -- tenant
    topic      text;    -- of the last event, and as leaf bytes with its length
    framed     bytea;
    stamp      bytea;   -- recorded_at as leaf bytes
    t_first    int[];   -- by index into p_tenants: from which event on
    t_last     int[];
    -- per event; NULL position: its command was refused
    e_tenant   int[];   -- index into p_tenants
    x_position bigint[];
    x_hash     bytea[];
    -- per command; what is not set is NULL
    y_status   smallint[];
    y_position bigint[];
    y_recorded timestamptz[];  -- of a replayed one
    y_outcome  bytea[];
    y_kind     text[];
    y_owner    uuid[];
    y_first    int[];   -- of an id given twice in this call: the command that it repeats
    -- when collisions are looked for: equal things have one slot
    i_slot int[]; i_by int[];                  -- command ids; which command of this call has it
    v_slot int[]; v_by int[]; v_wanted int[];  -- versions; who has it (STORED: a stored event), who asked for it last
    -- reservations: operations in order, and by slot who holds the key, before and after
    o_command int[]; o_slot int[]; o_claim boolean[]; o_holder uuid[]; o_kinds text[];
    k_command int[]; k_kind text[]; k_key bytea[]; k_before uuid[]; k_after uuid[]; k_undo uuid[];
BEGIN
    -- Guards: malformed input is refused whole, before anything is locked. Subscripts and unnest then see the same elements.
    -- They are split so that what a flush does not carry is not looked at: an expression costs more to set up than to run.
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'ledger.append needs READ COMMITTED: it must see what the lock on the head waited for' USING ERRCODE = '25001';
    END IF;
    fits := array_dims(p_tenants) = '[1:' || n_tenants || ']' AND array_position(p_tenants, NULL) IS NULL
        AND array_dims(c_tenant) = c_dims AND array_position(c_tenant, NULL) IS NULL AND 1 <= ALL (c_tenant) AND n_tenants >= ALL (c_tenant)
        AND array_dims(c_id) = c_dims AND array_position(c_id, NULL) IS NULL
        AND array_dims(c_fingerprint) = c_dims AND array_position(c_fingerprint, NULL) IS NULL
        AND array_dims(c_outcome) = c_dims AND array_position(c_outcome, NULL) IS NULL
        AND array_dims(c_events) = c_dims AND array_position(c_events, NULL) IS NULL AND 0 <= ALL (c_events);
    IF fits AND n_tenants > 1 THEN
        fits := (SELECT count(DISTINCT x) = n_tenants FROM unnest(p_tenants) x);
    END IF;
    IF n_events > 0 THEN
        fits := fits AND array_dims(e_originator) = e_dims AND array_position(e_originator, NULL) IS NULL
            AND array_dims(e_version) = e_dims AND array_position(e_version, NULL) IS NULL AND 1 <= ALL (e_version)
            AND array_dims(e_topic) = e_dims AND array_position(e_topic, NULL) IS NULL
            AND array_dims(e_state) = e_dims AND array_position(e_state, NULL) IS NULL
            AND array_dims(e_metadata) = e_dims AND array_position(e_metadata, NULL) IS NULL;
    ELSE
        fits := fits AND cardinality(e_originator) + cardinality(e_version) + cardinality(e_topic) + cardinality(e_state) + cardinality(e_metadata) = 0;
    END IF;
    single := n_events = n_commands AND 1 = ALL (c_events);
    IF fits AND NOT single THEN
        fits := (SELECT sum(x) = n_events FROM unnest(c_events) x);
    END IF;
    IF (cardinality(r_command) + cardinality(r_kind) + cardinality(r_key) + cardinality(r_owner) + cardinality(r_claim)
        + cardinality(s_command) + cardinality(s_owner) + cardinality(s_kind) + cardinality(s_value) = 0) IS NOT TRUE THEN
        fits := fits
            AND ledger.is_list(r_command) AND ledger.is_list(r_kind) AND ledger.is_list(r_key) AND ledger.is_list(r_owner) AND ledger.is_list(r_claim)
            AND ledger.is_list(s_command) AND ledger.is_list(s_owner) AND ledger.is_list(s_kind)
            AND (cardinality(s_value) = 0 OR array_ndims(s_value) = 1 AND array_lower(s_value, 1) = 1)
            AND cardinality(r_kind) = cardinality(r_command) AND cardinality(r_key) = cardinality(r_command)
            AND cardinality(r_owner) = cardinality(r_command) AND cardinality(r_claim) = cardinality(r_command)
            AND cardinality(s_owner) = cardinality(s_command) AND cardinality(s_kind) = cardinality(s_command) AND cardinality(s_value) = cardinality(s_command)
            AND 1 <= ALL (r_command) AND n_commands >= ALL (r_command) AND 1 <= ALL (s_command) AND n_commands >= ALL (s_command)
            AND (SELECT coalesce(min(octet_length(x)) = 32 AND max(octet_length(x)) = 32, true) FROM unnest(r_key) x);
        releases := false = ANY (r_claim);
    END IF;
    IF fits IS NOT TRUE THEN
        RAISE EXCEPTION 'ledger.append was given arrays that do not fit together' USING ERRCODE = '22023';
    END IF;

    -- Lock the heads in tenant order, so that two flushes never wait for each other in a circle. Only then take the time.
    h_position := array_fill(NULL::bigint, ARRAY[n_tenants]);
    h_hash := array_fill(NULL::bytea, ARRAY[n_tenants]);
    h_recorded := array_fill(NULL::timestamptz, ARRAY[n_tenants]);
    FOR head IN SELECT x.t, h.position AS at, h.hash AS tip, h.recorded_at AS last
                FROM unnest(p_tenants) WITH ORDINALITY AS x (tenant, t) JOIN ledger.heads h ON h.tenant_id = x.tenant
                ORDER BY h.tenant_id FOR UPDATE OF h LOOP
        h_position[head.t] := head.at;
        h_hash[head.t] := head.tip;
        h_recorded[head.t] := head.last;
        n_heads := n_heads + 1;
    END LOOP;
    clock := clock_timestamp();

    y_status := array_fill(0::smallint, ARRAY[n_commands]);
    y_position := array_fill(NULL::bigint, ARRAY[n_commands]);
    IF single THEN
        e_tenant := c_tenant;
    ELSE
        e_tenant := ARRAY(SELECT c_tenant[x.c] FROM unnest(c_events) WITH ORDINALITY AS x (n, c), generate_series(1, x.n) ORDER BY x.c);
    END IF;
    IF n_heads < n_tenants THEN
        FOR c IN 1 .. n_commands LOOP
            IF h_position[c_tenant[c]] IS NULL THEN
                y_status[c] := 6;
                refused := true;
            END IF;
        END LOOP;
    END IF;
    -- The arrays together are larger than any leaf in them.
    IF pg_column_size(e_topic) + pg_column_size(e_state) + pg_column_size(e_metadata) > LEAF_BYTES_MAX - LEAF_BYTES_FIXED AND EXISTS (
               SELECT FROM (SELECT unnest(e_topic) AS topic, unnest(e_state) AS state, unnest(e_metadata) AS metadata) x
               WHERE octet_length(x.state) + octet_length(x.metadata) + octet_length(x.topic) > LEAF_BYTES_MAX - LEAF_BYTES_FIXED) THEN
        e := 0;
        FOR c IN 1 .. n_commands LOOP
            FOR i IN 1 .. c_events[c] LOOP
                e := e + 1;
                IF octet_length(e_state[e]) + octet_length(e_metadata[e]) + octet_length(e_topic[e]) > LEAF_BYTES_MAX - LEAF_BYTES_FIXED AND y_status[c] = 0 THEN
                    y_status[c] := 5;
                    refused := true;
                END IF;
            END LOOP;
        END LOOP;
    END IF;

    LOOP
        -- Optimistically: nearly always nothing collides. A key that is given back may be claimed again in the same call, so
        -- releases are looked at one by one from the start.
        IF decided OR NOT releases THEN
            -- The positions of what is to be appended, in the order of the call; then its chain.
            n_position := h_position;
            n_hash := h_hash;
            x_hash := array_fill(NULL::bytea, ARRAY[n_events]);
            IF single AND n_tenants = 1 AND NOT refused THEN
                t_first := ARRAY[1];
                t_last := ARRAY[n_events];
                x_position := ARRAY(SELECT generate_series(h_position[1] + 1, h_position[1] + n_events));
                y_position := x_position;
                n_position[1] := h_position[1] + n_events;
            ELSE
                t_first := array_fill(1, ARRAY[n_tenants]);
                t_last := array_fill(0, ARRAY[n_tenants]);
                x_position := array_fill(NULL::bigint, ARRAY[n_events]);
                e := 0;
                t := 0;
                FOR c IN 1 .. n_commands LOOP
                    IF c_tenant[c] <> t THEN
                        IF c_tenant[c] < t THEN
                            RAISE EXCEPTION 'ledger.append was given commands out of tenant order' USING ERRCODE = '22023';
                        END IF;
                        t := c_tenant[c];
                        t_first[t] := e + 1;
                        position := h_position[t];
                    END IF;
                    IF y_status[c] <> 0 THEN
                        e := e + c_events[c];
                    ELSE
                        FOR i IN e + 1 .. e + c_events[c] LOOP
                            position := position + 1;
                            x_position[i] := position;
                        END LOOP;
                        e := e + c_events[c];
                        y_position[c] := position;
                        n_position[t] := position;
                    END IF;
                    t_last[t] := e;
                END LOOP;
            END IF;
            FOR s IN 1 .. n_tenants LOOP
                h_recorded[s] := greatest(clock, h_recorded[s]);
                hash := h_hash[s];
                prefix := uuid_send(p_tenants[s]);
                stamp := int8send((extract(epoch FROM h_recorded[s]) * 1000000)::bigint);
                FOR i IN t_first[s] .. t_last[s] LOOP
                    position := x_position[i];
                    CONTINUE WHEN position IS NULL;
                    IF framed IS NULL OR e_topic[i] <> topic THEN
                        topic := e_topic[i];
                        framed := int4send(octet_length(topic)) || convert_to(topic, 'UTF8');
                    END IF;
                    hash := sha256('\x0001'::bytea || hash || prefix || int8send(position) || uuid_send(e_originator[i]) || int4send(e_version[i]) || stamp
                        || framed || int4send(octet_length(e_state[i])) || e_state[i]
                        || int4send(octet_length(e_metadata[i])) || e_metadata[i]);
                    x_hash[i] := hash;
                END LOOP;
                n_hash[s] := hash;
            END LOOP;

            BEGIN
                INSERT INTO ledger.commands (tenant_id, command_id, fingerprint, outcome, position, recorded_at)
                SELECT p_tenants[x.t], x.id, x.fingerprint, x.outcome, x.at, h_recorded[x.t]
                FROM (SELECT unnest(c_tenant) AS t, unnest(c_id) AS id, unnest(c_fingerprint) AS fingerprint, unnest(c_outcome) AS outcome,
                             unnest(y_position) AS at, unnest(y_status) AS status) x
                WHERE x.status = 0;
                INSERT INTO ledger.events (tenant_id, position, originator_id, originator_version, topic, recorded_at, state, metadata, hash)
                SELECT p_tenants[x.t], x.at, x.originator, x.version, x.topic, h_recorded[x.t], x.state, x.metadata, x.hash
                FROM (SELECT unnest(e_tenant) AS t, unnest(x_position) AS at, unnest(e_originator) AS originator, unnest(e_version) AS version,
                             unnest(e_topic) AS topic, unnest(e_state) AS state, unnest(e_metadata) AS metadata, unnest(x_hash) AS hash) x
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
        refused := true;

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
        o_command := '{}'; o_slot := '{}'; o_claim := '{}'; o_holder := '{}'; o_kinds := '{}';
        k_command := '{}'; k_kind := '{}'; k_key := '{}'; k_before := '{}'; k_after := '{}';
        i_slot := ARRAY(SELECT dense_rank() OVER (ORDER BY x.t, x.id) FROM unnest(c_tenant, c_id) WITH ORDINALITY AS x (t, id, c) ORDER BY x.c);
        i_by := array_fill(0, ARRAY[n_commands]);
        v_slot := ARRAY(SELECT dense_rank() OVER (ORDER BY x.t, x.originator, x.version)
                        FROM unnest(e_tenant, e_originator, e_version) WITH ORDINALITY AS x (t, originator, version, e) ORDER BY x.e);
        v_by := array_fill(0, ARRAY[n_events]);
        v_wanted := v_by;
        FOR found IN
            SELECT x.e FROM unnest(e_tenant, e_originator, e_version) WITH ORDINALITY AS x (t, originator, version, e)
            JOIN ledger.events v ON v.tenant_id = p_tenants[x.t] AND v.originator_id = x.originator AND v.originator_version = x.version
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
                y_recorded[c] := h_recorded[c_tenant[c]];
            END IF;
        END LOOP;
    END IF;
    RETURN QUERY SELECT x.status, CASE WHEN x.status <= 1 THEN x.at END,
                        CASE x.status WHEN 0 THEN h_recorded[x.t] ELSE y_recorded[x.c] END, y_outcome[x.c], y_kind[x.c], y_owner[x.c]
                 FROM (SELECT unnest(y_status) AS status, unnest(y_position) AS at, unnest(c_tenant) AS t, generate_series(1, n_commands) AS c) x;
END
$$;
