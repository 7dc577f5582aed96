//! `walden restore` against real servers: every target type, what it refuses, what a killed one leaves.

use crate::common::{
    Cluster, ClusterBuilder, Recovery, Replace, Scratch, StopMode, Walden, all_majors, finish, golden,
    kill_now, newest_major, oldest_major, wait_until,
};
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A cluster with a table of rounds, a backup in the middle of them, and places to go back to.
struct Story {
    scratch: Scratch,
    cluster: Cluster,
    walden: Walden,
}

impl Story {
    fn begin(major: u32) -> Self {
        Self::begin_with(major, |cluster| cluster)
    }

    fn begin_with(major: u32, more: impl FnOnce(ClusterBuilder) -> ClusterBuilder) -> Self {
        let scratch = Scratch::new();
        let walden = Walden::new(&scratch);
        let cluster =
            more(Cluster::build(&scratch, major)).archive_command(&walden.archive_command()).start();
        walden.configure(&cluster, &[]);
        walden.ok(&["stanza-create"]);
        cluster.sql("create table rounds (n int primary key, at timestamptz default clock_timestamp())");
        Self { scratch, cluster, walden }
    }

    fn backup(&self) -> String {
        let out = self.walden.ok(&["backup", "--type=full", "--start-fast", "--output=json"]);
        let taken: Value = serde_json::from_str(out.text()).expect("backup prints JSON");
        taken["backup_id"].as_str().expect("an id").to_owned()
    }

    fn round(&self, n: u32) {
        self.cluster.sql(&format!("insert into rounds values ({n})"));
    }

    /// Where a restore goes.
    fn target(&self, name: &str) -> PathBuf {
        self.scratch.join(name)
    }

    fn restore(&self, name: &str, arguments: &[&str]) -> PathBuf {
        let target = self.target(name);
        let path = format!("--pg1-path={}", target.display());
        let mut all = vec!["restore", path.as_str()];
        all.extend(arguments);
        self.walden.ok(&all);
        target
    }

    fn refuses(&self, code: i32, name: &str, arguments: &[&str]) -> String {
        let target = self.target(name);
        let path = format!("--pg1-path={}", target.display());
        let mut all = vec!["restore", path.as_str()];
        all.extend(arguments);
        self.walden.fails(code, &all).stderr
    }

    fn start(&self, target: &Path) -> Cluster {
        match self.cluster.start_restored(target, &[]) {
            Ok(server) => server,
            Err(log) => panic!("the restored server did not start:\n{log}"),
        }
    }

    /// What stands in the text for places that differ from run to run.
    fn replacements(&self) -> Vec<Replace> {
        let mut all = vec![Replace::text(self.scratch.path().display(), "SCRATCH")];
        all.extend(Replace::backup_ids());
        all.extend(Replace::times());
        all.extend(Replace::segments());
        all.extend(Replace::lsns());
        all
    }
}

