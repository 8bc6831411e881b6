//! The names of LiteLLM's price table: what each of its prices is for, and when it holds.
//!
//! A name is a base, then maybe `_above_{N}k_tokens`, then maybe a lane: `_batches`, `_flex`, `_priority`.

use super::usage::{SearchContext, ServiceTier};

/// What one price is for. Tokens come first: they have a place of their own in each `Price`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Unit {
    Input,
    CacheRead,
    CacheWrite,
    CacheWriteLong,
    AudioInput,
    ImageInput,
    Output,
    Reasoning,
    AudioOutput,
    ImageOutput,
    CachedAudio,
    CachedImage,
    WrittenAudio,
    Character,
    InputImage,
    InputPixel,
    InputSecond,
    InputAudioSecond,
    InputVideoSecond,
    OutputSecond,
    OutputVideoSecond,
    OutputSecond480,
    OutputSecond720,
    OutputSecond1080,
    OutputSecond2160,
    OutputPixel,
    OutputImage,
    LowImage,
    MediumImage,
    HighImage,
    AutoImage,
    PremiumImage,
    Image512,
    Image1024,
    Image2048,
    Image4096,
    PremiumImage512,
    PremiumImage1024,
    SearchLow,
    SearchMedium,
    SearchHigh,
    Query,
    Session,
    Request,
}

/// So many of the units are plain tokens.
pub const TOKENS: usize = Unit::ImageOutput as usize + 1;

/// A price's place: for what, in which lane, and for requests of more than so many input tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Field {
    pub unit: Unit,
    pub above: u32,
    pub tier: ServiceTier,
}

impl Field {
    /// At any length and in the standard lane.
    pub const fn of(unit: Unit) -> Field {
        Field { unit, above: 0, tier: ServiceTier::Standard }
    }

    /// A name that is for this place alone; `named` reads it. The table's own, but for the three kinds of search.
    pub fn name(self) -> String {
        let searches = SearchContext::ALL.into_iter().find(|context| search_unit(*context) == self.unit);
        let base = match searches {
            Some(context) => format!("{SEARCH}{}", context.word()),
            None => NAMES.iter().find(|(_, units)| units[..] == [self.unit]).map_or("", |(name, _)| name).to_owned(),
        };
        let length = if self.above == 0 { String::new() } else { format!("_above_{}k_tokens", self.above / 1_000) };
        let lane = LANES.iter().find(|(_, tier)| *tier == self.tier).map_or("", |(suffix, _)| suffix);
        format!("{base}{length}{lane}")
    }

    pub fn named(name: &str) -> Option<Field> {
        let (base, above, tier) = apart(name);
        let known = || match NAMES.iter().find(|(name, _)| *name == base)?.1 {
            [unit] => Some(*unit),
            _ => None,
        };
        Some(Field { unit: search(base).or_else(known)?, above, tier })
    }
}

/// The members of the object that `search_context_cost_per_query` may be begin so.
const SEARCH: &str = "search_context_size_";

