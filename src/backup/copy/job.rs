//! What travels through the pipeline: half a megabyte of frames, and what they mean.

use crate::repo::frame::EncodedFrame;
use crate::repo::map::EntryKind;
use crate::units::Lsn;
use std::ops::Range;

/// Plain bytes of one job: four data frames. Larger jobs were no faster, smaller ones cost more switches.
pub const JOB_BYTES: usize = 512 * 1024;

/// What the stream says of a file before its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileHead {
    /// Relative to the data directory.
    pub path: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
    /// Seconds since 1970; `None` for relation files.
    pub mtime: Option<i64>,
    /// Bytes that follow.
    pub size: u64,
    /// For relation files whose pages carry checksums: the number of the file's first page in its relation.
    pub first_block: Option<u32>,
}

/// What the writer does with the job's frames, in order.
#[derive(Debug)]
pub enum Step {
    /// The frames that follow belong to this file, which is too large to share one.
    Begin(FileHead),
    /// A frame of the current file.
    Frame {
        /// Its plain bytes in the job.
        bytes: Range<usize>,
        /// The number in the relation of its first page, where pages are to be checked.
        first_block: Option<u32>,
    },
    /// The current file is complete.
    End,
    /// A frame that several small files share, and where each begins in it.
    Shared {
        /// Its plain bytes in the job.
        bytes: Range<usize>,
        /// The files and their offsets in the frame.
        files: Vec<(FileHead, u32)>,
    },
    /// A directory, a link or an empty file: no bytes.
    Bare(FileHead, EntryKind),
}

/// A page that failed its checksum: the step of its frame, and its place in the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadPage {
    /// Index of the step.
    pub step: usize,
    /// Offset of the page in the job's bytes.
    pub offset: usize,
}

/// One job; reused, so that nothing is allocated while a backup runs.
#[derive(Debug, Default)]
pub struct Job {
    /// Its place in the order of the stream.
    pub number: u64,
    /// Where pages are checked: those with an LSN from here on may be torn, WAL mends them. `None` checks none.
    pub good_before: Option<Lsn>,
    /// Plain bytes of all its frames.
    pub plain: Vec<u8>,
    /// What they are.
    pub steps: Vec<Step>,
    /// One for each [`Step::Frame`] and [`Step::Shared`], made by a worker.
    pub encoded: Vec<EncodedFrame>,
    /// Pages that a worker found wrong.
    pub bad_pages: Vec<BadPage>,
}

impl Job {
    /// An empty job with its buffer.
    #[must_use]
    pub fn new() -> Self {
        Self { plain: Vec::with_capacity(JOB_BYTES), ..Self::default() }
    }

    /// Makes it ready to be filled again; buffers stay.
    pub fn clear(&mut self) {
        self.number = 0;
        self.plain.clear();
        self.steps.clear();
        self.bad_pages.clear();
    }

    /// Room that is left.
    #[must_use]
    pub fn room(&self) -> usize {
        JOB_BYTES.saturating_sub(self.plain.len())
    }
}
