//! A seeded simulator: short histories of a whole house, in which the process is killed now and then and the next
//! one begins with what its journal and the ledger have. What stands is compared with a naive model all the time.
//!
//! `TOLLGATE_SIMULATIONS` says how many histories are played, `TOLLGATE_SIMULATION_SEED` which is the first; a
//! failure prints its own.

use super::super::journal::{claim, path};
use super::*;
use crate::governance::judge::Admission;
use crate::state::Balance;
use crate::state::digest::KeyHasher;
use crate::state::outbox::Entry;
use crate::state::tests::world::{Books, Dice, World};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// More than any history has open or unwritten.
const PLACES: u32 = 512;

/// The books, as what a journal has is brought into them.
struct Desk {
    books: Books,
    limits: Vec<LimitKey>,
}

impl Ledger for Desk {
    fn append(&mut self, batch: &[Entry]) -> Result<usize, StoreError> {
        Ok(self.books.append(batch))
    }

    fn balances(&mut self) -> Result<HashMap<LimitKey, Balance>, StoreError> {
        unreachable!("the world looks at the windows itself")
    }

    fn limits(&mut self) -> Result<Vec<LimitKey>, StoreError> {
        Ok(self.limits.clone())
    }
}

/// A state with a journal of its own in `dir`; what is found there goes into the books.
fn opened(dir: &TempDir, books: Books, limits: Vec<LimitKey>, clock: Clock) -> (State, Books) {
    let mut desk = Desk { books, limits };
    let journal = claim(dir.path(), PLACES, &mut desk, clock.now()).unwrap().journal;
    let places = usize::try_from(PLACES).unwrap();
    (State::with_journal(clock, KeyHasher::new(&[1; 32]), places, Some(journal)), desk.books)
}

/// The process is killed, perhaps right after a batch was committed and before anybody knew; and twice in a row.
fn kill(world: &mut World, dir: &mut TempDir, dice: &mut Dice) -> Result<(), String> {
    if dice.roll().is_multiple_of(2) {
        let batch = world.state.outbox().take(3);
        world.books.append(&batch);
    }
    let remains = TempDir::new();
    std::fs::copy(path(dir.path(), 0), path(remains.path(), 0)).unwrap();
    let again = TempDir::new();
    std::fs::copy(path(dir.path(), 0), path(again.path(), 0)).unwrap();
    let (clock, limits) = (world.state.clock.clone(), world.limits());
    let (state, books) = opened(&remains, world.books.clone(), limits.clone(), clock.clone());
    let (_, twice) = opened(&again, books.clone(), limits, clock);
    if twice != books {
        return Err("what was brought in twice was charged twice".to_owned());
    }
    world.books = books;
    world.begin_again(|_| state);
    *dir = remains;
    world.conserved()?;
    world.books_agree()
}

fn history(seed: u64) -> Result<(), String> {
    let mut dice = Dice(seed);
    let admission = if dice.roll().is_multiple_of(2) { Admission::Remaining } else { Admission::NeverExceed };
    // A file and its flush are what takes time.
    let mut dir = dice.roll().is_multiple_of(8).then(TempDir::new);
    let mut world = World::new(admission, |clock| match &dir {
        Some(dir) => opened(dir, Books::default(), Vec::new(), clock).0,
        None => State::new(clock, KeyHasher::new(&[1; 32]), 1_000),
    });
    for _ in 0..20 + dice.roll() % 60 {
        match &mut dir {
            Some(dir) if dice.roll().is_multiple_of(16) => kill(&mut world, dir, &mut dice)?,
            _ => world.step(dice.roll()),
        }
        world.left_no_trace()?;
        world.conserved()?;
    }
    world.not_overspent()?;
    world.books_agree()?;
    world.not_leaking()?;
    world.books_agree()?;
    match dir {
        None => Ok(()),
        // And no slot is taken, or the next process would find something.
        Some(dir) => {
            let (books, remains) = (world.books.clone(), TempDir::new());
            std::fs::copy(path(dir.path(), 0), path(remains.path(), 0)).unwrap();
            let mut desk = Desk { books: Books::default(), limits: world.limits() };
            let found = claim(remains.path(), PLACES, &mut desk, at(NOW)).unwrap().recovered;
            let left = (found.settled + found.unresolved + found.torn, desk.books.entries.len());
            if left == (0, 0) && world.books == books { Ok(()) } else { Err(format!("{left:?} are left")) }
        }
    }
}

#[test]
fn no_history_breaks_a_promise() {
    let number = |name: &str, usual: u64| std::env::var(name).map_or(usual, |text| text.parse().unwrap());
    let (count, first) = (number("TOLLGATE_SIMULATIONS", 800), number("TOLLGATE_SIMULATION_SEED", 1));
    for seed in first..first + count {
        let played = catch_unwind(AssertUnwindSafe(|| history(seed)));
        let played = played.unwrap_or_else(|_| Err("it panicked".to_owned()));
        played.unwrap_or_else(|fault| panic!("TOLLGATE_SIMULATION_SEED={seed} TOLLGATE_SIMULATIONS=1: {fault}"));
    }
}
