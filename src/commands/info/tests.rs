mod alone;

use super::*;
use crate::commands::testing::{self, Shelf, cluster, hours_ago, record_of as record, shop};
use crate::repo::notes::{Annotate, Note, Pin, Says};
use crate::repo::record::{PageFailure, Record};
use crate::units::{BackupKind, SegmentName, TimelineId};
use jiff::tz::TimeZone;

fn timeline(number: u32) -> TimelineId {
    TimelineId::new(number).unwrap()
}

fn name(number: u64, on: u32) -> String {
    SegmentName::from_number(timeline(on), number, cluster().segment_size).unwrap().to_string()
}

/// Segments of a timeline; the last commit of each is `hours` ago for the first and an hour less for each other.
fn segments(shelf: &Shelf, on: u32, numbers: std::ops::RangeInclusive<u64>, hours: i64) {
    for (number, hours) in numbers.zip((0..=hours).rev()) {
        shelf.store_segment(&name(number, on), Some(hours_ago(hours)));
    }
}

fn commit(shelf: &Shelf, record: &Record) {
    shelf.commit(record);
}

fn look_at(options: &[String], more: &[&str]) -> (Result<Overview, Failure>, String) {
    let line: Vec<&str> = options.iter().map(String::as_str).chain(more.iter().copied()).collect();
    let (overview, seen) = testing::with("info", &line, overview);
    let overview = overview.map(|mut overview| {
        for view in overview.stanzas.iter_mut().flat_map(|stanza| &mut stanza.repositories) {
            view.place = format!("/srv/walden{}", view.index);
            if let view::State::Holds(holding) = &mut view.state {
                // How well zeros compress is the codec's business.
                holding.wal_bytes = crate::units::ByteCount::new(holding.wal_bytes.as_u64() / 1_000_000);
            }
        }
        overview
    });
    (overview, seen.console())
}

/// Compares with `fixtures/golden/info/NAME`; `UPDATE=1` rewrites it.
fn golden(name: &str, actual: &str) {
    let is_text = !name.ends_with("json");
    assert!(
        !is_text || actual.lines().all(|line| line.chars().count() <= 100 && line.trim_end() == line),
        "{actual}"
    );
    testing::golden(&format!("info/{name}"), actual);
}

fn texts(shelves: &[&Shelf], more: &[&str]) -> (String, serde_json::Value) {
    let options: Vec<String> =
        shelves.iter().zip(1..).flat_map(|(shelf, index)| shelf.options(index)).collect();
    let overview = look_at(&options, more).0.unwrap();
    (text::overview(&overview, &TimeZone::UTC), json::document(&overview, None))
}

#[test]
fn windows_go_on_over_a_failover_and_the_branch_left_behind_is_one_of_its_own() {
    let shelf = Shelf::new();
    segments(&shelf, 1, 2..=9, 40);
    segments(&shelf, 2, 8..=20, 12);
    let wal = crate::wal::ClusterWal { repo: &shelf.repository, stanza: &shop(), system: cluster().system };
    let history = b"1\t0/880000\tno recovery target specified\n";
    let parsed = crate::postgres::history::TimelineHistory::parse(timeline(2), history).unwrap();
    crate::wal::write::store_history(wal, history, &parsed, &shelf.env).unwrap();
    commit(&shelf, &record(41, BackupKind::Full, 1, 2, 3));
    commit(&shelf, &record(7, BackupKind::Incremental, 2, 13, 14));
    let (text, json) = texts(&[&shelf], &[]);
    golden("failover.txt", &text);
    golden("failover.json", &format!("{json:#}\n"));
}

