//! What is written into `postgresql.auto.conf`, and which signal file stands beside it.
//!
//! An image carries settings of the server it was taken from: of a recovery, of a standby. Left there, a recovery
//! starts as a standby, stops at somebody's old target, or runs somebody's clean-up over their archive. So all of
//! them go, and where `postgresql.conf` has them too they are set to nothing here, which comes last and wins.

use super::conf;
use super::target::{Goal, Target};
use super::target_time::utc_text;
use crate::units::{Lsn, SegmentName, SystemIdentifier, TimelineId};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Settings that belong to one recovery or one standby, and what stands for "not set".
const OF_A_RECOVERY: &[(&str, &str)] = &[
    // In this order: PostgreSQL refuses two targets at once, so all that is emptied comes before what is set.
    ("recovery_target", ""),
    ("recovery_target_lsn", ""),
    ("recovery_target_name", ""),
    ("recovery_target_time", ""),
    ("recovery_target_xid", ""),
    ("recovery_target_inclusive", "on"),
    ("recovery_target_action", "pause"),
    ("recovery_target_timeline", "latest"),
    ("recovery_end_command", ""),
    ("archive_cleanup_command", ""),
    ("recovery_min_apply_delay", "0"),
    ("restore_command", ""),
    ("primary_conninfo", ""),
    ("primary_slot_name", ""),
];

/// Removed from the image and left unset: of versions that are past (an error in later ones), or of an earlier
/// restore.
const REMOVED: &[&str] = &["promote_trigger_file", "trigger_file", "standby_mode", "recovery_prefetch"];

/// The file that says how to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// `recovery.signal`
    Recovery,
    /// `standby.signal`
    Standby,
    /// Neither: from the WAL in `pg_wal`.
    None,
    /// What the image has.
    AsInImage,
}

impl Signal {
    /// The file to make.
    #[must_use]
    pub const fn file(self) -> Option<&'static str> {
        match self {
            Self::Recovery => Some("recovery.signal"),
            Self::Standby => Some("standby.signal"),
            Self::None | Self::AsInImage => None,
        }
    }
}

/// The `restore_command` to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GetCommand {
    /// The program, absolute.
    pub program: PathBuf,
    /// Configuration, stanza and repositories, as this run has them: `--config=/etc/walden/walden.conf`.
    pub options: Vec<OsString>,
    /// Whose WAL.
    pub system: SystemIdentifier,
    /// The timeline that recovery is to end on; a standby has none, it follows.
    pub target_timeline: Option<TimelineId>,
    /// The last segment that was in the archive when the restore was planned.
    pub known_end: Option<SegmentName>,
    /// Where recovery stops, when the last segment that it needs is held only in part.
    pub needed_to: Option<Lsn>,
}

impl GetCommand {
    /// The command as the server runs it through a shell, with `%f` and `%p` still in it.
    #[must_use]
    pub fn text(&self) -> Vec<u8> {
        let mut words: Vec<Vec<u8>> = vec![self.program.as_os_str().as_bytes().to_vec()];
        words.extend(self.options.iter().map(|option| option.as_bytes().to_vec()));
        words.push(b"archive-get".to_vec());
        words.push(format!("--system-id={}", self.system).into_bytes());
        if let Some(timeline) = self.target_timeline {
            words.push(format!("--target-timeline={timeline}").into_bytes());
        }
        if let Some(end) = self.known_end {
            words.push(format!("--known-end={end}").into_bytes());
        }
        if let Some(to) = self.needed_to {
            words.push(format!("--needed-to={to}").into_bytes());
        }
        let mut text = Vec::new();
        for word in words {
            text.extend(conf::without_placeholders(&conf::shell_word(&word)));
            text.push(b' ');
        }
        text.extend(b"%f \"%p\"");
        text
    }
}

/// One setting to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Vec<u8>,
}

/// What a restore does to the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
    /// The signal file.
    pub signal: Signal,
    /// What is set, in this order.
    pub settings: Vec<Setting>,
}

