//! What is in the archive, by listing: nothing here is read but names, until a window asks for times.
//!
//! [`Archive`] is the whole of a cluster's WAL over several repositories. [`look`] has the listings that
//! `archive-get` can afford: one folder, one timeline. [`lineage`] tells what is missing on the way from one
//! position to another; [`window`] up to when one can recover; [`asked`] remembers what was read for that.
//!
//! A name in a listing says that an object is there, not that it is whole: reading it tells.

pub mod asked;
pub mod lineage;
pub mod look;
pub mod runs;
pub mod window;

use super::ClusterWal;
use super::info::ShortHash;
use crate::repo::layout::{self, WalEntry};
use crate::repo::{RepoError, Repository};
use crate::units::{ByteCount, SegmentName, SegmentSize, Stanza, SystemIdentifier, TimelineId};
use runs::Runs;
use std::collections::{BTreeMap, BTreeSet};

/// The most repositories that one view unites.
pub const MOST_REPOSITORIES: usize = 64;

/// Some of the repositories that an [`Archive`] was read from, by their place in that list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepoSet(u64);

impl RepoSet {
    fn add(&mut self, repository: usize) {
        self.0 |= 1_u64.checked_shl(u32::try_from(repository).unwrap_or(u32::MAX)).unwrap_or(0);
    }

    /// Whether none is in it.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether the repository of this place in the list is in it.
    #[must_use]
    pub fn contains(self, repository: usize) -> bool {
        self.iter().any(|one| one == repository)
    }

    /// The places in the list, rising.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..MOST_REPOSITORIES).filter(move |at| self.0 & (1 << at) != 0)
    }
}

impl FromIterator<usize> for RepoSet {
    fn from_iter<I: IntoIterator<Item = usize>>(repositories: I) -> Self {
        let mut set = Self::default();
        repositories.into_iter().for_each(|one| set.add(one));
        set
    }
}

/// An unfinished segment that is stored beside the complete ones.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Partial {
    /// The segment.
    pub segment: SegmentName,
    /// The beginning of its contents' hash.
    pub hash: ShortHash,
}

/// A stored stretch of an open segment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tail {
    /// The segment.
    pub segment: SegmentName,
    /// Offset of its first byte.
    pub from: u32,
    /// Offset after its last byte.
    pub to: u32,
    /// Who wrote it.
    pub writer: String,
}

/// The bytes from the beginning of a segment that these tails of it hold without a gap.
#[must_use]
pub fn covered<'a>(tails: impl IntoIterator<Item = &'a Tail>) -> u32 {
    let mut ranges: Vec<(u32, u32)> = tails.into_iter().map(|tail| (tail.from, tail.to)).collect();
    ranges.sort_unstable();
    ranges.into_iter().fold(0, |end, (from, to)| if from <= end { end.max(to) } else { end })
}

#[derive(Debug, Default)]
struct Timeline {
    /// Per repository, in the order of the list.
    held: Vec<Runs>,
    union: Runs,
    partials: BTreeMap<Partial, RepoSet>,
    tails: BTreeMap<Tail, RepoSet>,
}

impl Timeline {
    /// What `repository` holds of it, which is all there is in `only`; `None` where that is nothing.
    fn alone(&self, repository: usize, only: RepoSet) -> Option<Self> {
        fn of<T: Clone + Ord>(
            all: &BTreeMap<T, RepoSet>,
            repository: usize,
            only: RepoSet,
        ) -> BTreeMap<T, RepoSet> {
            let held = all.iter().filter(|(_, held)| held.contains(repository));
            held.map(|(one, _)| (one.clone(), only)).collect()
        }
        let union = self.held.get(repository).cloned().unwrap_or_default();
        let mut held = vec![Runs::EMPTY; self.held.len()];
        if let Some(held) = held.get_mut(repository) {
            held.clone_from(&union);
        }
        let partials = of(&self.partials, repository, only);
        let tails = of(&self.tails, repository, only);
        let nothing = union.is_empty() && partials.is_empty() && tails.is_empty();
        (!nothing).then_some(Self { held, union, partials, tails })
    }
}

/// A cluster's WAL in one or more repositories at the time of the listing.
#[derive(Debug)]
pub struct Archive {
    segment_size: SegmentSize,
    repositories: usize,
    timelines: BTreeMap<TimelineId, Timeline>,
    histories: BTreeMap<TimelineId, RepoSet>,
    stored: BTreeMap<usize, ByteCount>,
    unread: Vec<(usize, RepoError)>,
}

