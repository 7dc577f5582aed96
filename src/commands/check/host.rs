//! This host: who may read its secrets, and where it may write.

use super::finding::Finding;
use crate::failure::Class;
use crate::settings::{Cipher, KeySource, Origin, RepositorySettings, Settings};
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

pub(super) fn check(settings: &Settings, repositories: &[RepositorySettings]) -> Vec<Finding> {
    let mut found: Vec<Finding> = with_secrets(settings, repositories)
        .into_iter()
        .filter(|path| is_open(path))
        .map(|path| {
            Finding::warning(
                "secrets",
                format!("{} holds a secret, and every user of this host may read it", path.display()),
            )
            .next(format!("`chmod o-rwx {}`", path.display()))
        })
        .collect();
    found.extend(from_environment(&settings.secrets_from_environment()));
    let log = settings.log_path().map(|(path, _)| path);
    found.extend(log.filter(|path| path.is_dir() && !may_write(path)).map(|path| {
        Finding::warning("host", format!("no log files: {} cannot be written to", path.display()))
            .next("Give it to the user who runs walden, or set log-path.")
    }));
    let spool = settings.spool_path();
    if !may_write(&spool) {
        found.push(
            Finding::error(
                "host",
                Class::LocalFileSystem,
                format!("a backup cannot sort its list of files: {} cannot be written to", spool.display()),
            )
            .next("Make that directory for the user who runs walden, or set spool-path."),
        );
    }
    found
}

fn from_environment(names: &[String]) -> Option<Finding> {
    (!names.is_empty()).then(|| {
        Finding::warning(
            "secrets",
            format!(
                "{} is set here, and the server that runs archive_command need not have it",
                names.join(", ")
            ),
        )
        .next("Set repoN-cipher-pass-file in the configuration file instead.")
    })
}

/// Files that hold a key, a passphrase or another secret.
fn with_secrets(settings: &Settings, repositories: &[RepositorySettings]) -> BTreeSet<PathBuf> {
    let mut files: BTreeSet<PathBuf> = settings
        .all()
        .filter(|setting| setting.spec.secret)
        .filter_map(|setting| match &setting.origin {
            Origin::File { path, .. } => Some(path.clone()),
            _ => None,
        })
        .collect();
    files.extend(repositories.iter().filter_map(|repository| match &repository.cipher {
        Cipher::Aes256Gcm(KeySource::File(path)) => Some(path.clone()),
        _ => None,
    }));
    files
}

/// Whether others than owner and group may read it. One that is not there has better words elsewhere.
fn is_open(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
}

fn may_write(directory: &Path) -> bool {
    use rustix::fs::Access;
    directory.is_dir() && rustix::fs::access(directory, Access::WRITE_OK | Access::EXEC_OK).is_ok()
}
