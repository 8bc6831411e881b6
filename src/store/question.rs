//! What the ledger can be asked, what it answers, and for how long it remembers.

use crate::governance::money::{Nanos, Rate};
use crate::governance::time::Timestamp;
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

/// Of those, the ones that have a price of their own.
pub const PRICED: [&str; 9] = [
    "input",
    "cache_read",
    "cache_write",
    "cache_write_long",
    "audio_input",
    "image_input",
    "output",
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
    /// What one unit cost, by its name among `UNITS` or in `other`. Absent: it had no price, or that is not known.
    pub rates: Option<BTreeMap<String, Rate>>,
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
    /// How many units of this name it consumed; none of a name that nobody knows. Absent of a correction, whose
    /// figures are differences.
    pub fn units_of(&self, name: &str) -> Option<u64> {
        let column = UNITS.into_iter().position(|unit| unit == name);
        match column {
            Some(place) => u64::try_from(self.units[place]).ok(),
            None => Some(self.other.get(name).copied().unwrap_or(0)),
        }
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
