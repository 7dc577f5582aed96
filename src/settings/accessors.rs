//! Settings as the typed values the commands need (`typed.rs`).
//!
//! The getters by name are private to this file: a name that is not in the table, or is of another kind,
//! is a bug that the test at the end finds.

use super::typed::{
    ArchiveGetSettings, ArchiveMode, BackupSettings, Compression, ExpireSettings, IfUnsure, LogLevel, Output,
    ProgressStyle, RepositorySettings, RestoreSettings, RestoreType, RetentionSettings, ServerSettings,
    StanzaDeleteSettings, TargetAction, VerifySettings,
};
use super::{Cipher, Form, Given, KeySource, Origin, Setting, Settings, Value};
use crate::failure::{Class, Failure};
use crate::units::{ByteCount, SegmentName, Stanza};
use std::path::{Path, PathBuf};
use std::time::Duration;

impl Settings {
    fn value(&self, name: &'static str) -> Option<&Value> {
        self.get(name).map(|setting| &setting.value)
    }

    fn boolean(&self, name: &'static str) -> bool {
        matches!(self.value(name), Some(Value::Boolean(true)))
    }

    fn integer(&self, name: &'static str) -> Option<i64> {
        match self.value(name) {
            Some(Value::Integer(number)) => Some(*number),
            _ => None,
        }
    }

    fn size(&self, name: &'static str) -> Option<ByteCount> {
        match self.value(name) {
            Some(Value::Size(size)) => Some(*size),
            _ => None,
        }
    }

    fn duration(&self, name: &'static str) -> Option<Duration> {
        match self.value(name) {
            Some(Value::Duration(length)) => Some(*length),
            _ => None,
        }
    }

    fn text(&self, name: &'static str) -> Option<&str> {
        text_of(self.value(name)?)
    }

    fn path(&self, name: &'static str) -> Option<&Path> {
        path_of(self.value(name)?)
    }

    fn map(&self, name: &'static str) -> Vec<(String, String)> {
        match self.value(name) {
            Some(Value::Map(pairs)) => pairs.clone(),
            _ => Vec::new(),
        }
    }

    /// The stanza.
    ///
    /// # Errors
    /// When none is named and the configuration does not have exactly one.
    pub fn stanza(&self) -> Result<&Stanza, Failure> {
        match self.value("stanza") {
            Some(Value::Stanza(stanza)) => Ok(stanza),
            _ => Err(Failure::new(Class::Usage, format!("{} needs the option stanza", self.command().name))
                .next("Name it: --stanza=NAME.")),
        }
    }

    /// The stanza if this run was told one; not the only one of the configuration (`info` shows all).
    #[must_use]
    pub fn named_stanza(&self) -> Option<&Stanza> {
        let setting = self.get("stanza")?;
        match (&setting.value, &setting.origin) {
            (Value::Stanza(stanza), Origin::CommandLine | Origin::Environment(_)) => Some(stanza),
            _ => None,
        }
    }

    /// The repositories this run uses, by number: all that are configured, or the one that `--repo` names.
    ///
    /// # Errors
    /// When `--repo` names one that is not configured, or one has no path.
    pub fn repositories(&self) -> Result<Vec<RepositorySettings>, Failure> {
        let mut indexes: Vec<u16> = self
            .all()
            .filter(|setting| setting.spec.group == super::table::Group::Repository)
            .filter_map(|setting| setting.key.index)
            .collect();
        indexes.sort_unstable();
        indexes.dedup();
        let wanted = self.integer("repo");
        if let Some(wanted) = wanted {
            let configured: Vec<String> = indexes.iter().map(ToString::to_string).collect();
            indexes.retain(|index| i64::from(*index) == wanted);
            if indexes.is_empty() {
                return Err(Failure::new(Class::Usage, format!("repo{wanted} is not configured"))
                    .because_text(format!(
                        "--repo={wanted} was given, and there is {}",
                        configured.join(", ")
                    ))
                    .next(format!("Set repo{wanted}-path, or name one that there is.")));
            }
        }
        indexes.into_iter().map(|index| self.repository_settings(index)).collect()
    }

    /// The repository a backup is written to: the one that `--repo` names, else that of the lowest number.
    ///
    /// # Errors
    /// As [`Settings::repositories`].
    pub fn repository_to_write(&self) -> Result<RepositorySettings, Failure> {
        self.repositories()?
            .into_iter()
            .next()
            .ok_or_else(|| Failure::new(Class::Usage, "no repository is configured"))
    }

