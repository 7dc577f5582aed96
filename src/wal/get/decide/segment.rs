//! Rows 1 to 9 and 13: WAL segments.

use super::{Answer, Asker, Doubt, Need, Proof, Question, Source, Trouble, TroubleKind, Whole};
use crate::postgres::history::TimelineHistory;
use crate::units::{Lsn, SegmentName, TimelineId};

/// What is known of a segment so far; `None` where nobody has looked.
#[derive(Clone, Debug, Default)]
pub struct SegmentFacts {
    /// How many repositories there are.
    pub repositories: usize,
    /// Copies under the full name.
    pub whole: Option<Whole>,
    /// The history of the target timeline.
    pub lineage: Option<Lineage>,
    /// Names around the segment.
    pub near: Option<Near>,
    /// Names further away, and histories.
    pub far: Option<Far>,
    /// Partial segments and tails.
    pub pieces: Option<Pieces>,
    /// Everything was looked for again, for as long as a segment may be on its way.
    pub waited: bool,
}

/// The history of the target timeline.
#[derive(Clone, Debug)]
pub enum Lineage {
    /// As stored, or as later histories imply it.
    Known(TimelineHistory),
    /// Absent or unreadable.
    Unknown(Vec<Trouble>),
}

/// What the names in the segment's folder say, over all repositories.
#[derive(Clone, Debug, Default)]
pub struct Near {
    /// Something of the timeline that comes after the segment.
    pub later: Option<String>,
    /// There are partial copies or tails of the segment.
    pub pieces: bool,
    /// The furthest position up to which a name proves the timeline's WAL was written, and that name.
    pub proved: Option<(Lsn, String)>,
    /// Repositories that could not be listed.
    pub troubles: Vec<Trouble>,
}

/// What the names beyond the folder and the histories say, over all repositories.
#[derive(Clone, Debug, Default)]
pub struct Far {
    /// Something of the timeline that comes after the segment.
    pub later: Option<String>,
    /// Timelines that left this one, and where.
    pub children: Vec<(TimelineId, Lsn)>,
    /// Timelines above this one that exist and of which nobody can tell where they come from.
    pub without_history: Vec<TimelineId>,
    /// With a target whose lineage left this timeline: something of that lineage's later timelines that lies
    /// in this segment or after it.
    pub descendants: Option<String>,
    /// Repositories that could not be listed.
    pub troubles: Vec<Trouble>,
}

/// What partial segments and tails hold together, checked.
#[derive(Clone, Debug, Default)]
pub struct Pieces {
    /// The segment's WAL is held from its start up to here; its end where the pieces make it complete.
    pub reach: Option<Lsn>,
    /// Pieces that are damaged, or disagree.
    pub troubles: Vec<Trouble>,
}

