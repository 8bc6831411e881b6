//! What usage costs: units × prices, part by part, rounded once.
//!
//! What a unit is priced by hangs on the kind of request. Input and output are priced apart, each by the first
//! way of charging for which the model has a price and the usage has units.
//!
//! Invariant: a cost is the sum of the parts that are told, and nothing else.

mod bound;

use super::money::{Nanos, Picos, Rate};
use super::price_field::{TOKENS, Unit, search_unit};
use super::pricing::{Price, Row};
use super::request::RequestKind;
use super::usage::{Pictures, Quality, Usage};

/// One part of a cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// What was counted, in words that stay.
    pub unit: &'static str,
    pub count: u64,
    /// For `per` of the unit.
    pub rate: Rate,
    pub per: u64,
    /// Both multiplied; below a pico it is rounded up.
    pub amount: Picos,
}

/// A way of charging for one direction.
#[derive(Debug, Clone, Copy)]
enum Way {
    Tokens,
    Characters,
    /// At the price of tokens, where the usage tells of no tokens.
    CharactersAsTokens,
    Sound,
    Film,
    Pixels,
    Pictures,
}

/// The rates that apply are those of one lane and one length.
#[derive(Clone, Copy)]
struct Within<'a> {
    price: &'a Price,
    row: &'a Row,
    usage: &'a Usage,
    kind: RequestKind,
    input_total: u64,
}

const MILLIS: u64 = 1_000;

/// By `Unit`.
const TOKEN_NAMES: [&str; TOKENS] = [
    "input",
    "cache_read",
    "cache_write",
    "cache_write_long",
    "audio_input",
    "image_input",
    "output",
    "reasoning",
    "audio_output",
    "image_output",
];

/// What a call is charged: the sum of `parts`, rounded up. Without a price it is free.
pub fn cost(price: Option<&Price>, kind: RequestKind, usage: &Usage) -> Nanos {
    match usage.reported_cost {
        Some(_) => parts(price, kind, usage).into_iter().map(|part| part.amount).sum::<Picos>().round_up(),
        None => price.map(|price| price.cost(kind, usage)).unwrap_or_default(),
    }
}

/// What a charge is made of. A cost that the provider reported stands for all of it: usage whose reported cost is not
/// believed does not have it any more.
pub fn parts(price: Option<&Price>, kind: RequestKind, usage: &Usage) -> Vec<Part> {
    let Some(told) = usage.reported_cost else {
        return price.map(|price| price.parts(kind, usage)).unwrap_or_default();
    };
    let amount = Picos::of(told);
    let rate = Rate::new(u64::try_from(amount.get()).unwrap_or(u64::MAX));
    vec![Part { unit: "reported", count: 1, rate, per: 1, amount }]
}

impl Price {
    /// What `usage` costs by these prices, whatever the provider reports: the sum of `parts`, rounded up.
    pub fn cost(&self, kind: RequestKind, usage: &Usage) -> Nanos {
        let mut sum = Picos::default();
        self.walk(kind, usage, |part| sum = sum + part.amount);
        sum.round_up()
    }

    /// What such a cost is made of.
    fn parts(&self, kind: RequestKind, usage: &Usage) -> Vec<Part> {
        let mut parts = Vec::new();
        self.walk(kind, usage, |part| parts.push(part));
        parts
    }

    fn walk(&self, kind: RequestKind, usage: &Usage, mut tell: impl FnMut(Part)) {
        let input_total = usage.input_total();
        let within = Within { price: self, row: self.row(input_total, usage.tier), usage, kind, input_total };
        let (input, output) = ways(kind);
        if let Some(way) = input.iter().find(|way| within.takes_input(**way)) {
            within.input(*way, &mut tell);
        }
        if let Some(way) = output.iter().find(|way| within.takes_output(**way)) {
            within.output(*way, &mut tell);
        }
        if self.rare.is_some() {
            within.services(&mut tell);
        }
    }
}

