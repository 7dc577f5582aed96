//! Timeline history files, and what they say about who owns which WAL (access/transam/timeline.c).
//!
//! `00000003.history` lists the ancestors of timeline 3, oldest first, each with the position at which it
//! was left. PostgreSQL makes one by copying the parent's file and appending a line, with an empty line
//! before it (`writeTimeLineHistory`), so files that say the same may differ in bytes: compare parsed ones.
//! Equal histories do **not** prove equal WAL: two recoveries of one backup to one point write the same file.

use crate::units::{Lsn, SegmentSize, TimelineId};
use std::fmt;

/// No history file that PostgreSQL wrote comes near this size (about fifty bytes a promotion).
pub const LONGEST_HISTORY: usize = 4 << 20;

/// One ancestor: the timeline, where it was left, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryEntry {
    /// The ancestor.
    pub timeline: TimelineId,
    /// The first position that does not belong to it any more (`switchpoint`).
    pub end: Lsn,
    /// Why it was left, for people. Bytes, because a restore point's name may stand in it.
    pub reason: Vec<u8>,
}

/// A stretch of WAL that belongs to one timeline of a lineage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// The timeline.
    pub timeline: TimelineId,
    /// Its first position in this lineage; [`Lsn::INVALID`] for the oldest.
    pub begin: Lsn,
    /// The first position after it; `None` for the newest, which is still open.
    pub end: Option<Lsn>,
}

/// Where a timeline comes from: its ancestors, oldest first.
///
/// Invariants: timeline numbers rise strictly and stay below `timeline`; ends never fall.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimelineHistory {
    timeline: TimelineId,
    entries: Vec<HistoryEntry>,
}

impl TimelineHistory {
    /// The history of a timeline that has no history file: it has no ancestors.
    #[must_use]
    pub const fn root(timeline: TimelineId) -> Self {
        Self { timeline, entries: Vec::new() }
    }

    /// Reads the contents of `timeline`'s history file, as `readTimeLineHistory` does, but refusing what
    /// PostgreSQL would only trip over later.
    ///
    /// # Errors
    /// When a line is not an entry, a comment or blank, or the entries break the invariants. A file cut
    /// inside its last line is refused: PostgreSQL ends each line it writes.
    pub fn parse(timeline: TimelineId, file: &[u8]) -> Result<Self, HistoryError> {
        if file.len() > LONGEST_HISTORY {
            return Err(HistoryError::TooLong(file.len()));
        }
        let mut entries: Vec<HistoryEntry> = Vec::new();
        for (index, line) in file.split_inclusive(|b| *b == b'\n').enumerate() {
            let number = index + 1;
            let Some(line) = line.strip_suffix(b"\n") else { return Err(HistoryError::Cut { line: number }) };
            let line = line.trim_ascii_start();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            let entry = parse_entry(line).ok_or(HistoryError::NotAnEntry { line: number })?;
            let falls = entries.last().is_some_and(|l| entry.timeline <= l.timeline || entry.end < l.end);
            if falls || entry.timeline >= timeline {
                return Err(HistoryError::OutOfOrder { line: number });
            }
            entries.push(entry);
        }
        Ok(Self { timeline, entries })
    }

