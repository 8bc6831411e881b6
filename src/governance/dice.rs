//! Chance, with a seed: the same seed gives the same choices.
//!
//! Good enough to spread waits; nothing secret may hang on it.

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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_as_likely_and_the_same_seed_rolls_the_same() {
        let rolls = |seed| {
            let mut dice = Dice::seeded(seed);
            (0..4_100).map(|_| dice.below(41)).collect::<Vec<_>>()
        };
        let counts = rolls(7).into_iter().fold([0_u32; 41], |mut counts, number| {
            counts[usize::try_from(number).unwrap()] += 1;
            counts
        });
        // Five standard deviations.
        assert!(counts.iter().all(|count| count.abs_diff(100) < 50), "{counts:?}");
        assert_eq!(rolls(1), rolls(1));
        assert_ne!(rolls(1), rolls(2));
        assert_eq!(Dice::seeded(1).below(0), 0);
    }
}
