//! Tablespaces and a `pg_wal` elsewhere, on real servers: a copy beside its living original touches nothing of it.

use crate::common::{
    Cluster, ClusterBuilder, Recovery, Replace, Scratch, StopMode, Walden, finish, golden, kill_now,
    majors_in_full, newest_major, oldest_major, wait_until,
};
use rustix::process::Signal;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use walden::postgres::wal::reader::{Begin, scan};
use walden::postgres::wal::stream::Record;
use walden::units::{Lsn, SegmentName, SegmentSize, TimelineId};

/// A cluster with two tablespaces, each with a table in it.
struct Spaced {
    scratch: Scratch,
    cluster: Cluster,
    walden: Walden,
    /// OIDs of `fast` and `slow`.
    oids: [u32; 2],
}

impl Spaced {
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
        let mut oids = [0; 2];
        for (at, name) in ["fast", "slow"].iter().enumerate() {
            // A blank in the path: links and lists of paths must bear it.
            let place = scratch.dir(format!("space {name}"));
            cluster.sql(&format!("create tablespace {name} location '{}'", place.display()));
            cluster.sql(&format!(
                "create table in_{name} tablespace {name} as select n, repeat('x', 200) as filling \
                 from generate_series(1, 2000) as n"
            ));
            let oid = cluster.sql(&format!("select oid from pg_tablespace where spcname = '{name}'"));
            oids[at] = oid.parse().unwrap();
        }
        Self { scratch, cluster, walden, oids }
    }

    fn backup(&self) -> String {
        let out = self.walden.ok(&["backup", "--start-fast", "--output=json"]);
        let taken: Value = serde_json::from_str(out.text()).expect("backup prints JSON");
        taken["backup_id"].as_str().expect("an id").to_owned()
    }

    fn path(&self, name: &str) -> String {
        format!("--pg1-path={}", self.scratch.join(name).display())
    }

    /// Options that put the tablespaces below `name`: one by its OID, one by its old place.
    fn mapped(&self, name: &str) -> [String; 2] {
        let to = self.scratch.join(name);
        [
            format!("--tablespace-map={}={}", self.oids[0], to.join("fast").display()),
            format!(
                "--tablespace-map={}={}",
                self.scratch.join("space slow").display(),
                to.join("slow").display()
            ),
        ]
    }

    fn replacements(&self) -> Vec<Replace> {
        let mut all = vec![
            Replace::text(self.scratch.path().display(), "SCRATCH"),
            Replace::text(self.oids[0], "OID1"),
            Replace::text(self.oids[1], "OID2"),
            Replace::Shape("0+.0 GB", "SIZE"),
            Replace::Shape("0+.0 MB", "SIZE"),
            Replace::Shape("0+.0 kB", "SIZE"),
            Replace::text(format!("PGSQL.{}", self.cluster.port()), "PGSQL.PORT"),
        ];
        all.extend(Replace::backup_ids());
        all.extend(Replace::times());
        all.extend(Replace::segments());
        all.extend(Replace::lsns());
        all
    }
}

const TABLES: &str = "select count(*), sum(n) from in_fast union all select count(*), sum(n) from in_slow";

