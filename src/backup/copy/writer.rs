//! Frames into packs, in the order of the stream, and files into the map.

use super::job::{FileHead, Job, Step};
use super::{CopySettings, MOST_FAILURES};
use crate::env::Env;
use crate::repo::frame::{DATA_FRAME, EncodedFrame};
use crate::repo::map::{Contents, Entry, EntryKind, EntrySorter, FrameRun, PackRef};
use crate::repo::object::ObjectWriter;
use crate::repo::record::{PageFailure, UsedPack};
use crate::repo::{RepoError, Repository, layout};
use crate::storage::{Key, Pending, StoreErrorKind};
use crate::units::{BackupId, Stanza};
use std::panic::{self, AssertUnwindSafe};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Frames at which a pack is closed whatever its size: bounds its footer to some 300 KB.
const MOST_PACK_FRAMES: usize = 8192;

/// Packs on a disk that wait to be synced.
const MOST_WAITING: usize = 4;

/// What was put into packs, all of them given to be made durable.
pub(super) struct Packed {
    pub packs: Vec<UsedPack>,
    pub stored_bytes: u64,
    pub failures: Vec<PageFailure>,
    pub failure_count: u64,
}

/// A pack that is whole and not durable yet.
pub(super) type Finished = (Key, Box<dyn Pending>);

/// The packs that wait to be made durable, and the first that could not be.
pub(super) struct Committing {
    waiting: Mutex<Receiver<Finished>>,
    failure: Failure,
}

impl Committing {
    /// And where packs are sent to.
    pub fn new(repository: &Repository) -> (SyncSender<Finished>, Self) {
        // A finished pack waits here while the ones before it are being synced. One that is held in memory is handed
        // over at once or keeps the writer; on a disk a few may wait, so that a slow sync does not stop the stream.
        let queue = if repository.store().gathers() { 0 } else { MOST_WAITING };
        let (commits, waiting) = sync_channel(queue);
        (commits, Self { waiting: Mutex::new(waiting), failure: Failure::default() })
    }

    /// Makes packs durable until there are no more. After the first failure, its own or another's, it takes what
    /// comes and drops it: the writer never waits for somebody who is gone.
    pub fn run(&self) {
        loop {
            let next = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok((key, pack)) = next else { return };
            if self.failure.is_some() {
                continue;
            }
            let error = match panic::catch_unwind(AssertUnwindSafe(|| pack.commit())) {
                Ok(Ok(_)) => continue,
                Ok(Err(error)) if error.kind == StoreErrorKind::Taken => {
                    Some(RepoError::Conflict { object: key })
                }
                Ok(Err(error)) => Some(RepoError::Store(error)),
                Err(_) => None,
            };
            self.failure.lock().get_or_insert(error);
        }
    }

    /// The first failure. `Some(None)`: whoever tried it panicked.
    pub fn failure(&self) -> Option<Option<RepoError>> {
        self.failure.take()
    }

    /// The failure there was so far; what still waits is dropped, for nothing will refer to it.
    pub fn give_up(&self) -> Option<Option<RepoError>> {
        self.failure.lock().replace(None)
    }
}

/// Puts the frames of jobs into packs and their files into the map.
pub(super) struct Writer<'a, 'b> {
    packs: Packs<'a>,
    files: Files<'a, 'b>,
    page_size: u32,
}

impl<'a, 'b> Writer<'a, 'b> {
    pub fn new(
        repository: &'a Repository,
        stanza: &'a Stanza,
        id: &'a BackupId,
        settings: &CopySettings,
        env: &'a dyn Env,
        (commits, committing): (SyncSender<Finished>, &'a Committing),
        sorter: &'a mut EntrySorter<'b>,
    ) -> Self {
        let packs = Packs {
            repository,
            stanza,
            id,
            env,
            pack_size: settings.pack_size,
            commits,
            failure: &committing.failure,
            open: None,
            packs: Vec::new(),
            stored_bytes: 0,
        };
        let files = Files { sorter, open: None, failures: Vec::new(), failure_count: 0 };
        Self { packs, files, page_size: settings.page_size }
    }

    /// Stores the next job of the stream; its buffers may be used again.
    ///
    /// # Errors
    /// `None`: somebody else knows why.
    pub fn store(&mut self, job: &mut Job) -> Result<(), Option<RepoError>> {
        store(job, &mut self.packs, &mut self.files, self.page_size)
    }

    /// Closes the last pack.
    ///
    /// # Errors
    /// As [`Writer::store`].
    pub fn finish(mut self) -> Result<Packed, Option<RepoError>> {
        self.packs.close()?;
        Ok(Packed {
            packs: self.packs.packs,
            stored_bytes: self.packs.stored_bytes,
            failures: self.files.failures,
            failure_count: self.files.failure_count,
        })
    }
}

/// The first pack that could not be made durable. `Some(None)`: whoever tried it panicked.
#[derive(Default)]
struct Failure(Mutex<Option<Option<RepoError>>>);

impl Failure {
    fn lock(&self) -> MutexGuard<'_, Option<Option<RepoError>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_some(&self) -> bool {
        self.lock().is_some()
    }

    fn take(&self) -> Option<Option<RepoError>> {
        self.lock().take()
    }
}

