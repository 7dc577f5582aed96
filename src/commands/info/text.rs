//! `info` for people.

use super::view::{Alone, BackupView, ClusterView, Holding, Overview, StanzaView, State, problems_of};
use super::windows::{Gap, Until, Window, Windows, words};
use crate::failure::{Class, Failure};
use crate::repo::notes::PinOf;
use crate::repo::record::Record;
use crate::report::render::{Align, Table, ago, between, count, duration, utc, utc_and_local, wrap};
use crate::units::{ByteCount, Timestamp};
use jiff::tz::TimeZone;
use std::collections::BTreeSet;
use std::fmt::Write as _;

const WIDTH: usize = 100;

/// Every stanza.
pub(super) fn overview(overview: &Overview, zone: &TimeZone) -> String {
    let blocks: Vec<String> = overview.stanzas.iter().map(|view| stanza(view, overview.now)).collect();
    let mut text = blocks.join("\n");
    let now = utc_and_local(overview.now, zone);
    if now != utc(overview.now) {
        let _ = write!(text, "\nTimes are UTC; it is now {now}.\n");
    }
    text
}

fn stanza(view: &StanzaView, now: Timestamp) -> String {
    let problems = view.problems();
    let status = match problems.as_slice() {
        [] => "ok".to_owned(),
        [one] => one.short.to_owned(),
        more => format!("{} problems", more.len()),
    };
    let mut text = String::new();
    for (at, cluster) in view.clusters.iter().enumerate() {
        let mut head = format!(
            "stanza {}: PostgreSQL {}, system {}",
            view.stanza, cluster.cluster.major, cluster.cluster.system
        );
        if let Some(timeline) = cluster.timeline {
            let _ = write!(head, ", timeline {timeline}");
        }
        // The answer first: at the end of the first line, where the eye rests.
        let status = if at == 0 { status.as_str() } else { "" };
        let room = WIDTH.saturating_sub(head.chars().count() + status.chars().count()).max(2);
        let _ = writeln!(text, "{}", format!("{head}{}{status}", " ".repeat(room)).trim_end());
        text.push_str(&moments(cluster, now));
    }
    if view.clusters.is_empty() {
        let _ = writeln!(text, "stanza {}: {status}", view.stanza);
    }
    if !view.backups.is_empty() {
        let _ = write!(text, "\n{}", backups(view, now));
    }
    let _ = write!(text, "\n{}", repositories(view, now));
    if !problems.is_empty() {
        text.push('\n');
        for problem in problems {
            text.push_str(&item("! ", &problem.long));
        }
    }
    text
}

/// A paragraph whose further lines stand under the first word.
fn item(mark: &str, long: &str) -> String {
    let indent = mark.chars().count();
    let wrapped = wrap(long, WIDTH, indent);
    format!("{mark}{}", wrapped.get(indent..).unwrap_or(&wrapped))
}

fn moments(cluster: &ClusterView, now: Timestamp) -> String {
    let windows = &cluster.windows;
    if windows.windows.is_empty() {
        return "\nThere is no moment yet that one can go back to.\n".to_owned();
    }
    let mut table = Table::new(&[Align::Left, Align::Right, Align::Left]);
    for window in &windows.windows {
        table.row([format!("  {}", range(window)), length(window), format!(" {}", words(window, now))]);
    }
    let mut text = format!("\nYou can go back to any moment in\n{}", table.render());
    for gap in &windows.gaps {
        text.push_str(&item("  ", &missing(gap)));
    }
    text
}

/// Which moments a gap takes away, and which segments would bring them back.
fn missing(gap: &Gap) -> String {
    let missing = if gap.segments == 1 {
        format!("{} is missing", gap.first)
    } else {
        format!("{} segments missing, {} … {}", count(gap.segments), gap.first, gap.last)
    };
    let between = match (gap.after, gap.before) {
        (Some(after), Some(before)) => format!("not between {} and {}", utc(after), utc(before)),
        (Some(after), None) => format!("not after {}", utc(after)),
        (None, Some(before)) => format!("not right before {}", utc(before)),
        (None, None) => "not beyond a gap".to_owned(),
    };
    format!("{between}: {missing}")
}