/// Every file below `root`, links not followed: its mode, its owner, and the hash of its contents.
fn fingerprint(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut left = vec![root.to_owned()];
    while let Some(path) = left.pop() {
        let about = fs::symlink_metadata(&path).unwrap();
        let contents = if about.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            String::new()
        } else if about.is_symlink() {
            fs::read_link(&path).unwrap().display().to_string()
        } else {
            format!("{:x?}", Sha256::digest(fs::read(&path).unwrap()).as_slice())
        };
        found.insert(path, format!("{:o} {}:{} {contents}", about.mode(), about.uid(), about.gid()));
    }
    found
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_copy_with_its_tablespaces_stands_beside_the_living_original_and_touches_nothing_of_it() {
    for major in majors_in_full() {
        // Nothing of the server's own changes its files between the two looks.
        let spaced = Spaced::begin_with(major, |cluster| {
            cluster.conf(&["autovacuum = off", "checkpoint_timeout = '1h'", "max_wal_size = '4GB'"])
        });
        spaced.backup();
        spaced.cluster.sql("insert into in_fast values (100000); insert into in_slow values (200000)");
        spaced.cluster.archive_now();
        let wanted = spaced.cluster.sql(TABLES);
        spaced.cluster.sql("checkpoint");
        let [fast, slow] = spaced.mapped("new");
        let originals = ["space fast", "space slow"].map(|name| spaced.scratch.join(name));
        let before = originals.clone().map(|path| fingerprint(&path));

        spaced.walden.ok(&["restore", &spaced.path("back"), &fast, &slow]);
        let back = spaced.scratch.join("back");
        assert!(!back.join("tablespace_map").exists());
        for (oid, name) in spaced.oids.iter().zip(["fast", "slow"]) {
            let to = spaced.scratch.join("new").join(name);
            assert_eq!(fs::read_link(back.join(format!("pg_tblspc/{oid}"))).unwrap(), to);
            assert_eq!(mode(&to), 0o700);
            assert_eq!(fs::metadata(&to).unwrap().uid(), fs::metadata(&back).unwrap().uid());
        }
        let verified = spaced.cluster.pg_verifybackup(&back, &["-n"]);
        assert!(verified.success(), "PostgreSQL {major}:\n{verified}");

        let mut server = spaced.cluster.start_restored(&back, &[]).expect("it starts");
        server.wait_recovery_end();
        assert_eq!(server.sql(TABLES), wanted);
        // It writes where it should, and only there.
        server.sql("insert into in_fast values (1); insert into in_slow values (1); checkpoint");
        server.sql("vacuum full in_fast; checkpoint");
        server.stop(StopMode::Fast);
        assert_eq!(originals.map(|path| fingerprint(&path)), before, "the original's files were changed");
        assert_eq!(spaced.cluster.sql(TABLES), wanted);
        assert_eq!(
            spaced
                .cluster
                .sql("select pg_tablespace_location(oid) from pg_tablespace where spcname = 'fast'"),
            spaced.scratch.join("space fast").display().to_string()
        );
    }
}

#[test]
fn damaged_pages_in_a_tablespace_are_named() {
    use std::os::unix::fs::FileExt;
    let mut spaced = Spaced::begin(oldest_major());
    spaced.cluster.sql("checkpoint");
    let path = spaced.cluster.sql("select pg_relation_filepath('in_slow')");
    spaced.cluster.stop(StopMode::Fast);
    let file = fs::OpenOptions::new().write(true).open(spaced.cluster.data().join(&path)).unwrap();
    // More than the server names of one file itself.
    let blocks = [1_u64, 9, 10, 11, 12, 13, 30];
    for block in blocks {
        file.write_all_at(b"damage", block * 8192 + 4000).unwrap();
    }
    spaced.cluster.start();
    let out = spaced.walden.fails(50, &["backup", "--start-fast"]);
    for block in blocks {
        assert!(
            out.stderr.contains(&format!("{path} block {block} (table public.in_slow)\n")),
            "block {block} is not named:\n{out}"
        );
    }
    assert!(out.stderr.contains("7 pages failed their checksum"), "{out}");
}

