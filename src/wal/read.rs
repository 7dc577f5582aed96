//! Reading WAL back: in bounded memory, every seal and the hash of the whole checked before success.

use super::ClusterWal;
use super::error::WalError;
use super::info::{ContentHash, FileInfo, Part, SegmentInfo, ShortHash, TailInfo};
use super::scatter;
use crate::postgres::history::TimelineHistory;
use crate::repo::RepoError;
use crate::repo::frame::FrameDecoder;
use crate::repo::layout::{self, Place};
use crate::repo::object::ObjectReader;
use crate::units::{SegmentName, TimelineId, WalFileName};
use std::io;

/// Stored bytes that one read fetches. A whole segment of 16 MiB compresses to less than four of these as a
/// rule. It is what `archive-get` holds in memory beside one frame, and that is to stay below 10 MiB.
const FETCH: u64 = 2 << 20;

/// Stored bytes of a segment that are fetched in one request over a network: most segments.
const AT_ONCE: u64 = 4 << 20;

pub use super::scatter::Places;

/// Takes plain bytes in order. What it was given counts only when the read that gave it succeeds.
pub type Sink<'a> = &'a mut dyn FnMut(&[u8]) -> io::Result<()>;

/// What is stored of a complete segment, from its sealed footer alone: at most two small reads.
///
/// # Errors
/// [`RepoError::Missing`] when it is not stored, [`RepoError::Damaged`], or the store's trouble.
pub fn segment_info(wal: ClusterWal<'_>, name: SegmentName) -> Result<SegmentInfo, WalError> {
    let place = layout::segment(wal.stanza, wal.system, name)?;
    let reader = wal.repo.reader(&place)?;
    Ok(SegmentInfo::from_meta(&place, reader.meta(), wal.system, name)?.0)
}

/// The same of an unfinished segment.
///
/// # Errors
/// As [`segment_info`].
pub fn partial_info(
    wal: ClusterWal<'_>,
    name: SegmentName,
    hash: ShortHash,
) -> Result<SegmentInfo, WalError> {
    let place = layout::partial(wal.stanza, wal.system, name, &hash.padded())?;
    let reader = wal.repo.reader(&place)?;
    Ok(SegmentInfo::from_meta(&place, reader.meta(), wal.system, name)?.0)
}

/// The hashes of the parts that a segment's index names, those of an unfinished copy where `partial` names one;
/// none for what is stored whole.
///
/// # Errors
/// As [`segment_info`].
pub fn parts_of(
    wal: ClusterWal<'_>,
    name: SegmentName,
    partial: Option<ShortHash>,
) -> Result<Vec<ContentHash>, WalError> {
    let place = match partial {
        None => layout::segment(wal.stanza, wal.system, name)?,
        Some(hash) => layout::partial(wal.stanza, wal.system, name, &hash.padded())?,
    };
    let reader = wal.repo.reader(&place)?;
    let (_, parts) = SegmentInfo::from_meta(&place, reader.meta(), wal.system, name)?;
    Ok(parts.iter().map(|part| part.hash).collect())
}

/// Gives the plain bytes of a complete segment to `sink`, frame by frame.
///
/// After `Ok` the sink was given exactly the bytes that were stored: every seal was checked, and the hash of
/// the whole. After `Err` what it was given means nothing.
///
/// # Errors
/// As [`segment_info`]; [`WalError::Sink`] when `sink` fails.
pub fn read_segment_into(
    wal: ClusterWal<'_>,
    name: SegmentName,
    sink: Sink<'_>,
) -> Result<SegmentInfo, WalError> {
    let place = layout::segment(wal.stanza, wal.system, name)?;
    read_segment_object(wal, name, &place, sink)
}

/// The same by two threads at once, where the segment's frames allow it: each to its place in any order.
///
/// # Errors
/// As [`read_segment_into`].
pub fn read_segment_to_places(
    wal: ClusterWal<'_>,
    name: SegmentName,
    places: Places<'_>,
) -> Result<SegmentInfo, WalError> {
    let place = layout::segment(wal.stanza, wal.system, name)?;
    let reader = wal.repo.reader_at_once(&place, AT_ONCE)?;
    let (info, parts) = SegmentInfo::from_meta(&place, reader.meta(), wal.system, name)?;
    if !parts.is_empty() || !scatter::is_even(&reader) {
        let mut at = 0;
        return read_opened(wal, &reader, (info, parts), &mut |bytes| {
            places(at, bytes)?;
            at += bytes.len() as u64;
            Ok(())
        });
    }
    require_size(&reader, info.size)?;
    if scatter::scatter(wal.repo.store(), &reader, places)? == info.hash {
        Ok(info)
    } else {
        Err(other_contents(&reader))
    }
}

