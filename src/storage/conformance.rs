//! The contract of [`Store`] as tests, the same for every implementation and wrapper.

use super::faulty::FaultyStore;
use super::memory::MemoryStore;
use super::posix::PosixStore;
use super::retry::{RetryPolicy, RetryStore};
use super::*;
use std::collections::BTreeSet;
use std::sync::{Arc, Barrier};

pub(super) fn key(name: &str) -> Key {
    Key::new(name).unwrap()
}

pub(super) fn kind<T: fmt::Debug>(result: Result<T, StoreError>) -> StoreErrorKind {
    result.expect_err("this should have failed").kind
}

pub(super) fn listed(store: &dyn Store, folder: &str) -> BTreeSet<(String, u64)> {
    let mut all = BTreeSet::new();
    store
        .list(&key(folder), &mut |l| {
            assert!(all.insert((l.key.to_string(), l.size.as_u64())), "{} was listed twice", l.key);
        })
        .unwrap();
    all
}

fn pairs(expected: &[(&str, u64)]) -> BTreeSet<(String, u64)> {
    expected.iter().map(|(k, s)| ((*k).to_owned(), *s)).collect()
}

fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

const ANY: ByteCount = ByteCount::mib(1024);

/// Runs every part of the contract on one empty store.
pub(super) fn check(store: &Arc<dyn Store>) {
    check_with(store, 32, 100);
}

/// The same, with so many creators of one name, and so many rounds of creating and deleting beside each other: over a
/// network each costs. (SeaweedFS lets those who lose a race wait for a lock, for seconds where there are many.)
pub(super) fn check_with(store: &Arc<dyn Store>, racers: u64, rounds: u32) {
    create_then_same_then_taken(&**store);
    objects_of_every_size_come_back(&**store);
    every_allowed_key_works(&**store);
    listings_show_everything_below_and_nothing_beside(&**store);
    a_listing_of_many(&**store);
    a_listing_of_folders_with_neighbours(&**store);
    reads_end_where_the_object_ends(&**store);
    what_is_absent(&**store);
    delete_frees_the_name(&**store);
    pending_shows_only_when_committed(&**store);
    racing_creators(store, racers, 20);
    creates_and_deletes_of_neighbours_do_not_disturb_each_other(store, rounds);
    assert_eq!(store.remove_leftovers().unwrap(), 0);
    assert!(!store.describe().is_empty());
}

fn create_then_same_then_taken(store: &dyn Store) {
    let k = key("first/object");
    assert_eq!(store.create(&k, b"one").unwrap(), Created::New);
    assert_eq!(store.create(&k, b"one").unwrap(), Created::Same);
    for other in [&b"two"[..], b"on", b"ones", b""] {
        assert_eq!(kind(store.create(&k, other)), StoreErrorKind::Taken);
    }
    assert_eq!(store.read(&k, ANY).unwrap(), b"one");
    store.make_durable(&k).unwrap();
    assert_eq!(store.create(&key("at-the-top"), b"t").unwrap(), Created::New);
    assert_eq!(store.read(&key("at-the-top"), ANY).unwrap(), b"t");
    store.make_durable(&key("at-the-top")).unwrap();
}

fn objects_of_every_size_come_back(store: &dyn Store) {
    for size in [0, 1, 4095, 256 * 1024 - 1, 256 * 1024, 256 * 1024 + 1, 17 * 1024 * 1024 + 3] {
        let bytes = noise(size, size as u64);
        let k = key(&format!("sizes/{size}"));
        assert_eq!(store.create(&k, &bytes).unwrap(), Created::New);
        assert_eq!(store.create(&k, &bytes).unwrap(), Created::Same);
        assert!(store.read(&k, ByteCount::new(size as u64)).unwrap() == bytes);
        assert_eq!(store.size(&k).unwrap(), Some(ByteCount::new(size as u64)));
        if size > 0 {
            assert_eq!(kind(store.read(&k, ByteCount::new(size as u64 - 1))), StoreErrorKind::Unsupported);
            let mut other = bytes.clone();
            *other.last_mut().unwrap() ^= 1;
            assert_eq!(kind(store.create(&k, &other)), StoreErrorKind::Taken);
            let mut pending = store.begin(&k).unwrap();
            pending.write(&other).unwrap();
            assert_eq!(kind(pending.commit()), StoreErrorKind::Taken);
        }
        assert!(store.read(&k, ANY).unwrap() == bytes);
    }
}

