//! WAL: every object read to its end and hashed, every segment walked, neighbours held against each other.

use super::finding::{Problem, Strays};
use super::listing::{Job, TailAt, Walk};
use super::work::{Meter, each};
use super::{VerifyError, Wrong};
use crate::repo::RepoError;
use crate::repo::layout::{self, hex};
use crate::repo::record::WalProof;
use crate::storage::Key;
use crate::units::{BackupId, Lsn, SegmentName, SegmentSize, TimelineId};
use crate::wal::chain::{ChainWalk, Link};
use crate::wal::{ClusterWal, SegmentInfo, Verdict, WalError, read};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What was read of one timeline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub segments: u64,
    pub partials: u64,
    pub tails: u64,
    pub bytes: u64,
    /// Segments of a PostgreSQL that is unknown here: whole, but not walked.
    pub unknown: u64,
}

/// A complete name whose WAL ends inside: no damage where nothing follows.
#[derive(Clone, Debug)]
pub(super) struct EndsInside {
    pub at: Lsn,
    pub why: String,
}

/// What reading the WAL brought.
#[derive(Default)]
pub(super) struct Found {
    pub problems: Vec<(SegmentName, Problem)>,
    /// Problems beyond the ones that are kept, by timeline.
    pub more: BTreeMap<TimelineId, u64>,
    pub counts: BTreeMap<TimelineId, Count>,
    pub ends_inside: BTreeMap<SegmentName, EndsInside>,
    /// The offset up to which an unfinished copy holds WAL.
    pub partial_valid: BTreeMap<SegmentName, u64>,
    /// Segments that were listed and gone when they were to be read.
    pub vanished: Vec<SegmentName>,
    /// Whether a tail or a partial was.
    pub pieces_vanished: bool,
    /// Backups whose stop segment was read, and whether it is the one they ended in.
    pub proofs: BTreeMap<BackupId, bool>,
    pub strays: Strays,
    chain: Chain,
}

/// So many problems are kept of all the WAL.
const MOST_PROBLEMS: usize = 4000;

impl Found {
    pub(super) fn problem(&mut self, segment: SegmentName, problem: Problem) {
        if self.problems.len() < MOST_PROBLEMS {
            self.problems.push((segment, problem));
        } else {
            *self.more.entry(segment.timeline()).or_default() += 1;
        }
    }
}

impl Found {
    /// One good copy is enough.
    fn prove(&mut self, proofs: Proofs) {
        for (id, good) in proofs.finish() {
            *self.proofs.entry(id).or_default() |= good;
        }
    }
}

/// What is to be read, and what is known before.
pub(super) struct Wanted<'a> {
    pub wal: ClusterWal<'a>,
    pub size: SegmentSize,
    pub proofs: &'a [(BackupId, WalProof)],
    /// For the first segment of a timeline, the segment of its ancestor that it goes on from.
    pub junctions: &'a BTreeMap<SegmentName, SegmentName>,
}

/// Reads everything that `walk` lists.
///
/// # Errors
/// The listing's, and ours.
pub(super) fn read_all(
    wanted: &Wanted<'_>,
    walk: &mut Walk<'_>,
    meter: &Meter<'_>,
    workers: usize,
) -> Result<Found, VerifyError> {
    let found = Mutex::new(Found {
        chain: Chain { parents: wanted.junctions.values().copied().collect(), ..Chain::default() },
        ..Found::default()
    });
    let reading = Reading { wanted, meter, found: &found };
    each(workers, meter, || walk.next(), |_, job| reading.job(&job))?;
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.strays.extend(std::mem::take(&mut walk.strays));
    // Told in the order of the WAL, whoever found them first.
    found.problems.sort_by(|(one, a), (other, b)| one.cmp(other).then_with(|| a.object.cmp(&b.object)));
    Ok(found)
}

struct Reading<'a> {
    wanted: &'a Wanted<'a>,
    meter: &'a Meter<'a>,
    found: &'a Mutex<Found>,
}

