//! Why nothing, or not all, could be removed.

use super::survey::Pinned;
use crate::repo::RepoError;
use crate::units::BackupId;
use crate::wal::WalError;
use std::fmt;

/// Why retention stopped. Nothing that is needed was deleted, and running again is safe after any of these.
#[derive(Debug)]
pub enum RetentionError {
    /// The repository's trouble while it was listed, or while something was created or deleted.
    Repo(RepoError),
    /// What an entry of the catalog says could not be read, so what it needs is not known.
    Unreadable {
        /// The backup.
        backup: BackupId,
        /// Why.
        source: RepoError,
    },
    /// Histories or the WAL's footers could not be read, so what leads where is not known.
    Wal(WalError),
    /// The catalog holds names that this version does not know.
    Strangers(Vec<String>),
    /// An open backup builds on one whose record is gone, or on something that has no valid id.
    ParentGone {
        /// The open backup.
        backup: BackupId,
        /// What it builds on, as far as that is known.
        parent: Option<BackupId>,
    },
    /// There is no such backup.
    NoSuchBackup(BackupId),
    /// The backup that was asked for is pinned.
    Pinned(BackupId, Pinned),
    /// It was asked to stop.
    Interrupted,
}

impl fmt::Display for RetentionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Repo(error) => fmt::Display::fmt(error, f),
            Self::Unreadable { backup, .. } => write!(f, "what backup {backup} needs cannot be read"),
            Self::Wal(error) => fmt::Display::fmt(error, f),
            Self::Strangers(names) => {
                write!(f, "the catalog holds ")?;
                match names.as_slice() {
                    [one] => write!(f, "{one}, which")?,
                    [first, ..] => write!(f, "{first} and {} more names, which", names.len() - 1)?,
                    [] => write!(f, "a name, which")?,
                }
                write!(f, " this version of walden does not know")
            }
            Self::ParentGone { backup, parent: Some(parent) } => {
                write!(
                    f,
                    "backup {backup} is not finished and builds on {parent}, whose record is not there any more"
                )
            }
            Self::ParentGone { backup, parent: None } => {
                write!(f, "backup {backup} is not finished, and what it builds on is not understood")
            }
            Self::NoSuchBackup(id) => write!(f, "there is no backup {id}"),
            Self::Pinned(id, Pinned::By { reason: Some(reason), .. }) => {
                write!(f, "{id} is pinned: {reason}")
            }
            Self::Pinned(id, Pinned::By { .. }) => write!(f, "{id} is pinned"),
            Self::Pinned(id, Pinned::Unreadable) => {
                write!(f, "a note on {id} that may be a pin cannot be read")
            }
            Self::Interrupted => f.write_str("it was asked to stop"),
        }
    }
}

impl std::error::Error for RetentionError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Repo(error) => error.source(),
            Self::Wal(error) => error.source(),
            Self::Unreadable { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl From<RepoError> for RetentionError {
    fn from(error: RepoError) -> Self {
        Self::Repo(error)
    }
}

impl From<crate::storage::StoreError> for RetentionError {
    fn from(error: crate::storage::StoreError) -> Self {
        Self::Repo(error.into())
    }
}

impl From<crate::storage::NotAKey> for RetentionError {
    fn from(error: crate::storage::NotAKey) -> Self {
        Self::Repo(error.into())
    }
}

impl From<crate::pipeline::Stopped> for RetentionError {
    fn from(_: crate::pipeline::Stopped) -> Self {
        Self::Interrupted
    }
}
