//! Money as integers: `Nanos` for amounts, `Rate` for prices. The only place that rounds.
//!
//! Text and JSON numbers become integers here without passing through a float, so `0.1` means a
//! tenth and nothing beside it.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Sub};

/// An amount of money in billionths of a US dollar. Additions saturate: a balance never wraps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Nanos(i64);

/// A price: trillionths of a US dollar for one unit (a token, a second, a character).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Rate(u64);

/// A sum of prices times units, not yet rounded. One request is rounded once, at the very end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Picos(u128);

/// Why a text is no amount of money.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    #[error("'{0}' is not a decimal number")]
    NotANumber(String),
    #[error("'{0}' is negative")]
    Negative(String),
    #[error("'{0}' is too large")]
    TooLarge(String),
}

const PICOS_PER_NANO: u128 = 1_000;

impl Nanos {
    pub const ZERO: Nanos = Nanos(0);
    pub const MAX: Nanos = Nanos(i64::MAX);

    pub const fn new(nanos: i64) -> Nanos {
        Nanos(nanos)
    }

    pub const fn get(self) -> i64 {
        self.0
    }

    /// Reads dollars written in decimal (`12`, `0.25`, `1e-3`). Below a nano it rounds up.
    pub fn from_dollars(text: &str) -> Result<Nanos, MoneyError> {
        let nanos = decimal(text, 9)?;
        i64::try_from(nanos).map(Nanos).map_err(|_| MoneyError::TooLarge(text.into()))
    }
}

impl Rate {
    pub const ZERO: Rate = Rate(0);

    pub const fn new(picos_per_unit: u64) -> Rate {
        Rate(picos_per_unit)
    }

    pub const fn get(self) -> u64 {
        self.0
    }

    /// Reads dollars per unit, as price tables write them (`2.5e-06`). Below a pico it rounds up.
    pub fn from_dollars(text: &str) -> Result<Rate, MoneyError> {
        let picos = decimal(text, 12)?;
        u64::try_from(picos).map(Rate).map_err(|_| MoneyError::TooLarge(text.into()))
    }

    /// The price of `units`, exactly.
    pub fn times(self, units: u64) -> Picos {
        Picos(u128::from(self.0) * u128::from(units))
    }
}

impl Picos {
    /// Rounds up to whole nanos: the house never loses the fraction, and never more than one nano.
    pub fn round_up(self) -> Nanos {
        let nanos = self.0.div_ceil(PICOS_PER_NANO);
        Nanos(i64::try_from(nanos).unwrap_or(i64::MAX))
    }
}

impl Add for Picos {
    type Output = Picos;
    fn add(self, other: Picos) -> Picos {
        Picos(self.0.saturating_add(other.0))
    }
}

impl Sum for Picos {
    fn sum<I: Iterator<Item = Picos>>(parts: I) -> Picos {
        parts.fold(Picos::default(), Add::add)
    }
}

impl Add for Nanos {
    type Output = Nanos;
    fn add(self, other: Nanos) -> Nanos {
        Nanos(self.0.saturating_add(other.0))
    }
}

impl AddAssign for Nanos {
    fn add_assign(&mut self, other: Nanos) {
        *self = *self + other;
    }
}

impl Sub for Nanos {
    type Output = Nanos;
    fn sub(self, other: Nanos) -> Nanos {
        Nanos(self.0.saturating_sub(other.0))
    }
}

/// Dollars in decimal, without trailing zeros and not rounded.
impl fmt::Display for Picos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const PICOS_PER_DOLLAR: u128 = 1_000_000_000_000;
        let (whole, fraction) = (self.0 / PICOS_PER_DOLLAR, self.0 % PICOS_PER_DOLLAR);
        if fraction == 0 {
            return write!(f, "{whole}");
        }
        let digits = format!("{fraction:012}");
        write!(f, "{whole}.{}", digits.trim_end_matches('0'))
    }
}

