//! What a person reads when something went wrong: what happened, why, and what to do next.
//!
//! Only `commands` and `cli` build a [`Failure`]; engines return their own error enums. The texts are
//! part of the interface (golden tests), and so are the exit codes: PostgreSQL reads them.

use std::error::Error;
use std::fmt;

/// What kind of failure it is, which decides the exit code. Codes are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// 1: `archive-get` found with certainty that the file is not in the archive.
    NotInArchive,
    /// 2: the command line or a setting is wrong.
    Usage,
    /// 10: there is no repository or no such stanza.
    NoRepository,
    /// 11: another process holds what is needed.
    Locked,
    /// 12: the key is not the one the repository was made with, or none was given.
    KeyRejected,
    /// 20: PostgreSQL cannot be reached.
    PostgresUnreachable,
    /// 21: the server is not the cluster this stanza holds.
    NotThisCluster,
    /// 22: PostgreSQL refuses, or is not set up for it.
    PostgresRefuses,
    /// 30: the storage is unavailable; trying again may help.
    StorageUnavailable,
    /// 31: the local file system: full, no rights.
    LocalFileSystem,
    /// 40: stored data is damaged.
    Damaged,
    /// 41: the same WAL name with other contents.
    WalConflict,
    /// 42: WAL that is needed is missing.
    WalMissing,
    /// 43: the recovery target cannot be reached.
    TargetUnreachable,
    /// 44: the target directory is refused.
    DirectoryRefused,
    /// 50: done, with warnings to read.
    DoneWithWarnings,
    /// 70: a bug in walden.
    Bug,
    /// 71: `archive-push` was interrupted.
    Interrupted,
    /// 200: `archive-get` could not find out. Above 125, so that PostgreSQL stops instead of ending recovery.
    CouldNotFindOut,
}

impl Class {
    /// Every class with its exit code and the words for the man page, in the order of the codes.
    pub const ALL: &'static [(Self, u8, &'static str)] = &[
        (Self::NotInArchive, 1, "archive-get: certainly not in the archive"),
        (Self::Usage, 2, "wrong usage or setting"),
        (Self::NoRepository, 10, "no repository or no such stanza"),
        (Self::Locked, 11, "locked by another process"),
        (Self::KeyRejected, 12, "key rejected or missing"),
        (Self::PostgresUnreachable, 20, "PostgreSQL cannot be reached"),
        (Self::NotThisCluster, 21, "not the cluster that this stanza holds"),
        (Self::PostgresRefuses, 22, "PostgreSQL refuses or is not set up for it"),
        (Self::StorageUnavailable, 30, "storage unavailable, trying again may help"),
        (Self::LocalFileSystem, 31, "local file system: full, no rights"),
        (Self::Damaged, 40, "stored data is damaged"),
        (Self::WalConflict, 41, "same WAL name, other contents"),
        (Self::WalMissing, 42, "WAL that is needed is missing"),
        (Self::TargetUnreachable, 43, "recovery target cannot be reached"),
        (Self::DirectoryRefused, 44, "target directory refused"),
        (Self::DoneWithWarnings, 50, "done, with warnings to read"),
        (Self::Bug, 70, "a bug in walden"),
        (Self::Interrupted, 71, "archive-push was interrupted"),
        (Self::CouldNotFindOut, 200, "archive-get: could not find out"),
    ];

    /// The exit code.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        Self::ALL.iter().find(|(class, ..)| *class == self).map_or(70, |(_, code, _)| *code)
    }
}

/// A failure in a person's words.
///
/// The first line says what could not be done: lower case, no full stop, "could not" where trying again
/// may help, "cannot" where it never will. Then the chain of causes, then steps that are safe for everyone.
#[derive(Debug)]
pub struct Failure {
    class: Class,
    what: String,
    because: Vec<String>,
    next: Vec<String>,
    others: Vec<Failure>,
}

/// So many mistakes are shown at once; the others come up when these are mended.
const SHOWN_AT_ONCE: usize = 30;

