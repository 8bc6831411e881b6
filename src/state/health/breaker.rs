//! Failures in a row, and whoever had too many of them is left alone for a while.
//!
//! One atomic, so that reading it costs nothing; time is an argument.

use crate::governance::time::Timestamp;
use std::sync::atomic::{AtomicU64, Ordering};

/// So many failures in a row eject.
pub const FAILURES_MAX: u64 = 5;
/// The first ejection lasts so long; each further one twice as long as the one before.
const EJECTED_FIRST_MS: u64 = 10_000;
const EJECTED_LONGEST_MS: u64 = 300_000;
/// A probe that says nothing for so long makes room for another.
const PROBE_MS: u64 = 60_000;

/// Failures in the upper 8 bits, ejections in a row in the next 8, the end of the ejection in the lower 48.
#[derive(Debug, Default)]
pub struct Breaker(AtomicU64);

/// How somebody stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Good,
    /// The time is over; the next call finds out how things are.
    Due,
    Out {
        until: Timestamp,
    },
}

/// The leave to ask somebody who stands like this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    Free,
    /// Alone, to find out. Holds what the breaker was set to.
    Probe(u64),
    Denied,
}

#[derive(Clone, Copy)]
struct Parts {
    failures: u64,
    ejections: u64,
    until: u64,
}

impl Parts {
    fn of(packed: u64) -> Parts {
        Parts { failures: packed >> 56, ejections: packed >> 48 & 0xff, until: packed & ((1 << 48) - 1) }
    }

    fn packed(self) -> u64 {
        self.failures.min(0xff) << 56 | self.ejections.min(0xff) << 48 | self.until.min((1 << 48) - 1)
    }

    fn ejected(self, now: u64) -> Parts {
        let doubled = EJECTED_FIRST_MS.checked_shl(u32::try_from(self.ejections).unwrap_or(u32::MAX));
        let lasts = doubled.unwrap_or(EJECTED_LONGEST_MS).min(EJECTED_LONGEST_MS);
        Parts { failures: FAILURES_MAX, ejections: self.ejections + 1, until: now + lasts }
    }
}

fn millis(now: Timestamp) -> u64 {
    now.since(Timestamp::from_millis(0))
}

impl Breaker {
    pub fn standing(&self, now: Timestamp) -> Standing {
        let parts = Parts::of(self.0.load(Ordering::Relaxed));
        match parts.failures < FAILURES_MAX {
            true => Standing::Good,
            false if millis(now) >= parts.until => Standing::Due,
            false => Standing::Out { until: Timestamp::from_millis(i64::try_from(parts.until).unwrap_or(i64::MAX)) },
        }
    }

    /// Asks for leave. Of those that come when the time is over, one gets it.
    pub fn enter(&self, now: Timestamp) -> Leave {
        let packed = self.0.load(Ordering::Relaxed);
        match self.standing(now) {
            Standing::Good => Leave::Free,
            Standing::Out { .. } => Leave::Denied,
            Standing::Due => {
                let probing = Parts { until: millis(now) + PROBE_MS, ..Parts::of(packed) }.packed();
                match self.0.compare_exchange(packed, probing, Ordering::Relaxed, Ordering::Relaxed) {
                    Ok(_) => Leave::Probe(probing),
                    Err(_) => Leave::Denied,
                }
            }
        }
    }

    /// Counts a failure. True: it ejects. While somebody is out only a probe says anything new.
    pub fn failed(&self, now: Timestamp, leave: Leave) -> bool {
        self.step(now, leave, |parts| match parts.failures + 1 < FAILURES_MAX {
            true => Parts { failures: parts.failures + 1, ..parts },
            false => parts.ejected(millis(now)),
        })
    }

    /// Ejects at once: more failures could not say it better.
    pub fn trip(&self, now: Timestamp, leave: Leave) -> bool {
        self.step(now, leave, |parts| parts.ejected(millis(now)))
    }

