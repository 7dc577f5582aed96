//! A small repository in memory: what is done to it is noticed, whatever fails on the way.

use super::*;
use crate::env::Fixed;
use crate::postgres::history::TimelineHistory;
use crate::repo::Cluster;
use crate::repo::frame::{Compression, DATA_FRAME, EncodedFrame, FrameEncoder, WAL_FRAME};
use crate::repo::keys::Secret;
use crate::repo::layout;
use crate::repo::map::{Contents, Entry, EntryKind, FrameRun, MapWriter, PackRef};
use crate::repo::notes::{Note, Pin, Says};
use crate::repo::record::{
    Aborted, ClusterState, LineageStep, PageChecksums, Record, Retired, Sizes, Started, UsedPack, Uses,
    WalProof,
};
use crate::storage::faulty::{Fault, FaultyStore};
use crate::storage::memory::MemoryStore;
use crate::storage::{Key, Store};
use crate::units::{BackupKind, Lsn, PgMajor, SegmentSize, Timestamp};
use crate::wal::craft::{Craft, name, system};
use crate::wal::scan::SegmentScan;
use crate::wal::{ClusterWal, ContentHash, write};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::Arc;
use zeroize::Zeroizing;

const MIB: u64 = 1 << 20;

fn env() -> Fixed {
    Fixed::new(Timestamp::from_unix_seconds(1_795_227_660), 5)
}

fn stanza() -> Stanza {
    "shop".parse().unwrap()
}

fn open(store: Arc<dyn Store>) -> Result<Repository, RepoError> {
    Repository::open(store, &|| Ok(Some(Secret::Key(Zeroizing::new([3; 32])))))
}

fn id(number: u8) -> BackupId {
    BackupId::new(Timestamp::from_unix_seconds(1_795_227_660), BackupKind::Full, [number; 13])
}

fn store_segment(repository: &Repository, number: u64, bytes: &[u8]) {
    store_wal(repository, name(1, number, MIB), false, bytes);
}

/// Stores a segment as large as `bytes`, whole or as one that is unfinished.
fn store_wal(repository: &Repository, name: SegmentName, is_partial: bool, bytes: &[u8]) {
    let stanza = stanza();
    let wal = ClusterWal { repo: repository, stanza: &stanza, system: system(7) };
    let mut scan = SegmentScan::new(name);
    scan.feed(bytes).unwrap();
    let size = SegmentSize::new(bytes.len() as u64).unwrap();
    let destination = match is_partial {
        true => write::Destination::Partial(ContentHash::of(bytes)),
        false => write::Destination::Complete,
    };
    let env = crate::env::System;
    let mut writer = write::SegmentWriter::begin(wal, name, destination, size, &env).unwrap();
    let mut encoder = FrameEncoder::new(Compression::Zstd(1), false).unwrap();
    let mut frame = EncodedFrame::default();
    for plain in bytes.chunks(WAL_FRAME) {
        encoder.encode(plain, &mut frame).unwrap();
        writer.append(plain, &mut frame).unwrap();
    }
    writer.finish(&scan.finish().unwrap().info).unwrap().commit().unwrap();
}

