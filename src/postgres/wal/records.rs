//! What records say: the parts of one (access/xlogrecord.h, `DecodeXLogRecord` of access/transam/xlogreader.c),
//! and the meaning of the few kinds that backup and recovery turn on.

use super::super::check_point::{CheckPoint, WalLevel};
use super::super::little_endian::{array_at, i64_at, u16_at, u32_at, u64_at};
use super::page::Dialect;
use super::stream::{RM_XLOG, Record, RecordHeader, XLOG_SWITCH};
use crate::units::{Lsn, TimelineId, Timestamp};
use std::fmt;

/// `RM_XACT_ID` (access/rmgrlist.h).
const RM_XACT: u8 = 1;

/// `RM_TBLSPC_ID`.
const RM_TABLESPACE: u8 = 5;

/// A relation fork's block that a record changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlockReference {
    /// The tablespace's object id (`spcOid`).
    pub tablespace: u32,
    /// The database's object id; 0 for shared relations.
    pub database: u32,
    /// The relation's file number.
    pub relation: u32,
    /// The fork: 0 main, 1 free space, 2 visibility, 3 init.
    pub fork: u8,
    /// The block in the fork.
    pub block: u32,
    /// Whether the record holds an image of the page.
    pub has_image: bool,
}

/// The parts of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts<'a> {
    /// The data of its own kind; cut off where the body was (see [`Record::is_whole`]).
    pub main: &'a [u8],
    /// Bytes of `main` when whole.
    pub main_length: usize,
    /// The replication origin.
    pub origin: Option<u16>,
    /// The top-level transaction that `xid` is part of.
    pub top_level_xid: Option<u32>,
}

/// Takes a body apart; `on_block` is told of each block reference.
///
/// # Errors
/// When the body is not laid out as a record of this dialect.
pub fn parts<'a>(
    dialect: Dialect,
    header: &RecordHeader,
    body: &'a [u8],
    mut on_block: impl FnMut(BlockReference),
) -> Result<Parts<'a>, Malformed> {
    let bad = |what| Malformed { what };
    // The length that the record says: the body may have been cut to what a visitor is shown.
    let length = (header.total_length as usize).saturating_sub(super::stream::RECORD_HEADER);
    let mut at = 0usize;
    let mut data = 0usize;
    let mut main_length = 0usize;
    let mut relation: Option<(u32, u32, u32)> = None;
    let mut last_block: Option<u8> = None;
    let (mut origin, mut top_level_xid) = (None, None);
    while length.saturating_sub(at) > data {
        let id = *body.get(at).ok_or(bad("a header is cut off"))?;
        at += 1;
        match id {
            DATA_SHORT => {
                main_length = usize::from(*body.get(at).ok_or(bad("a header is cut off"))?);
                at += 1;
                break;
            }
            DATA_LONG => {
                main_length = u32_at(body, at).ok_or(bad("a header is cut off"))? as usize;
                at += 4;
                break;
            }
            ORIGIN => {
                origin = Some(u16_at(body, at).ok_or(bad("a header is cut off"))?);
                at += 2;
            }
            TOP_LEVEL_XID => {
                top_level_xid = Some(u32_at(body, at).ok_or(bad("a header is cut off"))?);
                at += 4;
            }
            0..=MAX_BLOCK_ID => {
                if last_block.is_some_and(|last| id <= last) {
                    return Err(bad("block references out of order"));
                }
                last_block = Some(id);
                let flags = *body.get(at).ok_or(bad("a header is cut off"))?;
                let data_length = u16_at(body, at + 1).ok_or(bad("a header is cut off"))?;
                at += 3;
                if (flags & BLOCK_HAS_DATA != 0) != (data_length > 0) {
                    return Err(bad("a block's data flag and length disagree"));
                }
                data += usize::from(data_length);
                let has_image = flags & BLOCK_HAS_IMAGE != 0;
                if has_image {
                    let image_length = u16_at(body, at).ok_or(bad("a header is cut off"))?;
                    let info = *body.get(at + 4).ok_or(bad("a header is cut off"))?;
                    at += 5;
                    // The length of the hole follows only where it cannot be told from the page's size.
                    if info & dialect.image_compressed != 0 && info & IMAGE_HAS_HOLE != 0 {
                        at += 2;
                    }
                    data += usize::from(image_length);
                }
                if flags & BLOCK_SAME_RELATION == 0 {
                    let number = |i: usize| u32_at(body, at + 4 * i).ok_or(bad("a header is cut off"));
                    relation = Some((number(0)?, number(1)?, number(2)?));
                    at += 12;
                }
                let block = u32_at(body, at).ok_or(bad("a header is cut off"))?;
                at += 4;
                let (tablespace, database, relation) =
                    relation.ok_or(bad("a block of the same relation as none"))?;
                let fork = flags & BLOCK_FORK;
                on_block(BlockReference { tablespace, database, relation, fork, block, has_image });
            }
            _ => return Err(bad("an unknown part")),
        }
    }
    let begin = at.checked_add(data).ok_or(bad("parts longer than the record"))?;
    if begin.checked_add(main_length) != Some(length) {
        return Err(bad("parts that do not add up to the record"));
    }
    Ok(Parts { main: body.get(begin..).unwrap_or_default(), main_length, origin, top_level_xid })
}

