//! The tables, by numbered migrations, and how a file is looked at before anything is written to it.
//!
//! A file that is newer than this program, or no database of ours, is refused and left as it was.

use crate::store::{StoreError, StoreErrorKind};
use rusqlite::{Connection, OpenFlags};
use rusqlite_migration::{M, Migrations};
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Marks a database file as ours: "TOLL".
const APPLICATION_ID: i32 = 0x544f_4c4c;

/// Appended to, never edited: databases out there have run them.
const MIGRATIONS: &[M<'static>] = &[
    M::up(include_str!("0001_first.sql")),
    M::up(include_str!("0002_governance.sql")).foreign_key_check(),
    M::up(include_str!("0003_journal.sql")),
    M::up(include_str!("0004_ledger.sql")),
];

/// The version that this program writes.
pub(super) const SCHEMA_VERSION: usize = MIGRATIONS.len();

/// What a file is before we touch it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    /// A database of ours at this version, which is at most the one this program knows.
    Version(usize),
}

/// Looks at the file without changing it.
pub(super) fn inspect(path: &Path) -> Result<Found, StoreError> {
    inspect_for(path, MIGRATIONS.len())
}

/// Brings a database up to this program's version, after making a copy of an older one.
pub(super) fn migrate(connection: &mut Connection, path: &Path, found: Found) -> Result<Option<PathBuf>, StoreError> {
    migrate_to(connection, path, found, MIGRATIONS)
}

fn inspect_for(path: &Path, newest: usize) -> Result<Found, StoreError> {
    match std::fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(refused(StoreErrorKind::Open, path, "cannot be opened").because(error)),
        Ok(file) if file.len() == 0 => return Ok(Found::Nothing),
        Ok(_) => {}
    }
    let look = || {
        let file =
            Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        file.busy_timeout(super::BUSY_TIMEOUT)?;
        let number = |pragma| file.pragma_query_value(None, pragma, |row| row.get::<_, i32>(0));
        let tables = file.query_row("SELECT count(*) FROM sqlite_schema", (), |row| row.get::<_, i64>(0))?;
        Ok::<_, rusqlite::Error>((tables, number("application_id")?, number("user_version")?))
    };
    let (tables, application, version) =
        look().map_err(|e| StoreError::from(e).doing(|| format!("read the database {}", path.display())))?;
    // The mark alone: a first start that was cut off.
    if tables == 0 && version == 0 && [0, APPLICATION_ID].contains(&application) {
        return Ok(Found::Nothing);
    }
    if application != APPLICATION_ID {
        return Err(refused(StoreErrorKind::Damaged, path, "is not a Tollgate database; it was left untouched"));
    }
    match usize::try_from(version) {
        Ok(version) if (1..=newest).contains(&version) => Ok(Found::Version(version)),
        _ => {
            let why = format!(
                "has schema version {version}, and this Tollgate knows up to {newest}; it was left untouched. Use the newer \
                 Tollgate that wrote it"
            );
            Err(refused(StoreErrorKind::NewerSchema, path, &why))
        }
    }
}

fn migrate_to(
    connection: &mut Connection,
    path: &Path,
    found: Found,
    steps: &[M<'_>],
) -> Result<Option<PathBuf>, StoreError> {
    let backup = match found {
        Found::Version(version) if version < steps.len() => Some(back_up(connection, path, version)?),
        _ => None,
    };
    let doing = || format!("bring the database {} up to date", path.display());
    if found == Found::Nothing {
        connection
            .pragma_update(None, "application_id", APPLICATION_ID)
            .map_err(|e| StoreError::from(e).doing(doing))?;
    }
    Migrations::from_slice(steps)
        .to_latest(connection)
        .map_err(|error| StoreError::new(StoreErrorKind::Other, format!("cannot {}", doing())).because(error))?;
    Ok(backup)
}

/// A consistent copy beside the database, for its owner only.
fn back_up(connection: &Connection, path: &Path, version: usize) -> Result<PathBuf, StoreError> {
    let copy = (0..100).find_map(|n| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".backup-v{version}{}", if n == 0 { String::new() } else { format!("-{n}") }));
        match create_private(Path::new(&name)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => None,
            made => Some(made.map(|()| PathBuf::from(name))),
        }
    });
    let refuse = |e: Box<dyn std::error::Error + Send + Sync>| {
        refused(StoreErrorKind::Other, path, "cannot be copied before its upgrade").because(e)
    };
    let copy = copy.unwrap_or_else(|| Err(io::Error::other("too many copies are there already")));
    let copy = copy.map_err(|e| refuse(e.into()))?;
    connection.execute("VACUUM INTO ?1", [copy.to_string_lossy()]).map_err(|e| refuse(e.into()))?;
    Ok(copy)
}

/// Creates an empty file that only its owner can read.
pub(super) fn create_private(path: &Path) -> io::Result<()> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map(drop)
}

fn refused(kind: StoreErrorKind, path: &Path, why: &str) -> StoreError {
    StoreError::new(kind, format!("the database {} {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::TempDir;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_migrations_run() {
        Migrations::from_slice(MIGRATIONS).validate().unwrap();
    }

    #[test]
    fn an_older_database_is_copied_before_it_is_changed() {
        let dir = TempDir::new();
        let path = dir.path().join("t.db");
        let steps = [M::up("CREATE TABLE a (x INTEGER) STRICT;"), M::up("DROP TABLE a;")];
        let mut old = Connection::open(&path).unwrap();
        assert_eq!(migrate_to(&mut old, &path, Found::Nothing, &steps[..1]).unwrap(), None);
        old.execute("INSERT INTO a VALUES (7)", ()).unwrap();
        assert_eq!(inspect_for(&path, 2).unwrap(), Found::Version(1));
        let copy = migrate_to(&mut old, &path, Found::Version(1), &steps).unwrap().unwrap();
        assert_eq!(inspect_for(&path, 2).unwrap(), Found::Version(2));
        assert_eq!(std::fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
        let kept = Connection::open(&copy).unwrap();
        assert_eq!(kept.query_row("SELECT x FROM a", (), |row| row.get::<_, i64>(0)).unwrap(), 7);
        assert_eq!(inspect_for(&copy, 2).unwrap(), Found::Version(1));
    }
}
