//! Which tablespaces the replay of a segment creates, before PostgreSQL is given it.
//!
//! What a complete segment creates by itself is noted in its sealed footer. Of what was put together or cut nobody noted
//! anything, so it is walked. A record that begins in the segment before is noted nowhere: it is put together here, from
//! the first bytes of this segment and the last pages of the one before. PostgreSQL keeps a restored segment in `pg_wal`
//! (`KeepFileRestoredFromArchive`), so that one is there whenever it was replayed; else it is looked for in the
//! repositories. Nearly all records are told from such a one by their last bytes, without a look at the segment before.
//!
//! Where the record that ends here may create a tablespace and its beginning is not to be had, the segment is not given:
//! a recovery that stops can be helped, and a living cluster whose files another one went on in cannot. What begins before
//! the point where replay begins is not replayed, and stops nobody.

use super::Cluster;
use super::decide::{Doubt, Trouble};
use super::repositories::Candidate;
use super::tablespaces::Server;
use super::target::TargetFile;
use crate::postgres::wal::crossing::{BEGINNING, NotBefore, RecordEnd};
use crate::postgres::wal::page::Dialect;
use crate::postgres::wal::reader::OwnedRecord;
use crate::postgres::wal::records::{Known, decode};
use crate::repo::layout;
use crate::units::{Lsn, SegmentName};
use crate::wal::scan::SegmentScan;
use crate::wal::{CreatedTablespace, read};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// The segment that is to be given, and who is to have it.
pub(super) struct Look<'a, 'b> {
    pub cluster: &'a Cluster<'a>,
    pub candidates: &'a [Candidate<'b>],
    /// Every byte of it as PostgreSQL will see it.
    pub file: &'a TargetFile,
    pub name: SegmentName,
    pub server: &'a Server,
    /// Where the server keeps its segments.
    pub pg_wal: &'a Path,
}

impl Look<'_, '_> {
    /// Why the segment is not to be given, with the row of the table; `None` if nothing speaks against it. `noted` is what
    /// its footer says it creates, if PostgreSQL gets it as it was stored.
    ///
    /// # Errors
    /// When what is to be given cannot be read back.
    pub fn doubt(&self, noted: Option<&[CreatedTablespace]>) -> io::Result<Option<(u8, Doubt)>> {
        if let Some(tablespace) = self.within(noted)? {
            return Ok(Some((16, Doubt::TablespaceInUse(tablespace))));
        }
        self.across()
    }

    /// Whether a record at this place may be replayed.
    fn is_replayed(&self, at: Lsn) -> bool {
        self.server.replays_from.is_none_or(|from| at >= from)
    }

    /// The tablespace in use that a record of the segment itself creates.
    fn within(&self, noted: Option<&[CreatedTablespace]>) -> io::Result<Option<CreatedTablespace>> {
        if noted.is_some_and(|noted| self.server.in_use(noted).is_none()) {
            return Ok(None);
        }
        let found = self.walk()?;
        let mut created: Vec<CreatedTablespace> = noted.unwrap_or_default().to_vec();
        // The footer does not say where. Of a version that is unknown here, it is all there is.
        created.retain(|one| found.iter().all(|(_, other)| other != one));
        created.extend(found.into_iter().filter(|(at, _)| self.is_replayed(*at)).map(|(_, one)| one));
        Ok(self.server.in_use(&created).cloned())
    }

    fn walk(&self) -> io::Result<Vec<(Lsn, CreatedTablespace)>> {
        let mut scan = SegmentScan::new(self.name);
        let mut buffer = vec![0; 128 * 1024];
        let mut at = 0;
        loop {
            let length = self.file.read_some_at(at, &mut buffer)?;
            // What is no segment PostgreSQL does not replay either.
            if length == 0 || scan.feed(&buffer[..length]).is_err() {
                return Ok(scan.tablespaces_created());
            }
            at += length as u64;
        }
    }

