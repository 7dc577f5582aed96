//! Whole calls against stores in memory: what lands at the target, and what never does.

use super::decide::{Asker, Trouble, TroubleKind, Verdict};
use super::fetch::{self, Given};
use super::repositories::Candidate;
use super::*;
use crate::env::Fixed;
use crate::postgres::history::TimelineHistory;
use crate::repo::frame::{Compression, EncodedFrame, FrameEncoder, WAL_FRAME};
use crate::repo::{self, Repository};
use crate::storage::faulty::{Fault, FaultyStore};
use crate::storage::memory::MemoryStore;
use crate::storage::{Key, Store, StoreErrorKind};
use crate::units::{ByteCount, Lsn, PgMajor, SegmentName, TimelineId, Timestamp};
use crate::wal::craft::Craft;
use crate::wal::write::{Destination, SegmentWriter, store_backup_history, store_history, store_tail};
use crate::wal::{ClusterWal, ContentHash, SegmentInfo, Verdict as Walked};
use std::path::PathBuf;
use std::sync::Arc;

mod tablespaces;

const MIB: u64 = 1 << 20;
const SYSTEM: SystemIdentifier = SystemIdentifier::new(7);

fn env() -> Fixed {
    Fixed::new(Timestamp::from_unix_seconds(0), 7)
}

fn size() -> SegmentSize {
    SegmentSize::new(MIB).unwrap()
}

fn tli(number: u32) -> TimelineId {
    TimelineId::new(number).unwrap()
}

fn seg(on: u32, number: u64) -> SegmentName {
    SegmentName::from_number(tli(on), number, size()).unwrap()
}

fn at(number: u64, offset: u64) -> Lsn {
    Lsn::new(number * MIB + offset)
}

/// A segment's bytes as far as they are looked at: the first page's header, then noise.
fn contents(name: SegmentName, page_timeline: u32) -> Vec<u8> {
    let mut bytes = vec![0; MIB as usize];
    blake3::Hasher::new().update(name.to_string().as_bytes()).finalize_xof().fill(&mut bytes);
    bytes[0..2].copy_from_slice(&0xD118_u16.to_le_bytes());
    bytes[2..4].copy_from_slice(&2_u16.to_le_bytes());
    bytes[4..8].copy_from_slice(&page_timeline.to_le_bytes());
    bytes[8..16].copy_from_slice(&name.start(size()).unwrap().as_u64().to_le_bytes());
    bytes[16..24].fill(0);
    bytes[24..32].copy_from_slice(&7_u64.to_le_bytes());
    bytes[32..36].copy_from_slice(&u32::try_from(MIB).unwrap().to_le_bytes());
    bytes[36..40].copy_from_slice(&8192_u32.to_le_bytes());
    bytes
}

struct Bench {
    stores: Vec<MemoryStore>,
    stanza: Stanza,
    scratch: tempfile::TempDir,
    /// The server that asks.
    server: Option<super::tablespaces::Server>,
}

impl Bench {
    fn new(repositories: usize) -> Self {
        let stanza: Stanza = "shop".parse().unwrap();
        let stores = (0..repositories).map(|_| MemoryStore::new()).collect::<Vec<_>>();
        for store in &stores {
            let repo = Repository::create(Arc::new(store.clone()), None, "memory", &env()).unwrap();
            let cluster = repo::Cluster {
                system: SYSTEM,
                major: PgMajor::NEWEST,
                page_size: 8192,
                segment_size: size(),
                blocks_per_file: 131_072,
            };
            repo.add_cluster(&stanza, &cluster, &env()).unwrap();
        }
        Self { stores, stanza, scratch: tempfile::tempdir().unwrap(), server: None }
    }

    fn repo(&self, index: usize) -> Repository {
        Repository::open(Arc::new(self.stores[index].clone()), &|| Ok(None)).unwrap()
    }

