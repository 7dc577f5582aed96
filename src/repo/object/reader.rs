//! Reading an object: header and footer first, then any frames, each checked.

use super::{TRAILER_LENGTH, TRAILER_MAGIC};
use crate::repo::error::RepoError;
use crate::repo::frame::{Footer, FrameDecoder, FrameInfo, LONGEST_FOOTER, MOST_FRAMES};
use crate::repo::keys::Keys;
use crate::repo::layout::Place;
use crate::repo::seal::{HEADER_LENGTH, HeaderError, Sealer, TAG_LENGTH};
use crate::storage::{Key, Store, StoreError, StoreErrorKind};
use crate::units::ByteCount;
use std::ops::Range;

/// The end of an object that is read at first: holds the footer of all but large packs.
const FIRST_READ: u64 = 64 * 1024;

/// An object whose header and footer were opened. Shareable between threads; holds no connection.
pub struct ObjectReader {
    key: Key,
    sealer: Sealer,
    footer: Footer,
    /// Where each frame begins, and where the footer does.
    offsets: Vec<u64>,
    size: u64,
    /// The object's end, as far as it was fetched to be kept.
    held: Vec<u8>,
}

impl std::fmt::Debug for ObjectReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ObjectReader({}, {} frames)", self.key, self.footer.frames.len())
    }
}

/// Sealed bytes of consecutive frames, as fetched.
#[derive(Debug)]
pub struct FrameSpan {
    first: usize,
    count: usize,
    bytes: Vec<u8>,
}

impl ObjectReader {
    /// Opens the object at `place`: two reads for most, three for an object with a large footer.
    ///
    /// # Errors
    /// [`RepoError::Missing`] when there is none, [`RepoError::Damaged`] when it is not what was stored
    /// there, [`RepoError::NewerFormat`], or the store's trouble.
    pub fn open(store: &dyn Store, keys: &Keys, place: &Place) -> Result<Self, RepoError> {
        Self::open_by(store, keys, place, FIRST_READ)
    }

    /// The same with up to `most` bytes in the first read, which are kept for [`ObjectReader::fetch`]: where a read costs
    /// a round trip, an object of no more comes in one.
    ///
    /// # Errors
    /// As [`ObjectReader::open`].
    pub fn open_at_once(store: &dyn Store, keys: &Keys, place: &Place, most: u64) -> Result<Self, RepoError> {
        Self::open_by(store, keys, place, most.max(FIRST_READ))
    }

    /// The same with the reads of header and end under way together: for a large object where a read costs a round
    /// trip. One that is small costs a read more than [`ObjectReader::open`].
    ///
    /// # Errors
    /// As [`ObjectReader::open`].
    pub fn open_in_one_trip(store: &dyn Store, keys: &Keys, place: &Place) -> Result<Self, RepoError> {
        let (header, end) = std::thread::scope(|scope| {
            let header = || store.read_range(&place.key, 0..HEADER_LENGTH as u64);
            let header = std::thread::Builder::new().name("open-pack".to_owned()).spawn_scoped(scope, header);
            let end = store.read_end(&place.key, FIRST_READ);
            // Without a thread it is read afterwards.
            (header.ok().and_then(|thread| thread.join().ok()), end)
        });
        let header = header.transpose().map_err(|error| missing(place, error))?;
        let end = end.map_err(|error| missing(place, error))?;
        Ok(Self::open_rest(store, keys, place, end, header)?.0)
    }

    fn open_by(store: &dyn Store, keys: &Keys, place: &Place, first: u64) -> Result<Self, RepoError> {
        let read = store.read_end(&place.key, first).map_err(|error| missing(place, error))?;
        let (mut opened, end) = Self::open_rest(store, keys, place, read, None)?;
        if first > FIRST_READ {
            opened.held = end;
        }
        Ok(opened)
    }

    /// Goes on from what was read so far. With the object's end, as far as it was read.
    fn open_rest(
        store: &dyn Store,
        keys: &Keys,
        place: &Place,
        (mut end, size): (Vec<u8>, ByteCount),
        header: Option<Vec<u8>>,
    ) -> Result<(Self, Vec<u8>), RepoError> {
        let size = size.as_u64();
        let ending = Ending::read(&end).map_err(|why| RepoError::damaged(&place.key, why))?;
        let needed = ending.footer_length + TRAILER_LENGTH as u64;
        if needed > end.len() as u64 && needed + HEADER_LENGTH as u64 <= size {
            end = store.read_end(&place.key, needed).map_err(|error| missing(place, error))?.0;
        }
        let header = match header {
            _ if end.len() as u64 == size => end.get(..HEADER_LENGTH).unwrap_or(&end).to_vec(),
            Some(header) => header,
            None => store
                .read_range(&place.key, 0..HEADER_LENGTH as u64)
                .map_err(|error| missing(place, error))?,
        };
        Ok((Self::assemble(keys, place, &header, &end, size)?, end))
    }

