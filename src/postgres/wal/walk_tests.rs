//! The walk against real segments, whose verdicts were recorded beside them.

use super::crossing::{BEGINNING, LONGEST, RecordEnd};
use super::page::Dialect;
use super::reader::{Begin, ReadError, ScanEnd, record_at, record_ending_at, scan};
use super::records::{Known, decode};
use super::segment::Unreadable;
use super::stream::{Record, Unseen};
use super::walk::{Completeness, SegmentWalk, Verdict, walk_segment};
use crate::units::{Lsn, SegmentName, SegmentSize, WalFileName};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ops::ControlFlow;
use std::sync::LazyLock;

const MAJORS: [u16; 5] = [15, 16, 17, 18, 19];
/// Those of which the fixtures hold a chain of segments.
const CHAINED: [u16; 2] = [15, 18];
/// The fixtures are of clusters with segments of 1 MB.
const SIZE: u64 = 1 << 20;

type Segments = BTreeMap<String, Vec<u8>>;

fn dir(major: u16) -> String {
    format!("{}/fixtures/postgres/{major}/wal", env!("CARGO_MANIFEST_DIR"))
}

fn load(major: u16) -> Segments {
    let mut found = Segments::new();
    for entry in std::fs::read_dir(dir(major)).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if let Some(name) = name.strip_suffix(".zst") {
            let packed = std::fs::read(&path).unwrap();
            found.insert(name.to_owned(), zstd::bulk::decompress(&packed, SIZE as usize).unwrap());
        }
    }
    assert!(found.len() >= 4, "{major}: only {} segments", found.len());
    found
}

static SEGMENTS: LazyLock<BTreeMap<u16, Segments>> =
    LazyLock::new(|| MAJORS.iter().map(|m| (*m, load(*m))).collect());

fn name_of(file: &str) -> SegmentName {
    match file.parse().unwrap() {
        WalFileName::Segment(name) | WalFileName::Partial(name) => name,
        other => panic!("{other}"),
    }
}

/// The line that `segment-complete.py` prints, but for what stands after the end.
fn line(file: &str, verdict: &Result<Verdict, Unreadable>) -> String {
    match verdict {
        Err(why) => format!("unreadable {file} {why}"),
        Ok(v) => format!(
            "{} {file} {} records{}, end at {} of {}: {}",
            if v.completeness.is_complete() { "complete" } else { "incomplete" },
            v.records,
            v.last_record.map(|at| format!(", the last at {at}")).unwrap_or_default(),
            v.end,
            v.identity.size.bytes(),
            v.completeness
        ),
    }
}

#[test]
fn every_segment_gets_the_verdict_that_was_recorded() {
    let mut kinds = std::collections::BTreeSet::new();
    for (major, segments) in &*SEGMENTS {
        let recorded = std::fs::read_to_string(format!("{}/verdicts", dir(*major))).unwrap();
        assert_eq!(recorded.lines().count(), segments.len());
        for said in recorded.lines() {
            let said = said.split(", then ").next().unwrap();
            let file = said.split(' ').nth(1).unwrap();
            let verdict = walk_segment(&segments[file], Some(name_of(file)), &mut Unseen);
            assert_eq!(line(file, &verdict), said, "{major}");
            let verdict = verdict.unwrap();
            assert_eq!(verdict.identity.major().unwrap().as_u16(), *major);
            kinds.insert(verdict.completeness.to_string());
        }
    }
    for kind in [
        "the last record is XLOG_SWITCH",
        "the last record goes on in the next segment",
        "one record fills it and goes on in the next segment",
        "no further record",
    ] {
        assert!(kinds.contains(kind), "no fixture shows: {kind} (of {kinds:?})");
    }
}

#[test]
fn any_pieces_give_the_same_verdict_and_the_same_records() {
    for (file, segment) in &SEGMENTS[&18] {
        let see = |pieces: &[usize]| {
            let mut seen = Vec::new();
            let mut visitor = |r: &Record<'_>| {
                seen.push((r.lsn, r.end, r.header, crc32c::crc32c(r.body)));
                ControlFlow::Continue(())
            };
            let mut walk = SegmentWalk::new(Some(name_of(file)));
            let mut rest = &segment[..];
            for piece in pieces.iter().cycle() {
                let (head, tail) = rest.split_at((*piece).min(rest.len()));
                walk.feed(head, &mut visitor).unwrap();
                rest = tail;
                if rest.is_empty() {
                    break;
                }
            }
            let verdict = walk.finish().unwrap();
            (verdict, seen)
        };
        let whole = see(&[SIZE as usize]);
        assert_eq!(whole.0.records, whole.1.len() as u64);
        for pieces in [&[1][..], &[7, 8192], &[8192], &[39, 1, 8191], &[65_536, 3]] {
            assert_eq!(see(pieces), whole, "{file} {pieces:?}");
        }
    }
}

