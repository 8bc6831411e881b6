//! Choosing by weight: by chance, or for a session always alike.
#![allow(clippy::float_arithmetic, reason = "these are chances, and no money")]

use http::HeaderMap;

/// The headers in which a client names its session; the first is ours.
pub const SESSION_HEADERS: [&str; 2] = ["x-tollgate-session", "x-bf-session-id"];
/// Longer names of sessions are read up to here.
const SESSION_BYTES_MAX: usize = 256;
/// The odd number closest to 2^64 over the golden ratio, by which SplitMix64 steps.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Where chances come from. The same seed, or the same session, chooses the same.
///
/// Each candidate gets a chance between 0 and 1, and the one whose `-ln(chance) / weight` is least is taken: so
/// it is taken in proportion to its weight. For a session the chance is a hash of the two, and no state: while
/// its candidate is there, a session stays with it, and when it goes, only its sessions move.
#[derive(Debug, Clone)]
pub struct Draw {
    state: u64,
    session: bool,
}

impl Draw {
    /// Draws by chance. Seeds may be numbers in a row.
    pub fn seeded(seed: u128) -> Draw {
        let (high, low) = ((seed >> 64) as u64, seed as u64);
        // Mixed twice, or one request's second chance would be the first of the next.
        Draw { state: mix(mix(high.wrapping_add(low.wrapping_mul(STEP)))), session: false }
    }

    /// Draws for the session that the headers name, if they do.
    pub fn of(headers: &HeaderMap, caller: &str, seed: u128) -> Draw {
        let session = SESSION_HEADERS.iter().find_map(|name| headers.get(*name)).filter(|value| !value.is_empty());
        let Some(session) = session else { return Draw::seeded(seed) };
        let session = session.as_bytes();
        let session = &session[..session.len().min(SESSION_BYTES_MAX)];
        // Two callers' sessions of one name have nothing to do with each other.
        Draw { state: hash(hash(OFFSET, caller.as_bytes()), session), session: true }
    }

    fn chance(&mut self, name: &str) -> f64 {
        let bits = if self.session {
            mix(hash(self.state, name.as_bytes()))
        } else {
            self.state = self.state.wrapping_add(STEP);
            mix(self.state)
        };
        // 53 bits and never zero.
        ((bits >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }

    /// One of `items`, by weight. A weight of zero is taken only where all are zero, and then they are alike.
    pub fn pick<T>(&mut self, items: &[T], weight: impl Fn(&T) -> u64, name: impl Fn(&T) -> &str) -> Option<usize> {
        match items {
            [] => None,
            [_] => Some(0),
            _ => self.scores(items, weight, name).into_iter().min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, at)| at),
        }
    }

    /// All of `items`: the one that is drawn first, then the one drawn from those left, and so on.
    pub fn order<T: Clone>(&mut self, items: &mut Vec<T>, weight: impl Fn(&T) -> u64, name: impl Fn(&T) -> &str) {
        if items.len() > 1 {
            let mut scores = self.scores(items, weight, name);
            scores.sort_by(|a, b| a.0.total_cmp(&b.0));
            *items = scores.into_iter().map(|(_, at)| items[at].clone()).collect();
        }
    }

    fn scores<T>(&mut self, items: &[T], weight: impl Fn(&T) -> u64, name: impl Fn(&T) -> &str) -> Vec<(f64, usize)> {
        let alike = items.iter().all(|item| weight(item) == 0);
        let score = |(at, item): (usize, &T)| {
            let chance = self.chance(name(item));
            match if alike { 1 } else { weight(item) } {
                0 => (f64::INFINITY, at),
                weight => (-chance.ln() / weight as f64, at),
            }
        };
        items.iter().enumerate().map(score).collect()
    }
}

