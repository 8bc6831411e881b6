//! What monitors ask: alive, ready, and the numbers.

use super::Admin;
use crate::state::health::Report;
use crate::telemetry::PriceStanding;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// `GET /healthz`: the process answers.
pub(super) async fn alive() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

/// `GET /readyz`: 200 only while calls can be governed and written down. A refused reload is shown and
/// changes nothing, because the configuration before it still serves.
pub(super) async fn ready(State(admin): State<Admin>) -> Response {
    let store = admin.blocking(|admin| Ok(admin.store.ping().is_ok())).await.unwrap_or(false);
    let failing = admin.ledger.failing();
    let ready = store && failing.is_none();
    let ledger = match &failing {
        None => json!({ "ok": true }),
        Some(failing) => json!({ "ok": false, "since": failing.since.to_string(), "error": failing.error }),
    };
    let body = json!({
        "status": if ready { "ready" } else { "not ready" },
        "checks": {
            "store": { "ok": store },
            // The listener opens only after the first snapshot was published.
            "snapshot": { "ok": true, "virtual_keys": admin.state.snapshot().view.callers().len() },
            "ledger": ledger,
            "config_reload": reload(admin.reload.failing()),
            "prices": prices(&admin.prices.standing()),
        },
    });
    (if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, Json(body)).into_response()
}

fn reload(failing: Option<String>) -> Value {
    match failing {
        None => json!({ "ok": true }),
        Some(why) => json!({ "ok": false, "error": why }),
    }
}

/// Prices that could not be refreshed are shown and change nothing, because those before hold.
fn prices(standing: &PriceStanding) -> Value {
    let PriceStanding { source, hash, models, failing } = standing;
    let mut shown = json!({ "ok": failing.is_none(), "source": source, "sha256": hash, "models": models });
    if let Some(why) = failing {
        shown["error"] = json!(why);
    }
    shown
}

/// `GET /metrics`, in Prometheus' text format.
pub(super) async fn metrics(State(admin): State<Admin>) -> Response {
    // The writer sets these every 100 ms; who asks gets them as they are now.
    let outbox = admin.state.outbox();
    admin.metrics.open_holds.set(outbox.open_holds());
    admin.metrics.ledger_unwritten.set(i64::try_from(outbox.unwritten()).unwrap_or(i64::MAX));
    providers(&admin);
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], admin.metrics.render()).into_response()
}

/// The providers as they stand now. Those that are gone are no longer told of.
fn providers(admin: &Admin) {
    let metrics = &admin.metrics;
    let (healthy, in_flight, waiting) =
        (&metrics.provider_healthy, &metrics.provider_in_flight, &metrics.provider_waiting);
    [healthy, in_flight, waiting].into_iter().for_each(|gauge| gauge.reset());
    let now = admin.state.clock.now();
    for provider in admin.state.snapshot().view.providers() {
        let Some(health) = admin.state.health.of(&provider.name) else { continue };
        let labels = &[&*provider.name];
        healthy.with_label_values(labels).set((health.report(now) == Report::Good).into());
        in_flight.with_label_values(labels).set(health.gate().in_flight().into());
        waiting.with_label_values(labels).set(health.gate().waiting().into());
    }
}
