//! A request of this dialect, read in one pass.
//!
//! What is checked here must be what the provider goes by. A member that appears twice is therefore
//! refused: parsers differ in which one they take.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;
use smallvec::SmallVec;

use super::super::call::{Call, Cap, NewCap, Seams};
use super::super::members::{cap, count, differs_in_case, flag, inside, model, span, thinking};
use super::super::{CallError, Media, Part, Shape, Weigher, Weight};
use crate::governance::request::{Dialect, RequestKind};
use crate::governance::usage::{Pictures, Quality, ServiceTier};

/// What a text completion generates when the request names no cap.
const TEXT_COMPLETION_OUTPUT: u64 = 16;
/// More answers to one question than any provider gives.
const ANSWERS_MAX: u64 = 4_096;

/// Understands a body, or says what is wrong with it.
pub fn read(kind: RequestKind, body: &[u8]) -> Result<Call, CallError> {
    if kind == RequestKind::ListModels {
        return Err(CallError::body("this request takes no body"));
    }
    let body = std::str::from_utf8(body).map_err(|_| CallError::body("the body is not JSON: it is not UTF-8"))?;
    let mut draft = Draft::new(kind, body);
    let mut json = serde_json::Deserializer::from_str(body);
    let read = json.deserialize_map(&mut draft).and_then(|()| json.end());
    match (draft.fault.take(), read) {
        (Some(fault), _) => Err(fault),
        (None, Err(error)) if error.is_data() => Err(CallError::body("the body must be a JSON object")),
        (None, Err(error)) => Err(CallError::body(format!("the body is not JSON: {error}"))),
        (None, Ok(())) => draft.finish(),
    }
}

/// Where `stream_options` stands in the body.
#[derive(Debug, Clone, PartialEq, Eq)]
struct StreamOptions {
    at: Range<usize>,
    shape: OptionsShape,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum OptionsShape {
    Null,
    Empty,
    /// Has members, but not `include_usage`.
    Others,
    /// `include_usage` has its value here.
    Usage(Range<usize>),
}

/// The members that are understood. The first ones may appear only once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Model,
    Stream,
    StreamOptions,
    MaxTokens,
    MaxCompletionTokens,
    MaxOutputTokens,
    N,
    BestOf,
    Background,
    ServiceTier,
    // From here on repetition does no harm: it is weighed each time.
    StateReference,
    Prompt,
    Items,
    Words,
    Tools,
    Schema,
    WebSearch,
    Thinking,
    Size,
    Quality,
    Other,
    /// The same for a member that only calls for pictures and speech may have but once.
    OtherCaseMedia,
    /// Written like a member that may appear once, but in another case.
    OtherCase,
}

/// The name of each field that may appear only once, in their order.
const ONCE: [&str; 10] = [
    "model",
    "stream",
    "stream_options",
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "n",
    "best_of",
    "background",
    "service_tier",
];

/// What decides about the price of pictures and speech.
const MEDIA_ONCE: [&str; 3] = ["input", "size", "quality"];

fn is_other_case(name: &str) -> bool {
    ONCE.iter().any(|once| differs_in_case(name, once))
}

impl<'de> Deserialize<'de> for Field {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Field, D::Error> {
        struct Name;
        impl Visitor<'_> for Name {
            type Value = Field;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_str<E>(self, name: &str) -> Result<Field, E> {
                Ok(match name {
                    "model" => Field::Model,
                    "stream" => Field::Stream,
                    "stream_options" => Field::StreamOptions,
                    "max_tokens" => Field::MaxTokens,
                    "max_completion_tokens" => Field::MaxCompletionTokens,
                    "max_output_tokens" => Field::MaxOutputTokens,
                    "n" => Field::N,
                    "best_of" => Field::BestOf,
                    "background" => Field::Background,
                    "service_tier" => Field::ServiceTier,
                    "previous_response_id" | "conversation" => Field::StateReference,
                    "prompt" => Field::Prompt,
                    "messages" | "input" => Field::Items,
                    "instructions" | "suffix" => Field::Words,
                    "tools" => Field::Tools,
                    "functions" | "response_format" | "text" => Field::Schema,
                    "web_search_options" => Field::WebSearch,
                    "thinking" | "reasoning" => Field::Thinking,
                    "size" => Field::Size,
                    "quality" => Field::Quality,
                    name if is_other_case(name) => Field::OtherCase,
                    name if MEDIA_ONCE.iter().any(|once| differs_in_case(name, once)) => Field::OtherCaseMedia,
                    _ => Field::Other,
                })
            }
        }
        json.deserialize_str(Name)
    }
}

