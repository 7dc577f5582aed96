//! Repositories of format 1, as an earlier walden wrote them, must stay readable: `fixtures/repository-1` has what most
//! have, `fixtures/repository-1-rare` the kinds of objects that come about by standbys, large segments, removals and
//! interruptions.
//!
//! `MAKE_GOLDEN_REPOSITORY=1` writes a new one where there is none. Not `UPDATE=1`: what lies there is a promise to those
//! who have such repositories, and is not renewed with the texts.

use crate::common::{Cluster, STANZA, Scratch, Walden, all_majors, kill_now, wait_until};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

const MAJOR: u32 = 15;

/// Where one of them lies; made first, if that was asked for.
fn kept(name: &str, make: fn(&Path)) -> PathBuf {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name);
    if std::env::var_os("MAKE_GOLDEN_REPOSITORY").is_some_and(|value| value == "1") && !fixture.exists() {
        make(&fixture);
    }
    assert!(all_majors().contains(&MAJOR));
    fixture
}

/// A copy of it that walden is configured for, and what was said of it when it was made.
fn opened(fixture: &Path) -> (Scratch, Walden, Value) {
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
    (scratch, walden, said)
}

/// Puts the repository, its key and what is to be said of it where they are kept.
fn keep(walden: &Walden, to: &Path, said: &Value) {
    fs::create_dir_all(to).unwrap();
    let repository = to.join("repository");
    let plain = Scratch::new();
    copy_tree(&plain, &walden.repo_path(), &plain.join("repository"));
    let moved =
        std::process::Command::new("cp").arg("-r").arg(plain.join("repository")).arg(&repository).status();
    assert!(moved.unwrap().success());
    fs::copy(walden.key_path(), to.join("key")).unwrap();
    fs::write(to.join("said.json"), format!("{said:#}\n")).unwrap();
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

/// A backup with what nearly every repository has: packs, a map, notes, segments, a `.backup` file, a history.
fn make(to: &Path) {
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

    let said = json!({ "major": MAJOR, "backup": id, "first": first, "second": second, "third": third });
    keep(&walden, to, &said);
}

/// The backup of a standby with the tail that it rests on, segments and a `.partial` in parts, a backup that was removed,
/// and one that was interrupted.
fn make_rare(to: &Path) {
    let scratch = Scratch::new();
    let walden = Walden::new(&scratch);
    let primary = Cluster::build(&scratch, MAJOR)
        .segment_size_mb(64)
        .conf(&["autovacuum = off"])
        .archive_command(&walden.archive_command())
        .start();
    walden.configure(&primary, &["compress-level=19", "pack-size=4MiB"]);
    walden.ok(&["stanza-create"]);
    primary.sql("update pg_database set datistemplate = false where datname = 'template0'");
    primary.sql("drop database template0");
    primary.sql("create table things as select n, 'thing ' || n as what from generate_series(1, 3000) n");
    let back_up = |more: &[&str]| {
        let taken = walden.ok(&[&["backup", "--type=full", "--start-fast", "--output=json"], more].concat());
        let taken: Value = serde_json::from_str(taken.text()).unwrap();
        taken["backup_id"].as_str().unwrap().to_owned()
    };
    let removed = back_up(&[]);
    let child = walden.spawn(&["backup", "--type=full", "--start-fast", "--max-rate=1M"]);
    wait_until("the copy to run", || {
        primary.sql("select count(*) from pg_stat_progress_basebackup where phase like 'streaming%'") == "1"
    });
    kill_now(child.id(), rustix::process::Signal::INT);
    walden.finish(child);

    let data = primary.pg_basebackup("standby", &["-R", "-X", "stream", "-C", "-S", "standby"]);
    let mut standby = Cluster::on_directory(&scratch, MAJOR, &data);
    standby.start();
    // In a segment that the primary has not archived.
    primary.sql("insert into things select n, 'more ' || n from generate_series(3001, 4000) n");
    let end = primary.flush_lsn();
    wait_until("the standby to replay", || {
        standby.sql(&format!("select pg_last_wal_replay_lsn() >= '{end}'")) == "t"
    });
    let sockets = format!("--pg1-socket-path={}", standby.socket_dir().display());
    let id = back_up(&[&sockets, &format!("--pg1-port={}", standby.port())]);
    let held = shop(&standby);
    walden.ok(&["expire", &format!("--set={removed}"), "--expire-delay=0"]);
    let open = primary.sql("select pg_walfile_name(pg_current_wal_lsn())");
    let unfinished = scratch.dir("unfinished").join(format!("{open}.partial"));
    scratch.write(&unfinished, fs::read(primary.data().join("pg_wal").join(&open)).unwrap());
    walden.ok(&["archive-push", unfinished.to_str().unwrap()]);
    keep(&walden, to, &json!({ "major": MAJOR, "backup": id, "removed": removed, "held": held }));
}

#[test]
fn a_repository_of_format_1_stays_readable() {
    let (scratch, walden, said) = opened(&kept("repository-1", make));
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

/// Every object below `folder`.
fn objects(root: &Path, folder: &Path) -> Vec<String> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(objects(root, &path));
        } else {
            all.push(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
        }
    }
    all
}

#[test]
fn what_is_rare_in_a_repository_of_format_1_stays_readable() {
    let (scratch, walden, said) = opened(&kept("repository-1-rare", make_rare));
    let id = said["backup"].as_str().unwrap();
    let keys = objects(&walden.repo_path(), &walden.repo_path().join(STANZA));
    let aborted = |key: &&String| {
        key.ends_with(".2-outcome") && !key.contains(id) && {
            let told = walden.ok(&["repo-get", key]);
            told.stdout.contains("aborted")
        }
    };
    assert!(keys.iter().any(|key| aborted(&key)), "{keys:#?}");
    for kind in [".3-retired", ".partial-", ".tail/", ".part/", ".1-started", ".backup-"] {
        let of_it: Vec<&String> = keys.iter().filter(|key| key.contains(kind)).collect();
        assert!(!of_it.is_empty(), "{kind}: {keys:#?}");
        for key in of_it {
            walden.ok(&["repo-get", key]);
        }
    }
    let info: Value = serde_json::from_str(walden.ok(&["info", "--output=json"]).text()).unwrap();
    let backups = info["stanzas"][0]["backups"].as_array().unwrap();
    assert_eq!(backups.iter().map(|one| &one["id"]).collect::<Vec<_>>(), [&said["backup"]]);
    let verified = walden.ok(&["verify"]);
    assert!(verified.text().contains("good"), "{verified}");

    let target = scratch.join("back");
    let path = format!("--pg1-path={}", target.display());
    walden.ok(&["restore", &path, "--type=immediate", "--archive-mode=off"]);
    let mut server = Cluster::on_directory(&scratch, MAJOR, &target);
    server.start();
    server.wait_paused();
    assert_eq!(shop(&server), said["held"].as_str().unwrap());
}
