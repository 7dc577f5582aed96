//! The walk from record to record, fed with the bytes of WAL as they come.
//!
//! The checks are those of access/transam/xlogreader.c (`XLogReaderValidatePageHeader`,
//! `ValidXLogRecordHeader`, `ValidXLogRecord`). Memory is one WAL page (at most 64 KiB), and one record's
//! body up to [`LONGEST_BODY`] where a visitor wants a record that crosses pages; it does not grow with the
//! length of the WAL. Nothing is allocated for a record that lies inside one page.

use super::super::little_endian::{array_at, u32_at, u64_at};
use super::page::{Dialect, LONG_HEADER, LongHeader, PageHeader};
use super::segment::{SegmentIdentity, Unreadable};
use crate::units::{Lsn, SegmentSize, TimelineId};
use std::ops::ControlFlow;

/// Bytes of a record's fixed header (`SizeOfXLogRecord`).
pub const RECORD_HEADER: usize = 24;
/// The longest record PostgreSQL writes (`XLogRecordMaxSize`, access/xlogrecord.h).
pub const LONGEST_RECORD: u32 = 1020 << 20;
/// Of a record that crosses pages, a visitor sees at most so many bytes.
pub const LONGEST_BODY: usize = 1 << 20;

/// `RM_XLOG_ID` (access/rmgrlist.h).
pub(super) const RM_XLOG: u8 = 0;
/// `XLOG_SWITCH` (catalog/pg_control.h).
pub(super) const XLOG_SWITCH: u8 = 0x40;

/// The fixed part of a record (`XLogRecord`, access/xlogrecord.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// Bytes of the record with this header, without page headers.
    pub total_length: u32,
    /// The transaction that wrote it; 0 = none.
    pub xid: u32,
    /// Where the record before it begins.
    pub previous: Lsn,
    /// The resource manager's bits, and four general ones.
    pub info: u8,
    /// The resource manager.
    pub resource_manager: u8,
    /// CRC-32C of the body and then of this header up to here.
    pub crc: u32,
}

impl RecordHeader {
    pub(super) fn parse(bytes: &[u8; RECORD_HEADER]) -> Self {
        let [
            l0,
            l1,
            l2,
            l3,
            x0,
            x1,
            x2,
            x3,
            p0,
            p1,
            p2,
            p3,
            p4,
            p5,
            p6,
            p7,
            info,
            resource_manager,
            _,
            _,
            c0,
            c1,
            c2,
            c3,
        ] = *bytes;
        Self {
            total_length: u32::from_le_bytes([l0, l1, l2, l3]),
            xid: u32::from_le_bytes([x0, x1, x2, x3]),
            previous: Lsn::new(u64::from_le_bytes([p0, p1, p2, p3, p4, p5, p6, p7])),
            info,
            resource_manager,
            crc: u32::from_le_bytes([c0, c1, c2, c3]),
        }
    }

    /// Whether the record ends its segment: what follows in it is not WAL.
    #[must_use]
    pub const fn is_switch(&self) -> bool {
        self.resource_manager == RM_XLOG && self.info & 0xF0 == XLOG_SWITCH
    }
}

/// A whole record whose checksum was right.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Where it begins.
    pub lsn: Lsn,
    /// Where it ends, rounded up to eight bytes, as `pg_backup_stop` and `XLogInsert` count: a record
    /// that fills its page ends at the boundary, not behind the next page's header.
    pub end: Lsn,
    /// Where replay stands after it (`EndRecPtr`): `end`, but after a switch the end of the segment.
    pub replay_end: Lsn,
    /// Its fixed part.
    pub header: RecordHeader,
    /// The bytes after the fixed part; the first [`LONGEST_BODY`] of them where it crosses pages.
    pub body: &'a [u8],
    /// The timeline of the page it begins on.
    pub timeline: TimelineId,
}

