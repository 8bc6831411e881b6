//! What usage costs: price tables, and usage × prices → money, rounded once.

use super::money::{Nanos, Picos, Rate};
use super::price_field::{Lane, Slot, place};
use super::request::RequestKind;
use super::usage::{ServiceTier, Usage};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// All list prices known, by provider and model.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    providers: HashMap<Box<str>, HashMap<Box<str>, Arc<Price>>>,
}

impl Catalog {
    pub fn insert(&mut self, provider: &str, model: &str, price: Price) {
        self.providers.entry(provider.into()).or_default().insert(model.into(), Arc::new(price));
    }

    pub fn find(&self, provider: &str, model: &str) -> Option<&Arc<Price>> {
        self.providers.get(provider)?.get(model)
    }

    /// The models of `provider` that have a price.
    pub fn models(&self, provider: &str) -> impl Iterator<Item = &str> {
        self.providers.get(provider).into_iter().flat_map(|models| models.keys()).map(|model| &**model)
    }

    pub fn len(&self) -> usize {
        self.providers.values().map(HashMap::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.providers.is_empty()
    }
}

/// The prices of one model. A price that is absent falls back as `Prices::rates` says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Price {
    pub standard: Prices,
    pub batch: Prices,
    pub flex: Prices,
    pub priority: Prices,
    /// Prices of the whole request once its input is larger than the threshold, by rising threshold.
    pub long_context: Vec<(u64, Prices)>,
    pub input_tokens_max: Option<u64>,
    pub output_tokens_max: Option<u64>,
}

/// Prices per unit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prices {
    pub input: Option<Rate>,
    pub output: Option<Rate>,
    pub cache_read: Option<Rate>,
    pub cache_write: Option<Rate>,
    pub cache_write_long: Option<Rate>,
    pub audio_input: Option<Rate>,
    pub audio_output: Option<Rate>,
    pub image_input: Option<Rate>,
}

/// The rates that hold for one request, every gap filled.
struct Rates {
    input: Rate,
    output: Rate,
    cache_read: Rate,
    cache_write: Rate,
    cache_write_long: Rate,
    audio_input: Rate,
    audio_output: Rate,
    image_input: Rate,
}

impl Price {
    /// This price, or none, with what an override sets put in its place. Alone, an override is a price only
    /// if it prices all that a call of this kind always has: what it leaves out would be free without
    /// anybody having said so.
    pub fn patched(base: Option<&Price>, patch: &Patch, kind: RequestKind) -> Option<Price> {
        let mut price = base.cloned().unwrap_or_default();
        for (slot, lane, rate) in &patch.0 {
            *slot(price.lane_mut(*lane)) = Some(*rate);
        }
        (base.is_some() || price.is_whole(kind)).then_some(price)
    }

    fn is_whole(&self, kind: RequestKind) -> bool {
        self.standard.input.is_some() && (self.standard.output.is_some() || !kind.has_output())
    }

    fn lane_mut(&mut self, lane: Lane) -> &mut Prices {
        match lane {
            Lane::Standard => &mut self.standard,
            Lane::Batch => &mut self.batch,
            Lane::Flex => &mut self.flex,
            Lane::Priority => &mut self.priority,
            Lane::Above(threshold) => {
                let at = self.long_context.binary_search_by_key(&threshold, |(threshold, _)| *threshold);
                let at = at.unwrap_or_else(|at| {
                    // A price that a tier leaves out is that of the tier below it.
                    let below = at.checked_sub(1).map(|below| self.long_context[below].1.clone());
                    self.long_context.insert(at, (threshold, below.unwrap_or_default()));
                    at
                });
                &mut self.long_context[at].1
            }
        }
    }

    /// What `usage` costs. The tier is decided by the input alone, as providers define it; each
    /// price falls back on its own from tier to standard.
    pub fn cost(&self, usage: &Usage) -> Nanos {
        let Usage { input, cache_read, cache_write, cache_write_long, audio_input, image_input, .. } = *usage;
        let units = [input, cache_read, cache_write, cache_write_long, audio_input, image_input];
        let units = units.into_iter().chain([usage.output, usage.audio_output, usage.image_output]);
        let parts = self.applied(usage).into_iter().zip(units).map(|(rate, units)| rate.times(units));
        parts.sum::<Picos>().round_up()
    }

    /// The rates that price `usage`, in the order of its buckets: `input`, `cache_read`, `cache_write`,
    /// `cache_write_long`, `audio_input`, `image_input`, `output`, `audio_output`, `image_output`.
    pub fn applied(&self, usage: &Usage) -> [Rate; 9] {
        let rates = self.rates(usage.input_total(), usage.tier);
        let Rates { input, cache_read, cache_write, cache_write_long, audio_input, image_input, .. } = rates;
        let Rates { output, audio_output, .. } = rates;
        [input, cache_read, cache_write, cache_write_long, audio_input, image_input, output, audio_output, output]
    }