impl Failure {
    /// A failure of `class`: `what` is the first line without "error: ".
    #[must_use]
    pub fn new(class: Class, what: impl Into<String>) -> Self {
        Self { class, what: what.into(), because: Vec::new(), next: Vec::new(), others: Vec::new() }
    }

    /// Several failures of one run as one, of the first one's class; `None` when there are none.
    #[must_use]
    pub fn all(failures: Vec<Self>) -> Option<Self> {
        let mut failures = failures.into_iter();
        let mut first = failures.next()?;
        first.others.extend(failures);
        Some(first)
    }

    /// Adds `cause` and every error below it, one line each.
    #[must_use]
    pub fn because(mut self, cause: impl Error) -> Self {
        self.because.push(cause.to_string());
        let mut below = cause.source();
        while let Some(error) = below {
            self.because.push(error.to_string());
            below = error.source();
        }
        self
    }

    /// Adds a reason that is a sentence of ours rather than an error.
    #[must_use]
    pub fn because_text(mut self, reason: impl Into<String>) -> Self {
        self.because.push(reason.into());
        self
    }

    /// Adds a step to take next.
    #[must_use]
    pub fn next(mut self, step: impl Into<String>) -> Self {
        self.next.push(step.into());
        self
    }

    /// The class, and with it the exit code.
    #[must_use]
    pub const fn class(&self) -> Class {
        self.class
    }

    /// The same failure under another class (the get path turns everything into 1 or 200).
    #[must_use]
    pub const fn with_class(mut self, class: Class) -> Self {
        self.class = class;
        self
    }

    /// The first line without "error: ".
    #[must_use]
    pub fn what(&self) -> &str {
        &self.what
    }

    /// The reasons, outermost first.
    #[must_use]
    pub fn reasons(&self) -> &[String] {
        &self.because
    }

    /// The steps to take next.
    #[must_use]
    pub fn steps(&self) -> &[String] {
        &self.next
    }

    /// What and why on a single line, for PostgreSQL's log.
    #[must_use]
    pub fn one_line(&self) -> String {
        let mut line = self.what.clone();
        for reason in &self.because {
            line.push_str(": ");
            line.push_str(reason);
        }
        if !self.others.is_empty() {
            line.push_str(&format!(" (and {} more)", self.others.len()));
        }
        line.replace(['\n', '\r'], " ")
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.what)?;
        for reason in &self.because {
            write!(f, "\n  because: {}", reason.replace('\n', "\n           "))?;
        }
        for step in &self.next {
            write!(f, "\n  next: {step}")?;
        }
        for other in self.others.iter().take(SHOWN_AT_ONCE) {
            write!(f, "\n{other}")?;
        }
        match self.others.len().saturating_sub(SHOWN_AT_ONCE) {
            0 => Ok(()),
            more => write!(f, "\n({more} more)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Outer(std::io::Error);
    impl fmt::Display for Outer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("the journal cannot be read")
        }
    }
    impl Error for Outer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn a_failure_says_what_why_and_what_next() {
        let failure = Failure::new(Class::Damaged, "cannot do it")
            .because(Outer(std::io::Error::other("disk on fire")))
            .next("Call the fire brigade.");
        assert_eq!(
            failure.to_string(),
            "error: cannot do it\n  because: the journal cannot be read\n  because: disk on fire\n  next: Call the fire brigade."
        );
        assert_eq!(failure.one_line(), "cannot do it: the journal cannot be read: disk on fire");
        assert_eq!(failure.class().exit_code(), 40);
    }

    #[test]
    fn codes_are_unique_and_only_the_get_path_goes_above_125() {
        let mut codes: Vec<u8> = Class::ALL.iter().map(|(_, code, _)| *code).collect();
        assert!(codes.is_sorted());
        codes.dedup();
        assert_eq!(codes.len(), Class::ALL.len());
        assert_eq!(codes.iter().filter(|code| **code > 125).copied().collect::<Vec<_>>(), [200]);
    }
}
