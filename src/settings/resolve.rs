//! From what was given to what holds: command line over environment over file over default.
//!
//! A pure function of its [`Sources`]: tests give it their own environment and files.

use super::commands::{CommandSpec, command_named, commands};
use super::ini;
use super::mistake::{self, Place, variable};
use super::nearest::{distance, nearest};
use super::table::{Lookup, OptionSpec, Places, look_up, options};
use super::value;
use super::{Key, Origin, Setting, Settings};
use crate::failure::{Class, Failure};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// An option as the command line gave it.
#[derive(Clone, Debug)]
pub struct Given {
    /// The name with its number, without dashes.
    pub name: String,
    /// What is to happen with it.
    pub form: Form,
}

/// What the command line says about an option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// `--name=value`, or `--name` for `y`.
    Set(String),
    /// `--no-name`.
    No,
    /// `--reset-name`: the default, whatever environment and file say.
    Reset,
}

/// Where configuration files are read from.
pub trait Files {
    /// The contents of a file.
    ///
    /// # Errors
    /// As the operating system gives them.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// The files directly in a directory.
    ///
    /// # Errors
    /// As the operating system gives them.
    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>>;

    /// Whether every user of the machine can read the file.
    fn readable_by_all(&self, path: &Path) -> bool;
}

/// Everything settings come from.
pub struct Sources<'a> {
    /// The command whose settings are wanted.
    pub command: &'static CommandSpec,
    /// Whether they are wanted only to be shown (`walden config`): nothing is required then.
    pub for_showing: bool,
    /// The command line.
    pub given: &'a [Given],
    /// The environment. Only `WALDEN_*` is looked at.
    pub environment: &'a BTreeMap<String, String>,
    /// The file system.
    pub files: &'a dyn Files,
}

/// One option's raw texts from one source.
#[derive(Clone)]
struct Raw {
    texts: Vec<String>,
    origin: Origin,
}

type Layer = BTreeMap<Key, Raw>;

struct Resolver<'a> {
    sources: &'a Sources<'a>,
    warnings: Vec<String>,
    /// What keeps the command from running, gathered so that all of it is told at once.
    mistakes: Vec<Failure>,
}

/// Finds out what holds.
///
/// # Errors
/// All mistakes of environment and files at once, in words; a mistake on the command line alone. For a lenient
/// command, mistakes that do not concern it are warnings in the result instead.
pub fn resolve(sources: &Sources<'_>) -> Result<Settings, Failure> {
    Resolver { sources, warnings: Vec::new(), mistakes: Vec::new() }.run()
}

