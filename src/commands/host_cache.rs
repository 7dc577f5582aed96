//! Where this host keeps what the opening of a repository leaves behind for the next one: `<lock-path>/cache-<user's
//! number>`, which only that user may look into. What is kept and why is in `repo::remembered`; here is who may keep it.
//!
//! For `archive-push` and `archive-get`, which open a repository for each segment. What a person starts opens it in full,
//! so that `check`, `backup` and `verify` see what is really there.

use super::Context;
use crate::durable::private::{NotPrivate, PrivateFolder, lies_in_memory};
use crate::repo::layout::hex;
use crate::repo::remembered::{Effort, LONGEST, Memory, Remembering};
use crate::repo::{RepoError, Repository, SecretSource};
use crate::settings::{RepositorySettings, Settings};
use crate::storage::Store;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use zeroize::Zeroizing;

/// The file of one repository.
pub(super) struct HostCache<'a> {
    context: &'a Context<'a>,
    above: PathBuf,
    key_file: Option<PathBuf>,
    /// Number and place in words.
    place: String,
}

/// Why nothing is kept that came of a passphrase.
#[derive(Debug)]
pub(super) enum NotKept {
    /// It is in no file: it comes from the environment or a command.
    NoFile,
    /// It lies in memory, and the cache would lie on a disk.
    OnDisk {
        /// Where it would.
        folder: PathBuf,
    },
    /// The cache cannot be used.
    Unusable(NotPrivate),
}

impl fmt::Display for NotKept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoFile => f.write_str("a passphrase that is in no file here may be meant to be on no disk"),
            Self::OnDisk { folder } => {
                write!(f, "the passphrase lies in memory, and {} on a disk", folder.display())
            }
            Self::Unusable(why) => why.fmt(f),
        }
    }
}

/// The folder's name in lock-path. The number is the user's, so that several do not get into each other's way.
fn folder_name() -> String {
    format!("cache-{}", rustix::process::geteuid().as_raw())
}

impl<'a> HostCache<'a> {
    /// That of the repository in `store`.
    pub(super) fn new(context: &'a Context<'a>, settings: &RepositorySettings, store: &dyn Store) -> Self {
        Self {
            context,
            above: lock_path(context.settings),
            key_file: settings.key_file.clone(),
            place: format!("{} {}", settings.name(), store.describe()),
        }
    }

    fn file(&self) -> String {
        let mut hasher = blake3::Hasher::new_derive_key("walden 1 cache file name");
        hasher.update(self.place.as_bytes());
        hex(&hasher.finalize().as_bytes()[..16])
    }

    fn make_folder(&self) -> Result<PrivateFolder, NotPrivate> {
        PrivateFolder::open_or_make(&self.above, &folder_name())
    }

    /// Whether what came of a passphrase may be kept.
    fn may_keep(&self) -> Result<(), NotKept> {
        let file = self.key_file.as_ref().ok_or(NotKept::NoFile)?;
        // What a shell or a pipe gives is no file either.
        if !std::fs::metadata(file).is_ok_and(|found| found.is_file()) {
            return Err(NotKept::NoFile);
        }
        if !lies_in_memory(file).unwrap_or(true) {
            return Ok(());
        }
        let folder = self.make_folder().map_err(NotKept::Unusable)?;
        if folder.is_in_memory() { Ok(()) } else { Err(NotKept::OnDisk { folder: folder.path().to_owned() }) }
    }

    /// The folder in which what came of a passphrase is kept. Makes it, so that what is said of it was tried.
    ///
    /// # Errors
    /// Why it is not.
    pub(super) fn keeps_passphrases_in(&self) -> Result<PathBuf, NotKept> {
        self.may_keep()?;
        let folder = self.make_folder().map_err(NotKept::Unusable)?;
        folder.require_replaceable(&self.file()).map_err(NotKept::Unusable)?;
        Ok(folder.path().to_owned())
    }

    fn mention(&self, what: &str, why: &dyn fmt::Display) {
        self.context.report.debug(format!("{what}: {why}"));
    }
}

fn lock_path(settings: &Settings) -> PathBuf {
    let path = settings.lock_path();
    std::path::absolute(&path).unwrap_or(path)
}