#[test]
fn what_is_missing_damaged_or_behind_is_said_and_hides_nothing() {
    let (one, two) = (Shelf::new(), Shelf::new());
    segments(&one, 1, 2..=6, 60);
    segments(&one, 1, 9..=14, 6);
    segments(&two, 1, 4..=6, 58);
    segments(&two, 1, 9..=12, 6);
    let mut first = record(61, BackupKind::Full, 1, 2, 3);
    first.annotations.insert("ticket".into(), "OPS-311".into());
    first.annotations.insert(
        "why".into(),
        "before the great migration of every customer to the new address format, which nobody wants".into(),
    );
    commit(&one, &first);
    let mut second = record(5, BackupKind::Full, 1, 10, 10);
    second.page_checksums.failure_count = 4;
    second.page_checksums.failures = (0..4)
        .map(|block| PageFailure {
            path: "base/16384/24601".into(),
            block,
            relation: Some("table public.orders".into()),
        })
        .collect();
    commit(&one, &second);
    commit(&two, &second);
    // What is noted later changes what the record says, wherever it was noted.
    let note = |shelf: &Shelf, says: Says| {
        let note = Note::new(&second.backup_id, None, says, "0.1.0", &shelf.env).unwrap();
        shelf.repository.write_note(&shop(), &note, &shelf.env).unwrap();
    };
    let pairs = |key: &str, value: &str| [(key.to_owned(), value.to_owned())].into();
    note(&one, Says::Annotate(Annotate { set: pairs("ticket", "OPS-312"), ..Annotate::default() }));
    note(&two, Says::Pin(Pin { reason: Some("audit of 2026".into()), until_unix_us: None }));
    let until = Some(hours_ago(-240).as_unix_micros());
    note(&one, Says::Pin(Pin { reason: None, until_unix_us: until }));
    note(
        &one,
        Says::Pin(Pin { reason: Some("over".into()), until_unix_us: Some(hours_ago(1).as_unix_micros()) }),
    );
    // Its own WAL lies in the gap.
    commit(&one, &record(30, BackupKind::Incremental, 1, 7, 7));
    // And a record that is not what was stored.
    let broken = record(20, BackupKind::Incremental, 1, 9, 9);
    commit(&two, &broken);
    let file = two.join("repo").join(format!("shop/catalog/{}.2-outcome", broken.backup_id));
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(&file, bytes).unwrap();

    let (text, json) = texts(&[&one, &two], &[]);
    golden("troubles.txt", &text);
    golden("troubles.json", &format!("{json:#}\n"));

    let options: Vec<String> = one.options(1).into_iter().chain(two.options(2)).collect();
    let overview = look_at(&options, &[]).0.unwrap();
    let berlin = TimeZone::get("Europe/Berlin").unwrap();
    golden(
        "one-backup.txt",
        &text::one_backup(&overview, &second.backup_id.as_str()[..20], &berlin).unwrap(),
    );
    assert!(
        text::one_backup(&overview, broken.backup_id.as_str(), &berlin).unwrap().contains("cannot be read")
    );
    assert!(text::overview(&overview, &berlin).contains("(10:41:16 in Europe/Berlin)"));
    assert_eq!(text::one_backup(&overview, "2026", &berlin).unwrap_err().class(), Class::Usage);
    assert_eq!(text::one_backup(&overview, "2025", &berlin).unwrap_err().class(), Class::NoRepository);
}

#[test]
fn a_repository_that_cannot_be_opened_does_not_hide_the_others() {
    let shelf = Shelf::new();
    let mut options = shelf.options(1);
    options.push(format!("--repo2-path={}", shelf.join("nowhere").display()));
    let (overview, told) = look_at(&options, &[]);
    let overview = overview.unwrap();
    golden(
        "unavailable.txt",
        &text::overview(&overview, &TimeZone::UTC)
            .replace(&shelf.join("nowhere").display().to_string(), "/srv/walden2"),
    );
    assert!(overview.stanzas[0].is_partial());
    assert!(told.contains("repo2"), "{told}");
}

#[test]
fn a_cluster_that_cannot_be_read_hides_neither_the_stanza_nor_its_backups() {
    let shelf = Shelf::new();
    segments(&shelf, 1, 2..=6, 60);
    let path = shelf.join(&format!("repo/shop/cluster/{}", cluster().system));
    std::fs::write(path, "x").unwrap();
    let overview = look_at(&shelf.options(1), &["--stanza=shop"]).0.unwrap();
    assert!(overview.stanzas[0].is_partial());
    commit(&shelf, &record(5, BackupKind::Full, 1, 3, 4));
    let (text, _) = texts(&[&shelf], &[]);
    golden("no-cluster.txt", &text);
}

#[test]
fn a_stanza_that_is_not_there_is_said() {
    let shelf = Shelf::new();
    let refused = |options: &[String], more: &[&str]| {
        let failure = look_at(options, more).0.err().expect("a failure");
        (failure.class(), failure.what().to_owned())
    };
    let options = shelf.options(1);
    assert_eq!(
        refused(&options, &["--stanza=other"]),
        (Class::NoRepository, "there is no stanza other".into())
    );
    assert!(look_at(&options, &["--stanza=shop"]).0.is_ok());
    let nowhere = vec![format!("--repo1-path={}", shelf.join("nowhere").display())];
    assert_eq!(refused(&nowhere, &[]).0, Class::NoRepository);
    // It may be in the repository that cannot be looked into: not "no such stanza".
    let mut half = options.clone();
    half.push(format!("--repo2-path={}", shelf.join("key").display()));
    assert_ne!(refused(&half, &["--stanza=other"]).0, Class::NoRepository);

    std::fs::remove_dir_all(shelf.join("repo/shop")).unwrap();
    assert_eq!(refused(&options, &[]), (Class::NoRepository, "there is no stanza".into()));
}
