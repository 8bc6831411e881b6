-- The ledger can be asked, stays small, and can be checked. Instants and money as in the first migration.

-- Who asked whom for what, each combination once: as it was when the call was admitted. '' means none.
CREATE TABLE ledger_accounts (
    id             INTEGER PRIMARY KEY,
    virtual_key_id TEXT NOT NULL,
    team_id        TEXT NOT NULL,
    customer_id    TEXT NOT NULL,
    provider       TEXT NOT NULL,
    model          TEXT NOT NULL,
    UNIQUE (virtual_key_id, provider, model, team_id, customer_id)
) STRICT;
CREATE INDEX ledger_accounts_by_team ON ledger_accounts (team_id);
CREATE INDEX ledger_accounts_by_customer ON ledger_accounts (customer_id);

-- Which limits calls were charged to, each combination once: as one text to find it by, and apart.
CREATE TABLE ledger_charges (
    id     INTEGER PRIMARY KEY,
    limits TEXT NOT NULL UNIQUE
) STRICT;
CREATE TABLE ledger_charge_limits (
    limit_id TEXT NOT NULL,
    measure  TEXT NOT NULL,
    charge   INTEGER NOT NULL,
    PRIMARY KEY (limit_id, measure, charge)
) STRICT, WITHOUT ROWID;

-- The prices that calls were charged by, each combination once, in trillionths of a dollar for one unit.
CREATE TABLE ledger_prices (
    id    INTEGER PRIMARY KEY,
    rates TEXT NOT NULL UNIQUE -- JSON object: by the name of a column of the ledger, or of a member of its `other`
) STRICT;

ALTER TABLE ledger ADD COLUMN account INTEGER; -- NULL in none that this version writes
ALTER TABLE ledger ADD COLUMN charged INTEGER; -- NULL: not known, or no limit
ALTER TABLE ledger ADD COLUMN price INTEGER;   -- NULL: not known, or no price
-- What a call consumed that no column counts: a JSON object of whole numbers. NULL: nothing, as in most.
ALTER TABLE ledger ADD COLUMN other TEXT;
ALTER TABLE ledger ADD COLUMN image_output INTEGER NOT NULL DEFAULT 0;
-- In the order of pages; with the account, so that most filters look at nothing else.
CREATE INDEX ledger_by_time ON ledger (admitted_at, id, account);

-- Charges that do not follow the rule by which windows are found and amounts are read from entries.
CREATE TABLE ledger_strays (
    entry        BLOB NOT NULL,
    limit_id     TEXT NOT NULL,
    measure      TEXT NOT NULL,
    window_start INTEGER NOT NULL,
    amount       INTEGER NOT NULL,
    PRIMARY KEY (entry, limit_id, measure)
) STRICT, WITHOUT ROWID;
CREATE INDEX ledger_strays_by_limit ON ledger_strays (limit_id, measure, window_start);

