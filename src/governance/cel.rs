//! Rule expressions: alone in knowing the engine.
//!
//! What is here tells whether an expression may be stored: that it can be read, names nothing that a rule
//! does not have, and is a condition. The engine bounds almost nothing itself, so that a long chain of
//! operators could end the process when it is read or evaluated: it is read on a stack apart, and whatever
//! is deeper than any rule needs is refused.

use cel_interpreter::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue, SourceInfo};
use cel_interpreter::{IdedExpr, Program};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

/// Longer sources are no rule.
pub const SOURCE_BYTES_MAX: usize = 4_096;

/// How deep an expression may nest. `&&` and `||` in a row do not nest, other operators do.
pub const DEPTH_MAX: usize = 48;

/// Enough for the longest source, whatever it consists of, in a build without optimisations.
const STACK_BYTES: usize = 128 * 1_024 * 1_024;

/// What is wrong with an expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpressionError {
    #[error("the expression is longer than {SOURCE_BYTES_MAX} bytes")]
    TooLong,
    #[error("at line {line}, column {column} of the expression: {message}")]
    At { line: usize, column: usize, message: String },
    #[error("the expression could not be checked: there is no memory for it")]
    Unchecked,
}

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
const VARIABLES: &[(&str, Kind)] = &[
    ("model", Kind::Text),
    ("provider", Kind::Text),
    ("request_type", Kind::Text),
    ("headers", Kind::Map),
    ("params", Kind::Map),
    ("virtual_key_id", Kind::Text),
    ("virtual_key_name", Kind::Text),
    ("team_id", Kind::Text),
    ("team_name", Kind::Text),
    ("customer_id", Kind::Text),
    ("customer_name", Kind::Text),
    ("user_id", Kind::Text),
    ("complexity_tier", Kind::Text),
    ("budget_used", Kind::Number),
    ("tokens_used", Kind::Number),
    ("request", Kind::Number),
    ("virtual_key_budget_used", Kind::Number),
    ("team_budget_used", Kind::Number),
    ("customer_budget_used", Kind::Number),
    ("stream", Kind::Boolean),
    ("input_tokens", Kind::Number),
    ("body", Kind::Unknown),
    ("now", Kind::Time),
    ("provider_health", Kind::Unknown),
];

/// The names of types, which `type(..)` is compared with.
const TYPES: &[&str] =
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

/// Checks expressions, one after the other. All of one checker share a stack, which is there from the first
/// one on that needs it, and goes with the checker.
#[derive(Debug, Default)]
pub struct Checker {
    reader: Option<Reader>,
}

/// A thread that reads what it is given until nobody can give it more.
#[derive(Debug)]
struct Reader {
    sources: Sender<String>,
    answers: Receiver<Result<(), ExpressionError>>,
}

impl Checker {
    /// Whether `source` may be a rule's condition. An empty one means "always".
    pub fn check(&mut self, source: &str) -> Result<(), ExpressionError> {
        if source.len() > SOURCE_BYTES_MAX {
            return Err(ExpressionError::TooLong);
        }
        if source.trim().is_empty() {
            return Ok(());
        }
        let reader = self.reader.take().or_else(Reader::start).ok_or(ExpressionError::Unchecked)?;
        let answer = reader.read(source).ok_or(ExpressionError::Unchecked)?;
        // One that gave no answer is gone.
        self.reader = Some(reader);
        answer
    }
}

impl Reader {
    fn start() -> Option<Reader> {
        let (sources, given) = channel::<String>();
        let (answer, answers) = channel();
        let work = move || given.iter().map(|source| read(&source)).try_for_each(|found| answer.send(found));
        thread::Builder::new().stack_size(STACK_BYTES).spawn(work).ok()?;
        Some(Reader { sources, answers })
    }

    fn read(&self, source: &str) -> Option<Result<(), ExpressionError>> {
        self.sources.send(source.to_owned()).ok()?;
        self.answers.recv().ok()
    }
}

/// Reads and walks; all that recurses as deep as the source wants, its end included.
fn read(source: &str) -> Result<(), ExpressionError> {
    check_brackets(source)?;
    let program = Program::compile(source).map_err(|problems| {
        let at = |position: isize| usize::try_from(position).unwrap_or(1).max(1);
        problems.errors.into_iter().next().map_or_else(
            || first("it cannot be read"),
            |problem| ExpressionError::At { line: at(problem.pos.0), column: at(problem.pos.1), message: problem.msg },
        )
    })?;
    let mut walk = Walk { places: program.source_info(), source, names: Vec::new(), depth: 0, loops: 0 };
    let kind = walk.kind(program.expression())?;
    walk.want_boolean(program.expression(), kind, "a rule's condition is true or false")
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
}

impl<'a> Walk<'a> {
    fn fault(&self, at: &IdedExpr, message: impl Into<String>) -> ExpressionError {
        let (start, _) = self.places.offset_for(at.id).unwrap_or_default();
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
        let local = self.names.iter().rev().find(|(local, _)| *local == name);
        if let Some((_, kind)) = local.or_else(|| VARIABLES.iter().find(|(variable, _)| *variable == name)) {
            return Ok(*kind);
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

#[cfg(test)]
mod tests;
