//! Holding: what an attempt is expected to cost, set aside at every limit before a byte is sent.

use crate::governance::money::Nanos;
use crate::governance::pricing::Price;
use crate::governance::refusal::Refusal;
use crate::governance::request::RequestKind;
use crate::governance::route::{self, Target};
use crate::governance::time::Timestamp;
use crate::governance::usage::Usage;
use crate::governance::view::Caller;
use crate::provider::Call;
use crate::state::hold::{Hold, Spend};
use crate::state::outbox::CallTag;
use crate::state::{Ask, Snapshot, State};
use std::sync::Arc;

/// No attempt holds or spends more than this many nanos (72 million dollars) or tokens, whatever a body or a
/// provider says; so sums stay far from where they would saturate.
const SPEND_MAX: i64 = 1 << 56;

/// What a model whose own bounds nobody told takes or writes at most.
const TOKENS_UNKNOWN_MAX: u64 = 2 << 20;

/// An admitted attempt: the hold, and the price that it was made and will be settled by.
pub(super) struct Admitted {
    pub(super) hold: Hold,
    /// Absent: the model has no price and costs nothing here.
    pub(super) price: Option<Arc<Price>>,
}

/// Holds for one target, or says which limit stands in the way.
pub(super) fn admit(
    state: &State,
    snapshot: &Snapshot,
    caller: Option<&Caller>,
    call: &Call,
    target: &Target,
    now: Timestamp,
) -> Result<Admitted, Refusal> {
    let price = route::price(&snapshot.view, caller, target, call.kind)?;
    let usage = expected(state, call, target, price.as_deref());
    let tag = CallTag {
        virtual_key: caller.map(|caller| Arc::clone(&caller.key.id)),
        provider: Arc::clone(&target.provider.name),
        model: target.model.as_str().into(),
        kind: call.kind,
        admitted_at: now,
    };
    let spend = spend(price.as_deref(), &usage);
    let bound = if is_free(call.kind) { (usage, spend) } else { bound(call, price.as_deref(), &usage) };
    let (config, upstream_model) = (target.config, &*target.upstream_model);
    let hold = state.admit(snapshot, Ask { caller, config, upstream_model, usage, spend, bound, tag })?;
    Ok(Admitted { hold, price })
}

/// What usage comes to.
pub(super) fn spend(price: Option<&Price>, usage: &Usage) -> Spend {
    let tokens = i64::try_from(usage.total()).unwrap_or(SPEND_MAX).min(SPEND_MAX);
    let cost = price.map(|price| price.cost(usage)).unwrap_or_default();
    Spend { cost: cost.min(Nanos::new(SPEND_MAX)), tokens }
}

/// What the call can use and cost at the very most: its bytes or the model's window, its cap or what the
/// model can write, all at the dearest rate. Charged only if the process dies before it knows better.
fn bound(call: &Call, price: Option<&Price>, expected: &Usage) -> (Usage, Spend) {
    let window = price.and_then(|price| price.input_tokens_max);
    let whole = window.unwrap_or(TOKENS_UNKNOWN_MAX);
    let input = match call.kind {
        // The model's window holds for each text of a batch, not for all of them.
        RequestKind::Embedding => call.input_bound().unwrap_or(whole),
        _ => call.input_bound().map_or(whole, |bound| bound.min(window.unwrap_or(u64::MAX))),
    };
    let output = match call.kind {
        RequestKind::Embedding => 0,
        _ => {
            let most = price.and_then(|price| price.output_tokens_max);
            let each = [call.output_cap, most].into_iter().flatten().min().unwrap_or(whole);
            each.saturating_mul(call.choices.max(1))
        }
    };
    let usage = Usage::estimated(input.max(expected.input), output.max(expected.output));
    let Spend { tokens, .. } = spend(None, &usage);
    let cost = price.map(|price| price.cost_bound(usage.input, usage.output)).unwrap_or_default();
    (usage, Spend { cost: cost.min(Nanos::new(SPEND_MAX)), tokens })
}

/// What no provider charges for.
fn is_free(kind: RequestKind) -> bool {
    kind == RequestKind::CountTokens
}

/// What the call will probably use: its text, and what the model usually writes, at most its cap.
fn expected(state: &State, call: &Call, target: &Target, price: Option<&Price>) -> Usage {
    if is_free(call.kind) {
        return Usage::estimated(0, 0);
    }
    if call.kind == RequestKind::Embedding {
        // The model's window holds for each text of a batch, not for all of them.
        return Usage::estimated(call.input_estimate(), 0);
    }
    let window = price.and_then(|price| price.input_tokens_max).unwrap_or(u64::MAX);
    let input = call.input_estimate().min(window);
    let output = state.expectations.output(&target.provider.name, &target.model, call.output_cap);
    Usage::estimated(input, output.saturating_mul(call.choices.max(1)))
}
