//! The things that administrators declare: plain data, checked before it gets here.

mod built_in;
mod client;
mod global;
mod limit;
mod model_set;
mod owner;
mod price_override;
mod provider;
mod provider_key;
mod rule;
mod upstream_proxy;
mod virtual_key;

pub use built_in::{BASE_PROVIDERS, BUILT_IN_PROVIDERS, built_in_base_url, is_built_in_provider, is_reached_by_key};
pub use client::{BODY_BYTES_MAX, BasicAuth, ClientConfig};
pub use global::{ModelConfig, ProviderLimits};
pub use limit::{Budget, Limits, Quota, RateLimit};
pub use model_set::{KeySet, ModelSet};
pub use owner::{Customer, Team};
pub use price_override::{ModelPattern, OverrideScope, PRICE_FIELDS, PricingOverride};
pub use provider::{Concurrency, CustomProvider, Network, Provider, names_a_credential};
pub use provider_key::{Cloud, CloudConfig, CloudField, CloudShape, KeyValue, ProviderKey, Weight};
pub use rule::{RoutingRule, RuleScope, RuleTarget};
pub use upstream_proxy::{ProxyKind, UpstreamProxy};
pub use virtual_key::{ProviderConfig, VIRTUAL_KEY_PREFIX, VirtualKey, has_virtual_key_prefix};
