//! What hot code shares: the current view, a cell for each limit, and the way to the ledger.
//!
//! `proxy` and `admin` meet only here: one reads the view and fills the outbox, the other publishes
//! views. Nothing in here blocks.

pub mod clock;
pub mod counters;
pub mod digest;
pub mod expectation;
pub mod hold;
pub mod outbox;
#[cfg(test)]
mod tests;

use crate::governance::entity::VIRTUAL_KEY_PREFIX;
use crate::governance::judge::{Tally, explain};
use crate::governance::refusal::{Exceeded, Refusal};
use crate::governance::time::Timestamp;
use crate::governance::usage::Usage;
use crate::governance::view::{Caller, Declared, Limit, LimitKey, Measure, Slot, View};
use arc_swap::ArcSwap;
use clock::Clock;
use counters::Meter;
use digest::KeyHasher;
use expectation::Expectations;
use hold::{Hold, Share, Spend};
use outbox::{CallTag, ChargeId, Outbox};
use ring::rand::{SecureRandom, SystemRandom};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The one handle that requests and administrators hold.
#[derive(Debug)]
pub struct State {
    pub clock: Clock,
    pub hasher: KeyHasher,
    pub expectations: Expectations,
    outbox: Arc<Outbox>,
    snapshot: ArcSwap<Snapshot>,
    /// What the current view was built from. Held while it is changed: one change at a time.
    declared: Mutex<Declared>,
    /// Every meter by what it measures, so that a limit keeps its cell from view to view.
    meters: Mutex<HashMap<LimitKey, Arc<Meter>>>,
    ids: Ids,
}

/// A view with the meters behind its slots.
#[derive(Debug, Default)]
pub struct Snapshot {
    pub view: View,
    meters: Vec<Arc<Meter>>,
}

/// What the ledger says about a limit: where its latest window began and what was spent in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Balance {
    pub start: Timestamp,
    pub spent: i64,
}

/// What an attempt asks to set aside.
#[derive(Debug)]
pub struct Ask<'a> {
    pub caller: Option<&'a Caller>,
    /// The index of the caller's provider config that the target goes through.
    pub config: Option<usize>,
    pub usage: Usage,
    pub spend: Spend,
    pub tag: CallTag,
}

impl State {
    /// `places` bounds holds plus unwritten entries.
    pub fn new(clock: Clock, hasher: KeyHasher, places: usize) -> State {
        State {
            clock,
            hasher,
            expectations: Expectations::default(),
            outbox: Arc::new(Outbox::new(places)),
            snapshot: ArcSwap::default(),
            declared: Mutex::default(),
            meters: Mutex::default(),
            ids: Ids::new(),
        }
    }

