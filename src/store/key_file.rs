//! Secrets that were made here at first start, each in a file of its own beside the database.
//!
//! The value goes into the file and to the caller, never into a log or an error.

use super::seal::{ENCRYPTION_KEY_CHARS_MIN, random};
use super::{StoreError, StoreErrorKind};
use crate::governance::secret::Secret;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// A secret and where it is kept.
#[derive(Debug)]
pub struct KeyFile {
    pub secret: Secret,
    pub path: PathBuf,
    /// Made just now; an operator wants to be told.
    pub created: bool,
}

/// The directory that the database lives in; key files stand beside it.
pub fn data_dir(database: &Path) -> PathBuf {
    match database.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Makes the directory, for its owner only, unless it is there.
pub fn make_data_dir(dir: &Path) -> Result<(), StoreError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|e| failed("create the data directory", dir, e))
}

/// `<data dir>/encryption.key`, for when no encryption key is configured.
pub fn encryption_key(data_dir: &Path) -> Result<KeyFile, StoreError> {
    load_or_create(data_dir.join("encryption.key"))
}

/// The same where nothing may be made: absent if the file is not there.
pub fn encryption_key_if_there(data_dir: &Path) -> Result<Option<Secret>, StoreError> {
    let path = data_dir.join("encryption.key");
    if path.exists() { read(&path).map(Some) } else { Ok(None) }
}

/// `<data dir>/admin.token`, for when no admin token is configured.
pub fn admin_token(data_dir: &Path) -> Result<KeyFile, StoreError> {
    load_or_create(data_dir.join("admin.token"))
}

fn load_or_create(path: PathBuf) -> Result<KeyFile, StoreError> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
        Ok(file) => {
            let secret = fill(file).map_err(|e| failed("write", &path, e))?;
            // The name must survive as well: losing the encryption key loses every sealed secret.
            if let Some(dir) = path.parent() {
                File::open(dir).and_then(|dir| dir.sync_all()).map_err(|e| failed("write", &path, e))?;
            }
            Ok(KeyFile { secret, path, created: true })
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let secret = read(&path)?;
            Ok(KeyFile { secret, path, created: false })
        }
        Err(error) => Err(failed("create", &path, error)),
    }
}

fn fill(mut file: File) -> io::Result<Secret> {
    let bytes = Zeroizing::new(random::<32>().map_err(io::Error::other)?);
    let text = bytes.iter().fold(String::with_capacity(64), |text, byte| text + &format!("{byte:02x}"));
    let secret = Secret::new(text);
    file.write_all(secret.expose().as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    Ok(secret)
}

fn read(path: &Path) -> Result<Secret, StoreError> {
    let text = Zeroizing::new(fs::read_to_string(path).map_err(|e| failed("read", path, e))?);
    let mode = fs::metadata(path).map_err(|e| failed("read", path, e))?.permissions().mode();
    if mode & 0o077 != 0 {
        tracing::warn!(path = %path.display(), mode = format!("{:03o}", mode & 0o777), "others can read this key file; chmod it to 600");
    }
    let secret = Secret::new(text.trim());
    if secret.expose().chars().count() < ENCRYPTION_KEY_CHARS_MIN {
        let what = format!(
            "{} holds fewer than {ENCRYPTION_KEY_CHARS_MIN} characters; restore it from a copy, or delete it if nothing \
             was ever sealed with it",
            path.display()
        );
        return Err(StoreError::new(StoreErrorKind::Open, what));
    }
    Ok(secret)
}

fn failed(doing: &str, path: &Path, error: io::Error) -> StoreError {
    StoreError::new(StoreErrorKind::Open, format!("cannot {doing} {}", path.display())).because(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_read_ever_after() {
        let dir = crate::store::tests::TempDir::new();
        let inner = dir.path().join("a/b");
        make_data_dir(&inner).unwrap();
        let made = encryption_key(&inner).unwrap();
        let read = encryption_key(&inner).unwrap();
        assert!(made.created && !read.created);
        assert_eq!((made.secret.expose().len(), &made.secret), (64, &read.secret));
        assert_ne!(admin_token(&inner).unwrap().secret, made.secret);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&inner), mode(&made.path)), (0o700, 0o600));
        assert!(!format!("{made:?}").contains(made.secret.expose()));
    }

    #[test]
    fn an_empty_key_file_is_not_taken_for_a_key() {
        let dir = crate::store::tests::TempDir::new();
        fs::write(dir.path().join("admin.token"), "\n").unwrap();
        let error = admin_token(dir.path()).unwrap_err().to_string();
        assert!(error.contains("admin.token holds fewer than 16 characters"), "{error}");
    }
}
