//! Reading a manifest as it arrives (`json_parse_manifest_incremental_chunk` of common/parse_manifest.c).
//!
//! No JSON string holds a raw newline, and every writer of manifests puts each file on a line of its own: so
//! the reader holds one line at a time, of at most [`LONGEST_LINE`].

use super::{ManifestAlgorithm, ManifestChecksum, ManifestFile, ManifestVersion, WalRange, from_hex};
use crate::units::{Lsn, SystemIdentifier, TimelineId, Timestamp};
use sha2::{Digest, Sha256};
use std::fmt;

/// The longest line accepted. A path of PostgreSQL's greatest length, each byte escaped, takes a tenth.
pub const LONGEST_LINE: usize = 64 << 10;

/// What a manifest lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ManifestEntry {
    /// A file.
    File(ManifestFile),
    /// WAL that the backup needs.
    WalRange(WalRange),
}

/// What is known of a manifest once it is read whole and its checksum verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestSummary {
    /// The format.
    pub version: ManifestVersion,
    /// The cluster; version 2.
    pub system_identifier: Option<SystemIdentifier>,
    /// Files listed.
    pub files: u64,
    /// The manifest's own SHA-256, over all lines but the last.
    pub checksum: [u8; 32],
}

/// A manifest on its way in. Entries shown before [`ManifestReader::finish`] said yes are not yet verified.
#[derive(Debug)]
pub struct ManifestReader {
    line: Vec<u8>,
    number: u64,
    hash: Sha256,
    place: Place,
    version: Option<ManifestVersion>,
    system_identifier: Option<SystemIdentifier>,
    lists: [bool; 2],
    files: u64,
    stored: Option<[u8; 32]>,
    entry: Partial,
    failed: Option<ManifestError>,
}

/// Which list an entry is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum List {
    Files,
    Ranges,
}

/// The keys of the outermost object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Top {
    Version,
    System,
    List(List),
    Checksum,
}

/// The keys of entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Path,
    EncodedPath,
    Size,
    Modified,
    Algorithm,
    Checksum,
    Timeline,
    Start,
    End,
}

/// What may come next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Start,
    Key,
    Colon(Top),
    Value(Top),
    AfterValue,
    /// The first entry, or the end of an empty list.
    FirstEntry(List),
    Entry(List),
    AfterEntry(List),
    FieldKey(List),
    FieldColon(List, Field),
    FieldValue(List, Field),
    AfterField(List),
    End,
}

#[derive(Debug, Default)]
struct Partial {
    path: Option<Vec<u8>>,
    size: Option<u64>,
    modified: Option<String>,
    algorithm: Option<ManifestAlgorithm>,
    checksum: Option<Vec<u8>>,
    timeline: Option<TimelineId>,
    start: Option<Lsn>,
    end: Option<Lsn>,
}

enum Token<'a> {
    Mark(u8),
    Text(String),
    Number(&'a str),
}

impl Default for ManifestReader {
    fn default() -> Self {
        Self::new()
    }
}

impl ManifestReader {
    /// A reader before its first byte.
    #[must_use]
    pub fn new() -> Self {
        Self {
            line: Vec::new(),
            number: 1,
            hash: Sha256::new(),
            place: Place::Start,
            version: None,
            system_identifier: None,
            lists: [false; 2],
            files: 0,
            stored: None,
            entry: Partial::default(),
            failed: None,
        }
    }

