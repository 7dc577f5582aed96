//! Writing an object, frame by frame.

use super::TRAILER_MAGIC;
use crate::env::Env;
use crate::repo::error::RepoError;
use crate::repo::frame::{EncodedFrame, Footer, FrameInfo, MOST_FRAMES};
use crate::repo::keys::Keys;
use crate::repo::layout::Place;
use crate::repo::seal::{SealBroken, Sealer};
use crate::storage::{Pending, Store};

/// An object that is being written. Nothing shows before the [`Pending`] that `finish` returns is committed.
pub struct ObjectWriter {
    sealer: Sealer,
    pending: Box<dyn Pending>,
    footer: Footer,
    written: u64,
    what: String,
}

impl std::fmt::Debug for ObjectWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ObjectWriter({}, {} frames)", self.what, self.footer.frames.len())
    }
}

impl ObjectWriter {
    /// Begins the object at `place` and writes its header.
    ///
    /// # Errors
    /// When there is no randomness, or the store fails.
    pub fn begin(store: &dyn Store, keys: &Keys, place: &Place, env: &dyn Env) -> Result<Self, RepoError> {
        let sealer = fresh_sealer(keys, place, env)?;
        let mut pending = store.begin(&place.key)?;
        pending.write(sealer.header())?;
        let written = sealer.header().len() as u64;
        Ok(Self { sealer, pending, footer: Footer::default(), written, what: place.key.to_string() })
    }

    /// Bytes of the object so far, without footer and trailer.
    #[must_use]
    pub const fn written(&self) -> u64 {
        self.written
    }

    /// Frames so far; the number that the next frame gets.
    #[must_use]
    pub const fn frames(&self) -> usize {
        self.footer.frames.len()
    }

    /// Seals `frame` and writes it. The frame's buffer is of no use afterwards but to be encoded into again.
    ///
    /// # Errors
    /// When the store fails; the object is then lost and must be begun again.
    pub fn append(&mut self, frame: &mut EncodedFrame) -> Result<(), RepoError> {
        let info: FrameInfo = frame.info().ok_or_else(|| RepoError::TooLarge { what: self.what.clone() })?;
        if self.footer.frames.len() as u64 >= MOST_FRAMES {
            return Err(RepoError::TooLarge { what: self.what.clone() });
        }
        self.sealer
            .seal(self.footer.frames.len() as u64, false, &mut frame.bytes)
            .map_err(|SealBroken| RepoError::TooLarge { what: self.what.clone() })?;
        self.pending.write(&frame.bytes)?;
        self.written += frame.bytes.len() as u64;
        self.footer.frames.push(info);
        Ok(())
    }

    /// Writes footer and trailer. The object exists when the result is committed, which may be left to
    /// another thread: it syncs.
    ///
    /// # Errors
    /// When the store fails.
    pub fn finish(self, meta: Vec<u8>) -> Result<Box<dyn Pending>, RepoError> {
        Ok(self.finish_sized(meta)?.0)
    }

    /// As [`ObjectWriter::finish`], with the size that the object will have.
    ///
    /// # Errors
    /// When the store fails.
    pub fn finish_sized(mut self, meta: Vec<u8>) -> Result<(Box<dyn Pending>, u64), RepoError> {
        self.footer.meta = meta;
        let ending = ending(&self.sealer, &self.footer)?;
        self.pending.write(&ending)?;
        Ok((self.pending, self.written + ending.len() as u64))
    }
}

fn fresh_sealer(keys: &Keys, place: &Place, env: &dyn Env) -> Result<Sealer, RepoError> {
    let mut salt = [0; 32];
    env.random(&mut salt)?;
    Ok(Sealer::new(keys, &place.identity, salt))
}

/// The sealed footer and the trailer.
fn ending(sealer: &Sealer, footer: &Footer) -> Result<Vec<u8>, RepoError> {
    let too_large = || RepoError::TooLarge { what: "a footer".to_owned() };
    let mut bytes = footer.encode();
    sealer.seal(footer.frames.len() as u64, true, &mut bytes).map_err(|SealBroken| too_large())?;
    let length = u32::try_from(bytes.len()).map_err(|_| too_large())?;
    let frames = u32::try_from(footer.frames.len()).map_err(|_| too_large())?;
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&frames.to_le_bytes());
    bytes.extend_from_slice(TRAILER_MAGIC);
    Ok(bytes)
}

/// A small object's bytes, all in memory: for what is created in one call and must come out the same on
/// every retry.
///
/// # Errors
/// When there is no randomness, or a frame breaks a limit.
pub fn build(
    keys: &Keys,
    place: &Place,
    frames: &mut [EncodedFrame],
    meta: Vec<u8>,
    env: &dyn Env,
) -> Result<Vec<u8>, RepoError> {
    let sealer = fresh_sealer(keys, place, env)?;
    let mut bytes = sealer.header().to_vec();
    let mut footer = Footer { frames: Vec::with_capacity(frames.len()), meta };
    for frame in frames {
        let too_large = || RepoError::TooLarge { what: place.key.to_string() };
        let info = frame.info().ok_or_else(too_large)?;
        sealer.seal(footer.frames.len() as u64, false, &mut frame.bytes).map_err(|SealBroken| too_large())?;
        bytes.extend_from_slice(&frame.bytes);
        footer.frames.push(info);
    }
    bytes.extend_from_slice(&ending(&sealer, &footer)?);
    Ok(bytes)
}
