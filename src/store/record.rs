//! What is written beside the edits of a change, in the same transaction: who did it, what the audit log
//! tells of it, and the answer kept for a request that may come again.

use crate::governance::edit::Edit;
use crate::governance::money::Nanos;
use crate::governance::request::RequestKind;
use crate::governance::secret::Secret;
use crate::governance::time::Timestamp;
use crate::state::outbox::ChargeId;
use serde_json::Value;

/// What is written beside the edits of one change.
#[derive(Debug, Clone)]
pub struct Record {
    /// Who: `token`, `basic:NAME`, `local`, `config file`.
    pub actor: String,
    pub at: Timestamp,
    pub audit: Vec<AuditLine>,
    pub replay: Option<NewReplay>,
}

/// One object's part in a change, without any secret.
#[derive(Debug, Clone)]
pub struct AuditLine {
    pub action: &'static str,
    pub object_type: &'static str,
    pub object_id: String,
    pub object_name: Option<String>,
    pub before: Option<Value>,
    pub after: Option<Value>,
}

/// One line of the audit log as it is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditEntry {
    /// Grows with time.
    pub id: i64,
    pub at: Timestamp,
    pub actor: String,
    pub action: String,
    pub object_type: String,
    pub object_id: String,
    pub object_name: Option<String>,
    pub before: Option<Value>,
    pub after: Option<Value>,
}

/// A page of the audit log. What is absent selects everything.
#[derive(Debug, Clone, Default)]
pub struct AuditQuery {
    pub object_type: Option<String>,
    pub object_id: Option<String>,
    pub limit: usize,
    pub offset: usize,
}

/// An answer kept for a request that may be sent again.
#[derive(Debug, Clone)]
pub struct NewReplay {
    pub key: String,
    /// A keyed digest of method, path and body.
    pub fingerprint: [u8; 32],
    pub status: u16,
    /// Sealed at rest: it may hold a virtual key's value.
    pub body: Secret,
    /// Whose value that is; the answer goes when the value does.
    pub virtual_key: Option<String>,
}

/// The answer that a request of this key got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replay {
    pub fingerprint: [u8; 32],
    pub status: u16,
    pub body: Secret,
}

/// A call that was open when its process died, as it stands with its corrections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnresolvedEntry {
    pub id: ChargeId,
    pub admitted_at: Timestamp,
    /// When it was found.
    pub settled_at: Timestamp,
    pub virtual_key: Option<String>,
    pub provider: String,
    pub model: String,
    pub kind: RequestKind,
    /// Tokens.
    pub input: i64,
    pub output: i64,
    pub cost: Nanos,
    pub corrections: u32,
}

/// What became known of it. Tokens that are absent stay as they stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Actual {
    pub input: Option<i64>,
    pub output: Option<i64>,
    pub cost: Nanos,
}

/// Everything stored, as edits that build a view when applied in order.
#[derive(Debug)]
pub struct Loaded {
    pub edits: Vec<Edit>,
    /// The highest id that a provider config ever got; zero if there was none.
    pub highest_config_id: i64,
    /// What could be read only in part, a sentence each.
    pub warnings: Vec<String>,
}