    fn step(&self, now: Timestamp, leave: Leave, worse: impl Fn(Parts) -> Parts) -> bool {
        let step = |packed: u64| {
            let parts = Parts::of(packed);
            let out = parts.failures >= FAILURES_MAX && parts.until > millis(now);
            if out && leave != Leave::Probe(packed) {
                return None;
            }
            Some(worse(parts).packed())
        };
        let stepped = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step);
        stepped.is_ok_and(|before| Parts::of(worse(Parts::of(before)).packed()).failures >= FAILURES_MAX)
    }

    /// One more failure would eject: for those who must not be.
    pub fn spare(&self) {
        let spared = |packed: u64| {
            let parts = Parts::of(packed);
            (parts.failures >= FAILURES_MAX)
                .then(|| Parts { failures: FAILURES_MAX - 1, until: 0, ejections: 0 }.packed())
        };
        // Nothing to do is no failure.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spared);
    }

    /// A probe has begun to be answered: others may come, and one failure sends them away again.
    pub fn answering(&self, leave: Leave) {
        if let Leave::Probe(probing) = leave {
            let open = Parts { failures: FAILURES_MAX - 1, until: 0, ..Parts::of(probing) }.packed();
            // Somebody else knew better meanwhile.
            let _ = self.0.compare_exchange(probing, open, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// All is well.
    pub fn succeeded(&self) {
        // Reading first: writing the same again and again would slow down everybody else.
        if self.0.load(Ordering::Relaxed) != 0 {
            self.0.store(0, Ordering::Relaxed);
        }
    }

    /// A probe that learnt nothing lets another one go.
    pub fn give_back(&self, leave: Leave) {
        if let Leave::Probe(probing) = leave {
            let due = Parts { until: 0, ..Parts::of(probing) }.packed();
            // Nothing to give back if it was taken away.
            let _ = self.0.compare_exchange(probing, due, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1_000)
    }

    fn tripped() -> Breaker {
        let breaker = Breaker::default();
        let ejects: Vec<bool> = (0..5).map(|_| breaker.failed(at(100), Leave::Free)).collect();
        assert_eq!(ejects, [false, false, false, false, true]);
        breaker
    }

    #[test]
    fn failures_in_a_row_eject_and_others_do_not() {
        let breaker = Breaker::default();
        for _ in 0..20 {
            for _ in 0..4 {
                assert!(!breaker.failed(at(100), Leave::Free));
            }
            breaker.succeeded();
        }
        assert_eq!(breaker.standing(at(100)), Standing::Good);
        let breaker = tripped();
        assert_eq!(breaker.standing(at(100)), Standing::Out { until: at(110) });
        // Calls that were on their way then change nothing.
        assert!(!breaker.failed(at(105), Leave::Free));
        assert_eq!(breaker.standing(at(109)), Standing::Out { until: at(110) });
        assert_eq!(breaker.standing(at(110)), Standing::Due);
    }

    #[test]
    fn one_probe_goes_and_what_it_finds_counts() {
        let breaker = tripped();
        assert_eq!(breaker.enter(at(109)), Leave::Denied);
        let probe = breaker.enter(at(110));
        assert!(matches!(probe, Leave::Probe(_)));
        assert_eq!(breaker.enter(at(110)), Leave::Denied);
        // One that was not heard of again makes room.
        let second = breaker.enter(at(171));
        assert!(matches!(second, Leave::Probe(_)));
        assert!(!breaker.failed(at(171), probe), "the first is nobody's any more");
        // Each that fails doubles the time, up to a bound.
        let mut now = 171;
        let mut probe = second;
        for lasts in [20, 40, 80, 160, 300, 300, 300] {
            assert!(breaker.failed(at(now), probe));
            assert_eq!(breaker.standing(at(now)), Standing::Out { until: at(now + lasts) });
            now += lasts;
            probe = breaker.enter(at(now));
        }
        // One that learnt nothing is followed by the next.
        breaker.give_back(probe);
        let probe = breaker.enter(at(now));
        breaker.answering(probe);
        assert_eq!(breaker.enter(at(now)), Leave::Free);
        assert!(breaker.failed(at(now), probe), "an answer that broke after its head ejects again");
        breaker.succeeded();
        assert_eq!((breaker.standing(at(now)), breaker.enter(at(now))), (Standing::Good, Leave::Free));
    }

    #[test]
    fn who_is_rejected_is_out_at_once() {
        let breaker = Breaker::default();
        assert!(breaker.trip(at(100), Leave::Free));
        assert!(!breaker.trip(at(101), Leave::Free), "it is out already");
        assert_eq!(breaker.standing(at(101)), Standing::Out { until: at(110) });
        breaker.spare();
        assert_eq!(breaker.standing(at(101)), Standing::Good);
        assert!(breaker.failed(at(101), Leave::Free));
    }

    #[test]
    fn many_threads_get_one_probe() {
        for _ in 0..100 {
            let breaker = tripped();
            let probes: usize = std::thread::scope(|scope| {
                let ask = || usize::from(matches!(breaker.enter(at(200)), Leave::Probe(_)));
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).sum()
            });
            assert_eq!(probes, 1);
        }
    }
}
