//! The members of a JSON object of a request, walked once.
//!
//! What is checked must be what the provider goes by. A member that counts may therefore appear only once, in
//! one spelling: parsers differ in which one they take. Everything else is weighed as it passes.

use std::fmt;
use std::ops::Range;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::call::Cap;
use super::{CallError, Part, Shape, Weigher, Weight};
use crate::governance::model_name;
use crate::governance::request::Dialect;

/// Longer names of models exist nowhere; names reach logs and metrics.
/// Longer names of members are none of those that count.
const NAME_BYTES_MAX: usize = 64;
/// A count given as a float is exact up to here.
const FLOAT_WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

/// What a member is to the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Texts, and whatever else the model is shown.
    Content,
    /// The same, and each element is a message.
    Messages,
    /// The list of tools.
    Tools,
    /// JSON that the model sees as it is.
    Schema,
    /// Names input that lies with the provider.
    State,
    /// Lets the provider fetch input by itself.
    Unseen,
    /// Normally nothing.
    Aside,
}

/// How the members of one object are read.
pub(super) struct Form {
    pub dialect: Dialect,
    /// Members that may appear once, each with all its spellings; they are handed over by the first.
    pub once: &'static [&'static [&'static str]],
    /// What the others are.
    pub role: fn(&str) -> Role,
}

/// What was weighed of a request so far.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub weight: Weight,
    pub refers_to_state: bool,
}

/// What takes the members that may appear once.
pub(super) type Take<'t, 'b> = &'t mut dyn FnMut(&'static str, &'b RawValue, &mut Tally) -> Result<(), CallError>;

/// Reads a whole body.
pub(super) fn read_body<'b>(
    body: &'b [u8],
    form: &Form,
    tally: &mut Tally,
    take: Take<'_, 'b>,
) -> Result<&'b str, CallError> {
    let body = std::str::from_utf8(body).map_err(|_| CallError::body("the body is not JSON: it is not UTF-8"))?;
    read_object(None, body, form, tally, take)?;
    Ok(body)
}

/// Reads an object that is the value of the member `field`, or all there is.
pub(super) fn read_object<'b>(
    field: Option<&str>,
    text: &'b str,
    form: &Form,
    tally: &mut Tally,
    take: Take<'_, 'b>,
) -> Result<(), CallError> {
    let mut object = Object { form, tally, take, seen: 0, fault: None };
    let mut json = serde_json::Deserializer::from_str(text);
    let read = json.deserialize_map(&mut object).and_then(|()| json.end());
    match (object.fault.take(), read, field) {
        (Some(fault), _, _) => Err(fault),
        (None, Ok(()), _) => Ok(()),
        (None, Err(_), Some(field)) => Err(CallError::of(field, "must be an object")),
        (None, Err(error), None) if error.is_data() => Err(CallError::body("the body must be a JSON object")),
        (None, Err(error), None) => Err(CallError::body(format!("the body is not JSON: {error}"))),
    }
}

struct Object<'o, 't, 'b> {
    form: &'o Form,
    tally: &'o mut Tally,
    take: Take<'t, 'b>,
    /// One bit for each member that may appear once.
    seen: u32,
    fault: Option<CallError>,
}

/// What a key turned out to be.
enum Named {
    Once(usize),
    Other(Role),
    /// Written like a member that may appear once, but not quite.
    Disguised(&'static str),
}

impl<'b> Visitor<'b> for &mut Object<'_, '_, 'b> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'b>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(named) = map.next_key_seed(Name { form: self.form })? {
            let taken = match named {
                Named::Once(index) if self.seen & 1 << index != 0 => {
                    Err(CallError::of(self.form.once[index][0], "appears more than once"))
                }
                Named::Once(index) => {
                    self.seen |= 1 << index;
                    (self.take)(self.form.once[index][0], map.next_value()?, self.tally)
                }
                Named::Other(role) => {
                    self.weigh(role, &mut map)?;
                    Ok(())
                }
                Named::Disguised(name) => {
                    Err(CallError::body(format!("a member is named like '{name}', but in another case")))
                }
            };
            if let Err(fault) = taken {
                self.fault = Some(fault);
                return Err(A::Error::custom("a member cannot be understood"));
            }
        }
        Ok(())
    }
}

impl<'b> Object<'_, '_, 'b> {
    fn weigh<A: MapAccess<'b>>(&mut self, role: Role, map: &mut A) -> Result<(), A::Error> {
        let part = match role {
            Role::Content | Role::Messages => Part::Content,
            Role::Tools => Part::Tools,
            Role::Schema => Part::Schema,
            Role::State | Role::Unseen | Role::Aside => Part::Aside,
        };
        let shape = map.next_value_seed(Weigher::of(self.form.dialect, &mut self.tally.weight, part))?;
        let members = match shape {
            Shape::Null => return Ok(()),
            Shape::Array(members) => members,
            _ => 1,
        };
        match role {
            Role::Messages => self.tally.weight.messages += members,
            Role::State => self.tally.refers_to_state = true,
            Role::Unseen => self.tally.weight.unseen |= members > 0,
            _ => {}
        }
        Ok(())
    }
}

