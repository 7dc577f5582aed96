//! Putting together what there is of a segment that is not stored whole.

use super::decide::{Pieces, Trouble};
use super::names::Piece;
use super::repositories::Candidate;
use super::target::TargetFile;
use super::{Cluster, identity};
use crate::repo::layout;
use crate::units::SegmentName;
use crate::wal::{SegmentInfo, ShortHash, Verdict, WalError, read};
use std::collections::BTreeMap;
use std::io;

/// Fills `file` with the segment as far as partial segments and tails have it; every byte that counts was
/// checked. `named` are the pieces of each repository.
///
/// The longest partial segment is taken as it is, with whatever follows its WAL, as in the server it came from:
/// PostgreSQL finds the end itself. Tails go on from there and must agree with what they overlap; behind the
/// last of them all is zero.
///
/// # Errors
/// Of the local file system.
pub fn assemble(
    cluster: &Cluster<'_>,
    candidates: &[Candidate<'_>],
    name: SegmentName,
    named: &[Vec<Piece>],
    file: &mut TargetFile,
) -> io::Result<Pieces> {
    let mut work = Assembly { cluster, candidates, name, file, troubles: Vec::new() };
    work.file.clear()?;
    let mut holders: BTreeMap<&Piece, Vec<usize>> = BTreeMap::new();
    for (at, pieces) in named.iter().enumerate() {
        for piece in pieces {
            holders.entry(piece).or_default().push(at);
        }
    }
    let base = work.base(&holders)?;
    let size = cluster.size.bytes();
    let mut reach = base.unwrap_or(0);
    if reach < size {
        reach = work.tails(&holders, reach)?;
    }
    work.file.set_size(size)?;
    let start = name.start(cluster.size);
    Ok(Pieces {
        reach: start.and_then(|start| start.forward(reach)).filter(|_| reach > 0 || base.is_some()),
        troubles: work.troubles,
    })
}

struct Assembly<'a, 'b> {
    cluster: &'a Cluster<'a>,
    candidates: &'a [Candidate<'b>],
    name: SegmentName,
    file: &'a mut TargetFile,
    troubles: Vec<Trouble>,
}

impl Assembly<'_, '_> {
    /// The partial segment that reaches furthest; gives the bytes of WAL in it.
    fn base(&mut self, holders: &BTreeMap<&Piece, Vec<usize>>) -> io::Result<Option<u64>> {
        let mut partials = Vec::new();
        for (piece, at) in holders {
            if let Piece::Partial(hash) = piece
                && let Some(reach) = self.promises(*hash, at)
            {
                partials.push((reach, *hash, at));
            }
        }
        partials.sort_by_key(|(reach, ..)| std::cmp::Reverse(*reach));
        for (reach, hash, at) in partials {
            let mut troubles = Vec::new();
            for candidate in at.iter().filter_map(|at| self.candidates.get(*at)) {
                match self.read_partial(candidate, hash)? {
                    Ok(()) => return Ok(Some(reach)),
                    Err(trouble) => troubles.push(trouble),
                }
            }
            self.troubles.extend(troubles);
        }
        Ok(None)
    }

    /// How far a partial segment reaches by its own sealed words.
    fn promises(&mut self, hash: ShortHash, at: &[usize]) -> Option<u64> {
        let mut troubles = Vec::new();
        for candidate in at.iter().filter_map(|at| self.candidates.get(*at)) {
            let info = candidate.wal(self.cluster.stanza, self.cluster.system).and_then(|wal| {
                read::partial_info(wal, self.name, hash).map_err(|e| self.trouble(candidate, &e))
            });
            match info {
                Ok(info) => match reach_of(&info, self.cluster.size.bytes()) {
                    Some(reach) => return Some(reach),
                    None => troubles.push(candidate.damaged("a partial copy is longer than a segment")),
                },
                Err(trouble) => troubles.push(trouble),
            }
        }
        self.troubles.extend(troubles);
        None
    }

    fn trouble(&self, candidate: &Candidate<'_>, error: &WalError) -> Trouble {
        let key = layout::wal_folder(self.cluster.stanza, self.cluster.system, self.name);
        // It was listed: gone is no better than damaged. No object has the folder's own key.
        match key {
            Ok(key) => {
                candidate.wal_trouble(&key, error).unwrap_or_else(|| candidate.damaged(error.to_string()))
            }
            Err(_) => candidate.damaged(error.to_string()),
        }
    }

