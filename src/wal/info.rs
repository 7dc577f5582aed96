//! What WAL objects say of themselves: JSON in the sealed footer.
//!
//! | key | of | meaning |
//! |---|---|---|
//! | `segment` | segments, partials, tails | name of the segment, 24 hexadecimal digits |
//! | `file` | histories, `.backup` | name of the file |
//! | `system_identifier` | all | of the cluster, decimal, as text |
//! | `size_bytes` | all | plain bytes |
//! | `hash` | all | BLAKE3 of all plain bytes, hexadecimal |
//! | `verdict` | segments, partials | `complete`, `incomplete`, or `unsure` |
//! | `valid_bytes` | segments, partials | to where from the beginning WAL was found; all of a complete segment |
//! | `page_magic` | segments, partials | `xlp_magic` of the first page, decimal |
//! | `first_commit_unix_micros`, `first_commit_xid`, `last_…` | segments, partials | of the commit and abort records that end in the segment; absent when there are none |
//! | `tablespaces_created` | segments, partials | `[{"oid", "location"}]`: of the records that create one and lie in the segment whole, at most 64; absent when there are none |
//! | `parts` | large segments and partials | `[{"hash", "size_bytes"}]` in order; the object itself then has no frames |
//! | `from_bytes`, `to_bytes`, `writer` | tails | the stretch of the segment |
//!
//! Keys that a reader does not know are left alone.

use crate::repo::RepoError;
use crate::repo::layout::{Place, hex, unhex};
use crate::units::{SegmentName, SystemIdentifier, Timestamp};
use serde::{Deserialize, Serialize};
use std::fmt;

/// BLAKE3 of plain contents.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentHash([u8; 32]);

impl ContentHash {
    /// The hash of `contents`.
    #[must_use]
    pub fn of(contents: &[u8]) -> Self {
        Self(*blake3::hash(contents).as_bytes())
    }

    /// From a hasher that was given everything.
    #[must_use]
    pub fn finish(hasher: &blake3::Hasher) -> Self {
        Self(*hasher.finalize().as_bytes())
    }

    /// From the root of a tree whose parts were hashed by themselves.
    pub(super) fn of_root(root: &blake3::Hash) -> Self {
        Self(*root.as_bytes())
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The part that stands in names.
    #[must_use]
    pub fn short(&self) -> ShortHash {
        let mut short = [0; 8];
        short.copy_from_slice(&self.0[..8]);
        ShortHash(short)
    }

    fn parse(text: &str) -> Option<Self> {
        unhex(text).map(Self)
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContentHash({self})")
    }
}

/// The first 16 hexadecimal digits of a [`ContentHash`], as they stand in names.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShortHash([u8; 8]);

impl ShortHash {
    /// Reads 16 lower-case hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        unhex(text).map(Self)
    }

    /// A hash that has this beginning, for making the name: only the beginning stands in it.
    #[must_use]
    pub fn padded(self) -> [u8; 32] {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&self.0);
        hash
    }
}

impl fmt::Display for ShortHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for ShortHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ShortHash({self})")
    }
}

/// What walking a segment's records said about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The last record reaches the boundary or is a switch.
    Complete,
    /// Surely unfinished: its writer stopped in the middle.
    Incomplete,
    /// Not known: a format that this version does not understand, or damage.
    Unsure,
}

/// The end of a transaction: a commit or abort record, also of a prepared transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitPoint {
    /// The server's time in the record.
    pub at: Timestamp,
    /// The transaction.
    pub xid: u32,
}

/// A tablespace whose creation is in the WAL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreatedTablespace {
    /// Its OID.
    pub oid: u32,
    /// The directory in which replay makes it; empty when that is the data directory itself.
    pub location: String,
}

