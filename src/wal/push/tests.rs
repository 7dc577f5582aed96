use super::*;
use crate::env::Fixed;
use crate::repo::frame::{EncodedFrame, FrameEncoder};
use crate::repo::keys::Secret;
use crate::storage::faulty::{Fault, FaultyStore};
use crate::storage::memory::MemoryStore;
use crate::storage::posix::PosixStore;
use crate::storage::{Key, Store};
use crate::units::{ByteCount, Lsn, PgMajor, SegmentName, Timestamp};
use crate::wal::archive::Archive;
use crate::wal::craft::{Craft, name, system};
use crate::wal::info::Verdict;
use crate::wal::read::{
    read_backup_history, read_history, read_history_file, read_partial_into, read_segment_into,
    read_segment_to_places, segment_info,
};
use crate::wal::write::{Destination, SegmentWriter};
use std::sync::{Arc, Barrier};

const MIB: u64 = 1 << 20;

struct Bench {
    directory: tempfile::TempDir,
    stanza: Stanza,
    env: Fixed,
    size: u64,
}

impl Bench {
    fn new(size: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join("pg_wal")).unwrap();
        let env = Fixed::new(Timestamp::from_unix_seconds(0), 7);
        Self { directory, stanza: "shop".parse().unwrap(), env, size }
    }

    fn cluster(&self, id: u64) -> Cluster {
        Cluster {
            system: system(id),
            major: PgMajor::new(18),
            page_size: 8192,
            segment_size: SegmentSize::new(self.size).unwrap(),
            blocks_per_file: 131_072,
        }
    }

    fn repository_on(&self, store: Arc<dyn Store>, secret: Option<&Secret>) -> Repository {
        let repo = Repository::create(store, secret, "memory", &self.env).unwrap();
        repo.add_cluster(&self.stanza, &self.cluster(7), &self.env).unwrap();
        repo
    }

    fn repository(&self) -> Repository {
        self.repository_on(Arc::new(MemoryStore::new()), None)
    }

    fn wal<'a>(&'a self, repo: &'a Repository) -> ClusterWal<'a> {
        ClusterWal { repo, stanza: &self.stanza, system: system(7) }
    }

    #[allow(clippy::disallowed_methods, reason = "a test's file needs not last")]
    fn file(&self, file: &str, contents: &[u8]) -> PathBuf {
        let path = self.directory.path().join("pg_wal").join(file);
        std::fs::write(&path, contents).unwrap();
        path
    }

    fn push(&self, repositories: &[&Repository], file: &str, contents: &[u8]) -> Result<Pushed, PushError> {
        let path = self.file(file, contents);
        self.push_path(repositories, &path, file)
    }

    fn push_path(&self, repositories: &[&Repository], path: &Path, file: &str) -> Result<Pushed, PushError> {
        push(Push {
            repositories,
            stanza: &self.stanza,
            path,
            name: file.parse().unwrap(),
            data_directory: None,
            compression: Compression::Zstd(1),
            env: &self.env,
            stop: &StopFlag::new(),
        })
    }

    fn created(&self, repo: &Repository, file: &str, contents: &[u8]) -> Created {
        let pushed = self.push(&[repo], file, contents).unwrap();
        assert_eq!(pushed.warnings, []);
        pushed.outcomes.into_iter().next().unwrap().unwrap()
    }

    fn trouble(&self, repo: &Repository, file: &str, contents: &[u8]) -> Trouble {
        self.push(&[repo], file, contents).unwrap().outcomes.remove(0).unwrap_err()
    }

    fn read(&self, repo: &Repository, segment: SegmentName) -> Vec<u8> {
        let mut bytes = Vec::new();
        let wal = self.wal(repo);
        let info = read_segment_into(wal, segment, &mut |more| {
            bytes.extend_from_slice(more);
            Ok(())
        })
        .unwrap();
        assert_eq!(info, segment_info(wal, segment).unwrap());
        bytes
    }

    /// A control file of cluster 7 beside the files.
    #[allow(clippy::disallowed_methods, reason = "a test's file needs not last")]
    fn control_file(&self) {
        let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/postgres/18/pg_control");
        let mut bytes = std::fs::read(fixture).unwrap();
        let crc = |bytes: &[u8], end: usize| crc32c::crc32c(&bytes[..end]).to_le_bytes();
        let end = (200..512).find(|end| bytes[*end..end + 4] == crc(&bytes, *end)).unwrap();
        bytes[..8].copy_from_slice(&7_u64.to_le_bytes());
        let sum = crc(&bytes, end);
        bytes[end..end + 4].copy_from_slice(&sum);
        std::fs::create_dir_all(self.directory.path().join("global")).unwrap();
        std::fs::write(self.directory.path().join("global/pg_control"), bytes).unwrap();
    }
}

