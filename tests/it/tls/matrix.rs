//! Every mode against every certificate.

use super::*;
use crate::common::{majors_in_full, newest_major, test_all};
use walden::postgres::client::CertificateProblem;

/// How a connection with `string` ends, in a word.
fn ours(cluster: &Cluster, string: &str) -> &'static str {
    match attempt(cluster, string) {
        Ok(true) => "encrypted",
        Ok(false) => "clear",
        Err(ClientError::Tls { problem, .. }) => match *problem {
            TlsProblem::NotOffered => "no TLS",
            TlsProblem::NoRoots { .. } => "no roots",
            TlsProblem::Certificate { problem, .. } => match problem {
                CertificateProblem::Untrusted { .. } => "untrusted",
                CertificateProblem::Expired { .. } => "expired",
                CertificateProblem::WrongName { .. } => "wrong name",
                other => panic!("{string}: {other:?}"),
            },
            other => panic!("{string}: {other:?}"),
        },
        Err(other) => panic!("{string}: {other:?}"),
    }
}

/// What libpq makes of it: `None` when it does not connect.
fn libpqs(cluster: &Cluster, string: &str) -> Option<&'static str> {
    let mut command = cluster.program("psql");
    command.env("HOME", "/nonexistent").args(["-XAtq", "-d"]);
    command.arg(format!("host=localhost port={} user=postgres dbname=postgres {string}", cluster.port()));
    command.args(["-c", "select ssl from pg_stat_ssl where pid = pg_backend_pid()"]);
    let out = finish(command);
    match out.stdout.trim() {
        "t" => Some("encrypted"),
        "f" => Some("clear"),
        _ => {
            assert!(!out.success(), "{string}: {out}");
            None
        }
    }
}

#[test]
fn every_sslmode_does_with_every_certificate_what_libpq_does() {
    for major in majors_in_full() {
        let scratch = Scratch::new();
        let certificates = Certificates::new(&scratch);
        let cluster =
            Cluster::build(&scratch, major).tcp().conf(&certificates.server_lines("server")).start();
        let (no_roots, ca, other) = (
            String::new(),
            format!("sslrootcert={}", certificates.at("ca.crt")),
            format!("sslrootcert={}", certificates.at("other-ca.crt")),
        );
        const MODES: [&str; 6] = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];
        // For each certificate and file of trusted ones: what becomes of each mode.
        let good = ["clear", "clear", "encrypted", "encrypted", "no roots", "no roots"];
        let untrusted = ["clear", "clear", "clear", "untrusted", "untrusted", "untrusted"];
        let none = ["clear", "clear", "clear", "no TLS", "no TLS", "no TLS"];
        let whole = ["clear", "clear", "encrypted", "encrypted", "encrypted", "encrypted"];
        let table = [
            ("server", &no_roots, good),
            ("server", &ca, whole),
            ("server", &other, untrusted),
            ("expired", &no_roots, good),
            ("expired", &ca, ["clear", "clear", "clear", "expired", "expired", "expired"]),
            ("other-server", &no_roots, good),
            ("other-server", &ca, untrusted),
            ("other-server", &other, whole),
            ("wrong-name", &no_roots, good),
            ("wrong-name", &ca, ["clear", "clear", "encrypted", "encrypted", "encrypted", "wrong name"]),
            ("none", &no_roots, none),
            ("none", &ca, none),
        ];
        let mut shown = "";
        for (certificate, roots, wanted) in table {
            if certificate != shown {
                certificates.show(&cluster, certificate);
                shown = certificate;
            }
            for (mode, wanted) in MODES.into_iter().zip(wanted) {
                let string = format!("sslmode={mode} {roots}");
                assert_eq!(ours(&cluster, &string), wanted, "PostgreSQL {major}, {certificate}: {string}");
                // The oracle: not for what the mode alone decides, which takes time for nothing.
                if mode != "disable" && (test_all() || mode != "allow") {
                    let theirs = libpqs(&cluster, &string);
                    let same =
                        theirs == Some(wanted) || (theirs.is_none() && attempt(&cluster, &string).is_err());
                    assert!(
                        same,
                        "PostgreSQL {major}, {certificate}: {string}: libpq {theirs:?}, we {wanted}"
                    );
                }
            }
        }
    }
}

