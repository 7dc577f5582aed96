//! Writing the map from sorted entries.

use super::entry::Entry;
use super::{OBJECT_TARGET, PAGE_TARGET};
use crate::env::Env;
use crate::repo::error::RepoError;
use crate::repo::frame::{Compression, EncodedFrame, FrameEncoder};
use crate::repo::layout;
use crate::repo::object::ObjectWriter;
use crate::repo::record::MapPlace;
use crate::repo::repository::Repository;
use crate::repo::varint::{put, put_bytes};
use crate::units::{BackupId, ByteCount, Stanza};

/// The first byte of every page and of the index.
pub(super) const VERSION: u8 = 1;

/// Writes the pages and the index of a backup that owns all its packs.
pub struct MapWriter<'a> {
    repository: &'a Repository,
    stanza: &'a Stanza,
    id: &'a BackupId,
    env: &'a dyn Env,
    encoder: FrameEncoder,
    frame: EncodedFrame,
    page: Vec<u8>,
    page_entries: u64,
    page_first: Vec<u8>,
    last: Option<Vec<u8>>,
    object: Option<ObjectWriter>,
    objects: u32,
    index: Vec<u8>,
    pages: u64,
    entries: u64,
    stored: u64,
}

impl std::fmt::Debug for MapWriter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MapWriter({} entries, {} pages)", self.entries, self.pages)
    }
}

impl<'a> MapWriter<'a> {
    /// Begins the map of backup `id`.
    ///
    /// # Errors
    /// When zstd has no memory.
    pub fn new(
        repository: &'a Repository,
        stanza: &'a Stanza,
        id: &'a BackupId,
        env: &'a dyn Env,
    ) -> Result<Self, RepoError> {
        let encoder = FrameEncoder::new(Compression::Zstd(3), true)
            .map_err(|_| RepoError::TooLarge { what: "a page of the map".to_owned() })?;
        Ok(Self {
            repository,
            stanza,
            id,
            env,
            encoder,
            frame: EncodedFrame::default(),
            page: Vec::with_capacity(PAGE_TARGET + 8192),
            page_entries: 0,
            page_first: Vec::new(),
            last: None,
            object: None,
            objects: 0,
            index: Vec::new(),
            pages: 0,
            entries: 0,
            stored: 0,
        })
    }

    /// Appends one entry, whose path must sort after the one before.
    ///
    /// # Errors
    /// Damage when it does not (the server sent one path twice), or the store's trouble.
    pub fn push(&mut self, entry: &Entry) -> Result<(), RepoError> {
        if self.last.as_ref().is_some_and(|last| *last >= entry.path) {
            return Err(RepoError::TooLarge {
                what: format!(
                    "the set of files, in which {} is twice,",
                    String::from_utf8_lossy(&entry.path)
                ),
            });
        }
        if self.page_entries == 0 {
            self.page_first.clone_from(&entry.path);
        }
        entry.encode(&mut self.page);
        self.page_entries += 1;
        self.entries += 1;
        self.last = Some(entry.path.clone());
        if self.page.len() >= PAGE_TARGET { self.close_page() } else { Ok(()) }
    }

    fn close_page(&mut self) -> Result<(), RepoError> {
        if self.page_entries == 0 {
            return Ok(());
        }
        // Version, no owners but the backup itself, number of entries.
        let mut plain = vec![VERSION];
        put(&mut plain, 0);
        put(&mut plain, self.page_entries);
        plain.append(&mut self.page);
        let (object, frame) = self.append(&plain)?;
        // Owner 0 (the backup itself), object, frame, first path.
        put(&mut self.index, 0);
        put(&mut self.index, object.into());
        put(&mut self.index, frame);
        put_bytes(&mut self.index, &self.page_first);
        self.pages += 1;
        self.page_entries = 0;
        Ok(())
    }

    /// Writes one frame; where it lies.
    fn append(&mut self, plain: &[u8]) -> Result<(u32, u64), RepoError> {
        if self.object.as_ref().is_some_and(|object| object.written() >= OBJECT_TARGET) {
            self.close_object()?;
        }
        self.encoder
            .encode(plain, &mut self.frame)
            .map_err(|_| RepoError::TooLarge { what: "a page of the map".to_owned() })?;
        let number = self.objects;
        let object = match &mut self.object {
            Some(object) => object,
            none => {
                let place = layout::map(self.stanza, self.id, number)?;
                none.insert(self.repository.begin(&place, self.env)?)
            }
        };
        let frame = object.frames() as u64;
        object.append(&mut self.frame)?;
        Ok((number, frame))
    }

    fn close_object(&mut self) -> Result<(), RepoError> {
        if let Some(object) = self.object.take() {
            self.stored += object.written();
            let place = layout::map(self.stanza, self.id, self.objects)?;
            object.finish(Vec::new())?.commit().map_err(|error| match error.kind {
                crate::storage::StoreErrorKind::Taken => RepoError::Conflict { object: place.key.clone() },
                _ => RepoError::Store(error),
            })?;
            self.objects += 1;
        }
        Ok(())
    }

    /// Writes the index; all of the map is durable then. Also gives the stored bytes.
    ///
    /// # Errors
    /// The store's trouble.
    pub fn finish(mut self) -> Result<(MapPlace, ByteCount), RepoError> {
        self.close_page()?;
        let mut plain = vec![VERSION];
        put(&mut plain, 0);
        put(&mut plain, self.pages);
        plain.append(&mut self.index);
        let (index_object, index_frame) = self.append(&plain)?;
        self.close_object()?;
        let place = MapPlace {
            objects: self.objects,
            index_object,
            index_frame: u32::try_from(index_frame)
                .map_err(|_| RepoError::TooLarge { what: "the map".to_owned() })?,
            pages: self.pages,
            entries: self.entries,
        };
        Ok((place, ByteCount::new(self.stored)))
    }
}
