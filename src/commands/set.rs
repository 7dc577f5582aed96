//! `--set`: a backup by its id or the beginning of one, in all repositories of the run.

use super::open::{open_repository, repository_failure};
use crate::failure::{Class, Failure};
use crate::repo::Repository;
use crate::repo::catalog::CatalogEntry;
use crate::repo::record::{Outcome, Record};
use crate::settings::{RepositorySettings, Settings};
use crate::units::{BackupId, Stanza};
use std::collections::{BTreeMap, BTreeSet};

/// A repository that holds the backup.
pub(super) struct Holder {
    pub settings: RepositorySettings,
    pub repository: Repository,
    /// What its catalog says of the backup.
    pub entry: CatalogEntry,
    pub record: Record,
}

/// The backup that `--set` means.
pub(super) struct Found {
    pub id: BackupId,
    /// At least one.
    pub holders: Vec<Holder>,
    /// Repositories that could not be looked into.
    pub failures: Vec<Failure>,
}

/// Looks for the backup whose id begins with `set`.
///
/// # Errors
/// When there is none, or more than one; when there is none and a repository could not be looked into, that
/// one's failure.
pub(super) fn find(settings: &Settings, stanza: &Stanza, set: &str) -> Result<Found, Failure> {
    let mut failures = Vec::new();
    let mut found: BTreeMap<BackupId, Vec<Holder>> = BTreeMap::new();
    for settings in settings.repositories()? {
        let mut look = || -> Result<(), Failure> {
            let repository = open_repository(&settings)?;
            let could_not = |error| {
                let what = format!("could not read the catalog of {}", settings.name());
                repository_failure(error, &settings, what)
            };
            let catalog = repository.catalog(stanza).map_err(could_not)?;
            for id in catalog.candidates().filter(|id| id.as_str().starts_with(set)) {
                let (outcome, _) = repository.read_outcome(stanza, id).map_err(could_not)?;
                let Outcome::Committed(record) = outcome else { continue };
                let entry = catalog.entries.get(id).cloned().unwrap_or_default();
                let (settings, repository) = (settings.clone(), repository.clone());
                found.entry(id.clone()).or_default().push(Holder {
                    settings,
                    repository,
                    entry,
                    record: *record,
                });
            }
            Ok(())
        };
        if let Err(failure) = look() {
            failures.push(failure);
        }
    }
    if found.is_empty() {
        return Err(failures.into_iter().next().unwrap_or_else(|| no_such(set)));
    }
    let id = only_one(found.keys().cloned().collect(), set)?;
    let holders = found.remove(&id).unwrap_or_default();
    Ok(Found { id, holders, failures })
}

/// The only one of `ids`, which all begin with `set`.
///
/// # Errors
/// When there is none, or more than one.
pub(super) fn only_one(mut ids: BTreeSet<BackupId>, set: &str) -> Result<BackupId, Failure> {
    match (ids.len(), ids.pop_first()) {
        (1, Some(id)) => Ok(id),
        (more, Some(first)) => {
            let failure = Failure::new(Class::Usage, format!("{set} is the beginning of {more} ids"));
            let all = std::iter::once(first).chain(ids).take(10);
            let named = all.fold(failure, |failure, id| failure.because_text(id.to_string()));
            Err(named.next("Give more of the id."))
        }
        _ => Err(no_such(set)),
    }
}

fn no_such(set: &str) -> Failure {
    Failure::new(Class::NoRepository, format!("there is no backup {set}"))
        .next("`walden info` lists the backups; the beginning of an id is enough.")
}
