//! Looking into archived WAL for where a target lies.

use crate::postgres::history::TimelineHistory;
use crate::postgres::wal::page::Dialect;
use crate::postgres::wal::reader::{self, Begin, ReadError, ScanEnd};
use crate::postgres::wal::records::{self, Known};
use crate::postgres::wal::stream::{Record, RecordHeader, Visitor};
use crate::units::{Lsn, SegmentName, Timestamp};
use crate::wal::archive::Archive;
use crate::wal::archive::window::Union;
use crate::wal::tails::{FromTails, give_zeros};
use crate::wal::{WalError, read};
use std::cell::Cell;
use std::fmt;
use std::io;
use std::ops::ControlFlow;

/// A cluster's archived WAL along one lineage.
#[derive(Clone, Copy, Debug)]
pub struct Way<'a> {
    /// What is held.
    pub archive: &'a Archive,
    /// By whom.
    pub union: Union<'a>,
    /// Along which timelines.
    pub lineage: &'a TimelineHistory,
}

/// What is looked for. The words of PostgreSQL's `recoveryStopsBefore` and `recoveryStopsAfter`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The end of a transaction, by the low 32 bits of its number.
    Xid(u32),
    /// A restore point.
    Name(String),
    /// The end of a transaction later than this.
    CommitAfter(Timestamp),
    /// A record that begins here or later.
    RecordFrom(Lsn),
    /// The record that ends here.
    EndingAt(Lsn),
}

/// Where it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundAt {
    /// Where the record begins.
    pub lsn: Lsn,
    /// Where it ends.
    pub end: Lsn,
    /// The segment in which it begins.
    pub segment: SegmentName,
    /// Its time, where it has one.
    pub time: Option<Timestamp>,
}

/// Why WAL could not be looked into.
#[derive(Debug)]
pub enum ScanError {
    /// The archive.
    Wal(WalError),
    /// The chain of records is broken, or not to be understood.
    Broken(String),
}

impl fmt::Display for ScanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wal(error) => fmt::Display::fmt(error, f),
            Self::Broken(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for ScanError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Wal(error) => error.source(),
            Self::Broken(_) => None,
        }
    }
}

/// Looks for the first of what is wanted in the records from `begin` on, until one would begin at or after
/// `until` or the archive ends. Memory does not grow with the length of the way.
///
/// # Errors
/// When a segment on the way is damaged, or the WAL is of a version whose records are not known.
pub fn find(
    way: Way<'_>,
    begin: Begin,
    until: Option<Lsn>,
    wanted: &Wanted,
) -> Result<Option<FoundAt>, ScanError> {
    let dialect = Cell::new(None);
    let size = way.archive.segment_size();
    let mut source =
        |number: u64, sink: &mut dyn FnMut(&[u8]) -> ControlFlow<()>| segment(way, number, &dialect, sink);
    let mut seeker = Seeker { wanted, dialect: &dialect, found: None, trouble: None };
    let end = reader::scan(begin, until, size, &mut source, &mut seeker);
    if let Some(trouble) = seeker.trouble {
        return Err(ScanError::Broken(trouble));
    }
    let found = seeker.found.map(|(lsn, end, time)| FoundAt {
        lsn,
        end,
        segment: SegmentName::containing(way.lineage.owner_of_segment(size.number_of(lsn), size), lsn, size),
        time,
    });
    match end {
        Ok(ScanEnd::Asked) => Ok(found),
        // Past the end of what is held, or of what is whole in it (an unfinished record at the very end).
        Ok(_) | Err(ReadError::Missing { .. }) => Ok(found),
        Err(ReadError::Source { error, .. }) => Err(ScanError::Wal(error)),
        Err(other) => Err(ScanError::Broken(other.to_string())),
    }
}