/// A backup that starts in segment 3 and ends in segment 4: a relation of three frames and two small files.
fn store_backup(repository: &Repository, id: &BackupId, segments: &[Vec<u8>]) {
    let (stanza, env) = (stanza(), crate::env::System);
    let started = Started {
        backup_id: id.clone(),
        system_identifier: system(7),
        parents: Vec::new(),
        writer: "w".into(),
        wal_floor_lsn: Lsn::new(3 * MIB),
        wal_floor_timeline: TimelineId::FIRST,
        started_at_unix_us: Timestamp::from_unix_seconds(1),
        resume_of: None,
    };
    let draft = repository.begin_backup(&stanza, &started, &env).unwrap();
    let place = layout::pack(&stanza, id, 0).unwrap();
    let mut object = repository.begin(&place, &env).unwrap();
    let mut encoder = FrameEncoder::new(Compression::None, true).unwrap();
    let mut frame = EncodedFrame::default();
    for length in [DATA_FRAME, DATA_FRAME, 8192, 100] {
        encoder.encode(&vec![7; length], &mut frame).unwrap();
        object.append(&mut frame).unwrap();
    }
    let (pending, size) = object.finish_sized(Vec::new()).unwrap();
    pending.commit().unwrap();
    let pack = PackRef { owner: 0, number: 0 };
    let file = |path: &str, size: u64, contents| Entry {
        path: path.into(),
        mode: 0o600,
        mtime: None,
        kind: EntryKind::File { size, contents, damaged_pages: false },
    };
    let shared = |offset| Contents::Shared { pack, frame: 3, offset };
    let runs = vec![FrameRun { pack, first: 0, count: 3 }];
    let relation = Contents::Frames { frame_bytes: DATA_FRAME as u32, runs };
    let relation_size = 2 * DATA_FRAME as u64 + 8192;
    let mut map = MapWriter::new(repository, &stanza, id, &env).unwrap();
    map.push(&file("PG_VERSION", 40, shared(0))).unwrap();
    map.push(&file("base/5/1259", relation_size, relation)).unwrap();
    map.push(&file("postgresql.conf", 60, shared(40))).unwrap();
    let (map, _) = map.finish().unwrap();
    let stop = Lsn::new(4 * MIB + 0x2000);
    let record = Record {
        backup_id: id.clone(),
        system_identifier: system(7),
        timeline: TimelineId::FIRST,
        start_lsn: Lsn::new(3 * MIB + 0x28),
        stop_lsn: stop,
        checkpoint_lsn: Lsn::new(3 * MIB + 0x60),
        started_at_unix_us: Timestamp::from_unix_seconds(1),
        stopped_at_unix_us: Timestamp::from_unix_seconds(2),
        from_standby: false,
        backup_label: String::new(),
        tablespaces: Vec::new(),
        lineage: vec![LineageStep { timeline: TimelineId::FIRST, begin_lsn: Lsn::INVALID }],
        wal_proof: WalProof {
            segment: name(1, 4, MIB),
            until_lsn: stop,
            sha256: layout::hex(&Sha256::digest(&segments[1][..0x2000])),
        },
        cluster: ClusterState {
            server_version_num: 180_000,
            control_version: 1800,
            catalog_version: 1,
            data_checksum_version: 0,
            page_size_bytes: 8192,
            wal_segment_size_bytes: MIB,
            blocks_per_file: 131_072,
        },
        sizes: Sizes { files: 3, database_bytes: relation_size + 100, packs: 1, ..Sizes::default() },
        map,
        page_checksums: PageChecksums::default(),
        configuration_outside: Vec::new(),
        annotations: std::collections::BTreeMap::new(),
        seen: Vec::new(),
        writer: "w".into(),
        walden_version: "0".into(),
    };
    let used = UsedPack { number: 0, size, live_frames: 4, frames: 4 };
    draft.commit(&record, &Uses(vec![(id.clone(), vec![used])]), &env).unwrap();
}

/// Two backups and segments 3 to 6.
fn shelf() -> MemoryStore {
    shelf_of(2, 4)
}

/// A repository, told from others by `seed`, with a cluster whose segments have this size.
fn empty_shelf(seed: u64, segment_size: u64) -> (MemoryStore, Repository) {
    let store = MemoryStore::default();
    let secret = Secret::Key(Zeroizing::new([3; 32]));
    let env = Fixed::new(Timestamp::from_unix_seconds(1_795_227_660), seed);
    let repository = Repository::create(Arc::new(store.clone()), Some(&secret), "memory", &env).unwrap();
    let cluster = Cluster {
        system: system(7),
        major: PgMajor::new(18),
        page_size: 8192,
        segment_size: SegmentSize::new(segment_size).unwrap(),
        blocks_per_file: 131_072,
    };
    repository.add_cluster(&stanza(), &cluster, &env).unwrap();
    (store, repository)
}

