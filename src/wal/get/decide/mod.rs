//! The pure decision of `archive-get`: what is known goes in, what PostgreSQL is told comes out.
//!
//! PostgreSQL reads an answer of 1 as "the archive ends here" and promotes, so 1 is given only when that
//! is certain. The rows; each has a test of its own:
//!
//! | # | asked for | what is known, over all repositories | recovery | standby |
//! |---|---|---|---|---|
//! | 1 | segment | one repository has it and it verifies | 0 | 0 |
//! | 2 | segment | copies exist, none verifies | 200 | 1, loud |
//! | 3 | segment | absent where asked, a repository unreachable | 200 | 1 |
//! | 4 | T:n | absent, a later segment of T exists; listed again for 10 s, still absent | 200 | 1 |
//! | 5 | T:n | absent; a tail, a child's fork after its start, or known-end proves that it existed | 200 | 1 |
//! | 6 | A:n, A an ancestor of the target, n beyond the fork | whatever exists | 200 | 1 |
//! | 7 | A:n, n the fork's segment, nothing of the target's lineage from there on | bytes from the fork on are zero; with the fork on the border nothing is left: 1 | 0 | 0 |
//! | 8 | T:n, nothing later | tails or a partial valid past its start: put together, the rest zero; also with something later, when they lead to where this recovery stops (`--needed-to`) | 0 | 0 |
//! | 9 | T:n | nothing anywhere, every repository answered | 1 | 1 |
//! | 10 | N.history | present, or implied by a later history that lists N | 0 | 0 |
//! | 11 | N.history | absent, a later history or a folder from N on exists, not implied; 1 if N is above the target and unused | 200 | 1 |
//! | 12 | N.history | absent, nothing from N on; or N is 1, or the oldest timeline of all, which have none | 1 | 1 |
//! | 13 | any, not by a recovery (`pg_rewind`) | only the file as archived; absent | 1 | 1 |
//! | 14 | | bad arguments or settings, a panic, a newer format | 200 | 200 |
//! | 15 | | the store refuses or fails | 200 | 1, loud |
//! | 16 | segment | it creates a tablespace where another cluster of this version has its files ([`super::tablespaces`]) | 200 | 200 |
//! | 17 | segment | a record that may do that ends in it, and the segment before, in which it begins, is not to be had | 200 | 1, loud |
//!
//! Looking things up costs time, so a decision asks only for what it needs: [`segment`] and [`history`]
//! return `Err` with what comes next until the facts suffice. They read no clock and no store.

mod history;
mod segment;
#[cfg(test)]
mod tests;

pub use history::{HistoryFacts, StoredHistory, Timelines, history};
pub use segment::{Far, Lineage, Near, Pieces, SegmentFacts, segment};

use crate::postgres::history::TimelineHistory;
use crate::units::{Lsn, SegmentName, SegmentSize, TimelineId};
use crate::wal::CreatedTablespace;
use std::fmt;

/// Who asks, which decides what a doubt may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// A recovery: an answer of 1 ends it, one above 125 stops it.
    Recovery,
    /// A standby: it asks again, so that 1 costs nothing and an answer above 125 would end the server.
    Standby,
    /// `pg_rewind`, or a person: wants the file as it was archived, nothing cut, nothing assembled. Neither 1
    /// nor 200 makes it go on.
    Copier,
}

/// What is asked, apart from the file's name.
#[derive(Clone, Debug)]
pub struct Question {
    /// Who asks.
    pub asker: Asker,
    /// The timeline that the recovery follows, where `restore_command` says it.
    pub target: Option<TimelineId>,
    /// Without a target: the newest history that PostgreSQL itself keeps in `pg_wal`. It follows that timeline as
    /// a rule, but the file may be left from other days: good enough to stop, never to cut a segment.
    pub followed: Option<TimelineHistory>,
    /// The last complete segment that was archived when the recovery was planned.
    pub known_end: Option<SegmentName>,
    /// Where the recovery stops, where the plan found that only part of that segment is held.
    pub needed_to: Option<Lsn>,
    /// The cluster's segment size.
    pub size: SegmentSize,
}

/// Something that a decision has to know before it can go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Read and check the copies under the file's full name until one is good.
    Whole,
    /// Read the history of the target timeline.
    Lineage,
    /// List the folder that the segment would lie in.
    Near,
    /// List what lies beyond that folder, and the histories.
    Far,
    /// Read and check partial segments and tails.
    Pieces,
    /// Wait a moment and look for everything again: another process may be storing it just now.
    Again,
}

/// The same for a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HistoryNeed {
    /// Read and check the copies under its name until one is good.
    Whole,
    /// List and read the histories.
    Timelines,
}

/// What kind of trouble a repository gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TroubleKind {
    /// What it holds is not what was stored.
    Damaged,
    /// It does not answer just now.
    Unreachable,
    /// It refuses, or fails in a way that waiting does not mend.
    Refused,
    /// Asking again will not help: a newer version wrote it, or the settings or the key are wrong.
    Unusable,
}

