//! The plan and what to do after it, as a person or a program reads them.

use super::Words;
use crate::repo::record::Tablespace;
use crate::report::{Report, render};
use crate::restore::directory::Found;
use crate::restore::plan::{Plan, Warning};
use crate::restore::reach::Reached;
use crate::restore::settings::Signal;
use crate::restore::target::{Goal, Target, TargetAction};
use crate::restore::target_time::utc_text;
use crate::settings::{HOLDS_PASSWORD, may_hold_password};
use crate::units::{ByteCount, Timestamp};
use serde_json::json;

/// A moment with its fraction, and the operator's clock where it differs.
pub(super) fn moment(at: Timestamp, words: &Words<'_>) -> String {
    let mut text = format!("{} UTC", utc_text(at));
    if let Some(local) = words.here.local(at) {
        let (utc_day, local_day) = (text.get(..10), local.get(..10));
        let shown = if utc_day == local_day { local.get(11..).unwrap_or(&local) } else { &local };
        text.push_str(&format!(" ({shown} in {})", words.here.zone_name()));
    }
    text
}

/// The target in a few words, for first lines.
pub(super) fn target_words(target: &Target) -> String {
    match &target.goal {
        Goal::EndOfArchive => "the end of the archive".to_owned(),
        Goal::Consistent => "where the backup is consistent".to_owned(),
        Goal::Time(time) => format!("{} UTC", utc_text(time.at)),
        Goal::Xid(xid) => format!("transaction {xid}"),
        Goal::Lsn(lsn) => lsn.to_string(),
        Goal::Name(name) => format!("restore point \"{name}\""),
        Goal::Standby => "a standby".to_owned(),
        Goal::Preserve => "what the image's settings say".to_owned(),
        Goal::None => "the backup alone".to_owned(),
    }
}

fn target_line(plan: &Plan<'_>, words: &Words<'_>) -> String {
    let before = if plan.target.exclusive { "just before " } else { "" };
    let place = match (&plan.target.goal, &plan.reached) {
        (Goal::EndOfArchive, Reached::End { last: Some(last), .. }) => {
            format!("the end of the archive, now {}", moment(last.at, words))
        }
        (Goal::EndOfArchive, _) => "the end of the archive".to_owned(),
        (Goal::Time(time), _) => {
            format!("{before}{}, {}", moment(time.at, words), render::ago(time.at, words.now))
        }
        (Goal::Xid(_) | Goal::Name(_), Reached::Found { at, .. }) => {
            let when = at.time.map_or_else(String::new, |time| format!(", {}", moment(time, words)));
            format!("{before}{}, found at {} in {}{when}", target_words(&plan.target), at.lsn, at.segment)
        }
        _ => format!("{before}{}", target_words(&plan.target)),
    };
    match plan.target.goal {
        Goal::None | Goal::Preserve => place,
        _ => format!("{place}, on timeline {}", plan.timeline),
    }
}

fn backup_line(plan: &Plan<'_>) -> String {
    let record = &plan.backup.record;
    let why = match (&plan.target.goal, plan.named) {
        (_, true) => "as named by --set",
        (Goal::Time(_) | Goal::Lsn(_) | Goal::Xid(_) | Goal::Name(_), false) => {
            "the newest before the target"
        }
        _ => "the newest",
    };
    let mut line = format!("{}, ends {}, {why}", record.backup_id, render::utc(record.stopped_at_unix_us));
    if !plan.other_clusters.is_empty() {
        line.push_str(&format!(
            "\nof PostgreSQL {}, system {}",
            record.cluster.server_version_num / 10_000,
            record.system_identifier
        ));
    }
    for other in &plan.other_clusters {
        let how = if other.has_backup { "--set=ID restores one of it" } else { "no backup of it exists" };
        line.push_str(&format!(
            "\nThe stanza also holds PostgreSQL {}, system {}: {how}",
            other.major, other.system
        ));
    }
    line
}

fn wal_line(plan: &Plan<'_>, words: &Words<'_>) -> String {
    let from = words.settings.iter().map(crate::settings::RepositorySettings::name).collect::<Vec<_>>();
    let count = plan.wal.count();
    match plan.wal.ends(plan.segment_size) {
        Some((first, last)) if first == last => format!("{first}, there (read from {})", from.join(", ")),
        Some((first, last)) => format!(
            "{first} … {last}: {} segments, all there (read from {})",
            render::count(count),
            from.join(", ")
        ),
        None => "none".to_owned(),
    }
}

