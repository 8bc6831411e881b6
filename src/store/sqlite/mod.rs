//! The store in one SQLite file: entities behind a connection that administrators share, the ledger
//! behind one of its own, and another one for those who ask it.
//!
//! Every write is one immediate transaction; nothing is half done, whenever the process dies.

mod ask;
pub(super) mod audit;
mod change;
mod charge;
mod copy;
mod correction;
mod declared;
mod intern;
mod ledger;
mod limits;
mod load;
mod model_config;
mod owner;
mod price_override;
mod provider;
mod provider_limits;
pub(super) mod replay;
mod retention;
mod rollup;
mod row;
mod rule;
mod schema;
mod settings;
mod verify;
mod virtual_key;

use super::question::{Cursor, Group, Keep, LedgerEntry, LedgerFilter, LedgerSums};
use super::record::{Actual, AuditEntry, AuditQuery, Loaded, Record, Replay, UnresolvedEntry};
use super::seal::{ROUNDS, SealError, Sealer, random};
use super::{Ledger, StoreError, StoreErrorKind, key_file};
use crate::governance::edit::Edit;
use crate::governance::secret::Secret;
use crate::governance::time::Timestamp;
use crate::governance::view::LimitKey;
use crate::state::digest::KeyHasher;
use crate::state::outbox::ChargeId;
use crate::state::{Adjustment, Balance};
pub use copy::{Kept, backup, restore};
use rusqlite::ffi::SQLITE_CONSTRAINT_FOREIGNKEY;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Transaction, TransactionBehavior};
use schema::Found;
use std::collections::HashMap;
use std::io;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;
pub use verify::{Verified, verify};

/// How long a write waits for another process before it is reported as busy.
const BUSY_TIMEOUT: Duration = if cfg!(test) { Duration::from_secs(1) } else { Duration::from_secs(5) };

/// How long one look at the ledger may take. What it sees is held for so long, and what the writer adds meanwhile
/// cannot go from its log into the file.
const LOOK_MAX: Duration = Duration::from_secs(if cfg!(test) { 5 } else { 20 });

/// More than there are different ones.
const STATEMENTS_KEPT: usize = 128;

/// The entities and their secrets. Shared; every call may block for as long as a disk takes.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    sealer: Sealer,
    /// For questions to the ledger, which may take a while: they wait for each other, and nobody for them. It
    /// stands first because the connection that is closed last tidies up, and this one may write nothing.
    questions: Mutex<Connection>,
    connection: Mutex<Connection>,
}

