//! One process for one database. Two would each spend every budget whole.

use super::{StoreError, StoreErrorKind};
use std::fs::{File, TryLockError};
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// Held for as long as the process serves; the system lets go of it when the process ends, however.
#[derive(Debug, Clone)]
pub struct DataLock(#[expect(dead_code, reason = "it is held, not read")] Arc<OnceLock<File>>);

impl DataLock {
    /// Takes the data directory, or says that another process has it.
    pub fn take(data_dir: &Path) -> Result<DataLock, StoreError> {
        let file = open(data_dir)?;
        match file.try_lock() {
            Ok(()) => Ok(DataLock(Arc::new(OnceLock::from(file)))),
            Err(TryLockError::WouldBlock) => {
                let what = format!(
                    "another Tollgate process uses the data directory {}; stop it, or take over from it with --upgrade",
                    data_dir.display()
                );
                Err(StoreError::new(StoreErrorKind::Busy, what))
            }
            Err(TryLockError::Error(error)) => Err(failed(data_dir).because(error)),
        }
    }

    /// Takes it as soon as the predecessor has let go of it.
    pub fn inherit(data_dir: &Path) -> Result<DataLock, StoreError> {
        let file = open(data_dir)?;
        let slot = Arc::new(OnceLock::new());
        let held = Arc::clone(&slot);
        let wait = move || match file.lock() {
            Ok(()) => drop(held.set(file)),
            Err(error) => tracing::warn!(%error, "cannot lock the data directory after the hand-over"),
        };
        std::thread::Builder::new()
            .name("data-lock".to_owned())
            .spawn(wait)
            .map_err(|e| failed(data_dir).because(e))?;
        Ok(DataLock(slot))
    }
}

fn open(data_dir: &Path) -> Result<File, StoreError> {
    let path = data_dir.join("tollgate.lock");
    File::options().create(true).truncate(false).write(true).open(path).map_err(|error| failed(data_dir).because(error))
}

fn failed(data_dir: &Path) -> StoreError {
    StoreError::new(StoreErrorKind::Open, format!("cannot lock the data directory {}", data_dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_had_once() {
        let dir = crate::store::tests::TempDir::new();
        let first = DataLock::take(dir.path()).unwrap();
        let error = DataLock::take(dir.path()).unwrap_err().to_string();
        assert!(error.contains("another Tollgate process uses the data directory"), "{error}");
        drop(first);
        DataLock::take(dir.path()).unwrap();
    }
}