    fn with_wal<T>(&self, index: usize, work: impl FnOnce(ClusterWal<'_>) -> T) -> T {
        let repo = self.repo(index);
        work(ClusterWal { repo: &repo, stanza: &self.stanza, system: SYSTEM })
    }

    /// Stores bytes under a segment's name, or as partial with this much WAL in it.
    fn put_bytes(&self, index: usize, name: SegmentName, bytes: &[u8], partial: Option<(Walked, u64)>) {
        let hash = ContentHash::of(bytes);
        let to = if partial.is_some() { Destination::Partial(hash) } else { Destination::Complete };
        let (verdict, valid) = partial.unwrap_or((Walked::Complete, bytes.len() as u64));
        let info = SegmentInfo {
            name,
            system: SYSTEM,
            size: bytes.len() as u64,
            hash,
            verdict,
            valid,
            page_magic: Some(0xD118),
            first_commit: None,
            last_commit: None,
            tablespaces_created: Vec::new(),
        };
        self.put_info(index, bytes, &info, to);
    }

    fn put_info(&self, index: usize, bytes: &[u8], info: &SegmentInfo, to: Destination) {
        self.with_wal(index, |wal| {
            let (env, name) = (env(), info.name);
            let mut writer = SegmentWriter::begin(wal, name, to, size(), &env).unwrap();
            let mut encoder = FrameEncoder::new(Compression::Zstd(1), false).unwrap();
            let mut frame = EncodedFrame::default();
            for plain in bytes.chunks(WAL_FRAME) {
                encoder.encode(plain, &mut frame).unwrap();
                writer.append(plain, &mut frame).unwrap();
            }
            writer.finish(info).unwrap().commit().unwrap();
        });
    }

    fn put(&self, index: usize, name: SegmentName) {
        self.put_bytes(index, name, &contents(name, name.timeline().as_u32()), None);
    }

    fn put_partial(&self, index: usize, name: SegmentName, valid: u64) {
        self.put_bytes(index, name, &contents(name, 1), Some((Walked::Incomplete, valid)));
    }

    fn put_tail(&self, index: usize, name: SegmentName, from: u32, to: u32) {
        self.put_tail_of(index, name, &contents(name, 1), from, to);
    }

    fn put_tail_of(&self, index: usize, name: SegmentName, bytes: &[u8], from: u32, to: u32) {
        self.with_wal(index, |wal| {
            let part = &bytes[from as usize..to as usize];
            store_tail(wal, name, from, part, "w1", Compression::Zstd(1), &env()).unwrap();
        });
    }

    fn put_history(&self, index: usize, timeline: u32, text: &str) {
        let parsed = TimelineHistory::parse(tli(timeline), text.as_bytes()).unwrap();
        self.with_wal(index, |wal| store_history(wal, text.as_bytes(), &parsed, &env()).unwrap());
    }

    fn key_of(&self, index: usize, part: &str) -> Key {
        self.stores[index].keys().into_iter().find(|key| key.as_str().contains(part)).unwrap()
    }

    /// Flips a bit in the middle of the object whose key contains `part`.
    fn damage(&self, index: usize, part: &str) {
        let key = self.key_of(index, part);
        let mut bytes = self.stores[index].read(&key, ByteCount::mib(64)).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        self.stores[index].overwrite(&key, &bytes);
    }

    fn target(&self) -> PathBuf {
        self.scratch.path().join("RECOVERYXLOG")
    }

    fn question(asker: Asker, target: Option<u32>) -> Question {
        Question {
            asker,
            target: target.map(tli),
            known_end: None,
            needed_to: None,
            followed: None,
            size: size(),
        }
    }

    fn ask_stores(
        &self,
        question: &Question,
        name: WalFileName,
        stores: Vec<Option<Arc<dyn Store>>>,
    ) -> Given {
        let candidates: Vec<_> = stores
            .into_iter()
            .enumerate()
            .map(|(index, store)| {
                let label = format!("repo{}", index + 1);
                let name = label.clone();
                Candidate::new(
                    label,
                    Box::new(move || {
                        let gone = |kind, why: String| Trouble { repository: name.clone(), kind, why };
                        let store =
                            store.clone().ok_or_else(|| gone(TroubleKind::Unreachable, "gone".into()))?;
                        Repository::open(store, &|| Ok(None))
                            .map_err(|e| gone(TroubleKind::Unreachable, e.to_string()))
                    }),
                )
            })
            .collect();
        let cluster = Cluster { stanza: &self.stanza, system: SYSTEM, size: size() };
        let request = Request { cluster, question: question.clone(), name, server: self.server.clone() };
        let _ = std::fs::remove_file(self.target());
        fetch::get(&request, &candidates, &self.target(), &mut Never).unwrap()
    }

    fn ask(&self, question: &Question, name: WalFileName) -> Given {
        let stores = self.stores.iter().map(|s| Some(Arc::new(s.clone()) as Arc<dyn Store>)).collect();
        self.ask_stores(question, name, stores)
    }

    /// Row and exit code of what a recovery is told.
    fn rows(&self, target: Option<u32>, name: SegmentName) -> (u8, u8) {
        let given = self.ask(&Self::question(Asker::Recovery, target), WalFileName::Segment(name));
        let code = given.answer.exit_code(Asker::Recovery);
        assert_eq!(self.target().exists(), code == 0, "a file shows if and only if the answer is 0");
        let left: Vec<_> = std::fs::read_dir(self.scratch.path()).unwrap().collect();
        assert_eq!(left.len(), usize::from(code == 0), "something was left beside the target");
        (given.answer.row, code)
    }

    fn served(&self) -> Vec<u8> {
        std::fs::read(self.target()).unwrap()
    }
}

/// Nothing is on its way.
struct Never;

impl Patience for Never {
    fn wait(&mut self) -> bool {
        false
    }
}

#[test]
fn a_segment_comes_from_the_first_repository_with_a_good_copy() {
    let bench = Bench::new(2);
    let name = seg(1, 5);
    bench.put(0, name);
    bench.put(1, name);
    assert_eq!(bench.rows(None, name), (1, 0));
    assert_eq!(bench.served(), contents(name, 1));
    bench.damage(0, &name.to_string());
    let given = bench.ask(&Bench::question(Asker::Recovery, None), WalFileName::Segment(name));
    assert_eq!(given.from.as_deref(), Some("repo2"));
    assert_eq!(bench.served(), contents(name, 1));
    bench.damage(1, &name.to_string());
    assert_eq!(bench.rows(None, name), (2, 200));
}

#[test]
fn every_bit_of_a_stored_segment_counts() {
    let bench = Bench::new(1);
    let name = seg(1, 5);
    bench.put(0, name);
    let key = bench.key_of(0, &name.to_string());
    let whole = bench.stores[0].read(&key, ByteCount::mib(64)).unwrap();
    for step in 0..40 {
        let mut bytes = whole.clone();
        let place = step * bytes.len() / 40;
        bytes[place] ^= 0x10;
        bench.stores[0].overwrite(&key, &bytes);
        assert_eq!(bench.rows(None, name).1, 200, "bit flipped in byte {place}");
        bench.stores[0].overwrite(&key, &whole[..place]);
        assert_eq!(bench.rows(None, name).1, 200, "cut to {place} bytes");
    }
}

#[test]
fn another_segment_or_another_clusters_under_the_name_is_damage() {
    let bench = Bench::new(1);
    // Stored under the wrong name by whoever: seals and hash are right, the WAL is another's.
    bench.put_bytes(0, seg(1, 5), &contents(seg(1, 6), 1), None);
    assert_eq!(bench.rows(None, seg(1, 5)), (2, 200));
    let mut other = contents(seg(1, 6), 1);
    other[24] = 8;
    bench.put_bytes(0, seg(1, 6), &other, None);
    assert_eq!(bench.rows(None, seg(1, 6)), (2, 200));
    // The first segment of a timeline begins with its ancestor's pages; an ancestor's never with a child's.
    bench.put_bytes(0, seg(3, 7), &contents(seg(3, 7), 1), None);
    assert_eq!(bench.rows(None, seg(3, 7)), (1, 0));
    bench.put_bytes(0, seg(1, 8), &contents(seg(1, 8), 2), None);
    assert_eq!(bench.rows(None, seg(1, 8)), (2, 200));
}

#[test]
fn the_end_of_the_archive_is_told_only_when_everybody_answers() {
    let bench = Bench::new(2);
    bench.put(0, seg(1, 5));
    assert_eq!(bench.rows(None, seg(1, 6)), (9, 1));
    let question = Bench::question(Asker::Recovery, None);
    let half = vec![Some(Arc::new(bench.stores[0].clone()) as Arc<dyn Store>), None];
    let given = bench.ask_stores(&question, WalFileName::Segment(seg(1, 6)), half);
    assert_eq!((given.answer.row, given.answer.exit_code(Asker::Recovery)), (3, 200));
    let given = bench.ask_stores(&question, WalFileName::Segment(seg(1, 6)), vec![None, None]);
    assert_eq!((given.answer.row, given.answer.exit_code(Asker::Recovery)), (15, 200));
}

#[test]
fn a_repository_that_never_heard_of_the_cluster_does_not_end_a_recovery() {
    let bench = Bench::new(1);
    let key = bench.key_of(0, "/cluster/");
    bench.stores[0].delete(&key).unwrap();
    assert_eq!(bench.rows(None, seg(1, 6)), (15, 200));
}

#[test]
fn a_gap_stops_a_recovery_however_far_away_the_later_segment_lies() {
    for later in [6, 7, 255, 256, 70_000] {
        let bench = Bench::new(2);
        bench.put(1, seg(1, later));
        assert_eq!(bench.rows(None, seg(1, 5)), (4, 200), "{later}");
        assert_eq!(bench.rows(None, seg(1, later + 1)), (9, 1), "{later}");
        assert_eq!(bench.rows(None, seg(2, 5)), (9, 1), "{later}");
    }
    // A tail, a partial or a note of a backup further on says the same.
    for piece in 0..3 {
        let bench = Bench::new(1);
        match piece {
            0 => bench.put_tail(0, seg(1, 300), 0, 4096),
            1 => bench.put_partial(0, seg(1, 300), 4096),
            _ => {
                bench.with_wal(0, |wal| store_backup_history(wal, seg(1, 300), 40, b"x", &env()).unwrap());
            }
        }
        assert_eq!(bench.rows(None, seg(1, 5)), (4, 200), "{piece}");
    }
    // So does a name that only a later version knows.
    let bench = Bench::new(1);
    let key = Key::new(format!("shop/wal/7/00000001/{}/{}-0123456789abcdef", seg(1, 9).folder(), seg(1, 9)));
    bench.stores[0].overwrite(&key.unwrap(), b"?");
    assert_eq!(bench.rows(None, seg(1, 5)), (4, 200));
    assert_eq!(bench.rows(None, seg(1, 9)), (4, 200));
}

#[test]
fn a_segment_that_comes_in_while_it_is_waited_for_is_served() {
    struct Arrives<'a>(&'a Bench, u32);
    impl Patience for Arrives<'_> {
        fn wait(&mut self) -> bool {
            self.1 += 1;
            if self.1 == 3 {
                self.0.put(0, seg(1, 5));
            }
            self.1 < 10
        }
    }
    let bench = Bench::new(1);
    bench.put(0, seg(1, 6));
    let stanza = bench.stanza.clone();
    let cluster = Cluster { stanza: &stanza, system: SYSTEM, size: size() };
    let request = Request {
        cluster,
        question: Bench::question(Asker::Recovery, None),
        name: WalFileName::Segment(seg(1, 5)),
        server: None,
    };
    let store = bench.stores[0].clone();
    let open = move || Ok(Repository::open(Arc::new(store.clone()), &|| Ok(None)).unwrap());
    let candidates = [Candidate::new("repo1", Box::new(open))];
    let mut patience = Arrives(&bench, 0);
    let given = fetch::get(&request, &candidates, &bench.target(), &mut patience).unwrap();
    assert_eq!((given.answer.row, patience.1), (1, 3));
    assert_eq!(bench.served(), contents(seg(1, 5), 1));
    // A standby does not wait: it asks again.
    let request = Request { question: Bench::question(Asker::Standby, None), ..request };
    let request = Request { name: WalFileName::Segment(seg(1, 4)), ..request };
    let given = fetch::get(&request, &candidates, &bench.target(), &mut patience).unwrap();
    assert_eq!((given.answer.exit_code(Asker::Standby), patience.1), (1, 3));
}

