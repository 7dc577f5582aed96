//! A segment's frames, each decoded, hashed and put to its place by whichever of two threads comes to it.
//!
//! BLAKE3 is a tree: the hash of the whole comes out of the hashes of its equal parts, so no thread waits for
//! another's bytes. Each holds one fetched span and one plain frame.

use super::error::WalError;
use super::info::ContentHash;
use crate::repo::frame::{FrameDecoder, WAL_FRAME};
use crate::repo::object::ObjectReader;
use crate::storage::Store;
use blake3::hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Takes plain bytes, with the offset at which they belong, from several threads in any order. What it was given
/// counts only when the read that gave it succeeds.
pub type Places<'a> = &'a (dyn Fn(u64, &[u8]) -> io::Result<()> + Sync);

/// Stored bytes of one span where a read costs a round trip: the whole of most segments in two, one for each thread.
const FAR_SPAN: u64 = 1 << 20;
/// The same where a read costs next to nothing: memory that was used before is cheaper than fresh memory.
const NEAR_SPAN: u64 = 256 << 10;

/// Whether the frames are equal and so many that their hashes make up that of the whole.
pub(super) fn is_even(reader: &ObjectReader) -> bool {
    let frames = reader.frames();
    frames.len() > 1
        && frames.len().is_power_of_two()
        && frames.iter().all(|frame| frame.raw as usize == WAL_FRAME)
}

/// Gives every frame of an object that [`is_even`] to `places`, and the hash of all of it.
///
/// After `Ok` every frame passed its seal and was taken; the hash is still to be compared.
///
/// # Errors
/// Of several the first frame's: damage, the store's trouble, or [`WalError::Sink`].
pub(super) fn scatter(
    store: &dyn Store,
    reader: &ObjectReader,
    places: Places<'_>,
) -> Result<ContentHash, WalError> {
    let frames = reader.frames().len();
    let work = Work {
        store,
        reader,
        places,
        spans: spans(reader, if store.gathers() { FAR_SPAN } else { NEAR_SPAN }),
        next: AtomicUsize::new(0),
        hashes: Mutex::new(vec![None; frames]),
        failed: Mutex::new(None),
    };
    std::thread::scope(|scope| {
        // One does it too, where there can be no second.
        let helper = std::thread::Builder::new().name("wal-decode".to_owned());
        let _ = helper.spawn_scoped(scope, || work.run());
        work.run();
    });
    if let Some((_, error)) = work.failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    let hashes = work.hashes.into_inner().unwrap_or_else(PoisonError::into_inner);
    // Counted: a frame that nobody took must not look like one that was.
    let hashes: Option<Vec<ChainingValue>> = hashes.into_iter().collect();
    hashes.and_then(root).ok_or_else(|| WalError::Codec(io::Error::other("a decoding thread ended early")))
}

/// Consecutive frames, as many as one read is to bring.
fn spans(reader: &ObjectReader, most: u64) -> Vec<Range<usize>> {
    let frames = reader.frames().len();
    let mut spans = Vec::new();
    let mut next = 0;
    while next < frames {
        let mut end = next + 1;
        // No more than half, so that there is something for each thread.
        while end < frames
            && end - next < frames / 2
            && reader.stored_bytes(&(next..end + 1)).is_some_and(|bytes| bytes <= most)
        {
            end += 1;
        }
        spans.push(next..end);
        next = end;
    }
    spans
}

/// The hash of the whole; `None` unless there are two parts or four, eight, ….
fn root(mut parts: Vec<ChainingValue>) -> Option<ContentHash> {
    while parts.len() > 2 {
        let (pairs, []) = parts.as_chunks::<2>() else { return None };
        parts = pairs.iter().map(|[left, right]| merge_subtrees_non_root(left, right, Mode::Hash)).collect();
    }
    match parts.as_slice() {
        [left, right] => Some(ContentHash::of_root(&merge_subtrees_root(left, right, Mode::Hash))),
        _ => None,
    }
}

struct Work<'a> {
    store: &'a dyn Store,
    reader: &'a ObjectReader,
    places: Places<'a>,
    spans: Vec<Range<usize>>,
    /// The span that nobody has yet.
    next: AtomicUsize,
    hashes: Mutex<Vec<Option<ChainingValue>>>,
    /// The first span that failed, and how.
    failed: Mutex<Option<(usize, WalError)>>,
}

impl Work<'_> {
    fn failed(&self) -> MutexGuard<'_, Option<(usize, WalError)>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes spans until there are no more or one failed.
    fn run(&self) {
        let mut plain = Vec::new();
        let mut decoder = FrameDecoder::new().map_err(WalError::Codec);
        loop {
            let at = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(span) = self.spans.get(at) else { return };
            let done = match &mut decoder {
                Ok(decoder) => self.take(span.clone(), decoder, &mut plain),
                Err(_) => Err(WalError::Codec(io::ErrorKind::OutOfMemory.into())),
            };
            if let Err(error) = done {
                let mut failed = self.failed();
                if failed.as_ref().is_none_or(|(first, _)| at < *first) {
                    *failed = Some((at, error));
                }
            }
            if self.failed().is_some() {
                return;
            }
        }
    }

    fn take(
        &self,
        frames: Range<usize>,
        decoder: &mut FrameDecoder,
        plain: &mut Vec<u8>,
    ) -> Result<(), WalError> {
        let mut span = self.reader.fetch(self.store, frames.clone())?;
        for frame in frames {
            self.reader.decode(&mut span, frame, decoder, plain)?;
            let offset = frame as u64 * WAL_FRAME as u64;
            let hash = blake3::Hasher::new().set_input_offset(offset).update(plain).finalize_non_root();
            (self.places)(offset, plain).map_err(WalError::Sink)?;
            if let Some(slot) = self.hashes.lock().unwrap_or_else(PoisonError::into_inner).get_mut(frame) {
                *slot = Some(hash);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hashes_of_equal_parts_make_up_the_hash_of_the_whole() {
        let mut bytes = vec![0; 16 * WAL_FRAME];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        for count in [2, 4, 16] {
            let parts = bytes[..count * WAL_FRAME]
                .chunks(WAL_FRAME)
                .enumerate()
                .map(|(at, part)| {
                    let offset = (at * WAL_FRAME) as u64;
                    blake3::Hasher::new().set_input_offset(offset).update(part).finalize_non_root()
                })
                .collect();
            assert_eq!(root(parts), Some(ContentHash::of(&bytes[..count * WAL_FRAME])));
        }
        assert_eq!(root(vec![[0; 32]; 6]), None);
        assert_eq!(root(vec![[0; 32]]), None);
        assert_eq!(root(Vec::new()), None);
    }
}
