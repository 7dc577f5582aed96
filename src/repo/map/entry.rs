//! One line of the map, and its stored form.

use super::LONGEST_PATH;
use crate::repo::frame::DATA_FRAME;
use crate::repo::varint::{Malformed, Take, put, put_bytes, put_signed};

/// A pack: who stored it (as a number in the map's table of owners; 0 is the backup itself), and its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackRef {
    /// Index into the owners.
    pub owner: u32,
    /// The pack's number in its owner's folder.
    pub number: u32,
}

/// Consecutive frames of one pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameRun {
    /// The pack.
    pub pack: PackRef,
    /// The first frame.
    pub first: u32,
    /// How many, at least one.
    pub count: u32,
}

/// Where a file's bytes lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contents {
    /// The file is empty.
    Empty,
    /// Within one frame that small files share, from this offset on.
    Shared {
        /// The pack.
        pack: PackRef,
        /// The frame.
        frame: u32,
        /// Where the file begins in the plain frame.
        offset: u32,
    },
    /// In whole frames of its own: each holds `frame_bytes` of it, the last the rest.
    Frames {
        /// Plain bytes of each frame but the last; a power of two.
        frame_bytes: u32,
        /// The frames in order; their number is the file's size over `frame_bytes`, rounded up.
        runs: Vec<FrameRun>,
    },
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File {
        /// Its size in bytes.
        size: u64,
        /// Its bytes.
        contents: Contents,
        /// Whether a page of it failed its checksum when it was read.
        damaged_pages: bool,
    },
    /// A directory.
    Directory,
    /// A symbolic link and where it points.
    Symlink(Vec<u8>),
}

/// One file, directory or link of the backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Relative to the data directory, `/` between parts; tablespaces as `pg_tblspc/<oid>/…`. Any bytes but 0.
    pub path: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
    /// Seconds since 1970-01-01 UTC; `None` for relation files, whose times say nothing.
    pub mtime: Option<i64>,
    /// What it is.
    pub kind: EntryKind,
}

const KIND_FILE: u8 = 0;
const KIND_DIRECTORY: u8 = 1;
const KIND_SYMLINK: u8 = 2;
const KIND_MASK: u8 = 0x03;
const HAS_MTIME: u8 = 0x04;
const DAMAGED_PAGES: u8 = 0x08;
const SHARED: u8 = 0x10;
// 0x20, 0x40 and 0x80 are kept for overlays and `zero_from` of incremental backups; refused until then.

/// The most runs of one file: a file of the largest relation segment in frames of one page each.
const MOST_RUNS: u64 = 1 << 20;

impl Entry {
    /// Appends the stored form.
    pub fn encode(&self, into: &mut Vec<u8>) {
        let flags = match &self.kind {
            EntryKind::File { contents, damaged_pages, .. } => {
                KIND_FILE
                    | if *damaged_pages { DAMAGED_PAGES } else { 0 }
                    | if matches!(contents, Contents::Shared { .. }) { SHARED } else { 0 }
            }
            EntryKind::Directory => KIND_DIRECTORY,
            EntryKind::Symlink(_) => KIND_SYMLINK,
        } | if self.mtime.is_some() { HAS_MTIME } else { 0 };
        into.push(flags);
        put_bytes(into, &self.path);
        put(into, self.mode.into());
        if let Some(mtime) = self.mtime {
            put_signed(into, mtime);
        }
        match &self.kind {
            EntryKind::File { size, contents, .. } => {
                put(into, *size);
                encode_contents(contents, into);
            }
            EntryKind::Directory => {}
            EntryKind::Symlink(target) => put_bytes(into, target),
        }
    }

