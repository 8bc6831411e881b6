//! A request as the proxy needs to know it, and its rewriting without disturbing the rest.
//!
//! Every dialect reads into the same `Call`. Where its members stand in the body is noted as they are read,
//! so that what must change on the way is changed there and nowhere else.

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;
use smallvec::SmallVec;

use super::{Media, Weight};
use crate::governance::request::{Dialect, RequestKind};
use crate::governance::usage::ServiceTier;

/// What a picture costs about; sounds and documents are taken for the same.
const BLOB_TOKENS: u64 = 1_600;
/// What one picture can cost at most, with the models that multiply their tiles.
const BLOB_TOKENS_MAX: u64 = 50_000;
/// Framing of a message.
const MESSAGE_TOKENS: u64 = 4;
/// Framing of the answer to come.
const PRIMING_TOKENS: u64 = 3;
/// More framing than any template puts around one message, part or tool.
const FRAMING_TOKENS_MAX: u64 = 16;

/// The client's request, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// What the provider must speak.
    pub dialect: Dialect,
    /// What the bodies are written in: a cloud may carry another dialect's as they are.
    pub format: Dialect,
    pub kind: RequestKind,
    /// As the client named it, decoded.
    pub model: String,
    pub stream: bool,
    /// The most that one choice may generate, in tokens. `None`: what the model can.
    pub output_cap: Option<u64>,
    /// How many answers are generated; each has the whole cap.
    pub choices: u64,
    /// What each answer may think, and the cap has to leave room for. Zero: nothing was said.
    pub thinking: u64,
    /// The client itself asked for usage in the stream.
    pub include_usage: bool,
    /// Input lies with the provider: an earlier answer, a conversation, a stored prompt.
    pub refers_to_state: bool,
    /// The tier asked for; the answer names the one that served.
    pub tier: ServiceTier,
    pub weight: Weight,
    /// What is asked for beside text, where that is what such calls are for.
    pub media: Option<Media>,
    pub(super) seams: Seams,
}

/// Where the body may be changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Seams {
    /// The literals that name the model, quotes included. None where only the path names it.
    pub model_at: SmallVec<[Range<usize>; 1]>,
    /// The body is a form: what stands in it needs no quotes.
    pub is_form: bool,
    /// What stands before the model's name within them.
    pub model_prefix: &'static str,
    /// The members that cap the output of calls of this kind, as far as they are there.
    pub caps: SmallVec<[Cap; 2]>,
    /// Where a cap is put that the client did not set; absent where there is nothing to cap.
    pub cap_new: Option<NewCap>,
    /// What makes a stream tell its usage that would not do so by itself.
    pub usage: Option<(Range<usize>, &'static str)>,
}

/// A member that caps the output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cap {
    pub name: &'static str,
    pub at: Range<usize>,
    /// `None`: it is there, and null.
    pub tokens: Option<u64>,
}

/// Where a cap is added that is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NewCap {
    /// Before the member here, by the name that the provider wants.
    Named(Range<usize>),
    /// The number stands between these two texts.
    Between { at: Range<usize>, before: &'static str, after: &'static str },
}

/// What the upstream's body says otherwise than the client's.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rewrite<'a> {
    /// The upstream's name of the model.
    pub model: &'a str,
    /// A stream is made to end in its usage.
    pub ask_usage: bool,
    /// Every cap on the output is lowered to so many tokens; where there is none, one is added, by this name
    /// where the dialect has several.
    pub output_cap: Option<(&'static str, u64)>,
}

impl Call {
    /// About how many tokens the input has: a token for four bytes of text, some for framing.
    pub fn input_estimate(&self) -> u64 {
        let weight = &self.weight;
        (weight.text_bytes.div_ceil(4))
            .saturating_add(weight.messages.saturating_mul(MESSAGE_TOKENS))
            .saturating_add(PRIMING_TOKENS)
            .saturating_add(weight.numbers)
            .saturating_add(weight.blobs.saturating_mul(BLOB_TOKENS))
    }

