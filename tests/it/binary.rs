//! The program as an operator meets it: its exit codes, its signals, its words.

use crate::fake::answers::{Good, LONG_STREAM_END, error_first, long_stream, only, status};
use crate::fake::{Fake, Gate, Step};
use crate::house::{ADMIN_TOKEN, Dir, Reply, chat, chat_stream, eventually, free_port, nanos, runtime, soon};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

pub const KEY: &str = "sk-bf-11111111-2222-4333-8444-555555555555";

pub fn tollgate() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.env_remove("TOLLGATE_CONFIG").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A running program, ended with the test.
pub struct Program(pub Child);

impl Program {
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.0.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    pub async fn end(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the program to end", async || {
            status = self.0.try_wait().unwrap();
            status.is_some()
        })
        .await;
        status.unwrap()
    }

    /// The most memory it ever had, in bytes.
    fn memory_max(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib * 1024
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `tollgate serve` in front of a fake provider.
pub struct Served {
    pub fake: Fake,
    pub program: Program,
    pub proxy: String,
    pub admin: String,
    pub config: PathBuf,
    pub http: reqwest::Client,
    pub dir: Dir,
}

fn config_text(provider: &str, dir: &Dir, proxy: u16, admin: u16, limit: &str) -> String {
    let dir = dir.path().display();
    format!(
        "server:\n  listen: [\"127.0.0.1:{proxy}\"]\n  threads: 1\n  upgrade_socket: {dir}/upgrade.sock\n  grace_period: 15s\n\
         admin:\n  listen: \"127.0.0.1:{admin}\"\n  token: {ADMIN_TOKEN}\n\
         store:\n  path: {dir}/tollgate.db\n  encryption_key: a key of more than sixteen characters\n\
         providers:\n  openai:\n    keys: [{{ name: main, value: sk-x }}]\n    network_config: {{ base_url: \"{provider}\" }}\n\
         governance:\n  virtual_keys:\n    - name: ci\n      value: {KEY}\n      budget: {{ max_limit: {limit}, reset_duration: 1h }}\n\
         \x20     provider_configs: [{{ provider: openai, weight: 1, allowed_models: [\"*\"], key_ids: [\"*\"] }}]\n\
         log: {{ level: error, format: text }}\n"
    )
}

impl Served {
    pub async fn start() -> Served {
        Served::with_limit("1").await
    }

    /// With a budget of so many dollars.
    pub async fn with_limit(limit: &str) -> Served {
        let fake = Fake::start().await;
        let dir = Dir::new();
        let (proxy, admin) = (free_port(), free_port());
        let config = dir.path().join("tollgate.yaml");
        std::fs::write(&config, config_text(&fake.url(), &dir, proxy, admin, limit)).unwrap();
        let program = tollgate().args(["serve", "--config"]).arg(&config).stderr(Stdio::inherit()).spawn().unwrap();
        let served = Served {
            fake,
            program: Program(program),
            proxy: format!("http://127.0.0.1:{proxy}"),
            admin: format!("http://127.0.0.1:{admin}"),
            config,
            http: reqwest::Client::new(),
            dir,
        };
        served.ready().await;
        served
    }

    /// Starts the program once more on the same files, and gives back the one that was there.
    pub fn again(&mut self, more: &[&str]) -> Program {
        let mut command = tollgate();
        command.args(["serve", "--config"]).arg(&self.config).args(more).stderr(Stdio::inherit());
        std::mem::replace(&mut self.program, Program(command.spawn().unwrap()))
    }

    pub async fn ready(&self) {
        eventually("the program to be ready", async || {
            let ready = async |url: String| self.http.get(url).send().await.is_ok_and(|reply| reply.status() == 200);
            ready(format!("{}/readyz", self.admin)).await && ready(format!("{}/health", self.proxy)).await
        })
        .await;
    }

    pub fn post(&self, body: &Value) -> reqwest::RequestBuilder {
        self.http.post(format!("{}/v1/chat/completions", self.proxy)).bearer_auth(KEY).json(body)
    }

    /// Waits until this process has written so many entries.
    pub async fn written(&self, entries: u64) {
        eventually("the ledger to be written", async || {
            let request = self.http.get(format!("{}/metrics", self.admin)).bearer_auth(ADMIN_TOKEN);
            let text = request.send().await.unwrap().text().await.unwrap();
            text.contains(&format!("\ntollgate_ledger_written_entries_total {entries}\n"))
        })
        .await;
    }

    pub async fn quota(&self) -> Value {
        let url = format!("{}/api/governance/virtual-keys/quota", self.proxy);
        Reply::read(self.http.get(url).bearer_auth(KEY).send().await.unwrap()).await.json()
    }

    /// In nano-dollars, as this process counts.
    pub async fn spent(&self) -> u64 {
        nanos(&self.quota().await["budgets"][0]["current_usage"])
    }

    async fn limit(&self) -> Option<f64> {
        self.quota().await["budgets"][0]["max_limit"].as_f64()
    }

    /// Changes the config file and says so.
    fn reload(&self, change: impl Fn(&str) -> String) {
        let text = std::fs::read_to_string(&self.config).unwrap();
        std::fs::write(&self.config, change(&text)).unwrap();
        self.program.signal("HUP");
    }

    async fn readyz(&self) -> Reply {
        Reply::read(self.http.get(format!("{}/readyz", self.admin)).send().await.unwrap()).await
    }
}

#[test]
fn the_version_is_said_in_one_line() {
    let output = tollgate().arg("--version").output().unwrap();
    assert!(output.status.success());
    assert!(stdout(&output).starts_with(concat!("tollgate ", env!("CARGO_PKG_VERSION"))), "{}", stdout(&output));
    assert_eq!(stdout(&output).lines().count(), 1);
    assert!(tollgate().arg("--help").output().unwrap().status.success());
}

#[test]
fn wrong_usage_ends_with_2() {
    for arguments in [&["nonsense"][..], &["serve", "--nonsense"], &[], &["demo", "--port", "many"]] {
        let output = tollgate().args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!stderr(&output).is_empty() && !stderr(&output).contains("panicked"));
    }
}

