//! What one call consumed, in one normal form for all providers.
//!
//! The buckets do not overlap, so a cost is a plain weighted sum. Dialects differ in whether cached
//! input is part of the input count; the readers in `provider` take that apart.

use super::money::Nanos;
use std::borrow::Cow;

/// Units of one call. No two members count the same thing but one: `reasoning` is a part of `output`. A call is
/// one request whatever else is in it, so requests are not counted.
///
/// Tokens are what most calls consist of and what token limits count. The rest is mostly zero; those are the
/// units that speech, pictures, film and tools are sold by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Text tokens sent, neither read from nor written to a cache.
    pub input: u64,
    pub cache_read: u64,
    /// Cache writes with the provider's short life (minutes).
    pub cache_write: u64,
    /// Cache writes with the provider's long life, which cost more: an hour at one, twelve at another.
    pub cache_write_long: u64,
    /// Tokens of sound that was sent.
    pub audio_input: u64,
    /// Tokens of pictures that were sent.
    pub image_input: u64,
    /// Text tokens generated, reasoning included.
    pub output: u64,
    pub reasoning: u64,
    /// Tokens of generated sound.
    pub audio_output: u64,
    /// Tokens of generated pictures. Where an answer of a picture model does not split its output, all of it.
    pub image_output: u64,
    /// Characters (not bytes) of text to be spoken.
    pub characters: u32,
    /// Thousandths of a second of sound or film that were sent.
    pub input_millis: u32,
    /// Thousandths of a second of sound or film that were generated.
    pub output_millis: u32,
    /// Pictures that were sent, counted whether or not they have tokens as well.
    pub input_pictures: Pictures,
    /// Pictures that came back, counted whether or not they have tokens as well.
    pub output_pictures: Pictures,
    /// Web searches the provider made, or search units of a rerank.
    pub searches: u32,
    /// How much each of those searches brought in.
    pub search_context: SearchContext,
    /// Sessions of a code interpreter.
    pub sessions: u16,
    /// What the provider itself says that the whole call cost. Whether it is believed is not decided here.
    pub reported_cost: Option<Nanos>,
    /// The service tier that the provider says it used.
    pub tier: ServiceTier,
    pub source: Source,
}

/// Pictures of one size and quality.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pictures {
    pub count: u32,
    /// In pixels; zero where nobody told.
    pub width: u16,
    pub height: u16,
    pub quality: Quality,
}

impl Pictures {
    fn named(&self, name: &'static str) -> Cow<'static, str> {
        let size = match (self.width, self.height) {
            (0, 0) => String::new(),
            (width, height) => format!("/{width}x{height}"),
        };
        match self.quality {
            Quality::Auto if size.is_empty() => name.into(),
            Quality::Auto => format!("{name}{size}").into(),
            quality => format!("{name}{size}/{}", quality.word()).into(),
        }
    }

    /// Reads a size as requests and answers write it, `1024x1536`. Anything else is none.
    pub fn size(text: &str) -> Option<(u16, u16)> {
        let (width, height) = text.split_once('x')?;
        Some((width.parse().ok()?, height.parse().ok()?))
    }
}

/// How well a picture is drawn, in the words of those who sell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Quality {
    /// The provider chooses; so it does when nobody says anything.
    #[default]
    Auto,
    Low,
    Medium,
    High,
    Standard,
    /// Also called premium.
    Hd,
}

impl Quality {
    pub const ALL: [Quality; 6] =
        [Quality::Auto, Quality::Low, Quality::Medium, Quality::High, Quality::Standard, Quality::Hd];

    /// As requests say it.
    pub const fn word(self) -> &'static str {
        match self {
            Quality::Auto => "auto",
            Quality::Low => "low",
            Quality::Medium => "medium",
            Quality::High => "high",
            Quality::Standard => "standard",
            Quality::Hd => "hd",
        }
    }

    /// Reads a request's or an answer's word; unknown words leave it to the provider.
    pub fn from_word(word: &str) -> Quality {
        match word {
            "low" => Quality::Low,
            "medium" => Quality::Medium,
            "high" => Quality::High,
            "standard" => Quality::Standard,
            "hd" | "premium" => Quality::Hd,
            _ => Quality::Auto,
        }
    }
}