/// Decides on a segment.
///
/// # Errors
/// What must be looked up first.
pub fn segment(question: &Question, name: SegmentName, facts: &SegmentFacts) -> Result<Answer, Need> {
    let bounds = name.number(question.size).and_then(|number| {
        Some((question.size.start_of(number)?, question.size.start_of(number.checked_add(1)?)?))
    });
    let Some((start, end)) = bounds else {
        return Ok(Answer::unsure(14, Doubt::NoSuchName));
    };
    if question.asker == Asker::Copier {
        return copy(facts);
    }
    let timeline = name.timeline();
    let mut targeted = question.target == Some(timeline);
    if let Some(target) = question.target.filter(|target| *target > timeline) {
        match facts.lineage.as_ref().ok_or(Need::Lineage)? {
            Lineage::Unknown(troubles) => {
                let row = if troubles.iter().any(|t| t.kind == TroubleKind::Unusable) { 14 } else { 6 };
                return Ok(Answer::unsure(row, Doubt::NoLineage { target, troubles: troubles.clone() }));
            }
            Lineage::Known(lineage) => match lineage.fork_from(timeline) {
                Some(fork) if fork < start => {
                    return Ok(Answer::unsure(6, Doubt::BeyondFork { target, fork }));
                }
                Some(fork) if fork < end => return fork_segment(question, facts, target, (start, fork, end)),
                Some(_) => targeted = true,
                // Neither the target nor on the way to it: whoever asks has changed his mind about the target.
                None => {}
            },
        }
    } else if let (None, Some(followed)) = (question.target, &question.followed) {
        let child = followed.timeline();
        match followed.fork_from(timeline) {
            Some(fork) if fork < start => {
                return Ok(Answer::unsure(6, Doubt::BeyondFork { target: child, fork }));
            }
            Some(fork) if fork < end => return Ok(Answer::unsure(7, Doubt::TargetUnknown { child })),
            _ => {}
        }
    }
    let whole = facts.whole.as_ref().ok_or(Need::Whole)?;
    if whole.good {
        return Ok(Answer::serve(1, Source::Whole, None));
    }
    let damaged = whole.troubles.iter().any(|t| t.kind == TroubleKind::Damaged);
    if !damaged && !whole.troubles.is_empty() {
        return Ok(Answer::of_troubles(&whole.troubles, facts.repositories));
    }
    let near = facts.near.as_ref().ok_or(Need::Near)?;
    // A complete segment may lie under the name of a partial one.
    let pieces = if near.pieces { Some(facts.pieces.as_ref().ok_or(Need::Pieces)?) } else { None };
    if pieces.is_some_and(|p| p.reach == Some(end)) {
        return Ok(Answer::serve(1, Source::Pieces, None));
    }
    if damaged {
        return Ok(Answer::of_troubles(&whole.troubles, facts.repositories));
    }
    let reach = pieces.and_then(|pieces| pieces.reach);
    let stops_in_it = question.needed_to.filter(|to| *to > start && *to <= end);
    if stops_in_it.zip(reach).is_some_and(|(to, reach)| reach >= to) {
        // What was written behind is of no use to it, whether it was lost or not.
        return Ok(Answer::serve(8, Source::Pieces, None));
    }
    if question.asker == Asker::Standby && pieces.is_none() {
        // It asks again whatever the reason; what lies further away changes nothing.
        return Ok(Answer::not_there(9));
    }
    if !near.troubles.is_empty() {
        return Ok(Answer::of_troubles(&near.troubles, facts.repositories));
    }
    if let Some(later) = &near.later {
        return later_exists(question, facts, later);
    }
    let far = facts.far.as_ref().ok_or(Need::Far)?;
    if !far.troubles.is_empty() {
        return Ok(Answer::of_troubles(&far.troubles, facts.repositories));
    }
    if let Some(later) = &far.later {
        return later_exists(question, facts, later);
    }

    let known_end = question.known_end.filter(|known| known.timeline() == timeline && *known >= name);
    let mut proved = near.proved.clone().map(|(to, what)| (to, Proof::Named(what)));
    let forks = far.children.iter().map(|(child, at)| (*at, Proof::Fork { child: *child, at: *at }));
    let known_end = known_end.map(|known| (end, Proof::KnownEnd(known)));
    for (to, proof) in forks.chain(known_end) {
        if proved.as_ref().is_none_or(|(furthest, _)| *furthest < to) {
            proved = Some((to, proof));
        }
    }
    let proved = proved.filter(|(to, _)| *to > start);
    if let Some(timeline) = far.without_history.first() {
        return Ok(Answer::unsure(5, Doubt::TimelineWithoutHistory(*timeline)));
    }
    let Some(pieces) = pieces else {
        return Ok(match proved {
            Some((_, proof)) => Answer::unsure(5, Doubt::Existed(proof)),
            None => Answer::not_there(9),
        });
    };
    // Where the pieces fall short of what was written, the rest was lost.
    let held = pieces.reach.filter(|reach| *reach > start);
    match (held, proved) {
        // A damaged piece may have reached further.
        _ if !pieces.troubles.is_empty() => Ok(Answer::of_troubles(&pieces.troubles, facts.repositories)),
        (held, Some((to, proof))) if held.is_none_or(|reach| reach < to) => {
            Ok(Answer::unsure(5, Doubt::Existed(proof)))
        }
        (None, _) => Ok(Answer::not_there(9)),
        (Some(_), _) => {
            // Given whole to a recovery that left this timeline inside the segment, it would go on a dead branch.
            let child = far.children.iter().find(|(_, at)| *at < end).map(|(child, _)| *child);
            match child.filter(|_| !targeted) {
                Some(child) => Ok(Answer::unsure(5, Doubt::TargetUnknown { child })),
                None => Ok(Answer::serve(8, Source::Pieces, None)),
            }
        }
    }
}

