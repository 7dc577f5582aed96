//! `repo-get`: one stored object in the clear, on stdout. One frame is in memory at a time.

use super::open::{open_repository, repository_failure, store_failure};
use super::repo_ls::{nothing_there, path_argument};
use super::{Context, Outcome, no_stdout};
use crate::failure::{Class, Failure};
use crate::repo::frame::FrameDecoder;
use crate::repo::layout::{Named, Place, WalEntry, named};
use crate::repo::repository::SMALL_LIMIT;
use crate::repo::{RepoError, Repository};
use crate::report::Report;
use crate::settings::RepositorySettings;
use crate::storage::Key;
use crate::wal::{ClusterWal, ShortHash, WalError, read};
use std::io;

pub(super) fn run(context: &Context<'_>) -> Result<Outcome, Failure> {
    let settings = context.settings.repository_to_write()?;
    let repository = open_repository(&settings)?;
    let Some(key) = path_argument(context, &settings)? else {
        return Err(Failure::new(Class::Usage, "cannot get a whole repository")
            .next("Name one object; `walden repo-ls --recurse` shows them all."));
    };
    let Some(what) = named(&key) else {
        return Err(unknown(&repository, &key, &settings)?);
    };
    match write_out(&repository, &key, &what, context.report) {
        Ok(()) => Ok(Outcome::Done),
        Err(Trouble::Repo(RepoError::Missing { object })) if object == key => {
            Err(nothing_there(&key, &settings, &repository.describe()))
        }
        Err(Trouble::Repo(error)) => {
            let failure =
                repository_failure(error, &settings, format!("cannot get {key} from {}", settings.name()));
            Err(if failure.class() == Class::Damaged {
                failure.because_text("what was written to stdout before is not to be trusted")
            } else {
                failure
            })
        }
        Err(Trouble::Stdout(error)) => Err(no_stdout(error)),
        Err(Trouble::Other(error)) => {
            let what = format!("could not get {key} from {}", settings.name());
            Err(Failure::new(Class::LocalFileSystem, what).because(error))
        }
    }
}

/// A folder, or a name that is none of ours.
fn unknown(repository: &Repository, key: &Key, settings: &RepositorySettings) -> Result<Failure, Failure> {
    let could_not =
        |error| store_failure(error, settings, format!("could not look for {key} in {}", settings.name()));
    let store = repository.store();
    if store.size(key).map_err(could_not)?.is_some() {
        return Ok(Failure::new(Class::Usage, format!("cannot tell what {key} is"))
            .because_text("its name is none that this version of walden gives"));
    }
    let folder = store.folder(Some(key)).map_err(could_not)?;
    if folder.objects.is_empty() && folder.folders.is_empty() {
        return Ok(nothing_there(key, settings, &repository.describe()));
    }
    Ok(Failure::new(Class::Usage, format!("cannot get {key}: it is a folder"))
        .next(format!("`walden repo-ls {key}` shows what is in it.")))
}

enum Trouble {
    Repo(RepoError),
    Stdout(io::Error),
    Other(WalError),
}

impl From<RepoError> for Trouble {
    fn from(error: RepoError) -> Self {
        Self::Repo(error)
    }
}

fn write_out(repository: &Repository, key: &Key, what: &Named, report: &Report) -> Result<(), Trouble> {
    let mut sink = |bytes: &[u8]| report.data(bytes);
    let outcome = match what {
        // Segments by the code that knows of large ones, which lie in parts.
        Named::Wal(stanza, system, WalEntry::Segment(segment)) => {
            let wal = ClusterWal { repo: repository, stanza, system: *system };
            read::read_segment_into(wal, *segment, &mut sink)
        }
        Named::Wal(stanza, system, WalEntry::Partial(segment, hash)) => {
            let wal = ClusterWal { repo: repository, stanza, system: *system };
            let Some(hash) = ShortHash::parse(hash) else {
                return Err(RepoError::Missing { object: key.clone() }.into());
            };
            read::read_partial_into(wal, *segment, hash, &mut sink)
        }
        other => {
            return match other.place() {
                Some(place) => frames(repository, &place, report),
                None => {
                    let bytes =
                        repository.store().read(key, SMALL_LIMIT).map_err(|error| match error.kind {
                            crate::storage::StoreErrorKind::NotFound => {
                                RepoError::Missing { object: key.clone() }
                            }
                            _ => RepoError::Store(error),
                        })?;
                    report.data(&bytes).map_err(Trouble::Stdout)
                }
            };
        }
    };
    match outcome {
        Ok(_) => Ok(()),
        Err(WalError::Repo(error)) => Err(Trouble::Repo(error)),
        Err(WalError::Sink(error)) => Err(Trouble::Stdout(error)),
        Err(other) => Err(Trouble::Other(other)),
    }
}