#[test]
fn a_complete_segment_under_a_partial_name_is_served_whole() {
    let bench = Bench::new(1);
    let name = seg(1, 5);
    bench.put_bytes(0, name, &contents(name, 1), Some((Walked::Complete, MIB)));
    bench.put(0, seg(1, 6));
    assert_eq!(bench.rows(None, name), (1, 0));
    assert_eq!(bench.served(), contents(name, 1));
    bench.damage(0, ".partial-");
    assert_eq!(bench.rows(None, name), (4, 200));
}

#[test]
fn the_last_segment_is_put_together_from_partials_and_tails() {
    let name = seg(1, 5);
    let whole = contents(name, 1);
    let bench = Bench::new(2);
    bench.put_tail(0, name, 0, 5000);
    assert_eq!(bench.rows(None, name), (8, 0));
    assert_eq!(bench.served()[..5000], whole[..5000]);
    assert!(bench.served()[5000..].iter().all(|b| *b == 0));
    assert_eq!(bench.served().len() as u64, MIB);
    // Overlapping, from another repository.
    bench.put_tail(1, name, 3000, 9000);
    assert_eq!(bench.rows(None, name), (8, 0));
    assert_eq!(bench.served()[..9000], whole[..9000]);
    assert!(bench.served()[9000..].iter().all(|b| *b == 0));
    // A partial segment is taken with all that follows its WAL.
    bench.put_partial(0, name, 200_000);
    assert_eq!(bench.rows(None, name), (8, 0));
    assert_eq!(bench.served(), whole);
    // With a hole before it, the tail proves that more was written than is held.
    bench.put_tail(0, name, 300_000, 400_000);
    assert_eq!(bench.rows(None, name), (5, 200));
    bench.put_tail(0, name, 200_000, 300_001);
    assert_eq!(bench.rows(None, name), (8, 0));
    assert_eq!(bench.served()[..400_000], whole[..400_000]);
    bench.damage(0, "000493e0-"); // the tail from 300,000 on
    assert_eq!(bench.rows(None, name), (2, 200));
}

