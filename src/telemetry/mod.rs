//! What the outside may watch: metrics, and how logging is set up.

mod metrics;

pub use metrics::Metrics;

use std::sync::{Mutex, PoisonError};

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
