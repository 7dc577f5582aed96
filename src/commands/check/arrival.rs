//! Whether a WAL segment of this server really arrives in each repository.
//!
//! Where the role may, the server is made to finish a segment, and that one is awaited. Otherwise the last one that
//! it finished must be there, or the next must come.

use super::finding::Finding;
use super::repositories::Opened;
use super::server::{Archiver, Conversation, ServerFacts};
use crate::backup::missing;
use crate::commands::Context;
use crate::commands::open::repository_failure;
use crate::failure::{Class, Failure};
use crate::report::render;
use crate::units::{SegmentName, Stanza};
use crate::wal::ClusterWal;
use std::time::{Duration, Instant};

const TOPIC: &str = "arrival";
/// How long between two looks at the repositories.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// The archiver tries a segment three times and then sleeps for a minute (`NUM_ARCHIVE_RETRIES`, pgarch.c): more
/// waiting shows nothing.
const FAILURES_THAT_SETTLE_IT: u64 = 3;

/// What is waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Awaited {
    /// The server finished this one when it was asked to.
    Fresh(SegmentName),
    /// The server may not be asked: the last that it finished, if it could be told, or the one that it writes now.
    Any { last: Option<SegmentName>, current: SegmentName },
}

/// What came of the waiting in one repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Came {
    pub repository: u16,
    /// Which segment, and after how long.
    pub arrived: Option<(SegmentName, Duration)>,
    /// Why it could not be looked for.
    pub trouble: Option<String>,
}

/// What is known at the end.
#[derive(Clone, Debug)]
pub(super) struct Waited {
    pub awaited: Awaited,
    pub came: Vec<Came>,
    pub waited: Duration,
    pub archiver: Option<Archiver>,
    /// Whether the server finished a segment since the waiting began.
    pub finished_more: bool,
    pub user: String,
    pub takes_sql: bool,
}

/// Waits, at most as long as archive-timeout says, and says what came of it.
pub(super) fn check(
    context: &Context<'_>,
    conversation: &mut Conversation,
    facts: &ServerFacts,
    stanza: &Stanza,
    opened: &[Opened],
) -> Result<Vec<Finding>, Failure> {
    if opened.is_empty() {
        return Ok(Vec::new());
    }
    let patience = context.settings.backup().archive_timeout;
    let failed_before = archiver(conversation)?.map_or(0, |archiver| archiver.failures);
    let awaited = match conversation.switch(facts) {
        Ok(Some(segment)) => Awaited::Fresh(segment),
        Ok(None) => unasked(facts),
        Err(error) => return Err(conversation.failure(error)),
    };
    let began = Instant::now();
    let mut came: Vec<Came> = opened
        .iter()
        .map(|one| Came { repository: one.settings.index, arrived: None, trouble: None })
        .collect();
    let phase = context.report.phase(&format!("waiting for WAL {}", awaited.name()), None);
    loop {
        look(&awaited, &mut came, opened, stanza, facts, began);
        let open: Vec<String> = came
            .iter()
            .filter(|one| one.arrived.is_none() && one.trouble.is_none())
            .map(|one| format!("repo{}", one.repository))
            .collect();
        if open.is_empty() || began.elapsed() >= patience {
            break;
        }
        phase.waiting_for(&open.join(", "));
        let failures = archiver(conversation)?.map_or(0, |archiver| archiver.failures);
        if failures.saturating_sub(failed_before) >= FAILURES_THAT_SETTLE_IT {
            break;
        }
        context
            .stop
            .sleep(LOOK_EVERY)
            .map_err(|_| Failure::new(Class::Interrupted, "the check was interrupted"))?;
    }
    drop(phase);
    let now = conversation.identity().map_err(|error| conversation.failure(error))?;
    let size = facts.cluster.segment_size;
    let waited = Waited {
        finished_more: SegmentName::containing(now.timeline, now.flushed, size) > awaited.current(),
        archiver: archiver(conversation)?,
        awaited,
        came,
        waited: began.elapsed(),
        user: facts.user.clone(),
        takes_sql: facts.takes_sql,
    };
    Ok(judge(&waited))
}

fn archiver(conversation: &mut Conversation) -> Result<Option<Archiver>, Failure> {
    conversation.archiver().map_err(|error| conversation.failure(error))
}

/// Whether the archiver fails, when no segment is awaited.
pub(super) fn without_waiting(conversation: &mut Conversation) -> Result<Vec<Finding>, Failure> {
    let found = match archiver(conversation)? {
        Some(archiver) if archiver.is_failing() => {
            let finding = Finding::error(TOPIC, Class::WalMissing, "archiving fails");
            vec![with_server_log(archiver.failure().into_iter().fold(finding, Finding::because))]
        }
        _ => Vec::new(),
    };
    Ok(found)
}

