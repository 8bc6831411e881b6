//! Where the parts meet: what is declared becomes a running proxy, and a stop signal becomes an
//! orderly end with every settled call written down.

mod lifecycle;
mod reload;

pub use lifecycle::{Running, Stop};
pub use reload::{ReloadOutcome, Reloader, Unapplied};

use crate::admin::{self, Admin};
use crate::config::{Auth, Settings, Show};
use crate::governance::secret::Secret;
use crate::proxy::{Gateway, IDLE_CLIENT_SECONDS, Options};
use crate::state::State;
use crate::state::clock::Clock;
use crate::store::journal::{self, Claimed};
use crate::store::writer::Writer;
use crate::store::{DataLock, Follow, Keep, Store, StoreError, key_file};
use crate::telemetry::Metrics;
use crate::wire::proxy_url::Environment;
use pingora::apps::HttpServerOptions;
use pingora::connectors::ConnectorOptions;
use pingora::listeners::tls::TlsSettings;
use pingora::listeners::{L4BufferSettings, ListenerConfig};
use pingora::server::Server;
use pingora::server::configuration::{Opt, ServerConf};
use pingora_proxy::ProxyServiceBuilder;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

/// Holds and unwritten entries together. At ten thousand calls a second, some seconds of a disk that
/// does not answer.
const OUTBOX_PLACES: u32 = 65_536;
/// How long the last flush tries.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(10);
const HOURLY_SUMS_KEPT: Duration = Duration::from_secs(365 * 24 * 3_600);
/// Idle connections kept to providers, in all.
const UPSTREAM_POOL: usize = 512;
/// For each client connection. Pingora's 1,460 bytes to write make two sends of a small answer and its
/// head, and its 64 KiB to read are mostly memory.
const WRITE_BUFFER: usize = 8 * 1024;
const READ_BUFFER: usize = 16 * 1024;

