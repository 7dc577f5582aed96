//! What is noted on a backup after it was taken: annotations, pins, and what a check found.
//!
//! Notes are create-only like everything else; their sum is what counts. No clock decides whether a backup is
//! protected: an unpin names the pins that its writer had seen and undoes those and no others, so one that was
//! written by a clock gone wrong, or that knew nothing of a newer pin, undoes nothing else. Of annotations the
//! note with the later id wins, and a note's id is later than those of all notes its writer had seen.

use super::error::RepoError;
use super::layout;
use super::record::{text, unix_micros};
use super::repository::Repository;
use crate::env::Env;
use crate::units::{BackupId, NoteId, Stanza, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// One note, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// The backup it is about.
    #[serde(with = "text")]
    pub backup_id: BackupId,
    /// Its own id: part of its name.
    #[serde(with = "text")]
    pub note_id: NoteId,
    /// When it was written, by the writer's clock; for people.
    #[serde(with = "unix_micros")]
    pub written_at_unix_us: Timestamp,
    /// The program's version.
    pub walden_version: String,
    /// What it says.
    pub says: Says,
}

/// What a note says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Says {
    /// Annotations.
    Annotate(Annotate),
    /// The backup is not to be removed.
    Pin(Pin),
    /// Some pins no longer hold.
    Unpin(Unpin),
}

/// Changes to a backup's annotations.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Annotate {
    /// New values by key.
    pub set: BTreeMap<String, String>,
    /// Keys that have none any more.
    pub remove: BTreeSet<String>,
}

/// A pin.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// Why, in a person's words.
    pub reason: Option<String>,
    /// The moment from which it does not hold any more; `None`: until it is undone. The one thing that is left
    /// to a clock, because that is what was asked for.
    pub until_unix_us: Option<i64>,
}

impl Pin {
    /// The moment from which it does not hold any more.
    #[must_use]
    pub fn until(&self) -> Option<Timestamp> {
        self.until_unix_us.map(Timestamp::from_unix_micros)
    }
}

/// Undoes pins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unpin {
    /// The ids of the notes that it undoes: pins, and damaged notes that may have been pins.
    pub notes: Vec<String>,
}

impl Note {
    /// A note that is yet to be written. `seen` is the newest note on this backup that its writer knows.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn new(
        backup: &BackupId,
        seen: Option<NoteId>,
        says: Says,
        walden_version: &str,
        env: &dyn Env,
    ) -> Result<Self, RepoError> {
        let mut random = [0; 10];
        env.random(&mut random)?;
        let now = env.now();
        Ok(Self {
            backup_id: backup.clone(),
            note_id: NoteId::next(now, random, seen),
            written_at_unix_us: now,
            walden_version: walden_version.to_owned(),
            says,
        })
    }
}

/// All notes on one backup.
#[derive(Debug, Default)]
pub struct Notes {
    read: BTreeMap<NoteId, Note>,
    unread: BTreeMap<NoteId, RepoError>,
}

/// A pin with its note's id and moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinOf {
    /// The note.
    pub note: NoteId,
    /// When it was set, by its writer's clock.
    pub at: Timestamp,
    /// What it says.
    pub pin: Pin,
}

