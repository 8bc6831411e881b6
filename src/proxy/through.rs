//! Connections that are made through a proxy: it is asked for the origin by name, and what comes of that is
//! used as if it were a connection to the origin itself.
//!
//! Invariant: either the proxy said that the way is open, or there is no connection. The credential goes to
//! the proxy and nowhere else: no error and no log has it.

use crate::governance::entity::ProxyKind;
use crate::wire::proxy_url::{ProxyUrl, authority};
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use pingora::ErrorType;
use pingora::connectors::L4Connect;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::l4::stream::Stream;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_socks::tcp::Socks5Stream;

/// What a proxy says before the way is open; some say a page of HTML instead.
const HEAD_MAX: usize = 16 * 1024;

/// The way to one origin through one proxy.
#[derive(Debug)]
pub(super) struct Tunnel {
    pub(super) proxy: ProxyUrl,
    /// The origin's name, which is the proxy's to resolve, or its address.
    pub(super) host: Box<str>,
    pub(super) port: u16,
    /// For everything, from the first packet to the proxy's last word.
    pub(super) patience: Duration,
}

/// Why the way is not open.
#[derive(Debug, thiserror::Error)]
pub(super) enum TunnelError {
    #[error("the proxy is not reached: {0}")]
    Unreached(io::ErrorKind),
    #[error("nothing was settled in time")]
    TimedOut,
    #[error("the proxy answered {0}")]
    Status(u16),
    #[error("the proxy's answer is no HTTP")]
    NoHttp,
    #[error("the head of the proxy's answer is longer than {HEAD_MAX} bytes")]
    LongHead,
    #[error("the proxy broke off: {0}")]
    BrokeOff(io::ErrorKind),
    #[error("the proxy refused: {0}")]
    Socks(tokio_socks::Error),
}

#[async_trait]
impl L4Connect for Tunnel {
    /// `address` is the proxy's.
    async fn connect(&self, address: &SocketAddr) -> pingora::Result<Stream> {
        let opened = timeout(self.patience, self.open(address)).await.unwrap_or(Err(TunnelError::TimedOut));
        opened.map(Stream::from).map_err(|error| {
            let kind = match error {
                TunnelError::TimedOut => ErrorType::ConnectTimedout,
                _ => ErrorType::ConnectProxyFailure,
            };
            pingora::Error::because(kind, "through a proxy", error)
        })
    }
}

impl Tunnel {
    async fn open(&self, address: &SocketAddr) -> Result<TcpStream, TunnelError> {
        let address = address.as_inet().ok_or(TunnelError::Unreached(io::ErrorKind::Unsupported))?;
        let stream = TcpStream::connect(address).await.map_err(|error| TunnelError::Unreached(error.kind()))?;
        match self.proxy.kind {
            ProxyKind::Socks5 => self.open_socks(stream).await,
            ProxyKind::Http | ProxyKind::Environment => self.open_http(stream).await,
        }
    }

    async fn open_http(&self, mut stream: TcpStream) -> Result<TcpStream, TunnelError> {
        stream.write_all(self.request().as_bytes()).await.map_err(broke_off)?;
        match status(&read_head(&mut stream).await?) {
            Some(200) => Ok(stream),
            Some(status) => Err(TunnelError::Status(status)),
            None => Err(TunnelError::NoHttp),
        }
    }

    fn request(&self) -> String {
        let origin = authority(&self.host, self.port);
        let credential = self.proxy.carries_credential().then(|| {
            let password = self.proxy.password.as_ref().map_or("", |password| password.expose());
            let pair = BASE64.encode(format!("{}:{password}", self.proxy.username));
            format!("Proxy-Authorization: Basic {pair}\r\n")
        });
        format!("CONNECT {origin} HTTP/1.1\r\nHost: {origin}\r\n{}\r\n", credential.unwrap_or_default())
    }

    async fn open_socks(&self, stream: TcpStream) -> Result<TcpStream, TunnelError> {
        let (origin, user) = ((&*self.host, self.port), &*self.proxy.username);
        let opened = match &self.proxy.password {
            Some(password) => {
                Socks5Stream::connect_with_password_and_socket(stream, origin, user, password.expose()).await
            }
            None => Socks5Stream::connect_with_socket(stream, origin).await,
        };
        opened.map(Socks5Stream::into_inner).map_err(|error| match error {
            tokio_socks::Error::Io(error) => broke_off(error),
            error => TunnelError::Socks(error),
        })
    }
}

fn broke_off(error: io::Error) -> TunnelError {
    TunnelError::BrokeOff(error.kind())
}

