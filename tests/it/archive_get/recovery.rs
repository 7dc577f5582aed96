//! One timeline: damaged, missing and unreachable segments, the end of the archive, standbys.

use std::fs;
use std::thread;
use std::time::Duration;

use super::{Bench, Recovered, control_of, new_key};
use crate::common::{
    Cluster, Replace, Scratch, StopMode, Walden, finish, golden, majors_in_full, wait_until,
};

/// What becomes of an object's bytes.
type Mutilate = Box<dyn Fn(Vec<u8>) -> Vec<u8>>;

const COUNT: &str = "select count(*) from t";

/// 600 rows in six segments after a base backup, all archived by `cp`.
fn six_segments(major: u32, repositories: usize) -> (Bench, Cluster, std::path::PathBuf, Vec<String>) {
    let (bench, mut primary) = Bench::start(major, repositories);
    primary.sql("create table t (a int)");
    let base = primary.pg_basebackup("base", &[]);
    let mut segments = Vec::new();
    for _ in 0..6 {
        primary.sql("insert into t select generate_series(1, 100)");
        segments.push(primary.archive_now());
    }
    primary.stop(StopMode::Fast);
    (bench, primary, base, segments)
}

/// Waits in a test are not for the ten seconds that a parallel push may take: a gap of known extent.
fn known_end(bench: &Bench, segment: &str) -> String {
    bench.restore_command(&format!("--known-end={segment}"))
}

#[test]
fn damaged_missing_and_unreachable_segments_stop_recovery_and_never_shorten_it() {
    for major in majors_in_full() {
        let (bench, primary, base, segments) = six_segments(major, 2);
        bench.store_all(&bench.plain, &[]);
        let get = bench.walden.restore_command();
        let recover = |command: &str| bench.recover(&primary, &base, command, &[]);
        assert_eq!(recover(&get).sql(COUNT), "600", "PostgreSQL {major}");

        // One good copy is enough.
        let third = segments[2].as_str();
        let whole = fs::read(bench.object(0, third)).unwrap();
        bench.damage(0, third);
        assert_eq!(recover(&get).sql(COUNT), "600", "PostgreSQL {major}");

        // Neither is good, in every way in which an object can be bad.
        fs::remove_file(bench.object(1, third)).unwrap();
        let sibling = fs::read(bench.object(0, &segments[3])).unwrap();
        let ways: [(&str, Mutilate); 4] = [
            ("damaged", Box::new(|bytes| bytes)),
            ("cut", Box::new(|bytes| bytes[..bytes.len() / 2].to_vec())),
            ("emptied", Box::new(|_| Vec::new())),
            ("swapped with a sibling", Box::new(move |_| sibling.clone())),
        ];
        for (way, mutilate) in &ways {
            bench.mutilate(0, third, mutilate);
            let end = recover(&get);
            let log = end.stopped(COUNT);
            let said = format!("{third} is damaged in repo1 (");
            assert!(log.contains(&said), "PostgreSQL {major}, {way}:\n{log}");
        }

        // A repository that is gone for a while may hold what the other lacks.
        fs::rename(&bench.repositories[1], bench.walden.join("away")).unwrap();
        fs::remove_file(bench.object(0, third)).unwrap();
        recover(&get).stopped(COUNT);
        fs::rename(bench.walden.join("away"), &bench.repositories[1]).unwrap();

        // Gone for good.
        let end = recover(&get);
        let log = end.stopped(COUNT);
        assert!(log.contains(&format!("{third} is in no repository, though {} is", segments[3])), "{log}");

        // The right segment, taken from another repository, is no copy of this one's.
        bench.scratch.write(bench.object(1, third), &whole);
        recover(&get).stopped(COUNT);
        fs::remove_file(bench.object(1, third)).unwrap();
        bench.scratch.write(bench.object(0, third), whole);
        assert_eq!(recover(&get).sql(COUNT), "600", "PostgreSQL {major}");
    }
}

