//! When is a target reachable?
//!
//! PostgreSQL ends with FATAL when it meets the end of the WAL before a target, even if nothing is missing: a time
//! after the last commit is never reached on an idle cluster. So a plan stands only where the archive holds
//! what recovery will stop at, and a refusal says how far one can go.

use super::candidates::Candidate;
use super::plan::Warning;
use super::scan::{self, FoundAt, ScanError, Wanted, Way};
use super::target::{Goal, Target};
use crate::postgres::history::TimelineHistory;
use crate::postgres::wal::reader::Begin;
use crate::repo::record::Record;
use crate::units::{BackupId, Lsn, SegmentName, Timestamp};
use crate::wal::archive::Archive;
use crate::wal::archive::lineage::SegmentRange;
use crate::wal::archive::window::LastCommit;
use crate::wal::{CommitPoint, WalError, read};
use sha2::{Digest, Sha256};
use std::fmt;

/// How far the clock of the host that took a backup may be from the server's before the WAL is asked instead.
const CLOCK_DOUBT_US: i64 = 15 * 60 * 1_000_000;

/// Where recovery will get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reached {
    /// To where the backup is consistent.
    Stop(Lsn),
    /// To the end of what is archived: how far, and the last commit there.
    End {
        /// The end.
        until: Lsn,
        /// The last commit, where it is known.
        last: Option<CommitPoint>,
        /// A gap that a standby will meet there.
        gap: bool,
    },
    /// To a time: recovery stops at a transaction's end in this segment.
    Time {
        /// The segment.
        segment: SegmentName,
        /// Its end.
        until: Lsn,
    },
    /// To what was found in the WAL.
    Found {
        /// Where.
        at: FoundAt,
        /// Another restore point of the same name behind it.
        again: Option<Lsn>,
    },
}

impl Reached {
    /// The place up to which WAL is surely needed.
    #[must_use]
    pub const fn until(&self) -> Lsn {
        match self {
            Self::Stop(lsn) => *lsn,
            Self::End { until, .. } | Self::Time { until, .. } => *until,
            Self::Found { at, .. } => at.end,
        }
    }

    pub(super) fn warnings(&self, archive: &Archive, lineage: &TimelineHistory) -> Vec<Warning> {
        match self {
            Self::End { until, gap: true, .. } => {
                archive.gaps(lineage, *until).into_iter().take(1).map(Warning::GapAhead).collect()
            }
            Self::Found { again: Some(again), .. } => vec![Warning::NameTwice(*again)],
            _ => Vec::new(),
        }
    }
}

/// Why a target cannot be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unreachable {
    /// The archive ends before it.
    ArchiveEnds {
        /// The last commit in the archive, where it is known.
        last: Option<CommitPoint>,
        /// The last complete segment.
        segment: Option<SegmentName>,
        /// How far the archive reaches.
        end: Lsn,
    },
    /// Segments on the way to it are in no repository.
    Gap {
        /// Which.
        missing: Vec<SegmentRange>,
        /// The last commit before them.
        before: Option<CommitPoint>,
        /// The first commit behind them.
        after: Option<CommitPoint>,
    },
    /// Nothing of that number or name was found.
    NotFound {
        /// How far was looked.
        end: Lsn,
        /// From where.
        from: Lsn,
        /// Whether a gap ended the search.
        gap: Option<SegmentRange>,
    },
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ArchiveEnds { .. } => f.write_str("the archive ends before the target"),
            Self::Gap { .. } => f.write_str("WAL is missing on the way to the target"),
            Self::NotFound { from, end, .. } => {
                write!(f, "the target was not found in the archived WAL from {from} to {end}")
            }
        }
    }
}

/// Why it could not be told, or why not.
#[derive(Debug)]
pub enum ReachError {
    /// The archive.
    Wal(WalError),
    /// WAL could not be looked into.
    Scan(ScanError),
    /// It cannot be reached.
    Unreachable(Unreachable),
    /// The archive is another branch's.
    OtherBranch {
        /// The backup.
        id: BackupId,
        /// The segment.
        segment: SegmentName,
    },
}