impl Record<'_> {
    /// Whether `body` is all of it.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.body.len() + RECORD_HEADER == self.header.total_length as usize
    }

    /// Whether a stop position names the end of this record.
    #[must_use]
    pub fn ends_at(&self, position: Lsn) -> bool {
        self.end == position || self.replay_end == position
    }
}

/// Sees the records of a walk, in order.
pub trait Visitor {
    /// Whether [`Visitor::record`] is to be called. Saying no saves copying records that cross pages. The
    /// header is not yet verified.
    fn wants(&mut self, header: &RecordHeader) -> bool {
        let _ = header;
        true
    }

    /// One record. `Break` ends the walk ([`Stop::Asked`]).
    fn record(&mut self, record: &Record<'_>) -> ControlFlow<()>;
}

impl<F: FnMut(&Record<'_>) -> ControlFlow<()>> Visitor for F {
    fn record(&mut self, record: &Record<'_>) -> ControlFlow<()> {
        self(record)
    }
}

/// A visitor that looks at nothing.
#[derive(Clone, Copy, Debug)]
pub struct Unseen;

impl Visitor for Unseen {
    fn wants(&mut self, _: &RecordHeader) -> bool {
        false
    }

    fn record(&mut self, _: &Record<'_>) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// Why a walk stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The record that the segment began inside of is cut off.
    ContinuedRecordCut,
    /// The next page's header is not one of this WAL: other place, version, flags, or a falling timeline.
    ForeignPage,
    /// A page says that it begins inside a record, but none is open.
    NoBeginning,
    /// No record where the next one would begin: zeros.
    NoFurtherRecord,
    /// No record where the next one would begin: a length that no record has.
    ImpossibleLength,
    /// The record goes on to a page that does not continue it.
    RecordCut,
    /// What stands there does not link back to the record before it.
    WrongBackLink,
    /// What stands there does not have the checksum it names.
    WrongChecksum,
    /// An XLOG_SWITCH, in a walk that ends at one.
    Switch,
    /// The visitor had enough.
    Asked,
}

impl Stop {
    /// The reason in words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ContinuedRecordCut => "the record continued from the segment before is cut off",
            Self::ForeignPage => "the next page is not of this segment",
            Self::NoBeginning => "a continued record without its beginning",
            Self::NoFurtherRecord => "no further record",
            Self::ImpossibleLength => "no record: impossible length",
            Self::RecordCut => "the last record is cut off",
            Self::WrongBackLink => "no record: its back link is wrong",
            Self::WrongChecksum => "no record: its checksum is wrong",
            Self::Switch => "the last record is XLOG_SWITCH",
            Self::Asked => "the reader had enough",
        }
    }
}

/// Where a walk begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begin {
    /// At the first record that begins in the first segment fed.
    FirstRecord,
    /// At the record that begins here.
    At(Lsn),
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Not yet at the first record.
    Before,
    /// At a page's start, or at the aligned end of a record.
    Between,
    /// Inside a record.
    Inside(Open),
    /// After a switch: the rest of the segment is not WAL.
    Skipping,
    /// Over.
    Stopped { at: u64, why: Stop },
}

/// A record that crosses pages.
#[derive(Clone, Copy, Debug)]
struct Open {
    /// Where it begins; `None` for one that began before the walk did.
    start: Option<u64>,
    timeline: u32,
    left: u32,
    header: [u8; RECORD_HEADER],
    collected: usize,
    crc: u32,
    wanted: bool,
}

impl Open {
    const fn new(start: Option<u64>, timeline: u32, left: u32) -> Self {
        Self { start, timeline, left, header: [0; RECORD_HEADER], collected: 0, crc: 0, wanted: false }
    }
}

/// A walk over consecutive segments.
///
/// Feed whole segments from their first byte, in order, in pieces of any length. After the walk stopped,
/// feeding on is allowed and does nothing.
#[derive(Debug)]
pub struct WalStream {
    begin: Begin,
    /// End at an XLOG_SWITCH, instead of going on in the next segment.
    ends_at_switch: bool,
    newest_timeline: u32,
    first: Option<SegmentIdentity>,
    dialect: Dialect,
    timeline: u32,
    /// The address of the next page.
    address: u64,
    /// Bytes fed.
    fed: u64,
    held: Vec<u8>,
    body: Vec<u8>,
    state: State,
    previous: Option<u64>,
    last: Option<(u64, u64)>,
    records: u64,
}