fn segment(number: u64, size: u64, seed: u64) -> (SegmentName, Vec<u8>) {
    let bytes = Craft::new(7, number, size).commit(3, Timestamp::from_unix_seconds(99)).fill(seed).bytes();
    (name(1, number, size), bytes)
}

#[test]
fn segments_of_every_shape_come_back_and_are_the_same_when_pushed_again() {
    // One frame, several frames on threads, several parts.
    for (size, sealed) in [(MIB, false), (MIB, true), (4 * MIB, true), (8 * MIB, false), (8 * MIB, true)] {
        let bench = Bench::new(size);
        let secret = Secret::generate(&bench.env).unwrap();
        let repo = bench.repository_on(Arc::new(MemoryStore::new()), sealed.then_some(&secret));
        let (name, bytes) = segment(5, size, 1);
        let file = name.to_string();
        assert_eq!(bench.created(&repo, &file, &bytes), Created::New);
        assert!(bench.read(&repo, name) == bytes);
        assert_eq!(bench.created(&repo, &file, &bytes), Created::Same);
        let info = segment_info(bench.wal(&repo), name).unwrap();
        assert_eq!((info.verdict, info.valid, info.page_magic), (Verdict::Complete, size, Some(0xD118)));
        assert_eq!(info.last_commit.unwrap().at, Timestamp::from_unix_seconds(99));
        let view = Archive::read(&[&repo], &bench.stanza, system(7), SegmentSize::new(size).unwrap());
        assert!(view.contains(name));
        let (_, other) = segment(5, size, 2);
        let Trouble::Wal(WalError::Conflict { stored, offered, .. }) = bench.trouble(&repo, &file, &other)
        else {
            panic!("other contents were taken");
        };
        assert_eq!((stored, offered), (ContentHash::of(&bytes), ContentHash::of(&other)));
        assert!(bench.read(&repo, name) == bytes);
    }
}

#[test]
fn what_is_there_already_is_not_compressed_to_its_end() {
    let bench = Bench::new(4 * MIB);
    let (name, bytes) = segment(5, 4 * MIB, 1);
    let store = FaultyStore::counting(MemoryStore::new());
    let repo = bench.repository_on(Arc::new(store.clone()), None);
    bench.created(&repo, &name.to_string(), &bytes);
    let before = store.calls();
    assert_eq!(bench.created(&repo, &name.to_string(), &bytes), Created::Same);
    // Cluster, look, two reads of the footer, durability; a few writes of a draft that was given up.
    assert!(store.calls() - before < 14, "{:?}", &store.log()[before as usize..]);
}

