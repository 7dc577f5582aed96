//! No key, passphrase or password in anything that others can see: what commands print and log, what they write, and
//! the process list while they run. And two clones that archive into one stanza.

use crate::common::{Cluster, Output, Scratch, StopMode, Walden, newest_major, wait_until};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const PASSPHRASE: &str = "correct-horse-battery-staple-7741";
const PASSWORD: &str = "pw-Zq81-of-the-role";

/// Every file below, by its path.
fn files_below(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut left = vec![root.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                left.push(entry.path());
            } else if kind.is_file() {
                all.insert(entry.path(), fs::read(entry.path()).unwrap_or_default());
            }
        }
    }
    all
}

fn holds(haystack: &[u8], needle: &str) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle.as_bytes())
}

/// The arguments of a process and of all below it, as every user of the machine sees them.
fn command_lines(pid: u32) -> Vec<u8> {
    let mut all = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    for child in children.split_whitespace().filter_map(|word| word.parse().ok()) {
        all.extend(command_lines(child));
    }
    all
}

pub struct Watch {
    pub scratch: Scratch,
    pub walden: Walden,
    pub secrets: Vec<String>,
    pub samples: usize,
}

impl Watch {
    /// Runs a command and looks at its arguments while it runs, at what it says, and what it logs.
    pub fn run(&mut self, code: i32, arguments: &[&str]) -> Output {
        let out = self.watched(arguments);
        assert_eq!(out.code, Some(code), "{out}");
        out
    }