fn every_allowed_key_works(store: &dyn Store) {
    let long = format!("odd/{}/{}/e", "x".repeat(250), "y".repeat(250));
    let names = [
        "odd/a.b",
        "odd/...",
        "odd/-",
        "odd/_",
        "odd/.hidden",
        "odd/A",
        "odd/walden-",
        "odd/a-b.tail/0-1",
        &long,
    ];
    for name in names {
        assert_eq!(store.create(&key(name), name.as_bytes()).unwrap(), Created::New, "{name}");
    }
    for name in names {
        assert_eq!(store.read(&key(name), ANY).unwrap(), name.as_bytes());
    }
    let expected: Vec<_> = names.iter().map(|name| (*name, name.len() as u64)).collect();
    assert_eq!(listed(store, "odd"), pairs(&expected));
}

fn listings_show_everything_below_and_nothing_beside(store: &dyn Store) {
    for name in ["l/a/b", "l/a-b", "l/a/c/d/e", "l/a.b/c", "l/a0", "la", "l-a/b", "l/ab/x"] {
        store.create(&key(name), name.as_bytes()).unwrap();
    }
    assert_eq!(listed(store, "l/a"), pairs(&[("l/a/b", 5), ("l/a/c/d/e", 9)]));
    assert_eq!(listed(store, "l/a/c"), pairs(&[("l/a/c/d/e", 9)]));
    assert_eq!(
        listed(store, "l"),
        pairs(&[("l/a/b", 5), ("l/a-b", 5), ("l/a/c/d/e", 9), ("l/a.b/c", 7), ("l/a0", 4), ("l/ab/x", 6)])
    );
    // An object is not a folder, nor is nothing.
    assert_eq!(listed(store, "l/a0"), pairs(&[]));
    assert_eq!(listed(store, "l/nothing/here"), pairs(&[]));

    let level = |folder: Option<&str>| {
        let found = store.folder(folder.map(key).as_ref()).unwrap();
        let objects: BTreeSet<_> =
            found.objects.iter().map(|l| (l.key.to_string(), l.size.as_u64())).collect();
        assert_eq!(objects.len(), found.objects.len());
        let folders: BTreeSet<_> = found.folders.iter().cloned().collect();
        assert_eq!(folders.len(), found.folders.len());
        (objects, folders)
    };
    let (objects, folders) = level(Some("l"));
    assert_eq!(objects, pairs(&[("l/a-b", 5), ("l/a0", 4)]));
    assert_eq!(folders, ["a", "a.b", "ab"].map(str::to_owned).into());
    let (objects, folders) = level(None);
    assert!(objects.contains(&("la".to_owned(), 2)));
    assert!(folders.contains("l") && folders.contains("l-a") && !folders.contains("la"));
    assert!(folders.iter().all(|name| !name.starts_with(OWN_PREFIX)));
    assert_eq!(level(Some("l/nothing")), (pairs(&[]), BTreeSet::new()));
    assert_eq!(level(Some("l/a0")), (pairs(&[]), BTreeSet::new()));
}

fn a_listing_of_many(store: &dyn Store) {
    let name = |i: u64| format!("many/{}/{i:06}", i % 3);
    std::thread::scope(|scope| {
        for worker in 0..8 {
            scope.spawn(move || {
                for i in (0_u64..1205).filter(|i| i % 8 == worker) {
                    store.create(&key(&name(i)), &vec![b'x'; usize::try_from(i % 7).unwrap()]).unwrap();
                }
            });
        }
    });
    let expected: BTreeSet<_> = (0_u64..1205).map(|i| (name(i), i % 7)).collect();
    assert_eq!(listed(store, "many"), expected);
    assert_eq!(store.folder(Some(&key("many/1"))).unwrap().objects.len(), 402);
}

