//! The settings that administrators may change while the proxy serves.

use super::Admin;
use super::auth::basic_digest;
use super::body::{Body, parse, received};
use super::change::{Actor, Terms, tagged_as};
use super::error::ApiError;
use crate::governance::edit::Edit;
use crate::governance::view::View;
use crate::wire::client;
use crate::wire::faults::Faults;
use crate::wire::read::Object;
use crate::wire::show;
use axum::Extension;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde_json::{Value, json};
use std::sync::Arc;

/// `GET /api/config`
pub(super) async fn read(State(admin): State<Admin>) -> Response {
    let shown = shown(&admin.state.snapshot().view);
    tagged_as(&shown, &shown)
}

/// `PUT /api/config`: what is absent stays.
pub(super) async fn update(
    State(admin): State<Admin>,
    Extension(actor): Extension<Actor>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let terms = Terms::read(actor, &headers);
    let body = parse(&received(body)?)?;
    let shown = admin
        .blocking(move |admin| {
            let changed = admin.change(&terms, |snapshot| {
                terms.allow(|| shown(&snapshot.view))?;
                Ok(read_body(admin, &snapshot.view, &body)?)
            })?;
            Ok(shown(changed.view()))
        })
        .await?;
    let mut answer = shown.clone();
    answer["message"] = "Configuration updated successfully".into();
    Ok(tagged_as(&answer, &shown))
}

fn read_body(admin: &Admin, view: &View, body: &Value) -> Result<Vec<Edit>, Faults> {
    let mut faults = Faults::default();
    let mut edits = Vec::new();
    if let Some(body) = Object::of(body, "", &mut faults) {
        if let Some(section) = body.object("client_config", &mut faults).value() {
            let client = client::client_config(&section, &view.client, &mut faults);
            edits.push(Edit::Client(Arc::new(client)));
        }
        if let Some(section) = body.object("auth_config", &mut faults).value() {
            let env = |name: &str| std::env::var(name).ok();
            let digest = |pair: &str| basic_digest(&admin.state.hasher, pair.as_bytes());
            let auth = client::basic_auth_of_api(&section, &view.basic_auth, &env, &digest, &mut faults);
            edits.push(Edit::BasicAuth(Arc::new(auth)));
        }
    }
    faults.into_result(edits)
}

fn shown(view: &View) -> Value {
    json!({
        "client_config": show::client_config(&view.client),
        "auth_config": show::basic_auth(&view.basic_auth),
    })
}
