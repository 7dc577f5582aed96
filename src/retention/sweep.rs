//! Deleting: what backups stored that were retired, their names in the catalog, and WAL.
//!
//! The order, for each state that a crash can leave:
//! 1. Data of a retired backup that nothing keeps. Left over: more of it, found again by the next run.
//! 2. When none of its data is left and no open backup builds on it: notes, then the committed outcome, then
//!    `started`. While `started` is there, the next run goes on. `retired` and aborted outcomes stay for ever: an
//!    id is never used twice, and a backup that wakes up after years finds that it was given up.
//! 3. WAL that nothing needs, oldest first.

use super::error::RetentionError;
use super::look::{Keeps, Leaving, Looked};
use super::read::{Fate, Reader};
use super::step::{Step, left_out};
use super::wal::{Floors, Keys, Lineages, Unneeded};
use crate::pipeline::StopFlag;
use crate::repo::layout::{self, Named};
use crate::storage::{Key, Store, StoreErrorKind};
use crate::units::{BackupId, ByteCount};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How deleting is done.
#[derive(Clone, Debug)]
pub struct Manner {
    /// How many deletes are under way at once.
    pub workers: usize,
    /// Set when it shall end early.
    pub stop: StopFlag,
}

/// What was deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deleted {
    /// Objects.
    pub objects: u64,
    /// Their stored bytes.
    pub bytes: ByteCount,
}

/// What a sweep came to.
#[derive(Debug, Default)]
pub struct Swept {
    /// Data of retired backups.
    pub data: Deleted,
    /// WAL, and what lies beside it.
    pub wal: Deleted,
    /// Backups of which nothing is left but their names.
    pub cleared: Vec<BackupId>,
    /// The store does not let us delete: the first object that it refused to, and why. Nothing else was tried.
    pub refused: Option<(Key, String)>,
    /// Names that no version up to this one writes: left alone.
    pub strangers: Vec<Key>,
}

/// Deletes the data and the names of what may go by `looked`.
///
/// # Errors
/// The store's trouble, or an interrupt. What is left is found again by the next run.
pub(super) fn sweep_backups(
    reader: &mut Reader<'_>,
    looked: &Looked,
    manner: &Manner,
    swept: &mut Swept,
) -> Result<(), RetentionError> {
    for leaving in &looked.leaving {
        let kept = if leaving.has_data { sweep_data(reader, looked, leaving, manner, swept)? } else { false };
        if swept.refused.is_some() {
            return Ok(());
        }
        let is_named = looked.named_by_open.contains(&leaving.id) && !left_out(Step::KeepNamesForOpen);
        if !kept && leaving.has_names && !is_named {
            clear_names(reader, leaving, manner, swept)?;
        }
    }
    Ok(())
}

/// What of a backup's own data is not in `keeps`; and whether anything must stay.
pub(super) fn unneeded_data(
    reader: &Reader<'_>,
    keeps: &Keeps,
    id: &BackupId,
    strangers: &mut Vec<Key>,
) -> Result<(Keys, bool), RetentionError> {
    let (mut goes, mut kept) = (Keys::new(), false);
    let folder = layout::data(reader.stanza(), id)?;
    reader.repository().store().list(&folder, &mut |listed| {
        let stays = match layout::named(&listed.key) {
            Some(Named::Pack(_, owner, number)) => keeps.pack(&owner, number),
            Some(Named::Map(_, owner, _)) => keeps.maps(&owner),
            _ => {
                strangers.push(listed.key.clone());
                true
            }
        };
        if stays {
            kept = true;
        } else {
            goes.push((listed.key, listed.size.as_u64()));
        }
    })?;
    goes.sort_unstable();
    Ok((goes, kept))
}

fn sweep_data(
    reader: &Reader<'_>,
    looked: &Looked,
    leaving: &Leaving,
    manner: &Manner,
    swept: &mut Swept,
) -> Result<bool, RetentionError> {
    let (goes, kept) = unneeded_data(reader, &looked.keeps, &leaving.id, &mut swept.strangers)?;
    let (deleted, refused) = delete_all(reader.repository().store(), &goes, manner)?;
    swept.data.add(&deleted);
    swept.refused = refused;
    Ok(kept)
}

