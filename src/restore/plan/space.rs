//! Whether there is room, on each file system.

use super::PlanError;
use super::choose::View;
use crate::repo::RepoError;
use crate::repo::map::{EntryKind, MapReader};
use crate::restore::candidates::Candidate;
use crate::restore::directory::{Place, Room};
use crate::restore::target::Goal;
use crate::restore::tree::tablespace_of;
use crate::units::ByteCount;
use crate::wal::archive::lineage::Needed;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Segments that recovery keeps at a time.
const WAL_AT_A_TIME: u64 = 3;

/// What is needed.
pub(super) struct Space {
    /// In the data directory's file system, with all else that lies there.
    pub needed: ByteCount,
    /// Bytes of each tablespace, by OID.
    pub in_spaces: BTreeMap<u32, u64>,
}

/// What comes to one file system.
struct Sum {
    bytes: u64,
    freed: u64,
    free: ByteCount,
    path: PathBuf,
    what: Vec<Option<u32>>,
}

/// File systems by device.
#[derive(Default)]
struct Sums(BTreeMap<u64, Sum>);

impl Sums {
    fn add(&mut self, room: Room, path: &Path, what: Option<u32>, bytes: u64, freed: ByteCount) {
        let sum = self.0.entry(room.device).or_insert_with(|| Sum {
            bytes: 0,
            freed: 0,
            free: room.free,
            path: path.to_owned(),
            what: Vec::new(),
        });
        sum.bytes = sum.bytes.saturating_add(bytes);
        sum.freed = sum.freed.saturating_add(freed.as_u64());
        sum.what.push(what);
    }
}

impl View<'_, '_> {
    /// Adds up what each file system must hold, and compares.
    pub(super) fn check_space(
        &self,
        chosen: &Candidate,
        place: &Place,
        wal: &Needed,
    ) -> Result<Space, PlanError> {
        let repository = chosen.repository;
        let failed = |error: RepoError| PlanError::Repo(repository, error);
        let record = &chosen.record;
        let Some(repo) = self.request.repositories.get(repository) else { return Err(PlanError::NoBackup) };
        // Opened in any case: it proves that the map and its key are there.
        let mut map =
            MapReader::open(repo, self.request.stanza, &record.backup_id, &record.map).map_err(failed)?;
        let mut in_spaces: BTreeMap<u32, u64> =
            record.tablespaces.iter().map(|tablespace| (tablespace.oid, 0)).collect();
        if !record.tablespaces.is_empty() {
            map.for_each(|entry| {
                if let (Some((oid, _)), EntryKind::File { size, .. }) =
                    (tablespace_of(&entry.path), &entry.kind)
                {
                    *in_spaces.entry(oid).or_default() += size;
                }
                Ok::<(), RepoError>(())
            })
            .map_err(failed)?;
        }
        let of = |oid: u32| in_spaces.get(&oid).copied().unwrap_or(0);
        let elsewhere: u64 = place.tablespaces.iter().map(|space| of(space.oid)).sum();
        let base = record.sizes.database_bytes.saturating_sub(elsewhere);
        let segments = match self.request.target.goal {
            Goal::None => wal.count(),
            _ => WAL_AT_A_TIME,
        };
        let wal_bytes = segments.saturating_mul(self.size.bytes());
        let mut sums = Sums::default();
        sums.add(place.room, &place.pgdata, None, base, place.freed);
        match &place.wal_dir {
            Some((path, room)) => sums.add(*room, path, None, wal_bytes, ByteCount::ZERO),
            None => sums.add(place.room, &place.pgdata, None, wal_bytes, ByteCount::ZERO),
        }
        for space in &place.tablespaces {
            sums.add(space.room, &space.path, Some(space.oid), of(space.oid), space.freed);
        }
        let needed = sums.0.get(&place.room.device).map_or(base, |sum| sum.bytes);
        for sum in sums.0.into_values() {
            let free = sum.free.plus(ByteCount::new(sum.freed));
            if ByteCount::new(sum.bytes) > free {
                let needed = ByteCount::new(sum.bytes);
                return Err(PlanError::NoSpace { path: sum.path, what: sum.what, needed, free });
            }
        }
        Ok(Space { needed: ByteCount::new(needed), in_spaces })
    }
}
