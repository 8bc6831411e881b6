//! `backup`, `restore` and `verify`: the database as a file. Of the config file they read the `store` section
//! alone, so that a provider's missing variable stops none of them.

use super::{Failed, load_by};
use crate::config::{self, Store};
use crate::governance::secret::Secret;
use crate::store::{self, DataLock, StoreError, StoreErrorKind, key_file};
use std::path::Path;

pub(super) fn backup(config: &Path, to: &Path) -> Result<(), Failed> {
    let database = load_by(config, config::load_store)?.path;
    let bytes = store::backup(&database, to).map_err(|error| failed(&error))?;
    println!(
        "{}: a copy of {} ({bytes} bytes); only its encryption key opens it, so keep that somewhere else",
        to.display(),
        database.display()
    );
    Ok(())
}

pub(super) fn restore(config: &Path, from: &Path) -> Result<(), Failed> {
    let settings = load_by(config, config::load_store)?;
    let data_dir = key_file::data_dir(&settings.path);
    let run = || {
        // Before the directory is touched: is there anything to put into it?
        std::fs::metadata(from).map_err(|error| {
            StoreError::new(StoreErrorKind::Open, format!("cannot read {}", from.display())).because(error)
        })?;
        key_file::make_data_dir(&data_dir)?;
        let lock = DataLock::take(&data_dir).map_err(|error| match error.kind {
            StoreErrorKind::Busy => {
                let what = format!("a Tollgate process uses the data directory {}; stop it first", data_dir.display());
                StoreError::new(StoreErrorKind::Busy, what)
            }
            _ => error,
        })?;
        store::restore(from, &settings.path, &encryption_key(&settings, &data_dir)?, &lock)
    };
    let kept = run().map_err(|error| failed(&error))?;
    let mut said = format!("{}: restored from {}", settings.path.display(), from.display());
    if let Some(old) = kept.database {
        said.push_str(&format!("; what was there is now {}", old.display()));
    }
    if kept.journal {
        said.push_str("; calls that a killed server left in its journal stay with that, and are not charged to this");
    }
    println!("{said}");
    Ok(())
}

pub(super) fn verify(config: &Path) -> Result<(), Failed> {
    let database = load_by(config, config::load_store)?.path;
    let report = store::verify(&database).map_err(|error| failed(&error))?;
    report.mismatches.iter().for_each(|mismatch| println!("{mismatch}"));
    let mut scope = format!("{} entries, {} balances, {} sums", report.entries, report.balances, report.sums);
    if let Some(since) = report.entries_since {
        scope.push_str(&format!("; entries before {since} are forgotten, so older sums by hour were not checked"));
    }
    if let Some(since) = report.hours_since {
        scope.push_str(&format!("; sums by hour before {since} are forgotten, so older sums by day were not checked"));
    }
    let place = database.display();
    match report.mismatches.len() {
        0 => println!("{place}: good ({scope})"),
        1 => return Err(vec![format!("tollgate: {place} has a mismatch ({scope})")]),
        count => return Err(vec![format!("tollgate: {place} has {count} mismatches ({scope})")]),
    }
    Ok(())
}

/// The operator's key, or the one beside the database. None is made here: it would open nothing.
fn encryption_key(settings: &Store, data_dir: &Path) -> Result<Secret, StoreError> {
    if let Some(key) = &settings.encryption_key {
        return Ok(key.clone());
    }
    key_file::encryption_key_if_there(data_dir)?.ok_or_else(|| {
        let what = format!(
            "there is no encryption key: set store.encryption_key, or put the key's file at {}",
            data_dir.join("encryption.key").display()
        );
        StoreError::new(StoreErrorKind::WrongEncryptionKey, what)
    })
}

fn failed(error: &StoreError) -> Failed {
    vec![format!("tollgate: {error}")]
}
