//! From the parser's tree to one that is evaluated: names are resolved, patterns compiled.
//!
//! What comes here was checked before; what the check lets pass and is refused here are patterns.

use super::check::{TYPES, function_name, variable};
use super::value::Value;
use cel_interpreter::IdedExpr;
use cel_interpreter::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue};
use regex::{Regex, RegexBuilder};
use std::borrow::Cow;

/// Longer patterns are refused.
pub const PATTERN_BYTES_MAX: usize = 512;
/// What a compiled pattern may take, in bytes; bounds repetitions of repetitions.
const PATTERN_SIZE_MAX: usize = 128 * 1_024;
/// More patterns than this have no place in one rule.
pub const PATTERNS_MAX: usize = 16;

/// A variable that a request gives its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variable {
    Model,
    Provider,
    RequestType,
    Headers,
    Params,
    VirtualKeyId,
    VirtualKeyName,
    TeamId,
    TeamName,
    CustomerId,
    CustomerName,
    /// Declared for rules of other houses; always empty.
    Nothing,
    BudgetUsed,
    TokensUsed,
    Request,
    VirtualKeyBudgetUsed,
    TeamBudgetUsed,
    CustomerBudgetUsed,
    Stream,
    InputTokens,
    Body,
    Now,
    ProviderHealth,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

/// The item and the result so far of the one loop that can be running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Local {
    Item,
    Result,
}

/// An expression ready to be evaluated.
#[derive(Debug)]
pub enum Node {
    Literal(Constant),
    Variable(Variable),
    Local(Local),
    Type(&'static str),
    Select(Box<Node>, Box<str>),
    Has(Box<Node>, Box<str>),
    Index(Box<[Node; 2]>),
    In(Box<[Node; 2]>),
    Not(Box<Node>),
    Negative(Box<Node>),
    /// Both, or one of both; `true` for "or".
    Logic(bool, Box<[Node; 2]>),
    /// Whether they are equal, or not where `false`.
    Equal(bool, Box<[Node; 2]>),
    Compare(Comparison, Box<[Node; 2]>),
    Arithmetic(Operator, Box<[Node; 2]>),
    If(Box<[Node; 3]>),
    List(Box<[Node]>),
    Map(Box<[(Node, Node)]>),
    /// The loop's result so far with one more item.
    Push(Box<Node>),
    NotStrictlyFalse(Box<Node>),
    Matches(Box<Node>, Box<Regex>),
    /// A function; what it stands behind comes first.
    Call(&'static str, Box<[Node]>),
    Loop(Box<Loop>),
}

#[derive(Debug)]
pub struct Loop {
    pub range: Node,
    pub start: Node,
    pub condition: Node,
    pub step: Node,
    pub result: Node,
}

#[derive(Debug)]
pub enum Constant {
    Null,
    Bool(bool),
    Int(i64),
    UInt(u64),
    Double(f64),
    Text(Box<str>),
    Bytes(Box<[u8]>),
}

impl Constant {
    pub fn value(&self) -> Value<'_> {
        match self {
            Constant::Null => Value::Null,
            Constant::Bool(value) => Value::Bool(*value),
            Constant::Int(value) => Value::Int(*value),
            Constant::UInt(value) => Value::UInt(*value),
            Constant::Double(value) => Value::Double(*value),
            Constant::Text(value) => Value::text(value),
            Constant::Bytes(value) => Value::Bytes(Cow::Borrowed(value)),
        }
    }
}

/// What cannot be compiled, and at which part of the expression.
pub type Refused = (u64, String);

/// Compiles what was checked.
#[derive(Default)]
pub struct Compiler<'a> {
    /// The names of the loop's item and result, while in one.
    locals: Option<(&'a str, &'a str)>,
    patterns: usize,
}

