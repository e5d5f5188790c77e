//! A backup: the decided state in one file.
//!
//! A line that says what it is, a format byte, when it was made, the state's length and the state as
//! [`State::encode`] writes it, then a BLAKE3 hash of all that. It holds the CA's key and the join tokens.

use std::ops::Range;

use mesh_store::State;
use thiserror::Error;

const MAGIC: &[u8] = b"meshd backup\n";
/// Grows when the layout here changes; the state has a format of its own.
const FORMAT: u8 = 1;
const FORMAT_AT: usize = MAGIC.len();
const MADE_AT: Range<usize> = FORMAT_AT + 1..FORMAT_AT + 9;
const LENGTH: Range<usize> = MADE_AT.end..MADE_AT.end + 8;
const HEADER: usize = LENGTH.end;
const HASH: usize = 32;

/// Why a file is no backup that can be used. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BackupError {
    /// It begins otherwise.
    #[error("this is no backup of a meshd cluster")]
    Foreign,
    /// A later version of meshd made it.
    #[error("the backup has format {found}, this meshd reads {FORMAT}: use the newer meshd that made it")]
    Newer {
        /// The format found.
        found: u8,
    },
    /// There is less of it than there was.
    #[error("the backup is cut short: it has {found} bytes of {expected}")]
    Short {
        /// Its length in bytes.
        found: u64,
        /// What it should be.
        expected: u64,
    },
    /// There is more of it than there was, or it was changed.
    #[error("the backup is damaged: its checksum does not match")]
    Damaged,
    /// The state in it cannot be read by this meshd.
    #[error("the backup holds a state that cannot be used")]
    State(#[from] mesh_store::DecodeError),
    /// It is that of a manager which had no cluster.
    #[error("the backup holds no cluster")]
    Empty,
}

/// What a backup holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// When it was made, in seconds since 1970-01-01 UTC.
    pub made_at: u64,
    /// What had been decided until then.
    pub state: State,
}

impl Backup {
    /// The file's content.
    pub fn encode(&self) -> Vec<u8> {
        let state = self.state.encode();
        let mut bytes = Vec::with_capacity(HEADER + state.len() + HASH);
        bytes.extend_from_slice(MAGIC);
        bytes.push(FORMAT);
        bytes.extend_from_slice(&self.made_at.to_be_bytes());
        bytes.extend_from_slice(&(state.len() as u64).to_be_bytes());
        bytes.extend_from_slice(&state);
        let hash = blake3::hash(&bytes);
        bytes.extend_from_slice(hash.as_bytes());
        bytes
    }

    /// Reads what [`Backup::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, BackupError> {
        let beginning = &bytes[..bytes.len().min(MAGIC.len())];
        if !MAGIC.starts_with(beginning) || beginning.is_empty() {
            return Err(BackupError::Foreign);
        }
        let found = bytes.len() as u64;
        let short = |expected: usize| BackupError::Short { found, expected: expected as u64 };
        let format = *bytes.get(FORMAT_AT).ok_or(short(HEADER + HASH))?;
        if format > FORMAT {
            return Err(BackupError::Newer { found: format });
        }
        let number = |at: Range<usize>| bytes.get(at)?.try_into().ok().map(u64::from_be_bytes);
        let (made_at, length) = (number(MADE_AT), number(LENGTH));
        let (Some(made_at), Some(length)) = (made_at, length) else { return Err(short(HEADER + HASH)) };
        let expected = (HEADER as u64).saturating_add(length).saturating_add(HASH as u64);
        if found < expected {
            return Err(BackupError::Short { found, expected });
        }
        // Here `bytes` are enough for both.
        let (content, hash) = bytes.split_at(bytes.len() - HASH);
        if found != expected || blake3::hash(content) != blake3::Hash::from_bytes(array(hash)) {
            return Err(BackupError::Damaged);
        }
        let state = State::decode(&content[HEADER..])?;
        match state.cluster() {
            Some(_) => Ok(Self { made_at, state }),
            None => Err(BackupError::Empty),
        }
    }
}

fn array(hash: &[u8]) -> [u8; HASH] {
    let mut array = [0; HASH];
    array.copy_from_slice(hash);
    array
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::state;

    fn backup() -> (Backup, Vec<u8>) {
        let backup = Backup { made_at: 77, state: state() };
        let bytes = backup.encode();
        (backup, bytes)
    }

    #[test]
    fn what_was_written_is_read() {
        let (backup, bytes) = backup();
        assert_eq!(Backup::decode(&bytes), Ok(backup));
    }

    #[test]
    fn every_cut_is_told() {
        let (_, bytes) = backup();
        for length in 0..bytes.len() {
            let error = Backup::decode(&bytes[..length]).unwrap_err();
            match length {
                0 => assert_eq!(error, BackupError::Foreign),
                _ => assert!(matches!(error, BackupError::Short { .. }), "{length}: {error:?}"),
            }
        }
        assert!(matches!(Backup::decode(&[&bytes[..], b"x"].concat()), Err(BackupError::Damaged)));
    }

    #[test]
    fn every_changed_byte_is_told() {
        let (_, good) = backup();
        for at in 0..good.len() {
            let mut bytes = good.clone();
            bytes[at] ^= 0x40;
            Backup::decode(&bytes).unwrap_err();
        }
    }

    #[test]
    fn others_files_and_later_formats_are_named() {
        for other in [&b"PK\x03\x04"[..], &[0; 4096], b"meshd backuq\n"] {
            assert_eq!(Backup::decode(other), Err(BackupError::Foreign));
        }
        let (_, mut bytes) = backup();
        bytes[FORMAT_AT] = 9;
        let error = Backup::decode(&bytes).unwrap_err();
        assert_eq!(error, BackupError::Newer { found: 9 });
        assert!(error.to_string().contains("newer meshd"));
        let empty = Backup { made_at: 1, state: State::default() };
        assert_eq!(Backup::decode(&empty.encode()), Err(BackupError::Empty));
    }
}
