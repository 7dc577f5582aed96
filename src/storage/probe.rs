//! Whether a store does what everything else rests on, found out by trying.

use super::{Created, Key, Store, StoreError, StoreErrorKind};
use crate::units::ByteCount;
use std::sync::Barrier;
use std::time::{Duration, Instant};

/// How much to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbePlan {
    /// How many create one name at the same moment.
    pub creators: u32,
    /// How many names.
    pub rounds: u32,
}

/// When so much time has passed, and so many names were raced for, no further one is begun. Some stores let those who
/// lose a race wait for a lock, a second at a time.
const ENOUGH: (Duration, u32) = (Duration::from_secs(10), 3);

impl ProbePlan {
    /// For object stores, where a race may be lost once in many. (Fewer names where a store takes seconds for each.)
    pub const THOROUGH: Self = Self { creators: 32, rounds: 20 };
    /// For file systems, where the kernel decides.
    pub const QUICK: Self = Self { creators: 32, rounds: 2 };
}

/// What was found of one promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It held each time.
    Holds,
    /// It did not; the text says what was seen: `2 of 32 concurrent creates of one name succeeded`.
    Broken(String),
}

impl Finding {
    /// Whether it held.
    #[must_use]
    pub fn holds(&self) -> bool {
        *self == Self::Holds
    }
}

/// What [`probe`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeReport {
    /// What was tried; fewer rounds than were planned where each took long.
    pub plan: ProbePlan,
    /// Of creates that race, exactly one succeeds, the others are told that the name is taken, and the one
    /// that succeeded is read back. Without it the store must be refused.
    pub atomic_create: Finding,
    /// A name that was looked for in vain is read and sized at once when it is created.
    pub read_after_create: Finding,
    /// And shown by a listing. Expire rests on it.
    pub list_after_create: Finding,
    /// A listing begins at the point that it is given. Without it long listings take longer: page by page.
    pub list_from_a_point: Finding,
    /// Parts of objects can be read.
    pub ranges: Finding,
    /// We may delete. Only expire needs it.
    pub may_delete: Finding,
}

impl ProbeReport {
    /// Whether a repository can be kept here. Without the right to delete it can, and where listings take long.
    #[must_use]
    pub fn usable(&self) -> bool {
        [&self.atomic_create, &self.read_after_create, &self.list_after_create, &self.ranges]
            .into_iter()
            .all(Finding::holds)
    }
}

/// Tries `store` with objects below `folder`, which must be new each time (make it of random characters).
/// They are removed at the end where that is allowed, also after an error.
///
/// # Errors
/// When the store fails or refuses; what was asked is then not found out. `Unsupported` from a file system
/// that has no way to create without overwriting.
pub fn probe(store: &dyn Store, folder: &Key, plan: ProbePlan) -> Result<ProbeReport, StoreError> {
    let mut used = Vec::new();
    let found = try_everything(store, folder, plan, &mut used);
    let mut deleted = Ok(());
    for key in &used {
        deleted = deleted.and(store.delete(key));
    }
    let mut report = found?;
    report.may_delete = match deleted {
        Ok(()) => match first_that_exists(store, &used)? {
            None => Finding::Holds,
            Some(key) => Finding::Broken(format!("{key} is there after it was deleted")),
        },
        Err(e) if e.kind == StoreErrorKind::Denied => Finding::Broken(match &e.source {
            Some(source) => format!("{e}: {source}"),
            None => e.to_string(),
        }),
        Err(e) => return Err(e),
    };
    Ok(report)
}

fn first_that_exists<'a>(store: &dyn Store, keys: &'a [Key]) -> Result<Option<&'a Key>, StoreError> {
    for key in keys {
        if store.size(key)?.is_some() {
            return Ok(Some(key));
        }
    }
    Ok(None)
}

