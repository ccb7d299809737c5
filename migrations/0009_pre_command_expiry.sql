-- Why: what became of a command is kept for 24 h, so that a repeat has the same answer (ledger/README.md), and deleted afterwards.

-- Found without an index, so that an append pays nothing for it (one on tenant_id, recorded_at costs 1.5 to 3 µs an event, 4 to 6 %
-- of the call at 256 events a flush; a BRIN 0.8 to 2): the table is walked through in its physical order, a few blocks at a time,
-- once an hour. This row says how far the walk is. It is also the lock: who has it walks, everybody else does not wait.
-- Not a tenant's table, as ledger.master_keys: it is about the installation.
CREATE TABLE ledger.expiry (
    only_row boolean     PRIMARY KEY DEFAULT true CHECK (only_row),
    block    bigint      NOT NULL,  -- of ledger.commands, the next one to look at; 0: the last walk has ended
    begun_at timestamptz NOT NULL   -- the walk
);
INSERT INTO ledger.expiry (block, begun_at) VALUES (0, '-infinity');
GRANT SELECT, UPDATE ON ledger.expiry TO bitnexus_writer;
GRANT DELETE ON ledger.commands TO bitnexus_writer;

-- Deletes the records in the next p_blocks (1 to 10,000) blocks that are older than 24 h by this server's clock; nobody can ask for
-- younger ones. o_more: the walk has not ended.
CREATE FUNCTION ledger.expire_commands(p_blocks int) RETURNS TABLE (o_deleted bigint, o_more boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    KEPT       CONSTANT interval := '24 hours';
    EVERY      CONSTANT interval := '1 hour';
    BLOCKS_MAX CONSTANT int := 10000;
    now        CONSTANT timestamptz := clock_timestamp();
    place      ledger.expiry;
    blocks     bigint;
    following  bigint;
    deleted    bigint;
BEGIN
    IF (p_blocks BETWEEN 1 AND BLOCKS_MAX) IS NOT TRUE THEN
        RAISE EXCEPTION 'ledger.expire_commands looks at 1 to % blocks, not at %', BLOCKS_MAX, p_blocks USING ERRCODE = '22023';
    END IF;
    SELECT x.* INTO place FROM ledger.expiry x FOR UPDATE SKIP LOCKED;
    IF NOT FOUND OR (place.block = 0 AND now < place.begun_at + EVERY) THEN
        RETURN QUERY SELECT 0::bigint, false;
        RETURN;
    END IF;
    blocks := pg_relation_size('ledger.commands') / current_setting('block_size')::bigint;
    following := place.block + p_blocks;
    DELETE FROM ledger.commands k
    WHERE k.ctid >= format('(%s,0)', place.block)::tid AND k.ctid < format('(%s,0)', following)::tid AND k.recorded_at < now - KEPT;
    GET DIAGNOSTICS deleted = ROW_COUNT;
    UPDATE ledger.expiry SET
        block = CASE WHEN following < blocks THEN following ELSE 0 END,
        begun_at = CASE WHEN place.block = 0 THEN now ELSE place.begun_at END;
    RETURN QUERY SELECT deleted, following < blocks;
END
$$;

REVOKE ALL ON FUNCTION ledger.expire_commands FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ledger.expire_commands TO bitnexus_projector;  -- of all tenants, as everything else of that role

-- As in 0002: the writer owns what it does in everybody's stead.
GRANT CREATE ON SCHEMA ledger TO bitnexus_writer;
ALTER FUNCTION ledger.expire_commands OWNER TO bitnexus_writer;
REVOKE CREATE ON SCHEMA ledger FROM bitnexus_writer;
