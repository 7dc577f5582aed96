//! A small repository, and those who are at work on it.

use super::meddled::Meddled;
use super::schedule::{DELIVER, Stepping};
use crate::env::Fixed;
use crate::repo::catalog::{BeginError, CommitError};
use crate::repo::record::{
    ClusterState, LineageStep, MapPlace, Outcome, PageChecksums, Record, Retired, Sizes, Started, UsedPack,
    Uses, WalProof,
};
use crate::repo::{Cluster, RepoError, Repository, layout};
use crate::retention::error::RetentionError;
use crate::retention::plan::{Done, Plan, Wanted};
use crate::retention::policy::Policy;
use crate::retention::step::{Step, leaving_out};
use crate::retention::survey::Survey;
use crate::retention::sweep::Manner;
use crate::storage::faulty::{Fault, FaultyStore};
use crate::storage::memory::MemoryStore;
use crate::storage::{Key, Store};
use crate::units::{
    BackupId, BackupKind, Lsn, PgMajor, SegmentName, SegmentSize, Stanza, SystemIdentifier, TimelineId,
    Timestamp,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const MIB: u64 = 1 << 20;

/// The protocol, or what is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    Protocol,
    /// A backup that begins does not look whether its parents were retired.
    BackupDoesNotLook,
    /// A backup that was committed does not look whether it was retired meanwhile.
    CommitDoesNotLook,
    /// An expire leaves out a step.
    Without(Step),
}

/// A process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    /// B builds on A.
    BackupB,
    /// C builds on B.
    BackupC,
    /// D builds on N, which stored nothing.
    BackupD,
    /// O is a full backup of a server on timeline 1, which timeline 2 has left.
    BackupOldBranch,
    /// Removes A.
    ExpireA,
    /// Removes B, if it is there.
    ExpireB,
    /// Removes N.
    ExpireN,
    /// Keeps the newest full backup.
    KeepNewest,
    /// Gives up whatever is open.
    GiveUpAll,
    /// Removes nothing, and sweeps.
    SweepAll,
    /// Retires A and goes away.
    RetireA,
    /// The network delivers each request that commits once more.
    LateCommit,
}

pub fn stanza() -> Stanza {
    "shop".parse().unwrap()
}

fn system() -> SystemIdentifier {
    SystemIdentifier::new(7)
}

fn timeline(number: u32) -> TimelineId {
    TimelineId::new(number).unwrap()
}

/// A, B, C, D, N, O: full by their names, so that a policy counts them.
pub fn id(letter: char) -> BackupId {
    let number = u8::try_from(u32::from(letter) - u32::from('A')).unwrap();
    BackupId::new(Timestamp::from_unix_seconds(i64::from(number) * 60), BackupKind::Full, [number; 13])
}

struct Shape {
    letter: char,
    parent: Option<char>,
    /// By whom the packs were stored that it needs.
    uses: &'static str,
    on: u32,
    first: u64,
    last: u64,
}

const SHAPES: &[Shape] = &[
    Shape { letter: 'A', parent: None, uses: "A", on: 2, first: 20, last: 20 },
    Shape { letter: 'B', parent: Some('A'), uses: "AB", on: 2, first: 22, last: 22 },
    Shape { letter: 'C', parent: Some('B'), uses: "ABC", on: 2, first: 24, last: 24 },
    Shape { letter: 'D', parent: Some('N'), uses: "D", on: 2, first: 22, last: 22 },
    Shape { letter: 'N', parent: None, uses: "", on: 2, first: 20, last: 20 },
    Shape { letter: 'O', parent: None, uses: "O", on: 1, first: 16, last: 16 },
];

fn shape(letter: char) -> &'static Shape {
    SHAPES.iter().find(|shape| shape.letter == letter).unwrap()
}

fn segment_key(on: u32, number: u64) -> Key {
    let size = SegmentSize::new(MIB).unwrap();
    let name = SegmentName::from_number(timeline(on), number, size).unwrap();
    layout::segment(&stanza(), system(), name).unwrap().key
}

