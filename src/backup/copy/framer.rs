//! Cuts the stream of files into frames and frames into jobs.

use super::Stopped;
use super::job::{FileHead, Job, Step};
use crate::repo::frame::DATA_FRAME;
use crate::repo::map::EntryKind;
use crate::units::Lsn;
use std::sync::mpsc::{Receiver, SyncSender};

/// Files up to this size share frames; larger ones have frames of their own.
pub const SHARED_FILE: u64 = DATA_FRAME as u64 / 2;

struct OpenFile {
    left: u64,
    shared: bool,
    /// Where the frame that is being filled begins in the job.
    frame_start: usize,
    /// Number in the relation of the page that comes next.
    next_block: Option<u32>,
}

/// Takes files in the order in which they come and hands out jobs. Waits when all jobs are in use: a slow
/// store slows the server's stream and not this program's memory.
pub struct Framer {
    page_size: u32,
    free: Receiver<Job>,
    jobs: SyncSender<Job>,
    job: Job,
    sent: u64,
    open: Option<OpenFile>,
    shared: Vec<u8>,
    shared_files: Vec<(FileHead, u32)>,
    good_before: Option<Lsn>,
    /// Bytes of files so far.
    pub bytes: u64,
    /// Regular files so far.
    pub files: u64,
}

impl std::fmt::Debug for Framer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Framer({} jobs, {} bytes)", self.sent, self.bytes)
    }
}

impl Framer {
    /// A framer that takes empty jobs from `free` and sends full ones to `jobs`.
    #[must_use]
    pub fn new(page_size: u32, free: Receiver<Job>, jobs: SyncSender<Job>) -> Self {
        Self {
            page_size,
            free,
            jobs,
            job: Job::new(),
            sent: 0,
            open: None,
            shared: Vec::with_capacity(DATA_FRAME),
            shared_files: Vec::new(),
            good_before: None,
            bytes: 0,
            files: 0,
        }
    }

    /// Has the pages of what comes next checked, as far as they are older than `start`, where the backup begins: a
    /// later one was being written while it was read, and WAL holds all of it.
    pub fn check_pages(&mut self, start: Lsn) {
        self.good_before = Some(start);
    }

    fn send(&mut self) -> Result<(), Stopped> {
        if self.job.steps.is_empty() {
            return Ok(());
        }
        let mut next = self.free.recv().map_err(|_| Stopped)?;
        next.clear();
        let mut full = std::mem::replace(&mut self.job, next);
        full.number = self.sent;
        full.good_before = self.good_before;
        self.sent += 1;
        self.jobs.send(full).map_err(|_| Stopped)
    }

    /// Steps without bytes must not pile up either.
    fn step(&mut self, step: Step) -> Result<(), Stopped> {
        self.job.steps.push(step);
        if self.job.steps.len() >= 4096 { self.send() } else { Ok(()) }
    }

    fn flush_shared(&mut self) -> Result<(), Stopped> {
        if self.shared_files.is_empty() {
            return Ok(());
        }
        if self.job.room() < self.shared.len() {
            self.send()?;
        }
        let start = self.job.plain.len();
        self.job.plain.extend_from_slice(&self.shared);
        let files = std::mem::take(&mut self.shared_files);
        self.shared.clear();
        self.step(Step::Shared { bytes: start..self.job.plain.len(), files })
    }

    /// A directory or a link.
    ///
    /// # Errors
    /// When a later stage failed.
    pub fn bare(&mut self, head: FileHead, kind: EntryKind) -> Result<(), Stopped> {
        self.step(Step::Bare(head, kind))
    }

    /// A file begins; `head.size` bytes follow through [`Framer::data`].
    ///
    /// # Errors
    /// When a later stage failed.
    pub fn begin(&mut self, head: FileHead) -> Result<(), Stopped> {
        self.files += 1;
        self.bytes += head.size;
        let left = head.size;
        if left == 0 {
            let contents = crate::repo::map::Contents::Empty;
            return self.bare(head, EntryKind::File { size: 0, contents, damaged_pages: false });
        }
        let shared = left <= SHARED_FILE;
        let next_block = head.first_block;
        if shared {
            if self.shared.len() as u64 + left > DATA_FRAME as u64 {
                self.flush_shared()?;
            }
            let offset = self.shared.len() as u32;
            self.shared_files.push((head, offset));
        } else {
            self.step(Step::Begin(head))?;
            if self.job.room() < DATA_FRAME {
                self.send()?;
            }
        }
        self.open = Some(OpenFile { left, shared, frame_start: self.job.plain.len(), next_block });
        Ok(())
    }

    /// The next bytes of the file that was begun; no more than it has left.
    ///
    /// # Errors
    /// When a later stage failed.
    pub fn data(&mut self, mut bytes: &[u8]) -> Result<(), Stopped> {
        if bytes.is_empty() {
            return Ok(());
        }
        let Some(mut file) = self.open.take() else { return Err(Stopped) };
        if bytes.len() as u64 > file.left {
            return Err(Stopped);
        }
        file.left -= bytes.len() as u64;
        if file.shared {
            self.shared.extend_from_slice(bytes);
        } else {
            while !bytes.is_empty() {
                let filled = self.job.plain.len() - file.frame_start;
                let (now, later) = bytes.split_at(bytes.len().min(DATA_FRAME - filled));
                self.job.plain.extend_from_slice(now);
                bytes = later;
                if self.job.plain.len() - file.frame_start == DATA_FRAME {
                    self.close_frame(&mut file)?;
                }
            }
        }
        if file.left == 0 {
            if !file.shared {
                if self.job.plain.len() > file.frame_start {
                    self.close_frame(&mut file)?;
                }
                self.step(Step::End)?;
            }
        } else {
            self.open = Some(file);
        }
        Ok(())
    }

    fn close_frame(&mut self, file: &mut OpenFile) -> Result<(), Stopped> {
        let end = self.job.plain.len();
        let pages = (end - file.frame_start) as u32 / self.page_size;
        let first_block = file.next_block;
        file.next_block = file.next_block.map(|block| block.wrapping_add(pages));
        self.step(Step::Frame { bytes: file.frame_start..end, first_block })?;
        if self.job.room() < DATA_FRAME {
            self.send()?;
        }
        file.frame_start = self.job.plain.len();
        Ok(())
    }

    /// The end of the stream: sends what is left and gives the number of jobs, which the writer must see all.
    ///
    /// # Errors
    /// When a later stage failed, or a file is not complete.
    pub fn finish(mut self) -> Result<u64, Stopped> {
        if self.open.is_some() {
            return Err(Stopped);
        }
        self.flush_shared()?;
        self.send()?;
        Ok(self.sent)
    }
}