const DATA_SHORT: u8 = 255;
const DATA_LONG: u8 = 254;
const ORIGIN: u8 = 253;
const TOP_LEVEL_XID: u8 = 252;
const MAX_BLOCK_ID: u8 = 32;
const BLOCK_FORK: u8 = 0x0F;
const BLOCK_HAS_IMAGE: u8 = 0x10;
const BLOCK_HAS_DATA: u8 = 0x20;
const BLOCK_SAME_RELATION: u8 = 0x80;
const IMAGE_HAS_HOLE: u8 = 0x01;

/// A record that backup and recovery know the meaning of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// `XLOG_CHECKPOINT_SHUTDOWN`.
    ShutdownCheckPoint(CheckPoint),
    /// `XLOG_CHECKPOINT_ONLINE`.
    OnlineCheckPoint(CheckPoint),
    /// `XLOG_CHECKPOINT_REDO`: where an online checkpoint's replay begins; PostgreSQL 17 and later.
    CheckPointRedo {
        /// The server's `wal_level` then.
        wal_level: WalLevel,
    },
    /// `XLOG_SWITCH`: the rest of the segment is no WAL.
    Switch,
    /// `XLOG_BACKUP_END`: a backup of a primary ended here.
    BackupEnd {
        /// The redo position that its `backup_label` names.
        start: Lsn,
    },
    /// `XLOG_RESTORE_POINT`.
    RestorePoint {
        /// When it was made.
        time: Timestamp,
        /// Its name.
        name: Vec<u8>,
    },
    /// `XLOG_END_OF_RECOVERY`: the first record of a new timeline, where no checkpoint is made for it.
    EndOfRecovery {
        /// When.
        time: Timestamp,
        /// The new timeline.
        timeline: TimelineId,
        /// The one it left.
        previous: TimelineId,
    },
    /// `XLOG_OVERWRITE_CONTRECORD`: a record begun before a crash is given up.
    OverwroteRecord {
        /// Where it began.
        lsn: Lsn,
    },
    /// `XLOG_PARAMETER_CHANGE`.
    ParameterChange {
        /// `wal_level` from here on.
        wal_level: WalLevel,
    },
    /// `XLOG_XACT_COMMIT` or `XLOG_XACT_COMMIT_PREPARED`.
    Commit(Ended),
    /// `XLOG_XACT_ABORT` or `XLOG_XACT_ABORT_PREPARED`.
    Abort(Ended),
    /// `XLOG_XACT_PREPARE`.
    Prepare {
        /// The transaction.
        xid: u32,
        /// When.
        time: Timestamp,
    },
    /// `XLOG_TBLSPC_CREATE`.
    TablespaceCreated {
        /// Its OID.
        oid: u32,
        /// Its directory; empty when it is in the data directory itself.
        location: Vec<u8>,
    },
}

/// The end of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The transaction, as `recovery_target_xid` counts it: of a prepared one, the prepared one's own.
    pub xid: u32,
    /// When (`xact_time`): what `recovery_target_time` is compared with.
    pub time: Timestamp,
    /// Whether it had been prepared.
    pub prepared: bool,
}

impl Known {
    /// The time in the record that recovery compares with a target time (`getRecordTimestamp`).
    #[must_use]
    pub const fn target_time(&self) -> Option<Timestamp> {
        match self {
            Self::Commit(ended) | Self::Abort(ended) => Some(ended.time),
            Self::RestorePoint { time, .. } => Some(*time),
            _ => None,
        }
    }
}

/// Whether records of this kind may decode to something: for [`super::stream::Visitor::wants`].
#[must_use]
pub const fn may_be_known(header: &RecordHeader) -> bool {
    match header.resource_manager {
        // Page images and object ids are of no interest.
        RM_XLOG => !matches!(header.info & 0xF0, 0x20 | 0x30 | 0x80 | 0xA0 | 0xB0 | 0xC0),
        RM_XACT => matches!(header.info & 0x70, 0x00..=0x40),
        RM_TABLESPACE => header.info & 0xF0 == 0x00,
        _ => false,
    }
}

/// What the record means; `None` for a kind of no interest here.
///
/// # Errors
/// When a record of a known kind is not laid out as PostgreSQL lays it out. Its checksum was right, so this
/// is another version, not an accident of storage.
pub fn decode(dialect: Dialect, record: &Record<'_>) -> Result<Option<Known>, Malformed> {
    let header = &record.header;
    if !may_be_known(header) {
        return Ok(None);
    }
    let main = parts(dialect, header, record.body, |_| {})?.main;
    match header.resource_manager {
        RM_XLOG => xlog(dialect, header.info & 0xF0, main),
        RM_XACT => transaction(dialect, header, main),
        RM_TABLESPACE => tablespace_created(main).map(Some),
        _ => Ok(None),
    }
}

