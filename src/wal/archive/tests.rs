use super::lineage::SegmentRange;
use super::look::{later_segment, neighbours, newest_segment, timelines};
use super::window::{LastCommit, Union};
use super::*;
use crate::env::Fixed;
use crate::postgres::history::TimelineHistory;
use crate::repo::frame::{Compression, EncodedFrame, FrameEncoder, WAL_FRAME};
use crate::storage::memory::MemoryStore;
use crate::units::{Lsn, Timestamp};
use crate::wal::info::{CommitPoint, ContentHash, SegmentInfo, Verdict};
use crate::wal::write::{Destination, SegmentWriter, store_history, store_tail};
use std::sync::Arc;

const MIB: u64 = 1 << 20;

fn env() -> Fixed {
    Fixed::new(Timestamp::from_unix_seconds(0), 7)
}

fn size() -> SegmentSize {
    SegmentSize::new(MIB).unwrap()
}

fn timeline(number: u32) -> TimelineId {
    TimelineId::new(number).unwrap()
}

fn name(on: u32, number: u64) -> SegmentName {
    SegmentName::from_number(timeline(on), number, size()).unwrap()
}

struct Place {
    repo: Repository,
    stanza: Stanza,
}

impl Place {
    fn new() -> Self {
        let repo = Repository::create(Arc::new(MemoryStore::new()), None, "memory", &env()).unwrap();
        Self { repo, stanza: "shop".parse().unwrap() }
    }

    fn wal(&self) -> ClusterWal<'_> {
        ClusterWal { repo: &self.repo, stanza: &self.stanza, system: SystemIdentifier::new(7) }
    }

    fn put(&self, segment: SegmentName, commit: Option<i64>) {
        self.put_as(segment, commit, |_| Destination::Complete);
    }

    fn put_as(&self, segment: SegmentName, commit: Option<i64>, to: impl Fn(ContentHash) -> Destination) {
        let plain = vec![u8::try_from(segment.number(size()).unwrap() % 251).unwrap(); WAL_FRAME];
        let hash = ContentHash::of(&plain);
        let env = env();
        let mut frame = EncodedFrame::default();
        FrameEncoder::new(Compression::Zstd(1), false).unwrap().encode(&plain, &mut frame).unwrap();
        let mut writer = SegmentWriter::begin(self.wal(), segment, to(hash), size(), &env).unwrap();
        writer.append(&plain, &mut frame).unwrap();
        let commit = commit.map(|at| CommitPoint { at: Timestamp::from_unix_seconds(at), xid: 5 });
        let info = SegmentInfo {
            name: segment,
            system: SystemIdentifier::new(7),
            size: MIB,
            hash,
            verdict: Verdict::Complete,
            valid: MIB,
            page_magic: Some(0xD118),
            first_commit: commit,
            last_commit: commit,
            tablespaces_created: Vec::new(),
        };
        writer.finish(&info).unwrap().commit().unwrap();
    }

    fn view(&self) -> Archive {
        Archive::read(&[&self.repo], &self.stanza, SystemIdentifier::new(7), size())
    }
}

fn history(on: u32, entries: &[(u32, u64)]) -> TimelineHistory {
    let text: String =
        entries.iter().map(|(id, end)| format!("{id}\t{}\tno reason\n", Lsn::new(*end))).collect();
    TimelineHistory::parse(timeline(on), text.as_bytes()).unwrap()
}

fn range(on: u32, first: u64, last: u64) -> SegmentRange {
    SegmentRange { timeline: timeline(on), first, last }
}

