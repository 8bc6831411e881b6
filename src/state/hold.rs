//! A hold: money, tokens and a request set aside over several limits, owned by one attempt.
//!
//! Invariant: it ends exactly once. `settle` and `release` consume it; a hold that is merely dropped
//! (a panic, a task cut off) settles itself: nothing if nothing was sent, else the whole estimate.

use super::clock::Clock;
use super::counters::Cell;
use super::journal::{Open, Place, Settled};
use super::outbox::{CallTag, ChargeId, Delta, Ending, Entry, Outbox};
use crate::governance::money::Nanos;
use crate::governance::time::Timestamp;
use crate::governance::usage::Usage;
use crate::governance::view::Measure;
use smallvec::SmallVec;
use std::sync::Arc;

/// An amount in every measure. The request itself always counts one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Spend {
    pub cost: Nanos,
    pub tokens: i64,
}

impl Spend {
    /// What a limit of this measure counts.
    pub fn of(self, measure: Measure) -> i64 {
        match measure {
            Measure::Money => self.cost.get(),
            Measure::Tokens => self.tokens,
            Measure::Requests => 1,
        }
    }
}

/// What is set aside in one cell.
#[derive(Debug)]
pub struct Share {
    pub cell: Arc<Cell>,
    pub(super) held: i64,
}

#[derive(Debug)]
pub struct Hold {
    outbox: Arc<Outbox>,
    clock: Clock,
    id: ChargeId,
    tag: CallTag,
    shares: SmallVec<[Share; 4]>,
    /// What a drop charges once something was sent.
    estimate: (Usage, Spend),
    /// Its room in the journal, where there is one.
    place: Option<Place>,
    sent: bool,
}

impl Hold {
    pub(super) fn new(outbox: Arc<Outbox>, clock: Clock, id: ChargeId, tag: CallTag, estimate: (Usage, Spend)) -> Hold {
        Hold { outbox, clock, id, tag, shares: SmallVec::new(), estimate, place: None, sent: false }
    }

    /// Sets the estimate aside at one limit.
    pub(super) fn add(&mut self, share: Share) {
        self.shares.push(share);
    }

    /// Gives back what was set aside so far, and has another estimate from now on.
    pub(super) fn begin_again(&mut self, estimate: (Usage, Spend)) {
        for Share { cell, held } in self.shares.drain(..) {
            cell.settle(held, 0);
        }
        self.estimate = estimate;
    }

    /// Writes the attempt into the journal. False: there is no room for it.
    pub(super) fn write_down(&mut self, bound: (Usage, Spend)) -> bool {
        let Some(journal) = self.outbox.journal() else { return true };
        let (_, held) = self.estimate;
        self.place = journal.place(&Open { id: self.id, tag: &self.tag, held, bound, shares: &self.shares });
        self.place.is_some()
    }

    pub fn id(&self) -> ChargeId {
        self.id
    }

    pub fn tag(&self) -> &CallTag {
        &self.tag
    }

    pub fn estimate(&self) -> (Usage, Spend) {
        self.estimate
    }

    /// From here on the provider may have something to bill, and the request counts as made. Called before
    /// the first byte is sent.
    pub fn mark_sent(&mut self) {
        if let (Some(journal), Some(place), false) = (self.outbox.journal(), &self.place, self.sent) {
            journal.mark_sent(place);
        }
        self.sent = true;
    }

    pub fn was_sent(&self) -> bool {
        self.sent
    }

    /// Ends the hold with what was really used. If nothing was sent, nothing is charged.
    pub fn settle(mut self, ending: Ending, usage: Usage, spend: Spend) {
        self.finish(ending, usage, spend);
    }

    /// Ends the hold with no charge. If something was sent, the request itself still counts.
    pub fn release(mut self, ending: Ending) {
        self.finish(ending, Usage::default(), Spend::default());
    }

    fn finish(&mut self, ending: Ending, usage: Usage, spend: Spend) {
        let shares = std::mem::take(&mut self.shares);
        if !self.sent {
            for share in &shares {
                share.cell.settle(share.held, 0);
            }
            self.outbox.give_back(self.place.take());
        } else {
            let settled_at = self.settled_at();
            if let (Some(journal), Some(place)) = (self.outbox.journal(), &self.place) {
                journal.settle(place, &Settled { at: settled_at, ending, usage, spend });
            }
            let deltas = shares.into_iter().map(|Share { cell, held }| {
                let amount = spend.of(cell.key().measure);
                cell.settle(held, amount);
                Delta { cell, amount }
            });
            self.outbox.push(Entry {
                id: self.id,
                tag: self.tag.clone(),
                settled_at,
                ending,
                usage,
                cost: spend.cost,
                deltas: deltas.collect(),
                place: self.place.take(),
            });
        }
        self.id = ChargeId(0);
    }

    fn settled_at(&self) -> Timestamp {
        self.clock.now().max(self.tag.admitted_at)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // The id of a finished hold is zero; `settle` and `release` end here, too.
        if self.id != ChargeId(0) {
            let (usage, spend) = self.estimate;
            self.finish(Ending::Abandoned, usage, spend);
        }
    }
}
