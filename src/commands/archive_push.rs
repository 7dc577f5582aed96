//! `archive-push`: one file of `pg_wal` into every repository. 0 means durable in all of them.
//!
//! PostgreSQL keeps the file and asks again after any exit up to 125, so a failure loses nothing; its log gets
//! one line. What is stored and how it is checked is in `wal::push`. While a repository does not answer, those that do
//! also get what waits behind the file.

use super::open::{open_with_cache, repository_failure};
use super::{Context, Outcome};
use crate::failure::{Class, Failure};
use crate::repo::{Repository, frame};
use crate::settings::{Compression, RepositorySettings};
use crate::storage::Created;
use crate::units::WalFileName;
use crate::wal::WalError;
use crate::wal::push::{Push, PushError, Trouble, push, push_waiting};
use std::path::Path;
use std::time::Duration;

/// How long a push that has failed goes on with what waits behind the file. PostgreSQL asks three times, a second apart,
/// and then once a minute.
const PATIENCE_AHEAD: Duration = Duration::from_secs(10);

/// See the module.
pub(super) fn run(context: &Context<'_>) -> Result<Outcome, Failure> {
    let settings = context.settings;
    let Some(path) = context.arguments.first().map(Path::new) else {
        return Err(Failure::new(Class::Usage, "archive-push needs PATH"));
    };
    let name = name_of(path)?;
    let stanza = settings.stanza()?;
    // Never fewer than all, whatever --repo says: an exit of 0 lets PostgreSQL remove the file.
    let repositories = settings.all_repositories()?;
    if repositories.is_empty() {
        return Err(Failure::new(Class::Usage, format!("{name} not stored: no repository is configured"))
            .next("Set repo1-path."));
    }

    let mut opened: Vec<(&RepositorySettings, Repository)> = Vec::new();
    let mut found: Vec<(&RepositorySettings, Result<Created, Failure>)> = Vec::new();
    for repository in &repositories {
        match open_with_cache(context, repository) {
            Ok(open) => opened.push((repository, open)),
            Err(failure) => found.push((repository, Err(failure))),
        }
    }
    let mut ahead = 0;
    if !opened.is_empty() {
        let open: Vec<&Repository> = opened.iter().map(|(_, repository)| repository).collect();
        let server = settings.server(1);
        let request = Push {
            repositories: &open,
            stanza,
            path,
            name,
            data_directory: server.path.as_deref(),
            compression: match settings.compression() {
                Compression::None => frame::Compression::None,
                Compression::Zstd(level) => frame::Compression::Zstd(level),
            },
            env: context.env,
            stop: &context.stop,
        };
        let pushed = push(request).map_err(|error| of_the_file(name, error))?;
        for warning in &pushed.warnings {
            context.report.warn(format!("{name}: {warning}"));
        }
        let warned = !pushed.warnings.is_empty();
        let system = pushed.system;
        let holding: Vec<&Repository> = open
            .iter()
            .zip(&pushed.outcomes)
            .filter(|(_, outcome)| outcome.is_ok())
            .map(|(repository, _)| *repository)
            .collect();
        for ((repository, _), outcome) in opened.iter().zip(pushed.outcomes) {
            found.push((repository, outcome.map_err(|trouble| of_a_repository(trouble, repository))));
        }
        // Counted, so that a repository without an answer can never look like one that has it.
        if found.len() == repositories.len() && found.iter().all(|(_, outcome)| outcome.is_ok()) {
            for (repository, outcome) in &found {
                let how = if matches!(outcome, Ok(Created::Same)) { "was there already" } else { "stored" };
                context.report.detail(format!("{name} {how} in {}", repository.name()));
            }
            return Ok(if warned { Outcome::DoneWithWarnings } else { Outcome::Done });
        }
        if !holding.is_empty() && found.iter().all(|(_, outcome)| outcome.as_ref().err().is_none_or(passes)) {
            ahead = push_waiting(Push { repositories: &holding, ..request }, system, PATIENCE_AHEAD);
        }
    }
    found.sort_by_key(|(repository, _)| repository.index);
    Err(together(name, found, ahead))
}

/// Whether a repository's failure says nothing of this server's WAL, so that the others may have what comes next: it is
/// away, full or closed, or whoever has its key does not answer. A conflict or another cluster's stanza says that
/// this server should perhaps not archive at all.
fn passes(failure: &Failure) -> bool {
    matches!(
        failure.class(),
        Class::StorageUnavailable | Class::NoRepository | Class::LocalFileSystem | Class::KeyRejected
    )
}

