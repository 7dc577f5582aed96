//! `stanza-create`: makes what is missing, keeps what is there.
//!
//! Two passes: the first looks at every repository and changes nothing, so that a stanza that belongs to
//! another cluster is found before any repository is touched; the second tries each, whatever became of
//! the others.

use super::archive_setting::archive_command;
use super::bucket_words;
use super::open::{
    bucket_rules, create_store, open_repository, open_store, repository_failure, secret,
    store_by_every_address, store_failure,
};
use super::server::{Source, learn_cluster, warn_of_untested};
use super::{Context, Outcome, no_stdout};
use crate::env::Env;
use crate::failure::{Class, Failure};
use crate::repo::keys::Secret;
use crate::repo::layout::hex;
use crate::repo::repository::read_repository_file;
use crate::repo::{Cluster, RepoError, Repository};
use crate::report::Report;
use crate::settings::{Cipher, RepositoryKind, RepositorySettings};
use crate::storage::probe::{Finding, ProbePlan, ProbeReport, probe};
use crate::storage::{Created, Key, Store};
use crate::units::{ByteCount, Stanza};
use serde_json::json;

/// A passphrase shorter than this is warned of.
const SHORT_PASSPHRASE: usize = 12;

pub(super) fn run(context: &Context<'_>) -> Result<Outcome, Failure> {
    let stanza = context.settings.stanza()?;
    let repositories = context.settings.repositories()?;
    let (cluster, source) = learn_cluster(&context.settings.server(1))?;
    if let Source::DataDirectory(path) = &source {
        context.report.info(format!("no server answers; {} tells which cluster it is", path.display()));
    }
    warn_of_untested(cluster.major, context.report);

    let mut looked = Vec::with_capacity(repositories.len());
    for settings in repositories {
        match look(&settings, stanza, &cluster, &source) {
            Err(failure) if failure.class() == Class::NotThisCluster => return Err(failure),
            found => looked.push((settings, found)),
        }
    }

    let mut done = Vec::with_capacity(looked.len());
    for (settings, found) in looked {
        let made = found.and_then(|found| make(context, &settings, found, stanza, &cluster));
        if let Ok(made) = &made {
            tell(context.report, &settings, made, stanza, &cluster);
        }
        done.push((settings, made));
    }
    if context.report.is_json() {
        context.report.json(&document(stanza, &cluster, &source, &done)).map_err(no_stdout)?;
    }
    conclude(context, stanza, done)
}

/// What a repository holds before anything is changed.
enum Found {
    /// There is none.
    Nothing,
    /// It is there; whether it holds this cluster.
    Repository(Repository, bool),
}

/// What was done to one repository.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Made {
    place: String,
    encrypted: bool,
    repository_created: bool,
    cluster_added: bool,
}

fn look(
    settings: &RepositorySettings,
    stanza: &Stanza,
    cluster: &Cluster,
    source: &Source,
) -> Result<Found, Failure> {
    let store = match open_store(settings) {
        Ok(store) => store,
        Err(failure) if failure.class() == Class::NoRepository => return Ok(Found::Nothing),
        Err(failure) => return Err(failure),
    };
    if matches!(read_repository_file(&*store), Err(RepoError::NoRepository { .. })) {
        refuse_what_is_something_else(&*store, settings)?;
        return Ok(Found::Nothing);
    }
    let repository = open_repository(settings)?;
    let name = settings.name();
    let held = repository.clusters(stanza).map_err(|error| {
        repository_failure(error, settings, format!("could not look up stanza {stanza} in {name}"))
    })?;
    if let Some(there) = held.iter().find(|held| held.system == cluster.system) {
        return if there == cluster {
            Ok(Found::Repository(repository, true))
        } else {
            Err(changed(&name, stanza, there, cluster, source))
        };
    }
    match held.iter().max_by_key(|held| (held.major, held.system)) {
        None => Ok(Found::Repository(repository, false)),
        Some(other) => Err(Failure::new(
            Class::NotThisCluster,
            format!("stanza {stanza} of {name} belongs to another cluster"),
        )
        .because_text(format!(
            "{name} holds PostgreSQL {}, system {}; {source} is PostgreSQL {}, system {}",
            other.major, other.system, cluster.major, cluster.system
        ))
        .next("If this is another cluster, give it a stanza of its own: --stanza=NAME.")
        .next(format!(
            "If it succeeds the other one (pg_upgrade, a new initdb): `walden --stanza={stanza} stanza-upgrade`."
        ))),
    }
}

