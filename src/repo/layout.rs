//! The names of objects and the identities they are sealed with. `FORMAT.md` has the same in words.

mod inverse;

pub use inverse::{Named, named};

use super::seal::Identity;
use crate::storage::{Key, NotAKey};
use crate::units::{BackupId, Lsn, NoteId, SegmentName, Stanza, SystemIdentifier, TimelineId, WalFileName};

/// The object that makes a place a repository.
pub const REPOSITORY_FILE: &str = "walden.json";

/// Which of a master's keys seals an object, so that a host may be given only some of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// WAL: what `archive-push` needs.
    Wal,
    /// Contents of backups.
    Data,
    /// Clusters, catalog, records.
    Meta,
}

/// What an object is. Codes are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `cluster/<system-id>`
    Cluster,
    /// `catalog/<backup-id>.1-started`
    Started,
    /// `catalog/<backup-id>.2-outcome`
    Outcome,
    /// `catalog/<backup-id>.3-retired`
    Retired,
    /// `catalog/<backup-id>.9-<ulid>`
    Note,
    /// `data/<backup-id>/pack-<nnnnnn>`
    Pack,
    /// `data/<backup-id>/map-<nnnnnn>`
    Map,
    /// A complete WAL segment, or the index of its parts.
    WalSegment,
    /// A part of a WAL segment of 64 MiB and more.
    WalPart,
    /// A WAL segment that is surely unfinished, or PostgreSQL's `.partial`.
    WalPartial,
    /// The beginning of an open WAL segment.
    WalTail,
    /// A timeline history file.
    History,
    /// PostgreSQL's `.backup` file.
    BackupHistory,
}

impl Kind {
    /// Every kind with its code in the header and its purpose.
    const TABLE: &'static [(Self, u8, Purpose)] = &[
        (Self::Cluster, 1, Purpose::Meta),
        (Self::Started, 2, Purpose::Meta),
        (Self::Outcome, 3, Purpose::Meta),
        (Self::Retired, 4, Purpose::Meta),
        (Self::Note, 5, Purpose::Meta),
        (Self::Pack, 6, Purpose::Data),
        (Self::Map, 7, Purpose::Data),
        (Self::WalSegment, 8, Purpose::Wal),
        (Self::WalPart, 9, Purpose::Wal),
        (Self::WalPartial, 10, Purpose::Wal),
        (Self::WalTail, 11, Purpose::Wal),
        (Self::History, 12, Purpose::Wal),
        (Self::BackupHistory, 13, Purpose::Wal),
    ];

    /// The code in the object's header.
    #[must_use]
    pub fn code(self) -> u8 {
        Self::TABLE.iter().find(|row| row.0 == self).map_or(0, |row| row.1)
    }

    /// The key that seals objects of this kind.
    #[must_use]
    pub fn purpose(self) -> Purpose {
        Self::TABLE.iter().find(|row| row.0 == self).map_or(Purpose::Meta, |row| row.2)
    }
}

/// A key together with the identity its object is sealed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Where the object lies.
    pub key: Key,
    /// What it is.
    pub identity: Identity,
}

fn place(path: String, kind: Kind, name: String) -> Result<Place, NotAKey> {
    Ok(Place { key: Key::new(path)?, identity: Identity { kind, name } })
}

/// `<stanza>/cluster`, which lists the stanza's clusters: a stanza exists if there is one.
///
/// # Errors
/// Never for a [`Stanza`]; the type of the key says so.
pub fn clusters(stanza: &Stanza) -> Result<Key, NotAKey> {
    Key::new(format!("{stanza}/cluster"))
}

/// The object that says what a cluster is.
///
/// # Errors
/// As [`clusters`].
pub fn cluster(stanza: &Stanza, system: SystemIdentifier) -> Result<Place, NotAKey> {
    place(format!("{stanza}/cluster/{system}"), Kind::Cluster, format!("cluster/{system}"))
}

/// `<stanza>/catalog`: one listing of it is the state of all backups.
///
/// # Errors
/// As [`clusters`].
pub fn catalog(stanza: &Stanza) -> Result<Key, NotAKey> {
    Key::new(format!("{stanza}/catalog"))
}

