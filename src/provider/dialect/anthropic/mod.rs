//! The dialect of Anthropic's messages: what Claude is spoken to in, by itself and on other clouds.

mod event;
mod request;
mod usage;

pub(super) use event::Listener;
pub(super) use request::{read, read_invoked};
pub(super) use usage::DOCUMENT;

#[cfg(test)]
mod tests;