const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a: the same in every process and version, as sessions need it.
fn hash(start: u64, bytes: &[u8]) -> u64 {
    let hash = bytes.iter().fold(start, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
    // What follows is told from what is appended.
    (hash ^ bytes.len() as u64).wrapping_mul(0x100_0000_01b3)
}

/// The finish of SplitMix64: every bit of the input moves every bit of the output.
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 4] = ["openai", "azure", "groq", "local"];

    fn shares(weights: [u64; 4], mut draws: impl FnMut(u128) -> Draw) -> [u64; 4] {
        let mut counts = [0; 4];
        for n in 0..40_000 {
            let items: Vec<usize> = (0..4).collect();
            counts[draws(n).pick(&items, |&at| weights[at], |&at| NAMES[at]).unwrap()] += 1;
        }
        counts
    }

    /// Pearson's statistic of counts against weights. With three degrees of freedom, chance alone goes above
    /// 16.3 once in a thousand times; the seeds are fixed, so what passes once passes always.
    fn check(counts: [u64; 4], weights: [u64; 4]) {
        let (all, sum) = (counts.iter().sum::<u64>() as f64, weights.iter().sum::<u64>() as f64);
        let parts = counts.iter().zip(weights).filter(|(_, weight)| *weight > 0).map(|(&count, weight)| {
            let expected = all * weight as f64 / sum;
            (count as f64 - expected).powi(2) / expected
        });
        let statistic: f64 = parts.sum();
        assert!(statistic < 16.3, "{counts:?} for {weights:?}: {statistic}");
        for (count, weight) in counts.iter().zip(weights) {
            assert!(weight > 0 || *count == 0, "{counts:?} for {weights:?}");
        }
    }

    #[test]
    fn shares_follow_weights() {
        for weights in [[1, 1, 1, 1], [5, 3, 2, 1], [70, 20, 9, 1], [1, 0, 3, 0], [900_000, 100_000, 1, 0]] {
            for process in [0, 1, 0xdead_beef_u128] {
                check(shares(weights, |n| Draw::seeded(process << 64 | n)), weights);
            }
            let session = |n: u128| {
                let mut headers = HeaderMap::new();
                headers.insert(SESSION_HEADERS[0], format!("session-{n}").parse().unwrap());
                Draw::of(&headers, "caller", n)
            };
            check(shares(weights, session), weights);
        }
        check(shares([0; 4], Draw::seeded), [1; 4]);
    }

    #[test]
    fn draws_of_one_request_know_nothing_of_each_other() {
        // Sixteen pairs of a first and a second choice, each as frequent as any other.
        let mut pairs = [[0_u64; 4]; 4];
        for n in 0..40_000 {
            let mut draw = Draw::seeded(n);
            let mut pick = || draw.pick(&NAMES, |_| 1, |name| name).unwrap();
            let (first, second) = (pick(), pick());
            pairs[first][second] += 1;
        }
        pairs.iter().for_each(|row| check(*row, [1; 4]));
        // And those of a request nothing of those of the next.
        let first = |n| Draw::seeded(n).pick(&NAMES, |_| 1, |name| name).unwrap();
        let mut pairs = [[0_u64; 4]; 4];
        (0..40_000).for_each(|n| pairs[first(n)][first(n + 1)] += 1);
        pairs.iter().for_each(|row| check(*row, [1; 4]));
    }

    #[test]
    fn a_session_stays_where_it_is() {
        let mut moved = 0;
        for n in 0..4_000 {
            let mut headers = HeaderMap::new();
            headers.insert(SESSION_HEADERS[1], format!("{n}").parse().unwrap());
            let pick = |names: &[&'static str], seed| {
                let mut draw = Draw::of(&headers, "caller", seed);
                names[draw.pick(names, |_| 1, |name| name).unwrap()]
            };
            let (before, again) = (pick(&NAMES, 1), pick(&NAMES, 2));
            assert_eq!(before, again);
            // One of them goes: nobody else's session moves.
            let after = pick(&NAMES[1..], 3);
            assert!(before == after || before == NAMES[0]);
            moved += usize::from(before != after);
        }
        assert!((800..1_200).contains(&moved), "{moved}");
    }

    #[test]
    fn an_order_begins_with_what_is_drawn_and_ends_with_what_weighs_nothing() {
        let mut firsts = [0; 4];
        let weights = [5, 3, 2, 0];
        for n in 0..40_000 {
            let mut items: Vec<usize> = (0..4).collect();
            Draw::seeded(n).order(&mut items, |&at| weights[at], |&at| NAMES[at]);
            firsts[items[0]] += 1;
            assert_eq!(items[3], 3);
            items.sort();
            assert_eq!(items, [0, 1, 2, 3]);
        }
        check(firsts, weights);
        assert_eq!(Draw::seeded(1).pick(&[], |_: &&str| 1, |name| name), None);
    }
}