/// What is known of a body so far.
struct Draft<'b> {
    kind: RequestKind,
    body: &'b str,
    fault: Option<CallError>,
    seen: [bool; ONCE.len()],
    model: Option<(String, Range<usize>)>,
    stream: bool,
    stream_options: Option<StreamOptions>,
    include_usage: bool,
    caps: SmallVec<[Cap; 2]>,
    thinking: u64,
    n: u64,
    prompts: u64,
    refers_to_state: bool,
    tier: ServiceTier,
    weight: Weight,
    media: Media,
    media_seen: [bool; MEDIA_ONCE.len()],
}

impl<'b> Draft<'b> {
    fn new(kind: RequestKind, body: &'b str) -> Draft<'b> {
        Draft {
            kind,
            body,
            fault: None,
            seen: [false; ONCE.len()],
            model: None,
            stream: false,
            stream_options: None,
            include_usage: false,
            caps: SmallVec::new(),
            thinking: 0,
            n: 1,
            prompts: 1,
            refers_to_state: false,
            tier: ServiceTier::Standard,
            weight: Weight::default(),
            media: Media::default(),
            media_seen: [false; MEDIA_ONCE.len()],
        }
    }

    /// Takes a member that may appear once.
    fn scalar(&mut self, field: Field, raw: &'b RawValue) -> Result<(), CallError> {
        let name = ONCE[field as usize];
        if std::mem::replace(&mut self.seen[field as usize], true) {
            return Err(CallError::of(name, "appears more than once"));
        }
        match field {
            Field::Model => self.model = Some((model(raw)?, span(self.body, raw.get()))),
            Field::Stream => self.stream = flag(name, raw)?.unwrap_or(false),
            Field::StreamOptions => self.options(raw)?,
            Field::MaxTokens | Field::MaxCompletionTokens | Field::MaxOutputTokens => {
                let cap = cap(self.body, name, raw)?;
                if caps(self.kind).contains(&name) {
                    self.caps.push(cap);
                }
            }
            Field::N | Field::BestOf => {
                let answers = count(name, raw)?.unwrap_or(1);
                if answers > ANSWERS_MAX {
                    return Err(CallError::of(name, "asks for more answers than any provider gives"));
                }
                self.n = self.n.max(answers);
            }
            Field::Background if flag(name, raw)? == Some(true) => {
                let why = "is not supported: what it costs would show only later, outside of this request";
                return Err(CallError::of(name, why));
            }
            Field::ServiceTier => {
                let word: Option<String> =
                    serde_json::from_str(raw.get()).map_err(|_| CallError::of(name, "must be a string"))?;
                self.tier = word.map_or(ServiceTier::Standard, |word| ServiceTier::from_word(&word));
            }
            _ => {}
        }
        Ok(())
    }

    fn options(&mut self, raw: &'b RawValue) -> Result<(), CallError> {
        let fault = || CallError::of("stream_options", "must be an object with a boolean 'include_usage'");
        let at = span(self.body, raw.get());
        let shape = if raw.get() == "null" {
            OptionsShape::Null
        } else {
            let options: Options = serde_json::from_str(raw.get()).map_err(|_| fault())?;
            match options {
                Options { repeated: true, .. } => {
                    return Err(CallError::of("stream_options", "has 'include_usage' more than once"));
                }
                Options { usage: Some(value), .. } => {
                    self.include_usage = flag("stream_options", value).map_err(|_| fault())?.unwrap_or(false);
                    OptionsShape::Usage(span(self.body, value.get()))
                }
                Options { others: true, .. } => OptionsShape::Others,
                _ => OptionsShape::Empty,
            }
        };
        self.stream_options = Some(StreamOptions { at, shape });
        Ok(())
    }

    /// Takes a member that says what is spoken or drawn, by its place in `MEDIA_ONCE`.
    fn medium(&mut self, at: usize, raw: &'b RawValue) -> Result<(), CallError> {
        let name = MEDIA_ONCE[at];
        if std::mem::replace(&mut self.media_seen[at], true) {
            return Err(CallError::of(name, "appears more than once"));
        }
        let text: Option<Cow<'_, str>> =
            serde_json::from_str(raw.get()).map_err(|_| CallError::of(name, "must be a string"))?;
        let Some(text) = text else { return Ok(()) };
        match name {
            "input" => {
                self.weight.text_bytes = self.weight.text_bytes.saturating_add(text.len() as u64);
                self.media.characters = u32::try_from(text.chars().count()).unwrap_or(u32::MAX);
            }
            "size" => {
                // Anything else is the provider's to judge, or left to it.
                let (width, height) = Pictures::size(&text).unwrap_or_default();
                (self.media.pictures.width, self.media.pictures.height) = (width, height);
            }
            _ => self.media.pictures.quality = Quality::from_word(&text),
        }
        Ok(())
    }

    /// Takes a member that is weighed.
    fn weigh<A: MapAccess<'b>>(&mut self, field: Field, map: &mut A) -> Result<(), A::Error> {
        if field == Field::Thinking {
            let raw: &RawValue = map.next_value()?;
            self.thinking = self.thinking.max(thinking(raw));
            // Weighed as everything else, which bounds its depth.
            let mut json = serde_json::Deserializer::from_str(raw.get());
            let weighed = Weigher::new(&mut self.weight, Part::Aside).deserialize(&mut json);
            return weighed.map(drop).map_err(|error| {
                self.fault = Some(CallError::body(format!("the body is not JSON: {error}")));
                A::Error::custom("a member cannot be understood")
            });
        }
        let medium = match (self.kind, field) {
            (RequestKind::Speech, Field::Items) => Some(0),
            (RequestKind::ImageGeneration, Field::Size) => Some(1),
            (RequestKind::ImageGeneration, Field::Quality) => Some(2),
            _ => None,
        };
        let taken = match medium {
            Some(at) => self.medium(at, map.next_value()?),
            None if field == Field::OtherCaseMedia && Media::is_of(self.kind) => {
                let what = format!("a member is named like one of {}, but in another case", MEDIA_ONCE.join(", "));
                Err(CallError::body(what))
            }
            None => Ok(()),
        };
        if let Err(fault) = taken {
            self.fault = Some(fault);
            return Err(A::Error::custom("a member cannot be understood"));
        }
        if medium.is_some() {
            return Ok(());
        }
        let part = match field {
            Field::Prompt | Field::Items | Field::Words => Part::Content,
            Field::Tools => Part::Tools,
            Field::Schema => Part::Schema,
            _ => Part::Aside,
        };
        let shape = map.next_value_seed(Weigher::new(&mut self.weight, part))?;
        let talks = matches!(self.kind, RequestKind::ChatCompletion | RequestKind::Responses);
        let members = match shape {
            Shape::Null => return Ok(()),
            Shape::Array(members) => members,
            _ => 1,
        };
        match field {
            Field::Items if talks => self.weight.messages += members,
            Field::Prompt if self.kind == RequestKind::Responses => self.refers_to_state = true,
            // An array of tokens is one prompt.
            Field::Prompt => self.prompts = self.prompts.max(members),
            Field::StateReference if self.kind == RequestKind::Responses => self.refers_to_state = true,
            Field::WebSearch => self.weight.unseen = true,
            _ => {}
        }
        Ok(())
    }