fn rounds(server: &Cluster) -> String {
    server.sql("select coalesce(string_agg(n::text, ',' order by n), 'none') from rounds")
}

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn every_target_type_brings_back_exactly_what_it_names() {
    for major in all_majors() {
        let story = Story::begin(major);
        story.cluster.pgbench_init(1);
        story.round(1);
        let load = story.cluster.load();
        story.backup();
        drop(load);
        story.round(2);
        let at_two = story.cluster.sql("select clock_timestamp()");
        let lsn_two = story.cluster.sql("select pg_current_wal_insert_lsn()");
        story.cluster.sql("select pg_create_restore_point('after two')");
        std::thread::sleep(Duration::from_millis(20));
        let xid_three =
            story.cluster.sql("begin; insert into rounds values (3); select pg_current_xact_id(); commit");
        let xid_three = xid_three.lines().find(|line| line.parse::<u64>().is_ok()).unwrap().to_owned();
        story.round(4);
        story.cluster.archive_now();

        for (name, arguments, expected) in [
            ("default", vec!["--type=default"], "1,2,3,4"),
            ("immediate", vec!["--type=immediate"], "1"),
            ("time", vec!["--type=time", &*format!("--target={at_two}")], "1,2"),
            ("lsn", vec!["--type=lsn", &*format!("--target={lsn_two}")], "1,2"),
            ("name", vec!["--type=name", "--target=after two"], "1,2"),
            ("xid", vec!["--type=xid", &*format!("--target={xid_three}")], "1,2,3"),
            ("before", vec!["--type=xid", &*format!("--target={xid_three}"), "--target-exclusive"], "1,2"),
            ("none", vec!["--type=none", "--archive-mode=off"], "1"),
        ] {
            let target = story.restore(name, &arguments);
            let verify: &[&str] = if name == "none" { &[] } else { &["-n"] };
            let verified = story.cluster.pg_verifybackup(&target, verify);
            assert!(verified.success(), "PostgreSQL {major}, {name}:\n{verified}");
            assert_eq!(mode(&target), 0o700);
            assert!(!target.join("walden-restore-unfinished").exists());
            let mut server = story.start(&target);
            match name {
                "default" => server.wait_recovery_end(),
                "none" => assert!(!server.in_recovery()),
                _ => server.wait_paused(),
            }
            assert_eq!(rounds(&server), expected, "PostgreSQL {major}, {name}");
            if name == "default" {
                assert_eq!(
                    server.sql("show archive_mode"),
                    "off",
                    "it would write into the living server's archive"
                );
                assert_eq!(server.dump(), story.cluster.dump());
            }
            if name == "time" {
                server.sql("select pg_wal_replay_resume()");
                wait_until("the promotion", || !server.in_recovery());
                server.sql("insert into rounds values (99)");
            }
        }
    }
}

#[test]
fn a_standby_follows_and_asks_no_old_primary() {
    let story = Story::begin(oldest_major());
    story.cluster.sql(
        "alter system set primary_conninfo = 'host=/nowhere'; alter system set primary_slot_name = 'gone'",
    );
    story.backup();
    story.round(1);
    story.cluster.archive_now();
    let conninfo = format!("--recovery-option=primary_conninfo={}", story.cluster.conninfo());
    let target = story.restore("standby", &["--type=standby", &conninfo]);
    assert!(target.join("standby.signal").exists());
    let server = story.start(&target);
    assert!(server.in_recovery());
    story.round(2);
    wait_until("the standby to stream", || rounds(&server) == "1,2");
    assert_eq!(server.sql("show primary_slot_name"), "");
}

#[test]
fn settings_of_another_recovery_do_not_survive() {
    let story = Story::begin_with(oldest_major(), |cluster| {
        cluster.conf(&["recovery_target_xid = '5'", "recovery_end_command = 'touch /nowhere/x'"])
    });
    story.cluster.sql("alter system set recovery_target_name = 'old'");
    story.round(1);
    story.backup();
    story.round(2);
    let at = story.cluster.sql("select clock_timestamp()");
    story.round(3);
    story.cluster.archive_now();
    // The server's own configuration names two targets at once, which it refuses; the restored one has ours only.
    let target = story.restore("back", &["--type=time", &format!("--target={at}")]);
    let mut server = story.start(&target);
    server.wait_paused();
    assert_eq!(rounds(&server), "1,2");
    assert_eq!(server.sql("show recovery_target_xid"), "");
    assert_eq!(server.sql("show recovery_target_name"), "");
    assert_eq!(server.sql("show recovery_end_command"), "");
    assert!(server.sql("show restore_command").contains("archive-get"));
}

