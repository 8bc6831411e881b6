//! Everything stored, read in a few queries, whatever the number of rows.

use super::limits::StoredLimits;
use super::{declared, model_config, owner, price_override, provider, provider_limits, rule, settings, virtual_key};
use crate::store::StoreError;
use crate::store::record::Loaded;
use crate::store::seal::Sealer;
use rusqlite::Connection;

/// What an edit refers to comes before it.
pub(super) fn load(db: &Connection, sealer: &Sealer) -> Result<Loaded, StoreError> {
    // One state of the database, whatever another process writes meanwhile.
    let db = &db.unchecked_transaction()?;
    let mut limits = StoredLimits::load(db)?;
    let (mut edits, mut warnings) = (Vec::new(), Vec::new());
    settings::load(db, &mut edits)?;
    declared::load(db, &mut edits)?;
    provider::load(db, sealer, &mut edits, &mut warnings)?;
    provider_limits::load(db, &mut limits, &mut edits)?;
    model_config::load(db, &mut limits, &mut edits)?;
    owner::load_customers(db, &mut limits, &mut edits)?;
    owner::load_teams(db, &mut limits, &mut edits)?;
    virtual_key::load(db, &mut limits, &mut edits)?;
    rule::load(db, &mut edits, &mut warnings)?;
    price_override::load(db, &mut edits)?;
    Ok(Loaded { edits, highest_config_id: virtual_key::highest_config_id(db)?, warnings })
}