impl<'a> Compiler<'a> {
    pub fn node(&mut self, at: &'a IdedExpr) -> Result<Node, Refused> {
        let unknown = || (at.id, "it holds something that rules cannot use".to_owned());
        Ok(match &at.expr {
            Expr::Unspecified | Expr::Struct(_) => return Err(unknown()),
            Expr::Literal(literal) => Node::Literal(constant(literal)),
            Expr::Ident(name) => self.ident(name).ok_or_else(unknown)?,
            Expr::Select(select) => {
                let operand = Box::new(self.node(&select.operand)?);
                let field = select.field.as_str().into();
                if select.test { Node::Has(operand, field) } else { Node::Select(operand, field) }
            }
            Expr::List(list) if list.optional_indices.is_empty() => Node::List(self.all(&list.elements)?),
            Expr::List(_) => return Err(unknown()),
            Expr::Map(map) => {
                let entries = map.entries.iter().map(|entry| match &entry.expr {
                    EntryExpr::MapEntry(entry) if !entry.optional => {
                        Ok((self.node(&entry.key)?, self.node(&entry.value)?))
                    }
                    _ => Err(unknown()),
                });
                Node::Map(entries.collect::<Result<_, _>>()?)
            }
            Expr::Call(call) => self.call(at, call)?,
            Expr::Comprehension(made) => self.comprehension(at, made)?,
        })
    }

    fn all(&mut self, expressions: &'a [IdedExpr]) -> Result<Box<[Node]>, Refused> {
        expressions.iter().map(|expression| self.node(expression)).collect()
    }

    fn boxed<const N: usize>(&mut self, at: &IdedExpr, expressions: &'a [IdedExpr]) -> Result<Box<[Node; N]>, Refused> {
        let nodes: Box<[Node]> = self.all(expressions)?;
        nodes.try_into().map_err(|_| (at.id, "an operator has the wrong number of sides".to_owned()))
    }

    fn ident(&self, name: &str) -> Option<Node> {
        if let Some((item, result)) = self.locals {
            // The inner name comes first, as in any language.
            if name == item {
                return Some(Node::Local(Local::Item));
            }
            if name == result {
                return Some(Node::Local(Local::Result));
            }
        }
        if let Some(variable) = variable(name) {
            return Some(Node::Variable(variable));
        }
        TYPES.iter().find(|known| **known == name).map(|name| Node::Type(name))
    }

    fn call(&mut self, at: &'a IdedExpr, call: &'a CallExpr) -> Result<Node, Refused> {
        let args = &call.args[..];
        let arithmetic = |operator| move |sides| Node::Arithmetic(operator, sides);
        let two: &dyn Fn(Box<[Node; 2]>) -> Node = match call.func_name.as_str() {
            "_+_" => {
                if let Some(item) = self.pushed(args) {
                    return Ok(Node::Push(Box::new(self.node(item)?)));
                }
                &arithmetic(Operator::Add)
            }
            "_-_" => &arithmetic(Operator::Subtract),
            "_*_" => &arithmetic(Operator::Multiply),
            "_/_" => &arithmetic(Operator::Divide),
            "_%_" => &arithmetic(Operator::Remainder),
            "_&&_" => &|sides| Node::Logic(false, sides),
            "_||_" => &|sides| Node::Logic(true, sides),
            "_==_" => &|sides| Node::Equal(true, sides),
            "_!=_" => &|sides| Node::Equal(false, sides),
            "_<_" => &|sides| Node::Compare(Comparison::Less, sides),
            "_<=_" => &|sides| Node::Compare(Comparison::LessEqual, sides),
            "_>_" => &|sides| Node::Compare(Comparison::Greater, sides),
            "_>=_" => &|sides| Node::Compare(Comparison::GreaterEqual, sides),
            "_[_]" => &Node::Index,
            "@in" => &Node::In,
            "_?_:_" => return Ok(Node::If(self.boxed(at, args)?)),
            "!_" | "-_" | "@not_strictly_false" => {
                let [argument] = args else { return Err((at.id, "an operator has no side".to_owned())) };
                let argument = Box::new(self.node(argument)?);
                return Ok(match call.func_name.as_str() {
                    "!_" => Node::Not(argument),
                    "-_" => Node::Negative(argument),
                    _ => Node::NotStrictlyFalse(argument),
                });
            }
            name => return self.function(at, name, call),
        };
        self.boxed(at, args).map(two)
    }