#[test]
fn what_cannot_be_reached_is_refused_and_nothing_is_touched() {
    let story = Story::begin(oldest_major());
    let early = story.cluster.sql("select clock_timestamp()");
    std::thread::sleep(Duration::from_millis(50));
    story.round(0);
    let id = story.backup();
    story.round(1);
    story.cluster.archive_now();
    let late = story.cluster.sql("select clock_timestamp() + interval '1 hour'");
    let mut texts = String::new();
    let mut refuse = |code: i32, arguments: &[&str]| {
        let text = story.refuses(code, "back", arguments);
        assert!(!story.target("back").exists(), "{arguments:?} made a directory");
        texts.push_str(&format!("{}\n{text}\n", arguments.join(" ")));
    };
    refuse(43, &["--type=time", &format!("--target={late}")]);
    refuse(43, &["--type=time", "--target=2001-02-03 04:05:06Z"]);
    refuse(43, &["--type=time", &format!("--target={early}"), &format!("--set={id}")]);
    refuse(43, &["--type=lsn", "--target=7F/0"]);
    refuse(43, &["--type=lsn", "--target=0/1"]);
    refuse(43, &["--type=xid", "--target=4000000000"]);
    refuse(43, &["--type=name", "--target=never made"]);
    refuse(43, &["--target-timeline=7"]);
    refuse(2, &["--type=time", "--target=02/03/2026 10:00"]);
    refuse(2, &["--type=time", "--target=soon"]);
    refuse(2, &["--set=20010203T040506Z"]);
    refuse(2, &["--recovery-option=recovery_target_time=now"]);
    let mut replacements = vec![Replace::text(&late, "LATE"), Replace::text(&early, "EARLY")];
    replacements.extend(story.replacements());
    golden("restore/unreachable", &texts, &replacements);
}

#[test]
fn a_gap_is_refused_with_the_last_moment_before_it() {
    let story = Story::begin(oldest_major());
    story.backup();
    story.round(1);
    story.cluster.archive_now();
    story.round(2);
    let lost = story.cluster.archive_now();
    story.round(3);
    let at = story.cluster.sql("select clock_timestamp()");
    story.round(4);
    story.cluster.archive_now();
    let system = story.cluster.sql("select system_identifier from pg_control_system()");
    let folder = story.walden.repo_path().join(format!("shop/wal/{system}/00000001"));
    let object = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path().join(&lost))
        .find(|path| path.exists())
        .expect("the segment is in the repository");
    fs::remove_file(object).unwrap();
    let time = story.refuses(43, "back", &["--type=time", &format!("--target={at}")]);
    let end = story.refuses(43, "back", &["--type=default"]);
    let offered = time
        .split("--target='")
        .nth(1)
        .and_then(|rest| rest.split('\'').next())
        .expect("a moment before the gap");
    let mut replacements = vec![Replace::text(format!("'{offered}'"), "'TIME'")];
    replacements.extend(story.replacements());
    golden("restore/gap", &format!("{time}\n{end}"), &replacements);
    // What the refusal offers works, though the missing segment comes right behind it.
    let mut server = story.start(&story.restore("before", &["--type=time", &format!("--target={offered}")]));
    server.wait_paused();
    assert!(matches!(rounds(&server).as_str(), "none" | "1"));
}

