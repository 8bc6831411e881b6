//! The proxy that stands between us and a provider, where there is one.

use crate::governance::secret::Secret;

/// Every connection to the provider is made through it, never around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamProxy {
    pub kind: ProxyKind,
    /// Scheme, host and port, without a credential. Empty where the environment says it.
    pub url: String,
    /// Empty for a proxy that lets everybody in.
    pub username: String,
    pub password: Option<Secret>,
}

/// How a proxy is asked for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProxyKind {
    /// By `CONNECT`, whatever the provider speaks.
    Http,
    /// With names left for the proxy to resolve.
    Socks5,
    /// As `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` say.
    Environment,
}

impl ProxyKind {
    pub const ALL: [ProxyKind; 3] = [ProxyKind::Http, ProxyKind::Socks5, ProxyKind::Environment];

    pub const fn as_str(self) -> &'static str {
        match self {
            ProxyKind::Http => "http",
            ProxyKind::Socks5 => "socks5",
            ProxyKind::Environment => "environment",
        }
    }

    pub fn of(name: &str) -> Option<ProxyKind> {
        ProxyKind::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}
