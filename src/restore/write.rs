//! Writing the files: packs in order, many files at once, every frame checked.
//!
//! ```text
//! map ─ directories made as they come ─ external sort by pack ─ jobs ─┬─ worker: fetch, check, decode, write
//! (calling thread)                                          (bounded) └─ … process-max …  ─ manifest
//! ```
//! Memory: the map's index, the sorter's budget, and per worker one fetched span and one frame. It does not grow
//! with the size of the database, nor with the number of files.

use super::error::{RestoreError, file};
use super::fetch::{Pacing, Packs};
use super::manifest::Manifest;
use super::tree::{Role, Tree, role, tablespace_of};
use crate::env::Env;
use crate::repo::frame::{DATA_FRAME, FrameDecoder};
use crate::repo::layout;
use crate::repo::map::{Contents, Entry, EntryKind, EntrySorter, FrameRun, MapReader, PackRef};
use crate::repo::object::ObjectReader;
use crate::repo::{RepoError, Repository};
use crate::restore::directory::CONTROL_DRAFT;
use crate::units::{BackupId, Stanza};
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of map entries that are kept in memory before they go to the spool.
const SORT_BUDGET: usize = 4 << 20;
/// Small files of one job.
const MOST_SMALL: usize = 1024;
/// What a restore tells while it runs, and how it is asked to stop.
pub trait Observer: Sync {
    /// Whether to stop. Asked for every job.
    fn interrupted(&self) -> bool;
    /// So many more bytes are written.
    fn wrote(&self, bytes: u64);
    /// What is being done now.
    fn phase(&self, phase: Phase);
}

/// The phases of a restore, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// What is in the way is moved aside or removed.
    Clearing,
    /// Files are written.
    Writing,
    /// The backup's own WAL is fetched.
    FetchingWal,
    /// Settings are written and the tree is compared with the map.
    Checking,
    /// Everything is made durable.
    Syncing,
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Regular files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Where the contents come from.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The repository.
    pub repository: &'a Repository,
    /// The stanza.
    pub stanza: &'a Stanza,
}

/// How to write.
#[derive(Clone, Debug)]
pub struct WriteSettings {
    /// Worker threads, at least one.
    pub workers: usize,
    /// Where entries are sorted when they are too many for memory.
    pub spool: std::path::PathBuf,
    /// Whether the image's signal files are kept.
    pub keep_signals: bool,
}

/// A file that several workers write.
struct Shared {
    entry: Entry,
    out: File,
    /// CRC and length of each piece that is done; the last one to finish puts them together.
    pieces: Mutex<Vec<Option<(u32, u64)>>>,
}

enum Job {
    /// Files that lie in these consecutive frames of one pack, in order of frame.
    Small { pack: PackRef, frames: std::ops::Range<u32>, files: Vec<Entry> },
    /// A file with frames of its own.
    Whole(Entry),
    /// A part of a large one, from frame `frames.start` of the file.
    Piece { file: Arc<Shared>, index: usize, frames: std::ops::Range<u64> },
    /// Empty files.
    Empty(Vec<Entry>),
}

