//! All problems of a config file at once, each with its place.

use std::fmt;

/// One problem. Never holds a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub file: String,
    pub line: u64,
    pub column: u64,
    /// The key at fault, like `server.listen[0]`; empty for the file as a whole.
    pub path: String,
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fault { file, line, column, path, message } = self;
        write!(f, "{file}:{line}:{column}: ")?;
        if path.is_empty() { f.write_str(message) } else { write!(f, "{path}: {message}") }
    }
}
