//! The core: who may spend what. Pure: no I/O, no async, no clock, no float, no global.
#![deny(clippy::float_arithmetic)]

pub mod catalog;
pub mod cel;
pub mod charge;
pub mod dice;
pub mod edit;
pub mod entity;
pub mod judge;
pub mod model_name;
pub mod money;
pub mod price_field;
pub mod pricing;
pub mod refusal;
pub mod request;
pub mod route;
pub mod secret;
pub mod time;
pub mod usage;
pub mod view;