fn place_line(plan: &Plan<'_>) -> String {
    let place = &plan.place;
    let found = match &place.found {
        Found::Absent => "to be made".to_owned(),
        Found::Empty => "empty".to_owned(),
        Found::Unfinished => "holds a restore that did not finish and is begun again".to_owned(),
        Found::DataDirectory { version, pid_left } => format!(
            "holds a PostgreSQL {version} data directory{} that is REPLACED",
            if *pid_left { " with a left postmaster.pid" } else { "" }
        ),
    };
    let mode = match place.group_access {
        Some(true) => ", mode 0750",
        Some(false) => ", mode 0700",
        None => "",
    };
    let mut text = format!(
        "{} ({found}, {} free, {} needed), owner {}{mode}",
        place.pgdata.display(),
        place.room.free.plus(place.freed),
        plan.needed,
        place.owner.user_name()
    );
    if let Some((wal_dir, _)) = &place.wal_dir {
        text.push_str(&format!("\npg_wal in {}", wal_dir.display()));
    }
    for (oid, bytes) in &plan.in_spaces {
        let bytes = ByteCount::new(*bytes);
        let Some(space) = place.tablespaces.iter().find(|space| space.oid == *oid) else {
            text.push_str(&format!("\ntablespace {oid}, {bytes}, in the data directory itself"));
            continue;
        };
        let found = match (space.to_be_emptied, space.shared) {
            (true, _) => format!(" (holds {} that is REPLACED)", place.version_folder()),
            (false, true) => " (beside another version's files, which stay)".to_owned(),
            (false, false) if space.room.device == place.room.device => String::new(),
            (false, false) => format!(" ({} free)", space.room.free),
        };
        text.push_str(&format!("\ntablespace {oid}, {bytes}, in {}{found}", space.path.display()));
    }
    for left in &place.left_behind {
        text.push_str(&format!("\n{} is left as it is: a tablespace was there", left.display()));
    }
    if let Some((from, to)) = &place.wal_aside {
        text.push_str(&format!("\nits WAL is kept: {} is moved to {}", from.display(), to.display()));
        if place.wal_dir.is_none() && !from.starts_with(&place.pgdata) {
            text.push_str(&format!(
                "\npg_wal will be in the data directory (--wal-dir={} keeps it there)",
                from.display()
            ));
        }
    }
    text
}

fn writes_line(plan: &Plan<'_>) -> String {
    let configuration = &plan.configuration;
    let signal = match configuration.signal {
        Signal::AsInImage => "what the image has",
        Signal::None => "no signal file",
        Signal::Recovery | Signal::Standby => configuration.signal.file().unwrap_or_default(),
    };
    let settings: Vec<String> = configuration
        .settings
        .iter()
        .map(|setting| match setting.name.as_str() {
            "restore_command" | "primary_conninfo" | "recovery_target_time" | "recovery_target_name" => {
                setting.name.clone()
            }
            name => format!("{name} = {}", String::from_utf8_lossy(&setting.value)),
        })
        .collect();
    let mut text = signal.to_owned();
    if !settings.is_empty() {
        text.push_str(&format!("; in postgresql.auto.conf: {}", settings.join(", ")));
    }
    if let Some(at) = &plan.alive_at {
        text.push_str(&format!(", because {at} (--archive-mode=preserve keeps archiving on)"));
    }
    text
}

/// The plan, one aspect a line, ending with a line's end.
pub(super) fn plan_text(plan: &Plan<'_>, words: &Words<'_>) -> String {
    let fetch = format!(
        "{} of data, at most {} of WAL",
        ByteCount::new(plan.backup.record.sizes.stored_bytes),
        plan.wal_bytes()
    );
    let mut target = target_line(plan, words);
    if let Goal::Time(time) = &plan.target.goal
        && let Some(zone) = &time.assumed_zone
    {
        target.push_str(&format!("\n(no zone was given: read as {zone})"));
    }
    let mut text = String::new();
    for (label, aspect) in [
        ("target", target),
        ("backup", backup_line(plan)),
        ("WAL", wal_line(plan, words)),
        ("fetch", fetch),
        ("into", place_line(plan)),
        ("writes", writes_line(plan)),
    ] {
        for (at, line) in aspect.lines().enumerate() {
            let label = if at == 0 { label } else { "" };
            let wrapped = render::wrap(line, 100, 10);
            text.push_str(&format!("{label:<10}{}\n", wrapped.trim()));
        }
    }
    text
}

