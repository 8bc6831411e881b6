//! What hot code shares: the current view, a cell for each limit, and the way to the ledger.
//!
//! `proxy` and `admin` meet only here: one reads the view and fills the outbox, the other publishes
//! views. Nothing in here blocks.

mod admission;
mod cell;
pub mod clock;
pub mod counters;
pub mod digest;
pub mod expectation;
pub mod health;
pub mod hold;
pub mod journal;
pub mod outbox;
mod sync;
#[cfg(test)]
pub(crate) mod tests;

use crate::governance::edit::{Edit, Restart};
use crate::governance::entity::{Provider, VIRTUAL_KEY_PREFIX};
use crate::governance::judge::Tally;
use crate::governance::route::Live;
use crate::governance::time::Timestamp;
use crate::governance::usage::Usage;
use crate::governance::view::{Caller, Limit, LimitKey, Slots, View};
pub use admission::Room;
use arc_swap::ArcSwap;
use clock::Clock;
use counters::Meter;
use digest::KeyHasher;
use expectation::Expectations;
use health::Health;
use hold::Spend;
use imbl::Vector;
use journal::Journal;
use outbox::{CallTag, ChargeId, Outbox};
use ring::rand::{SecureRandom, SystemRandom};
use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The one handle that requests and administrators hold.
#[derive(Debug)]
pub struct State {
    pub clock: Clock,
    pub hasher: KeyHasher,
    pub expectations: Expectations,
    pub health: Health,
    outbox: Arc<Outbox>,
    snapshot: ArcSwap<Snapshot>,
    /// Where the cell of each limit is. Held while the view is changed: one change at a time.
    slots: Mutex<Slots>,
    /// The last id that a provider config got.
    config_ids: AtomicI64,
    ids: Ids,
    /// What was changed beside the writer since somebody last looked who follows the books; absent: nobody does.
    /// Held while they are changed so or looked at, so that what is new to the follower is never ours.
    amended: Mutex<Option<Vec<Adjustment>>>,
}

/// A view with the meters behind its slots.
#[derive(Debug, Default)]
pub struct Snapshot {
    pub view: View,
    /// By slot.
    meters: Vector<Arc<Meter>>,
    health: Arc<health::Providers>,
}

/// What the ledger says about a limit: where its latest window began and what was spent in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Balance {
    pub start: Timestamp,
    pub spent: i64,
}

/// What was added to the books of one window beside the writer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adjustment {
    pub key: LimitKey,
    pub start: Timestamp,
    pub amount: i64,
}

/// What an attempt asks to set aside.
#[derive(Debug)]
pub struct Ask<'a> {
    pub caller: Option<&'a Caller>,
    /// The index of the caller's provider config that the target goes through.
    pub config: Option<usize>,
    /// The model as the target's provider knows it.
    pub upstream_model: &'a str,
    pub usage: Usage,
    pub spend: Spend,
    /// What it can come to at the very most: charged if the process dies before it knows better.
    pub bound: (Usage, Spend),
    pub tag: CallTag,
}

impl State {
    /// `places` bounds holds plus unwritten entries.
    pub fn new(clock: Clock, hasher: KeyHasher, places: usize) -> State {
        State::with_journal(clock, hasher, places, None)
    }

