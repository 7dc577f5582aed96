//! `check`: whether everything that a backup and a restore will rest on is as it should be, found out before.
//!
//! Gathers facts, judges them, and tells each finding with what to do about it. Nothing is changed but that the
//! server finishes a WAL segment, that the storage is tried out with objects that are removed again, and that this host's
//! cache has its folder where a passphrase will want it.

mod archiving;
mod arrival;
mod command_line;
mod finding;
mod host;
mod repositories;
mod retention;
mod server;

use super::archive_setting::archive_command;
use super::server::require_same;
use super::{Context, Outcome};
use crate::failure::{Class, Failure};
use crate::settings::{Settings, Value};
use crate::units::Stanza;
use archiving::Expected;
use finding::{Finding, Findings};
use server::{Conversation, Outside, ServerFacts};

pub(super) fn run(context: &Context<'_>) -> Result<Outcome, Failure> {
    let settings = context.settings;
    let stanza = settings.stanza()?;
    let configured = settings.all_repositories()?;
    let mut findings = Findings::new(context.report);

    let server = ask_server(context, &mut findings);
    let facts = server.as_ref().map(|(_, facts)| facts);
    stop_check(context)?;
    let mut archives = false;
    if let Some(facts) = facts {
        findings.extend(server::judge(facts));
        findings.extend(data_directory(facts, settings));
        let judged = archiving::judge(facts, &expected(settings, stanza));
        archives = judged.archives;
        findings.extend(judged.found);
    }
    let mut opened = Vec::new();
    for repository in &configured {
        stop_check(context)?;
        let cluster = facts.map(|facts| &facts.cluster);
        let (found, open) = repositories::check(context, repository, stanza, cluster);
        findings.extend(found);
        opened.extend(open);
    }
    findings.extend(configuration(facts, settings));
    findings.extend(host::check(settings, &configured));
    if let Some((mut conversation, facts)) = server {
        let waits = archives && settings.backup().archive_check;
        let found = if waits {
            arrival::check(context, &mut conversation, &facts, stanza, &opened)
        } else if archives {
            arrival::without_waiting(&mut conversation)
        } else {
            Ok(Vec::new())
        };
        match found {
            Ok(found) => findings.extend(found),
            Err(failure) if failure.class() == Class::Interrupted => return Err(failure),
            Err(failure) => findings.push(Finding::failed("arrival", &failure)),
        }
        if archives && !waits {
            findings.push(Finding::note(
                "arrival",
                "whether a fresh WAL segment arrives was not tried (archive-check=n)",
            ));
        }
        conversation.close();
    }
    findings.conclude(stanza.as_str())
}

fn stop_check(context: &Context<'_>) -> Result<(), Failure> {
    context.stop.check().map_err(|_| Failure::new(Class::Interrupted, "the check was interrupted"))
}

/// Without a server the repositories are looked at all the same.
fn ask_server(context: &Context<'_>, findings: &mut Findings<'_>) -> Option<(Conversation, ServerFacts)> {
    let asked =
        Conversation::open(&context.settings.server(1), context.report).and_then(|mut conversation| {
            let facts = conversation.facts(context.env)?;
            Ok((conversation, facts))
        });
    match asked {
        Ok(asked) => Some(asked),
        Err(failure) => {
            findings.push(Finding::failed("server", &failure));
            None
        }
    }
}

fn expected(settings: &Settings, stanza: &Stanza) -> Expected {
    let config = settings.get("config");
    Expected {
        stanza: stanza.to_string(),
        config: config.and_then(|setting| match &setting.value {
            Value::Path(path) => Some(std::path::absolute(path).unwrap_or_else(|_| path.clone())),
            _ => None,
        }),
        line: archive_command(settings),
    }
}

/// archive-push trusts pg1-path, a backup the server: both must mean one cluster.
fn data_directory(facts: &ServerFacts, settings: &Settings) -> Option<Finding> {
    let server = settings.server(1);
    let same = require_same(&facts.cluster, &facts.at.to_string(), &server.path?, server.index);
    same.err().map(|failure| Finding::failed("server", &failure))
}

/// Where the server may not say where its configuration lies, the data directory may show it.
fn configuration(facts: Option<&ServerFacts>, settings: &Settings) -> Option<Finding> {
    if facts.is_some_and(|facts| facts.outside != Outside::NotTold) {
        return None;
    }
    let Some(data) = settings.server(1).path else {
        let user = &facts?.user;
        return Some(
            Finding::note(
                "configuration",
                "whether configuration files lie outside the data directory, where no base backup holds them, is not told \
                 to this role",
            )
            .next(format!("To have it looked at: `grant pg_read_all_settings to {user}`."))
            .next("Or set pg1-path, if the data directory can be read on this host."),
        );
    };
    let there = |name: &str| data.join(name).try_exists().unwrap_or(true);
    // A directory that cannot be looked into tells nothing.
    if !there("PG_VERSION") {
        return None;
    }
    let lacking: Vec<&str> =
        ["postgresql.conf", "pg_hba.conf", "pg_ident.conf"].into_iter().filter(|name| !there(name)).collect();
    (!lacking.is_empty()).then(|| {
        Finding::warning(
            "configuration",
            format!(
                "configuration lies outside the data directory, where no base backup holds it: {}",
                lacking.join(", ")
            ),
        )
        .next(
            "Keep a copy where this host's end does not take it along; `show config_file` says where it is.",
        )
    })
}