    /// What so many tokens cost at the very most, whatever they turn out to be and whatever lane serves them:
    /// each at the dearest rate that can apply to it.
    pub fn cost_bound(&self, input: u64, output: u64) -> Nanos {
        let lanes = [&self.standard, &self.batch, &self.flex, &self.priority];
        let long = self.long_context.iter().filter(|(threshold, _)| input > *threshold).map(|(_, prices)| prices);
        let (mut dear_input, mut dear_output) = (Rate::ZERO, Rate::ZERO);
        for prices in lanes.into_iter().chain(long) {
            let Prices { input, output, cache_read, cache_write, cache_write_long, .. } = *prices;
            let inputs = [input, cache_read, cache_write, cache_write_long, prices.audio_input, prices.image_input];
            dear_input = inputs.into_iter().flatten().fold(dear_input, Rate::max);
            dear_output = [output, prices.audio_output].into_iter().flatten().fold(dear_output, Rate::max);
        }
        [dear_input.times(input), dear_output.times(output)].into_iter().sum::<Picos>().round_up()
    }

    fn rates(&self, input_total: u64, tier: ServiceTier) -> Rates {
        let long = self.long_context.iter().rev().find(|(threshold, _)| input_total > *threshold).map(|(_, p)| p);
        let lane = match tier {
            ServiceTier::Standard => None,
            ServiceTier::Batch => Some(&self.batch),
            ServiceTier::Flex => Some(&self.flex),
            ServiceTier::Priority => Some(&self.priority),
        };
        let pick = |field: fn(&Prices) -> Option<Rate>| {
            long.and_then(field).or_else(|| lane.and_then(field)).or_else(|| field(&self.standard))
        };
        let input = pick(|p| p.input).unwrap_or_default();
        let output = pick(|p| p.output).unwrap_or_default();
        let cache_write = pick(|p| p.cache_write).unwrap_or(input);
        Rates {
            input,
            output,
            cache_read: pick(|p| p.cache_read).unwrap_or(input),
            cache_write,
            cache_write_long: pick(|p| p.cache_write_long).unwrap_or(cache_write),
            audio_input: pick(|p| p.audio_input).unwrap_or(input),
            audio_output: pick(|p| p.audio_output).unwrap_or(output),
            image_input: pick(|p| p.image_input).unwrap_or(input),
        }
    }
}

/// The prices that an override sets, each with the place where it goes.
#[derive(Debug, Clone, Default)]
pub struct Patch(Box<[(Slot, Lane, Rate)]>);

impl Patch {
    /// By the names of the price table. What is no price of a token has no place.
    pub fn of(fields: &BTreeMap<&'static str, Rate>) -> Patch {
        let placed = fields.iter().filter_map(|(field, rate)| {
            let (slot, lane) = place(field)?;
            Some((slot, lane, *rate))
        });
        Patch(placed.collect())
    }
}

