//! `info` for programs. Keys are stable; more may come. Moments are UTC text, sizes bytes, LSNs and system
//! identifiers text.

use super::view::{
    Alone, BackupView, ClusterView, Overview, Problem, RepositoryView, StanzaView, State, problems_of,
};
use super::windows::{Ends, Gap, Until, Window};
use crate::commands::notes::pins_json;
use crate::repo::record::Record;
use crate::report::render::{between, iso};
use crate::units::{BackupKind, Timestamp};
use serde_json::{Value, json};

/// The whole document; only backups whose id begins with `set`, where that is given.
pub(super) fn document(overview: &Overview, set: Option<&str>) -> Value {
    json!({
        "now": iso(overview.now),
        "stanzas": overview.stanzas.iter().map(|view| stanza(view, set, overview.now)).collect::<Vec<_>>(),
    })
}

fn stanza(view: &StanzaView, set: Option<&str>, now: Timestamp) -> Value {
    let problems = problems(view.problems());
    let backups = view.backups.iter().filter(|one| set.is_none_or(|set| one.id.as_str().starts_with(set)));
    json!({
        "name": view.stanza.as_str(),
        "status": if problems.is_empty() { "ok" } else { "problems" },
        "problems": problems,
        "clusters": view.clusters.iter().map(cluster).collect::<Vec<_>>(),
        "backups": backups.map(|one| backup(one, view, now)).collect::<Vec<_>>(),
        "repositories": view.repositories.iter().map(repository).collect::<Vec<_>>(),
    })
}

fn problems(problems: Vec<Problem>) -> Vec<Value> {
    let value = |problem: Problem| json!({ "kind": problem.short, "message": problem.long });
    problems.into_iter().map(value).collect()
}

fn cluster(view: &ClusterView) -> Value {
    json!({
        "system_identifier": view.cluster.system.to_string(),
        "postgresql_major": view.cluster.major.as_u16(),
        "page_size_bytes": view.cluster.page_size,
        "wal_segment_size_bytes": view.cluster.segment_size.bytes(),
        "blocks_per_file": view.cluster.blocks_per_file,
        "timeline": view.timeline.map(|timeline| timeline.as_u32()),
        "windows": view.windows.windows.iter().map(window).collect::<Vec<_>>(),
        "gaps": view.windows.gaps.iter().map(gap).collect::<Vec<_>>(),
    })
}

fn window(window: &Window) -> Value {
    let (ends, beside) = match window.ends {
        Ends::Newest => ("newest", None),
        Ends::Gap => ("gap", None),
        Ends::LeftFor(later) => ("left", Some(later.as_u32())),
        Ends::Over => ("end_of_timeline", None),
    };
    let last_commit = match window.until {
        Until::Commit(at) => Some(iso(at)),
        _ => None,
    };
    json!({
        "timeline": window.timeline.as_u32(),
        "backup": window.backup.as_str(),
        "from_lsn": window.from_lsn.to_string(),
        "from_at": iso(window.from),
        "until_lsn": window.until_lsn.to_string(),
        "until_at": window.until_at().map(iso),
        "last_commit_at": last_commit,
        "duration_seconds": window.until_at().map(|until| between(window.from, until).as_secs()),
        "ends": ends,
        "left_for_timeline": beside,
    })
}

fn gap(gap: &Gap) -> Value {
    json!({
        "timeline": gap.first.timeline().as_u32(),
        "first_segment": gap.first.to_string(),
        "last_segment": gap.last.to_string(),
        "segments": gap.segments,
        "after_at": gap.after.map(iso),
        "before_at": gap.before.map(iso),
    })
}

fn backup(view: &BackupView, stanza: &StanzaView, now: Timestamp) -> Value {
    let kind = match view.id.kind() {
        BackupKind::Full => "full",
        BackupKind::Incremental => "incremental",
    };
    let mut value = json!({
        "id": view.id.as_str(),
        "kind": kind,
        "repositories": view.held_in,
        "pins": pins_json(&view.notes, now),
    });
    let more = match &view.record {
        Err(why) => json!({ "status": "damaged", "error": why }),
        Ok(record) => {
            let without_wal =
                stanza.clusters.iter().any(|cluster| cluster.windows.without_wal.contains(&view.id));
            recorded(record, view, if without_wal { "wal_missing" } else { "ok" })
        }
    };
    if let (Value::Object(all), Value::Object(more)) = (&mut value, more) {
        all.extend(more);
    }
    value
}

fn recorded(record: &Record, view: &BackupView, status: &str) -> Value {
    json!({
        "status": status,
        "system_identifier": record.system_identifier.to_string(),
        "server_version_num": record.cluster.server_version_num,
        "timeline": record.timeline.as_u32(),
        "started_at": iso(record.started_at_unix_us),
        "stopped_at": iso(record.stopped_at_unix_us),
        "duration_ms": u64::try_from(between(record.started_at_unix_us, record.stopped_at_unix_us).as_millis())
            .unwrap_or(u64::MAX),
        "start_lsn": record.start_lsn.to_string(),
        "stop_lsn": record.stop_lsn.to_string(),
        "checkpoint_lsn": record.checkpoint_lsn.to_string(),
        "stop_segment": record.wal_proof.segment.to_string(),
        "from_standby": record.from_standby,
        "database_bytes": record.sizes.database_bytes,
        "stored_bytes": record.sizes.stored_bytes,
        "added_bytes": record.sizes.added_bytes,
        "files": record.sizes.files,
        "page_checksums": {
            "enabled": record.page_checksums.enabled,
            "failure_count": record.page_checksums.failure_count,
            "failures": record.page_checksums.failures.iter()
                .map(|page| json!({ "path": page.path, "block": page.block, "relation": page.relation }))
                .collect::<Vec<_>>(),
        },
        "tablespaces": record.tablespaces.iter()
            .map(|one| json!({ "oid": one.oid, "location": one.location }))
            .collect::<Vec<_>>(),
        "configuration_outside": record.configuration_outside,
        "annotations": view.annotations(),
        "walden_version": record.walden_version,
    })
}

/// What a repository could bring back of a cluster without the others.
fn alone(alone: &Alone) -> Value {
    json!({
        "system_identifier": alone.system.to_string(),
        "timeline": alone.timeline.map(|timeline| timeline.as_u32()),
        "windows": alone.windows.windows.iter().map(window).collect::<Vec<_>>(),
        "gaps": alone.windows.gaps.iter().map(gap).collect::<Vec<_>>(),
        "problems": problems(problems_of(&alone.windows)),
    })
}

fn repository(view: &RepositoryView) -> Value {
    let mut value = json!({
        "repository": view.index,
        "place": view.place,
        "encrypted": view.encrypted,
    });
    let more = match &view.state {
        State::Unavailable(why) => json!({ "status": "unavailable", "error": why }),
        State::Damaged(why) => json!({ "status": "damaged", "error": why }),
        State::NoStanza => json!({ "status": "no_stanza" }),
        State::Holds(holding) => json!({
            "status": if holding.behind + holding.lacking == 0 { "ok" } else { "behind" },
            "backup_bytes": holding.backup_bytes.as_u64(),
            "wal_bytes": holding.wal_bytes.as_u64(),
            "newest_segment": holding.newest_segment.map(|segment| segment.to_string()),
            "behind_segments": holding.behind,
            "lacking_segments": holding.lacking,
            "clusters": holding.alone.iter().map(alone).collect::<Vec<_>>(),
        }),
    };
    if let (Value::Object(all), Value::Object(more)) = (&mut value, more) {
        all.extend(more);
    }
    value
}
