//! Limits that hold for everybody: on a model, or on a provider.

use super::Limits;
use crate::governance::time::Timestamp;
use std::sync::Arc;

/// Limits on a model, of one provider or of all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelConfig {
    pub id: Arc<str>,
    pub model_name: Arc<str>,
    /// Absent: whoever serves it. Name and provider together are unique.
    pub provider: Option<Arc<str>>,
    pub limits: Limits,
    pub config_hash: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// Limits on all that goes to one provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderLimits {
    pub provider: Arc<str>,
    /// Never empty: limits that are taken away take this with them.
    pub limits: Limits,
    pub config_hash: String,
}
