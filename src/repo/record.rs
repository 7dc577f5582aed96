//! The record: the object that makes a backup exist, and the smaller notes around it.
//!
//! A record has two parts: JSON that a person can read once it is decrypted, and the `uses` list, which
//! names every pack the backup needs, wherever it lies. JSON keys carry their units.

use super::varint::{Malformed, Take, put, put_bytes};
use crate::units::{BackupId, Lsn, SegmentName, SystemIdentifier, TimelineId, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Stores a value as its text: what `Display` prints and `FromStr` reads.
pub mod text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use std::fmt::Display;
    use std::str::FromStr;

    /// Writes the text.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<T: Display, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    /// Reads the text.
    ///
    /// # Errors
    /// When it is not the text of such a value.
    pub fn deserialize<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

/// Stores a moment as microseconds since 1970-01-01 00:00:00 UTC.
pub mod unix_micros {
    use crate::units::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes the number.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<S: Serializer>(at: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_i64(at.as_unix_micros())
    }

    /// Reads the number.
    ///
    /// # Errors
    /// When it is none.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
        i64::deserialize(from).map(Timestamp::from_unix_micros)
    }
}

/// A stretch of the timeline path that led to a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineageStep {
    /// The timeline, as text in decimal.
    #[serde(with = "text")]
    pub timeline: TimelineId,
    /// Where it began: `0/0` for the first.
    #[serde(with = "text")]
    pub begin_lsn: Lsn,
}

/// Proof of which WAL the backup ended in, so that a later one can tell its own branch from a clone's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalProof {
    /// The segment that holds the last byte before the stop position.
    #[serde(with = "text")]
    pub segment: SegmentName,
    /// Where the proven bytes end: the stop position.
    #[serde(with = "text")]
    pub until_lsn: Lsn,
    /// SHA-256 in hex of the segment's plain bytes from its beginning to there.
    pub sha256: String,
}

/// A tablespace other than `pg_default` and `pg_global`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tablespace {
    /// Its OID: the name of its link in `pg_tblspc`.
    pub oid: u32,
    /// Where the original keeps it.
    pub location: String,
}

/// A page whose checksum was wrong when it was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageFailure {
    /// The file, relative to the data directory.
    pub path: String,
    /// The page's number in the file.
    pub block: u32,
    /// What it belongs to, for people: `table public.orders`, or only the database. Absent where that was not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relation: Option<String>,
}

impl std::fmt::Display for PageFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} block {}", self.path, self.block)?;
        self.relation.as_ref().map_or(Ok(()), |relation| write!(f, " ({relation})"))
    }
}

/// What is known of the pages' checksums.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageChecksums {
    /// Whether the cluster has them.
    pub enabled: bool,
    /// The first failures found, at most 10,000.
    pub failures: Vec<PageFailure>,
    /// How many there were.
    pub failure_count: u64,
}

/// What decides whether a later backup may build on this one, beside its lineage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterState {
    /// `server_version_num`.
    pub server_version_num: u32,
    /// `ControlFileData.pg_control_version`.
    pub control_version: u32,
    /// `ControlFileData.catalog_version_no`.
    pub catalog_version: u32,
    /// `ControlFileData.data_checksum_version`: 0 off.
    pub data_checksum_version: u32,
    /// Bytes of a page.
    pub page_size_bytes: u32,
    /// Bytes of a WAL segment.
    pub wal_segment_size_bytes: u64,
    /// Pages of a relation's file.
    pub blocks_per_file: u32,
}

/// Where the backup's map is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapPlace {
    /// Objects `map-000000` and so on that this backup stored.
    pub objects: u32,
    /// The object that holds the index of pages.
    pub index_object: u32,
    /// The index's frame in it.
    pub index_frame: u32,
    /// Pages in the index.
    pub pages: u64,
    /// Entries in all pages: files, directories and links.
    pub entries: u64,
}

/// How much there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sizes {
    /// Bytes of all files of the cluster as they were sent.
    pub database_bytes: u64,
    /// Stored bytes of all packs and maps the backup needs, its own and others'.
    pub stored_bytes: u64,
    /// Stored bytes that this backup added.
    pub added_bytes: u64,
    /// Regular files.
    pub files: u64,
    /// Packs that this backup stored itself.
    pub packs: u32,
}

/// The JSON part of a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The backup.
    #[serde(with = "text")]
    pub backup_id: BackupId,
    /// Its cluster.
    #[serde(with = "text")]
    pub system_identifier: SystemIdentifier,
    /// The timeline on which it ended.
    #[serde(with = "text")]
    pub timeline: TimelineId,
    /// Where recovery must begin: START WAL LOCATION of `backup_label`.
    #[serde(with = "text")]
    pub start_lsn: Lsn,
    /// Where the copy is consistent.
    #[serde(with = "text")]
    pub stop_lsn: Lsn,
    /// CHECKPOINT LOCATION of `backup_label`.
    #[serde(with = "text")]
    pub checkpoint_lsn: Lsn,
    /// When the server was asked for it, by the clock of the host that ran walden.
    #[serde(with = "unix_micros")]
    pub started_at_unix_us: Timestamp,
    /// When the server had sent everything, by the same clock.
    #[serde(with = "unix_micros")]
    pub stopped_at_unix_us: Timestamp,
    /// Whether the server was a standby.
    pub from_standby: bool,
    /// The label's text as the server sent it.
    pub backup_label: String,
    /// Tablespaces beside the data directory.
    pub tablespaces: Vec<Tablespace>,
    /// The timelines that led here, oldest first.
    pub lineage: Vec<LineageStep>,
    /// Proof of the branch.
    pub wal_proof: WalProof,
    /// What a later backup compares.
    pub cluster: ClusterState,
    /// How much there is.
    pub sizes: Sizes,
    /// Where the map is.
    pub map: MapPlace,
    /// What is known of page checksums.
    pub page_checksums: PageChecksums,
    /// Whether files that stood in the data directory's configuration lie outside it (as on Debian).
    pub configuration_outside: Vec<String>,
    /// What a person wrote on it.
    pub annotations: BTreeMap<String, String>,
    /// Committed backups that were there when it was taken, so that a hidden one is noticed.
    pub seen: Vec<String>,
    /// Whoever wrote the record chose this at random: settles whose commit won.
    pub writer: String,
    /// The program's version.
    pub walden_version: String,
}

