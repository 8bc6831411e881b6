//! What rules read of a request beside its model: headers, the query, the body. Nothing is read before a rule
//! asks for it, and nothing of a body is copied but the members that a rule names.

use crate::governance::cel::{Fault, Members, Value};
use http::HeaderMap;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::cell::OnceCell;
use std::fmt;

/// A member of a body that is longer than this is not for rules.
pub const MEMBER_BYTES_MAX: usize = 64 * 1_024;
/// A body has no more members than this that rules can name.
const MEMBERS_MAX: usize = 256;
/// A query has no more parameters than this that rules can name.
const PARAMS_MAX: usize = 64;

/// Headers; names are told without regard to case, and of several values the first counts.
pub(super) struct Headers<'a>(pub(super) &'a HeaderMap);

impl Members for Headers<'_> {
    fn get(&self, name: &str) -> Result<Option<Value<'_>>, Fault> {
        Ok(self.0.get(name).and_then(|value| value.to_str().ok()).map(Value::text))
    }

    fn names(&self) -> Result<Vec<Cow<'_, str>>, Fault> {
        Ok(self.0.keys().map(|name| name.as_str().into()).collect())
    }
}

/// The parameters of a query; names are told without regard to case, and of several values the first counts.
pub(super) struct Params<'a> {
    query: &'a str,
    read: OnceCell<Vec<(String, String)>>,
}

impl<'a> Params<'a> {
    pub(super) fn of(query: &'a str) -> Params<'a> {
        Params { query, read: OnceCell::new() }
    }

    fn read(&self) -> &[(String, String)] {
        self.read.get_or_init(|| {
            let pairs = self.query.split('&').filter(|pair| !pair.is_empty()).take(PARAMS_MAX);
            let decode = |pair: &str| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                (decoded(name).to_lowercase(), decoded(value))
            };
            pairs.map(decode).collect()
        })
    }
}

impl Members for Params<'_> {
    fn get(&self, name: &str) -> Result<Option<Value<'_>>, Fault> {
        let name = name.to_lowercase();
        Ok(self.read().iter().find(|(known, _)| *known == name).map(|(_, value)| Value::text(value)))
    }

    fn names(&self) -> Result<Vec<Cow<'_, str>>, Fault> {
        Ok(self.read().iter().map(|(name, _)| name.as_str().into()).collect())
    }
}

/// `+` is a blank and `%41` an `A`; what is no UTF-8 after that is replaced.
fn decoded(text: &str) -> String {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut rest = text.as_bytes();
    let mut out = Vec::with_capacity(rest.len());
    while let [byte, tail @ ..] = rest {
        rest = tail;
        let code = match tail {
            [high, low, after @ ..] if *byte == b'%' => Some((digit(*high).zip(digit(*low)), after)),
            _ => None,
        };
        match (byte, code) {
            (_, Some((Some((high, low)), after))) => {
                out.push(high << 4 | low);
                rest = after;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(*byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The members of a body's object, each read when it is asked for.
pub(super) struct Body<'a> {
    bytes: &'a [u8],
    members: OnceCell<Vec<Member<'a>>>,
}

struct Member<'a> {
    name: Cow<'a, str>,
    raw: &'a RawValue,
    value: OnceCell<Option<serde_json::Value>>,
}

impl<'a> Body<'a> {
    pub(super) fn of(bytes: &'a [u8]) -> Body<'a> {
        Body { bytes, members: OnceCell::new() }
    }

    /// What is no JSON object has no members.
    fn members(&self) -> &[Member<'a>] {
        self.members.get_or_init(|| serde_json::from_slice(self.bytes).map(|Read(members)| members).unwrap_or_default())
    }
}

impl Members for Body<'_> {
    fn get(&self, name: &str) -> Result<Option<Value<'_>>, Fault> {
        // Of a name given twice the last, as most parsers have it.
        let Some(member) = self.members().iter().rfind(|member| member.name == name) else { return Ok(None) };
        let failed = |what| Fault::Failed(Cow::Borrowed(what));
        if member.raw.get().len() > MEMBER_BYTES_MAX {
            return Err(failed("a member of the body is longer than rules read"));
        }
        let value = member.value.get_or_init(|| serde_json::from_str(member.raw.get()).ok());
        let value = value.as_ref().ok_or_else(|| failed("a member of the body nests deeper than rules read"))?;
        Ok(Some(Value::json(value)))
    }

    fn names(&self) -> Result<Vec<Cow<'_, str>>, Fault> {
        Ok(self.members().iter().map(|member| Cow::Borrowed(&*member.name)).collect())
    }
}

struct Read<'a>(Vec<Member<'a>>);

