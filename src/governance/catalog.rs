//! All list prices, and how a call's price is found among them.

use super::charge::RATE_PLAUSIBLE_MAX;
use super::money::Rate;
use super::price_field::{Field, Unit};
use super::pricing::Price;
use super::request::RequestKind;
use smallvec::SmallVec;
use std::collections::HashMap;
use std::sync::Arc;

/// What a model does, in the words of the price table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    Chat,
    Completion,
    Responses,
    Embedding,
    Rerank,
    Speech,
    Transcription,
    ImageGeneration,
    ImageEdit,
    VideoGeneration,
}

impl Mode {
    /// `None`: something that is not asked for here, such as moderation.
    pub fn named(word: &str) -> Option<Mode> {
        Some(match word {
            "chat" => Mode::Chat,
            "completion" => Mode::Completion,
            "responses" => Mode::Responses,
            "embedding" => Mode::Embedding,
            "rerank" => Mode::Rerank,
            "audio_speech" => Mode::Speech,
            "audio_transcription" => Mode::Transcription,
            "image_generation" => Mode::ImageGeneration,
            "image_edit" => Mode::ImageEdit,
            "video_generation" => Mode::VideoGeneration,
            _ => return None,
        })
    }

    /// The modes whose prices hold for a kind, the best first. Text costs the same at whichever of its paths it
    /// is asked for.
    const fn of(kind: RequestKind) -> &'static [Mode] {
        match kind {
            RequestKind::ChatCompletion => &[Mode::Chat, Mode::Responses, Mode::Completion],
            RequestKind::TextCompletion => &[Mode::Completion, Mode::Chat, Mode::Responses],
            RequestKind::Responses => &[Mode::Responses, Mode::Chat, Mode::Completion],
            RequestKind::Embedding => &[Mode::Embedding],
            RequestKind::Rerank => &[Mode::Rerank],
            RequestKind::Speech => &[Mode::Speech],
            RequestKind::Transcription => &[Mode::Transcription],
            RequestKind::ImageGeneration => &[Mode::ImageGeneration],
            RequestKind::ImageEdit => &[Mode::ImageEdit, Mode::ImageGeneration],
            RequestKind::ImageVariation => &[Mode::ImageGeneration, Mode::ImageEdit],
            RequestKind::VideoGeneration | RequestKind::VideoRemix => &[Mode::VideoGeneration],
            _ => &[],
        }
    }
}

/// All list prices known, by provider, model and mode.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    providers: HashMap<Box<str>, HashMap<Box<str>, Modes>>,
}

/// Nearly every model has one mode. A price without a mode holds for every kind.
type Modes = SmallVec<[(Option<Mode>, Arc<Price>); 1]>;

impl Catalog {
    /// Replaces what was there for this mode.
    pub fn insert(&mut self, provider: &str, model: &str, mode: Option<Mode>, price: Price) {
        let modes = self.providers.entry(provider.into()).or_default().entry(model.into()).or_default();
        let price = Arc::new(price);
        match modes.iter_mut().find(|(other, _)| *other == mode) {
            Some((_, old)) => *old = price,
            None => modes.push((mode, price)),
        }
    }

    /// The price of a model that `provider` knows as `upstream_model`, for a call of this kind: under either name,
    /// of the provider, and then of whom the same model is the same at.
    pub fn find(&self, provider: &str, model: &str, upstream_model: &str, kind: RequestKind) -> Option<&Arc<Price>> {
        let found = self.by_name(provider, model, kind);
        found.or_else(|| (model != upstream_model).then(|| self.by_name(provider, upstream_model, kind))?)
    }

