//! The one table of options: names, types, defaults, where they apply, and what they mean.
//!
//! Arguments, environment variables, the configuration file, `help`, the man pages and the completions
//! all come from here. To add an option, add one line to the slice of its group and an accessor in
//! `settings/accessors.rs`.

mod archive;
mod backup;
mod general;
mod repository;
mod restore;
mod retention;
mod server;
mod storage;
mod verify;

pub(super) use storage::NOT_READABLE;

/// The highest index of `repoN-*` and `pgN-*`.
pub const HIGHEST_INDEX: u16 = 256;

/// What values an option takes.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// `y` or `n`; on the command line also `--option` and `--no-option`.
    Boolean,
    /// A whole number between two bounds, both included.
    Integer(i64, i64),
    /// An amount of data with an optional suffix, between two bounds in bytes, both included.
    Size(u64, u64),
    /// A length of time: seconds, or with `ms`, `s`, `m`, `h`, `d`, `w`; between two bounds in milliseconds.
    Duration(u64, u64),
    /// One of some words. The second list holds words that pgBackRest knows, and what to say about them.
    Choice(&'static [&'static str], &'static [(&'static str, &'static str)]),
    /// A path; must be absolute unless it comes from the command line or the environment.
    Path,
    /// Any text.
    Text,
    /// The name of a stanza.
    Stanza,
    /// `key=value`, as often as wanted.
    Map,
}

/// Whether the name carries a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// No number.
    None,
    /// `repo1-…`, `repo2-…`
    Repository,
    /// `pg1-…`, `pg2-…`
    Server,
}

impl Group {
    /// What the names of the group begin with, before the number.
    #[must_use]
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Repository => "repo",
            Self::Server => "pg",
        }
    }
}

/// Where an option may be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Places {
    /// Command line, environment and file.
    Anywhere,
    /// Command line and environment: it belongs to one run.
    PerRun,
    /// Environment and file: a secret, which every user of the machine could read in the process list.
    NotOnCommandLine,
}

/// Which part of the help an option stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// What concerns every command.
    General,
    /// Where and how things are stored.
    Repository,
    /// The PostgreSQL server and its data directory.
    Server,
    /// Taking a backup.
    Backup,
    /// Archiving WAL and getting it back.
    Archive,
    /// Restoring.
    Restore,
    /// What stays and what goes.
    Retention,
    /// Verifying.
    Verify,
}

impl Topic {
    /// The heading in help and man pages.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::General => "General",
            Self::Repository => "Repository",
            Self::Server => "PostgreSQL",
            Self::Backup => "Backup",
            Self::Archive => "Archive",
            Self::Restore => "Restore",
            Self::Retention => "Retention",
            Self::Verify => "Verify",
        }
    }

    /// The order in which help shows them for most commands: the particular first.
    pub const ALL: [Self; 8] = [
        Self::Backup,
        Self::Archive,
        Self::Restore,
        Self::Retention,
        Self::Verify,
        Self::Repository,
        Self::Server,
        Self::General,
    ];
}

/// One option.
#[derive(Clone, Copy, Debug)]
pub struct OptionSpec {
    /// The name without a number: `repo-path` is written `repo1-path`, `repo2-path`, …
    pub name: &'static str,
    /// Whether the name carries a number.
    pub group: Group,
    /// The values it takes.
    pub kind: Kind,
    /// The value when nobody gives one, as it would be written.
    pub default: Option<&'static str>,
    /// Whether the default is for number 1 alone.
    pub only_first: bool,
    /// Commands with another default.
    pub default_for: &'static [(&'static str, &'static str)],
    /// In words, what holds when there is no value and no default.
    pub unset: &'static str,
    /// The commands it applies to; empty: all that read the configuration.
    pub commands: &'static [&'static str],
    /// The commands that cannot do without.
    pub required_by: &'static [&'static str],
    /// Masked wherever settings are shown.
    pub secret: bool,
    /// Where it may be given.
    pub places: Places,
    /// The part of the help.
    pub topic: Topic,
    /// One line: what it is, lower case, no full stop.
    pub short: &'static str,
    /// What a person who has to decide on a value should know.
    pub long: &'static str,
}

