//! The store goes away in the middle.

use super::{IMPATIENT, Shop, restore_with};
use crate::common::{BucketKind, Identity, S3Proxy, S3Server, Walden, golden, newest_major, wait_until};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A shop that archives to its bucket directly, and whoever reads from there through a proxy.
struct Away {
    shop: Shop,
    /// As the shop's, but through the proxy.
    reader: Walden,
    proxy: S3Proxy,
}

impl Away {
    fn new() -> Self {
        let server = S3Server::shared();
        let bucket = server.bucket(BucketKind::Plain);
        let shop = Shop::open(newest_major(), 1, |_, _| vec![server.options(&bucket, Identity::NoDelete)]);
        let proxy = S3Proxy::before(server, &shop.scratch);
        let mut reader = Walden::new(&shop.scratch);
        let key = std::fs::read(shop.walden.key_path()).unwrap();
        shop.scratch.write(reader.key_path(), key);
        reader.configure_repositories(
            &shop.cluster,
            &[proxy.options(&bucket, Identity::ReadOnly)],
            &IMPATIENT,
        );
        Self { shop, reader, proxy }
    }

    fn rounds(&self, rounds: std::ops::RangeInclusive<u32>) -> Vec<String> {
        let round = |n| {
            self.shop.round(n);
            self.shop.cluster.archive_now()
        };
        rounds.map(round).collect()
    }
}

/// The lines that walden wrote into a server's log.
fn said(log: &str) -> String {
    let mut lines: Vec<&str> = log.lines().filter(|line| line.starts_with("walden ")).collect();
    lines.dedup();
    lines.iter().map(|line| format!("{line}\n")).collect()
}

#[test]
fn in_a_backup_for_a_moment_and_for_good() {
    let server = S3Server::shared();
    let bucket = server.bucket(BucketKind::Plain);
    let mut proxy = None;
    let shop = Shop::open(newest_major(), 1, |scratch, _| {
        let proxy = proxy.insert(S3Proxy::before(server, scratch));
        vec![proxy.options(&bucket, Identity::NoDelete)]
    });
    let mut proxy = proxy.unwrap();
    shop.round(1);
    let backup = [
        "backup",
        "--type=full",
        "--start-fast",
        "--pack-size=4MiB",
        "--compress-type=none",
        "--max-rate=8M",
    ];
    let begin = |proxy: &S3Proxy, more: &[&str]| {
        proxy.rules("[]");
        let child = shop.walden.spawn(&[&backup[..], more].concat());
        wait_until("the first pack to arrive", || proxy.log().iter().any(|r| r.path.contains("/pack-")));
        child
    };
    let child = begin(&proxy, &["--repo1-storage-retry=1m"]);
    proxy.down();
    std::thread::sleep(Duration::from_secs(2));
    proxy.up();
    let out = shop.walden.finish(child);
    assert!(out.success(), "away for a moment: {out}");
    assert_eq!(shop.backups(), 1);

    let child = begin(&proxy, &[]);
    proxy.down();
    let started = Instant::now();
    let out = shop.walden.finish(child);
    assert!(started.elapsed() < Duration::from_secs(60), "it took {:?}", started.elapsed());
    assert_eq!(out.code, Some(30), "{out}");
    let said: String =
        out.stderr.lines().skip_while(|l| !l.starts_with("error:")).flat_map(|l| [l, "\n"]).collect();
    golden("s3/backup-store-gone", &said, &shop.replacements());
    proxy.up();
    assert_eq!(shop.backups(), 1);
    shop.walden.ok(&backup[..5]);
    assert_eq!(shop.backups(), 2);
    shop.comes_back("back");
}

