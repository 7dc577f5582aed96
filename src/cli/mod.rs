//! From the arguments to the exit code.

mod guard;
mod real_files;
mod scan;
mod signals;

use crate::commands::{self, Context, Outcome};
use crate::env::System;
use crate::failure::{Class, Failure};
use crate::pipeline::StopFlag;
use crate::report::{Manner, Report};
use crate::settings::{self, CommandSpec, Settings, Sources};
use guard::Role;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::process::ExitCode;

static SYSTEM: System = System;

/// Runs the program on the process's arguments and environment.
#[must_use]
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    // A role that cannot be told gets the strictest range.
    let role = std::panic::catch_unwind(|| guard::role(&arguments)).unwrap_or(Role::Get);
    ExitCode::from(guard::guarded(role, || {
        let stop = StopFlag::new();
        let listening = signals::listen(role, &stop);
        run(role, &arguments, &stop, listening)
    }))
}

/// The exit code, before it is brought into the role's range.
fn run(role: Role, arguments: &[OsString], stop: &StopFlag, listening: std::io::Result<()>) -> u8 {
    let manner = match role {
        Role::Get => Manner::ServerLog("archive-get"),
        Role::Push => Manner::ServerLog("archive-push"),
        Role::Other => Manner::Person,
    };
    let call = match understand(role, arguments) {
        Ok(call) => call,
        Err(failure) => {
            Report::plain(manner).failure(&failure);
            return failure.class().exit_code();
        }
    };
    let Call { command, words, settings, runner } = call;
    let report = Report::new(&settings, manner, &SYSTEM);
    for warning in settings.warnings() {
        report.warn(warning);
    }
    if let Err(error) = listening {
        report.warn(format!("an interrupt will not be cleaned up after: {error}"));
    }
    let context =
        Context { settings: &settings, arguments: &words, env: &SYSTEM, report: &report, stop: stop.clone() };
    report.debug(format!("walden {} begins {}", commands::VERSION, command.name));
    if let Some(signal) = stop.signal() {
        report.warn(format!("{} was interrupted before it began", command.name));
        drop(report);
        return signals::end(role, signal);
    }
    match commands::run(runner, &context) {
        Ok(Outcome::Done) => 0,
        // The file is there, which is all that PostgreSQL asks.
        Ok(Outcome::DoneWithWarnings) if role != Role::Other => 0,
        Ok(Outcome::DoneWithWarnings) => Class::DoneWithWarnings.exit_code(),
        Ok(Outcome::NotThere) => Class::NotInArchive.exit_code(),
        Err(failure) => match stop.signal() {
            Some(signal) => {
                report.detail(&failure);
                report.warn(format!("{} was interrupted", command.name));
                drop(report);
                signals::end(role, signal)
            }
            None => {
                report.failure(&failure);
                failure.class().exit_code()
            }
        },
    }
}

/// A call that makes sense.
struct Call {
    command: &'static CommandSpec,
    words: Vec<OsString>,
    settings: Settings,
    runner: commands::Runner,
}

fn understand(role: Role, arguments: &[OsString]) -> Result<Call, Failure> {
    let mut scan = scan::scan(arguments);
    // A server that asks for a file gets no page of help and a 0: it would take that for the file.
    if scan.help && (role == Role::Other || scan.words.len() <= 1) {
        scan.words.insert(0, "help".into());
        scan.words.truncate(2);
        scan.options.clear();
    } else if scan.version && role == Role::Other {
        scan.words = vec!["version".into()];
    }
    if let Some(failure) = scan.unknown_option() {
        return Err(failure);
    }
    let Some(name) = scan.command() else {
        return Err(Failure::new(Class::Usage, "no command is given")
            .next("`walden help` lists the commands.")
            .next("`walden help restore` when something has to be brought back."));
    };
    let command = scan::command(&name)?;
    let words = scan::positionals(command, scan.words.get(1..).unwrap_or_default())?;
    let runner = commands::runner(command.name).ok_or_else(|| {
        Failure::new(Class::Bug, format!("{} is in the table and cannot be run", command.name))
    })?;
    // `walden config backup` shows what backup would use.
    let (shown, for_showing) = match (command.name, words.first()) {
        ("config", Some(other)) => {
            let name = other.to_string_lossy();
            (settings::command_named(&name).map_or_else(|| scan::command(&name), Ok)?, true)
        }
        ("config", None) => (command, true),
        _ => (command, false),
    };
    let given = scan.given(shown.name)?;
    let environment: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        .filter(|(name, _)| name.starts_with("WALDEN_"))
        .map(|(name, value)| (name, value.to_string_lossy().into_owned()))
        .collect();
    let settings = settings::resolve(&Sources {
        command: shown,
        for_showing,
        given: &given,
        environment: &environment,
        files: &real_files::RealFiles,
    })?;
    Ok(Call { command, words, settings, runner })
}
