//! One record by its position, and long chains of segments, from wherever segments are kept.
//!
//! A source hands out a segment's bytes in pieces; see [`Source`]. Who has bytes arriving by other means
//! (asynchronously, say) feeds a [`WalStream`] directly: this module only asks for the next segment.

use super::segment::{SegmentIdentity, Unreadable};
use super::stream::{Record, RecordHeader, Stop, Visitor, WalStream};
use crate::units::{Lsn, SegmentSize, TimelineId};
use std::fmt;
use std::ops::ControlFlow;

/// Where segments come from.
pub trait Source {
    /// Why a segment could not be had.
    type Error;

    /// Gives the bytes of segment `number`, from the first on, to `sink`, in pieces of any length, until
    /// all are given or `sink` breaks. `false` when there is no such segment.
    ///
    /// # Errors
    /// When it cannot be told, or read.
    fn segment(
        &mut self,
        number: u64,
        sink: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<bool, Self::Error>;
}

impl<E, F> Source for F
where
    F: FnMut(u64, &mut dyn FnMut(&[u8]) -> ControlFlow<()>) -> Result<bool, E>,
{
    type Error = E;

    fn segment(&mut self, number: u64, sink: &mut dyn FnMut(&[u8]) -> ControlFlow<()>) -> Result<bool, E> {
        self(number, sink)
    }
}

/// A record that was copied out of its segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedRecord {
    /// Where it begins.
    pub lsn: Lsn,
    /// Where it ends; see [`Record::end`].
    pub end: Lsn,
    /// Where replay stands after it.
    pub replay_end: Lsn,
    /// Its fixed part.
    pub header: RecordHeader,
    /// Its body; see [`Record::body`].
    pub body: Vec<u8>,
    /// The timeline of the page it begins on.
    pub timeline: TimelineId,
    /// The first segment that was read: version, cluster, sizes.
    pub found_in: SegmentIdentity,
}

impl OwnedRecord {
    /// The record as a visitor sees it.
    #[must_use]
    pub fn as_record(&self) -> Record<'_> {
        Record {
            lsn: self.lsn,
            end: self.end,
            replay_end: self.replay_end,
            header: self.header,
            body: &self.body,
            timeline: self.timeline,
        }
    }
}

/// Why a record or chain could not be read.
#[derive(Debug)]
pub enum ReadError<E> {
    /// The source failed at this segment.
    Source {
        /// The segment's number.
        number: u64,
        /// Why.
        error: E,
    },
    /// There is no such segment.
    Missing {
        /// The segment's number.
        number: u64,
    },
    /// What the source gave is no segment.
    Unreadable {
        /// The segment's number.
        number: u64,
        /// Why.
        error: Unreadable,
    },
    /// The source gave another segment, or one of another size.
    OtherSegment {
        /// The segment's number.
        number: u64,
        /// Where what it gave begins.
        start: Lsn,
    },
    /// The chain of records ends before what was looked for.
    Ended {
        /// Where.
        at: Lsn,
        /// Why.
        why: Stop,
    },
    /// The chain passes the position, but no record begins or ends there.
    NoRecord {
        /// The position.
        at: Lsn,
    },
}

impl<E> fmt::Display for ReadError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source { number, .. } => write!(f, "could not read WAL segment number {number}"),
            Self::Missing { number } => write!(f, "WAL segment number {number} is missing"),
            Self::Unreadable { number, .. } => write!(f, "WAL segment number {number} is not readable"),
            Self::OtherSegment { number, start } => {
                write!(f, "WAL segment number {number} is another one: it begins at {start}")
            }
            Self::Ended { at, why } => write!(f, "the WAL ends at {at}: {}", why.as_str()),
            Self::NoRecord { at } => write!(f, "no WAL record begins or ends at {at}"),
        }
    }
}

impl<E: std::error::Error + 'static> std::error::Error for ReadError<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Source { error, .. } => Some(error),
            Self::Unreadable { error, .. } => Some(error),
            _ => None,
        }
    }
}

/// Where a scan came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScanEnd {
    /// The visitor had enough.
    Asked,
    /// Position `until` was reached: every record that begins before it was shown.
    Reached,
    /// The source has no further segment; the chain was unbroken to the end of the last one.
    NoMoreSegments {
        /// The segment that is not there.
        number: u64,
        /// The end of the last whole record.
        valid_up_to: Option<Lsn>,
    },
    /// The chain of records ends inside a segment.
    Ended {
        /// Where.
        at: Lsn,
        /// Why.
        why: Stop,
    },
}

/// Where a scan begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// At the record that begins here.
    Record(Lsn),
    /// At the first record that begins in the segment of this number.
    Segment(u64),
}

/// Shows `visitor` the records from `begin` on, across segments, until one would begin at or after `until`.
///
/// Back links and checksums are verified over the whole chain, across every border. Memory does not grow
/// with its length.
///
/// # Errors
/// [`ReadError::Source`], [`ReadError::Unreadable`] and [`ReadError::OtherSegment`]; and
/// [`ReadError::Missing`] for the very first segment.
pub fn scan<S: Source>(
    begin: Begin,
    until: Option<Lsn>,
    size: SegmentSize,
    source: &mut S,
    visitor: &mut impl Visitor,
) -> Result<ScanEnd, ReadError<S::Error>> {
    let mut bounded = Bounded { until, visitor, reached: false };
    drive(&mut stream_from(begin), begin, size, source, &mut bounded)
}

