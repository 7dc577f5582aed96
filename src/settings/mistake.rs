//! Mistakes in settings, in a person's words. One set of texts for command line, environment and file.

use super::commands::commands;
use super::nearest::nearest;
use super::replaced::replacement;
use super::table::{Group, Kind, OptionSpec, Places, options, without_index};
use crate::failure::{Class, Failure};
use std::fmt;
use std::path::PathBuf;

/// Where something was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// An argument.
    CommandLine,
    /// The variable of this name.
    Environment(String),
    /// A line of a configuration file.
    File(PathBuf, usize),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CommandLine => f.write_str("on the command line"),
            Self::Environment(_) => f.write_str("in the environment"),
            Self::File(path, line) => write!(f, "in {} line {line}", path.display()),
        }
    }
}

impl Place {
    /// The name as it was written there.
    fn spelled(&self, name: &str) -> String {
        match self {
            Self::Environment(variable) => variable.clone(),
            _ => self.spelling(name),
        }
    }

    /// The name as it ought to be written there.
    fn spelling(&self, name: &str) -> String {
        match self {
            Self::CommandLine => format!("--{name}"),
            Self::Environment(_) => variable(name),
            Self::File(..) => name.to_owned(),
        }
    }
}

/// The environment variable of an option.
#[must_use]
pub fn variable(name: &str) -> String {
    format!("WALDEN_{}", name.to_uppercase().replace('-', "_"))
}

fn usage(what: String) -> Failure {
    Failure::new(Class::Usage, what)
}

/// The name with a given number put back, so that a suggestion for repo2 says repo2.
fn suggestion(name: &str) -> Option<String> {
    let (base, number) = without_index(name);
    let spec_name = nearest(&base, options().map(|spec| spec.name))?;
    let spec = options().find(|spec| spec.name == spec_name)?;
    let index = number.and_then(|n| n.parse().ok()).filter(|n| (1..=super::table::HIGHEST_INDEX).contains(n));
    Some(spec.written(Some(index.unwrap_or(1))))
}

pub(super) fn unknown(name: &str, command: &str, place: &Place) -> Failure {
    let spelled = place.spelled(name);
    let (base, _) = without_index(name);
    if let Some(instead) = replacement(&base) {
        return usage(format!("option \"{spelled}\" {place} does not exist in walden"))
            .because_text(instead)
            .next(match place {
                Place::File(..) => "Remove the line.",
                Place::CommandLine => "Leave it out.",
                Place::Environment(_) => "Unset the variable.",
            });
    }
    let failure = usage(format!("unknown option \"{spelled}\" {place}"));
    match suggestion(name) {
        Some(meant) => failure.next(format!("Did you mean \"{}\"?", place.spelling(&meant))),
        None if command.is_empty() => failure.next("`walden help COMMAND` lists the options of a command."),
        None => failure.next(format!("`walden help {command}` lists the options.")),
    }
}

pub(super) fn needs_index(spec: &OptionSpec, name: &str, place: &Place) -> Failure {
    let what = match spec.group {
        Group::Server => "server",
        _ => "repository",
    };
    usage(format!("option \"{}\" {place} needs a number", place.spelled(name)))
        .next(format!("Write \"{}\" for the first {what}.", place.spelling(&spec.written(Some(1)))))
}

pub(super) fn bad_index(name: &str, place: &Place) -> Failure {
    usage(format!("option \"{}\" {place} has a number that is not from 1 to 256", place.spelled(name)))
        .next("Count repositories and servers from 1, without leading zeros.")
}

/// The value is not part of the text: for a secret it must not be.
pub(super) fn not_here(spec: &OptionSpec, name: &str, place: &Place) -> Failure {
    match (spec.places, place) {
        (Places::NotOnCommandLine, _) => usage(format!("option --{name} is not taken from the command line"))
            .because_text("every user of this machine can read the arguments of running programs")
            .next(format!(
                "Put it into a configuration file that only you can read, or name a file with {name}-file \
                     or a command with {name}-command."
            ))
            .next("If that was the real one, it now stands in the shell's history: remove it there."),
        _ => usage(format!("option \"{name}\" {place} belongs to a single run"))
            .because_text("in a configuration file it would silently apply to every run")
            .next(format!("Give it as --{name} or in the environment as {}.", variable(name))),
    }
}

