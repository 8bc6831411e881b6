//! Bodies of the REST contract, read and written in one place: the admin API, the proxy and the
//! config file share them.

pub mod certificate;
pub mod client;
pub mod credential;
pub mod env_text;
pub mod error;
pub mod faults;
pub mod provider;
pub mod read;
pub mod show;
pub mod stored_provider;
pub mod strict;
pub mod virtual_key;
pub mod virtual_key_update;
