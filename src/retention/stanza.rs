//! Deleting a stanza: all its backups, all its WAL, its clusters.
//!
//! The protocol of the module above with everything as its victim and without a delay, then WAL, then the cluster
//! objects, which are what makes a stanza exist. The order, for each state that a crash can leave:
//! 1. The abort of every backup that is being taken is won, then all are retired: from here on nothing is listed.
//! 2. Data and names of what was retired go; then WAL and histories.
//! 3. The cluster objects go: no backup begins and no WAL comes any more. Whoever looked for them just before that is
//!    found by a second round of all this.
//!
//! `retired` names and aborted outcomes stay, as they do in any removal: a backup that was asleep meanwhile finds
//! them, even when the stanza was made anew. While anything else is left, another run finds it and goes on.

use super::error::RetentionError;
use super::look::look;
use super::read::{Fate, Reader};
use super::survey::{Pinned, pin_of};
use super::sweep::{Deleted, Manner, Swept, delete_all, sweep_backups};
use crate::env::Env;
use crate::repo::catalog::{Catalog, CatalogEntry, GivenUp};
use crate::repo::layout::{self, Named, WalEntry};
use crate::repo::record::{Aborted, Retired};
use crate::repo::{Cluster, RepoError, Repository};
use crate::storage::Key;
use crate::units::{BackupId, Stanza, SystemIdentifier, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

#[cfg(test)]
mod tests;

/// After so many rounds in which another backup had been begun, this is given up.
const ROUNDS: usize = 10;
/// So many names that are none of ours are remembered.
const STRANGERS: usize = 100;
const WHY: &str = "its stanza was deleted";

/// Why a stanza could not be deleted, or not wholly. Running again goes on.
#[derive(Debug)]
pub enum StanzaError {
    /// See [`RetentionError`].
    Retention(RetentionError),
    /// Backups are begun again and again.
    StillBegun(BackupId),
}

impl fmt::Display for StanzaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Retention(error) => fmt::Display::fmt(error, f),
            Self::StillBegun(id) => write!(f, "backups are begun again and again, now {id}"),
        }
    }
}

impl std::error::Error for StanzaError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Retention(error) => error.source(),
            Self::StillBegun(_) => None,
        }
    }
}

impl From<RetentionError> for StanzaError {
    fn from(error: RetentionError) -> Self {
        Self::Retention(error)
    }
}

impl From<RepoError> for StanzaError {
    fn from(error: RepoError) -> Self {
        Self::Retention(error.into())
    }
}

impl From<crate::storage::StoreError> for StanzaError {
    fn from(error: crate::storage::StoreError) -> Self {
        Self::Retention(error.into())
    }
}

impl From<crate::storage::NotAKey> for StanzaError {
    fn from(error: crate::storage::NotAKey) -> Self {
        Self::Retention(error.into())
    }
}

impl From<crate::pipeline::Stopped> for StanzaError {
    fn from(error: crate::pipeline::Stopped) -> Self {
        Self::Retention(error.into())
    }
}

/// What a stanza holds in one repository: all of it goes. Consumed by [`StanzaPlan::execute`].
#[derive(Debug)]
pub struct StanzaPlan<'a> {
    repository: &'a Repository,
    stanza: &'a Stanza,
    /// Its clusters; what they are where their objects cannot be read is not known.
    pub clusters: BTreeMap<SystemIdentifier, Option<Cluster>>,
    /// The backups that exist, oldest first.
    pub backups: Vec<BackupId>,
    /// Those that somebody pinned.
    pub pinned: BTreeMap<BackupId, Pinned>,
    /// Backups that are being taken, or were killed.
    pub open: Vec<BackupId>,
    /// What is left of others: aborted ones, and ones that were removed before.
    pub leftovers: usize,
    /// What all of them stored.
    pub data: Deleted,
    /// Complete WAL segments.
    pub segments: u64,
    /// WAL with all that belongs to it.
    pub wal: Deleted,
}

/// What was done.
#[derive(Debug, Default)]
pub struct StanzaGone {
    /// Backups that exist no more.
    pub retired: u64,
    /// Backups that were being taken, and never will exist.
    pub given_up: Vec<BackupId>,
    /// What was deleted; a refusal in it says that the stanza is still there.
    pub swept: Swept,
}

