//! The config file as people write it: every key, its default, and what is wrong with it.
//!
//! What this version cannot do is refused, never ignored: money or access may hang on it.

use super::prices::{PriceSource, Table, url_fault};
use super::settings::{Admin, Auth, Ledger, Log, LogFormat, Pricing, Server, Settings, Show, Store, Tls};
use super::{DEFAULT_UPGRADE_SOCKET, declared};
use crate::governance::judge::Admission;
use crate::governance::money::{Nanos, Rate};
use crate::governance::pricing::{Price, UnknownModel};
use crate::governance::secret::Secret;
use crate::governance::time::Span;
use crate::governance::view::Policy;
use crate::wire::client;
use crate::wire::env_text::{self, Reach};
use crate::wire::faults::Faults;
use crate::wire::read::{Given, Object};
use crate::wire::strict::only_known;
use serde_json::Value;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The sections of the file.
pub(super) const SECTIONS: &[&str] =
    &["server", "admin", "store", "ledger", "client", "providers", "governance", "pricing", "log", "auth_config"];
pub(super) const SERVER: &[&str] = &[
    "listen",
    "threads",
    "tls",
    "max_request_body",
    "upgrade_socket",
    "grace_period",
    "drain_after_disconnect",
    "upstream_private_addresses",
    "trusted_proxies",
    "max_in_flight_per_address",
    "max_requests_per_second_per_address",
];
pub(super) const TLS: &[&str] = &["cert", "key"];
pub(super) const ADMIN: &[&str] = &["listen", "auth", "token", "metrics_auth", "allowed_origins", "show_virtual_keys"];
pub(super) const STORE: &[&str] = &["path", "encryption_key"];
pub(super) const LEDGER: &[&str] = &["keep"];
pub(super) const CLIENT: &[&str] = &[
    "enforce_auth_on_inference",
    "required_headers",
    "allowed_origins",
    "allowed_headers",
    "allow_direct_keys",
    "max_request_body_size_mb",
    "routing_chain_max_depth",
];
/// Settings that are kept and returned, and decide nothing yet.
const STORED_CLIENT: &[&str] = &["drop_excess_requests", "header_filter_config", "whitelisted_routes"];
pub(super) const GOVERNANCE: &[&str] = &[
    "admission",
    "min_output_tokens",
    "max_request_cost",
    "max_in_flight_per_key",
    "default_access",
    "virtual_keys",
    "customers",
    "teams",
    "budgets",
    "rate_limits",
    "routing_rules",
    "model_configs",
    "pricing_overrides",
    "providers",
    "auth_config",
];
pub(super) const PRICING: &[&str] = &["catalog", "refresh", "unknown_model"];
pub(super) const LOG: &[&str] = &["format", "level"];

/// Sections of a Bifrost `config.json` that have no meaning here.
const FOREIGN_SECTIONS: &[&str] = &[
    "$schema",
    "version",
    "encryption_key",
    "config_store",
    "logs_store",
    "vector_store",
    "mcp",
    "plugins",
    "framework",
    "websocket",
    "cluster_config",
    "saml_config",
    "scim_config",
    "load_balancer_config",
    "guardrails_config",
    "audit_logs",
    "envoy",
    "ui",
];
/// Settings of its `client` section that have no meaning here.
const FOREIGN_CLIENT: &[&str] = &[
    "initial_pool_size",
    "prometheus_labels",
    "enable_logging",
    "disable_content_logging",
    "disable_db_pings_in_health",
    "log_retention_days",
    "enable_governance",
    "enable_litellm_fallbacks",
    "compat",
    "mcp_agent_depth",
    "mcp_tool_execution_timeout",
    "mcp_code_mode_binding_level",
    "async_job_result_ttl",
    "hide_deleted_virtual_keys_in_filters",
    "logging_headers",
];

const PRICES_REFRESH: Duration = Duration::from_secs(24 * 3_600);
const PRICES_REFRESH_LEAST: Duration = Duration::from_secs(3_600);

const MIB: u64 = 1024 * 1024;
const LEDGER_KEEP: Duration = Duration::from_secs(90 * 24 * 3_600);
const LEDGER_KEEP_LEAST: Duration = Duration::from_secs(3_600);
const BODY_BYTES_LARGEST: u64 = 1024 * MIB;

/// What reading needs beside the tree.
pub(super) struct Reading<'a> {
    pub(super) base: &'a Path,
    pub(super) env: &'a dyn Fn(&str) -> Option<String>,
    pub(super) faults: &'a mut Faults,
    pub(super) warnings: Vec<String>,
}

