//! Which WAL may go.
//!
//! A segment goes when no recovery from any backup can come to read it:
//! * below the start of every backup on a lineage through its timeline; of backups that were retired, too, as
//!   long as their data stays for restores that may be running;
//! * of a timeline through which no backup's lineage leads: below the start of every backup of the cluster, and
//!   never while that timeline is the newest, or leads to it: someone may be at work there who has no backup yet;
//! * below the floor of every open backup of the cluster, whatever its timeline;
//! * of a cluster that no backup is left of, none goes.
//!
//! What goes was listed *before* the catalog was. So a backup that no listing showed began after those segments
//! were complete, and its own begin with a checkpoint that comes later still (of a primary; a standby's backup
//! may begin earlier, and says so with its floor before it begins).
//!
//! Histories are never in the list.

use super::error::RetentionError;
use super::look::Looked;
use super::read::Held;
use super::step::{Step, left_out};
use crate::postgres::history::TimelineHistory;
use crate::repo::layout::{self, WalEntry};
use crate::repo::{Cluster, Repository};
use crate::storage::Key;
use crate::units::{BackupId, ByteCount, SegmentName, SegmentSize, Stanza, SystemIdentifier, TimelineId};
use crate::wal::archive::runs::Runs;
use std::collections::BTreeMap;

/// A cluster's timelines and where they came from, as far as the archive and the records tell.
#[derive(Clone, Debug)]
pub struct Lineages {
    /// The cluster.
    pub cluster: Cluster,
    /// `None`: its history is in no repository; it is taken to be related to everything.
    pub timelines: BTreeMap<TimelineId, Option<TimelineHistory>>,
}

impl Lineages {
    /// Whether recovery from a backup could come to read WAL of `timeline`.
    fn related(&self, backup: &Held, timeline: TimelineId) -> bool {
        let record = &backup.record;
        record.timeline == timeline
            || record.lineage.iter().any(|step| step.timeline == timeline)
            || self.timelines.values().any(|lineage| {
                lineage.as_ref().is_none_or(|lineage| {
                    lineage.includes(record.timeline, record.stop_lsn)
                        && lineage.stretch_of(timeline).is_some()
                })
            })
    }

    /// Whether `timeline` is the newest there is, or leads to it.
    fn leads_to_newest(&self, timeline: TimelineId, backups: &[&Held]) -> bool {
        let known = self.timelines.keys().next_back().copied();
        let Some(newest) = known.max(backups.iter().map(|backup| backup.record.timeline).max()) else {
            return true;
        };
        match self.timelines.get(&newest) {
            Some(Some(lineage)) => lineage.stretch_of(timeline).is_some(),
            _ => true,
        }
    }
}

/// Up to where the WAL of each timeline of a cluster may go.
#[derive(Debug)]
pub struct Floors<'a> {
    lineages: &'a Lineages,
    held: Vec<&'a Held>,
    exists: bool,
    /// The lowest segment that an open backup may need.
    open: u64,
}

impl<'a> Floors<'a> {
    /// By what the listings showed.
    #[must_use]
    pub fn new(lineages: &'a Lineages, looked: &'a Looked) -> Self {
        Self::without(lineages, looked, &|_| false)
    }

    /// The same when some backups will be gone.
    #[must_use]
    pub fn without(lineages: &'a Lineages, looked: &'a Looked, is_gone: &dyn Fn(&BackupId) -> bool) -> Self {
        let (system, size) = (lineages.cluster.system, lineages.cluster.segment_size);
        let of_this =
            |held: &&Held| held.record.system_identifier == system && !is_gone(&held.record.backup_id);
        let held: Vec<&Held> = looked.held.iter().map(AsRef::as_ref).filter(of_this).collect();
        let exists = held.iter().any(|held| looked.live.contains_key(&held.record.backup_id));
        let open = looked.open.iter().filter(|started| started.system_identifier == system);
        let open = open.filter(|started| !is_gone(&started.backup_id));
        let open = open.map(|started| size.number_of(started.wal_floor_lsn)).min();
        let open = if left_out(Step::FloorsOfOpen) { None } else { open };
        Self { lineages, held, exists, open: open.unwrap_or(u64::MAX) }
    }

    /// Whether any backup of the cluster exists; if none does, no WAL of it may go.
    #[must_use]
    pub const fn any_backup(&self) -> bool {
        self.exists
    }

