-- Why: a resource's ETag is its aggregate's version; with it in the row a resource is one query. Version 2 of the three views
-- fills the column. In a generation of version 1 it means nothing, as processes of the release before write there too: it is read
-- from the event then, until the view is rebuilt.
ALTER TABLE views.products     ADD COLUMN version int;
ALTER TABLE views.transactions ADD COLUMN version int;
ALTER TABLE views.refunds      ADD COLUMN version int;

-- Many rows in one call, as many requests ask at the same moment (projections/rows.py). A row that the asker has (same generation,
-- same x_stamp) comes without its long columns. All of a tenant's is of one snapshot. Without an active generation there is
-- nothing of the tenant; without a row o_stamp is NULL.
--
-- p_tenants are distinct, p_counts says how many rows are wanted of each; they follow each other in x_*. o_stamp is the id of the
-- transaction that wrote this version of the row, so that no change of it, whichever, leaves it as it was. A plan for the values at
-- hand would be made at each call and cost more than the look-ups.

CREATE FUNCTION views.transactions_by_id(p_tenants uuid[], p_counts int[], x_id uuid[], x_generation int[], x_stamp xid[])
RETURNS TABLE (
    o_wanted int, o_position bigint, o_parked int, o_generation int, o_stamp xid, o_version int,
    o_transaction_id uuid, o_lines text, o_refunded_lines text, o_amount_minor bigint, o_refunded_minor bigint, o_currency text,
    o_status text, o_buyer_id uuid, o_buyer_subject_id uuid, o_buyer_ref text, o_affiliate_id uuid, o_source text, o_external_id text,
    o_occurred_at timestamptz, o_metadata text, o_inserted_at timestamptz, o_updated_at timestamptz, o_row_position bigint
)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    first int := 1;
BEGIN
    FOR t IN 1 .. cardinality(p_tenants) LOOP
        EXECUTE format('SET LOCAL bitnexus.tenant = %L', p_tenants[t]);
        -- OFFSET 0 keeps each look-up an index scan of its own, whatever the planner thinks of the arrays' lengths.
        RETURN QUERY
            SELECT (first + x.n - 1)::int, p.position, p.parked, p.generation, v.stamp,
                   CASE WHEN p.version >= 2 THEN v.version
                        ELSE (SELECT e.originator_version FROM ledger.events e
                              WHERE e.tenant_id = p_tenants[t] AND e.position = v.position) END,
                   v.transaction_id, CASE WHEN v.changed THEN v.lines::text END, CASE WHEN v.changed THEN
                   v.refunded_lines::text END, v.amount_minor, v.refunded_minor, v.currency, v.status, v.buyer_id,
                   v.buyer_subject_id, v.buyer_ref, v.affiliate_id, v.source, v.external_id, v.occurred_at, CASE
                   WHEN v.changed THEN v.metadata::text END, v.inserted_at, v.updated_at, v.position
            FROM views.positions p
            CROSS JOIN unnest(x_id[first : first + p_counts[t] - 1], x_generation[first : first + p_counts[t] - 1],
                              x_stamp[first : first + p_counts[t] - 1]) WITH ORDINALITY AS x (id, generation, stamp, n)
            LEFT JOIN LATERAL (
                SELECT r.*, r.xmin AS stamp, x.generation <> p.generation OR x.stamp <> r.xmin AS changed FROM views.transactions r
                WHERE r.tenant_id = p_tenants[t] AND r.generation = p.generation AND r.transaction_id = x.id OFFSET 0
            ) v ON true
            WHERE p.tenant_id = p_tenants[t] AND p.view = 'transactions' AND p.state = 'active';
        first := first + p_counts[t];
    END LOOP;
END
$$;

