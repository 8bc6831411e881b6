//! Copies of the database: one taken while it runs, and one put into its place.
//!
//! Invariant: whenever the process dies, the place of the database holds a whole one, the old or the new.

use super::schema::{self, Found};
use super::{connect, connect_read_only, unlock};
use crate::governance::secret::Secret;
use crate::store::{DataLock, StoreError, StoreErrorKind, key_file};
use rusqlite::Connection;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// Makes a consistent copy at `to`, for its owner only, which must not be there. A server may run meanwhile.
/// Returns its size in bytes.
pub fn backup(database: &Path, to: &Path) -> Result<u64, StoreError> {
    if schema::inspect(database)? == Found::Nothing {
        let what = format!("there is no database at {}; `store.path` says where it is", database.display());
        return Err(StoreError::new(StoreErrorKind::Open, what));
    }
    let done = connect_read_only(database).and_then(|connection| copy(&connection, to));
    done.map_err(|error| error.doing(|| format!("copy the database {} to {}", database.display(), to.display())))
}

/// Puts the copy at `from` into the place of the database, which no process may use, and keeps what was there
/// in a file beside it, whose path is returned.
pub fn restore(from: &Path, database: &Path, key: &Secret, _lock: &DataLock) -> Result<Option<PathBuf>, StoreError> {
    if schema::inspect(from)? == Found::Nothing {
        let what = format!("there is no database in {}; nothing was changed", from.display());
        return Err(StoreError::new(StoreErrorKind::Open, what));
    }
    if fs::canonicalize(from).ok().is_some_and(|from| fs::canonicalize(database).ok() == Some(from)) {
        let what = format!("{} is the database itself; nothing was changed", from.display());
        return Err(StoreError::new(StoreErrorKind::Other, what));
    }
    let new = beside(database, "restoring");
    let place = |what: &str| format!("{what} {}; nothing was changed", database.display());
    let checked = || {
        let source = connect_read_only(from)?;
        whole(from, &source)?;
        unlock(from, &source, key)?;
        // Left by a restore that was cut off.
        remove(&new)?;
        copy(&source, &new)
    };
    checked().map_err(|error| error.doing(|| place(&format!("copy {} into the place of", from.display()))))?;
    let swapped = swap(database, &new);
    if swapped.is_err() {
        let _ = fs::remove_file(&new);
    }
    swapped.map_err(|error| error.doing(|| place("replace")))
}

/// A copy of what the connection reads, in a new file that is on the disk when this returns.
fn copy(source: &Connection, to: &Path) -> Result<u64, StoreError> {
    schema::create_private(to).map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::AlreadyExists => "it is there already; name a new file, or delete it",
            io::ErrorKind::NotFound => "its directory is not there",
            _ => "it cannot be written",
        };
        StoreError::new(StoreErrorKind::Open, format!("cannot create {}: {hint}", to.display())).because(error)
    })?;
    let made = source
        .execute("VACUUM INTO ?1", [to.to_string_lossy()])
        .map_err(StoreError::from)
        .and_then(|_| synced(to).map_err(|error| failed("write", to, error)));
    if made.is_err() {
        // Half a copy is none.
        let _ = fs::remove_file(to);
    }
    made
}

fn synced(path: &Path) -> io::Result<u64> {
    let file = File::open(path)?;
    file.sync_all()?;
    File::open(key_file::data_dir(path))?.sync_all()?;
    Ok(file.metadata()?.len())
}

/// Refuses a file whose pages do not fit together.
fn whole(path: &Path, connection: &Connection) -> Result<(), StoreError> {
    let found: String = connection.query_row("PRAGMA integrity_check(1)", (), |row| row.get(0))?;
    if found == "ok" {
        return Ok(());
    }
    let what = format!("{} is damaged ({}); nothing was changed", path.display(), found.lines().next().unwrap_or(""));
    Err(StoreError::new(StoreErrorKind::Damaged, what))
}

/// Puts `new` into the place of the database, in one step.
fn swap(database: &Path, new: &Path) -> Result<Option<PathBuf>, StoreError> {
    let kept = if database.exists() { Some(keep(database)?) } else { None };
    fs::rename(new, database).map_err(|error| failed("replace", database, error))?;
    synced(database).map_err(|error| failed("replace", database, error))?;
    Ok(kept)
}

/// Gives the present database a second name, under which it stays when the first one is taken over.
fn keep(database: &Path) -> Result<PathBuf, StoreError> {
    // What its log holds belongs into the file: a log that lies about would be taken for the new file's.
    if let Ok(present) = connect(database) {
        let _ = present.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |_| Ok(()));
    }
    let free = (0..1_000).map(|n| beside(database, &format!("before-restore{}", numbered(n))));
    let kept = free.into_iter().find(|path| !path.exists());
    let kept = kept.ok_or_else(|| {
        StoreError::new(StoreErrorKind::Other, "too many databases are kept beside this one; delete some".to_owned())
    })?;
    // Only a damaged database still has a log here. It goes along, and is told from nothing else.
    for log in ["-wal", "-shm"] {
        let (is, goes) = (with(database, log), with(&kept, log));
        if is.exists() {
            fs::rename(&is, &goes).map_err(|error| failed("put aside", &is, error))?;
        }
    }
    let second = fs::hard_link(database, &kept).or_else(|_| fs::copy(database, &kept).map(drop));
    second.map_err(|error| failed("put aside", database, error))?;
    Ok(kept)
}

fn numbered(n: u32) -> String {
    if n == 0 { String::new() } else { format!("-{n}") }
}

fn with(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

fn beside(database: &Path, end: &str) -> PathBuf {
    with(database, &format!(".{end}"))
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path, error)),
        _ => Ok(()),
    }
}

fn failed(doing: &str, path: &Path, error: io::Error) -> StoreError {
    StoreError::new(StoreErrorKind::Open, format!("cannot {doing} {}", path.display())).because(error)
}
