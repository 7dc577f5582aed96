//! The catalog: which backups there are. One listing is the whole state; there is no index to update.
//!
//! A backup *exists* when its outcome is committed and it is not retired. The names are create-only, so
//! each step has one winner, whoever else is at work and however late a request arrives.

use super::error::RepoError;
use super::layout::{self, CatalogName};
use super::record::{Aborted, Outcome, Record, Retired, Started, Uses};
use super::repository::{Repository, json_part};
use crate::env::Env;
use crate::units::{BackupId, NoteId, Stanza};
use std::collections::BTreeMap;
use std::fmt;

/// What the listing shows of one backup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CatalogEntry {
    /// It was begun.
    pub started: bool,
    /// It was committed or aborted; only reading the object tells which.
    pub outcome: bool,
    /// It was given up.
    pub retired: bool,
    /// What was noted on it later, in no particular order; [`Repository::read_notes`] reads them.
    pub notes: Vec<NoteId>,
}

/// Every backup of a stanza by id, in order of time, and names that this version does not know.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// The backups.
    pub entries: BTreeMap<BackupId, CatalogEntry>,
    /// Names that are none of ours: left alone, and a reason to delete nothing.
    pub strangers: Vec<String>,
}

impl Catalog {
    /// Backups that have an outcome and are not retired: what may exist.
    pub fn candidates(&self) -> impl DoubleEndedIterator<Item = &BackupId> {
        self.entries.iter().filter(|(_, entry)| entry.outcome && !entry.retired).map(|(id, _)| id)
    }

    /// Backups that were begun, have no outcome and are not retired: being taken now, or interrupted.
    pub fn open(&self) -> impl DoubleEndedIterator<Item = &BackupId> {
        self.entries.iter().filter(|(_, e)| e.started && !e.outcome && !e.retired).map(|(id, _)| id)
    }
}

/// Why a backup could not be committed.
#[derive(Debug)]
pub enum CommitError {
    /// Another process declared it aborted first (`expire` does that to what looks stuck).
    Aborted(Aborted),
    /// It was retired before it was reported.
    Retired,
    /// The repository's trouble. Whether the backup exists is not known; `info` will tell.
    Repo(RepoError),
}

impl fmt::Display for CommitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Aborted(aborted) => {
                write!(f, "the backup was declared aborted by another process: {}", aborted.why)
            }
            Self::Retired => f.write_str("the backup was removed by another process before it was finished"),
            Self::Repo(error) => fmt::Display::fmt(error, f),
        }
    }
}

impl std::error::Error for CommitError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Repo(error) => error.source(),
            _ => None,
        }
    }
}

impl From<RepoError> for CommitError {
    fn from(error: RepoError) -> Self {
        Self::Repo(error)
    }
}

/// Why a backup could not be begun.
#[derive(Debug)]
pub enum BeginError {
    /// A backup that it was to build on was given up meanwhile. It is aborted; begin another under a new id.
    ParentRetired(BackupId),
    /// The repository's trouble. Nothing is listed.
    Repo(RepoError),
}

impl fmt::Display for BeginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ParentRetired(parent) => {
                write!(f, "backup {parent}, which it was to build on, was removed meanwhile")
            }
            Self::Repo(error) => fmt::Display::fmt(error, f),
        }
    }
}

impl std::error::Error for BeginError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Repo(error) => error.source(),
            Self::ParentRetired(_) => None,
        }
    }
}

impl From<RepoError> for BeginError {
    fn from(error: RepoError) -> Self {
        Self::Repo(error)
    }
}

/// What came of declaring an open backup aborted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GivenUp {
    /// It never will exist: by us, by somebody else, or by itself.
    Aborted,
    /// It was committed first, and exists.
    Committed,
    /// It was committed, retired and cleared away.
    Gone,
}

/// A backup that is being taken: `started` is written, nothing lists it.
///
/// Dropped without [`Draft::commit`] or [`Draft::abort`], as by a crash, it stays open: no command shows it
/// as a backup, and `expire` clears it away one day.
#[derive(Debug)]
pub struct Draft {
    repository: Repository,
    stanza: Stanza,
    id: BackupId,
    writer: String,
}

impl Draft {
    /// The backup's id.
    #[must_use]
    pub const fn id(&self) -> &BackupId {
        &self.id
    }

    /// The stanza.
    #[must_use]
    pub const fn stanza(&self) -> &Stanza {
        &self.stanza
    }

    /// The repository it is written to.
    #[must_use]
    pub const fn repository(&self) -> &Repository {
        &self.repository
    }

