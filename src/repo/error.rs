//! What can go wrong between a repository's bytes and their meaning.

use crate::env::NoRandomness;
use crate::storage::{Key, NotAKey, StoreError, StoreErrorKind};
use std::fmt;

/// Why something could not be read from or written to a repository.
#[derive(Debug)]
pub enum RepoError {
    /// No `walden.json` stands where the repository should be.
    NoRepository {
        /// The place, in a person's words.
        place: String,
    },
    /// `walden.json` stands there already.
    Exists {
        /// The place, in a person's words.
        place: String,
    },
    /// The repository is encrypted and no key was given.
    KeyMissing,
    /// A key was given for a repository that is not encrypted.
    NotEncrypted,
    /// The key is well formed but opens none of the repository's wraps: a wrong passphrase or key, not damage.
    KeyRejected {
        /// The objects whose commitment it was held against.
        wraps: Vec<Key>,
    },
    /// The text given as key looks like `walden-key-1.…` but its checksum is wrong: a typing mistake.
    KeyMistyped,
    /// The repository or an object was written by a newer walden.
    NewerFormat {
        /// What: `walden.json` or an object's key.
        what: String,
        /// The format it says it has.
        format: u64,
    },
    /// A stored object is not what was stored: changed, cut, emptied, or in another's place.
    Damaged {
        /// The object.
        object: Key,
        /// What was found wrong.
        why: String,
    },
    /// An object that must be there is not.
    Missing {
        /// The object.
        object: Key,
    },
    /// A name is taken by other contents; nothing was overwritten.
    Conflict {
        /// The object.
        object: Key,
    },
    /// What was to be stored is larger than the format allows.
    TooLarge {
        /// What.
        what: String,
    },
    /// A file below `spool-path` could not be written or read.
    Spool(std::io::Error),
    /// The store itself.
    Store(StoreError),
    /// No randomness for keys.
    Randomness(NoRandomness),
    /// A name made no valid key (a bug, or a stanza that was not checked).
    Name(NotAKey),
}

impl RepoError {
    /// Damage to `object`, explained by `why`.
    pub fn damaged(object: &Key, why: impl Into<String>) -> Self {
        Self::Damaged { object: object.clone(), why: why.into() }
    }

    /// The store's kind of trouble, where the store is the cause.
    #[must_use]
    pub const fn store_kind(&self) -> Option<StoreErrorKind> {
        match self {
            Self::Store(error) => Some(error.kind),
            _ => None,
        }
    }
}

impl fmt::Display for RepoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRepository { place } => write!(f, "there is no repository at {place}"),
            Self::Exists { place } => write!(f, "there is a repository at {place} already"),
            Self::KeyMissing => f.write_str("the repository is encrypted and no key is configured"),
            Self::NotEncrypted => f.write_str("a key is configured, but the repository is not encrypted"),
            Self::KeyRejected { wraps } => {
                f.write_str("key commitment of ")?;
                for (index, wrap) in wraps.iter().enumerate() {
                    write!(f, "{}{wrap}", if index == 0 { "" } else { ", " })?;
                }
                f.write_str(" does not match (a wrong passphrase or key file, not damage)")
            }
            Self::KeyMistyped => {
                f.write_str("the walden-key-1 string does not fit its own checksum (a typing mistake)")
            }
            Self::NewerFormat { what, format } => {
                write!(f, "{what} has format {format}, which this version of walden does not know")
            }
            Self::Damaged { object, why } => write!(f, "{object} is damaged: {why}"),
            Self::Missing { object } => write!(f, "{object} is missing"),
            Self::Conflict { object } => write!(f, "{object} exists with other contents"),
            Self::TooLarge { what } => write!(f, "{what} is larger than the repository format allows"),
            Self::Spool(_) => f.write_str("a file in spool-path could not be used"),
            Self::Store(error) => fmt::Display::fmt(error, f),
            Self::Randomness(error) => fmt::Display::fmt(error, f),
            Self::Name(error) => fmt::Display::fmt(error, f),
        }
    }
}

impl std::error::Error for RepoError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Spool(error) => Some(error),
            Self::Store(error) => error.source(),
            _ => None,
        }
    }
}

impl From<StoreError> for RepoError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<NoRandomness> for RepoError {
    fn from(error: NoRandomness) -> Self {
        Self::Randomness(error)
    }
}

impl From<NotAKey> for RepoError {
    fn from(error: NotAKey) -> Self {
        Self::Name(error)
    }
}
