//! The promises about money, each a test of its name: they hold after every step of every history, under both
//! policies.

use super::super::*;
use super::world::World;
use crate::governance::judge::Admission;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

const STEPS: usize = 120;

/// No file of what failed: a history that is shrunk to its core is short enough to be a test of its own.
fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) }
}

/// Plays histories; `check` looks after each step, and `end` when all is over.
fn histories(check: impl Fn(&mut World) -> Result<(), String>, end: impl Fn(&mut World) -> Result<(), String>) {
    for admission in [Admission::Remaining, Admission::NeverExceed] {
        let mut runner = TestRunner::new(config());
        let played = runner.run(&vec(any::<u64>(), 0..STEPS), |history| {
            let mut world = World::new(admission, |clock| State::new(clock, KeyHasher::new(&[1; 32]), 1_000));
            for number in history {
                world.step(number);
                check(&mut world).map_err(TestCaseError::fail)?;
            }
            end(&mut world).map_err(TestCaseError::fail)
        });
        played.unwrap_or_else(|fault| panic!("{admission:?}: {fault}"));
    }
}

fn fine(_: &mut World) -> Result<(), String> {
    Ok(())
}

/// Limit = headroom + held + spent, at every limit.
#[test]
fn conservation() {
    histories(World::conserved, World::conserved);
}

#[test]
fn no_overspend() {
    histories(World::not_overspent, World::not_overspent);
}

/// Settled, released or dropped: each attempt changes the balances once, and has one entry if it was sent.
#[test]
fn at_most_once() {
    histories(World::books_agree, World::conserved);
}

#[test]
fn no_leak() {
    histories(fine, World::not_leaking);
}

#[test]
fn all_or_nothing() {
    histories(World::left_no_trace, fine);
}

/// However late it settles, and whatever became of the limit meanwhile: an attempt is charged to the window that
/// admitted it.
#[test]
fn attribution() {
    histories(fine, World::books_agree);
}

/// A limit that is made larger, smaller or shorter stands where it stood; the next call goes by the new one.
#[test]
fn admin_edits_never_change_what_was_spent() {
    // Steps that stand for edits and for admissions only, so that they follow each other closely.
    let mut runner = TestRunner::new(config());
    let edits = vec(any::<u64>(), 1..40);
    let played = runner.run(&edits, |history| {
        let mut world = World::new(Admission::NeverExceed, |clock| State::new(clock, KeyHasher::new(&[1; 32]), 1_000));
        for number in history {
            world.step(number);
            let before = world.spent();
            world.edit(number);
            let after = world.spent();
            let kept = before.iter().all(|(key, sums)| after.get(key).is_none_or(|now| now == sums));
            prop_assert!(kept, "{before:?} became {after:?}");
            world.conserved().map_err(TestCaseError::fail)?;
        }
        Ok(())
    });
    played.unwrap();
}