#[test]
fn tails_that_disagree_are_not_put_together() {
    let name = seg(1, 5);
    let bench = Bench::new(1);
    bench.put_tail(0, name, 0, 5000);
    let mut other = contents(name, 1)[4000..9000].to_vec();
    other[10] ^= 1;
    bench.with_wal(0, |wal| {
        store_tail(wal, name, 4000, &other, "w2", Compression::Zstd(1), &env()).unwrap();
    });
    assert_eq!(bench.rows(None, name), (2, 200));
}

#[test]
fn a_damaged_partial_is_not_made_up_for_by_a_shorter_one() {
    let name = seg(1, 5);
    let bench = Bench::new(2);
    bench.put_partial(0, name, 9000);
    let mut shorter = contents(name, 1);
    shorter[9000..].fill(0);
    bench.put_bytes(0, name, &shorter, Some((Walked::Incomplete, 5000)));
    assert_eq!(bench.rows(None, name), (8, 0));
    assert_eq!(bench.served(), contents(name, 1));
    let long = ContentHash::of(&contents(name, 1)).short();
    bench.damage(0, &format!(".partial-{long}"));
    assert_eq!(bench.rows(None, name), (2, 200));
    // The same in another repository does.
    bench.put_partial(1, name, 9000);
    assert_eq!(bench.rows(None, name), (8, 0));
    assert_eq!(bench.served(), contents(name, 1));
}