impl From<WalError> for ReachError {
    fn from(error: WalError) -> Self {
        Self::Wal(error)
    }
}

impl From<ScanError> for ReachError {
    fn from(error: ScanError) -> Self {
        Self::Scan(error)
    }
}

/// The newest of `along` (newest first, all on the lineage) that leads to the target, and how. `None` when
/// the target lies before the end of all of them.
///
/// # Errors
/// When the target cannot be reached whichever is taken.
pub fn choose(
    way: Way<'_>,
    target: &Target,
    along: &[&Candidate],
) -> Result<Option<(usize, Reached)>, ReachError> {
    let Some(newest) = along.first() else { return Ok(None) };
    match &target.goal {
        Goal::Consistent | Goal::None | Goal::Preserve => {
            Ok(Some((0, Reached::Stop(newest.record.stop_lsn))))
        }
        Goal::EndOfArchive => end_of_archive(way, &newest.record, false).map(|reached| Some((0, reached))),
        Goal::Standby => end_of_archive(way, &newest.record, true).map(|reached| Some((0, reached))),
        Goal::Lsn(lsn) => {
            let Some(at) = along.iter().position(|candidate| candidate.record.stop_lsn <= *lsn) else {
                return Ok(None);
            };
            to_lsn(way, &along[at].record, *lsn).map(|reached| Some((at, reached)))
        }
        Goal::Time(time) => {
            // Exclusive stops before a commit of that very moment.
            let after = if target.exclusive {
                Timestamp::from_unix_micros(time.at.as_unix_micros().saturating_sub(1))
            } else {
                time.at
            };
            let mut chosen = None;
            for (at, candidate) in along.iter().enumerate() {
                if ends_before(way, &candidate.record, after)? {
                    chosen = Some(at);
                    break;
                }
            }
            let Some(at) = chosen else { return Ok(None) };
            to_time(way, &along[at].record, after).map(|reached| Some((at, reached)))
        }
        Goal::Xid(xid) => search(way, along, &Wanted::Xid((xid & 0xFFFF_FFFF) as u32)),
        Goal::Name(name) => search(way, along, &Wanted::Name(name.clone())),
    }
}

fn end_of_archive(way: Way<'_>, record: &Record, standby: bool) -> Result<Reached, ReachError> {
    let Some(window) = way.archive.window(way.union, way.lineage, record.start_lsn)? else {
        return Ok(Reached::Stop(record.stop_lsn));
    };
    if window.reach.is_gap && window.reach.end >= record.stop_lsn && !standby {
        let missing = way.archive.gaps(way.lineage, record.start_lsn);
        return Err(ReachError::Unreachable(gap(way, record, missing)?));
    }
    let last = match window.last_commit {
        LastCommit::At(commit) => Some(commit),
        LastCommit::None | LastCommit::Unknown => None,
    };
    // Up to the end of the last complete segment: tails behind it are taken as they are.
    let until = window
        .reach
        .last
        .and_then(|last| last.next(way.archive.segment_size()))
        .and_then(|next| next.start(way.archive.segment_size()))
        .map_or(record.stop_lsn, |end| end.max(record.stop_lsn));
    Ok(Reached::End { until, last, gap: window.reach.is_gap })
}

fn to_lsn(way: Way<'_>, record: &Record, lsn: Lsn) -> Result<Reached, ReachError> {
    let size = way.archive.segment_size();
    require_way(way, record, lsn)?;
    // PostgreSQL stops at the first record that begins there or later; there must be one.
    let begin = Begin::Segment(size.number_of(lsn));
    match scan::find(way, begin, None, &Wanted::RecordFrom(lsn))? {
        Some(at) => Ok(Reached::Found { at, again: None }),
        None => Err(ReachError::Unreachable(archive_ends(way, record)?)),
    }
}