/// A `--recovery-option` that cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OptionError {
    /// Not the name of a setting.
    BadName(String),
    /// Has an option of its own.
    HasItsOwn {
        /// The setting.
        name: String,
        /// What to use.
        option: &'static str,
    },
    /// Means nothing where the image's settings are kept.
    WithPreserve,
    /// A value no configuration file can hold.
    BadValue(String),
}

impl fmt::Display for OptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadName(name) => write!(f, "\"{name}\" is not the name of a PostgreSQL setting"),
            Self::HasItsOwn { name, option } => write!(f, "{name} is set by {option}"),
            Self::WithPreserve => f.write_str("--recovery-option means nothing with --type=preserve"),
            Self::BadValue(name) => write!(f, "the value for {name} contains a zero byte"),
        }
    }
}

impl std::error::Error for OptionError {}

fn check_option(name: &str, value: &str) -> Result<String, OptionError> {
    // As in pgBackRest, both spellings are taken.
    let name = name.replace('-', "_").to_ascii_lowercase();
    let fits = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b == b'_')
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'.'));
    if !fits || name.len() > 63 {
        return Err(OptionError::BadName(name));
    }
    if value.contains('\0') {
        return Err(OptionError::BadValue(name));
    }
    let own = match name.as_str() {
        "recovery_target" => "--type=immediate",
        "recovery_target_time" => "--type=time and --target",
        "recovery_target_xid" => "--type=xid and --target",
        "recovery_target_lsn" => "--type=lsn and --target",
        "recovery_target_name" => "--type=name and --target",
        "recovery_target_inclusive" => "--target-exclusive",
        "recovery_target_action" => "--target-action",
        "recovery_target_timeline" => "--target-timeline",
        "archive_mode" => "--archive-mode",
        _ => return Ok(name),
    };
    Err(OptionError::HasItsOwn { name, option: own })
}

impl Configuration {
    /// What to write for a target. `timeline` is the resolved one; `last_record` is where a standby's backup ends, see
    /// [`super::reach::last_record`]; `archiving_off` writes `archive_mode = off`.
    ///
    /// # Errors
    /// When an option of the user's cannot be taken.
    pub fn for_target(
        target: &Target,
        timeline: TimelineId,
        command: &GetCommand,
        last_record: Option<Lsn>,
        archiving_off: bool,
        options: &[(String, String)],
    ) -> Result<Self, OptionError> {
        let mut settings: Vec<Setting> = Vec::new();
        let mut set = |name: &str, value: &[u8]| {
            settings.retain(|setting: &Setting| setting.name != name);
            settings.push(Setting { name: name.to_owned(), value: value.to_owned() });
        };
        let signal = match &target.goal {
            Goal::Preserve if !options.is_empty() => return Err(OptionError::WithPreserve),
            Goal::Preserve => Signal::AsInImage,
            Goal::None => Signal::None,
            Goal::Standby => Signal::Standby,
            _ => Signal::Recovery,
        };
        if matches!(signal, Signal::Recovery | Signal::Standby) {
            set("restore_command", &command.text());
        }
        match &target.goal {
            Goal::Consistent => match last_record {
                Some(lsn) => set("recovery_target_lsn", lsn.to_string().as_bytes()),
                None => set("recovery_target", b"immediate"),
            },
            Goal::Time(time) => set("recovery_target_time", format!("{}+00", utc_text(time.at)).as_bytes()),
            Goal::Xid(xid) => set("recovery_target_xid", xid.to_string().as_bytes()),
            Goal::Lsn(lsn) => set("recovery_target_lsn", lsn.to_string().as_bytes()),
            Goal::Name(name) => set("recovery_target_name", name.as_bytes()),
            Goal::EndOfArchive | Goal::Standby | Goal::Preserve | Goal::None => {}
        }
        if matches!(target.goal, Goal::Time(_) | Goal::Xid(_) | Goal::Lsn(_)) && target.exclusive {
            set("recovery_target_inclusive", b"off");
        }
        match signal {
            // A number: "latest" would let a branch that is archived meanwhile change the target.
            Signal::Recovery => set("recovery_target_timeline", timeline.to_string().as_bytes()),
            Signal::Standby => {
                let following = match target.timeline {
                    super::target::TargetTimeline::Latest => "latest".to_owned(),
                    _ => timeline.to_string(),
                };
                set("recovery_target_timeline", following.as_bytes());
                // Both, or a backup of a former standby asks for a slot that is not there, for ever.
                set("primary_conninfo", b"");
                set("primary_slot_name", b"");
            }
            Signal::None | Signal::AsInImage => {}
        }
        if let Some(action) = target.action {
            set("recovery_target_action", action.as_str().as_bytes());
        }
        if archiving_off {
            set("archive_mode", b"off");
        }
        for (name, value) in options {
            set(&check_option(name, value)?, value.as_bytes());
        }
        Ok(Self { signal, settings })
    }

