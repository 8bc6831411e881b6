//! The credential that a client presents, and what it may use.

use super::{KeySet, Limits, ModelSet, Weight};
use crate::governance::time::Timestamp;
use std::sync::Arc;

/// What virtual keys begin with, so that they are told from providers' keys in shared headers.
pub const VIRTUAL_KEY_PREFIX: &str = "sk-bf-";

/// Whether a credential claims to be a virtual key. The prefix is read without regard to case.
pub fn has_virtual_key_prefix(value: &[u8]) -> bool {
    value.get(..VIRTUAL_KEY_PREFIX.len()).is_some_and(|head| head.eq_ignore_ascii_case(VIRTUAL_KEY_PREFIX.as_bytes()))
}

/// A virtual key without its value, which only the store holds (sealed) and the view by its digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualKey {
    pub id: Arc<str>,
    /// Unique.
    pub name: String,
    pub description: String,
    pub is_active: bool,
    /// Whose key it is: a team's, a customer's, or nobody's; never both.
    pub team_id: Option<Arc<str>>,
    pub customer_id: Option<Arc<str>>,
    pub limits: Limits,
    /// At most one for each provider.
    pub provider_configs: Vec<ProviderConfig>,
    /// JSON that is stored and returned; nothing of it is enforced.
    pub mcp_configs: String,
    /// What the config file said when this key was last applied from it; empty for keys made by the API.
    pub config_hash: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// What a virtual key may use of one provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderConfig {
    pub id: i64,
    pub provider: Arc<str>,
    /// Absent: only when named explicitly, never for a bare model name.
    pub weight: Option<Weight>,
    pub allowed_models: ModelSet,
    pub blacklisted_models: ModelSet,
    pub key_ids: KeySet,
    pub limits: Limits,
}

impl ProviderConfig {
    pub fn allows(&self, model: &str) -> bool {
        !self.blacklisted_models.contains(&self.provider, model) && self.allowed_models.contains(&self.provider, model)
    }
}
