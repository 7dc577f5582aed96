use super::*;
use crate::env::Fixed;
use crate::pipeline::StopFlag;
use crate::repo::catalog::{CommitError, Draft};
use crate::repo::notes::{Annotate, Note, Pin, Says};
use crate::repo::record::{Record, Started, Uses};
use crate::retention::interleavings::record_for_tests;
use crate::storage::faulty::{Fault, FaultyStore};
use crate::storage::memory::MemoryStore;
use crate::storage::{Store, StoreErrorKind};
use crate::units::{BackupKind, Lsn, PgMajor, SegmentName, SegmentSize, TimelineId};
use std::sync::Arc;

const NOW: Timestamp = Timestamp::from_unix_seconds(1_795_254_076);

fn stanza() -> Stanza {
    "shop".parse().unwrap()
}

fn env(seed: u64) -> Fixed {
    Fixed::new(NOW, seed)
}

fn old_and_new() -> [Cluster; 2] {
    [15, 18].map(|major| Cluster {
        system: SystemIdentifier::new(7_000_000_000_000_000_000 + u64::from(major)),
        major: PgMajor::new(major),
        page_size: 8192,
        segment_size: SegmentSize::new(1 << 20).unwrap(),
        blocks_per_file: 131_072,
    })
}

fn record(minutes: i64) -> Record {
    let at = Timestamp::from_unix_seconds(NOW.as_unix_seconds() - 60 * minutes);
    let letters = [u8::try_from(minutes % 32).unwrap(); 13];
    Record {
        backup_id: BackupId::new(at, BackupKind::Full, letters),
        system_identifier: old_and_new()[0].system,
        ..record_for_tests()
    }
}

fn begin(repo: &Repository, record: &Record) -> Draft {
    let started = Started {
        backup_id: record.backup_id.clone(),
        system_identifier: record.system_identifier,
        parents: Vec::new(),
        writer: record.writer.clone(),
        wal_floor_lsn: Lsn::new(1 << 20),
        wal_floor_timeline: TimelineId::FIRST,
        started_at_unix_us: NOW,
        resume_of: None,
    };
    repo.begin_backup(&stanza(), &started, &env(5)).unwrap()
}

fn pack(repo: &Repository, id: &BackupId) {
    let key = layout::pack(&stanza(), id, 0).unwrap().key;
    repo.store().create(&key, b"pack").unwrap();
}

fn open(store: impl Store + 'static) -> Repository {
    Repository::open(Arc::new(store), &|| Ok(None)).unwrap()
}

/// Two clusters; backups committed, aborted, retired and open; WAL, a history, and another stanza.
fn filled() -> MemoryStore {
    let memory = MemoryStore::new();
    let repo = Repository::create(Arc::new(memory.clone()), None, "memory", &env(1)).unwrap();
    let size = old_and_new()[0].segment_size;
    for cluster in old_and_new() {
        for stanza in [stanza(), "other".parse().unwrap()] {
            repo.add_cluster(&stanza, &cluster, &env(2)).unwrap();
            for number in [1, 2, 300] {
                let name = SegmentName::from_number(TimelineId::FIRST, number, size).unwrap();
                let place = layout::segment(&stanza, cluster.system, name).unwrap();
                repo.store().create(&place.key, b"wal").unwrap();
            }
            let history = layout::history(&stanza, cluster.system, TimelineId::new(2).unwrap()).unwrap();
            repo.store().create(&history.key, b"history").unwrap();
        }
    }
    for minutes in [90, 80] {
        let record = record(minutes);
        begin(&repo, &record).commit(&record, &Uses::default(), &env(6)).unwrap();
        pack(&repo, &record.backup_id);
    }
    let says = Says::Annotate(Annotate::default());
    let note = Note::new(&record(80).backup_id, None, says, "0.1.0", &env(11)).unwrap();
    repo.write_note(&stanza(), &note, &env(12)).unwrap();
    begin(&repo, &record(70)).abort("the server went away", &env(7)).unwrap();
    drop(begin(&repo, &record(60)));
    pack(&repo, &record(60).backup_id);
    memory
}

fn delete(store: impl Store + 'static, force: bool) -> Result<StanzaGone, StanzaError> {
    let repo = open(store);
    let stanza = stanza();
    let manner = Manner { workers: 1, stop: StopFlag::new() };
    StanzaPlan::make(&repo, &stanza, NOW)?.execute(force, &env(9), &manner)
}

