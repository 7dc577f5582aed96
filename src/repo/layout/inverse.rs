//! From a key back to what it names. For people who look into a repository; nothing that must be safe asks
//! here, because whoever made a name knows what it means.

use super::{CatalogName, Place, REPOSITORY_FILE, WalEntry, catalog_name, wal_entry};
use crate::storage::Key;
use crate::units::{BackupId, Stanza, SystemIdentifier};
use std::str::FromStr;

/// What a key names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// `walden.json`: readable as it is.
    RepositoryFile,
    /// `keys/<master-id>/<wrap-id>`: a wrapped key, readable as it is and of no use without what opens it.
    KeyWrap,
    /// What a cluster is.
    Cluster(Stanza, SystemIdentifier),
    /// An entry of the catalog.
    Catalog(Stanza, BackupId, CatalogName),
    /// A pack of data frames.
    Pack(Stanza, BackupId, u32),
    /// An object of a backup's map.
    Map(Stanza, BackupId, u32),
    /// WAL, and what belongs to it.
    Wal(Stanza, SystemIdentifier, WalEntry),
}

/// What `key` names; `None` for names that this version does not know.
#[must_use]
pub fn named(key: &Key) -> Option<Named> {
    let name = key.as_str();
    if name == REPOSITORY_FILE {
        return Some(Named::RepositoryFile);
    }
    if let Some(below) = name.strip_prefix("keys/") {
        return (below.split('/').count() == 2).then_some(Named::KeyWrap);
    }
    let mut parts = name.splitn(3, '/');
    let stanza: Stanza = parts.next()?.parse().ok()?;
    let room = parts.next()?;
    let rest = parts.next()?;
    let found = match room {
        "cluster" => Named::Cluster(stanza, rest.parse().ok()?),
        "catalog" => {
            let (id, what) = catalog_name(rest)?;
            Named::Catalog(stanza, id, what)
        }
        "data" => {
            let (id, object) = rest.split_once('/')?;
            let id = BackupId::from_str(id).ok()?;
            match object.split_once('-')? {
                ("pack", number) => Named::Pack(stanza, id, number.parse().ok()?),
                ("map", number) => Named::Map(stanza, id, number.parse().ok()?),
                _ => return None,
            }
        }
        "wal" => {
            let (system, below) = rest.split_once('/')?;
            Named::Wal(stanza, system.parse().ok()?, wal_entry(below)?)
        }
        _ => return None,
    };
    // One object has one name: `pack-1` and `pack-+00001` are none of ours.
    match found.place() {
        Some(place) if place.key == *key => Some(found),
        Some(_) => None,
        None => Some(found),
    }
}

impl Named {
    /// The object's key and the identity it is sealed with; `None` for what is not sealed.
    #[must_use]
    pub fn place(&self) -> Option<Place> {
        let place = match self {
            Self::RepositoryFile | Self::KeyWrap => return None,
            Self::Cluster(stanza, system) => super::cluster(stanza, *system),
            Self::Catalog(stanza, id, CatalogName::Started) => super::started(stanza, id),
            Self::Catalog(stanza, id, CatalogName::Outcome) => super::outcome(stanza, id),
            Self::Catalog(stanza, id, CatalogName::Retired) => super::retired(stanza, id),
            Self::Catalog(stanza, id, CatalogName::Note(note)) => super::note(stanza, id, *note),
            Self::Pack(stanza, id, number) => super::pack(stanza, id, *number),
            Self::Map(stanza, id, number) => super::map(stanza, id, *number),
            Self::Wal(stanza, system, entry) => match entry {
                WalEntry::Segment(segment) => super::segment(stanza, *system, *segment),
                WalEntry::Partial(segment, short) => {
                    super::partial(stanza, *system, *segment, &beginning(short)?)
                }
                WalEntry::Tail(segment, from, to, writer) => {
                    let from = u32::try_from(from.as_u64()).ok()?;
                    let to = u32::try_from(to.as_u64()).ok()?;
                    super::tail(stanza, *system, *segment, from, to, writer)
                }
                WalEntry::Part(segment, hash) => {
                    super::segment_part(stanza, *system, *segment, &super::unhex::<32>(hash)?)
                }
                WalEntry::BackupHistory(segment, offset, short) => {
                    super::backup_history(stanza, *system, *segment, *offset, &beginning(short)?)
                }
                WalEntry::History(timeline) => super::history(stanza, *system, *timeline),
            },
        };
        place.ok()
    }
}