impl Memory for HostCache<'_> {
    fn keeps_derived(&self) -> bool {
        self.may_keep().is_ok()
    }

    fn recall(&self) -> Option<Zeroizing<Vec<u8>>> {
        let read = PrivateFolder::open(&self.above, &folder_name())
            .and_then(|folder| folder.read(&self.file(), LONGEST));
        match read {
            Ok(contents) => Some(contents),
            Err(NotPrivate::Absent(_)) => None,
            Err(why) => {
                self.mention("nothing was recalled", &why);
                None
            }
        }
    }

    fn keep(&self, contents: &[u8]) {
        if let Err(why) = self.make_folder().and_then(|folder| folder.replace(&self.file(), contents)) {
            self.mention("nothing was kept for the next time", &why);
        }
    }

    fn forget(&self) {
        let removed =
            PrivateFolder::open(&self.above, &folder_name()).and_then(|folder| folder.remove(&self.file()));
        match removed {
            Ok(()) | Err(NotPrivate::Absent(_)) => {}
            Err(why) => self.mention("what was kept could not be removed", &why),
        }
    }
}

/// Opens the repository in `store` with the help of this host's cache.
///
/// # Errors
/// As [`Repository::open`], and none of the cache's own.
pub(super) fn open(
    context: &Context<'_>,
    settings: &RepositorySettings,
    store: Arc<dyn Store>,
    secret: SecretSource<'_>,
) -> Result<Repository, RepoError> {
    let (repository, effort) = open_counting(context, settings, store, secret)?;
    if repository.is_encrypted() {
        context.report.debug(format!(
            "{} opened: {} wrapped keys fetched, {} derived with Argon2",
            settings.name(),
            effort.wraps_fetched,
            effort.derivations
        ));
    }
    Ok(repository)
}

fn open_counting(
    context: &Context<'_>,
    settings: &RepositorySettings,
    store: Arc<dyn Store>,
    secret: SecretSource<'_>,
) -> Result<(Repository, Effort), RepoError> {
    let cache = HostCache::new(context, settings, &*store);
    let how = Remembering { memory: &cache, place: &cache.place, env: context.env };
    Repository::open_remembering(store, secret, &how)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "what a test writes needs not last")]
mod tests {
    use super::*;
    use crate::commands::open::{open_store, secret};
    use crate::commands::testing::{Shelf, with};
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::path::Path;

    const WORDS: &str = "correct horse battery staple";

    /// Opens as archive-push does: how often Argon2 ran, or why it did not open.
    fn opened(shelf: &Shelf, more: &[String]) -> Result<u32, RepoError> {
        let mut line = shelf.options(1);
        line.extend_from_slice(more);
        complete(shelf, &mut line);
        let words: Vec<&str> = line.iter().map(String::as_str).collect();
        let (answer, _) = with("archive-push", &words, |context| {
            let settings = &context.settings.all_repositories().unwrap()[0];
            let secret = || Ok(secret(settings).unwrap());
            open_counting(context, settings, open_store(settings).unwrap(), &secret)
        });
        answer.map(|(_, effort)| effort.derivations)
    }

    fn complete(shelf: &Shelf, line: &mut Vec<String>) {
        line.push("--stanza=shop".to_owned());
        if !line.iter().any(|word| word.starts_with("--lock-path=")) {
            line.push(format!("--lock-path={}", shelf.join("lock").display()));
        }
    }

    fn kept(shelf: &Shelf) -> PathBuf {
        let folder = shelf.join("lock").join(folder_name());
        let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(files.len(), 1, "{files:?}");
        files.remove(0)
    }

    fn mode(path: &Path, to: u32) {
        fs::set_permissions(path, Permissions::from_mode(to)).unwrap();
    }

    #[test]
    fn one_derivation_serves_all_segments_and_a_changed_passphrase_is_rejected() {
        let shelf = Shelf::sealed_with(WORDS);
        assert_eq!(opened(&shelf, &[]).unwrap(), 1);
        for _ in 0..3 {
            assert_eq!(opened(&shelf, &[]).unwrap(), 0);
        }
        let file = fs::read_to_string(kept(&shelf)).unwrap();
        assert!(!file.contains("horse"));
        fs::write(shelf.join("key"), "correct donkey").unwrap();
        assert!(matches!(opened(&shelf, &[]), Err(RepoError::KeyRejected { .. })));
        fs::write(shelf.join("key"), WORDS).unwrap();
        assert_eq!(opened(&shelf, &[]).unwrap(), 0);
    }

