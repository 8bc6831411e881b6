//! The two numbers of one window, and the only ways in which they change.
//!
//! Invariant: `used` is spent plus held, and it alone decides about admission, in one
//! compare-and-swap; so no interleaving admits what two separate numbers would have let through.
//! Imports its atomics from `super::sync` and nothing else that runs, so that tests can compile this very
//! file against others.

use super::sync::{AtomicI64, Ordering};
use crate::governance::judge::{Admission, Tally, admits};

#[derive(Debug)]
pub(super) struct Counts {
    used: AtomicI64,
    spent: AtomicI64,
}

impl Counts {
    pub(super) fn new(spent: i64) -> Counts {
        Counts { used: AtomicI64::new(spent), spent: AtomicI64::new(spent) }
    }

    pub(super) fn tally(&self) -> Tally {
        // Spent first: between the two loads a settlement can only make the held part look larger.
        let spent = self.spent.load(Ordering::Acquire);
        Tally { used: self.used.load(Ordering::Acquire), spent }
    }

    /// Spent plus held.
    pub(super) fn used(&self) -> i64 {
        self.used.load(Ordering::Acquire)
    }

    /// Sets `amount` aside, or changes nothing.
    pub(super) fn hold(&self, max: i64, amount: i64, admission: Admission) -> bool {
        let admit = |used: i64| if admits(max, used, amount, admission) { used.checked_add(amount) } else { None };
        self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, admit).is_ok()
    }

    /// Turns what was held into what was spent.
    pub(super) fn settle(&self, held: i64, spent: i64) {
        let add = |number: &AtomicI64, amount: i128| {
            let sum = |now: i64| {
                let bounded = (i128::from(now) + amount).clamp(i128::from(i64::MIN), i128::from(i64::MAX));
                i64::try_from(bounded).ok()
            };
            // Always `Some`, since it was clamped.
            let _ = number.fetch_update(Ordering::AcqRel, Ordering::Acquire, sum);
        };
        add(&self.spent, i128::from(spent));
        add(&self.used, i128::from(spent) - i128::from(held));
    }
}