/// Writes every file of the map and adds it to the manifest. Directories are made, links are not.
///
/// After `Ok` all bytes are handed to the kernel; nothing is synced. After `Err` any part may be there.
///
/// # Errors
/// The first error of any stage.
pub fn write_files(
    source: Source<'_>,
    map: &mut MapReader<'_>,
    tree: &Tree,
    manifest: &Manifest,
    settings: &WriteSettings,
    env: &dyn Env,
    observer: &dyn Observer,
) -> Result<Written, RestoreError> {
    let mut sorter = EntrySorter::new(&settings.spool, SORT_BUDGET, env);
    map.for_each(|entry| take_entry(entry, tree, settings.keep_signals, &mut sorter))?;
    let owners = map.owners().to_vec();
    let sorted = sorter.finish()?;

    let workers = settings.workers.max(1);
    let pacing = Pacing::of(source.repository.store(), workers);
    let (sender, receiver) = sync_channel::<Job>(pacing.threads * 2);
    let shared = Work {
        source,
        pacing,
        owners: &owners,
        tree,
        manifest,
        observer,
        packs: Packs::default(),
        jobs: Mutex::new(receiver),
        failed: AtomicBool::new(false),
        first_error: Mutex::new(None),
        files: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
    };
    let mut given = Written::default();
    std::thread::scope(|scope| {
        for number in 0..pacing.threads {
            let started = std::thread::Builder::new()
                .name(format!("restore-{number}"))
                .spawn_scoped(scope, || shared.run());
            if let Err(error) = started {
                shared.fail(RestoreError::Resources(error));
            }
        }
        let mut batch = Batch::new(pacing, |job| {
            if shared.failed.load(Ordering::Relaxed) {
                return Err(RestoreError::Interrupted);
            }
            if observer.interrupted() {
                return Err(RestoreError::Stopped);
            }
            sender.send(job).map_err(|_| RestoreError::Interrupted)
        });
        let feed = || -> Result<(), RestoreError> {
            for entry in sorted {
                let mut entry = entry?;
                unkey(&mut entry)?;
                if let EntryKind::File { size, .. } = &entry.kind {
                    given.files += 1;
                    given.bytes += size;
                }
                batch.add(entry, tree)?;
            }
            batch.flush()
        };
        let fed = feed();
        if let Err(error) = fed {
            shared.fail(error);
        }
        drop(batch);
        drop(sender);
    });
    if let Some(error) = shared.first_error.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    let done = Written { files: shared.files.into_inner(), bytes: shared.bytes.into_inner() };
    // A worker that vanished must not look like one that finished.
    if done == given { Ok(done) } else { Err(RestoreError::Interrupted) }
}

/// Makes directories at once (a directory sorts before what is in it), and gives files to the sorter under a key
/// that puts them in the order of their packs.
fn take_entry(
    mut entry: Entry,
    tree: &Tree,
    keep_signals: bool,
    sorter: &mut EntrySorter<'_>,
) -> Result<(), RestoreError> {
    let strange = |why| RestoreError::Strange { path: OsStr::from_bytes(&entry.path).into(), why };
    // The links are made by us, whatever the image has there.
    if entry.path == b"pg_wal" || tablespace_of(&entry.path).is_some_and(|(_, rest)| rest.is_empty()) {
        return Ok(());
    }
    match &entry.kind {
        EntryKind::Directory => return tree.make_directory(&entry.path),
        EntryKind::Symlink(_) => return Err(strange("a link that is neither pg_wal nor a tablespace's")),
        EntryKind::File { .. } if role(&entry.path, keep_signals) == Role::LeftOut => return Ok(()),
        EntryKind::File { .. } => {}
    }
    let (pack, frame, offset) = match &entry.kind {
        EntryKind::File { contents: Contents::Shared { pack, frame, offset }, .. } => {
            (*pack, *frame, *offset)
        }
        EntryKind::File { contents: Contents::Frames { runs, .. }, .. } => {
            let run = runs.first().ok_or_else(|| strange("it has bytes but no place"))?;
            (run.pack, run.first, 0)
        }
        _ => (PackRef { owner: 0, number: 0 }, 0, 0),
    };
    let mut keyed = format!("{:08x}{:08x}{frame:08x}{offset:08x}/", pack.owner, pack.number).into_bytes();
    keyed.extend(&entry.path);
    entry.path = keyed;
    Ok(sorter.push(entry)?)
}

/// The length of the key that [`take_entry`] puts before a path.
const KEY: usize = 33;

fn unkey(entry: &mut Entry) -> Result<(), RestoreError> {
    if entry.path.len() <= KEY {
        return Err(RestoreError::Interrupted);
    }
    entry.path.drain(..KEY);
    Ok(())
}

