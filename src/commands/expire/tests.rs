use crate::commands::testing::{self, NOW, Shelf, cluster, hours_ago, record_of, shop};
use crate::failure::Class;
use crate::repo::layout;
use crate::repo::notes::{Note, Pin, Says};
use crate::repo::record::Record;
use crate::units::{BackupId, BackupKind, SegmentName, TimelineId};
use std::collections::BTreeSet;

/// Compares with `fixtures/golden/expire/NAME`; `UPDATE=1` rewrites it.
fn golden(name: &str, actual: &str) {
    for line in actual.lines() {
        let is_failure = ["error: ", "  because: ", "  next: "].iter().any(|start| line.starts_with(start));
        assert!(
            is_failure || line.chars().count() <= 120 && line.trim_end() == line,
            "{line:?} in\n{actual}"
        );
    }
    testing::golden(&format!("expire/{name}"), actual);
}

/// What a run says, and how it ended.
fn run(shelf: &Shelf, more: &[&str]) -> (Result<crate::commands::Outcome, crate::failure::Failure>, String) {
    let mut line = vec!["--stanza=shop".to_owned()];
    line.extend(shelf.options(1));
    line.extend(more.iter().map(ToString::to_string));
    let line: Vec<&str> = line.iter().map(String::as_str).collect();
    let (ended, seen) = testing::run("expire", &line, super::run);
    let mut said = format!("{}{}", seen.data(), seen.console());
    if let Err(failure) = &ended {
        said.push_str(&failure.to_string());
        said.push('\n');
    }
    let place = shelf.join("repo").display().to_string();
    (ended, said.replace(&place, "/srv/walden"))
}

fn stored(shelf: &Shelf) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    let mut add = |listed: crate::storage::Listed| {
        all.insert(listed.key.to_string());
    };
    shelf.repository.store().list(&crate::storage::Key::new("shop").unwrap(), &mut add).unwrap();
    all
}

fn data(shelf: &Shelf, id: &BackupId, bytes: usize) {
    let key = layout::pack(&shop(), id, 0).unwrap().key;
    shelf.repository.store().create(&key, &vec![7; bytes]).unwrap();
}

fn segment(shelf: &Shelf, number: u64) {
    let name = SegmentName::from_number(TimelineId::FIRST, number, cluster().segment_size).unwrap();
    // As many hours ago as there are segments to 60.
    shelf.store_segment(&name.to_string(), Some(hours_ago((60 - i64::try_from(number).unwrap()).max(0) * 4)));
}

fn pin(shelf: &Shelf, id: &BackupId) {
    let says = Says::Pin(Pin { reason: Some("the auditors come".into()), until_unix_us: None });
    let note = Note::new(id, None, says, "0.1.0", &shelf.env).unwrap();
    shelf.repository.write_note(&shop(), &note, &shelf.env).unwrap();
}

/// Backups 240, 200, 120, 60 and 4 hours old, each with data; WAL since long before the first.
fn shelf() -> (Shelf, Vec<Record>) {
    let shelf = Shelf::new();
    for number in 1..=60 {
        segment(&shelf, number);
    }
    let mut records = Vec::new();
    for (hours, kind, first) in [
        (240, BackupKind::Full, 4),
        (200, BackupKind::Full, 10),
        (120, BackupKind::Incremental, 30),
        (60, BackupKind::Full, 45),
        (4, BackupKind::Full, 59),
    ] {
        let record = record_of(hours, kind, 1, first, first);
        shelf.commit(&record);
        data(&shelf, &record.backup_id, usize::try_from(hours).unwrap() * 1000);
        records.push(record);
    }
    (shelf, records)
}

#[test]
fn the_plan_says_why_each_stays_or_goes_and_a_dry_run_changes_nothing() {
    let (shelf, records) = shelf();
    pin(&shelf, &records[0].backup_id);
    let stuck = record_of(100, BackupKind::Full, 1, 40, 40);
    drop(shelf.begin(&stuck));
    let fresh = record_of(1, BackupKind::Full, 1, 60, 60);
    drop(shelf.begin(&fresh));
    shelf
        .begin(&record_of(3, BackupKind::Full, 1, 60, 60))
        .abort("the server went away", &shelf.env)
        .unwrap();
    let before = stored(&shelf);
    let mut said = String::new();
    for more in [
        &["--repo1-retention-full=2"][..],
        &["--repo1-keep-window=7d"],
        &["--repo1-retention-full=1", "--repo1-keep-window=3d"],
        &[],
    ] {
        said.push_str(format!("$ walden expire --dry-run {}", more.join(" ")).trim_end());
        said.push('\n');
        let (ended, told) = run(&shelf, &[&["--dry-run"], more].concat());
        ended.unwrap();
        said.push_str(&told);
    }
    golden("plans.txt", &said);
    let json = run(&shelf, &["--dry-run", "--repo1-retention-full=2", "--output=json"]).1;
    golden("plan.json", &json);
    assert_eq!(stored(&shelf), before);
}

