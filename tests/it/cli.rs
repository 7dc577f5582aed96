//! The command line without a server: what it refuses and in which words, and how it exits.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat, open};
use rustix::process::Signal;

use crate::common::{Output, Replace, Scratch, collect, finish, golden, kill_now, wait_until};

/// A configuration file of one's own, and the program with a clean environment.
struct Desk {
    scratch: Scratch,
    file: PathBuf,
}

impl Desk {
    fn new(configuration: &str) -> Self {
        let scratch = Scratch::new();
        let file = scratch.write(scratch.join("walden.conf"), configuration);
        Self { scratch, file }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.scratch.command(env!("CARGO_BIN_EXE_walden"));
        command.env("WALDEN_CONFIG", &self.file).args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        finish(self.command(arguments))
    }

    /// What is said, and the exit code, as one text.
    fn told(&self, command: Command) -> String {
        let out = finish(command);
        let code = out.code.map_or_else(|| "a signal".to_owned(), |code| code.to_string());
        format!("{}{}exit {code}\n", out.stdout, out.stderr)
            .replace(&self.file.display().to_string(), "/etc/walden/walden.conf")
    }
}

/// One configuration file, wrong in one way.
fn wrong_file(lines: &str) -> String {
    let desk = Desk::new(lines);
    format!("{}\n---\n{}\n", lines.trim_end(), desk.told(desk.command(&["config"])))
}

#[test]
fn every_mistake_in_a_file_is_named_with_its_line() {
    let all: String = [
        "[global]\nrepo1-path=/r\nrepo1-cipher-pth=x\n",
        "[global]\nrepo2-retention-archive=2\n",
        "[global]\ncompress-type=lz4\n",
        "[global]\nrepo1-type=s3\n",
        "[global]\narchive-async=y\n",
        "[global]\nrepo-path=/r\n",
        "[global]\nrepo300-path=/r\n",
        "[global]\nsomething-quite-different=1\n",
        "[global]\nprocess-max=0\n",
        "[global]\npack-size=1GiB\n",
        "[global]\narchive-timeout=soon\n",
        "[global]\nstart-fast=yes\n",
        "[global]\nrepo1-path=relative\n",
        "[global]\ntarget=2026-11-21\n",
        "[global]\nstanza=shop\n",
        "[global:backup]\nlog-path=/l\nrepo1-path=/r\n[global:bakcup]\nstart-fast=y\n",
        "[global:archive-push]\nstart-fast=y\n",
        "[globel]\nrepo1-path=/r\n",
        "[../shop]\npg1-port=1\n",
        "[shop\npg1-port=1\n",
        "repo1-path=/r\n",
        "[global]\nrepo1-path\n",
        "[global]\nrepo1-path=\n",
        "[global]\nrepo1-path=/a\nrepo1-path=/b\n",
        "[shop]\nrepo1-cipher-pass-file=/k\n",
    ]
    .iter()
    .map(|lines| wrong_file(lines))
    .collect();
    golden("cli-mistakes-in-a-file", &all, &[]);
}

/// As it lies on many hosts; only the path was changed.
const OF_PGBACKREST: &str = "\
[global]
repo1-path=/var/lib/walden
repo1-retention-full=2
repo1-cipher-type=aes-256-cbc
repo1-cipher-pass=hush
repo1-bundle=y
repo1-block=y
repo2-type=s3
repo2-path=/backup
repo2-s3-bucket=shop-backups
repo2-s3-key-secret=hush
process-max=4
log-level-console=info
log-level-file=detail
log-path=/var/log/pgbackrest
start-fast=y
delta=y
stop-auto=y
compress-type=lz4
compress-level=3
archive-async=y
spool-path=/var/spool/pgbackrest
archive-push-queue-max=4GiB
archive-timeout=120
buffer-size=16MiB

[global:archive-push]
compress-level=1

[shop]
pg1-path=/var/lib/postgresql/17/main
pg1-port=5432
pg1-socket-path=/var/run/postgresql
pg1-host-user=postgres
backup-standby=y
";

/// What is left of it when each line that the messages name was mended as they say.
const MENDED: &str = "\
[global]
repo1-path=/var/lib/walden
repo1-cipher-type=aes-256-gcm
repo1-cipher-pass=hush
process-max=4
log-level-console=info
log-level-file=detail
log-path=/var/log/pgbackrest
start-fast=y
compress-type=zst
compress-level=3
spool-path=/var/spool/pgbackrest
archive-timeout=120

[global:archive-push]
compress-level=1

[shop]
pg1-path=/var/lib/postgresql/17/main
pg1-port=5432
pg1-socket-path=/var/run/postgresql
";

#[test]
fn a_pgbackrest_conf_is_told_once_all_that_is_to_be_changed() {
    let desk = Desk::new(OF_PGBACKREST);
    let told = desk.told(desk.command(&["config", "backup"]));
    assert!(!told.contains("hush"), "{told}");
    golden("cli-pgbackrest-conf", &told, &[]);
    let desk = Desk::new(MENDED);
    let out = desk.run(&["config", "backup"]);
    assert!(out.success(), "{out}");
    assert!(!format!("{out}").contains("hush"), "{out}");
}