#[test]
fn a_directory_in_use_or_of_somebody_else_is_refused() {
    let story = Story::begin(oldest_major());
    story.backup();
    story.cluster.archive_now();
    let mut texts = String::new();
    let main = format!("--pg1-path={}", story.cluster.data().display());
    for force in [&[][..], &["--force"][..]] {
        let mut arguments = vec!["restore", main.as_str()];
        arguments.extend(force);
        texts.push_str(&story.walden.fails(44, &arguments).stderr);
    }
    let photos = story.scratch.dir("photos");
    story.scratch.write(photos.join("holiday.jpg"), "x");
    texts.push_str(&story.refuses(44, "photos", &["--force"]));
    assert!(photos.join("holiday.jpg").exists());
    // Stopped, and not this stanza's: not even by force.
    drop(Cluster::build(&story.scratch, oldest_major()).name("other").create());
    let other = story.scratch.join("other/global/pg_control");
    let before = fs::read(&other).unwrap();
    texts.push_str(&story.refuses(44, "other", &["--force"]));
    assert_eq!(fs::read(&other).unwrap(), before);
    let control = walden::postgres::control_file::ControlFile::parse(&before).unwrap();
    texts = texts.replace(&control.system_identifier.to_string(), "OTHER");
    let restored = story.restore("back", &["--type=immediate"]);
    texts.push_str(&story.refuses(44, "back", &["--type=immediate"]));
    // By force it is replaced, and what is in pg_wal is kept beside it.
    story.scratch.write(restored.join("pg_wal/000000010000000000000099"), "the only copy");
    story.restore("back", &["--type=immediate", "--force"]);
    let kept = fs::read_dir(story.scratch.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.to_string_lossy().contains("back-pg_wal-before-"))
        .expect("the old pg_wal beside the directory");
    assert_eq!(fs::read_to_string(kept.join("000000010000000000000099")).unwrap(), "the only copy");
    let mut replacements = story.replacements();
    replacements.push(Replace::text(format!("postmaster {}", story.cluster.pid()), "postmaster PID"));
    replacements.push(Replace::text(format!("port {}", story.cluster.port()), "port PORT"));
    golden("restore/directories", &texts, &replacements);
}

#[test]
fn a_killed_restore_cannot_be_started_and_goes_on_by_the_same_command() {
    let story = Story::begin(oldest_major());
    story.cluster.pgbench_init(8);
    story.round(1);
    story.backup();
    story.round(2);
    story.cluster.archive_now();
    let target = story.target("back");
    let path = format!("--pg1-path={}", target.display());
    let arguments = ["restore", path.as_str(), "--process-max=2"];
    let (mut died, mut unfinished) = (0, 0);
    for delay in [15, 30, 45, 60, 80, 100, 130, 160, 200, 250, 300] {
        let mut child = story.walden.spawn(&arguments);
        std::thread::sleep(Duration::from_millis(delay));
        if child.try_wait().unwrap().is_none() {
            kill_now(child.id(), Signal::KILL);
            died += 1;
        }
        let _ = story.walden.finish(child);
        if target.join("global/pg_control").exists() {
            fs::remove_dir_all(&target).unwrap();
            continue;
        }
        if target.join("PG_VERSION").exists() {
            unfinished += 1;
            assert!(story.cluster.start_restored(&target, &[]).is_err(), "a half restored server started");
        }
    }
    assert!(died > 3 && unfinished > 0, "{died} died, {unfinished} of them in the middle");
    story.walden.ok(&arguments);
    let mut server = story.start(&target);
    server.wait_recovery_end();
    assert_eq!(rounds(&server), "1,2");
    assert_eq!(server.dump(), story.cluster.dump());
}

#[test]
fn a_server_that_shut_down_at_its_target_goes_on_as_the_advice_says() {
    let story = Story::begin(newest_major());
    story.backup();
    story.round(1);
    story.cluster.sql("select pg_create_restore_point('here')");
    story.round(2);
    story.cluster.archive_now();
    let target = story.target("back");
    let path = format!("--pg1-path={}", target.display());
    let out = story.walden.ok(&[
        "restore",
        &path,
        "--type=name",
        "--target=here",
        "--target-action=shutdown",
        "--archive-mode=off",
    ]);
    let log = match story.cluster.start_restored(&target, &[]) {
        Err(log) => log,
        Ok(mut server) => match server.wait_recovery() {
            Recovery::Stopped { log } => log,
            other => panic!("it goes on: {other:?}"),
        },
    };
    assert!(log.contains("shutdown at recovery target"), "{log}");
    // As it stands there, in a shell.
    let advice = out.stderr.lines().find_map(|line| line.split_once("echo ")).expect("an advice").1;
    let mut shell = story.scratch.command("sh");
    shell.args(["-c", &format!("echo {advice}")]);
    assert!(finish(shell).success());
    let mut server = story.start(&target);
    server.wait_recovery_end();
    assert_eq!(rounds(&server), "1", "what lies behind the target was replayed");
    assert_eq!(server.sql("select timeline_id from pg_control_checkpoint()"), "2");
}

