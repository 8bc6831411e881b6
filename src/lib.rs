//! Tollgate: a reverse proxy in front of LLM providers that decides who may spend what.

pub mod admin;
pub mod app;
pub mod cli;
pub mod config;
pub mod governance;
pub mod provider;
pub mod proxy;
pub mod state;
pub mod store;
pub mod telemetry;
pub mod wire;
