//! What listings say, for the decision: names around the asked segment, beyond it, and of timelines.
//!
//! A name proves that something was written; that a name is absent proves something only when the listing
//! was complete, so a repository whose listing failed is in trouble, never empty.

use super::decide::{Far, Near, StoredHistory, Timelines, Trouble};
use super::repositories::Candidate;
use crate::postgres::history::TimelineHistory;
use crate::repo::RepoError;
use crate::repo::layout::{self, WalEntry};
use crate::storage::Key;
use crate::units::{Lsn, SegmentName, SegmentSize, TimelineId};
use crate::wal::archive::look;
use crate::wal::{ClusterWal, ShortHash, read};

/// A piece of a segment that is not stored whole.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Piece {
    /// `.partial-…`
    Partial(ShortHash),
    /// `.tail/…`
    Tail {
        /// Its first byte.
        from: u32,
        /// The byte after its last.
        to: u32,
        /// Who wrote it.
        writer: String,
    },
}

/// Looks into the segment's folder in one repository and adds what is there to `near`. Gives the segment's pieces.
///
/// # Errors
/// When the listing is not complete.
pub fn look_near(
    wal: ClusterWal<'_>,
    name: SegmentName,
    size: SegmentSize,
    near: &mut Near,
) -> Result<Vec<Piece>, RepoError> {
    let mut pieces = Vec::new();
    let start = name.start(size).unwrap_or(Lsn::INVALID);
    let mut next = near.later.take();
    list_folder(wal, name.timeline(), &name.folder(), &mut |file, entry| {
        let Some(segment) = segment_of(file, entry.as_ref()) else { return };
        let mut prove = |offset: u64| {
            let to = start.forward(offset).unwrap_or(start);
            if near.proved.as_ref().is_none_or(|(furthest, _)| *furthest < to) {
                near.proved = Some((to, file.to_owned()));
            }
        };
        match (segment.cmp(&name), entry) {
            (std::cmp::Ordering::Less, _) => {}
            // Under its own name: it came in since it was looked for.
            (std::cmp::Ordering::Greater, _) | (_, Some(WalEntry::Segment(_)) | None) => {
                // The first of them tells where the gap ends.
                if next.as_deref().is_none_or(|known| file < known) {
                    next = Some(file.to_owned());
                }
            }
            (_, Some(WalEntry::Partial(_, hash))) => {
                pieces.extend(ShortHash::parse(&hash).map(Piece::Partial));
            }
            (_, Some(WalEntry::Tail(_, from, to, writer))) => {
                prove(to.as_u64());
                if let (Ok(from), Ok(to)) = (u32::try_from(from.as_u64()), u32::try_from(to.as_u64())) {
                    pieces.push(Piece::Tail { from, to, writer });
                }
            }
            // Parts are written when the whole segment is at hand.
            (_, Some(WalEntry::Part(..))) => prove(size.bytes()),
            (_, Some(WalEntry::BackupHistory(_, offset, _))) => prove(u64::from(offset)),
            (_, Some(WalEntry::History(_))) => {}
        }
    })?;
    near.later = next;
    near.pieces |= !pieces.is_empty();
    Ok(pieces)
}

/// Gives every name in a folder of segments with what it stands for.
fn list_folder(
    wal: ClusterWal<'_>,
    timeline: TimelineId,
    folder: &str,
    each: &mut dyn FnMut(&str, Option<WalEntry>),
) -> Result<(), RepoError> {
    let root = layout::wal(wal.stanza, wal.system)?;
    let prefix = format!("{root}/{}/{folder}/", timeline.hex());
    let key = Key::new(prefix.trim_end_matches('/'))?;
    let whole = format!("{root}/");
    wal.repo.store().list(&key, &mut |listed| {
        let name = listed.key.as_str();
        let (Some(file), Some(below)) = (name.strip_prefix(&prefix), name.strip_prefix(&whole)) else {
            return;
        };
        each(file, layout::wal_entry(below));
    })?;
    Ok(())
}

/// The segment that a name is about; also for names that only a later version knows.
fn segment_of(file: &str, entry: Option<&WalEntry>) -> Option<SegmentName> {
    match entry {
        Some(
            WalEntry::Segment(segment)
            | WalEntry::Partial(segment, _)
            | WalEntry::Tail(segment, ..)
            | WalEntry::Part(segment, _)
            | WalEntry::BackupHistory(segment, ..),
        ) => Some(*segment),
        Some(WalEntry::History(_)) => None,
        None => file.get(..24)?.parse().ok(),
    }
}

