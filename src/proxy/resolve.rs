//! Names and the addresses they have, and which addresses are nobody's business.
//!
//! A name is looked up before its first use and refreshed in the background after that, so a slow
//! name server delays nobody who has an address already.

use super::dial::DialError;
use crate::state::clock::{since, stopwatch};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

const NAME_TTL: Duration = Duration::from_secs(30);

/// A name or an address, and a port.
pub(super) struct Host {
    /// Without brackets.
    pub(super) name: Box<str>,
    pub(super) port: u16,
    /// The address, where the name is one.
    literal: Option<Arc<[IpAddr]>>,
    known: RwLock<Option<Known>>,
    refreshing: AtomicBool,
}

#[derive(Clone)]
struct Known {
    addresses: Arc<[IpAddr]>,
    since: Instant,
}

impl Host {
    pub(super) fn new(name: &str, port: u16) -> Host {
        Host {
            name: name.into(),
            port,
            literal: name.parse().ok().map(|address: IpAddr| Arc::from([address])),
            known: RwLock::default(),
            refreshing: AtomicBool::new(false),
        }
    }

    pub(super) async fn addresses(self: &Arc<Self>) -> Result<Arc<[IpAddr]>, DialError> {
        if let Some(literal) = &self.literal {
            return Ok(Arc::clone(literal));
        }
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(known) = known else { return self.look_up().await };
        if since(known.since) > NAME_TTL && !self.refreshing.swap(true, Ordering::AcqRel) {
            let host = Arc::clone(self);
            tokio::spawn(async move {
                if let Err(error) = host.look_up().await {
                    tracing::warn!(host = %host.name, %error, "name not refreshed; keeping its last addresses");
                }
                host.refreshing.store(false, Ordering::Release);
            });
        }
        Ok(known.addresses)
    }

    async fn look_up(&self) -> Result<Arc<[IpAddr]>, DialError> {
        let host = || self.name.to_string();
        let found = tokio::net::lookup_host((&*self.name, self.port)).await;
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

/// Whether a proxy may be asked for this host. It finds a name's addresses itself and we never see them, so
/// what can be known of a name is judged by the name.
pub(super) fn may_ask_for(host: &str, private: bool) -> bool {
    const METADATA: [&str; 2] = ["metadata.google.internal", "metadata.goog"];
    if let Ok(address) = host.parse() {
        return allowed(address, private);
    }
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    let last = name.rsplit('.').next().unwrap_or_default();
    // Resolvers take 2852039166 and 0xa9fea9fe for addresses, too.
    let is_number = !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit()) || last.starts_with("0x");
    !is_number && !METADATA.contains(&name.as_str()) && (private || last != "localhost")
}

/// Whether a provider may live at `address`. Link-local addresses, where cloud metadata services
/// answer, and addresses that are no host's, never.
pub(super) fn allowed(address: IpAddr, private: bool) -> bool {
    match address {
        IpAddr::V4(v4) => allowed_v4(v4, private),
        IpAddr::V6(v6) => match v6.to_ipv4_mapped().or_else(|| translated(v6)) {
            Some(v4) => allowed_v4(v4, private),
            None => allowed_v6(v6, private),
        },
    }
}

/// The address behind NAT64's well-known prefix.
fn translated(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [0x64, 0xff9b, 0, 0, 0, 0, high, low] = address.segments() else { return None };
    Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
}

fn allowed_v4(address: Ipv4Addr, private: bool) -> bool {
    /// Metadata services of clouds outside the link-local range.
    const METADATA: [Ipv4Addr; 2] = [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(168, 63, 129, 16)];
    let [a, b, ..] = address.octets();
    let is_no_host = a == 0 || address.is_link_local() || address.is_multicast() || address.is_broadcast();
    let never = is_no_host || METADATA.contains(&address);
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
        check("100.100.100.200", false, false);
        check("168.63.129.16", false, false);
        check("64:ff9b::a9fe:a9fe", false, false);
        check("64:ff9b::a00:1", true, false);
        check("64:ff9b::102:304", true, true);
        check("::1", true, false);
        check("fe80::1", false, false);
        check("fd00:ec2::254", false, false);
        check("fd00::1", true, false);
        check("::ffff:169.254.169.254", false, false);
        check("2606:4700::1", true, true);
    }

    #[test]
    fn a_proxy_is_not_asked_for_what_nobody_may_reach() {
        let check = |host: &str, open: bool, closed: bool| {
            assert_eq!((may_ask_for(host, true), may_ask_for(host, false)), (open, closed), "{host}");
        };
        check("api.example.com", true, true);
        check("localhost", true, false);
        check("llm.LOCALHOST.", true, false);
        check("127.0.0.1", true, false);
        check("1.2.3.4", true, true);
        check("169.254.169.254", false, false);
        check("::ffff:169.254.169.254", false, false);
        check("169.254.169.254.", false, false);
        check("2852039166", false, false);
        check("0xa9fea9fe", false, false);
        check("169.254.43518", false, false);
        check("169.254.0xa9fe", false, false);
        check("Metadata.Google.Internal.", false, false);
        check("gpt4.example", true, true);
        check("0x.example", true, true);
    }
}
