//! The copy pipeline: files in, packs and sorted map entries out.
//!
//! ```text
//! Framer ─ jobs ─┬─ worker: hash, page checksums, codec ─┬─ writer: seal, packs in order ─ committer: sync
//! (the stream)   └─ … process-max …                     ┘         └─ file entries ─ external sort
//! ```
//! Every queue is bounded by a fixed number of jobs. The end is explicit: the writer has seen everything only
//! when the framer told it how many jobs there were; a queue that merely closes is a failure.

mod framer;
mod job;
mod writer;

pub use framer::{Framer, SHARED_FILE};
pub use job::FileHead;

use crate::env::Env;
use crate::postgres::page::{self, PageState};
use crate::repo::frame::{Compression, FrameDecoder, FrameEncoder};
use crate::repo::map::{EntrySorter, SortedEntries};
use crate::repo::record::{PageFailure, UsedPack};
use crate::repo::{RepoError, Repository};
use crate::units::{BackupId, Lsn, Stanza};
use job::{BadPage, Job, Step};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

/// A stage ended because another did. Never shown: the other's error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped;

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
    /// Worker threads, at least one.
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

/// What the writer is told.
enum Done {
    Job(Job),
    End {
        jobs: u64,
    },
    /// A worker ended early, and a job with it: the end will not come.
    Lost,
}

/// Runs `source`, which feeds a [`Framer`], against the workers and the writer, and returns when all of them
/// have ended. `source` runs on the calling thread and gives the framer back when the stream was complete.
///
/// After `Ok` every pack is durable; nothing refers to them yet. After `Err` packs may be left under the
/// backup's own prefix.
///
/// # Errors
/// The first stage's error; of several, the source's only when no other stage failed before it.
pub fn copy<E>(
    repository: &Repository,
    stanza: &Stanza,
    id: &BackupId,
    settings: &CopySettings,
    env: &dyn Env,
    source: impl FnOnce(Framer) -> Result<Framer, SourceEnd<E>>,
) -> Result<Copied, CopyError<E>> {
    let workers = settings.workers.max(1);
    let in_flight = workers * 2 + 2;
    let (free_sender, free) = sync_channel::<Job>(in_flight + 1);
    for _ in 0..in_flight {
        // The channel holds them all.
        let _ = free_sender.send(Job::new());
    }
    let (jobs_sender, jobs) = sync_channel::<Job>(in_flight);
    let (done_sender, done) = sync_channel::<Done>(in_flight + 1);
    let jobs = Mutex::new(jobs);
    let mut sorter = EntrySorter::new(&settings.spool, SORT_BUDGET, env);
    std::thread::scope(|scope| {
        let mut threads = Vec::with_capacity(workers);
        for number in 0..workers {
            let (jobs, done) = (&jobs, done_sender.clone());
            let thread = std::thread::Builder::new().name(format!("backup-{number}"));
            let worker = thread.spawn_scoped(scope, move || {
                let mut loss = TellsLoss { done: &done, orderly: false };
                let result = work(settings, jobs, &done);
                loss.orderly = result.is_ok();
                result
            });
            // The channels close as this returns, so that those that run already end.
            threads.push(worker.map_err(CopyError::Codec)?);
        }
        let sorter = &mut sorter;
        let writing = std::thread::Builder::new()
            .name("backup-writer".to_owned())
            .spawn_scoped(scope, move || {
                writer::write(repository, stanza, id, settings, env, &done, &free_sender, sorter)
            })
            .map_err(CopyError::Codec)?;
        let fed = source(Framer::new(settings.page_size, free, jobs_sender));
        let fed = match fed {
            Ok(framer) => {
                let (bytes, files) = (framer.bytes, framer.files);
                match framer.finish() {
                    Ok(jobs) => {
                        let _ = done_sender.send(Done::End { jobs });
                        Ok((bytes, files))
                    }
                    Err(Stopped) => Err(SourceEnd::Stopped),
                }
            }
            Err(end) => Err(end),
        };
        drop(done_sender);
        let mut codec = None;
        for thread in threads {
            match thread.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => codec = Some(CopyError::Codec(error)),
                Err(_) => codec = Some(CopyError::Interrupted),
            }
        }
        let written = writing.join().unwrap_or(Err(None));
        match (codec, written, fed) {
            (Some(error), ..) => Err(error),
            (None, Err(Some(error)), _) => Err(CopyError::Repo(error)),
            (None, _, Err(SourceEnd::Failed(error))) => Err(CopyError::Source(error)),
            (None, Ok(written), Ok((database_bytes, files))) => Ok((written, database_bytes, files)),
            (None, ..) => Err(CopyError::Interrupted),
        }
    })
    .and_then(|(written, database_bytes, files)| {
        Ok(Copied {
            packs: written.packs,
            stored_bytes: written.stored_bytes,
            database_bytes,
            files,
            entries: sorter.finish().map_err(CopyError::Repo)?,
            failures: written.failures,
            failure_count: written.failure_count,
        })
    })
}