/// Says that a backup is being taken.
///
/// # Errors
/// As [`clusters`].
pub fn started(stanza: &Stanza, id: &BackupId) -> Result<Place, NotAKey> {
    place(format!("{stanza}/catalog/{id}.1-started"), Kind::Started, format!("catalog/{id}/started"))
}

/// The record, or that the backup was aborted: one name, one winner.
///
/// # Errors
/// As [`clusters`].
pub fn outcome(stanza: &Stanza, id: &BackupId) -> Result<Place, NotAKey> {
    place(format!("{stanza}/catalog/{id}.2-outcome"), Kind::Outcome, format!("catalog/{id}/outcome"))
}

/// Says that a backup is given up. Never deleted.
///
/// # Errors
/// As [`clusters`].
pub fn retired(stanza: &Stanza, id: &BackupId) -> Result<Place, NotAKey> {
    place(format!("{stanza}/catalog/{id}.3-retired"), Kind::Retired, format!("catalog/{id}/retired"))
}

/// What was noted on a backup after it was taken: annotations, pins, what a check found.
///
/// # Errors
/// As [`clusters`].
pub fn note(stanza: &Stanza, id: &BackupId, note: NoteId) -> Result<Place, NotAKey> {
    place(format!("{stanza}/catalog/{id}.9-{note}"), Kind::Note, format!("catalog/{id}/note/{note}"))
}

/// `<stanza>/data`: what all backups stored, in a folder for each.
///
/// # Errors
/// As [`clusters`].
pub fn all_data(stanza: &Stanza) -> Result<Key, NotAKey> {
    Key::new(format!("{stanza}/data"))
}

/// `<stanza>/data/<backup-id>`: everything a backup stored itself.
///
/// # Errors
/// As [`clusters`].
pub fn data(stanza: &Stanza, id: &BackupId) -> Result<Key, NotAKey> {
    Key::new(format!("{stanza}/data/{id}"))
}

/// A pack of data frames, numbered from 0.
///
/// # Errors
/// As [`clusters`].
pub fn pack(stanza: &Stanza, id: &BackupId, number: u32) -> Result<Place, NotAKey> {
    place(format!("{stanza}/data/{id}/pack-{number:06}"), Kind::Pack, format!("data/{id}/pack/{number}"))
}

/// An object of the backup's map, numbered from 0.
///
/// # Errors
/// As [`clusters`].
pub fn map(stanza: &Stanza, id: &BackupId, number: u32) -> Result<Place, NotAKey> {
    place(format!("{stanza}/data/{id}/map-{number:06}"), Kind::Map, format!("data/{id}/map/{number}"))
}

/// `<stanza>/wal`: all WAL of all clusters.
///
/// # Errors
/// As [`clusters`].
pub fn all_wal(stanza: &Stanza) -> Result<Key, NotAKey> {
    Key::new(format!("{stanza}/wal"))
}

/// `<stanza>/wal/<system-id>`: all WAL of a cluster.
///
/// # Errors
/// As [`clusters`].
pub fn wal(stanza: &Stanza, system: SystemIdentifier) -> Result<Key, NotAKey> {
    Key::new(format!("{stanza}/wal/{system}"))
}

/// `<stanza>/wal/<system-id>/<timeline>`: all WAL of one timeline, in folders of 256 segments.
///
/// # Errors
/// As [`clusters`].
pub fn wal_timeline(stanza: &Stanza, system: SystemIdentifier, timeline: TimelineId) -> Result<Key, NotAKey> {
    Key::new(format!("{stanza}/wal/{system}/{}", timeline.hex()))
}

/// The folder of the segment's 255 neighbours, tails and partials.
///
/// # Errors
/// As [`clusters`].
pub fn wal_folder(stanza: &Stanza, system: SystemIdentifier, segment: SegmentName) -> Result<Key, NotAKey> {
    Key::new(format!("{stanza}/wal/{system}/{}/{}", segment.timeline().hex(), segment.folder()))
}

/// A complete segment.
///
/// # Errors
/// As [`clusters`].
pub fn segment(stanza: &Stanza, system: SystemIdentifier, segment: SegmentName) -> Result<Place, NotAKey> {
    let folder = wal_folder(stanza, system, segment)?;
    place(format!("{folder}/{segment}"), Kind::WalSegment, format!("wal/{system}/{segment}"))
}

