//! Gathers what the decision asks for, and gives PostgreSQL the file.

use super::created::Look;
use super::decide::{
    self, Answer, Doubt, Far, HistoryFacts, HistoryNeed, Lineage, Near, Need, SegmentFacts, Source,
    Timelines, Trouble, Verdict, Whole,
};
use super::names::{self, Piece};
use super::repositories::Candidate;
use super::target::TargetFile;
use super::{Cluster, Patience, Request, identity, pieces};
use crate::postgres::history::TimelineHistory;
use crate::repo::layout::{self, WalEntry};
use crate::units::{SegmentName, TimelineId, Timestamp, WalFileName};
use crate::wal::{CreatedTablespace, ShortHash, WalError, read};
use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// The answer, and where the bytes came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// What PostgreSQL is told.
    pub answer: Answer,
    /// The repository that the file came from, where it came whole from one.
    pub from: Option<String>,
}

/// Answers for `request`, with the file at `target` when the answer is to serve.
///
/// When the answer is another, or after `Err` or a crash, `target` is what it was. Nothing is remembered from
/// one call to the next: what is missing now may come in at any moment.
///
/// # Errors
/// When the file could not be written where PostgreSQL wants it.
pub fn get(
    request: &Request<'_>,
    candidates: &[Candidate<'_>],
    target: &Path,
    patience: &mut dyn Patience,
) -> io::Result<Given> {
    let file = TargetFile::create(target)?;
    let mut fetch = Fetch {
        request,
        candidates,
        file,
        pieces: Vec::new(),
        timelines: None,
        from: None,
        created: Vec::new(),
    };
    let (mut answer, start) = match request.name {
        WalFileName::Segment(name) => (fetch.segment(name, patience)?, name.start(request.question.size)),
        WalFileName::History(timeline) => (fetch.history(timeline)?, None),
        WalFileName::Partial(name) => (fetch.partial(name)?, None),
        WalFileName::BackupHistory(name, offset) => (fetch.backup_history(name, offset)?, None),
    };
    let Fetch { mut file, from, created, .. } = fetch;
    if let Verdict::Serve { cut, source } = &answer.verdict {
        if let Some(offset) = cut.zip(start).and_then(|(cut, start)| cut.since(start)) {
            file.zero_from(offset, request.question.size.bytes())?;
        }
        let doubt = match (&request.server, request.name) {
            (Some(server), WalFileName::Segment(name)) => {
                let pg_wal = target.parent().filter(|parent| !parent.as_os_str().is_empty());
                let pg_wal = pg_wal.unwrap_or(Path::new("."));
                let as_stored = cut.is_none() && *source == Source::Whole;
                let cluster = &request.cluster;
                Look { cluster, candidates, file: &file, name, server, pg_wal }
                    .doubt(as_stored.then_some(&created[..]))?
            }
            _ => None,
        };
        match doubt {
            Some((row, doubt)) => answer = Answer { verdict: Verdict::Unsure(doubt), row },
            // COMMIT POINT. Every byte was checked; from here on PostgreSQL may read it.
            None => file.show()?,
        }
    }
    Ok(Given { answer, from })
}

/// The last commit before `name` on its timeline that the archive knows of, for telling people what a stop
/// saves. Looks at a few segments; `None` when that does not tell.
#[must_use]
pub fn last_commit_before(
    cluster: &Cluster<'_>,
    candidates: &[Candidate<'_>],
    name: SegmentName,
) -> Option<Timestamp> {
    let number = name.number(cluster.size)?;
    for before in 1..=4 {
        let earlier = SegmentName::from_number(name.timeline(), number.checked_sub(before)?, cluster.size)?;
        for candidate in candidates {
            let wal = candidate.wal(cluster.stanza, cluster.system).ok()?;
            if let Ok(info) = read::segment_info(wal, earlier)
                && let Some(commit) = info.last_commit
            {
                return Some(commit.at);
            }
        }
    }
    None
}

struct Fetch<'a, 'b> {
    request: &'a Request<'a>,
    candidates: &'a [Candidate<'b>],
    file: TargetFile,
    /// The segment's pieces in each repository, once they were listed.
    pieces: Vec<Vec<Piece>>,
    timelines: Option<Timelines>,
    from: Option<String>,
    /// Tablespaces that the segment in the file creates, where it came whole.
    created: Vec<CreatedTablespace>,
}

impl Fetch<'_, '_> {
    fn cluster(&self) -> &Cluster<'_> {
        &self.request.cluster
    }

    fn segment(&mut self, name: SegmentName, patience: &mut dyn Patience) -> io::Result<Answer> {
        let fresh = || SegmentFacts { repositories: self.candidates.len(), ..SegmentFacts::default() };
        let mut facts = fresh();
        loop {
            let need = match decide::segment(&self.request.question, name, &facts) {
                Ok(answer) => return Ok(answer),
                Err(need) => need,
            };
            match need {
                Need::Whole => facts.whole = Some(self.whole_segment(name)?),
                Need::Lineage => facts.lineage = Some(self.lineage()),
                Need::Near => facts.near = Some(self.near(name)),
                Need::Far => facts.far = Some(self.far(name, facts.lineage.as_ref())),
                Need::Pieces => {
                    facts.pieces = Some(pieces::assemble(
                        &self.request.cluster,
                        self.candidates,
                        name,
                        &self.pieces,
                        &mut self.file,
                    )?);
                }
                Need::Again if patience.wait() => {
                    let lineage = facts.lineage.take();
                    facts = SegmentFacts {
                        repositories: self.candidates.len(),
                        lineage,
                        ..SegmentFacts::default()
                    };
                    self.timelines = None;
                }
                Need::Again => facts.waited = true,
            }
        }
    }

    /// Reads the segment into the file from the first repository that has a good copy.
    fn whole_segment(&mut self, name: SegmentName) -> io::Result<Whole> {
        let mut whole = Whole::default();
        let candidates = self.candidates;
        for candidate in candidates {
            match self.read_segment(candidate, name)? {
                Ok(true) => {
                    whole.good = true;
                    self.from = Some(candidate.name().to_owned());
                    break;
                }
                Ok(false) => {}
                Err(trouble) => whole.troubles.push(trouble),
            }
        }
        Ok(whole)
    }

    /// Whether the repository has it; if so, it is in the file, checked.
    fn read_segment(
        &mut self,
        candidate: &Candidate<'_>,
        name: SegmentName,
    ) -> io::Result<Result<bool, Trouble>> {
        let cluster = self.request.cluster;
        let found = candidate.wal(cluster.stanza, cluster.system).and_then(|wal| {
            let place = layout::segment(cluster.stanza, cluster.system, name)
                .map_err(|e| candidate.trouble(&e.into()))?;
            Ok((wal, place.key))
        });
        let (wal, key) = match found {
            Ok(found) => found,
            Err(trouble) => return Ok(Err(trouble)),
        };
        self.file.clear()?;
        let head = Mutex::new(identity::Head::default());
        let file = &self.file;
        let read = read::read_segment_to_places(wal, name, &|offset, bytes| {
            if offset == 0 {
                head.lock().unwrap_or_else(PoisonError::into_inner).take(bytes);
            }
            file.write_at(offset, bytes)
        });
        let head = head.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(match read {
            Ok(info) if info.size != cluster.size.bytes() => {
                Err(candidate.damaged(format!("it has {} bytes", info.size)))
            }
            Ok(info) => {
                self.created = info.tablespaces_created;
                head.check(&cluster, name).map(|()| true).map_err(|why| candidate.damaged(why))
            }
            Err(WalError::Sink(error)) => return Err(error),
            Err(error) => match candidate.wal_trouble(&key, &error) {
                Some(trouble) => Err(trouble),
                None => candidate.knows_cluster(cluster.stanza, cluster.system).map(|()| false),
            },
        })
    }

    /// The history of the target timeline.
    fn lineage(&mut self) -> Lineage {
        let Some(target) = self.request.question.target else { return Lineage::Unknown(Vec::new()) };
        let mut troubles = Vec::new();
        for candidate in self.candidates {
            match self.read_history(candidate, target) {
                Ok(Some((_, history))) => return Lineage::Known(history),
                Ok(None) => {}
                Err(trouble) => troubles.push(trouble),
            }
        }
        match self.timelines(target).lineage_of(target) {
            Ok(Some(history)) => Lineage::Known(history),
            _ => Lineage::Unknown(troubles),
        }
    }

    /// A stored history and what it says; `None` when the repository has none.
    fn read_history(
        &self,
        candidate: &Candidate<'_>,
        timeline: TimelineId,
    ) -> Result<Option<(Vec<u8>, TimelineHistory)>, Trouble> {
        let cluster = self.cluster();
        let wal = candidate.wal(cluster.stanza, cluster.system)?;
        let place = layout::history(cluster.stanza, cluster.system, timeline)
            .map_err(|e| candidate.trouble(&e.into()))?;
        match read::read_history_file(wal, timeline) {
            Ok(bytes) => match TimelineHistory::parse(timeline, &bytes) {
                Ok(history) => Ok(Some((bytes, history))),
                Err(error) => Err(candidate.damaged(error.to_string())),
            },
            Err(error) => match candidate.wal_trouble(&place.key, &error) {
                Some(trouble) => Err(trouble),
                None => candidate.knows_cluster(cluster.stanza, cluster.system).map(|()| None),
            },
        }
    }

    /// What is known of the timelines from `from` on; listed once.
    fn timelines(&mut self, from: TimelineId) -> &Timelines {
        let (candidates, cluster) = (self.candidates, &self.request.cluster);
        self.timelines.get_or_insert_with(|| names::timelines(candidates, cluster, from))
    }

    fn near(&mut self, name: SegmentName) -> Near {
        let cluster = self.request.cluster;
        let mut near = Near::default();
        self.pieces.clear();
        for candidate in self.candidates {
            let looked = candidate.knows_cluster(cluster.stanza, cluster.system).and_then(|()| {
                let wal = candidate.wal(cluster.stanza, cluster.system)?;
                names::look_near(wal, name, cluster.size, &mut near).map_err(|e| candidate.trouble(&e))
            });
            self.pieces.push(looked.unwrap_or_else(|trouble| {
                near.troubles.push(trouble);
                Vec::new()
            }));
        }
        near
    }

    fn far(&mut self, name: SegmentName, lineage: Option<&Lineage>) -> Far {
        let cluster = self.request.cluster;
        let bounds = name.start(cluster.size).map(|start| (start, start.forward(cluster.size.bytes())));
        let lineage = match (lineage, bounds) {
            (Some(Lineage::Known(lineage)), Some((start, end))) => lineage
                .fork_from(name.timeline())
                .filter(|fork| *fork >= start && end.is_none_or(|end| *fork < end))
                .map(|_| lineage),
            _ => None,
        };
        let mut far = Far::default();
        for candidate in self.candidates {
            let looked = candidate.knows_cluster(cluster.stanza, cluster.system).and_then(|()| {
                let wal = candidate.wal(cluster.stanza, cluster.system)?;
                names::look_far(wal, name, lineage, &mut far).map_err(|e| candidate.trouble(&e))
            });
            if let Err(trouble) = looked {
                far.troubles.push(trouble);
            }
        }
        let timelines = self.timelines(name.timeline());
        names::children(timelines, name.timeline(), &mut far);
        for trouble in &timelines.troubles {
            if far.troubles.iter().all(|known| known.repository != trouble.repository) {
                far.troubles.push(trouble.clone());
            }
        }
        far
    }

    fn history(&mut self, timeline: TimelineId) -> io::Result<Answer> {
        let mut facts = HistoryFacts { repositories: self.candidates.len(), ..HistoryFacts::default() };
        let answer = loop {
            match decide::history(&self.request.question, timeline, &facts) {
                Ok(answer) => break answer,
                Err(HistoryNeed::Whole) => {
                    let mut whole = Whole::default();
                    for candidate in self.candidates {
                        match self.read_history(candidate, timeline) {
                            Ok(Some((bytes, _))) => {
                                self.file.clear()?;
                                self.file.append(&bytes)?;
                                self.from = Some(candidate.name().to_owned());
                                whole.good = true;
                                break;
                            }
                            Ok(None) => {}
                            Err(trouble) => whole.troubles.push(trouble),
                        }
                    }
                    facts.whole = Some(whole);
                }
                Err(HistoryNeed::Timelines) => facts.timelines = Some(self.timelines(timeline).clone()),
            }
        };
        if let Verdict::Serve { source: Source::Implied(history), .. } = &answer.verdict {
            self.file.clear()?;
            self.file.append(&history.to_bytes())?;
        }
        Ok(answer)
    }

    /// PostgreSQL's `.partial`, which only people ask for: the copy there is, if there is one.
    fn partial(&mut self, name: SegmentName) -> io::Result<Answer> {
        let near = self.near(name);
        let mut found = Vec::new();
        for (at, pieces) in self.pieces.iter().enumerate() {
            for piece in pieces {
                if let Piece::Partial(hash) = piece {
                    found.push((*hash, at));
                }
            }
        }
        let (cluster, candidates) = (self.request.cluster, self.candidates);
        self.one_of(
            found,
            near.troubles,
            &mut |file, candidate, hash| {
                let wal = candidate.wal(cluster.stanza, cluster.system)?;
                file.clear().map_err(|e| candidate.damaged(e.to_string()))?;
                read::read_partial_into(wal, name, hash, &mut |bytes| file.append(bytes))
                    .map(|_| ())
                    .map_err(|e| candidate.damaged(e.to_string()))
            },
            candidates,
        )
    }

    /// PostgreSQL's `.backup`, which only people ask for.
    fn backup_history(&mut self, name: SegmentName, offset: u32) -> io::Result<Answer> {
        let (cluster, candidates) = (self.request.cluster, self.candidates);
        let (mut found, mut troubles) = (Vec::new(), Vec::new());
        for (at, candidate) in candidates.iter().enumerate() {
            let listed = candidate.knows_cluster(cluster.stanza, cluster.system).and_then(|()| {
                let wal = candidate.wal(cluster.stanza, cluster.system)?;
                let folder = layout::wal_folder(cluster.stanza, cluster.system, name)
                    .map_err(|e| candidate.trouble(&e.into()))?;
                let root =
                    layout::wal(cluster.stanza, cluster.system).map_err(|e| candidate.trouble(&e.into()))?;
                let prefix = format!("{root}/");
                wal.repo
                    .store()
                    .list(&folder, &mut |listed| {
                        let below = listed.key.as_str().strip_prefix(&prefix);
                        if let Some(WalEntry::BackupHistory(segment, at_offset, hash)) =
                            below.and_then(layout::wal_entry)
                            && (segment, at_offset) == (name, offset)
                        {
                            found.extend(ShortHash::parse(&hash).map(|hash| (hash, at)));
                        }
                    })
                    .map_err(|e| candidate.trouble(&e.into()))
            });
            troubles.extend(listed.err());
        }
        self.one_of(
            found,
            troubles,
            &mut |file, candidate, hash| {
                let wal = candidate.wal(cluster.stanza, cluster.system)?;
                let bytes = read::read_backup_history(wal, name, offset, hash)
                    .map_err(|e| candidate.damaged(e.to_string()))?;
                file.clear().and_then(|()| file.append(&bytes)).map_err(|e| candidate.damaged(e.to_string()))
            },
            candidates,
        )
    }

    /// Serves the only one of `found` (by the hash in the name and the repository that has it).
    fn one_of(
        &mut self,
        found: Vec<(ShortHash, usize)>,
        mut troubles: Vec<Trouble>,
        read: &mut dyn FnMut(&mut TargetFile, &Candidate<'_>, ShortHash) -> Result<(), Trouble>,
        candidates: &[Candidate<'_>],
    ) -> io::Result<Answer> {
        let different: BTreeSet<ShortHash> = found.iter().map(|(hash, _)| *hash).collect();
        if different.len() > 1 {
            return Ok(Answer::unsure(14, Doubt::Several));
        }
        for (hash, at) in found {
            let Some(candidate) = candidates.get(at) else { continue };
            match read(&mut self.file, candidate, hash) {
                Ok(()) => {
                    self.from = Some(candidate.name().to_owned());
                    return Ok(Answer::serve(1, Source::Whole, None));
                }
                Err(trouble) => troubles.push(trouble),
            }
        }
        Ok(if troubles.is_empty() {
            Answer::not_there(9)
        } else {
            Answer::of_troubles(&troubles, candidates.len())
        })
    }
}
