//! A store that tries again where that may help.
//!
//! Only [`StoreErrorKind::Unavailable`] is tried again. Safe for every call: creates compare with what is
//! there, so the second of two finds its own work, and reads and deletes may be repeated. What a caller gets
//! after a lost answer is [`Created::Same`] where the first attempt got through.
//!
//! Not repeated: a [`Pending`] of a store that does not gather (its pieces are gone), and a listing that
//! broke off after it had shown something. Their callers start over.

use super::gathered::Gathered;
use super::{Created, Folder, Key, Listed, Pending, Store, StoreError, StoreErrorKind};
use crate::units::ByteCount;
use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often, and how long between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts in all, at least one.
    pub attempts: u32,
    /// The longest pause after the first attempt; it doubles each time.
    pub first_pause: Duration,
    /// What the pauses never exceed.
    pub longest_pause: Duration,
    /// No attempt is begun so long after the first began. (One that has begun ends by its own time-outs.)
    pub give_up_after: Duration,
}

impl Default for RetryPolicy {
    /// Six attempts with at most 12.4 s between them, none after two minutes.
    fn default() -> Self {
        let millis = Duration::from_millis;
        Self {
            attempts: 6,
            first_pause: millis(400),
            longest_pause: millis(10_000),
            give_up_after: Duration::from_secs(120),
        }
    }
}

impl RetryPolicy {
    /// As many attempts as fit into `length`, at least one.
    #[must_use]
    pub fn for_up_to(length: Duration) -> Self {
        Self { attempts: u32::MAX, give_up_after: length, ..Self::default() }
    }

    /// What comes of `call`, made again while it fails with [`StoreErrorKind::Unavailable`].
    ///
    /// # Errors
    /// That of the last attempt.
    pub fn run<T>(&self, mut call: impl FnMut() -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.run_while(&sleep_part, &mut || true, &mut call)
    }

    fn run_while<T>(
        &self,
        sleep: &dyn Fn(Duration),
        may_repeat: &mut dyn FnMut() -> bool,
        call: &mut dyn FnMut() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let begun = Instant::now();
        let mut pause = self.first_pause;
        let mut left = self.attempts;
        loop {
            left = left.saturating_sub(1);
            let next_pause = pause.min(self.longest_pause);
            match call() {
                Err(e)
                    if e.kind == StoreErrorKind::Unavailable
                        && left > 0
                        && begun.elapsed() + next_pause < self.give_up_after
                        && may_repeat() => {}
                answer => return answer,
            }
            sleep(next_pause);
            pause = pause.saturating_mul(2);
        }
    }
}

/// Sleeps a random half to whole of `pause`, so that many processes that failed together do not come back
/// together.
fn sleep_part(pause: Duration) {
    let mut random = [0; 4];
    // Without randomness the pause is the whole: no secret hangs on it.
    let part = getrandom::fill(&mut random).map_or(u32::MAX, |()| u32::from_le_bytes(random));
    std::thread::sleep(pause / 2 + (pause / 2).mul_f64(f64::from(part) / f64::from(u32::MAX)));
}

type Sleep = Arc<dyn Fn(Duration) + Send + Sync>;

/// See the module. Clones share the store.
#[derive(Clone)]
pub struct RetryStore<S> {
    inner: S,
    policy: RetryPolicy,
    sleep: Sleep,
}

impl<S: Store> RetryStore<S> {
    /// `inner`, asked again by `policy`, with a random half to whole of each pause between.
    #[must_use]
    pub fn new(inner: S, policy: RetryPolicy) -> Self {
        Self::with_sleep(inner, policy, sleep_part)
    }

    /// The same with another way to pass the pauses, for tests.
    #[must_use]
    pub fn with_sleep(
        inner: S,
        policy: RetryPolicy,
        sleep: impl Fn(Duration) + Send + Sync + 'static,
    ) -> Self {
        Self { inner, policy, sleep: Arc::new(sleep) }
    }

