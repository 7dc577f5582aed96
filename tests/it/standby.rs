//! Backups of a standby, with its primary idle, busy and gone: what comes back is compared with what was there.

use crate::common::{
    Cluster, Proxy, Replace, Scratch, StopMode, Walden, golden, majors_in_full, newest_major, test_all,
    wait_until,
};
use serde_json::Value;
use std::path::PathBuf;

/// A primary that archives, and a standby that streams from it.
struct Pair {
    scratch: Scratch,
    primary: Cluster,
    standby: Cluster,
    walden: Walden,
}

impl Pair {
    fn begin(major: u32) -> Self {
        Self::begin_with(major, 16, true)
    }

    fn begin_with(major: u32, segment_mb: u32, archives: bool) -> Self {
        let scratch = Scratch::new();
        let walden = Walden::new(&scratch);
        let mut primary = Cluster::build(&scratch, major)
            .name("primary")
            .segment_size_mb(segment_mb)
            .conf(&["wal_keep_size = 128MB"]);
        if archives {
            primary = primary.archive_command(&walden.archive_command());
        }
        let primary = primary.start();
        walden.configure(&primary, &["archive-timeout=20s"]);
        walden.ok(&["stanza-create"]);
        primary.sql("create table rounds (n int primary key)");
        primary.pgbench_init(1);
        let standby = follower(&primary, "standby");
        Self { scratch, primary, standby, walden }
    }

    /// Writes a row and waits until the standby shows it.
    fn round(&self, n: u32) {
        self.primary.sql(&format!("insert into rounds values ({n})"));
        caught_up(&self.primary, &self.standby);
    }

    /// `walden backup` of the standby.
    fn backup_with(&self, code: i32, arguments: &[&str]) -> crate::common::Output {
        let (sockets, port) = at(&self.standby);
        let mut all = vec!["backup", "--type=full", "--start-fast", &sockets, &port];
        all.extend(arguments);
        if code == 0 { self.walden.ok(&all) } else { self.walden.fails(code, &all) }
    }

    fn backup(&self) -> Value {
        serde_json::from_str(self.backup_with(0, &["--output=json"]).text()).expect("backup prints JSON")
    }

    fn restore(&self, name: &str, arguments: &[&str]) -> PathBuf {
        let target = self.scratch.join(name);
        let path = format!("--pg1-path={}", target.display());
        let mut all = vec!["restore", path.as_str()];
        all.extend(arguments);
        self.walden.ok(&all);
        target
    }

    fn start(&self, target: &std::path::Path) -> Cluster {
        self.primary.start_restored(target, &[]).unwrap_or_else(|log| panic!("{log}"))
    }

    /// The tails that are stored.
    fn tails(&self) -> Vec<String> {
        let listed = self.walden.ok(&["repo-ls", "--recurse", "shop/wal"]);
        listed.text().lines().filter(|line| line.contains(".tail/")).map(str::to_owned).collect()
    }

    fn info(&self) -> Value {
        serde_json::from_str(self.walden.ok(&["info", "--output=json"]).text()).expect("info is JSON")
    }

    fn replacements(&self) -> Vec<Replace> {
        let mut all = vec![Replace::text(self.scratch.path().display(), "SCRATCH")];
        all.extend(Replace::backup_ids());
        all.extend(Replace::times());
        all.extend(Replace::segments());
        all.extend(Replace::lsns());
        all
    }
}

fn follower(primary: &Cluster, name: &str) -> Cluster {
    let data = primary.pg_basebackup(name, &["-R", "-X", "stream", "-C", "-S", name]);
    let mut standby = Cluster::on_directory(primary.scratch(), primary.major(), &data);
    standby.start();
    wait_until("the standby to stream", || {
        primary.sql("select count(*) from pg_stat_replication where state = 'streaming'") != "0"
    });
    standby
}

fn caught_up(primary: &Cluster, standby: &Cluster) {
    let end = primary.flush_lsn();
    wait_until("the standby to replay", || {
        standby.sql(&format!("select pg_last_wal_replay_lsn() >= '{end}'")) == "t"
    });
}

