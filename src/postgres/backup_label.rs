//! `backup_label`: where recovery of a base backup begins (`build_backup_content` of access/transam/xlogbackup.c;
//! read by `read_backup_label` of access/transam/xlogrecovery.c).

use crate::units::{Lsn, SegmentName, TimelineId};
use std::fmt;

/// PostgreSQL writes a few hundred bytes and a label of at most a kilobyte.
pub const LONGEST_LABEL: usize = 64 << 10;

/// What kind of server a backup was taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackupFrom {
    /// A primary: an end-of-backup record is in its WAL.
    Primary,
    /// A standby: no such record; recovery must reach `pg_control`'s `minRecoveryPoint`.
    Standby,
}

/// The backup that an incremental one builds on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IncrementalFrom {
    /// Where that one began.
    pub lsn: Lsn,
    /// On which timeline.
    pub timeline: TimelineId,
}

/// The contents of a `backup_label`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupLabel {
    raw: Vec<u8>,
    /// Where replay begins: the redo position of the backup's checkpoint.
    pub start: Lsn,
    /// The segment that holds it, by the name the server gave.
    pub start_segment: SegmentName,
    /// Where the record of the backup's checkpoint begins.
    pub check_point: Lsn,
    /// How it was taken; "streamed".
    pub method: String,
    /// From what kind of server.
    pub from: BackupFrom,
    /// When it began, in the server's words and time zone.
    pub start_time: String,
    /// The name it was given. Bytes, and possibly lines: whoever asked for the backup chose it.
    pub label: Vec<u8>,
    /// The timeline of `start`.
    pub timeline: TimelineId,
    /// What an incremental backup builds on.
    pub incremental_from: Option<IncrementalFrom>,
}

impl BackupLabel {
    /// Reads the whole file.
    ///
    /// # Errors
    /// When a line is missing, out of order, unknown, or not ended: [`NotABackupLabel`] names it. (A file
    /// that lost exactly its last two lines of an incremental backup cannot be told from another's.)
    pub fn parse(file: &[u8]) -> Result<Self, NotABackupLabel> {
        let refuse = |line| NotABackupLabel { line };
        if file.len() > LONGEST_LABEL {
            return Err(refuse("END"));
        }
        let mut lines = Lines { rest: file };
        let start = lines.text(START)?;
        let (start, segment) = start.split_once(" (file ").ok_or(refuse(START))?;
        let segment = segment.strip_suffix(')').ok_or(refuse(START))?;
        let check_point = lines.text(CHECK_POINT)?;
        let method = lines.text(METHOD)?.to_owned();
        let from = match lines.text(FROM)? {
            "primary" => BackupFrom::Primary,
            "standby" => BackupFrom::Standby,
            _ => return Err(refuse(FROM)),
        };
        let start_time = lines.text(TIME)?.to_owned();
        let label = lines.up_to_the_last(LABEL, TIMELINE)?;
        let timeline = lines.text(TIMELINE)?;
        let incremental_from = if lines.rest.is_empty() {
            None
        } else {
            let lsn = lines.text(INCREMENTAL_LSN)?.parse().map_err(|_| refuse(INCREMENTAL_LSN))?;
            let timeline = lines.text(INCREMENTAL_TLI)?.parse().map_err(|_| refuse(INCREMENTAL_TLI))?;
            Some(IncrementalFrom { lsn, timeline })
        };
        if !lines.rest.is_empty() {
            return Err(refuse("END"));
        }
        Ok(Self {
            raw: file.to_vec(),
            start: start.parse().map_err(|_| refuse(START))?,
            start_segment: segment.parse().map_err(|_| refuse(START))?,
            check_point: check_point.parse().map_err(|_| refuse(CHECK_POINT))?,
            method,
            from,
            start_time,
            label,
            timeline: timeline.parse().map_err(|_| refuse(TIMELINE))?,
            incremental_from,
        })
    }

    /// The file as it was read.
    #[must_use]
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }
}

const START: &str = "START WAL LOCATION";
const CHECK_POINT: &str = "CHECKPOINT LOCATION";
const METHOD: &str = "BACKUP METHOD";
const FROM: &str = "BACKUP FROM";
const TIME: &str = "START TIME";
const LABEL: &str = "LABEL";
const TIMELINE: &str = "START TIMELINE";
const INCREMENTAL_LSN: &str = "INCREMENTAL FROM LSN";
const INCREMENTAL_TLI: &str = "INCREMENTAL FROM TLI";

struct Lines<'a> {
    rest: &'a [u8],
}