pub(super) fn read(value: &Value, reading: &mut Reading<'_>) -> Option<Settings> {
    let root = Object::of(value, "", reading.faults)?;
    let known: Vec<&str> = SECTIONS.iter().chain(FOREIGN_SECTIONS).copied().collect();
    only_known(&root, &known, reading.faults);
    let foreign: Vec<&str> = FOREIGN_SECTIONS.iter().copied().filter(|name| root.has(name)).collect();
    if !foreign.is_empty() {
        reading.warnings.push(format!("these sections have no meaning here and are ignored: {}", foreign.join(", ")));
    }
    read_client(&root, reading);
    read_auth(&root, reading);
    let policy = read_policy(&root, reading);
    let declared = declared::read(&root, reading);
    declared::check(&declared, reading);
    let pricing = read_pricing(&root, reading);
    Some(Settings {
        server: read_server(&root, reading)?,
        admin: read_admin(&root, reading)?,
        store: read_store(&root, reading),
        ledger: read_ledger(&root, reading),
        policy,
        declared,
        pricing,
        log: read_log(&root, reading),
        warnings: std::mem::take(&mut reading.warnings),
    })
}

fn read_server(root: &Object<'_>, reading: &mut Reading<'_>) -> Option<Server> {
    let section = section(root, "server", reading);
    let server = section.as_ref();
    if let Some(server) = server {
        only_known(server, SERVER, reading.faults);
        not_yet(server, "trusted_proxies", "addresses of clients are taken from their connections", reading.faults);
    }
    let faults = &mut *reading.faults;
    let listen = match server.map_or(Given::Absent, |server| server.texts("listen", faults)) {
        Given::Value(texts) => {
            let server = server?;
            if texts.is_empty() {
                faults.add(server.path("listen"), "at least one address is needed");
            }
            let path = |i| format!("{}[{i}]", server.path("listen"));
            let mut addresses: Vec<SocketAddr> = Vec::new();
            for (i, text) in texts.iter().enumerate() {
                match socket(text, path(i), faults) {
                    Some(address) if addresses.contains(&address) => faults.add(path(i), "is listed twice"),
                    Some(address) => addresses.push(address),
                    None => {}
                }
            }
            addresses
        }
        Given::Absent | Given::Null => vec![SocketAddr::from(([0, 0, 0, 0], 8080))],
    };
    let threads = server.and_then(|server| ranged(server, "threads", 0, 1_024, faults)).unwrap_or(0);
    let threads = match usize::try_from(threads) {
        Ok(0) | Err(_) => std::thread::available_parallelism().map_or(1, usize::from),
        Ok(threads) => threads,
    };
    let tls = server.and_then(|server| server.object("tls", faults).value());
    let tls = tls.and_then(|tls| {
        only_known(&tls, TLS, faults);
        let mut path = |name| {
            let path = tls.text(name, faults).value().map(|path| reading.base.join(path));
            if path.is_none() && tls.raw(name).value().is_none() {
                faults.add(tls.path(name), "is required for TLS");
            }
            path
        };
        Some(Tls { cert: path("cert")?, key: path("key")? })
    });
    let private = server
        .and_then(|server| choice(server, "upstream_private_addresses", &[("allow", true), ("deny", false)], faults));
    Some(Server {
        listen,
        threads,
        tls,
        body_bytes_max: server.and_then(|server| size(server, "max_request_body", faults)),
        upgrade_socket: server
            .and_then(|server| server.text("upgrade_socket", faults).value())
            .map_or_else(|| PathBuf::from(DEFAULT_UPGRADE_SOCKET), |path| reading.base.join(path)),
        grace_period: server
            .and_then(|server| duration(server, "grace_period", faults))
            .unwrap_or(Duration::from_secs(30)),
        drain_after_disconnect: server
            .and_then(|server| duration(server, "drain_after_disconnect", faults))
            .unwrap_or(Duration::ZERO),
        private_addresses: private.unwrap_or(true),
        inflight_per_address_max: server.and_then(|server| cap(server, "max_in_flight_per_address", faults)),
        requests_per_second_per_address_max: server
            .and_then(|server| cap(server, "max_requests_per_second_per_address", faults)),
    })
}

