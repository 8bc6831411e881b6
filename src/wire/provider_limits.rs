//! Limits on a provider as bodies write them.

use super::change::Change;
use super::faults::Faults;
use super::limits;
use super::read::Object;
use crate::governance::entity::Limits;
use serde_json::Value;

/// The limits of `provider`, which are none to begin with. Of use only if no fault was added; empty where the
/// body took the last one away.
pub fn provider_limits(
    body: &Value,
    provider: &str,
    base: &Limits,
    change: &mut Change<'_>,
    faults: &mut Faults,
) -> Option<Limits> {
    let body = Object::of(body, "", faults)?;
    // Answers name it, and what was read can be written back: to the same provider.
    if let Some(other) = body.text("provider", faults).value().filter(|name| !name.is_empty() && *name != provider) {
        faults.add(body.path("provider"), format!("these are the limits of '{provider}', not of '{other}'"));
    }
    Some(limits::read(&body, Some(base), change, faults))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::change::fixture::{NOW, owned, read_at};
    use serde_json::json;

    #[test]
    fn limits_are_set_merged_and_removed() {
        let read = |base: &Limits, body: Value| {
            read_at(NOW, false, |change, faults| provider_limits(&body, "openai", base, change, faults))
        };
        let set = read(
            &Limits::default(),
            json!({"budget": {"max_limit": 1, "reset_duration": "1d"}, "rate_limit": {"token_max_limit": 1, "token_reset_duration": "1h"}}),
        )
        .unwrap();
        assert_eq!((set.budgets.len(), set.rate_limit.is_some()), (1, true));
        assert_eq!(read(&set, json!({"provider": "openai"})), Ok(set.clone()));
        assert_eq!(read(&set, json!({"budget": {}, "rate_limit": {}})), Ok(Limits::default()));
        assert_eq!(
            read(&set, json!({"provider": "local", "budget": {"max_limit": 0}})),
            Err(owned(&[
                "provider: these are the limits of 'openai', not of 'local'",
                "budget.max_limit: budget max limit cannot be negative or zero: 0.00",
            ]))
        );
        assert_eq!(read(&set, json!("x")), Err(owned(&["must be an object, not a string"])));
    }
}
