//! The things that administrators declare: plain data, checked before it gets here.

mod limit;
mod model_set;
mod provider;
mod virtual_key;

pub use limit::{Budget, Quota, RateLimit};
pub use model_set::{KeySet, ModelSet};
pub use provider::{
    BUILT_IN_PROVIDERS, Network, Provider, ProviderKey, Weight, built_in_base_url, is_built_in_provider,
};
pub use virtual_key::{ProviderConfig, VIRTUAL_KEY_PREFIX, VirtualKey, has_virtual_key_prefix};