impl Resolver<'_> {
    fn run(mut self) -> Result<Settings, Failure> {
        let command = self.sources.command;
        let (line, resets) = self.command_line()?;
        let environment = self.environment()?;
        let files = if command.reads_configuration {
            self.files(&[&environment, &line])?
        } else {
            ConfigurationFiles::default()
        };

        let stanzas = files.stanzas();
        let named = line.get(&Key::plain("stanza")).or_else(|| environment.get(&Key::plain("stanza")));
        let stanza = match named.and_then(|raw| raw.texts.last()) {
            Some(name) => Some(name.clone()),
            None if stanzas.len() == 1 => stanzas.first().cloned(),
            None => None,
        };

        let mut layers = self.sections(&files, stanza.as_deref())?;
        if named.is_none()
            && let Some(stanza) = &stanza
        {
            let origin = files.section_place(stanza).map_or(Origin::Default, Origin::OnlyStanza);
            layers.insert(
                0,
                Layer::from([(Key::plain("stanza"), Raw { texts: vec![stanza.clone()], origin })]),
            );
        }
        layers.push(environment);
        layers.push(line);

        let mut raws = Layer::new();
        for layer in layers {
            raws.extend(layer);
        }
        for key in &resets {
            raws.remove(key);
        }
        self.settings(raws, stanzas, files.paths)
    }

    /// A mistake that does not concern the command: an error, or a warning for a lenient one.
    fn tolerate(&mut self, mistake: Failure) {
        if self.sources.command.lenient {
            self.warnings.push(mistake.one_line());
        } else {
            self.mistakes.push(mistake);
        }
    }

    /// Ends here with all that is wrong so far, where going on would tell of one mistake twice.
    fn stop_at_mistakes(&mut self) -> Result<(), Failure> {
        Failure::all(std::mem::take(&mut self.mistakes)).map_or(Ok(()), Err)
    }

    fn applies(&self, spec: &OptionSpec) -> bool {
        // Shown settings are those of the command; what says how to show them applies beside.
        spec.applies_to(self.sources.command.name)
            || (self.sources.for_showing && spec.places == Places::PerRun && spec.applies_to("config"))
    }

    fn command_line(&self) -> Result<(Layer, Vec<Key>), Failure> {
        let mut layer = Layer::new();
        let mut resets = Vec::new();
        for given in self.sources.given {
            let (spec, key) = self.option_on_command_line(&given.name)?;
            let text = match &given.form {
                Form::Reset => {
                    resets.push(key);
                    continue;
                }
                Form::No => "n".to_owned(),
                Form::Set(text) => text.clone(),
            };
            let raw =
                layer.entry(key).or_insert_with(|| Raw { texts: Vec::new(), origin: Origin::CommandLine });
            if !raw.texts.is_empty() && !spec.is_list() {
                return Err(mistake::twice(&given.name, &Place::CommandLine, &Place::CommandLine));
            }
            raw.texts.push(text);
        }
        Ok((layer, resets))
    }

    fn option_on_command_line(&self, name: &str) -> Result<(&'static OptionSpec, Key), Failure> {
        let found = check_on_command_line(name, self.sources.command.name)?;
        let (spec, key) = found;
        if self.applies(spec) {
            Ok((spec, key))
        } else {
            Err(mistake::not_for(spec, name, self.sources.command.name, &Place::CommandLine))
        }
    }

    fn environment(&mut self) -> Result<Layer, Failure> {
        let mut layer = Layer::new();
        let command = self.sources.command;
        for (name, text) in self.sources.environment {
            let Some(rest) = name.strip_prefix("WALDEN_") else { continue };
            let option = rest.to_ascii_lowercase().replace('_', "-");
            let place = Place::Environment(name.clone());
            match look_up(&option, Some(command.name)) {
                // One spelling each: WALDEN_Stanza beside WALDEN_STANZA would be two of one.
                Lookup::Known(spec, index) if variable(&spec.written(index)) == *name => {
                    let texts = if spec.is_list() {
                        text.lines().map(str::to_owned).collect()
                    } else {
                        vec![text.clone()]
                    };
                    layer.insert(
                        Key { name: spec.name, index },
                        Raw { texts, origin: Origin::Environment(name.clone()) },
                    );
                }
                _ if !command.reads_configuration => {}
                Lookup::NeedsIndex(spec) => self.tolerate(mistake::needs_index(spec, &option, &place)),
                Lookup::BadIndex(_) => self.tolerate(mistake::bad_index(&option, &place)),
                Lookup::Known(..) | Lookup::Unknown => {
                    self.tolerate(mistake::unknown(&option, command.name, &place));
                }
            }
        }
        Ok(layer)
    }

    /// Reads the configuration file and what is included.
    fn files(&mut self, layers: &[&Layer]) -> Result<ConfigurationFiles, Failure> {
        let path_of = |name: &'static str| {
            layers.iter().rev().find_map(|layer| {
                layer.get(&Key::plain(name)).and_then(|raw| raw.texts.last()).map(PathBuf::from)
            })
        };
        let base = path_of("config-path");
        let (named, named_directory) = (path_of("config"), path_of("config-include-path"));
        let place = base.clone().unwrap_or_else(|| PathBuf::from("/etc/walden"));
        let main = named.clone().unwrap_or_else(|| place.join("walden.conf"));
        // A file named on purpose stands alone, unless a directory is named as well.
        let directory = match (&named, &named_directory, &base) {
            (_, Some(directory), _) => Some(directory.clone()),
            (Some(_), None, None) => None,
            _ => Some(place.join("conf.d")),
        };

        let mut read = ConfigurationFiles::default();
        match self.sources.files.read(&main) {
            Ok(contents) => read.add(main, &contents),
            Err(error) if error.kind() == io::ErrorKind::NotFound && named.is_none() => {}
            Err(error) => return Err(unreadable(&main, "configuration file", &error, named.is_some())),
        }
        if let Some(directory) = directory {
            match self.sources.files.list(&directory) {
                Ok(mut paths) => {
                    paths.retain(|path| path.extension().is_some_and(|e| e == "conf"));
                    paths.sort();
                    for path in paths {
                        match self.sources.files.read(&path) {
                            Ok(contents) => read.add(path, &contents),
                            Err(error) => return Err(unreadable(&path, "configuration file", &error, true)),
                        }
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound && named_directory.is_none() => {}
                Err(error) => {
                    let named = named_directory.is_some();
                    return Err(unreadable(&directory, "directory of configuration files", &error, named));
                }
            }
        }
        for (path, line, problem) in std::mem::take(&mut read.problems) {
            self.tolerate(mistake::bad_line(problem, &Place::File(path, line)));
        }
        self.stop_at_mistakes()?;
        Ok(read)
    }

    /// Checks every line of every section, and sorts those that count here into layers, lowest first.
    fn sections(&mut self, files: &ConfigurationFiles, stanza: Option<&str>) -> Result<Vec<Layer>, Failure> {
        let command = self.sources.command.name;
        let mut sections: Vec<String> = vec!["global".into(), format!("global:{command}")];
        if let Some(stanza) = stanza {
            sections.extend([stanza.to_owned(), format!("{stanza}:{command}")]);
        }
        for (section, place) in &files.sections {
            if let Err(mistake) = check_section(section, place) {
                self.tolerate(mistake);
            }
        }
        self.stop_at_mistakes()?;
        let mut layers = vec![Layer::new(); sections.len()];
        let mut first_places: BTreeMap<(String, Key), Place> = BTreeMap::new();
        let mut exposed: Vec<&Path> = Vec::new();
        for (path, entry) in &files.entries {
            let place = Place::File(path.clone(), entry.line);
            let of_section = entry.section.split_once(':').map(|(_, command)| command);
            let (spec, index) = match look_up(&entry.key, of_section.or(Some(command))) {
                Lookup::Known(spec, index) => (spec, index),
                Lookup::NeedsIndex(spec) => {
                    self.tolerate(mistake::needs_index(spec, &entry.key, &place));
                    continue;
                }
                Lookup::BadIndex(_) => {
                    self.tolerate(mistake::bad_index(&entry.key, &place));
                    continue;
                }
                Lookup::Unknown => {
                    let concerned = of_section.filter(|c| command_named(c).is_some()).unwrap_or(command);
                    self.tolerate(mistake::unknown(&entry.key, concerned, &place));
                    continue;
                }
            };
            if spec.places == Places::PerRun {
                self.tolerate(mistake::not_here(spec, &entry.key, &place));
                continue;
            }
            if let Some(other) = of_section.and_then(command_named)
                && !spec.applies_to(other.name)
            {
                self.tolerate(mistake::not_for(spec, &entry.key, other.name, &place));
                continue;
            }
            if spec.secret && !exposed.contains(&path.as_path()) && self.sources.files.readable_by_all(path) {
                exposed.push(path);
            }
            let key = Key { name: spec.name, index };
            let level = sections.iter().position(|section| *section == entry.section);
            if let (Some(before), false) =
                (first_places.get(&(entry.section.clone(), key.clone())), spec.is_list())
            {
                let mistake = mistake::twice(&entry.key, &place, before);
                // Two values for an option that counts here: guessing is worse than stopping.
                if level.is_some() && self.applies(spec) {
                    self.mistakes.push(mistake);
                } else {
                    self.tolerate(mistake);
                }
                continue;
            }
            first_places.entry((entry.section.clone(), key.clone())).or_insert_with(|| place.clone());
            let counts = level.is_some() && self.applies(spec);
            if !counts {
                // Looked at all the same: a typo in a restore's options should not wait for the restore.
                if let Err(why) = value::parse(spec, &[&entry.value], true) {
                    self.tolerate(mistake::bad_value(spec, &entry.key, &entry.value, &why, command, &place));
                }
                continue;
            }
            if let Some(layer) = level.and_then(|level| layers.get_mut(level)) {
                let origin =
                    Origin::File { path: path.clone(), line: entry.line, section: entry.section.clone() };
                layer
                    .entry(key)
                    .or_insert_with(|| Raw { texts: Vec::new(), origin })
                    .texts
                    .push(entry.value.clone());
            }
        }
        self.warnings.extend(exposed.into_iter().map(everybody_reads));
        Ok(layers)
    }

    /// Turns texts into values, adds defaults, and asks for what is missing.
    fn settings(
        mut self,
        raws: Layer,
        stanzas: Vec<String>,
        files: Vec<PathBuf>,
    ) -> Result<Settings, Failure> {
        let command = self.sources.command;
        let mut values: BTreeMap<Key, Setting> = BTreeMap::new();
        for (key, raw) in raws {
            let written = written(&key);
            let Lookup::Known(spec, _) = look_up(&written, Some(command.name)) else { continue };
            let applies = self.applies(spec);
            let texts: Vec<&str> = raw.texts.iter().map(String::as_str).collect();
            match value::parse(spec, &texts, matches!(raw.origin, Origin::File { .. })) {
                Ok(value) if applies => {
                    let setting = Setting { spec, key: key.clone(), value, origin: raw.origin };
                    if setting.origin == Origin::CommandLine && setting.hides_password() {
                        self.mistakes.push(mistake::password_in_argument(&written));
                    }
                    values.insert(key, setting);
                }
                Ok(_) => {}
                Err(why) => {
                    let place = raw.origin.place();
                    let text = texts.last().copied().unwrap_or("");
                    let mistake = mistake::bad_value(spec, &written, text, &why, command.name, &place);
                    if applies {
                        self.mistakes.push(mistake);
                    } else {
                        self.tolerate(mistake);
                    }
                }
            }
        }
        // All at once: whoever brings a long file along should not have to start walden once per line.
        self.stop_at_mistakes()?;
        for spec in options() {
            if !self.applies(spec) || (spec.name == "type" && self.sources.command.name == "config") {
                continue;
            }
            if let Some(text) = spec.default_value(command.name) {
                let indexes = indexes_in_use(spec, &values);
                for index in indexes.into_iter().filter(|index| !spec.only_first || *index == Some(1)) {
                    let key = Key { name: spec.name, index };
                    // Checked by a test: every default is a value of its option.
                    if !values.contains_key(&key)
                        && let Ok(value) = value::parse(spec, &[text], true)
                    {
                        values.insert(key.clone(), Setting { spec, key, value, origin: Origin::Default });
                    }
                }
            }
            let given = values.keys().any(|key| key.name == spec.name);
            if spec.required_by.contains(&command.name) && !given && !self.sources.for_showing {
                return Err(mistake::missing(spec, command.name, &stanzas));
            }
        }
        for setting in values.values().filter(|setting| SECRET_FILES.contains(&setting.key.name)) {
            if let super::Value::Path(path) = &setting.value
                && self.sources.files.readable_by_all(path)
            {
                self.warnings.push(everybody_reads(path));
            }
        }
        let stanza = values.get(&Key::plain("stanza")).map(|setting| setting.value.shown());
        if let Some(stanza) = &stanza
            && !stanzas.is_empty()
            && !stanzas.contains(stanza)
            && let Some(like) = nearest(stanza, stanzas.iter().map(String::as_str))
        {
            self.warnings.push(format!("the configuration has no section [{stanza}]; did you mean {like}?"));
        }
        Ok(Settings { command, values, warnings: self.warnings, files })
    }
}