/// The last `length` plain bytes of a complete segment. The seal of each byte was checked, the hash of the whole was not.
///
/// # Errors
/// As [`segment_info`].
pub fn read_segment_end(wal: ClusterWal<'_>, name: SegmentName, length: u64) -> Result<Vec<u8>, WalError> {
    let place = layout::segment(wal.stanza, wal.system, name)?;
    let reader = wal.repo.reader(&place)?;
    let (info, parts) = SegmentInfo::from_meta(&place, reader.meta(), wal.system, name)?;
    let Some(part) = parts.last() else { return end_of(wal, &reader, info.size, length) };
    let place = layout::segment_part(wal.stanza, wal.system, name, part.hash.as_bytes())?;
    end_of(wal, &wal.repo.reader(&place)?, part.size, length)
}

/// The last `length` of an object's `size` plain bytes; all where there are fewer.
fn end_of(wal: ClusterWal<'_>, reader: &ObjectReader, size: u64, length: u64) -> Result<Vec<u8>, WalError> {
    require_size(reader, size)?;
    let frames = reader.frames();
    let (mut first, mut held) = (frames.len(), 0);
    while held < length && first > 0 {
        first -= 1;
        held += frames.get(first).map_or(0, |frame| u64::from(frame.raw));
    }
    let mut span = reader.fetch(wal.repo.store(), first..frames.len())?;
    let mut decoder = FrameDecoder::new().map_err(WalError::Codec)?;
    let (mut bytes, mut plain) = (Vec::new(), Vec::new());
    for frame in first..frames.len() {
        reader.decode(&mut span, frame, &mut decoder, &mut plain)?;
        bytes.extend_from_slice(&plain);
    }
    let spare = bytes.len().saturating_sub(usize::try_from(length).unwrap_or(usize::MAX));
    bytes.drain(..spare);
    Ok(bytes)
}

/// The same for an unfinished segment: all bytes the file had. Only the first [`SegmentInfo::valid`] of them
/// are WAL.
///
/// # Errors
/// As [`read_segment_into`].
pub fn read_partial_into(
    wal: ClusterWal<'_>,
    name: SegmentName,
    hash: ShortHash,
    sink: Sink<'_>,
) -> Result<SegmentInfo, WalError> {
    let place = layout::partial(wal.stanza, wal.system, name, &hash.padded())?;
    let info = read_segment_object(wal, name, &place, sink)?;
    if info.hash.short() != hash {
        return Err(RepoError::damaged(&place.key, "its contents are not the ones its name says").into());
    }
    Ok(info)
}

pub(super) fn read_segment_object(
    wal: ClusterWal<'_>,
    name: SegmentName,
    place: &Place,
    sink: Sink<'_>,
) -> Result<SegmentInfo, WalError> {
    let reader = wal.repo.reader(place)?;
    let told = SegmentInfo::from_meta(place, reader.meta(), wal.system, name)?;
    read_opened(wal, &reader, told, sink)
}

fn read_opened(
    wal: ClusterWal<'_>,
    reader: &ObjectReader,
    (info, parts): (SegmentInfo, Vec<Part>),
    sink: Sink<'_>,
) -> Result<SegmentInfo, WalError> {
    let mut decoder = FrameDecoder::new().map_err(WalError::Codec)?;
    let mut hasher = blake3::Hasher::new();
    if parts.is_empty() {
        let mut both = |bytes: &[u8]| {
            hasher.update(bytes);
            sink(bytes)
        };
        stream(wal, reader, info.size, &mut decoder, &mut both)?;
    } else {
        if !reader.frames().is_empty() {
            return Err(RepoError::damaged(reader.key(), "it has both parts and frames").into());
        }
        for part in &parts {
            let mut both = |bytes: &[u8]| {
                hasher.update(bytes);
                sink(bytes)
            };
            read_part(wal, info.name, part, &mut decoder, &mut both)?;
        }
    }
    if ContentHash::finish(&hasher) == info.hash { Ok(info) } else { Err(other_contents(reader)) }
}

fn other_contents(reader: &ObjectReader) -> WalError {
    RepoError::damaged(reader.key(), "its contents do not have the hash that it says").into()
}

fn read_part(
    wal: ClusterWal<'_>,
    name: SegmentName,
    part: &Part,
    decoder: &mut FrameDecoder,
    sink: Sink<'_>,
) -> Result<(), WalError> {
    let place = layout::segment_part(wal.stanza, wal.system, name, part.hash.as_bytes())?;
    let reader = wal.repo.reader(&place)?;
    let mut hasher = blake3::Hasher::new();
    let mut both = |bytes: &[u8]| {
        hasher.update(bytes);
        sink(bytes)
    };
    stream(wal, &reader, part.size, decoder, &mut both)?;
    if ContentHash::finish(&hasher) == part.hash {
        Ok(())
    } else {
        Err(RepoError::damaged(&place.key, "its contents do not have the hash in its name").into())
    }
}

