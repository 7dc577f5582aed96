//! Several timelines: dead branches, missing histories, forks inside a segment and on its border, pg_rewind.

use std::fs;
use std::path::PathBuf;

use super::{Bench, copy_to};
use crate::common::{Cluster, StopMode, finish, majors_in_full, wait_until};

const ROWS: &str = "select string_agg(who, ', ' order by who) from t";

/// An old primary that lived on after a standby was promoted, with plain archives of their own.
struct Branches {
    bench: Bench,
    primary: Cluster,
    base: PathBuf,
    standby: Cluster,
    plain_of_standby: PathBuf,
    fork: String,
}

/// `rows before the fork`, then `new primary` on timeline 2 and `DEAD 1` to `DEAD 3` on timeline 1.
fn branches(major: u32) -> Branches {
    let (bench, primary) = Bench::start(major, 1);
    primary.sql("create table t (who text); insert into t values ('before')");
    let base = primary.pg_basebackup("base", &[]);
    let copy = primary.pg_basebackup("sb", &["-X", "stream", "-R"]);
    let plain_of_standby = bench.scratch.dir("plain2");
    let archive = format!("archive_command={}", copy_to(&plain_of_standby));
    let standby = primary.start_restored(&copy, &["archive_mode=on", &archive]).unwrap();
    primary.switch_wal();
    primary.sql("insert into t values ('before too')");
    let flushed = primary.flush_lsn();
    wait_until("the standby to replay", || {
        standby.sql(&format!("select pg_last_wal_replay_lsn() >= '{flushed}'")) == "t"
    });
    standby.promote();
    standby.sql("insert into t values ('new primary')");
    for number in 1..=3 {
        primary.sql(&format!("insert into t values ('DEAD {number}')"));
        primary.archive_now();
    }
    standby.wait_archived("00000002.history");
    let history = fs::read_to_string(plain_of_standby.join("00000002.history")).unwrap();
    let fork = history.split('\t').nth(1).unwrap().to_owned();
    Branches { bench, primary, base, standby, plain_of_standby, fork }
}

/// Where a recovered server left the timeline it followed.
fn left_at(server: &super::Recovered, new: u32) -> String {
    let super::Recovered::Promoted(server) = server else { panic!("recovery stopped") };
    let path = server.data().join(format!("pg_wal/{new:08X}.history"));
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.lines().rfind(|line| !line.is_empty()).unwrap().split('\t').nth(1).unwrap().to_owned()
}

#[test]
fn a_dead_branch_is_not_replayed() {
    for major in majors_in_full() {
        let Branches { bench, primary, base, mut standby, plain_of_standby, fork } = branches(major);
        standby.stop(StopMode::Immediate);
        bench.store_all(&bench.plain, &[]);
        bench.store(&plain_of_standby.join("00000002.history"));

        // cp goes wrong: rows that the new timeline never had.
        fs::copy(plain_of_standby.join("00000002.history"), bench.plain.join("00000002.history")).unwrap();
        bench.scratch.give(&bench.plain.join("00000002.history"));
        let cp = format!("cp {}/%f \"%p\"", bench.plain.display());
        let follow = ["recovery_target_timeline=2"];
        let wrong = bench.recover(&primary, &base, &cp, &follow).sql(ROWS);
        assert_eq!(wrong, "DEAD 1, DEAD 2, DEAD 3, before, before too", "PostgreSQL {major}");

        // walden ends exactly at the fork.
        let target = bench.restore_command("--target-timeline=2");
        let right = bench.recover(&primary, &base, &target, &follow);
        assert_eq!(right.sql(ROWS), "before, before too", "PostgreSQL {major}");
        assert_eq!(left_at(&right, 3), fork, "PostgreSQL {major}");

        // Written by hand, without the target: it stops rather than guess.
        let end = bench.recover(&primary, &base, &bench.walden.restore_command(), &follow);
        let log = end.stopped(ROWS);
        assert!(log.contains("say with --target-timeline"), "PostgreSQL {major}:\n{log}");

        // Who wants the old branch gets it.
        let target = bench.restore_command("--target-timeline=1");
        let old = bench.recover(&primary, &base, &target, &["recovery_target_timeline=1"]);
        assert_eq!(old.sql(ROWS), "DEAD 1, DEAD 2, DEAD 3, before, before too", "PostgreSQL {major}");
    }
}