/// Options that name a file with nothing in it but a secret.
const SECRET_FILES: &[&str] = &[
    "repo-cipher-pass-file",
    "repo-s3-key-secret-file",
    "repo-s3-profile-file",
    "repo-azure-key-file",
    "repo-gcs-key",
];

fn everybody_reads(path: &Path) -> String {
    let path = path.display();
    format!("{path} holds a secret and every user of this machine can read it; next: chmod o-rwx {path}")
}

/// The numbers for which an option gets its default: 1, and every one that some option of its group uses.
fn indexes_in_use(spec: &OptionSpec, values: &BTreeMap<Key, Setting>) -> Vec<Option<u16>> {
    if spec.group == super::table::Group::None {
        return vec![None];
    }
    let mut used: Vec<Option<u16>> =
        values.values().filter(|s| s.spec.group == spec.group).map(|s| s.key.index).collect();
    used.sort_unstable();
    used.dedup();
    if used.is_empty() {
        used.push(Some(1));
    }
    used
}

fn written(key: &Key) -> String {
    options()
        .find(|spec| spec.name == key.name)
        .map_or_else(|| key.name.to_owned(), |spec| spec.written(key.index))
}

/// Looks an option of the command line up, for `command`.
///
/// # Errors
/// When there is no such option, or it may not be given there. The value is never shown.
pub(crate) fn check_on_command_line(
    name: &str,
    command: &str,
) -> Result<(&'static OptionSpec, Key), Failure> {
    let place = Place::CommandLine;
    match look_up(name, Some(command)) {
        Lookup::Known(spec, _) if spec.places == Places::NotOnCommandLine => {
            Err(mistake::not_here(spec, name, &place))
        }
        Lookup::Known(spec, index) => Ok((spec, Key { name: spec.name, index })),
        Lookup::NeedsIndex(spec) => Err(mistake::needs_index(spec, name, &place)),
        Lookup::BadIndex(_) => Err(mistake::bad_index(name, &place)),
        Lookup::Unknown => Err(mistake::unknown(name, command, &place)),
    }
}

