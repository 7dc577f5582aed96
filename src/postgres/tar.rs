//! The archives of a base backup, taken apart as they arrive.
//!
//! PostgreSQL writes plain ustar (`src/port/tar.c`, `tarCreateHeader`): names of at most 100 bytes in any
//! encoding, files, directories and symbolic links, large numbers in base 256, two zero blocks at the end. That
//! is what is read here; GNU long names, pax headers, hard links and devices never come from a server, and
//! are refused by their type.
//!
//! The demultiplexer holds at most one block. It says nothing about what the names mean, but a name that leaves
//! the directory (absolute, `..`) is refused.

use std::fmt;

/// A block, the unit of a tar archive.
const BLOCK: usize = 512;
/// Zero bytes that may follow the end: archivers round up to a record of 20 blocks.
const MOST_TRAILING: usize = 20 * BLOCK;

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link, with its target as the server has it.
    Symlink {
        /// Bytes as written.
        target: Vec<u8>,
    },
}

/// The beginning of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Relative to the archive's root, without `./` before it or `/` after it. Perhaps not UTF-8.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// How many bytes of data follow; 0 for all but files.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Seconds since 1970.
    pub modified: i64,
}

/// What comes next in an archive.
#[derive(Debug, PartialEq, Eq)]
pub enum TarEvent<'a> {
    /// An entry begins.
    Entry(Entry),
    /// Bytes of a file, in order, cut anywhere, never empty.
    Data(&'a [u8]),
    /// The entry is complete. Comes for every entry.
    EntryEnd,
    /// The archive is complete: it was not cut.
    ArchiveEnd,
}

/// Bytes that are no archive of a server. Positions count from the archive's beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TarError {
    /// A header whose checksum does not fit its contents.
    Checksum {
        /// Where the header begins.
        at: u64,
    },
    /// A header that is not ustar.
    NotUstar {
        /// Where the header begins.
        at: u64,
    },
    /// A number that cannot be read or is out of range.
    Number {
        /// Where the header begins.
        at: u64,
        /// Which field.
        field: &'static str,
    },
    /// An entry of a type that servers never send.
    Kind {
        /// Where the header begins.
        at: u64,
        /// The type.
        kind: u8,
    },
    /// A name that is empty, absolute, or leads out of the directory.
    Name {
        /// Where the header begins.
        at: u64,
    },
    /// Data where none may be: on a directory or link, or after the end.
    Data {
        /// Where.
        at: u64,
    },
    /// The archive stops before its end.
    Cut {
        /// How long it is.
        at: u64,
    },
    /// It failed before.
    Failed,
}

impl fmt::Display for TarError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Checksum { at } => write!(f, "the tar header at byte {at} has a wrong checksum"),
            Self::NotUstar { at } => write!(f, "at byte {at} there is no tar header of PostgreSQL's form"),
            Self::Number { at, field } => write!(f, "the tar header at byte {at} has no valid {field}"),
            Self::Kind { at, kind } => {
                write!(
                    f,
                    "the tar header at byte {at} has type \"{}\", which no server sends",
                    kind.escape_ascii()
                )
            }
            Self::Name { at } => write!(f, "the tar header at byte {at} has a name outside the directory"),
            Self::Data { at } => write!(f, "there is unexpected data in the archive at byte {at}"),
            Self::Cut { at } => write!(f, "the archive stops at byte {at}, before its end"),
            Self::Failed => f.write_str("the archive was found damaged before"),
        }
    }
}

impl std::error::Error for TarError {}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Collecting a header; so many zero blocks came just before.
    Header {
        zero_blocks: u8,
    },
    /// So much of the file is to come, then so much padding.
    Data {
        left: u64,
        padding: usize,
    },
    /// After an entry's data and before the next header.
    Padding {
        left: usize,
    },
    /// After the end, having seen so many zero bytes.
    End {
        trailing: usize,
    },
    Failed,
}