const NAMES: &[(&str, &[Unit])] = &[
    ("input_cost_per_token", &[Unit::Input]),
    ("output_cost_per_token", &[Unit::Output]),
    ("cache_read_input_token_cost", &[Unit::CacheRead]),
    ("cache_creation_input_token_cost", &[Unit::CacheWrite]),
    // A provider has one long life or the other.
    ("cache_creation_input_token_cost_above_1hr", &[Unit::CacheWriteLong]),
    ("cache_creation_input_token_cost_above_12hr", &[Unit::CacheWriteLong]),
    ("output_cost_per_reasoning_token", &[Unit::Reasoning]),
    ("input_cost_per_audio_token", &[Unit::AudioInput]),
    ("output_cost_per_audio_token", &[Unit::AudioOutput]),
    ("input_cost_per_image_token", &[Unit::ImageInput]),
    ("output_cost_per_image_token", &[Unit::ImageOutput]),
    ("cache_read_input_audio_token_cost", &[Unit::CachedAudio]),
    ("cache_read_input_image_token_cost", &[Unit::CachedImage]),
    ("cache_creation_input_audio_token_cost", &[Unit::WrittenAudio]),
    ("input_cost_per_character", &[Unit::Character]),
    ("input_cost_per_image", &[Unit::InputImage]),
    ("input_cost_per_pixel", &[Unit::InputPixel]),
    ("input_cost_per_second", &[Unit::InputSecond]),
    ("input_cost_per_audio_per_second", &[Unit::InputAudioSecond]),
    ("input_cost_per_video_per_second", &[Unit::InputVideoSecond]),
    ("output_cost_per_second", &[Unit::OutputSecond]),
    ("output_cost_per_video_per_second", &[Unit::OutputVideoSecond]),
    ("output_cost_per_second_480p", &[Unit::OutputSecond480]),
    ("output_cost_per_second_720p", &[Unit::OutputSecond720]),
    ("output_cost_per_second_1080p", &[Unit::OutputSecond1080]),
    ("output_cost_per_second_4k", &[Unit::OutputSecond2160]),
    ("output_cost_per_pixel", &[Unit::OutputPixel]),
    ("output_cost_per_image", &[Unit::OutputImage]),
    ("output_cost_per_image_low_quality", &[Unit::LowImage]),
    ("output_cost_per_image_medium_quality", &[Unit::MediumImage]),
    ("output_cost_per_image_high_quality", &[Unit::HighImage]),
    ("output_cost_per_image_auto_quality", &[Unit::AutoImage]),
    ("output_cost_per_image_premium_image", &[Unit::PremiumImage]),
    ("output_cost_per_image_above_512_and_512_pixels", &[Unit::Image512]),
    ("output_cost_per_image_above_1024_and_1024_pixels", &[Unit::Image1024]),
    ("output_cost_per_image_above_2048_and_2048_pixels", &[Unit::Image2048]),
    ("output_cost_per_image_above_4096_and_4096_pixels", &[Unit::Image4096]),
    ("output_cost_per_image_above_512_and_512_pixels_and_premium_image", &[Unit::PremiumImage512]),
    ("output_cost_per_image_above_1024_and_1024_pixels_and_premium_image", &[Unit::PremiumImage1024]),
    ("search_context_cost_per_query", &[Unit::SearchLow, Unit::SearchMedium, Unit::SearchHigh]),
    ("input_cost_per_query", &[Unit::Query]),
    ("code_interpreter_cost_per_session", &[Unit::Session]),
    ("input_cost_per_request", &[Unit::Request]),
];

const LANES: [(&str, ServiceTier); 3] =
    [("_batches", ServiceTier::Batch), ("_flex", ServiceTier::Flex), ("_priority", ServiceTier::Priority)];

/// Where the price in `field` goes; one price may be for several units. `None`: it is none that we know.
pub fn place(field: &str) -> Option<impl Iterator<Item = Field>> {
    let (base, above, tier) = apart(field);
    let (_, units) = NAMES.iter().find(|(name, _)| *name == base)?;
    Some(units.iter().map(move |&unit| Field { unit, above, tier }))
}

/// A name without its length and its lane, and those.
fn apart(field: &str) -> (&str, u32, ServiceTier) {
    let in_lane = LANES.iter().find_map(|(suffix, tier)| Some((field.strip_suffix(suffix)?, *tier)));
    let (rest, tier) = in_lane.unwrap_or((field, ServiceTier::Standard));
    let (base, above) = long_context(rest).unwrap_or((rest, 0));
    (base, above, tier)
}

/// Takes `_above_{N}k_tokens` off the end of a field.
fn long_context(field: &str) -> Option<(&str, u32)> {
    let (base, thousands) = field.strip_suffix("k_tokens")?.rsplit_once("_above_")?;
    let threshold = thousands.parse::<u32>().ok()?.checked_mul(1_000)?;
    Some((base, threshold))
}

/// One of the prices in the object that `search_context_cost_per_query` may be.
pub fn search(member: &str) -> Option<Unit> {
    Some(search_unit(SearchContext::named(member.strip_prefix(SEARCH)?)?))
}

pub const fn search_unit(context: SearchContext) -> Unit {
    match context {
        SearchContext::Low => Unit::SearchLow,
        SearchContext::Medium => Unit::SearchMedium,
        SearchContext::High => Unit::SearchHigh,
    }
}

impl Unit {
    pub const fn is_token(self) -> bool {
        (self as usize) < TOKENS
    }

    /// Whether it is of what goes in, rather than of what comes out or is done on the way.
    pub const fn is_input(self) -> bool {
        matches!(
            self,
            Unit::Input
                | Unit::CacheRead
                | Unit::CacheWrite
                | Unit::CacheWriteLong
                | Unit::AudioInput
                | Unit::ImageInput
                | Unit::CachedAudio
                | Unit::CachedImage
                | Unit::WrittenAudio
                | Unit::Character
                | Unit::InputImage
                | Unit::InputPixel
                | Unit::InputSecond
                | Unit::InputAudioSecond
                | Unit::InputVideoSecond
        )
    }

    /// What is drawn, by the picture.
    pub const fn is_picture(self) -> bool {
        (self as u8) >= Unit::OutputImage as u8 && (self as u8) <= Unit::PremiumImage1024 as u8
    }

