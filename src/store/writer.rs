//! The writer: takes settled entries from the outbox and puts them into the ledger, in batches, on a
//! thread of its own.
//!
//! Invariant: an entry leaves memory only once it is in the ledger. A batch that the ledger does not take
//! is tried again, the same batch, for as long as the process lives.

use super::{Follow, Ledger};
use crate::governance::time::Timestamp;
use crate::state::clock::{Clock, stopwatch};
use crate::state::outbox::{Entry, Outbox};
use crate::telemetry::Metrics;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often the writer looks. Requests never wake it: that would cost each of them a system call.
const INTERVAL: Duration = Duration::from_millis(100);
const BATCH: usize = 512;
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// The writer's thread.
#[derive(Debug)]
pub struct Writer {
    thread: JoinHandle<()>,
    stop: Sender<Instant>,
    outbox: Arc<Outbox>,
    health: Arc<Health>,
}

/// Whether settled calls reach the ledger. Shared with whoever reports readiness.
#[derive(Debug, Default)]
pub struct Health(Mutex<Option<Failing>>);

/// Since when the ledger takes nothing, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failing {
    pub since: Timestamp,
    pub error: String,
}

/// The writer stopped with entries that the ledger did not take in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{unwritten} settled calls could not be written to the ledger: {reason}")]
pub struct NotFlushed {
    pub unwritten: usize,
    pub reason: String,
}

impl Health {
    /// Absent while all is well.
    pub fn failing(&self) -> Option<Failing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn failed(&self, now: Timestamp, error: String) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let since = state.as_ref().map_or(now, |failing| failing.since);
        *state = Some(Failing { since, error });
    }

    /// Whether it had been failing until now.
    fn recovered(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take().is_some()
    }
}

impl Writer {
    /// Starts the thread. Called after the process has forked, if it does.
    /// `follow` is for a process that took over from another one.
    pub fn start(
        outbox: Arc<Outbox>,
        ledger: Box<dyn Ledger>,
        metrics: Metrics,
        clock: Clock,
        follow: Option<Follow>,
    ) -> io::Result<Writer> {
        let health = Arc::new(Health::default());
        let (stop, stopped) = channel();
        let pen = Pen {
            outbox: Arc::clone(&outbox),
            ledger,
            metrics,
            clock,
            health: Arc::clone(&health),
            batch: Vec::new(),
            follow,
        };
        let thread = std::thread::Builder::new().name("ledger-writer".to_owned()).spawn(move || pen.run(&stopped))?;
        Ok(Writer { thread, stop, outbox, health })
    }

    pub fn health(&self) -> Arc<Health> {
        Arc::clone(&self.health)
    }

    /// Writes what is left and ends the thread. Called when no request is alive any more. Gives up after
    /// `patience` (plus one try, which waits for a lock at most 5 s) and says how much is lost.
    pub fn stop(self, patience: Duration) -> Result<(), NotFlushed> {
        // A thread that is gone already is told apart by joining it.
        let _ = self.stop.send(stopwatch() + patience);
        let broke = self.thread.join().is_err();
        let unwritten = self.outbox.unwritten();
        if unwritten == 0 && !broke {
            return Ok(());
        }
        let reason = self.health.failing().map_or_else(|| "the writer broke".to_owned(), |failing| failing.error);
        Err(NotFlushed { unwritten, reason })
    }
}

/// What the thread holds.
struct Pen {
    outbox: Arc<Outbox>,
    ledger: Box<dyn Ledger>,
    metrics: Metrics,
    clock: Clock,
    health: Arc<Health>,
    /// Taken from the outbox, and not yet in the ledger.
    batch: Vec<Entry>,
    follow: Option<Follow>,
}

impl Pen {
    /// Runs until it is told to stop, and then until all is written or its time is up.
    fn run(mut self, stop: &Receiver<Instant>) {
        let mut pause = INTERVAL;
        let mut deadline = None;
        loop {
            if deadline.is_none() {
                deadline = match stop.recv_timeout(pause) {
                    Ok(deadline) => Some(deadline),
                    Err(RecvTimeoutError::Timeout) => None,
                    // Nobody can stop us any more; what is there is still written.
                    Err(RecvTimeoutError::Disconnected) => Some(stopwatch()),
                };
            } else {
                std::thread::sleep(pause.min(INTERVAL));
            }
            let wrote = self.drain();
            self.look_at_others();
            self.tidy();
            self.measure();
            pause = if wrote { INTERVAL } else { (pause * 2).min(BACKOFF_MAX) };
            if let Some(deadline) = deadline
                && ((wrote && self.outbox.unwritten() == 0) || stopwatch() >= deadline)
            {
                if let Err(error) = self.ledger.close() {
                    tracing::warn!(%error, "the database's log stays beside it; nothing is lost");
                }
                return;
            }
        }
    }

    /// Writes what is in the outbox. False if the ledger did not take a batch.
    fn drain(&mut self) -> bool {
        loop {
            if self.batch.is_empty() {
                self.batch = self.outbox.take(BATCH);
            }
            if self.batch.is_empty() {
                return true;
            }
            let more = self.batch.len() == BATCH;
            if !self.write() {
                return false;
            }
            // What came meanwhile waits for its batch: a sync costs the same for one entry and for many.
            if !more {
                return true;
            }
        }
    }

    fn look_at_others(&mut self) {
        match self.follow.as_mut().map(|follow| follow.look(&mut *self.ledger)) {
            Some(Ok(false)) => self.follow = None,
            Some(Err(error)) => tracing::warn!(%error, "cannot see what the predecessor spends; it is tried again"),
            Some(Ok(true)) | None => {}
        }
    }

    /// Only while all is well: whoever waits for the ledger waits for entries.
    fn tidy(&mut self) {
        if self.batch.is_empty()
            && let Err(error) = self.ledger.tidy(self.clock.now())
        {
            tracing::warn!(%error, "the ledger could not be tidied up; it is tried again");
        }
    }

    fn write(&mut self) -> bool {
        match self.ledger.append(&self.batch) {
            Ok(fresh) => {
                if self.health.recovered() {
                    tracing::info!("the ledger takes entries again");
                }
                self.metrics.ledger_written.inc_by(u64::try_from(fresh).unwrap_or(u64::MAX));
                if let Some(follow) = &mut self.follow {
                    follow.wrote(&self.batch);
                }
                self.outbox.written(self.batch.drain(..));
                true
            }
            Err(error) => {
                self.metrics.ledger_failures.inc();
                tracing::error!(%error, entries = self.batch.len(), "the ledger did not take a batch; it is tried again");
                self.health.failed(self.clock.now(), error.to_string());
                false
            }
        }
    }

    fn measure(&self) {
        self.metrics.open_holds.set(self.outbox.open_holds());
        self.metrics.ledger_unwritten.set(i64::try_from(self.outbox.unwritten()).unwrap_or(i64::MAX));
    }
}

impl Drop for Pen {
    /// A thread that panicked shows as failing, not as quiet.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.health.failed(self.clock.now(), "the writer's thread panicked".to_owned());
        }
    }
}
