//! The two listings of the deletion protocol, and what must be kept by them.
//!
//! R, the ids that were retired, is listed *first*. Whatever is listed *afterwards* and is not in R is kept with
//! all it needs. In this order, because a backup says that it begins before it looks whether its parents were
//! retired: either it sees the retirement and gives up, or it began before R was listed, and so the second
//! listing shows it.

use super::error::RetentionError;
use super::read::{Fate, Held, Reader};
use super::step::{Step, left_out};
use crate::repo::catalog::Catalog;
use crate::repo::record::Started;
use crate::repo::{RepoError, layout};
use crate::units::{BackupId, NoteId, Timestamp};
use crate::wal::archive::runs::Runs;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Objects that must stay, of backups that were retired.
#[derive(Debug, Default)]
pub struct Keeps {
    packs: BTreeMap<BackupId, Runs>,
    whole: BTreeSet<BackupId>,
}

impl Keeps {
    pub(super) fn add(&mut self, held: &Held) {
        for (owner, packs) in &held.needs {
            let all = self.packs.entry(owner.clone()).or_default();
            *all = Runs::union([&*all, packs]);
        }
    }

    /// Whether a pack of `owner` must stay.
    #[must_use]
    pub fn pack(&self, owner: &BackupId, number: u32) -> bool {
        self.whole.contains(owner) || self.packs.get(owner).is_some_and(|runs| runs.contains(number.into()))
    }

    /// Whether the map objects of `owner` must stay: all of them do while any record names it.
    #[must_use]
    pub fn maps(&self, owner: &BackupId) -> bool {
        self.whole.contains(owner) || self.packs.contains_key(owner)
    }
}

/// A backup whose data may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaving {
    /// The backup.
    pub id: BackupId,
    /// Whether it has objects of its own left.
    pub has_data: bool,
    /// Whether its `started` is still there: then so may its record be.
    pub has_names: bool,
    /// What was noted on it.
    pub notes: Vec<NoteId>,
}

/// What the two listings showed.
#[derive(Debug)]
pub struct Looked {
    /// Backups in R whose delay is over and of which something is left.
    pub leaving: Vec<Leaving>,
    /// Backups in R that stay a while for restores that may be running: with the moment from which on they
    /// may go, where that is known.
    pub waiting: Vec<(BackupId, Option<Timestamp>)>,
    /// What must stay.
    pub keeps: Keeps,
    /// Committed backups that still hold their WAL: those that exist, and those in `waiting`.
    pub held: Vec<Arc<Held>>,
    /// Those that exist, and what was noted on them.
    pub live: BTreeMap<BackupId, Vec<NoteId>>,
    /// Backups that were begun and have no outcome.
    pub open: Vec<Arc<Started>>,
    /// Aborted backups that were not retired yet.
    pub aborted: Vec<BackupId>,
    /// Whether any backup was ever retired.
    pub any_retired: bool,
    /// What open backups build on: their records must stay.
    pub named_by_open: BTreeSet<BackupId>,
}