/// One repository's trouble, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// `repo1`, …
    pub repository: String,
    /// What kind.
    pub kind: TroubleKind,
    /// What is wrong, without the repository's name.
    pub why: String,
}

/// What came of looking for a file under its full name in every repository, or until one copy was good.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Whole {
    /// A copy was found and every byte of it checked.
    pub good: bool,
    /// Repositories without a usable answer; those not named here do not have the file.
    pub troubles: Vec<Trouble>,
}

/// Where the bytes come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The copy under the full name.
    Whole,
    /// Partial segments and tails, put together, the rest zero.
    Pieces,
    /// What later histories say this one must be.
    Implied(TimelineHistory),
}

/// What PostgreSQL is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// 0: these bytes.
    Serve {
        /// Where they come from.
        source: Source,
        /// Bytes from here on are zero: they belong to a branch that the recovery does not follow.
        cut: Option<Lsn>,
    },
    /// 1: it is certain that the archive does not have it and never had.
    NotThere,
    /// 200, or 1 on a standby.
    Unsure(Doubt),
}

/// A verdict, and the row of the table that it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The row.
    pub row: u8,
    /// What it says.
    pub verdict: Verdict,
}

impl Answer {
    pub(super) const fn serve(row: u8, source: Source, cut: Option<Lsn>) -> Self {
        Self { row, verdict: Verdict::Serve { source, cut } }
    }

    pub(super) const fn not_there(row: u8) -> Self {
        Self { row, verdict: Verdict::NotThere }
    }

    pub(super) const fn unsure(row: u8, doubt: Doubt) -> Self {
        Self { row, verdict: Verdict::Unsure(doubt) }
    }

    /// What repositories in trouble come to: row 14 for a newer format or wrong settings, 2 where damage is what stands in
    /// the way, 15 when no repository gave an answer or one refused to, else 3.
    #[must_use]
    pub fn of_troubles(troubles: &[Trouble], repositories: usize) -> Self {
        let any = |kind| troubles.iter().any(|t| t.kind == kind);
        let row = if any(TroubleKind::Unusable) {
            14
        } else if any(TroubleKind::Damaged) {
            2
        } else if any(TroubleKind::Refused) || troubles.len() >= repositories {
            15
        } else {
            3
        };
        Self::unsure(row, Doubt::Troubles(troubles.to_vec()))
    }

    /// The exit code for `asker`.
    #[must_use]
    pub fn exit_code(&self, asker: Asker) -> u8 {
        match (&self.verdict, asker) {
            (Verdict::Serve { .. }, _) => 0,
            (Verdict::NotThere, _) => 1,
            // A standby asks again; that does not help against a newer format or wrong settings.
            (Verdict::Unsure(_), Asker::Standby) if !matches!(self.row, 14 | 16) => 1,
            (Verdict::Unsure(_), _) => 200,
        }
    }

    /// Whether the answer deserves a line in PostgreSQL's log. A miss does not: a standby asks every few seconds.
    #[must_use]
    pub fn is_loud(&self, asker: Asker) -> bool {
        match self.verdict {
            Verdict::Unsure(_) => asker != Asker::Standby || matches!(self.row, 2 | 14 | 15 | 16 | 17),
            _ => false,
        }
    }
}

/// Why nothing certain can be said. Displays as the part of a sentence after the file's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// Repositories gave no usable answer.
    Troubles(Vec<Trouble>),
    /// It is nowhere, but something that can only come after it is.
    LaterExists(String),
    /// It is nowhere, or only its beginning, and this proves that there was more of it.
    Existed(Proof),
    /// It lies beyond the point where the target timeline left its timeline.
    BeyondFork {
        /// The target.
        target: TimelineId,
        /// Where the target's lineage leaves the segment's timeline.
        fork: Lsn,
    },
    /// The target's lineage leaves its timeline in it or at its beginning, and the archive knows more of that lineage.
    GrownBeyondFork {
        /// The target.
        target: TimelineId,
        /// What there is.
        exists: String,
    },
    /// The history of the target timeline is not to be had, so that nobody can say whose the segment is.
    NoLineage {
        /// The target.
        target: TimelineId,
        /// What is wrong with its copies; empty where there are none.
        troubles: Vec<Trouble>,
    },
    /// Without knowing the target, half a segment may be given too much of or too little.
    TargetUnknown {
        /// A timeline that left it in this segment.
        child: TimelineId,
    },
    /// The history is absent, though this later timeline exists.
    LaterTimeline(TimelineId),
    /// Later histories contradict each other about it.
    Contradiction(TimelineId, TimelineId),
    /// The history of this timeline is not known, so that nobody can say where it begins.
    TimelineWithoutHistory(TimelineId),
    /// There are several with other contents under this name, and none of them is better than the others.
    Several,
    /// The name is one that no cluster with this segment size has.
    NoSuchName,
    /// Replaying it would link a tablespace to another cluster's files.
    TablespaceInUse(CreatedTablespace),
    /// It may do so by a record whose beginning is not to be had.
    TablespaceUnknown {
        /// The segment in which that begins.
        before: SegmentName,
        /// What is wrong with its copies; empty where there are none.
        troubles: Vec<Trouble>,
    },
}

