//! `archive-push` as the `archive_command` of real servers, and its refusals.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use walden::repo::Repository;
use walden::repo::keys::Secret;
use walden::storage::posix::PosixStore;
use walden::units::{SegmentName, SegmentSize, Stanza, SystemIdentifier, TimelineId};
use walden::wal::archive::Archive;
use walden::wal::read::{read_history, read_segment_into, segment_info};
use walden::wal::{ClusterWal, Verdict};

use crate::common::{
    Cluster, Replace, STANZA, Scratch, StopMode, Walden, golden, kill_now, majors_in_full, newest_major,
    wait_until,
};

/// A server whose `archive_command` is walden's, and its stanza.
struct Bench {
    scratch: Scratch,
    walden: Walden,
    cluster: Cluster,
    megabytes: u32,
}

impl Bench {
    fn start(major: u32, megabytes: u32, configure: impl FnOnce(&Walden, &Cluster)) -> Self {
        let scratch = Scratch::new();
        let walden = Walden::new(&scratch);
        let cluster = Cluster::build(&scratch, major)
            .segment_size_mb(megabytes)
            .conf(&["wal_keep_size = 256MB", "autovacuum = off"])
            .archive_command(&walden.archive_command())
            .start();
        configure(&walden, &cluster);
        walden.ok(&["stanza-create"]);
        Self { scratch, walden, cluster, megabytes }
    }

    fn plain(major: u32) -> Self {
        Self::start(major, 1, |walden, cluster| walden.configure_plain(cluster, &[]))
    }

    fn system(&self) -> SystemIdentifier {
        self.cluster.sql("select system_identifier from pg_control_system()").parse().unwrap()
    }

    fn open(&self, name: &str, key: Option<&str>) -> Look {
        let store = Arc::new(PosixStore::open(&self.walden.join(name)).unwrap());
        let secret = || Ok(key.map(|key| Secret::parse(key).unwrap()));
        Look {
            repo: Repository::open(store, &secret).unwrap(),
            stanza: STANZA.parse().unwrap(),
            system: self.system(),
            size: SegmentSize::new(u64::from(self.megabytes) << 20).unwrap(),
        }
    }

    fn look(&self) -> Look {
        self.open("repo", None)
    }

    fn pg_wal(&self, name: &str) -> PathBuf {
        self.cluster.data().join("pg_wal").join(name)
    }

    /// A copy of a segment, changed after the switch that ends it: complete, and not the same.
    fn altered(&self, name: &str) -> PathBuf {
        let mut bytes = fs::read(self.pg_wal(name)).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        self.scratch.dir("altered");
        self.scratch.write(format!("altered/{name}"), bytes)
    }
}

/// A repository seen through the library.
struct Look {
    repo: Repository,
    stanza: Stanza,
    system: SystemIdentifier,
    size: SegmentSize,
}

impl Look {
    fn wal(&self) -> ClusterWal<'_> {
        ClusterWal { repo: &self.repo, stanza: &self.stanza, system: self.system }
    }

    fn view(&self) -> Archive {
        Archive::read(&[&self.repo], &self.stanza, self.system, self.size)
    }

    fn has(&self, name: &str) -> bool {
        self.view().contains(name.parse().unwrap())
    }

    fn holds(&self, name: &str, file: &Path) {
        let mut bytes = Vec::new();
        let name: SegmentName = name.parse().unwrap();
        read_segment_into(self.wal(), name, &mut |more| {
            bytes.extend_from_slice(more);
            Ok(())
        })
        .unwrap();
        assert!(bytes == fs::read(file).unwrap(), "{name} came back with other bytes");
        assert_eq!(segment_info(self.wal(), name).unwrap().verdict, Verdict::Complete);
    }
}

fn failures(cluster: &Cluster) -> u64 {
    cluster.sql("select failed_count from pg_stat_archiver").parse().unwrap()
}

fn in_pg_wal(cluster: &Cluster, ending: &str) -> Vec<String> {
    let names = fs::read_dir(cluster.data().join("pg_wal")).unwrap();
    names
        .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
        .filter(|name| name.ends_with(ending))
        .collect()
}