fn try_everything(
    store: &dyn Store,
    folder: &Key,
    plan: ProbePlan,
    used: &mut Vec<Key>,
) -> Result<ProbeReport, StoreError> {
    let mut name = |name: String| -> Result<Key, StoreError> {
        let key = Key::new(format!("{folder}/{name}")).map_err(|e| StoreError {
            kind: StoreErrorKind::Unsupported,
            what: format!("could not probe below {folder}"),
            source: Some(Box::new(e)),
        })?;
        used.push(key.clone());
        Ok(key)
    };
    let mut atomic_create = Finding::Holds;
    let begun = Instant::now();
    let mut tried = ProbePlan { rounds: 0, ..plan };
    for round in 0..plan.rounds {
        if round >= ENOUGH.1 && begun.elapsed() >= ENOUGH.0 {
            break;
        }
        tried.rounds += 1;
        let key = name(format!("race/{round}"))?;
        atomic_create = race(store, &key, plan.creators)?;
        if !atomic_create.holds() {
            break;
        }
    }
    let object = name("seen/object".to_owned())?;
    let neighbours = Key::new(format!("{folder}/seen")).ok();
    let mut report = ProbeReport {
        plan: tried,
        atomic_create,
        read_after_create: Finding::Holds,
        list_after_create: Finding::Holds,
        list_from_a_point: Finding::Holds,
        ranges: Finding::Holds,
        may_delete: Finding::Holds,
    };
    let neighbours = neighbours.as_ref().unwrap_or(&object);
    see(store, &object, neighbours, &mut report)?;
    report.list_from_a_point = begin_at_a_point(store, folder, &object, neighbours)?;
    Ok(report)
}

/// Everybody creates `key` at once, each with bytes of its own.
fn race(store: &dyn Store, key: &Key, creators: u32) -> Result<Finding, StoreError> {
    let start = Barrier::new(creators as usize);
    let bytes = |creator: u32| format!("creator {creator} of {creators} of {key}").into_bytes();
    let outcomes: Vec<Result<Created, StoreError>> = std::thread::scope(|scope| {
        let racers: Vec<_> = (0..creators)
            .map(|creator| {
                let (start, bytes) = (&start, bytes(creator));
                scope.spawn(move || {
                    start.wait();
                    store.create(key, &bytes)
                })
            })
            .collect();
        racers.into_iter().filter_map(|racer| racer.join().ok()).collect()
    });
    let mut won = Vec::new();
    let mut unclear = Vec::new();
    let mut trouble = None;
    for (creator, outcome) in (0_u32..).zip(outcomes) {
        match outcome {
            // `Same` is a first attempt of its own that got through though the answer was lost.
            Ok(Created::New | Created::Same) => won.push(creator),
            Err(e) if e.kind == StoreErrorKind::Taken => {}
            Err(e) if e.kind == StoreErrorKind::Unavailable => {
                unclear.push(creator);
                trouble = Some(e);
            }
            Err(e) => return Err(e),
        }
    }
    let stored = match store.read(key, ByteCount::mib(1)) {
        Ok(stored) => stored,
        Err(e) if e.kind == StoreErrorKind::NotFound => match trouble {
            Some(trouble) => return Err(trouble),
            None => return Ok(Finding::Broken(format!("of {creators} concurrent creates none can be read"))),
        },
        Err(e) => return Err(e),
    };
    let winners = won.len();
    if winners > 1 {
        let text = format!("{winners} of {creators} concurrent creates of one name succeeded");
        return Ok(Finding::Broken(text));
    }
    // Where nobody was told of success, one of those who got no clear answer must have had it.
    let candidates = if won.is_empty() { &unclear } else { &won };
    let Some(winner) = candidates.iter().find(|creator| bytes(**creator) == stored) else {
        return Ok(Finding::Broken("what is read back is not what the successful create wrote".to_owned()));
    };
    let other = bytes(winner.wrapping_add(1));
    let again = (store.create(key, &stored), store.create(key, &other));
    match again {
        (Ok(Created::Same), Err(taken)) if taken.kind == StoreErrorKind::Taken => {}
        (Err(e), _) | (_, Err(e)) if e.kind != StoreErrorKind::Taken => return Err(e),
        _ => return Ok(Finding::Broken("a later create of a taken name was not refused".to_owned())),
    }
    if store.read(key, ByteCount::mib(1))? == stored {
        Ok(Finding::Holds)
    } else {
        Ok(Finding::Broken("a refused create changed the object".to_owned()))
    }
}