impl OptionSpec {
    const fn new(
        topic: Topic,
        name: &'static str,
        kind: Kind,
        short: &'static str,
        long: &'static str,
    ) -> Self {
        Self {
            name,
            group: Group::None,
            kind,
            default: None,
            only_first: false,
            default_for: &[],
            unset: "",
            commands: &[],
            required_by: &[],
            secret: false,
            places: Places::Anywhere,
            topic,
            short,
            long,
        }
    }

    const fn on(mut self, commands: &'static [&'static str]) -> Self {
        self.commands = commands;
        self
    }

    const fn default(mut self, value: &'static str) -> Self {
        self.default = Some(value);
        self
    }

    const fn default_for(mut self, values: &'static [(&'static str, &'static str)]) -> Self {
        self.default_for = values;
        self
    }

    const fn only_first(mut self) -> Self {
        self.only_first = true;
        self
    }

    const fn unset(mut self, words: &'static str) -> Self {
        self.unset = words;
        self
    }

    const fn required_by(mut self, commands: &'static [&'static str]) -> Self {
        self.required_by = commands;
        self
    }

    const fn per_run(mut self) -> Self {
        self.places = Places::PerRun;
        self
    }

    /// Whether its value is, or may hold, a connection string.
    #[must_use]
    pub fn holds_conninfo(&self) -> bool {
        matches!(self.name, "pg-conninfo" | "recovery-option")
    }

    const fn secret(mut self) -> Self {
        self.secret = true;
        self.places = Places::NotOnCommandLine;
        self
    }

    const fn group(mut self, group: Group) -> Self {
        self.group = group;
        self
    }

    /// Whether `command` uses it. `config` shows what a configuration file can hold.
    #[must_use]
    pub fn applies_to(&self, command: &str) -> bool {
        if self.commands.contains(&command) {
            return true;
        }
        if command == "config" {
            return self.places != Places::PerRun || self.commands.is_empty();
        }
        self.commands.is_empty() && super::command_named(command).is_some_and(|spec| spec.reads_configuration)
    }

    /// The default for `command`.
    #[must_use]
    pub fn default_value(&self, command: &str) -> Option<&'static str> {
        self.default_for.iter().find(|(name, _)| *name == command).map(|(_, value)| *value).or(self.default)
    }

    /// The name as it is written with `index` (`repo1-path`), or with `N` for none.
    #[must_use]
    pub fn written(&self, index: Option<u16>) -> String {
        let prefix = self.group.prefix();
        match (self.group, index) {
            (Group::None, _) => self.name.to_owned(),
            (_, Some(index)) => format!("{prefix}{index}{}", &self.name[prefix.len()..]),
            (_, None) => format!("{prefix}N{}", &self.name[prefix.len()..]),
        }
    }

    /// Whether several values may be given.
    #[must_use]
    pub const fn is_list(&self) -> bool {
        matches!(self.kind, Kind::Map)
    }

    /// Whether the command line may leave out the value.
    #[must_use]
    pub const fn is_boolean(&self) -> bool {
        matches!(self.kind, Kind::Boolean)
    }
}

/// Every option. A name occurs twice only where two commands mean different things by it (`type`).
pub fn options() -> impl Iterator<Item = &'static OptionSpec> + Clone {
    [
        backup::OPTIONS,
        archive::OPTIONS,
        restore::OPTIONS,
        retention::OPTIONS,
        repository::OPTIONS,
        storage::OPTIONS,
        server::OPTIONS,
        verify::OPTIONS,
        general::OPTIONS,
    ]
    .into_iter()
    .flatten()
}

