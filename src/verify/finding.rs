//! What is found wrong, and what it comes to.

use super::VerifyError;
use crate::repo::RepoError;
use crate::storage::StoreErrorKind;
use std::error::Error;
use std::fmt::Display;

/// So many problems of one backup or timeline are kept; the others are counted.
const MOST_PROBLEMS: usize = 1000;
/// So many files of one problem are kept; the others are counted.
const MOST_FILES: usize = 50;

/// What is wrong with an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wrong {
    /// It could not be read: the store failed, or a newer walden wrote it.
    NotChecked,
    /// It must be there and is not.
    Missing,
    /// It is not what was stored.
    Damaged,
}

/// A file that a damaged object holds a part of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Affected {
    /// Relative to the data directory; what is no UTF-8 is shown as such.
    pub path: String,
    /// The first and the last page of it, counted in the file; `None` for what does not consist of pages.
    pub blocks: Option<(u64, u64)>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What kind of thing.
    pub wrong: Wrong,
    /// The object's key.
    pub object: String,
    /// In words, without the key.
    pub why: String,
    /// Files of the backup that lie in it.
    pub affected: Vec<Affected>,
    /// How many more.
    pub more_affected: u64,
}

impl Problem {
    pub(super) fn new(wrong: Wrong, object: impl Display, why: impl Into<String>) -> Self {
        Self { wrong, object: object.to_string(), why: why.into(), affected: Vec::new(), more_affected: 0 }
    }

    pub(super) fn damaged(object: impl Display, why: impl Into<String>) -> Self {
        Self::new(Wrong::Damaged, object, why)
    }

    pub(super) fn missing(object: impl Display) -> Self {
        Self::new(Wrong::Missing, object, "it is missing")
    }

    /// What an error says. `object` is meant where it names none.
    ///
    /// # Errors
    /// [`VerifyError`] for what is not the repository's trouble but ours.
    pub(super) fn of(error: RepoError, object: &impl Display) -> Result<Self, VerifyError> {
        Ok(match error {
            RepoError::Damaged { object, why } => Self::damaged(object, why),
            RepoError::Missing { object } => Self::missing(object),
            RepoError::Store(error) if error.kind == StoreErrorKind::NotFound => Self::missing(object),
            RepoError::Spool(error) => return Err(VerifyError::Spool(error)),
            other => Self::new(Wrong::NotChecked, object, with_causes(&other)),
        })
    }

    /// Adds a file; neighbouring pages of one file become one stretch.
    pub(super) fn add(&mut self, path: &[u8], blocks: Option<(u64, u64)>) {
        let path = String::from_utf8_lossy(path);
        if let Some(last) = self.affected.last_mut().filter(|last| last.path == path) {
            match (&mut last.blocks, blocks) {
                (None, _) => return,
                (Some(held), Some((first, end))) if held.1.saturating_add(1) >= first && first >= held.0 => {
                    held.1 = held.1.max(end);
                    return;
                }
                _ => {}
            }
        }
        if self.affected.len() < MOST_FILES {
            self.affected.push(Affected { path: path.into_owned(), blocks });
        } else {
            self.more_affected += 1;
        }
    }
}

/// So many strays are named; the others are counted.
const MOST_STRAYS: usize = 20;

/// Objects that nothing which was looked at knows of. No harm: what a crash leaves, or a later version wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Strays {
    /// The first ones.
    pub named: Vec<String>,
    /// How many there are.
    pub count: u64,
}

impl Strays {
    pub(super) fn add(&mut self, key: &impl Display) {
        self.count += 1;
        if self.named.len() < MOST_STRAYS {
            self.named.push(key.to_string());
        }
    }

    pub(super) fn extend(&mut self, other: Self) {
        self.count += other.count;
        let room = MOST_STRAYS.saturating_sub(self.named.len());
        self.named.extend(other.named.into_iter().take(room));
    }
}

/// An error and what caused it, in one line.
pub(super) fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut below = error.source();
    while let Some(cause) = below {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        below = cause.source();
    }
    text
}

/// What everything that was found comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// All that was asked for was read, and is what was stored.
    Good,
    /// Nothing wrong was found, but not everything could be read.
    NotChecked,
    /// Something is missing.
    Incomplete,
    /// Something is damaged.
    Damaged,
}

impl Verdict {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::NotChecked => "not checked",
            Self::Incomplete => "incomplete",
            Self::Damaged => "damaged",
        }
    }
}

/// Problems, the first ones found in full, and how many there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    problems: Vec<Problem>,
    count: u64,
    worst: Option<Wrong>,
}

impl Findings {
    pub(super) fn push(&mut self, problem: Problem) {
        self.count += 1;
        self.worst = self.worst.max(Some(problem.wrong));
        if self.problems.len() < MOST_PROBLEMS {
            self.problems.push(problem);
        }
    }

    /// The problems, at most 1,000.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// How many there are beyond those.
    #[must_use]
    pub fn more(&self) -> u64 {
        self.count - self.problems.len() as u64
    }

    /// What they come to.
    #[must_use]
    pub const fn verdict(&self) -> Verdict {
        match self.worst {
            None => Verdict::Good,
            Some(Wrong::NotChecked) => Verdict::NotChecked,
            Some(Wrong::Missing) => Verdict::Incomplete,
            Some(Wrong::Damaged) => Verdict::Damaged,
        }
    }
}
