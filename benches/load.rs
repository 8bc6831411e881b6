//! Load for a proxy, and a provider behind it that counts.
//!
//! Plain HTTP/1.1 on sockets, so that it costs little beside what is measured. Every answer is checked
//! to its last byte; a call that was cut, refused or answered wrongly counts as an error and never as
//! a fast one.

#![expect(clippy::print_stdout, reason = "a program for people and scripts, whose result is its output")]
#![expect(clippy::print_stderr, reason = "a program for people and scripts: faults go to stderr")]
#![expect(clippy::disallowed_methods, reason = "it measures time")]

use clap::{Args, Parser, Subcommand};
use serde::Deserialize;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{interval, sleep, timeout};

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Answers chat calls, unary and streamed; `GET /counts` tells how many.
    Provider {
        #[arg(long, default_value_t = 18090)]
        port: u16,
    },
    /// Whole answers over kept connections, one call after the other on each.
    Unary {
        #[command(flatten)]
        to: To,
        #[arg(long, default_value_t = 32)]
        connections: usize,
        /// Stop after this many calls.
        #[arg(long)]
        calls: Option<usize>,
        /// Stop after this time.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
    /// Streams that are open at the same time, their starts spread over one interval.
    Streams {
        #[command(flatten)]
        to: To,
        #[arg(long, default_value_t = 200)]
        count: usize,
        /// Further rounds over the same connections.
        #[arg(long, default_value_t = 1)]
        rounds: usize,
        #[arg(long, default_value_t = 50)]
        chunks: usize,
        #[arg(long, default_value_t = 20)]
        interval_ms: u64,
        /// Ask for the usage chunk.
        #[arg(long)]
        usage: bool,
    },
}

#[derive(Args, Clone)]
struct To {
    /// Scheme `http`, an address and a port.
    #[arg(long, default_value = "http://127.0.0.1:18080")]
    url: String,
    /// Sent as a bearer token.
    #[arg(long, default_value = "sk-bf-bench")]
    key: String,
    #[arg(long, default_value = "openai/gpt-4o")]
    model: String,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be had");
    let run = async {
        match cli.command {
            Command::Provider { port } => provide(port).await.map(|()| true),
            Command::Unary { to, connections, calls, seconds } => {
                let until = Instant::now() + Duration::from_secs(seconds);
                unary(&to, connections, calls, until).await.map(|outcome| outcome.report())
            }
            Command::Streams { to, count, rounds, chunks, interval_ms, usage } => {
                let shape = Shape { chunks, interval: Duration::from_millis(interval_ms), usage };
                streams(&to, count, rounds, shape).await.map(|outcome| outcome.report())
            }
        }
    };
    match LocalSet::new().block_on(&runtime, run) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench-load: {error}");
            ExitCode::FAILURE
        }
    }
}

// ---- The client

/// What was seen; times in nanoseconds.
#[derive(Default)]
struct Outcome {
    calls: Vec<u64>,
    /// From a chunk's making at the provider to its arrival here.
    chunks: Vec<u64>,
    errors: usize,
    first_error: Option<String>,
    took: Duration,
}

impl Outcome {
    fn add(&mut self, other: Outcome) {
        self.calls.extend(other.calls);
        self.chunks.extend(other.chunks);
        self.errors += other.errors;
        self.first_error = self.first_error.take().or(other.first_error);
    }

    fn fail(&mut self, error: impl Into<String>) {
        self.errors += 1;
        self.first_error.get_or_insert(error.into());
    }

    /// One line of `name=value`; whether there were calls and no errors.
    fn report(mut self) -> bool {
        let mut line = format!("calls={} errors={}", self.calls.len(), self.errors);
        let seconds = self.took.as_secs_f64();
        let mut add = |name: &str, times: &mut Vec<u64>| {
            times.sort_unstable();
            for (percent, at) in [("p50", times.len() / 2), ("p99", times.len() * 99 / 100)] {
                if let Some(&nanos) = times.get(at) {
                    let micros = Duration::from_nanos(nanos).as_secs_f64() * 1e6;
                    write!(line, " {name}{percent}_us={micros:.1}").expect("writing to a string does not fail");
                }
            }
        };
        add("", &mut self.calls);
        add("chunk_", &mut self.chunks);
        println!("{line} seconds={seconds:.3}");
        if let Some(error) = &self.first_error {
            eprintln!("bench-load: first of {} errors: {error}", self.errors);
        }
        self.errors == 0 && !self.calls.is_empty()
    }
}