/// A name as someone wrote it, looked up.
#[derive(Clone, Copy, Debug)]
pub enum Lookup {
    /// An option of ours; the number for an indexed one.
    Known(&'static OptionSpec, Option<u16>),
    /// An indexed option without its number.
    NeedsIndex(&'static OptionSpec),
    /// A number beyond [`HIGHEST_INDEX`], or zero.
    BadIndex(&'static OptionSpec),
    /// Nothing of that name.
    Unknown,
}

/// `repo1-path` as `("repo-path", Some("1"))`; names without a number as they are.
#[must_use]
pub fn without_index(name: &str) -> (String, Option<&str>) {
    for prefix in ["repo", "pg"] {
        if let Some(rest) = name.strip_prefix(prefix) {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (number, tail) = rest.split_at(digits);
            if digits > 0 && tail.starts_with('-') {
                return (format!("{prefix}{tail}"), Some(number));
            }
        }
    }
    (name.to_owned(), None)
}

/// Looks `name` up. Of two meanings the one for `command` is taken, if there is one.
#[must_use]
pub fn look_up(name: &str, command: Option<&str>) -> Lookup {
    let (base, number) = without_index(name);
    let mut candidates = options().filter(|spec| spec.name == base);
    let first = candidates.clone().next();
    let fitting = candidates.find(|spec| command.is_some_and(|c| spec.commands.contains(&c)));
    let Some(spec) = fitting.or(first) else { return Lookup::Unknown };
    match (spec.group, number) {
        (Group::None, None) => Lookup::Known(spec, None),
        (Group::None, Some(_)) => Lookup::Unknown,
        (_, None) => Lookup::NeedsIndex(spec),
        (_, Some(number)) => match number.parse::<u16>() {
            Ok(index) if (1..=HIGHEST_INDEX).contains(&index) && !number.starts_with('0') => {
                Lookup::Known(spec, Some(index))
            }
            _ => Lookup::BadIndex(spec),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_name_means_one_thing_to_one_command() {
        for command in crate::settings::commands() {
            let mut seen = BTreeSet::new();
            for spec in options().filter(|spec| spec.applies_to(command.name)) {
                assert!(seen.insert(spec.name), "{} means two things to {}", spec.name, command.name);
            }
        }
    }

    #[test]
    fn the_table_names_only_commands_that_are_known() {
        for spec in options() {
            let named = spec.commands.iter().chain(spec.required_by);
            for command in named.copied().chain(spec.default_for.iter().map(|(command, _)| *command)) {
                assert!(crate::settings::command_named(command).is_some(), "{}: {command}", spec.name);
            }
        }
    }

    #[test]
    fn every_option_is_explained_in_the_house_style() {
        for spec in options() {
            assert!(!spec.short.ends_with('.'), "{}", spec.name);
            assert!(spec.short.len() <= 68, "{}: {} characters", spec.name, spec.short.len());
            assert!(spec.long.ends_with('.') && spec.long.len() > 40, "{}", spec.name);
            assert!(spec.name.starts_with(spec.group.prefix()));
            // Where there is no default, the words say what happens instead.
            assert!(
                spec.default.is_some() || !spec.unset.is_empty() || !spec.required_by.is_empty(),
                "{} has neither a default nor words for its absence",
                spec.name
            );
        }
    }

    #[test]
    fn secrets_never_stand_on_the_command_line() {
        for spec in options().filter(|spec| spec.secret) {
            assert_eq!(spec.places, Places::NotOnCommandLine, "{}", spec.name);
        }
    }

    #[test]
    fn numbers_are_part_of_names() {
        assert!(
            matches!(look_up("repo12-path", None), Lookup::Known(spec, Some(12)) if spec.name == "repo-path")
        );
        assert!(matches!(look_up("repo-path", None), Lookup::NeedsIndex(_)));
        for bad in ["repo0-path", "repo257-path", "repo01-path", "repo99999-path"] {
            assert!(matches!(look_up(bad, None), Lookup::BadIndex(_)), "{bad}");
        }
        for unknown in ["repo1path", "pg1-nothing", "stanza1", ""] {
            assert!(matches!(look_up(unknown, None), Lookup::Unknown), "{unknown}");
        }
    }
}
