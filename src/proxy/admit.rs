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
        team: caller.and_then(Caller::team_id),
        customer: caller.and_then(Caller::customer_id),
        provider: Arc::clone(&target.provider.name),
        model: target.model.as_str().into(),
        kind: call.kind,
        admitted_at: now,
    };
    let spend = spend(price.as_deref(), &usage);
    let hold = state.admit(snapshot, Ask { caller, config: target.config, usage, spend, tag })?;
    Ok(Admitted { hold, price })
}

/// What usage comes to.
pub(super) fn spend(price: Option<&Price>, usage: &Usage) -> Spend {
    let tokens = i64::try_from(usage.total()).unwrap_or(SPEND_MAX).min(SPEND_MAX);
    let cost = price.map(|price| price.cost(usage)).unwrap_or_default();
    Spend { cost: cost.min(Nanos::new(SPEND_MAX)), tokens }
}

/// What the call will probably use: its text, and what the model usually writes, at most its cap.
fn expected(state: &State, call: &Call, target: &Target, price: Option<&Price>) -> Usage {
    if call.kind == RequestKind::Embedding {
        // The model's window holds for each text of a batch, not for all of them.
        return Usage::estimated(call.input_estimate(), 0);
    }
    let window = price.and_then(|price| price.input_tokens_max).unwrap_or(u64::MAX);
    let input = call.input_estimate().min(window);
    let output = state.expectations.output(&target.provider.name, &target.model, call.output_cap);
    Usage::estimated(input, output.saturating_mul(call.choices.max(1)))
}
