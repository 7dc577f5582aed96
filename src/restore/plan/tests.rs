//! Which backup is chosen, along which timeline, and what is refused: over WAL made by hand, an hour a segment.

use super::*;
use crate::env::Fixed;
use crate::postgres::history::TimelineHistory;
use crate::repo::frame::{Compression, EncodedFrame, FrameEncoder, WAL_FRAME};
use crate::repo::record::{
    ClusterState, LineageStep, MapPlace, PageChecksums, Record, Sizes, Started, Uses, WalProof,
};
use crate::restore::reach::Unreachable;
use crate::restore::scan::FoundAt;
use crate::restore::target::TargetTimeline;
use crate::restore::target_time::TargetTime;
use crate::storage::memory::MemoryStore;
use crate::units::{BackupId, BackupKind, Lsn};
use crate::wal::ClusterWal;
use crate::wal::archive::lineage::lineage_of;
use crate::wal::craft::{Craft, name};
use crate::wal::scan::SegmentScan;
use crate::wal::write::{Destination, SegmentWriter, store_history};
use std::sync::Arc;

const MIB: u64 = 1 << 20;
const SYSTEM: SystemIdentifier = SystemIdentifier::new(7);
/// The first record of a segment: behind the long header.
const FIRST: u64 = 40;

fn env() -> Fixed {
    Fixed::new(Timestamp::from_unix_seconds(0), 7)
}

fn size() -> SegmentSize {
    SegmentSize::new(MIB).unwrap()
}

fn timeline(number: u32) -> TimelineId {
    TimelineId::new(number).unwrap()
}

/// So many minutes past hour `hour`.
fn at(hour: u64, minutes: i64) -> Timestamp {
    Timestamp::from_unix_seconds(1_790_000_000 + i64::try_from(hour).unwrap() * 3600 + minutes * 60)
}

/// A repository. Segment n of a timeline holds one transaction, number 100 × timeline + n, which ends at hour n,
/// and the restore point `n`.
struct World {
    repository: Repository,
    stanza: Stanza,
    /// Where the last record of each timeline's newest segment begins.
    last: std::cell::Cell<u64>,
}

impl World {
    fn new() -> Self {
        let repository = Repository::create(Arc::new(MemoryStore::new()), None, "memory", &env()).unwrap();
        Self { repository, stanza: "shop".parse().unwrap(), last: std::cell::Cell::new(0) }
    }

    /// Segments and backups that most tests start from: ten hours, and backups in the second and the sixth.
    fn usual() -> Self {
        let world = Self::new();
        (1..=10).for_each(|number| world.segment(1, number));
        world.backup(1, 2);
        world.backup(1, 6);
        world
    }

    fn segment(&self, on: u32, number: u64) {
        self.segment_named(on, number, &number.to_string());
    }

    fn segment_named(&self, on: u32, number: u64, point: &str) {
        let xid = on * 100 + u32::try_from(number).unwrap();
        let craft = Craft::new(7, number, MIB)
            .timeline(on)
            .after(self.last.get())
            .commit(xid, at(number, 0))
            .restore_point(point, at(number, 1))
            .switch();
        self.last.set(craft.last_record());
        let bytes = craft.bytes();
        let segment = name(on, number, MIB);
        let mut scan = SegmentScan::new(segment);
        scan.feed(&bytes).unwrap();
        let info = scan.finish().unwrap().info;
        let wal = ClusterWal { repo: &self.repository, stanza: &self.stanza, system: SYSTEM };
        let env = env();
        let mut writer = SegmentWriter::begin(wal, segment, Destination::Complete, size(), &env).unwrap();
        let mut encoder = FrameEncoder::new(Compression::Zstd(1), false).unwrap();
        let mut frame = EncodedFrame::default();
        for plain in bytes.chunks(WAL_FRAME) {
            encoder.encode(plain, &mut frame).unwrap();
            writer.append(plain, &mut frame).unwrap();
        }
        writer.finish(&info).unwrap().commit().unwrap();
    }

    /// A backup that begins in segment `first` and ends at the beginning of the next, half an hour later.
    fn backup(&self, on: u32, first: u64) {
        let lineage = [LineageStep { timeline: timeline(1), begin_lsn: Lsn::INVALID }].to_vec();
        self.backup_along(on, first, lineage);
    }

