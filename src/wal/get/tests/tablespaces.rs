//! Tablespaces that the replay of a segment would create in another cluster's files.

#![allow(clippy::disallowed_methods, reason = "what a test writes needs not last")]

use super::super::tablespaces::Server;
use super::*;
use crate::storage::faulty::FaultyStore;
use crate::wal::read;
use crate::wal::scan::SegmentScan;
use std::path::Path;

const FOLDER: &str = "PG_18_202506291";

/// A directory in which another cluster has its files.
fn occupied() -> tempfile::TempDir {
    let space = tempfile::tempdir().unwrap();
    std::fs::create_dir(space.path().join(FOLDER)).unwrap();
    space
}

fn server(space: &Path) -> Server {
    Server { data: space.join("data"), version_folder: FOLDER.to_owned(), replays_from: None }
}

/// The body of the record that creates one there.
fn creation(space: &Path) -> Vec<u8> {
    let mut main = 16_400_u32.to_le_bytes().to_vec();
    main.extend_from_slice(space.to_str().unwrap().as_bytes());
    main.push(0);
    Craft::main_data(&main)
}

/// Two segments with that record across their border, so many bytes of it in the first; and where it begins.
fn two(space: &Path, in_first: usize) -> (Vec<u8>, Vec<u8>, Lsn) {
    let first = Craft::new(7, 4, MIB).up_to(in_first).record(5, 0, 9, &creation(space));
    let begins = Lsn::new(first.last_record());
    let (first, second) = first.and_next();
    (first, second.noop(500, 1).fill(2).bytes(), begins)
}

/// Stores a segment as `archive-push` does, with what its records say in the footer.
fn push(bench: &Bench, name: SegmentName, bytes: &[u8]) {
    let mut scan = SegmentScan::new(name);
    scan.feed(bytes).unwrap();
    bench.put_info(0, bytes, &scan.finish().unwrap().info, Destination::Complete);
}

fn asked(bench: &Bench, asker: Asker, target: Option<u32>, name: SegmentName) -> (u8, u8, String) {
    let given = bench.ask(&Bench::question(asker, target), WalFileName::Segment(name));
    let code = given.answer.exit_code(asker);
    assert_eq!(bench.target().exists(), code == 0, "a file shows if and only if the answer is 0");
    let words = match &given.answer.verdict {
        Verdict::Unsure(doubt) => doubt.to_string(),
        _ => String::new(),
    };
    (given.answer.row, code, words)
}

fn rows(bench: &Bench) -> (u8, u8) {
    let (row, code, _) = asked(bench, Asker::Recovery, None, seg(1, 5));
    (row, code)
}

#[test]
fn a_tablespace_created_in_an_unfinished_or_cut_segment_is_noticed_too() {
    let name = seg(1, 5);
    let space = occupied();
    let server = server(space.path());
    let data = creation(space.path());
    let unfinished = Craft::new(7, 5, MIB).noop(50_000, 1).record(5, 0, 9, &data).noop(9000, 2).bytes();
    for partial in [true, false] {
        let mut bench = Bench::new(1);
        if partial {
            bench.put_bytes(0, name, &unfinished, Some((Walked::Incomplete, 60_000)));
        } else {
            bench.put_tail_of(0, name, &unfinished, 0, 60_000);
        }
        assert_eq!(bench.rows(None, name), (8, 0), "nobody else is known to be there");
        bench.server = Some(server.clone());
        assert_eq!(bench.rows(None, name), (16, 200), "partial: {partial}");
    }
    // What lies behind the fork is not replayed: it is cut off, and keeps nobody.
    for (fork, row) in [(51_000, (16, 200)), (40_000, (7, 0))] {
        let mut bench = Bench::new(1);
        bench.server = Some(server.clone());
        bench.put_bytes(0, name, &unfinished, None);
        bench.put_history(0, 2, &format!("1\t{}\tx\n", at(5, fork)));
        assert_eq!(bench.rows(Some(2), name), row, "fork at {fork}");
    }
}

