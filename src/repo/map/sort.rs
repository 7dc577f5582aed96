//! Sorting entries by path in bounded memory: they come in the order in which the server reads its
//! directories.

use super::entry::Entry;
use crate::env::Env;
use crate::repo::error::RepoError;
use crate::repo::layout::hex;
use crate::repo::varint::{Take, put};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// What each run is read with when runs are merged.
const READ_BUFFER: usize = 16 * 1024;
/// An encoded entry: two paths of 4 KiB and the runs of the largest file.
const LONGEST_ENTRY: usize = 16 << 20;

/// Takes entries in any order. Up to `budget` bytes of them stay in memory; beyond that, sorted runs go to
/// files in the spool directory that have no name any more once they are open, so a crash leaves nothing.
pub struct EntrySorter<'a> {
    spool: PathBuf,
    budget: usize,
    env: &'a dyn Env,
    held: Vec<Entry>,
    held_bytes: usize,
    runs: Vec<File>,
}

impl std::fmt::Debug for EntrySorter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EntrySorter({} held, {} runs)", self.held.len(), self.runs.len())
    }
}

impl<'a> EntrySorter<'a> {
    /// A sorter that spools below `spool`, which is made when it is first needed.
    #[must_use]
    pub fn new(spool: &Path, budget: usize, env: &'a dyn Env) -> Self {
        Self { spool: spool.to_owned(), budget, env, held: Vec::new(), held_bytes: 0, runs: Vec::new() }
    }

    /// Takes one entry.
    ///
    /// # Errors
    /// [`RepoError::Spool`] when a run could not be written.
    pub fn push(&mut self, entry: Entry) -> Result<(), RepoError> {
        self.held_bytes += std::mem::size_of::<Entry>() + entry.path.capacity() + run_bytes(&entry);
        self.held.push(entry);
        if self.held_bytes >= self.budget { self.spill() } else { Ok(()) }
    }

    fn spill(&mut self) -> Result<(), RepoError> {
        self.held.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        let file = self.unnamed_file()?;
        let mut out = BufWriter::with_capacity(256 * 1024, file);
        let (mut bytes, mut length) = (Vec::new(), Vec::new());
        for entry in self.held.drain(..) {
            bytes.clear();
            length.clear();
            entry.encode(&mut bytes);
            put(&mut length, bytes.len() as u64);
            out.write_all(&length).and_then(|()| out.write_all(&bytes)).map_err(RepoError::Spool)?;
        }
        self.held_bytes = 0;
        let mut file = out.into_inner().map_err(|error| RepoError::Spool(error.into_error()))?;
        file.seek(SeekFrom::Start(0)).map_err(RepoError::Spool)?;
        self.runs.push(file);
        Ok(())
    }

    fn unnamed_file(&self) -> Result<File, RepoError> {
        std::fs::create_dir_all(&self.spool).map_err(RepoError::Spool)?;
        let mut random = [0; 8];
        self.env.random(&mut random)?;
        let path = self.spool.join(format!("walden-entries-{}", hex(&random)));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(RepoError::Spool)?;
        std::fs::remove_file(&path).map_err(RepoError::Spool)?;
        Ok(file)
    }

    /// All entries in order of their paths, as bytes.
    ///
    /// # Errors
    /// [`RepoError::Spool`] when a run could not be written or read.
    pub fn finish(mut self) -> Result<SortedEntries, RepoError> {
        self.held.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        let mut runs: Vec<Run> = Vec::with_capacity(self.runs.len() + 1);
        for file in self.runs.drain(..) {
            runs.push(Run::File(BufReader::with_capacity(READ_BUFFER, file)));
        }
        runs.push(Run::Memory(std::mem::take(&mut self.held).into_iter()));
        let mut heap = BinaryHeap::with_capacity(runs.len());
        for (index, run) in runs.iter_mut().enumerate() {
            if let Some(entry) = run.next()? {
                heap.push(Reverse(Head { entry, index }));
            }
        }
        Ok(SortedEntries { runs, heap })
    }
}

fn run_bytes(entry: &Entry) -> usize {
    match &entry.kind {
        super::EntryKind::File { contents: super::Contents::Frames { runs, .. }, .. } => {
            runs.capacity() * std::mem::size_of::<super::FrameRun>()
        }
        _ => 0,
    }
}

enum Run {
    Memory(std::vec::IntoIter<Entry>),
    File(BufReader<File>),
}

impl Run {
    fn next(&mut self) -> Result<Option<Entry>, RepoError> {
        let reader = match self {
            Self::Memory(entries) => return Ok(entries.next()),
            Self::File(reader) => reader,
        };
        let broken = || RepoError::Spool(std::io::Error::other("a spooled entry was changed"));
        let mut first = [0; 1];
        if reader.read(&mut first).map_err(RepoError::Spool)? == 0 {
            return Ok(None);
        }
        let (mut length, mut shift, mut byte) = (0_usize, 0, first[0]);
        loop {
            length |= usize::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                break;
            }
            shift += 7;
            if shift > 28 {
                return Err(broken());
            }
            let mut more = [0; 1];
            reader.read_exact(&mut more).map_err(RepoError::Spool)?;
            byte = more[0];
        }
        if length > LONGEST_ENTRY {
            return Err(broken());
        }
        let mut bytes = vec![0; length];
        reader.read_exact(&mut bytes).map_err(RepoError::Spool)?;
        let mut take = Take::new(&bytes);
        let entry = Entry::decode(&mut take).map_err(|_| broken())?;
        take.end().map_err(|_| broken())?;
        Ok(Some(entry))
    }
}

struct Head {
    entry: Entry,
    index: usize,
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Head {}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Head {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.entry.path.cmp(&other.entry.path).then(self.index.cmp(&other.index))
    }
}

/// Entries in order of their paths.
pub struct SortedEntries {
    runs: Vec<Run>,
    heap: BinaryHeap<Reverse<Head>>,
}

impl std::fmt::Debug for SortedEntries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SortedEntries({} runs)", self.runs.len())
    }
}

impl Iterator for SortedEntries {
    type Item = Result<Entry, RepoError>;

    fn next(&mut self) -> Option<Self::Item> {
        let Reverse(Head { entry, index }) = self.heap.pop()?;
        match self.runs.get_mut(index).map(Run::next) {
            Some(Ok(Some(following))) => self.heap.push(Reverse(Head { entry: following, index })),
            Some(Err(error)) => return Some(Err(error)),
            Some(Ok(None)) | None => {}
        }
        Some(Ok(entry))
    }
}
