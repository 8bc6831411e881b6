//! `tollgate explain`: asks a running gateway what it would do with a request, and prints the answer for people.

use super::{ConfigArg, Failed, load};
use crate::config::Auth;
use clap::Args;
use serde_json::{Map, Value, json};
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);
const ANSWER_BYTES_MAX: u64 = 16 * 1024 * 1024;
const TOKEN_VARIABLE: &str = "TOLLGATE_ADMIN_TOKEN";

#[derive(Debug, Args)]
pub(super) struct Explain {
    /// The virtual key: its value or its id. Without one: what a request without a key would get.
    #[arg(long)]
    key: Option<String>,
    /// The model as a client would name it.
    #[arg(long)]
    model: String,
    /// The kind of request.
    #[arg(long, default_value = "chat_completion")]
    request_type: String,
    /// A header as a client would send it: 'name: value'. May be given several times.
    #[arg(long = "header", value_name = "HEADER", value_parser = header)]
    headers: Vec<(String, String)>,
    /// The query of the URL, without its question mark.
    #[arg(long)]
    query: Option<String>,
    /// The request's body as JSON, for rules that look into it.
    #[arg(long, value_parser = body)]
    body: Option<Value>,
    /// Print the answer as it came.
    #[arg(long)]
    json: bool,
    /// Where the admin listener is, as in http://127.0.0.1:8081 [default: what the config file says]
    #[arg(long, value_name = "URL")]
    admin: Option<String>,
    #[command(flatten)]
    config: ConfigArg,
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("write it as 'name: value'")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

fn body(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

impl Explain {
    pub(super) fn run(self) -> Result<(), Failed> {
        let fail = |message: String| vec![format!("tollgate: {message}")];
        let mut question = json!({"model": self.model, "request_type": self.request_type});
        let headers: Map<String, Value> =
            self.headers.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        let members = [
            ("virtual_key", self.key.map(Value::from)),
            ("headers", (!headers.is_empty()).then_some(Value::Object(headers))),
            ("query", self.query.map(Value::from)),
            ("body", self.body),
        ];
        for (name, value) in members {
            if let Some(value) = value {
                question[name] = value;
            }
        }
        let token = std::env::var(TOKEN_VARIABLE).ok().filter(|token| !token.is_empty());
        let (address, token) = match (self.admin, token) {
            (Some(url), token @ Some(_)) => (address(&url).map_err(fail)?, token),
            // What nobody said, the config file says.
            (url, token) => {
                let settings = load(&self.config.path())?;
                let address = match url {
                    Some(url) => address(&url).map_err(fail)?,
                    None => reachable(settings.admin.listen).to_string(),
                };
                let kept = || {
                    let file = settings.store.path.parent().map(|dir| dir.join("admin.token"))?;
                    std::fs::read_to_string(file).ok().map(|token| token.trim().to_owned())
                };
                let own = || settings.admin.token.as_ref().map(|token| token.expose().to_owned());
                let token = token.or_else(own).or_else(kept);
                if token.is_none() && settings.admin.auth != Auth::None {
                    return Err(fail(format!(
                        "no admin token is in the config file or beside the database; set {TOKEN_VARIABLE}"
                    )));
                }
                (address, token)
            }
        };
        let answer = ask(&address, token.as_deref(), &question)
            .map_err(|error| fail(format!("the admin listener at {address} did not answer: {error}")))?;
        let (status, text) = answer;
        let told: Option<Value> = serde_json::from_str(&text).ok();
        match (status, told) {
            (200, Some(told)) if self.json => println!("{told:#}"),
            (200, Some(told)) => print!("{}", page(&told)),
            (status, told) => {
                let message =
                    told.as_ref().and_then(|told| told["error"]["message"].as_str()).unwrap_or("it said nothing more");
                return Err(fail(format!("the admin listener at {address} answered {status}: {message}")));
            }
        }
        Ok(())
    }
}

/// The host and port of a URL without TLS and without a path.
fn address(url: &str) -> Result<String, String> {
    let rest = url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/');
    if rest.is_empty() || rest.contains('/') {
        return Err(format!("'{url}' is no address of an admin listener; write it as http://127.0.0.1:8081"));
    }
    Ok(if rest.contains(':') { rest.to_owned() } else { format!("{rest}:80") })
}

/// Whoever listens on all addresses is found on this machine's own.
fn reachable(listen: SocketAddr) -> SocketAddr {
    match listen.ip() {
        ip if ip.is_unspecified() && ip.is_ipv4() => SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), listen.port()),
        ip if ip.is_unspecified() => SocketAddr::new(IpAddr::V6(std::net::Ipv6Addr::LOCALHOST), listen.port()),
        _ => listen,
    }
}

/// One request over a connection of its own.
fn ask(address: &str, token: Option<&str>, question: &Value) -> std::io::Result<(u16, String)> {
    let mut connection = TcpStream::connect(address)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.set_write_timeout(Some(PATIENCE))?;
    let body = question.to_string();
    let mut request = format!(
        "POST /api/governance/explain HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n",
        body.len()
    );
    if let Some(token) = token {
        let _ = write!(request, "authorization: Bearer {token}\r\n");
    }
    request.push_str("\r\n");
    request.push_str(&body);
    connection.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    connection.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let odd = || std::io::Error::new(std::io::ErrorKind::InvalidData, "that is no HTTP");
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(odd)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(odd)?;
    Ok((status, body.to_owned()))
}

