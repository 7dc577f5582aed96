//! A cluster, its bucket, and the way back.

use super::{Shop, restore_with};
use crate::common::{
    BucketKind, Cluster, Identity, S3Proxy, S3Server, Scratch, StopMode, Walden, all_majors, golden,
    newest_major, oldest_major, test_all, wait_until,
};
use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

#[test]
fn a_cluster_under_load_comes_back_to_a_moment_with_credentials_that_may_not_delete() {
    // The older one has the test after this one.
    for major in if test_all() { all_majors() } else { vec![newest_major()] } {
        let server = S3Server::shared();
        let bucket = server.bucket(BucketKind::Plain);
        let shop = Shop::open(major, 16, |_, _| vec![server.options(&bucket, Identity::NoDelete)]);
        shop.cluster.pgbench_init(1);
        let load = shop.cluster.load();
        shop.backup();
        drop(load);
        shop.round(1);
        let moment = shop.cluster.sql("select clock_timestamp()");
        let before = shop.cluster.dump();
        std::thread::sleep(Duration::from_millis(20));
        shop.cluster.sql("truncate pgbench_accounts; drop table rounds");
        shop.cluster.archive_now();

        let info = shop.walden.ok(&["info"]);
        assert!(info.stdout.contains(&format!("s3://{bucket}")), "{info}");
        // As set up for credentials that may not delete. What it says of the server is that of a test; of the repository
        // there is nothing to complain of.
        let check = shop.walden.run(&["check", "--repo1-keep-window=14d", "--expire-auto=n"]);
        let of_repository: Vec<&str> = check.stdout.lines().filter(|line| line.contains("repo1")).collect();
        assert!(
            !of_repository.iter().any(|line| line.starts_with("warning") || line.starts_with("error")),
            "{check}"
        );
        assert!(of_repository.iter().any(|line| line.contains("reached repo1")), "{check}");
        let target = format!("--target={moment}");
        // Paused there, the server would hold the locks of the transaction that truncates.
        let mut restored = shop.restore("back", &["--type=time", &target, "--target-action=promote"]);
        restored.wait_recovery_end();
        assert!(restored.dump() == before, "PostgreSQL {major}: what came back differs");
    }
}

/// The database host is gone, with its data, its configuration and its `walden.conf`. What is left: the bucket, the key,
/// and somebody who writes four lines.
#[test]
fn from_the_bucket_and_the_key_alone_a_truncated_table_comes_back_elsewhere() {
    let server = S3Server::shared();
    let bucket = server.bucket(BucketKind::Plain);
    let options = server.options(&bucket, Identity::Admin);
    let (before, moment, key, major) = {
        let major = oldest_major();
        let mut shop = Shop::open(major, 16, |_, _| vec![options.clone()]);
        shop.cluster.sql(
            "create table orders as select g as id, md5(g::text) as what from generate_series(1, 20000) g",
        );
        shop.backup();
        shop.cluster.sql("insert into orders select g, 'late' from generate_series(20001, 21000) g");
        let before = shop.cluster.dump();
        let moment = shop.cluster.sql("select clock_timestamp()");
        std::thread::sleep(Duration::from_millis(20));
        shop.cluster.sql("truncate orders");
        shop.cluster.archive_now();
        shop.cluster.kill9();
        let key = fs::read_to_string(shop.walden.key_path()).unwrap();
        (before, moment, key, major)
        // The scratch directory goes: nothing of the host is left.
    };
    let scratch = Scratch::new();
    let walden = Walden::new(&scratch);
    let file = scratch.write("key-from-the-safe", key);
    let target = scratch.join("pg");
    let mut lines = vec!["[global]".to_owned()];
    lines.extend(options.iter().map(|(name, value)| format!("repo1-{name}={value}")));
    lines.push("repo1-cipher-type=aes-256-gcm".to_owned());
    lines.push(format!("repo1-cipher-pass-file={}", file.display()));
    for name in ["spool", "lock", "log"] {
        lines.push(format!("{name}-path={}", walden.join(name).display()));
    }
    walden.config(&lines.iter().map(String::as_str).collect::<Vec<_>>());
    let shown = walden.ok(&["info"]);
    assert!(shown.stdout.contains("stanza shop"), "{shown}");
    let moment = format!("--target={moment}");
    restore_with(&walden, &scratch, "pg", &["--type=time", &moment, "--target-action=promote"]);
    let mut restored = Cluster::on_directory(&scratch, major, &target);
    restored.start();
    restored.wait_recovery_end();
    assert!(restored.dump() == before, "what came back differs");
}

