//! The settings that there is one of each: a row of JSON each.

use super::row::{damaged, each, execute, json};
use crate::governance::edit::Edit;
use crate::governance::entity::{BasicAuth, ClientConfig};
use crate::governance::view::Digest;
use crate::store::StoreError;
use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

const CLIENT: &str = "client_config";
const BASIC_AUTH: &str = "basic_auth";

#[derive(Serialize, Deserialize)]
struct StoredClient {
    enforce_auth: bool,
    required_headers: Vec<String>,
    allowed_origins: Vec<String>,
    allowed_headers: Vec<String>,
    body_bytes_max: Option<u64>,
    further: String,
    config_hash: String,
}

#[derive(Serialize, Deserialize)]
struct StoredBasicAuth {
    enabled: bool,
    username: String,
    digest: Option<Digest>,
    disable_auth_on_inference: bool,
    config_hash: String,
}

pub(super) fn load(db: &Connection, edits: &mut Vec<Edit>) -> Result<(), StoreError> {
    each(db, "SELECT name, value FROM settings", |row| {
        let (name, value): (String, String) = (row.get(0)?, row.get(1)?);
        let unreadable = |error: serde_json::Error| damaged("setting", &name).because(error);
        edits.push(match &*name {
            CLIENT => Edit::Client(Arc::new(client(serde_json::from_str(&value).map_err(unreadable)?))),
            BASIC_AUTH => Edit::BasicAuth(Arc::new(basic_auth(serde_json::from_str(&value).map_err(unreadable)?))),
            _ => return Err(damaged("setting", &name)),
        });
        Ok(())
    })
}

pub(super) fn save_client(db: &Connection, client: &ClientConfig) -> Result<(), StoreError> {
    let ClientConfig { enforce_auth, required_headers, allowed_origins, allowed_headers, body_bytes_max, .. } =
        client.clone();
    let ClientConfig { further, config_hash, .. } = client.clone();
    let stored = StoredClient {
        enforce_auth,
        required_headers,
        allowed_origins,
        allowed_headers,
        body_bytes_max,
        further,
        config_hash,
    };
    save(db, CLIENT, &json(&stored))
}

pub(super) fn save_basic_auth(db: &Connection, auth: &BasicAuth) -> Result<(), StoreError> {
    let BasicAuth { enabled, username, digest, disable_auth_on_inference, config_hash } = auth.clone();
    let stored = StoredBasicAuth { enabled, username, digest, disable_auth_on_inference, config_hash };
    save(db, BASIC_AUTH, &json(&stored))
}

fn save(db: &Connection, name: &str, value: &str) -> Result<(), StoreError> {
    execute(
        db,
        "INSERT INTO settings (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = ?2",
        params![name, value],
    )
    .map(drop)
}

fn client(stored: StoredClient) -> ClientConfig {
    ClientConfig {
        enforce_auth: stored.enforce_auth,
        required_headers: stored.required_headers,
        allowed_origins: stored.allowed_origins,
        allowed_headers: stored.allowed_headers,
        body_bytes_max: stored.body_bytes_max,
        further: stored.further,
        config_hash: stored.config_hash,
    }
}

fn basic_auth(stored: StoredBasicAuth) -> BasicAuth {
    let StoredBasicAuth { enabled, username, digest, disable_auth_on_inference, config_hash } = stored;
    BasicAuth { enabled, username, digest, disable_auth_on_inference, config_hash }
}
