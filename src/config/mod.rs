//! The config file: YAML (or a Bifrost `config.json`) in, checked and typed settings out.
//!
//! All problems are found at once, each with its line and column. Nothing unknown is accepted.

mod declared;
mod faults;
mod file;
pub mod prices;
mod provider;
mod settings;
#[cfg(test)]
mod tests;
mod tree;

pub use faults::Fault;
pub use settings::{Admin, Auth, Log, LogFormat, Pricing, Server, Settings, Show, Store, Tls};

use crate::wire::faults::Faults;
use file::Reading;
use std::path::Path;
use tree::Tree;

/// Where listeners are handed over unless the file says otherwise.
const DEFAULT_UPGRADE_SOCKET: &str = "/run/tollgate/upgrade.sock";
/// Larger files are no configuration.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Reads the file at `path`. Relative paths in it start from the current directory, as in the
/// shell that names the file.
pub fn load(path: &Path) -> Result<Settings, Vec<Fault>> {
    let name = path.display().to_string();
    let unreadable =
        |message: String| vec![Fault { file: name.clone(), line: 1, column: 1, path: String::new(), message }];
    let size = std::fs::metadata(path).map_err(|error| unreadable(format!("cannot read the file: {error}")))?.len();
    if size > FILE_BYTES_MAX {
        return Err(unreadable(format!("the file is larger than {FILE_BYTES_MAX} bytes")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(format!("cannot read the file: {error}")))?;
    read(&text, &name, Path::new(""), &|variable| std::env::var(variable).ok())
}

/// Reads `text`. Relative paths in it start from `base`; `env` looks variables up.
pub fn read(text: &str, file: &str, base: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Settings, Vec<Fault>> {
    let mut faults = Faults::default();
    let tree = Tree::parse(text, env, &mut faults).map_err(|(place, message)| {
        vec![Fault { file: file.to_owned(), line: place.line, column: place.column, path: String::new(), message }]
    })?;
    let mut reading = Reading { base, env, faults: &mut faults, warnings: Vec::new() };
    let settings = file::read(&tree.value, &mut reading);
    match settings.filter(|_| faults.is_empty()) {
        Some(settings) => Ok(settings),
        None => Err(tree.locate(file, &faults)),
    }
}
