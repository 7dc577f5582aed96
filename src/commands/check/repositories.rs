//! Each repository: whether it opens with its key, holds this cluster, keeps what stores must keep, has room, and
//! what its key costs each archived segment.

use super::finding::Finding;
use super::retention;
use crate::commands::Context;
use crate::commands::bucket_words;
use crate::commands::host_cache::{HostCache, NotKept};
use crate::commands::open::{
    bucket_rules, open_repository, repository_failure, secret, store_by_every_address, store_failure,
};
use crate::failure::{Class, Failure};
use crate::repo::keys::Secret;
use crate::repo::layout::hex;
use crate::repo::record::{Outcome, Record};
use crate::repo::{Cluster, Repository};
use crate::report::render;
use crate::settings::{Cipher, RepositoryKind, RepositorySettings};
use crate::storage::Key;
use crate::storage::object::rules::BucketRules;
use crate::storage::probe::{Finding as Promise, ProbePlan, ProbeReport, probe};
use crate::units::{ByteCount, Stanza, Timestamp};
use std::path::PathBuf;
use std::time::{Duration, Instant};

const TOPIC: &str = "repository";
/// A key that takes longer to have than this is worth a word: each segment pays it.
const SLOW_KEY: Duration = Duration::from_millis(200);
/// A newest backup that is older than this is worth a word.
const OLD: Duration = Duration::from_secs(8 * 86_400);

/// A repository that could be opened and holds the stanza.
pub(super) struct Opened {
    pub settings: RepositorySettings,
    pub repository: Repository,
}

/// What a repository's key costs.
#[derive(Debug)]
struct KeyCost {
    /// Until the key or passphrase was there: its file read, its command run.
    fetching: Duration,
    /// From then until the repository was open, with nothing from the cache.
    opening: Duration,
    /// Of a passphrase: the folder in which what was derived from it is kept, or why it is not.
    passphrase: Option<Result<PathBuf, NotKept>>,
}

/// What is known of the backups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Newest {
    pub id: String,
    pub at: Timestamp,
    pub stored: ByteCount,
    pub bad_pages: u64,
}

/// Looks at one repository. `cluster` is the server's, where it answered.
pub(super) fn check(
    context: &Context<'_>,
    settings: &RepositorySettings,
    stanza: &Stanza,
    cluster: Option<&Cluster>,
) -> (Vec<Finding>, Option<Opened>) {
    let mut found = Vec::new();
    let opened = look(context, settings, stanza, cluster, &mut found);
    let opened = opened.unwrap_or_else(|failure| {
        found.push(Finding::failed(TOPIC, &failure));
        None
    });
    (found.into_iter().map(|finding| finding.of(settings.index)).collect(), opened)
}

fn look(
    context: &Context<'_>,
    settings: &RepositorySettings,
    stanza: &Stanza,
    cluster: Option<&Cluster>,
    found: &mut Vec<Finding>,
) -> Result<Option<Opened>, Failure> {
    let name = settings.name();
    let (repository, cost) = open(context, settings)?;
    found.push(opens(&name, &repository.describe(), repository.is_encrypted()));
    found.extend(cost.and_then(|cost| key(&name, &cost)));
    let phase = context.report.phase(&format!("trying out the storage of {name}"), None);
    let promises = try_out(context, settings, &repository);
    drop(phase);
    let may_delete = promises.as_ref().ok().map(|report| report.may_delete.holds());
    match promises {
        Ok(report) => {
            let rules = bucket_rules(settings)?;
            found.push(storage(&name, &report, is_local(settings), rules.as_ref()));
            found.extend(listing(&name, &report));
            found.extend(rules.and_then(|rules| expiring(&name, &rules)));
        }
        Err(failure) => found.push(Finding::failed(TOPIC, &failure)),
    }
    let clusters = repository.clusters(stanza).map_err(|error| {
        repository_failure(error, settings, format!("could not look for stanza {stanza} in {name}"))
    })?;
    if let Some(wrong) = holds(&name, stanza, &clusters, cluster) {
        found.push(wrong);
        return Ok(None);
    }
    let newest = newest(&repository, stanza).map_err(|error| {
        repository_failure(
            error,
            settings,
            format!("could not read the catalog of stanza {stanza} in {name}"),
        )
    })?;
    found.extend(backups(&name, stanza, newest.as_ref(), context.env.now()));
    let free = repository.store().free_space();
    found.extend(free.and_then(|free| room(&name, free, newest.as_ref()?.stored)));
    let retention = context.settings.retention(settings.index);
    found.extend(retention::judge(&name, retention, context.settings.expire_auto(), may_delete));
    Ok(Some(Opened { settings: settings.clone(), repository }))
}

