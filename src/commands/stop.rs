//! `stop` and `start`: files on this host that keep commands from writing to repositories.
//!
//! `<lock-path>/<stanza>.stop` stops one stanza, `<lock-path>/stop-all` every one: a stanza may be called anything,
//! "all" too. Commands that only read are never stopped: recovery must go on. What is running goes on to its end.

use super::{Context, Outcome};
use crate::durable::{self, DurableError, IfPresent};
use crate::failure::{Class, Failure};
use crate::settings::Settings;
use crate::units::Stanza;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Who is stopped: whatever writes to a repository. `stanza-delete` needs the file instead.
const STOPPED: &[&str] =
    &["annotate", "archive-push", "backup", "expire", "pin", "stanza-create", "stanza-upgrade", "unpin"];

/// Who says that it is stopped, and goes on.
const TOLD: &[&str] = &["check", "info"];

/// The name of the file that stops every stanza.
const ALL: &str = "stop-all";

fn name_of(stanza: Option<&Stanza>) -> String {
    stanza.map_or_else(|| ALL.to_owned(), |stanza| format!("{stanza}.stop"))
}

/// What the stop files say.
#[derive(Debug, Default)]
pub(super) struct StopFiles {
    /// The file that stops the stanza, its own before the one for all.
    pub stopped: Option<PathBuf>,
    /// Files of that name that anybody could have made, and that stop nothing.
    pub ignored: Vec<PathBuf>,
}

