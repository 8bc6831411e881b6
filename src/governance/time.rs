//! Instants, durations as people write them, and the windows that limits reset by.
//!
//! Nothing here asks what time it is: an instant is always an argument.

use chrono::{DateTime, Datelike, Days, Months, NaiveDate, SecondsFormat};
use std::fmt;
use std::sync::Arc;

/// Milliseconds since 1970-01-01 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    pub const fn from_millis(millis: i64) -> Timestamp {
        Timestamp(millis)
    }

    pub const fn millis(self) -> i64 {
        self.0
    }

    pub fn plus(self, millis: i64) -> Timestamp {
        Timestamp(self.0.saturating_add(millis))
    }

    /// Milliseconds from `earlier` to `self`; zero if it is not earlier.
    pub fn since(self, earlier: Timestamp) -> u64 {
        u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0)
    }

    /// Reads RFC 3339.
    pub fn parse(text: &str) -> Option<Timestamp> {
        DateTime::parse_from_rfc3339(text).ok().map(|at| Timestamp(at.timestamp_millis()))
    }

    fn date(self) -> NaiveDate {
        DateTime::from_timestamp_millis(self.0).map(|at| at.date_naive()).unwrap_or(NaiveDate::MAX)
    }

    fn from_date(date: NaiveDate) -> Timestamp {
        Timestamp(date.and_time(chrono::NaiveTime::MIN).and_utc().timestamp_millis())
    }
}

/// RFC 3339 in UTC, with milliseconds only where there are any.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match DateTime::from_timestamp_millis(self.0) {
            Some(at) => f.write_str(&at.to_rfc3339_opts(SecondsFormat::AutoSi, true)),
            None => f.write_str("never"),
        }
    }
}

/// A length of time as people write it (`30s`, `1h30m`, `1d`, `1M`), its own text kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    text: Arc<str>,
    millis: i64,
    /// The calendar unit, if the text is exactly one of `1d 1w 1M 1Y`.
    calendar: Option<Calendar>,
}

/// Periods of the UTC calendar. Weeks begin on Monday.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Calendar {
    Day,
    Week,
    Month,
    Year,
}

/// Why a text is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpanError {
    #[error("Invalid reset duration format: {0}")]
    Format(String),
    #[error("calendar alignment needs exactly 1d, 1w, 1M or 1Y, not {0}")]
    NotAligned(String),
}

const SECOND: i64 = 1_000;
const DAY: i64 = 24 * 3_600 * SECOND;
/// A thousand years: beyond it a limit never resets, which nobody means.
const SPAN_MAX: i64 = 1_000 * 365 * DAY;

impl Span {
    /// Reads Go's durations (`1h30m`, `1.5h`, `500ms`) or one count of `d w M Y`. At least 1 ms.
    pub fn parse(text: &str) -> Result<Span, SpanError> {
        let bad = || SpanError::Format(text.chars().take(32).collect());
        if text.is_empty() || text.len() > 32 {
            return Err(bad());
        }
        let (calendar, millis) = match text.chars().last().and_then(calendar_unit) {
            Some((unit, length)) => {
                let count = &text[..text.len() - 1];
                let millis = scaled(count, length * 1_000_000).ok_or_else(bad)?;
                ((count == "1").then_some(unit), millis)
            }
            None => (None, go_duration(text).ok_or_else(bad)?),
        };
        let millis = i64::try_from(millis / 1_000_000).map_err(|_| bad())?;
        if !(1..=SPAN_MAX).contains(&millis) {
            return Err(bad());
        }
        Ok(Span { text: text.into(), millis, calendar })
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn millis(&self) -> i64 {
        self.millis
    }
}

fn calendar_unit(unit: char) -> Option<(Calendar, i64)> {
    match unit {
        'd' => Some((Calendar::Day, DAY)),
        'w' => Some((Calendar::Week, 7 * DAY)),
        'M' => Some((Calendar::Month, 30 * DAY)),
        'Y' => Some((Calendar::Year, 365 * DAY)),
        _ => None,
    }
}

/// `count` (a plain decimal) times `unit`, in the unit's own scale.
fn scaled(count: &str, unit: i64) -> Option<i128> {
    let (whole, fraction) = count.split_once('.').unwrap_or((count, ""));
    let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !all_digits(whole) || !all_digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let part: i128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let power = 10i128.pow(u32::try_from(fraction.len()).ok()?);
    whole.checked_mul(i128::from(unit))?.checked_add(part * i128::from(unit) / power)
}

/// Go's duration syntax, in nanoseconds.
fn go_duration(text: &str) -> Option<i128> {
    let mut rest = text;
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let unit_at = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (count, tail) = rest.split_at(unit_at);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, next) = tail.split_at(unit_end);
        let nanos = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        total = total.checked_add(scaled(count, nanos)?)?;
        rest = next;
    }
    Some(total)
}

/// When a limit starts again. The windows of one schedule tile time: each is half open and begins
/// where the one before it ends. Cloning shares the schedule: many limits have the same few.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window(Arc<Schedule>);

#[derive(Debug, PartialEq, Eq)]
struct Schedule {
    span: Span,
    aligned: Option<Calendar>,
}