    /// The file's text, as PostgreSQL writes it but without the empty lines; parses back to the same.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut text = Vec::new();
        for entry in &self.entries {
            text.extend_from_slice(format!("{}\t{}\t", entry.timeline, entry.end).as_bytes());
            text.extend_from_slice(&entry.reason);
            text.push(b'\n');
        }
        text
    }

    /// The timeline that this is the history of.
    #[must_use]
    pub const fn timeline(&self) -> TimelineId {
        self.timeline
    }

    /// The ancestors, oldest first.
    #[must_use]
    pub fn entries(&self) -> &[HistoryEntry] {
        &self.entries
    }

    /// The stretches of WAL this lineage is made of, oldest first, the timeline itself last.
    pub fn stretches(&self) -> impl DoubleEndedIterator<Item = Stretch> + '_ {
        (0..=self.entries.len()).map(|at| Stretch {
            timeline: self.entries.get(at).map_or(self.timeline, |e| e.timeline),
            begin: at.checked_sub(1).and_then(|b| self.entries.get(b)).map_or(Lsn::INVALID, |e| e.end),
            end: self.entries.get(at).map(|e| e.end),
        })
    }

    /// The timeline that wrote the byte at `at` in this lineage (`tliOfPointInHistory`).
    #[must_use]
    pub fn owner_of(&self, at: Lsn) -> TimelineId {
        self.entries.iter().find(|e| at < e.end).map_or(self.timeline, |e| e.timeline)
    }

    /// The timeline in whose name the segment is read: the newest that had begun by the segment's end,
    /// because a timeline's first segment holds the ancestor's bytes too (`XLogFileReadAnyTLI`).
    #[must_use]
    pub fn owner_of_segment(&self, number: u64, size: SegmentSize) -> TimelineId {
        self.stretches()
            .rev()
            .find(|s| size.number_of(s.begin) <= number)
            .map_or(self.timeline, |s| s.timeline)
    }

    /// Where `timeline` begins and ends in this lineage; `None` when it is not part of it.
    #[must_use]
    pub fn stretch_of(&self, timeline: TimelineId) -> Option<Stretch> {
        self.stretches().find(|s| s.timeline == timeline)
    }

    /// Whether `timeline` is an ancestor (not the timeline itself).
    #[must_use]
    pub fn is_ancestor(&self, timeline: TimelineId) -> bool {
        self.entries.iter().any(|e| e.timeline == timeline)
    }

    /// Where the lineage leaves `ancestor`: WAL of that timeline from here on is a dead branch to us
    /// (`tliSwitchPoint`). `None` when it is no ancestor.
    #[must_use]
    pub fn fork_from(&self, ancestor: TimelineId) -> Option<Lsn> {
        self.entries.iter().find(|e| e.timeline == ancestor).map(|e| e.end)
    }

    /// Whether WAL written on `timeline` up to `end` is part of this lineage: `end` may stand at the fork.
    #[must_use]
    pub fn includes(&self, timeline: TimelineId, end: Lsn) -> bool {
        self.stretch_of(timeline).is_some_and(|s| end >= s.begin && s.end.is_none_or(|e| end <= e))
    }

    /// What the history of `ancestor` must say if ours is right: the entries before it. `None` when it
    /// is no part of this lineage; ours for the timeline itself.
    #[must_use]
    pub fn implied_for(&self, ancestor: TimelineId) -> Option<Self> {
        if ancestor == self.timeline {
            return Some(self.clone());
        }
        let at = self.entries.iter().position(|e| e.timeline == ancestor)?;
        Some(Self { timeline: ancestor, entries: self.entries.get(..at)?.to_vec() })
    }

    /// The last stretch that two lineages have in common: its timeline, and where the first of them leaves
    /// it (`None`: both are on it still). `None` when not even the oldest timeline is the same.
    #[must_use]
    pub fn shared_with(&self, other: &Self) -> Option<(TimelineId, Option<Lsn>)> {
        let mut shared = None;
        for (ours, theirs) in self.stretches().zip(other.stretches()) {
            if ours.timeline != theirs.timeline || ours.begin != theirs.begin {
                break;
            }
            shared = Some((
                ours.timeline,
                match (ours.end, theirs.end) {
                    (Some(a), Some(b)) => Some(a.min(b)),
                    (a, b) => a.or(b),
                },
            ));
        }
        shared
    }
}

/// `<timeline>\t<position>\t<reason>`, leading blanks already gone.
fn parse_entry(line: &[u8]) -> Option<HistoryEntry> {
    let blank = |b: &u8| matches!(b, b' ' | b'\t');
    let (timeline, rest) = line.split_at(line.iter().position(blank)?);
    let rest = rest.trim_ascii_start();
    let (end, reason) = rest.split_at(rest.iter().position(blank).unwrap_or(rest.len()));
    let reason = match reason.split_first() {
        Some((b'\t' | b' ', reason)) => reason,
        _ => reason,
    };
    Some(HistoryEntry {
        timeline: std::str::from_utf8(timeline).ok()?.parse().ok()?,
        end: std::str::from_utf8(end).ok()?.parse().ok()?,
        reason: reason.to_vec(),
    })
}