#[test]
fn an_unfinished_segment_lies_beside_and_the_finished_one_gets_the_name() {
    for size in [MIB, 2 * MIB, 8 * MIB] {
        let bench = Bench::new(size);
        let repo = bench.repository();
        let name = name(1, 5, size);
        let open = Craft::new(7, 5, size).recycled().noop(100_000, 1).bytes();
        let pushed = bench.push(&[&repo], &name.to_string(), &open).unwrap();
        assert!(pushed.is_done());
        let [Warning::Unfinished { hash, .. }] = pushed.warnings[..] else { panic!("{:?}", pushed.warnings) };
        let (_, full) = segment(5, size, 1);
        assert_eq!(bench.created(&repo, &name.to_string(), &full), Created::New);
        assert!(bench.read(&repo, name) == full);
        let mut back = Vec::new();
        let info = read_partial_into(bench.wal(&repo), name, hash.short(), &mut |more| {
            back.extend_from_slice(more);
            Ok(())
        })
        .unwrap();
        assert!(back == open);
        assert_eq!(info.verdict, Verdict::Incomplete);
        assert!(info.valid > 100_000 && info.valid < 110_000);
        // PostgreSQL's own .partial of the same, and another: several may coexist.
        let partial = format!("{name}.partial");
        assert_eq!(bench.created(&repo, &partial, &open), Created::Same);
        let longer = Craft::new(7, 5, size).recycled().noop(100_000, 1).noop(9, 2).bytes();
        assert_eq!(bench.created(&repo, &partial, &longer), Created::New);
        assert_eq!(bench.created(&repo, &partial, &longer), Created::Same);
    }
}

#[test]
fn doubt_does_not_park_a_segment() {
    let bench = Bench::new(MIB);
    let repo = bench.repository();
    let (name, mut bytes) = segment(5, MIB, 1);
    bytes[300_000] ^= 1;
    let pushed = bench.push(&[&repo], &name.to_string(), &bytes).unwrap();
    assert!(pushed.is_done() && matches!(pushed.warnings[..], [Warning::Doubtful(_)]));
    assert!(bench.read(&repo, name) == bytes);
    let newer = Craft::new(7, 6, MIB).magic(0xD1FF).noop(50_000, 1).bytes();
    let pushed = bench.push(&[&repo], "000000010000000000000006", &newer).unwrap();
    assert!(pushed.is_done());
    assert_eq!(pushed.warnings, [Warning::UnknownMagic(0xD1FF)]);
    assert!(segment_info(bench.wal(&repo), "000000010000000000000006".parse().unwrap()).is_ok());
}

#[test]
fn the_first_segment_of_a_timeline_begins_with_its_ancestors_pages() {
    let bench = Bench::new(MIB);
    let repo = bench.repository();
    let (_, bytes) = segment(5, MIB, 1);
    assert_eq!(bench.created(&repo, &name(3, 5, MIB).to_string(), &bytes), Created::New);
}

#[test]
fn a_file_that_is_not_the_segment_of_its_name_changes_nothing() {
    let bench = Bench::new(MIB);
    let store = MemoryStore::new();
    let repo = bench.repository_on(Arc::new(store.clone()), None);
    let before = store.keys();
    let (_, bytes) = segment(5, MIB, 1);
    let refused = |file: &str, bytes: &[u8]| bench.push(&[&repo], file, bytes).unwrap_err();
    assert!(matches!(
        refused("000000010000000000000006", &bytes),
        PushError::Segment(Unreadable::OtherName { .. })
    ));
    assert!(matches!(
        refused("000000010000000000000005", &bytes[..1000]),
        PushError::Segment(Unreadable::Length { .. })
    ));
    assert!(matches!(refused("000000010000000000000005", &[]), PushError::Segment(Unreadable::TooShort)));
    let zeros = vec![0; 1 << 20];
    assert!(matches!(refused("000000010000000000000005", &zeros), PushError::Segment(Unreadable::NotWal)));
    let absent = bench.push_path(&[&repo], Path::new("/nowhere/x"), "000000010000000000000005");
    assert!(matches!(absent, Err(PushError::Read { .. })));
    let folder = bench.push_path(&[&repo], bench.directory.path(), "000000010000000000000005");
    assert!(matches!(folder, Err(PushError::Read { .. })));
    assert_eq!(store.keys(), before);
}

