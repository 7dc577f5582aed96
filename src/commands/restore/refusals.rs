//! Why a restore was not begun, or did not finish, in a person's words.

use super::Words;
use super::show::target_words;
use crate::commands::open::repository_failure;
use crate::failure::{Class, Failure};
use crate::repo::RepoError;
use crate::restore::directory::DirectoryError;
use crate::restore::error::RestoreError;
use crate::restore::plan::{PlanError, Request, WindowSeen};
use crate::restore::reach::Unreachable;
use crate::restore::scan::ScanError;
use crate::restore::tablespaces::TablespaceError;
use crate::restore::target::{Goal, TargetError};
use crate::restore::target_time::utc_text;
use crate::settings::RepositorySettings;
use crate::units::{SegmentSize, Timestamp};
use crate::wal::WalError;
use crate::wal::archive::lineage::SegmentRange;
use std::path::Path;

/// A target that cannot be read.
pub(super) fn target(error: TargetError) -> Failure {
    let TargetError::Time(error) = error else {
        return Failure::new(Class::Usage, "cannot tell where to recover to")
            .because(error)
            .next("`walden help restore type` and `walden help restore target` tell what can be said.");
    };
    let readings = error.readings().to_vec();
    let mut failure = Failure::new(Class::Usage, "cannot tell which moment is meant").because(error);
    if readings.is_empty() {
        failure = failure.next(
            "Write it as 2026-11-21 09:14:59+01, 2026-11-21 09:14:59 Europe/Berlin, \"10 minutes ago\" or \
             \"yesterday 14:00\".",
        );
    }
    for reading in readings {
        failure = failure.next(format!("Say --target='{}'{}", split(&reading).0, split(&reading).1));
    }
    failure
}

/// `2026-03-02 09:14 (day first)` → the text to write, and the rest of the sentence.
fn split(reading: &str) -> (&str, String) {
    match reading.split_once(" (") {
        Some((text, why)) => (text, format!(" for {}.", why.trim_end_matches(')'))),
        None => (reading, ".".to_owned()),
    }
}

fn short(at: Timestamp) -> String {
    // Rounded down: what is offered must lie before the end.
    utc_text(Timestamp::from_unix_seconds(at.as_unix_seconds()))
}

/// The last moment before a commit: recovery to it stops at that commit. Not rounded: a backup may have ended
/// within the same second, and what is offered must work.
fn just_before(commit: Timestamp) -> String {
    utc_text(Timestamp::from_unix_micros(commit.as_unix_micros().saturating_sub(1)))
}

fn with_windows(failure: Failure, windows: &[WindowSeen], goal: &Goal) -> Failure {
    if windows.is_empty() {
        return failure.because_text("there is no moment to which any backup leads");
    }
    let mut text = "you can go back to any moment in".to_owned();
    for window in windows.iter().take(12) {
        let line = match goal {
            Goal::Lsn(_) => format!("{} … {}", window.from_lsn, window.to_lsn),
            _ => match window.to {
                Some(to) => format!("{} UTC … {} UTC", short(window.from), short(to)),
                None => format!("{} UTC … (no commit since)", short(window.from)),
            },
        };
        text.push_str(&format!("\n{line}   timeline {}", window.timeline));
    }
    failure.because_text(text)
}

/// `0000000100000002000000A3 … 0000000100000002000000A5 (3 segments)`.
fn ranges(missing: &[SegmentRange], size: SegmentSize) -> String {
    let mut shown: Vec<String> = missing
        .iter()
        .take(3)
        .map(|range| {
            let name =
                |name: Option<crate::units::SegmentName>| name.map_or_else(String::new, |n| n.to_string());
            match range.count() {
                1 => name(range.first_name(size)),
                _ => format!("{} … {}", name(range.first_name(size)), name(range.last_name(size))),
            }
        })
        .collect();
    if missing.len() > 3 {
        shown.push(format!("and {} more stretches", missing.len() - 3));
    }
    shown.join(", ")
}

