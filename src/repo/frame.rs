//! Frames: the unit of compression, sealing and fetching.

use super::varint::{Malformed, Take, put};
use std::fmt;

/// The longest plain frame. Data frames are 128 KiB, WAL frames 1 MiB; the limit is what a reader allocates.
pub const LONGEST_FRAME: usize = 16 << 20;
/// Pages of a relation file that go into one frame together: 128 KiB.
pub const DATA_FRAME: usize = 128 << 10;
/// WAL in one frame.
pub const WAL_FRAME: usize = 1 << 20;
/// The most frames of one object; bounds what a footer makes a reader allocate.
pub const MOST_FRAMES: u64 = 1 << 20;

/// How a frame's bytes are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// As they are: they did not shrink.
    Raw,
    /// One zstd frame.
    Zstd,
}

impl Codec {
    const fn code(self) -> u8 {
        match self {
            Self::Raw => 0,
            Self::Zstd => 1,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Raw),
            1 => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// How to make frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Store as is.
    None,
    /// zstd at a level from -7 to 22.
    Zstd(i32),
}

/// What a footer says of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameInfo {
    /// How it is stored.
    pub codec: Codec,
    /// Stored bytes, without the tag.
    pub stored: u32,
    /// Plain bytes.
    pub raw: u32,
    /// BLAKE3 of the plain bytes, in objects that carry hashes.
    pub hash: Option<[u8; 32]>,
}

/// A frame ready to be sealed.
#[derive(Debug, Default)]
pub struct EncodedFrame {
    /// Stored bytes, with room for the tag.
    pub bytes: Vec<u8>,
    info: Option<FrameInfo>,
}

impl EncodedFrame {
    /// What the footer will say of it; the encoder sets it.
    #[must_use]
    pub const fn info(&self) -> Option<FrameInfo> {
        self.info
    }

    /// Makes this the same frame as `other`, in the buffer that it has: one encoding for several repositories,
    /// each of which seals its own copy.
    pub fn copy_from(&mut self, other: &Self) {
        self.bytes.clear();
        self.bytes.reserve(other.bytes.len() + super::seal::TAG_LENGTH);
        self.bytes.extend_from_slice(&other.bytes);
        self.info = other.info;
    }
}

/// Compresses and hashes frames; one per thread, reused.
pub struct FrameEncoder {
    zstd: Option<zstd::bulk::Compressor<'static>>,
    hashes: bool,
}

impl fmt::Debug for FrameEncoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameEncoder").field("hashes", &self.hashes).finish_non_exhaustive()
    }
}

impl FrameEncoder {
    /// An encoder; with `hashes` every frame's plain bytes are hashed for the footer.
    ///
    /// # Errors
    /// When zstd refuses the level or has no memory.
    pub fn new(compression: Compression, hashes: bool) -> std::io::Result<Self> {
        let zstd = match compression {
            Compression::None => None,
            Compression::Zstd(level) => {
                let mut compressor = zstd::bulk::Compressor::new(level)?;
                // The footer holds the length and a stronger hash; the seal covers the stored bytes.
                compressor.include_checksum(false)?;
                compressor.include_contentsize(true)?;
                Some(compressor)
            }
        };
        Ok(Self { zstd, hashes })
    }

    /// Encodes `plain` into `frame`, whose buffer is reused.
    ///
    /// # Errors
    /// When zstd fails, which it does only for lack of memory. At most [`LONGEST_FRAME`] bytes are taken.
    pub fn encode(&mut self, plain: &[u8], frame: &mut EncodedFrame) -> std::io::Result<()> {
        let raw = match u32::try_from(plain.len()) {
            Ok(raw) if plain.len() <= LONGEST_FRAME => raw,
            _ => return Err(std::io::Error::other("a frame is longer than the format allows")),
        };
        let hash = self.hashes.then(|| *blake3::hash(plain).as_bytes());
        frame.bytes.clear();
        let mut codec = Codec::Raw;
        if let Some(zstd) = &mut self.zstd {
            frame.bytes.reserve(zstd::zstd_safe::compress_bound(plain.len()) + super::seal::TAG_LENGTH);
            let stored = zstd.compress_to_buffer(plain, &mut frame.bytes)?;
            if stored < plain.len() {
                codec = Codec::Zstd;
            }
        }
        if codec == Codec::Raw {
            frame.bytes.clear();
            frame.bytes.reserve(plain.len() + super::seal::TAG_LENGTH);
            frame.bytes.extend_from_slice(plain);
        }
        let stored = u32::try_from(frame.bytes.len()).map_err(std::io::Error::other)?;
        frame.info = Some(FrameInfo { codec, stored, raw, hash });
        Ok(())
    }
}

/// Undoes [`FrameEncoder`]; one per thread, reused.
pub struct FrameDecoder {
    zstd: zstd::bulk::Decompressor<'static>,
}

impl fmt::Debug for FrameDecoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameDecoder").finish_non_exhaustive()
    }
}

/// Stored bytes that do not become what the footer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotTheFrame;

