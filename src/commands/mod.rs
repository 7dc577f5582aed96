//! One file for each command: an ordered list of steps that turns typed errors into what a person reads.
//!
//! To add a command: its file, `mod name;`, and a line in [`runner`]. Its name, arguments and help are in
//! `settings/commands.rs`, its options in `settings/table/`.

mod archive_get;
mod archive_push;
mod archive_setting;
pub mod arguments;
mod backup;
mod bucket;
mod bucket_words;
mod check;
mod completion;
mod config;
mod expire;
mod help;
mod host_cache;
mod info;
mod key_generate;
mod man;
mod notes;
mod open;
mod repo_get;
mod repo_ls;
mod restore;
mod server;
mod set;
mod stanza_create;
mod stanza_delete;
mod stanza_upgrade;
mod stop;
#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "what tests write need not outlive a crash")]
mod testing;
mod tls_words;
mod verify;
mod version;

pub use help::usage;
pub use version::VERSION;

use crate::env::Env;
use crate::failure::{Class, Failure};
use crate::pipeline::StopFlag;
use crate::report::Report;
use crate::settings::{CommandSpec, Settings, commands};
use std::ffi::OsString;

/// What a command works with.
pub struct Context<'a> {
    /// What holds for this run.
    pub settings: &'a Settings,
    /// The arguments beside options, as many as the command's table says.
    pub arguments: &'a [OsString],
    /// The clock and randomness.
    pub env: &'static dyn Env,
    /// Where messages and data go.
    pub report: &'a Report,
    /// Set when the run shall end early: clean up and return any failure; the signal decides the exit.
    pub stop: StopFlag,
}

/// How a command that did not fail ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Exit 0.
    Done,
    /// Exit 50: done, and there are warnings to read.
    DoneWithWarnings,
    /// Exit 1, without a word: `archive-get` has nothing to give, as a standby is told every few seconds.
    NotThere,
}

/// Runs a command to its end.
pub type Runner = fn(&Context<'_>) -> Result<Outcome, Failure>;

/// What runs the command of that name; `None` for what this version does not have.
#[must_use]
pub fn runner(name: &str) -> Option<Runner> {
    Some(match name {
        "backup" => backup::run,
        "annotate" => notes::annotate,
        "archive-get" => archive_get::run,
        "archive-push" => archive_push::run,
        "check" => check::run,
        "completion" => completion::run,
        "config" => config::run,
        "expire" => expire::run,
        "help" => help::run,
        "info" => info::run,
        "key-generate" => key_generate::run,
        "man" => man::run,
        "pin" => notes::pin,
        "repo-get" => repo_get::run,
        "repo-ls" => repo_ls::run,
        "restore" => restore::run,
        "stanza-create" => stanza_create::run,
        "stanza-delete" => stanza_delete::run,
        "stanza-upgrade" => stanza_upgrade::run,
        "start" => stop::start,
        "stop" => stop::stop,
        "unpin" => notes::unpin,
        "verify" => verify::run,
        "version" => version::run,
        _ => return None,
    })
}

/// Runs a command, unless its stanza is stopped on this host.
///
/// # Errors
/// Those of the command, and that it is stopped.
pub fn run(runner: Runner, context: &Context<'_>) -> Result<Outcome, Failure> {
    stop::require_not_stopped(context)?;
    runner(context)
}

/// The commands that can be run, in the order of help.
pub fn offered() -> impl Iterator<Item = &'static CommandSpec> {
    commands().iter().filter(|spec| runner(spec.name).is_some())
}

/// Stdout could not be written to.
pub(crate) fn no_stdout(error: std::io::Error) -> Failure {
    Failure::new(Class::LocalFileSystem, "could not write to stdout").because(error)
}

/// An argument as text, for commands whose arguments are words.
pub(crate) fn word<'a>(context: &'a Context<'_>, at: usize) -> Option<std::borrow::Cow<'a, str>> {
    context.arguments.get(at).map(|argument| argument.to_string_lossy())
}
