//! Arguments into command, options and words: options stand before or after the command, as one likes.

use crate::failure::{Class, Failure};
use crate::settings::table::{Lookup, look_up};
use crate::settings::{ABSENT, Form, Given, check_on_command_line, nearest};
use crate::{commands, settings};
use std::ffi::{OsStr, OsString};

/// What the arguments say, before it is judged.
#[derive(Clone, Debug, Default)]
pub(super) struct Scan {
    /// Options in the order given.
    pub options: Vec<Option_>,
    /// Everything else; the first is the command.
    pub words: Vec<OsString>,
    /// `--help` or `-h`.
    pub help: bool,
    /// `--version` or `-V`.
    pub version: bool,
}

/// One option as written.
#[derive(Clone, Debug)]
pub(super) struct Option_ {
    /// Without dashes, with `no-` or `reset-`.
    pub name: String,
    /// After `=`, or the next argument.
    pub value: Option<OsString>,
}

/// The name of an option without `no-` or `reset-`, if it is one with.
fn base_of(name: &str) -> Option<(&str, Form)> {
    if matches!(look_up(name, None), Lookup::Known(..)) {
        return None;
    }
    name.strip_prefix("no-")
        .map(|base| (base, Form::No))
        .or_else(|| name.strip_prefix("reset-").map(|base| (base, Form::Reset)))
        .filter(|(base, _)| matches!(look_up(base, None), Lookup::Known(..)))
}

/// Whether the next argument belongs to the option, when it has no `=`.
fn takes_the_next(name: &str) -> bool {
    match look_up(name, None) {
        Lookup::Known(spec, _) | Lookup::NeedsIndex(spec) | Lookup::BadIndex(spec) => !spec.is_boolean(),
        // Not known: its value may be the next word, or that may be the command. Nobody can tell.
        Lookup::Unknown => false,
    }
}

/// Sorts the arguments. Never fails: judging is done once the command is known.
pub(super) fn scan(arguments: &[OsString]) -> Scan {
    let mut scan = Scan::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let text = argument.to_string_lossy();
        if text == "--" {
            scan.words.extend(rest.by_ref().cloned());
        } else if text == "--help" || text == "-h" {
            scan.help = true;
        } else if text == "--version" || text == "-V" {
            scan.version = true;
        } else if let Some(option) = text.strip_prefix("--") {
            let (name, value) = match option.split_once('=') {
                // From the raw bytes, so that a path that is not UTF-8 is seen as such.
                Some((name, _)) => (name.to_owned(), Some(after_equals(argument))),
                None if takes_the_next(option) => (option.to_owned(), rest.next().cloned()),
                None => (option.to_owned(), None),
            };
            scan.options.push(Option_ { name, value });
        } else if text.len() > 1 && text.starts_with('-') {
            scan.options.push(Option_ { name: text.into_owned(), value: None });
        } else {
            scan.words.push(argument.clone());
        }
    }
    scan
}

fn after_equals(argument: &OsStr) -> OsString {
    use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
    let bytes = argument.as_bytes();
    let at = bytes.iter().position(|byte| *byte == b'=').map_or(bytes.len(), |at| at + 1);
    OsString::from_vec(bytes.get(at..).unwrap_or_default().to_vec())
}

impl Scan {
    /// The first word.
    pub(super) fn command(&self) -> Option<String> {
        self.words.first().map(|word| word.to_string_lossy().into_owned())
    }

    /// The options for `command`, looked up.
    pub(super) fn given(&self, command: &str) -> Result<Vec<Given>, Failure> {
        self.options.iter().map(|option| given(option, command)).collect()
    }

    /// The first option that no command knows, in words.
    pub(super) fn unknown_option(&self) -> Option<Failure> {
        let command =
            self.command().filter(|name| settings::command_named(name).is_some()).unwrap_or_default();
        self.options.iter().find_map(|option| {
            let known =
                base_of(&option.name).is_some() || matches!(look_up(&option.name, None), Lookup::Known(..));
            if known { None } else { given(option, &command).err() }
        })
    }
}

fn given(option: &Option_, command: &str) -> Result<Given, Failure> {
    let usage = |what: String| Failure::new(Class::Usage, what);
    let name = option.name.as_str();
    if name.starts_with('-') {
        let failure = usage(format!("unknown option \"{name}\" on the command line"));
        return Err(failure.because_text("options have long names only: --stanza=NAME"));
    }
    if let Some((base, form)) = base_of(name) {
        let (spec, _) = check_on_command_line(base, command)?;
        if option.value.is_some() {
            return Err(usage(format!("--{name} takes no value")));
        }
        if form == Form::No && !spec.is_boolean() {
            return Err(usage(format!("--{name} has no meaning: {base} is not y or n"))
                .next(format!("--reset-{base} takes the default.")));
        }
        return Ok(Given { name: base.to_owned(), form });
    }
    let (spec, _) = check_on_command_line(name, command)?;
    let text = match &option.value {
        None if spec.is_boolean() => "y".to_owned(),
        None => {
            return Err(usage(format!("option --{name} needs a value"))
                .next(format!("`walden help {command} {}` explains it.", spec.name)));
        }
        Some(value) => value.clone().into_string().map_err(|_| {
            usage(format!("the value of --{name} is not UTF-8 text"))
                .because_text("a configuration file could not hold it, so no option takes it")
        })?,
    };
    Ok(Given { name: name.to_owned(), form: Form::Set(text) })
}

/// The table's entry for a command that can be run.
pub(super) fn command(name: &str) -> Result<&'static settings::CommandSpec, Failure> {
    if let Some(spec) = settings::command_named(name).filter(|spec| commands::runner(spec.name).is_some()) {
        return Ok(spec);
    }
    let failure = Failure::new(Class::Usage, format!("unknown command \"{name}\""));
    if let Some((_, words)) = ABSENT.iter().find(|(absent, _)| *absent == name) {
        return Err(Failure::new(Class::Usage, format!("walden has no command {name}")).because_text(*words));
    }
    Err(match nearest(name, commands::offered().map(|spec| spec.name)) {
        Some(meant) => failure.next(format!("Did you mean `walden {meant}`?")),
        None => failure.next("`walden help` lists the commands."),
    })
}

/// The arguments beside options, counted by clap.
pub(super) fn positionals(
    spec: &'static settings::CommandSpec,
    words: &[OsString],
) -> Result<Vec<OsString>, Failure> {
    let start: [OsString; 2] = ["walden".into(), "--".into()];
    let all = start.into_iter().chain(words.iter().cloned());
    match commands::arguments::of_run(spec).try_get_matches_from(all) {
        Ok(matches) => Ok(commands::arguments::positional_ids(spec)
            .filter_map(|id| matches.get_one::<OsString>(id).cloned())
            .collect()),
        Err(error) => {
            let what = match error.kind() {
                clap::error::ErrorKind::MissingRequiredArgument => {
                    let missing: Vec<&str> =
                        spec.arguments.iter().map(|(name, _)| *name).skip(words.len()).collect();
                    format!("{} needs {}", spec.name, missing.join(" and "))
                }
                _ => {
                    let extra = words.get(spec.arguments.len()).map(|word| word.to_string_lossy());
                    format!("{} does not take \"{}\"", spec.name, extra.unwrap_or_default())
                }
            };
            Err(Failure::new(Class::Usage, what)
                .next(format!("Usage: {}", commands::usage(spec)))
                .next(format!("`walden help {}` explains it.", spec.name)))
        }
    }
}
