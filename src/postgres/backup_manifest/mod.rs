//! `backup_manifest`: every file of a base backup with size and checksum, and the WAL it needs
//! (backup/backup_manifest.c; read by common/parse_manifest.c).
//!
//! Both directions stream: a manifest of some million files is a gigabyte. Version 1 is what PostgreSQL 13 to 16
//! write, version 2 (17 and later) adds the system identifier.

mod reader;
mod writer;

pub use reader::{LONGEST_LINE, ManifestEntry, ManifestError, ManifestReader, ManifestSummary};
pub use writer::ManifestWriter;

use crate::units::{Lsn, PgMajor, TimelineId, Timestamp};

/// The version of a manifest's format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ManifestVersion {
    /// PostgreSQL 13 to 16.
    One,
    /// PostgreSQL 17 and later; needed for incremental backups.
    Two,
}

impl ManifestVersion {
    /// What servers of this major write.
    #[must_use]
    pub fn of_major(major: PgMajor) -> Self {
        if major >= PgMajor::new(17) { Self::Two } else { Self::One }
    }

    /// The number in the file.
    #[must_use]
    pub const fn as_u8(self) -> u8 {
        match self {
            Self::One => 1,
            Self::Two => 2,
        }
    }
}

/// How a file's checksum is made (common/checksum_helper.c).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ManifestAlgorithm {
    /// CRC-32C, what servers use unless told otherwise.
    Crc32c,
    /// SHA-224.
    Sha224,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl ManifestAlgorithm {
    const ALL: [Self; 5] = [Self::Crc32c, Self::Sha224, Self::Sha256, Self::Sha384, Self::Sha512];

    /// The name in the file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Crc32c => "CRC32C",
            Self::Sha224 => "SHA224",
            Self::Sha256 => "SHA256",
            Self::Sha384 => "SHA384",
            Self::Sha512 => "SHA512",
        }
    }

    /// Bytes of a checksum.
    #[must_use]
    pub const fn length(self) -> usize {
        match self {
            Self::Crc32c => 4,
            Self::Sha224 => 28,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|a| a.as_str() == name)
    }
}

/// The checksum of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestChecksum {
    algorithm: ManifestAlgorithm,
    digest: Vec<u8>,
}

impl ManifestChecksum {
    /// A CRC-32C. The file holds the machine's bytes of the number: little-endian.
    #[must_use]
    pub fn crc32c(crc: u32) -> Self {
        Self { algorithm: ManifestAlgorithm::Crc32c, digest: crc.to_le_bytes().to_vec() }
    }

    /// A SHA-256.
    #[must_use]
    pub fn sha256(digest: [u8; 32]) -> Self {
        Self { algorithm: ManifestAlgorithm::Sha256, digest: digest.to_vec() }
    }

    /// How it was made.
    #[must_use]
    pub const fn algorithm(&self) -> ManifestAlgorithm {
        self.algorithm
    }

    /// Its bytes, [`ManifestAlgorithm::length`] of them.
    #[must_use]
    pub fn digest(&self) -> &[u8] {
        &self.digest
    }

    /// The number, where it is a CRC-32C.
    #[must_use]
    pub fn as_crc32c(&self) -> Option<u32> {
        match self.algorithm {
            ManifestAlgorithm::Crc32c => super::little_endian::u32_at(&self.digest, 0),
            _ => None,
        }
    }
}

/// One file of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestFile {
    /// Relative to PGDATA, tablespaces under `pg_tblspc/<oid>`. Bytes: nothing makes them UTF-8.
    pub path: Vec<u8>,
    /// Bytes of the file.
    pub size: u64,
    /// When it was last changed; whole seconds. `None` where the manifest's words for it are odd: nobody
    /// relies on them.
    pub modified: Option<Timestamp>,
    /// Its checksum; `None` where none were made.
    pub checksum: Option<ManifestChecksum>,
}

/// A stretch of WAL that the backup needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalRange {
    /// The timeline.
    pub timeline: TimelineId,
    /// Where it begins.
    pub start: Lsn,
    /// Where it ends.
    pub end: Lsn,
}

/// Lower-case hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |b: &u8| (*b as char).to_digit(16);
    let (pairs, odd) = text.as_bytes().as_chunks::<2>();
    if !odd.is_empty() {
        return None;
    }
    pairs.iter().map(|[h, l]| Some((digit(h)? << 4 | digit(l)?) as u8)).collect()
}

#[cfg(test)]
mod tests;
