//! What a provider may bill for, kept where the end of the process does not reach.
//!
//! This is the seam: `hold` says what happens to an attempt, and a journal keeps it until the ledger
//! has it. Requests call it, so an implementation makes no system call, takes no lock and does not allocate.
//!
//! Invariant: an attempt is in the journal from before its first byte is sent until its entry is in
//! the ledger for good.

use super::hold::{Share, Spend};
use super::outbox::{CallTag, ChargeId, Ending};
use crate::governance::time::Timestamp;
use crate::governance::usage::Usage;
use crate::governance::view::LimitKey;
use ring::digest::{Context, SHA256};
use std::fmt;

/// Where open attempts are kept. Behind one handle for all threads.
pub trait Journal: fmt::Debug + Send + Sync {
    /// Writes an attempt down, as one of which nothing was sent yet. `None`: there is no room.
    fn place(&self, open: &Open<'_>) -> Option<Place>;

    /// From here on a dead process owes for the attempt: its upper bound, until it is settled.
    fn mark_sent(&self, place: &Place);

    /// From here on a dead process owes exactly this.
    fn settle(&self, place: &Place, settled: &Settled);

    /// The attempt ended without a trace, or the ledger has it.
    fn free(&self, place: Place);
}

/// One attempt's room in the journal. Whoever has it frees it; one that is dropped stays written.
#[derive(Debug, PartialEq, Eq)]
pub struct Place {
    pub slot: u32,
    /// The checksum of what was written.
    pub check: u64,
}

/// An attempt as it is written down before it is made.
#[derive(Debug)]
pub struct Open<'a> {
    pub id: ChargeId,
    pub tag: &'a CallTag,
    /// What is held for it.
    pub held: Spend,
    /// What it can come to at the very most: plain tokens, each at the dearest rate.
    pub bound: (Usage, Spend),
    pub shares: &'a [Share],
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settled {
    pub at: Timestamp,
    pub ending: Ending,
    pub usage: Usage,
    pub spend: Spend,
}

/// Stands for a limit in a journal, which has no room for names: 128 bits of a digest of what identifies it.
/// Whoever reads a journal finds the limit again among those that are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mark(pub [u64; 2]);

impl Mark {
    pub fn of(key: &LimitKey) -> Mark {
        let mut digest = Context::new(&SHA256);
        digest.update(key.measure.as_str().as_bytes());
        digest.update(b"\0");
        digest.update(key.id.as_bytes());
        let digest = digest.finish();
        let half = |at: usize| u64::from_le_bytes(digest.as_ref()[at..at + 8].try_into().expect("eight of 32 bytes"));
        Mark([half(0), half(8)])
    }
}