/// Puts neighbours together into jobs.
struct Batch<F: FnMut(Job) -> Result<(), RestoreError>> {
    pacing: Pacing,
    send: F,
    small: Vec<Entry>,
    pack: Option<PackRef>,
    frames: std::ops::Range<u32>,
    empty: Vec<Entry>,
}

impl<F: FnMut(Job) -> Result<(), RestoreError>> Batch<F> {
    fn new(pacing: Pacing, send: F) -> Self {
        Self { pacing, send, small: Vec::new(), pack: None, frames: 0..0, empty: Vec::new() }
    }

    fn add(&mut self, entry: Entry, tree: &Tree) -> Result<(), RestoreError> {
        match &entry.kind {
            EntryKind::File { contents: Contents::Empty, .. } => {
                self.empty.push(entry);
                if self.empty.len() >= MOST_SMALL { self.flush_empty() } else { Ok(()) }
            }
            EntryKind::File { contents: Contents::Shared { pack, frame, .. }, .. } => {
                let (pack, frame) = (*pack, *frame);
                let next = frame.saturating_add(1);
                let neighbour = self.pack == Some(pack)
                    && (frame.saturating_add(1) == self.frames.end || frame == self.frames.end)
                    && u64::from(next - self.frames.start) * DATA_FRAME as u64 <= self.pacing.span
                    && self.small.len() < MOST_SMALL;
                if !neighbour {
                    self.flush_small()?;
                    self.pack = Some(pack);
                    self.frames = frame..frame;
                }
                self.frames.end = next;
                self.small.push(entry);
                Ok(())
            }
            EntryKind::File { contents: Contents::Frames { .. }, .. } => self.large(entry, tree),
            _ => Err(RestoreError::Interrupted),
        }
    }

    fn large(&mut self, entry: Entry, tree: &Tree) -> Result<(), RestoreError> {
        let EntryKind::File { size, contents: Contents::Frames { frame_bytes, .. }, .. } = &entry.kind else {
            return Err(RestoreError::Interrupted);
        };
        if *size <= self.pacing.piece {
            return (self.send)(Job::Whole(entry));
        }
        let frames = size.div_ceil(u64::from(*frame_bytes));
        let each = (self.pacing.piece / u64::from(*frame_bytes)).max(1);
        let count = frames.div_ceil(each);
        let out = tree.create(target_path(&entry.path))?;
        let pieces = Mutex::new(vec![None; usize::try_from(count).map_err(|_| RestoreError::Interrupted)?]);
        let file = Arc::new(Shared { entry, out, pieces });
        for (index, start) in (0..frames).step_by(usize::try_from(each).unwrap_or(usize::MAX)).enumerate() {
            let frames = start..frames.min(start + each);
            (self.send)(Job::Piece { file: Arc::clone(&file), index, frames })?;
        }
        Ok(())
    }

    fn flush_small(&mut self) -> Result<(), RestoreError> {
        match self.pack.take() {
            Some(pack) if !self.small.is_empty() => (self.send)(Job::Small {
                pack,
                frames: self.frames.clone(),
                files: std::mem::take(&mut self.small),
            }),
            _ => Ok(()),
        }
    }

    fn flush_empty(&mut self) -> Result<(), RestoreError> {
        if self.empty.is_empty() { Ok(()) } else { (self.send)(Job::Empty(std::mem::take(&mut self.empty))) }
    }

    fn flush(&mut self) -> Result<(), RestoreError> {
        self.flush_small()?;
        self.flush_empty()
    }
}

/// `pg_control` comes under another name until everything else is there.
fn target_path(path: &[u8]) -> &[u8] {
    if role(path, false) == Role::Control { CONTROL_DRAFT.as_bytes() } else { path }
}

struct Work<'a> {
    source: Source<'a>,
    pacing: Pacing,
    owners: &'a [BackupId],
    tree: &'a Tree,
    manifest: &'a Manifest,
    observer: &'a dyn Observer,
    packs: Packs,
    jobs: Mutex<Receiver<Job>>,
    failed: AtomicBool,
    first_error: Mutex<Option<RestoreError>>,
    files: AtomicU64,
    bytes: AtomicU64,
}

