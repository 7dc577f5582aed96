//! One walk over a segment's bytes on their way into the repository: who it is, whether it is complete, its
//! hash, and the commits in it.

use super::info::{CommitPoint, ContentHash, CreatedTablespace, SegmentInfo, Verdict};
use crate::postgres::wal::page::{Dialect, LONG_HEADER, PageHeader, SHORT_HEADER};
use crate::postgres::wal::records::{Known, decode, may_be_known};
use crate::postgres::wal::segment::{SegmentIdentity, Unreadable};
use crate::postgres::wal::stream::{Record, RecordHeader, Visitor};
use crate::postgres::wal::walk::{Completeness, SegmentWalk};
use crate::units::{Lsn, SegmentName};
use std::fmt;
use std::ops::ControlFlow;

/// What is made of the walk. Only [`Judgement::Unfinished`] keeps a segment from its own name: a good one
/// that is parked beside it would be a hole for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It is complete.
    Complete,
    /// It is surely unfinished: its records end, and no page after their end is its own.
    Unfinished(Completeness),
    /// Its records end, but pages of its own follow, or its last page is the one they end in: damage as
    /// likely as an end.
    Doubtful(Completeness),
    /// Written by a PostgreSQL that this version does not know.
    UnknownMagic(u16),
}

impl fmt::Display for Judgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Complete => f.write_str("complete"),
            Self::Unfinished(why) => write!(f, "unfinished: {why}"),
            Self::Doubtful(why) => write!(f, "of doubtful end: {why}"),
            Self::UnknownMagic(magic) => {
                write!(f, "of an unknown PostgreSQL version (page magic {magic:04X})")
            }
        }
    }
}

/// What a scan found.
#[derive(Clone, Debug)]
pub struct Scanned {
    /// What the stored object will say of itself.
    pub info: SegmentInfo,
    /// The first page.
    pub identity: SegmentIdentity,
    /// Whether it is complete.
    pub judgement: Judgement,
}

/// Takes a segment's bytes in pieces of any size.
#[derive(Debug)]
pub struct SegmentScan {
    name: SegmentName,
    walk: SegmentWalk,
    hasher: Box<blake3::Hasher>,
    commits: Commits,
    identity: Option<SegmentIdentity>,
    fed: u64,
    /// The page in which the walk ended.
    ended_in: Option<u64>,
    /// Whether a page after that one is this segment's.
    own_page_after: bool,
    /// The first bytes, until they tell who the segment is.
    beginning: Vec<u8>,
    /// The beginning of a page whose header came in pieces.
    header: Vec<u8>,
}

#[derive(Debug, Default)]
struct Commits {
    dialect: Option<Dialect>,
    first: Option<CommitPoint>,
    last: Option<CommitPoint>,
    /// With the place of the record.
    tablespaces: Vec<(Lsn, CreatedTablespace)>,
}

/// So many are noted of one segment; nobody creates more.
const MOST_TABLESPACES: usize = 64;

impl Visitor for Commits {
    fn wants(&mut self, header: &RecordHeader) -> bool {
        /// `RM_XACT_ID`.
        const TRANSACTIONS: u8 = 1;
        /// `RM_TBLSPC_ID`.
        const TABLESPACES: u8 = 5;
        self.dialect.is_some()
            && matches!(header.resource_manager, TRANSACTIONS | TABLESPACES)
            && may_be_known(header)
    }