impl Store {
    /// Opens the database, or creates it for its owner only. A file that is newer, damaged, no database
    /// of ours or sealed with another key is refused, and left as it was.
    pub fn open(path: &Path, encryption_key: &Secret) -> Result<Store, StoreError> {
        let found = schema::inspect(path)?;
        if found == Found::Nothing {
            key_file::make_data_dir(&key_file::data_dir(path))?;
            match schema::create_private(path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    let what = format!("cannot create the database {}", path.display());
                    return Err(StoreError::new(StoreErrorKind::Open, what).because(error));
                }
                _ => {}
            }
        }
        Store::open_found(path, encryption_key, found)
            .map_err(|error| error.doing(|| format!("open the database {}", path.display())))
    }

    fn open_found(path: &Path, encryption_key: &Secret, found: Found) -> Result<Store, StoreError> {
        let known = match found {
            Found::Nothing => None,
            // Before anything is changed: is it ours to read?
            Found::Version(_) => Some(unlock(path, &connect(path)?, encryption_key)?),
        };
        let mut connection = connect(path)?;
        if let Some(copy) = schema::migrate(&mut connection, path, found)? {
            tracing::info!(copy = %copy.display(), "upgraded the database; its former state was kept in a copy");
        }
        let sealer = match known {
            Some(sealer) => sealer,
            None => first_key(path, &mut connection, encryption_key)?,
        };
        // Balances of limits that were deleted while calls under them were still in flight.
        connection.execute(
            "DELETE FROM balances WHERE limit_id NOT IN (SELECT id FROM budgets UNION ALL SELECT id FROM rate_limits)",
            (),
        )?;
        let questions = Mutex::new(connect_read_only(path)?);
        Ok(Store { path: path.to_owned(), sealer, questions, connection: Mutex::new(connection) })
    }

    /// What digests of presented virtual keys are made with.
    pub fn hasher(&self) -> KeyHasher {
        self.sealer.hasher().clone()
    }

    /// A ledger with a connection of its own, for the writer's thread. It forgets nothing.
    pub fn ledger(&self) -> Result<Box<dyn Ledger>, StoreError> {
        self.ledger_keeping(Keep::FOREVER)
    }

    /// The same, and what is older than `keep` goes by and by.
    pub fn ledger_keeping(&self, keep: Keep) -> Result<Box<dyn Ledger>, StoreError> {
        let connection =
            connect(&self.path).map_err(|e| e.doing(|| format!("open the ledger {}", self.path.display())))?;
        Ok(Box::new(ledger::SqliteLedger::new(connection, keep)))
    }

    /// Everything stored.
    pub fn load(&self) -> Result<Loaded, StoreError> {
        self.read("read what is declared", |connection| load::load(connection, &self.sealer))
    }

    /// Makes a change durable, with its record: all of it or nothing. Only what the edits come to must be
    /// right; on the way there objects may exchange their names. Limits that keep their id keep what was
    /// spent, unless a restart names them.
    pub fn apply(&self, edits: &[Edit], record: &Record) -> Result<(), StoreError> {
        self.write("write the change", |tx| change::apply(tx, &self.sealer, edits, record))
    }

    /// The answer that was kept for a request of this key, for a day.
    pub fn replay(&self, key: &str, now: Timestamp) -> Result<Option<Replay>, StoreError> {
        self.read("look for an answer that was kept", |connection| replay::find(connection, &self.sealer, key, now))
    }

    /// A page of the audit log, newest first, and how many lines the query selects.
    pub fn audit(&self, query: &AuditQuery) -> Result<(Vec<AuditEntry>, usize), StoreError> {
        self.read("read the audit log", |connection| audit::page(connection, query))
    }

    /// A page of the entries that a dead process left and nobody has corrected yet, newest first, and how many
    /// there are.
    pub fn unresolved(&self, limit: usize, offset: usize) -> Result<(Vec<UnresolvedEntry>, usize), StoreError> {
        self.read("read unresolved ledger entries", |connection| correction::unresolved(connection, limit, offset))
    }

    /// Appends the correction of this id that makes an unresolved entry come to `actual`, with the record of it,
    /// and changes the balances of its windows that are still kept. Returns those changes, and the entry as it
    /// stands then. One that comes to that already stays as it is.
    pub fn correct(
        &self,
        (entry, correction): (ChargeId, ChargeId),
        actual: &Actual,
        at: Timestamp,
        record: impl FnOnce(&UnresolvedEntry, &UnresolvedEntry) -> Record,
    ) -> Result<(Vec<Adjustment>, UnresolvedEntry), StoreError> {
        self.write("correct a ledger entry", |tx| correction::correct(tx, (entry, correction), actual, at, record))
    }

    /// What was spent in the latest window of every limit.
    pub fn balances(&self) -> Result<HashMap<LimitKey, Balance>, StoreError> {
        self.read("read the balances", ledger::balances)
    }

    /// Entries of the ledger, newest first, behind `after`; at most `most`.
    pub fn ledger_entries(
        &self,
        filter: &LedgerFilter,
        after: Option<Cursor>,
        most: usize,
    ) -> Result<Vec<LedgerEntry>, StoreError> {
        self.ask("read the ledger", |connection| ask::entries(connection, filter, after, most))
    }

    /// Sums of the ledger, told apart by `groups`. Absent if there are more groups than `most`.
    pub fn ledger_sums(
        &self,
        filter: &LedgerFilter,
        groups: &[Group],
        most: usize,
    ) -> Result<Option<LedgerSums>, StoreError> {
        self.ask("sum up the ledger", |connection| ask::sums(connection, filter, groups, most))
    }

    /// The values of virtual keys, for answers to administrators. Unknown ids are left out.
    pub fn virtual_key_values<'a>(
        &self,
        ids: impl IntoIterator<Item = &'a str>,
    ) -> Result<HashMap<String, Secret>, StoreError> {
        self.read("read the values of virtual keys", |connection| {
            let values = ids.into_iter().filter_map(|id| {
                virtual_key::value(connection, &self.sealer, id).map(|value| Some((id.to_owned(), value?))).transpose()
            });
            values.collect()
        })
    }

    /// Whether the database answers.
    pub fn ping(&self) -> Result<(), StoreError> {
        self.read("ask the database", |connection| {
            connection.query_row("SELECT count(*) FROM meta", (), |_| Ok(())).map_err(StoreError::from)
        })
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        // A panic within a transaction rolled it back: the connection is good.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read<T>(&self, doing: &str, work: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        work(&self.connection()).map_err(|error| error.doing(|| self.naming(doing)))
    }

    /// One consistent look at the ledger, for so long at most.
    fn ask<T>(&self, doing: &str, work: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut connection = self.questions.lock().unwrap_or_else(PoisonError::into_inner);
        let (done, waiting) = channel::<()>();
        let handle = connection.get_interrupt_handle();
        let interrupt = move || {
            let mut patience = LOOK_MAX;
            // It ends what runs at the moment, and perhaps nothing does: so again, until all is over.
            while waiting.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
                handle.interrupt();
                patience = Duration::from_millis(10);
            }
        };
        let looked = thread::scope(|scope| {
            let watch = thread::Builder::new().name("look-limit".to_owned()).spawn_scoped(scope, interrupt);
            let watch = watch.map_err(|error| StoreError::new(StoreErrorKind::Other, "").because(error))?;
            let look = connection.transaction_with_behavior(TransactionBehavior::Deferred).map_err(StoreError::from)?;
            let looked = work(&look);
            // The end of the transaction is not interrupted.
            drop(done);
            let _ = watch.join();
            looked
        });
        looked.map_err(|error| error.doing(|| self.naming(doing)))
    }

    fn write<T>(
        &self,
        doing: &str,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        in_transaction(&mut self.connection(), work).map_err(|error| error.doing(|| self.naming(doing)))
    }

    fn naming(&self, doing: &str) -> String {
        format!("{doing} in {}", self.path.display())
    }
}