/// There is no plan. Nothing was touched.
pub(super) fn plan(error: PlanError, request: &Request<'_>, words: &Words<'_>) -> Failure {
    let stanza = words.stanza;
    let target = target_words(&request.target);
    match error {
        PlanError::NoBackup => Failure::new(
            Class::NoRepository,
            format!("cannot restore: there is no backup of stanza {stanza}"),
        )
        .because_text(format!("looked in {}", names(words)))
        .next("Check --stanza and the repositories; `walden info` lists what there is."),
        PlanError::NoSuchSet(_) => Failure::new(Class::Usage, "cannot restore: there is no such backup")
            .because(error)
            .next("`walden info` lists the backups; any beginning of an id that is unique will do."),
        PlanError::AmbiguousSet { ref fitting, .. } => {
            let fitting: Vec<String> = fitting.iter().map(ToString::to_string).collect();
            Failure::new(Class::Usage, "cannot tell which backup is meant")
                .because(error)
                .next(format!("Write more of it: {}.", fitting.join(", ")))
        }
        PlanError::UnknownTimeline { ref known, .. } => {
            let known: Vec<String> = known.iter().map(ToString::to_string).collect();
            Failure::new(
                Class::TargetUnreachable,
                format!("cannot restore to {target}: the timeline is unknown"),
            )
            .because(error)
            .because_text(format!("known timelines: {}", known.join(", ")))
            .next("Leave out --target-timeline for the newest, or name one of these.")
        }
        PlanError::TimelineWithoutHistory(timeline) => Failure::new(
            Class::TargetUnreachable,
            format!("cannot restore to {target}: where the newest timeline came from is not known"),
        )
        .because(error)
        .next(format!(
            "Put {} back: it is in pg_wal of every server that followed timeline {timeline}; `walden \
             archive-push` stores it.",
            timeline.history_name()
        ))
        .next("Or name the timeline to go back on: --target-timeline=NUMBER."),
        PlanError::SetNotOnTimeline { ref id, own, .. } => {
            let id = id.clone();
            Failure::new(Class::TargetUnreachable, format!("cannot restore to {target} from backup {id}"))
                .because(error)
                .next(format!("Stay on the backup's own timeline: --target-timeline={own}."))
                .next("Or leave out --set, and the newest backup that leads there is taken.")
        }
        PlanError::TooEarly { set, windows } => {
            let failure = match &set {
                Some((id, ended)) => Failure::new(
                    Class::TargetUnreachable,
                    format!("cannot restore to {target} from backup {id}: it ended later"),
                )
                .because_text(format!("the backup is consistent from {} UTC on", short(*ended))),
                None => Failure::new(
                    Class::TargetUnreachable,
                    format!("cannot restore to {target}: no backup is as old as that"),
                ),
            };
            let failure = with_windows(failure, &windows, &request.target.goal);
            match set {
                Some(_) => failure.next("Leave out --set, and the newest backup that leads there is taken."),
                None => failure.next("Choose a moment in one of these."),
            }
        }
        PlanError::Unreachable { why, segment_size, windows } => {
            unreachable(&why, segment_size, &windows, request, &target)
        }
        PlanError::BackupWalMissing { id, missing, segment_size } => Failure::new(
            Class::WalMissing,
            format!("cannot restore backup {id}: WAL that it cannot do without is missing"),
        )
        .because_text(format!("{} in no repository", are(&missing, segment_size)))
        .next("Take another backup with --set; `walden info` lists them.")
        .next("`walden archive-push` fills the gap if any server or disk still has these segments."),
        PlanError::Unsure { repository, source } => Failure::new(
            Class::StorageUnavailable,
            format!("could not plan a restore to {target}: {} does not answer", words.repository(repository)),
        )
        .because(source)
        .because_text("the other repositories do not hold all the WAL that is needed")
        .next("Try again when it answers."),
        PlanError::OtherBranch { ref id, .. } => Failure::new(
            Class::WalConflict,
            format!("cannot restore backup {id}: the archive under its names is another server's"),
        )
        .because(error)
        .next("Two servers archived to one stanza. `walden verify` tells which WAL belongs to which backup."),
        PlanError::NoSpace { path, what, needed, free } => {
            let failure = Failure::new(
                Class::LocalFileSystem,
                format!("cannot restore into {}: not enough space", path.display()),
            )
            .because_text(format!("{needed} are needed in its file system, {free} are free"));
            let mut ways = Vec::new();
            if what.contains(&None) {
                ways.push("--pg1-path=DIRECTORY".to_owned());
            }
            ways.extend(what.iter().flatten().map(|oid| format!("--tablespace-map={oid}=DIRECTORY")));
            failure.next(format!("Make room, or restore to another file system: {}.", ways.join(", ")))
        }
        PlanError::Tablespaces(error) => tablespaces(&error),
        PlanError::Directory(error) => directory(error),
        PlanError::Option(error) => Failure::new(Class::Usage, "cannot set a recovery option").because(error),
        PlanError::Repo(at, error) => repo(error, words.settings.get(at), "could not plan the restore"),
        PlanError::Wal(error) => wal(error, words.settings.first(), "could not plan the restore"),
        PlanError::Scan(ScanError::Wal(error)) => {
            wal(error, words.settings.first(), "could not look for the target in the archived WAL")
        }
        PlanError::Scan(error) => {
            Failure::new(Class::Damaged, "could not look for the target in the archived WAL").because(error)
        }
        PlanError::BadRecord { .. } => {
            Failure::new(Class::Damaged, "could not plan the restore").because(error)
        }
    }
}

