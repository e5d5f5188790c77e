//! The bytes of a state: a format byte, a checksum, the body.

use thiserror::Error;

use crate::State;

/// The format written and read; raised when a field changes. Once there are releases, the one before is read too.
const FORMAT: u8 = 4;
/// Bytes of the checksum: the start of the body's BLAKE3 hash, against corruption, not against forgery.
const CHECKSUM: usize = 8;

/// Why bytes are no state. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// Too short to be one.
    #[error("the state is cut short: it has {0} bytes")]
    Short(usize),
    /// Written by a later version of meshd.
    #[error("the state has format {found}, this meshd reads {FORMAT}; use the newer meshd that wrote it")]
    Newer {
        /// The format found.
        found: u8,
    },
    /// Written by an earlier version of meshd, before the first release.
    #[error(
        "the state has format {found}, of a meshd before the first release; this one reads {FORMAT}: make the cluster \
         anew"
    )]
    Older {
        /// The format found.
        found: u8,
    },
    /// Format 0, or the checksum is wrong.
    #[error("the state is corrupt: its checksum does not match")]
    Checksum,
    /// The checksum is right and the body is not.
    #[error("the state is corrupt: {0}")]
    Body(postcard::Error),
}

impl State {
    /// The state as bytes, the same ones for equal states.
    #[expect(
        clippy::expect_used,
        reason = "fails only for sequences of unknown length, of which there are none"
    )]
    pub fn encode(&self) -> Vec<u8> {
        let body = postcard::to_stdvec(self).expect("writing to memory");
        let mut bytes = Vec::with_capacity(1 + CHECKSUM + body.len());
        bytes.push(FORMAT);
        bytes.extend_from_slice(&checksum(&body));
        bytes.extend_from_slice(&body);
        bytes
    }

    /// Reads what [`State::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let short = DecodeError::Short(bytes.len());
        let (&format, rest) = bytes.split_first().ok_or(short.clone())?;
        if format > FORMAT {
            return Err(DecodeError::Newer { found: format });
        }
        if (1..FORMAT).contains(&format) {
            return Err(DecodeError::Older { found: format });
        }
        let (sum, body) = rest.split_at_checked(CHECKSUM).ok_or(short)?;
        if format != FORMAT || checksum(body) != sum {
            return Err(DecodeError::Checksum);
        }
        postcard::from_bytes(body).map_err(DecodeError::Body)
    }
}

fn checksum(body: &[u8]) -> [u8; CHECKSUM] {
    let mut sum = [0; CHECKSUM];
    sum.copy_from_slice(&blake3::hash(body).as_bytes()[..CHECKSUM]);
    sum
}
