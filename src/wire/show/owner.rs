//! Customers and teams as administrators see them. Relations are one level deep: what stands in a list has no
//! lists of its own, and nothing shows a virtual key's value.

use super::limits::{Live, insert_hash, insert_limits, insert_times};
use super::virtual_key::nested_key;
use crate::governance::entity::{Customer, Team};
use crate::governance::view::{Caller, Governed};
use serde_json::{Map, Value};

/// What belongs to a customer.
#[derive(Debug, Default)]
pub struct CustomerRelations<'a> {
    pub teams: Vec<&'a Governed<Team>>,
    /// The customer's own, not those of its teams.
    pub virtual_keys: Vec<&'a Caller>,
}

/// Whom a team belongs to, and what belongs to it.
#[derive(Debug, Default)]
pub struct TeamRelations<'a> {
    pub customer: Option<&'a Governed<Customer>>,
    pub virtual_keys: Vec<&'a Caller>,
}

pub fn customer(customer: &Governed<Customer>, relations: CustomerRelations<'_>, live: Live<'_>) -> Value {
    let mut object = customer_members(customer, live);
    let teams = relations.teams.into_iter().map(|team| nested_team(team, live));
    object.insert("teams".into(), teams.collect());
    let keys = relations.virtual_keys.into_iter().map(|caller| nested_key(caller, live));
    object.insert("virtual_keys".into(), keys.collect());
    Value::Object(object)
}

pub fn team(team: &Governed<Team>, relations: TeamRelations<'_>, live: Live<'_>) -> Value {
    let mut object = team_members(team, live);
    if let Some(customer) = relations.customer {
        object.insert("customer".into(), nested_customer(customer, live));
    }
    let keys = relations.virtual_keys.into_iter().map(|caller| nested_key(caller, live));
    object.insert("virtual_keys".into(), keys.collect());
    Value::Object(object)
}

/// Without its lists.
pub(super) fn nested_customer(customer: &Governed<Customer>, live: Live<'_>) -> Value {
    Value::Object(customer_members(customer, live))
}

/// Without its lists.
pub(super) fn nested_team(team: &Governed<Team>, live: Live<'_>) -> Value {
    Value::Object(team_members(team, live))
}

fn customer_members(customer: &Governed<Customer>, live: Live<'_>) -> Map<String, Value> {
    let entity = &*customer.entity;
    let mut object = Map::new();
    object.insert("id".into(), (*entity.id).into());
    object.insert("name".into(), entity.name.as_str().into());
    insert_limits(&mut object, &entity.limits, &customer.limits, live);
    insert_hash(&mut object, &entity.config_hash);
    insert_times(&mut object, entity.created_at, entity.updated_at);
    object
}

fn team_members(team: &Governed<Team>, live: Live<'_>) -> Map<String, Value> {
    let entity = &*team.entity;
    let mut object = Map::new();
    object.insert("id".into(), (*entity.id).into());
    object.insert("name".into(), entity.name.as_str().into());
    object.insert("customer_id".into(), entity.customer_id.as_deref().into());
    insert_limits(&mut object, &entity.limits, &team.limits, live);
    for (name, free) in [("profile", &entity.profile), ("config", &entity.config), ("claims", &entity.claims)] {
        if let Some(free) = free.as_deref().and_then(|text| serde_json::from_str(text).ok()) {
            object.insert(name.into(), free);
        }
    }
    insert_hash(&mut object, &entity.config_hash);
    insert_times(&mut object, entity.created_at, entity.updated_at);
    object
}
