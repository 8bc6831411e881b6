//! Bodies of the REST contract, read and written in one place: the admin API, the proxy and the
//! config file share them.

pub mod certificate;
pub mod change;
pub mod client;
pub mod correction;
pub mod cors;
pub mod credential;
pub mod declared;
pub mod env_text;
pub mod error;
pub mod fallbacks;
pub mod faults;
pub mod limits;
pub mod mcp;
pub mod model_config;
pub mod owner;
pub mod price_override;
pub mod provider;
pub mod provider_limits;
pub mod proxy_url;
pub mod read;
pub mod rule;
pub mod show;
pub mod stored_provider;
pub mod strict;
pub mod virtual_key;