#[test]
fn without_a_map_the_living_originals_tablespaces_are_refused_in_words_and_untouched() {
    let spaced = Spaced::begin(oldest_major());
    spaced.backup();
    spaced.cluster.archive_now();
    spaced.cluster.sql("checkpoint");
    let originals = ["space fast", "space slow"].map(|name| spaced.scratch.join(name));
    let before = originals.clone().map(|path| fingerprint(&path));
    let mut texts = String::new();
    let mut refuse = |code: i32, more: &[&str]| {
        let into = spaced.path("back");
        let mut arguments = vec!["restore", into.as_str()];
        arguments.extend(more);
        let text = spaced.walden.fails(code, &arguments).stderr;
        texts.push_str(&format!("{}\n{text}\n", more.join(" ")));
        assert!(!spaced.scratch.join("back").exists());
    };
    refuse(44, &[]);
    refuse(44, &["--force"]);
    let [fast, slow] = spaced.mapped("new");
    refuse(44, &[&fast]);
    refuse(2, &["--tablespace-map=fast=/nowhere"]);
    refuse(2, &["--tablespace-map=1=/nowhere"]);
    refuse(44, &[&fast, &slow.replace("/slow", "/fast")]);
    let inside = spaced.scratch.join("back/inside");
    refuse(44, &[&fast, &format!("--tablespace-map={}={}", spaced.oids[1], inside.display())]);
    let repo = spaced.walden.repo_path().join("x");
    refuse(44, &[&fast, &format!("--tablespace-map={}={}", spaced.oids[1], repo.display())]);
    let other = spaced.scratch.dir("other");
    spaced.scratch.write("other/notes.txt", "mine");
    refuse(44, &[&fast, &format!("--tablespace-map={}={}", spaced.oids[1], other.display())]);
    golden("restore/tablespaces_refused", &texts, &spaced.replacements());
    assert_eq!(originals.map(|path| fingerprint(&path)), before);

    let all = format!("--tablespace-map-all={}", spaced.scratch.join("all").display());
    let plan = spaced.walden.ok(&["restore", &spaced.path("back"), &all, "--dry-run", "--output=json"]);
    let plan: Value = serde_json::from_str(plan.text()).unwrap();
    let spaces = plan["tablespaces"].as_array().unwrap();
    assert_eq!(spaces.len(), 2);
    for (space, oid) in spaces.iter().zip(spaced.oids) {
        assert_eq!(space["oid"], oid);
        let path = spaced.scratch.join("all").join(oid.to_string());
        assert_eq!(space["path"], path.to_str().unwrap());
        assert!(space["bytes"].as_u64().unwrap() > 400_000);
    }
    let plan = spaced.walden.ok(&["restore", &spaced.path("back"), &all, "--dry-run"]);
    let joined = plan.stdout.replace(&format!("\n{}", " ".repeat(10)), " ");
    for oid in spaced.oids {
        assert!(joined.contains(&format!("tablespace {oid}, ")), "{joined}");
    }
}

#[test]
fn a_copied_data_directory_has_the_originals_links_and_is_not_replaced_through_them() {
    let spaced = Spaced::begin(oldest_major());
    spaced.backup();
    spaced.cluster.archive_now();
    spaced.cluster.sql("checkpoint");
    // As `cp -a` of the data directory makes it: without postmaster.pid it looks like a stopped server's.
    let copy = spaced.scratch.join("copy");
    let mut cp = spaced.scratch.command("cp");
    cp.arg("-a").arg(spaced.cluster.data()).arg(&copy);
    assert!(finish(cp).success());
    fs::remove_file(copy.join("postmaster.pid")).unwrap();
    let before = fingerprint(&spaced.scratch.join("space fast"));
    let refused = spaced.walden.fails(44, &["restore", &spaced.path("copy"), "--force"]);
    assert!(refused.stderr.contains("the server that runs in"), "{refused}");
    assert!(copy.join("global/pg_control").exists(), "nothing was touched");
    // Elsewhere they may go, and the copy is replaced.
    let all = format!("--tablespace-map-all={}", spaced.scratch.join("all").display());
    let done = spaced.walden.ok(&["restore", &spaced.path("copy"), "--force", &all]);
    assert!(done.stderr.contains("is left as it is"), "{done}");
    assert_eq!(fingerprint(&spaced.scratch.join("space fast")), before);
}