impl Window {
    pub fn rolling(span: Span) -> Window {
        Window(Arc::new(Schedule { span, aligned: None }))
    }

    /// Windows that follow the UTC calendar. Only `1d`, `1w`, `1M` and `1Y` name a calendar period.
    pub fn aligned(span: Span) -> Result<Window, SpanError> {
        match span.calendar {
            Some(unit) => Ok(Window(Arc::new(Schedule { span, aligned: Some(unit) }))),
            None => Err(SpanError::NotAligned(span.text.to_string())),
        }
    }

    pub fn span(&self) -> &Span {
        &self.0.span
    }

    pub fn is_aligned(&self) -> bool {
        self.0.aligned.is_some()
    }

    /// The start of the window that holds `now`. Rolling windows count from `anchor`; an instant
    /// before the anchor belongs to the anchor's own window, so a clock stepping back reopens nothing.
    pub fn start(&self, anchor: Timestamp, now: Timestamp) -> Timestamp {
        match self.0.aligned {
            None => {
                let passed = now.0.saturating_sub(anchor.0).max(0);
                Timestamp(anchor.0.saturating_add(passed - passed % self.0.span.millis))
            }
            Some(unit) => {
                let date = now.date();
                let first = match unit {
                    Calendar::Day => Some(date),
                    Calendar::Week => {
                        date.checked_sub_days(Days::new(u64::from(date.weekday().num_days_from_monday())))
                    }
                    Calendar::Month => date.with_day(1),
                    Calendar::Year => NaiveDate::from_ymd_opt(date.year(), 1, 1),
                };
                Timestamp::from_date(first.unwrap_or(date))
            }
        }
    }

    /// The end of the window that begins at `start`: the first instant that is no longer in it.
    pub fn end(&self, start: Timestamp) -> Timestamp {
        let Some(unit) = self.0.aligned else { return start.plus(self.0.span.millis) };
        let first = self.start(start, start).date();
        let next = match unit {
            Calendar::Day => first.checked_add_days(Days::new(1)),
            Calendar::Week => first.checked_add_days(Days::new(7)),
            Calendar::Month => first.checked_add_months(Months::new(1)),
            Calendar::Year => first.checked_add_months(Months::new(12)),
        };
        Timestamp::from_date(next.unwrap_or(NaiveDate::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn spans_are_read() {
        let check = |text: &str, millis: i64| assert_eq!(Span::parse(text).map(|s| s.millis), Ok(millis), "{text}");
        check("30s", 30_000);
        check("1h30m", 5_400_000);
        check("1.5h", 5_400_000);
        check("500ms", 500);
        check("1d", DAY);
        check("1w", 7 * DAY);
        check("1M", 30 * DAY);
        check("2Y", 730 * DAY);
        for bad in ["", "0s", "-1h", "1", "h", "1x", "1d1h", "1m1d", "1 h", "1us", "99999999999999Y", "1.1.1h"] {
            assert!(Span::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn calendar_periods_begin_where_people_expect() {
        let check = |span: &str, now: &str, start: &str, end: &str| {
            let window = Window::aligned(Span::parse(span).unwrap()).unwrap();
            let begun = window.start(Timestamp(0), Timestamp::parse(now).unwrap());
            assert_eq!(
                (begun.to_string().as_str(), window.end(begun).to_string().as_str()),
                (start, end),
                "{span} {now}"
            );
        };
        check("1d", "2026-11-21T13:00:00Z", "2026-11-21T00:00:00Z", "2026-11-22T00:00:00Z");
        check("1w", "2026-11-21T13:00:00Z", "2026-11-16T00:00:00Z", "2026-11-23T00:00:00Z");
        check("1M", "2026-12-31T23:59:59Z", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z");
        check("1Y", "2028-02-29T00:00:00Z", "2028-01-01T00:00:00Z", "2029-01-01T00:00:00Z");
        assert!(Window::aligned(Span::parse("3M").unwrap()).is_err());
        assert!(Window::aligned(Span::parse("1h").unwrap()).is_err());
    }

    fn any_window() -> impl Strategy<Value = Window> {
        let rolling = (1i64..100 * DAY).prop_map(|ms| Window::rolling(Span::parse(&format!("{ms}ms")).unwrap()));
        let aligned = prop::sample::select(vec!["1d", "1w", "1M", "1Y"])
            .prop_map(|text| Window::aligned(Span::parse(text).unwrap()).unwrap());
        prop_oneof![rolling, aligned]
    }

    proptest! {
        #[test]
        fn windows_tile_time(window in any_window(), anchor in 0..4_000_000_000_000i64, passed in 0..900 * DAY) {
            let (anchor, now) = (Timestamp(anchor), Timestamp(anchor + passed));
            let start = window.start(anchor, now);
            let end = window.end(start);
            prop_assert!(start <= now && now < end);
            prop_assert_eq!(window.start(anchor, end), end);
            prop_assert_eq!(window.start(anchor, end.plus(-1)), start);
        }

        #[test]
        fn any_text_is_a_span_or_refused(text in ".{0,40}") {
            let _ = Span::parse(&text);
        }
    }
}
