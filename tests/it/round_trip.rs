//! Backup, archive and restore together, on clusters of other shapes than the ordinary one: what comes back is
//! compared with what was there.

use crate::common::{Cluster, Scratch, Walden, newest_major, oldest_major};

struct Shape {
    major: u32,
    segment_mb: u32,
    checksums: bool,
    /// Rows of 500 bytes in a table of its own.
    rows: u32,
    global: &'static [&'static str],
    backup: &'static [&'static str],
}

fn round_trip(shape: &Shape) {
    let scratch = Scratch::new();
    let walden = Walden::new(&scratch);
    let cluster = Cluster::build(&scratch, shape.major)
        .segment_size_mb(shape.segment_mb)
        .checksums(shape.checksums)
        .archive_command(&walden.archive_command())
        .conf(&["max_prepared_transactions=2"])
        .start();
    walden.configure(&cluster, shape.global);
    walden.ok(&["stanza-create"]);
    cluster.pgbench_init(1);
    cluster.sql(&format!(
        "create table wide as select g, repeat(md5(g::text), 15) as t from generate_series(1, {}) g;
         create unlogged table gone as select 1 as a;
         create table nothing ();
         create database other;
         begin; create table prepared as select 1 as a; prepare transaction 'later'",
        shape.rows
    ));
    cluster.sql_in("other", "create table there as select generate_series(1, 100) as n");
    let load = cluster.load();
    let mut arguments = vec!["backup", "--type=full", "--start-fast"];
    arguments.extend(shape.backup);
    walden.ok(&arguments);
    drop(load);
    cluster.sql("commit prepared 'later'; update wide set t = 'changed' where g % 1000 = 0; truncate gone");
    cluster.archive_now();
    let before = cluster.dump();

    let target = scratch.join("back");
    let path = format!("--pg1-path={}", target.display());
    walden.ok(&["restore", &path, "--type=default"]);
    let verified = cluster.pg_verifybackup(&target, &["-n"]);
    assert!(verified.success(), "{verified}");
    let mut restored = cluster.start_restored(&target, &[]).unwrap_or_else(|log| panic!("{log}"));
    restored.wait_recovery_end();
    assert_eq!(restored.dump(), before, "the restored cluster has other contents");
    assert_eq!(restored.sql("show data_checksums"), if shape.checksums { "on" } else { "off" });
    if shape.checksums {
        // Reads every page.
        restored.sql("set zero_damaged_pages = off; select count(*) from wide");
    }
}

#[test]
fn segments_of_one_megabyte_no_checksums_one_worker_no_compression() {
    round_trip(&Shape {
        major: oldest_major(),
        segment_mb: 1,
        checksums: false,
        rows: 20_000,
        global: &["process-max=1", "compress-type=none"],
        backup: &[],
    });
}

#[test]
fn segments_in_parts_and_a_relation_of_many_frames_and_packs() {
    round_trip(&Shape {
        major: newest_major(),
        segment_mb: 64,
        checksums: true,
        rows: 330_000,
        global: &["process-max=3", "pack-size=4MiB"],
        backup: &["--verify-writes"],
    });
}

#[test]
fn a_repository_in_the_clear_and_two_repositories() {
    let scratch = Scratch::new();
    let walden = Walden::new(&scratch);
    let cluster = Cluster::build(&scratch, newest_major()).archive_command(&walden.archive_command()).start();
    let second = format!("repo2-path={}", walden.join("repo2").display());
    walden.configure_plain(&cluster, &[&second, "repo2-cipher-type=none"]);
    walden.ok(&["stanza-create"]);
    cluster.pgbench_init(1);
    walden.ok(&["backup", "--type=full", "--start-fast", "--repo=2"]);
    cluster.archive_now();
    let before = cluster.dump();
    // The first repository loses all its WAL; the second has the backup and every segment.
    let repo = walden.repo_path();
    std::fs::remove_dir_all(repo.join("shop/wal")).unwrap();
    let target = scratch.join("back");
    walden.ok(&["restore", &format!("--pg1-path={}", target.display()), "--type=default"]);
    let mut restored = cluster.start_restored(&target, &[]).unwrap_or_else(|log| panic!("{log}"));
    restored.wait_recovery_end();
    assert_eq!(restored.dump(), before);
}
