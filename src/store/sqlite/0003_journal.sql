-- A correction is an entry of its own: it names the one that it corrects, and its figures are differences.
ALTER TABLE ledger ADD COLUMN corrects BLOB REFERENCES ledger (id);
CREATE INDEX corrections ON ledger (corrects) WHERE corrects IS NOT NULL;
CREATE INDEX unresolved ON ledger (settled_at, id) WHERE ending = 'unresolved';

-- The windows that an unresolved entry was charged to, for the one who corrects it.
CREATE TABLE unresolved_windows (
    entry_id     BLOB NOT NULL REFERENCES ledger (id),
    limit_id     TEXT NOT NULL,
    measure      TEXT NOT NULL CHECK (measure IN ('money', 'tokens', 'requests')),
    window_start INTEGER NOT NULL,
    PRIMARY KEY (entry_id, limit_id, measure, window_start)
) STRICT, WITHOUT ROWID;