    fn read_partial(
        &mut self,
        candidate: &Candidate<'_>,
        hash: ShortHash,
    ) -> io::Result<Result<(), Trouble>> {
        let wal = match candidate.wal(self.cluster.stanza, self.cluster.system) {
            Ok(wal) => wal,
            Err(trouble) => return Ok(Err(trouble)),
        };
        self.file.clear()?;
        let mut head = identity::Head::default();
        let file = &mut *self.file;
        let read = read::read_partial_into(wal, self.name, hash, &mut |bytes| {
            head.take(bytes);
            file.append(bytes)
        });
        match read {
            Ok(_) => Ok(head.check(self.cluster, self.name).map_err(|why| candidate.damaged(why))),
            Err(WalError::Sink(error)) => Err(error),
            Err(error) => Ok(Err(self.trouble(candidate, &error))),
        }
    }

    /// Goes on from `reach` with tails; gives how far they lead.
    fn tails(&mut self, holders: &BTreeMap<&Piece, Vec<usize>>, mut reach: u64) -> io::Result<u64> {
        let mut tails: Vec<_> = holders
            .iter()
            .filter_map(|(piece, at)| match piece {
                Piece::Tail { from, to, writer } => {
                    Some((u64::from(*from), u64::from(*to), writer.as_str(), at))
                }
                Piece::Partial(_) => None,
            })
            .collect();
        // The longest of those that begin at one place first: the shorter ones are then not needed.
        tails.sort_by_key(|(from, to, ..)| (*from, std::cmp::Reverse(*to)));
        let before = reach;
        for (from, to, writer, at) in tails {
            if to <= reach || to > self.cluster.size.bytes() {
                continue;
            }
            if from > reach {
                break;
            }
            let mut troubles = Vec::new();
            for candidate in at.iter().filter_map(|at| self.candidates.get(*at)) {
                match self.append_tail(candidate, (from, to), writer, reach)? {
                    Ok(()) => {
                        reach = to;
                        troubles.clear();
                        break;
                    }
                    Err(trouble) => troubles.push(trouble),
                }
            }
            self.troubles.extend(troubles);
        }
        if reach > before {
            self.file.zero_from(reach, self.cluster.size.bytes())?;
            let mut first = [0; identity::NEEDED];
            if reach >= first.len() as u64 {
                self.file.read_at(0, &mut first)?;
                let mut head = identity::Head::default();
                head.take(&first);
                if let Err(why) = head.check(self.cluster, self.name) {
                    self.troubles.extend(self.candidates.first().map(|candidate| candidate.damaged(why)));
                    return Ok(0);
                }
            }
        }
        Ok(reach)
    }

    fn append_tail(
        &mut self,
        candidate: &Candidate<'_>,
        (from, to): (u64, u64),
        writer: &str,
        reach: u64,
    ) -> io::Result<Result<(), Trouble>> {
        let offsets = u32::try_from(from).ok().zip(u32::try_from(to).ok());
        let Some((first, end)) = offsets else { return Ok(Err(candidate.damaged("a tail is out of place"))) };
        let bytes = candidate.wal(self.cluster.stanza, self.cluster.system).and_then(|wal| {
            read::read_tail(wal, self.name, first..end, writer).map_err(|e| self.trouble(candidate, &e))
        });
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(trouble) => return Ok(Err(trouble)),
        };
        let known = usize::try_from(reach - from).unwrap_or(usize::MAX);
        let Some((overlap, new)) = bytes.split_at_checked(known) else {
            return Ok(Err(candidate.damaged("a tail is shorter than its name says")));
        };
        let mut held = vec![0; overlap.len()];
        self.file.read_at(from, &mut held)?;
        if held != overlap {
            return Ok(Err(candidate.damaged("two stored copies of its beginning disagree")));
        }
        self.file.write_at(reach, new)?;
        Ok(Ok(()))
    }
}

/// The end of the WAL in a partial segment; `None` when it is too long to be one.
fn reach_of(info: &SegmentInfo, size: u64) -> Option<u64> {
    match info.verdict {
        _ if info.size > size => None,
        Verdict::Complete if info.size == size => Some(size),
        Verdict::Complete | Verdict::Incomplete => {
            Some(info.valid.min(info.size).min(size.saturating_sub(1)))
        }
        // Of a version that nobody here can read: something is in it, and how much only PostgreSQL can tell.
        Verdict::Unsure => Some(info.valid.min(info.size).clamp(1, size.saturating_sub(1))),
    }
}