/// The answer's head, and not a byte behind it: those are the origin's.
async fn read_head(stream: &mut TcpStream) -> Result<Vec<u8>, TunnelError> {
    const END: &[u8] = b"\r\n\r\n";
    let (mut head, mut seen) = (Vec::new(), [0; 1024]);
    while head.len() < HEAD_MAX {
        let count = stream.peek(&mut seen).await.map_err(broke_off)?;
        if count == 0 {
            return Err(TunnelError::BrokeOff(io::ErrorKind::UnexpectedEof));
        }
        let before = head.len();
        head.extend_from_slice(&seen[..count]);
        let from = before.saturating_sub(END.len() - 1);
        let end = head[from..].windows(END.len()).position(|window| window == END).map(|at| from + at + END.len());
        head.truncate(end.unwrap_or(head.len()));
        stream.read_exact(&mut seen[..head.len() - before]).await.map_err(broke_off)?;
        if end.is_some() {
            return Ok(head);
        }
    }
    Err(TunnelError::LongHead)
}

/// The status of an answer of HTTP/1.
fn status(head: &[u8]) -> Option<u16> {
    let rest = head.strip_prefix(b"HTTP/1.")?;
    let [b'0' | b'1', b' ', digits @ ..] = rest else { return None };
    let (digits, rest) = digits.split_at_checked(3)?;
    if !matches!(rest.first(), Some(b' ' | b'\r')) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::governance::secret::Secret;
    use crate::state::clock::{since, stopwatch};
    use std::net::SocketAddr as InetAddress;
    use tokio::net::TcpListener;

    fn tunnel(kind: ProxyKind, host: &str, user: Option<(&str, &str)>, at: InetAddress) -> Tunnel {
        let (username, password) = user.unzip();
        let proxy = ProxyUrl {
            kind,
            host: at.ip().to_string(),
            port: at.port(),
            username: username.unwrap_or_default().to_owned(),
            password: password.map(Secret::new),
        };
        Tunnel { proxy, host: host.into(), port: 443, patience: Duration::from_millis(300) }
    }

    /// Connects to a proxy that says these things, one after each thing that it hears, and then hangs up or
    /// does not. Gives what it heard, and what came of it: the first bytes behind the answer, or the error.
    fn against(
        kind: ProxyKind,
        host: &str,
        user: Option<(&str, &str)>,
        says: &[&[u8]],
        stays: bool,
    ) -> (Vec<u8>, Result<Vec<u8>, String>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let says: Vec<Vec<u8>> = says.iter().map(|bytes| bytes.to_vec()).collect();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let at = listener.local_addr().unwrap();
            let proxy = tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (mut heard, mut buffer) = (Vec::new(), [0; 1024]);
                for said in says {
                    let count = stream.read(&mut buffer).await.unwrap();
                    heard.extend_from_slice(&buffer[..count]);
                    for piece in said.chunks(700) {
                        stream.write_all(piece).await.unwrap();
                        tokio::task::yield_now().await;
                    }
                }
                if stays {
                    tokio::time::sleep(Duration::from_secs(9)).await;
                }
                heard
            });
            let began = stopwatch();
            let opened = tunnel(kind, host, user, at).connect(&SocketAddr::Inet(at)).await;
            assert!(since(began) < Duration::from_secs(5));
            let opened = match opened {
                Ok(mut stream) => {
                    let mut first = vec![0; 8];
                    let count = timeout(Duration::from_millis(100), stream.read(&mut first)).await;
                    first.truncate(count.map_or(0, Result::unwrap));
                    Ok(first)
                }
                Err(error) => {
                    let problem = error.root_cause().downcast_ref::<TunnelError>().unwrap().to_string();
                    let timed_out = *error.etype() == ErrorType::ConnectTimedout;
                    assert_eq!(timed_out, problem == TunnelError::TimedOut.to_string());
                    assert!(!format!("{error} {error:?}").contains("very-secret"));
                    Err(problem)
                }
            };
            let heard = if stays { Vec::new() } else { proxy.await.unwrap() };
            (heard, opened)
        })
    }

    #[test]
    fn an_http_proxy_is_asked_and_its_answer_read() {
        let check = |says: &[&[u8]], stays: bool, expected: Result<&str, &str>| {
            let (_, opened) = against(ProxyKind::Http, "h", None, says, stays);
            let expected = expected.map(|text| text.as_bytes().to_vec()).map_err(str::to_owned);
            let said = says.first().map(|said| String::from_utf8_lossy(&said[..said.len().min(80)]).into_owned());
            assert_eq!(opened, expected, "{said:?}");
        };
        check(&[b"HTTP/1.1 200 Connection established\r\n\r\n"], true, Ok(""));
        check(&[b"HTTP/1.0 200\r\nx: y\r\n\r\n"], true, Ok(""));
        // What stands behind the head is the origin's.
        check(&[b"HTTP/1.1 200 OK\r\n\r\nSETTINGS"], true, Ok("SETTINGS"));
        let padded = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\norigin", "y".repeat(5_000));
        check(&[padded.as_bytes()], true, Ok("origin"));
        check(&[b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"], false, Err("the proxy answered 407"));
        check(&[b"HTTP/1.1 403 no\r\ncontent-length: 2\r\n\r\nno"], true, Err("the proxy answered 403"));
        check(&[b"HTTP/1.1 204 No Content\r\n\r\n"], true, Err("the proxy answered 204"));
        check(&[b"HTTP/1.1 2000 OK\r\n\r\n"], true, Err("the proxy's answer is no HTTP"));
        check(&[b"HTTP/2 200 OK\r\n\r\n"], true, Err("the proxy's answer is no HTTP"));
        check(&[b"HTTP/1.1 +20 OK\r\n\r\n"], true, Err("the proxy's answer is no HTTP"));
        check(&[b"SSH-2.0\r\n\r\n"], true, Err("the proxy's answer is no HTTP"));
        check(&[b"HTTP/1.1 200 OK\r\nx: "], true, Err("nothing was settled in time"));
        check(&[b""], true, Err("nothing was settled in time"));
        check(&[], true, Err("nothing was settled in time"));
        check(&[b"HTTP/1.1 200 OK\r\nx: "], false, Err("the proxy broke off: unexpected end of file"));
        check(&[b""], false, Err("the proxy broke off: unexpected end of file"));
        let endless = [b"HTTP/1.1 200 OK\r\nx: ".to_vec(), vec![b'y'; 20_000]].concat();
        check(&[&endless], true, Err("the head of the proxy's answer is longer than 16384 bytes"));
    }

    #[test]
    fn the_credential_is_said_once_and_to_the_proxy() {
        let check = |host: &str, user: Option<(&str, &str)>, expected: &str| {
            let (heard, _) = against(ProxyKind::Http, host, user, &[b"HTTP/1.1 407 no\r\n\r\n"], false);
            assert_eq!(String::from_utf8(heard).unwrap(), expected);
        };
        check("h", None, "CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n");
        check("::1", None, "CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\n\r\n");
        check(
            "h",
            Some(("user", "very-secret")),
            "CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\nProxy-Authorization: Basic dXNlcjp2ZXJ5LXNlY3JldA==\r\n\r\n",
        );
    }

    #[test]
    fn a_socks_proxy_is_asked_and_its_answer_read() {
        const LET_IN: &[u8] = &[5, 0];
        const SHOW: &[u8] = &[5, 2];
        const DONE: &[u8] = &[5, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        let user = Some(("user", "very-secret"));
        let check = |user, says: &[&[u8]], stays, expected: Result<&str, &str>| {
            let (_, opened) = against(ProxyKind::Socks5, "h", user, says, stays);
            let expected = expected.map(|text| text.as_bytes().to_vec()).map_err(str::to_owned);
            assert_eq!(opened, expected, "{says:?}");
        };
        check(None, &[LET_IN, DONE], true, Ok(""));
        check(user, &[LET_IN, DONE], true, Ok(""));
        check(user, &[SHOW, &[1, 0], DONE], true, Ok(""));
        check(None, &[LET_IN, &[DONE, b"SETTINGS"].concat()], true, Ok("SETTINGS"));
        check(user, &[SHOW, &[1, 1]], true, Err("the proxy refused: Password auth failure, code: 1"));
        check(None, &[SHOW], true, Err("the proxy refused: Authorization required"));
        check(None, &[&[5, 255]], true, Err("the proxy refused: No acceptable auth methods"));
        let refused = [5, 2, 0, 1, 0, 0, 0, 0, 0, 0];
        check(None, &[LET_IN, &refused], true, Err("the proxy refused: Connection not allowed by ruleset"));
        check(None, &[b"HTTP/1.1 400 Bad Request\r\n\r\n"], true, Err("the proxy refused: Invalid response version"));
        check(None, &[LET_IN], true, Err("nothing was settled in time"));
        check(None, &[LET_IN, &DONE[..5]], true, Err("nothing was settled in time"));
        check(None, &[LET_IN, &DONE[..5]], false, Err("the proxy broke off: unexpected end of file"));
    }

    #[test]
    fn names_are_left_to_the_proxy() {
        let check = |host: &str, expected: &[u8]| {
            let (heard, _) = against(ProxyKind::Socks5, host, None, &[&[5, 0], &[5, 1, 0, 1, 0, 0, 0, 0, 0, 0]], false);
            assert_eq!(heard, [&[5, 1, 0, 5, 1, 0][..], expected, &443_u16.to_be_bytes()].concat(), "{host}");
        };
        check("llm.example", b"\x03\x0bllm.example");
        check("10.0.0.1", &[1, 10, 0, 0, 1]);
    }

    #[test]
    fn nobody_at_the_proxy_s_address_is_said_so() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let opened = runtime.block_on(async {
            let at = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
            tunnel(ProxyKind::Http, "h", None, at).open(&SocketAddr::Inet(at)).await
        });
        assert_eq!(opened.unwrap_err().to_string(), "the proxy is not reached: connection refused");
    }
}
