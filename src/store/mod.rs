//! Where what is declared and settled spending are kept. Blocking on purpose: administrators' handlers call
//! it off their runtime, the writer has a thread of its own, and a proxy worker never comes here.
//!
//! Invariant: ledger entries, balances and roll-ups change in one transaction, by deltas, once for each entry.

mod follow;
pub mod journal;
pub mod key_file;
mod lock;
mod question;
mod record;
mod seal;
mod sqlite;
#[cfg(test)]
pub(crate) mod tests;
pub mod writer;

use crate::governance::time::Timestamp;
use crate::governance::view::LimitKey;
use crate::state::Balance;
use crate::state::outbox::Entry;
use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::sync::Arc;

pub use follow::Follow;
pub use lock::DataLock;
pub use question::{Cursor, Group, Keep, LedgerEntry, LedgerFilter, LedgerSum, LedgerSums, UNITS};
pub use record::{Actual, AuditEntry, AuditLine, AuditQuery, Loaded, NewReplay, Record, Replay, UnresolvedEntry};
pub use sqlite::{Kept, Store, Verified, backup, finish_restore, restore, verify};

/// Where settled spending is kept. The seam for other backends; the writer knows nothing else.
pub trait Ledger: Send {
    /// Appends a batch and adds its deltas to the balances, in one transaction. An entry already
    /// known changes nothing. Returns how many were new.
    fn append(&mut self, batch: &[Entry]) -> Result<usize, StoreError>;

    /// What was spent in the latest window of every limit.
    fn balances(&mut self) -> Result<HashMap<LimitKey, Balance>, StoreError>;

    /// Every limit that is declared.
    fn limits(&mut self) -> Result<Vec<LimitKey>, StoreError>;

    /// The team and the customer of a virtual key, as they are now.
    fn owners(&mut self, _virtual_key: &str) -> Result<Owners, StoreError> {
        Ok((None, None))
    }

    /// Forgets a little of what is older than the operator keeps, if there is such. Called often, and each
    /// time brief: settled calls wait meanwhile.
    fn tidy(&mut self, _now: Timestamp) -> Result<(), StoreError> {
        Ok(())
    }

    /// All is written, and the process is about to end: leaves one file that is whole without others beside it.
    fn close(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// A team's id and a customer's.
pub type Owners = (Option<Arc<str>>, Option<Arc<str>>);

/// What the store could not do, in one line, with its source. Never holds a secret.
#[derive(Debug)]
pub struct StoreError {
    pub kind: StoreErrorKind,
    what: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// What a caller can tell failures apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreErrorKind {
    /// A file could not be created, opened or read.
    Open,
    /// The file is not a Tollgate database, or is damaged.
    Damaged,
    /// A newer version of Tollgate wrote it.
    NewerSchema,
    /// The secrets in it were sealed with another key.
    WrongEncryptionKey,
    /// Another process kept it locked for longer than we wait.
    Busy,
    /// A question to the ledger was ended because it took too long.
    TooLong,
    /// Another object of the kind has this name, or what else there may be one of.
    NameTaken,
    /// Another virtual key has this value.
    ValueTaken,
    /// Another object has this id.
    IdTaken,
    /// There is no object of this id.
    NotFound,
    /// The ledger entry is not one that was left unresolved.
    NotUnresolved,
    /// A request of this idempotency key was done already.
    ReplayTaken,
    Other,
}

impl StoreError {
    pub(crate) fn new(kind: StoreErrorKind, what: impl Into<String>) -> StoreError {
        StoreError { kind, what: what.into(), source: None }
    }

    pub(crate) fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> StoreError {
        self.source = Some(source.into());
        self
    }

    /// Names what was attempted, unless something closer to the cause did.
    fn doing(mut self, what: impl FnOnce() -> String) -> StoreError {
        if self.what.is_empty() {
            self.what = format!("cannot {}", what());
        }
        self
    }

    /// Whether the request asked for something that the store's content forbids.
    pub fn is_conflict(&self) -> bool {
        use StoreErrorKind::{IdTaken, NameTaken, ReplayTaken, ValueTaken};
        matches!(self.kind, NameTaken | ValueTaken | IdTaken | ReplayTaken)
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}

impl From<seal::SealError> for StoreError {
    fn from(error: seal::SealError) -> StoreError {
        let kind = match error {
            seal::SealError::KeyTooShort => StoreErrorKind::WrongEncryptionKey,
            seal::SealError::Damaged => StoreErrorKind::Damaged,
            seal::SealError::NoRandom => StoreErrorKind::Other,
        };
        StoreError::new(kind, String::new()).because(error)
    }
}