/// What proves that WAL existed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Something in the archive, by name: a tail, a partial segment, a note of a base backup.
    Named(String),
    /// A timeline that left this one further on.
    Fork {
        /// The timeline.
        child: TimelineId,
        /// Where it left.
        at: Lsn,
    },
    /// It was there when the recovery was planned.
    KnownEnd(SegmentName),
}

/// `repo1 and repo2 (why)`, or each with its own reason.
pub(super) fn write_troubles(f: &mut fmt::Formatter<'_>, troubles: &[Trouble]) -> fmt::Result {
    let same = troubles.windows(2).all(|pair| matches!(pair, [a, b] if a.why == b.why));
    for (index, trouble) in troubles.iter().enumerate() {
        let joint = match index {
            0 => "",
            _ if index + 1 == troubles.len() => " and ",
            _ => ", ",
        };
        write!(f, "{joint}{}", trouble.repository)?;
        if !same {
            write!(f, " ({})", trouble.why)?;
        }
    }
    match troubles.first() {
        Some(first) if same => write!(f, " ({})", first.why),
        _ => Ok(()),
    }
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Troubles(troubles) => {
                let of = |kind| troubles.iter().filter(move |t| t.kind == kind).cloned().collect::<Vec<_>>();
                let mut joint = "";
                for (kind, words) in [
                    (TroubleKind::Unusable, "cannot be read from "),
                    (TroubleKind::Damaged, "is damaged in "),
                    (TroubleKind::Refused, "could not be looked for in "),
                    (TroubleKind::Unreachable, "could not be looked for in "),
                ] {
                    let those = of(kind);
                    if !those.is_empty() {
                        f.write_str(joint)?;
                        f.write_str(words)?;
                        write_troubles(f, &those)?;
                        joint = "; it ";
                    }
                }
                Ok(())
            }
            Self::LaterExists(name) => write!(f, "is in no repository, though {name} is"),
            Self::Existed(Proof::Named(name)) => {
                write!(f, "is in no repository as far as {name} shows that it was written")
            }
            Self::Existed(Proof::Fork { child, at }) => {
                write!(f, "is in no repository, though timeline {child} left its timeline at {at}")
            }
            Self::Existed(Proof::KnownEnd(name)) => {
                write!(
                    f,
                    "is in no repository, though the archive reached {name} when this recovery was planned"
                )
            }
            Self::BeyondFork { target, fork } => {
                write!(f, "belongs to a dead branch: timeline {target} left its timeline at {fork}")
            }
            Self::GrownBeyondFork { target, exists } => {
                write!(
                    f,
                    "is where the way to timeline {target} leaves its timeline, and there is more of it ({exists})"
                )
            }
            Self::NoLineage { target, troubles } if troubles.is_empty() => {
                write!(f, "cannot be judged: {} is in no repository", target.history_name())
            }
            Self::NoLineage { target, troubles } => {
                write!(f, "cannot be judged: {} is not readable in ", target.history_name())?;
                write_troubles(f, troubles)
            }
            Self::TargetUnknown { child } => write!(
                f,
                "is where timeline {child} left its timeline, and only part of it may be right: say with \
                 --target-timeline which one this recovery follows"
            ),
            Self::LaterTimeline(timeline) => {
                write!(
                    f,
                    "is in no repository, though timeline {timeline} is, and nothing tells what it must say"
                )
            }
            Self::Contradiction(a, b) => {
                write!(
                    f,
                    "is not to be had, and {} and {} contradict each other about it",
                    a.history_name(),
                    b.history_name()
                )
            }
            Self::TimelineWithoutHistory(timeline) => {
                write!(
                    f,
                    "is in no repository, but {} is not readable either, so that timeline {timeline} may have left its timeline later",
                    timeline.history_name()
                )
            }
            Self::Several => f.write_str("is in the archive several times with different contents"),
            Self::TablespaceInUse(tablespace) => write!(
                f,
                "creates tablespace {} in {}, where another cluster has its files",
                tablespace.oid, tablespace.location
            ),
            Self::TablespaceUnknown { before, troubles } => {
                write!(
                    f,
                    "begins with the end of a record that may create a tablespace, and {before}, in which that begins, "
                )?;
                if troubles.is_empty() {
                    return f.write_str("is in no repository");
                }
                f.write_str("could not be read from ")?;
                write_troubles(f, troubles)
            }
            Self::NoSuchName => f.write_str("is no name of a segment of this cluster"),
        }
    }
}
