//! Which backup, and along which timeline.

use super::{PlanError, Request, WindowSeen};
use crate::postgres::history::TimelineHistory;
use crate::repo::RepoError;
use crate::repo::record::Record;
use crate::restore::candidates::{Candidate, Candidates, Trouble};
use crate::restore::reach::{self, Reached};
use crate::restore::scan::Way;
use crate::restore::target::{Goal, TargetTimeline};
use crate::units::{Lsn, SegmentSize, SystemIdentifier, TimelineId};

use crate::wal::archive::Archive;
use crate::wal::archive::lineage::{Needed, lineage_of};
use crate::wal::archive::window::{LastCommit, Union};

pub(super) fn no_backup(candidates: Candidates) -> PlanError {
    match candidates.trouble.into_iter().next() {
        Some(trouble) => PlanError::Repo(trouble.repository, trouble.error),
        None => PlanError::NoBackup,
    }
}

/// A backup whose record is damaged, or whose repository cannot be listed, is not one that does not exist.
pub(super) fn no_such_backup(candidates: Candidates, set: String) -> PlanError {
    let may_be_it =
        |trouble: &Trouble| trouble.backup.as_ref().is_none_or(|id| id.as_str().starts_with(&set));
    match candidates.trouble.into_iter().find(may_be_it) {
        Some(trouble) => PlanError::Repo(trouble.repository, trouble.error),
        None => PlanError::NoSuchSet(set),
    }
}

pub(super) fn named<'c>(candidates: &'c Candidates, set: &str) -> Result<&'c Candidate, PlanError> {
    let mut fitting: Vec<&Candidate> = candidates
        .found
        .iter()
        .filter(|candidate| candidate.record.backup_id.as_str().starts_with(set))
        .collect();
    fitting.sort_by_key(|candidate| (candidate.record.backup_id.clone(), candidate.repository));
    fitting.dedup_by(|a, b| a.record.backup_id == b.record.backup_id);
    match fitting.as_slice() {
        [] => Err(PlanError::NoSuchSet(set.to_owned())),
        [one] => Ok(one),
        several => Err(PlanError::AmbiguousSet {
            set: set.to_owned(),
            fitting: several.iter().take(5).map(|candidate| candidate.record.backup_id.clone()).collect(),
        }),
    }
}

pub(super) fn segment_size(
    candidates: &Candidates,
    system: SystemIdentifier,
) -> Result<SegmentSize, PlanError> {
    let record = candidates.found.iter().map(|candidate| &candidate.record);
    let Some(record) = record.into_iter().find(|record| record.system_identifier == system) else {
        return Err(PlanError::NoBackup);
    };
    SegmentSize::new(record.cluster.wal_segment_size_bytes).map_err(|_| PlanError::BadRecord {
        id: record.backup_id.clone(),
        why: "names a WAL segment size that PostgreSQL does not have",
    })
}

/// All that the choice is made from.
pub(super) struct View<'r, 'a> {
    pub(super) request: &'r Request<'a>,
    pub(super) candidates: &'r Candidates,
    pub(super) archive: &'r Archive,
    pub(super) union: Union<'a>,
    pub(super) system: SystemIdentifier,
    pub(super) size: SegmentSize,
}

impl<'r, 'a> View<'r, 'a> {
    pub(super) fn way<'w>(&'w self, lineage: &'w TimelineHistory) -> Way<'w>
    where
        'a: 'w,
    {
        Way { archive: self.archive, union: self.union, lineage }
    }

    pub(super) fn reach_error(&self, error: reach::ReachError) -> PlanError {
        match error {
            reach::ReachError::Wal(error) => PlanError::Wal(error),
            reach::ReachError::Scan(error) => PlanError::Scan(error),
            reach::ReachError::OtherBranch { id, segment } => PlanError::OtherBranch { id, segment },
            reach::ReachError::Unreachable(why) => {
                // Every reason is something that is not there; another repository may have it.
                self.unsure().unwrap_or_else(|| PlanError::Unreachable {
                    why,
                    segment_size: self.size,
                    windows: self.windows(),
                })
            }
        }
    }

