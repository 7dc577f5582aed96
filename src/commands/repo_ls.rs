//! `repo-ls`: what lies in a repository. No key is needed to look at names. Of several repositories the first that
//! can be listed: which one that is matters to who looks, so it is said where it is not the first.

use super::open::{open_store, repository_failure, store_failure};
use super::{Context, Outcome, no_stdout, word};
use crate::failure::{Class, Failure};
use crate::repo::repository::read_repository_file;
use crate::report::Report;
use crate::settings::RepositorySettings;
use crate::storage::{Key, Listed, Store};
use serde_json::json;
use std::collections::BTreeMap;

/// Up to so many lines are sorted. More are written as the store gives them: a repository of tens of
/// terabytes has millions.
const SORTED: usize = 50_000;

pub(super) fn run(context: &Context<'_>) -> Result<Outcome, Failure> {
    let repositories = context.settings.repositories()?;
    let path = path_argument(context, repositories.first().ok_or_else(not_configured)?)?;
    let mut troubles: Vec<Failure> = Vec::new();
    for settings in &repositories {
        match list(context, settings, path.as_ref()) {
            Ok(place) => {
                troubles.iter().for_each(|failure| context.report.warn(failure.one_line()));
                if !troubles.is_empty() {
                    context.report.info(format!("this is what lies in {} ({place})", settings.name()));
                    return Ok(Outcome::DoneWithWarnings);
                }
                return Ok(Outcome::Done);
            }
            Err(Stopped::Next(failure)) => troubles.push(failure),
            Err(Stopped::Nothing(path, place)) => {
                let others = repositories.iter().filter(|one| one.index != settings.index);
                return Err(absent(&path, settings, place, troubles, others));
            }
            Err(Stopped::ForGood(failure)) => {
                troubles.iter().for_each(|failure| context.report.warn(failure.one_line()));
                return Err(failure);
            }
        }
    }
    Err(Failure::all(troubles).unwrap_or_else(not_configured))
}

pub(super) fn not_configured() -> Failure {
    Failure::new(Class::Usage, "no repository is configured")
}

/// Why a repository was not listed.
enum Stopped {
    /// Nothing was written yet, so another may be listed instead.
    Next(Failure),
    /// It answers, and has nothing of this name. Where it is.
    Nothing(Key, String),
    ForGood(Failure),
}

/// Lists one repository; says where it is.
fn list(context: &Context<'_>, settings: &RepositorySettings, path: Option<&Key>) -> Result<String, Stopped> {
    let store = open_store(settings).map_err(Stopped::Next)?;
    let (name, place) = (settings.name(), store.describe());
    read_repository_file(&*store)
        .map_err(|error| Stopped::Next(repository_failure(error, settings, format!("cannot list {name}"))))?;
    let mut lines = Lines::new(context.report, context.settings.recurse());
    let could_not = |error| store_failure(error, settings, format!("could not list {name} in {place}"));
    let no_stdout = |error| Stopped::ForGood(no_stdout(error));

    let mut listing = Listing { store: &*store, lines: &mut lines };
    let listed = if context.settings.recurse() { listing.everything(path) } else { listing.level(path) };
    match listed {
        Ok(()) => {}
        Err(Trouble::Store(error)) if lines.written == 0 => return Err(Stopped::Next(could_not(error))),
        Err(Trouble::Store(error)) => return Err(Stopped::ForGood(could_not(error))),
        Err(Trouble::Stdout(error)) => return Err(no_stdout(error)),
    }
    if let (Some(path), 0) = (path, lines.count) {
        // Not a folder: then it is an object, or nothing at all.
        match store.size(path).map_err(|error| Stopped::Next(could_not(error)))? {
            Some(size) => {
                lines.object(path.file_name(), &Listed { key: path.clone(), size }).map_err(no_stdout)?
            }
            None => return Err(Stopped::Nothing(path.clone(), place)),
        }
    }
    lines.finish().map_err(no_stdout)?;
    Ok(place)
}

/// One repository answers and has nothing of a name. Those that could not be looked into before it may.
fn absent<'a>(
    path: &Key,
    settings: &RepositorySettings,
    place: String,
    troubles: Vec<Failure>,
    others: impl Iterator<Item = &'a RepositorySettings>,
) -> Failure {
    match Failure::all(troubles) {
        Some(failure) => {
            failure.because_text(format!("and {} ({place}) holds nothing of that name", settings.name()))
        }
        None => others.fold(nothing_there(path, &[(settings, place)]), |failure, other| {
            failure.next(format!("--repo={} looks in {}.", other.index, other.name()))
        }),
    }
}

/// The path that was given, as a key; `None` for the whole repository.
pub(super) fn path_argument(
    context: &Context<'_>,
    settings: &RepositorySettings,
) -> Result<Option<Key>, Failure> {
    let given = word(context, 0).unwrap_or_default();
    let path = given.trim_end_matches('/').trim_start_matches("./");
    if path.is_empty() || path == "." {
        return Ok(None);
    }
    Key::new(path).map(Some).map_err(|error| {
        Failure::new(Class::Usage, format!("cannot look for {given} in {}", settings.name()))
            .because(error)
            .next("Paths are relative to the repository, as `walden repo-ls --recurse` shows them.")
    })
}

