-- Why: a person can be forgotten. Destroying the person's key makes every personal field of the stream unreadable and leaves the
-- chain whole; a tombstone says so for ever, to every process, and no key is made for that subject again.

-- erased_in is what lets a process ask "what was erased since I last asked" without missing a transaction that was still under
-- way then: everything whose id is not below the oldest transaction that was running (docs/privacy.md).
CREATE TABLE ledger.erased_subjects (
    tenant_id  uuid        NOT NULL,
    subject_id uuid        NOT NULL,
    erased_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    erased_in  xid8        NOT NULL DEFAULT pg_current_xact_id(),
    PRIMARY KEY (tenant_id, subject_id)
);
-- Led by the tenant as every index is; "erased since" skips from one tenant that erased somebody to the next (PostgreSQL 18).
CREATE INDEX erased_subjects_in ON ledger.erased_subjects (tenant_id, erased_in, subject_id);

ALTER TABLE ledger.erased_subjects ENABLE ROW LEVEL SECURITY;
ALTER TABLE ledger.erased_subjects FORCE ROW LEVEL SECURITY;
CREATE POLICY writer ON ledger.erased_subjects TO bitnexus_writer USING (true) WITH CHECK (true);
CREATE POLICY app ON ledger.erased_subjects FOR SELECT TO bitnexus_app USING (tenant_id = ledger.app_tenant());
CREATE POLICY projector ON ledger.erased_subjects FOR SELECT TO bitnexus_projector USING (true);
GRANT SELECT, INSERT ON ledger.erased_subjects TO bitnexus_writer;
GRANT SELECT ON ledger.erased_subjects TO bitnexus_app, bitnexus_projector;

GRANT DELETE ON ledger.subject_keys, ledger.subjects TO bitnexus_writer;
-- For `bitnexus keys rotate`, in which the owner becomes the writer. No function of the writer's updates a key.
GRANT UPDATE ON ledger.subject_keys TO bitnexus_writer;
CREATE INDEX subjects_of ON ledger.subjects (tenant_id, subject_id);

