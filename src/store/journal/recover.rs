//! What dead processes left: read from their journals, brought into the ledger in one transaction, and
//! only then forgotten.
//!
//! Invariant: bringing it in twice, or when the ledger has it already, changes nothing.

use super::layout::{
    self, AFTER_LINK, Check, HEADER_WORDS, LINK, Left, SETTLED, SETTLED_WORDS, SLOT_WORDS, STATE, WORD, open_state,
    settled_state,
};
use super::{Header, boot_id, failed, lock, previous};
use crate::governance::money::Nanos;
use crate::governance::time::Timestamp;
use crate::governance::view::LimitKey;
use crate::state::counters::Cell;
use crate::state::journal::{Mark, Settled};
use crate::state::outbox::{CallTag, Delta, Ending, Entry};
use crate::store::{Ledger, StoreError, StoreErrorKind};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Slots looked at in one read.
const LOOK: u32 = 128;

/// What was found in the journals of dead processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Recovered {
    /// Calls that were open, what they are charged, and what had been expected of them.
    pub unresolved: usize,
    pub charged: Nanos,
    pub expected: Nanos,
    /// Calls that had been settled, with what they cost.
    pub settled: usize,
    pub cost: Nanos,
    /// How many of either the ledger did not have.
    pub new: usize,
    /// Slots that a power cut tore.
    pub torn: usize,
    /// The machine was started anew since; see the module of the journal.
    pub other_boot: bool,
}

impl Recovered {
    /// One line for the operator, if there is anything to tell.
    pub fn log(&self) {
        if self.unresolved + self.settled + self.torn == 0 {
            return;
        }
        tracing::warn!(
            unresolved = self.unresolved,
            charged_nanos = self.charged.get(),
            expected_nanos = self.expected.get(),
            settled = self.settled,
            settled_nanos = self.cost.get(),
            new_in_ledger = self.new,
            torn = self.torn,
            machine_restarted = self.other_boot,
            "a process died with calls that were not in the ledger; those still open are charged at their upper bound"
        );
    }
}

/// Journals of processes that lived when this one began. Each is brought in once its process is gone.
#[derive(Debug, Default)]
pub struct Predecessors {
    paths: Vec<PathBuf>,
}

impl Predecessors {
    pub(super) fn new(paths: Vec<PathBuf>) -> Predecessors {
        Predecessors { paths }
    }

    /// Whether one of them may still be alive.
    pub fn are_awaited(&self) -> bool {
        !self.paths.is_empty()
    }

    /// Brings in what those left that are gone by now.
    pub fn look(&mut self, ledger: &mut dyn Ledger, now: Timestamp) -> Result<(), StoreError> {
        let mut failed = None;
        self.paths.retain(|path| match inherit(path, ledger, now) {
            Ok(gone) => !gone,
            Err(error) if matches!(error.kind, StoreErrorKind::Damaged | StoreErrorKind::NewerSchema) => {
                // The next start will say so again, and refuse.
                tracing::error!(%error, "what a process left cannot be brought into the ledger");
                false
            }
            Err(error) => {
                failed = Some(error);
                true
            }
        });
        failed.map_or(Ok(()), Err)
    }
}

/// Whether the process behind this journal is gone. If so, the ledger has now what it left.
fn inherit(path: &Path, ledger: &mut dyn Ledger, now: Timestamp) -> Result<bool, StoreError> {
    let file = match File::options().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(failed("open", path, error)),
    };
    if !lock(&file, path)? {
        return Ok(false);
    }
    recover(&[(path.to_owned(), file)], ledger, now)?.log();
    Ok(true)
}

/// Brings in what stands in these journals, all of which are locked, and empties them. One that cannot be
/// read stops it all before anything is changed.
pub(super) fn recover(
    files: &[(PathBuf, File)],
    ledger: &mut dyn Ledger,
    now: Timestamp,
) -> Result<Recovered, StoreError> {
    let mut left = Vec::new();
    let mut recovered = Recovered::default();
    for (path, file) in files {
        let header = Header::read(file).map_err(|error| failed("read", path, error))?;
        let header = header.map_err(|(kind, why)| {
            let what = format!(
                "the journal {} {why}; it was left untouched. It holds calls that are not in the ledger: use the \
                 Tollgate that wrote it, or move it away to do without them",
                path.display()
            );
            StoreError::new(kind, what)
        })?;
        let Some(header) = header else { continue };
        let found = Image::of(file, header).read().map_err(|error| failed("read", path, error))?;
        recovered.other_boot |= header.boot != boot_id() && !found.is_empty();
        left.extend(found);
    }
    if !left.is_empty() {
        recovered.new = bring_in(left, &mut recovered, ledger, now)?;
    }
    for (path, file) in files {
        file.set_len(0).map_err(|error| failed("empty", path, error))?;
    }
    Ok(recovered)
}

