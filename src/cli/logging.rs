//! Where log lines go, and how they look. Pingora's own go the same way, from `warn` up.

use crate::config::{Log, LogFormat};
use std::io::stderr;
use tracing_subscriber::EnvFilter;

/// Starts logging to stderr. Called once.
pub(super) fn start(log: &Log) {
    let directives =
        format!("pingora=warn,pingora_core=warn,pingora_proxy=error,rusqlite_migration=warn,{}", log.level);
    let filter = EnvFilter::try_new(&directives).unwrap_or_else(|_| EnvFilter::new("info"));
    // A line that cannot be written is lost. To say so on stderr would fail as well, and end the thread that
    // logged: the ledger's writer, on a full disk.
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr).log_internal_errors(false);
    let started = match log.format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => builder.try_init(),
    };
    // Logging that is there already (as in a test) stays.
    drop(started);
}
