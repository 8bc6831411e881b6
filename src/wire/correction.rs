//! What became known of a ledger entry whose process died: the body of a correction.

use super::faults::Faults;
use super::read::{Given, Object};
use crate::governance::money::Nanos;
use serde_json::Value;

/// No call costs more, in nano-dollars (72 million dollars).
const COST_MOST: i64 = 72_000_000_000_000_000;

/// No call uses more.
const TOKENS_MOST: i64 = 1 << 56;

/// What the call really came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Correction {
    pub cost: Nanos,
    /// Absent: as it stands.
    pub input_tokens: Option<i64>,
    pub output_tokens: Option<i64>,
}

/// Reads the body. `None`: it has faults.
pub fn correction(body: &Value, faults: &mut Faults) -> Option<Correction> {
    let object = Object::of(body, "", faults)?;
    if matches!(object.raw("cost"), Given::Absent | Given::Null) {
        faults.add("cost", "cost is required: what the provider billed for the call, in dollars");
    }
    let cost = object.money("cost", faults).value();
    let cost = cost.filter(|cost| {
        let fits = cost.get() <= COST_MOST;
        if !fits {
            faults.add("cost", "is more than a call can cost");
        }
        fits
    });
    let mut tokens = |name: &str| {
        object.integer(name, faults).value().filter(|tokens| {
            let fits = (0..=TOKENS_MOST).contains(tokens);
            if !fits {
                faults.add(name, "is no number of tokens");
            }
            fits
        })
    };
    let (input_tokens, output_tokens) = (tokens("input_tokens"), tokens("output_tokens"));
    Some(Correction { cost: cost?, input_tokens, output_tokens })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn bodies_are_read_or_all_their_faults_told() {
        let check = |body: Value, expected: Result<(i64, Option<i64>, Option<i64>), &str>| {
            let mut faults = Faults::default();
            let read = correction(&body, &mut faults).filter(|_| faults.is_empty());
            let read = read.map(|read| (read.cost.get(), read.input_tokens, read.output_tokens));
            match expected {
                Ok(expected) => assert_eq!((read, faults.is_empty()), (Some(expected), true), "{body} {faults}"),
                Err(paths) => {
                    let told: Vec<&str> = faults.iter().map(|fault| &*fault.path).collect();
                    assert_eq!((read, told.join(" ")), (None, paths.to_owned()), "{body} {faults}");
                }
            }
        };
        check(json!({"cost": 0}), Ok((0, None, None)));
        check(json!({"cost": 0.001_025}), Ok((1_025_000, None, None)));
        check(json!({"cost": 1, "input_tokens": 7, "output_tokens": 0}), Ok((1_000_000_000, Some(7), Some(0))));
        check(json!({"cost": 1, "input_tokens": null}), Ok((1_000_000_000, None, None)));
        check(json!({}), Err("cost"));
        check(json!({"cost": null, "input_tokens": -1}), Err("cost input_tokens"));
        check(json!({"cost": -1, "output_tokens": 1.5}), Err("cost output_tokens"));
        check(json!({"cost": "1"}), Err("cost"));
        check(json!({"cost": 1e9}), Err("cost"));
        check(json!([1]), Err(""));
    }
}
