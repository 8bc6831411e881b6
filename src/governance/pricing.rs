//! The prices of one model: as they were declared, and laid out so that a call finds its own at once.
//!
//! What usage costs by them is in `charge`.

use super::money::Rate;
use super::price_field::{Field, TOKENS, Unit, place};
use super::request::RequestKind;
use super::usage::ServiceTier;
use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// The prices of one model. One that is absent falls back: to a lower threshold, to the standard lane, and then
/// to a unit that is like it (cached input to input, audio to text). None falls back to nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Price {
    /// As declared, in order.
    fields: Box<[(Field, Rate)]>,
    /// What a token costs, every gap filled: for each lane and threshold there is, the standard lane and the
    /// lowest threshold first.
    pub(super) rows: Box<[Row]>,
    /// Prices of anything but plain tokens, as declared; most models have none.
    pub(super) rare: Option<Box<[(Field, Rate)]>>,
    pub input_tokens_max: Option<u64>,
    pub output_tokens_max: Option<u64>,
}

/// The rates of tokens for requests in one lane that have more input than a threshold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) tier: ServiceTier,
    pub(super) above: u32,
    /// By `Unit`.
    pub(super) tokens: [Rate; TOKENS],
    /// Whether tokens in each direction have a price at all.
    pub(super) has_input: bool,
    pub(super) has_output: bool,
}

/// By what was declared, which decides all the rest.
impl Hash for Price {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.fields.hash(state);
    }
}

/// What a call without any price is charged by.
const FREE: Row =
    Row { tier: ServiceTier::Standard, above: 0, tokens: [Rate::ZERO; TOKENS], has_input: false, has_output: false };

impl Price {
    /// Of two prices with one place, the dearer one holds.
    pub fn of(fields: impl IntoIterator<Item = (Field, Rate)>) -> Price {
        let mut fields: Vec<(Field, Rate)> = fields.into_iter().collect();
        fields.sort_unstable();
        fields.reverse();
        fields.dedup_by_key(|(field, _)| *field);
        fields.reverse();
        let rare: Box<[(Field, Rate)]> = fields.iter().filter(|(field, _)| !field.unit.is_token()).copied().collect();
        Price {
            rows: rows(&fields),
            fields: fields.into(),
            rare: (!rare.is_empty()).then_some(rare),
            input_tokens_max: None,
            output_tokens_max: None,
        }
    }

    /// By the names of the price table. What is no price has no place.
    pub fn named<'a>(fields: impl IntoIterator<Item = (&'a str, Rate)>) -> Price {
        Price::of(fields.into_iter().flat_map(|(name, rate)| {
            let placed = place(name).into_iter().flatten();
            placed.map(move |field| (field, rate))
        }))
    }

    /// The same for a model that takes and writes at most so many tokens.
    pub fn within(self, input_tokens_max: Option<u64>, output_tokens_max: Option<u64>) -> Price {
        Price { input_tokens_max, output_tokens_max, ..self }
    }

    /// This price, or none, with what an override sets put in its place. Alone, an override is a price only
    /// if it prices all that a call of this kind always has: what it leaves out would be free without
    /// anybody having said so.
    pub fn patched(base: Option<&Price>, patch: &Patch, kind: RequestKind) -> Option<Price> {
        let Some(base) = base else {
            let price = Price::of(patch.0.iter().copied());
            return price.is_whole(kind).then_some(price);
        };
        let kept = base.fields.iter().filter(|(field, _)| patch.0.iter().all(|(other, _)| other != field));
        Some(Price::of(kept.chain(&patch.0).copied()).within(base.input_tokens_max, base.output_tokens_max))
    }

    /// The declared price at this place.
    pub fn declared(&self, field: Field) -> Option<Rate> {
        let at = self.fields.binary_search_by_key(&field, |(field, _)| *field).ok()?;
        Some(self.fields[at].1)
    }

    pub fn fields(&self) -> &[(Field, Rate)] {
        &self.fields
    }

    fn is_whole(&self, kind: RequestKind) -> bool {
        let has = |unit| self.declared(Field::of(unit)).is_some();
        let any = |is_it: fn(Unit) -> bool| {
            self.fields.iter().any(|(field, _)| is_it(field.unit) && *field == Field::of(field.unit))
        };
        let tokens_out = |unit| has(Unit::Output) || has(unit);
        match kind {
            RequestKind::Embedding => has(Unit::Input),
            RequestKind::Rerank => has(Unit::Input) || has(Unit::Query) || has(Unit::SearchMedium),
            RequestKind::Speech => {
                has(Unit::Character) || any(Unit::is_output_second) || has(Unit::Input) && tokens_out(Unit::AudioOutput)
            }
            RequestKind::Transcription => {
                has(Unit::InputSecond)
                    || has(Unit::InputAudioSecond)
                    || (has(Unit::Input) || has(Unit::AudioInput)) && has(Unit::Output)
            }
            RequestKind::ImageGeneration | RequestKind::ImageEdit | RequestKind::ImageVariation => {
                any(Unit::is_picture) || has(Unit::OutputPixel) || has(Unit::Input) && tokens_out(Unit::ImageOutput)
            }
            RequestKind::VideoGeneration | RequestKind::VideoRemix => {
                any(Unit::is_output_second) || has(Unit::Input) && has(Unit::Output)
            }
            _ => has(Unit::Input) && has(Unit::Output),
        }
    }

    /// The rates of tokens for a call with so much input. The threshold is decided by the input alone, as
    /// providers define it.
    pub(super) fn row(&self, input_total: u64, tier: ServiceTier) -> &Row {
        let [base, others @ ..] = &*self.rows else { return &FREE };
        if others.is_empty() {
            return base;
        }
        let in_lane = |tier: ServiceTier| {
            let fits = move |row: &&Row| row.tier == tier && (row.above == 0 || input_total > u64::from(row.above));
            self.rows.iter().rev().find(fits)
        };
        in_lane(tier).or_else(|| in_lane(ServiceTier::Standard)).unwrap_or(base)
    }

    /// The rate of anything but a plain token.
    pub(super) fn rare(&self, unit: Unit, input_total: u64, tier: ServiceTier) -> Option<Rate> {
        pick(self.rare.as_deref()?, unit, input_total, tier)
    }
}