fn unasked(facts: &ServerFacts) -> Awaited {
    let size = facts.cluster.segment_size;
    let current = SegmentName::containing(facts.identity.timeline, facts.identity.flushed, size);
    let last = current
        .number(size)
        .and_then(|number| number.checked_sub(1))
        .filter(|number| *number > 0)
        .and_then(|number| SegmentName::from_number(facts.identity.timeline, number, size));
    Awaited::Any { last, current }
}

impl Awaited {
    fn name(&self) -> SegmentName {
        match self {
            Self::Fresh(segment) => *segment,
            Self::Any { last, current } => last.unwrap_or(*current),
        }
    }

    fn current(&self) -> SegmentName {
        match self {
            Self::Fresh(segment) => *segment,
            Self::Any { current, .. } => *current,
        }
    }

    fn names(&self) -> Vec<SegmentName> {
        match self {
            Self::Fresh(segment) => vec![*segment],
            Self::Any { last, current } => last.iter().chain([current]).copied().collect(),
        }
    }
}

fn look(
    awaited: &Awaited,
    came: &mut [Came],
    opened: &[Opened],
    stanza: &Stanza,
    facts: &ServerFacts,
    began: Instant,
) {
    let names: std::collections::BTreeSet<SegmentName> = awaited.names().into_iter().collect();
    for (one, repository) in came.iter_mut().zip(opened) {
        if one.arrived.is_some() || one.trouble.is_some() {
            continue;
        }
        let wal = ClusterWal { repo: &repository.repository, stanza, system: facts.cluster.system };
        match missing(wal, &names) {
            Ok(missing) => {
                // The newest of them says the most.
                let held = names.iter().rev().find(|name| !missing.contains(name));
                one.arrived = held.map(|segment| (*segment, began.elapsed()));
            }
            Err(error) => {
                let what = format!("could not look for WAL in {}", repository.settings.name());
                one.trouble = Some(repository_failure(error, &repository.settings, what).one_line());
            }
        }
    }
}

fn seconds(length: Duration) -> String {
    format!("{:.1} s", length.as_secs_f64())
}

fn repositories<'a>(came: impl IntoIterator<Item = &'a Came>) -> String {
    let names: Vec<String> = came.into_iter().map(|one| format!("repo{}", one.repository)).collect();
    names.join(" and ")
}

fn with_server_log(finding: Finding) -> Finding {
    finding
        .next("Look in the server's log for what archive_command says; it says so at each attempt.")
        .next("PostgreSQL keeps this WAL and tries again: nothing is lost while the disk of pg_wal has room.")
}

/// What the waiting shows.
pub(super) fn judge(waited: &Waited) -> Vec<Finding> {
    let mut found = Vec::new();
    let arrived: Vec<&Came> = waited.came.iter().filter(|one| one.arrived.is_some()).collect();
    let absent: Vec<&Came> =
        waited.came.iter().filter(|one| one.arrived.is_none() && one.trouble.is_none()).collect();
    for one in &waited.came {
        if let Some(why) = &one.trouble {
            found.push(Finding::error(TOPIC, Class::StorageUnavailable, why.as_str()).of(one.repository));
        }
    }
    if let Some((segment, _)) = arrived.iter().find_map(|one| one.arrived) {
        let text = match &waited.awaited {
            Awaited::Fresh(segment) => {
                let times: Vec<String> = arrived
                    .iter()
                    .filter_map(|one| Some(format!("repo{} in {}", one.repository, seconds(one.arrived?.1))))
                    .collect();
                format!("a fresh segment ({segment}) reached {}", times.join(", "))
            }
            Awaited::Any { .. } => {
                format!(
                    "{segment}, the last segment that the server finished, is in {}",
                    repositories(arrived.iter().copied())
                )
            }
        };
        found.push(Finding::ok(TOPIC, text));
    }
    let failing = waited.archiver.as_ref().filter(|archiver| archiver.is_failing());
    for one in &absent {
        found.push(absence(waited, one, failing, !arrived.is_empty()));
    }
    if let Awaited::Any { .. } = waited.awaited {
        found.push(not_asked(waited));
    }
    found
}

