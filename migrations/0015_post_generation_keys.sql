-- Why: with the keys of the release before there could be no second generation. A view forgets persons in all generations at once,
-- so the indexes by subject stay as they are.
ALTER TABLE views.positions    DROP CONSTRAINT positions_pkey,    ADD CONSTRAINT positions_pkey    PRIMARY KEY USING INDEX positions_generation;
ALTER TABLE views.products     DROP CONSTRAINT products_pkey,     ADD CONSTRAINT products_pkey     PRIMARY KEY USING INDEX products_generation;
ALTER TABLE views.transactions DROP CONSTRAINT transactions_pkey, ADD CONSTRAINT transactions_pkey PRIMARY KEY USING INDEX transactions_generation;
ALTER TABLE views.refunds      DROP CONSTRAINT refunds_pkey,      ADD CONSTRAINT refunds_pkey      PRIMARY KEY USING INDEX refunds_generation;
ALTER TABLE views.sales_by_day DROP CONSTRAINT sales_by_day_pkey, ADD CONSTRAINT sales_by_day_pkey PRIMARY KEY USING INDEX sales_by_day_generation;
DROP INDEX views.products_category, views.transactions_buyer, views.transactions_affiliate,
    views.refunds_transaction, views.refunds_buyer, views.refunds_affiliate;