    /// Takes the next bytes, and shows `each` the entries they complete.
    ///
    /// # Errors
    /// When this is no manifest, or one with keys unknown here. A reader that failed stays failed.
    pub fn feed(&mut self, bytes: &[u8], each: &mut impl FnMut(ManifestEntry)) -> Result<(), ManifestError> {
        if let Some(failed) = &self.failed {
            return Err(failed.clone());
        }
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            if self.line.len() + piece.len() > LONGEST_LINE {
                return Err(self.fail(ManifestError::LineTooLong { line: self.number }));
            }
            self.line.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                let read = self.read_line(&line, each);
                self.line = line;
                self.line.clear();
                self.number += 1;
                read.map_err(|error| self.fail(error))?;
            }
        }
        Ok(())
    }

    /// The manifest is whole: what it is.
    ///
    /// # Errors
    /// When it is cut off, or its checksum is wrong: then no entry of it counts.
    pub fn finish(self) -> Result<ManifestSummary, ManifestError> {
        if let Some(failed) = self.failed {
            return Err(failed);
        }
        let (Place::End, true, Some(version), Some(stored)) =
            (self.place, self.line.is_empty(), self.version, self.stored)
        else {
            return Err(ManifestError::Cut);
        };
        let computed: [u8; 32] = self.hash.finalize().into();
        if stored != computed {
            return Err(ManifestError::Checksum);
        }
        if version >= ManifestVersion::Two && self.system_identifier.is_none() {
            return Err(ManifestError::Syntax { line: self.number, what: "no system identifier" });
        }
        Ok(ManifestSummary {
            version,
            system_identifier: self.system_identifier,
            files: self.files,
            checksum: stored,
        })
    }

    fn fail(&mut self, error: ManifestError) -> ManifestError {
        self.failed = Some(error.clone());
        error
    }

    fn read_line(&mut self, line: &[u8], each: &mut impl FnMut(ManifestEntry)) -> Result<(), ManifestError> {
        let mut rest = line;
        loop {
            rest = rest.trim_ascii_start();
            if rest.is_empty() {
                break;
            }
            let (token, after) = next_token(rest).ok_or(self.odd("no JSON"))?;
            rest = after;
            if let Some(entry) = self.token(token)? {
                each(entry);
            }
        }
        // The checksum covers every line but the one that names it.
        if self.stored.is_none() {
            self.hash.update(line);
        }
        Ok(())
    }

    const fn odd(&self, what: &'static str) -> ManifestError {
        ManifestError::Syntax { line: self.number, what }
    }

    fn token(&mut self, token: Token<'_>) -> Result<Option<ManifestEntry>, ManifestError> {
        self.place = match (self.place, token) {
            (Place::Start, Token::Mark(b'{')) => Place::Key,
            (Place::Key, Token::Text(key)) => Place::Colon(self.top_key(&key)?),
            (Place::Colon(top), Token::Mark(b':')) => Place::Value(top),
            (Place::Value(Top::List(list)), Token::Mark(b'[')) => Place::FirstEntry(list),
            (Place::Value(top), Token::Number(number)) => self.top_number(top, number)?,
            (Place::Value(Top::Checksum), Token::Text(text)) => {
                let digest = from_hex(&text).and_then(|d| d.try_into().ok());
                self.stored = Some(digest.ok_or(self.odd("no SHA-256"))?);
                Place::AfterValue
            }
            (Place::AfterValue, Token::Mark(b',')) if self.stored.is_none() => Place::Key,
            (Place::AfterValue, Token::Mark(b'}')) if self.stored.is_some() => Place::End,
            (Place::FirstEntry(list) | Place::Entry(list), Token::Mark(b'{')) => Place::FieldKey(list),
            (Place::FirstEntry(_) | Place::AfterEntry(_), Token::Mark(b']')) => Place::AfterValue,
            (Place::AfterEntry(list), Token::Mark(b',')) => Place::Entry(list),
            (Place::FieldKey(list), Token::Text(key)) => {
                let field = field(list, &key).ok_or(self.odd("an unknown key"))?;
                Place::FieldColon(list, field)
            }
            (Place::FieldColon(list, field), Token::Mark(b':')) => Place::FieldValue(list, field),
            (Place::FieldValue(list, field), Token::Text(text)) => {
                self.field_text(field, text)?;
                Place::AfterField(list)
            }
            (Place::FieldValue(list, field), Token::Number(number)) => {
                self.field_number(field, number)?;
                Place::AfterField(list)
            }
            (Place::AfterField(list), Token::Mark(b',')) => Place::FieldKey(list),
            (Place::AfterField(list), Token::Mark(b'}')) => {
                self.place = Place::AfterEntry(list);
                return self.complete_entry(list).map(Some);
            }
            _ => return Err(self.odd("not a manifest's structure")),
        };
        Ok(None)
    }

    /// A key of the outermost object, in the order the server writes them; each at most once.
    fn top_key(&mut self, key: &str) -> Result<Top, ManifestError> {
        let top = match key {
            "PostgreSQL-Backup-Manifest-Version" if self.version.is_none() => Top::Version,
            "System-Identifier" if self.version >= Some(ManifestVersion::Two) => Top::System,
            "Files" if self.version.is_some() => Top::List(List::Files),
            "WAL-Ranges" if self.lists[0] => Top::List(List::Ranges),
            "Manifest-Checksum" if self.lists == [true, true] => Top::Checksum,
            _ => return Err(self.odd("an unknown key, or one out of place")),
        };
        if let Top::List(list) = top {
            let seen = &mut self.lists[usize::from(list == List::Ranges)];
            if std::mem::replace(seen, true) {
                return Err(self.odd("a list twice"));
            }
        }
        Ok(top)
    }

    fn top_number(&mut self, top: Top, number: &str) -> Result<Place, ManifestError> {
        match top {
            Top::Version => {
                self.version = Some(match number {
                    "1" => ManifestVersion::One,
                    "2" => ManifestVersion::Two,
                    _ => return Err(ManifestError::UnknownVersion(number.to_owned())),
                });
            }
            Top::System if self.system_identifier.is_none() => {
                let id = number.parse().map_err(|_| self.odd("no system identifier"))?;
                self.system_identifier = Some(id);
            }
            _ => return Err(self.odd("a number where none belongs")),
        }
        Ok(Place::AfterValue)
    }

    fn field_text(&mut self, field: Field, text: String) -> Result<(), ManifestError> {
        let odd = self.odd("a value that does not fit its key, or comes twice");
        let entry = &mut self.entry;
        let fresh = match field {
            Field::Path => put(&mut entry.path, Some(text.into_bytes())),
            Field::EncodedPath => put(&mut entry.path, from_hex(&text)),
            Field::Modified => put(&mut entry.modified, Some(text)),
            Field::Algorithm => put(&mut entry.algorithm, ManifestAlgorithm::from_name(&text)),
            Field::Checksum => put(&mut entry.checksum, from_hex(&text)),
            Field::Start => put(&mut entry.start, text.parse().ok()),
            Field::End => put(&mut entry.end, text.parse().ok()),
            Field::Size | Field::Timeline => false,
        };
        if fresh { Ok(()) } else { Err(odd) }
    }

    fn field_number(&mut self, field: Field, number: &str) -> Result<(), ManifestError> {
        let odd = self.odd("a value that does not fit its key, or comes twice");
        let fresh = match field {
            Field::Size => put(&mut self.entry.size, number.parse().ok()),
            Field::Timeline => put(&mut self.entry.timeline, number.parse().ok()),
            _ => false,
        };
        if fresh { Ok(()) } else { Err(odd) }
    }

    fn complete_entry(&mut self, list: List) -> Result<ManifestEntry, ManifestError> {
        let entry = std::mem::take(&mut self.entry);
        let lacking = self.odd("an entry that lacks a key");
        match list {
            List::Files => {
                let checksum = match (entry.algorithm, entry.checksum) {
                    (None, None) => None,
                    (Some(algorithm), Some(digest)) if digest.len() == algorithm.length() => {
                        Some(ManifestChecksum { algorithm, digest })
                    }
                    _ => return Err(self.odd("a checksum that is none of its kind")),
                };
                let (Some(path), Some(size)) = (entry.path, entry.size) else { return Err(lacking) };
                self.files += 1;
                let modified = entry.modified.as_deref().and_then(parse_modified);
                Ok(ManifestEntry::File(ManifestFile { path, size, modified, checksum }))
            }
            List::Ranges => match (entry.timeline, entry.start, entry.end) {
                (Some(timeline), Some(start), Some(end)) if start <= end => {
                    Ok(ManifestEntry::WalRange(WalRange { timeline, start, end }))
                }
                _ => Err(lacking),
            },
        }
    }
}

