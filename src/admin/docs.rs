//! The contract for machines and for people: the OpenAPI document, and a page that reads it out.

use axum::http::HeaderName;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::response::IntoResponse;
use once_cell::sync::Lazy;
use serde_json::Value;

/// The document as people edit it.
pub const OPENAPI: &str = include_str!("../../admin/openapi.yaml");
const PAGE: &str = include_str!("../../admin/console/index.html");
const SCRIPT: &str = include_str!("../../admin/console/page.js");
const STYLE: &str = include_str!("../../admin/console/page.css");

static OPENAPI_JSON: Lazy<String> = Lazy::new(|| document().to_string());

/// Nothing of another origin is loaded, and no other page may frame ours.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The document as machines read it.
pub fn document() -> Value {
    serde_yaml::from_str(OPENAPI).expect("a test reads the document that is built in")
}

/// `GET /openapi.json`
pub(super) async fn openapi() -> impl IntoResponse {
    text("application/json", OPENAPI_JSON.as_str())
}

/// `GET /`
pub(super) async fn page() -> impl IntoResponse {
    text("text/html; charset=utf-8", PAGE)
}

/// `GET /console/page.js`
pub(super) async fn script() -> impl IntoResponse {
    text("text/javascript; charset=utf-8", SCRIPT)
}

/// `GET /console/page.css`
pub(super) async fn style() -> impl IntoResponse {
    text("text/css; charset=utf-8", STYLE)
}

fn text(kind: &'static str, body: &'static str) -> ([(HeaderName, &'static str); 4], &'static str) {
    let headers = [
        (CONTENT_TYPE, kind),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // A new version of the program brings a new document.
        (CACHE_CONTROL, "no-cache"),
    ];
    (headers, body)
}
