//! `walden restore`: plans, shows the plan, and carries it out.

mod refusals;
mod show;

use super::open::{answers, connection, open_repository};
use super::{Context, Outcome, no_stdout};
use crate::failure::{Class, Failure};
use crate::postgres::client::{ClientError, ReplicationClient};
use crate::repo::Repository;
use crate::report::{Phase as Shown, Report};
use crate::restore::conf::shell_word;
use crate::restore::owner::Owner;
use crate::restore::plan::{self, Archiving, Means, Request};
use crate::restore::tablespaces::TablespaceMap;
use crate::restore::target::{Asked, Target, TargetAction, TargetType};
use crate::restore::target_time::Here;
use crate::restore::write::{Observer, Phase};
use crate::settings::{
    self, ArchiveMode, Form, RepositoryKind, RepositorySettings, RestoreSettings, RestoreType, Settings,
    Value,
};
use crate::units::{ByteCount, SystemIdentifier};
use std::cell::RefCell;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How long a server that may be alive is waited for.
const ALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Restores.
///
/// # Errors
/// In a person's words. Before the plan holds nothing is touched; after that the directory cannot be started
/// and the same command goes on.
pub fn run(context: &Context<'_>) -> Result<Outcome, Failure> {
    let (settings, report) = (context.settings, context.report);
    let stanza = settings.stanza()?;
    let wanted = settings.restore()?;
    let here = Here::new(context.env.now(), crate::report::render::local_zone());
    let target = target(&wanted, &here).map_err(refusals::target)?;
    let owner = match &wanted.owner {
        Some(text) => Some(Owner::parse(text).map_err(|error| {
            Failure::new(Class::Usage, "cannot give the files to that user")
                .because(error)
                .next("Name a user of this host: --owner=postgres.")
        })?),
        None => None,
    };
    let opened = Opened::open(settings, report)?;
    let repositories: Vec<&Repository> = opened.repositories.iter().collect();
    let unknown = RefCell::new(None);
    let alive = |system: SystemIdentifier| match living_server(settings, system) {
        Life::Alive(how) => Some(how),
        Life::Gone => None,
        Life::Unknown(why) => {
            *unknown.borrow_mut() = Some(why);
            None
        }
    };
    let request = Request {
        repositories: &repositories,
        only: opened.only,
        stanza,
        target,
        set: wanted.set.clone(),
        pgdata: absolute(&wanted.path)?,
        wal_dir: wanted.wal_directory.as_deref().map(absolute).transpose()?,
        tablespaces: tablespace_map(&wanted)?,
        keep_out: keep_out(settings)?,
        owner,
        force: wanted.force,
        archiving: match wanted.archive_mode {
            // It starts on the timeline of the backup: archiving there would win names that the real server,
            // wherever it is, still needs.
            ArchiveMode::Auto if wanted.kind == RestoreType::None => Archiving::Off,
            ArchiveMode::Auto => Archiving::UnlessAlive(&alive),
            ArchiveMode::Preserve => Archiving::Preserve,
            ArchiveMode::Off => Archiving::Off,
        },
        recovery_options: wanted.recovery_options.clone(),
        program: program()?,
        program_options: program_options(settings),
        now: context.env.now(),
    };
    let words = Words { settings: &opened.settings, here: &here, wanted: &wanted, now: request.now, stanza };
    let plan = plan::plan(&request).map_err(|error| refusals::plan(error, &request, &words))?;
    let mut warned =
        show::warn(&plan, &words, report, &settings.secrets_from_environment()) || opened.incomplete;
    if let Some(why) = unknown.take() {
        report.warn(format!(
            "whether a server of stanza {stanza} is alive could not be told: {why}. The restored server will archive; if \
             the old one may still be alive, restore with --archive-mode=off"
        ));
        warned = true;
    }
    if wanted.dry_run {
        if report.is_json() {
            report.json(&show::plan_json(&plan, &words, true)).map_err(no_stdout)?;
        } else {
            let text = format!(
                "{}Nothing was changed. Leave out --dry-run to do this.\n",
                show::plan_text(&plan, &words)
            );
            report.data(text).map_err(no_stdout)?;
        }
        return Ok(if warned { Outcome::DoneWithWarnings } else { Outcome::Done });
    }
    for line in show::plan_text(&plan, &words).lines() {
        report.info(line);
    }

    let json = show::plan_json(&plan, &words, false);
    let after = show::after_the_act(&plan, &words);
    let place = plan.place.pgdata.clone();
    let backup = plan.backup.record.backup_id.clone();
    let repository = opened.settings.get(plan.repository()).cloned();
    let means = Means {
        workers: wanted.process_max,
        spool: wanted.spool_path.clone(),
        how_to_go_on: format!("To go on, run the same command again:\n  {}", command_line()),
    };
    let progress = Progress::new(context, plan.backup.record.sizes.database_bytes);
    let began = std::time::Instant::now();
    let result = plan.execute(&means, context.env, &progress);
    progress.end();
    let written = result.map_err(|error| refusals::execution(error, &place, repository.as_ref()))?;
    report.info(format!(
        "restored backup {backup} into {}: {} in {}",
        place.display(),
        ByteCount::new(written.bytes),
        crate::report::render::duration(began.elapsed())
    ));
    if report.is_json() {
        report.json(&json).map_err(no_stdout)?;
    } else {
        for line in after.lines() {
            report.info(line);
        }
    }
    Ok(if warned { Outcome::DoneWithWarnings } else { Outcome::Done })
}

