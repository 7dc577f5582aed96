//! Listings for `archive-get`, which asks for one file at a time and should list as little as it can.

use super::{Partial, Tail, partial, tail};
use crate::repo::RepoError;
use crate::repo::layout::{self, WalEntry};
use crate::units::{SegmentName, TimelineId};
use crate::wal::ClusterWal;
use std::collections::BTreeSet;

/// What a folder holds: up to 256 neighbouring segments of one timeline, and what lies beside them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Neighbours {
    /// Complete segments.
    pub segments: BTreeSet<SegmentName>,
    /// Unfinished ones.
    pub partials: BTreeSet<Partial>,
    /// Stretches of open ones.
    pub tails: BTreeSet<Tail>,
}

impl Neighbours {
    /// The unfinished copies of this segment.
    pub fn partials_of(&self, segment: SegmentName) -> impl Iterator<Item = &Partial> {
        self.partials.iter().filter(move |partial| partial.segment == segment)
    }

    /// The tails of this segment, by offset.
    pub fn tails_of(&self, segment: SegmentName) -> impl Iterator<Item = &Tail> {
        self.tails.iter().filter(move |tail| tail.segment == segment)
    }
}

/// The folder in which `segment` lies or would lie: one listing of few keys.
///
/// # Errors
/// The store's trouble. No folder is an empty one.
pub fn neighbours(wal: ClusterWal<'_>, segment: SegmentName) -> Result<Neighbours, RepoError> {
    folder(wal, segment.timeline(), &segment.folder())
}

fn folder(wal: ClusterWal<'_>, timeline: TimelineId, name: &str) -> Result<Neighbours, RepoError> {
    let root = layout::wal(wal.stanza, wal.system)?;
    let prefix = format!("{root}/");
    let key = crate::storage::Key::new(format!("{root}/{}/{name}", timeline.hex()))?;
    let mut found = Neighbours::default();
    wal.repo.store().list(&key, &mut |listed| {
        let Some(below) = listed.key.as_str().strip_prefix(&prefix) else { return };
        match layout::wal_entry(below) {
            Some(WalEntry::Segment(segment)) => {
                found.segments.insert(segment);
            }
            Some(other) => {
                found.partials.extend(partial(&other));
                found.tails.extend(tail(other));
            }
            None => {}
        }
    })?;
    Ok(found)
}

/// A complete segment that is later than `segment` on its timeline, when there is one: not necessarily the
/// next nor the newest. `here` is [`neighbours`] of `segment`. One listing of folder names when `here` does
/// not answer it, and one for each of the later folders until one holds a segment: as a rule the first.
///
/// # Errors
/// The store's trouble.
pub fn later_segment(
    wal: ClusterWal<'_>,
    segment: SegmentName,
    here: &Neighbours,
) -> Result<Option<SegmentName>, RepoError> {
    let timeline = segment.timeline();
    if let Some(last) = here.segments.last().filter(|last| **last > segment) {
        return Ok(Some(*last));
    }
    let mut later = folders(wal, timeline)?.split_off(&segment.folder());
    later.remove(&segment.folder());
    // From the newest down: it is the least likely to be empty.
    for name in later.iter().rev() {
        if let Some(last) = folder(wal, timeline, name)?.segments.last() {
            return Ok(Some(*last));
        }
    }
    Ok(None)
}

/// The newest complete segment of a timeline, and with it what lies in its folder: two or three listings.
///
/// # Errors
/// The store's trouble.
pub fn newest_segment(
    wal: ClusterWal<'_>,
    timeline: TimelineId,
) -> Result<Option<(SegmentName, Neighbours)>, RepoError> {
    for name in folders(wal, timeline)?.iter().rev() {
        let found = folder(wal, timeline, name)?;
        if let Some(last) = found.segments.last().copied() {
            return Ok(Some((last, found)));
        }
    }
    Ok(None)
}

/// The names of a timeline's folders, rising as their segments do. A filesystem may name empty ones too.
fn folders(wal: ClusterWal<'_>, timeline: TimelineId) -> Result<BTreeSet<String>, RepoError> {
    let key = layout::wal_timeline(wal.stanza, wal.system, timeline)?;
    let mut names: BTreeSet<String> = wal.repo.store().folder(Some(&key))?.folders.into_iter().collect();
    names.retain(|name| name.len() == 16 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'A'..=b'F')));
    Ok(names)
}

/// What is known of timelines by names alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Timelines {
    /// Those whose history is held.
    pub histories: BTreeSet<TimelineId>,
    /// Those that have a folder for WAL. A filesystem may name empty ones too.
    pub folders: BTreeSet<TimelineId>,
}

/// The cluster's timelines: one listing of few keys.
///
/// # Errors
/// The store's trouble. A cluster without WAL has none.
pub fn timelines(wal: ClusterWal<'_>) -> Result<Timelines, RepoError> {
    let listing = wal.repo.store().folder(Some(&layout::wal(wal.stanza, wal.system)?))?;
    let hex = |name: &String| {
        let fits = name.len() == 8 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'A'..=b'F'));
        fits.then(|| u32::from_str_radix(name, 16).ok()).flatten().and_then(TimelineId::new)
    };
    Ok(Timelines {
        histories: listing
            .objects
            .iter()
            .filter_map(|object| match layout::wal_entry(object.key.file_name()) {
                Some(WalEntry::History(timeline)) => Some(timeline),
                _ => None,
            })
            .collect(),
        folders: listing.folders.iter().filter_map(hex).collect(),
    })
}