-- A flush with erasures in it: ledger.append as it is, and in the same transaction the end of the subjects' keys, of what leads
-- from a reference to them, and of the secrets that they own. A refused command erases nobody.
CREATE FUNCTION ledger.append_erasing(
    p_tenants     uuid[],   -- these are ledger.append's
    c_tenant      int[],
    c_id          uuid[],
    c_fingerprint bytea[],
    c_outcome     bytea[],
    c_events      int[],
    e_originator  uuid[],
    e_version     int[],
    e_topic       text[],
    e_state       bytea[],
    e_metadata    bytea[],
    r_command     int[],
    r_kind        text[],
    r_key         bytea[],
    r_owner       uuid[],
    r_claim       boolean[],
    s_command     int[],
    s_owner       uuid[],
    s_kind        text[],
    s_value       bytea[],
    x_command     int[],    -- of each erasure: index of its command
    x_subject     uuid[]
) RETURNS TABLE (
    o_status      smallint,
    o_position    bigint,
    o_recorded_at timestamptz,
    o_outcome     bytea,
    o_kind        text,
    o_owner       uuid
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    y_status   smallint[] := '{}';
    y_position bigint[] := '{}';
    y_recorded timestamptz[] := '{}';
    y_outcome  bytea[] := '{}';
    y_kind     text[] := '{}';
    y_owner    uuid[] := '{}';
    x_tenant   uuid[] := '{}';
    found      record;
BEGIN
    IF (ledger.is_list(x_command) AND ledger.is_list(x_subject) AND cardinality(x_command) = cardinality(x_subject)
        AND (SELECT coalesce(min(x) >= 1 AND max(x) <= cardinality(c_id), true) FROM unnest(x_command) x)) IS NOT TRUE THEN
        RAISE EXCEPTION 'ledger.append_erasing was given arrays that do not fit together' USING ERRCODE = '22023';
    END IF;
    -- One row a command, in the order of the call: ledger.append gives them so.
    FOR found IN SELECT * FROM ledger.append(p_tenants, c_tenant, c_id, c_fingerprint, c_outcome, c_events, e_originator, e_version,
            e_topic, e_state, e_metadata, r_command, r_kind, r_key, r_owner, r_claim, s_command, s_owner, s_kind, s_value) a LOOP
        y_status := y_status || found.o_status;
        y_position := y_position || found.o_position;
        y_recorded := y_recorded || found.o_recorded_at;
        y_outcome := y_outcome || found.o_outcome;
        y_kind := y_kind || found.o_kind;
        y_owner := y_owner || found.o_owner;
    END LOOP;

    FOR i IN 1 .. cardinality(x_command) LOOP
        x_tenant[i] := CASE WHEN y_status[x_command[i]] = 0 THEN p_tenants[c_tenant[x_command[i]]] END;
    END LOOP;
    INSERT INTO ledger.erased_subjects (tenant_id, subject_id)
    SELECT DISTINCT x.tenant, x.subject FROM unnest(x_tenant, x_subject) AS x (tenant, subject) WHERE x.tenant IS NOT NULL ORDER BY 1, 2
    ON CONFLICT DO NOTHING;
    -- An empty row where there is none: whoever is making a key for such a subject at this moment is waited for, or waits, so that
    -- either the key is deleted here or its maker finds the tombstone.
    INSERT INTO ledger.subject_keys (tenant_id, subject_id, wrapped, master_key_id)
    SELECT DISTINCT x.tenant, x.subject, ''::bytea, '' FROM unnest(x_tenant, x_subject) AS x (tenant, subject) WHERE x.tenant IS NOT NULL ORDER BY 1, 2
    ON CONFLICT DO NOTHING;
    DELETE FROM ledger.subject_keys k USING unnest(x_tenant, x_subject) AS x (tenant, subject)
    WHERE k.tenant_id = x.tenant AND k.subject_id = x.subject;
    DELETE FROM ledger.subjects s USING unnest(x_tenant, x_subject) AS x (tenant, subject)
    WHERE s.tenant_id = x.tenant AND s.subject_id = x.subject;
    DELETE FROM ledger.secrets s USING unnest(x_tenant, x_subject) AS x (tenant, subject)
    WHERE s.tenant_id = x.tenant AND s.owner = x.subject;

    RETURN QUERY SELECT * FROM unnest(y_status, y_position, y_recorded, y_outcome, y_kind, y_owner);
END
$$;

-- The wrapped key of each subject; the keys offered are taken where a subject has none, but never for one that was erased: such a
-- subject is not among the rows.
CREATE OR REPLACE FUNCTION ledger.open_subject_keys(tenant uuid, p_subjects uuid[], p_wrapped bytea[], p_master_key_id text)
RETURNS TABLE (o_subject uuid, o_wrapped bytea, o_master_key_id text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO ledger.subject_keys (tenant_id, subject_id, wrapped, master_key_id)
    SELECT tenant, x.subject, x.wrapped, p_master_key_id FROM unnest(p_subjects, p_wrapped) AS x (subject, wrapped)
    WHERE NOT EXISTS (SELECT FROM ledger.erased_subjects e WHERE e.tenant_id = tenant AND e.subject_id = x.subject)
    ORDER BY x.subject
    ON CONFLICT DO NOTHING;
    -- The insert may have waited for an erasure that its snapshot did not show. A statement of its own sees it.
    DELETE FROM ledger.subject_keys k USING ledger.erased_subjects e
    WHERE e.tenant_id = tenant AND e.subject_id = ANY (p_subjects) AND k.tenant_id = tenant AND k.subject_id = e.subject_id;
    RETURN QUERY SELECT k.subject_id, k.wrapped, k.master_key_id FROM ledger.subject_keys k
                 WHERE k.tenant_id = tenant AND k.subject_id = ANY (p_subjects);
END
$$;

-- What is gone of a tenant's subjects at this moment, of a projector's batch or of a command's events.
CREATE FUNCTION ledger.read_erased(tenant uuid, p_subjects uuid[]) RETURNS TABLE (o_subject uuid)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    EXECUTE format('SET LOCAL bitnexus.tenant = %L', tenant);
    RETURN QUERY SELECT e.subject_id FROM ledger.erased_subjects e WHERE e.tenant_id = tenant AND e.subject_id = ANY (p_subjects);
END
$$;

-- The kinds of the secrets that an owner has, without their values.
CREATE FUNCTION ledger.read_secret_kinds(tenant uuid, p_owner uuid) RETURNS TABLE (o_kind text)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    EXECUTE format('SET LOCAL bitnexus.tenant = %L', tenant);
    RETURN QUERY SELECT s.kind FROM ledger.secrets s WHERE s.tenant_id = tenant AND s.owner = p_owner ORDER BY s.kind;
END
$$;

-- The subject of a reference, if it has one: erasing must not make one.
CREATE FUNCTION ledger.read_subject(tenant uuid, p_kind text, p_ref bytea) RETURNS TABLE (o_subject uuid)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    EXECUTE format('SET LOCAL bitnexus.tenant = %L', tenant);
    RETURN QUERY SELECT s.subject_id FROM ledger.subjects s WHERE s.tenant_id = tenant AND s.kind = p_kind AND s.ref = p_ref;
END
$$;

REVOKE ALL ON FUNCTION ledger.append_erasing, ledger.read_erased, ledger.read_secret_kinds, ledger.read_subject FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ledger.append_erasing, ledger.read_erased, ledger.read_secret_kinds, ledger.read_subject TO bitnexus_app;
GRANT EXECUTE ON FUNCTION ledger.read_erased TO bitnexus_projector;

-- As in 0002: the writer owns what it does in everybody's stead.
GRANT CREATE ON SCHEMA ledger TO bitnexus_writer;
ALTER FUNCTION ledger.append_erasing OWNER TO bitnexus_writer;
REVOKE CREATE ON SCHEMA ledger FROM bitnexus_writer;
