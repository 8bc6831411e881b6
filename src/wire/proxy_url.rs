//! Proxies as URLs, and as the environment's variables name them. A URL may hold a password, so no fault
//! repeats it.

use super::env_text::Env;
use crate::governance::entity::ProxyKind;
use crate::governance::secret::Secret;
use http::Uri;
use std::fmt;
use std::net::IpAddr;

const HTTP: [&str; 4] = ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];
const HTTPS: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
const NO_PROXY: [&str; 2] = ["NO_PROXY", "no_proxy"];

/// Where a proxy is and who we are to it. Shown without the credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyUrl {
    /// Never `Environment`.
    pub kind: ProxyKind,
    /// A name or an address, without brackets.
    pub host: String,
    pub port: u16,
    /// Empty for a proxy that lets everybody in.
    pub username: String,
    pub password: Option<Secret>,
}

/// What the environment says about proxies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    http: Option<ProxyUrl>,
    https: Option<ProxyUrl>,
    exempt: Vec<Exempt>,
}

/// An entry of `NO_PROXY`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Exempt {
    place: Place,
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Everything,
    /// The host and everything below it.
    Domain(String),
    /// Only what is below it; with the dot.
    Below(String),
    /// An address, and how many of its first bits count.
    Net(IpAddr, u32),
}

impl ProxyUrl {
    /// Reads `http://` and `socks5://`, which may also be written `socks5h://`: names are always left to
    /// the proxy.
    pub fn parse(url: &str) -> Result<ProxyUrl, &'static str> {
        let uri: Uri = url.parse().map_err(|_| "is no URL")?;
        let (kind, usual_port) = match uri.scheme_str().map(str::to_ascii_lowercase).as_deref() {
            Some("http") => (ProxyKind::Http, 80),
            Some("socks5" | "socks5h") => (ProxyKind::Socks5, 1080),
            Some("https") => {
                return Err("must not begin with https://: this version does not speak TLS to the proxy itself");
            }
            _ => return Err("must begin with http:// or socks5://"),
        };
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() || url.contains('#') {
            return Err("must have nothing behind host and port");
        }
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let (user, place) = authority.rsplit_once('@').map_or((None, authority), |(user, place)| (Some(user), place));
        let host = uri.host().filter(|host| !host.is_empty()).ok_or("has no host")?;
        let port = match place.strip_prefix(host).unwrap_or_default() {
            "" => usual_port,
            port => {
                let port = port.strip_prefix(':').and_then(|port| port.parse().ok());
                port.filter(|port| *port != 0).ok_or("has no usable port")?
            }
        };
        let (username, password) = user.map_or(Ok((String::new(), None)), credential)?;
        Ok(ProxyUrl { kind, host: bare(host).to_owned(), port, username, password })
    }

    pub fn carries_credential(&self) -> bool {
        !self.username.is_empty() || self.password.is_some()
    }
}

impl fmt::Display for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.kind.as_str(), authority(&self.host, self.port))
    }
}

/// Host and port in one text.
pub fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

fn credential(user: &str) -> Result<(String, Option<Secret>), &'static str> {
    let (name, password) = user.split_once(':').map_or((user, None), |(name, password)| (name, Some(password)));
    let decoded = |text| decode(text).ok_or("has a user or password that cannot be read");
    let password = password.map(decoded).transpose()?;
    Ok((decoded(name)?, password.filter(|password| !password.is_empty()).map(Secret::new)))
}

/// Undoes `%40` and the like.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
        let value = digit()? * 16 + digit()?;
        bytes.push(u8::try_from(value).ok()?);
    }
    String::from_utf8(bytes).ok()
}

impl Environment {
    /// Reads the variables. One that is set and cannot be used is a fault: whoever set it wants no
    /// connection without a proxy.
    pub fn read(env: Env<'_>) -> Result<Environment, String> {
        let set =
            |name: &&'static str| Some((*name, env(name)?.trim().to_owned())).filter(|(_, text)| !text.is_empty());
        let proxy = |names: [&'static str; 4]| {
            let Some((name, text)) = names.iter().find_map(set) else { return Ok(None) };
            let text = if text.contains("://") { text } else { format!("http://{text}") };
            let read = ProxyUrl::parse(&text).and_then(|read| match &read {
                ProxyUrl { kind: ProxyKind::Socks5, password: None, username, .. } if !username.is_empty() => {
                    Err("has a user without a password")
                }
                _ => Ok(read),
            });
            read.map(Some).map_err(|problem| format!("environment variable {name} {problem}"))
        };
        let exempt = NO_PROXY.iter().find_map(set).map(|(_, text)| text).unwrap_or_default();
        let entries = exempt.split([',', ' ']).map(str::trim).filter(|entry| !entry.is_empty());
        Ok(Environment { http: proxy(HTTP)?, https: proxy(HTTPS)?, exempt: entries.map(Exempt::parse).collect() })
    }

