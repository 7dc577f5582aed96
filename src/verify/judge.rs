//! Puts together what was read and what is not there: a verdict for each backup and each timeline.

use super::finding::{Findings, Problem, Verdict, Wrong};
use super::run::Judged;
use super::segments::Found;
use super::timelines::{self, Histories, Lacks};
use super::{CheckedTimeline, Scope, Verified, VerifyError};
use crate::repo::RepoError;
use crate::repo::layout;
use crate::storage::Key;
use crate::units::{SegmentName, SegmentSize, TimelineId};
use crate::wal::ClusterWal;
use crate::wal::archive::Archive;
use crate::wal::archive::lineage::SegmentRange;
use std::collections::BTreeMap;

/// The stretches of WAL that these backups cannot do without.
pub(super) fn own_stretches(
    archive: &Archive,
    histories: &Histories,
    judged: &[&mut Judged],
    size: SegmentSize,
) -> Vec<(SegmentName, SegmentName)> {
    let ranges = judged.iter().filter_map(|one| timelines::own_range(archive, histories, &one.record));
    ranges
        .flat_map(|(_, ranges)| ranges)
        .filter_map(|(range, _)| range.first_name(size).zip(range.last_name(size)))
        .collect()
}

/// Puts together what was read and what is not there.
pub(super) struct Judge<'a> {
    pub wal: ClusterWal<'a>,
    pub size: SegmentSize,
    pub archive: &'a Archive,
    pub histories: &'a Histories,
    pub found: &'a Found,
}

impl Judge<'_> {
    fn key(&self, segment: SegmentName) -> Result<Key, RepoError> {
        Ok(layout::segment(self.wal.stanza, self.wal.system, segment)?.key)
    }

    /// The WAL that a backup cannot do without.
    pub(super) fn backup(&self, one: &mut Judged, lacks: &Lacks) -> Result<(), VerifyError> {
        let record = &one.record;
        let findings = &mut one.looked.findings;
        for gap in lacks.own.get(&record.backup_id).into_iter().flatten() {
            if let Some(problem) = timelines::gap_problem(self.wal, gap, self.size)? {
                findings.push(problem);
            }
        }
        let Some((_, ranges)) = timelines::own_range(self.archive, self.histories, record) else {
            let key = layout::history(self.wal.stanza, self.wal.system, record.timeline);
            let why = "the timeline's history cannot be read, nor does the record tell it";
            findings.push(Problem::new(Wrong::NotChecked, key.map_err(RepoError::from)?.key, why));
            return Ok(());
        };
        let is_own = |segment: SegmentName| {
            let number = segment.number(self.size);
            ranges.iter().any(|(range, _)| {
                range.timeline == segment.timeline()
                    && number.is_some_and(|number| (range.first..=range.last).contains(&number))
            })
        };
        for (_, problem) in self.found.problems.iter().filter(|(segment, _)| is_own(*segment)) {
            findings.push(problem.clone());
        }
        for (segment, end) in self.found.ends_inside.iter().filter(|(segment, _)| is_own(**segment)) {
            let goes_on = ranges.iter().any(|(range, _)| {
                range.timeline == segment.timeline()
                    && segment.number(self.size).is_some_and(|number| number < range.last)
            });
            if goes_on || end.at < record.stop_lsn {
                let why = format!("its WAL ends at {}, before the backup does: {}", end.at, end.why);
                findings.push(Problem::damaged(self.key(*segment)?, why));
            }
        }
        let proof = &record.wal_proof;
        match self.found.proofs.get(&record.backup_id) {
            Some(true) => {}
            Some(false) => {
                let why = "it is not the segment in which the backup ended, but one of another branch";
                findings.push(Problem::damaged(self.key(proof.segment)?, why));
            }
            None if findings.verdict() == Verdict::Good => {
                let why = "it could not be held against the record: too little of it is there";
                findings.push(Problem::new(Wrong::NotChecked, self.key(proof.segment)?, why));
            }
            None => {}
        }
        Ok(())
    }

    /// The parts of a range that was asked for by name and is not there.
    pub(super) fn asked_range(&self, first: SegmentName, last: SegmentName) -> Vec<SegmentRange> {
        let (Some(from), Some(to)) = (first.number(self.size), last.number(self.size)) else {
            return Vec::new();
        };
        let timeline = first.timeline();
        let beside = |number: u64| {
            SegmentName::from_number(timeline, number, self.size).is_some_and(|name| {
                self.found.partial_valid.contains_key(&name)
                    || self.archive.tails(timeline).any(|(tail, _)| tail.segment == name)
            })
        };
        let split = self.archive.segments(timeline).split(from..=to);
        split
            .into_iter()
            .filter(|(run, held)| !(*held || run.start() == run.end() && beside(*run.start())))
            .map(|(run, _)| {
                let (first, last) = run.into_inner();
                SegmentRange { timeline, first, last }
            })
            .collect()
    }

    pub(super) fn timelines(
        &self,
        lacks: &Lacks,
        asked: &[SegmentRange],
        scope: &Scope,
        verified: &mut Verified,
    ) -> Result<(), VerifyError> {
        let mut all: BTreeMap<TimelineId, Findings> = BTreeMap::new();
        for timeline in self.found.counts.keys() {
            all.entry(*timeline).or_default();
        }
        if *scope == Scope::Everything {
            for timeline in self.archive.timelines() {
                all.entry(timeline).or_default();
            }
            for (timeline, problem) in &self.histories.problems {
                all.entry(*timeline).or_default().push(problem.clone());
            }
            for timeline in &lacks.histories {
                let key = layout::history(self.wal.stanza, self.wal.system, *timeline);
                all.entry(*timeline).or_default().push(Problem::missing(key.map_err(RepoError::from)?.key));
            }
        }
        for gap in lacks.gaps.values().flatten().chain(asked) {
            if let Some(problem) = timelines::gap_problem(self.wal, gap, self.size)? {
                all.entry(gap.timeline).or_default().push(problem);
            }
        }
        for (segment, problem) in &self.found.problems {
            all.entry(segment.timeline()).or_default().push(problem.clone());
        }
        let mut ends: BTreeMap<TimelineId, (SegmentName, String)> = BTreeMap::new();
        for (segment, end) in &self.found.ends_inside {
            if self.archive.later_exists(*segment) {
                let why = format!("its WAL ends at {}, and more follows: {}", end.at, end.why);
                let problem = Problem::damaged(self.key(*segment)?, why);
                all.entry(segment.timeline()).or_default().push(problem);
            } else {
                ends.insert(segment.timeline(), (*segment, format!("at {}: {}", end.at, end.why)));
            }
        }
        for (timeline, mut findings) in all {
            if let Some(more) = self.found.more.get(&timeline) {
                let root = layout::wal_timeline(self.wal.stanza, self.wal.system, timeline);
                let why = format!("{more} more objects are damaged, missing or could not be read");
                findings.push(Problem::damaged(root.map_err(RepoError::from)?, why));
            }
            let count = self.found.counts.get(&timeline).cloned().unwrap_or_default();
            verified.timelines.push(CheckedTimeline {
                system: self.wal.system,
                timeline,
                findings,
                segments: count.segments,
                partials: count.partials,
                tails: count.tails,
                unknown: count.unknown,
                bytes: count.bytes,
                ends: self.archive.oldest(timeline).zip(self.archive.newest(timeline)),
                ends_inside: ends.remove(&timeline),
            });
        }
        Ok(())
    }
}
