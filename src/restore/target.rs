//! What a person wants to go back to: the target and what to do there.

use super::target_time::{self, Here, TargetTime, TargetTimeError};
use crate::units::{Lsn, TimelineId};
use std::fmt;
use std::str::FromStr;

/// `--type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetType {
    /// To the end of the archive.
    Default,
    /// To where the backup is consistent, and no further.
    Immediate,
    /// To a moment.
    Time,
    /// To a transaction.
    Xid,
    /// To a place in the WAL.
    Lsn,
    /// To a named restore point.
    Name,
    /// Never ends: a standby.
    Standby,
    /// With the settings and signals that the image carries.
    Preserve,
    /// Only the backup itself, with its own WAL.
    None,
}

impl TargetType {
    /// Every type with its name.
    pub const ALL: &'static [(Self, &'static str)] = &[
        (Self::Default, "default"),
        (Self::Immediate, "immediate"),
        (Self::Time, "time"),
        (Self::Xid, "xid"),
        (Self::Lsn, "lsn"),
        (Self::Name, "name"),
        (Self::Standby, "standby"),
        (Self::Preserve, "preserve"),
        (Self::None, "none"),
    ];

    /// The name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(kind, _)| *kind == self).map_or("", |(_, name)| name)
    }
}

impl fmt::Display for TargetType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for TargetType {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        Self::ALL
            .iter()
            .find(|(_, name)| *name == text)
            .map(|(kind, _)| *kind)
            .ok_or_else(|| TargetError::UnknownType(text.to_owned()))
    }
}

/// `--target-action`: what the server does when it has reached the target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TargetAction {
    /// It waits, open for reading, until somebody decides.
    #[default]
    Pause,
    /// It opens for writing on a new timeline.
    Promote,
    /// It stops.
    Shutdown,
}

impl TargetAction {
    /// The name, which is PostgreSQL's too.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Promote => "promote",
            Self::Shutdown => "shutdown",
        }
    }
}

impl FromStr for TargetAction {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        match text {
            "pause" => Ok(Self::Pause),
            "promote" => Ok(Self::Promote),
            "shutdown" => Ok(Self::Shutdown),
            _ => Err(TargetError::UnknownAction(text.to_owned())),
        }
    }
}

/// `--target-timeline`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TargetTimeline {
    /// The newest that descends from the backup's.
    #[default]
    Latest,
    /// The backup's own.
    Current,
    /// This one.
    Number(TimelineId),
}

impl FromStr for TargetTimeline {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        match text {
            "latest" => Ok(Self::Latest),
            "current" => Ok(Self::Current),
            // PostgreSQL's own setting takes hexadecimal too, and file names carry it: 0x1A.
            hex if hex.starts_with("0x") => u32::from_str_radix(&hex[2..], 16)
                .ok()
                .filter(|_| hex[2..].bytes().all(|b| b.is_ascii_hexdigit()))
                .and_then(TimelineId::new)
                .map(Self::Number)
                .ok_or_else(|| TargetError::BadTimeline(text.to_owned())),
            decimal => {
                decimal.parse().map(Self::Number).map_err(|_| TargetError::BadTimeline(text.to_owned()))
            }
        }
    }
}

/// Where recovery ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Goal {
    /// `--type=default`
    EndOfArchive,
    /// `--type=immediate`
    Consistent,
    /// `--type=time`
    Time(TargetTime),
    /// `--type=xid`; with an epoch where one was written.
    Xid(u64),
    /// `--type=lsn`
    Lsn(Lsn),
    /// `--type=name`
    Name(String),
    /// `--type=standby`
    Standby,
    /// `--type=preserve`
    Preserve,
    /// `--type=none`
    None,
}

impl Goal {
    /// The `--type` that asked for it.
    #[must_use]
    pub const fn kind(&self) -> TargetType {
        match self {
            Self::EndOfArchive => TargetType::Default,
            Self::Consistent => TargetType::Immediate,
            Self::Time(_) => TargetType::Time,
            Self::Xid(_) => TargetType::Xid,
            Self::Lsn(_) => TargetType::Lsn,
            Self::Name(_) => TargetType::Name,
            Self::Standby => TargetType::Standby,
            Self::Preserve => TargetType::Preserve,
            Self::None => TargetType::None,
        }
    }
}

/// Everything that was asked about the target, checked against itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Where recovery ends.
    pub goal: Goal,
    /// Stop just before it rather than just after.
    pub exclusive: bool,
    /// What happens there; `None` where nothing is reached.
    pub action: Option<TargetAction>,
    /// On which timeline.
    pub timeline: TargetTimeline,
}

