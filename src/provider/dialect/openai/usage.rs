//! The usage object, taken apart into buckets that do not overlap.
//!
//! In this dialect the details are parts of the counts beside them. A report that makes no sense is
//! named as such and never read as zero.

use super::super::count::Count;
use super::super::{Garbage, Told, raw};
use crate::governance::request::RequestKind;
use crate::governance::usage::{ServiceTier, Source, Usage};
use crate::provider::json::Found;

/// Top-level keys of a document that are read.
pub const WANTED: &[&str] = &["usage", "service_tier"];

/// Keys of a document whose strings were generated.
pub fn texts(kind: RequestKind) -> &'static [&'static str] {
    match kind {
        RequestKind::ChatCompletion => &["content", "reasoning_content", "reasoning", "refusal", "arguments"],
        RequestKind::TextCompletion => &["text"],
        RequestKind::Responses => &["text", "refusal", "arguments"],
        // The others generate no text, or are not made here.
        _ => &[],
    }
}

/// Reads the usage of a document.
pub fn usage(kind: RequestKind, found: &[Found]) -> Told {
    let [usage, tier] = found else { return None };
    let tier = match tier {
        Found::Value(raw) => std::str::from_utf8(raw).ok().map(|raw| raw.trim_matches('"')),
        Found::Nothing | Found::TooLong => None,
    };
    raw(usage).map(|raw| usage_from_value(kind, raw?, tier))
}

/// Reads the raw JSON of a usage object, and the word for the tier that stood beside it.
pub fn usage_from_value(kind: RequestKind, raw: &str, service_tier: Option<&str>) -> Result<Usage, Garbage> {
    // A derived struct would take an array for one.
    if !raw.trim_start().starts_with('{') {
        return Err(Garbage::Malformed);
    }
    let report: Report = serde_json::from_str(raw).map_err(|_| Garbage::Malformed)?;
    let prompt = report.prompt_tokens.read("prompt_tokens")?;
    let completion = report.completion_tokens.read("completion_tokens")?;
    let input = report.input_tokens.read("input_tokens")?;
    let output = report.output_tokens.read("output_tokens")?;
    let total = report.total_tokens.read("total_tokens")?;
    // Some servers report in both forms at once; the one that belongs to the request counts.
    let (counted_in, counted_out) = match kind {
        RequestKind::Responses => (input.or(prompt), output.or(completion)),
        _ => (prompt.or(input), completion.or(output)),
    };
    if counted_in.is_none() && counted_out.is_none() {
        return Err(Garbage::NoCounts);
    }
    let (counted_in, counted_out) = (counted_in.unwrap_or(0), counted_out.unwrap_or(0));

    let (mut first, mut second) = (report.prompt_tokens_details, report.input_tokens_details);
    if kind == RequestKind::Responses {
        std::mem::swap(&mut first, &mut second);
    }
    let details = first.or(second).unwrap_or_default();
    let cache_read = details.cached_tokens.read("cached_tokens")?.unwrap_or(0);
    let written = details.cache_write_tokens.read("cache_write_tokens")?.unwrap_or(0);
    let lasting = details.cache_write_tokens_details.unwrap_or_default().ttl_12h_tokens;
    let cache_write_long = lasting.read("ttl_12h_tokens")?.unwrap_or(0);
    let audio_input = details.audio_tokens.read("audio_tokens")?.unwrap_or(0);
    let image_input = details.image_tokens.read("image_tokens")?.unwrap_or(0);
    let special = cache_read + written.max(cache_write_long) + audio_input + image_input;

    let (mut first, mut second) = (report.completion_tokens_details, report.output_tokens_details);
    if kind == RequestKind::Responses {
        std::mem::swap(&mut first, &mut second);
    }
    let details = first.or(second).unwrap_or_default();
    let reasoning = details.reasoning_tokens.read("reasoning_tokens")?.unwrap_or(0);
    let audio_output = details.audio_tokens.read("audio_tokens")?.unwrap_or(0);
    let image_output = details.image_tokens.read("image_tokens")?.unwrap_or(0);
    // A few providers count reasoning beside the output; only their total gives it away.
    let beside = total == Some(counted_in + counted_out + reasoning);
    let generated = if beside { counted_out + reasoning } else { counted_out };

    Ok(Usage {
        input: counted_in.saturating_sub(special),
        cache_read,
        cache_write: written.saturating_sub(cache_write_long),
        cache_write_long,
        audio_input,
        image_input,
        output: generated.saturating_sub(audio_output + image_output),
        reasoning,
        audio_output,
        image_output,
        tier: service_tier.map_or(ServiceTier::Standard, ServiceTier::from_word),
        source: Source::Exact,
        ..Usage::default()
    })
}

