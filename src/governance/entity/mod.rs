//! The things that administrators declare: plain data, checked before it gets here.

mod client;
mod global;
mod limit;
mod model_set;
mod owner;
mod price_override;
mod provider;
mod rule;
mod virtual_key;

pub use client::{BasicAuth, ClientConfig};
pub use global::{ModelConfig, ProviderLimits};
pub use limit::{Budget, Limits, Quota, RateLimit};
pub use model_set::{KeySet, ModelSet};
pub use owner::{Customer, Team};
pub use price_override::{ModelPattern, OverrideScope, PRICE_FIELDS, PricingOverride};
pub use provider::{
    BUILT_IN_PROVIDERS, Network, Provider, ProviderKey, Weight, built_in_base_url, is_built_in_provider,
};
pub use rule::{RoutingRule, RuleScope, RuleTarget};
pub use virtual_key::{ProviderConfig, VIRTUAL_KEY_PREFIX, VirtualKey, has_virtual_key_prefix};
