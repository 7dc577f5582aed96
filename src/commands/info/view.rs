//! What `info` knows, before it is text or JSON.

use super::windows::{End, Until, Windows, in_words, windows};
use crate::commands::open::repository_failure;
use crate::repo::notes::Notes;
use crate::repo::record::{Outcome, Record};
use crate::repo::{Cluster, RepoError, Repository};
use crate::settings::RepositorySettings;
use crate::units::{BackupId, ByteCount, SegmentName, Stanza, SystemIdentifier, TimelineId, Timestamp};
use crate::wal::archive::Archive;
use crate::wal::archive::asked::Asked;
use crate::wal::archive::window::Union;
use std::collections::BTreeMap;

/// A repository that could be opened.
pub(super) struct Opened {
    pub settings: RepositorySettings,
    pub repository: Repository,
}

/// Everything that is shown.
pub(super) struct Overview {
    pub now: Timestamp,
    pub stanzas: Vec<StanzaView>,
}

/// A stanza in all repositories together.
pub(super) struct StanzaView {
    pub stanza: Stanza,
    /// By system identifier; one, until a stanza can be upgraded.
    pub clusters: Vec<ClusterView>,
    /// The newest first.
    pub backups: Vec<BackupView>,
    /// Every repository of this run.
    pub repositories: Vec<RepositoryView>,
}

/// A cluster and the moments that can be reached.
pub(super) struct ClusterView {
    pub cluster: Cluster,
    pub timeline: Option<TimelineId>,
    pub windows: Windows,
}

/// A backup, as one or more repositories hold it.
pub(super) struct BackupView {
    pub id: BackupId,
    /// The numbers of the repositories.
    pub held_in: Vec<u16>,
    /// The record, or why it cannot be read.
    pub record: Result<Record, String>,
    /// What was noted on it later, in any of the repositories.
    pub notes: Notes,
}

impl BackupView {
    /// The notes on it; none where its record cannot be read.
    pub fn annotations(&self) -> BTreeMap<String, String> {
        self.record.as_ref().map(|record| self.notes.annotations(&record.annotations)).unwrap_or_default()
    }
}

/// A repository as far as the stanza is concerned.
pub(super) struct RepositoryView {
    pub index: u16,
    pub place: String,
    pub encrypted: Option<bool>,
    pub state: State,
}

/// How a repository stands.
pub(super) enum State {
    /// It could not be opened or listed; why.
    Unavailable(String),
    /// It answers, and what it holds of the stanza cannot be read.
    Damaged(String),
    /// It is there and does not hold the stanza.
    NoStanza,
    /// It holds the stanza.
    Holds(Holding),
}

impl State {
    /// Whether what the repository holds of the stanza is not known.
    fn is_untold(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Damaged(_))
    }
}

/// What a repository holds of a stanza.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Holding {
    /// Stored bytes of packs and maps of all backups that exist.
    pub backup_bytes: ByteCount,
    /// Stored bytes of WAL.
    pub wal_bytes: ByteCount,
    pub newest_segment: Option<SegmentName>,
    /// Segments of the newest timeline that another repository holds and that are newer than its own newest.
    pub behind: u64,
    /// Segments that another repository holds, between its own oldest and newest.
    pub lacking: u64,
    /// What it could bring back without the others, for each cluster of the stanza.
    pub alone: Vec<Alone>,
}

/// What a repository could bring back of a cluster if it were the only one: from its own backups, whose records it
/// gives itself, and its own WAL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Alone {
    pub system: SystemIdentifier,
    /// The newest of which it holds anything.
    pub timeline: Option<TimelineId>,
    /// Whether it holds a backup of which it gives the record.
    pub has_backup: bool,
    pub windows: Windows,
}

/// What a person should do something about.
pub(super) struct Problem {
    /// For the head of the screen.
    pub short: &'static str,
    /// The whole.
    pub long: String,
}