    /// The same of the record that begins in the segment before and ends in this one.
    fn across(&self) -> io::Result<Option<(u8, Doubt)>> {
        let mut beginning = vec![0; BEGINNING];
        self.file.read_at(0, &mut beginning)?;
        let Some(end) = RecordEnd::of(&beginning).filter(RecordEnd::may_end_a_tablespace_created) else {
            return Ok(None);
        };
        let identity = end.identity();
        // Of a version that is unknown here nothing is known of records within segments either.
        let Some(dialect) = Dialect::of_magic(identity.magic) else { return Ok(None) };
        // The last place where it can begin.
        let latest = Lsn::new(identity.start.as_u64().saturating_sub(8));
        if !self.is_replayed(latest) {
            return Ok(None);
        }
        // The page in which a record ends is of the timeline that it was written on; the file may be a later one's.
        let mut before: Vec<SegmentName> = [identity.timeline, self.name.timeline()]
            .into_iter()
            .filter_map(|timeline| {
                let number = self.name.number(self.cluster.size)?.checked_sub(1)?;
                SegmentName::from_number(timeline, number, self.cluster.size)
            })
            .collect();
        before.dedup();
        let record = match self.begun_in(&before, &end) {
            Begun::Record(record) => record,
            Begun::Nowhere => return Ok(None),
            Begun::Unknown(troubles) => {
                let Some(before) = before.first().copied() else { return Ok(None) };
                return Ok(Some((17, Doubt::TablespaceUnknown { before, troubles })));
            }
        };
        let created = match decode(dialect, &record.as_record()) {
            Ok(Some(Known::TablespaceCreated { oid, location })) if self.is_replayed(record.lsn) => {
                CreatedTablespace { oid, location: String::from_utf8_lossy(&location).into_owned() }
            }
            _ => return Ok(None),
        };
        let in_use = self.server.in_use(std::slice::from_ref(&created)).is_some();
        Ok(in_use.then_some((16, Doubt::TablespaceInUse(created))))
    }

    /// The whole record, with its beginning from whoever has the segment before.
    fn begun_in(&self, before: &[SegmentName], end: &RecordEnd) -> Begun {
        let mut seen = false;
        for name in before {
            match self.kept_by_the_server(*name, end.bytes_before()).map(|tail| end.join(&tail)) {
                Some(Ok(Some(record))) => return Begun::Record(Box::new(record)),
                Some(Ok(None)) => seen = true,
                // Another segment's file that was renamed for future use is none.
                Some(Err(NotBefore)) | None => {}
            }
        }
        let mut troubles = Vec::new();
        for candidate in self.candidates {
            for name in before {
                match self.stored(candidate, *name, end.bytes_before()) {
                    Ok(Some(tail)) => match end.join(&tail) {
                        Ok(Some(record)) => return Begun::Record(Box::new(record)),
                        Ok(None) => seen = true,
                        Err(NotBefore) => troubles.push(candidate.damaged("its last pages are not its own")),
                    },
                    Ok(None) => {}
                    Err(trouble) => {
                        troubles.push(trouble);
                        break;
                    }
                }
            }
        }
        // What PostgreSQL has of the segment before does not go on here: to it there is no record either.
        if seen && troubles.is_empty() { Begun::Nowhere } else { Begun::Unknown(troubles) }
    }

    fn kept_by_the_server(&self, name: SegmentName, length: u64) -> Option<Vec<u8>> {
        let path = self.pg_wal.join(name.to_string());
        let size = self.cluster.size.bytes();
        let is_whole = |found: fs::Metadata| found.is_file() && found.len() == size;
        if !fs::metadata(&path).is_ok_and(is_whole) {
            return None;
        }
        let length = length.min(size);
        let mut tail = vec![0; usize::try_from(length).ok()?];
        File::open(path).ok()?.read_exact_at(&mut tail, size - length).ok()?;
        Some(tail)
    }

    fn stored(
        &self,
        candidate: &Candidate<'_>,
        name: SegmentName,
        length: u64,
    ) -> Result<Option<Vec<u8>>, Trouble> {
        let Cluster { stanza, system, .. } = *self.cluster;
        let wal = candidate.wal(stanza, system)?;
        let place = layout::segment(stanza, system, name).map_err(|e| candidate.trouble(&e.into()))?;
        match read::read_segment_end(wal, name, length) {
            Ok(tail) => Ok(Some(tail)),
            Err(error) => match candidate.wal_trouble(&place.key, &error) {
                Some(trouble) => Err(trouble),
                None => candidate.knows_cluster(stanza, system).map(|()| None),
            },
        }
    }
}

/// Where the record begins that ends in the segment.
enum Begun {
    /// Here it is.
    Record(Box<OwnedRecord>),
    /// Nowhere: what stands before does not go on here.
    Nowhere,
    /// The segment before is not to be had.
    Unknown(Vec<Trouble>),
}
