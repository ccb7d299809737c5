-- Why: what was rendered of a row is used for the pages it stands on too, while the row is the same (projections/rows.py): so
-- pages say of each row which version it is, as views.transactions_by_id does. They replace views.transactions_page and
-- views.transactions_page_of_person, which the release before still calls; a post migration of the next one drops those.

-- A page, the newest first, with the view's position in the same snapshot. If there is none, one row without an id says the
-- position; without an active generation there is nothing.
CREATE FUNCTION views.newest_transactions(p_tenant uuid, p_before uuid, p_limit int)
RETURNS TABLE (
    o_position bigint, o_parked int, o_generation int, o_stamp xid,
    o_transaction_id uuid, o_lines text, o_refunded_lines text, o_amount_minor bigint, o_refunded_minor bigint, o_currency text,
    o_status text, o_buyer_id uuid, o_buyer_subject_id uuid, o_buyer_ref text, o_affiliate_id uuid, o_source text, o_external_id text,
    o_occurred_at timestamptz, o_metadata text, o_inserted_at timestamptz, o_updated_at timestamptz, o_row_position bigint
)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    EXECUTE format('SET LOCAL bitnexus.tenant = %L', p_tenant);
    RETURN QUERY
        SELECT p.position, p.parked, p.generation, v.stamp,
               v.transaction_id, v.lines::text, v.refunded_lines::text, v.amount_minor, v.refunded_minor,
               v.currency, v.status, v.buyer_id, v.buyer_subject_id, v.buyer_ref, v.affiliate_id, v.source,
               v.external_id, v.occurred_at, v.metadata::text, v.inserted_at, v.updated_at, v.position
        FROM views.positions p
        LEFT JOIN LATERAL (
            SELECT r.*, r.xmin AS stamp FROM views.transactions r
            WHERE r.tenant_id = p_tenant AND r.generation = p.generation AND r.transaction_id < p_before
            ORDER BY r.transaction_id DESC LIMIT p_limit
        ) v ON true
        WHERE p.tenant_id = p_tenant AND p.view = 'transactions' AND p.state = 'active'
        ORDER BY v.transaction_id DESC;
END
$$;

-- Two walks along two indexes, each in the order of the page; one condition with OR would sort all of a person's rows.
CREATE FUNCTION views.newest_transactions_of_person(p_tenant uuid, p_before uuid, p_limit int, p_person uuid)
RETURNS TABLE (
    o_position bigint, o_parked int, o_generation int, o_stamp xid,
    o_transaction_id uuid, o_lines text, o_refunded_lines text, o_amount_minor bigint, o_refunded_minor bigint, o_currency text,
    o_status text, o_buyer_id uuid, o_buyer_subject_id uuid, o_buyer_ref text, o_affiliate_id uuid, o_source text, o_external_id text,
    o_occurred_at timestamptz, o_metadata text, o_inserted_at timestamptz, o_updated_at timestamptz, o_row_position bigint
)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    EXECUTE format('SET LOCAL bitnexus.tenant = %L', p_tenant);
    RETURN QUERY
        SELECT p.position, p.parked, p.generation, v.stamp,
               v.transaction_id, v.lines::text, v.refunded_lines::text, v.amount_minor, v.refunded_minor,
               v.currency, v.status, v.buyer_id, v.buyer_subject_id, v.buyer_ref, v.affiliate_id, v.source,
               v.external_id, v.occurred_at, v.metadata::text, v.inserted_at, v.updated_at, v.position
        FROM views.positions p
        LEFT JOIN LATERAL (
            SELECT * FROM (
                (SELECT r.*, r.xmin AS stamp FROM views.transactions r
                 WHERE r.tenant_id = p_tenant AND r.generation = p.generation AND r.buyer_id = p_person AND r.transaction_id < p_before
                 ORDER BY r.transaction_id DESC LIMIT p_limit)
                UNION ALL
                (SELECT r.*, r.xmin AS stamp FROM views.transactions r
                 WHERE r.tenant_id = p_tenant AND r.generation = p.generation
                   AND r.affiliate_id = p_person AND r.buyer_id IS DISTINCT FROM p_person AND r.transaction_id < p_before
                 ORDER BY r.transaction_id DESC LIMIT p_limit)
            ) AS visible ORDER BY transaction_id DESC LIMIT p_limit
        ) v ON true
        WHERE p.tenant_id = p_tenant AND p.view = 'transactions' AND p.state = 'active'
        ORDER BY v.transaction_id DESC;
END
$$;

REVOKE ALL ON FUNCTION views.newest_transactions, views.newest_transactions_of_person FROM PUBLIC;
GRANT EXECUTE ON FUNCTION views.newest_transactions, views.newest_transactions_of_person TO bitnexus_app;
