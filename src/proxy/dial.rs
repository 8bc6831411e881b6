//! Reaching providers: straight or through a proxy, on connections that are kept for the next call.
//!
//! Invariant: a provider with a proxy is reached through it and in no other way, and a kept connection serves
//! those alone who would have made it in the same way.

use super::resolve::{Host, allowed, may_ask_for};
use super::through::{Tunnel, TunnelError};
use crate::governance::entity::{Network, Provider, ProxyKind, UpstreamProxy};
use crate::wire::certificate;
use crate::wire::proxy_url::{Environment, ProxyUrl, authority};
use http::uri::PathAndQuery;
use http::{HeaderValue, Uri};
use pingora::connectors::ConnectorOptions;
use pingora::connectors::http::Connector;
use pingora::protocols::ALPN;
use pingora::protocols::http::client::HttpSession;
use pingora::upstreams::peer::HttpPeer;
use pingora::utils::tls::{WrappedX509, parse_x509};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const TLS_TIMEOUT: Duration = Duration::from_secs(10);
/// A proxy looks the provider up and connects to it before it says that the way is open.
const TUNNEL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an idle connection to a provider is kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Calls that share one HTTP/2 connection.
const H2_STREAMS_MAX: usize = 100;
/// Addresses of one name that are tried, one after the other.
const ADDRESSES_MAX: usize = 4;
/// Peers kept for one origin; more addresses than these come and go.
const PEERS_MAX: usize = 16;

pub(super) struct Dialer {
    connector: Connector,
    private_addresses: bool,
    environment: Result<Environment, String>,
    /// Group keys of peers that share no connection.
    alone: AtomicU64,
    /// By URL without its path. Grows only with what is configured.
    origins: RwLock<HashMap<Box<str>, Arc<Origin>>>,
    /// By host and port. Grows only with what is configured, too.
    proxies: RwLock<HashMap<Box<str>, Arc<Host>>>,
}

/// A provider's scheme, host and port, and where a URL's path begins.
pub(super) struct Origin {
    tls: bool,
    host: Arc<Host>,
    authority: HeaderValue,
    /// Path and query of the URL, without a slash at the end.
    path: Box<str>,
    /// Peers as they were built before: building one costs more than everything else about dialling.
    peers: RwLock<Vec<Built>>,
}

/// A peer and what it was built from.
struct Built {
    /// The origin's, or that of its proxy.
    address: IpAddr,
    proxy: Option<ProxyUrl>,
    verify: bool,
    enforce_http2: bool,
    /// Who vouches for it, in PEM.
    authorities: Option<Arc<str>>,
    peer: Arc<HttpPeer>,
}

/// A connection on loan, with what is needed to give it back.
pub(super) struct Line {
    pub(super) session: HttpSession,
    pub(super) reused: bool,
    /// The request did not go out whole: what is sent next would be taken for the rest of it.
    pub(super) half_sent: bool,
    peer: Arc<HttpPeer>,
}

/// Why there is no connection. None of these sent a byte of the request.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    #[error("'{0}' is not a usable URL")]
    Url(String),
    #[error("cannot resolve {host}")]
    Resolve { host: String, source: Option<Arc<std::io::Error>> },
    #[error("{host} has no address")]
    NoAddress { host: String },
    #[error("address {address} of {host} is not allowed by server.upstream_private_addresses, or never is")]
    Forbidden { host: String, address: IpAddr },
    #[error("{host} is not allowed by server.upstream_private_addresses, or never is, and is not asked for at a proxy")]
    NotAskedFor { host: String },
    #[error("{problem}")]
    Environment { problem: String },
    #[error("no way to {host} through the proxy {proxy}: {problem}")]
    Proxy { host: String, proxy: String, problem: String, timed_out: bool },
    #[error("the certificates in ca_cert_pem for {host} cannot be used: {problem}")]
    Authorities { host: String, problem: &'static str },
    #[error("cannot connect to {host}")]
    Connect { host: String, source: Box<pingora::Error>, timed_out: bool },
}

impl Dialer {
    pub(super) fn new(
        options: ConnectorOptions,
        private_addresses: bool,
        environment: Result<Environment, String>,
    ) -> Dialer {
        Dialer {
            connector: Connector::new(Some(options)),
            private_addresses,
            environment,
            alone: AtomicU64::new(1),
            origins: RwLock::default(),
            proxies: RwLock::default(),
        }
    }

    /// What is known about the origin of `url`.
    pub(super) fn origin(&self, url: &str) -> Result<Arc<Origin>, DialError> {
        if let Some(origin) = self.origins.read().unwrap_or_else(PoisonError::into_inner).get(url) {
            return Ok(Arc::clone(origin));
        }
        let origin = Arc::new(Origin::parse(url).ok_or_else(|| DialError::Url(url.into()))?);
        let mut origins = self.origins.write().unwrap_or_else(PoisonError::into_inner);
        Ok(Arc::clone(origins.entry(url.into()).or_insert(origin)))
    }

