//! Journals that belong to a database which another one takes the place of.
//!
//! What stands in them was admitted under the old books: it must not be charged to the new ones, and not be lost
//! either, so they go along with the old database.

use super::recover::holds_calls;
use super::{FILES_MAX, StoreError, StoreErrorKind, failed, lock, path};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// The journals of a directory, all locked, that hold something.
#[derive(Debug)]
pub struct Leftover(Vec<(PathBuf, File)>);

impl Leftover {
    /// Locks every journal in `dir`. Refused while some process still writes one.
    pub fn take(dir: &Path) -> Result<Leftover, StoreError> {
        let mut found = Vec::new();
        for path in (0..FILES_MAX).map(|number| path(dir, number)) {
            let file = match File::options().read(true).write(true).open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed("open", &path, error)),
            };
            if !lock(&file, &path)? {
                let what = format!("a Tollgate process still writes the journal {}; stop it first", path.display());
                return Err(StoreError::new(StoreErrorKind::Busy, what));
            }
            if holds_calls(&file) {
                found.push((path, file));
            }
        }
        Ok(Leftover(found))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether their names with `end` are free.
    pub fn can_take(&self, end: &str) -> bool {
        self.0.iter().all(|(path, _)| !named(path, end).exists())
    }

    /// Gives each its name with `end`, under which no start looks for it.
    pub fn put_aside(self, end: &str) -> Result<(), StoreError> {
        self.0.iter().try_for_each(|(path, _)| {
            std::fs::rename(path, named(path, end)).map_err(|error| failed("put aside", path, error))
        })
    }
}

fn named(path: &Path, end: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(end);
    name.into()
}