fn at(server: &Cluster) -> (String, String) {
    (format!("--pg1-socket-path={}", server.socket_dir().display()), format!("--pg1-port={}", server.port()))
}

fn rounds(server: &Cluster) -> String {
    server.sql("select coalesce(string_agg(n::text, ',' order by n), 'none') from rounds")
}

#[test]
fn with_an_idle_primary_the_end_of_the_wal_comes_from_the_standby() {
    for major in majors_in_full() {
        let pair = Pair::begin(major);
        pair.round(1);
        let before = pair.primary.dump();
        let taken = pair.backup();
        assert_eq!(taken["from_standby"], true);
        assert_eq!(pair.tails().len(), 1, "{:?}", pair.tails());
        assert_eq!(pair.standby.sql("select count(*) from pg_replication_slots"), "0");

        for (name, kind) in
            [("immediate", "--type=immediate"), ("default", "--type=default"), ("none", "--type=none")]
        {
            let target = pair.restore(name, &[kind, "--archive-mode=off"]);
            let verify: &[&str] = if name == "none" { &[] } else { &["-n"] };
            let verified = pair.primary.pg_verifybackup(&target, verify);
            assert!(verified.success(), "PostgreSQL {major}, {name}:\n{verified}");
            assert!(!target.join("standby.signal").exists());
            let mut server = pair.start(&target);
            match name {
                "immediate" => server.wait_paused(),
                "default" => server.wait_recovery_end(),
                _ => assert!(!server.in_recovery()),
            }
            assert_eq!(server.sql("show primary_conninfo"), "", "{name}");
            assert_eq!(server.dump(), before, "PostgreSQL {major}, {name}");
        }

        // The segment itself comes, takes over, and leads on.
        pair.round(2);
        pair.primary.archive_now();
        let target = pair.restore("later", &["--type=default"]);
        let mut server = pair.start(&target);
        server.wait_recovery_end();
        assert_eq!(rounds(&server), "1,2");
        let windows = pair.info()["stanzas"][0]["clusters"][0]["windows"].clone();
        assert_eq!(windows.as_array().map(Vec::len), Some(1), "{windows}");
    }
}

#[test]
fn under_load_with_restart_points_and_checkpoints_it_comes_back_as_it_is_written() {
    for major in majors_in_full() {
        let pair = Pair::begin_with(major, 1, true);
        let load = pair.primary.load();
        let (sockets, port) = at(&pair.standby);
        let child =
            pair.walden.spawn(&["backup", "--type=full", "--start-fast", "--max-rate=20M", &sockets, &port]);
        for _ in 0..4 {
            pair.primary.sql("checkpoint; select pg_switch_wal()");
            pair.standby.sql("checkpoint");
            std::thread::sleep(std::time::Duration::from_millis(300));
        }
        let out = pair.walden.finish(child);
        drop(load);
        assert!(out.success(), "{out}");
        pair.round(1);
        pair.primary.archive_now();
        let target = pair.restore("back", &["--type=default"]);
        let mut server = pair.start(&target);
        server.wait_recovery_end();
        assert_eq!(server.dump(), pair.primary.dump(), "PostgreSQL {major}");
    }
}

#[test]
fn a_primary_that_is_gone_and_did_not_archive_is_no_obstacle_and_is_told() {
    for major in majors_in_full() {
        let mut pair = Pair::begin_with(major, 1, true);
        pair.primary.configure(&["archive_command = 'false'"]);
        for n in 1..4 {
            pair.round(n);
            pair.primary.switch_wal();
        }
        pair.round(4);
        let before = pair.standby.dump();
        pair.primary.kill9();
        let out = pair.backup_with(50, &["--archive-timeout=1s"]);
        golden("backup-standby-primary-gone", &summary_of(&out.stderr), &pair.replacements());

        for (name, kind) in [("immediate", "--type=immediate"), ("default", "--type=default")] {
            let target = pair.restore(name, &[kind, "--archive-mode=off"]);
            let mut server = pair.start(&target);
            if name == "immediate" {
                server.wait_paused();
                assert_eq!(server.dump(), before);
                server.sql("select pg_wal_replay_resume()");
            }
            server.wait_recovery_end();
            assert_eq!(server.dump(), before, "PostgreSQL {major}");
            server.sql("insert into rounds values (99)");
        }
        // All that was written is held, some of it beside the archive proper: no gap.
        let info = pair.info();
        assert_eq!(info["stanzas"][0]["clusters"][0]["gaps"].as_array().map(Vec::len), Some(0), "{info}");
    }
}

