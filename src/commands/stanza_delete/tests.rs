use crate::commands::testing::{self, Shelf, cluster, record, record_of, shop};
use crate::commands::{Outcome, stop};
use crate::failure::{Class, Failure};
use crate::repo::layout;
use crate::repo::notes::{Note, Pin, Says};
use crate::repo::record::Record;
use crate::units::{BackupKind, PgMajor, SystemIdentifier};

/// Compares with `fixtures/golden/stanza-delete/NAME`; `UPDATE=1` rewrites it.
fn golden(name: &str, actual: &str) {
    testing::golden(&format!("stanza-delete/{name}"), actual);
}

fn run(shelf: &Shelf, command: &str, more: &[&str]) -> (Result<Outcome, Failure>, String) {
    let mut line = vec!["--stanza=shop".to_owned(), format!("--lock-path={}", shelf.join("locks").display())];
    if command == "stanza-delete" {
        line.extend(shelf.options(1));
    }
    line.extend(more.iter().map(ToString::to_string));
    let line: Vec<&str> = line.iter().map(String::as_str).collect();
    let runner = crate::commands::runner(command).unwrap();
    let (ended, seen) = testing::run(command, &line, runner);
    let mut said = format!("$ walden {command} {}\n", more.join(" ")).replace(" \n", "\n");
    said.push_str(&format!("{}{}", seen.data(), seen.console()));
    if let Err(failure) = &ended {
        said.push_str(&format!("{failure}\n"));
    }
    let said = said.replace(&shelf.join("repo").display().to_string(), "/srv/walden");
    (ended, said.replace(&shelf.join("locks").display().to_string(), "/run/walden"))
}

/// Two clusters, a backup of each, one that is open, and WAL.
fn shelf() -> (Shelf, [Record; 2]) {
    let shelf = Shelf::new();
    let newer = crate::repo::Cluster {
        system: SystemIdentifier::new(cluster().system.as_u64() + 7),
        major: PgMajor::new(18),
        ..cluster()
    };
    shelf.repository.add_cluster(&shop(), &newer, &shelf.env).unwrap();
    let records = [record(30), Record { system_identifier: newer.system, ..record(4) }];
    for record in &records {
        shelf.commit(record);
        let key = layout::pack(&shop(), &record.backup_id, 0).unwrap().key;
        shelf.repository.store().create(&key, &[7; 4000]).unwrap();
    }
    drop(shelf.begin(&record_of(1, BackupKind::Full, 1, 5, 5)));
    shelf.store_segment("000000010000000000000002", None);
    shelf.store_segment("000000010000000000000003", None);
    (shelf, records)
}

fn count(shelf: &Shelf) -> usize {
    let mut count = 0;
    shelf.repository.store().list(&crate::storage::Key::new("shop").unwrap(), &mut |_| count += 1).unwrap();
    count
}

#[test]
fn a_stanza_is_deleted_only_when_it_is_stopped_shown_unpinned_and_confirmed() {
    let (shelf, records) = shelf();
    let before = count(&shelf);
    let mut said = String::new();
    let mut say = |command: &str, more: &[&str]| {
        let (ended, told) = run(&shelf, command, more);
        said.push_str(&told);
        ended
    };
    assert_eq!(say("stanza-delete", &["--dry-run"]).unwrap(), Outcome::Done);
    assert_eq!(say("stanza-delete", &["--yes"]).unwrap_err().class(), Class::Usage);
    say("stop", &[]).unwrap();
    say("stop", &[]).unwrap();
    assert_eq!(say("stanza-delete", &[]).unwrap_err().class(), Class::Usage);
    let pin = Says::Pin(Pin { reason: Some("the auditors come".into()), until_unix_us: None });
    let note = Note::new(&records[0].backup_id, None, pin, "0.1.0", &shelf.env).unwrap();
    shelf.repository.write_note(&shop(), &note, &shelf.env).unwrap();
    assert_eq!(say("stanza-delete", &["--yes"]).unwrap_err().class(), Class::Usage);
    assert_eq!(count(&shelf), before + 1, "something was changed before it was confirmed");
    assert_eq!(say("stanza-delete", &["--yes", "--force"]).unwrap(), Outcome::Done);
    // Three retired names, and the outcome of the one that was aborted.
    assert_eq!(count(&shelf), 4);
    assert_eq!(say("start", &[]).unwrap(), Outcome::Done);
    say("stop", &[]).unwrap();
    assert_eq!(say("stanza-delete", &["--yes"]).unwrap_err().class(), Class::NoRepository);
    golden("deleted.txt", &said);
}

#[test]
fn a_stop_file_stops_what_writes_its_stanza_or_all_and_nothing_that_reads() {
    let (shelf, _) = shelf();
    let lock = format!("--lock-path={}", shelf.join("locks").display());
    let refused = |command: &str, stanza: &str| {
        let mut line = vec![format!("--stanza={stanza}"), lock.clone()];
        line.extend(shelf.options(1));
        if command == "pin" {
            line.push("--set=2026".to_owned());
        }
        let line: Vec<&str> = line.iter().map(String::as_str).collect();
        testing::with(command, &line, stop::require_not_stopped).0.map_err(|failure| failure.to_string())
    };
    let mut said = String::new();
    let writers = ["archive-push", "backup", "expire", "pin", "stanza-create", "stanza-upgrade"];
    run(&shelf, "stop", &[]).0.unwrap();
    for command in writers {
        let failure = refused(command, "shop").unwrap_err();
        said.push_str(&format!("{failure}\n"));
        refused(command, "all").unwrap();
    }
    run(&shelf, "start", &[]).0.unwrap();
    for command in writers {
        refused(command, "shop").unwrap();
    }
    let (ended, seen) = testing::run("stop", &[&lock], stop::stop);
    ended.unwrap();
    said.push_str(&seen.console());
    said.push_str(&format!("{}\n", refused("archive-push", "all").unwrap_err()));
    let (_, seen) = testing::run("start", &["--stanza=shop", &lock], stop::start);
    said.push_str(&seen.console());
    golden("stopped.txt", &said.replace(&shelf.join("locks").display().to_string(), "/run/walden"));
    // A lock-path that is a file, or may not be looked into, stops nothing.
    testing::run("start", &[&lock], stop::start).0.unwrap();
    std::fs::remove_dir_all(shelf.join("locks")).unwrap();
    std::fs::write(shelf.join("locks"), "").unwrap();
    refused("archive-push", "shop").unwrap();
}