#[test]
fn the_segment_of_the_fork_damaged_or_gone_stops_recovery_and_the_new_timelines_copy_serves() {
    for major in majors_in_full() {
        let Branches { bench, primary, base, standby, plain_of_standby, .. } = branches(major);
        let first = standby.archive_now();
        bench.store_all(&bench.plain, &[]);
        bench.store_all(&plain_of_standby, &[]);
        let follow = ["recovery_target_timeline=2"];
        let target = bench.restore_command("--target-timeline=2");
        // The first segment of a timeline begins with its ancestor's pages.
        let whole = bench.recover(&primary, &base, &target, &follow);
        assert_eq!(whole.sql(ROWS), "before, before too, new primary", "PostgreSQL {major}");
        drop(whole);
        // Also without the target: PostgreSQL asks for the newest timeline's segment first.
        let by_hand = bench.recover(&primary, &base, &bench.walden.restore_command(), &follow);
        assert_eq!(by_hand.sql(ROWS), "before, before too, new primary", "PostgreSQL {major}");
        drop(by_hand);
        bench.damage(0, &first);
        bench.recover(&primary, &base, &target, &follow).stopped(ROWS);
        // Gone, with a later one there: ending at the fork would lose the new primary's row.
        standby.sql("insert into t values ('later')");
        let second = standby.archive_now();
        bench.store(&plain_of_standby.join(&second));
        fs::remove_file(bench.object(0, &first)).unwrap();
        let end = bench.recover(&primary, &base, &target, &follow);
        let log = end.stopped(ROWS);
        assert!(log.contains(&format!("{first} is in no repository, though {second} is")), "{log}");
    }
}

#[test]
fn pg_rewind_gets_the_dead_branch_as_it_was_archived() {
    for major in majors_in_full() {
        let Branches { bench, mut primary, standby, plain_of_standby, .. } = branches(major);
        primary.sql("checkpoint; checkpoint");
        primary.stop(StopMode::Fast);
        bench.store_all(&bench.plain, &[]);
        bench.store_all(&plain_of_standby, &[]);
        // pg_rewind needs WAL back to the last checkpoint before the fork; only the archive has it.
        let pg_wal = primary.data().join("pg_wal");
        let mut gone = 0;
        for entry in fs::read_dir(&pg_wal).unwrap().map(Result::unwrap) {
            let name = entry.file_name().into_string().unwrap();
            if name.len() == 24 && bench.plain.join(&name).exists() {
                fs::remove_file(entry.path()).unwrap();
                gone += 1;
            }
        }
        assert!(gone > 3);
        // `postgresql.auto.conf` is read after `postgresql.conf`, as `pg_rewind` reads it.
        let command = bench.restore_command("--target-timeline=2").replace('\'', "''");
        let auto = primary.data().join("postgresql.auto.conf");
        bench.scratch.write(&auto, format!("restore_command = '{command}'\n"));
        let mut rewind = primary.program("pg_rewind");
        rewind.arg("--target-pgdata").arg(primary.data());
        rewind.arg(format!("--source-server={}", standby.conninfo()));
        rewind.args(["--restore-target-wal", "--no-sync"]);
        let out = finish(rewind);
        assert!(out.success(), "PostgreSQL {major}:\n{out}");
        assert!(out.stderr.contains("Done!"), "{out}");
    }
}

/// Timelines 1, 2 and 3, each with 100 rows more, on one server; all archived.
fn three_timelines(major: u32) -> (Bench, Cluster, PathBuf) {
    let (bench, mut server) = Bench::start(major, 1);
    server.sql("create table t (a int); insert into t select generate_series(1, 100)");
    let base = server.pg_basebackup("base", &[]);
    server.archive_now();
    for _ in 2..=3 {
        server.stop(StopMode::Fast);
        bench.scratch.write(server.data().join("standby.signal"), "");
        server.start();
        server.promote();
        server.sql("insert into t select generate_series(1, 100)");
        server.archive_now();
    }
    server.stop(StopMode::Fast);
    (bench, server, base)
}