/// What a call to a model without a list price gets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum UnknownModel {
    /// A refusal where a budget applies; free where none does.
    #[default]
    Refuse,
    /// Always free.
    Free,
    /// These prices.
    Priced(Arc<Price>),
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn gpt_4o() -> Price {
        let standard = Prices {
            input: Some(Rate::new(2_500_000)),
            cache_read: Some(Rate::new(1_250_000)),
            output: Some(Rate::new(10_000_000)),
            ..Prices::default()
        };
        let long = Prices { input: Some(Rate::new(5_000_000)), ..Prices::default() };
        Price { standard, long_context: vec![(272_000, long)], ..Price::default() }
    }

    #[test]
    fn cost_is_the_weighted_sum() {
        let check = |usage: Usage, nanos: i64| assert_eq!(gpt_4o().cost(&usage), Nanos::new(nanos), "{usage:?}");
        check(Usage::default(), 0);
        check(Usage { input: 1_000, output: 100, ..Usage::default() }, 2_500_000 + 1_000_000);
        check(Usage { input: 176, cache_read: 1_024, ..Usage::default() }, 440_000 + 1_280_000);
        // Reasoning is part of the output and costs nothing beside it.
        check(Usage { output: 100, reasoning: 90, ..Usage::default() }, 1_000_000);
        // A cache write without its own price costs what input costs.
        check(Usage { cache_write: 10, ..Usage::default() }, 25_000);
    }

    #[test]
    fn long_context_prices_the_whole_request() {
        let at = |input| gpt_4o().cost(&Usage { input, ..Usage::default() });
        assert_eq!(at(272_000), Nanos::new(272_000 * 2_500));
        assert_eq!(at(272_001), Nanos::new(272_001 * 5_000));
    }

    fn patch_of(fields: &[(&'static str, u64)]) -> Patch {
        Patch::of(&fields.iter().map(|(field, rate)| (*field, Rate::new(*rate))).collect())
    }

    #[test]
    fn an_override_replaces_what_it_names() {
        let cost = |patch: &[(&'static str, u64)], usage: &Usage| {
            Price::patched(Some(&gpt_4o()), &patch_of(patch), RequestKind::ChatCompletion).unwrap().cost(usage)
        };
        let usage = Usage { input: 1_000, output: 100, cache_read: 10, ..Usage::default() };
        let long = Usage { input: 272_001, ..Usage::default() };
        let check = |patch: &[(&'static str, u64)], usage: &Usage, nanos: i64| {
            assert_eq!(cost(patch, usage), Nanos::new(nanos), "{patch:?}");
        };
        check(&[], &usage, 2_500_000 + 1_000_000 + 12_500);
        check(&[("input_cost_per_token", 0)], &usage, 1_000_000 + 12_500);
        check(&[("output_cost_per_token", 1_000), ("cache_read_input_token_cost", 0)], &usage, 2_500_000 + 100);
        // A tier keeps its own price, and a new one stands between the others.
        check(&[("input_cost_per_token", 0)], &long, 272_001 * 5_000);
        check(
            &[("input_cost_per_token_above_128k_tokens", 1_000)],
            &Usage { input: 200_000, ..usage },
            200_000 + 1_000_000 + 12_500,
        );
        check(&[("input_cost_per_token_above_128k_tokens", 1_000)], &long, 272_001 * 5_000);
        check(&[("input_cost_per_image", 7)], &usage, 2_500_000 + 1_000_000 + 12_500);
    }

    #[test]
    fn an_override_alone_is_a_price_if_it_leaves_nothing_out() {
        let usage = Usage { input: 1_000, output: 100, cache_read: 10, ..Usage::default() };
        let check = |kind, patch: &[(&'static str, u64)], nanos: Option<i64>| {
            let cost = Price::patched(None, &patch_of(patch), kind).map(|price| price.cost(&usage));
            assert_eq!(cost, nanos.map(Nanos::new), "{kind:?} {patch:?}");
        };
        let (input, output) = ("input_cost_per_token", "output_cost_per_token");
        let priority = [("input_cost_per_token_priority", 1), ("output_cost_per_token_priority", 1)];
        for kind in [RequestKind::ChatCompletion, RequestKind::TextCompletion, RequestKind::Responses] {
            check(kind, &[(input, 1_000), (output, 10_000)], Some(1_010 + 1_000));
            check(kind, &[(input, 0), (output, 0)], Some(0));
            check(kind, &[(input, 1_000)], None);
            check(kind, &[(output, 1_000)], None);
            check(kind, &[(input, 1_000), ("output_cost_per_token_batches", 1_000)], None);
            check(kind, &priority, None);
            check(kind, &[("input_cost_per_image", 1)], None);
            check(kind, &[], None);
        }
        for kind in [RequestKind::Embedding, RequestKind::Rerank] {
            check(kind, &[(input, 1_000)], Some(1_010));
            check(kind, &[(output, 1_000)], None);
            check(kind, &[("input_cost_per_image", 1)], None);
        }
    }

    proptest! {
        #[test]
        fn cost_never_falls_when_usage_rises(
            base in prop::array::uniform9(0..2_000_000u64), which in 0..9usize, more in 0..1_000_000u64
        ) {
            let usage = |u: [u64; 9]| Usage {
                input: u[0], cache_read: u[1], cache_write: u[2], cache_write_long: u[3],
                audio_input: u[4], image_input: u[5], output: u[6], audio_output: u[7], image_output: u[8],
                ..Usage::default()
            };
            let mut raised = base;
            raised[which] += more;
            prop_assert!(gpt_4o().cost(&usage(raised)) >= gpt_4o().cost(&usage(base)));
        }

        #[test]
        fn nothing_costs_more_than_the_bound(
            parts in prop::array::uniform8(0..400_000u64), tier in 0..4usize, rates in prop::array::uniform8(0..99u64)
        ) {
            let rate = |n: usize| Some(Rate::new(rates[n] * 1_000)).filter(|_| rates[n] % 5 != 0);
            let standard = Prices { input: rate(0), output: rate(1), cache_read: rate(2), ..Prices::default() };
            let priority = Prices { input: rate(3), cache_write_long: rate(4), ..Prices::default() };
            let flex = Prices { audio_output: rate(5), image_input: rate(6), ..Prices::default() };
            let long = Prices { input: rate(7), output: rate(4), ..Prices::default() };
            let price = Price { standard, priority, flex, long_context: vec![(500_000, long)], ..Price::default() };
            use ServiceTier::{Batch, Flex, Priority, Standard};
            let usage = Usage {
                input: parts[0], cache_read: parts[1], cache_write: parts[2], cache_write_long: parts[3],
                audio_input: parts[4], image_input: parts[5], output: parts[6], audio_output: parts[7],
                tier: [Standard, Batch, Flex, Priority][tier], ..Usage::default()
            };
            prop_assert!(price.cost(&usage) <= price.cost_bound(usage.input_total(), usage.output_total()));
            prop_assert!(price.cost(&usage) <= price.cost_bound(usage.input_total() + 7, usage.output_total() + 7));
        }

        #[test]
        fn no_usage_overflows(units in prop::array::uniform2(any::<u64>())) {
            let usage = Usage { input: units[0], output: units[1], cache_read: units[0], ..Usage::default() };
            prop_assert!(gpt_4o().cost(&usage) >= Nanos::ZERO);
        }
    }
}