impl Reading<'_> {
    fn lock(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn job(&self, job: &Job) -> Result<(), VerifyError> {
        let (wal, name) = (self.wanted.wal, job.segment);
        if let Some(size) = job.complete {
            let key = layout::segment(wal.stanza, wal.system, name).map_err(RepoError::from)?.key;
            let parts: u64 = job.parts.iter().map(|(_, size)| size).sum();
            if !self.gave_up(name, &key) {
                match self.complete(name, &key) {
                    Ok(()) => self.count(name, size + parts, |count| count.segments += 1),
                    Err(error) => self.failed(name, &key, error, true)?,
                }
            }
        }
        for (hash, size) in &job.partials {
            let place = layout::partial(wal.stanza, wal.system, name, &hash.padded());
            let key = place.map_err(RepoError::from)?.key;
            if self.gave_up(name, &key) {
                continue;
            }
            let mut proofs = self.proofs_beside(job);
            let result = read::read_partial_into(wal, name, *hash, &mut |bytes| {
                proofs.feed(bytes);
                Ok(())
            });
            match result {
                Ok(info) => {
                    let valid = valid_bytes(&info);
                    let mut found = self.lock();
                    found.prove(proofs);
                    let held = found.partial_valid.entry(name).or_default();
                    *held = valid.max(*held);
                    drop(found);
                    self.count(name, *size, |count| count.partials += 1);
                }
                Err(error) => self.failed(name, &key, error, false)?,
            }
        }
        self.tails(job)?;
        for (offset, hash, size) in &job.backup_notes {
            let place = layout::backup_history(wal.stanza, wal.system, name, *offset, &hash.padded());
            let key = place.map_err(RepoError::from)?.key;
            if self.gave_up(name, &key) {
                continue;
            }
            match read::read_backup_history(wal, name, *offset, *hash) {
                Ok(_) => self.count(name, *size, |_| {}),
                Err(error) => self.failed(name, &key, error, false)?,
            }
        }
        self.parts(job)
    }

    fn count(&self, name: SegmentName, bytes: u64, add: impl FnOnce(&mut Count)) {
        self.meter.object();
        let mut found = self.lock();
        let count = found.counts.entry(name.timeline()).or_default();
        count.bytes += bytes;
        add(count);
        drop(found);
        self.meter.read(bytes);
    }

    fn gave_up(&self, name: SegmentName, key: &Key) -> bool {
        let over = self.meter.given_up();
        if over {
            let why = "the store did not answer any more";
            self.lock().problem(name, Problem::new(Wrong::NotChecked, key, why));
        }
        over
    }

    /// Something of `name` could not be read. What is gone is looked for later, when all of it is known.
    fn failed(
        &self,
        name: SegmentName,
        key: &Key,
        error: WalError,
        complete: bool,
    ) -> Result<(), VerifyError> {
        let error = match error {
            WalError::Repo(error) => error,
            WalError::Codec(error) | WalError::Sink(error) => return Err(VerifyError::Resources(error)),
            other => RepoError::damaged(key, other.to_string()),
        };
        self.meter.note(&error);
        let problem = match &error {
            RepoError::Missing { object } if object == key => None,
            // A part: gone with its segment, or lost.
            RepoError::Missing { .. } => match self.wanted.wal.repo.store().size(key) {
                Ok(None) => None,
                Ok(Some(_)) => Some(Problem::of(error, key)?),
                Err(error) => Some(Problem::of(error.into(), key)?),
            },
            _ => Some(Problem::of(error, key)?),
        };
        let mut found = self.lock();
        match problem {
            Some(problem) => found.problem(name, problem),
            None if complete => found.vanished.push(name),
            None => found.pieces_vanished = true,
        }
        Ok(())
    }

    fn complete(&self, name: SegmentName, key: &Key) -> Result<(), WalError> {
        let wal = self.wanted.wal;
        let mut walk = ChainWalk::new(name);
        let mut strange = None;
        let mut proofs = Proofs::of(self.wanted, name);
        let info = read::read_segment_into(wal, name, &mut |bytes| {
            proofs.feed(bytes);
            if strange.is_none() {
                strange = walk.feed(bytes).err();
            }
            Ok(())
        })?;
        let walked = match strange {
            Some(error) => Err(error),
            None => walk.finish(),
        };
        let walked = match walked {
            Ok(walked) if walked.identity.system_identifier == wal.system => walked,
            Ok(walked) => {
                let why = format!("it is WAL of another cluster, {}", walked.identity.system_identifier);
                return Err(RepoError::damaged(key, why).into());
            }
            Err(error) => return Err(RepoError::damaged(key, error.to_string()).into()),
        };
        let known = walked.identity.dialect().is_some();
        if info.verdict == Verdict::Complete && known && !walked.completeness.is_complete() {
            let why = format!("its WAL ends at {}: {}", walked.valid_up_to, walked.completeness);
            return Err(RepoError::damaged(key, why).into());
        }
        let mut found = self.lock();
        found.prove(proofs);
        if !known {
            found.counts.entry(name.timeline()).or_default().unknown += 1;
        }
        match walked.link {
            Some(link) => {
                let breaks = found.chain.add(self.wanted, name, link);
                for (later, why) in breaks {
                    let place = layout::segment(wal.stanza, wal.system, later)?;
                    found.problem(later, Problem::damaged(place.key, why));
                }
            }
            None if known => {
                let why = walked.completeness.to_string();
                found.ends_inside.insert(name, EndsInside { at: walked.valid_up_to, why });
            }
            None => {}
        }
        Ok(())
    }

    /// A stop segment that never came whole is proved from what there is of it.
    fn proofs_beside(&self, job: &Job) -> Proofs {
        if job.complete.is_some() { Proofs::default() } else { Proofs::of(self.wanted, job.segment) }
    }

    fn tails(&self, job: &Job) -> Result<(), VerifyError> {
        let (wal, name) = (self.wanted.wal, job.segment);
        let mut tails: Vec<&TailAt> = job.tails.iter().collect();
        tails.sort();
        let mut proofs = self.proofs_beside(job);
        let mut reach = 0_u64;
        for tail in tails {
            let place = layout::tail(wal.stanza, wal.system, name, tail.from, tail.to, &tail.writer);
            let key = place.map_err(RepoError::from)?.key;
            if self.gave_up(name, &key) {
                continue;
            }
            match read::read_tail(wal, name, tail.from..tail.to, &tail.writer) {
                Ok(bytes) => {
                    if u64::from(tail.from) <= reach && u64::from(tail.to) > reach {
                        let known = usize::try_from(reach - u64::from(tail.from)).unwrap_or(usize::MAX);
                        proofs.feed(bytes.get(known..).unwrap_or_default());
                        reach = tail.to.into();
                    }
                    self.count(name, tail.size, |count| count.tails += 1);
                }
                Err(error) => self.failed(name, &key, error, false)?,
            }
        }
        self.lock().prove(proofs);
        Ok(())
    }

    /// Parts that no index names, where the indexes can be read.
    fn parts(&self, job: &Job) -> Result<(), VerifyError> {
        if job.parts.is_empty() {
            return Ok(());
        }
        let wal = self.wanted.wal;
        let mut named = BTreeSet::new();
        let partials = job.partials.iter().map(|(hash, _)| Some(*hash));
        for copy in job.complete.iter().map(|_| None).chain(partials) {
            match read::parts_of(wal, job.segment, copy) {
                Ok(parts) => named.extend(parts.iter().map(|hash| hex(hash.as_bytes()))),
                Err(WalError::Repo(error)) if error.store_kind().is_some() => {
                    let key = layout::segment(wal.stanza, wal.system, job.segment);
                    let key = key.map_err(RepoError::from)?.key;
                    return self.failed(job.segment, &key, error.into(), false);
                }
                // Said already, when it was to be read.
                Err(_) => return Ok(()),
            }
        }
        for (hash, _) in job.parts.iter().filter(|(hash, _)| !named.contains(hash)) {
            let key = layout::wal_folder(wal.stanza, wal.system, job.segment).map_err(RepoError::from)?;
            self.lock().strays.add(&format!("{key}/{}.part/{hash}", job.segment));
        }
        Ok(())
    }
}

