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

impl ModelConfig {
    /// The names of models under which it is to be looked for: its own, and what is left without a `provider/`.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let rest = self.model_name.split_once('/').map(|(_, rest)| rest);
        std::iter::once(&*self.model_name).chain(rest)
    }

    /// Whether it is for what this provider calls so: its name may bring the provider's, too.
    pub fn is_for(&self, provider: &str, model: &str) -> bool {
        let is_named = || {
            let rest = self.model_name.strip_prefix(provider).and_then(|rest| rest.strip_prefix('/'));
            *self.model_name == *model || rest == Some(model)
        };
        self.provider.as_deref().is_none_or(|own| own == provider) && is_named()
    }
}

/// Limits on all that goes to one provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderLimits {
    pub provider: Arc<str>,
    /// Never empty: limits that are taken away take this with them.
    pub limits: Limits,
    pub config_hash: String,
}
