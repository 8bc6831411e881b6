//! The administrators' listener: the governance API, health and metrics.
//!
//! Handlers are thin. Whatever touches the store runs off the runtime; a change is made durable and published
//! through `State::change`, so it holds for the next request and never for half of one.

pub mod audit;
mod auth;
mod body;
mod change;
mod config;
pub mod docs;
mod error;
mod explain;
mod failures;
mod health;
mod ledger;
mod ledger_query;
mod limits;
mod model_configs;
mod owners;
mod price_overrides;
mod providers;
mod query;
mod resource;
mod rules;
#[cfg(test)]
mod tests;
mod virtual_keys;

use crate::governance::secret::Secret;
use crate::state::State;
use crate::store::writer::Health;
use crate::store::{Store, StoreError};
use crate::telemetry::{Metrics, ReloadStatus};
use auth::Guard;
pub use auth::basic_digest;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodRouter, get, post, put};
use error::ApiError;
use failures::Failures;
use model_configs::ModelConfigs;
use owners::{Customers, Teams};
use price_overrides::PricingOverrides;
use resource::{collection, single};
use rules::RoutingRules;
use std::future::IntoFuture;
use std::io;
use std::net::TcpListener;
use std::ops::Deref;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{Semaphore, oneshot};
use virtual_keys::VirtualKeys;

/// The self-service page of a virtual key's holder, open to whoever holds one.
pub const QUOTA_PATH: &str = "/api/governance/virtual-keys/quota";
/// No body of this API has a reason to be longer.
const BODY_BYTES_MAX: usize = 1 << 20;
/// How long a question to the ledger waits for those before it.
const QUESTION_WAIT: Duration = Duration::from_secs(30);
/// How long requests may still take once the listener was told to stop.
const DRAIN: Duration = Duration::from_secs(5);

/// What the handlers share.
#[derive(Debug, Clone)]
pub struct Admin(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    parts: Parts,
    /// Questions to the ledger wait here for their turn, where they take no thread.
    questions: Arc<Semaphore>,
    guard: Guard,
    failures: Failures,
}

/// What the listener is made of, and what an operator decided about it.
#[derive(Debug)]
pub struct Parts {
    /// With its first snapshot published.
    pub state: Arc<State>,
    pub store: Arc<Store>,
    pub metrics: Metrics,
    /// The writer's.
    pub ledger: Arc<Health>,
    pub reload: Arc<ReloadStatus>,
    /// Absent only while the listener is bound to loopback, which is checked where it is bound.
    pub token: Option<Secret>,
    /// Whether `/metrics` wants the token, too.
    pub metrics_auth: bool,
    /// Origins whose pages may call.
    pub allowed_origins: Vec<String>,
    /// Whether every answer carries the value of a virtual key, as clients of the reference expect, or only
    /// the one that made it.
    pub show_virtual_keys: bool,
}

impl Deref for Admin {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0.parts
    }
}

impl Admin {
    pub fn new(parts: Parts) -> Admin {
        let guard = Guard::new(parts.token.as_ref(), &parts.state.hasher);
        Admin(Arc::new(Shared { parts, questions: Arc::new(Semaphore::new(1)), guard, failures: Failures::default() }))
    }

    /// Runs what may wait for a disk where waiting hurts nobody.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Admin) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let admin = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&admin)).await;
        done.unwrap_or_else(|_| Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "The request broke; see the log")))
    }

    /// The same for a question to the ledger: one after the other, in the order in which they came. Whoever goes
    /// away does not wait any more.
    async fn asking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let busy = || ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "Others ask the ledger; try again");
        let turn = tokio::time::timeout(QUESTION_WAIT, Arc::clone(&self.0.questions).acquire_owned()).await;
        let turn = turn.map_err(|_| busy())?.map_err(|_| busy())?;
        self.blocking(move |admin| {
            // A question whose asker went away runs on, and has its turn for so long.
            let _turn = turn;
            Ok(work(&admin.store)?)
        })
        .await
    }
}

/// The listener's answer to everything.
pub fn router(admin: Admin) -> Router {
    routes()
        .into_iter()
        .fold(Router::new(), |router, (path, methods)| router.route(path, methods))
        .fallback(async || ApiError::new(StatusCode::NOT_FOUND, "There is nothing at this path"))
        .method_not_allowed_fallback(async || {
            ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "This path does not take this method")
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn_with_state(admin.clone(), auth::guard))
        .with_state(admin)
}