/// Why the bytes are not a history file. Lines count from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HistoryError {
    /// Longer than [`LONGEST_HISTORY`].
    TooLong(usize),
    /// The last line has no end.
    Cut {
        /// That line.
        line: usize,
    },
    /// Neither an entry nor a comment.
    NotAnEntry {
        /// That line.
        line: usize,
    },
    /// A timeline that is not above the one before it and below the file's own, or a position that falls.
    OutOfOrder {
        /// That line.
        line: usize,
    },
}

impl fmt::Display for HistoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong(bytes) => {
                write!(f, "timeline history of {bytes} bytes: more than {LONGEST_HISTORY}")
            }
            Self::Cut { line } => write!(f, "timeline history is cut off in line {line}"),
            Self::NotAnEntry { line } => write!(f, "line {line} of the timeline history is no entry"),
            Self::OutOfOrder { line } => write!(f, "line {line} of the timeline history is out of order"),
        }
    }
}

impl std::error::Error for HistoryError {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tli(number: u32) -> TimelineId {
        TimelineId::new(number).unwrap()
    }

    fn lsn(text: &str) -> Lsn {
        text.parse().unwrap()
    }

    /// As PostgreSQL 17 wrote it: the parent's file, an empty line, the new entry.
    const THIRD: &[u8] =
        b"1\t0/4000000\tno recovery target specified\n\n2\t0/6000148\tbefore 2026-11-21 02:00:00+00\n";

    #[test]
    fn the_empty_line_of_postgresql_changes_nothing() {
        let file = TimelineHistory::parse(tli(3), THIRD).unwrap();
        assert_eq!(TimelineHistory::parse(tli(3), &file.to_bytes()).unwrap(), file);
        assert_ne!(file.to_bytes(), THIRD);
        assert_eq!(file.entries().len(), 2);
        assert_eq!(file.entries()[1].reason, b"before 2026-11-21 02:00:00+00");
        let commented = TimelineHistory::parse(tli(3), b"# why not\n 1 0/4000000\tx\n\t\n").unwrap();
        assert_eq!(commented.entries()[0].end, lsn("0/4000000"));
    }

    #[test]
    fn each_position_has_one_owner() {
        let file = TimelineHistory::parse(tli(3), THIRD).unwrap();
        assert_eq!(file.owner_of(lsn("0/3FFFFFF")), tli(1));
        assert_eq!(file.owner_of(lsn("0/4000000")), tli(2));
        assert_eq!(file.owner_of(lsn("0/6000147")), tli(2));
        assert_eq!(file.owner_of(lsn("0/6000148")), tli(3));
        assert_eq!(file.fork_from(tli(2)), Some(lsn("0/6000148")));
        assert!(file.is_ancestor(tli(1)) && !file.is_ancestor(tli(3)) && !file.is_ancestor(tli(4)));
        assert!(file.includes(tli(2), lsn("0/6000148")) && !file.includes(tli(2), lsn("0/6000149")));
        assert!(!file.includes(tli(2), lsn("0/3FFFFFF")) && file.includes(tli(3), lsn("FF/0")));
    }

    #[test]
    fn a_segment_is_read_in_the_name_of_the_newest_timeline_that_had_begun() {
        let file = TimelineHistory::parse(tli(3), THIRD).unwrap();
        let owner = |n| file.owner_of_segment(n, SegmentSize::DEFAULT).as_u32();
        assert_eq!([owner(3), owner(4), owner(5), owner(6), owner(7)], [1, 2, 2, 3, 3]);
    }

