//! The way of a request, one phase a file: identify, call, route, admit, forward, meter, settle,
//! respond. `Gateway` is what Pingora calls; its hooks are a line or two each.
//!
//! Invariant: a hold made for a request is settled before `request_filter` returns, or by its own
//! drop if the task is cut off.

mod admit;
mod call;
mod dial;
mod exchange;
mod fetch;
mod forward;
mod guard;
mod identify;
mod meter;
mod resolve;
mod respond;
mod route;
mod settle;
mod through;

pub use fetch::{FetchError, Fetcher};

use crate::governance::entity::{BODY_BYTES_MAX, ClientConfig};
use crate::governance::refusal::Refusal;
use crate::governance::request::Dialect;
use crate::governance::route::models;
use crate::state::clock::since;
use crate::state::outbox::ChargeId;
use crate::state::{Snapshot, State};
use crate::telemetry::Metrics;
use crate::wire::cors::{Cors, is_preflight};
use crate::wire::proxy_url::Environment;
use crate::wire::{credential, show};
use async_trait::async_trait;
use call::Ask;
use dial::Dialer;
use exchange::{Exchange, client_request_id};
use forward::Job;
use guard::Guard;
use http::{HeaderMap, HeaderValue, header};
use pingora::connectors::ConnectorOptions;
use pingora::http::RequestHeader;
use pingora::upstreams::peer::HttpPeer;
use pingora_proxy::{ProxyHttp, Session};
use respond::About;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// What the proxy needs to know of the operator's wishes.
#[derive(Debug, Clone)]
pub struct Options {
    /// Larger request bodies get 413. Absent: what the client settings say, or `BODY_BYTES_MAX`.
    pub body_bytes_max: Option<u64>,
    /// How long an answer is read on for its usage after the client left. Zero cancels it at once.
    pub drain_after_disconnect: Duration,
    /// Whether providers may live at private and loopback addresses.
    pub private_addresses: bool,
    /// The proxies of providers that have the environment's, as it was when this process began.
    pub environment: Result<Environment, String>,
    /// Caps for one client address; absent: no cap.
    pub inflight_per_address_max: Option<u32>,
    pub requests_per_second_per_address_max: Option<u32>,
}

/// The governed proxy.
pub struct Gateway {
    state: Arc<State>,
    metrics: Metrics,
    options: Options,
    dialer: Dialer,
    guard: Guard,
    open_requests: Arc<AtomicI64>,
}

/// An idle connection of a client is closed after this.
pub const IDLE_CLIENT_SECONDS: u64 = 75;

/// Why a request is not answered by a provider.
enum Halt {
    Refused(Refusal),
    Failed(Failure),
    /// Nobody is there to answer.
    ClientGone,
}

impl From<Refusal> for Halt {
    fn from(refusal: Refusal) -> Halt {
        Halt::Refused(refusal)
    }
}

/// What went wrong between us and a provider, as the client is told. Nothing of it is charged.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("provider '{provider}' cannot be reached")]
    Unreachable { provider: String },
    #[error("provider '{provider}' broke off its answer")]
    BrokeOff { provider: String },
    #[error("provider '{provider}' cannot be reached: the connection timed out")]
    ConnectTimedOut { provider: String },
    #[error("provider '{provider}' did not answer in time")]
    TimedOut { provider: String },
    #[error("provider '{provider}' refused the account that this gateway has there")]
    CredentialsRejected { provider: String },
    #[error("provider '{provider}' answered with status {status}")]
    Status { provider: String, status: u16 },
    #[error("provider '{provider}' began its stream with an error")]
    ErrorFirst { provider: String },
}

impl Failure {
    fn code(&self) -> &'static str {
        match self {
            Failure::Unreachable { .. } | Failure::BrokeOff { .. } => "upstream_unreachable",
            Failure::ConnectTimedOut { .. } | Failure::TimedOut { .. } => "request_timed_out",
            Failure::CredentialsRejected { .. } => "upstream_credentials_rejected",
            Failure::Status { .. } | Failure::ErrorFirst { .. } => "upstream_failed",
        }
    }

    fn status(&self) -> u16 {
        match self {
            Failure::ConnectTimedOut { .. } | Failure::TimedOut { .. } => 504,
            _ => 502,
        }
    }
}