/// The answer as people read it.
fn page(told: &Value) -> String {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut page = String::new();
    let mut line = |line: String| {
        page.push_str(line.trim_end());
        page.push('\n');
    };
    let code = match told["status_code"].as_u64() {
        Some(status) => format!(" ({status} {})", text(&told["code"])),
        None => String::new(),
    };
    line(format!("{}{code}: {}", text(&told["decision"]), text(&told["reason"])));
    if let Some(name) = told["rule"]["name"].as_str() {
        line(format!("rule: {name}"));
    }
    let list = |name: &str| told[name].as_array().cloned().unwrap_or_default();
    let mut section = |title: &str, lines: Vec<String>| {
        if !lines.is_empty() {
            line(format!("\n{title}"));
            lines.into_iter().for_each(|entry| line(format!("  {entry}")));
        }
    };
    let rules = list("rules").into_iter().map(|rule| {
        let errors = rule["errors"].as_u64().filter(|errors| *errors > 0);
        let errors = errors.map(|errors| format!(" [{errors} errors so far]")).unwrap_or_default();
        let round = rule["round"].as_u64().filter(|round| *round > 1);
        let round = round.map(|round| format!(", round {round}")).unwrap_or_default();
        format!(
            "{:<12} {} ({}, priority {}{round}): {}{errors}",
            text(&rule["result"]),
            text(&rule["name"]),
            text(&rule["scope"]),
            rule["priority"],
            text(&rule["reason"])
        )
    });
    section("rules, in their order", rules.collect());
    let candidates = list("candidates").into_iter().map(|candidate| {
        let key = candidate["key_name"].as_str().map(|key| format!(" with key {key}")).unwrap_or_default();
        let upstream = candidate["upstream_model"].as_str().filter(|name| *name != candidate["model"]);
        let upstream = upstream.map(|name| format!(" as {name}")).unwrap_or_default();
        let (provider, model) = (text(&candidate["provider"]), text(&candidate["model"]));
        format!(
            "{:<12} {provider}/{model}{upstream}{key}: {}",
            text(&candidate["decision"]),
            text(&candidate["reason"])
        )
    });
    section("candidates, in their order", candidates.collect());
    for (name, title) in [("budgets", "budgets, in dollars"), ("rate_limits", "rate limits")] {
        let limits = list(name).into_iter().map(|limit| {
            let subject = limit["subject"].as_str().map(|subject| format!(" {subject}")).unwrap_or_default();
            let unit = if name == "budgets" { String::new() } else { format!(" {}", text(&limit["measure"])) };
            format!(
                "{:<12}{subject} {} of {}{unit} used, {} held, every {}, next at {}{}",
                text(&limit["level"]),
                limit["used"],
                limit["limit"],
                limit["held"],
                text(&limit["reset_duration"]),
                text(&limit["resets_at"]),
                if limit["exhausted"] == true { " (exhausted)" } else { "" }
            )
        });
        section(title, limits.collect());
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_in_lines() {
        let told = json!({
            "decision": "refuse", "reason": "spent", "code": "budget_exceeded", "status_code": 402,
            "rule": {"id": "r", "name": "cheap"},
            "rules": [
                {"name": "cheap", "scope": "global", "priority": 3, "result": "match", "reason": "why", "round": 2, "errors": 4},
            ],
            "candidates": [
                {"provider": "openai", "model": "m", "upstream_model": "n", "key_name": "main", "decision": "taken", "reason": "first"},
                {"provider": "groq", "model": "m", "upstream_model": null, "key_name": null, "decision": "skipped", "reason": "no"},
            ],
            "budgets": [
                {"level": "provider", "subject": "openai", "limit": 2.5, "used": 2.5, "held": 0, "reset_duration": "1d", "resets_at": "then", "exhausted": true},
            ],
            "rate_limits": [],
        });
        let expected = "refuse (402 budget_exceeded): spent\n\
            rule: cheap\n\
            \n\
            rules, in their order\n  \
              match        cheap (global, priority 3, round 2): why [4 errors so far]\n\
            \n\
            candidates, in their order\n  \
              taken        openai/m as n with key main: first\n  \
              skipped      groq/m: no\n\
            \n\
            budgets, in dollars\n  \
              provider     openai 2.5 of 2.5 used, 0 held, every 1d, next at then (exhausted)\n";
        assert_eq!(page(&told), expected);
    }

    #[test]
    fn addresses_are_read() {
        assert_eq!(address("http://h:81/").as_deref(), Ok("h:81"));
        assert_eq!(address("h").as_deref(), Ok("h:80"));
        assert!(address("https://h:81").is_err() && address("http://h/x").is_err() && address("").is_err());
        assert_eq!(reachable("0.0.0.0:5".parse().unwrap()).to_string(), "127.0.0.1:5");
        assert_eq!(reachable("[::]:5".parse().unwrap()).to_string(), "[::1]:5");
        assert_eq!(header("X-A: b:c "), Ok(("X-A".to_owned(), "b:c".to_owned())));
        assert!(header("x").is_err());
    }
}