/// The declared price that holds: of the highest threshold passed, and there of the lane before the standard one.
fn pick(fields: &[(Field, Rate)], unit: Unit, input_total: u64, tier: ServiceTier) -> Option<Rate> {
    let passed = |above: u32| above == 0 || input_total > u64::from(above);
    let candidates = fields.iter().filter(|(field, _)| {
        field.unit == unit && (field.tier == tier || field.tier == ServiceTier::Standard) && passed(field.above)
    });
    let best = candidates.max_by_key(|(field, _)| (field.above, field.tier == tier))?;
    Some(best.1)
}

fn rows(fields: &[(Field, Rate)]) -> Box<[Row]> {
    let tokens: Vec<(Field, Rate)> = fields.iter().filter(|(field, _)| field.unit.is_token()).copied().collect();
    let sorted = |mut all: Vec<_>| {
        all.sort_unstable();
        all.dedup();
        all
    };
    let mut places: Vec<(ServiceTier, u32)> = vec![(ServiceTier::Standard, 0)];
    let tiers = sorted(tokens.iter().map(|(field, _)| (field.tier, 0)).chain(places.clone()).collect());
    let thresholds = sorted(tokens.iter().map(|(field, _)| (ServiceTier::Standard, field.above)).collect());
    for (tier, _) in tiers {
        places.extend(thresholds.iter().map(|(_, above)| (tier, *above)).chain([(tier, 0)]));
    }
    let has = |input: bool| tokens.iter().any(|(field, _)| field.unit.is_input() == input);
    let (has_input, has_output) = (has(true), has(false));
    let row = |(tier, above): (ServiceTier, u32)| {
        // Just past the threshold.
        let input_total = u64::from(above) + 1;
        let find = |unit| pick(&tokens, unit, input_total, tier);
        Row { tier, above, tokens: filled(find), has_input, has_output }
    };
    sorted(places).into_iter().map(row).collect()
}

fn filled(find: impl Fn(Unit) -> Option<Rate>) -> [Rate; TOKENS] {
    let input = find(Unit::Input).unwrap_or_default();
    let output = find(Unit::Output).unwrap_or_default();
    let cache_write = find(Unit::CacheWrite).unwrap_or(input);
    let mut tokens = [Rate::ZERO; TOKENS];
    let mut put = |unit: Unit, otherwise: Rate| tokens[unit as usize] = find(unit).unwrap_or(otherwise);
    put(Unit::Input, input);
    put(Unit::CacheRead, input);
    put(Unit::CacheWrite, cache_write);
    put(Unit::CacheWriteLong, cache_write);
    put(Unit::AudioInput, input);
    put(Unit::ImageInput, input);
    put(Unit::Output, output);
    put(Unit::Reasoning, output);
    put(Unit::AudioOutput, output);
    put(Unit::ImageOutput, output);
    tokens
}

/// The prices that an override sets, each with the place where it goes.
#[derive(Debug, Clone, Default)]
pub struct Patch(Box<[(Field, Rate)]>);

impl Patch {
    /// By the names of the price table.
    pub fn of(fields: &BTreeMap<&'static str, Rate>) -> Patch {
        Patch(Price::named(fields.iter().map(|(name, rate)| (*name, *rate))).fields)
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
mod tests;