impl WalStream {
    fn new(begin: Begin, ends_at_switch: bool) -> Self {
        Self {
            begin,
            ends_at_switch,
            newest_timeline: u32::MAX,
            first: None,
            dialect: Dialect::nearest(0),
            timeline: 0,
            address: 0,
            fed: 0,
            held: Vec::new(),
            body: Vec::new(),
            state: State::Before,
            previous: None,
            last: None,
            records: 0,
        }
    }

    /// A walk from the first record that begins in the first segment fed.
    #[must_use]
    pub fn from_first_record() -> Self {
        Self::new(Begin::FirstRecord, false)
    }

    /// A walk from the record that begins at `at`; feed from the beginning of that segment. A position at
    /// a page's start means the first record behind its header.
    #[must_use]
    pub fn from_record(at: Lsn) -> Self {
        Self::new(Begin::At(at), false)
    }

    pub(super) fn within_one_segment() -> Self {
        Self::new(Begin::FirstRecord, true)
    }

    /// Refuses pages of a timeline newer than `timeline`, as those of a foreign branch.
    #[must_use]
    pub const fn up_to_timeline(mut self, timeline: TimelineId) -> Self {
        self.newest_timeline = timeline.as_u32();
        self
    }

    /// Takes the next bytes of WAL.
    ///
    /// # Errors
    /// When the very first bytes do not begin a segment. Everything later ends the walk with a [`Stop`].
    pub fn feed(&mut self, mut bytes: &[u8], visitor: &mut impl Visitor) -> Result<(), Unreadable> {
        self.fed = self.fed.saturating_add(bytes.len() as u64);
        if self.first.is_none() {
            let wanting = LONG_HEADER.saturating_sub(self.held.len()).min(bytes.len());
            let (head, rest) = bytes.split_at(wanting);
            self.held.extend_from_slice(head);
            bytes = rest;
            if self.held.len() < LONG_HEADER {
                return Ok(());
            }
            let identity = SegmentIdentity::parse(&self.held)?;
            self.address = identity.start.as_u64();
            self.timeline = identity.timeline.as_u32();
            self.dialect = Dialect::nearest(identity.magic);
            self.first = Some(identity);
        }
        let page_size = self.first.map_or(8192, |f| f.page_size as usize);
        while !bytes.is_empty() && !matches!(self.state, State::Stopped { .. }) {
            if self.held.is_empty() && bytes.len() >= page_size {
                let (page, rest) = bytes.split_at(page_size);
                self.page(page, visitor);
                bytes = rest;
                continue;
            }
            let (head, rest) = bytes.split_at(page_size.saturating_sub(self.held.len()).min(bytes.len()));
            self.held.extend_from_slice(head);
            bytes = rest;
            if self.held.len() >= page_size {
                let held = std::mem::take(&mut self.held);
                self.page(&held, visitor);
                self.held = held;
                self.held.clear();
            }
        }
        Ok(())
    }

    /// What the first page fed said.
    #[must_use]
    pub const fn identity(&self) -> Option<&SegmentIdentity> {
        self.first.as_ref()
    }

    /// Where and why the walk stopped; `None` while it goes on.
    #[must_use]
    pub const fn stopped(&self) -> Option<(Lsn, Stop)> {
        match self.state {
            State::Stopped { at, why } => Some((Lsn::new(at), why)),
            _ => None,
        }
    }

    /// Whole records met.
    #[must_use]
    pub const fn records(&self) -> u64 {
        self.records
    }

    /// Where the last whole record begins.
    #[must_use]
    pub fn last_record(&self) -> Option<Lsn> {
        self.last.map(|(start, _)| Lsn::new(start))
    }

