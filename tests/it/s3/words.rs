//! What a person reads when a store does not do as asked, and the exit codes.

use super::{IMPATIENT, Shop};
use crate::common::{
    BucketKind, Identity, Output, Replace, RepositoryOptions, S3Proxy, S3Server, finish, golden, newest_major,
};
use std::process::Command;

/// The options with one changed, or left out.
fn but(options: &RepositoryOptions, name: &str, value: Option<&str>) -> RepositoryOptions {
    let mut changed: RepositoryOptions = options.iter().filter(|(n, _)| n != name).cloned().collect();
    changed.extend(value.map(|value| (name.to_owned(), value.to_owned())));
    changed
}

/// What was said, and how it ended.
fn ended(out: &Output) -> String {
    format!("{}exit code {}\n", out.stderr, out.code.unwrap())
}

/// The clock of the program is another one.
fn at_another_time(shop: &Shop, offset: &str, arguments: &[&str]) -> Output {
    let plain = shop.walden.command(arguments);
    let mut command: Command = shop.scratch.command("faketime");
    command.arg("-f").arg(offset).arg(plain.get_program()).args(plain.get_args());
    for (name, value) in plain.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    finish(command)
}

#[test]
fn what_is_wrong_with_a_store_is_said_with_what_to_do() {
    let server = S3Server::shared();
    let bucket = server.bucket(BucketKind::Plain);
    let good = server.options(&bucket, Identity::Admin);
    let mut proxy = None;
    let mut shop = Shop::open(newest_major(), 1, |scratch, _| {
        proxy = Some(S3Proxy::before(server, scratch));
        vec![good.clone()]
    });
    let proxy = proxy.unwrap();
    let behind = proxy.options(&bucket, Identity::Admin);
    let (name, path) = shop.segment();
    shop.cluster.wait_archived(&name);
    let push = ["archive-push", path.to_str().unwrap()];
    let nowhere = format!("https://127.0.0.1:{}", free_port());
    let other_ca = shop.scratch.write("other-ca.crt", another_authority(&shop));

    let cases: Vec<(&str, RepositoryOptions, &str)> = vec![
        ("no-such-bucket", but(&good, "s3-bucket", Some("nobodys-bucket")), "[]"),
        ("wrong-secret", but(&good, "s3-key-secret", Some("this-is-not-the-secret-0123456789abcdef")), "[]"),
        ("unknown-key", but(&good, "s3-key", Some("AKIAUNKNOWNTOEVERYBODY")), "[]"),
        ("untrusted-certificate", but(&good, "storage-ca-file", other_ca.to_str()), "[]"),
        ("nobody-listens", but(&good, "s3-endpoint", Some(&nowhere)), "[]"),
        (
            "wrong-region",
            behind.clone(),
            r#"[{"do": "status", "status": 400, "code": "AuthorizationHeaderMalformed", "message":
                "The authorization header is malformed; the region 'us-east-1' is wrong; expecting 'eu-central-1'"}]"#,
        ),
        (
            "expired-token",
            behind.clone(),
            r#"[{"do": "status", "status": 400, "code": "ExpiredToken", "message": "The provided token has expired."}]"#,
        ),
        (
            "redirected",
            behind.clone(),
            r#"[{"do": "status", "status": 301, "code": "PermanentRedirect", "message":
                "The bucket you are attempting to access must be addressed using the specified endpoint."}]"#,
        ),
        (
            "busy",
            behind.clone(),
            r#"[{"do": "status", "status": 503, "code": "SlowDown", "message": "Please reduce your request rate."}]"#,
        ),
    ];
    for (case, options, rules) in cases {
        proxy.rules(rules);
        shop.walden.configure_repositories(&shop.cluster, &[options], &IMPATIENT);
        for (command, arguments) in [("info", &["info"][..]), ("archive-push", &push[..])] {
            let out = shop.walden.run(arguments);
            golden(&format!("s3/{case}-{command}"), &ended(&out), &shop.replacements());
        }
        let got = shop.scratch.join("got");
        let out = shop.walden.fails(200, &["archive-get", &name, got.to_str().unwrap()]);
        assert!(!got.exists() && !out.stderr.is_empty(), "{out}");
    }

    shop.walden.configure_repositories(&shop.cluster, std::slice::from_ref(&good), &IMPATIENT);
    for (case, offset) in [("clock-ahead", "+2h"), ("certificate-expired", "+60d")] {
        let out = at_another_time(&shop, offset, &["info"]);
        let mut replacements = shop.replacements();
        replacements.push(Replace::Shape("verification time 0000000000", "verification time TIME"));
        replacements.push(Replace::Shape("0000000000 (0+ seconds ago)", "TIME"));
        if let Some((_, rest)) = out.stderr.split_once("(the server's says ") {
            replacements.push(Replace::text(rest.split(')').next().unwrap(), "TIME"));
        }
        golden(&format!("s3/{case}"), &ended(&out), &replacements);
    }
    shop.walden.ok(&["info"]);
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A certificate authority that has nothing to do with the server.
fn another_authority(shop: &Shop) -> Vec<u8> {
    let mut openssl = shop.scratch.command("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
    openssl.args(["-days", "30", "-keyout", "/dev/null", "-subj", "/CN=another CA"]);
    openssl.args(["-addext", "basicConstraints=critical,CA:TRUE"]);
    let out = finish(openssl);
    assert!(out.success(), "{out}");
    out.stdout.into_bytes()
}
