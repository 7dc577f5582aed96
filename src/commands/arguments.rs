//! The command line's grammar for clap, built from the tables.
//!
//! A run builds the one command it needs; completions build all of them.

use crate::settings::table::{Group, Kind, OptionSpec, Places, options};
use crate::settings::{CommandSpec, Presence};
use clap::{Arg, ArgAction, Command, builder::OsStringValueParser};

/// The id under which the arguments beside options are found.
pub fn positional_ids(spec: &CommandSpec) -> impl Iterator<Item = &'static str> {
    spec.arguments.iter().map(|(name, _)| *name)
}

fn option(spec: &'static OptionSpec, written: String) -> Arg {
    let arg = Arg::new(written.clone()).long(written).help(spec.short).action(ArgAction::Append);
    match spec.kind {
        Kind::Boolean => arg
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("y")
            .value_parser(["y", "n"])
            .hide_possible_values(true),
        Kind::Choice(words, _) => arg.value_name(spec.name.to_uppercase()).value_parser(words.to_vec()),
        Kind::Path => arg.value_name("PATH").value_hint(clap::ValueHint::AnyPath),
        _ => arg.value_name("VALUE"),
    }
}

/// The options that `command` takes on the command line.
pub fn options_of(command: &str) -> impl Iterator<Item = &'static OptionSpec> {
    options().filter(move |spec| spec.applies_to(command) && spec.places != Places::NotOnCommandLine)
}

/// For a run, arguments are anything: what they mean is the command's to judge.
fn positionals(command: Command, spec: &CommandSpec, for_completion: bool) -> Command {
    spec.arguments.iter().fold(command, |command, (name, presence)| {
        let arg = Arg::new(*name)
            .value_name(*name)
            .required(*presence == Presence::Required)
            .value_parser(OsStringValueParser::new());
        command.arg(match *name {
            "SHELL" if for_completion => arg.value_parser(["bash", "zsh", "fish"]),
            "PATH" | "TARGET" => arg.value_hint(clap::ValueHint::AnyPath),
            _ => arg,
        })
    })
}

/// The grammar of one command's arguments beside options, as a run needs it: options are looked up in the
/// table before, because their errors have words of their own.
#[must_use]
pub fn of_run(spec: &CommandSpec) -> Command {
    let command = Command::new("walden")
        .bin_name(format!("walden {}", spec.name))
        .disable_help_flag(true)
        .disable_version_flag(true);
    positionals(command, spec, false)
}

/// The grammar of the whole program, for completions. Options with numbers stand there for 1.
#[must_use]
pub fn whole() -> Command {
    let root = Command::new("walden").about(env!("CARGO_PKG_DESCRIPTION")).disable_help_subcommand(true);
    super::offered().fold(root, |root, spec| {
        let mut command = Command::new(spec.name).about(spec.short);
        for option_spec in options_of(spec.name) {
            let index = (option_spec.group != Group::None).then_some(1);
            command = command.arg(option(option_spec, option_spec.written(index)));
        }
        root.subcommand(positionals(command, spec, true))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clap_finds_no_contradiction_in_the_tables() {
        whole().debug_assert();
        for spec in crate::settings::commands() {
            of_run(spec).debug_assert();
        }
    }
}