fn range(window: &Window) -> String {
    match &window.until {
        Until::NothingSince => format!("{}, the end of a backup", utc(window.from)),
        Until::Commit(_) => {
            format!("{} … {}", utc(window.from), utc(window.until_at().unwrap_or(window.from)))
        }
        Until::Unknown => format!("{} … {} (time not known)", utc(window.from), window.until_lsn),
        Until::Unreadable(_) => format!("{} … (unreadable)", utc(window.from)),
    }
}

fn length(window: &Window) -> String {
    match (&window.until, window.until_at()) {
        (Until::Commit(_), Some(until)) => duration(between(window.from, until)),
        _ => String::new(),
    }
}

fn backups(view: &StanzaView, now: Timestamp) -> String {
    let several = view.repositories.len() > 1;
    let mut columns = vec![Align::Left, Align::Left, Align::Left, Align::Right, Align::Right, Align::Right];
    let mut titles = vec!["Backup", "kind", "taken", "database", "stored", "added"];
    if several {
        columns.push(Align::Left);
        titles.push("in");
    }
    let mut table = Table::new(&columns);
    table.row(titles);
    for backup in &view.backups {
        let mut row = vec![backup.id.short().to_owned(), backup.id.kind().to_string()];
        match &backup.record {
            Ok(record) => {
                let sizes = &record.sizes;
                row.push(taken(record, now));
                row.extend([sizes.database_bytes, sizes.stored_bytes, sizes.added_bytes].map(size));
            }
            Err(_) => row.extend(["cannot be read", "", "", ""].map(str::to_owned)),
        }
        if several {
            row.push(held_in(backup));
        }
        table.row(row);
    }
    // Notes stand under their backup's line: the title's line is the first.
    let mut text = String::new();
    let rendered = table.render();
    let mut lines = rendered.lines();
    let _ = writeln!(text, "{}", lines.next().unwrap_or_default());
    for (line, backup) in lines.zip(&view.backups) {
        let _ = writeln!(text, "{line}");
        if let Ok(record) = &backup.record {
            for note in notes(record, backup) {
                text.push_str(&item("  ", &note));
            }
        }
        for pin in pins(backup, now) {
            text.push_str(&item("  ", &pin));
        }
    }
    text
}

fn size(bytes: u64) -> String {
    ByteCount::new(bytes).to_string()
}

fn held_in(backup: &BackupView) -> String {
    let names: Vec<String> = backup.held_in.iter().map(|index| format!("repo{index}")).collect();
    names.join(" ")
}

fn took(record: &Record) -> std::time::Duration {
    between(record.started_at_unix_us, record.stopped_at_unix_us)
}

/// `7 h ago in 3 min`.
fn taken(record: &Record, now: Timestamp) -> String {
    let took = took(record);
    // One unit is enough in a column; --set shows more.
    let seconds = took.as_secs();
    let took = match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    };
    format!("{} in {took}", ago(record.stopped_at_unix_us, now))
}

/// What should be seen in the list of backups: damaged pages and what a person wrote.
fn notes(record: &Record, backup: &BackupView) -> Vec<String> {
    let mut notes = Vec::new();
    let failures = &record.page_checksums;
    if failures.failure_count > 0 {
        let pages = if failures.failure_count == 1 { "page" } else { "pages" };
        let which: Vec<String> = failures.failures.iter().take(3).map(ToString::to_string).collect();
        let more = if failures.failure_count > 3 { ", …" } else { "" };
        notes.push(format!(
            "{} {pages} failed the checksum: {}{more}",
            count(failures.failure_count),
            which.join(", ")
        ));
    }
    let annotations = backup.annotations();
    if !annotations.is_empty() {
        let pairs: Vec<String> = annotations.iter().map(|(key, value)| format!("{key}={value}")).collect();
        notes.push(pairs.join(", "));
    }
    notes
}

/// `pinned until 2027-03-31 00:00:00 UTC: audit`, for each pin that holds.
fn pins(backup: &BackupView, now: Timestamp) -> Vec<String> {
    let words = |one: &PinOf| {
        let until = one.pin.until().map(|until| format!(" until {}", utc(until))).unwrap_or_default();
        let reason = one.pin.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        format!("pinned{until}{reason}")
    };
    backup.notes.holding(now).iter().map(words).collect()
}