#[test]
fn what_a_server_archives_through_backup_and_promotion_is_all_there() {
    for major in majors_in_full() {
        let bench = Bench::plain(major);
        let p = &bench.cluster;
        let one = TimelineId::FIRST;
        p.sql("create table t (a int, b text)");
        let mut names = Vec::new();
        for _ in 0..3 {
            p.sql("insert into t select g, repeat('x', 100) from generate_series(1, 3000) g");
            names.push(p.archive_now());
        }
        let look = bench.look();
        for name in &names {
            look.holds(name, &bench.pg_wal(name));
            let info = segment_info(look.wal(), name.parse().unwrap()).unwrap();
            assert!(info.last_commit.is_some() && info.first_commit.is_some());
        }
        // The same file again, by hand and by its absolute path.
        bench.walden.ok(&["archive-push", bench.pg_wal(&names[0]).to_str().unwrap()]);

        // A base backup leaves a .backup file, a promotion a history, a .partial and a first segment that begins
        // with the old timeline's pages.
        let data = p.pg_basebackup("standby", &["-R", "-X", "stream"]);
        let mut standby = Cluster::on_directory(&bench.scratch, major, &data);
        standby.start();
        p.sql("insert into t select g, repeat('y', 100) from generate_series(1, 2000) g");
        let end = p.flush_lsn();
        wait_until("the standby to replay", || {
            standby.sql(&format!("select pg_last_wal_replay_lsn() >= '{end}'")) == "t"
        });
        let before = failures(&standby);
        standby.promote();
        standby.sql("insert into t select g, repeat('z', 100) from generate_series(1, 2000) g");
        let first = standby.archive_now();
        assert!(first.starts_with("00000002"), "{first}");
        assert_eq!(failures(&standby), before, "{}", standby.log());
        look.holds(&first, &data.join("pg_wal").join(&first));
        let history = read_history(look.wal(), TimelineId::new(2).unwrap()).unwrap();
        assert_eq!(history.entries().len(), 1);
        assert_eq!(look.view().partials(one).count(), 1);
        assert_eq!(in_pg_wal(&standby, ".partial").len(), 1);
        let keys = walk(&bench.walden.repo_path());
        assert!(keys.iter().any(|key| key.contains(".backup-")), "{keys:#?}");

        // The old primary lives on: its own complete segment goes where the .partial lies beside.
        let fork = in_pg_wal(&standby, ".partial")[0].trim_end_matches(".partial").to_owned();
        p.sql("insert into t select g, repeat('w', 100) from generate_series(1, 9000) g");
        p.archive_now();
        look.holds(&fork, &bench.pg_wal(&fork));
        standby.stop(StopMode::Fast);
    }
}

fn walk(path: &Path) -> Vec<String> {
    let mut all = Vec::new();
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(walk(&path));
        } else {
            all.push(path.display().to_string());
        }
    }
    all
}