    /// The same, however it ends.
    pub fn watched(&mut self, arguments: &[&str]) -> Output {
        let all = [&["--log-level-console=trace", "--log-level-file=trace"], arguments].concat();
        let mut child = self.walden.spawn(&all);
        let mut seen = Vec::new();
        while child.try_wait().unwrap().is_none() && seen.len() < 1_000_000 {
            let lines = command_lines(child.id());
            self.samples += usize::from(!lines.is_empty());
            seen.extend(lines);
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        let out = self.walden.finish(child);
        for secret in &self.secrets {
            assert!(!holds(&seen, secret), "in the process list of {}", out.command);
            // `key-generate` is there to print one, but not this one.
            assert!(!out.stdout.contains(secret.as_str()), "on stdout of {}", out.command);
            assert!(!out.stderr.contains(secret.as_str()), "on stderr of {}", out.command);
        }
        out
    }

    /// Looks through all files but those that are there to hold them.
    pub fn look(&self, but: &[PathBuf]) -> usize {
        let files = files_below(self.scratch.path());
        for (path, bytes) in &files {
            for secret in &self.secrets {
                let meant = but.contains(path) || !holds(bytes, secret);
                assert!(meant, "a secret is in {}", path.display());
            }
        }
        files.len()
    }
}

#[test]
fn no_secret_is_seen_anywhere() {
    for place in ["file", "command", "config", "environment"] {
        let scratch = Scratch::new();
        let mut walden = Walden::new(&scratch);
        let script = scratch.join("archive");
        let cluster = Cluster::build(&scratch, newest_major())
            .segment_size_mb(1)
            .hba(&["local all walden scram-sha-256", "local replication walden scram-sha-256"])
            .conf(&["wal_keep_size = 64MB"])
            .archive_command(&format!("sh {} %p", script.display()))
            .start();
        cluster.sql(&format!("create role walden login replication password '{PASSWORD}'"));
        // The statement is in nobody's log, and the role's verifier is not the password.
        let passfile = scratch.write("passwords", format!("*:*:*:walden:{PASSWORD}\n"));
        walden.env("PGPASSFILE", passfile.to_str().unwrap());
        let key = walden.ok(&["key-generate"]).text().to_owned();
        // What is made of a passphrase in a file is kept on this host, of one that is in none nothing.
        let is_passphrase = matches!(place, "config" | "environment");
        let secret = if is_passphrase { PASSPHRASE.to_owned() } else { key };
        let file = scratch.write("the-key", format!("{secret}\n"));
        let mut meant = vec![passfile];
        let mut lines = walden.usual_lines(&cluster);
        lines.retain(|line| line != "pg1-user=postgres");
        lines.push("pg1-user=walden".to_owned());
        let source = match place {
            "file" => format!("repo1-cipher-pass-file={}", file.display()),
            "command" => format!("repo1-cipher-pass-command=cat {}", file.display()),
            "config" => format!("repo1-cipher-pass={secret}"),
            _ => String::new(),
        };
        lines.splice(2..2, ["repo1-cipher-type=aes-256-gcm".to_owned(), source]);
        walden.config(&lines.iter().map(String::as_str).collect::<Vec<_>>());
        match place {
            "config" => meant.push(walden.config_path()),
            "environment" => walden.env("WALDEN_REPO1_CIPHER_PASS", &secret),
            _ => {}
        }
        match place {
            "config" | "environment" => fs::remove_file(&file).unwrap(),
            _ => meant.push(file),
        }
        let push = walden.archive_command().replace("%p", "$1");
        let exported = if place == "environment" { secret.as_str() } else { "" };
        let export = format!("export WALDEN_REPO1_CIPHER_PASS={exported}\n");
        scratch.write(&script, format!("{}{push}\n", if exported.is_empty() { "" } else { &export }));
        meant.push(script);
        let secrets = vec![secret, PASSWORD.to_owned()];
        let mut watch = Watch { scratch: scratch.clone(), walden, secrets, samples: 0 };

        watch.run(0, &["stanza-create"]);
        cluster.sql("create table t (a int)");
        let name = cluster.switch_wal();
        let segment = cluster.data().join("pg_wal").join(&name);
        watch.run(0, &["archive-push", segment.to_str().unwrap()]);
        watch.run(0, &["backup", "--type=full", "--start-fast"]);
        watch.run(0, &["info"]);
        watch.run(0, &["info", "--output=json"]);
        watch.run(0, &["config"]);
        watch.run(0, &["repo-ls", "--recurse"]);
        let got = scratch.join("got");
        watch.run(0, &["archive-get", &name, got.to_str().unwrap()]);
        let cache = files_below(&watch.walden.cache_folder());
        assert_eq!(cache.len(), usize::from(place == "config"), "{place}: {:?}", cache.keys());
        for (path, contents) in &cache {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(
                fs::metadata(path).unwrap().permissions().mode() & 0o7777,
                0o600,
                "{}",
                path.display()
            );
            assert!(contents.len() > 500 && holds(contents, "argon2id"), "{}", path.display());
            assert!(
                !PASSPHRASE.split('-').any(|word| word.len() > 4 && holds(contents, word)),
                "{}",
                path.display()
            );
        }
        let target = scratch.join("back");
        let path = format!("--pg1-path={}", target.display());
        // A warning: the server to be started will not have this environment.
        let warned = if place == "environment" { 50 } else { 0 };
        watch.run(warned, &["restore", &path, "--type=immediate"]);
        assert!(target.join("postgresql.auto.conf").exists());
        watch.run_any(&["help"]);
        watch.run_any(&["version"]);
        // Failures say most.
        let wrong = format!("{PASSPHRASE}-and-wrong");
        watch.secrets.push(wrong.clone());
        watch.walden.env("WALDEN_REPO1_CIPHER_PASS", &wrong);
        watch.run_any(&["info"]);
        watch.run_any(&["archive-push", segment.to_str().unwrap()]);
        watch.run_any(&["backup", "--type=full"]);

        let looked = watch.look(&meant);
        assert!(looked > 1000 && watch.samples > 20, "{looked} files, {} samples", watch.samples);
        assert!(files_below(&watch.walden.join("log")).len() >= 3, "there are log files");
        println!("{place}: {looked} files, {} samples of the process list", watch.samples);

        if place == "config" {
            use std::os::unix::fs::PermissionsExt;
            fs::set_permissions(watch.walden.config_path(), fs::Permissions::from_mode(0o644)).unwrap();
            let told = watch.walden.run(&["repo-ls"]).stderr;
            assert!(told.contains("every user of this machine can read it"), "{told}");
        }
    }
}

impl Watch {
    fn run_any(&mut self, arguments: &[&str]) -> Output {
        let out = self.walden.run(arguments);
        for secret in &self.secrets {
            let told = out.stdout.contains(secret.as_str()) || out.stderr.contains(secret.as_str());
            assert!(!told, "told by {}", out.command);
        }
        out
    }
}

/// `hazards/clones-share-history` turned round: the history of both is equal and passes, their WAL is not and does not.
#[test]
fn of_two_clones_that_archive_into_one_stanza_the_second_is_refused() {
    let scratch = Scratch::new();
    let walden = Walden::new(&scratch);
    let mut primary = Cluster::build(&scratch, newest_major())
        .segment_size_mb(1)
        .conf(&["autovacuum = off"])
        .archive_command(&walden.archive_command())
        .start();
    walden.configure(&primary, &[]);
    walden.ok(&["stanza-create"]);
    primary.sql("create table t (a int)");
    walden.ok(&["backup", "--type=full", "--start-fast"]);
    primary.sql("insert into t values (0); select pg_create_restore_point('here')");
    primary.archive_now();
    primary.stop(StopMode::Fast);

    let clone = |name: &str| {
        let target = scratch.join(name);
        let path = format!("--pg1-path={}", target.display());
        // As of a moment when there was one timeline: both will call theirs the second.
        let arguments = ["restore", &path, "--type=name", "--target=here", "--target-timeline=1"];
        walden.ok(&[&arguments[..], &["--target-action=promote", "--archive-mode=preserve"]].concat());
        target
    };
    let directories = [clone("one"), clone("two")];
    let mut one = primary.start_restored(&directories[0], &[]).unwrap_or_else(|log| panic!("{log}"));
    one.wait_recovery_end();
    one.sql("insert into t values (1)");
    let stored = one.archive_now();
    assert!(stored.starts_with("00000002"), "{stored}");
    let before = files_below(&walden.repo_path());

    // The second looked before the first had archived anything: it takes the same number.
    let real = walden.restore_command().replace("%f", "$1").replace("%p", "$2");
    let blind = format!("case $1 in 00000002*) exit 1;; esac\n{real}\n");
    let blind = scratch.write("blind", blind);
    let command = format!("restore_command=sh {} %f %p", blind.display());
    let two = primary.start_restored(&directories[1], &[&command]);
    let mut two = two.unwrap_or_else(|log| panic!("{log}"));
    two.wait_recovery_end();
    two.sql("insert into t values (2)");
    let refused = two.switch_wal();
    assert!(refused.starts_with("00000002"), "{refused}");
    wait_until("the archiver to be refused", || {
        two.sql("select failed_count > 0 from pg_stat_archiver") == "t"
    });
    let file = directories[1].join("pg_wal").join(&stored);
    let out = walden.fails(41, &["archive-push", file.to_str().unwrap()]);
    assert!(out.stderr.contains(&stored), "{out}");
    let hashes = out.stderr.split(|c: char| !c.is_ascii_hexdigit()).filter(|word| word.len() == 64);
    assert!(hashes.count() == 2, "{out}");
    for (path, bytes) in &before {
        assert!(fs::read(path).unwrap() == *bytes, "{} was overwritten", path.display());
    }
}