fn repositories(stanza: &StanzaView, now: Timestamp) -> String {
    let views = &stanza.repositories;
    let mut table = Table::new(&[Align::Left, Align::Left, Align::Left, Align::Right, Align::Left]);
    for view in views {
        let encrypted = match view.encrypted {
            Some(true) => "encrypted",
            Some(false) => "not encrypted",
            None => "",
        };
        let (size, state) = match &view.state {
            State::Unavailable(_) => (String::new(), "unavailable".to_owned()),
            State::Damaged(_) => (String::new(), "damaged".to_owned()),
            State::NoStanza => (String::new(), "does not hold this stanza".to_owned()),
            State::Holds(holding) => {
                (holding.backup_bytes.plus(holding.wal_bytes).to_string(), standing(holding))
            }
        };
        table.row([format!("repo{}", view.index), view.place.clone(), encrypted.into(), size, state]);
    }
    let mut text = String::new();
    for (line, view) in table.render().lines().zip(views) {
        let _ = writeln!(text, "{line}");
        if let State::Holds(holding) = &view.state {
            holding.alone.iter().for_each(|one| text.push_str(&alone(one, &stanza.clusters, now)));
        }
    }
    text
}

/// What a repository could bring back without the others, where that is not what all together can.
fn alone(alone: &Alone, clusters: &[ClusterView], now: Timestamp) -> String {
    /// Of windows, and of gaps. Who has more of them than fit in an eyeful looks into the JSON.
    const MOST_SHOWN: usize = 3;
    let Some(all) = clusters.iter().find(|one| one.cluster.system == alone.system) else {
        return String::new();
    };
    let (own, all_windows) = (&alone.windows, &all.windows);
    if own.windows == all_windows.windows && own.gaps == all_windows.gaps {
        return String::new();
    }
    let mut lines = Vec::new();
    let mut some = |lines_of: Vec<String>| {
        let more = lines_of.len().saturating_sub(MOST_SHOWN);
        lines.extend(lines_of.into_iter().take(MOST_SHOWN));
        if more > 0 {
            lines.push(format!("and {} more, which --output=json names", count(more as u64)));
        }
    };
    if own.windows.is_empty() {
        let why = if alone.has_backup { "WAL of its backups is missing" } else { "no backup" };
        some(vec![format!("nothing ({why})")]);
    }
    some(own.windows.iter().map(|window| format!("{} ({})", range(window), words(window, now))).collect());
    some(own.gaps.iter().filter(|gap| !all_windows.gaps.contains(gap)).map(missing).collect());
    some(of_its_own(own, all_windows));

    let mark = match clusters {
        [_] => "  alone: ".to_owned(),
        _ => format!("  alone, system {}: ", alone.system),
    };
    let margin = " ".repeat(mark.chars().count());
    let marks = std::iter::once(mark.as_str()).chain(std::iter::repeat(margin.as_str()));
    marks.zip(lines).map(|(mark, line)| item(mark, &line)).collect()
}

/// What is in the way of one repository and not of all together. That a backup lacks WAL shows in the windows.
fn of_its_own(own: &Windows, all: &Windows) -> Vec<String> {
    let told = |windows: &Windows| -> Vec<String> {
        let without = Windows { without_wal: BTreeSet::new(), ..windows.clone() };
        problems_of(&without).into_iter().map(|problem| problem.long).collect()
    };
    let all = told(all);
    told(own).into_iter().filter(|problem| !all.contains(problem)).collect()
}

fn standing(holding: &Holding) -> String {
    let segments = |number: u64| format!("{} segment{}", count(number), if number == 1 { "" } else { "s" });
    match (holding.behind, holding.lacking) {
        (0, 0) => "ok".to_owned(),
        (0, lacking) => format!("lacks {} of the others", segments(lacking)),
        (behind, 0) => format!("{} behind", segments(behind)),
        (behind, lacking) => format!("{} behind, lacks {}", segments(behind), count(lacking)),
    }
}

