//! The dialect of OpenAI and of the many who speak it: chat, text completions, responses, embeddings.

pub(in crate::provider) mod event;
mod request;
mod usage;

pub use request::{Call, Rewrite};
pub use usage::usage_from_value;