#[test]
fn another_clusters_files_are_refused() {
    let bench = Bench::new(MIB);
    let repo = bench.repository();
    let file = "000000010000000000000005";
    let other = Craft::new(8, 5, MIB).fill(1).bytes();
    let Trouble::NotThisCluster { system: found, held } = bench.trouble(&repo, file, &other) else {
        panic!()
    };
    assert_eq!((found, held), (system(8), vec![system(7)]));
    let sixteen = Craft::new(7, 5, 16 * MIB).fill(1).bytes();
    assert!(matches!(bench.trouble(&repo, file, &sixteen), Trouble::OtherSegmentSize { .. }));
    let empty = Repository::create(Arc::new(MemoryStore::new()), None, "memory", &bench.env).unwrap();
    let (_, bytes) = segment(5, MIB, 1);
    assert!(matches!(bench.trouble(&empty, file, &bytes), Trouble::NoStanza));
}

#[test]
fn one_repository_in_trouble_keeps_no_other_from_its_copy() {
    let bench = Bench::new(2 * MIB);
    let (one, three) = (bench.repository(), bench.repository());
    let memory = MemoryStore::new();
    bench.repository_on(Arc::new(memory.clone()), None);
    let (name, bytes) = segment(5, 2 * MIB, 1);
    let calls = {
        let store = FaultyStore::counting(memory.snapshot());
        let repo = Repository::open(Arc::new(store.clone()), &|| Ok(None)).unwrap();
        let opened = store.calls();
        bench.created(&repo, &name.to_string(), &bytes);
        opened..store.calls()
    };
    for at in calls {
        let store = FaultyStore::failing_from(memory.snapshot(), at, Fault::NeverSent);
        let broken = Repository::open(Arc::new(store), &|| Ok(None)).unwrap();
        let pushed = bench.push(&[&one, &broken, &three], &name.to_string(), &bytes).unwrap();
        assert!(!pushed.is_done());
        assert!(pushed.outcomes[0].is_ok() && pushed.outcomes[1].is_err() && pushed.outcomes[2].is_ok());
    }
    assert!(bench.read(&one, name) == bytes && bench.read(&three, name) == bytes);
}

/// Every way in which a push may die, in both forms; then the next one succeeds, and never two contents.
fn dies_everywhere(file: &str, contents: &[u8], size: u64, check: impl Fn(&Bench, &Repository)) {
    let bench = Bench::new(size);
    bench.control_file();
    let secret = Secret::generate(&bench.env).unwrap();
    let memory = MemoryStore::new();
    bench.repository_on(Arc::new(memory.clone()), Some(&secret));
    let text = secret.key_string().unwrap();
    let open = |store: Arc<dyn Store>| Repository::open(store, &|| Secret::parse(&text).map(Some)).unwrap();
    let calls = {
        let store = FaultyStore::counting(memory.snapshot());
        let repo = open(Arc::new(store.clone()));
        let opened = store.calls();
        assert!(bench.push(&[&repo], file, contents).unwrap().is_done());
        let end = store.calls();
        check(&bench, &repo);
        opened..end
    };
    assert!(calls.end - calls.start >= 2);
    for fault in Fault::ALL {
        for at in calls.clone() {
            // With parts there are many calls of the same kinds: dying at each of them is enough.
            let lives = if size >= 8 * MIB { &[true][..] } else { &[true, false] };
            for dead in lives.iter().copied() {
                let left = memory.snapshot();
                let store = if dead {
                    FaultyStore::failing_from(left.clone(), at, fault)
                } else {
                    FaultyStore::failing_only(left.clone(), at, fault)
                };
                let pushed = bench.push(&[&open(Arc::new(store))], file, contents).unwrap();
                assert!(!dead || !pushed.is_done(), "died at {at} ({fault:?}) and reported success");
                let after = open(Arc::new(left.clone()));
                if pushed.is_done() {
                    check(&bench, &after);
                }
                // Whatever shows is whole: every key of the archive opens.
                let again = bench.push(&[&after], file, contents).unwrap();
                assert!(again.is_done(), "after {at} ({fault:?}): {:?}", again.outcomes);
                check(&bench, &after);
            }
        }
    }
}

#[test]
fn wherever_a_push_of_a_segment_dies_the_next_one_settles_it() {
    for size in [MIB, 2 * MIB] {
        let (name, bytes) = segment(5, size, 1);
        dies_everywhere(&name.to_string(), &bytes, size, |bench, repo| {
            assert!(bench.read(repo, name) == bytes);
        });
    }
}

