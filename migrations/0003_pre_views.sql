-- Why: what is read. Each table is filled by one projector from the tenants' streams and can be thrown away and filled again;
-- views.positions says how far each got, written in the transaction that fills the table.

CREATE SCHEMA views;
REVOKE ALL ON SCHEMA views FROM PUBLIC;
GRANT USAGE ON SCHEMA views TO bitnexus_app, bitnexus_projector;

CREATE TABLE views.positions (
    tenant_id uuid             NOT NULL,
    view      text COLLATE "C" NOT NULL CHECK (view <> ''),
    position  bigint           NOT NULL CHECK (position >= 0),  -- every event up to it is in the view, or of no interest to it
    PRIMARY KEY (tenant_id, view)
) WITH (fillfactor = 50);  -- updated by every batch: room for HOT updates

CREATE TABLE views.products (
    tenant_id   uuid             NOT NULL,
    product_id  uuid             NOT NULL,
    sku         text COLLATE "C" NOT NULL,
    name        text             NOT NULL,
    description text,
    price       numeric          NOT NULL CHECK (price >= 0),  -- of one unit, with the places it was recorded with
    currency    text COLLATE "C" NOT NULL,
    category    text COLLATE "C",
    metadata    json             NOT NULL,  -- not jsonb: it comes back as it was written (key order, 1e2)
    status      text COLLATE "C" NOT NULL,
    inserted_at timestamptz      NOT NULL,
    updated_at  timestamptz      NOT NULL,
    position    bigint           NOT NULL,  -- of the last event applied to the row
    PRIMARY KEY (tenant_id, product_id)
) WITH (fillfactor = 80);
CREATE INDEX products_category ON views.products (tenant_id, category, product_id) WHERE category IS NOT NULL;

-- Ids are UUIDv7: the primary key read backwards is newest first.
CREATE TABLE views.transactions (
    tenant_id        uuid             NOT NULL,
    transaction_id   uuid             NOT NULL,
    lines            json             NOT NULL,               -- array of line objects, never changed, read whole
    refunded_lines   jsonb            NOT NULL DEFAULT '{}',  -- line id to its refunded quantity; absent is 0
    amount_minor     bigint           NOT NULL,
    refunded_minor   bigint           NOT NULL CHECK (refunded_minor BETWEEN 0 AND amount_minor),
    currency         text COLLATE "C" NOT NULL,
    status           text COLLATE "C" NOT NULL,
    buyer_id         uuid,
    buyer_subject_id uuid,
    buyer_ref        text,
    affiliate_id     uuid,
    source           text COLLATE "C",
    external_id      text,
    occurred_at      timestamptz      NOT NULL,
    metadata         json             NOT NULL,
    inserted_at      timestamptz      NOT NULL,
    updated_at       timestamptz      NOT NULL,
    position         bigint           NOT NULL,  -- of the last event applied to the row
    PRIMARY KEY (tenant_id, transaction_id)
) WITH (fillfactor = 90);  -- a few are refunded later: room for HOT updates
CREATE INDEX transactions_buyer ON views.transactions (tenant_id, buyer_id, transaction_id) WHERE buyer_id IS NOT NULL;
CREATE INDEX transactions_affiliate ON views.transactions (tenant_id, affiliate_id, transaction_id) WHERE affiliate_id IS NOT NULL;

CREATE TABLE views.refunds (
    tenant_id        uuid             NOT NULL,
    refund_id        uuid             NOT NULL,
    transaction_id   uuid,                       -- NULL: the sale is not known
    lines            json             NOT NULL,  -- array of line objects
    amount_minor     bigint           NOT NULL CHECK (amount_minor >= 0),
    currency         text COLLATE "C" NOT NULL,
    reason           text,
    source           text COLLATE "C",
    external_id      text,
    occurred_at      timestamptz      NOT NULL,
    buyer_id         uuid,                       -- of the sale, as is affiliate_id: they say who may see it
    affiliate_id     uuid,
    buyer_subject_id uuid,                       -- of an unmatched refund, as is buyer_ref
    buyer_ref        text,
    inserted_at      timestamptz      NOT NULL,
    position         bigint           NOT NULL,
    PRIMARY KEY (tenant_id, refund_id)
);
CREATE INDEX refunds_transaction ON views.refunds (tenant_id, transaction_id, refund_id) WHERE transaction_id IS NOT NULL;
CREATE INDEX refunds_buyer ON views.refunds (tenant_id, buyer_id, refund_id) WHERE buyer_id IS NOT NULL;
CREATE INDEX refunds_affiliate ON views.refunds (tenant_id, affiliate_id, refund_id) WHERE affiliate_id IS NOT NULL;

CREATE TABLE views.sales_by_day (
    tenant_id      uuid             NOT NULL,
    day            date             NOT NULL,  -- of occurred_at in UTC; a refund counts on its own day
    currency       text COLLATE "C" NOT NULL,
    count          bigint           NOT NULL,  -- sales
    gross_minor    numeric(38, 0)   NOT NULL,  -- not bigint: about a thousand sales of the highest amount would stop the view
    refunded_minor numeric(38, 0)   NOT NULL,
    position       bigint           NOT NULL,  -- of the last event counted: an event at or before it is never counted again
    PRIMARY KEY (tenant_id, day, currency)
) WITH (fillfactor = 50);

DO $$
DECLARE
    relation text;
BEGIN
    FOREACH relation IN ARRAY ARRAY['positions', 'products', 'transactions', 'refunds', 'sales_by_day'] LOOP
        EXECUTE format('ALTER TABLE views.%I ENABLE ROW LEVEL SECURITY', relation);
        EXECUTE format('ALTER TABLE views.%I FORCE ROW LEVEL SECURITY', relation);
        EXECUTE format('CREATE POLICY app ON views.%I FOR SELECT TO bitnexus_app USING (tenant_id = ledger.app_tenant())', relation);
        EXECUTE format('CREATE POLICY projector ON views.%I TO bitnexus_projector USING (true) WITH CHECK (true)', relation);
        EXECUTE format('GRANT SELECT ON views.%I TO bitnexus_app', relation);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON views.%I TO bitnexus_projector', relation);
    END LOOP;
END
$$;
