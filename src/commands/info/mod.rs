//! `info`: what there is, and which moments one can go back to.
//!
//! Looks at every repository; one that cannot be opened, or a record that cannot be read, is shown as that
//! and hides nothing else.

mod json;
mod text;
mod view;
pub(super) mod windows;

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests damage files on purpose")]
mod tests;

use super::open::open_repository;
use super::{Context, Outcome, no_stdout};
use crate::failure::{Class, Failure};
use crate::report::render;
use crate::settings::{RepositoryKind, RepositorySettings};
use crate::units::Stanza;
use std::collections::BTreeSet;
use view::{Opened, Overview, StanzaView, look, reason};

pub(super) fn run(context: &Context<'_>) -> Result<Outcome, Failure> {
    let overview = overview(context)?;
    let partial = overview.stanzas.iter().any(StanzaView::is_partial);
    let written = match context.settings.set() {
        _ if context.report.is_json() => {
            context.report.json(&json::document(&overview, context.settings.set()))
        }
        None => context.report.data(text::overview(&overview, &render::local_zone())),
        Some(set) => context.report.data(text::one_backup(&overview, set, &render::local_zone())?),
    };
    written.map_err(no_stdout)?;
    Ok(if partial { Outcome::DoneWithWarnings } else { Outcome::Done })
}

/// Where a repository is, also when it cannot be opened.
pub(super) fn place_of(settings: &RepositorySettings) -> String {
    match &settings.kind {
        RepositoryKind::Posix { path } => path.display().to_string(),
        RepositoryKind::Bucket(bucket) => bucket.place(),
    }
}

fn overview(context: &Context<'_>) -> Result<Overview, Failure> {
    let (opened, unopened, failures) = open_all(context)?;
    let mut names = BTreeSet::new();
    let mut unlisted = Vec::new();
    match context.settings.named_stanza() {
        Some(stanza) => {
            names.insert(stanza.clone());
        }
        None => {
            for one in &opened {
                match one.repository.stanzas() {
                    Ok(stanzas) => names.extend(stanzas),
                    Err(error) => unlisted.push(reason(error, &one.settings)),
                }
            }
        }
    }
    let now = context.env.now();
    let stanzas: Vec<StanzaView> =
        names.iter().map(|stanza| look(stanza, &opened, &unopened)).filter(StanzaView::may_exist).collect();
    if stanzas.is_empty() {
        return Err(nothing(context.settings.named_stanza(), &opened, failures, &unlisted));
    }
    for failure in &failures {
        context.report.warn(failure.one_line());
    }
    Ok(Overview { now, stanzas })
}

type Opening = (Vec<Opened>, Vec<(RepositorySettings, String)>, Vec<Failure>);

/// Opens what can be opened.
fn open_all(context: &Context<'_>) -> Result<Opening, Failure> {
    let (mut opened, mut unopened, mut failures) = (Vec::new(), Vec::new(), Vec::new());
    for settings in context.settings.repositories()? {
        match open_repository(&settings) {
            Ok(repository) => opened.push(Opened { settings, repository }),
            Err(failure) => {
                let why = match failure.reasons() {
                    [] => failure.what().to_owned(),
                    reasons => reasons.join(": "),
                };
                unopened.push((settings, why));
                failures.push(failure);
            }
        }
    }
    if opened.is_empty() {
        let mut failures = failures.into_iter();
        let Some(first) = failures.next() else {
            return Err(Failure::new(Class::Usage, "no repository is configured"));
        };
        failures.for_each(|failure| context.report.failure(&failure));
        return Err(first);
    }
    Ok((opened, unopened, failures))
}

/// There is no stanza to show.
fn nothing(
    named: Option<&Stanza>,
    opened: &[Opened],
    failures: Vec<Failure>,
    unlisted: &[String],
) -> Failure {
    let places: Vec<String> =
        opened.iter().map(|one| format!("{} ({})", one.settings.name(), one.repository.describe())).collect();
    // What could not be looked into may hold it.
    if let Some(failure) = failures.into_iter().next() {
        return failure.because_text(format!("and {} holds no such stanza", places.join(", ")));
    }
    let what =
        named.map_or_else(|| "there is no stanza".to_owned(), |name| format!("there is no stanza {name}"));
    let failure =
        Failure::new(Class::NoRepository, what).because_text(format!("looked in {}", places.join(", ")));
    let failure = unlisted.iter().fold(failure, |failure, why| failure.because_text(why.as_str()));
    match named {
        Some(name) => failure
            .next(format!("`walden --stanza={name} stanza-create` makes it."))
            .next("`walden info` without a stanza shows all there are."),
        None => failure.next("`walden --stanza=NAME stanza-create` makes one."),
    }
}