/// What the texts are made with.
struct Words<'a> {
    settings: &'a [RepositorySettings],
    here: &'a Here,
    wanted: &'a RestoreSettings,
    now: crate::units::Timestamp,
    stanza: &'a crate::units::Stanza,
}

impl Words<'_> {
    fn repository(&self, at: usize) -> String {
        self.settings.get(at).map_or_else(|| format!("repository {}", at + 1), RepositorySettings::name)
    }
}

fn target(wanted: &RestoreSettings, here: &Here) -> Result<Target, crate::restore::target::TargetError> {
    let kind = match wanted.kind {
        RestoreType::Default => TargetType::Default,
        RestoreType::Immediate => TargetType::Immediate,
        RestoreType::Time => TargetType::Time,
        RestoreType::Xid => TargetType::Xid,
        RestoreType::Lsn => TargetType::Lsn,
        RestoreType::Name => TargetType::Name,
        RestoreType::Standby => TargetType::Standby,
        RestoreType::Preserve => TargetType::Preserve,
        RestoreType::None => TargetType::None,
    };
    let action = match wanted.target_action {
        // The default stands for "not said", so that it may stand beside types that reach nothing.
        settings::TargetAction::Pause => None,
        settings::TargetAction::Promote => Some(TargetAction::Promote),
        settings::TargetAction::Shutdown => Some(TargetAction::Shutdown),
    };
    let timeline = wanted.target_timeline.as_deref().map(str::parse).transpose()?;
    Target::from_options(
        &Asked {
            kind: Some(kind),
            target: wanted.target.as_deref(),
            exclusive: wanted.target_exclusive,
            action,
            timeline,
        },
        here,
    )
}

fn absolute(path: &std::path::Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| {
        Failure::new(Class::LocalFileSystem, format!("cannot tell where {} is", path.display()))
            .because(error)
    })
}

fn tablespace_map(wanted: &RestoreSettings) -> Result<TablespaceMap, Failure> {
    let mut one = Vec::new();
    for (key, path) in &wanted.tablespace_map {
        one.push((key.clone(), absolute(std::path::Path::new(path))?));
    }
    Ok(TablespaceMap { one, all: wanted.tablespace_map_all.as_deref().map(absolute).transpose()? })
}

/// What a directory that is replaced must not have in it: it may be the only copy, and the server needs it for its WAL.
fn keep_out(settings: &Settings) -> Result<Vec<(String, PathBuf)>, Failure> {
    let mut all = Vec::new();
    for repository in settings.all_repositories()? {
        let name = repository.name();
        match &repository.kind {
            RepositoryKind::Posix { path } => all.push((name, absolute(path)?)),
            RepositoryKind::Bucket(_) => {}
        }
    }
    for file in settings.files() {
        all.push(("the configuration".to_owned(), absolute(file)?));
    }
    for setting in settings.all() {
        // Keys, secrets and certificates.
        if let Value::Path(path) = &setting.value
            && setting.key.name.ends_with("-file")
        {
            all.push((format!("the file of {}", setting.name()), absolute(path)?));
        }
    }
    Ok(all)
}

