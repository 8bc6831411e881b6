//! Evaluation, step by step. Every step is counted, and what a step may copy or look through counts by its
//! size; so the time and the memory of an evaluation are bounded, whatever was written and whatever was sent.

use super::compile::{Comparison, Local, Loop, Node, Operator, Variable};
use super::function;
use super::value::{Value, whole};
use chrono::TimeDelta;
use serde_json::Value as Json;
use smallvec::SmallVec;
use std::borrow::Cow;
use std::cmp::Ordering;
use std::rc::Rc;

/// The steps that one evaluation may take.
pub const STEPS_MAX: u32 = 10_000;
/// So many bytes of text are looked through in a step.
const BYTES_A_STEP: usize = 64;

/// Where variables have their values from.
pub trait Facts {
    fn value(&self, variable: Variable) -> Result<Value<'_>, Fault>;
}

/// Why an expression has no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Nothing is wrong: a rule that asks for what is not there does not match.
    #[error("there is no '{0}'")]
    Missing(Box<str>),
    #[error("it took more steps than a rule may")]
    TooCostly,
    #[error("{0}")]
    Failed(Cow<'static, str>),
}

impl Fault {
    pub(super) fn missing(what: &str) -> Fault {
        // The name may be a client's.
        Fault::Missing(what.chars().take(64).collect::<String>().into())
    }

    pub(super) const fn failed(what: &'static str) -> Fault {
        Fault::Failed(Cow::Borrowed(what))
    }

    fn no_such(operator: &str, left: &Value<'_>, right: &Value<'_>) -> Fault {
        Fault::Failed(format!("{operator} cannot be used on {} and {}", left.type_name(), right.type_name()).into())
    }
}

type Outcome<'a> = Result<Value<'a>, Fault>;

/// One evaluation on its way.
pub(super) struct Evaluation<'a, 's> {
    facts: &'a dyn Facts,
    steps: &'s mut u32,
    item: Value<'a>,
    result: Value<'a>,
}

impl<'a, 's> Evaluation<'a, 's> {
    pub(super) fn of(facts: &'a dyn Facts, steps: &'s mut u32) -> Evaluation<'a, 's> {
        Evaluation { facts, steps, item: Value::Null, result: Value::Null }
    }

    pub(super) fn holds(&mut self, node: &'a Node) -> Result<bool, Fault> {
        match self.value(node)? {
            Value::Bool(holds) => Ok(holds),
            other => Err(Fault::Failed(format!("it came to a {}, not to true or false", other.type_name()).into())),
        }
    }

    pub(super) fn charge(&mut self, steps: usize) -> Result<(), Fault> {
        let left = u32::try_from(steps).ok().and_then(|steps| self.steps.checked_sub(steps));
        *self.steps = left.unwrap_or(0);
        left.map(drop).ok_or(Fault::TooCostly)
    }

    /// For bytes that are looked through or copied.
    pub(super) fn charge_bytes(&mut self, bytes: usize) -> Result<(), Fault> {
        self.charge(bytes / BYTES_A_STEP)
    }

