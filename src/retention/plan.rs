//! What would be done and why; and doing it.

use super::error::RetentionError;
use super::look::{Keeps, later, look};
use super::policy::{Candidate, Policy, Remove, Verdict, decide};
use super::read::{Held, Reader};
use super::step::{Step, left_out};
use super::survey::{Survey, pin_of};
use super::sweep::{Manner, Swept, sweep_backups, sweep_wal, unneeded_data};
use super::wal::{Floors, Keys, Lineages, Stretch, Unneeded};
use crate::env::Env;
use crate::repo::Cluster;
use crate::repo::catalog::GivenUp;
use crate::repo::record::{Aborted, Record, Retired, Started};
use crate::units::{BackupId, ByteCount, SystemIdentifier, Timestamp};
use crate::wal::archive::Archive;
use std::sync::Arc;
use std::time::Duration;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// What stays.
    pub policy: Policy,
    /// Remove this one, and ask no policy.
    pub asked: Option<BackupId>,
    /// How long the data of a retired backup stays, so that restores that run can end.
    pub delay: Duration,
    /// A backup that was begun so long ago and has no outcome is given up.
    pub give_up_after: Duration,
    /// The command, for the names that stay.
    pub by: &'static str,
}

/// A backup that exists, and what becomes of it.
#[derive(Clone, Debug)]
pub struct Decision {
    /// The backup.
    pub id: BackupId,
    /// Its record; `None` where it cannot be read, which only one that was asked for by name may be.
    pub held: Option<Arc<Held>>,
    /// Whether its own WAL is all there.
    pub is_restorable: bool,
    /// What becomes of it.
    pub verdict: Verdict,
    /// Stored bytes that nothing else needs: what removing it frees in the end, without WAL.
    pub frees: ByteCount,
}

/// A backup that was retired before, and of which something is left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Earlier {
    /// The backup.
    pub id: BackupId,
    /// Its data goes now, or from this moment on; unknown where its retirement cannot be read.
    pub due: Due,
    /// Stored bytes that nothing else needs.
    pub frees: ByteCount,
}

/// When the data of a retired backup goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Now.
    Now,
    /// From this moment on.
    From(Timestamp),
    /// Not while its retirement cannot be read, unless the delay is none.
    Unknown,
}

/// What would be done. Consumed by [`Plan::execute`], so that it cannot be done twice.
#[derive(Debug)]
pub struct Plan<'a> {
    reader: Reader<'a>,
    wanted: Wanted,
    clusters: Vec<(Lineages, Unneeded)>,
    /// The stanza's clusters and their WAL, as it was listed.
    pub archives: Vec<(Cluster, Archive)>,
    /// When it was made.
    pub at: Timestamp,
    /// Every backup that exists, the newest first.
    pub decisions: Vec<Decision>,
    /// Backups that were begun long ago and never ended: given up.
    pub stuck: Vec<Arc<Started>>,
    /// Backups that were aborted: what they stored goes.
    pub aborted: Vec<BackupId>,
    /// Backups that are being taken, or look so.
    pub open: Vec<Arc<Started>>,
    /// Backups that were retired by earlier runs.
    pub earlier: Vec<Earlier>,
    /// WAL that goes now.
    pub wal: Vec<Stretch>,
    /// Clusters of which no backup exists, so that their WAL stays.
    pub without_backup: Vec<SystemIdentifier>,
    /// Whether there is nothing to do because nothing asks for it.
    pub is_idle: bool,
}

/// What was done.
#[derive(Debug, Default)]
pub struct Done {
    /// Backups that exist no more.
    pub retired: Vec<BackupId>,
    /// Interrupted ones that were given up.
    pub given_up: Vec<BackupId>,
    /// Those that looked stuck and ended meanwhile.
    pub ended: Vec<BackupId>,
    /// Those that were to go and were pinned meanwhile.
    pub pinned: Vec<BackupId>,
    /// What was deleted.
    pub swept: Swept,
}

