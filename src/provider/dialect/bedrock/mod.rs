//! The dialect of Bedrock's runtime: converse, one form for all models, and `invoke`, which carries the form of
//! the model itself.

mod event;
mod request;
mod usage;

pub(super) use event::hear;
pub(super) use request::read;
pub(super) use usage::DOCUMENT;

#[cfg(test)]
mod tests;
