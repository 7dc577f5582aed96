//! What a person or a program reads: data on stdout, everything else on stderr and in the log file.

mod log_file;
mod progress;
pub mod render;

pub use progress::Phase;

use crate::env::Env;
use crate::failure::Failure;
use crate::settings::{LogLevel, Output, ProgressStyle, Settings};
use crate::units::ByteCount;
use indicatif::ProgressBar;
use log_file::LogFile;
use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write};
use std::sync::{Arc, Mutex, PoisonError};

/// How failures and warnings are worded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// For a person at a terminal: several lines, what, why and what to do next.
    Person,
    /// For PostgreSQL's log: one line that begins with the program's and the command's name.
    ServerLog(&'static str),
}

/// Where messages go. Cheap to share; a message is written whole or not at all by one thread at a time.
#[derive(Debug)]
pub struct Report {
    console: Arc<Console>,
    manner: Manner,
    level: LogLevel,
    output: Output,
    style: ProgressStyle,
    log: Option<LogFile>,
    data: Mutex<Sink>,
}

/// The side of stderr, with the bar that must step aside while a line is written.
#[derive(Debug)]
pub(crate) struct Console {
    sink: Mutex<Sink>,
    bar: Mutex<Option<ProgressBar>>,
    terminal: bool,
}

enum Sink {
    Stdout,
    Stderr,
    Captured(Arc<Mutex<Vec<u8>>>),
}

impl std::fmt::Debug for Sink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Captured(_) => "captured",
        })
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stdout => io::stdout().write(bytes),
            Self::Stderr => io::stderr().write(bytes),
            Self::Captured(to) => to.lock().unwrap_or_else(PoisonError::into_inner).write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Stdout => io::stdout().flush(),
            Self::Stderr | Self::Captured(_) => Ok(()),
        }
    }
}

impl Console {
    /// Writes one message and a newline. A console that is gone is no reason to fail.
    pub(crate) fn line(&self, text: &str) {
        let write = || {
            let mut sink = self.sink.lock().unwrap_or_else(PoisonError::into_inner);
            // One call, so that lines of several processes do not mix in PostgreSQL's log.
            let _ = sink.write_all(format!("{text}\n").as_bytes());
        };
        let bar = self.bar.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }
}

impl Report {
    /// The report of a run: levels, output and log file as `settings` say.
    #[must_use]
    pub fn new(settings: &Settings, manner: Manner, env: &'static dyn Env) -> Self {
        let stanza = settings.stanza().ok().map(ToString::to_string);
        let log = settings.log_path().filter(|_| settings.file_level() > LogLevel::Off).map(
            |(directory, asked_for)| {
                LogFile::new(
                    &directory,
                    stanza.as_deref(),
                    settings.command().name,
                    settings.file_level(),
                    asked_for,
                    env,
                )
            },
        );
        Self {
            console: Arc::new(Console {
                sink: Mutex::new(Sink::Stderr),
                bar: Mutex::new(None),
                terminal: io::stderr().is_terminal(),
            }),
            manner,
            level: settings.console_level(),
            output: settings.output(),
            style: settings.progress(),
            log,
            data: Mutex::new(Sink::Stdout),
        }
    }

    /// A report before there are settings: to stderr, without a log file.
    #[must_use]
    pub fn plain(manner: Manner) -> Self {
        Self {
            console: Arc::new(Console {
                sink: Mutex::new(Sink::Stderr),
                bar: Mutex::new(None),
                terminal: false,
            }),
            manner,
            level: LogLevel::Info,
            output: Output::Text,
            style: ProgressStyle::None,
            log: None,
            data: Mutex::new(Sink::Stdout),
        }
    }

    /// A report into memory, for tests.
    #[must_use]
    pub fn captured() -> (Self, Captured) {
        let seen = Captured::default();
        let mut report = Self::plain(Manner::Person);
        report.console = Arc::new(Console {
            sink: Mutex::new(Sink::Captured(Arc::clone(&seen.console))),
            bar: Mutex::new(None),
            terminal: false,
        });
        report.data = Mutex::new(Sink::Captured(Arc::clone(&seen.data)));
        (report, seen)
    }

    fn say(&self, level: LogLevel, text: &dyn Display) {
        let shown = level <= self.level;
        let logged = self.log.as_ref().is_some_and(|log| level <= log.level());
        if !shown && !logged {
            return;
        }
        let text = text.to_string();
        if shown {
            match (self.manner, level) {
                (Manner::ServerLog(command), _) => {
                    self.console.line(&format!("walden {command}: {}", text.replace(['\n', '\r'], " ")));
                }
                (Manner::Person, LogLevel::Warn) => self.console.line(&format!("warning: {text}")),
                (Manner::Person, _) => self.console.line(&text),
            }
        }
        if let Some(complaint) = self.log.as_ref().and_then(|log| log.write(level, &text))
            && self.level >= LogLevel::Warn
        {
            self.console.line(&format!("warning: {complaint}"));
        }
    }

