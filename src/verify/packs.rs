//! Packs: each is read once, however many backups use it, frame by frame.
//!
//! What is kept of a pack for the maps is the plain lengths of its frames, in a file without a name below the
//! spool directory: most frames are full, and only the others are written down.

use super::finding::Problem;
use super::work::{Bench, Meter, each};
use super::{VerifyError, Wrong};
use crate::env::Env;
use crate::repo::frame::DATA_FRAME;
use crate::repo::layout::{self, hex};
use crate::repo::record::{UsedPack, Uses};
use crate::repo::varint::{Take, put};
use crate::repo::{RepoError, Repository};
use crate::units::{BackupId, Stanza};
use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Stored bytes that one read fetches: what a worker holds beside one frame.
const FETCH: u64 = 4 << 20;
/// Tables of lengths that are kept in memory: at most 32 KiB each.
const TABLES: usize = 64;

/// Every pack that any of the backups uses, by the one that stored it.
#[derive(Default)]
pub(super) struct PackList(BTreeMap<BackupId, Vec<UsedPack>>);

impl PackList {
    /// Adds what a backup uses.
    pub(super) fn add(&mut self, uses: Uses) {
        for (owner, packs) in uses.0 {
            let held = self.0.entry(owner).or_default();
            held.extend(packs);
            held.sort_by_key(|pack| pack.number);
            // Where two records disagree, the check of each backup's own list tells.
            held.dedup_by_key(|pack| pack.number);
        }
    }

    pub(super) fn stored_bytes(&self) -> u64 {
        self.0.values().flatten().fold(0, |sum, pack| sum.saturating_add(pack.size))
    }
}

/// What is wrong with a pack.
#[derive(Clone, Debug)]
pub(super) struct PackTrouble {
    /// Without any files yet.
    pub problem: Problem,
    /// The frames that cannot be used; `None`: all of them.
    pub frames: Option<Vec<u32>>,
}

impl PackTrouble {
    /// Whether a frame cannot be used.
    pub(super) fn spoils(&self, frame: u32) -> bool {
        self.frames.as_ref().is_none_or(|frames| frames.binary_search(&frame).is_ok())
    }
}

struct Lengths {
    file: File,
    end: Mutex<u64>,
}

#[derive(Clone, Copy, Default)]
struct Place {
    at: u64,
    bytes: u32,
    frames: u32,
    size: u64,
}

/// Packs that were read.
pub(super) struct Packs {
    list: PackList,
    /// Where each owner's packs begin in `places`.
    starts: BTreeMap<BackupId, usize>,
    places: Vec<Place>,
    lengths: Lengths,
    troubles: BTreeMap<usize, PackTrouble>,
    tables: HashMap<usize, Arc<Vec<u32>>>,
}

