-- Why: a process that starts with another master key than the database was begun with would make unreadable data and change
-- the login role's password under the running ones. It compares ids before it does anything, and refuses.

-- Not a tenant's table, so without row-level security: it is about the installation. An id is the first 16 hex digits of a value
-- derived from the key (HKDF) and tells nothing of it. The owner adds a row; processes only read.
CREATE TABLE ledger.master_keys (
    id         text COLLATE "C" PRIMARY KEY CHECK (id <> ''),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
GRANT SELECT ON ledger.master_keys TO bitnexus_platform;

-- Nodes do not have the owner's password: with this they see at their start whether `bitnexus migrate` has been run.
GRANT USAGE ON SCHEMA migrations TO bitnexus_platform;
GRANT SELECT ON migrations.applied TO bitnexus_platform;
