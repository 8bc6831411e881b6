//! Getting a document for the house itself, in the way and under the rules in which providers are reached.

use super::dial::{DialError, Dialer};
use crate::governance::entity::Provider;
use crate::governance::time::Timestamp;
use http::{HeaderValue, Method, Uri, Version, header};
use pingora::connectors::ConnectorOptions;
use pingora::http::RequestHeader;
use pingora::protocols::http::client::HttpSession;
use std::time::Duration;
use tokio::time::timeout;

/// Gets documents, one at a time. Redirections are not followed: what is configured is what is asked.
pub struct Fetcher {
    dialer: Dialer,
}

/// Why there is no document. None of these texts holds what the other side sent.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("{0}")]
    Dial(String),
    #[error("the connection broke: {0}")]
    Broke(&'static str),
    #[error("the answer has status {0}")]
    Status(u16),
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
    #[error("the answer is not there after {} seconds", .0.as_secs())]
    TimedOut(Duration),
    #[error("'{0}' is not a usable URL")]
    Url(String),
}

impl Fetcher {
    pub fn new(private_addresses: bool) -> Fetcher {
        let no_proxy = Err("documents are fetched without a proxy".to_owned());
        Fetcher { dialer: Dialer::new(ConnectorOptions::new(1), private_addresses, no_proxy) }
    }

    /// The body of a good answer, at most so large and within so much time.
    pub async fn get(&self, url: &str, bytes_max: usize, patience: Duration) -> Result<Vec<u8>, FetchError> {
        timeout(patience, self.read(url, bytes_max)).await.unwrap_or(Err(FetchError::TimedOut(patience)))
    }

    async fn read(&self, url: &str, bytes_max: usize) -> Result<Vec<u8>, FetchError> {
        let dial = |error: DialError| FetchError::Dial(told(&error));
        let origin = self.dialer.origin(url).map_err(dial)?;
        // Where nothing else is said: verified, without a proxy, over either version.
        let anybody = Provider::new("", Timestamp::from_millis(0));
        let mut line = self.dialer.connect(&origin, &anybody, true).await.map_err(dial)?;
        let h2 = matches!(line.session, HttpSession::H2(_));
        let head = head(origin.authority(), origin.is_tls(), origin.path(), h2);
        let head = head.ok_or_else(|| FetchError::Url(origin.authority().to_str().unwrap_or_default().to_owned()))?;
        let body = body(&mut line.session, head, bytes_max).await;
        line.session.shutdown().await;
        body
    }
}

fn head(authority: &HeaderValue, tls: bool, path: &str, h2: bool) -> Option<RequestHeader> {
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let (mut parts, ()) = http::Request::new(()).into_parts();
    parts.method = Method::GET;
    parts.uri = if h2 {
        let scheme = if tls { "https" } else { "http" };
        parts.version = Version::HTTP_2;
        Uri::try_from(format!("{scheme}://{}{path}", authority.to_str().ok()?)).ok()?
    } else {
        parts.headers.insert(header::HOST, authority.clone());
        Uri::try_from(path).ok()?
    };
    parts.headers.insert(header::ACCEPT, HeaderValue::from_static("application/json, */*;q=0.5"));
    parts.headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    let agent = concat!("tollgate/", env!("CARGO_PKG_VERSION"));
    parts.headers.insert(header::USER_AGENT, HeaderValue::from_static(agent));
    Some(RequestHeader::from(parts))
}

async fn body(session: &mut HttpSession, head: RequestHeader, bytes_max: usize) -> Result<Vec<u8>, FetchError> {
    let broke = |error: Box<pingora::Error>| FetchError::Broke(error.etype().as_str());
    session.write_request_header(Box::new(head)).await.map_err(broke)?;
    session.finish_request_body().await.map_err(broke)?;
    let length = loop {
        session.read_response_header().await.map_err(broke)?;
        let Some(answer) = session.response_header() else { continue };
        match answer.status.as_u16() {
            100..200 => {}
            200 => {
                break answer.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
            }
            status => return Err(FetchError::Status(status)),
        }
    };
    if length.is_some_and(|length: usize| length > bytes_max) {
        return Err(FetchError::TooLarge(bytes_max));
    }
    let mut body = Vec::new();
    while let Some(piece) = session.read_response_body().await.map_err(broke)? {
        if body.len() + piece.len() > bytes_max {
            return Err(FetchError::TooLarge(bytes_max));
        }
        body.extend_from_slice(&piece);
    }
    if length.is_some_and(|length| length != body.len()) {
        return Err(FetchError::Broke("the answer ended early"));
    }
    Ok(body)
}

/// An error with what caused it.
fn told(error: &DialError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