impl StanzaView {
    /// What there is to do, the gravest first. Empty: the stanza is as it should be.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut add = |short, long: String| problems.push(Problem { short, long });
        for backup in &self.backups {
            if let Err(why) = &backup.record {
                add("damaged record", format!("backup {}: {why}", backup.id));
            }
            for (_, error) in backup.notes.unsettled() {
                add(
                    "damaged note",
                    format!("backup {}: what was noted on it cannot be read: {}", backup.id, in_words(error)),
                );
            }
        }
        problems.extend(self.clusters.iter().flat_map(|cluster| problems_of(&cluster.windows)));
        let mut add = |short, long: String| problems.push(Problem { short, long });
        for repository in &self.repositories {
            match &repository.state {
                State::Unavailable(why) => {
                    add("repository unavailable", format!("repo{}: {why}", repository.index));
                }
                State::Damaged(why) => {
                    add("damaged stanza", format!("repo{}: {why}", repository.index));
                }
                State::NoStanza => add(
                    "stanza missing",
                    format!(
                        "repo{} does not hold stanza {}: run `walden --stanza={} stanza-create`",
                        repository.index, self.stanza, self.stanza
                    ),
                ),
                State::Holds(_) => {}
            }
        }
        if self.backups.is_empty() {
            add("no backup", format!("there is no backup yet: run `walden --stanza={} backup`", self.stanza));
        }
        if self.clusters.iter().any(|cluster| !cluster.windows.gaps.is_empty()) {
            add("gap", "WAL is missing: see above for the moments that cannot be reached".to_owned());
        }
        problems
    }

    /// Whether it is there, or could be: one that was only named need not be. Where a repository could be
    /// opened and does not tell, the answer is not "no".
    pub fn may_exist(&self) -> bool {
        let untold = |view: &RepositoryView| view.encrypted.is_some() && view.state.is_untold();
        !self.clusters.is_empty() || !self.backups.is_empty() || self.repositories.iter().any(untold)
    }

    /// Whether something could not be seen, so that the exit code should say so.
    pub fn is_partial(&self) -> bool {
        self.backups.iter().any(|backup| backup.record.is_err() || backup.notes.unsettled().next().is_some())
            || self.repositories.iter().any(|repository| repository.state.is_untold())
    }
}

/// What keeps windows from being longer, other than gaps between them.
pub(super) fn problems_of(windows: &Windows) -> Vec<Problem> {
    let lacking = windows.without_wal.iter().map(|id| Problem {
        short: "WAL of a backup is missing",
        long: format!("backup {id} cannot be restored: WAL that belongs to it is missing"),
    });
    let troubles = windows.troubles.iter();
    let troubles = troubles.map(|trouble| Problem { short: "timeline unknown", long: trouble.clone() });
    let unreadable = windows.windows.iter().filter_map(|window| match &window.until {
        Until::Unreadable(why) => Some(Problem {
            short: "WAL cannot be read",
            long: format!("where timeline {} ends could not be read: {why}", window.timeline),
        }),
        _ => None,
    });
    lacking.chain(troubles).chain(unreadable).collect()
}

/// What one repository says of a stanza, or why it says nothing.
struct Said {
    /// A cluster that cannot be read hides no backup.
    clusters: Result<Vec<Cluster>, RepoError>,
    backups: Vec<(BackupId, Result<Record, String>, Notes)>,
}

fn ask(opened: &Opened, stanza: &Stanza) -> Result<Said, RepoError> {
    let repository = &opened.repository;
    let clusters = repository.clusters(stanza);
    let mut backups = Vec::new();
    let catalog = repository.catalog(stanza)?;
    for id in catalog.candidates() {
        let record = match repository.read_outcome(stanza, id) {
            Ok((Outcome::Committed(record), _)) => Ok(*record),
            Ok((Outcome::Aborted(_), _)) => continue,
            Err(error) => Err(reason(error, &opened.settings)),
        };
        let noted = catalog.entries.get(id).map_or(&[][..], |entry| &entry.notes);
        backups.push((id.clone(), record, repository.read_notes(stanza, id, noted)));
    }
    Ok(Said { clusters, backups })
}

