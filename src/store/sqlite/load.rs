//! Everything stored, read in a few queries, whatever the number of rows.

use super::limits::{OwnerKind, StoredLimits};
use super::{model_config, owner, price_override, provider, rule, settings, virtual_key};
use crate::governance::edit::Edit;
use crate::governance::entity::ProviderLimits;
use crate::store::StoreError;
use crate::store::record::Loaded;
use crate::store::seal::Sealer;
use rusqlite::Connection;
use std::sync::Arc;

/// What an edit refers to comes before it.
pub(super) fn load(db: &Connection, sealer: &Sealer) -> Result<Loaded, StoreError> {
    // One state of the database, whatever another process writes meanwhile.
    let db = &db.unchecked_transaction()?;
    let mut limits = StoredLimits::load(db)?;
    let (mut edits, mut warnings) = (Vec::new(), Vec::new());
    settings::load(db, &mut edits)?;
    provider::load(db, sealer, &mut edits)?;
    edits.extend(provider_limits(&mut limits));
    model_config::load(db, &mut limits, &mut edits)?;
    owner::load_customers(db, &mut limits, &mut edits)?;
    owner::load_teams(db, &mut limits, &mut edits)?;
    virtual_key::load(db, &mut limits, &mut edits)?;
    rule::load(db, &mut edits, &mut warnings)?;
    price_override::load(db, &mut edits)?;
    Ok(Loaded { edits, highest_config_id: virtual_key::highest_config_id(db)?, warnings })
}

/// Limits on providers have no row of their own: their owner is the provider's name.
fn provider_limits(limits: &mut StoredLimits) -> impl Iterator<Item = Edit> + use<> {
    let of_providers = limits.take_all(OwnerKind::Provider).into_iter();
    of_providers.map(|(provider, limits)| Edit::ProviderLimits(Arc::new(ProviderLimits { provider: provider.into(), limits })))
}
