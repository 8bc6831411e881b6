//! The end of every attempt: usage becomes money, and the hold becomes an entry.

use super::admit::{Admitted, spend};
use crate::governance::charge::{self, Reported};
use crate::governance::judge::Admission;
use crate::governance::money::Nanos;
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

/// Pictures and sound that have so many times the tokens that we took for the most are nonsense.
const MEDIA_FACTOR: u64 = 4;
/// Instructions of the provider's own may be in the input.
const MEDIA_INPUT_LEAST: u64 = 1_024;

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
            let (usage, spend) = charged(metrics, call, reading, &admitted);
            (ending, usage, spend)
        }
    };
    let Admitted { hold, price, bound, .. } = admitted;
    metrics.attempted(&provider, ending.as_str());
    match usage.source {
        Source::Exact => {
            let each = usage.output_total() / call.choices.max(1);
            // An answer that its own cap cut short says nothing about how long answers are.
            if call.output_cap.is_none_or(|cap| each < cap) {
                state.expectations.learn(&provider, &hold.tag().model, each);
            }
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

/// What the provider reports to have charged, if it can be so.
fn believable(metrics: &Metrics, call: &Call, provider: &str, price: Option<&Price>, usage: &Usage) -> Option<Nanos> {
    match charge::reported(price, call.kind, usage) {
        Reported::Not => None,
        Reported::Plausible(cost) => {
            metrics.reported(provider, "charged");
            Some(cost)
        }
        Reported::Absurd(cost) => {
            metrics.reported(provider, "absurd");
            tracing::warn!(provider, reported = %cost, "the provider reports an absurd cost; charged by the price table");
            None
        }
    }
}

/// The usage to charge and what it comes to: the provider's if it told one that can be, what was held if it told
/// nonsense, and else an estimate from what was sent and delivered.
fn charged(metrics: &Metrics, call: &Call, reading: &Reading, admitted: &Admitted) -> (Usage, Spend) {
    let price = admitted.price.as_deref();
    let expected = admitted.expected;
    // The provider was told where to stop; what we count as more is our own error.
    let most = admitted.bound.0.output;
    let estimate = |output: u64| Usage::estimated(expected.input, output.min(most));
    let usage = match (&reading.usage, &reading.garbage) {
        // Something was written, so "nothing" is not the truth.
        (Some(usage), _) if usage.total() == 0 && usage.input_millis == 0 && reading.delivered_tokens > 0 => {
            Usage { reported_cost: usage.reported_cost, ..estimate(reading.delivered_tokens) }
        }
        (Some(usage), _) if plausible(call, usage, price, &admitted.bound.0) => {
            call.media.map_or(*usage, |media| of_media(call, &media.complete(usage), price, &expected))
        }
        (Some(_), _) | (None, Some(_)) => return admitted.hold.estimate(),
        (None, None) if let Some(media) = &call.media => of_media(call, &media.known(), price, &expected),
        // Of an answer that is not streamed the provider has probably written all, and nobody will tell
        // how much.
        (None, None) if !call.stream => estimate(expected.output.max(reading.delivered_tokens)),
        (None, None) => estimate(reading.delivered_tokens),
    };
    let provider = &admitted.hold.tag().provider;
    let reported_cost = if admitted.believed { believable(metrics, call, provider, price, &usage) } else { None };
    let usage = Usage { reported_cost, ..usage };
    (usage, spend(price, call.kind, &usage))
}

/// What is known of pictures or sound, if what is not known does not count at this price; else what was expected.
fn of_media(call: &Call, known: &Usage, price: Option<&Price>, expected: &Usage) -> Usage {
    let nothing = *known == Usage { tier: known.tier, ..Usage::default() };
    let cost = |usage: &Usage| charge::cost(price, call.kind, usage);
    let told = known.total() > 0 || known.input_millis > 0;
    let enough =
        if told { cost(known) > Nanos::ZERO || cost(expected) == Nanos::ZERO } else { cost(known) == cost(expected) };
    if !nothing && enough { *known } else { *expected }
}

/// Usage beyond the model's own bounds is a fault of the one who counted.
fn plausible(call: &Call, usage: &Usage, price: Option<&Price>, most: &Usage) -> bool {
    if call.media.is_some() {
        // No other count of theirs is ours to doubt, but none is far beyond what we took for the most.
        let far = |told: u64, most: u64| told > most.saturating_mul(MEDIA_FACTOR);
        return !far(usage.output_total(), most.output)
            && !far(usage.input_total(), most.input.max(MEDIA_INPUT_LEAST))
            && usage.input_millis <= most.input_millis;
    }
    // For embeddings the window holds for each text of a batch, and nobody counted those.
    let price = price.filter(|_| call.kind != RequestKind::Embedding);
    let window =
        price.and_then(|price| Some(price.input_tokens_max?.saturating_add(price.output_tokens_max.unwrap_or(0))));
    let output = price.and_then(|price| price.output_tokens_max);
    let choices = call.choices.max(1);
    usage.input_total() <= window.unwrap_or(TOKENS_SANE_MAX).saturating_mul(choices)
        && usage.output_total() <= output.unwrap_or(TOKENS_SANE_MAX).saturating_mul(choices)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::governance::money::Rate;
    use crate::provider::{Door, dialect, read_call};

    #[test]
    fn a_reported_cost_is_charged_within_reason() {
        let body = br#"{"model": "openrouter/m", "messages": [{"role": "user", "content": "hi"}]}"#;
        let (_, Some(Door::Call(route))) = dialect::path::read("/v1/chat/completions") else { panic!("a call") };
        let call = read_call(&route, body).unwrap();
        let price = Price::named([("input_cost_per_token", Rate::new(1_000_000))]);
        let metrics = Metrics::new();
        let check = |nanos: i64, charged: Option<i64>| {
            let usage = Usage { input: 1_000, reported_cost: Some(Nanos::new(nanos)), ..Usage::default() };
            let believed = believable(&metrics, &call, "openrouter", Some(&price), &usage);
            assert_eq!(believed, charged.map(Nanos::new), "{nanos}");
            let usage = Usage { reported_cost: believed, ..usage };
            // What is not believed is charged by the table: 1,000 × 1,000 nanos.
            assert_eq!(spend(Some(&price), call.kind, &usage).cost.get(), charged.unwrap_or(1_000_000), "{nanos}");
        };
        check(777, Some(777));
        check(0, None);
        check(-1, None);
        // Ten times what is expected, and a dollar of fees.
        check(1_010_000_000, Some(1_010_000_000));
        check(1_010_000_001, None);
        let counted = metrics.render();
        for (outcome, times) in [("charged", 2), ("absurd", 1)] {
            let line =
                format!("tollgate_reported_costs_total{{outcome=\"{outcome}\",provider=\"openrouter\"}} {times}\n");
            assert!(counted.contains(&line), "{counted}");
        }
    }
}