/// How input and output of this kind are charged for: the first way that fits.
const fn ways(kind: RequestKind) -> (&'static [Way], &'static [Way]) {
    use Way::{Characters, CharactersAsTokens, Film, Pictures, Pixels, Sound, Tokens};
    match kind {
        RequestKind::Speech => (&[Characters, CharactersAsTokens, Tokens], &[Tokens, Sound]),
        RequestKind::Transcription => (&[Tokens, Sound], &[Tokens]),
        RequestKind::ImageGeneration | RequestKind::ImageEdit | RequestKind::ImageVariation => {
            (&[Tokens, Pixels, Pictures], &[Tokens, Pixels, Pictures])
        }
        RequestKind::VideoGeneration | RequestKind::VideoRemix => (&[Tokens, Film], &[Tokens, Film]),
        // Some models that read pictures and film into numbers are not sold by the token.
        RequestKind::Embedding => (&[Tokens, Characters, Pictures, Film], &[Tokens]),
        _ => (&[Tokens], &[Tokens]),
    }
}

const fn is_drawn(kind: RequestKind) -> bool {
    matches!(kind, RequestKind::ImageGeneration | RequestKind::ImageEdit | RequestKind::ImageVariation)
}

/// How many pictures are charged for: one at least, where pictures are what is asked for.
fn drawn(kind: RequestKind, pictures: &Pictures) -> u32 {
    if is_drawn(kind) { pictures.count.max(1) } else { pictures.count }
}

fn pixels(pictures: &Pictures, count: u32) -> u64 {
    (u64::from(pictures.width) * u64::from(pictures.height)).saturating_mul(count.into())
}

/// The price of so many thousandths.
fn per_mille(rate: Rate, millis: u32) -> Picos {
    rate.times(millis.into()).div_ceil(MILLIS)
}

