//! The built program killed at each step that makes something visible or durable, and disks that are full: nothing
//! half shown, nothing lost, the next run succeeds.
//!
//! strace kills at the n-th call of a kind *of a thread*: n grows until the command survives, first with only the
//! first thread watched, then with all. By default at the calls that commit; `WALDEN_TEST_ALL=1` adds every sync.

use crate::common::{
    Cluster, Output, STANZA, Scratch, Walden, finish, oldest_major, runs_as, test_all, wait_until,
};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// No command makes so many calls of one kind in one thread that a kill would come too late for this.
const ENOUGH: u32 = 400;

/// The names in a folder, none where there is no folder.
fn names_in(path: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(path).into_iter().flatten();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

struct Bench {
    scratch: Scratch,
    cluster: Cluster,
    walden: Walden,
}

impl Bench {
    fn start() -> Self {
        let scratch = Scratch::new();
        let walden = Walden::new(&scratch);
        let cluster = Cluster::build(&scratch, oldest_major())
            .segment_size_mb(1)
            .conf(&["autovacuum = off", "wal_keep_size = 64MB"])
            .archive_command(&walden.archive_command())
            .start();
        walden.configure(&cluster, &["pack-size=4MiB"]);
        walden.ok(&["stanza-create"]);
        cluster.sql("create table rounds (n int)");
        Self { scratch, cluster, walden }
    }

    /// Runs a command; strace kills it at the `nth` such call of a thread.
    fn killed_at(&self, watched: &[&str], call: &str, nth: u32, arguments: &[&str]) -> Output {
        let inner = self.walden.command(arguments);
        let mut strace = self.scratch.command("strace");
        strace.args(watched).args(["-qq", "-o", "/dev/null", "-e", &format!("trace={call}")]);
        strace.args(["-e", &format!("inject={call}:signal=KILL:when={nth}")]);
        strace.arg(inner.get_program()).args(inner.get_args());
        for (name, value) in inner.get_envs() {
            strace.env(name, value.expect("a variable that is set"));
        }
        finish(strace)
    }

    /// Lets `act` judge each end, as well as a survival, until the command lives; returns how often it died.
    fn until_it_survives(&self, call: &str, arguments: &[&str], mut act: impl FnMut(u32, bool)) -> u32 {
        let mut died = 0;
        for nth in 1..=ENOUGH {
            let mut survived = true;
            for watched in [&[][..], &["-f"][..]] {
                let out = self.killed_at(watched, call, nth, arguments);
                if out.success() {
                    act(nth, true);
                    continue;
                }
                survived = false;
                died += 1;
                assert!(
                    out.signal == Some(9) || out.code == Some(137),
                    "{call} {nth}: it did not die of the kill:\n{out}"
                );
                act(nth, false);
            }
            if survived {
                return died;
            }
        }
        panic!("{call}: {ENOUGH} kills, and none came too late");
    }

    fn listed(&self) -> Vec<String> {
        let out = self.walden.ok(&["info", "--output=json"]);
        let info: Value = serde_json::from_str(out.text()).unwrap();
        let backups = info["stanzas"][0]["backups"].as_array().cloned().unwrap_or_default();
        backups.iter().map(|backup| backup["id"].as_str().unwrap().to_owned()).collect()
    }

    fn restore(&self, name: &str, arguments: &[&str]) -> PathBuf {
        let target = self.scratch.join(name);
        let _ = fs::remove_dir_all(&target);
        let path = format!("--pg1-path={}", target.display());
        self.walden.ok(&[&["restore", path.as_str(), "--archive-mode=off"], arguments].concat());
        target
    }

    fn catalog(&self) -> BTreeSet<String> {
        names_in(&self.walden.repo_path().join(STANZA).join("catalog"))
    }

    /// What was written last of the backup that was begun since the catalog was `before`. (Not of the one that
    /// sorts last: two that were begun in one second sort by chance.)
    fn newest_left(&self, before: &BTreeSet<String>) -> String {
        let Some(last) = self.catalog().difference(before).max().cloned() else {
            return "nothing".to_owned();
        };
        let id = last.rsplit_once('.').unwrap().0;
        let data = names_in(&self.walden.repo_path().join(STANZA).join("data").join(id));
        match (last.contains("2-outcome"), data.first()) {
            // `map-` sorts before `pack-`, and is written after it.
            (false, Some(object)) => object.clone(),
            _ => last,
        }
    }

    fn calls(&self) -> &'static [&'static str] {
        if test_all() { &["linkat", "fsync", "unlinkat", "mkdirat"] } else { &["linkat"] }
    }
}

