//! A provider that does as it is told: an OpenAI look-alike on raw TCP, able to misbehave at any byte.
//!
//! Each request takes the next behaviour from a queue, or the usual one when the queue is empty.
//! Everything that arrives is recorded, and so is what an honest provider would put on its bill.

pub mod answers;
pub mod proxy;

use bytes::{Buf, Bytes, BytesMut};
use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

/// What to do about one request.
#[derive(Clone)]
pub struct Behaviour {
    pub read: Read,
    #[expect(clippy::type_complexity, reason = "said once")]
    steps: Arc<dyn Fn(&Request) -> Vec<Step> + Send + Sync>,
}

/// How much of the request is read before the steps begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    Whole,
    /// The head alone; the body is read, and forgotten, while the steps are taken.
    Head,
    /// Everything, but with a rest after each 64 KiB.
    Slowly(Duration),
}

#[derive(Debug, Clone)]
pub enum Step {
    Send(Bytes),
    /// The same bytes over and over, counted as they go.
    Repeat(Bytes, usize, Arc<AtomicUsize>),
    /// Go on when the test says so.
    Await(Gate),
    /// Take time.
    Rest(Duration),
    /// From here on the provider wants its money.
    Bill(Bill),
    /// Say nothing more until the other side hangs up.
    Stall,
    Close,
    Reset,
}

/// Prompt and completion tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bill {
    pub input: u64,
    pub output: u64,
}

/// Opened once for each step that is to be let through.
#[derive(Debug, Clone)]
pub struct Gate(Arc<Semaphore>);

impl Gate {
    pub fn new() -> Gate {
        Gate(Arc::new(Semaphore::new(0)))
    }

    pub fn open(&self) {
        self.0.add_permits(1);
    }

    async fn pass(&self) {
        self.0.acquire().await.unwrap().forget();
    }
}

impl Behaviour {
    pub fn new(steps: impl Fn(&Request) -> Vec<Step> + Send + Sync + 'static) -> Behaviour {
        Behaviour { read: Read::Whole, steps: Arc::new(steps) }
    }

    /// What to do about this request.
    pub fn steps(&self, request: &Request) -> Vec<Step> {
        (self.steps)(request)
    }

    pub fn reading(self, read: Read) -> Behaviour {
        Behaviour { read, ..self }
    }
}

/// One request as it arrived.
#[derive(Debug)]
pub struct Request {
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
    hung_up: watch::Sender<bool>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Waits until the other side closed the connection before it had the whole answer.
    pub async fn hung_up(&self) {
        let mut hung_up = self.hung_up.subscribe();
        let waited = tokio::time::timeout(Duration::from_secs(10), hung_up.wait_for(|gone| *gone)).await;
        assert!(waited.is_ok(), "the connection to the provider is still open");
    }

    pub fn has_hung_up(&self) -> bool {
        *self.hung_up.borrow()
    }
}

/// A running provider. It ends with the runtime it was started on.
pub struct Fake {
    pub port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    queue: Mutex<VecDeque<Behaviour>>,
    usual: Mutex<Behaviour>,
    seen: Mutex<Vec<Arc<Request>>>,
    count: watch::Sender<usize>,
    connections: AtomicUsize,
    billed_input: AtomicU64,
    billed_output: AtomicU64,
}

impl Fake {
    pub async fn start() -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            usual: Mutex::new(answers::Good::default().into()),
            seen: Mutex::default(),
            count: watch::channel(0).0,
            connections: AtomicUsize::new(0),
            billed_input: AtomicU64::new(0),
            billed_output: AtomicU64::new(0),
        });
        let accepting = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                accepting.connections.fetch_add(1, Ordering::Relaxed);
                let shared = Arc::clone(&accepting);
                tokio::spawn(async move { serve(stream, &shared).await });
            }
        });
        Fake { port, shared }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The next requests get these, one each.
    pub fn script<B: Into<Behaviour>>(&self, behaviours: impl IntoIterator<Item = B>) {
        self.shared.queue.lock().unwrap().extend(behaviours.into_iter().map(Into::into));
    }

    /// What requests get that the script says nothing about.
    pub fn usually(&self, behaviour: impl Into<Behaviour>) {
        *self.shared.usual.lock().unwrap() = behaviour.into();
    }

    /// The requests so far, in the order in which they were read.
    pub fn seen(&self) -> Vec<Arc<Request>> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// Waits for the request of this number, from zero.
    pub async fn request(&self, number: usize) -> Arc<Request> {
        let mut count = self.shared.count.subscribe();
        let waited = tokio::time::timeout(Duration::from_secs(20), count.wait_for(|count| *count > number)).await;
        assert!(waited.is_ok(), "request {number} never arrived");
        Arc::clone(&self.shared.seen.lock().unwrap()[number])
    }

    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    pub fn billed(&self) -> Bill {
        Bill {
            input: self.shared.billed_input.load(Ordering::Relaxed),
            output: self.shared.billed_output.load(Ordering::Relaxed),
        }
    }
}

impl Shared {
    fn next(&self) -> Behaviour {
        let scripted = self.queue.lock().unwrap().pop_front();
        scripted.unwrap_or_else(|| self.usual.lock().unwrap().clone())
    }

