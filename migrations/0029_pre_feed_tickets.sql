-- Why: a browser's EventSource and WebSocket cannot send a header. A ticket opens one stream within 30 s, in whichever process the
-- request comes to; a token in an address would open everything for a quarter of an hour, and addresses are written to logs.

-- Mutable, and outside the hash: nothing that happened in the shop. A ticket is known by its digest only.
CREATE TABLE ledger.feed_tickets (
    tenant_id  uuid        NOT NULL,
    digest     bytea       NOT NULL CHECK (octet_length(digest) = 32),
    session_id uuid        NOT NULL,
    holder     bytea       NOT NULL,  -- who may listen by it, as the one who issued it wrote it
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, digest)
);
-- For the oldest of a session.
CREATE INDEX feed_tickets_of_session ON ledger.feed_tickets (tenant_id, session_id, expires_at);

ALTER TABLE ledger.feed_tickets ENABLE ROW LEVEL SECURITY;
ALTER TABLE ledger.feed_tickets FORCE ROW LEVEL SECURITY;
-- Whoever could read the table without the functions would learn nothing that opens a stream; still nobody may.
CREATE POLICY writer ON ledger.feed_tickets TO bitnexus_writer USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, DELETE ON ledger.feed_tickets TO bitnexus_writer;

-- A session has at most p_unused_max tickets: the oldest go.
CREATE FUNCTION ledger.issue_feed_ticket(
    p_tenant uuid, p_digest bytea, p_session uuid, p_holder bytea, p_good_s int, p_unused_max int
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM ledger.feed_tickets t WHERE t.tenant_id = p_tenant AND t.digest IN (
        SELECT o.digest FROM ledger.feed_tickets o WHERE o.tenant_id = p_tenant AND o.session_id = p_session
        ORDER BY o.expires_at DESC OFFSET p_unused_max - 1);
    INSERT INTO ledger.feed_tickets (tenant_id, digest, session_id, holder, expires_at)
    VALUES (p_tenant, p_digest, p_session, p_holder, clock_timestamp() + make_interval(secs => p_good_s));
END
$$;

-- No row if there is none, if it was used, or if it is too old. Of two that use it at the same time one waits for the other's delete,
-- and then finds none.
CREATE FUNCTION ledger.redeem_feed_ticket(p_tenant uuid, p_digest bytea) RETURNS TABLE (o_holder bytea)
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH used AS (
        DELETE FROM ledger.feed_tickets t WHERE t.tenant_id = p_tenant AND t.digest = p_digest
        RETURNING t.holder, t.expires_at
    )
    SELECT u.holder FROM used u WHERE u.expires_at > clock_timestamp()
$$;

-- Those that nobody used. At most p_limit.
CREATE FUNCTION ledger.expire_feed_tickets(p_limit int) RETURNS TABLE (o_deleted bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    deleted bigint;
BEGIN
    DELETE FROM ledger.feed_tickets t WHERE (t.tenant_id, t.digest) IN (
        SELECT o.tenant_id, o.digest FROM ledger.feed_tickets o WHERE o.expires_at < clock_timestamp()
        LIMIT p_limit FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS deleted = ROW_COUNT;
    RETURN QUERY SELECT deleted;
END
$$;

REVOKE ALL ON FUNCTION ledger.issue_feed_ticket, ledger.redeem_feed_ticket, ledger.expire_feed_tickets FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ledger.issue_feed_ticket, ledger.redeem_feed_ticket TO bitnexus_app;
GRANT EXECUTE ON FUNCTION ledger.expire_feed_tickets TO bitnexus_projector;

-- As in 0002: the writer owns what it does in everybody's stead. FOR UPDATE asks for a right to update.
GRANT UPDATE ON ledger.feed_tickets TO bitnexus_writer;
GRANT CREATE ON SCHEMA ledger TO bitnexus_writer;
ALTER FUNCTION ledger.issue_feed_ticket OWNER TO bitnexus_writer;
ALTER FUNCTION ledger.redeem_feed_ticket OWNER TO bitnexus_writer;
ALTER FUNCTION ledger.expire_feed_tickets OWNER TO bitnexus_writer;
REVOKE CREATE ON SCHEMA ledger FROM bitnexus_writer;
