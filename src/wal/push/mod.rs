//! `archive-push`: one file of `pg_wal` into every repository.
//!
//! Success means durable in all of them. All are tried, whatever happens to one. What is stored is told by
//! the file itself: a segment's first page names its cluster, place and size; its records tell whether it is
//! complete. After any failure or crash nothing half shows, and pushing again is safe.

mod ahead;
mod encode;
pub mod local;
mod segment;

#[cfg(test)]
mod tests;

pub use ahead::push_waiting;

use super::info::ContentHash;
use super::scan::Judgement;
use super::write::{settle_history, store_backup_history, store_history};
use super::{ClusterWal, WalError};
use crate::env::Env;
use crate::pipeline::StopFlag;
use crate::postgres::history::{HistoryError, TimelineHistory};
use crate::postgres::wal::segment::Unreadable;
use crate::repo::frame::Compression;
use crate::repo::{Cluster, RepoError, Repository};
use crate::storage::Created;
use crate::units::{SegmentSize, Stanza, SystemIdentifier, TimelineId, WalFileName};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// PostgreSQL's `.backup` files are a few hundred bytes.
const LONGEST_BACKUP_FILE: u64 = 1 << 20;

/// What is pushed, and where.
#[derive(Clone, Copy)]
pub struct Push<'a> {
    /// All repositories that must have the file.
    pub repositories: &'a [&'a Repository],
    /// The stanza.
    pub stanza: &'a Stanza,
    /// The file.
    pub path: &'a Path,
    /// Its name, which need not be the path's last part.
    pub name: WalFileName,
    /// `pg1-path`: where the control file is looked for when there is none beside the file.
    pub data_directory: Option<&'a Path>,
    /// How to compress.
    pub compression: Compression,
    /// Clock and randomness.
    pub env: &'a dyn Env,
    /// Looked at between frames.
    pub stop: &'a StopFlag,
}

impl fmt::Debug for Push<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Push({})", self.name)
    }
}

/// What came of it.
#[derive(Debug)]
pub struct Pushed {
    /// The cluster.
    pub system: SystemIdentifier,
    /// For each repository, in their order. The push succeeded only if all did.
    pub outcomes: Vec<Result<Created, Trouble>>,
    /// What a person should know though it is no failure.
    pub warnings: Vec<Warning>,
}

impl Pushed {
    /// Whether the file is durable in every repository.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.outcomes.iter().all(Result::is_ok)
    }
}

/// What a person should know of a file that was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// It was written by a PostgreSQL that this version does not know, so it was not checked for completeness.
    UnknownMagic(u16),
    /// It has a complete segment's name but is surely unfinished: stored beside, as `partial-<hash>`.
    Unfinished {
        /// What the records said.
        judgement: Judgement,
        /// Of the contents, as in the name under which it lies.
        hash: ContentHash,
    },
    /// Its records end before its last page does, but not as an unfinished segment's would: stored under its
    /// name.
    Doubtful(Judgement),
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownMagic(magic) => write!(
                f,
                "its page magic {magic:04X} is of no PostgreSQL version known here; stored without a look at \
                 its records"
            ),
            Self::Unfinished { judgement, hash } => {
                write!(f, "it is {judgement}; stored beside, as partial-{}", hash.short())
            }
            Self::Doubtful(judgement) => {
                write!(f, "it is {judgement}, yet not as a writer leaves it; stored under its name")
            }
        }
    }
}

/// Why nothing could be pushed anywhere: the trouble is with the file.
#[derive(Debug)]
pub enum PushError {
    /// It cannot be read.
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no WAL segment, or not the one of its name.
    Segment(Unreadable),
    /// It is no timeline history.
    History(HistoryError),
    /// It is longer than any such file.
    TooLong(u64),
    /// It was changed while it was read.
    Changed,
    /// The run was told to stop before anything was named.
    Interrupted,
    /// It does not say of which cluster it is, and no control file was found that does.
    NoControlFile(local::NoControlFile),
}

impl fmt::Display for PushError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { path, .. } => write!(f, "{} could not be read", path.display()),
            Self::Segment(why) => write!(f, "the file {why}"),
            Self::History(_) => f.write_str("the file is no timeline history"),
            Self::TooLong(bytes) => write!(f, "the file has {bytes} bytes, more than any of its kind"),
            Self::Changed => f.write_str("the file was changed while it was read"),
            Self::Interrupted => f.write_str("it was interrupted"),
            Self::NoControlFile(error) => fmt::Display::fmt(error, f),
        }
    }
}

impl std::error::Error for PushError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read { source, .. } => Some(source),
            Self::History(error) => Some(error),
            Self::NoControlFile(error) => error.source(),
            _ => None,
        }
    }
}

