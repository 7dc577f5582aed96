//! The repositories that are asked, opened only when it is their turn.

use super::decide::{Trouble, TroubleKind};
use crate::repo::{RepoError, Repository, layout};
use crate::storage::{Key, StoreErrorKind};
use crate::units::{Stanza, SystemIdentifier};
use crate::wal::{ClusterWal, WalError};
use std::cell::OnceCell;

/// Opens a repository.
pub type Open<'a> = Box<dyn Fn() -> Result<Repository, Trouble> + 'a>;

/// One repository, in the order in which they are asked.
pub struct Candidate<'a> {
    name: String,
    open: Open<'a>,
    opened: OnceCell<Result<Repository, Trouble>>,
    has_cluster: OnceCell<Result<(), Trouble>>,
}

impl std::fmt::Debug for Candidate<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Candidate({})", self.name)
    }
}

impl<'a> Candidate<'a> {
    /// The repository that people know by `name` (`repo1`), opened by `open` when it is first needed.
    pub fn new(name: impl Into<String>, open: Open<'a>) -> Self {
        Self { name: name.into(), open, opened: OnceCell::new(), has_cluster: OnceCell::new() }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The repository, opened at the first call. One that could not be opened is not tried again.
    ///
    /// # Errors
    /// What stood in the way.
    pub fn repository(&self) -> Result<&Repository, Trouble> {
        self.opened.get_or_init(|| (self.open)()).as_ref().map_err(Clone::clone)
    }

    /// Makes sure that the repository knows the cluster: one that never heard of it cannot say that a file of
    /// its is not there. Needs no key, looks once.
    ///
    /// # Errors
    /// That it does not, or what stood in the way.
    pub fn knows_cluster(&self, stanza: &Stanza, system: SystemIdentifier) -> Result<(), Trouble> {
        let look = || {
            let repo = self.repository()?;
            let place = layout::cluster(stanza, system).map_err(|e| self.trouble(&e.into()))?;
            match repo.store().size(&place.key) {
                Ok(Some(_)) => Ok(()),
                Ok(None) => Err(Trouble {
                    repository: self.name.clone(),
                    kind: TroubleKind::Refused,
                    why: format!("it has no cluster {system} in stanza {stanza}"),
                }),
                Err(error) => Err(self.trouble(&error.into())),
            }
        };
        self.has_cluster.get_or_init(look).clone()
    }

    /// The cluster's WAL in it.
    ///
    /// # Errors
    /// As [`Candidate::repository`].
    pub fn wal<'b>(
        &'b self,
        stanza: &'b Stanza,
        system: SystemIdentifier,
    ) -> Result<ClusterWal<'b>, Trouble> {
        Ok(ClusterWal { repo: self.repository()?, stanza, system })
    }

    /// What an error of this repository means for the decision.
    #[must_use]
    pub fn trouble(&self, error: &RepoError) -> Trouble {
        Trouble { repository: self.name.clone(), kind: kind_of(error), why: words(error) }
    }

    /// The same for what WAL objects may do. `None` when it says that the object `key` itself is not there.
    #[must_use]
    pub fn wal_trouble(&self, key: &Key, error: &WalError) -> Option<Trouble> {
        match error {
            WalError::Repo(RepoError::Missing { object }) if object == key => None,
            WalError::Repo(error) => Some(self.trouble(error)),
            other => Some(Trouble {
                repository: self.name.clone(),
                kind: TroubleKind::Damaged,
                why: other.to_string(),
            }),
        }
    }

    /// Damage that was found in what it gave.
    #[must_use]
    pub fn damaged(&self, why: impl Into<String>) -> Trouble {
        Trouble { repository: self.name.clone(), kind: TroubleKind::Damaged, why: why.into() }
    }
}

fn kind_of(error: &RepoError) -> TroubleKind {
    match error {
        // A part or a key that must be there is gone.
        RepoError::Damaged { .. } | RepoError::Missing { .. } | RepoError::Conflict { .. } => {
            TroubleKind::Damaged
        }
        RepoError::Store(error) if error.kind == StoreErrorKind::Unavailable => TroubleKind::Unreachable,
        // A disk that is not mounted looks like no repository.
        RepoError::Store(_)
        | RepoError::NoRepository { .. }
        | RepoError::Spool(_)
        | RepoError::Randomness(_) => TroubleKind::Refused,
        _ => TroubleKind::Unusable,
    }
}

/// What happened, without the name of an object that stands in the sentence already.
fn words(error: &RepoError) -> String {
    use std::error::Error as _;
    let mut text = match error {
        RepoError::Damaged { why, .. } => return why.clone(),
        other => other.to_string(),
    };
    let mut below = error.source();
    while let Some(cause) = below {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        below = cause.source();
    }
    text
}