/// Gives one segment's bytes on, from the first holder whose copy can be opened, or as far as tails hold it.
fn segment(
    way: Way<'_>,
    number: u64,
    dialect: &Cell<Option<Dialect>>,
    sink: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
) -> Result<bool, WalError> {
    let size = way.archive.segment_size();
    let owner = way.lineage.owner_of_segment(number, size);
    let Some(name) = SegmentName::from_number(owner, number, size) else { return Ok(false) };
    let (mut given, mut enough) = (false, false);
    let mut give = |bytes: &[u8], given: &mut bool, enough: &mut bool| {
        if !*given && let Some(magic) = bytes.first_chunk() {
            dialect.set(Dialect::of_magic(u16::from_le_bytes(*magic)));
        }
        *given = true;
        if sink(bytes).is_break() {
            *enough = true;
            return Err(io::Error::other("enough was read"));
        }
        Ok(())
    };
    let mut trouble = None;
    for wal in way.archive.holders(name).iter().filter_map(|at| way.union.of(at)) {
        match read::read_segment_into(wal, name, &mut |bytes| give(bytes, &mut given, &mut enough)) {
            Ok(_) => return Ok(true),
            Err(_) if enough => return Ok(true),
            // What was given cannot be taken back, so another copy is of no use any more.
            Err(error) if given => return Err(error),
            Err(error) if read::is_missing(&error) => {}
            Err(error) => trouble = trouble.or(Some(error)),
        }
    }
    if let Some(error) = trouble {
        return Err(error);
    }
    let mut give = |bytes: &[u8]| give(bytes, &mut given, &mut enough);
    let padded = way.archive.read_tails(way.union, name, &mut give).and_then(|tails| match tails {
        FromTails { trouble: Some(error), .. } => Err(error),
        FromTails { reach: 0, .. } => Ok(false),
        FromTails { reach, .. } => give_zeros(reach, size, &mut give).map(|()| true),
    });
    match padded {
        Err(_) if enough => Ok(true),
        other => other,
    }
}

struct Seeker<'a> {
    wanted: &'a Wanted,
    dialect: &'a Cell<Option<Dialect>>,
    found: Option<(Lsn, Lsn, Option<Timestamp>)>,
    trouble: Option<String>,
}

impl Visitor for Seeker<'_> {
    fn wants(&mut self, header: &RecordHeader) -> bool {
        matches!(self.wanted, Wanted::RecordFrom(_) | Wanted::EndingAt(_)) || records::may_be_known(header)
    }

    fn record(&mut self, record: &Record<'_>) -> ControlFlow<()> {
        let by_position = match self.wanted {
            Wanted::RecordFrom(lsn) => Some(record.lsn >= *lsn),
            Wanted::EndingAt(lsn) => Some(record.ends_at(*lsn)),
            _ => None,
        };
        if let Some(fits) = by_position {
            if fits {
                self.found = Some((record.lsn, record.end, None));
                return ControlFlow::Break(());
            }
            return ControlFlow::Continue(());
        }
        let Some(dialect) = self.dialect.get() else {
            self.trouble =
                Some("this WAL was written by a PostgreSQL that this walden does not know".to_owned());
            return ControlFlow::Break(());
        };
        let known = match records::decode(dialect, record) {
            Ok(known) => known,
            Err(_) => {
                self.trouble = Some(format!("the WAL record at {} is not understood", record.lsn));
                return ControlFlow::Break(());
            }
        };
        let (fits, time) = match (&known, self.wanted) {
            (Some(Known::Commit(ended) | Known::Abort(ended)), Wanted::Xid(xid)) => {
                (ended.xid == *xid, Some(ended.time))
            }
            (Some(Known::Commit(ended) | Known::Abort(ended)), Wanted::CommitAfter(time)) => {
                (ended.time > *time, Some(ended.time))
            }
            (Some(Known::RestorePoint { time, name }), Wanted::Name(wanted)) => {
                (name == wanted.as_bytes(), Some(*time))
            }
            _ => (false, None),
        };
        if fits {
            self.found = Some((record.lsn, record.end, time));
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }
}
