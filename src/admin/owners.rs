//! Customers and teams over REST.

use super::Admin;
use super::change::Lens;
use super::error::ApiError;
use super::query::Query;
use super::resource::{Resource, Selection};
use crate::governance::edit::{self, Edit};
use crate::governance::entity::{Customer, Limits, Team};
use crate::governance::time::Timestamp;
use crate::governance::view::View;
use crate::wire::change::Change;
use crate::wire::faults::Faults;
use crate::wire::show::{CustomerRelations, TeamRelations};
use crate::wire::{owner, show};
use serde_json::Value;
use std::sync::Arc;

pub(super) struct Customers;

impl Resource for Customers {
    type Entity = Customer;
    const TITLE: &'static str = "Customer";
    const ONE: &'static str = "customer";
    const MANY: &'static str = "customers";

    fn find<'a>(view: &'a View, id: &str) -> Option<&'a Customer> {
        view.customer(id).map(|governed| &*governed.entity)
    }

    fn read(body: &Value, base: Option<&Customer>, change: &mut Change<'_>, faults: &mut Faults) -> Option<Customer> {
        owner::customer(body, base, change, faults)
    }

    fn id(customer: &Customer) -> &Arc<str> {
        &customer.id
    }

    fn put(_: &Admin, _: &View, customer: Customer) -> Result<Vec<Edit>, ApiError> {
        Ok(vec![Edit::Customer(Arc::new(customer))])
    }

    fn remove(view: &View, customer: &Customer) -> Vec<Edit> {
        edit::remove_customer(view, &customer.id)
    }

    fn limits<'a>(new: &'a Customer, old: &'a Customer) -> Vec<(&'a Limits, &'a Limits)> {
        vec![(&new.limits, &old.limits)]
    }

    fn select(lens: &Lens<'_>, query: &Query) -> Result<Selection, ApiError> {
        let search = query.search();
        let customers = lens.view.customers().map(|governed| &governed.entity);
        let found = customers.filter(|customer| customer.name.to_lowercase().contains(&search));
        let ids = by_age(found.map(|customer| (customer.created_at, Arc::clone(&customer.id))).collect());
        Ok(Selection::of(ids, query.page(None)?))
    }

    fn show(lens: &Lens<'_>, id: &str) -> Option<Value> {
        let customer = lens.view.customer(id)?;
        let relations = CustomerRelations {
            teams: lens.view.teams_of(id).map(|team| &**team).collect(),
            virtual_keys: lens.view.keys_of_customer(id).map(|caller| &**caller).collect(),
        };
        Some(show::customer(customer, relations, &|limit| lens.live(limit)))
    }
}

pub(super) struct Teams;

impl Resource for Teams {
    type Entity = Team;
    const TITLE: &'static str = "Team";
    const ONE: &'static str = "team";
    const MANY: &'static str = "teams";

    fn find<'a>(view: &'a View, id: &str) -> Option<&'a Team> {
        view.team(id).map(|governed| &*governed.entity)
    }

    fn read(body: &Value, base: Option<&Team>, change: &mut Change<'_>, faults: &mut Faults) -> Option<Team> {
        owner::team(body, base, change, faults)
    }

    fn id(team: &Team) -> &Arc<str> {
        &team.id
    }

    fn put(_: &Admin, _: &View, team: Team) -> Result<Vec<Edit>, ApiError> {
        Ok(vec![Edit::Team(Arc::new(team))])
    }

    fn remove(view: &View, team: &Team) -> Vec<Edit> {
        edit::remove_team(view, &team.id)
    }

    fn limits<'a>(new: &'a Team, old: &'a Team) -> Vec<(&'a Limits, &'a Limits)> {
        vec![(&new.limits, &old.limits)]
    }

    fn select(lens: &Lens<'_>, query: &Query) -> Result<Selection, ApiError> {
        let (search, customer) = (query.search(), query.get("customer_id"));
        let teams = lens.view.teams().map(|governed| &governed.entity);
        let found = teams
            .filter(|team| customer.is_none_or(|id| team.customer_id.as_deref() == Some(id)))
            .filter(|team| team.name.to_lowercase().contains(&search));
        let ids = by_age(found.map(|team| (team.created_at, Arc::clone(&team.id))).collect());
        Ok(Selection::of(ids, query.page(None)?))
    }

    fn show(lens: &Lens<'_>, id: &str) -> Option<Value> {
        let team = lens.view.team(id)?;
        let customer = team.entity.customer_id.as_ref().and_then(|id| lens.view.customer(id));
        let relations = TeamRelations {
            customer: customer.map(|customer| &**customer),
            virtual_keys: lens.view.keys_of_team(id).map(|caller| &**caller).collect(),
        };
        Some(show::team(team, relations, &|limit| lens.live(limit)))
    }
}

/// Oldest first, ties by id.
pub(super) fn by_age(mut found: Vec<(Timestamp, Arc<str>)>) -> Vec<Arc<str>> {
    found.sort();
    found.into_iter().map(|(_, id)| id).collect()
}