#[test]
fn a_tablespace_created_in_the_wal_never_brings_a_recovery_into_the_originals_files() {
    for major in majors_in_full() {
        let spaced = Spaced::begin_with(major, |cluster| {
            cluster.conf(&["autovacuum = off", "checkpoint_timeout = '1h'", "max_wal_size = '4GB'"])
        });
        spaced.backup();
        let late = spaced.scratch.dir("space late");
        spaced.cluster.sql(&format!("create tablespace late location '{}'", late.display()));
        spaced.cluster.sql("create table in_late tablespace late as select generate_series(1, 3000) as n");
        let wanted = spaced.cluster.sql("select count(*), sum(n) from in_late");
        spaced.cluster.archive_now();
        spaced.cluster.sql("checkpoint");
        let before = fingerprint(&late);
        let all = format!("--tablespace-map-all={}", spaced.scratch.join("all").display());
        spaced.walden.ok(&["restore", &spaced.path("back"), &all]);
        let back = spaced.scratch.join("back");
        let log = spaced.cluster.start_restored(&back, &[]).err().expect("it must not go on");
        assert!(log.contains("where another cluster has its files"), "PostgreSQL {major}:\n{log}");
        assert!(log.contains("going on would write into them"), "{log}");
        spaced.walden.ok(&[
            "restore",
            &spaced.path("standby"),
            "--type=standby",
            &all.replace("/all", "/all2"),
        ]);
        let standby = spaced.scratch.join("standby");
        let log = spaced.cluster.start_restored(&standby, &[]).err().expect("it must not go on");
        assert!(log.contains("The standby stops on purpose"), "PostgreSQL {major}:\n{log}");
        assert_eq!(fingerprint(&late), before, "the original's files were changed");
        assert_eq!(spaced.cluster.sql("select count(*), sum(n) from in_late"), wanted);

        // The original is gone and its files are moved away: the same directory goes on where it stopped.
        let mut cluster = spaced.cluster;
        cluster.stop(StopMode::Fast);
        fs::rename(&late, spaced.scratch.join("late aside")).unwrap();
        spaced.scratch.dir("space late");
        let mut server = cluster.start_restored(&back, &[]).expect("it starts");
        server.wait_recovery_end();
        assert_eq!(server.sql("select count(*), sum(n) from in_late"), wanted);
    }
}

/// Where the last record that creates a tablespace begins and ends, by the server's own WAL from `from` on.
fn last_creation(cluster: &Cluster, from: Lsn, size: SegmentSize) -> (Lsn, Lsn) {
    let mut source = |number: u64, sink: &mut dyn FnMut(&[u8]) -> ControlFlow<()>| {
        let name = SegmentName::from_number(TimelineId::new(1).unwrap(), number, size).unwrap();
        let bytes = fs::read(cluster.data().join("pg_wal").join(name.to_string()));
        let _ = bytes.as_ref().map(|bytes| sink(bytes));
        Ok::<_, std::convert::Infallible>(bytes.is_ok())
    };
    let mut found = None;
    let mut visitor = |record: &Record<'_>| {
        if record.header.resource_manager == 5 && record.header.info & 0xF0 == 0 {
            found = Some((record.lsn, record.end));
        }
        ControlFlow::Continue(())
    };
    scan(Begin::Segment(size.number_of(from)), None, size, &mut source, &mut visitor).unwrap();
    found.expect("a tablespace was created")
}

/// Creates a tablespace by a record that crosses a segment's border; gives its directory and the border.
fn create_across_a_border(spaced: &Spaced, size: SegmentSize) -> (PathBuf, Lsn) {
    let insert = || spaced.cluster.sql("select pg_current_wal_insert_lsn()").parse::<Lsn>().unwrap().as_u64();
    let fill = |bytes: u64| {
        spaced.cluster.sql(&format!("select pg_logical_emit_message(false, '', repeat('x', {bytes}))"));
    };
    // Bytes of the command before that record, and of it, as the last try showed them. The first pays full pages.
    let (mut before, mut length) = (1000, 200);
    for attempt in 0..10 {
        let border = size.start_of(size.number_of(Lsn::new(insert() + 64 * 1024)) + 1).unwrap().as_u64();
        let wanted = border - before - length / 2;
        while wanted - insert() > 4000 {
            fill((wanted - insert() - 2000).min(200_000));
        }
        fill((wanted - insert()).saturating_sub(80).max(1));
        let begun = insert();
        let place = spaced.scratch.dir(format!("space late {attempt} {}", "x".repeat(120)));
        spaced.cluster.sql(&format!("create tablespace late location '{}'", place.display()));
        let (from, to) = last_creation(&spaced.cluster, Lsn::new(begun), size);
        if from.as_u64() < border && border < to.as_u64() {
            return (place, Lsn::new(border));
        }
        (before, length) = (from.as_u64() - begun, to.as_u64() - from.as_u64());
        spaced.cluster.sql("drop tablespace late");
    }
    panic!("no record would cross a border");
}

