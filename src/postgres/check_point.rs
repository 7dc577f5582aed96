//! The body of a checkpoint record, which `pg_control` holds a copy of (`CheckPoint`, catalog/pg_control.h).

use super::little_endian::{i64_at, u32_at, u64_at};
use crate::units::{Lsn, TimelineId, Timestamp};

/// How much the WAL tells (`WalLevel`, access/xlog.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WalLevel {
    /// Enough for crash recovery only: WAL of such a stretch cannot be replayed from a backup.
    Minimal,
    /// Enough for archiving and standbys.
    Replica,
    /// Enough for logical decoding too.
    Logical,
}

impl WalLevel {
    /// From the number that PostgreSQL stores; `None` for one it does not use.
    #[must_use]
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::Minimal),
            1 => Some(Self::Replica),
            2 => Some(Self::Logical),
            _ => None,
        }
    }

    /// The word that the setting `wal_level` uses.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Minimal => "minimal",
            Self::Replica => "replica",
            Self::Logical => "logical",
        }
    }
}

/// Which of the three shapes `CheckPoint` has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckPointLayout {
    /// PostgreSQL 13 to 16: 88 bytes, no `wal_level`.
    Before17,
    /// PostgreSQL 17 and 18: 88 bytes, `wal_level` in what was padding.
    Since17,
    /// PostgreSQL 19: 96 bytes, 64-bit multixact offsets.
    Since19,
}

impl CheckPointLayout {
    /// Bytes of the structure.
    #[must_use]
    pub const fn size(self) -> usize {
        match self {
            Self::Before17 | Self::Since17 => 88,
            Self::Since19 => 96,
        }
    }

    /// Where `nextXid` lies.
    const fn next_xid(self) -> usize {
        match self {
            Self::Before17 | Self::Since17 => 24,
            Self::Since19 => 32,
        }
    }

    /// The bytes that hold fields, without the compiler's padding.
    const fn fields(self) -> &'static [std::ops::Range<usize>] {
        match self {
            Self::Before17 => &[0..17, 24..60, 64..84],
            Self::Since17 => &[0..17, 20..60, 64..84],
            Self::Since19 => &[0..17, 20..25, 32..96],
        }
    }
}

/// One checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckPoint {
    layout: CheckPointLayout,
    raw: Vec<u8>,
    /// Where replay from this checkpoint begins.
    pub redo: Lsn,
    /// The timeline it was made on (`ThisTimeLineID`).
    pub timeline: TimelineId,
    /// The timeline before, where the record begins a new one; else equal to `timeline`.
    pub previous_timeline: TimelineId,
    /// Whether the server wrote full page images.
    pub full_page_writes: bool,
    /// The server's `wal_level`; PostgreSQL 17 and later.
    pub wal_level: Option<WalLevel>,
    /// The next transaction id, with its epoch in the upper half.
    pub next_xid: u64,
    /// The next object id.
    pub next_oid: u32,
    /// The next multixact id.
    pub next_multi: u32,
    /// The next multixact offset (32 bits before PostgreSQL 19).
    pub next_multi_offset: u64,
    /// The oldest transaction id that is not frozen everywhere.
    pub oldest_xid: u32,
    /// The database that holds it.
    pub oldest_xid_database: u32,
    /// The oldest multixact id that is not frozen everywhere.
    pub oldest_multi: u32,
    /// The database that holds it.
    pub oldest_multi_database: u32,
    /// When the checkpoint was made; whole seconds.
    pub time: Timestamp,
    /// The oldest transaction still running at an online checkpoint; 0 = not recorded.
    pub oldest_active_xid: u32,
}