/// Row 13: the file as archived, or nothing.
fn copy(facts: &SegmentFacts) -> Result<Answer, Need> {
    let whole = facts.whole.as_ref().ok_or(Need::Whole)?;
    Ok(if whole.good {
        Answer::serve(1, Source::Whole, None)
    } else if whole.troubles.is_empty() {
        Answer::not_there(13)
    } else {
        Answer::of_troubles(&whole.troubles, facts.repositories)
    })
}

/// Row 4: something that comes after it is there.
fn later_exists(question: &Question, facts: &SegmentFacts, later: &str) -> Result<Answer, Need> {
    if question.asker == Asker::Recovery && !facts.waited {
        return Err(Need::Again);
    }
    Ok(Answer::unsure(4, Doubt::LaterExists(later.to_owned())))
}

/// Row 7: the segment in which, or at whose beginning, the target's lineage leaves its timeline.
fn fork_segment(
    question: &Question,
    facts: &SegmentFacts,
    target: TimelineId,
    (start, fork, end): (Lsn, Lsn, Lsn),
) -> Result<Answer, Need> {
    if question.asker == Asker::Recovery || fork == start {
        // The recovery ends at the fork, so it must be certain that its lineage has nothing more. (PostgreSQL
        // asks for the newer timeline's segment first; it may have come in between.) A standby asks again.
        let far = facts.far.as_ref().ok_or(Need::Far)?;
        if !far.troubles.is_empty() {
            return Ok(Answer::of_troubles(&far.troubles, facts.repositories));
        }
        if let Some(exists) = &far.descendants {
            return Ok(Answer::unsure(7, Doubt::GrownBeyondFork { target, exists: exists.clone() }));
        }
        // A timeline between this one and the target was itself left further on, so it was written.
        let between = match &facts.lineage {
            Some(Lineage::Known(lineage)) => lineage.entries().iter().find(|entry| entry.end > fork).cloned(),
            _ => None,
        };
        if let Some(between) = between {
            let exists = format!("timeline {} was left at {}", between.timeline, between.end);
            return Ok(Answer::unsure(7, Doubt::GrownBeyondFork { target, exists }));
        }
        let known_end =
            question.known_end.filter(|known| known.start(question.size).is_some_and(|at| at >= start));
        if let (Some(known), Some(Lineage::Known(lineage))) = (known_end, &facts.lineage) {
            // Planned beyond the fork: on the target itself, or on a timeline between.
            let beyond = known.timeline() == target || lineage.is_ancestor(known.timeline());
            let after = lineage.stretch_of(known.timeline()).is_some_and(|s| s.begin >= fork);
            if beyond && after {
                return Ok(Answer::unsure(5, Doubt::Existed(Proof::KnownEnd(known))));
            }
        }
        if fork == start {
            return Ok(Answer::not_there(7));
        }
    }
    let whole = facts.whole.as_ref().ok_or(Need::Whole)?;
    if whole.good {
        return Ok(Answer::serve(7, Source::Whole, Some(fork)));
    }
    let damaged = whole.troubles.iter().any(|t| t.kind == TroubleKind::Damaged);
    if !damaged && !whole.troubles.is_empty() {
        return Ok(Answer::of_troubles(&whole.troubles, facts.repositories));
    }
    let near = facts.near.as_ref().ok_or(Need::Near)?;
    if near.pieces {
        let pieces = facts.pieces.as_ref().ok_or(Need::Pieces)?;
        if pieces.reach.is_some_and(|reach| reach >= fork.min(end)) {
            return Ok(Answer::serve(7, Source::Pieces, Some(fork)));
        }
        if !damaged && !pieces.troubles.is_empty() {
            return Ok(Answer::of_troubles(&pieces.troubles, facts.repositories));
        }
    }
    let troubles = if damaged { &whole.troubles } else { &near.troubles };
    Ok(if troubles.is_empty() {
        Answer::unsure(5, Doubt::Existed(Proof::Fork { child: target, at: fork }))
    } else {
        Answer::of_troubles(troubles, facts.repositories)
    })
}
