//! `global/pg_control`: who the cluster is and where its recovery begins (`ControlFileData`,
//! catalog/pg_control.h; read as `get_controlfile` of common/controldata_utils.c does).
//!
//! Only versions listed in this file are read. A newer one may have moved any field, so it is refused by
//! its number, never guessed at.

use super::check_point::{CheckPoint, CheckPointLayout, WalLevel, flag};
use super::little_endian::{i64_at, u32_at, u64_at};
use crate::units::{Lsn, PgMajor, SegmentSize, SystemIdentifier, TimelineId, Timestamp};
use std::fmt;

/// Bytes of the file on disk (`PG_CONTROL_FILE_SIZE`), whatever the version.
pub const CONTROL_FILE_SIZE: usize = 8192;

/// What the cluster was doing when the file was written (`DBState`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterState {
    /// Starting for the first time.
    Startup,
    /// Shut down cleanly.
    ShutDown,
    /// Shut down cleanly as a standby.
    ShutDownInRecovery,
    /// Writing the shutdown checkpoint.
    ShuttingDown,
    /// Recovering from a crash.
    InCrashRecovery,
    /// Recovering from an archive, or a standby.
    InArchiveRecovery,
    /// Running; or crashed while it was.
    InProduction,
}

impl ClusterState {
    const fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::Startup,
            1 => Self::ShutDown,
            2 => Self::ShutDownInRecovery,
            3 => Self::ShuttingDown,
            4 => Self::InCrashRecovery,
            5 => Self::InArchiveRecovery,
            6 => Self::InProduction,
            _ => return None,
        })
    }
}

/// `pg_control_version` → the majors that write it, the layout of their checkpoint, and how the rest differs.
const VERSIONS: &[Version] = &[
    Version { number: 1300, major: None, check_point: CheckPointLayout::Before17, slru: 0, tail: 160 },
    Version { number: 1700, major: Some(17), check_point: CheckPointLayout::Since17, slru: 0, tail: 160 },
    // A byte for the signedness of char came before the nonce.
    Version { number: 1800, major: Some(18), check_point: CheckPointLayout::Since17, slru: 0, tail: 164 },
    // Also the pages of an SLRU segment, and a second word for the state of the checksums.
    Version { number: 1905, major: Some(19), check_point: CheckPointLayout::Since19, slru: 4, tail: 172 },
];

struct Version {
    number: u32,
    /// Where the number alone tells it.
    major: Option<u16>,
    check_point: CheckPointLayout,
    /// Bytes inserted before `xlog_blcksz`.
    slru: usize,
    /// From the end of the checkpoint to the checksum.
    tail: usize,
}

impl Version {
    /// Where what follows the checkpoint's copy begins.
    const fn rest(&self) -> usize {
        CHECK_POINT_COPY + self.check_point.size()
    }

    /// The checksum that the file names and the one that its bytes give; `None` when it is too short.
    fn checksums(&self, file: &[u8]) -> Option<(u32, u32)> {
        let end = self.rest() + self.tail;
        Some((u32_at(file, end)?, crc32c::crc32c(file.get(..end)?)))
    }
}

/// `CATALOG_VERSION_NO` (catalog/catversion.h) of each release; fixed once a major is released.
const CATALOG_VERSIONS: &[(u32, u16)] = &[
    (202_007_201, 13),
    (202_107_181, 14),
    (202_209_061, 15),
    (202_307_071, 16),
    (202_406_281, 17),
    (202_506_291, 18),
];

/// The major whose releases have this catalogue version; `None` for one not known here.
#[must_use]
pub fn major_of_catalog_version(catalog_version: u32) -> Option<PgMajor> {
    CATALOG_VERSIONS
        .iter()
        .find(|(version, _)| *version == catalog_version)
        .map(|(_, major)| PgMajor::new(*major))
}

