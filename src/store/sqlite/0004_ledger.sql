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

-- The prices that calls were charged by, those of one model together and each combination once, in trillionths of
-- a dollar for one unit.
CREATE TABLE ledger_prices (
    id     INTEGER PRIMARY KEY,
    prices TEXT NOT NULL UNIQUE -- JSON object: by the names of LiteLLM's price table
) STRICT;

-- Words that stand in entries by their number.
CREATE TABLE ledger_words (
    id   INTEGER PRIMARY KEY,
    word TEXT NOT NULL UNIQUE
) STRICT;
INSERT INTO ledger_words VALUES (0, 'completed'), (1, 'unresolved'), (2, 'correction'), (3, 'standard');

-- What the ids of entries begin with: nearly always the process that made them.
CREATE TABLE ledger_origins (
    id     INTEGER PRIMARY KEY,
    origin BLOB NOT NULL UNIQUE CHECK (length(origin) = 11)
) STRICT;

-- One row for each settled attempt, as before, and small. `ledger_entries` shows it with its names.
CREATE TABLE ledger_rows (
    number           INTEGER PRIMARY KEY, -- the number of the id's first 11 bytes, and in the low 40 bits its last 5
    admitted_at      INTEGER NOT NULL,
    took             INTEGER NOT NULL,    -- milliseconds until it was settled
    account          INTEGER NOT NULL,
    charged          INTEGER,             -- NULL: not known, or no limit
    price            INTEGER,             -- NULL: not known, or no price
    kind             INTEGER NOT NULL,
    ending           INTEGER NOT NULL,
    tier             INTEGER NOT NULL,
    estimated        INTEGER NOT NULL CHECK (estimated IN (0, 1)),
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
    model            TEXT,                -- NULL, as in most: its account says it
    other            TEXT,                -- what no column counts: a JSON object of whole numbers. NULL, as in most: nothing
    corrects         INTEGER REFERENCES ledger_rows (number)
) STRICT;

