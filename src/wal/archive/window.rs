//! Windows: up to where one can recover from a backup's end, and the last commit there.

use super::lineage::Reach;
use super::{Archive, RepoSet};
use crate::postgres::history::TimelineHistory;
use crate::repo::Repository;
use crate::units::{Lsn, SegmentName, Stanza, SystemIdentifier, TimelineId, Timestamp};
use crate::wal::info::{CommitPoint, SegmentInfo};
use crate::wal::read::{Sink, is_missing, read_history, segment_info};
use crate::wal::tails::{FromTails, read_tails_into};
use crate::wal::{ClusterWal, WalError};

/// How many segments without any commit are looked through for the last one before it is left unknown: an
/// idle server that switches every minute makes as many in four hours.
pub const LOOK_BACK: u64 = 256;

/// What is known of the last commit in a stretch of WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastCommit {
    /// It is this one. Times may fall from one commit to the next by what clocks and locks allow.
    At(CommitPoint),
    /// No transaction ended in the complete segments of this stretch.
    None,
    /// Not among the newest [`LOOK_BACK`] segments.
    Unknown,
}

/// The stretch to which one can recover.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// The end of the backup: nothing before it can be recovered to.
    pub from: Lsn,
    /// The timeline whose lineage this is.
    pub timeline: TimelineId,
    /// How far WAL goes on from there.
    pub reach: Reach,
    /// The last commit in the complete segments of it.
    pub last_commit: LastCommit,
}

/// A cluster's WAL in several repositories, of which each read takes the first that gives good bytes.
#[derive(Clone, Copy, Debug)]
pub struct Union<'a> {
    /// The repositories, in the order in which the [`Archive`] was read from them.
    pub repositories: &'a [&'a Repository],
    /// The stanza.
    pub stanza: &'a Stanza,
    /// The cluster.
    pub system: SystemIdentifier,
}

impl<'a> Union<'a> {
    /// One of the repositories.
    #[must_use]
    pub fn of(&self, repository: usize) -> Option<ClusterWal<'a>> {
        let repo = *self.repositories.get(repository)?;
        Some(ClusterWal { repo, stanza: self.stanza, system: self.system })
    }

    /// The first good answer of those that hold something; `None` when none holds it any more.
    fn first<T>(
        &self,
        holders: impl Iterator<Item = usize>,
        read: impl Fn(ClusterWal<'a>) -> Result<T, WalError>,
    ) -> Result<Option<T>, WalError> {
        let mut trouble = None;
        for wal in holders.filter_map(|at| self.of(at)) {
            match read(wal) {
                Ok(answer) => return Ok(Some(answer)),
                Err(error) if is_missing(&error) => {}
                Err(error) => trouble = trouble.or(Some(error)),
            }
        }
        trouble.map_or(Ok(None), Err)
    }
}

impl Archive {
    /// Gives what tails hold of a segment from its beginning on; see [`read_tails_into`].
    ///
    /// # Errors
    /// [`WalError::Sink`] when `sink` fails.
    pub fn read_tails(
        &self,
        union: Union<'_>,
        segment: SegmentName,
        sink: Sink<'_>,
    ) -> Result<FromTails, WalError> {
        let tails: Vec<_> = self
            .tails_of(segment)
            .map(|(tail, holders)| (tail, holders.iter().filter_map(|at| union.of(at)).collect()))
            .collect();
        read_tails_into(&tails, sink)
    }

    /// What a held segment says of itself; `None` when none of its holders has it any more,
    /// or only as tails, which say nothing of commits.
    ///
    /// # Errors
    /// When every holder's copy is damaged or out of reach.
    pub fn segment_info(
        &self,
        union: Union<'_>,
        segment: SegmentName,
    ) -> Result<Option<SegmentInfo>, WalError> {
        union.first(self.holders(segment).iter(), |wal| segment_info(wal, segment))
    }

    /// The lineage of a timeline: from its own history, or from the nearest later one that tells of it. The
    /// first timeline needs none. `None` when it cannot be known.
    ///
    /// # Errors
    /// When a history is held that no repository gives in good order.
    pub fn lineage(
        &self,
        union: Union<'_>,
        timeline: TimelineId,
    ) -> Result<Option<TimelineHistory>, WalError> {
        self.lineage_by(timeline, |later, holders| {
            union.first(holders.iter(), |wal| read_history(wal, later))
        })
    }

