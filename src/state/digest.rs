//! The keyed digest under which a virtual key is found.

use crate::governance::view::Digest;
use ring::hmac;
use std::fmt;

/// Turns a presented credential into its digest. Without the key, a stolen database tells nothing
/// about the virtual keys in it.
#[derive(Clone)]
pub struct KeyHasher(hmac::Key);

impl KeyHasher {
    pub fn new(secret: &[u8; 32]) -> KeyHasher {
        KeyHasher(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    pub fn digest(&self, credential: &[u8]) -> Digest {
        let mut digest = Digest::default();
        digest.copy_from_slice(hmac::sign(&self.0, credential).as_ref());
        digest
    }
}

impl fmt::Debug for KeyHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHasher")
    }
}