impl Gateway {
    pub fn new(state: Arc<State>, metrics: Metrics, options: Options, connections: ConnectorOptions) -> Gateway {
        Gateway {
            dialer: Dialer::new(connections, options.private_addresses, options.environment.clone()),
            guard: Guard::new(options.inflight_per_address_max, options.requests_per_second_per_address_max),
            open_requests: Arc::default(),
            state,
            metrics,
            options,
        }
    }

    /// Counts requests that are being served, for a drain that ends as soon as it may.
    pub fn open_requests(&self) -> Arc<AtomicI64> {
        Arc::clone(&self.open_requests)
    }

    /// Everything from the head to the last byte of the answer: each line a phase, each `?` a possible end.
    async fn serve(&self, session: &mut Session, x: &mut Exchange, about: &mut About) -> Result<(), Halt> {
        let _place = self.guard.enter(session)?;
        let head = session.req_header();
        let ask;
        (about.dialect, ask) = call::ask(&head.method, head.uri.path());
        refuse_two_lengths(session)?;
        let snapshot = self.state.snapshot();
        if head.headers.contains_key(header::ORIGIN)
            && let Some(allowed) = page(head, &snapshot.view.client, x)?
        {
            respond::preflight(session, allowed, x).await;
            return Ok(());
        }
        let route = match ask? {
            Ask::Health => return self.say(session, x, 200, br#"{"status":"ok"}"#.to_vec()).await,
            Ask::Quota => return self.quota(session, x, &snapshot).await,
            Ask::Models { id } => return self.models(session, x, &snapshot, (about.dialect, id)).await,
            Ask::Call(route) => route,
        };
        about.kind = Some(route.kind);
        let caller = identify::identify(&snapshot.view, &self.state.hasher, head)?;
        let _in_flight = self.guard.enter_key(caller.as_deref(), &snapshot.view.policy)?;
        let body_bytes_max = self.options.body_bytes_max.or(snapshot.view.client.body_bytes_max);
        let request = call::read(session, route, body_bytes_max.unwrap_or(BODY_BYTES_MAX)).await?;
        about.model = Some(request.call.model.clone());
        let targets = route::route(self, &snapshot, caller.as_deref(), session.req_header(), &request, x)?;
        about.provider = Some(targets[0].provider.name.to_string());
        let job = Job { gateway: self, snapshot: &snapshot, caller: caller.as_deref(), request: &request };
        forward::forward(&job, session, x, &targets).await
    }

    async fn models(
        &self,
        session: &mut Session,
        x: &mut Exchange,
        snapshot: &Snapshot,
        (dialect, id): (Dialect, Option<String>),
    ) -> Result<(), Halt> {
        let caller = identify::identify(&snapshot.view, &self.state.hasher, session.req_header())?;
        let models = models(&snapshot.view, caller.as_deref(), dialect);
        let body = match id {
            None => show::models(dialect, &models),
            Some(id) if known(&models, &id) => show::model(dialect, &id),
            Some(id) => {
                return Err(Refusal::NotFound { kind: "such model", path: id.chars().take(256).collect() }.into());
            }
        };
        self.say(session, x, 200, body).await
    }

    /// The caller's own limits. An inactive key may ask, too.
    async fn quota(&self, session: &mut Session, x: &mut Exchange, snapshot: &Snapshot) -> Result<(), Halt> {
        let head = session.req_header();
        let presented = credential::virtual_key(&head.headers, head.uri.query());
        let found = presented.map(|value| value.map(|value| snapshot.view.caller(&self.state.hasher.digest(value))));
        let (status, body) = match found {
            Ok(Some(Some(caller))) => (200, show::quota(caller, &|limit| snapshot.tally(limit, x.arrived))),
            Ok(Some(None)) => (401, json!({"error": Refusal::VirtualKeyNotFound { enforced: true }.to_string()})),
            Ok(None) => (401, json!({"error": Refusal::VirtualKeyRequired.to_string()})),
            Err(_) => (401, json!({"error": Refusal::VirtualKeyAmbiguous.to_string()})),
        };
        self.say(session, x, status, body.to_string().into_bytes()).await
    }

    async fn say(&self, session: &mut Session, x: &mut Exchange, status: u16, body: Vec<u8>) -> Result<(), Halt> {
        respond::json(session, status, body, None, x).await.map_err(|_| Halt::ClientGone)
    }
}

/// Whether a model is among those listed, with its provider's name or without.
fn known(models: &[String], id: &str) -> bool {
    models.iter().any(|model| model == id || model.split_once('/').is_some_and(|(_, bare)| bare == id))
}

/// Notes the web page that calls. The answer to a browser that asks what it may send, if it does.
fn page(head: &RequestHeader, client: &ClientConfig, x: &mut Exchange) -> Result<Option<HeaderMap>, Refusal> {
    let cors = Cors { origins: &client.allowed_origins, headers: &client.allowed_headers, local: true };
    let origin = cors.origin(&head.headers);
    x.page.clone_from(&origin);
    if !is_preflight(&head.method, &head.headers) {
        return Ok(None);
    }
    let origin = origin.ok_or(Refusal::OriginNotAllowed)?;
    Ok(Some(cors.preflight(origin, &head.headers)))
}

/// A head that says twice how long its body is reads differently to different servers. Pingora has
/// dropped one of the two by now, so the raw head is asked.
fn refuse_two_lengths(session: &Session) -> Result<(), Refusal> {
    if !session.req_header().headers.contains_key(header::TRANSFER_ENCODING) {
        return Ok(());
    }
    let Some(h1) = session.as_downstream().as_http1() else { return Ok(()) };
    let raw = h1.get_headers_raw_bytes();
    let mut names = raw.split(|&byte| byte == b'\n').filter_map(|line| line.split(|&byte| byte == b':').next());
    match names.any(|name| name.eq_ignore_ascii_case(b"content-length")) {
        true => Err(Refusal::AmbiguousLength),
        false => Ok(()),
    }
}

fn own_request_id(id: ChargeId) -> HeaderValue {
    HeaderValue::try_from(format!("{:032x}", id.0)).expect("hexadecimal digits are visible ASCII")
}

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = Exchange;

