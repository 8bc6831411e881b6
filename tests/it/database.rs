//! The database as a file: copied while calls run, put back, and summed up again, by the real program.

use crate::binary::{Program, Served, stderr, stdout, tollgate};
use crate::fake::Gate;
use crate::fake::answers::Good;
use crate::house::{Dir, chat, chat_stream, eventually, runtime, soon};
use rusqlite::Connection;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;

const CALL: u64 = 3_500_000;

/// Runs one of the commands on the database, with the config file of a server.
fn run(config: &Path, arguments: &[&str]) -> Output {
    tollgate().args(arguments).arg("--config").arg(config).output().unwrap()
}

#[track_caller]
fn good(config: &Path, arguments: &[&str]) -> String {
    let output = run(config, arguments);
    assert!(output.status.success(), "{arguments:?}: {}{}", stdout(&output), stderr(&output));
    assert_eq!((stderr(&output).as_str(), stdout(&output).lines().count()), ("", 1));
    stdout(&output)
}

/// One readable line on stderr, and 1.
#[track_caller]
fn fails(config: &Path, arguments: &[&str]) -> String {
    let output = run(config, arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}{}", stdout(&output), stderr(&output));
    let said = stderr(&output);
    assert!(said.starts_with("tollgate: ") && said.lines().count() == 1 && !said.contains("panicked"), "{said}");
    said
}

/// The books of a server, which may run.
#[track_caller]
pub fn verified(config: &Path) -> String {
    good(config, &["verify"])
}

