//! What is held and what is missing on the way from one position to another along a lineage.

use super::Archive;
use crate::postgres::history::TimelineHistory;
use crate::repo::record::Record;
use crate::units::{Lsn, SegmentName, SegmentSize, TimelineId};

/// The lineage that a record tells.
#[must_use]
pub fn lineage_of(record: &Record) -> Option<TimelineHistory> {
    let mut text = String::new();
    for pair in record.lineage.windows(2) {
        let [step, next] = pair else { continue };
        text.push_str(&format!("{}\t{}\tbackup\n", step.timeline, next.begin_lsn));
    }
    if record.lineage.last().is_some_and(|last| last.timeline != record.timeline) {
        return None;
    }
    TimelineHistory::parse(record.timeline, text.as_bytes()).ok()
}

/// Neighbouring segments of one timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentRange {
    /// The timeline in whose name they lie.
    pub timeline: TimelineId,
    /// The number of the first.
    pub first: u64,
    /// The number of the last, which is not below the first.
    pub last: u64,
}

impl SegmentRange {
    /// How many.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.last - self.first + 1
    }

    /// The name of the first.
    #[must_use]
    pub fn first_name(&self, size: SegmentSize) -> Option<SegmentName> {
        SegmentName::from_number(self.timeline, self.first, size)
    }

    /// The name of the last.
    #[must_use]
    pub fn last_name(&self, size: SegmentSize) -> Option<SegmentName> {
        SegmentName::from_number(self.timeline, self.last, size)
    }

    /// All their names, rising.
    pub fn names(self, size: SegmentSize) -> impl Iterator<Item = SegmentName> {
        (self.first..=self.last)
            .filter_map(move |number| SegmentName::from_number(self.timeline, number, size))
    }
}

/// The segments that a stretch of WAL lies in, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needed {
    /// Neighbours that are all held, or all missing.
    pub ranges: Vec<(SegmentRange, bool)>,
}

impl Needed {
    /// How many segments.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.ranges.iter().map(|(range, _)| range.count()).sum()
    }

    /// Those that are held nowhere.
    pub fn missing(&self) -> impl Iterator<Item = SegmentRange> + '_ {
        self.ranges.iter().filter(|(_, held)| !held).map(|(range, _)| *range)
    }

    /// Whether all are held.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.missing().next().is_none()
    }

    /// The first and the last segment.
    #[must_use]
    pub fn ends(&self, size: SegmentSize) -> Option<(SegmentName, SegmentName)> {
        Some((self.ranges.first()?.0.first_name(size)?, self.ranges.last()?.0.last_name(size)?))
    }
}

/// How far WAL goes on without a gap, by names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    /// The first position that is not held in complete segments and tails. A record may begin before and end
    /// after it, so recovery may end a little earlier.
    pub end: Lsn,
    /// The last complete segment before that.
    pub last: Option<SegmentName>,
    /// The first segment that is not held whole: the one that the archive waits for, or a gap.
    pub lacks: SegmentName,
    /// Whether anything later in this lineage is held: then `lacks` begins a gap.
    pub is_gap: bool,
    /// Whether an unfinished copy of `lacks` is held: it may reach further than `end`.
    pub has_partial: bool,
}

/// A timeline's segments in a lineage: those read in its name.
#[derive(Clone, Copy)]
struct Owned {
    timeline: TimelineId,
    begin: Lsn,
    first: u64,
    /// `None`: open.
    last: Option<u64>,
}

impl Archive {
    /// The stretches of a lineage as segments, without those that own none. A fork's segment belongs to the
    /// newest timeline that begins in it: that one holds the ancestors' bytes too.
    fn owned(&self, lineage: &TimelineHistory) -> Vec<Owned> {
        let stretches: Vec<_> = lineage.stretches().collect();
        let mut owned = Vec::with_capacity(stretches.len());
        for (at, stretch) in stretches.iter().enumerate() {
            let first = self.segment_size().number_of(stretch.begin);
            let next = stretches.get(at + 1).map(|next| self.segment_size().number_of(next.begin));
            let last = match next {
                Some(next) if next <= first => continue,
                Some(next) => Some(next - 1),
                None => None,
            };
            owned.push(Owned { timeline: stretch.timeline, begin: stretch.begin, first, last });
        }
        owned
    }

    /// The segments from the one that holds `from` to the one that holds the last byte before `to`, and
    /// which of them are held. At least one segment; its beginning is needed even when `from` lies inside.
    #[must_use]
    pub fn needed(&self, lineage: &TimelineHistory, from: Lsn, to: Lsn) -> Needed {
        let first = self.segment_size().number_of(from);
        let last = self.segment_size().number_before(to).max(first);
        let mut ranges = Vec::new();
        for owned in self.owned(lineage) {
            let begin = owned.first.max(first);
            let end = owned.last.unwrap_or(u64::MAX).min(last);
            if begin > end {
                continue;
            }
            for (range, held) in self.segments(owned.timeline).split(begin..=end) {
                let (first, last) = range.into_inner();
                ranges.push((SegmentRange { timeline: owned.timeline, first, last }, held));
            }
        }
        self.accept_tails_of_the_last(to, &mut ranges);
        self.accept_the_ancestor_of_the_last(lineage, to, &mut ranges);
        Needed { ranges }
    }

