//! Values of expressions. Whatever a request or the program holds already is borrowed.

use super::eval::Fault;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value as Json;
use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::rc::Rc;

/// A value while it is looked at.
#[derive(Clone)]
pub enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    UInt(u64),
    Double(f64),
    Text(Cow<'a, str>),
    Bytes(Cow<'a, [u8]>),
    List(Rc<Vec<Value<'a>>>),
    Map(Rc<Vec<(Value<'a>, Value<'a>)>>),
    /// An array or an object of a body.
    Json(&'a Json),
    /// A map whose members are looked up one at a time.
    Members(&'a dyn Members),
    Time(DateTime<Utc>),
    Duration(TimeDelta),
    Type(&'static str),
    /// What an element of a loop failed with, while a later one may still decide.
    Failed(Rc<Fault>),
}

/// A map of texts to values that is not made before somebody looks into it.
pub trait Members {
    /// The member of this name. `None`: there is none.
    fn get(&self, name: &str) -> Result<Option<Value<'_>>, Fault>;
    fn names(&self) -> Result<Vec<Cow<'_, str>>, Fault>;
}

impl<'a> Value<'a> {
    pub fn text(text: &'a str) -> Value<'a> {
        Value::Text(Cow::Borrowed(text))
    }

    /// What stands in a body. A number is an int where it is one.
    pub fn json(json: &'a Json) -> Value<'a> {
        match json {
            Json::Null => Value::Null,
            Json::Bool(yes) => Value::Bool(*yes),
            Json::String(text) => Value::text(text),
            Json::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(int), _) => Value::Int(int),
                (None, Some(uint)) => Value::UInt(uint),
                (None, None) => Value::Double(number.as_f64().unwrap_or(f64::NAN)),
            },
            Json::Array(_) | Json::Object(_) => Value::Json(json),
        }
    }

    /// The name of its type, as `type()` tells it.
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::Null => "null_type",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::UInt(_) => "uint",
            Value::Double(_) => "double",
            Value::Text(_) => "string",
            Value::Bytes(_) => "bytes",
            Value::List(_) | Value::Json(Json::Array(_)) => "list",
            Value::Map(_) | Value::Json(_) | Value::Members(_) => "map",
            Value::Time(_) => "timestamp",
            Value::Duration(_) => "duration",
            Value::Type(_) => "type",
            Value::Failed(_) => "error",
        }
    }

    /// Where one stands to the other, if both are of a kind that has an order. Numbers are of one kind.
    pub fn order(&self, other: &Value<'_>) -> Option<Option<Ordering>> {
        Some(match (self, other) {
            (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
            (Value::Text(a), Value::Text(b)) => Some(a.cmp(b)),
            (Value::Bytes(a), Value::Bytes(b)) => Some(a.cmp(b)),
            (Value::Time(a), Value::Time(b)) => Some(a.cmp(b)),
            (Value::Duration(a), Value::Duration(b)) => Some(a.cmp(b)),
            (Value::Double(a), Value::Double(b)) => a.partial_cmp(b),
            (Value::Double(a), b) => whole(b).and_then(|b| order_mixed(b, *a)).map(Ordering::reverse),
            (a, Value::Double(b)) => whole(a).and_then(|a| order_mixed(a, *b)),
            (a, b) => return Some(Some(whole(a)?.cmp(&whole(b)?))),
        })
        .filter(|_| self.is_number() == other.is_number())
    }

    pub fn is_number(&self) -> bool {
        matches!(self, Value::Int(_) | Value::UInt(_) | Value::Double(_))
    }
}

/// An int of either kind.
pub fn whole(value: &Value<'_>) -> Option<i128> {
    match value {
        Value::Int(int) => Some(i128::from(*int)),
        Value::UInt(uint) => Some(i128::from(*uint)),
        _ => None,
    }
}

/// Exact, also where a double cannot hold the int.
fn order_mixed(int: i128, double: f64) -> Option<Ordering> {
    if double.is_nan() {
        return None;
    }
    // Conversions to ints saturate, which keeps the order: no 64-bit int comes near.
    let floor = double.floor();
    Some(int.cmp(&(floor as i128)).then(if double > floor { Ordering::Less } else { Ordering::Equal }))
}

impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Bool(value) => value.fmt(f),
            Value::Int(value) => value.fmt(f),
            Value::UInt(value) => write!(f, "{value}u"),
            Value::Double(value) => value.fmt(f),
            // What a client sent is nobody else's.
            other => f.write_str(other.type_name()),
        }
    }
}