#[test]
fn a_copy_is_made_while_calls_run_and_brings_the_balances_back() {
    runtime().block_on(async {
        let mut served = Served::with_limit("100").await;
        for _ in 0..3 {
            assert_eq!(served.post(&chat()).send().await.unwrap().status(), 200);
        }
        served.written(3).await;
        // One is open, others come and go.
        let gate = Gate::new();
        served.fake.script([Good::gated(&gate)]);
        let mut open = served.post(&chat_stream()).send().await.unwrap();
        soon("a chunk", open.chunk()).await.unwrap().unwrap();
        let (copy, config) = (served.dir.path().join("copy.db"), served.config.clone());
        let copying = {
            let (config, copy) = (config.clone(), copy.clone());
            tokio::task::spawn_blocking(move || {
                let said = good(&config, &["backup", copy.to_str().unwrap()]);
                (said, verified(&config))
            })
        };
        let mut calls = 3;
        while !copying.is_finished() || calls < 6 {
            assert_eq!(served.post(&chat()).send().await.unwrap().status(), 200);
            calls += 1;
        }
        let (said, checked) = copying.await.unwrap();
        assert!(said.contains("copy.db: a copy of") && said.contains("encryption key"), "{said}");
        assert!(checked.contains(": good (") && checked.contains("entries"), "{checked}");
        assert_eq!(std::fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
        let said = fails(&config, &["backup", copy.to_str().unwrap()]);
        assert!(said.contains("it is there already"), "{said}");
        let said = fails(&config, &["restore", copy.to_str().unwrap()]);
        assert!(said.contains("stop it first"), "{said}");

        (0..50).for_each(|_| gate.open());
        while soon("a chunk", open.chunk()).await.unwrap().is_some() {}
        served.program.signal("TERM");
        served.program.end().await;
        let of = |file: &Path, sql: &str| -> u64 {
            let number: i64 = Connection::open(file).unwrap().query_row(sql, (), |row| row.get(0)).unwrap();
            u64::try_from(number).unwrap()
        };
        let spent = "SELECT sum(spent) FROM balances WHERE measure = 'money'";
        let (then, now) = (of(&copy, spent), of(&served.dir.path().join("tollgate.db"), spent));
        assert_eq!((then % CALL, now), (0, (calls + 1) * CALL));
        assert!((3 * CALL..now).contains(&then), "{then}");
        let said = good(&config, &["restore", copy.to_str().unwrap()]);
        assert!(said.contains("restored from") && said.contains("tollgate.db.before-restore"), "{said}");
        served.again(&[]);
        served.ready().await;
        assert_eq!(served.spent().await, then);
        assert_eq!(of(&served.dir.path().join("tollgate.db.before-restore"), spent), now);
        assert_eq!(served.post(&chat()).send().await.unwrap().status(), 200);
        served.written(1).await;
        verified(&config);
    });
}

#[test]
fn what_a_killed_server_left_open_is_not_charged_to_a_restored_database() {
    runtime().block_on(async {
        let mut served = Served::with_limit("100").await;
        for _ in 0..2 {
            assert_eq!(served.post(&chat()).send().await.unwrap().status(), 200);
        }
        served.written(2).await;
        let (copy, dir) = (served.dir.path().join("copy.db"), served.dir.path().to_owned());
        good(&served.config, &["backup", copy.to_str().unwrap()]);
        // One more is settled, and one is open, when the process dies.
        assert_eq!(served.post(&chat()).send().await.unwrap().status(), 200);
        served.fake.script([Good::gated(&Gate::new())]);
        let mut open = served.post(&chat_stream()).send().await.unwrap();
        soon("a chunk", open.chunk()).await.unwrap().unwrap();
        served.program.signal("KILL");
        served.program.end().await;
        let said = good(&served.config, &["restore", copy.to_str().unwrap()]);
        assert!(said.contains("tollgate.db.before-restore; calls that a killed server left in its journal"), "{said}");
        let journal = [dir.join("tollgate.journal"), dir.join("tollgate.journal.before-restore")];
        assert_eq!(journal.clone().map(|path| path.exists()), [false, true]);
        served.again(&[]);
        served.ready().await;
        assert_eq!(served.spent().await, 2 * CALL);
        assert!(verified(&served.config).contains("(2 entries"));
        // Both belong together still: put back, the open call is charged to the books that it was admitted under.
        served.program.signal("TERM");
        served.program.end().await;
        let old = dir.join("tollgate.db.before-restore");
        let said = good(&served.config, &["restore", old.to_str().unwrap()]);
        assert!(said.contains("tollgate.db.before-restore-1") && !said.contains("journal"), "{said}");
        std::fs::rename(&journal[1], &journal[0]).unwrap();
        served.again(&[]);
        served.ready().await;
        assert!(served.spent().await > 3 * CALL, "{}", served.spent().await);
        assert!(verified(&served.config).contains("(4 entries"));
    });
}

#[test]
fn verify_finds_a_tampered_balance_and_a_deleted_entry() {
    runtime().block_on(async {
        let mut served = Served::start().await;
        for _ in 0..4 {
            assert_eq!(served.post(&chat()).send().await.unwrap().status(), 200);
        }
        served.program.signal("TERM");
        served.program.end().await;
        let said = verified(&served.config);
        assert!(said.contains("4 entries"), "{said}");
        let database = served.dir.path().join("tollgate.db");
        let spoil = |sql: &str| {
            assert_eq!(Connection::open(&database).unwrap().execute(sql, ()).unwrap(), 1, "{sql}");
            let output = run(&served.config, &["verify"]);
            assert_eq!(output.status.code(), Some(1), "{}", stdout(&output));
            (stdout(&output), stderr(&output))
        };
        let (lines, said) = spoil("UPDATE balances SET spent = spent - 1 WHERE measure = 'money'");
        assert!(lines.contains("the balance is 0.013999999 dollars, and entries come to 0.014 dollars"), "{lines}");
        assert_eq!(lines.lines().count(), 1);
        assert!(said.contains("has a mismatch (4 entries"), "{said}");
        Connection::open(&database)
            .unwrap()
            .execute("UPDATE balances SET spent = spent + 1 WHERE measure = 'money'", ())
            .unwrap();
        verified(&served.config);
        let (lines, said) = spoil("DELETE FROM ledger WHERE id = (SELECT max(id) FROM ledger)");
        assert!(lines.contains("entries come to 0.0105 dollars") && lines.contains("hour "), "{lines}");
        assert!(said.contains("mismatches (3 entries"), "{said}");
    });
}

#[test]
fn the_commands_say_what_they_lack() {
    let dir = Dir::new();
    let config = dir.path().join("tollgate.yaml");
    // Of the file only the store matters: what a provider lacks does not stop a copy.
    let text = |path: &str| {
        format!(
            "store: {{ path: {}/{path}, encryption_key: a key of more than sixteen characters }}\n\
             providers: {{ openai: {{ keys: [{{ name: main, value: env.A_VARIABLE_NOBODY_SET }}] }} }}\n",
            dir.path().display()
        )
    };
    std::fs::write(&config, text("none.db")).unwrap();
    let copy = dir.path().join("copy.db");
    for arguments in [&["verify"][..], &["backup", copy.to_str().unwrap()]] {
        let said = fails(&config, arguments);
        assert!(said.contains("there is no database at") && said.contains("none.db"), "{said}");
    }
    let said = fails(&config, &["restore", "/nowhere/copy.db"]);
    assert!(said.contains("/nowhere/copy.db"), "{said}");
    assert!(!dir.path().join("none.db").exists() && !copy.exists());
    std::fs::write(dir.path().join("text.db"), "this is no database, though it has enough letters").unwrap();
    std::fs::write(&config, text("text.db")).unwrap();
    let said = fails(&config, &["verify"]);
    assert!(said.contains("not a database"), "{said}");
    // What is wrong with the store itself is said with its place.
    std::fs::write(&config, "store: { path: x.db, encryption_key: short }\n").unwrap();
    let output = run(&config, &["verify"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("tollgate.yaml:1:") && stderr(&output).contains("encryption_key"));
    for arguments in [&["backup"][..], &["restore"], &["verify", "more"]] {
        assert_eq!(tollgate().args(arguments).output().unwrap().status.code(), Some(2), "{arguments:?}");
    }
    let missing = fails(Path::new("/nowhere/tollgate.yaml"), &["verify"]);
    assert!(missing.contains("/nowhere/tollgate.yaml"), "{missing}");
}

#[test]
fn a_predecessor_and_its_successor_keep_books_that_agree() {
    runtime().block_on(async {
        let mut served = Served::with_limit("100").await;
        let gate = Gate::new();
        served.fake.script([Good::gated(&gate)]);
        let mut open = served.post(&chat_stream()).send().await.unwrap();
        soon("a chunk", open.chunk()).await.unwrap().unwrap();
        let mut old: Program = served.again(&["--upgrade"]);
        old.signal("QUIT");
        (0..50).for_each(|_| gate.open());
        while soon("a chunk", open.chunk()).await.unwrap().is_some() {}
        old.end().await;
        served.http = reqwest::Client::new();
        served.ready().await;
        for _ in 0..3 {
            assert_eq!(served.post(&chat()).send().await.unwrap().status(), 200);
        }
        served.written(3).await;
        let said = verified(&served.config);
        assert!(said.contains("4 entries"), "{said}");
        eventually("all of it to be known", async || served.spent().await == 4 * CALL).await;
    });
}