#[test]
fn a_backup_killed_at_any_step_shows_nothing_or_all_of_it() {
    let bench = Bench::start();
    let take = ["backup", "--type=full", "--start-fast", "--process-max=1"];
    let mut died = 0;
    let mut at = BTreeSet::new();
    let mut catalog = bench.catalog();
    for call in bench.calls() {
        let mut before = bench.listed().len();
        died += bench.until_it_survives(call, &take, |nth, survived| {
            if survived {
                before += 1;
                assert_eq!(bench.listed().len(), before, "{call} {nth}");
                catalog = bench.catalog();
                return;
            }
            at.insert(bench.newest_left(&catalog));
            let now = bench.listed();
            // Each that is listed is whole, even if nobody was told of it.
            if now.len() > before {
                let id = format!("--set={}", now[0]);
                let target = bench.restore("shown", &["--type=immediate", &id]);
                let checked = bench.cluster.pg_verifybackup(&target, &["-n"]);
                assert!(checked.success(), "{call} {nth}: {checked}");
            }
            before = now.len();
            let taken = bench.walden.run(&take);
            assert!(taken.success(), "{call} {nth}: the next backup failed:\n{taken}");
            before += 1;
            assert_eq!(bench.listed().len(), before, "{call} {nth}");
            catalog = bench.catalog();
        });
    }
    // Among others in the middle of its data, and with everything but its record.
    for (what, wanted) in [("data", "pack-"), ("the map", "map-")] {
        assert!(at.iter().any(|left| left.contains(wanted)), "never killed with {what} last: {at:?}");
    }
    let target = bench.restore("last", &["--type=immediate"]);
    let checked = bench.cluster.pg_verifybackup(&target, &["-n"]);
    assert!(checked.success(), "{checked}");
    println!("{died} deaths");
}

#[test]
fn an_archive_push_killed_at_any_step_is_made_good_by_the_next() {
    let bench = Bench::start();
    let mut died = 0;
    for call in ["linkat", "fsync", "unlinkat", "mkdirat", "flock", "write"] {
        // A new one each time: of a segment that is held already little is left to do.
        let mut number = 0;
        loop {
            number += 1;
            assert!(number < ENOUGH, "{call}");
            bench.cluster.configure(&["archive_command = 'false'"]);
            bench.cluster.sql(&format!("insert into rounds values ({number})"));
            let name = bench.cluster.switch_wal();
            let file = bench.cluster.data().join("pg_wal").join(&name);
            let push = ["archive-push", file.to_str().unwrap()];
            let out = bench.killed_at(&["-f"], call, number, &push);
            let lived = out.success();
            assert!(lived || out.signal == Some(9) || out.code == Some(137), "{call} {number}: {out}");
            // The archiver's retry: PostgreSQL keeps the segment until it hears 0.
            let again = bench.walden.run(&push);
            assert!(again.success(), "{call} {number}: {again}");
            let got = bench.scratch.join("got");
            let _ = fs::remove_file(&got);
            let command =
                format!("cd {} && {}", bench.cluster.data().display(), bench.walden.restore_command());
            let command = command.replace("%f", &name).replace("%p", &got.display().to_string());
            let mut shell = bench.scratch.command("/bin/sh");
            shell.arg("-c").arg(command);
            let out = finish(shell);
            assert!(out.success(), "{call} {number}: {out}");
            assert!(fs::read(&got).unwrap() == fs::read(&file).unwrap(), "{call} {number}: other bytes");
            if lived {
                break;
            }
            died += 1;
        }
    }
    assert!(died >= 6, "it died only {died} times");
    // And the archiver itself gets along with what they left.
    let command = bench.walden.archive_command().replace('\'', "''");
    bench.cluster.configure(&[&format!("archive_command = '{command}'")]);
    bench.cluster.archive_now();
    println!("{died} deaths");
}

#[test]
fn a_restore_killed_at_any_step_cannot_be_started_and_goes_on() {
    let bench = Bench::start();
    bench.cluster.sql("insert into rounds values (1)");
    bench.walden.ok(&["backup", "--type=full", "--start-fast"]);
    bench.cluster.sql("insert into rounds values (2)");
    bench.cluster.archive_now();
    let target = bench.scratch.join("back");
    let path = format!("--pg1-path={}", target.display());
    let again = ["restore", path.as_str(), "--archive-mode=off", "--process-max=1"];
    let mut died = 0;
    let calls: &[&str] = if test_all() {
        &[
            "renameat",
            "renameat2",
            "rename",
            "linkat",
            "fsync",
            "syncfs",
            "unlinkat",
            "mkdirat",
            "symlinkat",
            "ftruncate",
        ]
    } else {
        &["renameat", "renameat2", "linkat", "fsync", "syncfs"]
    };
    for call in calls {
        let _ = fs::remove_dir_all(&target);
        let dead = bench.until_it_survives(call, &again, |nth, survived| {
            if survived {
                let checked = bench.cluster.pg_verifybackup(&target, &["-n"]);
                assert!(checked.success(), "{call} {nth}: {checked}");
                fs::remove_dir_all(&target).unwrap();
                return;
            }
            let control = target.join("global/pg_control");
            if control.exists() {
                // Everything was there before it: what it left is a restored server, if one nobody was told of.
                assert!(target.join("recovery.signal").exists(), "{call} {nth}");
                assert!(target.join("backup_label").exists(), "{call} {nth}");
                let checked = bench.cluster.pg_verifybackup(&target, &["-n"]);
                assert!(checked.success(), "{call} {nth}: {checked}");
                fs::remove_dir_all(&target).unwrap();
            } else if target.exists() && nth % 4 == 1 {
                assert!(
                    bench.cluster.start_restored(&target, &[]).is_err(),
                    "{call} {nth}: half a server started"
                );
            }
        });
        println!("{call}: {dead}");
        died += dead;
    }
    assert!(died >= 4, "it died only {died} times");
    bench.walden.ok(&again);
    let mut server = bench.cluster.start_restored(&target, &[]).unwrap_or_else(|log| panic!("{log}"));
    server.wait_recovery_end();
    assert_eq!(server.sql("select count(*) from rounds"), "2");
    println!("{died} deaths");
}