/// The same WAL under the name of another timeline.
fn on_timeline(number: u8, segment: &[u8]) -> Vec<u8> {
    let mut bytes = segment.to_vec();
    bytes.chunks_mut(8192).for_each(|page| page[4] = number);
    bytes
}

fn half(segment: &[u8]) -> Vec<u8> {
    let mut bytes = segment.to_vec();
    bytes[segment.len() / 2..].fill(0);
    bytes
}

/// Two of everything that may lie beside two backups and the segments of a timeline: notes, a second timeline with its
/// history, and on it unfinished segments, tails and `.backup` files; backups that were removed or aborted.
fn full_shelf(seed: u64) -> MemoryStore {
    let (store, repository) = empty_shelf(seed, MIB);
    let (stanza, env) = (stanza(), env());
    let wal = ClusterWal { repo: &repository, stanza: &stanza, system: system(7) };
    let segments = Craft::chain(7, 3, MIB, 6, 1);
    for (number, bytes) in (3..7).zip(&segments) {
        store_segment(&repository, number, bytes);
    }
    for number in 1..=4 {
        store_backup(&repository, &id(number), &segments);
    }
    for number in [3, 4] {
        let retired = Retired {
            backup_id: id(number),
            why: "it was asked for".into(),
            by: "walden expire".into(),
            retired_at_unix_us: Timestamp::from_unix_seconds(9),
            walden_version: "0".into(),
        };
        repository.retire(&stanza, &id(number), &retired, &env).unwrap();
    }
    for number in [5, 6] {
        let aborted = Aborted { why: "it was stopped".into(), writer: "w".into() };
        repository.give_up(&stanza, &id(number), &aborted, &env).unwrap();
    }
    for number in [1, 2] {
        let note = Note::new(&id(number), None, Says::Pin(Pin::default()), "0", &env).unwrap();
        repository.write_note(&stanza, &note, &env).unwrap();
    }
    for (timeline, history) in [(2, "1\t0/700000\tno\n"), (3, "1\t0/700000\tno\n2\t0/880000\tno\n")] {
        let parsed = TimelineHistory::parse(TimelineId::new(timeline).unwrap(), history.as_bytes()).unwrap();
        write::store_history(wal, history.as_bytes(), &parsed, &env).unwrap();
    }
    store_wal(&repository, name(2, 7, MIB), false, &on_timeline(2, &segments[4]));
    let last = on_timeline(2, &segments[5]);
    store_wal(&repository, name(2, 8, MIB), true, &half(&last));
    let mut less = half(&last);
    less[0x10000..].fill(0);
    store_wal(&repository, name(2, 8, MIB), true, &less);
    for (from, to) in [(0, 0x8000), (0x8000, 0x10000)] {
        let bytes = &last[from as usize..to];
        write::store_tail(wal, name(2, 8, MIB), from, bytes, "w", Compression::None, &env).unwrap();
    }
    for offset in [0x28, 0x60] {
        write::store_backup_history(wal, name(1, 3, MIB), offset, b"START WAL LOCATION", &env).unwrap();
    }
    store
}

/// So many backups, and so many segments from number 3 on.
fn shelf_of(backups: u8, segments: u64) -> MemoryStore {
    let (store, repository) = empty_shelf(5, MIB);
    let segments = Craft::chain(7, 3, MIB, segments, 1);
    for (number, bytes) in (3..).zip(&segments) {
        store_segment(&repository, number, bytes);
    }
    for number in 1..=backups {
        store_backup(&repository, &id(number), &segments);
    }
    store
}

/// Does something when a phase begins.
struct Meddler<F>(F);

impl<F: Fn(Phase) + Sync> Observer for Meddler<F> {
    fn interrupted(&self) -> bool {
        false
    }
    fn read(&self, _: u64) {}
    fn phase(&self, phase: Phase, _: Option<ByteCount>) {
        (self.0)(phase);
    }
}