fn read_admin(root: &Object<'_>, reading: &mut Reading<'_>) -> Option<Admin> {
    let default = SocketAddr::from(([127, 0, 0, 1], 8081));
    let Some(admin) = section(root, "admin", reading) else {
        return Some(Admin {
            listen: default,
            auth: Auth::Token,
            token: None,
            metrics_auth: true,
            allowed_origins: Vec::new(),
            show_virtual_keys: Show::Always,
        });
    };
    let faults = &mut *reading.faults;
    only_known(&admin, ADMIN, faults);
    let listen = match admin.text("listen", faults) {
        Given::Value(text) => socket(text, admin.path("listen"), faults).unwrap_or(default),
        Given::Absent | Given::Null => default,
    };
    let auth = choice(&admin, "auth", &[("token", Auth::Token), ("none", Auth::None)], faults).unwrap_or(Auth::Token);
    if auth == Auth::None && !listen.ip().is_loopback() {
        let message = format!("'none' is accepted only on a loopback address, and {listen} is reachable by others");
        faults.add(admin.path("auth"), message);
    }
    let token = admin.text("token", faults).value().map(Secret::new);
    if let Some(token) = token.as_ref().filter(|token| token.expose().len() < 16) {
        let message = if token.is_empty() { "is empty" } else { "is shorter than 16 characters" };
        faults.add(admin.path("token"), message);
    }
    let shows = [("always", Show::Always), ("once", Show::Once)];
    Some(Admin {
        listen,
        auth,
        token,
        metrics_auth: admin.boolean("metrics_auth", faults).value().unwrap_or(true),
        allowed_origins: admin.texts("allowed_origins", faults).value().unwrap_or_default(),
        show_virtual_keys: choice(&admin, "show_virtual_keys", &shows, faults).unwrap_or(Show::Always),
    })
}

/// The store's section alone, for commands that need nothing else. Its faults are those whose path begins so.
pub(super) fn read_store_of(value: &Value, reading: &mut Reading<'_>) -> Option<Store> {
    let root = Object::of(value, "", reading.faults)?;
    Some(read_store(&root, reading))
}

fn read_ledger(root: &Object<'_>, reading: &mut Reading<'_>) -> Ledger {
    let mut ledger = Ledger { keep: Some(LEDGER_KEEP) };
    let Some(section) = section(root, "ledger", reading) else { return ledger };
    let faults = &mut *reading.faults;
    only_known(&section, LEDGER, faults);
    if section.raw("keep").value().and_then(Value::as_str) == Some("forever") {
        ledger.keep = None;
    } else if let Some(keep) = duration(&section, "keep", faults) {
        if keep > Duration::ZERO && keep < LEDGER_KEEP_LEAST {
            faults.add(section.path("keep"), "must be 1h or longer; forever, or 0, keeps everything");
        }
        ledger.keep = (keep > Duration::ZERO).then_some(keep);
    }
    ledger
}

fn read_store(root: &Object<'_>, reading: &mut Reading<'_>) -> Store {
    let base = reading.base;
    let Some(store) = section(root, "store", reading) else {
        return Store { path: base.join("data/tollgate.db"), encryption_key: None };
    };
    let faults = &mut *reading.faults;
    only_known(&store, STORE, faults);
    let key = store.text("encryption_key", faults).value().map(Secret::new);
    if key.as_ref().is_some_and(|key| key.expose().chars().count() < 16) {
        faults.add(store.path("encryption_key"), "must have 16 characters or more");
    }
    Store { path: base.join(store.text("path", faults).value().unwrap_or("data/tollgate.db")), encryption_key: key }
}

/// The section's names; what they say is read with everything else that is declared.
fn read_client(root: &Object<'_>, reading: &mut Reading<'_>) {
    let Some(client) = section(root, "client", reading) else { return };
    only_known(
        &client,
        &[CLIENT, STORED_CLIENT, FOREIGN_CLIENT, &["enforce_governance_header"]].concat(),
        reading.faults,
    );
    let foreign: Vec<&str> =
        [STORED_CLIENT, FOREIGN_CLIENT].concat().into_iter().filter(|name| client.has(name)).collect();
    if !foreign.is_empty() {
        reading.warnings.push(format!("client: these settings have no effect here: {}", foreign.join(", ")));
    }
}

/// The same of the admin listener's user, which may stand in either place.
fn read_auth(root: &Object<'_>, reading: &mut Reading<'_>) {
    let outer = section(root, "auth_config", reading);
    let inner = root.object("governance", &mut Faults::default()).value();
    let inner = inner.and_then(|governance| governance.object("auth_config", reading.faults).value());
    for auth in outer.into_iter().chain(inner) {
        only_known(&auth, client::AUTH, reading.faults);
        if auth.has("disable_auth_on_inference") {
            let path = auth.path("disable_auth_on_inference");
            reading.warnings.push(format!("{path}: has no effect here; client.enforce_auth_on_inference decides"));
        }
        let env = (Reach::All, reading.env);
        let password = env_text::read(&auth, "admin_password", None, env, &mut Faults::default());
        if password.is_some_and(|password| !password.is_empty() && client::is_short(&password)) {
            let path = auth.path("admin_password");
            let least = client::PASSWORD_LETTERS_MIN;
            reading.warnings.push(format!("{path}: is shorter than {least} characters, and can be guessed"));
        }
    }
}

