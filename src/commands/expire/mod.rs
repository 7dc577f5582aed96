//! `expire`: removes what retention does not keep. A plan first, which `--dry-run` shows.
//!
//! Each repository is looked at by itself: they may keep different things.

mod json;
mod text;

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests damage files on purpose")]
mod tests;

use super::info::windows::{End, windows};
use super::open::{open_repository, repository_failure};
use super::{Context, Outcome, no_stdout};
use crate::failure::{Class, Failure};
use crate::repo::{RepoError, Repository};
use crate::report::render;
use crate::retention::plan::{Done, Plan, Wanted};
use crate::retention::policy::{Policy, Verdict};
use crate::retention::sweep::Manner;
use crate::retention::{RetentionError, Survey};
use crate::settings::{ExpireSettings, RepositorySettings, RetentionSettings};
use crate::units::{BackupId, Stanza};
use crate::wal::WalError;
use crate::wal::archive::asked::Asked;
use crate::wal::archive::window::Union;
use std::time::Duration;

/// How far back one can go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Back {
    before: Option<Duration>,
    after: Option<Duration>,
}

/// A repository's plan with what it takes to show it.
struct Shown<'a> {
    index: u16,
    place: String,
    retention: RetentionSettings,
    delay: Duration,
    back: Back,
    plan: Plan<'a>,
}

pub(super) fn run(context: &Context<'_>) -> Result<Outcome, Failure> {
    let (settings, report) = (context.settings, context.report);
    let wanted = settings.expire();
    let mut opened = Vec::new();
    let mut failures = Vec::new();
    for repository in settings.repositories()? {
        match open_repository(&repository) {
            Ok(open) => opened.push((repository, open)),
            Err(failure) => failures.push(failure),
        }
    }
    let holders = holders(context, &wanted, &opened, &mut failures)?;
    let mut warned = false;
    let mut documents = Vec::new();
    for (at, asked) in holders {
        let Some((target, repository)) = opened.get(at) else { continue };
        let others: Vec<&Repository> =
            opened.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, one)| &one.1).collect();
        match one(context, &wanted, target, repository, &others, asked) {
            Ok((document, warnings)) => {
                documents.push(document);
                warned |= warnings;
            }
            Err(failure) => failures.push(failure),
        }
    }
    if report.is_json() {
        let document = serde_json::json!({
            "stanza": settings.stanza()?.as_str(),
            "dry_run": wanted.dry_run,
            "repositories": documents,
        });
        report.json(&document).map_err(no_stdout)?;
    }
    match Failure::all(failures) {
        Some(failure) => Err(failure),
        None if warned => Ok(Outcome::DoneWithWarnings),
        None => Ok(Outcome::Done),
    }
}

/// The repositories to look at, by their place in `opened`: all, or those that hold the backup of `--set`.
fn holders(
    context: &Context<'_>,
    wanted: &ExpireSettings,
    opened: &[(RepositorySettings, Repository)],
    failures: &mut Vec<Failure>,
) -> Result<Vec<(usize, Option<BackupId>)>, Failure> {
    let stanza = context.settings.stanza()?;
    let Some(set) = &wanted.set else { return Ok((0..opened.len()).map(|at| (at, None)).collect()) };
    let mut found: Vec<(usize, Option<BackupId>)> = Vec::new();
    for (at, (target, repository)) in opened.iter().enumerate() {
        match repository.catalog(stanza) {
            Ok(catalog) => {
                let fits = catalog.candidates().filter(|id| id.as_str().starts_with(set.as_str()));
                found.extend(fits.map(|id| (at, Some(id.clone()))));
            }
            Err(error) => {
                let what = format!("could not read the catalog of {}", target.name());
                failures.push(repository_failure(error, target, what));
            }
        }
    }
    let mut ids: Vec<&BackupId> = found.iter().filter_map(|(_, id)| id.as_ref()).collect();
    ids.sort();
    ids.dedup();
    match ids.as_slice() {
        [] if failures.is_empty() => Err(no_such(set)),
        [] | [_] => Ok(found),
        more => {
            let failure = Failure::new(Class::Usage, format!("{set} is the beginning of {} ids", more.len()));
            let named =
                more.iter().take(10).fold(failure, |failure, id| failure.because_text(id.to_string()));
            Err(named.next("Give more of the id."))
        }
    }
}

