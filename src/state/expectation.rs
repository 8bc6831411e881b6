//! How much a model usually writes: what a hold expects when the request does not say.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// Running means of output tokens by provider and model. Bounded: models beyond the first few
/// thousand are expected to use their cap.
#[derive(Debug, Default)]
pub struct Expectations {
    models: RwLock<HashMap<Box<str>, Models>>,
}

/// The means of one provider, by model.
type Models = HashMap<Box<str>, Arc<Mean>>;

const MODELS_MAX: usize = 4_096;
/// A mean counts only once this many answers were seen.
const SEEN_MIN: u64 = 32;
/// Older answers fade: each new one weighs at least this part.
const SEEN_MAX: u64 = 256;
/// What an answer is expected to be at most while nothing is known.
pub const OUTPUT_UNKNOWN: u64 = 4_096;

/// Count in the upper 16 bits, mean in parts of 256 of a token in the lower 48.
#[derive(Debug, Default)]
struct Mean(AtomicU64);

impl Mean {
    fn learn(&self, tokens: u64) {
        let sample = tokens.min(1 << 32) << 8;
        let step = |packed: u64| {
            let (seen, mean) = (packed >> 48, packed & ((1 << 48) - 1));
            let seen = (seen + 1).min(SEEN_MAX);
            let mean = (mean * (seen - 1) + sample) / seen;
            Some(seen << 48 | mean)
        };
        // Always `Some`, so it cannot fail.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step);
    }

    fn tokens(&self) -> Option<u64> {
        let packed = self.0.load(Ordering::Relaxed);
        (packed >> 48 >= SEEN_MIN).then(|| ((packed & ((1 << 48) - 1)) >> 8).max(1))
    }
}

impl Expectations {
    /// The output to expect of one answer whose cap is `cap`.
    pub fn output(&self, provider: &str, model: &str, cap: Option<u64>) -> u64 {
        let models = self.models.read().unwrap_or_else(PoisonError::into_inner);
        let mean = models.get(provider).and_then(|models| models.get(model)).and_then(|mean| mean.tokens());
        mean.unwrap_or(OUTPUT_UNKNOWN).min(cap.unwrap_or(u64::MAX))
    }

    /// Learns from one answer.
    pub fn learn(&self, provider: &str, model: &str, output: u64) {
        let known = {
            let models = self.models.read().unwrap_or_else(PoisonError::into_inner);
            models.get(provider).and_then(|models| models.get(model)).cloned()
        };
        let mean = known.or_else(|| {
            let mut models = self.models.write().unwrap_or_else(PoisonError::into_inner);
            let count: usize = models.values().map(HashMap::len).sum();
            (count < MODELS_MAX)
                .then(|| Arc::clone(models.entry(provider.into()).or_default().entry(model.into()).or_default()))
        });
        if let Some(mean) = mean {
            mean.learn(output);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_counts_after_enough_answers() {
        let known = Expectations::default();
        assert_eq!(known.output("p", "m", None), OUTPUT_UNKNOWN);
        assert_eq!(known.output("p", "m", Some(50)), 50);
        for _ in 0..31 {
            known.learn("p", "m", 200);
        }
        assert_eq!(known.output("p", "m", None), OUTPUT_UNKNOWN);
        known.learn("p", "m", 200);
        assert_eq!(known.output("p", "m", None), 200);
        assert_eq!(known.output("p", "m", Some(50)), 50);
        for _ in 0..2_000 {
            known.learn("p", "m", 1_000);
        }
        assert!((990..=1_000).contains(&known.output("p", "m", None)));
    }
}