impl Archive {
    /// Lists a cluster's WAL in all of `repositories`. One that cannot be listed is in
    /// [`Archive::unread`], and nothing of it counts: whether that may pass is the caller's to decide, who
    /// must not take what is missing from the view as missing everywhere.
    ///
    /// About eight bytes a segment while listing, a few for each gap afterwards.
    #[must_use]
    pub fn read(
        repositories: &[&Repository],
        stanza: &Stanza,
        system: SystemIdentifier,
        segment_size: SegmentSize,
    ) -> Self {
        let mut archive = Self {
            segment_size,
            repositories: repositories.len(),
            timelines: BTreeMap::new(),
            histories: BTreeMap::new(),
            stored: BTreeMap::new(),
            unread: Vec::new(),
        };
        for (at, repo) in repositories.iter().enumerate() {
            if at >= MOST_REPOSITORIES {
                let what = format!("a list of more than {MOST_REPOSITORIES} repositories");
                archive.unread.push((at, RepoError::TooLarge { what }));
                continue;
            }
            match Found::list(ClusterWal { repo, stanza, system }, segment_size) {
                Ok(found) => archive.add(at, found),
                Err(error) => archive.unread.push((at, error)),
            }
        }
        for timeline in archive.timelines.values_mut() {
            timeline.union = Runs::union(&timeline.held);
        }
        archive
    }

    fn add(&mut self, at: usize, mut found: Found) {
        self.stored.insert(at, found.stored);
        found.count_what_tails_hold_whole(self.segment_size);
        for (id, numbers) in found.segments {
            let timeline = self.timelines.entry(id).or_default();
            timeline.held.resize_with(self.repositories, Runs::default);
            timeline.held[at] = Runs::from_numbers(numbers);
        }
        for partial in found.partials {
            let timeline = self.timelines.entry(partial.segment.timeline()).or_default();
            timeline.partials.entry(partial).or_default().add(at);
        }
        for tail in found.tails {
            let timeline = self.timelines.entry(tail.segment.timeline()).or_default();
            timeline.tails.entry(tail).or_default().add(at);
        }
        for history in found.histories {
            self.histories.entry(history).or_default().add(at);
        }
    }

    /// What one of the repositories holds, without the others; `None` for one that was not listed. Its place in
    /// the list stays what it is, so the same [`window::Union`] serves. Reads nothing.
    #[must_use]
    pub fn alone(&self, repository: usize) -> Option<Self> {
        let stored = self.stored_bytes(repository)?;
        let only: RepoSet = std::iter::once(repository).collect();
        Some(Self {
            segment_size: self.segment_size,
            repositories: self.repositories,
            timelines: self
                .timelines
                .iter()
                .filter_map(|(id, timeline)| Some((*id, timeline.alone(repository, only)?)))
                .collect(),
            histories: self
                .histories
                .iter()
                .filter(|(_, held)| held.contains(repository))
                .map(|(timeline, _)| (*timeline, only))
                .collect(),
            stored: [(repository, stored)].into(),
            unread: Vec::new(),
        })
    }

    /// The repositories that could not be listed, and why.
    #[must_use]
    pub fn unread(&self) -> &[(usize, RepoError)] {
        &self.unread
    }

    /// The same, to keep; [`Archive::unread`] is empty afterwards.
    pub fn take_unread(&mut self) -> Vec<(usize, RepoError)> {
        std::mem::take(&mut self.unread)
    }

    /// Stored bytes of everything that the listing of a repository showed; `None` for one that was not read.
    #[must_use]
    pub fn stored_bytes(&self, repository: usize) -> Option<ByteCount> {
        self.stored.get(&repository).copied()
    }

    /// The cluster's segment size.
    #[must_use]
    pub const fn segment_size(&self) -> SegmentSize {
        self.segment_size
    }