#[test]
fn check_prints_every_problem_with_its_place() {
    let dir = Dir::new();
    let file = dir.path().join("broken.yaml");
    let text = "server:\n  listne: [\"0.0.0.0:8080\"]\n  max_request_body: lots\n\
                providers:\n  openai:\n    keys: [{ name: main, value: env.A_VARIABLE_NOBODY_SET }]\n\
                governance:\n  virtual_keys:\n    - name: ci\n      budget: { max_limit: -1, reset_duration: soon }\n";
    std::fs::write(&file, text).unwrap();
    for command in ["check", "serve"] {
        let output = tollgate().args([command, "--config"]).arg(&file).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{command}");
        let said = stderr(&output);
        let problem = |line: u32, word: &str| {
            let place = format!("{}:{line}:", file.display());
            assert!(said.lines().any(|said| said.starts_with(&place) && said.contains(word)), "{word} in {said}");
        };
        problem(2, "listne");
        problem(2, "listen");
        problem(3, "max_request_body");
        problem(6, "A_VARIABLE_NOBODY_SET");
        problem(10, "max_limit");
        problem(10, "reset_duration");
        assert!(!said.contains("panicked"), "{said}");
    }
    let output = tollgate().args(["check", "--config", "/nowhere/tollgate.yaml"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("/nowhere/tollgate.yaml"), "{}", stderr(&output));
    // Not even YAML.
    std::fs::write(&file, "server: [\n  a: }\n").unwrap();
    let output = tollgate().args(["check", "--config"]).arg(&file).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains(&format!("{}:", file.display())));
}