impl<'de: 'a, 'a> Deserialize<'de> for Read<'a> {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Read<'a>, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Read<'de>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Read<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(Name(name)) = map.next_key()? {
                    if members.len() < MEMBERS_MAX {
                        members.push(Member { name, raw: map.next_value()?, value: OnceCell::new() });
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(Read(members))
            }
        }
        json.deserialize_map(Object)
    }
}

/// Borrowed where it holds no escapes.
struct Name<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Name<'a> {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Name<'a>, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(name.into()))
            }

            fn visit_str<E>(self, name: &str) -> Result<Name<'de>, E> {
                Ok(Name(name.to_owned().into()))
            }
        }
        json.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_decoded() {
        let params = Params::of("A=1&b=x+y%20z&b=2&%c3%bc=%C3%9c&bad=%zz%4&flag&=");
        let get = |name: &str| {
            params.get(name).unwrap().map(|value| match value {
                Value::Text(text) => text.into_owned(),
                other => panic!("{other:?}"),
            })
        };
        for (name, value) in [("a", "1"), ("B", "x y z"), ("ü", "Ü"), ("bad", "%zz%4"), ("flag", ""), ("", "")] {
            assert_eq!(get(name).as_deref(), Some(value), "{name}");
        }
        assert_eq!(get("c"), None);
        assert_eq!(Params::of(&"a&".repeat(1_000)).names().unwrap().len(), PARAMS_MAX);
    }

    #[test]
    fn bodies_are_read_as_far_as_they_are_asked_for() {
        let check = |body: &str, name: &str, kind: Result<Option<&str>, ()>| {
            let body = Body::of(body.as_bytes());
            let found = body.get(name).map(|value| value.map(|value| value.type_name())).map_err(drop);
            assert_eq!(found, kind, "{name}");
        };
        let body = r#"{"n": 1, "m": {"a": [1]}, "n": "x", "f\u0061r": 1.5, "l": [], "t": true, "z": null}"#;
        check(body, "n", Ok(Some("string")));
        check(body, "m", Ok(Some("map")));
        check(body, "far", Ok(Some("double")));
        check(body, "l", Ok(Some("list")));
        check(body, "t", Ok(Some("bool")));
        check(body, "z", Ok(Some("null_type")));
        check(body, "nope", Ok(None));
        for none in ["", "[]", "1", "{", "{\"n\":1", "\u{0}"] {
            check(none, "n", Ok(None));
        }
        let long = |size: usize| format!(r#"{{"n": "{}"}}"#, "x".repeat(size));
        check(&long(MEMBER_BYTES_MAX - 2), "n", Ok(Some("string")));
        check(&long(MEMBER_BYTES_MAX - 1), "n", Err(()));
        // Far too deep for the whole body to be taken for JSON, or deeper than a member may be.
        check(&format!(r#"{{"n": {}{}}}"#, "[".repeat(120), "]".repeat(120)), "n", Ok(Some("list")));
        check(&format!(r#"{{"n": {}{}}}"#, "[".repeat(9_000), "]".repeat(9_000)), "m", Ok(None));
        assert!(
            Body::of(format!(r#"{{"n": {}{}}}"#, "[".repeat(9_000), "]".repeat(9_000)).as_bytes()).get("n").is_err()
                || Body::of(b"{}").get("n").unwrap().is_none()
        );
        let many: Vec<String> = (0..1_000).map(|n| format!("\"m{n}\": {n}")).collect();
        let many = format!("{{{}}}", many.join(","));
        assert_eq!(Body::of(many.as_bytes()).names().unwrap().len(), MEMBERS_MAX);
    }
}
