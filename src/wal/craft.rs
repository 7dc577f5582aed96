//! For tests: WAL segments made by hand.

use crate::units::{SegmentName, SegmentSize, SystemIdentifier, TimelineId, Timestamp};

/// `XLOG_PAGE_MAGIC` of PostgreSQL 18.
pub const MAGIC: u16 = 0xD118;
const PAGE: usize = 8192;
/// Microseconds between the two epochs.
const EPOCH: i64 = 946_684_800_000_000;

/// Writes records into one segment.
pub struct Craft {
    bytes: Vec<u8>,
    at: usize,
    start: u64,
    magic: u16,
    timeline: u32,
    system: u64,
    previous: u64,
    /// What of the last record did not fit.
    over: Vec<u8>,
}

impl Craft {
    /// An empty segment `number` of timeline 1.
    pub fn new(system: u64, number: u64, size: u64) -> Self {
        let bytes = vec![0; usize::try_from(size).unwrap()];
        Self {
            bytes,
            at: 0,
            start: number * size,
            magic: MAGIC,
            timeline: 1,
            system,
            previous: 0,
            over: Vec::new(),
        }
    }

    pub fn magic(mut self, magic: u16) -> Self {
        self.magic = magic;
        self
    }

    pub fn timeline(mut self, timeline: u32) -> Self {
        self.timeline = timeline;
        self
    }

    /// Where the record before the first one begins.
    pub fn after(mut self, previous: u64) -> Self {
        self.previous = previous;
        self
    }

    /// Where the last record begins.
    pub fn last_record(&self) -> u64 {
        self.previous
    }

    /// `XLOG_SWITCH`: the rest of the segment is nothing.
    pub fn switch(self) -> Self {
        self.record(0, 0x40, 0, &[])
    }

    /// What the rest of a recycled file looks like: pages of an older segment.
    pub fn recycled(mut self) -> Self {
        for at in (PAGE..self.bytes.len()).step_by(PAGE) {
            let address = (self.start + at as u64).wrapping_sub(8 * self.bytes.len() as u64);
            self.bytes[at..at + 2].copy_from_slice(&self.magic.to_le_bytes());
            self.bytes[at + 4..at + 8].copy_from_slice(&self.timeline.to_le_bytes());
            self.bytes[at + 8..at + 16].copy_from_slice(&address.to_le_bytes());
            self.bytes[at + 24..at + PAGE].fill(0x55);
        }
        self
    }

    fn page_header(&mut self, left: usize) {
        let first = self.at == 0;
        let flags = u16::from(left > 0) | if first { 2 } else { 0 };
        let size = u32::try_from(self.bytes.len()).unwrap();
        let page = &mut self.bytes[self.at..self.at + PAGE];
        page.fill(0);
        page[0..2].copy_from_slice(&self.magic.to_le_bytes());
        page[2..4].copy_from_slice(&flags.to_le_bytes());
        page[4..8].copy_from_slice(&self.timeline.to_le_bytes());
        page[8..16].copy_from_slice(&(self.start + self.at as u64).to_le_bytes());
        page[16..20].copy_from_slice(&u32::try_from(left).unwrap().to_le_bytes());
        if first {
            page[24..32].copy_from_slice(&self.system.to_le_bytes());
            page[32..36].copy_from_slice(&size.to_le_bytes());
            page[36..40].copy_from_slice(&(PAGE as u32).to_le_bytes());
            self.at += 40;
        } else {
            self.at += 24;
        }
    }

    /// A record; what does not fit goes on in the next segment, which is not made.
    pub fn record(mut self, manager: u8, info: u8, xid: u32, body: &[u8]) -> Self {
        self.at = self.at.next_multiple_of(8);
        if self.at >= self.bytes.len() {
            return self;
        }
        if self.at.is_multiple_of(PAGE) {
            self.page_header(0);
        }
        let begin = self.start + self.at as u64;
        let mut record = vec![0; 24];
        record[0..4].copy_from_slice(&u32::try_from(24 + body.len()).unwrap().to_le_bytes());
        record[4..8].copy_from_slice(&xid.to_le_bytes());
        record[8..16].copy_from_slice(&self.previous.to_le_bytes());
        record[16] = info;
        record[17] = manager;
        let crc = crc32c::crc32c_append(crc32c::crc32c(body), &record[..20]);
        record[20..24].copy_from_slice(&crc.to_le_bytes());
        record.extend_from_slice(body);
        let mut rest = record.as_slice();
        while !rest.is_empty() && self.at < self.bytes.len() {
            if self.at.is_multiple_of(PAGE) {
                self.page_header(rest.len());
            }
            let room = (PAGE - self.at % PAGE).min(rest.len());
            self.bytes[self.at..self.at + room].copy_from_slice(&rest[..room]);
            self.at += room;
            rest = &rest[room..];
        }
        self.over = rest.to_vec();
        self.previous = begin;
        self
    }

