//! `walden backup` against real servers: what it refuses, what it leaves behind, what it stores.

use crate::common::{
    Cluster, Proxy, Replace, Scratch, StopMode, Walden, all_majors, golden, kill_now, majors_in_full,
    newest_major, oldest_major, wait_until,
};
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::Duration;

/// A server with an encrypted repository that it archives to.
pub fn archiving(scratch: &Scratch, major: u32) -> (Cluster, Walden) {
    archiving_with(scratch, major, |cluster| cluster)
}

/// The same, with more to say about the server.
pub fn archiving_with(
    scratch: &Scratch,
    major: u32,
    more: impl FnOnce(crate::common::ClusterBuilder) -> crate::common::ClusterBuilder,
) -> (Cluster, Walden) {
    let walden = Walden::new(scratch);
    let cluster = more(Cluster::build(scratch, major)).archive_command(&walden.archive_command()).start();
    walden.configure(&cluster, &[]);
    walden.ok(&["stanza-create"]);
    (cluster, walden)
}

/// What `info --output=json` says of the only stanza's backups.
fn listed(walden: &Walden) -> Vec<Value> {
    let info: Value =
        serde_json::from_str(walden.ok(&["info", "--output=json"]).text()).expect("info is JSON");
    info["stanzas"][0]["backups"].as_array().cloned().unwrap_or_default()
}

fn backup(walden: &Walden) -> Value {
    let out = walden.ok(&["backup", "--type=full", "--start-fast", "--output=json"]);
    serde_json::from_str(out.text()).expect("backup prints JSON")
}

fn restore(scratch: &Scratch, walden: &Walden, arguments: &[&str]) -> std::path::PathBuf {
    let target = scratch.join("back");
    let path = format!("--pg1-path={}", target.display());
    walden.ok(&[&["restore", path.as_str(), "--archive-mode=off"], arguments].concat());
    target
}

#[test]
fn a_backup_under_load_holds_every_file_and_is_listed() {
    for major in all_majors() {
        let scratch = Scratch::new();
        let (cluster, walden) = archiving(&scratch, major);
        cluster.pgbench_init(2);
        let load = cluster.load();
        let taken = backup(&walden);
        drop(load);
        assert!(taken["database_bytes"].as_u64().unwrap() > 30_000_000, "{taken}");
        assert!(
            taken["stored_bytes"].as_u64().unwrap() < taken["database_bytes"].as_u64().unwrap() / 2,
            "{taken}"
        );
        let backups = listed(&walden);
        assert_eq!(backups.len(), 1);
        assert_eq!(backups[0]["id"], taken["backup_id"]);
        assert_eq!(cluster.sql("select count(*) from pg_stat_replication"), "0");
    }
}

#[test]
fn checkpoints_and_switches_during_the_copy_do_no_harm() {
    let scratch = Scratch::new();
    let (cluster, walden) = archiving_with(&scratch, oldest_major(), |c| c.segment_size_mb(1));
    cluster.pgbench_init(5);
    let child = walden.spawn(&["backup", "--type=full", "--start-fast", "--max-rate=20M"]);
    for _ in 0..6 {
        cluster.sql("create table if not exists t (a text); insert into t select md5(g::text) from generate_series(1, 3000) g; checkpoint; select pg_switch_wal()");
        thread::sleep(Duration::from_millis(300));
    }
    let out = walden.finish(child);
    assert!(out.success(), "{out}");
    assert_eq!(listed(&walden).len(), 1);
}

