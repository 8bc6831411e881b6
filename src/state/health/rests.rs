//! Models that one provider key may not be asked for until a time: rate limits are kept model by model.
//!
//! A table of fixed size, read and written without a lock. When it is full, what ends first gives way: the
//! provider says it again.

use crate::governance::time::Timestamp;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

const PLACES: usize = 32;
/// Places that a name may be in.
const REACH: usize = 8;
/// Times are kept in units of 16 ms, modulo 2^32 of them, which is more than two years.
const UNIT_BITS: u32 = 4;

/// Each place: 32 bits of the name's hash above, the end of the rest below.
#[derive(Debug, Default)]
pub struct Rests {
    hasher: RandomState,
    places: [AtomicU64; PLACES],
}

fn units(at: Timestamp) -> u32 {
    // Wrapping is what is meant.
    (at.millis() >> UNIT_BITS) as u32
}

impl Rests {
    /// `until` is at most `LONGEST_MS` of the health after `now`.
    pub fn set(&self, model: &str, until: Timestamp, now: Timestamp) {
        let hash = self.hasher.hash_one(model);
        let tag = hash >> 32;
        let end = units(until.plus((1 << UNIT_BITS) - 1));
        let left = |packed: u64| left(packed, now).unwrap_or(0);
        let reach = reach(hash).map(|at| (at, self.places[at].load(Ordering::Relaxed)));
        let same = reach.clone().find(|(_, packed)| packed >> 32 == tag);
        let at = same.or_else(|| reach.min_by_key(|(_, packed)| left(*packed)));
        let (at, _) = at.expect("a name has places");
        self.places[at].store(tag << 32 | u64::from(end), Ordering::Relaxed);
    }

    /// When the model may be asked for again, if that is not now.
    pub fn until(&self, model: &str, now: Timestamp) -> Option<Timestamp> {
        let hash = self.hasher.hash_one(model);
        let mut reach = reach(hash).map(|at| self.places[at].load(Ordering::Relaxed));
        let packed = reach.find(|packed| packed >> 32 == hash >> 32)?;
        left(packed, now).map(|left| now.plus(i64::from(left) << UNIT_BITS))
    }
}

fn reach(hash: u64) -> impl Iterator<Item = usize> + Clone {
    let first = usize::try_from(hash % PLACES as u64).expect("an index");
    (0..REACH).map(move |step| (first + step) % PLACES)
}

/// Units that are left of a rest. What would be longer than any rest is one that ended long ago.
fn left(packed: u64, now: Timestamp) -> Option<u32> {
    let longest = u32::try_from(super::LONGEST_MS >> UNIT_BITS).unwrap_or(u32::MAX) + 1;
    let left = (packed as u32).wrapping_sub(units(now));
    (packed != 0 && (1..=longest).contains(&left)).then_some(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_rests_until_its_time() {
        let rests = Rests::default();
        let now = Timestamp::from_millis(1_790_000_000_123);
        assert_eq!(rests.until("a", now), None);
        rests.set("a", now.plus(1_000), now);
        let until = rests.until("a", now).unwrap();
        assert!((1_000..1_000 + 32).contains(&until.since(now)), "{until}");
        assert!(rests.until("a", now.plus(999)).is_some());
        assert_eq!(rests.until("a", now.plus(1_040)), None);
        assert_eq!(rests.until("b", now), None);
        rests.set("a", now.plus(5_000), now);
        assert!(rests.until("a", now.plus(4_990)).is_some());
        // A year later, and beyond the point where times begin anew.
        assert_eq!(rests.until("a", now.plus(365 * 86_400_000)), None);
        assert_eq!(rests.until("a", now.plus(3 * 365 * 86_400_000)), None);
    }

    #[test]
    fn however_many_rest_there_is_a_bound() {
        let rests = Rests::default();
        let now = Timestamp::from_millis(1_790_000_000_000);
        for n in 0..1_000 {
            let model = format!("model-{n}");
            rests.set(&model, now.plus(60_000), now);
            assert!(rests.until(&model, now).is_some(), "the newest is always known");
        }
        let known = (0..1_000).filter(|n| rests.until(&format!("model-{n}"), now).is_some()).count();
        assert!(known <= PLACES, "{known}");
    }
}
