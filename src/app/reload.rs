//! The config file, applied at start and again whenever the operator asks.
//!
//! Invariant: what cannot be applied whole changes nothing.

use super::StartError;
use crate::admin::audit;
use crate::admin::basic_digest;
use crate::config::{self, Fault, Settings};
use crate::governance::edit::Edit;
use crate::governance::secret::Secret;
use crate::governance::view::{LimitKey, View};
use crate::state::{Balance, Snapshot, State, new_virtual_key_value};
use crate::store::{Loaded, Record, Store, StoreError};
use crate::telemetry::{Metrics, ReloadStatus};
use crate::wire::declared::{Around, Report, reconcile};
use crate::wire::faults::{Fault as Declaring, Faults};
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
    ledger: String,
}

impl Fixed {
    fn of(settings: &Settings) -> Fixed {
        // Secrets say nothing in `Debug`, so a changed one is not seen; everything else is.
        Fixed {
            server: format!("{:?}", settings.server),
            admin: format!("{:?}", settings.admin),
            store: format!("{:?}", settings.store),
            ledger: format!("{:?}", settings.ledger),
        }
    }
}

/// Why a file was not brought into force.
#[derive(Debug, thiserror::Error)]
pub enum Unapplied {
    #[error("{0}")]
    Store(#[from] StoreError),
    /// It refers to what is not there, or clashes with what is.
    #[error("{0}")]
    Faults(Faults),
}

impl Unapplied {
    fn lines(&self) -> Vec<String> {
        match self {
            Unapplied::Store(error) => vec![error.to_string()],
            Unapplied::Faults(faults) => faults.iter().map(Declaring::to_string).collect(),
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

    /// The first view of this process: what is stored, and what the file declares over it. Returns the
    /// balances that its cells began with.
    pub(super) fn apply_first(&self, settings: &Settings) -> Result<HashMap<LimitKey, Balance>, StartError> {
        *self.fixed.lock().unwrap_or_else(PoisonError::into_inner) = Some(Fixed::of(settings));
        let opening = self.store.balances()?;
        let Loaded { edits, highest_config_id, warnings } = self.store.load()?;
        warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        self.state.config_ids_after(highest_config_id);
        // It is in the store already.
        self.state.change(&opening, |_| Ok::<_, Unapplied>((edits, ())), |_, _, _, ()| Ok(()))?;
        self.apply(settings, &opening)?;
        if self.state.snapshot().view.providers().len() == 0 {
            tracing::warn!("no provider is configured: every call will be refused");
        }
        Ok(opening)
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
        let applied =
            self.store.balances().map_err(Unapplied::from).and_then(|opening| self.apply(&settings, &opening));
        match applied {
            Ok(report) => ReloadOutcome::Applied {
                created: report.created,
                updated: report.updated,
                needs_restart: self.changed_for_restart(&settings),
                warnings: settings.warnings,
            },
            Err(error) => ReloadOutcome::Refused(error.lines()),
        }
    }

    /// Brings what the file declares into the store and into force, in one change.
    fn apply(&self, settings: &Settings, opening: &HashMap<LimitKey, Balance>) -> Result<Report, Unapplied> {
        let plan = |snapshot: &Snapshot| self.plan(settings, snapshot);
        let commit = |before: &Snapshot, after: &View, edits: &[Edit], report: Report| {
            let audit = audit::lines(&before.view, after, edits);
            if !edits.is_empty() {
                let at = self.state.clock.now();
                let record = Record { actor: "config file".to_owned(), at, audit, replay: None };
                self.store.apply(edits, &record)?;
                audit::tell(&record.actor, &record.audit);
            }
            Ok(report)
        };
        self.state.change(opening, plan, commit)
    }

    fn plan(&self, settings: &Settings, snapshot: &Snapshot) -> Result<(Vec<Edit>, Report), Unapplied> {
        let now = self.state.clock.now();
        let hasher = &self.state.hasher;
        let mut around = Around {
            now,
            new_id: &mut || uuid::Uuid::new_v4().to_string(),
            new_value: &mut || Secret::new(new_virtual_key_value()),
            env: &|name| std::env::var(name).ok(),
            digest: &|value| hasher.digest(value),
            basic_digest: &|pair| basic_digest(hasher, pair.as_bytes()),
            trusting: false,
        };
        let mut faults = Faults::default();
        let (mut edits, report) = reconcile(&snapshot.view, &settings.declared, &mut around, &mut faults);
        if !faults.is_empty() {
            return Err(Unapplied::Faults(faults));
        }
        edits.push(Edit::Policy(settings.policy.clone()));
        edits.push(Edit::Catalog(Arc::clone(&settings.catalog)));
        Ok((edits, report))
    }

    fn changed_for_restart(&self, settings: &Settings) -> Vec<&'static str> {
        let fixed = self.fixed.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(before), after) = (fixed.as_ref(), Fixed::of(settings)) else { return Vec::new() };
        let sections = [
            ("server", before.server != after.server),
            ("admin", before.admin != after.admin),
            ("store", before.store != after.store),
            ("ledger", before.ledger != after.ledger),
        ];
        sections.into_iter().filter_map(|(name, changed)| changed.then_some(name)).collect()
    }
}