fn read_policy(root: &Object<'_>, reading: &mut Reading<'_>) -> Policy {
    let mut policy = Policy { unknown_model: read_unknown_model(root, reading), ..Policy::default() };
    let Some(governance) = section(root, "governance", reading) else { return policy };
    let faults = &mut *reading.faults;
    only_known(&governance, GOVERNANCE, faults);
    let policies = [("remaining", Admission::Remaining), ("never_exceed", Admission::NeverExceed)];
    policy.admission = choice(&governance, "admission", &policies, faults).unwrap_or_default();
    let least = ranged(&governance, "min_output_tokens", 1, 1 << 20, faults);
    policy.output_min = least.and_then(|least| u64::try_from(least).ok()).unwrap_or(policy.output_min);
    policy.request_cost_max = read_dollars(&governance, "max_request_cost", faults);
    policy.in_flight_per_key_max = cap(&governance, "max_in_flight_per_key", faults);
    let access = choice(&governance, "default_access", &[("deny", false), ("allow", true)], faults);
    policy.allow_by_default = access.unwrap_or(false);
    policy
}

/// An amount above zero.
fn read_dollars(object: &Object<'_>, name: &str, faults: &mut Faults) -> Option<Nanos> {
    let value = object.raw(name).value()?;
    let amount = value.as_number().and_then(|number| Nanos::from_dollars(&number.to_string()).ok());
    let amount = amount.filter(|amount| *amount > Nanos::ZERO);
    if amount.is_none() {
        faults.add(object.path(name), "must be a number of dollars above zero");
    }
    amount
}

fn read_pricing(root: &Object<'_>, reading: &mut Reading<'_>) -> Pricing {
    let built_in =
        || Pricing { source: PriceSource::BuiltIn, refresh: PRICES_REFRESH, table: Some(Arc::new(Table::built_in())) };
    let Some(pricing) = section(root, "pricing", reading) else { return built_in() };
    let faults = &mut *reading.faults;
    only_known(&pricing, PRICING, faults);
    let refresh = duration(&pricing, "refresh", faults).unwrap_or(PRICES_REFRESH);
    if refresh < PRICES_REFRESH_LEAST {
        faults.add(pricing.path("refresh"), "must be 1h or more");
    }
    let source = match pricing.text("catalog", faults).value() {
        None | Some("builtin") => return Pricing { refresh, ..built_in() },
        Some(source) => source,
    };
    let path = pricing.path("catalog");
    if source.contains("://") {
        if let Some(fault) = url_fault(source) {
            faults.add(path, fault);
        }
        return Pricing { source: PriceSource::Url(source.to_owned()), refresh, table: None };
    }
    let file = reading.base.join(source);
    match Table::load(&file) {
        Err(problems) => {
            problems.into_iter().for_each(|problem| faults.add(path.as_str(), problem));
            built_in()
        }
        Ok(table) => Pricing { source: PriceSource::File(file), refresh, table: Some(Arc::new(table)) },
    }
}

fn read_unknown_model(root: &Object<'_>, reading: &mut Reading<'_>) -> UnknownModel {
    // The section itself is checked where the catalog is read.
    let Some(pricing) = root.object("pricing", &mut Faults::default()).value() else { return UnknownModel::Refuse };
    let faults = &mut *reading.faults;
    match pricing.raw("unknown_model") {
        Given::Value(Value::Object(_)) => {
            let Some(prices) = pricing.object("unknown_model", faults).value() else { return UnknownModel::Refuse };
            let names = ["input_cost_per_token", "output_cost_per_token"];
            only_known(&prices, &names, faults);
            let rates = names.map(|name| Some((name, rate(&prices, name, faults)?)));
            UnknownModel::Priced(Arc::new(Price::named(rates.into_iter().flatten())))
        }
        _ => {
            let choices = [("refuse", UnknownModel::Refuse), ("free", UnknownModel::Free)];
            choice(&pricing, "unknown_model", &choices, faults).unwrap_or_default()
        }
    }
}

fn rate(prices: &Object<'_>, name: &str, faults: &mut Faults) -> Option<Rate> {
    let Some(value) = prices.raw(name).value() else {
        faults.add(prices.path(name), "is required: dollars for one token");
        return None;
    };
    match value.as_number().map(|number| Rate::from_dollars(&number.to_string())) {
        Some(Ok(rate)) => Some(rate),
        Some(Err(error)) => {
            faults.add(prices.path(name), error.to_string());
            None
        }
        None => {
            faults.add(prices.path(name), "must be a number: dollars for one token");
            None
        }
    }
}

