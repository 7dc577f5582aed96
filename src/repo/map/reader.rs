//! Reading the map: the index first, then pages one after the other or the one that holds a path.

use super::LONGEST_PATH;
use super::entry::Entry;
use super::writer::VERSION;
use crate::repo::error::RepoError;
use crate::repo::frame::FrameDecoder;
use crate::repo::layout;
use crate::repo::object::ObjectReader;
use crate::repo::record::MapPlace;
use crate::repo::repository::Repository;
use crate::repo::varint::{Malformed, Take};
use crate::storage::Key;
use crate::units::{BackupId, Stanza};

/// Pages fetched with one read, about 100 KiB stored.
const PAGES_AT_ONCE: usize = 8;
/// The most owners of a page or an index.
const MOST_OWNERS: u64 = 1 << 16;

#[derive(Debug, Clone)]
struct PagePlace {
    owner: u32,
    object: u32,
    frame: usize,
    first: Vec<u8>,
}

/// An open map. Memory is its index (about 60 bytes a thousand files) and one page.
pub struct MapReader<'a> {
    repository: &'a Repository,
    stanza: &'a Stanza,
    owners: Vec<BackupId>,
    pages: Vec<PagePlace>,
    open: Option<(u32, u32, ObjectReader)>,
    decoder: FrameDecoder,
    entries: u64,
}

impl std::fmt::Debug for MapReader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MapReader({} pages)", self.pages.len())
    }
}

impl<'a> MapReader<'a> {
    /// Opens the map of backup `id`, whose record says where it is.
    ///
    /// # Errors
    /// Missing or damaged objects, or the store's trouble.
    pub fn open(
        repository: &'a Repository,
        stanza: &'a Stanza,
        id: &BackupId,
        place: &MapPlace,
    ) -> Result<Self, RepoError> {
        let decoder =
            FrameDecoder::new().map_err(|_| RepoError::TooLarge { what: "the map's index".to_owned() })?;
        let mut map = Self {
            repository,
            stanza,
            owners: vec![id.clone()],
            pages: Vec::new(),
            open: None,
            decoder,
            entries: place.entries,
        };
        let index = PagePlace {
            owner: 0,
            object: place.index_object,
            frame: place.index_frame as usize,
            first: Vec::new(),
        };
        let mut plain = Vec::new();
        let key = map.fetch(std::slice::from_ref(&index), |_, bytes| {
            plain.extend_from_slice(bytes);
            Ok(())
        })?;
        map.read_index(&plain, place)
            .map_err(|_| RepoError::damaged(&key, "the map's index is not understood"))?;
        Ok(map)
    }

    fn read_index(&mut self, plain: &[u8], place: &MapPlace) -> Result<(), Malformed> {
        let mut take = Take::new(plain);
        if take.byte()? != VERSION {
            return Err(Malformed);
        }
        let owners = self.read_owners(&mut take)?;
        let count = take.number()?;
        if count != place.pages || count > take.left() as u64 / 4 {
            return Err(Malformed);
        }
        for _ in 0..count {
            let owner = *owners.get(take.number32()? as usize).ok_or(Malformed)?;
            let page = PagePlace {
                owner,
                object: take.number32()?,
                frame: take.number32()? as usize,
                first: take.bytes(LONGEST_PATH)?.to_vec(),
            };
            if self.pages.last().is_some_and(|before| before.first >= page.first) {
                return Err(Malformed);
            }
            self.pages.push(page);
        }
        take.end()
    }

    /// Reads a table of owners; its numbers become numbers in the map's own table. Number 0 is the backup
    /// whose map object it stands in.
    fn read_owners(&mut self, take: &mut Take<'_>) -> Result<Vec<u32>, Malformed> {
        let mut owners = vec![0];
        for _ in 0..take.at_most(MOST_OWNERS)? {
            let id: BackupId =
                std::str::from_utf8(take.bytes(64)?).ok().and_then(|id| id.parse().ok()).ok_or(Malformed)?;
            let at = self.owners.iter().position(|held| *held == id).unwrap_or_else(|| {
                self.owners.push(id);
                self.owners.len() - 1
            });
            owners.push(u32::try_from(at).map_err(|_| Malformed)?);
        }
        Ok(owners)
    }

    /// The backups that stored packs of this one; entries' `owner` is an index into it. Grows while pages
    /// are read.
    #[must_use]
    pub fn owners(&self) -> &[BackupId] {
        &self.owners
    }

    /// How many entries there are.
    #[must_use]
    pub const fn entry_count(&self) -> u64 {
        self.entries
    }