/// The options as they were written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked<'a> {
    /// `--type`
    pub kind: Option<TargetType>,
    /// `--target`
    pub target: Option<&'a str>,
    /// `--target-exclusive`
    pub exclusive: bool,
    /// `--target-action`
    pub action: Option<TargetAction>,
    /// `--target-timeline`
    pub timeline: Option<TargetTimeline>,
}

/// Why the options do not say a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetError {
    /// No such `--type`.
    UnknownType(String),
    /// No such `--target-action`.
    UnknownAction(String),
    /// Not a timeline.
    BadTimeline(String),
    /// This type needs a `--target`.
    TargetMissing(TargetType),
    /// `--target` without a type that takes one.
    TargetWithoutType(TargetType),
    /// The option means nothing with this type.
    Meaningless {
        /// The option.
        option: &'static str,
        /// The type.
        kind: TargetType,
    },
    /// Not a transaction id.
    BadXid(String),
    /// Not a place in the WAL.
    BadLsn(String),
    /// Not the name of a restore point.
    BadName(&'static str),
    /// Not a moment.
    Time(TargetTimeError),
}

impl fmt::Display for TargetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownType(text) => {
                let names: Vec<&str> = TargetType::ALL.iter().map(|(_, name)| *name).collect();
                write!(f, "--type={text} is not one of {}", names.join(", "))
            }
            Self::UnknownAction(text) => {
                write!(f, "--target-action={text} is not pause, promote or shutdown")
            }
            Self::BadTimeline(text) => {
                write!(f, "--target-timeline={text} is not latest, current or a number such as 2 or 0x1A")
            }
            Self::TargetMissing(kind) => write!(f, "--type={kind} needs a --target"),
            Self::TargetWithoutType(kind) => write!(f, "--target means nothing with --type={kind}"),
            Self::Meaningless { option, kind } => write!(f, "{option} means nothing with --type={kind}"),
            Self::BadXid(text) => write!(f, "\"{text}\" is not a transaction id such as 918224"),
            Self::BadLsn(text) => write!(f, "\"{text}\" is not a place in the WAL such as A3/1C0041D8"),
            Self::BadName(why) => write!(f, "the name of a restore point {why}"),
            Self::Time(_) => f.write_str("the target cannot be read"),
        }
    }
}

impl std::error::Error for TargetError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Time(error) => Some(error),
            _ => None,
        }
    }
}

/// The longest name of a restore point, in bytes (`MAXFNAMELEN` less its end).
const LONGEST_NAME: usize = 63;

impl Target {
    /// Checks what was asked. Without `--type`, a `--target` is a moment, and no target is the end of the archive.
    ///
    /// # Errors
    /// When it says no target, or two.
    pub fn from_options(asked: &Asked<'_>, here: &Here) -> Result<Self, TargetError> {
        let kind =
            asked.kind.unwrap_or(if asked.target.is_some() { TargetType::Time } else { TargetType::Default });
        let takes_target =
            matches!(kind, TargetType::Time | TargetType::Xid | TargetType::Lsn | TargetType::Name);
        let text = match (takes_target, asked.target) {
            (true, None) => return Err(TargetError::TargetMissing(kind)),
            (false, Some(_)) => return Err(TargetError::TargetWithoutType(kind)),
            (_, text) => text.unwrap_or_default(),
        };
        let goal = match kind {
            TargetType::Default => Goal::EndOfArchive,
            TargetType::Immediate => Goal::Consistent,
            TargetType::Time => Goal::Time(target_time::parse(text, here).map_err(TargetError::Time)?),
            TargetType::Xid => Goal::Xid(xid(text)?),
            TargetType::Lsn => {
                Goal::Lsn(text.trim().parse().map_err(|_| TargetError::BadLsn(text.to_owned()))?)
            }
            TargetType::Name => Goal::Name(name(text)?),
            TargetType::Standby => Goal::Standby,
            TargetType::Preserve => Goal::Preserve,
            TargetType::None => Goal::None,
        };
        let meaningless = |option| TargetError::Meaningless { option, kind };
        // For a name PostgreSQL has no "just before": a restore point changes nothing.
        if asked.exclusive && !matches!(kind, TargetType::Time | TargetType::Xid | TargetType::Lsn) {
            return Err(meaningless("--target-exclusive"));
        }
        let reaches = takes_target || kind == TargetType::Immediate;
        if asked.action.is_some() && !reaches {
            return Err(meaningless("--target-action"));
        }
        if asked.timeline.is_some() && matches!(kind, TargetType::None | TargetType::Preserve) {
            return Err(meaningless("--target-timeline"));
        }
        Ok(Self {
            goal,
            exclusive: asked.exclusive,
            action: reaches.then(|| asked.action.unwrap_or_default()),
            timeline: asked.timeline.unwrap_or_default(),
        })
    }
}

