//! Positions in the write-ahead log.

use std::fmt;
use std::str::FromStr;

/// A byte position in a cluster's WAL; PostgreSQL's `XLogRecPtr` (access/xlogdefs.h).
///
/// Positions order and subtract. They do not add: the sum of two places means nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(u64);

impl Lsn {
    /// `InvalidXLogRecPtr`: no position. No record can begin here.
    pub const INVALID: Self = Self(0);

    /// The position `bytes` from the beginning of the WAL.
    #[must_use]
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// Bytes from the beginning of the WAL, as PostgreSQL stores it.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// Whether this is a position at all (`XLogRecPtrIsInvalid` is its opposite).
    #[must_use]
    pub const fn is_valid(self) -> bool {
        self.0 != 0
    }

    /// Bytes from `earlier` to here; `None` when `earlier` is in fact later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Option<u64> {
        self.0.checked_sub(earlier.0)
    }

    /// The position `bytes` further on; `None` past the end of the 64-bit space.
    #[must_use]
    pub const fn forward(self, bytes: u64) -> Option<Self> {
        match self.0.checked_add(bytes) {
            Some(at) => Some(Self(at)),
            None => None,
        }
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lsn({self})")
    }
}

/// The text was not of the form `XXXXXXXX/XXXXXXXX` (hexadecimal halves of 1 to 8 digits).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotAnLsn(String);

impl fmt::Display for NotAnLsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" is not a WAL position such as 16/B374D848", self.0)
    }
}

impl std::error::Error for NotAnLsn {}

impl FromStr for Lsn {
    type Err = NotAnLsn;

    fn from_str(text: &str) -> Result<Self, NotAnLsn> {
        // A half parsed as u64 would let "123456789/0" in and lose its top digit in the shift.
        let half = |h: &str| match h.len() {
            1..=8 if h.bytes().all(|b| b.is_ascii_hexdigit()) => u32::from_str_radix(h, 16).ok(),
            _ => None,
        };
        text.split_once('/')
            .and_then(|(high, low)| Some((half(high)?, half(low)?)))
            .map(|(high, low)| Self(u64::from(high) << 32 | u64::from(low)))
            .ok_or_else(|| NotAnLsn(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_half_of_nine_digits_is_refused() {
        for bad in ["123456789/0", "0/123456789", "/0", "0/", "0", "0/0/0", "+1/0", " 0/0", "g/0", ""] {
            assert_eq!(bad.parse::<Lsn>(), Err(NotAnLsn(bad.to_owned())), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_parses_back(at: u64) {
            let lsn = Lsn::new(at);
            prop_assert_eq!(lsn.to_string().parse::<Lsn>().unwrap(), lsn);
        }
    }
}
