//! Whose turn it is at the stream.
//!
//! The stream is one and its readers are many: whoever is free takes the lock, runs the source until a job is full,
//! and goes away with the job. The source is a future, so that it stops in the middle of a file and another thread
//! goes on with it there. No thread only reads, and nothing is handed from one thread to another but the turn.

use super::framer::{Framer, Misfed};
use super::job::Job;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use tokio::runtime::Runtime;

/// How a source ends early.
#[derive(Debug)]
pub enum SourceEnd<E> {
    /// By its own error.
    Failed(E),
    /// What it fed was no sequence of files: a bug.
    Misfed,
}

impl<E> From<Misfed> for SourceEnd<E> {
    fn from(_: Misfed) -> Self {
        Self::Misfed
    }
}

/// What a source that came to its end fed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fed {
    /// Jobs that it made.
    pub jobs: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Regular files.
    pub files: u64,
}

/// Where the framer puts a full job and takes an empty one.
#[derive(Default)]
pub(super) struct Handover(Mutex<Buffers>);

#[derive(Default)]
struct Buffers {
    full: Option<Job>,
    empty: Option<Job>,
}

impl Handover {
    fn lock(&self) -> MutexGuard<'_, Buffers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives `full` away and waits for the next turn, which brings an empty one.
    pub async fn exchange(&self, full: Job) -> Job {
        self.lock().full = Some(full);
        // Whoever brings it polls at once: nobody needs to be woken.
        poll_fn(|_| self.lock().empty.take().map_or(Poll::Pending, Poll::Ready)).await
    }
}

/// What a turn brought.
pub(super) enum Turn<E> {
    /// A job to be worked on.
    Full(Job),
    /// The source came to its end with this turn.
    Ended(Result<Fed, SourceEnd<E>>),
    /// It had ended before.
    Over,
}

type Feeding<'a, E> = Pin<Box<dyn Future<Output = Result<Fed, SourceEnd<E>>> + Send + 'a>>;

/// A source and what is known of it, to be kept under a lock.
pub(super) struct Source<'a, E> {
    feeding: Option<Feeding<'a, E>>,
    handover: Arc<Handover>,
    /// Whether the framer has a buffer: it begins with one.
    has_buffer: bool,
    runtime: &'a Runtime,
}

impl<'a, E: 'a> Source<'a, E> {
    pub fn new<F>(runtime: &'a Runtime, page_size: u32, source: impl FnOnce(Framer) -> F) -> Self
    where
        F: Future<Output = Result<Framer, SourceEnd<E>>> + Send + 'a,
    {
        let handover = Arc::new(Handover::default());
        let feeding = source(Framer::new(page_size, Arc::clone(&handover), Job::new()));
        let feeding = async move {
            let framer = feeding.await?;
            let (bytes, files) = (framer.bytes, framer.files);
            let jobs = framer.finish().await?;
            Ok(Fed { jobs, bytes, files })
        };
        Self { feeding: Some(Box::pin(feeding)), handover, has_buffer: true, runtime }
    }

    /// Runs the source until it has filled a job. `empty` is asked for the buffer that the next one goes into;
    /// without one nothing is read any more.
    pub fn turn(&mut self, empty: impl FnOnce() -> Option<Job>) -> Turn<E> {
        let Some(feeding) = &mut self.feeding else { return Turn::Over };
        if !self.has_buffer {
            let Some(job) = empty() else { return Turn::Over };
            self.handover.lock().empty = Some(job);
            self.has_buffer = true;
        }
        let handover = &self.handover;
        let step = poll_fn(|context| match feeding.as_mut().poll(context) {
            Poll::Ready(end) => Poll::Ready(Turn::Ended(end)),
            Poll::Pending => match handover.lock().full.take() {
                Some(job) => Poll::Ready(Turn::Full(job)),
                None => Poll::Pending,
            },
        });
        let turn = self.runtime.block_on(step);
        self.has_buffer = false;
        if matches!(turn, Turn::Ended(_)) {
            self.feeding = None;
        }
        turn
    }
}
