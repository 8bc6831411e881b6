//! What is wrong with an expression, as far as that shows before there are values.

use super::compile::{Compiler, Node, Variable};
use super::{DEPTH_MAX, ExpressionError, NODES_MAX};
use cel_interpreter::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue, SourceInfo};
use cel_interpreter::{IdedExpr, Program};

/// What a value is, as far as it is known before there are any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Boolean,
    Number,
    Text,
    List,
    Map,
    Time,
    Other,
    Unknown,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Kind::Boolean => "a boolean",
            Kind::Number => "a number",
            Kind::Text => "a text",
            Kind::List => "a list",
            Kind::Map => "a map",
            Kind::Time => "a time",
            Kind::Other | Kind::Unknown => "something else",
        }
    }

    /// What both branches of a choice may be.
    fn or(self, other: Kind) -> Kind {
        if self == other { self } else { Kind::Unknown }
    }
}

/// The variables that an expression may name.
const VARIABLES: &[(&str, Variable, Kind)] = &[
    ("model", Variable::Model, Kind::Text),
    ("provider", Variable::Provider, Kind::Text),
    ("request_type", Variable::RequestType, Kind::Text),
    ("headers", Variable::Headers, Kind::Map),
    ("params", Variable::Params, Kind::Map),
    ("virtual_key_id", Variable::VirtualKeyId, Kind::Text),
    ("virtual_key_name", Variable::VirtualKeyName, Kind::Text),
    ("team_id", Variable::TeamId, Kind::Text),
    ("team_name", Variable::TeamName, Kind::Text),
    ("customer_id", Variable::CustomerId, Kind::Text),
    ("customer_name", Variable::CustomerName, Kind::Text),
    ("user_id", Variable::Nothing, Kind::Text),
    ("complexity_tier", Variable::Nothing, Kind::Text),
    ("budget_used", Variable::BudgetUsed, Kind::Number),
    ("tokens_used", Variable::TokensUsed, Kind::Number),
    ("request", Variable::Request, Kind::Number),
    ("virtual_key_budget_used", Variable::VirtualKeyBudgetUsed, Kind::Number),
    ("team_budget_used", Variable::TeamBudgetUsed, Kind::Number),
    ("customer_budget_used", Variable::CustomerBudgetUsed, Kind::Number),
    ("stream", Variable::Stream, Kind::Boolean),
    ("input_tokens", Variable::InputTokens, Kind::Number),
    ("body", Variable::Body, Kind::Unknown),
    ("now", Variable::Now, Kind::Time),
    ("provider_health", Variable::ProviderHealth, Kind::Unknown),
];

/// The names of types, which `type(..)` is compared with.
pub(super) const TYPES: &[&str] =
    &["bool", "bytes", "double", "duration", "int", "list", "map", "null_type", "string", "timestamp", "type", "uint"];

