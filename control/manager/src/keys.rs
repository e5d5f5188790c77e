//! The manager's keys as what encrypts its replicated state.

use std::{io, sync::Arc};

use mesh_ca::Keyring;
use mesh_raft::Cipher;

struct Ring(Arc<Keyring>);

impl Cipher for Ring {
    fn seal(&self, what: &[u8], plain: &[u8]) -> io::Result<Vec<u8>> {
        self.0.seal(what, plain).map_err(io::Error::other)
    }

    fn open(&self, what: &[u8], sealed: &[u8]) -> io::Result<Vec<u8>> {
        self.0.open(what, sealed).map_err(io::Error::other)
    }

    fn is_current(&self, sealed: &[u8]) -> bool {
        self.0.is_current(sealed)
    }
}

/// The ring as Raft's cipher.
pub(crate) fn cipher(keyring: &Arc<Keyring>) -> Arc<dyn Cipher> {
    Arc::new(Ring(keyring.clone()))
}
