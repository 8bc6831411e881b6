//! The usage of answers that are pictures or transcripts: told in tokens, in seconds, or not at all.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::{Document, Garbage, Told, raw};
use super::usage::usage_from_value;
use crate::governance::request::RequestKind;
use crate::governance::usage::{Pictures, Quality, Usage};
use crate::provider::json::Found;

/// No sound is longer: a month.
const SECONDS_MAX: f64 = 2_678_400.0;

/// Pictures tell their size and quality beside their usage.
pub const PICTURES: Document = Document { wanted: &["usage", "size", "quality"], texts: &[], usage: pictures };

/// A transcript that tells no usage may still say how long the sound was.
pub const TRANSCRIPT: Document = Document { wanted: &["usage", "duration"], texts: &[], usage: transcript };

fn pictures(kind: RequestKind, found: &[Found]) -> Told {
    let [usage, size, quality] = found else { return None };
    let (width, height) = word(size).and_then(Pictures::size).unwrap_or_default();
    let quality = word(quality).map(Quality::from_word).unwrap_or_default();
    let told = raw(usage)?.and_then(|raw| usage_from_value(kind, raw, None));
    Some(told.map(|usage| Usage { output_pictures: Pictures { count: 0, width, height, quality }, ..usage }))
}

fn transcript(kind: RequestKind, found: &[Found]) -> Told {
    let [usage, duration] = found else { return None };
    match raw(usage) {
        Some(told) => Some(told.and_then(|raw| of_sound(kind, raw))),
        None => Some(raw(duration)?.and_then(|raw| seconds(raw, "duration"))),
    }
}

#[derive(Deserialize)]
struct Seconds<'a> {
    #[serde(borrow)]
    seconds: Option<&'a RawValue>,
}

/// The usage of sound that was sent: a number of seconds, else tokens.
pub fn of_sound(kind: RequestKind, raw: &str) -> Result<Usage, Garbage> {
    // A derived struct would take an array for one.
    if !raw.trim_start().starts_with('{') {
        return Err(Garbage::Malformed);
    }
    let told: Seconds<'_> = serde_json::from_str(raw).map_err(|_| Garbage::Malformed)?;
    match told.seconds.map(RawValue::get).filter(|raw| *raw != "null") {
        Some(raw) => seconds(raw, "seconds"),
        None => usage_from_value(kind, raw, None),
    }
}

fn seconds(raw: &str, field: &'static str) -> Result<Usage, Garbage> {
    // Some write the number as a text.
    let seconds = raw.trim_matches('"').parse().ok().filter(|seconds| (0.0..=SECONDS_MAX).contains(seconds));
    // Beyond the last thousandth only the arithmetic of floats is left.
    let millis = seconds.map(|seconds: f64| (seconds * 1_000.0 - 1e-6).ceil().max(0.0) as u32);
    Ok(Usage { input_millis: millis.ok_or(Garbage::Count { field })?, ..Usage::default() })
}

fn word(found: &Found) -> Option<&str> {
    raw(found)?.ok().map(|raw| raw.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sound_is_told_in_seconds_or_tokens() {
        let check = |usage: &str, duration: &str, expected: Told| {
            let found = |text: &str| match text {
                "" => Found::Nothing,
                text => Found::Value(text.as_bytes().to_vec()),
            };
            let told = transcript(RequestKind::Transcription, &[found(usage), found(duration)]);
            assert_eq!(told, expected, "{usage} {duration}");
        };
        let millis = |input_millis| Some(Ok(Usage { input_millis, ..Usage::default() }));
        check(r#"{"type":"duration","seconds":9}"#, "8.47", millis(9_000));
        check("", "8.470000267028809", millis(8_471));
        check("", "1.1", millis(1_100));
        check("", r#""8.47""#, millis(8_470));
        check("null", "0", millis(0));
        check("", "", None);
        let tokens = r#"{"type":"tokens","input_tokens":14,"output_tokens":45,"total_tokens":59,
            "input_token_details":{"text_tokens":4,"audio_tokens":10}}"#;
        check(tokens, "", Some(Ok(Usage { input: 4, audio_input: 10, output: 45, ..Usage::default() })));
        let wrong = |field| Some(Err(Garbage::Count { field }));
        for seconds in ["-1", "1e30", "true", r#""x""#, "NaN", "[1]"] {
            check("", seconds, wrong("duration"));
        }
        check(r#"{"seconds":-3}"#, "4", wrong("seconds"));
        check("[]", "4", Some(Err(Garbage::Malformed)));
        check("{}", "4", Some(Err(Garbage::NoCounts)));
    }
}
