//! Schedules of backups and expires over one store, tried exhaustively up to a number of preemptions, and at
//! random beyond.
//!
//! The processes are the real code; what schedules them is the store: every call that others can notice waits for
//! its turn. A listing is two turns, and what was created between them may show or not. A process may be
//! left lying for ever at any call; requests may arrive a second time, late; replies may get lost. After every
//! turn it is looked whether anything that must be there is gone.
//!
//! That the search would find a mistake is shown by leaving out steps of the protocol, one at a time.

mod schedule;
mod world;

use super::step::Step;
use crate::storage::faulty::Fault;
use schedule::{Exhaustive, Random, explore};
use world::{Actor, Variant, World};

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
    ("another branch", &[Actor::BackupOldBranch, Actor::SweepAll, Actor::LateCommit], 1),
];

fn deep() -> bool {
    std::env::var_os("WALDEN_TEST_ALL").is_some_and(|value| value == "1")
}

/// The first schedule that breaks something, of at most `most`; and how many were tried.
fn search(variant: Variant, cast: &[Actor], preemptions: usize, most: u64) -> (Option<String>, u64) {
    let world = World::new();
    let mut exhaustive = Exhaustive::new(preemptions);
    let mut tried = 0;
    loop {
        tried += 1;
        if let Err(broken) = explore(&world, variant, cast, &mut exhaustive, false) {
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
        let preemptions = if deep() { preemptions + 1 } else { *preemptions };
        let began = std::time::Instant::now();
        let (broken, tried) = search(Variant::Protocol, cast, preemptions, u64::MAX);
        println!("{name}: {tried} schedules in {:?}", began.elapsed());
        if let Some(broken) = broken {
            panic!("{name}: {broken}");
        }
    }
}

#[test]
fn no_random_schedule_loses_anything() {
    let schedules = if deep() { 30_000 } else { 800 };
    let world = World::new();
    for seed in 0..schedules {
        let mut random = Random::new(seed);
        let cast = random.cast();
        if let Err(broken) = explore(&world, Variant::Protocol, &cast, &mut random, true) {
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
                world
                    .check(&memory, &['B'])
                    .unwrap_or_else(|broken| panic!("{at} {fault:?} {dies}: {broken}"));
                let (memory, _) = world.expire_again(&memory);
                world
                    .check(&memory, &['B'])
                    .unwrap_or_else(|broken| panic!("{at} {fault:?} {dies}: {broken}"));
                assert_eq!(memory.keys(), undisturbed, "{at} {fault:?} {dies}");
            }
        }
    }
}

/// The same at random, for what takes three processes at one moment.
fn search_at_random(variant: Variant, cast: &[Actor], seeds: std::ops::Range<u64>) -> (Option<String>, u64) {
    let world = World::new();
    for seed in seeds.clone() {
        if let Err(broken) = explore(&world, variant, cast, &mut Random::new(seed), false) {
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
        (Variant::Without(Step::SecondListing), together),
        (Variant::Without(Step::RetiredListedFirst), together),
        (Variant::Without(Step::RetireBeforeSweep), &[Actor::ExpireA]),
        (Variant::Without(Step::KeepRetiredNames), &[Actor::BackupB, Actor::ExpireB, Actor::LateCommit]),
        (Variant::Without(Step::KeepForOpen), &[Actor::BackupB, Actor::ExpireA]),
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
            search(*variant, cast, 2, 20_000)
        };
        let broken = broken.unwrap_or_else(|| panic!("{variant:?}: nothing broke in {tried} schedules"));
        let what = broken.lines().next().unwrap_or_default();
        println!("{variant:?}: schedule {tried} after {:?}: {what}", began.elapsed());
    }
}
