//! What each repository could bring back without the others.

use super::*;
use crate::commands::open::secret;
use crate::repo::Repository;
use crate::storage::faulty::FaultyStore;
use crate::storage::posix::PosixStore;
use crate::wal::{ClusterWal, write};
use serde_json::Value;
use std::sync::Arc;

fn history(shelf: &Shelf, on: u32, contents: &[u8]) {
    let parsed = crate::postgres::history::TimelineHistory::parse(timeline(on), contents).unwrap();
    let wal = ClusterWal { repo: &shelf.repository, stanza: &shop(), system: cluster().system };
    write::store_history(wal, contents, &parsed, &shelf.env).unwrap();
}

/// Segments in which no transaction ended.
fn idle(shelf: &Shelf, numbers: std::ops::RangeInclusive<u64>) {
    numbers.for_each(|number| shelf.store_segment(&name(number, 1), None));
}

/// The lines under that of a repository.
fn under<'a>(text: &'a str, repository: &str) -> Vec<&'a str> {
    let lines = text.lines().skip_while(|line| !line.starts_with(repository)).skip(1);
    lines.take_while(|line| line.starts_with(' ')).map(str::trim).collect()
}

#[test]
fn each_repository_tells_what_it_alone_brings_back_where_that_is_less() {
    let (one, two, three) = (Shelf::new(), Shelf::new(), Shelf::new());
    // The first lacks a segment, the second a backup, the third nothing.
    segments(&one, 1, 2..=6, 60);
    segments(&one, 1, 8..=14, 54);
    segments(&two, 1, 2..=14, 60);
    segments(&three, 1, 2..=14, 60);
    let (first, second) = (record(59, BackupKind::Full, 1, 2, 3), record(50, BackupKind::Full, 1, 11, 12));
    for shelf in [&one, &three] {
        commit(shelf, &first);
    }
    commit(&one, &second);
    let (text, json) = texts(&[&one, &two, &three], &[]);
    golden("alone.txt", &text);
    golden("alone.json", &format!("{json:#}\n"));

    // Of one repository there is nothing more to say, and what it says is what it says beside the others.
    let (text, json_of_one) = texts(&[&one], &[]);
    assert!(!text.contains("alone"), "{text}");
    let stanza = &json_of_one["stanzas"][0];
    let (all, alone) = (&stanza["clusters"][0], &stanza["repositories"][0]["clusters"][0]);
    for key in ["system_identifier", "timeline", "windows", "gaps"] {
        assert_eq!(all[key], alone[key], "{key}");
        assert_eq!(alone[key], json["stanzas"][0]["repositories"][0]["clusters"][0][key], "{key}");
    }
    // Chosen by its number, too.
    let options: Vec<String> =
        [(1, &one), (2, &two), (3, &three)].iter().flat_map(|(at, shelf)| shelf.options(*at)).collect();
    let chosen = look_at(&options, &["--repo=1"]).0.unwrap();
    let chosen = json::document(&chosen, None);
    assert_eq!(chosen["stanzas"][0]["repositories"], stanza["repositories"]);
    assert_eq!(chosen["stanzas"][0]["clusters"], stanza["clusters"]);
}

#[test]
fn why_a_repository_alone_brings_back_nothing_is_said() {
    let (one, two) = (Shelf::new(), Shelf::new());
    segments(&one, 1, 2..=6, 60);
    segments(&two, 1, 4..=6, 58);
    let backup = record(59, BackupKind::Full, 1, 2, 3);
    commit(&one, &backup);
    let told = || {
        let (text, json) = texts(&[&one, &two], &[]);
        let repository = json["stanzas"][0]["repositories"][1].clone();
        (under(&text, "repo2").join(" "), repository)
    };
    assert_eq!(told().0, "alone: nothing (no backup)");
    commit(&two, &backup);
    let (text, repository) = told();
    assert_eq!(text, "alone: nothing (WAL of its backups is missing)");
    let alone = &repository["clusters"][0];
    assert_eq!((&alone["windows"], &alone["gaps"]), (&Value::Array(vec![]), &Value::Array(vec![])));
    assert_eq!(alone["problems"][0]["kind"], "WAL of a backup is missing");
    // Whose record it does not give itself is no backup of its own.
    segments(&two, 1, 2..=3, 60);
    let file = two.join("repo").join(format!("shop/catalog/{}.2-outcome", backup.backup_id));
    assert_eq!(told().0, "");
    std::fs::write(file, "x").unwrap();
    assert_eq!(told().0, "alone: nothing (no backup)");
}

