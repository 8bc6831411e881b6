use super::*;
use crate::governance::request::RequestKind;
use crate::governance::usage::Usage;
use crate::state::clock::Clock;
use crate::state::digest::KeyHasher;
use crate::store::tests::TempDir;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Mutex;

/// A table of so many models, each at this many dollars for a million tokens.
fn text(models: usize, dollars: u32) -> String {
    let entry = |n| {
        format!(r#""m{n}": {{"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": {dollars}e-06}}"#)
    };
    format!("{{{}}}", (0..models).map(entry).collect::<Vec<_>>().join(","))
}

/// A server of one document, which can be changed, and that closes each connection.
struct Server {
    url: String,
    answer: Arc<Mutex<Vec<u8>>>,
}

impl Server {
    fn start() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/prices.json?v=1", listener.local_addr().unwrap());
        let answer: Arc<Mutex<Vec<u8>>> = Arc::default();
        let shared = Arc::clone(&answer);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
                    head.push(byte[0]);
                }
                assert!(head.starts_with(b"GET /prices.json?v=1 HTTP/1.1\r\n"));
                let _ = stream.write_all(&shared.lock().unwrap());
            }
        });
        Server { url, answer }
    }

    fn says(&self, status: u16, body: &str) {
        let head = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
        *self.answer.lock().unwrap() = [head.as_bytes(), body.as_bytes()].concat();
    }
}

struct House {
    dir: TempDir,
    state: Arc<State>,
    prices: Prices,
}

impl House {
    fn new() -> House {
        let dir = TempDir::new();
        let state = Arc::new(State::new(Clock::System, KeyHasher::new(&[7; 32]), 8));
        let prices = Prices::new(dir.path().to_owned(), Metrics::new());
        House { dir, state, prices }
    }

    /// As a reload does it.
    fn apply(&self, source: PriceSource) -> Pricing {
        let table = match &source {
            PriceSource::BuiltIn => Some(Table::built_in()),
            PriceSource::File(path) => Some(Table::load(path).unwrap()),
            PriceSource::Url(_) => None,
        };
        let pricing = Pricing { source, refresh: Duration::from_secs(3_600), table: table.map(Arc::new) };
        let before = Arc::clone(&self.state.snapshot().view.catalog);
        let table = self.prices.table(&pricing, &before);
        let edits = table.iter().map(|table| Edit::Catalog(Arc::clone(&table.catalog))).collect();
        let commit = |_: &_, _: &_, _: &[Edit], ()| {
            self.prices.settle(&pricing, table.as_deref(), &before);
            Ok::<_, Infallible>(())
        };
        self.state.change(&HashMap::new(), |_| Ok((edits, ())), commit).unwrap();
        pricing
    }

    fn keeper(&self) -> Keeper {
        Keeper {
            wanted: self.prices.wanted.subscribe(),
            state: Arc::clone(&self.state),
            status: self.prices.status(),
            metrics: self.prices.metrics.clone(),
            data_dir: self.dir.path().to_owned(),
            private_addresses: true,
        }
    }

    /// What a thousand tokens of a model cost, in nanos.
    fn cost(&self, model: &str) -> Option<i64> {
        let kind = RequestKind::ChatCompletion;
        let snapshot = self.state.snapshot();
        let price = snapshot.view.catalog.find("openai", model, model, kind)?;
        Some(price.cost(kind, &Usage { input: 1_000, ..Usage::default() }).get())
    }

    fn counted(&self, outcome: &str) -> bool {
        self.prices.metrics.render().contains(&format!("tollgate_price_refreshes_total{{outcome=\"{outcome}\"}}"))
    }
}

#[tokio::test]
async fn a_bad_download_changes_nothing_and_is_told() {
    let (house, server) = (House::new(), Server::start());
    let pricing = house.apply(PriceSource::Url(server.url.clone()));
    // Until it answers, what is built in.
    assert_eq!((house.cost("gpt-4o"), house.prices.status().standing().source.as_str()), (Some(2_500_000), "builtin"));
    let (keeper, mut seen) = (house.keeper(), Seen::default());
    server.says(200, &text(10, 3));
    assert!(keeper.look(&pricing, &mut seen).await);
    assert_eq!((house.cost("gpt-4o"), house.cost("m3")), (None, Some(3_000_000)));
    let good = house.prices.status().standing();
    assert_eq!((good.source.as_str(), good.models, good.failing.clone()), ("the URL at 127.0.0.1", 10, None));
    assert!(house.counted("changed") && !house.counted("failed"));
    // Not a table, nothing in it, too little, or impossible prices.
    let negative = r#"{"m": {"litellm_provider": "openai", "input_cost_per_token": -1}}"#;
    let infinite = r#"{"m": {"litellm_provider": "openai", "input_cost_per_token": 1e999}}"#;
    let bad = [
        (500, text(10, 4), "status 500"),
        (302, text(10, 4), "status 302"),
        (200, "<html>".to_owned(), "price table: "),
        (200, "{}".to_owned(), "holds no price"),
        (200, text(4, 4), "less than half"),
        (200, negative.to_owned(), "negative"),
        (200, infinite.to_owned(), "is not a decimal number"),
        (200, text(10, 4)[..200].to_owned(), "price table: "),
    ];
    for (status, body, why) in bad {
        server.says(status, &body);
        assert!(!keeper.look(&pricing, &mut seen).await, "{why}");
        let standing = house.prices.status().standing();
        assert_eq!((house.cost("m3"), &standing.hash), (Some(3_000_000), &good.hash));
        assert!(standing.failing.as_ref().is_some_and(|told| told.contains(why)), "{why}: {standing:?}");
    }
    // It ends before it is all there.
    *server.answer.lock().unwrap() = b"HTTP/1.1 200 x\r\ncontent-length: 900\r\nconnection: close\r\n\r\n{".to_vec();
    assert!(!keeper.look(&pricing, &mut seen).await);
    // It would not end.
    let long = format!("HTTP/1.1 200 x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", TABLE_BYTES_MAX + 1);
    *server.answer.lock().unwrap() = long.into_bytes();
    assert!(!keeper.look(&pricing, &mut seen).await);
    assert!(house.prices.status().standing().failing.unwrap().contains("larger than"));
    assert!(house.counted("failed"));
    assert_eq!(house.prices.metrics.price_good.get(), 0);
    // Good again, and the same as before; then a new one.
    server.says(200, &text(10, 3));
    assert!(keeper.look(&pricing, &mut seen).await);
    assert!(house.counted("unchanged") && house.prices.status().standing() == good);
    server.says(200, &text(5, 6));
    assert!(keeper.look(&pricing, &mut seen).await);
    assert_eq!((house.cost("m3"), house.cost("m7")), (Some(6_000_000), None));
    assert_eq!(house.prices.metrics.price_good.get(), 1);
}

