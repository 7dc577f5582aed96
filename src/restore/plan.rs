//! The plan: which backup, along which timeline, with which WAL, into what, and what is written there.
//!
//! A value that can be shown (`--dry-run`) and carried out once. While it is made nothing is touched, neither
//! in the repositories nor on this host.

mod choose;
mod error;
mod space;

pub use error::{PlanError, Warning, WindowSeen};

use self::choose::{View, named, no_backup, no_such_backup, segment_size};
use self::space::Space;
use super::candidates::{Candidate, Candidates, OtherCluster};
use super::directory::{self, Place, Wishes};
use super::error::RestoreError;
use super::execute::{self, Task, WalToFetch};
use super::owner::Owner;
use super::reach::{self, Reached};
use super::settings::{Configuration, GetCommand};
use super::tablespaces::TablespaceMap;
use super::target::{Goal, Target};
use super::write::{Observer, Source, WriteSettings, Written};
use crate::env::Env;
use crate::repo::Repository;
use crate::units::{ByteCount, SegmentName, SegmentSize, Stanza, SystemIdentifier, TimelineId, Timestamp};
use crate::wal::archive::Archive;
use crate::wal::archive::lineage::Needed;
use crate::wal::archive::window::Union;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

/// Whether the restored server is to archive.
#[derive(Clone, Copy)]
pub enum Archiving<'a> {
    /// As the image has it.
    Preserve,
    /// Not.
    Off,
    /// Not if a server of this cluster is alive elsewhere: asks how that shows, once the cluster is known.
    UnlessAlive(&'a dyn Fn(SystemIdentifier) -> Option<String>),
}

impl fmt::Debug for Archiving<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Preserve => "Preserve",
            Self::Off => "Off",
            Self::UnlessAlive(_) => "UnlessAlive",
        })
    }
}

/// What was asked for.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The repositories that could be opened, in the order of the settings.
    pub repositories: &'a [&'a Repository],
    /// Only this one's backups count; WAL is taken from all.
    pub only: Option<usize>,
    /// The stanza.
    pub stanza: &'a Stanza,
    /// Where recovery is to end.
    pub target: Target,
    /// A backup's id or the beginning of one.
    pub set: Option<String>,
    /// The data directory.
    pub pgdata: PathBuf,
    /// Where `pg_wal` is to be instead of in it.
    pub wal_dir: Option<PathBuf>,
    /// Where tablespaces go that are not to go where the original has them.
    pub tablespaces: TablespaceMap,
    /// What must not be restored over or into, with a name for each: repositories, configuration,
    /// keys.
    pub keep_out: Vec<(String, PathBuf)>,
    /// `--owner`
    pub owner: Option<Owner>,
    /// `--force`
    pub force: bool,
    /// Whether the restored server is to archive.
    pub archiving: Archiving<'a>,
    /// `--recovery-option`
    pub recovery_options: Vec<(String, String)>,
    /// The program for `restore_command`, absolute.
    pub program: PathBuf,
    /// What it needs to find the same repositories.
    pub program_options: Vec<OsString>,
    /// Now.
    pub now: Timestamp,
}

/// A restore that can be carried out.
#[derive(Debug)]
pub struct Plan<'a> {
    repositories: &'a [&'a Repository],
    stanza: &'a Stanza,
    archive: Archive,
    /// Where recovery ends.
    pub target: Target,
    /// The backup, and the repository it is read from.
    pub backup: Candidate,
    /// Whether it was named rather than chosen.
    pub named: bool,
    /// What else the stanza holds; empty unless it was upgraded.
    pub other_clusters: Vec<OtherCluster>,
    /// The timeline that recovery ends on.
    pub timeline: TimelineId,
    /// Segments from the backup's start to where recovery is known to get.
    pub wal: Needed,
    /// Bytes of a segment.
    pub segment_size: SegmentSize,
    /// How the target is reached.
    pub reached: Reached,
    /// The last segment on the way that was in the archive.
    pub known_end: Option<SegmentName>,
    /// Where it goes.
    pub place: Place,
    /// Bytes needed in the data directory's file system (with all else that lies there).
    pub needed: ByteCount,
    /// Bytes of each tablespace, by OID.
    pub in_spaces: BTreeMap<u32, u64>,
    /// What is written into the configuration.
    pub configuration: Configuration,
    /// Why archiving is off unasked: a server of this cluster is alive, or may be.
    pub alive_at: Option<String>,
    /// To read before going on.
    pub warnings: Vec<Warning>,
}