/// Functions by name: on how many arguments of their own, on how many beside a target, and what comes out.
type Function = (&'static str, &'static [usize], &'static [usize], Kind);

const FUNCTIONS: &[Function] = &[
    ("size", &[1], &[0], Kind::Number),
    ("contains", &[], &[1], Kind::Boolean),
    ("startsWith", &[], &[1], Kind::Boolean),
    ("endsWith", &[], &[1], Kind::Boolean),
    ("matches", &[2], &[1], Kind::Boolean),
    ("bool", &[1], &[], Kind::Boolean),
    ("int", &[1], &[], Kind::Number),
    ("uint", &[1], &[], Kind::Number),
    ("double", &[1], &[], Kind::Number),
    ("string", &[1], &[], Kind::Text),
    ("bytes", &[1], &[], Kind::Other),
    ("type", &[1], &[], Kind::Other),
    ("dyn", &[1], &[], Kind::Unknown),
    ("duration", &[1], &[], Kind::Time),
    ("timestamp", &[1], &[], Kind::Time),
    ("getFullYear", &[], &[0, 1], Kind::Number),
    ("getMonth", &[], &[0, 1], Kind::Number),
    ("getDate", &[], &[0, 1], Kind::Number),
    ("getDayOfMonth", &[], &[0, 1], Kind::Number),
    ("getDayOfWeek", &[], &[0, 1], Kind::Number),
    ("getDayOfYear", &[], &[0, 1], Kind::Number),
    ("getHours", &[], &[0, 1], Kind::Number),
    ("getMinutes", &[], &[0, 1], Kind::Number),
    ("getSeconds", &[], &[0, 1], Kind::Number),
    ("getMilliseconds", &[], &[0, 1], Kind::Number),
];

/// The names of macros, which stay calls where they are given something that they are not for.
const MACROS: &[(&str, &str)] = &[
    ("has", "has(map.field)"),
    ("all", "list.all(item, condition)"),
    ("exists", "list.exists(item, condition)"),
    ("exists_one", "list.exists_one(item, condition)"),
    ("filter", "list.filter(item, condition)"),
    ("map", "list.map(item, value)"),
];

/// Reads and walks; all that recurses as deep as the source wants, its end included.
pub(super) fn read(source: &str) -> Result<Node, ExpressionError> {
    check_brackets(source)?;
    let program = Program::compile(source).map_err(|problems| {
        let at = |position: isize| usize::try_from(position).unwrap_or(1).max(1);
        problems.errors.into_iter().next().map_or_else(
            || first("it cannot be read"),
            |problem| ExpressionError::At { line: at(problem.pos.0), column: at(problem.pos.1), message: problem.msg },
        )
    })?;
    let mut walk = Walk { places: program.source_info(), source, names: Vec::new(), depth: 0, loops: 0, nodes: 0 };
    let kind = walk.kind(program.expression())?;
    walk.want_boolean(program.expression(), kind, "a rule's condition is true or false")?;
    let compiled = Compiler::default().node(program.expression());
    compiled.map_err(|(id, message)| walk.fault_at(id, message))
}

/// The variable of this name, where there is one.
pub(super) fn variable(name: &str) -> Option<Variable> {
    VARIABLES.iter().find(|(known, ..)| *known == name).map(|(_, variable, _)| *variable)
}

/// The function of this name, where there is one.
pub(super) fn function_name(name: &str) -> Option<&'static str> {
    FUNCTIONS.iter().find(|(known, ..)| *known == name).map(|(known, ..)| *known)
}

fn first(message: &str) -> ExpressionError {
    ExpressionError::At { line: 1, column: 1, message: message.to_owned() }
}

/// The parser has its own, higher bound for these, but says neither what nor where.
fn check_brackets(source: &str) -> Result<(), ExpressionError> {
    let mut depth = 0_usize;
    let (mut quote, mut escaped) = (None, false);
    for (at, sign) in source.char_indices() {
        match (quote, sign) {
            (Some(_), '\\') => escaped = !escaped,
            (Some(open), _) => {
                // A text ends with its line; what is none is the parser's to say.
                if sign == '\n' || (sign == open && !escaped) {
                    quote = None;
                }
                escaped = false;
            }
            (None, '\'' | '"') => quote = Some(sign),
            (None, '(' | '[' | '{') => depth += 1,
            (None, ')' | ']' | '}') => depth = depth.saturating_sub(1),
            (None, _) => {}
        }
        if depth > DEPTH_MAX {
            return Err(at_byte(source, at, too_deep()));
        }
    }
    Ok(())
}

fn too_deep() -> String {
    format!("it nests deeper than {DEPTH_MAX} levels")
}

fn at_byte(source: &str, byte: usize, message: String) -> ExpressionError {
    let before = source.get(..byte).unwrap_or(source);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    ExpressionError::At { line, column, message }
}

/// A way through an expression, from the outside in.
struct Walk<'a> {
    places: &'a SourceInfo,
    source: &'a str,
    /// Variables that the loops around declare, with what they are.
    names: Vec<(&'a str, Kind)>,
    depth: usize,
    loops: usize,
    nodes: usize,
}