/// The lines of a backup's messages that do not tell how long things take.
fn summary_of(stderr: &str) -> String {
    stderr
        .lines()
        .filter(|line| !line.contains(" is complete: ") && !line.contains("copying"))
        .flat_map(|line| [line, "\n"])
        .collect()
}

#[test]
fn without_an_archive_a_standbys_backup_brings_its_own_wal() {
    for major in majors_in_full() {
        let pair = Pair::begin_with(major, 1, false);
        let load = pair.primary.load();
        pair.backup_with(0, &["--archive-check=n"]);
        drop(load);
        let target = pair.restore("none", &["--type=none"]);
        let server = pair.start(&target);
        server.sql("set zero_damaged_pages = off; select count(*) from pgbench_accounts");
        let sums = "select (select sum(tbalance) from pgbench_tellers) = (select sum(bbalance) from pgbench_branches)";
        assert_eq!(server.sql(sums), "t");
    }
}

#[test]
fn a_standby_made_of_a_standbys_backup_streams_without_the_originals_slot() {
    let major = newest_major();
    let pair = Pair::begin(major);
    pair.round(1);
    pair.backup();
    let conninfo = format!("--recovery-option=primary_conninfo={}", pair.primary.conninfo());
    let target = pair.restore("new", &["--type=standby", &conninfo]);
    let server = pair.start(&target);
    assert_eq!(server.sql("show primary_slot_name"), "");
    pair.round(2);
    wait_until("the new standby to stream", || rounds(&server) == "1,2");
    assert_eq!(pair.primary.sql("select count(*) from pg_stat_replication"), "2");
    // And one without a primary waits for the archive.
    let target = pair.restore("waits", &["--type=standby"]);
    let server = pair.start(&target);
    assert_eq!(server.sql("show primary_conninfo"), "");
    pair.primary.archive_now();
    wait_until("the standby to follow the archive", || rounds(&server) == "1,2");
    assert!(server.in_recovery());
}

#[test]
fn a_standby_that_is_promoted_meanwhile_or_cannot_be_copied_says_so() {
    let major = newest_major();
    let pair = Pair::begin(major);
    // The other way round than usual: the stanza can be made at a standby.
    let (sockets, port) = at(&pair.standby);
    let path = format!("--pg1-path={}", pair.standby.data().display());
    pair.walden.ok(&["--stanza=other", &sockets, &port, "--pg1-user=postgres", &path, "stanza-create"]);

    pair.primary.sql("alter system set full_page_writes = off");
    pair.primary.sql("select pg_reload_conf()");
    pair.primary.sql("checkpoint");
    pair.round(1);
    let out = pair.backup_with(22, &[]);
    golden("backup-standby-full-page-writes", &out.stderr, &pair.replacements());
    pair.primary.sql("alter system reset full_page_writes");
    pair.primary.sql("select pg_reload_conf()");
    pair.primary.sql("checkpoint");
    pair.round(2);
    pair.standby.sql("checkpoint");

    let child =
        pair.walden.spawn(&["backup", "--type=full", "--start-fast", "--max-rate=3M", &sockets, &port]);
    wait_until("the copy to run", || {
        pair.standby.sql("select count(*) from pg_stat_progress_basebackup where phase like 'streaming%'")
            == "1"
    });
    pair.standby.promote();
    let out = pair.walden.finish(child);
    assert_eq!(out.code, Some(22), "{out}");
    golden("backup-standby-promoted", &out.stderr, &pair.replacements());
    assert_eq!(pair.info()["stanzas"][0]["backups"].as_array().map(Vec::len), Some(0));
}

