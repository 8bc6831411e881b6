//! Every way in which a call can end, under both policies, with the books looked at: what was charged, how the
//! entry says that it ended, and whether it says that the charge is an estimate.
//!
//! | what happened | where it is tested |
//! |---|---|
//! | usage came: in an answer, a stream, an `incomplete` or `failed` one | `answered` below, `money::told_usage_is_charged_exactly` |
//! | no connection, no TLS | `what_never_reached_the_provider_is_not_in_the_books` |
//! | the provider refused: 401, 403, 404, 429, another 4xx | `refused` |
//! | it failed after the request was sent: 5xx, reset, time-out, an error first | `failed` |
//! | the client left: before the head, in the stream | `cut`; with a drain `a_drained_answer_is_in_the_books_as_it_was_told` |
//! | a stream or a document without usage, or broken, or silent | `cut` |
//! | usage that cannot be | `absurd`, `money::absurd_usage_is_charged_as_held` |
//! | a retry | `each_attempt_is_in_the_books_for_itself` |
//! | the process ends in order | `what_a_stop_cuts_off_is_in_the_books_as_held` |
//! | a panic, a task that is dropped | `state::tests::a_panic_settles_the_hold`, `…::a_task_that_is_dropped_settles_its_hold` |
//! | a kill | `crash::a_kill_under_load_forgets_nothing` |

use crate::admission::metric;
use crate::fake::answers::{End, Good, Told, error_first, framed, last_status, only, raw, raw_then};
use crate::fake::{Behaviour, Bill, Gate, Step};
use crate::house::{GPT_4O_INPUT, GPT_4O_OUTPUT, House, Key, chat, cost, house_with, nanos, soon};
use rusqlite::Connection;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::time::Duration;

const CHAT: &str = "/v1/chat/completions";
const USUAL: Bill = Bill { input: 1_000, output: 100 };

/// What stands in the books for an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Charge {
    /// An entry that costs nothing: the request counts.
    Nothing,
    Told(Bill),
    /// Estimated; at least so many words were delivered.
    Guessed(u64),
    /// Estimated: what was held.
    Held,
    /// Nothing under `remaining`, and what was held under `never_exceed`.
    HeldIfStrict,
}
use Charge::{Guessed, Held, HeldIfStrict, Nothing, Told as Usage};

/// What the client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Client {
    Reads,
    LeavesInTheStream,
    LeavesBeforeTheHead,
}

struct Row {
    name: &'static str,
    stream: bool,
    path: &'static str,
    behaviour: Behaviour,
    client: Client,
    ending: &'static str,
    charge: Charge,
}

fn row(name: &'static str, stream: bool, behaviour: impl Into<Behaviour>, ending: &'static str, charge: Charge) -> Row {
    Row { name, stream, path: CHAT, behaviour: behaviour.into(), client: Client::Reads, ending, charge }
}

fn answered() -> Vec<Row> {
    let responses = |name, event: &str| Row {
        path: "/v1/responses",
        ..row(name, true, response_that_ends(event), "completed", Usage(USUAL))
    };
    vec![
        row("a document", false, Good::default(), "completed", Usage(USUAL)),
        row("a stream", true, Good::default(), "completed", Usage(USUAL)),
        responses("an incomplete response", "incomplete"),
        responses("a failed response", "failed"),
    ]
}

/// A stream of the responses API that does not come to a good end, and tells its usage all the same.
fn response_that_ends(event: &str) -> Behaviour {
    let usage = json!({"input_tokens": USUAL.input, "output_tokens": USUAL.output, "total_tokens": 1_100});
    let data = |kind: &str, response: Value| json!({"type": format!("response.{kind}"), "response": response});
    let events = [
        data("created", json!({"id": "r", "status": "in_progress"})),
        json!({"type": "response.output_text.delta", "delta": "Hello"}),
        data(event, json!({"id": "r", "status": event, "usage": usage})),
    ];
    let events = events.map(|data| framed(format!("data: {data}\n\n").as_bytes()));
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    raw([head.as_bytes(), &events.concat(), b"0\r\n\r\n"].concat())
}

fn refused() -> Vec<Row> {
    let named = [(400, "400"), (401, "401"), (402, "402"), (403, "403"), (404, "404"), (422, "422"), (429, "429")];
    named.map(|(code, name)| row(name, false, last_status(code), "upstream_failed", Nothing)).into()
}