fn program() -> Result<PathBuf, Failure> {
    std::env::current_exe().map_err(|error| {
        Failure::new(
            Class::LocalFileSystem,
            "cannot tell where this program is, to write it into restore_command",
        )
        .because(error)
    })
}

fn program_options(settings: &Settings) -> Vec<OsString> {
    settings
        .to_repeat()
        .into_iter()
        // A recovery takes its WAL from wherever it is, whichever repository the backup came from.
        .filter(|given| given.name != "repo")
        .map(|given| {
            OsString::from(match given.form {
                Form::Set(value) => format!("--{}={value}", given.name),
                Form::No => format!("--no-{}", given.name),
                Form::Reset => format!("--reset-{}", given.name),
            })
        })
        .collect()
}

/// This run's command line as a shell would take it.
fn command_line() -> String {
    use std::os::unix::ffi::OsStrExt;
    let words: Vec<String> = std::env::args_os()
        .map(|word| String::from_utf8_lossy(&shell_word(word.as_bytes())).into_owned())
        .collect();
    words.join(" ")
}

/// The repositories: WAL is taken from all of them, so one that does not open is only warned about, unless it
/// is the one that was asked for or none is left.
struct Opened {
    repositories: Vec<Repository>,
    settings: Vec<RepositorySettings>,
    only: Option<usize>,
    /// Some could not be opened, which was said.
    incomplete: bool,
}

/// So long a repository is waited for that others can stand in for.
const WHERE_OTHERS_SERVE: Duration = Duration::from_secs(60);

impl Opened {
    fn open(settings: &Settings, report: &Report) -> Result<Self, Failure> {
        let selected = settings.repositories()?;
        let all = settings.all_repositories()?;
        let narrowed = selected.len() < all.len();
        let is_wanted = |one: &RepositorySettings| narrowed && selected.iter().any(|s| s.index == one.index);
        let (mut opened, mut failures) = Self::open_those(&all, &is_wanted, all.len() == 1)?;
        if opened.repositories.is_empty() && all.len() > 1 {
            // Nobody stands in for anybody.
            (opened, failures) = Self::open_those(&all, &is_wanted, true)?;
        }
        if opened.repositories.is_empty() && !failures.is_empty() {
            let first = failures.remove(0);
            failures.iter().for_each(|failure| report.warn(failure.one_line()));
            return Err(first);
        }
        failures.iter().for_each(|failure| report.warn(failure.one_line()));
        opened.incomplete = !failures.is_empty();
        Ok(opened)
    }

    /// Those that open, and why the others do not.
    ///
    /// # Errors
    /// That of the one that is wanted.
    fn open_those(
        all: &[RepositorySettings],
        is_wanted: &dyn Fn(&RepositorySettings) -> bool,
        patient: bool,
    ) -> Result<(Self, Vec<Failure>), Failure> {
        let mut opened =
            Self { repositories: Vec::new(), settings: Vec::new(), only: None, incomplete: false };
        let mut failures = Vec::new();
        for one in all {
            let wanted = is_wanted(one);
            let answers = if wanted || patient { Ok(()) } else { answers(one, WHERE_OTHERS_SERVE) };
            match answers.and_then(|()| open_repository(one)) {
                Ok(repository) => {
                    if wanted {
                        opened.only = Some(opened.repositories.len());
                    }
                    opened.repositories.push(repository);
                    opened.settings.push(one.clone());
                }
                Err(failure) if wanted => return Err(failure),
                Err(failure) => failures.push(failure),
            }
        }
        Ok((opened, failures))
    }
}

