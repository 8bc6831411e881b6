//! Rule expressions: alone in knowing the engine.
//!
//! The engine's parser reads an expression when a rule is written; `check` says whether it may be stored, and
//! `compile` makes of it what a request evaluates. The engine's own evaluation bounds nothing: it can be made
//! to take a gigabyte or to end the process, and compiles patterns each time. So `eval` does that here, over
//! values that it borrows, counting steps.

// Expressions compare and compute with doubles, as their language says; no money is among them.
#![allow(clippy::float_arithmetic, reason = "the language has doubles")]

mod check;
mod compile;
mod eval;
mod function;
mod value;

use compile::Node;
use eval::Evaluation;
use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

pub use compile::Variable;
pub use eval::{Facts, Fault, STEPS_MAX};
pub use value::{Members, Value};

/// Longer sources are no rule.
pub const SOURCE_BYTES_MAX: usize = 4_096;

/// How deep an expression may nest. `&&` and `||` in a row do not nest, other operators do.
pub const DEPTH_MAX: usize = 48;

/// How many parts an expression may have: names, literals, operators, and what macros make of them.
pub const NODES_MAX: usize = 1_500;

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
    answers: Receiver<Result<Node, ExpressionError>>,
}

/// An expression that may be evaluated. Cloning shares it.
#[derive(Clone)]
pub struct Condition(Arc<Source>);

struct Source {
    text: Box<str>,
    /// Absent: always.
    node: Option<Node>,
}

impl Condition {
    /// The condition of a rule that is for every request.
    pub fn always() -> Condition {
        Condition(Arc::new(Source { text: "".into(), node: None }))
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.0.text
    }

    /// Whether it holds. What it takes is taken from `steps`.
    pub fn holds(&self, facts: &dyn Facts, steps: &mut u32) -> Result<bool, Fault> {
        self.0.node.as_ref().map_or(Ok(true), |node| Evaluation::of(facts, steps).holds(node))
    }
}

/// The same text means the same.
impl PartialEq for Condition {
    fn eq(&self, other: &Condition) -> bool {
        self.text() == other.text()
    }
}

impl Eq for Condition {}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Condition").field(&self.text()).finish()
    }
}

impl Checker {
    /// The condition that `source` is, if it may be a rule's. An empty one means "always".
    pub fn read(&mut self, source: &str) -> Result<Condition, ExpressionError> {
        if source.len() > SOURCE_BYTES_MAX {
            return Err(ExpressionError::TooLong);
        }
        let condition = |node| Condition(Arc::new(Source { text: source.into(), node }));
        if source.trim().is_empty() {
            return Ok(condition(None));
        }
        let reader = self.reader.take().or_else(Reader::start).ok_or(ExpressionError::Unchecked)?;
        let answer = reader.read(source).ok_or(ExpressionError::Unchecked)?;
        // One that gave no answer is gone.
        self.reader = Some(reader);
        answer.map(Some).map(condition)
    }
}

impl Reader {
    fn start() -> Option<Reader> {
        let (sources, given) = channel::<String>();
        let (answer, answers) = channel();
        let work = move || given.iter().map(|source| check::read(&source)).try_for_each(|found| answer.send(found));
        thread::Builder::new().stack_size(STACK_BYTES).spawn(work).ok()?;
        Some(Reader { sources, answers })
    }

    fn read(&self, source: &str) -> Option<Result<Node, ExpressionError>> {
        self.sources.send(source.to_owned()).ok()?;
        self.answers.recv().ok()
    }
}

#[cfg(test)]
mod tests;
