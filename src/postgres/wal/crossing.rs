//! A record that begins in one segment and ends in the next, put together from a few pages of each.
//!
//! A walk over one segment sees neither part as a record. This is for who needs a short one, and has no wish to read the
//! whole segment before. Nothing is believed of the first part alone: only a record whose checksum is right over both
//! parts is one, and only such a one does PostgreSQL replay.

use super::super::little_endian::u32_at;
use super::page::PageHeader;
use super::reader::OwnedRecord;
use super::segment::SegmentIdentity;
use super::stream::{RECORD_HEADER, RecordHeader};
use crate::units::{Lsn, TimelineId};

/// Longer records are not put together.
pub const LONGEST: usize = 4096;
/// Bytes of a segment's beginning that show the end of such a record, whatever the size of its pages.
pub const BEGINNING: usize = 8192;

/// The end of a record, with which a segment begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordEnd {
    identity: SegmentIdentity,
    bytes: Vec<u8>,
    /// Behind its last byte.
    end: Lsn,
}

/// The beginning of a record, with which a segment ends.
struct RecordBegin {
    at: Lsn,
    timeline: TimelineId,
    bytes: Vec<u8>,
}

/// These are not the last pages of the segment before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotBefore;

impl RecordEnd {
    /// That of the segment with this beginning ([`BEGINNING`] bytes of it). `None` when it does not begin inside a record,
    /// or in one of which more than [`LONGEST`] bytes follow.
    #[must_use]
    pub fn of(beginning: &[u8]) -> Option<Self> {
        let identity = SegmentIdentity::parse(beginning).ok()?;
        let page_size = usize::try_from(identity.page_size).ok()?;
        let mut address = identity.start;
        let mut bytes = Vec::new();
        let mut left: Option<usize> = None;
        for page in beginning.chunks(page_size) {
            let header = PageHeader::parse(page)?;
            let remaining = usize::try_from(header.remaining).ok()?;
            let fits = header.magic == identity.magic && header.address == address && header.continues();
            if !fits || remaining == 0 || remaining > LONGEST || left.is_some_and(|left| left != remaining) {
                return None;
            }
            let data = page.get(header.length()..)?;
            let here = data.get(..remaining).unwrap_or(data);
            bytes.extend_from_slice(here);
            if here.len() == remaining {
                let end = address.forward((header.length() + remaining) as u64)?;
                return Some(Self { identity, bytes, end });
            }
            left = Some(remaining - here.len());
            address = address.forward(page_size as u64)?;
        }
        None
    }

    /// What the segment's first page says of it.
    #[must_use]
    pub const fn identity(&self) -> &SegmentIdentity {
        &self.identity
    }

    /// Whether these may be the last bytes of a record that creates a tablespace: it ends in an absolute path and a zero.
    #[must_use]
    pub fn may_end_a_tablespace_created(&self) -> bool {
        let Some((0, before)) = self.bytes.split_last() else { return false };
        let text = before.rsplit(|byte| *byte == 0).next().unwrap_or_default();
        // Seen from its beginning on, where its OID stands before it, or from somewhere in it.
        text.len() == before.len() || text.contains(&b'/')
    }

    /// Bytes of the end of the segment before, in which the record begins.
    #[must_use]
    pub fn bytes_before(&self) -> u64 {
        let page = u64::from(self.identity.page_size);
        page * (LONGEST as u64).div_ceil(page - super::page::SHORT_HEADER as u64)
    }

    /// The whole record, where it begins in the segment that ends with `tail`, which are [`RecordEnd::bytes_before`] or
    /// more whole pages. `None` when it does not: then it is no record.
    ///
    /// # Errors
    /// When these are not the pages before it.
    pub fn join(&self, tail: &[u8]) -> Result<Option<OwnedRecord>, NotBefore> {
        let begin = self.begin_in(tail)?;
        Ok(begin.and_then(|begin| self.whole(begin)))
    }

    fn whole(&self, begin: RecordBegin) -> Option<OwnedRecord> {
        let whole = [&begin.bytes[..], &self.bytes].concat();
        let (fixed, body) = whole.split_first_chunk::<RECORD_HEADER>()?;
        let header = RecordHeader::parse(fixed);
        let crc = crc32c::crc32c_append(crc32c::crc32c(body), fixed.get(..20)?);
        if header.total_length as usize != whole.len() || header.crc != crc {
            return None;
        }
        let end = Lsn::new(self.end.as_u64().checked_next_multiple_of(8)?);
        Some(OwnedRecord {
            lsn: begin.at,
            end,
            replay_end: end,
            header,
            body: body.to_vec(),
            timeline: begin.timeline,
            found_in: self.identity,
        })
    }