    /// A connection to `origin`: a kept one if there is any, unless it must be a new one.
    pub(super) async fn connect(&self, origin: &Origin, provider: &Provider, new: bool) -> Result<Line, DialError> {
        let name = || origin.host.name.to_string();
        let proxy = provider.proxy.as_ref().map_or(Ok(None), |proxy| self.proxy_for(origin, proxy))?;
        let (host, private) = match &proxy {
            None => (Arc::clone(&origin.host), self.private_addresses),
            Some(_) if !may_ask_for(&origin.host.name, self.private_addresses) => {
                return Err(DialError::NotAskedFor { host: name() });
            }
            // The process's own environment is the operator's; what is declared is an administrator's.
            Some(proxy) => {
                let environment = provider.proxy.as_ref().is_some_and(|proxy| proxy.kind == ProxyKind::Environment);
                (self.host_of(proxy), environment || self.private_addresses)
            }
        };
        let mut failure = DialError::NoAddress { host: host.name.to_string() };
        for &address in host.addresses().await?.iter().take(ADDRESSES_MAX) {
            if !allowed(address, private) {
                failure = DialError::Forbidden { host: host.name.to_string(), address };
                continue;
            }
            let peer = origin.peer(address, proxy.as_ref(), &provider.network)?;
            let got = if new {
                // No kept connection has this key.
                let mut alone = HttpPeer::clone(&peer);
                alone.group_key = self.alone.fetch_add(1, Ordering::Relaxed);
                self.connector.get_http_session(&alone).await
            } else {
                self.connector.get_http_session(&*peer).await
            };
            match got {
                Ok((session, reused)) => return Ok(Line { session, reused, half_sent: false, peer }),
                Err(error) => failure = DialError::of(error, name(), proxy.as_ref()),
            }
        }
        Err(failure)
    }

    /// The proxy for `origin`. None: the environment has none for it.
    fn proxy_for(&self, origin: &Origin, proxy: &UpstreamProxy) -> Result<Option<ProxyUrl>, DialError> {
        if proxy.kind == ProxyKind::Environment {
            let environment = self.environment.as_ref();
            let environment = environment.map_err(|problem| DialError::Environment { problem: problem.clone() })?;
            return Ok(environment.proxy_for(origin.tls, &origin.host.name, origin.host.port).cloned());
        }
        let url = ProxyUrl::parse(&proxy.url).map_err(|_| DialError::Url(proxy.url.clone()))?;
        Ok(Some(ProxyUrl { username: proxy.username.clone(), password: proxy.password.clone(), ..url }))
    }

    fn host_of(&self, proxy: &ProxyUrl) -> Arc<Host> {
        let key = authority(&proxy.host, proxy.port);
        if let Some(host) = self.proxies.read().unwrap_or_else(PoisonError::into_inner).get(key.as_str()) {
            return Arc::clone(host);
        }
        let mut proxies = self.proxies.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(proxies.entry(key.into()).or_insert_with(|| Arc::new(Host::new(&proxy.host, proxy.port))))
    }

    /// Keeps a connection whose request and answer went through whole, and closes any other.
    pub(super) async fn release(&self, mut line: Line) {
        if line.half_sent {
            return line.session.shutdown().await;
        }
        self.connector.release_http_session(line.session, &*line.peer, Some(IDLE_TIMEOUT)).await;
    }
}

impl Origin {
    fn parse(url: &str) -> Option<Origin> {
        let uri: Uri = url.parse().ok()?;
        let tls = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let host = uri.host()?.trim_start_matches('[').trim_end_matches(']');
        Some(Origin {
            tls,
            host: Arc::new(Host::new(host, uri.port_u16().unwrap_or(if tls { 443 } else { 80 }))),
            authority: HeaderValue::from_str(uri.authority()?.as_str()).ok()?,
            path: uri.path_and_query().map_or("", PathAndQuery::as_str).trim_end_matches('/').into(),
            peers: RwLock::default(),
        })
    }

