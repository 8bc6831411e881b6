//! Which slots are free: a stack without a lock. The slot that was freed last is taken first, so that
//! a quiet journal touches few pages.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Invariant: a slot is in the stack, or somebody has it; never both.
#[derive(Debug)]
pub(super) struct FreeList {
    /// The slot on top, counted from one, and above it a number that grows with each change, so that a stack
    /// that changed and changed back is not taken for the same.
    top: AtomicU64,
    /// What lies below each slot, counted from one; zero: nothing.
    below: Box<[AtomicU32]>,
}

impl FreeList {
    /// All of them are free, the first on top.
    pub(super) fn all(slots: u32) -> FreeList {
        let below = (0..slots).map(|slot| AtomicU32::new(if slot + 1 < slots { slot + 2 } else { 0 })).collect();
        FreeList { top: AtomicU64::new(u64::from(slots.min(1))), below }
    }

    pub(super) fn pop(&self) -> Option<u32> {
        let mut top = self.top.load(Ordering::Acquire);
        loop {
            let slot = low(top).checked_sub(1)?;
            let below = self.below[slot as usize].load(Ordering::Relaxed);
            match self.top.compare_exchange_weak(top, changed(top, below), Ordering::Acquire, Ordering::Acquire) {
                Ok(_) => return Some(slot),
                Err(now) => top = now,
            }
        }
    }

    pub(super) fn push(&self, slot: u32) {
        let mut top = self.top.load(Ordering::Relaxed);
        loop {
            self.below[slot as usize].store(low(top), Ordering::Relaxed);
            match self.top.compare_exchange_weak(top, changed(top, slot + 1), Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => top = now,
            }
        }
    }
}

fn low(top: u64) -> u32 {
    u32::try_from(top & u64::from(u32::MAX)).expect("the upper half is masked")
}

fn changed(top: u64, slot: u32) -> u64 {
    (((top >> 32) + 1) << 32) | u64::from(slot)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn every_slot_is_given_once() {
        let free = FreeList::all(3);
        let taken = [free.pop(), free.pop(), free.pop(), free.pop()];
        assert_eq!(taken, [Some(0), Some(1), Some(2), None]);
        free.push(1);
        free.push(2);
        assert_eq!([free.pop(), free.pop(), free.pop()], [Some(2), Some(1), None]);
        assert_eq!(FreeList::all(0).pop(), None);
    }

    #[test]
    fn threads_never_have_the_same_slot() {
        let free = FreeList::all(5);
        let had: [AtomicBool; 5] = Default::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        let Some(slot) = free.pop() else { continue };
                        assert!(!had[slot as usize].swap(true, Ordering::AcqRel), "{slot} was given twice");
                        had[slot as usize].store(false, Ordering::Release);
                        free.push(slot);
                    }
                });
            }
        });
        let mut left: Vec<u32> = std::iter::from_fn(|| free.pop()).collect();
        left.sort_unstable();
        assert_eq!(left, [0, 1, 2, 3, 4]);
    }
}
