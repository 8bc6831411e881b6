//! Reaching providers: names to addresses, addresses to connections, connections kept for the next.
//!
//! A name is looked up before its first use and refreshed in the background after that, so a slow
//! name server delays nobody who has an address already.

use crate::governance::entity::Network;
use crate::state::clock::{since, stopwatch};
use crate::wire::certificate;
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
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const TLS_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an idle connection to a provider is kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
const NAME_TTL: Duration = Duration::from_secs(30);
/// Calls that share one HTTP/2 connection.
const H2_STREAMS_MAX: usize = 100;
/// Addresses of one name that are tried, one after the other.
const ADDRESSES_MAX: usize = 4;
/// Peers kept for one origin; more addresses than these come and go.
const PEERS_MAX: usize = 16;

pub(super) struct Dialer {
    connector: Connector,
    private_addresses: bool,
    /// Group keys of peers that share no connection.
    alone: AtomicU64,
    /// By URL without its path. Grows only with what is configured.
    origins: RwLock<HashMap<Box<str>, Arc<Origin>>>,
}

/// A provider's scheme, host and port, and where a URL's path begins.
pub(super) struct Origin {
    tls: bool,
    host: Box<str>,
    port: u16,
    authority: HeaderValue,
    /// Path and query of the URL, without a slash at the end.
    path: Box<str>,
    /// The address, where the host is one.
    literal: Option<Arc<[IpAddr]>>,
    known: RwLock<Option<Known>>,
    refreshing: AtomicBool,
    /// Peers as they were built before: building one costs more than everything else about dialling.
    peers: RwLock<Vec<Built>>,
}

/// A peer and what it was built from.
struct Built {
    address: IpAddr,
    verify: bool,
    enforce_http2: bool,
    /// Who vouches for it, in PEM.
    authorities: Option<Arc<str>>,
    peer: Arc<HttpPeer>,
}

