//! Page headers (`XLogPageHeaderData`, `XLogLongPageHeaderData`, access/xlog_internal.h).

use super::super::check_point::CheckPointLayout;
use super::super::little_endian::{u16_at, u32_at, u64_at};
use crate::units::{Lsn, PgMajor, SystemIdentifier};

/// Bytes of the header of every page but a segment's first (`SizeOfXLogShortPHD`).
pub const SHORT_HEADER: usize = 24;
/// Bytes of the header of a segment's first page (`SizeOfXLogLongPHD`).
pub const LONG_HEADER: usize = 40;

/// The page begins inside a record (`XLP_FIRST_IS_CONTRECORD`).
const CONTINUES: u16 = 1;
/// The header is a long one (`XLP_LONG_HEADER`).
const IS_LONG: u16 = 2;

/// How records of one major are laid out, where the majors differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dialect {
    major: u16,
    magic: u16,
    /// `XLP_FIRST_IS_OVERWRITE_CONTRECORD`: a record begun before this page was given up.
    overwrites: u16,
    /// `XLP_ALL_FLAGS`.
    all_flags: u16,
    pub(super) check_point: CheckPointLayout,
    /// The bits of `bimg_info` that say "compressed" (access/xlogrecord.h).
    pub(super) image_compressed: u8,
    /// Bytes of `xl_xact_stats_item`; 0 where commits carry none.
    pub(super) stats_item: usize,
}

/// `XLOG_PAGE_MAGIC` of each release, ascending. Data, so that a new major is a new line.
const DIALECTS: &[Dialect] = &[
    dialect(13, 0xD106, CheckPointLayout::Before17, 0x02, 0),
    dialect(14, 0xD10D, CheckPointLayout::Before17, 0x02, 0),
    dialect(15, 0xD110, CheckPointLayout::Before17, 0x1C, 12),
    dialect(16, 0xD113, CheckPointLayout::Before17, 0x1C, 12),
    dialect(17, 0xD116, CheckPointLayout::Since17, 0x1C, 12),
    dialect(18, 0xD118, CheckPointLayout::Since17, 0x1C, 16),
    // The flag XLP_BKP_REMOVABLE went, and the one behind it took its place.
    Dialect { overwrites: 4, all_flags: 7, ..dialect(19, 0xD122, CheckPointLayout::Since19, 0x1C, 16) },
];

const fn dialect(
    major: u16,
    magic: u16,
    check_point: CheckPointLayout,
    image_compressed: u8,
    stats_item: usize,
) -> Dialect {
    Dialect { major, magic, overwrites: 8, all_flags: 0xF, check_point, image_compressed, stats_item }
}

impl Dialect {
    /// The dialect of pages with this magic number; `None` where it is not one of a known release.
    #[must_use]
    pub fn of_magic(magic: u16) -> Option<Self> {
        DIALECTS.iter().find(|d| d.magic == magic).copied()
    }

    /// What to walk pages of this magic number by: the nearest older release's rules for an unknown one.
    /// Enough to follow the chain of records; what records *say* in an unknown one is at best a guess, to be taken only
    /// where something else confirms it.
    #[must_use]
    pub fn nearest(magic: u16) -> Self {
        DIALECTS.iter().rev().find(|d| d.magic <= magic).copied().unwrap_or(DIALECTS[0])
    }

    /// The major whose releases write it.
    #[must_use]
    pub const fn major(self) -> PgMajor {
        PgMajor::new(self.major)
    }

    /// The magic number of its pages.
    #[must_use]
    pub const fn magic(self) -> u16 {
        self.magic
    }
}

/// The header of one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageHeader {
    /// Which version of the format; see [`Dialect`].
    pub magic: u16,
    /// Flags, as they are.
    pub flags: u16,
    /// The timeline of the page's first record. Not checked: 0 is possible in damage.
    pub timeline: u32,
    /// Where the page lies in the WAL.
    pub address: Lsn,
    /// Bytes of the record that goes on here which are still to come, this page's included.
    pub remaining: u32,
    /// What only the first page of a segment says.
    pub long: Option<LongHeader>,
}

/// What the first page of a segment adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongHeader {
    /// The cluster.
    pub system_identifier: SystemIdentifier,
    /// Bytes of a segment; not checked.
    pub segment_size: u32,
    /// Bytes of a WAL page; not checked.
    pub page_size: u32,
}

impl PageHeader {
    /// Reads the header at the beginning of `page`; `None` when that is shorter than the header it begins.
    ///
    /// Any bytes give some header: whether it is one is for the reader to judge by its fields.
    #[must_use]
    pub fn parse(page: &[u8]) -> Option<Self> {
        if page.len() < SHORT_HEADER {
            return None;
        }
        let flags = u16_at(page, 2)?;
        let long = if flags & IS_LONG == 0 {
            None
        } else {
            Some(LongHeader {
                system_identifier: SystemIdentifier::new(u64_at(page, 24)?),
                segment_size: u32_at(page, 32)?,
                page_size: u32_at(page, 36)?,
            })
        };
        Some(Self {
            magic: u16_at(page, 0)?,
            flags,
            timeline: u32_at(page, 4)?,
            address: Lsn::new(u64_at(page, 8)?),
            remaining: u32_at(page, 16)?,
            long,
        })
    }

    /// Bytes of the header itself.
    #[must_use]
    pub const fn length(&self) -> usize {
        if self.long.is_some() { LONG_HEADER } else { SHORT_HEADER }
    }

    /// Whether the page begins inside a record.
    #[must_use]
    pub const fn continues(&self) -> bool {
        self.flags & CONTINUES != 0
    }

    /// Whether the record before the page was given up, and another begins on it.
    #[must_use]
    pub const fn overwrites(&self, dialect: Dialect) -> bool {
        self.flags & dialect.overwrites != 0
    }

    /// Whether it has flags that the dialect does not know.
    #[must_use]
    pub const fn has_unknown_flags(&self, dialect: Dialect) -> bool {
        self.flags & !dialect.all_flags != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_release_has_its_number() {
        for (major, magic) in [(13, 0xD106), (15, 0xD110), (16, 0xD113), (17, 0xD116), (18, 0xD118)] {
            assert_eq!(Dialect::of_magic(magic).unwrap().major(), PgMajor::new(major));
        }
        assert_eq!(Dialect::of_magic(0xD119), None);
        assert_eq!(Dialect::nearest(0xD119).major, 18);
        assert_eq!(Dialect::nearest(0xD1FF).major, 19);
        assert_eq!(Dialect::nearest(0).major, 13);
    }

    proptest! {
        #[test]
        fn a_header_is_read_from_any_bytes_that_are_long_enough(
            bytes in prop::collection::vec(any::<u8>(), 0..60)
        ) {
            let header = PageHeader::parse(&bytes);
            prop_assert!(header.is_some() || bytes.len() < LONG_HEADER);
            prop_assert!(header.is_none_or(|h| h.length() <= bytes.len()));
        }
    }
}