/// `started`: a backup is being taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// The backup.
    #[serde(with = "text")]
    pub backup_id: BackupId,
    /// Its cluster.
    #[serde(with = "text")]
    pub system_identifier: SystemIdentifier,
    /// The backups it builds on.
    pub parents: Vec<String>,
    /// As in the record.
    pub writer: String,
    /// No WAL from here on may be removed while this backup is open.
    #[serde(with = "text")]
    pub wal_floor_lsn: Lsn,
    /// The timeline of the floor.
    #[serde(with = "text")]
    pub wal_floor_timeline: TimelineId,
    /// For people.
    #[serde(with = "unix_micros")]
    pub started_at_unix_us: Timestamp,
    /// The aborted backup whose objects it takes over.
    pub resume_of: Option<String>,
}

impl Started {
    /// The backups whose objects it may come to use: its parents, and the one whose objects it takes over.
    /// `None` when one of them has no valid id.
    #[must_use]
    pub fn builds_on(&self) -> Option<Vec<BackupId>> {
        self.parents.iter().chain(&self.resume_of).map(|id| id.parse().ok()).collect()
    }
}

/// `retired`: the backup was given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retired {
    /// The backup.
    #[serde(with = "text")]
    pub backup_id: BackupId,
    /// In words.
    pub why: String,
    /// The command that gave it up.
    pub by: String,
    /// When, by the clock of the host that did: chooses when its data is deleted, never whether it may be.
    #[serde(with = "unix_micros")]
    pub retired_at_unix_us: Timestamp,
    /// The program's version.
    pub walden_version: String,
}

/// `outcome`: one name, one winner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The backup exists.
    Committed(Box<Record>),
    /// It never will.
    Aborted(Aborted),
}

/// Why a backup will never exist.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aborted {
    /// In words.
    pub why: String,
    /// Who aborted it: the writer itself, or another.
    pub writer: String,
}

/// A pack that a backup needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsedPack {
    /// Its number in its owner's folder.
    pub number: u32,
    /// Its stored size.
    pub size: u64,
    /// Frames of it that the backup needs.
    pub live_frames: u32,
    /// Frames in it.
    pub frames: u32,
}

/// Every pack that a backup needs, by the backup that stored it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uses(pub Vec<(BackupId, Vec<UsedPack>)>);

/// The most owners and packs of a record: 1 PiB of packs of 4 MiB.
const MOST_PACKS: u64 = 1 << 28;

impl Uses {
    /// The stored form: per owner its id, and per pack the distance from the one before, size, live and
    /// all frames.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![1];
        put(&mut bytes, self.0.len() as u64);
        for (owner, packs) in &self.0 {
            put_bytes(&mut bytes, owner.as_str().as_bytes());
            put(&mut bytes, packs.len() as u64);
            let mut next = 0;
            for pack in packs {
                put(&mut bytes, u64::from(pack.number.saturating_sub(next)));
                put(&mut bytes, pack.size);
                put(&mut bytes, pack.live_frames.into());
                put(&mut bytes, pack.frames.into());
                next = pack.number.saturating_add(1);
            }
        }
        bytes
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// When it is not one.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut take = Take::new(bytes);
        if take.byte()? != 1 {
            return Err(Malformed);
        }
        let owners = take.at_most(MOST_PACKS)?;
        let mut uses = Vec::new();
        for _ in 0..owners {
            let owner =
                std::str::from_utf8(take.bytes(64)?).ok().and_then(|id| id.parse().ok()).ok_or(Malformed)?;
            let count = take.at_most(MOST_PACKS.min(take.left() as u64 / 4))?;
            let mut packs = Vec::with_capacity(count as usize);
            let mut next = 0_u64;
            for _ in 0..count {
                let number = next.checked_add(take.number()?).ok_or(Malformed)?;
                packs.push(UsedPack {
                    number: number.try_into().map_err(|_| Malformed)?,
                    size: take.number()?,
                    live_frames: take.number32()?,
                    frames: take.number32()?,
                });
                next = number + 1;
            }
            uses.push((owner, packs));
        }
        take.end()?;
        Ok(Self(uses))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::BackupKind;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn uses_come_back_and_no_cut_goes_unseen(
            steps in proptest::collection::vec((0_u32..5, 0_u64..1 << 40, any::<u32>(), any::<u32>()), 0..50),
            noise: Vec<u8>,
        ) {
            let id = |n: u8| BackupId::new(Timestamp::from_unix_seconds(1), BackupKind::Full, [n; 13]);
            let mut number = 0;
            let packs: Vec<UsedPack> = steps
                .into_iter()
                .map(|(step, size, live_frames, frames)| {
                    let pack = UsedPack { number: number + step, size, live_frames, frames };
                    number = pack.number + 1;
                    pack
                })
                .collect();
            let uses = Uses(vec![(id(1), packs.clone()), (id(2), packs)]);
            let bytes = uses.encode();
            prop_assert_eq!(Uses::decode(&bytes), Ok(uses));
            for cut in 0..bytes.len() {
                prop_assert_eq!(Uses::decode(&bytes[..cut]), Err(Malformed));
            }
            let _ = Uses::decode(&noise);
        }
    }
}
