//! Limits on money, tokens and requests, and what they have in common: an owner.

use crate::governance::money::Nanos;
use crate::governance::time::{Timestamp, Window};
use std::sync::Arc;

/// Everything that limits one owner: a customer, a team, a virtual key, one of its provider configs, a
/// model or a provider.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Limits {
    /// At most one for each duration, the shortest first.
    pub budgets: Vec<Budget>,
    /// Apart, since most owners have none.
    pub rate_limit: Option<Box<RateLimit>>,
}

/// A limit on money within a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    pub id: Arc<str>,
    /// Above zero.
    pub max: Nanos,
    pub window: Window,
    /// Where rolling windows count from.
    pub anchor: Timestamp,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// A limit on tokens, on requests, or on both, each with its own window. At least one is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimit {
    pub id: Arc<str>,
    pub tokens: Option<Quota>,
    pub requests: Option<Quota>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// One half of a rate limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quota {
    /// Above zero.
    pub max: i64,
    pub window: Window,
    pub anchor: Timestamp,
}

impl Limits {
    pub fn is_empty(&self) -> bool {
        self.budgets.is_empty() && self.rate_limit.is_none()
    }

    /// Budgets that follow the calendar now and did not in `old`: that starts their usage from nothing.
    pub fn turned_to_calendar<'a>(&'a self, old: &'a Limits) -> impl Iterator<Item = &'a Budget> {
        let rolling = |id: &Arc<str>| old.budgets.iter().any(|was| was.id == *id && !was.window.is_aligned());
        self.budgets.iter().filter(move |budget| budget.window.is_aligned() && rolling(&budget.id))
    }
}
