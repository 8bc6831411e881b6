//! How providers are spoken to: bytes in, bytes out, no sockets and no clock.
//!
//! A `Call` is the client's request, understood once and forwarded with as few bytes changed as
//! possible. A `Reader` watches the answer pass and learns what it used. Everything here is bounded:
//! what is kept of an answer never grows with its length.
//!
//! The seam for further wire formats is `dialect`: one folder each, which understands a request,
//! reads a usage object and says what a stream's event means. `json`, `stream` and `reader` know no dialect.

pub mod dialect;
pub mod json;
pub mod openai;
pub mod reader;
pub mod stream;

pub use dialect::openai::{Call, Rewrite, usage_from_value};
pub use dialect::{CallError, FirstEvent, Garbage, Weight};
pub use reader::{Out, Reader, Reading};

#[cfg(test)]
mod fixtures;
