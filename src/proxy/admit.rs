//! Holding: what an attempt is expected to cost, set aside at every limit before a byte is sent.

use crate::governance::charge;
use crate::governance::judge::Admission;
use crate::governance::money::Nanos;
use crate::governance::pricing::Price;
use crate::governance::refusal::Refusal;
use crate::governance::request::RequestKind;
use crate::governance::route::{self, Target};
use crate::governance::time::Timestamp;
use crate::governance::usage::{Source, Usage};
use crate::governance::view::Caller;
use crate::provider::Call;
use crate::state::expectation::OUTPUT_UNKNOWN;
use crate::state::hold::{Hold, Spend};
use crate::state::outbox::CallTag;
use crate::state::{Ask, Room, Snapshot, State};
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
    /// Whether the provider is believed when it says what the call cost.
    pub(super) believed: bool,
    /// What it will probably use.
    pub(super) expected: Usage,
    /// What it can come to at the very most, if the provider keeps to what it is asked for.
    pub(super) bound: (Usage, Spend),
    pub(super) admission: Admission,
    /// What each answer has to be capped at, where the call itself allows more.
    pub(super) lowered: Option<u64>,
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
    let policy = &snapshot.view.policy;
    let admission = policy.admission;
    let price = route::price(&snapshot.view, caller, target, call.kind)?;
    let bound = Bound::of(call, price.as_deref(), policy.output_min);
    let expected = bound.within_reason(expected(state, call, target, price.as_deref()));
    let most = bound.most();
    // No call may be able to cost more than this, whatever is left.
    let cap = Room { money: policy.request_cost_max.map_or(i64::MAX, Nanos::get), ..Room::UNBOUNDED };
    let (usage, held) = match admission {
        Admission::Remaining => (expected, spend(price.as_deref(), call.kind, &expected)),
        Admission::NeverExceed if cap.takes(most.1) => most,
        Admission::NeverExceed => bound.within(cap),
    };
    // What is asked of the provider can come to this.
    let reach = if admission == Admission::Remaining { most } else { (usage, held) };
    if let Some(max) = policy.request_cost_max.filter(|_| !cap.takes(reach.1)) {
        return Err(too_costly(&bound, max));
    }
    let tag = CallTag {
        virtual_key: caller.map(|caller| Arc::clone(&caller.key.id)),
        team: caller.and_then(Caller::team_id),
        customer: caller.and_then(Caller::customer_id),
        provider: Arc::clone(&target.provider.name),
        model: target.model.as_str().into(),
        kind: call.kind,
        admitted_at: now,
        price: price.clone(),
    };
    let (config, upstream_model) = (target.config, &*target.upstream_model);
    let ask = Ask { caller, config, upstream_model, usage, spend: held, bound: reach, tag };
    let hold =
        state.admit_less(snapshot, ask, |room| bound.within(Room { money: room.money.min(cap.money), ..room }))?;
    let (usage, held) = hold.estimate();
    let believed = target.provider.reports_cost(target.key.as_deref());
    Ok(match admission {
        Admission::Remaining => Admitted { hold, price, believed, expected, bound: most, admission, lowered: None },
        Admission::NeverExceed => Admitted {
            lowered: (usage.output < most.0.output).then(|| bound.of_each(usage.output)),
            bound: (usage, held),
            expected: Usage { output: expected.output.min(usage.output), ..expected },
            hold,
            price,
            believed,
            admission,
        },
    })
}

fn too_costly(bound: &Bound<'_>, max: Nanos) -> Refusal {
    let (usage, spend) = bound.within(Room { money: max.get(), ..Room::UNBOUNDED });
    let fits = spend.cost <= max && usage.output > 0;
    Refusal::TooCostly { cost: bound.most().1.cost, max, output_fits: fits.then(|| bound.of_each(usage.output)) }
}

/// What usage comes to.
pub(super) fn spend(price: Option<&Price>, kind: RequestKind, usage: &Usage) -> Spend {
    let tokens = i64::try_from(usage.total()).unwrap_or(SPEND_MAX).min(SPEND_MAX);
    let cost = charge::cost(price, kind, usage);
    Spend { cost: cost.min(Nanos::new(SPEND_MAX)), tokens }
}

/// The most that a call can come to: its bytes or the model's window, its cap or what the model can write, all
/// at the dearest rate. Its output can be lowered; its input is what it is.
struct Bound<'a> {
    kind: RequestKind,
    price: Option<&'a Price>,
    input: u64,
    choices: u64,
    /// Tokens of each answer: what the call allows, and the most and the least that it can be lowered to.
    allowed: u64,
    lowered_max: u64,
    lowered_min: u64,
    /// What there is beside tokens.
    units: Usage,
}