fn read_log(root: &Object<'_>, reading: &mut Reading<'_>) -> Log {
    let default = Log { format: LogFormat::Json, level: "info".into() };
    let Some(log) = section(root, "log", reading) else { return default };
    let faults = &mut *reading.faults;
    only_known(&log, LOG, faults);
    let formats = [("json", LogFormat::Json), ("text", LogFormat::Text)];
    let level = log.text("level", faults).value().map_or(default.level, str::to_owned);
    if let Err(error) = level.parse::<tracing_subscriber::filter::Targets>() {
        faults.add(
            log.path("level"),
            format!("'{level}' is no level (error, warn, info, debug, trace, or target=level): {error}"),
        );
    }
    Log { format: choice(&log, "format", &formats, faults).unwrap_or(default.format), level }
}

fn section<'a>(root: &Object<'a>, name: &str, reading: &mut Reading<'_>) -> Option<Object<'a>> {
    root.object(name, reading.faults).value()
}

/// Refuses a list that this version could only ignore.
fn not_yet(object: &Object<'_>, name: &str, instead: &str, faults: &mut Faults) {
    if object.array(name, faults).value().is_some_and(|list| !list.is_empty()) {
        faults.add(object.path(name), format!("is not available in this version: {instead}"));
    }
}

fn choice<T: Clone>(object: &Object<'_>, name: &str, choices: &[(&str, T)], faults: &mut Faults) -> Option<T> {
    let text = object.text(name, faults).value()?;
    let chosen = choices.iter().find(|(word, _)| *word == text).map(|(_, value)| value.clone());
    if chosen.is_none() {
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        faults.add(object.path(name), format!("'{text}' is none of: {}", words.join(", ")));
    }
    chosen
}

fn ranged(object: &Object<'_>, name: &str, least: i64, most: i64, faults: &mut Faults) -> Option<i64> {
    let number = object.integer(name, faults).value()?;
    if !(least..=most).contains(&number) {
        faults.add(object.path(name), format!("must be between {least} and {most}, not {number}"));
        return None;
    }
    Some(number)
}

fn cap(object: &Object<'_>, name: &str, faults: &mut Faults) -> Option<u32> {
    ranged(object, name, 1, i64::from(u32::MAX), faults).and_then(|cap| u32::try_from(cap).ok())
}

/// A duration such as `30s`; plain `0` and `0s` mean none.
fn duration(object: &Object<'_>, name: &str, faults: &mut Faults) -> Option<Duration> {
    if object.raw(name).value().and_then(Value::as_u64) == Some(0) {
        return Some(Duration::ZERO);
    }
    if let Some(number) = object.raw(name).value().and_then(Value::as_number) {
        faults.add(object.path(name), format!("{number} of what? (examples: 500ms, 30s, 5m, 24h)"));
        return None;
    }
    let text = object.text(name, faults).value()?;
    if text == "0s" || text == "0" {
        return Some(Duration::ZERO);
    }
    match Span::parse(text) {
        Ok(span) => Some(Duration::from_millis(span.millis().unsigned_abs())),
        Err(_) => {
            faults.add(object.path(name), format!("'{text}' is no duration (examples: 500ms, 30s, 5m, 24h)"));
            None
        }
    }
}

/// A size such as `32MiB`, or a plain number of bytes.
fn size(object: &Object<'_>, name: &str, faults: &mut Faults) -> Option<u64> {
    let value = object.raw(name).value()?;
    let bytes = match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => parse_size(text),
        _ => None,
    };
    match bytes {
        Some(bytes) if (1..=BODY_BYTES_LARGEST).contains(&bytes) => Some(bytes),
        Some(_) => {
            faults.add(object.path(name), "must be between 1 byte and 1GiB");
            None
        }
        None => {
            faults.add(object.path(name), "is no size (examples: 32MiB, 500KB, 1048576)");
            None
        }
    }
}

fn parse_size(text: &str) -> Option<u64> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let factor: u64 = match unit.trim() {
        "" | "B" => 1,
        "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1_024,
        "MiB" => MIB,
        "GiB" => 1_024 * MIB,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

fn socket(text: &str, path: String, faults: &mut Faults) -> Option<SocketAddr> {
    match text.parse() {
        Ok(address) => Some(address),
        Err(_) => {
            faults.add(path, format!("'{text}' is no address with a port (examples: 0.0.0.0:8080, [::]:8080)"));
            None
        }
    }
}