#[tokio::test]
async fn what_was_downloaded_last_holds_at_the_next_start() {
    let (house, server) = (House::new(), Server::start());
    let source = PriceSource::Url(server.url.clone());
    let pricing = house.apply(source.clone());
    server.says(200, &text(10, 3));
    assert!(house.keeper().look(&pricing, &mut Seen::default()).await);
    let next = House { dir: house.dir, ..House::new() };
    let next = House { prices: Prices::new(next.dir.path().to_owned(), Metrics::new()), ..next };
    next.apply(source);
    assert_eq!(next.cost("m3"), Some(3_000_000));
    // And of no other URL.
    let other = House { dir: next.dir, ..House::new() };
    let other = House { prices: Prices::new(other.dir.path().to_owned(), Metrics::new()), ..other };
    other.apply(PriceSource::Url(format!("{}0", server.url)));
    assert_eq!(other.cost("m3"), None);
}

#[tokio::test]
async fn a_file_is_read_again_when_it_changes() {
    let house = House::new();
    let path = house.dir.path().join("mine.json");
    std::fs::write(&path, text(10, 3)).unwrap();
    let pricing = house.apply(PriceSource::File(path.clone()));
    assert_eq!(house.cost("m3"), Some(3_000_000));
    let (keeper, mut seen) = (house.keeper(), Seen { file: stamp(&path), ..Seen::default() });
    seen.hash = Some(house.prices.status().standing().hash);
    assert!(keeper.look(&pricing, &mut seen).await && house.counted("unchanged") && !house.counted("changed"));
    std::fs::write(&path, text(10, 44)).unwrap();
    assert!(keeper.look(&pricing, &mut seen).await && house.counted("changed"));
    assert_eq!(house.cost("m3"), Some(44_000_000));
    std::fs::write(&path, "{").unwrap();
    assert!(!keeper.look(&pricing, &mut seen).await);
    std::fs::remove_file(&path).unwrap();
    assert!(!keeper.look(&pricing, &mut seen).await);
    assert_eq!(house.cost("m3"), Some(44_000_000));
}

#[tokio::test]
async fn what_is_not_wanted_any_more_does_not_come_late() {
    let (house, server) = (House::new(), Server::start());
    let pricing = house.apply(PriceSource::Url(server.url.clone()));
    server.says(200, &text(10, 3));
    house.apply(PriceSource::BuiltIn);
    assert!(house.keeper().look(&pricing, &mut Seen::default()).await);
    assert_eq!((house.cost("m3"), house.cost("gpt-4o")), (None, Some(2_500_000)));
}

#[tokio::test]
async fn private_addresses_are_as_forbidden_as_for_providers() {
    let server = Server::start();
    server.says(200, "{}");
    let get = |private| {
        let url = server.url.clone();
        async move { Fetcher::new(private).get(&url, 9, PATIENCE).await.map_err(|error| error.to_string()) }
    };
    assert_eq!(get(true).await, Ok(b"{}".to_vec()));
    assert!(get(false).await.unwrap_err().contains("not allowed by server.upstream_private_addresses"));
}

#[test]
fn a_thread_fetches_at_once_and_follows_what_is_wanted() {
    let (house, server) = (House::new(), Server::start());
    server.says(200, &text(10, 3));
    house.apply(PriceSource::BuiltIn);
    house.prices.keep(&house.state, true).unwrap();
    house.apply(PriceSource::Url(server.url.clone()));
    wait_until(|| house.cost("m3") == Some(3_000_000));
    house.apply(PriceSource::BuiltIn);
    assert_eq!(house.cost("m3"), None);
    // Who reloads looks again at once.
    server.says(200, &text(10, 5));
    house.apply(PriceSource::Url(server.url.clone()));
    wait_until(|| house.cost("m3") == Some(5_000_000));
}

fn wait_until(is_so: impl Fn() -> bool) {
    for _ in 0..2_000 {
        if is_so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("it did not happen in ten seconds");
}