#[derive(Clone, Copy)]
struct Shape {
    chunks: usize,
    interval: Duration,
    usage: bool,
}

impl To {
    fn address(&self) -> io::Result<SocketAddr> {
        let bad =
            |text: &str| io::Error::new(io::ErrorKind::InvalidInput, format!("'{text}' is not http://address:port"));
        let rest = self.url.strip_prefix("http://").ok_or_else(|| bad(&self.url))?;
        rest.trim_end_matches('/').parse().map_err(|_| bad(&self.url))
    }

    /// A call as OpenAI's Python SDK sends it: its headers, `messages` before `model`, 1.2 KB of body.
    fn request(&self, stream: Option<Shape>) -> io::Result<Vec<u8>> {
        let asked = "Summarise the following report for a reader who has two minutes. ".repeat(15);
        let mut body = format!(
            r#"{{"messages":[{{"role":"system","content":"You are a helpful assistant."}},{{"role":"user","content":"{asked}"}}],"model":"{}""#,
            self.model
        );
        if let Some(Shape { chunks, interval, usage }) = stream {
            let interval = interval.as_millis();
            write!(body, r#","max_tokens":{chunks},"metadata":{{"interval_ms":"{interval}"}},"stream":true"#)
                .expect("writing to a string does not fail");
            if usage {
                body.push_str(r#","stream_options":{"include_usage":true}"#);
            }
        }
        body.push('}');
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nHost: {}\r\nAccept-Encoding: gzip, deflate\r\nConnection: keep-alive\r\n\
             Accept: application/json\r\nContent-Type: application/json\r\nUser-Agent: OpenAI/Python 1.99.1\r\n\
             X-Stainless-Lang: python\r\nX-Stainless-Package-Version: 1.99.1\r\nX-Stainless-OS: Linux\r\n\
             X-Stainless-Arch: x64\r\nX-Stainless-Runtime: CPython\r\nX-Stainless-Runtime-Version: 3.12.3\r\n\
             Authorization: Bearer {}\r\nX-Stainless-Async: false\r\nx-stainless-retry-count: 0\r\n\
             Content-Length: {}\r\n\r\n",
            self.address()?,
            self.key,
            body.len()
        );
        Ok([head.into_bytes(), body.into_bytes()].concat())
    }
}

/// Nothing in here takes longer, unless something hangs.
const STUCK: Duration = Duration::from_secs(60);

async fn unary(to: &To, connections: usize, calls: Option<usize>, until: Instant) -> io::Result<Outcome> {
    let (address, request) = (to.address()?, Rc::new(to.request(None)?));
    let left = Rc::new(Cell::new(calls.unwrap_or(usize::MAX)));
    let started = Instant::now();
    let mut workers = JoinSet::new();
    for _ in 0..connections {
        let (request, left) = (Rc::clone(&request), Rc::clone(&left));
        workers.spawn_local(async move {
            let mut outcome = Outcome::default();
            let mut wire = None;
            while left.get() > 0 && Instant::now() < until {
                left.set(left.get() - 1);
                let began = Instant::now();
                match timeout(STUCK, call(&mut wire, address, &request)).await {
                    Ok(Ok(())) => outcome.calls.push(nanos(began.elapsed())),
                    Ok(Err(error)) => outcome.fail(error.to_string()),
                    Err(_) => outcome.fail("no answer"),
                }
                if outcome.errors > 100 {
                    break;
                }
            }
            outcome
        });
    }
    Ok(gather(workers, started).await)
}

async fn gather(mut workers: JoinSet<Outcome>, started: Instant) -> Outcome {
    let mut all = Outcome::default();
    while let Some(outcome) = workers.join_next().await {
        all.add(outcome.expect("a worker does not panic"));
    }
    all.took = started.elapsed();
    all
}

/// One call on a kept connection, or a new one where there is none.
async fn call(kept: &mut Option<Wire>, address: SocketAddr, request: &[u8]) -> io::Result<()> {
    let mut wire = match kept.take() {
        Some(wire) => wire,
        None => Wire::connect(address).await?,
    };
    wire.stream.write_all(request).await?;
    let head = wire.head().await?;
    let body = wire.body(&head).await?;
    head.must_be_ok(&body)?;
    if !body.ends_with(ANSWER_END.as_bytes()) || !body.windows(8).any(|window| window == b"\"usage\":") {
        return Err(wrong("the answer is not whole"));
    }
    if head.keep {
        *kept = Some(wire);
    }
    Ok(())
}

async fn streams(to: &To, count: usize, rounds: usize, shape: Shape) -> io::Result<Outcome> {
    let (address, request) = (to.address()?, Rc::new(to.request(Some(shape))?));
    let started = Instant::now();
    let mut workers = JoinSet::new();
    for n in 0..count {
        let request = Rc::clone(&request);
        let delay = shape.interval.mul_f64(n as f64 / count as f64);
        workers.spawn_local(async move {
            sleep(delay).await;
            let mut outcome = Outcome::default();
            let mut wire = None;
            for _ in 0..rounds {
                let began = Instant::now();
                let limit = STUCK + shape.interval * 2 * u32::try_from(shape.chunks).unwrap_or(u32::MAX);
                match timeout(limit, streamed(&mut wire, address, &request, shape, &mut outcome.chunks)).await {
                    Ok(Ok(())) => outcome.calls.push(nanos(began.elapsed())),
                    Ok(Err(error)) => outcome.fail(error.to_string()),
                    Err(_) => outcome.fail("the stream stands still"),
                }
            }
            outcome
        });
    }
    Ok(gather(workers, started).await)
}

async fn streamed(
    kept: &mut Option<Wire>,
    address: SocketAddr,
    request: &[u8],
    shape: Shape,
    delays: &mut Vec<u64>,
) -> io::Result<()> {
    let mut wire = match kept.take() {
        Some(wire) => wire,
        None => Wire::connect(address).await?,
    };
    wire.stream.write_all(request).await?;
    let head = wire.head().await?;
    if head.status != 200 || head.length.is_some() {
        let body = wire.body(&head).await?;
        head.must_be_ok(&body)?;
        return Err(wrong("the answer is not a stream"));
    }
    let (mut chunks, mut usage, mut ended) = (0, 0, false);
    let mut text = Vec::new();
    while let Some(piece) = wire.chunk().await? {
        text.extend_from_slice(&piece);
        while let Some(end) = text.windows(2).position(|pair| pair == b"\n\n") {
            let event: Vec<u8> = text.drain(..end + 2).collect();
            let event = std::str::from_utf8(&event).map_err(|_| wrong("an event is not text"))?;
            match event.trim_end() {
                "data: [DONE]" => ended = true,
                event if event.contains("\"usage\":{") => usage += 1,
                event => {
                    chunks += 1;
                    let made = event.split_once(MADE_AT).and_then(|(_, rest)| rest.split('"').next()?.parse().ok());
                    delays.push(unix_nanos().saturating_sub(made.ok_or_else(|| wrong("a chunk without its time"))?));
                }
            }
        }
    }
    if !text.is_empty() || !ended || chunks != shape.chunks || usage != usize::from(shape.usage) {
        return Err(wrong(&format!("{chunks} chunks, {usage} usage chunks, ended: {ended}")));
    }
    if head.keep {
        *kept = Some(wire);
    }
    Ok(())
}

// ---- The provider

#[derive(Deserialize)]
struct Chat {
    model: String,
    #[serde(default)]
    stream: bool,
    #[serde(default)]
    stream_options: StreamOptions,
    max_tokens: Option<usize>,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

#[derive(Default)]
struct Counts {
    unary: Cell<u64>,
    streams: Cell<u64>,
}

const ANSWER_END: &str = r#""service_tier":"default","system_fingerprint":"fp_9b78b61c52"}"#;
/// Before the time at which a chunk was made, in its text.
const MADE_AT: &str = "made at ";

async fn provide(port: u16) -> io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("listening on {}", listener.local_addr()?);
    let counts = Rc::new(Counts::default());
    loop {
        let (stream, _) = listener.accept().await?;
        let counts = Rc::clone(&counts);
        tokio::task::spawn_local(async move {
            // Whoever leaves is not missed.
            let _ = serve(stream, &counts).await;
        });
    }
}

async fn serve(stream: TcpStream, counts: &Counts) -> io::Result<()> {
    let mut wire = Wire::new(stream)?;
    loop {
        let head = wire.head().await?;
        let body = if head.length.is_some() || head.chunked { wire.body(&head).await? } else { Vec::new() };
        if head.start.starts_with("GET /counts ") {
            let counts = format!(r#"{{"unary":{},"streams":{}}}"#, counts.unary.get(), counts.streams.get());
            wire.answer(200, "", &counts).await?;
        } else if !head.start.starts_with("POST /v1/chat/completions ") {
            wire.answer(404, "", r#"{"error":{"message":"no such path"}}"#).await?;
        } else {
            match serde_json::from_slice::<Chat>(&body) {
                Err(error) => wire.answer(400, "", &format!(r#"{{"error":{{"message":"{error}"}}}}"#)).await?,
                Ok(chat) if chat.stream => {
                    counts.streams.set(counts.streams.get() + 1);
                    stream_answer(&mut wire, &chat).await?;
                }
                Ok(chat) => {
                    counts.unary.set(counts.unary.get() + 1);
                    wire.answer(200, PROVIDER_HEADERS, &whole_answer(&chat)).await?;
                }
            }
        }
    }
}

const PROVIDER_HEADERS: &str = "date: Thu, 12 Nov 2026 10:00:00 GMT\r\nopenai-processing-ms: 412\r\n\
    openai-version: 2020-10-01\r\nx-request-id: req_4f1d2c3b5a69788796a5b4c3d2e1f001\r\nserver: fake\r\n";
const USAGE: &str = r#""usage":{"prompt_tokens":251,"completion_tokens":132,"total_tokens":383,"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}"#;

fn whole_answer(chat: &Chat) -> String {
    let said = "The report says that things are going well, with a few exceptions. ".repeat(9);
    format!(
        r#"{{"id":"chatcmpl-C4a8f2e6b1d9","object":"chat.completion","created":1794477600,"model":"{}","choices":[{{"index":0,"message":{{"role":"assistant","content":"{said}","refusal":null,"annotations":[]}},"logprobs":null,"finish_reason":"stop"}}],{USAGE},{ANSWER_END}"#,
        chat.model
    )
}

async fn stream_answer(wire: &mut Wire, chat: &Chat) -> io::Result<()> {
    let millis = chat.metadata.get("interval_ms").and_then(|text| text.parse().ok()).unwrap_or(20);
    let mut ticks = interval(Duration::from_millis(millis).max(Duration::from_millis(1)));
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n{PROVIDER_HEADERS}transfer-encoding: chunked\r\n\r\n"
    );
    wire.stream.write_all(head.as_bytes()).await?;
    let chunk = |choices: &str, usage: &str| {
        let event = format!(
            "data: {{\"id\":\"chatcmpl-C4a8f2e6b1d9\",\"object\":\"chat.completion.chunk\",\"created\":1794477600,\"model\":\"{}\",\
             \"service_tier\":\"default\",\"system_fingerprint\":\"fp_9b78b61c52\",\"choices\":{choices}{usage}}}\n\n",
            chat.model
        );
        format!("{:x}\r\n{event}\r\n", event.len())
    };
    let unused = if chat.stream_options.include_usage { ",\"usage\":null" } else { "" };
    for _ in 0..chat.max_tokens.unwrap_or(50) {
        ticks.tick().await;
        let delta = format!(
            r#"[{{"index":0,"delta":{{"content":" word {MADE_AT}{}"}},"logprobs":null,"finish_reason":null}}]"#,
            unix_nanos()
        );
        wire.stream.write_all(chunk(&delta, unused).as_bytes()).await?;
    }
    let mut end = String::new();
    if chat.stream_options.include_usage {
        end.push_str(&chunk("[]", &format!(",{USAGE}")));
    }
    end.push_str("e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n");
    wire.stream.write_all(end.as_bytes()).await
}

// ---- HTTP/1.1

struct Wire {
    stream: TcpStream,
    read: Vec<u8>,
}

struct Head {
    start: String,
    status: u16,
    length: Option<usize>,
    chunked: bool,
    keep: bool,
}

impl Head {
    fn must_be_ok(&self, body: &[u8]) -> io::Result<()> {
        if self.status == 200 {
            return Ok(());
        }
        Err(wrong(&format!("status {}: {}", self.status, String::from_utf8_lossy(&body[..body.len().min(300)]))))
    }
}

impl Wire {
    async fn connect(address: SocketAddr) -> io::Result<Wire> {
        Wire::new(TcpStream::connect(address).await?)
    }

    fn new(stream: TcpStream) -> io::Result<Wire> {
        stream.set_nodelay(true)?;
        Ok(Wire { stream, read: Vec::with_capacity(4096) })
    }

    async fn fill(&mut self) -> io::Result<()> {
        self.read.reserve(4096);
        if self.stream.read_buf(&mut self.read).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    /// Everything up to and without `end`, which is thrown away.
    async fn until(&mut self, end: &[u8]) -> io::Result<Vec<u8>> {
        loop {
            if let Some(at) = self.read.windows(end.len()).position(|window| window == end) {
                let text = self.read[..at].to_vec();
                self.read.drain(..at + end.len());
                return Ok(text);
            }
            self.fill().await?;
        }
    }

    async fn exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.read.len() < length {
            self.fill().await?;
        }
        Ok(self.read.drain(..length).collect())
    }

    async fn head(&mut self) -> io::Result<Head> {
        let text = self.until(b"\r\n\r\n").await?;
        let text = String::from_utf8(text).map_err(|_| wrong("a head is not text"))?;
        let mut lines = text.split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        let status = start.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        let mut head = Head { start, status, length: None, chunked: false, keep: true };
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            let value = value.trim();
            match name {
                name if name.eq_ignore_ascii_case("content-length") => head.length = value.parse().ok(),
                name if name.eq_ignore_ascii_case("transfer-encoding") => {
                    head.chunked = value.eq_ignore_ascii_case("chunked")
                }
                name if name.eq_ignore_ascii_case("connection") => head.keep = !value.eq_ignore_ascii_case("close"),
                _ => {}
            }
        }
        Ok(head)
    }

    async fn body(&mut self, head: &Head) -> io::Result<Vec<u8>> {
        match head.length {
            Some(length) => self.exactly(length).await,
            None if head.chunked => {
                let mut body = Vec::new();
                while let Some(piece) = self.chunk().await? {
                    body.extend(piece);
                }
                Ok(body)
            }
            None => Err(wrong("a message without a length")),
        }
    }

    /// One piece of a chunked body; `None` at its end.
    async fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let size = self.until(b"\r\n").await?;
        let size = std::str::from_utf8(&size).ok().and_then(|size| usize::from_str_radix(size.trim(), 16).ok());
        let piece = self.exactly(size.ok_or_else(|| wrong("a chunk without its size"))?).await?;
        if self.exactly(2).await? != b"\r\n" {
            return Err(wrong("a chunk without its end"));
        }
        Ok((!piece.is_empty()).then_some(piece))
    }

    async fn answer(&mut self, status: u16, headers: &str, body: &str) -> io::Result<()> {
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 {status} Answer\r\ncontent-type: application/json\r\n{headers}content-length: {length}\r\n\r\n{body}"
        );
        self.stream.write_all(answer.as_bytes()).await
    }
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn unix_nanos() -> u64 {
    nanos(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}