    fn record(&self, request: &Arc<Request>) {
        let mut seen = self.seen.lock().unwrap();
        seen.push(Arc::clone(request));
        self.count.send_replace(seen.len());
    }

    fn bill(&self, bill: Bill) {
        self.billed_input.fetch_add(bill.input, Ordering::Relaxed);
        self.billed_output.fetch_add(bill.output, Ordering::Relaxed);
    }
}

/// Serves one connection until either side has enough of it.
async fn serve(mut stream: TcpStream, shared: &Shared) {
    stream.set_nodelay(true).unwrap();
    let mut buffer = BytesMut::new();
    loop {
        let (mut reader, mut writer) = stream.split();
        let Ok(Some(head)) = read_head(&mut reader, &mut buffer).await else { return };
        let behaviour = shared.next();
        let Ok(request) = read_request(&mut reader, &mut buffer, head, behaviour.read).await else { return };
        let request = Arc::new(request);
        shared.record(&request);
        let mut done = Done::Kept;
        for step in (behaviour.steps)(&request) {
            let outcome = tokio::select! {
                biased;
                outcome = take(step, &mut writer, shared) => outcome,
                () = gone(&mut reader) => Err(io::ErrorKind::BrokenPipe.into()),
            };
            done = match outcome {
                Ok(done) => done,
                Err(_) => {
                    request.hung_up.send_replace(true);
                    return;
                }
            };
            if !matches!(done, Done::Kept) {
                break;
            }
        }
        match done {
            // What is left of the body cannot be told from a next request: no more is answered here.
            Done::Kept if behaviour.read == Read::Head => {
                let _ = writer.shutdown().await;
                return gone(&mut reader).await;
            }
            Done::Kept => {}
            Done::Closed => return,
            Done::Reset => return stream.set_zero_linger().unwrap(),
        }
    }
}

enum Done {
    Kept,
    Closed,
    Reset,
}

async fn take(step: Step, writer: &mut WriteHalf<'_>, shared: &Shared) -> io::Result<Done> {
    match step {
        Step::Send(bytes) => writer.write_all(&bytes).await?,
        Step::Repeat(bytes, times, count) => {
            for _ in 0..times {
                writer.write_all(&bytes).await?;
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
        Step::Await(gate) => gate.pass().await,
        Step::Rest(pause) => tokio::time::sleep(pause).await,
        Step::Bill(bill) => shared.bill(bill),
        Step::Stall => std::future::pending().await,
        Step::Close => return Ok(Done::Closed),
        Step::Reset => return Ok(Done::Reset),
    }
    Ok(Done::Kept)
}

/// Resolves when the other side has closed. What still comes from it is forgotten.
async fn gone(reader: &mut ReadHalf<'_>) {
    let mut scratch = vec![0; 64 * 1024];
    while let Ok(1..) = reader.read(&mut scratch).await {}
}

/// The next head, or `None` when the connection ends where it may.
async fn read_head(reader: &mut ReadHalf<'_>, buffer: &mut BytesMut) -> io::Result<Option<Bytes>> {
    loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            return Ok(Some(buffer.split_to(end + 4).freeze()));
        }
        if reader.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

async fn read_request(
    reader: &mut ReadHalf<'_>,
    buffer: &mut BytesMut,
    head: Bytes,
    read: Read,
) -> io::Result<Request> {
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut lines = head.lines();
    let path = lines.next().and_then(|line| line.split(' ').nth(1)).unwrap_or_default().to_owned();
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let header = |name: &str| headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    let length: usize = header("content-length").map_or(0, |value| value.parse().unwrap());
    let chunked = header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
    let body = match (read, chunked) {
        (Read::Head, _) => Bytes::new(),
        (_, true) => read_chunks(reader, buffer).await?,
        (read, false) => {
            let mut rested = 0;
            while buffer.len() < length {
                more(reader, buffer).await?;
                if let Read::Slowly(pause) = read
                    && buffer.len() - rested >= 64 * 1024
                {
                    rested = buffer.len();
                    tokio::time::sleep(pause).await;
                }
            }
            buffer.split_to(length).freeze()
        }
    };
    Ok(Request { path, headers, body, hung_up: watch::channel(false).0 })
}

async fn read_chunks(reader: &mut ReadHalf<'_>, buffer: &mut BytesMut) -> io::Result<Bytes> {
    let mut body = BytesMut::new();
    loop {
        let end = loop {
            match buffer.windows(2).position(|window| window == b"\r\n") {
                Some(end) => break end,
                None => more(reader, buffer).await?,
            }
        };
        let size = std::str::from_utf8(&buffer[..end]).ok().and_then(|text| usize::from_str_radix(text, 16).ok());
        let size = size.ok_or(io::ErrorKind::InvalidData)?;
        buffer.advance(end + 2);
        while buffer.len() < size + 2 {
            more(reader, buffer).await?;
        }
        body.extend_from_slice(&buffer[..size]);
        buffer.advance(size + 2);
        if size == 0 {
            return Ok(body.freeze());
        }
    }
}

async fn more(reader: &mut ReadHalf<'_>, buffer: &mut BytesMut) -> io::Result<()> {
    match reader.read_buf(buffer).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}
