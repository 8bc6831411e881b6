//! A request of this dialect: messages, or a count of what they would come to.

use smallvec::SmallVec;

use super::super::CallError;
use super::super::call::{Call, NewCap, Seams};
use super::super::members::{Cap, Form, Role, Tally, flag, inside, model, read_body, span};
use crate::governance::request::{Dialect, RequestKind};
use crate::governance::usage::ServiceTier;

const FORM: Form = Form {
    dialect: Dialect::Anthropic,
    once: &[&["model"], &["stream"], &["max_tokens"], &["service_tier"], &["speed"]],
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
    let text = std::str::from_utf8(body).unwrap_or_default();
    let (mut named, mut stream, mut cap, mut tier, mut fast) = (None, false, None, ServiceTier::Standard, false);
    let mut tally = Tally::default();
    let word = |name: &str, raw: &str| {
        serde_json::from_str::<Option<String>>(raw).map_err(|_| CallError::of(name, "must be a string"))
    };
    read_body(body, &FORM, &mut tally, &mut |name, raw, _| {
        match name {
            "model" => named = Some((model(raw)?, span(text, raw.get()))),
            "stream" => stream = flag(name, raw)?.unwrap_or(false),
            // Zero only fills the cache.
            "max_tokens" => cap = Some(Cap::read_or_zero(text, name, raw)?),
            "service_tier" => tier = word(name, raw.get())?.map_or(tier, |word| ServiceTier::from_word(&word)),
            _ => fast = word(name, raw.get())?.is_some_and(|word| word == "fast"),
        }
        Ok(())
    })?;
    let Some((model, model_at)) = named else { return Err(CallError::of("model", "is required")) };
    let (output_cap, cap_at) = Cap::join([cap]);
    let counts = kind == RequestKind::CountTokens;
    Ok(Call {
        dialect: Dialect::Anthropic,
        kind,
        model,
        stream: stream && !counts,
        output_cap: if counts { Some(0) } else { output_cap },
        choices: 1,
        include_usage: true,
        refers_to_state: tally.refers_to_state,
        tier: if fast { ServiceTier::Priority } else { tier },
        weight: tally.weight,
        seams: Seams {
            model_at: SmallVec::from_buf([model_at]),
            cap_at,
            cap_new: (!counts).then_some(NewCap { at: inside(text), before: r#""max_tokens":"#, after: "," }),
            ..Seams::default()
        },
    })
}
