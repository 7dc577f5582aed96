//! WAL over the connection itself: where nothing is archived (`--archive-check=n`), and what a standby has of
//! WAL that its primary has not archived.
//!
//! A temporary slot holds the WAL back while the backup is copied. A segment that is complete and to be stored
//! under its name is checked as `archive-push` checks it; what is taken as tails lies beside the name, in nobody's
//! way. The backup then restores alone.

use super::error::BackupError;
use super::observer::Observer;
use super::proof::ArchivedWal;
use crate::env::Env;
use crate::postgres::client::{ClientError, ReplicationClient, SlotName, WalEvent, WalRequest};
use crate::repo::frame::Compression;
use crate::repo::{RepoError, layout};
use crate::units::{Lsn, SegmentName, WalFileName};
use crate::wal::push::{Push, Trouble, push};
use crate::wal::tails::TAIL_PIECE;
use crate::wal::write::store_tail;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often a stream that waits looks whether it should stop.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// `ERRCODE_UNDEFINED_OBJECT`: there is no such slot.
const UNDEFINED_OBJECT: &str = "42704";

/// Makes the slot. It vanishes with the connection.
///
/// # Errors
/// The server's: no free slot, or no right to make one.
pub async fn hold_wal(client: &mut ReplicationClient, env: &dyn Env) -> Result<SlotName, BackupError> {
    let mut random = [0; 8];
    env.random(&mut random).map_err(RepoError::from)?;
    let name: SlotName = format!("walden_{}", layout::hex(&random)).parse()?;
    client.create_temporary_slot(&name).await?;
    Ok(name)
}

/// What to fetch of one segment: all of it, or its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The segment.
    pub segment: SegmentName,
    /// Up to where.
    pub until: Lsn,
    /// Whether it is stored as tails rather than under the segment's own name.
    pub as_tails: bool,
}

/// How WAL is fetched, and where it goes.
pub struct Fetch<'a> {
    /// The cluster's WAL in the repository.
    pub wal: ArchivedWal<'a>,
    /// What keeps it on the server.
    pub slot: Option<&'a SlotName>,
    /// Where a segment lies that will be stored whole: room for one.
    pub spool: &'a Path,
    /// How frames are compressed.
    pub compression: Compression,
    /// Who the tails are of: the backup's id.
    pub writer: &'a str,
    /// How long to wait without any WAL coming.
    pub patience: Duration,
    /// Randomness.
    pub env: &'a dyn Env,
    /// Sees it, and stops it.
    pub observer: &'a dyn Observer,
}

impl Fetch<'_> {
    /// Streams and stores all of `wanted`, which rises.
    ///
    /// # Errors
    /// The server's, the spool's or the repository's trouble; [`BackupError::NotThisServersWal`] when the
    /// repository holds a segment of the same name with other contents; [`BackupError::WalNotSent`].
    pub async fn run(&self, client: &mut ReplicationClient, wanted: &[Wanted]) -> Result<(), BackupError> {
        let size = self.wal.size;
        // One stream for neighbours of one timeline.
        let follows = |one: &Wanted, next: &Wanted| {
            one.segment.next(size) == Some(next.segment) && next.segment.start(size) == Some(one.until)
        };
        for run in wanted.chunk_by(follows) {
            self.stream(client, run).await?;
        }
        Ok(())
    }

    async fn stream(&self, client: &mut ReplicationClient, run: &[Wanted]) -> Result<(), BackupError> {
        match self.stream_from(client, run, self.slot).await {
            // A base backup that ends with an error, as for damaged pages, takes the session's slots with it. What they
            // held back is still there as a rule, and if not the server says so.
            Err(BackupError::Client(ClientError::Server { server, .. }))
                if self.slot.is_some() && server.sqlstate == UNDEFINED_OBJECT =>
            {
                self.stream_from(client, run, None).await
            }
            ended => ended,
        }
    }

    async fn stream_from(
        &self,
        client: &mut ReplicationClient,
        run: &[Wanted],
        slot: Option<&SlotName>,
    ) -> Result<(), BackupError> {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { return Ok(()) };
        let request = WalRequest {
            start: first.segment.start(self.wal.size).ok_or(BackupError::Bug)?,
            timeline: first.segment.timeline(),
            slot: slot.cloned(),
            stop: Some(last.until),
        };
        let mut stream = client.start_replication(request).await?;
        let mut left = run.iter();
        let mut taking = left.next().map(|wanted| Taking::begin(self, *wanted)).transpose()?;
        let mut last_came = Instant::now();
        loop {
            if self.observer.interrupted() {
                return Err(BackupError::Interrupted);
            }
            if let Some(taking) = taking.as_ref().filter(|_| last_came.elapsed() >= self.patience) {
                let segment = taking.wanted.segment;
                return Err(BackupError::WalNotSent { segment, waited: last_came.elapsed() });
            }
            let Ok(event) = tokio::time::timeout(LOOK_EVERY, stream.next()).await else { continue };
            match event? {
                WalEvent::Data { mut bytes, .. } => {
                    last_came = Instant::now();
                    while !bytes.is_empty() {
                        let Some(current) = taking.as_mut() else { return Err(BackupError::Bug) };
                        let used = current.take(self, bytes)?;
                        bytes = &bytes[used..];
                        if current.is_full() {
                            if let Some(done) = taking.take() {
                                done.store(self)?;
                            }
                            taking = left.next().map(|wanted| Taking::begin(self, *wanted)).transpose()?;
                        }
                    }
                }
                WalEvent::Keepalive { .. } => {}
                WalEvent::Stopped { .. } if taking.is_none() => return Ok(()),
                WalEvent::Stopped { .. } => return Err(BackupError::Bug),
                WalEvent::EndOfTimeline { .. } => return Err(BackupError::Promoted),
            }
        }
    }
}