#[test]
fn a_repository_without_a_history_does_not_find_its_way_alone() {
    let (one, two) = (Shelf::new(), Shelf::new());
    for shelf in [&one, &two] {
        segments(shelf, 1, 2..=9, 40);
        segments(shelf, 2, 8..=20, 12);
        commit(shelf, &record(41, BackupKind::Full, 1, 2, 3));
    }
    history(&one, 2, b"1\t0/880000\tno recovery target specified\n");
    let (text, json) = texts(&[&one, &two], &[]);
    golden("alone-without-history.txt", &text);
    let alone = &json["stanzas"][0]["repositories"][1]["clusters"][0];
    assert_eq!((&alone["timeline"], &alone["windows"][0]["timeline"]), (&2.into(), &1.into()));
    assert_eq!(alone["problems"][0]["kind"], "timeline unknown");
    assert_eq!(json["stanzas"][0]["status"], "ok", "together they lack nothing");
}

#[test]
fn the_end_of_a_repositorys_own_window_is_read_from_itself() {
    let (one, two) = (Shelf::new(), Shelf::new());
    for shelf in [&one, &two] {
        segments(shelf, 1, 2..=9, 40);
        commit(shelf, &record(41, BackupKind::Full, 1, 2, 3));
    }
    let (text, _) = texts(&[&one, &two], &[]);
    assert!(!text.contains("alone"), "{text}");
    let newest = SegmentName::from_number(timeline(1), 9, cluster().segment_size).unwrap();
    let place = crate::repo::layout::segment(&shop(), cluster().system, newest).unwrap();
    std::fs::write(two.join("repo").join(place.key.as_str()), "x").unwrap();
    let (text, json) = texts(&[&one, &two], &[]);
    let lines = under(&text, "repo2");
    assert_eq!(lines[0], "alone: 2026-11-19 16:41:16 UTC … (unreadable) (timeline 1)");
    assert_eq!(lines[1], "where timeline 1 ends could not be read:", "{text}");
    assert!(lines[2].ends_with(&format!("{newest} is damaged:")), "{text}");
    assert_eq!(json["stanzas"][0]["status"], "ok");
    assert_eq!(
        json["stanzas"][0]["repositories"][1]["clusters"][0]["problems"][0]["kind"],
        "WAL cannot be read"
    );
}

#[test]
fn of_many_windows_the_newest_are_shown_and_the_others_counted() {
    let (one, two) = (Shelf::new(), Shelf::new());
    segments(&one, 1, 2..=40, 60);
    for at in 0..8 {
        let first = 2 + 4 * at;
        segments(&two, 1, first..=first + 2, 50 - i64::try_from(at).unwrap());
        let backup = record(51 - i64::try_from(at).unwrap(), BackupKind::Full, 1, first, first + 1);
        commit(&one, &backup);
        commit(&two, &backup);
    }
    let (text, json) = texts(&[&one, &two], &[]);
    let lines = under(&text, "repo2");
    assert_eq!(lines.iter().filter(|line| line.ends_with("more, which --output=json names")).count(), 2);
    assert_eq!(lines[3], "and 5 more, which --output=json names", "{text}");
    let alone = &json["stanzas"][0]["repositories"][1]["clusters"][0];
    assert_eq!(alone["windows"].as_array().map(Vec::len), Some(8));
    assert_eq!(alone["gaps"].as_array().map(Vec::len), Some(7));
}