/// All segments from the backup's start to the one that holds `to`.
fn require_way(way: Way<'_>, record: &Record, to: Lsn) -> Result<(), ReachError> {
    let through = Lsn::new(to.as_u64().saturating_add(1));
    let needed = way.archive.needed(way.lineage, record.start_lsn, through);
    if needed.is_complete() {
        return Ok(());
    }
    let newest = way.archive.newest_along(way.lineage, record.start_lsn);
    let size = way.archive.segment_size();
    let target = size.number_of(to);
    let later_is_held = newest.and_then(|newest| newest.number(size)).is_some_and(|newest| newest >= target);
    let own = way.archive.needed(way.lineage, record.start_lsn, record.stop_lsn);
    if !own.is_complete() {
        // The caller names it as the backup's own.
        return Ok(());
    }
    let only_the_end = needed.ranges.iter().filter(|(_, held)| !held).count() == 1 && !later_is_held;
    Err(ReachError::Unreachable(if only_the_end {
        archive_ends(way, record)?
    } else {
        gap(way, record, needed.missing().collect())?
    }))
}

/// Whether a backup holds nothing that ended after `after`, so that recovery can stop there: no transaction that
/// ended later is in the copy or is replayed before the copy is consistent. Clocks decide only where they are far
/// apart; else the WAL is asked, and where that cannot tell either, the backup is not taken.
fn ends_before(way: Way<'_>, record: &Record, after: Timestamp) -> Result<bool, ReachError> {
    let ahead = after.micros_since(record.stopped_at_unix_us);
    if ahead < -CLOCK_DOUBT_US {
        return Ok(false);
    }
    let size = way.archive.segment_size();
    let first = size.number_of(record.start_lsn);
    if ahead > CLOCK_DOUBT_US {
        // One look at the WAL all the same: a clock may be off by a day.
        let owner = way.lineage.owner_of_segment(first, size);
        let info = match SegmentName::from_number(owner, first, size) {
            Some(name) => way.archive.segment_info(way.union, name)?,
            None => None,
        };
        let commit = info.and_then(|info| info.first_commit);
        if commit.is_none_or(|commit| commit.at <= after) {
            return Ok(true);
        }
    }
    let asked = || -> Result<Option<bool>, ScanError> {
        // What is in the copy already: the transactions before its start.
        let in_segment =
            scan::find(way, Begin::Segment(first), Some(record.start_lsn), &Wanted::CommitAfter(after))?;
        if in_segment.is_some_and(|found| found.lsn < record.start_lsn) {
            return Ok(Some(false));
        }
        let any = Wanted::CommitAfter(Timestamp::from_unix_micros(i64::MIN));
        let seen = scan::find(way, Begin::Segment(first), Some(record.start_lsn), &any)?;
        let known_before = seen.is_some_and(|found| found.lsn < record.start_lsn)
            || match last_commit_before(way, first).map_err(ScanError::Wal)? {
                Some(commit) if commit.at > after => return Ok(Some(false)),
                Some(_) => true,
                None => false,
            };
        // What is replayed before it is consistent.
        let begin = Begin::Record(record.start_lsn);
        if scan::find(way, begin, Some(record.stop_lsn), &Wanted::CommitAfter(after))?.is_some() {
            return Ok(Some(false));
        }
        Ok(known_before.then_some(true))
    };
    match asked() {
        Ok(Some(answer)) => Ok(answer),
        Ok(None) | Err(ScanError::Broken(_)) => Ok(ahead >= 0),
        Err(error) => Err(error.into()),
    }
}

/// The last transaction that ended in the segments just before this one, as far as they are held.
fn last_commit_before(way: Way<'_>, number: u64) -> Result<Option<CommitPoint>, WalError> {
    let size = way.archive.segment_size();
    for number in (0..number).rev().take(16) {
        let owner = way.lineage.owner_of_segment(number, size);
        let Some(name) = SegmentName::from_number(owner, number, size) else { break };
        let Some(info) = way.archive.segment_info(way.union, name)? else { break };
        if info.last_commit.is_some() {
            return Ok(info.last_commit);
        }
    }
    Ok(None)
}