fn record(shape: &Shape, writer: &str) -> Record {
    let backup_id = id(shape.letter);
    let at = Timestamp::from_unix_seconds(i64::from(u32::from(shape.letter)));
    let mut lineage = vec![LineageStep { timeline: timeline(1), begin_lsn: Lsn::INVALID }];
    if shape.on == 2 {
        lineage.push(LineageStep { timeline: timeline(2), begin_lsn: Lsn::new(10 * MIB) });
    }
    Record {
        backup_id,
        system_identifier: system(),
        timeline: timeline(shape.on),
        start_lsn: Lsn::new(shape.first * MIB + 40),
        stop_lsn: Lsn::new(shape.last * MIB + 400),
        checkpoint_lsn: Lsn::new(shape.first * MIB + 80),
        started_at_unix_us: at,
        stopped_at_unix_us: at,
        from_standby: false,
        backup_label: String::new(),
        tablespaces: Vec::new(),
        lineage,
        wal_proof: WalProof {
            segment: "000000010000000000000002".parse().unwrap(),
            until_lsn: Lsn::new(1),
            sha256: String::new(),
        },
        cluster: ClusterState {
            server_version_num: 170_000,
            control_version: 1700,
            catalog_version: 1,
            data_checksum_version: 0,
            page_size_bytes: 8192,
            wal_segment_size_bytes: MIB,
            blocks_per_file: 131_072,
        },
        sizes: Sizes::default(),
        map: MapPlace { objects: 1, index_object: 0, index_frame: 0, pages: 0, entries: 0 },
        page_checksums: PageChecksums::default(),
        configuration_outside: Vec::new(),
        annotations: std::collections::BTreeMap::new(),
        seen: Vec::new(),
        writer: writer.to_owned(),
        walden_version: "0".to_owned(),
    }
}

/// Any record.
pub fn record_for_tests() -> Record {
    record(shape('A'), "w")
}

fn pack_key(letter: char) -> Key {
    layout::pack(&stanza(), &id(letter), 0).unwrap().key
}

fn uses(shape: &Shape) -> Uses {
    let pack = UsedPack { number: 0, size: 4, live_frames: 1, frames: 1 };
    Uses(shape.uses.chars().map(|letter| (id(letter), vec![pack])).collect())
}

fn started(shape: &Shape) -> Started {
    Started {
        backup_id: id(shape.letter),
        system_identifier: system(),
        parents: shape.parent.map(id).iter().map(ToString::to_string).collect(),
        writer: format!("writer of {}", shape.letter),
        wal_floor_lsn: Lsn::new(shape.first * MIB),
        wal_floor_timeline: timeline(shape.on),
        started_at_unix_us: Timestamp::from_unix_seconds(0),
        resume_of: None,
    }
}

fn retired(letter: char) -> Retired {
    Retired {
        backup_id: id(letter),
        why: "somebody did".into(),
        by: "somebody".into(),
        retired_at_unix_us: Timestamp::from_unix_seconds(0),
        walden_version: "0".into(),
    }
}

fn env(seed: u64) -> Fixed {
    Fixed::new(Timestamp::from_unix_seconds(1000), seed)
}

#[derive(Debug)]
enum Failed {
    Early,
    Repo,
}

impl From<RepoError> for Failed {
    fn from(_: RepoError) -> Self {
        Self::Repo
    }
}

impl From<BeginError> for Failed {
    fn from(_: BeginError) -> Self {
        Self::Early
    }
}

/// What backups came to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reported {
    /// Those that looked for what they build on, found it there, and go on.
    begun: Vec<char>,
    /// Those that ended well.
    done: Vec<char>,
    /// Those that ended well when they did not exist any more.
    done_in_vain: Vec<char>,
}

impl Reported {
    /// Backups that ended well.
    pub fn done(letters: &[char]) -> Self {
        Self { done: letters.to_vec(), ..Self::default() }
    }
}

