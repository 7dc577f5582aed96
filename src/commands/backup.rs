//! `walden backup`: takes a base backup into one repository.

use super::archive_setting::archive_command;
use super::open::{client_failure, connection, open_repository, repository_failure};
use super::server::warn_of_untested;
use super::{Context, Outcome, no_stdout};
use crate::backup::{self, BackupError, BackupRequest, Observer, Taken};
use crate::failure::{Class, Failure};
use crate::postgres::client::{ClientError, Limits};
use crate::repo::catalog::CommitError;
use crate::repo::frame;
use crate::repo::record::{PageFailure, Record};
use crate::report::{Phase, Report, render};
use crate::settings::{Compression, RepositorySettings, Settings};
use crate::units::{ByteCount, Lsn, PgMajor, SegmentName, Stanza};
use crate::wal::{ClusterWal, WalError};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// Takes a backup.
///
/// # Errors
/// In a person's words. Nothing is listed as a backup then.
pub fn run(context: &Context<'_>) -> Result<Outcome, Failure> {
    let (settings, report) = (context.settings, context.report);
    let stanza = settings.stanza()?;
    let target = settings.repository_to_write()?;
    let wanted = settings.backup();
    let repository = open_repository(&target)?;
    require_stanza(&repository, stanza, &target)?;
    let of_server = settings.server(1);
    let server = connection(&of_server)?;
    for warning in &server.warnings {
        report.warn(warning);
    }

    let request = BackupRequest {
        repository: &repository,
        stanza,
        server: &server,
        limits: Limits { answer: of_server.io_timeout.min(of_server.timeout), silence: of_server.io_timeout },
        start_fast: wanted.start_fast,
        max_rate: wanted.max_rate,
        workers: wanted.process_max,
        compression: match wanted.compression {
            Compression::None => frame::Compression::None,
            Compression::Zstd(level) => frame::Compression::Zstd(level),
        },
        pack_size: wanted.pack_size.as_u64(),
        spool: wanted.spool_path.clone(),
        verify_writes: wanted.verify_writes,
        archive_check: wanted.archive_check,
        archive_timeout: wanted.archive_timeout,
        annotations: wanted.annotations.iter().cloned().collect(),
        fail_on_page_errors: wanted.fail_on_page_errors,
    };
    let shown = Shown::new(context, &target);
    let taken = backup::run(&request, context.env, &shown);
    shown.end();
    let taken = taken.map_err(|error| failure(error, settings, &target))?;

    let record = &taken.record;
    report.info(summary(record));
    if let Some(major) = PgMajor::from_version_num(record.cluster.server_version_num) {
        warn_of_untested(major, report);
    }
    let mut warnings = warn_about(&taken, report) | shown.room_is_short.load(Ordering::Relaxed);
    warnings |= warn_about_origin(&taken, &target, wanted.archive_timeout, report);
    warnings |= warn_about_others(settings, &target, stanza, &taken, report);
    if settings.expire_auto() {
        warnings |= super::expire::after_backup(context, &target, &repository);
    }
    if report.is_json() {
        report.json(&as_json(record, &target)).map_err(no_stdout)?;
    }
    Ok(if warnings { Outcome::DoneWithWarnings } else { Outcome::Done })
}

/// A stanza that is not there has better words than a cluster that is not in it.
fn require_stanza(
    repository: &crate::repo::Repository,
    stanza: &Stanza,
    target: &RepositorySettings,
) -> Result<(), Failure> {
    let clusters = repository
        .clusters(stanza)
        .map_err(|error| repository_failure(error, target, format!("could not look for stanza {stanza}")))?;
    if clusters.is_empty() {
        return Err(Failure::new(
            Class::NoRepository,
            format!("cannot back up: {} has no stanza {stanza}", target.name()),
        )
        .because_text(format!("{} holds no cluster under that name", repository.describe()))
        .next(format!("Run `walden --stanza={stanza} stanza-create`.")));
    }
    Ok(())
}

fn summary(record: &Record) -> String {
    format!(
        "backup {} is complete: {} in {}, {} added",
        record.backup_id,
        ByteCount::new(record.sizes.database_bytes),
        render::duration(backup::took(record)),
        ByteCount::new(record.sizes.added_bytes)
    )
}

/// So many damaged pages are shown one by one.
const MOST_SHOWN: usize = 20;

