//! Timelines, WAL segments and the names of files in `pg_wal`.

use super::Lsn;
use std::fmt;
use std::str::FromStr;

/// A timeline number, from 1; PostgreSQL's `TimeLineID` (access/xlogdefs.h). Printed in decimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimelineId(u32);

impl TimelineId {
    /// The timeline of a cluster that was never promoted.
    pub const FIRST: Self = Self(1);

    /// Timeline `number`; `None` for 0, which PostgreSQL never uses.
    #[must_use]
    pub const fn new(number: u32) -> Option<Self> {
        if number == 0 { None } else { Some(Self(number)) }
    }

    /// The number.
    #[must_use]
    pub const fn as_u32(self) -> u32 {
        self.0
    }

    /// The eight hexadecimal digits with which names in `pg_wal` begin.
    #[must_use]
    pub fn hex(self) -> String {
        format!("{:08X}", self.0)
    }

    /// The name of this timeline's history file (`TLHistoryFileName`).
    #[must_use]
    pub fn history_name(self) -> String {
        format!("{:08X}.history", self.0)
    }
}

impl fmt::Display for TimelineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The text was not a timeline number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotATimeline(String);

impl fmt::Display for NotATimeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" is not a timeline number such as 2", self.0)
    }
}

impl std::error::Error for NotATimeline {}

impl FromStr for TimelineId {
    type Err = NotATimeline;

    fn from_str(text: &str) -> Result<Self, NotATimeline> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        match text.parse() {
            Ok(number) if digits && number > 0 => Ok(Self(number)),
            _ => Err(NotATimeline(text.to_owned())),
        }
    }
}

/// The size of a cluster's WAL segments: a power of two from 1 MiB to 1 GiB (`IsValidWalSegSize`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentSize(u32);

impl SegmentSize {
    /// 16 MiB, what `initdb` chooses.
    pub const DEFAULT: Self = Self(16 << 20);

    /// A segment size of `bytes`.
    ///
    /// # Errors
    /// When PostgreSQL would not accept the size.
    pub fn new(bytes: u64) -> Result<Self, NotASegmentSize> {
        match u32::try_from(bytes) {
            Ok(size) if size.is_power_of_two() && (1 << 20..=1 << 30).contains(&size) => Ok(Self(size)),
            _ => Err(NotASegmentSize(bytes)),
        }
    }

    /// Bytes in one segment.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0 as u64
    }

    /// Segments in one 4 GiB "log file" (`XLogSegmentsPerXLogId`).
    const fn per_log(self) -> u64 {
        0x1_0000_0000 / self.0 as u64
    }

    /// The number of the segment that holds the byte at `at` (`XLByteToSeg`).
    #[must_use]
    pub const fn number_of(self, at: Lsn) -> u64 {
        at.as_u64() / self.0 as u64
    }

    /// The number of the segment that holds the last byte before `end` (`XLByteToPrevSeg`): for the
    /// end of a range, which may stand exactly at a boundary.
    #[must_use]
    pub const fn number_before(self, end: Lsn) -> u64 {
        end.as_u64().saturating_sub(1) / self.0 as u64
    }

    /// Where segment `number` begins; `None` past the end of the 64-bit space.
    #[must_use]
    pub const fn start_of(self, number: u64) -> Option<Lsn> {
        match number.checked_mul(self.0 as u64) {
            Some(at) => Some(Lsn::new(at)),
            None => None,
        }
    }

    /// Bytes from the beginning of its segment to `at` (`XLogSegmentOffset`).
    #[must_use]
    pub const fn offset_in(self, at: Lsn) -> u64 {
        at.as_u64() & (self.0 as u64 - 1)
    }
}

/// Not a power of two between 1 MiB and 1 GiB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotASegmentSize(u64);

impl fmt::Display for NotASegmentSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes is not a WAL segment size (a power of two from 1 MiB to 1 GiB)", self.0)
    }
}

impl std::error::Error for NotASegmentSize {}

/// The name of a complete WAL segment, 24 hexadecimal digits (`XLogFileName`, access/xlog_internal.h).
///
/// Orders by timeline first, as the text does. What position it stands for depends on the segment size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentName {
    timeline: TimelineId,
    log: u32,
    segment: u32,
}