/// Whether calls stand in this journal, or what cannot be read and may be such.
pub(super) fn holds_calls(file: &File) -> bool {
    match Header::read(file) {
        Ok(Ok(None)) => false,
        Ok(Ok(Some(header))) => Image::of(file, header).read().map_or(true, |found| !found.is_empty()),
        Ok(Err(_)) | Err(_) => true,
    }
}

fn bring_in(
    left: Vec<Option<Left>>,
    recovered: &mut Recovered,
    ledger: &mut dyn Ledger,
    now: Timestamp,
) -> Result<usize, StoreError> {
    let limits: HashMap<Mark, LimitKey> = ledger.limits()?.into_iter().map(|key| (Mark::of(&key), key)).collect();
    let whole = left.len();
    let mut entries: Vec<Entry> = left.into_iter().flatten().map(|left| entry(left, &limits, recovered, now)).collect();
    recovered.torn += whole - entries.len();
    for tag in entries.iter_mut().map(|entry| &mut entry.tag) {
        if let Some(key) = &tag.virtual_key {
            (tag.team, tag.customer) = ledger.owners(key)?;
        }
    }
    ledger.append(&entries)
}

/// The ledger's entry of what is left of an attempt, with its deltas for all limits that there still are.
fn entry(left: Left, limits: &HashMap<Mark, LimitKey>, recovered: &mut Recovered, now: Timestamp) -> Entry {
    let settled = left.settled.unwrap_or_else(|| {
        let (usage, spend) = left.bound;
        Settled { at: now.max(left.admitted_at), ending: Ending::Unresolved, usage, spend }
    });
    match left.settled {
        Some(settled) => {
            recovered.settled += 1;
            recovered.cost += settled.spend.cost;
        }
        None => {
            recovered.unresolved += 1;
            recovered.charged += settled.spend.cost;
            recovered.expected += left.held.cost;
        }
    }
    let deltas = left.shares.iter().filter_map(|(mark, start)| {
        let key = limits.get(mark)?;
        let amount = settled.spend.of(key.measure);
        Some(Delta { cell: Arc::new(Cell::new(key.clone(), *start, 0)), amount })
    });
    Entry {
        id: left.id,
        settled_at: settled.at,
        ending: settled.ending,
        usage: settled.usage,
        cost: settled.spend.cost,
        deltas: deltas.collect(),
        place: None,
        tag: CallTag {
            virtual_key: left.virtual_key.map(Into::into),
            team: None,
            customer: None,
            provider: left.provider.into(),
            model: left.model.into(),
            kind: left.kind,
            admitted_at: left.admitted_at,
            price: None,
        },
    }
}

/// A journal that nobody writes to.
struct Image<'a> {
    file: &'a File,
    slots: u32,
    /// As many as its version has.
    settled_words: usize,
}

type Slot = [u64; SLOT_WORDS];

impl<'a> Image<'a> {
    const fn of(file: &'a File, header: Header) -> Image<'a> {
        Image { file, slots: header.slots, settled_words: layout::settled_words(header.version) }
    }
    /// Every record, and `None` for each that is torn.
    fn read(&self) -> io::Result<Vec<Option<Left>>> {
        let mut found = Vec::new();
        let mut piece = vec![0; LOOK as usize * SLOT_WORDS * WORD];
        for first in (0..self.slots).step_by(LOOK as usize) {
            let count = LOOK.min(self.slots - first);
            let bytes = &mut piece[..count as usize * SLOT_WORDS * WORD];
            self.file.read_exact_at(bytes, at(first))?;
            for slot in bytes.chunks_exact(SLOT_WORDS * WORD) {
                if slot[STATE * WORD..][..WORD] != [0; WORD] {
                    found.push(self.record(&words(slot))?);
                }
            }
        }
        Ok(found)
    }

    fn slot(&self, number: u32) -> io::Result<Slot> {
        let mut bytes = [0; SLOT_WORDS * WORD];
        self.file.read_exact_at(&mut bytes, at(number))?;
        Ok(words(&bytes))
    }

    fn record(&self, first: &Slot) -> io::Result<Option<Left>> {
        let mut eye =
            Eye { image: self, slot: *first, at: self.record_at(), check: Check::START, turns: 0, fault: None };
        let read = layout::read(&mut || eye.next());
        let check = eye.check.with(eye.slot[LINK]).sum();
        if let Some(fault) = eye.fault {
            return Err(fault);
        }
        let whole = eye.slot[LINK] == 0 && open_state(check) == first[STATE];
        Ok(read.filter(|_| whole).map(|left| Left { settled: self.settled(first, check), ..left }))
    }

    /// Where a record begins in its first slot.
    fn record_at(&self) -> usize {
        AFTER_LINK + self.settled_words
    }

    /// How the attempt ended, if that was written to its end.
    fn settled(&self, first: &Slot, check: u64) -> Option<Settled> {
        let written = &first[AFTER_LINK..self.record_at()];
        let check = written.iter().fold(Check::seeded(check), |check, word| check.with(*word)).sum();
        let mut words = [0; SETTLED_WORDS];
        words.iter_mut().zip(written).for_each(|(word, written)| *word = *written);
        layout::read_settled(&words).filter(|_| first[SETTLED] == settled_state(check))
    }
}

/// Reads a record over as many slots as it has.
struct Eye<'a> {
    image: &'a Image<'a>,
    slot: Slot,
    at: usize,
    check: Check,
    turns: u32,
    fault: Option<io::Error>,
}