/// The first damaged pages, a line each, and how many more there are.
fn named_pages(failures: &[PageFailure], count: u64) -> Vec<String> {
    let mut lines: Vec<String> = failures.iter().take(MOST_SHOWN).map(ToString::to_string).collect();
    let more = count.saturating_sub(lines.len() as u64);
    if more > 0 && !lines.is_empty() {
        lines.push(format!(
            "and {more} more; the log at log-level-file=detail and `walden info --set` in JSON name them"
        ));
    }
    lines
}

fn warn_about(taken: &Taken, report: &Report) -> bool {
    let record = &taken.record;
    let mut warned = false;
    if record.page_checksums.failure_count > 0 {
        warned = true;
        let count = record.page_checksums.failure_count;
        report.warn(format!(
            "{count} page{} failed {} checksum. The backup is kept and marked; next: find out what that disk is doing, and \
             see `walden help page-errors`",
            if count == 1 { "" } else { "s" },
            if count == 1 { "its" } else { "their" },
        ));
        for line in named_pages(&record.page_checksums.failures, count) {
            report.warn(format!("  {line}"));
        }
        for page in record.page_checksums.failures.iter().skip(MOST_SHOWN) {
            report.detail(format!("  {page}"));
        }
    }
    for warning in &taken.server_warnings {
        warned = true;
        report.warn(warning);
    }
    if !record.configuration_outside.is_empty() {
        // Expected on Debian at every backup: said, but no reason for exit 50 each night.
        report.info(format!(
            "note: {} {} outside the data directory: no base backup holds {}; keep a copy",
            record.configuration_outside.join(", "),
            if record.configuration_outside.len() == 1 { "lies" } else { "lie" },
            if record.configuration_outside.len() == 1 { "it" } else { "them" },
        ));
    }
    if let Some(why) = &taken.unproved {
        warned = true;
        report.warn(format!(
            "that the archived WAL is this server's could not be proved, because this PostgreSQL is newer than this \
             walden: {why}. Try a restore of this backup"
        ));
    }
    for id in &taken.interrupted_before {
        report.detail(format!("an interrupted backup lies about: {id}"));
    }
    warned
}

/// What a standby's backup says about its primary's archive.
fn warn_about_origin(
    taken: &Taken,
    target: &RepositorySettings,
    waited: std::time::Duration,
    report: &Report,
) -> bool {
    let Some(origin) = &taken.origin else { return false };
    let repository = target.name();
    if let Some(last) = origin.taken.last().filter(|last| !origin.late.contains(*last)) {
        report.info(format!(
            "the end of its WAL lies in {last}, which is not finished: taken from the standby up to {}",
            taken.record.stop_lsn
        ));
    }
    if let (Some(first), Some(last)) = (origin.late.first(), origin.late.last()) {
        report.warn(format!(
            "{} did not arrive in {repository} within {} s and {} taken from the standby: the backup is complete, but its \
             primary does not archive. Look in the primary's log for what archive_command says",
            if first == last { format!("WAL segment {first}") } else { format!("WAL segments {first} … {last}") },
            waited.as_secs(),
            if first == last { "was" } else { "were" },
        ));
    }
    if let Some(before) = &origin.unlinked {
        report.warn(format!(
            "that {repository} gets this cluster's WAL could not be proved: {before}, which comes before this backup's, is \
             not in it. If the primary has only just begun to archive, `select pg_switch_wal()` there and the next backup \
             prove it",
        ));
    }
    !origin.late.is_empty() || origin.unlinked.is_some()
}

/// WAL goes to every repository: says where the backup's own has not arrived.
fn warn_about_others(
    settings: &Settings,
    target: &RepositorySettings,
    stanza: &Stanza,
    taken: &Taken,
    report: &Report,
) -> bool {
    let Ok(others) = settings.all_repositories() else { return false };
    let mut warned = false;
    for other in others.iter().filter(|other| other.index != target.index) {
        match missing_in(other, stanza, taken) {
            Ok(0) => {}
            Ok(missing) => {
                warned = true;
                report.warn(format!(
                    "{missing} WAL segment{} that this backup needs {} not yet in {}",
                    if missing == 1 { "" } else { "s" },
                    if missing == 1 { "is" } else { "are" },
                    other.name()
                ));
            }
            Err(failure) => {
                warned = true;
                report.warn(format!(
                    "whether {} has this backup's WAL is not known: {}",
                    other.name(),
                    failure.one_line()
                ));
            }
        }
    }
    warned
}