#[test]
fn check_of_a_good_file_ends_with_0_and_starts_nothing() {
    let dir = Dir::new();
    let file = dir.path().join("good.yaml");
    std::fs::write(&file, config_text("http://127.0.0.1:1", &dir, free_port(), free_port(), "1")).unwrap();
    let output = tollgate().args(["check", "--config"]).arg(&file).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(!dir.path().join("tollgate.db").exists());
}

#[test]
fn a_port_that_is_taken_is_said_at_once() {
    let dir = Dir::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let file = dir.path().join("taken.yaml");
    for (proxy, admin, key) in [(port, free_port(), "server.listen"), (free_port(), port, "admin.listen")] {
        std::fs::write(&file, config_text("http://127.0.0.1:1", &dir, proxy, admin, "1")).unwrap();
        let output = tollgate().args(["serve", "--config"]).arg(&file).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let said = stderr(&output);
        assert!(said.contains(&port.to_string()) && said.contains(key) && !said.contains("panicked"), "{said}");
    }
}

#[test]
fn a_reload_applies_a_good_file_and_keeps_serving_with_a_bad_one() {
    runtime().block_on(async {
        let mut served = Served::start().await;
        assert_eq!(served.post(&chat()).send().await.unwrap().status(), 200);
        assert_eq!(served.limit().await, Some(1.0));
        served.reload(|text| text.replace("max_limit: 1,", "max_limit: 2,"));
        eventually("the new limit", async || served.limit().await == Some(2.0)).await;
        // What was spent is kept.
        assert!(served.spent().await > 0);
        served.reload(|text| text.replace("max_limit: 2,", "max_limit: lots,"));
        eventually("the fault to be shown", async || {
            let shown = served.readyz().await;
            String::from_utf8_lossy(&shown.body).contains("max_limit")
        })
        .await;
        assert_eq!(served.limit().await, Some(2.0));
        assert_eq!(served.post(&chat()).send().await.unwrap().status(), 200);
        served.reload(|text| text.replace("max_limit: lots,", "max_limit: 3,"));
        eventually("the next limit", async || served.limit().await == Some(3.0)).await;
        served.program.signal("TERM");
        assert_eq!(served.program.end().await.code(), Some(0));
    });
}

#[test]
fn a_drain_lets_an_open_stream_come_to_its_end() {
    runtime().block_on(async {
        let mut served = Served::start().await;
        let gate = Gate::new();
        served.fake.script([Good::gated(&gate)]);
        let mut response = served.post(&chat_stream()).send().await.unwrap();
        let mut text = soon("a chunk", response.chunk()).await.unwrap().unwrap().to_vec();
        served.program.signal("TERM");
        let port: u16 = served.proxy.rsplit(':').next().unwrap().parse().unwrap();
        eventually("the listener to close", async || {
            tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err()
        })
        .await;
        (0..50).for_each(|_| gate.open());
        while let Some(chunk) = soon("a chunk", response.chunk()).await.unwrap() {
            text.extend_from_slice(&chunk);
        }
        assert!(text.ends_with(b"data: [DONE]\n\n"));
        // Long before the grace period is over: a drain ends when nothing is open any more.
        let ended = tokio::time::timeout(Duration::from_secs(10), served.program.end()).await;
        assert_eq!(ended.expect("an early end").code(), Some(0));
        // And it was written down.
        served.again(&[]);
        served.ready().await;
        assert_eq!(served.spent().await, 3_500_000);
        assert!(served.dir.path().join("tollgate.db").exists());
    });
}

#[test]
fn a_long_stream_needs_little_memory() {
    runtime().block_on(async {
        let served = Served::start().await;
        assert_eq!(served.post(&chat_stream()).send().await.unwrap().status(), 200);
        let before = served.program.memory_max();
        let filler = "x".repeat(16 * 1024);
        let event = format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{filler}\"}}}}]}}\n\n");
        let events = 50 * 1024 * 1024 / event.len();
        served.fake.script([long_stream(&event, events).0]);
        let mut response = served.post(&chat_stream()).send().await.unwrap();
        let mut got = 0;
        while let Some(chunk) = soon("a chunk", response.chunk()).await.unwrap() {
            got += chunk.len();
        }
        assert_eq!(got, events * event.len() + LONG_STREAM_END.len());
        let grown = served.program.memory_max() - before;
        assert!(grown < 12 * 1024 * 1024, "50 MiB passed, and {grown} bytes stayed");
    });
}