#[test]
fn a_mutilated_tail_is_named_and_no_recovery_is_given_it() {
    let pair = Pair::begin_with(newest_major(), 1, true);
    pair.round(1);
    pair.backup();
    let repo = pair.walden.repo_path();
    let tails = pair.tails();
    let [line] = tails.as_slice() else { panic!("{tails:?}") };
    let key = line.split_whitespace().find(|word| word.contains(".tail/")).unwrap();
    let key = key.find("shop/").map_or_else(|| format!("shop/wal/{key}"), |at| key[at..].to_owned());
    let segment = key.split('/').find_map(|part| part.strip_suffix(".tail")).unwrap();
    let whole = std::fs::read(repo.join(&key)).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 4;
    let target = pair.scratch.join("asked");
    for (how, bytes) in [
        ("flipped", Some(flipped.as_slice())),
        ("cut", Some(&whole[..whole.len() / 2])),
        ("emptied", Some(&[])),
        ("removed", None),
    ] {
        match bytes {
            Some(bytes) => drop(pair.scratch.write(repo.join(&key), bytes)),
            None => std::fs::remove_file(repo.join(&key)).unwrap(),
        }
        let verified = pair.walden.run(&["verify"]);
        assert_eq!(verified.code, Some(if bytes.is_some() { 40 } else { 42 }), "{how}: {verified}");
        // Of one that is gone the segment is missed.
        let named = if bytes.is_some() { key.as_str() } else { segment };
        assert!(verified.stdout.contains(named), "{how}: {verified}");
        let got = pair.walden.run(&["archive-get", segment, target.to_str().unwrap()]);
        assert!(got.code != Some(0) && !target.exists(), "{how}: {got}");
    }
}

#[test]
fn damaged_pages_of_a_standby_are_named() {
    use std::os::unix::fs::FileExt;
    let mut pair = Pair::begin(newest_major());
    pair.primary
        .sql("create table t as select g, repeat('x', 500) as filling from generate_series(1, 2000) g");
    pair.round(1);
    pair.primary.sql("checkpoint");
    pair.round(2);
    pair.standby.sql("checkpoint");
    let path = pair.standby.sql("select pg_relation_filepath('t')");
    pair.standby.stop(StopMode::Fast);
    let file = std::fs::OpenOptions::new().write(true).open(pair.standby.data().join(&path)).unwrap();
    // More than the server names of one file itself.
    let blocks = [3_u64, 7, 20, 21, 22, 23, 24];
    for block in blocks {
        file.write_all_at(b"damage", block * 8192 + 4000).unwrap();
    }
    pair.standby.start();
    let out = pair.backup_with(50, &[]);
    for block in blocks {
        assert!(
            out.stderr.contains(&format!("{path} block {block} (table public.t)\n")),
            "block {block} is not named:\n{out}"
        );
    }
    assert!(out.stderr.contains("7 pages failed their checksum"), "{out}");
}

#[test]
fn a_standby_that_lets_nobody_in_says_so() {
    let mut pair = Pair::begin(newest_major());
    pair.standby.stop(StopMode::Immediate);
    pair.standby.set_options(&["hot_standby=off"]);
    pair.standby.start();
    let mut words = String::new();
    wait_until("the standby to be past its start", || {
        words = pair.backup_with(20, &[]).stderr;
        words.contains("Hot standby mode is disabled")
    });
    golden("backup-standby-hot-standby-off", &words, &pair.replacements());
}