#[test]
fn certificates_of_every_kind_are_verified_or_refused_by_name() {
    let scratch = Scratch::new();
    let certificates = Certificates::new(&scratch);
    let major = newest_major();
    let cluster = Cluster::build(&scratch, major).tcp().conf(&certificates.server_lines("server")).start();
    let with = |roots: &str, rest: &str| {
        let mode = if rest.contains("sslmode=") { "" } else { "sslmode=verify-full" };
        format!("{mode} sslrootcert={} {rest}", certificates.at(roots))
    };
    let refused = |string: &str| match problem(&cluster, string) {
        TlsProblem::Certificate { problem, .. } => problem,
        other => panic!("{string}: {other:?}"),
    };
    assert!(
        attempt(&cluster, &with("all-cas.crt", "host=127.0.0.1")).unwrap(),
        "an address of the certificate"
    );
    let file = scratch.write("text.crt", "no certificate");
    let useless = problem(&cluster, &format!("sslmode=require sslrootcert={}", file.display()));
    assert!(matches!(useless, TlsProblem::FileUseless { .. }), "{useless:?}");

    for kind in ["no-names", "chained", "pss", "ecdsa", "ed25519"] {
        certificates.show(&cluster, kind);
        assert!(attempt(&cluster, &with("all-cas.crt", "")).unwrap(), "{kind}");
        for version in ["TLSv1.2", "TLSv1.3"] {
            let only = format!("ssl_min_protocol_version={version} ssl_max_protocol_version={version}");
            assert!(attempt(&cluster, &with("all-cas.crt", &only)).unwrap(), "{kind} {version}");
        }
        if kind == "no-names" {
            // Its common name is "localhost", and it has no address.
            let problem = refused(&with("all-cas.crt", "host=127.0.0.1"));
            assert!(matches!(problem, CertificateProblem::WrongName { .. }), "{problem:?}");
        }
    }
    certificates.show(&cluster, "self-signed");
    assert!(attempt(&cluster, &with("self-signed.crt", "")).unwrap(), "it is itself the trusted one");
    let problem = refused(&with("ca.crt", ""));
    assert!(matches!(problem, CertificateProblem::OfACa), "{problem:?}");
    if certificates.exists("version1.crt") {
        certificates.show(&cluster, "version1");
        assert!(attempt(&cluster, "sslmode=require").unwrap());
        assert!(matches!(refused(&with("ca.crt", "")), CertificateProblem::Version1));
    }
    certificates.show(&cluster, "client");
    assert!(matches!(refused(&with("ca.crt", "sslmode=verify-ca")), CertificateProblem::NotForServers));

    // Lists of revoked certificates.
    certificates.show(&cluster, "revoked");
    let list = format!("sslcrl={}", certificates.at("ca.crl"));
    assert!(attempt(&cluster, &with("ca.crt", "")).unwrap(), "without a list nothing is known");
    assert_eq!(refused(&with("ca.crt", &list)), CertificateProblem::Revoked);
    let directory = scratch.dir("lists");
    scratch.write("lists/one.r0", std::fs::read(certificates.path("ca.crl")).unwrap());
    let in_directory = format!("sslcrldir={}", directory.display());
    assert_eq!(refused(&with("ca.crt", &in_directory)), CertificateProblem::Revoked);
    certificates.show(&cluster, "server");
    assert!(attempt(&cluster, &with("ca.crt", &list)).unwrap(), "not on the list");
    for missing in ["sslcrl=/nonexistent", "sslcrldir=/nonexistent"] {
        let problem = super::problem(&cluster, &with("ca.crt", missing));
        assert!(matches!(problem, TlsProblem::FileUnreadable { .. }), "{missing}: {problem:?}");
    }

    // The files that nobody has to name.
    let home = scratch.dir("home");
    scratch.dir("home/.postgresql");
    let put = |name: &str, from: &str| {
        scratch.write(format!("home/.postgresql/{name}"), std::fs::read(certificates.path(from)).unwrap())
    };
    put("root.crt", "ca.crt");
    put("root.crl", "ca.crl");
    assert!(attempt_from(&cluster, "sslmode=verify-full", &home).unwrap());
    certificates.show(&cluster, "revoked");
    assert!(attempt_from(&cluster, "sslmode=require", &home).is_err(), "verified because root.crt is there");
    assert!(!attempt_from(&cluster, "sslmode=prefer", &home).unwrap(), "as libpq: in the clear then");
}

#[test]
fn allow_and_prefer_try_the_other_way_when_the_server_refuses_the_first() {
    for major in majors_in_full() {
        let scratch = Scratch::new();
        let certificates = Certificates::new(&scratch);
        let mut hba = Vec::new();
        for database in ["all", "replication"] {
            hba.push(format!("hostssl {database} only_tls 127.0.0.1/32 trust"));
            hba.push(format!("hostnossl {database} only_clear 127.0.0.1/32 trust"));
            hba.push(format!("host {database} only_tls,only_clear 127.0.0.1/32 reject"));
        }
        let hba: Vec<&str> = hba.iter().map(String::as_str).collect();
        let cluster = Cluster::build(&scratch, major)
            .tcp()
            .hba(&hba)
            .conf(&certificates.server_lines("server"))
            .start();
        cluster.sql("create role only_tls login replication; create role only_clear login replication");
        for (mode, user, wanted) in [
            ("allow", "only_tls", Some(true)),
            ("allow", "only_clear", Some(false)),
            ("prefer", "only_tls", Some(true)),
            ("prefer", "only_clear", Some(false)),
            ("require", "only_tls", Some(true)),
            ("require", "only_clear", None),
            ("disable", "only_tls", None),
            ("disable", "only_clear", Some(false)),
        ] {
            match (attempt(&cluster, &format!("sslmode={mode} user={user}")), wanted) {
                (Ok(encrypted), Some(wanted)) => assert_eq!(encrypted, wanted, "{mode} {user}"),
                (Err(ClientError::NoHbaEntry { encrypted, .. }), None) => {
                    assert_eq!(encrypted, mode == "require", "{mode} {user}");
                }
                other => panic!("{mode} {user}: {other:?}"),
            }
        }
        // The socket is never encrypted, whatever is wanted.
        let socket = format!("host={} sslmode=verify-full", cluster.socket_dir().display());
        assert!(!attempt(&cluster, &socket).unwrap());

        let direct = attempt(&cluster, "sslmode=require sslnegotiation=direct");
        if major >= 17 {
            assert!(direct.unwrap());
        } else {
            assert!(matches!(direct, Err(ClientError::Tls { .. })), "{direct:?}");
        }
    }
}
