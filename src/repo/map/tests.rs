use super::*;
use crate::env::Fixed;
use crate::repo::varint::Take;
use crate::units::Timestamp;
use proptest::prelude::*;

fn any_path() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(proptest::collection::vec(prop_oneof![b'a'..=b'c', 128_u8..], 1..6), 1..4)
        .prop_map(|parts| parts.join(&b'/'))
}

fn any_entry() -> impl Strategy<Value = Entry> {
    let pack = || (0_u32..1, 0_u32..1000).prop_map(|(owner, number)| PackRef { owner, number });
    let contents = prop_oneof![
        Just((0, Contents::Empty)),
        (pack(), any::<u32>(), 0_u32..1000, 1_u64..1000)
            .prop_map(|(pack, frame, offset, size)| (size, Contents::Shared { pack, frame, offset })),
        (proptest::collection::vec((pack(), 0_u32..1000, 1_u32..50), 1..5), 0_u64..131_072).prop_map(
            |(runs, short)| {
                let runs: Vec<FrameRun> =
                    runs.into_iter().map(|(pack, first, count)| FrameRun { pack, first, count }).collect();
                let frames: u64 = runs.iter().map(|run| u64::from(run.count)).sum();
                (frames * 131_072 - short, Contents::Frames { frame_bytes: 131_072, runs })
            }
        ),
    ];
    let kind = prop_oneof![
        (contents, any::<bool>()).prop_map(|((size, contents), damaged_pages)| EntryKind::File {
            size,
            contents,
            damaged_pages
        }),
        Just(EntryKind::Directory),
        any::<[u8; 5]>().prop_map(|target| EntryKind::Symlink(target.to_vec())),
    ];
    (any_path(), 0_u32..0o7777, any::<Option<i64>>(), kind).prop_map(|(path, mode, mtime, kind)| Entry {
        path,
        mode,
        mtime,
        kind,
    })
}

proptest! {
    #[test]
    fn entries_come_back_and_no_cut_goes_unseen(entry in any_entry(), noise: Vec<u8>) {
        let mut bytes = Vec::new();
        entry.encode(&mut bytes);
        let mut take = Take::new(&bytes);
        prop_assert_eq!(Entry::decode(&mut take).unwrap(), entry);
        prop_assert_eq!(take.left(), 0);
        for cut in 0..bytes.len() {
            prop_assert!(Entry::decode(&mut Take::new(&bytes[..cut])).is_err());
        }
        let _ = Entry::decode(&mut Take::new(&noise));
    }

    #[test]
    fn entries_are_sorted_the_same_in_memory_and_over_files(
        entries in proptest::collection::vec(any_entry(), 0..60), budget in 200_usize..20_000
    ) {
        let env = Fixed::new(Timestamp::from_unix_seconds(0), 3);
        let spool = tempfile::tempdir().unwrap();
        let mut sorter = EntrySorter::new(spool.path(), budget, &env);
        for entry in &entries {
            sorter.push(entry.clone()).unwrap();
        }
        let sorted: Vec<Entry> = sorter.finish().unwrap().collect::<Result<_, _>>().unwrap();
        let mut paths: Vec<_> = entries.iter().map(|entry| entry.path.clone()).collect();
        paths.sort();
        prop_assert_eq!(sorted.iter().map(|entry| entry.path.clone()).collect::<Vec<_>>(), paths);
        prop_assert!(std::fs::read_dir(spool.path()).unwrap().next().is_none(), "the spool is not empty");
    }
}

#[test]
fn a_path_that_climbs_out_is_refused() {
    for path in ["../x", "/etc/passwd", "a/../b", "a//b", "", "a/", "./a", "a\0b"] {
        let entry = Entry { path: path.into(), mode: 0o600, mtime: None, kind: EntryKind::Directory };
        let mut bytes = Vec::new();
        entry.encode(&mut bytes);
        assert!(Entry::decode(&mut Take::new(&bytes)).is_err(), "{path:?}");
    }
}
