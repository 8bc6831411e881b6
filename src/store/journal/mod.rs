//! The journal as a mapped file of fixed slots: `tollgate.journal` beside the database.
//!
//! A store into a shared mapping is kept by the kernel when the process dies, so writing needs no
//! system call. The blocks are allocated before anything is mapped: a full disk refuses the start and
//! cannot break a running process. Each process has a file of its own, claimed by a lock; who finds one
//! unlocked finds a process that is gone, and brings what it left into the ledger before it is used again.
//!
//! The end of the *machine* is another matter: the kernel writes the mapping back when it likes, mostly
//! within half a minute. After a power cut (the boot id has changed) what is there is brought in just the
//! same: a slot may be stale, of a call that was written since, which the ledger knows by its id, or of one
//! that was freed as never sent, which is then charged as unresolved; and of the last seconds it may lack calls
//! that were open. File systems that copy on write (btrfs, ZFS) can run full all the same.

mod aside;
mod free;
mod layout;
mod map;
mod recover;

use super::{Ledger, StoreError, StoreErrorKind};
use crate::governance::time::Timestamp;
use crate::state::journal::{Journal, Open, Place, Settled};
pub use aside::Leftover;
use free::FreeList;
use layout::{
    AFTER_LINK, Check, HEADER_WORDS, LINK, MAGIC, RECORD, SETTLED, SETTLED_WORDS, SLOT_WORDS, STATE, VERSION, WORD,
    open_state, settled_state, write_settled,
};
use map::Map;
pub use recover::{Predecessors, Recovered};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use std::fmt;
use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Processes that share a data directory for some time: a predecessor that drains, its successor, and one
/// or two that hang.
const FILES_MAX: u32 = 8;

/// Makes sure that so many bytes of a file have their blocks.
pub(super) type Allocate = fn(&File, u64) -> io::Result<()>;

/// A journal of this process's own, and what became of the others.
#[derive(Debug)]
pub struct Claimed {
    pub journal: Arc<MappedJournal>,
    /// Journals of processes that are still alive.
    pub predecessors: Predecessors,
    pub recovered: Recovered,
}

/// Claims a journal of `slots` in the data directory, after everything that dead processes left in
/// theirs was brought into the ledger. A journal that is damaged or newer is left untouched, and nothing is
/// claimed.
pub fn claim(dir: &Path, slots: u32, ledger: &mut dyn Ledger, now: Timestamp) -> Result<Claimed, StoreError> {
    claim_with(dir, slots, ledger, now, allocate)
}

pub(super) fn claim_with(
    dir: &Path,
    slots: u32,
    ledger: &mut dyn Ledger,
    now: Timestamp,
    allocate: Allocate,
) -> Result<Claimed, StoreError> {
    let (mut free, mut taken, mut unused) = (Vec::new(), Vec::new(), None);
    for path in (0..FILES_MAX).map(|number| path(dir, number)) {
        match File::options().read(true).write(true).open(&path) {
            Ok(file) if lock(&file, &path)? => free.push((path, file)),
            Ok(_) => taken.push(path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => unused = unused.or(Some(path)),
            Err(error) => return Err(failed("open", &path, error)),
        }
    }
    let recovered = recover::recover(&free, ledger, now)?;
    let (path, file) = match (free.into_iter().next(), unused) {
        (Some(own), _) => own,
        (None, Some(path)) => {
            let file = create(&path).map_err(|error| failed("create", &path, error))?;
            if !lock(&file, &path)? {
                let what = format!("another process was quicker to take the journal {}", path.display());
                return Err(StoreError::new(StoreErrorKind::Busy, what));
            }
            (path, file)
        }
        (None, None) => {
            let what = format!("{FILES_MAX} processes have a journal in {} already", dir.display());
            return Err(StoreError::new(StoreErrorKind::Busy, what));
        }
    };
    let journal = MappedJournal::on(file, slots, allocate).map_err(|error| {
        let mib = bytes(slots).div_ceil(1 << 20);
        let what = format!("cannot allocate the journal of open calls, {mib} MiB in {}", path.display());
        StoreError::new(StoreErrorKind::Open, what).because(error)
    })?;
    Ok(Claimed { journal: Arc::new(journal), predecessors: Predecessors::new(taken), recovered })
}

/// Open attempts in a mapped file. See the module.
pub struct MappedJournal {
    map: Map,
    free: FreeList,
    #[expect(dead_code, reason = "it carries the lock, and goes with the mapping")]
    file: File,
}

impl fmt::Debug for MappedJournal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MappedJournal").finish_non_exhaustive()
    }
}

