//! The bytes of a state: the format that all managers read, a checksum, the body.

use thiserror::Error;

use crate::State;

/// The oldest format that is read: what the version before this one writes.
pub const OLDEST_FORMAT: u8 = 4;
/// The newest. It is raised when a command or a part of the state is added that older versions of meshd do not know; nothing
/// of it is written before all managers read it ([`crate::Command::RaiseFormat`]).
pub const NEWEST_FORMAT: u8 = 5;
/// Bytes of the checksum: the start of a BLAKE3 hash, against corruption, not against forgery.
const CHECKSUM: usize = 8;

/// Why bytes are no state. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// Too short to be one.
    #[error("the state is cut short: it has {0} bytes")]
    Short(usize),
    /// Written by a later version of meshd.
    #[error(
        "the state has format {found}, this meshd reads {NEWEST_FORMAT}; use the newer meshd that wrote it"
    )]
    Newer {
        /// The format found.
        found: u8,
    },
    /// Written by an earlier version of meshd, before the first release.
    #[error(
        "the state has format {found}, of a meshd before the first release; this one reads {OLDEST_FORMAT}: make the cluster \
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
        bytes.push(self.format);
        bytes.extend_from_slice(&checksum(self.format, &body));
        bytes.extend_from_slice(&body);
        bytes
    }

    /// Reads what [`State::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let short = DecodeError::Short(bytes.len());
        let (&format, rest) = bytes.split_first().ok_or(short.clone())?;
        if format > NEWEST_FORMAT {
            return Err(DecodeError::Newer { found: format });
        }
        if (1..OLDEST_FORMAT).contains(&format) {
            return Err(DecodeError::Older { found: format });
        }
        let (sum, body) = rest.split_at_checked(CHECKSUM).ok_or(short)?;
        if format == 0 || checksum(format, body) != sum {
            return Err(DecodeError::Checksum);
        }
        let state: Self = postcard::from_bytes(body).map_err(DecodeError::Body)?;
        Ok(Self { format, ..state })
    }
}

/// Of the format too, but for format 4.
fn checksum(format: u8, body: &[u8]) -> [u8; CHECKSUM] {
    let mut hasher = blake3::Hasher::new();
    if format != 4 {
        hasher.update(&[format]);
    }
    let mut sum = [0; CHECKSUM];
    sum.copy_from_slice(&hasher.update(body).finalize().as_bytes()[..CHECKSUM]);
    sum
}