/// An error and its causes in one line.
pub(super) fn reason(error: RepoError, settings: &RepositorySettings) -> String {
    let failure = repository_failure(error, settings, String::new());
    failure.reasons().join(": ")
}

/// Why a repository does not tell.
fn untold(error: RepoError, settings: &RepositorySettings) -> State {
    match error {
        RepoError::Damaged { .. } => State::Damaged(reason(error, settings)),
        _ => State::Unavailable(reason(error, settings)),
    }
}

/// Looks at a stanza in every repository. `unopened` are those that could not be opened, with the reason.
pub(super) fn look(
    stanza: &Stanza,
    opened: &[Opened],
    unopened: &[(RepositorySettings, String)],
) -> StanzaView {
    let mut clusters: BTreeMap<SystemIdentifier, Cluster> = BTreeMap::new();
    let mut backups: BTreeMap<BackupId, BackupView> = BTreeMap::new();
    let mut states: Vec<State> = Vec::with_capacity(opened.len());
    let mut own: Vec<Vec<(SystemIdentifier, End)>> = vec![Vec::new(); opened.len()];
    for (one, own) in opened.iter().zip(&mut own) {
        let said = match ask(one, stanza) {
            Ok(said) => said,
            Err(error) => {
                states.push(untold(error, &one.settings));
                continue;
            }
        };
        let mut holding = Holding::default();
        for (id, record, notes) in said.backups {
            if let Ok(record) = &record {
                holding.backup_bytes = holding.backup_bytes.plus(ByteCount::new(record.sizes.added_bytes));
                own.push((record.system_identifier, End::of(record)));
            }
            add_backup(&mut backups, id, record, notes, one.settings.index);
        }
        states.push(match said.clusters {
            Ok(none) if none.is_empty() => State::NoStanza,
            Ok(found) => {
                clusters.extend(found.into_iter().map(|cluster| (cluster.system, cluster)));
                State::Holds(holding)
            }
            Err(error) => untold(error, &one.settings),
        });
    }

    let holding: Vec<usize> = states
        .iter()
        .enumerate()
        .filter(|(_, state)| matches!(state, State::Holds(_)))
        .map(|(at, _)| at)
        .collect();
    let holders: Vec<Holder<'_>> = holding
        .iter()
        .filter_map(|at| Some(Holder { repository: &opened.get(*at)?.repository, own: own.get(*at)? }))
        .collect();
    let mut views = Vec::with_capacity(clusters.len());
    for cluster in clusters.into_values() {
        let (view, wal) = look_at_wal(stanza, cluster, &holders, &backups);
        views.push(view);
        for (at, held) in holding.iter().zip(wal) {
            let Some(state) = states.get_mut(*at) else { continue };
            match (held, &mut *state) {
                (Ok(held), State::Holds(holding)) => holding.add(held),
                (Ok(_), _) => {}
                (Err(why), _) => *state = State::Unavailable(format!("its WAL could not be listed: {why}")),
            }
        }
    }

    let mut all: Vec<RepositoryView> = opened
        .iter()
        .zip(states)
        .map(|(one, state)| RepositoryView {
            index: one.settings.index,
            place: one.repository.describe(),
            encrypted: Some(one.repository.is_encrypted()),
            state,
        })
        .collect();
    all.extend(unopened.iter().map(|(settings, why)| RepositoryView {
        index: settings.index,
        place: super::place_of(settings),
        encrypted: None,
        state: State::Unavailable(why.clone()),
    }));
    all.sort_by_key(|view| view.index);
    StanzaView {
        stanza: stanza.clone(),
        clusters: views,
        backups: backups.into_values().rev().collect(),
        repositories: all,
    }
}

fn add_backup(
    backups: &mut BTreeMap<BackupId, BackupView>,
    id: BackupId,
    record: Result<Record, String>,
    notes: Notes,
    index: u16,
) {
    match backups.get_mut(&id) {
        None => {
            backups.insert(id.clone(), BackupView { id, held_in: vec![index], record, notes });
        }
        Some(there) => {
            there.held_in.push(index);
            there.notes.merge(notes);
            // A good copy anywhere is a good backup.
            if there.record.is_err() {
                there.record = record;
            }
        }
    }
}