impl MappedJournal {
    /// Makes an empty journal of a file that is empty and locked.
    fn on(file: File, slots: u32, allocate: Allocate) -> io::Result<MappedJournal> {
        let prepare = || {
            allocate(&file, bytes(slots))?;
            let header = Header::new(slots, boot_id());
            file.write_all_at(&header.bytes(), 0)?;
            file.sync_all()
        };
        // What was allocated of it in vain is given back.
        prepare().inspect_err(|_| drop(file.set_len(0)))?;
        let map = Map::of(&file, HEADER_WORDS + slots as usize * SLOT_WORDS)?;
        Ok(MappedJournal { map, free: FreeList::all(slots), file })
    }

    fn slot(&self, slot: u32) -> &[AtomicU64; SLOT_WORDS] {
        let (slots, _) = self.map.words()[HEADER_WORDS..].as_chunks();
        &slots[slot as usize]
    }

    /// Gives back a record's slots. Its state says by now that it is none.
    fn give_back(&self, first: u32) {
        let mut slot = Some(first);
        while let Some(this) = slot {
            // Before it is given back: from then on it may be somebody else's.
            slot = previous(self.slot(this)[LINK].load(Ordering::Relaxed));
            self.free.push(this);
        }
    }
}

impl Journal for MappedJournal {
    fn place(&self, open: &Open<'_>) -> Option<Place> {
        let first = self.free.pop()?;
        let mut pen = Pen { journal: self, slot: self.slot(first), at: RECORD, check: Check::START, full: false };
        pen.slot[SETTLED].store(0, Ordering::Relaxed);
        layout::write(open, &mut |word| pen.put(word));
        pen.link(0);
        if pen.full {
            self.give_back(first);
            return None;
        }
        Some(Place { slot: first, check: pen.check.sum() })
    }

    fn mark_sent(&self, place: &Place) {
        self.slot(place.slot)[STATE].store(open_state(place.check), Ordering::Release);
    }

    fn settle(&self, place: &Place, settled: &Settled) {
        let slot = self.slot(place.slot);
        let mut check = Check::seeded(place.check);
        let words: [u64; SETTLED_WORDS] = write_settled(settled);
        for (to, word) in slot[AFTER_LINK..].iter().zip(words) {
            to.store(word, Ordering::Relaxed);
            check = check.with(word);
        }
        slot[SETTLED].store(settled_state(check.sum()), Ordering::Release);
    }

    fn free(&self, place: Place) {
        self.slot(place.slot)[STATE].store(0, Ordering::Release);
        self.give_back(place.slot);
    }
}

/// Writes a record over as many slots as it needs.
struct Pen<'a> {
    journal: &'a MappedJournal,
    slot: &'a [AtomicU64; SLOT_WORDS],
    at: usize,
    check: Check,
    /// There was no slot to go on in.
    full: bool,
}

impl Pen<'_> {
    fn put(&mut self, word: u64) {
        if self.at == SLOT_WORDS {
            self.turn_over();
        }
        if !self.full {
            self.slot[self.at].store(word, Ordering::Relaxed);
            self.check = self.check.with(word);
            self.at += 1;
        }
    }

    fn turn_over(&mut self) {
        let Some(next) = self.journal.free.pop() else {
            self.full = true;
            return;
        };
        self.link(u64::from(next) + 1);
        (self.slot, self.at) = (self.journal.slot(next), AFTER_LINK);
    }

    fn link(&mut self, next: u64) {
        self.slot[LINK].store(next, Ordering::Relaxed);
        self.check = self.check.with(next);
    }
}

/// The slot that a link leads to.
fn previous(link: u64) -> Option<u32> {
    u32::try_from(link).ok()?.checked_sub(1)
}