impl<'a> Lines<'a> {
    /// What stands behind `key: ` in the next line.
    fn text(&mut self, key: &'static str) -> Result<&'a str, NotABackupLabel> {
        let refuse = NotABackupLabel { line: key };
        let value = self
            .rest
            .strip_prefix(key.as_bytes())
            .and_then(|r| r.strip_prefix(b": "))
            .ok_or(refuse.clone())?;
        let end = value.iter().position(|b| *b == b'\n').ok_or(refuse.clone())?;
        let (value, rest) = value.split_at(end);
        self.rest = rest.get(1..).unwrap_or_default();
        std::str::from_utf8(value).map_err(|_| refuse)
    }

    /// What stands behind `key: `, up to the last line that begins with `next: `: the server writes the
    /// label as it was given, newlines and all.
    fn up_to_the_last(&mut self, key: &'static str, next: &'static str) -> Result<Vec<u8>, NotABackupLabel> {
        let refuse = |line| NotABackupLabel { line };
        let value =
            self.rest.strip_prefix(key.as_bytes()).and_then(|r| r.strip_prefix(b": ")).ok_or(refuse(key))?;
        let mark = format!("\n{next}: ");
        let at = value.windows(mark.len()).rposition(|w| w == mark.as_bytes()).ok_or(refuse(next))?;
        let (value, rest) = value.split_at(at);
        self.rest = rest.get(1..).unwrap_or_default();
        Ok(value.to_vec())
    }
}

/// The bytes are not a `backup_label`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotABackupLabel {
    line: &'static str,
}

impl NotABackupLabel {
    /// The first line that is missing or wrong, by its words; `END` for what follows the last.
    #[must_use]
    pub const fn line(&self) -> &'static str {
        self.line
    }
}

impl fmt::Display for NotABackupLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a backup_label: its \"{}\" is missing or wrong", self.line)
    }
}

impl std::error::Error for NotABackupLabel {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PRIMARY: &str = "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n\
        CHECKPOINT LOCATION: 0/2000080\nBACKUP METHOD: streamed\nBACKUP FROM: primary\n\
        START TIME: 2026-11-21 02:21:00 UTC\nLABEL: nightly\nSTART TIMELINE: 1\n";

    #[test]
    fn the_servers_own_are_read() {
        for major in 15..=19 {
            let dir = format!("{}/fixtures/postgres/{major}", env!("CARGO_MANIFEST_DIR"));
            let file = std::fs::read(format!("{dir}/backup_label")).unwrap();
            let label = BackupLabel::parse(&file).unwrap();
            assert_eq!((label.from, label.method.as_str()), (BackupFrom::Primary, "streamed"));
            assert_eq!(label.label, b"pg_basebackup base backup");
            assert_eq!(label.raw(), file);
            assert!(label.start <= label.check_point && label.incremental_from.is_none());
            if major >= 17 {
                let file = std::fs::read(format!("{dir}/backup_label.incremental")).unwrap();
                let later = BackupLabel::parse(&file).unwrap();
                let from = later.incremental_from.unwrap();
                assert!(from.lsn > label.start && from.lsn < later.start);
                assert_eq!(from.timeline, label.timeline);
            }
        }
    }

    #[test]
    fn a_label_of_several_lines_stays_one_label() {
        let odd = PRIMARY.replace("nightly", "a\nSTART TIMELINE: 7\nb: c");
        let label = BackupLabel::parse(odd.as_bytes()).unwrap();
        assert_eq!(label.label, b"a\nSTART TIMELINE: 7\nb: c");
        assert_eq!(label.timeline, TimelineId::FIRST);
    }

    #[test]
    fn a_standby_says_so() {
        let label = BackupLabel::parse(PRIMARY.replace("primary", "standby").as_bytes()).unwrap();
        assert_eq!(label.from, BackupFrom::Standby);
    }

    #[test]
    fn any_cut_is_refused() {
        for length in 0..PRIMARY.len() {
            assert!(BackupLabel::parse(&PRIMARY.as_bytes()[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn lines_of_other_kinds_are_refused_by_name() {
        let refused = |text: String| BackupLabel::parse(text.as_bytes()).unwrap_err().line();
        assert_eq!(refused(PRIMARY.replace("BACKUP FROM: primary", "BACKUP FROM: moon")), FROM);
        assert_eq!(refused(PRIMARY.replace("0/2000080", "2000080")), CHECK_POINT);
        assert_eq!(refused(PRIMARY.to_owned() + "STOP: 1\n"), INCREMENTAL_LSN);
        assert_eq!(refused(PRIMARY.replace("(file ", "(")), START);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes: Vec<u8>, at: prop::sample::Index) {
            let _ = BackupLabel::parse(&bytes);
            let mut file = PRIMARY.as_bytes().to_vec();
            let at = at.index(file.len());
            file.splice(at..at, bytes);
            let _ = BackupLabel::parse(&file);
        }
    }
}
