//! Storing WAL: segments whole or in parts, and the small files beside them.

use super::ClusterWal;
use super::error::WalError;
use super::info::{ContentHash, FileInfo, Part, SegmentInfo, TailInfo};
use super::read;
use crate::env::Env;
use crate::postgres::history::TimelineHistory;
use crate::repo::RepoError;
use crate::repo::frame::{Compression, EncodedFrame, FrameEncoder, WAL_FRAME};
use crate::repo::layout::{self, Place};
use crate::repo::object::ObjectWriter;
use crate::storage::{Created, Pending, StoreErrorKind};
use crate::units::{SegmentName, SegmentSize, TimelineId, WalFileName};

/// Segments from here on are stored in parts: an object is created in one call from memory. Unit tests cut
/// earlier, so that every call can fail in turn; the readers take what the index says.
pub const PARTS_FROM: u64 = if cfg!(test) { 8 << 20 } else { 64 << 20 };
/// Plain bytes of a part. Its frames wait in memory until its hash, and with it its name, is known.
pub const PART: u64 = if cfg!(test) { 2 << 20 } else { 16 << 20 };
/// The most bytes of one tail; longer stretches are several.
pub const LONGEST_TAIL: usize = 32 << 20;

/// Under which name a segment's contents are to lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Its own: complete, or not surely incomplete.
    Complete,
    /// Beside it, with the hash of the contents in the name: surely unfinished, or PostgreSQL's `.partial`.
    Partial(ContentHash),
}

/// A segment on its way into one repository. Nothing shows before [`Finished::commit`]; parts that were
/// written by then are found by nobody until the same contents are stored again.
pub struct SegmentWriter<'a> {
    wal: ClusterWal<'a>,
    name: SegmentName,
    place: Place,
    env: &'a dyn Env,
    shape: Shape,
}

impl std::fmt::Debug for SegmentWriter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SegmentWriter({})", self.place.key)
    }
}

enum Shape {
    Whole(ObjectWriter),
    Parts { done: Vec<Part>, frames: Vec<EncodedFrame>, used: usize, hasher: Box<blake3::Hasher>, plain: u64 },
}

impl<'a> SegmentWriter<'a> {
    /// Begins to store a segment of `size`.
    ///
    /// # Errors
    /// The store's trouble, or no randomness.
    pub fn begin(
        wal: ClusterWal<'a>,
        name: SegmentName,
        destination: Destination,
        size: SegmentSize,
        env: &'a dyn Env,
    ) -> Result<Self, WalError> {
        let place = wal.place(name, destination)?;
        let shape = if size.bytes() >= PARTS_FROM {
            Shape::Parts { done: Vec::new(), frames: Vec::new(), used: 0, hasher: Box::default(), plain: 0 }
        } else {
            Shape::Whole(wal.repo.begin(&place, env)?)
        };
        Ok(Self { wal, name, place, env, shape })
    }

    /// Adds the next frame: `plain`, and the same encoded, at most [`WAL_FRAME`] bytes, which divides
    /// [`PART`]. What `frame` holds afterwards is of no use but to be encoded into again.
    ///
    /// # Errors
    /// The store's trouble; the segment must then be begun again.
    pub fn append(&mut self, plain: &[u8], frame: &mut EncodedFrame) -> Result<(), WalError> {
        match &mut self.shape {
            Shape::Whole(writer) => writer.append(frame)?,
            Shape::Parts { frames, used, hasher, plain: bytes, .. } => {
                hasher.update(plain);
                *bytes += plain.len() as u64;
                if *used == frames.len() {
                    frames.push(EncodedFrame::default());
                }
                frames[*used].copy_from(frame);
                *used += 1;
                if *bytes >= PART {
                    self.flush_part()?;
                }
            }
        }
        Ok(())
    }

    fn flush_part(&mut self) -> Result<(), WalError> {
        let Shape::Parts { done, frames, used, hasher, plain } = &mut self.shape else { return Ok(()) };
        if *plain == 0 {
            return Ok(());
        }
        let part = Part { hash: ContentHash::finish(hasher), size: *plain };
        let place = layout::segment_part(self.wal.stanza, self.wal.system, self.name, part.hash.as_bytes())?;
        let store = self.wal.repo.store();
        let mut write = || -> Result<Created, WalError> {
            let mut writer = self.wal.repo.begin(&place, self.env)?;
            for frame in frames.iter_mut().take(*used) {
                writer.append(frame)?;
            }
            Ok(writer.finish(Vec::new())?.commit()?)
        };
        match write() {
            Ok(_) => {}
            // The name is the contents' hash and the seal is bound to the name: what opens is what we have.
            Err(WalError::Repo(RepoError::Store(error))) if error.kind == StoreErrorKind::Taken => {
                let there = self.wal.repo.reader(&place)?;
                if there.frames().iter().map(|frame| u64::from(frame.raw)).sum::<u64>() != part.size {
                    return Err(RepoError::damaged(&place.key, "it does not have its part's size").into());
                }
                store.make_durable(&place.key)?;
            }
            Err(other) => return Err(other),
        }
        done.push(part);
        *used = 0;
        *plain = 0;
        hasher.reset();
        Ok(())
    }