#[test]
fn the_plan_is_shown_and_nothing_done() {
    let story = Story::begin(oldest_major());
    story.backup();
    story.round(1);
    let at =
        story.cluster.sql("select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')");
    story.round(2);
    story.cluster.archive_now();
    let path = format!("--pg1-path={}", story.target("back").display());
    let target = format!("--target={at}Z");
    let arguments = ["restore", path.as_str(), "--type=time", target.as_str(), "--dry-run"];
    let out = story.walden.ok(&arguments);
    assert!(!story.target("back").exists());
    for words in [
        "target ",
        "backup ",
        "WAL ",
        "all there",
        "recovery.signal",
        "archive_mode = off",
        "is alive on",
        "Nothing was changed.",
    ] {
        assert!(out.stdout.contains(words), "the plan does not say {words:?}:\n{out}");
    }
    let json: Value =
        serde_json::from_str(story.walden.ok(&[&arguments[..], &["--output=json"]].concat()).text()).unwrap();
    assert_eq!(json["settings"]["recovery_target_timeline"], "1");
    assert_eq!(json["dry_run"], true);
}

#[test]
fn pg_wal_goes_where_it_is_told_and_a_full_disk_is_refused_before_anything() {
    let story = Story::begin(oldest_major());
    story.round(1);
    story.backup();
    story.cluster.archive_now();
    let wal = story.target("fast/wal");
    let target = story.restore("back", &["--type=none", &format!("--wal-dir={}", wal.display())]);
    assert_eq!(fs::read_link(target.join("pg_wal")).unwrap(), wal);
    let server = story.start(&target);
    assert_eq!(rounds(&server), "1");
}

#[test]
fn damage_in_the_repository_is_named_and_never_restored_from() {
    let story = Story::begin(oldest_major());
    let id = story.backup();
    story.cluster.archive_now();
    let pack = story.walden.repo_path().join(format!("shop/data/{id}/pack-000000"));
    let whole = fs::read(&pack).unwrap();
    for (name, change) in [
        (
            "flipped",
            Box::new(|bytes: &mut Vec<u8>| {
                let at = bytes.len() / 2;
                bytes[at] ^= 1
            }) as Box<dyn Fn(&mut Vec<u8>)>,
        ),
        ("cut", Box::new(|bytes: &mut Vec<u8>| bytes.truncate(bytes.len() - 100))),
        ("emptied", Box::new(|bytes: &mut Vec<u8>| bytes.clear())),
    ] {
        let mut bytes = whole.clone();
        change(&mut bytes);
        fs::write(&pack, &bytes).unwrap();
        let said = story.refuses(40, name, &["--type=immediate"]);
        assert!(said.contains("pack-000000"), "{said}");
        assert!(!story.target(name).join("global/pg_control").exists());
        fs::write(&pack, &whole).unwrap();
        story.restore(name, &["--type=immediate"]);
    }
    fs::remove_file(&pack).unwrap();
    assert!(story.refuses(40, "gone", &["--type=immediate"]).contains("pack-000000"));
}

