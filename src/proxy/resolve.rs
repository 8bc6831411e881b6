//! Names and the addresses they have, and which addresses are nobody's business.
//!
//! A name is looked up before its first use and refreshed in the background after that, so a slow
//! name server delays nobody who has an address already. One look-up serves everybody who waits for it.

use super::dial::DialError;
use crate::state::clock::{since, stopwatch};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::timeout;

const NAME_TTL: Duration = Duration::from_secs(30);
/// A name that could not be looked up is not looked up again before this.
const FAILURE_TTL: Duration = Duration::from_secs(1);
/// Nobody waits longer for a name server.
const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(5);

/// A name or an address, and a port.
pub(super) struct Host {
    /// Without brackets.
    pub(super) name: Box<str>,
    pub(super) port: u16,
    /// The address, where the name is one.
    literal: Option<Arc<[IpAddr]>>,
    known: watch::Sender<Known>,
    /// Somebody looks it up, for everybody.
    looking: AtomicBool,
}

#[derive(Clone, Default)]
struct Known {
    addresses: Option<Arc<[IpAddr]>>,
    /// When the last look-up ended.
    since: Option<Instant>,
    /// How it ended, if it was in vain.
    failure: Option<Arc<std::io::Error>>,
}

impl Known {
    fn is_older_than(&self, age: Duration) -> bool {
        self.since.is_none_or(|at| since(at) > age)
    }
}

impl Host {
    pub(super) fn new(name: &str, port: u16) -> Host {
        Host {
            name: name.into(),
            port,
            literal: name.parse().ok().map(|address: IpAddr| Arc::from([address])),
            known: watch::Sender::default(),
            looking: AtomicBool::new(false),
        }
    }

    pub(super) async fn addresses(self: &Arc<Self>) -> Result<Arc<[IpAddr]>, DialError> {
        if let Some(literal) = &self.literal {
            return Ok(Arc::clone(literal));
        }
        // Before anything is read: what changes after this is seen.
        let mut news = self.known.subscribe();
        let known = news.borrow_and_update().clone();
        if let Some(addresses) = known.addresses.as_ref() {
            if known.is_older_than(NAME_TTL) {
                self.look_up();
            }
            return Ok(Arc::clone(addresses));
        }
        // A name server that fails is not asked by every call, and one that is slow only once at a time: each
        // look-up takes a thread, and the names of other providers need some, too.
        if known.is_older_than(FAILURE_TTL) {
            self.look_up();
            // An end of this wait is also told by the time alone.
            let _ = timeout(LOOK_UP_TIMEOUT, news.changed()).await;
        }
        let known = news.borrow().clone();
        known.addresses.ok_or_else(|| DialError::Resolve { host: self.name.to_string(), source: known.failure })
    }

    /// Looks the name up in the background, unless somebody does already.
    fn look_up(self: &Arc<Self>) {
        if self.looking.swap(true, Ordering::AcqRel) {
            return;
        }
        let host = Arc::clone(self);
        tokio::spawn(async move {
            let found = tokio::net::lookup_host((&*host.name, host.port)).await;
            host.learn(found.map(|found| found.map(|address| address.ip()).collect()));
            host.looking.store(false, Ordering::Release);
        });
    }

    fn learn(&self, found: std::io::Result<Vec<IpAddr>>) {
        self.known.send_modify(|known| {
            known.since = Some(stopwatch());
            match found {
                Ok(mut addresses) if !addresses.is_empty() => {
                    // Staying with the address in use keeps its connections in use.
                    let used = known.addresses.as_ref().and_then(|known| known.first().copied());
                    if let Some(at) = used.and_then(|used| addresses.iter().position(|&address| address == used)) {
                        addresses.swap(0, at);
                    }
                    (known.addresses, known.failure) = (Some(addresses.into()), None);
                }
                found => {
                    let error = found.err().unwrap_or_else(|| std::io::ErrorKind::NotFound.into());
                    if known.addresses.is_some() {
                        tracing::warn!(host = %self.name, %error, "name not refreshed; keeping its last addresses");
                    }
                    known.failure = Some(Arc::new(error));
                }
            }
        });
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
    let [a, b, c, _] = address.octets();
    let is_no_host = a == 0 || a >= 240 || address.is_link_local() || address.is_multicast();
    let never = is_no_host || METADATA.contains(&address);
    let shared = a == 100 && (64..128).contains(&b);
    // For protocols, and for measuring networks: some clouds have their metadata there.
    let special = (a, b, c) == (192, 0, 0) || (a == 198 && (18..20).contains(&b));
    !never && (private || !(address.is_private() || address.is_loopback() || shared || special))
}

fn allowed_v6(address: Ipv6Addr, private: bool) -> bool {
    const EC2_METADATA: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
    let never = address.is_unspecified()
        || address.is_unicast_link_local()
        || address.is_multicast()
        || address == EC2_METADATA;
    // fec0::/10, as private networks were once numbered.
    let site_local = address.segments()[0] & 0xffc0 == 0xfec0;
    !never && (private || !(address.is_loopback() || address.is_unique_local() || site_local))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_look_up_serves_all_and_a_failure_is_remembered() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let host = Arc::new(Host::new("nobody.invalid", 80));
            // Somebody looks, and takes their time.
            host.looking.store(true, Ordering::Release);
            let (first, second) = (host.addresses(), host.addresses());
            let answer = async {
                tokio::task::yield_now().await;
                host.learn(Ok(vec![IpAddr::from([127, 0, 0, 2]), IpAddr::from([127, 0, 0, 1])]));
            };
            let (first, second, ()) = tokio::join!(first, second, answer);
            assert_eq!((first.unwrap().len(), second.unwrap().len()), (2, 2));
            // The one in use stays the first; a failure later changes nothing.
            host.learn(Ok(vec![IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2])]));
            host.learn(Err(std::io::ErrorKind::TimedOut.into()));
            assert_eq!(host.addresses().await.unwrap().first(), Some(&IpAddr::from([127, 0, 0, 2])));
            // A name that is unknown is not asked for by every call.
            let unknown = Arc::new(Host::new("nobody.invalid", 80));
            unknown.learn(Ok(Vec::new()));
            assert!(unknown.addresses().await.is_err());
            assert!(!unknown.looking.load(Ordering::Acquire));
            // An address is its own.
            let literal = Arc::new(Host::new("::1", 80));
            assert_eq!(literal.addresses().await.unwrap().len(), 1);
        });
    }

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
        check("192.0.0.192", true, false);
        check("198.18.0.1", true, false);
        check("198.20.0.1", true, true);
        check("255.255.255.255", false, false);
        check("240.0.0.1", false, false);
        check("fec0::1", true, false);
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