/// Looks for anything of `name`'s timeline in later folders (`from_own`: also from `name` on in its own).
fn anything_later(
    wal: ClusterWal<'_>,
    name: SegmentName,
    from_own: bool,
) -> Result<Option<String>, RepoError> {
    let own = name.folder();
    let listing =
        wal.repo.store().folder(Some(&layout::wal_timeline(wal.stanza, wal.system, name.timeline())?))?;
    // The index of a folder is written when the folder is full.
    let index = listing.objects.iter().map(|object| object.key.file_name()).filter(|file| {
        file.strip_suffix(".index").is_some_and(|folder| folder.len() == 16 && *folder >= *own)
    });
    if let Some(index) = index.max() {
        return Ok(Some(index.to_owned()));
    }
    let mut folders: Vec<&String> = listing
        .folders
        .iter()
        .filter(|folder| folder.len() == own.len() && (**folder > own || from_own && **folder == own))
        .collect();
    folders.sort_unstable();
    // The newest is the least likely to be empty; a filesystem may name empty ones.
    for folder in folders.into_iter().rev() {
        let mut last: Option<(SegmentName, String)> = None;
        list_folder(wal, name.timeline(), folder, &mut |file, entry| {
            if let Some(segment) = segment_of(file, entry.as_ref()).filter(|segment| *segment >= name)
                && last.as_ref().is_none_or(|(newest, _)| *newest < segment)
            {
                last = Some((segment, file.to_owned()));
            }
        })?;
        if let Some((_, file)) = last {
            return Ok(Some(file));
        }
    }
    Ok(None)
}

/// Looks beyond the segment's folder in one repository and adds what is there to `far`. `lineage` is the
/// target's, where its fork lies in the segment.
///
/// # Errors
/// When a listing is not complete.
pub fn look_far(
    wal: ClusterWal<'_>,
    name: SegmentName,
    lineage: Option<&TimelineHistory>,
    far: &mut Far,
) -> Result<(), RepoError> {
    if let Some(lineage) = lineage {
        for stretch in lineage.stretches().filter(|stretch| stretch.timeline > name.timeline()) {
            if far.descendants.is_none() {
                far.descendants = anything_later(wal, name.on(stretch.timeline), true)?;
            }
        }
    } else if far.later.is_none() {
        far.later = anything_later(wal, name, false)?;
    }
    Ok(())
}

/// What the histories say about `timeline`: who left it, and of whom nobody knows.
pub fn children(timelines: &Timelines, timeline: TimelineId, far: &mut Far) {
    for known in timelines.known().filter(|known| *known > timeline) {
        match timelines.lineage_of(known) {
            Ok(Some(lineage)) => {
                if let Some(fork) = lineage.fork_from(timeline) {
                    far.children.push((known, fork));
                }
            }
            Ok(None) | Err(_) => far.without_history.push(known),
        }
    }
}

/// The timelines of the cluster above `from` or equal to it, over all repositories, with their histories read.
#[must_use]
pub fn timelines(repositories: &[Candidate<'_>], wal: &super::Cluster<'_>, from: TimelineId) -> Timelines {
    let mut found = Timelines::default();
    for candidate in repositories {
        if let Err(trouble) = timelines_of(candidate, wal, from, &mut found) {
            found.troubles.push(trouble);
        }
    }
    found
}

fn timelines_of(
    candidate: &Candidate<'_>,
    cluster: &super::Cluster<'_>,
    from: TimelineId,
    found: &mut Timelines,
) -> Result<(), Trouble> {
    let wal = candidate.wal(cluster.stanza, cluster.system)?;
    candidate.knows_cluster(cluster.stanza, cluster.system)?;
    let named = look::timelines(wal).map_err(|e| candidate.trouble(&e))?;
    for timeline in named.histories.into_iter().filter(|timeline| *timeline >= from) {
        let stored = found.histories.entry(timeline).or_insert(StoredHistory::Unreadable);
        // A damaged copy is made up for by another repository's.
        if *stored == StoredHistory::Unreadable
            && let Ok(history) = read::read_history(wal, timeline)
        {
            *stored = StoredHistory::Readable(history);
        }
    }
    for timeline in named.folders.into_iter().filter(|timeline| *timeline >= from) {
        if found.folders.contains(&timeline) {
            continue;
        }
        let folder = layout::wal_timeline(wal.stanza, wal.system, timeline)
            .map_err(|e| candidate.trouble(&e.into()))?;
        if holds_anything(wal, &folder).map_err(|e| candidate.trouble(&e))? {
            found.folders.insert(timeline);
        }
    }
    Ok(())
}

/// Whether there is an object below a folder; a filesystem may name empty ones.
fn holds_anything(wal: ClusterWal<'_>, folder: &Key) -> Result<bool, RepoError> {
    let listing = wal.repo.store().folder(Some(folder))?;
    if !listing.objects.is_empty() {
        return Ok(true);
    }
    for name in &listing.folders {
        let mut any = false;
        wal.repo.store().list(&Key::new(format!("{folder}/{name}"))?, &mut |_| any = true)?;
        if any {
            return Ok(true);
        }
    }
    Ok(false)
}
