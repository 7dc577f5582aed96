//! `archive-get`: gives PostgreSQL a file of the archive, or tells it that there is none.
//!
//! Everything here ends in 0, 1 or 200. What is decided and why is in `wal::get::decide`; this file finds out
//! who asks, and for whose WAL, and puts the answer into words.

use super::open::{open_store, secret};
use super::{Context, Outcome, host_cache, word};
use crate::failure::{Class, Failure};
use crate::postgres::backup_label::{BackupLabel, LONGEST_LABEL};
use crate::postgres::control_file::{CONTROL_FILE_SIZE, ControlFile};
use crate::postgres::history::{LONGEST_HISTORY, TimelineHistory};
use crate::repo::{RepoError, Repository};
use crate::report::render;
use crate::settings::{ArchiveGetSettings, IfUnsure, RepositorySettings};
use crate::units::{Lsn, SegmentSize, Stanza, SystemIdentifier, TimelineId, WalFileName};
use crate::wal::get::decide::{Answer, Asker, Question, Trouble, TroubleKind, Verdict};
use crate::wal::get::repositories::Candidate;
use crate::wal::get::tablespaces::Server;
use crate::wal::get::{Cluster, Request, TenSeconds, fetch};
use std::cell::RefCell;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// See the module.
pub(super) fn run(context: &Context<'_>) -> Result<Outcome, Failure> {
    let settings = context.settings;
    let (Some(asked), Some(target)) = (word(context, 0), context.arguments.get(1).map(PathBuf::from)) else {
        return Err(Failure::new(Class::Usage, "archive-get needs NAME and TARGET"));
    };
    let name: WalFileName = asked.parse().map_err(|error| unsure("cannot look for it").because(error))?;
    let given = settings.archive_get()?;
    let asker = who_asks(&target, given.if_unsure);
    let stanza = settings.stanza()?;
    let repositories = settings.repositories()?;
    if repositories.is_empty() {
        return Err(unsure(format!("cannot look for {name}: no repository is configured")));
    }

    let candidates: Vec<Candidate<'_>> = repositories
        .iter()
        .map(|repository| Candidate::new(repository.name(), Box::new(|| open(context, repository))))
        .collect();
    let found = find_cluster(context, &given, &target, asker, stanza, &candidates);
    let cluster = match found {
        Ok(cluster) => cluster,
        Err(NoCluster::Failed(failure)) => return Err(failure),
        Err(NoCluster::Answer(answer)) => return tell(context, &name, asker, &answer, None),
    };
    let question = Question {
        asker,
        target: given.target_timeline.as_deref().and_then(|text| text.parse().ok()),
        followed: followed(&target, asker),
        known_end: given.known_end,
        needed_to: given.needed_to,
        size: cluster.size,
    };
    let server = if asker == Asker::Copier { None } else { server_of(&target) };
    let request = Request { cluster, question, name, server };
    let served = fetch::get(&request, &candidates, &target, &mut TenSeconds::default()).map_err(|error| {
        // A standby asks again; a recovery must not take a full disk for the end of the archive.
        let class = if asker == Asker::Standby { Class::NotInArchive } else { Class::CouldNotFindOut };
        Failure::new(class, format!("could not write {name} to {}", target.display())).because(error)
    })?;
    let last_commit = || match name {
        WalFileName::Segment(segment) => fetch::last_commit_before(&cluster, &candidates, segment),
        _ => None,
    };
    if let (Verdict::Serve { .. }, from) = (&served.answer.verdict, &served.from) {
        let from = from.as_deref().unwrap_or("what the archive has of it");
        context.report.detail(format!("{name} from {from} (row {})", served.answer.row));
    }
    let moment = (asker == Asker::Recovery && matches!(served.answer.verdict, Verdict::Unsure(_)))
        .then(last_commit)
        .flatten()
        .map(render::utc);
    tell(context, &name, asker, &served.answer, moment)
}

fn unsure(what: impl Into<String>) -> Failure {
    Failure::new(Class::CouldNotFindOut, what)
}