#[test]
fn what_can_be_refused_is_refused_before_the_first_byte() {
    let scratch = Scratch::new();
    let major = oldest_major();
    let walden = Walden::new(&scratch);
    let cluster = Cluster::build(&scratch, major).name("other").start();
    walden.configure(&cluster, &[]);
    let places = |out: String| {
        out.replace(&walden.binary().display().to_string(), "/usr/bin/walden")
            .replace(&scratch.path().display().to_string(), "SCRATCH")
    };

    let out = walden.fails(10, &["backup", "--type=full"]);
    golden("backup-no-repository", &places(out.stderr), &[]);
    walden.ok(&["stanza-create"]);
    let out = walden.fails(22, &["backup", "--type=full"]);
    golden("backup-archiving-off", &places(out.stderr), &[]);
    let out = walden.fails(
        10,
        &[
            "--stanza=nothere",
            "--pg1-port",
            &cluster.port().to_string(),
            "--pg1-socket-path",
            &cluster.socket_dir().display().to_string(),
            "--pg1-user=postgres",
            "backup",
            "--type=full",
        ],
    );
    golden("backup-no-stanza", &places(out.stderr), &[]);
    assert!(listed(&walden).is_empty());

    let stranger = Cluster::build(&scratch, major).name("stranger").archive_command("true").start();
    let socket = stranger.socket_dir().display().to_string();
    let out = walden.fails(
        21,
        &["backup", "--type=full", "--pg1-socket-path", &socket, "--pg1-port", &stranger.port().to_string()],
    );
    let numbers = [
        Replace::text(stranger.sql("select system_identifier from pg_control_system()"), "STRANGER"),
        Replace::text(cluster.sql("select system_identifier from pg_control_system()"), "OURS"),
    ];
    golden("backup-not-this-cluster", &places(out.stderr), &numbers);

    let out = walden.fails(20, &["backup", "--type=full", "--pg1-port=1"]);
    golden(
        "backup-unreachable",
        &places(out.stderr),
        &[Replace::text(cluster.socket_dir().display(), "SOCKETS")],
    );

    fs::write(walden.key_path(), "these are other words\n").unwrap();
    let out = walden.fails(12, &["backup", "--type=full"]);
    golden("backup-wrong-key", &places(out.stderr), &[Replace::Shape("keys/a+/a+", "keys/MASTER/WRAP")]);
}

#[test]
fn a_segment_that_does_not_arrive_fails_the_backup_by_name_and_the_next_one_succeeds() {
    let scratch = Scratch::new();
    let walden = Walden::new(&scratch);
    let cluster = Cluster::build(&scratch, oldest_major()).archive_command("false").start();
    walden.configure(&cluster, &[]);
    walden.ok(&["stanza-create"]);
    let out = walden.fails(42, &["backup", "--type=full", "--start-fast", "--archive-timeout=2s"]);
    golden("backup-wal-missing", &out.stderr, &Replace::segments());
    assert!(listed(&walden).is_empty());
    cluster.sql(&format!("alter system set archive_command = '{}'", walden.archive_command()));
    cluster.sql("select pg_reload_conf()");
    backup(&walden);
    assert_eq!(listed(&walden).len(), 1);
}

#[test]
fn without_an_archive_the_wal_is_fetched_over_the_connection() {
    for major in majors_in_full() {
        let scratch = Scratch::new();
        let walden = Walden::new(&scratch);
        let cluster = Cluster::build(&scratch, major).segment_size_mb(1).start();
        walden.configure(&cluster, &[]);
        walden.ok(&["stanza-create"]);
        cluster.pgbench_init(1);
        let load = cluster.load();
        walden.ok(&["backup", "--type=full", "--start-fast", "--archive-check=n"]);
        drop(load);
        assert_eq!(listed(&walden).len(), 1);
        assert_eq!(cluster.sql("select count(*) from pg_replication_slots"), "0");
        // Nothing but the backup is stored, and it comes back from that.
        let target = restore(&scratch, &walden, &["--type=none"]);
        let verified = cluster.pg_verifybackup(&target, &[]);
        assert!(verified.success(), "PostgreSQL {major}:\n{verified}");
        let server = cluster.start_restored(&target, &[]).unwrap_or_else(|log| panic!("{log}"));
        let sums = "select (select sum(tbalance) from pgbench_tellers) = (select sum(bbalance) from pgbench_branches) \
                    and (select count(*) from pgbench_accounts) = 100000";
        assert_eq!(server.sql(sums), "t", "PostgreSQL {major}");
    }
}

#[test]
fn an_interrupted_backup_shows_nowhere_leaves_no_sender_and_is_no_obstacle() {
    let scratch = Scratch::new();
    let (cluster, walden) = archiving(&scratch, oldest_major());
    cluster.pgbench_init(2);
    for signal in [Signal::INT, Signal::TERM, Signal::KILL] {
        let child = walden.spawn(&["backup", "--type=full", "--start-fast", "--max-rate=2M"]);
        wait_until("the copy to run", || {
            cluster.sql("select count(*) from pg_stat_progress_basebackup where phase like 'streaming%'")
                == "1"
        });
        kill_now(child.id(), signal);
        let out = walden.finish(child);
        assert_eq!(out.signal, Some(signal.as_raw()), "{out}");
        assert!(listed(&walden).is_empty());
        wait_until("the WAL sender to go", || cluster.sql("select count(*) from pg_stat_replication") == "0");
    }
    backup(&walden);
    assert_eq!(listed(&walden).len(), 1);
}