#[test]
fn two_clusters_are_told_apart() {
    let (one, two) = (Shelf::new(), Shelf::new());
    let mut later = cluster();
    later.system = crate::units::SystemIdentifier::new(7_572_093_145_086_700_000);
    for shelf in [&one, &two] {
        shelf.repository.add_cluster(&shop(), &later, &shelf.env).unwrap();
        segments(shelf, 1, 2..=9, 40);
    }
    commit(&one, &record(41, BackupKind::Full, 1, 2, 3));
    let (text, json) = texts(&[&one, &two], &[]);
    // Of the later one there is nothing anywhere, so nothing differs.
    let head = format!("alone, system {}: nothing (no backup)", cluster().system);
    assert_eq!(under(&text, "repo2"), [head.as_str()]);
    let systems: Vec<&str> = json["stanzas"][0]["repositories"][1]["clusters"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["system_identifier"].as_str().unwrap())
        .collect();
    assert_eq!(systems, [cluster().system.to_string(), later.system.to_string()]);
}

/// The store calls of looking at the stanza, each repository's by itself.
fn calls(shelves: &[&Shelf]) -> Vec<Vec<String>> {
    let mut stores = Vec::new();
    let opened: Vec<Opened> = shelves
        .iter()
        .zip(1..)
        .map(|(shelf, index)| {
            let mut options = shelf.options(index);
            options.push(format!("--repo={index}"));
            let line: Vec<&str> = options.iter().map(String::as_str).collect();
            let settings = testing::with("info", &line, |context| context.settings.repositories()).0.unwrap();
            let settings = settings.into_iter().next().unwrap();
            let store = FaultyStore::counting(PosixStore::open(&shelf.join("repo")).unwrap());
            let key = || Ok(secret(&settings).unwrap());
            let repository = Repository::open(Arc::new(store.clone()), &key).unwrap();
            stores.push((store.calls(), store));
            Opened { settings, repository }
        })
        .collect();
    let view = look(&shop(), &opened, &[]);
    assert_eq!(view.clusters[0].windows.windows.len(), 2, "something was looked at");
    stores
        .into_iter()
        .map(|(before, store)| store.log().split_off(usize::try_from(before).unwrap()))
        .collect()
}

#[test]
fn windows_of_each_repository_cost_no_second_listing_and_one_segment_each() {
    let (one, two) = (Shelf::new(), Shelf::new());
    for shelf in [&one, &two] {
        segments(shelf, 1, 2..=9, 40);
        // No transaction ends for long.
        idle(shelf, 10..=40);
        segments(shelf, 2, 8..=9, 32);
        (10..=40).for_each(|number| shelf.store_segment(&name(number, 2), None));
        history(shelf, 2, b"1\t0/880000\tno recovery target specified\n");
        commit(shelf, &record(41, BackupKind::Full, 1, 2, 3));
    }
    let together = calls(&[&one, &two]);
    let (first, second) = (calls(&[&one]).remove(0), calls(&[&two]).remove(0));
    assert_eq!(together[0], first, "the first is asked what it would be asked alone");
    let of_segments = |calls: &[String]| -> Vec<String> {
        let wal = calls.iter().filter(|call| call.contains("/wal/") && !call.starts_with("list"));
        wal.filter(|call| !call.ends_with(".history")).cloned().collect()
    };
    // Two windows, and not the thirty segments before the end of each.
    assert_eq!(of_segments(&together[1]).len(), 2, "{:#?}", together[1]);
    assert!(of_segments(&first).len() > 60);
    for log in [&together[0], &together[1], &second] {
        let of_wal: Vec<&String> = log.iter().filter(|call| call.contains("/wal/")).collect();
        let different: BTreeSet<&String> = of_wal.iter().copied().collect();
        assert_eq!(of_wal.len(), different.len(), "nothing is asked twice: {log:#?}");
    }
}
