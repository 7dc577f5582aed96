//! What can go wrong between WAL and its objects.

use super::info::ContentHash;
use crate::repo::RepoError;
use crate::storage::{Key, NotAKey};
use std::fmt;
use std::io;

/// Why WAL could not be stored or read back.
#[derive(Debug)]
pub enum WalError {
    /// The repository: an object is missing or damaged, or the store is in trouble. Names the object.
    Repo(RepoError),
    /// The name is held with other contents. Nothing was changed.
    Conflict {
        /// The object.
        object: Key,
        /// The hash of the plain contents that are stored.
        stored: ContentHash,
        /// The hash of what was to be stored.
        offered: ContentHash,
    },
    /// A timeline's history is held and says something else. Nothing was changed.
    HistoryConflict {
        /// The object.
        object: Key,
        /// The hash of the file that is stored.
        stored: ContentHash,
        /// The hash of what was to be stored, or of what it implies for an ancestor.
        offered: ContentHash,
    },
    /// What was to be stored does not have the length that it must have.
    Length {
        /// What.
        what: String,
        /// Bytes it must have.
        expected: u64,
        /// Bytes it has.
        found: u64,
    },
    /// Whoever was given the bytes that were read did not take them.
    Sink(io::Error),
    /// zstd has no memory.
    Codec(io::Error),
}

impl fmt::Display for WalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Repo(error) => fmt::Display::fmt(error, f),
            Self::Conflict { object, stored, offered } => {
                write!(f, "{object} is held with other contents (stored blake3 {stored}, offered {offered})")
            }
            Self::HistoryConflict { object, stored, offered } => write!(
                f,
                "{object} is held and tells another history (stored blake3 {stored}, offered {offered})"
            ),
            Self::Length { what, expected, found } => {
                write!(f, "{what} has {found} bytes, not the {expected} it must have")
            }
            Self::Sink(_) => f.write_str("the bytes that were read could not be written"),
            Self::Codec(_) => f.write_str("compression could not begin"),
        }
    }
}

impl std::error::Error for WalError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Repo(error) => error.source(),
            Self::Sink(error) | Self::Codec(error) => Some(error),
            _ => None,
        }
    }
}

impl From<RepoError> for WalError {
    fn from(error: RepoError) -> Self {
        Self::Repo(error)
    }
}

impl From<NotAKey> for WalError {
    fn from(error: NotAKey) -> Self {
        Self::Repo(error.into())
    }
}

impl From<crate::storage::StoreError> for WalError {
    fn from(error: crate::storage::StoreError) -> Self {
        Self::Repo(error.into())
    }
}
