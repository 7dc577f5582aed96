//! `walden check`: what it finds on real servers, in which words, and how it ends.

use crate::common::{
    BucketKind, Cluster, ClusterBuilder, Identity, Output, Replace, S3Server, Scratch, StopMode, Walden,
    golden, newest_major, test_all, wait_until,
};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

/// A server as it should be: it archives to an encrypted repository.
fn good(scratch: &Scratch, more: impl FnOnce(ClusterBuilder) -> ClusterBuilder) -> (Cluster, Walden) {
    let walden = Walden::new(scratch);
    let builder = Cluster::build(scratch, newest_major())
        .segment_size_mb(1)
        .archive_command(&walden.archive_command())
        .conf(&["archive_timeout = '1min'", "fsync = on"]);
    let cluster = more(builder).start();
    walden.configure(&cluster, &["repo1-keep-window=14d"]);
    walden.ok(&["stanza-create"]);
    (cluster, walden)
}

fn places(walden: &Walden, cluster: &Cluster) -> Vec<Replace> {
    let mut all = vec![
        Replace::text(walden.binary().display(), "/usr/bin/walden"),
        Replace::text(walden.config_path().display(), "CONFIGURATION"),
        Replace::text(walden.repo_path().display(), "REPO"),
        Replace::text(cluster.data().display(), "PGDATA"),
        Replace::text(cluster.socket_dir().display(), "SOCKETS"),
        Replace::text(format!("PGSQL.{}", cluster.port()), "PGSQL.PORT"),
        Replace::text(cluster.sql("select system_identifier from pg_control_system()"), "SYSTEM"),
        Replace::text(walden.join("").display(), "PLACE/"),
        Replace::Shape("PostgreSQL 00.0+", "PostgreSQL VERSION"),
        Replace::Shape("0+.0 s", "TIME"),
        Replace::Shape("0+ s ago", "AGO"),
        Replace::Shape("within 0+ s", "within SECONDS"),
        Replace::Shape("Argon2, 0+ ms", "Argon2, MILLISECONDS"),
        Replace::Shape("cache-0+", "cache-USER"),
        Replace::Shape("00000000T000000Z-F-aaaaaa", "FULL_BACKUP"),
    ];
    all.extend(Replace::segments());
    all.extend(Replace::backup_ids());
    all
}

fn json(out: &Output) -> Value {
    serde_json::from_str(&out.stdout).unwrap_or_else(|e| panic!("{e}\n{out}"))
}

#[test]
fn a_set_up_as_it_should_be_ends_with_0_and_a_fresh_segment() {
    let scratch = Scratch::new();
    let (cluster, walden) = good(&scratch, |builder| builder);
    let before = walden.fails(50, &["check"]);
    assert!(before.stdout.contains("repo1 holds no backup of stanza shop"), "{before}");
    walden.ok(&["backup", "--start-fast"]);
    let all_is_well = walden.ok(&["check"]);
    golden("check/all-is-well", &all_is_well.stdout, &places(&walden, &cluster));
    assert_eq!(all_is_well.stderr, "");

    let told = walden.ok(&["--output=json", "--no-archive-check", "check"]);
    golden("check/all-is-well-json", &told.stdout, &places(&walden, &cluster));
    assert_eq!(json(&told)["status"], "ok");
    // Nothing is left of trying the storage out.
    let mut top: Vec<String> = fs::read_dir(walden.repo_path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with('.'))
        .collect();
    top.sort();
    assert_eq!(top, ["keys", "shop", "walden.json"]);
}

