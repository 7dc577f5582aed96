//! For tests: a store that counts its calls and fails at a chosen one.
//!
//! Count the calls of a whole operation first, then repeat it once for each call and fault: no place where
//! it may die is left out. A call is each method that takes a key or lists, each [`Pending::write`] and each
//! [`Pending::commit`]. Dropping a [`Pending`] is none.

use super::{Created, Folder, Key, Listed, Pending, Store, StoreError, StoreErrorKind};
use crate::units::ByteCount;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The store never hears of the call.
    NeverSent,
    /// The store does it, and the caller is told that it failed. A listing shows half, a read nothing.
    ReplyLost,
}

impl Fault {
    /// Both, for loops.
    pub const ALL: [Self; 2] = [Self::NeverSent, Self::ReplyLost];
}

#[derive(Clone, Copy, Debug)]
enum When {
    Never,
    Only(u64),
    /// The fault at this call; later ones are never sent: the process is dead.
    From(u64),
}

#[derive(Debug)]
struct Calls {
    made: Vec<String>,
    when: When,
    fault: Fault,
    kind: StoreErrorKind,
}

/// See the module. Clones share the count.
#[derive(Clone, Debug)]
pub struct FaultyStore<S> {
    inner: S,
    calls: Arc<Mutex<Calls>>,
}

impl<S: Store> FaultyStore<S> {
    /// Never fails, only counts.
    pub fn counting(inner: S) -> Self {
        Self::new(inner, When::Never, Fault::NeverSent)
    }

    /// Fails with `fault` at call `at` (from 0) and sends nothing from then on: the death of a process.
    pub fn failing_from(inner: S, at: u64, fault: Fault) -> Self {
        Self::new(inner, When::From(at), fault)
    }

    /// Fails with `fault` at call `at` (from 0) only.
    pub fn failing_only(inner: S, at: u64, fault: Fault) -> Self {
        Self::new(inner, When::Only(at), fault)
    }

    fn new(inner: S, when: When, fault: Fault) -> Self {
        let calls = Calls { made: Vec::new(), when, fault, kind: StoreErrorKind::Unavailable };
        Self { inner, calls: Arc::new(Mutex::new(calls)) }
    }

    /// The same, failing with this kind of error instead of `Unavailable`.
    #[must_use]
    pub fn with_kind(self, kind: StoreErrorKind) -> Self {
        self.lock().kind = kind;
        self
    }

    /// How many calls were made.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.lock().made.len() as u64
    }

    /// The calls that were made: `create shop/walden.json`.
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        self.lock().made.clone()
    }

    /// Every call from the next on works. What was made before stays counted.
    pub fn heal(&self) {
        self.lock().when = When::Never;
    }

    fn lock(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn call<T>(
        &self,
        what: &str,
        key: &str,
        run: impl FnOnce() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        match self.note(what, key) {
            None => run(),
            Some((Fault::NeverSent, e)) => Err(e),
            Some((Fault::ReplyLost, e)) => {
                let _ = run();
                Err(e)
            }
        }
    }

    fn note(&self, what: &str, key: &str) -> Option<(Fault, StoreError)> {
        let mut calls = self.lock();
        let this = calls.made.len() as u64;
        calls.made.push(format!("{what} {key}"));
        let fault = match calls.when {
            When::Only(at) | When::From(at) if this == at => calls.fault,
            When::From(at) if this > at => Fault::NeverSent,
            _ => return None,
        };
        let source = Some(format!("injected at call {this}: {fault:?}").into());
        Some((fault, StoreError { kind: calls.kind, what: format!("could not {what} {key}"), source }))
    }
}

struct FaultyPending<S> {
    store: FaultyStore<S>,
    key: Key,
    /// `None` once a call failed.
    inner: Option<Box<dyn Pending>>,
}

impl<S: Store> Pending for FaultyPending<S> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let mut inner = self.inner.take();
        let written = self.store.call("write", self.key.as_str(), || match &mut inner {
            Some(inner) => inner.write(bytes),
            None => Err(broken(&self.key)),
        });
        if written.is_ok() {
            self.inner = inner;
        }
        written
    }

    fn commit(mut self: Box<Self>) -> Result<Created, StoreError> {
        let inner = self.inner.take();
        self.store.call("commit", self.key.as_str(), || match inner {
            Some(inner) => inner.commit(),
            None => Err(broken(&self.key)),
        })
    }
}

fn broken(key: &Key) -> StoreError {
    StoreError {
        kind: StoreErrorKind::Unavailable,
        what: format!("could not create {key}"),
        source: Some("an earlier write to it failed".into()),
    }
}