    /// Takes one entry.
    ///
    /// # Errors
    /// When it is malformed, breaks a limit, or has flags of a later version.
    pub fn decode(take: &mut Take<'_>) -> Result<Self, Malformed> {
        let flags = take.byte()?;
        if flags & !(KIND_MASK | HAS_MTIME | DAMAGED_PAGES | SHARED) != 0 {
            return Err(Malformed);
        }
        let path = take.bytes(LONGEST_PATH)?.to_vec();
        if !is_relative(&path) {
            return Err(Malformed);
        }
        let mode = take.at_most(0o7777)? as u32;
        let mtime = if flags & HAS_MTIME == 0 { None } else { Some(take.signed()?) };
        let only_for_files = flags & (DAMAGED_PAGES | SHARED) == 0;
        let kind = match flags & KIND_MASK {
            KIND_FILE => {
                let size = take.at_most(i64::MAX as u64)?;
                let contents = decode_contents(take, size, flags & SHARED != 0)?;
                EntryKind::File { size, contents, damaged_pages: flags & DAMAGED_PAGES != 0 }
            }
            KIND_DIRECTORY if only_for_files => EntryKind::Directory,
            KIND_SYMLINK if only_for_files => EntryKind::Symlink(take.bytes(LONGEST_PATH)?.to_vec()),
            _ => return Err(Malformed),
        };
        Ok(Self { path, mode, mtime, kind })
    }

    /// The owners that this entry's packs name.
    pub fn packs_mut(&mut self) -> Box<dyn Iterator<Item = &mut PackRef> + '_> {
        match &mut self.kind {
            EntryKind::File { contents: Contents::Shared { pack, .. }, .. } => {
                Box::new(std::iter::once(pack))
            }
            EntryKind::File { contents: Contents::Frames { runs, .. }, .. } => {
                Box::new(runs.iter_mut().map(|run| &mut run.pack))
            }
            _ => Box::new(std::iter::empty()),
        }
    }
}

/// A path that stays below the directory it is joined to.
#[must_use]
pub fn is_relative(path: &[u8]) -> bool {
    !path.contains(&0)
        && path.split(|byte| *byte == b'/').all(|part| !part.is_empty() && part != b"." && part != b"..")
}

fn encode_contents(contents: &Contents, into: &mut Vec<u8>) {
    match contents {
        Contents::Empty => {}
        Contents::Shared { pack, frame, offset } => {
            put(into, pack.owner.into());
            put(into, pack.number.into());
            put(into, (*frame).into());
            put(into, (*offset).into());
        }
        Contents::Frames { frame_bytes, runs } => {
            put(into, frame_bytes.trailing_zeros().into());
            put(into, runs.len() as u64);
            let mut before: Option<FrameRun> = None;
            for run in runs {
                put(into, run.pack.owner.into());
                // Mostly the next pack, from its first frame on.
                let expected = before.map_or(0, |run: FrameRun| i64::from(run.pack.number) + 1);
                put_signed(into, i64::from(run.pack.number) - expected);
                put(into, run.first.into());
                put(into, run.count.into());
                before = Some(*run);
            }
        }
    }
}

fn decode_contents(take: &mut Take<'_>, size: u64, shared: bool) -> Result<Contents, Malformed> {
    if shared {
        let pack = PackRef { owner: take.number32()?, number: take.number32()? };
        let (frame, offset) = (take.number32()?, take.number32()?);
        // A shared frame is one data frame at most, and an empty file shares nothing.
        let fits =
            size > 0 && u64::from(offset).checked_add(size).is_some_and(|end| end <= DATA_FRAME as u64);
        return if fits { Ok(Contents::Shared { pack, frame, offset }) } else { Err(Malformed) };
    }
    if size == 0 {
        return Ok(Contents::Empty);
    }
    let exponent = take.at_most(24)?;
    if exponent < 9 {
        return Err(Malformed);
    }
    let frame_bytes = 1_u32 << exponent;
    let count = take.at_most(MOST_RUNS.min(take.left() as u64 / 4))?;
    let mut runs = Vec::with_capacity(count as usize);
    let mut expected = 0_i64;
    let mut frames = 0_u64;
    for _ in 0..count {
        let owner = take.number32()?;
        let number = expected.checked_add(take.signed()?).ok_or(Malformed)?;
        let number = u32::try_from(number).map_err(|_| Malformed)?;
        let run =
            FrameRun { pack: PackRef { owner, number }, first: take.number32()?, count: take.number32()? };
        if run.count == 0 || run.first.checked_add(run.count).is_none() {
            return Err(Malformed);
        }
        frames += u64::from(run.count);
        expected = i64::from(number) + 1;
        runs.push(run);
    }
    if frames != size.div_ceil(frame_bytes.into()) {
        return Err(Malformed);
    }
    Ok(Contents::Frames { frame_bytes, runs })
}
