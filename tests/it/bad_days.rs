//! Days on which the disk, the database or the clock is bad. Each says so, in one line and in `/readyz` while it
//! lasts; nothing is lost afterwards, and a file that cannot be used is left as it is.
//!
//! | what happens | where it is tested |
//! |---|---|
//! | the disk is full when the journal is made | `store::tests::journal::a_full_disk_refuses_the_start` |
//! | the disk is full while calls are served | `a_full_disk_is_said_and_loses_nothing` |
//! | another process locks the database for long | `a_locked_database_is_said_and_loses_nothing`, `store::tests::ledger::a_locked_database_loses_nothing` |
//! | it is locked until the end | `store::tests::ledger::a_writer_that_cannot_flush_says_so` |
//! | the database is damaged, or none | `a_database_that_cannot_be_used_is_left_as_it_is`, `store::tests::files_that_are_not_ours_are_refused_and_left_alone` |
//! | a newer version wrote it | the same two |
//! | another key sealed it | `a_database_that_cannot_be_used_is_left_as_it_is`, `store::tests::another_key_opens_nothing` |
//! | the journal is damaged or newer | `store::tests::journal::a_journal_that_cannot_be_read_is_left_alone` |
//! | the folder or the database may not be written | `a_folder_that_may_not_be_written_refuses_the_start` |
//! | the clock goes back and forth while calls are served | `store::tests::books::the_books_agree` |
//! | the clock leaps years ahead | `store::tests::kept::a_clock_that_leaps_ahead_makes_nothing_old_for_a_week` |
//! | the process is killed | `crash` |

use crate::binary::{Served, config_text, stderr, tollgate};
use crate::database::verified;
use crate::house::{Dir, chat, eventually, free_port, runtime};
use rusqlite::Connection;
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

const CALL: u64 = 3_500_000;

impl Served {
    async fn pays(&self, calls: u64) {
        for _ in 0..calls {
            assert_eq!(self.post(&chat()).send().await.unwrap().status(), 200);
        }
    }

    /// Waits until `/readyz` says that the ledger fails, and why.
    async fn fails_with(&self, words: &str) {
        eventually("the failure to be said", async || {
            let told = self.readyz().await;
            let body: Value = told.json();
            told.status == 503
                && body["checks"]["ledger"]["ok"] == false
                && body["checks"]["ledger"]["error"].as_str().is_some_and(|error| error.contains(words))
        })
        .await;
    }

    /// All of it is in the books when the program has ended.
    async fn ends_with(&mut self, calls: u64) {
        assert_eq!(self.spent().await, calls * CALL);
        self.program.signal("TERM");
        assert_eq!(self.program.end().await.code(), Some(0));
        assert!(verified(&self.config).contains(&format!("({calls} entries")));
        self.again(&[]);
        self.ready().await;
        assert_eq!(self.spent().await, calls * CALL);
    }

    /// Starts the program anew, with its words in a file.
    async fn logging(&mut self, log: &Path, shell: &str) {
        self.program.signal("TERM");
        self.program.end().await;
        let program = tollgate().get_program().to_owned();
        let mut command = Command::new("sh");
        command.args(["-c", shell, "sh"]).arg(program).args(["serve", "--config"]).arg(&self.config);
        command.stderr(std::fs::File::create(log).unwrap());
        self.program.0 = command.spawn().unwrap();
        self.ready().await;
    }
}

/// Lines of a log with these words; there are some, and nothing panicked.
fn said(log: &Path, words: &str) {
    let text = std::fs::read_to_string(log).unwrap();
    assert!(text.lines().any(|line| line.contains(words)), "{words} in {text}");
    assert!(!text.contains("panicked"), "{text}");
}

#[test]
fn a_full_disk_is_said_and_loses_nothing() {
    runtime().block_on(async {
        let mut served = Served::with_limit("100").await;
        let log = served.dir.path().join("log");
        // No file may become longer than so many bytes: what is written behind that fails, as on a full disk.
        served.logging(&log, "trap '' XFSZ; exec \"$@\"").await;
        let room = |bytes: &str| {
            let pid = served.program.0.id().to_string();
            let done = Command::new("prlimit").args(["--pid", &pid, &format!("--fsize={bytes}:")]).status().unwrap();
            assert!(done.success());
        };
        served.pays(2).await;
        served.written(2).await;
        room("1");
        served.pays(5).await;
        served.fails_with("disk I/O error").await;
        // Calls are served as long as there is room to remember them.
        served.pays(3).await;
        assert_eq!(served.spent().await, 10 * CALL);
        room("unlimited");
        served.ready().await;
        served.written(10).await;
        // Neither could its log be written meanwhile, which must not end the thread that writes the ledger.
        assert!(!std::fs::read_to_string(&log).unwrap().contains("panicked"));
        served.ends_with(10).await;
    });
}

