//! What names a cluster.

use std::fmt;
use std::str::FromStr;

/// PostgreSQL's 64-bit system identifier, unique per `initdb` (`ControlFileData.system_identifier`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SystemIdentifier(u64);

impl SystemIdentifier {
    /// The identifier as PostgreSQL stores it.
    #[must_use]
    pub const fn new(id: u64) -> Self {
        Self(id)
    }

    /// The identifier as PostgreSQL stores it.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Display for SystemIdentifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The text was not a system identifier (decimal, 1 to 20 digits, no sign, no leading zero).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotASystemIdentifier(String);

impl fmt::Display for NotASystemIdentifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" is not a system identifier such as 7572093145086623041", self.0)
    }
}

impl std::error::Error for NotASystemIdentifier {}

impl FromStr for SystemIdentifier {
    type Err = NotASystemIdentifier;

    fn from_str(text: &str) -> Result<Self, NotASystemIdentifier> {
        let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
        match text.parse() {
            Ok(id) if plain => Ok(Self(id)),
            _ => Err(NotASystemIdentifier(text.to_owned())),
        }
    }
}

/// A PostgreSQL major version, `server_version_num / 10000`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PgMajor(u16);

impl PgMajor {
    /// The oldest major whose backup protocol is spoken here.
    pub const OLDEST: Self = Self(14);
    /// The newest major that was tested; a newer one is tried with a warning.
    pub const NEWEST: Self = Self(19);

    /// Major version `major` (15 for PostgreSQL 15.x).
    #[must_use]
    pub const fn new(major: u16) -> Self {
        Self(major)
    }

    /// From `server_version_num`, for example 170011; `None` for anything before version 10.
    #[must_use]
    pub fn from_version_num(number: u32) -> Option<Self> {
        match number / 10_000 {
            major @ 10..=999 => u16::try_from(major).ok().map(Self),
            _ => None,
        }
    }

    /// The number, as in "PostgreSQL 17".
    #[must_use]
    pub const fn as_u16(self) -> u16 {
        self.0
    }
}

impl fmt::Display for PgMajor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The name under which clusters that succeed each other are kept.
///
/// 1 to 64 characters of `a-z A-Z 0-9 _ - .`, beginning with a letter, digit or `_`: it becomes part of
/// object names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stanza(String);

impl Stanza {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Stanza {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text cannot name a stanza.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotAStanza(String);

impl fmt::Display for NotAStanza {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "\"{}\" cannot name a stanza: use 1 to 64 of a-z A-Z 0-9 _ - . beginning with a letter, a digit or _; \
             \"keys\" is taken",
            self.0
        )
    }
}

impl std::error::Error for NotAStanza {}

impl FromStr for Stanza {
    type Err = NotAStanza;

    fn from_str(text: &str) -> Result<Self, NotAStanza> {
        let first_fits = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
        let all_fit = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
        // "keys" and "walden.json" stand beside the stanzas in the repository.
        let reserved = matches!(text, "keys" | "walden.json");
        if first_fits && all_fit && text.len() <= 64 && !reserved {
            Ok(Self(text.to_owned()))
        } else {
            Err(NotAStanza(text.to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_identifiers_are_plain_decimals() {
        assert_eq!("7572093145086623041".parse(), Ok(SystemIdentifier::new(7_572_093_145_086_623_041)));
        for bad in ["", "0", "01", "+1", "-1", "1 ", "99999999999999999999", "x"] {
            assert!(bad.parse::<SystemIdentifier>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_stanza_cannot_leave_its_folder() {
        assert!("main".parse::<Stanza>().is_ok());
        for bad in ["", "..", ".x", "a/b", "keys", "walden.json", "ä", "a b", "-x", &"x".repeat(65)] {
            assert!(bad.parse::<Stanza>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_major_is_in_the_version_number() {
        assert_eq!(PgMajor::from_version_num(170_011), Some(PgMajor::new(17)));
        assert_eq!(PgMajor::from_version_num(90_624), None);
    }
}