impl Eye<'_> {
    fn next(&mut self) -> Option<u64> {
        if self.at == SLOT_WORDS {
            let link = self.slot[LINK];
            let next = previous(link).filter(|next| *next < self.image.slots)?;
            // A chain that leads back into itself ends here.
            self.turns += 1;
            if self.turns > self.image.slots {
                return None;
            }
            self.check = self.check.with(link);
            match self.image.slot(next) {
                Ok(slot) => (self.slot, self.at) = (slot, AFTER_LINK),
                Err(error) => {
                    self.fault = Some(error);
                    return None;
                }
            }
        }
        let word = self.slot[self.at];
        self.at += 1;
        self.check = self.check.with(word);
        Some(word)
    }
}

fn at(slot: u32) -> u64 {
    (HEADER_WORDS * WORD) as u64 + u64::from(slot) * (SLOT_WORDS * WORD) as u64
}

fn words(bytes: &[u8]) -> Slot {
    let mut slot = [0; SLOT_WORDS];
    for (word, bytes) in slot.iter_mut().zip(bytes.chunks_exact(WORD)) {
        *word = u64::from_ne_bytes(bytes.try_into().expect("a word is eight bytes"));
    }
    slot
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::governance::request::RequestKind;
    use crate::governance::usage::Usage;
    use crate::state::hold::Spend;
    use crate::state::journal::Open;
    use crate::state::outbox::ChargeId;
    use crate::store::tests::TempDir;

    /// What version 1 wrote: the same words, but the settlement ends with word 15 and the record begins there.
    #[test]
    fn journals_of_the_first_version_are_read() {
        let tag = CallTag {
            virtual_key: Some("a key".into()),
            team: None,
            customer: None,
            provider: "openai".into(),
            model: "gpt-4o".into(),
            kind: RequestKind::Responses,
            admitted_at: Timestamp::from_millis(5),
            price: None,
        };
        let spend = |cost, tokens| Spend { cost: Nanos::new(cost), tokens };
        let bound = (Usage::estimated(700, 30), spend(9_000, 730));
        let open = Open { id: ChargeId(1 << 77 | 3), tag: &tag, held: spend(8_000, 600), bound, shares: &[] };
        let usage = Usage { input: 3, cache_write_long: 4, audio_output: 5, ..Usage::default() };
        let settled = Settled { at: Timestamp::from_millis(6), ending: Ending::Completed, usage, spend: spend(70, 12) };
        let mut slot: Slot = [0; SLOT_WORDS];
        let (mut at, mut check) = (16, Check::START);
        layout::write(&open, &mut |word| {
            (slot[at], check) = (word, check.with(word));
            at += 1;
        });
        let check = check.with(slot[LINK]).sum();
        slot[STATE] = open_state(check);
        let words = &layout::write_settled(&settled)[..13];
        slot[AFTER_LINK..16].copy_from_slice(words);
        slot[SETTLED] = settled_state(words.iter().fold(Check::seeded(check), |check, word| check.with(*word)).sum());

        let dir = TempDir::new();
        let path = dir.path().join("journal");
        let file = File::options().create_new(true).read(true).write(true).open(&path).unwrap();
        file.set_len(super::super::bytes(2)).unwrap();
        file.write_all_at(&Header { version: 1, ..Header::new(2, 7) }.bytes(), 0).unwrap();
        let bytes: Vec<u8> = slot.iter().flat_map(|word| word.to_ne_bytes()).collect();
        file.write_all_at(&bytes, self::at(1)).unwrap();
        let header = Header::read(&file).unwrap().unwrap().unwrap();
        let settled_words = layout::settled_words(header.version);
        let mut left = Image { file: &file, slots: header.slots, settled_words }.read().unwrap();
        let left = left.pop().unwrap().unwrap();
        assert_eq!((left.id, &*left.model, left.bound, left.settled), (open.id, "gpt-4o", bound, Some(settled)));
    }
}