#[test]
fn a_tablespace_created_across_the_border_of_two_segments_is_noticed() {
    for major in majors_in_full() {
        let spaced = Spaced::begin_with(major, |cluster| {
            cluster.segment_size_mb(1).conf(&[
                "autovacuum = off",
                "checkpoint_timeout = '1h'",
                "max_wal_size = '4GB'",
                "wal_keep_size = '64MB'",
            ])
        });
        let size = SegmentSize::new(1 << 20).unwrap();
        spaced.backup();
        let (late, border) = create_across_a_border(&spaced, size);
        let oid = spaced.cluster.sql("select oid from pg_tablespace where spcname = 'late'");
        spaced.cluster.sql("create table in_late tablespace late as select generate_series(1, 3000) as n");
        let wanted = spaced.cluster.sql("select count(*), sum(n) from in_late");
        spaced.cluster.archive_now();
        spaced.cluster.sql("checkpoint");
        let kept = fingerprint(&late);
        let all = format!("--tablespace-map-all={}", spaced.scratch.join("all").display());
        spaced.walden.ok(&["restore", &spaced.path("back"), &all]);
        let back = spaced.scratch.join("back");
        // It may let somebody in before it comes there.
        let log = match spaced.cluster.start_restored(&back, &[]) {
            Err(log) => log,
            Ok(mut server) => match server.wait_recovery() {
                Recovery::Stopped { log } => log,
                other => panic!("PostgreSQL {major}: it must not go on: {other:?}"),
            },
        };
        let second = SegmentName::from_number(TimelineId::new(1).unwrap(), size.number_of(border), size);
        let said = format!("{} creates tablespace {oid} in {}", second.unwrap(), late.display());
        assert!(log.contains(&said), "PostgreSQL {major}:\n{log}");
        assert_eq!(fingerprint(&late), kept, "the original's files were changed");

        // The original is gone and its files are moved away: it goes on where it stopped.
        let mut cluster = spaced.cluster;
        cluster.stop(StopMode::Fast);
        fs::rename(&late, spaced.scratch.join("late aside")).unwrap();
        spaced.scratch.dir(late.file_name().unwrap());
        let mut server = cluster.start_restored(&back, &[]).expect("it starts");
        server.wait_recovery_end();
        assert_eq!(server.sql("select count(*), sum(n) from in_late"), wanted);
    }
}

