//! `key-generate` and `stanza-create`: what a repository begins with, and what is refused before it does.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use crate::common::{Cluster, Output, Replace, Scratch, StopMode, Walden, all_majors, golden};

fn json(out: &Output) -> Value {
    serde_json::from_str(&out.stdout).unwrap_or_else(|e| panic!("{e}\n{out}"))
}

/// The ordinary configuration, with lines that begin like one of `replaced` replaced by it.
fn lines(walden: &Walden, cluster: &Cluster, replaced: &[&str], global: &[&str]) {
    let name = |line: &str| line.split('=').next().unwrap().to_owned();
    let mut lines: Vec<String> = walden
        .usual_lines(cluster)
        .into_iter()
        .filter(|line| !replaced.iter().any(|new| line.contains('=') && name(new) == name(line)))
        .collect();
    lines.extend(replaced.iter().filter(|line| !line.ends_with('=')).map(|line| (*line).to_owned()));
    lines.splice(1..1, global.iter().map(|line| (*line).to_owned()));
    walden.config(&lines.iter().map(String::as_str).collect::<Vec<_>>());
}

fn places(walden: &Walden, cluster: &Cluster) -> Vec<Replace> {
    let system = cluster.sql("select system_identifier from pg_control_system()");
    vec![
        Replace::text(walden.binary().display(), "/usr/bin/walden"),
        Replace::text(walden.repo_path().display(), "REPO"),
        Replace::text(cluster.data().display(), "PGDATA"),
        Replace::text(cluster.socket_dir().display(), "SOCKETS"),
        Replace::text(format!("PGSQL.{}", cluster.port()), "PGSQL.PORT"),
        Replace::text(system, "SYSTEM"),
        Replace::text(walden.join("").display(), "PLACE/"),
    ]
}

fn is_empty(walden: &Walden, name: &str) -> bool {
    fs::read_dir(walden.join(name)).map_or(true, |mut entries| entries.next().is_none())
}

#[test]
fn a_role_with_only_replication_makes_an_encrypted_stanza_and_a_second_time_nothing() {
    for major in all_majors() {
        let scratch = Scratch::new();
        let cluster = Cluster::build(&scratch, major).segment_size_mb(1).start();
        cluster.sql("create role den login replication");
        let walden = Walden::new(&scratch);
        let key = scratch.write(walden.key_path(), walden.ok(&["key-generate"]).stdout);
        let cipher =
            ["repo1-cipher-type=aes-256-gcm".to_owned(), format!("repo1-cipher-pass-file={}", key.display())];
        // Not even the path: everything is asked of the server.
        lines(&walden, &cluster, &["pg1-user=den", "pg1-path="], &[&cipher[0], &cipher[1]]);

        let first = walden.ok(&["stanza-create"]);
        assert_eq!(first.stdout, "");
        let second = walden.ok(&["stanza-create"]);
        if major == 18 {
            let replace = places(&walden, &cluster);
            golden("stanza-create/first", &first.stderr, &replace);
            golden("stanza-create/again", &second.stderr, &replace);
        }
        let told = json(&walden.ok(&["--output=json", "stanza-create"]));
        assert_eq!(
            told["cluster"],
            serde_json::json!({
                "system_identifier": cluster.sql("select system_identifier from pg_control_system()"),
                "postgresql_major": major,
                "page_size_bytes": 8192,
                "wal_segment_size_bytes": 1 << 20,
                "blocks_per_file": 131_072,
            })
        );
        assert_eq!(told["learned_from"], "server");
        assert_eq!(told["repositories"][0]["encrypted"], true);
        assert_eq!(told["repositories"][0]["stanza_created"], false);

        let other = walden.ok(&["key-generate"]);
        scratch.write(walden.key_path(), other.stdout);
        let refused = walden.fails(12, &["stanza-create"]);
        assert!(refused.stderr.contains("the key is not the one this repository was made with"), "{refused}");
        fs::remove_file(walden.key_path()).unwrap();
        walden.fails(12, &["stanza-create"]);
    }
}

#[test]
fn a_passphrase_works_and_a_short_one_is_warned_of() {
    let scratch = Scratch::new();
    let cluster = Cluster::build(&scratch, 18).start();
    let walden = Walden::new(&scratch);
    let with = |words: &str| {
        let pass = format!("repo1-cipher-pass={words}");
        lines(&walden, &cluster, &[], &["repo1-cipher-type=aes-256-gcm", &pass]);
    };
    with("sesame");
    let made = walden.ok(&["stanza-create"]);
    assert!(made.stderr.contains("the passphrase is short"), "{made}");
    assert!(!made.stderr.contains("sesame"), "{made}");
    let again = walden.ok(&["stanza-create"]);
    assert!(!again.stderr.contains("short"), "{again}");
    with("correct horse battery staple");
    walden.fails(12, &["stanza-create"]);
    // An encrypted repository is not opened by settings that say it is not.
    lines(&walden, &cluster, &[], &[]);
    walden.fails(12, &["stanza-create"]);
}