#[test]
fn a_segment_under_another_name_is_refused_before_a_record_is_shown() {
    let (file, segment) = SEGMENTS[&18].iter().next().unwrap();
    let name = name_of(file);
    let mut shown = 0;
    let mut visitor = |_: &Record<'_>| {
        shown += 1;
        ControlFlow::Continue(())
    };
    let other = name.next(SegmentSize::new(SIZE).unwrap()).unwrap();
    assert!(matches!(walk_segment(segment, Some(other), &mut visitor), Err(Unreadable::OtherName { .. })));
    let cut = walk_segment(&segment[..SIZE as usize - 1], Some(name), &mut Unseen);
    assert_eq!(cut, Err(Unreadable::Length { expected: SIZE, found: SIZE - 1 }));
    assert_eq!(walk_segment(&segment[..8191], None, &mut Unseen), Err(Unreadable::TooShort));
    assert_eq!(walk_segment(&[0; 9000], None, &mut Unseen), Err(Unreadable::NotWal));
    assert_eq!(shown, 0);
}

#[test]
fn an_unknown_version_is_walked_all_the_same() {
    let (file, segment) = SEGMENTS[&18].iter().next().unwrap();
    let mut newer = segment.clone();
    for page in newer.chunks_mut(8192).filter(|page| page[0] != 0) {
        page[0] = 0x19;
    }
    let verdict = walk_segment(&newer, Some(name_of(file)), &mut Unseen).unwrap();
    assert!(verdict.completeness.is_complete());
    assert_eq!(verdict.identity.major(), None);
}

/// `pg_waldump`'s lines for the kinds that are decoded, against what is decoded here.
#[test]
fn records_mean_what_pg_waldump_says() {
    for (major, segments) in &*SEGMENTS {
        let text = std::fs::read_to_string(format!("{}/waldump", dir(*major))).unwrap();
        let mut said = BTreeMap::new();
        for line in text.lines() {
            let at = line.split("lsn: ").nth(1).unwrap().split(',').next().unwrap();
            said.insert(at.parse::<Lsn>().unwrap(), line);
        }
        let mut met = BTreeMap::new();
        for (file, segment) in segments.iter().filter(|(file, _)| file.len() == 24) {
            let dialect = Dialect::of_magic(u16::from_le_bytes([segment[0], segment[1]])).unwrap();
            walk_segment(segment, Some(name_of(file)), &mut |r: &Record<'_>| {
                if let Some(known) = decode(dialect, r).unwrap() {
                    met.insert(r.lsn, known);
                }
                ControlFlow::Continue(())
            })
            .unwrap();
        }
        let ours: Vec<_> = met.iter().filter(|(at, _)| !said.contains_key(at)).collect();
        let theirs: Vec<_> = said.iter().filter(|(at, _)| !met.contains_key(at)).collect();
        assert!(ours.is_empty() && theirs.is_empty(), "{major}: only here {ours:#?}, only there {theirs:#?}");
        let mut kinds = std::collections::BTreeSet::new();
        for (at, known) in &met {
            let line = said[at];
            let holds = |what: &str| assert!(line.contains(what), "{major} {at}: no \"{what}\" in {line}");
            let xid = |name: &str, xid: u32| holds(&format!("{name}{xid}"));
            kinds.insert(match known {
                Known::ShutdownCheckPoint(c) | Known::OnlineCheckPoint(c) => {
                    let kind =
                        if matches!(known, Known::OnlineCheckPoint(_)) { "online" } else { "shutdown" };
                    holds(kind);
                    holds(&format!("tli {}; prev tli {};", c.timeline, c.previous_timeline));
                    holds(&format!("xid {}:{};", c.next_xid >> 32, c.next_xid as u32));
                    holds(&format!(
                        "oid {}; multi {}; offset {};",
                        c.next_oid, c.next_multi, c.next_multi_offset
                    ));
                    let redo = line.split("redo ").nth(1).unwrap().split(';').next().unwrap();
                    assert_eq!(redo.parse::<Lsn>().unwrap(), c.redo);
                    "checkpoint"
                }
                Known::CheckPointRedo { wal_level } => {
                    holds(&format!("CHECKPOINT_REDO wal_level {}", wal_level.as_str()));
                    "redo"
                }
                Known::TablespaceCreated { oid, location } => {
                    holds(&format!("CREATE {oid} \"{}\"", String::from_utf8_lossy(location)));
                    "tablespace"
                }
                Known::Switch => {
                    holds("desc: SWITCH");
                    "switch"
                }
                Known::BackupEnd { start } => {
                    holds("desc: BACKUP_END");
                    let named = line.split("BACKUP_END ").nth(1).unwrap().trim();
                    assert_eq!(named.parse::<Lsn>().unwrap(), *start);
                    "backup end"
                }
                Known::RestorePoint { name, .. } => {
                    holds(&format!("RESTORE_POINT {}", String::from_utf8_lossy(name)));
                    "restore point"
                }
                Known::EndOfRecovery { timeline, previous, .. } => {
                    holds(&format!("END_OF_RECOVERY tli {timeline}; prev tli {previous};"));
                    "end of recovery"
                }
                Known::OverwroteRecord { lsn } => {
                    let named = line.split("lsn ").last().unwrap().split(';').next().unwrap();
                    assert_eq!(named.parse::<Lsn>().unwrap(), *lsn);
                    "overwrote"
                }
                Known::ParameterChange { wal_level } => {
                    holds(&format!("wal_level={}", wal_level.as_str()));
                    "parameters"
                }
                Known::Commit(ended) | Known::Abort(ended) => {
                    let verb = if matches!(known, Known::Commit(_)) { "COMMIT" } else { "ABORT" };
                    if ended.prepared {
                        holds(&format!("desc: {verb}_PREPARED {}: {}", ended.xid, stamp(ended.time)));
                        "end of prepared"
                    } else {
                        xid("tx:        ", ended.xid);
                        holds(&format!("desc: {verb} {}", stamp(ended.time)));
                        "end"
                    }
                }
                Known::Prepare { xid: id, time } => {
                    xid("tx:        ", *id);
                    holds(&stamp(*time));
                    "prepare"
                }
            });
        }
        for kind in
            ["checkpoint", "switch", "restore point", "end of prepared", "end", "prepare", "overwrote"]
        {
            assert!(kinds.contains(kind), "{major}: no fixture shows {kind} (of {kinds:?})");
        }
        assert!(kinds.contains("backup end") || !CHAINED.contains(major), "{major}");
    }
}

