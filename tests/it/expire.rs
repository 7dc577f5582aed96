//! `expire` on backups and WAL of real servers: what stays restores, what goes is gone, and nothing else happens.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::common::{
    Cluster, Output, Replace, STANZA, Scratch, Walden, finish, golden, oldest_major, test_all,
};

/// A cluster with some backups, a row more in each, and WAL between them.
struct Shop {
    scratch: Scratch,
    cluster: Cluster,
    walden: Walden,
    /// Oldest first.
    ids: Vec<String>,
    /// Contents at the end of the archive.
    dump: String,
}

impl Shop {
    fn with_backups(count: usize, global: &[&str]) -> Self {
        let scratch = Scratch::new();
        let walden = Walden::new(&scratch);
        let cluster = Cluster::build(&scratch, oldest_major())
            .segment_size_mb(1)
            .conf(&["autovacuum = off", "wal_keep_size = 64MB"])
            .archive_command(&walden.archive_command())
            .start();
        let mut lines = vec!["pack-size=4MiB", "expire-delay=0"];
        lines.extend(global);
        walden.configure(&cluster, &lines);
        walden.ok(&["stanza-create"]);
        cluster.sql("create table rounds (n int)");
        let mut shop = Self { scratch, cluster, walden, ids: Vec::new(), dump: String::new() };
        for _ in 0..count {
            shop.back_up();
        }
        shop.dump = shop.cluster.dump();
        shop
    }

    fn back_up(&mut self) -> Output {
        let round = self.ids.len();
        self.cluster.sql(&format!("insert into rounds values ({round})"));
        let before: BTreeSet<String> = self.listed().into_iter().collect();
        let out = self.walden.run(&["backup", "--type=full", "--start-fast"]);
        assert!(matches!(out.code, Some(0 | 50)), "{out}");
        let new = self.listed().into_iter().find(|id| !before.contains(id));
        self.ids.push(new.expect("a new backup"));
        self.cluster.sql(&format!("insert into rounds select {round} from generate_series(1, 3000)"));
        self.cluster.archive_now();
        out
    }

    fn info(&self) -> Value {
        serde_json::from_str(self.walden.ok(&["info", "--output=json"]).text()).unwrap()
    }

    /// Newest first. (Ids of one second sort by chance, so not by them.)
    fn listed(&self) -> Vec<String> {
        let info = self.info();
        let backups = info["stanzas"][0]["backups"].as_array().cloned().unwrap_or_default();
        let mut ids: Vec<String> =
            backups.iter().map(|backup| backup["id"].as_str().unwrap().to_owned()).collect();
        ids.sort_by_key(|id| std::cmp::Reverse(self.ids.iter().position(|known| known == id)));
        ids
    }

    fn restore(&self, id: &str, arguments: &[&str]) -> PathBuf {
        let target = self.scratch.join("back");
        let _ = fs::remove_dir_all(&target);
        let path = format!("--pg1-path={}", target.display());
        let set = format!("--set={id}");
        self.walden
            .ok(&[&["restore", path.as_str(), set.as_str(), "--archive-mode=off"], arguments].concat());
        target
    }

    /// It restores file by file, and recovers to the end of the archive: nothing on the way is missing.
    fn comes_back(&self, id: &str) {
        let target = self.restore(id, &["--type=default"]);
        let checked = self.cluster.pg_verifybackup(&target, &["-n"]);
        assert!(checked.success(), "{checked}");
        let mut server = self.cluster.start_restored(&target, &[]).unwrap_or_else(|log| panic!("{log}"));
        server.wait_recovery_end();
        assert_eq!(server.dump(), self.dump, "{id} came back with other contents");
    }

    /// Replaces the repository by a copy.
    fn put_back(&self, saved: &Path) {
        let repo = self.walden.repo_path();
        fs::remove_dir_all(&repo).unwrap();
        copy(&self.scratch, saved, &repo);
    }

    fn save(&self, name: &str) -> PathBuf {
        let saved = self.scratch.join(name);
        copy(&self.scratch, &self.walden.repo_path(), &saved);
        saved
    }

    /// Every object, and its size.
    fn stored(&self) -> BTreeSet<(String, u64)> {
        let mut all = BTreeSet::new();
        let mut folders = vec![self.walden.repo_path()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_dir() {
                    folders.push(entry.path());
                } else {
                    let path = entry.path();
                    let name = path.strip_prefix(self.walden.repo_path()).unwrap();
                    all.insert((name.display().to_string(), entry.metadata().unwrap().len()));
                }
            }
        }
        all
    }
}

fn copy(scratch: &Scratch, from: &Path, to: &Path) {
    let mut command = scratch.command("cp");
    command.arg("-a").arg(from).arg(to);
    let out = finish(command);
    assert!(out.success(), "{out}");
}

