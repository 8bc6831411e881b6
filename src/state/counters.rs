//! One atomic cell for each limit and window.
//!
//! A window that ends gets a fresh cell; a hold keeps the cell that admitted it.

use super::cell::Counts;
use crate::governance::judge::{Admission, Tally};
use crate::governance::time::Timestamp;
use crate::governance::view::{Limit, LimitKey};
use crate::state::journal::Mark;
use arc_swap::ArcSwapOption;
use std::sync::Arc;

/// What was spent and is held within one window of one limit.
#[derive(Debug)]
pub struct Cell {
    key: LimitKey,
    mark: Mark,
    start: Timestamp,
    counts: Counts,
}

impl Cell {
    /// The first one of a limit; or one that no meter has, which what a journal tells is charged to.
    pub fn new(key: LimitKey, start: Timestamp, spent: i64) -> Cell {
        Cell { mark: Mark::of(&key), key, start, counts: Counts::new(spent) }
    }

    /// The next one of the same limit, with nothing spent.
    fn next(&self, start: Timestamp) -> Cell {
        let Cell { ref key, mark, .. } = *self;
        Cell { key: key.clone(), mark, start, counts: Counts::new(0) }
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
        self.counts.tally()
    }

    /// Spent plus held.
    pub(super) fn used(&self) -> i64 {
        self.counts.used()
    }

    /// Sets `amount` aside, or changes nothing.
    pub(super) fn hold(&self, max: i64, amount: i64, admission: Admission) -> bool {
        self.counts.hold(max, amount, admission)
    }

    /// Turns what was held into what was spent.
    pub(super) fn settle(&self, held: i64, spent: i64) {
        self.counts.settle(held, spent);
    }
}

/// The cells of one limit, one after the other. Empty until somebody is counted.
#[derive(Debug, Default)]
pub struct Meter(ArcSwapOption<Open>);

/// The current cell, and the first instant that is not in its window any more. That instant may be too
/// early, where it was not known; then whoever comes later finds the right one.
#[derive(Debug)]
struct Open {
    cell: Arc<Cell>,
    end: Timestamp,
}

impl Meter {
    /// Continues at a balance that the ledger kept.
    pub(super) fn continued(key: LimitKey, start: Timestamp, spent: i64) -> Meter {
        let meter = Meter::default();
        meter.put(Cell::new(key, start, spent));
        meter
    }

    /// A meter for windows of another length. It shares the current cell, but not its end: a request that
    /// still goes by the old window does not end the new one.
    pub(super) fn with_other_windows(&self) -> Meter {
        let shared = self.current().map(|cell| Arc::new(Open { end: cell.start, cell }));
        Meter(ArcSwapOption::from(shared))
    }

    /// The cell that was counted in last, if there is one. Its window may be over.
    pub(super) fn current(&self) -> Option<Arc<Cell>> {
        self.0.load().as_ref().map(|open| Arc::clone(&open.cell))
    }

    /// Begins a window with nothing spent. What is held stays with the window that admitted it.
    pub(super) fn restart(&self, key: &LimitKey, at: Timestamp) {
        self.put(Cell::new(key.clone(), at, 0));
    }

    /// Counts what was spent elsewhere in the window that began at `start`. False if a later one is the
    /// current one here.
    pub(super) fn credit(&self, key: &LimitKey, start: Timestamp, amount: i64) -> bool {
        match self.current() {
            Some(cell) if cell.start > start => false,
            Some(cell) if cell.start == start => {
                cell.settle(0, amount);
                true
            }
            _ => {
                self.put(Cell::new(key.clone(), start, amount));
                true
            }
        }
    }

    fn put(&self, cell: Cell) {
        self.0.store(Some(Arc::new(Open { end: cell.start, cell: Arc::new(cell) })));
    }

    /// The cell of the window that holds `now`. Windows end when somebody looks, not on a timer.
    pub(super) fn cell(&self, limit: &Limit, now: Timestamp) -> Arc<Cell> {
        let current = self.0.load();
        if let Some(open) = &*current
            && now < open.end
        {
            return Arc::clone(&open.cell);
        }
        let start = self.start(limit, now);
        let fresh = match &*current {
            // Only its end was not known.
            Some(open) if open.cell.start == start => Arc::clone(&open.cell),
            Some(open) => Arc::new(open.cell.next(start)),
            None => Arc::new(Cell::new(limit.key.clone(), start, 0)),
        };
        let fresh = Arc::new(Open { end: limit.window.end(start), cell: fresh });
        let seen = self.0.compare_and_swap(&*current, Some(Arc::clone(&fresh)));
        let won = match (&*seen, &*current) {
            (Some(seen), Some(current)) => Arc::ptr_eq(seen, current),
            (None, None) => true,
            _ => false,
        };
        match self.0.load().as_ref() {
            Some(open) if !won => Arc::clone(&open.cell),
            _ => Arc::clone(&fresh.cell),
        }
    }

    /// What stands in the window that holds `now`, and where it began. Where nobody was counted yet, looking
    /// makes no cell.
    pub(super) fn tally(&self, limit: &Limit, now: Timestamp) -> (Tally, Timestamp) {
        if self.0.load().is_none() {
            return (Tally::default(), limit.window.start(limit.anchor, now));
        }
        let cell = self.cell(limit, now);
        (cell.tally(), cell.start)
    }

    /// Where the window that holds `now` began.
    fn start(&self, limit: &Limit, now: Timestamp) -> Timestamp {
        match self.current() {
            // A clock that stepped back reopens nothing.
            Some(cell) if now < limit.window.end(cell.start) => cell.start,
            Some(cell) => limit.window.start(cell.start, now),
            None => limit.window.start(limit.anchor, now),
        }
    }
}