#[test]
fn a_killed_restore_with_tablespaces_cannot_be_started_and_goes_on() {
    let spaced = Spaced::begin(newest_major());
    spaced.cluster.pgbench_init(3);
    spaced.backup();
    spaced.cluster.archive_now();
    let [fast, slow] = spaced.mapped("new");
    let wal = format!("--wal-dir={}", spaced.scratch.join("new/wal").display());
    let into = spaced.path("back");
    let arguments = ["restore", into.as_str(), &fast, &slow, &wal];
    let back = spaced.scratch.join("back");
    let mut killed = 0;
    for begun in ["pg_wal", "base", "pg_tblspc"] {
        let child = spaced.walden.spawn(&arguments);
        wait_until("the restore to begin", || back.join(begun).exists());
        kill_now(child.id(), Signal::STOP);
        if back.join("global/pg_control").exists() {
            kill_now(child.id(), Signal::CONT);
            spaced.walden.finish(child);
            break;
        }
        if killed == 0 {
            // A second one into the same place, or into a tablespace of it, is kept out.
            let second = spaced.walden.fails(11, &arguments);
            assert!(second.stderr.contains("another restore is at work"), "{second}");
            let other = spaced.walden.run(&["restore", &spaced.path("other"), &fast, &slow]);
            assert!(!other.success() && !spaced.scratch.join("other/global/pg_control").exists(), "{other}");
        }
        kill_now(child.id(), Signal::KILL);
        spaced.walden.finish(child);
        killed += 1;
        assert!(!back.join("global/pg_control").exists());
        assert!(spaced.cluster.start_restored(&back, &[]).is_err(), "a half restored directory started");
    }
    assert!(killed > 0, "the restore was always faster");
    if !back.join("global/pg_control").exists() {
        spaced.walden.ok(&arguments);
    }
    assert_eq!(fs::read_link(back.join("pg_wal")).unwrap(), spaced.scratch.join("new/wal"));
    let verified = spaced.cluster.pg_verifybackup(&back, &["-n"]);
    assert!(verified.success(), "{verified}");
    let mut server = spaced.cluster.start_restored(&back, &[]).expect("it starts");
    server.wait_recovery_end();
    assert_eq!(server.sql(TABLES), spaced.cluster.sql(TABLES));
    // Replaced once more, tablespaces and all: the folder in them is emptied, the old WAL is kept.
    server.stop(StopMode::Fast);
    spaced.walden.fails(44, &arguments);
    let mut again = arguments.to_vec();
    again.push("--force");
    spaced.walden.ok(&again);
    let mut server = spaced.cluster.start_restored(&back, &[]).expect("it starts");
    server.wait_recovery_end();
    assert_eq!(server.sql(TABLES), spaced.cluster.sql(TABLES));
}

#[test]
fn a_standby_with_tablespaces_of_its_own_follows_the_primary_on_the_same_host() {
    let spaced = Spaced::begin(newest_major());
    spaced.backup();
    spaced.cluster.archive_now();
    let conninfo = format!("--recovery-option=primary_conninfo={}", spaced.cluster.conninfo());
    let all = format!("--tablespace-map-all={}", spaced.scratch.join("all").display());
    spaced.walden.ok(&["restore", &spaced.path("standby"), "--type=standby", &conninfo, &all]);
    let server = spaced.cluster.start_restored(&spaced.scratch.join("standby"), &[]).expect("it starts");
    spaced.cluster.sql("insert into in_fast values (100000); insert into in_slow values (7)");
    let wanted = spaced.cluster.sql(TABLES);
    wait_until("the standby to stream", || server.sql(TABLES) == wanted);
    let place = server.sql("select pg_tablespace_location(oid) from pg_tablespace where spcname = 'fast'");
    assert_eq!(place, spaced.scratch.join("all").join(spaced.oids[0].to_string()).display().to_string());
}

#[test]
fn tablespaces_within_the_data_directory_come_back_there_or_move_out() {
    for major in majors_in_full() {
        if major < 16 {
            continue;
        }
        let scratch = Scratch::new();
        let walden = Walden::new(&scratch);
        let cluster = Cluster::build(&scratch, major)
            .archive_command(&walden.archive_command())
            .conf(&["allow_in_place_tablespaces = on"])
            .start();
        walden.configure(&cluster, &[]);
        walden.ok(&["stanza-create"]);
        cluster.sql("create tablespace inside location ''");
        cluster.sql("create table t tablespace inside as select generate_series(1, 3000) as n");
        let oid = cluster.sql("select oid from pg_tablespace where spcname = 'inside'");
        walden.ok(&["backup", "--start-fast"]);
        cluster.sql("insert into t values (0)");
        cluster.archive_now();
        let path = |name: &str| format!("--pg1-path={}", scratch.join(name).display());
        let out = format!("--tablespace-map={oid}={}", scratch.join("outside").display());
        let all = format!("--tablespace-map-all={}", scratch.join("all").display());
        walden.ok(&["restore", &path("in"), &all]);
        walden.ok(&["restore", &path("out"), &out]);
        for (name, link) in [("in", false), ("out", true)] {
            let data = scratch.join(name);
            let place = data.join("pg_tblspc").join(&oid);
            assert_eq!(fs::symlink_metadata(place).unwrap().is_symlink(), link);
            let verified = cluster.pg_verifybackup(&data, &["-n"]);
            assert!(verified.success(), "PostgreSQL {major}, {name}:\n{verified}");
            let mut server = cluster.start_restored(&data, &[]).expect("it starts");
            server.wait_recovery_end();
            assert_eq!(server.sql("select count(*) from t"), "3001");
        }
        assert!(!scratch.join("all").exists());
    }
}

