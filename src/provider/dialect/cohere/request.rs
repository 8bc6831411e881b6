//! A request of this dialect: a chat, texts and pictures to embed, or documents to be put in order.

use smallvec::SmallVec;

use super::super::CallError;
use super::super::call::{Call, Cap, NewCap, Seams};
use super::super::members::{Form, Role, Tally, cap, flag, inside, model, read_body, span, thinking, weigh_aside};
use crate::governance::request::{Dialect, RequestKind};
use crate::governance::usage::ServiceTier;

const FORM: Form = Form {
    dialect: Dialect::Cohere,
    once: &[&["model"], &["stream"], &["max_tokens"], &["thinking"]],
    role: |name| match name {
        "messages" => Role::Messages,
        "texts" | "inputs" | "query" => Role::Content,
        // Each is a picture in itself.
        "images" => Role::Content,
        "documents" | "response_format" => Role::Schema,
        "tools" => Role::Tools,
        _ => Role::Aside,
    },
};

/// Understands a body, or says what is wrong with it.
pub fn read(kind: RequestKind, body: &[u8]) -> Result<Call, CallError> {
    let text = std::str::from_utf8(body).unwrap_or_default();
    let (mut named, mut stream, mut budget) = (None, false, 0);
    let (mut caps, mut tally) = (SmallVec::<[Cap; 2]>::new(), Tally::default());
    read_body(body, &FORM, &mut tally, &mut |name, raw, tally| {
        match name {
            "model" => named = Some((model(raw)?, span(text, raw.get()))),
            "stream" => stream = flag(name, raw)?.unwrap_or(false),
            "max_tokens" => caps.push(cap(text, "max_tokens", raw)?),
            _ => {
                budget = thinking(raw);
                weigh_aside(Dialect::Cohere, raw, tally)?;
            }
        }
        Ok(())
    })?;
    let Some((model, model_at)) = named else { return Err(CallError::of("model", "is required")) };
    // A cap elsewhere is on the input: what of each document is read.
    let chats = kind == RequestKind::ChatCompletion;
    let caps = if chats { caps } else { SmallVec::new() };
    let cap_new = chats.then(|| NewCap::Between { at: inside(text), before: r#""max_tokens":"#, after: "," });
    Ok(Call {
        dialect: Dialect::Cohere,
        format: Dialect::Cohere,
        kind,
        model,
        stream: stream && chats,
        output_cap: Cap::first(&caps),
        choices: 1,
        thinking: budget,
        include_usage: true,
        refers_to_state: tally.refers_to_state,
        tier: ServiceTier::Standard,
        weight: tally.weight,
        media: None,
        seams: Seams { model_at: SmallVec::from_buf([model_at]), caps, cap_new, ..Seams::default() },
    })
}
