//! Customers and teams as bodies write them.

use super::change::Change;
use super::faults::Faults;
use super::limits;
use super::read::{Given, Object};
use crate::governance::entity::{Customer, Team};
use serde_json::Value;
use std::sync::Arc;

/// A new customer, or `base` with what the body says changed. Of use only if no fault was added.
pub fn customer(
    body: &Value,
    base: Option<&Customer>,
    change: &mut Change<'_>,
    faults: &mut Faults,
) -> Option<Customer> {
    let body = Object::of(body, "", faults)?;
    let name = body.name_or("name", base.map(|base| &*base.name), "Customer name is required", faults);
    let limits = limits::read(&body, base.map(|base| &base.limits), change, faults);
    Some(Customer {
        id: base.map_or_else(|| change.id(&body, faults), |base| Arc::clone(&base.id)),
        name,
        limits,
        config_hash: base.map_or_else(String::new, |base| base.config_hash.clone()),
        created_at: base.map_or(change.now, |base| base.created_at),
        updated_at: change.now,
    })
}

/// A new team, or `base` with what the body says changed. Of use only if no fault was added.
pub fn team(body: &Value, base: Option<&Team>, change: &mut Change<'_>, faults: &mut Faults) -> Option<Team> {
    let body = Object::of(body, "", faults)?;
    let name = body.name_or("name", base.map(|base| &*base.name), "Team name is required", faults);
    let customer_id = read_customer_id(&body, base.and_then(|base| base.customer_id.clone()), change, faults);
    let limits = limits::read(&body, base.map(|base| &base.limits), change, faults);
    let mut free =
        |name: &str, old: Option<&Option<String>>| body.free_object(name, faults).or_keep(old.cloned().flatten());
    let profile = free("profile", base.map(|base| &base.profile));
    let config = free("config", base.map(|base| &base.config));
    let claims = free("claims", base.map(|base| &base.claims));
    Some(Team {
        id: base.map_or_else(|| change.id(&body, faults), |base| Arc::clone(&base.id)),
        name,
        customer_id,
        limits,
        profile,
        config,
        claims,
        config_hash: base.map_or_else(String::new, |base| base.config_hash.clone()),
        created_at: base.map_or(change.now, |base| base.created_at),
        updated_at: change.now,
    })
}

/// Of a team, null says as little as nothing; `""` takes it out of its customer.
fn read_customer_id(
    body: &Object<'_>,
    old: Option<Arc<str>>,
    change: &Change<'_>,
    faults: &mut Faults,
) -> Option<Arc<str>> {
    match body.text("customer_id", faults) {
        Given::Absent | Given::Null => old,
        Given::Value("") => None,
        Given::Value(id) => {
            if !change.known.customer(id) {
                faults.add(body.path("customer_id"), format!("there is no customer '{id}'"));
            }
            Some(id.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::governance::entity::Limits;
    use crate::wire::change::fixture::{LATER, NOW, owned, read_at};
    use serde_json::json;

    fn customer_over(base: Option<&Customer>, body: &Value) -> Result<Customer, Vec<String>> {
        read_at(LATER, false, |change, faults| customer(body, base, change, faults))
    }

    fn team_over(base: Option<&Team>, body: &Value) -> Result<Team, Vec<String>> {
        read_at(LATER, false, |change, faults| team(body, base, change, faults))
    }

    fn a_team() -> Team {
        let body = json!({
            "id": "t1", "name": "core", "customer_id": "c1", "budget": {"max_limit": 5, "reset_duration": "1d"},
            "profile": {"b": 1, "a": [true]},
        });
        let team = read_at(NOW, true, |change, faults| team(&body, None, change, faults)).unwrap();
        Team { config_hash: "hash".to_owned(), ..team }
    }

    #[test]
    fn a_customer_is_made_and_changed() {
        let made = customer_over(None, &json!({"id": "ignored", "name": "Acme", "teams": 1})).unwrap();
        assert_eq!((&*made.id, &*made.name, made.created_at), ("new-1", "Acme", LATER));
        assert!(made.limits.is_empty() && made.config_hash.is_empty());
        let old = Customer { created_at: NOW, config_hash: "hash".to_owned(), ..made };
        let check = |body: Value, name: &str| {
            let new = customer_over(Some(&old), &body).unwrap();
            assert_eq!(new, Customer { name: name.to_owned(), updated_at: LATER, ..old.clone() }, "{body}");
        };
        check(json!({}), "Acme");
        check(json!({"name": null}), "Acme");
        check(json!({"name": "Acme & Sons", "id": "other", "config_hash": "other"}), "Acme & Sons");
    }

    #[test]
    fn a_team_is_made_and_changed() {
        let old = a_team();
        assert_eq!((&*old.id, old.customer_id.as_deref()), ("t1", Some("c1")));
        assert_eq!(old.profile.as_deref(), Some(r#"{"a":[true],"b":1}"#));
        let check = |body: Value, change: &dyn Fn(&mut Team)| {
            let mut expected = Team { updated_at: LATER, ..old.clone() };
            change(&mut expected);
            assert_eq!(team_over(Some(&old), &body), Ok(expected), "{body}");
        };
        check(json!({}), &|_| {});
        check(json!({"name": null, "customer_id": null, "budget": null}), &|_| {});
        check(json!({"customer_id": ""}), &|team| team.customer_id = None);
        check(json!({"customer_id": "c2"}), &|team| team.customer_id = Some("c2".into()));
        check(json!({"budget": {}}), &|team| team.limits = Limits::default());
        check(json!({"profile": null, "claims": {}}), &|team| {
            team.profile = None;
            team.claims = Some("{}".to_owned());
        });
    }

    #[test]
    fn every_fault_is_named_with_its_path() {
        let check_customer = |base: Option<&Customer>, body: Value, expected: &[&str]| {
            assert_eq!(customer_over(base, &body), Err(owned(expected)), "{body}");
        };
        let old = customer_over(None, &json!({"name": "Acme"})).unwrap();
        check_customer(None, json!([]), &["must be an object, not an array"]);
        for nameless in [json!({}), json!({"name": null}), json!({"name": ""}), json!({"name": " "})] {
            check_customer(None, nameless, &["name: Customer name is required"]);
        }
        check_customer(Some(&old), json!({"name": " "}), &["name: Customer name is required"]);
        check_customer(Some(&old), json!({"name": "a\n"}), &["name: has control characters in it"]);
        check_customer(Some(&old), json!({"name": "x".repeat(256)}), &["name: is longer than 255 characters"]);
        check_customer(
            None,
            json!({"name": 1, "budget": {"max_limit": 0, "reset_duration": "1d"}, "rate_limit": {"token_max_limit": 1}}),
            &[
                "name: must be a string, not a number",
                "budget.max_limit: budget max limit cannot be negative or zero: 0.00",
                "rate_limit.token_reset_duration: Invalid rate limit: rate limit token reset duration is required",
            ],
        );
        let check_team = |base: Option<&Team>, body: Value, expected: &[&str]| {
            assert_eq!(team_over(base, &body), Err(owned(expected)), "{body}");
        };
        check_team(None, json!({}), &["name: Team name is required"]);
        check_team(Some(&a_team()), json!({"name": ""}), &["name: Team name is required"]);
        check_team(
            None,
            json!({"name": "", "customer_id": "c9", "profile": [], "config": "x", "claims": {"a": "x".repeat(65_536)}}),
            &[
                "name: Team name is required",
                "customer_id: there is no customer 'c9'",
                "profile: must be an object, not an array",
                "config: must be an object, not a string",
                "claims: is longer than 65536 bytes",
            ],
        );
    }
}
