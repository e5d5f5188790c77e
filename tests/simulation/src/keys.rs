//! The keys of one machine's manager: they encrypt its disk, may be changed while it runs, and are forgotten once they are
//! not needed. A stand-in for [`mesh_raft::Cipher`]'s real one, without its files and its cost.

use std::{
    io,
    sync::{Arc, Mutex},
};

use mesh_raft::Cipher;

use crate::world::lock;

const TAG: usize = 16;

/// The keys that open, the last of which seals. Clones are the same ones.
#[derive(Clone)]
pub struct Keys(Arc<Mutex<Vec<u64>>>);

impl Keys {
    /// One key.
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(vec![0])))
    }

    /// Seals with another key from now on.
    pub fn change(&self) {
        let mut keys = lock(&self.0);
        let next = keys.last().map_or(0, |key| key + 1);
        keys.push(next);
    }

    /// Nothing is sealed by an earlier key any more, as after a start.
    pub fn forget_earlier(&self) {
        let mut keys = lock(&self.0);
        let earlier = keys.len().saturating_sub(1);
        keys.drain(..earlier);
    }
}

impl Cipher for Keys {
    fn seal(&self, what: &[u8], plain: &[u8]) -> io::Result<Vec<u8>> {
        let key = lock(&self.0).last().copied().ok_or_else(|| io::Error::other("no key"))?;
        let mut sealed = key.to_be_bytes().to_vec();
        let body = scramble(key, what, plain);
        sealed.extend_from_slice(&tag(key, what, &body));
        sealed.extend_from_slice(&body);
        Ok(sealed)
    }

    fn open(&self, what: &[u8], sealed: &[u8]) -> io::Result<Vec<u8>> {
        let damaged = || io::Error::other("not sealed by this manager, or damaged");
        let (key, rest) = sealed.split_first_chunk().ok_or_else(damaged)?;
        let key = u64::from_be_bytes(*key);
        let (found, body) = rest.split_at_checked(TAG).ok_or_else(damaged)?;
        if !lock(&self.0).contains(&key) || found != tag(key, what, body) {
            return Err(damaged());
        }
        Ok(scramble(key, what, body))
    }

    fn is_current(&self, sealed: &[u8]) -> bool {
        let key = sealed.first_chunk().map(|key| u64::from_be_bytes(*key));
        key.is_some() && lock(&self.0).last().copied() == key
    }
}

fn scramble(key: u64, what: &[u8], text: &[u8]) -> Vec<u8> {
    let mut stream = blake3::Hasher::new().update(&key.to_be_bytes()).update(what).finalize_xof();
    let mut out = vec![0; text.len()];
    stream.fill(&mut out);
    out.iter_mut().zip(text).for_each(|(out, byte)| *out ^= byte);
    out
}

fn tag(key: u64, what: &[u8], body: &[u8]) -> [u8; TAG] {
    let hash =
        blake3::Hasher::new().update(b"tag").update(&key.to_be_bytes()).update(what).update(body).finalize();
    let mut tag = [0; TAG];
    tag.copy_from_slice(&hash.as_bytes()[..TAG]);
    tag
}