impl CheckPoint {
    /// Reads `bytes`, which must be exactly one structure of this layout; `None` when they are not one.
    #[must_use]
    pub fn parse(layout: CheckPointLayout, bytes: &[u8]) -> Option<Self> {
        if bytes.len() != layout.size() {
            return None;
        }
        let xid = layout.next_xid();
        // From here on the layouts differ only in the width of one field.
        let wide = layout == CheckPointLayout::Since19;
        let oldest = if wide { xid + 24 } else { xid + 20 };
        Some(Self {
            layout,
            raw: bytes.to_vec(),
            redo: Lsn::new(u64_at(bytes, 0)?),
            timeline: TimelineId::new(u32_at(bytes, 8)?)?,
            previous_timeline: TimelineId::new(u32_at(bytes, 12)?)?,
            full_page_writes: flag(*bytes.get(16)?)?,
            wal_level: match layout {
                CheckPointLayout::Before17 => None,
                _ => Some(WalLevel::from_number(u32_at(bytes, 20)?)?),
            },
            next_xid: u64_at(bytes, xid)?,
            next_oid: u32_at(bytes, xid + 8)?,
            next_multi: u32_at(bytes, xid + 12)?,
            next_multi_offset: if wide {
                u64_at(bytes, xid + 16)?
            } else {
                u64::from(u32_at(bytes, xid + 16)?)
            },
            oldest_xid: u32_at(bytes, oldest)?,
            oldest_xid_database: u32_at(bytes, oldest + 4)?,
            oldest_multi: u32_at(bytes, oldest + 8)?,
            oldest_multi_database: u32_at(bytes, oldest + 12)?,
            // 64 in the narrow layouts (after four bytes of padding), 72 in the wide one.
            time: Timestamp::from_unix_seconds(i64_at(bytes, if wide { 72 } else { 64 })?),
            oldest_active_xid: u32_at(bytes, if wide { 88 } else { 80 })?,
        })
    }

    /// The structure as it was found, padding included.
    #[must_use]
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// The layout it was read with.
    #[must_use]
    pub const fn layout(&self) -> CheckPointLayout {
        self.layout
    }

    /// Whether `self`, a `pg_control`'s copy, is a copy of `record`, the checkpoint found in WAL.
    ///
    /// Every field must be equal, but for `nextXid`, which a server in recovery raises in its copy at
    /// every checkpoint record it replays, long before it makes a restart point of it (`xlog_redo`).
    /// Padding is not compared: nothing promises what it holds.
    #[must_use]
    pub fn is_copy_of(&self, record: &Self) -> bool {
        let next_xid = self.layout.next_xid()..self.layout.next_xid() + 8;
        self.layout == record.layout
            && self.next_xid >= record.next_xid
            && self.layout.fields().iter().cloned().flatten().all(|at| {
                next_xid.contains(&at)
                    || self.raw.get(at).is_some_and(|byte| record.raw.get(at) == Some(byte))
            })
    }
}

/// A C `bool`: 0 or 1, nothing else.
pub(super) const fn flag(byte: u8) -> Option<bool> {
    match byte {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn narrow() -> Vec<u8> {
        let mut raw = vec![0; 88];
        raw[0..8].copy_from_slice(&0x0200_0028u64.to_le_bytes());
        raw[8] = 2;
        raw[12] = 1;
        raw[16] = 1;
        raw[20] = 1;
        raw[24..32].copy_from_slice(&(7u64 << 32 | 740).to_le_bytes());
        raw[64..72].copy_from_slice(&1_795_227_660i64.to_le_bytes());
        raw
    }

    #[test]
    fn the_epoch_is_the_upper_half_of_the_next_transaction_id() {
        let found = CheckPoint::parse(CheckPointLayout::Since17, &narrow()).unwrap();
        assert_eq!((found.next_xid >> 32, found.next_xid as u32), (7, 740));
        assert_eq!(found.wal_level, Some(WalLevel::Replica));
        assert_eq!(found.time.compact(), "20261121T022100Z");
        assert_eq!((found.timeline.as_u32(), found.previous_timeline.as_u32()), (2, 1));
    }

    #[test]
    fn a_copy_may_have_a_later_next_transaction_and_other_padding_but_nothing_else() {
        let layout = CheckPointLayout::Since17;
        let record = CheckPoint::parse(layout, &narrow()).unwrap();
        for at in 0..88 {
            let mut raw = narrow();
            raw[at] ^= 1;
            let Some(copy) = CheckPoint::parse(layout, &raw) else { continue };
            let later = (24..32).contains(&at) && copy.next_xid > record.next_xid;
            let padding = matches!(at, 17..20 | 60..64 | 84..88);
            assert_eq!(copy.is_copy_of(&record), later || padding, "byte {at}");
        }
    }

    #[test]
    fn no_other_length_is_a_checkpoint() {
        for length in 0..120 {
            let bytes = vec![1; length];
            assert!(CheckPoint::parse(CheckPointLayout::Before17, &bytes).is_none() || length == 88);
        }
    }
}
