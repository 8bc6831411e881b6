//! The other side of the comparison: Pingora, and nothing of ours.
//!
//! `--spine none` is the baseline, an `upstream_peer` and no other hook. The other spines carry a call
//! the way a governed one has to be carried, its body read before it is sent, and do nothing else:
//! what they cost above `none` is the price of that way alone.

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use clap::{Parser, ValueEnum};
use http::{HeaderName, HeaderValue, Method, Version, header};
use pingora::apps::HttpServerOptions;
use pingora::connectors::ConnectorOptions;
use pingora::connectors::http::Connector;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::HttpTask;
use pingora::protocols::http::client::HttpSession;
use pingora::proxy::{ProxyHttp, ProxyServiceBuilder, Session};
use pingora::server::Server;
use pingora::server::configuration::ServerConf;
use pingora::upstreams::peer::HttpPeer;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
struct Args {
    #[arg(long, default_value = "127.0.0.1:18080")]
    listen: SocketAddr,
    #[arg(long, default_value = "127.0.0.1:18090")]
    upstream: SocketAddr,
    /// Who carries the request.
    #[arg(long, value_enum, default_value = "none")]
    spine: Spine,
    #[arg(long, default_value_t = 1)]
    threads: usize,
}

#[derive(Clone, Copy, ValueEnum)]
enum Spine {
    /// Pingora's pump, untouched.
    None,
    /// Pingora's pump, with the body read before and replayed by the hooks.
    Hooks,
    /// `request_filter` drives the connector, and the pump never runs.
    Connector,
}

fn main() {
    let args = Args::parse();
    // What the product sets as well, so that listeners, pools and ends are alike.
    let conf = ServerConf {
        threads: args.threads,
        upstream_keepalive_pool_size: 512,
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(1),
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let upstream = args.upstream;
    match args.spine {
        Spine::None => serve(&mut server, args.listen, Bare { upstream }),
        Spine::Hooks => serve(&mut server, args.listen, Hooks { upstream }),
        Spine::Connector => {
            let connector = Connector::new(Some(ConnectorOptions::from_server_conf(&server.configuration)));
            serve(&mut server, args.listen, Driven { upstream, connector });
        }
    }
    server.run_forever();
}

fn serve<P>(server: &mut Server, listen: SocketAddr, proxy: P)
where
    P: ProxyHttp + Send + Sync + 'static,
    P::CTX: Send + Sync + 'static,
{
    let mut options = HttpServerOptions::default();
    options.h2c = true;
    let mut service = ProxyServiceBuilder::new(&server.configuration, proxy).server_options(options).build();
    service.add_tcp(&listen.to_string());
    server.add_service(service);
}

fn peer(upstream: SocketAddr) -> HttpPeer {
    HttpPeer::new(upstream, false, String::new())
}

/// Nothing but the address.
struct Bare {
    upstream: SocketAddr,
}

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> pingora::Result<Box<HttpPeer>> {
        Ok(Box::new(peer(self.upstream)))
    }
}

/// The ordinary hooks. A body with a length may have any size; one without, 64 KiB.
struct Hooks {
    upstream: SocketAddr,
}

/// Pingora replays what its retry buffer holds, if it is whole. Our own bytes take its place, so that
/// only the last read has to fit.
const RETRY_BUFFER: usize = 64 * 1024;

#[async_trait]
impl ProxyHttp for Hooks {
    type CTX = Bytes;

    fn new_ctx(&self) -> Bytes {
        Bytes::new()
    }

    async fn request_filter(&self, session: &mut Session, body: &mut Bytes) -> pingora::Result<bool> {
        let announced = length(&session.req_header().headers).unwrap_or(0);
        let mut read = BytesMut::new();
        loop {
            if announced.saturating_sub(read.len()) <= RETRY_BUFFER {
                session.as_downstream_mut().enable_retry_buffering();
            }
            match session.as_downstream_mut().read_request_body().await.map_err(pingora::Error::into_down)? {
                Some(piece) => read.extend_from_slice(&piece),
                None => break,
            }
        }
        *body = read.freeze();
        Ok(false)
    }

    async fn upstream_peer(&self, _: &mut Session, _: &mut Bytes) -> pingora::Result<Box<HttpPeer>> {
        Ok(Box::new(peer(self.upstream)))
    }

    async fn upstream_request_filter(
        &self,
        _: &mut Session,
        head: &mut RequestHeader,
        body: &mut Bytes,
    ) -> pingora::Result<()> {
        head.remove_header(&header::TRANSFER_ENCODING);
        head.insert_header(header::CONTENT_LENGTH, body.len())
    }

