//! Settings: one table of options, and what holds for one run of one command.
//!
//! Command line over environment over `[stanza:command]` over `[stanza]` over `[global:command]` over
//! `[global]` over default. [`resolve`] is a pure function; secrets are fetched only when a key is needed.

mod accessors;
mod cipher;
mod commands;
mod ini;
mod mistake;
mod nearest;
mod replaced;
mod resolve;
mod secret;
mod storage;
pub mod table;
mod typed;
mod value;

#[cfg(test)]
mod tests;

pub use cipher::{Cipher, KeySource};
pub use commands::{CommandSpec, Presence, command_named, commands};
pub use mistake::{Place, variable};
pub use nearest::{distance, nearest};
pub use resolve::{Files, Form, Given, Sources, resolve};
pub use secret::{HOLDS_PASSWORD, Secret, may_hold_password};
pub use storage::{
    AzureKey, AzureSettings, BucketSettings, GcsKey, GcsSettings, S3Encryption, S3KeySource, S3Settings,
    SecretSource, ServiceSettings, profile_key,
};
pub use typed::{
    ArchiveGetSettings, ArchiveMode, BackupSettings, Compression, ExpireSettings, IfUnsure, LogLevel, Output,
    ProgressStyle, RepositoryKind, RepositorySettings, RestoreSettings, RestoreType, RetentionSettings,
    ServerSettings, StanzaDeleteSettings, TargetAction, VerifySettings,
};
pub use value::{Value, describe};

pub(crate) use commands::ABSENT;
pub(crate) use resolve::check_on_command_line;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use table::OptionSpec;

/// An option and its number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The name in the table (`repo-path`).
    pub name: &'static str,
    /// The number of an indexed option.
    pub index: Option<u16>,
}

impl Key {
    pub(crate) const fn plain(name: &'static str) -> Self {
        Self { name, index: None }
    }
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody gave one.
    Default,
    /// The only stanza the configuration has.
    OnlyStanza(Place),
    /// A line of a configuration file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The section without brackets.
        section: String,
    },
    /// An environment variable.
    Environment(String),
    /// An argument.
    CommandLine,
}

impl Origin {
    fn place(&self) -> Place {
        match self {
            Self::File { path, line, .. } => Place::File(path.clone(), *line),
            Self::Environment(name) => Place::Environment(name.clone()),
            Self::OnlyStanza(place) => place.clone(),
            Self::CommandLine | Self::Default => Place::CommandLine,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::OnlyStanza(Place::File(path, line)) => {
                write!(f, "{} line {line}, the only stanza", path.display())
            }
            Self::OnlyStanza(_) => f.write_str("the only stanza"),
            Self::File { path, line, section } => write!(f, "{} line {line} [{section}]", path.display()),
            Self::Environment(name) => f.write_str(name),
            Self::CommandLine => f.write_str("command line"),
        }
    }
}

/// One option's value and where it came from.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The option.
    pub spec: &'static OptionSpec,
    /// Its name and number.
    pub key: Key,
    /// The value.
    pub value: Value,
    /// Where it came from.
    pub origin: Origin,
}

impl Setting {
    /// The name as it is written in a file.
    #[must_use]
    pub fn name(&self) -> String {
        self.spec.written(self.key.index)
    }

    /// The value as it would be written in the configuration; stars for what is secret, a password in a connection
    /// string included.
    #[must_use]
    pub fn shown(&self) -> String {
        if self.hides_password() { HOLDS_PASSWORD.to_owned() } else { self.value.shown() }
    }

    /// Whether it is a connection string, or holds one, with a password in it.
    #[must_use]
    pub fn hides_password(&self) -> bool {
        self.spec.holds_conninfo() && may_hold_password(&self.value.shown())
    }
}

/// What holds for one run of one command. The typed getters are in `accessors`.
#[derive(Clone, Debug)]
pub struct Settings {
    command: &'static CommandSpec,
    values: BTreeMap<Key, Setting>,
    warnings: Vec<String>,
    files: Vec<PathBuf>,
}

impl Settings {
    /// The command they are for.
    #[must_use]
    pub const fn command(&self) -> &'static CommandSpec {
        self.command
    }

    /// Mistakes that did not keep the command from running. To be shown once.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The configuration files that were read.
    #[must_use]
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Every value there is, defaults included, by name and number.
    pub fn all(&self) -> impl Iterator<Item = &Setting> {
        self.values.values()
    }

    /// The value of an option without a number, with its origin.
    #[must_use]
    pub fn get(&self, name: &'static str) -> Option<&Setting> {
        self.values.get(&Key::plain(name))
    }

    /// The value of an option with a number, by its name in the table (`repo-path`).
    #[must_use]
    pub fn get_indexed(&self, name: &'static str, index: u16) -> Option<&Setting> {
        self.values.get(&Key { name, index: Some(index) })
    }
}
