//! A cursor over a JSON object that reads typed members and collects what is wrong, instead of
//! stopping at the first problem. Absent, null and given are three different things.

use super::faults::Faults;
use crate::governance::entity::Weight;
use crate::governance::money::{MoneyError, Nanos, Rate};
use serde_json::{Map, Value};
use std::collections::HashSet;

/// No list of names or of objects has a reason to be longer.
pub const LIST_MAX: usize = 10_000;

/// No name has a reason to be longer.
pub const NAME_LETTERS_MAX: usize = 255;

/// So that a sum of weights fits wherever one of them does: a million.
const WEIGHT_MAX: Weight = Weight::from_millionths(1_000_000_000_000);

const DESCRIPTION_LETTERS_MAX: usize = 4_096;

/// JSON that is only stored and returned.
pub const FREE_BYTES_MAX: usize = 64 * 1_024;

/// And its depth. Readers of what is stored, and of what wraps it, give up at 128.
const FREE_LEVELS_MAX: usize = 32;

/// One object of a body, and where it stands.
#[derive(Debug, Clone)]
pub struct Object<'a> {
    path: String,
    members: &'a Map<String, Value>,
}

/// A member as it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Given<T> {
    Absent,
    Null,
    Value(T),
}

impl<T> Given<T> {
    /// The value, where absent and null mean the same.
    pub fn value(self) -> Option<T> {
        match self {
            Given::Value(value) => Some(value),
            Given::Absent | Given::Null => None,
        }
    }

    pub fn is_absent(&self) -> bool {
        matches!(self, Given::Absent)
    }

    /// The value, where absent means `old` and null means none.
    pub fn or_keep(self, old: Option<T>) -> Option<T> {
        match self {
            Given::Value(value) => Some(value),
            Given::Null => None,
            Given::Absent => old,
        }
    }

    pub fn map<U>(self, f: impl FnOnce(T) -> Option<U>) -> Given<U> {
        match self {
            Given::Absent => Given::Absent,
            Given::Null => Given::Null,
            Given::Value(value) => f(value).map_or(Given::Absent, Given::Value),
        }
    }
}

impl<'a> Object<'a> {
    /// `value` as an object at `path`.
    pub fn of(value: &'a Value, path: impl Into<String>, faults: &mut Faults) -> Option<Object<'a>> {
        let path = path.into();
        match value {
            Value::Object(members) => Some(Object { path, members }),
            other => {
                faults.mistyped(path, format!("must be an object, not {}", name_of(other)));
                None
            }
        }
    }

    /// The path of the object itself.
    pub fn here(&self) -> String {
        self.path.clone()
    }

    /// The path of a member.
    pub fn path(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// The object itself.
    pub fn to_value(&self) -> Value {
        Value::Object(self.members.clone())
    }

    /// The names of all members.
    pub fn names(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.members.keys().map(String::as_str)
    }

    pub fn has(&self, name: &str) -> bool {
        self.members.contains_key(name)
    }

    pub fn raw(&self, name: &str) -> Given<&'a Value> {
        match self.members.get(name) {
            None => Given::Absent,
            Some(Value::Null) => Given::Null,
            Some(value) => Given::Value(value),
        }
    }

    fn typed<T>(
        &self,
        name: &str,
        what: &str,
        faults: &mut Faults,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Given<T> {
        self.raw(name).map(|value| {
            let found = read(value);
            if found.is_none() {
                faults.mistyped(self.path(name), format!("must be {what}, not {}", name_of(value)));
            }
            found
        })
    }

    pub fn text(&self, name: &str, faults: &mut Faults) -> Given<&'a str> {
        self.typed(name, "a string", faults, Value::as_str)
    }

    pub fn boolean(&self, name: &str, faults: &mut Faults) -> Given<bool> {
        self.typed(name, "true or false", faults, Value::as_bool)
    }

    pub fn integer(&self, name: &str, faults: &mut Faults) -> Given<i64> {
        self.raw(name).map(|value| {
            let found = value.as_i64().or_else(|| whole(value.as_f64()?));
            if found.is_none() {
                let message = match value.as_number() {
                    // A fraction, or more digits than there is room for.
                    Some(number) => format!("must be a whole number of at most 64 bits, not {number}"),
                    None => format!("must be a whole number, not {}", name_of(value)),
                };
                faults.mistyped(self.path(name), message);
            }
            found
        })
    }

    /// A text that names something: not blank, of a bounded length, in printable characters. A blank one is a
    /// fault with the words `missing`.
    pub fn name(&self, name: &str, missing: &str, faults: &mut Faults) -> Given<&'a str> {
        let text = self.text(name, faults);
        let Given::Value(found) = text else { return text };
        let fault = if found.trim().is_empty() {
            missing.to_owned()
        } else if found.chars().count() > NAME_LETTERS_MAX {
            format!("is longer than {NAME_LETTERS_MAX} characters")
        } else if found.contains(char::is_control) {
            "has control characters in it".to_owned()
        } else {
            return text;
        };
        faults.add(self.path(name), fault);
        Given::Absent
    }