#[test]
fn whatever_else_goes_wrong_stops_recovery_too() {
    let (bench, primary, base, segments) = six_segments(18, 1);
    bench.store_all(&bench.plain, &[]);
    let get = bench.walden.restore_command();
    let config = bench.walden.config_path().display().to_string();
    let elsewhere = bench.walden.join("nowhere").display().to_string();
    let commands = [
        // Typing mistakes in the command.
        get.replace("archive-get", "archive-gte"),
        get.replace("archive-get", "archive-get --bogus"),
        get.replace("archive-get", "get"),
        get.replace(" \"%p\"", ""),
        get.replace("%f", "%f.gz"),
        // Settings that do not hold.
        get.replace(&config, &elsewhere),
        get.replace("--stanza=shop", "--stanza=ship"),
        get.replace("archive-get", "archive-get --system-id=1"),
        get.replace("archive-get", "archive-get --target-timeline=x"),
    ];
    for command in &commands {
        let end = bench.recover(&primary, &base, command, &[]);
        let log = end.stopped(COUNT);
        assert!(log.contains("walden archive-get: "), "{command}:\n{log}");
        assert!(!log.contains("panicked") && !log.contains("bug in walden"), "{command}:\n{log}");
    }
    // No segment that begins the recovery: the last of them would be taken for the end of the archive.
    let last = segments[5].as_str();
    fs::remove_file(bench.object(0, last)).unwrap();
    let end = bench.recover(&primary, &base, &known_end(&bench, last), &[]);
    let log = end.stopped(COUNT);
    assert!(log.contains("when this recovery was planned"), "{log}");
    // Nobody knows that it was ever there.
    fs::remove_dir_all(bench.object(0, last).parent().unwrap().join("x")).ok();
    assert_eq!(bench.recover(&primary, &base, &get, &[]).sql(COUNT), "500");
}

#[test]
fn a_key_that_does_not_fit_stops_recovery_and_a_standby() {
    let (bench, primary, base, _) = six_segments(18, 1);
    bench.key.replace(Some(new_key()));
    bench.make_repositories(&control_of(&primary));
    bench.store_all(&bench.plain, &[]);
    let wrong = new_key();
    let get = bench.walden.restore_command();
    assert_eq!(bench.recover(&primary, &base, &get, &[]).sql(COUNT), "600");

    bench.scratch.write(bench.walden.key_path(), &wrong);
    let end = bench.recover(&primary, &base, &get, &[]);
    let log = end.stopped(COUNT);
    assert!(log.contains("a wrong passphrase or key file, not damage"), "{log}");
    assert!(!log.contains(wrong.as_str()), "{log}");
    let data = bench.copy(&base, "standby", "standby.signal");
    let command = format!("restore_command={get}");
    let standby = primary.start_restored(&data, &["archive_mode=off", &command]);
    let log = standby.err().unwrap();
    assert!(log.contains("The standby stops"), "{log}");
    fs::remove_file(bench.walden.key_path()).unwrap();
    bench.recover(&primary, &base, &get, &[]).stopped(COUNT);
}

#[test]
fn the_last_unfinished_segment_is_replayed_as_far_as_it_is_held() {
    for major in majors_in_full() {
        let (bench, mut primary) = Bench::start(major, 1);
        primary.sql("create table t (a int)");
        let base = primary.pg_basebackup("base", &[]);
        primary.sql("insert into t select generate_series(1, 100)");
        primary.archive_now();
        primary.sql("insert into t select generate_series(1, 11)");
        primary.archive_now();
        primary.sql("insert into t select generate_series(1, 22)");
        let open = primary.sql("select pg_walfile_name(pg_current_wal_lsn())");
        primary.stop(StopMode::Immediate);
        bench.store_all(&bench.plain, &[]);
        let get = bench.walden.restore_command();
        let before = bench.recover(&primary, &base, &get, &[]).sql(COUNT);
        assert_eq!(before, "111", "PostgreSQL {major}");
        // The server's disk is still readable: what it had begun is saved as PostgreSQL would name it.
        let partial = format!("{open}.partial").parse().unwrap();
        bench.store_as(&primary.data().join("pg_wal").join(&open), partial);
        assert_eq!(bench.recover(&primary, &base, &get, &[]).sql(COUNT), "133", "PostgreSQL {major}");
        // Had there been more of it, this would not be the end.
        let end = bench.recover(&primary, &base, &known_end(&bench, &open), &[]);
        end.stopped(COUNT);
    }
}

#[test]
fn a_standby_waits_where_a_recovery_stops() {
    for major in majors_in_full() {
        let (bench, primary, base, segments) = six_segments(major, 1);
        bench.store_all(&bench.plain, &[segments[5].as_str()]);
        bench.damage(0, &segments[2]);
        let data = bench.copy(&base, "standby", "standby.signal");
        let command = format!("restore_command={}", bench.walden.restore_command());
        let standby =
            primary.start_restored(&data, &["archive_mode=off", &command, "hot_standby=on"]).unwrap();
        let rows = || standby.try_sql(COUNT).unwrap_or_default();
        wait_until("the standby to reach the damaged segment", || rows() == "200");
        wait_until("the standby to say so", || standby.log().contains("is damaged in repo1"));
        assert!(standby.log().contains("The standby asks again"), "{}", standby.log());
        fs::remove_file(bench.object(0, &segments[2])).unwrap();
        bench.store(&bench.plain.join(&segments[2]));
        wait_until("the standby to go on", || rows() == "500");
        // Nothing more: it asks again and again, and the log stays quiet.
        let before = standby.log().matches("walden").count();
        thread::sleep(Duration::from_secs(6));
        assert_eq!(standby.log().matches("walden").count(), before, "{}", standby.log());
        bench.store(&bench.plain.join(&segments[5]));
        wait_until("the standby to replay what came in", || rows() == "600");
        assert!(standby.in_recovery());
    }
}