    /// The proxy for this origin. None: it is reached without one.
    pub fn proxy_for(&self, tls: bool, host: &str, port: u16) -> Option<&ProxyUrl> {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let proxy = if tls { &self.https } else { &self.http };
        proxy.as_ref().filter(|_| !self.exempt.iter().any(|exempt| exempt.covers(&host, port)))
    }
}

impl Exempt {
    /// What is no entry of a known form is taken for a name, and exempts nothing that has another.
    fn parse(entry: &str) -> Exempt {
        let entry = entry.to_ascii_lowercase();
        let net = |text: &str| {
            let (address, bits) = text.split_once('/')?;
            let (address, bits) = (bare(address).parse::<IpAddr>().ok()?, bits.parse().ok()?);
            (bits <= width(address)).then_some(Place::Net(address, bits))
        };
        let address = |text: &str| bare(text).parse().ok().map(|address| Place::Net(address, width(address)));
        if let Some(place) = net(&entry).or_else(|| address(&entry)) {
            return Exempt { place, port: None };
        }
        let port = entry.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
        let (host, port) = port.map_or((entry.as_str(), None), |(host, port)| (host, Some(port)));
        let place = match host.strip_prefix('*').unwrap_or(host) {
            "" => Place::Everything,
            below if below.starts_with('.') => Place::Below(below.to_owned()),
            host => address(host).unwrap_or_else(|| Place::Domain(host.to_owned())),
        };
        Exempt { place, port }
    }

    fn covers(&self, host: &str, port: u16) -> bool {
        let is_below = |domain: &str| host.strip_suffix(domain).is_some_and(|rest| !rest.is_empty());
        self.port.is_none_or(|own| own == port)
            && match &self.place {
                Place::Everything => true,
                Place::Domain(domain) => host == domain || is_below(&format!(".{domain}")),
                Place::Below(domain) => is_below(domain),
                Place::Net(net, bits) => host.parse().is_ok_and(|address| is_within(address, *net, *bits)),
            }
    }
}

