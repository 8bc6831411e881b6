//! What the ledger can be asked, what it answers, and for how long it remembers.

use crate::governance::charge::{self, Part};
use crate::governance::money::{Nanos, Picos};
use crate::governance::pricing::Price;
use crate::governance::request::RequestKind;
use crate::governance::time::Timestamp;
use crate::governance::usage::{ServiceTier, Usage};
use std::collections::BTreeMap;

/// What is counted in an entry, by the names of the ledger's columns. `reasoning` is part of `output`.
pub const UNITS: [&str; 10] = [
    "input",
    "cache_read",
    "cache_write",
    "cache_write_long",
    "audio_input",
    "image_input",
    "output",
    "reasoning",
    "audio_output",
    "image_output",
];

/// Which entries. What is absent selects everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LedgerFilter {
    /// Admitted at this instant or later.
    pub from: Option<Timestamp>,
    /// Admitted before this instant.
    pub to: Option<Timestamp>,
    pub virtual_key: Option<String>,
    /// The key's team and customer when the call was admitted.
    pub team: Option<String>,
    pub customer: Option<String>,
    pub provider: Option<String>,
    pub model: Option<String>,
    pub kind: Option<String>,
    pub ending: Option<String>,
    pub estimated: Option<bool>,
}

/// A place between two entries, newest first: behind the one of this instant and id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    pub admitted_at: Timestamp,
    pub id: u128,
}

/// One settled call as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerEntry {
    pub id: u128,
    pub admitted_at: Timestamp,
    pub settled_at: Timestamp,
    pub virtual_key: Option<String>,
    pub team: Option<String>,
    pub customer: Option<String>,
    pub provider: String,
    pub model: String,
    pub kind: String,
    pub ending: String,
    pub estimated: bool,
    pub tier: String,
    /// In the order of `UNITS`.
    pub units: [i64; UNITS.len()],
    pub cost: Nanos,
    /// What else it consumed, by name.
    pub other: BTreeMap<String, u64>,
    /// What it was charged by. Absent: it had no price, or that is not known.
    pub price: Option<Price>,
    /// The entry that this one corrects; its figures are then differences.
    pub corrects: Option<u128>,
}

/// What sums are told apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    Hour,
    Day,
    VirtualKey,
    Team,
    Customer,
    Provider,
    Model,
}

impl LedgerEntry {
    /// What it consumed. Absent of a correction, whose figures are differences.
    pub fn usage(&self) -> Option<Usage> {
        let mut units = [0; UNITS.len()];
        for (units, stored) in units.iter_mut().zip(self.units) {
            *units = u64::try_from(stored).ok()?;
        }
        let [input, cache_read, cache_write, cache_write_long, audio_input, image_input, rest @ ..] = units;
        let [output, reasoning, audio_output, image_output] = rest;
        let mut usage = Usage {
            input,
            cache_read,
            cache_write,
            cache_write_long,
            audio_input,
            image_input,
            output,
            reasoning,
            audio_output,
            image_output,
            tier: ServiceTier::from_word(&self.tier),
            ..Usage::default()
        };
        self.other.iter().for_each(|(name, units)| usage.take_other(name, *units));
        Some(usage)
    }

    /// What its cost is made of. Absent where that is not known, or does not come to the cost.
    pub fn parts(&self) -> Option<Vec<Part>> {
        let usage = self.usage().filter(|usage| self.price.is_some() || usage.reported_cost.is_some())?;
        let parts = charge::parts(self.price.as_ref(), RequestKind::from_name(&self.kind)?, &usage);
        let sum: Picos = parts.iter().map(|part| part.amount).sum();
        (sum.round_up() == self.cost && self.corrects.is_none()).then_some(parts)
    }
}

impl Group {
    pub const ALL: [Group; 7] =
        [Group::Hour, Group::Day, Group::VirtualKey, Group::Team, Group::Customer, Group::Provider, Group::Model];

    /// As a question names it.
    pub const fn name(self) -> &'static str {
        match self {
            Group::Hour => "hour",
            Group::Day => "day",
            Group::VirtualKey => "virtual_key",
            Group::Team => "team",
            Group::Customer => "customer",
            Group::Provider => "provider",
            Group::Model => "model",
        }
    }

    /// As the member of an answer is called.
    pub const fn member(self) -> &'static str {
        match self {
            Group::VirtualKey => "virtual_key_id",
            Group::Team => "team_id",
            Group::Customer => "customer_id",
            other => other.name(),
        }
    }

    pub fn from_name(name: &str) -> Option<Group> {
        Group::ALL.into_iter().find(|group| group.name() == name)
    }
}

/// The sum of some calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LedgerSum {
    /// Corrections are none.
    pub calls: i64,
    /// In the order of `UNITS`.
    pub units: [i64; UNITS.len()],
    pub cost: Nanos,
}

impl LedgerSum {
    /// Adds; what does not fit stays at the largest number there is.
    pub(super) fn add(&mut self, other: &LedgerSum) {
        self.calls = self.calls.saturating_add(other.calls);
        self.units.iter_mut().zip(other.units).for_each(|(sum, units)| *sum = sum.saturating_add(units));
        self.cost += other.cost;
    }
}

/// Sums of groups, in the order of their names, and of all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LedgerSums {
    /// With what each is grouped by: an instant as RFC 3339, an id or a name; absent where a call had none.
    pub groups: Vec<(Vec<Option<String>>, LedgerSum)>,
    pub total: LedgerSum,
    /// Something that was asked for before this instant is not kept any more in the detail that it takes.
    pub complete_from: Option<Timestamp>,
}

/// For how long, in milliseconds, what is in the ledger is kept. Sums by day are kept for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// Absent: for ever.
    pub entries: Option<i64>,
    pub hours: Option<i64>,
}

impl Keep {
    pub const FOREVER: Keep = Keep { entries: None, hours: None };
}