fn is_local(settings: &RepositorySettings) -> bool {
    matches!(settings.kind, RepositoryKind::Posix { .. })
}

/// Opens it, and measures what a push pays for the key.
fn open(
    context: &Context<'_>,
    settings: &RepositorySettings,
) -> Result<(Repository, Option<KeyCost>), Failure> {
    if settings.cipher == Cipher::None {
        return Ok((open_repository(settings)?, None));
    }
    let began = Instant::now();
    let passphrase = matches!(secret(settings)?, Some(Secret::Passphrase(_)));
    let fetching = began.elapsed();
    let began = Instant::now();
    let repository = open_repository(settings)?;
    // Opening fetches the key once more.
    let opening = began.elapsed().saturating_sub(fetching);
    let passphrase =
        passphrase.then(|| HostCache::new(context, settings, repository.store()).keeps_passphrases_in());
    Ok((repository, Some(KeyCost { fetching, opening, passphrase })))
}

fn try_out(
    context: &Context<'_>,
    settings: &RepositorySettings,
    repository: &Repository,
) -> Result<ProbeReport, Failure> {
    let what = || format!("could not try out the storage of {}", settings.name());
    let spread = store_by_every_address(settings)?;
    let store = spread.as_deref().unwrap_or(repository.store());
    let attempt = |plan| {
        let mut random = [0; 8];
        context
            .env
            .random(&mut random)
            .map_err(|error| repository_failure(error.into(), settings, what()))?;
        // No stanza can be mistaken for it: it never has a folder of clusters.
        let folder = Key::new(format!("walden-probe-{}", hex(&random)))
            .map_err(|error| repository_failure(error.into(), settings, what()))?;
        probe(store, &folder, plan).map_err(|error| store_failure(error, settings, what()))
    };
    let quick = attempt(ProbePlan::QUICK)?;
    // What may not be deleted stays: stanza-create has tried that store out in full, once is enough.
    if is_local(settings) || !quick.usable() || !quick.may_delete.holds() {
        return Ok(quick);
    }
    attempt(ProbePlan::THOROUGH)
}

fn newest(repository: &Repository, stanza: &Stanza) -> Result<Option<Newest>, crate::repo::RepoError> {
    let catalog = repository.catalog(stanza)?;
    for id in catalog.candidates().rev() {
        if let (Outcome::Committed(record), _) = repository.read_outcome(stanza, id)? {
            return Ok(Some(summary(&record)));
        }
    }
    Ok(None)
}

fn summary(record: &Record) -> Newest {
    Newest {
        id: record.backup_id.short().to_owned(),
        at: record.stopped_at_unix_us,
        stored: ByteCount::new(record.sizes.stored_bytes),
        bad_pages: record.page_checksums.failure_count,
    }
}

fn opens(name: &str, place: &str, encrypted: bool) -> Finding {
    if encrypted {
        Finding::ok(TOPIC, format!("{name}: {place} opens with its key"))
    } else {
        Finding::warning(TOPIC, format!("{name}: {place} is not encrypted: whoever reads it has the database"))
            .next(format!(
                "Encryption is chosen when a repository is made: add another with repoN-cipher-type=aes-256-gcm and a key \
                 of `walden key-generate`, and give up {name} when its backups are no longer needed."
            ))
    }
}

