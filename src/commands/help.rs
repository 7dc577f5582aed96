//! `help`: the tables as a person reads them.

use super::{Context, Outcome, no_stdout, offered, word};
use crate::failure::{Class, Failure};
use crate::report::render::wrap;
use crate::settings::table::{Group, Lookup, OptionSpec, Places, Topic, look_up, options};
use crate::settings::{CommandSpec, Presence, command_named, describe, nearest, variable};
use std::fmt::Write as _;

const WIDTH: usize = 96;

pub(super) fn run(context: &Context<'_>) -> Result<Outcome, Failure> {
    let page = page(word(context, 0).as_deref(), word(context, 1).as_deref())?;
    context.report.data(page).map_err(no_stdout)?;
    Ok(Outcome::Done)
}

/// The page for a command, an option of it, or a topic.
///
/// # Errors
/// When there is no such command, option or topic.
pub fn page(command: Option<&str>, option: Option<&str>) -> Result<String, Failure> {
    match (command, option) {
        (None, _) => Ok(overview()),
        (Some("exit-codes"), None) => Ok(exit_codes()),
        (Some("configuration"), None) => Ok(wrap(CONFIGURATION, WIDTH, 0)),
        (Some(command), option) => {
            let spec = command_named(command).filter(|spec| super::runner(spec.name).is_some());
            match (spec, option) {
                (Some(spec), None) => Ok(of_command(spec)),
                (Some(spec), Some(option)) => of_option(spec, option),
                (None, None) => match look_up(command, None) {
                    Lookup::Known(option, _) | Lookup::NeedsIndex(option) => {
                        Ok(explain(option, owner(option)))
                    }
                    _ => Err(no_page(command)),
                },
                (None, Some(_)) => Err(no_page(command)),
            }
        }
    }
}

fn no_page(word: &str) -> Failure {
    let failure = Failure::new(Class::Usage, format!("there is no help about \"{word}\""));
    let topics = ["exit-codes", "configuration"];
    let words = offered().map(|c| c.name).chain(options().map(|o| o.name)).chain(topics);
    match nearest(word, words) {
        Some(meant) => failure.next(format!("Did you mean `walden help {meant}`?")),
        None => failure.next("`walden help` lists the commands."),
    }
}

/// The command whose defaults are shown when none was named.
fn owner(spec: &OptionSpec) -> &'static str {
    spec.commands.first().copied().unwrap_or("backup")
}

/// `walden help`.
#[must_use]
pub fn overview() -> String {
    let mut page = String::from(
        "walden keeps backups and WAL of PostgreSQL, and brings a cluster back to any moment they hold.\n\n\
         Usage: walden [OPTIONS] COMMAND [ARGUMENTS]\n\nCommands\n",
    );
    for spec in offered() {
        let _ = writeln!(page, "  {:<16}{}", spec.name, spec.short);
    }
    page.push_str(
        "\n`walden help COMMAND` lists the options of a command, `walden help COMMAND OPTION` explains one.\n\
         `walden help configuration` is about files and variables, `walden help exit-codes` about exit codes.\n",
    );
    page
}

/// The line that shows how a command is called.
#[must_use]
pub fn usage(spec: &CommandSpec) -> String {
    let mut line = format!("walden [OPTIONS] {}", spec.name);
    for (name, presence) in spec.arguments {
        let _ = match presence {
            Presence::Required => write!(line, " {name}"),
            Presence::Optional => write!(line, " [{name}]"),
        };
    }
    line
}

/// The options of a command by topic, what belongs to it most first.
pub fn by_topic(command: &str) -> impl Iterator<Item = (Topic, Vec<&'static OptionSpec>)> {
    Topic::ALL.into_iter().filter_map(move |topic| {
        let mut found: Vec<_> =
            options().filter(|spec| spec.topic == topic && spec.applies_to(command)).collect();
        found.sort_by_key(|spec| spec.name);
        (!found.is_empty()).then_some((topic, found))
    })
}

fn of_command(spec: &CommandSpec) -> String {
    let mut page = format!("walden {}: {}\n\n", spec.name, spec.short);
    page.push_str(&wrap(spec.long, WIDTH, 0));
    let _ = write!(page, "\nUsage: {}\n", usage(spec));
    for (topic, specs) in by_topic(spec.name) {
        let _ = write!(page, "\n{}\n", topic.title());
        for option in specs {
            let mut line = format!("  {:<29} {}", format!("--{}", option.written(None)), option.short);
            if option.places == Places::NotOnCommandLine {
                // Shown without dashes: there is no such argument.
                line = format!("  {:<29} {}", option.written(None), option.short);
            }
            match option.default_value(spec.name) {
                Some(default) if line.len() + default.len() < WIDTH => {
                    let _ = write!(line, " [{default}]");
                }
                _ => {}
            }
            page.push_str(&line);
            page.push('\n');
        }
    }
    page.push_str("\nA default stands in brackets. ");
    let _ = writeln!(page, "`walden help {} OPTION` explains an option.", spec.name);
    page
}

