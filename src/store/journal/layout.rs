//! What is written where: the header of the file, and a record in a slot or in a chain of them.
//!
//! The file is words of 64 bits in the machine's own order. After the header come slots of 64 words:
//!
//! | words | the first slot of a record | a slot that continues one |
//! |---|---|---|
//! | 0 | open: a mark and the checksum of the record; else zero | zero |
//! | 1 | settled: a mark and the checksum of the settlement; else zero | |
//! | 2 | the next slot of the record, counted from one; else zero | the same |
//! | 3 to 21 | the settlement | record |
//! | 22 to 63 | record | record |
//!
//! Words 0 and 1 are written last, each in one store: a record is there whole or not at all, and what a power
//! cut tore is known by its checksum. A change of this layout raises `VERSION`. In version 1 the settlement
//! ended with word 15; what it did not have reads as zero.

use crate::governance::money::Nanos;
use crate::governance::request::RequestKind;
use crate::governance::time::Timestamp;
use crate::governance::usage::{Pictures, Quality, SearchContext, ServiceTier, Source, Usage};
use crate::state::hold::Spend;
use crate::state::journal::{Mark, Open, Settled};
use crate::state::outbox::{CallTag, ChargeId, Ending};

pub(super) const MAGIC: u64 = u64::from_le_bytes(*b"TOLLJRNL");
/// Codes of kinds, endings and tiers are positions in their lists, and part of the layout.
pub(super) const VERSION: u64 = 2;

pub(super) const WORD: usize = size_of::<u64>();
/// A page, so that slots lie within pages.
pub(super) const HEADER_WORDS: usize = 512;
pub(super) const SLOT_WORDS: usize = 64;

pub(super) const STATE: usize = 0;
pub(super) const SETTLED: usize = 1;
pub(super) const LINK: usize = 2;
/// Where a settlement stands, and what continues a record.
pub(super) const AFTER_LINK: usize = 3;
pub(super) const SETTLED_WORDS: usize = 19;
pub(super) const RECORD: usize = AFTER_LINK + SETTLED_WORDS;

/// How many words a settlement has in a journal of this version.
pub(super) const fn settled_words(version: u64) -> usize {
    if version < 2 { 13 } else { SETTLED_WORDS }
}

const OPEN_MARK: u64 = 0xA1 << 56;
const SETTLED_MARK: u64 = 0xB2 << 56;

/// Longer texts are cut: of names that are declared none is as long.
const TEXT_MAX: usize = 2_048;
const NO_TEXT: u64 = 0xFFFF;

const TIERS: [ServiceTier; 4] = [ServiceTier::Standard, ServiceTier::Batch, ServiceTier::Flex, ServiceTier::Priority];

/// The state of a slot with a record of this checksum.
pub(super) const fn open_state(check: u64) -> u64 {
    OPEN_MARK | check >> 8
}

pub(super) const fn settled_state(check: u64) -> u64 {
    SETTLED_MARK | check >> 8
}

/// A checksum on its way. It is against accidents, not against people: two lanes that take turns, so that no word
/// waits for the one before it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Check(u64, u64);

impl Check {
    pub(super) const START: Check = Check::seeded(0x746f_6c6c_6761_7465);

    /// One that says something only together with another one's sum.
    pub(super) const fn seeded(seed: u64) -> Check {
        Check(seed, !seed)
    }

    pub(super) const fn with(self, word: u64) -> Check {
        Check(self.1, step(self.0, word))
    }

    pub(super) const fn sum(self) -> u64 {
        step(step(self.0, self.1), self.1 >> 32)
    }
}

const fn step(lane: u64, word: u64) -> u64 {
    (lane ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29)
}

/// What is left of an attempt whose process is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Left {
    pub(super) id: ChargeId,
    pub(super) virtual_key: Option<String>,
    pub(super) provider: String,
    pub(super) model: String,
    pub(super) kind: RequestKind,
    pub(super) admitted_at: Timestamp,
    pub(super) held: Spend,
    pub(super) bound: (Usage, Spend),
    /// The limits and where their windows began.
    pub(super) shares: Vec<(Mark, Timestamp)>,
    pub(super) settled: Option<Settled>,
}