    fn backup_along(&self, on: u32, first: u64, lineage: Vec<LineageStep>) {
        let tag = u8::try_from(first + u64::from(on) * 16).unwrap() & 31;
        let id = BackupId::new(at(first, 0), BackupKind::Full, [tag; 13]);
        let record = Record {
            backup_id: id.clone(),
            system_identifier: SYSTEM,
            timeline: timeline(on),
            start_lsn: Lsn::new(first * MIB + FIRST),
            stop_lsn: Lsn::new((first + 1) * MIB + FIRST),
            checkpoint_lsn: Lsn::new(first * MIB + FIRST),
            started_at_unix_us: at(first, 0),
            stopped_at_unix_us: at(first, 30),
            from_standby: false,
            backup_label: String::new(),
            tablespaces: Vec::new(),
            lineage,
            wal_proof: WalProof {
                segment: name(on, first + 1, MIB),
                until_lsn: Lsn::new((first + 1) * MIB + FIRST),
                sha256: String::new(),
            },
            cluster: ClusterState {
                server_version_num: 180_000,
                control_version: 1800,
                catalog_version: 202_506_291,
                data_checksum_version: 1,
                page_size_bytes: 8192,
                wal_segment_size_bytes: 1 << 20,
                blocks_per_file: 131_072,
            },
            sizes: Sizes::default(),
            map: MapPlace { objects: 1, index_object: 0, index_frame: 0, pages: 1, entries: 1 },
            page_checksums: PageChecksums::default(),
            configuration_outside: Vec::new(),
            annotations: BTreeMap::new(),
            seen: Vec::new(),
            writer: "w".to_owned(),
            walden_version: "0".to_owned(),
        };
        let started = Started {
            backup_id: id,
            system_identifier: SYSTEM,
            parents: Vec::new(),
            writer: "w".to_owned(),
            wal_floor_lsn: record.start_lsn,
            wal_floor_timeline: record.timeline,
            started_at_unix_us: at(first, 0),
            resume_of: None,
        };
        let draft = self.repository.begin_backup(&self.stanza, &started, &env()).unwrap();
        draft.commit(&record, &Uses::default(), &env()).unwrap();
    }

    /// Timeline 2 leaves timeline 1 at the beginning of segment 5 and goes on to hour 8.
    fn fork(&self) {
        let text = format!("1\t{}\tno reason\n", Lsn::new(5 * MIB + FIRST));
        let history = TimelineHistory::parse(timeline(2), text.as_bytes()).unwrap();
        let wal = ClusterWal { repo: &self.repository, stanza: &self.stanza, system: SYSTEM };
        store_history(wal, text.as_bytes(), &history, &env()).unwrap();
        self.last.set(4 * MIB + 200);
        (5..=8).for_each(|number| self.segment(2, number));
    }

    fn decide(&self, goal: Goal) -> Result<Decided, PlanError> {
        self.decide_as(goal, TargetTimeline::Latest, None)
    }

    fn decide_as(
        &self,
        goal: Goal,
        timeline: TargetTimeline,
        set: Option<&str>,
    ) -> Result<Decided, PlanError> {
        let target = Target { goal, exclusive: false, action: None, timeline };
        self.decide_target(target, set)
    }

    fn decide_target(&self, target: Target, set: Option<&str>) -> Result<Decided, PlanError> {
        let repositories = [&self.repository];
        let request = Request {
            repositories: &repositories,
            only: None,
            stanza: &self.stanza,
            target,
            set: set.map(str::to_owned),
            pgdata: PathBuf::from("/nowhere"),
            wal_dir: None,
            tablespaces: TablespaceMap::default(),
            keep_out: Vec::new(),
            owner: None,
            force: false,
            archiving: Archiving::Off,
            recovery_options: Vec::new(),
            program: PathBuf::from("/usr/bin/walden"),
            program_options: Vec::new(),
            now: at(20, 0),
        };
        let candidates = Candidates::read(request.repositories, None, request.stanza);
        let named = request.set.as_deref().map(|set| named(&candidates, set)).transpose()?;
        let size = segment_size(&candidates, SYSTEM)?;
        let union = Union { repositories: request.repositories, stanza: request.stanza, system: SYSTEM };
        let archive = Archive::read(request.repositories, request.stanza, SYSTEM, size);
        let view = View {
            request: &request,
            candidates: &candidates,
            archive: &archive,
            union,
            system: SYSTEM,
            size,
        };
        let (chosen, lineage, reached, needed) = view.way_to(named)?;
        Ok(Decided {
            backup: (chosen.record.timeline.as_u32(), chosen.record.start_lsn.as_u64() / MIB),
            timeline: lineage.timeline().as_u32(),
            reached,
            segments: needed.count(),
        })
    }
}