fn failed() -> Vec<Row> {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n";
    vec![
        row("500", false, last_status(500), "upstream_failed", HeldIfStrict),
        row("503 for a stream", true, last_status(503), "upstream_failed", HeldIfStrict),
        row("a reset", false, only(Step::Reset), "upstream_failed", HeldIfStrict),
        row("a close", true, only(Step::Close), "upstream_failed", HeldIfStrict),
        row("half a head", false, raw_then("HTTP/1.1 200 OK\r\n", Step::Close), "upstream_failed", HeldIfStrict),
        row("a head alone", false, raw_then(head, Step::Close), "upstream_broke", HeldIfStrict),
        row("silence", false, only(Step::Stall), "timed_out", HeldIfStrict),
        row("silence after the head", false, raw_then(head, Step::Stall), "timed_out", HeldIfStrict),
        row("an error first", true, error_first(), "upstream_failed", HeldIfStrict),
    ]
}

fn cut() -> Vec<Row> {
    let ending = |end| Good::ending(end);
    let leaves = |name, client, behaviour: Behaviour, words| Row {
        client,
        ..row(name, true, behaviour, "client_gone", Guessed(words))
    };
    vec![
        row("a stream without usage", true, Good::telling(Told::Nothing), "completed", Guessed(7)),
        row("a document without usage", false, Good::telling(Told::Nothing), "completed", Guessed(7)),
        row("a stream that breaks", true, ending(End::CloseAfter(4)), "upstream_broke", Guessed(3)),
        row("a stream that is reset", true, ending(End::ResetAfter(4)), "upstream_broke", Guessed(0)),
        row("a document that breaks", false, ending(End::CloseAfter(1)), "upstream_broke", Guessed(0)),
        row("a stream that falls silent", true, ending(End::StallAfter(4)), "timed_out", Guessed(3)),
        row("a document that falls silent", false, ending(End::StallAfter(1)), "timed_out", Guessed(0)),
        leaves("a client in the stream", Client::LeavesInTheStream, ending(End::StallAfter(4)).into(), 0),
        leaves("a client before the head", Client::LeavesBeforeTheHead, only(Step::Stall), 0),
    ]
}

fn absurd() -> Vec<Row> {
    let told = |usage: Value| Good::telling(Told::This(usage));
    vec![
        row("less than nothing", false, told(json!({"prompt_tokens": -5, "completion_tokens": 1})), "completed", Held),
        row(
            "beyond the model",
            true,
            told(json!({"prompt_tokens": 10, "completion_tokens": 90_000_000})),
            "completed",
            Held,
        ),
    ]
}

/// One line of the ledger.
#[derive(Debug)]
struct Line {
    ending: String,
    estimated: bool,
    cost: u64,
}

/// The books of a house, and which of its lines were looked at.
struct Books {
    path: String,
    seen: HashSet<Vec<u8>>,
}

impl Books {
    fn of(house: &House) -> Books {
        Books { path: house.config["store"]["path"].as_str().unwrap().to_owned(), seen: HashSet::new() }
    }

    /// The lines that were added since the last look, oldest first.
    async fn added(&mut self, house: &House) -> Vec<Line> {
        house.written().await;
        let ledger = Connection::open(&self.path).unwrap();
        let mut lines = ledger
            .prepare("SELECT id, ending, estimated, cost_nanos FROM ledger_entries ORDER BY admitted_at")
            .unwrap();
        let read = |row: &rusqlite::Row<'_>| {
            let line = Line { ending: row.get(1)?, estimated: row.get(2)?, cost: row.get::<_, i64>(3)?.unsigned_abs() };
            Ok((row.get::<_, Vec<u8>>(0)?, line))
        };
        let lines: Vec<(Vec<u8>, Line)> = lines.query_map((), read).unwrap().map(Result::unwrap).collect();
        lines.into_iter().filter_map(|(id, line)| self.seen.insert(id).then_some(line)).collect()
    }
}

fn body(path: &str, stream: bool) -> Value {
    let mut body = match path {
        CHAT => chat(),
        _ => json!({"model": "openai/gpt-4o", "input": "Say hello."}),
    };
    body[if path == CHAT { "max_tokens" } else { "max_output_tokens" }] = json!(100);
    body["stream"] = json!(stream);
    body
}