    fn finish(self) -> Result<Call, CallError> {
        let Some((model, model_at)) = self.model else { return Err(CallError::of("model", "is required")) };
        let value = |name: &&str| self.caps.iter().find(|cap| cap.name == *name)?.tokens;
        let named = caps(self.kind).iter().find_map(value);
        let output_cap = match self.kind {
            RequestKind::TextCompletion => named.or(Some(TEXT_COMPLETION_OUTPUT)),
            _ => named,
        };
        let choices = match self.kind {
            RequestKind::ChatCompletion => self.n,
            RequestKind::TextCompletion => self.n.saturating_mul(self.prompts),
            RequestKind::ImageGeneration => self.n,
            _ => 1,
        };
        // The responses dialect always tells its usage, and refuses the option.
        let asks = matches!(self.kind, RequestKind::ChatCompletion | RequestKind::TextCompletion);
        let usage =
            (self.stream && !self.include_usage && asks).then(|| usage_edit(self.body, self.stream_options.as_ref()));
        let cap_new = (!caps(self.kind).is_empty()).then(|| NewCap::Named(inside(self.body)));
        let mut media = self.media;
        if self.kind == RequestKind::ImageGeneration {
            // No more than `ANSWERS_MAX`.
            media.pictures.count = self.n as u32;
        }
        let model_at = SmallVec::from_buf([model_at]);
        let seams = Seams { model_at, caps: self.caps, cap_new, usage, ..Seams::default() };
        Ok(Call {
            dialect: Dialect::OpenAi,
            format: Dialect::OpenAi,
            kind: self.kind,
            model,
            stream: self.stream,
            output_cap,
            choices,
            thinking: self.thinking,
            include_usage: self.include_usage,
            refers_to_state: self.refers_to_state,
            tier: self.tier,
            weight: self.weight,
            media: Media::is_of(self.kind).then_some(media),
            seams,
        })
    }
}

