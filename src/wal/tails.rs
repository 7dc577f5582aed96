//! Reading a segment of which only tails are stored: its beginning, in the stretches that one or more writers
//! had of it.
//!
//! For backups and plans, which know how far they need it. `archive-get`, which has to judge what PostgreSQL may
//! be given, puts pieces together by its own rules (`get::pieces`).

use super::archive::{Tail, look};
use super::error::WalError;
use super::read::{Sink, is_missing, read_tail};
use super::{ClusterWal, write};
use crate::repo::{RepoError, layout};
use crate::units::{SegmentName, SegmentSize};

/// What tails gave of a segment.
#[derive(Debug)]
pub struct FromTails {
    /// Bytes from the segment's beginning that were given.
    pub reach: u64,
    /// Why it is not more, where a tail that is there could not be read.
    pub trouble: Option<WalError>,
}

/// Gives the bytes that `tails` of one segment hold from its beginning on without a gap. Each tail is checked
/// whole before anything of it is given; where two overlap they must agree. At most one tail is in memory.
///
/// # Errors
/// [`WalError::Sink`] when `sink` fails; all other trouble is told in the result.
pub fn read_tails_into(
    tails: &[(&Tail, Vec<ClusterWal<'_>>)],
    sink: Sink<'_>,
) -> Result<FromTails, WalError> {
    let mut sorted: Vec<_> = tails.iter().collect();
    // The longest of those that begin at one place first: the shorter ones are then not needed.
    sorted.sort_by_key(|(tail, _)| (tail.from, std::cmp::Reverse(tail.to)));
    let mut given = FromTails { reach: 0, trouble: None };
    // Of the tail that would have led furthest.
    let mut trouble: Option<(u64, WalError)> = None;
    // The last one that was given: what a later one overlaps lies in it, because it does not begin earlier.
    let mut last: (u64, Vec<u8>) = (0, Vec::new());
    for (tail, holders) in sorted {
        let (from, to) = (u64::from(tail.from), u64::from(tail.to));
        if to <= given.reach {
            continue;
        }
        if from > given.reach {
            break;
        }
        for wal in holders {
            let read = read_tail(*wal, tail.segment, tail.from..tail.to, &tail.writer);
            match read.and_then(|bytes| agreeing(*wal, tail, bytes, &last, given.reach)) {
                Ok(bytes) => {
                    let new = usize::try_from(given.reach - from).ok().and_then(|known| bytes.get(known..));
                    sink(new.unwrap_or_default()).map_err(WalError::Sink)?;
                    given.reach = to;
                    last = (from, bytes);
                    break;
                }
                Err(error) if trouble.as_ref().is_none_or(|(known, _)| *known < to) => {
                    trouble = Some((to, error));
                }
                Err(_) => {}
            }
        }
    }
    given.trouble = trouble.filter(|(to, _)| *to > given.reach).map(|(_, error)| error);
    Ok(given)
}

/// That a tail says the same as the one before where they overlap.
fn agreeing(
    wal: ClusterWal<'_>,
    tail: &Tail,
    bytes: Vec<u8>,
    (last_from, last): &(u64, Vec<u8>),
    reach: u64,
) -> Result<Vec<u8>, WalError> {
    let overlap = usize::try_from(reach - u64::from(tail.from)).unwrap_or(usize::MAX);
    let before = usize::try_from(u64::from(tail.from).saturating_sub(*last_from)).unwrap_or(usize::MAX);
    let known = last.get(before..).unwrap_or_default();
    if overlap > 0 && bytes.get(..overlap) != Some(known) {
        let place = layout::tail(wal.stanza, wal.system, tail.segment, tail.from, tail.to, &tail.writer)?;
        return Err(RepoError::damaged(&place.key, "it does not agree with another tail").into());
    }
    Ok(bytes)
}

/// The same from one repository, which is listed for them.
///
/// # Errors
/// As [`read_tails_into`], and when the repository cannot be listed.
pub fn read_tails_of(
    wal: ClusterWal<'_>,
    segment: SegmentName,
    sink: Sink<'_>,
) -> Result<FromTails, WalError> {
    let near = look::neighbours(wal, segment)?;
    let tails: Vec<_> = near.tails_of(segment).map(|tail| (tail, vec![wal])).collect();
    read_tails_into(&tails, sink)
}

/// Gives the zeros that follow in a segment's file after `reach` bytes, as in one that PostgreSQL has not filled.
///
/// # Errors
/// [`WalError::Sink`] when `sink` fails.
pub fn give_zeros(reach: u64, size: SegmentSize, sink: Sink<'_>) -> Result<(), WalError> {
    let zeros = [0; 8192];
    let mut left = size.bytes().saturating_sub(reach);
    while left > 0 {
        let now = usize::try_from(left).unwrap_or(zeros.len()).min(zeros.len());
        sink(&zeros[..now]).map_err(WalError::Sink)?;
        left -= now as u64;
    }
    Ok(())
}

/// Gives all bytes of a segment from one repository: as stored whole, else what tails hold of it, the rest zero.
/// `false` when there is neither.
///
/// # Errors
/// As [`super::read::read_segment_into`]; a tail's trouble.
pub fn read_held_into(
    wal: ClusterWal<'_>,
    segment: SegmentName,
    size: SegmentSize,
    sink: Sink<'_>,
) -> Result<bool, WalError> {
    match super::read::read_segment_into(wal, segment, sink) {
        Ok(_) => return Ok(true),
        Err(error) if is_missing(&error) => {}
        Err(error) => return Err(error),
    }
    match read_tails_of(wal, segment, sink)? {
        FromTails { trouble: Some(error), .. } => Err(error),
        FromTails { reach: 0, .. } => Ok(false),
        FromTails { reach, .. } => give_zeros(reach, size, sink).map(|()| true),
    }
}

/// Bytes of one tail where a stretch is stored as several: what a writer has in memory.
pub const TAIL_PIECE: usize = write::LONGEST_TAIL / 8;