fn field(list: List, key: &str) -> Option<Field> {
    Some(match (list, key) {
        (List::Files, "Path") => Field::Path,
        (List::Files, "Encoded-Path") => Field::EncodedPath,
        (List::Files, "Size") => Field::Size,
        (List::Files, "Last-Modified") => Field::Modified,
        (List::Files, "Checksum-Algorithm") => Field::Algorithm,
        (List::Files, "Checksum") => Field::Checksum,
        (List::Ranges, "Timeline") => Field::Timeline,
        (List::Ranges, "Start-LSN") => Field::Start,
        (List::Ranges, "End-LSN") => Field::End,
        _ => return None,
    })
}

/// Fills a place that is empty; `false` when it is not, or there is no value.
fn put<T>(place: &mut Option<T>, value: Option<T>) -> bool {
    let fresh = place.is_none() && value.is_some();
    *place = value;
    fresh
}

fn next_token(text: &[u8]) -> Option<(Token<'_>, &[u8])> {
    let (first, after) = text.split_first()?;
    match first {
        b'{' | b'}' | b'[' | b']' | b':' | b',' => Some((Token::Mark(*first), after)),
        b'0'..=b'9' => {
            let end = text.iter().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
            let (digits, after) = text.split_at(end);
            Some((Token::Number(std::str::from_utf8(digits).ok()?), after))
        }
        b'"' => {
            let mut end = 0;
            // The closing quote: the first that no backslash escapes.
            loop {
                match after.get(end)? {
                    b'"' => break,
                    b'\\' => end += 2,
                    _ => end += 1,
                }
            }
            // Escapes, surrogates and UTF-8 are the business of a JSON parser.
            let quoted = text.get(..end + 2)?;
            Some((Token::Text(serde_json::from_slice(quoted).ok()?), after.get(end + 1..)?))
        }
        _ => None,
    }
}

