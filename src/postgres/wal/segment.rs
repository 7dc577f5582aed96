//! Who a WAL segment file is, from its first page.

use super::page::{Dialect, LONG_HEADER, PageHeader};
use crate::units::{Lsn, PgMajor, SegmentName, SegmentSize, SystemIdentifier, TimelineId};
use std::fmt;

/// What the first page of a segment says of the whole file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentIdentity {
    /// The version of the format; [`SegmentIdentity::major`] knows those of releases.
    pub magic: u16,
    /// The cluster.
    pub system_identifier: SystemIdentifier,
    /// The timeline of the first record. May be an ancestor of the one in the file's name: the first
    /// segment of a timeline begins with the pages of the timeline it came from.
    pub timeline: TimelineId,
    /// Where the segment begins.
    pub start: Lsn,
    /// Bytes of a segment.
    pub size: SegmentSize,
    /// Bytes of a WAL page.
    pub page_size: u32,
}

impl SegmentIdentity {
    /// Reads the first page's header; at least [`LONG_HEADER`] bytes of it are needed.
    ///
    /// # Errors
    /// When these bytes do not begin a segment. An unknown magic number of PostgreSQL's range is no error.
    pub fn parse(beginning: &[u8]) -> Result<Self, Unreadable> {
        if beginning.len() < LONG_HEADER {
            return Err(Unreadable::TooShort);
        }
        let header = PageHeader::parse(beginning).ok_or(Unreadable::NotWal)?;
        let long = header.long.ok_or(Unreadable::NotWal)?;
        if !matches!(header.magic >> 8, 0xD0 | 0xD1)
            || header.has_unknown_flags(Dialect::nearest(header.magic))
        {
            return Err(Unreadable::NotWal);
        }
        let size = SegmentSize::new(u64::from(long.segment_size))
            .map_err(|_| Unreadable::SegmentSize(long.segment_size))?;
        if !long.page_size.is_power_of_two() || !(1 << 10..=1 << 16).contains(&long.page_size) {
            return Err(Unreadable::PageSize(long.page_size));
        }
        if size.offset_in(header.address) != 0 {
            return Err(Unreadable::NotAtASegmentsStart(header.address));
        }
        Ok(Self {
            magic: header.magic,
            system_identifier: long.system_identifier,
            timeline: TimelineId::new(header.timeline).ok_or(Unreadable::NotWal)?,
            start: header.address,
            size,
            page_size: long.page_size,
        })
    }

    /// The major that writes such pages; `None` for a version unknown here.
    #[must_use]
    pub fn major(&self) -> Option<PgMajor> {
        self.dialect().map(Dialect::major)
    }

    /// How to read its records; `None` for a version unknown here.
    #[must_use]
    pub fn dialect(&self) -> Option<Dialect> {
        Dialect::of_magic(self.magic)
    }

    /// Whether a file of this name may hold this segment: its place must be right, and the name's
    /// timeline must not be older than the page's.
    ///
    /// # Errors
    /// [`Unreadable::OtherName`] when it may not.
    pub fn fits(&self, name: SegmentName) -> Result<(), Unreadable> {
        if name.start(self.size) == Some(self.start) && self.timeline <= name.timeline() {
            Ok(())
        } else {
            Err(Unreadable::OtherName { timeline: self.timeline, start: self.start })
        }
    }
}

/// Why a file is not a WAL segment that can be walked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// Not even one page.
    TooShort,
    /// The first bytes are not the header of a segment's first page.
    NotWal,
    /// The header names a segment size that no cluster can have.
    SegmentSize(u32),
    /// The header names a page size that no cluster can have.
    PageSize(u32),
    /// The header's address is not where a segment begins.
    NotAtASegmentsStart(Lsn),
    /// The file has another length than its header says.
    Length {
        /// Bytes that the header says.
        expected: u64,
        /// Bytes of the file.
        found: u64,
    },
    /// The file's name is that of another segment.
    OtherName {
        /// The timeline in the header.
        timeline: TimelineId,
        /// The address in the header.
        start: Lsn,
    },
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort => f.write_str("shorter than one page"),
            Self::NotWal => f.write_str("does not begin with a WAL page header"),
            Self::SegmentSize(size) => write!(f, "header says segments of {size} bytes"),
            Self::PageSize(size) => write!(f, "header says pages of {size} bytes"),
            Self::NotAtASegmentsStart(at) => write!(f, "begins at {at}, where no segment begins"),
            Self::Length { expected, found } => write!(f, "header says {expected} bytes, file has {found}"),
            Self::OtherName { timeline, start } => {
                write!(f, "is timeline {timeline} at {start}, not what its name says")
            }
        }
    }
}

impl std::error::Error for Unreadable {}