#[test]
fn a_missing_history_is_implied_by_a_later_one_or_stops_recovery() {
    const STATE: &str =
        "select count(*) || ' rows on ' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) from t";
    for major in majors_in_full() {
        let (bench, server, base) = three_timelines(major);
        bench.store_all(&bench.plain, &[]);
        let get = bench.walden.restore_command();
        let latest = ["recovery_target_timeline=latest"];
        assert_eq!(bench.recover(&server, &base, &get, &latest).sql(STATE), "300 rows on 00000004");

        // cp goes wrong: it ends on timeline 1 and uses the number 2 a second time.
        let cp = format!("test %f != 00000002.history && cp {}/%f \"%p\"", bench.plain.display());
        assert_eq!(bench.recover(&server, &base, &cp, &latest).sql(STATE), "100 rows on 00000002");

        // Timeline 3 tells what the history of 2 must be, missing or damaged.
        bench.damage(0, "00000002.history");
        assert_eq!(bench.recover(&server, &base, &get, &latest).sql(STATE), "300 rows on 00000004");
        fs::remove_file(bench.object(0, "00000002.history")).unwrap();
        assert_eq!(bench.recover(&server, &base, &get, &latest).sql(STATE), "300 rows on 00000004");

        // Nothing tells.
        fs::remove_file(bench.object(0, "00000003.history")).unwrap();
        let end = bench.recover(&server, &base, &get, &latest);
        let log = end.stopped(STATE);
        assert!(log.contains("00000002.history is in no repository, though timeline 3 is"), "{log}");
        // To an older timeline on purpose, PostgreSQL finds a free number only above all that were used.
        bench.store(&bench.plain.join("00000002.history"));
        bench.store(&bench.plain.join("00000003.history"));
        let target = bench.restore_command("--target-timeline=2");
        let second = bench.recover(&server, &base, &target, &["recovery_target_timeline=2"]);
        assert_eq!(second.sql(STATE), "200 rows on 00000004");
    }
}

#[test]
fn a_fork_exactly_on_the_border_ends_there_and_the_old_timelines_next_segment_is_not_touched() {
    for major in majors_in_full() {
        let (bench, mut primary) = Bench::start(major, 1);
        primary.sql("create table t (who text); insert into t values ('before')");
        let base = primary.pg_basebackup("base", &[]);
        let last = primary.archive_now();
        bench.store_all(&bench.plain, &[]);
        // A restore ends after the switch, so the new timeline forks at the segment's end.
        let get = bench.walden.restore_command();
        let plain = bench.scratch.dir("plain2");
        let archive = format!("archive_command={}", copy_to(&plain));
        let data = bench.copy(&base, "new", "recovery.signal");
        let command = format!("restore_command={get}");
        let mut new = primary.start_restored(&data, &["archive_mode=on", &archive, &command]).unwrap();
        new.wait_recovery_end();
        new.sql("insert into t values ('new')");
        let first = new.archive_now();
        new.wait_archived("00000002.history");
        let history = fs::read_to_string(plain.join("00000002.history")).unwrap();
        let fork = history.split('\t').nth(1).unwrap().to_owned();
        assert!(fork.ends_with("00000") && first[16..] != last[16..], "the fork {fork} is not on a border");
        // The old primary goes on.
        primary.sql("insert into t values ('DEAD')");
        let dead = primary.archive_now();
        assert_eq!(dead[8..], first[8..]);
        primary.stop(StopMode::Fast);
        new.stop(StopMode::Fast);
        bench.store_all(&bench.plain, &[]);
        bench.store(&plain.join("00000002.history"));

        let target = bench.restore_command("--target-timeline=2");
        let follow = ["recovery_target_timeline=2"];
        let end = bench.recover(&primary, &base, &target, &follow);
        assert_eq!((end.sql(ROWS), super::timelines::left_at(&end, 3)), ("before".to_owned(), fork));
        drop(end);
        bench.store(&plain.join(&first));
        assert_eq!(bench.recover(&primary, &base, &target, &follow).sql(ROWS), "before, new");
    }
}