/// PostgreSQL's startup process asks for a file of a fixed name and renames it itself; `pg_rewind` and people
/// ask for the file's own name.
fn who_asks(target: &Path, if_unsure: IfUnsure) -> Asker {
    let name = target.file_name().and_then(|name| name.to_str());
    if !matches!(name, Some("RECOVERYXLOG" | "RECOVERYHISTORY")) {
        return Asker::Copier;
    }
    match if_unsure {
        IfUnsure::Stop => Asker::Recovery,
        IfUnsure::Standby => Asker::Standby,
        // PostgreSQL runs the command in the data directory.
        IfUnsure::Auto if Path::new("standby.signal").exists() => Asker::Standby,
        IfUnsure::Auto => Asker::Recovery,
    }
}

/// Opens a repository; trouble is put into the terms of the decision. This host's cache has none of its own.
fn open(context: &Context<'_>, settings: &RepositorySettings) -> Result<Repository, Trouble> {
    let trouble = |kind, why| Trouble { repository: settings.name(), kind, why };
    let from_failure = |failure: &Failure| {
        let kind = match failure.class() {
            Class::StorageUnavailable => TroubleKind::Unreachable,
            // A disk that is not mounted looks like no repository: it may be back the next time.
            Class::NoRepository | Class::LocalFileSystem => TroubleKind::Refused,
            Class::Damaged => TroubleKind::Damaged,
            _ => TroubleKind::Unusable,
        };
        trouble(kind, failure.reasons().first().cloned().unwrap_or_else(|| failure.what().to_owned()))
    };
    let store = open_store(settings).map_err(|failure| from_failure(&failure))?;
    let no_key: RefCell<Option<Failure>> = RefCell::new(None);
    let fetch = || match secret(settings) {
        Ok(secret) => Ok(secret),
        Err(failure) => {
            no_key.replace(Some(failure));
            Err(RepoError::KeyMissing)
        }
    };
    host_cache::open(context, settings, store, &fetch).map_err(|error| match no_key.take() {
        Some(failure) => trouble(TroubleKind::Unusable, failure.one_line()),
        None => {
            Candidate::new(settings.name(), Box::new(|| Err(trouble(TroubleKind::Refused, String::new()))))
                .trouble(&error)
        }
    })
}

/// Why it is not known whose WAL is meant.
enum NoCluster {
    /// Settings, or a data directory that is not what it should be.
    Failed(Failure),
    /// The repositories do not tell.
    Answer(Answer),
}

/// Whose WAL is asked for, and how long its segments are: `--system-id`, the control file of the data directory
/// that the target lies in, or that of `pg1-path`. They must not contradict each other.
fn find_cluster<'a>(
    context: &Context<'_>,
    given: &ArchiveGetSettings,
    target: &Path,
    asker: Asker,
    stanza: &'a Stanza,
    candidates: &[Candidate<'_>],
) -> Result<Cluster<'a>, NoCluster> {
    let fail = |failure| Err(NoCluster::Failed(failure));
    // `pg_wal/RECOVERYXLOG`: the data directory is above the target's. By name, because pg_wal may be a link.
    let here = target.parent().and_then(Path::parent).map(|above| match above.as_os_str().is_empty() {
        true => PathBuf::from("."),
        false => above.to_owned(),
    });
    let here = here.and_then(|data| control_file(&data));
    let configured = context.settings.server(1).path.and_then(|data| control_file(&data));
    let system = match (given.system_id, &here, &configured) {
        (Some(system), Some((file, path)), _) if file.system_identifier != system => {
            return fail(unsure(format!(
                "--system-id={system} is not the cluster of {} (system {})",
                path.display(),
                file.system_identifier
            )));
        }
        (Some(system), ..) => Some(system),
        (None, Some((one, path)), Some((other, elsewhere)))
            if one.system_identifier != other.system_identifier =>
        {
            return fail(unsure(format!(
                "cannot tell whose WAL is meant: {} is of system {} and {} of system {}; say it with --system-id",
                path.display(),
                one.system_identifier,
                elsewhere.display(),
                other.system_identifier
            )));
        }
        (None, one, other) => one.as_ref().or(other.as_ref()).map(|(file, _)| file.system_identifier),
    };
    let fits = |found: &Option<(ControlFile, PathBuf)>| {
        found
            .as_ref()
            .filter(|(file, _)| Some(file.system_identifier) == system)
            .map(|(file, _)| file.wal_segment_size)
    };
    if let (Some(system), Some(size)) = (system, fits(&here).or_else(|| fits(&configured))) {
        return Ok(Cluster { stanza, system, size });
    }
    if system.is_none() && asker != Asker::Copier {
        return fail(
            unsure("cannot tell whose WAL is meant: there is no readable global/pg_control above the target")
                .because_text("say it with --system-id or pg1-path"),
        );
    }
    from_repositories(stanza, system, candidates)
}

