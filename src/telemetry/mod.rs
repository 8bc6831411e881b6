//! What the outside may watch: metrics, and how logging is set up.

mod metrics;

pub use metrics::Metrics;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// How the newest reload of the config file went, for the readiness page.
#[derive(Debug, Default)]
pub struct ReloadStatus(Mutex<Option<String>>);

impl ReloadStatus {
    pub fn good(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub fn refused(&self, reason: String) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
    }

    /// Why the newest reload was refused; absent if it was not.
    pub fn failing(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Which list prices are in force and how the newest look at their source went, for the readiness page.
#[derive(Debug, Default)]
pub struct PriceStatus(Mutex<PriceStanding>);

/// What is known of the list prices.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PriceStanding {
    /// Where those in force come from; empty before there are any.
    pub source: String,
    pub hash: String,
    pub models: usize,
    /// Why they could not be refreshed; absent if they could.
    pub failing: Option<String>,
}

impl PriceStatus {
    /// These are in force.
    pub fn good(&self, source: &str, hash: &str, models: usize) {
        *self.lock() = PriceStanding { source: source.to_owned(), hash: hash.to_owned(), models, failing: None };
    }

    /// They are what the source has.
    pub fn looked(&self) {
        self.lock().failing = None;
    }

    pub fn failed(&self, source: &str, why: String) {
        self.lock().failing = Some(format!("{source}: {why}"));
    }

    pub fn standing(&self) -> PriceStanding {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, PriceStanding> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