#[test]
fn the_view_tells_what_is_held_and_by_whom() {
    let (one, two) = (Place::new(), Place::new());
    for number in [3, 4, 5, 600] {
        one.put(name(1, number), None);
    }
    for number in [4, 5, 6] {
        two.put(name(1, number), None);
    }
    let view = Archive::read(&[&one.repo, &two.repo], &one.stanza, SystemIdentifier::new(7), size());
    assert!(view.unread().is_empty());
    assert_eq!(view.segments(timeline(1)).iter().collect::<Vec<_>>(), [3..=6, 600..=600]);
    assert_eq!(view.segments_in(timeline(1), 1).iter().collect::<Vec<_>>(), [4..=6]);
    assert_eq!(view.holders(name(1, 5)).iter().collect::<Vec<_>>(), [0, 1]);
    assert_eq!(view.holders(name(1, 6)).iter().collect::<Vec<_>>(), [1]);
    assert!(!view.contains(name(2, 5)) && !view.contains(name(1, 7)));
    assert!(view.later_exists(name(1, 6)) && !view.later_exists(name(1, 600)));
    assert_eq!(view.newest(timeline(1)), Some(name(1, 600)));
    assert_eq!(view.oldest(timeline(1)), Some(name(1, 3)));
}

#[test]
fn small_listings_answer_what_a_get_asks() {
    let place = Place::new();
    for number in [3, 5, 600] {
        place.put(name(1, number), None);
    }
    place.put_as(name(1, 6), None, Destination::Partial);
    let env = env();
    for (from, to) in [(0_u32, 8192_u32), (8192, 16384)] {
        let bytes = vec![1; (to - from) as usize];
        store_tail(place.wal(), name(1, 7), from, &bytes, "w", Compression::Zstd(1), &env).unwrap();
    }
    let here = neighbours(place.wal(), name(1, 4)).unwrap();
    assert_eq!(here.segments.iter().copied().collect::<Vec<_>>(), [name(1, 3), name(1, 5)]);
    assert_eq!(here.partials_of(name(1, 6)).count(), 1);
    assert_eq!(covered(here.tails_of(name(1, 7))), 16384);
    let later =
        |segment| later_segment(place.wal(), segment, &neighbours(place.wal(), segment).unwrap()).unwrap();
    assert_eq!(later(name(1, 4)), Some(name(1, 5)));
    assert_eq!(later(name(1, 5)), Some(name(1, 600)));
    assert_eq!(later(name(1, 600)), None);
    assert_eq!(later(name(1, 9000)), None);
    assert_eq!(later(name(2, 1)), None);
    assert_eq!(newest_segment(place.wal(), timeline(1)).unwrap().unwrap().0, name(1, 600));
    assert_eq!(newest_segment(place.wal(), timeline(2)).unwrap(), None);

    let third = history(3, &[(1, 5 * MIB), (2, 6 * MIB)]);
    store_history(place.wal(), &third.to_bytes(), &third, &env).unwrap();
    let found = timelines(place.wal()).unwrap();
    assert_eq!(found.histories.into_iter().collect::<Vec<_>>(), [timeline(3)]);
    assert_eq!(found.folders.into_iter().collect::<Vec<_>>(), [timeline(1)]);
    // The history of timeline 2 is not held, but a later one tells it.
    let union =
        Union { repositories: &[&place.repo], stanza: &place.stanza, system: SystemIdentifier::new(7) };
    let second = place.view().lineage(union, timeline(2)).unwrap().unwrap();
    assert_eq!(second, history(2, &[(1, 5 * MIB)]));
    assert_eq!(place.view().lineage(union, timeline(4)).unwrap(), None);
}

#[test]
fn what_is_needed_follows_the_lineage() {
    let place = Place::new();
    for segment in [name(1, 2), name(1, 3), name(1, 4), name(1, 5), name(2, 4), name(2, 5), name(2, 7)] {
        place.put(segment, None);
    }
    let view = place.view();
    // Timeline 2 left timeline 1 inside segment 4.
    let lineage = history(2, &[(1, 4 * MIB + 100)]);
    let needed = view.needed(&lineage, Lsn::new(2 * MIB + 40), Lsn::new(8 * MIB));
    assert_eq!(
        needed.ranges,
        [(range(1, 2, 3), true), (range(2, 4, 5), true), (range(2, 6, 6), false), (range(2, 7, 7), true)]
    );
    assert_eq!(needed.ends(size()), Some((name(1, 2), name(2, 7))));
    assert_eq!((needed.count(), needed.is_complete()), (6, false));
    assert_eq!(view.gaps(&lineage, Lsn::new(2 * MIB)), [range(2, 6, 6)]);
    let reach = view.reach(&lineage, Lsn::new(2 * MIB + 40)).unwrap();
    assert_eq!((reach.end, reach.last, reach.lacks), (Lsn::new(6 * MIB), Some(name(2, 5)), name(2, 6)));
    assert!(reach.is_gap && !reach.has_partial);
    // On timeline 1 alone, segment 6 is what the archive waits for.
    let root = TimelineHistory::root(timeline(1));
    let reach = view.reach(&root, Lsn::new(2 * MIB)).unwrap();
    assert_eq!((reach.end, reach.lacks, reach.is_gap), (Lsn::new(6 * MIB), name(1, 6), false));
}