#[test]
fn retention_keeps_its_promise_and_what_stays_restores() {
    let mut shop = Shop::with_backups(4, &["expire-auto=n"]);
    let (walden, ids) = (&shop.walden, shop.ids.clone());
    let before = shop.stored();
    let nothing = walden.ok(&["expire"]);
    assert!(nothing.stdout.contains("No retention is set"), "{nothing}");
    let planned = walden.ok(&["expire", "--dry-run", "--repo1-retention-full=2"]);
    assert_eq!(shop.stored(), before, "a dry run changed something");
    let done = walden.ok(&["expire", "--repo1-retention-full=2"]);
    let place = walden.repo_path();
    let numbers = [
        Replace::text(place.display(), "REPOSITORY"),
        Replace::Shape("0+.0 kB", "SIZE"),
        Replace::Shape("0+.0 MB", "SIZE"),
        Replace::Shape("0+ B", "SIZE"),
        Replace::Shape("in 0+ objects", "in N objects"),
        Replace::Shape("(0+ segments)", "(N segments)"),
        Replace::Shape("00000000T000000Z-F-aaaaaa", "BACKUP"),
    ];
    let shown: Vec<Replace> = numbers.into_iter().chain(Replace::segments()).collect();
    let said = format!("{}---\n{}{}", planned.stdout, done.stdout, done.stderr);
    // How long this took is another matter each time.
    let (windows, said): (Vec<&str>, Vec<&str>) = said.lines().partition(|line| line.starts_with("window  "));
    assert!(windows.len() == 2 && windows[0].contains(" before, "), "{windows:?}");
    golden("expire", &said.join("\n"), &shown);

    assert_eq!(shop.listed(), [ids[3].clone(), ids[2].clone()]);
    let info = shop.info();
    let windows = info["stanzas"][0]["clusters"][0]["windows"].as_array().unwrap().clone();
    assert_eq!((windows.len(), &windows[0]["backup"]), (1, &Value::from(ids[2].as_str())), "{info:#}");
    assert_eq!(info["stanzas"][0]["clusters"][0]["gaps"], serde_json::json!([]));
    for id in &ids[..2] {
        let names: Vec<_> =
            shop.stored().into_iter().filter(|(name, _)| name.contains(id.as_str())).collect();
        assert_eq!(names.len(), 1, "{names:?}");
        walden.fails(10, &["info", &format!("--set={id}")]);
    }
    let first = windows[0]["from_lsn"].as_str().unwrap();
    let oldest = shop.stored().into_iter().map(|(name, _)| name).find(|name| name.contains("/wal/")).unwrap();
    let start = shop.cluster.sql(&format!("select pg_walfile_name('{first}'::pg_lsn)"));
    assert!(oldest.ends_with(".backup") || oldest[oldest.len() - 24..] <= *start, "{oldest} {start}");
    for id in &ids[2..] {
        shop.comes_back(id);
    }
    // To the first moment of what is promised, and not before it.
    shop.restore(&ids[2], &["--type=immediate"]);
    let back = format!("--pg1-path={}", shop.scratch.join("back").display());
    shop.walden.fails(43, &["restore", &back, "--force", "--type=lsn", "--target=0/2000028", "--dry-run"]);

    // After a backup it happens by itself; with nothing left to do it says nothing more than the plan.
    let lines = fs::read_to_string(shop.walden.config_path()).unwrap();
    let lines = lines.replace("expire-auto=n", "repo1-retention-full=2\nrepo1-keep-window=1h");
    shop.walden.config(&lines.lines().collect::<Vec<_>>());
    let out = shop.back_up();
    assert_eq!(shop.listed().len(), 3, "the window keeps it: {out}");
    shop.walden.config(&lines.replace("repo1-keep-window=1h", "").lines().collect::<Vec<_>>());
    let out = shop.back_up();
    assert!(out.success() && out.stderr.contains("removed from repo1: "), "{out}");
    assert_eq!(shop.listed(), [shop.ids[5].clone(), shop.ids[4].clone()]);

    // A store that does not let us delete: the backup is good, the run says what could not be deleted.
    let last = shop.walden.repo_path().join(STANZA).join("data").join(&shop.ids[4]);
    let mut chmod = shop.scratch.command("chmod");
    chmod.arg("a-w").arg(&last);
    assert!(finish(chmod).success());
    let out = shop.back_up();
    assert!(out.code == Some(50) && out.stderr.contains("does not let walden delete"), "{out}");
    assert!(out.stderr.contains("nothing is lost"), "{out}");
    assert_eq!(shop.listed(), [shop.ids[6].clone(), shop.ids[5].clone()]);
    let mut chmod = shop.scratch.command("chmod");
    chmod.arg("u+w").arg(&last);
    assert!(finish(chmod).success());
    shop.walden.ok(&["expire"]);
    assert!(!last.exists());
    shop.dump = shop.cluster.dump();
    shop.comes_back(&shop.ids[5].clone());
}