impl SegmentName {
    /// The name of segment `number` of `timeline`; `None` when the number is too large for a name.
    #[must_use]
    pub fn from_number(timeline: TimelineId, number: u64, size: SegmentSize) -> Option<Self> {
        let log = u32::try_from(number / size.per_log()).ok()?;
        // Below per_log ≤ 4096, so always fits.
        let segment = u32::try_from(number % size.per_log()).ok()?;
        Some(Self { timeline, log, segment })
    }

    /// The name of the segment of `timeline` that holds the byte at `at`.
    #[must_use]
    pub fn containing(timeline: TimelineId, at: Lsn, size: SegmentSize) -> Self {
        let number = size.number_of(at);
        // A 64-bit position divided by at least 1 MiB, split at 4 GiB: both halves fit by construction.
        Self { timeline, log: (number / size.per_log()) as u32, segment: (number % size.per_log()) as u32 }
    }

    /// The timeline in the name. Pages inside may carry an ancestor (the first segment of a timeline does).
    #[must_use]
    pub const fn timeline(self) -> TimelineId {
        self.timeline
    }

    /// The segment's number for clusters with this segment size; `None` when no such cluster can have
    /// a segment of this name (its low part is out of range).
    #[must_use]
    pub fn number(self, size: SegmentSize) -> Option<u64> {
        let low = u64::from(self.segment);
        (low < size.per_log()).then(|| u64::from(self.log) * size.per_log() + low)
    }

    /// Where the segment begins; `None` as for [`SegmentName::number`].
    #[must_use]
    pub fn start(self, size: SegmentSize) -> Option<Lsn> {
        self.number(size).and_then(|number| size.start_of(number))
    }

    /// The segment after this one on the same timeline.
    #[must_use]
    pub fn next(self, size: SegmentSize) -> Option<Self> {
        Self::from_number(self.timeline, self.number(size)?.checked_add(1)?, size)
    }

    /// The same stretch of WAL on another timeline.
    #[must_use]
    pub const fn on(self, timeline: TimelineId) -> Self {
        Self { timeline, ..self }
    }

    /// The 16 hexadecimal digits that name the folder of 256 segments in a repository: timeline-free,
    /// the low part without its last two digits.
    #[must_use]
    pub fn folder(self) -> String {
        format!("{:08X}{:08X}", self.log, self.segment >> 8)
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08X}{:08X}{:08X}", self.timeline.0, self.log, self.segment)
    }
}

/// The text was not the name of a WAL segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotASegmentName(String);

impl fmt::Display for NotASegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" is not the name of a WAL segment such as 000000010000000A000000FF", self.0)
    }
}

impl std::error::Error for NotASegmentName {}

/// Upper-case hexadecimal only, as PostgreSQL writes names (`IsXLogFileName`).
fn hex8(text: &str) -> Option<u32> {
    let fits = text.len() == 8 && text.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b));
    fits.then(|| u32::from_str_radix(text, 16).ok()).flatten()
}

impl FromStr for SegmentName {
    type Err = NotASegmentName;

    fn from_str(text: &str) -> Result<Self, NotASegmentName> {
        let part = |range: std::ops::Range<usize>| text.get(range).and_then(hex8);
        let parsed = || {
            let timeline = TimelineId::new(part(0..8)?)?;
            Some(Self { timeline, log: part(8..16)?, segment: part(16..24)? })
        };
        match parsed() {
            Some(name) if text.len() == 24 => Ok(name),
            _ => Err(NotASegmentName(text.to_owned())),
        }
    }
}

/// Any file that PostgreSQL hands to `archive_command` or asks of `restore_command`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WalFileName {
    /// A complete segment under its plain name.
    Segment(SegmentName),
    /// `<segment>.partial`: the unfinished last segment of a timeline that was left (`IsPartialXLogFileName`).
    Partial(SegmentName),
    /// `<segment>.<8 hex>.backup`: the history of one base backup; the number is the start's offset in
    /// its segment (`BackupHistoryFileName`).
    BackupHistory(SegmentName, u32),
    /// `<8 hex>.history`: where a timeline came from (`TLHistoryFileName`).
    History(TimelineId),
}

