//! One backup: its own objects, and its map against the packs that were read.

use super::finding::{Findings, Problem};
use super::packs::Packs;
use super::work::{Bench, Meter};
use super::{VerifyError, Wrong};
use crate::postgres::relation_file::FileKind;
use crate::repo::catalog::CatalogEntry;
use crate::repo::layout::{self, Place};
use crate::repo::map::{Contents, Entry, EntryKind, MapReader};
use crate::repo::record::{Record, Uses};
use crate::repo::{RepoError, Repository};
use crate::units::{BackupId, Stanza};
use std::collections::{BTreeMap, BTreeSet};

/// What was found in one backup.
#[derive(Debug, Default)]
pub(super) struct Looked {
    pub findings: Findings,
    pub objects: u64,
    pub bytes: u64,
    pub files: u64,
    /// Packs in trouble that this backup rests on.
    pub touched: BTreeSet<usize>,
}

pub(super) struct Look<'a, 'm> {
    pub repository: &'a Repository,
    pub stanza: &'a Stanza,
    pub meter: &'m Meter<'m>,
    pub packs: &'m mut Packs,
    pub bench: &'m mut Bench,
}

/// What is counted on the way through a map.
#[derive(Default)]
struct Walk {
    files: u64,
    bytes: u64,
    first_strange: Option<(String, &'static str)>,
    strange: u64,
}

enum Trouble {
    Repo(RepoError),
    Ours(VerifyError),
}

impl From<RepoError> for Trouble {
    fn from(error: RepoError) -> Self {
        Self::Repo(error)
    }
}

impl Look<'_, '_> {
    /// Checks everything but WAL.
    pub(super) fn backup(
        &mut self,
        record: &Record,
        uses: &Uses,
        entry: &CatalogEntry,
    ) -> Result<Looked, VerifyError> {
        let id = &record.backup_id;
        let mut looked = Looked::default();
        self.small_objects(id, entry, &mut looked)?;

        // Packs that cannot be used, by their place in the list.
        let mut spoiled: BTreeMap<usize, Problem> = BTreeMap::new();
        for (owner, packs) in &uses.0 {
            for used in packs {
                let Some(at) = self.packs.find(owner, used.number) else { continue };
                looked.objects += 1;
                looked.bytes = looked.bytes.saturating_add(used.size);
                if let Some(trouble) = self.packs.trouble(at) {
                    spoiled.insert(at, trouble.problem.clone());
                } else if self.packs.contradicts(at, used) {
                    let key = layout::pack(self.stanza, owner, used.number).map_err(RepoError::from)?.key;
                    spoiled.insert(at, Problem::damaged(key, "it is not the pack that the record describes"));
                }
            }
        }

        let whole = self.map_objects(record, &mut looked)?;
        let walked = if whole { self.walk(record, &mut spoiled)? } else { None };
        let map = layout::map(self.stanza, id, record.map.index_object).map_err(RepoError::from)?.key;
        match walked {
            Some(Ok(walk)) => {
                looked.files = walk.files;
                if let Some((path, why)) = walk.first_strange {
                    let more = match walk.strange {
                        1 => String::new(),
                        more => format!(", and so with {} more files", more - 1),
                    };
                    looked.findings.push(Problem::damaged(&map, format!("{path}: {why}{more}")));
                }
                let sizes = &record.sizes;
                if (walk.files, walk.bytes) != (sizes.files, sizes.database_bytes) {
                    let why = format!(
                        "it has {} files of {} bytes together, the record says {} of {}",
                        walk.files, walk.bytes, sizes.files, sizes.database_bytes
                    );
                    looked.findings.push(Problem::damaged(&map, why));
                }
                // A frame that no file of this backup lies in does it no harm.
                spoiled.retain(|at, problem| {
                    let partly = self.packs.trouble(*at).is_some_and(|trouble| trouble.frames.is_some());
                    let contradicted = self.packs.trouble(*at).is_none();
                    !partly || contradicted || !problem.affected.is_empty()
                });
            }
            Some(Err(error)) => {
                self.meter.note(&error);
                looked.findings.push(Problem::of(error, &map)?);
            }
            None => {}
        }
        for (at, problem) in spoiled {
            looked.touched.insert(at);
            looked.findings.push(problem);
        }
        Ok(looked)
    }

    fn small_objects(
        &mut self,
        id: &BackupId,
        entry: &CatalogEntry,
        looked: &mut Looked,
    ) -> Result<(), VerifyError> {
        // The record has been read.
        looked.objects += 2;
        let started = layout::started(self.stanza, id).map_err(RepoError::from)?;
        if let Err(error) = self.repository.read_started(self.stanza, id) {
            self.meter.note(&error);
            looked.findings.push(Problem::of(error, &started.key)?);
        }
        let notes = self.repository.read_notes(self.stanza, id, &entry.notes);
        looked.objects += entry.notes.len() as u64;
        for (note, error) in notes.into_unread() {
            self.meter.note(&error);
            let key = layout::note(self.stanza, id, note).map_err(RepoError::from)?.key;
            looked.findings.push(Problem::of(error, &key)?);
        }
        Ok(())
    }

    /// Reads every frame of the map's own objects; whether all are good.
    fn map_objects(&mut self, record: &Record, looked: &mut Looked) -> Result<bool, VerifyError> {
        let mut whole = true;
        for number in 0..record.map.objects {
            self.meter.check()?;
            let place = layout::map(self.stanza, &record.backup_id, number).map_err(RepoError::from)?;
            match self.object(&place) {
                Ok(bytes) => {
                    looked.objects += 1;
                    looked.bytes = looked.bytes.saturating_add(bytes);
                }
                Err(error) => {
                    self.meter.note(&error);
                    whole = false;
                    looked.findings.push(Problem::of(error, &place.key)?);
                }
            }
        }
        Ok(whole)
    }

