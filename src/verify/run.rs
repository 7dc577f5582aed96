//! The way through a verification, phase by phase.

use super::backups::{self, Look, Looked, Recorded};
use super::finding::{Findings, Problem, Verdict, Wrong};
use super::judge::{Judge, own_stretches};
use super::listing::Walk;
use super::packs::{self, PackList};
use super::segments::{self, Found, Wanted};
use super::timelines::{self, Histories};
use super::work::{Bench, Meter};
use super::{CheckedBackup, Observer, Phase, Request, Scope, Standing, Verified, VerifyError};
use crate::env::Env;
use crate::repo::catalog::Catalog;
use crate::repo::layout;
use crate::repo::record::{Record, Uses};
use crate::repo::{Cluster, RepoError};
use crate::storage::Key;
use crate::units::{BackupId, ByteCount, SegmentSize, SystemIdentifier};
use crate::wal::ClusterWal;
use crate::wal::archive::Archive;
use std::collections::{BTreeMap, BTreeSet};

pub(super) struct Run<'a> {
    pub request: &'a Request<'a>,
    pub env: &'a dyn Env,
    pub observer: &'a dyn Observer,
    pub meter: &'a Meter<'a>,
}

/// A backup that exists, with what was found so far.
pub(super) struct Judged {
    pub record: Record,
    pub looked: Looked,
}