    /// Where the chain of whole records ends: the aligned end of the last one (after a switch, the end of
    /// its segment). `None` before the first.
    #[must_use]
    pub fn valid_up_to(&self) -> Option<Lsn> {
        self.last.map(|(_, end)| Lsn::new(end))
    }

    /// Whether the bytes fed end inside a record.
    #[must_use]
    pub const fn is_inside_a_record(&self) -> bool {
        matches!(self.state, State::Inside(_))
    }

    /// The timeline of the last page that was accepted.
    #[must_use]
    pub const fn timeline(&self) -> Option<TimelineId> {
        TimelineId::new(self.timeline)
    }

    pub(super) const fn fed(&self) -> u64 {
        self.fed
    }

    /// What goes on over the end of what was fed.
    #[must_use]
    pub fn ending(&self) -> Ending {
        let last_whole = self.previous.map(Lsn::new);
        match &self.state {
            State::Inside(open) => {
                Ending { open: open.left, last_begun: open.start.map(Lsn::new).or(last_whole), last_whole }
            }
            _ => Ending { open: 0, last_begun: last_whole, last_whole },
        }
    }

    /// For the verdict over a segment that was fed to its end: what is still open.
    pub(super) fn open_at_the_end(&self) -> OpenEnd {
        match &self.state {
            State::Inside(Open { start: None, .. }) => OpenEnd::FilledByOne,
            State::Inside(open) => {
                let linked = u64_at(open.header.get(..open.collected).unwrap_or_default(), 8);
                match (linked, self.previous, open.start) {
                    (Some(link), Some(previous), Some(at)) if link != previous => {
                        OpenEnd::WrongBackLink(Lsn::new(at))
                    }
                    _ => OpenEnd::GoesOn,
                }
            }
            _ => OpenEnd::Nothing,
        }
    }

    fn segment_size(&self) -> SegmentSize {
        self.first.map_or(SegmentSize::DEFAULT, |f| f.size)
    }

    fn begins_segment(&self) -> bool {
        self.segment_size().offset_in(Lsn::new(self.address)) == 0
    }

    const fn stop(&mut self, at: u64, why: Stop) {
        self.state = State::Stopped { at, why };
    }

    /// The header of the page at `self.address`; `None` where the page is not of this WAL.
    fn header(&mut self, page: &[u8]) -> Option<PageHeader> {
        let first = self.first?;
        let found = PageHeader::parse(page)?;
        let long_fits = match &found.long {
            None => !self.begins_segment(),
            Some(long) => self.begins_segment() && same_cluster(long, &first),
        };
        // A timeline's first segment begins with pages of its ancestor, so the timeline may rise from one
        // page to the next; it never falls.
        let fits = long_fits
            && found.magic == first.magic
            && found.address == Lsn::new(self.address)
            && !found.has_unknown_flags(self.dialect)
            && (self.timeline..=self.newest_timeline).contains(&found.timeline);
        if fits {
            self.timeline = found.timeline;
        }
        fits.then_some(found)
    }

    /// One whole page, at `self.address`.
    fn page(&mut self, page: &[u8], visitor: &mut impl Visitor) {
        if matches!(self.state, State::Skipping) && !self.begins_segment() {
            // Behind a switch: not WAL.
        } else if let Some(header) = self.header(page) {
            if let Some(from) = self.resume(page, &header, visitor) {
                self.records_of(page, from, visitor);
            }
        } else {
            match self.state {
                State::Inside(Open { start: Some(start), .. }) => self.stop(start, Stop::RecordCut),
                State::Inside(Open { start: None, .. }) => self.stop(self.address, Stop::ContinuedRecordCut),
                _ => self.stop(self.address, Stop::ForeignPage),
            }
        }
        self.address = self.address.saturating_add(page.len() as u64);
    }

