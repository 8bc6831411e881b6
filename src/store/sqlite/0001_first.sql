-- Money is integer nano-dollars, instants are integer milliseconds since 1970 (UTC).

-- What the database knows about itself: how its encryption key is derived and recognised.
CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE virtual_keys (
    id          TEXT PRIMARY KEY,
    name        TEXT NOT NULL UNIQUE,
    description TEXT NOT NULL,
    digest      BLOB NOT NULL UNIQUE CHECK (length(digest) = 32),
    sealed      BLOB NOT NULL,
    is_active   INTEGER NOT NULL CHECK (is_active IN (0, 1)),
    mcp_configs TEXT NOT NULL,
    config_hash TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE provider_configs (
    id                 INTEGER PRIMARY KEY AUTOINCREMENT,
    virtual_key_id     TEXT NOT NULL REFERENCES virtual_keys (id) ON DELETE CASCADE,
    provider           TEXT NOT NULL,
    weight             INTEGER CHECK (weight >= 0), -- millionths; NULL: only when named explicitly
    allowed_models     TEXT NOT NULL,               -- JSON arrays of text, ["*"] for all
    blacklisted_models TEXT NOT NULL,
    key_ids            TEXT NOT NULL,
    UNIQUE (virtual_key_id, provider)
) STRICT;

CREATE TABLE budgets (
    id               TEXT PRIMARY KEY,
    owner_type       TEXT NOT NULL CHECK (owner_type IN ('virtual_key', 'provider_config')),
    owner_id         TEXT NOT NULL,
    max_nanos        INTEGER NOT NULL CHECK (max_nanos > 0),
    reset_duration   TEXT NOT NULL,
    calendar_aligned INTEGER NOT NULL CHECK (calendar_aligned IN (0, 1)),
    anchor           INTEGER NOT NULL,
    created_at       INTEGER NOT NULL,
    updated_at       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX budgets_by_owner ON budgets (owner_type, owner_id);

CREATE TABLE rate_limits (
    id               TEXT PRIMARY KEY,
    owner_type       TEXT NOT NULL CHECK (owner_type IN ('virtual_key', 'provider_config')),
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

-- One row for each settled attempt. Append-only, and kept when its virtual key is deleted.
CREATE TABLE ledger (
    id               BLOB PRIMARY KEY CHECK (length(id) = 16),
    admitted_at      INTEGER NOT NULL,
    settled_at       INTEGER NOT NULL,
    virtual_key_id   TEXT,
    provider         TEXT NOT NULL,
    model            TEXT NOT NULL,
    kind             TEXT NOT NULL,
    ending           TEXT NOT NULL,
    estimated        INTEGER NOT NULL CHECK (estimated IN (0, 1)),
    tier             TEXT NOT NULL,
    input            INTEGER NOT NULL,
    cache_read       INTEGER NOT NULL,
    cache_write      INTEGER NOT NULL,
    cache_write_long INTEGER NOT NULL,
    audio_input      INTEGER NOT NULL,
    image_input      INTEGER NOT NULL,
    output           INTEGER NOT NULL,
    reasoning        INTEGER NOT NULL,
    audio_output     INTEGER NOT NULL,
    cost_nanos       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The sum of the entries in one window of one limit.
CREATE TABLE balances (
    limit_id     TEXT NOT NULL,
    measure      TEXT NOT NULL CHECK (measure IN ('money', 'tokens', 'requests')),
    window_start INTEGER NOT NULL,
    spent        INTEGER NOT NULL,
    PRIMARY KEY (limit_id, measure, window_start)
) STRICT, WITHOUT ROWID;

-- What belongs to a deleted object goes with it, whoever deletes it.
CREATE TRIGGER virtual_key_gone AFTER DELETE ON virtual_keys BEGIN
    DELETE FROM budgets WHERE owner_type = 'virtual_key' AND owner_id = OLD.id;
    DELETE FROM rate_limits WHERE owner_type = 'virtual_key' AND owner_id = OLD.id;
END;
CREATE TRIGGER provider_config_gone AFTER DELETE ON provider_configs BEGIN
    DELETE FROM budgets WHERE owner_type = 'provider_config' AND owner_id = CAST(OLD.id AS TEXT);
    DELETE FROM rate_limits WHERE owner_type = 'provider_config' AND owner_id = CAST(OLD.id AS TEXT);
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
