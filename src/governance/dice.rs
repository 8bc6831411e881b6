//! Chance, with a seed: the same seed gives the same choices.
//!
//! Good enough to spread calls by weight; nothing secret may hang on it.

use super::entity::Weight;

/// SplitMix64: every seed is a good one, neighbouring ones too.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    pub const fn seeded(seed: u64) -> Dice {
        Dice(seed)
    }

    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to `end`, without `end` itself; 0 where there is none.
    pub fn below(&mut self, end: u64) -> u64 {
        u64::try_from((u128::from(self.roll()) * u128::from(end)) >> 64).expect("less than `end`, which is one")
    }

    /// Puts `items` into the order in which they are drawn: each draw in proportion to the weights of those that are
    /// left. Those without weight come after all that have any, each as likely as the other.
    pub fn draw<T>(&mut self, items: &mut [T], weight: impl Fn(&T) -> Weight) {
        let weight = |item: &T| u128::from(weight(item).millionths());
        for next in 0..items.len().saturating_sub(1) {
            let left = &items[next..];
            let total: u128 = left.iter().map(weight).sum();
            let drawn = match u64::try_from(total) {
                Ok(0) => usize::try_from(self.below(left.len() as u64)).expect("an index"),
                total => {
                    // Sums beyond 64 bits are no weights that anybody means; the draw stays within the list.
                    let mut rest = u128::from(self.below(total.unwrap_or(u64::MAX)));
                    let at = left.iter().position(|item| {
                        let hit = rest < weight(item);
                        rest = rest.saturating_sub(weight(item));
                        hit
                    });
                    at.unwrap_or(0)
                }
            };
            items.swap(next, next + drawn);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often each of the items comes first in 10,000 draws.
    fn firsts(weights: &[u64]) -> Vec<u64> {
        let mut dice = Dice::seeded(7);
        let mut firsts = vec![0; weights.len()];
        for _ in 0..10_000 {
            let mut items: Vec<usize> = (0..weights.len()).collect();
            dice.draw(&mut items, |&item| Weight::from_millionths(weights[item]));
            let mut sorted = items.clone();
            sorted.sort_unstable();
            assert!(sorted.into_iter().eq(0..weights.len()), "{items:?}");
            if let Some(&first) = items.first() {
                firsts[first] += 1;
            }
        }
        firsts
    }

    #[test]
    fn draws_follow_the_weights() {
        let check = |weights: &[u64], shares: &[u64]| {
            for (drawn, share) in firsts(weights).into_iter().zip(shares) {
                // Five standard deviations of the widest binomial of 10,000 draws.
                assert!(drawn.abs_diff(*share) <= 250, "{weights:?}: {drawn} instead of {share}");
                assert!(*share > 0 || drawn == 0, "{weights:?}");
            }
        };
        check(&[1_000_000], &[10_000]);
        check(&[700_000, 200_000, 100_000], &[7_000, 2_000, 1_000]);
        check(&[1, 3], &[2_500, 7_500]);
        check(&[5, 0], &[10_000, 0]);
        check(&[0, 0, 0, 0], &[2_500, 2_500, 2_500, 2_500]);
        check(&[u64::MAX, u64::MAX], &[10_000, 0]);
        assert!(firsts(&[]).is_empty());
    }

    #[test]
    fn the_same_seed_draws_the_same() {
        let draw = |seed| {
            let mut items: Vec<u32> = (0..20).collect();
            Dice::seeded(seed).draw(&mut items, |_| Weight::ONE);
            items
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }
}
