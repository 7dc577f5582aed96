//! Amounts of data.

use std::fmt;
use std::str::FromStr;

/// A number of bytes. Printed for people in powers of ten (`131.2 GB`), exact in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteCount(u64);

impl ByteCount {
    /// Nothing at all.
    pub const ZERO: Self = Self(0);

    /// `bytes` bytes.
    #[must_use]
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// `mib` times 1,048,576 bytes.
    #[must_use]
    pub const fn mib(mib: u64) -> Self {
        Self(mib << 20)
    }

    /// The exact number.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// The sum, or the largest count there is.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl fmt::Display for ByteCount {
    /// `0 B`, `999 B`, `1.0 kB`, `131.2 GB`: powers of ten, one decimal from kB on.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
        if self.0 < 1000 {
            return write!(f, "{} B", self.0);
        }
        // Tenths of the unit, rounded half up, in integers so that no size prints as "1000.0 kB".
        let mut scale: u128 = 1000;
        for (index, unit) in UNITS.iter().enumerate() {
            let tenths = (u128::from(self.0) * 10 + scale / 2) / scale;
            if tenths < 10_000 || index + 1 == UNITS.len() {
                return write!(f, "{}.{} {unit}", tenths / 10, tenths % 10);
            }
            scale *= 1000;
        }
        Ok(())
    }
}

/// The text was not a size such as `64MiB`, `1GB`, `500k` or `4096`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotAByteCount(String);

impl fmt::Display for NotAByteCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" is not a size such as 16MiB, 500kB or 4096", self.0)
    }
}

impl std::error::Error for NotAByteCount {}

impl FromStr for ByteCount {
    type Err = NotAByteCount;

    /// Whole numbers with an optional suffix. As in pgBackRest, `k`, `KB`, `KiB` and so on are all
    /// powers of 1,024, so that a moved configuration keeps its meaning.
    fn from_str(text: &str) -> Result<Self, NotAByteCount> {
        let refuse = || NotAByteCount(text.to_owned());
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, suffix) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| refuse())?;
        let shift = match suffix.to_ascii_lowercase().as_str() {
            "" | "b" => 0,
            "k" | "kb" | "kib" => 10,
            "m" | "mb" | "mib" => 20,
            "g" | "gb" | "gib" => 30,
            "t" | "tb" | "tib" => 40,
            "p" | "pb" | "pib" => 50,
            _ => return Err(refuse()),
        };
        number.checked_mul(1 << shift).map(Self).ok_or_else(refuse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_print_in_powers_of_ten() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (999_949, "999.9 kB"),
            (999_950, "1.0 MB"),
            (131_200_000_000, "131.2 GB"),
            (u64::MAX, "18.4 EB"),
        ] {
            assert_eq!(ByteCount::new(bytes).to_string(), text);
        }
    }

    #[test]
    fn sizes_are_read_with_suffixes_and_never_overflow() {
        assert_eq!("16MiB".parse(), Ok(ByteCount::mib(16)));
        assert_eq!("4096".parse(), Ok(ByteCount::new(4096)));
        for bad in ["", "k", "1.5G", "-1", "1 MB", "99999999P", "12x"] {
            assert!(bad.parse::<ByteCount>().is_err(), "{bad:?}");
        }
    }
}
