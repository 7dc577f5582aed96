//! Rows 10 to 13: timeline histories.

use super::{Answer, Asker, Doubt, HistoryNeed, Question, Source, Trouble, TroubleKind, Whole};
use crate::postgres::history::TimelineHistory;
use crate::units::TimelineId;
use std::collections::{BTreeMap, BTreeSet};

/// What is known of a history so far; `None` where nobody has looked.
#[derive(Clone, Debug, Default)]
pub struct HistoryFacts {
    /// How many repositories there are.
    pub repositories: usize,
    /// Copies under its name.
    pub whole: Option<Whole>,
    /// Which timelines there are.
    pub timelines: Option<Timelines>,
}

/// A history file in the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoredHistory {
    /// Read and checked.
    Readable(TimelineHistory),
    /// There is one, and no copy of it is good.
    Unreadable,
}

/// The timelines of a cluster, over all repositories.
#[derive(Clone, Debug, Default)]
pub struct Timelines {
    /// History files.
    pub histories: BTreeMap<TimelineId, StoredHistory>,
    /// Timelines with at least one object in their folder.
    pub folders: BTreeSet<TimelineId>,
    /// Repositories that could not be listed.
    pub troubles: Vec<Trouble>,
}

impl Timelines {
    /// The history of `timeline`: as stored, or as the histories of later timelines imply it. `Ok(None)` when
    /// nothing tells.
    ///
    /// # Errors
    /// Two timelines whose histories contradict each other about it.
    pub fn lineage_of(
        &self,
        timeline: TimelineId,
    ) -> Result<Option<TimelineHistory>, (TimelineId, TimelineId)> {
        if let Some(StoredHistory::Readable(history)) = self.histories.get(&timeline) {
            return Ok(Some(history.clone()));
        }
        let mut found: Option<(TimelineId, TimelineHistory)> = None;
        for (later, stored) in self.histories.range(timeline..) {
            let StoredHistory::Readable(history) = stored else { continue };
            let Some(implied) = history.implied_for(timeline) else { continue };
            match &found {
                Some((first, one)) if !same_forks(one, &implied) => return Err((*first, *later)),
                Some(_) => {}
                None => found = Some((*later, implied)),
            }
        }
        Ok(found.map(|(_, history)| history))
    }

    /// Every timeline that is known by a history or a folder.
    pub fn known(&self) -> impl Iterator<Item = TimelineId> {
        self.histories.keys().chain(&self.folders).copied().collect::<BTreeSet<_>>().into_iter()
    }
}

/// Whether two histories name the same forks; the reasons are for people.
fn same_forks(a: &TimelineHistory, b: &TimelineHistory) -> bool {
    let forks = |h: &TimelineHistory| h.entries().iter().map(|e| (e.timeline, e.end)).collect::<Vec<_>>();
    forks(a) == forks(b)
}

/// Decides on the history of `timeline`.
///
/// # Errors
/// What must be looked up first.
pub fn history(
    question: &Question,
    timeline: TimelineId,
    facts: &HistoryFacts,
) -> Result<Answer, HistoryNeed> {
    let whole = facts.whole.as_ref().ok_or(HistoryNeed::Whole)?;
    if whole.good {
        return Ok(Answer::serve(10, Source::Whole, None));
    }
    // The first timeline has no history file, ever; PostgreSQL asks for it all the same when it leaves it.
    if timeline == TimelineId::FIRST && whole.troubles.iter().all(|t| t.kind != TroubleKind::Damaged) {
        return Ok(Answer::not_there(12));
    }
    if whole.troubles.is_empty() && question.asker == Asker::Copier {
        return Ok(Answer::not_there(13));
    }
    let timelines = facts.timelines.as_ref().ok_or(HistoryNeed::Timelines)?;
    match timelines.lineage_of(timeline) {
        Err((a, b)) => return Ok(Answer::unsure(11, Doubt::Contradiction(a, b))),
        // The oldest timeline of all has none either.
        Ok(Some(implied)) if implied.entries().is_empty() => return Ok(Answer::not_there(12)),
        Ok(Some(implied)) => return Ok(Answer::serve(10, Source::Implied(implied), None)),
        Ok(None) => {}
    }
    let troubles = if whole.troubles.is_empty() { &timelines.troubles } else { &whole.troubles };
    if !troubles.is_empty() {
        return Ok(Answer::of_troubles(troubles, facts.repositories));
    }
    let Some(later) = timelines.known().filter(|known| *known >= timeline).max() else {
        return Ok(Answer::not_there(12));
    };
    // PostgreSQL looks for a number that nobody has used: one above its own with nothing under it is free.
    let unused = !timelines.folders.contains(&timeline) && !timelines.histories.contains_key(&timeline);
    if unused && question.target.is_some_and(|target| timeline > target) {
        return Ok(Answer::not_there(11));
    }
    Ok(Answer::unsure(11, Doubt::LaterTimeline(later)))
}