/// A hash that begins so: only the beginning stands in the name.
fn beginning(short: &str) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    hash[..8].copy_from_slice(&super::unhex::<8>(short)?);
    Some(hash)
}

#[cfg(test)]
mod tests {
    use super::super::*;
    use super::*;
    use crate::units::{BackupKind, NoteId, Timestamp};
    use proptest::prelude::*;

    fn all_places() -> Vec<Place> {
        let stanza: Stanza = "shop.eu-1".parse().unwrap();
        let system = SystemIdentifier::new(7_572_093_145_086_623_041);
        let id = BackupId::new(Timestamp::from_unix_seconds(1), BackupKind::Incremental, [9; 13]);
        let name: SegmentName = "000000020000000A000000FF".parse().unwrap();
        let hash = [0xAB; 32];
        vec![
            cluster(&stanza, system).unwrap(),
            started(&stanza, &id).unwrap(),
            outcome(&stanza, &id).unwrap(),
            retired(&stanza, &id).unwrap(),
            note(&stanza, &id, NoteId::next(Timestamp::from_unix_seconds(1), [7; 10], None)).unwrap(),
            pack(&stanza, &id, 0).unwrap(),
            pack(&stanza, &id, 12_345_678).unwrap(),
            map(&stanza, &id, 17).unwrap(),
            segment(&stanza, system, name).unwrap(),
            segment_part(&stanza, system, name, &hash).unwrap(),
            partial(&stanza, system, name, &hash).unwrap(),
            tail(&stanza, system, name, 0x2000, 0xFF_FFFF, "w1-2").unwrap(),
            history(&stanza, system, name.timeline()).unwrap(),
            backup_history(&stanza, system, name, 0x28, &hash).unwrap(),
        ]
    }

    #[test]
    fn every_place_is_found_again_from_its_key() {
        let places = all_places();
        for kind in Kind::TABLE.iter().map(|row| row.0) {
            assert!(places.iter().any(|place| place.identity.kind == kind), "{kind:?} is not in the list");
        }
        for place in places {
            assert_eq!(named(&place.key).and_then(|named| named.place()), Some(place));
        }
        let key = |name: &str| Key::new(name).unwrap();
        assert_eq!(named(&key("walden.json")), Some(Named::RepositoryFile));
        assert_eq!(named(&key("keys/0a/0b")), Some(Named::KeyWrap));
    }

    #[test]
    fn other_spellings_of_a_name_are_not_it() {
        for strange in [
            "shop",
            "shop/cluster",
            "shop/cluster/007",
            "shop/data/19700101T000001Z-I-9999999999999/pack-1",
            "shop/data/19700101T000001Z-I-9999999999999/pack-0000001",
            "shop/data/x/pack-000001",
            "shop/wal/7/x",
            "shop/drill/x",
            "keys/x",
            "keys/x/y/z",
        ] {
            assert_eq!(named(&Key::new(strange).unwrap()), None, "{strange}");
        }
    }

    proptest! {
        #[test]
        fn no_key_makes_it_panic(name in "[a-z0-9A-F/._-]{1,80}", at: prop::sample::Index, with: char) {
            if let Ok(key) = Key::new(name) {
                let _ = named(&key);
            }
            for place in all_places() {
                let mut bent: Vec<char> = place.key.as_str().chars().collect();
                let at = at.index(bent.len());
                bent[at] = with;
                if let Ok(key) = Key::new(bent.into_iter().collect::<String>()) {
                    // Bent or not: what is found has that very key.
                    let found = named(&key).and_then(|named| named.place());
                    prop_assert!(found.is_none_or(|place| place.key == key));
                }
            }
        }
    }
}