    /// Ends the segment; `info` must tell of exactly the bytes that were appended.
    ///
    /// # Errors
    /// As [`SegmentWriter::append`].
    pub fn finish(mut self, info: &SegmentInfo) -> Result<Finished<'a>, WalError> {
        self.flush_part()?;
        let pending = match self.shape {
            Shape::Whole(writer) => writer.finish(info.to_meta(&self.place, &[])?)?,
            Shape::Parts { done, .. } => {
                let meta = info.to_meta(&self.place, &done)?;
                self.wal.repo.begin(&self.place, self.env)?.finish(meta)?
            }
        };
        Ok(Finished { wal: self.wal, place: self.place, info: info.clone(), pending })
    }
}

/// A segment that lacks only its name.
pub struct Finished<'a> {
    wal: ClusterWal<'a>,
    place: Place,
    info: SegmentInfo,
    pending: Box<dyn Pending>,
}

impl std::fmt::Debug for Finished<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Finished({})", self.place.key)
    }
}

impl Finished<'_> {
    /// Gives the segment its name. After `Ok` it is durable under it: `New` by us, or `Same`, stored before
    /// with the same plain contents.
    ///
    /// # Errors
    /// [`WalError::Conflict`] when other contents have the name; damage of what stands there, or the store's
    /// trouble: then it may or may not be stored, and doing all of it again is safe.
    pub fn commit(self) -> Result<Created, WalError> {
        // COMMIT POINT of a segment in one repository.
        match self.pending.commit() {
            Ok(created) => Ok(created),
            Err(error) if error.kind == StoreErrorKind::Taken => {
                // A retry encodes with a new salt, so equal contents do not come out as equal bytes.
                settle_segment(self.wal, &self.place, self.info.name, self.info.hash)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Compares what is stored at `place` with contents of this hash.
///
/// # Errors
/// [`WalError::Conflict`] when they differ; that it is missing or damaged; or the store's trouble.
pub fn settle_segment(
    wal: ClusterWal<'_>,
    place: &Place,
    name: SegmentName,
    offered: ContentHash,
) -> Result<Created, WalError> {
    let reader = wal.repo.reader(place)?;
    let (there, _) = SegmentInfo::from_meta(place, reader.meta(), wal.system, name)?;
    if there.hash != offered {
        return Err(WalError::Conflict { object: place.key.clone(), stored: there.hash, offered });
    }
    // PostgreSQL will remove its copy: what is stored must be good, not only its footer. This is rare, but for what went
    // ahead while a repository was away: then all of that is read once when its turn comes.
    super::read::read_segment_object(wal, name, place, &mut |_| Ok(()))?;
    // Whoever stored it may have died between naming and syncing it.
    wal.repo.store().make_durable(&place.key)?;
    Ok(Created::Same)
}

/// Stores a stretch of an open segment, beginning at offset `from`. `writer` keeps two writers of the same
/// stretch apart; letters, digits and `-`.
///
/// # Errors
/// [`WalError::Conflict`] when the same writer stored other bytes for the same stretch; [`WalError::Length`]
/// when it is empty or longer than [`LONGEST_TAIL`]; the store's trouble.
pub fn store_tail(
    wal: ClusterWal<'_>,
    name: SegmentName,
    from: u32,
    bytes: &[u8],
    writer: &str,
    compression: Compression,
    env: &dyn Env,
) -> Result<Created, WalError> {
    let too_long = || WalError::Length {
        what: format!("the tail of {name}"),
        expected: LONGEST_TAIL as u64,
        found: bytes.len() as u64,
    };
    let length = u32::try_from(bytes.len()).map_err(|_| too_long())?;
    let to = from.checked_add(length).ok_or_else(too_long)?;
    if bytes.is_empty() || bytes.len() > LONGEST_TAIL {
        return Err(too_long());
    }
    let place = layout::tail(wal.stanza, wal.system, name, from, to, writer)?;
    let info = TailInfo {
        name,
        system: wal.system,
        from,
        to,
        writer: writer.to_owned(),
        hash: ContentHash::of(bytes),
    };
    let mut encoder = FrameEncoder::new(compression, false).map_err(WalError::Codec)?;
    let mut frame = EncodedFrame::default();
    let mut object = wal.repo.begin(&place, env)?;
    for plain in bytes.chunks(WAL_FRAME) {
        encoder.encode(plain, &mut frame).map_err(WalError::Codec)?;
        object.append(&mut frame)?;
    }
    match object.finish(info.to_meta(&place)?)?.commit() {
        Err(error) if error.kind == StoreErrorKind::Taken => {
            let reader = wal.repo.reader(&place)?;
            let there = TailInfo::from_meta(&place, reader.meta(), &info)?;
            if there.hash != info.hash {
                return Err(WalError::Conflict { object: place.key, stored: there.hash, offered: info.hash });
            }
            wal.repo.store().make_durable(&place.key)?;
            Ok(Created::Same)
        }
        other => Ok(other?),
    }
}

/// Stores PostgreSQL's `.backup` file; several with other contents may coexist.
///
/// # Errors
/// The store's trouble, or damage of the equal one that stands there.
pub fn store_backup_history(
    wal: ClusterWal<'_>,
    segment: SegmentName,
    offset: u32,
    contents: &[u8],
    env: &dyn Env,
) -> Result<Created, WalError> {
    let hash = ContentHash::of(contents);
    let place = layout::backup_history(wal.stanza, wal.system, segment, offset, hash.as_bytes())?;
    let info = FileInfo {
        file: WalFileName::BackupHistory(segment, offset).to_string(),
        system: wal.system,
        size: contents.len() as u64,
        hash,
    };
    match create_file(wal, &place, &info, contents, env)? {
        Some(created) => Ok(created),
        None => {
            let (there, _) = read::read_file(wal, &place, &info.file)?;
            if there.hash != hash {
                return Err(WalError::Conflict { object: place.key, stored: there.hash, offered: hash });
            }
            wal.repo.store().make_durable(&place.key)?;
            Ok(Created::Same)
        }
    }
}

/// Stores the history of a timeline, `contents` being the file and `parsed` what it says.
///
/// Files that say the same are equal, whatever their comments and blank lines.
///
/// # Errors
/// [`WalError::HistoryConflict`] when another history has the name; the store's trouble, or damage.
pub fn store_history(
    wal: ClusterWal<'_>,
    contents: &[u8],
    parsed: &TimelineHistory,
    env: &dyn Env,
) -> Result<Created, WalError> {
    let timeline = parsed.timeline();
    let place = layout::history(wal.stanza, wal.system, timeline)?;
    let info = FileInfo {
        file: timeline.history_name(),
        system: wal.system,
        size: contents.len() as u64,
        hash: ContentHash::of(contents),
    };
    match create_file(wal, &place, &info, contents, env)? {
        Some(created) => Ok(created),
        None => settle_history(wal, timeline, contents, parsed),
    }
}

/// Compares the stored history of a timeline with this one.
///
/// # Errors
/// As [`store_history`], and that there is none.
pub fn settle_history(
    wal: ClusterWal<'_>,
    timeline: TimelineId,
    contents: &[u8],
    parsed: &TimelineHistory,
) -> Result<Created, WalError> {
    let place = layout::history(wal.stanza, wal.system, timeline)?;
    let (there, stored) = read::read_file(wal, &place, &timeline.history_name())?;
    let offered = ContentHash::of(contents);
    if there.hash != offered {
        let stored = TimelineHistory::parse(timeline, &stored)
            .map_err(|error| RepoError::damaged(&place.key, format!("it is no timeline history: {error}")))?;
        if stored != *parsed {
            return Err(WalError::HistoryConflict { object: place.key, stored: there.hash, offered });
        }
    }
    wal.repo.store().make_durable(&place.key)?;
    Ok(Created::Same)
}

/// `None` when the name is taken by an object of other bytes.
fn create_file(
    wal: ClusterWal<'_>,
    place: &Place,
    info: &FileInfo,
    contents: &[u8],
    env: &dyn Env,
) -> Result<Option<Created>, WalError> {
    match wal.repo.create_parts(place, &[contents], info.to_meta(place)?, env) {
        Ok(created) => Ok(Some(created)),
        Err(RepoError::Conflict { .. }) => Ok(None),
        Err(other) => Err(other.into()),
    }
}