/// None of these repositories, each with where it is, has anything of a name.
pub(super) fn nothing_there(path: &Key, looked_in: &[(&RepositorySettings, String)]) -> Failure {
    let names: Vec<String> = looked_in.iter().map(|(settings, _)| settings.name()).collect();
    let places: Vec<&str> = looked_in.iter().map(|(_, place)| place.as_str()).collect();
    Failure::new(Class::NoRepository, format!("there is nothing named \"{path}\" in {}", names.join(", ")))
        .because_text(format!("neither an object nor a folder of that name lies in {}", places.join(", ")))
        .next("`walden repo-ls` shows the top of the repository, --recurse everything.")
}

enum Trouble {
    Store(crate::storage::StoreError),
    Stdout(std::io::Error),
}

struct Listing<'a, 'r> {
    store: &'a dyn Store,
    lines: &'a mut Lines<'r>,
}

impl Listing<'_, '_> {
    fn level(&mut self, path: Option<&Key>) -> Result<(), Trouble> {
        let level = self.store.folder(path).map_err(Trouble::Store)?;
        for folder in &level.folders {
            let whole = path.map_or_else(|| folder.clone(), |path| format!("{path}/{folder}"));
            self.lines.folder(folder, &whole).map_err(Trouble::Stdout)?;
        }
        for object in &level.objects {
            self.lines.object(object.key.file_name(), object).map_err(Trouble::Stdout)?;
        }
        Ok(())
    }

    fn everything(&mut self, path: Option<&Key>) -> Result<(), Trouble> {
        if let Some(path) = path {
            return self.below(path);
        }
        let top = self.store.folder(None).map_err(Trouble::Store)?;
        for object in &top.objects {
            self.lines.object(object.key.as_str(), object).map_err(Trouble::Stdout)?;
        }
        top.folders
            .iter()
            .filter_map(|name| Key::new(name.as_str()).ok())
            .try_for_each(|key| self.below(&key))
    }

    fn below(&mut self, folder: &Key) -> Result<(), Trouble> {
        let mut wrote = Ok(());
        let lines = &mut *self.lines;
        let listed = self.store.list(folder, &mut |object| {
            if wrote.is_ok() {
                wrote = lines.object(object.key.as_str(), &object);
            }
        });
        listed.map_err(Trouble::Store)?;
        wrote.map_err(Trouble::Stdout)
    }
}

/// What is written: sorted while it is not too much, as it comes afterwards.
struct Lines<'r> {
    report: &'r Report,
    held: Option<BTreeMap<String, Vec<u8>>>,
    recurse: bool,
    count: u64,
    written: u64,
}

impl<'r> Lines<'r> {
    fn new(report: &'r Report, recurse: bool) -> Self {
        Self { report, held: Some(BTreeMap::new()), recurse, count: 0, written: 0 }
    }

    fn object(&mut self, name: &str, object: &Listed) -> std::io::Result<()> {
        let line = if self.report.is_json() {
            json!({
                "name": name,
                "path": object.key.as_str(),
                "type": "object",
                "size_bytes": object.size.as_u64(),
            })
            .to_string()
        } else {
            name.to_owned()
        };
        self.add(object.key.as_str(), line)
    }

    fn folder(&mut self, name: &str, whole: &str) -> std::io::Result<()> {
        let line = if self.report.is_json() {
            json!({ "name": name, "path": whole, "type": "folder" }).to_string()
        } else {
            format!("{name}/")
        };
        self.add(whole, line)
    }

    fn add(&mut self, path: &str, line: String) -> std::io::Result<()> {
        self.count += 1;
        match &mut self.held {
            Some(held) => {
                held.insert(path.to_owned(), line.into_bytes());
                if self.recurse && held.len() >= SORTED { self.flush() } else { Ok(()) }
            }
            None => self.write(&[line.into_bytes()]),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        let lines: Vec<Vec<u8>> = self.held.take().unwrap_or_default().into_values().collect();
        self.write(&lines)
    }

    fn write(&mut self, lines: &[Vec<u8>]) -> std::io::Result<()> {
        let mut text = Vec::new();
        for line in lines {
            if self.report.is_json() {
                text.extend_from_slice(if self.written == 0 { b"[\n  " } else { b",\n  " });
            }
            text.extend_from_slice(line);
            if !self.report.is_json() {
                text.push(b'\n');
            }
            self.written += 1;
        }
        self.report.data(&text)
    }

    fn finish(mut self) -> std::io::Result<()> {
        if self.held.is_some() {
            self.flush()?;
        }
        match (self.report.is_json(), self.written) {
            (true, 0) => self.report.data("[]\n"),
            (true, _) => self.report.data("\n]\n"),
            (false, _) => Ok(()),
        }
    }
}