fn stream_from(begin: Begin) -> WalStream {
    match begin {
        Begin::Record(at) => WalStream::from_record(at),
        Begin::Segment(_) => WalStream::from_first_record(),
    }
}

/// Feeds `stream` with one segment after another until it stops or there are no more.
fn drive<S: Source, V: Visitor>(
    stream: &mut WalStream,
    begin: Begin,
    size: SegmentSize,
    source: &mut S,
    visitor: &mut Bounded<'_, V>,
) -> Result<ScanEnd, ReadError<S::Error>> {
    let first = match begin {
        Begin::Record(at) => size.number_of(at),
        Begin::Segment(number) => number,
    };
    let mut number = first;
    loop {
        let mut refused = None;
        let mut given = 0u64;
        let there = source
            .segment(number, &mut |bytes| {
                given = given.saturating_add(bytes.len() as u64);
                match stream.feed(bytes, visitor) {
                    Ok(()) if stream.stopped().is_none() => ControlFlow::Continue(()),
                    Ok(()) => ControlFlow::Break(()),
                    Err(error) => {
                        refused = Some(error);
                        ControlFlow::Break(())
                    }
                }
            })
            .map_err(|error| ReadError::Source { number, error })?;
        if let Some(error) = refused {
            return Err(ReadError::Unreadable { number, error });
        }
        if !there {
            if number == first {
                return Err(ReadError::Missing { number });
            }
            return Ok(ScanEnd::NoMoreSegments { number, valid_up_to: stream.valid_up_to() });
        }
        let Some(identity) = stream.identity() else {
            return Err(ReadError::Unreadable { number, error: Unreadable::TooShort });
        };
        if number == first && (size != identity.size || size.start_of(number) != Some(identity.start)) {
            return Err(ReadError::OtherSegment { number, start: identity.start });
        }
        match stream.stopped() {
            Some((_, Stop::Asked)) if visitor.reached => return Ok(ScanEnd::Reached),
            Some((_, Stop::Asked)) => return Ok(ScanEnd::Asked),
            Some((at, why)) => return Ok(ScanEnd::Ended { at, why }),
            // A short segment would shift everything behind it.
            None if given != size.bytes() => {
                let error = Unreadable::Length { expected: size.bytes(), found: given };
                return Err(ReadError::Unreadable { number, error });
            }
            None => {}
        }
        number = number.saturating_add(1);
    }
}

/// Ends a walk at a position.
struct Bounded<'a, V> {
    until: Option<Lsn>,
    visitor: &'a mut V,
    reached: bool,
}

impl<V: Visitor> Visitor for Bounded<'_, V> {
    fn wants(&mut self, header: &RecordHeader) -> bool {
        // With a bound, every record is looked at for its position; without, only what the visitor wants.
        self.until.is_some() || self.visitor.wants(header)
    }

    fn record(&mut self, record: &Record<'_>) -> ControlFlow<()> {
        let Some(until) = self.until else { return self.visitor.record(record) };
        if record.lsn >= until {
            self.reached = true;
            return ControlFlow::Break(());
        }
        if self.visitor.wants(&record.header) {
            self.visitor.record(record)?;
        }
        if record.replay_end >= until {
            self.reached = true;
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }
}

/// The record that begins at `at`. A position at a page's start means the first record behind its header.
///
/// # Errors
/// [`ReadError::Ended`] when none that is valid begins there.
pub fn record_at<S: Source>(
    at: Lsn,
    size: SegmentSize,
    source: &mut S,
) -> Result<OwnedRecord, ReadError<S::Error>> {
    only(at, Begin::Record(at), None, size, source, |_| true)
}

/// The record that ends at `stop`, looked for from `begin` on: where some record begins, or a segment. Give
/// a segment before that of `stop`, should the record begin there. The chain from `begin` to `stop` is
/// verified on the way.
///
/// # Errors
/// [`ReadError::NoRecord`] when records reach beyond `stop`, but none ends there.
pub fn record_ending_at<S: Source>(
    stop: Lsn,
    begin: Begin,
    size: SegmentSize,
    source: &mut S,
) -> Result<OwnedRecord, ReadError<S::Error>> {
    only(stop, begin, Some(stop), size, source, |record| record.ends_at(stop))
}

/// The first record that `fits`; `at` is for the failure.
fn only<S: Source>(
    at: Lsn,
    begin: Begin,
    until: Option<Lsn>,
    size: SegmentSize,
    source: &mut S,
    fits: impl Fn(&Record<'_>) -> bool,
) -> Result<OwnedRecord, ReadError<S::Error>> {
    let mut found = None;
    let mut stream = stream_from(begin);
    let mut visitor = |record: &Record<'_>| {
        if fits(record) {
            let Record { lsn, end, replay_end, header, timeline, .. } = *record;
            found = Some((lsn, end, replay_end, header, timeline, record.body.to_vec()));
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    };
    let mut bounded = Bounded { until, visitor: &mut visitor, reached: false };
    let ended = drive(&mut stream, begin, size, source, &mut bounded)?;
    match (found, stream.identity(), ended) {
        (Some((lsn, end, replay_end, header, timeline, body)), Some(identity), _) => {
            Ok(OwnedRecord { lsn, end, replay_end, header, body, timeline, found_in: *identity })
        }
        (_, _, ScanEnd::NoMoreSegments { number, .. }) => Err(ReadError::Missing { number }),
        (_, _, ScanEnd::Ended { at, why }) => Err(ReadError::Ended { at, why }),
        _ => Err(ReadError::NoRecord { at }),
    }
}
