-- Why: holders of reservations are looked up by ledger.look_up since 0011_pre_lookup.sql, and nothing calls this any more.
DROP FUNCTION ledger.read_holders(uuid, text, bytea[]);