/// Takes one archive apart, however its bytes are cut.
///
/// ```
/// # use walden::postgres::tar::{Demultiplexer, TarError, TarEvent};
/// # fn f(chunks: Vec<Vec<u8>>) -> Result<(), TarError> {
/// let mut archive = Demultiplexer::new();
/// for chunk in chunks {
///     let mut rest = chunk.as_slice();
///     while let Some(event) = archive.next(&mut rest)? {
///         match event {
///             TarEvent::Entry(entry) => println!("{}", entry.size),
///             TarEvent::Data(bytes) => println!("{}", bytes.len()),
///             TarEvent::EntryEnd | TarEvent::ArchiveEnd => {}
///         }
///     }
/// }
/// archive.finish()
/// # }
/// ```
#[derive(Debug)]
pub struct Demultiplexer {
    state: State,
    header: [u8; BLOCK],
    filled: usize,
    position: u64,
}

impl Default for Demultiplexer {
    fn default() -> Self {
        Self::new()
    }
}

impl Demultiplexer {
    /// Before the first byte of an archive.
    #[must_use]
    pub fn new() -> Self {
        Self { state: State::Header { zero_blocks: 0 }, header: [0; BLOCK], filled: 0, position: 0 }
    }

    /// The next event in `input`, which is moved on past what was used; `None` when it is used up.
    ///
    /// # Errors
    /// When these are not the bytes of a server's archive. No call after that gives anything else.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<TarEvent<'a>>, TarError> {
        let event = self.step(input);
        if event.is_err() {
            self.state = State::Failed;
        }
        event
    }

    /// Confirms that the archive was complete.
    ///
    /// # Errors
    /// [`TarError::Cut`] when it was not.
    pub fn finish(&self) -> Result<(), TarError> {
        match self.state {
            State::End { .. } => Ok(()),
            State::Failed => Err(TarError::Failed),
            _ => Err(TarError::Cut { at: self.position }),
        }
    }

    fn take<'a>(&mut self, input: &mut &'a [u8], most: usize) -> &'a [u8] {
        let (head, rest) = input.split_at(most.min(input.len()));
        *input = rest;
        self.position += head.len() as u64;
        head
    }

    fn step<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<TarEvent<'a>>, TarError> {
        loop {
            match self.state {
                State::Failed => return Err(TarError::Failed),
                // These two need no input: the end of an entry is told as soon as it is known.
                State::Data { left: 0, padding } => {
                    self.state = State::Padding { left: padding };
                    return Ok(Some(TarEvent::EntryEnd));
                }
                State::Padding { left: 0 } => self.state = State::Header { zero_blocks: 0 },
                _ if input.is_empty() => return Ok(None),
                State::Data { left, padding } => {
                    let bytes = self.take(input, usize::try_from(left).unwrap_or(usize::MAX));
                    self.state = State::Data { left: left - bytes.len() as u64, padding };
                    return Ok(Some(TarEvent::Data(bytes)));
                }
                State::Padding { left } => {
                    let skipped = self.take(input, left).len();
                    self.state = State::Padding { left: left - skipped };
                }
                State::End { trailing } => {
                    let at = self.position;
                    let bytes = self.take(input, input.len());
                    let trailing = trailing.saturating_add(bytes.len());
                    if trailing > MOST_TRAILING || bytes.iter().any(|&b| b != 0) {
                        return Err(TarError::Data { at });
                    }
                    self.state = State::End { trailing };
                }
                State::Header { zero_blocks } => {
                    let bytes = self.take(input, BLOCK - self.filled);
                    self.header[self.filled..self.filled + bytes.len()].copy_from_slice(bytes);
                    self.filled += bytes.len();
                    if self.filled < BLOCK {
                        return Ok(None);
                    }
                    self.filled = 0;
                    let at = self.position - BLOCK as u64;
                    if self.header.iter().all(|&b| b == 0) {
                        if zero_blocks == 1 {
                            self.state = State::End { trailing: 0 };
                            return Ok(Some(TarEvent::ArchiveEnd));
                        }
                        self.state = State::Header { zero_blocks: 1 };
                        continue;
                    }
                    if zero_blocks == 1 {
                        return Err(TarError::Data { at });
                    }
                    let entry = parse(&self.header, at)?;
                    let padding = (BLOCK as u64 - entry.size % BLOCK as u64) % BLOCK as u64;
                    self.state =
                        State::Data { left: entry.size, padding: usize::try_from(padding).unwrap_or(0) };
                    return Ok(Some(TarEvent::Entry(entry)));
                }
            }
        }
    }
}

