//! `verify` for programs. Keys are stable; more may come.
//!
//! `verdict` is `good`, `damaged`, `incomplete` or `not_checked`; `kind` of a problem `damaged`, `missing` or
//! `not_checked`. Pages are counted in the file that is named.

use super::{Verification, overall};
use crate::verify::{CheckedBackup, CheckedTimeline, Findings, Problem, Standing, Verdict, Verified, Wrong};
use serde_json::{Value, json};

pub(super) fn document(verification: &Verification) -> Value {
    let worst = verification.judged.iter().map(overall).max().unwrap_or(Verdict::Good);
    json!({
        "stanza": verification.stanza.as_str(),
        "asked_for": verification.asked,
        "verdict": word(worst),
        "duration_ms": u64::try_from(verification.took.as_millis()).unwrap_or(u64::MAX),
        "repositories": verification.judged.iter().map(|one| {
            let mut value = json!({
                "repository": one.settings.index,
                "place": one.place,
                "verdict": word(overall(one)),
            });
            let more = match &one.result {
                Ok(verified) => repository(verified),
                Err(failure) => json!({ "error": failure.one_line() }),
            };
            if let (Value::Object(all), Value::Object(more)) = (&mut value, more) {
                all.extend(more);
            }
            value
        }).collect::<Vec<_>>(),
    })
}

const fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Good => "good",
        Verdict::NotChecked => "not_checked",
        Verdict::Incomplete => "incomplete",
        Verdict::Damaged => "damaged",
    }
}

fn repository(verified: &Verified) -> Value {
    json!({
        "read_bytes": verified.bytes,
        "objects": verified.objects,
        "backups": verified.backups.iter().map(backup).collect::<Vec<_>>(),
        "wal": verified.timelines.iter().map(timeline).collect::<Vec<_>>(),
        "problems": problems(&verified.general),
        "more_problems": verified.general.more(),
        "not_judged": verified.not_judged.iter().map(|(id, standing)| {
            json!({ "id": id.as_str(), "because": match standing {
                Standing::Open => "open",
                Standing::Aborted => "aborted",
                Standing::Retired => "retired",
                Standing::RemovedMeanwhile => "removed_meanwhile",
            } })
        }).collect::<Vec<_>>(),
        "unknown_objects": verified.strays.count,
        "unknown_objects_named": verified.strays.named,
    })
}

fn backup(one: &CheckedBackup) -> Value {
    json!({
        "id": one.id.as_str(),
        "verdict": word(one.findings.verdict()),
        "objects": one.objects,
        "stored_bytes": one.bytes,
        "files": one.files,
        "problems": problems(&one.findings),
        "more_problems": one.findings.more(),
    })
}

fn timeline(one: &CheckedTimeline) -> Value {
    json!({
        "system_identifier": one.system.to_string(),
        "timeline": one.timeline.as_u32(),
        "verdict": word(one.findings.verdict()),
        "segments": one.segments,
        "partial_segments": one.partials,
        "tails": one.tails,
        "unknown_version_segments": one.unknown,
        "stored_bytes": one.bytes,
        "first_segment": one.ends.map(|(first, _)| first.to_string()),
        "last_segment": one.ends.map(|(_, last)| last.to_string()),
        "ends_inside": one.ends_inside.as_ref().map(|(segment, why)| {
            json!({ "segment": segment.to_string(), "message": why })
        }),
        "problems": problems(&one.findings),
        "more_problems": one.findings.more(),
    })
}

fn problems(findings: &Findings) -> Vec<Value> {
    let one = |problem: &Problem| {
        json!({
            "kind": match problem.wrong {
                Wrong::Damaged => "damaged",
                Wrong::Missing => "missing",
                Wrong::NotChecked => "not_checked",
            },
            "object": problem.object,
            "message": problem.why,
            "files": problem.affected.iter().map(|file| json!({
                "path": file.path,
                "first_block": file.blocks.map(|(first, _)| first),
                "last_block": file.blocks.map(|(_, last)| last),
            })).collect::<Vec<_>>(),
            "more_files": problem.more_affected,
        })
    };
    findings.problems().iter().map(one).collect()
}