#[test]
fn whatever_keeps_wal_from_arriving_is_named() {
    let scratch = Scratch::new();
    let (mut cluster, walden) = good(&scratch, |builder| builder);
    let check = |code, arguments: &[&str]| {
        let out = walden.fails(code, &[&["--archive-timeout=5s", "check"], arguments].concat());
        assert!(out.stderr.starts_with("error: check found "), "{out}");
        out.stdout
    };
    let elsewhere = scratch.dir("elsewhere");
    cluster.configure(&[&format!("archive_command = 'cp %p {}/%f'", elsewhere.display())]);
    let said = check(42, &[]);
    golden("check/another-program", &said, &places(&walden, &cluster));

    cluster.configure(&["archive_command = '/bin/false'"]);
    let said = check(42, &[]);
    assert!(said.contains("archive_command runs /bin/false, not walden"), "{said}");
    assert!(said.contains("because: archive_command failed on "), "{said}");

    let blog = walden.archive_command().replace("--stanza=shop", "--stanza=blog");
    cluster.configure(&[&format!("archive_command = '{blog}'")]);
    let said = check(22, &["--no-archive-check"]);
    assert!(said.contains("archive_command archives to stanza blog, and this is stanza shop"), "{said}");

    cluster.configure(&["archive_command = ''"]);
    let said = check(22, &[]);
    assert!(said.contains("archive_command is empty"), "{said}");

    cluster.configure(&["archive_mode = off", "archive_timeout = 0"]);
    cluster.restart(StopMode::Fast);
    golden("check/archiving-off", &check(22, &[]), &places(&walden, &cluster));
}

#[test]
fn a_server_that_does_not_let_one_in_or_is_another_is_an_error_and_the_repositories_are_looked_at() {
    let scratch = Scratch::new();
    let (cluster, walden) =
        good(&scratch, |builder| builder.hba(&["local all out reject", "local replication out reject"]));
    cluster.sql("create role out login replication; create role weak login");
    let opens = format!("ok       repo1: {} opens with its key\n", walden.repo_path().display());
    for (code, argument, said) in [
        (22, "--pg1-user=weak", "alter role \"weak\" replication"),
        (22, "--pg1-user=out", "Add to pg_hba.conf"),
        (20, "--pg1-port=1", "Check that the server runs"),
    ] {
        let out = walden.fails(code, &["check", argument]);
        assert!(out.stdout.starts_with("error    could not connect to pg1\n"), "{out}");
        assert!(out.stdout.contains(said) && out.stdout.contains(&opens), "{out}");
    }

    let other = Cluster::build(&scratch, cluster.major()).name("other").segment_size_mb(1).start();
    let place = format!("--pg1-socket-path={}", other.socket_dir().display());
    let port = format!("--pg1-port={}", other.port());
    let out = walden.fails(21, &["check", &place, &port]);
    assert!(out.stdout.contains("is the data directory of another cluster"), "{out}");
    assert!(out.stdout.contains("stanza shop of repo1 does not hold this server's cluster"), "{out}");
    let other_stanza = ["check", "--stanza=blog", "--pg1-user=postgres", &place, &port];
    let out = walden.fails(22, &other_stanza);
    assert!(out.stdout.contains("Run `walden --stanza=blog stanza-create`."), "{out}");
}

#[test]
fn a_role_with_replication_alone_is_told_what_it_cannot_see_and_that_wal_arrives() {
    let scratch = Scratch::new();
    let (cluster, walden) =
        good(&scratch, |builder| builder.hba(&["local replication narrow trust", "local all narrow reject"]));
    cluster.sql("create role narrow login replication; create role wide login replication");
    cluster.archive_now();
    // With SQL, and without.
    for role in ["wide", "narrow"] {
        let out = walden.fails(50, &["check", &format!("--pg1-user={role}"), "--archive-timeout=20s"]);
        golden(&format!("check/role-{role}"), &out.stdout, &places(&walden, &cluster));
    }
    cluster.sql("grant execute on function pg_switch_wal() to wide");
    let out = walden.fails(50, &["check", "--pg1-user=wide"]);
    assert!(out.stdout.contains("ok       a fresh segment ("), "{out}");
}