    /// How many tokens the input has at the very most. `None`: only the context window bounds it.
    ///
    /// A token stands for at least one byte, so texts count by their bytes; every object, array and
    /// element, messages and tools among them, gets 16 for framing; a number is one token, a picture or sound
    /// at most 50,000. Nothing of ours bounds what is not in the body (stored state, files by id or
    /// address, tools that the provider runs) nor documents, whose text is compressed.
    pub fn input_bound(&self) -> Option<u64> {
        let weight = &self.weight;
        if self.refers_to_state || weight.unseen {
            return None;
        }
        let framed = weight.structures.saturating_add(1);
        Some(
            (weight.text_bytes.saturating_add(weight.aside_bytes))
                .saturating_add(framed.saturating_mul(FRAMING_TOKENS_MAX))
                .saturating_add(weight.numbers)
                .saturating_add(weight.blobs.saturating_mul(BLOB_TOKENS_MAX)),
        )
    }

    /// Whether the stream tells its usage only if it is asked to, and the client did not ask.
    pub fn may_ask_usage(&self) -> bool {
        self.seams.usage.is_some()
    }

    /// The body for the upstream. Every byte stays that need not change; without a change none is copied.
    ///
    /// `body` must be the one this call was read from.
    pub fn rewrite(&self, body: &Bytes, wanted: Rewrite<'_>) -> Bytes {
        let seams = &self.seams;
        let mut edits: SmallVec<[Edit; 4]> = SmallVec::new();
        if wanted.model != self.model && !seams.model_at.is_empty() {
            let name = format!("{}{}", seams.model_prefix, wanted.model);
            let literal = match seams.is_form {
                // A name of one line cannot end its part.
                true => name.replace(char::is_control, " "),
                false => serde_json::to_string(&name).expect("a string always has a JSON form"),
            };
            edits.extend(seams.model_at.iter().map(|at| (at.clone(), Cow::Owned(literal.clone()))));
        }
        if let (true, Some((at, text))) = (wanted.ask_usage, &seams.usage) {
            edits.push((at.clone(), Cow::Borrowed(*text)));
        }
        if let Some((name, tokens)) = wanted.output_cap {
            self.lower(name, tokens, &mut edits);
        }
        if edits.is_empty() {
            return body.clone();
        }
        edits.sort_by_key(|(at, _)| at.start);
        let added: usize = edits.iter().map(|(_, text)| text.len()).sum();
        let mut out = Vec::with_capacity(body.len() + added);
        let mut done = 0;
        for (at, text) in &edits {
            out.extend_from_slice(&body[done..at.start]);
            out.extend_from_slice(text.as_bytes());
            done = at.end;
        }
        out.extend_from_slice(&body[done..]);
        Bytes::from(out)
    }

    /// Lowers every cap that is above `tokens`. Where none has a value, one gets it.
    fn lower(&self, name: &'static str, tokens: u64, edits: &mut SmallVec<[Edit; 4]>) {
        let caps = &self.seams.caps;
        let above = |cap: &&Cap| cap.tokens.is_some_and(|own| own > tokens);
        edits.extend(caps.iter().filter(above).map(|cap| (cap.at.clone(), Cow::Owned(tokens.to_string()))));
        if caps.iter().any(|cap| cap.tokens.is_some()) {
            return;
        }
        edits.extend(match (&self.seams.cap_new, &caps[..]) {
            (Some(NewCap::Named(at)), caps) => Some(match caps.iter().find(|cap| cap.name == name) {
                Some(null) => (null.at.clone(), Cow::Owned(tokens.to_string())),
                None => (at.clone(), Cow::Owned(format!("\"{name}\":{tokens},"))),
            }),
            (_, [null, ..]) => Some((null.at.clone(), Cow::Owned(tokens.to_string()))),
            (Some(NewCap::Between { at, before, after }), []) => {
                Some((at.clone(), Cow::Owned(format!("{before}{tokens}{after}"))))
            }
            (None, []) => None,
        });
    }
}

/// What stands in a place of the body from now on.
type Edit = (Range<usize>, Cow<'static, str>);

impl Cap {
    /// The cap that counts: the first that has a value.
    pub(super) fn first(caps: &[Cap]) -> Option<u64> {
        caps.iter().find_map(|cap| cap.tokens)
    }
}