/// Writes a record, word by word.
pub(super) fn write(open: &Open<'_>, put: &mut impl FnMut(u64)) {
    // A key's team and customer are looked up again: they hardly ever change, and would need a second slot.
    let CallTag { virtual_key, provider, model, kind, admitted_at, .. } = open.tag;
    let [virtual_key, provider, model] = [virtual_key.as_deref().unwrap_or(""), provider, model].map(cut);
    let length = |text: &str| text.len() as u64;
    let key_length = if open.tag.virtual_key.is_some() { length(virtual_key) } else { NO_TEXT };
    let [high, low] = halves(open.id);
    put(high);
    put(low);
    put(word(admitted_at.millis()));
    put(*kind as u64 | key_length << 16 | length(provider) << 32 | length(model) << 48);
    put(open.shares.len() as u64);
    let (usage, most) = open.bound;
    put(usage.input);
    put(usage.output);
    for Spend { cost, tokens } in [most, open.held] {
        put(word(cost.get()));
        put(word(tokens));
    }
    for text in [virtual_key, provider, model] {
        let (words, rest) = text.as_bytes().as_chunks::<WORD>();
        words.iter().for_each(|bytes| put(u64::from_le_bytes(*bytes)));
        if !rest.is_empty() {
            let mut last = [0; WORD];
            last[..rest.len()].copy_from_slice(rest);
            put(u64::from_le_bytes(last));
        }
    }
    for share in open.shares {
        let Mark([first, second]) = share.cell.mark();
        put(first);
        put(second);
        put(word(share.cell.start().millis()));
    }
}

/// Reads a record. `None`: there are no more words, or they make no sense.
pub(super) fn read(next: &mut impl FnMut() -> Option<u64>) -> Option<Left> {
    let id = whole([next()?, next()?]);
    let admitted_at = instant(next()?);
    let packed = next()?;
    let part = |at: u32| packed >> at & 0xFFFF;
    let kind = *RequestKind::ALL.get(position(part(0))?)?;
    let shares = next()?;
    let usage = Usage::estimated(next()?, next()?);
    let mut spend = || Some(Spend { cost: Nanos::new(signed(next()?)), tokens: signed(next()?) });
    let (most, held) = (spend()?, spend()?);
    let mut text = |length: u64| {
        let length = position(length)?;
        let words = (0..length.div_ceil(WORD)).map(|_| next().map(u64::to_le_bytes));
        let mut bytes = words.collect::<Option<Vec<_>>>()?.concat();
        bytes.truncate(length);
        String::from_utf8(bytes).ok()
    };
    let virtual_key = if part(16) == NO_TEXT { None } else { Some(text(part(16))?) };
    let (provider, model) = (text(part(32))?, text(part(48))?);
    let share = |_| Some((Mark([next()?, next()?]), instant(next()?)));
    let shares = (0..shares).map(share).collect::<Option<Vec<_>>>()?;
    let bound = (usage, most);
    Some(Left { id, virtual_key, provider, model, kind, admitted_at, held, bound, shares, settled: None })
}

pub(super) fn write_settled(settled: &Settled) -> [u64; SETTLED_WORDS] {
    let Settled { at, ending, usage, spend } = settled;
    let codes = *ending as u64
        | (usage.tier as u64) << 16
        | u64::from(usage.source == Source::Estimated) << 32
        | (usage.search_context as u64) << 33
        | u64::from(usage.reported_cost.is_some()) << 35
        | (usage.input_pictures.quality as u64) << 36
        | (usage.output_pictures.quality as u64) << 40
        | u64::from(usage.sessions) << 48;
    [
        word(at.millis()),
        codes,
        word(spend.cost.get()),
        word(spend.tokens),
        usage.input,
        usage.cache_read,
        usage.cache_write,
        usage.cache_write_long,
        usage.audio_input,
        usage.image_input,
        usage.output,
        usage.reasoning,
        usage.audio_output,
        usage.image_output,
        pair(usage.characters, usage.input_millis),
        pair(usage.output_millis, usage.searches),
        pictures(&usage.input_pictures),
        pictures(&usage.output_pictures),
        word(usage.reported_cost.unwrap_or_default().get()),
    ]
}

pub(super) fn read_settled(words: &[u64; SETTLED_WORDS]) -> Option<Settled> {
    let [at, codes, cost, tokens, input, cache_read, cache_write, cache_write_long, rest @ ..] = *words;
    let [audio_input, image_input, output, reasoning, audio_output, image_output, rest @ ..] = rest;
    let [first_pair, second_pair, input_pictures, output_pictures, reported] = rest;
    let code = |at: u32, bits: u32| position(codes >> at & ((1 << bits) - 1));
    let ending = *Ending::ALL.get(code(0, 16)?)?;
    let ((characters, input_millis), (output_millis, searches)) = (apart(first_pair), apart(second_pair));
    let usage = Usage {
        input,
        cache_read,
        cache_write,
        cache_write_long,
        audio_input,
        image_input,
        output,
        reasoning,
        audio_output,
        image_output,
        characters,
        input_millis,
        output_millis,
        input_pictures: read_pictures(input_pictures, *Quality::ALL.get(code(36, 4)?)?),
        output_pictures: read_pictures(output_pictures, *Quality::ALL.get(code(40, 4)?)?),
        searches,
        search_context: *SearchContext::ALL.get(code(33, 2)?)?,
        sessions: u16::try_from(codes >> 48).ok()?,
        reported_cost: (codes >> 35 & 1 == 1).then_some(Nanos::new(signed(reported))),
        tier: *TIERS.get(code(16, 16)?)?,
        source: if codes >> 32 & 1 == 0 { Source::Exact } else { Source::Estimated },
    };
    let spend = Spend { cost: Nanos::new(signed(cost)), tokens: signed(tokens) };
    Some(Settled { at: instant(at), ending, usage, spend })
}