fn width(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn is_within(address: IpAddr, net: IpAddr, bits: u32) -> bool {
    match (address, net) {
        (IpAddr::V4(address), IpAddr::V4(net)) => {
            (address.to_bits() ^ net.to_bits()).checked_shr(32 - bits).unwrap_or(0) == 0
        }
        (IpAddr::V6(address), IpAddr::V6(net)) => {
            (address.to_bits() ^ net.to_bits()).checked_shr(128 - bits).unwrap_or(0) == 0
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let check = |url: &str, expected: Result<(&str, &str, Option<&str>), &str>| {
            let read = ProxyUrl::parse(url);
            let read = read.as_ref().map_err(|problem| *problem);
            let parts = read.map(|url| (url.to_string(), &*url.username, url.password.as_ref().map(Secret::expose)));
            assert_eq!(parts, expected.map(|(shown, user, password)| (shown.to_owned(), user, password)), "{url}");
        };
        check("http://proxy", Ok(("http://proxy:80", "", None)));
        check("HTTP://proxy:3128/", Ok(("http://proxy:3128", "", None)));
        check("socks5://10.0.0.1", Ok(("socks5://10.0.0.1:1080", "", None)));
        check("socks5h://[::1]:9", Ok(("socks5://[::1]:9", "", None)));
        check("http://u:p%40%3A@h:1", Ok(("http://h:1", "u", Some("p@:"))));
        check("http://u:@h:1", Ok(("http://h:1", "u", None)));
        check("http://%zz@h:1", Err("has a user or password that cannot be read"));
        check("http://u%4@h:1", Err("has a user or password that cannot be read"));
        check("https://h", Err("must not begin with https://: this version does not speak TLS to the proxy itself"));
        check("ftp://h", Err("must begin with http:// or socks5://"));
        check("proxy:3128", Err("must begin with http:// or socks5://"));
        check("http://h/path", Err("must have nothing behind host and port"));
        check("http://h?x", Err("must have nothing behind host and port"));
        check("http://h#x", Err("must have nothing behind host and port"));
        check("http://h:0", Err("has no usable port"));
        check("http://h:70000", Err("has no usable port"));
        check("http://u:p@", Err("is no URL"));
        check("not a url", Err("is no URL"));
    }

    #[test]
    fn no_credential_is_printed() {
        let url = ProxyUrl::parse("http://user:very-secret@h").unwrap();
        assert!(!format!("{url} {url:?}").contains("very-secret"));
    }

    fn environment(variables: &[(&str, &str)]) -> Result<Environment, String> {
        let value =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        Environment::read(&value)
    }

    #[test]
    fn the_variable_for_a_scheme_goes_before_that_for_all() {
        let check = |variables: &[(&str, &str)], http: &str, https: &str| {
            let environment = environment(variables).unwrap();
            let shown = |tls| environment.proxy_for(tls, "h", 1).map(ToString::to_string).unwrap_or_default();
            assert_eq!((shown(false), shown(true)), (http.to_owned(), https.to_owned()), "{variables:?}");
        };
        check(&[], "", "");
        check(&[("HTTP_PROXY", "http://a")], "http://a:80", "");
        check(&[("https_proxy", "b:3128")], "", "http://b:3128");
        check(&[("ALL_PROXY", "socks5://c")], "socks5://c:1080", "socks5://c:1080");
        check(&[("all_proxy", "socks5://c"), ("HTTPS_PROXY", "http://a")], "socks5://c:1080", "http://a:80");
        check(&[("HTTPS_PROXY", " "), ("https_proxy", "http://a")], "", "http://a:80");
        check(&[("HTTPS_PROXY", "http://a"), ("https_proxy", "http://b")], "", "http://a:80");
    }

    #[test]
    fn a_variable_that_cannot_be_used_is_a_fault() {
        let check = |name: &str, value: &str, expected: &str| {
            assert_eq!(environment(&[(name, value)]).unwrap_err(), expected, "{value}");
        };
        let no_tls = "must not begin with https://: this version does not speak TLS to the proxy itself";
        check("HTTPS_PROXY", "https://u:secret@h", &format!("environment variable HTTPS_PROXY {no_tls}"));
        check("all_proxy", "ftp://h", "environment variable all_proxy must begin with http:// or socks5://");
        check("http_proxy", "socks5://u@h", "environment variable http_proxy has a user without a password");
    }

    #[test]
    fn exemptions_cover_what_they_name_and_nothing_else() {
        let check = |exempt: &str, host: &str, port: u16, expected: bool| {
            let environment = environment(&[("HTTP_PROXY", "http://a"), ("no_proxy", exempt)]).unwrap();
            assert_eq!(environment.proxy_for(false, host, port).is_none(), expected, "{exempt} {host}:{port}");
        };
        check("", "h", 80, false);
        check("*", "h", 80, true);
        check("*:81", "h", 80, false);
        check("example.com", "example.com", 80, true);
        check("example.com", "API.Example.com.", 80, true);
        check("example.com", "notexample.com", 80, false);
        check("example.com:443", "example.com", 80, false);
        check("example.com:80", "example.com", 80, true);
        check(".example.com", "example.com", 80, false);
        check("*.example.com", "a.b.example.com", 80, true);
        check(".example.com", ".example.com", 80, false);
        check("a, 10.0.0.0/8 b", "10.200.3.4", 80, true);
        check("10.0.0.0/8", "11.0.0.1", 80, false);
        check("10.0.0.0/8", "ten.example.com", 80, false);
        check("0.0.0.0/0", "9.9.9.9", 80, true);
        check("0.0.0.0/33", "9.9.9.9", 80, false);
        check("::/0", "::1", 80, true);
        check("::/0", "9.9.9.9", 80, false);
        check("fd00::/8", "fd12::1", 80, true);
        check("127.0.0.1", "127.0.0.1", 80, true);
        check("127.0.0.1:81", "127.0.0.1", 80, false);
        check("[::1]:80", "::1", 80, true);
        check("::1", "::1", 81, true);
        check("localhost", "127.0.0.1", 80, false);
        check("a b,c", "c", 80, true);
    }
}