/// As `pg_waldump` prints a time in UTC.
fn stamp(time: crate::units::Timestamp) -> String {
    let c = time.compact();
    format!(
        "{}-{}-{} {}:{}:{}.{:06} UTC",
        &c[0..4],
        &c[4..6],
        &c[6..8],
        &c[9..11],
        &c[11..13],
        &c[13..15],
        time.as_unix_micros().rem_euclid(1_000_000)
    )
}

/// The segments of timeline 1 as a source, in pieces.
#[allow(clippy::type_complexity)] // It is the shape of `Source`.
fn source(
    major: u16,
) -> impl FnMut(u64, &mut dyn FnMut(&[u8]) -> ControlFlow<()>) -> Result<bool, Infallible> {
    let size = SegmentSize::new(SIZE).unwrap();
    move |number, sink| {
        let found = SEGMENTS[&major].iter().find(|(file, _)| {
            file.len() == 24 && file.starts_with("00000001") && name_of(file).number(size) == Some(number)
        });
        let Some((_, segment)) = found else { return Ok(false) };
        for piece in segment.chunks(50_000) {
            if sink(piece).is_break() {
                break;
            }
        }
        Ok(true)
    }
}

#[test]
fn a_chain_is_followed_across_segments_and_each_record_is_found_by_both_its_ends() {
    let size = SegmentSize::new(SIZE).unwrap();
    for major in CHAINED {
        let first = SEGMENTS[&major].keys().next().unwrap();
        let first = name_of(first).number(size).unwrap();
        let mut seen = Vec::new();
        let mut visitor = |r: &Record<'_>| {
            seen.push((r.lsn, r.end, r.replay_end, r.is_whole()));
            ControlFlow::Continue(())
        };
        let end = scan(Begin::Segment(first), None, size, &mut source(major), &mut visitor).unwrap();
        let ScanEnd::NoMoreSegments { number, valid_up_to } = end else { panic!("{major}: {end:?}") };
        assert!(number >= first + 7, "{major}: only up to {number}");
        assert!(valid_up_to.unwrap() >= size.start_of(number - 1).unwrap());
        assert!(seen.iter().any(|r| !r.3), "the long record is not seen");
        // Some in each segment, the first and last of each among them.
        let mut picked: Vec<_> = seen.iter().step_by(501).collect();
        picked.extend(
            seen.windows(2)
                .filter_map(|w| (size.number_of(w[0].0) != size.number_of(w[1].0)).then_some([&w[0], &w[1]]))
                .flatten(),
        );
        for (lsn, record_end, replay_end, _) in picked {
            let found = record_at(*lsn, size, &mut source(major)).unwrap();
            assert_eq!((found.lsn, found.end), (*lsn, *record_end));
            for stop in [record_end, replay_end] {
                let found = record_ending_at(*stop, Begin::Segment(first), size, &mut source(major)).unwrap();
                assert_eq!(found.lsn, *lsn, "{major}: {stop}");
            }
            let beside = lsn.forward(8).unwrap();
            let missed = record_ending_at(beside, Begin::Record(*lsn), size, &mut source(major));
            assert!(matches!(missed, Err(ReadError::NoRecord { .. })), "{missed:?}");
        }
        let (lsn, ..) = seen[seen.len() / 2];
        let until = scan(Begin::Segment(first), Some(lsn), size, &mut source(major), &mut Unseen);
        assert_eq!(until.unwrap(), ScanEnd::Reached);
        let asked = scan(Begin::Record(lsn), None, size, &mut source(major), &mut |_: &Record<'_>| {
            ControlFlow::Break(())
        });
        assert_eq!(asked.unwrap(), ScanEnd::Asked);
        let missing = record_at(size.start_of(first - 1).unwrap(), size, &mut source(major));
        assert!(matches!(missing, Err(ReadError::Missing { .. })));
    }
}