fn key(name: &str, cost: &KeyCost) -> Option<Finding> {
    let milliseconds = |length: Duration| format!("{} ms", length.as_millis());
    let once = milliseconds(cost.opening);
    match &cost.passphrase {
        None => {}
        Some(Ok(folder)) => {
            return Some(Finding::ok(
                "key",
                format!(
                    "{name} is opened with a passphrase: the first archived segment derives its key (Argon2, {once} here), \
                     the others find it in {}",
                    folder.display()
                ),
            ));
        }
        Some(Err(why)) => {
            let finding = Finding::warning(
                "key",
                format!(
                    "{name} is opened with a passphrase: each archived segment derives its key anew (Argon2, {once} here)"
                ),
            )
            .because(why.to_string());
            let finding = match why {
                NotKept::Unusable(_) => finding.next(
                    "Set lock-path to a directory that belongs to the user who archives, or give it that one.",
                ),
                NotKept::NoFile | NotKept::OnDisk { .. } => finding,
            };
            return Some(finding.next(format!(
                "A key of `walden key-generate` costs nothing; it is chosen when a repository is made, so add another \
                 repository with one, and give up {name} when its backups are no longer needed."
            )));
        }
    }
    (cost.fetching > SLOW_KEY).then(|| {
        Finding::warning(
            "key",
            format!(
                "the key of {name} takes {} to fetch, and each archived segment fetches it",
                milliseconds(cost.fetching)
            ),
        )
        .next(format!("Keep it in a file that only this user may read: {name}-cipher-pass-file."))
    })
}

/// Rules of the bucket by which backups would lose objects.
fn expiring(name: &str, rules: &BucketRules) -> Option<Finding> {
    let told = bucket_words::expiring(name, rules)?;
    let finding = if told.warning {
        Finding::warning("storage", told.text)
    } else {
        Finding::note("storage", told.text)
    };
    Some(told.because.into_iter().fold(finding, Finding::because).next(told.next))
}

fn storage(name: &str, report: &ProbeReport, local: bool, rules: Option<&BucketRules>) -> Finding {
    let broken: Vec<String> = [
        ("a name is created only once", &report.atomic_create),
        ("what was created is read at once", &report.read_after_create),
        ("what was created is listed at once", &report.list_after_create),
        ("parts of objects can be read", &report.ranges),
    ]
    .into_iter()
    .filter_map(|(promise, finding)| match finding {
        Promise::Holds => None,
        Promise::Broken(seen) => Some(format!("that {promise} does not hold: {seen}")),
    })
    .collect();
    let tries = format!("{} concurrent creates of {} names", report.plan.creators, report.plan.rounds);
    if !broken.is_empty() {
        let text = format!("{name}: its storage does not do what a repository rests on ({tries})");
        let finding = Finding::error("storage", Class::StorageUnavailable, text);
        return broken
            .into_iter()
            .fold(finding, Finding::because)
            .next("Move the repository to other storage: on this, backups may overwrite each other.");
    }
    let text = format!("{name}: its storage creates each name once and shows it at once ({tries})");
    match (&report.may_delete, local) {
        (Promise::Broken(_), _) => {
            // One for each name that was raced for, and the one that was looked for.
            let stay = report.plan.rounds + 1;
            Finding::ok(
                "storage",
                format!(
                    "{text}; these credentials may not delete, as daily work need not: {stay} small objects of this stay"
                ),
            )
        }
        (Promise::Holds, true) => Finding::ok("storage", text),
        (Promise::Holds, false) => {
            let (warning, what) = bucket_words::deletion(rules.map(|rules| &rules.versions));
            let text = format!("{text}; these credentials may delete objects, {what}");
            if !warning {
                return Finding::ok("storage", text);
            }
            Finding::warning("storage", text)
                .next("Turn versioning on, or give daily work credentials that may write, read and list, and keep deletion for expire.")
        }
    }
}

/// Long listings are cut at points: where that cannot be, they take long, and are right all the same.
fn listing(name: &str, report: &ProbeReport) -> Option<Finding> {
    let Promise::Broken(seen) = &report.list_from_a_point else { return None };
    let text = format!(
        "{name}: its storage does not list from a point: with very many archived segments `info`, `restore` and `expire` take \
         longer"
    );
    Some(Finding::warning("storage", text).because(seen).next(
        "Nothing is lost by it. Look whether a newer version of the store's software lists from a point.",
    ))
}

