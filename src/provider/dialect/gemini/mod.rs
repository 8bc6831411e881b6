//! The dialect of Gemini: contents generated, streamed, counted and embedded.

mod event;
mod request;
mod usage;

pub(super) use event::hear;
pub(super) use request::read;
pub(super) use usage::DOCUMENT;

#[cfg(test)]
mod tests;