    /// The timelines of which anything but a history is held, rising.
    pub fn timelines(&self) -> impl DoubleEndedIterator<Item = TimelineId> + '_ {
        self.timelines.keys().copied()
    }

    /// The timelines whose histories are held, rising, and by whom. Not every ancestor need be among them.
    pub fn histories(&self) -> impl DoubleEndedIterator<Item = (TimelineId, RepoSet)> + '_ {
        self.histories.iter().map(|(timeline, held)| (*timeline, *held))
    }

    /// The newest timeline of which anything is held.
    #[must_use]
    pub fn newest_timeline(&self) -> Option<TimelineId> {
        self.timelines.keys().next_back().copied().max(self.histories.keys().next_back().copied())
    }

    /// The complete segments of a timeline that are held anywhere, by number. One that tails hold from its first
    /// byte to its last is complete.
    #[must_use]
    pub fn segments(&self, timeline: TimelineId) -> &Runs {
        const NONE: &Runs = &Runs::EMPTY;
        self.timelines.get(&timeline).map_or(NONE, |timeline| &timeline.union)
    }

    /// The same for one repository.
    #[must_use]
    pub fn segments_in(&self, timeline: TimelineId, repository: usize) -> &Runs {
        const NONE: &Runs = &Runs::EMPTY;
        self.timelines.get(&timeline).and_then(|timeline| timeline.held.get(repository)).unwrap_or(NONE)
    }

    /// Which repositories hold a complete segment.
    #[must_use]
    pub fn holders(&self, segment: SegmentName) -> RepoSet {
        let Some(number) = segment.number(self.segment_size) else { return RepoSet::default() };
        let Some(timeline) = self.timelines.get(&segment.timeline()) else { return RepoSet::default() };
        timeline.held.iter().enumerate().filter(|(_, held)| held.contains(number)).map(|(at, _)| at).collect()
    }

    /// Whether any repository holds this complete segment.
    #[must_use]
    pub fn contains(&self, segment: SegmentName) -> bool {
        segment
            .number(self.segment_size)
            .is_some_and(|number| self.segments(segment.timeline()).contains(number))
    }

    /// Whether a complete segment after this one is held on its timeline.
    #[must_use]
    pub fn later_exists(&self, segment: SegmentName) -> bool {
        match (segment.number(self.segment_size), self.segments(segment.timeline()).last()) {
            (Some(number), Some(last)) => last > number,
            _ => false,
        }
    }

    /// The newest complete segment of a timeline.
    #[must_use]
    pub fn newest(&self, timeline: TimelineId) -> Option<SegmentName> {
        SegmentName::from_number(timeline, self.segments(timeline).last()?, self.segment_size)
    }

    /// The oldest complete segment of a timeline.
    #[must_use]
    pub fn oldest(&self, timeline: TimelineId) -> Option<SegmentName> {
        SegmentName::from_number(timeline, self.segments(timeline).first()?, self.segment_size)
    }

    /// The unfinished segments of a timeline, rising, and who holds each.
    pub fn partials(&self, timeline: TimelineId) -> impl Iterator<Item = (&Partial, RepoSet)> + '_ {
        self.timelines.get(&timeline).into_iter().flat_map(|t| t.partials.iter().map(|(p, held)| (p, *held)))
    }

    /// The tails of a timeline, rising, and who holds each.
    pub fn tails(&self, timeline: TimelineId) -> impl Iterator<Item = (&Tail, RepoSet)> + '_ {
        self.timelines.get(&timeline).into_iter().flat_map(|t| t.tails.iter().map(|(p, held)| (p, *held)))
    }

    /// The tails of one segment.
    pub fn tails_of(&self, segment: SegmentName) -> impl Iterator<Item = (&Tail, RepoSet)> + '_ {
        self.tails(segment.timeline()).filter(move |(tail, _)| tail.segment == segment)
    }

    /// The bytes from a segment's beginning that its tails hold without a gap, going by their names.
    #[must_use]
    pub fn held_in_tails(&self, segment: SegmentName) -> u64 {
        covered(self.tails_of(segment).map(|(tail, _)| tail)).into()
    }
}

/// One repository's listing.
#[derive(Debug, Default)]
struct Found {
    segments: BTreeMap<TimelineId, Vec<u64>>,
    partials: Vec<Partial>,
    tails: Vec<Tail>,
    histories: BTreeSet<TimelineId>,
    stored: ByteCount,
}

impl Found {
    fn list(wal: ClusterWal<'_>, size: SegmentSize) -> Result<Self, RepoError> {
        let root = layout::wal(wal.stanza, wal.system)?;
        let prefix = format!("{root}/");
        let mut found = Self::default();
        wal.repo.store().list(&root, &mut |listed| {
            let Some(below) = listed.key.as_str().strip_prefix(&prefix) else { return };
            found.stored = found.stored.plus(listed.size);
            match layout::wal_entry(below) {
                Some(WalEntry::Segment(segment)) => {
                    if let Some(number) = segment.number(size) {
                        found.segments.entry(segment.timeline()).or_default().push(number);
                    }
                }
                Some(WalEntry::History(timeline)) => {
                    found.histories.insert(timeline);
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
}

impl Found {
    fn count_what_tails_hold_whole(&mut self, size: SegmentSize) {
        let mut of_segment: BTreeMap<SegmentName, Vec<&Tail>> = BTreeMap::new();
        for tail in &self.tails {
            of_segment.entry(tail.segment).or_default().push(tail);
        }
        for (segment, tails) in of_segment {
            if u64::from(covered(tails)) == size.bytes()
                && let Some(number) = segment.number(size)
            {
                self.segments.entry(segment.timeline()).or_default().push(number);
            }
        }
    }
}

fn partial(entry: &WalEntry) -> Option<Partial> {
    match entry {
        WalEntry::Partial(segment, hash) => {
            Some(Partial { segment: *segment, hash: ShortHash::parse(hash)? })
        }
        _ => None,
    }
}

fn tail(entry: WalEntry) -> Option<Tail> {
    match entry {
        WalEntry::Tail(segment, from, to, writer) => Some(Tail {
            segment,
            from: u32::try_from(from.as_u64()).ok()?,
            to: u32::try_from(to.as_u64()).ok()?,
            writer,
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