/// A backup without a server: the protocol and nothing else. `begun` is called when it may count on its parent.
fn take_backup(
    repo: &Repository,
    shape: &Shape,
    variant: Variant,
    begun: impl FnOnce(),
) -> Result<(), Failed> {
    let (stanza, env) = (stanza(), env(u64::from(u32::from(shape.letter))));
    let parent = shape.parent.map(id);
    if let Some(parent) = &parent {
        // Chosen among those that exist.
        if repo.is_retired(&stanza, parent)? || repo.read_outcome(&stanza, parent).is_err() {
            return Err(Failed::Early);
        }
    }
    let started = started(shape);
    let draft = match variant {
        Variant::BackupDoesNotLook => repo.begin_without_looking(&stanza, &started, &env)?,
        _ => repo.begin_backup(&stanza, &started, &env)?,
    };
    begun();
    if let Some(parent) = &parent {
        let Ok((Outcome::Committed(_), _)) = repo.read_outcome(&stanza, parent) else {
            return Err(Failed::Early);
        };
    }
    if !shape.uses.is_empty() {
        repo.store().create(&pack_key(shape.letter), b"pack").map_err(RepoError::from)?;
    }
    // The server archives what the backup needs after the backup began.
    for number in shape.first..=shape.last {
        repo.store().create(&segment_key(shape.on, number), b"wal").map_err(RepoError::from)?;
    }
    let (record, uses) = (record(shape, &started.writer), uses(shape));
    let committed = match variant {
        Variant::CommitDoesNotLook => draft.commit_without_looking(&record, &uses, &env),
        _ => draft.commit(&record, &uses, &env),
    };
    committed.map_err(|_| Failed::Repo)
}

impl Actor {
    pub const ALL: &[Self] = &[
        Self::BackupB,
        Self::BackupC,
        Self::BackupD,
        Self::BackupOldBranch,
        Self::ExpireA,
        Self::ExpireB,
        Self::ExpireN,
        Self::KeepNewest,
        Self::GiveUpAll,
        Self::SweepAll,
        Self::RetireA,
        Self::LateCommit,
    ];

    /// Its whole life. `atomic_plan`: nobody interrupts it while it makes its plan.
    pub fn run(self, store: &Stepping, variant: Variant, atomic_plan: bool, reported: &Mutex<Reported>) {
        // The first turn is its beginning.
        if store.wait("begins").is_err() {
            return;
        }
        if let Variant::Without(step) = variant {
            leaving_out(Some(step));
        }
        store.set_quiet(true);
        let repo = Repository::open(Arc::new(store.clone()), &|| Ok(None)).unwrap();
        store.set_quiet(false);
        let backup = |letter: char| {
            let begun = || {
                if variant != Variant::BackupDoesNotLook {
                    reported.lock().unwrap().begun.push(letter);
                }
            };
            if take_backup(&repo, shape(letter), variant, begun).is_ok() {
                let mut reported = reported.lock().unwrap();
                reported.done.push(letter);
                // No turn has passed since its last call: had it looked, it would know.
                if store.holds(&layout::retired(&stanza(), &id(letter)).unwrap().key) {
                    reported.done_in_vain.push(letter);
                }
            }
        };
        let expire = |asked: Option<char>, keep: u32, give_up: bool| {
            let wanted = Wanted {
                policy: Policy { full: Some(keep), window: None },
                asked: asked.map(id),
                delay: Duration::ZERO,
                give_up_after: if give_up { Duration::ZERO } else { Duration::from_secs(1_000_000) },
                by: "expire",
            };
            store.set_quiet(atomic_plan);
            let (stanza, env) = (stanza(), env(100 + self as u64));
            let now = Timestamp::from_unix_seconds(1000);
            let plan = Survey::read(&repo, &stanza, wanted.asked.as_ref(), wanted.delay, now)
                .and_then(|survey| Plan::make(survey, wanted));
            store.set_quiet(false);
            let manner = Manner { workers: 1, stop: crate::pipeline::StopFlag::new() };
            // It may find that it must not delete; whether it harms anything is looked at from outside.
            let _ = plan.and_then(|plan| plan.execute(&env, &manner));
        };
        match self {
            Self::BackupB => backup('B'),
            Self::BackupC => backup('C'),
            Self::BackupD => backup('D'),
            Self::BackupOldBranch => backup('O'),
            Self::ExpireA => expire(Some('A'), 1, false),
            Self::ExpireB => expire(Some('B'), 1, false),
            Self::ExpireN => expire(Some('N'), 1, false),
            Self::KeepNewest => expire(None, 1, false),
            Self::GiveUpAll => expire(None, 100, true),
            Self::SweepAll => expire(None, 100, false),
            Self::RetireA => {
                let _ = repo.retire(&stanza(), &id('A'), &retired('A'), &env(99));
            }
            Self::LateCommit => {
                if store.wait(DELIVER).is_ok() {
                    store.set_quiet(true);
                    for (key, bytes) in store.sent() {
                        if !key.as_str().ends_with("-retired") {
                            let _ = store.create(&key, &bytes);
                        }
                    }
                }
            }
        }
        leaving_out(None);
    }
}

