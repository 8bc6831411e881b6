//! What many entries have in common, written once and named by a number in each: who asked whom for what, which
//! limits it was charged to, and by which prices.
//!
//! Invariant: a number that is remembered here is in the database for good. Whoever rolls a transaction back
//! must `forget`.

use super::row::{execute, find, json};
use crate::governance::money::Rate;
use crate::governance::view::LimitKey;
use crate::state::outbox::{CallTag, Entry};
use crate::store::StoreError;
use crate::store::question::PRICED;
use rusqlite::{Transaction, params};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Combinations remembered; looking one up again costs a moment.
const REMEMBERED_MAX: usize = 16_384;
/// Models that a key's calls to one provider are told apart by in sums. Callers name models; sums by day stay
/// for ever, so what names they try must not make them grow without end.
pub(super) const MODELS_MAX: i64 = 1_000;

/// Numbers given or found so far.
#[derive(Debug, Default)]
pub(super) struct Interned {
    accounts: HashMap<Account, i64>,
    charges: HashMap<String, i64>,
    prices: HashMap<[Rate; PRICED.len()], i64>,
    /// The first combination of limits that is new in this transaction.
    first_new_charge: Option<i64>,
    text: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Account {
    virtual_key: Option<Arc<str>>,
    team: Option<Arc<str>>,
    customer: Option<Arc<str>>,
    provider: Arc<str>,
    model: Arc<str>,
}

impl Interned {
    /// A transaction begins.
    pub(super) fn begin(&mut self) {
        self.first_new_charge = None;
        let most = self.accounts.len().max(self.charges.len()).max(self.prices.len());
        if most > REMEMBERED_MAX {
            self.forget();
        }
    }

    pub(super) fn forget(&mut self) {
        *self = Interned::default();
    }

    /// Combinations of limits from this number on are of this transaction.
    pub(super) fn first_new_charge(&self) -> Option<i64> {
        self.first_new_charge
    }

    pub(super) fn account(&mut self, tx: &Transaction<'_>, tag: &CallTag) -> Result<i64, StoreError> {
        let CallTag { virtual_key, team, customer, provider, model, .. } = tag.clone();
        let account = Account { virtual_key, team, customer, provider, model };
        if let Some(known) = self.accounts.get(&account) {
            return Ok(*known);
        }
        let number = account.number(tx)?;
        self.accounts.insert(account, number);
        Ok(number)
    }

    /// The rates that the entry was charged by; absent if it has no price.
    pub(super) fn price(&mut self, tx: &Transaction<'_>, entry: &Entry) -> Result<Option<i64>, StoreError> {
        let Some(rates) = entry.tag.price.as_ref().map(|price| price.applied(&entry.usage)) else { return Ok(None) };
        if let Some(known) = self.prices.get(&rates) {
            return Ok(Some(*known));
        }
        let named: BTreeMap<&str, u64> = PRICED.into_iter().zip(rates.map(Rate::get)).collect();
        let text = json(&named);
        let number = match find(tx, "SELECT id FROM ledger_prices WHERE rates = ?1", [&text])? {
            Some(known) => known,
            None => {
                execute(tx, "INSERT INTO ledger_prices (rates) VALUES (?1)", [&text])?;
                tx.last_insert_rowid()
            }
        };
        self.prices.insert(rates, number);
        Ok(Some(number))
    }

    /// Absent: no limit applied.
    pub(super) fn charge(&mut self, tx: &Transaction<'_>, entry: &Entry) -> Result<Option<i64>, StoreError> {
        let keys = || entry.deltas.iter().map(|delta| delta.cell.key());
        self.text.clear();
        keys().for_each(|key| name(&mut self.text, key));
        if self.text.is_empty() {
            return Ok(None);
        }
        if let Some(known) = self.charges.get(&*self.text) {
            return Ok(Some(*known));
        }
        let (number, is_new) = charge_number(tx, &self.text, keys())?;
        if is_new {
            self.first_new_charge.get_or_insert(number);
        }
        self.charges.insert(self.text.clone(), number);
        Ok(Some(number))
    }
}

/// The number of a combination of limits, for whoever does this once; absent of none.
pub(super) fn charge_of(tx: &Transaction<'_>, keys: &[&LimitKey]) -> Result<Option<i64>, StoreError> {
    let mut text = String::new();
    keys.iter().for_each(|key| name(&mut text, key));
    if keys.is_empty() {
        Ok(None)
    } else {
        charge_number(tx, &text, keys.iter().copied()).map(|(number, _)| Some(number))
    }
}

/// Adds a limit to the text that stands for several; `charge::limits` reads it.
fn name(text: &mut String, key: &LimitKey) {
    text.push_str(key.measure.as_str());
    text.push(' ');
    text.push_str(&key.id);
    text.push('\n');
}

/// The number that a combination has, or a new one, which is told.
fn charge_number<'a>(
    tx: &Transaction<'_>,
    text: &str,
    keys: impl Iterator<Item = &'a LimitKey>,
) -> Result<(i64, bool), StoreError> {
    if let Some(known) = find(tx, "SELECT id FROM ledger_charges WHERE limits = ?1", [text])? {
        return Ok((known, false));
    }
    execute(tx, "INSERT INTO ledger_charges (limits) VALUES (?1)", [text])?;
    let number = tx.last_insert_rowid();
    for key in keys {
        execute(
            tx,
            "INSERT OR IGNORE INTO ledger_charge_limits (limit_id, measure, charge) VALUES (?1, ?2, ?3)",
            params![key.id, key.measure.as_str(), number],
        )?;
    }
    Ok((number, true))
}

impl Account {
    /// The number that it has, or a new one.
    fn number(&self, tx: &Transaction<'_>) -> Result<i64, StoreError> {
        if let Some(known) = self.known(tx, &self.model)? {
            return Ok(known);
        }
        let key = none_as_empty(&self.virtual_key);
        let models = "SELECT count(*) FROM ledger_accounts WHERE virtual_key_id = ?1 AND provider = ?2";
        let models: i64 = find(tx, models, params![key, self.provider])?.unwrap_or(0);
        let model = if models < MODELS_MAX { &*self.model } else { "" };
        if let Some(known) = self.known(tx, model)? {
            return Ok(known);
        }
        execute(
            tx,
            "INSERT INTO ledger_accounts (virtual_key_id, team_id, customer_id, provider, model)
             VALUES (?1, ?2, ?3, ?4, ?5)",
            params![key, none_as_empty(&self.team), none_as_empty(&self.customer), self.provider, model],
        )?;
        Ok(tx.last_insert_rowid())
    }

    fn known(&self, tx: &Transaction<'_>, model: &str) -> Result<Option<i64>, StoreError> {
        find(
            tx,
            "SELECT id FROM ledger_accounts
             WHERE virtual_key_id = ?1 AND provider = ?2 AND model = ?3 AND team_id = ?4 AND customer_id = ?5",
            params![
                none_as_empty(&self.virtual_key),
                self.provider,
                model,
                none_as_empty(&self.team),
                none_as_empty(&self.customer)
            ],
        )
    }
}

fn none_as_empty(id: &Option<Arc<str>>) -> &str {
    id.as_deref().unwrap_or_default()
}
