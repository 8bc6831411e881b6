//! All problems of one body, each with the path of what is wrong.

use std::fmt;

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Like `provider_configs[0].budget.max_limit`; empty for the body as a whole.
    pub path: String,
    pub message: String,
    /// The value is of another JSON type than the contract's: nobody wrote the body that the contract means.
    pub mistyped: bool,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() { f.write_str(&self.message) } else { write!(f, "{}: {}", self.path, self.message) }
    }
}

/// Problems beyond these are not listed.
const FAULTS_MAX: usize = 200;

/// Problems as they are found, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults(Vec<Fault>);

impl Faults {
    pub fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.push(Fault { path: path.into(), message: message.into(), mistyped: false });
    }

    /// Of a value that has the wrong JSON type.
    pub fn mistyped(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.push(Fault { path: path.into(), message: message.into(), mistyped: true });
    }

    fn push(&mut self, fault: Fault) {
        // Enough to work on; a body of nothing but faults makes no answer of megabytes.
        if self.0.len() < FAULTS_MAX {
            self.0.push(fault);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Fault> {
        self.0.iter()
    }

    /// `value` if nothing was wrong.
    pub fn into_result<T>(self, value: T) -> Result<T, Faults> {
        if self.is_empty() { Ok(value) } else { Err(self) }
    }
}

/// All of them in one line. A single one about the whole body stands without a path.
impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(Fault::to_string).collect();
        f.write_str(&lines.join("; "))
    }
}
