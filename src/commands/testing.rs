//! Running a command inside a test: with settings from arguments, a fixed clock, and everything it says kept.

use super::{Context, Outcome, Runner};
use crate::env::{Env, Fixed};
use crate::failure::Failure;
use crate::pipeline::StopFlag;
use crate::repo::record::{
    ClusterState, LineageStep, MapPlace, PageChecksums, Record, Sizes, Started, Uses, WalProof,
};
use crate::report::{Captured, Report};
use crate::settings::{Files, Form, Given, Settings, Sources, command_named, resolve};
use crate::units::{BackupId, BackupKind, Lsn, SegmentName, TimelineId, Timestamp};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// 2026-11-21 09:41:16 UTC: what the clock says when it is asked first.
pub(super) const NOW: Timestamp = Timestamp::from_unix_seconds(1_795_254_076);

struct NoFiles;

impl Files for NoFiles {
    fn read(&self, _: &Path) -> std::io::Result<Vec<u8>> {
        Err(std::io::ErrorKind::NotFound.into())
    }
    fn list(&self, _: &Path) -> std::io::Result<Vec<PathBuf>> {
        Err(std::io::ErrorKind::NotFound.into())
    }
    fn readable_by_all(&self, _: &Path) -> bool {
        false
    }
}

/// What a command line of `--name=value` and other arguments comes to.
pub(super) fn settings(command: &str, line: &[&str]) -> Settings {
    let given: Vec<Given> = line
        .iter()
        .filter_map(|word| word.strip_prefix("--"))
        .map(|word| match word.split_once('=') {
            Some((name, value)) => Given { name: name.into(), form: Form::Set(value.into()) },
            None => Given { name: word.into(), form: Form::Set("y".into()) },
        })
        .collect();
    let environment = BTreeMap::new();
    let sources = Sources {
        command: command_named(command).expect("a command of the table"),
        for_showing: false,
        given: &given,
        environment: &environment,
        files: &NoFiles,
    };
    resolve(&sources).unwrap_or_else(|failure| panic!("{failure}"))
}

/// Runs a command with these arguments.
pub(super) fn run(command: &str, line: &[&str], runner: Runner) -> (Result<Outcome, Failure>, Captured) {
    with(command, line, runner)
}