    /// The item, where the result of a loop gets one more.
    fn pushed(&self, args: &'a [IdedExpr]) -> Option<&'a IdedExpr> {
        let (_, result) = self.locals?;
        match args {
            [one, other] => match (&one.expr, &other.expr) {
                (Expr::Ident(name), Expr::List(list)) if name == result => match &list.elements[..] {
                    [item] => Some(item),
                    _ => None,
                },
                _ => None,
            },
            _ => None,
        }
    }

    fn function(&mut self, at: &'a IdedExpr, name: &str, call: &'a CallExpr) -> Result<Node, Refused> {
        let arguments: Vec<&'a IdedExpr> = call.target.as_deref().into_iter().chain(&call.args).collect();
        if let ("matches", [text, pattern]) = (name, &arguments[..]) {
            return Ok(Node::Matches(Box::new(self.node(text)?), Box::new(self.pattern(pattern)?)));
        }
        let Some(name) = function_name(name) else {
            return Err((at.id, format!("there is no function '{name}'")));
        };
        let arguments: Result<Box<[Node]>, Refused> = arguments.into_iter().map(|part| self.node(part)).collect();
        Ok(Node::Call(name, arguments?))
    }

    /// Compiled once, here: an evaluation never does.
    fn pattern(&mut self, at: &IdedExpr) -> Result<Regex, Refused> {
        let Expr::Literal(LiteralValue::String(pattern)) = &at.expr else {
            return Err((at.id, "the pattern of 'matches' must be a text written here, as in matches('^gpt-')".into()));
        };
        let pattern = pattern.inner();
        self.patterns += 1;
        if self.patterns > PATTERNS_MAX {
            return Err((at.id, format!("it has more than {PATTERNS_MAX} patterns")));
        }
        if pattern.len() > PATTERN_BYTES_MAX {
            return Err((at.id, format!("the pattern is longer than {PATTERN_BYTES_MAX} bytes")));
        }
        let mut builder = RegexBuilder::new(pattern);
        builder.size_limit(PATTERN_SIZE_MAX).dfa_size_limit(PATTERN_SIZE_MAX).nest_limit(32);
        builder.build().map_err(|error| {
            let reason = match error {
                regex::Error::CompiledTooBig(_) => "it is too large once its repetitions are written out".to_owned(),
                // The parser draws a picture of several lines; the last one says it.
                error => error.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned(),
            };
            (at.id, format!("the pattern of 'matches' cannot be used: {reason}"))
        })
    }

    fn comprehension(&mut self, at: &'a IdedExpr, made: &'a ComprehensionExpr) -> Result<Node, Refused> {
        if made.iter_var2.is_some() || self.locals.is_some() {
            return Err((at.id, "a loop (all, exists, exists_one, filter, map) may not hold another one".to_owned()));
        }
        let (range, start) = (self.node(&made.iter_range)?, self.node(&made.accu_init)?);
        self.locals = Some((&made.iter_var, &made.accu_var));
        let condition = self.node(&made.loop_cond)?;
        let step = self.node(&made.loop_step)?;
        let result = self.node(&made.result)?;
        self.locals = None;
        Ok(Node::Loop(Box::new(Loop { range, start, condition, step, result })))
    }
}

fn constant(literal: &LiteralValue) -> Constant {
    match literal {
        LiteralValue::Null => Constant::Null,
        LiteralValue::Boolean(value) => Constant::Bool(*value.inner()),
        LiteralValue::Int(value) => Constant::Int(*value.inner()),
        LiteralValue::UInt(value) => Constant::UInt(*value.inner()),
        LiteralValue::Double(value) => Constant::Double(*value.inner()),
        LiteralValue::String(value) => Constant::Text(value.inner().into()),
        LiteralValue::Bytes(value) => Constant::Bytes(value.inner().into()),
    }
}