/// How a source ends early.
#[derive(Debug)]
pub enum SourceEnd<E> {
    /// By its own error.
    Failed(E),
    /// Because a later stage did.
    Stopped,
}

impl<E> From<Stopped> for SourceEnd<E> {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

/// Tells the writer when a worker fails or panics. Without it the writer would wait for the lost job, and the
/// framer for one that is free, for ever.
struct TellsLoss<'a> {
    done: &'a SyncSender<Done>,
    orderly: bool,
}

impl Drop for TellsLoss<'_> {
    fn drop(&mut self) {
        if !self.orderly {
            let _ = self.done.send(Done::Lost);
        }
    }
}

fn work(
    settings: &CopySettings,
    jobs: &Mutex<Receiver<Job>>,
    done: &SyncSender<Done>,
) -> std::io::Result<()> {
    let mut encoder = FrameEncoder::new(settings.compression, true)?;
    let mut decoder = if settings.verify_writes { Some(FrameDecoder::new()?) } else { None };
    let mut decoded = Vec::new();
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(mut job) = job else { return Ok(()) };
        let mut frame = 0;
        for (index, step) in job.steps.iter().enumerate() {
            let bytes = match step {
                Step::Frame { bytes, first_block } => {
                    if let (Some(before), Some(first)) = (job.good_before, first_block) {
                        let plain = job.plain.get(bytes.clone()).unwrap_or_default();
                        check_pages(settings.page_size, plain, *first, before, |offset| {
                            job.bad_pages.push(BadPage { step: index, offset });
                        });
                    }
                    bytes
                }
                Step::Shared { bytes, files } => {
                    if let Some(before) = job.good_before {
                        let plain = job.plain.get(bytes.clone()).unwrap_or_default();
                        for (head, offset) in files {
                            let Some(first) = head.first_block else { continue };
                            let start = *offset as usize;
                            let file = plain.get(start..start + head.size as usize).unwrap_or_default();
                            check_pages(settings.page_size, file, first, before, |at| {
                                job.bad_pages.push(BadPage { step: index, offset: start + at });
                            });
                        }
                    }
                    bytes
                }
                _ => continue,
            };
            if job.encoded.len() <= frame {
                job.encoded.push(crate::repo::frame::EncodedFrame::default());
            }
            let plain = job.plain.get(bytes.clone()).unwrap_or_default();
            let encoded = &mut job.encoded[frame];
            encoder.encode(plain, encoded)?;
            if let (Some(decoder), Some(info)) = (&mut decoder, encoded.info()) {
                decoder.decode(&info, &encoded.bytes, &mut decoded).map_err(|_| {
                    std::io::Error::other("a frame did not decode to what was encoded: faulty memory?")
                })?;
            }
            frame += 1;
        }
        if done.send(Done::Job(job)).is_err() {
            return Ok(());
        }
    }
}

/// Gives the offset of each whole page that fails its checksum and was not being written. A part of a page at
/// the end is left alone: the file was being extended, WAL completes it.
fn check_pages(page_size: u32, bytes: &[u8], first: u32, before: Lsn, mut bad: impl FnMut(usize)) {
    for (index, page) in bytes.chunks_exact(page_size as usize).enumerate() {
        let block = first.wrapping_add(index as u32);
        // A page with a later LSN was being written while it was read: WAL holds all of it.
        if matches!(page::check(page, block), Some(PageState::Damaged { lsn, .. }) if lsn < before) {
            bad(index * page_size as usize);
        }
    }
}

#[cfg(test)]
mod tests;