impl Notes {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.read.is_empty() && self.unread.is_empty()
    }

    /// The newest, read or not: what the next one must come after.
    #[must_use]
    pub fn newest(&self) -> Option<NoteId> {
        self.read.keys().chain(self.unread.keys()).max().copied()
    }

    /// Adds one that was just written.
    pub fn add(&mut self, note: Note) {
        self.unread.remove(&note.note_id);
        self.read.insert(note.note_id, note);
    }

    /// Adds those that another repository holds on the same backup. What can be read anywhere is read.
    pub fn merge(&mut self, other: Self) {
        self.read.extend(other.read);
        self.unread.extend(other.unread);
        self.unread.retain(|id, _| !self.read.contains_key(id));
    }

    fn undone(&self) -> BTreeSet<NoteId> {
        self.read
            .values()
            .filter_map(|note| match &note.says {
                Says::Unpin(unpin) => Some(unpin.notes.iter().filter_map(|id| id.parse().ok())),
                _ => None,
            })
            .flatten()
            .collect()
    }

    /// Notes that could not be read and were not undone: each may be a pin, so whoever deletes must not.
    pub fn unsettled(&self) -> impl Iterator<Item = (NoteId, &RepoError)> {
        let undone = self.undone();
        self.unread.iter().map(|(id, error)| (*id, error)).filter(move |(id, _)| !undone.contains(id))
    }

    /// Every note that could not be read, undone or not.
    #[must_use]
    pub fn into_unread(self) -> BTreeMap<NoteId, RepoError> {
        self.unread
    }

    /// Pins that were not undone, the oldest first, whether or not their time is over.
    #[must_use]
    pub fn pins(&self) -> Vec<PinOf> {
        let undone = self.undone();
        let pin = |note: &Note| match &note.says {
            Says::Pin(pin) => {
                Some(PinOf { note: note.note_id, at: note.written_at_unix_us, pin: pin.clone() })
            }
            _ => None,
        };
        self.read.values().filter(|note| !undone.contains(&note.note_id)).filter_map(pin).collect()
    }

    /// Pins that hold at `now`.
    #[must_use]
    pub fn holding(&self, now: Timestamp) -> Vec<PinOf> {
        let mut pins = self.pins();
        pins.retain(|one| one.pin.until().is_none_or(|until| now < until));
        pins
    }

    /// The annotations: those of the record, changed by the notes in the order of their ids.
    #[must_use]
    pub fn annotations(&self, of_the_record: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let mut all = of_the_record.clone();
        for note in self.read.values() {
            if let Says::Annotate(change) = &note.says {
                all.retain(|key, _| !change.remove.contains(key));
                all.extend(change.set.clone());
            }
        }
        all
    }
}

impl Repository {
    /// Reads notes on a backup; `ids` are those that [`Repository::catalog`] listed. One that cannot be read
    /// hides no other: see [`Notes::unsettled`]. Costs one request each, none when there are none.
    #[must_use]
    pub fn read_notes(&self, stanza: &Stanza, backup: &BackupId, ids: &[NoteId]) -> Notes {
        let mut notes = Notes::default();
        for id in ids {
            match self.read_note(stanza, backup, *id) {
                Ok(note) => {
                    notes.read.insert(*id, note);
                }
                Err(error) => {
                    notes.unread.insert(*id, error);
                }
            }
        }
        notes
    }

    fn read_note(&self, stanza: &Stanza, backup: &BackupId, id: NoteId) -> Result<Note, RepoError> {
        let place = layout::note(stanza, backup, id)?;
        let note: Note = self.read_json(&place)?;
        if note.backup_id != *backup || note.note_id != id {
            return Err(RepoError::damaged(&place.key, "it says that it is another note"));
        }
        Ok(note)
    }

