//! The program over TLS: a backup from end to end, and what a person reads when it cannot be.

use super::*;
use crate::common::{Replace, Walden, golden, majors_in_full, newest_major, oldest_major};
use std::os::unix::fs::PermissionsExt;

/// The configuration of `walden` without the server's address, then these lines.
fn configure(walden: &Walden, cluster: &Cluster, lines: &[&str]) {
    let mut all: Vec<String> = walden
        .usual_lines(cluster)
        .into_iter()
        .filter(|line| !["pg1-socket", "pg1-port", "pg1-user"].iter().any(|name| line.starts_with(name)))
        .collect();
    all.insert(2, "repo1-cipher-type=none".to_owned());
    all.extend(lines.iter().map(|line| (*line).to_owned()));
    walden.config(&all.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn a_backup_over_verify_full_with_channel_binding_and_a_service_restores() {
    for major in majors_in_full() {
        let scratch = Scratch::new();
        let certificates = Certificates::new(&scratch);
        let mut walden = Walden::new(&scratch);
        let cluster = Cluster::build(&scratch, major)
            .tcp()
            .hba(&[
                "hostssl postgres,replication walden 127.0.0.1/32 scram-sha-256",
                "host all,replication walden 127.0.0.1/32 reject",
            ])
            .archive_command(&walden.archive_command())
            .conf(&certificates.server_lines("server"))
            .start();
        cluster.sql("create role walden login replication password 'te:st'");
        let services = format!(
            "# all servers\n[shop]\nhost=localhost\nport={}\nuser=walden\nsslmode=verify-full\nsslrootcert={}\n\
             channel_binding=require\n",
            cluster.port(),
            certificates.at("ca.crt")
        );
        let services = scratch.write("pg_service.conf", services);
        let passwords =
            scratch.write("passwords", format!("localhost:{}:*:walden:te\\:st\n", cluster.port()));
        walden.env("PGSERVICEFILE", services.to_str().unwrap());
        walden.env("PGPASSFILE", passwords.to_str().unwrap());
        configure(&walden, &cluster, &["pg1-conninfo=service=shop"]);
        walden.ok(&["stanza-create"]);
        cluster.pgbench_init(1);
        walden.ok(&["backup", "--start-fast"]);
        let target = scratch.join("restored");
        walden.ok(&["restore", "--type=none", &format!("--pg1-path={}", target.display())]);
        let verified = cluster.pg_verifybackup(&target, &["-n"]);
        assert!(verified.success(), "{verified}");

        // From the environment alone, and with what the system trusts.
        let mut walden = walden;
        configure(&walden, &cluster, &["pg1-user=walden", "pg1-host=localhost"]);
        walden.env("PGPORT", &cluster.port().to_string());
        walden.env("PGSSLROOTCERT", "system");
        walden.env("SSL_CERT_FILE", &certificates.at("ca.crt"));
        walden.env("PGCHANNELBINDING", "require");
        walden.ok(&["stanza-create"]);
    }
}

#[test]
fn what_is_in_the_way_of_tls_is_told_with_what_to_do() {
    let scratch = Scratch::new();
    let certificates = Certificates::new(&scratch);
    let walden = Walden::new(&scratch);
    let major = newest_major();
    let cluster = Cluster::build(&scratch, major)
        .tcp()
        .hba(&[
            "hostssl postgres,replication walden 127.0.0.1/32 scram-sha-256",
            "hostssl template1 walden 127.0.0.1/32 cert",
            "hostssl postgres md5 127.0.0.1/32 md5",
            "host all,replication walden,md5 127.0.0.1/32 reject",
        ])
        .conf(&certificates.server_lines("server"))
        .start();
    cluster.sql(
        "create role walden login replication password 'x'; set password_encryption = 'md5';
         create role md5 login replication password 'x'",
    );
    let roots = |name: &str| format!("sslmode=verify-full sslrootcert={}", certificates.at(name));
    let key = |name: &str| {
        format!(
            "{} sslcert={} sslkey={}",
            roots("ca.crt"),
            certificates.at("client.crt"),
            certificates.at(name)
        )
    };
    let exposed = scratch.write("exposed.key", std::fs::read(certificates.path("client.key")).unwrap());
    std::fs::set_permissions(&exposed, std::fs::Permissions::from_mode(0o640)).unwrap();
    let exposed =
        format!("{} sslcert={} sslkey={}", roots("ca.crt"), certificates.at("client.crt"), exposed.display());
    let other = format!(
        "{} sslcert={} sslkey={}",
        roots("ca.crt"),
        certificates.at("client-other.crt"),
        certificates.at("client-other.key")
    );
    let list = |name: &str| format!("{} sslcrl={}", roots("ca.crt"), certificates.at(name));
    let cases: [(&str, &str, String); 21] = [
        ("server", "not trusted", roots("other-ca.crt")),
        ("server", "nothing to verify with", "sslmode=verify-full".to_owned()),
        ("server", "a file that holds no certificate", roots("ca.key")),
        ("server", "pg_hba.conf wants TLS", "sslmode=disable".to_owned()),
        ("server", "the key can be read by others", exposed),
        ("server", "the key has a passphrase", key("client-encrypted.key")),
        ("server", "the key is missing", key("none.key")),
        ("server", "another certificate's key", key("server.key")),
        ("server", "a client certificate of an unknown CA", other),
        ("server", "no client certificate", format!("{} dbname=template1", roots("ca.crt"))),
        (
            "server",
            "binding required, and md5",
            format!("{} user=md5 channel_binding=require", roots("ca.crt")),
        ),
        (
            "server",
            "binding required, and no TLS",
            "sslmode=disable channel_binding=require user=postgres".to_owned(),
        ),
        ("server", "system and require", "sslmode=require sslrootcert=system".to_owned()),
        ("server", "a list that is missing", list("none.crl")),
        ("server", "several servers", "host=a,b".to_owned()),
        ("server", "a service that is not there", "service=shop".to_owned()),
        ("expired", "expired", roots("ca.crt")),
        ("wrong-name", "wrong name", roots("ca.crt")),
        ("revoked", "revoked", list("ca.crl")),
        ("ed25519", "no binding for its certificate", "sslmode=require".to_owned()),
        ("none", "no TLS in the server", "sslmode=require".to_owned()),
    ];
    let mut text = String::new();
    let mut shown = "server";
    for (certificate, title, string) in cases {
        if certificate != shown {
            certificates.show(&cluster, certificate);
            shown = certificate;
        }
        let mut lines = vec![format!("pg1-conninfo={string}")];
        if !string.contains("user=") {
            lines.push("pg1-user=walden".to_owned());
        }
        if !string.contains("host=") {
            lines.extend(["pg1-host=localhost".to_owned(), format!("pg1-port={}", cluster.port())]);
        }
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        configure(&walden, &cluster, &lines);
        let mut command = walden.command(&["stanza-create"]);
        command.env("PGPASSWORD", "x").env("HOME", "/nonexistent");
        command.env("PGSYSCONFDIR", "/nonexistent");
        let out = finish(command);
        text.push_str(&format!(
            "--- {title}: exit code {}\n{}\n",
            out.code.unwrap_or(-1),
            out.stderr.trim_end()
        ));
    }
    golden(
        "tls-words",
        &text,
        &[
            Replace::text(scratch.path().display(), "SCRATCH"),
            Replace::text(format!("localhost:{}", cluster.port()), "localhost:PORT"),
        ],
    );
}

#[test]
fn archiving_reads_no_trusted_certificates() {
    let scratch = Scratch::new();
    let mut walden = Walden::new(&scratch);
    let cluster = Cluster::build(&scratch, oldest_major()).start();
    walden.configure_plain(&cluster, &[]);
    walden.ok(&["stanza-create"]);
    walden.env("PGSSLROOTCERT", "system");
    let segment = cluster.switch_wal();
    let file = cluster.data().join("pg_wal").join(&segment);
    let log = scratch.join("strace.log");
    let mut command = scratch.command("strace");
    command.args(["-f", "-e", "trace=openat,connect", "-o"]).arg(&log).arg(walden.binary());
    command.env("PGSSLROOTCERT", "system");
    command.arg(format!("--config={}", walden.config_path().display()));
    command.args(["--stanza=shop", "archive-push"]).arg(&file);
    let out = finish(command);
    assert!(out.success(), "{out}");
    let calls = std::fs::read_to_string(&log).unwrap();
    assert!(calls.contains("walden.conf"), "{calls}");
    for word in ["/ssl", "cert", "pki", ".s.PGSQL", "AF_INET"] {
        assert!(!calls.contains(word), "{word}:\n{calls}");
    }
}