/// Makes the plan.
///
/// # Errors
/// [`PlanError`], the first reason found why it cannot be done. Nothing was touched.
pub fn plan<'a>(request: &Request<'a>) -> Result<Plan<'a>, PlanError> {
    let candidates = Candidates::read(request.repositories, request.only, request.stanza);
    let mut warnings: Vec<Warning> = candidates
        .trouble
        .iter()
        .map(|trouble| Warning::Unread { repository: trouble.repository, why: trouble.error.to_string() })
        .collect();
    let named = match request.set.as_deref().map(|set| named(&candidates, set)).transpose() {
        Err(PlanError::NoSuchSet(set)) => return Err(no_such_backup(candidates, set)),
        other => other?,
    };
    let before = match &request.target.goal {
        Goal::Time(time) => Some(time.at),
        _ => None,
    };
    let system = match named {
        Some(candidate) => candidate.record.system_identifier,
        None => match candidates.system(before) {
            Some(system) => system,
            None => return Err(no_backup(candidates)),
        },
    };
    let size = segment_size(&candidates, system)?;
    let union = Union { repositories: request.repositories, stanza: request.stanza, system };
    let archive = Archive::read(request.repositories, request.stanza, system, size);
    for (repository, error) in archive.unread() {
        warnings.push(Warning::Unread { repository: *repository, why: error.to_string() });
    }
    let view = View { request, candidates: &candidates, archive: &archive, union, system, size };
    let (chosen, lineage, reached, needed_wal) = view.way_to(named)?;
    let record = &chosen.record;
    reach::prove_branch(view.way(&lineage), record).map_err(|error| view.reach_error(error))?;
    warnings.extend(reached.warnings(&archive, &lineage));
    if record.page_checksums.failure_count > 0 {
        warnings.push(Warning::BadPages(record.page_checksums.failure_count));
    }
    if !record.configuration_outside.is_empty() {
        warnings.push(Warning::ConfigurationOutside(record.configuration_outside.clone()));
    }

    let timeline = lineage.timeline();
    let known_end = archive.newest_along(&lineage, record.start_lsn);
    let in_part = needed_wal.ranges.last().and_then(|(range, _)| range.last_name(size));
    let in_part = in_part.is_some_and(|last| !archive.contains(last));
    let stops = matches!(request.target.goal, Goal::Consistent | Goal::Lsn(_) | Goal::Xid(_) | Goal::Name(_));
    let command = GetCommand {
        program: request.program.clone(),
        options: request.program_options.clone(),
        system,
        target_timeline: (request.target.goal != Goal::Standby).then_some(timeline),
        known_end,
        needed_to: (in_part && stops).then(|| reached.until()),
    };
    // A standby archives only once it is promoted, and then it should.
    let alive_at = match request.archiving {
        Archiving::UnlessAlive(ask) if request.target.goal != Goal::Standby => ask(system),
        _ => None,
    };
    let archiving_off = matches!(request.archiving, Archiving::Off) || alive_at.is_some();
    let last_record = match request.target.goal {
        Goal::Consistent => {
            reach::last_record(view.way(&lineage), record).map_err(|error| view.reach_error(error))?
        }
        _ => None,
    };
    let mut configuration = Configuration::for_target(
        &request.target,
        timeline,
        &command,
        last_record,
        archiving_off,
        &request.recovery_options,
    )
    .map_err(PlanError::Option)?;
    // Reading ahead came with 15.
    if record.cluster.server_version_num >= 150_000 && view.gap_follows(&lineage, record, &needed_wal) {
        // Reading ahead, PostgreSQL would ask for the missing segment and stop before it came to the target.
        configuration.set_if_absent("recovery_prefetch", "off");
    }

    let cluster = &record.cluster;
    let wishes = Wishes {
        pgdata: request.pgdata.clone(),
        wal_dir: request.wal_dir.clone(),
        tablespaces: request.tablespaces.destinations(&record.tablespaces).map_err(PlanError::Tablespaces)?,
        owner: request.owner,
        force: request.force,
        system,
        version_folder: format!("PG_{}_{}", cluster.server_version_num / 10_000, cluster.catalog_version),
        keep_out: request.keep_out.clone(),
    };
    directory::require_unlocked(&request.pgdata).map_err(PlanError::Directory)?;
    let place = directory::examine(&wishes, &request.now.compact()).map_err(PlanError::Directory)?;
    let Space { needed, in_spaces } = view.check_space(chosen, &place, &needed_wal)?;
    let (backup, reached) = (chosen.clone(), reached);
    Ok(Plan {
        repositories: request.repositories,
        stanza: request.stanza,
        target: request.target.clone(),
        named: named.is_some(),
        other_clusters: candidates.other_clusters(system, request.repositories, request.stanza),
        backup,
        timeline,
        wal: needed_wal,
        segment_size: size,
        reached,
        known_end,
        place,
        needed,
        in_spaces,
        configuration,
        alive_at,
        warnings,
        archive,
    })
}