    #[test]
    fn a_history_implies_those_of_its_ancestors() {
        let file = TimelineHistory::parse(tli(3), THIRD).unwrap();
        let second = TimelineHistory::parse(tli(2), b"1\t0/4000000\tno recovery target specified\n").unwrap();
        assert_eq!(file.implied_for(tli(2)), Some(second));
        assert_eq!(file.implied_for(tli(1)), Some(TimelineHistory::root(tli(1))));
        assert_eq!(file.implied_for(tli(3)), Some(file.clone()));
        assert_eq!(file.implied_for(tli(4)), None);
    }

    #[test]
    fn lineages_share_what_comes_before_the_first_fork() {
        let third = TimelineHistory::parse(tli(3), THIRD).unwrap();
        let fourth = TimelineHistory::parse(tli(4), b"1\t0/4000000\tx\n2\t0/5000000\ty\n").unwrap();
        assert_eq!(third.shared_with(&fourth), Some((tli(2), Some(lsn("0/5000000")))));
        assert_eq!(third.shared_with(&third), Some((tli(3), None)));
        let fifth = TimelineHistory::parse(tli(5), b"1\t0/3000000\tx\n").unwrap();
        assert_eq!(third.shared_with(&fifth), Some((tli(1), Some(lsn("0/3000000")))));
        assert_eq!(TimelineHistory::root(tli(1)).shared_with(&third), Some((tli(1), Some(lsn("0/4000000")))));
        assert_eq!(TimelineHistory::root(tli(7)).shared_with(&third), None);
    }

    #[test]
    fn what_postgresql_never_writes_is_refused() {
        use HistoryError::*;
        for (bad, why) in [
            (&b"1\t0/4000000\tcut"[..], Cut { line: 1 }),
            (b"1\t0/4000000\tx\n1\t0/5000000\ty\n", OutOfOrder { line: 2 }),
            (b"2\t0/4000000\tx\n\n1\t0/5000000\ty\n", OutOfOrder { line: 3 }),
            (b"1\t0/4000000\tx\n2\t0/3000000\ty\n", OutOfOrder { line: 2 }),
            (b"3\t0/4000000\tx\n", OutOfOrder { line: 1 }),
            (b"0\t0/4000000\tx\n", NotAnEntry { line: 1 }),
            (b"1\n", NotAnEntry { line: 1 }),
            (b"1\t4000000\tx\n", NotAnEntry { line: 1 }),
            (b"<html>\n", NotAnEntry { line: 1 }),
        ] {
            assert_eq!(TimelineHistory::parse(tli(3), bad), Err(why), "{:?}", String::from_utf8_lossy(bad));
        }
        assert!(matches!(TimelineHistory::parse(tli(3), &vec![b'\n'; LONGEST_HISTORY + 1]), Err(TooLong(_))));
    }

    proptest! {
        #[test]
        fn what_is_written_parses_back(
            steps in prop::collection::vec((1u32..9, 0u64..1 << 40, "[^\\n\\r]{0,30}"), 0..9)
        ) {
            let (mut number, mut end, mut entries) = (0, 0, Vec::new());
            for (up, on, reason) in steps {
                number += up;
                end += on;
                entries.push(HistoryEntry { timeline: tli(number), end: Lsn::new(end), reason: reason.into_bytes() });
            }
            let history = TimelineHistory { timeline: tli(number + 1), entries };
            prop_assert_eq!(TimelineHistory::parse(tli(number + 1), &history.to_bytes()).unwrap(), history);
        }

        #[test]
        fn no_bytes_make_the_parser_panic(bytes: Vec<u8>, timeline in 1u32..) {
            let _ = TimelineHistory::parse(tli(timeline), &bytes);
        }

        #[test]
        fn the_stretches_cover_everything_once(at: u64) {
            let file = TimelineHistory::parse(tli(3), THIRD).unwrap();
            let holds = |s: &Stretch| s.begin <= Lsn::new(at) && s.end.is_none_or(|e| Lsn::new(at) < e);
            let owners: Vec<_> = file.stretches().filter(holds).map(|s| s.timeline).collect();
            prop_assert_eq!(owners, vec![file.owner_of(Lsn::new(at))]);
        }
    }
}
