//! A stanza's life: stopped and started, upgraded with its cluster, deleted and made anew.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use rustix::process::Signal;
use serde_json::Value;

use crate::common::{
    Cluster, Replace, STANZA, Scratch, Server, StopMode, Walden, finish, golden, kill_now, newest_major,
    oldest_major, wait_until,
};

const SYSTEM: &str = "select system_identifier from pg_control_system()";

/// The configuration with another server's address.
fn point_at(walden: &Walden, cluster: &Cluster) {
    let lines = fs::read_to_string(walden.config_path()).unwrap();
    let lines: Vec<String> = lines
        .lines()
        .map(|line| match line.split_once('=').map_or(line, |(name, _)| name) {
            "pg1-path" => format!("pg1-path={}", cluster.data().display()),
            "pg1-socket-path" => format!("pg1-socket-path={}", cluster.socket_dir().display()),
            "pg1-port" => format!("pg1-port={}", cluster.port()),
            _ => line.to_owned(),
        })
        .collect();
    walden.config(&lines.iter().map(String::as_str).collect::<Vec<_>>());
}

fn info(walden: &Walden) -> Value {
    serde_json::from_str(walden.ok(&["info", "--output=json"]).text()).unwrap()
}

/// Newest first.
fn listed(walden: &Walden) -> Vec<String> {
    let info = info(walden);
    let backups = info["stanzas"][0]["backups"].as_array().cloned().unwrap_or_default();
    backups.iter().map(|backup| backup["id"].as_str().unwrap().to_owned()).collect()
}

/// Every object of the stanza.
fn stored(walden: &Walden) -> Vec<String> {
    let mut all = Vec::new();
    let mut folders = vec![walden.repo_path().join(STANZA)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(folder) else { continue };
        for entry in entries.flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                all.push(path.strip_prefix(walden.repo_path()).unwrap().display().to_string());
            }
        }
    }
    all.sort();
    all
}

/// Runs `pg_upgrade` of the newer server's version; both are stopped.
fn pg_upgrade(scratch: &Scratch, old: &Cluster, new: &Cluster) {
    let place = scratch.dir("upgrade");
    let mut command = scratch.command(new.server().program("pg_upgrade"));
    command
        .current_dir(&place)
        .arg("-b")
        .arg(&Server::of(old.major()).bin)
        .arg("-B")
        .arg(&new.server().bin)
        .arg("-d")
        .arg(old.data())
        .arg("-D")
        .arg(new.data())
        .arg("-s")
        .arg(old.socket_dir())
        .args(["-U", "postgres", "-p", "50432", "-P", "50433", "--no-sync"]);
    let out = finish(command);
    assert!(out.success(), "{out}");
}

fn restore(walden: &Walden, to: &Path, more: &[&str]) -> String {
    let path = format!("--pg1-path={}", to.display());
    let out =
        walden.ok(&[&["restore", path.as_str(), "--archive-mode=off", "--type=default"], more].concat());
    format!("{}{}", out.stdout, out.stderr)
}

