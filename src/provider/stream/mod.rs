//! Incremental, bounded decoders for streamed answers: where one event ends and the next begins.

pub mod sse;
