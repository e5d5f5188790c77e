//! Sealing with AES-256-GCM (NIST SP 800-38D).
//!
//! Sealed bytes are: wire version (1), key id (4: the first bytes of SHA-256 over the key), nonce (12, random),
//! ciphertext, tag (16). Version, key id, cluster id and a context are authenticated beside. A random nonce is good
//! for 2^32 packets per key: keys are to be rotated well before.

use std::collections::BTreeMap;

use aes_gcm::{
    Aes256Gcm, Nonce, Tag,
    aead::{Aead, AeadInPlace, KeyInit, Payload},
};
use mesh_types::ClusterId;
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::KeyRing;

const VERSION: u8 = 1;
const KEY_ID: usize = 4;
const NONCE: usize = 12;
const HEADER: usize = 1 + KEY_ID + NONCE;
const TAG: usize = 16;
/// Version, key id and cluster, and at most 32 bytes of context.
const AAD: usize = 1 + KEY_ID + 16 + 32;
/// Bytes that sealing adds.
pub(crate) const OVERHEAD: usize = HEADER + TAG;

/// Why sealed bytes are refused. Nothing changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SealError {
    /// Too short, or of another wire version.
    #[error("not a sealed gossip packet")]
    Malformed,
    /// Sealed with a key that is not in the ring.
    #[error("sealed with an unknown key")]
    UnknownKey,
    /// The seal is broken, or made for another cluster or context.
    #[error("the seal is broken")]
    Forged,
    /// The cipher refused to seal.
    #[error("cannot seal")]
    Cipher,
}

/// Seals and opens for one cluster.
pub struct Sealer {
    cluster: [u8; 16],
    current: [u8; KEY_ID],
    ciphers: BTreeMap<[u8; KEY_ID], Aes256Gcm>,
}

impl Sealer {
    /// Seals with the first key of `keys`, opens with any.
    pub fn new(cluster: ClusterId, keys: &KeyRing) -> Self {
        let mut ciphers = BTreeMap::new();
        let mut current = None;
        for key in keys.keys() {
            let digest = Sha256::digest(key);
            let mut id = [0; KEY_ID];
            id.copy_from_slice(&digest[..KEY_ID]);
            current.get_or_insert(id);
            ciphers.insert(id, Aes256Gcm::new(key.into()));
        }
        Self { cluster: cluster.as_u128().to_be_bytes(), current: current.unwrap_or_default(), ciphers }
    }

    /// The same cluster with other keys.
    pub fn with_keys(&self, keys: &KeyRing) -> Self {
        Self::new(ClusterId::from_u128(u128::from_be_bytes(self.cluster)), keys)
    }