    /// Sets one more where a signal file makes the server recover, unless somebody has set it.
    pub fn set_if_absent(&mut self, name: &str, value: &str) {
        let recovers = matches!(self.signal, Signal::Recovery | Signal::Standby);
        if recovers && self.settings.iter().all(|setting| setting.name != name) {
            self.settings.push(Setting { name: name.to_owned(), value: value.as_bytes().to_vec() });
        }
    }

    /// The value that is set, for the plan.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<String> {
        let setting = self.settings.iter().find(|setting| setting.name == name)?;
        Some(String::from_utf8_lossy(&setting.value).into_owned())
    }

    /// The new `postgresql.auto.conf`: the image's without what belongs to a recovery, then what is set here.
    /// `main` is the image's `postgresql.conf`: what it sets of a recovery is undone here, all of it where it
    /// includes other files, which nobody followed.
    #[must_use]
    pub fn rewrite(&self, image: &[u8], main: &[u8], headline: &str) -> Vec<u8> {
        if self.signal == Signal::AsInImage && self.settings.is_empty() {
            return image.to_vec();
        }
        let ours: BTreeSet<&str> = self.settings.iter().map(|setting| setting.name.as_str()).collect();
        let of_recovery =
            |name: &str| OF_A_RECOVERY.iter().any(|(known, _)| *known == name) || REMOVED.contains(&name);
        let goes =
            |name: &str| ours.contains(name) || (self.signal != Signal::AsInImage && of_recovery(name));
        let mut text = Vec::new();
        for line in image.split_inclusive(|b| *b == b'\n') {
            // Lines of an earlier restore go with what they spoke of.
            if line.starts_with(HEADLINE.as_bytes()) || conf::line(line).is_some_and(|line| goes(&line.name))
            {
                continue;
            }
            text.extend(line);
        }
        if text.last().is_some_and(|last| *last != b'\n') {
            text.push(b'\n');
        }
        let mut undone: Vec<Setting> = Vec::new();
        if self.signal != Signal::AsInImage {
            let named: BTreeSet<String> =
                main.split(|b| *b == b'\n').filter_map(conf::line).map(|line| line.name).collect();
            let unknown = named.iter().any(|name| name.starts_with("include"));
            for (name, nothing) in OF_A_RECOVERY {
                if (unknown || named.contains(*name)) && !ours.contains(name) {
                    undone.push(Setting { name: (*name).to_owned(), value: nothing.as_bytes().to_vec() });
                }
            }
        }
        if undone.is_empty() && self.settings.is_empty() {
            return text;
        }
        text.extend(HEADLINE.as_bytes());
        text.extend(headline.replace(['\n', '\r'], " ").as_bytes());
        text.push(b'\n');
        for setting in undone.iter().chain(&self.settings) {
            text.extend(setting.name.as_bytes());
            text.extend(b" = ");
            text.extend(conf::quoted(&setting.value));
            text.push(b'\n');
        }
        text
    }
}

/// How our comment begins.
const HEADLINE: &str = "# Set by walden restore: ";

#[cfg(test)]
mod tests;
