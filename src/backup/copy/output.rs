//! Finished jobs, stored in the order of the stream by whoever brings the next one.
//!
//! Workers finish out of order. One that is not next leaves its job here and goes on; the one that is next stores
//! its own and all that were waiting for it. While somebody stores nobody else does, and nobody waits for it: those
//! who come meanwhile leave their jobs too. What bounds memory is the number of buffers.

use super::CopyError;
use super::job::Job;
use super::writer::{Packed, Writer};
use crate::repo::RepoError;
use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The one place that all workers share behind the stream.
pub(super) struct Output<'a, 'b> {
    state: Mutex<State<'a, 'b>>,
    changed: Condvar,
}

struct State<'a, 'b> {
    /// Buffers that nobody uses.
    empty: Vec<Job>,
    /// Jobs that came before their turn.
    early: BTreeMap<u64, Job>,
    /// The job that is stored next.
    next: u64,
    /// Absent while somebody stores.
    writer: Option<Writer<'a, 'b>>,
    /// Nothing more is worth doing; why, where a stage said so.
    stopped: Option<Option<Trouble>>,
}

/// What may go wrong behind the stream.
pub(super) enum Trouble {
    Repo(RepoError),
    Codec(std::io::Error),
}

impl Trouble {
    pub fn into_error<E>(self) -> CopyError<E> {
        match self {
            Self::Repo(error) => CopyError::Repo(error),
            Self::Codec(error) => CopyError::Codec(error),
        }
    }
}

impl<'a, 'b> Output<'a, 'b> {
    /// `buffers` jobs go round, beside the one that the framer begins with.
    pub fn new(buffers: usize, writer: Writer<'a, 'b>) -> Self {
        let state = State {
            empty: (0..buffers).map(|_| Job::new()).collect(),
            early: BTreeMap::new(),
            next: 0,
            writer: Some(writer),
            stopped: None,
        };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State<'a, 'b>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A buffer that is free, waited for. `None`: the copy has been stopped.
    pub fn empty(&self) -> Option<Job> {
        let mut state = self.lock();
        loop {
            if state.stopped.is_some() {
                return None;
            }
            match state.empty.pop() {
                Some(job) => return Some(job),
                None => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// Takes a finished job, and stores it and what waited for it unless somebody is storing already.
    pub fn put(&self, job: Job) {
        let mut state = self.lock();
        state.early.insert(job.number, job);
        // Whoever has it takes this job too.
        let Some(mut writer) = state.writer.take() else { return };
        loop {
            let next = state.next;
            let Some(mut job) = state.early.remove(&next) else { break };
            drop(state);
            let stored = writer.store(&mut job);
            state = self.lock();
            if let Err(error) = stored {
                self.stop(state, error.map(Trouble::Repo));
                return;
            }
            state.next += 1;
            state.empty.push(job);
            self.changed.notify_one();
        }
        state.writer = Some(writer);
    }

    /// Whether the copy has been ended.
    pub fn is_stopped(&self) -> bool {
        self.lock().stopped.is_some()
    }

    /// Ends the copy: nobody waits any more, nothing is read or stored. The first that says why is believed.
    pub fn fail(&self, why: Option<Trouble>) {
        self.stop(self.lock(), why);
    }

    fn stop(&self, mut state: MutexGuard<'_, State<'a, 'b>>, why: Option<Trouble>) {
        if !matches!(state.stopped, Some(Some(_))) {
            state.stopped = Some(why);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// When all workers have ended: closes the last pack. `jobs` is how many the source made; all of them must have
    /// been stored.
    ///
    /// # Errors
    /// Why it was stopped, as far as a stage said so.
    pub fn finish(self, jobs: Option<u64>) -> Result<Packed, Option<Trouble>> {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(why) = state.stopped {
            return Err(why);
        }
        match state.writer {
            Some(writer) if jobs == Some(state.next) && state.early.is_empty() => {
                writer.finish().map_err(|error| error.map(Trouble::Repo))
            }
            _ => Err(None),
        }
    }
}