#[test]
fn what_a_record_creates_that_crosses_the_border_is_noticed_with_its_second_segment() {
    let space = occupied();
    let whole = 24 + creation(space.path()).len();
    for in_first in (8..whole).step_by(8) {
        let (first, second, _) = two(space.path(), in_first);
        let mut bench = Bench::new(1);
        push(&bench, seg(1, 4), &first);
        push(&bench, seg(1, 5), &second);
        assert_eq!(bench.rows(None, seg(1, 5)), (1, 0), "nobody else is known to be there");
        bench.server = Some(server(space.path()));
        assert_eq!(bench.rows(None, seg(1, 4)), (1, 0), "the record does not end in it");
        assert_eq!(bench.rows(None, seg(1, 5)), (16, 200), "{in_first} bytes of it in the first");
        let (_, code, words) = asked(&bench, Asker::Standby, None, seg(1, 5));
        assert_eq!(code, 200);
        assert!(words.starts_with("creates tablespace 16400 in /"), "{words}");
    }
    // Where nobody has files it may be created.
    let (first, second, _) = two(Path::new("/nowhere/at all"), 32);
    let mut bench = Bench::new(1);
    push(&bench, seg(1, 4), &first);
    push(&bench, seg(1, 5), &second);
    bench.server = Some(server(space.path()));
    assert_eq!(bench.rows(None, seg(1, 5)), (1, 0));
}

#[test]
fn the_segment_before_is_the_servers_own_copy_or_the_archives() {
    let space = occupied();
    let (first, second, _) = two(space.path(), 40);
    let mut bench = Bench::new(1);
    bench.server = Some(server(space.path()));
    push(&bench, seg(1, 5), &second);
    let own = bench.scratch.path().join(seg(1, 4).to_string());
    std::fs::write(&own, &first).unwrap();
    assert_eq!(rows(&bench), (16, 200));
    // An old file that was renamed for future use, half a file, a folder: as none.
    let recycled = Craft::new(7, 2, MIB).fill(3).bytes();
    for useless in [&recycled[..], &first[..5000], &vec![0; MIB as usize]] {
        std::fs::write(&own, useless).unwrap();
        assert_eq!(rows(&bench), (17, 200), "{} bytes", useless.len());
    }
    // The record is not what was written, so PostgreSQL does not replay it.
    let mut damaged = first.clone();
    let oid = damaged.len() - 40 + 24 + 5;
    damaged[oid] ^= 1;
    std::fs::write(&own, &damaged).unwrap();
    assert_eq!(rows(&bench), (1, 0));
    // Its own pages, and no record that goes on: there is none for PostgreSQL either.
    let (other, _) = Craft::new(7, 4, MIB).up_to(40).noop(100, 1).and_next();
    std::fs::write(&own, other).unwrap();
    assert_eq!(rows(&bench), (1, 0));
    push(&bench, seg(1, 4), &first);
    for useless in [&recycled[..], &first[..5000]] {
        std::fs::write(&own, useless).unwrap();
        assert_eq!(rows(&bench), (16, 200));
    }
    std::fs::remove_file(&own).unwrap();
    std::fs::create_dir(&own).unwrap();
    assert_eq!(rows(&bench), (16, 200));
}

#[test]
fn where_the_segment_before_is_not_to_be_had_nothing_is_given_that_may_do_harm() {
    let space = occupied();
    let (first, second, begins) = two(space.path(), 40);
    let mut bench = Bench::new(2);
    push(&bench, seg(1, 5), &second);
    bench.server = Some(server(space.path()));
    let (row, code, words) = asked(&bench, Asker::Recovery, None, seg(1, 5));
    assert_eq!((row, code), (17, 200));
    assert!(
        words.ends_with(&format!("and {}, in which that begins, is in no repository", seg(1, 4))),
        "{words}"
    );
    assert_eq!(asked(&bench, Asker::Standby, None, seg(1, 5)).1, 1, "a standby asks again");

    push(&bench, seg(1, 4), &first);
    bench.damage(0, &seg(1, 4).to_string());
    let (row, code, words) = asked(&bench, Asker::Recovery, None, seg(1, 5));
    assert_eq!((row, code), (17, 200));
    assert!(words.contains("could not be read from repo1 ("), "{words}");
    // A good copy elsewhere tells.
    bench.put_bytes(1, seg(1, 4), &first, None);
    assert_eq!(rows(&bench), (16, 200));

    // What begins before the point from which replay goes is not replayed.
    let fresh = |from: Lsn, with_first: bool| {
        let mut bench = Bench::new(1);
        push(&bench, seg(1, 5), &second);
        if with_first {
            push(&bench, seg(1, 4), &first);
        }
        bench.server = Some(Server { replays_from: Some(from), ..server(space.path()) });
        rows(&bench)
    };
    assert_eq!(fresh(at(5, 0), false), (1, 0), "an archive that begins there");
    assert_eq!(fresh(at(4, 0), false), (17, 200));
    assert_eq!(fresh(begins, true), (16, 200));
    assert_eq!(fresh(Lsn::new(begins.as_u64() + 8), true), (1, 0));
}