#[test]
fn up_to_the_fork_the_ancestors_segment_serves() {
    let place = Place::new();
    for segment in [name(1, 2), name(1, 3), name(1, 4)] {
        place.put(segment, None);
    }
    let view = place.view();
    let fork = Lsn::new(4 * MIB + 100);
    let lineage = history(2, &[(1, fork.as_u64())]);
    assert!(view.needed(&lineage, Lsn::new(2 * MIB), fork).is_complete());
    let beyond = view.needed(&lineage, Lsn::new(2 * MIB), fork.forward(1).unwrap());
    assert_eq!(beyond.missing().collect::<Vec<_>>(), [range(2, 4, 4)]);
    let reach = view.reach(&lineage, Lsn::new(2 * MIB)).unwrap();
    assert_eq!((reach.end, reach.lacks), (fork, name(2, 4)));
    // A fork exactly at a border: the ancestor's next segment is nothing to this lineage.
    let border = history(2, &[(1, 4 * MIB)]);
    let reach = view.reach(&border, Lsn::new(2 * MIB)).unwrap();
    assert_eq!((reach.end, reach.lacks), (Lsn::new(4 * MIB), name(2, 4)));
    assert!(view.needed(&border, Lsn::new(2 * MIB), Lsn::new(4 * MIB)).is_complete());
}

#[test]
fn tails_carry_on_where_segments_end() {
    let place = Place::new();
    place.put(name(1, 2), None);
    let env = env();
    for (from, to, writer) in [(0_u32, 500_u32, "a"), (300, 700, "b"), (800, 900, "a")] {
        let bytes = vec![1; (to - from) as usize];
        store_tail(place.wal(), name(1, 3), from, &bytes, writer, Compression::Zstd(1), &env).unwrap();
    }
    let root = TimelineHistory::root(timeline(1));
    let reach = place.view().reach(&root, Lsn::new(2 * MIB)).unwrap();
    assert_eq!((reach.end, reach.lacks), (Lsn::new(3 * MIB + 700), name(1, 3)));
}

#[test]
fn a_window_ends_with_the_last_commit_before_the_gap() {
    let place = Place::new();
    for (number, commit) in [(2, Some(10)), (3, Some(20)), (4, None), (5, Some(30)), (6, None), (8, Some(90))]
    {
        place.put(name(1, number), commit);
    }
    let view = place.view();
    let root = TimelineHistory::root(timeline(1));
    let union =
        Union { repositories: &[&place.repo], stanza: &place.stanza, system: SystemIdentifier::new(7) };
    let window = view.window(union, &root, Lsn::new(2 * MIB + 5)).unwrap().unwrap();
    assert_eq!(window.reach.lacks, name(1, 7));
    assert!(window.reach.is_gap);
    let LastCommit::At(commit) = window.last_commit else { panic!("{:?}", window.last_commit) };
    assert_eq!(commit.at, Timestamp::from_unix_seconds(30));
    let after = |seconds| {
        view.segment_after(union, &root, Lsn::new(2 * MIB + 5), Timestamp::from_unix_seconds(seconds))
            .unwrap()
    };
    assert_eq!(after(5), Some(name(1, 2)));
    assert_eq!(after(10), Some(name(1, 3)));
    assert_eq!(after(19), Some(name(1, 3)));
    assert_eq!(after(20), Some(name(1, 5)));
    assert_eq!(after(29), Some(name(1, 5)));
    assert_eq!(after(30), None);
    // A backup whose own last segment has not come yet: nothing, and it says what it waits for.
    let window = view.window(union, &root, Lsn::new(20 * MIB)).unwrap().unwrap();
    assert_eq!((window.reach.lacks, window.last_commit), (name(1, 20), LastCommit::None));
}