fn clear_names(
    reader: &mut Reader<'_>,
    leaving: &Leaving,
    manner: &Manner,
    swept: &mut Swept,
) -> Result<(), RetentionError> {
    let (repository, stanza, id) = (reader.repository(), reader.stanza(), &leaving.id);
    let outcome = match reader.fate(id) {
        Ok(Some(Fate::Committed(_))) => Some(layout::outcome(stanza, id)?.key),
        Ok(_) => None,
        // Whether it was aborted cannot be told: then it stays, and `started` with it, so that all of this is
        // looked at again.
        Err(RetentionError::Unreadable { .. }) => return Ok(()),
        Err(error) => return Err(error),
    };
    // One after the other: what is left after a crash is found by `started`.
    let started = layout::started(stanza, id)?.key;
    let retired = left_out(Step::KeepRetiredNames).then(|| layout::retired(stanza, id)).transpose()?;
    let notes: Result<Vec<Key>, _> =
        leaving.notes.iter().map(|note| layout::note(stanza, id, *note).map(|place| place.key)).collect();
    let names = retired.map(|place| place.key).into_iter().chain(notes?).chain(outcome).chain([started]);
    for key in names {
        let (_, refused) = delete_all(repository.store(), &[(key, 0)], manner)?;
        if refused.is_some() {
            swept.refused = refused;
            return Ok(());
        }
    }
    swept.cleared.push(id.clone());
    Ok(())
}

/// Deletes what was listed as unneeded and still is by `looked`.
///
/// # Errors
/// As [`sweep_backups`].
pub(super) fn sweep_wal(
    reader: &Reader<'_>,
    looked: &Looked,
    clusters: &[(Lineages, Unneeded)],
    manner: &Manner,
    swept: &mut Swept,
) -> Result<(), RetentionError> {
    let repository = reader.repository();
    for (lineages, unneeded) in clusters {
        let floors = Floors::new(lineages, looked);
        let late = left_out(Step::WalListedFirst)
            .then(|| Unneeded::list(repository, reader.stanza(), &lineages.cluster, &floors))
            .transpose()?;
        for batch in late.as_ref().unwrap_or(unneeded).batches(&floors)? {
            let (deleted, refused) = delete_all(repository.store(), &batch, manner)?;
            swept.wal.add(&deleted);
            if refused.is_some() {
                swept.refused = refused;
                return Ok(());
            }
        }
    }
    Ok(())
}

impl Deleted {
    /// One object more, of this size.
    pub(super) fn count(&mut self, size: ByteCount) {
        self.add(&Self { objects: 1, bytes: size });
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.objects += other.objects;
        self.bytes = self.bytes.plus(other.bytes);
    }
}

pub(super) type Refused = Option<(Key, String)>;

/// What was deleted, and what ended it: a refusal, or trouble.
type Ended = (Deleted, Option<Result<(Key, String), RetentionError>>);

/// Deletes all of `keys`, in their order as far as the workers keep it. Stops at the first that is refused.
pub(super) fn delete_all(
    store: &dyn Store,
    keys: &[(Key, u64)],
    manner: &Manner,
) -> Result<(Deleted, Refused), RetentionError> {
    let next = AtomicUsize::new(0);
    let ended: Mutex<Ended> = Mutex::default();
    let lock = || ended.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let work = || {
        while let Some((key, size)) = keys.get(next.fetch_add(1, Ordering::Relaxed)) {
            if lock().1.is_some() {
                return;
            }
            let trouble = match manner.stop.check() {
                Err(stopped) => Some(Err(stopped.into())),
                Ok(()) => match store.delete(key) {
                    Ok(()) => None,
                    Err(error) if error.kind == StoreErrorKind::Denied => {
                        let why = std::error::Error::source(&error).map(ToString::to_string);
                        Some(Ok((key.clone(), why.unwrap_or_else(|| error.to_string()))))
                    }
                    Err(error) => Some(Err(error.into())),
                },
            };
            let mut ended = lock();
            match trouble {
                None => ended.0.add(&Deleted { objects: 1, bytes: ByteCount::new(*size) }),
                // Trouble that may pass says less than a refusal, but whichever came first is told.
                Some(trouble) => {
                    ended.1.get_or_insert(trouble);
                    return;
                }
            }
        }
    };
    let workers = manner.workers.min(keys.len());
    if workers <= 1 {
        work();
    } else {
        std::thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(work);
            }
        });
    }
    let (deleted, trouble) = ended.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    match trouble {
        None => Ok((deleted, None)),
        Some(Ok(refused)) => Ok((deleted, Some(refused))),
        Some(Err(error)) => Err(error),
    }
}
