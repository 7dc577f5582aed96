//! What waits behind a file that cannot be stored everywhere.
//!
//! PostgreSQL asks for one file at a time, and for the same one until it is stored. While one repository does not
//! answer, the others would get nothing newer, for as long as that lasts. So the files that are ready to be archived
//! after it are stored in the repositories that do answer, before the failure is reported. PostgreSQL is told nothing
//! of them: it keeps them and asks for each in its turn, and then what is stored is found to be the same.

use super::{Push, push};
use crate::repo::layout;
use crate::storage::StoreError;
use crate::units::{SegmentName, SystemIdentifier, WalFileName};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// The most waiting files that are looked at; of more, which ones is left to chance. 2 TiB of WAL in usual segments.
const MOST_WAITING: usize = 1 << 17;

/// Stores the files that wait behind `pushed` in its repositories, which must hold `pushed` itself: in the order in
/// which PostgreSQL will ask for them, until `patience` is over, the run is told to stop, the server shuts down, or one
/// cannot be stored in all of them. So none of the repositories ever has a gap that it would not have had. How many of
/// those that wait are there now.
///
/// What earlier calls stored is the beginning of what waits. Its end is searched for by name, in a few requests, and the
/// last of it is compared: a copy of a server, whose WAL went another way meanwhile, stops there, as it would have when
/// that file's turn came.
///
/// Nothing is an error: those files' turn comes, and then it is told.
#[must_use]
pub fn push_waiting(pushed: Push<'_>, system: SystemIdentifier, patience: Duration) -> usize {
    let Some(directory) = pushed.path.parent() else { return 0 };
    let waiting = waiting_behind(&directory.join("archive_status"), pushed.name);
    let end = Instant::now() + patience;
    let goes_on = || Instant::now() < end && !pushed.stop.is_requested() && !shuts_down(directory);
    let store = |name: WalFileName| {
        let file = Push { path: &directory.join(name.to_string()), name, ..pushed };
        goes_on() && push(file).is_ok_and(|done| done.is_done())
    };
    // WAL of a timeline never comes before the history that says where it began.
    if !waiting.histories.iter().all(|history| store(*history)) {
        return 0;
    }
    let Ok(first) = first_not_held(&pushed, system, &waiting.others) else { return 0 };
    let newest_held =
        waiting.others[..first].iter().rev().find(|name| matches!(name, WalFileName::Segment(_)));
    if !newest_held.is_none_or(|name| store(*name)) {
        return 0;
    }
    let stored = waiting.others[first..].iter().take_while(|name| store(**name)).count();
    waiting.histories.len() + first + stored
}

/// The place of the first segment that not every repository has something under the name of, going by that those before
/// it are there. All are there: the end.
fn first_not_held(
    push: &Push<'_>,
    system: SystemIdentifier,
    waiting: &[WalFileName],
) -> Result<usize, StoreError> {
    let segments: Vec<(usize, SegmentName)> = waiting
        .iter()
        .enumerate()
        .filter_map(|(at, name)| match name {
            WalFileName::Segment(segment) => Some((at, *segment)),
            _ => None,
        })
        .collect();
    let (mut held, mut not_held) = (0, segments.len());
    while held < not_held {
        let middle = held + (not_held - held) / 2;
        if is_held(push, system, segments[middle].1)? {
            held = middle + 1;
        } else {
            not_held = middle;
        }
    }
    Ok(segments.get(held).map_or(waiting.len(), |(at, _)| *at))
}

fn is_held(push: &Push<'_>, system: SystemIdentifier, segment: SegmentName) -> Result<bool, StoreError> {
    let Ok(place) = layout::segment(push.stanza, system, segment) else { return Ok(false) };
    for repository in push.repositories {
        if repository.store().size(&place.key)?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether the server of this `pg_wal` has been told to end (`postmaster.pid`, utils/pidfile.h: the eighth line is
/// `PM_STATUS_STOPPING`). It waits for its archiver, who tries each file up to six times more.
fn shuts_down(pg_wal: &Path) -> bool {
    let file = pg_wal.parent().unwrap_or(Path::new("")).join("postmaster.pid");
    fs::read_to_string(file)
        .is_ok_and(|text| text.lines().nth(7).is_some_and(|line| line.trim() == "stopping"))
}

/// What waits behind a file.
#[derive(Debug, Default)]
struct Waiting {
    /// PostgreSQL takes them first, whenever they came.
    histories: Vec<WalFileName>,
    /// Those that come after it by name.
    others: Vec<WalFileName>,
}

/// The files that PostgreSQL marked as ready (`XLogArchiveNotify`), in the order in which it takes them after `name`
/// (`pgarch_readyXlog`, `ready_file_comparator`): histories first, the others by name.
fn waiting_behind(status: &Path, name: WalFileName) -> Waiting {
    let mut waiting = Waiting::default();
    let Ok(entries) = fs::read_dir(status) else { return waiting };
    let is_history = |name: WalFileName| matches!(name, WalFileName::History(_));
    let this = name.to_string();
    for entry in entries.flatten() {
        let file = entry.file_name();
        let ready = file.to_str().and_then(|file| file.strip_suffix(".ready"));
        let Some(Ok(found)) = ready.map(str::parse::<WalFileName>) else { continue };
        if waiting.histories.len() + waiting.others.len() >= MOST_WAITING {
            break;
        }
        if is_history(found) {
            if found != name {
                waiting.histories.push(found);
            }
        } else if is_history(name) || found.to_string() > this {
            waiting.others.push(found);
        }
    }
    waiting.histories.sort_by_cached_key(ToString::to_string);
    waiting.others.sort_by_cached_key(ToString::to_string);
    waiting
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
            fs::write(status.path().join(file), b"").unwrap();
        }
        let behind = |name: &str| -> Vec<String> {
            let found = waiting_behind(status.path(), name.parse().unwrap());
            found.histories.iter().chain(&found.others).map(ToString::to_string).collect()
        };
        let expected = [
            "00000002.history",
            "000000010000000000000007.00000028.backup",
            "000000010000000000000009",
            "00000001000000000000000A",
            "000000020000000000000001",
        ];
        assert_eq!(behind("000000010000000000000007"), expected);
        // A history comes before all of them.
        assert_eq!(behind("00000001.history").len(), 7);
        assert_eq!(behind("00000002.history").len(), 6);
        let nowhere = waiting_behind(Path::new("/nowhere"), "00000002.history".parse().unwrap());
        assert!(nowhere.histories.is_empty() && nowhere.others.is_empty());
    }

    #[test]
    fn a_server_that_is_told_to_end_says_so_in_its_eighth_line() {
        let data = tempfile::tempdir().unwrap();
        let pg_wal = data.path().join("pg_wal");
        assert!(!shuts_down(&pg_wal));
        for (status, expected) in [("ready   ", false), ("stopping", true), ("starting", false)] {
            let text = format!("1\n/data\n1795254076\n5432\n/tmp\nlocalhost\n  1 2\n{status}\n");
            fs::write(data.path().join("postmaster.pid"), text).unwrap();
            assert_eq!(shuts_down(&pg_wal), expected, "{status}");
        }
    }
}