/// Lists twice and reads what is needed to know what must stay. Of `doomed` nothing need be readable: it is about
/// to be retired. (`victims` is for tests that leave out a step.)
///
/// # Errors
/// Anything in the catalog that is unknown or cannot be read: then nothing may be deleted.
pub(super) fn look(
    reader: &mut Reader<'_>,
    victims: &[BackupId],
    doomed: Option<&BackupId>,
    delay: Duration,
    now: Timestamp,
) -> Result<Looked, RetentionError> {
    let (repository, stanza) = (reader.repository(), reader.stanza());
    let (first, second) = if left_out(Step::SecondListing) {
        let only = known(repository.catalog(stanza)?)?;
        (only.clone(), only)
    } else if left_out(Step::RetiredListedFirst) {
        let second = known(repository.catalog(stanza)?)?;
        (known(repository.catalog(stanza)?)?, second)
    } else {
        let first = known(repository.catalog(stanza)?)?;
        // Not before the line above has ended: see the module.
        (first, known(repository.catalog(stanza)?)?)
    };
    let mut retired: BTreeSet<BackupId> =
        first.entries.iter().filter(|(_, entry)| entry.retired).map(|(id, _)| id.clone()).collect();
    if left_out(Step::RetireBeforeSweep) {
        retired.extend(victims.iter().cloned());
    }
    let with_data = folders_of_data(reader)?;

    let mut looked = Looked {
        leaving: Vec::new(),
        waiting: Vec::new(),
        keeps: Keeps::default(),
        held: Vec::new(),
        live: BTreeMap::new(),
        open: Vec::new(),
        aborted: Vec::new(),
        any_retired: !retired.is_empty(),
        named_by_open: BTreeSet::new(),
    };
    let mut gone = BTreeSet::new();
    for id in retired {
        let entry = second.entries.get(&id);
        let has_names = entry.is_some_and(|entry| entry.started);
        let has_data = with_data.contains(&id);
        if has_names || has_data {
            let due = reader.retired_at(&id)?.map(|at| later(at, delay));
            if delay.is_zero() || due.is_some_and(|due| due <= now) {
                let notes = entry.map(|entry| entry.notes.clone()).unwrap_or_default();
                looked.leaving.push(Leaving { id: id.clone(), has_data, has_names, notes });
                gone.insert(id);
            } else {
                looked.waiting.push((id, due));
            }
        } else {
            gone.insert(id);
        }
    }
    for (id, entry) in second.entries.iter().filter(|(id, _)| !gone.contains(*id)) {
        if entry.outcome {
            let fate = match reader.fate(id) {
                // What nobody can restore any more needs nothing but what is its own.
                Err(RetentionError::Unreadable { source: RepoError::Damaged { .. }, .. })
                    if entry.retired || doomed == Some(id) =>
                {
                    continue;
                }
                fate => fate?,
            };
            match fate {
                Some(Fate::Committed(held)) => {
                    looked.keeps.add(&held);
                    looked.held.push(held);
                    if !entry.retired {
                        looked.live.insert(id.clone(), entry.notes.clone());
                    }
                }
                // What an aborted one has under its own name stays as long as it is not retired.
                Some(Fate::Aborted) if !entry.retired => looked.aborted.push(id.clone()),
                // Of one whose record went between the listing and now, too.
                Some(Fate::Aborted) | None => {}
            }
        } else if entry.started {
            keep_for_open(reader, id, entry.retired, &mut looked)?;
        }
    }
    Ok(looked)
}

/// A backup that has no outcome may come to use all that the backups use that it builds on, retired or not.
fn keep_for_open(
    reader: &mut Reader<'_>,
    id: &BackupId,
    is_retired: bool,
    looked: &mut Looked,
) -> Result<(), RetentionError> {
    let Some(started) = reader.started(id)? else { return Ok(()) };
    let Some(parents) = started.builds_on() else {
        return Err(RetentionError::ParentGone { backup: id.clone(), parent: None });
    };
    looked.open.push(started);
    for parent in parents {
        if left_out(Step::KeepForOpen) {
            looked.named_by_open.insert(parent);
            continue;
        }
        match reader.fate(&parent)? {
            Some(Fate::Committed(held)) => looked.keeps.add(&held),
            Some(Fate::Aborted) => {
                looked.keeps.whole.insert(parent.clone());
            }
            // One that was retired itself will not come to anything.
            None if is_retired => {}
            None => return Err(RetentionError::ParentGone { backup: id.clone(), parent: Some(parent) }),
        }
        looked.named_by_open.insert(parent);
    }
    Ok(())
}

fn known(catalog: Catalog) -> Result<Catalog, RetentionError> {
    if catalog.strangers.is_empty() { Ok(catalog) } else { Err(RetentionError::Strangers(catalog.strangers)) }
}

/// The backups that have objects of their own.
fn folders_of_data(reader: &Reader<'_>) -> Result<BTreeSet<BackupId>, RetentionError> {
    let folders = reader.repository().store().folder(Some(&layout::all_data(reader.stanza())?))?.folders;
    Ok(folders.iter().filter_map(|name| name.parse().ok()).collect())
}

/// The moment `delay` after `at`.
pub(super) fn later(at: Timestamp, delay: Duration) -> Timestamp {
    let micros = i64::try_from(delay.as_micros()).unwrap_or(i64::MAX);
    Timestamp::from_unix_micros(at.as_unix_micros().saturating_add(micros))
}