#[derive(serde::Deserialize)]
struct Report {
    #[serde(default)]
    prompt_tokens: Count,
    #[serde(default)]
    completion_tokens: Count,
    #[serde(default)]
    input_tokens: Count,
    #[serde(default)]
    output_tokens: Count,
    #[serde(default)]
    total_tokens: Count,
    prompt_tokens_details: Option<InputDetails>,
    // Of sound it is told by a name of its own.
    #[serde(alias = "input_token_details")]
    input_tokens_details: Option<InputDetails>,
    completion_tokens_details: Option<OutputDetails>,
    output_tokens_details: Option<OutputDetails>,
}

#[derive(serde::Deserialize, Default)]
#[serde(default)]
struct InputDetails {
    cached_tokens: Count,
    cache_write_tokens: Count,
    cache_write_tokens_details: Option<WriteDetails>,
    audio_tokens: Count,
    image_tokens: Count,
}

#[derive(serde::Deserialize, Default)]
#[serde(default)]
struct WriteDetails {
    ttl_12h_tokens: Count,
}

#[derive(serde::Deserialize, Default)]
#[serde(default)]
struct OutputDetails {
    reasoning_tokens: Count,
    audio_tokens: Count,
    image_tokens: Count,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(kind: RequestKind, raw: &str, expected: Result<Usage, Garbage>) {
        assert_eq!(usage_from_value(kind, raw, None), expected, "{raw}");
    }

    fn wrong(field: &'static str) -> Result<Usage, Garbage> {
        Err(Garbage::Count { field })
    }

