//! Each request of a push, a backup and a restore goes wrong once, in each way that requests go wrong; and the program
//! dies at each of them. Nothing is lost, nothing half done is shown, the next run succeeds.
//!
//! `make test` takes a spread, `make test-all` every request with every fault.

use super::{Shop, behind_a_proxy};
use crate::common::{Output, S3Proxy, kill_now, test_all, wait_until};
use rustix::process::Signal;
use std::fs;
use std::path::Path;

/// Machines are shared: a few faults in a row are no reason to give up.
const PATIENT: &str = "--repo1-storage-retry=1m";

/// What happens to one request, in the words of the proxy.
const FAULTS: [(&str, &str); 8] = [
    ("refused", r#""do": "refuse""#),
    ("503", r#""do": "status", "status": 503"#),
    ("reply lost", r#""do": "drop_reply""#),
    ("performed twice", r#""do": "repeat""#),
    ("upload cut", r#""do": "cut_upload", "after": 700"#),
    ("reply cut", r#""do": "cut", "after": 50"#),
    ("reply reset", r#""do": "cut", "after": 0, "rst": true"#),
    ("body stalled", r#""do": "stall", "where": "body", "after": 20, "seconds": 60"#),
];

/// Of requests 1 to `requests` those that this fault meets: all, or about `spread`, other ones for each fault.
fn chosen(requests: usize, fault: usize, spread: usize) -> Vec<usize> {
    let step = if test_all() { 1 } else { (requests / spread).max(1) };
    (1..=requests).skip(if test_all() { 0 } else { fault % step }).step_by(step).collect()
}

/// Runs the program until request `at` has been answered to the proxy, and kills it before it learns of it.
fn killed_at(proxy: &S3Proxy, shop: &Shop, at: usize, arguments: &[&str]) -> Output {
    proxy.rules(&format!(
        r#"[{{"do": "stall", "where": "reply", "seconds": 600, "from": {at}, "count": 1}}]"#
    ));
    let mut child = shop.walden.spawn(arguments);
    wait_until("the request", || {
        let log = proxy.log();
        log.get(at - 1).is_some_and(|request| request.status.is_some()) || child.try_wait().unwrap().is_some()
    });
    kill_now(child.id(), Signal::KILL);
    let out = shop.walden.finish(child);
    proxy.rules("[]");
    out
}

#[test]
fn a_push_survives_each_fault_at_each_request() {
    let (shop, proxy) = behind_a_proxy(1);
    shop.cluster.configure(&["archive_command = 'false'"]);
    let push = |path: &Path| shop.walden.run(&["archive-push", path.to_str().unwrap(), PATIENT]);
    let (name, path) = shop.segment();
    proxy.rules("[]");
    assert!(push(&path).success());
    let requests = proxy.log().len();
    shop.holds(&name, &path);
    // The next one finds the wrapped key in this host's cache, and nothing else.
    let (_, path) = shop.segment();
    proxy.rules("[]");
    assert!(push(&path).success());
    assert_eq!(proxy.log().len(), requests - 1, "{:#?}", proxy.log());
    let mut met = 0;
    for (number, (fault, rule)) in FAULTS.iter().enumerate() {
        for at in chosen(requests, number, 2) {
            let (name, path) = shop.segment();
            if number % 2 == 0 {
                fs::remove_dir_all(shop.walden.cache_folder()).unwrap();
            }
            proxy.rules(&format!(r#"[{{{rule}, "from": {at}, "count": 1}}]"#));
            let out = push(&path);
            assert!(out.success(), "{fault} at request {at}: {out}");
            met += proxy.acted();
            proxy.rules("[]");
            shop.holds(&name, &path);
        }
    }
    assert!(met >= 8, "only {met} faults happened");
    for at in chosen(requests, 0, 2) {
        let (name, path) = shop.segment();
        killed_at(&proxy, &shop, at, &["archive-push", path.to_str().unwrap()]);
        let again = push(&path);
        assert!(again.success(), "after a kill at request {at}: {again}");
        shop.holds(&name, &path);
    }
    // And the server's own archiver finds everything stored already.
    shop.cluster.configure(&[&format!("archive_command = '{}'", shop.walden.archive_command())]);
    shop.cluster.archive_now();
}

/// Many requests go wrong, each in its own way, often enough to meet every kind and seldom enough to get through.
const STORM: &str = r#"[
    {"do": "status", "every": 9, "from": 2},
    {"do": "drop_reply", "every": 11, "from": 3},
    {"do": "cut", "after": 100, "every": 7, "from": 4, "method": "GET"},
    {"do": "cut_upload", "after": 5000, "every": 8, "from": 5, "method": "PUT"},
    {"do": "repeat", "every": 3, "from": 1, "method": "PUT"},
    {"do": "refuse", "every": 13, "from": 6},
    {"do": "stall", "where": "body", "after": 30, "seconds": 60, "every": 29, "from": 7, "method": "GET"}]"#;

const BACKUP: [&str; 6] =
    ["backup", "--type=full", "--start-fast", "--pack-size=4MiB", "--compress-type=none", PATIENT];

#[test]
fn a_backup_survives_each_fault_and_its_death_at_each_request() {
    let (shop, proxy) = behind_a_proxy(1);
    shop.round(1);
    proxy.rules("[]");
    shop.walden.ok(&BACKUP);
    let requests = proxy.log().len();
    assert!(requests > 10, "{:#?}", proxy.log());
    let mut backups = 1;
    proxy.rules(STORM);
    shop.walden.ok(&BACKUP);
    backups += 1;
    assert!(proxy.acted() >= 7, "{} faults in {} requests", proxy.acted(), proxy.log().len());
    proxy.rules("[]");
    assert_eq!(shop.backups(), backups);

    if test_all() {
        for (fault, rule) in FAULTS {
            for at in 1..=requests {
                proxy.rules(&format!(r#"[{{{rule}, "from": {at}, "count": 1}}]"#));
                let out = shop.walden.run(&BACKUP);
                assert!(out.success(), "{fault} at request {at}: {out}");
                backups += 1;
                proxy.rules("[]");
                assert_eq!(shop.backups(), backups, "{fault} at request {at}");
            }
        }
    }
    for at in chosen(requests, 3, 2) {
        killed_at(&proxy, &shop, at, &BACKUP);
        // The last ones come after the record.
        let now = shop.backups();
        assert!(
            now == backups || (now == backups + 1 && at + 3 > requests),
            "killed at {at} of {requests}: {now}"
        );
        backups = now;
    }
    shop.walden.ok(&BACKUP);
    assert_eq!(shop.backups(), backups + 1);
    shop.comes_back("back");
}

#[test]
fn a_restore_survives_each_fault_and_its_death_at_each_request() {
    let (shop, proxy) = behind_a_proxy(1);
    shop.cluster.sql("create table t as select g, md5(g::text) from generate_series(1, 20000) g");
    shop.walden.ok(&BACKUP);
    shop.round(1);
    shop.cluster.archive_now();
    let before = shop.cluster.dump();
    let target = shop.scratch.join("back");
    let path = format!("--pg1-path={}", target.display());
    let arguments = ["restore", path.as_str(), "--type=default", PATIENT];
    let verify = |what: &str| {
        let verified = shop.cluster.pg_verifybackup(&target, &["-n"]);
        assert!(verified.success(), "{what}: {verified}");
    };
    proxy.rules("[]");
    shop.walden.ok(&arguments);
    let requests = proxy.log().len();
    verify("undisturbed");
    let empty = || fs::remove_dir_all(&target).unwrap();
    empty();
    proxy.rules(STORM);
    shop.walden.ok(&arguments);
    assert!(proxy.acted() >= 3, "{} faults in {} requests", proxy.acted(), proxy.log().len());
    verify("in a storm");
    if test_all() {
        for (fault, rule) in FAULTS {
            for at in 1..=requests {
                empty();
                proxy.rules(&format!(r#"[{{{rule}, "from": {at}, "count": 1}}]"#));
                let out = shop.walden.run(&arguments);
                assert!(out.success(), "{fault} at request {at}: {out}");
                verify(&format!("{fault} at request {at}"));
            }
        }
    }
    for at in chosen(requests, 2, 2) {
        empty();
        killed_at(&proxy, &shop, at, &arguments);
        assert!(
            !target.join("global/pg_control").exists(),
            "killed at request {at}, and it could be started"
        );
        shop.walden.ok(&arguments);
        verify(&format!("killed at request {at}"));
    }
    let mut restored = shop.cluster.start_restored(&target, &[]).unwrap_or_else(|log| panic!("{log}"));
    restored.wait_recovery_end();
    assert!(restored.dump() == before, "what came back differs");
}

/// Segments whose bytes were changed on their way are never handed to recovery.
#[test]
fn bytes_that_change_on_the_way_are_noticed() {
    let (shop, proxy) = behind_a_proxy(1);
    let (name, path) = shop.segment();
    shop.cluster.wait_archived(&name);
    let got = shop.scratch.join("got");
    for at in [0, 100, 5000] {
        proxy.rules(&format!(r#"[{{"do": "corrupt", "at": {at}, "path": "{name}$", "method": "GET"}}]"#));
        let out = shop.walden.run(&["archive-get", &name, got.to_str().unwrap()]);
        if proxy.acted() > 0 && out.success() {
            // Beyond the object's end there was nothing to change.
            assert!(fs::read(&got).unwrap() == fs::read(&path).unwrap(), "byte {at} changed: {out}");
            fs::remove_file(&got).unwrap();
        } else {
            assert!(out.code == Some(200) && !got.exists(), "byte {at}: {out}");
        }
    }
}