/// The plan for programs.
pub(super) fn plan_json(plan: &Plan<'_>, words: &Words<'_>, dry_run: bool) -> serde_json::Value {
    let record = &plan.backup.record;
    let ends = plan.wal.ends(plan.segment_size);
    let found = match &plan.reached {
        Reached::Found { at, .. } => json!({
            "lsn": at.lsn.to_string(),
            "segment": at.segment.to_string(),
            "time_unix_us": at.time.map(Timestamp::as_unix_micros),
        }),
        Reached::Time { segment, .. } => json!({"segment": segment.to_string()}),
        Reached::Stop(_) | Reached::End { .. } => serde_json::Value::Null,
    };
    let settings: serde_json::Map<String, serde_json::Value> = plan
        .configuration
        .settings
        .iter()
        .map(|setting| {
            let value = String::from_utf8_lossy(&setting.value);
            let value = if may_hold_password(&value) { HOLDS_PASSWORD.into() } else { value };
            (setting.name.clone(), value.into())
        })
        .collect();
    json!({
        "dry_run": dry_run,
        "stanza": words.stanza.as_str(),
        "system_identifier": record.system_identifier.to_string(),
        "type": plan.target.goal.kind().as_str(),
        "target_time_unix_us": match &plan.target.goal {
            Goal::Time(time) => Some(time.at.as_unix_micros()),
            _ => None,
        },
        "target_exclusive": plan.target.exclusive,
        "target_action": plan.target.action.map(TargetAction::as_str),
        "target_timeline": plan.timeline.as_u32(),
        "found": found,
        "backup_id": record.backup_id.as_str(),
        "backup_named": plan.named,
        "repository": words.repository(plan.repository()),
        "start_lsn": record.start_lsn.to_string(),
        "stop_lsn": record.stop_lsn.to_string(),
        "stopped_at_unix_us": record.stopped_at_unix_us.as_unix_micros(),
        "wal_first": ends.map(|(first, _)| first.to_string()),
        "wal_last": ends.map(|(_, last)| last.to_string()),
        "wal_segments": plan.wal.count(),
        "wal_bytes": plan.wal_bytes().as_u64(),
        "fetch_bytes": record.sizes.stored_bytes,
        "database_bytes": record.sizes.database_bytes,
        "path": plan.place.pgdata.to_string_lossy(),
        "needed_bytes": plan.needed.as_u64(),
        "free_bytes": plan.place.room.free.plus(plan.place.freed).as_u64(),
        "replaces": matches!(plan.place.found, Found::DataDirectory { .. }),
        "wal_dir": plan.place.wal_dir.as_ref().map(|(path, _)| path.to_string_lossy()),
        "tablespaces": tablespaces_json(plan),
        "wal_moved_to": plan.place.wal_aside.as_ref().map(|(_, to)| to.to_string_lossy()),
        "owner": plan.place.owner.user_name(),
        "signal": plan.configuration.signal.file(),
        "settings": settings,
    })
}

fn tablespaces_json(plan: &Plan<'_>) -> Vec<serde_json::Value> {
    let space = |tablespace: &Tablespace| {
        let oid = tablespace.oid;
        let place = plan.place.tablespaces.iter().find(|space| space.oid == oid);
        json!({
            "oid": oid,
            "original_path": tablespace.location,
            "path": place.map_or_else(
                || plan.place.pgdata.join(&tablespace.location),
                |place| place.path.clone(),
            ).to_string_lossy(),
            "in_place": place.is_none(),
            "bytes": plan.in_spaces.get(&oid).copied().unwrap_or(0),
            "free_bytes": place.map(|place| place.room.free.as_u64()),
            "replaces": place.is_some_and(|place| place.to_be_emptied),
        })
    };
    plan.backup.record.tablespaces.iter().map(space).collect()
}

/// Says what should be read before going on; whether there was anything of weight.
pub(super) fn warn(plan: &Plan<'_>, words: &Words<'_>, report: &Report, secrets: &[String]) -> bool {
    let mut warned = false;
    for warning in &plan.warnings {
        let text = match warning {
            Warning::Unread { repository, why } => {
                format!(
                    "{} could not be read, the plan goes without it: {why}",
                    words.repository(*repository)
                )
            }
            Warning::GapAhead(range) => {
                let name = range.first_name(plan.segment_size);
                let name = name.map_or_else(String::new, |name| format!(" from {name} on"));
                format!("the archive has a gap{name}: the standby must stream past it from its primary")
            }
            Warning::NameTwice(lsn) => {
                format!("the restore point was made again at {lsn}; recovery stops at the first")
            }
            Warning::BadPages(count) => {
                format!("{count} pages of this backup failed their checksums when it was taken")
            }
            Warning::ConfigurationOutside(files) => {
                report.info(format!(
                    "note: {} were outside the data directory and are not in the backup",
                    files.join(", ")
                ));
                continue;
            }
        };
        report.warn(text);
        warned = true;
    }
    let needs_secret = matches!(plan.configuration.signal, Signal::Recovery | Signal::Standby);
    if needs_secret && !secrets.is_empty() {
        report.warn(format!(
            "restore_command will not have {} unless the server's environment has it: put the secret into the \
             configuration file or a key file before starting the server",
            secrets.join(", ")
        ));
        warned = true;
    }
    if words.wanted.recovery_options.iter().any(|(name, _)| name.replace('-', "_") == "restore_command") {
        report.warn(
            "restore_command is replaced by --recovery-option: if it answers 1 to 125 for anything but the end of the \
             archive, recovery ends early without a word",
        );
        warned = true;
    }
    warned
}