impl WalFileName {
    /// The timeline the name begins with.
    #[must_use]
    pub const fn timeline(self) -> TimelineId {
        match self {
            Self::Segment(s) | Self::Partial(s) | Self::BackupHistory(s, _) => s.timeline(),
            Self::History(timeline) => timeline,
        }
    }
}

impl fmt::Display for WalFileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Segment(segment) => write!(f, "{segment}"),
            Self::Partial(segment) => write!(f, "{segment}.partial"),
            Self::BackupHistory(segment, offset) => write!(f, "{segment}.{offset:08X}.backup"),
            Self::History(timeline) => f.write_str(&timeline.history_name()),
        }
    }
}

impl FromStr for WalFileName {
    type Err = NotASegmentName;

    fn from_str(text: &str) -> Result<Self, NotASegmentName> {
        let refuse = || NotASegmentName(text.to_owned());
        if let Some(timeline) = text.strip_suffix(".history") {
            return hex8(timeline).and_then(TimelineId::new).map(Self::History).ok_or_else(refuse);
        }
        if let Some(segment) = text.strip_suffix(".partial") {
            return segment.parse().map(Self::Partial).map_err(|_| refuse());
        }
        if let Some(rest) = text.strip_suffix(".backup") {
            let (segment, offset) = rest.split_once('.').ok_or_else(refuse)?;
            let offset = hex8(offset).ok_or_else(refuse)?;
            return segment.parse().map(|s| Self::BackupHistory(s, offset)).map_err(|_| refuse());
        }
        text.parse().map(Self::Segment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_what_postgresql_calls_the_files() {
        let name =
            SegmentName::containing(TimelineId(2), "A1/4F000028".parse().unwrap(), SegmentSize::DEFAULT);
        assert_eq!(name.to_string(), "00000002000000A10000004F");
        assert_eq!(name.folder(), "000000A100000000");
        assert_eq!(name.start(SegmentSize::DEFAULT), Some("A1/4F000000".parse().unwrap()));
        assert_eq!(
            "000000010000000100000100".parse::<SegmentName>().unwrap().number(SegmentSize::DEFAULT),
            None
        );
    }

    #[test]
    fn other_files_in_pg_wal_have_their_own_kinds() {
        for name in [
            "00000002.history",
            "000000010000000A000000FF",
            "000000010000000A000000FF.partial",
            "000000010000000A000000FF.00000028.backup",
        ] {
            assert_eq!(name.parse::<WalFileName>().unwrap().to_string(), name);
        }
        for bad in [
            "00000000.history",
            "1.history",
            "000000010000000a000000ff",
            "000000010000000A000000FF.backup",
            "../000000010000000A000000FF",
            "000000010000000A000000FF.partial.partial",
            "RECOVERYXLOG",
            "",
            "00000000000000010000000A",
            "ä0000010000000A000000FF",
        ] {
            assert!(bad.parse::<WalFileName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_end_of_a_range_may_stand_at_a_boundary() {
        let size = SegmentSize::DEFAULT;
        let boundary = Lsn::new(3 * size.bytes());
        assert_eq!((size.number_of(boundary), size.number_before(boundary)), (3, 2));
    }

    proptest! {
        #[test]
        fn any_position_lies_in_the_segment_named_for_it(at: u64, exponent in 20u32..=30, timeline in 1u32..) {
            let size = SegmentSize::new(1 << exponent).unwrap();
            let name = SegmentName::containing(TimelineId(timeline), Lsn::new(at), size);
            let start = name.start(size).unwrap();
            prop_assert!(start <= Lsn::new(at) && Lsn::new(at).since(start).unwrap() < size.bytes());
            prop_assert_eq!(name.to_string().parse::<SegmentName>().unwrap(), name);
        }

        #[test]
        fn no_text_makes_the_parsers_panic(text in "\\PC{0,40}") {
            let _ = text.parse::<WalFileName>();
            let _ = text.parse::<TimelineId>();
        }
    }
}
