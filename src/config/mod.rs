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
pub use settings::{Admin, Auth, Ledger, Log, LogFormat, Server, Settings, Show, Store, Tls};

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
    read(&text_of(path, &name)?, &name, Path::new(""), &|variable| std::env::var(variable).ok())
}

/// Where the database is and what its key is. Whatever else is wrong with the file does not matter.
pub fn load_store(path: &Path) -> Result<Store, Vec<Fault>> {
    let name = path.display().to_string();
    let text = text_of(path, &name)?;
    let env = |variable: &str| std::env::var(variable).ok();
    let (mut faults, base) = (Faults::default(), Path::new(""));
    let tree = Tree::parse(&text, &env, &mut faults).map_err(|at| vec![unparsed(&name, at)])?;
    let mut reading = Reading { base, env: &env, faults: &mut faults, warnings: Vec::new() };
    let store = file::read_store_of(&tree.value, &mut reading);
    let mut ours = Faults::default();
    let of_store = |path: &str| path.is_empty() || path == "store" || path.starts_with("store.");
    faults.iter().filter(|fault| of_store(&fault.path)).for_each(|fault| ours.add(&*fault.path, &*fault.message));
    store.filter(|_| ours.is_empty()).ok_or_else(|| tree.locate(&name, &ours))
}

fn text_of(path: &Path, name: &str) -> Result<String, Vec<Fault>> {
    let unreadable =
        |message: String| vec![Fault { file: name.to_owned(), line: 1, column: 1, path: String::new(), message }];
    let size = std::fs::metadata(path).map_err(|error| unreadable(format!("cannot read the file: {error}")))?.len();
    if size > FILE_BYTES_MAX {
        return Err(unreadable(format!("the file is larger than {FILE_BYTES_MAX} bytes")));
    }
    std::fs::read_to_string(path).map_err(|error| unreadable(format!("cannot read the file: {error}")))
}

fn unparsed(file: &str, (place, message): (tree::Place, String)) -> Fault {
    Fault { file: file.to_owned(), line: place.line, column: place.column, path: String::new(), message }
}

/// Reads `text`. Relative paths in it start from `base`; `env` looks variables up.
pub fn read(text: &str, file: &str, base: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Settings, Vec<Fault>> {
    let mut faults = Faults::default();
    let tree = Tree::parse(text, env, &mut faults).map_err(|at| vec![unparsed(file, at)])?;
    let mut reading = Reading { base, env, faults: &mut faults, warnings: Vec::new() };
    let settings = file::read(&tree.value, &mut reading);
    match settings.filter(|_| faults.is_empty()) {
        Some(settings) => Ok(settings),
        None => Err(tree.locate(file, &faults)),
    }
}