fn holds(name: &str, stanza: &Stanza, clusters: &[Cluster], server: Option<&Cluster>) -> Option<Finding> {
    if clusters.is_empty() {
        return Some(
            Finding::error("stanza", Class::NoRepository, format!("{name} has no stanza {stanza}"))
                .next(format!("Run `walden --stanza={stanza} stanza-create`.")),
        );
    }
    let server = server?;
    if clusters.contains(server) {
        return None;
    }
    let held: Vec<String> =
        clusters.iter().map(|held| format!("PostgreSQL {}, system {}", held.major, held.system)).collect();
    Some(
        Finding::error(
            "stanza",
            Class::NotThisCluster,
            format!("stanza {stanza} of {name} does not hold this server's cluster"),
        )
        .because(format!("it holds {}", held.join("; ")))
        .because(format!("the server is PostgreSQL {}, system {}", server.major, server.system))
        .next("Check pg1-host, pg1-port and the stanza's name.")
        .next(format!("After pg_upgrade or a new initdb: `walden --stanza={stanza} stanza-upgrade`."))
        .next("For another cluster: a stanza of its own, `walden --stanza=NAME stanza-create`."),
    )
}

fn backups(name: &str, stanza: &Stanza, newest: Option<&Newest>, now: Timestamp) -> Vec<Finding> {
    let Some(newest) = newest else {
        return vec![
            Finding::warning("backup", format!("{name} holds no backup of stanza {stanza}"))
                .next(format!("Run `walden --stanza={stanza} backup`.")),
        ];
    };
    let mut found = Vec::new();
    let text = format!("{name}: the newest backup, {}, was taken {}", newest.id, render::ago(newest.at, now));
    found.push(if render::between(newest.at, now) > OLD {
        Finding::warning("backup", text).next("Look whether the nightly backup runs, and how it ends.")
    } else {
        Finding::ok("backup", text)
    });
    if newest.bad_pages > 0 {
        found.push(
            Finding::warning(
                "backup",
                format!("{name}: {} damaged in the newest backup, {}", pages(newest.bad_pages), newest.id),
            )
            .next(format!(
                "`walden --stanza={stanza} info --set={}` names them; find out what that disk is doing.",
                newest.id
            )),
        );
    }
    found
}

fn pages(number: u64) -> String {
    if number == 1 { "1 page is".to_owned() } else { format!("{} pages are", render::count(number)) }
}