#[test]
fn any_backups_may_go_and_the_others_are_whole() {
    let shop = Shop::with_backups(3, &["expire-auto=n"]);
    let saved = shop.save("saved");
    for subset in 1..7_usize {
        shop.put_back(&saved);
        let removed: Vec<&String> =
            (0..3).filter(|at| subset & (1 << at) != 0).map(|at| &shop.ids[at]).collect();
        let left: Vec<&String> =
            (0..3).filter(|at| subset & (1 << at) == 0).map(|at| &shop.ids[at]).collect();
        // Two at once, of the same or of different backups.
        let running: Vec<_> = removed
            .iter()
            .chain(removed.first())
            .take(2)
            .map(|id| shop.walden.spawn(&["expire", &format!("--set={id}")]))
            .collect();
        for child in running {
            let out = shop.walden.finish(child);
            // Whoever comes second may find it gone already.
            assert!(matches!(out.code, Some(0 | 10)), "{out}");
        }
        assert_eq!(shop.listed(), left.iter().rev().map(|id| (*id).clone()).collect::<Vec<_>>());
        assert!(
            shop.stored()
                .iter()
                .all(|(name, _)| !removed.iter().any(|id| name.contains(&format!("data/{id}"))))
        );
        for (at, id) in left.iter().enumerate() {
            // Those that are left alone recover to the end; others are compared file by file.
            if left.len() == 1 || (at == 0 && test_all()) {
                shop.comes_back(id);
            } else {
                let target = shop.restore(id, &["--type=immediate"]);
                let checked = shop.cluster.pg_verifybackup(&target, &["-n"]);
                assert!(checked.success(), "{checked}");
            }
        }
    }
}

#[test]
fn a_restore_goes_on_though_its_backup_is_removed_and_a_pinned_one_stays() {
    let shop = Shop::with_backups(2, &["expire-auto=n", "repo1-retention-full=1"]);
    let delayed = |more: &[&str]| shop.walden.ok(&[&["expire", "--expire-delay=1d"], more].concat());
    shop.walden.ok(&["pin", &format!("--set={}", shop.ids[0]), "--reason=the auditors come"]);
    let kept = delayed(&[]);
    assert!(kept.stdout.contains("pinned: the auditors come"), "{kept}");
    assert_eq!(shop.listed().len(), 2);
    shop.walden.fails(2, &["expire", &format!("--set={}", shop.ids[0])]);
    shop.walden.ok(&["unpin", &format!("--set={}", shop.ids[0])]);

    // The files are there, the recovery is yet to come when the backup is removed.
    let target = shop.restore(&shop.ids[0], &["--type=default"]);
    delayed(&[]);
    assert_eq!(shop.listed(), [shop.ids[1].clone()]);
    delayed(&[]);
    let mut server = shop.cluster.start_restored(&target, &[]).unwrap_or_else(|log| panic!("{log}"));
    server.wait_recovery_end();
    assert_eq!(server.dump(), shop.dump);
    let waiting = delayed(&["--dry-run"]);
    assert!(waiting.stdout.contains("its data goes from"), "{waiting}");
    assert!(shop.stored().iter().any(|(name, _)| name.contains(&format!("data/{}", shop.ids[0]))));
    shop.walden.ok(&["expire"]);
    assert!(!shop.stored().iter().any(|(name, _)| name.contains(&format!("data/{}", shop.ids[0]))));
}

#[test]
fn an_expire_killed_at_any_step_is_finished_by_the_next() {
    let shop = Shop::with_backups(3, &["expire-auto=n", "repo1-retention-full=1", "process-max=1"]);
    let saved = shop.save("saved");
    shop.walden.ok(&["expire"]);
    let undisturbed: BTreeSet<String> = shop.stored().into_iter().map(|(name, _)| name).collect();
    let mut died = 0;
    for call in ["linkat", "unlinkat"] {
        let mut nth = 1;
        loop {
            shop.put_back(&saved);
            let inner = shop.walden.command(&["expire"]);
            let mut strace = shop.scratch.command("strace");
            strace.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")]);
            strace.args(["-e", &format!("inject={call}:signal=KILL:when={nth}")]);
            strace.arg(inner.get_program()).args(inner.get_args());
            for (name, value) in inner.get_envs() {
                strace.env(name, value.expect("a variable that is set"));
            }
            let out = finish(strace);
            if out.success() {
                break;
            }
            assert!(out.signal == Some(9) || out.code == Some(137), "{call} {nth}: {out}");
            died += 1;
            // Whatever is listed is whole, and the newest always is.
            let listed = shop.listed();
            assert_eq!(listed[0], shop.ids[2], "{call} {nth}");
            if nth % 7 == 1 {
                let target = shop.restore(listed.last().unwrap(), &["--type=immediate"]);
                let checked = shop.cluster.pg_verifybackup(&target, &["-n"]);
                assert!(checked.success(), "{call} {nth}: {checked}");
            }
            shop.walden.ok(&["expire"]);
            let now: BTreeSet<String> = shop.stored().into_iter().map(|(name, _)| name).collect();
            let now: BTreeSet<String> = now.into_iter().filter(|name| !name.contains(".walden-")).collect();
            let others: Vec<_> = now.symmetric_difference(&undisturbed).collect();
            assert!(others.is_empty(), "{call} {nth}: {others:#?}");
            nth += if test_all() || call == "linkat" { 1 } else { 3 };
        }
    }
    assert!(died > 8, "{died}");
    shop.comes_back(&shop.ids[2]);
}