    /// The name of a new object, or an old one's where nothing is said of it.
    pub fn name_or(&self, name: &str, old: Option<&str>, missing: &str, faults: &mut Faults) -> String {
        let found = self.name(name, missing, faults).value().or(old).unwrap_or_default();
        if found.is_empty() && self.raw(name).value().is_none() {
            faults.add(self.path(name), missing);
        }
        found.to_owned()
    }

    /// Free text about an object; an old one's where nothing is said of it.
    pub fn description(&self, old: Option<&str>, faults: &mut Faults) -> String {
        let text = self.text("description", faults).value();
        if text.is_some_and(|text| text.chars().count() > DESCRIPTION_LETTERS_MAX) {
            faults.add(self.path("description"), format!("is longer than {DESCRIPTION_LETTERS_MAX} characters"));
        }
        text.or(old).unwrap_or_default().to_owned()
    }

    /// A text that "" takes away, as null does.
    pub fn clearable(&self, name: &str, faults: &mut Faults) -> Given<&'a str> {
        match self.text(name, faults) {
            Given::Value("") => Given::Null,
            text => text,
        }
    }

    /// A free JSON object, as text in its canonical form.
    pub fn free_object(&self, name: &str, faults: &mut Faults) -> Given<String> {
        self.typed(name, "an object", faults, |value| value.as_object().map(|_| value))
            .map(|value| check_free(value, self.path(name), faults).then(|| value.to_string()))
    }

    pub fn array(&self, name: &str, faults: &mut Faults) -> Given<&'a Vec<Value>> {
        self.typed(name, "an array", faults, Value::as_array)
    }

    pub fn object(&self, name: &str, faults: &mut Faults) -> Given<Object<'a>> {
        self.raw(name).map(|value| Object::of(value, self.path(name), faults))
    }

    /// The objects of an array, each with its own path.
    pub fn objects(&self, name: &str, faults: &mut Faults) -> Given<Vec<Object<'a>>> {
        self.array(name, faults).map(|values| {
            let at = |index| format!("{}[{index}]", self.path(name));
            Some(values.iter().enumerate().filter_map(|(i, value)| Object::of(value, at(i), faults)).collect())
        })
    }

    pub fn texts(&self, name: &str, faults: &mut Faults) -> Given<Vec<String>> {
        self.array(name, faults).map(|values| {
            let mut texts = Vec::with_capacity(values.len());
            for (i, value) in values.iter().enumerate() {
                match value.as_str() {
                    Some(text) => texts.push(text.to_owned()),
                    None => {
                        let message = format!("must be a string, not {}", name_of(value));
                        faults.mistyped(format!("{}[{i}]", self.path(name)), message);
                    }
                }
            }
            Some(texts)
        })
    }

    /// A list in which `*` stands alone or not at all, and nothing stands twice.
    pub fn whitelist(&self, name: &str, faults: &mut Faults) -> Given<Vec<String>> {
        let list = self.texts(name, faults);
        if let Given::Value(list) = &list {
            check_whitelist(list, &self.path(name), faults);
        }
        list
    }

    /// Dollars, exactly as they are written. Negative ones are a fault that names the amount.
    pub fn money(&self, name: &str, faults: &mut Faults) -> Given<Nanos> {
        self.number(name, faults).map(|text| match Nanos::from_dollars(&text) {
            Ok(nanos) => Some(nanos),
            Err(error) => {
                faults.add(self.path(name), error.to_string());
                None
            }
        })
    }

    /// Dollars for one unit.
    pub fn rate(&self, name: &str, faults: &mut Faults) -> Given<Rate> {
        self.number(name, faults)
            .map(|text| Rate::from_dollars(&text).map_err(|error| faults.add(self.path(name), error.to_string())).ok())
    }

    pub fn weight(&self, name: &str, faults: &mut Faults) -> Given<Weight> {
        self.number(name, faults).map(|text| {
            let fault = match Weight::parse(&text) {
                Ok(weight) if weight <= WEIGHT_MAX => return Some(weight),
                Ok(_) => MoneyError::TooLarge(text),
                Err(error) => error,
            };
            faults.add(self.path(name), format!("weight {fault}"));
            None
        })
    }

    /// A number as text. It is the one that was sent up to fifteen significant digits, or as a whole number of
    /// 64 bits; of what has more, the reader of JSON has made the nearest float already, or its neighbour.
    fn number(&self, name: &str, faults: &mut Faults) -> Given<String> {
        self.typed(name, "a number", faults, |value| value.as_number().map(ToString::to_string))
    }
}