#[test]
fn what_postgresql_reads_in_its_log() {
    let (bench, primary, base, segments) = six_segments(18, 2);
    bench.store_all(&bench.plain, &[]);
    let get = bench.walden.restore_command();
    let mut told = String::new();
    let mut tell = |what: &str, end: &Recovered| {
        end.stopped(COUNT);
        told.push_str(&format!("# {what}\n{}\n", end.lines()));
    };
    let recover = |command: &str| bench.recover(&primary, &base, command, &[]);
    let gone = |repository: usize| {
        let path = &bench.repositories[repository];
        fs::rename(path, path.with_extension("away")).unwrap();
    };
    let back = |repository: usize| {
        let path = &bench.repositories[repository];
        fs::rename(path.with_extension("away"), path).unwrap();
    };
    bench.damage(0, &segments[3]);
    bench.damage(1, &segments[3]);
    tell("damaged in both repositories", &recover(&get));
    bench.mutilate(1, &segments[3], |bytes| bytes[..100].to_vec());
    tell("damaged in two ways", &recover(&get));
    fs::remove_file(bench.object(1, &segments[3])).unwrap();
    fs::remove_file(bench.object(0, &segments[3])).unwrap();
    tell("missing", &recover(&get));
    gone(1);
    tell("a repository is away", &recover(&get));
    gone(0);
    tell("all repositories are away", &recover(&get));
    back(0);
    back(1);
    tell("another system", &recover(&bench.restore_command("--system-id=1")));
    let places =
        [Replace::text(bench.scratch.path().display(), "SCRATCH"), Replace::text(bench.system, "SYSTEM")];
    golden(
        "archive-get/postgresql-log",
        &told,
        &places.into_iter().chain(Replace::times()).collect::<Vec<_>>(),
    );
}

#[test]
fn what_archive_push_stores_sealed_recovers_to_the_last_row() {
    for major in majors_in_full() {
        let scratch = Scratch::new();
        let walden = Walden::new(&scratch);
        let mut primary = Cluster::build(&scratch, major)
            .segment_size_mb(1)
            .archive_command(&walden.archive_command())
            .start();
        walden.configure(&primary, &[]);
        walden.ok(&["stanza-create"]);
        primary.sql("create table t (a int)");
        let base = primary.pg_basebackup("base", &[]);
        primary.sql("insert into t select generate_series(1, 100000)");
        primary.archive_now();
        let live = primary.dump();
        primary.stop(StopMode::Fast);
        let mut cp = scratch.command("cp");
        cp.arg("-a").arg(&base).arg(scratch.join("back"));
        assert!(finish(cp).success());
        scratch.write(scratch.join("back/recovery.signal"), "");
        let get = format!("restore_command={}", walden.restore_command());
        let mut back = primary.start_restored(&scratch.join("back"), &["archive_mode=off", &get]).unwrap();
        back.wait_recovery_end();
        assert!(back.dump() == live, "PostgreSQL {major}: the recovered contents differ");
        let left = fs::read_dir(scratch.join("back/pg_wal")).unwrap().map(|e| e.unwrap().file_name());
        assert!(left.into_iter().all(|name| !name.to_string_lossy().starts_with(".walden")));
    }
}

#[test]
fn by_hand_it_gives_a_file_as_archived_and_says_where_it_cannot() {
    let (bench, _, _, segments) = six_segments(18, 1);
    bench.store_all(&bench.plain, &[]);
    let target = bench.walden.join("out").display().to_string();
    let get = |name: &str| bench.run(&["archive-get", name, &target]);
    let out = get(&segments[1]);
    assert!(out.success() && out.stderr.is_empty(), "{out}");
    assert_eq!(fs::read(&target).unwrap(), fs::read(bench.plain.join(&segments[1])).unwrap());
    fs::remove_file(&target).unwrap();
    let out = get("0000000100000000000000EE");
    assert!(out.code == Some(1) && out.stderr.is_empty(), "{out}");
    bench.damage(0, &segments[1]);
    let out = get(&segments[1]);
    assert!(out.code == Some(200), "{out}");
    assert_eq!(out.stderr.lines().count(), 1, "{out}");
    assert!(!fs::exists(&target).unwrap());
    // A place that cannot be written to.
    let out = bench.run(&["archive-get", &segments[0], "/proc/x"]);
    assert!(out.code == Some(200) && out.stderr.contains("could not write"), "{out}");
}