impl<'a> StanzaPlan<'a> {
    /// Looks at everything. Nothing is changed.
    ///
    /// Lists all of the stanza once, and reads each record and the notes.
    ///
    /// # Errors
    /// The store's trouble, or names in the catalog that this version does not know.
    pub fn make(repository: &'a Repository, stanza: &'a Stanza, now: Timestamp) -> Result<Self, StanzaError> {
        let mut plan = Self {
            repository,
            stanza,
            clusters: clusters(repository, stanza)?,
            backups: Vec::new(),
            pinned: BTreeMap::new(),
            open: Vec::new(),
            leftovers: 0,
            data: Deleted::default(),
            segments: 0,
            wal: Deleted::default(),
        };
        let catalog = known(repository.catalog(stanza)?)?;
        let mut reader = Reader::new(repository, stanza);
        for (id, entry) in &catalog.entries {
            if entry.retired {
                plan.leftovers += usize::from(entry.started);
            } else if entry.outcome {
                match reader.fate(id) {
                    Ok(Some(Fate::Aborted)) => plan.leftovers += 1,
                    Err(RetentionError::Unreadable { source: RepoError::Store(error), .. }) => {
                        return Err(error.into());
                    }
                    // One that cannot be read is deleted like any other.
                    _ => plan.backups.push(id.clone()),
                }
            } else if entry.started {
                plan.open.push(id.clone());
            }
        }
        plan.pinned = pins(repository, stanza, &catalog, now);
        let store = repository.store();
        store.list(&layout::all_data(stanza)?, &mut |listed| plan.data.count(listed.size))?;
        let (mut segments, mut wal) = (0, Deleted::default());
        store.list(&layout::all_wal(stanza)?, &mut |listed| {
            wal.count(listed.size);
            let entry = layout::named(&listed.key);
            segments += u64::from(matches!(entry, Some(Named::Wal(_, _, WalEntry::Segment(_)))));
        })?;
        (plan.segments, plan.wal) = (segments, wal);
        Ok(plan)
    }