/// Whether a server of this cluster lives where the settings say.
enum Life {
    /// One does, or one answers that could be it and does not let us in: two servers must not archive to one stanza.
    Alive(String),
    /// Nothing listens there, or it is another cluster.
    Gone,
    /// Why it cannot be told.
    Unknown(String),
}

fn living_server(settings: &Settings, system: SystemIdentifier) -> Life {
    let parameters = match connection(&settings.server(1)) {
        Ok(parameters) => parameters,
        Err(failure) => return Life::Unknown(failure.one_line()),
    };
    let runtime = match super::server::runtime() {
        Ok(runtime) => runtime,
        Err(failure) => return Life::Unknown(failure.one_line()),
    };
    runtime.block_on(async {
        let ask = async {
            let mut client = match ReplicationClient::connect(&parameters).await {
                Ok(client) => client,
                Err(error) => return life_by(&error),
            };
            let at = client.address().to_string();
            let identity = match client.identify_system().await {
                Ok(identity) => identity,
                Err(error) => return life_by(&error),
            };
            client.close().await;
            if identity.system == system {
                Life::Alive(format!("a server of this stanza is alive on {at}"))
            } else {
                Life::Gone
            }
        };
        // Whoever is down with its host is silent, too: that is not waited for long.
        tokio::time::timeout(ALIVE_TIMEOUT, ask).await.unwrap_or_else(|_| {
            Life::Unknown(format!("it did not answer within {} s", ALIVE_TIMEOUT.as_secs()))
        })
    })
}

/// What an error says about the server's life.
fn life_by(error: &ClientError) -> Life {
    use std::io::ErrorKind::{ConnectionRefused, NotFound};
    if let Some(answer) = answered(error) {
        return Life::Alive(answer);
    }
    match error {
        ClientError::Connect { source, .. } if matches!(source.kind(), ConnectionRefused | NotFound) => {
            Life::Gone
        }
        other => Life::Unknown(other.to_string()),
    }
}

/// Whether this error is a PostgreSQL server's own answer.
fn answered(error: &ClientError) -> Option<String> {
    let place = match error {
        ClientError::NoHbaEntry { at, .. }
        | ClientError::Tls { at, .. }
        | ClientError::ChannelBinding { at, .. }
        | ClientError::PasswordMissing { at, .. }
        | ClientError::PasswordWrong { at, .. }
        | ClientError::NotAuthorized { at, .. } => format!(" on {at}"),
        ClientError::AuthenticationUnsupported { .. }
        | ClientError::NoReplicationRight { .. }
        | ClientError::TooManyClients { .. }
        | ClientError::NoFreeWalSender { .. }
        | ClientError::NoSuchDatabase { .. }
        | ClientError::NotReady { .. }
        | ClientError::Server { .. } => String::new(),
        _ => return None,
    };
    Some(format!("a server answers{place} that may be this stanza's and does not let us look"))
}

/// Shows the progress.
struct Progress<'a> {
    context: &'a Context<'a>,
    total: u64,
    written: AtomicU64,
    phase: Mutex<Option<Shown<'a>>>,
}

impl<'a> Progress<'a> {
    fn new(context: &'a Context<'a>, total: u64) -> Self {
        Self { context, total, written: AtomicU64::new(0), phase: Mutex::new(None) }
    }

    fn end(&self) {
        drop(self.phase.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

impl Observer for Progress<'_> {
    fn interrupted(&self) -> bool {
        self.context.stop.is_requested()
    }

    fn wrote(&self, bytes: u64) {
        let sum = self.written.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if let Some(phase) = &*self.phase.lock().unwrap_or_else(PoisonError::into_inner) {
            phase.done(ByteCount::new(sum));
        }
    }

    fn phase(&self, phase: Phase) {
        self.end();
        self.written.store(0, Ordering::Relaxed);
        let (name, total) = match phase {
            Phase::Clearing => return,
            Phase::Writing => ("restoring", Some(ByteCount::new(self.total))),
            Phase::FetchingWal => ("fetching the backup's WAL", None),
            Phase::Checking => ("comparing what was written with the backup", None),
            Phase::Syncing => ("making it durable", None),
        };
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(self.context.report.phase(name, total));
    }
}
