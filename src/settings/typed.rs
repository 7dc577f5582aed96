//! What the commands are given: settings as typed values. `accessors.rs` makes them.

use super::Cipher;
use crate::units::{ByteCount, Lsn, SegmentName, SystemIdentifier};
use std::path::PathBuf;
use std::time::Duration;

/// A repository that is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepositorySettings {
    /// Its number, from 1.
    pub index: u16,
    /// What kind of storage it is, and where.
    pub kind: RepositoryKind,
    /// How it is encrypted, and where the key is.
    pub cipher: Cipher,
    /// The file in which the key stands: its own, or the configuration's. `None` for a key of the environment or of a
    /// command, which may be on no disk of this host.
    pub key_file: Option<PathBuf>,
}

impl RepositorySettings {
    /// `repo1`, as it is called in messages.
    #[must_use]
    pub fn name(&self) -> String {
        format!("repo{}", self.index)
    }
}

/// Kinds of storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RepositoryKind {
    /// A directory.
    Posix {
        /// Absolute, unless it was given otherwise on the command line.
        path: PathBuf,
    },
    /// A bucket of an object store.
    Bucket(Box<super::BucketSettings>),
}

/// How to reach a server. What is `None` is left to `PG*` variables and libpq's defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSettings {
    /// Its number, from 1.
    pub index: u16,
    /// The data directory, where it lies on this host.
    pub path: Option<PathBuf>,
    /// Name or address; a directory of sockets when it begins with `/`.
    pub host: Option<String>,
    /// The port.
    pub port: Option<u16>,
    /// The directory of sockets.
    pub socket_path: Option<PathBuf>,
    /// The role.
    pub user: Option<String>,
    /// The database.
    pub database: Option<String>,
    /// A whole connection string, which comes before the fields above.
    pub conninfo: Option<String>,
    /// How long a question may take.
    pub timeout: Duration,
    /// How long the server may be silent.
    pub io_timeout: Duration,
}

/// How data is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// zstd at this level.
    Zstd(i32),
}

/// Text or JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgressStyle {
    /// A bar on a terminal, lines elsewhere.
    Auto,
    /// A bar.
    Bar,
    /// Lines.
    Lines,
    /// Not at all.
    None,
}

/// How much is said; each level includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Nothing.
    Off,
    /// Why a command failed.
    Error,
    /// What should be read although it worked.
    Warn,
    /// What was done.
    Info,
    /// Each file and object.
    Detail,
    /// What helps to find a bug.
    Debug,
    /// Everything.
    Trace,
}

/// What a backup is taken with.
#[derive(Clone, Debug)]
pub struct BackupSettings {
    /// Hurry the checkpoint.
    pub start_fast: bool,
    /// Bytes a second to read at most.
    pub max_rate: Option<ByteCount>,
    /// Wait for the archive and prove whose it is; else fetch the WAL by replication.
    pub archive_check: bool,
    /// `page-errors=fail`
    pub fail_on_page_errors: bool,
    /// How long to wait for each segment.
    pub archive_timeout: Duration,
    /// Notes, in the order given.
    pub annotations: Vec<(String, String)>,
    /// Bytes in a pack.
    pub pack_size: ByteCount,
    /// Decode again what was encoded.
    pub verify_writes: bool,
    /// How data is compressed.
    pub compression: Compression,
    /// Workers.
    pub process_max: usize,
    /// Where what does not fit in memory goes.
    pub spool_path: PathBuf,
}

/// What to answer when it cannot be found out whether a file is archived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfUnsure {
    /// As a standby where `standby.signal` is, else stop.
    Auto,
    /// 200.
    Stop,
    /// 1: PostgreSQL asks again.
    Standby,
}

/// What `archive-get` knows beside the name and the target.
#[derive(Clone, Debug)]
pub struct ArchiveGetSettings {
    /// The cluster whose WAL is wanted.
    pub system_id: Option<SystemIdentifier>,
    /// A number, `latest` or `current`, as it was given.
    pub target_timeline: Option<String>,
    /// The last segment that was archived when the recovery was planned.
    pub known_end: Option<SegmentName>,
    /// Where the recovery stops.
    pub needed_to: Option<Lsn>,
    /// The answer to doubts.
    pub if_unsure: IfUnsure,
}

