//! The core: who may spend what. Pure: no I/O, no async, no clock, no float, no global.

pub mod money;
pub mod request;
pub mod secret;
pub mod time;
pub mod usage;
