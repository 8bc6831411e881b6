//! The real program is killed under load, started again, and its books compared with what a provider that
//! counts has billed: never less; and never more than what was open when it died can have cost.
//!
//! `TOLLGATE_CRASH_KILLS` and `TOLLGATE_CRASH_SEED` make it longer, and different.

use crate::binary::Served;
use crate::database::verified;
use crate::fake::answers::Good;
use crate::fake::{Behaviour, Bill, Gate, Step};
use crate::house::{ADMIN_TOKEN, Reply, chat, chat_stream, cost, eventually, nanos, runtime, soon};
use rusqlite::Connection;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const CLIENTS: u64 = 6;
/// What every call is billed: within what its text and its cap allow.
const BILL: Bill = Bill { input: 10, output: 100 };

/// The books of a process that is gone.
#[derive(Debug)]
struct Books {
    entries: u64,
    cost: u64,
    unresolved: u64,
    unresolved_cost: u64,
    /// The most that one of those is charged, and the least.
    dearest: u64,
    cheapest: u64,
    /// Entries that are neither complete nor unresolved.
    others: u64,
    /// Entries that are complete and do not cost what was billed.
    wrong: u64,
    balance: u64,
}

impl Books {
    fn read(served: &Served) -> Books {
        let ledger = Connection::open(served.dir.path().join("tollgate.db")).unwrap();
        let number = |sql: &str| {
            let number: i64 = ledger.query_row(sql, (), |row| row.get(0)).unwrap();
            u64::try_from(number).unwrap()
        };
        let of = |what: &str, which: &str| number(&format!("SELECT ifnull({what}, 0) FROM ledger WHERE {which}"));
        Books {
            entries: of("count(*)", "1"),
            cost: of("sum(cost_nanos)", "1"),
            unresolved: of("count(*)", "ending = 'unresolved'"),
            unresolved_cost: of("sum(cost_nanos)", "ending = 'unresolved'"),
            dearest: of("max(cost_nanos)", "ending = 'unresolved'"),
            cheapest: of("min(cost_nanos)", "ending = 'unresolved'"),
            others: of("count(*)", "ending NOT IN ('completed', 'unresolved')"),
            wrong: of("count(*)", &format!("ending = 'completed' AND cost_nanos <> {}", cost(BILL))),
            balance: number("SELECT ifnull(sum(spent), 0) FROM balances WHERE measure = 'money'"),
        }
    }
}

/// As random as a test should be: the same seed, the same moments.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most
    }
}

fn number(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).ok().map_or(usual, |text| text.parse().unwrap())
}

/// Bills at once, and takes its time to answer.
fn slow_provider() -> Behaviour {
    let turn = AtomicU64::new(0);
    Behaviour::new(move |request| {
        let mut steps = Good::billing(BILL.input, BILL.output).steps(request);
        let pause = Duration::from_millis(turn.fetch_add(7, Ordering::Relaxed) % 41);
        // After the bill, and once more within the answer.
        let middle = steps.len() - 1;
        steps.insert(middle, Step::Rest(pause));
        steps.insert(1, Step::Rest(pause));
        steps
    })
}

fn bodies() -> [serde_json::Value; 2] {
    [chat(), chat_stream()].map(|mut body| {
        body["max_tokens"] = BILL.output.into();
        body
    })
}

