//! Waiting for the WAL that a backup needs.

use super::error::BackupError;
use super::observer::Observer;
use super::proof::ArchivedWal;
use crate::repo::{RepoError, layout};
use crate::units::{Lsn, SegmentName};
use crate::wal::ClusterWal;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// How long between two looks.
const PAUSE: Duration = Duration::from_millis(200);

/// Which of `segments` are not in the repository: one listing for each folder of 256.
///
/// # Errors
/// The repository's trouble.
pub fn missing(
    wal: ClusterWal<'_>,
    segments: &BTreeSet<SegmentName>,
) -> Result<BTreeSet<SegmentName>, RepoError> {
    let mut folders: BTreeMap<String, (crate::storage::Key, Vec<SegmentName>)> = BTreeMap::new();
    for segment in segments {
        let folder = layout::wal_folder(wal.stanza, wal.system, *segment)?;
        folders.entry(folder.to_string()).or_insert_with(|| (folder, Vec::new())).1.push(*segment);
    }
    let mut missing = BTreeSet::new();
    for (folder, wanted) in folders.into_values() {
        let held: BTreeSet<String> = wal
            .repo
            .store()
            .folder(Some(&folder))?
            .objects
            .into_iter()
            .map(|object| object.key.file_name().to_owned())
            .collect();
        missing.extend(wanted.into_iter().filter(|segment| !held.contains(&segment.to_string())));
    }
    Ok(missing)
}

/// The segments that hold WAL from `start` up to `stop`.
///
/// # Errors
/// When the positions make no names.
pub fn segments(wal: &ArchivedWal<'_>, start: Lsn, stop: Lsn) -> Result<BTreeSet<SegmentName>, BackupError> {
    (wal.size.number_of(start)..=wal.size.number_before(stop)).map(|number| wal.name(number)).collect()
}

/// Returns when all of `wanted` are in the repository.
///
/// # Errors
/// [`BackupError::WalNotArchived`] when nothing more arrived for `patience`; an interrupt; the repository's
/// trouble.
pub fn until_archived(
    wal: &ArchivedWal<'_>,
    wanted: BTreeSet<SegmentName>,
    patience: Duration,
    observer: &dyn Observer,
) -> Result<(), BackupError> {
    let missing = arriving(wal, wanted, patience, observer)?;
    match missing.first() {
        None => Ok(()),
        Some(first) => {
            Err(BackupError::WalNotArchived { segment: *first, missing: missing.len(), waited: patience })
        }
    }
}

/// Waits for `wanted` to be in the repository; gives those that are not when nothing more arrived for `patience`.
///
/// # Errors
/// An interrupt; the repository's trouble.
pub fn arriving(
    wal: &ArchivedWal<'_>,
    mut wanted: BTreeSet<SegmentName>,
    patience: Duration,
    observer: &dyn Observer,
) -> Result<BTreeSet<SegmentName>, BackupError> {
    let mut last_arrival = Instant::now();
    loop {
        let before = wanted.len();
        wanted = missing(wal.cluster, &wanted)?;
        let Some(first) = wanted.first().copied() else { return Ok(wanted) };
        if wanted.len() < before {
            last_arrival = Instant::now();
        }
        if last_arrival.elapsed() >= patience {
            return Ok(wanted);
        }
        observer.awaiting_wal(first);
        std::thread::sleep(PAUSE);
        if observer.interrupted() {
            return Err(BackupError::Interrupted);
        }
    }
}