/// What a cluster is by its object in the repositories; the only one of the stanza if `system` is not known.
fn from_repositories<'a>(
    stanza: &'a Stanza,
    system: Option<SystemIdentifier>,
    candidates: &[Candidate<'_>],
) -> Result<Cluster<'a>, NoCluster> {
    let mut troubles = Vec::new();
    for candidate in candidates {
        let clusters = candidate.repository().and_then(|repository| {
            match system {
                Some(system) => repository.cluster(stanza, system).map(|one| one.into_iter().collect()),
                None => repository.clusters(stanza),
            }
            .map_err(|error| candidate.trouble(&error))
        });
        match clusters.as_deref() {
            Ok([cluster]) => {
                let size: SegmentSize = cluster.segment_size;
                return Ok(Cluster { stanza, system: cluster.system, size });
            }
            Ok([]) => {}
            Ok(several) => {
                let systems: Vec<String> = several.iter().map(|cluster| cluster.system.to_string()).collect();
                return Err(NoCluster::Failed(unsure(format!(
                    "cannot tell whose WAL is meant: stanza {stanza} holds systems {}; say it with --system-id",
                    systems.join(", ")
                ))));
            }
            Err(trouble) => troubles.push(trouble.clone()),
        }
    }
    if troubles.is_empty() {
        let which = system.map_or_else(|| "any cluster".to_owned(), |system| format!("system {system}"));
        return Err(NoCluster::Failed(unsure(format!(
            "stanza {stanza} does not hold {which} in any repository"
        ))));
    }
    Err(NoCluster::Answer(Answer::of_troubles(&troubles, candidates.len())))
}

/// The control file of a data directory, when there is one that can be read.
fn control_file(data: &Path) -> Option<(ControlFile, PathBuf)> {
    let data = std::path::absolute(data).ok()?;
    let path = data.join("global/pg_control");
    let mut bytes = Vec::with_capacity(CONTROL_FILE_SIZE + 1);
    File::open(path).ok()?.take(CONTROL_FILE_SIZE as u64 + 1).read_to_end(&mut bytes).ok()?;
    Some((ControlFile::parse(&bytes).ok()?, data))
}

/// The server whose startup process asks: the data directory above the target's.
fn server_of(target: &Path) -> Option<Server> {
    let above = target.parent().and_then(Path::parent)?;
    let data = if above.as_os_str().is_empty() { Path::new(".") } else { above };
    let (control, data) = control_file(data)?;
    let major = control.major?;
    let replays_from = replay_begins(&data);
    Some(Server { data, version_folder: format!("PG_{major}_{}", control.catalog_version), replays_from })
}

/// Where replay begins. As long as there is a `backup_label`, PostgreSQL goes by it, and the control file may be later; it
/// takes the label away after it has told the control file.
fn replay_begins(data: &Path) -> Option<Lsn> {
    match File::open(data.join("backup_label")) {
        Ok(file) => {
            let mut label = Vec::new();
            file.take(LONGEST_LABEL as u64 + 1).read_to_end(&mut label).ok()?;
            Some(BackupLabel::parse(&label).ok()?.start)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Some(control_file(data)?.0.check_point_copy.redo)
        }
        Err(_) => None,
    }
}

/// The newest history in the directory where PostgreSQL keeps its own.
fn followed(target: &Path, asker: Asker) -> Option<TimelineHistory> {
    if asker == Asker::Copier {
        return None;
    }
    let directory = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let newest = std::fs::read_dir(directory)
        .ok()?
        .filter_map(|entry| match entry.ok()?.file_name().to_str()?.parse() {
            Ok(WalFileName::History(timeline)) => Some(timeline),
            _ => None,
        })
        .max()?;
    let newest: TimelineId = newest;
    let mut bytes = Vec::new();
    let file = File::open(directory.join(newest.history_name())).ok()?;
    file.take(LONGEST_HISTORY as u64 + 1).read_to_end(&mut bytes).ok()?;
    TimelineHistory::parse(newest, &bytes).ok()
}