#[test]
fn a_locked_database_is_said_and_loses_nothing() {
    runtime().block_on(async {
        let mut served = Served::with_limit("100").await;
        let log = served.dir.path().join("log");
        served.logging(&log, "exec \"$@\"").await;
        served.pays(1).await;
        let intruder = Connection::open(served.dir.path().join("tollgate.db")).unwrap();
        intruder.execute_batch("BEGIN IMMEDIATE").unwrap();
        served.pays(4).await;
        served.fails_with("locked").await;
        served.pays(2).await;
        intruder.execute_batch("ROLLBACK").unwrap();
        drop(intruder);
        served.ready().await;
        said(&log, "database is locked");
        served.ends_with(7).await;
    });
}

/// Starts in vain: one readable line, and 1.
#[track_caller]
fn refused(command: Command, config: &Path, words: &str) {
    // One that starts after all is ended, and fails the test.
    let mut limited = Command::new("timeout");
    limited.arg("20").arg(command.get_program()).args(command.get_args());
    let output = limited.args(["serve", "--config"]).arg(config).output().unwrap();
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(words) && said.lines().count() == 1 && !said.contains("panicked"), "{words} in {said}");
}

/// A directory with a config file, and a database that was in use.
fn used() -> (Dir, std::path::PathBuf) {
    runtime().block_on(async {
        let mut served = Served::start().await;
        served.pays(2).await;
        served.program.signal("TERM");
        assert_eq!(served.program.end().await.code(), Some(0));
        let Served { dir, config, .. } = served;
        // What is beside the database is removed below: a program that ended has left all of it in the one file.
        (dir, config)
    })
}

#[test]
fn a_database_that_cannot_be_used_is_left_as_it_is() {
    let (dir, config) = used();
    let database = dir.path().join("tollgate.db");
    let (good, text) = (std::fs::read(&database).unwrap(), std::fs::read_to_string(&config).unwrap());
    let check = |spoil: &dyn Fn(), words: &str| {
        for log in ["tollgate.db-wal", "tollgate.db-shm"] {
            let _ = std::fs::remove_file(dir.path().join(log));
        }
        std::fs::write(&database, &good).unwrap();
        spoil();
        let before = std::fs::read(&database).unwrap();
        refused(tollgate(), &config, words);
        assert_eq!(std::fs::read(&database).unwrap(), before, "{words}");
        std::fs::write(&config, &text).unwrap();
    };
    let edit = |sql: &str| Connection::open(&database).unwrap().execute_batch(sql).unwrap();
    check(&|| std::fs::write(&database, "this is no database, though it is long enough").unwrap(), "not a database");
    check(
        &|| {
            let mut bytes = good.clone();
            bytes[100..].fill(0x55);
            std::fs::write(&database, bytes).unwrap();
        },
        "malformed",
    );
    check(&|| edit("PRAGMA user_version = 99"), "schema version 99");
    check(&|| edit("PRAGMA application_id = 7"), "not a Tollgate database");
    check(
        &|| std::fs::write(&config, text.replace("a key of more than", "another key of more than")).unwrap(),
        "sealed with another encryption key",
    );
    // As good as ever: it never begins from nothing.
    std::fs::write(&database, &good).unwrap();
    assert!(verified(&config).contains("(2 entries"));
}

#[test]
fn a_folder_that_may_not_be_written_refuses_the_start() {
    let (dir, config) = used();
    let database = dir.path().join("tollgate.db");
    let before = std::fs::read(&database).unwrap();
    // Whoever may do everything becomes somebody who may not, with a copy of the program where that one gets to.
    let is_root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
    let program = dir.path().join("program");
    std::fs::copy(tollgate().get_program(), &program).unwrap();
    let command = || {
        if !is_root {
            return tollgate();
        }
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(&program);
        command
    };
    let modes = |folder: u32, file: u32| {
        for path in std::fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().path()) {
            let mode = if path == program { 0o555 } else { file };
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(folder)).unwrap();
    };
    modes(0o555, 0o444);
    refused(command(), &config, &dir.path().display().to_string());
    // An empty place that may not be written, too.
    let elsewhere = dir.path().join("none/tollgate.db");
    let text = config_text("http://127.0.0.1:1", &dir, free_port(), free_port(), "1");
    let other = Dir::new();
    let other_config = other.path().join("tollgate.yaml");
    let place = format!("{}/tollgate.db", dir.path().display());
    std::fs::write(&other_config, text.replace(&place, &elsewhere.display().to_string())).unwrap();
    std::fs::set_permissions(other.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    refused(command(), &other_config, "none");
    assert!(!elsewhere.exists());
    modes(0o755, 0o644);
    assert_eq!(std::fs::read(&database).unwrap(), before);
    assert!(verified(&config).contains("(2 entries"));
}