    /// The same, by whoever reads the history of a timeline that these repositories hold.
    pub(super) fn lineage_by<E>(
        &self,
        timeline: TimelineId,
        mut read: impl FnMut(TimelineId, RepoSet) -> Result<Option<TimelineHistory>, E>,
    ) -> Result<Option<TimelineHistory>, E> {
        if timeline == TimelineId::FIRST {
            return Ok(Some(TimelineHistory::root(timeline)));
        }
        for (later, holders) in self.histories().filter(|(later, _)| *later >= timeline) {
            let Some(history) = read(later, holders)? else { continue };
            if let Some(implied) = history.implied_for(timeline) {
                return Ok(Some(implied));
            }
        }
        Ok(None)
    }

    /// The window from a backup's end along a lineage. Reads the footers of a few segments.
    ///
    /// # Errors
    /// When a segment that must be looked into is damaged or out of reach in every repository.
    pub fn window(
        &self,
        union: Union<'_>,
        lineage: &TimelineHistory,
        from: Lsn,
    ) -> Result<Option<Window>, WalError> {
        self.window_by(lineage, from, |segment| {
            Ok(self.segment_info(union, segment)?.and_then(|info| info.last_commit))
        })
    }

    /// The same, by whoever tells the last commit of a segment. Asks for the newest segment first.
    pub(super) fn window_by<E>(
        &self,
        lineage: &TimelineHistory,
        from: Lsn,
        last_commit_of: impl FnMut(SegmentName) -> Result<Option<CommitPoint>, E>,
    ) -> Result<Option<Window>, E> {
        let Some(reach) = self.reach(lineage, from) else { return Ok(None) };
        let last_commit = self.last_commit(lineage, from, &reach, last_commit_of)?;
        Ok(Some(Window { from, timeline: lineage.timeline(), reach, last_commit }))
    }

    fn last_commit<E>(
        &self,
        lineage: &TimelineHistory,
        from: Lsn,
        reach: &Reach,
        mut last_commit_of: impl FnMut(SegmentName) -> Result<Option<CommitPoint>, E>,
    ) -> Result<LastCommit, E> {
        let size = self.segment_size();
        let first = size.number_of(from);
        let Some(last) = reach.last.and_then(|last| last.number(size)) else { return Ok(LastCommit::None) };
        for (looked, number) in (first..=last).rev().enumerate() {
            if looked as u64 >= LOOK_BACK {
                return Ok(LastCommit::Unknown);
            }
            let owner = lineage.owner_of_segment(number, size);
            let Some(segment) = SegmentName::from_number(owner, number, size) else { break };
            if let Some(commit) = last_commit_of(segment)? {
                return Ok(LastCommit::At(commit));
            }
        }
        Ok(LastCommit::None)
    }

    /// The first complete segment from `from` on, within reach, in which a transaction ends after `time`:
    /// where a recovery to that time stops. Found by halving, which trusts that times rise from one segment to
    /// a much later one; `None` when none does.
    ///
    /// # Errors
    /// As [`Archive::window`].
    pub fn segment_after(
        &self,
        union: Union<'_>,
        lineage: &TimelineHistory,
        from: Lsn,
        time: Timestamp,
    ) -> Result<Option<SegmentName>, WalError> {
        let size = self.segment_size();
        let Some(reach) = self.reach(lineage, from) else { return Ok(None) };
        let Some(last) = reach.last.and_then(|last| last.number(size)) else { return Ok(None) };
        let (mut low, mut high) = (size.number_of(from), last.saturating_add(1));
        let mut answer = None;
        while low < high {
            let middle = low + (high - low) / 2;
            match self.next_commit(union, lineage, middle..=last)? {
                Some((at, commit)) if commit.at <= time => low = at + 1,
                later => {
                    answer = later.map(|(at, _)| at).or(answer);
                    high = middle;
                }
            }
        }
        Ok(answer.and_then(|number| {
            SegmentName::from_number(lineage.owner_of_segment(number, size), number, size)
        }))
    }

    /// The first of these segments in which a transaction ends, and the last one that does.
    fn next_commit(
        &self,
        union: Union<'_>,
        lineage: &TimelineHistory,
        range: std::ops::RangeInclusive<u64>,
    ) -> Result<Option<(u64, CommitPoint)>, WalError> {
        for number in range {
            let owner = lineage.owner_of_segment(number, self.segment_size());
            let Some(segment) = SegmentName::from_number(owner, number, self.segment_size()) else { break };
            let info = self.segment_info(union, segment)?;
            if let Some(commit) = info.and_then(|info| info.last_commit) {
                return Ok(Some((number, commit)));
            }
        }
        Ok(None)
    }
}