/// `2026-11-21 01:39:02 GMT`.
fn parse_modified(text: &str) -> Option<Timestamp> {
    let (date, time) = text.strip_suffix(" GMT")?.split_once(' ')?;
    let numbers = |text: &str, by: char| -> Option<[i64; 3]> {
        let mut parts = text.split(by).map(|p| p.parse::<u32>().ok().map(i64::from));
        let found = [parts.next()??, parts.next()??, parts.next()??];
        parts.next().is_none().then_some(found)
    };
    let [year, month, day] = numbers(date, '-')?;
    let [hour, minute, second] = numbers(time, ':')?;
    let fits = year <= 9999
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    // Days of the proleptic Gregorian calendar, the year beginning in March.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days =
        365 * y + y.div_euclid(4) - y.div_euclid(100) + y.div_euclid(400) + (153 * m + 2) / 5 + day - 1;
    let seconds = (days - 719_468) * 86_400 + hour * 3600 + minute * 60 + second;
    fits.then(|| Timestamp::from_unix_seconds(seconds))
}

/// Why bytes are not a manifest that can be relied on. Lines count from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ManifestError {
    /// A version unknown here.
    UnknownVersion(String),
    /// Not a manifest from this line on.
    Syntax {
        /// The line.
        line: u64,
        /// What it is instead.
        what: &'static str,
    },
    /// A line longer than [`LONGEST_LINE`].
    LineTooLong {
        /// The line.
        line: u64,
    },
    /// It ends before its end.
    Cut,
    /// It does not have the checksum that it names.
    Checksum,
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownVersion(version) => {
                write!(f, "backup manifest is of version {version}, which this program does not know")
            }
            Self::Syntax { line, what } => write!(f, "line {line} of the backup manifest: {what}"),
            Self::LineTooLong { line } => {
                write!(f, "line {line} of the backup manifest is longer than {LONGEST_LINE} bytes")
            }
            Self::Cut => f.write_str("backup manifest is cut off"),
            Self::Checksum => f.write_str("backup manifest is damaged: its checksum is wrong"),
        }
    }
}

impl std::error::Error for ManifestError {}