#[test]
fn a_follower_that_archives_always_is_in_nobodys_way() {
    for major in majors_in_full() {
        let bench = Bench::plain(major);
        let p = &bench.cluster;
        p.sql("create table t (a int, b text)");
        let mut servers = Vec::new();
        for name in ["first", "second"] {
            let data = p.pg_basebackup(name, &["-R", "-X", "stream"]);
            servers.push(Cluster::on_directory(&bench.scratch, major, &data));
        }
        let [first, second] = &mut servers[..] else { panic!() };
        first.set_options(&["archive_mode=always"]);
        first.start();
        let upstream = format!("primary_conninfo={}", first.conninfo().replace(" dbname=postgres", ""));
        second.set_options(&["archive_mode=always", &upstream]);
        second.start();
        let shared = p.archive_now();
        p.sql("insert into t select g, repeat('x', 100) from generate_series(1, 2000) g");
        let end = p.flush_lsn();
        for standby in [&*first, &*second] {
            wait_until("a standby to replay", || {
                standby.sql(&format!("select pg_last_wal_replay_lsn() >= '{end}'")) == "t"
            });
            // Both archive the primary's segments once more: equal contents are success.
            standby.wait_archived(&shared);
        }
        let open = p.sql("select pg_walfile_name(pg_current_wal_lsn())");
        first.promote();
        first.sql("insert into t select g, repeat('y', 100) from generate_series(1, 2000) g");
        first.archive_now();
        wait_until("the follower to archive what it had received", || {
            let (warned, stored) = (second.log(), bench.look().view());
            warned.contains("stored beside, as partial-") && stored.partials(TimelineId::FIRST).count() >= 1
        });
        assert!(!bench.look().has(&open), "an unfinished segment took the name {open}");
        // The primary's own segment then gets the name.
        p.sql("insert into t select g, repeat('z', 100) from generate_series(1, 9000) g");
        p.archive_now();
        bench.look().holds(&open, &bench.pg_wal(&open));
        for server in [&bench.cluster, &*first, &*second] {
            assert!(!server.log().contains("held with other contents"), "{}", server.log());
        }
        second.stop(StopMode::Fast);
        first.stop(StopMode::Fast);
    }
}

#[test]
fn segments_of_64_mb_are_kept_in_parts_and_those_of_16_mb_whole() {
    for megabytes in [16, 64] {
        let bench = Bench::start(18, megabytes, |walden, cluster| walden.configure(cluster, &[]));
        bench
            .cluster
            .sql("create table t as select g, repeat(md5(g::text), 8) b from generate_series(1, 40000) g");
        let name = bench.cluster.archive_now();
        let key = fs::read_to_string(bench.walden.key_path()).unwrap();
        bench.open("repo", Some(key.trim())).holds(&name, &bench.pg_wal(&name));
        let parts = walk(&bench.walden.repo_path())
            .iter()
            .filter(|key| key.contains(&format!("{name}.part/")))
            .count();
        // Four, of which those after the switch are equal and lie there once.
        assert!(if megabytes == 64 { (2..=4).contains(&parts) } else { parts == 0 }, "{parts}");
        bench.walden.ok(&["archive-push", bench.pg_wal(&name).to_str().unwrap()]);
    }
}

#[test]
fn a_passphrase_seals_as_well_and_a_wrong_one_is_refused() {
    let bench = Bench::start(18, 1, |walden, cluster| {
        walden.configure_plain(cluster, &[]);
        let path = walden.config_path();
        let text = fs::read_to_string(&path).unwrap();
        let cipher = "repo1-cipher-type=aes-256-gcm\nrepo1-cipher-pass=correct horse battery staple";
        fs::write(path, text.replace("repo1-cipher-type=none", cipher)).unwrap();
    });
    let name = bench.cluster.archive_now();
    bench.open("repo", Some("correct horse battery staple")).holds(&name, &bench.pg_wal(&name));
    let path = bench.walden.config_path();
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("correct horse", "wrong donkey")).unwrap();
    let out = bench.walden.fails(12, &["archive-push", bench.pg_wal(&name).to_str().unwrap()]);
    assert!(!out.stderr.contains("donkey"), "{out}");
    assert_eq!(out.stderr.lines().count(), 1, "{out}");
    // For a recovery that is no end of the archive, with the cache or without it.
    for _ in 0..2 {
        let target = bench.scratch.join("RECOVERYXLOG");
        let system = format!("--system-id={}", bench.system());
        let out = bench.walden.fails(200, &["archive-get", &system, &name, target.to_str().unwrap()]);
        assert_eq!(out.stderr.lines().count(), 1, "{out}");
        let _ = fs::remove_dir_all(bench.walden.cache_folder());
    }
}