fn to_time(way: Way<'_>, record: &Record, after: Timestamp) -> Result<Reached, ReachError> {
    let size = way.archive.segment_size();
    let found = way.archive.segment_after(way.union, way.lineage, record.stop_lsn, after)?;
    if let Some(segment) = found
        && let Some(until) = segment.next(size).and_then(|next| next.start(size))
    {
        return Ok(Reached::Time { segment, until });
    }
    let window = way.archive.window(way.union, way.lineage, record.start_lsn)?;
    let own = way.archive.needed(way.lineage, record.start_lsn, record.stop_lsn);
    if !own.is_complete() {
        return Ok(Reached::Stop(record.stop_lsn));
    }
    if window.is_some_and(|window| window.reach.is_gap) {
        let missing = way.archive.gaps(way.lineage, record.start_lsn);
        return Err(ReachError::Unreachable(gap(way, record, missing)?));
    }
    Err(ReachError::Unreachable(archive_ends(way, record)?))
}

fn archive_ends(way: Way<'_>, record: &Record) -> Result<Unreachable, ReachError> {
    let window = way.archive.window(way.union, way.lineage, record.start_lsn)?;
    let (last, segment, end) = match window {
        Some(window) => {
            let last = match window.last_commit {
                LastCommit::At(commit) => Some(commit),
                LastCommit::None | LastCommit::Unknown => None,
            };
            (last, window.reach.last, window.reach.end)
        }
        None => (None, None, record.stop_lsn),
    };
    Ok(Unreachable::ArchiveEnds { last, segment, end })
}

/// A gap with the times around it.
pub(super) fn gap(
    way: Way<'_>,
    record: &Record,
    missing: Vec<SegmentRange>,
) -> Result<Unreachable, ReachError> {
    let window = way.archive.window(way.union, way.lineage, record.start_lsn)?;
    let before = match window.map(|window| window.last_commit) {
        Some(LastCommit::At(commit)) => Some(commit),
        _ => None,
    };
    let size = way.archive.segment_size();
    let mut after = None;
    if let Some(last) = missing.first().map(|range| range.last) {
        for number in (last.saturating_add(1)..).take(16) {
            let owner = way.lineage.owner_of_segment(number, size);
            let Some(name) = SegmentName::from_number(owner, number, size) else { break };
            if let Some(info) = way.archive.segment_info(way.union, name)?
                && let Some(commit) = info.first_commit
            {
                after = Some(commit);
                break;
            }
        }
    }
    Ok(Unreachable::Gap { missing, before, after })
}

/// Looks between the end of each backup and of the next newer one, newest first: the newest backup with what is
/// wanted behind it. A backup with the same name in what is replayed before it is consistent is passed over:
/// PostgreSQL would stop at that one, and refuse.
fn search(
    way: Way<'_>,
    along: &[&Candidate],
    wanted: &Wanted,
) -> Result<Option<(usize, Reached)>, ReachError> {
    let mut newer: Option<Lsn> = None;
    let mut looked_from = Lsn::INVALID;
    let mut too_early = false;
    for (at, candidate) in along.iter().enumerate() {
        let record = &candidate.record;
        if newer.is_some_and(|newer| record.stop_lsn >= newer) {
            continue;
        }
        looked_from = record.stop_lsn;
        let size = way.archive.segment_size();
        // From the record that ends the backup on: the stop position is where the next one begins, or a page's end.
        let begin = Begin::Segment(size.number_of(record.stop_lsn));
        let mut found = scan::find(way, begin, newer, wanted)?;
        while let Some(early) = found.filter(|found| found.lsn < record.stop_lsn) {
            found = scan::find(way, Begin::Record(early.end), newer, wanted)?;
        }
        if let Some(found) = found {
            let mut again = None;
            if matches!(wanted, Wanted::Name(_)) {
                let begin = Begin::Record(record.start_lsn);
                if scan::find(way, begin, Some(record.stop_lsn), wanted)?.is_some() {
                    too_early = true;
                    newer = Some(record.stop_lsn);
                    continue;
                }
                let until = if too_early { None } else { newer };
                again = scan::find(way, Begin::Record(found.end), until, wanted)?.map(|more| more.lsn);
            }
            return Ok(Some((at, Reached::Found { at: found, again })));
        }
        newer = Some(record.stop_lsn);
    }
    let Some(newest) = along.first().filter(|_| !too_early) else { return Ok(None) };
    let window = way.archive.window(way.union, way.lineage, newest.record.start_lsn)?;
    let end = window.as_ref().map_or(newest.record.stop_lsn, |window| window.reach.end);
    let gap = way.archive.gaps(way.lineage, looked_from).into_iter().next();
    Err(ReachError::Unreachable(Unreachable::NotFound { end, from: looked_from, gap }))
}

