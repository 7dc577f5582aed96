//! `verify`: is everything that is stored what was stored?
//!
//! Each repository is judged by itself: a good copy elsewhere does not make a damaged one good.

mod json;
mod text;

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests damage files on purpose")]
mod tests;

use super::open::{open_repository, repository_failure};
use super::{Context, Outcome, no_stdout};
use crate::failure::{Class, Failure};
use crate::repo::Repository;
use crate::report::{Phase as Shown, Report};
use crate::settings::RepositorySettings;
use crate::units::{BackupId, ByteCount, Stanza};
use crate::verify::{
    Findings, Observer, Phase, Request, Scope, Verdict, Verified, VerifyError, Wrong, verify,
};
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// What came of one repository.
struct Judged {
    settings: RepositorySettings,
    place: String,
    /// What was found, or why nothing could be said.
    result: Result<Verified, Failure>,
}

/// What came of the run.
struct Verification {
    stanza: Stanza,
    /// What was asked for, beside everything.
    asked: Option<String>,
    judged: Vec<Judged>,
    took: std::time::Duration,
}

pub(super) fn run(context: &Context<'_>) -> Result<Outcome, Failure> {
    let verification = judge(context)?;
    if context.report.is_json() {
        context.report.json(&json::document(&verification)).map_err(no_stdout)?;
    } else {
        context.report.data(text::screen(&verification)).map_err(no_stdout)?;
    }
    verdict(verification)
}

fn judge(context: &Context<'_>) -> Result<Verification, Failure> {
    let begun = std::time::Instant::now();
    let stanza = context.settings.stanza()?.clone();
    let wanted = context.settings.verify()?;
    let mut opened: Vec<(RepositorySettings, String, Result<Repository, Failure>)> = Vec::new();
    for settings in context.settings.repositories()? {
        let place = super::info::place_of(&settings);
        let repository = open_repository(&settings);
        opened.push((settings, place, repository));
    }
    if opened.iter().all(|(_, _, repository)| repository.is_err()) {
        let failures = opened.into_iter().filter_map(|(_, _, repository)| repository.err()).collect();
        return Err(Failure::all(failures)
            .unwrap_or_else(|| Failure::new(Class::Usage, "no repository is configured")));
    }
    let (scope, asked) = match (&wanted.set, wanted.wal) {
        (Some(set), _) => {
            let id = named(&opened, &stanza, set)?;
            (Scope::Backup(id.clone()), Some(format!("backup {id}")))
        }
        (None, Some((first, last))) if first == last => {
            (Scope::Wal(first, last), Some(format!("WAL segment {first}")))
        }
        (None, Some((first, last))) => {
            (Scope::Wal(first, last), Some(format!("WAL segments {first} … {last}")))
        }
        (None, None) => (Scope::Everything, None),
    };
    let mut judged = Vec::new();
    for (settings, place, repository) in opened {
        let result = repository.and_then(|repository| {
            let request = Request {
                repository: &repository,
                stanza: &stanza,
                scope: scope.clone(),
                workers: wanted.process_max,
                max_rate: wanted.max_rate,
                spool: wanted.spool_path.clone(),
            };
            let observer = Progress::new(context, &settings);
            let result = verify(&request, context.env, &observer);
            observer.end();
            result.map_err(|error| failure(error, &settings))
        });
        judged.push(Judged { settings, place, result });
    }
    let took = begun.elapsed();
    Ok(Verification { stanza, asked, judged, took })
}

/// The backup that `set` begins, by the names in the catalogs: its record may be what is damaged.
fn named(
    opened: &[(RepositorySettings, String, Result<Repository, Failure>)],
    stanza: &Stanza,
    set: &str,
) -> Result<BackupId, Failure> {
    let mut ids = BTreeSet::new();
    for (settings, _, repository) in opened {
        let Ok(repository) = repository else { continue };
        let catalog = repository.catalog(stanza).map_err(|error| {
            repository_failure(error, settings, format!("could not read the catalog of {}", settings.name()))
        })?;
        ids.extend(catalog.candidates().filter(|id| id.as_str().starts_with(set)).cloned());
    }
    super::set::only_one(ids, set)
}