#[test]
fn argon2_runs_once_for_all_segments_and_their_way_back() {
    let bench = Bench::start(newest_major(), 1, |walden, cluster| {
        walden.configure_plain(cluster, &[]);
        let path = walden.config_path();
        let text = fs::read_to_string(&path).unwrap();
        let cipher = "repo1-cipher-type=aes-256-gcm\nrepo1-cipher-pass=correct horse battery staple";
        fs::write(path, text.replace("repo1-cipher-type=none", cipher)).unwrap();
    });
    let name = bench.cluster.archive_now();
    let segment = bench.pg_wal(&name);
    let got = bench.scratch.join("got");
    let cache = bench.walden.cache_folder();
    let file = fs::read_dir(&cache).unwrap().next().expect("the archiver left one").unwrap().path();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(&cache), mode(&file)), (0o700, 0o600));
    let derivations = |arguments: &[&str]| -> u32 {
        let out = bench.walden.ok(&[&["--log-level-console=debug"], arguments].concat());
        let line = out.stderr.lines().find(|line| line.contains(" derived with Argon2")).expect("a line");
        let words: Vec<&str> = line.split(' ').collect();
        words[words.iter().position(|word| *word == "derived").unwrap() - 1].parse().unwrap()
    };
    let push = ["archive-push", segment.to_str().unwrap()];
    let get = ["archive-get", name.as_str(), got.to_str().unwrap()];
    for arguments in [&push[..], &get, &push] {
        assert_eq!(derivations(arguments), 0, "{arguments:?}");
    }
    // Without the file it is derived again, by whoever comes first, and of a folder that others may enter nothing is used.
    fs::remove_file(&file).unwrap();
    assert_eq!((derivations(&get), derivations(&push)), (1, 0));
    fs::write(&file, &fs::read(&file).unwrap()[..100]).unwrap();
    assert_eq!((derivations(&push), derivations(&get)), (1, 0));
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o750)).unwrap();
    assert_eq!((derivations(&push), derivations(&get)), (1, 1));
    assert_eq!(fs::read(&got).unwrap(), fs::read(&segment).unwrap());
}

#[test]
fn every_refusal_is_one_line_and_changes_nothing() {
    let bench = Bench::plain(18);
    let p = &bench.cluster;
    p.sql("create table t (a int)");
    let name = p.archive_now();
    let file = bench.pg_wal(&name);
    let file = file.to_str().unwrap();
    let look = bench.look();
    let altered = bench.altered(&name);
    let altered_path = altered.to_str().unwrap();
    let hash = |path: &Path| blake3_hex(&fs::read(path).unwrap());
    let replace = [
        Replace::text(hash(Path::new(file)), "HASH_STORED"),
        Replace::text(hash(&altered), "HASH_OFFERED"),
        Replace::text(bench.walden.repo_path().display(), "REPO"),
        Replace::text(bench.walden.join("").display(), "PLACE/"),
        Replace::text(bench.scratch.path().display(), "SCRATCH"),
        Replace::text(look.system, "SYSTEM"),
    ];
    let before = walk(&bench.walden.repo_path());
    let refuse = |code: i32, golden_name: &str, arguments: &[&str], more: Vec<Replace>| {
        let out = bench.walden.fails(code, arguments);
        assert_eq!(out.stdout, "");
        assert_eq!(out.stderr.lines().count(), 1, "{out}");
        let mut all = more;
        all.extend(replace.iter().map(|one| match one {
            Replace::Text(what, with) => Replace::Text(what.clone(), with.clone()),
            Replace::Shape(what, with) => Replace::Shape(what, with),
        }));
        all.extend(Replace::segments());
        golden(&format!("archive-push/{golden_name}"), &out.stderr, &all);
    };

    refuse(41, "conflict", &["archive-push", altered_path], vec![]);
    refuse(2, "not-a-wal-file", &["archive-push", "/tmp/notes.txt"], vec![]);
    refuse(31, "no-such-file", &["archive-push", "pg_wal/000000010000000000000077"], vec![]);
    refuse(10, "no-stanza", &["--stanza=nobody", "archive-push", file], vec![]);
    let renamed = bench.scratch.write("altered/0000000100000000000000AA", fs::read(file).unwrap());
    refuse(
        40,
        "other-name",
        &["archive-push", renamed.to_str().unwrap()],
        vec![Replace::Shape("0/X00000", "LSN")],
    );
    let cut = bench.scratch.write(format!("altered/{name}.partial"), &fs::read(file).unwrap()[..70_000]);
    refuse(40, "cut", &["archive-push", cut.to_str().unwrap()], vec![]);
    let stray = bench.scratch.write("altered/00000002.history", "1\t0/500000\tx\n");
    let elsewhere = ["--pg1-path=/nowhere", "archive-push", stray.to_str().unwrap()];
    refuse(22, "no-control-file", &elsewhere, vec![]);
    let bad = bench.scratch.write("altered/00000003.history", "no history\n");
    refuse(40, "not-a-history", &["archive-push", bad.to_str().unwrap()], vec![]);

    // Another cluster's segment.
    let other = Cluster::build(&bench.scratch, 18).name("other").segment_size_mb(1).start();
    let foreign_name = other.switch_wal();
    let foreign = other.data().join("pg_wal").join(foreign_name);
    let foreign_system = other.sql("select system_identifier from pg_control_system()");
    let words = vec![Replace::text(foreign_system, "OTHER_SYSTEM")];
    refuse(21, "other-cluster", &["archive-push", foreign.to_str().unwrap()], words);

    assert_eq!(walk(&bench.walden.repo_path()), before);
    look.holds(&name, Path::new(file));

    // A server that is refused keeps its segment, and its log has the line.
    let count = failures(p);
    let repo = bench.walden.repo_path();
    fs::rename(&repo, bench.walden.join("away")).unwrap();
    let next = p.switch_wal();
    wait_until("a failed attempt", || failures(p) > count);
    assert!(p.log().contains("walden archive-push: "), "{}", p.log());
    fs::rename(bench.walden.join("away"), &repo).unwrap();
    p.wait_archived(&next);
    bench.look().holds(&next, &bench.pg_wal(&next));
}