impl Within<'_> {
    fn takes_input(&self, way: Way) -> bool {
        let Usage { characters, input_millis, input_pictures: pictures, .. } = *self.usage;
        let has = |unit| self.rare(unit).is_some();
        match way {
            Way::Tokens => self.input_total > 0 && self.row.has_input,
            Way::Characters => characters > 0 && has(Unit::Character),
            Way::CharactersAsTokens => characters > 0 && self.input_total == 0 && self.row.has_input,
            Way::Sound => input_millis > 0 && (has(Unit::InputAudioSecond) || has(Unit::InputSecond)),
            Way::Film => input_millis > 0 && (has(Unit::InputVideoSecond) || has(Unit::InputSecond)),
            Way::Pixels => pixels(&pictures, pictures.count) > 0 && has(Unit::InputPixel),
            Way::Pictures => pictures.count > 0 && has(Unit::InputImage),
        }
    }

    fn input(&self, way: Way, tell: &mut impl FnMut(Part)) {
        let usage = self.usage;
        let one = |unit| self.rare(unit).unwrap_or_default();
        match way {
            Way::Tokens => self.input_tokens(tell),
            Way::Characters => tell(part("characters", usage.characters.into(), one(Unit::Character))),
            Way::CharactersAsTokens => tell(part("characters", usage.characters.into(), self.token(Unit::Input))),
            Way::Sound => {
                let rate = self.rare(Unit::InputAudioSecond).unwrap_or_else(|| one(Unit::InputSecond));
                tell(seconds("input_millis", usage.input_millis, rate));
            }
            Way::Film => {
                let rate = self.rare(Unit::InputVideoSecond).unwrap_or_else(|| one(Unit::InputSecond));
                tell(seconds("input_millis", usage.input_millis, rate));
            }
            Way::Pixels => {
                let pictures = &usage.input_pictures;
                tell(part("input_pixels", pixels(pictures, pictures.count), one(Unit::InputPixel)));
            }
            Way::Pictures => tell(part("input_pictures", usage.input_pictures.count.into(), one(Unit::InputImage))),
        }
    }

    fn takes_output(&self, way: Way) -> bool {
        let usage = self.usage;
        match way {
            Way::Tokens => usage.output_total() > 0 && self.row.has_output,
            Way::Sound | Way::Film => usage.output_millis > 0 && self.second().is_some(),
            Way::Pixels => pixels(&usage.output_pictures, 1) > 0 && self.rare(Unit::OutputPixel).is_some(),
            Way::Pictures => self.picture().is_some(),
            Way::Characters | Way::CharactersAsTokens => false,
        }
    }

    fn output(&self, way: Way, tell: &mut impl FnMut(Part)) {
        let usage = self.usage;
        let drawn = drawn(self.kind, &usage.output_pictures);
        match way {
            Way::Tokens => self.output_tokens(tell),
            Way::Sound | Way::Film => {
                tell(seconds("output_millis", usage.output_millis, self.second().unwrap_or_default()));
            }
            Way::Pixels => {
                let rate = self.rare(Unit::OutputPixel).unwrap_or_default();
                tell(part("output_pixels", pixels(&usage.output_pictures, drawn), rate));
            }
            Way::Pictures => tell(part("output_pictures", drawn.into(), self.picture().unwrap_or_default())),
            Way::Characters | Way::CharactersAsTokens => {}
        }
    }

    fn input_tokens(&self, tell: &mut impl FnMut(Part)) {
        let usage = self.usage;
        let (mut read, mut written) = (usage.cache_read, usage.cache_write);
        if self.price.rare.is_some() {
            let mut apart = |unit, name, count: u32, rest: &mut u64| {
                let Some(rate) = self.rare(unit) else { return };
                let count = u64::from(count).min(*rest);
                *rest -= count;
                told(tell, part(name, count, rate));
            };
            apart(Unit::CachedAudio, "cached_audio", usage.cached_audio, &mut read);
            apart(Unit::CachedImage, "cached_image", usage.cached_image, &mut read);
            apart(Unit::WrittenAudio, "written_audio", usage.written_audio, &mut written);
        }
        self.tokens(tell, Unit::Input, usage.input);
        self.tokens(tell, Unit::CacheRead, read);
        self.tokens(tell, Unit::CacheWrite, written);
        self.tokens(tell, Unit::CacheWriteLong, usage.cache_write_long);
        self.tokens(tell, Unit::AudioInput, usage.audio_input);
        self.tokens(tell, Unit::ImageInput, usage.image_input);
    }

    fn output_tokens(&self, tell: &mut impl FnMut(Part)) {
        let usage = self.usage;
        // What a provider does not tell apart is what was asked for.
        let text = match self.kind {
            RequestKind::Speech => Unit::AudioOutput,
            kind if is_drawn(kind) && usage.image_output == 0 => Unit::ImageOutput,
            _ => Unit::Output,
        };
        let reasoning = if text == Unit::Output { usage.reasoning.min(usage.output) } else { 0 };
        if self.token(Unit::Reasoning) == self.token(Unit::Output) {
            self.tokens(tell, text, usage.output);
        } else {
            self.tokens(tell, text, usage.output - reasoning);
            self.tokens(tell, Unit::Reasoning, reasoning);
        }
        self.tokens(tell, Unit::AudioOutput, usage.audio_output);
        self.tokens(tell, Unit::ImageOutput, usage.image_output);
    }

    /// What is charged for beside input and output, whatever the kind.
    fn services(&self, tell: &mut impl FnMut(Part)) {
        let usage = self.usage;
        if usage.searches > 0 {
            let by_size = || self.rare(search_unit(usage.search_context));
            let by_query = || self.rare(Unit::Query);
            let rate = match self.kind {
                RequestKind::Rerank => by_query().or_else(by_size),
                _ => by_size().or_else(by_query),
            };
            told(tell, part("searches", usage.searches.into(), rate.unwrap_or_default()));
        }
        if usage.sessions > 0 {
            let rate = self.rare(Unit::Session).unwrap_or_default();
            told(tell, part("sessions", usage.sessions.into(), rate));
        }
        if let Some(rate) = self.rare(Unit::Request) {
            tell(part("request", 1, rate));
        }
    }

    fn rare(&self, unit: Unit) -> Option<Rate> {
        self.price.rare(unit, self.input_total, self.usage.tier)
    }

    fn token(&self, unit: Unit) -> Rate {
        self.row.tokens[unit as usize]
    }

    fn tokens(&self, tell: &mut impl FnMut(Part), unit: Unit, count: u64) {
        told(tell, part(TOKEN_NAMES[unit as usize], count, self.token(unit)));
    }

    /// A second of what was played: of film by its resolution, where that has a price.
    fn second(&self) -> Option<Rate> {
        let film = || self.rare(Unit::OutputVideoSecond);
        let plain = || self.rare(Unit::OutputSecond);
        if self.kind == RequestKind::Speech {
            return plain();
        }
        const SIZES: [(u16, Unit); 4] = [
            (2_160, Unit::OutputSecond2160),
            (1_080, Unit::OutputSecond1080),
            (720, Unit::OutputSecond720),
            (480, Unit::OutputSecond480),
        ];
        let lines = self.usage.output_pictures.width.min(self.usage.output_pictures.height);
        let reached = SIZES.iter().filter(|(least, _)| lines >= *least);
        let by_size = reached.filter_map(|(_, unit)| self.rare(*unit)).next();
        let dearest = || SIZES.iter().filter_map(|(_, unit)| self.rare(*unit)).max();
        by_size.or_else(film).or_else(plain).or_else(dearest)
    }

    /// One picture: by its quality, else by the largest size that it reaches, else any. Where only prices by
    /// quality are known and the quality is not, the dearest.
    fn picture(&self) -> Option<Rate> {
        const SIZES: [(u64, Unit, Option<Unit>); 4] = [
            (4_096, Unit::Image4096, None),
            (2_048, Unit::Image2048, None),
            (1_024, Unit::Image1024, Some(Unit::PremiumImage1024)),
            (512, Unit::Image512, Some(Unit::PremiumImage512)),
        ];
        let pictures = &self.usage.output_pictures;
        let area = pixels(pictures, 1);
        let reached = || SIZES.iter().filter(|(side, ..)| area >= side * side);
        let by_quality = match pictures.quality {
            Quality::Low => self.rare(Unit::LowImage),
            Quality::Medium => self.rare(Unit::MediumImage),
            Quality::High => self.rare(Unit::HighImage),
            Quality::Auto => self.rare(Unit::AutoImage),
            Quality::Standard => None,
            Quality::Hd => {
                let sized = reached().filter_map(|(.., premium)| self.rare((*premium)?)).next();
                sized.or_else(|| self.rare(Unit::PremiumImage))
            }
        };
        let by_size = || reached().filter_map(|(_, unit, _)| self.rare(*unit)).next();
        let any = || self.rare(Unit::OutputImage);
        let qualities = [Unit::LowImage, Unit::MediumImage, Unit::HighImage, Unit::AutoImage, Unit::PremiumImage];
        let dearest = || qualities.iter().filter_map(|unit| self.rare(*unit)).max();
        by_quality.or_else(by_size).or_else(any).or_else(dearest)
    }
}