#[test]
fn in_a_restore_and_the_same_command_goes_on_when_it_is_back() {
    let mut away = Away::new();
    away.shop.cluster.pgbench_init(1);
    away.shop.walden.ok(&[
        "backup",
        "--type=full",
        "--start-fast",
        "--pack-size=4MiB",
        "--compress-type=none",
    ]);
    away.rounds(1..=1);
    let before = away.shop.cluster.dump();
    let target = away.shop.scratch.join("back");
    let path = format!("--pg1-path={}", target.display());
    let arguments = ["restore", path.as_str(), "--type=default"];
    away.proxy.rules(r#"[{"do": "throttle", "bytes_per_second": 4000000}]"#);
    let child = away.reader.spawn(&arguments);
    wait_until("the restore to have begun", || target.join("base/1").exists());
    away.proxy.down();
    let started = Instant::now();
    let out = away.reader.finish(child);
    assert!(started.elapsed() < Duration::from_secs(60), "it took {:?}", started.elapsed());
    assert_eq!(out.code, Some(30), "{out}");
    assert!(!target.join("global/pg_control").exists(), "it could be started");
    let said: String =
        out.stderr.lines().skip_while(|l| !l.starts_with("error:")).flat_map(|l| [l, "\n"]).collect();
    golden("s3/restore-store-gone", &said, &away.shop.replacements());
    away.proxy.up();
    away.reader.ok(&arguments);
    let mut restored = away.shop.cluster.start_restored(&target, &[]).unwrap_or_else(|log| panic!("{log}"));
    restored.wait_recovery_end();
    assert!(restored.dump() == before, "what came back differs");
}

#[test]
fn in_a_recovery_which_stops_and_never_ends_early() {
    let mut away = Away::new();
    away.shop.round(0);
    away.shop.backup();
    let names = away.rounds(1..=4);
    let before = away.shop.cluster.dump();
    let target = restore_with(&away.reader, &away.shop.scratch, "back", &[]);
    let away_for = |away: &Away, what: &str| -> String {
        // Dead before it answers or after: it never comes up with what it has.
        let log = match away.shop.cluster.start_restored(&target, &[]) {
            Err(log) => log,
            Ok(mut server) => match server.wait_recovery() {
                crate::common::Recovery::Stopped { log } => log,
                other => panic!("{what}: {other:?} although the store is away"),
            },
        };
        assert!(log.contains("FATAL"), "{what}: {log}");
        log
    };
    // Two rounds are replayed, then nobody answers for the third.
    away.proxy.rules(&format!(r#"[{{"do": "refuse", "path": "{}"}}]"#, names[2]));
    let log = away_for(&away, "the third segment");
    assert!(log.contains(&format!("restored log file \"{}\"", names[1])), "{log}");
    golden("s3/recovery-segment-unreachable", &said(&log), &away.shop.replacements());
    away.proxy.down();
    let log = away_for(&away, "the whole store");
    golden("s3/recovery-store-gone", &said(&log), &away.shop.replacements());

    away.proxy.up();
    let mut restored = away.shop.cluster.start_restored(&target, &[]).unwrap_or_else(|log| panic!("{log}"));
    restored.wait_recovery_end();
    assert!(restored.dump() == before, "what came back differs");
}

#[test]
fn under_a_standby_which_asks_again() {
    let mut away = Away::new();
    away.shop.round(0);
    away.shop.backup();
    away.rounds(1..=1);
    let target = restore_with(&away.reader, &away.shop.scratch, "standby", &["--type=standby"]);
    let standby = away.shop.cluster.start_restored(&target, &["hot_standby=on"]);
    let standby = standby.unwrap_or_else(|log| panic!("{log}"));
    let rounds = || standby.try_sql("select count(*) from rounds").unwrap_or_default();
    wait_until("the standby to have what there is", || rounds() == "2");
    away.proxy.down();
    away.rounds(2..=2);
    wait_until("the standby to say so", || standby.log().contains("archive-get"));
    assert!(standby.in_recovery() && rounds() == "2");
    away.proxy.up();
    wait_until("the standby to go on", || rounds() == "3");
    assert!(standby.in_recovery());
}

fn get(away: &Away, name: &str, directory: &Path) -> (Option<i32>, Duration, String) {
    let mut command = away.reader.command(&["archive-get", name, "pg_wal/RECOVERYXLOG"]);
    command.current_dir(directory);
    let started = Instant::now();
    let out = crate::common::finish(command);
    (out.code, started.elapsed(), out.stderr)
}

#[test]
fn a_body_that_stalls_does_not_hang_recovery() {
    let away = Away::new();
    away.shop.round(0);
    let name = away.shop.cluster.archive_now();
    let directory = |file: &str| -> PathBuf {
        let directory = away.shop.scratch.dir(file);
        away.shop.scratch.dir(directory.join("pg_wal"));
        away.shop.scratch.dir(directory.join("global"));
        let control = std::fs::read(away.shop.cluster.data().join("global/pg_control")).unwrap();
        away.shop.scratch.write(directory.join("global/pg_control"), control);
        away.shop.scratch.write(directory.join(file), "");
        directory
    };
    let recovery = directory("recovery.signal");
    let standby = directory("standby.signal");
    away.proxy.rules(&format!(
        r#"[{{"do": "stall", "where": "body", "after": 100, "seconds": 3600, "path": "{name}"}}]"#
    ));
    // Side by side: they only wait.
    std::thread::scope(|scope| {
        let one = scope.spawn(|| get(&away, &name, &recovery));
        let two = scope.spawn(|| get(&away, &name, &standby));
        let (one, two) = (one.join().unwrap(), two.join().unwrap());
        assert_eq!((one.0, two.0), (Some(200), Some(1)), "{} {}", one.2, two.2);
        println!("given up after {:?} and {:?}", one.1, two.1);
        assert!(one.1.max(two.1) < Duration::from_secs(60), "{:?} {:?}", one.1, two.1);
        golden("s3/archive-get-stalled", &one.2, &away.shop.replacements());
        golden("s3/archive-get-stalled-standby", &two.2, &away.shop.replacements());
    });
    assert!(!recovery.join("pg_wal/RECOVERYXLOG").exists() && !standby.join("pg_wal/RECOVERYXLOG").exists());
    away.proxy.rules("[]");
    let (code, _, said) = get(&away, &name, &recovery);
    assert_eq!(code, Some(0), "{said}");
}