/// A repository that holds the stanza, and the backups of which it gives the record.
struct Holder<'a> {
    repository: &'a Repository,
    own: &'a [(SystemIdentifier, End)],
}

/// The cluster's windows, and what each of `holders` holds of its WAL and could bring back alone, or why that is not
/// known. Lists each repository once; the views of single ones are made of the same listing.
fn look_at_wal(
    stanza: &Stanza,
    cluster: Cluster,
    holders: &[Holder<'_>],
    backups: &BTreeMap<BackupId, BackupView>,
) -> (ClusterView, Vec<Result<Holding, String>>) {
    let repositories: Vec<&Repository> = holders.iter().map(|one| one.repository).collect();
    let system = cluster.system;
    let archive = Archive::read(&repositories, stanza, system, cluster.segment_size);
    let newest = archive.newest_timeline();
    let ends: Vec<End> = backups
        .values()
        .filter_map(|backup| backup.record.as_ref().ok())
        .filter(|record| record.system_identifier == system)
        .map(End::of)
        .collect();
    let mut asked = Asked::new(Union { repositories: &repositories, stanza, system });
    let windows = windows(&archive, &mut asked, &ends);
    let timeline = newest.max(ends.iter().map(|end| end.timeline).max());
    let held = holders
        .iter()
        .enumerate()
        .map(|(at, holder)| match archive.unread().iter().find(|(unread, _)| *unread == at) {
            Some((_, error)) => Err(in_words(error)),
            None => {
                let mut held = wal_held(&archive, newest, at);
                held.alone.extend(alone(&archive, at, &mut asked, system, holder.own));
                Ok(held)
            }
        })
        .collect();
    (ClusterView { cluster, timeline, windows }, held)
}

/// What the repository at `at` could bring back without the others.
fn alone(
    archive: &Archive,
    at: usize,
    asked: &mut Asked<'_>,
    system: SystemIdentifier,
    own: &[(SystemIdentifier, End)],
) -> Option<Alone> {
    let archive = archive.alone(at)?;
    let of_this = own.iter().filter(|(cluster, _)| *cluster == system);
    let ends: Vec<End> = of_this.map(|(_, end)| end.clone()).collect();
    let timeline = archive.newest_timeline().max(ends.iter().map(|end| end.timeline).max());
    let windows = windows(&archive, asked, &ends);
    Some(Alone { system, timeline, has_backup: !ends.is_empty(), windows })
}

/// What a repository holds of the WAL, and how far it is behind the others on the newest timeline.
fn wal_held(archive: &Archive, newest: Option<TimelineId>, at: usize) -> Holding {
    let mut holding =
        Holding { wal_bytes: archive.stored_bytes(at).unwrap_or_default(), ..Holding::default() };
    let Some(timeline) = newest else { return holding };
    let (all, own) = (archive.segments(timeline), archive.segments_in(timeline, at));
    let count = |range: std::ops::RangeInclusive<u64>| {
        let held = all.split(range).into_iter().filter(|(_, held)| *held);
        held.map(|(run, _)| run.end() - run.start() + 1).sum::<u64>()
    };
    match (own.first(), own.last(), all.last()) {
        (Some(first), Some(last), Some(newest)) => {
            holding.behind = if newest > last { count(last + 1..=newest) } else { 0 };
            holding.lacking = count(first..=last).saturating_sub(own.count());
            holding.newest_segment = SegmentName::from_number(timeline, last, archive.segment_size());
        }
        _ => holding.behind = all.count(),
    }
    holding
}

impl Holding {
    fn add(&mut self, wal: Self) {
        self.wal_bytes = self.wal_bytes.plus(wal.wal_bytes);
        self.behind += wal.behind;
        self.lacking += wal.lacking;
        self.newest_segment = self.newest_segment.max(wal.newest_segment);
        self.alone.extend(wal.alone);
    }
}
