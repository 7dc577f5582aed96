//! The log file: lines as pgBackRest writes them, appended, opened with the first line.

use super::render;
use crate::env::Env;
use crate::settings::LogLevel;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// A log file that is opened when there is something to write.
pub(super) struct LogFile {
    path: PathBuf,
    level: LogLevel,
    /// Whether somebody asked for this place, and so wants to know when it cannot be used.
    asked_for: bool,
    file: Mutex<State>,
    env: &'static dyn Env,
}

enum State {
    Closed,
    Open(File),
    Unusable,
}

impl std::fmt::Debug for LogFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LogFile({})", self.path.display())
    }
}

impl LogFile {
    pub(super) fn new(
        directory: &Path,
        stanza: Option<&str>,
        command: &str,
        level: LogLevel,
        asked_for: bool,
        env: &'static dyn Env,
    ) -> Self {
        let path = directory.join(format!("{}-{command}.log", stanza.unwrap_or("all")));
        Self { path, level, asked_for, file: Mutex::new(State::Closed), env }
    }

    pub(super) const fn level(&self) -> LogLevel {
        self.level
    }

    /// Opens the file. A directory that somebody asked for is made; the default one is not.
    fn open(&self) -> std::io::Result<File> {
        let open = || OpenOptions::new().append(true).create(true).mode(0o640).open(&self.path);
        match open() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && self.asked_for => {
                if let Some(directory) = self.path.parent() {
                    std::fs::DirBuilder::new().recursive(true).mode(0o750).create(directory)?;
                }
                open()
            }
            other => other,
        }
    }

    /// Appends a line if it is of the file's level. Returns, once, why the file cannot be used.
    pub(super) fn write(&self, level: LogLevel, text: &str) -> Option<String> {
        if level > self.level {
            return None;
        }
        let mut state = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*state, State::Closed) {
            match self.open() {
                Ok(file) => *state = State::Open(file),
                Err(error) => {
                    *state = State::Unusable;
                    // A default directory that does not exist is the ordinary case of a small set-up.
                    return self
                        .asked_for
                        .then(|| format!("there is no log file {}: {error}", self.path.display()));
                }
            }
        }
        let State::Open(file) = &mut *state else { return None };
        let time = render::iso(self.env.now()).replace('T', " ");
        let time = time.get(..23).unwrap_or(&time);
        let indented = text.replace('\n', "\n            ");
        // One call and append mode: lines of several processes do not mix.
        let line =
            format!("{time} P{:05} {:>6}: {indented}\n", std::process::id(), level.word().to_uppercase());
        // A full disk of logs must not stop archiving.
        let _ = file.write_all(line.as_bytes());
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_appended_and_a_directory_that_cannot_be_is_told_once() {
        let directory = tempfile::tempdir().unwrap();
        let env: &'static crate::env::System = &crate::env::System;
        let log = LogFile::new(directory.path(), Some("shop"), "backup", LogLevel::Info, true, env);
        assert_eq!(log.write(LogLevel::Detail, "not this"), None);
        assert!(!directory.path().join("shop-backup.log").exists(), "opened with the first line only");
        assert_eq!(log.write(LogLevel::Warn, "one\ntwo"), None);
        let text = std::fs::read_to_string(directory.path().join("shop-backup.log")).unwrap();
        assert!(text.contains("   WARN: one\n            two\n"), "{text}");

        let made = LogFile::new(&directory.path().join("a/b"), None, "info", LogLevel::Info, true, env);
        assert_eq!(made.write(LogLevel::Info, "x"), None);
        assert!(directory.path().join("a/b/all-info.log").exists());

        let missing = directory.path().join("shop-backup.log/no");
        let log = LogFile::new(&missing, None, "info", LogLevel::Info, true, env);
        assert!(log.write(LogLevel::Info, "x").unwrap().contains("all-info.log"));
        assert_eq!(log.write(LogLevel::Info, "x"), None);
        let log = LogFile::new(&missing, None, "info", LogLevel::Info, false, env);
        assert_eq!(log.write(LogLevel::Info, "x"), None);
    }
}
