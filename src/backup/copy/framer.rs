//! Cuts the stream of files into frames and frames into jobs.

use super::job::{FileHead, Job, Step};
use super::source::Handover;
use crate::repo::frame::DATA_FRAME;
use crate::repo::map::EntryKind;
use crate::units::Lsn;
use std::sync::Arc;

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

/// What it was given is no sequence of files: bytes without a file, or more or fewer than its size says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Misfed;

/// Takes files in the order in which they come and hands out jobs. Waits at each until another buffer is free: a
/// slow store slows the server's stream and not this program's memory.
pub struct Framer {
    page_size: u32,
    handover: Arc<Handover>,
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
    /// A framer that fills `first` and hands it over, and then others.
    pub(super) fn new(page_size: u32, handover: Arc<Handover>, first: Job) -> Self {
        Self {
            page_size,
            handover,
            job: first,
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

    async fn send(&mut self) {
        if self.job.steps.is_empty() {
            return;
        }
        let mut full = std::mem::take(&mut self.job);
        full.number = self.sent;
        full.good_before = self.good_before;
        self.sent += 1;
        self.job = self.handover.exchange(full).await;
        self.job.clear();
    }

    /// Steps without bytes must not pile up either.
    async fn step(&mut self, step: Step) {
        self.job.steps.push(step);
        if self.job.steps.len() >= 4096 {
            self.send().await;
        }
    }

    async fn flush_shared(&mut self) {
        if self.shared_files.is_empty() {
            return;
        }
        if self.job.room() < self.shared.len() {
            self.send().await;
        }
        let start = self.job.plain.len();
        self.job.plain.extend_from_slice(&self.shared);
        let files = std::mem::take(&mut self.shared_files);
        self.shared.clear();
        self.step(Step::Shared { bytes: start..self.job.plain.len(), files }).await;
    }

    /// A directory or a link.
    pub async fn bare(&mut self, head: FileHead, kind: EntryKind) {
        self.step(Step::Bare(head, kind)).await;
    }

    /// A file begins; `head.size` bytes follow through [`Framer::data`].
    pub async fn begin(&mut self, head: FileHead) {
        self.files += 1;
        self.bytes += head.size;
        let left = head.size;
        if left == 0 {
            let contents = crate::repo::map::Contents::Empty;
            return self.bare(head, EntryKind::File { size: 0, contents, damaged_pages: false }).await;
        }
        let shared = left <= SHARED_FILE;
        let next_block = head.first_block;
        if shared {
            if self.shared.len() as u64 + left > DATA_FRAME as u64 {
                self.flush_shared().await;
            }
            let offset = self.shared.len() as u32;
            self.shared_files.push((head, offset));
        } else {
            self.step(Step::Begin(head)).await;
            if self.job.room() < DATA_FRAME {
                self.send().await;
            }
        }
        self.open = Some(OpenFile { left, shared, frame_start: self.job.plain.len(), next_block });
    }

    /// The next bytes of the file that was begun; no more than it has left.
    ///
    /// # Errors
    /// When there is no such file, or too many bytes for it.
    pub async fn data(&mut self, mut bytes: &[u8]) -> Result<(), Misfed> {
        if bytes.is_empty() {
            return Ok(());
        }
        let Some(mut file) = self.open.take() else { return Err(Misfed) };
        if bytes.len() as u64 > file.left {
            return Err(Misfed);
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
                    self.close_frame(&mut file).await;
                }
            }
        }
        if file.left == 0 {
            if !file.shared {
                if self.job.plain.len() > file.frame_start {
                    self.close_frame(&mut file).await;
                }
                self.step(Step::End).await;
            }
        } else {
            self.open = Some(file);
        }
        Ok(())
    }

    async fn close_frame(&mut self, file: &mut OpenFile) {
        let end = self.job.plain.len();
        let pages = (end - file.frame_start) as u32 / self.page_size;
        let first_block = file.next_block;
        file.next_block = file.next_block.map(|block| block.wrapping_add(pages));
        self.step(Step::Frame { bytes: file.frame_start..end, first_block }).await;
        if self.job.room() < DATA_FRAME {
            self.send().await;
        }
        file.frame_start = self.job.plain.len();
    }

    /// The end of the stream: sends what is left and gives the number of jobs, all of which must be stored.
    ///
    /// # Errors
    /// When a file is not complete.
    pub(super) async fn finish(mut self) -> Result<u64, Misfed> {
        if self.open.is_some() {
            return Err(Misfed);
        }
        self.flush_shared().await;
        self.send().await;
        Ok(self.sent)
    }
}
