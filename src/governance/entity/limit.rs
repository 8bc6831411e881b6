//! Limits on money, tokens and requests.

use crate::governance::money::Nanos;
use crate::governance::time::{Timestamp, Window};
use std::sync::Arc;

/// A limit on money within a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    pub id: Arc<str>,
    /// Above zero.
    pub max: Nanos,
    pub window: Window,
    /// Where rolling windows count from.
    pub anchor: Timestamp,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// A limit on tokens, on requests, or on both, each with its own window. At least one is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimit {
    pub id: Arc<str>,
    pub tokens: Option<Quota>,
    pub requests: Option<Quota>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// One half of a rate limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quota {
    /// Above zero.
    pub max: i64,
    pub window: Window,
    pub anchor: Timestamp,
}
