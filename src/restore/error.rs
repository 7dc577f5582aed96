//! What can go wrong while a restore is carried out.

use super::directory::DirectoryError;
use crate::durable::DurableError;
use crate::repo::RepoError;
use crate::wal::WalError;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why a restore did not finish. The directory then cannot be started, and the same command may be run again.
#[derive(Debug)]
pub enum RestoreError {
    /// The repository: something is missing, damaged or out of reach.
    Repo(RepoError),
    /// The WAL that goes with the backup.
    Wal(WalError),
    /// The local file system.
    File {
        /// `could not write`
        doing: &'static str,
        /// What.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Making something durable.
    Durable(DurableError),
    /// The map names something that no base backup has.
    Strange {
        /// What.
        path: PathBuf,
        /// What is strange about it.
        why: &'static str,
    },
    /// A server was started in the directory after the plan was made. Nothing was touched.
    ServerStarted(PathBuf),
    /// The place is not what it was when the plan was made, or somebody else's now. Nothing was touched.
    Place(DirectoryError),
    /// What stands in the directory is not what the map says.
    Differs {
        /// The file.
        path: PathBuf,
        /// Bytes by the map.
        expected: u64,
        /// Bytes that are there; `None`: it is not there.
        found: Option<u64>,
    },
    /// A segment that was there when the restore was planned is there no more.
    WalGone(crate::units::SegmentName),
    /// zstd has no memory, or a thread could not be started.
    Resources(io::Error),
    /// It was asked to stop.
    Stopped,
    /// Stages ended without saying why, or did not do all they were given: a bug.
    Interrupted,
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Repo(error) => fmt::Display::fmt(error, f),
            Self::Wal(error) => fmt::Display::fmt(error, f),
            Self::File { doing, path, .. } => write!(f, "{doing} {}", path.display()),
            Self::Durable(error) => fmt::Display::fmt(error, f),
            Self::Strange { path, why } => write!(f, "the backup's map names {}: {why}", path.display()),
            Self::ServerStarted(path) => {
                write!(f, "a server was started in {} since the plan was made", path.display())
            }
            Self::Place(error) => fmt::Display::fmt(error, f),
            Self::Differs { path, found: None, .. } => write!(f, "{} is missing", path.display()),
            Self::Differs { path, expected, found: Some(found) } => {
                write!(f, "{} has {found} bytes, not the {expected} of the backup", path.display())
            }
            Self::WalGone(segment) => write!(f, "WAL segment {segment} was removed since the plan was made"),
            Self::Resources(_) => f.write_str("memory or threads ran out"),
            Self::Stopped => f.write_str("it was asked to stop"),
            Self::Interrupted => f.write_str("a stage of the restore ended early without a reason"),
        }
    }
}

impl std::error::Error for RestoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Repo(error) => error.source(),
            Self::Wal(error) => error.source(),
            Self::Durable(error) => error.source(),
            Self::Place(error) => error.source(),
            Self::File { source, .. } | Self::Resources(source) => Some(source),
            _ => None,
        }
    }
}

impl From<RepoError> for RestoreError {
    fn from(error: RepoError) -> Self {
        Self::Repo(error)
    }
}

impl From<WalError> for RestoreError {
    fn from(error: WalError) -> Self {
        Self::Wal(error)
    }
}

impl From<DurableError> for RestoreError {
    fn from(error: DurableError) -> Self {
        Self::Durable(error)
    }
}

impl From<DirectoryError> for RestoreError {
    fn from(error: DirectoryError) -> Self {
        Self::Place(error)
    }
}

impl From<crate::storage::NotAKey> for RestoreError {
    fn from(error: crate::storage::NotAKey) -> Self {
        Self::Repo(error.into())
    }
}

/// Names what was being done with a file.
pub(super) fn file(doing: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> RestoreError {
    let path = path.as_ref().to_owned();
    move |source| RestoreError::File { doing, path, source }
}