fn valid_bytes(info: &SegmentInfo) -> u64 {
    match info.verdict {
        Verdict::Complete => info.size,
        Verdict::Incomplete | Verdict::Unsure => info.valid.min(info.size),
    }
}

/// Hashes of the beginnings of a segment in which backups ended.
#[derive(Default)]
struct Proofs(Vec<(BackupId, u64, String, Sha256)>);

impl Proofs {
    fn of(wanted: &Wanted<'_>, name: SegmentName) -> Self {
        let of_it = wanted.proofs.iter().filter(|(_, proof)| proof.segment == name);
        let start = name.start(wanted.size);
        Self(
            of_it
                .filter_map(|(id, proof)| {
                    let length = proof.until_lsn.since(start?)?;
                    Some((id.clone(), length, proof.sha256.clone(), Sha256::new()))
                })
                .collect(),
        )
    }

    fn feed(&mut self, bytes: &[u8]) {
        for (_, left, _, hash) in &mut self.0 {
            let take = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
            hash.update(bytes.get(..take).unwrap_or_default());
            *left -= take as u64;
        }
    }

    /// Those of which enough bytes came.
    fn finish(self) -> impl Iterator<Item = (BackupId, bool)> {
        let whole = self.0.into_iter().filter(|(_, left, ..)| *left == 0);
        whole.map(|(id, _, expected, hash)| (id, hex(&hash.finalize()) == expected))
    }
}