    /// The number of the first segment that must stay; below it all may go.
    #[must_use]
    pub fn first_kept(&self, timeline: TimelineId) -> u64 {
        if !self.exists {
            return 0;
        }
        let start = |held: &&Held| self.lineages.cluster.segment_size.number_of(held.record.start_lsn);
        let related = self.held.iter().copied().filter(|held| self.lineages.related(held, timeline));
        let lowest = match related.map(|held| start(&held)).min() {
            Some(lowest) => Some(lowest),
            None if self.lineages.leads_to_newest(timeline, &self.held) => None,
            None => self.held.iter().map(start).min(),
        };
        lowest.unwrap_or(0).min(self.open)
    }
}

/// What lies beside complete segments and goes by the same rule.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Beside {
    key: Key,
    number: u64,
    size: u64,
    /// A part is deleted after what names it.
    is_part: bool,
    /// A tail whose segment is there: it goes whatever the number.
    is_spent: bool,
}

/// A timeline's WAL that was listed and may be deleted, if the catalog agrees afterwards.
#[derive(Clone, Debug, Default)]
struct Listed {
    /// Number and stored size.
    segments: Vec<(u64, u64)>,
    beside: Vec<Beside>,
}

/// A cluster's WAL that was listed below what the plan keeps.
///
/// 16 bytes for a segment (8 more while listing, also for those that stay); the names of whatever lies beside them in full.
#[derive(Clone, Debug)]
pub struct Unneeded {
    stanza: Stanza,
    /// The cluster.
    pub system: SystemIdentifier,
    size: SegmentSize,
    timelines: BTreeMap<TimelineId, Listed>,
}

/// A stretch of it, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// The cluster.
    pub system: SystemIdentifier,
    /// The timeline.
    pub timeline: TimelineId,
    /// The first and the last complete segment; `None` when only what lies beside goes.
    pub ends: Option<(SegmentName, SegmentName)>,
    /// Complete segments.
    pub segments: u64,
    /// Stored bytes of all.
    pub bytes: ByteCount,
}

/// Some keys and their stored bytes.
pub(super) type Keys = Vec<(Key, u64)>;

impl Unneeded {
    /// Lists a cluster's WAL and remembers what lies below `floors`.
    ///
    /// # Errors
    /// The store's trouble.
    pub fn list(
        repository: &Repository,
        stanza: &Stanza,
        cluster: &Cluster,
        floors: &Floors<'_>,
    ) -> Result<Self, RetentionError> {
        let root = layout::wal(stanza, cluster.system)?;
        let (prefix, size) = (format!("{root}/"), cluster.segment_size);
        let mut first_kept: BTreeMap<TimelineId, u64> = BTreeMap::new();
        let mut timelines: BTreeMap<TimelineId, Listed> = BTreeMap::new();
        // Tails above the floor: spent if their segment is there, which the listing may show later.
        let mut tails: Vec<(SegmentName, Key, u64)> = Vec::new();
        let mut whole: BTreeMap<TimelineId, Vec<u64>> = BTreeMap::new();
        repository.store().list(&root, &mut |listed| {
            let Some(found) = listed.key.as_str().strip_prefix(&prefix).and_then(|below| found(below, size))
            else {
                return;
            };
            let (timeline, bytes) = (found.segment.timeline(), listed.size.as_u64());
            let kept = *first_kept.entry(timeline).or_insert_with(|| floors.first_kept(timeline));
            let goes = found.number < kept;
            let of_timeline = timelines.entry(timeline).or_default();
            match found.what {
                What::Segment if goes => of_timeline.segments.push((found.number, bytes)),
                What::Segment => whole.entry(timeline).or_default().push(found.number),
                What::Tail if !goes => tails.push((found.segment, listed.key, bytes)),
                what if goes => of_timeline.beside.push(Beside {
                    key: listed.key,
                    number: found.number,
                    size: bytes,
                    is_part: what == What::Part,
                    is_spent: false,
                }),
                _ => {}
            }
        })?;
        let whole: BTreeMap<TimelineId, Runs> =
            whole.into_iter().map(|(timeline, numbers)| (timeline, Runs::from_numbers(numbers))).collect();
        for (segment, key, bytes) in tails {
            let Some(number) = segment.number(size) else { continue };
            if whole.get(&segment.timeline()).is_some_and(|held| held.contains(number)) {
                let of_timeline = timelines.entry(segment.timeline()).or_default();
                of_timeline.beside.push(Beside { key, number, size: bytes, is_part: false, is_spent: true });
            }
        }
        for listed in timelines.values_mut() {
            listed.segments.sort_unstable();
            listed.beside.sort_by(|a, b| (a.number, &a.key).cmp(&(b.number, &b.key)));
        }
        timelines.retain(|_, listed| !listed.segments.is_empty() || !listed.beside.is_empty());
        Ok(Self { stanza: stanza.clone(), system: cluster.system, size, timelines })
    }

