//! What one call consumed, in one normal form for all providers.
//!
//! The buckets do not overlap, so a cost is a plain weighted sum. Dialects differ in whether cached
//! input is part of the input count; the readers in `provider` take that apart.

/// Units of one call. `reasoning` is the exception to "no overlap": it is part of `output` and only
/// informs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Text tokens sent, neither read from nor written to a cache.
    pub input: u64,
    pub cache_read: u64,
    /// Cache writes with the short life (minutes).
    pub cache_write: u64,
    /// Cache writes with the long life (an hour and more), which cost more.
    pub cache_write_long: u64,
    pub audio_input: u64,
    pub image_input: u64,
    /// Text tokens generated, reasoning included.
    pub output: u64,
    pub reasoning: u64,
    pub audio_output: u64,
    /// The service tier that the provider says it used.
    pub tier: ServiceTier,
    pub source: Source,
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
        self.output.saturating_add(self.audio_output)
    }

    /// What token limits count: everything in and out.
    pub fn total(&self) -> u64 {
        self.input_total().saturating_add(self.output_total())
    }

    /// What was consumed that is no token and has no column in the ledger, by the name that entries and prices
    /// give it. All that a cost is made of is either here or a token.
    pub fn other(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        std::iter::empty()
    }

    /// An estimate of plain text tokens.
    pub fn estimated(input: u64, output: u64) -> Usage {
        Usage { input, output, source: Source::Estimated, ..Usage::default() }
    }
}
