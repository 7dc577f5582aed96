//! Opening what the settings name, and the words for what is in the way. The one place where a repository's
//! or a connection's typed errors become failures.

use super::{Context, bucket, host_cache, tls_words};
use crate::failure::{Class, Failure};
use crate::postgres::client::{
    ClientError, ConnectionParameters, ConnectionSettings, Password, ServerState, os_home_directory,
    os_user_name,
};
use crate::repo::keys::Secret;
use crate::repo::repository::read_repository_file;
use crate::repo::{RepoError, Repository, SecretSource};
use crate::settings::{Cipher, RepositoryKind, RepositorySettings, ServerSettings};
use crate::storage::object::rules::BucketRules;
use crate::storage::posix::PosixStore;
use crate::storage::{Store, StoreError, StoreErrorKind};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The store of a repository that should be there.
///
/// # Errors
/// When it is not, or cannot be reached.
pub fn open_store(settings: &RepositorySettings) -> Result<Arc<dyn Store>, Failure> {
    match &settings.kind {
        RepositoryKind::Posix { path } => match PosixStore::open(path) {
            Ok(store) => Ok(Arc::new(store)),
            Err(error) => Err(store_failure(error, settings, format!("could not open {}", settings.name()))),
        },
        RepositoryKind::Bucket(bucket) => bucket::open(settings, bucket),
    }
}

/// The store of a repository that is to be made: its directory is made where it is missing.
///
/// # Errors
/// When it cannot be made or reached.
pub fn create_store(settings: &RepositorySettings) -> Result<Arc<dyn Store>, Failure> {
    match &settings.kind {
        RepositoryKind::Posix { path } => match PosixStore::create_root(path) {
            Ok(store) => Ok(Arc::new(store)),
            Err(error) => Err(store_failure(error, settings, format!("could not make {}", settings.name()))),
        },
        // Buckets are not ours to make.
        RepositoryKind::Bucket(bucket) => bucket::open(settings, bucket),
    }
}

/// For a probe, the store by all the addresses that an object store's name has; `None` where there are no addresses.
///
/// # Errors
/// When none of them answers.
pub fn store_by_every_address(settings: &RepositorySettings) -> Result<Option<Arc<dyn Store>>, Failure> {
    match &settings.kind {
        RepositoryKind::Posix { .. } => Ok(None),
        RepositoryKind::Bucket(bucket) => bucket::open_by_every_address(settings, bucket).map(Some),
    }
}

/// What a bucket does by itself with what lies in it; `None` where there is none, or it is not asked.
///
/// # Errors
/// When it cannot be opened. What it does not answer is in the rules.
pub fn bucket_rules(settings: &RepositorySettings) -> Result<Option<BucketRules>, Failure> {
    match &settings.kind {
        RepositoryKind::Posix { .. } => Ok(None),
        RepositoryKind::Bucket(bucket) => bucket::rules(settings, bucket),
    }
}

/// Looks whether a repository's store answers within `patience`, where its settings would wait longer. A filesystem is
/// not asked.
///
/// # Errors
/// What the store says, or that it says nothing.
pub fn answers(settings: &RepositorySettings, patience: Duration) -> Result<(), Failure> {
    let RepositoryKind::Bucket(bucket) = &settings.kind else { return Ok(()) };
    let mut hasty = bucket.clone();
    hasty.retry = hasty.retry.min(patience);
    let what = || format!("cannot open {}", settings.name());
    let store = bucket::open(settings, &hasty)?;
    match read_repository_file(&*store) {
        // What is wrong with what is there, opening says better.
        Err(RepoError::Store(error)) => Err(store_failure(error, settings, what())),
        _ => Ok(()),
    }
}

/// The key that the settings name; `None` for a repository that is not to be encrypted.
///
/// # Errors
/// When it cannot be had, or is mistyped.
pub fn secret(settings: &RepositorySettings) -> Result<Option<Secret>, Failure> {
    match &settings.cipher {
        Cipher::None => Ok(None),
        Cipher::Aes256Gcm(source) => {
            let text = source.resolve()?;
            Secret::parse(text.expose()).map(Some).map_err(|error| {
                repository_failure(error, settings, format!("cannot open {}", settings.name()))
            })
        }
    }
}

/// Opens a repository.
///
/// # Errors
/// In a person's words, naming the repository and the setting to look at.
pub fn open_repository(settings: &RepositorySettings) -> Result<Repository, Failure> {
    open_by(settings, Repository::open)
}

/// The same, with the help of this host's cache.
///
/// # Errors
/// As [`open_repository`].
pub fn open_with_cache(context: &Context<'_>, settings: &RepositorySettings) -> Result<Repository, Failure> {
    open_by(settings, |store, secret| host_cache::open(context, settings, store, secret))
}

