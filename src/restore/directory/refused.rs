//! Why a place is refused.

use crate::restore::owner::Owner;
use crate::restore::running::{PostmasterPid, Sign};
use crate::units::SystemIdentifier;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why a place is refused. Nothing was touched.
#[derive(Debug)]
pub enum DirectoryError {
    /// Not an absolute path without `..`.
    NotAbsolute(PathBuf),
    /// The top of a file tree, or not a directory.
    NotADirectory(PathBuf),
    /// A server works there.
    ServerRunning {
        /// The directory.
        path: PathBuf,
        /// What its `postmaster.pid` says.
        server: PostmasterPid,
        /// How it was noticed.
        sign: Sign,
    },
    /// A `postmaster.pid` of a server that is gone, and no force.
    PidFileLeft(PathBuf),
    /// A data directory, and no force.
    DataDirectory {
        /// The directory.
        path: PathBuf,
        /// What its `PG_VERSION` says.
        version: String,
    },
    /// Something that is no data directory: never replaced.
    OtherContents {
        /// The directory.
        path: PathBuf,
        /// Some names in it.
        names: Vec<OsString>,
    },
    /// The data directory of another cluster: never replaced.
    OtherCluster {
        /// The directory.
        path: PathBuf,
        /// Whose it is; `None` when its `pg_control` cannot be read.
        system: Option<SystemIdentifier>,
    },
    /// The directory for WAL has something in it.
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// The directory for a tablespace has something in it that does not go.
    TablespaceNotEmpty {
        /// The tablespace.
        oid: u32,
        /// The directory.
        path: PathBuf,
        /// A cluster of this very version has its files there: the living original, as likely as not.
        holds_own: bool,
    },
    /// A server on this host has its tablespace or its WAL there.
    UsedByServer {
        /// The directory.
        path: PathBuf,
        /// The tablespace that would go there; else it is `pg_wal`.
        oid: Option<u32>,
        /// The data directory that is to be replaced leads there by a link: it is a copy of the server's.
        through_link: bool,
        /// The server's data directory.
        server: PathBuf,
    },
    /// The repository, or what else is needed, lies in the directory or around it.
    HoldsOther {
        /// The directory.
        path: PathBuf,
        /// What it is: `repo1`.
        what: String,
        /// Where it is.
        other: PathBuf,
    },
    /// Another restore fills it at this moment.
    RestoreRunning(PathBuf),
    /// It is not any more what it was when the plan was made.
    Changed(PathBuf),
    /// Two of the directories lie one in the other.
    Nested {
        /// The outer one.
        outer: PathBuf,
        /// The inner one.
        inner: PathBuf,
    },
    /// `pg_wal` cannot be moved aside: the directory beside it is another file system.
    WalCannotMove {
        /// What was to be moved.
        wal: PathBuf,
    },
    /// The server would run as root, which PostgreSQL refuses.
    OwnerIsRoot(PathBuf),
    /// Only root gives files to others.
    NotRoot(Owner),
    /// No right to write there.
    NoRights {
        /// Where something was to be made.
        wanted: PathBuf,
        /// Where.
        path: PathBuf,
        /// To whom it belongs.
        owner: Owner,
    },
    /// It could not be looked at.
    Look {
        /// What.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl fmt::Display for DirectoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAbsolute(path) => write!(f, "{} is not an absolute path", path.display()),
            Self::NotADirectory(path) => write!(f, "{} cannot be a data directory", path.display()),
            Self::ServerRunning { path, server, sign } => {
                write!(f, "a server is running in {} (postmaster {}): {sign}", path.display(), server.pid)
            }
            Self::PidFileLeft(path) => {
                write!(
                    f,
                    "{} holds the postmaster.pid of a server that did not stop properly",
                    path.display()
                )
            }
            Self::DataDirectory { path, version } => {
                write!(f, "{} holds a PostgreSQL {version} data directory", path.display())
            }
            Self::OtherContents { path, names } => {
                let shown: Vec<_> = names.iter().map(|name| name.to_string_lossy()).collect();
                write!(
                    f,
                    "{} is not empty and is no PostgreSQL data directory ({})",
                    path.display(),
                    shown.join(", ")
                )
            }
            Self::OtherCluster { path, system: Some(system) } => {
                write!(f, "{} is the data directory of another cluster (system {system})", path.display())
            }
            Self::OtherCluster { path, system: None } => {
                write!(
                    f,
                    "whose data directory {} is cannot be told: its pg_control is damaged",
                    path.display()
                )
            }
            Self::NotEmpty { path } => {
                write!(f, "the directory for --wal-dir, {}, is not empty", path.display())
            }
            Self::TablespaceNotEmpty { oid, path, holds_own: true } => {
                write!(f, "tablespace {oid} would go to {}, where a cluster has its files", path.display())
            }
            Self::TablespaceNotEmpty { oid, path, holds_own: false } => {
                write!(f, "tablespace {oid} would go to {}, which is not empty", path.display())
            }
            Self::UsedByServer { path, server, .. } => {
                write!(f, "the server that runs in {} has its files in {}", server.display(), path.display())
            }
            Self::HoldsOther { path, what, other } if path.starts_with(other) => {
                write!(f, "{} lies inside {what} ({})", path.display(), other.display())
            }
            Self::HoldsOther { path, what, other } => {
                write!(f, "{what} ({}) lies inside {}", other.display(), path.display())
            }
            Self::RestoreRunning(path) => {
                write!(f, "another restore into {} is at work", path.display())
            }
            Self::Changed(path) => {
                write!(f, "{} is not any more what it was when the plan was made", path.display())
            }
            Self::Nested { outer, inner } if outer == inner => {
                write!(f, "two of the directories are {}", outer.display())
            }
            Self::Nested { outer, inner } => {
                write!(f, "{} lies inside {}", inner.display(), outer.display())
            }
            Self::WalCannotMove { wal } => write!(
                f,
                "{} may hold WAL that is nowhere else, and cannot be moved aside: the directory beside it is another file system or closed",
                wal.display()
            ),
            Self::OwnerIsRoot(path) => {
                write!(f, "what is restored into {} would belong to root", path.display())
            }
            Self::NotRoot(owner) => write!(f, "only root may give files to {owner}"),
            Self::NoRights { path, owner, .. } => {
                write!(f, "{} belongs to {owner}: no right to write there", path.display())
            }
            Self::Look { path, .. } => write!(f, "could not look at {}", path.display()),
        }
    }
}

impl std::error::Error for DirectoryError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Look { source, .. } => Some(source),
            _ => None,
        }
    }
}