/// Links that wait for their neighbours.
#[derive(Default)]
struct Chain {
    waiting: BTreeMap<SegmentName, (Link, bool, bool)>,
    /// Segments that also have a neighbour on another timeline.
    parents: BTreeSet<SegmentName>,
}

impl Chain {
    /// Holds a segment against those neighbours that are known. Gives what does not fit, by the later one.
    fn add(&mut self, wanted: &Wanted<'_>, name: SegmentName, link: Link) -> Vec<(SegmentName, String)> {
        let mut breaks = Vec::new();
        let mut hold = |before: SegmentName, first: &Link, after: SegmentName, second: &Link| {
            if let Err(why) = first.goes_on_in(second) {
                breaks.push((after, format!("it does not go on from {before}: {why}")));
            }
        };
        let (mut left, mut right) = (false, false);
        let number = name.number(wanted.size);
        let neighbour = |step: i64| {
            let number = number?.checked_add_signed(step)?;
            SegmentName::from_number(name.timeline(), number, wanted.size)
        };
        if let Some(before) = neighbour(-1)
            && let Some((other, _, done)) = self.waiting.get_mut(&before)
        {
            hold(before, other, name, &link);
            (*done, left) = (true, true);
        }
        if let Some(after) = neighbour(1)
            && let Some((other, done, _)) = self.waiting.get_mut(&after)
        {
            hold(name, &link, after, other);
            (*done, right) = (true, true);
        }
        // A timeline goes on from its ancestor's segment.
        if let Some(parent) = wanted.junctions.get(&name)
            && let Some((other, ..)) = self.waiting.get(parent)
        {
            hold(*parent, other, name, &link);
            left = true;
        }
        for (child, _) in wanted.junctions.iter().filter(|(_, parent)| **parent == name) {
            if let Some((other, done, _)) = self.waiting.get_mut(child) {
                hold(name, &link, *child, other);
                *done = true;
            }
        }
        self.waiting.insert(name, (link, left, right));
        let parents = &self.parents;
        // Those with both neighbours known are not asked for again; a few wait for ever at gaps and ends.
        self.waiting.retain(|name, (_, left, right)| !(*left && *right) || parents.contains(name));
        breaks
    }
}
