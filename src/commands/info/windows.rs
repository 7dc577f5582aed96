//! Which moments one can go back to: stretches along each timeline's lineage that begin at the end of a
//! backup and go on as far as WAL does.

use crate::postgres::history::TimelineHistory;
use crate::repo::record::Record;
use crate::report::render;
use crate::units::{BackupId, Lsn, SegmentName, TimelineId, Timestamp};
use crate::wal::archive::Archive;
use crate::wal::archive::asked::Asked;
use crate::wal::archive::lineage::Reach;
use crate::wal::archive::window::LastCommit;
use std::collections::{BTreeMap, BTreeSet};

/// A backup as far as windows are concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::commands) struct End {
    pub id: BackupId,
    pub timeline: TimelineId,
    pub start: Lsn,
    pub stop: Lsn,
    pub stopped_at: Timestamp,
}

impl End {
    /// What the record of a backup says of it.
    pub fn of(record: &Record) -> Self {
        Self {
            id: record.backup_id.clone(),
            timeline: record.timeline,
            start: record.start_lsn,
            stop: record.stop_lsn,
            stopped_at: record.stopped_at_unix_us,
        }
    }
}

/// The last moment of a window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::commands) enum Until {
    /// The last transaction in it ended then.
    Commit(Timestamp),
    /// No transaction ended since the backup.
    NothingSince,
    /// Not among the newest segments, which is where it was looked for.
    Unknown,
    /// The segments that would tell are damaged or out of reach; why.
    Unreadable(String),
}

/// Why a window is not longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::commands) enum Ends {
    /// Nothing newer is archived on the newest timeline.
    Newest,
    /// WAL is missing there, and later WAL is held.
    Gap,
    /// It lies beside a later timeline, which left it before its end.
    LeftFor(TimelineId),
    /// Its timeline is not the newest and has no more WAL.
    Over,
}

/// A stretch of time to every moment of which one can go back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::commands) struct Window {
    /// The timeline at its end.
    pub timeline: TimelineId,
    /// The backup at whose end it begins.
    pub backup: BackupId,
    pub from_lsn: Lsn,
    pub from: Timestamp,
    /// How far WAL goes on without a gap.
    pub until_lsn: Lsn,
    pub until: Until,
    pub ends: Ends,
}

impl Window {
    /// The last moment, as far as it is known.
    pub fn until_at(&self) -> Option<Timestamp> {
        match self.until {
            Until::Commit(at) => Some(at.max(self.from)),
            Until::NothingSince => Some(self.from),
            Until::Unknown | Until::Unreadable(_) => None,
        }
    }
}

/// Missing segments after a window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::commands) struct Gap {
    pub first: SegmentName,
    pub last: SegmentName,
    pub segments: u64,
    /// The last moment before it, where that is known.
    pub after: Option<Timestamp>,
    /// The first moment after it: the end of the next backup. `None`: no later moment can be reached.
    pub before: Option<Timestamp>,
}

/// What a cluster's WAL and backups come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::commands) struct Windows {
    /// The newest timeline first; on one timeline the newest window first.
    pub windows: Vec<Window>,
    pub gaps: Vec<Gap>,
    /// Backups whose own WAL is not all there: they cannot be restored.
    pub without_wal: BTreeSet<BackupId>,
    /// What kept us from seeing more.
    pub troubles: Vec<String>,
}

/// A chain along one lineage before its last commits are looked up.
struct Found {
    backup: End,
    reach: Reach,
}

/// Finds them. Reads the history of each timeline, and for each window the end of its newest segment: where no
/// transaction ended in that, of the segments before it, too. What `asked` remembers is not read again.
pub(in crate::commands) fn windows(archive: &Archive, asked: &mut Asked<'_>, backups: &[End]) -> Windows {
    let mut result = Windows::default();
    let mut timelines: BTreeSet<TimelineId> = archive.timelines().collect();
    timelines.extend(archive.histories().map(|(timeline, _)| timeline));
    timelines.extend(backups.iter().map(|backup| backup.timeline));
    let mut lineages = BTreeMap::new();
    for timeline in timelines {
        match asked.lineage(archive, timeline) {
            Ok(Some(lineage)) => {
                lineages.insert(timeline, lineage);
            }
            Ok(None) => result.troubles.push(format!(
                "{} is not in the archive: nothing on timeline {timeline} can be reached",
                timeline.history_name()
            )),
            Err(error) => {
                let why = in_words(&error);
                result.troubles.push(format!("where timeline {timeline} came from could not be read: {why}"));
            }
        }
    }
    let restorable = restorable(archive, &lineages, backups, &mut result.without_wal);

    let newest = lineages.keys().next_back().copied();
    let mut gaps_told = BTreeSet::new();
    for (timeline, lineage) in lineages.iter().rev() {
        let found = along(archive, lineage, &restorable);
        let left = lineages
            .range(timeline..)
            .skip(1)
            .filter_map(|(later, lineage)| Some((lineage.fork_from(*timeline)?, *later)))
            .max();
        for (at, one) in found.iter().enumerate() {
            // What a later timeline's lineage holds too was told there.
            if left.is_some_and(|(fork, _)| one.reach.end <= fork) {
                continue;
            }
            let until = last_commit(archive, asked, lineage, one.backup.stop);
            let window = Window {
                timeline: *timeline,
                backup: one.backup.id.clone(),
                from_lsn: one.backup.stop,
                from: one.backup.stopped_at,
                until_lsn: one.reach.end.max(one.backup.stop),
                until,
                ends: match (one.reach.is_gap || at + 1 < found.len(), left) {
                    (true, _) => Ends::Gap,
                    (false, Some((_, later))) => Ends::LeftFor(later),
                    (false, None) if Some(*timeline) == newest => Ends::Newest,
                    (false, None) => Ends::Over,
                },
            };
            if window.ends == Ends::Gap {
                let gaps = gaps_after(archive, lineage, &window, found.get(at + 1).map(|next| &next.backup));
                result.gaps.extend(gaps.into_iter().filter(|gap| gaps_told.insert((gap.first, gap.last))));
            }
            result.windows.push(window);
        }
        // Of one timeline they were found oldest first.
        let of_this = result.windows.iter().position(|window| window.timeline == *timeline);
        if let Some(first) = of_this {
            result.windows[first..].reverse();
        }
    }
    result
}

