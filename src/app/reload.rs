//! The config file, applied at start and again whenever the operator asks.
//!
//! Invariant: what cannot be applied whole changes nothing.

use super::StartError;
use crate::config::{self, Fault, Settings};
use crate::governance::view::Declared;
use crate::governance::view::LimitKey;
use crate::state::{Balance, State};
use crate::store::{ApplyReport, Store, StoreError};
use crate::telemetry::{Metrics, ReloadStatus};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// Reads the file again and applies what may change while serving.
pub struct Reloader {
    path: Option<PathBuf>,
    state: Arc<State>,
    store: Arc<Store>,
    metrics: Metrics,
    status: Arc<ReloadStatus>,
    /// What can only change by a restart, as it was at the start.
    fixed: Mutex<Option<Fixed>>,
}

/// Settings that are bound to sockets, threads and files.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Fixed {
    server: String,
    admin: String,
    store: String,
}

impl Fixed {
    fn of(settings: &Settings) -> Fixed {
        // Secrets say nothing in `Debug`, so a changed one is not seen; everything else is.
        Fixed {
            server: format!("{:?}", settings.server),
            admin: format!("{:?}", settings.admin),
            store: format!("{:?}", settings.store),
        }
    }
}

/// What a reload did.
#[derive(Debug)]
pub enum ReloadOutcome {
    Applied {
        created: Vec<String>,
        updated: Vec<String>,
        needs_restart: Vec<&'static str>,
        warnings: Vec<String>,
    },
    /// Nothing changed; each line says why.
    Refused(Vec<String>),
}

impl Reloader {
    pub(super) fn new(path: Option<PathBuf>, state: Arc<State>, store: Arc<Store>, metrics: Metrics) -> Reloader {
        Reloader { path, state, store, metrics, status: Arc::default(), fixed: Mutex::default() }
    }

    /// Shared with whoever reports readiness.
    pub(super) fn status(&self) -> Arc<ReloadStatus> {
        Arc::clone(&self.status)
    }

    /// The first view of this process, and the balances that its cells began with.
    pub(super) fn apply_first(&self, settings: &Settings) -> Result<HashMap<LimitKey, Balance>, StartError> {
        *self.fixed.lock().unwrap_or_else(PoisonError::into_inner) = Some(Fixed::of(settings));
        Ok(self.apply(settings)?.1)
    }

    /// Reads the file and applies it, or says what is wrong with it.
    pub fn reload(&self) -> ReloadOutcome {
        let outcome = self.try_reload();
        match &outcome {
            ReloadOutcome::Applied { created, updated, needs_restart, warnings } => {
                warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
                if !needs_restart.is_empty() {
                    tracing::warn!(
                        sections = needs_restart.join(", "),
                        "these sections changed; they take effect with a restart"
                    );
                }
                tracing::info!(created = created.len(), updated = updated.len(), "configuration reloaded");
                self.metrics.reloads.with_label_values(&["applied"]).inc();
                self.metrics.reload_good.set(1);
                self.status.good();
            }
            ReloadOutcome::Refused(reasons) => {
                reasons.iter().for_each(|reason| tracing::error!("configuration not reloaded: {reason}"));
                self.metrics.reloads.with_label_values(&["refused"]).inc();
                self.metrics.reload_good.set(0);
                self.status.refused(reasons.first().cloned().unwrap_or_default());
            }
        }
        outcome
    }

    fn try_reload(&self) -> ReloadOutcome {
        let Some(path) = &self.path else {
            return ReloadOutcome::Refused(vec!["this process has no config file".to_owned()]);
        };
        let settings = match config::load(path) {
            Ok(settings) => settings,
            Err(faults) => return ReloadOutcome::Refused(faults.iter().map(Fault::to_string).collect()),
        };
        match self.apply(&settings) {
            Ok((report, _)) => ReloadOutcome::Applied {
                created: report.created,
                updated: report.updated,
                needs_restart: self.changed_for_restart(&settings),
                warnings: settings.warnings,
            },
            Err(error) => ReloadOutcome::Refused(vec![error.to_string()]),
        }
    }

    /// Brings the file's objects into the store, and publishes the view of everything stored.
    fn apply(&self, settings: &Settings) -> Result<(ApplyReport, HashMap<LimitKey, Balance>), StoreError> {
        let now = self.state.clock.now();
        let opening = self.store.balances()?;
        let report = self.state.change(&opening, |declared: &mut Declared| {
            let keys = settings.virtual_keys.iter().map(|key| (key.body.clone(), key.hash.clone()));
            let report = self.store.apply_declared(keys, now)?;
            declared.policy = settings.policy.clone();
            declared.catalog = Arc::clone(&settings.catalog);
            declared.providers =
                settings.providers.iter().map(|provider| (Arc::clone(&provider.name), Arc::clone(provider))).collect();
            let keys = self.store.virtual_keys()?;
            declared.virtual_keys =
                keys.into_iter().map(|(digest, key)| (Arc::clone(&key.id), (digest, Arc::new(key)))).collect();
            Ok::<_, StoreError>(report)
        })?;
        report.restarts.iter().for_each(|restart| self.state.restart(&restart.key, restart.at));
        Ok((report, opening))
    }

    fn changed_for_restart(&self, settings: &Settings) -> Vec<&'static str> {
        let fixed = self.fixed.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(before), after) = (fixed.as_ref(), Fixed::of(settings)) else { return Vec::new() };
        let sections = [
            ("server", before.server != after.server),
            ("admin", before.admin != after.admin),
            ("store", before.store != after.store),
        ];
        sections.into_iter().filter_map(|(name, changed)| changed.then_some(name)).collect()
    }
}
