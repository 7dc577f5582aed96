//! One pass over a segment: read once, hashed and walked here, compressed on two threads, written to every
//! repository in order.
//!
//! A segment of 16 MiB costs zstd about as much as everything else together, so two threads compress
//! alternate frames while this one reads, hashes, walks, seals and writes. Plain `read` into a few buffers
//! that are used again: no more is resident than [`IN_FLIGHT`] frames, plain and compressed.

use super::PushError;
use crate::env::Env;
use crate::pipeline::StopFlag;
use crate::repo::frame::{Compression, EncodedFrame, FrameEncoder, WAL_FRAME};
use crate::units::{SegmentName, SegmentSize};
use crate::wal::scan::{Scanned, SegmentScan};
use crate::wal::write::{Destination, SegmentWriter};
use crate::wal::{ClusterWal, WalError};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Compressing threads.
const THREADS: usize = 2;
/// Frames read and not yet written: one for each thread. A third made no push faster on two processors and
/// took half a MiB more, with which the process passes 10 MiB.
const IN_FLIGHT: usize = 2;

/// The file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source<'a> {
    pub path: &'a Path,
    pub file: &'a File,
    pub name: SegmentName,
    pub size: SegmentSize,
    pub stop: &'a StopFlag,
}

/// The way into one repository. A failure ends this lane and no other.
pub(super) struct Lane<'a> {
    pub wal: ClusterWal<'a>,
    pub destination: Destination,
    source: Source<'a>,
    env: &'a dyn Env,
    state: State<'a>,
    /// The name is taken already, so nothing needs to be encoded.
    exists: bool,
}

enum State<'a> {
    Idle,
    Writing(Box<SegmentWriter<'a>>),
    Failed(WalError),
}

impl<'a> Lane<'a> {
    pub fn new(wal: ClusterWal<'a>, source: Source<'a>, destination: Destination, env: &'a dyn Env) -> Self {
        Self { wal, destination, source, env, state: State::Idle, exists: false }
    }

    /// Looks whether the name is taken. An answer that does not come is none: the store settles it when the
    /// object is named.
    fn look(wal: ClusterWal<'_>, name: SegmentName, destination: Destination) -> bool {
        let place = wal.place(name, destination);
        place.is_ok_and(|place| matches!(wal.repo.store().size(&place.key), Ok(Some(_))))
    }

    /// Whether frames are still wanted.
    fn is_open(&self) -> bool {
        !self.exists && !matches!(self.state, State::Failed(_))
    }

    fn append(&mut self, plain: &[u8], frame: &mut EncodedFrame) {
        if !self.is_open() {
            return;
        }
        if matches!(self.state, State::Idle) {
            let source = self.source;
            self.state =
                match SegmentWriter::begin(self.wal, source.name, self.destination, source.size, self.env) {
                    Ok(writer) => State::Writing(Box::new(writer)),
                    Err(error) => State::Failed(error),
                };
        }
        if let State::Writing(writer) = &mut self.state
            && let Err(error) = writer.append(plain, frame)
        {
            self.state = State::Failed(error);
        }
    }

    fn fail(&mut self, error: &io::Error) {
        if self.is_open() {
            self.state = State::Failed(WalError::Codec(io::Error::new(error.kind(), error.to_string())));
        }
    }

    /// The writer with all frames; `None` when the name was taken before.
    pub fn into_writer(self) -> Result<Option<SegmentWriter<'a>>, WalError> {
        match self.state {
            State::Failed(error) => Err(error),
            _ if self.exists => Ok(None),
            State::Writing(writer) => Ok(Some(*writer)),
            State::Idle => Ok(None),
        }
    }
}

