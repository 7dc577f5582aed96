//! Who we are, and that nobody passes it on.

use super::*;
use crate::common::majors_in_full;
use std::os::unix::fs::PermissionsExt;
use walden::postgres::client::BindingProblem;

/// A server with a database for each way to sign in, and TLS.
fn server(scratch: &Scratch, certificates: &Certificates, major: u32) -> Cluster {
    let cluster = Cluster::build(scratch, major)
        .tcp()
        .hba(&[
            "host scram all 127.0.0.1/32 scram-sha-256",
            "host md5 all 127.0.0.1/32 md5",
            "host password all 127.0.0.1/32 password",
            "hostssl cert all 127.0.0.1/32 cert",
            "host trust all 127.0.0.1/32 trust",
            "host all,replication walden,walden_md5 127.0.0.1/32 reject",
        ])
        .conf(&certificates.server_lines("server"))
        .start();
    for database in ["scram", "md5", "password", "cert", "trust"] {
        cluster.sql(&format!("create database {database}"));
    }
    cluster.sql(
        "set password_encryption = 'scram-sha-256'; create role walden login replication password 'test';
         set password_encryption = 'md5'; create role walden_md5 login replication password 'test'",
    );
    cluster
}

fn binding(cluster: &Cluster, string: &str) -> BindingProblem {
    match attempt(cluster, string) {
        Err(ClientError::ChannelBinding { problem, .. }) => problem,
        other => panic!("{string}: {other:?}"),
    }
}

#[test]
fn channel_binding_is_used_where_offered_and_required_where_asked_for() {
    for major in majors_in_full() {
        let scratch = Scratch::new();
        let certificates = Certificates::new(&scratch);
        let cluster = server(&scratch, &certificates, major);
        let user = "user=walden password=test";
        for certificate in ["server", "ecdsa", "pss"] {
            certificates.show(&cluster, certificate);
            for wanted in ["disable", "prefer", "require"] {
                let string = format!("{user} dbname=scram sslmode=require channel_binding={wanted}");
                assert!(attempt(&cluster, &string).unwrap(), "{certificate} {wanted}");
            }
        }
        let required = |rest: &str| format!("sslmode=require channel_binding=require password=test {rest}");
        assert!(attempt(&cluster, &required("user=walden dbname=md5")).unwrap(), "its secret is SCRAM's");
        for (rest, method) in [
            ("user=walden_md5 dbname=md5", "md5"),
            ("user=walden dbname=password", "password"),
            ("user=walden dbname=trust", "trust, peer or a certificate"),
        ] {
            assert_eq!(binding(&cluster, &required(rest)), BindingProblem::Method(method), "{rest}");
        }
        certificates.show(&cluster, "server");
        let shown = format!(
            "user=walden dbname=cert sslcert={} sslkey={}",
            certificates.at("client.crt"),
            certificates.at("client.key")
        );
        assert!(matches!(binding(&cluster, &required(&shown)), BindingProblem::Method(_)));
        let in_the_clear = format!("{user} dbname=scram sslmode=disable channel_binding=require");
        assert_eq!(binding(&cluster, &in_the_clear), BindingProblem::NoTls);

        // No hash is defined for Ed25519: libpq always fails; we go on where nobody can be in between.
        certificates.show(&cluster, "ed25519");
        let verified = format!("sslmode=verify-full sslrootcert={}", certificates.at("all-cas.crt"));
        for (rest, required) in [
            (format!("{verified} channel_binding=require"), Some(true)),
            (verified.clone(), None),
            ("sslmode=require channel_binding=require".to_owned(), Some(true)),
            ("sslmode=require".to_owned(), Some(false)),
            ("sslmode=require channel_binding=disable".to_owned(), None),
        ] {
            let string = format!("{user} dbname=scram {rest}");
            match required {
                None => assert!(attempt(&cluster, &string).unwrap(), "{rest}"),
                Some(required) => {
                    let algorithm = "Ed25519".to_owned();
                    assert_eq!(binding(&cluster, &string), BindingProblem::Signature { algorithm, required });
                }
            }
        }
    }
}

#[test]
fn client_certificates_are_shown_and_their_keys_kept_private() {
    for major in majors_in_full() {
        let scratch = Scratch::new();
        let certificates = Certificates::new(&scratch);
        let cluster = server(&scratch, &certificates, major);
        let base =
            format!("user=walden dbname=cert sslmode=verify-full sslrootcert={}", certificates.at("ca.crt"));
        let show = |certificate: &str, key: &str| {
            format!("{base} sslcert={} sslkey={}", certificates.at(certificate), certificates.at(key))
        };
        assert!(attempt(&cluster, &show("client.crt", "client.key")).unwrap());
        let asked = format!("{} sslcertmode=require", show("client.crt", "client.key"));
        assert!(attempt(&cluster, &asked).unwrap());
        let tls12 = format!("{} ssl_max_protocol_version=TLSv1.2", show("client.crt", "client.key"));
        assert!(attempt(&cluster, &tls12).unwrap());

        // Of another CA: refused even where none is wanted.
        for max in ["TLSv1.2", "TLSv1.3"] {
            for database in ["cert", "trust"] {
                let string =
                    show("client-other.crt", "client-other.key").replace("=cert", &format!("={database}"));
                let string = format!("{string} ssl_max_protocol_version={max}");
                match problem(&cluster, &string) {
                    TlsProblem::Alert { about_our_certificate: true, .. } => {}
                    other => panic!("{string}: {other:?}"),
                }
            }
        }
        for without in [base.clone(), show("none.crt", "none.key"), format!("{asked} sslcertmode=disable")] {
            let error = attempt(&cluster, &without).unwrap_err();
            assert!(matches!(error, ClientError::NotAuthorized { .. }), "{without}: {error:?}");
        }
        let unusable = |certificate, key| problem(&cluster, &show(certificate, key));
        assert!(matches!(unusable("client.crt", "client-encrypted.key"), TlsProblem::KeyEncrypted { .. }));
        assert!(matches!(unusable("client.crt", "none.key"), TlsProblem::KeyMissing { .. }));
        assert!(matches!(unusable("client.crt", "server.key"), TlsProblem::FileUseless { .. }));
        assert!(matches!(unusable("client.key", "client.key"), TlsProblem::FileUseless { .. }));
        for mode in [0o640, 0o604, 0o660] {
            std::fs::set_permissions(certificates.path("client.key"), std::fs::Permissions::from_mode(mode))
                .unwrap();
            assert!(
                matches!(unusable("client.crt", "client.key"), TlsProblem::KeyExposed { .. }),
                "{mode:o}"
            );
        }

        // From the usual place.
        let home = scratch.dir("home");
        scratch.dir("home/.postgresql");
        for (name, from) in
            [("root.crt", "ca.crt"), ("postgresql.crt", "client.crt"), ("postgresql.key", "client.key")]
        {
            scratch
                .write(format!("home/.postgresql/{name}"), std::fs::read(certificates.path(from)).unwrap());
        }
        assert!(attempt_from(&cluster, "user=walden dbname=cert sslmode=verify-full", &home).unwrap());

        cluster.configure(&["ssl_ca_file = ''"]);
        wait_until("the server to ask for no certificate", || cluster.sql("show ssl_ca_file").is_empty());
        let never = problem(&cluster, "sslmode=require sslcertmode=require");
        assert!(matches!(never, TlsProblem::CertificateNotAsked), "{never:?}");
    }
}