fn of_option(command: &CommandSpec, name: &str) -> Result<String, Failure> {
    let (base, _) = crate::settings::table::without_index(name.trim_start_matches('-'));
    let found = options().find(|spec| spec.name == base && spec.applies_to(command.name));
    if let Some(spec) = found {
        return Ok(explain(spec, command.name));
    }
    let of_command = options().filter(|spec| spec.applies_to(command.name)).map(|spec| spec.name);
    let failure = Failure::new(Class::Usage, format!("{} has no option \"{name}\"", command.name));
    Err(match nearest(&base, of_command) {
        Some(meant) => failure.next(format!("Did you mean `walden help {} {meant}`?", command.name)),
        None => failure.next(format!("`walden help {}` lists them.", command.name)),
    })
}

fn explain(spec: &OptionSpec, command: &str) -> String {
    let written = spec.written(None);
    let first = spec.written(Some(1));
    let mut page = format!("{written}: {}\n\n", spec.short);
    page.push_str(&wrap(spec.long, WIDTH, 0));
    let value = describe(spec);
    let _ = write!(page, "\nValues    {}\n", value.strip_prefix("it takes ").unwrap_or(&value));
    match spec.default_value(command) {
        Some(default) => {
            let whose = if spec.only_first { " for number 1; others must be given" } else { "" };
            let _ = writeln!(page, "Default   {default}{whose}");
        }
        None if spec.required_by.contains(&command) => page.push_str("Default   none; it must be given\n"),
        None => {
            let _ = writeln!(page, "Default   {}", spec.unset);
        }
    }
    let on_line =
        if spec.is_boolean() { format!("--{first}, --no-{first}") } else { format!("--{first}=…") };
    let places: Vec<String> = match spec.places {
        Places::Anywhere => vec![on_line, variable(&first), format!("{first}=… in a configuration file")],
        Places::PerRun => vec![on_line, variable(&first)],
        Places::NotOnCommandLine => vec![format!("{first}=… in a configuration file"), variable(&first)],
    };
    let _ = writeln!(page, "Given as  {}", places.join("\n          "));
    if spec.group != Group::None {
        let _ = writeln!(
            page,
            "Numbers   N counts {} from 1 to 256",
            match spec.group {
                Group::Server => "servers",
                _ => "repositories",
            }
        );
    }
    page
}

/// `walden help exit-codes`.
#[must_use]
pub fn exit_codes() -> String {
    let mut page = String::from("Exit codes\n\n    0  done\n");
    for (_, code, words) in Class::ALL {
        let _ = writeln!(page, "  {code:>3}  {words}");
    }
    page.push('\n');
    page.push_str(&wrap(EXIT_CODES, WIDTH, 0));
    page
}

/// What the table of exit codes leaves unsaid.
pub const EXIT_CODES: &str = "\
PostgreSQL reads these. For restore_command it takes 1 to 125 as the end of the archive, so archive-get answers only \
0, 1 and 200, and whatever looks like a call of archive-get does, too, be it mistyped. For archive_command it retries \
after 1 to 125 and ends its archiver above, so archive-push never exits above 125. On SIGINT or SIGTERM archive-push \
exits with 71; every other command cleans up and dies by the signal.";

/// `walden help configuration`.
pub const CONFIGURATION: &str = "\
Every option can stand in three places; the first that names it counts:

1. the command line: --repo1-path=/srv/walden, before or after the command; --start-fast and --no-start-fast for y and \
n; --reset-OPTION for the default, whatever else is configured
2. the environment: WALDEN_REPO1_PATH=/srv/walden
3. the configuration file /etc/walden/walden.conf and then /etc/walden/conf.d/*.conf, in the sections [stanza:command], \
[stanza], [global:command], [global], in this order

Secrets are not taken from the command line. Options that belong to one run (--target, --set, --force, …) are not taken \
from a file.

A line of a file is [section], option=value, or a comment that begins with # or ;. The value is everything after the \
first =, without blanks around it; there are no quotes.

[global]
repo1-path=/srv/walden
repo1-cipher-type=aes-256-gcm
repo1-cipher-pass-file=/etc/walden/repo1.key

[shop]
pg1-path=/var/lib/postgresql/17/main

An unknown option is an error that names file and line. Only archive-push and archive-get warn and go on, so that a typo \
cannot stop archiving or recovery. `walden config` shows every value and where it came from.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_of_help_is_wider_than_a_hundred() {
        let mut pages = vec![overview(), exit_codes(), wrap(CONFIGURATION, WIDTH, 0)];
        for command in crate::settings::commands() {
            pages.push(of_command(command));
            for option in options().filter(|option| option.applies_to(command.name)) {
                pages.push(explain(option, command.name));
            }
        }
        for line in pages.iter().flat_map(|page| page.lines()) {
            assert!(line.chars().count() <= 100, "{line}");
        }
    }

    #[test]
    fn help_is_found_for_options_too_and_guesses() {
        assert!(page(Some("config"), None).unwrap().contains("Usage: walden [OPTIONS] config [COMMAND]"));
        assert!(page(Some("config"), Some("repo1-path")).unwrap().starts_with("repoN-path: "));
        assert!(page(Some("repo-path"), None).is_ok());
        let failure = page(Some("confg"), None).unwrap_err();
        assert_eq!(failure.steps(), ["Did you mean `walden help config`?"]);
        let failure = page(Some("config"), Some("repo1-pth")).unwrap_err();
        assert_eq!(failure.steps(), ["Did you mean `walden help config repo-path`?"]);
    }
}
