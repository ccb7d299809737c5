-- Why: what many commands look up at the same moment is one call (ledger/lookups.py).

-- Of each thing that is wanted, an aggregate by its id (x_kind '') or the holder of a reservation, the events from version x_after on.
-- An event of exactly that version comes without its state, which the asker has: its hash says whether it is the same one, and with
-- it everything before. For a holder x_after counts only if it still is x_owner.
CREATE FUNCTION ledger.look_up(
    p_tenants uuid[],   -- distinct
    p_counts  int[],    -- how many things are wanted of each; they follow each other in x_*
    x_kind    text[],
    x_key     bytea[],  -- of a reservation; of an aggregate empty
    x_owner   uuid[],   -- the aggregate; of a reservation who held it when it was last looked up, or any id
    x_after   int[]     -- 0: nothing is known
) RETURNS TABLE (
    o_wanted      int,     -- index into x_*
    o_owner       uuid,    -- NULL: nobody holds that
    o_position    bigint,  -- NULL: there is no such event
    o_version     int,
    o_topic       text,
    o_recorded_at timestamptz,
    o_state       bytea,
    o_hash        bytea
)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    first int := 1;
BEGIN
    FOR t IN 1 .. cardinality(p_tenants) LOOP
        EXECUTE format('SET LOCAL bitnexus.tenant = %L', p_tenants[t]);
        -- OFFSET 0 keeps each look-up an index scan of its own, whatever the planner thinks of the arrays' lengths.
        RETURN QUERY
            SELECT (first + x.n - 1)::int, held.owner, v.position, v.originator_version, v.topic, v.recorded_at,
                   CASE WHEN v.originator_version > held.after THEN v.state END, v.hash
            FROM unnest(x_kind[first : first + p_counts[t] - 1], x_key[first : first + p_counts[t] - 1],
                        x_owner[first : first + p_counts[t] - 1], x_after[first : first + p_counts[t] - 1])
                 WITH ORDINALITY AS x (kind, key, owner, after, n)
            LEFT JOIN LATERAL (
                SELECT x.owner, x.after WHERE x.kind = ''
                UNION ALL
                SELECT r.owner, CASE WHEN r.owner = x.owner THEN x.after ELSE 0 END FROM ledger.reservations r
                WHERE x.kind <> '' AND r.tenant_id = p_tenants[t] AND r.kind = x.kind AND r.key = x.key
                OFFSET 0
            ) held ON true
            LEFT JOIN LATERAL (
                SELECT e.position, e.originator_version, e.topic, e.recorded_at, e.state, e.hash FROM ledger.events e
                WHERE e.tenant_id = p_tenants[t] AND e.originator_id = held.owner AND e.originator_version >= held.after
                ORDER BY e.originator_version OFFSET 0
            ) v ON true
            ORDER BY x.n, v.originator_version;
        first := first + p_counts[t];
    END LOOP;
END
$$;

REVOKE ALL ON FUNCTION ledger.look_up FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ledger.look_up TO bitnexus_app;
