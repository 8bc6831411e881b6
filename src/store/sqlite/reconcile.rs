//! What the config file declares, brought into the store.

/// What became of the file's virtual keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ApplyReport {
    pub created: Vec<String>,
    pub updated: Vec<String>,
    /// Applied before, and not changed in the file since.
    pub kept: usize,
}
