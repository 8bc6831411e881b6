//! What the outside may watch: metrics, and how logging is set up.

mod metrics;

pub use metrics::Metrics;