#[test]
fn wherever_a_push_of_a_large_segment_dies_the_next_one_settles_it() {
    let (name, bytes) = segment(1, 8 * MIB, 1);
    dies_everywhere(&name.to_string(), &bytes, 8 * MIB, |bench, repo| {
        assert_eq!(segment_info(bench.wal(repo), name).unwrap().hash, ContentHash::of(&bytes));
    });
}

#[test]
fn wherever_a_push_of_an_unfinished_segment_dies_the_next_one_settles_it() {
    let open = Craft::new(7, 5, 2 * MIB).noop(100_000, 1).bytes();
    let short = ContentHash::of(&open).short();
    dies_everywhere("000000010000000000000005", &open, 2 * MIB, |bench, repo| {
        let name = name(1, 5, 2 * MIB);
        read_partial_into(bench.wal(repo), name, short, &mut |_| Ok(())).unwrap();
        assert!(crate::wal::read::is_missing(&segment_info(bench.wal(repo), name).unwrap_err()));
    });
}

#[test]
fn wherever_a_push_of_a_history_dies_the_next_one_settles_it() {
    let file = b"1\t0/500000\tno recovery target specified\n\n2\t0/700000\tbefore 2026\n";
    dies_everywhere("00000003.history", file, MIB, |bench, repo| {
        let wal = bench.wal(repo);
        let third = TimelineId::new(3).unwrap();
        assert_eq!(read_history_file(wal, third).unwrap(), file);
        let second = read_history(wal, TimelineId::new(2).unwrap()).unwrap();
        assert_eq!(second.entries().len(), 1);
        assert_eq!(second.fork_from(TimelineId::FIRST), Some(Lsn::new(0x50_0000)));
    });
}

#[test]
fn wherever_a_push_of_a_backup_file_dies_the_next_one_settles_it() {
    dies_everywhere("000000010000000000000005.00000028.backup", b"START WAL\n", MIB, |bench, repo| {
        let short = ContentHash::of(b"START WAL\n").short();
        let contents = read_backup_history(bench.wal(repo), name(1, 5, MIB), 0x28, short).unwrap();
        assert_eq!(contents, b"START WAL\n");
    });
}

#[test]
fn histories_that_say_the_same_are_the_same_and_others_are_a_conflict() {
    let bench = Bench::new(MIB);
    bench.control_file();
    let repo = bench.repository();
    let file = "00000003.history";
    let first = b"1\t0/500000\tno recovery target specified\n2\t0/700000\tbefore 2026\n";
    assert_eq!(bench.created(&repo, file, first), Created::New);
    let spaced = b"# by hand\n1\t0/500000\tno recovery target specified\n\n2\t0/700000\tbefore 2026\n";
    assert_eq!(bench.created(&repo, file, spaced), Created::Same);
    // What timeline 3 implied for timeline 2 is what its own server then pushes.
    let second = b"1\t0/500000\tno recovery target specified\n";
    assert_eq!(bench.created(&repo, "00000002.history", second), Created::Same);
    for (file, other) in [
        ("00000003.history", &b"1\t0/500000\tno recovery target specified\n2\t0/700008\tbefore 2026\n"[..]),
        ("00000002.history", b"1\t0/500008\tno recovery target specified\n"),
        // A later timeline that left another timeline 2 than ours.
        ("00000004.history", b"1\t0/500008\tno recovery target specified\n2\t0/700000\tx\n"),
    ] {
        let trouble = bench.trouble(&repo, file, other);
        assert!(matches!(trouble, Trouble::Wal(WalError::HistoryConflict { .. })), "{file}: {trouble}");
    }
    let fourth = read_history(bench.wal(&repo), TimelineId::new(4).unwrap());
    assert!(crate::wal::read::is_missing(&fourth.unwrap_err()));
    for bad in [&b"no history\n"[..], b"1\t0/500000", b"2\t0/500000\tx\n1\t0/500000\ty\n"] {
        assert!(matches!(bench.push(&[&repo], file, bad), Err(PushError::History(_))));
    }
}