#[test]
fn two_backups_at_once_are_both_good() {
    let scratch = Scratch::new();
    let (cluster, walden) = archiving(&scratch, newest_major());
    cluster.pgbench_init(1);
    let children: Vec<_> = (0..2).map(|_| walden.spawn(&["backup", "--type=full", "--start-fast"])).collect();
    for child in children {
        let out = walden.finish(child);
        assert!(out.success(), "{out}");
    }
    assert_eq!(listed(&walden).len(), 2);
}

#[test]
fn a_connection_that_is_cut_fails_the_backup_with_words() {
    let scratch = Scratch::new();
    let (cluster, walden) = archiving(&scratch, newest_major());
    cluster.pgbench_init(1);
    for after in [0_u64, 100, 600_000, 9_000_000] {
        let proxy = Proxy::before(&cluster);
        proxy.rule(&format!(r#"{{"do":"cut","after":{after},"after_query":"BASE_BACKUP"}}"#));
        let (sockets, port) = (proxy.socket_dir().display().to_string(), proxy.port().to_string());
        let out = walden.fails(
            20,
            &["backup", "--type=full", "--start-fast", "--pg1-socket-path", &sockets, "--pg1-port", &port],
        );
        assert!(out.stderr.contains("error: could not take the backup"), "{out}");
        assert!(listed(&walden).is_empty());
    }
}

#[test]
fn a_server_that_falls_silent_is_given_up_after_io_timeout() {
    let scratch = Scratch::new();
    let (cluster, walden) = archiving(&scratch, oldest_major());
    let proxy = Proxy::before(&cluster);
    proxy.rule(r#"{"do": "blackhole", "after": 2000000}"#);
    let began = std::time::Instant::now();
    let socket = format!("--pg1-socket-path={}", proxy.socket_dir().display());
    let port = format!("--pg1-port={}", proxy.port());
    let out = walden.fails(
        20,
        &["backup", "--type=full", "--start-fast", "--io-timeout=2s", socket.as_str(), port.as_str()],
    );
    assert!(began.elapsed() < Duration::from_secs(30), "{out}");
    assert!(out.stderr.contains("2 s"), "{out}");
    assert!(listed(&walden).is_empty());
}

#[test]
fn damaged_pages_are_named_and_the_backup_is_kept_and_marked() {
    for major in majors_in_full() {
        let scratch = Scratch::new();
        let (cluster, walden) = archiving(&scratch, major);
        cluster.sql("create table t (a int, b text); insert into t select g, repeat('x', 500) from generate_series(1, 2000) g; checkpoint");
        let path = cluster.sql("select pg_relation_filepath('t')");
        let mut cluster = cluster;
        cluster.stop(crate::common::StopMode::Fast);
        let file = fs::OpenOptions::new().write(true).open(cluster.data().join(&path)).unwrap();
        for block in [3_u64, 7, 20, 21, 22, 23, 24] {
            file.write_all_at(b"damage", block * 8192 + 4000).unwrap();
        }
        cluster.start();
        // Archived or fetched: to the server it ends with an error, and with it goes what holds back WAL.
        for (taken, more) in [(1, "--archive-check=y"), (2, "--archive-check=n")] {
            let out = walden.fails(50, &["backup", "--type=full", "--start-fast", more]);
            for block in [3, 7, 20, 21, 22, 23, 24] {
                assert!(
                    out.stderr.contains(&format!("{path} block {block} (table public.t)\n")),
                    "block {block} is not named:\n{out}"
                );
            }
            assert!(out.stderr.contains("7 pages failed their checksum"), "{out}");
            assert_eq!(listed(&walden).len(), taken);
        }
    }
}

#[test]
fn odd_files_come_back_names_that_are_no_text_and_relations_of_more_than_one_file() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let scratch = Scratch::new();
    let (mut cluster, walden) = archiving(&scratch, oldest_major());
    let strange = cluster.data().join(OsStr::from_bytes(b"strange-\xff\xfe"));
    fs::write(&strange, b"contents").unwrap();
    scratch.give(&strange);
    // A relation of which a second file exists: the first is 1 GiB, mostly holes; the second holds pages whose checksums
    // are right only for whoever counts them on from the first.
    cluster.sql(
        "create table big with (autovacuum_enabled = off) as select g as a from generate_series(1, 100) g",
    );
    cluster.sql("checkpoint; select count(*) from big; checkpoint");
    let path = cluster.data().join(cluster.sql("select pg_relation_filepath('big')"));
    cluster.stop(StopMode::Fast);
    let first = fs::OpenOptions::new().write(true).open(&path).unwrap();
    first.set_len(1 << 30).unwrap();
    let page = fs::read(&path).map(|bytes| bytes[..8192].to_vec()).unwrap();
    let more: Vec<u8> = (0..20)
        .flat_map(|number| {
            let mut page = page.clone();
            let checksum = walden::postgres::page::checksum(&page, 131_072 + number).unwrap();
            page[8..10].copy_from_slice(&checksum.to_le_bytes());
            page
        })
        .collect();
    let second = path.with_extension("1");
    fs::write(&second, more).unwrap();
    scratch.give(&second);
    cluster.start();
    let held = "select count(*), sum(a) from big";
    assert_eq!(cluster.sql(held), format!("2100|{}", 21 * 5050));
    let taken = backup(&walden);
    assert!(taken["database_bytes"].as_u64().unwrap() > 1 << 30, "{taken}");

    let target = restore(&scratch, &walden, &["--type=immediate"]);
    let verified = cluster.pg_verifybackup(&target, &["-n"]);
    assert!(verified.success(), "{verified}");
    assert_eq!(fs::read(target.join(strange.file_name().unwrap())).unwrap(), b"contents");
    let mut server = cluster.start_restored(&target, &[]).unwrap_or_else(|log| panic!("{log}"));
    server.wait_paused();
    assert_eq!(server.sql(held), cluster.sql(held));
}

/// What a backup's messages say of the second repository.
fn said_of_the_second(stderr: &str) -> String {
    stderr.lines().filter(|line| line.contains("repo2")).flat_map(|line| [line, "\n"]).collect()
}

#[test]
fn wal_that_is_not_yet_in_another_repository_is_told_and_so_is_one_that_cannot_be_asked() {
    let scratch = Scratch::new();
    let walden = Walden::new(&scratch);
    let only_the_first = scratch.join("first.conf");
    let command = walden
        .archive_command()
        .replace(walden.config_path().to_str().unwrap(), only_the_first.to_str().unwrap());
    let cluster = Cluster::build(&scratch, newest_major()).archive_command(&command).start();
    let second = scratch.dir(walden.join("repo2"));
    let key = format!("repo2-cipher-pass-file={}", walden.key_path().display());
    let path = format!("repo2-path={}", second.display());
    walden.configure(&cluster, &[&path, "repo2-cipher-type=aes-256-gcm", &key]);
    let all = fs::read_to_string(walden.config_path()).unwrap();
    let first: String =
        all.lines().filter(|line| !line.starts_with("repo2-")).flat_map(|line| [line, "\n"]).collect();
    scratch.write(&only_the_first, first);
    walden.ok(&["stanza-create"]);
    let mut texts = String::new();
    let mut tell = |what: &str| {
        let out = walden.fails(50, &["backup", "--type=full", "--start-fast", "--repo=1"]);
        texts.push_str(&format!("{what}\n{}\n", said_of_the_second(&out.stderr)));
    };
    tell("missing there");
    fs::rename(&second, walden.join("away")).unwrap();
    tell("not there");
    let places = [
        Replace::text(scratch.path().display(), "SCRATCH"),
        Replace::text("1 WAL segment that this backup needs is", "N WAL segments that this backup needs are"),
        Replace::Shape("0+ WAL segments", "N WAL segments"),
    ];
    golden("backup-wal-elsewhere", &texts, &places);
}

#[test]
fn notes_are_kept_and_a_type_that_is_not_there_is_refused() {
    let scratch = Scratch::new();
    let (cluster, walden) = archiving(&scratch, newest_major());
    walden.ok(&[
        "backup",
        "--type=full",
        "--start-fast",
        "--annotation=why=before the upgrade",
        "--annotation=who=me",
    ]);
    assert_eq!(listed(&walden)[0]["annotations"]["why"], "before the upgrade");
    drop(cluster);
}

#[test]
fn what_the_server_passes_over_is_told_once() {
    for major in majors_in_full() {
        let scratch = Scratch::new();
        let (cluster, walden) = archiving(&scratch, major);
        std::os::unix::fs::symlink("/nowhere", cluster.data().join("base/77777")).unwrap();
        let out = walden.fails(50, &["backup", "--type=full", "--start-fast"]);
        assert_eq!(out.stderr.matches("base/77777").count(), 1, "{out}");
    }
}