/// The names that are left of the stanza.
fn left(memory: &MemoryStore) -> Vec<String> {
    memory.keys().iter().filter(|key| key.as_str().starts_with("shop/")).map(ToString::to_string).collect()
}

/// What must be left: a retired name of each backup, and the outcomes of those that were aborted.
fn names() -> Vec<String> {
    let mut names = Vec::new();
    for minutes in [90, 80, 70, 60] {
        let id = record(minutes).backup_id;
        if minutes < 80 {
            names.push(format!("shop/catalog/{id}.2-outcome"));
        }
        names.push(format!("shop/catalog/{id}.3-retired"));
    }
    names.sort();
    names
}

#[test]
fn all_goes_but_the_names_that_keep_ids_from_being_used_again() {
    let memory = filled();
    let others = |memory: &MemoryStore| {
        memory.keys().into_iter().filter(|key| !key.as_str().starts_with("shop/")).collect::<Vec<_>>()
    };
    let before = others(&memory);
    let gone = delete(memory.clone(), false).unwrap();
    assert_eq!(left(&memory), names());
    assert_eq!(others(&memory), before, "another stanza was touched");
    assert_eq!((gone.given_up, gone.swept.wal.objects), (vec![record(60).backup_id], 8));
    let repo = open(memory.clone());
    assert!(StanzaPlan::make(&repo, &stanza(), NOW).unwrap().is_empty());
    delete(memory.clone(), false).unwrap();
    assert_eq!(left(&memory), names());
    // It can be made anew, and retention finds nothing in its way.
    repo.add_cluster(&stanza(), &old_and_new()[1], &env(20)).unwrap();
    let record = Record { system_identifier: old_and_new()[1].system, ..record(1) };
    begin(&repo, &record).commit(&record, &Uses::default(), &env(21)).unwrap();
    assert_eq!(repo.catalog(&stanza()).unwrap().candidates().collect::<Vec<_>>(), [&record.backup_id]);
    let shop = stanza();
    crate::retention::Survey::read(&repo, &shop, None, Duration::ZERO, NOW).unwrap();
}

#[test]
fn a_backup_that_slept_while_the_stanza_was_deleted_and_made_anew_fails() {
    let memory = filled();
    let repo = open(memory.clone());
    let asleep = begin(&repo, &record(5));
    delete(memory.clone(), false).unwrap();
    repo.add_cluster(&stanza(), &old_and_new()[0], &env(20)).unwrap();
    // It goes on storing, and what it stores is found by the next expire.
    pack(&repo, &record(5).backup_id);
    let ended = asleep.commit(&record(5), &Uses::default(), &env(22));
    assert!(matches!(ended, Err(CommitError::Aborted(_))), "{ended:?}");
    assert_eq!(
        repo.catalog(&stanza()).unwrap().candidates().filter(|id| **id == record(5).backup_id).count(),
        0
    );
    let shop = stanza();
    let survey = crate::retention::Survey::read(&repo, &shop, None, Duration::ZERO, NOW).unwrap();
    assert_eq!(survey.looked.leaving.len(), 1);
    // One that had looked for the cluster and begins only now is a backup of the new stanza like any other.
    assert!(survey.looked.live.is_empty());
}

#[test]
fn a_backup_that_begins_when_the_deletion_died_at_the_clusters_is_found_by_the_next_run() {
    let memory = filled();
    let calls = FaultyStore::counting(memory.snapshot());
    delete(calls.clone(), false).unwrap();
    let at = calls.log().iter().position(|call| call.starts_with("delete shop/cluster/")).unwrap();
    let dying = FaultyStore::failing_from(memory.clone(), at as u64, Fault::ReplyLost);
    delete(dying, false).unwrap_err();
    let repo = open(memory.clone());
    let late = begin(&repo, &record(4));
    pack(&repo, &record(4).backup_id);
    let gone = delete(memory.clone(), false).unwrap();
    assert_eq!(gone.given_up, [record(4).backup_id]);
    assert!(late.commit(&record(4), &Uses::default(), &env(30)).is_err());
    assert!(!left(&memory).iter().any(|name| name.contains("/data/") || name.contains("/cluster/")));
}