    /// Brings the walk to the first place on the page where a record may begin; `None` when there is none.
    fn resume(&mut self, page: &[u8], header: &PageHeader, visitor: &mut impl Visitor) -> Option<usize> {
        let begin = header.length();
        match self.state {
            State::Before => match self.begin {
                Begin::At(lsn) => self.resume_at(lsn, page, header),
                Begin::FirstRecord if header.continues() => {
                    let open = Open::new(None, header.timeline, header.remaining);
                    self.go_on(open, page, begin, visitor)
                }
                Begin::FirstRecord => {
                    self.state = State::Between;
                    Some(begin)
                }
            },
            // The record was given up after a crash; another begins here.
            State::Inside(_) if header.overwrites(self.dialect) => {
                self.state = State::Between;
                Some(begin)
            }
            State::Inside(open) if !header.continues() || header.remaining != open.left => {
                match open.start {
                    Some(start) => self.stop(start, Stop::RecordCut),
                    None => self.stop(self.address, Stop::ContinuedRecordCut),
                }
                None
            }
            State::Inside(open) => self.go_on(open, page, begin, visitor),
            State::Between | State::Skipping if header.continues() => {
                self.stop(self.address, Stop::NoBeginning);
                None
            }
            State::Between | State::Skipping => {
                self.state = State::Between;
                Some(begin)
            }
            State::Stopped { .. } => None,
        }
    }

    /// On the way to a position at which the walk was told to begin.
    fn resume_at(&mut self, lsn: Lsn, page: &[u8], header: &PageHeader) -> Option<usize> {
        let begin = header.length();
        let Some(offset) = lsn.as_u64().checked_sub(self.address) else {
            self.stop(lsn.as_u64(), Stop::ForeignPage);
            return None;
        };
        let offset = usize::try_from(offset).ok().filter(|o| *o < page.len())?;
        if (offset == 0 && !header.continues()) || (offset >= begin && offset % 8 == 0) {
            self.state = State::Between;
            Some(offset.max(begin))
        } else {
            self.stop(lsn.as_u64(), Stop::NoBeginning);
            None
        }
    }

    /// Takes the open record's next bytes from the page; returns where they end when that is all of it.
    fn go_on(
        &mut self,
        mut open: Open,
        page: &[u8],
        from: usize,
        visitor: &mut impl Visitor,
    ) -> Option<usize> {
        let rest = page.get(from..).unwrap_or_default();
        let here = rest.get(..open.left as usize).unwrap_or(rest);
        self.take(&mut open, here, visitor);
        if open.left > 0 {
            self.state = State::Inside(open);
            return None;
        }
        self.state = State::Between;
        let end = from + here.len();
        if let Some(start) = open.start {
            let header = RecordHeader::parse(&open.header);
            let crc = crc32c::crc32c_append(open.crc, open.header.get(..20).unwrap_or_default());
            let body = std::mem::take(&mut self.body);
            let met = Met { start, end, header, crc, timeline: open.timeline, wanted: open.wanted };
            self.finish_record(&met, &body, visitor);
            self.body = body;
        }
        Some(end)
    }

    /// Adds bytes to an open record.
    fn take(&mut self, open: &mut Open, bytes: &[u8], visitor: &mut impl Visitor) {
        // No longer than what is left, which is at most LONGEST_RECORD or a page header's 32 bits.
        open.left = open.left.saturating_sub(bytes.len() as u32);
        if open.start.is_none() {
            return;
        }
        let (head, body) = bytes.split_at(bytes.len().min(RECORD_HEADER - open.collected));
        if let Some(place) = open.header.get_mut(open.collected..open.collected + head.len()) {
            place.copy_from_slice(head);
        }
        open.collected += head.len();
        if open.collected == RECORD_HEADER && !head.is_empty() {
            self.body.clear();
            open.wanted = visitor.wants(&RecordHeader::parse(&open.header));
        }
        open.crc = crc32c::crc32c_append(open.crc, body);
        if open.wanted {
            let room = LONGEST_BODY.saturating_sub(self.body.len()).min(body.len());
            self.body.extend_from_slice(body.get(..room).unwrap_or_default());
        }
    }