#[test]
fn every_mistake_on_the_command_line_has_its_words() {
    let desk = Desk::new("[global]\nrepo1-path=/r\n[shop]\npg1-port=1\n");
    let mut all = String::new();
    for line in [
        "",
        "confg",
        "server",
        "something-else",
        "config --repo1-pth=/r",
        "config --repo1-retention-archive=2",
        "config --target=x",
        "config --repo1-cipher-pass=hush",
        "config --repo1-cipher-pass hush",
        "config --no-repo1-path",
        "config --no-start-fast=y",
        "config --compress-level",
        "config --compress-level=99",
        "config --compress-level=1 --compress-level=2",
        "config -x",
        "config backup more",
        "completion",
        "completion tcsh",
        "version more",
        "help confg",
        "help config repo1-pth",
        "--unknown config",
        "--repo=7 config info",
    ] {
        let arguments: Vec<&str> = line.split_whitespace().collect();
        let told = desk.told(desk.command(&arguments));
        // What was typed may be a secret; shown is only the line of this test.
        assert!(!told.contains("hush"), "{told}");
        all.push_str(&format!("$ walden {line}\n{told}\n"));
    }
    golden("cli-mistakes-on-the-command-line", &all, &[]);
}

#[test]
fn every_mistake_in_the_environment_has_its_words() {
    let desk = Desk::new("[global]\nrepo1-path=/r\n");
    let mut all = String::new();
    for (name, value) in [
        ("WALDEN_REPO1_PTH", "/r"),
        ("WALDEN_REPO1_S3_BUCKET", "b"),
        ("WALDEN_COMPRESS_LEVEL", "high"),
        ("WALDEN_REPO_PATH", "/r"),
        ("WALDEN_Stanza", "x"),
    ] {
        let mut command = desk.command(&["config"]);
        command.env(name, value);
        all.push_str(&format!("$ {name}={value} walden config\n{}\n", desk.told(command)));
    }
    golden("cli-mistakes-in-the-environment", &all, &[]);
}

#[test]
fn config_shows_every_value_its_origin_and_no_secret() {
    let desk = Desk::new(
        "[global]\nrepo1-path=/srv/walden\nrepo1-cipher-type=aes-256-gcm\nrepo1-cipher-pass=open sesame\n\
         [shop]\npg1-path=/data\npg1-port=5433\n[shop:backup]\nstart-fast=y\n",
    );
    fs::set_permissions(&desk.file, fs::Permissions::from_mode(0o644)).unwrap();
    let mut all = String::new();
    for line in ["config", "config backup --max-rate=50MiB", "--output=json config archive-push"] {
        let arguments: Vec<&str> = line.split_whitespace().collect();
        let mut command = desk.command(&arguments);
        command.env("WALDEN_COMPRESS_LEVEL", "3");
        let told = desk.told(command);
        assert!(!told.contains("sesame"), "{told}");
        // How wide the columns are depends on the path of the file.
        let columns: Vec<String> = told
            .lines()
            .map(|l| {
                if l.starts_with(' ') {
                    l.to_owned()
                } else {
                    l.split_whitespace().collect::<Vec<_>>().join(" ")
                }
            })
            .collect();
        all.push_str(&format!("$ walden {line}\n{}\n\n", columns.join("\n")));
    }
    golden("cli-config", &all, &[Replace::text(env!("CARGO_PKG_VERSION"), "VERSION")]);
}

#[test]
fn options_stand_before_or_after_the_command() {
    let desk = Desk::new("[global]\nrepo1-path=/r\n");
    for line in [
        "--compress-level=5 config",
        "config --compress-level=5",
        "--compress-level 5 config",
        "--start-fast config --compress-level 5",
    ] {
        let arguments: Vec<&str> = line.split_whitespace().collect();
        let out = desk.run(&arguments);
        assert!(out.success() && out.stdout.contains("compress-level=5 "), "{line}:\n{out}");
    }
}

