-- Why: the platform's pages. A view of tenants, one row in each tenant's own stream; and what the platform's role may read across
-- tenants: names and states of tenants, counts of accounts and sums of sales, never a person's data.
CREATE TABLE views.tenants (
    tenant_id   uuid             NOT NULL,
    generation  int              NOT NULL,
    id          uuid             NOT NULL,  -- the tenant's again: what the row is of
    slug        text COLLATE "C" NOT NULL,
    name        text             NOT NULL,
    currency    text COLLATE "C" NOT NULL,
    status      text COLLATE "C" NOT NULL,  -- active, suspended, closed
    inserted_at timestamptz      NOT NULL,
    updated_at  timestamptz      NOT NULL,
    position    bigint           NOT NULL,  -- of the last event applied to the row
    PRIMARY KEY (tenant_id, generation, id)
) WITH (fillfactor = 90);
ALTER TABLE views.tenants ENABLE ROW LEVEL SECURITY;
ALTER TABLE views.tenants FORCE ROW LEVEL SECURITY;
CREATE POLICY app ON views.tenants FOR SELECT TO bitnexus_app USING (tenant_id = ledger.app_tenant());
CREATE POLICY projector ON views.tenants TO bitnexus_projector USING (true) WITH CHECK (true);
GRANT SELECT ON views.tenants TO bitnexus_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON views.tenants TO bitnexus_projector;

GRANT USAGE ON SCHEMA views TO bitnexus_platform;
DO $$
DECLARE
    relation text;
BEGIN
    FOREACH relation IN ARRAY ARRAY['tenants', 'accounts', 'sales_by_day', 'positions'] LOOP
        EXECUTE format('CREATE POLICY platform ON views.%I FOR SELECT TO bitnexus_platform USING (true)', relation);
    END LOOP;
END
$$;
GRANT SELECT ON views.tenants, views.sales_by_day TO bitnexus_platform;
GRANT SELECT (tenant_id, generation, role, status) ON views.accounts TO bitnexus_platform;
GRANT SELECT (tenant_id, view, generation, position, state) ON views.positions TO bitnexus_platform;
