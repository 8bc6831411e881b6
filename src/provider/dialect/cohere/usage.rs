//! The usage object. What is billed leaves out what the provider itself added to the prompt, and is what counts.

use serde::Deserialize;

use super::super::count::Count;
use super::super::{Document, Garbage, raw};
use crate::governance::request::RequestKind;
use crate::governance::usage::{Source, Usage};

/// How a whole answer is read.
pub fn document(kind: RequestKind) -> Document {
    let texts: &[&str] = match kind {
        RequestKind::ChatCompletion => &["text", "thinking", "tool_plan", "arguments"],
        // The others generate nothing; some repeat what they were given.
        _ => &[],
    };
    Document {
        wanted: &["usage", "meta"],
        texts,
        usage: |_, found| {
            let [usage, meta] = found else { return None };
            raw(usage).or_else(|| raw(meta)).map(|raw| usage_from_value(raw?))
        },
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Report {
    billed_units: Option<Units>,
    tokens: Option<Units>,
    cached_tokens: Count,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Units {
    input_tokens: Count,
    output_tokens: Count,
    image_tokens: Count,
    search_units: Count,
    classifications: Count,
}

/// Reads the raw JSON of a usage object.
pub fn usage_from_value(raw: &str) -> Result<Usage, Garbage> {
    // A derived struct would take an array for one.
    if !raw.trim_start().starts_with('{') {
        return Err(Garbage::Malformed);
    }
    let report: Report = serde_json::from_str(raw).map_err(|_| Garbage::Malformed)?;
    let units = report.billed_units.or(report.tokens).ok_or(Garbage::NoCounts)?;
    let input = units.input_tokens.read("input_tokens")?;
    let output = units.output_tokens.read("output_tokens")?;
    let image_input = units.image_tokens.read("image_tokens")?;
    let searches = units.search_units.read_small("search_units")?;
    let classified = units.classifications.read("classifications")?;
    if input.or(output).or(image_input).or(classified).is_none() && searches.is_none() {
        return Err(Garbage::NoCounts);
    }
    let cache_read = report.cached_tokens.read("cached_tokens")?.unwrap_or(0).min(input.unwrap_or(0));
    Ok(Usage {
        input: input.unwrap_or(0) - cache_read,
        cache_read,
        image_input: image_input.unwrap_or(0),
        output: output.unwrap_or(0),
        searches: searches.unwrap_or(0),
        source: Source::Exact,
        ..Usage::default()
    })
}