fn blake3_hex(bytes: &[u8]) -> String {
    walden::wal::ContentHash::of(bytes).to_string()
}

#[test]
fn a_repository_that_is_gone_or_not_writable_keeps_no_other_from_its_copy() {
    let bench = Bench::start(18, 1, |walden, cluster| {
        let second = format!("repo2-path={}", walden.join("repo2").display());
        walden.configure(cluster, &[&second, "repo2-cipher-type=none"]);
    });
    let p = &bench.cluster;
    p.sql("create table t (a int)");
    let key = fs::read_to_string(bench.walden.key_path()).unwrap();
    let key = key.trim();
    let both = p.archive_now();
    bench.open("repo", Some(key)).holds(&both, &bench.pg_wal(&both));
    bench.open("repo2", None).holds(&both, &bench.pg_wal(&both));

    // From here on files are pushed by hand.
    p.configure(&["archive_command = 'false'"]);
    let second = bench.walden.join("repo2");
    let words = || {
        let mut words = vec![
            Replace::text(second.display(), "REPO2"),
            Replace::text(bench.walden.repo_path().display(), "REPO"),
            Replace::text(bench.system(), "SYSTEM"),
        ];
        words.extend(Replace::segments());
        words
    };
    let push = |code: i32| {
        let name = p.switch_wal();
        let out = bench.walden.fails(code, &["archive-push", bench.pg_wal(&name).to_str().unwrap()]);
        bench.open("repo", Some(key)).holds(&name, &bench.pg_wal(&name));
        (name, out.stderr)
    };
    p.sql("insert into t values (1)");
    fs::rename(&second, bench.walden.join("away")).unwrap();
    let (missed, said) = push(10);
    golden("archive-push/repo2-gone", &said, &words());
    fs::rename(bench.walden.join("away"), &second).unwrap();

    // Nothing can be made in it. Root may write anywhere, so the server's user runs this one.
    let folders: Vec<PathBuf> = std::iter::once(second.clone())
        .chain(fs::read_dir(&second).unwrap().map(|e| e.unwrap().path()))
        .collect();
    let modes = |mode: u32| {
        for folder in folders.iter().filter(|folder| folder.is_dir()) {
            fs::set_permissions(folder, fs::Permissions::from_mode(mode)).unwrap();
        }
    };
    p.sql("insert into t values (2)");
    modes(0o550);
    let (closed, said) = push(31);
    modes(0o750);
    golden("archive-push/repo2-closed", &said, &words());
    for name in [&missed, &closed] {
        bench.walden.ok(&["archive-push", bench.pg_wal(name).to_str().unwrap()]);
        bench.open("repo2", None).holds(name, &bench.pg_wal(name));
    }
}

