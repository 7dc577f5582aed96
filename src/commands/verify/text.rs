//! `verify` for people.

use super::{Judged, Verification, overall};
use crate::report::render::{Align, Table, count, wrap};
use crate::units::ByteCount;
use crate::verify::{CheckedBackup, CheckedTimeline, Findings, Problem, Standing, Verdict, Verified};
use std::fmt::Write as _;

const WIDTH: usize = 100;
/// So many problems of one thing are shown; JSON has more.
const SHOWN: usize = 20;
const FILES_SHOWN: usize = 10;

/// The whole screen.
pub(super) fn screen(verification: &Verification) -> String {
    let several = verification.judged.len() > 1;
    let mut text = String::new();
    for one in &verification.judged {
        if several {
            let _ = writeln!(text, "{}  {}", one.settings.name(), one.place);
        }
        match &one.result {
            Ok(verified) => text.push_str(&repository(verified)),
            Err(failure) => text.push_str(&item("  ", &failure.one_line())),
        }
        if several {
            text.push('\n');
        }
    }
    text.push_str(&summary(verification));
    text
}

fn item(indent: &str, long: &str) -> String {
    wrap(long, WIDTH, indent.len())
}

fn repository(verified: &Verified) -> String {
    let mut table = Table::new(&[Align::Left, Align::Left, Align::Left]);
    for one in &verified.backups {
        let verdict = one.findings.verdict().as_str();
        table.row([format!("backup {}", one.id.short()), verdict.to_owned(), backup(one)]);
    }
    let several = verified.timelines.windows(2).any(|pair| pair[0].system != pair[1].system);
    for one in &verified.timelines {
        let of = if several { format!(" of {}", one.system) } else { String::new() };
        let verdict = one.findings.verdict().as_str();
        table.row([format!("WAL timeline {}{of}", one.timeline), verdict.to_owned(), wal(one)]);
    }
    // What is wrong stands under its line.
    let mut text = String::new();
    let found = verified.backups.iter().map(|one| &one.findings);
    let found = found.chain(verified.timelines.iter().map(|one| &one.findings));
    for (line, findings) in table.render().lines().zip(found) {
        let _ = writeln!(text, "{line}");
        text.push_str(&problems(findings));
    }
    if verified.general.verdict() != Verdict::Good {
        let _ = writeln!(text, "neither of a backup nor of a timeline");
        text.push_str(&problems(&verified.general));
    }
    text.push_str(&notes(verified));
    text
}

fn backup(one: &CheckedBackup) -> String {
    if one.objects == 0 {
        return String::new();
    }
    let files = if one.files > 0 { format!(", {} files", count(one.files)) } else { String::new() };
    format!("{} read, {} objects{files}", ByteCount::new(one.bytes), count(one.objects))
}

fn wal(one: &CheckedTimeline) -> String {
    let plural = |number: u64, one: &str, more: &str| {
        format!("{} {}", count(number), if number == 1 { one } else { more })
    };
    let mut parts = vec![plural(one.segments, "segment", "segments")];
    if one.findings.verdict() == Verdict::Good && one.segments > 1 {
        parts[0].push_str(" without a gap");
    }
    if one.partials > 0 {
        parts.push(plural(one.partials, "unfinished copy", "unfinished copies"));
    }
    if one.tails > 0 {
        parts.push(plural(one.tails, "tail", "tails"));
    }
    if one.unknown > 0 {
        parts.push(format!("{} of a newer PostgreSQL: hashed, records not looked at", count(one.unknown)));
    }
    parts.join(", ")
}

fn problems(findings: &Findings) -> String {
    let mut text = String::new();
    for problem in findings.problems().iter().take(SHOWN) {
        text.push_str(&item("  ", &format!("{}: {}", problem.object, problem.why)));
        text.push_str(&affected(problem));
    }
    let left = (findings.problems().len().saturating_sub(SHOWN)) as u64 + findings.more();
    if left > 0 {
        let _ = writeln!(text, "  and {} more", count(left));
    }
    text
}

fn affected(problem: &Problem) -> String {
    let mut text = String::new();
    for file in problem.affected.iter().take(FILES_SHOWN) {
        let blocks = match file.blocks {
            None => String::new(),
            Some((first, last)) if first == last => format!(" block {first}"),
            Some((first, last)) => format!(" blocks {first}–{last}"),
        };
        let _ = writeln!(text, "    {}{blocks}", file.path);
    }
    let left = (problem.affected.len().saturating_sub(FILES_SHOWN)) as u64 + problem.more_affected;
    if left > 0 {
        let _ = writeln!(text, "    and {} more", count(left));
    }
    text
}

fn notes(verified: &Verified) -> String {
    let mut text = String::new();
    for one in &verified.timelines {
        if let Some((segment, why)) = &one.ends_inside {
            let note = format!("note: {segment} is stored under its full name, and its WAL ends {why}");
            text.push_str(&item("", &note));
        }
    }
    let standing = |wanted: Standing| {
        let of: Vec<&str> =
            verified.not_judged.iter().filter(|(_, is)| *is == wanted).map(|(id, _)| id.short()).collect();
        of
    };
    for (is, words) in [
        (Standing::Open, "being taken, or interrupted"),
        (Standing::RemovedMeanwhile, "removed while this ran"),
        (Standing::Aborted, "aborted"),
        (Standing::Retired, "given up, and to be cleared away"),
    ] {
        let ids = standing(is);
        if !ids.is_empty() {
            let more = if ids.len() > 3 { format!(" and {} more", ids.len() - 3) } else { String::new() };
            let shown = ids.iter().take(3).copied().collect::<Vec<_>>().join(", ");
            text.push_str(&item("", &format!("not judged, because {words}: {shown}{more}")));
        }
    }
    if verified.strays.count > 0 {
        let more = verified.strays.count - verified.strays.named.len().min(3) as u64;
        let more = if more > 0 { format!(" and {} more", count(more)) } else { String::new() };
        let shown = verified.strays.named.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
        text.push_str(&item("", &format!("note: nothing knows of {shown}{more}")));
    }
    text
}

fn summary(verification: &Verification) -> String {
    let bytes: u64 = read(verification).map(|verified| verified.bytes).sum();
    let objects: u64 = read(verification).map(|verified| verified.objects).sum();
    let seconds = verification.took.as_secs_f64();
    let rate = if seconds > 0.5 {
        format!(", {}/s", ByteCount::new((bytes as f64 / seconds) as u64))
    } else {
        String::new()
    };
    let worst = verification.judged.iter().map(overall).max().unwrap_or(Verdict::Good);
    let asked = verification.asked.as_ref().map(|asked| format!("{asked}: ")).unwrap_or_default();
    let all = read(verification).flat_map(|verified| &verified.backups);
    let backups: Vec<Verdict> = all.map(|one| one.findings.verdict()).collect();
    let bad = backups.iter().filter(|verdict| **verdict != Verdict::Good).count();
    let words = match (worst, bad, backups.len()) {
        (Verdict::Good, ..) => "everything that was asked for was read and is good".to_owned(),
        (_, 0, _) => format!("not all is good: {}", worst.as_str()),
        (_, bad, backups) => format!(
            "{bad} of {backups} backup{} {} not good: {}",
            if backups == 1 { "" } else { "s" },
            if bad == 1 { "is" } else { "are" },
            worst.as_str()
        ),
    };
    item("", &format!("{asked}{words} ({} objects, {} read{rate})", count(objects), ByteCount::new(bytes)))
}

fn read(verification: &Verification) -> impl Iterator<Item = &Verified> {
    verification.judged.iter().filter_map(|one: &Judged| one.result.as_ref().ok())
}