    /// Why the command failed.
    pub fn failure(&self, failure: &Failure) {
        if let Some(log) = &self.log {
            let _ = log.write(LogLevel::Error, &failure.to_string());
        }
        if self.level >= LogLevel::Error {
            match self.manner {
                Manner::Person => self.console.line(&failure.to_string()),
                Manner::ServerLog(command) => {
                    self.console.line(&format!("walden {command}: {}", failure.one_line()));
                }
            }
        }
    }

    /// What should be read although it worked.
    pub fn warn(&self, text: impl Display) {
        self.say(LogLevel::Warn, &text);
    }

    /// What was done.
    pub fn info(&self, text: impl Display) {
        self.say(LogLevel::Info, &text);
    }

    /// Each file and object; also what is expected often, such as a standby's questions.
    pub fn detail(&self, text: impl Display) {
        self.say(LogLevel::Detail, &text);
    }

    /// What helps to find a bug.
    pub fn debug(&self, text: impl Display) {
        self.say(LogLevel::Debug, &text);
    }

    /// Everything.
    pub fn trace(&self, text: impl Display) {
        self.say(LogLevel::Trace, &text);
    }

    /// Whether `--output=json` was given.
    #[must_use]
    pub fn is_json(&self) -> bool {
        self.output == Output::Json
    }

    /// Writes data to stdout, all of it. That nobody reads it is no failure (`walden info | head`).
    ///
    /// # Errors
    /// When stdout cannot be written to: a full disk, for example.
    pub fn data(&self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        let mut sink = self.data.lock().unwrap_or_else(PoisonError::into_inner);
        match sink.write_all(bytes.as_ref()).and_then(|()| sink.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            done => done,
        }
    }

    /// Writes one JSON document and a newline to stdout.
    ///
    /// # Errors
    /// As [`Report::data`].
    pub fn json(&self, value: &impl serde::Serialize) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(value).map_err(io::Error::other)?;
        text.push(b'\n');
        self.data(text)
    }

    /// Begins a stretch of work that may take a while.
    #[must_use]
    pub fn phase(&self, name: &str, total: Option<ByteCount>) -> Phase<'_> {
        Phase::begin(self, name, total)
    }

    fn console(&self) -> Arc<Console> {
        Arc::clone(&self.console)
    }

    const fn console_level(&self) -> LogLevel {
        self.level
    }

    const fn style(&self) -> ProgressStyle {
        self.style
    }

    fn draws_bars(&self) -> bool {
        match self.style {
            ProgressStyle::Bar => true,
            ProgressStyle::Auto => self.console.terminal,
            ProgressStyle::Lines | ProgressStyle::None => false,
        }
    }

    fn show_bar(&self, bar: Option<&ProgressBar>) {
        *self.console.bar.lock().unwrap_or_else(PoisonError::into_inner) = bar.cloned();
    }
}

/// What a captured report was told.
#[derive(Debug, Default)]
pub struct Captured {
    console: Arc<Mutex<Vec<u8>>>,
    data: Arc<Mutex<Vec<u8>>>,
}

impl Captured {
    /// Messages so far.
    #[must_use]
    pub fn console(&self) -> String {
        String::from_utf8_lossy(&self.console.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// Data so far.
    #[must_use]
    pub fn data(&self) -> String {
        String::from_utf8_lossy(&self.data.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Class;

    #[test]
    fn data_and_messages_go_different_ways() {
        let (report, seen) = Report::captured();
        report.data("one\n").unwrap();
        report.json(&serde_json::json!({"size_bytes": 1})).unwrap();
        report.warn("look");
        report.info("done");
        report.detail("not shown at this level");
        assert_eq!(seen.data(), "one\n{\n  \"size_bytes\": 1\n}\n");
        assert_eq!(seen.console(), "warning: look\ndone\n");
    }

    #[test]
    fn postgresqls_log_gets_one_line() {
        let (mut report, seen) = Report::captured();
        report.manner = Manner::ServerLog("archive-push");
        report.failure(
            &Failure::new(Class::StorageUnavailable, "X not stored")
                .because_text("the store\nis down")
                .next("Wait."),
        );
        assert_eq!(seen.console(), "walden archive-push: X not stored: the store is down\n");
    }
}