/// The contents of one `pg_control`, its checksum verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlFile {
    /// Made once, by `initdb`.
    pub system_identifier: SystemIdentifier,
    /// The version of this file's own layout.
    pub control_version: u32,
    /// The version of the system catalogues.
    pub catalog_version: u32,
    /// The major that writes such a file; `None` where neither version is one of a release.
    pub major: Option<PgMajor>,
    /// What the cluster was doing.
    pub state: ClusterState,
    /// When the file was last written; whole seconds.
    pub time: Timestamp,
    /// Where the latest checkpoint's record begins.
    pub check_point: Lsn,
    /// The copy of that record.
    pub check_point_copy: CheckPoint,
    /// Replay must reach this before the cluster is consistent; invalid outside archive recovery.
    pub min_recovery_point: Lsn,
    /// The timeline of `min_recovery_point`; `None` outside archive recovery.
    pub min_recovery_timeline: Option<TimelineId>,
    /// The redo position of the backup being recovered from, until its end is reached.
    pub backup_start_point: Lsn,
    /// Where a backup taken from a standby ends, until that is reached.
    pub backup_end_point: Lsn,
    /// Whether an end-of-backup record must still be met.
    pub backup_end_required: bool,
    /// The server's `wal_level`.
    pub wal_level: WalLevel,
    /// Whether hint bits are logged without data checksums.
    pub wal_log_hints: bool,
    /// `max_connections`: a standby needs at least as many, as for the next four.
    pub max_connections: u32,
    /// `max_worker_processes`.
    pub max_worker_processes: u32,
    /// `max_wal_senders`.
    pub max_wal_senders: u32,
    /// `max_prepared_transactions`.
    pub max_prepared_transactions: u32,
    /// `max_locks_per_transaction`.
    pub max_locks_per_transaction: u32,
    /// `track_commit_timestamp`.
    pub track_commit_timestamp: bool,
    /// Bytes of a data page (`BLCKSZ`).
    pub page_size: u32,
    /// Pages of a relation's file before the next file begins (`RELSEG_SIZE`).
    pub pages_per_relation_file: u32,
    /// Bytes of a WAL page (`XLOG_BLCKSZ`).
    pub wal_page_size: u32,
    /// Bytes of a WAL segment.
    pub wal_segment_size: SegmentSize,
    /// 0 = pages have no checksums, 1 = they have. From PostgreSQL 19: 2 = being switched off, 3 = on.
    pub data_checksum_version: u32,
}

impl ControlFile {
    /// Reads the whole file.
    ///
    /// # Errors
    /// See [`ControlFileError`]: nothing is returned that the checksum does not cover.
    pub fn parse(file: &[u8]) -> Result<Self, ControlFileError> {
        if file.len() != CONTROL_FILE_SIZE {
            return Err(ControlFileError::Length(file.len()));
        }
        let number = u32_at(file, 8).ok_or(ControlFileError::Length(file.len()))?;
        let Some(version) = VERSIONS.iter().find(|v| v.number == number) else {
            return Self::parse_unknown(file, number);
        };
        match version.checksums(file) {
            Some((stored, computed)) if stored == computed => Self::fields(file, version),
            Some((stored, computed)) => Err(ControlFileError::Checksum { stored, computed }),
            None => Err(ControlFileError::Length(file.len())),
        }
    }

    /// A version that is newer than any known: its layout may still be one of ours. The checksum stands behind the
    /// fields, so only where they are laid out alike is it found, and right.
    fn parse_unknown(file: &[u8], number: u32) -> Result<Self, ControlFileError> {
        if (900..10_000).contains(&number.swap_bytes()) {
            return Err(ControlFileError::OtherByteOrder);
        }
        let newest = VERSIONS.iter().map(|version| version.number).max().unwrap_or(0);
        let fits = |version: &&Version| {
            number > newest && version.checksums(file).is_some_and(|(stored, computed)| stored == computed)
        };
        let alike = VERSIONS.iter().rev().find(fits).ok_or(ControlFileError::UnknownVersion(number))?;
        Self::fields(file, &Version { number, major: None, ..*alike })
    }