    /// Opens an object whose bytes are all in memory.
    ///
    /// # Errors
    /// As [`ObjectReader::open`], without the store's.
    pub fn open_bytes(keys: &Keys, place: &Place, bytes: &[u8]) -> Result<Self, RepoError> {
        let header = bytes.get(..HEADER_LENGTH).unwrap_or(bytes);
        Self::assemble(keys, place, header, bytes, bytes.len() as u64)
    }

    /// From the header, and the end of the object with at least footer and trailer.
    fn assemble(keys: &Keys, place: &Place, header: &[u8], end: &[u8], size: u64) -> Result<Self, RepoError> {
        let damaged = |why: &str| RepoError::damaged(&place.key, why);
        let sealer = Sealer::open(keys, &place.identity, header).map_err(|error| match error {
            // A suite of later versions. Or one byte was changed: then the footer opens with the suite we use.
            HeaderError::Newer(_) if opens_as_ours(keys, place, header, end) => {
                damaged("its header was changed")
            }
            HeaderError::Newer(suite) => {
                RepoError::NewerFormat { what: place.key.to_string(), format: suite.into() }
            }
            other => damaged(&other.to_string()),
        })?;
        let (ending, mut footer) = sealed_footer(end).map_err(damaged)?;
        let plain = sealer
            .open_frame(ending.frames, true, &mut footer)
            .map_err(|_| damaged("its footer fails its seal"))?;
        let footer = Footer::decode(plain).map_err(|_| damaged("its footer does not follow the format"))?;
        if footer.frames.len() as u64 != ending.frames {
            return Err(damaged("its footer lists another number of frames"));
        }
        let mut offsets = Vec::with_capacity(footer.frames.len() + 1);
        let mut at = HEADER_LENGTH as u64;
        for frame in &footer.frames {
            offsets.push(at);
            at += u64::from(frame.stored) + TAG_LENGTH as u64;
        }
        offsets.push(at);
        if at + ending.footer_length + TRAILER_LENGTH as u64 != size {
            return Err(damaged("its size does not fit its footer"));
        }
        Ok(Self { key: place.key.clone(), sealer, footer, offsets, size, held: Vec::new() })
    }

    /// The object's key.
    #[must_use]
    pub const fn key(&self) -> &Key {
        &self.key
    }

    /// Its stored bytes, all of them.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// What the object says of itself.
    #[must_use]
    pub fn meta(&self) -> &[u8] {
        &self.footer.meta
    }

    /// Its frames, without the footer.
    #[must_use]
    pub fn frames(&self) -> &[FrameInfo] {
        &self.footer.frames
    }

    /// Stored bytes of `frames` with their tags: what fetching them costs. `None` when there are not so many.
    #[must_use]
    pub fn stored_bytes(&self, frames: &Range<usize>) -> Option<u64> {
        self.offsets.get(frames.end)?.checked_sub(*self.offsets.get(frames.start)?)
    }

    /// Fetches consecutive frames in one read, still sealed.
    ///
    /// # Errors
    /// When the object has not so many, was cut since it was opened, or the store fails.
    pub fn fetch(&self, store: &dyn Store, frames: Range<usize>) -> Result<FrameSpan, RepoError> {
        let length = self.stored_bytes(&frames).ok_or_else(|| {
            RepoError::damaged(&self.key, format!("it has no frame {}", frames.end.saturating_sub(1)))
        })?;
        let start = self.offsets[frames.start];
        if let Some(bytes) = self.held_range(start, length) {
            return Ok(FrameSpan { first: frames.start, count: frames.len(), bytes: bytes.to_vec() });
        }
        let bytes = store.read_range(&self.key, start..start + length).map_err(|error| match error.kind {
            StoreErrorKind::NotFound => RepoError::Missing { object: self.key.clone() },
            _ => RepoError::Store(error),
        })?;
        if bytes.len() as u64 != length {
            return Err(RepoError::damaged(&self.key, "it is shorter than its footer says"));
        }
        Ok(FrameSpan { first: frames.start, count: frames.len(), bytes })
    }

