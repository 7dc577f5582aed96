//! `walden restore` in the ways that are asked for rarely: the image's own settings, one repository of several, a copy
//! that needs no archive, and a `restore_command` that somebody wrote by hand and wrongly.

use crate::common::{Cluster, Scratch, Walden, oldest_major};
use std::fs;

struct Rare {
    scratch: Scratch,
    cluster: Cluster,
    walden: Walden,
}

impl Rare {
    fn begin(second_repository: bool) -> Self {
        let scratch = Scratch::new();
        let walden = Walden::new(&scratch);
        let major = oldest_major();
        let cluster = Cluster::build(&scratch, major).archive_command(&walden.archive_command()).start();
        let second = format!("repo2-path={}", walden.join("repo2").display());
        match second_repository {
            true => walden.configure(&cluster, &[&second, "repo2-cipher-type=none"]),
            false => walden.configure(&cluster, &[]),
        }
        walden.ok(&["stanza-create"]);
        cluster.sql("create table t (n int)");
        Self { scratch, cluster, walden }
    }

    fn backup(&self, more: &[&str]) -> String {
        let mut arguments = vec!["backup", "--start-fast", "--output=json"];
        arguments.extend(more);
        let out = self.walden.ok(&arguments);
        let taken: serde_json::Value = serde_json::from_str(out.text()).expect("backup prints JSON");
        taken["backup_id"].as_str().expect("an id").to_owned()
    }

    fn path(&self, name: &str) -> String {
        format!("--pg1-path={}", self.scratch.join(name).display())
    }

    fn planned(&self, more: &[&str]) -> serde_json::Value {
        let path = self.path("planned");
        let mut arguments = vec!["restore", path.as_str(), "--dry-run", "--output=json"];
        arguments.extend(more);
        serde_json::from_str(self.walden.ok(&arguments).text()).expect("a plan in JSON")
    }
}

#[test]
fn preserve_keeps_what_the_image_says_of_recovery_and_never_archives_beside_the_living() {
    let rare = Rare::begin(false);
    let command = rare.walden.restore_command();
    rare.cluster.sql(&format!("alter system set restore_command = '{}'", command.replace('\'', "''")));
    rare.cluster.sql("alter system set recovery_target_action = 'promote'");
    rare.cluster.sql("alter system set recovery_end_command = 'true'");
    rare.backup(&[]);
    rare.cluster.sql("insert into t values (1), (2)");
    rare.cluster.archive_now();
    rare.walden.ok(&["restore", &rare.path("back"), "--type=preserve"]);
    let back = rare.scratch.join("back");
    let settings = fs::read_to_string(back.join("postgresql.auto.conf")).unwrap();
    for kept in ["restore_command = ", "recovery_target_action = 'promote'", "recovery_end_command = 'true'"]
    {
        assert_eq!(settings.matches(kept).count(), 1, "{kept}:\n{settings}");
    }
    assert!(settings.contains("archive_mode = 'off'"), "{settings}");
    assert!(!back.join("recovery.signal").exists() && !back.join("standby.signal").exists());
    let verified = rare.cluster.pg_verifybackup(&back, &["-n"]);
    assert!(verified.success(), "{verified}");
    // The image was a primary's: whoever preserves its settings says himself how it shall start.
    rare.scratch.write("back/recovery.signal", "");
    let mut server = rare.cluster.start_restored(&back, &[]).expect("it starts");
    server.wait_recovery_end();
    assert_eq!(server.sql("select count(*) from t"), "2");
    assert_eq!(server.sql("show archive_mode"), "off");
    let text =
        rare.walden.fails(2, &["restore", &rare.path("x"), "--type=preserve", "--recovery-option=a=b"]);
    assert!(text.stderr.contains("--recovery-option means nothing"), "{text}");
}