/// How far to recover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestoreType {
    /// To the end of the archive.
    Default,
    /// Until consistent.
    Immediate,
    /// To a moment.
    Time,
    /// To a transaction.
    Xid,
    /// To a position.
    Lsn,
    /// To a restore point.
    Name,
    /// As a standby.
    Standby,
    /// With the settings of the image.
    Preserve,
    /// With the backup's own WAL and no archive.
    None,
}

/// What the server does at the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetAction {
    /// Stand still and answer questions.
    Pause,
    /// Open for writing.
    Promote,
    /// Stop.
    Shutdown,
}

/// Whether the restored server archives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArchiveMode {
    /// Off if the stanza's primary is alive.
    Auto,
    /// As it was.
    Preserve,
    /// Off.
    Off,
}

/// What a restore is made with.
#[derive(Clone, Debug)]
pub struct RestoreSettings {
    /// How far to recover.
    pub kind: RestoreType,
    /// The target as given; there is one exactly if `kind` is time, xid, lsn or name.
    pub target: Option<String>,
    /// Stop before the target.
    pub target_exclusive: bool,
    /// What the server does there.
    pub target_action: TargetAction,
    /// A number, `latest` or `current`, as it was given.
    pub target_timeline: Option<String>,
    /// A backup's id or a beginning of it.
    pub set: Option<String>,
    /// Where `pg_wal` shall lie.
    pub wal_directory: Option<PathBuf>,
    /// Where tablespaces shall lie: an OID or the original's directory, and the new one.
    pub tablespace_map: Vec<(String, String)>,
    /// Below which directory those shall lie that are not named.
    pub tablespace_map_all: Option<PathBuf>,
    /// Further settings, in the order given.
    pub recovery_options: Vec<(String, String)>,
    /// Whether the restored server archives.
    pub archive_mode: ArchiveMode,
    /// `user` or `user:group`, as given.
    pub owner: Option<String>,
    /// Replace what is in the directory.
    pub force: bool,
    /// Only plan.
    pub dry_run: bool,
    /// Where to restore to.
    pub path: PathBuf,
    /// Workers.
    pub process_max: usize,
    /// Where what does not fit in memory goes.
    pub spool_path: PathBuf,
}

/// What is verified, and how.
#[derive(Clone, Debug)]
pub struct VerifySettings {
    /// A backup's id or a beginning of it.
    pub set: Option<String>,
    /// The first and the last segment.
    pub wal: Option<(SegmentName, SegmentName)>,
    /// Stored bytes a second to read at most.
    pub max_rate: Option<ByteCount>,
    /// Workers.
    pub process_max: usize,
    /// Where what does not fit in memory goes.
    pub spool_path: PathBuf,
}

/// What of a repository stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetentionSettings {
    /// So many full backups, and all since the oldest of them.
    pub full: Option<u32>,
    /// All that is needed to go back to any moment within this time.
    pub window: Option<Duration>,
}

/// How backups are removed.
#[derive(Clone, Debug)]
pub struct ExpireSettings {
    /// A backup's id or a beginning of it: remove this one.
    pub set: Option<String>,
    /// Only plan.
    pub dry_run: bool,
    /// How long the data of a removed backup stays.
    pub delay: Duration,
    /// When a backup that did not end is given up.
    pub stuck_after: Duration,
    /// Workers.
    pub process_max: usize,
}

/// How a stanza is deleted.
#[derive(Clone, Copy, Debug)]
pub struct StanzaDeleteSettings {
    /// Only plan.
    pub dry_run: bool,
    /// Do what the plan shows.
    pub yes: bool,
    /// Delete pinned backups, too.
    pub force: bool,
    /// Workers.
    pub process_max: usize,
}

impl LogLevel {
    pub(super) fn from_word(word: &str) -> Self {
        match word {
            "off" => Self::Off,
            "error" => Self::Error,
            "warn" => Self::Warn,
            "detail" => Self::Detail,
            "debug" => Self::Debug,
            "trace" => Self::Trace,
            _ => Self::Info,
        }
    }

    /// The word of the settings.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Detail => "detail",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}