/// What a stored segment, complete or not, says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Its name.
    pub name: SegmentName,
    /// The cluster.
    pub system: SystemIdentifier,
    /// Plain bytes.
    pub size: u64,
    /// Of all plain bytes.
    pub hash: ContentHash,
    /// What its records said.
    pub verdict: Verdict,
    /// Bytes from the beginning in which WAL was found; what follows in an unfinished segment is of no meaning
    /// (zeros, or old WAL of a recycled file).
    pub valid: u64,
    /// `xlp_magic` of its first page.
    pub page_magic: Option<u16>,
    /// The first transaction that ends in it.
    pub first_commit: Option<CommitPoint>,
    /// The last one.
    pub last_commit: Option<CommitPoint>,
    /// Tablespaces that its records create.
    pub tablespaces_created: Vec<CreatedTablespace>,
}

/// A part of a large segment, as its index names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub hash: ContentHash,
    pub size: u64,
}

#[derive(Serialize, Deserialize)]
struct StoredPart {
    hash: String,
    size_bytes: u64,
}

#[derive(Serialize, Deserialize)]
struct StoredSegment {
    segment: String,
    system_identifier: String,
    size_bytes: u64,
    hash: String,
    verdict: Verdict,
    valid_bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    page_magic: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    first_commit_unix_micros: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    first_commit_xid: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_commit_unix_micros: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_commit_xid: Option<u32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tablespaces_created: Vec<CreatedTablespace>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    parts: Vec<StoredPart>,
}

fn json<T: Serialize>(place: &Place, value: &T) -> Result<Vec<u8>, RepoError> {
    serde_json::to_vec(value).map_err(|_| RepoError::TooLarge { what: place.key.to_string() })
}

fn parse<'a, T: Deserialize<'a>>(place: &Place, meta: &'a [u8]) -> Result<T, RepoError> {
    serde_json::from_slice(meta).map_err(|error| {
        RepoError::damaged(&place.key, format!("what it says of itself is not understood: {error}"))
    })
}

fn contradicts(place: &Place) -> RepoError {
    RepoError::damaged(&place.key, "what it says of itself is not what its name says")
}

impl SegmentInfo {
    pub(super) fn to_meta(&self, place: &Place, parts: &[Part]) -> Result<Vec<u8>, RepoError> {
        json(
            place,
            &StoredSegment {
                segment: self.name.to_string(),
                system_identifier: self.system.to_string(),
                size_bytes: self.size,
                hash: self.hash.to_string(),
                verdict: self.verdict,
                valid_bytes: self.valid,
                page_magic: self.page_magic,
                first_commit_unix_micros: self.first_commit.map(|c| c.at.as_unix_micros()),
                first_commit_xid: self.first_commit.map(|c| c.xid),
                last_commit_unix_micros: self.last_commit.map(|c| c.at.as_unix_micros()),
                last_commit_xid: self.last_commit.map(|c| c.xid),
                tablespaces_created: self.tablespaces_created.clone(),
                parts: parts
                    .iter()
                    .map(|part| StoredPart { hash: part.hash.to_string(), size_bytes: part.size })
                    .collect(),
            },
        )
    }

    /// Reads the meta of the object at `place`, which must be of this segment.
    pub(super) fn from_meta(
        place: &Place,
        meta: &[u8],
        system: SystemIdentifier,
        name: SegmentName,
    ) -> Result<(Self, Vec<Part>), RepoError> {
        let stored: StoredSegment = parse(place, meta)?;
        let hash = ContentHash::parse(&stored.hash).ok_or_else(|| contradicts(place))?;
        if stored.segment != name.to_string()
            || stored.system_identifier != system.to_string()
            || stored.valid_bytes > stored.size_bytes
        {
            return Err(contradicts(place));
        }
        let mut parts = Vec::with_capacity(stored.parts.len());
        let mut total = 0_u64;
        for part in &stored.parts {
            let hash = ContentHash::parse(&part.hash).ok_or_else(|| contradicts(place))?;
            total = total.checked_add(part.size_bytes).ok_or_else(|| contradicts(place))?;
            parts.push(Part { hash, size: part.size_bytes });
        }
        if !parts.is_empty() && total != stored.size_bytes {
            return Err(contradicts(place));
        }
        let commit = |micros: Option<i64>, xid: Option<u32>| {
            micros.map(|at| CommitPoint { at: Timestamp::from_unix_micros(at), xid: xid.unwrap_or(0) })
        };
        let info = Self {
            name,
            system,
            size: stored.size_bytes,
            hash,
            verdict: stored.verdict,
            valid: stored.valid_bytes,
            page_magic: stored.page_magic,
            first_commit: commit(stored.first_commit_unix_micros, stored.first_commit_xid),
            last_commit: commit(stored.last_commit_unix_micros, stored.last_commit_xid),
            tablespaces_created: stored.tablespaces_created,
        };
        Ok((info, parts))
    }
}

