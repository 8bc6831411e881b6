//! Tollgate: a reverse proxy in front of LLM providers that decides who may spend what.

pub mod governance;
pub mod state;
pub mod store;
pub mod telemetry;