#[test]
fn a_pin_protects_until_it_is_forced() {
    let memory = filled();
    let repo = open(memory.clone());
    let says = Says::Pin(Pin { reason: Some("the auditors come".into()), until_unix_us: None });
    let note = Note::new(&record(90).backup_id, None, says, "0.1.0", &env(40)).unwrap();
    repo.write_note(&stanza(), &note, &env(41)).unwrap();
    let before = memory.keys();
    let refused = delete(memory.clone(), false).unwrap_err();
    assert!(matches!(refused, StanzaError::Retention(RetentionError::Pinned(..))), "{refused}");
    assert_eq!(memory.keys(), before);
    delete(memory.clone(), true).unwrap();
    assert_eq!(left(&memory), names());
}

#[test]
fn damaged_objects_do_not_keep_a_stanza_and_unknown_names_do() {
    let memory = filled();
    memory.overwrite(&layout::outcome(&stanza(), &record(90).backup_id).unwrap().key, b"x");
    memory.overwrite(&layout::cluster(&stanza(), old_and_new()[0].system).unwrap().key, b"x");
    delete(memory.clone(), false).unwrap();
    let repo = open(memory.clone());
    assert!(repo.clusters(&stanza()).unwrap().is_empty());
    assert_eq!(repo.catalog(&stanza()).unwrap().candidates().count(), 0);
    assert!(!left(&memory).iter().any(|name| name.contains("/data/") || name.contains("/wal/")));

    let memory = filled();
    memory.overwrite(&Key::new("shop/catalog/4-later").unwrap(), b"x");
    let before = memory.keys();
    let refused = delete(memory.clone(), true).unwrap_err();
    assert!(matches!(refused, StanzaError::Retention(RetentionError::Strangers(_))), "{refused}");
    assert_eq!(memory.keys(), before);
}

#[test]
fn credentials_that_may_not_delete_leave_the_stanza_without_backups_and_another_run_ends_it() {
    let memory = filled();
    let calls = FaultyStore::counting(memory.snapshot());
    delete(calls.clone(), false).unwrap();
    let at = calls.log().iter().position(|call| call.starts_with("delete ")).unwrap();
    let denying = FaultyStore::failing_from(memory.clone(), at as u64, Fault::NeverSent)
        .with_kind(StoreErrorKind::Denied);
    let gone = delete(denying, false).unwrap();
    assert!(gone.swept.refused.is_some());
    let repo = open(memory.clone());
    assert_eq!(repo.clusters(&stanza()).unwrap().len(), 2);
    assert_eq!(repo.catalog(&stanza()).unwrap().candidates().count(), 0);
    delete(memory.clone(), false).unwrap();
    assert_eq!(left(&memory), names());
}

#[test]
fn wherever_it_dies_the_stanza_is_there_or_gone_and_another_run_ends_it() {
    let calls = FaultyStore::counting(filled());
    delete(calls.clone(), false).unwrap();
    assert!(calls.calls() > 40, "{}", calls.calls());
    for at in 0..calls.calls() {
        for fault in Fault::ALL {
            for dies in [true, false] {
                let memory = filled();
                let store = if dies {
                    FaultyStore::failing_from(memory.clone(), at, fault)
                } else {
                    FaultyStore::failing_only(memory.clone(), at, fault)
                };
                if let Ok(repo) = Repository::open(Arc::new(store), &|| Ok(None)) {
                    let manner = Manner { workers: 1, stop: StopFlag::new() };
                    let shop = stanza();
                    let plan = StanzaPlan::make(&repo, &shop, NOW);
                    let _ = plan.and_then(|plan| plan.execute(false, &env(9), &manner));
                }
                let repo = open(memory.clone());
                // Nothing that is listed lacks anything.
                for id in repo.catalog(&stanza()).unwrap().candidates() {
                    if [record(90).backup_id, record(80).backup_id].contains(id) {
                        let pack = layout::pack(&stanza(), id, 0).unwrap().key;
                        assert!(repo.store().size(&pack).unwrap().is_some(), "{at} {fault:?} {dies}: {id}");
                    }
                }
                delete(memory.clone(), false).unwrap();
                assert_eq!(left(&memory), names(), "{at} {fault:?} {dies}");
            }
        }
    }
}