/// PostgreSQL asks for the same segment until the second repository is back. The first must not wait for that.
#[test]
fn while_a_repository_is_away_the_other_has_everything_that_is_finished() {
    let bench = Bench::start(18, 1, |walden, cluster| {
        let second = format!("repo2-path={}", walden.join("repo2").display());
        walden.configure(cluster, &[&second, "repo2-cipher-type=none"]);
    });
    let p = &bench.cluster;
    p.sql("create table t (a int)");
    p.archive_now();
    let key = fs::read_to_string(bench.walden.key_path()).unwrap();
    let key = key.trim();
    let second = bench.walden.join("repo2");
    fs::rename(&second, bench.walden.join("away")).unwrap();
    let names: Vec<String> = (0..6)
        .map(|n| {
            p.sql(&format!("insert into t values ({n})"));
            p.switch_wal()
        })
        .collect();
    let last = names.last().unwrap();
    wait_until("the last segment to be in the first repository", || bench.open("repo", Some(key)).has(last));
    for name in &names {
        bench.open("repo", Some(key)).holds(name, &bench.pg_wal(name));
        let ready = p.data().join(format!("pg_wal/archive_status/{name}.ready"));
        assert!(ready.exists(), "PostgreSQL was told that {name} is everywhere");
    }
    wait_until("the log to say what the first has", || p.log().contains("repo1 has it and"));

    fs::rename(bench.walden.join("away"), &second).unwrap();
    // Three failures make the archiver sleep for a minute; a new segment wakes it.
    p.sql("insert into t values (9)");
    let newest = p.archive_now();
    for name in names.iter().chain([&newest]) {
        bench.open("repo2", None).holds(name, &bench.pg_wal(name));
    }
    assert!(!p.log().contains("conflict"), "{}", p.log());
    bench.walden.ok(&["verify"]);
}

/// PostgreSQL retries up to 125; above that it ends its archiver, as it does when the program dies of a signal.
#[test]
fn a_push_that_is_interrupted_ends_with_71_and_the_next_one_stores_the_segment() {
    use rustix::process::Signal;
    // Large enough that it is surely under way when its first part is there.
    let bench = Bench::start(newest_major(), 256, |walden, cluster| {
        walden.configure_plain(cluster, &["compress-level=9"]);
        cluster.configure(&["archive_command = 'false'"]);
    });
    bench
        .cluster
        .sql("create table t as select md5(g::text) || md5((-g)::text) b from generate_series(1, 1500000) g");
    let name = bench.cluster.switch_wal();
    let file = bench.pg_wal(&name);
    for signal in [Signal::INT, Signal::TERM] {
        let child = bench.walden.spawn(&["archive-push", file.to_str().unwrap()]);
        wait_until("the first part to be stored", || {
            walk(&bench.walden.repo_path()).iter().any(|key| key.contains(".part/"))
        });
        kill_now(child.id(), signal);
        let out = bench.walden.finish(child);
        assert_eq!((out.code, out.signal), (Some(71), None), "{signal:?}: {out}");
        assert!(!bench.look().has(&name), "{signal:?}");
        let parts = walk(&bench.walden.repo_path()).into_iter().find(|key| key.contains(".part/")).unwrap();
        let folder = parts.rsplit_once('/').unwrap().0.to_owned();
        fs::remove_dir_all(bench.walden.repo_path().join(folder)).unwrap();
    }
    bench.walden.ok(&["archive-push", file.to_str().unwrap()]);
    bench.look().holds(&name, &file);
}