fn failure(error: VerifyError, settings: &RepositorySettings) -> Failure {
    let what = format!("could not verify {}", settings.name());
    match error {
        VerifyError::Repo(error) => repository_failure(error, settings, what),
        VerifyError::Spool(_) => Failure::new(Class::LocalFileSystem, what)
            .because(error)
            .next("Check that spool-path has space and may be written."),
        VerifyError::Resources(_) => Failure::new(Class::LocalFileSystem, what).because(error),
        VerifyError::Stopped => Failure::new(Class::Interrupted, what).because(error),
    }
}

/// Exit 0 only if all that was asked for was read and is good.
fn verdict(verification: Verification) -> Result<Outcome, Failure> {
    let (mut damaged, mut missing, mut unchecked) = (false, false, false);
    let mut nothing = true;
    let mut failures = Vec::new();
    for one in verification.judged {
        match one.result {
            Ok(verified) => {
                nothing &= verified.backups.is_empty() && verified.timelines.is_empty();
                for problem in all(&verified).flat_map(Findings::problems) {
                    match problem.wrong {
                        Wrong::Damaged => damaged = true,
                        Wrong::Missing => missing = true,
                        Wrong::NotChecked => unchecked = true,
                    }
                }
            }
            Err(failure) => failures.push(failure),
        }
    }
    let stanza = &verification.stanza;
    if damaged {
        return Err(Failure::new(Class::Damaged, "stored data is damaged")
            .because_text("the list above names each object and what lies in it")
            .next("Take a new backup now, and find out what that storage is doing.")
            .next("Do not delete anything by hand: what is not named is good."));
    }
    if missing {
        return Err(Failure::new(Class::WalMissing, "something that is needed is missing")
            .because_text("the list above names it")
            .next("Take a new backup now: from its start on nothing of what is missing is needed."));
    }
    if let Some(failure) = Failure::all(failures) {
        return Err(failure);
    }
    if unchecked {
        return Err(Failure::new(Class::StorageUnavailable, "could not check everything")
            .because_text("the list above names what could not be read, and why")
            .next("Verify again when the storage answers."));
    }
    if nothing {
        return Err(Failure::new(
            Class::NoRepository,
            format!("there is nothing of stanza {stanza} to verify"),
        )
        .next("`walden info` shows what there is."));
    }
    Ok(Outcome::Done)
}

/// Everything that was found wrong.
fn all(verified: &Verified) -> impl Iterator<Item = &Findings> {
    let backups = verified.backups.iter().map(|one| &one.findings);
    backups.chain(verified.timelines.iter().map(|one| &one.findings)).chain([&verified.general])
}

/// The verdict of one repository, in one word.
fn overall(one: &Judged) -> Verdict {
    one.result.as_ref().map_or(Verdict::NotChecked, Verified::verdict)
}

/// Tells what is going on.
struct Progress<'c> {
    report: &'c Report,
    stop: &'c crate::pipeline::StopFlag,
    name: String,
    shown: Mutex<Option<Shown<'c>>>,
}

impl<'c> Progress<'c> {
    fn new(context: &'c Context<'c>, settings: &RepositorySettings) -> Self {
        Self { report: context.report, stop: &context.stop, name: settings.name(), shown: Mutex::new(None) }
    }

    fn end(&self) {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

impl Observer for Progress<'_> {
    fn interrupted(&self) -> bool {
        self.stop.is_requested()
    }

    fn read(&self, bytes: u64) {
        if let Some(shown) = &*self.shown.lock().unwrap_or_else(PoisonError::into_inner) {
            shown.add(ByteCount::new(bytes));
        }
    }

    fn phase(&self, phase: Phase, total: Option<ByteCount>) {
        let name = match phase {
            Phase::Catalog => "catalog",
            Phase::Packs => "data",
            Phase::Maps => "maps",
            Phase::Wal => "WAL",
        };
        self.end();
        let shown = self.report.phase(&format!("{} {name}", self.name), total);
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = Some(shown);
    }
}