CREATE FUNCTION views.products_by_id(p_tenants uuid[], p_counts int[], x_id uuid[], x_generation int[], x_stamp xid[])
RETURNS TABLE (
    o_wanted int, o_position bigint, o_parked int, o_generation int, o_stamp xid, o_version int,
    o_product_id uuid, o_sku text, o_name text, o_description text, o_price numeric, o_currency text, o_category text,
    o_metadata text, o_status text, o_inserted_at timestamptz, o_updated_at timestamptz, o_row_position bigint
)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    first int := 1;
BEGIN
    FOR t IN 1 .. cardinality(p_tenants) LOOP
        EXECUTE format('SET LOCAL bitnexus.tenant = %L', p_tenants[t]);
        RETURN QUERY
            SELECT (first + x.n - 1)::int, p.position, p.parked, p.generation, v.stamp,
                   CASE WHEN p.version >= 2 THEN v.version
                        ELSE (SELECT e.originator_version FROM ledger.events e
                              WHERE e.tenant_id = p_tenants[t] AND e.position = v.position) END,
                   v.product_id, v.sku, v.name, CASE WHEN v.changed THEN v.description::text END, v.price,
                   v.currency, v.category, CASE WHEN v.changed THEN v.metadata::text END, v.status, v.inserted_at,
                   v.updated_at, v.position
            FROM views.positions p
            CROSS JOIN unnest(x_id[first : first + p_counts[t] - 1], x_generation[first : first + p_counts[t] - 1],
                              x_stamp[first : first + p_counts[t] - 1]) WITH ORDINALITY AS x (id, generation, stamp, n)
            LEFT JOIN LATERAL (
                SELECT r.*, r.xmin AS stamp, x.generation <> p.generation OR x.stamp <> r.xmin AS changed FROM views.products r
                WHERE r.tenant_id = p_tenants[t] AND r.generation = p.generation AND r.product_id = x.id OFFSET 0
            ) v ON true
            WHERE p.tenant_id = p_tenants[t] AND p.view = 'products' AND p.state = 'active';
        first := first + p_counts[t];
    END LOOP;
END
$$;

CREATE FUNCTION views.refunds_by_id(p_tenants uuid[], p_counts int[], x_id uuid[], x_generation int[], x_stamp xid[])
RETURNS TABLE (
    o_wanted int, o_position bigint, o_parked int, o_generation int, o_stamp xid, o_version int,
    o_refund_id uuid, o_transaction_id uuid, o_lines text, o_amount_minor bigint, o_currency text, o_reason text, o_source text,
    o_external_id text, o_occurred_at timestamptz, o_buyer_id uuid, o_affiliate_id uuid, o_buyer_subject_id uuid, o_buyer_ref
    text, o_inserted_at timestamptz, o_row_position bigint
)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    first int := 1;
BEGIN
    FOR t IN 1 .. cardinality(p_tenants) LOOP
        EXECUTE format('SET LOCAL bitnexus.tenant = %L', p_tenants[t]);
        RETURN QUERY
            SELECT (first + x.n - 1)::int, p.position, p.parked, p.generation, v.stamp,
                   CASE WHEN p.version >= 2 THEN v.version
                        ELSE (SELECT e.originator_version FROM ledger.events e
                              WHERE e.tenant_id = p_tenants[t] AND e.position = v.position) END,
                   v.refund_id, v.transaction_id, CASE WHEN v.changed THEN v.lines::text END, v.amount_minor,
                   v.currency, v.reason, v.source, v.external_id, v.occurred_at, v.buyer_id, v.affiliate_id,
                   v.buyer_subject_id, v.buyer_ref, v.inserted_at, v.position
            FROM views.positions p
            CROSS JOIN unnest(x_id[first : first + p_counts[t] - 1], x_generation[first : first + p_counts[t] - 1],
                              x_stamp[first : first + p_counts[t] - 1]) WITH ORDINALITY AS x (id, generation, stamp, n)
            LEFT JOIN LATERAL (
                SELECT r.*, r.xmin AS stamp, x.generation <> p.generation OR x.stamp <> r.xmin AS changed FROM views.refunds r
                WHERE r.tenant_id = p_tenants[t] AND r.generation = p.generation AND r.refund_id = x.id OFFSET 0
            ) v ON true
            WHERE p.tenant_id = p_tenants[t] AND p.view = 'refunds' AND p.state = 'active';
        first := first + p_counts[t];
    END LOOP;
END
$$;

