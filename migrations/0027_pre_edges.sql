-- Why: limits that hold over all processes, and attempts to log in. Nothing of it is an event: an attacker would fill the stream.
CREATE SCHEMA edges;

-- A token bucket as the moment at which it is full again. Unlogged: after a crash all of them are full, which harms nobody.
CREATE UNLOGGED TABLE edges.buckets (
    tenant_id uuid             NOT NULL,  -- the platform's for addresses, which belong to no tenant
    limited   text COLLATE "C" NOT NULL,  -- address, user, tenant
    key       uuid             NOT NULL,  -- of an address: a keyed hash
    full_at   timestamptz      NOT NULL,
    PRIMARY KEY (tenant_id, limited, key)
) WITH (fillfactor = 50);
ALTER TABLE edges.buckets ENABLE ROW LEVEL SECURITY;
ALTER TABLE edges.buckets FORCE ROW LEVEL SECURITY;
CREATE POLICY projector ON edges.buckets TO bitnexus_projector USING (true) WITH CHECK (true);

-- Processes that serve, to share out what is left in a bucket.
CREATE UNLOGGED TABLE edges.processes (
    process_id uuid        PRIMARY KEY,
    seen_at    timestamptz NOT NULL
) WITH (fillfactor = 50);

-- For each bucket: what a process took more than its last lease (or less, if negative), and then its next lease, its share of what
-- is left, if it holds on. In order of the key, so that two processes never wait for each other in a circle.
CREATE FUNCTION edges.reconcile(
    p_process uuid, p_seen_s float8, p_tenants uuid[], p_limited text[], p_keys uuid[],
    p_delta_s float8[], p_quotas float8[], p_per_s float8[], p_holds boolean[]
) RETURNS TABLE (o_others bigint, o_tenant_id uuid, o_limited text, o_key uuid, o_debt_s float8, o_lease float8)
LANGUAGE plpgsql AS $$
DECLARE
    v_others bigint;
BEGIN
    INSERT INTO edges.processes AS p (process_id, seen_at) VALUES (p_process, now())
    ON CONFLICT (process_id) DO UPDATE SET seen_at = now();
    SELECT count(*) INTO v_others FROM edges.processes
    WHERE process_id <> p_process AND seen_at > now() - make_interval(secs => p_seen_s);
    RETURN QUERY SELECT v_others, NULL::uuid, NULL::text, NULL::uuid, NULL::float8, NULL::float8;

    INSERT INTO edges.buckets AS b (tenant_id, limited, key, full_at)
    SELECT x.tenant_id, x.limited, x.key, now() + make_interval(secs => x.delta_s)
    FROM unnest(p_tenants, p_limited, p_keys, p_delta_s) AS x (tenant_id, limited, key, delta_s)
    ORDER BY x.tenant_id, x.limited, x.key
    ON CONFLICT (tenant_id, limited, key) DO UPDATE
    SET full_at = greatest(now(), greatest(b.full_at, now()) + (excluded.full_at - now()));

    RETURN QUERY
    WITH granted AS (
        SELECT b.tenant_id, b.limited, b.key, x.per_s,
               CASE WHEN x.hold AND v_others > 0
                    THEN greatest(0, x.quota - extract(epoch FROM b.full_at - now())::float8 * x.per_s) / (1 + v_others)
                    ELSE 0 END AS lease
        FROM unnest(p_tenants, p_limited, p_keys, p_quotas, p_per_s, p_holds) AS x (tenant_id, limited, key, quota, per_s, hold)
        JOIN edges.buckets b ON b.tenant_id = x.tenant_id AND b.limited = x.limited AND b.key = x.key
    )
    UPDATE edges.buckets b SET full_at = b.full_at + make_interval(secs => g.lease / g.per_s)
    FROM granted g WHERE b.tenant_id = g.tenant_id AND b.limited = g.limited AND b.key = g.key
    RETURNING v_others, b.tenant_id, b.limited, b.key, extract(epoch FROM b.full_at - now())::float8, g.lease;
END
$$;
REVOKE ALL ON FUNCTION edges.reconcile FROM PUBLIC;
GRANT EXECUTE ON FUNCTION edges.reconcile TO bitnexus_projector;

-- Attempts to log in that failed, by account name or by address. Also of names that nobody has: these are in no stream, and are
-- deleted after 30 days.
CREATE TABLE edges.attempts (
    tenant_id  uuid             NOT NULL,
    of         text COLLATE "C" NOT NULL,  -- account, address
    key        uuid             NOT NULL,  -- a keyed hash: nobody's name or address stands here
    failures   int              NOT NULL,  -- one after another
    first_at   timestamptz      NOT NULL,
    last_at    timestamptz      NOT NULL,
    closed_to  timestamptz      NOT NULL,  -- until when no further attempt is looked at
    untold     int              NOT NULL,  -- failures since the last event that counted them
    told_at    timestamptz,                -- of that event
    PRIMARY KEY (tenant_id, of, key)
) WITH (fillfactor = 80);
CREATE INDEX attempts_last_at ON edges.attempts (tenant_id, last_at);
ALTER TABLE edges.attempts ENABLE ROW LEVEL SECURITY;
ALTER TABLE edges.attempts FORCE ROW LEVEL SECURITY;
CREATE POLICY app ON edges.attempts TO bitnexus_app
    USING (tenant_id = ledger.app_tenant()) WITH CHECK (tenant_id = ledger.app_tenant());
CREATE POLICY projector ON edges.attempts TO bitnexus_projector USING (true) WITH CHECK (true);

GRANT USAGE ON SCHEMA edges TO bitnexus_app, bitnexus_projector;
GRANT SELECT, INSERT, UPDATE, DELETE ON edges.buckets, edges.processes TO bitnexus_projector;
GRANT SELECT, INSERT, UPDATE, DELETE ON edges.attempts TO bitnexus_app;
GRANT SELECT, DELETE ON edges.attempts TO bitnexus_projector;
