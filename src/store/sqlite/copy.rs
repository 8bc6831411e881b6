//! Copies of the database: one taken while it runs, and one put into its place.
//!
//! Invariant: whenever the process dies, the place of the database holds a whole one, the old or the new, and
//! the name of a copy nothing or a whole one.

use super::schema::{self, Found};
use super::{connect, connect_read_only, unlock};
use crate::governance::secret::Secret;
use crate::store::journal::Leftover;
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
    let done = connect_read_only(database).and_then(|connection| named_copy(&connection, to));
    done.map_err(|error| error.doing(|| format!("copy the database {} to {}", database.display(), to.display())))
}

/// What a restore put beside the database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kept {
    /// The database that was there before.
    pub database: Option<PathBuf>,
    /// A journal with calls that a dead process left, which belong to that one.
    pub journal: bool,
}

/// Puts the copy at `from` into the place of the database, which no process may use, and keeps what was there
/// in files beside it.
pub fn restore(from: &Path, database: &Path, key: &Secret, _lock: &DataLock) -> Result<Kept, StoreError> {
    if schema::inspect(from)? == Found::Nothing {
        let what = format!("there is no database in {}; nothing was changed", from.display());
        return Err(StoreError::new(StoreErrorKind::Open, what));
    }
    if fs::canonicalize(from).ok().is_some_and(|from| fs::canonicalize(database).ok() == Some(from)) {
        let what = format!("{} is the database itself; nothing was changed", from.display());
        return Err(StoreError::new(StoreErrorKind::Other, what));
    }
    let journals = Leftover::take(&key_file::data_dir(database))?;
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
    let swapped = swap(database, &new, journals);
    if swapped.is_err() {
        let _ = fs::remove_file(&new);
    }
    swapped.map_err(|error| error.doing(|| place("replace")))
}

/// A copy that has its name once it is whole, and takes nobody else's.
fn named_copy(source: &Connection, to: &Path) -> Result<u64, StoreError> {
    if to.exists() {
        return Err(is_there(to));
    }
    let partial = beside(to, &format!("partial-{}", std::process::id()));
    let bytes = copy(source, &partial)?;
    // A second name is not given where there is one; a new name is given over it.
    let named = match fs::hard_link(&partial, to) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(is_there(to)),
        // Not every file system knows second names.
        Err(_) if !to.exists() => fs::rename(&partial, to).map_err(|error| failed("write", to, error)),
        linked => linked.map_err(|error| failed("write", to, error)),
    };
    let _ = fs::remove_file(&partial);
    named.and_then(|()| sync_dir(to).map_err(|error| failed("write", to, error)))?;
    Ok(bytes)
}

fn is_there(path: &Path) -> StoreError {
    let what = format!("cannot create {}: it is there already; name a new file, or delete it", path.display());
    StoreError::new(StoreErrorKind::Open, what)
}

/// A copy of what the connection reads, in a new file that is on the disk when this returns.
fn copy(source: &Connection, to: &Path) -> Result<u64, StoreError> {
    schema::create_private(to).map_err(|error| failed("create", to, error))?;
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
    sync_dir(path)?;
    Ok(file.metadata()?.len())
}

/// Makes the names in the file's directory durable.
fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(key_file::data_dir(path))?.sync_all()
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
fn swap(database: &Path, new: &Path, journals: Leftover) -> Result<Kept, StoreError> {
    let end = free_end(database, &journals)?;
    let kept = if database.exists() { Some(keep(database, &end)?) } else { None };
    fs::rename(new, database).map_err(|error| failed("replace", database, error))?;
    synced(database).map_err(|error| failed("replace", database, error))?;
    // Last: if the process dies before, their calls are charged to the new books, and not forgotten.
    let journal = !journals.is_empty();
    journals.put_aside(&end)?;
    sync_dir(database).map_err(|error| failed("replace", database, error))?;
    Ok(Kept { database: kept, journal })
}

/// The end of the names under which the old files are kept.
fn free_end(database: &Path, journals: &Leftover) -> Result<String, StoreError> {
    let mut ends = (0..1_000).map(|n| format!(".before-restore{}", numbered(n)));
    let free = ends.find(|end| !with(database, end).exists() && journals.can_take(end));
    free.ok_or_else(|| {
        StoreError::new(StoreErrorKind::Other, "too many databases are kept beside this one; delete some".to_owned())
    })
}

/// Gives the present database a second name, under which it stays when the first one is taken over.
fn keep(database: &Path, end: &str) -> Result<PathBuf, StoreError> {
    // What its log holds belongs into the file: a log that lies about would be taken for the new file's.
    if let Ok(present) = connect(database) {
        let _ = present.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |_| Ok(()));
    }
    let kept = with(database, end);
    // Only a damaged database still has a log here. It goes along, and is told from nothing else.
    for log in ["-wal", "-shm"] {
        let (is, goes) = (with(database, log), with(&kept, log));
        if is.exists() {
            fs::rename(&is, &goes).map_err(|error| failed("put aside", &is, error))?;
        }
    }
    let second = fs::hard_link(database, &kept).or_else(|_| fs::copy(database, &kept).map(drop));
    second.and_then(|()| sync_dir(&kept)).map_err(|error| failed("put aside", database, error))?;
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