#[test]
fn each_repository_is_looked_at_and_what_will_be_regretted_is_a_warning() {
    let scratch = Scratch::new();
    let (cluster, walden) = good(&scratch, |builder| builder.checksums(false));
    let second = walden.join("second");
    let lines = [
        format!("repo2-path={}", second.display()),
        "repo2-cipher-type=aes-256-gcm".to_owned(),
        "repo2-cipher-pass=correct horse battery staple".to_owned(),
        format!("repo3-path={}", walden.join("third").display()),
    ];
    // The key of the first one stays.
    let text = fs::read_to_string(walden.config_path()).unwrap();
    let (head, tail) = text.split_once("\n\n").unwrap();
    let text = format!("{head}\n{}\n\n{tail}", lines.join("\n"));
    walden.config(&[text.trim_end()]);
    walden.ok(&["stanza-create"]);
    fs::set_permissions(walden.config_path(), fs::Permissions::from_mode(0o644)).unwrap();
    let out = walden.fails(50, &["check"]);
    golden("check/warnings", &out.stdout, &places(&walden, &cluster));

    fs::rename(&second, walden.join("away")).unwrap();
    let out = walden.fails(10, &["--output=json", "--archive-timeout=3s", "check"]);
    let told = json(&out);
    let findings = told["findings"].as_array().unwrap();
    let gone = findings.iter().find(|finding| finding["repository"] == 2).expect("repo2 is named");
    assert_eq!((&gone["level"], &gone["exit_code"]), (&Value::from("error"), &Value::from(10)), "{told}");
    assert!(findings.iter().any(|finding| finding["repository"] == 3 && finding["level"] == "ok"), "{told}");
    assert_eq!(told["status"], "errors");
}

#[test]
fn from_a_standby_archiving_is_not_judged_and_said_to_be_the_primarys() {
    let scratch = Scratch::new();
    let (primary, walden) = good(&scratch, |builder| builder);
    let data = primary.pg_basebackup("standby", &["-R", "-X", "stream"]);
    let mut standby = Cluster::on_directory(&scratch, primary.major(), &data);
    standby.start();
    wait_until("the standby to stream", || primary.sql("select count(*) from pg_stat_replication") != "0");
    let place = format!("--pg1-socket-path={}", standby.socket_dir().display());
    let out = walden.fails(50, &["check", &place, &format!("--pg1-port={}", standby.port())]);
    assert!(
        out.stdout.contains("VERSION, standby, system") || out.stdout.contains(", standby, system "),
        "{out}"
    );
    assert!(out.stdout.contains("note     a standby does not archive: "), "{out}");
    assert!(!out.stdout.contains("fresh segment ("), "{out}");
}

#[test]
fn a_bucket_is_tried_out_and_credentials_that_may_delete_are_told_from_those_that_may_not() {
    // 20 races of 32 for a name, twice, take a minute.
    if !test_all() {
        return;
    }
    let scratch = Scratch::new();
    let (cluster, mut walden) = good(&scratch, |builder| builder);
    let server = S3Server::shared();
    let bucket = server.bucket(BucketKind::Plain);
    let keep = ["repo1-keep-window=14d"];
    walden.configure_repositories(&cluster, &[server.options(&bucket, Identity::Admin)], &keep);
    walden.ok(&["stanza-create"]);
    let out = walden.fails(50, &["check"]);
    assert!(out.stdout.contains("may delete objects, for good if versioning is off\n"), "{out}");
    assert!(out.stdout.contains("ok       a fresh segment ("), "{out}");
    assert!(!server.keys(&bucket).iter().any(|key| key.contains("walden-probe-")), "{out}");

    walden.configure_repositories(&cluster, &[server.options(&bucket, Identity::NoDelete)], &keep);
    let out = walden.fails(50, &["check"]);
    assert!(
        out.stdout.contains("may not delete, as daily work need not: 3 small objects of this stay\n"),
        "{out}"
    );
    assert!(out.stdout.contains("and these credentials may not delete: each ends with a warning\n"), "{out}");
    let left = server.keys(&bucket).iter().filter(|key| key.contains("walden-probe-")).count();
    assert_eq!(left, 3, "{out}");
}