/// The name that PostgreSQL gave the file.
fn name_of(path: &Path) -> Result<WalFileName, Failure> {
    let file = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    file.parse().map_err(|_| {
        Failure::new(Class::Usage, format!("cannot store {}", path.display()))
            .because_text(format!(
                "\"{file}\" is not the name of a WAL file: a segment, .partial, .backup or .history"
            ))
            .next("archive_command must end in: archive-push \"%p\"")
    })
}

/// Words for what is wrong with the file itself: nothing was stored anywhere.
fn of_the_file(name: WalFileName, error: PushError) -> Failure {
    let what = format!("{name} not stored");
    match error {
        PushError::Read { .. } | PushError::Changed => {
            Failure::new(Class::LocalFileSystem, what).because(error)
        }
        // Not stored data, but damaged data all the same: nothing that can be called this segment.
        PushError::Segment(_) | PushError::History(_) | PushError::TooLong(_) => {
            Failure::new(Class::Damaged, what)
                .because(error)
                .next("Look at the file: it is not what PostgreSQL writes under this name.")
        }
        PushError::NoControlFile(_) => Failure::new(Class::PostgresRefuses, what)
            .because(error)
            .next("Set pg1-path to the data directory."),
        PushError::Interrupted => Failure::new(Class::Interrupted, what).because(error),
    }
}

/// Words for what one repository said: the first line is what is told of it.
fn of_a_repository(trouble: Trouble, settings: &RepositorySettings) -> Failure {
    let said = trouble.to_string();
    match trouble {
        Trouble::NoStanza => Failure::new(Class::NoRepository, said)
            .next("Run `walden stanza-create` for it, with the same stanza name."),
        Trouble::NotThisCluster { .. } | Trouble::OtherSegmentSize { .. } => Failure::new(
            Class::NotThisCluster,
            said,
        )
        .next("Check the stanza in archive_command: each cluster needs its own.")
        .next(
            "After pg_upgrade or a new initdb: `walden stanza-upgrade` adds the new cluster to the stanza.",
        ),
        Trouble::Wal(WalError::Conflict { .. } | WalError::HistoryConflict { .. }) => {
            Failure::new(Class::WalConflict, said)
                .next("Check that exactly one server archives to this stanza. Nothing was overwritten.")
                .next(
                    "A server made from a backup of this one needs a stanza of its own, or archive_mode=off.",
                )
        }
        Trouble::Wal(WalError::Repo(error)) => {
            let failure = repository_failure(error, settings, "");
            let mut reasons = failure.reasons().iter();
            let first = reasons.next().cloned().unwrap_or_default();
            let rest =
                reasons.fold(Failure::new(failure.class(), first), |all, reason| all.because_text(reason));
            failure.steps().iter().fold(rest, |all, step| all.next(step))
        }
        Trouble::Wal(WalError::Codec(error)) => {
            Failure::new(Class::LocalFileSystem, said).because_text(error.to_string())
        }
        Trouble::Wal(WalError::Length { .. } | WalError::Sink(_)) => Failure::new(Class::Bug, said),
    }
}

/// Which failure of several decides the exit code: what no retry mends comes first.
const WORST_FIRST: &[Class] = &[
    Class::WalConflict,
    Class::NotThisCluster,
    Class::KeyRejected,
    Class::NoRepository,
    Class::Damaged,
    Class::Bug,
    Class::Usage,
    Class::LocalFileSystem,
    Class::StorageUnavailable,
];

/// One failure that says of each repository what became of the file there.
fn together(
    name: WalFileName,
    found: Vec<(&RepositorySettings, Result<Created, Failure>)>,
    ahead: usize,
) -> Failure {
    let rank = |class: Class| WORST_FIRST.iter().position(|one| *one == class).unwrap_or(WORST_FIRST.len());
    let class = found
        .iter()
        .filter_map(|(_, outcome)| outcome.as_ref().err())
        .map(Failure::class)
        .min_by_key(|class| rank(*class))
        .unwrap_or(Class::Bug);
    let mut said: Vec<String> = Vec::new();
    let mut steps: Vec<String> = Vec::new();
    for (repository, outcome) in &found {
        match outcome {
            Ok(_) => said.push(match ahead {
                0 => format!("{} has it", repository.name()),
                1 => format!("{} has it and the one that waits behind it", repository.name()),
                ahead => format!("{} has it and {ahead} that wait behind it", repository.name()),
            }),
            Err(failure) => {
                let mut text = failure.one_line();
                // A path may hold the word too; only the word by itself says whose trouble it is.
                let named = text.split([' ', ':', ',', ';']).any(|word| word == repository.name());
                if !named {
                    text = format!("{}: {text}", repository.name());
                }
                said.push(text);
                for step in failure.steps() {
                    if !steps.contains(step) {
                        steps.push(step.clone());
                    }
                }
            }
        }
    }
    let reason = format!("{}. PostgreSQL keeps the file and asks again", said.join("; "));
    let failure = Failure::new(class, format!("{name} not stored")).because_text(reason);
    steps.into_iter().fold(failure, Failure::next)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "what a test writes needs not last")]
