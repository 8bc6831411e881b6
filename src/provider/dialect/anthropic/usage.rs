//! The usage object, taken apart into buckets that do not overlap.
//!
//! In this dialect the counts do not overlap by themselves: what was read from a cache and what was written to
//! it stand beside the input. In a stream the members of later reports replace those of earlier ones.

use serde::Deserialize;

use super::super::count::Count;
use super::super::{Document, Garbage, raw};
use crate::governance::usage::{ServiceTier, Source, Usage};

/// How a whole message is read.
pub const DOCUMENT: Document = Document {
    wanted: &["usage"],
    texts: &["text", "thinking"],
    usage: |_, found| {
        let [usage] = found else { return None };
        raw(usage).map(|raw| Report::read(raw?)?.usage())
    },
};

/// What was reported so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Report {
    #[serde(flatten)]
    counts: Counts,
    server_tool_use: Option<ToolUse>,
    output_tokens_details: Option<OutputDetails>,
    service_tier: Option<String>,
    speed: Option<String>,
    /// The steps of a call that took several, by whichever model: the counts above leave some of them out.
    iterations: Option<Vec<Counts>>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Counts {
    input_tokens: Count,
    output_tokens: Count,
    cache_creation_input_tokens: Count,
    cache_read_input_tokens: Count,
    cache_creation: Option<Creation>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Creation {
    ephemeral_5m_input_tokens: Count,
    ephemeral_1h_input_tokens: Count,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct ToolUse {
    web_search_requests: Count,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct OutputDetails {
    thinking_tokens: Count,
}

impl Report {
    /// Reads the raw JSON of a usage object.
    pub fn read(raw: &str) -> Result<Report, Garbage> {
        // A derived struct would take an array for one.
        if !raw.trim_start().starts_with('{') {
            return Err(Garbage::Malformed);
        }
        serde_json::from_str(raw).map_err(|_| Garbage::Malformed)
    }

    /// Takes what a later report says in place of what was known.
    pub fn update(&mut self, later: Report) {
        let counts = &mut self.counts;
        counts.input_tokens.replace(later.counts.input_tokens);
        counts.output_tokens.replace(later.counts.output_tokens);
        counts.cache_creation_input_tokens.replace(later.counts.cache_creation_input_tokens);
        counts.cache_read_input_tokens.replace(later.counts.cache_read_input_tokens);
        counts.cache_creation = later.counts.cache_creation.or(counts.cache_creation);
        self.server_tool_use = later.server_tool_use.or(self.server_tool_use);
        self.output_tokens_details = later.output_tokens_details.or(self.output_tokens_details);
        self.service_tier = later.service_tier.or(self.service_tier.take());
        self.speed = later.speed.or(self.speed.take());
        self.iterations = later.iterations.or(self.iterations.take());
    }

    /// What was reported, in the normal form.
    pub fn usage(&self) -> Result<Usage, Garbage> {
        let mut usage = self.counts.usage()?;
        let mut steps = Usage::default();
        for step in self.iterations.iter().flatten() {
            let step = step.usage()?;
            steps.input += step.input;
            steps.cache_read += step.cache_read;
            steps.cache_write += step.cache_write;
            steps.cache_write_long += step.cache_write_long;
            steps.output += step.output;
        }
        // Whichever leaves nothing out. The steps of other models are charged as this one's.
        usage.input = usage.input.max(steps.input);
        usage.cache_read = usage.cache_read.max(steps.cache_read);
        usage.cache_write = usage.cache_write.max(steps.cache_write);
        usage.cache_write_long = usage.cache_write_long.max(steps.cache_write_long);
        usage.output = usage.output.max(steps.output);
        let thinking = self.output_tokens_details.unwrap_or_default().thinking_tokens;
        usage.reasoning = thinking.read("thinking_tokens")?.unwrap_or(0);
        let searches = self.server_tool_use.unwrap_or_default().web_search_requests;
        usage.searches = searches.read_small("web_search_requests")?.unwrap_or(0);
        usage.tier = match (self.service_tier.as_deref().map(ServiceTier::from_word), self.speed.as_deref()) {
            (Some(ServiceTier::Standard) | None, Some("fast")) => ServiceTier::Priority,
            (tier, _) => tier.unwrap_or_default(),
        };
        Ok(usage)
    }
}

impl Counts {
    fn usage(&self) -> Result<Usage, Garbage> {
        let input = self.input_tokens.read("input_tokens")?;
        let output = self.output_tokens.read("output_tokens")?;
        let cache_read = self.cache_read_input_tokens.read("cache_read_input_tokens")?;
        let written = self.cache_creation_input_tokens.read("cache_creation_input_tokens")?;
        let split = self.cache_creation.unwrap_or_default();
        let short = split.ephemeral_5m_input_tokens.read("ephemeral_5m_input_tokens")?;
        let long = split.ephemeral_1h_input_tokens.read("ephemeral_1h_input_tokens")?.unwrap_or(0);
        if input.is_none() && output.is_none() {
            return Err(Garbage::NoCounts);
        }
        // The sum may have grown since the split was told; what is not said to last does not.
        let written = written.unwrap_or(0).max(short.unwrap_or(0) + long);
        Ok(Usage {
            input: input.unwrap_or(0),
            cache_read: cache_read.unwrap_or(0),
            cache_write: written - long,
            cache_write_long: long,
            output: output.unwrap_or(0),
            source: Source::Exact,
            ..Usage::default()
        })
    }
}
