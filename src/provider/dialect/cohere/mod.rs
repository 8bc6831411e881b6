//! The dialect of Cohere's second version: chat, embeddings and reranking.

mod event;
mod request;
mod usage;

pub(super) use event::hear;
pub(super) use request::read;
pub(super) use usage::document;

#[cfg(test)]
mod tests;
