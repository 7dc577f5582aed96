//! The backups that could be restored, and on which timelines they lie.

use crate::postgres::history::TimelineHistory;
use crate::repo::record::{Outcome, Record};
use crate::repo::{RepoError, Repository};
use crate::units::{BackupId, Stanza, SystemIdentifier, TimelineId, Timestamp};
use crate::wal::archive::lineage::lineage_of;
use std::collections::BTreeMap;

/// A backup and where it is.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The repository, by its place in the list.
    pub repository: usize,
    /// The backup.
    pub record: Record,
}

/// Every backup of every repository, and the repositories that did not answer.
#[derive(Debug, Default)]
pub struct Candidates {
    /// Backups, in no order that means anything.
    pub found: Vec<Candidate>,
    /// What could not be read.
    pub trouble: Vec<Trouble>,
}

/// A repository whose catalog could not be listed, or a record that could not be read.
#[derive(Debug)]
pub struct Trouble {
    /// Its place in the list of repositories.
    pub repository: usize,
    /// The backup whose record it is; `None` when nobody knows what the repository holds.
    pub backup: Option<BackupId>,
    /// Why.
    pub error: RepoError,
}

/// A cluster of the stanza that is not the one to restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OtherCluster {
    /// Its system identifier.
    pub system: SystemIdentifier,
    /// Its PostgreSQL major version.
    pub major: u16,
    /// Whether any backup of it exists.
    pub has_backup: bool,
}

impl Candidates {
    /// Reads all records. What cannot be read is kept as trouble: another repository may have what is needed.
    #[must_use]
    pub fn read(repositories: &[&Repository], only: Option<usize>, stanza: &Stanza) -> Self {
        let mut candidates = Self::default();
        for (at, repository) in repositories.iter().enumerate() {
            if only.is_some_and(|only| only != at) {
                continue;
            }
            let catalog = match repository.catalog(stanza) {
                Ok(catalog) => catalog,
                Err(error) => {
                    candidates.trouble.push(Trouble { repository: at, backup: None, error });
                    continue;
                }
            };
            for id in catalog.candidates() {
                match repository.read_outcome(stanza, id) {
                    Ok((Outcome::Committed(record), _)) => {
                        candidates.found.push(Candidate { repository: at, record: *record });
                    }
                    Ok((Outcome::Aborted(_), _)) | Err(RepoError::Missing { .. }) => {}
                    Err(error) => {
                        let backup = Some(id.clone());
                        candidates.trouble.push(Trouble { repository: at, backup, error });
                    }
                }
            }
        }
        candidates
    }

    /// The cluster to restore: that of the newest backup that ended before `before`, or of the newest at all.
    /// A stanza holds clusters that followed each other (`pg_upgrade`); clocks order those well enough.
    #[must_use]
    pub fn system(&self, before: Option<Timestamp>) -> Option<SystemIdentifier> {
        let ended = |candidate: &&Candidate| candidate.record.stopped_at_unix_us;
        let fitting = self.found.iter().filter(|c| before.is_none_or(|before| ended(c) <= before));
        fitting
            .max_by_key(ended)
            .or_else(|| self.found.iter().max_by_key(ended))
            .map(|candidate| candidate.record.system_identifier)
    }

    /// The clusters besides `system` that have a backup, with their major versions, and those that the repositories
    /// hold without any: a stanza that was upgraded holds several.
    #[must_use]
    pub fn other_clusters(
        &self,
        system: SystemIdentifier,
        repositories: &[&Repository],
        stanza: &Stanza,
    ) -> Vec<OtherCluster> {
        let mut others = BTreeMap::new();
        // For words only: whoever cannot tell is told of elsewhere.
        for held in repositories.iter().filter_map(|repository| repository.clusters(stanza).ok()).flatten() {
            others.insert(held.system, (held.major.as_u16(), false));
        }
        for Candidate { record, .. } in &self.found {
            let major = u16::try_from(record.cluster.server_version_num / 10_000).unwrap_or_default();
            others.insert(record.system_identifier, (major, true));
        }
        others.remove(&system);
        others
            .into_iter()
            .map(|(system, (major, has_backup))| OtherCluster { system, major, has_backup })
            .collect()
    }

    /// The candidates on a lineage, the one that ends last first; of the same backup in two repositories the
    /// first repository's comes first.
    pub fn along(&self, system: SystemIdentifier, lineage: &TimelineHistory) -> Vec<&Candidate> {
        let mut along: Vec<&Candidate> = self
            .found
            .iter()
            .filter(|candidate| candidate.record.system_identifier == system)
            .filter(|candidate| lineage.includes(candidate.record.timeline, candidate.record.stop_lsn))
            .collect();
        along.sort_by(|a, b| b.record.stop_lsn.cmp(&a.record.stop_lsn).then(a.repository.cmp(&b.repository)));
        along
    }

    /// Timelines on which backups ended.
    #[must_use]
    pub fn timelines(&self, system: SystemIdentifier) -> Vec<TimelineId> {
        let mut timelines: Vec<TimelineId> = self
            .found
            .iter()
            .filter(|candidate| candidate.record.system_identifier == system)
            .map(|candidate| candidate.record.timeline)
            .collect();
        timelines.sort_unstable();
        timelines.dedup();
        timelines
    }

    /// The lineage of a timeline as a backup that ended on it tells, or one that came through it.
    #[must_use]
    pub fn lineage(&self, system: SystemIdentifier, timeline: TimelineId) -> Option<TimelineHistory> {
        self.found
            .iter()
            .filter(|candidate| candidate.record.system_identifier == system)
            .find_map(|candidate| lineage_of(&candidate.record)?.implied_for(timeline))
    }
}
