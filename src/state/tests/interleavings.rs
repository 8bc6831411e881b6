//! Every interleaving of two or three threads at one cell and at two: loom runs them all. The cell is the very
//! file that serves, compiled against loom's atomics.

#[expect(clippy::duplicate_mod, reason = "the second time its atomics are others")]
#[path = "../cell.rs"]
mod cell;

mod sync {
    pub(super) use loom::sync::atomic::{AtomicI64, Ordering};
}

use crate::governance::judge::Admission::{self, NeverExceed, Remaining};
use crate::governance::judge::admits;
use cell::Counts;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

/// What each thread does: holds so much, and settles at so much or gives it back.
type Call = (i64, Option<i64>);

/// Holds at all cells in their order, or at none; and touches none before all were seen to admit, as admission does.
fn hold(cells: &[Counts], max: i64, amount: i64, admission: Admission) -> bool {
    if !cells.iter().all(|cell| admits(max, cell.used(), amount, admission)) {
        return false;
    }
    let refused = cells.iter().position(|cell| !cell.hold(max, amount, admission));
    if let Some(at) = refused {
        cells[..at].iter().for_each(|cell| cell.settle(amount, 0));
    }
    refused.is_none()
}

/// One call from its hold to its end, with what every thread may see at any moment looked at in between. What
/// it was charged.
fn call(cells: &[Counts], max: i64, (amount, end): Call, admission: Admission) -> i64 {
    if !hold(cells, max, amount, admission) {
        return 0;
    }
    let charged = end.unwrap_or(0);
    for cell in cells {
        let tally = cell.tally();
        assert!(admission == Remaining || tally.used <= max, "{tally:?}");
        assert!(tally.spent >= 0 && tally.used >= 0, "{tally:?}");
        cell.settle(amount, charged);
    }
    charged
}

/// Runs every interleaving in which no more than so many switches come where a thread could have gone on.
fn model(switches: usize, run: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(switches);
    builder.check(run);
}

/// Plays these calls at once in every such order.
fn check(cells: usize, max: i64, admission: Admission, calls: &'static [Call]) {
    model(if calls.len() > 2 { 2 } else { 3 }, move || {
        let counts: Arc<Vec<Counts>> = Arc::new((0..cells).map(|_| Counts::new(0)).collect());
        let threads: Vec<_> = calls[1..]
            .iter()
            .map(|one| {
                let counts = Arc::clone(&counts);
                thread::spawn(move || call(&counts, max, *one, admission))
            })
            .collect();
        let mut charged = call(&counts, max, calls[0], admission);
        charged += threads.into_iter().map(|thread| thread.join().unwrap()).sum::<i64>();
        let dearest = calls.iter().filter_map(|(_, end)| *end).max().unwrap_or(0);
        for cell in counts.iter() {
            let tally = cell.tally();
            // Conservation, and no leak: what was charged is spent, and nothing is held.
            assert_eq!((tally.spent, tally.used), (charged, charged));
            let most = if admission == NeverExceed { max } else { max + dearest };
            assert!(charged <= most, "{charged} of {max}");
        }
        // Whoever comes first is never refused.
        assert!(calls.iter().any(|(_, end)| end.is_none()) || charged > 0);
    });
}

#[test]
fn two_calls_at_one_cell() {
    for admission in [Remaining, NeverExceed] {
        check(1, 10, admission, &[(6, Some(6)), (6, Some(5))]);
        check(1, 10, admission, &[(4, Some(4)), (6, None)]);
        check(1, 10, admission, &[(10, None), (1, Some(1))]);
    }
}

#[test]
fn three_calls_at_one_cell() {
    for admission in [Remaining, NeverExceed] {
        check(1, 10, admission, &[(5, Some(5)), (5, Some(5)), (5, Some(5))]);
    }
}

#[test]
fn two_calls_at_two_cells() {
    for admission in [Remaining, NeverExceed] {
        check(2, 10, admission, &[(6, Some(6)), (6, Some(6))]);
        check(2, 10, admission, &[(6, None), (5, Some(5))]);
    }
}

/// A window ends while a call is in flight: whoever comes next finds the fresh cell, and the late settlement
/// finds the one that admitted it. The place of the current cell is what `Meter` swaps.
#[test]
fn a_window_that_ends_meanwhile() {
    model(3, || {
        let cells = Arc::new([Counts::new(0), Counts::new(0)]);
        let current = Arc::new(AtomicUsize::new(0));
        let settling = {
            let (cells, current) = (Arc::clone(&cells), Arc::clone(&current));
            thread::spawn(move || {
                let mine = current.load(Ordering::Acquire);
                assert!(cells[mine].hold(10, 7, NeverExceed));
                cells[mine].settle(7, 5);
                mine
            })
        };
        // This one sees the end of the window first.
        let _ = current.compare_exchange(0, 1, Ordering::AcqRel, Ordering::Acquire);
        let admitted = cells[1].hold(10, 3, NeverExceed);
        let late = settling.join().unwrap();
        let spent = cells.each_ref().map(|cell| cell.tally().spent);
        assert!(admitted);
        assert_eq!((spent[late], spent[1 - late]), (5, 0));
        assert_eq!(cells[1].tally().used, 3 + if late == 1 { 5 } else { 0 });
    });
}