/// Nothing of a unit is no part.
fn told(tell: &mut impl FnMut(Part), part: Part) {
    if part.count > 0 {
        tell(part);
    }
}

fn part(unit: &'static str, count: u64, rate: Rate) -> Part {
    Part { unit, count, rate, per: 1, amount: rate.times(count) }
}

fn seconds(unit: &'static str, millis: u32, rate: Rate) -> Part {
    Part { unit, count: millis.into(), rate, per: MILLIS, amount: per_mille(rate, millis) }
}

/// No call that a provider reports the cost of costs this much more than what is expected of it.
const REPORTED_FACTOR: i64 = 10;
/// Fees beside the tokens, such as those for searches, come to no more than this.
const REPORTED_FEES: Nanos = Nanos::new(1_000_000_000);
/// What no token costs, in list prices: 200 dollars for a million.
pub const RATE_PLAUSIBLE_MAX: Rate = Rate::new(200_000_000);

/// What a provider says that a call cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reported {
    /// Nothing, or nothing above zero.
    Not,
    Plausible(Nanos),
    /// Far beyond what a call of this usage can cost: not to be believed.
    Absurd(Nanos),
}

/// Weighs what the provider reported against what its usage comes to by `price`; without one, against prices
/// that no token has.
pub fn reported(price: Option<&Price>, kind: RequestKind, usage: &Usage) -> Reported {
    let Some(told) = usage.reported_cost.filter(|cost| *cost > Nanos::ZERO) else { return Reported::Not };
    let tokens = || RATE_PLAUSIBLE_MAX.times(usage.total()).round_up();
    let expected = price.map_or_else(tokens, |price| price.cost(kind, usage));
    let most = Nanos::new(expected.get().saturating_mul(REPORTED_FACTOR)) + REPORTED_FEES;
    if told <= most { Reported::Plausible(told) } else { Reported::Absurd(told) }
}

#[cfg(test)]
mod tests;
