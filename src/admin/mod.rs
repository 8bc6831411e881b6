//! The administrators' listener: the governance API, health and metrics.
//!
//! Handlers are thin. Whatever touches the store runs off the runtime; a change is made durable and published
//! through `State::change`, so it holds for the next request and never for half of one.

mod auth;
mod error;
mod health;
#[cfg(test)]
mod tests;
mod virtual_keys;

use crate::governance::time::Timestamp;
use crate::state::State;
use crate::store::Store;
use crate::store::writer::Health;
use crate::telemetry::Metrics;
use auth::Guard;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use error::ApiError;
use std::future::Future;
use std::io;
use std::net::TcpListener;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

pub use auth::Auth;

/// The self-service page of a virtual key's holder, open to whoever holds one.
pub const QUOTA_PATH: &str = "/api/governance/virtual-keys/quota";
/// No body of this API has a reason to be longer.
const BODY_BYTES_MAX: usize = 1 << 20;
/// How long requests may still take once the listener was told to stop.
const DRAIN: Duration = Duration::from_secs(5);

/// What the handlers share.
#[derive(Debug, Clone)]
pub struct Admin(Arc<Parts>);

#[derive(Debug)]
pub struct Parts {
    state: Arc<State>,
    store: Arc<Store>,
    metrics: Metrics,
    health: Arc<Health>,
    settings: Settings,
    guard: Guard,
    reload: Mutex<Option<Reload>>,
}

/// What an operator decided about this listener.
#[derive(Debug)]
pub struct Settings {
    pub auth: Auth,
    /// Whether `/metrics` wants the admin token, too.
    pub metrics_auth: bool,
    pub show_virtual_keys: ShowVirtualKeys,
}

/// When answers carry the value of a virtual key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ShowVirtualKeys {
    /// Always, as clients of the reference expect.
    #[default]
    Always,
    /// In the answer that made the value, and never again.
    Once,
}

/// How the last reload of the config file went.
#[derive(Debug, Clone)]
struct Reload {
    at: Timestamp,
    refused: Option<String>,
}

impl Deref for Admin {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl Admin {
    /// Called after the first snapshot was published, and with the health of a running writer.
    pub fn new(
        state: Arc<State>,
        store: Arc<Store>,
        metrics: Metrics,
        health: Arc<Health>,
        settings: Settings,
    ) -> Admin {
        let guard = Guard::new(&settings.auth, &state.hasher);
        Admin(Arc::new(Parts { state, store, metrics, health, settings, guard, reload: Mutex::default() }))
    }

    /// Notes how a reload of the config file went, for `/readyz`; `Err` says why nothing changed.
    pub fn reloaded(&self, outcome: Result<(), String>) {
        let reload = Reload { at: self.state.clock.now(), refused: outcome.err() };
        *self.reload.lock().unwrap_or_else(PoisonError::into_inner) = Some(reload);
    }

    fn last_reload(&self) -> Option<Reload> {
        self.reload.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
}

/// Every path of the listener.
pub fn router(admin: Admin) -> Router {
    let keys = get(virtual_keys::list).post(virtual_keys::create);
    let key = get(virtual_keys::show).put(virtual_keys::update).delete(virtual_keys::delete);
    Router::new()
        .route("/", get(health::index))
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics))
        .route("/api/governance/virtual-keys", keys)
        .route(QUOTA_PATH, get(virtual_keys::quota))
        .route("/api/governance/virtual-keys/{vk_id}", key)
        .fallback(async || ApiError::new(StatusCode::NOT_FOUND, "There is nothing at this path"))
        .method_not_allowed_fallback(async || {
            ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "This path does not take this method")
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn_with_state(admin.clone(), auth::guard))
        .with_state(admin)
}

/// Serves until `shutdown` resolves, and then for as long as open requests take, within bounds. On a thread
/// and a runtime of its own, so that administrators never slow a proxy worker. Call it after the fork.
pub fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<JoinHandle<io::Result<()>>> {
    listener.set_nonblocking(true)?;
    let run = async move {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let (told, stopping) = tokio::sync::oneshot::channel();
        let shutdown = async move {
            shutdown.await;
            // Nobody listens any more if the server ended by itself.
            let _ = told.send(());
        };
        let patience = async {
            if stopping.await.is_err() {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(DRAIN).await;
        };
        let server = axum::serve(listener, router).with_graceful_shutdown(shutdown);
        tokio::select! {
            ended = server.into_future() => ended,
            () = patience => Ok(()),
        }
    };
    std::thread::Builder::new().name("admin".to_owned()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("admin-worker")
            .enable_all()
            .build()?;
        let ended = runtime.block_on(run);
        runtime.shutdown_timeout(Duration::from_secs(1));
        ended
    })
}