fn names(words: &Words<'_>) -> String {
    words.settings.iter().map(RepositorySettings::name).collect::<Vec<_>>().join(", ")
}

fn is_or_are(missing: &[SegmentRange]) -> &'static str {
    if missing.iter().map(SegmentRange::count).sum::<u64>() == 1 { "is" } else { "are" }
}

fn are(missing: &[SegmentRange], size: SegmentSize) -> String {
    format!("{} {}", ranges(missing, size), is_or_are(missing))
}

fn unreachable(
    why: &Unreachable,
    size: SegmentSize,
    windows: &[WindowSeen],
    request: &Request<'_>,
    target: &str,
) -> Failure {
    let class = Class::TargetUnreachable;
    match why {
        Unreachable::ArchiveEnds { last, segment, end } => {
            let segment = segment.map_or_else(String::new, |segment| format!(" (segment {segment})"));
            let reaches = match (&request.target.goal, last) {
                (Goal::Lsn(_), _) | (_, None) => end.to_string(),
                (_, Some(last)) => format!("{} UTC", utc_text(last.at)),
            };
            let failure =
                Failure::new(class, format!("cannot restore to {target}: the archive ends before it"))
                    .because_text(format!("the newest archived WAL reaches {reaches}{segment}"));
            let failure = match &request.target.goal {
                Goal::Time(time) if time.at > request.now => failure.because_text(format!(
                    "that moment is still to come: here it is {} UTC",
                    utc_text(Timestamp::from_unix_seconds(request.now.as_unix_seconds()))
                )),
                _ => failure.next(
                    "If the old server still runs: `select pg_switch_wal()` there, wait some seconds, and run this again.",
                ),
            };
            failure
                .next("Restore to the end of the archive with --type=default.")
                .next(
                    "If the old server's disk is readable, save its pg_wal with `walden archive-push` first; it may \
                     hold what is missing.",
                )
        }
        Unreachable::Gap { missing, before, after } => {
            let times = match (before, after) {
                (Some(before), Some(after)) => {
                    format!(" ({} UTC – {} UTC)", short(before.at), short(after.at))
                }
                (Some(before), None) => format!(" (from {} UTC on)", short(before.at)),
                _ => String::new(),
            };
            let failure =
                Failure::new(class, format!("cannot restore to {target}: WAL is missing on the way"))
                    .because_text(format!(
                        "{}{times} {} in no repository",
                        ranges(missing, size),
                        is_or_are(missing)
                    ));
            let failure = match before {
                Some(before) => {
                    let at = just_before(before.at);
                    failure.next(format!(
                        "The last moment reachable before the gap is {at} UTC: --type=time --target='{at}+00'."
                    ))
                }
                None => failure,
            };
            with_windows(failure, windows, &request.target.goal)
                .next("`walden archive-push` fills the gap if any server or disk still has these segments.")
        }
        Unreachable::NotFound { end, from, gap } => {
            let mut failure =
                Failure::new(class, format!("cannot restore to {target}: it is not in the archive"))
                    .because_text(format!("the archived WAL was searched from {from} to {end}"));
            if let Some(gap) = gap {
                failure = failure.because_text(format!(
                    "{} in no repository, so it was not searched further",
                    are(std::slice::from_ref(gap), size)
                ));
            }
            match &request.target.goal {
                Goal::Xid(_) => failure
                    .next(
                        "A transaction that wrote nothing, or a part of one (savepoint), is not in the WAL.",
                    )
                    .next("Restore to a moment instead: --type=time."),
                _ => failure
                    .next("Names are compared letter by letter; blanks count.")
                    .next("Restore to a moment instead: --type=time."),
            }
        }
    }
}

const ALL_ELSEWHERE: &str =
    "Or all of them: --tablespace-map-all=DIRECTORY, each in a directory named by its OID.";

