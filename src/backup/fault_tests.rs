//! A backup's writing side against a store that fails at each of its calls.

use super::copy::{CopyError, CopySettings, FileHead, SourceEnd, copy};
use crate::env::Fixed;
use crate::repo::catalog::{BeginError, CommitError};
use crate::repo::frame::{Compression, FrameDecoder};
use crate::repo::keys::Secret;
use crate::repo::map::{EntryKind, MapReader, MapWriter};
use crate::repo::record::{ClusterState, Outcome, PageChecksums, Record, Sizes, Started, Uses, WalProof};
use crate::repo::{RepoError, Repository, layout};
use crate::storage::Store;
use crate::storage::faulty::{Fault, FaultyStore};
use crate::storage::memory::MemoryStore;
use crate::units::{BackupId, BackupKind, Lsn, Stanza, SystemIdentifier, TimelineId, Timestamp};
use std::sync::Arc;
use zeroize::Zeroizing;

fn env() -> Fixed {
    Fixed::new(Timestamp::from_unix_seconds(1_795_227_660), 5)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn stanza() -> Stanza {
    "shop".parse().unwrap()
}

fn secret() -> Secret {
    Secret::Key(Zeroizing::new([3; 32]))
}

fn record(id: &BackupId, writer: &str, uses: &Uses, map: crate::repo::record::MapPlace) -> Record {
    Record {
        backup_id: id.clone(),
        system_identifier: SystemIdentifier::new(7),
        timeline: TimelineId::FIRST,
        start_lsn: Lsn::new(0x2000028),
        stop_lsn: Lsn::new(0x2000120),
        checkpoint_lsn: Lsn::new(0x2000060),
        started_at_unix_us: Timestamp::from_unix_seconds(1),
        stopped_at_unix_us: Timestamp::from_unix_seconds(2),
        from_standby: false,
        backup_label: String::new(),
        tablespaces: Vec::new(),
        lineage: Vec::new(),
        wal_proof: WalProof {
            segment: "000000010000000000000002".parse().unwrap(),
            until_lsn: Lsn::new(0x2000120),
            sha256: String::new(),
        },
        cluster: ClusterState {
            server_version_num: 170_000,
            control_version: 1700,
            catalog_version: 1,
            data_checksum_version: 0,
            page_size_bytes: 8192,
            wal_segment_size_bytes: 16 << 20,
            blocks_per_file: 131_072,
        },
        sizes: Sizes { packs: uses.0[0].1.len() as u32, ..Sizes::default() },
        map,
        page_checksums: PageChecksums::default(),
        configuration_outside: Vec::new(),
        annotations: std::collections::BTreeMap::new(),
        seen: Vec::new(),
        writer: writer.to_owned(),
        walden_version: "0".to_owned(),
    }
}

#[derive(Debug)]
enum Failed {
    Copy,
    Repo,
    Commit(#[allow(dead_code)] CommitError),
}

impl From<BeginError> for Failed {
    fn from(_: BeginError) -> Self {
        Self::Repo
    }
}

impl From<RepoError> for Failed {
    fn from(_: RepoError) -> Self {
        Self::Repo
    }
}

/// Everything that a backup writes, from `started` to the outcome, with files instead of a server.
fn take_backup(store: Arc<dyn Store>, seed: u64) -> Result<BackupId, Failed> {
    let env = Fixed::new(Timestamp::from_unix_seconds(1_795_227_660), seed);
    let repository = Repository::open(store, &|| Ok(Some(secret())))?;
    let mut random = [0; 13];
    crate::env::Env::random(&env, &mut random).unwrap();
    let id = BackupId::new(Timestamp::from_unix_seconds(1_795_227_660), BackupKind::Full, random);
    let writer = format!("writer {seed}");
    let started = Started {
        backup_id: id.clone(),
        system_identifier: SystemIdentifier::new(7),
        parents: Vec::new(),
        writer: writer.clone(),
        wal_floor_lsn: Lsn::new(1),
        wal_floor_timeline: TimelineId::FIRST,
        started_at_unix_us: Timestamp::from_unix_seconds(1),
        resume_of: None,
    };
    let draft = repository.begin_backup(&stanza(), &started, &env)?;
    let spool = tempfile::tempdir().unwrap();
    let settings = CopySettings {
        workers: 1,
        compression: Compression::None,
        pack_size: 100_000,
        page_size: 8192,
        spool: spool.path().to_owned(),
        verify_writes: false,
        commits: 1,
    };
    let copied = copy(&repository, &stanza(), &id, &settings, &env, &runtime(), |mut framer| async move {
        for (path, size) in [("base/1", 140_000_u64), ("base/2", 10), ("base/3", 0), ("base/4", 70_000)] {
            let head = FileHead { path: path.into(), mode: 0o600, mtime: None, size, first_block: None };
            framer.begin(head).await;
            framer.data(&vec![path.as_bytes()[5]; size as usize]).await?;
        }
        Ok::<_, SourceEnd<()>>(framer)
    })
    .map_err(|error| {
        assert!(!matches!(error, CopyError::Interrupted), "a stage ended without saying why");
        Failed::Copy
    })?;
    let stanza = stanza();
    let mut map = MapWriter::new(&repository, &stanza, &id, &env)?;
    for entry in copied.entries {
        map.push(&entry?)?;
    }
    let (map, _) = map.finish()?;
    let uses = Uses(vec![(id.clone(), copied.packs)]);
    draft.commit(&record(&id, &writer, &uses, map), &uses, &env).map_err(Failed::Commit)?;
    Ok(id)
}

/// Every committed backup can be read from end to end; how many there are.
fn verify_all(store: Arc<dyn Store>) -> usize {
    let repository = Repository::open(store, &|| Ok(Some(secret()))).unwrap();
    let catalog = repository.catalog(&stanza()).unwrap();
    let mut committed = 0;
    for id in catalog.candidates() {
        let (Outcome::Committed(record), uses) = repository.read_outcome(&stanza(), id).unwrap() else {
            continue;
        };
        committed += 1;
        let mut decoder = FrameDecoder::new().unwrap();
        for pack in &uses.0[0].1 {
            let place = layout::pack(&stanza(), id, pack.number).unwrap();
            assert_eq!(repository.store().size(&place.key).unwrap().unwrap().as_u64(), pack.size);
            let reader = repository.reader(&place).unwrap();
            let count = reader.frames().len();
            assert_eq!(count as u32, pack.frames);
            let mut span = reader.fetch(repository.store(), 0..count).unwrap();
            for frame in 0..count {
                reader.decode(&mut span, frame, &mut decoder, &mut Vec::new()).unwrap();
            }
        }
        let stanza = stanza();
        let mut map = MapReader::open(&repository, &stanza, id, &record.map).unwrap();
        let mut files = 0;
        map.for_each(|entry| {
            assert!(matches!(entry.kind, EntryKind::File { .. }));
            files += 1;
            Ok::<_, RepoError>(())
        })
        .unwrap();
        assert_eq!(files, 4);
    }
    committed
}

fn empty() -> MemoryStore {
    let store = MemoryStore::default();
    Repository::create(Arc::new(store.clone()), Some(&secret()), "memory", &env()).unwrap();
    store
}

#[test]
fn a_listed_backup_is_complete_wherever_the_writer_dies_and_the_next_one_succeeds() {
    let counting = FaultyStore::counting(empty());
    take_backup(Arc::new(counting.clone()), 1).unwrap();
    let calls = counting.calls();
    assert!(calls > 20, "{calls} calls are too few to mean anything");
    for fault in Fault::ALL {
        for at in 0..calls {
            let store = empty();
            let died = take_backup(Arc::new(FaultyStore::failing_from(store.clone(), at, fault)), 1);
            assert!(died.is_err(), "a backup that lost call {at} ({fault:?}) reported success");
            let listed = verify_all(Arc::new(store.clone()));
            // The last two calls are the commit and the look for a retirement: only a commit whose reply was
            // lost, or what comes after it, may leave a backup behind, and then a whole one.
            let committed = at + 1 == calls || (at + 2 == calls && fault == Fault::ReplyLost);
            assert_eq!(listed, usize::from(committed), "call {at} ({fault:?})");
            take_backup(Arc::new(store.clone()), 2)
                .unwrap_or_else(|e| panic!("after call {at} ({fault:?}): {e:?}"));
            assert_eq!(verify_all(Arc::new(store)), listed + 1);
        }
    }
}

#[test]
fn one_lost_answer_either_fails_the_backup_or_leaves_a_whole_one() {
    let counting = FaultyStore::counting(empty());
    take_backup(Arc::new(counting.clone()), 1).unwrap();
    for fault in Fault::ALL {
        for at in 0..counting.calls() {
            let store = empty();
            let taken = take_backup(Arc::new(FaultyStore::failing_only(store.clone(), at, fault)), 1);
            let listed = verify_all(Arc::new(store));
            if taken.is_ok() {
                assert_eq!(listed, 1, "call {at} ({fault:?}): success was reported without a backup");
            }
        }
    }
}

#[test]
fn two_backups_at_once_do_not_touch_each_other() {
    let store = empty();
    std::thread::scope(|scope| {
        for seed in 10..14 {
            let store = store.clone();
            scope.spawn(move || take_backup(Arc::new(store), seed).unwrap());
        }
    });
    assert_eq!(verify_all(Arc::new(store)), 4);
}

#[test]
fn a_backup_that_another_declared_aborted_is_not_committed() {
    let store = empty();
    let repository = Repository::open(Arc::new(store), &|| Ok(Some(secret()))).unwrap();
    let id = BackupId::new(Timestamp::from_unix_seconds(0), BackupKind::Full, [1; 13]);
    let started = Started {
        backup_id: id.clone(),
        system_identifier: SystemIdentifier::new(7),
        parents: Vec::new(),
        writer: "one".to_owned(),
        wal_floor_lsn: Lsn::new(1),
        wal_floor_timeline: TimelineId::FIRST,
        started_at_unix_us: Timestamp::from_unix_seconds(1),
        resume_of: None,
    };
    let draft = repository.begin_backup(&stanza(), &started, &env()).unwrap();
    let aborted =
        crate::repo::record::Aborted { why: "it looked stuck".to_owned(), writer: "expire".to_owned() };
    repository
        .create_json(&layout::outcome(&stanza(), &id).unwrap(), &Outcome::Aborted(aborted), &env())
        .unwrap();
    let uses = Uses(vec![(id.clone(), Vec::new())]);
    let map =
        crate::repo::record::MapPlace { objects: 0, index_object: 0, index_frame: 0, pages: 0, entries: 0 };
    let error = draft.commit(&record(&id, "one", &uses, map), &uses, &env()).unwrap_err();
    assert_eq!(error.to_string(), "the backup was declared aborted by another process: it looked stuck");
}