/// What to do when it is done.
pub(super) fn after_the_act(plan: &Plan<'_>, words: &Words<'_>) -> String {
    let pgdata = plan.place.pgdata.display();
    let user = plan.place.owner.user_name();
    let mut text = String::new();
    let outside = plan.warnings.iter().find_map(|warning| match warning {
        Warning::ConfigurationOutside(files) => Some(files.join(", ")),
        _ => None,
    });
    if let Some(files) = outside {
        text.push_str(&format!(
            "first         put {files} into {pgdata}: no base backup holds them.\n              \
             From the old server, without data_directory, hba_file, ident_file and external_pid_file;\n              \
             or new ones: `pg_controldata {pgdata}` tells the smallest max_connections etc.\n"
        ));
    }
    text.push_str(&format!("start it      as {user}: pg_ctl -D {pgdata} start\n"));
    let mut line = |label: &str, words: &str| text.push_str(&format!("{label:<14}{words}\n"));
    let other_port = "              on a port of its own if another server has it: -o '-p 5433'";
    match (&plan.target.goal, plan.target.action) {
        (Goal::EndOfArchive, _) => {
            line("", other_port.trim_start());
            line(
                "it is done",
                "when its log says \"archive recovery complete\"; it then is open for writing",
            );
        }
        (Goal::Standby, _) => {
            line(
                "it follows",
                "its log says \"consistent recovery state reached\" and then \"started streaming\"",
            );
            if plan.configuration.value("primary_conninfo").is_none_or(|value| value.is_empty()) {
                line("to stream", "set primary_conninfo, or it follows the archive only");
            }
        }
        (Goal::Preserve, _) => line("", "recovery follows the settings that the image carried"),
        (Goal::None, _) => {
            line("", other_port.trim_start());
            line("it is done", "when its log says \"database system is ready to accept connections\"");
        }
        (_, Some(TargetAction::Promote)) => {
            line("", other_port.trim_start());
            line(
                "it is there",
                "when its log says \"recovery stopping\" and then \"archive recovery complete\"",
            );
        }
        (_, Some(TargetAction::Shutdown)) => {
            line("it is there", "when its log says \"recovery stopping\"; it then shuts down");
            // Without the signal PostgreSQL would know of no target, and replay what lies behind it in pg_wal.
            line("to go on", "leave recovery.signal where it is; to let it become a server of its own:");
            line("", &format!("echo \"recovery_target_action = promote\" >> {pgdata}/postgresql.auto.conf"));
            line("", "and start it again; with pause instead of promote it lets you look first");
        }
        _ => {
            line("", other_port.trim_start());
            line(
                "it is there",
                "when its log says \"recovery stopping\" and \"pausing at the end of recovery\"",
            );
            line("look", "it is open for reading: connect and check what you came for");
            line(
                "it hangs?",
                "a query that does not answer waits for a lock of a transaction that is not finished there",
            );
            line(
                "",
                "(TRUNCATE, DROP, ALTER before its COMMIT). Restore to a moment before that transaction,",
            );
            line("", "or resume as below: that ends it, and undoes it.");
            line(
                "keep it",
                "select pg_wal_replay_resume();  it becomes a server of its own on a new timeline",
            );
        }
    }
    if matches!(plan.target.goal, Goal::Time(_) | Goal::Xid(_) | Goal::Lsn(_) | Goal::Name(_)) {
        line(
            "not right?",
            &format!(
                "stop it and restore another moment: --force, and another --target (stanza {})",
                words.stanza
            ),
        );
    }
    if plan.configuration.value("archive_mode").as_deref() == Some("off") {
        line(
            "archiving",
            "is off. Before this server takes over: alter system reset archive_mode; and restart it",
        );
    }
    if let Some((_, to)) = &plan.place.wal_aside {
        line(
            "old WAL",
            &format!("{} may hold WAL that is nowhere else; remove it when it is not needed", to.display()),
        );
    }
    text
}