fn no_such(set: &str) -> Failure {
    Failure::new(Class::NoRepository, format!("there is no backup {set}"))
        .next("`walden info` lists the backups; the beginning of an id is enough.")
}

fn one(
    context: &Context<'_>,
    settings: &ExpireSettings,
    target: &RepositorySettings,
    repository: &Repository,
    others: &[&Repository],
    asked: Option<BackupId>,
) -> Result<(serde_json::Value, bool), Failure> {
    let (report, stanza) = (context.report, context.settings.stanza()?);
    let retention = context.settings.retention(target.index);
    let plan = make(context, settings, target, repository, others, asked.clone())?;
    let back = how_far_back(&plan, repository, stanza);
    let shown = Shown {
        index: target.index,
        place: repository.describe(),
        retention,
        delay: settings.delay,
        back,
        plan,
    };
    if !report.is_json() {
        let mut text = text::plan(&shown);
        if settings.dry_run {
            text.push_str("Nothing was changed. Leave out --dry-run to do this.\n");
        }
        report.data(text).map_err(no_stdout)?;
    }
    let mut document = json::plan(&shown);
    let mut warned = false;
    if shown.plan.leaves_none() && asked.is_some() {
        warned = true;
        report.warn(format!(
            "{} is the last backup in {}: without it nothing can be restored from there",
            asked.map(|id| id.to_string()).unwrap_or_default(),
            target.name()
        ));
    }
    if !settings.dry_run {
        let done = act(context, settings, target, shown.plan)?;
        warned |= tell(context, target, &done);
        json::add_done(&mut document, &done);
    }
    Ok((document, warned))
}

/// After a backup: on the repository it was written to, and only if a retention is set there. True when there is
/// something to read.
pub(super) fn after_backup(
    context: &Context<'_>,
    target: &RepositorySettings,
    repository: &Repository,
) -> bool {
    let report = context.report;
    let retention = context.settings.retention(target.index);
    if policy(retention).is_none() {
        report.detail(format!("no retention is set for {}: nothing is removed", target.name()));
        return false;
    }
    let settings = ExpireSettings { set: None, dry_run: false, ..context.settings.expire() };
    let others: Vec<Repository> = context
        .settings
        .all_repositories()
        .unwrap_or_default()
        .iter()
        .filter(|other| other.index != target.index)
        .filter_map(|other| open_repository(other).ok())
        .collect();
    let others: Vec<&Repository> = others.iter().collect();
    let ended = make(context, &settings, target, repository, &others, None)
        .and_then(|plan| act(context, &settings, target, plan));
    match ended {
        Ok(done) => tell(context, target, &done),
        Err(failure) => {
            report.warn(format!("the backup is good, but {}", failure.one_line()));
            report.warn("next: Run `walden expire`: it says more.");
            true
        }
    }
}

const fn policy(retention: RetentionSettings) -> Policy {
    Policy { full: retention.full, window: retention.window }
}

fn make<'a>(
    context: &Context<'a>,
    settings: &ExpireSettings,
    target: &RepositorySettings,
    repository: &'a Repository,
    others: &[&Repository],
    asked: Option<BackupId>,
) -> Result<Plan<'a>, Failure> {
    let stanza = context.settings.stanza()?;
    let clusters = repository.clusters(stanza);
    if matches!(&clusters, Ok(none) if none.is_empty()) {
        return Err(Failure::new(
            Class::NoRepository,
            format!("cannot expire: {} has no stanza {stanza}", target.name()),
        )
        .because_text(format!("{} holds no cluster under that name", repository.describe())));
    }
    let wanted = Wanted {
        policy: policy(context.settings.retention(target.index)),
        asked,
        delay: settings.delay,
        give_up_after: settings.stuck_after,
        by: "walden expire",
    };
    let now = context.env.now();
    let mut survey = Survey::read(repository, stanza, wanted.asked.as_ref(), settings.delay, now)
        .map_err(|error| failure(error, target, settings))?;
    for other in others {
        // A repository that cannot be read now was told of by whoever pinned.
        if let Err(error) = survey.add_pins_of(other) {
            context.report.detail(format!("pins in {} were not read: {error}", other.describe()));
        }
    }
    Plan::make(survey, wanted).map_err(|error| failure(error, target, settings))
}