/// Turns the answer into an exit code and, where it deserves one, a line in PostgreSQL's log. `moment` is the
/// last commit that recovery has before the file.
fn tell(
    context: &Context<'_>,
    name: &WalFileName,
    asker: Asker,
    answer: &Answer,
    moment: Option<String>,
) -> Result<Outcome, Failure> {
    let code = answer.exit_code(asker);
    let Verdict::Unsure(doubt) = &answer.verdict else {
        context.report.debug(format!("{name}: exit {code} (row {})", answer.row));
        return Ok(if code == 0 { Outcome::Done } else { Outcome::NotThere });
    };
    let line = format!("{name} {doubt}{}", consequence(asker, answer.row, moment));
    if !answer.is_loud(asker) {
        context.report.debug(format!("{line} (row {})", answer.row));
        return Ok(Outcome::NotThere);
    }
    context.report.debug(format!("{name}: exit {code} (row {})", answer.row));
    Err(Failure::new(if code == 1 { Class::NotInArchive } else { Class::CouldNotFindOut }, line))
}

/// What the doubt leads to, as sentences after it.
fn consequence(asker: Asker, row: u8, moment: Option<String>) -> String {
    const STOPS: &str = ". Recovery stops here on purpose: ";
    let why = match (asker, row) {
        (Asker::Copier, _) => return String::new(),
        (Asker::Standby, 16) => {
            return ". The standby stops on purpose: going on would write into them. If no server uses them, move \
                    them away"
                .to_owned();
        }
        (Asker::Recovery, 16) => {
            "going on would write into them. If no server uses them, move them away and start again"
                .to_owned()
        }
        (Asker::Recovery, 17) => "going on might write into another cluster's files".to_owned(),
        (Asker::Standby, 14) => return ". The standby stops: asking again would not help".to_owned(),
        (Asker::Standby, _) => return ". The standby asks again".to_owned(),
        (Asker::Recovery, 2 | 4 | 5) => match moment {
            Some(moment) => format!("going on would lose everything after {moment}"),
            None => "going on would lose everything from there on".to_owned(),
        },
        (Asker::Recovery, 6) => "going on would replay what the target timeline never had".to_owned(),
        (Asker::Recovery, 7) => "going on would end it at the fork or beyond it".to_owned(),
        (Asker::Recovery, 11) => "going on would end it on an older timeline".to_owned(),
        (Asker::Recovery, _) => "it may be there, and \"not there\" would end it".to_owned(),
    };
    format!("{STOPS}{why}")
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "what a test writes needs not last")]
mod tests {
    use super::*;

    #[test]
    fn replay_begins_where_the_label_says_and_without_one_where_the_control_file_does() {
        let dir = tempfile::tempdir().unwrap();
        let fixture = |name: &str| {
            std::fs::read(format!("{}/fixtures/postgres/18/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
        };
        assert_eq!(replay_begins(dir.path()), None);
        std::fs::create_dir(dir.path().join("global")).unwrap();
        std::fs::write(dir.path().join("global/pg_control"), fixture("pg_control")).unwrap();
        let control = ControlFile::parse(&fixture("pg_control")).unwrap().check_point_copy.redo;
        assert_eq!(replay_begins(dir.path()), Some(control));
        let label = BackupLabel::parse(&fixture("backup_label")).unwrap().start;
        assert_ne!(label, control);
        std::fs::write(dir.path().join("backup_label"), fixture("backup_label")).unwrap();
        assert_eq!(replay_begins(dir.path()), Some(label));
        // One that is not understood is no reason to believe the control file.
        std::fs::write(dir.path().join("backup_label"), "START WAL LOCATION").unwrap();
        assert_eq!(replay_begins(dir.path()), None);
    }

    #[test]
    fn the_startup_process_is_told_from_pg_rewind_by_the_name_it_asks_for() {
        for (target, expected) in [
            ("pg_wal/RECOVERYXLOG", Asker::Recovery),
            ("pg_wal/RECOVERYHISTORY", Asker::Recovery),
            ("/srv/pg/pg_wal/RECOVERYXLOG", Asker::Recovery),
            ("/srv/pg/pg_wal/000000010000000000000001", Asker::Copier),
            ("/tmp/x", Asker::Copier),
        ] {
            assert_eq!(who_asks(Path::new(target), IfUnsure::Stop), expected, "{target}");
        }
        assert_eq!(who_asks(Path::new("pg_wal/RECOVERYXLOG"), IfUnsure::Standby), Asker::Standby);
        assert_eq!(who_asks(Path::new("/tmp/x"), IfUnsure::Standby), Asker::Copier);
    }
}