struct Name<'o> {
    form: &'o Form,
}

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Named;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Named, D::Error> {
        json.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Named;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, name: &str) -> Result<Named, E> {
        let once = self.form.once;
        if let Some(index) = once.iter().position(|spellings| spellings.contains(&name)) {
            return Ok(Named::Once(index));
        }
        let disguised = once.iter().find(|spellings| spellings.iter().any(|once| differs_in_case(name, once)));
        Ok(disguised.map_or_else(|| Named::Other((self.form.role)(name)), |spellings| Named::Disguised(spellings[0])))
    }
}

/// Whether some parser could take `name` for `known`: some do not mind the case, also of the two letters that
/// Unicode folds into ASCII. What they would go by is then not what was checked.
pub(super) fn differs_in_case(name: &str, known: &str) -> bool {
    let folded = |c: char| match c {
        'ſ' => 's',
        '\u{212a}' => 'k',
        c => c.to_ascii_lowercase(),
    };
    name.len() <= NAME_BYTES_MAX && name.chars().map(folded).eq(known.chars().map(folded))
}

/// Reads a cap on the output that is above zero.
pub(super) fn cap(body: &str, name: &'static str, raw: &RawValue) -> Result<Cap, CallError> {
    Ok(Cap { name, at: span(body, raw.get()), tokens: count(name, raw)? })
}

/// The same, where zero has a meaning.
pub(super) fn cap_or_zero(body: &str, name: &'static str, raw: &RawValue) -> Result<Cap, CallError> {
    match raw.get() {
        "0" => Ok(Cap { name, at: span(body, raw.get()), tokens: Some(0) }),
        _ => cap(body, name, raw),
    }
}

/// What a request says about thinking, as far as it is a number of tokens: `budget_tokens`, or what others call it.
#[derive(serde::Deserialize)]
struct Thinking<'b> {
    #[serde(borrow)]
    budget_tokens: Option<&'b RawValue>,
    #[serde(borrow)]
    max_tokens: Option<&'b RawValue>,
    #[serde(borrow, rename = "thinkingBudget")]
    budget: Option<&'b RawValue>,
    #[serde(borrow, rename = "thinking_budget")]
    other_budget: Option<&'b RawValue>,
}

/// The tokens that this member leaves for thinking.
pub(super) fn thinking(raw: &RawValue) -> u64 {
    // What is written otherwise is the provider's to judge.
    let Ok(told) = serde_json::from_str::<Thinking<'_>>(raw.get()) else { return 0 };
    let budgets = [told.budget_tokens, told.max_tokens, told.budget, told.other_budget].into_iter().flatten();
    budgets.filter_map(|budget| count("thinking", budget).ok().flatten()).max().unwrap_or(0)
}

/// Weighs a value that was taken whole, which bounds its depth.
pub(super) fn weigh_aside(dialect: Dialect, raw: &RawValue, tally: &mut Tally) -> Result<(), CallError> {
    let mut json = serde_json::Deserializer::from_str(raw.get());
    let weighed = Weigher::of(dialect, &mut tally.weight, Part::Aside).deserialize(&mut json);
    weighed.map(drop).map_err(|error| CallError::body(format!("the body is not JSON: {error}")))
}

/// Whether an object that was read has no members.
pub(super) fn empty_object(text: &str) -> bool {
    text.trim_start().strip_prefix('{').is_some_and(|rest| rest.trim_start().starts_with('}'))
}

/// The place of a first member of a body that was read.
pub(super) fn inside(body: &str) -> Range<usize> {
    let brace = body.find('{').expect("an object was read from this body");
    brace + 1..brace + 1
}

/// Where a part borrowed from the body stands in it.
pub(super) fn span(body: &str, part: &str) -> Range<usize> {
    let start = part.as_ptr().addr() - body.as_ptr().addr();
    start..start + part.len()
}

pub(super) fn model(raw: &RawValue) -> Result<String, CallError> {
    checked_model(serde_json::from_str(raw.get()).map_err(|_| CallError::of("model", "must be a string"))?)
}

/// The name of a model, wherever it was found, if it is one.
pub(super) fn checked_model(model: String) -> Result<String, CallError> {
    match model_name::fault(&model) {
        Some(fault) => Err(CallError::of("model", fault)),
        None => Ok(model),
    }
}

pub(super) fn flag(name: &str, raw: &RawValue) -> Result<Option<bool>, CallError> {
    match raw.get() {
        "true" => Ok(Some(true)),
        "false" => Ok(Some(false)),
        "null" => Ok(None),
        _ => Err(CallError::of(name, "must be true or false")),
    }
}

/// A whole number above zero; `12.0` is one.
pub(super) fn count(name: &str, raw: &RawValue) -> Result<Option<u64>, CallError> {
    let text = raw.get();
    if text == "null" {
        return Ok(None);
    }
    let count = text.parse().ok().or_else(|| {
        // Rust reads more words as floats than JSON knows, but raw values are JSON.
        let float: f64 = text.parse().ok()?;
        (float.fract() == 0.0 && (0.0..=FLOAT_WHOLE_MAX).contains(&float)).then_some(float as u64)
    });
    match count {
        Some(count) if count > 0 => Ok(Some(count)),
        _ => Err(CallError::of(name, "must be a whole number above zero")),
    }
}