mod tests {
    use super::*;
    use crate::commands::testing::{Shelf, run as run_in_test};
    use crate::wal::craft::Craft;

    const NAME: &str = "000000010000000000000005";

    fn segment(shelf: &Shelf, system: u64, seed: u64) -> String {
        let bytes = Craft::new(system, 5, 1 << 20).fill(seed).bytes();
        let directory = shelf.join(&format!("pg_wal-{seed}"));
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join(NAME), bytes).unwrap();
        directory.join(NAME).display().to_string()
    }

    fn push(shelves: &[&Shelf], path: &str) -> (Result<Outcome, Failure>, String) {
        let mut line = vec!["--stanza=shop".to_owned(), path.to_owned()];
        for (at, shelf) in shelves.iter().enumerate() {
            line.extend(shelf.options(u16::try_from(at).unwrap() + 1));
        }
        let words: Vec<&str> = line.iter().map(String::as_str).collect();
        let (result, seen) = run_in_test("archive-push", &words, run);
        (result, seen.console())
    }

    fn cluster() -> u64 {
        crate::commands::testing::cluster().system.as_u64()
    }

    #[test]
    fn what_no_retry_mends_decides_the_exit_code_and_every_repository_is_told_of() {
        let (one, two, three) = (Shelf::new(), Shelf::new(), Shelf::new());
        let first = segment(&one, cluster(), 1);
        assert_eq!(push(&[&one], &first).0.unwrap(), Outcome::Done);
        assert_eq!(push(&[&one], &first).0.unwrap(), Outcome::Done);
        let other = segment(&one, cluster(), 2);
        std::fs::rename(two.join("repo"), two.join("away")).unwrap();
        let (result, _) = push(&[&one, &two, &three], &other);
        let failure = result.unwrap_err();
        assert_eq!(failure.class(), Class::WalConflict);
        let line = failure.one_line();
        for part in ["repo1", "stored blake3", "offered", "repo2", "repo3 has it", "PostgreSQL keeps"] {
            assert!(line.contains(part), "{line}");
        }
        // The third one has it and stays as it is.
        assert_eq!(push(&[&three], &other).0.unwrap(), Outcome::Done);
    }

    #[test]
    fn a_file_of_no_wal_name_is_wrong_usage_and_never_above_125() {
        let shelf = Shelf::new();
        let (result, _) = push(&[&shelf], "/tmp/notes.txt");
        assert_eq!(result.unwrap_err().class(), Class::Usage);
        assert!(WORST_FIRST.iter().all(|class| class.exit_code() <= 125));
    }

    #[test]
    fn another_clusters_segment_is_refused() {
        let shelf = Shelf::new();
        let (result, _) = push(&[&shelf], &segment(&shelf, 99, 1));
        assert_eq!(result.unwrap_err().class(), Class::NotThisCluster);
    }

    #[test]
    fn an_unfinished_segment_is_done_with_a_warning() {
        let shelf = Shelf::new();
        let path = segment(&shelf, cluster(), 1);
        std::fs::write(&path, Craft::new(cluster(), 5, 1 << 20).noop(9_000, 1).bytes()).unwrap();
        let (result, told) = push(&[&shelf], &path);
        assert_eq!(result.unwrap(), Outcome::DoneWithWarnings);
        assert!(told.contains("stored beside, as partial-"), "{told}");
    }

    fn named(number: u32) -> String {
        format!("0000000100000000{number:08X}")
    }

    /// A `pg_wal` with whole segments, marked as ready; the path of its first.
    fn waiting(shelf: &Shelf, numbers: std::ops::RangeInclusive<u32>) -> String {
        let directory = shelf.join("pg_wal");
        std::fs::create_dir_all(directory.join("archive_status")).unwrap();
        let first = directory.join(named(*numbers.start())).display().to_string();
        for number in numbers {
            let bytes = Craft::new(cluster(), number.into(), 1 << 20).fill(number.into()).bytes();
            std::fs::write(directory.join(named(number)), bytes).unwrap();
            std::fs::write(directory.join("archive_status").join(named(number) + ".ready"), b"").unwrap();
        }
        first
    }

    fn held(shelf: &Shelf) -> Vec<String> {
        let mut found = Vec::new();
        let stanza =
            crate::repo::layout::wal(&"shop".parse().unwrap(), super::super::testing::cluster().system);
        let mut each = |listed: crate::storage::Listed| found.push(listed.key.file_name().to_owned());
        shelf.repository.store().list(&stanza.unwrap(), &mut each).unwrap();
        found.sort_unstable();
        found
    }

    #[test]
    fn while_one_repository_is_away_the_other_gets_what_waits_and_no_gap() {
        let (one, two) = (Shelf::new(), Shelf::new());
        let first = waiting(&one, 5..=9);
        let whole = std::fs::read(one.join("pg_wal").join(named(8))).unwrap();
        std::fs::write(one.join("pg_wal").join(named(8)), b"no WAL").unwrap();
        std::fs::rename(two.join("repo"), two.join("away")).unwrap();
        let failure = push(&[&one, &two], &first).0.unwrap_err();
        assert_eq!(failure.class(), Class::NoRepository);
        // It stopped at the one that cannot be stored: what is behind it would be behind a gap.
        assert!(
            failure.one_line().contains("repo1 has it and 2 that wait behind it"),
            "{}",
            failure.one_line()
        );
        assert_eq!(held(&one), [named(5), named(6), named(7)]);

        std::fs::write(one.join("pg_wal").join(named(8)), whole).unwrap();
        let failure = push(&[&one, &two], &first).0.unwrap_err();
        assert!(
            failure.one_line().contains("repo1 has it and 4 that wait behind it"),
            "{}",
            failure.one_line()
        );
        // Each in its turn, when it is back.
        std::fs::rename(two.join("away"), two.join("repo")).unwrap();
        for number in 5..=9 {
            let path = one.join("pg_wal").join(named(number)).display().to_string();
            assert_eq!(push(&[&one, &two], &path).0.unwrap(), Outcome::Done);
        }
        assert_eq!((held(&one), held(&two).len()), (held(&two), 5));
    }

    #[test]
    fn after_a_conflict_nothing_goes_ahead() {
        let (one, two) = (Shelf::new(), Shelf::new());
        assert_eq!(push(&[&two], &segment(&two, cluster(), 1)).0.unwrap(), Outcome::Done);
        let failure = push(&[&one, &two], &waiting(&one, 5..=7)).0.unwrap_err();
        assert_eq!(failure.class(), Class::WalConflict);
        assert_eq!(held(&one), [named(5)]);
    }

    #[test]
    fn a_copy_of_the_server_stores_nothing_behind_a_file_that_differs() {
        let (one, two) = (Shelf::new(), Shelf::new());
        let first = waiting(&one, 5..=7);
        std::fs::rename(two.join("repo"), two.join("away")).unwrap();
        push(&[&one, &two], &first).0.unwrap_err();
        // 5 is common to both; 6 and 7 are other ones of the same names, and 8 the server itself has not come to yet.
        let directory = one.join("clone/pg_wal");
        std::fs::create_dir_all(directory.join("archive_status")).unwrap();
        std::fs::copy(&first, directory.join(named(5))).unwrap();
        for number in 5..=8_u32 {
            if number > 5 {
                let bytes =
                    Craft::new(cluster(), number.into(), 1 << 20).fill(1000 + u64::from(number)).bytes();
                std::fs::write(directory.join(named(number)), bytes).unwrap();
            }
            std::fs::write(directory.join("archive_status").join(named(number) + ".ready"), b"").unwrap();
        }
        let failure = push(&[&one, &two], &directory.join(named(5)).display().to_string()).0.unwrap_err();
        assert!(failure.one_line().contains("repo1 has it; could not"), "{}", failure.one_line());
        assert_eq!(held(&one), [named(5), named(6), named(7)]);
        assert_eq!(push(&[&one], &waiting(&one, 8..=8)).0.unwrap(), Outcome::Done);
    }

    #[test]
    fn however_many_are_there_already_the_next_one_follows() {
        let (one, two) = (Shelf::new(), Shelf::new());
        let first = waiting(&one, 5..=60);
        std::fs::rename(two.join("repo"), two.join("away")).unwrap();
        let line = push(&[&one, &two], &first).0.unwrap_err().one_line();
        assert!(line.contains("repo1 has it and 55 that wait"), "{line}");
        // What is there is not looked at again, but for the last of it.
        for number in 6..60 {
            std::fs::remove_file(one.join("pg_wal").join(named(number))).unwrap();
        }
        waiting(&one, 61..=64);
        let line = push(&[&one, &two], &first).0.unwrap_err().one_line();
        assert!(line.contains("repo1 has it and 59 that wait"), "{line}");
        assert_eq!(held(&one).len(), 60);
    }
}