impl<'a> Bound<'a> {
    /// `least` tokens are worth asking for; what the call thinks before it writes comes on top.
    fn of(call: &Call, price: Option<&'a Price>, least: u64) -> Bound<'a> {
        if is_free(call.kind) {
            return Bound {
                kind: call.kind,
                price,
                input: 0,
                choices: 1,
                allowed: 0,
                lowered_max: 0,
                lowered_min: 0,
                units: Usage::default(),
            };
        }
        let window = price.and_then(|price| price.input_tokens_max);
        let whole = window.unwrap_or(TOKENS_UNKNOWN_MAX);
        let input = match call.kind {
            // The model's window holds for each text of a batch, not for all of them.
            RequestKind::Embedding => call.input_bound().unwrap_or(whole),
            _ => call.input_bound().map_or(whole, |bound| bound.min(window.unwrap_or(u64::MAX))),
        };
        let known = [call.output_cap, price.and_then(|price| price.output_tokens_max)].into_iter().flatten().min();
        if let Some(most) = call.media.map(|media| media.most()) {
            // What is drawn, spoken or written down cannot be lowered.
            let heard = most.audio_input.min(window.unwrap_or(u64::MAX));
            let units = Usage { audio_input: 0, output: 0, ..most };
            let (input, each, choices) = (input.saturating_add(heard), most.output, call.choices.max(1));
            return Bound {
                kind: call.kind,
                price,
                input,
                choices,
                allowed: each,
                lowered_max: each,
                lowered_min: each,
                units,
            };
        }
        let allowed = if !call.kind.has_output() { 0 } else { known.unwrap_or(whole) };
        let lowered_min = least.saturating_add(call.thinking).min(allowed);
        // Providers refuse a cap above what the model can write. Where nobody knows that, one is not guessed.
        let lowered_max = if known.is_some() { allowed } else { allowed.min(OUTPUT_UNKNOWN).max(lowered_min) };
        let (choices, units) = (call.choices.max(1), Usage::default());
        Bound { kind: call.kind, price, input, choices, allowed, lowered_max, lowered_min, units }
    }

    /// What the call can use and cost if each answer has so many tokens.
    fn at(&self, output: u64) -> (Usage, Spend) {
        let output = output.saturating_mul(self.choices);
        let usage = Usage { input: self.input, output, source: Source::Estimated, ..self.units };
        let Spend { tokens, .. } = spend(None, self.kind, &usage);
        let cost = self.price.map(|price| price.cost_bound(self.kind, &usage)).unwrap_or_default();
        (usage, Spend { cost: cost.min(Nanos::new(SPEND_MAX)), tokens })
    }

    fn most(&self) -> (Usage, Spend) {
        self.at(self.allowed)
    }

    /// The most that a room takes, or the least that there can be of the call.
    fn within(&self, room: Room) -> (Usage, Spend) {
        let fits = |output: u64| room.takes(self.at(output).1);
        // `low` is taken to fit, `high` not to.
        let (mut low, mut high) = (self.lowered_min, self.lowered_max.saturating_add(1));
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if fits(middle) { low = middle } else { high = middle }
        }
        self.at(low)
    }

    /// The tokens of one answer out of those of all.
    fn of_each(&self, output: u64) -> u64 {
        output / self.choices
    }

    /// An expectation above the bound is none.
    fn within_reason(&self, expected: Usage) -> Usage {
        let most = self.most().0;
        let (input, output) = (expected.input.min(most.input), expected.output.min(most.output));
        Usage { input, output, audio_input: expected.audio_input.min(most.input), ..expected }
    }
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
    if let Some(media) = &call.media {
        let usage = media.expected();
        let each = match call.kind {
            RequestKind::ImageGeneration => {
                state.expectations.output(&target.provider.name, &target.model, Some(usage.output))
            }
            _ => usage.output,
        };
        return Usage { input: call.input_estimate(), output: each.saturating_mul(call.choices.max(1)), ..usage };
    }
    if !call.kind.has_output() {
        // The model's window holds for each text of a batch, not for all of them.
        return Usage::estimated(call.input_estimate(), 0);
    }
    let window = price.and_then(|price| price.input_tokens_max).unwrap_or(u64::MAX);
    let input = call.input_estimate().min(window);
    let output = state.expectations.output(&target.provider.name, &target.model, call.output_cap);
    Usage::estimated(input, output.saturating_mul(call.choices.max(1)))
}