/// Runs `work` in one transaction that has the write lock from its beginning.
fn in_transaction<T>(
    connection: &mut Connection,
    work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let done = work(&tx)?;
    tx.commit()?;
    Ok(done)
}

/// Rows that entities' statements of this thread stepped over without an index that leads to them.
#[cfg(test)]
pub(super) fn full_scan_steps() -> i64 {
    row::SCANNED.get()
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    // A commit that a power cut takes back would be money lost.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    Ok(connection)
}

fn connect_read_only(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    Ok(connection)
}

/// Derives the keys from what the database remembers, and makes sure that they are the right ones.
fn unlock(path: &Path, connection: &Connection, text: &Secret) -> Result<Sealer, StoreError> {
    let damaged = || StoreError::new(StoreErrorKind::Damaged, format!("the database {} lost its salt", path.display()));
    let salt = meta(connection, "salt")?.ok_or_else(damaged)?;
    let check = meta(connection, "check")?.ok_or_else(damaged)?;
    let rounds = meta(connection, "rounds")?.and_then(|bytes| Some(u32::from_be_bytes(*bytes.first_chunk()?)));
    let rounds = rounds.and_then(NonZeroU32::new).ok_or_else(damaged)?;
    let wrong = || {
        let what =
            format!("the database {} is sealed with another encryption key; it was left untouched", path.display());
        StoreError::new(StoreErrorKind::WrongEncryptionKey, what)
    };
    let sealer = Sealer::derive(text, &salt, rounds).map_err(|error| match error {
        SealError::KeyTooShort => wrong().because(error),
        other => other.into(),
    })?;
    if sealer.check()[..] == check[..] { Ok(sealer) } else { Err(wrong()) }
}

/// Makes the salt of a new database, unless another process was quicker.
fn first_key(path: &Path, connection: &mut Connection, text: &Secret) -> Result<Sealer, StoreError> {
    let salt: [u8; 16] = random()?;
    let sealer = Sealer::derive(text, &salt, ROUNDS)?;
    let made = in_transaction(connection, |tx| {
        if meta(tx, "salt")?.is_some() {
            return Ok(false);
        }
        let mut insert = tx.prepare("INSERT INTO meta (name, value) VALUES (?1, ?2)")?;
        insert.execute(("salt", &salt[..]))?;
        insert.execute(("rounds", &ROUNDS.get().to_be_bytes()[..]))?;
        insert.execute(("check", &sealer.check()[..]))?;
        Ok(true)
    })?;
    if made { Ok(sealer) } else { unlock(path, connection, text) }
}

fn meta(connection: &Connection, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
    let found = connection.query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| row.get(0));
    Ok(found.optional()?)
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> StoreError {
        if let rusqlite::Error::SqliteFailure(failure, _) = &error
            && failure.extended_code == SQLITE_CONSTRAINT_FOREIGNKEY
        {
            let what = "the change names a customer, a team or a virtual key that is not there";
            return StoreError::new(StoreErrorKind::NotFound, what).because(error);
        }
        let kind = match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreErrorKind::Busy,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreErrorKind::Damaged,
            Some(ErrorCode::OperationInterrupted) => StoreErrorKind::TooLong,
            Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => StoreErrorKind::Open,
            _ => StoreErrorKind::Other,
        };
        StoreError::new(kind, String::new()).because(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::TempDir;

    #[test]
    fn a_question_without_end_is_ended_and_the_next_one_is_answered() {
        let dir = TempDir::new();
        let store =
            Store::open(&dir.path().join("t.db"), &Secret::new("a key of more than sixteen characters")).unwrap();
        let count = |most: i64| {
            store.ask("count", |db| {
                let sql =
                    "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT ?1) SELECT count(*) FROM n";
                Ok(db.query_row(sql, [most], |row| row.get::<_, i64>(0))?)
            })
        };
        let error = count(-1).unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::TooLong, "{error}");
        assert_eq!(count(9).unwrap(), 9);
    }
}