/// A stretch of segment 1:7, each byte telling its offset.
fn put_tail(place: &Place, from: usize, to: usize, writer: &str) {
    let bytes: Vec<u8> = (from..to).map(|at| (at % 253) as u8).collect();
    let at = u32::try_from(from).unwrap();
    store_tail(place.wal(), name(1, 7), at, &bytes, writer, Compression::Zstd(1), &env()).unwrap();
}

fn read_tails(place: &Place) -> (Vec<u8>, crate::wal::tails::FromTails) {
    let repositories = [&place.repo];
    let union =
        Union { repositories: &repositories, stanza: &place.stanza, system: SystemIdentifier::new(7) };
    let mut bytes = Vec::new();
    let read = place.view().read_tails(union, name(1, 7), &mut |more| {
        bytes.extend_from_slice(more);
        Ok(())
    });
    (bytes, read.unwrap())
}

#[test]
fn tails_of_several_writers_are_read_as_one_and_must_agree() {
    let place = Place::new();
    put_tail(&place, 0, 5_000, "a");
    put_tail(&place, 0, 2_000, "b");
    put_tail(&place, 4_000, 9_000, "b");
    put_tail(&place, 9_000, 9_500, "c");
    put_tail(&place, 20_000, 30_000, "c");
    let (bytes, read) = read_tails(&place);
    assert!(read.trouble.is_none());
    assert_eq!(read.reach, 9_500);
    assert!(bytes.iter().enumerate().all(|(at, byte)| *byte == (at % 253) as u8) && bytes.len() == 9_500);
    // One that says something else where it overlaps is told, and nothing of it is given.
    store_tail(place.wal(), name(1, 7), 9_400, &[9; 700], "d", Compression::Zstd(1), &env()).unwrap();
    let (bytes, read) = read_tails(&place);
    assert_eq!((bytes.len(), read.reach), (9_500, 9_500));
    assert!(read.trouble.unwrap().to_string().contains("does not agree"));
}

#[test]
fn what_tails_hold_counts_up_to_their_end_and_whole_ones_count_as_segments() {
    let place = Place::new();
    for number in [5, 6] {
        place.put(name(1, number), None);
    }
    put_tail(&place, 0, 5_000, "a");
    let root = TimelineHistory::root(timeline(1));
    let at = |offset: u64| Lsn::new(7 * MIB + offset);
    let (from, view) = (Lsn::new(5 * MIB), place.view());
    assert!(view.needed(&root, from, at(5_000)).is_complete());
    assert_eq!(view.needed(&root, from, at(5_000)).ranges, [(range(1, 5, 7), true)]);
    assert_eq!(view.needed(&root, from, at(5_001)).missing().collect::<Vec<_>>(), [range(1, 7, 7)]);
    assert!(view.needed(&root, at(10), at(5_000)).is_complete(), "all of it in one");
    assert_eq!(view.reach(&root, from).unwrap().end, at(5_000));
    assert!(!view.contains(name(1, 7)));

    let whole = usize::try_from(MIB).unwrap();
    put_tail(&place, 5_000, whole, "a");
    place.put(name(1, 8), None);
    let view = place.view();
    assert!(view.contains(name(1, 7)));
    let reach = view.reach(&root, from).unwrap();
    assert_eq!((reach.end, reach.is_gap), (Lsn::new(9 * MIB), false));
    assert_eq!(read_tails(&place).1.reach, MIB);
}

#[test]
fn beyond_a_fork_the_ancestors_tail_counts_up_to_it() {
    let place = Place::new();
    place.put(name(1, 6), None);
    put_tail(&place, 0, 5_000, "a");
    let second = history(2, &[(1, 7 * MIB + 3_000)]);
    let (from, at) = (Lsn::new(6 * MIB), |offset: u64| Lsn::new(7 * MIB + offset));
    let view = place.view();
    assert_eq!(view.reach(&second, from).unwrap().end, at(3_000));
    assert!(view.needed(&second, from, at(3_000)).is_complete());
    assert!(!view.needed(&second, from, at(3_001)).is_complete());
}