#[test]
fn what_goes_is_unlisted_at_once_and_deleted_after_the_delay() {
    let (shelf, records) = shelf();
    let before = stored(&shelf);
    let mut said = run(&shelf, &["--repo1-retention-full=2"]).1;
    let after = stored(&shelf);
    let gone: Vec<_> = before.difference(&after).collect();
    // WAL before the first backup was of no use to anybody; all else waits.
    assert!(gone.iter().all(|key| key.contains("/wal/")) && gone.len() == 3, "{gone:#?}");
    let new: Vec<_> = after.difference(&before).collect();
    assert_eq!(new.len(), 3);
    assert!(new.iter().all(|key| key.ends_with(".3-retired")));
    let live: Vec<BackupId> = shelf.repository.catalog(&shop()).unwrap().candidates().cloned().collect();
    assert_eq!(live, [records[3].backup_id.clone(), records[4].backup_id.clone()]);
    said.push_str(&run(&shelf, &["--repo1-retention-full=2", "--dry-run"]).1);
    said.push_str(&run(&shelf, &["--repo1-retention-full=2", "--expire-delay=0"]).1);
    golden("removal.txt", &said);
    let after = stored(&shelf);
    for record in &records[..3] {
        let of_it = after.iter().filter(|key| key.contains(record.backup_id.as_str()));
        assert_eq!(of_it.collect::<Vec<_>>(), [&format!("shop/catalog/{}.3-retired", record.backup_id)]);
    }
    let wal = after.iter().filter(|key| key.contains("/wal/")).count();
    assert_eq!(wal, 60 - 44, "{after:#?}");
}

#[test]
fn one_backup_is_removed_by_name_the_last_one_with_a_warning_and_a_pinned_one_not() {
    let (shelf, records) = shelf();
    pin(&shelf, &records[1].backup_id);
    let mut said = String::new();
    let mut say = |more: &[&str]| {
        let (ended, told) = run(&shelf, more);
        said.push_str(&format!("$ walden expire {}\n{told}", more.join(" ")));
        ended
    };
    let set = |at: usize| format!("--set={}", records[at].backup_id);
    assert_eq!(say(&[&set(1)]).unwrap_err().class(), Class::Usage);
    assert_eq!(say(&["--set=2026"]).unwrap_err().class(), Class::Usage);
    assert_eq!(say(&["--set=2025"]).unwrap_err().class(), Class::NoRepository);
    assert_eq!(say(&[&set(0), "--expire-delay=0"]).unwrap(), crate::commands::Outcome::Done);
    golden("by-name.txt", &said);
    for at in 2..5 {
        run(&shelf, &[&set(at), "--expire-delay=0"]).0.unwrap();
    }
    let catalog = shelf.repository.catalog(&shop()).unwrap();
    let notes = catalog.entries[&records[1].backup_id].notes.clone();
    for note in notes {
        shelf
            .repository
            .store()
            .delete(&layout::note(&shop(), &records[1].backup_id, note).unwrap().key)
            .unwrap();
    }
    let (ended, told) = run(&shelf, &[&set(1), "--expire-delay=0"]);
    assert_eq!(ended.unwrap(), crate::commands::Outcome::DoneWithWarnings);
    assert!(told.contains("is the last backup"), "{told}");
    // Nothing tells any more which WAL is needed: what is left of it stays.
    let after = stored(&shelf);
    assert_eq!(after.iter().filter(|key| key.contains("/wal/")).count(), 51);
    assert!(!after.iter().any(|key| key.contains("/data/")));
    let (_, told) = run(&shelf, &["--repo1-retention-full=1"]);
    assert!(told.contains("There is no backup."), "{told}");
}

#[test]
fn what_cannot_be_understood_stops_everything_and_is_said() {
    let (shelf, records) = shelf();
    let mut said = String::new();
    let mut refuse = |what: &str| {
        let before = stored(&shelf);
        let (ended, told) = run(&shelf, &["--repo1-retention-full=1", "--expire-delay=0"]);
        said.push_str(&format!("# {what}\n{told}"));
        assert_eq!(ended.unwrap_err().class(), Class::Damaged, "{what}");
        assert_eq!(stored(&shelf), before, "{what}");
    };
    let catalog = shelf.join("repo/shop/catalog");
    let strange = catalog.join(format!("{}.4-later", records[0].backup_id));
    std::fs::write(&strange, "x").unwrap();
    refuse("a name of a later version");
    std::fs::remove_file(strange).unwrap();
    let parent = record_of(77, BackupKind::Full, 1, 1, 1);
    let child = record_of(2, BackupKind::Incremental, 1, 60, 60);
    shelf.begin(&child);
    let started = layout::started(&shop(), &child.backup_id).unwrap();
    let mut says: crate::repo::record::Started = shelf.repository.read_json(&started).unwrap();
    says.parents = vec![parent.backup_id.to_string()];
    shelf.repository.store().delete(&started.key).unwrap();
    shelf.repository.create_json(&started, &says, &shelf.env).unwrap();
    refuse("an open backup builds on one that is gone");
    shelf.repository.store().delete(&started.key).unwrap();
    let file = catalog.join(format!("{}.2-outcome", records[2].backup_id));
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    refuse("a record is damaged");
    // Removing that one by name is the way out, and blocks nothing afterwards.
    let (ended, told) = run(&shelf, &[&format!("--set={}", records[2].backup_id)]);
    ended.unwrap();
    said.push_str(&told);
    golden("not-understood.txt", &said);
    run(&shelf, &["--repo1-retention-full=1"]).0.unwrap();
    run(&shelf, &["--repo1-retention-full=1", "--expire-delay=0"]).0.unwrap();
    assert_eq!(shelf.repository.catalog(&shop()).unwrap().candidates().count(), 1);
    assert!(NOW > hours_ago(1));
}