/// What is held for the usual chat.
async fn hold_of_a_chat(house: &House, key: &Key) -> u64 {
    let gate = Gate::new();
    house.fake.script([Good::gated(&gate)]);
    let mut open = house.post(CHAT, key, &body(CHAT, true)).send().await.unwrap();
    soon("a chunk", open.chunk()).await.unwrap().unwrap();
    let held = nanos(&house.quota(key).await["budgets"][0]["held"]);
    (0..50).for_each(|_| gate.open());
    while open.chunk().await.unwrap().is_some() {}
    held
}

async fn play(house: &House, key: &Key, row: &Row) {
    let arrived = house.fake.seen().len();
    house.fake.script([row.behaviour.clone()]);
    let sent = house.post(row.path, key, &body(row.path, row.stream)).send();
    match row.client {
        Client::Reads => drop(sent.await.unwrap().bytes().await),
        Client::LeavesInTheStream => {
            let mut response = sent.await.unwrap();
            soon("a chunk", response.chunk()).await.unwrap().unwrap();
        }
        Client::LeavesBeforeTheHead => {
            let asking = tokio::spawn(sent);
            let request = house.fake.request(arrived).await;
            asking.abort();
            request.hung_up().await;
        }
    }
}

/// Plays all rows, one after the other, and looks at the books after each.
async fn check(house: &House, admission: &str, rows: Vec<Row>) {
    let key = house.key_with_budget(100.0).await;
    let mut books = Books::of(house);
    let held = hold_of_a_chat(house, &key).await;
    let mut spent = house.spent(&key).await;
    assert_eq!((books.added(house).await.len(), spent), (1, cost(USUAL)));
    let mut estimates = 0;
    for row in rows {
        play(house, &key, &row).await;
        let charged = house.spent(&key).await - spent;
        spent += charged;
        let charge = match row.charge {
            HeldIfStrict if admission == "never_exceed" => Held,
            HeldIfStrict => Nothing,
            charge => charge,
        };
        let (least, most) = match charge {
            Nothing | HeldIfStrict => (0, 0),
            Usage(bill) => (cost(bill), cost(bill)),
            Guessed(words) => (words * GPT_4O_OUTPUT + GPT_4O_INPUT, 50 * GPT_4O_INPUT + 100 * GPT_4O_OUTPUT),
            Held => (held, held),
        };
        let name = format!("{} under {admission}", row.name);
        assert!((least..=most).contains(&charged), "{name}: {charged} is not in {least}..={most}");
        let [line] = &books.added(house).await[..] else { panic!("{name}: not one entry") };
        let estimated = matches!(charge, Guessed(_) | Held);
        let expected = (row.ending, estimated, charged);
        assert_eq!((&*line.ending, line.estimated, line.cost), expected, "{name}");
        estimates += u64::from(estimated);
        let counted = metric(house, r#"tollgate_estimated_charges_total{provider="openai"}"#).await;
        assert_eq!(counted, estimates, "{name}");
        let line = format!("tollgate_attempts_total{{ending=\"{}\",provider=\"openai\"}}", row.ending);
        assert!(metric(house, &line).await > 0, "{name}");
    }
}

fn check_all(admission: &'static str) {
    house_with(
        |config| {
            config["governance"] = json!({"admission": admission});
            let network = &mut config["providers"]["openai"]["network_config"];
            network["default_request_timeout_in_seconds"] = json!(1);
            network["stream_idle_timeout_in_seconds"] = json!(1);
        },
        async |house| {
            let rows = [answered(), refused(), failed(), cut(), absurd()];
            check(house, admission, rows.into_iter().flatten().collect()).await;
        },
    );
}

#[test]
fn every_ending_is_in_the_books_under_remaining() {
    check_all("remaining");
}

#[test]
fn every_ending_is_in_the_books_under_never_exceed() {
    check_all("never_exceed");
}

#[test]
fn a_drained_answer_is_in_the_books_as_it_was_told() {
    for admission in ["remaining", "never_exceed"] {
        house_with(
            |config| {
                config["governance"] = json!({"admission": admission});
                config["server"]["drain_after_disconnect"] = json!("10s");
            },
            async |house| {
                let key = house.key_with_budget(100.0).await;
                let mut books = Books::of(house);
                let held = hold_of_a_chat(house, &key).await;
                books.added(house).await;
                let late = |behaviour: Behaviour| {
                    let gate = Gate::new();
                    let waits = gate.clone();
                    let late = Behaviour::new(move |request| {
                        let steps = behaviour.steps(request);
                        let rest = Step::Rest(Duration::from_millis(100));
                        [Step::Await(waits.clone()), rest].into_iter().chain(steps).collect()
                    });
                    (gate, late)
                };
                let strict = admission == "never_exceed";
                for (behaviour, expected) in [
                    (Good::default().into(), cost(USUAL)),
                    (last_status(500), if strict { held } else { 0 }),
                    (last_status(400), 0),
                ] {
                    let arrived = house.fake.seen().len();
                    let (gate, behaviour) = late(behaviour);
                    house.fake.script([behaviour]);
                    let asking = tokio::spawn(house.post(CHAT, &key, &body(CHAT, true)).send());
                    house.fake.request(arrived).await;
                    asking.abort();
                    gate.open();
                    let [line] = &books.added(house).await[..] else { panic!("not one entry") };
                    assert_eq!((line.estimated, line.cost), (expected == held, expected), "{line:?}");
                    // Where the proxy is slow to notice, the provider's answer was first.
                    assert!(["client_gone", "completed", "upstream_failed"].contains(&&*line.ending), "{line:?}");
                }
            },
        );
    }
}

#[test]
fn what_never_reached_the_provider_is_not_in_the_books() {
    for url in ["http://127.0.0.1:9", "https://127.0.0.1"] {
        house_with(
            |config| {
                let network = &mut config["providers"]["openai"]["network_config"];
                let port = network["base_url"].as_str().unwrap().rsplit(':').next().unwrap().to_owned();
                // Nobody is at the one; at the other somebody who does not speak TLS.
                let url = if url.starts_with("https") { format!("{url}:{port}") } else { url.to_owned() };
                network["base_url"] = json!(url);
                network["default_request_timeout_in_seconds"] = json!(2);
            },
            async |house| {
                let key = house.key_with_budget(1.0).await;
                let reply = house.call(CHAT, &key, &body(CHAT, false)).await;
                assert!(reply.status >= 502, "{reply:?}");
                assert_eq!((house.spent(&key).await, Books::of(house).added(house).await.len()), (0, 0), "{url}");
            },
        );
    }
}

#[test]
fn each_attempt_is_in_the_books_for_itself() {
    for (admission, strict) in [("remaining", false), ("never_exceed", true)] {
        house_with(
            |config| {
                config["governance"] = json!({"admission": admission});
                let network = &mut config["providers"]["openai"]["network_config"];
                network["max_retries"] = json!(2);
                network["retry_backoff_initial"] = json!(100);
            },
            async |house| {
                let key = house.key_with_budget(1.0).await;
                let mut books = Books::of(house);
                let held = hold_of_a_chat(house, &key).await;
                let before = house.spent(&key).await;
                books.added(house).await;
                house.fake.script([last_status(500), only(Step::Reset), Good::default().into()]);
                let reply = house.call(CHAT, &key, &body(CHAT, false)).await;
                assert_eq!((reply.status, reply.header("x-tollgate-attempts")), (200, Some("3")));
                let failed = if strict { held } else { 0 };
                let spent = house.spent(&key).await - before;
                assert_eq!(spent, 2 * failed + cost(USUAL), "{admission}");
                let mut lines = books.added(house).await;
                lines.sort_by_key(|line| line.ending == "completed");
                let lines: Vec<_> = lines.iter().map(|line| (&*line.ending, line.estimated, line.cost)).collect();
                let failure = ("upstream_failed", strict, failed);
                assert_eq!(lines, [failure, failure, ("completed", false, cost(USUAL))], "{admission}");
            },
        );
    }
}

#[test]
fn what_a_stop_cuts_off_is_in_the_books_as_held() {
    for admission in ["remaining", "never_exceed"] {
        house_with(
            |config| config["governance"] = json!({"admission": admission}),
            async |house| {
                let key = house.key_with_budget(1.0).await;
                let mut books = Books::of(house);
                let held = hold_of_a_chat(house, &key).await;
                books.added(house).await;
                house.fake.script([Good::ending(End::StallAfter(4))]);
                let mut response = house.post(CHAT, &key, &body(CHAT, true)).send().await.unwrap();
                soon("a chunk", response.chunk()).await.unwrap().unwrap();
                house.stop();
                drop(response);
                house.open();
                let [line] = &books.added(house).await[..] else { panic!("not one entry") };
                assert_eq!((&*line.ending, line.estimated, line.cost), ("abandoned", true, held), "{admission}");
                assert_eq!(house.spent(&key).await, cost(USUAL) + held);
            },
        );
    }
}