/// Looks for an object, creates it, and looks again.
fn see(store: &dyn Store, key: &Key, folder: &Key, report: &mut ProbeReport) -> Result<(), StoreError> {
    let contents: Vec<u8> = (0..=255).collect();
    let broken = |text: &str| Finding::Broken(text.to_owned());
    let all = ByteCount::mib(1);
    match store.read(key, all) {
        Err(e) if e.kind == StoreErrorKind::NotFound => {}
        Err(e) => return Err(e),
        Ok(_) => report.read_after_create = broken("an object that was never created was read"),
    }
    if store.size(key)?.is_some() {
        report.read_after_create = broken("an object that was never created has a size");
    }
    store.list(folder, &mut |_| report.list_after_create = broken("a new folder was not empty"))?;
    store.create(key, &contents)?;
    match store.read(key, all) {
        Ok(read) if read == contents => {}
        Ok(_) => report.read_after_create = broken("an object was read back with other contents"),
        Err(e) if e.kind == StoreErrorKind::NotFound => {
            report.read_after_create = broken("an object was not found right after it was created");
            return Ok(());
        }
        Err(e) => return Err(e),
    }
    if store.size(key)?.map(ByteCount::as_u64) != Some(contents.len() as u64) {
        report.read_after_create = broken("an object had another size right after it was created");
    }
    let mut seen = Vec::new();
    store.list(folder, &mut |listed| seen.push((listed.key, listed.size.as_u64())))?;
    if seen != [(key.clone(), contents.len() as u64)] {
        report.list_after_create = broken("an object was not listed right after it was created");
    }
    let one_level = store.folder(Some(folder))?.objects;
    if !one_level.iter().any(|listed| listed.key == *key) {
        report.list_after_create = broken("an object was not listed right after it was created");
    }
    for range in [0..1, 100..200, 255..256, 250..1000, 256..300] {
        let clamp = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(contents.len());
        let expected = contents.get(clamp(range.start)..clamp(range.end)).unwrap_or_default();
        if store.read_range(key, range.clone())? != expected {
            report.ranges = Finding::Broken(format!("bytes {range:?} of an object were read wrong"));
        }
    }
    let (end, size) = store.read_end(key, 10)?;
    if contents.get(contents.len() - 10..) != Some(&*end) || size.as_u64() != contents.len() as u64 {
        report.ranges = broken("the last bytes of an object were read wrong");
    }
    Ok(())
}

