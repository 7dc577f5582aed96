//! `expire` for people.

use super::Shown;
use crate::report::render::{Align, Table, ago, count, duration, utc};
use crate::retention::plan::{Decision, Done, Due};
use crate::retention::policy::{Keep, Remove, Verdict};
use crate::retention::survey::Pinned;
use crate::settings::RetentionSettings;
use crate::units::ByteCount;
use std::fmt::Write as _;

/// What would be done and why.
pub(super) fn plan(shown: &Shown<'_>) -> String {
    let (plan, retention) = (&shown.plan, shown.retention);
    let mut text = format!("repo{}  {}\n", shown.index, shown.place);
    if plan.decisions.is_empty() && plan.earlier.is_empty() {
        text.push_str("There is no backup.\n");
    }
    let mut table = Table::new(&[Align::Left, Align::Left, Align::Left, Align::Left]);
    for decision in &plan.decisions {
        let id = decision.id.short().to_owned();
        match &decision.verdict {
            Verdict::Keep(why) => {
                table.row(["keep".into(), id, kept(decision, why, retention), String::new()])
            }
            Verdict::Remove(why) => {
                table.row(["remove".into(), id, removed(decision, *why, retention), frees(decision.frees)]);
            }
        }
    }
    for started in &plan.stuck {
        let began = ago(started.started_at_unix_us, plan.at);
        let id = started.backup_id.short().to_owned();
        table.row(["give up".into(), id, format!("begun {began}, did not end"), String::new()]);
    }
    for started in &plan.open {
        let began = ago(started.started_at_unix_us, plan.at);
        let id = started.backup_id.short().to_owned();
        table.row(["leave".into(), id, format!("begun {began}, being taken or interrupted"), String::new()]);
    }
    for id in &plan.aborted {
        table.row(["clear".into(), id.short().to_owned(), "was aborted".into(), String::new()]);
    }
    for earlier in &plan.earlier {
        let id = earlier.id.short().to_owned();
        let (word, when) = match earlier.due {
            Due::Now => ("delete", "was removed before; its data goes now".to_owned()),
            Due::From(at) => ("wait", format!("was removed before; its data goes from {} on", utc(at))),
            Due::Unknown => ("wait", "was removed before; when cannot be read, so its data stays".to_owned()),
        };
        table.row([word.into(), id, when, frees(earlier.frees)]);
    }
    text.push_str(&table.render());
    for stretch in &plan.wal {
        let what = match stretch.ends {
            Some((first, last)) if first == last => format!("WAL {first}"),
            Some((first, last)) => format!("WAL {first} … {last} ({} segments)", count(stretch.segments)),
            None => "what lies beside finished WAL".to_owned(),
        };
        let _ = writeln!(text, "delete  {what}: no backup needs it  {}", frees(stretch.bytes));
    }
    for system in &plan.without_backup {
        if !plan.decisions.is_empty() || !plan.earlier.is_empty() {
            let _ = writeln!(
                text,
                "keep    WAL of system {system}: no backup of it is left that could tell what is needed"
            );
        }
    }
    if let Some(before) = shown.back.before {
        let after = shown.back.after.map_or_else(|| "nothing".to_owned(), duration);
        let promised =
            retention.window.map_or_else(String::new, |window| format!(" (promised: {})", duration(window)));
        let _ = writeln!(text, "window  {} before, {after} after{promised}", duration(before));
    }
    if plan.is_idle {
        let _ = writeln!(
            text,
            "No retention is set for repo{0}: nothing is removed. See repo{0}-retention-full and repo{0}-keep-window.",
            shown.index
        );
    } else if plan.removed().next().is_some() && !shown.delay.is_zero() {
        let _ = writeln!(
            text,
            "What is removed is out of every list at once; its data, and WAL that only it needs, goes by the first \
             expire\nafter {} (expire-delay), so that restores that run can end.",
            duration(shown.delay)
        );
    }
    text
}

fn frees(bytes: ByteCount) -> String {
    format!("frees {bytes}")
}

fn kept(decision: &Decision, why: &[Keep], retention: RetentionSettings) -> String {
    let window = || retention.window.map_or_else(String::new, duration);
    let mut words: Vec<String> = why
        .iter()
        .map(|why| match why {
            Keep::Newest => "newest".to_owned(),
            Keep::NewestRestorable => "newest that can be restored".to_owned(),
            Keep::Full { place, of } => format!("retention-full {place} of {of}"),
            Keep::SinceFull => "since the oldest full that stays".to_owned(),
            Keep::InWindow => format!("within keep-window {}", window()),
            Keep::BeginsWindow => format!("keep-window {} begins after it", window()),
            Keep::Pinned(Pinned::By { reason, until }) => {
                let until = until.map_or_else(String::new, |until| format!(" until {}", utc(until)));
                let reason = reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
                format!("pinned{until}{reason}")
            }
            Keep::Pinned(Pinned::Unreadable) => "a note on it that may be a pin cannot be read".to_owned(),
            Keep::NoPolicy if retention.full.is_none() && retention.window.is_none() => {
                "no retention is set".to_owned()
            }
            Keep::NoPolicy => "not asked for".to_owned(),
        })
        .collect();
    if why.len() > 1 && why.contains(&Keep::NoPolicy) {
        words.retain(|word| word != "not asked for" && word != "no retention is set");
    }
    if !decision.is_restorable {
        words.push("cannot be restored: its WAL is missing".to_owned());
    }
    words.join(", ")
}

fn removed(decision: &Decision, why: Remove, retention: RetentionSettings) -> String {
    let mut words = match (why, retention.full, retention.window) {
        (Remove::Asked, ..) => "asked for".to_owned(),
        (Remove::Policy, Some(full), None) => format!("retention-full {full} keeps newer ones"),
        (Remove::Policy, None, Some(window)) => format!("older than keep-window {} needs", duration(window)),
        (Remove::Policy, Some(full), Some(window)) => {
            format!("neither retention-full {full} nor keep-window {} keeps it", duration(window))
        }
        (Remove::Policy, None, None) => String::new(),
    };
    if decision.held.is_none() {
        words.push_str(", its record cannot be read");
    } else if !decision.is_restorable {
        words.push_str(", cannot be restored: its WAL is missing");
    }
    words
}

/// What was done, line by line.
pub(super) fn done(done: &Done, repository: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let ids = |ids: &[crate::units::BackupId]| {
        ids.iter().map(|id| id.short().to_owned()).collect::<Vec<_>>().join(", ")
    };
    if !done.retired.is_empty() {
        lines.push(format!("removed from {repository}: {}", ids(&done.retired)));
    }
    if !done.given_up.is_empty() {
        lines.push(format!("given up in {repository}: {}", ids(&done.given_up)));
    }
    if !done.ended.is_empty() {
        lines.push(format!("looked stuck in {repository} and ended meanwhile: {}", ids(&done.ended)));
    }
    let (data, wal) = (&done.swept.data, &done.swept.wal);
    if data.objects + wal.objects > 0 {
        lines.push(format!(
            "deleted in {repository}: {} of data in {} objects, {} of WAL in {} objects",
            data.bytes,
            count(data.objects),
            wal.bytes,
            count(wal.objects)
        ));
    }
    lines
}