/// A segment on its way.
struct Taking {
    wanted: Wanted,
    /// Bytes of it that came.
    length: u64,
    /// Bytes of it that are wanted.
    end: u64,
    into: Into,
}

enum Into {
    /// Its own name, by way of a file.
    Named(SpooledSegment),
    /// Tails: what came since the last one was stored.
    Tails(Vec<u8>),
}

impl Taking {
    fn begin(fetch: &Fetch<'_>, wanted: Wanted) -> Result<Self, BackupError> {
        fetch.observer.fetching_wal(wanted.segment);
        let start = wanted.segment.start(fetch.wal.size).ok_or(BackupError::Bug)?;
        let end = wanted.until.since(start).filter(|end| *end > 0).ok_or(BackupError::Bug)?;
        let into = if wanted.as_tails {
            Into::Tails(Vec::new())
        } else {
            Into::Named(SpooledSegment::create(fetch.spool, wanted.segment, fetch.env)?)
        };
        Ok(Self { wanted, length: 0, end, into })
    }

    const fn is_full(&self) -> bool {
        self.length == self.end
    }

    /// Takes what belongs to this segment; gives how many bytes that were.
    fn take(&mut self, fetch: &Fetch<'_>, bytes: &[u8]) -> Result<usize, BackupError> {
        let mut room = usize::try_from(self.end - self.length).unwrap_or(usize::MAX);
        if let Into::Tails(held) = &self.into {
            room = room.min(TAIL_PIECE - held.len());
        }
        let now = &bytes[..room.min(bytes.len())];
        self.length += now.len() as u64;
        match &mut self.into {
            Into::Named(file) => file.write(now)?,
            Into::Tails(held) => {
                held.extend_from_slice(now);
                if held.len() == TAIL_PIECE && self.length < self.end {
                    self.store_tail(fetch)?;
                }
            }
        }
        Ok(now.len())
    }

    fn store_tail(&mut self, fetch: &Fetch<'_>) -> Result<(), BackupError> {
        let Into::Tails(held) = &mut self.into else { return Ok(()) };
        let from = u32::try_from(self.length - held.len() as u64).map_err(|_| BackupError::Bug)?;
        let (cluster, segment) = (fetch.wal.cluster, self.wanted.segment);
        store_tail(cluster, segment, from, held, fetch.writer, fetch.compression, fetch.env)?;
        held.clear();
        Ok(())
    }

    /// Stores what is left of it.
    fn store(mut self, fetch: &Fetch<'_>) -> Result<(), BackupError> {
        match &self.into {
            Into::Named(file) => {
                store(&fetch.wal, self.wanted.segment, &file.path, fetch.compression, fetch.env)
            }
            Into::Tails(_) => self.store_tail(fetch),
        }
    }
}

fn store(
    wal: &ArchivedWal<'_>,
    segment: SegmentName,
    path: &Path,
    compression: Compression,
    env: &dyn Env,
) -> Result<(), BackupError> {
    let pushed = push(Push {
        repositories: &[wal.cluster.repo],
        stanza: wal.cluster.stanza,
        path,
        name: WalFileName::Segment(segment),
        data_directory: None,
        compression,
        env,
        // One segment is short; interrupts are looked for between two of them.
        stop: &crate::pipeline::StopFlag::new(),
    });
    let differs = |why: String| BackupError::NotThisServersWal {
        at: segment.start(wal.size).unwrap_or(Lsn::INVALID),
        why,
    };
    match pushed.map_err(|error| differs(error.to_string()))?.outcomes.into_iter().next() {
        Some(Ok(_)) => Ok(()),
        Some(Err(Trouble::Wal(error @ crate::wal::WalError::Conflict { .. }))) => {
            Err(differs(error.to_string()))
        }
        Some(Err(Trouble::Wal(error))) => Err(error.into()),
        Some(Err(other)) => Err(differs(other.to_string())),
        None => Err(BackupError::Bug),
    }
}

/// A segment's file, removed when it is dropped.
struct SpooledSegment {
    file: File,
    path: PathBuf,
}

impl SpooledSegment {
    fn create(spool: &Path, segment: SegmentName, env: &dyn Env) -> Result<Self, BackupError> {
        let mut random = [0; 8];
        env.random(&mut random).map_err(RepoError::from)?;
        let path = spool.join(format!("walden-{segment}-{}", layout::hex(&random)));
        let file = std::fs::create_dir_all(spool)
            .and_then(|()| OpenOptions::new().write(true).create_new(true).open(&path))
            .map_err(RepoError::Spool)?;
        Ok(Self { file, path })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), BackupError> {
        self.file.write_all(bytes).map_err(RepoError::Spool)?;
        Ok(())
    }
}

impl Drop for SpooledSegment {
    fn drop(&mut self) {
        // A leftover is only lost space: the name is random.
        let _ = std::fs::remove_file(&self.path);
    }
}