    /// Every frame of an object; gives its stored bytes.
    fn object(&mut self, place: &Place) -> Result<u64, RepoError> {
        let reader = self.repository.reader(place)?;
        for frame in 0..reader.frames().len() {
            let mut span = reader.fetch(self.repository.store(), frame..frame + 1)?;
            reader.decode(&mut span, frame, &mut self.bench.decoder, &mut self.bench.plain)?;
        }
        self.meter.read(reader.size());
        self.meter.object();
        Ok(reader.size())
    }

    /// Holds every entry of the map against the packs.
    fn walk(
        &mut self,
        record: &Record,
        spoiled: &mut BTreeMap<usize, Problem>,
    ) -> Result<Option<Result<Walk, RepoError>>, VerifyError> {
        let opened = MapReader::open(self.repository, self.stanza, &record.backup_id, &record.map);
        let mut map = match opened {
            Ok(map) => map,
            Err(error) => return Ok(Some(Err(error))),
        };
        // The table of owners grows while pages are read; a first pass fills it.
        if let Err(error) = map.for_each(|_| Ok::<(), RepoError>(())) {
            return Ok(Some(Err(error)));
        }
        let owners = map.owners().to_vec();
        let mut walk = Walk::default();
        let page_size = u64::from(record.cluster.page_size_bytes.max(1));
        let result = map.for_each(|entry| {
            if walk.files % 1024 == 0 {
                self.meter.check().map_err(Trouble::Ours)?;
            }
            self.entry(&entry, &owners, page_size, &mut walk, spoiled).map_err(Trouble::Ours)
        });
        match result {
            Ok(()) => Ok(Some(Ok(walk))),
            Err(Trouble::Repo(error)) => Ok(Some(Err(error))),
            Err(Trouble::Ours(error)) => Err(error),
        }
    }

    fn entry(
        &mut self,
        entry: &Entry,
        owners: &[BackupId],
        page_size: u64,
        walk: &mut Walk,
        spoiled: &mut BTreeMap<usize, Problem>,
    ) -> Result<(), VerifyError> {
        let EntryKind::File { size, contents, .. } = &entry.kind else { return Ok(()) };
        walk.files += 1;
        walk.bytes = walk.bytes.saturating_add(*size);
        let paged = std::str::from_utf8(&entry.path)
            .is_ok_and(|path| FileKind::of_path(path).relation().is_some())
            && size % page_size == 0;
        // The pages in these bytes of the file.
        let blocks = |from: u64, to: u64| paged.then(|| (from / page_size, (to - 1) / page_size));
        let mut strange = |why| {
            walk.strange += 1;
            let path = || (String::from_utf8_lossy(&entry.path).into_owned(), why);
            walk.first_strange.get_or_insert_with(path);
        };
        match contents {
            Contents::Empty => {}
            Contents::Shared { pack, frame, offset } => {
                let owner = owners.get(pack.owner as usize);
                let Some(at) = owner.and_then(|owner| self.packs.find(owner, pack.number)) else {
                    strange("it lies in a pack that the record does not name");
                    return Ok(());
                };
                if self.packs.trouble(at).is_some_and(|trouble| trouble.spoils(*frame)) {
                    if let Some(problem) = spoiled.get_mut(&at) {
                        problem.add(&entry.path, blocks(0, *size));
                    }
                    return Ok(());
                }
                let length = self.packs.table(at)?.get(*frame as usize).copied();
                if length.is_none_or(|length| u64::from(length) < u64::from(*offset) + size) {
                    strange("its bytes are not in the frame that the map names");
                }
            }
            Contents::Frames { frame_bytes, runs } => {
                let each = u64::from(*frame_bytes);
                let mut from = 0_u64;
                let mut told = false;
                for run in runs {
                    let owner = owners.get(run.pack.owner as usize);
                    let found = owner.and_then(|owner| self.packs.find(owner, run.pack.number));
                    let Some(at) = found else {
                        strange("it lies in a pack that the record does not name");
                        return Ok(());
                    };
                    let table = self.packs.table(at)?;
                    for frame in run.first..run.first + run.count {
                        let to = size.min(&(from + each)).to_owned();
                        if self.packs.trouble(at).is_some_and(|trouble| trouble.spoils(frame)) {
                            if let Some(problem) = spoiled.get_mut(&at) {
                                problem.add(&entry.path, blocks(from, to));
                            }
                        } else if !told
                            && table.get(frame as usize).copied().map(u64::from) != Some(to - from)
                        {
                            told = true;
                            strange("a frame of it has another length than the map says");
                        }
                        from = to;
                    }
                }
            }
        }
        Ok(())
    }
}

/// The record of a backup and what it uses, or what is wrong with it.
pub(super) enum Recorded {
    Committed(Box<Record>, Uses),
    Aborted,
    Wrong(Problem),
}

pub(super) fn record(
    repository: &Repository,
    stanza: &Stanza,
    id: &BackupId,
    meter: &Meter<'_>,
) -> Result<Recorded, VerifyError> {
    use crate::repo::record::Outcome;
    let key = layout::outcome(stanza, id).map_err(RepoError::from)?.key;
    if meter.given_up() {
        let problem = Problem::new(Wrong::NotChecked, key, "the store did not answer any more");
        return Ok(Recorded::Wrong(problem));
    }
    Ok(match repository.read_outcome(stanza, id) {
        Ok((Outcome::Committed(record), uses)) => {
            meter.object();
            Recorded::Committed(record, uses)
        }
        Ok((Outcome::Aborted(_), _)) => Recorded::Aborted,
        Err(error) => {
            meter.note(&error);
            Recorded::Wrong(Problem::of(error, &key)?)
        }
    })
}
