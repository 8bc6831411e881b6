//! Walks the transcripts under `tests/fixtures`: cut anywhere, each gives the same usage and bytes.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::Index;
use serde::Deserialize;

use super::dialect::path;
use super::stream::frames;
use super::{Call, Door, FirstEvent, Framing, Out, Reader, Reading, Route, read_typed_call};
use crate::governance::request::{Dialect, RequestKind};
use crate::governance::usage::{Pictures, Quality, ServiceTier, Usage};

/// What the requests are that are no JSON.
const FORM: Option<&str> = Some("multipart/form-data; boundary=xyz");

#[derive(Debug, Clone)]
struct Case {
    name: String,
    route: Route,
    /// What the bodies are written in.
    format: Dialect,
    request: Vec<u8>,
    answer: Bytes,
    framing: Framing,
    expected: Expected,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    /// What the request was sent to.
    path: String,
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
    audio_input: u64,
    image_input: u64,
    audio_output: u64,
    image_output: u64,
    searches: u32,
    input_millis: u32,
    /// Of pictures.
    size: String,
    quality: String,
    tier: String,
}

fn cases() -> Vec<Case> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let folders = Dialect::ALL.map(|dialect| root.join(dialect.as_str().to_lowercase()));
    let found = folders.iter().filter(|folder| folder.exists()).flat_map(|folder| fs::read_dir(folder).unwrap());
    let mut cases: Vec<Case> = found.map(|entry| case(&entry.unwrap().path())).collect();
    cases.sort_by(|one, other| one.name.cmp(&other.name));
    assert!(cases.len() >= 9, "the fixtures are there");
    cases
}

fn case(folder: &Path) -> Case {
    let read = |name: &str| fs::read(folder.join(name));
    let expected: Expected = serde_json::from_slice(&read("usage.json").unwrap()).unwrap();
    let framings = [
        ("stream.sse", Framing::Events),
        ("stream.json", Framing::Array),
        ("stream.frames", Framing::Frames),
        ("response.json", Framing::Document),
    ];
    let (file, framing) = framings.into_iter().find(|(file, _)| folder.join(file).exists()).unwrap();
    let mut answer = read(file).unwrap();
    if framing == Framing::Frames {
        answer = framed(std::str::from_utf8(&answer).unwrap());
    }
    let (_, Some(Door::Call(route))) = path::read(&expected.path) else { panic!("{}", expected.path) };
    let request = read("request.json").or_else(|_| read("request.form")).unwrap();
    let format = read_typed_call(&route, FORM, &request).unwrap().format;
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    Case {
        name: format!("{}/{}", name(folder.parent().unwrap()), name(folder)),
        route,
        format,
        request,
        answer: answer.into(),
        framing,
        expected,
    }
}

/// Each line is the kind of a message, its name and its payload.
fn framed(lines: &str) -> Vec<u8> {
    let line = |line: &str| {
        let (kind, rest) = line.split_once(' ').unwrap();
        let (name, payload) = rest.split_once(' ').unwrap();
        let kind_header = if kind == "event" { ":event-type" } else { ":exception-type" };
        let headers = [(kind_header, name), (":content-type", "application/json"), (":message-type", kind)];
        frames::frame(&headers, payload.as_bytes())
    };
    lines.lines().flat_map(line).collect()
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
            audio_input: counts.audio_input,
            image_input: counts.image_input,
            audio_output: counts.audio_output,
            image_output: counts.image_output,
            searches: counts.searches,
            input_millis: counts.input_millis,
            output_pictures: Pictures {
                count: 0,
                width: Pictures::size(&counts.size).unwrap_or_default().0,
                height: Pictures::size(&counts.size).unwrap_or_default().1,
                quality: Quality::from_word(&counts.quality),
            },
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
        if self.withholds() {
            self.check_with(cuts, true, &self.without_usage());
        }
    }

    /// Only here is something taken out of an answer.
    fn withholds(&self) -> bool {
        self.route.dialect == Dialect::OpenAi && self.framing == Framing::Events
    }

    fn check_with(&self, cuts: &[usize], withhold: bool, expected: &[u8]) {
        let mut reader = Reader::new(self.format, self.route.kind, self.framing, withhold);
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
        assert_eq!(reader.first_event(), self.framing.is_stream().then_some(FirstEvent::Content), "{}", self.name);
    }
}

#[test]
fn requests_are_understood() {
    for case in cases() {
        let call: Call = read_typed_call(&case.route, FORM, &case.request).unwrap();
        // Speech is streamed by another word, which changes nothing here.
        let by_word = case.route.kind == RequestKind::Speech;
        assert_eq!(call.stream, case.framing.is_stream() && !by_word, "{}", case.name);
        assert!(call.input_bound().is_none_or(|bound| call.input_estimate() <= bound), "{}", case.name);
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
        if case.withholds() {
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
