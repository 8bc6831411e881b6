//! The end of every attempt: usage becomes money, and the hold becomes an entry.

use super::admit::{Admitted, spend};
use crate::governance::judge::Admission;
use crate::governance::pricing::Price;
use crate::governance::request::RequestKind;
use crate::governance::usage::{Source, Usage};
use crate::provider::Call;
use crate::provider::Reading;
use crate::state::State;
use crate::state::hold::Spend;
use crate::state::outbox::Ending;
use crate::telemetry::Metrics;

/// Above this, a count of tokens is taken for nonsense when the model's own bounds are unknown.
const TOKENS_SANE_MAX: u64 = 100_000_000;

/// How an attempt ended, with what was read of its answer.
pub(super) enum End<'a> {
    /// No byte was sent, or the provider refused the call: no charge.
    NoCharge(Ending),
    /// The request was sent, and the provider failed before any output. Whether it will bill nobody knows: no
    /// charge, or under the policy that never exceeds all that was held.
    Failed(Ending),
    /// Something was answered: its usage, or our estimate of it.
    Answered { ending: Ending, reading: &'a Reading },
}

/// Ends an attempt. The only place that does, but for a hold that is dropped.
pub(super) fn settle(state: &State, metrics: &Metrics, call: &Call, admitted: Admitted, end: End<'_>) {
    let provider = std::sync::Arc::clone(&admitted.hold.tag().provider);
    let charged_as_held = admitted.admission == Admission::NeverExceed && admitted.hold.was_sent();
    let (ending, usage, spend) = match end {
        End::Failed(ending) if charged_as_held => {
            let (usage, spend) = admitted.hold.estimate();
            (ending, usage, spend)
        }
        End::NoCharge(ending) | End::Failed(ending) => {
            metrics.attempted(&provider, ending.as_str());
            return admitted.hold.release(ending);
        }
        End::Answered { ending, reading } => {
            let (usage, spend) = charged(call, reading, &admitted);
            (ending, usage, spend)
        }
    };
    let Admitted { hold, price, bound, .. } = admitted;
    metrics.attempted(&provider, ending.as_str());
    match usage.source {
        Source::Exact => {
            let answers = call.choices.max(1);
            state.expectations.learn(&provider, &hold.tag().model, usage.output_total() / answers);
        }
        Source::Estimated => metrics.estimated(&provider),
    }
    let (_, held) = hold.estimate();
    if spend.cost > held.cost {
        metrics.excess(&provider);
    }
    let (beyond, beyond_tokens) = (spend.cost.get() - bound.1.cost.get(), spend.tokens - bound.1.tokens);
    if beyond > 0 || beyond_tokens > 0 {
        metrics.beyond_bound(&provider, u64::try_from(beyond).unwrap_or(0));
        tracing::warn!(
            %provider,
            model = &*hold.tag().model,
            charge = format!("{:032x}", hold.id().0),
            billed_nanos = spend.cost.get(),
            beyond_nanos = beyond.max(0),
            beyond_tokens = beyond_tokens.max(0),
            "provider billed more than it was asked for at most"
        );
    }
    if price.is_none() {
        metrics.unpriced(&provider);
    }
    metrics.charged(&provider, &usage, spend.cost.get());
    hold.settle(ending, usage, spend);
}

/// The usage to charge and what it comes to: the provider's if it told one that can be, what was held if it told
/// nonsense, and else an estimate from what was sent and delivered.
fn charged(call: &Call, reading: &Reading, admitted: &Admitted) -> (Usage, Spend) {
    let price = admitted.price.as_deref();
    let expected = admitted.expected;
    // The provider was told where to stop; what we count as more is our own error.
    let most = admitted.bound.0.output;
    let estimate = |output: u64| Usage::estimated(expected.input, output.min(most));
    let usage = match (&reading.usage, &reading.garbage) {
        // Something was written, so "nothing" is not the truth.
        (Some(usage), _) if usage.total() == 0 && reading.delivered_tokens > 0 => estimate(reading.delivered_tokens),
        (Some(usage), _) if plausible(call, usage, price) => *usage,
        (Some(_), _) | (None, Some(_)) => return admitted.hold.estimate(),
        // Of an answer that is not streamed the provider has probably written all, and nobody will tell
        // how much.
        (None, None) if !call.stream => estimate(expected.output.max(reading.delivered_tokens)),
        (None, None) => estimate(reading.delivered_tokens),
    };
    (usage, spend(price, &usage))
}

/// Usage beyond the model's own bounds is a fault of the one who counted.
fn plausible(call: &Call, usage: &Usage, price: Option<&Price>) -> bool {
    // For embeddings the window holds for each text of a batch, and nobody counted those.
    let price = price.filter(|_| call.kind != RequestKind::Embedding);
    let window =
        price.and_then(|price| Some(price.input_tokens_max?.saturating_add(price.output_tokens_max.unwrap_or(0))));
    let output = price.and_then(|price| price.output_tokens_max);
    let choices = call.choices.max(1);
    usage.input_total() <= window.unwrap_or(TOKENS_SANE_MAX).saturating_mul(choices)
        && usage.output_total() <= output.unwrap_or(TOKENS_SANE_MAX).saturating_mul(choices)
}