    fn new_ctx(&self) -> Exchange {
        Exchange::new(self.state.clock.now(), &self.open_requests)
    }

    async fn request_filter(&self, session: &mut Session, x: &mut Exchange) -> pingora::Result<bool> {
        if session.get_keepalive().is_some() {
            // Pingora keeps a connection for as long as its client likes; so many idle ones add up.
            session.set_keepalive(Some(IDLE_CLIENT_SECONDS));
        }
        // Without this, one stray byte after a body would pass for a client that left.
        session.set_pipelining_enabled(true);
        let id = client_request_id(&session.req_header().headers);
        x.request_id = Some(id.unwrap_or_else(|| own_request_id(self.state.new_id())));
        let mut about = About::default();
        match self.serve(session, x, &mut about).await {
            Ok(()) => {}
            Err(Halt::Refused(refusal)) => {
                self.metrics.refused(&refusal);
                tracing::debug!(
                    request_id = x.request_id_text(),
                    code = refusal.code(),
                    rule = x.rule.as_ref().map(|rule| &*rule.name),
                    model = about.model,
                    %refusal,
                    "refused"
                );
                respond::refusal(session, &refusal, &about, x).await?;
            }
            Err(Halt::Failed(failure)) => respond::failure(session, &failure, &about, x).await?,
            Err(Halt::ClientGone) => {
                x.client_left = true;
                session.set_keepalive(None);
            }
        }
        Ok(true)
    }

    /// Never reached: `request_filter` answers everything.
    async fn upstream_peer(&self, _: &mut Session, _: &mut Exchange) -> pingora::Result<Box<HttpPeer>> {
        pingora::Error::e_explain(pingora::ErrorType::InternalError, "requests are forwarded by request_filter")
    }

    async fn logging(&self, session: &mut Session, _: Option<&pingora::Error>, x: &mut Exchange) {
        let status = x.status.filter(|_| !x.client_left);
        self.metrics.answered(status, since(x.started));
        tracing::debug!(
            request_id = x.request_id_text(),
            path = session.req_header().uri.path(),
            status = x.status,
            client_left = x.client_left,
            attempts = x.attempts,
            rule = x.rule.as_ref().map(|rule| &*rule.name),
            took_ms = u64::try_from(since(x.started).as_millis()).unwrap_or(u64::MAX),
            "request"
        );
    }
}

/// For those who wait until nothing is open any more.
pub fn is_idle(open_requests: &AtomicI64) -> bool {
    open_requests.load(Ordering::Acquire) <= 0
}
