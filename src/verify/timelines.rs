//! What must be there: segments without a gap from the first backup on, a history for each timeline, and the
//! range that each backup cannot do without.

use super::finding::Problem;
use super::segments::Found;
use super::{VerifyError, Wrong};
use crate::postgres::history::TimelineHistory;
use crate::repo::RepoError;
use crate::repo::layout;
use crate::repo::record::Record;
use crate::units::{BackupId, Lsn, SegmentName, SegmentSize, TimelineId};
use crate::wal::archive::Archive;
use crate::wal::archive::lineage::{SegmentRange, lineage_of};
use crate::wal::{ClusterWal, WalError, read};
use std::collections::BTreeMap;

/// The histories of a cluster.
#[derive(Default)]
pub(super) struct Histories {
    read: BTreeMap<TimelineId, TimelineHistory>,
    /// What is wrong with some of them.
    pub problems: Vec<(TimelineId, Problem)>,
}

impl Histories {
    /// Reads all of them and holds each against the others.
    pub(super) fn read(
        wal: ClusterWal<'_>,
        timelines: &[TimelineId],
        mut note: impl FnMut(&RepoError),
    ) -> Result<Self, VerifyError> {
        let mut all = Self::default();
        for timeline in timelines {
            let key = layout::history(wal.stanza, wal.system, *timeline).map_err(RepoError::from)?.key;
            match read::read_history(wal, *timeline) {
                Ok(history) => {
                    all.read.insert(*timeline, history);
                }
                Err(WalError::Repo(error)) => {
                    note(&error);
                    all.problems.push((*timeline, Problem::of(error, &key)?));
                }
                Err(other) => all.problems.push((*timeline, Problem::damaged(key, other.to_string()))),
            }
        }
        for (later, history) in &all.read {
            for (timeline, held) in all.read.range(..later) {
                let Some(implied) = history.implied_for(*timeline) else { continue };
                let forks = |history: &TimelineHistory| -> Vec<(TimelineId, Lsn)> {
                    history.entries().iter().map(|entry| (entry.timeline, entry.end)).collect()
                };
                if forks(&implied) != forks(held) {
                    let key =
                        layout::history(wal.stanza, wal.system, *timeline).map_err(RepoError::from)?.key;
                    let why = format!("it tells another story than {} does", later.history_name());
                    all.problems.push((*timeline, Problem::damaged(key, why)));
                }
            }
        }
        Ok(all)
    }

    fn holds(&self, timeline: TimelineId) -> bool {
        self.read.contains_key(&timeline) || self.problems.iter().any(|(of, _)| *of == timeline)
    }

    /// The lineage of a timeline, from any history that tells of it or from the record of a backup on it.
    fn lineage(&self, timeline: TimelineId, records: &[&Record]) -> Option<TimelineHistory> {
        if timeline == TimelineId::FIRST {
            return Some(TimelineHistory::root(timeline));
        }
        let told = self.read.range(timeline..).find_map(|(_, history)| history.implied_for(timeline));
        told.or_else(|| records.iter().find_map(|record| lineage_of(record)?.implied_for(timeline)))
    }

    /// For the first segment of each timeline, the one of its ancestor that it goes on from.
    pub(super) fn junctions(&self, size: SegmentSize) -> BTreeMap<SegmentName, SegmentName> {
        let mut junctions = BTreeMap::new();
        for (timeline, history) in &self.read {
            let Some(stretch) = history.stretch_of(*timeline) else { continue };
            let first = size.number_of(stretch.begin);
            let Some(before) = first.checked_sub(1) else { continue };
            let owner = history.owner_of_segment(before, size);
            let name = |timeline, number| SegmentName::from_number(timeline, number, size);
            if let (Some(child), Some(parent)) = (name(*timeline, first), name(owner, before)) {
                junctions.insert(child, parent);
            }
        }
        junctions
    }
}

