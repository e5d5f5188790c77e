//! Bytes on disk and between managers: a format byte, then postcard.

use std::io;

use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

/// Grows when the encoding of anything changes; managers of different formats do not talk to each other.
pub(crate) const FORMAT: u8 = 4;

/// Why bytes are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// Written by another version of meshd.
    #[error("it has format {0}, this version reads {FORMAT}")]
    Format(u8),
    /// Cut short or corrupt.
    #[error("it is damaged")]
    Damaged,
}

pub(crate) fn encode<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    postcard::to_extend(value, vec![FORMAT]).map_err(io::Error::other)
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    match bytes {
        [FORMAT, body @ ..] => match postcard::take_from_bytes(body) {
            Ok((value, [])) => Ok(value),
            _ => Err(DecodeError::Damaged),
        },
        [other, ..] => Err(DecodeError::Format(*other)),
        [] => Err(DecodeError::Damaged),
    }
}
