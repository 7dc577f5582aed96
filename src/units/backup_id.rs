//! The names of backups.

use super::Timestamp;
use std::fmt;
use std::str::FromStr;

/// How a backup was taken. Either restores alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BackupKind {
    /// All of the cluster was read and stored.
    Full,
    /// What had not changed since a parent is referenced, not stored again.
    Incremental,
}

impl fmt::Display for BackupKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "full",
            Self::Incremental => "incremental",
        })
    }
}

/// A backup's id: `20261121T022100Z-F-7k2qm4x9c1wte`.
///
/// The UTC second at which it began, `F` or `I`, and 13 random characters (65 bits) of Crockford's
/// base 32 in lower case. Ids sort by time as text; nothing may be *selected* by the clock in them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackupId(String);

/// Crockford's base 32 in lower case: no i, l, o, u.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const RANDOM_LENGTH: usize = 13;
const LENGTH: usize = 16 + 3 + RANDOM_LENGTH;

impl BackupId {
    /// A new id from the clock and 13 bytes of randomness, of which five bits each are used.
    #[must_use]
    pub fn new(at: Timestamp, kind: BackupKind, random: [u8; RANDOM_LENGTH]) -> Self {
        let letter = match kind {
            BackupKind::Full => 'F',
            BackupKind::Incremental => 'I',
        };
        let tail: String = random.iter().map(|b| char::from(ALPHABET[usize::from(b & 31)])).collect();
        Self(format!("{}-{letter}-{tail}", at.compact()))
    }

    /// The id as text; it is part of object names.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The short form shown in lists: up to and including six random characters.
    #[must_use]
    pub fn short(&self) -> &str {
        self.0.get(..16 + 3 + 6).unwrap_or(&self.0)
    }

    /// Full or incremental.
    #[must_use]
    pub fn kind(&self) -> BackupKind {
        if self.0.as_bytes().get(17) == Some(&b'I') { BackupKind::Incremental } else { BackupKind::Full }
    }
}

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BackupId({})", self.0)
    }
}

/// The text was not a backup's whole id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotABackupId(String);

impl fmt::Display for NotABackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" is not a backup id such as 20261121T022100Z-F-7k2qm4x9c1wte", self.0)
    }
}

impl std::error::Error for NotABackupId {}

impl FromStr for BackupId {
    type Err = NotABackupId;

    fn from_str(text: &str) -> Result<Self, NotABackupId> {
        let fits = text.len() == LENGTH
            && text.bytes().enumerate().all(|(at, b)| match at {
                8 => b == b'T',
                15 => b == b'Z',
                16 | 18 => b == b'-',
                17 => matches!(b, b'F' | b'I'),
                0..=14 => b.is_ascii_digit(),
                _ => ALPHABET.contains(&b),
            });
        if fits { Ok(Self(text.to_owned())) } else { Err(NotABackupId(text.to_owned())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_time_and_parse_back() {
        let early = BackupId::new(Timestamp::from_unix_seconds(1_795_227_660), BackupKind::Full, [7; 13]);
        let late =
            BackupId::new(Timestamp::from_unix_seconds(1_795_227_661), BackupKind::Incremental, [0; 13]);
        assert_eq!(early.to_string(), "20261121T022100Z-F-7777777777777");
        assert_eq!(early.short(), "20261121T022100Z-F-777777");
        assert!(early < late);
        assert_eq!(late.kind(), BackupKind::Incremental);
        assert_eq!(late.to_string().parse::<BackupId>().unwrap(), late);
        for bad in [
            "",
            "20261121T022100Z-F-",
            "20261121T022100Z-X-7777777777777",
            "20261121T022100Z-F-777777777777i",
        ] {
            assert!(bad.parse::<BackupId>().is_err());
        }
    }
}
