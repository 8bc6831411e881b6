//! The functions that expressions may call.

use super::eval::{Evaluation, Fault, length};
use super::value::Value;
use chrono::{DateTime, Datelike, FixedOffset, SecondsFormat, TimeDelta, Timelike, Utc};
use serde_json::Value as Json;
use std::borrow::Cow;

/// Calls the function of this name; what it stands behind is the first of its arguments.
pub(super) fn call<'a>(
    evaluation: &mut Evaluation<'a, '_>,
    name: &'static str,
    arguments: &[Value<'a>],
) -> Result<Value<'a>, Fault> {
    match (name, arguments) {
        ("startsWith", [Value::Text(text), Value::Text(part)]) => {
            evaluation.charge_bytes(part.len())?;
            Ok(Value::Bool(text.starts_with(&**part)))
        }
        ("endsWith", [Value::Text(text), Value::Text(part)]) => {
            evaluation.charge_bytes(part.len())?;
            Ok(Value::Bool(text.ends_with(&**part)))
        }
        ("contains", [Value::Text(text), Value::Text(part)]) => {
            evaluation.charge_bytes(text.len() + part.len())?;
            Ok(Value::Bool(memchr::memmem::find(text.as_bytes(), part.as_bytes()).is_some()))
        }
        ("size", [of]) => size(evaluation, of),
        ("type", [of]) => Ok(Value::Type(of.type_name())),
        ("dyn", [of]) => Ok(of.clone()),
        ("bool" | "int" | "uint" | "double" | "string" | "bytes" | "timestamp" | "duration", [of]) => {
            if let Value::Text(text) = of {
                evaluation.charge_bytes(text.len() * 4)?;
            }
            converted(name, of).ok_or_else(|| Fault::Failed(format!("a {} is no {name}", of.type_name()).into()))
        }
        (part, [Value::Time(time)]) => time_part(part, &time.fixed_offset()).ok_or_else(|| misused(name, arguments)),
        (part, [Value::Time(time), Value::Text(zone)]) => {
            let local = in_zone(*time, zone).ok_or(Fault::failed("there is no time zone of this name"))?;
            time_part(part, &local).ok_or_else(|| misused(name, arguments))
        }
        (part, [Value::Duration(duration)]) => {
            let whole = match part {
                "getHours" => duration.num_hours(),
                "getMinutes" => duration.num_minutes(),
                "getSeconds" => duration.num_seconds(),
                "getMilliseconds" => i64::from(duration.subsec_millis()),
                _ => return Err(misused(name, arguments)),
            };
            Ok(Value::Int(whole))
        }
        _ => Err(misused(name, arguments)),
    }
}

fn misused(name: &str, arguments: &[Value<'_>]) -> Fault {
    let kinds: Vec<&str> = arguments.iter().map(Value::type_name).collect();
    Fault::Failed(format!("'{name}' cannot be used on {}", kinds.join(" and ")).into())
}

fn size<'a>(evaluation: &mut Evaluation<'a, '_>, of: &Value<'a>) -> Result<Value<'a>, Fault> {
    let count = match of {
        Value::Text(text) => {
            evaluation.charge_bytes(text.len())?;
            text.chars().count()
        }
        Value::Bytes(bytes) => bytes.len(),
        Value::Map(entries) => entries.len(),
        Value::Json(Json::Object(members)) => members.len(),
        Value::Members(members) => {
            let count = members.names()?.len();
            evaluation.charge(count)?;
            count
        }
        list => length(list).ok_or_else(|| misused("size", std::slice::from_ref(list)))?,
    };
    Ok(Value::Int(i64::try_from(count).unwrap_or(i64::MAX)))
}

