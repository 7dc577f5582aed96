//! A repository of format 1, as an earlier walden wrote it, must stay readable: `fixtures/repository-1`.
//!
//! `MAKE_GOLDEN_REPOSITORY=1` writes a new one where there is none. Not `UPDATE=1`: what lies there is a promise to those
//! who have such repositories, and is not renewed with the texts.

use crate::common::{Cluster, STANZA, Scratch, Walden, all_majors};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

const MAJOR: u32 = 15;

fn kept() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/repository-1")
}

fn copy_tree(scratch: &Scratch, from: &Path, to: &Path) {
    scratch.dir(to);
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let name = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(scratch, &entry.path(), &name);
        } else {
            scratch.write(&name, fs::read(entry.path()).unwrap());
        }
    }
}

fn shop(server: &Cluster) -> String {
    server.sql("select count(*) || ' ' || sum(n) || ' ' || md5(string_agg(what, '' order by n)) from things")
}

/// A backup with everything the format knows: packs, a map, notes, whole, partial and half segments, histories.
fn make(to: &Path) {
    assert!(!to.exists(), "{} exists: a promise is not renewed", to.display());
    let scratch = Scratch::new();
    let walden = Walden::new(&scratch);
    let mut cluster = Cluster::build(&scratch, MAJOR)
        .segment_size_mb(1)
        .conf(&["autovacuum = off"])
        .archive_command(&walden.archive_command())
        .start();
    walden.configure(&cluster, &["compress-level=19", "pack-size=4MiB"]);
    walden.ok(&["stanza-create"]);
    cluster.sql("update pg_database set datistemplate = false where datname = 'template0'");
    cluster.sql("drop database template0");
    cluster.sql("create table things as select n, 'thing ' || n as what from generate_series(1, 3000) n");
    let taken = walden.ok(&["backup", "--type=full", "--start-fast", "--output=json"]);
    let id = serde_json::from_str::<Value>(taken.text()).unwrap()["backup_id"].as_str().unwrap().to_owned();
    walden.ok(&["annotate", &format!("--set={id}"), "--annotation=why=to be read for ever"]);
    walden.ok(&["pin", &format!("--set={id}")]);
    let first = shop(&cluster);
    cluster.sql("insert into things select n, 'more ' || n from generate_series(3001, 4000) n");
    let second = shop(&cluster);
    cluster.sql("select pg_create_restore_point('two')");
    cluster.sql("delete from things where n % 3 = 0");
    cluster.archive_now();
    cluster.stop(crate::common::StopMode::Fast);
    // A second timeline, so that there is a history and an unfinished segment.
    let target = scratch.join("second");
    walden.ok(&["restore", &format!("--pg1-path={}", target.display()), "--archive-mode=preserve"]);
    let mut branch = cluster.start_restored(&target, &[]).unwrap();
    branch.wait_recovery_end();
    branch.sql("insert into things values (100000, 'after the branch')");
    branch.archive_now();
    let third = shop(&branch);
    branch.stop(crate::common::StopMode::Fast);

    fs::create_dir_all(to).unwrap();
    let repository = to.join("repository");
    let plain = Scratch::new();
    copy_tree(&plain, &walden.repo_path(), &plain.join("repository"));
    let moved =
        std::process::Command::new("cp").arg("-r").arg(plain.join("repository")).arg(&repository).status();
    assert!(moved.unwrap().success());
    fs::copy(walden.key_path(), to.join("key")).unwrap();
    let said = json!({ "major": MAJOR, "backup": id, "first": first, "second": second, "third": third });
    fs::write(to.join("said.json"), format!("{said:#}\n")).unwrap();
}

#[test]
fn a_repository_of_format_1_stays_readable() {
    let fixture = kept();
    if std::env::var_os("MAKE_GOLDEN_REPOSITORY").is_some_and(|value| value == "1") {
        make(&fixture);
    }
    assert!(all_majors().contains(&MAJOR));
    let said: Value = serde_json::from_slice(&fs::read(fixture.join("said.json")).unwrap()).unwrap();
    let scratch = Scratch::new();
    let walden = Walden::new(&scratch);
    copy_tree(&scratch, &fixture.join("repository"), &walden.repo_path());
    let key = scratch.write(walden.key_path(), fs::read(fixture.join("key")).unwrap());
    walden.config(&[
        "[global]",
        &format!("repo1-path={}", walden.repo_path().display()),
        "repo1-cipher-type=aes-256-gcm",
        &format!("repo1-cipher-pass-file={}", key.display()),
        &format!("spool-path={}", walden.join("spool").display()),
        &format!("lock-path={}", walden.join("lock").display()),
        &format!("log-path={}", walden.join("log").display()),
    ]);

    let info: Value = serde_json::from_str(walden.ok(&["info", "--output=json"]).text()).unwrap();
    let stanza = &info["stanzas"][0];
    assert_eq!(stanza["name"], STANZA);
    let backup = &stanza["backups"][0];
    assert_eq!(backup["id"], said["backup"]);
    assert_eq!(backup["annotations"]["why"], "to be read for ever", "{backup:#}");
    let verified = walden.ok(&["verify"]);
    assert!(verified.text().contains("good"), "{verified}");

    for (name, arguments, expected) in [
        ("immediate", &["--type=immediate", "--target-timeline=1"][..], &said["first"]),
        ("name", &["--type=name", "--target=two", "--target-timeline=1"], &said["second"]),
        ("latest", &["--type=default"], &said["third"]),
    ] {
        let target = scratch.join(name);
        let path = format!("--pg1-path={}", target.display());
        walden.ok(&[&["restore", path.as_str(), "--archive-mode=off"], arguments].concat());
        let mut server = Cluster::on_directory(&scratch, MAJOR, &target);
        server.start();
        if name == "latest" {
            server.wait_recovery_end()
        } else {
            server.wait_paused()
        }
        assert_eq!(shop(&server), expected.as_str().unwrap(), "{name}");
    }
}