/// Clients that ask one thing after the other, whether the program is there or not.
fn load(served: &Served, stop: &Arc<AtomicBool>) -> Vec<tokio::task::JoinHandle<u64>> {
    let client = |number: u64| {
        let requests = bodies().map(|body| served.post(&body));
        let stop = Arc::clone(stop);
        tokio::spawn(async move {
            let mut answers = 0;
            for request in requests.iter().cycle().skip(usize::try_from(number % 2).unwrap()) {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let answer = async { request.try_clone().unwrap().send().await?.error_for_status()?.bytes().await };
                match answer.await {
                    Ok(_) => answers += 1,
                    Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
            answers
        })
    };
    (0..CLIENTS).map(client).collect()
}

#[test]
fn a_kill_under_load_forgets_nothing() {
    runtime().block_on(async {
        let kills = number("TOLLGATE_CRASH_KILLS", 3);
        let mut dice = Dice(number("TOLLGATE_CRASH_SEED", 0x0070_6c65_6173_6521) | 1);
        let mut served = Served::with_limit("1000").await;
        served.fake.usually(slow_provider());
        let stop = Arc::new(AtomicBool::new(false));
        let clients = load(&served, &stop);
        for _ in 0..kills {
            tokio::time::sleep(Duration::from_millis(250 + dice.below(700))).await;
            served.program.signal("KILL");
            served.program.end().await;
            served.again(&[]);
            served.ready().await;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        stop.store(true, Ordering::Relaxed);
        let mut answers = 0;
        for client in clients {
            answers += soon("the clients to end", client).await.unwrap();
        }
        // What administrators and clients are told is what is in the books.
        let spent = served.spent().await;
        served.program.signal("TERM");
        assert_eq!(served.program.end().await.code(), Some(0));
        let (books, billed) = (Books::read(&served), cost(served.fake.billed()));
        verified(&served.config);
        let told = format!("{answers} answers, {billed} billed, {books:?}");
        assert!(answers > 20 && books.unresolved > 0, "{told}");
        assert!(books.cost >= billed, "less than was billed: {told}");
        assert!(books.cost - billed <= books.unresolved_cost, "more than what was open explains: {told}");
        assert!(books.unresolved <= kills * CLIENTS, "more than can have been open: {told}");
        assert_eq!((books.others, books.wrong), (0, 0), "{told}");
        assert_eq!((books.balance, spent), (books.cost, books.cost), "{told}");
        assert!(books.entries >= u64::try_from(served.fake.seen().len()).unwrap(), "{told}");
        // A token for each byte of a short text and its framing, and the cap, all at the dearest rate.
        assert!(books.cheapest >= cost(BILL) && books.dearest <= 400 * 5_000 + 100 * 20_000, "{told}");
    });
}

/// An administrator finds the one open call, and says what the provider billed for it.
async fn check_correction(served: &Served, charged: u64) {
    let administer = async |method: &str, path: &str, body: Value| {
        let url = format!("{}{path}", served.admin);
        let request = served.http.request(method.parse().unwrap(), url).bearer_auth(ADMIN_TOKEN);
        let request = if body.is_null() { request } else { request.json(&body) };
        Reply::read(request.send().await.unwrap()).await
    };
    let list = async || administer("GET", "/api/ledger/unresolved?limit=5", Value::Null).await.json();
    let listed = list().await;
    assert_eq!((&listed["total_count"], &listed["limit"], &listed["offset"]), (&json!(1), &json!(5), &json!(0)));
    let entry = &listed["entries"][0];
    assert_eq!((nanos(&entry["cost"]), &entry["output_tokens"]), (charged, &json!(BILL.output)), "{entry}");
    assert_eq!((&entry["provider"], &entry["request_type"]), (&json!("openai"), &json!("chat_completion")), "{entry}");
    let path = format!("/api/ledger/{}/correct", entry["id"].as_str().unwrap());
    let fault = administer("POST", &path, json!({"cost": -1})).await;
    assert_eq!((fault.status, &fault.json()["error"]["param"]), (400, &json!("cost")));
    let elsewhere = format!("/api/ledger/{}/correct", "0".repeat(32));
    for path in [&*elsewhere, "/api/ledger/nonsense/correct"] {
        assert_eq!(administer("POST", path, json!({"cost": 0})).await.status, 404, "{path}");
    }
    let bill = json!({"cost": 0.001_025, "input_tokens": BILL.input});
    for _ in 0..2 {
        let corrected = administer("POST", &path, bill.clone()).await;
        assert_eq!(corrected.status, 200, "{corrected:?}");
        let entry = &corrected.json()["entry"];
        assert_eq!((nanos(&entry["cost"]), &entry["corrections"]), (cost(BILL), &json!(1)), "{entry}");
        assert_eq!(served.spent().await, 3 * cost(BILL));
    }
    assert_eq!(list().await["total_count"], 0);
    let audit = administer("GET", "/api/governance/audit?object_type=ledger_entry", Value::Null).await.json();
    assert_eq!((&audit["total_count"], &audit["entries"][0]["action"]), (&json!(1), &json!("corrected")), "{audit}");
    assert_eq!(nanos(&audit["entries"][0]["before"]["cost"]), charged, "{audit}");
}

#[test]
fn a_predecessor_that_is_killed_while_it_drains_is_charged_by_its_successor() {
    runtime().block_on(async {
        let mut served = Served::with_limit("1000").await;
        let gate = Gate::new();
        let [unary, stream] = bodies();
        served.fake.usually(Good::billing(BILL.input, BILL.output));
        assert_eq!(served.post(&unary).send().await.unwrap().status(), 200);
        served.fake.script([Good { bill: BILL, ..Good::gated(&gate) }]);
        let mut open = served.post(&stream).send().await.unwrap();
        soon("a chunk", open.chunk()).await.unwrap().unwrap();
        let mut old = served.again(&["--upgrade"]);
        old.signal("QUIT");
        served.http = reqwest::Client::new();
        // The successor serves while the predecessor still has its stream.
        eventually("the successor to serve", async || served.dir.path().join("tollgate.journal.1").exists()).await;
        served.ready().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(old.0.try_wait().unwrap().is_none(), "the predecessor has a stream to drain");
        old.signal("KILL");
        old.end().await;
        drop(open);
        eventually("the open call to be charged", async || served.spent().await > 2 * cost(BILL)).await;
        assert_eq!(served.post(&unary).send().await.unwrap().status(), 200);
        // Both are killed, and the next one finds nothing that it would charge again.
        eventually("the last call to be counted", async || served.spent().await > 3 * cost(BILL)).await;
        let spent = served.spent().await;
        served.program.signal("KILL");
        served.program.end().await;
        served.again(&[]);
        served.ready().await;
        assert_eq!(served.spent().await, spent);
        let books = Books::read(&served);
        assert_eq!((books.unresolved, books.others, books.entries, books.cost), (1, 0, 3, spent), "{books:?}");
        assert_eq!(books.cost, 2 * cost(BILL) + books.unresolved_cost, "{books:?}");
        check_correction(&served, books.unresolved_cost).await;
        verified(&served.config);
    });
}