/// Lists from where the folder of `object` begins, which is the last: nothing else may show, and it must.
fn begin_at_a_point(
    store: &dyn Store,
    folder: &Key,
    object: &Key,
    neighbours: &Key,
) -> Result<Finding, StoreError> {
    let broken = |text: &str| Ok(Finding::Broken(text.to_owned()));
    // As long listings are cut.
    let Ok(point) = Key::new(format!("{neighbours}/-")) else { return Ok(Finding::Holds) };
    match store.list_after(folder, &point) {
        Ok(None) => Ok(Finding::Holds),
        Ok(Some(listed)) if listed.iter().any(|listed| listed.key < point) => {
            broken("a listing that was to begin at a point showed names before it")
        }
        Ok(Some(listed)) if listed.iter().any(|listed| listed.key == *object) => Ok(Finding::Holds),
        Ok(Some(_)) => broken("a listing that was to begin at a point left out a name after it"),
        // Other listings were not refused.
        Err(e) if matches!(e.kind, StoreErrorKind::Denied | StoreErrorKind::Unsupported) => {
            broken("a listing that was to begin at a point was refused")
        }
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::faulty::{Fault, FaultyStore};
    use crate::storage::memory::MemoryStore;
    use crate::storage::posix::PosixStore;
    use crate::storage::{Folder, Listed, Pending};
    use std::ops::Range;

    fn folder() -> Key {
        Key::new("probe/x1").unwrap()
    }

    #[test]
    fn good_stores_pass_and_are_left_as_they_were() {
        let dir = tempfile::tempdir().unwrap();
        let posix = PosixStore::open(dir.path()).unwrap();
        let memory = MemoryStore::new();
        for store in [&posix as &dyn Store, &memory] {
            let report = probe(store, &folder(), ProbePlan::QUICK).unwrap();
            assert!(report.usable() && report.may_delete.holds(), "{report:?}");
        }
        assert!(memory.keys().is_empty());
        assert_eq!(posix.folder(None).unwrap(), Folder::default());
    }

    #[test]
    fn a_store_that_fails_is_not_judged() {
        let counting = FaultyStore::counting(MemoryStore::new());
        let plan = ProbePlan { creators: 1, rounds: 1 };
        probe(&counting, &folder(), plan).unwrap();
        for at in 0..counting.calls() {
            for fault in Fault::ALL {
                let failing = FaultyStore::failing_from(MemoryStore::new(), at, fault);
                let judged = probe(&failing, &folder(), plan);
                assert_eq!(judged.unwrap_err().kind, StoreErrorKind::Unavailable, "{at} {fault:?}");
            }
        }
    }

    #[test]
    fn one_lost_answer_among_the_racers_is_no_fault_of_the_store() {
        for fault in Fault::ALL {
            let store = FaultyStore::failing_only(MemoryStore::new(), 0, fault);
            let report = probe(&store, &folder(), ProbePlan::QUICK).unwrap();
            assert!(report.usable(), "{fault:?}: {report:?}");
        }
    }

    /// A store that is broken in one way.
    #[derive(Clone)]
    struct Broken(MemoryStore, &'static str);

    impl Store for Broken {
        fn describe(&self) -> String {
            self.1.to_owned()
        }
        fn create(&self, key: &Key, bytes: &[u8]) -> Result<Created, StoreError> {
            match self.1 {
                "ignores the condition" => {
                    self.0.overwrite(key, bytes);
                    Ok(Created::New)
                }
                "overwrites and refuses" => {
                    let answer = self.0.create(key, bytes);
                    self.0.overwrite(key, bytes);
                    answer
                }
                _ => self.0.create(key, bytes),
            }
        }
        fn begin(&self, key: &Key) -> Result<Box<dyn Pending>, StoreError> {
            self.0.begin(key)
        }
        fn make_durable(&self, key: &Key) -> Result<(), StoreError> {
            self.0.make_durable(key)
        }
        fn read(&self, key: &Key, limit: ByteCount) -> Result<Vec<u8>, StoreError> {
            let mut bytes = self.0.read(key, limit)?;
            if self.1 == "reads wrong" && key.as_str().ends_with("seen/object") {
                bytes[0] ^= 1;
            }
            Ok(bytes)
        }
        fn read_range(&self, key: &Key, range: Range<u64>) -> Result<Vec<u8>, StoreError> {
            self.0.read_range(key, if self.1 == "ignores ranges" { 0..u64::MAX } else { range })
        }
        fn read_end(&self, key: &Key, length: u64) -> Result<(Vec<u8>, ByteCount), StoreError> {
            self.0.read_end(key, length)
        }
        fn size(&self, key: &Key) -> Result<Option<ByteCount>, StoreError> {
            self.0.size(key)
        }
        fn list(&self, folder: &Key, each: &mut dyn FnMut(Listed)) -> Result<(), StoreError> {
            if self.1 == "lists late" { Ok(()) } else { self.0.list(folder, each) }
        }
        fn list_after(&self, folder: &Key, point: &Key) -> Result<Option<Vec<Listed>>, StoreError> {
            match self.1 {
                "ignores points" => self.0.list_after(folder, folder),
                "shows nothing after points" => Ok(Some(Vec::new())),
                "refuses points" => Err(StoreError {
                    kind: StoreErrorKind::Unsupported,
                    what: format!("could not list {folder}"),
                    source: None,
                }),
                _ => self.0.list_after(folder, point),
            }
        }
        fn folder(&self, folder: Option<&Key>) -> Result<Folder, StoreError> {
            self.0.folder(folder)
        }
        fn delete(&self, key: &Key) -> Result<(), StoreError> {
            match self.1 {
                "may not delete" => Err(StoreError {
                    kind: StoreErrorKind::Denied,
                    what: format!("could not delete {key}"),
                    source: None,
                }),
                "does not delete" => Ok(()),
                _ => self.0.delete(key),
            }
        }
    }

    #[test]
    fn each_broken_promise_is_named() {
        for (defect, broken) in [
            ("ignores the condition", "atomic_create"),
            ("overwrites and refuses", "atomic_create"),
            ("reads wrong", "read_after_create"),
            ("lists late", "list_after_create"),
            ("ignores points", "list_from_a_point"),
            ("shows nothing after points", "list_from_a_point"),
            ("refuses points", "list_from_a_point"),
            ("ignores ranges", "ranges"),
            ("may not delete", "may_delete"),
            ("does not delete", "may_delete"),
        ] {
            let report = probe(&Broken(MemoryStore::new(), defect), &folder(), ProbePlan::QUICK).unwrap();
            let findings = [
                ("atomic_create", &report.atomic_create),
                ("read_after_create", &report.read_after_create),
                ("list_after_create", &report.list_after_create),
                ("list_from_a_point", &report.list_from_a_point),
                ("ranges", &report.ranges),
                ("may_delete", &report.may_delete),
            ];
            for (name, finding) in findings {
                assert_eq!(!finding.holds(), name == broken, "{defect}: {name}: {finding:?}");
            }
            assert_eq!(report.usable(), matches!(broken, "may_delete" | "list_from_a_point"));
        }
    }
}