    /// Seals `plain` for `context`, with a nonce from the operating system's randomness.
    pub fn seal(&self, plain: &[u8], context: &[u8]) -> Result<Vec<u8>, SealError> {
        let cipher = self.ciphers.get(&self.current).ok_or(SealError::UnknownKey)?;
        let nonce: [u8; NONCE] = rand::random();
        let mut room = [0; AAD];
        let aad = self.aad(&self.current, context, &mut room)?;
        let sealed = cipher
            .encrypt(Nonce::from_slice(&nonce), Payload { msg: plain, aad })
            .map_err(|_| SealError::Cipher)?;
        let mut out = Vec::with_capacity(HEADER + sealed.len());
        out.push(VERSION);
        out.extend_from_slice(&self.current);
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&sealed);
        Ok(out)
    }

    /// Opens what [`Sealer::seal`] sealed for the same cluster and context with any key of the ring.
    pub fn open(&self, sealed: &[u8], context: &[u8]) -> Result<Vec<u8>, SealError> {
        // What is no packet of a holder of the key is not even copied.
        self.cipher(sealed)?;
        self.open_in_place(&mut sealed.to_vec(), context).map(|plain| plain.to_vec())
    }

    /// The same where it is. Nothing is allocated for it; when it is refused, nothing is changed.
    pub fn open_in_place<'a>(&self, sealed: &'a mut [u8], context: &[u8]) -> Result<&'a [u8], SealError> {
        let (id, cipher) = self.cipher(sealed)?;
        let mut room = [0; AAD];
        let aad = self.aad(&id, context, &mut room)?;
        let (header, body) = sealed.split_at_mut(HEADER);
        let (body, tag) = body.split_at_mut(body.len() - TAG);
        let (nonce, tag) = (Nonce::from_slice(&header[1 + KEY_ID..]), Tag::from_slice(tag));
        cipher.decrypt_in_place_detached(nonce, aad, body, tag).map_err(|_| SealError::Forged)?;
        Ok(body)
    }

    /// Whether the beginning of sealed bytes, at least [`OVERHEAD`] of them, names a key of the ring.
    pub(crate) fn knows(&self, beginning: &[u8]) -> Result<(), SealError> {
        self.cipher(beginning).map(drop)
    }

    fn cipher(&self, sealed: &[u8]) -> Result<([u8; KEY_ID], &Aes256Gcm), SealError> {
        if sealed.len() < OVERHEAD || sealed[0] != VERSION {
            return Err(SealError::Malformed);
        }
        let mut id = [0; KEY_ID];
        id.copy_from_slice(&sealed[1..=KEY_ID]);
        self.ciphers.get(&id).map(|cipher| (id, cipher)).ok_or(SealError::UnknownKey)
    }

    /// What is authenticated beside, in `room`.
    fn aad<'a>(
        &self,
        id: &[u8; KEY_ID],
        context: &[u8],
        room: &'a mut [u8; AAD],
    ) -> Result<&'a [u8], SealError> {
        let mut len = 0;
        for part in [&[VERSION][..], id, &self.cluster, context] {
            let place = room.get_mut(len..len + part.len()).ok_or(SealError::Cipher)?;
            place.copy_from_slice(part);
            len += part.len();
        }
        Ok(&room[..len])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sealer(cluster: u128, keys: &[u8]) -> Sealer {
        let ring = KeyRing::new(keys.iter().map(|k| [*k; 32]).collect()).unwrap();
        Sealer::new(ClusterId::from_u128(cluster), &ring)
    }

    #[test]
    fn refuses_what_is_not_ours() {
        let sealed = sealer(1, &[1]).seal(b"hello", b"u").unwrap();
        assert_eq!(sealer(1, &[2, 1]).open(&sealed, b"u").unwrap(), b"hello");
        assert_eq!(sealer(1, &[2]).open(&sealed, b"u"), Err(SealError::UnknownKey));
        assert_eq!(sealer(2, &[1]).open(&sealed, b"u"), Err(SealError::Forged));
        assert_eq!(sealer(1, &[1]).open(&sealed, b"t"), Err(SealError::Forged));
        assert_eq!(sealer(1, &[1]).open(&sealed[..20], b"u"), Err(SealError::Malformed));
    }

    proptest! {
        #[test]
        fn round_trips(plain: Vec<u8>) {
            let s = sealer(1, &[1]);
            let sealed = s.seal(&plain, b"u").unwrap();
            prop_assert_eq!(sealed.len(), plain.len() + OVERHEAD);
            prop_assert_eq!(s.open(&sealed, b"u").unwrap(), plain);
        }

        #[test]
        fn a_changed_bit_is_noticed(plain: Vec<u8>, at: prop::sample::Index, bit in 0u8..8) {
            let s = sealer(1, &[1]);
            let mut sealed = s.seal(&plain, b"u").unwrap();
            let index = at.index(sealed.len());
            sealed[index] ^= 1 << bit;
            prop_assert!(s.open(&sealed, b"u").is_err());
        }

        #[test]
        fn noise_is_refused(noise: Vec<u8>) {
            prop_assert!(sealer(1, &[1]).open(&noise, b"u").is_err());
        }
    }
}