/// Looks whether `stanza` is stopped on this host.
///
/// # Errors
/// When it cannot be told, as where nobody may look into lock-path.
pub(super) fn look(settings: &Settings, stanza: &Stanza) -> std::io::Result<StopFiles> {
    let folder = settings.lock_path();
    let mut found = StopFiles::default();
    for file in [folder.join(name_of(Some(stanza))), folder.join(ALL)] {
        match std::fs::symlink_metadata(&file) {
            Ok(made) if counts(made.uid(), &std::fs::metadata(&folder)?) => {
                found.stopped = Some(file);
                break;
            }
            Ok(_) => found.ignored.push(file),
            Err(error) if is_absent(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// Whether a stop file of this owner counts. The default directory lies in /tmp, where everybody may make one first: a
/// stranger must not be able to end the archiving.
fn counts(owner: u32, folder: &std::fs::Metadata) -> bool {
    let own = rustix::process::geteuid().as_raw();
    let ours = |uid: u32| uid == 0 || uid == own;
    let closed = folder.mode() & 0o002 == 0;
    ours(owner) || (ours(folder.uid()) && closed)
}

fn is_absent(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
}

/// Refuses a command that writes while its stanza is stopped. A stop file that cannot be looked for stops
/// nothing, with a warning: a wrong right on a directory must not end the archiving.
///
/// # Errors
/// [`Class::Locked`], which is below what would end PostgreSQL's archiver: the segment stays and is tried again.
pub(super) fn require_not_stopped(context: &Context<'_>) -> Result<(), Failure> {
    let settings = context.settings;
    let command = settings.command().name;
    let is_told = TOLD.contains(&command);
    if !STOPPED.contains(&command) && !is_told {
        return Ok(());
    }
    // A command without its stanza has better words for that.
    let Ok(stanza) = settings.stanza() else { return Ok(()) };
    let found = match look(settings, stanza) {
        Ok(found) => found,
        Err(error) => {
            context.report.warn(format!(
                "could not look into {} (lock-path) whether {stanza} is stopped: {error}",
                settings.lock_path().display()
            ));
            return Ok(());
        }
    };
    for file in &found.ignored {
        context.report.warn(format!(
            "{} stops nothing: it belongs to neither root nor this user, and everybody may write there. Set lock-path to \
             a directory that only they may write to",
            file.display()
        ));
    }
    match found.stopped {
        None => Ok(()),
        Some(file) if is_told => {
            context
                .report
                .warn(format!("stanza {stanza} is stopped on this host: there is {}", file.display()));
            Ok(())
        }
        Some(file) => {
            let all = file.ends_with(ALL);
            let what = if all { "every stanza is".to_owned() } else { format!("stanza {stanza} is") };
            let start = if all {
                "`walden start` without --stanza lets it run again.".to_owned()
            } else {
                format!("`walden --stanza={stanza} start` lets it run again.")
            };
            Err(Failure::new(Class::Locked, format!("cannot run {command}: {what} stopped on this host"))
                .because_text(format!("there is {}", file.display()))
                .next(start))
        }
    }
}

/// What the command line or the environment names: one stanza, or all.
fn meant<'a>(context: &'a Context<'_>) -> Option<&'a Stanza> {
    context.settings.named_stanza()
}

fn whom(stanza: Option<&Stanza>) -> String {
    stanza.map_or_else(|| "every stanza".to_owned(), |stanza| format!("stanza {stanza}"))
}

pub(super) fn stop(context: &Context<'_>) -> Result<Outcome, Failure> {
    let stanza = meant(context);
    let folder = context.settings.lock_path();
    let contents =
        format!("{} was stopped at {}\n", whom(stanza), crate::report::render::utc(context.env.now()));
    // Where root makes it, the user who archives must be able to look into it.
    let mode = if rustix::process::geteuid().is_root() { 0o755 } else { 0o770 };
    let made = durable::create_directories(&folder, mode)
        .and_then(|_| durable::publish(&folder, &name_of(stanza), contents.as_bytes(), IfPresent::Refuse));
    match made {
        Ok(()) => {
            context.report.info(format!(
                "{} is stopped on this host: nothing of it is written from here any more. What runs now \
                 goes on to its end",
                whom(stanza)
            ));
        }
        Err(DurableError::NameTaken) => {
            context.report.warn(format!("{} is stopped already", whom(stanza)));
        }
        Err(error) => {
            return Err(Failure::new(Class::LocalFileSystem, format!("could not stop {}", whom(stanza)))
                .because(error)
                .next(format!("Check that {} may be written (lock-path).", folder.display())));
        }
    }
    Ok(Outcome::Done)
}

pub(super) fn start(context: &Context<'_>) -> Result<Outcome, Failure> {
    let stanza = meant(context);
    let folder = context.settings.lock_path();
    match remove(&folder, stanza) {
        Ok(true) => context.report.info(format!("{} is started", whom(stanza))),
        Ok(false) => context.report.warn(format!("{} is not stopped", whom(stanza))),
        Err(error) => {
            return Err(Failure::new(Class::LocalFileSystem, format!("could not start {}", whom(stanza)))
                .because(error)
                .next(format!("Check that {} may be written (lock-path).", folder.display())));
        }
    }
    if let Some(stanza) = stanza
        && look(context.settings, stanza).is_ok_and(|found| found.stopped.is_some())
    {
        context
            .report
            .warn("every stanza is stopped, this one too: `walden start` without --stanza ends that");
    }
    Ok(Outcome::Done)
}

/// Removes a stop file; false when there was none.
fn remove(folder: &Path, stanza: Option<&Stanza>) -> std::io::Result<bool> {
    match std::fs::remove_file(folder.join(name_of(stanza))) {
        Ok(()) => Ok(true),
        Err(error) if is_absent(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Takes the stop file of a stanza away that is no more.
///
/// # Errors
/// Of the file system.
pub(super) fn forget(settings: &Settings, stanza: &Stanza) -> std::io::Result<bool> {
    remove(&settings.lock_path(), Some(stanza))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_strangers_file_stops_nothing_where_everybody_may_write() {
        let dir = tempfile::tempdir().unwrap();
        let own = rustix::process::geteuid().as_raw();
        let stranger = own + 1;
        for (mode, strangers_counts) in [(0o770, true), (0o755, true), (0o1777, false), (0o777, false)] {
            std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(mode)).unwrap();
            let folder = std::fs::metadata(dir.path()).unwrap();
            assert!(counts(own, &folder) && counts(0, &folder));
            assert_eq!(counts(stranger, &folder), strangers_counts, "{mode:o}");
        }
    }
}