/// The backup that `set` names, with everything its record says.
///
/// # Errors
/// When no backup or more than one has an id that begins so.
pub(super) fn one_backup(overview: &Overview, set: &str, zone: &TimeZone) -> Result<String, Failure> {
    let found: Vec<(&StanzaView, &BackupView)> = overview
        .stanzas
        .iter()
        .flat_map(|view| view.backups.iter().map(move |backup| (view, backup)))
        .filter(|(_, backup)| backup.id.as_str().starts_with(set))
        .collect();
    match found.as_slice() {
        [(view, backup)] => Ok(detail(view, backup, overview.now, zone)),
        [] => Err(Failure::new(Class::NoRepository, format!("there is no backup {set}"))
            .next("`walden info` lists the backups; the beginning of an id is enough.")),
        more => {
            let failure = Failure::new(Class::Usage, format!("{set} is the beginning of {} ids", more.len()));
            let named = more.iter().take(10).fold(failure, |failure, (view, backup)| {
                failure.because_text(format!("{} of stanza {}", backup.id, view.stanza))
            });
            Err(named.next("Give more of the id."))
        }
    }
}

fn detail(view: &StanzaView, backup: &BackupView, now: Timestamp, zone: &TimeZone) -> String {
    let mut table = Table::new(&[Align::Left, Align::Left]);
    table.row(["backup".to_owned(), backup.id.to_string()]);
    table.row(["stanza".to_owned(), view.stanza.to_string()]);
    table.row(["held in".to_owned(), held_in(backup)]);
    let record = match &backup.record {
        Ok(record) => record,
        Err(why) => {
            return format!("{}{}", table.render(), item("its record cannot be read: ", why));
        }
    };
    let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
    let from = if record.from_standby { ", from a standby" } else { "" };
    row("kind", format!("{}{from}", backup.id.kind()));
    row(
        "cluster",
        format!(
            "PostgreSQL {}, system {}, timeline {}",
            record.cluster.server_version_num / 10_000,
            record.system_identifier,
            record.timeline
        ),
    );
    row("started", utc_and_local(record.started_at_unix_us, zone));
    row(
        "stopped",
        format!("{}, after {}", utc_and_local(record.stopped_at_unix_us, zone), duration(took(record))),
    );
    row("start LSN", format!("{} (checkpoint {})", record.start_lsn, record.checkpoint_lsn));
    row("stop LSN", format!("{} in {}", record.stop_lsn, record.wal_proof.segment));
    let sizes = &record.sizes;
    row("database", format!("{} in {} files", size(sizes.database_bytes), count(sizes.files)));
    row(
        "stored",
        format!("{}, of which this backup added {}", size(sizes.stored_bytes), size(sizes.added_bytes)),
    );
    let checks = &record.page_checksums;
    row(
        "checksums",
        match (checks.enabled, checks.failure_count) {
            (false, _) => "the cluster has none".to_owned(),
            (true, 0) => "all pages good".to_owned(),
            (true, failures) => format!("{} pages failed", count(failures)),
        },
    );
    const MOST_SHOWN: usize = 20;
    for page in checks.failures.iter().take(MOST_SHOWN) {
        row("", page.to_string());
    }
    let more = checks.failure_count.saturating_sub(checks.failures.len().min(MOST_SHOWN) as u64);
    if more > 0 {
        row("", format!("and {} more, which --output=json names", count(more)));
    }
    for tablespace in &record.tablespaces {
        row("tablespace", format!("{} at {}", tablespace.oid, tablespace.location));
    }
    for path in &record.configuration_outside {
        row("not in it", format!("{path}, which lies outside the data directory"));
    }
    for (key, value) in backup.annotations() {
        row("note", format!("{key}={value}"));
    }
    for one in backup.notes.pins() {
        let until = match one.pin.until() {
            None => "until it is unpinned".to_owned(),
            Some(until) if now < until => format!("until {}", utc_and_local(until, zone)),
            Some(until) => format!("until {}: over", utc_and_local(until, zone)),
        };
        let reason = one.pin.reason.map(|reason| format!(": {reason}")).unwrap_or_default();
        row("pinned", format!("{}, {until}{reason}", ago(one.at, now)));
    }
    row("taken by", format!("walden {}", record.walden_version));
    table.render()
}