fn absence(waited: &Waited, one: &Came, failing: Option<&Archiver>, elsewhere: bool) -> Finding {
    let (name, length) =
        (format!("repo{}", one.repository), render::duration(Duration::from_secs(waited.waited.as_secs())));
    // Silence proves something only where there was something to archive.
    let something_to_archive =
        matches!(waited.awaited, Awaited::Fresh(_)) || elsewhere || waited.finished_more;
    let finding = if something_to_archive || failing.is_some() {
        let segment = waited.awaited.name();
        let text = format!("WAL segment {segment} did not reach {name} within {length}");
        let finding = Finding::error(TOPIC, Class::WalMissing, text);
        let why = failing.and_then(Archiver::failure).or_else(|| {
            let last = waited.archiver.as_ref()?.last_archived.as_ref()?;
            Some(if *last >= segment.to_string() {
                format!("archive_command reported {last} as stored: it stores it elsewhere, or nowhere")
            } else {
                format!("the archiver is behind: the last segment that it reported as stored is {last}")
            })
        });
        with_server_log(why.into_iter().fold(finding, Finding::because))
    } else {
        Finding::warning(
            TOPIC,
            format!(
                "whether WAL arrives in {name} is not known: the server finished no segment within {length}"
            ),
        )
        .next("As a superuser: `select pg_switch_wal()`, and run check again a few seconds later.")
    };
    finding.of(one.repository)
}

fn not_asked(waited: &Waited) -> Finding {
    let user = &waited.user;
    let finding =
        Finding::note(TOPIC, format!("no fresh segment was asked for: role {user} may not switch WAL"));
    let finding = if waited.takes_sql { finding } else { finding.because("it may not run SQL") };
    finding.next(format!(
        "`grant execute on function pg_switch_wal() to \"{user}\"` (in the database that it logs in to)."
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> SegmentName {
        text.parse().unwrap()
    }

    const FIRST: &str = "00000002000000A50000000D";
    const SECOND: &str = "00000002000000A50000000E";

    fn waited(awaited: Awaited, arrived: [Option<&str>; 2]) -> Waited {
        let came = (1..).zip(arrived).map(|(repository, segment)| Came {
            repository,
            arrived: segment
                .map(|segment| (name(segment), Duration::from_millis(u64::from(repository) * 400))),
            trouble: None,
        });
        Waited {
            awaited,
            came: came.collect(),
            waited: Duration::from_millis(60_100),
            archiver: None,
            finished_more: false,
            user: "walden".to_owned(),
            takes_sql: true,
        }
    }

    fn text(waited: &Waited) -> String {
        judge(waited).iter().map(Finding::line).collect()
    }

    #[test]
    fn each_repository_is_told_with_its_time() {
        assert_eq!(
            text(&waited(Awaited::Fresh(name(FIRST)), [Some(FIRST), Some(FIRST)])),
            "ok       a fresh segment (00000002000000A50000000D) reached repo1 in 0.4 s, repo2 in 0.8 s\n"
        );
        let mut one_absent = waited(Awaited::Fresh(name(FIRST)), [Some(FIRST), None]);
        one_absent.archiver = Some(Archiver {
            last_archived: Some("00000002000000A50000000C".to_owned()),
            archived_ago: Some(Duration::from_secs(70)),
            last_failed: Some(FIRST.to_owned()),
            failed_ago: Some(Duration::from_secs(2)),
            failures: 7,
        });
        assert_eq!(
            text(&one_absent),
            "ok       a fresh segment (00000002000000A50000000D) reached repo1 in 0.4 s\n\
             error    WAL segment 00000002000000A50000000D did not reach repo2 within 1 min\n\
             \u{20}          because: archive_command failed on 00000002000000A50000000D 2 s ago; the last one that it \
             reported as stored is 00000002000000A50000000C\n\
             \u{20}          next: Look in the server's log for what archive_command says; it says so at each attempt.\n\
             \u{20}          next: PostgreSQL keeps this WAL and tries again: nothing is lost while the disk of pg_wal has \
             room.\n"
        );
    }

    #[test]
    fn a_command_that_reports_success_and_stores_elsewhere_is_said_to() {
        let mut lost = waited(Awaited::Fresh(name(FIRST)), [None, None]);
        lost.archiver = Some(Archiver {
            last_archived: Some(FIRST.to_owned()),
            archived_ago: Some(Duration::from_secs(1)),
            ..Archiver::default()
        });
        assert!(text(&lost).contains("it stores it elsewhere, or nowhere"), "{}", text(&lost));
    }

    #[test]
    fn silence_is_no_proof_where_nothing_was_finished() {
        let any = Awaited::Any { last: Some(name(FIRST)), current: name(SECOND) };
        let mut silent = waited(any.clone(), [None, None]);
        assert!(
            text(&silent).starts_with("warning  whether WAL arrives in repo1 is not known"),
            "{}",
            text(&silent)
        );
        silent.finished_more = true;
        assert!(
            text(&silent).starts_with("error    WAL segment 00000002000000A50000000D did not reach repo1")
        );
        let held = text(&waited(any, [Some(FIRST), Some(FIRST)]));
        assert!(
            held.starts_with(
                "ok       00000002000000A50000000D, the last segment that the server finished, is in repo1 and repo2\n\
                 note     no fresh segment was asked for: role walden may not switch WAL\n"
            ),
            "{held}"
        );
    }
}
