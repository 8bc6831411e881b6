//! Ledger entries on their way from the requests to the store.
//!
//! Every hold has its place reserved before it is given out, so an entry is never refused and never
//! waits. When the places run out, admission refuses instead. With a journal, what waits here survives the
//! end of the process, however it comes.

use super::counters::Cell;
use super::journal::{Journal, Place};
use crate::governance::money::Nanos;
use crate::governance::pricing::Price;
use crate::governance::request::RequestKind;
use crate::governance::time::Timestamp;
use crate::governance::usage::Usage;
use crossbeam_queue::SegQueue;
use smallvec::SmallVec;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};

/// One settled attempt, ready to be written down.
#[derive(Debug)]
pub struct Entry {
    /// Ours, one for each attempt; no client can choose it.
    pub id: ChargeId,
    pub tag: CallTag,
    pub settled_at: Timestamp,
    pub ending: Ending,
    pub usage: Usage,
    pub cost: Nanos,
    /// What changes in which window.
    pub deltas: SmallVec<[Delta; 4]>,
    /// Its room in the journal, freed once it is written.
    pub place: Option<Place>,
}

/// What one entry adds to one window's balance.
#[derive(Debug)]
pub struct Delta {
    pub cell: Arc<Cell>,
    pub amount: i64,
}

/// Who asked for what; known when the hold is made.
#[derive(Debug, Clone)]
pub struct CallTag {
    pub virtual_key: Option<Arc<str>>,
    /// The key's team and customer as they are at that moment.
    pub team: Option<Arc<str>>,
    pub customer: Option<Arc<str>>,
    pub provider: Arc<str>,
    pub model: Arc<str>,
    pub kind: RequestKind,
    pub admitted_at: Timestamp,
    /// What its usage is charged by. Absent: it has no price, or a dead process took it along.
    pub price: Option<Arc<Price>>,
}

/// How an attempt ended, as the ledger records it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ending {
    /// The answer came to its end.
    Completed,
    /// The provider refused or failed before any output.
    UpstreamFailed,
    /// The provider broke off within its answer.
    UpstreamBroke,
    /// A deadline passed.
    TimedOut,
    /// The client left.
    ClientGone,
    /// The request's task ended without a word: a panic or the end of the process.
    Abandoned,
    /// The process died while the call was open. Charged at the most that it can have come to.
    Unresolved,
}

impl Ending {
    pub const ALL: [Ending; 7] = [
        Ending::Completed,
        Ending::UpstreamFailed,
        Ending::UpstreamBroke,
        Ending::TimedOut,
        Ending::ClientGone,
        Ending::Abandoned,
        Ending::Unresolved,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Ending::Completed => "completed",
            Ending::UpstreamFailed => "upstream_failed",
            Ending::UpstreamBroke => "upstream_broke",
            Ending::TimedOut => "timed_out",
            Ending::ClientGone => "client_gone",
            Ending::Abandoned => "abandoned",
            Ending::Unresolved => "unresolved",
        }
    }
}

/// Identifies a charge: random for the process, counted within it. No system call for each request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChargeId(pub u128);

#[derive(Debug)]
pub struct Outbox {
    entries: SegQueue<Entry>,
    /// Open holds plus entries not yet written.
    taken: AtomicUsize,
    places: usize,
    open_holds: AtomicI64,
    closed: AtomicBool,
    journal: Option<Arc<dyn Journal>>,
}

impl Outbox {
    pub fn new(places: usize, journal: Option<Arc<dyn Journal>>) -> Outbox {
        Outbox {
            journal,
            entries: SegQueue::new(),
            taken: AtomicUsize::new(0),
            places,
            open_holds: AtomicI64::new(0),
            closed: AtomicBool::new(false),
        }
    }

    /// Where open attempts are kept for the case that the process dies; none in some tests.
    pub(super) fn journal(&self) -> Option<&dyn Journal> {
        self.journal.as_deref()
    }

    /// Takes a place for a hold and the entry that it will become.
    pub(super) fn reserve(&self) -> bool {
        if self.closed.load(Ordering::Acquire) {
            return false;
        }
        let place = |taken| (taken < self.places).then_some(taken + 1);
        let reserved = self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, place).is_ok();
        if reserved {
            self.open_holds.fetch_add(1, Ordering::Relaxed);
        }
        reserved
    }

    /// Admits nothing more: the process is about to end.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// A hold ended without an entry.
    pub(super) fn give_back(&self, place: Option<Place>) {
        self.free(place);
        self.open_holds.fetch_sub(1, Ordering::Relaxed);
        self.taken.fetch_sub(1, Ordering::AcqRel);
    }

    /// A hold became an entry; its place stays taken until the entry is written.
    pub(super) fn push(&self, entry: Entry) {
        self.entries.push(entry);
        self.open_holds.fetch_sub(1, Ordering::Relaxed);
    }

    /// The writer's side: up to `most` entries, oldest first.
    pub fn take(&self, most: usize) -> Vec<Entry> {
        std::iter::from_fn(|| self.entries.pop()).take(most).collect()
    }

    /// The writer's side: these entries are in the store for good.
    pub fn written(&self, entries: impl IntoIterator<Item = Entry>) {
        let count = entries.into_iter().map(|entry| self.free(entry.place)).count();
        self.taken.fetch_sub(count, Ordering::AcqRel);
    }

    fn free(&self, place: Option<Place>) {
        if let (Some(journal), Some(place)) = (&self.journal, place) {
            journal.free(place);
        }
    }

    pub fn open_holds(&self) -> i64 {
        self.open_holds.load(Ordering::Relaxed)
    }

    /// Settled, but not yet in the store.
    pub fn unwritten(&self) -> usize {
        let open = usize::try_from(self.open_holds()).unwrap_or(0);
        self.taken.load(Ordering::Relaxed).saturating_sub(open)
    }
}