fn frames(repository: &Repository, place: &Place, report: &Report) -> Result<(), Trouble> {
    let reader = repository.reader(place)?;
    let mut decoder = FrameDecoder::new().map_err(|_| RepoError::TooLarge { what: place.key.to_string() })?;
    let mut plain = Vec::new();
    for frame in 0..reader.frames().len() {
        let mut span = reader.fetch(repository.store(), frame..frame + 1)?;
        reader.decode(&mut span, frame, &mut decoder, &mut plain)?;
        report.data(&plain).map_err(Trouble::Stdout)?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests damage files on purpose")]
mod tests {
    use super::*;
    use crate::commands::testing::{self, Shelf, cluster, shop};
    use crate::commands::{Runner, repo_ls};
    use crate::repo::layout;
    use crate::units::{BackupKind, Timestamp};

    fn call(
        shelf: &Shelf,
        command: &str,
        runner: Runner,
        more: &[&str],
    ) -> (Result<Outcome, Failure>, String) {
        let options = shelf.options(1);
        let line: Vec<&str> = options.iter().map(String::as_str).chain(more.iter().copied()).collect();
        let (outcome, seen) = testing::run(command, &line, runner);
        (outcome, seen.data())
    }

    fn shelf() -> (Shelf, String) {
        let shelf = Shelf::new();
        shelf.store_segment("000000010000000000000001", None);
        let random = [5; 13];
        let id = crate::units::BackupId::new(Timestamp::from_unix_seconds(1), BackupKind::Full, random);
        let place = layout::pack(&shop(), &id, 0).unwrap();
        shelf.repository.create_parts(&place, &[b"one ", b"two"], Vec::new(), &shelf.env).unwrap();
        (shelf, place.key.to_string())
    }

    #[test]
    fn names_are_listed_and_each_object_is_given_in_the_clear() {
        let (shelf, pack) = shelf();
        let list = |more: &[&str]| call(&shelf, "repo-ls", repo_ls::run, more);
        let get = |more: &[&str]| call(&shelf, "repo-get", run, more);
        assert_eq!(list(&[]).1, "keys/\nshop/\nwalden.json\n");
        assert_eq!(list(&["shop/"]).1, "cluster/\ndata/\nwal/\n");
        let all = list(&["--recurse"]).1;
        assert_eq!(all.lines().count(), 5, "{all}");
        for name in all.lines() {
            let (outcome, bytes) = get(&[name]);
            assert!(outcome.is_ok() && !bytes.is_empty(), "{name}: {outcome:?}");
        }
        assert_eq!(get(&[&pack]).1, "one two");
        assert_eq!(list(&[&pack]).1, "pack-000000\n");
        let system = cluster().system;
        let json = get(&[&format!("shop/cluster/{system}")]).1;
        assert!(json.contains("\"postgresql_major\": 17"), "{json}");
        let segment = all.lines().find(|name| name.contains("/wal/")).unwrap();
        assert_eq!(get(&[segment]).1.len(), 1 << 20);
    }

    #[test]
    fn what_is_not_there_and_what_is_no_object_is_said() {
        let (shelf, pack) = shelf();
        let refused = |command: &str, runner: Runner, path: &str| {
            let failure = call(&shelf, command, runner, &[path]).0.unwrap_err();
            (failure.class(), failure.what().to_owned())
        };
        assert_eq!(refused("repo-get", run, "shop").0, Class::Usage);
        assert_eq!(refused("repo-get", run, "../key").0, Class::Usage);
        assert_eq!(refused("repo-get", run, "shop/wal/1/00000002.history").0, Class::NoRepository);
        assert_eq!(refused("repo-get", run, "nothing").1, "there is nothing named \"nothing\" in repo1");
        assert_eq!(
            refused("repo-ls", repo_ls::run, "nothing").1,
            "there is nothing named \"nothing\" in repo1"
        );

        let file = shelf.join("repo").join(&pack);
        let mut bytes = std::fs::read(&file).unwrap();
        let at = bytes.len() / 2;
        bytes[at] ^= 1;
        std::fs::write(&file, bytes).unwrap();
        assert_eq!(refused("repo-get", run, &pack).0, Class::Damaged);
        std::fs::write(shelf.join("repo/shop/strange"), "x").unwrap();
        assert_eq!(refused("repo-get", run, "shop/strange").1, "cannot tell what shop/strange is");
    }
}