/// All frames of an object in order, which must have `size` plain bytes together.
fn stream(
    wal: ClusterWal<'_>,
    reader: &ObjectReader,
    size: u64,
    decoder: &mut FrameDecoder,
    sink: Sink<'_>,
) -> Result<(), WalError> {
    require_size(reader, size)?;
    let frames = reader.frames().len();
    let mut plain = Vec::new();
    let mut next = 0;
    while next < frames {
        let mut end = next + 1;
        while end < frames && reader.stored_bytes(&(next..end + 1)).is_some_and(|bytes| bytes <= FETCH) {
            end += 1;
        }
        let mut span = reader.fetch(wal.repo.store(), next..end)?;
        for frame in next..end {
            reader.decode(&mut span, frame, decoder, &mut plain)?;
            sink(&plain).map_err(WalError::Sink)?;
        }
        next = end;
    }
    Ok(())
}

/// That the frames have `size` plain bytes together.
fn require_size(reader: &ObjectReader, size: u64) -> Result<(), WalError> {
    if reader.frames().iter().map(|frame| u64::from(frame.raw)).sum::<u64>() == size {
        Ok(())
    } else {
        Err(RepoError::damaged(reader.key(), "its frames do not have the size that it says").into())
    }
}

/// A stored stretch of an open segment.
///
/// # Errors
/// As [`segment_info`].
pub fn read_tail(
    wal: ClusterWal<'_>,
    name: SegmentName,
    range: std::ops::Range<u32>,
    writer: &str,
) -> Result<Vec<u8>, WalError> {
    let place = layout::tail(wal.stanza, wal.system, name, range.start, range.end, writer)?;
    let reader = wal.repo.reader(&place)?;
    let expected = TailInfo {
        name,
        system: wal.system,
        from: range.start,
        to: range.end,
        writer: writer.to_owned(),
        hash: ContentHash::of(&[]),
    };
    let info = TailInfo::from_meta(&place, reader.meta(), &expected)?;
    let mut bytes = Vec::new();
    let mut decoder = FrameDecoder::new().map_err(WalError::Codec)?;
    stream(wal, &reader, info.size(), &mut decoder, &mut |more| {
        bytes.extend_from_slice(more);
        Ok(())
    })?;
    if ContentHash::of(&bytes) == info.hash {
        Ok(bytes)
    } else {
        Err(RepoError::damaged(&place.key, "its contents do not have the hash that it says").into())
    }
}

/// A stored history file: its bytes as PostgreSQL wrote them (or as a later history implies them).
///
/// # Errors
/// As [`segment_info`].
pub fn read_history_file(wal: ClusterWal<'_>, timeline: TimelineId) -> Result<Vec<u8>, WalError> {
    let place = layout::history(wal.stanza, wal.system, timeline)?;
    Ok(read_file(wal, &place, &timeline.history_name())?.1)
}

/// The same, parsed.
///
/// # Errors
/// As [`segment_info`]; damage when it is not a history.
pub fn read_history(wal: ClusterWal<'_>, timeline: TimelineId) -> Result<TimelineHistory, WalError> {
    let bytes = read_history_file(wal, timeline)?;
    TimelineHistory::parse(timeline, &bytes).map_err(|error| {
        layout::history(wal.stanza, wal.system, timeline).map_or_else(WalError::from, |place| {
            RepoError::damaged(&place.key, format!("it is no timeline history: {error}")).into()
        })
    })
}

/// A stored `.backup` file.
///
/// # Errors
/// As [`segment_info`].
pub fn read_backup_history(
    wal: ClusterWal<'_>,
    segment: SegmentName,
    offset: u32,
    hash: ShortHash,
) -> Result<Vec<u8>, WalError> {
    let place = layout::backup_history(wal.stanza, wal.system, segment, offset, &hash.padded())?;
    let name = WalFileName::BackupHistory(segment, offset).to_string();
    Ok(read_file(wal, &place, &name)?.1)
}

pub(super) fn read_file(
    wal: ClusterWal<'_>,
    place: &Place,
    file: &str,
) -> Result<(FileInfo, Vec<u8>), WalError> {
    let (parts, meta) = wal.repo.read_parts(place)?;
    let info = FileInfo::from_meta(place, &meta, wal.system, file)?;
    let contents = parts.concat();
    if contents.len() as u64 != info.size || ContentHash::of(&contents) != info.hash {
        return Err(RepoError::damaged(&place.key, "its contents do not have the hash that it says").into());
    }
    Ok((info, contents))
}

/// Whether this says that the object is certainly not there.
#[must_use]
pub fn is_missing(error: &WalError) -> bool {
    matches!(error, WalError::Repo(RepoError::Missing { .. }))
}