impl FrameDecoder {
    /// A decoder.
    ///
    /// # Errors
    /// When zstd has no memory.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self { zstd: zstd::bulk::Decompressor::new()? })
    }

    /// Decodes opened `stored` bytes into `plain` (replaced), which then has exactly `info.raw` bytes with
    /// the footer's hash.
    ///
    /// # Errors
    /// When it does not; `plain` is then of no use.
    pub fn decode(
        &mut self,
        info: &FrameInfo,
        stored: &[u8],
        plain: &mut Vec<u8>,
    ) -> Result<(), NotTheFrame> {
        plain.clear();
        let raw = usize::try_from(info.raw).map_err(|_| NotTheFrame)?;
        match info.codec {
            Codec::Raw => plain.extend_from_slice(stored),
            Codec::Zstd => {
                plain.reserve(raw);
                // Never more than the capacity; a frame that would be longer is refused by zstd.
                self.zstd.decompress_to_buffer(stored, plain).map_err(|_| NotTheFrame)?;
            }
        }
        let fits = plain.len() == raw && info.hash.is_none_or(|hash| *blake3::hash(plain).as_bytes() == hash);
        if fits { Ok(()) } else { Err(NotTheFrame) }
    }
}

/// The list of an object's frames and what the object says of itself; sealed as the object's last frame.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Footer {
    /// Every frame before the footer.
    pub frames: Vec<FrameInfo>,
    /// What the object's kind adds: JSON or its own encoding.
    pub meta: Vec<u8>,
}

/// The longest footer, sealed: what a reader allocates for it.
pub const LONGEST_FOOTER: u64 = 64 << 20;

impl Footer {
    /// The footer's plain bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let hashes = self.frames.first().is_some_and(|frame| frame.hash.is_some());
        let mut bytes =
            Vec::with_capacity(16 + self.frames.len() * (7 + if hashes { 32 } else { 0 }) + self.meta.len());
        bytes.push(1);
        bytes.push(u8::from(hashes));
        put(&mut bytes, self.frames.len() as u64);
        for frame in &self.frames {
            bytes.push(frame.codec.code());
            put(&mut bytes, frame.stored.into());
            put(&mut bytes, frame.raw.into());
            if let Some(hash) = frame.hash.filter(|_| hashes) {
                bytes.extend_from_slice(&hash);
            }
        }
        put(&mut bytes, self.meta.len() as u64);
        bytes.extend_from_slice(&self.meta);
        bytes
    }

    /// Reads a footer.
    ///
    /// # Errors
    /// When it is not one, has flags or codecs of a later version, or breaks a limit.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut take = Take::new(bytes);
        if take.byte()? != 1 {
            return Err(Malformed);
        }
        let hashes = match take.byte()? {
            0 => false,
            1 => true,
            _ => return Err(Malformed),
        };
        let count = take.at_most(MOST_FRAMES)?;
        // Each frame takes at least three bytes here, so a small footer cannot ask for much memory.
        if usize::try_from(count).map_err(|_| Malformed)?.saturating_mul(3) > take.left() {
            return Err(Malformed);
        }
        let mut frames = Vec::with_capacity(count as usize);
        for _ in 0..count {
            let codec = Codec::from_code(take.byte()?).ok_or(Malformed)?;
            let stored = take.at_most(LONGEST_FRAME as u64)? as u32;
            let raw = take.at_most(LONGEST_FRAME as u64)? as u32;
            if codec == Codec::Raw && stored != raw {
                return Err(Malformed);
            }
            let hash = if hashes { Some(take.array()?) } else { None };
            frames.push(FrameInfo { codec, stored, raw, hash });
        }
        let meta = take.bytes(usize::MAX)?.to_vec();
        take.end()?;
        Ok(Self { frames, meta })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_does_not_shrink_is_stored_as_it_is() {
        let mut encoder = FrameEncoder::new(Compression::Zstd(1), true).unwrap();
        let mut frame = EncodedFrame::default();
        let noise: Vec<u8> = {
            let mut bytes = vec![0; DATA_FRAME];
            blake3::Hasher::new().finalize_xof().fill(&mut bytes);
            bytes
        };
        encoder.encode(&noise, &mut frame).unwrap();
        assert_eq!(frame.info().unwrap().codec, Codec::Raw);
        encoder.encode(&vec![0; DATA_FRAME], &mut frame).unwrap();
        assert_eq!(frame.info().unwrap().codec, Codec::Zstd);
        assert!(frame.bytes.len() < 100);
    }

    proptest! {
        #[test]
        fn frames_come_back(plain: Vec<u8>, repeat in 1_usize..200, hashes: bool) {
            let plain = plain.repeat(repeat);
            let mut encoder = FrameEncoder::new(Compression::Zstd(1), hashes).unwrap();
            let mut frame = EncodedFrame::default();
            encoder.encode(&plain, &mut frame).unwrap();
            let mut again = Vec::new();
            let mut decoder = FrameDecoder::new().unwrap();
            decoder.decode(&frame.info().unwrap(), &frame.bytes, &mut again).unwrap();
            prop_assert_eq!(again, plain);
        }

        #[test]
        fn a_footer_comes_back_and_arbitrary_bytes_do_no_harm(
            sizes: Vec<(u16, [u8; 32])>, meta: Vec<u8>, noise: Vec<u8>, hashes: bool
        ) {
            let frames: Vec<FrameInfo> = sizes
                .into_iter()
                .map(|(size, hash)| FrameInfo {
                    codec: if size % 2 == 0 { Codec::Raw } else { Codec::Zstd },
                    stored: size.into(),
                    raw: size.into(),
                    hash: hashes.then_some(hash),
                })
                .collect();
            let footer = Footer { frames, meta };
            let bytes = footer.encode();
            prop_assert_eq!(Footer::decode(&bytes).unwrap(), footer);
            for cut in 0..bytes.len() {
                prop_assert!(Footer::decode(&bytes[..cut]).is_err());
            }
            let _ = Footer::decode(&noise);
        }
    }
}
