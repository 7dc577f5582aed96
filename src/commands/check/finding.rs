//! One thing that was looked at, and what came of it.

use crate::commands::Outcome;
use crate::failure::{Class, Failure};
use crate::report::Report;
use serde_json::{Value, json};

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// As it should be.
    Ok,
    /// Good to know; no reason for another exit code than 0.
    Note,
    /// Works today, and will be regretted.
    Warning,
    /// Does not work.
    Error(Class),
}

impl Level {
    const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error(_) => "error",
        }
    }
}

/// A finding in a person's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub level: Level,
    /// What it is about, for programs: stable, one of the words of the manual page.
    pub topic: &'static str,
    /// The repository it is about.
    pub repository: Option<u16>,
    pub text: String,
    pub because: Vec<String>,
    pub next: Vec<String>,
}

impl Finding {
    fn new(level: Level, topic: &'static str, text: impl Into<String>) -> Self {
        Self { level, topic, repository: None, text: text.into(), because: Vec::new(), next: Vec::new() }
    }

    pub(super) fn ok(topic: &'static str, text: impl Into<String>) -> Self {
        Self::new(Level::Ok, topic, text)
    }

    pub(super) fn note(topic: &'static str, text: impl Into<String>) -> Self {
        Self::new(Level::Note, topic, text)
    }

    pub(super) fn warning(topic: &'static str, text: impl Into<String>) -> Self {
        Self::new(Level::Warning, topic, text)
    }

    pub(super) fn error(topic: &'static str, class: Class, text: impl Into<String>) -> Self {
        Self::new(Level::Error(class), topic, text)
    }

    /// What another command would have ended with.
    pub(super) fn failed(topic: &'static str, failure: &Failure) -> Self {
        let mut finding = Self::error(topic, failure.class(), failure.what());
        finding.because = failure.reasons().to_vec();
        finding.next = failure.steps().to_vec();
        finding
    }

    pub(super) fn of(mut self, repository: u16) -> Self {
        self.repository = Some(repository);
        self
    }

    pub(super) fn because(mut self, why: impl Into<String>) -> Self {
        self.because.push(why.into());
        self
    }

    pub(super) fn next(mut self, step: impl Into<String>) -> Self {
        self.next.push(step.into());
        self
    }

    /// As a person reads it: the level in its own column, then what, why and what to do.
    pub(super) fn line(&self) -> String {
        let mut lines = format!("{:<9}{}\n", self.level.word(), self.text.replace('\n', " "));
        for why in &self.because {
            lines.push_str(&format!("           because: {}\n", why.replace('\n', " ")));
        }
        for step in &self.next {
            lines.push_str(&format!("           next: {step}\n"));
        }
        lines
    }

    fn json(&self) -> Value {
        let exit_code = match self.level {
            Level::Ok | Level::Note => 0,
            Level::Warning => Class::DoneWithWarnings.exit_code(),
            Level::Error(class) => class.exit_code(),
        };
        json!({
            "level": self.level.word(),
            "topic": self.topic,
            "repository": self.repository,
            "text": self.text,
            "because": self.because,
            "next": self.next,
            "exit_code": exit_code,
        })
    }
}

/// All findings of a run. In text each is shown as soon as it is known: some have to be waited for.
pub(super) struct Findings<'a> {
    report: &'a Report,
    found: Vec<Finding>,
    trouble: std::io::Result<()>,
}

impl<'a> Findings<'a> {
    pub(super) fn new(report: &'a Report) -> Self {
        Self { report, found: Vec::new(), trouble: Ok(()) }
    }

    pub(super) fn push(&mut self, finding: Finding) {
        if !self.report.is_json() && self.trouble.is_ok() {
            self.trouble = self.report.data(finding.line());
        }
        self.found.push(finding);
    }

    pub(super) fn extend(&mut self, findings: impl IntoIterator<Item = Finding>) {
        findings.into_iter().for_each(|finding| self.push(finding));
    }

    /// The sum, and how the command ends.
    pub(super) fn conclude(self, stanza: &str) -> Result<Outcome, Failure> {
        let sum = Sum::of(&self.found);
        let shown = self.trouble.and_then(|()| {
            if self.report.is_json() {
                self.report.json(&document(stanza, &self.found, &sum))
            } else {
                self.report.data(format!("{}\n", sum.line()))
            }
        });
        shown.map_err(crate::commands::no_stdout)?;
        sum.outcome()
    }
}

/// Keys are stable; more may come.
fn document(stanza: &str, found: &[Finding], sum: &Sum<'_>) -> Value {
    json!({
        "stanza": stanza,
        "status": if sum.errors > 0 { "errors" } else if sum.warnings > 0 { "warnings" } else { "ok" },
        "warnings": sum.warnings,
        "errors": sum.errors,
        "findings": found.iter().map(Finding::json).collect::<Vec<_>>(),
    })
}

struct Sum<'a> {
    warnings: usize,
    errors: usize,
    first: Option<(Class, &'a Finding)>,
}

impl<'a> Sum<'a> {
    fn of(found: &'a [Finding]) -> Self {
        let mut sum = Self { warnings: 0, errors: 0, first: None };
        for finding in found {
            match finding.level {
                Level::Ok | Level::Note => {}
                Level::Warning => sum.warnings += 1,
                Level::Error(class) => {
                    sum.errors += 1;
                    sum.first = sum.first.or(Some((class, finding)));
                }
            }
        }
        sum
    }

    fn line(&self) -> String {
        let count = |number: usize, what: &str| match number {
            0 => None,
            1 => Some(format!("1 {what}")),
            _ => Some(format!("{number} {what}s")),
        };
        let parts: Vec<String> =
            [count(self.warnings, "warning"), count(self.errors, "error")].into_iter().flatten().collect();
        if parts.is_empty() { "all is well".to_owned() } else { parts.join(", ") }
    }

    fn outcome(&self) -> Result<Outcome, Failure> {
        match self.first {
            Some((class, finding)) => {
                Err(Failure::new(class, format!("check found {}", self.line())).because_text(&*finding.text))
            }
            None if self.warnings > 0 => Ok(Outcome::DoneWithWarnings),
            None => Ok(Outcome::Done),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_error_decides_the_exit_code_and_warnings_alone_are_50() {
        let warning = Finding::warning("settings", "fsync is off").next("Turn it on.");
        let lost = Finding::error("arrival", Class::WalMissing, "a segment did not arrive");
        let gone = Finding::error("repository", Class::NoRepository, "there is none").because("it is gone");
        let all =
            [warning.clone(), lost, gone, Finding::ok("server", "answers"), Finding::note("role", "so")];
        let sum = Sum::of(&all);
        assert_eq!(sum.line(), "1 warning, 2 errors");
        let failure = sum.outcome().unwrap_err();
        assert_eq!(failure.class(), Class::WalMissing);
        assert_eq!(
            failure.to_string(),
            "error: check found 1 warning, 2 errors\n  because: a segment did not arrive"
        );
        assert_eq!(Sum::of(&[warning]).outcome().unwrap(), Outcome::DoneWithWarnings);
        let fine = Sum::of(&all[3..]);
        assert_eq!((fine.line(), fine.outcome().unwrap()), ("all is well".to_owned(), Outcome::Done));
    }

    #[test]
    fn steps_stand_below_what_they_are_for() {
        let finding =
            Finding::warning("settings", "fsync is off").because("somebody\nhurried").next("Turn it on.");
        assert_eq!(
            finding.line(),
            "warning  fsync is off\n           because: somebody hurried\n           next: Turn it on.\n"
        );
    }
}