/// The same system identifier with other properties: `pg_resetwal --wal-segsize`, or a file that lies.
pub(super) fn changed(
    name: &str,
    stanza: &Stanza,
    there: &Cluster,
    now: &Cluster,
    source: &Source,
) -> Failure {
    let mut failure = Failure::new(
        Class::NotThisCluster,
        format!("the cluster of stanza {stanza} in {name} is not what it was"),
    );
    let rows = [
        ("PostgreSQL's major version", u64::from(there.major.as_u16()), u64::from(now.major.as_u16())),
        ("bytes of a page", u64::from(there.page_size), u64::from(now.page_size)),
        ("bytes of a WAL segment", there.segment_size.bytes(), now.segment_size.bytes()),
        ("pages of a relation's file", u64::from(there.blocks_per_file), u64::from(now.blocks_per_file)),
    ];
    for (what, there, now) in rows.iter().filter(|(_, there, now)| there != now) {
        failure = failure.because_text(format!("{what}: {there} in {name}, {now} at {source}"));
    }
    failure.next("Give the changed cluster a stanza of its own (--stanza=NAME) and take a full backup.")
}

/// A wrong path must not be filled with objects.
fn refuse_what_is_something_else(store: &dyn Store, settings: &RepositorySettings) -> Result<(), Failure> {
    let top = store.folder(None).map_err(|error| {
        store_failure(error, settings, format!("could not look into {}", settings.name()))
    })?;
    let has_object = |name: &str| top.objects.iter().any(|object| object.key.as_str() == name);
    let has_folder = |name: &str| top.folders.iter().any(|folder| folder == name);
    let what = if has_object("PG_VERSION") && has_folder("global") {
        "a PostgreSQL data directory"
    } else if has_folder("archive") && has_folder("backup") {
        "a pgBackRest repository"
    } else {
        return Ok(());
    };
    let name = settings.name();
    Err(Failure::new(Class::NoRepository, format!("cannot make {name} in {}", store.describe()))
        .because_text(format!("it looks like {what}"))
        .next(format!("Set {name}-path to a directory of its own.")))
}

fn make(
    context: &Context<'_>,
    settings: &RepositorySettings,
    found: Found,
    stanza: &Stanza,
    cluster: &Cluster,
) -> Result<Made, Failure> {
    let (repository, held, repository_created) = match found {
        Found::Repository(repository, held) => (repository, held, false),
        Found::Nothing => {
            let (repository, created) = make_repository(context, settings)?;
            (repository, false, created)
        }
    };
    let cluster_added = !held
        && repository.add_cluster(stanza, cluster, context.env).map_err(|error| {
            let what = format!("could not make stanza {stanza} in {}", settings.name());
            repository_failure(error, settings, what)
        })? == Created::New;
    Ok(Made {
        place: repository.describe(),
        encrypted: repository.is_encrypted(),
        repository_created,
        cluster_added,
    })
}