#[test]
fn backup_files_with_other_contents_coexist() {
    let bench = Bench::new(MIB);
    bench.control_file();
    let repo = bench.repository();
    let file = "000000010000000000000005.00000028.backup";
    assert_eq!(bench.created(&repo, file, b"one"), Created::New);
    assert_eq!(bench.created(&repo, file, b"two"), Created::New);
    assert_eq!(bench.created(&repo, file, b"one"), Created::Same);
}

#[test]
fn files_without_a_cluster_of_their_own_need_a_control_file() {
    let bench = Bench::new(MIB);
    let repo = bench.repository();
    let history = b"1\t0/500000\tx\n";
    let error = bench.push(&[&repo], "00000002.history", history).unwrap_err();
    assert!(matches!(error, PushError::NoControlFile(_)), "{error}");
    let elsewhere = Bench::new(MIB);
    elsewhere.control_file();
    let path = bench.file("00000002.history", history);
    let pushed = push(Push {
        repositories: &[&repo],
        stanza: &bench.stanza,
        path: &path,
        name: "00000002.history".parse().unwrap(),
        data_directory: Some(elsewhere.directory.path()),
        compression: Compression::None,
        env: &bench.env,
        stop: &StopFlag::new(),
    });
    assert!(pushed.unwrap().is_done());
}

#[test]
fn two_that_race_for_one_name_are_one_winner_and_one_conflict() {
    let size = 2 * MIB;
    let bench = Arc::new(Bench::new(size));
    let name = name(1, 5, size);
    let contents: Vec<Vec<u8>> = (0..2).map(|seed| segment(5, size, seed).1).collect();
    let paths: Vec<PathBuf> = contents
        .iter()
        .enumerate()
        .map(|(at, bytes)| bench.file(&format!("candidate-{at}"), bytes))
        .collect();
    for round in 0..30 {
        let scratch = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = if round % 2 == 0 {
            Arc::new(MemoryStore::new())
        } else {
            Arc::new(PosixStore::open(scratch.path()).unwrap())
        };
        let repo = bench.repository_on(store, None);
        let start = Barrier::new(2);
        let results: Vec<Result<Created, Trouble>> = std::thread::scope(|scope| {
            let racers: Vec<_> = paths
                .iter()
                .map(|path| {
                    scope.spawn(|| {
                        start.wait();
                        bench.push_path(&[&repo], path, &name.to_string()).unwrap().outcomes.remove(0)
                    })
                })
                .collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).collect()
        });
        let winner = results.iter().position(|result| matches!(result, Ok(Created::New))).unwrap();
        let loser = results.iter().find(|result| result.is_err()).expect("both won");
        assert!(matches!(loser, Err(Trouble::Wal(WalError::Conflict { .. }))), "{loser:?}");
        assert!(bench.read(&repo, name) == contents[winner]);
    }
}

#[test]
fn two_that_race_with_equal_contents_both_succeed() {
    let size = 2 * MIB;
    let bench = Bench::new(size);
    let (name, bytes) = segment(5, size, 1);
    let path = bench.file("candidate", &bytes);
    for _ in 0..20 {
        let scratch = tempfile::tempdir().unwrap();
        let repo = bench.repository_on(Arc::new(PosixStore::open(scratch.path()).unwrap()), None);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    assert!(bench.push_path(&[&repo], &path, &name.to_string()).unwrap().is_done());
                });
            }
        });
        assert!(bench.read(&repo, name) == bytes);
    }
}

