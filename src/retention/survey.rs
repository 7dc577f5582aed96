//! Reading what there is, before anything is decided.

use super::error::RetentionError;
use super::look::{Looked, look};
use super::read::{Held, Reader};
use super::wal::Lineages;
use crate::repo::notes::Notes;
use crate::repo::{Cluster, Repository};
use crate::units::{BackupId, NoteId, Stanza, TimelineId, Timestamp};
use crate::wal::archive::Archive;
use crate::wal::archive::window::Union;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What protects a backup from any policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pinned {
    /// A person did, and perhaps said why and until when.
    By {
        /// In the person's words.
        reason: Option<String>,
        /// When the last of the pins ends; `None`: never.
        until: Option<Timestamp>,
    },
    /// A note on it cannot be read, and may be a pin.
    Unreadable,
}

impl Pinned {
    /// By what is noted on a backup.
    fn by(notes: &Notes, now: Timestamp) -> Option<Self> {
        let holding = notes.holding(now);
        if !holding.is_empty() {
            let forever = holding.iter().any(|one| one.pin.until_unix_us.is_none());
            let until = holding.iter().filter_map(|one| one.pin.until()).max().filter(|_| !forever);
            let reason = holding.iter().rev().find_map(|one| one.pin.reason.clone());
            return Some(Self::By { reason, until });
        }
        notes.unsettled().next().map(|_| Self::Unreadable)
    }
}

/// What protects a backup by the notes of these names.
pub(super) fn pin_of(
    repository: &Repository,
    stanza: &Stanza,
    id: &BackupId,
    notes: &[NoteId],
    now: Timestamp,
) -> Option<Pinned> {
    Pinned::by(&repository.read_notes(stanza, id, notes), now)
}

/// A cluster and its WAL in the repository.
#[derive(Debug)]
pub struct ClusterView {
    /// The cluster.
    pub cluster: Cluster,
    /// Which WAL is there.
    pub archive: Archive,
    pub(super) lineages: Lineages,
}

/// A stanza in one repository at the time of reading.
#[derive(Debug)]
pub struct Survey<'a> {
    pub(super) reader: Reader<'a>,
    /// When it was read.
    pub at: Timestamp,
    /// What the catalog showed.
    pub looked: Looked,
    /// The stanza's clusters.
    pub clusters: Vec<ClusterView>,
    /// What protects backups from any policy.
    pub pinned: BTreeMap<BackupId, Pinned>,
}

impl<'a> Survey<'a> {
    /// Reads everything that decides. `doomed` is about to be removed and need not be readable. `delay` is how long
    /// what was retired stays.
    ///
    /// Two LISTs of the catalog and one of WAL, a read of each record, and a few of histories.
    ///
    /// # Errors
    /// Whatever makes it unsafe to delete anything.
    pub fn read(
        repository: &'a Repository,
        stanza: &'a Stanza,
        doomed: Option<&BackupId>,
        delay: Duration,
        now: Timestamp,
    ) -> Result<Self, RetentionError> {
        let mut reader = Reader::new(repository, stanza);
        let looked = look(&mut reader, &[], doomed, delay, now)?;
        let mut clusters = Vec::new();
        for cluster in repository.clusters(stanza)? {
            clusters.push(read_wal(repository, stanza, cluster, &looked)?);
        }
        let mut pinned = BTreeMap::new();
        for (id, notes) in looked.live.iter().filter(|(_, notes)| !notes.is_empty()) {
            if let Some(pin) = pin_of(repository, stanza, id, notes, now) {
                pinned.insert(id.clone(), pin);
            }
        }
        Ok(Self { reader, at: now, looked, clusters, pinned })
    }

    /// Adds the pins that another repository holds on the same backups: the notes of all of them count.
    ///
    /// # Errors
    /// That repository's trouble.
    pub fn add_pins_of(&mut self, other: &Repository) -> Result<(), RetentionError> {
        let stanza = self.reader.stanza();
        for (id, entry) in other.catalog(stanza)?.entries {
            if self.looked.live.contains_key(&id) && !entry.notes.is_empty() {
                // An unpin that one repository lacks undoes the pin all the same.
                let mut notes = other.read_notes(stanza, &id, &entry.notes);
                let own = self.looked.live.get(&id).map(Vec::as_slice).unwrap_or_default();
                notes.merge(self.reader.repository().read_notes(stanza, &id, own));
                match Pinned::by(&notes, self.at) {
                    Some(pin) => self.pinned.insert(id, pin),
                    None => self.pinned.remove(&id),
                };
            }
        }
        Ok(())
    }

    /// The backups that exist and whose records can be read.
    pub fn live(&self) -> impl Iterator<Item = &Held> {
        let held = self.looked.held.iter().map(AsRef::as_ref);
        held.filter(|held| self.looked.live.contains_key(&held.record.backup_id))
    }

    /// Whether all WAL from a backup's start to its stop is there.
    #[must_use]
    pub fn is_restorable(&self, held: &Held) -> bool {
        let record = &held.record;
        let of_this = |view: &&ClusterView| view.cluster.system == record.system_identifier;
        self.clusters.iter().find(of_this).is_some_and(|view| {
            let lineage = view.lineages.timelines.get(&record.timeline).and_then(Option::as_ref);
            let reach = lineage.and_then(|lineage| view.archive.reach(lineage, record.start_lsn));
            reach.is_some_and(|reach| reach.end >= record.stop_lsn)
        })
    }
}

fn read_wal(
    repository: &Repository,
    stanza: &Stanza,
    cluster: Cluster,
    looked: &Looked,
) -> Result<ClusterView, RetentionError> {
    let repositories = [repository];
    let mut archive = Archive::read(&repositories, stanza, cluster.system, cluster.segment_size);
    if let Some((_, error)) = archive.take_unread().pop() {
        return Err(error.into());
    }
    let union = Union { repositories: &repositories, stanza, system: cluster.system };
    let mut known: BTreeSet<TimelineId> = archive.timelines().collect();
    known.extend(archive.histories().map(|(timeline, _)| timeline));
    let records = looked.held.iter().map(|held| &held.record);
    known.extend(records.filter(|record| record.system_identifier == cluster.system).map(|r| r.timeline));
    let mut timelines = BTreeMap::new();
    for timeline in known {
        timelines.insert(timeline, archive.lineage(union, timeline).map_err(RetentionError::Wal)?);
    }
    Ok(ClusterView { cluster, archive, lineages: Lineages { cluster, timelines } })
}