fn run(store: Arc<dyn Store>, scope: Scope, meddle: impl Fn(Phase) + Sync) -> Result<Verified, VerifyError> {
    let repository = open(store)?;
    let spool = tempfile::tempdir().unwrap();
    let request = Request {
        repository: &repository,
        stanza: &stanza(),
        scope,
        workers: 2,
        max_rate: None,
        spool: spool.path().to_owned(),
    };
    verify(&request, &env(), &Meddler(meddle))
}

fn everything(store: &MemoryStore) -> Verified {
    run(Arc::new(store.clone()), Scope::Everything, |_| {}).unwrap()
}

fn all_problems(verified: &Verified) -> Vec<Problem> {
    let backups = verified.backups.iter().map(|one| &one.findings);
    let findings = backups.chain(verified.timelines.iter().map(|one| &one.findings));
    findings.chain([&verified.general]).flat_map(Findings::problems).cloned().collect()
}

fn key(name: impl Into<String>) -> Key {
    Key::new(name).unwrap()
}

fn bytes(store: &MemoryStore, key: &Key) -> Vec<u8> {
    store.read(key, ByteCount::mib(64)).unwrap()
}

#[test]
fn a_whole_repository_is_good_and_nothing_is_left_over() {
    let store = shelf();
    let verified = everything(&store);
    assert_eq!(all_problems(&verified), []);
    assert_eq!(verified.verdict(), Verdict::Good);
    assert_eq!((verified.backups.len(), verified.backups[0].files), (2, 3));
    assert_eq!((verified.timelines.len(), verified.timelines[0].segments), (1, 4));
    assert_eq!(verified.strays, Strays::default());
    let one = run(Arc::new(store.clone()), Scope::Backup(id(1)), |_| {}).unwrap();
    assert_eq!((one.backups.len(), one.timelines[0].segments, one.verdict()), (1, 2, Verdict::Good));
    let (first, last) = (name(1, 4, MIB), name(1, 5, MIB));
    let some = run(Arc::new(store), Scope::Wal(first, last), |_| {}).unwrap();
    assert_eq!((some.backups.len(), some.timelines[0].segments, some.verdict()), (0, 2, Verdict::Good));
}

#[test]
fn nothing_is_called_good_when_any_call_of_the_store_fails() {
    let store = shelf_of(1, 2);
    let all = std::env::var_os("WALDEN_TEST_ALL").is_some();
    for scope in [Scope::Everything, Scope::Backup(id(1)), Scope::Wal(name(1, 3, MIB), name(1, 4, MIB))] {
        let counting = FaultyStore::counting(store.clone());
        run(Arc::new(counting.clone()), scope.clone(), |_| {}).unwrap();
        let calls = counting.calls();
        assert!(calls > 8, "{calls}");
        // The other scopes ask the same in part.
        let faults = if all || scope == Scope::Everything { &Fault::ALL[..] } else { &Fault::ALL[..1] };
        for &fault in faults {
            for at in 0..calls {
                for faulty in [
                    FaultyStore::failing_only(store.clone(), at, fault),
                    FaultyStore::failing_from(store.clone(), at, fault),
                ] {
                    if let Ok(verified) = run(Arc::new(faulty), scope.clone(), |_| {}) {
                        let problems = all_problems(&verified);
                        assert_ne!(verified.verdict(), Verdict::Good, "{scope:?}, call {at} ({fault:?})");
                        // And nothing that is whole is called damaged.
                        let damaged = problems.iter().find(|problem| problem.wrong == Wrong::Damaged);
                        assert_eq!(damaged, None, "{scope:?}, call {at} ({fault:?})");
                    }
                }
            }
        }
    }
}

/// What is done to an object.
#[derive(Debug)]
enum Mutilation {
    Flipped(usize),
    Halved,
    Emptied,
    Removed,
    /// Another of its kind lies in its place.
    Swapped(Key),
    /// That of another repository, with the same name and the same key, does.
    Foreign,
}

/// What an object is, by its name: siblings are of one kind.
fn kind(key: &Key) -> String {
    let name = key.as_str();
    let kinds = [
        "/cluster/",
        ".1-started",
        ".2-outcome",
        ".3-retired",
        ".9-",
        "/pack-",
        "/map-",
        ".part/",
        ".partial-",
        ".tail/",
        ".backup-",
        ".history",
    ];
    let of_it = kinds.into_iter().find(|kind| name.contains(kind));
    of_it.unwrap_or("segment").to_owned()
}