/// Reads the whole file once, and encodes it into those lanes that want it. Without lanes it is only scanned.
///
/// Whether a name is taken is asked beside the first frames, not before them: a fresh segment waits for no
/// round trip (and over a network finds its connection open when it is to be stored), a segment that is there
/// already is not compressed to its end.
///
/// # Errors
/// When the file cannot be read or is not the segment. A store's trouble is its lane's.
pub(super) fn encode(
    source: Source<'_>,
    compression: Compression,
    lanes: &mut [Lane<'_>],
) -> Result<Scanned, PushError> {
    let mut reading = source.file;
    reading
        .seek(SeekFrom::Start(0))
        .map_err(|error| PushError::Read { path: source.path.to_owned(), source: error })?;
    let mut pass = Pass { source, scan: SegmentScan::new(source.name), left: source.size.bytes() };
    let frames = source.size.bytes().div_ceil(WAL_FRAME as u64);
    if lanes.is_empty() {
        let mut plain = Vec::new();
        while pass.read(&mut plain)? {}
    } else if frames == 1 {
        // Too small for threads; the look costs less than the write that it may spare.
        for lane in lanes.iter_mut() {
            lane.exists = Lane::look(lane.wal, source.name, lane.destination);
        }
        pass.encode_here(compression, lanes)?;
    } else {
        let flags: Vec<Arc<AtomicBool>> = lanes.iter().map(|_| Arc::new(AtomicBool::new(false))).collect();
        std::thread::scope(|scope| {
            for (lane, flag) in lanes.iter().zip(&flags) {
                let (wal, destination, flag) = (lane.wal, lane.destination, Arc::clone(flag));
                scope.spawn(move || {
                    flag.store(Lane::look(wal, source.name, destination), Ordering::Relaxed);
                });
            }
            let workers: Vec<Worker> = (0..THREADS)
                .map(|_| {
                    let (jobs, mine) = sync_channel::<Job>(IN_FLIGHT);
                    let (done, results) = sync_channel::<Done>(IN_FLIGHT);
                    scope.spawn(move || compress(compression, &mine, &done));
                    Worker { jobs, results }
                })
                .collect();
            pass.encode_on(&workers, lanes, &flags)
        })?;
    }
    pass.scan.finish().map_err(PushError::Segment)
}

struct Job {
    plain: Arc<Vec<u8>>,
    frame: EncodedFrame,
}

type Done = io::Result<EncodedFrame>;

struct Worker {
    jobs: SyncSender<Job>,
    results: Receiver<Done>,
}

fn compress(compression: Compression, jobs: &Receiver<Job>, done: &SyncSender<Done>) {
    let mut encoder = FrameEncoder::new(compression, false);
    for Job { plain, mut frame } in jobs {
        let result = match &mut encoder {
            Ok(encoder) => encoder.encode(&plain, &mut frame).map(|()| frame),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        };
        // Given back before the result is: whoever receives it may use the buffer again.
        drop(plain);
        if done.send(result).is_err() {
            return;
        }
    }
}

struct Pass<'a> {
    source: Source<'a>,
    scan: SegmentScan,
    left: u64,
}