/// As WAL lies, with names beside each folder that stand before it or behind it, as the store's order has it.
fn a_listing_of_folders_with_neighbours(store: &dyn Store) {
    let mut names = BTreeSet::new();
    for timeline in 1..=3 {
        let timeline = format!("deep/{timeline:08X}");
        names.extend([".history", "-x", "0"].map(|beside| format!("{timeline}{beside}")));
        for folder in 0..5 {
            let folder = format!("{timeline}/{folder:016X}");
            names.extend([".index", "-x", "0"].map(|beside| format!("{folder}{beside}")));
            for segment in 0..4 {
                let segment = format!("{folder}/{segment:024X}");
                names.extend(
                    ["", ".partial-0", ".tail/0-1-w", ".tail-x"].map(|tail| format!("{segment}{tail}")),
                );
            }
        }
    }
    let names: Vec<String> = names.into_iter().collect();
    std::thread::scope(|scope| {
        for part in names.chunks(names.len().div_ceil(8)) {
            scope.spawn(move || part.iter().for_each(|name| _ = store.create(&key(name), b"x").unwrap()));
        }
    });
    let expected: BTreeSet<_> = names.iter().map(|name| (name.clone(), 1)).collect();
    assert_eq!(listed(store, "deep"), expected);
    let one = "deep/00000002";
    let below = |(name, _): &&(String, u64)| name.starts_with(&format!("{one}/"));
    assert_eq!(listed(store, one), expected.iter().filter(below).cloned().collect());
    // From points in a folder, a store shows what is behind them by either order, and nothing before.
    for point in ["deep/00000002/0000000000000003/-", "deep/00000001/0000000000000000/-", "deep/00000003/z"] {
        let Some(shown) = store.list_after(&key("deep"), &key(point)).unwrap() else { return };
        let shown: BTreeSet<String> = shown.iter().map(|listed| listed.key.to_string()).collect();
        for name in &names {
            let by_folder = name.split('/').cmp(point.split('/'));
            match (name.as_str().cmp(point), by_folder) {
                (one, other) if one.is_gt() && other.is_gt() => {}
                (one, other) if one.is_le() && other.is_le() => {
                    assert!(!shown.contains(name), "{name}: {point}")
                }
                _ => {}
            }
        }
        assert!(shown.iter().all(|name| expected.contains(&(name.clone(), 1))));
    }
    let point = key("deep/00000003/0000000000000004/-");
    let shown = store.list_after(&key("deep"), &point).unwrap().unwrap_or_default();
    assert!(shown.iter().any(|listed| listed.key.as_str().starts_with("deep/00000003/0000000000000004/")));
}

fn reads_end_where_the_object_ends(store: &dyn Store) {
    let k = key("ranges/o");
    store.create(&k, b"0123456789").unwrap();
    let range = |range: Range<u64>| store.read_range(&k, range).unwrap();
    assert_eq!(range(0..10), b"0123456789");
    assert_eq!(range(3..5), b"34");
    assert_eq!(range(9..10), b"9");
    assert_eq!(range(8..100), b"89");
    assert_eq!(range(5..u64::MAX), b"56789");
    for empty in [0..0, 4..4, 10..10, 10..20, 11..20, u64::MAX - 1..u64::MAX] {
        assert_eq!(range(empty.clone()), b"", "{empty:?}");
    }
    #[allow(clippy::reversed_empty_ranges, reason = "this is the case")]
    let backwards = 5..3;
    assert_eq!(range(backwards), b"");
    let ten = ByteCount::new(10);
    assert_eq!(store.read_end(&k, 3).unwrap(), (b"789".to_vec(), ten));
    assert_eq!(store.read_end(&k, 0).unwrap(), (vec![], ten));
    assert_eq!(store.read_end(&k, 10).unwrap(), (b"0123456789".to_vec(), ten));
    assert_eq!(store.read_end(&k, u64::MAX).unwrap(), (b"0123456789".to_vec(), ten));
    let empty = key("ranges/empty");
    store.create(&empty, b"").unwrap();
    assert_eq!(store.read_range(&empty, 0..5).unwrap(), b"");
    assert_eq!(store.read_end(&empty, 5).unwrap(), (vec![], ByteCount::ZERO));
}

fn what_is_absent(store: &dyn Store) {
    store.create(&key("absent/folder/object"), b"x").unwrap();
    // Nowhere, a folder, and below an object.
    for name in ["absent/a", "no/such/folder", "absent/folder", "absent/folder/object/below"] {
        let k = key(name);
        assert_eq!(kind(store.read(&k, ANY)), StoreErrorKind::NotFound, "{name}");
        assert_eq!(kind(store.read_range(&k, 0..1)), StoreErrorKind::NotFound, "{name}");
        assert_eq!(kind(store.read_end(&k, 1)), StoreErrorKind::NotFound, "{name}");
        assert_eq!(store.size(&k).unwrap(), None, "{name}");
        store.delete(&k).unwrap();
    }
    assert_eq!(store.read(&key("absent/folder/object"), ANY).unwrap(), b"x");
}

fn delete_frees_the_name(store: &dyn Store) {
    let k = key("gone/deep/down");
    for round in 0..3_u8 {
        assert_eq!(store.create(&k, &[round]).unwrap(), Created::New);
        store.create(&key("gone/stays"), b"").unwrap();
        store.delete(&k).unwrap();
        assert_eq!(kind(store.read(&k, ANY)), StoreErrorKind::NotFound);
        assert_eq!(listed(store, "gone"), pairs(&[("gone/stays", 0)]));
        store.delete(&k).unwrap();
    }
}