/// How to carry a plan out.
#[derive(Clone, Debug)]
pub struct Means {
    /// Worker threads.
    pub workers: usize,
    /// Where the list of files is sorted.
    pub spool: PathBuf,
    /// What the marker of an unfinished restore says on how to go on.
    pub how_to_go_on: String,
}

impl Plan<'_> {
    /// The repository that the backup is read from, by its place in the list.
    #[must_use]
    pub const fn repository(&self) -> usize {
        self.backup.repository
    }

    /// The bytes that the WAL to be replayed has, at most.
    #[must_use]
    pub fn wal_bytes(&self) -> ByteCount {
        ByteCount::new(self.wal.count().saturating_mul(self.segment_size.bytes()))
    }

    /// Carries it out; see [`execute::execute`].
    ///
    /// # Errors
    /// The first step that failed. The directory then cannot be started, and the same restore may be run again.
    pub fn execute(
        self,
        means: &Means,
        env: &dyn Env,
        observer: &dyn Observer,
    ) -> Result<Written, RestoreError> {
        let record = &self.backup.record;
        let Some(repository) = self.repositories.get(self.backup.repository) else {
            return Err(RestoreError::Interrupted);
        };
        let union =
            Union { repositories: self.repositories, stanza: self.stanza, system: record.system_identifier };
        let size = self.segment_size;
        let wal = (self.target.goal == Goal::None).then(|| WalToFetch {
            union,
            archive: &self.archive,
            segments: self.wal.ranges.iter().flat_map(|(range, _)| range.names(size)).collect(),
            histories: record.lineage.iter().map(|step| step.timeline).collect(),
        });
        let task = Task {
            source: Source { repository, stanza: self.stanza },
            record,
            place: &self.place,
            configuration: &self.configuration,
            headline: format!("backup {}, --type={}", record.backup_id, self.target.goal.kind()),
            how_to_go_on: means.how_to_go_on.clone(),
            wal,
            settings: WriteSettings {
                workers: means.workers,
                spool: means.spool.clone(),
                keep_signals: self.target.goal == Goal::Preserve,
            },
        };
        execute::execute(&task, env, observer)
    }
}

#[cfg(test)]
mod tests;
