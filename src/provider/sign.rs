//! AWS signatures, version 4: a pure function of request, credential and time.
//!
//! Written out here, since it is a page of code and the kept crate for it brings a tree of others. The path is
//! encoded once more than it is sent, as every service but S3 wants it.

use std::fmt::Write;

use ring::{digest, hmac};

use super::dialect::path::encode;
use crate::governance::time::Timestamp;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// Who signs, and for what.
#[derive(Clone, Copy)]
pub struct Signer<'a> {
    pub access_key: &'a str,
    pub secret_key: &'a str,
    pub region: &'a str,
    pub service: &'a str,
}

/// A request as it will be sent.
#[derive(Clone, Copy)]
pub struct Signed<'a> {
    pub method: &'a str,
    /// As it stands in the request line, without a query.
    pub path: &'a str,
    /// Names in lower case, sorted, `host` and `x-amz-date` among them.
    pub headers: &'a [(&'a str, &'a str)],
    pub body: &'a [u8],
}

impl Signer<'_> {
    /// The value of `Authorization`. `date` must be the value of `x-amz-date`.
    pub fn authorization(&self, request: Signed<'_>, date: &str) -> String {
        let Signer { access_key, secret_key, region, service } = self;
        let day = date.get(..8).unwrap_or_default();
        let scope = format!("{day}/{region}/{service}/aws4_request");
        let names: Vec<&str> = request.headers.iter().map(|(name, _)| *name).collect();
        let names = names.join(";");
        let mut canonical = format!("{}\n{}\n\n", request.method, encode(request.path, b"/"));
        for (name, value) in request.headers {
            writeln!(canonical, "{name}:{}", value.trim()).expect("writing to a string does not fail");
        }
        write!(canonical, "\n{names}\n{}", hex(sha256(request.body).as_ref()))
            .expect("writing to a string does not fail");
        let text = format!("{ALGORITHM}\n{date}\n{scope}\n{}", hex(sha256(canonical.as_bytes()).as_ref()));
        let secret = format!("AWS4{secret_key}");
        let parts = [day, region, service, "aws4_request"];
        let key = parts.iter().fold(hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), |key, part| {
            hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&key, part.as_bytes()).as_ref())
        });
        let signature = hex(hmac::sign(&key, text.as_bytes()).as_ref());
        format!("{ALGORITHM} Credential={access_key}/{scope}, SignedHeaders={names}, Signature={signature}")
    }
}

/// A time as `x-amz-date` has it, to the second.
pub fn amz_date(now: Timestamp) -> String {
    let text = now.to_string();
    let seconds = text.split(['.', 'Z']).next().unwrap_or_default();
    let mut date: String = seconds.chars().filter(|c| !matches!(c, '-' | ':')).collect();
    date.push('Z');
    date
}

fn sha256(bytes: &[u8]) -> digest::Digest {
    digest::digest(&digest::SHA256, bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string does not fail");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGNER: Signer<'_> = Signer {
        access_key: "AKIDEXAMPLE",
        secret_key: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
        region: "us-east-1",
        service: "service",
    };

    fn signature(signer: Signer<'_>, request: Signed<'_>, date: &str) -> String {
        signer.authorization(request, date).rsplit('=').next().unwrap().to_owned()
    }

    /// From the test suite that AWS publishes for this: `get-vanilla` and `post-vanilla`.
    #[test]
    fn the_published_vectors_hold() {
        let date = "20150830T123600Z";
        let headers = [("host", "example.amazonaws.com"), ("x-amz-date", date)];
        for (method, expected) in [
            ("GET", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
            ("POST", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
        ] {
            let request = Signed { method, path: "/", headers: &headers, body: b"" };
            assert_eq!(signature(SIGNER, request, date), expected, "{method}");
        }
    }

    /// As botocore signs it.
    #[test]
    fn an_encoded_model_is_encoded_twice() {
        let date = "20260102T030405Z";
        let headers = [
            ("content-type", "application/json"),
            ("host", "bedrock-runtime.us-east-1.amazonaws.com"),
            ("x-amz-date", date),
        ];
        let request = Signed {
            method: "POST",
            path: "/model/us.anthropic.claude-sonnet-4-6%3A0/converse",
            headers: &headers,
            body: br#"{"messages":[{"role":"user","content":[{"text":"hi"}]}]}"#,
        };
        let signer = Signer { service: "bedrock", ..SIGNER };
        assert_eq!(
            signer.authorization(request, date),
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260102/us-east-1/bedrock/aws4_request, \
             SignedHeaders=content-type;host;x-amz-date, \
             Signature=f099822f5c427667a02ee1c64c2ebb6b4896c481e08a3a7b1510a1fe6a9cf8b8"
        );
    }

    #[test]
    fn times_are_written_to_the_second() {
        assert_eq!(amz_date(Timestamp::from_millis(1_767_323_045_678)), "20260102T030405Z");
        assert_eq!(amz_date(Timestamp::from_millis(0)), "19700101T000000Z");
    }
}
