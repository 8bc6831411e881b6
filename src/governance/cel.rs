//! Rule expressions: alone in knowing the engine.
//!
//! Rules are not evaluated yet; what is here tells an operator whether the expressions of a file are
//! well formed. The engine bounds almost nothing itself, so a source is bounded before it gets there.

use cel_interpreter::Program;

/// Longer sources are no rule, and could exhaust the parser's stack.
pub const SOURCE_BYTES_MAX: usize = 1_024;

/// What is wrong with an expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpressionError {
    #[error("the expression is longer than {SOURCE_BYTES_MAX} bytes")]
    TooLong,
    #[error("at line {line}, column {column} of the expression: {message}")]
    Syntax { line: usize, column: usize, message: String },
}

/// Whether `source` is an expression. An empty one means "always".
pub fn check(source: &str) -> Result<(), ExpressionError> {
    if source.len() > SOURCE_BYTES_MAX {
        return Err(ExpressionError::TooLong);
    }
    if source.trim().is_empty() {
        return Ok(());
    }
    let Err(problems) = Program::compile(source) else { return Ok(()) };
    let first = problems.errors.into_iter().next();
    let at = |position: isize| usize::try_from(position).unwrap_or(1).max(1);
    Err(first.map_or_else(
        || ExpressionError::Syntax { line: 1, column: 1, message: "it cannot be read".into() },
        |problem| ExpressionError::Syntax { line: at(problem.pos.0), column: at(problem.pos.1), message: problem.msg },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn syntax_is_checked_with_its_place() {
        for good in ["", "true", "model == 'gpt-4o' && budget_used > 80", "headers['x-tier'] in ['a', 'b']"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        assert!(matches!(check("model =="), Err(ExpressionError::Syntax { line: 1, .. })));
        assert_eq!(check(&"a".repeat(SOURCE_BYTES_MAX + 1)), Err(ExpressionError::TooLong));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(source in "[a-z0-9 ()\\[\\].,'\"!&|=<>+?:{}-]{0,200}") {
            let _ = check(&source);
        }
    }
}