impl<'a> Walk<'a> {
    fn fault(&self, at: &IdedExpr, message: impl Into<String>) -> ExpressionError {
        self.fault_at(at.id, message)
    }

    fn fault_at(&self, id: u64, message: impl Into<String>) -> ExpressionError {
        let (start, _) = self.places.offset_for(id).unwrap_or_default();
        let byte = usize::try_from(start).unwrap_or(usize::MAX);
        at_byte(self.source, byte, message.into())
    }

    fn want_boolean(&self, at: &IdedExpr, kind: Kind, why: &str) -> Result<(), ExpressionError> {
        match kind {
            Kind::Boolean | Kind::Unknown => Ok(()),
            other => Err(self.fault(at, format!("{why}, and this is {}", other.name()))),
        }
    }

    /// What `expression` is, if everything within it is allowed.
    fn kind(&mut self, expression: &'a IdedExpr) -> Result<Kind, ExpressionError> {
        if self.depth >= DEPTH_MAX {
            return Err(self.fault(expression, too_deep()));
        }
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return Err(self.fault(expression, format!("it has more than {NODES_MAX} parts")));
        }
        self.depth += 1;
        let kind = match &expression.expr {
            Expr::Unspecified => Ok(Kind::Unknown),
            Expr::Literal(literal) => Ok(literal_kind(literal)),
            Expr::Ident(name) => self.ident(expression, name),
            Expr::Call(call) => self.call(expression, call),
            Expr::Comprehension(comprehension) => self.comprehension(expression, comprehension),
            Expr::List(list) => self.all(&list.elements).map(|_| Kind::List),
            Expr::Map(map) => {
                for entry in &map.entries {
                    if let EntryExpr::MapEntry(entry) = &entry.expr {
                        self.kind(&entry.key)?;
                        self.kind(&entry.value)?;
                    }
                }
                Ok(Kind::Map)
            }
            Expr::Select(select) => {
                self.kind(&select.operand)?;
                let texts = matches!(&select.operand.expr, Expr::Ident(name) if self.holds_texts(name));
                Ok(if select.test {
                    Kind::Boolean
                } else if texts {
                    Kind::Text
                } else {
                    Kind::Unknown
                })
            }
            Expr::Struct(made) => Err(self.fault(expression, format!("there is no type '{}' to make", made.type_name))),
        };
        self.depth -= 1;
        kind
    }

    fn all(&mut self, expressions: &'a [IdedExpr]) -> Result<Vec<Kind>, ExpressionError> {
        expressions.iter().map(|expression| self.kind(expression)).collect()
    }

    /// Whether a variable is one of the maps that hold nothing but texts.
    fn holds_texts(&self, name: &str) -> bool {
        matches!(name, "headers" | "params") && !self.names.iter().any(|(local, _)| *local == name)
    }

    fn ident(&self, at: &IdedExpr, name: &str) -> Result<Kind, ExpressionError> {
        let local = self.names.iter().rev().find(|(local, _)| *local == name).map(|(_, kind)| *kind);
        let variable = || VARIABLES.iter().find(|(variable, ..)| *variable == name).map(|(_, _, kind)| *kind);
        if let Some(kind) = local.or_else(variable) {
            return Ok(kind);
        }
        if TYPES.contains(&name) {
            return Ok(Kind::Other);
        }
        Err(self.fault(at, format!("there is no variable '{name}'")))
    }

    fn call(&mut self, at: &'a IdedExpr, call: &'a CallExpr) -> Result<Kind, ExpressionError> {
        // A function that is not there comes before what it was given.
        if !call.func_name.starts_with(['_', '@', '!', '-']) {
            let kind = self.function(at, &call.func_name, call.target.is_some(), call.args.len())?;
            call.target.as_deref().map(|target| self.kind(target)).transpose()?;
            self.all(&call.args)?;
            return Ok(kind);
        }
        let target = call.target.as_deref().map(|target| self.kind(target)).transpose()?;
        let kinds = self.all(&call.args)?;
        match (call.func_name.as_str(), &kinds[..]) {
            (name @ ("_&&_" | "_||_" | "!_"), _) => {
                let sign = name.trim_matches('_');
                for (argument, kind) in call.args.iter().zip(&kinds) {
                    self.want_boolean(argument, *kind, &format!("'{sign}' wants true or false"))?;
                }
                Ok(Kind::Boolean)
            }
            ("_==_" | "_!=_" | "_<_" | "_<=_" | "_>_" | "_>=_" | "@in" | "@not_strictly_false", _) => Ok(Kind::Boolean),
            ("_?_:_", [condition, yes, no]) => {
                self.want_boolean(&call.args[0], *condition, "'?' wants true or false before it")?;
                Ok(yes.or(*no))
            }
            // Times, lists and texts can be added, too.
            ("_+_" | "_-_", [left, right]) => Ok(if *left == Kind::Boolean { Kind::Other } else { left.or(*right) }),
            ("_*_" | "_/_" | "_%_" | "-_", _) => Ok(Kind::Number),
            ("_[_]", [_, _]) => {
                let texts = matches!(&call.args[0].expr, Expr::Ident(name) if self.holds_texts(name));
                Ok(if texts { Kind::Text } else { Kind::Unknown })
            }
            (name, _) => self.function(at, name, target.is_some(), kinds.len()),
        }
    }

    fn function(&self, at: &IdedExpr, name: &str, on_target: bool, count: usize) -> Result<Kind, ExpressionError> {
        if let Some((_, form)) = MACROS.iter().find(|(known, _)| *known == name) {
            return Err(self.fault(at, format!("'{name}' is written as {form}")));
        }
        let Some((_, alone, member, kind)) = FUNCTIONS.iter().find(|(known, ..)| *known == name) else {
            return Err(self.fault(at, format!("there is no function '{name}'")));
        };
        let counts = if on_target { member } else { alone };
        if counts.contains(&count) {
            return Ok(*kind);
        }
        let message = match (on_target, counts.is_empty()) {
            (true, true) => format!("the function '{name}' stands alone, as in {name}(..)"),
            (false, true) => format!("the function '{name}' stands behind a value, as in model.{name}(..)"),
            (_, false) => format!("the function '{name}' does not take {count} arguments"),
        };
        Err(self.fault(at, message))
    }

    /// A loop. Inside another one it would multiply what it costs, without a bound in sight.
    fn comprehension(&mut self, at: &IdedExpr, made: &'a ComprehensionExpr) -> Result<Kind, ExpressionError> {
        if self.loops > 0 {
            return Err(self.fault(at, "a loop (all, exists, exists_one, filter, map) may not hold another one"));
        }
        self.loops += 1;
        self.kind(&made.iter_range)?;
        let kind = self.kind(&made.accu_init)?;
        let outside = self.names.len();
        self.names.push((&made.accu_var, kind));
        let items = [Some(&made.iter_var), made.iter_var2.as_ref()];
        self.names.extend(items.into_iter().flatten().map(|name| (name.as_str(), Kind::Unknown)));
        self.kind(&made.loop_cond)?;
        self.kind(&made.loop_step)?;
        self.names.truncate(outside + 1);
        let result = self.kind(&made.result);
        self.names.truncate(outside);
        self.loops -= 1;
        result
    }
}

const fn literal_kind(literal: &LiteralValue) -> Kind {
    match literal {
        LiteralValue::Boolean(_) => Kind::Boolean,
        LiteralValue::Double(_) | LiteralValue::Int(_) | LiteralValue::UInt(_) => Kind::Number,
        LiteralValue::String(_) => Kind::Text,
        LiteralValue::Bytes(_) | LiteralValue::Null => Kind::Other,
    }
}