/// A part of a large segment, named by the hash of its plain contents.
///
/// # Errors
/// As [`clusters`].
pub fn segment_part(
    stanza: &Stanza,
    system: SystemIdentifier,
    segment: SegmentName,
    hash: &[u8; 32],
) -> Result<Place, NotAKey> {
    let folder = wal_folder(stanza, system, segment)?;
    let hash = hex(hash);
    place(
        format!("{folder}/{segment}.part/{hash}"),
        Kind::WalPart,
        format!("wal/{system}/{segment}/part/{hash}"),
    )
}

/// An unfinished segment: `<segment>.partial-<16 hex of the contents' hash>`; several may coexist.
///
/// # Errors
/// As [`clusters`].
pub fn partial(
    stanza: &Stanza,
    system: SystemIdentifier,
    segment: SegmentName,
    hash: &[u8; 32],
) -> Result<Place, NotAKey> {
    let folder = wal_folder(stanza, system, segment)?;
    let short = &hex(hash)[..16];
    place(
        format!("{folder}/{segment}.partial-{short}"),
        Kind::WalPartial,
        format!("wal/{system}/{segment}/partial/{short}"),
    )
}

/// The WAL of an open segment from `from` to `to`, both as offsets in the segment.
///
/// # Errors
/// As [`clusters`].
pub fn tail(
    stanza: &Stanza,
    system: SystemIdentifier,
    segment: SegmentName,
    from: u32,
    to: u32,
    writer: &str,
) -> Result<Place, NotAKey> {
    let folder = wal_folder(stanza, system, segment)?;
    let name = format!("{from:08x}-{to:08x}-{writer}");
    place(
        format!("{folder}/{segment}.tail/{name}"),
        Kind::WalTail,
        format!("wal/{system}/{segment}/tail/{name}"),
    )
}

/// Where a timeline came from.
///
/// # Errors
/// As [`clusters`].
pub fn history(stanza: &Stanza, system: SystemIdentifier, timeline: TimelineId) -> Result<Place, NotAKey> {
    let name = timeline.history_name();
    place(format!("{stanza}/wal/{system}/{name}"), Kind::History, format!("wal/{system}/{name}"))
}

/// PostgreSQL's note of a base backup: `<segment>.<offset>.backup-<16 hex of the contents' hash>`.
///
/// # Errors
/// As [`clusters`].
pub fn backup_history(
    stanza: &Stanza,
    system: SystemIdentifier,
    segment: SegmentName,
    offset: u32,
    hash: &[u8; 32],
) -> Result<Place, NotAKey> {
    let folder = wal_folder(stanza, system, segment)?;
    let name = WalFileName::BackupHistory(segment, offset);
    let short = &hex(hash)[..16];
    place(format!("{folder}/{name}-{short}"), Kind::BackupHistory, format!("wal/{system}/{name}/{short}"))
}

/// What a name in a WAL folder stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WalEntry {
    /// A complete segment.
    Segment(SegmentName),
    /// An unfinished one, by the first 16 hex digits of its hash.
    Partial(SegmentName, String),
    /// A stretch of an open one: from, to, writer.
    Tail(SegmentName, Lsn, Lsn, String),
    /// A part of a large one.
    Part(SegmentName, String),
    /// PostgreSQL's note of a base backup.
    BackupHistory(SegmentName, u32, String),
    /// A history file.
    History(TimelineId),
}