    /// All configured repositories, whatever `--repo` says: where WAL goes.
    ///
    /// # Errors
    /// When one has no path.
    pub fn all_repositories(&self) -> Result<Vec<RepositorySettings>, Failure> {
        let mut all = self.clone();
        all.values.remove(&super::Key::plain("repo"));
        all.repositories()
    }

    fn repository_settings(&self, index: u16) -> Result<RepositorySettings, Failure> {
        let value = |name| self.get_indexed(name, index).map(|setting| &setting.value);
        let kind = self.repository_kind(index)?;
        let secret = match value("repo-cipher-pass") {
            Some(Value::Secret(secret)) => Some(KeySource::Given(secret.clone())),
            _ => None,
        };
        let file = value("repo-cipher-pass-file").and_then(path_of).map(|p| KeySource::File(p.to_owned()));
        let command =
            value("repo-cipher-pass-command").and_then(text_of).map(|c| KeySource::Command(c.to_owned()));
        let mut sources: Vec<KeySource> = [secret, file, command].into_iter().flatten().collect();
        if sources.len() > 1 {
            return Err(Failure::new(
                Class::Usage,
                format!("repo{index} has more than one source for its key"),
            )
            .because_text("repoN-cipher-pass, -cipher-pass-file and -cipher-pass-command exclude each other")
            .next(format!("`walden config` shows where each comes from. Keep one for repo{index}.")));
        }
        let key = sources.pop();
        let key_file = match &key {
            Some(KeySource::File(path)) => Some(path.clone()),
            Some(KeySource::Given(_)) => match self.get_indexed("repo-cipher-pass", index) {
                Some(Setting { origin: Origin::File { path, .. }, .. }) => Some(path.clone()),
                _ => None,
            },
            _ => None,
        };
        let cipher = match value("repo-cipher-type").and_then(text_of) {
            Some("aes-256-gcm") => Cipher::Aes256Gcm(key.unwrap_or(KeySource::Missing { repository: index })),
            // A key without a cipher is a forgotten line, and its result would be backups in the clear.
            _ if key.is_some() => {
                return Err(Failure::new(
                    Class::Usage,
                    format!("repo{index} has a key but is not encrypted"),
                )
                .because_text(format!("repo{index}-cipher-type is none"))
                .next(format!("Set repo{index}-cipher-type=aes-256-gcm, or remove the key.")));
            }
            _ => Cipher::None,
        };
        Ok(RepositorySettings { index, kind, cipher, key_file })
    }

    /// What of repository `index` stays.
    #[must_use]
    pub fn retention(&self, index: u16) -> RetentionSettings {
        let value = |name| self.get_indexed(name, index).map(|setting| &setting.value);
        let number = match value("repo-retention-full") {
            Some(Value::Integer(number)) => u32::try_from(*number).ok(),
            _ => None,
        };
        let in_days = value("repo-retention-full-type").and_then(text_of) == Some("time");
        let days = number.filter(|_| in_days).map(|days| Duration::from_secs(u64::from(days) * 86_400));
        let window = match value("repo-keep-window") {
            Some(Value::Duration(window)) => Some(*window),
            _ => None,
        };
        RetentionSettings { full: number.filter(|_| !in_days), window: window.max(days) }
    }

    /// How backups are removed.
    #[must_use]
    pub fn expire(&self) -> ExpireSettings {
        ExpireSettings {
            set: self.set().map(str::to_owned),
            dry_run: self.boolean("dry-run"),
            delay: self.duration("expire-delay").unwrap_or(Duration::from_secs(86_400)),
            stuck_after: self.duration("expire-stuck-after").unwrap_or(Duration::from_secs(3 * 86_400)),
            process_max: self.process_max(),
        }
    }

    /// What `stanza-delete` is asked for.
    #[must_use]
    pub fn stanza_delete(&self) -> StanzaDeleteSettings {
        StanzaDeleteSettings {
            dry_run: self.boolean("dry-run"),
            yes: self.boolean("yes"),
            force: self.boolean("force"),
            process_max: self.process_max(),
        }
    }

    /// Whether a backup is followed by an expire.
    #[must_use]
    pub fn expire_auto(&self) -> bool {
        self.boolean("expire-auto")
    }

    /// How to reach server `index`. Every field may be empty: libpq's defaults lead somewhere.
    #[must_use]
    pub fn server(&self, index: u16) -> ServerSettings {
        let value = |name| self.get_indexed(name, index).map(|setting| &setting.value);
        let text = |name| value(name).and_then(text_of).map(str::to_owned);
        let path = |name| value(name).and_then(path_of).map(Path::to_owned);
        ServerSettings {
            index,
            path: path("pg-path"),
            host: text("pg-host"),
            port: match value("pg-port") {
                Some(Value::Integer(port)) => u16::try_from(*port).ok(),
                _ => None,
            },
            socket_path: path("pg-socket-path"),
            user: text("pg-user"),
            database: text("pg-database"),
            conninfo: text("pg-conninfo"),
            timeout: self.duration("db-timeout").unwrap_or(Duration::from_secs(1800)),
            io_timeout: self.io_timeout(),
        }
    }

