//! The WAL of a backup that was taken from a standby.
//!
//! A standby cannot make its primary finish a segment, so the last one may stay open for days, or for ever when the
//! primary is gone. Nothing is lost: the standby has every byte that its backup needs. So
//!
//! 1. a segment that the standby knows to be finished is awaited in the archive, up to `archive-timeout`;
//! 2. what is open, and what did not come, is taken from the standby and stored as *tails*, beside the name: the
//!    segment itself, should it still come, is in nobody's way and takes over;
//! 3. that the archive is the one this standby's primary writes is proved by the chain of records, which leads from
//!    the archived segment before the tails unbroken into them. Where there is no such segment it is not proved.

use super::error::BackupError;
use super::replicate::{Fetch, Wanted};
use super::wait;
use crate::postgres::client::ReplicationClient;
use crate::units::{Lsn, SegmentName};
use std::collections::BTreeSet;

/// Where the WAL of a standby's backup is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Segments that were not archived and were taken from the standby.
    pub taken: BTreeSet<SegmentName>,
    /// Those among them that were finished, so that the archive should have had them.
    pub late: BTreeSet<SegmentName>,
    /// The number of the archived segment from which the proof's chain leads on.
    pub link: Option<u64>,
    /// What should have been in its place and is not in the archive: nothing there proves whose it is.
    pub unlinked: Option<SegmentName>,
}

/// Sees to it that all WAL from `start` to `stop` is in the repository.
///
/// # Errors
/// The server's or the repository's trouble; an interrupt.
pub fn complete(
    fetch: &Fetch<'_>,
    runtime: &tokio::runtime::Runtime,
    client: &mut ReplicationClient,
    archived: bool,
    (start, stop): (Lsn, Lsn),
) -> Result<Origin, BackupError> {
    let wal = &fetch.wal;
    let wanted = wait::segments(wal, start, stop)?;
    let flushed = runtime.block_on(client.identify_system())?.flushed;
    let end_of = |segment: SegmentName| {
        segment.start(wal.size).and_then(|at| at.forward(wal.size.bytes())).ok_or(BackupError::Bug)
    };
    let finished = |segment: &SegmentName| end_of(*segment).is_ok_and(|end| end <= flushed);
    let first = wal.size.number_of(start);
    let before = |number: u64| match number.checked_sub(1) {
        None | Some(0) => Ok(None),
        Some(before) => wal.name(before).map(Some),
    };
    if archived {
        let mut awaited: BTreeSet<SegmentName> = wanted.iter().copied().filter(finished).collect();
        if awaited.is_empty() {
            // All of it is open: the segment before tells whose the archive is.
            awaited.extend(before(first)?);
        }
        wait::arriving(wal, awaited, fetch.patience, fetch.observer)?;
    }

    let missing = wait::missing(wal.cluster, &wanted)?;
    let mut origin = Origin::default();
    let mut pieces = Vec::with_capacity(missing.len());
    for segment in &missing {
        let (is_last, finished) = (Some(segment) == wanted.last(), finished(segment));
        // Without an archive a segment's name is there for it to take.
        let named = !archived && finished;
        let until = if is_last && !named { stop } else { end_of(*segment)? };
        pieces.push(Wanted { segment: *segment, until, as_tails: !named });
        origin.taken.insert(*segment);
        if archived && finished {
            origin.late.insert(*segment);
        }
    }
    runtime.block_on(fetch.run(client, &pieces))?;

    if let Some(number) = missing.first().filter(|_| archived).and_then(|segment| segment.number(wal.size))
        && let Some(name) = before(number)?
    {
        if wait::missing(wal.cluster, &BTreeSet::from([name]))?.is_empty() {
            origin.link = Some(number - 1);
        } else {
            origin.unlinked = Some(name);
        }
    }
    Ok(origin)
}
