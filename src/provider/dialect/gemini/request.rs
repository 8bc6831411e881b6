//! A request of this dialect. The path names the model and says whether to stream; members may be written in
//! two spellings, since both are taken.

use std::ops::Range;

use serde_json::value::RawValue;
use smallvec::SmallVec;

use super::super::call::{Call, Cap, NewCap, Seams};
use super::super::members::{
    Form, Role, Tally, cap_or_zero, checked_model, count, empty_object, inside, read_body, read_object, span, thinking,
    weigh_aside,
};
use super::super::{CallError, Route};
use crate::governance::request::{Dialect, RequestKind};
use crate::governance::usage::ServiceTier;

/// More answers to one question than the provider gives.
const ANSWERS_MAX: u64 = 256;
/// What stands before the name of a model in a body.
const PREFIX: &str = "models/";

const FORM: Form = Form {
    dialect: Dialect::Gemini,
    once: &[&["model"], &["generationConfig", "generation_config"], &["serviceTier", "service_tier"], &["requests"]],
    role: |name| match name {
        "contents" => Role::Messages,
        "content" | "systemInstruction" | "system_instruction" | "title" => Role::Content,
        "tools" => Role::Tools,
        "cachedContent" | "cached_content" => Role::State,
        _ => Role::Aside,
    },
};

const CONFIG: Form = Form {
    dialect: Dialect::Gemini,
    once: &[
        &["maxOutputTokens", "max_output_tokens"],
        &["candidateCount", "candidate_count"],
        &["thinkingConfig", "thinking_config"],
    ],
    role: |name| match name {
        "responseSchema"
        | "response_schema"
        | "responseJsonSchema"
        | "response_json_schema"
        | "_responseJsonSchema" => Role::Schema,
        _ => Role::Aside,
    },
};

/// One of several texts to embed.
const PART: Form = Form { once: &[&["model"]], ..FORM };

/// Understands a body, or says what is wrong with it.
pub fn read(route: &Route, body: &[u8]) -> Result<Call, CallError> {
    let model = checked_model(route.model.clone().unwrap_or_default())?;
    let text = std::str::from_utf8(body).unwrap_or_default();
    let mut draft =
        Draft { text, model: &model, model_at: SmallVec::new(), config: None, caps: None, choices: 1, thinking: 0 };
    let (mut tier, mut tally) = (ServiceTier::Standard, Tally::default());
    read_body(body, &FORM, &mut tally, &mut |name, raw, tally| {
        match name {
            "model" => draft.names(raw)?,
            "generationConfig" => draft.config(raw, tally)?,
            "requests" => draft.requests(raw, tally)?,
            _ => {
                let word: Option<String> =
                    serde_json::from_str(raw.get()).map_err(|_| CallError::of(name, "must be a string"))?;
                tier = word.map_or(tier, |word| ServiceTier::from_word(&word.to_ascii_lowercase()));
            }
        }
        Ok(())
    })?;
    let Draft { model_at, config, caps, choices, thinking, .. } = draft;
    let generates = route.kind == RequestKind::ChatCompletion;
    let caps: SmallVec<[Cap; 2]> = caps.into_iter().collect();
    Ok(Call {
        dialect: Dialect::Gemini,
        format: Dialect::Gemini,
        kind: route.kind,
        stream: route.stream.unwrap_or(false),
        output_cap: if generates { Cap::first(&caps) } else { None },
        choices: if generates { choices } else { 1 },
        thinking,
        include_usage: true,
        refers_to_state: tally.refers_to_state,
        tier,
        weight: tally.weight,
        media: None,
        seams: Seams {
            is_form: false,
            model_at,
            model_prefix: PREFIX,
            caps: if generates { caps } else { SmallVec::new() },
            cap_new: generates.then(|| config.unwrap_or_else(|| absent(text))),
            usage: None,
        },
        model,
    })
}

struct Draft<'b> {
    text: &'b str,
    model: &'b str,
    model_at: SmallVec<[Range<usize>; 1]>,
    config: Option<NewCap>,
    caps: Option<Cap>,
    choices: u64,
    thinking: u64,
}

impl<'b> Draft<'b> {
    /// A body may name the model once more, and then it must be the same.
    fn names(&mut self, raw: &'b RawValue) -> Result<(), CallError> {
        let named: String = serde_json::from_str(raw.get()).map_err(|_| CallError::of("model", "must be a string"))?;
        if named.strip_prefix(PREFIX).unwrap_or(&named) != self.model {
            return Err(CallError::of("model", "must be the model that the path names"));
        }
        self.model_at.push(span(self.text, raw.get()));
        Ok(())
    }

    fn config(&mut self, raw: &'b RawValue, tally: &mut Tally) -> Result<(), CallError> {
        const BEFORE: &str = r#""maxOutputTokens":"#;
        let at = span(self.text, raw.get());
        if raw.get() == "null" {
            self.config = Some(NewCap::Between { at, before: r#"{"maxOutputTokens":"#, after: "}" });
            return Ok(());
        }
        read_object(Some("generationConfig"), raw.get(), &CONFIG, tally, &mut |name, raw, tally| {
            match name {
                "thinkingConfig" => {
                    self.thinking = thinking(raw);
                    weigh_aside(Dialect::Gemini, raw, tally)?;
                }
                "maxOutputTokens" => self.caps = Some(nonzero(cap_or_zero(self.text, name, raw)?)),
                _ => {
                    self.choices = count(name, raw)?.unwrap_or(1);
                    if self.choices > ANSWERS_MAX {
                        return Err(CallError::of(name, "asks for more answers than the provider gives"));
                    }
                }
            }
            Ok(())
        })?;
        let after = if empty_object(raw.get()) { "" } else { "," };
        self.config = Some(NewCap::Between { at: at.start + 1..at.start + 1, before: BEFORE, after });
        Ok(())
    }

    fn requests(&mut self, raw: &'b RawValue, tally: &mut Tally) -> Result<(), CallError> {
        let parts: Vec<&'b RawValue> =
            serde_json::from_str(raw.get()).map_err(|_| CallError::of("requests", "must be an array"))?;
        for part in parts {
            read_object(Some("requests"), part.get(), &PART, tally, &mut |_, raw, _| self.names(raw))?;
        }
        Ok(())
    }
}

/// Zero is what a cap is that was not set.
fn nonzero(cap: Cap) -> Cap {
    Cap { tokens: cap.tokens.filter(|tokens| *tokens > 0), ..cap }
}

/// The cap of a body that configures nothing.
fn absent(text: &str) -> NewCap {
    let after = if empty_object(text) { "}" } else { "}," };
    NewCap::Between { at: inside(text), before: r#""generationConfig":{"maxOutputTokens":"#, after }
}