-- Limits that were deleted, or put out of force, at some time. One that is made again under the same id has entries
-- and no window; any other one that has is short of its balance. (OR IGNORE would give way to what the statement that
-- wakes a trigger says about conflicts.)
CREATE TABLE ledger_gone (
    limit_id TEXT NOT NULL,
    measure  TEXT NOT NULL,
    PRIMARY KEY (limit_id, measure)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER ledger_budget_gone AFTER DELETE ON budgets BEGIN
    INSERT INTO ledger_gone VALUES (OLD.id, 'money') ON CONFLICT DO NOTHING;
END;
CREATE TRIGGER ledger_rate_limit_gone AFTER DELETE ON rate_limits BEGIN
    INSERT INTO ledger_gone VALUES (OLD.id, 'tokens'), (OLD.id, 'requests') ON CONFLICT DO NOTHING;
END;
CREATE TRIGGER ledger_tokens_gone AFTER UPDATE OF tokens_max ON rate_limits WHEN NEW.tokens_max IS NULL BEGIN
    INSERT INTO ledger_gone VALUES (OLD.id, 'tokens') ON CONFLICT DO NOTHING;
END;
CREATE TRIGGER ledger_requests_gone AFTER UPDATE OF requests_max ON rate_limits WHEN NEW.requests_max IS NULL BEGIN
    INSERT INTO ledger_gone VALUES (OLD.id, 'requests') ON CONFLICT DO NOTHING;
END;

-- The part of `spent` that no entry accounts for any more, and when the latest call in the window was admitted.
ALTER TABLE balances ADD COLUMN carried INTEGER NOT NULL DEFAULT 0;
ALTER TABLE balances ADD COLUMN latest INTEGER NOT NULL DEFAULT 0;
-- What was charged until today is not known by limit.
UPDATE balances SET carried = spent;

-- Sums of entries by hour and by day (UTC) of their admission.
CREATE TABLE ledger_hours (
    at               INTEGER NOT NULL,
    account          INTEGER NOT NULL,
    calls            INTEGER NOT NULL,
    input            INTEGER NOT NULL,
    cache_read       INTEGER NOT NULL,
    cache_write      INTEGER NOT NULL,
    cache_write_long INTEGER NOT NULL,
    audio_input      INTEGER NOT NULL,
    image_input      INTEGER NOT NULL,
    output           INTEGER NOT NULL,
    reasoning        INTEGER NOT NULL,
    audio_output     INTEGER NOT NULL,
    image_output     INTEGER NOT NULL,
    cost_nanos       INTEGER NOT NULL,
    PRIMARY KEY (at, account)
) STRICT, WITHOUT ROWID;
CREATE TABLE ledger_days (
    at               INTEGER NOT NULL,
    account          INTEGER NOT NULL,
    calls            INTEGER NOT NULL,
    input            INTEGER NOT NULL,
    cache_read       INTEGER NOT NULL,
    cache_write      INTEGER NOT NULL,
    cache_write_long INTEGER NOT NULL,
    audio_input      INTEGER NOT NULL,
    image_input      INTEGER NOT NULL,
    output           INTEGER NOT NULL,
    reasoning        INTEGER NOT NULL,
    audio_output     INTEGER NOT NULL,
    image_output     INTEGER NOT NULL,
    cost_nanos       INTEGER NOT NULL,
    PRIMARY KEY (at, account)
) STRICT, WITHOUT ROWID;

-- Since when what is forgotten by age is still whole.
CREATE TABLE ledger_kept (
    what  TEXT PRIMARY KEY CHECK (what IN ('entries', 'hours')),
    since INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What is in the ledger already. Its keys' teams and customers are not known.
INSERT INTO ledger_accounts (virtual_key_id, team_id, customer_id, provider, model)
    SELECT DISTINCT ifnull(virtual_key_id, ''), '', '', provider, model FROM ledger;
UPDATE ledger SET account = (
    SELECT id FROM ledger_accounts AS known
    WHERE known.virtual_key_id = ifnull(ledger.virtual_key_id, '') AND known.provider = ledger.provider
        AND known.model = ledger.model AND known.team_id = '' AND known.customer_id = '');
INSERT INTO ledger_hours
    SELECT admitted_at - admitted_at % 3600000, account, count(*), sum(input), sum(cache_read), sum(cache_write),
        sum(cache_write_long), sum(audio_input), sum(image_input), sum(output), sum(reasoning), sum(audio_output),
        sum(image_output), sum(cost_nanos)
    FROM ledger GROUP BY 1, 2;
INSERT INTO ledger_days
    SELECT at - at % 86400000, account, sum(calls), sum(input), sum(cache_read), sum(cache_write),
        sum(cache_write_long), sum(audio_input), sum(image_input), sum(output), sum(reasoning), sum(audio_output),
        sum(image_output), sum(cost_nanos)
    FROM ledger_hours GROUP BY 1, 2;
