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