impl Run<'_> {
    pub(super) fn everything(&self) -> Result<Verified, VerifyError> {
        let Request { repository, stanza, scope, .. } = self.request;
        self.observer.phase(Phase::Catalog, None);
        let catalog = repository.catalog(stanza)?;
        let mut verified = Verified::default();
        let clusters = self.clusters(&mut verified.general)?;

        let mut list = PackList::default();
        let mut records = Vec::new();
        if !matches!(scope, Scope::Wal(..)) {
            self.records(&catalog, &mut verified, &mut list, &mut records)?;
        }
        let mut judged = self.backups(&catalog, records, list, &mut verified)?;

        let systems = self.systems(&clusters, &judged, &mut verified)?;
        for (system, size) in systems {
            self.observer.phase(Phase::Wal, None);
            let wal = ClusterWal { repo: repository, stanza, system };
            self.wal(wal, size, &mut judged, &mut verified)?;
        }
        if *scope == Scope::Everything {
            self.strays(&catalog, &judged, &mut verified)?;
        }
        for one in judged.into_iter().rev() {
            verified.backups.push(CheckedBackup {
                id: one.record.backup_id,
                findings: one.looked.findings,
                objects: one.looked.objects,
                bytes: one.looked.bytes,
                files: one.looked.files,
            });
        }
        verified.backups.sort_by(|one, other| other.id.cmp(&one.id));
        self.look_again(&mut verified)?;
        Ok(verified)
    }

    /// The clusters of the stanza, as far as they can be read.
    fn clusters(&self, general: &mut Findings) -> Result<Vec<Cluster>, VerifyError> {
        let Request { repository, stanza, .. } = self.request;
        let folder = layout::clusters(stanza).map_err(RepoError::from)?;
        let listed = repository.store().folder(Some(&folder)).map_err(RepoError::from)?;
        let mut clusters = Vec::new();
        for object in listed.objects {
            let Ok(system) = object.key.file_name().parse() else { continue };
            match repository.cluster(stanza, system) {
                Ok(Some(cluster)) => {
                    self.meter.object();
                    clusters.push(cluster);
                }
                Ok(None) => general.push(Problem::missing(&object.key)),
                Err(error) => {
                    self.meter.note(&error);
                    general.push(Problem::of(error, &object.key)?);
                }
            }
        }
        Ok(clusters)
    }

    fn records(
        &self,
        catalog: &Catalog,
        verified: &mut Verified,
        list: &mut PackList,
        records: &mut Vec<Record>,
    ) -> Result<(), VerifyError> {
        let Request { repository, stanza, scope, .. } = self.request;
        for (id, entry) in &catalog.entries {
            self.meter.check()?;
            let is_asked_for = match scope {
                Scope::Backup(one) => one == id,
                _ => true,
            };
            if !is_asked_for {
                continue;
            }
            if entry.retired {
                self.retirement(id, verified)?;
            }
            if entry.retired || !entry.outcome {
                let standing = if entry.retired { Standing::Retired } else { Standing::Open };
                verified.not_judged.push((id.clone(), standing));
                continue;
            }
            match backups::record(repository, stanza, id, self.meter)? {
                Recorded::Aborted => verified.not_judged.push((id.clone(), Standing::Aborted)),
                Recorded::Committed(record, uses) => {
                    list.add(uses);
                    records.push(*record);
                }
                Recorded::Wrong(problem) => {
                    let mut findings = Findings::default();
                    findings.push(problem);
                    verified.backups.push(CheckedBackup {
                        id: id.clone(),
                        findings,
                        objects: 0,
                        bytes: 0,
                        files: 0,
                    });
                }
            }
        }
        // A backup whose catalog entry was taken away whole shows in those that were taken while it was there.
        let mut told = BTreeSet::new();
        for record in records.iter().filter(|_| *scope == Scope::Everything) {
            for seen in &record.seen {
                let Ok(id) = seen.parse::<BackupId>() else { continue };
                let entry = catalog.entries.get(&id);
                let known = entry.is_some_and(|entry| entry.outcome || entry.retired);
                if !known && told.insert(id.clone()) {
                    let key = layout::outcome(stanza, &id).map_err(RepoError::from)?.key;
                    let why = format!(
                        "it is missing: the backup was there when {} was taken, and was not removed by walden",
                        record.backup_id
                    );
                    verified.general.push(Problem::new(Wrong::Missing, key, why));
                }
            }
        }
        Ok(())
    }

    /// A name that cannot be read gives its backup up all the same, but its data would stay for ever: expire waits
    /// for a time that it cannot know.
    fn retirement(&self, id: &BackupId, verified: &mut Verified) -> Result<(), VerifyError> {
        let Request { repository, stanza, .. } = self.request;
        let key = layout::retired(stanza, id).map_err(RepoError::from)?.key;
        match repository.read_retired(stanza, id) {
            Ok(retired) if retired.backup_id == *id => self.meter.object(),
            Ok(_) => verified.general.push(Problem::damaged(key, "it is about another backup")),
            Err(error) => {
                self.meter.note(&error);
                verified.general.push(Problem::of(error, &key)?);
            }
        }
        Ok(())
    }

    fn backups(
        &self,
        catalog: &Catalog,
        records: Vec<Record>,
        list: PackList,
        verified: &mut Verified,
    ) -> Result<Vec<Judged>, VerifyError> {
        let Request { repository, stanza, workers, spool, .. } = self.request;
        if records.is_empty() {
            return Ok(Vec::new());
        }
        self.observer.phase(Phase::Packs, Some(ByteCount::new(list.stored_bytes())));
        let mut packs = packs::read_all(repository, stanza, list, self.meter, *workers, spool, self.env)?;
        self.observer.phase(Phase::Maps, None);
        let mut judged = Vec::new();
        let mut touched = BTreeSet::new();
        let mut bench = Bench::new()?;
        for record in records {
            self.meter.check()?;
            let id = record.backup_id.clone();
            // Read again: the lists of all backups together are not kept.
            let uses = match backups::record(repository, stanza, &id, self.meter)? {
                Recorded::Committed(_, uses) => uses,
                Recorded::Aborted => Uses::default(),
                Recorded::Wrong(problem) => {
                    let mut looked = Looked::default();
                    looked.findings.push(problem);
                    judged.push(Judged { record, looked });
                    continue;
                }
            };
            let mut look =
                Look { repository, stanza, meter: self.meter, packs: &mut packs, bench: &mut bench };
            let entry = catalog.entries.get(&id).cloned().unwrap_or_default();
            let looked = look.backup(&record, &uses, &entry)?;
            touched.extend(looked.touched.iter().copied());
            judged.push(Judged { record, looked });
        }
        // Damage where no live file lies harms no backup, and is damage all the same.
        for (_, trouble) in packs.troubles().filter(|(at, _)| !touched.contains(at)) {
            verified.general.push(trouble.problem.clone());
        }
        Ok(judged)
    }

    /// The clusters whose WAL is to be read, and the size of their segments.
    fn systems(
        &self,
        clusters: &[Cluster],
        judged: &[Judged],
        verified: &mut Verified,
    ) -> Result<BTreeMap<SystemIdentifier, SegmentSize>, VerifyError> {
        let Request { repository, stanza, scope, .. } = self.request;
        let mut systems = BTreeMap::new();
        for cluster in clusters {
            systems.insert(cluster.system, cluster.segment_size);
        }
        let recorded: BTreeMap<SystemIdentifier, SegmentSize> = judged
            .iter()
            .filter_map(|one| {
                let size = SegmentSize::new(one.record.cluster.wal_segment_size_bytes).ok()?;
                Some((one.record.system_identifier, size))
            })
            .collect();
        for (system, size) in &recorded {
            if !systems.contains_key(system) {
                systems.insert(*system, *size);
                self.lost_cluster(*system, verified)?;
            }
        }
        if let Scope::Wal(first, _) = scope {
            // Clusters of one stanza may have segments of one name: the one that holds its folder is meant.
            let mut held = BTreeMap::new();
            for (system, size) in &systems {
                let folder = layout::wal_folder(stanza, *system, *first).map_err(RepoError::from)?;
                let listed = repository.store().folder(Some(&folder)).map_err(RepoError::from)?;
                if !listed.objects.is_empty() || !listed.folders.is_empty() {
                    held.insert(*system, *size);
                }
            }
            return Ok(if held.is_empty() { systems } else { held });
        }
        if let Scope::Backup(_) = scope {
            systems.retain(|system, _| recorded.contains_key(system));
            return Ok(systems);
        }
        let root = Key::new(format!("{stanza}/wal")).map_err(RepoError::from)?;
        let listed = repository.store().folder(Some(&root)).map_err(RepoError::from)?;
        listed.objects.iter().for_each(|object| verified.strays.add(&object.key));
        for name in listed.folders {
            match name.parse::<SystemIdentifier>() {
                Ok(system) if systems.contains_key(&system) => {}
                Ok(system) => {
                    self.lost_cluster(system, verified)?;
                    let folder = Key::new(format!("{root}/{name}")).map_err(RepoError::from)?;
                    let why = "how large its segments are is not known without the cluster's object";
                    verified.general.push(Problem::new(Wrong::NotChecked, folder, why));
                }
                Err(_) => verified.strays.add(&format!("{root}/{name}")),
            }
        }
        Ok(systems)
    }

    /// The object of a cluster that must be there is not, or cannot be read: the latter was said.
    fn lost_cluster(&self, system: SystemIdentifier, verified: &mut Verified) -> Result<(), VerifyError> {
        let key = layout::cluster(self.request.stanza, system).map_err(RepoError::from)?.key;
        if !verified.general.problems().iter().any(|problem| problem.object == key.as_str()) {
            verified.general.push(Problem::missing(key));
        }
        Ok(())
    }

    fn wal(
        &self,
        wal: ClusterWal<'_>,
        size: SegmentSize,
        judged: &mut [Judged],
        verified: &mut Verified,
    ) -> Result<(), VerifyError> {
        let archive = self.archive(wal, size)?;
        let whole = self.request.scope == Scope::Everything;
        // Only by its beginning: which stretches are wanted of a backup depends on the histories.
        let (_, timelines) = Walk::begin(wal, Some(Vec::new()))?;
        let histories = Histories::read(wal, &timelines, |error| self.meter.note(error))?;
        let of_this = |one: &&mut Judged| one.record.system_identifier == wal.system;
        let mine: Vec<&mut Judged> = judged.iter_mut().filter(of_this).collect();
        let only = match &self.request.scope {
            Scope::Everything => None,
            Scope::Wal(first, last) => Some(vec![(*first, *last)]),
            Scope::Backup(_) => Some(own_stretches(&archive, &histories, &mine, size)),
        };
        let (mut walk, _) = Walk::begin(wal, only)?;
        let proofs: Vec<_> =
            mine.iter().map(|one| (one.record.backup_id.clone(), one.record.wal_proof.clone())).collect();
        let junctions = histories.junctions(size);
        if whole {
            self.observer.phase(Phase::Wal, archive.stored_bytes(0));
        }
        let wanted = Wanted { wal, size, proofs: &proofs, junctions: &junctions };
        let mut found = segments::read_all(&wanted, &mut walk, self.meter, self.request.workers)?;
        verified.strays.extend(std::mem::take(&mut found.strays));

        let records: Vec<&Record> = mine.iter().map(|one| &one.record).collect();
        let mut lacks = timelines::lacks(&archive, &histories, &records, &found, whole);
        let mut archive = archive;
        if !lacks.is_empty() || !found.vanished.is_empty() || found.pieces_vanished {
            // Expire may have been at work: what must be there is asked with all names as they are now.
            let live = self.still_live(&records)?;
            archive = self.archive(wal, size)?;
            lacks = timelines::lacks(&archive, &histories, &live, &found, whole);
            self.vanished(wal, &archive, &mut found)?;
        }
        let judge = Judge { wal, size, archive: &archive, histories: &histories, found: &found };
        for one in mine {
            judge.backup(one, &lacks)?;
        }
        let missing_range = match &self.request.scope {
            Scope::Wal(first, last) => judge.asked_range(*first, *last),
            _ => Vec::new(),
        };
        judge.timelines(&lacks, &missing_range, &self.request.scope, verified)
    }

    fn archive(&self, wal: ClusterWal<'_>, size: SegmentSize) -> Result<Archive, VerifyError> {
        let mut archive = Archive::read(&[wal.repo], wal.stanza, wal.system, size);
        match archive.take_unread().pop() {
            None => Ok(archive),
            Some((_, error)) => Err(error.into()),
        }
    }

    /// Those of the backups that still exist.
    fn still_live<'r>(&self, records: &[&'r Record]) -> Result<Vec<&'r Record>, VerifyError> {
        let catalog = self.request.repository.catalog(self.request.stanza)?;
        let retired =
            |record: &&&Record| catalog.entries.get(&record.backup_id).is_some_and(|entry| entry.retired);
        Ok(records.iter().filter(|record| !retired(record)).copied().collect())
    }

    /// Segments that were gone when their turn came and are listed again: a store that does not know its mind.
    fn vanished(&self, wal: ClusterWal<'_>, archive: &Archive, found: &mut Found) -> Result<(), VerifyError> {
        for segment in std::mem::take(&mut found.vanished) {
            if archive.contains(segment) {
                let key = layout::segment(wal.stanza, wal.system, segment).map_err(RepoError::from)?.key;
                found.problem(segment, Problem::new(Wrong::Missing, key, "it is listed, but cannot be read"));
            }
        }
        Ok(())
    }

    /// Objects that lie about.
    fn strays(
        &self,
        catalog: &Catalog,
        judged: &[Judged],
        verified: &mut Verified,
    ) -> Result<(), VerifyError> {
        let Request { repository, stanza, .. } = self.request;
        catalog.strangers.iter().for_each(|name| verified.strays.add(name));
        let root = Key::new(format!("{stanza}/data")).map_err(RepoError::from)?;
        let listed = repository.store().folder(Some(&root)).map_err(RepoError::from)?;
        listed.objects.iter().for_each(|object| verified.strays.add(&object.key));
        let mut used: BTreeMap<BackupId, BTreeSet<u32>> = BTreeMap::new();
        for one in judged {
            // What a backup stored and another still uses is its business; a record that cannot be read hides it.
            match backups::record(repository, stanza, &one.record.backup_id, self.meter)? {
                Recorded::Committed(_, uses) => {
                    for (owner, packs) in uses.0 {
                        used.entry(owner).or_default().extend(packs.iter().map(|pack| pack.number));
                    }
                }
                Recorded::Aborted => {}
                Recorded::Wrong(problem) => verified.general.push(problem),
            }
        }
        for name in listed.folders {
            let Ok(id) = name.parse::<BackupId>() else {
                verified.strays.add(&format!("{root}/{name}"));
                continue;
            };
            if !catalog.entries.contains_key(&id) {
                verified.strays.add(&format!("{root}/{name}"));
                continue;
            }
            let Some(record) = judged.iter().map(|one| &one.record).find(|record| record.backup_id == id)
            else {
                continue;
            };
            let folder = layout::data(stanza, &id).map_err(RepoError::from)?;
            let packs = used.get(&id);
            let is_known = |key: &Key| match layout::named(key) {
                Some(layout::Named::Pack(_, _, number)) => packs.is_some_and(|packs| packs.contains(&number)),
                Some(layout::Named::Map(_, _, number)) => number < record.map.objects,
                _ => false,
            };
            let mut unknown = Vec::new();
            let list = repository.store().list(&folder, &mut |listed| {
                if !is_known(&listed.key) {
                    unknown.push(listed.key);
                }
            });
            list.map_err(RepoError::from)?;
            unknown.iter().for_each(|key| verified.strays.add(key));
        }
        Ok(())
    }

    /// Something is wrong: has the backup been given up since the catalog was listed?
    fn look_again(&self, verified: &mut Verified) -> Result<(), VerifyError> {
        let wrong = |one: &CheckedBackup| one.findings.verdict() != Verdict::Good;
        if !verified.backups.iter().any(wrong) {
            return Ok(());
        }
        let catalog = match self.request.repository.catalog(self.request.stanza) {
            Ok(catalog) => catalog,
            Err(error) => {
                let key = layout::catalog(self.request.stanza).map_err(RepoError::from)?;
                verified.general.push(Problem::of(error, &key)?);
                return Ok(());
            }
        };
        let mut removed = Vec::new();
        verified.backups.retain(|one| {
            let retired = catalog.entries.get(&one.id).is_some_and(|entry| entry.retired);
            if wrong(one) && retired {
                removed.push((one.id.clone(), Standing::RemovedMeanwhile));
            }
            !(wrong(one) && retired)
        });
        verified.not_judged.extend(removed);
        Ok(())
    }
}
