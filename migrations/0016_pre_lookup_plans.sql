-- Why: ledger.look_up was planned anew at each call, as the planner thinks the better of arrays that it can see the length of, and the
-- plan is always the same: two index scans a wanted thing. Planning cost three times what the call costs.

ALTER FUNCTION ledger.look_up(uuid[], int[], text[], bytea[], uuid[], int[]) SET plan_cache_mode = force_generic_plan;
-- Whatever the tables' size when the plan is made.
ALTER FUNCTION ledger.look_up(uuid[], int[], text[], bytea[], uuid[], int[]) SET enable_seqscan = off;
ALTER FUNCTION ledger.look_up(uuid[], int[], text[], bytea[], uuid[], int[]) SET enable_hashjoin = off;
ALTER FUNCTION ledger.look_up(uuid[], int[], text[], bytea[], uuid[], int[]) SET enable_mergejoin = off;