/// The backups whose own WAL, from start to stop, is all held.
fn restorable<'a>(
    archive: &Archive,
    lineages: &BTreeMap<TimelineId, TimelineHistory>,
    backups: &'a [End],
    without_wal: &mut BTreeSet<BackupId>,
) -> Vec<&'a End> {
    let mut restorable = Vec::with_capacity(backups.len());
    for backup in backups {
        let reach = lineages.get(&backup.timeline).and_then(|lineage| archive.reach(lineage, backup.start));
        if reach.is_some_and(|reach| reach.end >= backup.stop) {
            restorable.push(backup);
        } else {
            without_wal.insert(backup.id.clone());
        }
    }
    restorable.sort_by(|a, b| (a.stop, &a.id).cmp(&(b.stop, &b.id)));
    restorable
}

/// The windows along one lineage, oldest first: a backup inside the one before begins none of its own.
fn along(archive: &Archive, lineage: &TimelineHistory, restorable: &[&End]) -> Vec<Found> {
    let mut found: Vec<Found> = Vec::new();
    for backup in restorable.iter().filter(|backup| lineage.includes(backup.timeline, backup.stop)) {
        if found.last().is_some_and(|before| backup.stop <= before.reach.end) {
            continue;
        }
        if let Some(reach) = archive.reach(lineage, backup.stop) {
            found.push(Found { backup: (*backup).clone(), reach });
        }
    }
    found
}

fn last_commit(archive: &Archive, asked: &mut Asked<'_>, lineage: &TimelineHistory, from: Lsn) -> Until {
    match asked.window(archive, lineage, from) {
        Ok(Some(window)) => match window.last_commit {
            LastCommit::At(commit) => Until::Commit(commit.at),
            LastCommit::None => Until::NothingSince,
            LastCommit::Unknown => Until::Unknown,
        },
        Ok(None) => Until::Unknown,
        Err(error) => Until::Unreadable(in_words(&error)),
    }
}

/// What is missing between a window and the next backup, or the newest WAL.
fn gaps_after(archive: &Archive, lineage: &TimelineHistory, window: &Window, next: Option<&End>) -> Vec<Gap> {
    let missing = match next {
        Some(next) => archive.needed(lineage, window.until_lsn, next.stop).missing().collect(),
        None => archive.gaps(lineage, window.until_lsn),
    };
    let size = archive.segment_size();
    missing
        .into_iter()
        .filter_map(|range| {
            Some(Gap {
                first: range.first_name(size)?,
                last: range.last_name(size)?,
                segments: range.count(),
                after: window.until_at(),
                before: next.map(|next| next.stopped_at),
            })
        })
        .collect()
}

/// An error and its causes in one line.
pub(in crate::commands) fn in_words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut below = error.source();
    while let Some(cause) = below {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        below = cause.source();
    }
    text
}

/// `timeline 2, newest commit 9 s ago`.
pub(in crate::commands) fn words(window: &Window, now: Timestamp) -> String {
    let ends = match window.ends {
        Ends::Newest => String::new(),
        Ends::Gap => ", ends at a gap".to_owned(),
        Ends::LeftFor(later) => format!(", left by timeline {later}"),
        Ends::Over => ", ends with its WAL".to_owned(),
    };
    let newest = match (&window.until, window.ends) {
        (Until::Commit(at), Ends::Newest) => format!(", newest commit {}", render::ago(*at, now)),
        (Until::NothingSince, _) => ", no commit since".to_owned(),
        _ => String::new(),
    };
    format!("timeline {}{newest}{ends}", window.timeline)
}
