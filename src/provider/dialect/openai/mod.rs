//! The dialect of OpenAI and of the many who speak it: chat, text completions, responses, embeddings.

pub(in crate::provider) mod event;
mod request;
mod usage;

pub(super) use request::read;
pub use usage::usage_from_value;
pub(super) use usage::{WANTED, texts, usage};