    fn record(&mut self, record: &Record<'_>) -> ControlFlow<()> {
        let Some(dialect) = self.dialect else { return ControlFlow::Continue(()) };
        match decode(dialect, record) {
            Ok(Some(Known::Commit(ended) | Known::Abort(ended))) => {
                let point = CommitPoint { at: ended.time, xid: ended.xid };
                self.first.get_or_insert(point);
                self.last = Some(point);
            }
            Ok(Some(Known::TablespaceCreated { oid, location }))
                if self.tablespaces.len() < MOST_TABLESPACES =>
            {
                let location = String::from_utf8_lossy(&location).into_owned();
                self.tablespaces.push((record.lsn, CreatedTablespace { oid, location }));
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

impl SegmentScan {
    /// A scan of what a file of this name should hold.
    #[must_use]
    pub fn new(name: SegmentName) -> Self {
        Self {
            name,
            walk: SegmentWalk::new(Some(name)),
            hasher: Box::default(),
            commits: Commits::default(),
            identity: None,
            fed: 0,
            ended_in: None,
            own_page_after: false,
            beginning: Vec::new(),
            header: Vec::new(),
        }
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// When this is no segment, or not the one of the name.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), Unreadable> {
        self.hasher.update(bytes);
        self.walk_over(bytes)
    }

    fn walk_over(&mut self, mut bytes: &[u8]) -> Result<(), Unreadable> {
        if self.identity.is_none() {
            let wanted = LONG_HEADER.saturating_sub(self.beginning.len()).min(bytes.len());
            self.beginning.extend_from_slice(&bytes[..wanted]);
            if self.beginning.len() >= LONG_HEADER {
                let identity = SegmentIdentity::parse(&self.beginning)?;
                self.identity = Some(identity);
                self.commits.dialect = identity.dialect();
            }
        }
        let page_size = self.identity.map_or(8192, |identity| u64::from(identity.page_size));
        // Page by page, so as to know in which one the walk ends.
        while !bytes.is_empty() {
            let within = self.fed % page_size;
            let length = usize::try_from(page_size - within).unwrap_or(bytes.len()).min(bytes.len());
            let (piece, rest) = bytes.split_at(length);
            self.walk.feed(piece, &mut self.commits)?;
            match self.ended_in {
                Some(ended) => self.look_at(piece, within, ended, page_size),
                None if self.walk.is_over() => self.ended_in = Some(self.fed / page_size),
                None => {}
            }
            self.fed += length as u64;
            bytes = rest;
        }
        Ok(())
    }

    /// After the end of the records: is this page ours?
    fn look_at(&mut self, piece: &[u8], within: u64, ended: u64, page_size: u64) {
        let page = self.fed / page_size;
        if page <= ended || self.own_page_after {
            return;
        }
        if within == 0 {
            self.header.clear();
        }
        if self.header.len() < SHORT_HEADER {
            let more = SHORT_HEADER - self.header.len();
            self.header.extend_from_slice(&piece[..more.min(piece.len())]);
            let (Some(identity), true) = (self.identity, self.header.len() == SHORT_HEADER) else { return };
            let address = identity.start.as_u64().wrapping_add(page * page_size);
            self.own_page_after = PageHeader::parse(&self.header)
                .is_some_and(|header| header.magic == identity.magic && header.address == Lsn::new(address));
        }
    }

    /// The tablespaces that records create in what was fed so far, and where each of those records begins.
    #[must_use]
    pub fn tablespaces_created(self) -> Vec<(Lsn, CreatedTablespace)> {
        self.commits.tablespaces
    }

    /// What was found, after the last byte.
    ///
    /// # Errors
    /// When the file is not as long as it says.
    pub fn finish(self) -> Result<Scanned, Unreadable> {
        let verdict = self.walk.finish()?;
        let identity = verdict.identity;
        let size = identity.size.bytes();
        let pages = size / u64::from(identity.page_size);
        let judgement = match verdict.completeness {
            _ if identity.dialect().is_none() => Judgement::UnknownMagic(identity.magic),
            Completeness::Complete(_) => Judgement::Complete,
            why @ Completeness::Incomplete(_) => {
                let in_last_page = self.ended_in.is_none_or(|page| page + 1 >= pages);
                if self.own_page_after || in_last_page {
                    Judgement::Doubtful(why)
                } else {
                    Judgement::Unfinished(why)
                }
            }
        };
        let info = SegmentInfo {
            name: self.name,
            system: identity.system_identifier,
            size,
            hash: ContentHash::finish(&self.hasher),
            verdict: match judgement {
                Judgement::Complete => Verdict::Complete,
                Judgement::Unfinished(_) => Verdict::Incomplete,
                Judgement::Doubtful(_) | Judgement::UnknownMagic(_) => Verdict::Unsure,
            },
            valid: verdict.valid_up_to.since(identity.start).unwrap_or(0).min(size),
            page_magic: Some(identity.magic),
            first_commit: self.commits.first,
            last_commit: self.commits.last,
            tablespaces_created: self.commits.tablespaces.into_iter().map(|(_, one)| one).collect(),
        };
        Ok(Scanned { info, identity, judgement })
    }
}

#[cfg(test)]
mod tests {
    use super::super::craft::{Craft, name};
    use super::*;
    use crate::units::Timestamp;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    fn scan(bytes: &[u8], pieces: &[usize]) -> Result<Scanned, Unreadable> {
        let mut scan = SegmentScan::new(name(1, 3, MIB));
        let mut rest = bytes;
        let mut pieces = pieces.iter().cycle();
        while !rest.is_empty() {
            let length = (*pieces.next().unwrap()).clamp(1, rest.len());
            scan.feed(&rest[..length])?;
            rest = &rest[length..];
        }
        scan.finish()
    }

    fn moment(seconds: i64) -> Timestamp {
        Timestamp::from_unix_seconds(seconds)
    }

    #[test]
    fn tablespaces_that_are_created_in_it_are_noted() {
        let mut data = vec![255, 16];
        data.extend_from_slice(&16_400_u32.to_le_bytes());
        data.extend_from_slice(b"/srv/spaces\0");
        let bytes = Craft::new(7, 3, MIB).record(5, 0, 9, &data).record(5, 0x10, 9, &data).fill(5).bytes();
        let created = CreatedTablespace { oid: 16_400, location: "/srv/spaces".to_owned() };
        assert_eq!(scan(&bytes, &[8192]).unwrap().info.tablespaces_created, [created]);
    }

    #[test]
    fn a_filled_segment_and_a_switched_one_are_complete() {
        let filled =
            Craft::new(7, 3, MIB).commit(9, moment(1_000)).noop(100, 1).commit(11, moment(2_000)).fill(5);
        let found = scan(&filled.bytes(), &[1 << 20]).unwrap();
        assert_eq!(found.judgement, Judgement::Complete);
        assert_eq!(found.info.verdict, Verdict::Complete);
        assert_eq!(found.info.valid, MIB);
        assert_eq!(found.info.first_commit, Some(CommitPoint { at: moment(1_000), xid: 9 }));
        assert_eq!(found.info.last_commit, Some(CommitPoint { at: moment(2_000), xid: 11 }));
        let switched = Craft::new(7, 3, MIB).noop(50_000, 1).record(0, 0x40, 0, &[]).bytes();
        assert_eq!(scan(&switched, &[8192]).unwrap().judgement, Judgement::Complete);
    }

    #[test]
    fn only_what_is_surely_unfinished_is_called_so() {
        for craft in [Craft::new(7, 3, MIB), Craft::new(7, 3, MIB).recycled()] {
            let open = craft.noop(50_000, 1).commit(4, moment(9)).bytes();
            let found = scan(&open, &[1 << 20]).unwrap();
            assert!(matches!(found.judgement, Judgement::Unfinished(_)), "{}", found.judgement);
            assert!(found.info.valid > 50_000 && found.info.valid < 60_000);
            assert_eq!(found.info.verdict, Verdict::Incomplete);
        }
        // Cut inside a record, as a receiver that stopped leaves it.
        let mut cut = Craft::new(7, 3, MIB).noop(50_000, 1).noop(90_000, 2).bytes();
        cut[10 * 8192..].fill(0);
        assert!(matches!(scan(&cut, &[8192]).unwrap().judgement, Judgement::Unfinished(_)));
        // Damage in the middle of a full one: its pages go on.
        let mut damaged = Craft::new(7, 3, MIB).fill(1).bytes();
        damaged[300_000] ^= 1;
        assert!(matches!(scan(&damaged, &[8192]).unwrap().judgement, Judgement::Doubtful(_)));
        // Damage in its last page.
        let mut damaged = Craft::new(7, 3, MIB).fill(1).bytes();
        let last = damaged.len() - 8192;
        damaged[last + 8] ^= 1;
        assert!(matches!(scan(&damaged, &[8192]).unwrap().judgement, Judgement::Doubtful(_)));
        // A version that is not known, whatever its end looks like.
        let newer = Craft::new(7, 3, MIB).magic(0xD1FF).noop(50_000, 1).bytes();
        assert_eq!(scan(&newer, &[8192]).unwrap().judgement, Judgement::UnknownMagic(0xD1FF));
    }

    #[test]
    fn another_segment_is_refused() {
        let other = Craft::new(7, 4, MIB).fill(1).bytes();
        assert!(matches!(scan(&other, &[8192]), Err(Unreadable::OtherName { .. })));
        let newer = Craft::new(7, 3, MIB).timeline(2).fill(1).bytes();
        assert!(matches!(scan(&newer, &[8192]), Err(Unreadable::OtherName { .. })));
        assert!(matches!(scan(&[0; 100_000], &[8192]), Err(Unreadable::NotWal)));
        let short = &Craft::new(7, 3, MIB).fill(1).bytes()[..500_000];
        assert!(matches!(scan(short, &[8192]), Err(Unreadable::Length { .. })));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn any_cutting_gives_the_same_answer(
            pieces in prop::collection::vec(1_usize..40_000, 1..8), filled: bool, flip in prop::option::of(40_usize..1_000_000)
        ) {
            let craft = Craft::new(7, 3, MIB).recycled().commit(3, moment(4)).noop(70_000, 1);
            let mut bytes = if filled { craft.fill(2) } else { craft }.bytes();
            if let Some(at) = flip {
                bytes[at] ^= 0x10;
            }
            let whole = scan(&bytes, &[usize::MAX]).unwrap();
            let cut = scan(&bytes, &pieces).unwrap();
            prop_assert_eq!(whole.info, cut.info);
            prop_assert_eq!(whole.judgement, cut.judgement);
        }
    }
}