/// Dollars in decimal, without trailing zeros: `1.25`, `0.000431`, `3`.
impl fmt::Display for Nanos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let (whole, fraction) = (self.0.unsigned_abs() / 1_000_000_000, self.0.unsigned_abs() % 1_000_000_000);
        if fraction == 0 {
            return write!(f, "{sign}{whole}");
        }
        let digits = format!("{fraction:09}");
        write!(f, "{sign}{whole}.{}", digits.trim_end_matches('0'))
    }
}

/// As large as those of the floats that JSON usually holds.
const EXPONENT_MAX: i32 = 400;

/// `text` times 10^`scale` as an integer, rounded up. Bounded: 64 characters, exponents to ±400.
pub(in crate::governance) fn decimal(text: &str, scale: i32) -> Result<u128, MoneyError> {
    let bad = || MoneyError::NotANumber(text.chars().take(64).collect());
    if text.len() > 64 {
        return Err(bad());
    }
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().map_err(|_| bad())?),
        None => (text, 0),
    };
    if let Some(digits) = mantissa.strip_prefix('-') {
        let zero = digits.chars().all(|c| c == '0' || c == '.');
        return if zero && mantissa.len() > 1 { Ok(0) } else { Err(MoneyError::Negative(text.into())) };
    }
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = || whole.bytes().chain(fraction.bytes());
    if whole.is_empty() || !digits().all(|d| d.is_ascii_digit()) || exponent.abs() > EXPONENT_MAX {
        return Err(bad());
    }
    let mut number: u128 = 0;
    for digit in digits() {
        number = number
            .checked_mul(10)
            .and_then(|n| n.checked_add(u128::from(digit - b'0')))
            .ok_or_else(|| MoneyError::TooLarge(text.into()))?;
    }
    let shift = scale + exponent - i32::try_from(fraction.len()).map_err(|_| bad())?;
    let power = 10u128.checked_pow(shift.unsigned_abs());
    match (power, shift >= 0) {
        (Some(power), true) => number.checked_mul(power).ok_or_else(|| MoneyError::TooLarge(text.into())),
        (Some(power), false) => Ok(number.div_ceil(power)),
        (None, true) if number > 0 => Err(MoneyError::TooLarge(text.into())),
        (None, true) => Ok(0),
        (None, false) => Ok(u128::from(number > 0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn dollars_are_read_exactly() {
        let check = |text: &str, nanos: i64| assert_eq!(Nanos::from_dollars(text), Ok(Nanos(nanos)), "{text}");
        check("0", 0);
        check("0.1", 100_000_000);
        check("10", 10_000_000_000);
        check("1e-3", 1_000_000);
        check("2.5E2", 250_000_000_000);
        check("0.0000000001", 1);
        check("5e-324", 1);
        check("0e-400", 0);
        check("-0.0", 0);
        for bad in ["", "-1", "abc", "1.2.3", ".5", "1e99", "NaN", "9999999999999999999", "1e", "1e-401", "5e324"] {
            assert!(Nanos::from_dollars(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn rates_keep_the_smallest_list_price() {
        assert_eq!(Rate::from_dollars("2.5e-06"), Ok(Rate(2_500_000)));
        assert_eq!(Rate::from_dollars("5e-09"), Ok(Rate(5_000)));
    }

    #[test]
    fn a_request_is_rounded_once_and_up() {
        assert_eq!((Rate(1).times(1) + Rate(1).times(1)).round_up(), Nanos(1));
        assert_eq!(Rate(1_000).times(3).round_up(), Nanos(3));
        assert_eq!(Rate(u64::MAX).times(u64::MAX).round_up(), Nanos::MAX);
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(nanos in 0..i64::MAX) {
            prop_assert_eq!(Nanos::from_dollars(&Nanos(nanos).to_string()), Ok(Nanos(nanos)));
        }

        #[test]
        fn rounding_loses_less_than_a_nano(rate in 0..1_000_000_000u64, units in 0..10_000_000u64) {
            let exact = Rate(rate).times(units).0;
            let rounded = u128::try_from(Rate(rate).times(units).round_up().0).unwrap() * PICOS_PER_NANO;
            prop_assert!(rounded >= exact && rounded - exact < PICOS_PER_NANO);
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,80}") {
            let _ = Nanos::from_dollars(&text);
        }
    }
}