#[test]
fn no_secret_is_logged_or_lies_in_a_file() {
    runtime().block_on(async {
        let fake = Fake::start().await;
        let dir = Dir::new();
        let (proxy, admin) = (free_port(), free_port());
        let config = dir.path().join("tollgate.yaml");
        let text =
            config_text(&fake.url(), &dir, proxy, admin, "1").replace("value: sk-x", "value: sk-of-the-provider");
        std::fs::write(&config, text.replace("level: error", "level: trace")).unwrap();
        let log = dir.path().join("log");
        let mut command = tollgate();
        command.args(["serve", "--config"]).arg(&config).stderr(std::fs::File::create(&log).unwrap());
        let program = Program(command.spawn().unwrap());
        let (proxy, admin) = (format!("http://127.0.0.1:{proxy}"), format!("http://127.0.0.1:{admin}"));
        let mut served = Served { fake, program, proxy, admin, config, http: reqwest::Client::new(), dir };
        served.ready().await;
        let made = served.http.post(format!("{}/api/governance/virtual-keys", served.admin)).bearer_auth(ADMIN_TOKEN);
        let made = Reply::read(made.json(&json!({"name": "made"})).send().await.unwrap()).await;
        let made = made.json()["virtual_key"]["value"].as_str().unwrap().to_owned();
        served.fake.script([Good::default().into(), status(401), status(500), only(Step::Reset), error_first()]);
        for _ in 0..3 {
            for body in [chat(), chat_stream(), json!({})] {
                served.post(&body).send().await.unwrap();
            }
        }
        served.program.signal("HUP");
        served.program.signal("TERM");
        served.program.end().await;
        let written = ["tollgate.db", "tollgate.db-wal", "tollgate.journal"].map(|name| served.dir.path().join(name));
        let files: Vec<PathBuf> = written.into_iter().chain([log]).collect();
        for file in files.iter().filter(|file| file.exists()) {
            let bytes = std::fs::read(file).unwrap();
            assert!(!bytes.is_empty(), "{}", file.display());
            for secret in [KEY, &made, "sk-of-the-provider", ADMIN_TOKEN, "a key of more than sixteen characters"] {
                let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
                assert!(!found, "{secret} lies in {}", file.display());
            }
        }
    });
}