#[test]
fn a_switch_of_the_upstreams_timeline_is_followed() {
    if !test_all() {
        return;
    }
    for major in majors_in_full() {
        let pair = Pair::begin_with(major, 1, true);
        let second = follower(&pair.standby, "second");
        pair.round(1);
        caught_up(&pair.primary, &second);
        let (sockets, port) = at(&second);
        let child =
            pair.walden.spawn(&["backup", "--type=full", "--start-fast", "--max-rate=5M", &sockets, &port]);
        wait_until("the copy to run", || {
            second.sql("select count(*) from pg_stat_progress_basebackup where phase like 'streaming%'")
                == "1"
        });
        pair.standby.promote();
        pair.standby.sql("insert into rounds values (2)");
        pair.standby.archive_now();
        wait_until("the cascade to follow", || rounds(&second) == "1,2");
        second.sql("checkpoint");
        let out = pair.walden.finish(child);
        assert!(out.success(), "{out}");
        pair.standby.sql("insert into rounds values (3)");
        pair.standby.archive_now();
        for (name, kind, expected) in
            [("default", "--type=default", "1,2,3"), ("immediate", "--type=immediate", "1,2")]
        {
            let target = pair.restore(name, &[kind, "--archive-mode=off"]);
            let mut server = pair.start(&target);
            match name {
                "default" => server.wait_recovery_end(),
                _ => server.wait_paused(),
            }
            assert_eq!(rounds(&server), expected, "PostgreSQL {major}, {name}");
        }
    }
}

#[test]
fn a_hole_that_a_failover_left_is_shown_and_what_was_before_it_ends_there() {
    let major = newest_major();
    let mut pair = Pair::begin_with(major, 1, true);
    pair.round(1);
    pair.walden.ok(&["backup", "--type=full", "--start-fast"]);
    pair.round(2);
    pair.primary.archive_now();
    // A backup that ends in the segment that will be lost.
    pair.round(3);
    let before = pair.standby.dump();
    let taken = pair.backup();
    pair.primary.configure(&["archive_command = 'false'"]);
    for n in 4..6 {
        pair.round(n);
        pair.primary.switch_wal();
    }
    caught_up(&pair.primary, &pair.standby);
    pair.primary.kill9();
    pair.standby.promote();
    pair.standby.sql("insert into rounds values (6)");
    pair.standby.archive_now();
    let info = pair.info();
    let cluster = &info["stanzas"][0]["clusters"][0];
    assert_eq!(cluster["gaps"].as_array().map(Vec::len), Some(1), "{info}");
    let (sockets, port) = at(&pair.standby);
    let out = pair.walden.fails(
        43,
        &[
            "restore",
            &format!("--pg1-path={}", pair.scratch.join("no").display()),
            "--type=default",
            "--dry-run",
        ],
    );
    assert!(out.stderr.contains("missing"), "{out}");
    // What that backup itself needs is held.
    let set = format!("--set={}", taken["backup_id"].as_str().unwrap());
    let target = pair.restore("before", &["--type=immediate", &set, "--archive-mode=off"]);
    let mut server = pair.start(&target);
    server.wait_paused();
    assert_eq!(server.dump(), before);
    server.promote();
    drop(server);
    // What comes after the hole begins with the next backup.
    pair.walden.ok(&["backup", "--type=full", "--start-fast", &sockets, &port]);
    pair.standby.sql("insert into rounds values (7)");
    pair.standby.archive_now();
    let target = pair.restore("after", &["--type=default", "--archive-mode=off"]);
    let mut server = pair.start(&target);
    server.wait_recovery_end();
    assert_eq!(rounds(&server), "1,2,3,4,5,6,7");
}

#[test]
fn wal_that_stops_coming_over_the_connection_is_not_awaited_for_ever() {
    let pair = Pair::begin_with(newest_major(), 1, false);
    let proxy = Proxy::before(&pair.standby);
    proxy.rule(r#"{"do":"blackhole","after":0,"after_query":"START_REPLICATION"}"#);
    let (sockets, port) = (proxy.socket_dir().display().to_string(), proxy.port().to_string());
    let arguments =
        ["--pg1-socket-path", &sockets, "--pg1-port", &port, "--archive-check=n", "--archive-timeout=2s"];
    let mut all = vec!["backup", "--type=full", "--start-fast"];
    all.extend(arguments);
    let out = pair.walden.fails(42, &all);
    let mut replacements = pair.replacements();
    replacements.push(Replace::Shape("for 0+ s", "for N s"));
    golden("backup-wal-not-sent", &out.stderr, &replacements);
}