fn missing_in(other: &RepositorySettings, stanza: &Stanza, taken: &Taken) -> Result<usize, Failure> {
    let repository = open_repository(other)?;
    let wal = ClusterWal { repo: &repository, stanza, system: taken.record.system_identifier };
    backup::missing(wal, &taken.archived)
        .map(|missing| missing.len())
        .map_err(|error| repository_failure(error, other, "its WAL could not be listed"))
}

fn as_json(record: &Record, target: &RepositorySettings) -> serde_json::Value {
    serde_json::json!({
        "backup_id": record.backup_id.as_str(),
        "kind": record.backup_id.kind().to_string(),
        "repository": target.index,
        "timeline": record.timeline.as_u32(),
        "start_lsn": record.start_lsn.to_string(),
        "stop_lsn": record.stop_lsn.to_string(),
        "started_at_unix_us": record.started_at_unix_us.as_unix_micros(),
        "stopped_at_unix_us": record.stopped_at_unix_us.as_unix_micros(),
        "database_bytes": record.sizes.database_bytes,
        "stored_bytes": record.sizes.stored_bytes,
        "added_bytes": record.sizes.added_bytes,
        "files": record.sizes.files,
        "page_checksum_failures": record.page_checksums.failure_count,
        "from_standby": record.from_standby,
        "annotations": record.annotations,
    })
}

fn failure(error: BackupError, settings: &Settings, target: &RepositorySettings) -> Failure {
    let stanza = settings.stanza().map_or_else(|_| "STANZA".to_owned(), ToString::to_string);
    match error {
        BackupError::Client(error) => {
            let interrupted = matches!(error, ClientError::Interrupted { .. });
            let failure = client_failure(error, "could not take the backup");
            if interrupted { failure.with_class(Class::Interrupted) } else { failure }
        }
        BackupError::Repo(error) => repository_failure(error, target, "could not take the backup"),
        BackupError::Wal(WalError::Repo(error)) => {
            repository_failure(error, target, "could not read back the backup's WAL")
        }
        BackupError::Wal(error) => {
            Failure::new(Class::Damaged, "could not read back the backup's WAL").because(error)
        }
        BackupError::Commit(CommitError::Repo(error)) => {
            repository_failure(error, target, "could not finish the backup; whether it exists, `walden info` tells")
        }
        BackupError::ParentRetired(_) => Failure::new(Class::Locked, "could not begin the backup")
            .because(error)
            .next("Run `walden backup` again."),
        BackupError::Commit(error) => Failure::new(Class::Locked, "could not finish the backup")
            .because(error)
            .next("Run `walden backup` again."),
        BackupError::NotThisCluster { .. } => {
            Failure::new(Class::NotThisCluster, format!("cannot back up: the server is not a cluster of stanza {stanza}"))
                .because(error)
                .next("Check pg1-host, pg1-port and the stanza's name.")
                .next(format!("After pg_upgrade or a new initdb: `walden --stanza={stanza} stanza-upgrade`."))
                .next(format!("For another cluster: `walden --stanza=NAME stanza-create` with a name other than {stanza}."))
        }
        BackupError::Version { stanza: known, .. } => {
            let failure =
                Failure::new(Class::PostgresRefuses, "cannot back up this version of PostgreSQL").because(error);
            match known {
                Some(_) => failure.next(format!("After pg_upgrade: `walden --stanza={stanza} stanza-upgrade`.")),
                None => failure.next("Upgrade PostgreSQL; this version gets no corrections any more."),
            }
        }
        BackupError::ArchivingOff => Failure::new(Class::PostgresRefuses, "cannot back up: the server does not archive its WAL")
            .because(error)
            .next(format!("In postgresql.conf set archive_mode = on and {}", archive_command(settings)))
            .next("Then restart the server: archive_mode needs that.")
            .next("Or let walden fetch the WAL over the connection: --archive-check=n."),
        BackupError::WalNotArchived { segment, .. } => {
            Failure::new(Class::WalMissing, format!("could not finish the backup: WAL segment {segment} is not in {}", target.name()))
                .because(error)
                .next("Look in the server's log for what archive_command says, and at `select * from pg_stat_archiver`.")
                .next("When archiving works again, run `walden backup` again; --archive-timeout waits longer.")
        }
        BackupError::WalNotSent { .. } => {
            Failure::new(Class::WalMissing, "could not finish the backup: the server stopped sending its WAL")
                .because(error)
                .next("Run `walden backup` again; --archive-timeout waits longer.")
        }
        BackupError::NotThisServersWal { .. } => Failure::new(
            Class::NotThisCluster,
            "cannot back up: the archive holds another server's WAL under this server's names",
        )
        .because(error)
        .next("Find the other server that archives to this stanza (a clone or a restored copy) and stop it.")
        .next("Give this server a stanza of its own."),
        BackupError::TablespaceNotSent { .. } => {
            Failure::new(Class::PostgresRefuses, "cannot back up: a tablespace would be missing")
                .because(error)
                .next("Move what is in it to another tablespace and drop it, or upgrade to PostgreSQL 16 or later.")
        }
        BackupError::PageFailures { count, ref failures } => {
            let mut failure = Failure::new(Class::Damaged, "could not take the backup: pages are damaged on the server");
            for line in named_pages(failures, count) {
                failure = failure.because_text(line);
            }
            failure
                .because(error)
                .next("`walden help page-errors` says what to do about them.")
                .next("To keep a backup of the cluster as it is: page-errors=keep.")
        }
        BackupError::NoSpace { .. } => {
            Failure::new(Class::LocalFileSystem, format!("cannot back up: {} has too little room", target.name()))
                .because(error)
                .next("Make room, or move the repository to a larger file system. Nothing was stored.")
        }
        BackupError::OtherBranch { .. } => {
            Failure::new(Class::PostgresRefuses, "could not take the backup: the standby changed its timeline")
                .because(error)
                .next("Run `walden backup` again.")
        }
        BackupError::Promoted => {
            Failure::new(Class::PostgresRefuses, "could not take the backup").because(error).next("Run `walden backup` again.")
        }
        BackupError::Interrupted => Failure::new(Class::Interrupted, "the backup was interrupted; nothing of it is listed"),
        BackupError::Codec(_) | BackupError::Bug => Failure::new(Class::Bug, "could not take the backup").because(error),
        BackupError::Archive(_)
        | BackupError::StrangeArchive(_)
        | BackupError::FileMissing(_)
        | BackupError::Tablespace { .. }
        | BackupError::NotUnderstood { .. } => {
            Failure::new(Class::PostgresRefuses, "could not take the backup").because(error)
        }
    }
}