/// Two numbers in one word, and how they are told apart.
const fn pair(low: u32, high: u32) -> u64 {
    low as u64 | (high as u64) << 32
}

const fn apart(word: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = word.to_le_bytes();
    (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]))
}

/// All but their quality, which is among the codes.
const fn pictures(pictures: &Pictures) -> u64 {
    pair(pictures.count, pictures.width as u32 | (pictures.height as u32) << 16)
}

const fn read_pictures(word: u64, quality: Quality) -> Pictures {
    let [a, b, c, d, e, f, g, h] = word.to_le_bytes();
    let (width, height) = (u16::from_le_bytes([e, f]), u16::from_le_bytes([g, h]));
    Pictures { count: u32::from_le_bytes([a, b, c, d]), width, height, quality }
}

fn cut(text: &str) -> &str {
    let end = (0..=text.len().min(TEXT_MAX)).rev().find(|at| text.is_char_boundary(*at));
    &text[..end.unwrap_or(0)]
}

fn position(code: u64) -> Option<usize> {
    usize::try_from(code).ok()
}

/// The same bits.
const fn word(number: i64) -> u64 {
    u64::from_ne_bytes(number.to_ne_bytes())
}

const fn signed(word: u64) -> i64 {
    i64::from_ne_bytes(word.to_ne_bytes())
}

fn instant(word: u64) -> Timestamp {
    Timestamp::from_millis(signed(word))
}

fn halves(ChargeId(id): ChargeId) -> [u64; 2] {
    let bytes = id.to_be_bytes();
    let (halves, _) = bytes.as_chunks::<WORD>();
    [u64::from_be_bytes(halves[0]), u64::from_be_bytes(halves[1])]
}

fn whole([high, low]: [u64; 2]) -> ChargeId {
    ChargeId(u128::from(high) << 64 | u128::from(low))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_stay_what_they_are() {
        // A journal is read by the next version, too: a new order would need a new `VERSION`.
        let endings = Ending::ALL.map(Ending::as_str).join(" ");
        assert_eq!(endings, "completed upstream_failed upstream_broke timed_out client_gone abandoned unresolved");
        for (code, ending) in Ending::ALL.iter().enumerate() {
            assert_eq!(*ending as usize, code);
        }
        for (code, kind) in RequestKind::ALL.iter().enumerate() {
            assert_eq!(*kind as usize, code);
        }
        for (code, tier) in TIERS.iter().enumerate() {
            assert_eq!(*tier as usize, code);
        }
        for (code, quality) in Quality::ALL.iter().enumerate() {
            assert_eq!(*quality as usize, code);
        }
        for (code, context) in SearchContext::ALL.iter().enumerate() {
            assert_eq!(*context as usize, code);
        }
        let kinds = RequestKind::ALL.map(RequestKind::as_str);
        assert_eq!(kinds[..5], ["chat_completion", "text_completion", "responses", "embedding", "list_models"]);
        assert_eq!(kinds.len(), 24);
    }

    #[test]
    fn a_settlement_reads_back_whole() {
        let usage = Usage {
            input: 1,
            cache_read: 2,
            cache_write: 3,
            cache_write_long: 4,
            audio_input: 5,
            image_input: 6,
            output: 7,
            reasoning: 8,
            audio_output: 9,
            image_output: u64::MAX,
            characters: u32::MAX,
            input_millis: 12,
            output_millis: 13,
            input_pictures: Pictures { count: 14, width: 15, height: 16, quality: Quality::Low },
            output_pictures: Pictures { count: u32::MAX, width: u16::MAX, height: u16::MAX, quality: Quality::Hd },
            searches: 18,
            search_context: SearchContext::Low,
            sessions: u16::MAX,
            reported_cost: Some(Nanos::new(19)),
            tier: ServiceTier::Priority,
            source: Source::Estimated,
        };
        let check = |usage: Usage| {
            let spend = Spend { cost: Nanos::new(20), tokens: 21 };
            let settled = Settled { at: Timestamp::from_millis(22), ending: Ending::ClientGone, usage, spend };
            let words = write_settled(&settled);
            assert_eq!(read_settled(&words), Some(settled));
            words
        };
        check(usage);
        check(Usage { reported_cost: Some(Nanos::ZERO), source: Source::Exact, ..Usage::default() });
        // What version 1 wrote is the beginning of what is written now.
        let words = check(Usage { input: 1, audio_output: 2, source: Source::Estimated, ..Usage::default() });
        assert!(words[settled_words(1)..].iter().all(|word| *word == 0));
        assert_eq!(words[1], Ending::ClientGone as u64 | 1 << 32);
    }
}