/// Why nothing runs. One line for an operator, with what to do about it where we know.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("{0}")]
    Unapplied(#[from] Unapplied),
    #[error("cannot listen on {address} ({key}): {source}")]
    Listen { address: SocketAddr, key: &'static str, source: io::Error },
    #[error("cannot read {what} ({key}): {reason}")]
    Tls { what: String, key: &'static str, reason: String },
    #[error("cannot start {what}: {source}")]
    Thread { what: &'static str, source: io::Error },
    #[error("the proxy did not begin to listen on {0} within ten seconds")]
    NotListening(SocketAddr),
}

/// Everything built and bound, not yet running.
pub struct App {
    state: Arc<State>,
    reloader: Arc<Reloader>,
    writer: Writer,
    admin: admin::Server,
    server: Server,
    open_requests: Arc<AtomicI64>,
    listen: Vec<SocketAddr>,
    admin_address: SocketAddr,
    grace_period: Duration,
    lock: DataLock,
}

/// How to start, beside the settings.
#[derive(Debug, Default)]
pub struct Start {
    /// Take the listeners over from the process that runs now.
    pub upgrade: bool,
    /// Where a reload reads the settings from; absent: there is nothing to reload.
    pub config_path: Option<PathBuf>,
}

impl App {
    /// Opens the store, publishes the first view, binds the listeners.
    pub fn build(settings: Settings, start: &Start) -> Result<App, StartError> {
        // Before anything is changed: is the place free? A successor waits here for the listeners of the
        // process that runs now, so that it reads the balances as late as it can.
        let listen = settings.server.listen.clone();
        if !start.upgrade {
            listen.iter().try_for_each(|&address| probe(address, "server.listen"))?;
            probe(settings.admin.listen, "admin.listen")?;
        }
        let mut server = empty_server(&settings, start.upgrade);
        let data_dir = key_file::data_dir(&settings.store.path);
        key_file::make_data_dir(&data_dir)?;
        let lock = if start.upgrade { DataLock::inherit(&data_dir)? } else { DataLock::take(&data_dir)? };
        let encryption_key = encryption_key(&settings, &data_dir)?;
        let store = Arc::new(Store::open(&settings.store.path, &encryption_key)?);
        let metrics = Metrics::new();
        // What dead processes left counts before anything is read or served.
        let mut ledger = store.ledger_keeping(keep(&settings))?;
        let clock = Clock::System;
        let Claimed { journal, predecessors, recovered } =
            journal::claim(&data_dir, OUTBOX_PLACES, &mut *ledger, clock.now())?;
        recovered.log();
        let places = OUTBOX_PLACES as usize;
        let state = Arc::new(State::with_journal(clock.clone(), store.hasher(), places, Some(journal)));
        let reloader =
            Arc::new(Reloader::new(start.config_path.clone(), Arc::clone(&state), Arc::clone(&store), metrics.clone()));
        let opening = reloader.apply_first(&settings)?;
        let options = Options {
            body_bytes_max: settings.server.body_bytes_max,
            drain_after_disconnect: settings.server.drain_after_disconnect,
            private_addresses: settings.server.private_addresses,
            environment: Environment::read(&|name| std::env::var(name).ok()),
            inflight_per_address_max: settings.server.inflight_per_address_max,
            requests_per_second_per_address_max: settings.server.requests_per_second_per_address_max,
        };
        let gateway = Gateway::new(Arc::clone(&state), metrics.clone(), options, ConnectorOptions::new(UPSTREAM_POOL));
        let open_requests = gateway.open_requests();
        add_proxy(&mut server, &settings, gateway)?;
        // As long as the predecessor may take, with some seconds for it to hand over and to write.
        let patience = settings.server.grace_period + Duration::from_secs(30);
        let follow = (start.upgrade || predecessors.are_awaited())
            .then(|| Follow::new(Arc::clone(&state), opening, predecessors, patience));
        let writer = Writer::start(Arc::clone(state.outbox()), ledger, metrics.clone(), clock, follow)
            .map_err(|source| StartError::Thread { what: "the ledger's writer", source })?;
        let handle = Admin::new(admin::Parts {
            state: Arc::clone(&state),
            store: Arc::clone(&store),
            metrics,
            ledger: writer.health(),
            reload: reloader.status(),
            token: admin_token(&settings, &data_dir)?,
            metrics_auth: settings.admin.metrics_auth,
            allowed_origins: settings.admin.allowed_origins.clone(),
            show_virtual_keys: settings.admin.show_virtual_keys == Show::Always,
        });
        let (listener, admin_address) = bind_admin(settings.admin.listen)?;
        let admin = admin::serve(listener, admin::router(handle))
            .map_err(|source| StartError::Thread { what: "the admin listener", source })?;
        let grace_period = settings.server.grace_period;
        Ok(App { state, reloader, writer, admin, server, open_requests, listen, admin_address, grace_period, lock })
    }
}

/// Sums by hour live for a year, and never shorter than the entries themselves.
fn keep(settings: &Settings) -> Keep {
    let millis = |length: Duration| i64::try_from(length.as_millis()).unwrap_or(i64::MAX);
    let entries = settings.ledger.keep.map(millis);
    Keep { entries, hours: entries.map(|entries| entries.max(millis(HOURLY_SUMS_KEPT))) }
}

/// The operator's key, or one that is made and kept beside the database.
fn encryption_key(settings: &Settings, data_dir: &std::path::Path) -> Result<Secret, StartError> {
    if let Some(key) = &settings.store.encryption_key {
        return Ok(key.clone());
    }
    let file = key_file::encryption_key(data_dir)?;
    if file.created {
        tracing::warn!(
            path = %file.path.display(),
            "made an encryption key; move it somewhere safer and set store.encryption_key, since who has this directory has both"
        );
    }
    Ok(file.secret)
}

/// The token that administrators show; none where `admin.auth` is `none`.
fn admin_token(settings: &Settings, data_dir: &std::path::Path) -> Result<Option<Secret>, StartError> {
    if settings.admin.auth == Auth::None {
        return Ok(None);
    }
    if let Some(token) = &settings.admin.token {
        return Ok(Some(token.clone()));
    }
    let file = key_file::admin_token(data_dir)?;
    if file.created {
        tracing::info!(path = %file.path.display(), "made an admin token");
    }
    Ok(Some(file.secret))
}

/// Pingora's server without a service, with the listeners of its predecessor if it is to have them.
fn empty_server(settings: &Settings, upgrade: bool) -> Server {
    let conf = ServerConf {
        threads: settings.server.threads,
        upgrade_sock: settings.server.upgrade_socket.display().to_string(),
        pid_file: settings.server.upgrade_socket.with_extension("pid").display().to_string(),
        grace_period_seconds: Some(settings.server.grace_period.as_secs()),
        graceful_shutdown_timeout_seconds: Some(1),
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(Opt { upgrade, ..Opt::default() }, conf);
    server.bootstrap();
    server
}

fn add_proxy(server: &mut Server, settings: &Settings, gateway: Gateway) -> Result<(), StartError> {
    let mut options = HttpServerOptions::default();
    options.h2c = true;
    options.h2_idle_timeout = Some(Duration::from_secs(IDLE_CLIENT_SECONDS));
    let mut service =
        ProxyServiceBuilder::new(&server.configuration, gateway).name("proxy").server_options(options).build();
    for address in &settings.server.listen {
        let buffers = L4BufferSettings::new(READ_BUFFER, WRITE_BUFFER);
        let listener = ListenerConfig::tcp(address.to_string()).l4_buffer(buffers);
        service.add_listener(match &settings.server.tls {
            None => listener,
            Some(tls) => listener.tls(tls_settings(tls)?),
        });
    }
    server.add_service(service);
    Ok(())
}

fn tls_settings(tls: &crate::config::Tls) -> Result<TlsSettings, StartError> {
    for (path, key) in [(&tls.cert, "server.tls.cert"), (&tls.key, "server.tls.key")] {
        let failed =
            |error: io::Error| StartError::Tls { what: path.display().to_string(), key, reason: error.to_string() };
        std::fs::File::open(path).map_err(failed)?;
    }
    let (cert, key) = (tls.cert.display().to_string(), tls.key.display().to_string());
    let settings = TlsSettings::intermediate(&cert, &key);
    let mut settings =
        settings.map_err(|error| StartError::Tls { what: cert, key: "server.tls", reason: error.to_string() })?;
    settings.enable_h2();
    Ok(settings)
}

/// Whether the address is free. Pingora itself would try for half a minute without a word.
fn probe(address: SocketAddr, key: &'static str) -> Result<(), StartError> {
    TcpListener::bind(address).map(drop).map_err(|source| StartError::Listen { address, key, source })
}

/// Binds the admin listener so that a successor can bind it as well while this process still runs.
fn bind_admin(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |source| StartError::Listen { address, key: "admin.listen", source };
    let bind = || -> io::Result<TcpListener> {
        let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(1_024)?;
        Ok(socket.into())
    };
    let listener = bind().map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}
