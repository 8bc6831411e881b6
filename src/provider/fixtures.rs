//! Walks the transcripts under `tests/fixtures`: cut anywhere, each gives the same usage and bytes.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::Index;
use serde::Deserialize;

use super::{Call, FirstEvent, Out, Reader, Reading};
use crate::governance::request::RequestKind;
use crate::governance::usage::{ServiceTier, Usage};

#[derive(Debug, Clone)]
struct Case {
    name: String,
    kind: RequestKind,
    request: Vec<u8>,
    answer: Bytes,
    streamed: bool,
    expected: Expected,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    kind: String,
    usage: Counts,
    delivered_tokens: u64,
    withheld_events: usize,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Counts {
    input: u64,
    cache_read: u64,
    cache_write: u64,
    cache_write_long: u64,
    output: u64,
    reasoning: u64,
    tier: String,
}

fn cases() -> Vec<Case> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/openai");
    let mut cases: Vec<Case> = fs::read_dir(root).unwrap().map(|entry| case(&entry.unwrap().path())).collect();
    cases.sort_by(|one, other| one.name.cmp(&other.name));
    assert!(cases.len() >= 9, "the fixtures are there");
    cases
}

fn case(folder: &Path) -> Case {
    let expected: Expected = serde_json::from_slice(&fs::read(folder.join("usage.json")).unwrap()).unwrap();
    let streamed = folder.join("stream.sse").exists();
    Case {
        name: folder.file_name().unwrap().to_string_lossy().into_owned(),
        kind: RequestKind::from_name(&expected.kind).unwrap(),
        request: fs::read(folder.join("request.json")).unwrap(),
        answer: fs::read(folder.join(if streamed { "stream.sse" } else { "response.json" })).unwrap().into(),
        streamed,
        expected,
    }
}

impl Case {
    fn reading(&self) -> Reading {
        let counts = &self.expected.usage;
        let usage = Usage {
            input: counts.input,
            cache_read: counts.cache_read,
            cache_write: counts.cache_write,
            cache_write_long: counts.cache_write_long,
            output: counts.output,
            reasoning: counts.reasoning,
            tier: ServiceTier::from_word(&counts.tier),
            ..Usage::default()
        };
        Reading { usage: Some(usage), garbage: None, delivered_tokens: self.expected.delivered_tokens, finished: true }
    }

    /// The answer without the events that only tell the usage, found without the code under test.
    fn without_usage(&self) -> Vec<u8> {
        let answer = std::str::from_utf8(&self.answer).unwrap();
        let end = if answer.contains("\r\n\r\n") { "\r\n\r\n" } else { "\n\n" };
        let (withheld, kept): (Vec<&str>, Vec<&str>) = answer.split_inclusive(end).partition(|event| {
            let data = event.trim().strip_prefix("data: ").unwrap_or_default();
            let json: serde_json::Value = serde_json::from_str(data).unwrap_or_default();
            json["choices"].as_array().is_some_and(Vec::is_empty) && json["usage"].is_object()
        });
        assert_eq!(withheld.len(), self.expected.withheld_events, "{}", self.name);
        kept.concat().into_bytes()
    }

    fn check(&self, cuts: &[usize]) {
        self.check_with(cuts, false, &self.answer);
        if self.streamed {
            self.check_with(cuts, true, &self.without_usage());
        }
    }

    fn check_with(&self, cuts: &[usize], withhold: bool, expected: &[u8]) {
        let mut reader = if self.streamed { Reader::stream(self.kind, withhold) } else { Reader::unary(self.kind) };
        let (mut out, mut from) = (Out::new(), 0);
        for &to in cuts.iter().chain([&self.answer.len()]) {
            reader.chunk(self.answer.slice(from..to), &mut out);
            from = to;
        }
        // All is out before the end is known.
        let bytes = out.concat();
        assert_eq!(bytes, expected, "{} {withhold} {cuts:?}", self.name);
        reader.flush(&mut out);
        assert_eq!(out.concat(), bytes, "{} {withhold} {cuts:?}", self.name);
        assert_eq!(reader.reading(), self.reading(), "{} {withhold} {cuts:?}", self.name);
        assert_eq!(reader.first_event(), self.streamed.then_some(FirstEvent::Content), "{}", self.name);
    }
}

#[test]
fn requests_are_understood() {
    for case in cases() {
        let call = Call::read(case.kind, &case.request).unwrap();
        assert_eq!(call.stream, case.streamed, "{}", case.name);
        assert!(call.input_estimate() <= call.input_bound().unwrap(), "{}", case.name);
    }
}

#[test]
fn whole_and_byte_by_byte() {
    for case in cases() {
        case.check(&[]);
        case.check(&(1..case.answer.len()).collect::<Vec<_>>());
    }
}

/// Once cut into two pieces, at every place.
#[test]
fn cut_in_two() {
    for case in cases() {
        (1..case.answer.len()).for_each(|cut| case.check_with(&[cut], false, &case.answer));
        if case.streamed {
            let expected = case.without_usage();
            (1..case.answer.len()).for_each(|cut| case.check_with(&[cut], true, &expected));
        }
    }
}

proptest! {
    #[test]
    fn cut_at_random(cuts in proptest::collection::vec(any::<Index>(), 0..12)) {
        for case in cases() {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(case.answer.len())).collect();
            cuts.sort_unstable();
            case.check(&cuts);
        }
    }
}