#[test]
fn one_repository_alone_is_what_listing_it_alone_tells() {
    let (one, two) = (Place::new(), Place::new());
    for number in [3, 4, 5] {
        one.put(name(1, number), None);
    }
    for number in [4, 5, 6] {
        two.put(name(1, number), None);
    }
    two.put_as(name(1, 7), None, Destination::Partial);
    put_tail(&two, 0, 5_000, "a");
    one.put(name(2, 8), None);
    let env = env();
    let second = history(2, &[(1, 7 * MIB)]);
    store_history(two.wal(), b"1\t0/700000\tno reason\n", &second, &env).unwrap();
    let both = [&one.repo, &two.repo];
    let archive = Archive::read(&both, &one.stanza, SystemIdentifier::new(7), size());
    assert!(archive.alone(2).is_none());
    for (at, place) in [(0, &one), (1, &two)] {
        let (alone, listed) = (archive.alone(at).unwrap(), place.view());
        let lines = |archive: &Archive, at: usize| {
            let mut lines: Vec<String> = archive.timelines().map(|one| format!("timeline {one}")).collect();
            lines.extend(archive.histories().map(|(one, held)| format!("{one} {}", held.contains(at))));
            for timeline in archive.timelines() {
                lines.push(format!("{:?}", archive.segments(timeline)));
                lines.push(format!("{:?}", archive.segments_in(timeline, at)));
                lines.extend(
                    archive.partials(timeline).map(|(one, held)| format!("{one:?} {}", held.contains(at))),
                );
                lines.extend(
                    archive.tails(timeline).map(|(one, held)| format!("{one:?} {}", held.contains(at))),
                );
            }
            lines.push(format!("{:?} {:?}", archive.newest_timeline(), archive.stored_bytes(at)));
            lines
        };
        assert_eq!(lines(&alone, at), lines(&listed, 0));
        assert!(alone.segments_in(timeline(1), 1 - at).is_empty() && alone.stored_bytes(1 - at).is_none());
    }
}

#[test]
fn what_was_asked_is_not_asked_again_even_if_it_failed() {
    use super::asked::Asked;
    use crate::storage::faulty::{Fault, FaultyStore};
    let memory = MemoryStore::new();
    let place = Place {
        repo: Repository::create(Arc::new(memory.clone()), None, "memory", &env()).unwrap(),
        ..Place::new()
    };
    for number in 3..=9 {
        place.put(name(1, number), (number < 5).then_some(100));
    }
    let root = TimelineHistory::root(timeline(1));
    let archive = place.view();
    let look = |store: &FaultyStore<MemoryStore>, looks: usize| {
        let repo = Repository::open(Arc::new(store.clone()), &|| Ok(None)).unwrap();
        let repositories = [&repo];
        let system = SystemIdentifier::new(7);
        let mut asked = Asked::new(Union { repositories: &repositories, stanza: &place.stanza, system });
        let windows: Vec<_> = (0..looks).map(|_| asked.window(&archive, &root, Lsn::new(3 * MIB))).collect();
        windows.into_iter().map(|window| window.map(|window| window.unwrap().last_commit)).collect::<Vec<_>>()
    };
    let (once, thrice) = (FaultyStore::counting(memory.clone()), FaultyStore::counting(memory.clone()));
    assert_eq!(look(&once, 1).remove(0).unwrap(), look(&thrice, 3).remove(2).unwrap());
    assert_eq!(once.log(), thrice.log());
    // The first call opens the repository.
    let broken = FaultyStore::failing_only(memory, once.calls() - 3, Fault::NeverSent);
    let told = look(&broken, 2);
    assert!(told.iter().all(Result::is_err), "{told:?}");
    assert_eq!(broken.calls(), once.calls() - 2, "{:#?}", broken.log());
}
