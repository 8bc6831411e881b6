//! The only place that asks what time it is.

use crate::governance::time::Timestamp;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// System time in service; turned by hand in tests.
#[derive(Debug, Clone, Default)]
pub enum Clock {
    #[default]
    System,
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// A clock that stands at `start` until somebody stores another time.
    pub fn manual(start: Timestamp) -> (Clock, Arc<AtomicI64>) {
        let hand = Arc::new(AtomicI64::new(start.millis()));
        (Clock::Manual(Arc::clone(&hand)), hand)
    }

    #[expect(clippy::disallowed_methods, reason = "this is the clock that everybody else asks")]
    pub fn now(&self) -> Timestamp {
        match self {
            Clock::System => {
                let passed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                Timestamp::from_millis(i64::try_from(passed.as_millis()).unwrap_or(i64::MAX))
            }
            Clock::Manual(hand) => Timestamp::from_millis(hand.load(Ordering::SeqCst)),
        }
    }
}

/// A point for measuring how long something took; it says nothing about the time of day.
#[expect(clippy::disallowed_methods, reason = "this is the clock that everybody else asks")]
pub fn stopwatch() -> Instant {
    Instant::now()
}

/// How long ago `start` was.
pub fn since(start: Instant) -> Duration {
    stopwatch().saturating_duration_since(start)
}
