//! When a provider wants to be asked again, in all the spellings that there are.

use crate::governance::time::Timestamp;
use chrono::DateTime;
use http::HeaderMap;
use std::time::Duration;

/// Plain numbers from here on are no waits but times: seconds, and from the second on milliseconds, since 1970.
const EPOCH_SECONDS: f64 = 1e9;
const EPOCH_MILLIS: f64 = 1e12;

/// How long to wait before the next call, if the answer says so. The most direct statement counts: what is in
/// milliseconds, then `retry-after`, then `delay` of a body, then the end of the limit that is used up, then a sentence.
pub fn asked_wait(headers: &HeaderMap, delay: Option<&str>, message: &str, now: Timestamp) -> Option<Duration> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let millis = || header("retry-after-ms").and_then(number).and_then(|millis| seconds(millis / 1e3));
    let after = || header("retry-after").and_then(|text| wait(text, now));
    let delay = || delay.and_then(|text| wait(text, now));
    millis().or_else(after).or_else(delay).or_else(|| used_up(headers, now)).or_else(|| spoken(message))
}

/// One value: a number of seconds, a duration, or a time in any of three ways of writing it.
fn wait(text: &str, now: Timestamp) -> Option<Duration> {
    let until = |millis: i64| Some(Duration::from_millis(Timestamp::from_millis(millis).since(now)));
    if let Some(plain) = number(text) {
        return match plain {
            // Both fit: neither is beyond the year 2286, and sixteen digits are far.
            plain if plain >= EPOCH_MILLIS => until(plain as i64),
            plain if plain >= EPOCH_SECONDS => until((plain * 1e3) as i64),
            plain => seconds(plain),
        };
    }
    if let Some(spelled) = spelled(text) {
        return Some(spelled);
    }
    if let Some(at) = Timestamp::parse(text) {
        return until(at.millis());
    }
    DateTime::parse_from_rfc2822(text).ok().and_then(|at| until(at.timestamp_millis()))
}

/// Digits with a point; nothing negative, which some send for "unknown", and no other notation.
fn number(text: &str) -> Option<f64> {
    let plain = !text.is_empty() && text.len() <= 32 && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    plain.then(|| text.parse().ok()).flatten()
}

fn seconds(seconds: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds).ok()
}

/// `1h2m3.5s`, `6m0s`, `250ms`, `34s`: numbers with their units, and nothing else.
fn spelled(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = None;
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
        let (amount, unit_and_more) = rest.split_at(digits);
        let letters = unit_and_more.find(|letter: char| letter.is_ascii_digit()).unwrap_or(unit_and_more.len());
        let (unit, more) = unit_and_more.split_at(letters);
        let scale = match unit {
            "d" => 86_400.0,
            "h" => 3_600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        let part = seconds(number(amount)? * scale)?;
        total = Some(total.unwrap_or(Duration::ZERO).checked_add(part)?);
        rest = more;
    }
    total
}

/// The latest end of the limits of which nothing is left. Where nobody says what is left of any, their earliest end.
fn used_up(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let (mut latest, mut earliest) = (None, None);
    for (name, value) in headers {
        let name = name.as_str();
        if !name.contains("ratelimit") || !name.contains("reset") {
            continue;
        }
        let Some(end) = value.to_str().ok().and_then(|text| wait(text.trim(), now)) else { continue };
        match headers.get(name.replace("reset", "remaining")).map(|left| left.as_bytes()) {
            Some(b"0") => latest = latest.max(Some(end)),
            Some(_) => {}
            None => earliest = Some(earliest.map_or(end, |earliest: Duration| earliest.min(end))),
        }
    }
    latest.or(earliest)
}

/// "Please retry after 4 seconds", "Please try again in 41.724s". The message is in lower case.
fn spoken(message: &str) -> Option<Duration> {
    let (_, rest) = ["retry after ", "try again in "].iter().find_map(|words| message.split_once(words))?;
    let mut words = rest.split_whitespace();
    let first = words.next()?.trim_end_matches(['.', ',', ';', ')']);
    if let Some(spelled) = spelled(first) {
        return Some(spelled);
    }
    let unit = words.next().unwrap_or("seconds");
    let scale = match unit.trim_end_matches(|letter: char| !letter.is_ascii_alphabetic()) {
        "second" | "seconds" => 1.0,
        "minute" | "minutes" => 60.0,
        "millisecond" | "milliseconds" => 1e-3,
        _ => return None,
    };
    seconds(number(first)? * scale)
}