/// Whether nothing is left that tells that this was ever there. What is stored says so of everything else.
fn leaves_no_trace(key: &Key, last_segment: &str) -> bool {
    let name = key.as_str();
    match kind(key).as_str() {
        // Notes are told by their names alone, and so is that a backup was removed: without that it is back, with all
        // it had. Without its outcome a backup is an interrupted one; only what saw it knows better.
        ".9-" | ".3-retired" | ".2-outcome" => true,
        // What PostgreSQL noted for people; and pieces of a segment that no backup rests on.
        ".backup-" | ".partial-" | ".tail/" => true,
        // A timeline of which there is no WAL; of the newest one the last segment, which may not have come yet.
        ".history" => name.ends_with("00000003.history"),
        "segment" => name.ends_with(last_segment),
        // Of backups that do not exist any more.
        ".1-started" | "/pack-" | "/map-" => [3, 4].iter().any(|number| name.contains(id(*number).as_str())),
        _ => false,
    }
}

/// Of a backup that was removed what is left need not be good.
fn is_nobodys(key: &Key) -> bool {
    let of_removed = [3, 4].iter().any(|number| key.as_str().contains(id(*number).as_str()));
    of_removed && kind(key) != ".3-retired"
}

fn mutilations(store: &MemoryStore, key: &Key) -> Vec<Mutilation> {
    let n = bytes(store, key).len();
    let mut all: Vec<Mutilation> = [20, 70, n / 2, n - 1].map(Mutilation::Flipped).into();
    all.extend([Mutilation::Halved, Mutilation::Emptied, Mutilation::Removed, Mutilation::Foreign]);
    let sibling = store.keys().into_iter().find(|other| other != key && kind(other) == kind(key));
    all.extend(sibling.map(Mutilation::Swapped));
    all
}

fn mutilate(store: &MemoryStore, key: &Key, how: &Mutilation, foreign: &MemoryStore) {
    let whole = bytes(store, key);
    let mutilated = match how {
        Mutilation::Removed => return store.delete(key).unwrap(),
        Mutilation::Flipped(at) => {
            let mut bytes = whole;
            bytes[*at] ^= 4;
            bytes
        }
        Mutilation::Halved => whole[..whole.len() / 2].to_vec(),
        Mutilation::Emptied => Vec::new(),
        Mutilation::Swapped(other) => bytes(store, other),
        Mutilation::Foreign => bytes(foreign, key),
    };
    store.overwrite(key, &mutilated);
}

/// Mutilates every object in every way: verify names it, and says what became of it.
fn every_mutilation_is_named(
    store: &MemoryStore,
    foreign: &MemoryStore,
    last_segment: &str,
) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    let clean = everything(store);
    assert_eq!(all_problems(&clean), []);
    for key in store.keys().iter().filter(|key| key.as_str().starts_with("shop/") && !is_nobodys(key)) {
        *kinds.entry(kind(key)).or_default() += 1;
        for how in mutilations(store, key) {
            let store = store.snapshot();
            mutilate(&store, key, &how, foreign);
            let verified = everything(&store);
            let problems = all_problems(&verified);
            let is_removed = matches!(how, Mutilation::Removed);
            if is_removed && leaves_no_trace(key, last_segment) {
                assert_eq!(problems, [], "{key}");
                continue;
            }
            let named = problems.iter().any(|problem| problem.object == key.as_str());
            assert!(named, "{key}, {how:?}: {problems:#?}");
            let expected = if is_removed { Verdict::Incomplete } else { Verdict::Damaged };
            assert_eq!(verified.verdict(), expected, "{key}, {how:?}: {problems:#?}");
        }
    }
    kinds
}