/// Shows a backup's progress.
struct Shown<'a> {
    context: &'a Context<'a>,
    repository: String,
    phase: Mutex<Option<Phase<'a>>>,
    awaited: Mutex<Option<SegmentName>>,
    room_is_short: AtomicBool,
}

impl<'a> Shown<'a> {
    fn new(context: &'a Context<'a>, target: &RepositorySettings) -> Self {
        Self {
            context,
            repository: target.name(),
            phase: Mutex::new(None),
            awaited: Mutex::new(None),
            room_is_short: AtomicBool::new(false),
        }
    }

    fn enter(&self, name: &str, total: Option<ByteCount>) {
        // The phase before ends first: there is one bar.
        self.end();
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(self.context.report.phase(name, total));
    }

    fn end(&self) {
        drop(self.phase.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

impl Observer for Shown<'_> {
    fn interrupted(&self) -> bool {
        self.context.stop.is_requested()
    }

    fn room_is_short(&self, free: ByteCount, expected: ByteCount) {
        self.room_is_short.store(true, Ordering::Relaxed);
        self.context.report.warn(format!(
            "{} has {free} free, and this backup may need {expected}: it goes on, and fails if they run out",
            self.repository
        ));
    }

    fn awaiting_checkpoint(&self) {
        let hint = if self.context.settings.backup().start_fast { "" } else { " (--start-fast to hurry)" };
        self.enter(&format!("waiting for the checkpoint{hint}"), None);
    }

    fn copying(&self, _start: Lsn, total: Option<ByteCount>) {
        self.enter("copying", total);
    }

    fn copied(&self, bytes: ByteCount) {
        if let Some(phase) = &*self.phase.lock().unwrap_or_else(PoisonError::into_inner) {
            phase.done(bytes);
        }
    }

    fn awaiting_wal(&self, segment: SegmentName) {
        let mut awaited = self.awaited.lock().unwrap_or_else(PoisonError::into_inner);
        if *awaited != Some(segment) {
            *awaited = Some(segment);
            self.enter(&format!("waiting for WAL {segment} in {}", self.repository), None);
        }
    }

    fn fetching_wal(&self, segment: SegmentName) {
        self.enter(&format!("taking WAL {segment} from the server"), None);
    }

    fn proving(&self) {
        self.enter("comparing the archive with the server's", None);
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "golden texts need not outlive a crash")]
mod tests;
