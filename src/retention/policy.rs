//! What stays: a pure function of the backups, the policy and the clock.

use super::read::Held;
use super::survey::Pinned;
use crate::units::{BackupId, BackupKind, SystemIdentifier, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What the settings of a repository ask for. Both may be asked for: what either keeps is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// So many full backups, and every backup since the oldest of them.
    pub full: Option<u32>,
    /// So long back one must be able to go to any moment.
    pub window: Option<Duration>,
}

impl Policy {
    /// Whether nothing is asked for: then everything stays.
    #[must_use]
    pub const fn is_none(&self) -> bool {
        self.full.is_none() && self.window.is_none()
    }
}

/// A backup as the policy looks at it.
#[derive(Clone, Debug)]
pub struct Candidate<'a> {
    /// What its record says.
    pub held: &'a Held,
    /// Whether all WAL from its start to its stop is in the archive.
    pub is_restorable: bool,
    /// What protects it from any policy.
    pub pinned: Option<Pinned>,
}

impl Candidate<'_> {
    fn id(&self) -> &BackupId {
        &self.held.record.backup_id
    }

    fn at(&self) -> (Timestamp, &BackupId) {
        (self.held.record.stopped_at_unix_us, self.id())
    }
}

/// Why a backup stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keep {
    /// It is the newest of its cluster.
    Newest,
    /// It is the newest of its cluster that can be restored: WAL of newer ones is missing.
    NewestRestorable,
    /// It is one of the full backups that are to stay.
    Full {
        /// Its place among them, from the newest.
        place: u32,
        /// How many stay.
        of: u32,
    },
    /// It was taken since the oldest full backup that is to stay.
    SinceFull,
    /// It was taken within the window.
    InWindow,
    /// The moments at the beginning of the window are reached from it.
    BeginsWindow,
    /// It is pinned.
    Pinned(Pinned),
    /// Nothing says that it should go.
    NoPolicy,
}

/// Why a backup goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remove {
    /// It was named.
    Asked,
    /// The policy keeps newer ones.
    Policy,
}

/// What becomes of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It stays, for these reasons.
    Keep(Vec<Keep>),
    /// It goes.
    Remove(Remove),
}

/// Decides about all backups of a stanza, whatever clusters they are of.
///
/// Full backups are counted, and the window is measured, over all clusters of the stanza together, by the time at
/// which a backup ended: after `pg_upgrade` the old cluster's backups go when their turn comes. But of each
/// cluster the newest stays, and the newest that can be restored: only a person gives a cluster up.
/// A backup whose own WAL is missing is never counted: it stands in for nothing.
#[must_use]
pub fn decide(policy: Policy, now: Timestamp, backups: &[Candidate<'_>]) -> BTreeMap<BackupId, Verdict> {
    let mut newest_first: Vec<&Candidate<'_>> = backups.iter().collect();
    newest_first.sort_by(|a, b| b.at().cmp(&a.at()));
    let mut keeps: BTreeMap<BackupId, Vec<Keep>> =
        newest_first.iter().map(|backup| (backup.id().clone(), Vec::new())).collect();
    let mut keep = |backup: &Candidate<'_>, why| keeps.entry(backup.id().clone()).or_default().push(why);

    let (mut clusters, mut restorable) = (BTreeSet::new(), BTreeSet::new());
    for backup in &newest_first {
        let system: SystemIdentifier = backup.held.record.system_identifier;
        let is_newest = clusters.insert(system);
        if is_newest {
            keep(backup, Keep::Newest);
        }
        if backup.is_restorable && restorable.insert(system) && !is_newest {
            keep(backup, Keep::NewestRestorable);
        }
        if let Some(pin) = &backup.pinned {
            keep(backup, Keep::Pinned(pin.clone()));
        }
        if policy.is_none() {
            keep(backup, Keep::NoPolicy);
        }
    }
    if let Some(of) = policy.full {
        for (backup, why) in by_count(of, &newest_first) {
            keep(backup, why);
        }
    }
    if let Some(window) = policy.window {
        for (backup, why) in by_window(window, now, &newest_first) {
            keep(backup, why);
        }
    }
    let verdict =
        |why: Vec<Keep>| if why.is_empty() { Verdict::Remove(Remove::Policy) } else { Verdict::Keep(why) };
    keeps.into_iter().map(|(id, why)| (id, verdict(why))).collect()
}

/// As pgBackRest counts: fulls, and what was taken since the oldest of them. As long as there are fewer, all stay.
fn by_count<'a, 'b>(of: u32, newest_first: &[&'a Candidate<'b>]) -> Vec<(&'a Candidate<'b>, Keep)> {
    let mut place = 0;
    let mut kept = Vec::new();
    for backup in newest_first {
        if place >= of {
            break;
        }
        if backup.is_restorable && backup.id().kind() == BackupKind::Full {
            place += 1;
            kept.push((*backup, Keep::Full { place, of }));
        } else {
            kept.push((*backup, Keep::SinceFull));
        }
    }
    kept
}

/// Every backup that ended in the window, and the one from which its first moments are reached: the newest
/// before it, also the newest before it that is on the way to the newest of its cluster, which need not be the
/// same after a failover or a restore.
fn by_window<'a, 'b>(
    window: Duration,
    now: Timestamp,
    newest_first: &[&'a Candidate<'b>],
) -> Vec<(&'a Candidate<'b>, Keep)> {
    let window = i64::try_from(window.as_micros()).unwrap_or(i64::MAX);
    // Back from the newest backup, if that lies further back than now: while no backups come, none go, and a
    // clock that runs ahead removes nothing.
    let newest = newest_first.iter().map(|backup| backup.held.record.stopped_at_unix_us).max();
    let begins = newest.unwrap_or(now).min(now).as_unix_micros().saturating_sub(window);
    let is_inside = |backup: &Candidate<'_>| backup.held.record.stopped_at_unix_us.as_unix_micros() > begins;
    let mut kept: Vec<_> = newest_first
        .iter()
        .filter(|backup| is_inside(backup))
        .map(|backup| (*backup, Keep::InWindow))
        .collect();
    let mut before = newest_first.iter().filter(|backup| !is_inside(backup) && backup.is_restorable);
    let edge = before.clone().next();
    let last = newest_first.iter().find(|backup| backup.is_restorable);
    let is_aside = |last: &&&Candidate<'_>| {
        edge.is_some_and(|edge| edge.id() != last.id() && !leads_to(edge.held, last.held))
    };
    let on_the_way =
        last.filter(is_aside).and_then(|last| before.find(|backup| leads_to(backup.held, last.held)));
    kept.extend(edge.map(|backup| (*backup, Keep::BeginsWindow)));
    kept.extend(on_the_way.map(|backup| (*backup, Keep::BeginsWindow)));
    kept
}

/// Whether recovery from `earlier` can come to where `later` was taken.
fn leads_to(earlier: &Held, later: &Held) -> bool {
    let (earlier, later) = (&earlier.record, &later.record);
    let steps = &later.lineage;
    let at = steps.iter().position(|step| step.timeline == earlier.timeline);
    earlier.system_identifier == later.system_identifier
        && earlier.stop_lsn <= later.start_lsn
        && at.is_some_and(|at| steps.get(at + 1).is_none_or(|next| earlier.stop_lsn <= next.begin_lsn))
}

#[cfg(test)]
mod tests;