#[test]
fn cargo_run_means_the_gateway() {
    // With several binaries in the package, the README's first command needs to be told which.
    let manifest = include_str!("../../Cargo.toml");
    assert!(manifest.lines().any(|line| line == r#"default-run = "tollgate""#));
}

#[test]
fn what_was_written_survives_a_kill() {
    runtime().block_on(async {
        let mut served = Served::start().await;
        for _ in 0..5 {
            assert_eq!(served.post(&chat()).send().await.unwrap().status(), 200);
        }
        served.written(5).await;
        served.program.signal("KILL");
        served.program.end().await;
        served.again(&[]);
        served.ready().await;
        assert_eq!(served.spent().await, 5 * 3_500_000);
    });
}

/// Upgrades a program under load, with a stream open. The successor is left, with the number of calls
/// that were served.
async fn hand_over() -> (Served, u64) {
    let mut served = Served::start().await;
    let gate = Gate::new();
    served.fake.script([Good::gated(&gate)]);
    let mut open = served.post(&chat_stream()).send().await.unwrap();
    let mut text = soon("a chunk", open.chunk()).await.unwrap().unwrap().to_vec();
    // The successor waits for the listeners, and gets them when the old process is told to go.
    let mut old = served.again(&["--upgrade"]);
    old.signal("QUIT");
    let calls = async {
        let mut calls = 0;
        while old.0.try_wait().unwrap().is_none() {
            // A new connection for each.
            let client = reqwest::Client::new();
            let url = format!("{}/v1/chat/completions", served.proxy);
            let reply = client.post(url).bearer_auth(KEY).json(&chat()).send().await;
            assert_eq!(reply.map(|reply| reply.status().as_u16()).map_err(|error| format!("{error:?}")), Ok(200));
            calls += 1;
            if calls == 20 {
                (0..50).for_each(|_| gate.open());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        calls
    };
    let rest = async {
        while let Some(chunk) = soon("a chunk", open.chunk()).await.unwrap() {
            text.extend_from_slice(&chunk);
        }
        text
    };
    let (calls, text) = soon("the old process to end", async { tokio::join!(calls, rest) }).await;
    assert!(calls > 20 && text.ends_with(b"data: [DONE]\n\n"), "{calls}");
    assert_eq!(old.end().await.code(), Some(0));
    // Connections to the old process are gone with it; that a client may notice late is not the matter here.
    served.http = reqwest::Client::new();
    (served, calls + 1)
}

#[test]
fn a_successor_takes_over_without_a_refused_connection() {
    runtime().block_on(async {
        let (mut served, calls) = hand_over().await;
        assert_eq!(served.post(&chat()).send().await.unwrap().status(), 200);
        // All that either of them charged is in the books.
        served.program.signal("TERM");
        served.program.end().await;
        served.again(&[]);
        served.ready().await;
        assert_eq!(served.spent().await, (calls + 1) * 3_500_000);
    });
}

#[test]
fn a_successor_knows_what_its_predecessor_spent() {
    runtime().block_on(async {
        let (served, calls) = hand_over().await;
        eventually("the whole sum", async || served.spent().await == calls * 3_500_000).await;
    });
}

/// The next line that begins like this.
fn line(lines: &mut impl Iterator<Item = std::io::Result<String>>, start: &str) -> String {
    let found = lines.map(Result::unwrap).find(|line| line.trim_start().starts_with(start));
    found.unwrap_or_else(|| panic!("no line begins with {start}"))
}

#[test]
fn the_demo_prints_lines_that_work_as_they_stand() {
    let (port, admin) = (free_port().to_string(), free_port().to_string());
    let mut program = tollgate()
        .args(["demo", "--port", &port, "--admin-port", &admin])
        .stderr(Stdio::inherit())
        .spawn()
        .map(Program)
        .unwrap();
    let output: ChildStdout = program.0.stdout.take().unwrap();
    let mut lines = BufReader::new(output).lines();
    let curls: Vec<String> = (0..3).map(|_| line(&mut lines, "curl ")).collect();
    let shell = |line: &str| {
        let output = Command::new("sh").args(["-c", line]).output().unwrap();
        assert!(output.status.success(), "{line}: {}", stderr(&output));
        stdout(&output)
    };
    runtime().block_on(async {
        eventually("the demo to listen", async || {
            tokio::net::TcpStream::connect(format!("127.0.0.1:{port}")).await.is_ok()
        })
        .await;
        let [chat, stream, quota] = &curls[..] else { unreachable!("three were read") };
        let answer: Value = serde_json::from_str(&shell(chat)).unwrap();
        assert!(answer["choices"][0]["message"]["content"].is_string(), "{answer}");
        let streamed = shell(stream);
        assert!(streamed.starts_with("data: {") && streamed.trim_end().ends_with("data: [DONE]"), "{streamed}");
        let shown: Value = serde_json::from_str(&shell(quota)).unwrap();
        assert!(shown["budgets"][0]["current_usage"].as_f64().unwrap() > 0.0, "{shown}");
        let refused = (3..=5).find(|_| {
            let answer: Value = serde_json::from_str(&shell(chat)).unwrap();
            answer["status_code"] == 402
        });
        assert!(matches!(refused, Some(4 | 5)), "{refused:?}");
        program.signal("TERM");
        assert_eq!(program.end().await.code(), Some(0));
    });
}