/// The repository at the beginning: A is committed; WAL of timeline 1 up to where 2 left it and a little beyond,
/// and of timeline 2 since.
pub struct World {
    pub memory: MemoryStore,
    repo: Repository,
    outcomes: Mutex<BTreeMap<[u8; 32], bool>>,
}

impl World {
    pub fn new() -> Self {
        let memory = MemoryStore::new();
        let env = env(0);
        let repo = Repository::create(Arc::new(memory.clone()), None, "memory", &env).unwrap();
        let cluster = Cluster {
            system: system(),
            major: PgMajor::new(17),
            page_size: 8192,
            segment_size: SegmentSize::new(MIB).unwrap(),
            blocks_per_file: 131_072,
        };
        repo.add_cluster(&stanza(), &cluster, &env).unwrap();
        let wal = crate::wal::ClusterWal { repo: &repo, stanza: &stanza(), system: system() };
        let history = b"1\t0/A00000\tno recovery target specified\n";
        let parsed = crate::postgres::history::TimelineHistory::parse(timeline(2), history).unwrap();
        crate::wal::write::store_history(wal, history, &parsed, &env).unwrap();
        for (on, numbers) in [(1, 5..=14), (2, 10..=21)] {
            for number in numbers {
                memory.create(&segment_key(on, number), b"wal").unwrap();
            }
        }
        take_backup(&repo, shape('A'), Variant::Protocol, || {}).unwrap();
        Self { memory, repo, outcomes: Mutex::default() }
    }

    /// The same with what these need before they can begin.
    pub fn of(cast: &[Actor]) -> Self {
        let world = Self::new();
        if cast.contains(&Actor::BackupD) {
            take_backup(&world.repo, shape('N'), Variant::Protocol, || {}).unwrap();
        }
        world
    }

    /// Commits B after somebody retired it.
    pub fn commit_retired(&self) -> Result<(), CommitError> {
        let (shape, env) = (shape('B'), env(3));
        let started = started(shape);
        let draft = self.repo.begin_backup(&stanza(), &started, &env).unwrap();
        self.repo.retire(&stanza(), &started.backup_id, &retired('B'), &env).unwrap();
        draft.commit(&record(shape, &started.writer), &uses(shape), &env)
    }

    /// What [`Self::expire_once`] has to do: O, the newest, stays; A, B and what an interrupted one left go.
    fn before_expiring(&self) -> MemoryStore {
        let memory = self.memory.snapshot();
        let repo = Repository::open(Arc::new(memory.clone()), &|| Ok(None)).unwrap();
        for letter in ['O', 'B'] {
            take_backup(&repo, shape(letter), Variant::Protocol, || {}).unwrap();
        }
        let started = Started {
            backup_id: id('C'),
            system_identifier: system(),
            parents: Vec::new(),
            writer: "w".into(),
            wal_floor_lsn: Lsn::new(24 * MIB),
            wal_floor_timeline: timeline(2),
            started_at_unix_us: Timestamp::from_unix_seconds(0),
            resume_of: None,
        };
        repo.begin_backup(&stanza(), &started, &env(5)).unwrap();
        memory.create(&pack_key('C'), b"pack").unwrap();
        memory
    }

    /// Expires all but the newest; right before a victim is retired, `then` is called with the repository.
    pub fn expire_meddled_with(&self, then: impl Fn(&Repository, &Key) + Send + Sync + 'static) -> Done {
        let memory = self.before_expiring();
        let outside = Repository::open(Arc::new(memory.clone()), &|| Ok(None)).unwrap();
        let store = Meddled { memory, before_create: Arc::new(move |key| then(&outside, key)) };
        Self::expire_once(Arc::new(store)).unwrap()
    }

    /// With a fault at a call, which kills the process or not.
    pub fn expire_all_but_newest(&self, fault: Option<(u64, Fault, bool)>) -> (MemoryStore, u64) {
        let memory = self.before_expiring();
        let store = match fault {
            None => FaultyStore::counting(memory.clone()),
            Some((at, fault, true)) => FaultyStore::failing_from(memory.clone(), at, fault),
            Some((at, fault, false)) => FaultyStore::failing_only(memory.clone(), at, fault),
        };
        let _ = Self::expire_once(Arc::new(store.clone()));
        (memory, store.calls())
    }

