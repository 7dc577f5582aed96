//! A cluster's WAL by listing, folder by folder: one job for each segment name and all that lies beside it.

use super::VerifyError;
use super::finding::Strays;
use crate::repo::RepoError;
use crate::repo::layout::{self, WalEntry};
use crate::storage::{Key, Listed};
use crate::units::{SegmentName, TimelineId};
use crate::wal::{ClusterWal, ShortHash};
use std::collections::{BTreeMap, VecDeque};

/// Everything that is stored under one segment's name.
#[derive(Debug)]
pub(super) struct Job {
    pub segment: SegmentName,
    /// Stored bytes of the complete one.
    pub complete: Option<u64>,
    pub partials: Vec<(ShortHash, u64)>,
    pub tails: Vec<TailAt>,
    /// By the hash in the name, with stored bytes.
    pub parts: Vec<(String, u64)>,
    pub backup_notes: Vec<(u32, ShortHash, u64)>,
}

/// A stretch of an open segment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TailAt {
    pub from: u32,
    pub to: u32,
    pub writer: String,
    pub size: u64,
}

/// The folders, opened when their turn comes.
pub(super) struct Walk<'a> {
    wal: ClusterWal<'a>,
    /// The first and the last of each stretch that is wanted; `None`: everything.
    only: Option<Vec<(SegmentName, SegmentName)>>,
    /// Timelines whose folders are not listed yet.
    timelines: VecDeque<TimelineId>,
    folders: VecDeque<Key>,
    jobs: VecDeque<Job>,
    pub strays: Strays,
}

impl<'a> Walk<'a> {
    /// Begins: lists the timelines. Gives the histories, too.
    pub(super) fn begin(
        wal: ClusterWal<'a>,
        only: Option<Vec<(SegmentName, SegmentName)>>,
    ) -> Result<(Self, Vec<TimelineId>), RepoError> {
        let root = layout::wal(wal.stanza, wal.system)?;
        let listed = wal.repo.store().folder(Some(&root))?;
        let mut strays = Strays::default();
        let mut histories = Vec::new();
        for object in listed.objects {
            match layout::wal_entry(object.key.file_name()) {
                Some(WalEntry::History(timeline)) => histories.push(timeline),
                _ => strays.add(&object.key),
            }
        }
        let mut timelines = Vec::new();
        for name in listed.folders {
            match format!("{name}0000000000000000").parse::<SegmentName>() {
                Ok(segment) if segment.timeline().hex() == name => timelines.push(segment.timeline()),
                _ => strays.add(&Key::new(format!("{root}/{name}"))?),
            }
        }
        histories.sort_unstable();
        timelines.sort_unstable();
        if let Some(only) = &only {
            timelines.retain(|timeline| only.iter().any(|(first, _)| first.timeline() == *timeline));
        }
        let walk = Self {
            wal,
            only,
            timelines: timelines.into(),
            folders: VecDeque::new(),
            jobs: VecDeque::new(),
            strays,
        };
        Ok((walk, histories))
    }

    /// The next segment, in order of timelines and positions.
    pub(super) fn next(&mut self) -> Result<Option<Job>, VerifyError> {
        loop {
            if let Some(job) = self.jobs.pop_front() {
                return Ok(Some(job));
            }
            if let Some(folder) = self.folders.pop_front() {
                self.open(&folder)?;
            } else if let Some(timeline) = self.timelines.pop_front() {
                self.open_timeline(timeline)?;
            } else {
                return Ok(None);
            }
        }
    }

    fn open_timeline(&mut self, timeline: TimelineId) -> Result<(), RepoError> {
        let root = layout::wal_timeline(self.wal.stanza, self.wal.system, timeline)?;
        let listed = self.wal.repo.store().folder(Some(&root))?;
        listed.objects.iter().for_each(|object| self.strays.add(&object.key));
        let mut folders = listed.folders;
        folders.sort_unstable();
        if let Some(only) = &self.only {
            let of_it = |first: SegmentName| first.timeline() == timeline;
            folders.retain(|name| {
                only.iter()
                    .any(|(first, last)| of_it(*first) && (first.folder()..=last.folder()).contains(name))
            });
        }
        for name in folders {
            self.folders.push_back(Key::new(format!("{root}/{name}"))?);
        }
        Ok(())
    }

    fn open(&mut self, folder: &Key) -> Result<(), RepoError> {
        let root = format!("{}/", layout::wal(self.wal.stanza, self.wal.system)?);
        let mut found: BTreeMap<SegmentName, Job> = BTreeMap::new();
        let mut strays = Vec::new();
        self.wal.repo.store().list(folder, &mut |listed| {
            if !sort_in(&mut found, &root, &listed) {
                strays.push(listed.key);
            }
        })?;
        strays.iter().for_each(|key| self.strays.add(key));
        let wanted = |segment: &SegmentName| {
            let only = self.only.as_ref();
            only.is_none_or(|only| only.iter().any(|(first, last)| first <= segment && segment <= last))
        };
        self.jobs.extend(found.into_values().filter(|job| wanted(&job.segment)));
        Ok(())
    }
}

/// Puts an object where it belongs; whether its name is one of ours.
fn sort_in(found: &mut BTreeMap<SegmentName, Job>, root: &str, listed: &Listed) -> bool {
    let Some(entry) = listed.key.as_str().strip_prefix(root).and_then(layout::wal_entry) else {
        return false;
    };
    let size = listed.size.as_u64();
    match entry {
        WalEntry::Segment(segment) => entry_of(found, segment).complete = Some(size),
        WalEntry::Partial(segment, hash) => match ShortHash::parse(&hash) {
            Some(hash) => entry_of(found, segment).partials.push((hash, size)),
            None => return false,
        },
        WalEntry::Tail(segment, from, to, writer) => {
            let offsets = u32::try_from(from.as_u64()).ok().zip(u32::try_from(to.as_u64()).ok());
            let Some((from, to)) = offsets else { return false };
            entry_of(found, segment).tails.push(TailAt { from, to, writer, size });
        }
        WalEntry::Part(segment, hash) => entry_of(found, segment).parts.push((hash, size)),
        WalEntry::BackupHistory(segment, offset, hash) => match ShortHash::parse(&hash) {
            Some(hash) => entry_of(found, segment).backup_notes.push((offset, hash, size)),
            None => return false,
        },
        WalEntry::History(_) => return false,
    }
    true
}

fn entry_of(found: &mut BTreeMap<SegmentName, Job>, segment: SegmentName) -> &mut Job {
    found.entry(segment).or_insert_with(|| Job {
        segment,
        complete: None,
        partials: Vec::new(),
        tails: Vec::new(),
        parts: Vec::new(),
        backup_notes: Vec::new(),
    })
}
