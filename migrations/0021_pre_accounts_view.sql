-- Why: admins list the tenant's accounts, by role and by what became of them. Filled by the projector of `accounts`; a person's erasure
-- overwrites address and name.
CREATE TABLE views.accounts (
    tenant_id   uuid             NOT NULL,
    generation  int              NOT NULL,
    account_id  uuid             NOT NULL,
    email       text             NOT NULL,
    name        text             NOT NULL,
    role        text COLLATE "C" NOT NULL,
    status      text COLLATE "C" NOT NULL,  -- active, deactivated, erased
    inserted_at timestamptz      NOT NULL,
    updated_at  timestamptz      NOT NULL,
    position    bigint           NOT NULL,  -- of the last event applied to the row
    PRIMARY KEY (tenant_id, generation, account_id)
) WITH (fillfactor = 90);
CREATE INDEX accounts_by_role ON views.accounts (tenant_id, generation, role, account_id);
CREATE INDEX accounts_not_active ON views.accounts (tenant_id, generation, status, account_id) WHERE status <> 'active';
CREATE INDEX accounts_by_subject ON views.accounts (tenant_id, account_id);  -- an erasure is in all generations at once

ALTER TABLE views.accounts ENABLE ROW LEVEL SECURITY;
ALTER TABLE views.accounts FORCE ROW LEVEL SECURITY;
CREATE POLICY app ON views.accounts FOR SELECT TO bitnexus_app USING (tenant_id = ledger.app_tenant());
CREATE POLICY projector ON views.accounts TO bitnexus_projector USING (true) WITH CHECK (true);
GRANT SELECT ON views.accounts TO bitnexus_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON views.accounts TO bitnexus_projector;