    /// Once more without any fault.
    pub fn expire_again(&self, memory: &MemoryStore) -> (MemoryStore, u64) {
        let store = FaultyStore::counting(memory.clone());
        let _ = Self::expire_once(Arc::new(store.clone()));
        (memory.clone(), store.calls())
    }

    fn expire_once(store: Arc<dyn Store>) -> Result<Done, RetentionError> {
        let repo = Repository::open(store, &|| Ok(None))?;
        let wanted = Wanted {
            policy: Policy { full: Some(1), window: None },
            asked: None,
            delay: Duration::ZERO,
            give_up_after: Duration::ZERO,
            by: "expire",
        };
        let now = Timestamp::from_unix_seconds(1000);
        let manner = Manner { workers: 1, stop: crate::pipeline::StopFlag::new() };
        let stanza = stanza();
        let survey = Survey::read(&repo, &stanza, None, wanted.delay, now)?;
        Plan::make(survey, wanted)?.execute(&env(9), &manner)
    }

    /// What is gone that must be there.
    pub fn check(&self, memory: &MemoryStore, reported: &Reported) -> Result<(), String> {
        if let Some(letter) = reported.done_in_vain.first() {
            return Err(format!("backup {letter} reported success and had been retired"));
        }
        let keys: BTreeSet<Key> = memory.keys().into_iter().collect();
        let stanza = stanza();
        for shape in SHAPES {
            let (id, letter) = (id(shape.letter), shape.letter);
            let outcome = layout::outcome(&stanza, &id).unwrap();
            let retired = keys.contains(&layout::retired(&stanza, &id).unwrap().key);
            let was_reported = reported.done.contains(&letter);
            let has_outcome =
                |letter| keys.contains(&layout::outcome(&stanza, &self::id(letter)).unwrap().key);
            let goes_on = reported.begun.contains(&letter) && !has_outcome(letter) && !retired;
            if let Some(parent) = shape.parent.filter(|parent| goes_on && !has_outcome(*parent)) {
                return Err(format!("backup {letter} builds on {parent}, whose record is gone"));
            }
            let committed = keys.contains(&outcome.key).then(|| {
                let bytes = memory.read(&outcome.key, crate::units::ByteCount::mib(1)).unwrap();
                self.is_record(letter, &bytes)
            });
            if was_reported && committed == Some(false) {
                return Err(format!("backup {letter} reported success and was aborted"));
            }
            if was_reported && !retired && committed.is_none() {
                return Err(format!("the record of backup {letter} is gone"));
            }
            if was_reported && retired && self.why(memory, &id) == "it did not end" {
                return Err(format!(
                    "backup {letter} reported success and was retired as one that did not end"
                ));
            }
            if committed != Some(true) || retired {
                continue;
            }
            for owner in shape.uses.chars() {
                if !keys.contains(&pack_key(owner)) {
                    return Err(format!("backup {letter} exists, and the pack of {owner} is gone"));
                }
            }
            for number in shape.first..=shape.last {
                if !keys.contains(&segment_key(shape.on, number)) {
                    return Err(format!(
                        "backup {letter} exists, and segment {number} that it needs is gone"
                    ));
                }
            }
        }
        // A needs all WAL of timeline 2 from its start on, as long as it exists.
        let a_exists = !keys.contains(&layout::retired(&stanza, &id('A')).unwrap().key);
        if a_exists && !(20..=21).all(|number| keys.contains(&segment_key(2, number))) {
            return Err("WAL after the start of A is gone".to_owned());
        }
        if !keys.contains(&layout::history(&stanza, system(), timeline(2)).unwrap().key) {
            return Err("a history is gone".to_owned());
        }
        Ok(())
    }

    /// The record carries its list of packs, an abort does not. What was once found out is remembered.
    fn is_record(&self, letter: char, bytes: &[u8]) -> bool {
        let hash = *blake3::hash(bytes).as_bytes();
        *self.outcomes.lock().unwrap().entry(hash).or_insert_with(|| {
            let place = layout::outcome(&stanza(), &id(letter)).unwrap();
            let reader = crate::repo::object::ObjectReader::open_bytes(self.repo.keys(), &place, bytes);
            reader.unwrap().frames().len() == 2
        })
    }

    fn why(&self, memory: &MemoryStore, id: &BackupId) -> String {
        let repo = Repository::open(Arc::new(memory.clone()), &|| Ok(None)).unwrap();
        repo.read_retired(&stanza(), id).map(|retired| retired.why).unwrap_or_default()
    }
}
