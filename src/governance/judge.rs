//! Verdicts: may this much be held against a limit?

use super::refusal::Exceeded;
use super::time::Timestamp;
use super::view::Limit;

/// When a call is admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Admission {
    /// While something is left: sequential traffic passes until the limit is reached, and calls in
    /// flight count with what they are expected to cost.
    #[default]
    Remaining,
    /// Only if its worst case fits: the limit is never passed.
    NeverExceed,
}

/// What stands in one window's cell: `used` is spent plus held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    pub used: i64,
    pub spent: i64,
}

impl Tally {
    pub fn held(self) -> i64 {
        (self.used - self.spent).max(0)
    }
}

/// Whether `amount` may be held where `used` is spent or held already. Held counts like spent.
/// An exhausted limit refuses even a free call: clients meet the limit, not luck. What does not fit into
/// the sum is refused under either policy.
pub fn admits(max: i64, used: i64, amount: i64, admission: Admission) -> bool {
    let fits = |sum: i64| admission == Admission::Remaining || sum <= max;
    used < max && used.checked_add(amount).is_some_and(fits)
}

/// Explains a refusal at `limit`, whose current window began at `start`.
pub fn explain(limit: &Limit, tally: Tally, start: Timestamp) -> Exceeded {
    Exceeded {
        level: limit.level,
        subject: None,
        measure: limit.key.measure,
        max: limit.max,
        wanted: 0,
        spent: tally.spent,
        held: tally.held(),
        window: limit.window.span().text().into(),
        resets_at: limit.window.end(start),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_what_is_neither_spent_nor_held() {
        let check = |policy, used, amount, fits| assert_eq!(admits(10, used, amount, policy), fits, "{used}+{amount}");
        for (used, amount, fits) in [(0, 10, true), (9, 1, true), (9, 2, false), (10, 0, false), (12, 0, false)] {
            check(Admission::NeverExceed, used, amount, fits);
        }
        let most = i64::MAX;
        for (used, amount, fits) in
            [(0, 99, true), (9, 99, true), (9, most - 9, true), (9, most - 8, false), (10, 0, false), (12, 1, false)]
        {
            check(Admission::Remaining, used, amount, fits);
        }
    }
}