#[test]
fn a_second_timeline_is_followed_and_the_first_can_still_be_named() {
    let story = Story::begin(oldest_major());
    story.round(1);
    story.backup();
    story.round(2);
    story.cluster.archive_now();
    // A server restored from the backup takes over, with archiving on.
    let target = story.restore("second", &["--type=default", "--archive-mode=preserve"]);
    let mut old = story.cluster;
    old.stop(StopMode::Fast);
    let mut second = match old.start_restored(&target, &[]) {
        Ok(server) => server,
        Err(log) => panic!("{log}"),
    };
    second.wait_recovery_end();
    second.sql("insert into rounds values (3)");
    second.archive_now();
    second.stop(StopMode::Fast);
    let walden = &story.walden;
    let restore = |name: &str, arguments: &[&str]| {
        let path = format!("--pg1-path={}", story.scratch.join(name).display());
        walden.ok(&[&["restore", path.as_str()], arguments].concat());
        let mut server = match old.start_restored(&story.scratch.join(name), &[]) {
            Ok(server) => server,
            Err(log) => panic!("{log}"),
        };
        let end = server.wait_recovery();
        assert_eq!(end, Recovery::Promoted);
        rounds(&server)
    };
    assert_eq!(restore("latest", &["--archive-mode=off"]), "1,2,3");
    assert_eq!(restore("first", &["--archive-mode=off", "--target-timeline=1"]), "1,2");
    assert_eq!(restore("current", &["--archive-mode=off", "--target-timeline=current"]), "1,2");

    // Without the history nobody can say where timeline 2 left: the older one must not be taken for the latest.
    let history = history_of_timeline_two(&walden.repo_path());
    fs::remove_file(&history).unwrap();
    let path = format!("--pg1-path={}", story.scratch.join("refused").display());
    let out = walden.fails(43, &["restore", &path, "--archive-mode=off"]);
    assert!(out.stderr.contains("00000002.history is in no repository"), "{out}");
    assert!(!story.scratch.join("refused").exists());
}

fn history_of_timeline_two(repository: &Path) -> PathBuf {
    let clusters = fs::read_dir(repository.join("shop/wal")).unwrap();
    let mut histories = clusters.map(|cluster| cluster.unwrap().path().join("00000002.history"));
    histories.find(|path| path.exists()).expect("a history")
}

#[test]
fn a_small_disk_is_refused_and_one_that_fills_leaves_nothing_that_starts() {
    let story = Story::begin(oldest_major());
    story.backup();
    story.cluster.archive_now();
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let small = story.scratch.dir("small");
    let mut mount = std::process::Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", "size=8m,mode=0777", "tmpfs"]).arg(&small);
    assert!(finish(mount).success(), "cannot mount a small file system");
    let path = format!("--pg1-path={}", small.join("data").display());
    let out = story.walden.run(&["restore", &path]);
    let gone = !small.join("data").exists();
    let mut unmount = std::process::Command::new("umount");
    unmount.arg(&small);
    assert!(finish(unmount).success(), "cannot unmount {}", small.display());
    assert!(out.code == Some(31) && gone, "{out}");
    assert!(out.stderr.contains("not enough space"), "{out}");
}

#[test]
fn a_name_that_was_given_while_the_backup_ran_is_reached_from_an_older_one() {
    let story = Story::begin(oldest_major());
    story.cluster.pgbench_init(1);
    story.round(1);
    story.backup();
    let child =
        story.walden.spawn(&["backup", "--type=full", "--start-fast", "--max-rate=8M", "--output=json"]);
    wait_until("the copy to run", || {
        story.cluster.sql("select count(*) from pg_stat_progress_basebackup where phase like 'streaming%'")
            == "1"
    });
    story.cluster.sql("select pg_create_restore_point('release')");
    let out = story.walden.finish(child);
    assert!(out.success(), "{out}");
    let taken: Value = serde_json::from_str(out.text()).expect("backup prints JSON");
    story.round(2);
    // PostgreSQL stops at the first of the name that it meets, and from the second backup that is too early.
    story.cluster.sql("select pg_create_restore_point('release')");
    story.round(3);
    story.cluster.archive_now();
    let second = taken["backup_id"].as_str().expect("an id");
    let set = format!("--set={second}");
    story.refuses(43, "refused", &["--type=name", "--target=release", &set]);
    // From the one before it does; that there are two is said, with exit 50.
    let path = format!("--pg1-path={}", story.target("named").display());
    let named = ["--type=name", "--target=release", "--target-action=promote"];
    let target = story.target("named");
    story.walden.fails(50, &[&["restore", path.as_str()], named.as_slice()].concat());
    let mut server = story.start(&target);
    server.wait_recovery_end();
    assert_eq!(rounds(&server), "1");
}
