//! Schedules of backups and expires over one store, tried exhaustively up to a number of preemptions, and at
//! random beyond.
//!
//! The processes are the real code; what schedules them is the store: every call that others can notice waits for
//! its turn. A listing is two turns, and what was created between them may show or not. After every turn it is
//! looked whether anything that must be there is gone, so each of them is also the end of a process that is left
//! lying for ever.
//!
//! *Exhaustive*, for each of [`CASTS`]: every schedule with so many preemptions, every showing of each listing, and
//! requests that arrive a second time as late as one likes where [`Actor::LateCommit`] is in the cast; a plan is made in
//! one turn. With fewer preemptions ([`PASSES`]) also every reply to a create or a delete that gets lost, one in each
//! schedule; and interruptions while a plan is made.
//!
//! *At random*: casts of up to six, preemptions and lost replies without a limit, in plans as everywhere. Neither
//! half has a process ask again after trouble, reads of packs, or WAL that comes from anybody but a backup.
//!
//! That the search would find a mistake is shown by leaving out steps of the protocol, one at a time.

mod meddled;
mod schedule;
mod world;

use super::step::Step;
use crate::env::Fixed;
use crate::repo::catalog::CommitError;
use crate::repo::layout;
use crate::repo::notes::{Note, Pin, Says};
use crate::repo::{RepoError, Repository};
use crate::storage::faulty::Fault;
use crate::units::{BackupId, Timestamp};
use schedule::{Exhaustive, Freedom, Random, explore};
use std::sync::{Arc, Mutex};
use world::{Actor, Reported, Variant, World};

pub(super) use world::record_for_tests;

/// What is tried together, and with how many preemptions; with one more under `WALDEN_TEST_ALL=1`.
const CASTS: &[(&str, &[Actor], usize)] = &[
    ("a backup builds on one that is removed", &[Actor::BackupB, Actor::ExpireA], 2),
    ("the same, retired by somebody else", &[Actor::SweepAll, Actor::BackupB, Actor::RetireA], 1),
    ("two expires and a backup", &[Actor::BackupB, Actor::ExpireA, Actor::KeepNewest], 1),
    ("a backup looks stuck, and goes on", &[Actor::BackupB, Actor::GiveUpAll, Actor::LateCommit], 1),
    ("one is removed that another was made of", &[Actor::BackupB, Actor::ExpireB, Actor::LateCommit], 1),
    ("a chain", &[Actor::BackupB, Actor::BackupC, Actor::KeepNewest, Actor::LateCommit], 1),
    ("a stuck one that another builds on", &[Actor::BackupB, Actor::BackupC, Actor::GiveUpAll], 1),
    ("what was removed stored nothing", &[Actor::BackupD, Actor::ExpireN], 1),
    ("another branch", &[Actor::BackupOldBranch, Actor::SweepAll, Actor::LateCommit], 1),
];

/// What else may happen in an exhaustive search, and the most preemptions it is tried with; one more as above. All
/// but the first only with three actors at most, else under `WALDEN_TEST_ALL=1`.
const PASSES: &[(&str, Freedom, usize)] = &[
    ("", Freedom { in_plans: false, lost_replies: false }, 2),
    (", one reply lost", Freedom { in_plans: false, lost_replies: true }, 0),
    (", interrupted in plans", Freedom { in_plans: true, lost_replies: false }, 1),
];

fn deep() -> bool {
    std::env::var_os("WALDEN_TEST_ALL").is_some_and(|value| value == "1")
}

/// The first schedule that breaks something, of at most `most`; and how many were tried.
fn search(
    variant: Variant,
    cast: &[Actor],
    preemptions: usize,
    freedom: Freedom,
    most: u64,
) -> (Option<String>, u64) {
    let world = World::of(cast);
    let mut exhaustive = Exhaustive::new(preemptions, 1);
    let mut tried = 0;
    loop {
        tried += 1;
        if let Err(broken) = explore(&world, variant, cast, &mut exhaustive, freedom) {
            return (Some(broken), tried);
        }
        if !exhaustive.next() || tried >= most {
            return (None, tried);
        }
    }
}

#[test]
fn no_schedule_with_few_preemptions_loses_anything() {
    for (name, cast, preemptions) in CASTS {
        for (more, freedom, most) in PASSES {
            // Four at once have tens of thousands of schedules more.
            let (is_first, few) = (more.is_empty(), cast.len() < 4);
            if !is_first && !few && !deep() {
                continue;
            }
            let preemptions = *preemptions.min(most) + usize::from(deep() && (is_first || few));
            let began = std::time::Instant::now();
            let (broken, tried) = search(Variant::Protocol, cast, preemptions, *freedom, u64::MAX);
            println!("{name}{more}: {tried} schedules in {:?}", began.elapsed());
            if let Some(broken) = broken {
                panic!("{name}{more}: {broken}");
            }
        }
    }
}

#[test]
fn no_random_schedule_loses_anything() {
    let schedules = if deep() { 30_000 } else { 800 };
    let world = World::of(Actor::ALL);
    let freedom = Freedom { in_plans: true, lost_replies: true };
    for seed in 0..schedules {
        let mut random = Random::new(seed);
        let cast = random.cast();
        if let Err(broken) = explore(&world, Variant::Protocol, &cast, &mut random, freedom) {
            panic!("seed {seed}: {broken}");
        }
    }
}