/// What a stored history or `.backup` file says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileInfo {
    /// The file's name in `pg_wal`.
    pub file: String,
    /// The cluster.
    pub system: SystemIdentifier,
    /// Plain bytes.
    pub size: u64,
    /// Of all plain bytes.
    pub hash: ContentHash,
}

#[derive(Serialize, Deserialize)]
struct StoredFile {
    file: String,
    system_identifier: String,
    size_bytes: u64,
    hash: String,
}

impl FileInfo {
    pub(super) fn to_meta(&self, place: &Place) -> Result<Vec<u8>, RepoError> {
        json(
            place,
            &StoredFile {
                file: self.file.clone(),
                system_identifier: self.system.to_string(),
                size_bytes: self.size,
                hash: self.hash.to_string(),
            },
        )
    }

    pub(super) fn from_meta(
        place: &Place,
        meta: &[u8],
        system: SystemIdentifier,
        file: &str,
    ) -> Result<Self, RepoError> {
        let stored: StoredFile = parse(place, meta)?;
        let hash = ContentHash::parse(&stored.hash).ok_or_else(|| contradicts(place))?;
        if stored.file != file || stored.system_identifier != system.to_string() {
            return Err(contradicts(place));
        }
        Ok(Self { file: stored.file, system, size: stored.size_bytes, hash })
    }
}

/// What a stored tail says of itself: the WAL of an open segment from one offset to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TailInfo {
    /// The segment.
    pub name: SegmentName,
    /// The cluster.
    pub system: SystemIdentifier,
    /// Its first byte's offset in the segment.
    pub from: u32,
    /// The offset after its last byte.
    pub to: u32,
    /// Who wrote it.
    pub writer: String,
    /// Of its plain bytes.
    pub hash: ContentHash,
}

#[derive(Serialize, Deserialize)]
struct StoredTail {
    segment: String,
    system_identifier: String,
    from_bytes: u32,
    to_bytes: u32,
    size_bytes: u64,
    writer: String,
    hash: String,
}

impl TailInfo {
    /// Bytes in it.
    #[must_use]
    pub fn size(&self) -> u64 {
        u64::from(self.to.saturating_sub(self.from))
    }

    pub(super) fn to_meta(&self, place: &Place) -> Result<Vec<u8>, RepoError> {
        json(
            place,
            &StoredTail {
                segment: self.name.to_string(),
                system_identifier: self.system.to_string(),
                from_bytes: self.from,
                to_bytes: self.to,
                size_bytes: self.size(),
                writer: self.writer.clone(),
                hash: self.hash.to_string(),
            },
        )
    }

    /// Reads the meta of the tail at `place`, which must be the one that `expected` tells of, its hash aside.
    pub(super) fn from_meta(place: &Place, meta: &[u8], expected: &Self) -> Result<Self, RepoError> {
        let stored: StoredTail = parse(place, meta)?;
        let hash = ContentHash::parse(&stored.hash).ok_or_else(|| contradicts(place))?;
        let found = Self { hash, ..expected.clone() };
        let fits = stored.segment == expected.name.to_string()
            && stored.system_identifier == expected.system.to_string()
            && (stored.from_bytes, stored.to_bytes) == (expected.from, expected.to)
            && stored.size_bytes == expected.size()
            && stored.writer == expected.writer;
        if fits { Ok(found) } else { Err(contradicts(place)) }
    }
}