#[test]
fn a_repository_that_comes_later_is_made_and_one_that_cannot_be_does_not_keep_the_other_from_it() {
    let scratch = Scratch::new();
    let cluster = Cluster::build(&scratch, 18).start();
    let walden = Walden::new(&scratch);
    lines(&walden, &cluster, &[], &[]);
    walden.ok(&["stanza-create"]);
    let second = format!("repo2-path={}", walden.join("far/away").display());
    lines(&walden, &cluster, &[], &[&second]);
    let told = json(&walden.ok(&["--output=json", "stanza-create"]));
    assert_eq!(told["repositories"][0]["repository_created"], false);
    assert_eq!(told["repositories"][1]["repository_created"], true);
    assert_eq!(told["repositories"][1]["stanza_created"], true);

    let closed = scratch.dir(walden.join("closed"));
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o500)).unwrap();
    let third = format!("repo1-path={}", closed.join("repo").display());
    let fourth = format!("repo2-path={}", walden.join("fresh").display());
    lines(&walden, &cluster, &[&third], &[&fourth]);
    let told = walden.fails(31, &["--output=json", "stanza-create"]);
    assert_eq!(json(&told)["repositories"][0]["status"], "failed");
    assert_eq!(json(&told)["repositories"][1]["stanza_created"], true);
    golden("stanza-create/no-rights", &told.stderr, &places(&walden, &cluster));
    assert!(fs::exists(walden.join("fresh/walden.json")).unwrap());
    // Nothing is left of trying the storage out.
    let top = fs::read_dir(walden.join("fresh")).unwrap();
    let mut names: Vec<String> = top.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| !name.starts_with('.'));
    names.sort();
    assert_eq!(names, ["shop", "walden.json"]);
}

#[test]
fn a_stanza_of_another_cluster_is_refused_and_no_repository_is_touched() {
    let scratch = Scratch::new();
    let first = Cluster::build(&scratch, 18).start();
    let walden = Walden::new(&scratch);
    lines(&walden, &first, &[], &[]);
    walden.ok(&["stanza-create"]);

    let second = Cluster::build(&scratch, 17).name("other").start();
    let fresh = format!("repo2-path={}", walden.join("fresh").display());
    lines(&walden, &second, &[], &[&fresh]);
    let refused = walden.fails(21, &["stanza-create"]);
    let held = first.sql("select system_identifier from pg_control_system()");
    let mut replace = places(&walden, &second);
    replace.push(Replace::text(held, "HELD"));
    golden("stanza-create/other-cluster", &refused.stderr, &replace);
    assert!(!fs::exists(walden.join("fresh")).unwrap());
    let address = [
        format!("--pg1-socket-path={}", second.socket_dir().display()),
        format!("--pg1-port={}", second.port()),
    ];
    walden.ok(&["--stanza=other", &address[0], &address[1], "--pg1-user=postgres", "stanza-create"]);

    // The path of one and the socket of another.
    let mixed = format!("pg1-path={}", first.data().display());
    lines(&walden, &second, &[&mixed], &[]);
    let refused = walden.fails(21, &["stanza-create"]);
    assert!(refused.stderr.contains("is the data directory of another cluster"), "{refused}");
}

#[test]
fn a_server_that_does_not_answer_or_refuses_changes_nothing() {
    let scratch = Scratch::new();
    let mut cluster =
        Cluster::build(&scratch, 18).hba(&["local all den reject", "local replication den reject"]).start();
    cluster.sql("create role den login replication; create role weak login");
    let walden = Walden::new(&scratch);
    let replace = places(&walden, &cluster);

    lines(&walden, &cluster, &["pg1-user=den"], &[]);
    let refused = walden.fails(22, &["stanza-create"]);
    assert!(refused.stderr.contains("pg_hba.conf"), "{refused}");
    lines(&walden, &cluster, &["pg1-user=weak"], &[]);
    let refused = walden.fails(22, &["stanza-create"]);
    assert!(refused.stderr.contains("alter role \"weak\" replication"), "{refused}");
    let data = format!("repo1-path={}", cluster.data().display());
    lines(&walden, &cluster, &[&data], &[]);
    let refused = walden.fails(10, &["stanza-create"]);
    assert!(refused.stderr.contains("it looks like a PostgreSQL data directory"), "{refused}");
    lines(&walden, &cluster, &["repo1-cipher-type=aes-256-gcm"], &[]);
    walden.fails(12, &["stanza-create"]);
    assert!(is_empty(&walden, "repo"));

    cluster.stop(StopMode::Fast);
    lines(&walden, &cluster, &["pg1-path="], &[]);
    let refused = walden.fails(20, &["stanza-create"]);
    golden("stanza-create/no-server", &refused.stderr, &replace);
    assert!(is_empty(&walden, "repo"));
    // With the path of the data directory no server is needed.
    lines(&walden, &cluster, &[], &[]);
    let told = json(&walden.ok(&["--output=json", "stanza-create"]));
    assert_eq!(told["learned_from"], "data_directory");
    assert_eq!(told["repositories"][0]["stanza_created"], true);
    cluster.start();
    let told = json(&walden.ok(&["--output=json", "stanza-create"]));
    assert_eq!(
        (&told["learned_from"], &told["repositories"][0]["stanza_created"]),
        (&Value::from("server"), &Value::from(false))
    );
}