/// A header block (POSIX.1-1988 ustar; PostgreSQL's `pgtar.h` has the offsets).
fn parse(header: &[u8; BLOCK], at: u64) -> Result<Entry, TarError> {
    let sum: u64 = header[..148].iter().chain(&header[156..]).map(|&b| u64::from(b)).sum::<u64>() + 8 * 32;
    if number(&header[148..156]).and_then(|told| u64::try_from(told).ok()) != Some(sum) {
        return Err(TarError::Checksum { at });
    }
    if &header[257..263] != b"ustar\0" {
        return Err(TarError::NotUstar { at });
    }
    let read = |field, bytes: &[u8]| number(bytes).ok_or(TarError::Number { at, field });
    let size = u64::try_from(read("size", &header[124..136])?)
        .map_err(|_| TarError::Number { at, field: "size" })?;
    // Positions must never wrap.
    if at.checked_add(size).and_then(|end| end.checked_add(2 * BLOCK as u64)).is_none() {
        return Err(TarError::Number { at, field: "size" });
    }
    let mode = u32::try_from(read("mode", &header[100..108])?)
        .map_err(|_| TarError::Number { at, field: "mode" })?;
    let modified = read("time", &header[136..148])?;

    let prefix = text(&header[345..500]);
    let mut path = prefix.to_vec();
    if !prefix.is_empty() {
        path.push(b'/');
    }
    path.extend(text(&header[..100]));
    let kind = match header[156] {
        b'0' => EntryKind::File,
        b'5' => EntryKind::Directory,
        b'2' => EntryKind::Symlink { target: text(&header[157..257]).to_vec() },
        kind => return Err(TarError::Kind { at, kind }),
    };
    if kind != EntryKind::File {
        if size != 0 {
            return Err(TarError::Data { at });
        }
        // Directories, and links to them, are written with a slash.
        if path.len() > 1 && path.last() == Some(&b'/') {
            path.pop();
        }
    }
    if path.starts_with(b"./") {
        path.drain(..2);
    }
    let part_is_bad = |part: &[u8]| part.is_empty() || part == b".." || part == b".";
    if path.split(|&b| b == b'/').any(part_is_bad) {
        return Err(TarError::Name { at });
    }
    if kind == (EntryKind::Symlink { target: Vec::new() }) {
        return Err(TarError::Name { at });
    }
    Ok(Entry { path, kind, size, mode: mode & 0o7777, modified })
}

/// Up to the first zero byte, or the whole field.
fn text(field: &[u8]) -> &[u8] {
    field.split(|&b| b == 0).next().unwrap_or_default()
}

