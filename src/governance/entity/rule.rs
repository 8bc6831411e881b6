//! Routing rules as administrators write them.

use super::Weight;
use crate::governance::cel::Condition;
use crate::governance::time::Timestamp;
use std::sync::Arc;

/// Where requests go for which an expression holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoutingRule {
    pub id: Arc<str>,
    /// Unique within its scope.
    pub name: String,
    pub description: String,
    pub enabled: bool,
    /// CEL, as it was written. Empty: always.
    pub expression: String,
    /// Why it is not evaluated, if it was stored by another version and this one cannot read it.
    pub fault: Option<String>,
    /// The expression made ready. Absent where `fault` says why.
    pub condition: Option<Condition>,
    /// At least one; their weights sum to one.
    pub targets: Vec<RuleTarget>,
    /// `provider/model`, `provider/` or `provider`. Absent: the request's own stay.
    pub fallbacks: Option<Vec<String>>,
    pub scope: RuleScope,
    /// Smaller first. Unique within its scope.
    pub priority: i64,
    /// After a match, evaluation starts again with what the rule chose.
    pub chain: bool,
    /// JSON of a rule builder, stored and returned.
    pub query: Option<String>,
    pub config_hash: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// One destination of a rule. What is absent stays as the request has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleTarget {
    pub provider: Option<String>,
    pub model: Option<String>,
    /// Only together with a provider.
    pub key_id: Option<String>,
    pub weight: Weight,
}

/// Whose requests a rule is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RuleScope {
    Global,
    Customer(Arc<str>),
    Team(Arc<str>),
    VirtualKey(Arc<str>),
}

impl RuleScope {
    /// The names on the wire.
    pub const NAMES: [&'static str; 4] = ["global", "customer", "team", "virtual_key"];

    pub const fn name(&self) -> &'static str {
        match self {
            RuleScope::Global => "global",
            RuleScope::Customer(_) => "customer",
            RuleScope::Team(_) => "team",
            RuleScope::VirtualKey(_) => "virtual_key",
        }
    }

    /// The scope of this name. Absent if there is none, or if it wants an id and has none.
    pub fn of(name: &str, id: Option<&str>) -> Option<RuleScope> {
        match (name, id) {
            ("global", _) => Some(RuleScope::Global),
            ("customer", Some(id)) => Some(RuleScope::Customer(id.into())),
            ("team", Some(id)) => Some(RuleScope::Team(id.into())),
            ("virtual_key", Some(id)) => Some(RuleScope::VirtualKey(id.into())),
            _ => None,
        }
    }

    pub const fn id(&self) -> Option<&Arc<str>> {
        match self {
            RuleScope::Global => None,
            RuleScope::Customer(id) | RuleScope::Team(id) | RuleScope::VirtualKey(id) => Some(id),
        }
    }
}