/// A connection string with a password, where everybody can read it.
pub(super) fn password_in_argument(name: &str) -> Failure {
    usage(format!("the connection string in --{name} holds a password"))
        .because_text("every user of this machine can read the arguments of running programs")
        .next("Put the password into ~/.pgpass, or into a file that passfile= names, and leave it out here.")
        .next("If that was the real one, it now stands in the shell's history: remove it there.")
}

pub(super) fn not_for(spec: &OptionSpec, name: &str, command: &str, place: &Place) -> Failure {
    let of: Vec<&str> = options().filter(|o| o.name == spec.name).flat_map(|o| o.commands).copied().collect();
    let owners =
        if of.is_empty() { "commands that read the configuration".to_owned() } else { of.join(", ") };
    usage(format!("option \"{}\" {place} does not apply to {command}", place.spelled(name)))
        .because_text(format!("it belongs to {owners}"))
        .next(format!("`walden help {command}` lists the options that do."))
}

pub(super) fn bad_value(
    spec: &OptionSpec,
    name: &str,
    text: &str,
    why: &super::value::BadValue,
    command: &str,
    place: &Place,
) -> Failure {
    let shown = if spec.secret { "…" } else { text };
    let failure =
        usage(format!("cannot use {}={shown} {place}", place.spelled(name))).because_text(why.to_string());
    let meant = match spec.kind {
        Kind::Choice(words, _) => nearest(text, words.iter().copied()),
        _ => None,
    };
    let failure = match meant {
        Some(meant) => failure.next(format!("Did you mean {meant}?")),
        None => failure,
    };
    let owner =
        if spec.applies_to(command) { command } else { spec.commands.first().copied().unwrap_or(command) };
    failure.next(format!("`walden help {owner} {}` explains it.", spec.name))
}

pub(super) fn twice(name: &str, place: &Place, before: &Place) -> Failure {
    match (place, before) {
        (Place::CommandLine, _) => usage(format!("option --{name} is given more than once"))
            .next("Give it once: which one counts would be a guess."),
        _ => usage(format!("option \"{name}\" {place} is set a second time"))
            .because_text(format!("it is already set {before}, in a section of the same name"))
            .next("Remove one of the two lines."),
    }
}

pub(super) fn missing(spec: &OptionSpec, command: &str, stanzas: &[String]) -> Failure {
    let name = spec.written(Some(1));
    let failure = usage(format!("{command} needs the option {name}"));
    if spec.name == "stanza" {
        return match stanzas {
            [] => failure
                .because_text("neither the command line nor the environment names a stanza, and no configuration file has a section for one")
                .next("Name it: --stanza=NAME."),
            several => failure
                .because_text(format!("the configuration has several: {}", several.join(", ")))
                .next(format!("Name one: --stanza={}.", several[0])),
        };
    }
    failure
        .because_text(format!("it says {}, and there is no default", spec.short))
        .next(format!("Give it as --{name}=… or in the stanza's section of the configuration file."))
        .next(format!("`walden help {command} {}` explains it.", spec.name))
}

pub(super) fn section_of_unknown_command(section: &str, command: &str, place: &Place) -> Failure {
    let failure =
        usage(format!("section [{section}] {place} is for a command that does not exist: {command}"));
    match nearest(command, commands().iter().map(|c| c.name)) {
        Some(meant) => {
            let stanza = section.split(':').next().unwrap_or("global");
            failure.next(format!("Did you mean [{stanza}:{meant}]?"))
        }
        None => failure
            .next("`walden help` lists the commands. Remove the section if its command is not walden's."),
    }
}

pub(super) fn bad_section(section: &str, why: String, place: &Place) -> Failure {
    usage(format!("section [{section}] {place} cannot be understood"))
        .because_text(why)
        .next("Sections are [global], [global:COMMAND], [STANZA] and [STANZA:COMMAND].")
}

pub(super) fn almost_global(section: &str, place: &Place) -> Failure {
    let tail = section.split_once(':').map(|(_, command)| format!(":{command}")).unwrap_or_default();
    usage(format!("section [{section}] {place} looks like a mistyped [global{tail}]"))
        .because_text("it would be taken for a stanza, and its options would apply to nothing else")
        .next(format!("Write [global{tail}], or give the stanza a name less like it."))
}

pub(super) fn bad_line(why: super::ini::Problem, place: &Place) -> Failure {
    usage(format!("cannot understand the configuration {place}"))
        .because_text(why.to_string())
        .next("A line is [section], option=value, or a comment that begins with # or ;.")
}
