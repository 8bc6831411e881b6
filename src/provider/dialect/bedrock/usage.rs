//! The usage object, taken apart into buckets that do not overlap: what was read from a cache and what was
//! written to it stand beside the input.

use serde::Deserialize;

use super::super::count::Count;
use super::super::{Document, Garbage, raw};
use crate::governance::usage::{ServiceTier, Source, Usage};

/// How a whole answer is read.
pub const DOCUMENT: Document = Document {
    wanted: &["usage", "serviceTier"],
    texts: &["text"],
    usage: |_, found| {
        let [usage, tier] = found else { return None };
        let tier = raw(tier).and_then(Result::ok);
        raw(usage).map(|raw| usage_from_value(raw?, tier))
    },
};

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Report {
    input_tokens: Count,
    output_tokens: Count,
    // Some payloads have the second name.
    cache_read_input_tokens: Count,
    cache_read_input_token_count: Count,
    cache_write_input_tokens: Count,
    cache_write_input_token_count: Count,
    cache_details: Option<Vec<Detail>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Detail {
    ttl: Option<String>,
    input_tokens: Count,
}

#[derive(Deserialize)]
struct Tier {
    #[serde(rename = "type")]
    kind: Option<String>,
}

/// Reads the raw JSON of a usage object, and of what names the tier beside it.
pub fn usage_from_value(raw: &str, tier: Option<&str>) -> Result<Usage, Garbage> {
    // A derived struct would take an array for one.
    if !raw.trim_start().starts_with('{') {
        return Err(Garbage::Malformed);
    }
    let report: Report = serde_json::from_str(raw).map_err(|_| Garbage::Malformed)?;
    let input = report.input_tokens.read("inputTokens")?;
    let output = report.output_tokens.read("outputTokens")?;
    if input.is_none() && output.is_none() {
        return Err(Garbage::NoCounts);
    }
    let mut cache_read = report.cache_read_input_token_count;
    cache_read.replace(report.cache_read_input_tokens);
    let mut written = report.cache_write_input_token_count;
    written.replace(report.cache_write_input_tokens);
    let (mut short, mut long) = (0, 0);
    for detail in report.cache_details.iter().flatten() {
        let count = detail.input_tokens.read("cacheDetails.inputTokens")?.unwrap_or(0);
        match detail.ttl.as_deref() {
            Some("1h") => long += count,
            _ => short += count,
        }
    }
    let written = written.read("cacheWriteInputTokens")?.unwrap_or(0).max(short + long);
    let tier = tier.and_then(|raw| serde_json::from_str::<Tier>(raw).ok()).and_then(|tier| tier.kind);
    Ok(Usage {
        input: input.unwrap_or(0),
        cache_read: cache_read.read("cacheReadInputTokens")?.unwrap_or(0),
        cache_write: written - long,
        cache_write_long: long,
        output: output.unwrap_or(0),
        tier: tier.map_or(ServiceTier::Standard, |word| ServiceTier::from_word(&word)),
        source: Source::Exact,
        ..Usage::default()
    })
}
