//! What a restore says: its plan before and its advice after, alike on a terminal and in a file; and that the advice
//! is true.

use crate::common::{Cluster, Replace, Scratch, Walden, finish, golden, newest_major, wait_until};
use std::path::Path;

struct Told {
    scratch: Scratch,
    cluster: Cluster,
    walden: Walden,
}

impl Told {
    fn begin() -> Self {
        let scratch = Scratch::new();
        let walden = Walden::new(&scratch);
        let major = newest_major();
        let cluster = Cluster::build(&scratch, major).archive_command(&walden.archive_command()).start();
        walden.configure(&cluster, &[]);
        walden.ok(&["stanza-create"]);
        Self { scratch, cluster, walden }
    }

    fn path(&self, name: &str) -> String {
        format!("--pg1-path={}", self.scratch.join(name).display())
    }

    /// A plan's lines broken where the width of paths and numbers wants it are one line again.
    fn golden(&self, name: &str, text: &str) {
        let joined = text.replace(&format!("\n{}", " ".repeat(10)), " ");
        let joined: String = joined.lines().map(|line| words(line) + "\n").collect();
        let mut all = vec![
            Replace::text(self.scratch.path().display(), "SCRATCH"),
            Replace::Shape("0+.0 GB", "SIZE"),
            Replace::Shape("0+.0 MB", "SIZE"),
            Replace::Shape("0+ ms", "TIME"),
            Replace::Shape("0+ s", "TIME"),
            Replace::text(format!("PGSQL.{}", self.cluster.port()), "PGSQL.PORT"),
        ];
        all.extend(Replace::backup_ids());
        all.extend(Replace::times());
        all.extend(Replace::segments());
        all.extend(Replace::lsns());
        golden(name, &joined, &all);
    }
}

/// The label stays apart, the rest has single blanks.
fn words(line: &str) -> String {
    match line.split_once("  ") {
        Some((label, rest)) => format!("{label}  {}", rest.split_whitespace().collect::<Vec<_>>().join(" ")),
        None => line.to_owned(),
    }
}

/// Each line ends once, and none is empty.
fn require_no_blank_lines(text: &str) {
    assert!(text.lines().all(|line| !line.trim().is_empty()), "an empty line:\n{text:?}");
}

#[test]
fn plan_and_advice_read_the_same_on_a_terminal_and_in_a_file() {
    let told = Told::begin();
    told.walden.ok(&["backup", "--start-fast"]);
    told.cluster.sql("create table t as select 1 as n");
    let at = told.cluster.sql("select clock_timestamp()");
    told.cluster.sql("insert into t values (2)");
    told.cluster.archive_now();
    let target = format!("--target={at}");

    let dry = told.walden.ok(&["restore", &told.path("back"), "--type=time", &target, "--dry-run"]);
    require_no_blank_lines(&dry.stdout);
    assert_eq!(dry.stderr, "");
    told.golden("restore/plan", &dry.stdout);

    let act = told.walden.ok(&["restore", &told.path("back"), "--type=time", &target]);
    assert_eq!(act.stdout, "");
    require_no_blank_lines(&act.stderr);
    told.golden("restore/act", &act.stderr);

    // `script` gives it a terminal of its own. The bar comes and goes; the words must be the same lines.
    let line = format!(
        "WALDEN_CONFIG={} {} restore --pg1-path={} --type=time '{target}'",
        told.walden.config_path().display(),
        told.walden.binary().display(),
        told.scratch.join("term").display(),
    );
    let mut script = told.scratch.command("script");
    script.env("TERM", "xterm").args(["-qec", &line, "/dev/null"]);
    let shown = finish(script);
    assert!(shown.success(), "{shown}");
    let plain = without_escapes(&shown.stdout);
    // The first line says how long ago the target was.
    for line in act.stderr.lines().skip(1).take_while(|line| !line.starts_with("into")) {
        assert!(plain.contains(&format!("{line}\n")), "{line:?} is not in\n{plain:?}");
    }
    let plan_end = plain.find("restored backup").expect("the result");
    let plan: String = plain[..plan_end].lines().collect::<Vec<_>>().join("\n");
    assert!(!plan.contains("\n\n"), "the plan has empty lines:\n{plan:?}");
}

/// What a terminal shows, roughly: escape sequences gone, what a carriage return begins anew overwritten.
fn without_escapes(text: &str) -> String {
    let mut plain = String::new();
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match c {
            '\u{1b}' => {
                let _ = characters.by_ref().skip(1).find(char::is_ascii_alphabetic);
            }
            '\r' => {}
            other => plain.push(other),
        }
    }
    plain
}

#[test]
fn a_query_hangs_at_a_pause_inside_a_truncate_and_the_advice_ends_it() {
    let told = Told::begin();
    told.cluster.sql("create table t as select generate_series(1, 100) as n");
    told.walden.ok(&["backup", "--start-fast"]);
    let lsn = told.cluster.sql(
        "begin; truncate t; select 'at ' || pg_current_wal_insert_lsn(); insert into t values (1); commit",
    );
    let lsn = lsn.lines().find_map(|line| line.strip_prefix("at ")).expect("a place").to_owned();
    told.cluster.archive_now();
    let act = told.walden.ok(&["restore", &told.path("back"), "--type=lsn", &format!("--target={lsn}")]);
    assert!(act.stderr.contains("it hangs?"), "{act}");
    let server = told.cluster.start_restored(&told.scratch.join("back"), &[]).expect("it starts");
    wait_until("the pause", || server.sql("select pg_get_wal_replay_pause_state()") == "paused");
    let refused = server.try_sql("set lock_timeout = '200ms'; select count(*) from t");
    assert!(
        refused.is_err_and(|why| why.contains("lock timeout")),
        "the hazard is gone: the advice can go, too"
    );
    server.sql("select pg_wal_replay_resume()");
    wait_until("the promotion", || server.sql("select pg_is_in_recovery()") == "f");
    assert_eq!(server.sql("select count(*) from t"), "100");
}

#[test]
fn configuration_outside_the_data_directory_is_asked_for_before_the_start() {
    let told = Told::begin();
    let outside = told.scratch.dir("etc");
    let data = told.cluster.data().to_owned();
    let name = "pg_ident.conf";
    std::fs::rename(data.join(name), outside.join(name)).unwrap();
    let mut cluster = told.cluster;
    cluster.sql(&format!("alter system set ident_file = '{}'", outside.join(name).display()));
    cluster.stop(crate::common::StopMode::Fast);
    cluster.start();
    let told = Told { cluster, ..told };
    told.walden.ok(&["backup", "--start-fast"]);
    told.cluster.archive_now();
    let act = told.walden.ok(&["restore", &told.path("back")]);
    assert!(act.stderr.contains("first         put pg_ident.conf into "), "{act}");
    assert!(Path::new(&told.scratch.join("back/PG_VERSION")).exists());
}

#[test]
fn a_server_that_answers_and_lets_nobody_look_counts_as_alive() {
    let told = Told::begin();
    told.walden.ok(&["backup", "--start-fast"]);
    told.cluster.archive_now();
    let plan = told.walden.ok(&["restore", &told.path("back"), "--dry-run", "--pg1-user=nobody"]);
    assert!(plan.stdout.contains("archive_mode = off"), "two servers would archive to one stanza:\n{plan}");
    // No server there at all.
    let nowhere = format!("--pg1-socket-path={}", told.scratch.path().display());
    let plan = told.walden.ok(&["restore", &told.path("back"), "--dry-run", &nowhere]);
    assert!(!plan.stdout.contains("archive_mode"), "{plan}");
}