    /// Whether the first missing segment comes right behind the last one needed, with more behind it.
    pub(super) fn gap_follows(&self, lineage: &TimelineHistory, record: &Record, needed: &Needed) -> bool {
        let last = needed.ranges.last().map(|(range, _)| range.last);
        let reach = self.archive.reach(lineage, record.start_lsn);
        reach.is_some_and(|reach| {
            let lacks = reach.lacks.number(self.size);
            reach.is_gap && last.zip(lacks).is_some_and(|(last, lacks)| lacks <= last.saturating_add(1))
        })
    }

    /// A repository that was not read may hold what seems to be missing.
    fn unsure(&self) -> Option<PlanError> {
        let (repository, error) = self.archive.unread().first()?;
        let source = RepoError::Store(crate::storage::StoreError {
            kind: error.store_kind().unwrap_or(crate::storage::StoreErrorKind::Unavailable),
            what: error.to_string(),
            source: None,
        });
        Some(PlanError::Unsure { repository: *repository, source })
    }

    fn wal_missing(&self, needed: &Needed, record: &Record, lineage: &TimelineHistory) -> PlanError {
        if let Some(unsure) = self.unsure() {
            return unsure;
        }
        let own = self.archive.needed(lineage, record.start_lsn, record.stop_lsn);
        if !own.is_complete() {
            return PlanError::BackupWalMissing {
                id: record.backup_id.clone(),
                missing: own.missing().collect(),
                segment_size: self.size,
            };
        }
        let why = match reach::gap(self.way(lineage), record, needed.missing().collect()) {
            Ok(why) => why,
            Err(error) => return self.reach_error(error),
        };
        PlanError::Unreachable { why, segment_size: self.size, windows: self.windows() }
    }

    /// As [`Self::choose`], with the WAL on the way, all of which is there.
    pub(super) fn way_to(
        &self,
        named: Option<&'r Candidate>,
    ) -> Result<(&'r Candidate, TimelineHistory, Reached, Needed), PlanError> {
        let (chosen, lineage, reached) = self.choose(named)?;
        let needed = self.archive.needed(&lineage, chosen.record.start_lsn, reached.until());
        if !needed.is_complete() {
            return Err(self.wal_missing(&needed, &chosen.record, &lineage));
        }
        Ok((chosen, lineage, reached, needed))
    }

    fn lineage(&self, timeline: TimelineId) -> Result<Option<TimelineHistory>, PlanError> {
        if let Some(lineage) = self.archive.lineage(self.union, timeline).map_err(PlanError::Wal)? {
            return Ok(Some(lineage));
        }
        Ok(self.candidates.lineage(self.system, timeline))
    }

    fn known_timelines(&self) -> Vec<TimelineId> {
        let mut known = self.candidates.timelines(self.system);
        known.extend(self.archive.timelines());
        known.extend(self.archive.histories().map(|(timeline, _)| timeline));
        known.sort_unstable();
        known.dedup();
        known
    }

