//! A price table as a whole: where it comes from, whether it can be believed, and which one it is.

use super::read;
use crate::governance::catalog::Catalog;
use http::Uri;
use ring::digest::{SHA256, digest};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Longer documents are no price table; the largest known one has 3 MB.
pub const TABLE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Where prices come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PriceSource {
    BuiltIn,
    File(PathBuf),
    Url(String),
}

impl PriceSource {
    /// For people; of a URL only what holds no secret.
    pub fn label(&self) -> String {
        match self {
            PriceSource::BuiltIn => "builtin".to_owned(),
            PriceSource::File(path) => path.display().to_string(),
            PriceSource::Url(url) => {
                let host = url.parse::<Uri>().ok().and_then(|url| Some(url.host()?.to_owned()));
                format!("the URL at {}", host.unwrap_or_default())
            }
        }
    }
}

/// What is wrong with a URL as a source of prices.
pub fn url_fault(url: &str) -> Option<&'static str> {
    let Ok(uri) = url.parse::<Uri>() else { return Some("is no URL") };
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let is_loopback = host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback());
    match uri.scheme_str() {
        _ if host.is_empty() => Some("is no URL"),
        _ if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) => {
            Some("must not hold a user or a password")
        }
        Some("https") => None,
        Some("http") if is_loopback => None,
        Some("http") => Some("must begin with https://: whoever can change prices on the way can empty budgets"),
        _ => Some("must begin with https://"),
    }
}

/// A table that was read whole.
#[derive(Debug, Clone)]
pub struct Table {
    pub catalog: Arc<Catalog>,
    /// SHA-256 of its text, in hexadecimal.
    pub hash: String,
}

impl Table {
    pub fn built_in() -> Table {
        Table { catalog: Arc::new(super::built_in()), hash: hex(super::BUILT_IN.as_bytes()) }
    }

    pub fn is_built_in(&self) -> bool {
        self.hash == hex(super::BUILT_IN.as_bytes())
    }

    /// Every fault is a line; a table with one of them is none.
    pub fn read(bytes: &[u8]) -> Result<Table, Vec<String>> {
        if bytes.len() > TABLE_BYTES_MAX {
            return Err(vec![format!("is larger than {TABLE_BYTES_MAX} bytes")]);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| vec!["price table: is no UTF-8".to_owned()])?;
        let catalog = read(text)?;
        if catalog.is_empty() {
            return Err(vec!["price table: holds no price".to_owned()]);
        }
        Ok(Table { catalog: Arc::new(catalog), hash: hex(bytes) })
    }

    pub fn load(path: &Path) -> Result<Table, Vec<String>> {
        let unreadable = |error: std::io::Error| vec![format!("cannot read {}: {error}", path.display())];
        let length = std::fs::metadata(path).map_err(unreadable)?.len();
        if length > TABLE_BYTES_MAX as u64 {
            return Err(vec![format!("{} is larger than {TABLE_BYTES_MAX} bytes", path.display())]);
        }
        let faults = Table::read(&std::fs::read(path).map_err(unreadable)?);
        faults.map_err(|faults| faults.iter().map(|fault| format!("{}: {fault}", path.display())).collect())
    }

    /// Why this table cannot be the next one after `before` from the same source: too much of it is gone.
    pub fn lost(&self, before: &Catalog) -> Option<String> {
        let (now, then) = (self.catalog.len(), before.len());
        (now < then.div_ceil(2)).then(|| format!("has {now} prices, less than half of the {then} before"))
    }
}

fn hex(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_come_over_tls() {
        let check = |url: &str, good: bool| assert_eq!(url_fault(url).is_none(), good, "{url}: {:?}", url_fault(url));
        check("https://example.com/prices.json", true);
        check("https://example.com:8443/prices.json?token=x", true);
        check("http://127.0.0.1:9/prices.json", true);
        check("http://[::1]/prices.json", true);
        check("http://localhost/prices.json", true);
        check("http://example.com/prices.json", false);
        check("http://10.0.0.1/prices.json", false);
        check("http://localhost.example.com/", false);
        check("https://user:password@example.com/", false);
        check("ftp://example.com/", false);
        check("https://", false);
        check("prices.json", false);
        let label = |url: &str| PriceSource::Url(url.to_owned()).label();
        assert_eq!(label("https://example.com/a?token=secret"), "the URL at example.com");
    }

    #[test]
    fn a_table_is_known_by_its_hash_and_not_half_of_what_it_was() {
        let table = |models: usize| {
            let entry = |n| format!(r#""m{n}": {{"litellm_provider": "openai", "input_cost_per_token": 1e-06}}"#);
            let entries: Vec<String> = (0..models).map(entry).collect();
            Table::read(format!("{{{}}}", entries.join(",")).as_bytes())
        };
        let (ten, five, four) = (table(10).unwrap(), table(5).unwrap(), table(4).unwrap());
        assert_eq!(five.lost(&ten.catalog), None);
        assert_eq!(four.lost(&ten.catalog).unwrap(), "has 4 prices, less than half of the 10 before");
        assert_eq!(ten.lost(&four.catalog), None);
        assert_eq!(table(0).unwrap_err(), ["price table: holds no price"]);
        assert!(Table::read(b"\xff").unwrap_err()[0].contains("UTF-8"));
        assert!(Table::read(b"<html>").unwrap_err()[0].starts_with("price table: "));
        assert_eq!(ten.hash.len(), 64);
        assert_ne!(ten.hash, five.hash);
        assert_eq!(Table::built_in().catalog.len(), 96);
    }
}
