//! The copy pipeline: files in, packs and sorted map entries out.
//!
//! ```text
//! source ─ framer ─ worker: hash, page checksums, codec ─ writer: seal, packs in order ─ committer: sync
//! └─ one worker at a time ─┘        └─ all at once ─┘    └─ one at a time ─┘ └─ file entries ─ external sort
//! ```
//! Every worker goes the whole way with its job: it takes its turn at the stream until a job is full, works on it
//! beside the others, and stores it, or leaves it to the one whose turn that is. A job thus stays in one core's
//! cache, and threads wake each other only where one would have to wait. The number of buffers is fixed. The end is
//! explicit: everything is stored only when as many jobs were stored as the framer made.

mod framer;
mod job;
mod output;
mod source;
mod worker;
mod writer;

pub use framer::{Framer, Misfed, SHARED_FILE};
pub use job::FileHead;
pub use source::SourceEnd;

use crate::env::Env;
use crate::repo::frame::Compression;
use crate::repo::map::{EntrySorter, SortedEntries};
use crate::repo::record::{PageFailure, UsedPack};
use crate::repo::{RepoError, Repository};
use crate::units::{BackupId, Stanza};
use output::{Output, Trouble};
use source::{Fed, Source, Turn};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use tokio::runtime::Runtime;
use worker::Worker;
use writer::{Committing, Writer};

/// Why the copy failed.
#[derive(Debug)]
pub enum CopyError<E> {
    /// The source of files.
    Source(E),
    /// The repository.
    Repo(RepoError),
    /// A codec or a thread, for lack of memory.
    Codec(std::io::Error),
    /// A stage ended without saying why: a bug.
    Interrupted,
}

/// How to copy.
#[derive(Clone, Debug)]
pub struct CopySettings {
    /// Workers, at least one. There is a thread more, because one at a time reads the stream; while nobody needs to, all
    /// of them hash and compress.
    pub workers: usize,
    /// How frames are compressed.
    pub compression: Compression,
    /// Stored bytes at which a pack is closed.
    pub pack_size: u64,
    /// Bytes of a page of the cluster.
    pub page_size: u32,
    /// Where entries are sorted when they are too many for memory.
    pub spool: PathBuf,
    /// Whether every frame is decoded again before it is stored: catches memory errors, costs a restore.
    pub verify_writes: bool,
    /// Packs being made durable at the same time.
    pub commits: usize,
}

/// What a finished copy stored.
#[derive(Debug)]
pub struct Copied {
    /// Every pack, by number.
    pub packs: Vec<UsedPack>,
    /// Stored bytes of the packs.
    pub stored_bytes: u64,
    /// Bytes of all files.
    pub database_bytes: u64,
    /// Regular files.
    pub files: u64,
    /// Entries in order, for the map.
    pub entries: SortedEntries,
    /// The first pages that failed, at most [`MOST_FAILURES`].
    pub failures: Vec<PageFailure>,
    /// How many failed.
    pub failure_count: u64,
}

/// Failed pages that are named one by one.
pub const MOST_FAILURES: usize = 10_000;
/// Bytes of map entries that are kept in memory before they go to the spool.
const SORT_BUDGET: usize = 2 << 20;

/// Runs `source`, which feeds a [`Framer`], and stores what it feeds; returns when all threads have ended. The
/// source is a future that the workers run in turn, each until a job is full, with the timers and sockets of
/// `runtime`. It gives the framer back when the stream was complete; when a later stage fails it is dropped where it
/// is.
///
/// After `Ok` every pack is durable; nothing refers to them yet. After `Err` packs may be left under the
/// backup's own prefix.
///
/// # Errors
/// The first stage's error; of several, the source's only when no other stage failed before it.
pub fn copy<'a, E, F>(
    repository: &Repository,
    stanza: &Stanza,
    id: &BackupId,
    settings: &CopySettings,
    env: &dyn Env,
    runtime: &'a Runtime,
    source: impl FnOnce(Framer) -> F,
) -> Result<Copied, CopyError<E>>
where
    E: Send + 'a,
    F: Future<Output = Result<Framer, SourceEnd<E>>> + Send + 'a,
{
    let mut sorter = EntrySorter::new(&settings.spool, SORT_BUDGET, env);
    let (commits, committing) = Committing::new(repository);
    let (packed, fed) = std::thread::scope(|scope| {
        for number in 0..settings.commits.max(1) {
            let thread = std::thread::Builder::new().name(format!("backup-sync-{number}"));
            match thread.spawn_scoped(scope, || committing.run()) {
                Ok(_) => {}
                // Fewer will do.
                Err(_) if number > 0 => break,
                Err(error) => return Err(CopyError::Codec(error)),
            }
        }
        let writer = Writer::new(repository, stanza, id, settings, env, (commits, &committing), &mut sorter);
        let source = Source::new(runtime, settings.page_size, source);
        run(settings, source, writer).map_err(|error| match (error, committing.give_up()) {
            // A writer that was refused does not know why; a source that failed afterwards is not why.
            (CopyError::Interrupted | CopyError::Source(_), Some(Some(error))) => CopyError::Repo(error),
            (error, _) => error,
        })
    })?;
    match committing.failure() {
        None => {}
        Some(Some(error)) => return Err(CopyError::Repo(error)),
        Some(None) => return Err(CopyError::Interrupted),
    }
    Ok(Copied {
        packs: packed.packs,
        stored_bytes: packed.stored_bytes,
        database_bytes: fed.bytes,
        files: fed.files,
        entries: sorter.finish().map_err(CopyError::Repo)?,
        failures: packed.failures,
        failure_count: packed.failure_count,
    })
}