#[test]
fn versioned_and_locked_buckets_hold_one_version_of_each_object() {
    // One with Object Lock is versioned, too.
    let kinds = [BucketKind::Locked, BucketKind::Versioned];
    for kind in kinds.into_iter().take(if test_all() { 2 } else { 1 }) {
        let server = S3Server::shared();
        let bucket = server.bucket(kind);
        let shop = Shop::open_new(newest_major(), 1, |_, _| vec![server.options(&bucket, Identity::Admin)]);
        shop.round(1);
        shop.backup();
        shop.round(2);
        // A second time, as after a crash: the same bytes under the same name.
        let (name, path) = shop.segment();
        shop.cluster.wait_archived(&name);
        if path.exists() {
            shop.walden.ok(&["archive-push", path.to_str().unwrap()]);
        }
        shop.comes_back("back");
        let mut versions: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (key, _, state) in server.versions(&bucket) {
            versions.entry(key).or_default().push(state);
        }
        // The probe of stanza-create removes what it makes, and a request that the server sat on may come after that.
        versions.retain(|key, _| !key.contains("probe"));
        assert!(versions.len() > 10, "{versions:?}");
        for (key, states) in &versions {
            assert_eq!(*states, ["kept"], "{kind:?}: {key} was written more than once, or deleted");
        }
    }
}

#[test]
fn a_file_system_and_a_bucket_side_by_side_and_the_bucket_goes_away_for_a_while() {
    let server = S3Server::shared();
    let bucket = server.bucket(BucketKind::Plain);
    let mut proxy = None;
    let shop = Shop::open(newest_major(), 1, |scratch, walden| {
        let proxy = proxy.insert(S3Proxy::before(server, scratch));
        vec![walden.posix_options("repo"), proxy.options(&bucket, Identity::NoDelete)]
    });
    let mut proxy = proxy.unwrap();
    shop.round(1);
    shop.backup();
    shop.cluster.archive_now();

    proxy.down();
    shop.round(2);
    let (name, path) = shop.segment();
    let failures = || shop.cluster.sql("select failed_count from pg_stat_archiver").parse::<u32>().unwrap();
    wait_until("the archiver to be told of it", || failures() > 0);
    let ready = shop.cluster.data().join(format!("pg_wal/archive_status/{name}.ready"));
    assert!(ready.exists() && path.exists(), "PostgreSQL keeps the segment");
    // It has reached the one that answers all the same.
    shop.holds(&name, &path);
    assert!(!server.keys(&bucket).iter().any(|key| key.contains(&name)));
    let out = shop.walden.fails(30, &["archive-push", path.to_str().unwrap()]);
    golden("s3/push-second-repository-down", &out.stderr, &shop.replacements());
    let out = shop.walden.run(&["info"]);
    let of_two = out.stdout.lines().find(|line| line.starts_with("repo2")).unwrap_or_default();
    assert!(of_two.contains(&bucket) && of_two.ends_with("unavailable"), "{out}");
    assert!(out.stdout.contains("repo2: could not read walden.json: nobody answers at"), "{out}");

    proxy.up();
    // Three failures make the archiver sleep for a minute; a new segment wakes it.
    shop.cluster.archive_now();
    shop.cluster.wait_archived(&name);
    assert!(server.keys(&bucket).iter().any(|key| key.contains(&name)), "all is there");
    let before = shop.cluster.dump();

    // The other way round: the file system's repository loses its WAL, the bucket has it.
    fs::remove_dir_all(shop.walden.repo_path().join("shop/wal")).unwrap();
    shop.holds(&name, &path);
    let mut restored = shop.restore("back", &[]);
    restored.wait_recovery_end();
    assert!(restored.dump() == before, "what came back differs");
    restored.stop(StopMode::Fast);
}

#[test]
fn cephs_gateway_serves_as_well() {
    if !test_all() {
        return;
    }
    let server = S3Server::ceph();
    let shop = Shop::open_new(newest_major(), 16, |_, _| {
        vec![server.options(&server.bucket(BucketKind::Plain), Identity::Admin)]
    });
    shop.cluster.pgbench_init(1);
    shop.backup();
    shop.round(1);
    shop.comes_back("back");
}
