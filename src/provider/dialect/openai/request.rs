//! A request as the proxy needs to know it, read in one pass, and rewritten without disturbing the rest.
//!
//! What is checked here must be what the provider goes by. A member that appears twice is therefore
//! refused: parsers differ in which one they take.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;
use smallvec::SmallVec;

use super::super::{CallError, Part, Shape, Weigher, Weight};
use crate::governance::request::RequestKind;
use crate::governance::usage::ServiceTier;

/// Longer names of models exist nowhere; names reach logs and metrics.
const MODEL_BYTES_MAX: usize = 2_048;
/// What a text completion generates when the request names no cap.
const TEXT_COMPLETION_OUTPUT: u64 = 16;
/// What a picture costs about; sounds and documents are taken for the same.
const BLOB_TOKENS: u64 = 1_600;
/// What one picture can cost at most, with the models that multiply their tiles.
const BLOB_TOKENS_MAX: u64 = 50_000;
/// More answers to one question than any provider gives.
const ANSWERS_MAX: u64 = 4_096;
/// Framing of a message.
const MESSAGE_TOKENS: u64 = 4;
/// Framing of the answer to come.
const PRIMING_TOKENS: u64 = 3;
/// More framing than any template puts around one message, part or tool.
const FRAMING_TOKENS_MAX: u64 = 16;
/// A count given as a float is exact up to here.
const FLOAT_WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

/// The client's request, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
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
    model_at: Range<usize>,
    stream_options: Option<StreamOptions>,
    caps: SmallVec<[Cap; 2]>,
}

/// A member that caps the output of calls of this kind, by whatever name.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Cap {
    name: &'static str,
    at: Range<usize>,
    /// `None`: it is there, and null.
    tokens: Option<u64>,
}