fn tablespaces(error: &TablespaceError) -> Failure {
    let failure =
        Failure::new(Class::Usage, "cannot follow --tablespace-map").because_text(error.to_string());
    match error {
        TablespaceError::NotAKey(_) => failure
            .next("Name a tablespace by its OID or by the directory it had; its name is in no base backup.")
            .next("`walden info --set=BACKUP` lists both; on the server: select oid, spcname from pg_tablespace."),
        TablespaceError::Unknown { known, .. } if known.is_empty() => {
            failure.next("The backup has no tablespaces at all: leave the option out.")
        }
        TablespaceError::Unknown { known, .. } => {
            let known: Vec<String> = known.iter().map(|one| format!("{} at {}", one.oid, one.location)).collect();
            failure.next(format!("It has these: {}.", known.join(", ")))
        }
        TablespaceError::Twice(_) => failure.next("Name it once."),
    }
}

/// The directory is refused. Nothing was touched.
pub(super) fn directory(error: DirectoryError) -> Failure {
    let class = match &error {
        DirectoryError::Look { .. } | DirectoryError::NoRights { .. } | DirectoryError::NotRoot(_) => {
            Class::LocalFileSystem
        }
        DirectoryError::RestoreRunning(_) => Class::Locked,
        _ => Class::DirectoryRefused,
    };
    let into = |path: &Path| format!("cannot restore into {}", path.display());
    match &error {
        DirectoryError::ServerRunning { path, server, sign } => {
            let port = server.port.map_or_else(String::new, |port| format!(", port {port}"));
            let failure = Failure::new(
                class,
                format!("{}: a server is running there (postmaster {}{port})", into(path), server.pid),
            );
            let mut beside = path.clone().into_os_string();
            beside.push("-restored");
            failure
                .because_text(sign.to_string())
                .next(format!("Restore beside it: --pg1-path={}.", Path::new(&beside).display()))
        }
        DirectoryError::DataDirectory { path, version } => {
            Failure::new(class, format!("{}: it holds a PostgreSQL {version} data directory", into(path)))
                .next("Restore beside it: --pg1-path=DIRECTORY.")
                .next("Or replace it with --force; its pg_wal is kept beside it.")
        }
        DirectoryError::PidFileLeft(path) => {
            Failure::new(class, format!("{}: a server worked there and did not stop properly", into(path)))
                .because_text("its postmaster.pid is still there, but no process of it was found")
                .next("Make sure that no server uses this directory from another host or container.")
                .next("Then replace it with --force; its pg_wal is kept beside it.")
        }
        DirectoryError::OtherContents { path, names } => {
            let names: Vec<_> = names.iter().map(|name| name.to_string_lossy()).collect();
            Failure::new(class, format!("{}: it is not empty", into(path)))
                .because_text(format!("it holds {}, and is no PostgreSQL data directory", names.join(", ")))
                .next(
                    "Restore into a directory that is empty or does not exist; --force does not change this.",
                )
        }
        DirectoryError::OtherCluster { path, system } => {
            let failure = Failure::new(class, format!("{}: it holds another cluster", into(path)));
            match system {
                Some(system) => failure.because_text(format!("its system identifier is {system}")),
                None => failure.because_text("its pg_control is damaged, so whose it is cannot be told"),
            }
            .next("Restore into another directory, or remove this one yourself; --force does not.")
        }
        DirectoryError::OwnerIsRoot(path) => {
            Failure::new(class, format!("{}: the files would belong to root", into(path)))
                .because_text(
                    "PostgreSQL does not run as root, and the directory's owner decides to whom they belong",
                )
                .next("Name the server's user: --owner=postgres.")
        }
        DirectoryError::WalCannotMove { wal } => {
            Failure::new(class, format!("cannot move {} aside", wal.display()))
                .because(error)
                .next("Move the files in it to a safe place yourself, then run the command again.")
        }
        DirectoryError::NotEmpty { .. } => Failure::new(class, "cannot restore there")
            .because(error)
            .next("Name a directory that is empty or does not exist."),
        DirectoryError::TablespaceNotEmpty { oid, holds_own, .. } => {
            let (oid, holds_own) = (*oid, *holds_own);
            let failure =
                Failure::new(class, format!("cannot restore tablespace {oid} there")).because(error);
            let failure = if holds_own {
                failure.because_text("it may be the living original: nothing there is touched")
            } else {
                failure
            };
            failure.next(format!("Put it elsewhere: --tablespace-map={oid}=DIRECTORY.")).next(ALL_ELSEWHERE)
        }
        DirectoryError::UsedByServer { oid, through_link, .. } => {
            let (oid, through_link) = (*oid, *through_link);
            let what = match oid {
                Some(oid) => format!("cannot restore tablespace {oid} there"),
                None => "cannot restore there".to_owned(),
            };
            let failure = Failure::new(class, what).because(error);
            let failure = match (through_link, oid) {
                (true, _) => failure.because_text(
                    "the data directory that is to be replaced has the links of a copy: they lead to that server's files",
                ),
                (false, _) => failure,
            };
            match oid {
                Some(oid) => failure
                    .next(format!("Put it elsewhere: --tablespace-map={oid}=DIRECTORY."))
                    .next(ALL_ELSEWHERE),
                None => failure.next("Restore into a new directory: --pg1-path=DIRECTORY."),
            }
        }
        DirectoryError::HoldsOther { .. } => Failure::new(class, "cannot restore there")
            .because(error)
            .next("Restore into a directory apart from it: --pg1-path=DIRECTORY."),
        DirectoryError::RestoreRunning(path) => {
            Failure::new(class, format!("{}: another restore is at work there", into(path)))
                .because_text("its directory is locked")
                .next("Wait until it has ended, or restore elsewhere: --pg1-path=DIRECTORY.")
        }
        DirectoryError::Changed(_) => Failure::new(class, "could not begin the restore")
            .because(error)
            .because_text("nothing was touched")
            .next("Run the same command again: it makes a new plan."),
        DirectoryError::Nested { .. } => Failure::new(class, "cannot restore there")
            .because(error)
            .next("Keep the data directory, pg_wal and tablespaces apart."),
        DirectoryError::NotRoot(_) => Failure::new(class, "cannot set the owner")
            .because(error)
            .next("Run it as that user, or as root."),
        DirectoryError::NoRights { wanted, .. } => {
            let what = into(wanted);
            Failure::new(class, what)
                .because(error)
                .next("Choose a place where you may write, or make the directory as root and give it to the server's user.")
                .next("Or run it as root with --owner.")
        }
        DirectoryError::NotAbsolute(_) | DirectoryError::NotADirectory(_) => {
            Failure::new(class, "cannot restore there").because(error)
        }
        DirectoryError::Look { .. } => {
            Failure::new(class, "could not look at the target directory").because(error)
        }
    }
}