    pub(super) fn authority(&self) -> &HeaderValue {
        &self.authority
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    pub(super) fn is_tls(&self) -> bool {
        self.tls
    }

    fn peer(&self, address: IpAddr, proxy: Option<&ProxyUrl>, network: &Network) -> Result<Arc<HttpPeer>, DialError> {
        let is_it = |built: &&Built| built.address == address && built.is_for(proxy, network);
        if let Some(built) = self.peers.read().unwrap_or_else(PoisonError::into_inner).iter().find(is_it) {
            return Ok(Arc::clone(&built.peer));
        }
        let peer = Arc::new(self.build_peer(address, proxy, network)?);
        let mut peers = self.peers.write().unwrap_or_else(PoisonError::into_inner);
        if peers.len() >= PEERS_MAX {
            peers.clear();
        }
        peers.push(Built {
            address,
            proxy: proxy.cloned(),
            verify: !network.insecure_skip_verify,
            enforce_http2: network.enforce_http2,
            authorities: network.ca_cert_pem.clone(),
            peer: Arc::clone(&peer),
        });
        Ok(peer)
    }

    fn build_peer(&self, address: IpAddr, proxy: Option<&ProxyUrl>, network: &Network) -> Result<HttpPeer, DialError> {
        let name = &self.host.name;
        let port = proxy.map_or(self.host.port, |proxy| proxy.port);
        let mut peer = HttpPeer::new(SocketAddr::new(address, port), self.tls, name.to_string());
        peer.group_key = self.group_key(proxy, network);
        let options = &mut peer.options;
        if let Some(pem) = &network.ca_cert_pem {
            let fault = |problem| DialError::Authorities { host: name.to_string(), problem };
            let found = certificate::read(pem).map_err(fault)?;
            options.ca = Some(found.into_iter().map(|der| WrappedX509::new(der, parse_x509)).collect());
        }
        options.connection_timeout = Some(CONNECT_TIMEOUT);
        options.total_connection_timeout = Some(TLS_TIMEOUT);
        if let Some(proxy) = proxy {
            let (host, port) = (name.clone(), self.host.port);
            let tunnel = Tunnel { proxy: proxy.clone(), host, port, patience: TUNNEL_TIMEOUT };
            options.custom_l4 = Some(Arc::new(tunnel));
            options.total_connection_timeout = Some(TUNNEL_TIMEOUT + TLS_TIMEOUT);
        }
        options.idle_timeout = Some(IDLE_TIMEOUT);
        options.max_h2_streams = H2_STREAMS_MAX;
        options.verify_cert = !network.insecure_skip_verify;
        options.verify_hostname = !network.insecure_skip_verify;
        options.alpn = match (network.enforce_http2, self.tls) {
            (true, _) => ALPN::H2,
            (false, true) => ALPN::H2H1,
            (false, false) => ALPN::H1,
        };
        Ok(peer)
    }

    /// What tells connections apart beside address, scheme and name. What one was verified by and what lies
    /// behind the proxy at its other end are no part of its key otherwise, and it must not be shared with
    /// those who trust somebody else, who go elsewhere, or whom the proxy would not let in.
    fn group_key(&self, proxy: Option<&ProxyUrl>, network: &Network) -> u64 {
        if proxy.is_none() && network.ca_cert_pem.is_none() {
            return 0;
        }
        let mut hasher = DefaultHasher::new();
        network.ca_cert_pem.hash(&mut hasher);
        if let Some(proxy) = proxy {
            let ProxyUrl { kind, host, port, username, password } = proxy;
            (kind, host, port, username, password.as_ref().map(|password| password.expose())).hash(&mut hasher);
            (&self.host.name, self.host.port).hash(&mut hasher);
        }
        hasher.finish() | 1 << 63
    }
}

impl Built {
    fn is_for(&self, proxy: Option<&ProxyUrl>, network: &Network) -> bool {
        self.proxy.as_ref() == proxy
            && self.verify != network.insecure_skip_verify
            && self.enforce_http2 == network.enforce_http2
            && self.authorities == network.ca_cert_pem
    }
}

impl DialError {
    fn of(source: Box<pingora::Error>, host: String, proxy: Option<&ProxyUrl>) -> DialError {
        let timed_out =
            matches!(source.etype(), pingora::ErrorType::ConnectTimedout | pingora::ErrorType::TLSHandshakeTimedout);
        let problem = source.root_cause().downcast_ref::<TunnelError>().map(ToString::to_string);
        match (proxy, problem) {
            (Some(proxy), Some(problem)) => DialError::Proxy { host, proxy: proxy.to_string(), problem, timed_out },
            _ => DialError::Connect { host, source, timed_out },
        }
    }

    pub(super) fn timed_out(&self) -> bool {
        matches!(self, DialError::Connect { timed_out: true, .. } | DialError::Proxy { timed_out: true, .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let origin = Origin::parse("https://api.example.com/openai/").unwrap();
        let parts =
            |origin: &Origin| (origin.tls, origin.host.name.to_string(), origin.host.port, origin.path.to_string());
        assert_eq!(parts(&origin), (true, "api.example.com".into(), 443, "/openai".into()));
        let origin = Origin::parse("http://[::1]:8000").unwrap();
        assert_eq!(parts(&origin), (false, "::1".into(), 8000, String::new()));
        assert!(Origin::parse("ftp://x").is_none() && Origin::parse("x").is_none());
    }
}
