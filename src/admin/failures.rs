//! Failed attempts to prove who one is: whoever guesses on waits longer and longer than they think about it.

use crate::governance::time::Timestamp;
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Failures within the time that cost nobody anything.
const FREE: usize = 10;
const WITHIN_MS: i64 = 60_000;
/// How long the answer to a further one waits.
const DELAY: Duration = Duration::from_millis(500);
/// Answers that wait at the same time. Beyond these nobody waits, so that a flood of guesses holds no memory.
const WAITING_MAX: usize = 256;

/// Failed attempts of late, from wherever they came.
#[derive(Debug)]
pub(super) struct Failures {
    /// When the last ones were, oldest first.
    last: Mutex<VecDeque<Timestamp>>,
    places: Semaphore,
}

impl Default for Failures {
    fn default() -> Failures {
        Failures { last: Mutex::default(), places: Semaphore::new(WAITING_MAX) }
    }
}

impl Failures {
    /// Notes a failure. Returns when it may be answered.
    pub(super) async fn note(&self, now: Timestamp) {
        if self.is_one_of_many(now)
            && let Ok(_place) = self.places.try_acquire()
        {
            tokio::time::sleep(DELAY).await;
        }
    }

    fn is_one_of_many(&self, now: Timestamp) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = if last.len() < FREE { None } else { last.pop_front() };
        last.push_back(now);
        oldest.is_some_and(|oldest| now.millis() - oldest.millis() <= WITHIN_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_failures_a_minute_are_free() {
        let failures = Failures::default();
        let fails = |at: i64| failures.is_one_of_many(Timestamp::from_millis(at));
        assert!((0..10).all(|n| !fails(n * 1_000)));
        assert!(fails(60_000), "the first was just a minute ago");
        assert!(!fails(61_001), "the second is longer ago than that");
        assert!(fails(61_002));
        // A clock that stepped back forgives nothing.
        assert!(fails(0));
    }
}