#[test]
fn a_tablespace_that_base_backups_of_old_versions_lack_is_refused() {
    let Some(major) = majors_in_full().into_iter().find(|major| *major < 16) else { return };
    let spaced = Spaced::begin_with(major, |cluster| cluster.conf(&["allow_in_place_tablespaces = on"]));
    spaced.backup();
    spaced.cluster.sql("create tablespace inside location ''");
    let refused = spaced.walden.fails(22, &["backup", "--start-fast"]);
    assert!(refused.stderr.contains("a tablespace would be missing"), "{refused}");
}

#[test]
fn a_server_whose_pg_wal_is_a_link_is_backed_up_and_comes_back_with_or_without_one() {
    let spaced = Spaced::begin(oldest_major());
    let Spaced { scratch, mut cluster, walden, .. } = spaced;
    cluster.stop(StopMode::Fast);
    let wal = scratch.join("wal disk");
    fs::rename(cluster.data().join("pg_wal"), &wal).unwrap();
    symlink(&wal, cluster.data().join("pg_wal")).unwrap();
    cluster.start();
    walden.ok(&["backup", "--start-fast"]);
    cluster.archive_now();
    let all = |name: &str| format!("--tablespace-map-all={}", scratch.join(name).display());
    let path = |name: &str| format!("--pg1-path={}", scratch.join(name).display());
    // It goes on writing; what it has archived stays as it is.
    let wanted = cluster.sql(TABLES);
    let archived = || {
        let mut found = fingerprint(&wal);
        found.retain(|path, _| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            wal.join(format!("archive_status/{name}.done")).exists()
        });
        assert!(!found.is_empty());
        found
    };
    let before = archived();
    walden.ok(&["restore", &path("plain"), &all("spaces1")]);
    assert!(fs::symlink_metadata(scratch.join("plain/pg_wal")).unwrap().is_dir());
    let new_wal = scratch.join("new wal");
    let wal_dir = format!("--wal-dir={}", new_wal.display());
    walden.ok(&["restore", &path("linked"), &all("spaces2"), &wal_dir]);
    assert_eq!(fs::read_link(scratch.join("linked/pg_wal")).unwrap(), new_wal);
    for name in ["plain", "linked"] {
        let mut server = cluster.start_restored(&scratch.join(name), &[]).expect("it starts");
        server.wait_recovery_end();
        assert_eq!(server.sql(TABLES), wanted);
    }
    assert_eq!(archived(), before, "the original's WAL was touched");
    assert!(
        walden
            .fails(44, &["restore", &path("third"), &all("spaces3"), &format!("--wal-dir={}", wal.display())])
            .stderr
            .contains("is not empty")
    );
}

#[test]
fn a_tablespace_whose_directory_no_record_can_name_is_refused_before_the_first_byte() {
    use std::os::unix::ffi::OsStrExt;
    let spaced = Spaced::begin(oldest_major());
    let odd = spaced.scratch.join(std::ffi::OsStr::from_bytes(b"caf\xE9"));
    // A link made by hand, as for a location given in LATIN1: the server itself does not mind.
    let mut cluster = spaced.cluster;
    cluster.stop(StopMode::Fast);
    let link = cluster.data().join(format!("pg_tblspc/{}", spaced.oids[0]));
    fs::rename(spaced.scratch.join("space fast"), &odd).unwrap();
    fs::remove_file(&link).unwrap();
    symlink(&odd, &link).unwrap();
    cluster.start();
    let refused = spaced.walden.fails(22, &["backup", "--start-fast"]);
    assert!(refused.stderr.contains("not UTF-8"), "{refused}");
    let info = spaced.walden.run(&["info"]);
    assert!(!info.stdout.contains("-F-"), "{info}");
}