/// The repository, and whether this call made it.
fn make_repository(
    context: &Context<'_>,
    settings: &RepositorySettings,
) -> Result<(Repository, bool), Failure> {
    // The key first: without it nothing is made, not even the directory.
    let secret = secret(settings)?;
    let store = create_store(settings)?;
    let plan = match settings.kind {
        RepositoryKind::Posix { .. } => ProbePlan::QUICK,
        RepositoryKind::Bucket(_) => ProbePlan::THOROUGH,
    };
    let report =
        try_store(store_by_every_address(settings)?.as_deref().unwrap_or(&*store), plan, context.env)
            .map_err(|trouble| trouble.into_failure(settings))
            .and_then(|report| require_usable(report, settings, &*store))?;
    if let Finding::Broken(seen) = &report.may_delete {
        context.report.warn(format!(
            "{}: nothing can be deleted there ({seen}). Backups work; what is no longer needed stays",
            settings.name()
        ));
    }
    if let Finding::Broken(seen) = &report.list_from_a_point {
        context.report.warn(format!(
            "{}: its storage does not list from a point ({seen}). Nothing is lost by it; with very many archived \
             segments listings take long",
            settings.name()
        ));
    }
    tell_of_the_bucket(context, settings, report.may_delete.holds())?;
    let created = Repository::create(store, secret.as_ref(), create_only(settings), context.env);
    let made = match created {
        Ok(repository) => Ok((repository, true)),
        // Somebody else made it at the same moment.
        Err(RepoError::Exists { .. }) => open_repository(settings).map(|repository| (repository, false)),
        Err(error) => Err(repository_failure(error, settings, format!("could not make {}", settings.name()))),
    }?;
    if let Some(Secret::Passphrase(words)) = &secret
        && words.chars().count() < SHORT_PASSPHRASE
    {
        context.report.warn(format!(
            "{}: the passphrase is short. Whoever copies the repository can try passphrases at leisure; \
             `walden key-generate` prints a key that cannot be guessed",
            settings.name()
        ));
    }
    Ok(made)
}

/// What somebody should know of the bucket before they rely on it.
fn tell_of_the_bucket(
    context: &Context<'_>,
    settings: &RepositorySettings,
    may_delete: bool,
) -> Result<(), Failure> {
    let Some(rules) = bucket_rules(settings)? else { return Ok(()) };
    let name = settings.name();
    if let Some(told) = bucket_words::expiring(&name, &rules).filter(|told| told.warning) {
        bucket_words::lines(&told).into_iter().for_each(|line| context.report.warn(line));
    }
    if may_delete && let (true, what) = bucket_words::deletion(Some(&rules.versions)) {
        context.report.info(format!("{name}: these credentials may delete objects, {what}"));
    }
    Ok(())
}

/// How the store creates objects atomically, as `walden.json` says it.
fn create_only(settings: &RepositorySettings) -> &'static str {
    match settings.kind {
        RepositoryKind::Posix { .. } => "filesystem",
        RepositoryKind::Bucket(_) => "if-none-match",
    }
}

enum ProbeTrouble {
    Store(crate::storage::StoreError),
    Repo(RepoError),
}

impl ProbeTrouble {
    fn into_failure(self, settings: &RepositorySettings) -> Failure {
        let what = format!("could not try out the storage of {}", settings.name());
        match self {
            Self::Store(error) => store_failure(error, settings, what),
            Self::Repo(error) => repository_failure(error, settings, what),
        }
    }
}

fn try_store(store: &dyn Store, plan: ProbePlan, env: &dyn Env) -> Result<ProbeReport, ProbeTrouble> {
    let mut random = [0; 8];
    env.random(&mut random).map_err(|error| ProbeTrouble::Repo(error.into()))?;
    // No stanza can be mistaken for it: it never has a folder of clusters.
    let folder = Key::new(format!("walden-probe-{}", hex(&random)))
        .map_err(|error| ProbeTrouble::Repo(error.into()))?;
    probe(store, &folder, plan).map_err(ProbeTrouble::Store)
}