/// Reads every pack of the list.
///
/// # Errors
/// Only ours: what is wrong with a pack is kept.
pub(super) fn read_all(
    repository: &Repository,
    stanza: &Stanza,
    list: PackList,
    meter: &Meter<'_>,
    workers: usize,
    spool: &Path,
    env: &dyn Env,
) -> Result<Packs, VerifyError> {
    let mut starts = BTreeMap::new();
    let mut count = 0;
    for (owner, packs) in &list.0 {
        starts.insert(owner.clone(), count);
        count += packs.len();
    }
    let lengths = Lengths { file: unnamed_file(spool, env)?, end: Mutex::new(0) };
    let places = Mutex::new(vec![Place::default(); count]);
    let troubles = Mutex::new(BTreeMap::new());
    let mut jobs = list.0.iter().flat_map(|(owner, packs)| packs.iter().map(move |pack| (owner, pack)));
    let mut number = 0_usize;
    let next = || {
        let job = jobs.next().map(|(owner, pack)| (number, owner, pack));
        number += 1;
        Ok(job)
    };
    each(workers, meter, next, |bench, (at, owner, pack)| {
        let place = layout::pack(stanza, owner, pack.number).map_err(RepoError::from)?;
        if meter.given_up() {
            let problem = Problem::new(Wrong::NotChecked, &place.key, "the store did not answer any more");
            lock(&troubles).insert(at, PackTrouble { problem, frames: None });
            return Ok(());
        }
        match read_pack(repository, &place, bench, meter) {
            Ok(read) => {
                let mut trouble = read.trouble;
                if trouble.is_none() && (read.size != pack.size || read.frames != pack.frames) {
                    let problem =
                        Problem::damaged(&place.key, "it is not the pack that the record describes");
                    trouble = Some(PackTrouble { problem, frames: Some(Vec::new()) });
                }
                lock(&troubles).extend(trouble.map(|trouble| (at, trouble)));
                let stored = lengths.append(&read.exceptions)?;
                let bytes = u32::try_from(read.exceptions.len()).unwrap_or(u32::MAX);
                lock(&places)[at] = Place { at: stored, bytes, frames: read.frames, size: read.size };
            }
            Err(error) => {
                meter.note(&error);
                let problem = Problem::of(error, &place.key)?;
                lock(&troubles).insert(at, PackTrouble { problem, frames: None });
            }
        }
        Ok(())
    })?;
    let places = places.into_inner().unwrap_or_else(PoisonError::into_inner);
    let troubles = troubles.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(Packs { starts, places, lengths, troubles, tables: HashMap::new(), list })
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Read {
    frames: u32,
    size: u64,
    /// Frames that are not full, as varint pairs: distance from the one before, and length.
    exceptions: Vec<u8>,
    trouble: Option<PackTrouble>,
}

fn read_pack(
    repository: &Repository,
    place: &layout::Place,
    bench: &mut Bench,
    meter: &Meter<'_>,
) -> Result<Read, RepoError> {
    let reader = repository.reader(place)?;
    let count = reader.frames().len();
    let mut exceptions = Vec::new();
    let mut before = 0;
    for (at, frame) in reader.frames().iter().enumerate() {
        if frame.raw != DATA_FRAME as u32 {
            put(&mut exceptions, (at - before) as u64);
            put(&mut exceptions, frame.raw.into());
            before = at;
        }
    }
    let (mut bad, mut first) = (Vec::new(), None);
    let mut next = 0;
    while next < count {
        let mut end = next + 1;
        while end < count && reader.stored_bytes(&(next..end + 1)).is_some_and(|bytes| bytes <= FETCH) {
            end += 1;
        }
        let mut span = reader.fetch(repository.store(), next..end)?;
        for frame in next..end {
            match reader.decode(&mut span, frame, &mut bench.decoder, &mut bench.plain) {
                Ok(()) => {}
                Err(RepoError::Damaged { object, why }) => {
                    bad.push(frame as u32);
                    first.get_or_insert((object, why));
                }
                Err(other) => return Err(other),
            }
        }
        meter.read(reader.stored_bytes(&(next..end)).unwrap_or(0));
        next = end;
    }
    meter.object();
    let trouble = first.map(|(object, why)| {
        let more = bad.len() - 1;
        let why = if more == 0 { why } else { format!("{why}, and so do {more} more") };
        PackTrouble { problem: Problem::damaged(object, why), frames: Some(bad) }
    });
    Ok(Read { frames: count as u32, size: reader.size(), exceptions, trouble })
}

impl Lengths {
    fn append(&self, bytes: &[u8]) -> Result<u64, VerifyError> {
        let mut end = lock(&self.end);
        let at = *end;
        self.file.write_all_at(bytes, at).map_err(VerifyError::Spool)?;
        *end += bytes.len() as u64;
        Ok(at)
    }
}

/// A file that is gone when it is closed, by us or by a crash.
fn unnamed_file(spool: &Path, env: &dyn Env) -> Result<File, VerifyError> {
    std::fs::create_dir_all(spool).map_err(VerifyError::Spool)?;
    let mut random = [0; 8];
    env.random(&mut random).map_err(RepoError::from)?;
    let path = spool.join(format!("walden-verify-{}", hex(&random)));
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path);
    let file = file.map_err(VerifyError::Spool)?;
    std::fs::remove_file(&path).map_err(VerifyError::Spool)?;
    Ok(file)
}

impl Packs {
    /// The place of a pack in the list; `None` for one that no backup's record names.
    pub(super) fn find(&self, owner: &BackupId, number: u32) -> Option<usize> {
        let at = self.list.0.get(owner)?.binary_search_by_key(&number, |pack| pack.number).ok()?;
        Some(self.starts.get(owner)? + at)
    }

    pub(super) fn trouble(&self, at: usize) -> Option<&PackTrouble> {
        self.troubles.get(&at)
    }

    pub(super) fn troubles(&self) -> impl Iterator<Item = (usize, &PackTrouble)> {
        self.troubles.iter().map(|(at, trouble)| (*at, trouble))
    }

    /// Whether a pack that could be opened has another size or number of frames than this record says.
    pub(super) fn contradicts(&self, at: usize, used: &UsedPack) -> bool {
        let opened = self.trouble(at).is_none_or(|trouble| trouble.frames.is_some());
        let place = self.places.get(at).copied().unwrap_or_default();
        opened && (place.size, place.frames) != (used.size, used.frames)
    }

    /// The plain lengths of a pack's frames; empty for one that could not be opened.
    pub(super) fn table(&mut self, at: usize) -> Result<Arc<Vec<u32>>, VerifyError> {
        if let Some(table) = self.tables.get(&at) {
            return Ok(Arc::clone(table));
        }
        let place = self.places.get(at).copied().unwrap_or_default();
        let mut bytes = vec![0; place.bytes as usize];
        self.lengths.file.read_exact_at(&mut bytes, place.at).map_err(VerifyError::Spool)?;
        let mut table = vec![DATA_FRAME as u32; place.frames as usize];
        let mut take = Take::new(&bytes);
        let mut frame = 0;
        while take.left() > 0 {
            // Our own file: what does not parse leaves a length that fits nothing.
            let (Ok(step), Ok(length)) = (take.number(), take.number32()) else { break };
            frame += usize::try_from(step).unwrap_or(usize::MAX / 2);
            if let Some(slot) = table.get_mut(frame) {
                *slot = length;
            }
        }
        if self.tables.len() >= TABLES {
            self.tables.clear();
        }
        let table = Arc::new(table);
        self.tables.insert(at, Arc::clone(&table));
        Ok(table)
    }
}