    /// With a journal, which has room for as many, what is open survives the process.
    pub fn with_journal(clock: Clock, hasher: KeyHasher, places: usize, journal: Option<Arc<dyn Journal>>) -> State {
        State {
            clock,
            hasher,
            expectations: Expectations::default(),
            health: Health::default(),
            outbox: Arc::new(Outbox::new(places, journal)),
            snapshot: ArcSwap::default(),
            slots: Mutex::default(),
            config_ids: AtomicI64::new(0),
            ids: Ids::new(),
            amended: Mutex::default(),
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

    /// Changes what is declared. `plan` says how, looking at the current view; `commit` makes it durable
    /// and sees what was before and will be after. If both succeed, the next request sees the result; if not,
    /// nothing has happened. Both may block on the store, so this is never called by a proxy worker.
    /// Limits that were not there before continue at their `opening` balance, if they have one.
    pub fn change<T, U, E>(
        &self,
        opening: &HashMap<LimitKey, Balance>,
        plan: impl FnOnce(&Snapshot) -> Result<(Vec<Edit>, T), E>,
        commit: impl FnOnce(&Snapshot, &View, &[Edit], T) -> Result<U, E>,
    ) -> Result<U, E> {
        let mut slots = self.lock_slots();
        let current = self.snapshot();
        let (mut edits, planned) = plan(&current)?;
        edits.iter_mut().for_each(|edit| self.number_configs(edit));
        edits.iter_mut().for_each(|edit| current.begin_later(edit, &slots));
        let mut view = current.view.clone();
        edits.iter().for_each(|edit| view.apply(edit, &mut slots));
        let outcome = commit(&current, &view, &edits, planned).inspect_err(|_| slots.roll_back())?;
        let restarts = edits.iter().filter_map(|edit| match edit {
            Edit::Restart(restart) => Some(restart),
            _ => None,
        });
        self.publish(view, &mut slots, opening, restarts);
        Ok(outcome)
    }

    /// The slots as the last change that was made left them: one that panicked is undone here.
    fn lock_slots(&self) -> MutexGuard<'_, Slots> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.roll_back();
        slots
    }

    /// Provider configs that are new get their ids here, so that they have them before they are stored.
    fn number_configs(&self, edit: &mut Edit) {
        if let Edit::VirtualKey { key, .. } = edit
            && key.provider_configs.iter().any(|config| config.id == 0)
        {
            let configs = &mut Arc::make_mut(key).provider_configs;
            for config in configs.iter_mut().filter(|config| config.id == 0) {
                config.id = self.config_ids.fetch_add(1, Ordering::Relaxed) + 1;
            }
        }
    }

    /// No provider config gets this id or a lower one any more.
    pub fn config_ids_after(&self, highest: i64) {
        self.config_ids.fetch_max(highest, Ordering::Relaxed);
    }

    /// Changes the books beside the writer, and gives our cells what was added there.
    pub fn amend<T, E>(&self, write: impl FnOnce() -> Result<(Vec<Adjustment>, T), E>) -> Result<T, E> {
        let mut amended = self.amended.lock().unwrap_or_else(PoisonError::into_inner);
        let (adjustments, done) = write()?;
        for Adjustment { key, start, amount } in &adjustments {
            self.credit(key, *start, *amount);
        }
        if let Some(amended) = amended.as_mut() {
            amended.extend(adjustments);
        }
        Ok(done)
    }

    /// Lets somebody look at the books who gives our cells what others wrote there. `look` gets what was changed
    /// beside the writer since the last time, and says whether there is a next one.
    pub fn follow<E>(&self, look: impl FnOnce(Vec<Adjustment>) -> Result<bool, E>) -> Result<bool, E> {
        let mut amended = self.amended.lock().unwrap_or_else(PoisonError::into_inner);
        let goes_on = look(amended.replace(Vec::new()).unwrap_or_default())?;
        if !goes_on {
            *amended = None;
        }
        Ok(goes_on)
    }

    /// Counts what another process spent in the window that began at `start`. False if that is not the
    /// current one here.
    pub fn credit(&self, key: &LimitKey, start: Timestamp, amount: i64) -> bool {
        let slots = self.lock_slots();
        let snapshot = self.snapshot();
        let meter = slots.number(key).and_then(|number| snapshot.meters.get(number as usize));
        meter.is_some_and(|meter| meter.credit(key, start, amount))
    }

    /// Makes `view` the current one. Limits that were there before keep their cells; new ones start
    /// from `opening`, or from nothing. Limits in `restarts` start from nothing; calls in flight are charged
    /// to the window that admitted them.
    fn publish<'a>(
        &self,
        view: View,
        slots: &mut Slots,
        opening: &HashMap<LimitKey, Balance>,
        restarts: impl Iterator<Item = &'a Restart>,
    ) {
        let mut meters = self.snapshot().meters.clone();
        for slot in slots.commit() {
            let index = slot.number as usize;
            let known = meters.get(index).filter(|_| !slot.fresh);
            let meter = Arc::new(match (known, opening.get(&slot.key)) {
                (Some(meter), _) => meter.with_other_windows(),
                (None, Some(balance)) => Meter::continued(slot.key, balance.start, balance.spent),
                (None, None) => Meter::default(),
            });
            // Numbers that were given up before they had a cell are skipped here and taken later.
            while meters.len() <= index {
                meters.push_back(Arc::clone(&meter));
            }
            meters.set(index, meter);
        }
        for restart in restarts {
            if let Some(meter) = slots.number(&restart.key).and_then(|number| meters.get(number as usize)) {
                meter.restart(&restart.key, restart.at);
            }
        }
        let health = self.health.follow(&view);
        self.snapshot.store(Arc::new(Snapshot { view, meters, health }));
    }
}

/// How things stand at one instant, for those who decide where a request goes.
#[derive(Debug, Clone, Copy)]
pub struct At<'a> {
    snapshot: &'a Snapshot,
    now: Timestamp,
}

impl Live for At<'_> {
    fn tally(&self, limit: &Limit) -> Tally {
        self.snapshot.tally(limit, self.now).0
    }

    fn health(&self, provider: &Provider) -> f64 {
        self.snapshot.health.get(&provider.name).map_or(1.0, |health| health.share(self.now))
    }
}

impl Snapshot {
    pub fn at(&self, now: Timestamp) -> At<'_> {
        At { snapshot: self, now }
    }

    fn meter(&self, limit: &Limit) -> &Meter {
        &self.meters[limit.slot as usize]
    }

    /// What stands at `limit` now, and where its window began.
    pub fn tally(&self, limit: &Limit, now: Timestamp) -> (Tally, Timestamp) {
        self.meter(limit).tally(limit, now)
    }

    /// The same for a limit that may be of a later view: one that has no cell here stands at nothing.
    pub fn standing(&self, limit: &Limit, now: Timestamp) -> (Tally, Timestamp) {
        let meter = self.meters.get(limit.slot as usize);
        let is_its = |meter: &&Arc<Meter>| meter.current().is_some_and(|cell| *cell.key() == limit.key);
        match meter.filter(is_its) {
            Some(meter) => meter.tally(limit, now),
            None => (Tally::default(), limit.window.start(limit.anchor, now)),
        }
    }

    /// A window that is begun by hand begins later than the one that it ends, so that the ledger keeps the two
    /// apart.
    fn begin_later(&self, edit: &mut Edit, slots: &Slots) {
        let Edit::Restart(restart) = edit else { return };
        let meter = slots.number(&restart.key).and_then(|number| self.meters.get(number as usize));
        if let Some(cell) = meter.and_then(|meter| meter.current()).filter(|cell| *cell.key() == restart.key) {
            restart.at = restart.at.max(cell.start().plus(1));
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