fn xid(text: &str) -> Result<u64, TargetError> {
    let digits = text.trim();
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    match digits.parse::<u64>() {
        // 0 to 2 are reserved (FirstNormalTransactionId); no transaction has them.
        Ok(xid) if plain && xid & 0xFFFF_FFFF >= 3 => Ok(xid),
        _ => Err(TargetError::BadXid(text.to_owned())),
    }
}

fn name(text: &str) -> Result<String, TargetError> {
    if text.is_empty() {
        return Err(TargetError::BadName("cannot be empty"));
    }
    if text.len() > LONGEST_NAME {
        return Err(TargetError::BadName("is at most 63 bytes long"));
    }
    if text.chars().any(char::is_control) {
        return Err(TargetError::BadName("cannot contain control characters"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Timestamp;

    fn here() -> Here {
        Here::new(Timestamp::from_unix_seconds(1_795_250_476), jiff::tz::TimeZone::UTC)
    }

    fn ask(kind: &str, target: Option<&str>) -> Result<Target, TargetError> {
        let asked = Asked { kind: Some(kind.parse()?), target, ..Asked::default() };
        Target::from_options(&asked, &here())
    }

    #[test]
    fn each_type_is_read_with_its_target() {
        assert_eq!(ask("default", None).unwrap().goal, Goal::EndOfArchive);
        assert_eq!(ask("immediate", None).unwrap().action, Some(TargetAction::Pause));
        assert_eq!(ask("xid", Some("918224")).unwrap().goal, Goal::Xid(918_224));
        assert_eq!(ask("lsn", Some("A3/1C0041D8")).unwrap().goal, Goal::Lsn(Lsn::new(0xA3_1C00_41D8)));
        assert_eq!(ask("name", Some("before release")).unwrap().goal, Goal::Name("before release".into()));
        assert_eq!(ask("standby", None).unwrap().action, None);
        let by_default = Asked { target: Some("2026-11-21 08:00Z"), ..Asked::default() };
        assert!(matches!(Target::from_options(&by_default, &here()).unwrap().goal, Goal::Time(_)));
        assert_eq!(Target::from_options(&Asked::default(), &here()).unwrap().goal, Goal::EndOfArchive);
        assert_eq!("0x1A".parse(), Ok(TargetTimeline::Number(TimelineId::new(26).unwrap())));
    }

    #[test]
    fn options_that_contradict_each_other_are_refused() {
        for (kind, target) in [("time", None), ("xid", None), ("lsn", None), ("name", None)] {
            assert_eq!(ask(kind, target), Err(TargetError::TargetMissing(kind.parse().unwrap())));
        }
        for kind in ["default", "immediate", "standby", "preserve", "none"] {
            assert_eq!(ask(kind, Some("x")), Err(TargetError::TargetWithoutType(kind.parse().unwrap())));
        }
        for (kind, target) in [
            ("xid", "2"),
            ("xid", "-5"),
            ("xid", ""),
            ("xid", "0x10"),
            ("xid", "4294967296"),
            ("lsn", "A3"),
            ("lsn", ""),
            ("name", ""),
            ("name", "a\nb"),
            ("time", "02/03/2026 10:00"),
        ] {
            assert!(ask(kind, Some(target)).is_err(), "{kind} {target}");
        }
        let long = "x".repeat(64);
        assert!(ask("name", Some(&long)).is_err());
        let with = |change: fn(&mut Asked<'_>), kind: &str, target| {
            let mut asked = Asked { kind: Some(kind.parse().unwrap()), target, ..Asked::default() };
            change(&mut asked);
            Target::from_options(&asked, &here())
        };
        assert!(with(|asked| asked.exclusive = true, "name", Some("x")).is_err());
        assert!(with(|asked| asked.exclusive = true, "default", None).is_err());
        assert!(with(|asked| asked.action = Some(TargetAction::Promote), "default", None).is_err());
        assert!(with(|asked| asked.timeline = Some(TargetTimeline::Latest), "none", None).is_err());
        assert!(with(|asked| asked.exclusive = true, "lsn", Some("0/3000000")).is_ok());
        for bad in ["", "0", "x", "0x", "0x0", "+1", "0x+1"] {
            assert!(bad.parse::<TargetTimeline>().is_err(), "{bad}");
        }
    }
}
