//! What the program receives: checked, typed, complete.

use crate::governance::pricing::Catalog;
use crate::governance::secret::Secret;
use crate::governance::view::Policy;
use crate::wire::declared::Declared;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug, Clone)]
pub struct Settings {
    pub server: Server,
    pub admin: Admin,
    pub store: Store,
    pub ledger: Ledger,
    pub policy: Policy,
    /// What goes into the store and can be changed there.
    pub declared: Declared,
    pub catalog: Arc<Catalog>,
    pub log: Log,
    /// What was accepted and has no effect, for an operator to read once.
    pub warnings: Vec<String>,
}

#[derive(Debug, Clone)]
pub struct Server {
    pub listen: Vec<SocketAddr>,
    /// At least one.
    pub threads: usize,
    pub tls: Option<Tls>,
    /// Absent: what the client settings say, or the default.
    pub body_bytes_max: Option<u64>,
    pub upgrade_socket: PathBuf,
    pub grace_period: Duration,
    /// Zero: an answer nobody waits for is cancelled at once.
    pub drain_after_disconnect: Duration,
    /// Whether providers may live at private and loopback addresses.
    pub private_addresses: bool,
    pub inflight_per_address_max: Option<u32>,
    pub requests_per_second_per_address_max: Option<u32>,
}

#[derive(Debug, Clone)]
pub struct Tls {
    pub cert: PathBuf,
    pub key: PathBuf,
}

#[derive(Debug, Clone)]
pub struct Admin {
    pub listen: SocketAddr,
    pub auth: Auth,
    /// Absent: one is made at first start.
    pub token: Option<Secret>,
    pub metrics_auth: bool,
    /// Origins whose pages may call the listener; `*` for all.
    pub allowed_origins: Vec<String>,
    pub show_virtual_keys: Show,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    Token,
    /// Only on loopback.
    None,
}

/// Which answers carry a virtual key's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Show {
    Always,
    /// Only those to create and rotate.
    Once,
}

#[derive(Debug, Clone)]
pub struct Store {
    pub path: PathBuf,
    /// Absent: one is made at first start.
    pub encryption_key: Option<Secret>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ledger {
    /// How old entries become; absent: as old as the database.
    pub keep: Option<Duration>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    pub format: LogFormat,
    /// A filter as `tracing` reads it, such as `info` or `tollgate=debug`.
    pub level: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Json,
    Text,
}
