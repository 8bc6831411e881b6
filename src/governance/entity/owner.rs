//! Those whom virtual keys belong to.

use super::Limits;
use crate::governance::time::Timestamp;
use std::sync::Arc;

/// Whoever pays in the end. Keys belong to it directly or through its teams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Customer {
    pub id: Arc<str>,
    /// Not unique.
    pub name: String,
    pub limits: Limits,
    /// What the config file said when this was last applied from it; empty for what the API made.
    pub config_hash: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// Virtual keys that share limits, perhaps a customer's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Team {
    pub id: Arc<str>,
    /// Not unique.
    pub name: String,
    pub customer_id: Option<Arc<str>>,
    pub limits: Limits,
    /// JSON objects that are stored and returned.
    pub profile: Option<String>,
    pub config: Option<String>,
    pub claims: Option<String>,
    pub config_hash: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}