impl<S: Store + Clone + 'static> Store for FaultyStore<S> {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn create(&self, key: &Key, bytes: &[u8]) -> Result<Created, StoreError> {
        self.call("create", key.as_str(), || self.inner.create(key, bytes))
    }

    fn create_shared(&self, key: &Key, bytes: &bytes::Bytes) -> Result<Created, StoreError> {
        self.call("create", key.as_str(), || self.inner.create_shared(key, bytes))
    }

    fn begin(&self, key: &Key) -> Result<Box<dyn Pending>, StoreError> {
        let inner = Some(self.call("begin", key.as_str(), || self.inner.begin(key))?);
        Ok(Box::new(FaultyPending { store: self.clone(), key: key.clone(), inner }))
    }

    fn gathers(&self) -> bool {
        self.inner.gathers()
    }

    fn free_space(&self) -> Option<ByteCount> {
        self.inner.free_space()
    }

    fn make_durable(&self, key: &Key) -> Result<(), StoreError> {
        self.call("make durable", key.as_str(), || self.inner.make_durable(key))
    }

    fn read(&self, key: &Key, limit: ByteCount) -> Result<Vec<u8>, StoreError> {
        self.call("read", key.as_str(), || self.inner.read(key, limit))
    }

    fn read_range(&self, key: &Key, range: Range<u64>) -> Result<Vec<u8>, StoreError> {
        self.call("read_range", key.as_str(), || self.inner.read_range(key, range))
    }

    fn read_end(&self, key: &Key, length: u64) -> Result<(Vec<u8>, ByteCount), StoreError> {
        self.call("read_end", key.as_str(), || self.inner.read_end(key, length))
    }

    fn size(&self, key: &Key) -> Result<Option<ByteCount>, StoreError> {
        self.call("size", key.as_str(), || self.inner.size(key))
    }

    fn list(&self, folder: &Key, each: &mut dyn FnMut(Listed)) -> Result<(), StoreError> {
        match self.note("list", folder.as_str()) {
            None => self.inner.list(folder, each),
            Some((Fault::NeverSent, e)) => Err(e),
            Some((Fault::ReplyLost, e)) => {
                let mut all = Vec::new();
                self.inner.list(folder, &mut |listed| all.push(listed))?;
                let half = all.len() / 2;
                all.into_iter().take(half).for_each(each);
                Err(e)
            }
        }
    }

    fn list_after(&self, folder: &Key, point: &Key) -> Result<Option<Vec<Listed>>, StoreError> {
        self.call("list after", point.as_str(), || self.inner.list_after(folder, point))
    }

    fn folder(&self, folder: Option<&Key>) -> Result<Folder, StoreError> {
        self.call("folder", folder.map_or("", Key::as_str), || self.inner.folder(folder))
    }

    fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.call("delete", key.as_str(), || self.inner.delete(key))
    }

    fn remove_leftovers(&self) -> Result<u64, StoreError> {
        self.call("remove leftovers", "", || self.inner.remove_leftovers())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::memory::MemoryStore;

    fn key(name: &str) -> Key {
        Key::new(name).unwrap()
    }

    #[test]
    fn each_fault_does_what_its_name_says() {
        for (fault, stored) in [(Fault::NeverSent, false), (Fault::ReplyLost, true)] {
            let memory = MemoryStore::new();
            let store = FaultyStore::failing_from(memory.clone(), 1, fault);
            store.create(&key("a"), b"").unwrap();
            assert_eq!(store.create(&key("b"), b"").unwrap_err().kind, StoreErrorKind::Unavailable);
            store.create(&key("c"), b"").unwrap_err();
            assert_eq!(memory.size(&key("b")).unwrap().is_some(), stored);
            assert_eq!(memory.size(&key("c")).unwrap(), None);
            assert_eq!(store.log(), ["create a", "create b", "create c"]);
            store.heal();
            store.create(&key("c"), b"").unwrap();
        }
    }

    #[test]
    fn writes_and_commits_are_calls_of_their_own() {
        let memory = MemoryStore::new();
        for (at, fault, stored) in [
            (0, Fault::ReplyLost, false),
            (1, Fault::ReplyLost, false),
            (2, Fault::NeverSent, false),
            (2, Fault::ReplyLost, true),
        ] {
            let store = FaultyStore::failing_only(memory.clone(), at, fault);
            let outcome = store.begin(&key("a")).and_then(|mut pending| {
                pending.write(b"x")?;
                pending.commit()
            });
            assert!(outcome.is_err());
            assert_eq!(store.calls(), at + 1);
            assert_eq!(memory.size(&key("a")).unwrap().is_some(), stored, "{at} {fault:?}");
        }
        let store = FaultyStore::failing_only(memory, 1, Fault::ReplyLost);
        let mut pending = store.begin(&key("b")).unwrap();
        pending.write(b"x").unwrap_err();
        pending.write(b"y").unwrap_err();
        pending.commit().unwrap_err();
    }
}