    /// What `started` and the record name as their writer.
    #[must_use]
    pub fn writer(&self) -> &str {
        &self.writer
    }

    /// Makes the backup exist.
    ///
    /// After `Ok` it is listed and restores alone. After [`CommitError::Aborted`] or
    /// [`CommitError::Retired`] it never will be. After another error it may or may not exist, complete.
    ///
    /// # Errors
    /// See [`CommitError`].
    pub fn commit(self, record: &Record, uses: &Uses, env: &dyn Env) -> Result<(), CommitError> {
        self.win_the_outcome(record, uses, env)?;
        // Whoever retired it may be deleting it already: to be told is better than to count on it.
        if self.repository.is_retired(&self.stanza, &self.id)? { Err(CommitError::Retired) } else { Ok(()) }
    }

    /// Commits a backup without looking whether it was retired meanwhile: for the test that shows why one has to.
    #[cfg(test)]
    pub(crate) fn commit_without_looking(
        self,
        record: &Record,
        uses: &Uses,
        env: &dyn Env,
    ) -> Result<(), CommitError> {
        self.win_the_outcome(record, uses, env)
    }

    fn win_the_outcome(&self, record: &Record, uses: &Uses, env: &dyn Env) -> Result<(), CommitError> {
        let place = layout::outcome(&self.stanza, &self.id).map_err(RepoError::from)?;
        let outcome = Outcome::Committed(Box::new(record.clone()));
        let json = serde_json::to_vec_pretty(&outcome)
            .map_err(|_| RepoError::TooLarge { what: "the backup's record".to_owned() })?;
        // COMMIT POINT: one name, one winner.
        match self.repository.create_parts(&place, &[&json, &uses.encode()], Vec::new(), env) {
            Ok(_) => Ok(()),
            Err(RepoError::Conflict { .. }) => {
                match self.repository.read_outcome(&self.stanza, &self.id) {
                    // A reply was lost and a retry encoded anew: the writer settles it.
                    Ok((Outcome::Committed(held), _)) if held.writer == self.writer => Ok(()),
                    Ok((Outcome::Committed(_), _)) => Err(RepoError::Conflict { object: place.key }.into()),
                    Ok((Outcome::Aborted(aborted), _)) => Err(CommitError::Aborted(aborted)),
                    // Retired and cleared away between the two calls, which whoever commits looks for next.
                    Err(RepoError::Missing { .. }) => Ok(()),
                    Err(error) => Err(error.into()),
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Says that the backup will never exist. Losing this race to a commit is not an error.
    ///
    /// # Errors
    /// The repository's trouble; the backup then stays open, which is harmless.
    pub fn abort(self, why: &str, env: &dyn Env) -> Result<(), RepoError> {
        let aborted = Aborted { why: why.to_owned(), writer: self.writer.clone() };
        self.repository.give_up(&self.stanza, &self.id, &aborted, env).map(|_| ())
    }
}

impl Repository {
    /// Lists the catalog.
    ///
    /// # Errors
    /// The store's trouble.
    pub fn catalog(&self, stanza: &Stanza) -> Result<Catalog, RepoError> {
        let mut catalog = Catalog::default();
        self.store().list(&layout::catalog(stanza)?, &mut |listed| match layout::catalog_name(
            listed.key.file_name(),
        ) {
            Some((id, what)) => {
                let entry = catalog.entries.entry(id).or_default();
                match what {
                    CatalogName::Started => entry.started = true,
                    CatalogName::Outcome => entry.outcome = true,
                    CatalogName::Retired => entry.retired = true,
                    CatalogName::Note(note) => entry.notes.push(note),
                }
            }
            None => catalog.strangers.push(listed.key.to_string()),
        })?;
        Ok(catalog)
    }

    /// Reads whether a backup was committed or aborted, and what a committed one uses.
    ///
    /// # Errors
    /// [`RepoError::Missing`] when it has no outcome, damage, or the store's trouble.
    pub fn read_outcome(&self, stanza: &Stanza, id: &BackupId) -> Result<(Outcome, Uses), RepoError> {
        let place = layout::outcome(stanza, id)?;
        let (parts, _) = self.read_parts(&place)?;
        let outcome: Outcome = json_part(&place, parts.first())?;
        let Outcome::Committed(record) = &outcome else { return Ok((outcome, Uses::default())) };
        if record.backup_id != *id {
            return Err(RepoError::damaged(&place.key, "it is the record of another backup"));
        }
        let uses = parts
            .get(1)
            .and_then(|part| Uses::decode(part).ok())
            .ok_or_else(|| RepoError::damaged(&place.key, "its list of packs does not follow the format"))?;
        Ok((outcome, uses))
    }

    /// Reads what `started` says.
    ///
    /// # Errors
    /// As [`Repository::read_json`].
    pub fn read_started(&self, stanza: &Stanza, id: &BackupId) -> Result<Started, RepoError> {
        self.read_json(&layout::started(stanza, id)?)
    }

    /// Whether a backup was given up. One small read.
    ///
    /// # Errors
    /// The store's trouble.
    pub fn is_retired(&self, stanza: &Stanza, id: &BackupId) -> Result<bool, RepoError> {
        Ok(self.store().size(&layout::retired(stanza, id)?.key)?.is_some())
    }

    /// Reads by whom, when and why a backup was given up.
    ///
    /// # Errors
    /// As [`Repository::read_json`].
    pub fn read_retired(&self, stanza: &Stanza, id: &BackupId) -> Result<Retired, RepoError> {
        self.read_json(&layout::retired(stanza, id)?)
    }

    /// Gives a backup up: from here on it does not exist, and nothing can build on it. False when it was given
    /// up before. The name stays for ever, so that no id is used twice.
    ///
    /// # Errors
    /// The repository's trouble; the backup may or may not be retired then, and asking again is safe.
    pub fn retire(
        &self,
        stanza: &Stanza,
        id: &BackupId,
        retired: &Retired,
        env: &dyn Env,
    ) -> Result<bool, RepoError> {
        // COMMIT POINT of a removal.
        match self.create_json(&layout::retired(stanza, id)?, retired, env) {
            Ok(_) => Ok(true),
            Err(RepoError::Conflict { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Declares an open backup aborted, unless it has an outcome already.
    ///
    /// # Errors
    /// The repository's trouble; asking again is safe.
    pub fn give_up(
        &self,
        stanza: &Stanza,
        id: &BackupId,
        aborted: &Aborted,
        env: &dyn Env,
    ) -> Result<GivenUp, RepoError> {
        let place = layout::outcome(stanza, id)?;
        match self.create_json(&place, &Outcome::Aborted(aborted.clone()), env) {
            Ok(_) => Ok(GivenUp::Aborted),
            Err(RepoError::Conflict { .. }) => match self.read_outcome(stanza, id) {
                Ok((Outcome::Aborted(_), _)) => Ok(GivenUp::Aborted),
                Ok((Outcome::Committed(_), _)) => Ok(GivenUp::Committed),
                // Aborted outcomes are never deleted: it was a committed one.
                Err(RepoError::Missing { .. }) => Ok(GivenUp::Gone),
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    fn announce(&self, stanza: &Stanza, started: &Started, env: &dyn Env) -> Result<Draft, RepoError> {
        self.create_json(&layout::started(stanza, &started.backup_id)?, started, env)?;
        Ok(Draft {
            repository: self.clone(),
            stanza: stanza.clone(),
            id: started.backup_id.clone(),
            writer: started.writer.clone(),
        })
    }

    /// Begins a backup without looking whether what it builds on was given up: for the test that shows why
    /// one has to.
    #[cfg(test)]
    pub(crate) fn begin_without_looking(
        &self,
        stanza: &Stanza,
        started: &Started,
        env: &dyn Env,
    ) -> Result<Draft, RepoError> {
        self.announce(stanza, started, env)
    }

    /// Begins a backup: writes `started`, *then* makes sure that none of the backups it builds on was given up.
    ///
    /// In this order, because whoever retires a backup lists what was started afterwards: either the retirement
    /// is seen here, or the listing there shows this backup, and what it builds on is kept.
    ///
    /// # Errors
    /// [`BeginError::ParentRetired`]: the backup is aborted; or the repository's trouble. Nothing is listed then.
    pub fn begin_backup(
        &self,
        stanza: &Stanza,
        started: &Started,
        env: &dyn Env,
    ) -> Result<Draft, BeginError> {
        let place = layout::started(stanza, &started.backup_id).map_err(RepoError::from)?;
        let parents = started.builds_on().ok_or_else(|| {
            RepoError::damaged(&place.key, "one of the backups it says it builds on has no valid id")
        })?;
        let draft = self.announce(stanza, started, env)?;
        for parent in parents {
            if self.is_retired(stanza, &parent)? {
                let error = BeginError::ParentRetired(parent);
                // A courtesy: an open backup that nobody goes on with is cleared away as well, only later.
                let _ = draft.abort(&error.to_string(), env);
                return Err(error);
            }
        }
        Ok(draft)
    }
}
