//! Everything at once, for somebody who has five minutes: a pretend provider, a key with a small
//! budget, and lines to paste.

use super::{Failed, logging, pretend, run_until_signal};
use crate::app::{App, Start};
use crate::config::{self, Fault, Log, LogFormat};
use crate::state::new_virtual_key_value;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;

/// Four short calls of the pretend provider at the list price of the model cost about this.
const BUDGET_DOLLARS: &str = "0.002";
const MODEL: &str = "openai/gpt-4o";

pub(super) fn run(port: u16, admin_port: u16) -> Result<(), Failed> {
    logging::start(&Log { format: LogFormat::Text, level: "warn".into() });
    let failed = |what: &str, error: &dyn std::fmt::Display| vec![format!("tollgate: {what}: {error}")];
    let provider = start_pretend_provider().map_err(|error| failed("cannot start the pretend provider", &error))?;
    let data = std::env::temp_dir().join(format!("tollgate-demo-{}", uuid::Uuid::new_v4()));
    std::fs::create_dir(&data).map_err(|error| failed("cannot make a temporary directory", &error))?;
    let key = new_virtual_key_value();
    let token = format!("demo-admin-{}", uuid::Uuid::new_v4());
    let yaml = settings(port, admin_port, provider, &data, &key, &token);
    let built = config::read(&yaml, "demo", &PathBuf::new(), &|_| None)
        .map_err(|faults| faults.iter().map(Fault::to_string).collect())
        .and_then(|settings| {
            App::build(settings, &Start::default()).map_err(|error| {
                vec![format!("tollgate: {error}"), "tollgate: --port and --admin-port choose other ports".to_owned()]
            })
        });
    let app = match built {
        Ok(app) => app,
        Err(failed) => {
            let _ = std::fs::remove_dir_all(&data);
            return Err(failed);
        }
    };
    introduce(port, admin_port, &key, &token);
    run_until_signal(app, move || drop(std::fs::remove_dir_all(&data)))
}

fn settings(port: u16, admin_port: u16, provider: u16, data: &std::path::Path, key: &str, token: &str) -> String {
    let data = data.display();
    format!(
        r#"
server: {{ listen: ["127.0.0.1:{port}"], upgrade_socket: "{data}/upgrade.sock", grace_period: 2s }}
admin: {{ listen: "127.0.0.1:{admin_port}", token: "{token}" }}
store: {{ path: "{data}/tollgate.db", encryption_key: "{token}" }}
providers:
  openai:
    keys: [{{ name: demo, value: pretend }}]
    network_config: {{ base_url: "http://127.0.0.1:{provider}" }}
governance:
  customers: [{{ id: demo-customer, name: Demo customer, budget: {{ max_limit: 1, reset_duration: 1d }} }}]
  teams: [{{ id: demo-team, name: Demo team, customer_id: demo-customer, budget: {{ max_limit: 0.5, reset_duration: 1d }} }}]
  virtual_keys:
    - name: demo
      team_id: demo-team
      value: "{key}"
      budget: {{ max_limit: {BUDGET_DOLLARS}, reset_duration: 1h }}
      rate_limit: {{ request_max_limit: 60, request_reset_duration: 1m }}
      provider_configs: [{{ provider: openai, weight: 1, allowed_models: ["*"], key_ids: ["*"] }}]
"#
    )
}

fn introduce(port: u16, admin_port: u16, key: &str, token: &str) {
    println!(
        r#"Tollgate demo: a gateway, a pretend provider, a customer with a team, and the team's virtual key, which may
spend ${BUDGET_DOLLARS} an hour.

  virtual key   {key}
  proxy         http://127.0.0.1:{port}
  admin         http://127.0.0.1:{admin_port}   (Authorization: Bearer {token}); open it in a browser for its API

A chat. Paste it a few times, and the streamed one as well: the fourth or fifth call is refused, because
the budget is spent.

curl -s http://127.0.0.1:{port}/v1/chat/completions -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' -d '{{"model":"{MODEL}","messages":[{{"role":"user","content":"What does this cost?"}}]}}'

The same, streamed.

curl -sN http://127.0.0.1:{port}/v1/chat/completions -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' -d '{{"model":"{MODEL}","stream":true,"messages":[{{"role":"user","content":"What does this cost?"}}]}}'

What is left of the budget.

curl -s http://127.0.0.1:{port}/api/governance/virtual-keys/quota -H 'Authorization: Bearer {key}'

Ctrl-C ends the demo and removes what it wrote."#
    );
}

/// Serves the pretend provider on a loopback port of its own, and says which.
fn start_pretend_provider() -> std::io::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let port = listener.local_addr()?.port();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    std::thread::Builder::new().name("pretend-provider".to_owned()).spawn(move || {
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            axum::serve(listener, pretend::router()).await
        })
    })?;
    Ok(port)
}
