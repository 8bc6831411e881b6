//! The config file, applied at start and again whenever the operator asks.
//!
//! Invariant: what cannot be applied whole changes nothing.

use super::StartError;
use crate::admin::Admin;
use crate::config::{self, Fault, Settings};
use crate::governance::view::Declared;
use crate::state::State;
use crate::store::{Store, StoreError};
use crate::telemetry::Metrics;
use once_cell::sync::OnceCell;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// Reads the file again and applies what may change while serving.
pub struct Reloader {
    path: Option<PathBuf>,
    state: Arc<State>,
    store: Arc<Store>,
    metrics: Metrics,
    /// Told how each reload went, for its readiness page.
    admin: OnceCell<Admin>,
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
        Reloader { path, state, store, metrics, admin: OnceCell::new(), fixed: Mutex::default() }
    }

    /// Whom to tell how reloads went.
    pub(super) fn tell(&self, admin: Admin) {
        // Set once, by the only caller.
        let _ = self.admin.set(admin);
    }

    fn note(&self, outcome: Result<(), String>) {
        let word = if outcome.is_ok() { "applied" } else { "refused" };
        self.metrics.reloads.with_label_values(&[word]).inc();
        self.metrics.reload_good.set(i64::from(outcome.is_ok()));
        if let Some(admin) = self.admin.get() {
            admin.reloaded(outcome);
        }
    }

    /// The first view of this process.
    pub(super) fn apply_first(&self, settings: &Settings) -> Result<(), StartError> {
        *self.fixed.lock().unwrap_or_else(PoisonError::into_inner) = Some(Fixed::of(settings));
        self.apply(settings).map(drop).map_err(StartError::Store)
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
                self.note(Ok(()));
            }
            ReloadOutcome::Refused(reasons) => {
                reasons.iter().for_each(|reason| tracing::error!("configuration not reloaded: {reason}"));
                self.note(Err(reasons.first().cloned().unwrap_or_default()));
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
            Ok(report) => ReloadOutcome::Applied {
                created: report.created,
                updated: report.updated,
                needs_restart: self.changed_for_restart(&settings),
                warnings: settings.warnings,
            },
            Err(error) => ReloadOutcome::Refused(vec![error.to_string()]),
        }
    }

    /// Brings the file's objects into the store, and publishes the view of everything stored.
    fn apply(&self, settings: &Settings) -> Result<crate::store::ApplyReport, StoreError> {
        let now = self.state.clock.now();
        let opening = self.store.balances()?;
        let keys = settings.virtual_keys.iter().map(|key| (key.draft.clone(), key.hash.clone())).collect();
        let report = self.state.change(&opening, |declared: &mut Declared| {
            let report = self.store.reconcile(keys, now)?;
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
        Ok(report)
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