-- A page, the newest first, with the view's position in the same snapshot. If there is none, one row without an id says the
-- position; without an active generation there is nothing.
CREATE FUNCTION views.transactions_page(p_tenant uuid, p_before uuid, p_limit int)
RETURNS TABLE (
    o_position bigint, o_parked int,
    o_transaction_id uuid, o_lines text, o_refunded_lines text, o_amount_minor bigint, o_refunded_minor bigint, o_currency text,
    o_status text, o_buyer_id uuid, o_buyer_subject_id uuid, o_buyer_ref text, o_affiliate_id uuid, o_source text, o_external_id text,
    o_occurred_at timestamptz, o_metadata text, o_inserted_at timestamptz, o_updated_at timestamptz, o_row_position bigint
)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    EXECUTE format('SET LOCAL bitnexus.tenant = %L', p_tenant);
    RETURN QUERY
        SELECT p.position, p.parked,
               v.transaction_id, v.lines::text, v.refunded_lines::text, v.amount_minor, v.refunded_minor,
               v.currency, v.status, v.buyer_id, v.buyer_subject_id, v.buyer_ref, v.affiliate_id, v.source,
               v.external_id, v.occurred_at, v.metadata::text, v.inserted_at, v.updated_at, v.position
        FROM views.positions p
        LEFT JOIN LATERAL (
            SELECT r.* FROM views.transactions r
            WHERE r.tenant_id = p_tenant AND r.generation = p.generation AND r.transaction_id < p_before
            ORDER BY r.transaction_id DESC LIMIT p_limit
        ) v ON true
        WHERE p.tenant_id = p_tenant AND p.view = 'transactions' AND p.state = 'active'
        ORDER BY v.transaction_id DESC;
END
$$;

-- Two walks along two indexes, each in the order of the page; one condition with OR would sort all of a person's rows.
CREATE FUNCTION views.transactions_page_of_person(p_tenant uuid, p_before uuid, p_limit int, p_person uuid)
RETURNS TABLE (
    o_position bigint, o_parked int,
    o_transaction_id uuid, o_lines text, o_refunded_lines text, o_amount_minor bigint, o_refunded_minor bigint, o_currency text,
    o_status text, o_buyer_id uuid, o_buyer_subject_id uuid, o_buyer_ref text, o_affiliate_id uuid, o_source text, o_external_id text,
    o_occurred_at timestamptz, o_metadata text, o_inserted_at timestamptz, o_updated_at timestamptz, o_row_position bigint
)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    EXECUTE format('SET LOCAL bitnexus.tenant = %L', p_tenant);
    RETURN QUERY
        SELECT p.position, p.parked,
               v.transaction_id, v.lines::text, v.refunded_lines::text, v.amount_minor, v.refunded_minor,
               v.currency, v.status, v.buyer_id, v.buyer_subject_id, v.buyer_ref, v.affiliate_id, v.source,
               v.external_id, v.occurred_at, v.metadata::text, v.inserted_at, v.updated_at, v.position
        FROM views.positions p
        LEFT JOIN LATERAL (
            SELECT * FROM (
                (SELECT r.* FROM views.transactions r
                 WHERE r.tenant_id = p_tenant AND r.generation = p.generation AND r.buyer_id = p_person AND r.transaction_id < p_before
                 ORDER BY r.transaction_id DESC LIMIT p_limit)
                UNION ALL
                (SELECT r.* FROM views.transactions r
                 WHERE r.tenant_id = p_tenant AND r.generation = p.generation
                   AND r.affiliate_id = p_person AND r.buyer_id IS DISTINCT FROM p_person AND r.transaction_id < p_before
                 ORDER BY r.transaction_id DESC LIMIT p_limit)
            ) AS visible ORDER BY transaction_id DESC LIMIT p_limit
        ) v ON true
        WHERE p.tenant_id = p_tenant AND p.view = 'transactions' AND p.state = 'active'
        ORDER BY v.transaction_id DESC;
END
$$;

REVOKE ALL ON FUNCTION views.transactions_by_id, views.products_by_id, views.refunds_by_id, views.transactions_page,
    views.transactions_page_of_person FROM PUBLIC;
GRANT EXECUTE ON FUNCTION views.transactions_by_id, views.products_by_id, views.refunds_by_id, views.transactions_page,
    views.transactions_page_of_person TO bitnexus_app;
