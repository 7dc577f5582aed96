//! Why there is no plan, and what to read before going on with one.

use crate::repo::RepoError;
use crate::restore::directory::DirectoryError;
use crate::restore::reach::Unreachable;
use crate::restore::scan::ScanError;
use crate::restore::settings::OptionError;
use crate::restore::tablespaces::TablespaceError;
use crate::units::{BackupId, ByteCount, Lsn, SegmentName, SegmentSize, TimelineId, Timestamp};
use crate::wal::WalError;
use crate::wal::archive::lineage::SegmentRange;
use std::fmt;
use std::path::PathBuf;

/// A stretch to which one can recover, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowSeen {
    /// Its timeline.
    pub timeline: TimelineId,
    /// The end of its first backup.
    pub from: Timestamp,
    /// The same place in the WAL.
    pub from_lsn: Lsn,
    /// The last commit in it, where it is known.
    pub to: Option<Timestamp>,
    /// How far its WAL reaches.
    pub to_lsn: Lsn,
}

/// Something to read before going on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// A repository could not be read, so nobody knows what it holds.
    Unread {
        /// By its place in the list.
        repository: usize,
        /// Why.
        why: String,
    },
    /// A standby will find a gap in the archive.
    GapAhead(SegmentRange),
    /// The name was given to more than one restore point; recovery stops at the first.
    NameTwice(Lsn),
    /// Pages of the backup failed their checksums when it was taken.
    BadPages(u64),
    /// Configuration files are elsewhere and not in the backup.
    ConfigurationOutside(Vec<String>),
}

/// Why there is no plan. Nothing was touched.
#[derive(Debug)]
pub enum PlanError {
    /// There is no backup in any repository.
    NoBackup,
    /// No backup's id begins so.
    NoSuchSet(String),
    /// Several do.
    AmbiguousSet {
        /// What was given.
        set: String,
        /// Some that fit.
        fitting: Vec<BackupId>,
    },
    /// Nothing is known of the timeline.
    UnknownTimeline {
        /// The timeline.
        timeline: TimelineId,
        /// Those that are known.
        known: Vec<TimelineId>,
    },
    /// The newest timeline cannot be followed: nothing held tells where it came from, so that nobody knows
    /// whether an older one would be a dead branch.
    TimelineWithoutHistory(TimelineId),
    /// The backup that was named does not lie on the timeline.
    SetNotOnTimeline {
        /// The backup.
        id: BackupId,
        /// Its own timeline.
        own: TimelineId,
        /// The one that was asked for.
        timeline: TimelineId,
    },
    /// The target lies before the end of every backup, or of the one that was named.
    TooEarly {
        /// The named backup, and when it ended.
        set: Option<(BackupId, Timestamp)>,
        /// Where one can go.
        windows: Vec<WindowSeen>,
    },
    /// The target cannot be reached.
    Unreachable {
        /// Why.
        why: Unreachable,
        /// Bytes of a segment.
        segment_size: SegmentSize,
        /// Where one can go.
        windows: Vec<WindowSeen>,
    },
    /// WAL that the backup itself needs is missing.
    BackupWalMissing {
        /// The backup.
        id: BackupId,
        /// What is missing.
        missing: Vec<SegmentRange>,
        /// Bytes of a segment.
        segment_size: SegmentSize,
    },
    /// WAL seems to be missing, but a repository could not be read.
    Unsure {
        /// By its place in the list.
        repository: usize,
        /// Why.
        source: RepoError,
    },
    /// The archived WAL is of another branch than the backup: another server archived in its place.
    OtherBranch {
        /// The backup.
        id: BackupId,
        /// The segment that is not the one that the backup saw.
        segment: SegmentName,
    },
    /// Not enough space.
    NoSpace {
        /// Where.
        path: PathBuf,
        /// What of the restore goes there: the data directory, tablespaces by OID.
        what: Vec<Option<u32>>,
        /// What is needed there.
        needed: ByteCount,
        /// What there is.
        free: ByteCount,
    },
    /// The directory.
    Directory(DirectoryError),
    /// `--tablespace-map`.
    Tablespaces(TablespaceError),
    /// A `--recovery-option`.
    Option(OptionError),
    /// A repository; by its place in the list.
    Repo(usize, RepoError),
    /// The archive.
    Wal(WalError),
    /// WAL could not be looked into.
    Scan(ScanError),
    /// A record says something that cannot be.
    BadRecord {
        /// The backup.
        id: BackupId,
        /// What.
        why: &'static str,
    },
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoBackup => f.write_str("there is no backup"),
            Self::NoSuchSet(set) => write!(f, "no backup's id begins with \"{set}\""),
            Self::AmbiguousSet { set, .. } => {
                write!(f, "\"{set}\" is the beginning of more than one backup's id")
            }
            Self::UnknownTimeline { timeline, .. } => write!(f, "nothing is known of timeline {timeline}"),
            Self::TimelineWithoutHistory(timeline) => write!(
                f,
                "WAL of timeline {timeline} is held, and {} is in no repository",
                timeline.history_name()
            ),
            Self::SetNotOnTimeline { id, own, timeline } => {
                write!(
                    f,
                    "backup {id} ended on timeline {own}, from where no way leads to timeline {timeline}"
                )
            }
            Self::TooEarly { .. } => f.write_str("the target lies before the end of every backup"),
            Self::Unreachable { why, .. } => fmt::Display::fmt(why, f),
            Self::BackupWalMissing { id, .. } => write!(f, "WAL that backup {id} itself needs is missing"),
            Self::Unsure { .. } => {
                f.write_str("WAL is missing in the repositories that answer, and one does not")
            }
            Self::OtherBranch { id, segment } => {
                write!(f, "the archived segment {segment} is not the one that backup {id} ended in")
            }
            Self::NoSpace { path, needed, free, .. } => {
                write!(f, "{} has {free} free, and {needed} are needed", path.display())
            }
            Self::Directory(error) => fmt::Display::fmt(error, f),
            Self::Tablespaces(error) => fmt::Display::fmt(error, f),
            Self::Option(error) => fmt::Display::fmt(error, f),
            Self::Repo(_, error) => fmt::Display::fmt(error, f),
            Self::Wal(error) => fmt::Display::fmt(error, f),
            Self::Scan(error) => fmt::Display::fmt(error, f),
            Self::BadRecord { id, why } => write!(f, "the record of backup {id} {why}"),
        }
    }
}

impl std::error::Error for PlanError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unsure { source, .. } => Some(source),
            Self::Directory(error) => error.source(),
            Self::Repo(_, error) => error.source(),
            Self::Wal(error) => error.source(),
            Self::Scan(error) => error.source(),
            _ => None,
        }
    }
}