    /// How data is compressed.
    #[must_use]
    pub fn compression(&self) -> Compression {
        match (self.text("compress-type"), self.integer("compress-level")) {
            (Some("none"), _) => Compression::None,
            (_, level) => Compression::Zstd(level.and_then(|l| i32::try_from(l).ok()).unwrap_or(1)),
        }
    }

    /// Whether what was encoded is decoded again before it is stored.
    #[must_use]
    pub fn verify_writes(&self) -> bool {
        self.boolean("verify-writes")
    }

    /// The number of workers: as told, else one for each processor, at most 8.
    #[must_use]
    pub fn process_max(&self) -> usize {
        self.integer("process-max")
            .and_then(|n| usize::try_from(n).ok())
            .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(8))
    }

    /// Where what does not fit in memory goes.
    #[must_use]
    pub fn spool_path(&self) -> PathBuf {
        self.path("spool-path").unwrap_or(Path::new("/var/tmp")).to_owned()
    }

    /// Where lock files go.
    #[must_use]
    pub fn lock_path(&self) -> PathBuf {
        self.path("lock-path").unwrap_or(Path::new("/tmp/walden")).to_owned()
    }

    /// How long a peer may be silent.
    #[must_use]
    pub fn io_timeout(&self) -> Duration {
        self.duration("io-timeout").unwrap_or(Duration::from_secs(60))
    }

    /// What a backup is taken with.
    #[must_use]
    pub fn backup(&self) -> BackupSettings {
        BackupSettings {
            start_fast: self.boolean("start-fast"),
            max_rate: self.size("max-rate"),
            archive_check: self.boolean("archive-check"),
            fail_on_page_errors: self.get("page-errors").is_some_and(|one| one.value.shown() == "fail"),
            archive_timeout: self.duration("archive-timeout").unwrap_or(Duration::from_secs(60)),
            annotations: self.map("annotation"),
            pack_size: self.size("pack-size").unwrap_or(ByteCount::mib(16)),
            verify_writes: self.verify_writes(),
            compression: self.compression(),
            process_max: self.process_max(),
            spool_path: self.spool_path(),
        }
    }

    /// What `archive-get` knows beside its arguments.
    ///
    /// # Errors
    /// When the system identifier, the segment or the timeline is not one.
    pub fn archive_get(&self) -> Result<ArchiveGetSettings, Failure> {
        Ok(ArchiveGetSettings {
            system_id: self.parsed("system-id")?,
            target_timeline: self.target_timeline()?,
            known_end: self.parsed("known-end")?,
            needed_to: self.parsed("needed-to")?,
            if_unsure: match self.text("if-unsure") {
                Some("stop") => IfUnsure::Stop,
                Some("standby") => IfUnsure::Standby,
                _ => IfUnsure::Auto,
            },
        })
    }

    fn parsed<T: std::str::FromStr<Err: std::error::Error>>(
        &self,
        name: &'static str,
    ) -> Result<Option<T>, Failure> {
        let Some(text) = self.text(name) else { return Ok(None) };
        text.parse()
            .map(Some)
            .map_err(|error| Failure::new(Class::Usage, format!("cannot use --{name}={text}")).because(error))
    }

    fn target_timeline(&self) -> Result<Option<String>, Failure> {
        let Some(text) = self.text("target-timeline") else { return Ok(None) };
        if !matches!(text, "latest" | "current") {
            text.parse::<crate::units::TimelineId>().map_err(|error| {
                Failure::new(Class::Usage, format!("cannot use --target-timeline={text}"))
                    .because(error)
                    .next("Give a number in decimal, latest, or current.")
            })?;
        }
        Ok(Some(text.to_owned()))
    }

    /// What a restore is made with.
    ///
    /// # Errors
    /// When type and target do not go together, or there is no directory to restore into.
    pub fn restore(&self) -> Result<RestoreSettings, Failure> {
        let word = self.text("type").unwrap_or("default");
        let kind = match word {
            "immediate" => RestoreType::Immediate,
            "time" => RestoreType::Time,
            "xid" => RestoreType::Xid,
            "lsn" => RestoreType::Lsn,
            "name" => RestoreType::Name,
            "standby" => RestoreType::Standby,
            "preserve" => RestoreType::Preserve,
            "none" => RestoreType::None,
            _ => RestoreType::Default,
        };
        let target = self.text("target").map(str::to_owned);
        let needs =
            matches!(kind, RestoreType::Time | RestoreType::Xid | RestoreType::Lsn | RestoreType::Name);
        match (&target, needs) {
            (None, true) => {
                return Err(Failure::new(Class::Usage, format!("--type={word} needs a --target"))
                    .next("`walden help restore target` shows how targets are written."));
            }
            (Some(target), false) => {
                return Err(Failure::new(
                    Class::Usage,
                    format!("--target={target} has no meaning with --type={word}"),
                )
                .next("Say what the target is: --type=time, xid, lsn or name."));
            }
            _ => {}
        }
        let target_exclusive = self.boolean("target-exclusive");
        if target_exclusive && !matches!(kind, RestoreType::Time | RestoreType::Xid | RestoreType::Lsn) {
            return Err(Failure::new(
                Class::Usage,
                format!("--target-exclusive has no meaning with --type={word}"),
            )
            .because_text("only a time, a transaction or a position can be stopped before"));
        }
        let path = self.get_indexed("pg-path", 1).and_then(|setting| path_of(&setting.value));
        let path = path.ok_or_else(|| {
            Failure::new(Class::Usage, "restore needs the option pg1-path")
                .next("Name the directory: --pg1-path=DIRECTORY.")
        })?;
        Ok(RestoreSettings {
            kind,
            target,
            target_exclusive,
            target_action: match self.text("target-action") {
                Some("promote") => TargetAction::Promote,
                Some("shutdown") => TargetAction::Shutdown,
                _ => TargetAction::Pause,
            },
            target_timeline: self.target_timeline()?,
            set: self.set().map(str::to_owned),
            wal_directory: self.path("wal-dir").map(Path::to_owned),
            tablespace_map: self.map("tablespace-map"),
            tablespace_map_all: self.path("tablespace-map-all").map(Path::to_owned),
            recovery_options: self.map("recovery-option"),
            archive_mode: match self.text("archive-mode") {
                Some("preserve") => ArchiveMode::Preserve,
                Some("off") => ArchiveMode::Off,
                _ => ArchiveMode::Auto,
            },
            owner: self.text("owner").map(str::to_owned),
            force: self.boolean("force"),
            dry_run: self.boolean("dry-run"),
            path: path.to_owned(),
            process_max: self.process_max(),
            spool_path: self.spool_path(),
        })
    }

    /// The backup that was named (`--set`): an id or a beginning of one.
    #[must_use]
    pub fn set(&self) -> Option<&str> {
        self.text("set")
    }

    /// Notes on a backup, in the order given; an empty value removes one.
    #[must_use]
    pub fn annotations(&self) -> Vec<(String, String)> {
        self.map("annotation")
    }

    /// Why a backup is pinned.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        self.text("reason")
    }

    /// Until when it is pinned, as it was given.
    #[must_use]
    pub fn until(&self) -> Option<&str> {
        self.text("until")
    }

    /// What is verified, and how.
    ///
    /// # Errors
    /// When `--wal` is no stretch of WAL, or `--set` is given as well.
    pub fn verify(&self) -> Result<VerifySettings, Failure> {
        let wal = self.text("wal").map(segments).transpose()?;
        if wal.is_some() && self.set().is_some() {
            return Err(Failure::new(Class::Usage, "cannot verify --set and --wal at once")
                .next("Give one of them: --set reads the WAL of its backup, too."));
        }
        Ok(VerifySettings {
            set: self.set().map(str::to_owned),
            wal,
            max_rate: self.size("max-rate"),
            process_max: self.process_max(),
            spool_path: self.spool_path(),
        })
    }

    /// Whether `repo-ls` lists everything below the path.
    #[must_use]
    pub fn recurse(&self) -> bool {
        self.boolean("recurse")
    }

    /// The directory for all manual pages, if they are wanted.
    #[must_use]
    pub fn output_directory(&self) -> Option<&Path> {
        self.path("output-dir")
    }

    /// Text or JSON.
    #[must_use]
    pub fn output(&self) -> Output {
        if self.text("output") == Some("json") { Output::Json } else { Output::Text }
    }

    /// How progress is shown.
    #[must_use]
    pub fn progress(&self) -> ProgressStyle {
        match self.text("progress") {
            Some("bar") => ProgressStyle::Bar,
            Some("lines") => ProgressStyle::Lines,
            Some("none") => ProgressStyle::None,
            _ => ProgressStyle::Auto,
        }
    }

    /// How much is said on stderr.
    #[must_use]
    pub fn console_level(&self) -> LogLevel {
        self.text("log-level-console").map_or(LogLevel::Info, LogLevel::from_word)
    }

    /// How much is written to the log file.
    #[must_use]
    pub fn file_level(&self) -> LogLevel {
        self.text("log-level-file").map_or(LogLevel::Off, LogLevel::from_word)
    }

    /// The directory of log files, and whether somebody asked for it.
    #[must_use]
    pub fn log_path(&self) -> Option<(PathBuf, bool)> {
        let setting = self.get("log-path")?;
        Some((path_of(&setting.value)?.to_owned(), setting.origin != Origin::Default))
    }

    /// What a command line must repeat so that another run finds the same stanza and repositories without
    /// this run's arguments and environment (`restore_command`). Paths are absolute. Secrets are not in it:
    /// see [`Settings::secrets_from_environment`].
    #[must_use]
    pub fn to_repeat(&self) -> Vec<Given> {
        let mut repeated = Vec::new();
        for setting in self.all() {
            let concerns =
                matches!(setting.key.name, "config" | "config-path" | "config-include-path" | "stanza")
                    || setting.spec.group == super::table::Group::Repository;
            let from_run = matches!(setting.origin, Origin::CommandLine | Origin::Environment(_));
            // The stanza always: the file may get a second one before the server asks.
            if !concerns || setting.spec.secret || !(from_run || setting.key.name == "stanza") {
                continue;
            }
            let text = match &setting.value {
                Value::Path(path) => {
                    std::path::absolute(path).unwrap_or_else(|_| path.clone()).display().to_string()
                }
                value => value.shown(),
            };
            repeated.push(Given { name: setting.name(), form: Form::Set(text) });
        }
        repeated
    }

    /// Environment variables of this run that hold secrets, which a server will not have.
    #[must_use]
    pub fn secrets_from_environment(&self) -> Vec<String> {
        self.all()
            .filter(|setting| setting.spec.secret)
            .filter_map(|setting| match &setting.origin {
                Origin::Environment(name) => Some(name.clone()),
                _ => None,
            })
            .collect()
    }
}