/// What the upstream's body says otherwise than the client's.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rewrite<'a> {
    /// The upstream's name of the model.
    pub model: &'a str,
    /// A stream is made to end in its usage.
    pub ask_usage: bool,
    /// Every cap on the output is lowered to so many tokens; where there is none, one of this name is added.
    pub output_cap: Option<(&'static str, u64)>,
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

impl Call {
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

    /// The body for the upstream. Every byte that need not change stays; without a change no byte is copied.
    ///
    /// `body` must be the one this call was read from.
    pub fn rewrite(&self, body: &Bytes, wanted: Rewrite<'_>) -> Bytes {
        let mut edits: SmallVec<[Edit; 4]> = SmallVec::new();
        if wanted.model != self.model {
            let literal = serde_json::to_string(wanted.model).expect("a string always has a JSON form");
            edits.push((self.model_at.clone(), literal));
        }
        edits.extend(wanted.ask_usage.then(|| self.usage_edit(body)).flatten());
        if let Some((name, tokens)) = wanted.output_cap {
            self.lower(body, name, tokens, &mut edits);
        }
        edits.sort_by_key(|(at, _)| at.start);
        if edits.is_empty() {
            return body.clone();
        }
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

    /// Lowers every cap that is above `tokens`. Where none has a value, the one called `name` gets one.
    fn lower(&self, body: &[u8], name: &'static str, tokens: u64, edits: &mut SmallVec<[Edit; 4]>) {
        let above = |cap: &&Cap| cap.tokens.is_some_and(|own| own > tokens);
        edits.extend(self.caps.iter().filter(above).map(|cap| (cap.at.clone(), tokens.to_string())));
        if self.caps.iter().any(|cap| cap.tokens.is_some()) {
            return;
        }
        edits.push(match self.caps.iter().find(|cap| cap.name == name) {
            Some(null) => (null.at.clone(), tokens.to_string()),
            None => (inside(body), format!("\"{name}\":{tokens},")),
        });
    }

    /// What makes the stream tell its usage, if it does not anyway.
    fn usage_edit(&self, body: &[u8]) -> Option<Edit> {
        // The responses dialect always tells, and refuses the option.
        let asks = matches!(self.kind, RequestKind::ChatCompletion | RequestKind::TextCompletion);
        if !self.stream || self.include_usage || !asks {
            return None;
        }
        let Some(options) = &self.stream_options else {
            return Some((inside(body), r#""stream_options":{"include_usage":true},"#.to_owned()));
        };
        let inside = options.at.start + 1..options.at.start + 1;
        Some(match &options.shape {
            OptionsShape::Null => (options.at.clone(), r#"{"include_usage":true}"#.to_owned()),
            OptionsShape::Empty => (inside, r#""include_usage":true"#.to_owned()),
            OptionsShape::Others => (inside, r#""include_usage":true,"#.to_owned()),
            OptionsShape::Usage(value) => (value.clone(), "true".to_owned()),
        })
    }
}

/// What stands in a place of the body from now on.
type Edit = (Range<usize>, String);

/// The place before the first member. There is one: the model.
fn inside(body: &[u8]) -> Range<usize> {
    let brace = memchr::memchr(b'{', body).expect("an object was read from this body");
    brace + 1..brace + 1
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
    Other,
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

/// Some parsers take `Model` for `model`, also with the two letters that Unicode folds into ASCII; what
/// they would go by is then not what was checked.
fn is_other_case(name: &str) -> bool {
    let folded = |c: char| match c {
        'ſ' => 's',
        '\u{212a}' => 'k',
        c => c.to_ascii_lowercase(),
    };
    name.len() <= 64 && ONCE.iter().any(|once| name.chars().map(folded).eq(once.chars()))
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
                    name if is_other_case(name) => Field::OtherCase,
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
                let tokens = count(name, raw)?;
                if caps(self.kind).contains(&name) {
                    self.caps.push(Cap { name, at: span(self.body, raw.get()), tokens });
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

    /// Takes a member that is weighed.
    fn weigh<A: MapAccess<'b>>(&mut self, field: Field, map: &mut A) -> Result<(), A::Error> {
        if field == Field::Thinking {
            let raw: &RawValue = map.next_value()?;
            self.thinking = self.thinking.max(Thinking::tokens(raw));
            // Weighed as everything else, which bounds its depth.
            let mut json = serde_json::Deserializer::from_str(raw.get());
            let weighed = Weigher::new(&mut self.weight, Part::Aside).deserialize(&mut json);
            return weighed.map(drop).map_err(|error| {
                self.fault = Some(CallError::body(format!("the body is not JSON: {error}")));
                A::Error::custom("a member cannot be understood")
            });
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
        let cap = |name: &&str| self.caps.iter().find(|cap| cap.name == *name)?.tokens;
        let named = caps(self.kind).iter().find_map(cap);
        let output_cap = match self.kind {
            RequestKind::TextCompletion => named.or(Some(TEXT_COMPLETION_OUTPUT)),
            _ => named,
        };
        let choices = match self.kind {
            RequestKind::ChatCompletion => self.n,
            RequestKind::TextCompletion => self.n.saturating_mul(self.prompts),
            _ => 1,
        };
        Ok(Call {
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
            model_at,
            stream_options: self.stream_options,
            caps: self.caps,
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

/// What a request says about thinking, as far as it is a number of tokens: `thinking.budget_tokens` or
/// `reasoning.max_tokens`.
#[derive(serde::Deserialize)]
struct Thinking<'b> {
    #[serde(borrow)]
    budget_tokens: Option<&'b RawValue>,
    #[serde(borrow)]
    max_tokens: Option<&'b RawValue>,
}

impl Thinking<'_> {
    fn tokens(raw: &RawValue) -> u64 {
        // What is written otherwise is the provider's to judge.
        let Ok(thinking) = serde_json::from_str::<Thinking<'_>>(raw.get()) else { return 0 };
        let budgets = [thinking.budget_tokens, thinking.max_tokens].into_iter().flatten();
        budgets.filter_map(|budget| count("thinking", budget).ok().flatten()).max().unwrap_or(0)
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

/// Where a part borrowed from the body stands in it.
fn span(body: &str, part: &str) -> Range<usize> {
    let start = part.as_ptr().addr() - body.as_ptr().addr();
    start..start + part.len()
}

fn model(raw: &RawValue) -> Result<String, CallError> {
    let model: String = serde_json::from_str(raw.get()).map_err(|_| CallError::of("model", "must be a string"))?;
    match model.len() {
        0 => Err(CallError::of("model", "must not be empty")),
        _ if model.trim() != model || model.contains(char::is_control) => {
            Err(CallError::of("model", "must not begin or end with blanks, nor hold control characters"))
        }
        1..=MODEL_BYTES_MAX => Ok(model),
        _ => Err(CallError::of("model", "is too long")),
    }
}

fn flag(name: &str, raw: &RawValue) -> Result<Option<bool>, CallError> {
    match raw.get() {
        "true" => Ok(Some(true)),
        "false" => Ok(Some(false)),
        "null" => Ok(None),
        _ => Err(CallError::of(name, "must be true or false")),
    }
}

/// A whole number above zero; `12.0` is one.
fn count(name: &str, raw: &RawValue) -> Result<Option<u64>, CallError> {
    let text = raw.get();
    if text == "null" {
        return Ok(None);
    }
    let count = text.parse().ok().or_else(|| {
        // Rust reads more words as floats than JSON knows, but raw values are JSON.
        let float: f64 = text.parse().ok()?;
        (float.fract() == 0.0 && (0.0..=FLOAT_WHOLE_MAX).contains(&float)).then_some(float as u64)
    });
    match count {
        Some(count) if count > 0 => Ok(Some(count)),
        _ => Err(CallError::of(name, "must be a whole number above zero")),
    }
}

#[cfg(test)]
mod tests;