/// What the file says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) version: u64,
    pub(super) slots: u32,
    pub(super) boot: u128,
}

const HEADER_BYTES: usize = 7 * WORD;

impl Header {
    pub(super) const fn new(slots: u32, boot: u128) -> Header {
        Header { version: VERSION, slots, boot }
    }

    pub(super) fn bytes(self) -> [u8; HEADER_BYTES] {
        let boot = [0, 64].map(|shift| u64::try_from(self.boot >> shift & u128::from(u64::MAX)).unwrap_or(0));
        let mut words = [MAGIC, self.version, SLOT_WORDS as u64, u64::from(self.slots), boot[0], boot[1], 0];
        words[6] = words[..6].iter().fold(Check::START, |check, word| check.with(*word)).sum();
        let mut bytes = [0; HEADER_BYTES];
        for (to, word) in bytes.chunks_exact_mut(WORD).zip(words) {
            to.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }

    /// Reads it, or says what is wrong with it. `None`: nothing was ever written.
    fn read(file: &File) -> io::Result<Result<Option<Header>, (StoreErrorKind, String)>> {
        let length = file.metadata()?.len();
        let mut bytes = [0; HEADER_BYTES];
        let there = usize::try_from(length).unwrap_or(usize::MAX).min(HEADER_BYTES);
        file.read_exact_at(&mut bytes[..there], 0)?;
        if bytes == [0; HEADER_BYTES] {
            return Ok(Ok(None));
        }
        let word = |n: usize| u64::from_ne_bytes(bytes[n * WORD..][..WORD].try_into().expect("a word is eight bytes"));
        let damaged = |why: &str| Ok(Err((StoreErrorKind::Damaged, why.to_owned())));
        if word(0) != MAGIC {
            return damaged("is not a Tollgate journal");
        }
        if word(1) > VERSION {
            let why = format!("has version {}, and this Tollgate knows up to {VERSION}", word(1));
            return Ok(Err((StoreErrorKind::NewerSchema, why)));
        }
        let Ok(slots) = u32::try_from(word(3)) else { return damaged("is damaged") };
        let header = Header { version: word(1), slots, boot: u128::from(word(5)) << 64 | u128::from(word(4)) };
        if header.bytes() != bytes || length < self::bytes(slots) {
            return damaged("is damaged");
        }
        Ok(Ok(Some(header)))
    }
}

pub(super) fn path(dir: &Path, number: u32) -> PathBuf {
    dir.join(if number == 0 { "tollgate.journal".to_owned() } else { format!("tollgate.journal.{number}") })
}

/// The length of a journal with so many slots.
fn bytes(slots: u32) -> u64 {
    (HEADER_WORDS * WORD) as u64 + u64::from(slots) * (SLOT_WORDS * WORD) as u64
}

/// Creates an empty file that only its owner can read.
fn create(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).create_new(true).mode(0o600).open(path)
}

/// Whether the file is ours now. The system lets go of it when the process ends, however.
fn lock(file: &File, path: &Path) -> Result<bool, StoreError> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(failed("lock", path, error)),
    }
}

fn failed(what: &str, path: &Path, error: io::Error) -> StoreError {
    StoreError::new(StoreErrorKind::Open, format!("cannot {what} the journal {}", path.display())).because(error)
}

pub(super) fn allocate(file: &File, length: u64) -> io::Result<()> {
    loop {
        match fallocate(file, FallocateFlags::empty(), 0, length) {
            Ok(()) => return Ok(()),
            Err(Errno::INTR) => {}
            // Where the file system cannot do it, zeros can.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => return fill(file, length),
            Err(error) => return Err(error.into()),
        }
    }
}

fn fill(file: &File, length: u64) -> io::Result<()> {
    let zeros = vec![0; 1 << 20];
    let mut at = 0;
    while at < length {
        let piece = usize::try_from(length - at).map_or(zeros.len(), |left| left.min(zeros.len()));
        file.write_all_at(&zeros[..piece], at)?;
        at += piece as u64;
    }
    Ok(())
}

/// Changes whenever the machine starts. Zero where nobody tells.
fn boot_id() -> u128 {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    u128::from_str_radix(&text.trim().replace('-', ""), 16).unwrap_or(0)
}