pub(super) fn text_of(value: &Value) -> Option<&str> {
    match value {
        Value::Text(text) => Some(text),
        _ => None,
    }
}

pub(super) fn path_of(value: &Value) -> Option<&Path> {
    match value {
        Value::Path(path) => Some(path),
        _ => None,
    }
}

/// `FIRST` or `FIRST..LAST`, of one timeline.
fn segments(text: &str) -> Result<(SegmentName, SegmentName), Failure> {
    let refuse = || {
        Failure::new(Class::Usage, format!("cannot use --wal={text}"))
            .next("Give the name of a segment, or FIRST..LAST of one timeline.")
    };
    let (first, last) = text.split_once("..").unwrap_or((text, text));
    let parse = |name: &str| name.parse::<SegmentName>().map_err(|error| refuse().because(error));
    let (first, last) = (parse(first)?, parse(last)?);
    if first.timeline() != last.timeline() || first > last {
        return Err(refuse().because_text("the last segment must follow the first on its timeline"));
    }
    Ok((first, last))
}

#[cfg(test)]
mod tests {
    use super::super::table::{Kind, options};

    #[test]
    fn every_name_asked_for_is_in_the_table_with_that_kind() {
        let source = include_str!("accessors.rs");
        let fits = |getter: &str, kind: &Kind| match getter {
            "boolean" => matches!(kind, Kind::Boolean),
            "integer" => matches!(kind, Kind::Integer(..)),
            "size" => matches!(kind, Kind::Size(..)),
            "duration" => matches!(kind, Kind::Duration(..)),
            "text" | "parsed" => matches!(kind, Kind::Text | Kind::Choice(..)),
            "path" => matches!(kind, Kind::Path),
            "map" => matches!(kind, Kind::Map),
            _ => true,
        };
        let mut asked = 0;
        for getter in ["boolean", "integer", "size", "duration", "text", "path", "map", "parsed"] {
            for part in source.split(&format!("self.{getter}(\"")).skip(1) {
                let name = part.split('"').next().unwrap();
                let mut meant = options().filter(|spec| spec.name == name);
                assert!(meant.clone().next().is_some(), "{name} is not in the table");
                assert!(meant.all(|spec| fits(getter, &spec.kind)), "{name} is not a {getter}");
                asked += 1;
            }
        }
        assert!(asked > 25);
    }
}