#[test]
fn whatever_looks_like_a_get_ends_in_0_1_or_200() {
    let name = "000000010000000000000001";
    for (configuration, line) in [
        ("", format!("archive-get {name} pg_wal/RECOVERYXLOG")),
        ("", "archive-get".to_owned()),
        ("", format!("archive-get {name} a b c")),
        ("", format!("archive-get --bogus=1 {name} a")),
        ("", format!("archive-get --repo1-cipher-pass=x {name} a")),
        ("", format!("archive-get --stanza=../x {name} a")),
        ("", format!("archive-get --help {name} a")),
        ("", format!("archive-get --version {name} a")),
        ("", format!("archiv-get {name} a")),
        ("", format!("archive-gte {name} a")),
        ("", format!("{name} a")),
        ("", format!("--stanza shop {name} a")),
        ("", "get %f %p".to_owned()),
        ("", "archive-get 00000002.history pg_wal/RECOVERYHISTORY".to_owned()),
        ("[global]\nrepo1-path=relative\n[x]\npg1-port=1\n", format!("archive-get {name} a")),
        ("\u{0}\n[", format!("archive-get {name} a")),
    ] {
        let desk = Desk::new(configuration);
        let arguments: Vec<&str> = line.split_whitespace().collect();
        let out = desk.run(&arguments);
        assert_eq!(out.code, Some(200), "{line}:\n{out}");
        assert_eq!(out.stderr.lines().count(), 1, "one line for the log: {out}");
        assert_eq!(out.stdout, "", "{line}");
    }
    let missing = Desk::new("");
    fs::remove_file(&missing.file).unwrap();
    assert_eq!(missing.run(&["archive-get", name, "a"]).code, Some(200));
}

#[test]
fn a_push_never_exits_above_125() {
    let name = "pg_wal/000000010000000000000001";
    for line in [
        format!("archive-push {name} more"),
        format!("archive-psh {name}"),
        "archive-push".into(),
        "archive-push --bogus x".into(),
    ] {
        let desk = Desk::new("");
        let arguments: Vec<&str> = line.split_whitespace().collect();
        let out = desk.run(&arguments);
        assert!(matches!(out.code, Some(1..=125)), "{line}:\n{out}");
    }
}

#[test]
fn help_and_completions_are_made_of_the_table() {
    let desk = Desk::new("junk that no command that teaches may stumble over");
    for line in [
        "help",
        "--help",
        "help config",
        "config --help",
        "config -h",
        "help config compress-level",
        "help exit-codes",
        "help configuration",
        "version",
        "--version",
        "man",
        "man config",
    ] {
        let arguments: Vec<&str> = line.split_whitespace().collect();
        let out = desk.run(&arguments);
        assert!(out.success() && !out.stdout.is_empty() && out.stderr.is_empty(), "{line}:\n{out}");
    }
    for (shell, words) in [("bash", "--repo1-path"), ("zsh", "--repo1-path"), ("fish", "repo1-path")] {
        let out = desk.run(&["completion", shell]);
        assert!(
            out.success() && out.stdout.contains(words) && !out.stdout.contains("cipher-pass "),
            "{shell}"
        );
        assert!(!out.stdout.contains("repo1-cipher-pass="), "a secret is no argument");
    }
    golden("cli-help-option", desk.run(&["help", "config", "repo1-cipher-type"]).stdout.as_str(), &[]);
}

#[test]
fn nobody_reading_is_no_failure() {
    let desk = Desk::new("");
    let mut command = desk.scratch.command("sh");
    command.args(["-c", "{ \"$0\" help configuration; echo $? >&2; } | true", env!("CARGO_BIN_EXE_walden")]);
    let out = finish(command);
    assert_eq!(out.stderr, "0\n", "{out}");
}

/// How a call ends that is sent SIGTERM while it reads its configuration.
fn interrupted_early(line: &str) -> Output {
    let desk = Desk::new("");
    let pipe = desk.scratch.join("pipe");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::from_raw_mode(0o644), 0).unwrap();
    let mut command = desk.scratch.command(env!("CARGO_BIN_EXE_walden"));
    command.arg(format!("--config={}", pipe.display())).args(line.split(' '));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    // Can be opened once somebody reads it; who reads it waits for what is written.
    let mut writing = None;
    wait_until("walden to read its configuration", || {
        writing = open(&pipe, OFlags::WRONLY | OFlags::NONBLOCK, Mode::empty()).ok();
        writing.is_some()
    });
    kill_now(child.id(), Signal::TERM);
    let mut writing = fs::File::from(writing.unwrap());
    // Gone already, if the signal killed it.
    let _ = writing.write_all(b"[global]\nlog-level-file=off\nrepo1-path=/nowhere\n");
    drop(writing);
    collect(child, line.to_owned())
}

#[test]
fn a_signal_that_comes_before_anything_was_begun_is_answered_like_a_later_one() {
    let segment = "pg_wal/000000010000000000000001";
    let push = interrupted_early(&format!("--stanza=x archive-push {segment}"));
    assert_eq!((push.code, push.signal), (Some(71), None), "{push}");
    assert_eq!(push.stderr, "walden archive-push: archive-push was interrupted before it began\n");
    // PostgreSQL reads this one's death as its own shutdown.
    let get = interrupted_early("--stanza=x archive-get 000000010000000000000001 RECOVERYXLOG");
    assert_eq!((get.code, get.signal), (None, Some(15)), "{get}");
    let backup = interrupted_early("--stanza=x backup");
    assert_eq!((backup.code, backup.signal), (None, Some(15)), "{backup}");
    assert_eq!(backup.stderr, "warning: backup was interrupted before it began\n");
}