    /// Whether tails of the segment of this number hold it up to `to`.
    fn tails_reach(&self, timeline: TimelineId, number: u64, to: Lsn) -> bool {
        let size = self.segment_size();
        let wanted = size.start_of(number).and_then(|start| to.since(start));
        let name = SegmentName::from_number(timeline, number, size);
        name.zip(wanted).is_some_and(|(name, wanted)| self.held_in_tails(name) >= wanted)
    }

    /// Of the last segment nothing behind `to` is needed.
    fn accept_tails_of_the_last(&self, to: Lsn, ranges: &mut Vec<(SegmentRange, bool)>) {
        let Some((range, false)) = ranges.last().copied() else { return };
        if range.last != self.segment_size().number_before(to)
            || !self.tails_reach(range.timeline, range.last, to)
        {
            return;
        }
        ranges.pop();
        if range.first < range.last {
            ranges.push((SegmentRange { last: range.last - 1, ..range }, false));
        }
        match ranges.last_mut() {
            Some((before, true)) if before.timeline == range.timeline && before.last + 1 == range.last => {
                before.last = range.last;
            }
            _ => ranges.push((SegmentRange { first: range.last, ..range }, true)),
        }
    }

    /// When `to` lies before the fork in the last segment, the ancestor's own copy serves as well: nothing of
    /// the younger timeline is needed.
    fn accept_the_ancestor_of_the_last(
        &self,
        lineage: &TimelineHistory,
        to: Lsn,
        ranges: &mut Vec<(SegmentRange, bool)>,
    ) {
        let Some((range, false)) = ranges.last().copied() else { return };
        let begins_later = lineage.stretch_of(range.timeline).is_some_and(|stretch| stretch.begin >= to);
        if !begins_later || range.last != self.segment_size().number_before(to) {
            return;
        }
        let candidates = lineage.stretches().rev().filter(|stretch| {
            self.segment_size().number_of(stretch.begin) <= range.last && stretch.begin < to
        });
        // The timeline to which the last byte belongs comes first; its ancestors hold no more of it.
        let Some(ancestor) = candidates.map(|stretch| stretch.timeline).next() else { return };
        let held = self.segments(ancestor).contains(range.last) || self.tails_reach(ancestor, range.last, to);
        ranges.pop();
        if range.first < range.last {
            ranges.push((SegmentRange { last: range.last - 1, ..range }, false));
        }
        let only = SegmentRange { timeline: ancestor, first: range.last, last: range.last };
        ranges.push((only, held));
    }

    /// The newest complete segment in a lineage, at or after the segment of `from`.
    #[must_use]
    pub fn newest_along(&self, lineage: &TimelineHistory, from: Lsn) -> Option<SegmentName> {
        let from = self.segment_size().number_of(from);
        self.owned(lineage).into_iter().rev().find_map(|owned| {
            let range = owned.first.max(from)..=owned.last.unwrap_or(u64::MAX);
            let number = self.segments(owned.timeline).last_in(range)?;
            SegmentName::from_number(owned.timeline, number, self.segment_size())
        })
    }

    /// The gaps in a lineage from the segment of `from` to the newest that is held. Empty when nothing is.
    #[must_use]
    pub fn gaps(&self, lineage: &TimelineHistory, from: Lsn) -> Vec<SegmentRange> {
        let Some(newest) = self.newest_along(lineage, from) else { return Vec::new() };
        let to = newest.next(self.segment_size()).and_then(|next| next.start(self.segment_size()));
        self.needed(lineage, from, to.unwrap_or(Lsn::new(u64::MAX))).missing().collect()
    }

    /// How far WAL reaches from `from` along a lineage without a gap; `None` for a position past every
    /// name that a segment can have.
    #[must_use]
    pub fn reach(&self, lineage: &TimelineHistory, from: Lsn) -> Option<Reach> {
        let size = self.segment_size();
        let mut number = size.number_of(from);
        let mut last = None;
        let mut lacks = None;
        for owned in self.owned(lineage) {
            let end = owned.last.unwrap_or(u64::MAX);
            if end < number {
                continue;
            }
            if let Some((range, true)) = self.segments(owned.timeline).split(number..=end).into_iter().next()
            {
                last = SegmentName::from_number(owned.timeline, *range.end(), size);
                number = range.end().saturating_add(1);
            }
            if number <= end {
                lacks = Some((SegmentName::from_number(owned.timeline, number, size)?, owned.begin));
                break;
            }
        }
        let (lacks, begin) = lacks?;
        let start = size.start_of(number)?;
        let newest = self.newest_along(lineage, from);
        let mut end = start.forward(self.held_in_tails(lacks))?;
        let has_partial = self.partials(lacks.timeline()).any(|(partial, _)| partial.segment == lacks);
        // Up to the fork in it the ancestor's copy of the segment serves as well.
        let parent = lineage.stretches().rev().find(|s| s.begin < begin && s.end.is_some_and(|e| e >= begin));
        if let Some(parent) = parent.filter(|_| begin > start) {
            let held = if self.segments(parent.timeline).contains(number) {
                begin
            } else {
                start.forward(self.held_in_tails(lacks.on(parent.timeline)))?
            };
            end = end.max(begin.min(held));
        }
        Some(Reach {
            end,
            last,
            lacks,
            is_gap: newest.and_then(|newest| newest.number(size)).is_some_and(|newest| newest > number),
            has_partial,
        })
    }
}
