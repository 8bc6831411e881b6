//! The usage object, taken apart into buckets that do not overlap.
//!
//! Here what was read from a cache is part of the prompt, thoughts stand beside the answer, and what a tool
//! brought in beside the prompt. A count of zero is left out.

use serde::Deserialize;

use super::super::count::Count;
use super::super::{Document, Garbage, raw};
use crate::governance::usage::{ServiceTier, Source, Usage};

/// How a whole answer is read.
pub const DOCUMENT: Document = Document {
    wanted: &["usageMetadata"],
    texts: &["text", "code"],
    usage: |_, found| {
        let [usage] = found else { return None };
        raw(usage).map(|raw| usage_from_value(raw?))
    },
};

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Report {
    prompt_token_count: Count,
    cached_content_token_count: Count,
    candidates_token_count: Count,
    thoughts_token_count: Count,
    tool_use_prompt_token_count: Count,
    prompt_tokens_details: Option<Vec<Detail>>,
    cache_tokens_details: Option<Vec<Detail>>,
    candidates_tokens_details: Option<Vec<Detail>>,
    tool_use_prompt_tokens_details: Option<Vec<Detail>>,
    traffic_type: Option<String>,
    service_tier: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Detail {
    modality: Option<String>,
    token_count: Count,
}

/// Reads the raw JSON of a usage object.
pub fn usage_from_value(raw: &str) -> Result<Usage, Garbage> {
    // A derived struct would take an array for one.
    if !raw.trim_start().starts_with('{') {
        return Err(Garbage::Malformed);
    }
    let report: Report = serde_json::from_str(raw).map_err(|_| Garbage::Malformed)?;
    let prompt = report.prompt_token_count.read("promptTokenCount")?;
    let answer = report.candidates_token_count.read("candidatesTokenCount")?;
    let thoughts = report.thoughts_token_count.read("thoughtsTokenCount")?;
    let tools = report.tool_use_prompt_token_count.read("toolUsePromptTokenCount")?;
    if [prompt, answer, thoughts, tools].iter().all(Option::is_none) {
        return Err(Garbage::NoCounts);
    }
    let cache_read = report.cached_content_token_count.read("cachedContentTokenCount")?.unwrap_or(0);
    let (sent, cached) = (&report.prompt_tokens_details, &report.cache_tokens_details);
    let (fetched, written) = (&report.tool_use_prompt_tokens_details, &report.candidates_tokens_details);
    let special = |modality| -> Result<u64, Garbage> {
        Ok((of(sent, modality)? + of(fetched, modality)?).saturating_sub(of(cached, modality)?))
    };
    let (audio_input, image_input) = (special("AUDIO")?, special("IMAGE")?);
    let (audio_output, image_output) = (of(written, "AUDIO")?, of(written, "IMAGE")?);
    let (sent, thoughts) = (prompt.unwrap_or(0) + tools.unwrap_or(0), thoughts.unwrap_or(0));
    Ok(Usage {
        input: sent.saturating_sub(cache_read + audio_input + image_input),
        cache_read,
        audio_input,
        image_input,
        output: answer.unwrap_or(0).saturating_sub(audio_output + image_output) + thoughts,
        reasoning: thoughts,
        audio_output,
        image_output,
        tier: tier(report.traffic_type.as_deref(), report.service_tier.as_deref()),
        source: Source::Exact,
        ..Usage::default()
    })
}

/// The tokens of one modality.
fn of(details: &Option<Vec<Detail>>, modality: &str) -> Result<u64, Garbage> {
    let mut sum = 0;
    for detail in details.iter().flatten() {
        let count = detail.token_count.read("tokenCount")?.unwrap_or(0);
        if detail.modality.as_deref() == Some(modality) {
            sum += count;
        }
    }
    Ok(sum)
}

fn tier(traffic: Option<&str>, tier: Option<&str>) -> ServiceTier {
    match traffic {
        Some("ON_DEMAND_PRIORITY") => ServiceTier::Priority,
        Some("ON_DEMAND_FLEX") => ServiceTier::Flex,
        _ => tier.map_or(ServiceTier::Standard, |word| ServiceTier::from_word(&word.to_ascii_lowercase())),
    }
}