impl Work<'_> {
    fn fail(&self, error: RestoreError) {
        let mut first = self.first_error.lock().unwrap_or_else(PoisonError::into_inner);
        // What a stage says only because another failed is never shown.
        if first.as_ref().is_none_or(|held| matches!(held, RestoreError::Interrupted)) {
            *first = Some(error);
        }
        self.failed.store(true, Ordering::Relaxed);
    }

    /// Takes jobs until there are no more. After a failure the rest is taken and dropped, so that nobody waits.
    fn run(&self) {
        let mut worker = match Worker::new(self) {
            Ok(worker) => Some(worker),
            Err(error) => {
                self.fail(error);
                None
            }
        };
        loop {
            let job = self.jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(job) = job else { return };
            if self.failed.load(Ordering::Relaxed) {
                continue;
            }
            let Some(held) = &mut worker else { continue };
            // Whoever panics must go on taking jobs too, or the one who gives them waits for ever.
            match panic::catch_unwind(AssertUnwindSafe(|| held.perform(job))) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => self.fail(error),
                Err(_) => {
                    worker = None;
                    self.fail(RestoreError::Interrupted);
                }
            }
        }
    }
}

struct Worker<'a> {
    work: &'a Work<'a>,
    decoder: FrameDecoder,
    plain: Vec<u8>,
}

impl<'a> Worker<'a> {
    fn new(work: &'a Work<'a>) -> Result<Self, RestoreError> {
        Ok(Self {
            work,
            decoder: FrameDecoder::new().map_err(RestoreError::Resources)?,
            plain: Vec::with_capacity(DATA_FRAME),
        })
    }

    fn perform(&mut self, job: Job) -> Result<(), RestoreError> {
        match job {
            Job::Empty(files) => {
                for entry in &files {
                    self.work.tree.create(target_path(&entry.path))?;
                    self.finish(entry, 0)?;
                }
                Ok(())
            }
            Job::Small { pack, frames, files } => self.small(pack, frames, &files),
            Job::Whole(entry) => {
                let out = self.work.tree.create(target_path(&entry.path))?;
                let EntryKind::File { size, contents: Contents::Frames { frame_bytes, .. }, .. } =
                    &entry.kind
                else {
                    return Err(RestoreError::Interrupted);
                };
                let frames = 0..size.div_ceil(u64::from(*frame_bytes));
                let (crc, _) = self.frames(&entry, &out, frames)?;
                self.finish(&entry, crc)
            }
            Job::Piece { file, index, frames } => {
                let done = self.frames(&file.entry, &file.out, frames)?;
                let crc = {
                    let mut pieces = file.pieces.lock().unwrap_or_else(PoisonError::into_inner);
                    *pieces.get_mut(index).ok_or(RestoreError::Interrupted)? = Some(done);
                    pieces.iter().try_fold(0, |crc, piece| {
                        let (next, length) = (*piece)?;
                        Some(crc32c::crc32c_combine(crc, next, usize::try_from(length).ok()?))
                    })
                };
                match crc {
                    Some(crc) => self.finish(&file.entry, crc),
                    None => Ok(()),
                }
            }
        }
    }

    fn finish(&self, entry: &Entry, crc: u32) -> Result<(), RestoreError> {
        let EntryKind::File { size, .. } = &entry.kind else { return Err(RestoreError::Interrupted) };
        if role(&entry.path, false) != Role::Rewritten {
            self.work.manifest.add(&entry.path, *size, entry.mtime, crc)?;
        }
        self.work.files.fetch_add(1, Ordering::Relaxed);
        self.work.bytes.fetch_add(*size, Ordering::Relaxed);
        Ok(())
    }

    fn pack(&self, pack: PackRef) -> Result<Arc<ObjectReader>, RestoreError> {
        self.work.packs.get(pack, || {
            let source = self.work.source;
            let owner = self.work.owners.get(pack.owner as usize).ok_or(RestoreError::Interrupted)?;
            Ok(source.repository.reader_of_parts(&layout::pack(source.stanza, owner, pack.number)?)?)
        })
    }