    /// What of it goes below `floors`, for people.
    #[must_use]
    pub fn stretches(&self, floors: &Floors<'_>) -> Vec<Stretch> {
        let mut stretches = Vec::new();
        for (timeline, listed) in &self.timelines {
            let kept = floors.first_kept(*timeline);
            let segments = || listed.segments.iter().filter(|(number, _)| *number < kept);
            let name = |number: u64| SegmentName::from_number(*timeline, number, self.size);
            let ends = segments().map(|one| one.0).min().zip(segments().map(|one| one.0).max());
            let beside = listed.beside.iter().filter(|one| one.is_spent || one.number < kept);
            let bytes = segments().map(|one| one.1).chain(beside.clone().map(|one| one.size));
            if ends.is_some() || beside.clone().next().is_some() {
                stretches.push(Stretch {
                    system: self.system,
                    timeline: *timeline,
                    ends: ends.and_then(|(first, last)| name(first).zip(name(last))),
                    segments: segments().count() as u64,
                    bytes: ByteCount::new(bytes.fold(0, u64::saturating_add)),
                });
            }
        }
        stretches
    }

    /// What of it goes below `floors`, oldest first, in lists of which each is deleted before the next begins:
    /// what is left after a crash is WAL without holes, and no index without its parts.
    pub(super) fn batches(&self, floors: &Floors<'_>) -> Result<Vec<Keys>, RetentionError> {
        /// Segments of one batch: what their names take in memory is little.
        const BATCH: usize = 1024;
        let mut batches: Vec<Keys> = Vec::new();
        for (timeline, listed) in &self.timelines {
            let kept = floors.first_kept(*timeline);
            let mut keys: Keys = Vec::new();
            for (number, size) in listed.segments.iter().filter(|(number, _)| *number < kept) {
                if let Some(name) = SegmentName::from_number(*timeline, *number, self.size) {
                    keys.push((layout::segment(&self.stanza, self.system, name)?.key, *size));
                }
                if keys.len() >= BATCH {
                    batches.push(std::mem::take(&mut keys));
                }
            }
            batches.push(keys);
            let beside = |part: bool| {
                let goes = listed.beside.iter().filter(move |one| one.is_part == part);
                goes.filter(|one| one.is_spent || one.number < kept).map(|one| (one.key.clone(), one.size))
            };
            batches.push(beside(false).collect());
            batches.push(beside(true).collect());
        }
        batches.retain(|batch| !batch.is_empty());
        Ok(batches)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Segment,
    Part,
    Tail,
    /// A partial, a `.backup` file, a folder's index.
    Other,
}

struct Found {
    segment: SegmentName,
    number: u64,
    what: What,
}

/// What a name in the archive is; `None` for histories, and for whatever this version does not know.
fn found(below: &str, size: SegmentSize) -> Option<Found> {
    let (segment, what) = match layout::wal_entry(below) {
        Some(WalEntry::Segment(segment)) => (segment, What::Segment),
        Some(WalEntry::Part(segment, _)) => (segment, What::Part),
        Some(WalEntry::Tail(segment, ..)) => (segment, What::Tail),
        Some(WalEntry::Partial(segment, _) | WalEntry::BackupHistory(segment, ..)) => (segment, What::Other),
        Some(WalEntry::History(_)) => return None,
        None => (last_of_folder(below, size)?, What::Other),
    };
    Some(Found { segment, number: segment.number(size)?, what })
}

/// The last segment of the folder that `<timeline>/<folder>.index` tells about: the index goes with it.
fn last_of_folder(below: &str, size: SegmentSize) -> Option<SegmentName> {
    let (timeline, name) = below.split_once('/')?;
    let folder = name.strip_suffix(".index").filter(|folder| folder.len() == 16)?;
    let (log, high) = folder.split_at_checked(8)?;
    let high = high.get(2..)?;
    (0..=0xFF_u32).rev().find_map(|low| {
        let segment: SegmentName = format!("{timeline}{log}{high}{low:02X}").parse().ok()?;
        (segment.folder() == folder && segment.number(size).is_some()).then_some(segment)
    })
}