    pub(super) fn value(&mut self, node: &'a Node) -> Outcome<'a> {
        self.charge(1)?;
        match node {
            Node::Literal(constant) => Ok(constant.value()),
            Node::Variable(variable) => self.facts.value(*variable),
            Node::Local(Local::Item) => Ok(self.item.clone()),
            Node::Local(Local::Result) => match &self.result {
                Value::Failed(fault) => Err((**fault).clone()),
                result => Ok(result.clone()),
            },
            Node::Type(name) => Ok(Value::Type(name)),
            Node::Select(of, field) => {
                let of = self.value(of)?;
                self.member(&of, field)?.ok_or_else(|| Fault::missing(field))
            }
            Node::Has(of, field) => {
                let of = self.value(of)?;
                Ok(Value::Bool(self.member(&of, field)?.is_some()))
            }
            Node::Index(sides) => {
                let [of, key] = &**sides;
                let (of, key) = (self.value(of)?, self.value(key)?);
                self.index(&of, &key)
            }
            Node::In(sides) => {
                let [item, of] = &**sides;
                let (item, of) = (self.value(item)?, self.value(of)?);
                self.is_in(&item, &of).map(Value::Bool)
            }
            Node::Not(side) => match self.value(side)? {
                Value::Bool(side) => Ok(Value::Bool(!side)),
                _ => Err(Fault::failed("'!' wants true or false")),
            },
            Node::Negative(side) => match self.value(side)? {
                Value::Int(int) => int.checked_neg().map(Value::Int).ok_or(OVERFLOW),
                Value::Double(double) => Ok(Value::Double(-double)),
                _ => Err(Fault::failed("'-' wants a number")),
            },
            Node::Logic(or, sides) => self.logic(*or, sides),
            Node::Equal(wanted, sides) => {
                let [left, right] = &**sides;
                let (left, right) = (self.value(left)?, self.value(right)?);
                Ok(Value::Bool(self.equal(&left, &right)? == *wanted))
            }
            Node::Compare(comparison, sides) => {
                let [left, right] = &**sides;
                let (left, right) = (self.value(left)?, self.value(right)?);
                self.compare(*comparison, &left, &right).map(Value::Bool)
            }
            Node::Arithmetic(operator, sides) => {
                let [left, right] = &**sides;
                let (left, right) = (self.value(left)?, self.value(right)?);
                self.compute(*operator, left, right)
            }
            Node::If(parts) => {
                let [condition, yes, no] = &**parts;
                match self.value(condition)? {
                    Value::Bool(true) => self.value(yes),
                    Value::Bool(false) => self.value(no),
                    _ => Err(Fault::failed("'?' wants true or false before it")),
                }
            }
            Node::List(items) => {
                let items: Result<Vec<Value<'a>>, Fault> = items.iter().map(|item| self.value(item)).collect();
                items.map(Rc::new).map(Value::List)
            }
            Node::Map(entries) => self.map(entries),
            Node::Push(item) => self.push(item),
            Node::NotStrictlyFalse(side) => match self.value(side) {
                Err(Fault::TooCostly) => Err(Fault::TooCostly),
                other => Ok(Value::Bool(!matches!(other, Ok(Value::Bool(false))))),
            },
            Node::Matches(text, pattern) => match self.value(text)? {
                Value::Text(text) => {
                    // In the worst case each character meets each state of the pattern.
                    self.charge_bytes(text.len().saturating_mul(16 + pattern.as_str().len()) / 8)?;
                    Ok(Value::Bool(pattern.is_match(&text)))
                }
                _ => Err(Fault::failed("'matches' wants a text")),
            },
            Node::Call(name, arguments) => {
                let arguments = arguments.iter().map(|argument| self.value(argument));
                let arguments: SmallVec<[Value<'a>; 2]> = arguments.collect::<Result<_, Fault>>()?;
                function::call(self, name, &arguments)
            }
            Node::Loop(turns) => self.turns(turns),
        }
    }

    /// One side may decide alone, whatever is wrong with the other.
    fn logic(&mut self, or: bool, sides: &'a [Node; 2]) -> Outcome<'a> {
        let [left, right] = sides;
        let left = self.value(left);
        if matches!(left, Ok(Value::Bool(side)) if side == or) {
            return Ok(Value::Bool(or));
        }
        let right = self.value(right);
        if matches!(right, Ok(Value::Bool(side)) if side == or) {
            return Ok(Value::Bool(or));
        }
        match (left?, right?) {
            (Value::Bool(_), Value::Bool(_)) => Ok(Value::Bool(!or)),
            (left, right) => Err(Fault::no_such(if or { "'||'" } else { "'&&'" }, &left, &right)),
        }
    }

    fn member(&mut self, of: &Value<'a>, name: &str) -> Result<Option<Value<'a>>, Fault> {
        match of {
            Value::Members(members) => members.get(name),
            Value::Json(Json::Object(members)) => Ok(members.get(name).map(Value::json)),
            Value::Map(entries) => self.entry(entries, &Value::text(name)),
            other => Err(Fault::Failed(format!("a {} has no members", other.type_name()).into())),
        }
    }

    fn entry(&mut self, entries: &[(Value<'a>, Value<'a>)], key: &Value<'_>) -> Result<Option<Value<'a>>, Fault> {
        for (known, value) in entries {
            self.charge(1)?;
            if self.equal(known, key)? {
                return Ok(Some(value.clone()));
            }
        }
        Ok(None)
    }

    fn index(&mut self, of: &Value<'a>, key: &Value<'a>) -> Outcome<'a> {
        match (of, key) {
            (Value::Map(entries), key) if is_key(key) || key.is_number() => {
                self.entry(entries, key)?.ok_or_else(|| match key {
                    Value::Text(name) => Fault::missing(name),
                    key => Fault::missing(&format!("{key:?}")),
                })
            }
            (of, Value::Text(name)) => self.member(of, name)?.ok_or_else(|| Fault::missing(name)),
            (of, key) => {
                let at = match key {
                    Value::Double(double) if double.fract() == 0.0 => Some(*double as i128),
                    key => whole(key),
                };
                let (Some(at), Some(length)) = (at, length(of)) else {
                    return Err(Fault::no_such("an index", of, key));
                };
                let at = usize::try_from(at).ok().filter(|at| *at < length);
                at.and_then(|at| element(of, at)).ok_or(Fault::failed("an index is beyond its list"))
            }
        }
    }

    fn is_in(&mut self, item: &Value<'a>, of: &Value<'a>) -> Result<bool, Fault> {
        match (of, item) {
            (Value::Map(entries), key) if is_key(key) || key.is_number() => Ok(self.entry(entries, key)?.is_some()),
            (Value::Members(_) | Value::Json(Json::Object(_)), Value::Text(name)) => {
                Ok(self.member(of, name)?.is_some())
            }
            (Value::Members(_) | Value::Json(Json::Object(_)), _) => Ok(false),
            (of, item) => {
                let length = length(of).ok_or_else(|| Fault::no_such("'in'", item, of))?;
                for element in (0..length).filter_map(|at| element(of, at)) {
                    self.charge(1)?;
                    if self.equal(item, &element)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
        }
    }

    /// What is of two kinds is different, and no fault.
    fn equal(&mut self, left: &Value<'_>, right: &Value<'_>) -> Result<bool, Fault> {
        match (left, right) {
            (Value::Null, Value::Null) => Ok(true),
            (Value::Type(left), Value::Type(right)) => Ok(left == right),
            (Value::Text(left), Value::Text(right)) => {
                self.charge_bytes(if left.len() == right.len() { left.len() } else { 0 })?;
                Ok(left == right)
            }
            (Value::Members(_), _) | (_, Value::Members(_)) => {
                Err(Fault::failed("headers, params and the body cannot be compared as a whole"))
            }
            (left, right) if left.type_name() == "list" && right.type_name() == "list" => {
                let count = length(left);
                if count != length(right) {
                    return Ok(false);
                }
                for at in 0..count.unwrap_or(0) {
                    self.charge(1)?;
                    let (Some(left), Some(right)) = (element(left, at), element(right, at)) else { return Ok(false) };
                    if !self.equal(&left, &right)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            (left, right) if left.type_name() == "map" && right.type_name() == "map" => self.equal_maps(left, right),
            (left, right) => Ok(left.order(right).flatten() == Some(Ordering::Equal)),
        }
    }

    fn equal_maps(&mut self, left: &Value<'_>, right: &Value<'_>) -> Result<bool, Fault> {
        let (left, right) = (entries(left), entries(right));
        self.charge(left.len() + right.len())?;
        if left.len() != right.len() {
            return Ok(false);
        }
        for (key, value) in &left {
            let mut found = false;
            for (other, theirs) in &right {
                self.charge(1)?;
                if self.equal(key, other)? {
                    found = self.equal(value, theirs)?;
                    break;
                }
            }
            if !found {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn compare(&mut self, comparison: Comparison, left: &Value<'_>, right: &Value<'_>) -> Result<bool, Fault> {
        if let (Value::Text(left), Value::Text(right)) = (left, right) {
            self.charge_bytes(left.len().min(right.len()))?;
        }
        let order = left.order(right).ok_or_else(|| Fault::no_such("a comparison", left, right))?;
        Ok(order.is_some_and(|order| match comparison {
            Comparison::Less => order.is_lt(),
            Comparison::LessEqual => order.is_le(),
            Comparison::Greater => order.is_gt(),
            Comparison::GreaterEqual => order.is_ge(),
        }))
    }

    fn compute(&mut self, operator: Operator, left: Value<'a>, right: Value<'a>) -> Outcome<'a> {
        use Operator::{Add, Divide, Multiply, Remainder, Subtract};
        match (operator, left, right) {
            (_, Value::Int(left), Value::Int(right)) => {
                if right == 0 && matches!(operator, Divide | Remainder) {
                    return Err(Fault::failed("something is divided by zero"));
                }
                let result = match operator {
                    Add => left.checked_add(right),
                    Subtract => left.checked_sub(right),
                    Multiply => left.checked_mul(right),
                    Divide => left.checked_div(right),
                    Remainder => left.checked_rem(right),
                };
                result.map(Value::Int).ok_or(OVERFLOW)
            }
            (_, Value::UInt(left), Value::UInt(right)) => {
                if right == 0 && matches!(operator, Divide | Remainder) {
                    return Err(Fault::failed("something is divided by zero"));
                }
                let result = match operator {
                    Add => left.checked_add(right),
                    Subtract => left.checked_sub(right),
                    Multiply => left.checked_mul(right),
                    Divide => left.checked_div(right),
                    Remainder => left.checked_rem(right),
                };
                result.map(Value::UInt).ok_or(OVERFLOW)
            }
            (Add, Value::Text(left), Value::Text(right)) => {
                self.charge_bytes(left.len() + right.len())?;
                Ok(Value::Text(Cow::Owned(left.into_owned() + &right)))
            }
            (Add, Value::Bytes(left), Value::Bytes(right)) => {
                self.charge_bytes(left.len() + right.len())?;
                Ok(Value::Bytes(Cow::Owned([left, right].concat())))
            }
            (Add, Value::Duration(left), Value::Duration(right)) => duration(left.checked_add(&right)),
            (Subtract, Value::Duration(left), Value::Duration(right)) => duration(left.checked_sub(&right)),
            (Subtract, Value::Time(left), Value::Time(right)) => duration(Some(left - right)),
            (Add, Value::Time(time), Value::Duration(by)) | (Add, Value::Duration(by), Value::Time(time)) => {
                time.checked_add_signed(by).map(Value::Time).ok_or(OVERFLOW)
            }
            (Subtract, Value::Time(time), Value::Duration(by)) => {
                time.checked_sub_signed(by).map(Value::Time).ok_or(OVERFLOW)
            }
            (_, left, right) if left.is_number() && right.is_number() && operator != Remainder => {
                // One of them is a double, or they are ints of two kinds.
                let (Some(a), Some(b)) = (double(&left), double(&right)) else {
                    return Err(Fault::no_such("arithmetic", &left, &right));
                };
                Ok(Value::Double(match operator {
                    Add => a + b,
                    Subtract => a - b,
                    Multiply => a * b,
                    Divide | Remainder => a / b,
                }))
            }
            (Add, left, right) if left.type_name() == "list" && right.type_name() == "list" => {
                let (first, second) = (length(&left).unwrap_or(0), length(&right).unwrap_or(0));
                self.charge(first + second)?;
                let items = (0..first).filter_map(|at| element(&left, at));
                Ok(Value::List(Rc::new(items.chain((0..second).filter_map(|at| element(&right, at))).collect())))
            }
            (_, left, right) => Err(Fault::no_such("arithmetic", &left, &right)),
        }
    }

    fn map(&mut self, written: &'a [(Node, Node)]) -> Outcome<'a> {
        let mut entries: Vec<(Value<'a>, Value<'a>)> = Vec::with_capacity(written.len());
        for (key, value) in written {
            let (key, value) = (self.value(key)?, self.value(value)?);
            if !is_key(&key) {
                return Err(Fault::failed("the keys of a map are texts, whole numbers or booleans"));
            }
            if self.entry(&entries, &key)?.is_some() {
                return Err(Fault::failed("a map has a key twice"));
            }
            entries.push((key, value));
        }
        Ok(Value::Map(Rc::new(entries)))
    }

    fn push(&mut self, item: &'a Node) -> Outcome<'a> {
        let item = self.value(item)?;
        match std::mem::replace(&mut self.result, Value::Null) {
            Value::List(mut list) => {
                // Nobody else holds it, so nothing is copied.
                self.charge(if Rc::strong_count(&list) > 1 { list.len() } else { 0 })?;
                Rc::make_mut(&mut list).push(item);
                Ok(Value::List(list))
            }
            other => Err(Fault::no_such("'+'", &other, &item)),
        }
    }

    fn turns(&mut self, turns: &'a Loop) -> Outcome<'a> {
        let range = self.value(&turns.range)?;
        self.result = self.value(&turns.start)?;
        let keys = match &range {
            Value::Members(members) => {
                let names = members.names()?;
                names.into_iter().map(Value::Text).collect()
            }
            Value::Map(entries) => entries.iter().map(|(key, _)| key.clone()).collect(),
            Value::Json(Json::Object(members)) => members.keys().map(|key| Value::text(key)).collect(),
            _ => Vec::new(),
        };
        self.charge(keys.len())?;
        if range.type_name() == "map" {
            for key in keys {
                if !self.turn(turns, key)? {
                    break;
                }
            }
        } else {
            let count = length(&range).ok_or(Fault::failed("a loop wants a list or a map"))?;
            for item in (0..count).filter_map(|at| element(&range, at)) {
                if !self.turn(turns, item)? {
                    break;
                }
            }
        }
        self.value(&turns.result)
    }

    /// False: what is known decides, whatever is still to come.
    fn turn(&mut self, turns: &'a Loop, item: Value<'a>) -> Result<bool, Fault> {
        match self.value(&turns.condition)? {
            Value::Bool(true) => {}
            _ => return Ok(false),
        }
        self.item = item;
        // Of `all` and `exists` another element may still decide, whatever is wrong with this one.
        let may_recover = matches!(turns.step, Node::Logic(..));
        self.result = match self.value(&turns.step) {
            Err(fault) if may_recover && fault != Fault::TooCostly => Value::Failed(Rc::new(fault)),
            outcome => outcome?,
        };
        Ok(true)
    }
}

fn is_key(value: &Value<'_>) -> bool {
    matches!(value, Value::Text(_) | Value::Bool(_) | Value::Int(_) | Value::UInt(_))
}

const OVERFLOW: Fault = Fault::failed("a number became too large");

fn duration<'a>(result: Option<TimeDelta>) -> Outcome<'a> {
    result.map(Value::Duration).ok_or(OVERFLOW)
}

/// A number as a double, if it is a double or was meant to meet one.
fn double(value: &Value<'_>) -> Option<f64> {
    match value {
        Value::Double(double) => Some(*double),
        Value::Int(int) => Some(*int as f64),
        // Ints of two kinds do not mix in this language.
        _ => None,
    }
}

/// How long a list is.
pub(super) fn length(of: &Value<'_>) -> Option<usize> {
    match of {
        Value::List(items) => Some(items.len()),
        Value::Json(Json::Array(items)) => Some(items.len()),
        _ => None,
    }
}

fn element<'a>(of: &Value<'a>, at: usize) -> Option<Value<'a>> {
    match of {
        Value::List(items) => items.get(at).cloned(),
        Value::Json(Json::Array(items)) => items.get(at).map(Value::json),
        _ => None,
    }
}

fn entries<'a>(of: &Value<'a>) -> Vec<(Value<'a>, Value<'a>)> {
    match of {
        Value::Map(entries) => entries.to_vec(),
        Value::Json(Json::Object(members)) => {
            members.iter().map(|(key, value)| (Value::text(key), Value::json(value))).collect()
        }
        _ => Vec::new(),
    }
}
