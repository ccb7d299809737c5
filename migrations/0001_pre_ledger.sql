-- Why: the event store. One hash-linked stream per tenant, its head, the records of commands, the reservations of unique
-- keys, mutable secrets and the wrapped keys of persons. Rights and row-level security are there from the first row on.

-- Roles belong to the whole cluster, so another database may have made them already.
DO $$
DECLARE
    wanted name;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['bitnexus_writer', 'bitnexus_app', 'bitnexus_projector', 'bitnexus_platform']::name[] LOOP
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = wanted) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN NOINHERIT', wanted);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                NULL;  -- a migration of a neighbouring database made it meanwhile
            END;
        END IF;
    END LOOP;
    -- Functions are handed to the writer below, which takes membership (a superuser has it by nature).
    IF NOT pg_catalog.pg_has_role(current_user, 'bitnexus_writer', 'MEMBER') THEN
        EXECUTE format('GRANT bitnexus_writer TO %I', current_user);
    END IF;
END
$$;

CREATE EXTENSION IF NOT EXISTS vector;

CREATE SCHEMA ledger;
REVOKE ALL ON SCHEMA ledger FROM PUBLIC;
GRANT USAGE ON SCHEMA ledger TO bitnexus_writer, bitnexus_app, bitnexus_projector, bitnexus_platform;

-- The tenant of this transaction. SET LOCAL ends with it; afterwards the setting reads as '', not NULL.
CREATE FUNCTION ledger.set_tenant(tenant uuid) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    EXECUTE format('SET LOCAL bitnexus.tenant = %L', tenant);
END
$$;

CREATE FUNCTION ledger.app_tenant() RETURNS uuid
LANGUAGE sql STABLE PARALLEL SAFE
RETURN nullif(current_setting('bitnexus.tenant', true), '')::uuid;

CREATE TABLE ledger.heads (
    tenant_id   uuid        PRIMARY KEY,
    position    bigint      NOT NULL CHECK (position >= 0),
    hash        bytea       NOT NULL CHECK (octet_length(hash) = 32),
    recorded_at timestamptz NOT NULL
) WITH (fillfactor = 50);  -- one row a tenant, updated by every flush: room for HOT updates

CREATE TABLE ledger.events (
    tenant_id          uuid             NOT NULL,
    position           bigint           NOT NULL CHECK (position >= 1),
    originator_id      uuid             NOT NULL,
    originator_version int              NOT NULL CHECK (originator_version >= 1),
    topic              text COLLATE "C" NOT NULL CHECK (topic <> ''),
    recorded_at        timestamptz      NOT NULL,
    state              bytea            NOT NULL,
    metadata           bytea            NOT NULL,
    hash               bytea            NOT NULL CHECK (octet_length(hash) = 32),
    PRIMARY KEY (tenant_id, position),
    CONSTRAINT events_originator_version UNIQUE (tenant_id, originator_id, originator_version)
);

-- What became of a command id: a repeat is answered from here. Written in the append's transaction.
CREATE TABLE ledger.commands (
    tenant_id   uuid        NOT NULL,
    command_id  uuid        NOT NULL,
    fingerprint bytea       NOT NULL,  -- SHA-256 of the request, or empty
    outcome     bytea       NOT NULL,  -- compact, from which the answer is rendered
    position    bigint      NOT NULL,  -- of the command's last event; the head's if it appended none
    recorded_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, command_id)
);

-- Uniqueness of e-mail, SKU, slug, external id …: mutable, outside the hash, keyed by HMAC so that erasing is possible.
CREATE TABLE ledger.reservations (
    tenant_id uuid             NOT NULL,
    kind      text COLLATE "C" NOT NULL CHECK (kind <> ''),
    key       bytea            NOT NULL CHECK (octet_length(key) = 32),
    owner     uuid             NOT NULL,
    PRIMARY KEY (tenant_id, kind, key)
);

-- Hashes of passwords and tokens: never events, replaced and deleted in the append's transaction.
CREATE TABLE ledger.secrets (
    tenant_id uuid             NOT NULL,
    owner     uuid             NOT NULL,
    kind      text COLLATE "C" NOT NULL CHECK (kind <> ''),
    value     bytea            NOT NULL,
    PRIMARY KEY (tenant_id, owner, kind)
);

-- A person known by a reference (a buyer's number in another system) rather than by an account.
CREATE TABLE ledger.subjects (
    tenant_id  uuid             NOT NULL,
    kind       text COLLATE "C" NOT NULL CHECK (kind <> ''),
    ref        bytea            NOT NULL CHECK (octet_length(ref) = 32),  -- HMAC of the reference
    subject_id uuid             NOT NULL,
    PRIMARY KEY (tenant_id, kind, ref)
);

-- The key that a person's fields are encrypted with, wrapped by the master key. Destroying the row erases the person.
CREATE TABLE ledger.subject_keys (
    tenant_id     uuid        NOT NULL,
    subject_id    uuid        NOT NULL,
    wrapped       bytea       NOT NULL,
    master_key_id text        NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, subject_id)
);

DO $$
DECLARE
    relation text;
BEGIN
    FOREACH relation IN ARRAY ARRAY['heads', 'events', 'commands', 'reservations', 'secrets', 'subjects', 'subject_keys'] LOOP
        EXECUTE format('ALTER TABLE ledger.%I ENABLE ROW LEVEL SECURITY', relation);
        EXECUTE format('ALTER TABLE ledger.%I FORCE ROW LEVEL SECURITY', relation);
        EXECUTE format('CREATE POLICY writer ON ledger.%I TO bitnexus_writer USING (true) WITH CHECK (true)', relation);
        EXECUTE format('CREATE POLICY app ON ledger.%I FOR SELECT TO bitnexus_app USING (tenant_id = ledger.app_tenant())', relation);
    END LOOP;
    FOREACH relation IN ARRAY ARRAY['heads', 'events', 'subject_keys'] LOOP
        EXECUTE format('CREATE POLICY projector ON ledger.%I FOR SELECT TO bitnexus_projector USING (true)', relation);
    END LOOP;
    CREATE POLICY platform ON ledger.heads FOR SELECT TO bitnexus_platform USING (true);
END
$$;

-- Append-only: nobody but the writer inserts, and nobody at all updates or deletes an event.
GRANT SELECT, INSERT ON ledger.events, ledger.commands, ledger.subjects, ledger.subject_keys TO bitnexus_writer;
GRANT SELECT, INSERT, UPDATE ON ledger.heads TO bitnexus_writer;
GRANT SELECT, INSERT, DELETE ON ledger.reservations TO bitnexus_writer;
GRANT SELECT, INSERT, UPDATE, DELETE ON ledger.secrets TO bitnexus_writer;
GRANT SELECT ON ledger.heads, ledger.events, ledger.commands, ledger.reservations, ledger.secrets, ledger.subjects, ledger.subject_keys TO bitnexus_app;
GRANT SELECT ON ledger.heads, ledger.events, ledger.subject_keys TO bitnexus_projector;
GRANT SELECT ON ledger.heads TO bitnexus_platform;