#[test]
fn every_object_of_every_kind_that_is_changed_cut_emptied_lost_swapped_or_foreign_is_named() {
    let kinds = every_mutilation_is_named(&full_shelf(5), &full_shelf(6), "000000020000000000000007");
    assert_eq!(kinds.len(), 12, "{kinds:?}");
}

#[test]
fn parts_of_large_segments_that_are_mutilated_are_named() {
    let shelf = |seed| {
        let (store, repository) = empty_shelf(seed, write::PARTS_FROM);
        for (number, bytes) in (3..).zip(Craft::chain(7, 3, write::PARTS_FROM, 1, 1)) {
            store_wal(&repository, name(1, number, write::PARTS_FROM), false, &bytes);
        }
        store
    };
    let last = "000000010000000000000003";
    let kinds = every_mutilation_is_named(&shelf(5), &shelf(6), last);
    assert_eq!(kinds[".part/"], 4, "{kinds:?}");
    // Without their index they lie about.
    let store = shelf(5);
    store.delete(&store.keys().into_iter().find(|key| key.as_str().ends_with(last)).unwrap()).unwrap();
    assert_eq!(everything(&store).strays.count, 4);
}

#[test]
fn a_tail_that_a_backup_rests_on_is_missed() {
    let (store, repository) = empty_shelf(5, MIB);
    let (stanza, env) = (stanza(), env());
    let wal = ClusterWal { repo: &repository, stanza: &stanza, system: system(7) };
    let segments = Craft::chain(7, 3, MIB, 2, 1);
    store_segment(&repository, 3, &segments[0]);
    let bytes = &segments[1][..0x4000];
    write::store_tail(wal, name(1, 4, MIB), 0, bytes, "w", Compression::None, &env).unwrap();
    store_backup(&repository, &id(1), &segments);
    assert_eq!(everything(&store).verdict(), Verdict::Good, "{:?}", all_problems(&everything(&store)));
    let is_tail = |key: &Key| kind(key) == ".tail/";
    store.delete(&store.keys().into_iter().find(is_tail).unwrap()).unwrap();
    let verified = everything(&store);
    assert_eq!(verified.verdict(), Verdict::Incomplete);
    let segment = layout::segment(&stanza, system(7), name(1, 4, MIB)).unwrap().key;
    assert!(all_problems(&verified).iter().any(|problem| problem.object == segment.as_str()));
}

#[test]
fn the_files_and_pages_in_a_damaged_frame_are_named() {
    let store = shelf();
    let pack = layout::pack(&stanza(), &id(1), 0).unwrap().key;
    let mut whole = bytes(&store, &pack);
    // In the second frame: behind the header, and the first with its tag.
    whole[96 + DATA_FRAME + 16 + 500] ^= 1;
    store.overwrite(&pack, &whole);
    let verified = everything(&store);
    let [newest, oldest] = verified.backups.as_slice() else { panic!("{verified:?}") };
    assert_eq!((newest.findings.verdict(), oldest.findings.verdict()), (Verdict::Good, Verdict::Damaged));
    let problem = &oldest.findings.problems()[0];
    assert_eq!(problem.why, "frame 1 fails its seal");
    let affected = Affected { path: "base/5/1259".into(), blocks: Some((16, 31)) };
    assert_eq!(problem.affected, [affected]);
    // All of the pack: every file that has bytes.
    store.overwrite(&pack, b"x");
    let problems = all_problems(&everything(&store));
    let paths: Vec<&str> = problems[0].affected.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(paths, ["PG_VERSION", "base/5/1259", "postgresql.conf"]);
    assert_eq!(problems[0].affected[1].blocks, Some((0, 32)));
}