    /// Reads the fields. The checksum was right, so a value out of range is not an accident of storage.
    fn fields(file: &[u8], version: &Version) -> Result<Self, ControlFileError> {
        let rest = version.rest();
        let number = |name, at| u32_at(file, at).ok_or(ControlFileError::Field(name));
        let position = |name, at| u64_at(file, at).map(Lsn::new).ok_or(ControlFileError::Field(name));
        let switch =
            |name, at: usize| file.get(at).and_then(|b| flag(*b)).ok_or(ControlFileError::Field(name));
        let power = |name, at, most: u32| match number(name, at)? {
            size if size.is_power_of_two() && (1024..=most).contains(&size) => Ok(size),
            _ => Err(ControlFileError::Field(name)),
        };
        if number("maxAlign", rest + 76)? != 8
            || u64_at(file, rest + 80).map(f64::from_bits) != Some(1_234_567.0)
        {
            return Err(ControlFileError::OtherArchitecture);
        }
        let after = rest + 96 + version.slru;
        let catalog_version = number("catalog_version_no", 12)?;
        let pages_per_relation_file = number("relseg_size", rest + 92)?;
        if pages_per_relation_file == 0 {
            return Err(ControlFileError::Field("relseg_size"));
        }
        Ok(Self {
            system_identifier: SystemIdentifier::new(
                u64_at(file, 0).ok_or(ControlFileError::Field("system_identifier"))?,
            ),
            control_version: version.number,
            catalog_version,
            major: version.major.map(PgMajor::new).or_else(|| major_of_catalog_version(catalog_version)),
            state: ClusterState::from_number(number("state", 16)?).ok_or(ControlFileError::Field("state"))?,
            time: Timestamp::from_unix_seconds(i64_at(file, 24).ok_or(ControlFileError::Field("time"))?),
            check_point: position("checkPoint", 32)?,
            check_point_copy: file
                .get(CHECK_POINT_COPY..rest)
                .and_then(|bytes| CheckPoint::parse(version.check_point, bytes))
                .ok_or(ControlFileError::Field("checkPointCopy"))?,
            min_recovery_point: position("minRecoveryPoint", rest + 8)?,
            min_recovery_timeline: TimelineId::new(number("minRecoveryPointTLI", rest + 16)?),
            backup_start_point: position("backupStartPoint", rest + 24)?,
            backup_end_point: position("backupEndPoint", rest + 32)?,
            backup_end_required: switch("backupEndRequired", rest + 40)?,
            wal_level: WalLevel::from_number(number("wal_level", rest + 44)?)
                .ok_or(ControlFileError::Field("wal_level"))?,
            wal_log_hints: switch("wal_log_hints", rest + 48)?,
            max_connections: number("MaxConnections", rest + 52)?,
            max_worker_processes: number("max_worker_processes", rest + 56)?,
            max_wal_senders: number("max_wal_senders", rest + 60)?,
            max_prepared_transactions: number("max_prepared_xacts", rest + 64)?,
            max_locks_per_transaction: number("max_locks_per_xact", rest + 68)?,
            track_commit_timestamp: switch("track_commit_timestamp", rest + 72)?,
            page_size: power("blcksz", rest + 88, 32 << 10)?,
            pages_per_relation_file,
            wal_page_size: power("xlog_blcksz", after, 64 << 10)?,
            wal_segment_size: SegmentSize::new(u64::from(number("xlog_seg_size", after + 4)?))
                .map_err(|_| ControlFileError::Field("xlog_seg_size"))?,
            data_checksum_version: number("data_checksum_version", after + 28)?,
        })
    }

    /// Whether every page carries a checksum that may be verified: neither off nor being switched.
    #[must_use]
    pub const fn data_checksums_are_on(&self) -> bool {
        self.data_checksum_version == 1
    }
}

/// Where `checkPointCopy` lies in every version.
const CHECK_POINT_COPY: usize = 40;

/// Why the bytes are not a `pg_control` that can be read here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlFileError {
    /// Not 8192 bytes, but this many.
    Length(usize),
    /// A `pg_control_version` that this program does not know: a newer or older PostgreSQL, or damage.
    UnknownVersion(u32),
    /// Written by a server of the other byte order.
    OtherByteOrder,
    /// The file does not have the checksum that it names.
    Checksum {
        /// What the file says.
        stored: u32,
        /// What its bytes give.
        computed: u32,
    },
    /// Written on a machine with another alignment or another floating-point format.
    OtherArchitecture,
    /// A field, by PostgreSQL's name, has a value that PostgreSQL never writes.
    Field(&'static str),
}

