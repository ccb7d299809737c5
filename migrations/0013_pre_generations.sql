-- Why: a view is filled again beside the rows that are read (docs/projections.md). A tenant's rows of a view are of a generation, and
-- views.positions has a row for each: how far it is, whether it is read, and what it could not digest. What stands is generation 1.

ALTER TABLE views.products     ADD COLUMN generation int NOT NULL DEFAULT 1;
ALTER TABLE views.transactions ADD COLUMN generation int NOT NULL DEFAULT 1;
ALTER TABLE views.refunds      ADD COLUMN generation int NOT NULL DEFAULT 1;
ALTER TABLE views.sales_by_day ADD COLUMN generation int NOT NULL DEFAULT 1;

ALTER TABLE views.positions
    ADD COLUMN generation int              NOT NULL DEFAULT 1 CHECK (generation >= 1),
    ADD COLUMN version    int              NOT NULL DEFAULT 1,  -- of the view's code that began it
    -- filling: by a rebuild, not fed with what is new. ready: fed together with the active one, not read. active: fed and read.
    -- broken: it was ready and could not be fed. dropping: its rows are being deleted.
    ADD COLUMN state      text COLLATE "C" NOT NULL DEFAULT 'active'
                          CHECK (state IN ('filling', 'ready', 'active', 'broken', 'dropping')),
    -- Of an active one: how many are fed, itself included. A batch that moves another number of rows began before one came or went.
    ADD COLUMN fed        int              NOT NULL DEFAULT 1,
    ADD COLUMN parked     int              NOT NULL DEFAULT 0 CHECK (parked >= 0),  -- originators with rows in views.parked
    ADD COLUMN failure    text,     -- what it cannot get past, without personal data; NULL if nothing
    ADD COLUMN attempts   int              NOT NULL DEFAULT 0,
    ADD COLUMN failed_at  timestamptz,
    ADD COLUMN stopped    boolean          NOT NULL DEFAULT false,  -- a person has to look: nothing is tried until `projections retry`
    ADD COLUMN rate       float8           NOT NULL DEFAULT 0,      -- events/s at moved_at, a mean that fades within 10 s
    ADD COLUMN moved_at   timestamptz      NOT NULL DEFAULT now();

-- Events that a view could not digest, and the later ones of the same originators, which wait behind them. Their bodies stay in the
-- ledger. A row is taken away by `projections retry` once it is applied, or by `projections skip`.
CREATE TABLE views.parked (
    tenant_id     uuid             NOT NULL,
    view          text COLLATE "C" NOT NULL,
    generation    int              NOT NULL,
    originator_id uuid             NOT NULL,
    position      bigint           NOT NULL,
    topic         text COLLATE "C" NOT NULL,
    error         text,             -- without personal data; NULL: it only waits behind an earlier one
    attempts      int              NOT NULL,
    parked_at     timestamptz      NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, view, generation, originator_id, position)
);

-- That a rebuild is wanted, who is at it, and what came of it. Its position is that of its generation.
CREATE TABLE views.rebuilds (
    tenant_id    uuid             NOT NULL,
    view         text COLLATE "C" NOT NULL,
    generation   int              NOT NULL,
    compare_only boolean          NOT NULL,
    requested_by uuid,             -- an account; NULL: the command line
    requested_at timestamptz      NOT NULL DEFAULT clock_timestamp(),
    paused       boolean          NOT NULL DEFAULT false,
    holder       uuid,             -- the process that is at it
    token        bigint           NOT NULL DEFAULT 0,  -- goes up with each holder; whoever has an older one is refused
    error        text,             -- why it stands still, without personal data
    comparison   jsonb,            -- with the generation that was read then
    finished_at  timestamptz,
    PRIMARY KEY (tenant_id, view, generation)
);

DO $$
DECLARE
    relation text;
BEGIN
    FOREACH relation IN ARRAY ARRAY['parked', 'rebuilds'] LOOP
        EXECUTE format('ALTER TABLE views.%I ENABLE ROW LEVEL SECURITY', relation);
        EXECUTE format('ALTER TABLE views.%I FORCE ROW LEVEL SECURITY', relation);
        EXECUTE format('CREATE POLICY app ON views.%I FOR SELECT TO bitnexus_app USING (tenant_id = ledger.app_tenant())', relation);
        EXECUTE format('CREATE POLICY projector ON views.%I TO bitnexus_projector USING (true) WITH CHECK (true)', relation);
        EXECUTE format('GRANT SELECT ON views.%I TO bitnexus_app', relation);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON views.%I TO bitnexus_projector', relation);
    END LOOP;
END
$$;

