//! How many calls a provider has at once, and how many wait for their turn. They go in the order in which they came.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::governance::entity::Concurrency;

#[derive(Debug)]
pub struct Gate {
    bounds: Concurrency,
    places: Arc<Semaphore>,
    waiting: AtomicU32,
}

/// A place among the calls of a provider; dropped, it is the next one's.
#[derive(Debug)]
#[must_use]
pub struct Place(#[expect(dead_code, reason = "held until it is dropped")] OwnedSemaphorePermit);

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// As many wait as may.
    Buffer,
    /// The turn did not come in time.
    TooLong,
}

impl Gate {
    pub fn new(bounds: Concurrency) -> Gate {
        let places = usize::try_from(bounds.concurrency).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Gate { bounds, places: Arc::new(Semaphore::new(places)), waiting: AtomicU32::new(0) }
    }

    pub fn bounds(&self) -> Concurrency {
        self.bounds
    }

    /// A place at once, if there is one and nobody waits for it.
    pub fn try_enter(&self) -> Option<Place> {
        // Tokio's semaphore hands places to those who wait before it has any to give.
        Arc::clone(&self.places).try_acquire_owned().ok().map(Place)
    }

    /// A place when its turn comes, at most after `patience`. Dropping the future leaves the queue.
    pub async fn enter(&self, patience: Duration) -> Result<Place, Full> {
        if let Some(place) = self.try_enter() {
            return Ok(place);
        }
        let waiting = Waiting(&self.waiting);
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= self.bounds.buffer_size {
            return Err(Full::Buffer);
        }
        let place = timeout(patience, Arc::clone(&self.places).acquire_owned()).await;
        drop(waiting);
        match place {
            Ok(place) => Ok(Place(place.expect("the semaphore is never closed"))),
            Err(_) => Err(Full::TooLong),
        }
    }

    pub fn in_flight(&self) -> u32 {
        let free = u32::try_from(self.places.available_permits()).unwrap_or(u32::MAX);
        self.bounds.concurrency.saturating_sub(free)
    }

    pub fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::Relaxed).min(self.bounds.buffer_size)
    }
}

/// Made just before somebody is counted as waiting.
struct Waiting<'a>(&'a AtomicU32);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    const LONG: Duration = Duration::from_secs(3_600);

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
    }

    #[test]
    fn those_who_wait_go_in_their_order_and_too_many_are_sent_away() {
        runtime().block_on(async {
            let gate = Gate::new(Concurrency { concurrency: 2, buffer_size: 2 });
            let (first, second) = (gate.enter(LONG).await.unwrap(), gate.try_enter().unwrap());
            assert!(gate.try_enter().is_none());
            let mut context = Context::from_waker(Waker::noop());
            let mut third = pin!(gate.enter(LONG));
            let mut fourth = pin!(gate.enter(LONG));
            assert!(third.as_mut().poll(&mut context).is_pending() && fourth.as_mut().poll(&mut context).is_pending());
            assert_eq!(gate.enter(LONG).await.unwrap_err(), Full::Buffer);
            assert_eq!((gate.in_flight(), gate.waiting()), (2, 2));
            drop(first);
            // Nobody passes those who wait.
            assert!(gate.try_enter().is_none());
            assert!(fourth.as_mut().poll(&mut context).is_pending());
            let Poll::Ready(Ok(third)) = third.as_mut().poll(&mut context) else { panic!("it was its turn") };
            assert_eq!((gate.in_flight(), gate.waiting()), (2, 1));
            drop((second, third));
            let Poll::Ready(Ok(_fourth)) = fourth.as_mut().poll(&mut context) else { panic!("it was its turn") };
            assert_eq!((gate.in_flight(), gate.waiting()), (1, 0));
        });
    }

    #[test]
    fn who_leaves_the_queue_or_waits_in_vain_takes_no_place() {
        runtime().block_on(async {
            let gate = Gate::new(Concurrency { concurrency: 1, buffer_size: 1 });
            let place = gate.try_enter().unwrap();
            assert_eq!(gate.enter(Duration::from_millis(5)).await.unwrap_err(), Full::TooLong);
            {
                let mut leaves = Box::pin(gate.enter(LONG));
                assert!(leaves.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            }
            assert_eq!(gate.waiting(), 0);
            drop(place);
            assert!(gate.try_enter().is_some());
            assert_eq!(gate.in_flight(), 0);
        });
    }
}