    /// Writes a note, and makes sure that the backup was not given up before: a pin that is reported as set was
    /// there before any later run of whoever deletes looked for pins.
    ///
    /// # Errors
    /// [`RepoError::Missing`] with the outcome's name when the backup was retired meanwhile; else the store's
    /// trouble, after which the note may or may not be there (writing one more is safe).
    pub fn write_note(&self, stanza: &Stanza, note: &Note, env: &dyn Env) -> Result<(), RepoError> {
        let place = layout::note(stanza, &note.backup_id, note.note_id)?;
        // COMMIT POINT of a note: a name of its own, so nobody can lose it to another.
        self.create_json(&place, note, env)?;
        let retired = layout::retired(stanza, &note.backup_id)?;
        match self.store().size(&retired.key)? {
            None => Ok(()),
            Some(_) => Err(RepoError::Missing { object: layout::outcome(stanza, &note.backup_id)?.key }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::Fixed;
    use crate::repo::layout::{CatalogName, catalog_name};
    use crate::storage::faulty::{Fault, FaultyStore};
    use crate::storage::memory::MemoryStore;
    use crate::storage::{Key, Store};
    use crate::units::BackupKind;
    use proptest::prelude::*;
    use std::sync::Arc;

    const NOON: i64 = 1_795_262_400;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_seconds(NOON + seconds)
    }

    fn shop() -> Stanza {
        "shop".parse().unwrap()
    }

    fn backup() -> BackupId {
        BackupId::new(at(0), BackupKind::Full, [3; 13])
    }

    fn note(notes: &mut Notes, clock: i64, says: Says) -> NoteId {
        let env = Fixed::new(at(clock), notes.read.len() as u64);
        let note = Note::new(&backup(), notes.newest(), says, "0.1.0", &env).unwrap();
        let id = note.note_id;
        notes.read.insert(id, note);
        id
    }

    fn set(pairs: &[(&str, &str)], remove: &[&str]) -> Says {
        Says::Annotate(Annotate {
            set: pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            remove: remove.iter().map(|key| (*key).to_owned()).collect(),
        })
    }

    fn unpin(notes: &Notes) -> Says {
        Says::Unpin(Unpin { notes: notes.pins().iter().map(|one| one.note.to_string()).collect() })
    }

    #[test]
    fn the_later_annotation_wins_even_if_its_clock_is_behind() {
        let record = BTreeMap::from([("ticket".to_owned(), "OPS-1".to_owned()), ("by".into(), "me".into())]);
        let mut notes = Notes::default();
        assert_eq!(notes.annotations(&record), record);
        note(&mut notes, 100, set(&[("ticket", "OPS-2"), ("why", "x")], &[]));
        note(&mut notes, -5000, set(&[("why", "y")], &["by"]));
        let expected =
            BTreeMap::from([("ticket".to_owned(), "OPS-2".to_owned()), ("why".into(), "y".into())]);
        assert_eq!(notes.annotations(&record), expected);
    }

    #[test]
    fn an_unpin_undoes_what_it_saw_and_nothing_else() {
        let mut notes = Notes::default();
        note(&mut notes, 0, Says::Pin(Pin::default()));
        let knew_one = unpin(&notes);
        // Another host pins meanwhile; then the unpin arrives, its clock far ahead.
        let later =
            note(&mut notes, 10, Says::Pin(Pin { reason: Some("audit".into()), until_unix_us: None }));
        note(&mut notes, 900_000, knew_one);
        let pins = notes.holding(at(1_000_000));
        assert_eq!(pins.iter().map(|one| one.note).collect::<Vec<_>>(), [later]);
        // And a pin set by a clock that went back to before the unpin holds.
        let back = note(&mut notes, -900_000, Says::Pin(Pin::default()));
        assert!(notes.holding(at(0)).iter().any(|one| one.note == back));
        let all = unpin(&notes);
        note(&mut notes, -900_000, all);
        assert_eq!(notes.pins(), []);
    }

    #[test]
    fn a_pin_with_an_end_holds_until_then() {
        let mut notes = Notes::default();
        let until = at(60).as_unix_micros();
        note(&mut notes, 0, Says::Pin(Pin { reason: None, until_unix_us: Some(until) }));
        assert_eq!(notes.holding(at(59)).len(), 1);
        assert_eq!((notes.holding(at(60)).len(), notes.pins().len()), (0, 1));
    }

    fn repository(store: Arc<dyn Store>) -> Result<Repository, RepoError> {
        Repository::create(store, None, "memory", &Fixed::new(at(0), 1))
    }

    fn listed(repository: &Repository) -> Notes {
        let catalog = repository.catalog(&shop()).unwrap();
        let ids = catalog.entries.get(&backup()).map(|entry| entry.notes.clone()).unwrap_or_default();
        repository.read_notes(&shop(), &backup(), &ids)
    }

    #[test]
    fn notes_are_listed_read_back_and_a_damaged_one_stays_in_the_way_until_it_is_undone() {
        let memory = MemoryStore::default();
        let repo = repository(Arc::new(memory.clone())).unwrap();
        let env = Fixed::new(at(0), 2);
        assert!(listed(&repo).is_empty());
        let pin = Note::new(&backup(), None, Says::Pin(Pin::default()), "0.1.0", &env).unwrap();
        repo.write_note(&shop(), &pin, &env).unwrap();
        assert_eq!(listed(&repo).pins().len(), 1);

        let key = layout::note(&shop(), &backup(), pin.note_id).unwrap().key;
        assert_eq!(catalog_name(key.file_name()), Some((backup(), CatalogName::Note(pin.note_id))));
        let bytes = memory.read(&key, crate::units::ByteCount::mib(1)).unwrap();
        memory.delete(&key).unwrap();
        memory.create(&key, &bytes[..bytes.len() - 1]).unwrap();
        let notes = listed(&repo);
        assert_eq!((notes.pins().len(), notes.unsettled().count()), (0, 1));
        assert_eq!(notes.newest(), Some(pin.note_id));

        let says = Says::Unpin(Unpin { notes: vec![pin.note_id.to_string()] });
        let unpin = Note::new(&backup(), notes.newest(), says, "0.1.0", &env).unwrap();
        repo.write_note(&shop(), &unpin, &env).unwrap();
        assert_eq!(listed(&repo).unsettled().count(), 0);

        // What another repository could read is not in the way.
        let mut both = notes;
        let mut there = Notes::default();
        there.read.insert(pin.note_id, pin);
        both.merge(there);
        assert_eq!((both.pins().len(), both.unsettled().count()), (1, 0));
    }

    #[test]
    fn a_note_is_bound_to_its_backup_and_its_name() {
        let memory = MemoryStore::default();
        let repo = repository(Arc::new(memory.clone())).unwrap();
        let env = Fixed::new(at(0), 2);
        let pin = Note::new(&backup(), None, Says::Pin(Pin::default()), "0.1.0", &env).unwrap();
        repo.write_note(&shop(), &pin, &env).unwrap();
        let key = layout::note(&shop(), &backup(), pin.note_id).unwrap().key;
        let bytes = memory.read(&key, crate::units::ByteCount::mib(1)).unwrap();
        let other = BackupId::new(at(0), BackupKind::Full, [4; 13]);
        memory.create(&layout::note(&shop(), &other, pin.note_id).unwrap().key, &bytes).unwrap();
        let notes = repo.read_notes(&shop(), &other, &[pin.note_id]);
        assert_eq!((notes.pins().len(), notes.unsettled().count()), (0, 1));
        memory.create(&Key::new(format!("shop/catalog/{other}.9-x")).unwrap(), b"").unwrap();
        assert_eq!(repo.catalog(&shop()).unwrap().strangers.len(), 1);
    }

    #[test]
    fn no_pin_is_reported_that_is_not_there_or_on_what_was_given_up() {
        let env = Fixed::new(at(0), 2);
        let pin = Note::new(&backup(), None, Says::Pin(Pin::default()), "0.1.0", &env).unwrap();
        let write = |store: Arc<dyn Store>, memory: &MemoryStore| {
            // The repository is made without faults and opened over the faulty store.
            repository(Arc::new(memory.clone())).unwrap();
            Repository::open(store, &|| Ok(None)).and_then(|repo| repo.write_note(&shop(), &pin, &env))
        };
        let calls = {
            let memory = MemoryStore::default();
            repository(Arc::new(memory.clone())).unwrap();
            let store = Arc::new(FaultyStore::counting(memory.clone()));
            Repository::open(store.clone(), &|| Ok(None))
                .and_then(|repo| repo.write_note(&shop(), &pin, &env))
                .unwrap();
            store.calls()
        };
        assert!(calls >= 3, "{calls}");
        for fault in [Fault::NeverSent, Fault::ReplyLost] {
            for at in 0..calls {
                let memory = MemoryStore::default();
                let store = Arc::new(FaultyStore::failing_from(memory.clone(), at, fault));
                assert!(write(store, &memory).is_err(), "call {at} ({fault:?})");
            }
        }
        let memory = MemoryStore::default();
        memory.create(&layout::retired(&shop(), &backup()).unwrap().key, b"x").unwrap();
        assert!(matches!(write(Arc::new(memory.clone()), &memory), Err(RepoError::Missing { .. })));
    }

    proptest! {
        #[test]
        fn the_order_of_merging_does_not_matter(order in Just((0..6_usize).collect::<Vec<_>>()).prop_shuffle()) {
            let mut all = Notes::default();
            note(&mut all, 5, Says::Pin(Pin::default()));
            note(&mut all, 4, set(&[("a", "1")], &[]));
            let undo = unpin(&all);
            note(&mut all, 3, Says::Pin(Pin::default()));
            note(&mut all, 9, undo);
            note(&mut all, 1, set(&[("a", "2"), ("b", "3")], &[]));
            note(&mut all, 0, set(&[], &["b"]));
            let notes: Vec<Note> = all.read.values().cloned().collect();
            let mut merged = Notes::default();
            for place in order {
                let mut one = Notes::default();
                one.read.insert(notes[place].note_id, notes[place].clone());
                merged.merge(one);
            }
            prop_assert_eq!(merged.pins(), all.pins());
            let none = BTreeMap::new();
            prop_assert_eq!(merged.annotations(&none), all.annotations(&none));
            prop_assert_eq!(merged.annotations(&none), BTreeMap::from([("a".to_owned(), "2".to_owned())]));
        }
    }
}
