//! A store that is away for minutes, with the settings that nobody has touched. Where all is tested (`make test-all`).

use super::Shop;
use crate::common::{BucketKind, Identity, Recovery, S3Proxy, S3Server, newest_major, test_all, wait_until};
use std::time::{Duration, Instant};

/// Longer than the two minutes after which many clients give up for good.
const AWAY: Duration = Duration::from_secs(130);

/// Packs that are small, sent slowly: there is a middle to be away in.
const SLOW_BACKUP: [&str; 6] =
    ["backup", "--type=full", "--start-fast", "--pack-size=4MiB", "--compress-type=none", "--max-rate=8M"];

/// A shop behind a proxy, with all settings at their defaults.
fn untouched() -> (Shop, S3Proxy) {
    let (mut shop, proxy) = super::behind_a_proxy(1);
    let options = [shop.options.clone()];
    shop.walden.configure_repositories(&shop.cluster, &options, &[]);
    (shop, proxy)
}

fn away(proxy: &mut S3Proxy) {
    proxy.down();
    std::thread::sleep(AWAY);
    proxy.up();
}

#[test]
fn a_backup_outlives_it() {
    if !test_all() {
        return;
    }
    let (shop, mut proxy) = untouched();
    shop.round(1);
    proxy.rules("[]");
    let child = shop.walden.spawn(&SLOW_BACKUP);
    wait_until("the first pack to arrive", || proxy.log().iter().any(|r| r.path.contains("/pack-")));
    away(&mut proxy);
    let out = shop.walden.finish(child);
    assert!(out.success(), "{out}");
    assert_eq!(shop.backups(), 1);
    shop.walden.ok(&["verify"]);
    shop.comes_back("back");
}

#[test]
fn a_push_gives_up_in_time_and_postgresql_keeps_the_wal_and_asks_again() {
    if !test_all() {
        return;
    }
    let (shop, mut proxy) = untouched();
    shop.backup();
    shop.cluster.archive_now();
    proxy.down();
    let began = Instant::now();
    shop.round(1);
    let (name, path) = shop.segment();
    let out = shop.walden.fails(30, &["archive-push", path.to_str().unwrap()]);
    assert!(began.elapsed() < Duration::from_secs(110), "{:?}: {out}", began.elapsed());
    assert!(path.exists(), "PostgreSQL keeps it");
    std::thread::sleep(AWAY.saturating_sub(began.elapsed()));
    assert!(path.exists(), "PostgreSQL keeps it");
    proxy.up();
    // Three failures make the archiver sleep for a minute; a new segment wakes it.
    shop.cluster.archive_now();
    shop.cluster.wait_archived(&name);
    shop.holds(&name, &path);
    shop.comes_back("back");
}

#[test]
fn a_restore_outlives_it_and_a_recovery_stops_and_goes_on_when_it_is_started_again() {
    if !test_all() {
        return;
    }
    let (shop, mut proxy) = untouched();
    shop.cluster.pgbench_init(1);
    shop.walden.ok(&SLOW_BACKUP[..5]);
    let names: Vec<String> = (1..=4)
        .map(|n| {
            shop.round(n);
            shop.cluster.archive_now()
        })
        .collect();
    let before = shop.cluster.dump();
    let target = shop.scratch.join("back");
    let path = format!("--pg1-path={}", target.display());
    proxy.rules(r#"[{"do": "throttle", "bytes_per_second": 4000000}]"#);
    let child = shop.walden.spawn(&["restore", &path, "--type=default"]);
    wait_until("the restore to have begun", || target.join("base/1").exists());
    away(&mut proxy);
    let out = shop.walden.finish(child);
    assert!(out.success(), "{out}");

    // Nobody answers for a segment in the middle, for longer than it is asked for.
    proxy.rules(&format!(r#"[{{"do": "refuse", "path": "{}"}}]"#, names[2]));
    let began = Instant::now();
    let log = match shop.cluster.start_restored(&target, &[]) {
        Err(log) => log,
        Ok(mut server) => match server.wait_recovery() {
            Recovery::Stopped { log } => log,
            other => panic!("{other:?} although the store is away"),
        },
    };
    assert!(log.contains("FATAL") && log.contains(&format!("\"{}\"", names[1])), "{log}");
    println!("the recovery stopped after {:?}", began.elapsed());
    proxy.rules("[]");
    let mut restored = shop.cluster.start_restored(&target, &[]).unwrap_or_else(|log| panic!("{log}"));
    restored.wait_recovery_end();
    assert!(restored.dump() == before, "what came back differs");
}

#[test]
fn with_the_second_repository_away_the_first_serves() {
    if !test_all() {
        return;
    }
    let server = S3Server::shared();
    let mut proxy = None;
    let mut shop = Shop::open(newest_major(), 1, |scratch, _| {
        let proxy = proxy.insert(S3Proxy::before(server, scratch));
        vec![
            server.options(&server.bucket(BucketKind::Plain), Identity::NoDelete),
            proxy.options(&server.bucket(BucketKind::Plain), Identity::NoDelete),
        ]
    });
    let mut proxy = proxy.unwrap();
    let options = shop.all_options.clone();
    shop.walden.configure_repositories(&shop.cluster, &options, &[]);
    shop.round(1);
    shop.backup();
    shop.walden.ok(&["backup", "--type=full", "--start-fast", "--repo=2"]);
    shop.cluster.archive_now();

    proxy.down();
    let began = Instant::now();
    shop.round(2);
    let (name, path) = shop.segment();
    wait_until("the segment to be in the first", || {
        let keys = server.keys(options[0].iter().find(|(n, _)| n == "s3-bucket").map(|(_, b)| b).unwrap());
        keys.iter().any(|key| key.contains(&name))
    });
    assert!(path.exists(), "PostgreSQL keeps what the second has not");
    let before = shop.cluster.dump();
    std::thread::sleep(AWAY.saturating_sub(began.elapsed()));
    // It is waited for, but not as long as one that must serve.
    let asked = Instant::now();
    let target = shop.scratch.join("back");
    let path = format!("--pg1-path={}", target.display());
    let out = shop.walden.fails(50, &["restore", &path, "--type=default"]);
    assert!(asked.elapsed() < Duration::from_secs(180), "{:?}: {out}", asked.elapsed());
    assert!(out.stderr.contains("warning: cannot open repo2"), "{out}");
    // The recovery cannot know that the second has nothing newer. Whoever knows better says so in the configuration.
    shop.walden.configure_repositories(&shop.cluster, &options[..1], &[]);
    let mut restored = shop.cluster.start_restored(&target, &[]).unwrap_or_else(|log| panic!("{log}"));
    restored.wait_recovery_end();
    assert!(restored.dump() == before, "what came back differs");

    shop.walden.configure_repositories(&shop.cluster, &options, &[]);
    proxy.up();
    shop.cluster.archive_now();
    shop.cluster.wait_archived(&name);
    shop.walden.ok(&["verify"]);
}
