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

/// A cell that `state` must keep.
#[derive(Debug, Clone)]
pub struct Slot {
    pub number: u32,
    pub key: LimitKey,
    pub window: Window,
    pub anchor: Timestamp,
    /// It had no cell before.
    pub fresh: bool,
}

/// Gives each limit its slot, and the same one for as long as the limit is there. What a change asked
/// for is final once it is committed; a change that failed is rolled back.
#[derive(Debug, Default)]
pub struct Slots {
    numbers: HashMap<LimitKey, u32>,
    free: Vec<u32>,
    next: u32,
    opened: Vec<Slot>,
    closed: Vec<LimitKey>,
}

impl Slots {
    pub fn number(&self, key: &LimitKey) -> Option<u32> {
        self.numbers.get(key).copied()
    }

    /// Makes what was opened and closed final, and says what needs a cell now.
    pub fn commit(&mut self) -> Vec<Slot> {
        for key in std::mem::take(&mut self.closed) {
            self.free.extend(self.numbers.remove(&key));
            self.opened.retain(|slot| slot.key != key);
        }
        std::mem::take(&mut self.opened)
    }

    /// Forgets what was opened and closed since the last commit.
    pub fn roll_back(&mut self) {
        self.closed.clear();
        for slot in std::mem::take(&mut self.opened) {
            if slot.fresh {
                self.free.extend(self.numbers.remove(&slot.key));
            }
        }
    }

    fn open(&mut self, key: &LimitKey, window: &Window, anchor: Timestamp) -> u32 {
        self.closed.retain(|closed| closed != key);
        let known = self.number(key);
        let number = known.unwrap_or_else(|| {
            let number = self.free.pop().unwrap_or(self.next);
            if number == self.next {
                self.next = self.next.checked_add(1).expect("2^32 limits do not fit in memory");
            }
            self.numbers.insert(key.clone(), number);
            number
        });
        let (key, window) = (key.clone(), window.clone());
        self.opened.push(Slot { number, key, window, anchor, fresh: known.is_none() });
        number
    }

    /// Links the limits of one owner.
    pub(super) fn link(&mut self, level: Level, declared: &Limits) -> Vec<Limit> {
        let mut limits = Vec::new();
        let mut add = |id: &Arc<str>, measure: Measure, max: i64, window: &Window, anchor: Timestamp| {
            let key = LimitKey { id: Arc::clone(id), measure };
            let slot = self.open(&key, window, anchor);
            limits.push(Limit { slot, key, level, max, window: window.clone() });
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

    /// Gives up the cells of limits that nobody has any more.
    pub(super) fn unlink<'a>(&mut self, old: impl IntoIterator<Item = &'a Limit>, new: &[&[Limit]]) {
        for limit in old {
            if !new.iter().any(|limits| limits.iter().any(|other| other.key == limit.key)) {
                self.closed.push(limit.key.clone());
            }
        }
    }
}
