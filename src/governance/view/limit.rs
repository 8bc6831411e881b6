//! Limits as requests meet them, and the places where `state` keeps what stands at them.

use crate::governance::entity::Limits;
use crate::governance::time::{Timestamp, Window};
use std::collections::HashMap;
use std::sync::Arc;

/// One number that may not be passed within one window.
#[derive(Debug, Clone)]
pub struct Limit {
    /// Where `state` keeps the cell.
    pub slot: u32,
    pub key: LimitKey,
    pub level: Level,
    /// Nanos, tokens or requests, by the key's measure.
    pub max: i64,
    pub window: Window,
    /// Where rolling windows count from.
    pub anchor: Timestamp,
}

/// What identifies a limit across changes of its size: the entity and what it measures.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LimitKey {
    pub id: Arc<str>,
    pub measure: Measure,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Measure {
    Money,
    Tokens,
    Requests,
}

impl Measure {
    /// The name under which the ledger keeps it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Measure::Money => "money",
            Measure::Tokens => "tokens",
            Measure::Requests => "requests",
        }
    }

    pub fn from_name(name: &str) -> Option<Measure> {
        [Measure::Money, Measure::Tokens, Measure::Requests].into_iter().find(|measure| measure.as_str() == name)
    }
}

/// Where a limit applies, in the one order in which cells are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Provider,
    /// A model of one provider.
    ProviderModel,
    /// A model, whoever serves it.
    Model,
    Customer,
    Team,
    VirtualKey,
    ProviderConfig,
}

impl Level {
    /// Whether the level belongs to the target of an attempt, so that another target may still do.
    pub const fn is_about_target(self) -> bool {
        matches!(self, Level::Provider | Level::ProviderModel | Level::Model | Level::ProviderConfig)
    }
}

/// An entity with its limits linked to their cells.
#[derive(Debug)]
pub struct Governed<T> {
    pub entity: Arc<T>,
    pub limits: Vec<Limit>,
}

/// A place that is new, or whose windows have changed.
#[derive(Debug, Clone)]
pub struct Slot {
    pub number: u32,
    pub key: LimitKey,
    /// Nobody had it before.
    pub fresh: bool,
}

/// Gives each limit its slot, and the same one for as long as anybody has the limit. What a change asked
/// for is final once it is committed; a change that failed is rolled back.
#[derive(Debug, Default)]
pub struct Slots {
    places: HashMap<LimitKey, Place>,
    free: Vec<u32>,
    next: u32,
    opened: Vec<Slot>,
    /// What the change did to the number of owners, in order.
    counted: Vec<(LimitKey, i32)>,
    /// The windows that it changed, as they were.
    changed: Vec<(LimitKey, Window)>,
}

#[derive(Debug)]
struct Place {
    number: u32,
    /// How many have the limit: one, but for the middle of a change that moves it.
    owners: i32,
    /// Nothing was committed yet since it was opened, so nothing stands there.
    fresh: bool,
    window: Window,
}

impl Slots {
    pub fn number(&self, key: &LimitKey) -> Option<u32> {
        self.places.get(key).map(|place| place.number)
    }

    /// Makes what was opened and closed final, and says what needs a cell now.
    pub fn commit(&mut self) -> Vec<Slot> {
        for (key, _) in std::mem::take(&mut self.counted) {
            self.free_unless_owned(&key);
        }
        self.changed.clear();
        let mut opened = std::mem::take(&mut self.opened);
        // One that was opened and given up in the same change needs no cell.
        opened.retain(|slot| self.number(&slot.key) == Some(slot.number));
        for slot in &opened {
            if let Some(place) = self.places.get_mut(&slot.key) {
                place.fresh = false;
            }
        }
        opened
    }

    /// Forgets what was opened and closed since the last commit.
    pub fn roll_back(&mut self) {
        self.opened.clear();
        for (key, window) in std::mem::take(&mut self.changed).into_iter().rev() {
            if let Some(place) = self.places.get_mut(&key) {
                place.window = window;
            }
        }
        let counted = std::mem::take(&mut self.counted);
        for (key, owners) in &counted {
            if let Some(place) = self.places.get_mut(key) {
                place.owners -= owners;
            }
        }
        counted.iter().for_each(|(key, _)| self.free_unless_owned(key));
    }

    fn free_unless_owned(&mut self, key: &LimitKey) {
        if self.places.get(key).is_some_and(|place| place.owners == 0) {
            self.free.extend(self.places.remove(key).map(|place| place.number));
        }
    }

    fn count(&mut self, key: &LimitKey, owners: i32) {
        if let Some(place) = self.places.get_mut(key) {
            place.owners += owners;
            self.counted.push((key.clone(), owners));
        }
    }

    fn open(&mut self, key: &LimitKey, window: &Window) -> u32 {
        self.count(key, 1);
        if let Some(place) = self.places.get_mut(key) {
            if place.window != *window {
                self.changed.push((key.clone(), std::mem::replace(&mut place.window, window.clone())));
                self.opened.push(Slot { number: place.number, key: key.clone(), fresh: place.fresh });
            }
            return place.number;
        }
        let number = self.free.pop().unwrap_or(self.next);
        if number == self.next {
            self.next = self.next.checked_add(1).expect("2^32 limits do not fit in memory");
        }
        let window = window.clone();
        self.places.insert(key.clone(), Place { number, owners: 1, fresh: true, window });
        self.counted.push((key.clone(), 1));
        self.opened.push(Slot { number, key: key.clone(), fresh: true });
        number
    }

    /// Links the limits of one owner.
    pub(super) fn link(&mut self, level: Level, declared: &Limits) -> Vec<Limit> {
        let mut limits = Vec::new();
        let mut add = |id: &Arc<str>, measure: Measure, max: i64, window: &Window, anchor: Timestamp| {
            let key = LimitKey { id: Arc::clone(id), measure };
            let slot = self.open(&key, window);
            limits.push(Limit { slot, key, level, max, window: window.clone(), anchor });
        };
        for budget in &declared.budgets {
            add(&budget.id, Measure::Money, budget.max.get(), &budget.window, budget.anchor);
        }
        if let Some(rate) = &declared.rate_limit {
            let halves = [(Measure::Tokens, &rate.tokens), (Measure::Requests, &rate.requests)];
            for (measure, quota) in halves.into_iter().filter_map(|(m, quota)| Some((m, quota.as_ref()?))) {
                add(&rate.id, measure, quota.max, &quota.window, quota.anchor);
            }
        }
        limits
    }

    /// Gives up the limits of an owner that is gone, or that was linked anew.
    pub(super) fn unlink<'a>(&mut self, old: impl IntoIterator<Item = &'a Limit>) {
        old.into_iter().for_each(|limit| self.count(&limit.key, -1));
    }
}