/// 1 was left for 2 inside segment 9 and for nobody else.
fn promoted(bench: &Bench) -> String {
    let text = format!("1\t{}\tno recovery target specified\n", at(9, 0x5000));
    bench.put_history(0, 2, &text);
    text
}

#[test]
fn the_segment_of_the_fork_is_zero_from_the_fork_on() {
    let bench = Bench::new(1);
    promoted(&bench);
    for number in 8..12 {
        bench.put(0, seg(1, number));
    }
    assert_eq!(bench.rows(Some(2), seg(1, 8)), (1, 0));
    assert_eq!(bench.rows(Some(2), seg(1, 9)), (7, 0));
    assert_eq!(bench.served()[..0x5000], contents(seg(1, 9), 1)[..0x5000]);
    assert!(bench.served()[0x5000..].iter().all(|b| *b == 0));
    assert_eq!(bench.served().len() as u64, MIB);
    assert_eq!(bench.rows(Some(2), seg(1, 10)), (6, 200));
    assert_eq!(bench.rows(Some(1), seg(1, 10)), (1, 0));
    // Once the new timeline is there, a recovery that still asks for the old one would end too early.
    bench.put(0, seg(2, 9));
    assert_eq!(bench.rows(Some(2), seg(1, 9)), (7, 200));
    assert_eq!(bench.rows(Some(2), seg(2, 9)), (1, 0));
    // pg_rewind reads the dead branch on purpose.
    for name in [seg(1, 9), seg(1, 10)] {
        let given = bench.ask(&Bench::question(Asker::Copier, Some(2)), WalFileName::Segment(name));
        assert_eq!((given.answer.row, bench.served()), (1, contents(name, 1)));
    }
}

