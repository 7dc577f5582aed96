//! Reading the catalog's objects, each once: what they say never changes.

use super::error::RetentionError;
use crate::repo::record::{Outcome, Record, Started};
use crate::repo::{RepoError, Repository};
use crate::units::{BackupId, Stanza, Timestamp};
use crate::wal::archive::runs::Runs;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A committed backup.
#[derive(Clone, Debug)]
pub struct Held {
    /// Its record, without the lists that only people look at.
    pub record: Record,
    /// The packs it needs, by the backup that stored them. Whoever stands here keeps all its map objects; the
    /// backup itself always does.
    pub needs: BTreeMap<BackupId, Runs>,
}

/// What became of a backup.
#[derive(Clone, Debug)]
pub enum Fate {
    /// Its record was written.
    Committed(Arc<Held>),
    /// It never will exist.
    Aborted,
}

/// Reads outcomes and starts, and remembers them.
#[derive(Debug)]
pub struct Reader<'a> {
    repository: &'a Repository,
    stanza: &'a Stanza,
    fates: BTreeMap<BackupId, Fate>,
    started: BTreeMap<BackupId, Arc<Started>>,
    retired: BTreeMap<BackupId, Timestamp>,
}

impl<'a> Reader<'a> {
    pub fn new(repository: &'a Repository, stanza: &'a Stanza) -> Self {
        Self {
            repository,
            stanza,
            fates: BTreeMap::new(),
            started: BTreeMap::new(),
            retired: BTreeMap::new(),
        }
    }

    pub const fn repository(&self) -> &'a Repository {
        self.repository
    }

    pub const fn stanza(&self) -> &'a Stanza {
        self.stanza
    }

    /// What became of a backup that has an outcome; `None` when that is not there any more.
    pub fn fate(&mut self, id: &BackupId) -> Result<Option<Fate>, RetentionError> {
        if let Some(fate) = self.fates.get(id) {
            return Ok(Some(fate.clone()));
        }
        let fate = match self.repository.read_outcome(self.stanza, id) {
            Ok((Outcome::Committed(record), uses)) => {
                let mut record = *record;
                record.seen = Vec::new();
                record.page_checksums.failures = Vec::new();
                record.backup_label = String::new();
                let mut needs = BTreeMap::from([(id.clone(), Runs::EMPTY)]);
                for (owner, packs) in uses.0 {
                    let numbers = packs.iter().map(|pack| pack.number.into()).collect();
                    needs.insert(owner, Runs::from_numbers(numbers));
                }
                Fate::Committed(Arc::new(Held { record, needs }))
            }
            Ok((Outcome::Aborted(_), _)) => Fate::Aborted,
            Err(RepoError::Missing { .. }) => return Ok(None),
            Err(source) => return Err(RetentionError::Unreadable { backup: id.clone(), source }),
        };
        self.fates.insert(id.clone(), fate.clone());
        Ok(Some(fate))
    }

    /// What an open backup said when it began; `None` when that is not there any more.
    pub fn started(&mut self, id: &BackupId) -> Result<Option<Arc<Started>>, RetentionError> {
        if let Some(started) = self.started.get(id) {
            return Ok(Some(Arc::clone(started)));
        }
        match self.repository.read_started(self.stanza, id) {
            Ok(started) => {
                let started = Arc::new(started);
                self.started.insert(id.clone(), Arc::clone(&started));
                Ok(Some(started))
            }
            Err(RepoError::Missing { .. }) => Ok(None),
            Err(source) => Err(RetentionError::Unreadable { backup: id.clone(), source }),
        }
    }

    /// When a backup was given up, by the clock of whoever did; `None` when that cannot be read, which only
    /// means that its data stays.
    pub fn retired_at(&mut self, id: &BackupId) -> Result<Option<Timestamp>, RetentionError> {
        if let Some(at) = self.retired.get(id) {
            return Ok(Some(*at));
        }
        match self.repository.read_retired(self.stanza, id) {
            Ok(retired) => {
                self.retired.insert(id.clone(), retired.retired_at_unix_us);
                Ok(Some(retired.retired_at_unix_us))
            }
            Err(RepoError::Store(error)) => Err(error.into()),
            Err(_) => Ok(None),
        }
    }
}