/// Where the record begins with which a standby's backup is consistent; `None` for a primary's.
///
/// PostgreSQL stops a recovery to the earliest consistent point *before* the record that follows, or after one that
/// ends a transaction (`recoveryStopsAfter`, xlogrecovery.c). Nothing need follow a standby's backup in the archive, so
/// its recovery is told to stop after this record instead.
///
/// # Errors
/// [`ReachError::OtherBranch`] when no record ends where the backup did; trouble with the archive.
pub fn last_record(way: Way<'_>, record: &Record) -> Result<Option<Lsn>, ReachError> {
    if !record.from_standby {
        return Ok(None);
    }
    let (size, stop) = (way.archive.segment_size(), record.stop_lsn);
    // It may have begun in the segment before.
    let begin = size.number_before(stop).saturating_sub(1).max(size.number_of(record.start_lsn));
    let until = Some(stop);
    match scan::find(way, Begin::Segment(begin), until, &Wanted::EndingAt(stop))? {
        Some(found) => Ok(Some(found.lsn)),
        None => {
            let segment = record.wal_proof.segment;
            Err(ReachError::OtherBranch { id: record.backup_id.clone(), segment })
        }
    }
}

/// That the archived WAL is the backup's own and not a clone's, which may have the same names and histories: the
/// segment it ended in has the bytes that the backup saw.
///
/// # Errors
/// [`ReachError::OtherBranch`] when it does not.
pub fn prove_branch(way: Way<'_>, record: &Record) -> Result<(), ReachError> {
    let proof = &record.wal_proof;
    let size = way.archive.segment_size();
    let Some(length) = proof.segment.start(size).and_then(|start| proof.until_lsn.since(start)) else {
        return Ok(());
    };
    let mut trouble = None;
    let (mut same, mut other) = (false, false);
    // All of them, although one would do: recovery takes the first good copy, whoever's it is.
    for wal in way.archive.holders(proof.segment).iter().filter_map(|at| way.union.of(at)) {
        let mut hash = Sha256::new();
        let mut left = length;
        let result = read::read_segment_into(wal, proof.segment, &mut |bytes| {
            let take = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
            hash.update(&bytes[..take]);
            left -= take as u64;
            Ok(())
        });
        match result {
            Ok(_) if left == 0 && crate::repo::layout::hex(&hash.finalize()) == proof.sha256 => same = true,
            Ok(_) => other = true,
            Err(error) if read::is_missing(&error) => {}
            Err(error) => trouble = trouble.or(Some(error)),
        }
    }
    match (other, same, trouble) {
        (true, ..) => Err(ReachError::OtherBranch { id: record.backup_id.clone(), segment: proof.segment }),
        (false, true, _) => Ok(()),
        (false, false, Some(error)) => Err(error.into()),
        // Tails hold what the backup saw, under a name that only its writer gives: that they can be read is what
        // there is to prove.
        (false, false, None) => {
            let mut hash = Sha256::new();
            let mut left = length;
            let tails = way.archive.read_tails(way.union, proof.segment, &mut |bytes| {
                let take = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                hash.update(&bytes[..take]);
                left -= take as u64;
                Ok(())
            })?;
            match tails.trouble {
                Some(error) if left > 0 => Err(error.into()),
                _ if left == 0 && crate::repo::layout::hex(&hash.finalize()) != proof.sha256 => {
                    Err(ReachError::OtherBranch { id: record.backup_id.clone(), segment: proof.segment })
                }
                // Nothing of it is held: a timeline that came from it has what is needed.
                _ => Ok(()),
            }
        }
    }
}