/// What is not there, by the names alone.
#[derive(Default)]
pub(super) struct Lacks {
    /// Segments, by the timeline in whose name they should lie; sorted, no two touch.
    pub gaps: BTreeMap<TimelineId, Vec<SegmentRange>>,
    /// Timelines without a history.
    pub histories: Vec<TimelineId>,
    /// What the backups' own ranges lack.
    pub own: BTreeMap<BackupId, Vec<SegmentRange>>,
}

impl Lacks {
    pub(super) fn is_empty(&self) -> bool {
        self.gaps.is_empty() && self.histories.is_empty() && self.own.is_empty()
    }
}

/// The segments that a backup cannot do without.
pub(super) fn own_range(
    archive: &Archive,
    histories: &Histories,
    record: &Record,
) -> Option<(TimelineHistory, Vec<(SegmentRange, bool)>)> {
    let lineage = histories.lineage(record.timeline, &[record])?;
    let needed = archive.needed(&lineage, record.start_lsn, record.stop_lsn);
    Some((lineage, needed.ranges))
}

/// Looks for what must be there.
pub(super) fn lacks(
    archive: &Archive,
    histories: &Histories,
    records: &[&Record],
    found: &Found,
    whole_archive: bool,
) -> Lacks {
    let mut lacks = Lacks::default();
    let mut ranges: BTreeMap<TimelineId, Vec<SegmentRange>> = BTreeMap::new();
    let oldest = archive.timelines().next();
    for timeline in archive.timelines().filter(|_| whole_archive) {
        if Some(timeline) != oldest && !histories.holds(timeline) {
            lacks.histories.push(timeline);
        }
        let Some(lineage) = histories.lineage(timeline, records) else { continue };
        let leads_here = |record: &&&Record| lineage.includes(record.timeline, record.stop_lsn);
        let Some(first) = records.iter().filter(leads_here).map(|record| record.start_lsn).min() else {
            continue;
        };
        for gap in archive.gaps(&lineage, first) {
            ranges.entry(gap.timeline).or_default().push(gap);
        }
    }
    for record in records {
        let Some((lineage, needed)) = own_range(archive, histories, record) else { continue };
        let missing: Vec<SegmentRange> =
            needed.into_iter().filter(|(_, held)| !held).map(|(range, _)| range).collect();
        let reach = archive.reach(&lineage, record.start_lsn);
        let reaches = reach.is_some_and(|reach| {
            let start = reach.lacks.start(archive.segment_size());
            let partial = found.partial_valid.get(&reach.lacks);
            let end = start.zip(partial).and_then(|(start, valid)| start.forward(*valid));
            reach.end.max(end.unwrap_or(Lsn::INVALID)) >= record.stop_lsn
        });
        if !missing.is_empty() && !reaches {
            lacks.own.insert(record.backup_id.clone(), missing);
        }
    }
    for (timeline, mut gaps) in ranges {
        gaps.sort_by_key(|gap| (gap.first, gap.last));
        let mut joined: Vec<SegmentRange> = Vec::new();
        for gap in gaps {
            match joined.last_mut() {
                Some(before) if gap.first <= before.last.saturating_add(1) => {
                    before.last = before.last.max(gap.last);
                }
                _ => joined.push(gap),
            }
        }
        lacks.gaps.insert(timeline, joined);
    }
    lacks
}

/// A gap as a problem: named by its first segment.
pub(super) fn gap_problem(
    wal: ClusterWal<'_>,
    gap: &SegmentRange,
    size: SegmentSize,
) -> Result<Option<Problem>, RepoError> {
    let (Some(first), Some(last)) = (gap.first_name(size), gap.last_name(size)) else { return Ok(None) };
    let key = layout::segment(wal.stanza, wal.system, first)?.key;
    let why = match gap.count() {
        1 => "it is missing".to_owned(),
        count => format!("it is missing, and all up to {last}: {count} segments"),
    };
    Ok(Some(Problem::new(Wrong::Missing, key, why)))
}