    /// Fetches pages that lie one after the other in one object, and gives each to `each`.
    fn fetch(
        &mut self,
        pages: &[PagePlace],
        mut each: impl FnMut(&mut Self, &[u8]) -> Result<(), RepoError>,
    ) -> Result<Key, RepoError> {
        let Some(first) = pages.first() else { return Ok(Key::new("none")?) };
        let owner = self.owners.get(first.owner as usize).cloned().unwrap_or_else(|| self.owners[0].clone());
        let place = layout::map(self.stanza, &owner, first.object)?;
        let reader = match self.open.take() {
            Some((owner, object, reader)) if owner == first.owner && object == first.object => reader,
            _ => self.repository.reader(&place)?,
        };
        let mut span = reader.fetch(self.repository.store(), first.frame..first.frame + pages.len())?;
        let mut plain = Vec::new();
        for page in pages {
            reader.decode(&mut span, page.frame, &mut self.decoder, &mut plain)?;
            each(self, &plain)?;
        }
        self.open = Some((first.owner, first.object, reader));
        Ok(place.key)
    }

    fn read_page(&mut self, plain: &[u8]) -> Result<Vec<Entry>, Malformed> {
        let mut take = Take::new(plain);
        if take.byte()? != VERSION {
            return Err(Malformed);
        }
        let owners = self.read_owners(&mut take)?;
        let count = take.at_most(take.left() as u64)?;
        let mut entries = Vec::new();
        for _ in 0..count {
            let mut entry = Entry::decode(&mut take)?;
            for pack in entry.packs_mut() {
                pack.owner = *owners.get(pack.owner as usize).ok_or(Malformed)?;
            }
            entries.push(entry);
        }
        take.end()?;
        Ok(entries)
    }

    /// Gives every entry to `each`, in order of the paths.
    ///
    /// # Errors
    /// The first error of `each`; missing or damaged objects; damage when the entries are out of order or
    /// not as many as the record says.
    pub fn for_each<E: From<RepoError>>(
        &mut self,
        mut each: impl FnMut(Entry) -> Result<(), E>,
    ) -> Result<(), E> {
        let pages = std::mem::take(&mut self.pages);
        let result = self.walk(&pages, &mut each);
        self.pages = pages;
        result
    }

    fn walk<E: From<RepoError>>(
        &mut self,
        pages: &[PagePlace],
        each: &mut impl FnMut(Entry) -> Result<(), E>,
    ) -> Result<(), E> {
        let (mut seen, mut last): (u64, Option<Vec<u8>>) = (0, None);
        let mut at = 0;
        while let Some(first) = pages.get(at) {
            let together = pages[at..]
                .iter()
                .take(PAGES_AT_ONCE)
                .zip(first.frame..)
                .take_while(|(page, frame)| {
                    page.owner == first.owner && page.object == first.object && page.frame == *frame
                })
                .count();
            let group = &pages[at..at + together];
            let mut decoded = Vec::new();
            let key = self.fetch(group, |map, plain| {
                decoded.push(map.read_page(plain));
                Ok(())
            })?;
            for (page, entries) in group.iter().zip(decoded) {
                let entries = entries
                    .ok()
                    .filter(|entries| entries.first().is_some_and(|entry| entry.path == page.first))
                    .ok_or_else(|| RepoError::damaged(&key, "a page of the map is not understood"))?;
                for entry in entries {
                    if last.as_ref().is_some_and(|last| *last >= entry.path) {
                        return Err(RepoError::damaged(&key, "the map is out of order").into());
                    }
                    last = Some(entry.path.clone());
                    seen += 1;
                    each(entry)?;
                }
            }
            at += together;
        }
        if seen != self.entries {
            let key = layout::map(self.stanza, &self.owners[0], 0).map_err(RepoError::from)?.key;
            return Err(RepoError::damaged(
                &key,
                "the map has another number of entries than the record says",
            )
            .into());
        }
        Ok(())
    }

    /// The entry of this path, reading one page.
    ///
    /// # Errors
    /// Missing or damaged objects, or the store's trouble.
    pub fn find(&mut self, path: &[u8]) -> Result<Option<Entry>, RepoError> {
        let after = self.pages.partition_point(|page| page.first.as_slice() <= path);
        let Some(page) = after.checked_sub(1).and_then(|at| self.pages.get(at)).cloned() else {
            return Ok(None);
        };
        let mut found = None;
        let key = self.fetch(std::slice::from_ref(&page), |map, plain| {
            found = Some(map.read_page(plain));
            Ok(())
        })?;
        let entries = found
            .and_then(Result::ok)
            .ok_or_else(|| RepoError::damaged(&key, "a page of the map is not understood"))?;
        Ok(entries.into_iter().find(|entry| entry.path == path))
    }
}