-- Charges that do not follow the rule by which windows are found and amounts are read from entries.
CREATE TABLE ledger_strays (
    entry        INTEGER NOT NULL,
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

-- Since when what is forgotten by age is still whole; and what is known of the clock that says how old it is.
CREATE TABLE ledger_kept (
    what  TEXT PRIMARY KEY CHECK (what IN ('entries', 'hours', 'believed', 'doubted', 'doubtful')),
    since INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What is in the ledger already. Its keys' teams and customers are not known.
INSERT INTO ledger_accounts (virtual_key_id, team_id, customer_id, provider, model)
    SELECT DISTINCT ifnull(virtual_key_id, ''), '', '', provider, model FROM ledger;
INSERT INTO ledger_words (word)
    SELECT kind FROM ledger UNION SELECT ending FROM ledger UNION SELECT tier FROM ledger
    EXCEPT SELECT word FROM ledger_words;
INSERT INTO ledger_origins (origin) SELECT DISTINCT substr(id, 1, 11) FROM ledger;
CREATE TABLE ledger_numbers (id BLOB PRIMARY KEY, number INTEGER NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO ledger_numbers
    SELECT id, ((SELECT id FROM ledger_origins WHERE origin = substr(ledger.id, 1, 11)) << 40) |
        (instr('123456789ABCDEF', substr(hex(substr(id, 12)), 1, 1)) << 36) |
        (instr('123456789ABCDEF', substr(hex(substr(id, 12)), 2, 1)) << 32) |
        (instr('123456789ABCDEF', substr(hex(substr(id, 12)), 3, 1)) << 28) |
        (instr('123456789ABCDEF', substr(hex(substr(id, 12)), 4, 1)) << 24) |
        (instr('123456789ABCDEF', substr(hex(substr(id, 12)), 5, 1)) << 20) |
        (instr('123456789ABCDEF', substr(hex(substr(id, 12)), 6, 1)) << 16) |
        (instr('123456789ABCDEF', substr(hex(substr(id, 12)), 7, 1)) << 12) |
        (instr('123456789ABCDEF', substr(hex(substr(id, 12)), 8, 1)) << 8) |
        (instr('123456789ABCDEF', substr(hex(substr(id, 12)), 9, 1)) << 4) |
        (instr('123456789ABCDEF', substr(hex(substr(id, 12)), 10, 1)) << 0)
    FROM ledger;
INSERT INTO ledger_rows
    SELECT named.number, admitted_at, settled_at - admitted_at, known.id, NULL, NULL, kind.id, ending.id, tier.id, estimated,
        input, cache_read, cache_write, cache_write_long, audio_input, image_input, output, reasoning, audio_output, 0,
        cost_nanos, CASE old.model WHEN '' THEN '' END, NULL, corrected.number
    FROM ledger AS old
    JOIN ledger_numbers AS named ON named.id = old.id
    JOIN ledger_accounts AS known ON known.virtual_key_id = ifnull(old.virtual_key_id, '')
        AND known.provider = old.provider AND known.model = old.model AND known.team_id = '' AND known.customer_id = ''
    JOIN ledger_words AS kind ON kind.word = old.kind
    JOIN ledger_words AS ending ON ending.word = old.ending
    JOIN ledger_words AS tier ON tier.word = old.tier
    LEFT JOIN ledger_numbers AS corrected ON corrected.id = old.corrects
    ORDER BY named.number;
-- As before, with the numbers of entries.
CREATE TABLE unresolved_rows (
    entry        INTEGER NOT NULL REFERENCES ledger_rows (number),
    limit_id     TEXT NOT NULL,
    measure      TEXT NOT NULL CHECK (measure IN ('money', 'tokens', 'requests')),
    window_start INTEGER NOT NULL,
    PRIMARY KEY (entry, limit_id, measure, window_start)
) STRICT, WITHOUT ROWID;
INSERT INTO unresolved_rows
    SELECT number, limit_id, measure, window_start FROM unresolved_windows JOIN ledger_numbers ON id = entry_id;
DROP TABLE unresolved_windows;
DROP TABLE ledger;
DROP TABLE ledger_numbers;
ALTER TABLE ledger_rows RENAME TO ledger;
ALTER TABLE unresolved_rows RENAME TO unresolved_windows;
-- In the order of pages; with the account, so that most filters look at nothing else.
CREATE INDEX ledger_by_time ON ledger (admitted_at, number, account);
CREATE INDEX corrections ON ledger (corrects) WHERE corrects IS NOT NULL;
CREATE INDEX unresolved ON ledger (number) WHERE ending = 1;
CREATE VIEW ledger_entries AS
    SELECT entry.number, unhex(hex(made.origin) || printf('%010X', entry.number & 0xffffffffff)) AS id, admitted_at,
        admitted_at + took AS settled_at, nullif(virtual_key_id, '') AS virtual_key_id, nullif(team_id, '') AS team_id,
        nullif(customer_id, '') AS customer_id, provider, ifnull(entry.model, known.model) AS model, kind.word AS kind,
        ending.word AS ending, estimated, tier.word AS tier, input, cache_read, cache_write, cache_write_long,
        audio_input, image_input, output, reasoning, audio_output, image_output, cost_nanos, other, prices,
        iif(corrects IS NULL, NULL, unhex(hex(made_before.origin) || printf('%010X', corrects & 0xffffffffff))) AS corrects
    FROM ledger AS entry
    LEFT JOIN ledger_origins AS made ON made.id = entry.number >> 40
    LEFT JOIN ledger_accounts AS known ON known.id = entry.account
    LEFT JOIN ledger_prices AS paid ON paid.id = entry.price
    LEFT JOIN ledger_words AS kind ON kind.id = entry.kind
    LEFT JOIN ledger_words AS ending ON ending.id = entry.ending
    LEFT JOIN ledger_words AS tier ON tier.id = entry.tier
    LEFT JOIN ledger_origins AS made_before ON made_before.id = entry.corrects >> 40;

INSERT INTO ledger_hours
    SELECT admitted_at - admitted_at % 3600000, account, sum(corrects IS NULL), sum(input), sum(cache_read), sum(cache_write),
        sum(cache_write_long), sum(audio_input), sum(image_input), sum(output), sum(reasoning), sum(audio_output),
        sum(image_output), sum(cost_nanos)
    FROM ledger GROUP BY 1, 2;
INSERT INTO ledger_days
    SELECT at - at % 86400000, account, sum(calls), sum(input), sum(cache_read), sum(cache_write),
        sum(cache_write_long), sum(audio_input), sum(image_input), sum(output), sum(reasoning), sum(audio_output),
        sum(image_output), sum(cost_nanos)
    FROM ledger_hours GROUP BY 1, 2;
