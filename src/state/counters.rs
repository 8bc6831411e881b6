//! One atomic cell for each limit and window.
//!
//! Invariant: `used` is spent plus held, and it alone decides about admission, in one
//! compare-and-swap; so no interleaving admits what two separate numbers would have let through.
//! A window that ends gets a fresh cell; a hold keeps the cell that admitted it.

use crate::governance::judge::{Admission, Tally, admits};
use crate::governance::time::{Timestamp, Window};
use crate::governance::view::LimitKey;
use crate::state::journal::Mark;
use arc_swap::ArcSwap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// What was spent and is held within one window of one limit.
#[derive(Debug)]
pub struct Cell {
    key: LimitKey,
    mark: Mark,
    start: Timestamp,
    used: AtomicI64,
    spent: AtomicI64,
}

impl Cell {
    /// A cell that no meter has: whoever reads a journal charges to it.
    pub fn new(key: LimitKey, start: Timestamp, spent: i64) -> Cell {
        Cell { mark: Mark::of(&key), key, start, used: AtomicI64::new(spent), spent: AtomicI64::new(spent) }
    }

    /// The next one of the same limit.
    fn next(&self, start: Timestamp) -> Cell {
        let Cell { ref key, mark, .. } = *self;
        Cell { key: key.clone(), mark, start, used: AtomicI64::new(0), spent: AtomicI64::new(0) }
    }

    pub fn key(&self) -> &LimitKey {
        &self.key
    }

    /// What stands for the limit in a journal.
    pub fn mark(&self) -> Mark {
        self.mark
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
        // What does not fit into the sum is refused: a saturated sum would forget what it was.
        let admit = |used| if admits(max, used, amount, admission) { i64::checked_add(used, amount) } else { None };
        self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, admit).is_ok()
    }

    /// Turns what was held into what was spent.
    pub(super) fn settle(&self, held: i64, spent: i64) {
        let add = |cell: &AtomicI64, amount: i128| {
            let sum = |now: i64| {
                let bounded = (i128::from(now) + amount).clamp(i128::from(i64::MIN), i128::from(i64::MAX));
                i64::try_from(bounded).ok()
            };
            // Always `Some`, since it was clamped.
            let _ = cell.fetch_update(Ordering::AcqRel, Ordering::Acquire, sum);
        };
        add(&self.spent, i128::from(spent));
        add(&self.used, i128::from(spent) - i128::from(held));
    }
}

/// The cells of one limit, one after the other.
#[derive(Debug)]
pub struct Meter {
    window: Window,
    current: ArcSwap<Open>,
}

/// The current cell, and the first instant that is not in its window any more.
#[derive(Debug)]
struct Open {
    cell: Arc<Cell>,
    end: Timestamp,
}

impl Meter {
    /// Continues at a balance that the ledger kept, or begins with nothing spent.
    pub(super) fn open(key: LimitKey, window: Window, start: Timestamp, spent: i64) -> Meter {
        Meter::holding(window, Arc::new(Cell::new(key, start, spent)))
    }

    /// This meter with windows of another length. It shares the current cell, but not its end: a request
    /// that still goes by the old window does not end the new one.
    pub(super) fn with_window(self: &Arc<Meter>, window: &Window) -> Arc<Meter> {
        if self.window == *window {
            return Arc::clone(self);
        }
        Arc::new(Meter::holding(window.clone(), Arc::clone(&self.current.load().cell)))
    }

    fn holding(window: Window, cell: Arc<Cell>) -> Meter {
        let current = ArcSwap::from_pointee(Open { end: window.end(cell.start), cell });
        Meter { window, current }
    }

    fn open_at(&self, last: &Cell, start: Timestamp) -> Arc<Open> {
        Arc::new(Open { end: self.window.end(start), cell: Arc::new(last.next(start)) })
    }

    /// Begins a window with nothing spent. What is held stays with the window that admitted it.
    pub(super) fn restart(&self, at: Timestamp) {
        let last = Arc::clone(&self.current.load().cell);
        self.current.store(self.open_at(&last, at));
    }

    /// The cell of the window that holds `now`. Windows end when somebody looks, not on a timer.
    pub fn cell(&self, now: Timestamp) -> Arc<Cell> {
        let current = self.current.load();
        if now < current.end {
            return Arc::clone(&current.cell);
        }
        let fresh = self.open_at(&current.cell, self.window.start(current.cell.start, now));
        let seen = self.current.compare_and_swap(&*current, Arc::clone(&fresh));
        if Arc::ptr_eq(&seen, &current) { Arc::clone(&fresh.cell) } else { Arc::clone(&self.current.load().cell) }
    }
}
