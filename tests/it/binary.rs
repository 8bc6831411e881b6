//! The program as an operator meets it: its exit codes, its signals, its words.

use crate::fake::answers::{Good, LONG_STREAM_END, long_stream};
use crate::fake::{Fake, Gate};
use crate::house::{ADMIN_TOKEN, Dir, Reply, chat, chat_stream, eventually, free_port, runtime, soon};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};

const KEY: &str = "sk-bf-11111111-2222-4333-8444-555555555555";

fn tollgate() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.env_remove("TOLLGATE_CONFIG").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A running program, ended with the test.
struct Program(Child);

impl Program {
    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.0.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    async fn end(&mut self) -> ExitStatus {
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
struct Served {
    fake: Fake,
    program: Program,
    proxy: String,
    admin: String,
    config: PathBuf,
    http: reqwest::Client,
    dir: Dir,
}

fn config_text(provider: &str, dir: &Dir, proxy: u16, admin: u16, limit: &str) -> String {
    let dir = dir.path().display();
    format!(
        "server:\n  listen: [\"127.0.0.1:{proxy}\"]\n  threads: 1\n  upgrade_socket: {dir}/upgrade.sock\n  grace_period: 15s\n\
         admin:\n  listen: \"127.0.0.1:{admin}\"\n  token: {ADMIN_TOKEN}\n\
         store:\n  path: {dir}/tollgate.db\n\
         providers:\n  openai:\n    keys: [{{ name: main, value: sk-x }}]\n    network_config: {{ base_url: \"{provider}\" }}\n\
         governance:\n  virtual_keys:\n    - name: ci\n      value: {KEY}\n      budget: {{ max_limit: {limit}, reset_duration: 1h }}\n\
         \x20     provider_configs: [{{ provider: openai, weight: 1, allowed_models: [\"*\"], key_ids: [\"*\"] }}]\n\
         log: {{ level: warn, format: text }}\n"
    )
}

impl Served {
    async fn start() -> Served {
        let fake = Fake::start().await;
        let dir = Dir::new();
        let (proxy, admin) = (free_port(), free_port());
        let config = dir.path().join("tollgate.yaml");
        std::fs::write(&config, config_text(&fake.url(), &dir, proxy, admin, "1")).unwrap();
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

    async fn ready(&self) {
        eventually("the program to be ready", async || {
            let ready = async |url: String| self.http.get(url).send().await.is_ok_and(|reply| reply.status() == 200);
            ready(format!("{}/readyz", self.admin)).await && ready(format!("{}/health", self.proxy)).await
        })
        .await;
    }

    fn post(&self, body: &Value) -> reqwest::RequestBuilder {
        self.http.post(format!("{}/v1/chat/completions", self.proxy)).bearer_auth(KEY).json(body)
    }

    async fn quota(&self) -> Value {
        let url = format!("{}/api/governance/virtual-keys/quota", self.proxy);
        Reply::read(self.http.get(url).bearer_auth(KEY).send().await.unwrap()).await.json()
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
        assert!(served.quota().await["budgets"][0]["current_usage"].as_f64().unwrap() > 0.0);
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
        let ended = tokio::time::timeout(std::time::Duration::from_secs(10), served.program.end()).await;
        assert_eq!(ended.expect("an early end").code(), Some(0));
        // And it was written down.
        let program = tollgate().args(["serve", "--config"]).arg(&served.config).stderr(Stdio::inherit()).spawn().unwrap();
        served.program = Program(program);
        served.ready().await;
        assert_eq!(crate::house::nanos(&served.quota().await["budgets"][0]["current_usage"]), 3_500_000);
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
        let refused = (3..=5).find_map(|n| {
            let answer: Value = serde_json::from_str(&shell(chat)).unwrap();
            (answer["status_code"] == json!(402)).then_some(n)
        });
        assert!(matches!(refused, Some(4 | 5)), "{refused:?}");
        program.signal("TERM");
        assert_eq!(program.end().await.code(), Some(0));
    });
}