impl<'a> Plan<'a> {
    /// Decides, and lists the WAL that may go: before the catalog is listed to delete by. Nothing is changed.
    ///
    /// # Errors
    /// [`RetentionError::NoSuchBackup`], [`RetentionError::Pinned`], or the store's trouble while sizes are listed.
    pub fn make(survey: Survey<'a>, wanted: Wanted) -> Result<Self, RetentionError> {
        let Survey { reader, at, looked, clusters, pinned } = &survey;
        let candidates: Vec<Candidate<'_>> = survey
            .live()
            .map(|held| Candidate {
                held,
                is_restorable: survey.is_restorable(held),
                pinned: pinned.get(&held.record.backup_id).cloned(),
            })
            .collect();
        let policy = if wanted.asked.is_some() { Policy::default() } else { wanted.policy };
        let mut verdicts = decide(policy, *at, &candidates);
        if let Some(asked) = &wanted.asked {
            if looked.aborted.contains(asked) {
                return Err(RetentionError::NoSuchBackup(asked.clone()));
            }
            if let Some(pin) = pinned.get(asked) {
                return Err(RetentionError::Pinned(asked.clone(), pin.clone()));
            }
            verdicts.insert(asked.clone(), Verdict::Remove(Remove::Asked));
        }
        let is_idle = wanted.policy.is_none() && wanted.asked.is_none() && !looked.any_retired;
        let goes = |id: &BackupId| matches!(verdicts.get(id), Some(Verdict::Remove(_)));

        // What will need data once everything that goes has gone.
        let mut keeps = Keeps::default();
        survey.live().filter(|held| !goes(&held.record.backup_id)).for_each(|held| keeps.add(held));
        let frees = |id: &BackupId| {
            Ok::<_, RetentionError>(bytes(&unneeded_data(reader, &keeps, id, &mut Vec::new())?.0))
        };

        let mut decisions = Vec::new();
        for (id, verdict) in &verdicts {
            let held = looked.held.iter().find(|held| held.record.backup_id == *id);
            decisions.push(Decision {
                held: held.cloned(),
                is_restorable: candidates
                    .iter()
                    .any(|one| one.held.record.backup_id == *id && one.is_restorable),
                frees: if goes(id) { frees(id)? } else { ByteCount::ZERO },
                id: id.clone(),
                verdict: verdict.clone(),
            });
        }
        let at_of = |one: &Decision| one.held.as_ref().map(|held| held.record.stopped_at_unix_us);
        decisions.sort_by(|a, b| (at_of(b), &b.id).cmp(&(at_of(a), &a.id)));

        let mut earlier = Vec::new();
        for leaving in &looked.leaving {
            let (goes, _) = unneeded_data(reader, &looked.keeps, &leaving.id, &mut Vec::new())?;
            earlier.push(Earlier { id: leaving.id.clone(), due: Due::Now, frees: bytes(&goes) });
        }
        for (id, due) in &looked.waiting {
            let due = due.map_or(Due::Unknown, Due::From);
            earlier.push(Earlier { id: id.clone(), due, frees: frees(id)? });
        }
        earlier.sort_by(|a, b| b.id.cmp(&a.id));

        let is_stuck =
            |started: &&Arc<Started>| later(started.started_at_unix_us, wanted.give_up_after) <= *at;
        let (stuck, open): (Vec<_>, Vec<_>) = looked.open.iter().partition(|started| is_stuck(started));
        // Without a delay, what goes needs no WAL any more.
        let is_gone = |id: &BackupId| {
            wanted.delay.is_zero() && (goes(id) || stuck.iter().any(|started| started.backup_id == *id))
        };
        let (mut wal, mut without_backup, mut unneeded) = (Vec::new(), Vec::new(), Vec::new());
        for view in clusters {
            let floors = Floors::without(&view.lineages, looked, &is_gone);
            if !floors.any_backup() {
                without_backup.push(view.cluster.system);
            }
            let listed = Unneeded::list(reader.repository(), reader.stanza(), &view.cluster, &floors)?;
            wal.extend(listed.stretches(&floors));
            unneeded.push(listed);
        }
        let stuck: Vec<_> = stuck.into_iter().cloned().collect();
        let open = open.into_iter().cloned().collect();
        let (aborted, at) = (looked.aborted.clone(), *at);
        drop(candidates);
        let Survey { reader, clusters, .. } = survey;
        let mut archives = Vec::new();
        let clusters = clusters
            .into_iter()
            .zip(unneeded)
            .map(|(view, unneeded)| {
                archives.push((view.cluster, view.archive));
                (view.lineages, unneeded)
            })
            .collect();
        let mut plan = Self {
            reader,
            wanted,
            clusters,
            archives,
            at,
            decisions,
            stuck,
            aborted,
            open,
            earlier,
            wal,
            without_backup,
            is_idle,
        };
        if is_idle {
            let stuck = std::mem::take(&mut plan.stuck);
            plan.open.extend(stuck);
            plan.aborted.clear();
            plan.wal.clear();
        }
        Ok(plan)
    }

    /// The backups that go.
    pub fn removed(&self) -> impl Iterator<Item = &Decision> {
        self.decisions.iter().filter(|one| matches!(one.verdict, Verdict::Remove(_)))
    }