#[derive(Debug)]
struct Decided {
    /// Timeline and first segment of the backup.
    backup: (u32, u64),
    timeline: u32,
    reached: Reached,
    segments: u64,
}

fn time(moment: Timestamp) -> Goal {
    Goal::Time(TargetTime { at: moment, assumed_zone: None })
}

#[track_caller]
fn archive_ends<T: std::fmt::Debug>(found: Result<T, PlanError>) {
    assert!(
        matches!(found, Err(PlanError::Unreachable { why: Unreachable::ArchiveEnds { .. }, .. })),
        "{found:?}"
    );
}

#[track_caller]
fn gap<T: std::fmt::Debug>(found: Result<T, PlanError>, first: u64, last: u64) {
    match found {
        Err(PlanError::Unreachable { why: Unreachable::Gap { missing, .. }, .. }) => {
            assert_eq!((missing[0].first, missing[0].last), (first, last));
        }
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn too_early<T: std::fmt::Debug>(found: Result<T, PlanError>) {
    assert!(matches!(found, Err(PlanError::TooEarly { .. })), "{found:?}");
}

#[test]
fn a_time_takes_the_newest_backup_that_ended_before_it() {
    let world = World::usual();
    let at_four = world.decide(time(at(4, 10))).unwrap();
    assert_eq!((at_four.backup, at_four.timeline), ((1, 2), 1));
    // Recovery stops at the first transaction that ended later: in segment 5.
    assert_eq!(at_four.reached, Reached::Time { segment: name(1, 5, MIB), until: Lsn::new(6 * MIB) });
    assert_eq!(at_four.segments, 4);
    // The backup of hour 6 ended at half past; its own transaction ended at six.
    assert_eq!(world.decide(time(at(6, 10))).unwrap().backup, (1, 2));
    assert_eq!(world.decide(time(at(6, 50))).unwrap().backup, (1, 6));
    assert_eq!(world.decide(time(at(9, 59))).unwrap().backup, (1, 6));
    too_early(world.decide(time(at(1, 30))));
    // Nothing ended after the last transaction: PostgreSQL would never stop.
    archive_ends(world.decide(time(at(10, 0))));
    archive_ends(world.decide(time(at(11, 0))));
}

#[test]
fn just_before_a_moment_is_reached_where_the_moment_itself_is_not() {
    let world = World::usual();
    let target = |exclusive| Target {
        goal: time(at(10, 0)),
        exclusive,
        action: None,
        timeline: TargetTimeline::Latest,
    };
    archive_ends(world.decide_target(target(false), None));
    let just_before = world.decide_target(target(true), None).unwrap();
    assert_eq!(just_before.reached, Reached::Time { segment: name(1, 10, MIB), until: Lsn::new(11 * MIB) });
}

#[test]
fn a_gap_is_passed_by_no_target_but_those_of_a_later_backup() {
    let world = World::new();
    for number in [1, 2, 3, 6, 7, 8, 9] {
        // The chain of records goes on over what is lost.
        if number == 6 {
            let last = Craft::new(7, 5, MIB).commit(105, at(5, 0)).restore_point("5", at(5, 1)).switch();
            world.last.set(last.last_record());
        }
        world.segment(1, number);
    }
    world.backup(1, 2);
    gap(world.decide(time(at(5, 0))), 4, 5);
    gap(world.decide(Goal::Lsn(Lsn::new(7 * MIB))), 4, 5);
    gap(world.decide(Goal::EndOfArchive), 4, 5);
    assert_eq!(world.decide(time(at(2, 50))).unwrap().segments, 2);
    assert_eq!(world.decide(Goal::Consistent).unwrap().reached, Reached::Stop(Lsn::new(3 * MIB + FIRST)));
    let not_found = world.decide(Goal::Xid(107));
    assert!(
        matches!(
            &not_found,
            Err(PlanError::Unreachable { why: Unreachable::NotFound { gap: Some(gap), .. }, .. }) if gap.first == 4
        ),
        "{not_found:?}"
    );
    // A standby streams past it.
    assert!(matches!(world.decide(Goal::Standby).unwrap().reached, Reached::End { gap: true, .. }));
    world.backup(1, 7);
    assert_eq!(world.decide(Goal::EndOfArchive).unwrap().backup, (1, 7));
    assert_eq!(world.decide(time(at(8, 30))).unwrap().backup, (1, 7));
    gap(world.decide(time(at(6, 30))), 4, 5);
}

#[test]
fn wal_of_the_backup_itself_that_is_missing_is_named_as_such() {
    let world = World::new();
    for number in [1, 3, 4] {
        world.segment(1, number);
    }
    world.backup(1, 2);
    for goal in [Goal::Consistent, Goal::None, time(at(3, 30)), Goal::Lsn(Lsn::new(4 * MIB))] {
        let found = world.decide(goal);
        assert!(matches!(found, Err(PlanError::BackupWalMissing { .. })), "{found:?}");
    }
}

#[test]
fn positions_transactions_and_names_are_found_behind_the_newest_backup_that_leads_there() {
    let world = World::usual();
    let found = |decided: &Decided| match decided.reached {
        Reached::Found { at: FoundAt { segment, .. }, again } => (segment, again),
        _ => panic!("{decided:?}"),
    };
    for (number, backup) in [(4, 2), (8, 6)] {
        let by_lsn = world.decide(Goal::Lsn(Lsn::new(number * MIB + FIRST))).unwrap();
        let by_xid = world.decide(Goal::Xid(100 + number)).unwrap();
        let by_name = world.decide(Goal::Name(number.to_string())).unwrap();
        for decided in [by_lsn, by_xid, by_name] {
            assert_eq!(decided.backup, (1, backup), "{decided:?}");
            assert_eq!(found(&decided), (name(1, number, MIB), None));
        }
    }
    too_early(world.decide(Goal::Lsn(Lsn::new(2 * MIB + FIRST))));
    archive_ends(world.decide(Goal::Lsn(Lsn::new(11 * MIB))));
    for goal in [Goal::Xid(101), Goal::Xid(4_000), Goal::Name("never".to_owned())] {
        let found = world.decide(goal);
        assert!(
            matches!(found, Err(PlanError::Unreachable { why: Unreachable::NotFound { gap: None, .. }, .. })),
            "{found:?}"
        );
    }
    // An epoch makes no difference.
    assert_eq!(found(&world.decide(Goal::Xid((3 << 32) | 108)).unwrap()).0, name(1, 8, MIB));
}

#[test]
fn recovery_stops_at_the_first_restore_point_of_a_name_and_the_plan_knows_of_another() {
    let world = World::new();
    for number in 1..=6 {
        world.segment_named(1, number, if number % 2 == 0 { "even" } else { "odd" });
    }
    // PostgreSQL would meet the one of hour 2 before this backup is consistent.
    world.backup(1, 2);
    too_early(world.decide(Goal::Name("even".to_owned())));
    world.backup(1, 3);
    let decided = world.decide(Goal::Name("even".to_owned())).unwrap();
    let Reached::Found { at, again: Some(again) } = decided.reached else { panic!("{decided:?}") };
    assert_eq!(at.segment, name(1, 4, MIB));
    assert_eq!(again.as_u64() / MIB, 6);
}

#[test]
fn the_newest_timeline_is_followed_and_an_older_one_only_when_it_is_named() {
    let world = World::usual();
    world.fork();
    // The backup of hour 6 is on the branch that was left; that of hour 2 lies before the fork.
    let newest = world.decide(Goal::EndOfArchive).unwrap();
    assert_eq!((newest.backup, newest.timeline), ((1, 2), 2));
    let on_two = world.decide(time(at(6, 50))).unwrap();
    assert_eq!((on_two.backup, on_two.timeline), ((1, 2), 2));
    assert_eq!(on_two.reached, Reached::Time { segment: name(2, 7, MIB), until: Lsn::new(8 * MIB) });
    let on_one = world.decide_as(time(at(6, 50)), TargetTimeline::Number(timeline(1)), None).unwrap();
    assert_eq!((on_one.backup, on_one.timeline), ((1, 6), 1));
    // Hour 9 was only on the branch that was left.
    archive_ends(world.decide(time(at(9, 0))));
    let own = world.decide_as(Goal::EndOfArchive, TargetTimeline::Current, None).unwrap();
    assert_eq!((own.backup, own.timeline), ((1, 6), 1));
    let unknown = world.decide_as(Goal::EndOfArchive, TargetTimeline::Number(timeline(7)), None);
    let Err(PlanError::UnknownTimeline { known, .. }) = unknown else { panic!("{unknown:?}") };
    assert_eq!(known, [timeline(1), timeline(2)]);
    world.backup_along(
        2,
        6,
        [(1, 0), (2, 5 * MIB + FIRST)]
            .map(|(on, begin)| LineageStep { timeline: timeline(on), begin_lsn: Lsn::new(begin) })
            .to_vec(),
    );
    assert_eq!(world.decide(Goal::EndOfArchive).unwrap().backup, (2, 6));
    assert_eq!(world.decide(time(at(5, 30))).unwrap().backup, (1, 2));
}

#[test]
fn a_newer_timeline_that_nobody_can_place_stops_the_plan_unless_one_is_named() {
    let world = World::usual();
    world.segment(3, 9);
    let stopped = world.decide(Goal::EndOfArchive);
    assert!(
        matches!(stopped, Err(PlanError::TimelineWithoutHistory(newest)) if newest == timeline(3)),
        "{stopped:?}"
    );
    assert!(world.decide_as(Goal::EndOfArchive, TargetTimeline::Number(timeline(1)), None).is_ok());
    // What recovers along the backup's own timeline needs to know of no other.
    assert!(world.decide(Goal::None).is_ok());
}

#[test]
fn a_backup_is_named_by_the_beginning_of_its_id_and_must_lead_to_the_target() {
    let world = World::usual();
    let ids = Candidates::read(&[&world.repository], None, &world.stanza);
    let id = |first: u64| {
        let found = ids.found.iter().find(|one| one.record.start_lsn.as_u64() / MIB == first);
        found.unwrap().record.backup_id.to_string()
    };
    let set = |set: &str, goal| world.decide_as(goal, TargetTimeline::Latest, Some(set));
    assert_eq!(set(&id(2), Goal::EndOfArchive).unwrap().backup, (1, 2));
    assert_eq!(set(&id(2)[..16], time(at(8, 30))).unwrap().backup, (1, 2));
    too_early(set(&id(6), time(at(4, 10))));
    let ambiguous = set("2026", Goal::EndOfArchive);
    assert!(matches!(ambiguous, Err(PlanError::AmbiguousSet { fitting, .. }) if fitting.len() == 2));
    assert!(matches!(set("1999", Goal::EndOfArchive), Err(PlanError::NoSuchSet(_))));
    world.fork();
    let elsewhere = world.decide_as(Goal::EndOfArchive, TargetTimeline::Number(timeline(2)), Some(&id(6)));
    assert!(matches!(elsewhere, Err(PlanError::SetNotOnTimeline { .. })), "{elsewhere:?}");
}

#[test]
fn candidates_are_ordered_by_where_they_end_and_told_apart_by_cluster() {
    let world = World::usual();
    world.fork();
    let candidates = Candidates::read(&[&world.repository, &world.repository], None, &world.stanza);
    assert!(candidates.trouble.is_empty());
    assert_eq!(candidates.found.len(), 4, "each repository's counts");
    let lineage = TimelineHistory::root(timeline(1));
    let along: Vec<(usize, u64)> = candidates
        .along(SYSTEM, &lineage)
        .iter()
        .map(|one| (one.repository, one.record.start_lsn.as_u64() / MIB))
        .collect();
    assert_eq!(along, [(0, 6), (1, 6), (0, 2), (1, 2)]);
    assert!(candidates.along(SystemIdentifier::new(8), &lineage).is_empty());
    assert_eq!(candidates.timelines(SYSTEM), [timeline(1)]);
    assert_eq!(candidates.system(None), Some(SYSTEM));
    assert_eq!(
        candidates.system(Some(at(0, 0))),
        Some(SYSTEM),
        "the oldest there is, so that it can be refused"
    );
    assert_eq!(Candidates::default().system(None), None);
    let only = Candidates::read(&[&world.repository, &world.repository], Some(1), &world.stanza);
    assert!(only.found.iter().all(|one| one.repository == 1));
    assert_eq!(lineage_of(&only.found[0].record), Some(lineage));
}