    fn attempt<T>(&self, mut call: impl FnMut() -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.attempt_while(|| true, &mut call)
    }

    fn attempt_while<T>(
        &self,
        mut may_repeat: impl FnMut() -> bool,
        call: &mut dyn FnMut() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.policy.run_while(&*self.sleep, &mut may_repeat, call)
    }
}

impl<S: Store + Clone + 'static> Store for RetryStore<S> {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn create(&self, key: &Key, bytes: &[u8]) -> Result<Created, StoreError> {
        if self.inner.gathers() {
            // The store would copy them for each attempt.
            return self.create_shared(key, &Bytes::copy_from_slice(bytes));
        }
        self.attempt(|| self.inner.create(key, bytes))
    }

    fn create_shared(&self, key: &Key, bytes: &Bytes) -> Result<Created, StoreError> {
        self.attempt(|| self.inner.create_shared(key, bytes))
    }

    fn begin(&self, key: &Key) -> Result<Box<dyn Pending>, StoreError> {
        if self.inner.gathers() {
            return Ok(Box::new(Gathered::new(self.clone(), key.clone())));
        }
        self.attempt(|| self.inner.begin(key))
    }

    fn gathers(&self) -> bool {
        self.inner.gathers()
    }

    fn free_space(&self) -> Option<ByteCount> {
        self.inner.free_space()
    }

    fn make_durable(&self, key: &Key) -> Result<(), StoreError> {
        self.attempt(|| self.inner.make_durable(key))
    }

    fn read(&self, key: &Key, limit: ByteCount) -> Result<Vec<u8>, StoreError> {
        self.attempt(|| self.inner.read(key, limit))
    }

    fn read_range(&self, key: &Key, range: Range<u64>) -> Result<Vec<u8>, StoreError> {
        self.attempt(|| self.inner.read_range(key, range.clone()))
    }

    fn read_end(&self, key: &Key, length: u64) -> Result<(Vec<u8>, ByteCount), StoreError> {
        self.attempt(|| self.inner.read_end(key, length))
    }

    fn size(&self, key: &Key) -> Result<Option<ByteCount>, StoreError> {
        self.attempt(|| self.inner.size(key))
    }

    fn list(&self, folder: &Key, each: &mut dyn FnMut(Listed)) -> Result<(), StoreError> {
        // What was shown cannot be taken back, and the next attempt would show it again.
        let shown = std::cell::Cell::new(false);
        self.attempt_while(|| !shown.get(), &mut || {
            self.inner.list(folder, &mut |listed| {
                shown.set(true);
                each(listed);
            })
        })
    }

    fn list_after(&self, folder: &Key, point: &Key) -> Result<Option<Vec<Listed>>, StoreError> {
        self.attempt(|| self.inner.list_after(folder, point))
    }

    fn folder(&self, folder: Option<&Key>) -> Result<Folder, StoreError> {
        self.attempt(|| self.inner.folder(folder))
    }

    fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.attempt(|| self.inner.delete(key))
    }

    fn remove_leftovers(&self) -> Result<u64, StoreError> {
        self.attempt(|| self.inner.remove_leftovers())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::faulty::{Fault, FaultyStore};
    use crate::storage::memory::MemoryStore;
    use std::sync::Mutex;

    fn key(name: &str) -> Key {
        Key::new(name).unwrap()
    }

    type Pauses = Arc<Mutex<Vec<u64>>>;

    fn retry<S: Store>(inner: S) -> (RetryStore<S>, Pauses) {
        let pauses = Pauses::default();
        let noted = Arc::clone(&pauses);
        let policy = RetryPolicy {
            attempts: 4,
            first_pause: Duration::from_millis(100),
            longest_pause: Duration::from_millis(300),
            give_up_after: Duration::from_secs(60),
        };
        let sleep = move |pause: Duration| noted.lock().unwrap().push(pause.as_millis() as u64);
        (RetryStore::with_sleep(inner, policy, sleep), pauses)
    }

    #[test]
    fn a_call_that_failed_is_made_again_and_a_lost_answer_shows_as_same() {
        let one_down = FaultyStore::failing_only(MemoryStore::new(), 0, Fault::NeverSent);
        let (store, pauses) = retry(one_down);
        assert_eq!(store.create(&key("a"), b"x").unwrap(), Created::New);
        assert_eq!(*pauses.lock().unwrap(), [100]);

        let one_lost = FaultyStore::failing_only(MemoryStore::new(), 0, Fault::ReplyLost);
        let (store, _) = retry(one_lost);
        assert_eq!(store.create(&key("a"), b"x").unwrap(), Created::Same);
        assert_eq!(store.create(&key("a"), b"y").unwrap_err().kind, StoreErrorKind::Taken);
    }

    #[test]
    fn attempts_and_pauses_are_bounded() {
        let dead = FaultyStore::failing_from(MemoryStore::new(), 0, Fault::NeverSent);
        let (store, pauses) = retry(dead.clone());
        assert_eq!(store.create(&key("a"), b"x").unwrap_err().kind, StoreErrorKind::Unavailable);
        assert_eq!(*pauses.lock().unwrap(), [100, 200, 300]);
        assert_eq!(dead.calls(), 4);
    }

    #[test]
    fn no_attempt_is_begun_when_its_time_is_over() {
        let dead = FaultyStore::failing_from(MemoryStore::new(), 0, Fault::NeverSent);
        for (length, calls) in [(0, 1), (150, 2), (350, 3)] {
            let length = Duration::from_millis(length);
            let policy =
                RetryPolicy { first_pause: Duration::from_millis(100), ..RetryPolicy::for_up_to(length) };
            let before = dead.calls();
            let asked = RetryStore::with_sleep(dead.clone(), policy, std::thread::sleep).size(&key("a"));
            assert_eq!(asked.unwrap_err().kind, StoreErrorKind::Unavailable);
            assert_eq!(dead.calls() - before, calls, "{length:?}");
        }
    }

    #[test]
    fn what_trying_again_cannot_help_is_tried_once() {
        for kind in [StoreErrorKind::Denied, StoreErrorKind::Full, StoreErrorKind::Unsupported] {
            let refusing = FaultyStore::failing_from(MemoryStore::new(), 0, Fault::NeverSent).with_kind(kind);
            let (store, _) = retry(refusing.clone());
            assert_eq!(store.delete(&key("a")).unwrap_err().kind, kind);
            assert_eq!(refusing.calls(), 1);
        }
        let counting = FaultyStore::counting(MemoryStore::new());
        let (store, _) = retry(counting.clone());
        assert_eq!(store.read_range(&key("a"), 0..1).unwrap_err().kind, StoreErrorKind::NotFound);
        assert_eq!(counting.calls(), 1);
    }

    #[test]
    fn a_commit_is_repeated_where_the_object_is_in_memory() {
        let lost = FaultyStore::failing_only(MemoryStore::new(), 0, Fault::ReplyLost);
        let (store, _) = retry(lost);
        let mut pending = store.begin(&key("a")).unwrap();
        pending.write(b"one").unwrap();
        pending.write(b"two").unwrap();
        assert_eq!(pending.commit().unwrap(), Created::Same);
        assert_eq!(store.read(&key("a"), ByteCount::new(9)).unwrap(), b"onetwo");
    }

    #[test]
    fn a_listing_is_repeated_only_before_it_showed_anything() {
        let memory = MemoryStore::new();
        for i in 0..4 {
            memory.create(&key(&format!("l/{i}")), b"").unwrap();
        }
        for (fault, complete) in [(Fault::NeverSent, true), (Fault::ReplyLost, false)] {
            let (store, _) = retry(FaultyStore::failing_only(memory.clone(), 0, fault));
            let mut seen = Vec::new();
            let listed = store.list(&key("l"), &mut |l| seen.push(l.key));
            assert_eq!(listed.is_ok(), complete);
            assert_eq!(seen.len(), if complete { 4 } else { 2 });
        }
    }
}