/// How much of what it finds a web search hands to the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SearchContext {
    #[default]
    Medium,
    Low,
    High,
}

impl SearchContext {
    pub const ALL: [SearchContext; 3] = [SearchContext::Medium, SearchContext::Low, SearchContext::High];

    /// Reads a provider's word; unknown words mean the usual size.
    pub fn from_word(word: &str) -> SearchContext {
        match word {
            "low" => SearchContext::Low,
            "high" => SearchContext::High,
            _ => SearchContext::Medium,
        }
    }
}

/// Where the numbers come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Source {
    /// The provider told us.
    #[default]
    Exact,
    /// Ours: the provider said nothing, or the call was cut short.
    Estimated,
}

/// The lane that served the call, where the provider names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ServiceTier {
    #[default]
    Standard,
    Batch,
    Flex,
    Priority,
}

impl ServiceTier {
    /// Reads a provider's word for the tier; unknown words mean the standard one.
    pub fn from_word(word: &str) -> ServiceTier {
        match word {
            "batch" => ServiceTier::Batch,
            "flex" => ServiceTier::Flex,
            "priority" | "fast" => ServiceTier::Priority,
            _ => ServiceTier::Standard,
        }
    }
}

impl Usage {
    /// All tokens that went in, cached ones included.
    pub fn input_total(&self) -> u64 {
        [self.input, self.cache_read, self.cache_write, self.cache_write_long, self.audio_input, self.image_input]
            .into_iter()
            .fold(0, u64::saturating_add)
    }

    /// All tokens that came out.
    pub fn output_total(&self) -> u64 {
        self.output.saturating_add(self.audio_output).saturating_add(self.image_output)
    }

    /// What token limits count: everything in and out.
    pub fn total(&self) -> u64 {
        self.input_total().saturating_add(self.output_total())
    }

    /// What it says beside tokens, by the name that the ledger and the parts of a cost give it; none is zero.
    /// Pictures and searches whose price depends on more than their number have that in their name, as in
    /// `output_pictures/1024x1536/high` and `searches/low`.
    pub fn other(&self) -> Vec<(Cow<'static, str>, u64)> {
        let search = match self.search_context {
            SearchContext::Medium => "searches",
            SearchContext::Low => "searches/low",
            SearchContext::High => "searches/high",
        };
        let plain = [
            ("characters", u64::from(self.characters)),
            ("input_millis", u64::from(self.input_millis)),
            ("output_millis", u64::from(self.output_millis)),
            (search, u64::from(self.searches)),
            ("sessions", u64::from(self.sessions)),
            ("reported_nanodollars", self.reported_cost.map_or(0, |cost| u64::try_from(cost.get()).unwrap_or(0))),
        ];
        let mut other = Vec::new();
        other.extend(plain.into_iter().filter(|(_, units)| *units > 0).map(|(name, units)| (name.into(), units)));
        for (name, pictures) in [("input_pictures", self.input_pictures), ("output_pictures", self.output_pictures)] {
            if pictures.count > 0 {
                other.push((pictures.named(name), u64::from(pictures.count)));
            }
        }
        other
    }

