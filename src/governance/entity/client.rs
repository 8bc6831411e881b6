//! What holds for all clients alike.

use crate::governance::view::Digest;

/// The largest request body where nobody says otherwise.
pub const BODY_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// Settings of the proxy listener that administrators may change while it serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientConfig {
    /// No virtual key, no service.
    pub enforce_auth: bool,
    /// Names, in lower case, that every request must carry.
    pub required_headers: Vec<String>,
    /// Origins that browsers may call from; `*` for all.
    pub allowed_origins: Vec<String>,
    /// Headers that they may send beside the usual ones, in lower case.
    pub allowed_headers: Vec<String>,
    /// Absent: what the server's own section says.
    pub body_bytes_max: Option<u64>,
    /// A JSON object of the contract's further members, stored and returned.
    pub further: String,
    /// What the config file said when this was last applied from it.
    pub config_hash: String,
}

impl ClientConfig {
    /// How often chain rules may follow one another where nobody says.
    pub const CHAIN_MAX_USUAL: usize = 10;

    /// How often chain rules may follow one another, `routing_chain_max_depth` of the contract.
    pub fn chain_max(&self) -> usize {
        let further: Option<serde_json::Value> = serde_json::from_str(&self.further).ok();
        let depth = further.as_ref().and_then(|further| further.get("routing_chain_max_depth")?.as_u64());
        depth.and_then(|depth| usize::try_from(depth).ok()).unwrap_or(ClientConfig::CHAIN_MAX_USUAL).clamp(1, 100)
    }
}

impl Default for ClientConfig {
    fn default() -> ClientConfig {
        ClientConfig {
            enforce_auth: true,
            required_headers: Vec::new(),
            allowed_origins: Vec::new(),
            allowed_headers: Vec::new(),
            body_bytes_max: None,
            further: "{}".to_owned(),
            config_hash: String::new(),
        }
    }
}

/// A user and a password that open the admin listener beside the token.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BasicAuth {
    pub enabled: bool,
    pub username: String,
    /// Of `username:password`. Absent while no password is set.
    pub digest: Option<Digest>,
    /// Stored and returned; whether inference wants a virtual key is the client settings' to say.
    pub disable_auth_on_inference: bool,
    pub config_hash: String,
}