-- Who projects: the processes that are alive, and which of them has which share of the work. A process beats once a second; one that
-- does not for a few seconds is taken for dead, and its leases are anybody's. Of the installation, not of a tenant.
CREATE TABLE views.processes (
    process_id uuid        PRIMARY KEY,
    views      text[]      NOT NULL,
    versions   int[]       NOT NULL,  -- of the views, in the same order
    expires_at timestamptz NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE views.leases (
    view   text COLLATE "C" NOT NULL,
    bucket smallint         NOT NULL CHECK (bucket BETWEEN 0 AND 255),  -- the last byte of the tenant's id
    holder uuid,                       -- NULL: nobody
    token  bigint           NOT NULL,  -- goes up with each holder: a batch of an earlier one is refused
    PRIMARY KEY (view, bucket)
) WITH (fillfactor = 50);

DO $$
DECLARE
    relation text;
BEGIN
    FOREACH relation IN ARRAY ARRAY['processes', 'leases'] LOOP
        EXECUTE format('ALTER TABLE views.%I ENABLE ROW LEVEL SECURITY', relation);
        EXECUTE format('ALTER TABLE views.%I FORCE ROW LEVEL SECURITY', relation);
        EXECUTE format('CREATE POLICY projector ON views.%I TO bitnexus_projector USING (true) WITH CHECK (true)', relation);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON views.%I TO bitnexus_projector', relation);
    END LOOP;
END
$$;

CREATE FUNCTION views.bucket(tenant uuid) RETURNS smallint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN get_byte(uuid_send(tenant), 15)::smallint;

-- One beat of a process: it is alive, takes its share of each view's leases, or lets go what is more than its share. Only processes
-- with the newest version of a view's code share in it. Gives back all that it holds, with the tokens, a row a view.
CREATE FUNCTION views.beat(p_process uuid, p_views text[], p_versions int[], p_ttl interval)
RETURNS TABLE (o_view text, o_buckets smallint[], o_tokens bigint[])
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    now_is timestamptz := clock_timestamp();
    sharing int;
    mine    int;
    share   int;
BEGIN
    INSERT INTO views.processes AS p (process_id, views, versions, expires_at) VALUES (p_process, p_views, p_versions, now_is + p_ttl)
    ON CONFLICT (process_id) DO UPDATE SET views = excluded.views, versions = excluded.versions, expires_at = excluded.expires_at;
    DELETE FROM views.processes p WHERE p.expires_at < now_is - interval '1 hour';  -- long dead: its row would only be in the way

    FOR i IN 1 .. cardinality(p_views) LOOP
        SELECT count(*) FILTER (WHERE x.version = x.newest), count(*) FILTER (WHERE x.version = x.newest AND x.process_id = p_process)
        INTO sharing, share
        FROM (SELECT p.process_id, v.version, max(v.version) OVER () AS newest
              FROM views.processes p CROSS JOIN LATERAL unnest(p.views, p.versions) AS v (view, version)
              WHERE p.expires_at > now_is AND v.view = p_views[i]) AS x;
        share := CASE WHEN share = 0 THEN 0 ELSE ceil(256.0 / sharing) END;
        SELECT count(*) INTO mine FROM views.leases l WHERE l.view = p_views[i] AND l.holder = p_process;
        IF mine > share THEN
            -- The highest buckets, of every view the same: a process then has all views of a tenant, and reads its events once.
            UPDATE views.leases l SET holder = NULL
            WHERE l.view = p_views[i] AND l.holder = p_process
              AND l.bucket IN (SELECT k.bucket FROM views.leases k WHERE k.view = p_views[i] AND k.holder = p_process
                               ORDER BY k.bucket DESC LIMIT mine - share);
        ELSIF mine < share THEN
            INSERT INTO views.leases (view, bucket, holder, token)
            SELECT p_views[i], b, NULL, 0 FROM generate_series(0, 255) AS b
            WHERE NOT EXISTS (SELECT FROM views.leases l WHERE l.view = p_views[i] AND l.bucket = 255)
            ON CONFLICT DO NOTHING;
            UPDATE views.leases l SET holder = p_process, token = l.token + 1
            WHERE l.view = p_views[i]
              AND l.bucket IN (SELECT k.bucket FROM views.leases k
                               WHERE k.view = p_views[i] AND k.holder IS DISTINCT FROM p_process
                                 AND NOT EXISTS (SELECT FROM views.processes p WHERE p.process_id = k.holder AND p.expires_at > now_is)
                               ORDER BY k.bucket LIMIT share - mine FOR UPDATE SKIP LOCKED);
        END IF;
    END LOOP;
    RETURN QUERY SELECT l.view, array_agg(l.bucket ORDER BY l.bucket), array_agg(l.token ORDER BY l.bucket)
                 FROM views.leases l WHERE l.holder = p_process AND l.view = ANY (p_views) GROUP BY l.view;
END
$$;

-- A process goes: what it holds is anybody's at once.
CREATE FUNCTION views.leave(p_process uuid) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    UPDATE views.leases SET holder = NULL WHERE holder = p_process;
    UPDATE views.rebuilds SET holder = NULL WHERE holder = p_process;
    DELETE FROM views.processes WHERE process_id = p_process;
END;

REVOKE ALL ON FUNCTION views.bucket, views.beat, views.leave FROM PUBLIC;
GRANT EXECUTE ON FUNCTION views.bucket, views.beat, views.leave TO bitnexus_projector;
