//! `stanza-delete`: all of a stanza goes. A plan first; `--yes` does it.
//!
//! Every repository is looked at before any is changed. The stanza must be stopped on this host, so that its
//! `archive_command` and cron's backups do not go on into what is being deleted.

use super::open::{open_repository, repository_failure};
use super::{Context, Outcome, no_stdout, stop};
use crate::failure::{Class, Failure};
use crate::repo::Repository;
use crate::report::render::{count, utc};
use crate::retention::RetentionError;
use crate::retention::stanza::{StanzaError, StanzaGone, StanzaPlan};
use crate::retention::survey::Pinned;
use crate::retention::sweep::Manner;
use crate::settings::{RepositorySettings, StanzaDeleteSettings};
use crate::units::Stanza;
use serde_json::json;
use std::fmt::Write as _;

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "what tests write need not outlive a crash")]
mod tests;

pub(super) fn run(context: &Context<'_>) -> Result<Outcome, Failure> {
    let (settings, report) = (context.settings, context.report);
    let stanza = settings.stanza()?;
    let wanted = settings.stanza_delete();
    let mut opened = Vec::new();
    for target in settings.repositories()? {
        let repository = open_repository(&target)?;
        opened.push((target, repository));
    }
    let mut plans = Vec::new();
    for (target, repository) in &opened {
        let plan = StanzaPlan::make(repository, stanza, context.env.now())
            .map_err(|error| failure(error, target, stanza))?;
        plans.push((target, repository, plan));
    }
    let nothing = plans.iter().all(|(_, _, plan)| plan.is_empty());
    if nothing {
        return Err(no_stanza(stanza, &opened));
    }
    // After the look: a deletion that had just ended took the stop file along, and "stop it first" would
    // mislead whoever runs the same again.
    if !wanted.dry_run {
        require_stopped(context, stanza)?;
    }
    let mut documents: Vec<serde_json::Value> =
        plans.iter().map(|(target, repository, plan)| as_json(target, repository, plan)).collect();
    if !report.is_json() {
        let text: String =
            plans.iter().map(|(target, repository, plan)| text(target, repository, plan, stanza)).collect();
        report.data(text).map_err(no_stdout)?;
    }
    let pinned = plans.iter().any(|(_, _, plan)| !plan.pinned.is_empty());
    let mut warned = false;
    let refused = if wanted.dry_run {
        None
    } else if pinned && !wanted.force {
        Some(pinned_failure(stanza))
    } else if !wanted.yes {
        Some(
            Failure::new(Class::Usage, format!("cannot delete stanza {stanza} without --yes"))
                .because_text("all that is shown above would be deleted, and cannot be had back")
                .next("If that is meant, run the same with --yes."),
        )
    } else {
        None
    };
    if !wanted.dry_run && refused.is_none() {
        for ((target, _, plan), document) in plans.into_iter().zip(&mut documents) {
            if plan.is_empty() {
                continue;
            }
            let done = act(context, wanted, target, plan, stanza);
            let deleted = matches!(&done, Ok(warned) if !warned);
            document["deleted"] = json!(deleted);
            warned |= done?;
        }
        finish(context, stanza, warned)?;
    } else if wanted.dry_run && !report.is_json() {
        report.data("Nothing was changed.\n").map_err(no_stdout)?;
    }
    if report.is_json() {
        let document =
            json!({ "stanza": stanza.as_str(), "dry_run": wanted.dry_run, "repositories": documents });
        report.json(&document).map_err(no_stdout)?;
    }
    match refused {
        Some(failure) => Err(failure),
        None if warned => Ok(Outcome::DoneWithWarnings),
        None => Ok(Outcome::Done),
    }
}

fn require_stopped(context: &Context<'_>, stanza: &Stanza) -> Result<(), Failure> {
    let refused = || {
        Failure::new(Class::Usage, format!("cannot delete stanza {stanza}: it is not stopped on this host"))
    };
    match stop::look(context.settings, stanza) {
        Ok(found) if found.stopped.is_some() => Ok(()),
        Ok(_) => Err(refused()
            .because_text(format!(
                "there is no {stanza}.stop in {} (lock-path)",
                context.settings.lock_path().display()
            ))
            .next(format!("Run `walden --stanza={stanza} stop`, and the same on every host that uses it."))
            .next("--dry-run shows what would go without that.")),
        Err(error) => Err(refused().because(error).next("Check lock-path.")),
    }
}

fn no_stanza(stanza: &Stanza, opened: &[(RepositorySettings, Repository)]) -> Failure {
    let failure = Failure::new(Class::NoRepository, format!("there is no stanza {stanza} to delete"));
    opened.iter().fold(failure, |failure, (target, repository)| {
        failure.because_text(format!("{} ({}) holds nothing of it", target.name(), repository.describe()))
    })
}

fn pinned_failure(stanza: &Stanza) -> Failure {
    Failure::new(Class::Usage, format!("cannot delete stanza {stanza}: backups of it are pinned"))
        .next(format!("`walden --stanza={stanza} unpin --set=ID` lets one go; --force deletes them all."))
}