#[test]
fn damage_of_what_is_stored_is_named_and_never_read_as_whole() {
    for size in [MIB, 4 * MIB, 8 * MIB] {
        let bench = Bench::new(size);
        let store = MemoryStore::new();
        let repo = bench.repository_on(Arc::new(store.clone()), None);
        let (name, bytes) = segment(5, size, 1);
        bench.created(&repo, &name.to_string(), &bytes);
        let placed = std::sync::Mutex::new(vec![0; bytes.len()]);
        let place = |offset: u64, plain: &[u8]| {
            placed.lock().unwrap()[offset as usize..][..plain.len()].copy_from_slice(plain);
            Ok(())
        };
        let info = read_segment_to_places(bench.wal(&repo), name, &place).unwrap();
        assert_eq!(info, segment_info(bench.wal(&repo), name).unwrap());
        assert!(*placed.lock().unwrap() == bytes);
        let held: Vec<Key> = store.keys().into_iter().filter(|key| key.as_str().contains("/wal/")).collect();
        assert_eq!(held.len(), if size == 8 * MIB { 5 } else { 1 });
        for key in &held {
            let whole = store.read(key, ByteCount::mib(64)).unwrap();
            let mut mutations: Vec<Vec<u8>> = vec![Vec::new(), whole[..whole.len() / 2].to_vec()];
            for at in [3, 100, whole.len() / 2, whole.len() - 40] {
                let mut flipped = whole.clone();
                flipped[at] ^= 4;
                mutations.push(flipped);
            }
            // A sibling in its place.
            mutations.extend(
                held.iter().filter(|other| *other != key).map(|o| store.read(o, ByteCount::mib(64)).unwrap()),
            );
            for mutation in mutations {
                store.overwrite(key, &mutation);
                let result = read_segment_into(bench.wal(&repo), name, &mut |_| Ok(()));
                let error = result.expect_err("damage was read as whole");
                assert!(error.to_string().contains(key.as_str()), "{error} does not name {key}");
                let result = read_segment_to_places(bench.wal(&repo), name, &|_, _| Ok(()));
                let error = result.expect_err("damage was read as whole");
                assert!(error.to_string().contains(key.as_str()), "{error} does not name {key}");
            }
            store.delete(key).unwrap();
            let error = read_segment_into(bench.wal(&repo), name, &mut |_| Ok(())).unwrap_err();
            assert!(crate::wal::read::is_missing(&error), "{error}");
            store.overwrite(key, &whole);
        }
    }
}

#[test]
fn frames_that_pass_their_seals_and_are_not_what_the_footer_tells_of_are_damage() {
    let bench = Bench::new(2 * MIB);
    let repo = bench.repository_on(Arc::new(MemoryStore::new()), None);
    let (name, bytes) = segment(5, 2 * MIB, 1);
    let (_, other) = segment(5, 2 * MIB, 2);
    bench.created(&repo, &name.to_string(), &bytes);
    let info = segment_info(bench.wal(&repo), name).unwrap();
    let repo = bench.repository_on(Arc::new(MemoryStore::new()), None);
    let wal = bench.wal(&repo);
    let size = SegmentSize::new(2 * MIB).unwrap();
    let mut writer = SegmentWriter::begin(wal, name, Destination::Complete, size, &bench.env).unwrap();
    let mut encoder = FrameEncoder::new(Compression::Zstd(1), false).unwrap();
    for plain in other.chunks(MIB as usize) {
        let mut frame = EncodedFrame::default();
        encoder.encode(plain, &mut frame).unwrap();
        writer.append(plain, &mut frame).unwrap();
    }
    writer.finish(&info).unwrap().commit().unwrap();
    let error = read_segment_to_places(wal, name, &|_, _| Ok(())).unwrap_err();
    assert!(error.to_string().contains("do not have the hash"), "{error}");
}

#[test]
fn an_interrupt_ends_it_before_anything_is_named() {
    let bench = Bench::new(2 * MIB);
    let store = MemoryStore::new();
    let repo = bench.repository_on(Arc::new(store.clone()), None);
    let (name, bytes) = segment(5, 2 * MIB, 1);
    let path = bench.file("candidate", &bytes);
    let before = store.keys();
    let stop = StopFlag::new();
    stop.request();
    let result = push(Push {
        repositories: &[&repo],
        stanza: &bench.stanza,
        path: &path,
        name: WalFileName::Segment(name),
        data_directory: None,
        compression: Compression::Zstd(1),
        env: &bench.env,
        stop: &stop,
    });
    assert!(matches!(result, Err(PushError::Interrupted)));
    assert_eq!(store.keys(), before);
}