#[test]
fn an_altered_segment_breaks_the_chain() {
    let size = SegmentSize::new(SIZE).unwrap();
    let first = SEGMENTS[&18].keys().next().unwrap().clone();
    let first = name_of(&first).number(size).unwrap();
    let mut plain = source(18);
    let mut altered = |number: u64, sink: &mut dyn FnMut(&[u8]) -> ControlFlow<()>| {
        plain(number, &mut |bytes| {
            let mut bytes = bytes.to_vec();
            if number == first + 1 {
                bytes[20_000] ^= 4;
            }
            sink(&bytes)
        })
    };
    let end = scan(Begin::Segment(first), None, size, &mut altered, &mut Unseen).unwrap();
    let ScanEnd::Ended { at, .. } = end else { panic!("{end:?}") };
    assert_eq!(size.number_of(at), first + 1);
}

/// Where the walk over a segment of this kind ends, and the segment.
fn examples() -> Vec<(&'static String, &'static Vec<u8>, Verdict)> {
    [15, 18]
        .iter()
        .flat_map(|major| &SEGMENTS[major])
        .map(|(file, s)| (file, s, walk_segment(s, Some(name_of(file)), &mut Unseen).unwrap()))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_cut_segment_counts_as_complete(which: prop::sample::Index, at: prop::sample::Index, stale: bool) {
        let examples = examples();
        let (file, segment, verdict) = which.get(&examples);
        // Not in the last page before the end: see the limit in the module's head.
        let cut = at.index((verdict.end as usize).saturating_sub(8192).max(1));
        let mut other = segment.to_vec();
        if stale {
            let old = &SEGMENTS[&15].values().next().unwrap();
            other[cut..].copy_from_slice(&old[cut..]);
        } else {
            other[cut..].fill(0);
        }
        prop_assume!(other != **segment);
        match walk_segment(&other, Some(name_of(file)), &mut Unseen) {
            Ok(found) => {
                prop_assert!(!found.completeness.is_complete());
                // All that counts as valid is what was there; but for up to 7 bytes of padding behind a record.
                let valid = found.valid_up_to.since(found.identity.start).unwrap() as usize;
                prop_assert!(other[..valid.saturating_sub(7)] == segment[..valid.saturating_sub(7)]);
                prop_assert!(found.records <= verdict.records);
            }
            Err(_) => prop_assert!(cut < 40),
        }
    }

    #[test]
    fn a_changed_bit_is_found_where_it_lies(which: prop::sample::Index, at: prop::sample::Index, bit in 0u8..8) {
        let examples = examples();
        let (file, segment, verdict) = which.get(&examples);
        let place = at.index(verdict.valid_up_to.as_u64().min(verdict.identity.start.as_u64() + verdict.end)
            .saturating_sub(verdict.identity.start.as_u64()).max(1) as usize);
        let mut other = segment.to_vec();
        other[place] ^= 1 << bit;
        let found = walk_segment(&other, Some(name_of(file)), &mut Unseen);
        // In the padding between records, in a page's sysid or padding, and in a record that goes on beyond
        // the segment a bit may change unseen; nowhere else, and never what comes before it.
        if let Ok(found) = found && found.completeness != verdict.completeness {
            prop_assert!(found.valid_up_to.as_u64() <= verdict.identity.start.as_u64() + place as u64 + 8192);
        }
    }

    #[test]
    fn no_bytes_make_the_walk_panic(start in prop::collection::vec(any::<u8>(), 0..400), seed: u64) {
        let mut segment = SEGMENTS[&18].values().next().unwrap().clone();
        let at = (seed % SIZE) as usize;
        for (place, byte) in segment[at..].iter_mut().zip(&start) {
            *place = *byte;
        }
        let dialect = Dialect::of_magic(0xD118).unwrap();
        let _ = walk_segment(&segment, None, &mut |r: &Record<'_>| {
            let _ = decode(dialect, r);
            ControlFlow::Continue(())
        });
        let _ = walk_segment(&start, None, &mut Unseen);
    }
}