/// Does something with what a command would be given.
pub(super) fn with<R>(command: &str, line: &[&str], act: impl FnOnce(&Context<'_>) -> R) -> (R, Captured) {
    // No two runs of a command draw the same random numbers.
    static SEED: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    let seed = SEED.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let env: &'static dyn Env = Box::leak(Box::new(Fixed::new(NOW, seed)));
    let settings = settings(command, line);
    let arguments: Vec<OsString> =
        line.iter().filter(|word| !word.starts_with("--")).map(OsString::from).collect();
    let (report, seen) = Report::captured();
    let context =
        Context { settings: &settings, arguments: &arguments, env, report: &report, stop: StopFlag::new() };
    (act(&context), seen)
}

/// A repository on disk, made without a server.
pub(super) struct Shelf {
    directory: tempfile::TempDir,
    pub repository: crate::repo::Repository,
    pub env: Fixed,
}

/// The stanza of tests.
pub(super) fn shop() -> crate::units::Stanza {
    "shop".parse().expect("a stanza")
}

/// The cluster of tests, with WAL segments of 1 MiB.
pub(super) fn cluster() -> crate::repo::Cluster {
    crate::repo::Cluster {
        system: crate::units::SystemIdentifier::new(7_572_093_145_086_623_041),
        major: crate::units::PgMajor::new(17),
        page_size: 8192,
        segment_size: crate::units::SegmentSize::new(1 << 20).expect("a size"),
        blocks_per_file: 131_072,
    }
}

/// So many hours before [`NOW`].
pub(super) fn hours_ago(hours: i64) -> Timestamp {
    Timestamp::from_unix_seconds(NOW.as_unix_seconds() - hours * 3600)
}

/// The record of a full backup, so many hours old.
pub(super) fn record(hours: i64) -> Record {
    record_of(hours, BackupKind::Full, 1, 2, 3)
}

/// That of a backup that began in segment `first` and stopped in `last`, that long ago.
pub(super) fn record_of(hours: i64, kind: BackupKind, on: u32, first: u64, last: u64) -> Record {
    let timeline = TimelineId::new(on).expect("a timeline");
    let stopped = hours_ago(hours);
    let started = Timestamp::from_unix_seconds(stopped.as_unix_seconds() - 184);
    let lsn = |segment: u64, offset: u64| Lsn::new(segment * (1 << 20) + offset);
    Record {
        backup_id: BackupId::new(started, kind, [u8::try_from(hours & 31).expect("a byte"); 13]),
        system_identifier: cluster().system,
        timeline,
        start_lsn: lsn(first, 0x28),
        stop_lsn: lsn(last, 0x1B8),
        checkpoint_lsn: lsn(first, 0x60),
        started_at_unix_us: started,
        stopped_at_unix_us: stopped,
        from_standby: false,
        backup_label: String::new(),
        tablespaces: Vec::new(),
        lineage: vec![LineageStep { timeline, begin_lsn: Lsn::INVALID }],
        wal_proof: WalProof {
            segment: SegmentName::from_number(timeline, last, cluster().segment_size).expect("a segment"),
            until_lsn: lsn(last, 0x1B8),
            sha256: String::new(),
        },
        cluster: ClusterState {
            server_version_num: 170_011,
            control_version: 1300,
            catalog_version: 202_406_281,
            data_checksum_version: 1,
            page_size_bytes: 8192,
            wal_segment_size_bytes: 1 << 20,
            blocks_per_file: 131_072,
        },
        sizes: Sizes {
            database_bytes: 412_000_000_000,
            stored_bytes: 131_200_000_000,
            added_bytes: 3_900_000_000,
            files: 84_112,
            packs: 233,
        },
        map: MapPlace { objects: 1, index_object: 0, index_frame: 0, pages: 1, entries: 1 },
        page_checksums: PageChecksums { enabled: true, ..PageChecksums::default() },
        configuration_outside: Vec::new(),
        annotations: BTreeMap::new(),
        seen: Vec::new(),
        writer: "w".into(),
        walden_version: "0.1.0".into(),
    }
}

impl Shelf {
    /// A repository, encrypted with a key in a file beside it, that holds [`cluster`] as [`shop`].
    pub fn new() -> Self {
        let env = Self::env(1);
        let secret = crate::repo::keys::Secret::generate(&env).expect("a key");
        let text = secret.key_string().expect("a key string").to_string();
        Self::made(&secret, &text, env)
    }

    /// The same with this passphrase, and other keys each time.
    pub fn sealed_with(passphrase: &str) -> Self {
        static SEED: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1000);
        let env = Self::env(SEED.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        let secret = crate::repo::keys::Secret::parse(passphrase).expect("a passphrase");
        Self::made(&secret, passphrase, env)
    }

    fn env(seed: u64) -> Fixed {
        Fixed::new(Timestamp::from_unix_seconds(1_790_000_000), seed)
    }

    fn made(secret: &crate::repo::keys::Secret, text: &str, env: Fixed) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("key"), text).expect("a key file");
        let store = crate::storage::posix::PosixStore::create_root(&directory.path().join("repo"));
        let store = std::sync::Arc::new(store.expect("a store"));
        let repository =
            crate::repo::Repository::create(store, Some(secret), "filesystem", &env).expect("a repository");
        repository.add_cluster(&shop(), &cluster(), &env).expect("a stanza");
        Self { directory, repository, env }
    }

    /// The path of something in its directory.
    pub fn join(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The options that name it as repository `index`.
    pub fn options(&self, index: u16) -> Vec<String> {
        vec![
            format!("--repo{index}-path={}", self.join("repo").display()),
            format!("--repo{index}-cipher-type=aes-256-gcm"),
            format!("--repo{index}-cipher-pass-file={}", self.join("key").display()),
        ]
    }

    /// Begins the backup of this record, and leaves it open.
    pub fn begin(&self, record: &Record) -> crate::repo::catalog::Draft {
        let started = Started {
            backup_id: record.backup_id.clone(),
            system_identifier: record.system_identifier,
            parents: Vec::new(),
            writer: record.writer.clone(),
            wal_floor_lsn: record.start_lsn,
            wal_floor_timeline: record.timeline,
            started_at_unix_us: record.started_at_unix_us,
            resume_of: None,
        };
        self.repository.begin_backup(&shop(), &started, &self.env).expect("begun")
    }

    /// Makes the backup of this record exist, without any data.
    pub fn commit(&self, record: &Record) {
        self.begin(record).commit(record, &Uses::default(), &self.env).expect("committed");
    }

    /// Stores a complete WAL segment of zeros that says of itself that its last transaction ended at `last_commit`.
    pub fn store_segment(&self, name: &str, last_commit: Option<Timestamp>) {
        use crate::repo::frame::{Compression, EncodedFrame, FrameEncoder};
        use crate::wal::{ClusterWal, CommitPoint, ContentHash, SegmentInfo, Verdict, write};
        let (stanza, cluster) = (shop(), cluster());
        let wal = ClusterWal { repo: &self.repository, stanza: &stanza, system: cluster.system };
        let name = name.parse().expect("a segment");
        let plain = vec![0; usize::try_from(cluster.segment_size.bytes()).expect("a size")];
        let commit = last_commit.map(|at| CommitPoint { at, xid: 700 });
        let info = SegmentInfo {
            name,
            system: cluster.system,
            size: plain.len() as u64,
            hash: ContentHash::of(&plain),
            verdict: Verdict::Complete,
            valid: plain.len() as u64,
            page_magic: Some(0xD116),
            first_commit: commit,
            last_commit: commit,
            tablespaces_created: Vec::new(),
        };
        let complete = write::Destination::Complete;
        let mut writer =
            write::SegmentWriter::begin(wal, name, complete, cluster.segment_size, &self.env).expect("begun");
        let mut encoder = FrameEncoder::new(Compression::Zstd(1), false).expect("an encoder");
        for part in plain.chunks(128 * 1024) {
            let mut frame = EncodedFrame::default();
            encoder.encode(part, &mut frame).expect("encoded");
            writer.append(part, &mut frame).expect("appended");
        }
        writer.finish(&info).and_then(write::Finished::commit).expect("stored");
    }
}

/// Compares with `fixtures/golden/NAME`; `UPDATE=1` rewrites it.
pub fn golden(name: &str, actual: &str) {
    let path = format!("{}/fixtures/golden/{name}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE").is_some_and(|value| value == "1") {
        std::fs::create_dir_all(std::path::Path::new(&path).parent().unwrap()).unwrap();
        std::fs::write(&path, actual).unwrap();
        return;
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}\n{actual}"));
    assert!(expected == actual, "{path} differs; now it is\n{actual}");
}
