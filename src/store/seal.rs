//! Secrets at rest: sealed with AES-256-GCM under a key derived from the operator's text.
//!
//! One slow derivation (PBKDF2) makes a master secret; HKDF makes from it one key for each purpose,
//! so that the sealing key, the key of the digests and the check value tell nothing of each other.
//! A sealed value is bound to its context and cannot be moved to another row.

use crate::governance::secret::Secret;
use crate::state::digest::KeyHasher;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf;
use ring::pbkdf2;
use ring::rand::{SecureRandom, SystemRandom};
use std::fmt;
use std::num::NonZeroU32;
use zeroize::Zeroizing;

/// Shorter texts are refused.
pub const ENCRYPTION_KEY_CHARS_MIN: usize = 16;
/// The first byte of a sealed value: AES-256-GCM, a nonce of 96 bits, then text and tag.
const FORMAT: u8 = 1;
/// Rounds for a new database; it remembers its own. Tests need no slow key.
pub(super) const ROUNDS: NonZeroU32 = NonZeroU32::new(if cfg!(test) { 1_000 } else { 600_000 }).expect("not zero");

/// Seals and opens secrets of one database.
pub struct Sealer {
    key: LessSafeKey,
    hasher: KeyHasher,
    check: [u8; 32],
    random: SystemRandom,
}

/// Why a text cannot be an encryption key, or a value not be opened. Neither says what was in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    #[error("the encryption key is shorter than {ENCRYPTION_KEY_CHARS_MIN} characters")]
    KeyTooShort,
    #[error("the sealed value is damaged, or belongs to another row or another encryption key")]
    Damaged,
    #[error("the system's random source does not work")]
    NoRandom,
}

impl Sealer {
    /// Derives the keys. Takes a good part of a second, on purpose.
    pub fn derive(text: &Secret, salt: &[u8], rounds: NonZeroU32) -> Result<Sealer, SealError> {
        if text.expose().chars().count() < ENCRYPTION_KEY_CHARS_MIN {
            return Err(SealError::KeyTooShort);
        }
        let mut master = Zeroizing::new([0; 32]);
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, salt, text.expose().as_bytes(), master.as_mut());
        let master = hkdf::Salt::new(hkdf::HKDF_SHA256, b"tollgate").extract(master.as_ref());
        let sealing = UnboundKey::new(&AES_256_GCM, expand(&master, b"seal v1").as_ref());
        Ok(Sealer {
            key: LessSafeKey::new(sealing.expect("the key has the length that AES-256 takes")),
            hasher: KeyHasher::new(&expand(&master, b"virtual key digest v1")),
            check: *expand(&master, b"check v1"),
            random: SystemRandom::new(),
        })
    }

    /// What digests of virtual keys are made with.
    pub fn hasher(&self) -> &KeyHasher {
        &self.hasher
    }

    /// A value that only this key gives. It is kept in the database to recognise the key.
    pub fn check(&self) -> &[u8; 32] {
        &self.check
    }

    /// Seals `secret` for one place, which `context` names.
    pub fn seal(&self, context: &str, secret: &Secret) -> Result<Vec<u8>, SealError> {
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).map_err(|_| SealError::NoRandom)?;
        let mut text = Zeroizing::new(secret.expose().as_bytes().to_vec());
        let tag = self
            .key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(context), &mut text)
            .expect("a secret is shorter than the 64 GiB that AES-GCM takes");
        Ok([&[FORMAT], &nonce[..], &text, tag.as_ref()].concat())
    }

    /// Opens what `seal` made for the same context.
    pub fn open(&self, context: &str, sealed: &[u8]) -> Result<Secret, SealError> {
        let Some((&FORMAT, rest)) = sealed.split_first() else { return Err(SealError::Damaged) };
        let (nonce, text) = rest.split_first_chunk::<NONCE_LEN>().ok_or(SealError::Damaged)?;
        let mut text = Zeroizing::new(text.to_vec());
        let opened = self.key.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(context), &mut text);
        let opened = opened.map_err(|_| SealError::Damaged)?;
        std::str::from_utf8(opened).map(Secret::new).map_err(|_| SealError::Damaged)
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer")
    }
}

fn expand(master: &hkdf::Prk, purpose: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut key = Zeroizing::new([0; 32]);
    master
        .expand(&[purpose], hkdf::HKDF_SHA256)
        .and_then(|okm| okm.fill(key.as_mut()))
        .expect("a key of one hash's length is always to be had");
    key
}

/// Bytes that nobody can guess.
pub(super) fn random<const N: usize>() -> Result<[u8; N], SealError> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| SealError::NoRandom)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealer(text: &str) -> Sealer {
        Sealer::derive(&Secret::new(text), b"salt", ROUNDS).unwrap()
    }

    #[test]
    fn only_the_same_key_and_place_open_a_value() {
        let (ours, theirs) = (sealer("a text of 16 chars"), sealer("another text of 16"));
        let sealed = ours.seal("row 1", &Secret::new("sk-bf-1")).unwrap();
        assert_eq!(ours.open("row 1", &sealed).unwrap().expose(), "sk-bf-1");
        assert_eq!(ours.open("row 2", &sealed), Err(SealError::Damaged));
        assert_eq!(theirs.open("row 1", &sealed), Err(SealError::Damaged));
        for cut in 0..sealed.len() {
            assert_eq!(ours.open("row 1", &sealed[..cut]), Err(SealError::Damaged));
            let mut bent = sealed.clone();
            bent[cut] ^= 1;
            assert_eq!(ours.open("row 1", &bent), Err(SealError::Damaged));
        }
        assert_ne!(ours.seal("row 1", &Secret::new("sk-bf-1")).unwrap(), sealed);
        assert_ne!(ours.check(), theirs.check());
        assert_ne!(ours.hasher().digest(b"x"), theirs.hasher().digest(b"x"));
    }

    #[test]
    fn a_short_text_is_no_key() {
        let derived = Sealer::derive(&Secret::new("fifteen letters"), b"salt", ROUNDS);
        assert_eq!(derived.err(), Some(SealError::KeyTooShort));
    }
}
