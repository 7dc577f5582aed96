//! Pages that fail their checksum: what of the cluster they belong to, and what becomes of the backup.

use crate::backup::{archiving, archiving_with};
use crate::common::{Cluster, Replace, Scratch, StopMode, all_majors, golden, newest_major, test_all};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::FileExt;

/// Spoils pages of the file `path` of a server that is stopped for it.
fn spoil(cluster: &mut Cluster, pages: &[(String, Vec<u64>)]) {
    cluster.stop(StopMode::Fast);
    for (path, blocks) in pages {
        let file = fs::OpenOptions::new().write(true).open(cluster.data().join(path)).unwrap();
        for block in blocks {
            file.write_all_at(b"damage", block * 8192 + 4000).unwrap();
        }
    }
    cluster.start();
}

#[test]
fn the_server_names_what_a_damaged_page_belongs_to() {
    // The oldest and the newest catalogue that is asked; the others with `make test-all`.
    let majors = if test_all() { all_majors() } else { vec![14, 19] };
    majors.into_iter().for_each(names_are_told);
}

fn names_are_told(major: u32) {
    let scratch = Scratch::new();
    let (mut cluster, walden) = archiving_with(&scratch, major, |cluster| cluster.checksums(true));
    cluster.sql(
        "create schema \"odd schema\";
         create table \"odd schema\".orders (id int primary key, note text);
         alter table \"odd schema\".orders alter note set storage external;
         insert into \"odd schema\".orders select g, repeat(md5(g::text), 200) from generate_series(1, 3000) g;
         create database other",
    );
    cluster.sql_in("other", "create table t as select generate_series(1, 5000) a");
    let path = |relation: &str| cluster.sql(&format!("select pg_relation_filepath({relation})"));
    let table = path("'\"odd schema\".orders'");
    let index = path("'\"odd schema\".orders_pkey'");
    let toast = path("(select reltoastrelid from pg_class where oid = '\"odd schema\".orders'::regclass)");
    let other = cluster.sql_in("other", "select pg_relation_filepath('t')");
    let spoiled = [(table, vec![1]), (index, vec![2]), (toast, (0..30).collect()), (other, vec![3])];
    spoil(&mut cluster, &spoiled);

    let out = walden.fails(50, &["backup", "--type=full", "--start-fast", "--output=json"]);
    let taken: Value = serde_json::from_str(out.text()).unwrap();
    assert_eq!(taken["page_checksum_failures"], 33);
    let info: Value = serde_json::from_str(walden.ok(&["info", "--output=json"]).text()).unwrap();
    let failures = info["stanzas"][0]["backups"][0]["page_checksums"]["failures"].as_array().unwrap();
    assert_eq!(failures.len(), 33, "every one is named");
    let relation_of = |path: &str| {
        let failure = failures.iter().find(|failure| failure["path"] == path).expect("it is named");
        failure["relation"].as_str().unwrap_or("nothing").to_owned()
    };
    let [table, index, toast, other] = spoiled.map(|(path, _)| relation_of(&path));
    assert_eq!(table, "table \"odd schema\".orders");
    assert_eq!(index, "index \"odd schema\".orders_pkey");
    assert_eq!(toast, "TOAST of table \"odd schema\".orders");
    assert_eq!(other, "database other");
    assert!(out.stderr.contains("and 13 more;"), "{out}");
    let id = taken["backup_id"].as_str().unwrap();
    let shown = walden.ok(&["info", &format!("--set={id}")]);
    assert!(
        shown.stdout.contains("33 pages failed") && shown.stdout.contains("and 13 more, which"),
        "{shown}"
    );
}

#[test]
fn where_a_damaged_page_fails_the_backup_nothing_is_kept() {
    let scratch = Scratch::new();
    let (mut cluster, walden) = archiving(&scratch, newest_major());
    cluster
        .sql("create table orders as select g, repeat('x', 500) from generate_series(1, 2000) g; checkpoint");
    let path = cluster.sql("select pg_relation_filepath('orders')");
    spoil(&mut cluster, &[(path.clone(), vec![3, 7])]);
    let out = walden.fails(40, &["backup", "--type=full", "--start-fast", "--page-errors=fail"]);
    golden("backup-page-errors", &out.stderr, &[Replace::text(&path, "base/5/16384")]);
    let listed: Value = serde_json::from_str(walden.ok(&["info", "--output=json"]).text()).unwrap();
    assert_eq!(listed["stanzas"][0]["backups"].as_array().map(Vec::len), Some(0), "{listed}");
    walden.fails(50, &["backup", "--type=full", "--start-fast"]);
}