#[test]
fn after_pg_upgrade_one_stanza_holds_both_clusters_and_both_come_back() {
    let scratch = Scratch::new();
    let walden = Walden::new(&scratch);
    let (from, to) = (oldest_major(), newest_major());
    let build = |major: u32, name: &str| {
        Cluster::build(&scratch, major)
            .name(name)
            .segment_size_mb(1)
            .conf(&["autovacuum = off", "wal_keep_size = 64MB"])
            .archive_command(&walden.archive_command())
    };
    let mut old = build(from, "old").start();
    walden.configure(&old, &["pack-size=4MiB", "expire-delay=0"]);
    walden.ok(&["stanza-create"]);
    old.sql("create table rounds (n int); insert into rounds values (1)");
    walden.ok(&["backup", "--type=full", "--start-fast"]);
    old.sql("insert into rounds values (2)");
    old.archive_now();
    let (old_dump, old_system) = (old.dump(), old.sql(SYSTEM));
    let old_id = listed(&walden).remove(0);
    let again = walden.ok(&["stanza-upgrade"]);
    assert!(again.stderr.contains("already"), "{again}");
    old.stop(StopMode::Fast);

    let mut new = build(to, "new").create();
    pg_upgrade(&scratch, &old, &new);
    point_at(&walden, &new);
    new.start();
    for command in [&["backup", "--type=full"][..], &["stanza-create"]] {
        let refused = walden.fails(21, command);
        assert!(refused.stderr.contains("stanza-upgrade"), "{refused}");
    }
    let segment = new.data().join("pg_wal").join(new.sql("select pg_walfile_name(pg_current_wal_lsn())"));
    let refused = walden.fails(21, &["archive-push", &segment.display().to_string()]);
    assert!(refused.stderr.contains(&format!("the stanza holds {old_system}")), "{refused}");

    let new_system = new.sql(SYSTEM);
    let systems = [
        Replace::text(&old_system, "OLD-SYSTEM"),
        Replace::text(&new_system, "NEW-SYSTEM"),
        Replace::text(format!("PostgreSQL {from}"), "PostgreSQL OLD"),
        Replace::text(format!("PostgreSQL {to}"), "PostgreSQL NEW"),
    ];
    let upgraded = walden.ok(&["stanza-upgrade"]);
    let twice = walden.ok(&["stanza-upgrade"]);
    golden("stanza-upgrade", &format!("{}---\n{}", upgraded.stderr, twice.stderr), &systems);
    // Until there is a backup of the new one, a restore brings the old one back, and says so.
    let back = scratch.join("back");
    let path = format!("--pg1-path={}", back.display());
    let plan = walden.ok(&["restore", &path, "--dry-run"]);
    assert!(plan.stdout.contains(&format!("{new_system}: no backup of it exists")), "{plan}");

    walden.ok(&["backup", "--type=full", "--start-fast"]);
    new.sql("insert into rounds values (3)");
    new.archive_now();
    let new_dump = new.dump();
    let shown = info(&walden);
    let clusters = shown["stanzas"][0]["clusters"].as_array().unwrap();
    assert_eq!(clusters.len(), 2, "{shown:#}");
    assert_eq!(listed(&walden).len(), 2);
    // No policy removes the newest backup of a cluster.
    walden.ok(&["expire", "--repo1-retention-full=1"]);
    assert_eq!(listed(&walden).len(), 2);

    let said = restore(&walden, &back, &[]);
    assert!(said.contains(&format!("of PostgreSQL {to}, system {new_system}")), "{said}");
    assert!(said.contains(&format!("PostgreSQL {from}, system {old_system}: --set=ID")), "{said}");
    let mut server = new.start_restored(&back, &[]).unwrap_or_else(|log| panic!("{log}"));
    server.wait_recovery_end();
    assert_eq!(server.dump(), new_dump);
    drop(server);
    let back = scratch.join("back-old");
    restore(&walden, &back, &[&format!("--set={old_id}")]);
    let mut server = old.start_restored(&back, &[]).unwrap_or_else(|log| panic!("{log}"));
    server.wait_recovery_end();
    assert_eq!(server.dump(), old_dump);
    drop(server);

    // Another cluster of the older version is no successor.
    let third = build(from, "third").create();
    point_at(&walden, &third);
    let refused = walden.fails(21, &["stanza-upgrade"]);
    assert!(refused.stderr.contains("to an older PostgreSQL"), "{refused}");
    fs::remove_file(third.data().join("global/pg_control")).unwrap();
    walden.fails(20, &["stanza-upgrade"]);
}

fn names_only(walden: &Walden) -> bool {
    stored(walden).iter().all(|name| name.ends_with(".3-retired") || name.ends_with(".2-outcome"))
}

