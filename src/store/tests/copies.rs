//! The database copied and put back: what is there is whole, and nothing of other books comes into it.

use super::books::{World, some_calls};
use super::*;

#[test]
fn a_copy_is_whole_and_private_and_overwrites_nothing() {
    let world = some_calls(Keep::FOREVER);
    let copy = world.house.dir.path().join("copy.db");
    let bytes = backup(&world.house.path(), &copy).unwrap();
    assert_eq!(std::fs::metadata(&copy).unwrap().len(), bytes);
    assert_eq!(std::fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(verify(&copy).unwrap(), verify(&world.house.path()).unwrap());
    let error = backup(&world.house.path(), &copy).unwrap_err().to_string();
    assert!(error.contains("it is there already"), "{error}");
    let error = backup(&world.house.path(), Path::new("/nowhere/copy.db")).unwrap_err().to_string();
    assert!(error.contains("/nowhere/copy.db"), "{error}");
    for missing in [world.house.dir.path().join("none.db"), "/nowhere/t.db".into()] {
        assert!(backup(&missing, &world.house.dir.path().join("x")).unwrap_err().to_string().contains("no database"));
        assert!(verify(&missing).unwrap_err().to_string().contains("no database"));
    }
    assert!(!world.house.dir.path().join("x").exists());
}

#[test]
fn a_copy_comes_back_in_one_step() {
    let world = some_calls(Keep::FOREVER);
    let (path, copy) = (world.house.path(), world.house.dir.path().join("copy.db"));
    backup(&path, &copy).unwrap();
    let balances = world.house.store.balances().unwrap();
    let World { house: House { dir, store }, ledger, .. } = world;
    drop((store, ledger));
    let lock = DataLock::take(path.parent().unwrap()).unwrap();
    let put = |from: &Path, key: &str| restore(from, &path, &Secret::new(key), &lock);
    // What is no good copy changes nothing.
    let before = std::fs::read(&path).unwrap();
    let bent = dir.path().join("bent.db");
    let mut bytes = std::fs::read(&copy).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 4_096].fill(0x55);
    std::fs::write(&bent, bytes).unwrap();
    let newer = dir.path().join("newer.db");
    std::fs::copy(&copy, &newer).unwrap();
    Connection::open(&newer).unwrap().pragma_update(None, "user_version", 99).unwrap();
    std::fs::write(dir.path().join("text"), "no database, but long enough to look at twice").unwrap();
    for (from, key, kind) in [
        (&bent, KEY, StoreErrorKind::Damaged),
        (&newer, KEY, StoreErrorKind::NewerSchema),
        (&copy, "another key of good length", StoreErrorKind::WrongEncryptionKey),
        (&dir.path().join("text"), KEY, StoreErrorKind::Damaged),
        (&dir.path().join("none"), KEY, StoreErrorKind::Open),
        (&path, KEY, StoreErrorKind::Other),
    ] {
        let error = put(from, key).unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        assert!(!error.to_string().contains('\n') && !error.to_string().contains(key), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }
    let spoilt = Connection::open(&path).unwrap();
    spoilt.execute("DELETE FROM balances", ()).unwrap();
    drop(spoilt);
    let kept = put(&copy, KEY).unwrap().database.unwrap();
    assert_eq!(kept, path.with_file_name("t.db.before-restore"));
    let again = Kept { database: Some(path.with_file_name("t.db.before-restore-1")), journal: false };
    assert_eq!(put(&copy, KEY).unwrap(), again);
    assert_eq!(
        Connection::open(&kept)
            .unwrap()
            .query_row("SELECT count(*) FROM balances", (), |row| row.get::<_, i64>(0))
            .unwrap(),
        0
    );
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let store = open(&dir, KEY).unwrap();
    assert_eq!(store.balances().unwrap(), balances);
    assert_eq!(verify(&path).unwrap().mismatches, Vec::<String>::new());
    // Into an empty place, too.
    drop(store);
    let elsewhere = dir.path().join("data/new.db");
    assert_eq!(restore(&copy, &elsewhere, &Secret::new(KEY), &lock).unwrap(), Kept::default());
    assert_eq!(verify(&elsewhere).unwrap(), verify(&copy).unwrap());
}

#[test]
fn a_database_with_a_log_is_kept_with_what_the_log_holds() {
    let world = some_calls(Keep::FOREVER);
    let (path, copy) = (world.house.path(), world.house.dir.path().join("copy.db"));
    backup(&path, &copy).unwrap();
    let crashed = world.house.dir.path().join("crashed");
    std::fs::create_dir(&crashed).unwrap();
    world.house.raw_execute("UPDATE balances SET spent = 77");
    // As a process leaves it that was killed.
    for end in ["", "-wal"] {
        std::fs::copy(format!("{}{end}", path.display()), crashed.join(format!("t.db{end}"))).unwrap();
    }
    let lock = DataLock::take(&crashed).unwrap();
    let kept = restore(&copy, &crashed.join("t.db"), &Secret::new(KEY), &lock).unwrap().database.unwrap();
    let spent = |path: &Path| -> i64 {
        Connection::open(path).unwrap().query_row("SELECT max(spent) FROM balances", (), |row| row.get(0)).unwrap()
    };
    assert_eq!((spent(&kept), spent(&crashed.join("t.db"))), (77, 40));
    assert!(!crashed.join("t.db-wal").exists() || std::fs::metadata(crashed.join("t.db-wal")).unwrap().len() == 0);
}

#[test]
fn a_copy_has_its_name_only_once_it_is_whole() {
    let world = some_calls(Keep::FOREVER);
    let out = world.house.dir.path().join("out");
    std::fs::create_dir(&out).unwrap();
    let names = || std::fs::read_dir(&out).unwrap().map(|file| file.unwrap().file_name()).collect::<Vec<_>>();
    backup(&world.house.path(), &out.join("copy.db")).unwrap();
    assert_eq!(names(), ["copy.db"]);
    // A page in the middle is gone: what was read until then is no copy.
    let bent = world.house.dir.path().join("bent.db");
    let mut bytes = std::fs::read(out.join("copy.db")).unwrap();
    let middle = bytes.len() / 2 / 4_096 * 4_096;
    bytes[middle..].fill(0x55);
    std::fs::write(&bent, bytes).unwrap();
    let error = backup(&bent, &out.join("bent.db")).unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Damaged, "{error}");
    assert_eq!(names(), ["copy.db"]);
}
