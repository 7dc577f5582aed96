//! Whether one segment goes on where the one before it ends: the record that crosses the border, and the link
//! from the first record back to the last.
//!
//! Each segment is walked by itself, so segments can be looked at in any order and by many threads; what is
//! kept of each to hold against its neighbours is a few numbers.

use crate::postgres::wal::page::{LONG_HEADER, PageHeader};
use crate::postgres::wal::segment::{SegmentIdentity, Unreadable};
use crate::postgres::wal::stream::{Ending, Record, RecordHeader, Visitor};
use crate::postgres::wal::walk::{Completeness, SegmentWalk};
use crate::units::{Lsn, SegmentName};
use std::fmt;
use std::ops::ControlFlow;

/// What a complete segment has to do with its neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Bytes of a record that began before it.
    pub continues: u32,
    /// Its first page says that the record before it was given up after a crash.
    pub overwrites: bool,
    /// What the first record that begins in it links back to, where that can be seen.
    pub links_to: Option<Lsn>,
    /// What goes on behind it.
    pub ending: Ending,
}

/// Why two neighbours are not of one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Break {
    /// The record that crosses the border lacks bytes, or has too many.
    Crossing {
        /// Bytes that are to come by the first.
        open: u32,
        /// Bytes that come by the second.
        continues: u32,
    },
    /// The second links back to another record.
    BackLink {
        /// Where the first's last record begins.
        last: Lsn,
        /// Where the second says it does.
        linked: Lsn,
    },
}

impl fmt::Display for Break {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Crossing { open, continues } => {
                write!(f, "{open} bytes of a record are to come, and it begins with {continues}")
            }
            Self::BackLink { last, linked } => {
                write!(f, "the last record there begins at {last}, and it links back to {linked}")
            }
        }
    }
}

impl Link {
    /// Whether `next`, the segment behind this one, goes on where it ends.
    ///
    /// # Errors
    /// What does not fit.
    pub fn goes_on_in(&self, next: &Self) -> Result<(), Break> {
        let last = if next.overwrites { self.ending.last_whole } else { self.ending.last_begun };
        if !next.overwrites && self.ending.open != next.continues {
            return Err(Break::Crossing { open: self.ending.open, continues: next.continues });
        }
        match (last, next.links_to) {
            (Some(last), Some(linked)) if last != linked => Err(Break::BackLink { last, linked }),
            _ => Ok(()),
        }
    }
}

/// What a walk over a whole segment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walked {
    /// Who it is.
    pub identity: SegmentIdentity,
    /// Whether its records reach its end. Means nothing where the version is unknown.
    pub completeness: Completeness,
    /// Up to where every byte is part of a checked chain.
    pub valid_up_to: Lsn,
    /// For its neighbours; `None` when it is not complete, or of a version that is unknown here.
    pub link: Option<Link>,
}

#[derive(Debug, Default)]
struct FirstLink(Option<Lsn>);

impl Visitor for FirstLink {
    fn wants(&mut self, header: &RecordHeader) -> bool {
        self.0.get_or_insert(header.previous);
        false
    }

    fn record(&mut self, _: &Record<'_>) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// A walk over one segment, fed in pieces of any size.
#[derive(Debug)]
pub struct ChainWalk {
    walk: SegmentWalk,
    first: FirstLink,
    beginning: Vec<u8>,
}

impl ChainWalk {
    /// A walk over what an object of this name should hold.
    #[must_use]
    pub fn new(name: SegmentName) -> Self {
        Self { walk: SegmentWalk::new(Some(name)), first: FirstLink::default(), beginning: Vec::new() }
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// When this is no segment, or not the one of the name.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), Unreadable> {
        let wanted = LONG_HEADER.saturating_sub(self.beginning.len()).min(bytes.len());
        self.beginning.extend_from_slice(bytes.get(..wanted).unwrap_or_default());
        self.walk.feed(bytes, &mut self.first)
    }

    /// What was found, after the last byte.
    ///
    /// # Errors
    /// When it is not as long as it says.
    pub fn finish(self) -> Result<Walked, Unreadable> {
        let verdict = self.walk.finish()?;
        let header = PageHeader::parse(&self.beginning);
        let link = match (verdict.identity.dialect(), header) {
            (Some(dialect), Some(header)) if verdict.completeness.is_complete() => Some(Link {
                continues: if header.continues() { header.remaining } else { 0 },
                overwrites: header.overwrites(dialect),
                links_to: self.first.0,
                ending: self.walk.ending(),
            }),
            _ => None,
        };
        Ok(Walked {
            identity: verdict.identity,
            completeness: verdict.completeness,
            valid_up_to: verdict.valid_up_to,
            link,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::craft::{Craft, name};
    use super::*;

    const MIB: u64 = 1 << 20;

    fn walk(number: u64, bytes: &[u8]) -> Walked {
        let mut walk = ChainWalk::new(name(1, number, MIB));
        bytes.chunks(10_000).for_each(|piece| walk.feed(piece).unwrap());
        walk.finish().unwrap()
    }

    #[test]
    fn neighbours_are_of_one_piece_and_strangers_are_not() {
        let chain = Craft::chain(7, 3, MIB, 3, 1);
        let links: Vec<Link> =
            (3..).zip(&chain).map(|(number, bytes)| walk(number, bytes).link.unwrap()).collect();
        assert!(links[0].ending.open > 0 && links[0].ending.open == links[1].continues);
        assert_eq!(links[1].links_to, links[0].ending.last_begun);
        assert_eq!(links[0].goes_on_in(&links[1]), Ok(()));
        assert_eq!(links[1].goes_on_in(&links[2]), Ok(()));
        let other = Craft::chain(7, 3, MIB, 3, 77_000);
        let stranger = walk(4, &other[1]).link.unwrap();
        assert!(links[0].goes_on_in(&stranger).is_err());
        let same_crossing = Link { continues: links[0].ending.open, ..stranger };
        assert!(matches!(links[0].goes_on_in(&same_crossing), Err(Break::BackLink { .. })));
        // After a crash the open record is given up, and the next links to the last whole one.
        let overwriting = Link {
            continues: 0,
            overwrites: true,
            links_to: links[0].ending.last_whole,
            ending: Ending::default(),
        };
        assert_eq!(links[0].goes_on_in(&overwriting), Ok(()));
        assert!(links[0].goes_on_in(&Link { overwrites: false, ..overwriting }).is_err());
    }

    #[test]
    fn what_is_not_complete_has_no_links() {
        let open = Craft::new(7, 3, MIB).noop(50_000, 1).bytes();
        assert_eq!(walk(3, &open).link, None);
        let unknown = Craft::new(7, 3, MIB).magic(0xD1FF).fill(1).bytes();
        assert_eq!(walk(3, &unknown).link, None);
    }
}