#[test]
fn the_segment_of_the_fork_may_be_held_in_pieces() {
    let bench = Bench::new(1);
    promoted(&bench);
    bench.put_partial(0, seg(1, 9), 0x4000);
    assert_eq!(bench.rows(Some(2), seg(1, 9)), (5, 200));
    bench.put_tail(0, seg(1, 9), 0x3000, 0x6000);
    assert_eq!(bench.rows(Some(2), seg(1, 9)), (7, 0));
    assert_eq!(bench.served()[..0x5000], contents(seg(1, 9), 1)[..0x5000]);
    assert!(bench.served()[0x5000..].iter().all(|b| *b == 0));
}

#[test]
fn a_target_whose_history_is_gone_is_not_followed_blindly() {
    let bench = Bench::new(1);
    let text = promoted(&bench);
    bench.put(0, seg(1, 8));
    bench.damage(0, "00000002.history");
    assert_eq!(bench.rows(Some(2), seg(1, 8)), (6, 200));
    let key = bench.key_of(0, "00000002.history");
    bench.stores[0].delete(&key).unwrap();
    assert_eq!(bench.rows(Some(2), seg(1, 8)), (6, 200));
    // A later history says what it must have said.
    bench.put_history(0, 3, &format!("{text}2\t{}\tx\n", at(12, 0)));
    assert_eq!(bench.rows(Some(2), seg(1, 8)), (1, 0));
}

#[test]
fn histories_of_children_prove_what_existed() {
    let bench = Bench::new(1);
    bench.put(0, seg(1, 4));
    promoted(&bench);
    for missing in [5, 9] {
        assert_eq!(bench.rows(Some(1), seg(1, missing)), (5, 200), "{missing}");
    }
    assert_eq!(bench.rows(Some(1), seg(1, 10)), (9, 1));
    bench.damage(0, "00000002.history");
    assert_eq!(bench.rows(Some(1), seg(1, 10)), (5, 200));
}

#[test]
fn histories_are_served_as_stored_or_as_implied() {
    let bench = Bench::new(2);
    let text = promoted(&bench);
    let recovery = Bench::question(Asker::Recovery, None);
    let ask = |timeline| {
        let given = bench.ask(&recovery, WalFileName::History(tli(timeline)));
        (given.answer.row, given.answer.exit_code(Asker::Recovery))
    };
    assert_eq!(ask(2), (10, 0));
    assert_eq!(bench.served(), text.as_bytes());
    assert_eq!(ask(3), (12, 1));
    bench.put(1, seg(3, 12));
    assert_eq!(ask(3), (11, 200));
    bench.put_history(1, 3, &format!("{text}\n2\t{}\tbefore 2026\n", at(12, 0)));
    let key = bench.key_of(0, "00000002.history");
    bench.damage(0, "00000002.history");
    assert_eq!(ask(2), (10, 0));
    assert_eq!(bench.served(), text.as_bytes());
    bench.stores[0].delete(&key).unwrap();
    assert_eq!(ask(2), (10, 0));
    assert_eq!(bench.served(), text.as_bytes());
    bench.damage(1, "00000003.history");
    assert_eq!(ask(2), (11, 200));
    assert_eq!(ask(3), (2, 200));
    assert_eq!(ask(4), (12, 1));
}

#[test]
fn small_files_come_when_there_is_one_and_are_refused_when_there_are_several() {
    let bench = Bench::new(1);
    let name = WalFileName::BackupHistory(seg(1, 5), 40);
    let copier = Bench::question(Asker::Copier, None);
    let code = || bench.ask(&copier, name).answer.exit_code(Asker::Copier);
    assert_eq!(code(), 1);
    bench.with_wal(0, |wal| store_backup_history(wal, seg(1, 5), 40, b"one", &env()).unwrap());
    assert_eq!((code(), bench.served()), (0, b"one".to_vec()));
    bench.with_wal(0, |wal| store_backup_history(wal, seg(1, 5), 40, b"two", &env()).unwrap());
    assert_eq!(code(), 200);
    bench.put_partial(0, seg(1, 6), 4096);
    let given = bench.ask(&copier, WalFileName::Partial(seg(1, 6)));
    assert!(matches!(given.answer.verdict, Verdict::Serve { .. }));
    assert_eq!(bench.served(), contents(seg(1, 6), 1));
}