    /// The backups that stay.
    pub fn kept(&self) -> impl Iterator<Item = &Decision> {
        self.decisions.iter().filter(|one| matches!(one.verdict, Verdict::Keep(_)))
    }

    /// Whether no backup would be left.
    #[must_use]
    pub fn leaves_none(&self) -> bool {
        self.kept().next().is_none()
    }

    /// Does it: retires, looks twice, deletes. See the modules [`super::look`] and [`super::sweep`].
    ///
    /// After `Ok` what was to go does not exist any more; its data is gone or goes by a later run. After `Err`, an
    /// interrupt or a crash some of it does not exist any more, and nothing that is needed was deleted: the next
    /// run goes on.
    ///
    /// # Errors
    /// See [`RetentionError`].
    pub fn execute(mut self, env: &dyn Env, manner: &Manner) -> Result<Done, RetentionError> {
        let mut done = Done::default();
        if self.is_idle {
            return Ok(done);
        }
        let late = left_out(Step::RetireBeforeSweep);
        if !late {
            self.retire(env, manner, &mut done)?;
        }
        let victims: Vec<BackupId> = self.removed().map(|one| one.id.clone()).collect();
        let asked = self.wanted.asked.clone();
        let looked = look(&mut self.reader, &victims, asked.as_ref(), self.wanted.delay, env.now())?;
        sweep_backups(&mut self.reader, &looked, manner, &mut done.swept)?;
        if done.swept.refused.is_none() {
            sweep_wal(&self.reader, &looked, &self.clusters, manner, &mut done.swept)?;
        }
        if late {
            self.retire(env, manner, &mut done)?;
        }
        Ok(done)
    }

    /// Gives up what is stuck, then retires all that goes.
    fn retire(&self, env: &dyn Env, manner: &Manner, done: &mut Done) -> Result<(), RetentionError> {
        let (repository, stanza) = (self.reader.repository(), self.reader.stanza());
        for started in &self.stuck {
            manner.stop.check()?;
            let id = &started.backup_id;
            let why = format!("it was begun and did not end; {} gave it up", self.wanted.by);
            let aborted = Aborted { why, writer: self.wanted.by.to_owned() };
            let given_up = if left_out(Step::WinTheOutcome) {
                GivenUp::Aborted
            } else {
                repository.give_up(stanza, id, &aborted, env)?
            };
            match given_up {
                GivenUp::Aborted => {
                    repository.retire(stanza, id, &self.retired(id, "it did not end", env), env)?;
                    done.given_up.push(id.clone());
                }
                GivenUp::Committed => done.ended.push(id.clone()),
                GivenUp::Gone => {}
            }
        }
        for id in &self.aborted {
            manner.stop.check()?;
            repository.retire(stanza, id, &self.retired(id, "it was aborted", env), env)?;
        }
        for decision in self.removed() {
            manner.stop.check()?;
            if self.is_pinned_now(&decision.id, env)? {
                done.pinned.push(decision.id.clone());
                continue;
            }
            let why = match decision.verdict {
                Verdict::Remove(Remove::Asked) => "it was asked for by name",
                _ => "the retention policy keeps newer ones",
            };
            let retired = self.retired(&decision.id, why, env);
            repository.retire(stanza, &decision.id, &retired, env)?;
            done.retired.push(decision.id.clone());
        }
        Ok(())
    }

    /// Whether a backup was pinned since the plan was made: listed anew for each, because with hundreds to retire
    /// minutes may pass between the first and the last, and whoever pins in between is told that it holds.
    fn is_pinned_now(&self, id: &BackupId, env: &dyn Env) -> Result<bool, RetentionError> {
        let (repository, stanza) = (self.reader.repository(), self.reader.stanza());
        let catalog = repository.catalog(stanza)?;
        let notes = catalog.entries.get(id).map(|entry| entry.notes.as_slice()).unwrap_or_default();
        Ok(pin_of(repository, stanza, id, notes, env.now()).is_some())
    }

    fn retired(&self, id: &BackupId, why: &str, env: &dyn Env) -> Retired {
        Retired {
            backup_id: id.clone(),
            why: why.to_owned(),
            by: self.wanted.by.to_owned(),
            retired_at_unix_us: env.now(),
            walden_version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

impl Decision {
    /// What the record says.
    #[must_use]
    pub fn record(&self) -> Option<&Record> {
        self.held.as_ref().map(|held| &held.record)
    }
}

fn bytes(keys: &Keys) -> ByteCount {
    ByteCount::new(keys.iter().fold(0, |sum, (_, size)| sum.saturating_add(*size)))
}