/// Kinds of catalog/pg_control.h; structures of access/xlog_internal.h.
fn xlog(dialect: Dialect, kind: u8, main: &[u8]) -> Result<Option<Known>, Malformed> {
    let known = match kind {
        0x00 => CheckPoint::parse(dialect.check_point, main).map(Known::ShutdownCheckPoint),
        0x10 => CheckPoint::parse(dialect.check_point, main).map(Known::OnlineCheckPoint),
        XLOG_SWITCH => Some(Known::Switch),
        0x50 => u64_at(main, 0).map(|start| Known::BackupEnd { start: Lsn::new(start) }),
        0x60 => u32_at(main, 20)
            .and_then(WalLevel::from_number)
            .map(|wal_level| Known::ParameterChange { wal_level }),
        0x70 => i64_at(main, 0).zip(array_at::<64>(main, 8)).map(|(time, name)| Known::RestorePoint {
            time: Timestamp::from_postgres(time),
            name: name.split(|b| *b == 0).next().unwrap_or_default().to_vec(),
        }),
        0x90 => end_of_recovery(main),
        0xD0 => u64_at(main, 0).map(|lsn| Known::OverwroteRecord { lsn: Lsn::new(lsn) }),
        0xE0 if dialect.major().as_u16() >= 17 => u32_at(main, 0)
            .and_then(WalLevel::from_number)
            .map(|wal_level| Known::CheckPointRedo { wal_level }),
        _ => return Ok(None),
    };
    known.map(Some).ok_or(Malformed { what: "a record of the WAL itself" })
}

/// `xl_tblspc_create_rec` of commands/tablespace.h.
fn tablespace_created(main: &[u8]) -> Result<Known, Malformed> {
    let parts = || {
        let location = main.get(4..)?;
        let end = location.iter().position(|byte| *byte == 0)?;
        Some(Known::TablespaceCreated { oid: u32_at(main, 0)?, location: location.get(..end)?.to_vec() })
    };
    parts().ok_or(Malformed { what: "the creation of a tablespace" })
}

fn end_of_recovery(main: &[u8]) -> Option<Known> {
    Some(Known::EndOfRecovery {
        time: Timestamp::from_postgres(i64_at(main, 0)?),
        timeline: TimelineId::new(u32_at(main, 8)?)?,
        previous: TimelineId::new(u32_at(main, 12)?)?,
    })
}

/// Kinds and structures of access/xact.h.
fn transaction(dialect: Dialect, header: &RecordHeader, main: &[u8]) -> Result<Option<Known>, Malformed> {
    let bad = Malformed { what: "the end of a transaction" };
    let kind = header.info & 0x70;
    let prepared = kind >= 0x30;
    let ended = || -> Option<Ended> {
        let xid = if prepared {
            prepared_xid(dialect, kind == COMMIT_PREPARED, header.info, main)?
        } else {
            header.xid
        };
        Some(Ended { xid, time: Timestamp::from_postgres(i64_at(main, 0)?), prepared })
    };
    let known = match kind {
        COMMIT | COMMIT_PREPARED => ended().map(Known::Commit),
        ABORT | ABORT_PREPARED => ended().map(Known::Abort),
        PREPARE => u32_at(main, 8)
            .zip(i64_at(main, 16))
            .map(|(xid, time)| Known::Prepare { xid, time: Timestamp::from_postgres(time) }),
        _ => return Ok(None),
    };
    known.map(Some).ok_or(bad)
}

const COMMIT: u8 = 0x00;
const PREPARE: u8 = 0x10;
const ABORT: u8 = 0x20;
const COMMIT_PREPARED: u8 = 0x30;
const ABORT_PREPARED: u8 = 0x40;

/// The prepared transaction's own id, which stands behind lists of varying length (`ParseCommitRecord`,
/// `ParseAbortRecord`).
fn prepared_xid(dialect: Dialect, commit: bool, info: u8, main: &[u8]) -> Option<u32> {
    /// `XLOG_XACT_HAS_INFO`.
    const HAS_INFO: u8 = 0x80;
    let mut at = 8usize;
    if info & HAS_INFO == 0 {
        return None;
    }
    let holds = u32_at(main, at)?;
    at += 4;
    // XACT_XINFO_HAS_DBINFO: two object ids.
    if holds & 1 != 0 {
        at += 8;
    }
    // Lists: flag, bytes of an element. Subtransactions, relation files, dropped statistics, invalidations.
    let invalidations = if commit { 1 << 3 } else { 0 };
    let statistics = if dialect.stats_item > 0 { 1 << 8 } else { 0 };
    for (flag, size) in [(1 << 1, 4), (1 << 2, 12), (statistics, dialect.stats_item), (invalidations, 16)] {
        if holds & flag != 0 {
            let count = u32_at(main, at)? as usize;
            at = at.checked_add(4)?.checked_add(count.checked_mul(size)?)?;
        }
    }
    // XACT_XINFO_HAS_TWOPHASE.
    if holds & 1 << 4 == 0 {
        return None;
    }
    u32_at(main, at)
}

/// A record is not laid out as its dialect wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    what: &'static str,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a WAL record is not laid out as PostgreSQL does it: {}", self.what)
    }
}

impl std::error::Error for Malformed {}