/// Deletes from one repository. True when there is something to read.
fn act(
    context: &Context<'_>,
    wanted: StanzaDeleteSettings,
    target: &RepositorySettings,
    plan: StanzaPlan<'_>,
    stanza: &Stanza,
) -> Result<bool, Failure> {
    let report = context.report;
    let manner = Manner { workers: wanted.process_max, stop: context.stop.clone() };
    let StanzaGone { given_up, swept, .. } =
        plan.execute(wanted.force, context.env, &manner).map_err(|error| failure(error, target, stanza))?;
    let name = target.name();
    for id in given_up {
        report.info(format!("{name}: backup {id} was not finished and never will be"));
    }
    report.info(format!(
        "deleted in {name}: {} of data in {} objects, {} of WAL in {} objects",
        swept.data.bytes,
        count(swept.data.objects),
        swept.wal.bytes,
        count(swept.wal.objects)
    ));
    for key in &swept.strangers {
        report.warn(format!("{key} is nothing that this version of walden stores; it is left alone"));
    }
    if let Some((key, why)) = swept.refused {
        report.warn(format!("{name} does not let walden delete {key}: {why}"));
        report.warn(format!(
            "no backup of stanza {stanza} exists any more in {name}, and what they stored lies there still: run the \
             same with credentials that may delete"
        ));
        return Ok(true);
    }
    report.info(format!("{name}: stanza {stanza} is gone"));
    Ok(!swept.strangers.is_empty())
}

/// The stop file goes with the stanza, once no repository holds it.
fn finish(context: &Context<'_>, stanza: &Stanza, warned: bool) -> Result<(), Failure> {
    let (settings, report) = (context.settings, context.report);
    let all = settings.all_repositories()?.len() == settings.repositories()?.len();
    let kept = if warned || !all {
        true
    } else {
        match stop::forget(settings, stanza) {
            Ok(_) => false,
            Err(error) => {
                report.warn(format!("the stop file could not be removed: {error}"));
                true
            }
        }
    };
    if kept {
        report.info(format!("stanza {stanza} stays stopped on this host: `walden --stanza={stanza} start`"));
    }
    Ok(())
}

/// What would go.
fn text(
    target: &RepositorySettings,
    repository: &Repository,
    plan: &StanzaPlan<'_>,
    stanza: &Stanza,
) -> String {
    let mut text = format!("{}  {}\n", target.name(), repository.describe());
    if plan.is_empty() {
        let _ = writeln!(text, "holds no stanza {stanza}");
        return text;
    }
    for (system, cluster) in &plan.clusters {
        let which = cluster.map_or_else(
            || "a cluster whose object cannot be read".to_owned(),
            |cluster| format!("PostgreSQL {}", cluster.major),
        );
        let _ = writeln!(text, "delete  {which}, system {system}");
    }
    let ends = match (plan.backups.first(), plan.backups.last()) {
        (Some(first), Some(last)) if first != last => format!(", {} … {}", first.short(), last.short()),
        (Some(only), _) => format!(", {}", only.short()),
        _ => String::new(),
    };
    let backups = plan.backups.len();
    let _ = writeln!(text, "delete  {backups} backup{}{ends}", if backups == 1 { "" } else { "s" });
    for id in &plan.open {
        let _ = writeln!(text, "give up {}: being taken, or interrupted", id.short());
    }
    if plan.leftovers > 0 {
        let _ =
            writeln!(text, "delete  what is left of {} backups that were removed or aborted", plan.leftovers);
    }
    let _ = writeln!(text, "delete  {} of data in {} objects", plan.data.bytes, count(plan.data.objects));
    let _ = writeln!(
        text,
        "delete  {} of WAL in {} objects, {} segments",
        plan.wal.bytes,
        count(plan.wal.objects),
        count(plan.segments)
    );
    for (id, pin) in &plan.pinned {
        let why = match pin {
            Pinned::By { reason, until } => {
                let until = until.map_or_else(String::new, |until| format!(" until {}", utc(until)));
                let reason = reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
                format!("{until}{reason}")
            }
            Pinned::Unreadable => ": a note on it that may be a pin cannot be read".to_owned(),
        };
        let _ = writeln!(text, "pinned  {}{why}", id.short());
    }
    text
}

fn as_json(target: &RepositorySettings, repository: &Repository, plan: &StanzaPlan<'_>) -> serde_json::Value {
    let ids = |ids: &[crate::units::BackupId]| {
        ids.iter().map(|id| json!(id.as_str())).collect::<Vec<serde_json::Value>>()
    };
    let clusters: Vec<_> = plan
        .clusters
        .iter()
        .map(|(system, cluster)| {
            json!({
                "system_identifier": system.to_string(),
                "postgresql_major": cluster.map(|cluster| cluster.major.as_u16()),
            })
        })
        .collect();
    json!({
        "repository": target.index,
        "place": repository.describe(),
        "clusters": clusters,
        "backups": ids(&plan.backups),
        "pinned": plan.pinned.keys().map(|id| json!(id.as_str())).collect::<Vec<_>>(),
        "open": ids(&plan.open),
        "data_bytes": plan.data.bytes.as_u64(),
        "data_objects": plan.data.objects,
        "wal_bytes": plan.wal.bytes.as_u64(),
        "wal_objects": plan.wal.objects,
        "wal_segments": plan.segments,
        "deleted": false,
    })
}

fn failure(error: StanzaError, target: &RepositorySettings, stanza: &Stanza) -> Failure {
    let name = target.name();
    let what = format!("could not delete stanza {stanza} in {name}");
    let again = "Run the same again: it goes on where it ended.";
    match error {
        StanzaError::Retention(RetentionError::Repo(error)) => {
            repository_failure(error, target, what).next(again)
        }
        StanzaError::Retention(RetentionError::Pinned(..)) => pinned_failure(stanza),
        StanzaError::Retention(RetentionError::Interrupted) => {
            Failure::new(Class::Interrupted, what).because(error).next(again)
        }
        StanzaError::Retention(RetentionError::Strangers(_)) => Failure::new(Class::Damaged, what)
            .because(error)
            .next("If a newer walden writes to this repository, delete the stanza with that one."),
        StanzaError::Retention(_) => Failure::new(Class::Damaged, what).because(error),
        StanzaError::StillBegun(_) => Failure::new(Class::Locked, what)
            .because(error)
            .next(format!("Run `walden --stanza={stanza} stop` on the host that takes them, too."))
            .next(again),
    }
}