fn act(
    context: &Context<'_>,
    settings: &ExpireSettings,
    target: &RepositorySettings,
    plan: Plan<'_>,
) -> Result<Done, Failure> {
    let manner = Manner { workers: settings.process_max, stop: context.stop.clone() };
    plan.execute(context.env, &manner).map_err(|error| failure(error, target, settings))
}

/// Says what was done. True when there is something to read.
fn tell(context: &Context<'_>, target: &RepositorySettings, done: &Done) -> bool {
    let report = context.report;
    for line in text::done(done, &target.name()) {
        report.info(line);
    }
    let mut warned = false;
    for id in &done.pinned {
        warned = true;
        report.warn(format!("backup {id} was pinned meanwhile and stays"));
    }
    for key in &done.swept.strangers {
        warned = true;
        report.warn(format!("{key} is nothing that this version of walden stores; it is left alone"));
    }
    if let Some((key, why)) = &done.swept.refused {
        warned = true;
        report.warn(format!("{} does not let walden delete {key}: {why}", target.name()));
        report.warn(
            "nothing is lost: what was to go is out of every list, and what it stored stays until `walden expire` \
             runs with credentials that may delete",
        );
    }
    warned
}

/// How far back one can go now, and when all that goes has gone.
fn how_far_back(plan: &Plan<'_>, repository: &Repository, stanza: &Stanza) -> Back {
    let mut back = Back { before: None, after: None };
    let repositories = [repository];
    for (cluster, archive) in &plan.archives {
        // Most of what is looked into afterwards was looked into before.
        let mut asked = Asked::new(Union { repositories: &repositories, stanza, system: cluster.system });
        let mut newest = |kept_only: bool| {
            let of_this = plan
                .decisions
                .iter()
                .filter(|one| !kept_only || matches!(one.verdict, Verdict::Keep(_)))
                .filter_map(|one| one.record())
                .filter(|record| record.system_identifier == cluster.system);
            let ends: Vec<End> = of_this.map(End::of).collect();
            let windows = windows(archive, &mut asked, &ends).windows;
            windows.first().and_then(|one| Some(render::between(one.from, one.until_at()?)))
        };
        back = Back { before: back.before.max(newest(false)), after: back.after.max(newest(true)) };
    }
    back
}

fn failure(error: RetentionError, target: &RepositorySettings, settings: &ExpireSettings) -> Failure {
    let name = target.name();
    match error {
        RetentionError::Repo(error) | RetentionError::Wal(WalError::Repo(error)) => {
            repository_failure(error, target, format!("could not expire in {name}"))
                .next("Run `walden expire` again: nothing that is needed was deleted.")
        }
        RetentionError::Wal(error) => {
            Failure::new(Class::Damaged, format!("could not expire in {name}; nothing was deleted"))
                .because(error)
        }
        RetentionError::Unreadable { backup, source } => {
            let what = format!(
                "cannot expire in {name}: what backup {backup} needs is not known, so nothing was deleted"
            );
            let damaged = matches!(source, RepoError::Damaged { .. });
            let failure = repository_failure(source, target, what);
            if damaged {
                failure.next(format!(
                    "If no other repository has it whole, remove it: `walden expire --set={backup}`."
                ))
            } else {
                failure
            }
        }
        RetentionError::Strangers(_) => {
            Failure::new(Class::Damaged, format!("cannot expire in {name}; nothing was deleted"))
                .because(error)
                .next("If a newer walden writes to this repository, expire with that one.")
        }
        RetentionError::ParentGone { .. } => {
            Failure::new(Class::Damaged, format!("cannot expire in {name}; nothing was deleted"))
                .because(error)
                .next(format!(
                    "Wait: it is given up {} after it began (expire-stuck-after).",
                    render::duration(settings.stuck_after)
                ))
        }
        RetentionError::NoSuchBackup(id) => no_such(id.as_str()),
        RetentionError::Pinned(ref id, _) => {
            let next = format!("`walden unpin --set={id}` lets it go.");
            Failure::new(Class::Usage, format!("cannot remove backup {id}: it is pinned"))
                .because(error)
                .next(next)
        }
        RetentionError::Interrupted => Failure::new(
            Class::Interrupted,
            format!("expire was interrupted in {name}; nothing that is needed was deleted"),
        ),
    }
}
