//! A request of this dialect. The path names the model and says whether to stream.

use smallvec::SmallVec;

use super::super::call::{Call, Cap, NewCap, Seams};
use super::super::members::{
    Form, Role, Tally, cap, checked_model, empty_object, inside, read_body, read_object, span,
};
use super::super::{CallError, Route, anthropic};
use crate::governance::request::{Dialect, RequestKind};
use crate::governance::usage::ServiceTier;

const FORM: Form = Form {
    dialect: Dialect::Bedrock,
    once: &[&["inferenceConfig"], &["toolConfig"], &["additionalModelRequestFields"], &["serviceTier"]],
    role: |name| match name {
        "messages" => Role::Messages,
        // The second is what is to be counted.
        "system" | "input" => Role::Content,
        "outputConfig" => Role::Schema,
        // What a stored prompt is filled with.
        "promptVariables" => Role::State,
        _ => Role::Aside,
    },
};

const INFERENCE: Form = Form { dialect: Dialect::Bedrock, once: &[&["maxTokens"]], role: |_| Role::Aside };

const TOOLS: Form =
    Form { dialect: Dialect::Bedrock, once: &[], role: |name| if name == "tools" { Role::Tools } else { Role::Aside } };

/// The models' own names for a cap, which would hold in place of the one that is read.
const OTHERS: Form = Form {
    dialect: Dialect::Bedrock,
    once: &[&["max_tokens"], &["max_new_tokens"], &["max_gen_len"], &["maxTokenCount"], &["maxTokens"]],
    role: |_| Role::Schema,
};

const TIER: Form = Form { dialect: Dialect::Bedrock, once: &[&["type"]], role: |_| Role::Aside };

/// Understands a body, or says what is wrong with it.
pub fn read(route: &Route, body: &[u8]) -> Result<Call, CallError> {
    let model = checked_model(route.model.clone().unwrap_or_default())?;
    if route.verb.starts_with("invoke") {
        return anthropic::read_invoked(route, model, body);
    }
    let text = std::str::from_utf8(body).unwrap_or_default();
    let generates = route.kind == RequestKind::ChatCompletion;
    let (mut caps, mut cap_new) = (SmallVec::<[Cap; 2]>::new(), None);
    let (mut tier, mut tally) = (ServiceTier::Standard, Tally::default());
    read_body(body, &FORM, &mut tally, &mut |name, raw, tally| {
        let at = span(text, raw.get());
        match (name, raw.get()) {
            ("inferenceConfig", "null") => {
                cap_new = Some(NewCap::Between { at, before: r#"{"maxTokens":"#, after: "}" });
            }
            (_, "null") => {}
            ("inferenceConfig", inner) => {
                read_object(Some(name), inner, &INFERENCE, tally, &mut |name, raw, _| {
                    caps.push(cap(text, name, raw)?);
                    Ok(())
                })?;
                let after = if empty_object(inner) { "" } else { "," };
                cap_new = Some(NewCap::Between { at: at.start + 1..at.start + 1, before: r#""maxTokens":"#, after });
            }
            ("toolConfig", inner) => read_object(Some(name), inner, &TOOLS, tally, &mut |_, _, _| Ok(()))?,
            ("additionalModelRequestFields", inner) => {
                read_object(Some(name), inner, &OTHERS, tally, &mut |name, _, _| {
                    Err(CallError::of(name, "is not taken here: inferenceConfig.maxTokens caps the output"))
                })?;
            }
            (_, inner) => read_object(Some(name), inner, &TIER, tally, &mut |_, raw, _| {
                let word: Option<String> =
                    serde_json::from_str(raw.get()).map_err(|_| CallError::of(name, "must name a type"))?;
                tier = word.map_or(tier, |word| ServiceTier::from_word(&word));
                Ok(())
            })?,
        }
        Ok(())
    })?;
    let absent = || {
        let after = if empty_object(text) { "}" } else { "}," };
        NewCap::Between { at: inside(text), before: r#""inferenceConfig":{"maxTokens":"#, after }
    };
    // A stored prompt is called like a model.
    let stored = model.starts_with("arn:") && model.contains(":prompt/");
    Ok(Call {
        dialect: Dialect::Bedrock,
        format: Dialect::Bedrock,
        kind: route.kind,
        stream: route.stream.unwrap_or(false),
        output_cap: Cap::first(&caps),
        choices: 1,
        // Said in the model's own words, if at all.
        thinking: 0,
        include_usage: true,
        refers_to_state: tally.refers_to_state || stored,
        tier,
        weight: tally.weight,
        media: None,
        seams: Seams { caps, cap_new: generates.then(|| cap_new.unwrap_or_else(absent)), ..Seams::default() },
        model,
    })
}
