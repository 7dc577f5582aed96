//! Repositories in object stores: what a person reads when a store cannot be used, and the whole way once.

use crate::common::{
    Azurite, BucketKind, Cluster, Identity, Output, Replace, RepositoryOptions, S3Proxy, S3Server, Scratch,
    Walden, golden,
};

/// The same options with some replaced; an empty value takes one away.
fn with(options: &RepositoryOptions, changes: &[(&str, &str)]) -> RepositoryOptions {
    let mut changed = options.clone();
    for (name, value) in changes {
        changed.retain(|(there, _)| there != name);
        if !value.is_empty() {
            changed.push(((*name).to_owned(), (*value).to_owned()));
        }
    }
    changed
}

#[test]
fn a_store_that_cannot_be_used_is_refused_with_the_reason_and_the_next_step() {
    let scratch = Scratch::new();
    let cluster = Cluster::build(&scratch, 18).segment_size_mb(1).start();
    let server = S3Server::shared();
    let proxy = S3Proxy::before(server, &scratch);
    let bucket = server.bucket(BucketKind::Plain);
    let good = proxy.options(&bucket, Identity::Admin);
    let mut seen = String::new();
    let mut refused = |what: &str, options: &RepositoryOptions, code: i32| {
        let mut walden = Walden::new(&scratch);
        walden.configure_repositories(
            &cluster,
            std::slice::from_ref(options),
            &["repo1-storage-retry=0", "io-timeout=2s"],
        );
        let out: Output = walden.fails(code, &["stanza-create"]);
        assert_eq!(out.stdout, "");
        seen +=
            &format!("--- {what}\n{}", out.stderr.replace(&walden.join("").display().to_string(), "PLACE/"));
        assert!(server.keys(&bucket).is_empty(), "{what}: something was left behind");
    };
    refused("no such bucket", &with(&good, &[("s3-bucket", "not-there")]), 30);
    refused("wrong secret", &with(&good, &[("s3-key-secret", "wJalrXUtnFEMI/K7MDENG")]), 30);
    refused("unknown key", &with(&good, &[("s3-key", "AKIAIOSFODNN7EXAMPLE")]), 30);
    refused("may only read", &proxy.options(&bucket, Identity::ReadOnly), 30);
    refused("certificate", &with(&good, &[("storage-ca-file", "")]), 30);
    refused(
        "no key",
        &with(&good, &[("s3-key", ""), ("s3-key-secret", ""), ("s3-profile-file", "/nowhere")]),
        30,
    );
    refused("nobody there", &with(&good, &[("s3-endpoint", "https://127.0.0.1:1")]), 30);
    refused("no such name", &with(&good, &[("s3-endpoint", "store.invalid"), ("s3-uri-style", "path")]), 30);
    for (what, status, code, more) in [
        ("another region", 400, "AuthorizationHeaderMalformed", "<Region>eu-north-1</Region>"),
        ("moved", 301, "PermanentRedirect", ""),
        ("clock", 403, "RequestTimeTooSkewed", "<ServerTime>2026-11-21T02:10:05Z</ServerTime>"),
        ("expired", 400, "ExpiredToken", ""),
        ("overloaded", 503, "SlowDown", ""),
        ("full", 507, "InsufficientStorage", ""),
    ] {
        proxy.rules(&format!(
            r#"[{{"do": "status", "status": {status}, "code": "{code}", "message": "As the store says.</Message>{more}<Message>"}}]"#
        ));
        refused(what, &good, 30);
    }
    proxy.rules(r#"[{"do": "stall", "seconds": 20, "where": "reply"}]"#);
    refused("silent", &good, 30);
    let replaced: Vec<Replace> = vec![
        Replace::text(&bucket, "BUCKET"),
        // As the machine's resolver says it.
        Replace::text("Temporary failure in name resolution", "Name or service not known"),
        Replace::Shape("walden-probe-aaaaaaaaaaaaaaaa", "PROBE"),
        Replace::Shape("127.0.0.1:0+", "HOST"),
    ];
    golden("stores_that_cannot_be_used", &seen, &replaced);

    // A recovery must not take any of this for the end of WAL, and an archiver must be asked again.
    let wal = "00000001000000000000000A";
    for (what, options, rules) in [
        ("no bucket", with(&good, &[("s3-bucket", "not-there")]), "[]"),
        ("wrong secret", with(&good, &[("s3-key-secret", "wJalrXUtnFEMI/K7MDENG")]), "[]"),
        (
            "403 for what is absent",
            good.clone(),
            r#"[{"do": "status", "status": 403, "code": "AccessDenied"}]"#,
        ),
        ("404 of something else", good.clone(), r#"[{"do": "status", "status": 404, "code": "Whatever"}]"#),
        ("overloaded", good.clone(), r#"[{"do": "status"}]"#),
        ("cut", good.clone(), r#"[{"do": "cut", "after": 10}]"#),
        ("stalled", good.clone(), r#"[{"do": "stall", "seconds": 20, "where": "body", "after": 10}]"#),
    ] {
        proxy.rules(rules);
        let mut walden = Walden::new(&scratch);
        walden.configure_repositories(&cluster, &[options], &["repo1-storage-retry=0", "io-timeout=1s"]);
        let target = walden.join("RECOVERYXLOG").display().to_string();
        let out = walden.fails(200, &["archive-get", "--system-id=7000000000000000001", wal, &target]);
        assert!(!walden.join("RECOVERYXLOG").exists(), "{what}: {out}");
        let file =
            cluster.data().join("pg_wal").join(cluster.sql("select pg_walfile_name(pg_current_wal_lsn())"));
        let out = walden.run(&["archive-push", &file.display().to_string()]);
        assert!(matches!(out.code, Some(code) if code != 0 && code < 126), "{what}: {out}");
    }

    // The condition of a create is ignored: overwriting would go unnoticed.
    proxy.rules(r#"[{"do": "strip"}]"#);
    let mut walden = Walden::new(&scratch);
    walden.configure_repositories(&cluster, &[good], &[]);
    let out = walden.fails(30, &["stanza-create"]);
    let counted = Replace::Shape("(0+ of 0+ concurrent", "(SOME of MANY concurrent");
    golden("store_without_atomic_create", &out.stderr, &[Replace::text(&bucket, "BUCKET"), counted]);
    assert!(server.keys(&bucket).is_empty());
}

#[test]
fn a_cluster_goes_into_a_bucket_and_comes_back_by_the_whole_way() {
    for (options, store) in [
        {
            let server = S3Server::shared();
            let bucket = server.bucket(BucketKind::Plain);
            (server.options(&bucket, Identity::NoDelete), format!("s3://{bucket}/walden (us-east-1)"))
        },
        {
            let options = Azurite::shared().options("/walden/shop");
            let of = |name: &str| options.iter().find(|(there, _)| there == name).unwrap().1.clone();
            let place = format!("azure://{}/{}/walden/shop", of("azure-account"), of("azure-container"));
            (options, place)
        },
    ] {
        let scratch = Scratch::new();
        let mut walden = Walden::new(&scratch);
        let cluster = Cluster::build(&scratch, 17)
            .segment_size_mb(1)
            .archive_command(&walden.archive_command())
            .start();
        walden.configure_repositories(&cluster, &[options], &[]);
        let made = walden.ok(&["stanza-create"]);
        assert!(made.stderr.contains(&format!("made an encrypted repository in {store}")), "{made}");
        cluster.sql("create table t as select generate_series(1, 20000) as n");
        walden.ok(&["backup", "--start-fast"]);
        cluster.sql("insert into t values (0)");
        cluster.archive_now();
        let before = cluster.dump();
        let info = walden.ok(&["info"]);
        assert!(info.stdout.contains(&store), "{info}");
        let listed = walden.ok(&["repo-ls", "--recurse"]);
        assert!(listed.stdout.contains("walden.json"), "{listed}");
        let file = walden.ok(&["repo-get", "walden.json"]);
        assert!(file.stdout.contains("if-none-match"), "{file}");

        let target = scratch.join(format!("back-{}", scratch.number()));
        walden.ok(&["restore", &format!("--pg1-path={}", target.display()), "--archive-mode=off"]);
        let mut restored = cluster.start_restored(&target, &[]).unwrap_or_else(|log| panic!("{log}"));
        restored.wait_recovery_end();
        assert_eq!(restored.dump(), before, "the restored cluster has other contents");
    }
}

#[test]
fn a_store_that_does_not_list_from_a_point_is_used_with_a_warning() {
    let scratch = Scratch::new();
    let mut walden = Walden::new(&scratch);
    let cluster =
        Cluster::build(&scratch, 18).segment_size_mb(1).archive_command(&walden.archive_command()).start();
    let server = S3Server::shared();
    let proxy = S3Proxy::before(server, &scratch);
    let bucket = server.bucket(BucketKind::Plain);
    walden.configure_repositories(&cluster, &[proxy.options(&bucket, Identity::Admin)], &[]);
    proxy.rules(r#"[{"do": "strip", "parameters": ["start-after"]}]"#);
    let made = walden.ok(&["stanza-create"]);
    let check = walden.fails(50, &["check"]);
    let about = |line: &&str| line.contains("a point");
    let mut seen: String = made.stderr.lines().filter(about).map(|line| format!("{line}\n")).collect();
    let lines: Vec<&str> = check.stdout.lines().collect();
    let at = lines.iter().position(about).unwrap_or_else(|| panic!("{check}"));
    seen += &lines[at..at + 3].join("\n");
    golden("store_without_points", &seen, &[]);
    walden.ok(&["backup", "--start-fast"]);
    walden.ok(&["info"]);
    // One that does says nothing of it.
    proxy.rules("[]");
    let check = walden.run(&["check"]);
    assert!(!check.stdout.contains("a point"), "{check}");
}