impl<'de> Visitor<'de> for &mut Draft<'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(field) = map.next_key::<Field>()? {
            if field == Field::OtherCase {
                let what = format!("a member is named like one of {}, but in another case", ONCE.join(", "));
                self.fault = Some(CallError::body(what));
                return Err(A::Error::custom("a member cannot be understood"));
            }
            // Elsewhere the word means nothing to us.
            let foreign = field == Field::Background && self.kind != RequestKind::Responses;
            if foreign || field as usize >= ONCE.len() {
                self.weigh(field, &mut map)?;
            } else if let Err(fault) = self.scalar(field, map.next_value()?) {
                self.fault = Some(fault);
                return Err(A::Error::custom("a member cannot be understood"));
            }
        }
        Ok(())
    }
}

/// The members that cap the output of a call of this kind; the first that has a value counts.
const fn caps(kind: RequestKind) -> &'static [&'static str] {
    match kind {
        RequestKind::ChatCompletion => &["max_completion_tokens", "max_tokens"],
        RequestKind::TextCompletion => &["max_tokens"],
        RequestKind::Responses => &["max_output_tokens"],
        _ => &[],
    }
}

/// `stream_options`, as far as it matters.
#[derive(Default)]
struct Options<'b> {
    usage: Option<&'b RawValue>,
    others: bool,
    repeated: bool,
}

impl<'de> Deserialize<'de> for Options<'de> {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Options<'de>, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Options<'de>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Options<'de>, A::Error> {
                let mut options = Options::default();
                while let Some(key) = map.next_key::<String>()? {
                    if key == "include_usage" {
                        options.repeated |= options.usage.replace(map.next_value()?).is_some();
                    } else {
                        // Not skipped but walked: that bounds its depth.
                        map.next_value_seed(Weigher::new(&mut Weight::default(), Part::Aside))?;
                        options.others = true;
                    }
                }
                Ok(options)
            }
        }
        json.deserialize_map(Members)
    }
}

/// What makes the stream tell its usage, if it does not anyway.
fn usage_edit(body: &str, options: Option<&StreamOptions>) -> (Range<usize>, &'static str) {
    let Some(options) = options else {
        let inside = inside(body);
        return (inside, r#""stream_options":{"include_usage":true},"#);
    };
    let inside = options.at.start + 1..options.at.start + 1;
    match &options.shape {
        OptionsShape::Null => (options.at.clone(), r#"{"include_usage":true}"#),
        OptionsShape::Empty => (inside, r#""include_usage":true"#),
        OptionsShape::Others => (inside, r#""include_usage":true,"#),
        OptionsShape::Usage(value) => (value.clone(), "true"),
    }
}

#[cfg(test)]
mod tests;
