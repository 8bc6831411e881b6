//! Admission: what an attempt may use is set aside at every limit that applies, or at none.
//!
//! It never waits: who loses a race against another call looks again. And it never leaves a trace:
//! nothing is touched before all limits were seen to admit, and what was set aside when a race was lost is given
//! back at once.

use super::counters::Cell;
use super::hold::{Hold, Share, Spend};
use super::{Ask, Snapshot, State};
use crate::governance::judge::{Admission, Tally, admits, explain};
use crate::governance::refusal::{Exceeded, Refusal};
use crate::governance::time::Timestamp;
use crate::governance::usage::Usage;
use crate::governance::view::{Applying, Level, Limit, Measure};
use smallvec::SmallVec;
use std::cmp::Reverse;
use std::sync::Arc;

/// Each lost race means that another call got what it asked for; so many in a row are not met in service.
const RACES_MAX: usize = 256;

/// What is left at the tightest limit of each measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Nanos.
    pub money: i64,
    pub tokens: i64,
}

impl Room {
    pub const UNBOUNDED: Room = Room { money: i64::MAX, tokens: i64::MAX };

    pub fn takes(self, spend: Spend) -> bool {
        spend.cost.get() <= self.money && spend.tokens <= self.tokens
    }
}

impl State {
    /// Sets aside what an attempt is expected to use, at every limit that applies or at none.
    pub fn admit(&self, snapshot: &Snapshot, ask: Ask<'_>) -> Result<Hold, Refusal> {
        let whole = (ask.usage, ask.spend);
        self.admit_less(snapshot, ask, |_| whole)
    }

    /// The same of an attempt that can be made smaller. `fit` says what is the most of it that a room takes,
    /// or the least that there can be of it; under the policy that never exceeds it is asked when the whole
    /// does not fit, and the bound that is journalled is then what it says.
    pub fn admit_less(
        &self,
        snapshot: &Snapshot,
        ask: Ask<'_>,
        fit: impl Fn(Room) -> (Usage, Spend),
    ) -> Result<Hold, Refusal> {
        if !self.outbox.reserve() {
            return Err(Refusal::LedgerFull);
        }
        let now = ask.tag.admitted_at;
        let whole = (ask.usage, ask.spend);
        let (outbox, clock) = (Arc::clone(&self.outbox), self.clock.clone());
        // From here on, dropping the hold gives everything back.
        let mut hold = Hold::new(outbox, clock, self.ids.next(), ask.tag, whole);
        let (provider, model) = (&hold.tag().provider, &hold.tag().model);
        let limits = snapshot.view.limits(ask.caller, ask.config, provider, model, ask.upstream_model);
        let gates = Gates::of(snapshot, &limits, now);
        for _ in 0..RACES_MAX {
            let mut offer = whole;
            if !gates.admit(offer.1) {
                if gates.admission == Admission::NeverExceed {
                    offer = fit(gates.room());
                }
                let exceeded = snapshot.refused(&limits, now, offer.1);
                if !exceeded.is_empty() {
                    return Err(Refusal::LimitReached(exceeded));
                }
            }
            if gates.take(&mut hold, offer) {
                let bound = if offer.1 == whole.1 { ask.bound } else { offer };
                return if hold.write_down(bound) { Ok(hold) } else { Err(Refusal::LedgerFull) };
            }
        }
        // As if calls in flight held all of it; in a second they will not.
        let stands = limits.iter().map(|limit| {
            let held = Tally { used: limit.max, spent: 0 };
            snapshot.explain(limit, held, snapshot.tally(limit, now).1, 0)
        });
        Err(Refusal::LimitReached(stands.take(1).collect()))
    }
}

/// The limits on one attempt, each with the cell of its current window.
pub(super) struct Gates<'a> {
    gates: SmallVec<[(&'a Limit, Arc<Cell>); 8]>,
    admission: Admission,
}

impl<'a> Gates<'a> {
    pub(super) fn of(snapshot: &Snapshot, limits: &Applying<'a>, now: Timestamp) -> Gates<'a> {
        let gates = limits.iter().map(|limit| (*limit, snapshot.meter(limit).cell(limit, now)));
        Gates { gates: gates.collect(), admission: snapshot.view.policy.admission }
    }

    /// Whether all of them would let `spend` through as they stand. Nothing is set aside.
    fn admit(&self, spend: Spend) -> bool {
        let admits = |(limit, cell): &(&Limit, Arc<Cell>)| {
            admits(limit.max, cell.used(), spend.of(limit.key.measure), self.admission)
        };
        self.gates.iter().all(admits)
    }

    fn room(&self) -> Room {
        let mut room = Room::UNBOUNDED;
        for (limit, cell) in &self.gates {
            let left = limit.max.saturating_sub(cell.used()).max(0);
            match limit.key.measure {
                Measure::Money => room.money = room.money.min(left),
                Measure::Tokens => room.tokens = room.tokens.min(left),
                Measure::Requests => {}
            }
        }
        room
    }

    /// Sets the offer aside at all of them. False: one of them changed meanwhile, and nothing is held.
    pub(super) fn take(&self, hold: &mut Hold, offer: (Usage, Spend)) -> bool {
        hold.begin_again(offer);
        for (limit, cell) in &self.gates {
            let held = offer.1.of(limit.key.measure);
            if !cell.hold(limit.max, held, self.admission) {
                hold.begin_again(offer);
                return false;
            }
            hold.add(Share { cell: Arc::clone(cell), held });
        }
        true
    }
}

impl Snapshot {
    fn explain(&self, limit: &Limit, tally: Tally, start: Timestamp, wanted: i64) -> Exceeded {
        Exceeded { subject: self.view.subject(limit).map(Into::into), wanted, ..explain(limit, tally, start) }
    }

    /// Of all exhausted limits the one to report: both halves of one rate limit together.
    pub fn reported(&self, limits: &[&Limit], now: Timestamp) -> Vec<Exceeded> {
        self.first_of(limits, now, |_| 0, Admission::Remaining)
    }

    /// The same of all limits that refuse `spend`.
    fn refused(&self, limits: &[&Limit], now: Timestamp, spend: Spend) -> Vec<Exceeded> {
        self.first_of(limits, now, |measure| spend.of(measure), self.view.policy.admission)
    }

    fn first_of(
        &self,
        limits: &[&Limit],
        now: Timestamp,
        amount: impl Fn(Measure) -> i64,
        admission: Admission,
    ) -> Vec<Exceeded> {
        let refusing = limits.iter().filter_map(|limit| {
            let (tally, start) = self.tally(limit, now);
            let amount = amount(limit.key.measure);
            let wanted = if admission == Admission::NeverExceed { amount } else { 0 };
            (!admits(limit.max, tally.used, amount, admission)).then(|| self.explain(limit, tally, start, wanted))
        });
        let mut refusing: Vec<Exceeded> = refusing.collect();
        refusing.sort_by_key(rank);
        let first = refusing.first().map(rank);
        refusing.into_iter().take_while(|e| Some(rank(e)) == first).collect()
    }
}

/// The order of checks: what is global before what is the caller's, at each rates before budgets, and
/// the narrowest of the caller's levels first.
fn rank(e: &Exceeded) -> (u8, bool, Reverse<Level>) {
    let money = e.measure == Measure::Money;
    match e.level {
        Level::Provider => (0, money, Reverse(Level::Provider)),
        // The config of this provider before that of all providers.
        Level::ProviderModel => (1, money, Reverse(Level::Model)),
        Level::Model => (1, money, Reverse(Level::ProviderModel)),
        level => (2, money, Reverse(level)),
    }
}