impl fmt::Display for ControlFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length(found) => write!(f, "pg_control has {found} bytes instead of {CONTROL_FILE_SIZE}"),
            Self::UnknownVersion(number) => {
                write!(f, "pg_control is of version {number}, which this program does not know")
            }
            Self::OtherByteOrder => f.write_str("pg_control was written by a server of the other byte order"),
            Self::Checksum { stored, computed } => {
                write!(f, "pg_control is damaged: its checksum is {computed:08x}, but it says {stored:08x}")
            }
            Self::OtherArchitecture => {
                f.write_str("pg_control was written on a machine with another alignment or number format")
            }
            Self::Field(name) => write!(f, "pg_control has an impossible value in \"{name}\""),
        }
    }
}

impl std::error::Error for ControlFileError {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn example() -> Vec<u8> {
        std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/postgres/18/pg_control")).unwrap()
    }

    fn seal(file: &mut [u8], end: usize) {
        let crc = crc32c::crc32c(&file[..end]);
        file[end..end + 4].copy_from_slice(&crc.to_le_bytes());
    }

    /// `fixtures/postgres/MAJOR/controldata` is what that server's own `pg_controldata` prints.
    #[test]
    fn every_major_is_read_as_its_own_pg_controldata_reads_it() {
        for major in 14..=19u16 {
            let dir = format!("{}/fixtures/postgres/{major}", env!("CARGO_MANIFEST_DIR"));
            let text = std::fs::read_to_string(format!("{dir}/controldata")).unwrap();
            let said = |key: &str| {
                text.lines()
                    .find_map(|l| l.strip_prefix(key).and_then(|rest| rest.strip_prefix(':')))
                    .unwrap_or_else(|| panic!("{major}: no {key}"))
                    .trim()
                    .to_owned()
            };
            let lsn = |key: &str| said(key).parse::<Lsn>().unwrap();
            let found = ControlFile::parse(&std::fs::read(format!("{dir}/pg_control")).unwrap())
                .unwrap_or_else(|e| panic!("{major}: {e}"));
            let copy = &found.check_point_copy;
            assert_eq!(found.major, Some(PgMajor::new(major)));
            assert_eq!(found.system_identifier.to_string(), said("Database system identifier"));
            assert_eq!(found.control_version.to_string(), said("pg_control version number"));
            assert_eq!(found.catalog_version.to_string(), said("Catalog version number"));
            assert_eq!(said("Database cluster state"), "in production");
            assert_eq!(found.state, ClusterState::InProduction);
            assert_eq!(found.check_point, lsn("Latest checkpoint location"));
            assert_eq!(copy.redo, lsn("Latest checkpoint's REDO location"));
            assert_eq!(copy.timeline.to_string(), said("Latest checkpoint's TimeLineID"));
            assert_eq!(copy.previous_timeline.to_string(), said("Latest checkpoint's PrevTimeLineID"));
            assert_eq!(copy.full_page_writes, said("Latest checkpoint's full_page_writes") == "on");
            let xid = format!("{}:{}", copy.next_xid >> 32, copy.next_xid as u32);
            assert_eq!(xid, said("Latest checkpoint's NextXID"));
            assert_eq!(copy.next_oid.to_string(), said("Latest checkpoint's NextOID"));
            assert_eq!(copy.next_multi.to_string(), said("Latest checkpoint's NextMultiXactId"));
            assert_eq!(copy.next_multi_offset.to_string(), said("Latest checkpoint's NextMultiOffset"));
            assert_eq!(copy.oldest_xid.to_string(), said("Latest checkpoint's oldestXID"));
            assert_eq!(copy.oldest_xid_database.to_string(), said("Latest checkpoint's oldestXID's DB"));
            assert_eq!(copy.oldest_multi.to_string(), said("Latest checkpoint's oldestMultiXid"));
            assert_eq!(copy.oldest_multi_database.to_string(), said("Latest checkpoint's oldestMulti's DB"));
            assert_eq!(copy.oldest_active_xid.to_string(), said("Latest checkpoint's oldestActiveXID"));
            assert_eq!(copy.time.as_unix_seconds().to_string(), said("# checkpoint time"));
            assert_eq!(found.time.as_unix_seconds().to_string(), said("# file time"));
            assert_eq!(copy.wal_level, (major >= 17).then_some(WalLevel::Replica));
            assert_eq!(found.min_recovery_point, lsn("Minimum recovery ending location"));
            assert_eq!(found.min_recovery_timeline, None);
            assert_eq!(found.wal_level.as_str(), said("wal_level setting"));
            assert_eq!(found.max_connections.to_string(), said("max_connections setting"));
            assert_eq!(found.max_worker_processes.to_string(), said("max_worker_processes setting"));
            assert_eq!(found.max_wal_senders.to_string(), said("max_wal_senders setting"));
            assert_eq!(found.max_prepared_transactions.to_string(), said("max_prepared_xacts setting"));
            assert_eq!(found.max_locks_per_transaction.to_string(), said("max_locks_per_xact setting"));
            assert_eq!(found.track_commit_timestamp, said("track_commit_timestamp setting") == "on");
            assert_eq!(found.wal_log_hints, said("wal_log_hints setting") == "on");
            assert_eq!(found.page_size.to_string(), said("Database block size"));
            assert_eq!(
                found.pages_per_relation_file.to_string(),
                said("Blocks per segment of large relation")
            );
            assert_eq!(found.wal_page_size.to_string(), said("WAL block size"));
            assert_eq!(found.wal_segment_size.bytes().to_string(), said("Bytes per WAL segment"));
            assert_eq!(found.data_checksum_version.to_string(), said("Data page checksum version"));
        }
    }

