//! The dialect of OpenAI and of the many who speak it: chat, text completions, responses, embeddings, pictures and
//! sound.

pub(in crate::provider) mod event;
pub(super) mod form;
mod media;
mod request;
mod usage;

use super::Document;
use crate::governance::request::RequestKind;
pub(super) use request::read;
pub use usage::usage_from_value;

/// How a whole answer is read.
pub(super) fn document(kind: RequestKind) -> Document {
    match kind {
        RequestKind::ImageGeneration => media::PICTURES,
        RequestKind::Transcription => media::TRANSCRIPT,
        _ => Document { wanted: usage::WANTED, texts: usage::texts(kind), usage: usage::usage },
    }
}