#[test]
fn a_stopped_stanza_is_deleted_and_a_backup_that_slept_through_it_fails() {
    let scratch = Scratch::new();
    let walden = Walden::new(&scratch);
    let cluster = Cluster::build(&scratch, newest_major())
        .segment_size_mb(1)
        .conf(&["autovacuum = off", "wal_keep_size = 256MB", "wal_sender_timeout = 0"])
        .archive_command(&walden.archive_command())
        .start();
    walden.configure(&cluster, &["pack-size=4MiB", "expire-delay=0", "process-max=1"]);
    walden.ok(&["stanza-create"]);
    cluster.pgbench_init(2);
    walden.ok(&["backup", "--type=full", "--start-fast"]);
    cluster.archive_now();

    walden.ok(&["stop"]);
    let segment =
        cluster.data().join("pg_wal").join(cluster.sql("select pg_walfile_name(pg_current_wal_lsn())"));
    walden.fails(11, &["archive-push", &segment.display().to_string()]);
    for command in ["backup", "expire", "stanza-create", "stanza-upgrade"] {
        let refused = walden.fails(11, &[command]);
        assert!(refused.stderr.contains("is stopped on this host"), "{refused}");
    }
    assert_eq!(listed(&walden).len(), 1);
    let back = scratch.join("back");
    restore(&walden, &back, &[]);
    let mut server = cluster.start_restored(&back, &[]).unwrap_or_else(|log| panic!("{log}"));
    server.wait_recovery_end();
    drop(server);
    walden.ok(&["start"]);

    let sleeper =
        walden.spawn(&["backup", "--type=full", "--start-fast", "--max-rate=4M", "--archive-check=n"]);
    wait_until("the copy to run", || {
        cluster.sql("select count(*) from pg_stat_progress_basebackup where phase like 'streaming%'") == "1"
    });
    kill_now(sleeper.id(), Signal::STOP);
    walden.fails(2, &["stanza-delete", "--yes"]);
    walden.ok(&["stop"]);
    let before = stored(&walden);
    walden.fails(2, &["stanza-delete"]);
    let planned = walden.ok(&["stanza-delete", "--dry-run", "--output=json"]);
    let planned: Value = serde_json::from_str(planned.text()).unwrap();
    let planned = &planned["repositories"][0];
    let count = |what: &str| before.iter().filter(|name| name.contains(what)).count();
    assert_eq!(planned["wal_objects"], count("/wal/"), "{planned:#}");
    assert_eq!(planned["backups"].as_array().map(Vec::len), Some(1), "{planned:#}");
    assert_eq!(planned["open"].as_array().map(Vec::len), Some(1), "{planned:#}");
    assert_eq!(stored(&walden), before);

    // Killed in the middle of it, and again a little later; then it ends.
    for first in [true, false] {
        let wal = |names: &[String]| names.iter().filter(|name| name.contains("/wal/")).count();
        let child = walden.spawn(&["stanza-delete", "--yes"]);
        wait_until("it to begin", || {
            let now = stored(&walden);
            now.iter().any(|name| name.ends_with(".3-retired")) && (first || wal(&now) < wal(&before))
        });
        kill_now(child.id(), Signal::KILL);
        walden.finish(child);
        if stored(&walden).iter().any(|name| name.contains("/cluster/")) {
            assert!(listed(&walden).is_empty(), "half of a backup is shown");
        }
    }
    let last = walden.run(&["stanza-delete", "--yes"]);
    assert!(matches!(last.code, Some(0 | 10)), "{last}");
    assert!(names_only(&walden), "{:#?}", stored(&walden));
    walden.ok(&["start"]);
    walden.fails(10, &["backup", "--type=full"]);

    walden.ok(&["stanza-create"]);
    kill_now(sleeper.id(), Signal::CONT);
    let out = walden.finish(sleeper);
    assert_eq!(out.code, Some(11), "{out}");
    assert!(listed(&walden).is_empty());
    walden.ok(&["backup", "--type=full", "--start-fast"]);
    assert_eq!(listed(&walden).len(), 1);
    // What the sleeper still stored goes with the next expire.
    walden.ok(&["expire", "--repo1-retention-full=1"]);
    // By objects: who is killed between an object and its folder leaves the folder, with nothing in it.
    let ids: BTreeSet<String> = stored(&walden)
        .iter()
        .filter_map(|name| Some(name.split_once("/data/")?.1.split('/').next()?.to_owned()))
        .collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    cluster.archive_now();
    let dump = cluster.dump();
    restore(&walden, &back, &["--force"]);
    let mut server = cluster.start_restored(&back, &[]).unwrap_or_else(|log| panic!("{log}"));
    server.wait_recovery_end();
    assert_eq!(server.dump(), dump);
}