    #[test]
    fn a_newer_version_is_refused_by_its_number() {
        let mut file = example();
        file[8..12].copy_from_slice(&2100u32.to_le_bytes());
        let refused = ControlFile::parse(&file).unwrap_err();
        assert_eq!(refused, ControlFileError::UnknownVersion(2100));
        assert_eq!(refused.to_string(), "pg_control is of version 2100, which this program does not know");
    }

    #[test]
    fn a_newer_version_that_is_laid_out_as_a_known_one_is_read() {
        let mut file = example();
        let known = ControlFile::parse(&file).unwrap();
        file[8..12].copy_from_slice(&2100u32.to_le_bytes());
        file[12..16].copy_from_slice(&202_709_011_u32.to_le_bytes());
        seal(&mut file, 292);
        let found = ControlFile::parse(&file).unwrap();
        assert_eq!((found.control_version, found.major), (2100, None));
        assert_eq!(
            (found.system_identifier, found.check_point),
            (known.system_identifier, known.check_point)
        );
        // An older one that is not known is not guessed at.
        file[8..12].copy_from_slice(&1201u32.to_le_bytes());
        seal(&mut file, 292);
        assert_eq!(ControlFile::parse(&file), Err(ControlFileError::UnknownVersion(1201)));
    }

    #[test]
    fn the_other_byte_order_is_named() {
        let mut file = example();
        file[8..12].copy_from_slice(&1800u32.to_be_bytes());
        assert_eq!(ControlFile::parse(&file), Err(ControlFileError::OtherByteOrder));
    }

    #[test]
    fn a_field_out_of_range_is_named_even_under_a_right_checksum() {
        for (at, name) in [(16, "state"), (172, "wal_level"), (228, "xlog_seg_size"), (48, "checkPointCopy")]
        {
            let mut file = example();
            file[at..at + 4].copy_from_slice(&0x0000_7F00u32.to_le_bytes());
            if at == 48 {
                file[at..at + 4].fill(0);
            }
            seal(&mut file, 292);
            assert_eq!(ControlFile::parse(&file), Err(ControlFileError::Field(name)));
        }
    }

    #[test]
    fn every_bit_of_the_structure_is_covered() {
        let file = example();
        for at in 0..296 {
            for bit in 0..8 {
                let mut other = file.clone();
                other[at] ^= 1 << bit;
                assert!(ControlFile::parse(&other).is_err(), "byte {at} bit {bit}");
            }
        }
    }

    #[test]
    fn any_cut_is_refused() {
        let file = example();
        for length in (0..CONTROL_FILE_SIZE).step_by(7) {
            assert_eq!(ControlFile::parse(&file[..length]), Err(ControlFileError::Length(length)));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(start in prop::collection::vec(any::<u8>(), 0..400), version in 0usize..4) {
            let mut file = start;
            file.resize(CONTROL_FILE_SIZE, 0);
            let _ = ControlFile::parse(&file);
            let version = &VERSIONS[version];
            file[8..12].copy_from_slice(&version.number.to_le_bytes());
            seal(&mut file, CHECK_POINT_COPY + version.check_point.size() + version.tail);
            let _ = ControlFile::parse(&file);
        }
    }
}