fn room(name: &str, free: ByteCount, newest: ByteCount) -> Option<Finding> {
    let text = format!("{name}: {free} free, and its newest backup takes {newest}");
    (free < newest).then(|| {
        Finding::warning("space", format!("{text}: the next may not fit"))
            .next("Make room, or move the repository to a larger file system.")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::check::server::tests::facts;
    use crate::durable::private::NotPrivate;
    use crate::storage::object::rules::Versions;

    fn report() -> ProbeReport {
        ProbeReport {
            plan: ProbePlan::THOROUGH,
            atomic_create: Promise::Holds,
            read_after_create: Promise::Holds,
            list_after_create: Promise::Holds,
            list_from_a_point: Promise::Holds,
            ranges: Promise::Holds,
            may_delete: Promise::Holds,
        }
    }

    #[test]
    fn storage_is_judged_by_what_was_tried() {
        let line = |report: &ProbeReport, local| storage("repo1", report, local, None).line();
        assert!(line(&report(), true).starts_with("ok       repo1: its storage creates each name once"));
        let may = line(&report(), false);
        assert!(may.starts_with("warning  ") && may.contains("for good if versioning is off"), "{may}");
        let versioned = BucketRules { versions: Ok(Versions::Kept), expiring: Ok(Vec::new()) };
        let kept = storage("repo1", &report(), false, Some(&versioned)).line();
        assert!(kept.starts_with("ok       ") && kept.contains("versioning keeps what is deleted"), "{kept}");
        assert_eq!(expiring("repo1", &versioned), None);
        let may_not = ProbeReport { may_delete: Promise::Broken("denied".to_owned()), ..report() };
        let stay = line(&ProbeReport { plan: ProbePlan::QUICK, ..may_not }, false);
        assert!(
            stay.starts_with("ok       ") && stay.ends_with(": 3 small objects of this stay\n"),
            "{stay}"
        );
        let seen = "2 of 32 concurrent creates of one name succeeded";
        let twice = ProbeReport { atomic_create: Promise::Broken(seen.to_owned()), ..report() };
        let said = line(&twice, false);
        assert!(said.starts_with("error    ") && said.contains(seen), "{said}");

        assert_eq!(listing("repo1", &report()), None);
        let slow = ProbeReport { list_from_a_point: Promise::Broken("it began anew".to_owned()), ..report() };
        assert!(slow.usable());
        let said = listing("repo1", &slow).unwrap().line();
        assert!(said.starts_with("warning  repo1: its storage does not list from a point: "), "{said}");
        assert!(said.contains("because: it began anew\n"), "{said}");
    }

    #[test]
    fn a_passphrase_and_a_slow_vault_are_told_with_their_time() {
        let ms = Duration::from_millis;
        let cost = |fetching, opening, passphrase| {
            key("repo1", &KeyCost { fetching, opening, passphrase }).map(|finding| finding.line())
        };
        assert_eq!(cost(ms(0), ms(2), None), None);
        assert!(cost(ms(900), ms(2), None).unwrap().contains("takes 900 ms to fetch"));
        let kept = cost(ms(0), ms(37), Some(Ok("/run/walden/cache-26".into()))).unwrap();
        assert!(kept.starts_with("ok       ") && kept.contains("(Argon2, 37 ms here)"), "{kept}");
        let not_kept = cost(ms(0), ms(37), Some(Err(NotKept::NoFile))).unwrap();
        assert!(not_kept.starts_with("warning  ") && not_kept.contains("derives its key anew"), "{not_kept}");
        let folder = NotPrivate::Absent("/run/walden".into());
        let unusable = cost(ms(0), ms(37), Some(Err(NotKept::Unusable(folder)))).unwrap();
        assert!(unusable.contains("because: there is no /run/walden\n"), "{unusable}");
        assert!(unusable.contains("next: Set lock-path "), "{unusable}");
    }

    #[test]
    fn a_stanza_of_another_cluster_is_21_and_none_is_10() {
        let stanza: Stanza = "shop".parse().unwrap();
        let ours = facts().cluster;
        let theirs = Cluster { system: "7".parse().unwrap(), ..facts().cluster };
        let class = |clusters: &[Cluster], server| {
            holds("repo1", &stanza, clusters, server).map(|finding| finding.level)
        };
        assert_eq!(class(&[facts().cluster], Some(&ours)), None);
        assert_eq!(class(&[theirs], None), None);
        let theirs = Cluster { system: "7".parse().unwrap(), ..facts().cluster };
        assert_eq!(
            class(&[theirs], Some(&ours)),
            Some(super::super::finding::Level::Error(Class::NotThisCluster))
        );
        assert_eq!(class(&[], Some(&ours)), Some(super::super::finding::Level::Error(Class::NoRepository)));
    }

    #[test]
    fn the_newest_backup_tells_how_things_go() {
        let stanza: Stanza = "shop".parse().unwrap();
        let day = 86_400_000_000;
        let newest = |days: i64, bad_pages| Newest {
            id: "20261121T020411Z-F-7k2qm4".to_owned(),
            at: Timestamp::from_unix_micros(100 * day - days * day),
            stored: ByteCount::new(1000),
            bad_pages,
        };
        let text = |newest: Option<&Newest>| -> String {
            backups("repo1", &stanza, newest, Timestamp::from_unix_micros(100 * day))
                .iter()
                .map(Finding::line)
                .collect()
        };
        assert!(text(None).starts_with("warning  repo1 holds no backup of stanza shop"));
        assert!(
            text(Some(&newest(1, 0)))
                .starts_with("ok       repo1: the newest backup, 20261121T020411Z-F-7k2qm4, was")
        );
        assert!(text(Some(&newest(9, 0))).starts_with("warning  "));
        assert!(text(Some(&newest(1, 2))).contains("2 pages are damaged in the newest backup"));
        assert!(room("repo1", ByteCount::new(10), ByteCount::new(1000)).is_some());
        assert!(room("repo1", ByteCount::new(1000), ByteCount::new(10)).is_none());
    }
}