    /// An estimate of plain text tokens.
    pub fn estimated(input: u64, output: u64) -> Usage {
        Usage { input, output, source: Source::Estimated, ..Usage::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_count_tokens_and_nothing_else() {
        let pictures = Pictures { count: 1 << 20, width: 1 << 10, height: 1 << 10, quality: Quality::High };
        let usage = Usage {
            input: 1,
            cache_read: 1 << 1,
            cache_write: 1 << 2,
            cache_write_long: 1 << 3,
            audio_input: 1 << 4,
            image_input: 1 << 5,
            output: 1 << 6,
            reasoning: 1 << 7,
            audio_output: 1 << 8,
            image_output: 1 << 9,
            characters: 1 << 10,
            input_millis: 1 << 11,
            output_millis: 1 << 12,
            input_pictures: pictures,
            output_pictures: pictures,
            searches: 1 << 13,
            sessions: 1 << 14,
            reported_cost: Some(Nanos::new(1 << 15)),
            ..Usage::default()
        };
        assert_eq!((usage.input_total(), usage.output_total()), (0b11_1111, 0b11_0100_0000));
        assert_eq!(usage.total(), 0b11_0111_1111);
        let most = Usage { input: u64::MAX, cache_read: 1, image_output: u64::MAX, output: 1, ..Usage::default() };
        assert_eq!((most.input_total(), most.output_total(), most.total()), (u64::MAX, u64::MAX, u64::MAX));
    }

    #[test]
    fn what_is_no_token_has_a_name() {
        let check = |usage: Usage, names: &[(&str, u64)]| {
            let other = usage.other();
            assert_eq!(other.iter().map(|(name, units)| (&**name, *units)).collect::<Vec<_>>(), names);
        };
        let pictures = |count, width, height, quality| Pictures { count, width, height, quality };
        check(Usage { input: 5, image_output: 7, ..Usage::default() }, &[]);
        let searches = |search_context| Usage { searches: 2, search_context, ..Usage::default() };
        check(searches(SearchContext::Medium), &[("searches", 2)]);
        check(searches(SearchContext::High), &[("searches/high", 2)]);
        let all = Usage {
            characters: 1,
            input_millis: 2,
            output_millis: 3,
            searches: 4,
            search_context: SearchContext::Low,
            sessions: 5,
            input_pictures: pictures(7, 0, 0, Quality::Auto),
            output_pictures: pictures(8, 1_024, 1_536, Quality::High),
            reported_cost: Some(Nanos::new(6)),
            ..Usage::default()
        };
        let names = [
            ("characters", 1),
            ("input_millis", 2),
            ("output_millis", 3),
            ("searches/low", 4),
            ("sessions", 5),
            ("reported_nanodollars", 6),
            ("input_pictures", 7),
            ("output_pictures/1024x1536/high", 8),
        ];
        check(all, &names);
        let drawn = |output_pictures| Usage { output_pictures, ..Usage::default() };
        check(drawn(pictures(1, 512, 512, Quality::Auto)), &[("output_pictures/512x512", 1)]);
        check(drawn(pictures(1, 0, 0, Quality::Hd)), &[("output_pictures/hd", 1)]);
        check(drawn(pictures(0, 512, 512, Quality::Hd)), &[]);
        check(Usage { reported_cost: Some(Nanos::new(-1)), ..Usage::default() }, &[]);
        for quality in Quality::ALL {
            assert_eq!(Quality::from_word(quality.word()), quality);
        }
    }

    #[test]
    fn words_are_read() {
        let check = |text: &str, size: Option<(u16, u16)>| assert_eq!(Pictures::size(text), size, "{text}");
        check("1024x1536", Some((1_024, 1_536)));
        check("65535x1", Some((u16::MAX, 1)));
        for none in ["auto", "1024", "1024x", "x1024", "1024x65536", "-1x1", "1x1x1", "1024 x 1024", ""] {
            check(none, None);
        }
        let words = ["auto", "low", "medium", "high", "standard", "hd"];
        assert_eq!(words.map(Quality::from_word), Quality::ALL);
        assert_eq!(Quality::from_word("premium"), Quality::Hd);
        assert_eq!(Quality::from_word("splendid"), Quality::default());
        assert_eq!(["medium", "low", "high"].map(SearchContext::from_word), SearchContext::ALL);
        assert_eq!(SearchContext::from_word("enormous"), SearchContext::default());
    }
}