#[test]
fn what_was_created_before_the_point_from_which_replay_goes_keeps_nobody() {
    let space = occupied();
    let craft = Craft::new(7, 5, MIB).noop(50_000, 1).record(5, 0, 9, &creation(space.path()));
    let begins = Lsn::new(craft.last_record());
    let bytes = craft.fill(2).bytes();
    let mut bench = Bench::new(1);
    push(&bench, seg(1, 5), &bytes);
    for (from, row) in [
        (None, (16, 200)),
        (Some(at(5, 0)), (16, 200)),
        (Some(begins), (16, 200)),
        (Some(Lsn::new(begins.as_u64() + 8)), (1, 0)),
    ] {
        bench.server = Some(Server { replays_from: from, ..server(space.path()) });
        assert_eq!(bench.rows(None, seg(1, 5)), row, "{from:?}");
    }
}

#[test]
fn of_a_timelines_first_segment_the_one_before_is_its_ancestors() {
    let space = occupied();
    let (first, second, _) = two(space.path(), 32);
    let mut bench = Bench::new(1);
    bench.server = Some(server(space.path()));
    push(&bench, seg(1, 4), &first);
    push(&bench, seg(2, 5), &second);
    bench.put_history(0, 2, &format!("1\t{}\tx\n", at(5, 90_000)));
    assert_eq!(asked(&bench, Asker::Recovery, Some(2), seg(2, 5)).0, 16);
    // The fork lies in the middle of the record: cut off there, it is none.
    for (fork, row) in [(48, (7, 0)), (50_000, (16, 200))] {
        let mut bench = Bench::new(1);
        bench.server = Some(server(space.path()));
        push(&bench, seg(1, 4), &first);
        push(&bench, seg(1, 5), &second);
        bench.put_history(0, 2, &format!("1\t{}\tx\n", at(5, fork)));
        assert_eq!(bench.rows(Some(2), seg(1, 5)), row, "fork at {fork}");
    }
}

#[test]
fn other_records_cost_no_look_at_the_segment_before() {
    let space = occupied();
    let chain = Craft::chain(7, 4, MIB, 2, 1);
    let (_, short) = Craft::new(7, 4, MIB).up_to(40).noop(100, 1).and_next();
    for second in [chain[1].clone(), short.fill(1).bytes(), Craft::new(7, 5, MIB).fill(1).bytes()] {
        let mut bench = Bench::new(1);
        push(&bench, seg(1, 5), &second);
        let calls = |bench: &Bench| {
            let store = FaultyStore::counting(bench.stores[0].clone());
            let question = Bench::question(Asker::Recovery, None);
            let stores: Vec<Option<Arc<dyn Store>>> = vec![Some(Arc::new(store.clone()))];
            let given = bench.ask_stores(&question, WalFileName::Segment(seg(1, 5)), stores);
            assert_eq!(given.answer.row, 1);
            store.calls()
        };
        let before = calls(&bench);
        bench.server = Some(server(space.path()));
        assert_eq!(calls(&bench), before);
    }
}

#[test]
fn the_end_of_a_segment_is_read_alone_also_of_one_in_parts() {
    for megabytes in [1_u64, 64] {
        let bench = Bench::new(1);
        let size = SegmentSize::new(megabytes << 20).unwrap();
        let name = SegmentName::from_number(tli(1), 3, size).unwrap();
        let mut bytes = vec![0; usize::try_from(size.bytes()).unwrap()];
        let start = bytes.len() - 300_000;
        blake3::Hasher::new().update(b"end").finalize_xof().fill(&mut bytes[start..]);
        bench.with_wal(0, |wal| {
            let env = env();
            let mut writer = SegmentWriter::begin(wal, name, Destination::Complete, size, &env).unwrap();
            let mut encoder = FrameEncoder::new(Compression::Zstd(1), false).unwrap();
            let mut frame = EncodedFrame::default();
            for plain in bytes.chunks(WAL_FRAME) {
                encoder.encode(plain, &mut frame).unwrap();
                writer.append(plain, &mut frame).unwrap();
            }
            let info = SegmentInfo {
                name,
                system: SYSTEM,
                size: size.bytes(),
                hash: ContentHash::of(&bytes),
                verdict: Walked::Complete,
                valid: size.bytes(),
                page_magic: Some(0xD118),
                first_commit: None,
                last_commit: None,
                tablespaces_created: Vec::new(),
            };
            writer.finish(&info).unwrap().commit().unwrap();
            for length in [1, 8192, 300_000, 900_000] {
                let end = read::read_segment_end(wal, name, length).unwrap();
                assert!(end == bytes[bytes.len() - usize::try_from(length).unwrap()..], "{length} bytes");
            }
        });
    }
}