#[test]
fn a_partial_of_a_promotion_is_valid_up_to_its_last_record() {
    for (major, segments) in &*SEGMENTS {
        let (file, segment) = segments.iter().find(|(file, _)| file.ends_with(".partial")).unwrap();
        let verdict = walk_segment(segment, Some(name_of(file)), &mut Unseen).unwrap();
        assert!(matches!(verdict.completeness, Completeness::Incomplete(_)), "{major}");
        // The child's first segment holds the same bytes up to the fork.
        let history = format!("{}/../00000002.history", dir(*major));
        let history = super::super::history::TimelineHistory::parse(
            crate::units::TimelineId::new(2).unwrap(),
            &std::fs::read(history).unwrap(),
        )
        .unwrap();
        assert_eq!(history.entries()[0].end, verdict.valid_up_to, "{major}");
        let child = &segments[&file.trim_end_matches(".partial").replacen("00000001", "00000002", 1)];
        let upto = verdict.valid_up_to.since(verdict.identity.start).unwrap() as usize;
        assert_eq!(segment[40..8192 * (upto / 8192)], child[40..8192 * (upto / 8192)]);
    }
}

#[test]
fn a_record_that_crosses_a_border_is_put_together_as_a_walk_over_both_segments_finds_it() {
    let mut joined = 0;
    for major in CHAINED {
        let segments = &SEGMENTS[&major];
        for (file, bytes) in segments {
            let Ok(WalFileName::Segment(name)) = file.parse() else { continue };
            let size = SegmentSize::new(SIZE).unwrap();
            let number = name.number(size).unwrap();
            let before =
                number.checked_sub(1).and_then(|n| SegmentName::from_number(name.timeline(), n, size));
            let Some(first) = before.and_then(|before| segments.get(&before.to_string())) else { continue };
            // What a walk over both finds around the border.
            let mut crossing = None;
            let mut source = |asked: u64, sink: &mut dyn FnMut(&[u8]) -> ControlFlow<()>| {
                let given =
                    if asked == number - 1 { Some(first) } else { (asked == number).then_some(bytes) };
                given.map(|bytes| sink(bytes));
                Ok::<_, Infallible>(given.is_some())
            };
            let border = size.start_of(number).unwrap();
            let mut visitor = |record: &Record<'_>| {
                if record.lsn < border && record.end > border {
                    crossing = Some((record.lsn, record.end, record.header, record.body.to_vec()));
                }
                ControlFlow::Continue(())
            };
            scan(Begin::Segment(number - 1), None, size, &mut source, &mut visitor).unwrap();
            let end = RecordEnd::of(&bytes[..BEGINNING]);
            let found = end.as_ref().and_then(|end| {
                end.join(&first[first.len() - usize::try_from(end.bytes_before()).unwrap()..]).unwrap()
            });
            match (crossing, found) {
                (Some((lsn, end, header, body)), Some(found)) => {
                    assert_eq!((lsn, end, header, body), (found.lsn, found.end, found.header, found.body));
                    joined += 1;
                }
                (Some((.., body)), None) => assert!(body.len() + 24 > LONGEST, "{major} {file}"),
                (None, found) => assert_eq!(found, None, "{major} {file}"),
            }
        }
    }
    assert!(joined > 0, "no record of the fixtures crosses a border");
}
