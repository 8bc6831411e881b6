//! Customers and teams as rows.

use super::limits::{self, Owner, OwnerKind, StoredLimits};
use super::row::{each, execute, instant};
use crate::governance::edit::Edit;
use crate::governance::entity::{Customer, Team};
use crate::store::StoreError;
use rusqlite::{Connection, params};
use std::sync::Arc;

pub(super) fn load_customers(
    db: &Connection,
    limits: &mut StoredLimits,
    edits: &mut Vec<Edit>,
) -> Result<(), StoreError> {
    each(db, "SELECT id, name, config_hash, created_at, updated_at FROM customers", |row| {
        let id: Arc<str> = row.get(0)?;
        edits.push(Edit::Customer(Arc::new(Customer {
            name: row.get(1)?,
            limits: limits.take(&Owner::new(OwnerKind::Customer, &id)),
            config_hash: row.get(2)?,
            created_at: instant(row, 3)?,
            updated_at: instant(row, 4)?,
            id,
        })));
        Ok(())
    })
}

pub(super) fn save_customer(db: &Connection, customer: &Customer) -> Result<(), StoreError> {
    let Customer { id, name, limits, config_hash, created_at, updated_at } = customer;
    execute(
        db,
        "INSERT INTO customers (id, name, config_hash, created_at, updated_at) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (id) DO UPDATE SET name = ?2, config_hash = ?3, created_at = ?4, updated_at = ?5",
        params![id, name, config_hash, created_at.millis(), updated_at.millis()],
    )?;
    limits::save(db, &Owner::new(OwnerKind::Customer, id), limits)
}

/// Its limits go with it, by a trigger of the schema.
pub(super) fn remove_customer(db: &Connection, id: &str) -> Result<(), StoreError> {
    execute(db, "DELETE FROM customers WHERE id = ?1", [id]).map(drop)
}

pub(super) fn load_teams(db: &Connection, limits: &mut StoredLimits, edits: &mut Vec<Edit>) -> Result<(), StoreError> {
    let sql = "SELECT id, name, customer_id, profile, config, claims, config_hash, created_at, updated_at FROM teams";
    each(db, sql, |row| {
        let id: Arc<str> = row.get(0)?;
        edits.push(Edit::Team(Arc::new(Team {
            name: row.get(1)?,
            customer_id: row.get(2)?,
            limits: limits.take(&Owner::new(OwnerKind::Team, &id)),
            profile: row.get(3)?,
            config: row.get(4)?,
            claims: row.get(5)?,
            config_hash: row.get(6)?,
            created_at: instant(row, 7)?,
            updated_at: instant(row, 8)?,
            id,
        })));
        Ok(())
    })
}

pub(super) fn save_team(db: &Connection, team: &Team) -> Result<(), StoreError> {
    let Team { id, name, customer_id, limits, profile, config, claims, config_hash, created_at, updated_at } = team;
    execute(
        db,
        "INSERT INTO teams (id, name, customer_id, profile, config, claims, config_hash, created_at, updated_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
         ON CONFLICT (id) DO UPDATE SET name = ?2, customer_id = ?3, profile = ?4, config = ?5, claims = ?6,
            config_hash = ?7, created_at = ?8, updated_at = ?9",
        params![id, name, customer_id, profile, config, claims, config_hash, created_at.millis(), updated_at.millis()],
    )?;
    limits::save(db, &Owner::new(OwnerKind::Team, id), limits)
}

/// Its limits go with it, by a trigger of the schema.
pub(super) fn remove_team(db: &Connection, id: &str) -> Result<(), StoreError> {
    execute(db, "DELETE FROM teams WHERE id = ?1", [id]).map(drop)
}