    #[test]
    fn a_cache_that_others_may_read_or_write_is_ignored_and_made_anew() {
        let shelf = Shelf::sealed_with(WORDS);
        assert_eq!(opened(&shelf, &[]).unwrap(), 1);
        let file = kept(&shelf);
        for loose in [0o644, 0o660, 0o602] {
            mode(&file, loose);
            assert_eq!(opened(&shelf, &[]).unwrap(), 1, "{loose:o}");
            assert_eq!(opened(&shelf, &[]).unwrap(), 0, "{loose:o}");
        }
        for change in
            [|file: &Path| fs::write(file, "").unwrap(), |file: &Path| fs::remove_file(file).unwrap()]
        {
            change(&file);
            assert_eq!(opened(&shelf, &[]).unwrap(), 1);
            assert_eq!(opened(&shelf, &[]).unwrap(), 0);
        }
        mode(file.parent().unwrap(), 0o755);
        for _ in 0..2 {
            assert_eq!(opened(&shelf, &[]).unwrap(), 1, "nothing is read there, and nothing written");
        }
    }

    #[test]
    fn what_is_not_ours_is_neither_read_nor_written_over() {
        let shelf = Shelf::sealed_with(WORDS);
        assert_eq!(opened(&shelf, &[]).unwrap(), 1);
        let file = kept(&shelf);
        let good = fs::read(&file).unwrap();
        let elsewhere = shelf.join("elsewhere");
        fs::rename(&file, &elsewhere).unwrap();
        symlink(&elsewhere, &file).unwrap();
        for _ in 0..2 {
            assert_eq!(opened(&shelf, &[]).unwrap(), 1);
        }
        assert!(file.is_symlink() && fs::read(&elsewhere).unwrap() == good);
        fs::remove_file(&file).unwrap();
        fs::rename(&elsewhere, &file).unwrap();
        assert_eq!(opened(&shelf, &[]).unwrap(), 0);
        // A file in the place of lock-path, and a directory that may not be written.
        let not_there = format!("--lock-path={}", shelf.join("key").display());
        assert_eq!(opened(&shelf, &[not_there]).unwrap(), 1);
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&file, Some(33), None).unwrap();
            for _ in 0..2 {
                assert_eq!(opened(&shelf, &[]).unwrap(), 1);
            }
            assert_eq!(fs::read(&file).unwrap(), good);
        }
    }

    #[test]
    fn of_a_repository_made_again_at_the_place_nothing_old_is_used() {
        let shelf = Shelf::sealed_with(WORDS);
        assert_eq!(opened(&shelf, &[]).unwrap(), 1);
        let other = Shelf::sealed_with(WORDS);
        fs::rename(shelf.join("repo"), shelf.join("away")).unwrap();
        fs::rename(other.join("repo"), shelf.join("repo")).unwrap();
        assert_eq!(opened(&shelf, &[]).unwrap(), 1);
        assert_eq!(opened(&shelf, &[]).unwrap(), 0);
        kept(&shelf);
    }

    #[test]
    fn only_of_a_passphrase_in_a_file_something_is_kept_and_not_on_a_disk_if_that_is_in_memory() {
        let shelf = Shelf::sealed_with(WORDS);
        let key = shelf.join("key").display().to_string();
        let by_command = [format!("--repo1-cipher-pass-command=cat {key}")];
        let judged = |more: &[String]| {
            let mut line = shelf.options(1);
            line.retain(|word| !word.contains("cipher-pass-file"));
            line.extend_from_slice(more);
            complete(&shelf, &mut line);
            let words: Vec<&str> = line.iter().map(String::as_str).collect();
            let (answer, _) = with("archive-push", &words, |context| {
                let settings = &context.settings.all_repositories().unwrap()[0];
                HostCache::new(context, settings, &*open_store(settings).unwrap()).keeps_passphrases_in()
            });
            answer
        };
        assert!(matches!(judged(&by_command), Err(NotKept::NoFile)));
        assert!(!shelf.join("lock").exists(), "nothing was made for that");
        let device = ["--repo1-cipher-pass-file=/dev/null".to_owned()];
        assert!(matches!(judged(&device), Err(NotKept::NoFile)));
        let file = [format!("--repo1-cipher-pass-file={key}")];
        assert_eq!(judged(&file).unwrap(), shelf.join("lock").join(folder_name()));
        let memory = Path::new("/dev/shm");
        let on_disk = !lies_in_memory(&shelf.join("key")).unwrap();
        if on_disk && lies_in_memory(memory).unwrap_or(false) {
            let in_memory = tempfile::tempdir_in(memory).unwrap();
            fs::write(in_memory.path().join("key"), WORDS).unwrap();
            let file = format!("--repo1-cipher-pass-file={}", in_memory.path().join("key").display());
            assert!(matches!(judged(std::slice::from_ref(&file)), Err(NotKept::OnDisk { .. })));
            let both = [file, format!("--lock-path={}", in_memory.path().display())];
            assert_eq!(judged(&both).unwrap(), in_memory.path().join(folder_name()));
        }
    }
}
