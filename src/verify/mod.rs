//! Is everything that is stored what was stored? Every object of every backup and all WAL is read, opened and
//! hashed, and held against what else says of it.
//!
//! ```text
//! catalog ─ records ─┬─ packs, each once (workers) ─ maps against packs, backup by backup
//!                    └─ WAL, folder by folder (workers) ─ what the listing lacks, timeline by timeline
//! ```
//! A verification needs no right to write, and runs beside backups, pushes and expire: what is found missing is
//! looked for again, with the catalog as it is then. Memory: the lists of packs (24 bytes each), one pack's
//! stretch and one frame a worker, and what was found wrong, with limits.
//!
//! Not its business: whether a restored cluster starts (`drill`), and page checksums, which `backup` looks at.

mod backups;
mod finding;
mod judge;
mod listing;
mod packs;
mod run;
mod segments;
mod timelines;
mod work;

#[cfg(test)]
mod tests;

pub use finding::{Affected, Findings, Problem, Strays, Verdict, Wrong};

use crate::env::Env;
use crate::repo::{RepoError, Repository};
use crate::units::{BackupId, ByteCount, SegmentName, Stanza, SystemIdentifier, TimelineId};
use std::fmt;
use std::path::PathBuf;
use work::Meter;

/// What is to be verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All backups and all WAL.
    Everything,
    /// One backup, and the WAL without which it cannot be restored.
    Backup(BackupId),
    /// The segments from the first to the last, of one timeline, and whatever lies beside them.
    Wal(SegmentName, SegmentName),
}

/// How it is to be verified.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The repository.
    pub repository: &'a Repository,
    /// The stanza.
    pub stanza: &'a Stanza,
    /// What.
    pub scope: Scope,
    /// Threads, at least one.
    pub workers: usize,
    /// Stored bytes a second to read at most.
    pub max_rate: Option<ByteCount>,
    /// Where a file without a name goes.
    pub spool: PathBuf,
}

/// The phases, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Records are read.
    Catalog,
    /// Packs are read.
    Packs,
    /// Maps are held against them.
    Maps,
    /// WAL is read.
    Wal,
}

/// What a verification tells while it runs, and how it is asked to stop.
pub trait Observer: Sync {
    /// Whether to stop. Asked for every job.
    fn interrupted(&self) -> bool;
    /// So many more stored bytes were read.
    fn read(&self, bytes: u64);
    /// What is being done now, and how many stored bytes it concerns.
    fn phase(&self, phase: Phase, total: Option<ByteCount>);
}

/// Why there is no result.
#[derive(Debug)]
pub enum VerifyError {
    /// The repository could not be listed: nothing can be said.
    Repo(RepoError),
    /// A file in the spool directory.
    Spool(std::io::Error),
    /// No memory or no thread.
    Resources(std::io::Error),
    /// It was asked to stop.
    Stopped,
}

impl fmt::Display for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Repo(error) => fmt::Display::fmt(error, f),
            Self::Spool(_) => f.write_str("a file in spool-path could not be used"),
            Self::Resources(_) => f.write_str("there is no memory or no thread"),
            Self::Stopped => f.write_str("it was asked to stop"),
        }
    }
}

impl std::error::Error for VerifyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Repo(error) => error.source(),
            Self::Spool(error) | Self::Resources(error) => Some(error),
            Self::Stopped => None,
        }
    }
}

impl From<RepoError> for VerifyError {
    fn from(error: RepoError) -> Self {
        match error {
            RepoError::Spool(error) => Self::Spool(error),
            other => Self::Repo(other),
        }
    }
}

/// What came of one backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedBackup {
    /// Which.
    pub id: BackupId,
    /// What is wrong with it.
    pub findings: Findings,
    /// Objects it consists of, without WAL.
    pub objects: u64,
    /// Their stored bytes.
    pub bytes: u64,
    /// Regular files in its map.
    pub files: u64,
}

/// What came of the WAL of one timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedTimeline {
    /// The cluster.
    pub system: SystemIdentifier,
    /// The timeline.
    pub timeline: TimelineId,
    /// What is wrong with it.
    pub findings: Findings,
    /// Complete segments that were read.
    pub segments: u64,
    /// Unfinished copies that were read: good as far as they go.
    pub partials: u64,
    /// Tails that were read.
    pub tails: u64,
    /// Segments of a PostgreSQL that this version does not know: whole, but their records were not looked at.
    pub unknown: u64,
    /// Stored bytes.
    pub bytes: u64,
    /// The oldest and the newest complete segment that are held.
    pub ends: Option<(SegmentName, SegmentName)>,
    /// Where the WAL of the newest one ends inside it: no damage, its server stopped there.
    pub ends_inside: Option<(SegmentName, String)>,
}

/// Why a backup was not judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is being taken, or was interrupted.
    Open,
    /// It was aborted.
    Aborted,
    /// It was given up.
    Retired,
    /// It was given up while the verification ran.
    RemovedMeanwhile,
}

/// What came of a verification.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Backups that exist, the newest first.
    pub backups: Vec<CheckedBackup>,
    /// WAL, by cluster and timeline.
    pub timelines: Vec<CheckedTimeline>,
    /// What belongs to neither.
    pub general: Findings,
    /// Backups that do not exist, or not any more.
    pub not_judged: Vec<(BackupId, Standing)>,
    /// Objects that nothing knows of.
    pub strays: Strays,
    /// Objects that were read to their end.
    pub objects: u64,
    /// Stored bytes that were read.
    pub bytes: u64,
}

impl Verified {
    /// What all of it comes to. [`Verdict::Good`] only if everything that was asked for was read and is good.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let backups = self.backups.iter().map(|one| one.findings.verdict());
        let timelines = self.timelines.iter().map(|one| one.findings.verdict());
        backups.chain(timelines).chain([self.general.verdict()]).max().unwrap_or(Verdict::Good)
    }
}

/// Verifies.
///
/// # Errors
/// [`VerifyError`] when nothing can be said at all; what is wrong with objects is in the result.
pub fn verify(
    request: &Request<'_>,
    env: &dyn Env,
    observer: &dyn Observer,
) -> Result<Verified, VerifyError> {
    let meter = Meter::new(observer, request.max_rate);
    let mut verified = run::Run { request, env, observer, meter: &meter }.everything()?;
    verified.objects = meter.objects();
    verified.bytes = meter.bytes();
    Ok(verified)
}