/// A small file system on a directory; unmounted when dropped.
struct Small(PathBuf);

impl Small {
    fn mount(at: &Path, options: &str) -> Self {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "none"]).arg(at);
        let out = finish(mount);
        assert!(out.success(), "cannot mount a small file system: {out}");
        Self(at.to_owned())
    }

    fn grow(&self, size: &str) {
        let mut mount = Command::new("mount");
        mount.args(["-o", &format!("remount,size={size}")]).arg(&self.0);
        assert!(finish(mount).success());
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let mut unmount = Command::new("umount");
        unmount.arg(&self.0);
        let _ = finish(unmount);
    }
}

#[test]
fn a_full_repository_is_told_and_room_mends_it() {
    let Some((user, group)) = runs_as() else {
        eprintln!("NOT TESTED: a full repository. Only root can mount a small file system.");
        return;
    };
    let scratch = Scratch::new();
    let walden = Walden::new(&scratch);
    let small = Small::mount(&walden.repo_path(), &format!("size=3m,mode=0700,uid={user},gid={group}"));
    let cluster = Cluster::build(&scratch, oldest_major())
        .segment_size_mb(1)
        .conf(&["autovacuum = off"])
        .archive_command(&walden.archive_command())
        .start();
    walden.configure(&cluster, &["pack-size=4MiB"]);
    walden.ok(&["stanza-create"]);
    cluster.sql("create table rounds (n int)");
    // Does not compress: more than there is room for.
    let noise: Vec<u8> =
        (0..9_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8 ^ (n >> 7) as u8).collect();
    scratch.write(cluster.data().join("noise"), noise);
    cluster.archive_now();
    let full = walden.fails(31, &["backup", "--type=full", "--start-fast"]);
    assert!(full.stderr.contains("error: ") && full.stderr.contains("because: "), "{full}");
    assert!(full.stderr.to_lowercase().contains("space"), "{full}");
    let listed = || {
        let info: Value = serde_json::from_str(walden.ok(&["info", "--output=json"]).text()).unwrap();
        info["stanzas"][0]["backups"].as_array().map_or(0, Vec::len)
    };
    assert_eq!(listed(), 0);

    // WAL until it is full to the last byte.
    let filler = scratch.join(walden.repo_path().join("filler"));
    let mut dd = scratch.command("dd");
    dd.args(["if=/dev/zero", "bs=4096"]).arg(format!("of={}", filler.display()));
    let _ = finish(dd);
    cluster.sql("insert into rounds values (1)");
    let name = cluster.switch_wal();
    let file = cluster.data().join("pg_wal").join(&name);
    let refused = walden.fails(31, &["archive-push", file.to_str().unwrap()]);
    assert!(refused.stderr.contains(&name) && refused.stderr.to_lowercase().contains("space"), "{refused}");
    assert_eq!(refused.stderr.trim().lines().count(), 1, "{refused}");
    wait_until("the archiver to be refused too", || {
        cluster.sql("select failed_count > 0 from pg_stat_archiver") == "t"
    });

    fs::remove_file(&filler).unwrap();
    small.grow("200m");
    cluster.wait_archived(&name);
    walden.ok(&["backup", "--type=full", "--start-fast"]);
    assert_eq!(listed(), 1);
    let target = scratch.join("back");
    walden.ok(&["restore", &format!("--pg1-path={}", target.display()), "--archive-mode=off"]);
    let mut server = cluster.start_restored(&target, &[]).unwrap_or_else(|log| panic!("{log}"));
    server.wait_recovery_end();
    assert_eq!(server.sql("select count(*) from rounds"), "1");
    drop(server);
    drop(cluster);
    drop(small);
}
