-- Why: applications of the `eventsourcing` package run on the ledger (docs/foreign-applications.md). They need a record of how
-- far each got in the applications that it follows, moved together with what it appends, and reads with the package's bounds.

-- One row for each application followed; it only moves forward. Mutable and outside the hash: it is a reader's place, no fact.
CREATE TABLE ledger.tracking (
    tenant_id       uuid             NOT NULL,
    consumer        text COLLATE "C" NOT NULL,  -- the application or projection that follows
    upstream        text COLLATE "C" NOT NULL,  -- the application that it follows, in whichever store that is
    notification_id bigint           NOT NULL,  -- the last one processed
    command_id      uuid             NOT NULL,  -- what moved it: sent again after a lost connection, it finds itself
    PRIMARY KEY (tenant_id, consumer, upstream)
) WITH (fillfactor = 50);  -- updated by every notification: room for HOT updates

ALTER TABLE ledger.tracking ENABLE ROW LEVEL SECURITY;
ALTER TABLE ledger.tracking FORCE ROW LEVEL SECURITY;
CREATE POLICY writer ON ledger.tracking TO bitnexus_writer USING (true) WITH CHECK (true);
CREATE POLICY app ON ledger.tracking FOR SELECT TO bitnexus_app USING (tenant_id = ledger.app_tenant());
GRANT SELECT, INSERT, UPDATE ON ledger.tracking TO bitnexus_writer;
GRANT SELECT ON ledger.tracking TO bitnexus_app;

-- Move forward. False: this very command did so before. Raises unique_violation if that notification was processed already.
CREATE FUNCTION ledger.track(tenant uuid, p_consumer text, p_upstream text, p_notification bigint, p_command uuid) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO ledger.tracking AS k (tenant_id, consumer, upstream, notification_id, command_id)
    VALUES (tenant, p_consumer, p_upstream, p_notification, p_command)
    ON CONFLICT ON CONSTRAINT tracking_pkey DO UPDATE SET notification_id = excluded.notification_id, command_id = excluded.command_id
    WHERE k.notification_id < excluded.notification_id;
    IF FOUND THEN
        RETURN true;
    END IF;
    IF EXISTS (SELECT FROM ledger.tracking k
               WHERE k.tenant_id = tenant AND k.consumer = p_consumer AND k.upstream = p_upstream AND k.command_id = p_command) THEN
        RETURN false;
    END IF;
    RAISE EXCEPTION 'the notification % of % was processed by % already', p_notification, p_upstream, p_consumer USING ERRCODE = '23505';
END
$$;

-- One command and the move that it stands for, both or neither. A refused command moves nothing, a repeated one neither.
CREATE FUNCTION ledger.append_tracked(
    tenant         uuid,
    p_command      uuid,
    e_originator   uuid[],
    e_version      int[],
    e_topic        text[],
    e_state        bytea[],
    e_metadata     bytea[],
    p_consumer     text,
    p_upstream     text,
    p_notification bigint
) RETURNS TABLE (o_status smallint, o_position bigint)  -- as ledger.append gives them
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    SELECT a.o_status, a.o_position INTO o_status, o_position
    FROM ledger.append(
        ARRAY[tenant], ARRAY[1], ARRAY[p_command], ARRAY[''::bytea], ARRAY[''::bytea], ARRAY[cardinality(e_originator)],
        e_originator, e_version, e_topic, e_state, e_metadata,
        '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}'
    ) a;
    IF o_status = 0 THEN
        PERFORM ledger.track(tenant, p_consumer, p_upstream, p_notification, p_command);
    END IF;
    RETURN NEXT;
END
$$;

CREATE FUNCTION ledger.read_tracking(tenant uuid, p_consumer text, p_upstream text) RETURNS TABLE (o_notification bigint)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    EXECUTE format('SET LOCAL bitnexus.tenant = %L', tenant);
    RETURN QUERY SELECT k.notification_id FROM ledger.tracking k
                 WHERE k.tenant_id = tenant AND k.consumer = p_consumer AND k.upstream = p_upstream;
END
$$;

-- One originator's events of version p_after + 1 … p_to, from either end. p_limit NULL: all of them.
CREATE FUNCTION ledger.read_originator(tenant uuid, originator uuid, p_after int, p_to int, p_backwards boolean, p_limit bigint)
RETURNS TABLE (o_version int, o_topic text, o_state bytea)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    EXECUTE format('SET LOCAL bitnexus.tenant = %L', tenant);
    IF p_backwards THEN
        RETURN QUERY SELECT v.originator_version, v.topic, v.state FROM ledger.events v
                     WHERE v.tenant_id = tenant AND v.originator_id = originator
                       AND v.originator_version > p_after AND v.originator_version <= p_to
                     ORDER BY v.originator_version DESC LIMIT p_limit;
    ELSE
        RETURN QUERY SELECT v.originator_version, v.topic, v.state FROM ledger.events v
                     WHERE v.tenant_id = tenant AND v.originator_id = originator
                       AND v.originator_version > p_after AND v.originator_version <= p_to
                     ORDER BY v.originator_version LIMIT p_limit;
    END IF;
END
$$;

-- A tenant's stream from p_after + 1 to p_to, only of those topics if any are given: at most p_limit events.
CREATE FUNCTION ledger.read_notifications(tenant uuid, p_after bigint, p_to bigint, p_topics text[], p_limit int)
RETURNS TABLE (o_position bigint, o_originator uuid, o_version int, o_topic text, o_state bytea)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    EXECUTE format('SET LOCAL bitnexus.tenant = %L', tenant);
    RETURN QUERY SELECT v.position, v.originator_id, v.originator_version, v.topic, v.state FROM ledger.events v
                 WHERE v.tenant_id = tenant AND v.position > p_after AND v.position <= p_to
                   AND (cardinality(p_topics) = 0 OR v.topic = ANY (p_topics))
                 ORDER BY v.position LIMIT p_limit;
END
$$;

REVOKE ALL ON FUNCTION ledger.track, ledger.append_tracked, ledger.read_tracking, ledger.read_originator, ledger.read_notifications
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ledger.track, ledger.append_tracked, ledger.read_tracking, ledger.read_originator, ledger.read_notifications
    TO bitnexus_app;

-- As in 0002: the writer owns what it does in everybody's stead.
GRANT CREATE ON SCHEMA ledger TO bitnexus_writer;
ALTER FUNCTION ledger.track OWNER TO bitnexus_writer;
ALTER FUNCTION ledger.append_tracked OWNER TO bitnexus_writer;
REVOKE CREATE ON SCHEMA ledger FROM bitnexus_writer;
