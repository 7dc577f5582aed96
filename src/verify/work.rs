//! Many threads at one list of jobs, and what they have in common: the pace, and when to give up.

use super::{Observer, VerifyError};
use crate::repo::RepoError;
use crate::repo::frame::FrameDecoder;
use crate::storage::StoreErrorKind;
use crate::units::ByteCount;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// When a store has failed so often in a row, what is left is not asked for any more.
const PATIENCE: u32 = 10;
/// The longest sleep between two looks at whether to stop.
const NAP: Duration = Duration::from_millis(100);

/// Counts what is read, holds the pace, and notices a store that has gone.
pub(super) struct Meter<'a> {
    observer: &'a dyn Observer,
    rate: Option<ByteCount>,
    begun: Instant,
    bytes: AtomicU64,
    objects: AtomicU64,
    failures: AtomicU32,
}

impl<'a> Meter<'a> {
    pub(super) fn new(observer: &'a dyn Observer, rate: Option<ByteCount>) -> Self {
        Self {
            observer,
            rate,
            begun: Instant::now(),
            bytes: AtomicU64::new(0),
            objects: AtomicU64::new(0),
            failures: AtomicU32::new(0),
        }
    }

    /// So many more bytes were read. Sleeps where that was faster than allowed.
    pub(super) fn read(&self, bytes: u64) {
        self.failures.store(0, Ordering::Relaxed);
        self.observer.read(bytes);
        let bytes = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let Some(rate) = self.rate else { return };
        let due = Duration::try_from_secs_f64(bytes as f64 / rate.as_u64().max(1) as f64);
        let due = due.unwrap_or(Duration::MAX);
        while !self.observer.interrupted() {
            match due.checked_sub(self.begun.elapsed()) {
                Some(left) if !left.is_zero() => thread::sleep(left.min(NAP)),
                _ => return,
            }
        }
    }

    /// One more object was read to its end.
    pub(super) fn object(&self) {
        self.objects.fetch_add(1, Ordering::Relaxed);
    }

    /// Looks at what came of asking the store.
    pub(super) fn note(&self, error: &RepoError) {
        let kind = error.store_kind();
        if kind.is_some_and(|kind| kind != StoreErrorKind::NotFound) {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether the store failed so often in a row that asking on would only take time.
    pub(super) fn given_up(&self) -> bool {
        self.failures.load(Ordering::Relaxed) >= PATIENCE
    }

    pub(super) fn check(&self) -> Result<(), VerifyError> {
        if self.observer.interrupted() { Err(VerifyError::Stopped) } else { Ok(()) }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(super) fn objects(&self) -> u64 {
        self.objects.load(Ordering::Relaxed)
    }
}

/// What a worker keeps from one job to the next.
pub(super) struct Bench {
    pub decoder: FrameDecoder,
    pub plain: Vec<u8>,
}

impl Bench {
    pub(super) fn new() -> Result<Self, VerifyError> {
        let decoder = FrameDecoder::new().map_err(VerifyError::Resources)?;
        Ok(Self { decoder, plain: Vec::new() })
    }
}

/// Does every job that `next` gives, on `workers` threads. Jobs are begun in order.
///
/// # Errors
/// The first error of any thread; the others stop at their next job.
pub(super) fn each<J: Send>(
    workers: usize,
    meter: &Meter<'_>,
    next: impl FnMut() -> Result<Option<J>, VerifyError> + Send,
    work: impl Fn(&mut Bench, J) -> Result<(), VerifyError> + Sync,
) -> Result<(), VerifyError> {
    let next = Mutex::new(Some(next));
    let failed: Mutex<Option<VerifyError>> = Mutex::new(None);
    let take = || {
        let mut next = next.lock().unwrap_or_else(PoisonError::into_inner);
        let job = next.as_mut().map_or(Ok(None), |next| meter.check().and_then(|()| next()));
        if !matches!(job, Ok(Some(_))) {
            // Nobody asks again.
            *next = None;
        }
        job
    };
    let run = || -> Result<(), VerifyError> {
        let mut bench = Bench::new()?;
        while let Some(job) = take()? {
            work(&mut bench, job)?;
        }
        Ok(())
    };
    let keep = |result: Result<(), VerifyError>| {
        if let Err(error) = result {
            *next.lock().unwrap_or_else(PoisonError::into_inner) = None;
            failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        }
    };
    thread::scope(|scope| {
        for number in 1..workers.max(1) {
            let builder = thread::Builder::new().name(format!("verify-{number}"));
            // With fewer threads it takes longer.
            if builder.spawn_scoped(scope, || keep(run())).is_err() {
                break;
            }
        }
        keep(run());
    });
    failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}
