//! A file as a slice of atomic words that all threads share. The only unsafe code of the package.

use memmap2::{MmapOptions, MmapRaw};
use std::fs::File;
use std::io;
use std::sync::atomic::AtomicU64;

/// The words of a file, mapped for as long as this lives.
#[derive(Debug)]
pub(super) struct Map {
    map: MmapRaw,
    words: usize,
}

impl Map {
    /// Maps the first `words` of a file that has at least as many, in blocks that are allocated.
    pub(super) fn of(file: &File, words: usize) -> io::Result<Map> {
        let map = MmapOptions::new().len(words * size_of::<u64>()).map_raw(file)?;
        Ok(Map { map, words })
    }

    pub(super) fn words(&self) -> &[AtomicU64] {
        let start = self.map.as_mut_ptr().cast::<AtomicU64>();
        #[expect(unsafe_code, reason = "a mapping is a pointer; it becomes a slice here and nowhere else")]
        // SAFETY: the mapping starts at a page, so it is aligned; it is as long as `of` asked for; it is there
        // as long as `self`, and so as the slice; `AtomicU64` has the size and every bit pattern of `u64`. Nobody
        // has another kind of reference into it: every access of this process is an atomic one, and other
        // processes keep away from a file that is locked.
        unsafe {
            std::slice::from_raw_parts(start, self.words)
        }
    }
}