#[test]
fn one_repository_is_named_for_the_backup_and_wal_is_taken_from_all() {
    let rare = Rare::begin(true);
    let in_one = rare.backup(&["--repo=1"]);
    rare.cluster.sql("insert into t values (1)");
    let in_two = rare.backup(&["--repo=2"]);
    rare.cluster.sql("insert into t values (2)");
    let lost = rare.cluster.archive_now();
    assert_eq!(rare.planned(&[])["backup_id"], in_two.as_str(), "the newest of all repositories");
    assert_eq!(rare.planned(&[])["repository"], "repo2");
    for (repo, id) in [("--repo=1", &in_one), ("--repo=2", &in_two)] {
        assert_eq!(rare.planned(&[repo])["backup_id"], id.as_str());
    }
    let elsewhere =
        rare.walden.fails(2, &["restore", &rare.path("x"), "--repo=1", &format!("--set={in_two}")]);
    assert!(elsewhere.stderr.contains("there is no such backup"), "{elsewhere}");

    // repo1 lost a segment behind its backup; repo2 has it.
    let system = rare.cluster.sql("select system_identifier from pg_control_system()");
    let folder = rare.walden.repo_path().join(format!("shop/wal/{system}/00000001"));
    let object = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path().join(&lost))
        .find(|path| path.exists())
        .expect("the segment is in repo1");
    fs::remove_file(object).unwrap();
    rare.walden.ok(&["restore", &rare.path("back"), "--repo=1"]);
    let mut server = rare.cluster.start_restored(&rare.scratch.join("back"), &[]).expect("it starts");
    server.wait_recovery_end();
    assert_eq!(server.sql("select string_agg(n::text, ',' order by n) from t"), "1,2");

    // A repository that is gone is warned about, unless it is the one that was asked for.
    fs::rename(rare.walden.join("repo2"), rare.walden.join("away")).unwrap();
    let warned = rare.walden.fails(50, &["restore", &rare.path("again"), "--dry-run"]);
    assert!(warned.stdout.contains(&in_one), "{warned}");
    assert_eq!(rare.walden.run(&["restore", &rare.path("x"), "--repo=2"]).code, Some(10));
    assert!(!rare.scratch.join("x").exists());
}

#[test]
fn a_copy_without_its_archive_starts_alone_and_does_not_archive() {
    let rare = Rare::begin(false);
    rare.cluster.sql("insert into t values (1)");
    rare.backup(&[]);
    rare.cluster.sql("insert into t values (2)");
    rare.cluster.archive_now();
    // Nobody is seen to be alive here, and it stays off all the same: it starts on the timeline of the backup.
    let nowhere = format!("--pg1-socket-path={}", rare.scratch.path().display());
    rare.walden.ok(&["restore", &rare.path("alone"), "--type=none", &nowhere]);
    let before = rare.cluster.sql("select archived_count, failed_count from pg_stat_archiver");
    fs::rename(rare.walden.repo_path(), rare.walden.join("away")).unwrap();
    let server = rare.cluster.start_restored(&rare.scratch.join("alone"), &[]).expect("it starts alone");
    assert!(!server.in_recovery());
    assert_eq!(server.sql("select n from t"), "1");
    assert_eq!(server.sql("show archive_mode"), "off");
    server.sql("insert into t values (3)");
    server.switch_wal();
    assert_eq!(server.sql("select archived_count, failed_count from pg_stat_archiver"), "0|0");
    fs::rename(rare.walden.join("away"), rare.walden.repo_path()).unwrap();
    assert_eq!(rare.cluster.sql("select archived_count, failed_count from pg_stat_archiver"), before);
    // Asked for, it archives.
    rare.walden.ok(&["restore", &rare.path("archives"), "--type=none", "--archive-mode=preserve"]);
    let settings = fs::read_to_string(rare.scratch.join("archives/postgresql.auto.conf")).unwrap();
    assert!(!settings.contains("archive_mode"), "{settings}");
}

#[test]
fn a_wrong_option_in_a_restore_command_written_by_hand_never_ends_a_recovery() {
    let rare = Rare::begin(false);
    rare.backup(&[]);
    rare.cluster.sql("insert into t values (1)");
    rare.cluster.archive_now();
    for wrong in ["rubbish", "0", "0x2", "99999999999", ""] {
        let option = format!("--target-timeline={wrong}");
        let refused = rare
            .walden
            .fails(200, &["archive-get", &option, "0000000100000000000000FF", "pg_wal/RECOVERYXLOG"]);
        assert!(refused.stderr.contains(&format!("cannot use --target-timeline={wrong}")), "{refused}");
    }
    let command =
        rare.walden.restore_command().replace("archive-get", "archive-get --target-timeline=rubbish");
    let option = format!("--recovery-option=restore_command={command}");
    rare.walden.fails(50, &["restore", &rare.path("back"), &option]);
    let log =
        rare.cluster.start_restored(&rare.scratch.join("back"), &[]).err().expect("it must not come up");
    assert!(log.contains("cannot use --target-timeline=rubbish"), "{log}");
    assert!(!log.contains("archive recovery complete"), "{log}");
}