fn open_by(
    settings: &RepositorySettings,
    open: impl FnOnce(Arc<dyn Store>, SecretSource<'_>) -> Result<Repository, RepoError>,
) -> Result<Repository, Failure> {
    let store = open_store(settings)?;
    // The key is fetched only when the repository is encrypted; its own failure has better words.
    let fetching = std::cell::RefCell::new(None);
    let fetch = || match secret(settings) {
        Ok(secret) => Ok(secret),
        Err(failure) => {
            fetching.replace(Some(failure));
            Err(RepoError::KeyMissing)
        }
    };
    let opened = open(store, &fetch);
    if let Some(failure) = fetching.take() {
        return Err(failure);
    }
    let what = format!("cannot open {}", settings.name());
    match opened {
        // Settings that say "encrypted" over a repository that is not would store in the clear without a word.
        Ok(repository) if !repository.is_encrypted() && settings.cipher != Cipher::None => {
            Err(repository_failure(RepoError::NotEncrypted, settings, what))
        }
        Ok(repository) => Ok(repository),
        Err(error) => Err(repository_failure(error, settings, what)),
    }
}

/// Words for a repository's trouble. `what` is the first line.
#[must_use]
pub fn repository_failure(
    error: RepoError,
    settings: &RepositorySettings,
    what: impl Into<String>,
) -> Failure {
    let name = settings.name();
    let what = what.into();
    match error {
        RepoError::NoRepository { .. } => Failure::new(Class::NoRepository, what).because(error).next(
            format!("Check {name}-path; if the repository is yet to be made, run `walden stanza-create`."),
        ),
        RepoError::KeyRejected { .. } => Failure::new(
            Class::KeyRejected,
            format!("cannot open {name}: the key is not the one this repository was made with"),
        )
        .because(error)
        .next(key_step(settings)),
        RepoError::KeyMistyped => {
            Failure::new(Class::KeyRejected, what).because(error).next(key_step(settings))
        }
        RepoError::KeyMissing => Failure::new(Class::KeyRejected, what)
            .because(error)
            .next(format!("Set {name}-cipher-type=aes-256-gcm and {name}-cipher-pass-file.")),
        RepoError::NotEncrypted => Failure::new(Class::KeyRejected, what).because(error).next(format!(
            "Check {name}-path, or set {name}-cipher-type=none if it is meant to be in the clear."
        )),
        RepoError::NewerFormat { .. } => Failure::new(Class::NoRepository, what)
            .because(error)
            .next("Install the newest walden; nothing was changed."),
        RepoError::Damaged { .. } | RepoError::Missing { .. } => {
            Failure::new(Class::Damaged, what).because(error)
        }
        RepoError::Conflict { .. } | RepoError::Exists { .. } => {
            Failure::new(Class::Damaged, what).because(error)
        }
        RepoError::Spool(_) => Failure::new(Class::LocalFileSystem, what)
            .because(error)
            .next("Check that spool-path has space and may be written."),
        RepoError::Store(error) => store_failure(error, settings, what),
        RepoError::TooLarge { .. } | RepoError::Name(_) => Failure::new(Class::Bug, what).because(error),
        RepoError::Randomness(_) => Failure::new(Class::LocalFileSystem, what).because(error),
    }
}

fn key_step(settings: &RepositorySettings) -> String {
    let name = settings.name();
    match &settings.cipher {
        Cipher::Aes256Gcm(crate::settings::KeySource::File(path)) => {
            format!("Check {name}-cipher-pass-file={}.", path.display())
        }
        Cipher::Aes256Gcm(crate::settings::KeySource::Command(_)) => {
            format!("Check what the command of {name}-cipher-pass-command prints.")
        }
        _ => format!("Check the key of {name} (`walden config` shows where it comes from)."),
    }
}

/// Words for a store's trouble. `what` is the first line.
#[must_use]
pub fn store_failure(error: StoreError, settings: &RepositorySettings, what: impl Into<String>) -> Failure {
    let kind = error.kind;
    let local = matches!(settings.kind, RepositoryKind::Posix { .. });
    let class = match kind {
        StoreErrorKind::NotFound => Class::NoRepository,
        StoreErrorKind::Taken => Class::Damaged,
        StoreErrorKind::Full | StoreErrorKind::Denied if local => Class::LocalFileSystem,
        StoreErrorKind::Full
        | StoreErrorKind::Denied
        | StoreErrorKind::Unavailable
        | StoreErrorKind::Unsupported => Class::StorageUnavailable,
    };
    let steps = match (&settings.kind, kind) {
        (RepositoryKind::Bucket(bucket), _) => bucket::steps(settings, bucket, &error),
        (_, StoreErrorKind::Full) => {
            vec!["Make room there; nothing half-written is left in the way.".to_owned()]
        }
        (_, StoreErrorKind::NotFound) => vec![format!(
            "Check {}-path; if the repository is yet to be made, run `walden stanza-create`.",
            settings.name()
        )],
        _ => Vec::new(),
    };
    steps.into_iter().fold(Failure::new(class, what).because(error), Failure::next)
}

/// What is needed to connect to a server, from settings and `PG*` variables.
///
/// # Errors
/// When they contradict themselves or ask for what this version cannot do.
pub fn connection(server: &ServerSettings) -> Result<ConnectionParameters, Failure> {
    let settings = ConnectionSettings {
        host: server.host.clone(),
        port: server.port,
        socket_path: server.socket_path.clone(),
        user: server.user.clone(),
        database: server.database.clone(),
        conninfo: server.conninfo.clone().map(Password::new),
    };
    let mut environment: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
        .collect();
    // Services are often started without it; libpq looks in the same place then.
    if let (false, Some(home)) = (environment.contains_key("HOME"), os_home_directory()) {
        environment.insert("HOME".to_owned(), home);
    }
    ConnectionParameters::resolve(&settings, &environment, os_user_name().as_deref()).map_err(|error| {
        Failure::new(Class::Usage, format!("cannot connect to pg{}", server.index))
            .because(error)
            .next(format!("Check the pg{}-… settings and the PG… variables (`walden config`).", server.index))
    })
}

/// Words for a server's trouble. `what` is the first line.
#[must_use]
pub fn client_failure(error: ClientError, what: impl Into<String>) -> Failure {
    let (class, steps): (Class, Vec<String>) = match &error {
        ClientError::Resolve { .. } | ClientError::Connect { .. } => (
            Class::PostgresUnreachable,
            vec!["Check that the server runs, and pg1-host, pg1-port or pg1-socket-path.".to_owned()],
        ),
        ClientError::NoHbaEntry { at, user, encrypted, .. } => {
            let mut steps = vec![format!(
                "Add to pg_hba.conf, above any line that rejects: `host replication {user} ADDRESS/32 scram-sha-256` \
                 (or `local replication {user} peer`), then `select pg_reload_conf()`."
            )];
            steps.extend(tls_words::unencrypted_step(at, *encrypted));
            (Class::PostgresRefuses, steps)
        }
        ClientError::Tls { problem, .. } => tls_words::steps(problem),
        ClientError::ChannelBinding { problem, .. } => {
            (Class::PostgresRefuses, tls_words::binding_steps(problem))
        }
        ClientError::PasswordMissing { .. } => (
            Class::PostgresRefuses,
            vec![
                "Put the password into ~/.pgpass (mode 0600) of the user who runs walden, or set PGPASSFILE."
                    .to_owned(),
            ],
        ),
        ClientError::PasswordWrong { .. } => (
            Class::PostgresRefuses,
            vec!["Check the line of the password file that matches this server and user.".to_owned()],
        ),
        ClientError::NoReplicationRight { user, .. } => {
            (Class::PostgresRefuses, vec![format!("As a superuser: `alter role \"{user}\" replication`.")])
        }
        ClientError::NoFreeWalSender { .. } => (
            Class::PostgresRefuses,
            vec![
                "Raise max_wal_senders (it needs a restart), or end a stale one: \
                 `select pid, application_name, state from pg_stat_replication`."
                    .to_owned(),
            ],
        ),
        ClientError::TooManyClients { .. } => (
            Class::PostgresRefuses,
            vec!["Try again when connections are free, or raise max_connections.".to_owned()],
        ),
        ClientError::NotReady { state: ServerState::HotStandbyOff, .. } => (
            Class::PostgresUnreachable,
            vec![
                "Set hot_standby = on there (it needs a restart), or name another server of the cluster."
                    .to_owned(),
            ],
        ),
        ClientError::NotReady { .. } => {
            (Class::PostgresUnreachable, vec!["Try again when the server accepts connections.".to_owned()])
        }
        ClientError::NotAuthorized { user, server, .. } if server.message.starts_with("Peer ") => (
            Class::PostgresRefuses,
            vec![format!(
                "peer lets a system user in under its own name only: end the line of pg_hba.conf with map=walden, and \
                 add `walden {} {user}` to pg_ident.conf, then `select pg_reload_conf()`.",
                os_user_name().as_deref().unwrap_or("SYSTEM-USER")
            )],
        ),
        // "connection requires a valid client certificate", "certificate authentication failed for user …".
        ClientError::NotAuthorized { user, server, .. } if server.message.contains("certificate") => {
            (Class::PostgresRefuses, vec![tls_words::client_certificate_step(user)])
        }
        ClientError::NotAuthorized { .. }
        | ClientError::AuthenticationUnsupported { .. }
        | ClientError::ServerNotAuthentic
        | ClientError::NoSuchDatabase { .. } => (Class::PostgresRefuses, Vec::new()),
        // The server knows best, and what it advises is safe for everyone who may read its errors.
        ClientError::Server { server, .. } if !server.hint.is_empty() => {
            (Class::PostgresRefuses, vec![server.hint.clone()])
        }
        ClientError::Server { .. } | ClientError::NoSql | ClientError::WalRemoved { .. } => {
            (Class::PostgresRefuses, Vec::new())
        }
        ClientError::Request(_) => (Class::Usage, Vec::new()),
        _ => (Class::PostgresUnreachable, Vec::new()),
    };
    steps.into_iter().fold(Failure::new(class, what).because(error), Failure::next)
}
