//! The member `fallbacks` of a call: read, and taken out of what goes upstream, where nobody knows it.

use crate::governance::refusal::Refusal;
use bytes::Bytes;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;
use std::ops::Range;

const MEMBER: &str = "fallbacks";
/// More entries are not even counted.
const ENTRIES_MAX: usize = 1_024;

/// The body without its member `fallbacks`, and the entries of that, if it was there. A body that is no JSON
/// object stays as it is: somebody else will say so.
pub fn take(body: Bytes) -> Result<(Bytes, Option<Vec<String>>), Refusal> {
    // Most bodies do not know the word, and looking for it costs next to nothing.
    if memchr::memmem::find(&body, b"\"fallbacks\"").is_none() {
        return Ok((body, None));
    }
    let Ok(text) = std::str::from_utf8(&body) else { return Ok((body, None)) };
    let mut found = Found::default();
    let mut json = serde_json::Deserializer::from_str(text);
    if json.deserialize_map(&mut found).and_then(|()| json.end()).is_err() {
        return Ok((body, None));
    }
    let Some(raw) = found.member else { return Ok((body, None)) };
    let refuse = |message: &str| Refusal::InvalidRequest {
        field: Some(MEMBER.to_owned()),
        message: format!("'{MEMBER}' {message}"),
    };
    if found.twice {
        return Err(refuse("appears more than once"));
    }
    let entries = match raw.get() {
        // As good as not there.
        "null" => None,
        text => {
            let entries: Vec<serde_json::Value> =
                serde_json::from_str(text).map_err(|_| refuse("must be an array of strings"))?;
            // What is no string names no provider, and is ignored like anything else that does not.
            let names = entries.iter().take(ENTRIES_MAX).map(|entry| entry.as_str().unwrap_or_default().to_owned());
            Some(names.collect())
        }
    };
    let cut = whole_member(text, raw.get());
    Ok((Bytes::from([&body[..cut.start], &body[cut.end..]].concat()), entries))
}

/// From the member's name to its value's end, with one comma.
fn whole_member(body: &str, value: &str) -> Range<usize> {
    let value_start = value.as_ptr().addr() - body.as_ptr().addr();
    let mut end = value_start + value.len();
    let before = body[..value_start].trim_end().trim_end_matches(':').trim_end();
    // However the name is written, no quote is in it.
    let name = before.trim_end_matches('"').rfind('"').unwrap_or(before.len());
    let mut start = name;
    let ahead = body[..name].trim_end();
    if ahead.ends_with(',') {
        start = ahead.len() - 1;
    } else {
        let rest = body[end..].trim_start();
        if let Some(rest) = rest.strip_prefix(',') {
            end = body.len() - rest.len();
        }
    }
    start..end
}

#[derive(Default)]
struct Found<'b> {
    member: Option<&'b RawValue>,
    twice: bool,
}

impl<'de> Visitor<'de> for &mut Found<'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<Name>()? {
            if name.0 {
                self.twice |= self.member.replace(map.next_value()?).is_some();
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

/// Whether a member has our name.
struct Name(bool);

impl<'de> serde::Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Name, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Name;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_str<E>(self, name: &str) -> Result<Name, E> {
                Ok(Name(name == MEMBER))
            }
        }
        json.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn taken(body: &str) -> Result<(String, Option<Vec<String>>), String> {
        let (body, entries) = take(Bytes::copy_from_slice(body.as_bytes())).map_err(|refusal| refusal.to_string())?;
        Ok((String::from_utf8(body.to_vec()).unwrap(), entries))
    }

    #[test]
    fn the_member_goes_and_nothing_else() {
        let check = |body: &str, left: &str, entries: Option<&[&str]>| {
            let entries = entries.map(|entries| entries.iter().map(|&entry| entry.to_owned()).collect());
            assert_eq!(taken(body), Ok((left.to_owned(), entries)), "{body}");
        };
        check(r#"{"model":"m"}"#, r#"{"model":"m"}"#, None);
        check(r#"{"fallbacks":["a/b"]}"#, "{}", Some(&["a/b"]));
        check(r#"{ "fallbacks" : [ "a/b" , "c" ] , "x":1}"#, r#"{  "x":1}"#, Some(&["a/b", "c"]));
        check(r#"{"x":1,"fallbacks":["a"],"y":2}"#, r#"{"x":1,"y":2}"#, Some(&["a"]));
        check("{\"x\":1\n,\n\"fallbacks\"\t:\n[]\n}", "{\"x\":1\n\n}", Some(&[]));
        check(r#"{"x":1,"fallbacks":null}"#, r#"{"x":1}"#, None);
        check(r#"{"x":1,"fallbacks":[1,"a",{}]}"#, r#"{"x":1}"#, Some(&["", "a", ""]));
        // The word elsewhere is only a word.
        let elsewhere = r#"{"x":"fallbacks","m":{"fallbacks":["a"]},"l":["fallbacks"]}"#;
        check(elsewhere, elsewhere, None);
        for other in [r#"["fallbacks"]"#, r#"{"fallbacks":["#, r#"{"fallbacks":[]} x"#, "\"fallbacks\""] {
            check(other, other, None);
        }
        let refused = |body: &str| taken(body).expect_err(body);
        assert_eq!(refused(r#"{"fallbacks":"a"}"#), "'fallbacks' must be an array of strings");
        assert_eq!(refused(r#"{"fallbacks":{}}"#), "'fallbacks' must be an array of strings");
        assert_eq!(refused(r#"{"fallbacks":[],"f\u0061llbacks":[]}"#), "'fallbacks' appears more than once");
    }

    proptest! {
        #[test]
        fn what_is_left_is_the_same_object(
            before in prop::collection::btree_map("[a-e\"\\\\]{0,3}", any::<u8>(), 0..4),
            after in prop::collection::btree_map("[f-j\"\\\\]{1,3}", any::<u8>(), 0..4),
            pretty in any::<bool>(),
        ) {
            let mut body = serde_json::Map::new();
            body.extend(before.iter().map(|(name, value)| (name.clone(), json!(value))));
            let expected: serde_json::Map<String, Value> =
                before.iter().chain(&after).map(|(name, value)| (name.clone(), json!(value))).collect();
            body.insert(MEMBER.to_owned(), json!(["a/b"]));
            body.extend(after.iter().map(|(name, value)| (name.clone(), json!(value))));
            let body = Value::Object(body);
            let text = if pretty { format!("{body:#}") } else { body.to_string() };
            let (left, entries) = taken(&text).unwrap();
            prop_assert_eq!(entries, Some(vec!["a/b".to_owned()]));
            prop_assert_eq!(serde_json::from_str::<Value>(&left).unwrap(), Value::Object(expected));
        }
    }
}