/// Paths with what answers there.
type Routes = Vec<(&'static str, MethodRouter<Admin>)>;

/// Every path of the listener. A test holds the document to it, both ways.
fn routes() -> Routes {
    [open_pages(), governance(), providers()].concat()
}

fn open_pages() -> Routes {
    vec![
        ("/", get(docs::page)),
        ("/openapi.json", get(docs::openapi)),
        ("/console/page.js", get(docs::script)),
        ("/console/page.css", get(docs::style)),
        ("/healthz", get(health::alive)),
        ("/readyz", get(health::ready)),
        ("/metrics", get(health::metrics)),
        (QUOTA_PATH, get(virtual_keys::quota)),
    ]
}

fn governance() -> Routes {
    let overrides = single::<PricingOverrides>().patch(resource::update::<PricingOverrides>);
    let provider_limits = put(limits::provider_update).delete(limits::provider_delete);
    vec![
        ("/api/governance/virtual-keys", collection::<VirtualKeys>()),
        ("/api/governance/virtual-keys/{vk_id}", single::<VirtualKeys>()),
        ("/api/governance/virtual-keys/{vk_id}/rotate", post(virtual_keys::rotate)),
        ("/api/governance/teams", collection::<Teams>()),
        ("/api/governance/teams/{team_id}", single::<Teams>()),
        ("/api/governance/customers", collection::<Customers>()),
        ("/api/governance/customers/{customer_id}", single::<Customers>()),
        ("/api/governance/budgets", get(limits::budgets)),
        ("/api/governance/budgets/{id}/reset", post(limits::reset)),
        ("/api/governance/rate-limits", get(limits::rate_limits)),
        ("/api/governance/routing-rules", collection::<RoutingRules>()),
        ("/api/governance/routing-rules/{rule_id}", single::<RoutingRules>()),
        ("/api/governance/model-configs", collection::<ModelConfigs>()),
        ("/api/governance/model-configs/{mc_id}", single::<ModelConfigs>()),
        ("/api/governance/providers", get(limits::provider_list)),
        ("/api/governance/providers/{provider_name}", provider_limits),
        ("/api/governance/pricing-overrides", collection::<PricingOverrides>()),
        ("/api/governance/pricing-overrides/{id}", overrides),
        ("/api/governance/audit", get(audit::list)),
        ("/api/governance/explain", post(explain::explain)),
        ("/api/ledger", get(ledger_query::ask)),
        ("/api/ledger/unresolved", get(ledger::unresolved)),
        ("/api/ledger/{id}/correct", post(ledger::correct)),
        ("/api/config", get(config::read).put(config::update)),
    ]
}

fn providers() -> Routes {
    let provider = get(providers::read).put(providers::update).delete(providers::delete);
    let key = get(providers::key_read).put(providers::key_update).delete(providers::key_delete);
    vec![
        ("/api/providers", get(providers::list).post(providers::create)),
        ("/api/providers/{provider}", provider),
        ("/api/providers/{provider}/keys", get(providers::key_list).post(providers::key_create)),
        ("/api/providers/{provider}/keys/{key_id}", key),
        ("/api/keys", get(providers::all_keys)),
        ("/api/models", get(providers::models)),
        ("/api/models/details", get(providers::models_details)),
        ("/api/models/base", get(providers::models_base)),
    ]
}

/// The listener at work.
#[derive(Debug)]
pub struct Server {
    thread: JoinHandle<io::Result<()>>,
    stop: oneshot::Sender<()>,
}

impl Server {
    /// Accepts nothing more and waits, within bounds, for the requests that are open.
    pub fn stop(self) {
        // A server that failed by itself has nobody listening for this.
        let _ = self.stop.send(());
        match self.thread.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the admin listener failed"),
            Err(_) => tracing::error!("the admin listener's thread panicked"),
        }
    }
}

/// Serves on a thread and a runtime of its own, so that administrators never slow a proxy worker. Call it
/// after the fork.
pub fn serve(listener: TcpListener, router: Router) -> io::Result<Server> {
    listener.set_nonblocking(true)?;
    let (stop, stopped) = oneshot::channel::<()>();
    let run = async move {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let (told, stopping) = oneshot::channel::<()>();
        let shutdown = async move {
            // A sender that was dropped stops us just as well.
            let _ = stopped.await;
            drop(told);
        };
        let patience = async {
            let _ = stopping.await;
            tokio::time::sleep(DRAIN).await;
        };
        let server = axum::serve(listener, router).with_graceful_shutdown(shutdown);
        tokio::select! {
            ended = server.into_future() => ended,
            () = patience => Ok(()),
        }
    };
    let thread = std::thread::Builder::new().name("admin".to_owned()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("admin-worker")
            .enable_all()
            .build()?;
        let ended = runtime.block_on(run);
        runtime.shutdown_timeout(Duration::from_secs(1));
        ended
    })?;
    Ok(Server { thread, stop })
}
