//! How providers are spoken to: bytes in, bytes out, no sockets and no clock.
//!
//! A `Call` is the client's request, understood once and forwarded with as few bytes changed as
//! possible. A `Reader` watches the answer pass and learns what it used. Everything here is bounded:
//! what is kept of an answer never grows with its length.
//!
//! The seam for wire formats is `dialect`: one folder each, which knows its paths, understands a request,
//! reads a usage object and says what a stream's event means. `json`, `stream` and `reader` know no dialect.

pub mod address;
pub mod credential;
pub mod dialect;
pub mod failure;
pub mod json;
pub mod reader;
pub mod sign;
pub mod stream;

pub use dialect::openai::usage_from_value;
pub use dialect::{
    Call, CallError, Door, FirstEvent, Garbage, Rewrite, Route, Weight, framing, read_call, read_typed_call,
};
pub use reader::{Framing, Out, Reader, Reading};

#[cfg(test)]
mod fixtures;
