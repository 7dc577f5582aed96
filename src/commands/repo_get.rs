//! `repo-get`: one stored object in the clear, on stdout. One frame is in memory at a time.
//!
//! Of several repositories the first that gives good bytes. Where one turns out to be damaged in the middle of an
//! object, the next goes on from there, if it begins as what was already written.

use super::open::{open_repository, repository_failure, store_failure};
use super::repo_ls::{not_configured, nothing_there, path_argument};
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
    let repositories = context.settings.repositories()?;
    let first = repositories.first().ok_or_else(not_configured)?;
    let Some(key) = path_argument(context, first)? else {
        return Err(Failure::new(Class::Usage, "cannot get a whole repository")
            .next("Name one object; `walden repo-ls --recurse` shows them all."));
    };
    let what = named(&key);
    let mut out = Out::new(context.report);
    let (mut troubles, mut without) = (Vec::new(), Vec::new());
    for settings in &repositories {
        let before = out.written;
        match attempt(settings, &key, what.as_ref(), &mut out)? {
            Tried::Given(place) => {
                troubles.iter().for_each(|failure: &Failure| context.report.warn(failure.one_line()));
                if settings.index != first.index {
                    context.report.info(origin(&key, settings, &place, &without, before));
                }
                return Ok(if troubles.is_empty() { Outcome::Done } else { Outcome::DoneWithWarnings });
            }
            Tried::Nothing(place) => without.push((settings, place)),
            Tried::Failed(failure) => troubles.push(failure),
        }
    }
    // One that could not be looked into may hold it: that is not "nothing".
    let Some(mut failure) = Failure::all(troubles) else {
        return Err(nothing_there(&key, &without));
    };
    for (settings, place) in &without {
        failure =
            failure.because_text(format!("and {} ({place}) holds nothing of that name", settings.name()));
    }
    if out.written > 0 {
        failure = failure.because_text("what was written to stdout before is not to be trusted");
    }
    Err(failure)
}

/// Where an object came from that is not from the first repository.
fn origin(
    key: &Key,
    settings: &RepositorySettings,
    place: &str,
    without: &[(&RepositorySettings, String)],
    before: u64,
) -> String {
    let name = settings.name();
    let mut text = match before {
        0 => format!("{key} is from {name} ({place})"),
        bytes => {
            format!("{key} is from {name} ({place}) after its first {bytes} bytes, which are the same there")
        }
    };
    if !without.is_empty() {
        let names: Vec<String> = without.iter().map(|(settings, _)| settings.name()).collect();
        text.push_str(&format!("; not in {}", names.join(", ")));
    }
    text
}

/// What came of asking one repository.
enum Tried {
    /// It gave the whole object. Where the repository is.
    Given(String),
    /// It has nothing of that name. Where the repository is.
    Nothing(String),
    /// It could not be looked into, or what it has is not good.
    Failed(Failure),
}

/// Asks one repository. Fails where no other repository would help.
fn attempt(
    settings: &RepositorySettings,
    key: &Key,
    what: Option<&Named>,
    out: &mut Out<'_>,
) -> Result<Tried, Failure> {
    let repository = match open_repository(settings) {
        Ok(repository) => repository,
        Err(failure) => return Ok(Tried::Failed(failure)),
    };
    let Some(what) = what else { return strange(&repository, key, settings) };
    out.begin();
    let given = write_out(&repository, key, what, out).and_then(|()| out.end());
    let name = settings.name();
    match given {
        Ok(()) => Ok(Tried::Given(repository.describe())),
        Err(Trouble::Repo(RepoError::Missing { object })) if object == *key => {
            Ok(Tried::Nothing(repository.describe()))
        }
        Err(Trouble::Repo(error)) => {
            Ok(Tried::Failed(repository_failure(error, settings, format!("cannot get {key} from {name}"))))
        }
        Err(Trouble::Differs) => Ok(Tried::Failed(
            Failure::new(Class::Damaged, format!("cannot get the rest of {key} from {name}"))
                .because_text("what it holds does not begin as what was written to stdout before"),
        )),
        Err(Trouble::Other(error)) => Ok(Tried::Failed(
            Failure::new(Class::LocalFileSystem, format!("could not get {key} from {name}")).because(error),
        )),
        Err(Trouble::Stdout(error)) => Err(no_stdout(error)),
    }
}

