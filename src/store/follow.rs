//! After a hand-over two processes share the ledger for a while: what the predecessor still spends must
//! count in our cells, too. When it is gone, what it left in its journal is brought into the ledger here.
//!
//! Only the writer's thread comes here. It knows what it wrote itself, so whatever else a balance grew by
//! is the other's.

use super::journal::Predecessors;
use super::{Ledger, StoreError};
use crate::governance::time::Timestamp;
use crate::governance::view::LimitKey;
use crate::state::outbox::Entry;
use crate::state::{Adjustment, Balance, State};
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

/// How often the balances are looked at.
const INTERVAL_MS: i64 = 500;

/// Follows the balances until a predecessor cannot be there any more.
#[derive(Debug)]
pub struct Follow {
    state: Arc<State>,
    /// What our cells know of each limit's latest window.
    seen: HashMap<LimitKey, Balance>,
    predecessors: Predecessors,
    until: Timestamp,
    next: Timestamp,
}

impl Follow {
    /// `opening` is what the cells began with; `patience` is as long as a predecessor may live of which no
    /// journal tells.
    pub fn new(
        state: Arc<State>,
        opening: HashMap<LimitKey, Balance>,
        predecessors: Predecessors,
        patience: Duration,
    ) -> Follow {
        let now = state.clock.now();
        // From here on it is noted what is changed beside the writer.
        let Ok(_) = state.follow(|_| Ok::<_, Infallible>(true));
        let patience = i64::try_from(patience.as_millis()).unwrap_or(i64::MAX);
        Follow { state, seen: opening, predecessors, until: now.plus(patience), next: now }
    }

    /// Notes what we wrote ourselves.
    pub(super) fn wrote(&mut self, batch: &[Entry]) {
        for delta in batch.iter().flat_map(|entry| &entry.deltas) {
            self.note(delta.cell.key(), delta.cell.start(), delta.amount);
        }
    }

    fn note(&mut self, key: &LimitKey, start: Timestamp, amount: i64) {
        let fresh = Balance { start, spent: 0 };
        let seen = self.seen.entry(key.clone()).or_insert(fresh);
        if seen.start < start {
            *seen = fresh;
        }
        if seen.start == start {
            seen.spent = seen.spent.saturating_add(amount);
        }
    }

    /// Gives our cells what others wrote. False once it is over.
    pub(super) fn look(&mut self, ledger: &mut dyn Ledger) -> Result<bool, StoreError> {
        let now = self.state.clock.now();
        if now < self.next {
            return Ok(true);
        }
        let state = Arc::clone(&self.state);
        state.follow(|amended| self.look_now(ledger, now, &amended))
    }

    fn look_now(
        &mut self,
        ledger: &mut dyn Ledger,
        now: Timestamp,
        amended: &[Adjustment],
    ) -> Result<bool, StoreError> {
        self.next = now.plus(INTERVAL_MS);
        amended.iter().for_each(|Adjustment { key, start, amount }| self.note(key, *start, *amount));
        // Before the balances, which it adds to.
        self.predecessors.look(ledger, now)?;
        for (key, balance) in ledger.balances()? {
            let seen = self.seen.get(&key).filter(|seen| seen.start == balance.start).map_or(0, |seen| seen.spent);
            let others = balance.spent.saturating_sub(seen);
            if others > 0 && self.state.credit(&key, balance.start, others) {
                self.seen.insert(key, balance);
            }
        }
        Ok(now < self.until || self.predecessors.are_awaited())
    }
}