/// A value as one of another type, where that can be told.
fn converted<'a>(to: &str, of: &Value<'a>) -> Option<Value<'a>> {
    Some(match (to, of) {
        ("bool", Value::Bool(_))
        | ("int", Value::Int(_))
        | ("uint", Value::UInt(_))
        | ("double", Value::Double(_))
        | ("string", Value::Text(_))
        | ("bytes", Value::Bytes(_))
        | ("timestamp", Value::Time(_))
        | ("duration", Value::Duration(_)) => of.clone(),
        ("bool", Value::Text(text)) => match &**text {
            "true" | "True" | "TRUE" | "t" | "1" => Value::Bool(true),
            "false" | "False" | "FALSE" | "f" | "0" => Value::Bool(false),
            _ => return None,
        },
        ("int", Value::UInt(uint)) => Value::Int(i64::try_from(*uint).ok()?),
        ("int", Value::Double(double)) => {
            // Both ends are powers of two, so they are exact.
            let fits = *double > i64::MIN as f64 && *double < i64::MAX as f64;
            Value::Int(fits.then_some(*double as i64)?)
        }
        ("int", Value::Text(text)) => Value::Int(text.parse().ok()?),
        ("int", Value::Time(time)) => Value::Int(time.timestamp()),
        ("uint", Value::Int(int)) => Value::UInt(u64::try_from(*int).ok()?),
        ("uint", Value::Double(double)) => {
            let fits = *double >= 0.0 && *double < u64::MAX as f64;
            Value::UInt(fits.then_some(*double as u64)?)
        }
        ("uint", Value::Text(text)) => Value::UInt(text.parse().ok()?),
        ("double", Value::Int(int)) => Value::Double(*int as f64),
        ("double", Value::UInt(uint)) => Value::Double(*uint as f64),
        ("double", Value::Text(text)) => Value::Double(text.parse().ok()?),
        ("string", Value::Bool(value)) => Value::Text(Cow::Borrowed(if *value { "true" } else { "false" })),
        ("string", Value::Int(int)) => Value::Text(int.to_string().into()),
        ("string", Value::UInt(uint)) => Value::Text(uint.to_string().into()),
        ("string", Value::Double(double)) => Value::Text(double.to_string().into()),
        ("string", Value::Bytes(bytes)) => Value::Text(String::from_utf8(bytes.to_vec()).ok()?.into()),
        ("string", Value::Time(time)) => Value::Text(time.to_rfc3339_opts(SecondsFormat::AutoSi, true).into()),
        ("bytes", Value::Text(text)) => Value::Bytes(text.as_bytes().to_vec().into()),
        ("timestamp", Value::Text(text)) => Value::Time(DateTime::parse_from_rfc3339(text).ok()?.to_utc()),
        ("timestamp", Value::Int(seconds)) => Value::Time(DateTime::from_timestamp(*seconds, 0)?),
        ("duration", Value::Text(text)) => Value::Duration(duration(text)?),
        _ => return None,
    })
}

/// Reads `1h30m`, `-1.5s`, `250ms`.
fn duration(text: &str) -> Option<TimeDelta> {
    const UNITS: [(&str, u64); 6] = [
        ("ms", 1_000_000),
        ("us", 1_000),
        ("ns", 1),
        ("h", 3_600_000_000_000),
        ("m", 60_000_000_000),
        ("s", 1_000_000_000),
    ];
    let (negative, mut rest) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let mut nanos = 0_u64;
    loop {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (amount, unit) = rest.split_at(number);
        let (name, scale) = UNITS.iter().find(|(name, _)| unit.starts_with(name))?;
        let (whole, fraction) = amount.split_once('.').unwrap_or((amount, ""));
        let mut part = whole.parse::<u64>().ok()?.checked_mul(*scale)?;
        let mut place = *scale;
        for digit in fraction.chars() {
            place /= 10;
            part = part.checked_add(u64::from(digit.to_digit(10)?) * place)?;
        }
        nanos = nanos.checked_add(part)?;
        rest = &unit[name.len()..];
        if rest.is_empty() {
            break;
        }
    }
    let nanos = i64::try_from(nanos).ok()?;
    Some(TimeDelta::nanoseconds(if negative { -nanos } else { nanos }))
}

/// A zone by its name (`Europe/Berlin`) or its distance from UTC (`+02:00`).
fn in_zone(time: DateTime<Utc>, zone: &str) -> Option<DateTime<FixedOffset>> {
    if let Ok(zone) = zone.parse::<chrono_tz::Tz>() {
        return Some(time.with_timezone(&zone).fixed_offset());
    }
    let (sign, rest) = match zone.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => (1, zone),
    };
    let (hours, minutes) = rest.split_once(':')?;
    let digits = |text: &str, max: i32| text.parse::<i32>().ok().filter(|number| (0..=max).contains(number));
    let seconds = sign * (digits(hours, 14)? * 3_600 + digits(minutes, 59)? * 60);
    Some(time.with_timezone(&FixedOffset::east_opt(seconds)?))
}

fn time_part(name: &str, time: &DateTime<FixedOffset>) -> Option<Value<'static>> {
    let part = match name {
        "getFullYear" => return Some(Value::Int(i64::from(time.year()))),
        "getMonth" => time.month0(),
        "getDate" => time.day(),
        "getDayOfMonth" => time.day0(),
        "getDayOfWeek" => time.weekday().num_days_from_sunday(),
        "getDayOfYear" => time.ordinal0(),
        "getHours" => time.hour(),
        "getMinutes" => time.minute(),
        "getSeconds" => time.second(),
        "getMilliseconds" => time.timestamp_subsec_millis(),
        _ => return None,
    };
    Some(Value::Int(i64::from(part)))
}
