//! Every PostgreSQL × {primary, standby} × {no tablespace, two}: a backup, WAL after it, a restore beside the
//! original, and what recovery makes of it held against the original. `WALDEN_TEST_ALL=1` tries all of them; each change
//! only those that no other test sees.

use crate::common::{Cluster, Scratch, Walden, all_majors, test_all, wait_until};

const SPACES: [&str; 2] = ["fast", "slow"];

/// All databases' contents but where tablespaces lie, which is another place for each copy.
fn contents(server: &Cluster) -> String {
    let dump = server.dump();
    dump.lines().filter(|line| !line.starts_with("CREATE TABLESPACE")).flat_map(|line| [line, "\n"]).collect()
}

fn write_rows(primary: &Cluster, tables: &[&str], round: u32) {
    for table in tables {
        primary.sql(&format!(
            "insert into in_{table} select {round} * 10000 + n, repeat(md5(n::text), 8) \
             from generate_series(1, 2000) n; delete from in_{table} where n % 7 = {round}"
        ));
    }
}

/// A standby on the same machine, its tablespaces beside those of the primary.
fn follower(scratch: &Scratch, primary: &Cluster, spaces: &[&str]) -> Cluster {
    let mut arguments =
        vec!["-R".to_owned(), "-X".into(), "stream".into(), "-C".into(), "-S".into(), "standby".into()];
    for space in spaces {
        let (from, to) = (scratch.join(format!("space {space}")), scratch.join(format!("standby {space}")));
        arguments.extend(["-T".to_owned(), format!("{}={}", from.display(), to.display())]);
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let data = primary.pg_basebackup("standby", &arguments);
    let mut standby = Cluster::on_directory(scratch, primary.major(), &data);
    standby.start();
    let end = primary.flush_lsn();
    wait_until("the standby to replay", || {
        standby.sql(&format!("select pg_last_wal_replay_lsn() >= '{end}'")) == "t"
    });
    standby
}

fn comes_back(major: u32, from_standby: bool, spaces: &[&str]) {
    let scratch = Scratch::new();
    let walden = Walden::new(&scratch);
    let primary = Cluster::build(&scratch, major)
        .conf(&["wal_keep_size = 128MB"])
        .archive_command(&walden.archive_command())
        .start();
    walden.configure(&primary, &["archive-timeout=20s"]);
    walden.ok(&["stanza-create"]);
    for space in spaces {
        let place = scratch.dir(format!("space {space}"));
        primary.sql(&format!("create tablespace {space} location '{}'", place.display()));
    }
    let tables = [&["default"], spaces].concat();
    for table in &tables {
        let place = if *table == "default" { String::new() } else { format!("tablespace {table}") };
        primary.sql(&format!(
            "create table in_{table} (n int, what text) {place}; create index on in_{table} (n) {place}"
        ));
    }
    write_rows(&primary, &tables, 1);
    let standby = from_standby.then(|| follower(&scratch, &primary, spaces));
    let server = standby.as_ref().unwrap_or(&primary);
    let sockets = format!("--pg1-socket-path={}", server.socket_dir().display());
    let port = format!("--pg1-port={}", server.port());
    walden.ok(&["backup", "--type=full", "--start-fast", &sockets, &port]);
    write_rows(&primary, &tables, 2);
    primary.archive_now();

    let target = scratch.join("back");
    let path = format!("--pg1-path={}", target.display());
    let all = format!("--tablespace-map-all={}", scratch.join("spaces").display());
    let mut arguments = vec!["restore", &path, "--type=default", "--archive-mode=off"];
    if !spaces.is_empty() {
        arguments.push(&all);
    }
    walden.ok(&arguments);
    let verified = primary.pg_verifybackup(&target, &["-n"]);
    assert!(verified.success(), "PostgreSQL {major}:\n{verified}");
    let mut back =
        primary.start_restored(&target, &[]).unwrap_or_else(|log| panic!("PostgreSQL {major}:\n{log}"));
    back.wait_recovery_end();
    assert!(contents(&back) == contents(&primary), "PostgreSQL {major} came back with other contents");
    for table in &tables {
        let scan = format!("set enable_seqscan = off; select count(*), sum(n) from in_{table} where n > 0");
        assert_eq!(back.sql(&scan), primary.sql(&scan), "PostgreSQL {major}, the index of in_{table}");
    }
}

/// All of them, or those that stand for the rest on every change.
fn majors(daily: &[u32]) -> Vec<u32> {
    if test_all() { all_majors() } else { daily.to_vec() }
}

#[test]
fn a_primary_comes_back() {
    // Daily on every major: backup and restore have tests of their own.
    for major in majors(&[]) {
        comes_back(major, false, &[]);
    }
}

#[test]
fn a_primary_with_tablespaces_comes_back() {
    for major in majors(&[14, 19]) {
        comes_back(major, false, &SPACES);
    }
}

#[test]
fn a_standby_comes_back() {
    for major in majors(&[14]) {
        comes_back(major, true, &[]);
    }
}

#[test]
fn a_standby_with_tablespaces_comes_back() {
    for major in majors(&[18, 19]) {
        comes_back(major, true, &SPACES);
    }
}