impl Pass<'_> {
    /// The next frame's plain bytes; `false` at the end, where the file must end too.
    fn read_only(&mut self, plain: &mut Vec<u8>) -> Result<bool, PushError> {
        let failed = |source| PushError::Read { path: self.source.path.to_owned(), source };
        if self.left == 0 {
            return Ok(false);
        }
        if self.source.stop.is_requested() {
            return Err(PushError::Interrupted);
        }
        let length = self.left.min(WAL_FRAME as u64);
        plain.resize(usize::try_from(length).unwrap_or(WAL_FRAME), 0);
        let mut file = self.source.file;
        file.read_exact(plain).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => PushError::Changed,
            _ => failed(error),
        })?;
        self.left -= length;
        Ok(true)
    }

    fn read(&mut self, plain: &mut Vec<u8>) -> Result<bool, PushError> {
        if !self.read_only(plain)? {
            return Ok(false);
        }
        self.scan.feed(plain).map_err(PushError::Segment)?;
        Ok(true)
    }

    fn encode_here(&mut self, compression: Compression, lanes: &mut [Lane<'_>]) -> Result<(), PushError> {
        let mut encoder = FrameEncoder::new(compression, false);
        let mut plain = Vec::new();
        let mut frame = EncodedFrame::default();
        while self.read(&mut plain)? {
            if !lanes.iter().any(Lane::is_open) {
                continue;
            }
            let encoded = match &mut encoder {
                Ok(encoder) => encoder.encode(&plain, &mut frame),
                Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
            };
            match encoded {
                Ok(()) => append(lanes, &plain, &mut frame),
                Err(error) => lanes.iter_mut().for_each(|lane| lane.fail(&error)),
            }
        }
        Ok(())
    }

    fn encode_on(
        &mut self,
        workers: &[Worker],
        lanes: &mut [Lane<'_>],
        flags: &[Arc<AtomicBool>],
    ) -> Result<(), PushError> {
        // In order: which worker has the frame, and its plain bytes.
        let mut waiting: VecDeque<(usize, Arc<Vec<u8>>)> = VecDeque::with_capacity(IN_FLIGHT);
        let mut spare: Vec<Arc<Vec<u8>>> = Vec::new();
        let mut frames: Vec<EncodedFrame> = Vec::new();
        let mut next = 0;
        loop {
            while waiting.len() >= IN_FLIGHT {
                collect(workers, lanes, &mut waiting, &mut spare, &mut frames);
            }
            let mut shared = spare.pop().unwrap_or_default();
            let Some(plain) = Arc::get_mut(&mut shared) else { continue };
            if !self.read_only(plain)? {
                break;
            }
            for (lane, flag) in lanes.iter_mut().zip(flags) {
                lane.exists |= flag.load(Ordering::Relaxed);
            }
            if lanes.iter().any(Lane::is_open) {
                let frame = frames.pop().unwrap_or_default();
                let job = Job { plain: Arc::clone(&shared), frame };
                // One that ended early is noticed when its frame is collected.
                let _ = workers[next].jobs.send(job);
                self.scan.feed(&shared).map_err(PushError::Segment)?;
                waiting.push_back((next, shared));
                next = (next + 1) % workers.len();
            } else {
                self.scan.feed(&shared).map_err(PushError::Segment)?;
                spare.push(shared);
            }
        }
        while !waiting.is_empty() {
            collect(workers, lanes, &mut waiting, &mut spare, &mut frames);
        }
        Ok(())
    }
}

/// Takes the oldest frame from its worker and gives it to the lanes.
fn collect(
    workers: &[Worker],
    lanes: &mut [Lane<'_>],
    waiting: &mut VecDeque<(usize, Arc<Vec<u8>>)>,
    spare: &mut Vec<Arc<Vec<u8>>>,
    frames: &mut Vec<EncodedFrame>,
) {
    let Some((worker, plain)) = waiting.pop_front() else { return };
    match workers[worker].results.recv() {
        Ok(Ok(mut frame)) => {
            append(lanes, &plain, &mut frame);
            frames.push(frame);
        }
        Ok(Err(error)) => lanes.iter_mut().for_each(|lane| lane.fail(&error)),
        Err(_) => {
            let gone = io::Error::other("a compressing thread ended early");
            lanes.iter_mut().for_each(|lane| lane.fail(&gone));
        }
    }
    spare.push(plain);
}

/// One encoding for all: each lane but the last one seals a copy.
fn append(lanes: &mut [Lane<'_>], plain: &[u8], frame: &mut EncodedFrame) {
    let mut copy = EncodedFrame::default();
    let last = lanes.iter().rposition(Lane::is_open);
    for (at, lane) in lanes.iter_mut().enumerate() {
        if Some(at) == last {
            lane.append(plain, frame);
        } else if lane.is_open() {
            copy.copy_from(frame);
            lane.append(plain, &mut copy);
        }
    }
}