    /// The body of a record that has nothing but these data.
    pub fn main_data(data: &[u8]) -> Vec<u8> {
        let mut body = vec![254];
        body.extend_from_slice(&u32::try_from(data.len()).unwrap().to_le_bytes());
        body.extend_from_slice(data);
        body
    }

    /// `XLOG_NOOP` of this many bytes, filled from `seed`.
    pub fn noop(self, length: usize, seed: u64) -> Self {
        let mut data = vec![0; length];
        // Half of it compresses, as WAL does.
        let half = length / 2;
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut data[..half]);
        self.record(0, 0x20, 0, &Self::main_data(&data))
    }

    /// A commit at so many seconds since 1970.
    pub fn commit(self, xid: u32, at: Timestamp) -> Self {
        let data = (at.as_unix_micros() - EPOCH).to_le_bytes();
        self.record(1, 0, xid, &Self::main_data(&data))
    }

    /// `XLOG_RESTORE_POINT` at so many seconds since 1970.
    pub fn restore_point(self, name: &str, at: Timestamp) -> Self {
        let mut data = (at.as_unix_micros() - EPOCH).to_le_bytes().to_vec();
        data.extend_from_slice(name.as_bytes());
        data.resize(8 + 64, 0);
        self.record(0, 0x70, 0, &Self::main_data(&data))
    }

    /// Records up to the boundary and over it.
    pub fn fill(mut self, seed: u64) -> Self {
        while self.at < self.bytes.len() {
            let seed = seed + self.at as u64;
            self = self.noop(30_000, seed);
        }
        self
    }

    /// Records until so many bytes of the segment are left, a multiple of 8 and less than a page.
    pub fn up_to(mut self, left: usize) -> Self {
        let end = self.bytes.len() - left;
        while end - self.at > 3 * PAGE {
            let seed = self.at as u64;
            self = self.noop(10_000, seed);
        }
        // Up to the last page, and then to the place in it.
        for target in [self.bytes.len() - PAGE + 24 + 64, end] {
            let at = self.at.next_multiple_of(8);
            let headers = if at / PAGE == (target - 1) / PAGE { 0 } else { 24 * (target / PAGE - at / PAGE) };
            let seed = self.at as u64;
            self = self.noop(target - at - headers - 24 - 5, seed);
            assert_eq!(self.at, target, "the records end where they should");
        }
        self
    }

    /// This segment, and the next one with what of the last record did not fit.
    pub fn and_next(self) -> (Vec<u8>, Self) {
        let (previous, left, size) = (self.previous, self.over.clone(), self.bytes.len() as u64);
        let mut next =
            Self::new(self.system, self.start / size + 1, size).magic(self.magic).timeline(self.timeline);
        next.previous = previous;
        next.go_on_with(left);
        (self.bytes, next)
    }

    /// The rest of a record that began in the segment before.
    fn go_on_with(&mut self, mut rest: Vec<u8>) {
        while !rest.is_empty() {
            if self.at.is_multiple_of(PAGE) {
                self.page_header(rest.len());
            }
            let room = (PAGE - self.at % PAGE).min(rest.len());
            self.bytes[self.at..self.at + room].copy_from_slice(&rest[..room]);
            self.at += room;
            rest.drain(..room);
        }
    }

    /// So many full segments from number `first` on, each going on where the one before it ends. Another `seed`
    /// gives other records, and lets them cross the borders elsewhere.
    pub fn chain(system: u64, first: u64, size: u64, count: u64, seed: u64) -> Vec<Vec<u8>> {
        let mut segments = Vec::new();
        let (mut previous, mut left): (u64, Vec<u8>) = (0, Vec::new());
        for number in first..first + count {
            let mut craft = Self::new(system, number, size);
            craft.previous = previous;
            craft.go_on_with(std::mem::take(&mut left));
            while craft.at < craft.bytes.len() {
                let length = 20_000 + usize::try_from((seed + craft.at as u64) % 9_000).unwrap();
                let seed = seed + craft.at as u64;
                craft = craft.noop(length, seed);
            }
            previous = craft.previous;
            left = std::mem::take(&mut craft.over);
            segments.push(craft.bytes);
        }
        segments
    }

    pub fn bytes(self) -> Vec<u8> {
        self.bytes
    }
}

pub fn name(timeline: u32, number: u64, size: u64) -> SegmentName {
    let timeline = TimelineId::new(timeline).unwrap();
    SegmentName::from_number(timeline, number, SegmentSize::new(size).unwrap()).unwrap()
}

pub fn system(id: u64) -> SystemIdentifier {
    SystemIdentifier::new(id)
}
