//! From what a client asks for to an ordered list of targets: rules, then weights, then fallbacks.
//!
//! One function decides, for real requests and for dry runs. What a rule chooses passes the same checks as what
//! a client names, so that rules never widen what a key may use.

mod body;
mod draw;
mod facts;
mod rules;
mod target;
#[cfg(test)]
mod tests;
mod trace;

use super::cel::Fault;
use super::entity::{Provider, RoutingRule};
use super::judge::Tally;
use super::refusal::Refusal;
use super::time::Timestamp;
use super::view::{Caller, Limit, View};
use http::HeaderMap;
use std::sync::Arc;
use target::{Pin, Wanted, wanted};

pub use body::MEMBER_BYTES_MAX;
pub use draw::{Draw, SESSION_HEADERS};
pub use rules::Tried;
pub use target::{Asked, Target, models, price};
pub use trace::{PassedOver, Trace, TriedRule};

/// More fallbacks than anybody waits for.
pub const FALLBACKS_MAX: usize = 16;
/// No request has more targets: a target is one key of one provider.
const TARGETS_MAX: usize = 64;

/// A request, as far as it decides where it goes.
pub struct Question<'a> {
    pub view: &'a View,
    pub caller: Option<&'a Caller>,
    pub asked: Asked,
    /// As the client named it.
    pub model: &'a str,
    /// About how many tokens the input has.
    pub input_tokens: u64,
    pub headers: &'a HeaderMap,
    /// Of the URL, without its question mark.
    pub query: &'a str,
    pub body: &'a [u8],
    /// The client's own. Absent: it said nothing about them.
    pub fallbacks: Option<&'a [String]>,
    pub now: Timestamp,
    pub live: &'a dyn Live,
}

/// How things stand while a request is decided.
pub trait Live {
    fn tally(&self, limit: &Limit) -> Tally;

    /// From 0, where nothing is sent to the provider, to 1, where all goes well.
    fn health(&self, _provider: &Provider) -> f64 {
        1.0
    }
}

/// Where a request goes, and why.
pub struct Decision {
    /// The rule that matched, the last one of a chain.
    pub rule: Option<Arc<RoutingRule>>,
    /// Rules that could not be evaluated.
    pub faults: Vec<RuleFault>,
    /// How many of the client's fallbacks are none, or too many.
    pub fallbacks_ignored: usize,
    /// In the order in which they are tried; never empty.
    pub targets: Result<Vec<Target>, Refusal>,
}

/// What a rule failed with.
#[derive(Debug, Clone)]
pub struct RuleFault {
    pub rule: Arc<RoutingRule>,
    pub fault: Fault,
}

/// Decides. What chance there is comes from `draw`.
pub fn decide(question: &Question<'_>, draw: &mut Draw, mut trace: Option<&mut Trace>) -> Decision {
    let Question { view, .. } = *question;
    if matches!(wanted(view, question.model), Wanted::Named { model: "", .. } | Wanted::Bare("")) {
        let refusal = Refusal::InvalidRequest { field: Some("model".into()), message: "model is empty".into() };
        return Decision { rule: None, faults: Vec::new(), fallbacks_ignored: 0, targets: Err(refusal) };
    }
    let routed = rules::follow(question, draw, trace.as_deref_mut());
    let pin = routed.key_id.map(Pin::Id).or_else(|| Pin::of(question.headers));
    let asked = &target::Asking { question, pin };
    let first = match routed.provider {
        Some(provider) => target::named(asked, draw, provider, routed.model).map(|targets| vec![targets]),
        None => target::bare(asked, draw, routed.model, trace.as_deref_mut()),
    };
    let mut ignored = 0;
    let mut choices = Vec::new();
    let mut refusal = None;
    // Whatever a client or a rule says about fallbacks, an empty list included, is said instead of the weights.
    let said = routed.fallbacks.or(question.fallbacks);
    match first {
        Ok(first) => choices.extend(first.into_iter().take(if said.is_some() { 1 } else { usize::MAX })),
        Err(no) => refusal = Some(no),
    }
    if refusal.as_ref().is_none_or(leaves_fallbacks) {
        let asked = &target::Asking { question, pin: None };
        let (_, incoming) = match wanted(view, question.model) {
            Wanted::Named { provider, model } => (Some(provider), model),
            Wanted::Bare(model) => (None, model),
        };
        for (n, entry) in said.unwrap_or_default().iter().enumerate() {
            let Some((provider, model)) = target::fallback(view, entry, incoming).filter(|_| n < FALLBACKS_MAX) else {
                ignored += 1;
                if let Some(trace) = &mut trace {
                    trace.pass_over(
                        "",
                        entry,
                        "this fallback names no provider that is known here, or is one too many",
                    );
                }
                continue;
            };
            match target::named(asked, draw, provider, model) {
                Ok(targets) => choices.push(targets),
                Err(no) => {
                    if let Some(trace) = &mut trace {
                        trace.pass_over(provider, model, no);
                    }
                }
            }
        }
    }
    if let (Some(no), Some(provider), Some(trace)) = (&refusal, routed.provider, &mut trace) {
        trace.pass_over(provider, routed.model, no);
    }
    let targets: Vec<Target> = choices
        .into_iter()
        .enumerate()
        .flat_map(|(choice, targets)| targets.into_iter().map(move |target| Target { choice, ..target }))
        .take(TARGETS_MAX)
        .collect();
    Decision {
        rule: routed.rule.cloned(),
        faults: routed.faults,
        fallbacks_ignored: ignored,
        targets: match refusal {
            Some(refusal) if targets.is_empty() => Err(refusal),
            _ => Ok(targets),
        },
    }
}

/// Whether a fallback could do what is refused here.
fn leaves_fallbacks(refusal: &Refusal) -> bool {
    !matches!(refusal, Refusal::InvalidRequest { .. } | Refusal::ModelUnresolved { .. })
}