    /// The current snapshot. Taken once by each request.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    pub fn outbox(&self) -> &Arc<Outbox> {
        &self.outbox
    }

    /// An id that no other request of any process has: for charges, and for requests without one.
    pub fn new_id(&self) -> ChargeId {
        self.ids.next()
    }

    /// Changes what is declared. `apply` edits a copy and makes the edit durable; if it succeeds, the
    /// next request sees the result, and if not, nothing has happened. May block on the store, so it
    /// is never called by a proxy worker.
    pub fn change<T, E>(
        &self,
        opening: &HashMap<LimitKey, Balance>,
        apply: impl FnOnce(&mut Declared) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut declared = self.declared.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = declared.clone();
        let outcome = apply(&mut next)?;
        self.publish(View::build(&next), opening);
        *declared = next;
        Ok(outcome)
    }

    /// Makes `view` the current one. Limits that were there before keep their cells; new ones start
    /// from `opening`, or from nothing.
    fn publish(&self, view: View, opening: &HashMap<LimitKey, Balance>) {
        let now = self.clock.now();
        let mut known = self.meters.lock().unwrap_or_else(PoisonError::into_inner);
        let open = |slot: &Slot| {
            let balance = opening.get(&slot.key).copied();
            let start = balance.map_or_else(|| slot.window.start(slot.anchor, now), |balance| balance.start);
            Arc::new(Meter::open(
                slot.key.clone(),
                slot.window.clone(),
                start,
                balance.map_or(0, |balance| balance.spent),
            ))
        };
        let next: HashMap<LimitKey, Arc<Meter>> = view
            .slots()
            .iter()
            .map(|slot| {
                (
                    slot.key.clone(),
                    known.get(&slot.key).map_or_else(|| open(slot), |meter| meter.with_window(&slot.window)),
                )
            })
            .collect();
        let meters = view.slots().iter().map(|slot| Arc::clone(&next[&slot.key])).collect();
        *known = next;
        self.snapshot.store(Arc::new(Snapshot { view, meters }));
    }

    /// Starts the usage of a limit from nothing. `at` is later than its current window's start, so that
    /// the ledger keeps the two apart; calls in flight are charged to the window that admitted them.
    pub fn restart(&self, key: &LimitKey, at: Timestamp) {
        let meters = self.meters.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(meter) = meters.get(key) {
            meter.restart(at);
        }
    }

    /// Sets aside what an attempt is expected to use, at every limit that applies or at none.
    pub fn admit(&self, snapshot: &Snapshot, ask: Ask<'_>) -> Result<Hold, Refusal> {
        if !self.outbox.reserve() {
            return Err(Refusal::LedgerFull);
        }
        let now = ask.tag.admitted_at;
        let (outbox, clock) = (Arc::clone(&self.outbox), self.clock.clone());
        // From here on, dropping the hold gives everything back.
        let mut hold = Hold::new(outbox, clock, self.ids.next(), ask.tag, (ask.usage, ask.spend));
        let limits = ask.caller.into_iter().flat_map(|caller| caller.limits_through(ask.config));
        for limit in limits.clone() {
            let cell = snapshot.meter(limit).cell(now);
            let amount = ask.spend.of(limit.key.measure);
            if !cell.hold(limit.max, amount, snapshot.view.policy.admission) {
                let stopped = explain(limit, cell.tally(), cell.start());
                drop(hold);
                return Err(Refusal::LimitReached(snapshot.reported(limits, stopped, now)));
            }
            hold.add(Share { cell, held: amount });
        }
        Ok(hold)
    }
}

impl Snapshot {
    fn meter(&self, limit: &Limit) -> &Meter {
        &self.meters[limit.slot as usize]
    }

    /// What stands at `limit` now, and where its window began.
    pub fn tally(&self, limit: &Limit, now: Timestamp) -> (Tally, Timestamp) {
        let cell = self.meter(limit).cell(now);
        (cell.tally(), cell.start())
    }

    /// Of all exhausted limits the one to report: rates before budgets, the narrowest level first;
    /// both halves of one rate limit together. If all of them cleared meanwhile, the one that stopped us.
    fn reported<'a>(
        &self,
        limits: impl Iterator<Item = &'a Limit> + Clone,
        stopped: Exceeded,
        now: Timestamp,
    ) -> Vec<Exceeded> {
        let exhausted = limits.filter_map(|limit| {
            let (tally, start) = self.tally(limit, now);
            (tally.used >= limit.max).then(|| explain(limit, tally, start))
        });
        let mut exhausted: Vec<Exceeded> = exhausted.collect();
        let rank = |e: &Exceeded| (e.measure == Measure::Money, std::cmp::Reverse(e.level));
        exhausted.sort_by_key(rank);
        match exhausted.first().map(rank) {
            Some(first) => exhausted.into_iter().take_while(|e| rank(e) == first).collect(),
            None => vec![stopped],
        }
    }
}

/// Makes a virtual key's value: the prefix and a random UUID.
pub fn new_virtual_key_value() -> String {
    format!("{VIRTUAL_KEY_PREFIX}{}", uuid::Uuid::new_v4())
}

#[derive(Debug)]
struct Ids {
    process: u64,
    next: AtomicU64,
}

impl Ids {
    fn new() -> Ids {
        let mut seed = [0; 16];
        SystemRandom::new().fill(&mut seed).expect("the system's random source works, or nothing secret would");
        let [process, start] = [0, 8].map(|at| u64::from_le_bytes(seed[at..at + 8].try_into().expect("eight bytes")));
        Ids { process: process | 1, next: AtomicU64::new(start >> 1) }
    }

    fn next(&self) -> ChargeId {
        let count = self.next.fetch_add(1, Ordering::Relaxed);
        ChargeId(u128::from(self.process) << 64 | u128::from(count))
    }
}
