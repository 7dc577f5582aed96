//! What waits behind a file that cannot be stored everywhere.
//!
//! PostgreSQL asks for one file at a time, and for the same one until it is stored. While one repository does not
//! answer, the others would get nothing newer, for as long as that lasts. So the files that are ready to be archived
//! after it are stored in the repositories that do answer, before the failure is reported. PostgreSQL is told nothing
//! of them: it keeps them and asks for each in its turn, and then what is stored is found to be the same.

use super::{Push, push};
use crate::repo::layout;
use crate::storage::StoreError;
use crate::units::{SystemIdentifier, WalFileName};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

/// How many waiting files are looked at, the ones that come next.
const MOST_WAITING: usize = 1024;

/// What became of the files that wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ahead {
    /// Files that are now in all of the repositories, those included that were there before.
    pub held: usize,
    /// Files that were stored just now.
    pub stored: usize,
    /// Whether all that wait are there (of those that were looked at).
    pub all: bool,
}

/// Stores the files that wait behind `pushed` in its repositories, which must hold `pushed` itself: in the order in
/// which PostgreSQL will ask for them, until `patience` is over, the run is told to stop, or one cannot be stored in
/// all of them. So none of the repositories ever has a gap that it would not have had.
///
/// Nothing is an error: those files' turn comes, and then it is told.
#[must_use]
pub fn push_waiting(pushed: Push<'_>, system: SystemIdentifier, patience: Duration) -> Ahead {
    let Some(directory) = pushed.path.parent() else { return Ahead::default() };
    let waiting = waiting_behind(&directory.join("archive_status"), pushed.name);
    let end = Instant::now() + patience;
    let mut ahead = Ahead::default();
    let number = waiting.len();
    for name in waiting {
        if Instant::now() >= end || pushed.stop.is_requested() {
            return ahead;
        }
        let next = Push { path: &directory.join(name.to_string()), name, ..pushed };
        match is_held(next, system) {
            Ok(true) => {}
            Ok(false) => match push(next) {
                Ok(done) if done.is_done() => ahead.stored += 1,
                _ => return ahead,
            },
            Err(_) => return ahead,
        }
        ahead.held += 1;
    }
    ahead.all = ahead.held == number;
    ahead
}

/// Whether every repository has something under the segment's name: whether it is the same is told when its turn
/// comes. The small files are compared each time.
fn is_held(push: Push<'_>, system: SystemIdentifier) -> Result<bool, StoreError> {
    let WalFileName::Segment(segment) = push.name else { return Ok(false) };
    let Ok(place) = layout::segment(push.stanza, system, segment) else { return Ok(false) };
    for repository in push.repositories {
        if repository.store().size(&place.key)?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The files that PostgreSQL marked as ready (`XLogArchiveNotify`), in the order in which it takes them after `name`
/// (`pgarch_readyXlog`, `ready_file_comparator`): histories first, the others by name.
fn waiting_behind(status: &Path, name: WalFileName) -> Vec<WalFileName> {
    let Ok(entries) = std::fs::read_dir(status) else { return Vec::new() };
    let turn = |name: WalFileName| (!matches!(name, WalFileName::History(_)), name.to_string());
    let this = turn(name);
    let mut waiting: BTreeSet<(bool, String)> = BTreeSet::new();
    for entry in entries.flatten() {
        let file = entry.file_name();
        let ready = file.to_str().and_then(|file| file.strip_suffix(".ready"));
        let Some(Ok(found)) = ready.map(str::parse::<WalFileName>) else { continue };
        let turn = turn(found);
        if turn > this {
            waiting.insert(turn);
            if waiting.len() > MOST_WAITING {
                waiting.pop_last();
            }
        }
    }
    waiting.into_iter().filter_map(|(_, name)| name.parse().ok()).collect()
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "what a test writes needs not last")]
mod tests {
    use super::*;

    #[test]
    fn they_come_in_the_order_in_which_postgresql_asks() {
        let status = tempfile::tempdir().unwrap();
        for file in [
            "000000010000000000000009.ready",
            "00000001000000000000000A.ready",
            "000000010000000000000007.ready",
            "000000010000000000000008.done",
            "000000010000000000000006.ready",
            "000000010000000000000007.00000028.backup.ready",
            "000000020000000000000001.ready",
            "00000002.history.ready",
            "notes.ready",
            "\u{1F418}",
        ] {
            std::fs::write(status.path().join(file), b"").unwrap();
        }
        let behind = |name: &str| -> Vec<String> {
            let found = waiting_behind(status.path(), name.parse().unwrap());
            found.iter().map(ToString::to_string).collect()
        };
        let expected = [
            "000000010000000000000007.00000028.backup",
            "000000010000000000000009",
            "00000001000000000000000A",
            "000000020000000000000001",
        ];
        assert_eq!(behind("000000010000000000000007"), expected);
        // A history comes before all of them.
        assert_eq!(behind("00000001.history").len(), 7);
        assert!(waiting_behind(Path::new("/nowhere"), "00000002.history".parse().unwrap()).is_empty());
    }
}