    async fn request_body_filter(
        &self,
        _: &mut Session,
        piece: &mut Option<Bytes>,
        end: bool,
        body: &mut Bytes,
    ) -> pingora::Result<()> {
        *piece = Some(if end { body.clone() } else { Bytes::new() });
        Ok(())
    }
}

/// One exchange over the connector, without deadlines, retries or fallbacks.
struct Driven {
    upstream: SocketAddr,
    connector: Connector,
}

const PASSED_ON: [HeaderName; 4] = [header::ACCEPT, header::AUTHORIZATION, header::CONTENT_TYPE, header::USER_AGENT];
const GATHER_MAX: usize = 4;

#[async_trait]
impl ProxyHttp for Driven {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn request_filter(&self, session: &mut Session, (): &mut ()) -> pingora::Result<bool> {
        let mut body = BytesMut::new();
        while let Some(piece) = session.as_downstream_mut().read_request_body().await? {
            body.extend_from_slice(&piece);
        }
        let peer = peer(self.upstream);
        let (mut line, _) = self.connector.get_http_session(&peer).await?;
        let head = upstream_head(session.req_header(), body.len())?;
        line.write_request_header(Box::new(head)).await?;
        line.write_request_body(body.freeze(), true).await?;
        line.finish_request_body().await?;
        line.read_response_header().await?;
        let head = line.response_header().expect("a head was just read");
        let mut head = Some(Box::new(client_head(head)?));
        let mut done = line.response_done();
        while !done {
            let mut tasks = Vec::with_capacity(GATHER_MAX + 2);
            let piece = tokio::select! {
                biased;
                piece = line.read_response_body() => piece?,
                _ = session.as_downstream_mut().read_body_or_idle(true) => {
                    session.set_keepalive(None);
                    line.shutdown().await;
                    return Ok(true);
                }
            };
            tasks.extend(head.take().map(|head| HttpTask::Header(head, false)));
            done = piece.is_none() || line.response_done();
            tasks.push(HttpTask::Body(piece, false));
            while !done && tasks.len() < GATHER_MAX {
                match ready_now(&mut line).await {
                    Some(piece) => {
                        let piece = piece?;
                        done = piece.is_none() || line.response_done();
                        tasks.push(HttpTask::Body(piece, false));
                    }
                    None => break,
                }
            }
            if done {
                tasks.push(HttpTask::Body(None, true));
            }
            session.write_response_tasks(tasks).await?;
        }
        if let Some(head) = head {
            session.write_response_tasks(vec![HttpTask::Header(head, true)]).await?;
        }
        self.connector.release_http_session(line, &peer, Some(Duration::from_secs(60))).await;
        Ok(true)
    }

    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> pingora::Result<Box<HttpPeer>> {
        pingora::Error::e_explain(pingora::ErrorType::InternalError, "request_filter answers everything")
    }
}

/// The next piece if it is there already.
async fn ready_now(line: &mut HttpSession) -> Option<pingora::Result<Option<Bytes>>> {
    let mut read = pin!(line.read_response_body());
    poll_fn(|context| {
        Poll::Ready(match read.as_mut().poll(context) {
            Poll::Ready(piece) => Some(piece),
            Poll::Pending => None,
        })
    })
    .await
}

fn upstream_head(client: &RequestHeader, length: usize) -> pingora::Result<RequestHeader> {
    let path = client.uri.path_and_query().map_or("/", |path| path.as_str());
    let mut head = RequestHeader::build(Method::POST, path.as_bytes(), Some(8))?;
    head.insert_header(header::HOST, HeaderValue::from_static("upstream"))?;
    for name in PASSED_ON {
        if let Some(value) = client.headers.get(&name) {
            head.insert_header(name, value.clone())?;
        }
    }
    head.insert_header(header::CONTENT_LENGTH, length)?;
    Ok(head)
}

fn client_head(upstream: &ResponseHeader) -> pingora::Result<ResponseHeader> {
    let mut head = upstream.clone();
    for name in [header::CONNECTION, header::TRANSFER_ENCODING] {
        head.remove_header(&name);
    }
    head.remove_header("keep-alive");
    if length(&head.headers).is_none() {
        head.insert_header(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"))?;
    }
    head.set_version(Version::HTTP_11);
    Ok(head)
}

fn length(headers: &http::HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