/// Octal digits between blanks and zero bytes, or base 256 with the first bit set (`print_tar_number`).
fn number(field: &[u8]) -> Option<i64> {
    let (&first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        // 0x80 begins a positive number, 0xFF a negative one; the rest is two's complement.
        let begin: i128 = match first {
            0x80 => 0,
            0xFF => -1,
            _ => return None,
        };
        let value = rest.iter().fold(begin, |value, &byte| value << 8 | i128::from(byte));
        return i64::try_from(value).ok();
    }
    let digits = field.trim_ascii_start();
    let end = digits.iter().position(|b| !(b'0'..=b'7').contains(b)).unwrap_or(digits.len());
    let (digits, after) = digits.split_at(end);
    if digits.is_empty() || after.iter().any(|&b| b != 0 && b != b' ') {
        return None;
    }
    digits.iter().try_fold(0i64, |value, &digit| value.checked_mul(8)?.checked_add(i64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An owned event; neighbouring data joined.
    #[derive(Clone, Debug, PartialEq, Eq)]
    enum Seen {
        Entry(Entry),
        Data(Vec<u8>),
        EntryEnd,
        ArchiveEnd,
    }

    fn take_apart<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Seen>, Result<(), TarError>) {
        let mut archive = Demultiplexer::new();
        let mut seen = Vec::new();
        for mut chunk in chunks {
            loop {
                match archive.next(&mut chunk) {
                    Ok(None) => break,
                    Ok(Some(TarEvent::Entry(entry))) => seen.push(Seen::Entry(entry)),
                    Ok(Some(TarEvent::Data(bytes))) => match seen.last_mut() {
                        Some(Seen::Data(before)) => before.extend(bytes),
                        _ => seen.push(Seen::Data(bytes.to_vec())),
                    },
                    Ok(Some(TarEvent::EntryEnd)) => seen.push(Seen::EntryEnd),
                    Ok(Some(TarEvent::ArchiveEnd)) => seen.push(Seen::ArchiveEnd),
                    Err(error) => return (seen, Err(error)),
                }
            }
        }
        (seen, archive.finish())
    }

    fn octal(field: &mut [u8], value: u64) {
        let width = field.len() - 1;
        field[..width].copy_from_slice(format!("{value:0width$o}").as_bytes());
    }

    fn seal(mut header: [u8; BLOCK]) -> [u8; BLOCK] {
        header[148..156].fill(b' ');
        let sum = header.iter().map(|&b| u64::from(b)).sum();
        octal(&mut header[148..155], sum);
        header
    }

    fn header(path: &[u8], kind: u8, target: &[u8], size: u64) -> [u8; BLOCK] {
        let mut header = [0; BLOCK];
        header[..path.len()].copy_from_slice(path);
        octal(&mut header[100..108], 0o600);
        if size < 1 << 33 {
            octal(&mut header[124..136], size);
        } else {
            header[124] = 0x80;
            header[128..136].copy_from_slice(&size.to_be_bytes());
        }
        octal(&mut header[136..148], 1_700_000_000);
        header[156] = kind;
        header[157..157 + target.len()].copy_from_slice(target);
        header[257..265].copy_from_slice(b"ustar\x0000");
        seal(header)
    }

    fn sample() -> Vec<u8> {
        let mut bytes = Vec::new();
        for (path, contents) in
            [(&b"backup_label"[..], &b"START WAL"[..]), (b"empty", b""), (b"\xff\xfe/x", &[7; 1024])]
        {
            bytes.extend(header(path, b'0', b"", contents.len() as u64));
            bytes.extend(contents);
            bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        }
        bytes.extend(header(b"pg_tblspc/", b'5', b"", 0));
        bytes.extend(header(b"pg_tblspc/16384/", b'2', b"/srv/space", 0));
        bytes.resize(bytes.len() + 2 * BLOCK, 0);
        bytes
    }

    #[test]
    fn an_archive_comes_apart_into_its_entries() {
        let (seen, end) = take_apart([sample().as_slice()]);
        assert_eq!(end, Ok(()));
        let kinds: Vec<String> = seen
            .iter()
            .map(|event| match event {
                Seen::Entry(e) => {
                    format!("{} {:o} {} {:?}", String::from_utf8_lossy(&e.path), e.mode, e.size, e.kind)
                }
                Seen::Data(bytes) => format!("data {}", bytes.len()),
                Seen::EntryEnd => "end".to_owned(),
                Seen::ArchiveEnd => "END".to_owned(),
            })
            .collect();
        assert_eq!(kinds[..4], ["backup_label 600 9 File", "data 9", "end", "empty 600 0 File"]);
        assert_eq!(kinds[5], "\u{fffd}\u{fffd}/x 600 1024 File");
        assert_eq!(kinds[8], "pg_tblspc 600 0 Directory");
        assert!(kinds[10].starts_with("pg_tblspc/16384 600 0 Symlink"));
        assert_eq!(kinds[kinds.len() - 1], "END");
    }

    #[test]
    fn names_of_a_hundred_bytes_and_sizes_beyond_octal_are_read() {
        let long = [b'x'; 100];
        let entry = parse(&header(&long, b'0', b"", 1 << 40), 0).unwrap();
        assert_eq!((entry.path.len(), entry.size), (100, 1 << 40));
        assert_eq!(number(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe"), Some(-2));
        assert_eq!(number(b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe"), None);
        assert_eq!(number(b"        "), None);
    }

    #[test]
    fn a_cut_archive_is_never_complete() {
        let whole = sample();
        for end in 0..whole.len() {
            let (_, result) = take_apart([&whole[..end]]);
            assert_eq!(result, Err(TarError::Cut { at: end as u64 }));
        }
    }

    #[test]
    fn a_flipped_bit_in_any_header_is_noticed() {
        let whole = sample();
        for at in 0..BLOCK {
            let mut broken = whole.clone();
            broken[at] ^= 1;
            // Zero or blank after the digits of the checksum itself means the same.
            if (154..156).contains(&at) {
                continue;
            }
            assert!(take_apart([broken.as_slice()]).1.is_err(), "byte {at}");
        }
    }

    #[test]
    fn what_no_server_sends_is_refused() {
        let refused = |header: [u8; BLOCK]| take_apart([header.as_slice()]).1.unwrap_err();
        for kind in [b'1', b'3', b'x', b'g', b'L', b'K', 0] {
            assert_eq!(refused(header(b"a", kind, b"", 0)), TarError::Kind { at: 0, kind });
        }
        for path in [&b"/etc/passwd"[..], b"../x", b"a/../b", b"", b"a//b", b"a/.", b"/", b"a/"] {
            assert_eq!(refused(header(path, b'0', b"", 0)), TarError::Name { at: 0 }, "{path:?}");
        }
        assert_eq!(refused(header(b"a", b'5', b"", 1)), TarError::Data { at: 0 });
        assert_eq!(refused(header(b"a", b'2', b"", 0)), TarError::Name { at: 0 });
        let mut negative = header(b"a", b'0', b"", 0);
        negative[124..136].fill(0xFF);
        assert_eq!(refused(seal(negative)), TarError::Number { at: 0, field: "size" });
        let mut after_end = sample();
        after_end.push(1);
        assert!(matches!(take_apart([after_end.as_slice()]).1, Err(TarError::Data { .. })));
        let mut one_zero_block = vec![0; BLOCK];
        one_zero_block.extend(header(b"a", b'0', b"", 0));
        assert!(matches!(take_apart([one_zero_block.as_slice()]).1, Err(TarError::Data { .. })));
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same_events(cuts in proptest::collection::vec(0usize..4000, 0..40)) {
            let whole = sample();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(whole.len())).collect();
            cuts.extend([0, whole.len()]);
            cuts.sort_unstable();
            let chunks = cuts.windows(2).map(|pair| &whole[pair[0]..pair[1]]);
            prop_assert_eq!(take_apart(chunks), take_apart([whole.as_slice()]));
        }

        #[test]
        fn arbitrary_bytes_never_panic(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..2000),
            fields in proptest::collection::vec((0usize..512, any::<u8>()), 0..20),
        ) {
            let _ = take_apart([bytes.as_slice()]);
            // Behind a right checksum as well.
            let mut sealed = header(b"a/b", b'0', b"", 700);
            for (at, byte) in fields {
                sealed[at] = byte;
            }
            bytes.splice(0..0, seal(sealed));
            let _ = take_apart([bytes.as_slice()]);
        }
    }
}
