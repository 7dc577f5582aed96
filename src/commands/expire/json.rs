//! `expire` for programs. Keys are stable; more may come. Moments are UTC text, sizes bytes.
//!
//! `stanza`, `dry_run`, `repositories`, for each:
//!
//! | key | meaning |
//! |---|---|
//! | `repository`, `place` | its number, and where it is |
//! | `retention_full`, `keep_window_seconds`, `expire_delay_seconds` | what is set; null where nothing is |
//! | `nothing_asked` | no retention is set and nothing was ever removed by name: nothing is done |
//! | `backups` | newest first: `backup_id`, `verdict` (`keep`, `remove`), `because` (codes below), `restorable`, `stopped_at`, `frees_bytes` |
//! | `give_up` | backups that did not end: `backup_id`, `started_at` |
//! | `open` | backups that are being taken or were interrupted: the same |
//! | `aborted` | ids of aborted backups whose data goes |
//! | `removed_before` | `backup_id`, `due` (`now`, `later`, `unknown`), `due_at`, `frees_bytes` |
//! | `wal` | stretches that go now: `system_identifier`, `timeline`, `first_segment`, `last_segment`, `segments`, `frees_bytes` |
//! | `wal_kept_for_lack_of_backups` | system identifiers |
//! | `window_before_seconds`, `window_after_seconds` | how far back one can go on the newest timeline; null: unknown, or not at all |
//! | `done` | absent in a dry run: `removed`, `given_up`, `ended_meanwhile`, `pinned_meanwhile` (ids), `deleted_data_objects`, `deleted_data_bytes`, `deleted_wal_objects`, `deleted_wal_bytes`, `refused` (null, or `object` and `error`) |
//!
//! Codes: `newest`, `newest_restorable`, `retention_full`, `since_retention_full`, `in_window`, `begins_window`,
//! `pinned`, `unreadable_note`, `no_retention`, `asked`, `retention`.

use super::Shown;
use crate::repo::record::Started;
use crate::report::render::iso;
use crate::retention::plan::{Decision, Done, Due, Earlier};
use crate::retention::policy::{Keep, Remove, Verdict};
use crate::retention::survey::Pinned;
use crate::retention::wal::Stretch;
use crate::units::BackupId;
use serde_json::{Value, json};

pub(super) fn plan(shown: &Shown<'_>) -> Value {
    let plan = &shown.plan;
    json!({
        "repository": shown.index,
        "place": shown.place,
        "retention_full": shown.retention.full,
        "keep_window_seconds": shown.retention.window.map(|window| window.as_secs()),
        "expire_delay_seconds": shown.delay.as_secs(),
        "nothing_asked": plan.is_idle,
        "backups": plan.decisions.iter().map(decision).collect::<Vec<_>>(),
        "give_up": plan.stuck.iter().map(|one| open(one)).collect::<Vec<_>>(),
        "open": plan.open.iter().map(|one| open(one)).collect::<Vec<_>>(),
        "aborted": ids(&plan.aborted),
        "removed_before": plan.earlier.iter().map(earlier).collect::<Vec<_>>(),
        "wal": plan.wal.iter().map(stretch).collect::<Vec<_>>(),
        "wal_kept_for_lack_of_backups":
            plan.without_backup.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "window_before_seconds": shown.back.before.map(|length| length.as_secs()),
        "window_after_seconds": shown.back.after.map(|length| length.as_secs()),
    })
}

fn ids(ids: &[BackupId]) -> Vec<&str> {
    ids.iter().map(BackupId::as_str).collect()
}

fn decision(decision: &Decision) -> Value {
    let (verdict, because) = match &decision.verdict {
        Verdict::Keep(why) => ("keep", why.iter().map(kept).collect()),
        Verdict::Remove(Remove::Asked) => ("remove", vec!["asked"]),
        Verdict::Remove(Remove::Policy) => ("remove", vec!["retention"]),
    };
    json!({
        "backup_id": decision.id.as_str(),
        "verdict": verdict,
        "because": because,
        "restorable": decision.is_restorable,
        "stopped_at": decision.record().map(|record| iso(record.stopped_at_unix_us)),
        "frees_bytes": decision.frees.as_u64(),
    })
}

const fn kept(why: &Keep) -> &'static str {
    match why {
        Keep::Newest => "newest",
        Keep::NewestRestorable => "newest_restorable",
        Keep::Full { .. } => "retention_full",
        Keep::SinceFull => "since_retention_full",
        Keep::InWindow => "in_window",
        Keep::BeginsWindow => "begins_window",
        Keep::Pinned(Pinned::By { .. }) => "pinned",
        Keep::Pinned(Pinned::Unreadable) => "unreadable_note",
        Keep::NoPolicy => "no_retention",
    }
}

fn open(started: &Started) -> Value {
    json!({ "backup_id": started.backup_id.as_str(), "started_at": iso(started.started_at_unix_us) })
}

fn earlier(earlier: &Earlier) -> Value {
    let (due, at) = match earlier.due {
        Due::Now => ("now", None),
        Due::From(at) => ("later", Some(iso(at))),
        Due::Unknown => ("unknown", None),
    };
    json!({
        "backup_id": earlier.id.as_str(),
        "due": due,
        "due_at": at,
        "frees_bytes": earlier.frees.as_u64(),
    })
}

fn stretch(stretch: &Stretch) -> Value {
    json!({
        "system_identifier": stretch.system.to_string(),
        "timeline": stretch.timeline.as_u32(),
        "first_segment": stretch.ends.map(|(first, _)| first.to_string()),
        "last_segment": stretch.ends.map(|(_, last)| last.to_string()),
        "segments": stretch.segments,
        "frees_bytes": stretch.bytes.as_u64(),
    })
}

/// What was done, beside the plan.
pub(super) fn add_done(document: &mut Value, done: &Done) {
    let swept = &done.swept;
    let refused = swept.refused.as_ref().map(|(key, why)| json!({ "object": key.as_str(), "error": why }));
    document["done"] = json!({
        "removed": ids(&done.retired),
        "given_up": ids(&done.given_up),
        "ended_meanwhile": ids(&done.ended),
        "pinned_meanwhile": ids(&done.pinned),
        "deleted_data_objects": swept.data.objects,
        "deleted_data_bytes": swept.data.bytes.as_u64(),
        "deleted_wal_objects": swept.wal.objects,
        "deleted_wal_bytes": swept.wal.bytes.as_u64(),
        "refused": refused,
    });
}
