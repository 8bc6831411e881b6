//! Limits on a model as bodies write them.

use super::change::Change;
use super::faults::Faults;
use super::limits;
use super::read::{Given, Object};
use crate::governance::entity::ModelConfig;
use serde_json::Value;
use std::sync::Arc;

/// A new model config, or `base` with what the body says changed. Of use only if no fault was added.
pub fn model_config(
    body: &Value,
    base: Option<&ModelConfig>,
    change: &mut Change<'_>,
    faults: &mut Faults,
) -> Option<ModelConfig> {
    let body = Object::of(body, "", faults)?;
    let model_name = body.name_or("model_name", base.map(|base| &*base.model_name), "Model name is required", faults);
    let provider = read_provider(&body, base.and_then(|base| base.provider.as_ref()), change, faults);
    let limits = limits::read(&body, base.map(|base| &base.limits), change, faults);
    Some(ModelConfig {
        id: base.map_or_else(|| change.id(&body, faults), |base| Arc::clone(&base.id)),
        model_name: model_name.into(),
        provider,
        limits,
        config_hash: base.map_or_else(String::new, |base| base.config_hash.clone()),
        created_at: base.map_or(change.now, |base| base.created_at),
        updated_at: change.now,
    })
}

/// Null says as little as nothing; `""` means whoever serves the model. A provider that is not configured any
/// more may be written back, but not chosen anew.
fn read_provider(
    body: &Object<'_>,
    old: Option<&Arc<str>>,
    change: &Change<'_>,
    faults: &mut Faults,
) -> Option<Arc<str>> {
    match body.text("provider", faults) {
        Given::Absent | Given::Null => old.cloned(),
        Given::Value("") => None,
        Given::Value(name) => {
            if old.is_none_or(|old| **old != *name) && !change.known.provider(name) {
                faults.add(body.path("provider"), format!("provider '{name}' is neither built in nor configured"));
            }
            Some(name.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::governance::entity::Limits;
    use crate::wire::change::fixture::{LATER, NOW, owned, read_at};
    use serde_json::json;

    fn read_over(base: Option<&ModelConfig>, body: &Value) -> Result<ModelConfig, Vec<String>> {
        read_at(LATER, false, |change, faults| model_config(body, base, change, faults))
    }

    fn old() -> ModelConfig {
        let body = json!({
            "id": "m", "model_name": "gpt-4o", "provider": "openai", "budget": {"max_limit": 5, "reset_duration": "1d"},
        });
        read_at(NOW, true, |change, faults| model_config(&body, None, change, faults)).unwrap()
    }

    #[test]
    fn one_is_made_and_changed() {
        for everyone in [json!({"model_name": "m"}), json!({"model_name": "m", "provider": ""})] {
            let made = read_over(None, &everyone).unwrap();
            assert_eq!((&*made.id, &*made.model_name, made.provider), ("new-1", "m", None));
        }
        let check = |body: Value, change: &dyn Fn(&mut ModelConfig)| {
            let mut expected = ModelConfig { updated_at: LATER, ..old() };
            change(&mut expected);
            assert_eq!(read_over(Some(&old()), &body), Ok(expected), "{body}");
        };
        check(json!({}), &|_| {});
        check(json!({"model_name": null, "provider": null}), &|_| {});
        check(json!({"provider": ""}), &|config| config.provider = None);
        check(json!({"provider": "local", "model_name": "x"}), &|config| {
            config.provider = Some("local".into());
            config.model_name = "x".into();
        });
        check(json!({"budget": {}}), &|config| config.limits = Limits::default());
    }

    #[test]
    fn a_provider_that_left_may_be_written_back() {
        let old = ModelConfig { provider: Some("gone".into()), ..old() };
        assert_eq!(read_over(Some(&old), &json!({"provider": "gone"})).unwrap().provider, old.provider);
    }

    #[test]
    fn every_fault_is_named_with_its_path() {
        let check = |base: Option<&ModelConfig>, body: Value, expected: &[&str]| {
            assert_eq!(read_over(base, &body), Err(owned(expected)), "{body}");
        };
        check(None, json!(1), &["must be an object, not a number"]);
        check(None, json!({}), &["model_name: Model name is required"]);
        check(Some(&old()), json!({"model_name": ""}), &["model_name: Model name is required"]);
        check(
            None,
            json!({"model_name": " ", "provider": "nope", "rate_limit": {"request_max_limit": 0, "request_reset_duration": "1d"}}),
            &[
                "model_name: Model name is required",
                "provider: provider 'nope' is neither built in nor configured",
                "rate_limit.request_max_limit: Invalid rate limit: rate limit request max limit cannot be negative or zero: 0",
            ],
        );
        check(Some(&old()), json!({"provider": 7}), &["provider: must be a string, not a number"]);
    }
}