    /// What is played, by the second.
    pub const fn is_output_second(self) -> bool {
        (self as u8) >= Unit::OutputSecond as u8 && (self as u8) <= Unit::OutputSecond2160 as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::governance::entity::PRICE_FIELDS;

    #[test]
    fn fields_find_their_place() {
        use ServiceTier::{Batch, Flex, Priority, Standard};
        let check = |field: &str, unit: Unit, above: u32, tier: ServiceTier| {
            let placed: Vec<Field> = place(field).unwrap_or_else(|| panic!("{field}")).collect();
            assert_eq!(placed, [Field { unit, above, tier }], "{field}");
        };
        check("input_cost_per_token", Unit::Input, 0, Standard);
        check("input_cost_per_token_batches", Unit::Input, 0, Batch);
        check("output_cost_per_token_flex", Unit::Output, 0, Flex);
        check("cache_read_input_token_cost_priority", Unit::CacheRead, 0, Priority);
        check("input_cost_per_audio_token_priority", Unit::AudioInput, 0, Priority);
        check("input_cost_per_token_above_32k_tokens", Unit::Input, 32_000, Standard);
        check("output_cost_per_token_above_512k_tokens", Unit::Output, 512_000, Standard);
        check("input_cost_per_token_above_272k_tokens_priority", Unit::Input, 272_000, Priority);
        check("cache_read_input_token_cost_above_272k_tokens_flex", Unit::CacheRead, 272_000, Flex);
        check("input_cost_per_image_above_128k_tokens", Unit::InputImage, 128_000, Standard);
        check("cache_creation_input_token_cost_above_1hr", Unit::CacheWriteLong, 0, Standard);
        check("cache_creation_input_token_cost_above_12hr", Unit::CacheWriteLong, 0, Standard);
        let long = "cache_creation_input_token_cost_above_1hr_above_200k_tokens";
        check(long, Unit::CacheWriteLong, 200_000, Standard);
        check("cache_creation_input_token_cost_above_1hr_priority", Unit::CacheWriteLong, 0, Priority);
        check("output_cost_per_reasoning_token", Unit::Reasoning, 0, Standard);
        check("output_cost_per_image_above_512_and_512_pixels", Unit::Image512, 0, Standard);
        for none in [
            "mode",
            "input_cost_per_token_above_k_tokens",
            "input_cost_per_token_above_x200k_tokens",
            "input_cost_per_token_above_99999999999999999999k_tokens",
            "input_cost_per_token_flex_above_272k_tokens",
            "input_cost_per_token_ultrafast",
            "input_cost_per_token_cache_hit",
            "ocr_cost_per_page",
        ] {
            assert!(place(none).is_none(), "{none}");
        }
    }

    #[test]
    fn a_search_may_cost_by_what_it_brings() {
        let placed: Vec<Unit> = place("search_context_cost_per_query").unwrap().map(|field| field.unit).collect();
        assert_eq!(placed, [Unit::SearchLow, Unit::SearchMedium, Unit::SearchHigh]);
        let members = ["low", "medium", "high"].map(|size| search(&format!("search_context_size_{size}")));
        assert_eq!(members, [Some(Unit::SearchLow), Some(Unit::SearchMedium), Some(Unit::SearchHigh)]);
        assert_eq!((search("search_context_size_huge"), search("low")), (None, None));
    }

    #[test]
    fn every_price_of_a_patch_acts() {
        for field in PRICE_FIELDS {
            assert!(place(field).is_some(), "{field}");
        }
    }

    #[test]
    fn a_place_is_found_again_by_its_name() {
        for name in PRICE_FIELDS {
            for field in place(name).unwrap() {
                assert_eq!(Field::named(&field.name()), Some(field), "{name}");
            }
        }
        let field = Field { unit: Unit::SearchLow, above: 128_000, tier: ServiceTier::Flex };
        assert_eq!(field.name(), "search_context_size_low_above_128k_tokens_flex");
        assert_eq!(Field::of(Unit::CacheWriteLong).name(), "cache_creation_input_token_cost_above_1hr");
        assert_eq!((Field::named("input"), Field::named("search_context_cost_per_query")), (None, None));
    }

    #[test]
    fn every_unit_has_a_name() {
        let named = |unit: Unit| NAMES.iter().any(|(_, units)| units.contains(&unit));
        let all: Vec<Unit> = NAMES.iter().flat_map(|(_, units)| units.iter().copied()).collect();
        assert!(all.iter().all(|unit| named(*unit)));
        let mut codes: Vec<u8> = all.iter().map(|unit| *unit as u8).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Unit::Request as usize + 1);
    }
}