fn check_section(section: &str, place: &Place) -> Result<(), Failure> {
    let (stanza, command) = match section.split_once(':') {
        Some((stanza, command)) => (stanza, Some(command)),
        None => (section, None),
    };
    if stanza != "global" {
        if distance(stanza, "global") == 1 {
            return Err(mistake::almost_global(section, place));
        }
        if let Err(error) = stanza.parse::<crate::units::Stanza>() {
            return Err(mistake::bad_section(section, error.to_string(), place));
        }
    }
    match command {
        Some(command) if !commands().iter().any(|c| c.name == command && c.reads_configuration) => {
            Err(mistake::section_of_unknown_command(section, command, place))
        }
        _ => Ok(()),
    }
}

fn unreadable(path: &Path, what: &str, error: &io::Error, named: bool) -> Failure {
    let missing = error.kind() == io::ErrorKind::NotFound;
    let class = if missing { Class::Usage } else { Class::LocalFileSystem };
    let failure = Failure::new(class, format!("cannot read the {what} {}", path.display()))
        .because_text(error.to_string());
    if missing && named {
        failure.next("A file that is named must exist; without --config the default one may be missing.")
    } else {
        failure.next("Run walden as a user that may read it.")
    }
}

/// What the configuration files say, before it is judged.
#[derive(Default)]
struct ConfigurationFiles {
    entries: Vec<(PathBuf, ini::Entry)>,
    sections: Vec<(String, Place)>,
    problems: Vec<(PathBuf, usize, ini::Problem)>,
    paths: Vec<PathBuf>,
}

impl ConfigurationFiles {
    fn add(&mut self, path: PathBuf, contents: &[u8]) {
        let parsed = ini::parse(contents);
        self.entries.extend(parsed.entries.into_iter().map(|entry| (path.clone(), entry)));
        self.sections
            .extend(parsed.sections.into_iter().map(|(name, line)| (name, Place::File(path.clone(), line))));
        self.problems
            .extend(parsed.problems.into_iter().map(|(line, problem)| (path.clone(), line, problem)));
        self.paths.push(path);
    }

    /// The stanzas that have a section, sorted.
    fn stanzas(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .sections
            .iter()
            .map(|(section, _)| section.split(':').next().unwrap_or(section).to_owned())
            .filter(|name| name != "global" && distance(name, "global") > 1)
            .collect();
        names.sort();
        names.dedup();
        names
    }

    fn section_place(&self, stanza: &str) -> Option<Place> {
        let of = |section: &str| section.split(':').next() == Some(stanza);
        self.sections.iter().find(|(section, _)| of(section)).map(|(_, place)| place.clone())
    }
}