    fn small(
        &mut self,
        pack: PackRef,
        frames: std::ops::Range<u32>,
        files: &[Entry],
    ) -> Result<(), RestoreError> {
        let reader = self.pack(pack)?;
        let store = self.work.source.repository.store();
        let mut span = reader.fetch(store, frames.start as usize..frames.end as usize)?;
        let mut decoded = None;
        let mut written = 0;
        for entry in files {
            let EntryKind::File { size, contents: Contents::Shared { frame, offset, .. }, .. } = &entry.kind
            else {
                return Err(RestoreError::Interrupted);
            };
            if decoded != Some(*frame) {
                reader.decode(&mut span, *frame as usize, &mut self.decoder, &mut self.plain)?;
                decoded = Some(*frame);
            }
            let start = *offset as usize;
            let bytes = usize::try_from(*size)
                .ok()
                .and_then(|size| self.plain.get(start..start.checked_add(size)?))
                .ok_or_else(|| {
                    RepoError::damaged(reader.key(), format!("frame {frame} is shorter than the map says"))
                })?;
            let out = self.work.tree.create(target_path(&entry.path))?;
            out.write_all_at(bytes, 0).map_err(file("could not write", self.work.tree.shown(&entry.path)))?;
            written += size;
            self.finish(entry, crc32c::crc32c(bytes))?;
        }
        self.work.observer.wrote(written);
        Ok(())
    }

    /// Writes frames of a file; returns the CRC of what they hold, and how much that was.
    fn frames(
        &mut self,
        entry: &Entry,
        out: &File,
        frames: std::ops::Range<u64>,
    ) -> Result<(u32, u64), RestoreError> {
        let EntryKind::File { size, contents: Contents::Frames { frame_bytes, runs }, .. } = &entry.kind
        else {
            return Err(RestoreError::Interrupted);
        };
        let frame_bytes = u64::from(*frame_bytes);
        let at_once = u32::try_from((self.work.pacing.span / frame_bytes).max(1)).unwrap_or(1);
        let store = self.work.source.repository.store();
        let (mut crc, mut length) = (0, 0);
        // The number in the file of the first frame of the run.
        let mut run_start = 0_u64;
        for run in runs {
            let run_end = run_start + u64::from(run.count);
            let (from, to) = (frames.start.max(run_start), frames.end.min(run_end));
            let mut next = from;
            while next < to {
                if self.work.failed.load(Ordering::Relaxed) {
                    return Err(RestoreError::Interrupted);
                }
                if self.work.observer.interrupted() {
                    return Err(RestoreError::Stopped);
                }
                let count = u64::from(at_once).min(to - next);
                let first = frame_in_run(run, next - run_start);
                let reader = self.pack(run.pack)?;
                let mut span = reader.fetch(store, first..first + count as usize)?;
                for frame in first..first + count as usize {
                    reader.decode(&mut span, frame, &mut self.decoder, &mut self.plain)?;
                    let offset = next * frame_bytes;
                    let expected = (size - offset).min(frame_bytes);
                    if self.plain.len() as u64 != expected {
                        return Err(RepoError::damaged(
                            reader.key(),
                            format!("frame {frame} has another length than the map says"),
                        )
                        .into());
                    }
                    out.write_all_at(&self.plain, offset)
                        .map_err(file("could not write", self.work.tree.shown(&entry.path)))?;
                    crc = crc32c::crc32c_append(crc, &self.plain);
                    length += expected;
                    next += 1;
                }
                self.work.observer.wrote((next * frame_bytes).min(*size) - (next - count) * frame_bytes);
            }
            run_start = run_end;
        }
        Ok((crc, length))
    }
}

fn frame_in_run(run: &FrameRun, within: u64) -> usize {
    run.first as usize + usize::try_from(within).unwrap_or(usize::MAX / 2)
}