/// Reads the part of a key below `<stanza>/wal/<system-id>/`; `None` for names that this version does not
/// know, which are left alone. Offsets of tails are given as positions in the segment, from 0.
#[must_use]
pub fn wal_entry(below: &str) -> Option<WalEntry> {
    if !below.contains('/') {
        return match below.parse().ok()? {
            WalFileName::History(timeline) => Some(WalEntry::History(timeline)),
            _ => None,
        };
    }
    let mut parts = below.split('/');
    let timeline = parts.next()?;
    let folder = parts.next()?;
    let name = parts.next()?;
    let inner = parts.next();
    let segment: SegmentName = name.get(..24)?.parse().ok()?;
    if segment.timeline().hex() != timeline || segment.folder() != folder || parts.next().is_some() {
        return None;
    }
    let is_hex = |text: &str, length: usize| {
        text.len() == length && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    match (name.get(24..)?, inner) {
        ("", None) => Some(WalEntry::Segment(segment)),
        (rest, None) => {
            if let Some(hash) = rest.strip_prefix(".partial-") {
                return is_hex(hash, 16).then(|| WalEntry::Partial(segment, hash.to_owned()));
            }
            let (file, hash) = name.rsplit_once('-')?;
            match file.parse().ok()? {
                WalFileName::BackupHistory(segment, offset) if is_hex(hash, 16) => {
                    Some(WalEntry::BackupHistory(segment, offset, hash.to_owned()))
                }
                _ => None,
            }
        }
        (".part", Some(hash)) => is_hex(hash, 64).then(|| WalEntry::Part(segment, hash.to_owned())),
        (".tail", Some(range)) => {
            let mut fields = range.splitn(3, '-');
            let mut offset = || {
                let text = fields.next()?;
                if is_hex(text, 8) { u64::from_str_radix(text, 16).ok().map(Lsn::new) } else { None }
            };
            let (from, to) = (offset()?, offset()?);
            let writer = fields.next()?;
            (from < to && !writer.is_empty()).then(|| WalEntry::Tail(segment, from, to, writer.to_owned()))
        }
        _ => None,
    }
}

/// What a name in the catalog says, and of which backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CatalogName {
    /// `.1-started`
    Started,
    /// `.2-outcome`
    Outcome,
    /// `.3-retired`
    Retired,
    /// `.9-…`
    Note(NoteId),
}

/// Reads the last part of a catalog key; `None` for names this version does not know.
#[must_use]
pub fn catalog_name(file_name: &str) -> Option<(BackupId, CatalogName)> {
    let (id, what) = file_name.split_once('.')?;
    let what = match what {
        "1-started" => CatalogName::Started,
        "2-outcome" => CatalogName::Outcome,
        "3-retired" => CatalogName::Retired,
        other => CatalogName::Note(other.strip_prefix("9-")?.parse().ok()?),
    };
    Some((id.parse().ok()?, what))
}

/// Lower-case hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Reads lower-case hexadecimal of exactly `N` bytes.
#[must_use]
pub fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if text.len() != N * 2 || !text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        return None;
    }
    for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(text.get(at..at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{BackupKind, Timestamp};

    #[test]
    fn kinds_have_codes_of_their_own() {
        let mut codes: Vec<u8> = Kind::TABLE.iter().map(|row| row.1).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Kind::TABLE.len());
        assert!(!codes.contains(&0));
    }

    #[test]
    fn names_in_the_wal_folders_are_read_back() {
        let stanza: Stanza = "shop".parse().unwrap();
        let system = SystemIdentifier::new(7);
        let name: SegmentName = "000000020000000A000000FF".parse().unwrap();
        let below = |place: Place| place.key.as_str().strip_prefix("shop/wal/7/").unwrap().to_owned();
        let hash = [0xAB; 32];
        for (place, entry) in [
            (segment(&stanza, system, name), WalEntry::Segment(name)),
            (partial(&stanza, system, name, &hash), WalEntry::Partial(name, "abababababababab".into())),
            (segment_part(&stanza, system, name, &hash), WalEntry::Part(name, "ab".repeat(32))),
            (
                tail(&stanza, system, name, 0, 0x2000, "w1"),
                WalEntry::Tail(name, Lsn::new(0), Lsn::new(0x2000), "w1".into()),
            ),
            (
                backup_history(&stanza, system, name, 0x28, &hash),
                WalEntry::BackupHistory(name, 0x28, "abababababababab".into()),
            ),
            (history(&stanza, system, name.timeline()), WalEntry::History(name.timeline())),
        ] {
            assert_eq!(wal_entry(&below(place.unwrap())), Some(entry));
        }
        for strange in
            ["x", "00000002/000000A00000000/x", "00000002/0000000A00000000/000000010000000A000000FF", "ä/ä/ä"]
        {
            assert_eq!(wal_entry(strange), None);
        }
    }

    #[test]
    fn names_in_the_catalog_are_read_back() {
        let stanza: Stanza = "shop".parse().unwrap();
        let id = BackupId::new(Timestamp::from_unix_seconds(0), BackupKind::Full, [3; 13]);
        let place = outcome(&stanza, &id).unwrap();
        assert_eq!(catalog_name(place.key.file_name()), Some((id, CatalogName::Outcome)));
        assert_eq!(catalog_name("x.1-started"), None);
    }
}