struct Packs<'a> {
    repository: &'a Repository,
    stanza: &'a Stanza,
    id: &'a BackupId,
    env: &'a dyn Env,
    pack_size: u64,
    commits: SyncSender<Finished>,
    failure: &'a Failure,
    open: Option<(ObjectWriter, Key)>,
    packs: Vec<UsedPack>,
    stored_bytes: u64,
}

impl Packs<'_> {
    /// Writes one frame; where it lies.
    fn append(&mut self, frame: &mut EncodedFrame) -> Result<(PackRef, u32), Option<RepoError>> {
        let full =
            |pack: &ObjectWriter| pack.written() >= self.pack_size || pack.frames() >= MOST_PACK_FRAMES;
        if self.open.as_ref().is_some_and(|(pack, _)| full(pack)) {
            self.close()?;
        }
        let number = u32::try_from(self.packs.len())
            .map_err(|_| Some(RepoError::TooLarge { what: "the backup".to_owned() }))?;
        let (pack, _) = match &mut self.open {
            Some(open) => open,
            none => {
                let place = layout::pack(self.stanza, self.id, number).map_err(|e| Some(e.into()))?;
                none.insert((self.repository.begin(&place, self.env)?, place.key))
            }
        };
        let at = pack.frames() as u32;
        pack.append(frame)?;
        Ok((PackRef { owner: 0, number }, at))
    }

    fn close(&mut self) -> Result<(), Option<RepoError>> {
        let Some((pack, key)) = self.open.take() else { return Ok(()) };
        // A pack before this one may have failed: then nothing more is worth storing.
        if self.failure.is_some() {
            return Err(None);
        }
        let frames = pack.frames() as u32;
        let (pending, size) = pack.finish_sized(Vec::new())?;
        self.packs.push(UsedPack { number: self.packs.len() as u32, size, live_frames: frames, frames });
        self.stored_bytes += size;
        self.commits.send((key, pending)).map_err(|_| None)
    }
}

struct OpenFile {
    head: FileHead,
    runs: Vec<FrameRun>,
    damaged: bool,
    /// Bytes stored so far, to number the pages that fail.
    written: u64,
}

struct Files<'a, 'b> {
    sorter: &'a mut EntrySorter<'b>,
    open: Option<OpenFile>,
    failures: Vec<PageFailure>,
    failure_count: u64,
}

impl Files<'_, '_> {
    fn push(&mut self, head: FileHead, kind: EntryKind) -> Result<(), Option<RepoError>> {
        let FileHead { path, mode, mtime, .. } = head;
        Ok(self.sorter.push(Entry { path, mode, mtime, kind })?)
    }

    fn failed(&mut self, path: &[u8], block: u64) {
        self.failure_count += 1;
        if self.failures.len() < MOST_FAILURES {
            let path = String::from_utf8_lossy(path).into_owned();
            let block = u32::try_from(block).unwrap_or(u32::MAX);
            self.failures.push(PageFailure { path, block, relation: None });
        }
    }
}

fn store(
    job: &mut Job,
    packs: &mut Packs<'_>,
    files: &mut Files<'_, '_>,
    page_size: u32,
) -> Result<(), Option<RepoError>> {
    let mut frame = 0;
    let mut bad = job.bad_pages.iter().peekable();
    let page_size = u64::from(page_size);
    for (index, step) in job.steps.drain(..).enumerate() {
        let mut offsets = Vec::new();
        while let Some(page) = bad.next_if(|page| page.step == index) {
            offsets.push(page.offset as u64);
        }
        match step {
            Step::Begin(head) => {
                files.open = Some(OpenFile { head, runs: Vec::new(), damaged: false, written: 0 })
            }
            Step::Frame { bytes, .. } => {
                let encoded = job.encoded.get_mut(frame).ok_or(None)?;
                frame += 1;
                let (pack, at) = packs.append(encoded)?;
                let mut file = files.open.take().ok_or(None)?;
                match file.runs.last_mut() {
                    Some(run) if run.pack == pack && run.first + run.count == at => run.count += 1,
                    _ => file.runs.push(FrameRun { pack, first: at, count: 1 }),
                }
                for offset in offsets {
                    file.damaged = true;
                    files.failed(&file.head.path, (file.written + offset) / page_size);
                }
                file.written += bytes.len() as u64;
                files.open = Some(file);
            }
            Step::End => {
                let OpenFile { head, runs, damaged, .. } = files.open.take().ok_or(None)?;
                let contents = Contents::Frames { frame_bytes: DATA_FRAME as u32, runs };
                let size = head.size;
                files.push(head, EntryKind::File { size, contents, damaged_pages: damaged })?;
            }
            Step::Shared { files: members, .. } => {
                let encoded = job.encoded.get_mut(frame).ok_or(None)?;
                frame += 1;
                let (pack, at) = packs.append(encoded)?;
                for (head, offset) in members {
                    let (start, end) = (u64::from(offset), u64::from(offset) + head.size);
                    let mut damaged = false;
                    for page in offsets.iter().filter(|page| (start..end).contains(*page)) {
                        damaged = true;
                        files.failed(&head.path, (page - start) / page_size);
                    }
                    let contents = Contents::Shared { pack, frame: at, offset };
                    let size = head.size;
                    files.push(head, EntryKind::File { size, contents, damaged_pages: damaged })?;
                }
            }
            Step::Bare(head, kind) => files.push(head, kind)?,
        }
    }
    Ok(())
}