    /// The backup, the lineage to recover along, and how the target is reached on it.
    fn choose(
        &self,
        named: Option<&'r Candidate>,
    ) -> Result<(&'r Candidate, TimelineHistory, Reached), PlanError> {
        let goal = &self.request.target.goal;
        let own_only = matches!(goal, Goal::None | Goal::Preserve);
        // Newer timelines of which nobody can tell where they left, the newest first.
        let mut without_history: Vec<TimelineId> = Vec::new();
        let lineages: Vec<TimelineHistory> = match self.request.target.timeline {
            _ if own_only => self.own_lineage(named)?,
            TargetTimeline::Current => self.own_lineage(named)?,
            TargetTimeline::Number(timeline) => match self.lineage(timeline)? {
                Some(lineage) => vec![lineage],
                None => {
                    return Err(PlanError::UnknownTimeline { timeline, known: self.known_timelines() });
                }
            },
            TargetTimeline::Latest => {
                let mut lineages = Vec::new();
                for timeline in self.known_timelines().into_iter().rev() {
                    match self.lineage(timeline)? {
                        Some(lineage) => lineages.push(lineage),
                        None => without_history.push(timeline),
                    }
                }
                lineages
            }
        };
        // The newest timeline that a backup leads to; an older one is another branch, and nobody's wish unless
        // it is named.
        for lineage in lineages {
            let along = match named {
                Some(one) => {
                    let record = &one.record;
                    if !lineage.includes(record.timeline, record.stop_lsn) {
                        if self.request.target.timeline == TargetTimeline::Latest {
                            continue;
                        }
                        return Err(PlanError::SetNotOnTimeline {
                            id: record.backup_id.clone(),
                            own: record.timeline,
                            timeline: lineage.timeline(),
                        });
                    }
                    vec![one]
                }
                None => self.candidates.along(self.system, &lineage),
            };
            if along.is_empty() {
                continue;
            }
            // "Latest" on an older one would end well and lack all that was written since.
            if let Some(newer) = without_history.first().filter(|newer| **newer > lineage.timeline()) {
                return Err(self.without_history(*newer));
            }
            let reached = reach::choose(self.way(&lineage), &self.request.target, &along)
                .map_err(|error| self.reach_error(error))?;
            return match reached {
                Some((at, reached)) => match along.get(at) {
                    Some(chosen) => Ok((chosen, lineage, reached)),
                    None => Err(PlanError::NoBackup),
                },
                None => Err(PlanError::TooEarly {
                    set: named.map(|one| (one.record.backup_id.clone(), one.record.stopped_at_unix_us)),
                    windows: self.windows(),
                }),
            };
        }
        if let Some(newest) = without_history.first() {
            return Err(self.without_history(*newest));
        }
        match (named, self.request.target.timeline) {
            (Some(one), _) => Err(PlanError::SetNotOnTimeline {
                id: one.record.backup_id.clone(),
                own: one.record.timeline,
                timeline: one.record.timeline,
            }),
            (None, TargetTimeline::Number(timeline)) => {
                Err(PlanError::UnknownTimeline { timeline, known: self.known_timelines() })
            }
            (None, _) => Err(PlanError::NoBackup),
        }
    }

    fn without_history(&self, timeline: TimelineId) -> PlanError {
        self.unsure().unwrap_or(PlanError::TimelineWithoutHistory(timeline))
    }

    /// The lineage of the backup itself, or of the newest.
    fn own_lineage(&self, named: Option<&Candidate>) -> Result<Vec<TimelineHistory>, PlanError> {
        let newest = self
            .candidates
            .found
            .iter()
            .filter(|candidate| candidate.record.system_identifier == self.system)
            .max_by_key(|candidate| (candidate.record.timeline, candidate.record.stop_lsn));
        let Some(candidate) = named.or(newest) else { return Err(PlanError::NoBackup) };
        let record = &candidate.record;
        let lineage = match lineage_of(record) {
            Some(lineage) => Some(lineage),
            None => self.lineage(record.timeline)?,
        };
        let known =
            || PlanError::UnknownTimeline { timeline: record.timeline, known: self.known_timelines() };
        Ok(vec![lineage.ok_or_else(known)?])
    }

    /// Where one can go, newest first, for a refusal. What cannot be found out is left out.
    fn windows(&self) -> Vec<WindowSeen> {
        let mut windows = Vec::new();
        for timeline in self.known_timelines().into_iter().rev() {
            let Ok(Some(lineage)) = self.lineage(timeline) else { continue };
            let mut along = self.candidates.along(self.system, &lineage);
            along.retain(|candidate| candidate.record.timeline == timeline);
            let mut last_end: Option<Lsn> = None;
            for candidate in along.into_iter().rev() {
                let record = &candidate.record;
                if last_end.is_some_and(|end| record.stop_lsn < end) {
                    continue;
                }
                let Ok(Some(window)) = self.archive.window(self.union, &lineage, record.start_lsn) else {
                    continue;
                };
                if window.reach.end < record.stop_lsn {
                    continue;
                }
                last_end = Some(window.reach.end);
                windows.push(WindowSeen {
                    timeline,
                    from: record.stopped_at_unix_us,
                    from_lsn: record.stop_lsn,
                    to: match window.last_commit {
                        LastCommit::At(commit) => Some(commit.at),
                        LastCommit::None | LastCommit::Unknown => None,
                    },
                    to_lsn: window.reach.end,
                });
            }
        }
        windows
    }
}