#[test]
fn an_expire_that_dies_at_any_call_harms_nothing_and_the_next_finishes() {
    let world = World::new();
    let (undisturbed, calls) = world.expire_all_but_newest(None);
    let undisturbed = undisturbed.keys();
    assert!(calls > 30, "{calls}");
    for at in 0..calls {
        for fault in Fault::ALL {
            for dies in [true, false] {
                let (memory, _) = world.expire_all_but_newest(Some((at, fault, dies)));
                let reported = Reported::done(&['B']);
                world
                    .check(&memory, &reported)
                    .unwrap_or_else(|broken| panic!("{at} {fault:?} {dies}: {broken}"));
                let (memory, _) = world.expire_again(&memory);
                world
                    .check(&memory, &reported)
                    .unwrap_or_else(|broken| panic!("{at} {fault:?} {dies}: {broken}"));
                assert_eq!(memory.keys(), undisturbed, "{at} {fault:?} {dies}");
            }
        }
    }
}

fn pin(repository: &Repository, id: &BackupId) -> Result<(), RepoError> {
    let env = Fixed::new(Timestamp::from_unix_seconds(2000), 77);
    let pin = Note::new(id, None, Says::Pin(Pin::default()), "0", &env).unwrap();
    repository.write_note(&world::stanza(), &pin, &env)
}

#[test]
fn a_pin_that_is_set_while_others_are_being_retired_holds_or_is_told_that_it_is_too_late() {
    let victims = [world::id('A'), world::id('B')];
    let pinned = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&pinned);
    let wanted = victims.clone();
    // When the first of them is about to be retired, somebody pins the other.
    let done = World::new().expire_meddled_with(move |repository, key| {
        let is_retired = |id: &BackupId| *key == layout::retired(&world::stanza(), id).unwrap().key;
        let (mut told, doomed) = (told.lock().unwrap(), wanted.iter().find(|id| is_retired(id)));
        if doomed.is_some() && told.is_empty() {
            let other = wanted.iter().find(|id| !is_retired(id)).unwrap();
            pin(repository, other).unwrap();
            told.push(other.clone());
        }
    });
    let pinned = pinned.lock().unwrap();
    assert_eq!(done.pinned, *pinned, "{done:?}");
    assert!(done.retired.len() == 1 && done.retired != *pinned, "{done:?}");

    // One that comes after its backup was retired fails.
    let late = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&late);
    let done = World::new().expire_meddled_with(move |repository, key| {
        let retired = victims.iter().find(|id| repository.is_retired(&world::stanza(), id).unwrap());
        if let Some(id) = retired.filter(|_| key.as_str().ends_with("-retired")) {
            told.lock().unwrap().push(pin(repository, id));
        }
    });
    assert_eq!((done.retired.len(), done.pinned.len()), (2, 0));
    let late = late.lock().unwrap();
    assert!(matches!(late.as_slice(), [Err(RepoError::Missing { .. })]), "{late:?}");
}

#[test]
fn a_backup_that_was_retired_before_it_was_reported_has_failed() {
    let committed = World::new().commit_retired();
    assert!(matches!(committed, Err(CommitError::Retired)), "{committed:?}");
    let words = committed.unwrap_err().to_string();
    assert_eq!(words, "the backup was removed by another process before it was finished");
}

/// The same at random, for what takes three processes at one moment.
fn search_at_random(variant: Variant, cast: &[Actor], seeds: std::ops::Range<u64>) -> (Option<String>, u64) {
    let world = World::new();
    for seed in seeds.clone() {
        if let Err(broken) = explore(&world, variant, cast, &mut Random::new(seed), Freedom::default()) {
            return (Some(broken), seed);
        }
    }
    (None, seeds.end)
}

#[test]
fn each_step_that_is_left_out_loses_something() {
    let together: &[Actor] = &[Actor::SweepAll, Actor::BackupB, Actor::RetireA];
    let cases: &[(Variant, &[Actor])] = &[
        (Variant::BackupDoesNotLook, &[Actor::BackupB, Actor::ExpireA]),
        (Variant::CommitDoesNotLook, &[Actor::BackupB, Actor::ExpireB]),
        (Variant::Without(Step::SecondListing), together),
        (Variant::Without(Step::RetiredListedFirst), together),
        (Variant::Without(Step::RetireBeforeSweep), &[Actor::ExpireA]),
        (Variant::Without(Step::KeepRetiredNames), &[Actor::BackupB, Actor::ExpireB, Actor::LateCommit]),
        (Variant::Without(Step::KeepForOpen), &[Actor::BackupB, Actor::ExpireA]),
        (Variant::Without(Step::KeepNamesForOpen), &[Actor::BackupD, Actor::ExpireN]),
        (Variant::Without(Step::WinTheOutcome), &[Actor::BackupB, Actor::GiveUpAll]),
        (Variant::Without(Step::FloorsOfOpen), &[Actor::BackupOldBranch, Actor::SweepAll]),
        (Variant::Without(Step::WalListedFirst), &[Actor::SweepAll, Actor::BackupOldBranch]),
    ];
    // One in thousands; the seeds begin a little before one that is known.
    let seeds = |variant| match variant {
        Variant::Without(Step::SecondListing) if !deep() => 4_000..30_000,
        Variant::Without(Step::RetiredListedFirst) if !deep() => 900..30_000,
        _ => 0..30_000,
    };
    for (variant, cast) in cases {
        let began = std::time::Instant::now();
        let (broken, tried) = if cast == &together {
            search_at_random(*variant, cast, seeds(*variant))
        } else {
            search(*variant, cast, 2, Freedom::default(), 20_000)
        };
        let broken = broken.unwrap_or_else(|| panic!("{variant:?}: nothing broke in {tried} schedules"));
        let what = broken.lines().next().unwrap_or_default();
        println!("{variant:?}: schedule {tried} after {:?}: {what}", began.elapsed());
    }
}