/// A folder, or a name that is none of ours.
fn strange(repository: &Repository, key: &Key, settings: &RepositorySettings) -> Result<Tried, Failure> {
    let could_not = |error| {
        let what = format!("could not look for {key} in {}", settings.name());
        Ok(Tried::Failed(store_failure(error, settings, what)))
    };
    let store = repository.store();
    match store.size(key) {
        Ok(None) => {}
        Ok(Some(_)) => {
            return Err(Failure::new(Class::Usage, format!("cannot tell what {key} is"))
                .because_text("its name is none that this version of walden gives"));
        }
        Err(error) => return could_not(error),
    }
    match store.folder(Some(key)) {
        Ok(folder) if folder.objects.is_empty() && folder.folders.is_empty() => {
            Ok(Tried::Nothing(repository.describe()))
        }
        Ok(_) => Err(Failure::new(Class::Usage, format!("cannot get {key}: it is a folder"))
            .next(format!("`walden repo-ls {key}` shows what is in it."))),
        Err(error) => could_not(error),
    }
}

enum Trouble {
    Repo(RepoError),
    Stdout(io::Error),
    /// It is not what another repository gave the beginning of.
    Differs,
    Other(WalError),
}

impl From<RepoError> for Trouble {
    fn from(error: RepoError) -> Self {
        Self::Repo(error)
    }
}

/// Stdout, which gets each byte of the object once, from however many repositories it is read.
struct Out<'r> {
    report: &'r Report,
    /// Bytes that were written, and what they hash to.
    written: u64,
    hash: blake3::Hasher,
    /// Of those, the bytes that the present repository gave again.
    again: u64,
    hash_again: blake3::Hasher,
    differs: bool,
}

impl<'r> Out<'r> {
    fn new(report: &'r Report) -> Self {
        let hash = blake3::Hasher::new();
        Self { report, written: 0, hash_again: hash.clone(), hash, again: 0, differs: false }
    }

    /// What comes now is the object from its beginning.
    fn begin(&mut self) {
        self.again = 0;
        self.hash_again = blake3::Hasher::new();
        self.differs = false;
    }

    fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        let known = usize::try_from(self.written - self.again).unwrap_or(usize::MAX).min(bytes.len());
        let (known, new) = bytes.split_at(known);
        if !known.is_empty() {
            self.hash_again.update(known);
            self.again += known.len() as u64;
            if self.again == self.written && self.hash_again.finalize() != self.hash.finalize() {
                self.differs = true;
                return Err(io::Error::other("not what was written before"));
            }
        }
        if !new.is_empty() {
            self.report.data(new)?;
            self.hash.update(new);
            self.written += new.len() as u64;
            self.again = self.written;
        }
        Ok(())
    }

    /// What [`Out::take`] said.
    fn trouble(&self, error: io::Error) -> Trouble {
        if self.differs { Trouble::Differs } else { Trouble::Stdout(error) }
    }

    /// The object is whole.
    fn end(&self) -> Result<(), Trouble> {
        if self.again < self.written { Err(Trouble::Differs) } else { Ok(()) }
    }
}

fn write_out(repository: &Repository, key: &Key, what: &Named, out: &mut Out<'_>) -> Result<(), Trouble> {
    let mut sink = |bytes: &[u8]| out.take(bytes);
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
                Some(place) => frames(repository, &place, out),
                None => {
                    let bytes =
                        repository.store().read(key, SMALL_LIMIT).map_err(|error| match error.kind {
                            crate::storage::StoreErrorKind::NotFound => {
                                RepoError::Missing { object: key.clone() }
                            }
                            _ => RepoError::Store(error),
                        })?;
                    out.take(&bytes).map_err(|error| out.trouble(error))
                }
            };
        }
    };
    match outcome {
        Ok(_) => Ok(()),
        Err(WalError::Repo(error)) => Err(Trouble::Repo(error)),
        Err(WalError::Sink(error)) => Err(out.trouble(error)),
        Err(other) => Err(Trouble::Other(other)),
    }
}

fn frames(repository: &Repository, place: &Place, out: &mut Out<'_>) -> Result<(), Trouble> {
    let reader = repository.reader(place)?;
    let mut decoder = FrameDecoder::new().map_err(|_| RepoError::TooLarge { what: place.key.to_string() })?;
    let mut plain = Vec::new();
    for frame in 0..reader.frames().len() {
        let mut span = reader.fetch(repository.store(), frame..frame + 1)?;
        reader.decode(&mut span, frame, &mut decoder, &mut plain)?;
        out.take(&plain).map_err(|error| out.trouble(error))?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests damage files on purpose")]
mod tests;