    /// The records that begin on the page, from `at` on.
    fn records_of(&mut self, page: &[u8], mut at: usize, visitor: &mut impl Visitor) {
        while matches!(self.state, State::Between) {
            at = at.next_multiple_of(8);
            let Some(total) = u32_at(page, at) else { return };
            let start = self.address.saturating_add(at as u64);
            if total == 0 {
                return self.stop(start, Stop::NoFurtherRecord);
            }
            if total < RECORD_HEADER as u32 || total > LONGEST_RECORD {
                return self.stop(start, Stop::ImpossibleLength);
            }
            let Some(record) = page.get(at..at + total as usize) else {
                let mut open = Open::new(Some(start), self.timeline, total);
                self.take(&mut open, page.get(at..).unwrap_or_default(), visitor);
                self.state = State::Inside(open);
                return;
            };
            let Some(fixed) = array_at::<RECORD_HEADER>(record, 0) else { return };
            let body = record.get(RECORD_HEADER..).unwrap_or_default();
            let header = RecordHeader::parse(&fixed);
            let crc = crc32c::crc32c_append(crc32c::crc32c(body), fixed.get(..20).unwrap_or_default());
            at += record.len();
            let wanted = visitor.wants(&header);
            let met = Met { start, end: at, header, crc, timeline: self.timeline, wanted };
            self.finish_record(&met, body, visitor);
        }
    }

    /// A record is all there, ending at offset `end` of the page: check it, count it, show it.
    fn finish_record(&mut self, met: &Met, body: &[u8], visitor: &mut impl Visitor) {
        let Met { start, end, header, crc, .. } = *met;
        if self.previous.is_some_and(|previous| header.previous != Lsn::new(previous)) {
            return self.stop(start, Stop::WrongBackLink);
        }
        if crc != header.crc {
            return self.stop(start, Stop::WrongChecksum);
        }
        let exact_end = self.address.saturating_add(end as u64);
        let aligned = self.address.saturating_add(end.next_multiple_of(8) as u64);
        let size = self.segment_size();
        let replay_end = if header.is_switch() {
            aligned.checked_next_multiple_of(size.bytes()).unwrap_or(aligned)
        } else {
            aligned
        };
        self.previous = Some(start);
        self.last = Some((start, replay_end));
        self.records += 1;
        if header.is_switch() {
            if self.ends_at_switch {
                self.stop(exact_end, Stop::Switch);
            } else if replay_end != aligned {
                self.state = State::Skipping;
            }
        }
        if let (true, Some(timeline)) = (met.wanted, TimelineId::new(met.timeline)) {
            let flow = visitor.record(&Record {
                lsn: Lsn::new(start),
                end: Lsn::new(aligned),
                replay_end: Lsn::new(replay_end),
                header,
                body,
                timeline,
            });
            if flow.is_break() && !matches!(self.state, State::Stopped { .. }) {
                self.stop(exact_end, Stop::Asked);
            }
        }
    }
}

/// What a walk leaves to the page behind the last one it was fed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ending {
    /// Bytes still to come of a record that goes on; 0 when none does.
    pub open: u32,
    /// Where the last record begins, whole or not; `None` when none began since the walk did.
    pub last_begun: Option<Lsn>,
    /// Where the last whole one begins: what the next one links back to when the open one is given up.
    pub last_whole: Option<Lsn>,
}

/// A record that was met to its end.
struct Met {
    start: u64,
    /// Offset in the page.
    end: usize,
    header: RecordHeader,
    crc: u32,
    timeline: u32,
    wanted: bool,
}

/// What is open when a segment's last byte was fed.
pub(super) enum OpenEnd {
    Nothing,
    FilledByOne,
    GoesOn,
    WrongBackLink(Lsn),
}

fn same_cluster(long: &LongHeader, first: &SegmentIdentity) -> bool {
    long.system_identifier == first.system_identifier
        && u64::from(long.segment_size) == first.size.bytes()
        && long.page_size == first.page_size
}