#[test]
fn a_segment_that_is_there_costs_few_calls_and_no_listing() {
    let bench = Bench::new(1);
    bench.put(0, seg(1, 5));
    let counting = FaultyStore::counting(bench.stores[0].clone());
    let question = Bench::question(Asker::Recovery, Some(1));
    bench.ask_stores(&question, WalFileName::Segment(seg(1, 5)), vec![Some(Arc::new(counting.clone()))]);
    let log = counting.log();
    assert!(log.iter().all(|call| !call.starts_with("list") && !call.starts_with("folder")), "{log:?}");
    assert!(log.len() <= 4, "{log:?}");
}

/// Everything that a recovery may meet, with what it must be given when nothing fails.
fn scenarios() -> Vec<(&'static str, Bench, Question, WalFileName)> {
    let recovery = |target| Bench::question(Asker::Recovery, target);
    let mut all = Vec::new();
    let bench = Bench::new(2);
    bench.put(0, seg(1, 5));
    bench.put(1, seg(1, 5));
    all.push(("present", bench, recovery(None), WalFileName::Segment(seg(1, 5))));
    let bench = Bench::new(2);
    bench.put(1, seg(1, 7));
    all.push(("gap", bench, recovery(None), WalFileName::Segment(seg(1, 5))));
    let bench = Bench::new(2);
    bench.put(1, seg(1, 700));
    all.push(("wide gap", bench, recovery(None), WalFileName::Segment(seg(1, 5))));
    let bench = Bench::new(2);
    promoted(&bench);
    bench.put(1, seg(1, 9));
    all.push(("fork", bench, recovery(Some(2)), WalFileName::Segment(seg(1, 9))));
    let bench = Bench::new(2);
    promoted(&bench);
    all.push(("lost before the fork", bench, recovery(Some(1)), WalFileName::Segment(seg(1, 5))));
    let bench = Bench::new(2);
    bench.put_partial(0, seg(1, 5), 5000);
    bench.put_tail(1, seg(1, 5), 4000, 9000);
    all.push(("pieces", bench, recovery(None), WalFileName::Segment(seg(1, 5))));
    let bench = Bench::new(2);
    let text = promoted(&bench);
    bench.put_history(1, 3, &format!("{text}2\t{}\tx\n", at(12, 0)));
    bench.damage(0, "00000002.history");
    all.push(("implied", bench, recovery(None), WalFileName::History(tli(2))));
    let bench = Bench::new(2);
    bench.put(1, seg(3, 5));
    all.push(("history missing", bench, recovery(None), WalFileName::History(tli(2))));
    all
}

#[test]
fn a_fault_at_any_call_never_ends_a_recovery_and_never_gives_wrong_bytes() {
    for (label, bench, question, name) in scenarios() {
        let right = bench.ask(&question, name);
        let bytes = bench.target().exists().then(|| bench.served());
        assert_ne!(right.answer.exit_code(Asker::Recovery), 1, "{label}");
        for faulty in 0..bench.stores.len() {
            let stores = |broken: &FaultyStore<MemoryStore>| {
                (0..bench.stores.len())
                    .map(|index| -> Option<Arc<dyn Store>> {
                        if index == faulty {
                            Some(Arc::new(broken.clone()))
                        } else {
                            Some(Arc::new(bench.stores[index].clone()))
                        }
                    })
                    .collect::<Vec<_>>()
            };
            let counting = FaultyStore::counting(bench.stores[faulty].clone());
            bench.ask_stores(&question, name, stores(&counting));
            for kind in [StoreErrorKind::Unavailable, StoreErrorKind::Denied] {
                for fault in Fault::ALL {
                    for call in 0..counting.calls() {
                        for only in [true, false] {
                            let inner = bench.stores[faulty].clone();
                            let broken = if only {
                                FaultyStore::failing_only(inner, call, fault)
                            } else {
                                FaultyStore::failing_from(inner, call, fault)
                            };
                            let given = bench.ask_stores(&question, name, stores(&broken.with_kind(kind)));
                            let code = given.answer.exit_code(Asker::Recovery);
                            let told =
                                format!("{label}: call {call} of repo{} {fault:?} {kind:?}", faulty + 1);
                            assert_ne!(code, 1, "{told}: {:?}", given.answer);
                            assert_eq!(code == 0, bench.target().exists(), "{told}");
                            if code == 0 {
                                assert_eq!(Some(bench.served()), bytes, "{told}: other bytes");
                            }
                        }
                    }
                }
            }
        }
    }
}