    /// Whether there is no such stanza, nor anything left of one but the names that stay for ever.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.clusters.is_empty()
            && self.backups.is_empty()
            && self.open.is_empty()
            && self.leftovers == 0
            && self.data.objects + self.wal.objects == 0
    }

    /// Deletes all of it. With `force`, pinned backups too.
    ///
    /// After `Ok` without a refusal the stanza is gone; objects that came while this ran may lie about where nothing
    /// finds them but another run. After `Err`, a refusal, an interrupt or a crash, some of its backups
    /// do not exist any more, and running again goes on. Restores that run meanwhile fail.
    ///
    /// # Errors
    /// [`RetentionError::Pinned`] before anything was changed; else see [`StanzaError`].
    pub fn execute(self, force: bool, env: &dyn Env, manner: &Manner) -> Result<StanzaGone, StanzaError> {
        let (repository, stanza) = (self.repository, self.stanza);
        let mut gone = StanzaGone::default();
        if !force {
            // A pin may have been set since the plan was shown.
            let catalog = known(repository.catalog(stanza)?)?;
            if let Some((id, pin)) = pins(repository, stanza, &catalog, env.now()).pop_first() {
                return Err(RetentionError::Pinned(id, pin).into());
            }
        }
        self.empty(env, manner, &mut gone)?;
        if gone.swept.refused.is_some() {
            return Ok(gone);
        }
        let mut keys = Vec::new();
        for system in clusters(repository, stanza)?.keys() {
            keys.push((layout::cluster(stanza, *system)?.key, 0));
        }
        // COMMIT POINT: without a cluster there is no stanza. That nothing can be restored was decided before.
        let (_, refused) = delete_all(repository.store(), &keys, manner)?;
        gone.swept.refused = refused;
        if gone.swept.refused.is_none() {
            // Who saw a cluster before it went may have begun a backup or stored WAL since.
            self.empty(env, manner, &mut gone)?;
        }
        Ok(gone)
    }

    /// Deletes everything but the clusters.
    fn empty(&self, env: &dyn Env, manner: &Manner, gone: &mut StanzaGone) -> Result<(), StanzaError> {
        let (repository, stanza) = (self.repository, self.stanza);
        let mut left = None;
        for _ in 0..ROUNDS {
            self.retire_all(env, manner, gone)?;
            let mut reader = Reader::new(repository, stanza);
            let looked = look(&mut reader, &[], None, Duration::ZERO, env.now())?;
            // Begun between the listings: what these need must stay until they are retired themselves.
            left = looked.live.keys().next().cloned();
            left = left.or_else(|| looked.open.first().map(|started| started.backup_id.clone()));
            left = left.or_else(|| looked.aborted.first().cloned());
            if left.is_none() {
                sweep_backups(&mut reader, &looked, manner, &mut gone.swept)?;
                break;
            }
        }
        if let Some(id) = left {
            return Err(StanzaError::StillBegun(id));
        }
        if gone.swept.refused.is_none() {
            self.sweep_below(&layout::all_wal(stanza)?, manner, &mut gone.swept)?;
        }
        Ok(())
    }

    /// Wins the abort of what is open, then retires everything that was not retired.
    fn retire_all(&self, env: &dyn Env, manner: &Manner, gone: &mut StanzaGone) -> Result<(), StanzaError> {
        let (repository, stanza) = (self.repository, self.stanza);
        let mut entries = known(repository.catalog(stanza)?)?.entries;
        // Objects of a backup that has no name would never be found again: its name is retired, and they go.
        for name in repository.store().folder(Some(&layout::all_data(stanza)?))?.folders {
            if let Ok(id) = name.parse() {
                entries.entry(id).or_default();
            }
        }
        // One that is retired and has no outcome any more is being cleared away.
        let is_open = |entry: &CatalogEntry| entry.started && !entry.outcome && !entry.retired;
        let aborted = Aborted { why: WHY.to_owned(), writer: "walden stanza-delete".to_owned() };
        for (id, _) in entries.iter().filter(|(_, entry)| is_open(entry)) {
            manner.stop.check()?;
            if repository.give_up(stanza, id, &aborted, env)? == GivenUp::Aborted {
                gone.given_up.push(id.clone());
            }
        }
        for (id, entry) in entries.iter().filter(|(_, entry)| !entry.retired) {
            manner.stop.check()?;
            let retired = Retired {
                backup_id: id.clone(),
                why: WHY.to_owned(),
                by: "walden stanza-delete".to_owned(),
                retired_at_unix_us: env.now(),
                walden_version: env!("CARGO_PKG_VERSION").to_owned(),
            };
            let new = repository.retire(stanza, id, &retired, env)?;
            gone.retired += u64::from(new && !is_open(entry));
        }
        Ok(())
    }

    /// Deletes what is below a folder of WAL, folder by folder: a stanza may hold millions of segments.
    fn sweep_below(&self, folder: &Key, manner: &Manner, swept: &mut Swept) -> Result<(), StanzaError> {
        let store = self.repository.store();
        let found = store.folder(Some(folder))?;
        let mut keys = Vec::new();
        for object in found.objects {
            if matches!(layout::named(&object.key), Some(Named::Wal(..))) {
                keys.push((object.key, object.size.as_u64()));
            } else if swept.strangers.len() < STRANGERS {
                swept.strangers.push(object.key);
            }
        }
        // Parts after what names them.
        let (deleted, refused) = delete_all(store, &keys, manner)?;
        swept.wal.add(&deleted);
        swept.refused = refused;
        for name in found.folders {
            if swept.refused.is_some() {
                break;
            }
            self.sweep_below(&Key::new(format!("{folder}/{name}"))?, manner, swept)?;
        }
        Ok(())
    }
}

fn known(catalog: Catalog) -> Result<Catalog, RetentionError> {
    if catalog.strangers.is_empty() { Ok(catalog) } else { Err(RetentionError::Strangers(catalog.strangers)) }
}

fn pins(
    repository: &Repository,
    stanza: &Stanza,
    catalog: &Catalog,
    now: Timestamp,
) -> BTreeMap<BackupId, Pinned> {
    let live = catalog.entries.iter().filter(|(_, entry)| entry.outcome && !entry.retired);
    live.filter(|(_, entry)| !entry.notes.is_empty())
        .filter_map(|(id, entry)| Some((id.clone(), pin_of(repository, stanza, id, &entry.notes, now)?)))
        .collect()
}

/// The clusters by the names of their objects: one that is damaged must not keep its stanza from going.
fn clusters(
    repository: &Repository,
    stanza: &Stanza,
) -> Result<BTreeMap<SystemIdentifier, Option<Cluster>>, StanzaError> {
    let folder = repository.store().folder(Some(&layout::clusters(stanza)?))?;
    let systems: BTreeSet<SystemIdentifier> =
        folder.objects.iter().filter_map(|object| object.key.file_name().parse().ok()).collect();
    let mut clusters = BTreeMap::new();
    for system in systems {
        let cluster = match repository.cluster(stanza, system) {
            Err(RepoError::Store(error)) => return Err(error.into()),
            other => other.ok().flatten(),
        };
        clusters.insert(system, cluster);
    }
    Ok(clusters)
}
