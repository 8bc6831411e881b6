//! A request of this dialect: messages, or a count of what they would come to.

use std::ops::Range;

use smallvec::SmallVec;

use super::super::call::{Call, Cap, NewCap, Seams};
use super::super::members::{
    Form, Role, Tally, cap_or_zero, flag, inside, model, read_body, span, thinking, weigh_aside,
};
use super::super::{CallError, Route};
use crate::governance::request::{Dialect, RequestKind};
use crate::governance::usage::ServiceTier;

const FORM: Form = Form {
    dialect: Dialect::Anthropic,
    once: &[
        &["model"],
        &["stream"],
        &["max_tokens"],
        &["service_tier"],
        &["speed"],
        &["anthropic_version"],
        &["thinking"],
    ],
    role: |name| match name {
        "messages" => Role::Messages,
        "system" => Role::Content,
        "tools" => Role::Tools,
        "output_config" | "output_format" => Role::Schema,
        // Files and results of a container's earlier runs.
        "container" => Role::State,
        "mcp_servers" => Role::Unseen,
        _ => Role::Aside,
    },
};

/// Understands a body, or says what is wrong with it.
pub fn read(kind: RequestKind, body: &[u8]) -> Result<Call, CallError> {
    let draft = Draft::read(body)?;
    let counts = kind == RequestKind::CountTokens;
    let stream = draft.stream && !counts;
    let Some((model, model_at)) = draft.named.clone() else { return Err(CallError::of("model", "is required")) };
    let mut call = draft.finish((Dialect::Anthropic, kind), model, stream);
    call.seams.model_at.push(model_at);
    if counts {
        (call.output_cap, call.seams.cap_new) = (Some(0), None);
    }
    Ok(call)
}

/// Understands a body that came through a cloud whose path names the model and says whether to stream.
pub fn read_invoked(route: &Route, model: String, body: &[u8]) -> Result<Call, CallError> {
    let draft = Draft::read(body)?;
    if draft.named.is_some() || draft.stream {
        let field = if draft.stream { "stream" } else { "model" };
        return Err(CallError::of(field, "is said by the path, not by the body"));
    }
    if !draft.versioned {
        let what = "is missing: only Claude is invoked here, other models are served by converse";
        return Err(CallError::of("anthropic_version", what));
    }
    Ok(draft.finish((route.dialect, route.kind), model, route.stream.unwrap_or(false)))
}

struct Draft<'b> {
    text: &'b str,
    named: Option<(String, Range<usize>)>,
    stream: bool,
    versioned: bool,
    cap: Option<Cap>,
    thinking: u64,
    tier: ServiceTier,
    tally: Tally,
}

impl<'b> Draft<'b> {
    fn read(body: &'b [u8]) -> Result<Draft<'b>, CallError> {
        let text = std::str::from_utf8(body).unwrap_or_default();
        let (mut named, mut stream, mut versioned, mut cap) = (None, false, false, None);
        let (mut tier, mut fast, mut tally) = (ServiceTier::Standard, false, Tally::default());
        let word = |name: &str, raw: &str| {
            serde_json::from_str::<Option<String>>(raw).map_err(|_| CallError::of(name, "must be a string"))
        };
        let mut budget = 0;
        read_body(body, &FORM, &mut tally, &mut |name, raw, tally| {
            match name {
                "model" => named = Some((model(raw)?, span(text, raw.get()))),
                "stream" => stream = flag(name, raw)?.unwrap_or(false),
                // Zero only fills the cache.
                "max_tokens" => cap = Some(cap_or_zero(text, name, raw)?),
                "service_tier" => tier = word(name, raw.get())?.map_or(tier, |word| ServiceTier::from_word(&word)),
                "thinking" => {
                    budget = thinking(raw);
                    weigh_aside(Dialect::Anthropic, raw, tally)?;
                }
                "anthropic_version" => versioned = word(name, raw.get())?.is_some(),
                _ => fast = word(name, raw.get())?.is_some_and(|word| word == "fast"),
            }
            Ok(())
        })?;
        let tier = if fast { ServiceTier::Priority } else { tier };
        Ok(Draft { text, named, stream, versioned, cap, thinking: budget, tier, tally })
    }

    fn finish(self, (dialect, kind): (Dialect, RequestKind), model: String, stream: bool) -> Call {
        let caps: SmallVec<[Cap; 2]> = self.cap.into_iter().collect();
        let cap_new = NewCap::Between { at: inside(self.text), before: r#""max_tokens":"#, after: "," };
        Call {
            dialect,
            format: Dialect::Anthropic,
            kind,
            model,
            stream,
            output_cap: Cap::first(&caps),
            choices: 1,
            thinking: self.thinking,
            include_usage: true,
            refers_to_state: self.tally.refers_to_state,
            tier: self.tier,
            weight: self.tally.weight,
            media: None,
            seams: Seams { caps, cap_new: Some(cap_new), ..Seams::default() },
        }
    }
}