/// The workers, from the first to the last of them.
fn run<'a, E: Send + 'a>(
    settings: &CopySettings,
    source: Source<'a, E>,
    writer: Writer<'_, '_>,
) -> Result<(writer::Packed, Fed), CopyError<E>> {
    let threads = settings.workers.max(1) + 1;
    // One for each, and one that waits to be stored or filled.
    let output = Output::new(threads + 1, writer);
    let source = Mutex::new(source);
    let ended = Mutex::new(None);
    std::thread::scope(|scope| {
        let mut started = Vec::with_capacity(threads);
        // Nobody reads before everybody is there: a source may wait for minutes before its first byte.
        let gate = source.lock();
        for number in 0..threads {
            let worker = match Worker::new(settings) {
                Ok(worker) => worker,
                Err(error) => {
                    output.fail(Some(Trouble::Codec(error)));
                    break;
                }
            };
            let thread = std::thread::Builder::new().name(format!("backup-{number}"));
            let (source, output, ended) = (&source, &output, &ended);
            let thread = thread.spawn_scoped(scope, move || {
                let mut ends = Ends { output, orderly: false };
                if let Some(end) = work(worker, source, output) {
                    if end.is_err() {
                        output.fail(None);
                    }
                    *ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(end);
                }
                ends.orderly = true;
            });
            match thread {
                Ok(thread) => started.push(thread),
                Err(error) => {
                    output.fail(Some(Trouble::Codec(error)));
                    break;
                }
            }
        }
        drop(gate);
        for thread in started {
            // One that panicked has told the others.
            let _ = thread.join();
        }
    });
    // What it holds of the connection goes before anybody asks what became of that.
    drop(source);
    let ended = ended.into_inner().unwrap_or_else(PoisonError::into_inner);
    let jobs = ended.as_ref().and_then(|end| end.as_ref().ok()).map(|fed: &Fed| fed.jobs);
    match (output.finish(jobs), ended) {
        (Ok(packed), Some(Ok(fed))) => Ok((packed, fed)),
        (Err(Some(trouble)), _) => Err(trouble.into_error()),
        (_, Some(Err(SourceEnd::Failed(error)))) => Err(CopyError::Source(error)),
        _ => Err(CopyError::Interrupted),
    }
}

/// Tells the others when a worker panics. Without it they would wait for its job and its buffer for ever.
struct Ends<'o, 'a, 'b> {
    output: &'o Output<'a, 'b>,
    orderly: bool,
}

impl Drop for Ends<'_, '_, '_> {
    fn drop(&mut self) {
        if !self.orderly {
            self.output.fail(None);
        }
    }
}

/// One worker, until there is nothing more to do. How the source ended, if this one was there.
fn work<'a, E: 'a>(
    mut worker: Worker,
    source: &Mutex<Source<'a, E>>,
    output: &Output<'_, '_>,
) -> Option<Result<Fed, SourceEnd<E>>> {
    loop {
        // Whoever panicked at the stream left it where nobody can go on.
        let Ok(mut turn) = source.lock() else { return None };
        if output.is_stopped() {
            return None;
        }
        let mut job = match turn.turn(|| output.empty()) {
            Turn::Full(job) => job,
            Turn::Ended(end) => return Some(end),
            Turn::Over => return None,
        };
        drop(turn);
        if let Err(error) = worker.work(&mut job) {
            output.fail(Some(Trouble::Codec(error)));
            return None;
        }
        output.put(job);
    }
}

#[cfg(test)]
mod tests;