    /// Walks over the records of the last pages, to the one that goes on behind them.
    fn begin_in(&self, tail: &[u8]) -> Result<Option<RecordBegin>, NotBefore> {
        let page_size = usize::try_from(self.identity.page_size).map_err(|_| NotBefore)?;
        let start = self.identity.start.as_u64().checked_sub(tail.len() as u64).ok_or(NotBefore)?;
        if tail.is_empty() || !tail.len().is_multiple_of(page_size) {
            return Err(NotBefore);
        }
        let mut address = start;
        let mut open: Option<(RecordBegin, usize)> = None;
        for page in tail.chunks(page_size) {
            let header = PageHeader::parse(page).ok_or(NotBefore)?;
            if header.magic != self.identity.magic || header.address != Lsn::new(address) {
                return Err(NotBefore);
            }
            let here = address;
            address += page_size as u64;
            let mut at = header.length();
            if header.continues() {
                let remaining = header.remaining as usize;
                let data = page.get(at..).unwrap_or_default();
                let more = data.get(..remaining).unwrap_or(data);
                if let Some((begin, left)) = open.as_mut().filter(|(_, left)| *left == remaining) {
                    begin.bytes.extend_from_slice(more);
                    *left -= more.len();
                }
                if more.len() < remaining || at + remaining == page_size {
                    // It fills the page. One that began before these pages is too long to be wanted.
                    open = open.filter(|(_, left)| *left > 0 && *left + more.len() == remaining);
                    continue;
                }
                at += remaining;
            }
            open = None;
            loop {
                at = at.next_multiple_of(8);
                let Some(total) = u32_at(page, at) else { break };
                let total = total as usize;
                if total < RECORD_HEADER {
                    break;
                }
                if let Some(next) = at.checked_add(total).filter(|next| *next <= page_size) {
                    at = next;
                    continue;
                }
                if total <= LONGEST {
                    let bytes = page.get(at..).unwrap_or_default().to_vec();
                    let left = total - bytes.len();
                    let timeline = TimelineId::new(header.timeline).ok_or(NotBefore)?;
                    open = Some((RecordBegin { at: Lsn::new(here + at as u64), timeline, bytes }, left));
                }
                break;
            }
        }
        Ok(open.filter(|(_, left)| *left == self.bytes.len()).map(|(begin, _)| begin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    /// The header of a segment's first page.
    fn header(page: &mut [u8], flags: u16, remaining: u32) {
        other_header(page, 4 * MIB, flags, remaining);
        page[24..32].copy_from_slice(&7_u64.to_le_bytes());
        page[32..36].copy_from_slice(&u32::try_from(MIB).unwrap().to_le_bytes());
        page[36..40].copy_from_slice(&8192_u32.to_le_bytes());
    }

    fn other_header(page: &mut [u8], address: u64, flags: u16, remaining: u32) {
        page[0..2].copy_from_slice(&0xD118_u16.to_le_bytes());
        page[2..4].copy_from_slice(&flags.to_le_bytes());
        page[4..8].copy_from_slice(&1_u32.to_le_bytes());
        page[8..16].copy_from_slice(&address.to_le_bytes());
        page[16..20].copy_from_slice(&remaining.to_le_bytes());
    }

    #[test]
    fn most_records_are_told_from_one_that_creates_a_tablespace_by_their_last_bytes() {
        let ends = |bytes: &[u8]| {
            let mut page = vec![0; BEGINNING];
            header(&mut page, 3, 4);
            let identity = *RecordEnd::of(&page).unwrap().identity();
            RecordEnd { identity, bytes: bytes.to_vec(), end: Lsn::new(1) }.may_end_a_tablespace_created()
        };
        for maybe in
            [&b"\0"[..], b"ar\0", b"\x10\x40\0\0/srv/a\0", b"\x10\x40\x01\x07/srv/a\0", b"/\0", b"\0\0/\0"]
        {
            assert!(ends(maybe), "{maybe:?}");
        }
        for never in [&b"/srv/a"[..], b"\0\0", b"a\0\0", b"\0abc\0", b"abc  ", b""] {
            assert!(!ends(never), "{never:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_bytes_make_it_panic(
            seed: u64, page_size in prop::sample::select(vec![1024_u32, 8192, 65536]), remaining in 0_u32..6000, flags in 0_u16..16,
        ) {
            let mut bytes = vec![0; 65536 * 2];
            blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
            let mut segment = bytes.clone();
            header(&mut segment, 3, remaining);
            segment[36..40].copy_from_slice(&page_size.to_le_bytes());
            for page in 1..8_usize {
                let at = page * page_size as usize;
                if at + 24 < segment.len() {
                    other_header(&mut segment[at..], 4 * MIB + at as u64, flags, remaining.saturating_sub(at as u32));
                }
            }
            if let Some(end) = RecordEnd::of(&segment[..BEGINNING.max(page_size as usize)]) {
                let length = usize::try_from(end.bytes_before()).unwrap();
                let mut tail = bytes[..length].to_vec();
                for (page, at) in (0..length).step_by(page_size as usize).enumerate() {
                    let address = 4 * MIB - (length - at) as u64;
                    other_header(&mut tail[at..], address, if page % 2 == 0 { flags & !2 } else { 1 }, remaining);
                }
                let _ = end.join(&tail);
                let _ = end.join(&tail[..length - 1]);
            }
            let _ = RecordEnd::of(&bytes);
        }
    }
}