fn pending_shows_only_when_committed(store: &dyn Store) {
    let k = key("pending/folder/o");
    let bytes = noise(3_000_000, 7);
    {
        let mut dropped = store.begin(&k).unwrap();
        dropped.write(&bytes).unwrap();
    }
    let mut one = store.begin(&k).unwrap();
    let mut two = store.begin(&k).unwrap();
    let mut other = store.begin(&k).unwrap();
    for piece in bytes.chunks(70_001) {
        one.write(piece).unwrap();
    }
    two.write(b"").unwrap();
    two.write(&bytes).unwrap();
    other.write(&bytes[1..]).unwrap();
    assert_eq!(listed(store, "pending"), pairs(&[]));
    assert_eq!(store.size(&k).unwrap(), None);
    assert_eq!(one.commit().unwrap(), Created::New);
    assert_eq!(two.commit().unwrap(), Created::Same);
    assert_eq!(kind(other.commit()), StoreErrorKind::Taken);
    assert!(store.read(&k, ANY).unwrap() == bytes);
    assert_eq!(store.create(&k, &bytes).unwrap(), Created::Same);
    let nothing = store.begin(&key("pending/nothing")).unwrap();
    assert_eq!(nothing.commit().unwrap(), Created::New);
    assert_eq!(listed(store, "pending"), pairs(&[("pending/folder/o", 3_000_000), ("pending/nothing", 0)]));
}

pub(super) fn racing_creators(store: &Arc<dyn Store>, racers: u64, rounds: u32) {
    for round in 0..rounds {
        let k = key(&format!("race/{racers}/{round}/o"));
        let start = Barrier::new(usize::try_from(racers).unwrap());
        let outcomes: Vec<_> = std::thread::scope(|scope| {
            let racers: Vec<_> = (0..racers)
                .map(|racer| {
                    let (k, start) = (&k, &start);
                    scope.spawn(move || {
                        let bytes = noise(5000, racer);
                        start.wait();
                        if racer % 2 == 0 {
                            store.create(k, &bytes)
                        } else {
                            let mut pending = store.begin(k).unwrap();
                            pending.write(&bytes).unwrap();
                            pending.commit()
                        }
                    })
                })
                .collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).collect()
        });
        let won: Vec<u64> = (0..).zip(&outcomes).filter(|(_, o)| o.is_ok()).map(|(racer, _)| racer).collect();
        assert_eq!(won.len(), 1, "{outcomes:?}");
        for outcome in outcomes {
            match outcome {
                Ok(created) => assert_eq!(created, Created::New),
                Err(e) => assert_eq!(e.kind, StoreErrorKind::Taken, "{e:?}"),
            }
        }
        assert_eq!(store.read(&k, ANY).unwrap(), noise(5000, won[0]));
    }
}

fn creates_and_deletes_of_neighbours_do_not_disturb_each_other(store: &Arc<dyn Store>, rounds: u32) {
    std::thread::scope(|scope| {
        for worker in 0..4 {
            scope.spawn(move || {
                for round in 0..rounds {
                    let k = key(&format!("neighbours/deep/{}/{worker}", round % 2));
                    assert_eq!(store.create(&k, b"x").unwrap(), Created::New);
                    assert_eq!(store.read(&k, ANY).unwrap(), b"x");
                    store.list(&key("neighbours"), &mut |_| ()).unwrap();
                    store.delete(&k).unwrap();
                }
            });
        }
    });
    assert_eq!(listed(&**store, "neighbours"), pairs(&[]));
}

#[test]
fn wrappers_keep_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let posix = FaultyStore::counting(PosixStore::open(dir.path()).unwrap());
    check(&(Arc::new(posix.clone()) as Arc<dyn Store>));
    assert!(posix.calls() > 1000);
    check(&(Arc::new(RetryStore::new(MemoryStore::new(), RetryPolicy::default())) as Arc<dyn Store>));
    let dir = tempfile::tempdir().unwrap();
    let posix = PosixStore::open(dir.path()).unwrap();
    check(&(Arc::new(RetryStore::new(posix, RetryPolicy::default())) as Arc<dyn Store>));
}

#[test]
fn memory_keeps_the_contract() {
    check(&(Arc::new(MemoryStore::new()) as Arc<dyn Store>));
}

#[test]
fn posix_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    check(&(Arc::new(PosixStore::open(dir.path()).unwrap()) as Arc<dyn Store>));
    let left = std::fs::read_dir(dir.path().join(".walden-tmp")).unwrap().count();
    assert_eq!(left, 0, "temporary files are left");
}