    fn by_name(&self, provider: &str, model: &str, kind: RequestKind) -> Option<&Arc<Price>> {
        let listed = |provider: &str, model: &str| self.listed(provider, model, kind);
        listed(provider, model).or_else(|| match provider {
            "gemini" => listed("vertex", model),
            "vertex" => listed("vertex", model.split_once('/')?.1),
            "bedrock" => {
                let plain = without_region(model);
                let found = plain.and_then(|plain| listed("bedrock", plain));
                let plain = plain.unwrap_or(model);
                let is_claude = plain.contains("claude") && !plain.contains("anthropic.");
                found.or_else(|| is_claude.then(|| listed("bedrock", &format!("anthropic.{plain}")))?)
            }
            "fireworks" => match model.strip_prefix(FIREWORKS) {
                Some(short) => listed("fireworks", short),
                None => listed("fireworks", &format!("{FIREWORKS}{model}")),
            },
            _ => None,
        })
    }

    fn listed(&self, provider: &str, model: &str, kind: RequestKind) -> Option<&Arc<Price>> {
        let modes = self.providers.get(provider)?.get(model)?;
        let of = |mode: Option<Mode>| modes.iter().find(|(other, _)| *other == mode).map(|(_, price)| price);
        Mode::of(kind).iter().find_map(|mode| of(Some(*mode))).or_else(|| of(None))
    }

    /// What is known of a model, whatever it is asked for.
    pub fn any(&self, provider: &str, model: &str) -> Option<&Arc<Price>> {
        self.providers.get(provider)?.get(model)?.first().map(|(_, price)| price)
    }

    /// The models of `provider` that have a price.
    pub fn models(&self, provider: &str) -> impl Iterator<Item = &str> {
        self.providers.get(provider).into_iter().flat_map(|models| models.keys()).map(|model| &**model)
    }

    pub fn providers(&self) -> impl Iterator<Item = &str> {
        self.providers.keys().map(|provider| &**provider)
    }

    /// How many prices there are.
    pub fn len(&self) -> usize {
        self.providers.values().flat_map(HashMap::values).map(SmallVec::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Models whose tokens cost what no token does, as `provider/model`, sorted.
    pub fn implausible(&self) -> Vec<String> {
        self.names_where(|_, _, _, price| {
            price.fields().iter().any(|(field, rate)| field.unit.is_token() && *rate > RATE_PLAUSIBLE_MAX)
        })
    }

    /// Models whose text costs more than ten times, or less than a tenth of, what it cost before; sorted.
    pub fn moved(&self, before: &Catalog) -> Vec<String> {
        self.names_where(|provider, model, mode, price| {
            let modes = before.providers.get(provider).and_then(|models| models.get(model));
            let old = modes.and_then(|modes| modes.iter().find(|(other, _)| *other == mode));
            let Some((_, old)) = old else { return false };
            [Unit::Input, Unit::Output].into_iter().any(|unit| {
                let rate = |price: &Price| price.declared(Field::of(unit));
                rate(old).zip(rate(price)).is_some_and(|(old, new)| is_far(old, new))
            })
        })
    }

    fn names_where(&self, is_it: impl Fn(&str, &str, Option<Mode>, &Price) -> bool) -> Vec<String> {
        let mut names = Vec::new();
        for (provider, models) in &self.providers {
            for (model, modes) in models {
                if modes.iter().any(|(mode, price)| is_it(provider, model, *mode, price)) {
                    names.push(format!("{provider}/{model}"));
                }
            }
        }
        names.sort();
        names
    }
}

const FIREWORKS: &str = "accounts/fireworks/models/";

/// A Bedrock model without the part of the world that serves it.
fn without_region(model: &str) -> Option<&str> {
    const REGIONS: [&str; 8] = ["us", "eu", "apac", "global", "jp", "au", "ca", "us-gov"];
    let (region, rest) = model.split_once('.')?;
    REGIONS.contains(&region).then_some(rest)
}

fn is_far(one: Rate, other: Rate) -> bool {
    let (low, high) = (one.min(other).get(), one.max(other).get());
    high > low.saturating_mul(10)
}

#[cfg(test)]
mod tests;