#[derive(Clone)]
struct Known {
    addresses: Arc<[IpAddr]>,
    since: Instant,
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
    Resolve { host: String, source: std::io::Error },
    #[error("{host} has no address")]
    NoAddress { host: String },
    #[error("address {address} of {host} is not allowed by server.upstream_private_addresses, or never is")]
    Forbidden { host: String, address: IpAddr },
    #[error("the certificates in ca_cert_pem for {host} cannot be used: {problem}")]
    Authorities { host: String, problem: &'static str },
    #[error("cannot connect to {host}")]
    Connect { host: String, source: Box<pingora::Error>, timed_out: bool },
}

impl Dialer {
    pub(super) fn new(options: ConnectorOptions, private_addresses: bool) -> Dialer {
        Dialer {
            connector: Connector::new(Some(options)),
            private_addresses,
            alone: AtomicU64::new(1),
            origins: RwLock::default(),
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
    pub(super) async fn connect(&self, origin: &Arc<Origin>, network: &Network, new: bool) -> Result<Line, DialError> {
        let host = || origin.host.to_string();
        let mut failure = DialError::NoAddress { host: host() };
        for &address in origin.addresses().await?.iter().take(ADDRESSES_MAX) {
            if !allowed(address, self.private_addresses) {
                failure = DialError::Forbidden { host: host(), address };
                continue;
            }
            let peer = origin.peer(address, network)?;
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
                Err(source) => {
                    let timed_out = matches!(
                        source.etype(),
                        pingora::ErrorType::ConnectTimedout | pingora::ErrorType::TLSHandshakeTimedout
                    );
                    failure = DialError::Connect { host: host(), source, timed_out };
                }
            }
        }
        Err(failure)
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
        let host = uri.host()?;
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        Some(Origin {
            tls,
            host: bare.into(),
            port: uri.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            authority: HeaderValue::from_str(uri.authority()?.as_str()).ok()?,
            path: uri.path_and_query().map_or("", PathAndQuery::as_str).trim_end_matches('/').into(),
            literal: bare.parse().ok().map(|address: IpAddr| Arc::from([address])),
            known: RwLock::default(),
            refreshing: AtomicBool::new(false),
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

    fn peer(&self, address: IpAddr, network: &Network) -> Result<Arc<HttpPeer>, DialError> {
        let is_it = |built: &&Built| built.address == address && built.is_for(network);
        if let Some(built) = self.peers.read().unwrap_or_else(PoisonError::into_inner).iter().find(is_it) {
            return Ok(Arc::clone(&built.peer));
        }
        let peer = Arc::new(self.build_peer(address, network)?);
        let mut peers = self.peers.write().unwrap_or_else(PoisonError::into_inner);
        if peers.len() >= PEERS_MAX {
            peers.clear();
        }
        peers.push(Built {
            address,
            verify: !network.insecure_skip_verify,
            enforce_http2: network.enforce_http2,
            authorities: network.ca_cert_pem.clone(),
            peer: Arc::clone(&peer),
        });
        Ok(peer)
    }

    fn build_peer(&self, address: IpAddr, network: &Network) -> Result<HttpPeer, DialError> {
        let mut peer = HttpPeer::new(SocketAddr::new(address, self.port), self.tls, self.host.to_string());
        if let Some(pem) = &network.ca_cert_pem {
            let fault = |problem| DialError::Authorities { host: self.host.to_string(), problem };
            let found = certificate::read(pem).map_err(fault)?;
            peer.options.ca = Some(found.into_iter().map(|der| WrappedX509::new(der, parse_x509)).collect());
            // What a connection was verified by is no part of its key otherwise, and it must not be shared
            // with those who trust somebody else.
            let mut hasher = DefaultHasher::new();
            pem.hash(&mut hasher);
            peer.group_key = hasher.finish() | 1 << 63;
        }
        let options = &mut peer.options;
        options.connection_timeout = Some(CONNECT_TIMEOUT);
        options.total_connection_timeout = Some(TLS_TIMEOUT);
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

    async fn addresses(self: &Arc<Self>) -> Result<Arc<[IpAddr]>, DialError> {
        if let Some(literal) = &self.literal {
            return Ok(Arc::clone(literal));
        }
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(known) = known else { return self.look_up().await };
        if since(known.since) > NAME_TTL && !self.refreshing.swap(true, Ordering::AcqRel) {
            let origin = Arc::clone(self);
            tokio::spawn(async move {
                if let Err(error) = origin.look_up().await {
                    tracing::warn!(host = %origin.host, %error, "name not refreshed; keeping its last addresses");
                }
                origin.refreshing.store(false, Ordering::Release);
            });
        }
        Ok(known.addresses)
    }

    async fn look_up(&self) -> Result<Arc<[IpAddr]>, DialError> {
        let host = || self.host.to_string();
        let found = tokio::net::lookup_host((&*self.host, self.port)).await;
        let found = found.map_err(|source| DialError::Resolve { host: host(), source })?;
        let mut addresses: Vec<IpAddr> = found.map(|address| address.ip()).collect();
        if addresses.is_empty() {
            return Err(DialError::NoAddress { host: host() });
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        // Staying with the address in use keeps its connections in use.
        if let Some(used) = known.as_ref().and_then(|known| known.addresses.first().copied())
            && let Some(at) = addresses.iter().position(|&address| address == used)
        {
            addresses.swap(0, at);
        }
        let addresses: Arc<[IpAddr]> = addresses.into();
        *known = Some(Known { addresses: Arc::clone(&addresses), since: stopwatch() });
        Ok(addresses)
    }
}

impl Built {
    fn is_for(&self, network: &Network) -> bool {
        self.verify != network.insecure_skip_verify
            && self.enforce_http2 == network.enforce_http2
            && self.authorities == network.ca_cert_pem
    }
}

impl DialError {
    pub(super) fn timed_out(&self) -> bool {
        matches!(self, DialError::Connect { timed_out: true, .. })
    }
}

/// Whether a provider may live at `address`. Link-local addresses, where cloud metadata services
/// answer, and addresses that are no host's, never.
fn allowed(address: IpAddr, private: bool) -> bool {
    match address {
        IpAddr::V4(v4) => allowed_v4(v4, private),
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => allowed_v4(v4, private),
            None => allowed_v6(v6, private),
        },
    }
}

fn allowed_v4(address: Ipv4Addr, private: bool) -> bool {
    let [a, b, ..] = address.octets();
    let never = a == 0 || address.is_link_local() || address.is_multicast() || address.is_broadcast();
    let shared = a == 100 && (64..128).contains(&b);
    !never && (private || !(address.is_private() || address.is_loopback() || shared))
}

fn allowed_v6(address: Ipv6Addr, private: bool) -> bool {
    const EC2_METADATA: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
    let never = address.is_unspecified()
        || address.is_unicast_link_local()
        || address.is_multicast()
        || address == EC2_METADATA;
    !never && (private || !(address.is_loopback() || address.is_unique_local()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_never_a_provider() {
        let check = |address: &str, open: bool, closed: bool| {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!((allowed(address, true), allowed(address, false)), (open, closed), "{address}");
        };
        check("1.2.3.4", true, true);
        check("127.0.0.1", true, false);
        check("10.0.0.1", true, false);
        check("172.16.9.9", true, false);
        check("100.64.0.1", true, false);
        check("169.254.169.254", false, false);
        check("0.0.0.0", false, false);
        check("::1", true, false);
        check("fe80::1", false, false);
        check("fd00:ec2::254", false, false);
        check("fd00::1", true, false);
        check("::ffff:169.254.169.254", false, false);
        check("2606:4700::1", true, true);
    }

    #[test]
    fn urls_are_taken_apart() {
        let origin = Origin::parse("https://api.example.com/openai/").unwrap();
        assert_eq!((origin.tls, &*origin.host, origin.port, &*origin.path), (true, "api.example.com", 443, "/openai"));
        let origin = Origin::parse("http://[::1]:8000").unwrap();
        assert_eq!((origin.tls, &*origin.host, origin.port, &*origin.path), (false, "::1", 8000, ""));
        assert!(Origin::parse("ftp://x").is_none() && Origin::parse("x").is_none());
    }
}