/// Whether JSON that is only stored and returned is within its bounds.
pub fn check_free(value: &Value, path: String, faults: &mut Faults) -> bool {
    let fault = if is_deeper(value, FREE_LEVELS_MAX) {
        format!("is nested deeper than {FREE_LEVELS_MAX} levels")
    } else if value.to_string().len() > FREE_BYTES_MAX {
        format!("is longer than {FREE_BYTES_MAX} bytes")
    } else {
        return true;
    };
    faults.add(path, fault);
    false
}

/// Whether arrays and objects stand within each other on more than this many levels.
fn is_deeper(value: &Value, levels: usize) -> bool {
    let Some(inner) = levels.checked_sub(1) else { return value.is_array() || value.is_object() };
    match value {
        Value::Array(values) => values.iter().any(|value| is_deeper(value, inner)),
        Value::Object(members) => members.values().any(|value| is_deeper(value, inner)),
        _ => false,
    }
}

/// Checks a list in which `*` means everything.
pub fn check_whitelist(list: &[String], path: &str, faults: &mut Faults) {
    if list.len() > 1 && list.iter().any(|entry| entry == "*") {
        faults.add(path, "'*' means everything and stands alone");
    }
    if list.len() > LIST_MAX {
        return faults.add(path, format!("has more than {LIST_MAX} entries"));
    }
    let mut seen = HashSet::new();
    for (i, entry) in list.iter().enumerate().filter(|(_, entry)| !seen.insert(entry.as_str())) {
        faults.add(format!("{path}[{i}]"), format!("'{entry}' is listed twice"));
    }
}

/// A float that is a whole number of 64 bits: JSON does not tell 2.0 from 2, nor does the API's document. At the
/// very ends it may have been a longer number, which the reader of JSON rounded.
fn whole(number: f64) -> Option<i64> {
    const END: f64 = 9_223_372_036_854_775_808.0;
    #[allow(clippy::cast_possible_truncation, reason = "it has no fraction and is within bounds")]
    (number.fract() == 0.0 && number.abs() < END).then_some(number as i64)
}

fn name_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn money(number: &str) -> Option<Nanos> {
        let body: Value = serde_json::from_str(&format!(r#"{{"n": {number}}}"#)).unwrap();
        let mut faults = Faults::default();
        Object::of(&body, "", &mut faults)?.money("n", &mut faults).value().filter(|_| faults.is_empty())
    }

    #[test]
    fn amounts_that_people_write_are_read_to_the_last_digit() {
        let check = |number: &str, nanos: i64| assert_eq!(money(number), Some(Nanos::new(nanos)), "{number}");
        check("0.1", 100_000_000);
        check("1e2", 100_000_000_000);
        check("2.5E-6", 2_500);
        check("0.000000001", 1);
        check("123456.123456789", 123_456_123_456_789);
        check("9007199254", 9_007_199_254_000_000_000);
    }

    #[test]
    fn whole_numbers_are_read_however_they_are_written() {
        let check = |number: &str, expected: Option<i64>| {
            let body: Value = serde_json::from_str(&format!(r#"{{"n": {number}}}"#)).unwrap();
            let mut faults = Faults::default();
            let read = Object::of(&body, "", &mut faults).unwrap().integer("n", &mut faults).value();
            assert_eq!((read, faults.is_empty()), (expected, expected.is_some()), "{number}");
        };
        check("2", Some(2));
        check("2.0", Some(2));
        check("-1e3", Some(-1_000));
        check("9223372036854775807", Some(i64::MAX));
        check("-9223372036854775808", Some(i64::MIN));
        check("-9223372036854775809", None);
        check("1e18", Some(1_000_000_000_000_000_000));
        check("2.5", None);
        check("9223372036854775808", None);
        check("1e19", None);
        check("\"2\"", None);
    }

    proptest! {
        #[test]
        fn fifteen_digits_are_kept(digits in 0..1_000_000_000_000_000i64) {
            let text = format!("{}.{:09}", digits / 1_000_000_000, digits % 1_000_000_000);
            prop_assert_eq!(money(&text), Some(Nanos::new(digits)));
        }
    }
}