    /// So many bytes from `start` on, if they were kept.
    fn held_range(&self, start: u64, length: u64) -> Option<&[u8]> {
        let before = self.size.checked_sub(self.held.len() as u64)?;
        let from = usize::try_from(start.checked_sub(before)?).ok()?;
        self.held.get(from..from.checked_add(usize::try_from(length).ok()?)?)
    }

    /// Takes frames out of an object whose bytes are all in memory.
    ///
    /// # Errors
    /// As [`ObjectReader::fetch`].
    pub fn span_of(&self, object: &[u8], frames: Range<usize>) -> Result<FrameSpan, RepoError> {
        let wanted = || {
            let start = usize::try_from(*self.offsets.get(frames.start)?).ok()?;
            let end = usize::try_from(*self.offsets.get(frames.end)?).ok()?;
            object.get(start..end)
        };
        let bytes =
            wanted().ok_or_else(|| RepoError::damaged(&self.key, "it is shorter than its footer says"))?;
        Ok(FrameSpan { first: frames.start, count: frames.len(), bytes: bytes.to_vec() })
    }

    /// Opens and decodes one frame of `span` into `plain` (replaced). Each frame can be opened once: it is
    /// decrypted in place.
    ///
    /// # Errors
    /// [`RepoError::Damaged`] naming the frame when it fails its seal or its hash.
    pub fn decode(
        &self,
        span: &mut FrameSpan,
        frame: usize,
        decoder: &mut FrameDecoder,
        plain: &mut Vec<u8>,
    ) -> Result<(), RepoError> {
        let fails = |what: &str| RepoError::damaged(&self.key, format!("frame {frame} fails its {what}"));
        let info = self.footer.frames.get(frame).ok_or_else(|| fails("number"))?;
        if frame < span.first || frame >= span.first + span.count {
            return Err(fails("number"));
        }
        let start = (self.offsets[frame] - self.offsets[span.first]) as usize;
        let length = info.stored as usize + TAG_LENGTH;
        let sealed = span.bytes.get_mut(start..start + length).ok_or_else(|| fails("length"))?;
        let stored = self.sealer.open_frame(frame as u64, false, sealed).map_err(|_| fails("seal"))?;
        decoder.decode(info, stored, plain).map_err(|_| fails("hash"))
    }
}

fn missing(place: &Place, error: StoreError) -> RepoError {
    match error.kind {
        StoreErrorKind::NotFound => RepoError::Missing { object: place.key.clone() },
        _ => RepoError::Store(error),
    }
}

/// The trailer, and the footer before it, still sealed, of an object that ends with `end`.
fn sealed_footer(end: &[u8]) -> Result<(Ending, Vec<u8>), &'static str> {
    let ending = Ending::read(end)?;
    let before = &end[..end.len() - TRAILER_LENGTH];
    let length = usize::try_from(ending.footer_length).unwrap_or(usize::MAX);
    let start = before.len().checked_sub(length).ok_or("its footer is cut")?;
    Ok((ending, before[start..].to_vec()))
}

/// Whether the footer opens when the header names the suite of the repository.
fn opens_as_ours(keys: &Keys, place: &Place, header: &[u8], end: &[u8]) -> bool {
    let Ok((ending, mut footer)) = sealed_footer(end) else { return false };
    Sealer::open_as_ours(keys, &place.identity, header)
        .is_ok_and(|sealer| sealer.open_frame(ending.frames, true, &mut footer).is_ok())
}

struct Ending {
    footer_length: u64,
    frames: u64,
}

impl Ending {
    fn read(end: &[u8]) -> Result<Self, &'static str> {
        let trailer: &[u8; TRAILER_LENGTH] = end.last_chunk().ok_or("it is shorter than any object")?;
        let (footer, rest) = trailer.split_at(4);
        let (frames, magic) = rest.split_at(4);
        if magic != TRAILER_MAGIC {
            return Err("it does not end as objects do");
        }
        let number = |bytes: &[u8]| bytes.try_into().map(u32::from_le_bytes).map_or(0, u64::from);
        let ending = Self { footer_length: number(footer), frames: number(frames) };
        if ending.footer_length > LONGEST_FOOTER || ending.frames > MOST_FRAMES {
            return Err("its trailer breaks a limit");
        }
        Ok(ending)
    }
}
