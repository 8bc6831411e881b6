//! One atomic cell for each limit and window.
//!
//! Invariant: `used` is spent plus held, and it alone decides about admission, in one
//! compare-and-swap; so no interleaving admits what two separate numbers would have let through.
//! A window that ends gets a fresh cell; a hold keeps the cell that admitted it.

use crate::governance::judge::{Admission, Tally, admits};
use crate::governance::time::Timestamp;
use crate::governance::view::{Limit, LimitKey};
use arc_swap::ArcSwap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// What was spent and is held within one window of one limit.
#[derive(Debug)]
pub struct Cell {
    key: LimitKey,
    start: Timestamp,
    used: AtomicI64,
    spent: AtomicI64,
}

impl Cell {
    fn new(key: LimitKey, start: Timestamp, spent: i64) -> Cell {
        Cell { key, start, used: AtomicI64::new(spent), spent: AtomicI64::new(spent) }
    }

    pub fn key(&self) -> &LimitKey {
        &self.key
    }

    /// Where this cell's window began.
    pub fn start(&self) -> Timestamp {
        self.start
    }

    pub fn tally(&self) -> Tally {
        // Spent first: between the two loads a settlement can only make the held part look larger.
        let spent = self.spent.load(Ordering::Acquire);
        Tally { used: self.used.load(Ordering::Acquire), spent }
    }

    /// Sets `amount` aside, or changes nothing.
    pub(super) fn hold(&self, max: i64, amount: i64, admission: Admission) -> bool {
        let admit = |used| admits(max, used, amount, admission).then(|| i64::saturating_add(used, amount));
        self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, admit).is_ok()
    }

    /// Turns what was held into what was spent.
    pub(super) fn settle(&self, held: i64, spent: i64) {
        self.spent.fetch_add(spent, Ordering::AcqRel);
        self.used.fetch_add(spent.wrapping_sub(held), Ordering::AcqRel);
    }
}

/// The cells of one limit, one after the other.
#[derive(Debug)]
pub struct Meter {
    current: ArcSwap<Cell>,
}

impl Meter {
    /// Continues at a balance that the ledger kept, or begins with nothing spent.
    pub(super) fn open(key: LimitKey, start: Timestamp, spent: i64) -> Meter {
        Meter { current: ArcSwap::from_pointee(Cell::new(key, start, spent)) }
    }

    /// Begins a window with nothing spent. What is held stays with the window that admitted it.
    pub(super) fn restart(&self, at: Timestamp) {
        let key = self.current.load().key.clone();
        self.current.store(Arc::new(Cell::new(key, at, 0)));
    }

    /// The cell of the window that holds `now`. Windows end when somebody looks, not on a timer.
    pub fn cell(&self, limit: &Limit, now: Timestamp) -> Arc<Cell> {
        let current = self.current.load();
        if now < limit.window.end(current.start) {
            return Arc::clone(&current);
        }
        let fresh = Arc::new(Cell::new(limit.key.clone(), limit.window.start(current.start, now), 0));
        let seen = self.current.compare_and_swap(&*current, Arc::clone(&fresh));
        if Arc::ptr_eq(&seen, &current) { fresh } else { self.current.load_full() }
    }
}