    #[test]
    fn the_chat_form() {
        let chat = |raw: &str, usage: Usage| check(RequestKind::ChatCompletion, raw, Ok(usage));
        let plain = Usage { input: 9, output: 12, ..Usage::default() };
        chat(r#"{"prompt_tokens":9,"completion_tokens":12,"total_tokens":21}"#, plain);
        chat(r#"{"prompt_tokens":9.0,"completion_tokens":1.2e1}"#, plain);
        chat(r#"{"prompt_tokens":9,"completion_tokens":12,"prompt_tokens_details":null,"x":[{}]}"#, plain);
        chat(r#"{"input_tokens":9,"output_tokens":12}"#, plain);
        chat(r#"{"prompt_tokens":9,"completion_tokens":12,"input_tokens":1,"output_tokens":1}"#, plain);
        chat(r#"{"prompt_tokens":9}"#, Usage { input: 9, ..Usage::default() });
        chat(r#"{"prompt_tokens":null,"completion_tokens":3}"#, Usage { output: 3, ..Usage::default() });
        chat(
            r#"{"prompt_tokens":100,"completion_tokens":50,"total_tokens":150,
                "prompt_tokens_details":{"cached_tokens":40,"cache_write_tokens":10,"audio_tokens":5,"image_tokens":3},
                "completion_tokens_details":{"reasoning_tokens":20,"audio_tokens":6}}"#,
            Usage {
                input: 42,
                cache_read: 40,
                cache_write: 10,
                audio_input: 5,
                image_input: 3,
                output: 44,
                reasoning: 20,
                audio_output: 6,
                ..Usage::default()
            },
        );
        // More cached than sent: the rest is nothing, not a debt.
        chat(
            r#"{"prompt_tokens":5,"completion_tokens":0,"prompt_tokens_details":{"cached_tokens":8}}"#,
            Usage { cache_read: 8, ..Usage::default() },
        );
        // Reasoning beside the output, as the total shows.
        chat(
            r#"{"prompt_tokens":10,"completion_tokens":5,"total_tokens":115,"completion_tokens_details":{"reasoning_tokens":100}}"#,
            Usage { input: 10, output: 105, reasoning: 100, ..Usage::default() },
        );
    }

    #[test]
    fn the_responses_form() {
        check(
            RequestKind::Responses,
            r#"{"input_tokens":1000,"input_tokens_details":{"cached_tokens":300,"cache_write_tokens":200,
                "cache_write_tokens_details":{"ttl_30m_tokens":50,"ttl_12h_tokens":150}},
                "output_tokens":70,"output_tokens_details":{"reasoning_tokens":64},"total_tokens":1070}"#,
            Ok(Usage {
                input: 500,
                cache_read: 300,
                cache_write: 50,
                cache_write_long: 150,
                output: 70,
                reasoning: 64,
                ..Usage::default()
            }),
        );
        check(
            RequestKind::Embedding,
            r#"{"prompt_tokens":8,"total_tokens":8}"#,
            Ok(Usage { input: 8, ..Usage::default() }),
        );
    }

    #[test]
    fn the_tier_stands_beside() {
        let raw = r#"{"prompt_tokens":1,"completion_tokens":1}"#;
        let tier = |word| usage_from_value(RequestKind::ChatCompletion, raw, word).unwrap().tier;
        assert_eq!(tier(None), ServiceTier::Standard);
        assert_eq!(tier(Some("default")), ServiceTier::Standard);
        assert_eq!(tier(Some("flex")), ServiceTier::Flex);
        assert_eq!(tier(Some("fast")), ServiceTier::Priority);
    }

    #[test]
    fn garbage_is_named() {
        let chat = |raw: &str, expected| check(RequestKind::ChatCompletion, raw, expected);
        chat("", Err(Garbage::Malformed));
        chat("12", Err(Garbage::Malformed));
        chat("null", Err(Garbage::Malformed));
        chat("[1,2]", Err(Garbage::Malformed));
        chat(r#"{"prompt_tokens":1"#, Err(Garbage::Malformed));
        chat(r#"{"prompt_tokens":1,"prompt_tokens_details":7}"#, Err(Garbage::Malformed));
        chat("{}", Err(Garbage::NoCounts));
        chat(r#"{"total_tokens":5}"#, Err(Garbage::NoCounts));
        chat(r#"{"prompt_tokens":null,"completion_tokens":null}"#, Err(Garbage::NoCounts));
        chat(r#"{"prompt_tokens":-1,"completion_tokens":1}"#, wrong("prompt_tokens"));
        chat(r#"{"prompt_tokens":1,"completion_tokens":12.5}"#, wrong("completion_tokens"));
        chat(r#"{"prompt_tokens":"1","completion_tokens":1}"#, wrong("prompt_tokens"));
        chat(r#"{"prompt_tokens":true}"#, wrong("prompt_tokens"));
        chat(r#"{"prompt_tokens":[1]}"#, wrong("prompt_tokens"));
        chat(r#"{"prompt_tokens":{"a":1}}"#, wrong("prompt_tokens"));
        chat(r#"{"prompt_tokens":18446744073709551616}"#, wrong("prompt_tokens"));
        chat(r#"{"prompt_tokens":18446744073709551615}"#, wrong("prompt_tokens"));
        chat(r#"{"prompt_tokens":1,"prompt_tokens_details":{"cached_tokens":-4}}"#, wrong("cached_tokens"));
    }
}
