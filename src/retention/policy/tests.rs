use super::*;
use crate::repo::record::{LineageStep, Record};
use crate::retention::interleavings::record_for_tests;
use crate::units::{Lsn, TimelineId};
use proptest::prelude::*;

/// (cluster, hours ago, full, restorable, pinned)
type Shape = (u64, i64, bool, bool, bool);

const NOW: Timestamp = Timestamp::from_unix_seconds(1_795_254_076);

fn held(at: usize, shape: &Shape) -> Held {
    let (system, hours, full, ..) = *shape;
    let kind = if full { BackupKind::Full } else { BackupKind::Incremental };
    let moment = Timestamp::from_unix_seconds(NOW.as_unix_seconds() - hours * 3600);
    let lsn = u64::try_from(100_000 - hours).unwrap() << 24;
    let record = Record {
        backup_id: BackupId::new(moment, kind, [u8::try_from(at & 31).unwrap(); 13]),
        system_identifier: SystemIdentifier::new(system),
        timeline: TimelineId::FIRST,
        start_lsn: Lsn::new(lsn),
        stop_lsn: Lsn::new(lsn + 1000),
        stopped_at_unix_us: moment,
        lineage: vec![LineageStep { timeline: TimelineId::FIRST, begin_lsn: Lsn::INVALID }],
        ..record_for_tests()
    };
    Held { record, needs: BTreeMap::new() }
}

fn decided(policy: Policy, shapes: &[Shape]) -> Vec<Verdict> {
    let held: Vec<Held> = shapes.iter().enumerate().map(|(at, shape)| held(at, shape)).collect();
    let candidates: Vec<Candidate<'_>> = held
        .iter()
        .zip(shapes)
        .map(|(held, (.., is_restorable, pinned))| Candidate {
            held,
            is_restorable: *is_restorable,
            pinned: pinned.then_some(Pinned::By { reason: None, until: None }),
        })
        .collect();
    let verdicts = decide(policy, NOW, &candidates);
    held.iter().map(|held| verdicts[&held.record.backup_id].clone()).collect()
}

fn stays(policy: Policy, shapes: &[Shape]) -> Vec<bool> {
    decided(policy, shapes).iter().map(|verdict| matches!(verdict, Verdict::Keep(_))).collect()
}

const fn full(count: u32) -> Policy {
    Policy { full: Some(count), window: None }
}

const fn hours(hours: u64) -> Policy {
    Policy { full: None, window: Some(Duration::from_secs(hours * 3600)) }
}

#[test]
fn fulls_are_counted_and_what_was_taken_since_stays() {
    let row = [
        (7, 90, true, true, false),
        (7, 80, false, true, false),
        (7, 70, true, true, false),
        (7, 60, false, true, false),
        (7, 50, true, true, false),
    ];
    assert_eq!(stays(full(2), &row), [false, false, true, true, true]);
    assert_eq!(stays(full(3), &row), [true; 5]);
    assert_eq!(stays(full(9), &row), [true; 5]);
    // One without its WAL is not counted.
    let mut broken = row;
    broken[4].3 = false;
    assert_eq!(stays(full(2), &broken), [true; 5]);
    assert_eq!(stays(full(1), &broken), [false, false, true, true, true]);
    // Nor is anything, as long as there is nothing to count.
    let none = row.map(|(system, hours, ..)| (system, hours, false, true, false));
    assert_eq!(stays(full(1), &none), [true; 5]);
}

#[test]
fn a_window_keeps_the_newest_before_it() {
    let row = [
        (7, 90, true, true, false),
        (7, 80, false, true, false),
        (7, 70, true, true, false),
        (7, 0, true, true, false),
    ];
    assert_eq!(stays(hours(75), &row), [false, true, true, true]);
    assert_eq!(stays(hours(200), &row), [true; 4]);
    let mut broken = row;
    broken[1].3 = false;
    assert_eq!(stays(hours(75), &broken), [true, false, true, true]);
    // Counted from the newest backup: while none comes, none goes.
    assert_eq!(stays(hours(15), &row[..3]), [true, true, true]);
    assert_eq!(stays(hours(5), &row[..3]), [false, true, true]);
}

#[test]
fn of_each_cluster_the_newest_stays_and_the_newest_that_can_be_restored() {
    let row = [
        (6, 90, true, true, false),
        (6, 80, true, true, false),
        (7, 70, true, true, false),
        (7, 60, true, false, false),
        (7, 1, true, true, true),
    ];
    assert_eq!(stays(full(1), &row), [false, true, false, false, true]);
    let row = [(7, 70, true, true, false), (7, 60, true, true, false), (7, 50, true, false, false)];
    assert_eq!(decided(hours(1), &row)[1], Verdict::Keep(vec![Keep::NewestRestorable, Keep::BeginsWindow]));
    assert_eq!(stays(hours(1), &row), [false, true, true]);
}

proptest! {
    /// What is promised, whatever the backups: the window is covered, so many fulls are there, the last stays.
    #[test]
    fn promises_hold(
        shapes in prop::collection::vec((6_u64..8, 0_i64..200, any::<bool>(), any::<bool>(), any::<bool>()), 1..12),
        count in prop::option::of(1_u32..4),
        window in prop::option::of(1_u64..200),
    ) {
        let policy = Policy { full: count, window: window.map(|hours| Duration::from_secs(hours * 3600)) };
        let kept = stays(policy, &shapes);
        let of = |fits: &dyn Fn(&Shape) -> bool, only_kept: bool| {
            shapes.iter().zip(&kept).filter(|(shape, kept)| fits(shape) && (**kept || !only_kept)).count()
        };
        if policy.is_none() {
            prop_assert!(kept.iter().all(|kept| *kept));
        }
        prop_assert!(shapes.iter().zip(&kept).all(|(shape, kept)| !shape.4 || *kept), "a pinned one goes");
        if let Some(count) = count {
            let fulls = |shape: &Shape| shape.2 && shape.3;
            prop_assert!(of(&fulls, true) >= of(&fulls, false).min(count as usize));
        }
        if let Some(window) = window {
            // Each moment of the window that could be reached before can be reached after.
            let window = i64::try_from(window).unwrap();
            let newest_before = |hours: i64, only_kept: bool| {
                let fits = shapes.iter().zip(&kept).filter(|(shape, kept)| shape.3 && shape.1 >= hours && (**kept || !only_kept));
                fits.map(|(shape, _)| shape.1).min()
            };
            for hours in 0..=window {
                prop_assert_eq!(newest_before(hours, false), newest_before(hours, true));
            }
        }
        for system in 6..8 {
            let any = |shape: &Shape| shape.0 == system;
            let restorable = |shape: &Shape| shape.0 == system && shape.3;
            prop_assert!(of(&any, true) >= of(&any, false).min(1));
            prop_assert!(of(&restorable, true) >= of(&restorable, false).min(1));
        }
    }
}
