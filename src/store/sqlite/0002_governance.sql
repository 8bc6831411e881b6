-- Everything that administrators declare. Instants, money and JSON as in the first migration.

-- They name tables that are built anew below, and come back at the end.
DROP TRIGGER virtual_key_gone;
DROP TRIGGER provider_config_gone;
DROP TRIGGER budget_gone;
DROP TRIGGER rate_limit_gone;
DROP TRIGGER tokens_gone;
DROP TRIGGER requests_gone;

CREATE TABLE customers (
    id          TEXT PRIMARY KEY,
    name        TEXT NOT NULL,
    config_hash TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Who loses an owner stays, on its own. References are judged when a change is complete.
CREATE TABLE teams (
    id          TEXT PRIMARY KEY,
    name        TEXT NOT NULL,
    customer_id TEXT REFERENCES customers (id) ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED,
    profile     TEXT, -- JSON objects
    config      TEXT,
    claims      TEXT,
    config_hash TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX teams_by_customer ON teams (customer_id);

ALTER TABLE virtual_keys ADD COLUMN
    team_id TEXT REFERENCES teams (id) ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE virtual_keys ADD COLUMN
    customer_id TEXT REFERENCES customers (id) ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED
    CHECK (customer_id IS NULL OR team_id IS NULL);
CREATE INDEX virtual_keys_by_team ON virtual_keys (team_id);
CREATE INDEX virtual_keys_by_customer ON virtual_keys (customer_id);
CREATE INDEX virtual_keys_by_age ON virtual_keys (created_at, id);

-- The order in which they were given.
ALTER TABLE provider_configs ADD COLUMN position INTEGER NOT NULL DEFAULT 0;

CREATE TABLE model_configs (
    id          TEXT PRIMARY KEY,
    model_name  TEXT NOT NULL,
    provider    TEXT CHECK (provider <> ''), -- NULL: every provider
    config_hash TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX model_configs_by_model ON model_configs (model_name, ifnull(provider, ''));

-- Limits on all that goes to one provider, which need not be declared itself.
CREATE TABLE provider_limits (
    provider    TEXT PRIMARY KEY,
    config_hash TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE routing_rules (
    id          TEXT PRIMARY KEY,
    name        TEXT NOT NULL,
    description TEXT NOT NULL,
    enabled     INTEGER NOT NULL CHECK (enabled IN (0, 1)),
    expression  TEXT NOT NULL,
    targets     TEXT NOT NULL, -- JSON: provider, model, key_id and weight, in millionths, of each
    fallbacks   TEXT,          -- JSON array of text
    scope       TEXT NOT NULL CHECK (scope IN ('global', 'customer', 'team', 'virtual_key')),
    scope_id    TEXT CHECK ((scope_id IS NULL) = (scope = 'global')),
    priority    INTEGER NOT NULL,
    chain       INTEGER NOT NULL CHECK (chain IN (0, 1)),
    query       TEXT,          -- JSON
    config_hash TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX routing_rules_by_name ON routing_rules (scope, ifnull(scope_id, ''), name);
CREATE UNIQUE INDEX routing_rules_by_priority ON routing_rules (scope, ifnull(scope_id, ''), priority);

CREATE TABLE pricing_overrides (
    id            TEXT PRIMARY KEY,
    name          TEXT NOT NULL,
    scope         TEXT NOT NULL,
    virtual_key   TEXT,
    provider      TEXT,
    provider_key  TEXT,
    match_type    TEXT NOT NULL CHECK (match_type IN ('exact', 'prefix')),
    pattern       TEXT NOT NULL,
    request_kinds TEXT NOT NULL, -- JSON array of text
    patch         TEXT NOT NULL, -- JSON: trillionths of a dollar for one unit, by the price's name
    config_hash   TEXT NOT NULL,
    created_at    INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What may be seen of a provider or of its key is JSON; its secrets are sealed beside it.
CREATE TABLE providers (
    name   TEXT PRIMARY KEY,
    body   TEXT NOT NULL,
    sealed BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE provider_keys (
    id       TEXT PRIMARY KEY,
    provider TEXT NOT NULL REFERENCES providers (name) ON DELETE CASCADE,
    name     TEXT NOT NULL UNIQUE,
    position INTEGER NOT NULL,
    body     TEXT NOT NULL,
    sealed   BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX provider_keys_by_provider ON provider_keys (provider, position);

CREATE TABLE settings (
    name  TEXT PRIMARY KEY CHECK (name IN ('client_config', 'basic_auth')),
    value TEXT NOT NULL -- JSON
) STRICT, WITHOUT ROWID;

-- What of the config file is in force: each entry with a keyed digest of its words, the object that it made, which
-- may be gone since, and a keyed digest of the value that it gave a virtual key.
CREATE TABLE declared (
    kind      TEXT NOT NULL,
    entry     TEXT NOT NULL,
    object_id TEXT NOT NULL,
    hash      TEXT NOT NULL,
    value     BLOB CHECK (value IS NULL OR length(value) = 32),
    PRIMARY KEY (kind, entry)
) STRICT, WITHOUT ROWID;

-- Who changed what. Ids grow and are never given twice.
CREATE TABLE audit (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    at          INTEGER NOT NULL,
    actor       TEXT NOT NULL,
    action      TEXT NOT NULL,
    object_type TEXT NOT NULL,
    object_id   TEXT NOT NULL,
    object_name TEXT,
    "before"    TEXT, -- JSON without secrets
    "after"     TEXT
) STRICT;
CREATE INDEX audit_by_object ON audit (object_id, object_type);
CREATE INDEX audit_by_type ON audit (object_type);

-- Answers to requests that may be sent again. The body may hold a virtual key's value.
CREATE TABLE replays (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    key         TEXT NOT NULL UNIQUE,
    fingerprint BLOB NOT NULL CHECK (length(fingerprint) = 32),
    status      INTEGER NOT NULL,
    sealed      BLOB NOT NULL,
    at          INTEGER NOT NULL,
    virtual_key_id TEXT -- whose value is in it
) STRICT;
CREATE INDEX replays_by_age ON replays (at);
CREATE INDEX replays_by_virtual_key ON replays (virtual_key_id);

-- Limits get further owners. Those of a provider belong to its name.
CREATE TABLE new_budgets (
    id               TEXT PRIMARY KEY,
    owner_type       TEXT NOT NULL CHECK (owner_type IN
                         ('customer', 'team', 'virtual_key', 'provider_config', 'model_config', 'provider')),
    owner_id         TEXT NOT NULL,
    max_nanos        INTEGER NOT NULL CHECK (max_nanos > 0),
    reset_duration   TEXT NOT NULL,
    calendar_aligned INTEGER NOT NULL CHECK (calendar_aligned IN (0, 1)),
    anchor           INTEGER NOT NULL,
    created_at       INTEGER NOT NULL,
    updated_at       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO new_budgets
    SELECT id, owner_type, owner_id, max_nanos, reset_duration, calendar_aligned, anchor, created_at, updated_at
    FROM budgets;
DROP TABLE budgets;
ALTER TABLE new_budgets RENAME TO budgets;
CREATE INDEX budgets_by_owner ON budgets (owner_type, owner_id);

CREATE TABLE new_rate_limits (
    id               TEXT PRIMARY KEY,
    owner_type       TEXT NOT NULL CHECK (owner_type IN
                         ('customer', 'team', 'virtual_key', 'provider_config', 'model_config', 'provider')),
    owner_id         TEXT NOT NULL,
    tokens_max       INTEGER CHECK (tokens_max > 0),
    tokens_reset     TEXT,
    tokens_anchor    INTEGER,
    requests_max     INTEGER CHECK (requests_max > 0),
    requests_reset   TEXT,
    requests_anchor  INTEGER,
    created_at       INTEGER NOT NULL,
    updated_at       INTEGER NOT NULL,
    UNIQUE (owner_type, owner_id)
) STRICT, WITHOUT ROWID;
INSERT INTO new_rate_limits
    SELECT id, owner_type, owner_id, tokens_max, tokens_reset, tokens_anchor, requests_max, requests_reset,
        requests_anchor, created_at, updated_at
    FROM rate_limits;
DROP TABLE rate_limits;
ALTER TABLE new_rate_limits RENAME TO rate_limits;

-- What belongs to a deleted object goes with it, whoever deletes it.
CREATE TRIGGER customer_gone AFTER DELETE ON customers BEGIN
    DELETE FROM budgets WHERE owner_type = 'customer' AND owner_id = OLD.id;
    DELETE FROM rate_limits WHERE owner_type = 'customer' AND owner_id = OLD.id;
END;
CREATE TRIGGER team_gone AFTER DELETE ON teams BEGIN
    DELETE FROM budgets WHERE owner_type = 'team' AND owner_id = OLD.id;
    DELETE FROM rate_limits WHERE owner_type = 'team' AND owner_id = OLD.id;
END;
CREATE TRIGGER virtual_key_gone AFTER DELETE ON virtual_keys BEGIN
    DELETE FROM budgets WHERE owner_type = 'virtual_key' AND owner_id = OLD.id;
    DELETE FROM rate_limits WHERE owner_type = 'virtual_key' AND owner_id = OLD.id;
END;
CREATE TRIGGER provider_config_gone AFTER DELETE ON provider_configs BEGIN
    DELETE FROM budgets WHERE owner_type = 'provider_config' AND owner_id = CAST(OLD.id AS TEXT);
    DELETE FROM rate_limits WHERE owner_type = 'provider_config' AND owner_id = CAST(OLD.id AS TEXT);
END;
CREATE TRIGGER model_config_gone AFTER DELETE ON model_configs BEGIN
    DELETE FROM budgets WHERE owner_type = 'model_config' AND owner_id = OLD.id;
    DELETE FROM rate_limits WHERE owner_type = 'model_config' AND owner_id = OLD.id;
END;
CREATE TRIGGER provider_limits_gone AFTER DELETE ON provider_limits BEGIN
    DELETE FROM budgets WHERE owner_type = 'provider' AND owner_id = OLD.provider;
    DELETE FROM rate_limits WHERE owner_type = 'provider' AND owner_id = OLD.provider;
END;
CREATE TRIGGER provider_gone AFTER DELETE ON providers BEGIN
    DELETE FROM provider_limits WHERE provider = OLD.name;
END;
CREATE TRIGGER budget_gone AFTER DELETE ON budgets BEGIN
    DELETE FROM balances WHERE limit_id = OLD.id AND measure = 'money';
END;
CREATE TRIGGER rate_limit_gone AFTER DELETE ON rate_limits BEGIN
    DELETE FROM balances WHERE limit_id = OLD.id AND measure IN ('tokens', 'requests');
END;
CREATE TRIGGER tokens_gone AFTER UPDATE OF tokens_max ON rate_limits WHEN NEW.tokens_max IS NULL BEGIN
    DELETE FROM balances WHERE limit_id = OLD.id AND measure = 'tokens';
END;
CREATE TRIGGER requests_gone AFTER UPDATE OF requests_max ON rate_limits WHEN NEW.requests_max IS NULL BEGIN
    DELETE FROM balances WHERE limit_id = OLD.id AND measure = 'requests';
END;