#[test]
fn wal_that_is_whole_but_not_of_one_piece_is_damage() {
    let store = shelf();
    let stanza = stanza();
    let place = layout::segment(&stanza, system(7), name(1, 5, MIB)).unwrap();
    store.delete(&place.key).unwrap();
    let gap = everything(&store);
    assert_eq!(gap.timelines[0].findings.verdict(), Verdict::Incomplete);
    assert_eq!(gap.timelines[0].findings.problems()[0].object, place.key.as_str());
    // The backups end before it.
    assert!(gap.backups.iter().all(|one| one.findings.verdict() == Verdict::Good));
    let repository = open(Arc::new(store.clone())).unwrap();
    store_segment(&repository, 5, &Craft::chain(7, 3, MIB, 4, 77_000)[2]);
    let foreign = everything(&store);
    let problems = foreign.timelines[0].findings.problems();
    assert!(problems[0].why.contains("does not go on from"), "{problems:?}");
    assert_eq!(problems[0].object, place.key.as_str());
    // A stop segment of another branch.
    let place = layout::segment(&stanza, system(7), name(1, 4, MIB)).unwrap();
    store.delete(&place.key).unwrap();
    store_segment(&repository, 4, &Craft::chain(7, 3, MIB, 4, 77_000)[1]);
    let foreign = everything(&store);
    assert!(all_problems(&foreign).iter().any(|problem| problem.why.contains("another branch")));
    assert_eq!(foreign.backups[0].findings.verdict(), Verdict::Damaged);
}

#[test]
fn what_expire_takes_away_meanwhile_is_no_damage() {
    // Everything of the first backup goes when its packs are about to be read; then the WAL before the second.
    let store = shelf();
    let meddle = |phase: Phase| {
        let retired = layout::retired(&stanza(), &id(1)).unwrap().key;
        if phase == Phase::Packs {
            store.create(&retired, b"").unwrap();
            for key in store.keys().iter().filter(|key| key.as_str().contains("/data/")) {
                if key.as_str().contains(id(1).as_str()) {
                    store.delete(key).unwrap();
                }
            }
        }
    };
    let verified = run(Arc::new(store.clone()), Scope::Everything, meddle).unwrap();
    assert_eq!(all_problems(&verified), []);
    assert_eq!(verified.not_judged, [(id(1), Standing::RemovedMeanwhile)]);
    assert_eq!(verified.backups.len(), 1);

    // All backups are given up, and the WAL goes with them.
    let store = shelf();
    let meddle = |phase: Phase| {
        if phase == Phase::Wal {
            for number in [1, 2] {
                let key = layout::retired(&stanza(), &id(number)).unwrap().key;
                let _ = store.create(&key, b"");
            }
            let place = layout::segment(&stanza(), system(7), name(1, 4, MIB)).unwrap();
            store.delete(&place.key).unwrap();
        }
    };
    let verified = run(Arc::new(store.clone()), Scope::Everything, meddle).unwrap();
    assert_eq!(all_problems(&verified), []);
    // The same without a word from the catalog is a loss.
    let store = shelf();
    let meddle = |phase: Phase| {
        if phase == Phase::Wal {
            let place = layout::segment(&stanza(), system(7), name(1, 4, MIB)).unwrap();
            store.delete(&place.key).unwrap();
        }
    };
    let verified = run(Arc::new(store.clone()), Scope::Everything, meddle).unwrap();
    assert_eq!(verified.verdict(), Verdict::Incomplete);
    assert!(verified.backups.iter().all(|one| one.findings.verdict() == Verdict::Incomplete));
}

#[test]
fn what_nothing_knows_of_is_a_note_and_what_is_open_is_not_judged() {
    let store = shelf();
    let own = id(1);
    for stray in [
        format!("shop/data/{own}/pack-000009"),
        format!("shop/data/{}/pack-000000", id(9)),
        "shop/catalog/strange".to_owned(),
        "shop/wal/7/00000001/0000000000000000/strange".to_owned(),
        "shop/wal/7/strange".to_owned(),
    ] {
        store.create(&key(stray), b"x").unwrap();
    }
    let started = layout::started(&stanza(), &id(8)).unwrap().key;
    store.create(&started, b"x").unwrap();
    let verified = everything(&store);
    assert_eq!(verified.verdict(), Verdict::Good, "{:#?}", all_problems(&verified));
    assert_eq!(verified.strays.count, 5, "{:?}", verified.strays);
    assert_eq!(verified.not_judged, [(id(8), Standing::Open)]);
}
