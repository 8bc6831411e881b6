//! Certificates of authorities, as PEM text.

use x509_parser::pem::Pem;
use x509_parser::x509::X509Version;

/// Whether `pem` holds certificates that authorities can be, and nothing else.
pub fn check(pem: &str) -> Result<(), &'static str> {
    read(pem).map(|_| ())
}

/// The certificates of `pem` in DER, each of them parsed once.
pub fn read(pem: &str) -> Result<Vec<Vec<u8>>, &'static str> {
    let mut found = Vec::new();
    for block in Pem::iter_from_buffer(pem.as_bytes()) {
        let block = block.map_err(|_| "is no PEM text")?;
        if block.label != "CERTIFICATE" {
            return Err("holds something other than certificates");
        }
        let certificate = block.parse_x509().map_err(|_| "holds a certificate that cannot be read")?;
        if certificate.version() != X509Version::V3 {
            return Err("holds a certificate that is not of version 3");
        }
        found.push(block.contents.clone());
    }
    if found.is_empty() {
        return Err("holds no certificate in PEM");
    }
    Ok(found)
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// An authority whose key is thrown away.
    pub const AUTHORITY: &str = include_str!("../../tests/fixtures/tls/authority.pem");

    #[test]
    fn only_certificates_are_certificates() {
        let count = |pem: &str| read(pem).map(|found| found.len());
        assert_eq!(count(AUTHORITY), Ok(1));
        assert_eq!(count(&format!("{AUTHORITY}\n{AUTHORITY}")), Ok(2));
        assert_eq!(count("not PEM at all"), Err("holds no certificate in PEM"));
        assert_eq!(
            count(&AUTHORITY.replace("CERTIFICATE", "PRIVATE KEY")),
            Err("holds something other than certificates")
        );
        assert_eq!(
            count("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
            Err("holds a certificate that cannot be read")
        );
        assert_eq!(count("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"), Err("is no PEM text"));
    }
}