fn require_usable(
    report: ProbeReport,
    settings: &RepositorySettings,
    store: &dyn Store,
) -> Result<ProbeReport, Failure> {
    if report.usable() {
        return Ok(report);
    }
    let name = settings.name();
    let failure = Failure::new(
        Class::StorageUnavailable,
        format!(
            "cannot keep a repository in {}: this storage does not do what its safety rests on",
            store.describe()
        ),
    );
    let findings = [
        ("a name is created only once", &report.atomic_create),
        ("what was created is read at once", &report.read_after_create),
        ("what was created is listed at once", &report.list_after_create),
        ("parts of an object can be read", &report.ranges),
    ];
    Err(findings
        .into_iter()
        .fold(failure, |failure, (promise, finding)| match finding {
            Finding::Holds => failure,
            Finding::Broken(seen) => failure.because_text(format!("not kept: {promise} ({seen})")),
        })
        .next(match settings.kind {
            RepositoryKind::Posix { .. } => format!(
                "Set {name}-path to a local file system, or to NFS version 4 from a server that keeps this."
            ),
            RepositoryKind::Bucket(_) => format!(
                "Set {name}-s3-bucket and {name}-s3-endpoint to a store that keeps `If-None-Match: *` on PUT \
                 (Amazon's, Azure, Google's, MinIO, Ceph, SeaweedFS do), or use a directory."
            ),
        }))
}

fn tell(report: &Report, settings: &RepositorySettings, made: &Made, stanza: &Stanza, cluster: &Cluster) {
    let name = settings.name();
    if made.repository_created {
        let encrypted =
            if made.encrypted { "an encrypted repository" } else { "a repository without encryption" };
        report.info(format!("{name}: made {encrypted} in {}", made.place));
    }
    let which = format!("PostgreSQL {}, system {}", cluster.major, cluster.system);
    report.info(if made.cluster_added {
        format!("{name}: stanza {stanza} is made, for {which}")
    } else {
        format!("{name}: stanza {stanza} is there already, for {which}")
    });
    if cluster.segment_size.bytes() >= ByteCount::mib(64).as_u64() {
        report.detail(format!("{name}: WAL segments of this cluster are stored in parts"));
    }
}

type Done = (RepositorySettings, Result<Made, Failure>);

/// The first failure is the run's; the others are told before it.
fn conclude(context: &Context<'_>, stanza: &Stanza, done: Vec<Done>) -> Result<Outcome, Failure> {
    let any_new = done.iter().any(|(_, made)| made.as_ref().is_ok_and(|made| made.cluster_added));
    let mut failures = done.into_iter().filter_map(|(_, made)| made.err());
    let Some(first) = failures.next() else {
        if any_new {
            context.report.info(format!(
                "next: in postgresql.conf set archive_mode = on (which needs a restart) and\n      {}\n      \
                 then take a backup: `walden --stanza={stanza} backup`",
                archive_command(context.settings)
            ));
        }
        return Ok(Outcome::Done);
    };
    failures.for_each(|failure| context.report.failure(&failure));
    Err(first)
}

fn document(stanza: &Stanza, cluster: &Cluster, source: &Source, done: &[Done]) -> serde_json::Value {
    let repositories: Vec<_> = done
        .iter()
        .map(|(settings, made)| match made {
            Ok(made) => json!({
                "repository": settings.index,
                "status": "ok",
                "place": made.place,
                "encrypted": made.encrypted,
                "repository_created": made.repository_created,
                "stanza_created": made.cluster_added,
            }),
            Err(failure) => json!({
                "repository": settings.index,
                "status": "failed",
                "encrypted": settings.cipher != Cipher::None,
                "error": failure.what(),
                "reasons": failure.reasons(),
                "exit_code": failure.class().exit_code(),
            }),
        })
        .collect();
    json!({
        "stanza": stanza.as_str(),
        "cluster": {
            // As text: it does not fit the numbers of many JSON readers.
            "system_identifier": cluster.system.to_string(),
            "postgresql_major": cluster.major.as_u16(),
            "page_size_bytes": cluster.page_size,
            "wal_segment_size_bytes": cluster.segment_size.bytes(),
            "blocks_per_file": cluster.blocks_per_file,
        },
        "learned_from": match source {
            Source::Server(_) => "server",
            Source::DataDirectory(_) => "data_directory",
        },
        "repositories": repositories,
    })
}
