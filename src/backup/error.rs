//! Why a backup could not be taken.

use crate::postgres::client::ClientError;
use crate::postgres::tar::TarError;
use crate::repo::RepoError;
use crate::repo::catalog::{BeginError, CommitError};
use crate::repo::record::PageFailure;
use crate::units::{BackupId, ByteCount, Lsn, PgMajor, SegmentName, SystemIdentifier, TimelineId};
use crate::wal::WalError;
use std::fmt;
use std::time::Duration;

/// Why a backup could not be taken. Nothing is listed as a backup after any of these.
#[derive(Debug)]
pub enum BackupError {
    /// The connection or the server.
    Client(ClientError),
    /// The repository it is written to.
    Repo(RepoError),
    /// WAL could not be read back or stored.
    Wal(WalError),
    /// A backup that it was to build on was removed meanwhile.
    ParentRetired(BackupId),
    /// The last step.
    Commit(CommitError),
    /// The archives are not what a server sends.
    Archive(TarError),
    /// The server sent something that no server of these versions sends.
    StrangeArchive(String),
    /// The stream was complete and lacks a file that every cluster has.
    FileMissing(String),
    /// A file that describes the backup is not understood.
    NotUnderstood {
        /// The file.
        file: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// A codec or a thread, for lack of memory.
    Codec(std::io::Error),
    /// The stanza holds no cluster with the server's system identifier.
    NotThisCluster {
        /// The server's.
        server: SystemIdentifier,
        /// The stanza's.
        stanza: Vec<SystemIdentifier>,
    },
    /// The server's major version is too old, or not the one the stanza knows.
    Version {
        /// The server's.
        server: PgMajor,
        /// The stanza's, where that is the difference.
        stanza: Option<PgMajor>,
    },
    /// `archive_mode` is off: the WAL that the backup needs would not arrive.
    ArchivingOff,
    /// A segment that the backup needs did not arrive in time.
    WalNotArchived {
        /// The first that is missing.
        segment: SegmentName,
        /// How many are.
        missing: usize,
        /// How long was waited.
        waited: Duration,
    },
    /// WAL that was asked for over the connection did not come.
    WalNotSent {
        /// The segment.
        segment: SegmentName,
        /// How long was waited.
        waited: Duration,
    },
    /// The archive's WAL is not the one this server writes: two servers share a stanza, or a clone.
    NotThisServersWal {
        /// Where they differ.
        at: Lsn,
        /// How.
        why: String,
    },
    /// Pages failed their checksums, and the settings say that this fails the backup.
    PageFailures {
        /// How many are known.
        count: u64,
        /// The first of them.
        failures: Vec<PageFailure>,
    },
    /// Where it is to be stored there is less room than the best compression could make do with.
    NoSpace {
        /// What is free.
        free: ByteCount,
        /// What is needed at least.
        needed: ByteCount,
        /// The size of the cluster.
        total: ByteCount,
    },
    /// A tablespace lies where no record can say: the name of its directory is not UTF-8.
    Tablespace {
        /// Its OID.
        oid: u32,
    },
    /// A tablespace that this version's base backups lack: the server keeps it in the data directory itself.
    TablespaceNotSent {
        /// Its OID.
        oid: String,
        /// The server's version.
        server: PgMajor,
    },
    /// The server changed timeline while it was being copied.
    Promoted,
    /// The standby went over to a timeline to which no way leads from where the copy began.
    OtherBranch {
        /// Where the copy began.
        start: Lsn,
        /// The timeline of that.
        began_on: TimelineId,
        /// The timeline that it ended on.
        ended_on: TimelineId,
    },
    /// Asked to stop.
    Interrupted,
    /// A stage of the pipeline ended without saying why.
    Bug,
}

impl fmt::Display for BackupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(error) => fmt::Display::fmt(error, f),
            Self::Repo(error) => fmt::Display::fmt(error, f),
            Self::Wal(error) => fmt::Display::fmt(error, f),
            Self::ParentRetired(parent) => fmt::Display::fmt(&BeginError::ParentRetired(parent.clone()), f),
            Self::Commit(error) => fmt::Display::fmt(error, f),
            Self::Archive(error) => fmt::Display::fmt(error, f),
            Self::StrangeArchive(name) => {
                write!(f, "the server sent \"{name}\", which is not part of a base backup")
            }
            Self::FileMissing(name) => write!(f, "the server's copy is complete but has no {name}"),
            Self::NotUnderstood { file, why } => write!(f, "the copy's {file} is not understood: {why}"),
            Self::Codec(_) => f.write_str("a codec or a thread could not do its work"),
            Self::NotThisCluster { server, stanza } => {
                write!(f, "the server has system identifier {server}, the stanza holds ")?;
                match stanza.as_slice() {
                    [] => f.write_str("none"),
                    [first, rest @ ..] => {
                        write!(f, "{first}")?;
                        rest.iter().try_for_each(|other| write!(f, ", {other}"))
                    }
                }
            }
            Self::Version { server, stanza: Some(stanza) } => {
                write!(
                    f,
                    "the server is PostgreSQL {server}, the stanza knows this cluster as PostgreSQL {stanza}"
                )
            }
            Self::Version { server, stanza: None } => {
                write!(
                    f,
                    "the server is PostgreSQL {server}; backups are taken of PostgreSQL {} and newer",
                    PgMajor::OLDEST
                )
            }
            Self::ArchivingOff => {
                f.write_str("archive_mode is off: the WAL that a backup needs would not be stored")
            }
            Self::WalNotArchived { segment, missing, waited } => {
                write!(f, "WAL segment {segment}")?;
                if *missing > 1 {
                    write!(f, " and {} more", missing - 1)?;
                }
                write!(f, " did not arrive within {} s", waited.as_secs())
            }
            Self::WalNotSent { segment, waited } => {
                write!(f, "the server sent nothing of WAL segment {segment} for {} s", waited.as_secs())
            }
            Self::NotThisServersWal { at, why } => {
                write!(f, "the archived WAL at {at} is not this server's: {why}")
            }
            Self::PageFailures { count, .. } => {
                write!(f, "{count} page{} failed the checksum", if *count == 1 { "" } else { "s" })
            }
            Self::NoSpace { free, needed, total } => {
                write!(f, "{free} are free, and a cluster of {total} needs {needed} at the very least")
            }
            Self::Tablespace { oid } => write!(
                f,
                "the directory of tablespace {oid} has a name that is not UTF-8, or relative, which no record holds"
            ),
            Self::TablespaceNotSent { oid, server } => write!(
                f,
                "tablespace {oid} is kept in the data directory (allow_in_place_tablespaces), and base backups of \
                 PostgreSQL {server} lack such ones"
            ),
            Self::Promoted => f.write_str("the server was promoted while it was being copied"),
            Self::OtherBranch { start, began_on, ended_on } => write!(
                f,
                "the standby was on timeline {began_on} at {start} when the copy began, and ended on timeline {ended_on}, \
                 which did not come from there"
            ),
            Self::Interrupted => f.write_str("it was interrupted"),
            Self::Bug => f.write_str("a stage of the copy ended without a reason (a bug in walden)"),
        }
    }
}

impl std::error::Error for BackupError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Client(error) => error.source(),
            Self::Repo(error) => error.source(),
            Self::Wal(error) => error.source(),
            Self::Commit(error) => error.source(),
            Self::Codec(error) => Some(error),
            _ => None,
        }
    }
}

impl From<ClientError> for BackupError {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

impl From<RepoError> for BackupError {
    fn from(error: RepoError) -> Self {
        Self::Repo(error)
    }
}

impl From<BeginError> for BackupError {
    fn from(error: BeginError) -> Self {
        match error {
            BeginError::ParentRetired(parent) => Self::ParentRetired(parent),
            BeginError::Repo(error) => Self::Repo(error),
        }
    }
}

impl From<WalError> for BackupError {
    fn from(error: WalError) -> Self {
        Self::Wal(error)
    }
}

impl From<TarError> for BackupError {
    fn from(error: TarError) -> Self {
        Self::Archive(error)
    }
}