fn repo(error: RepoError, settings: Option<&RepositorySettings>, what: &str) -> Failure {
    match settings {
        Some(settings) => repository_failure(error, settings, what),
        None => Failure::new(Class::Damaged, what).because(error),
    }
}

fn wal(error: WalError, settings: Option<&RepositorySettings>, what: &str) -> Failure {
    match error {
        WalError::Repo(error) => repo(error, settings, what),
        WalError::Sink(error) => Failure::new(Class::LocalFileSystem, what).because(error),
        other => Failure::new(Class::Damaged, what).because(other),
    }
}

/// It was begun and did not finish.
pub(super) fn execution(error: RestoreError, place: &Path, settings: Option<&RepositorySettings>) -> Failure {
    let what = format!("could not restore into {}", place.display());
    let failure = match error {
        RestoreError::ServerStarted(_) => {
            return Failure::new(Class::DirectoryRefused, what)
                .because(error)
                .because_text("nothing was touched")
                .next("Stop it, and whatever starts it again, and run the same command again.");
        }
        RestoreError::Place(error) => return directory(error),
        RestoreError::Repo(error) => repo(error, settings, &what),
        RestoreError::Wal(error) => wal(error, settings, &what),
        RestoreError::File { .. } | RestoreError::Durable(_) | RestoreError::Resources(_) => {
            Failure::new(Class::LocalFileSystem, what).because(error)
        }
        RestoreError::Strange { .. } | RestoreError::Differs { .. } => {
            Failure::new(Class::Damaged, what).because(error)
        }
        RestoreError::WalGone(_) => Failure::new(Class::WalMissing, what).because(error),
        RestoreError::Stopped => Failure::new(Class::Interrupted, what).because(error),
        RestoreError::Interrupted => Failure::new(Class::Bug, what).because(error),
    };
    failure
        .because_text("no server can be started there: global/pg_control comes last")
        .next("Run the same command again when the reason is gone; it begins anew and needs no --force.")
}
