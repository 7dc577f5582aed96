//! Is this WAL segment complete? Decided from its bytes alone.
//!
//! A segment file always has its full size, so size says nothing. A segment is complete when the chain of
//! records reaches its end, or when its last record is XLOG_SWITCH. Anything else is incomplete: the writer
//! was somewhere in the middle (promotion, `.partial`, crash), or the segment is damaged. What stands after
//! the end of an incomplete segment need not be zeros: a recycled file still holds old WAL.
//!
//! Limit: a record that crosses into the next segment can be checksummed only with that segment, so a file
//! cut inside such a record *and* inside its own last page passes. A writer stops between records.

use super::segment::{SegmentIdentity, Unreadable};
use super::stream::{Ending, OpenEnd, Stop, Visitor, WalStream};
use crate::units::{Lsn, SegmentName};
use std::fmt;

/// Why a segment counts as complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Complete {
    /// The last record ends exactly at the boundary.
    EndsAtBoundary,
    /// The last record goes on in the next segment.
    GoesOn,
    /// One record fills the whole segment.
    FilledByOne,
    /// The last record is XLOG_SWITCH.
    Switched,
}

/// Whether a segment holds all it ever will.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completeness {
    /// It does.
    Complete(Complete),
    /// The chain of records ends before, for this reason.
    Incomplete(Stop),
}

impl Completeness {
    /// Whether it is complete.
    #[must_use]
    pub const fn is_complete(self) -> bool {
        matches!(self, Self::Complete(_))
    }
}

impl fmt::Display for Completeness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Complete(Complete::EndsAtBoundary) => "the last record ends at the boundary",
            Self::Complete(Complete::GoesOn) => "the last record goes on in the next segment",
            Self::Complete(Complete::FilledByOne) => "one record fills it and goes on in the next segment",
            Self::Complete(Complete::Switched) => Stop::Switch.as_str(),
            Self::Incomplete(why) => why.as_str(),
        })
    }
}

/// What a walk over one segment found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Who the segment is.
    pub identity: SegmentIdentity,
    /// Whether it is complete, and why or why not.
    pub completeness: Completeness,
    /// Bytes from the segment's start to the end that was found.
    pub end: u64,
    /// Whole records that begin in it.
    pub records: u64,
    /// Where the last of them begins.
    pub last_record: Option<Lsn>,
    /// Up to here every byte is part of a checked chain: the segment's end if it is complete, else the end
    /// of the last whole record, else (not one is whole) its start.
    pub valid_up_to: Lsn,
}

/// The walk over one segment, fed in pieces.
#[derive(Debug)]
pub struct SegmentWalk {
    name: Option<SegmentName>,
    stream: WalStream,
}

impl SegmentWalk {
    /// A walk over the segment that a file of this name should hold; without a name, any segment does.
    #[must_use]
    pub fn new(name: Option<SegmentName>) -> Self {
        let stream = WalStream::within_one_segment();
        Self {
            stream: match name {
                Some(name) => stream.up_to_timeline(name.timeline()),
                None => stream,
            },
            name,
        }
    }

    /// Takes the file's next bytes.
    ///
    /// # Errors
    /// As soon as it is known that this is no segment, or not the one of the name.
    pub fn feed(&mut self, bytes: &[u8], visitor: &mut impl Visitor) -> Result<(), Unreadable> {
        let known = self.stream.identity().is_some();
        // The header alone, so that records of a foreign segment are not shown to the visitor.
        let (first, rest) = if known { (bytes, &bytes[..0]) } else { bytes.split_at(bytes.len().min(40)) };
        self.stream.feed(first, visitor)?;
        if !known && let (Some(identity), Some(name)) = (self.stream.identity(), self.name) {
            identity.fits(name)?;
        }
        if rest.is_empty() { Ok(()) } else { self.stream.feed(rest, visitor) }
    }

    /// Whether the walk has come to its end: what is fed from here on is only counted.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.stream.stopped().is_some()
    }

    /// What goes on in the next segment, after this one's last byte.
    #[must_use]
    pub fn ending(&self) -> Ending {
        self.stream.ending()
    }

    /// The verdict, after the file's last byte.
    ///
    /// # Errors
    /// When the file is not as long as it says.
    pub fn finish(&self) -> Result<Verdict, Unreadable> {
        let found = self.stream.fed();
        if found < 8192 {
            return Err(Unreadable::TooShort);
        }
        let identity = *self.stream.identity().ok_or(Unreadable::TooShort)?;
        let expected = identity.size.bytes();
        if found != expected {
            return Err(Unreadable::Length { expected, found });
        }
        let boundary = (expected, identity.start.forward(expected).unwrap_or(identity.start));
        let offset = |at: Lsn| at.since(identity.start).unwrap_or(0);
        let complete = |why| (Completeness::Complete(why), boundary.0, boundary.1);
        let last_valid = self.stream.valid_up_to().unwrap_or(identity.start);
        let incomplete = |at, why| (Completeness::Incomplete(why), offset(at), last_valid);
        let (completeness, end, valid_up_to) = match self.stream.stopped() {
            Some((at, Stop::Switch)) => (Completeness::Complete(Complete::Switched), offset(at), boundary.1),
            Some((at, why)) => incomplete(at, why),
            None => match self.stream.open_at_the_end() {
                OpenEnd::Nothing => complete(Complete::EndsAtBoundary),
                OpenEnd::FilledByOne => complete(Complete::FilledByOne),
                OpenEnd::GoesOn => complete(Complete::GoesOn),
                OpenEnd::WrongBackLink(at) => incomplete(at, Stop::WrongBackLink),
            },
        };
        Ok(Verdict {
            identity,
            completeness,
            end,
            records: self.stream.records(),
            last_record: self.stream.last_record(),
            valid_up_to,
        })
    }
}

/// Walks a whole segment at once.
///
/// # Errors
/// When `segment` is not a segment, or not the one of the name.
pub fn walk_segment(
    segment: &[u8],
    name: Option<SegmentName>,
    visitor: &mut impl Visitor,
) -> Result<Verdict, Unreadable> {
    let mut walk = SegmentWalk::new(name);
    walk.feed(segment, visitor)?;
    walk.finish()
}