/// Why one repository does not have the file.
#[derive(Debug)]
pub enum Trouble {
    /// It has no such stanza.
    NoStanza,
    /// The stanza does not hold this cluster.
    NotThisCluster {
        /// The file's.
        system: SystemIdentifier,
        /// The stanza's.
        held: Vec<SystemIdentifier>,
    },
    /// The cluster is held with another segment size.
    OtherSegmentSize {
        /// The stanza's.
        held: SegmentSize,
        /// The file's.
        offered: SegmentSize,
    },
    /// A conflict, damage, or the store's trouble.
    Wal(WalError),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoStanza => f.write_str("the stanza does not exist there"),
            Self::NotThisCluster { system, held } => {
                write!(f, "the file is of the cluster with system identifier {system}, the stanza holds ")?;
                for (at, one) in held.iter().enumerate() {
                    write!(f, "{}{one}", if at == 0 { "" } else { ", " })?;
                }
                Ok(())
            }
            Self::OtherSegmentSize { held, offered } => write!(
                f,
                "the file is of a cluster with WAL segments of {} bytes, the stanza's has {}",
                offered.bytes(),
                held.bytes()
            ),
            Self::Wal(error) => fmt::Display::fmt(error, f),
        }
    }
}

impl std::error::Error for Trouble {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Wal(error) => error.source(),
            _ => None,
        }
    }
}

impl<E: Into<WalError>> From<E> for Trouble {
    fn from(error: E) -> Self {
        Self::Wal(error.into())
    }
}

/// Pushes one file.
///
/// After `Ok` with every outcome `Ok` the file is durable in every repository. In any other case each
/// repository has it whole or not at all, and pushing again is safe.
///
/// # Errors
/// When the file itself is at fault; no repository was changed.
pub fn push(push: Push<'_>) -> Result<Pushed, PushError> {
    match push.name {
        WalFileName::Segment(name) => segment::push(push, name, false),
        WalFileName::Partial(name) => segment::push(push, name, true),
        WalFileName::History(timeline) => push_history(push, timeline),
        WalFileName::BackupHistory(segment, offset) => {
            let contents = local::read_small(push.path, LONGEST_BACKUP_FILE)?;
            let system = local::system_identifier(push.path, push.data_directory)?;
            let outcomes = each(push, system, |wal, _| {
                Ok(store_backup_history(wal, segment, offset, &contents, push.env)?)
            });
            Ok(Pushed { system, outcomes, warnings: Vec::new() })
        }
    }
}

/// Does the same in every repository whose stanza holds the cluster, one after the other.
fn each(
    push: Push<'_>,
    system: SystemIdentifier,
    mut act: impl FnMut(ClusterWal<'_>, &Cluster) -> Result<Created, Trouble>,
) -> Vec<Result<Created, Trouble>> {
    push.repositories
        .iter()
        .map(|repo| {
            let wal = ClusterWal { repo, stanza: push.stanza, system };
            let cluster = require_cluster(wal)?;
            act(wal, &cluster)
        })
        .collect()
}

/// The cluster as the repository knows it.
fn require_cluster(wal: ClusterWal<'_>) -> Result<Cluster, Trouble> {
    match wal.repo.cluster(wal.stanza, wal.system)? {
        Some(cluster) => Ok(cluster),
        None => {
            let held: Vec<_> = wal.repo.clusters(wal.stanza)?.iter().map(|cluster| cluster.system).collect();
            Err(if held.is_empty() {
                Trouble::NoStanza
            } else {
                Trouble::NotThisCluster { system: wal.system, held }
            })
        }
    }
}

fn push_history(push: Push<'_>, timeline: TimelineId) -> Result<Pushed, PushError> {
    let longest = crate::postgres::history::LONGEST_HISTORY as u64;
    let contents = local::read_small(push.path, longest)?;
    let history = TimelineHistory::parse(timeline, &contents).map_err(PushError::History)?;
    let system = local::system_identifier(push.path, push.data_directory)?;
    let outcomes = each(push, system, |wal, _| {
        // Ancestors first: a history that is held implies that theirs are.
        for ancestor in history.entries() {
            let Some(implied) = history.implied_for(ancestor.timeline) else { continue };
            if !implied.entries().is_empty() {
                store_ancestor(wal, &implied, push.env)?;
            }
        }
        Ok(store_history(wal, &contents, &history, push.env)?)
    });
    Ok(Pushed { system, outcomes, warnings: Vec::new() })
}

/// An ancestor's history as a later one tells it: stored where it is missing. Where it is held it must say
/// the same, else the later timeline left a branch that is not the one whose WAL is held here.
fn store_ancestor(wal: ClusterWal<'_>, implied: &TimelineHistory, env: &dyn Env) -> Result<(), WalError> {
    let contents = implied.to_bytes();
    match settle_history(wal, implied.timeline(), &contents, implied) {
        Err(WalError::Repo(RepoError::Missing { .. })) => {
            store_history(wal, &contents, implied, env).map(|_| ())
        }
        other => other.map(|_| ()),
    }
}
