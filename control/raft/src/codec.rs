//! Bytes on disk and between managers: a format byte, then postcard.

use std::io;

use mesh_store::{NEWEST_FORMAT, OLDEST_FORMAT};
use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

/// Why bytes are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// Written by another version of meshd.
    #[error(
        "it has format {found}, this meshd reads {OLDEST_FORMAT} to {newest}; {}",
        if found > newest { "use the newer meshd that wrote it" } else { "it is of a meshd before the first release" }
    )]
    Format {
        /// The format found.
        found: u8,
        /// The newest that is read.
        newest: u8,
    },
    /// Cut short or corrupt.
    #[error("it is damaged")]
    Damaged,
}

/// As all versions write it that are supported. What holds commands or a state has a format of its own: [`encode_as`].
pub(crate) fn encode<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    encode_as(OLDEST_FORMAT, value)
}

/// As a meshd writes it that knows `format`: those that do not refuse it.
pub(crate) fn encode_as<T: Serialize>(format: u8, value: &T) -> io::Result<Vec<u8>> {
    postcard::to_extend(value, vec![format]).map_err(io::Error::other)
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    check(bytes, NEWEST_FORMAT)?;
    match postcard::take_from_bytes(bytes.get(1..).unwrap_or_default()) {
        Ok((value, [])) => Ok(value),
        _ => Err(DecodeError::Damaged),
    }
}

/// Whether one who reads formats up to `newest` may read these bytes.
pub(crate) fn check(bytes: &[u8], newest: u8) -> Result<(), DecodeError> {
    match bytes.first() {
        Some(found) if (OLDEST_FORMAT..=newest).contains(found) => Ok(()),
        Some(&found) => Err(DecodeError::Format { found, newest }),
        None => Err(DecodeError::Damaged),
    }
}
