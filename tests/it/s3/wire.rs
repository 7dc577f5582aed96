//! What settings come to in the requests that are sent.

use super::{IMPATIENT, Shop, behind_a_proxy};
use crate::common::{
    BucketKind, Identity, RepositoryOptions, Request, S3Proxy, S3Server, Scratch, newest_major,
};
use sha2::{Digest as _, Sha256};
use std::path::PathBuf;

/// As the proxy's log shows a secret.
fn hashed(secret: &str) -> String {
    Sha256::digest(secret).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn with(mut options: RepositoryOptions, more: &[(&str, &str)]) -> RepositoryOptions {
    options.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    options
}

const SSE: &str = "x-amz-server-side-encryption";
const KMS_KEY: &str = "x-amz-server-side-encryption-aws-kms-key-id";
const CUSTOMER: &str = "x-amz-server-side-encryption-customer-algorithm";
const CUSTOMER_KEY: &str = "x-amz-server-side-encryption-customer-key";
const CLASS: &str = "x-amz-storage-class";
const TOKEN: &str = "x-amz-security-token";

#[test]
fn each_object_is_sent_with_what_the_settings_ask_of_the_service() {
    let (mut shop, proxy) = behind_a_proxy(1);
    shop.cluster.configure(&["archive_command = 'false'"]);
    let (_, path) = shop.segment();
    let good = proxy.options(shop.buckets.first().unwrap(), Identity::NoDelete);
    let customer_key = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
    let mut puts = |more: &[(&str, &str)]| -> Vec<Request> {
        let options = [with(good.clone(), more)];
        shop.walden.configure_repositories(&shop.cluster, &options, &IMPATIENT);
        proxy.rules(r#"[{"do": "status", "method": "PUT", "status": 403, "code": "AccessDenied"}]"#);
        shop.walden.fails(30, &["archive-push", path.to_str().unwrap()]);
        let puts: Vec<Request> = proxy.log().into_iter().filter(|request| request.method == "PUT").collect();
        assert!(!puts.is_empty());
        puts
    };
    let headers = [SSE, KMS_KEY, CLASS, CUSTOMER, TOKEN];
    type Case = (&'static [(&'static str, &'static str)], [&'static str; 5]);
    let cases: [Case; 5] = [
        (&[], ["", "", "", "", ""]),
        (&[("s3-sse", "s3")], ["AES256", "", "", "", ""]),
        (&[("s3-kms-key-id", "arn:aws:kms:eu:1:key/k")], ["aws:kms", "arn:aws:kms:eu:1:key/k", "", "", ""]),
        (&[("s3-storage-class", "STANDARD_IA")], ["", "", "STANDARD_IA", "", ""]),
        (&[("s3-sse", "none"), ("s3-storage-class", "STANDARD")], ["", "", "STANDARD", "", ""]),
    ];
    for (more, expected) in cases {
        for put in puts(more) {
            assert_eq!(headers.map(|header| put.said(header)), expected, "{more:?}");
            assert!(put.create_only, "{put:?}");
        }
    }

    // The service has to be given these to read, too.
    let mut all = |more: &[(&str, &str)]| -> Vec<Request> {
        let options = [with(good.clone(), more)];
        shop.walden.configure_repositories(&shop.cluster, &options, &IMPATIENT);
        proxy.rules(r#"[{"do": "status", "status": 403, "code": "AccessDenied"}]"#);
        let out = shop.walden.run(&["info"]);
        assert!(!out.success(), "{out}");
        let log = proxy.log();
        assert!(!log.is_empty());
        log
    };
    for request in all(&[("s3-sse-customer-key", customer_key)]) {
        assert_eq!(request.said(CUSTOMER), "AES256");
        assert_eq!(request.said(CUSTOMER_KEY), hashed(customer_key));
    }
    for request in all(&[("s3-token", "FwoGZXIvYXdzEBYaD-token/of+a=session")]) {
        assert_eq!(request.said(TOKEN), hashed("FwoGZXIvYXdzEBYaD-token/of+a=session"));
        assert_eq!(request.said(CUSTOMER), "");
    }
}

/// A file of profiles as Amazon's tools write it.
fn profiles(scratch: &Scratch, name: &str, sections: &[(&str, Identity)], more: &str) -> PathBuf {
    let key = |(section, identity): &(&str, Identity)| {
        let (id, secret) = S3Server::shared().key(*identity);
        format!("[{section}]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n")
    };
    let text: String = sections.iter().map(key).collect();
    scratch.write(name, text + more)
}

#[test]
fn the_key_of_a_profile_is_found_where_amazons_tools_keep_it() {
    let server = S3Server::shared();
    let bucket = server.bucket(BucketKind::Plain);
    let mut proxy = None;
    let mut shop = Shop::open(newest_major(), 1, |scratch, _| {
        let proxy = proxy.insert(S3Proxy::before(server, scratch));
        vec![proxy.options(&bucket, Identity::Admin)]
    });
    let proxy = proxy.unwrap();
    let mut keyless = proxy.options(&bucket, Identity::Admin);
    keyless.retain(|(name, _)| !name.starts_with("s3-key"));
    let scratch = shop.scratch.clone();
    scratch.dir("home");
    scratch.dir("home/.aws");
    let in_home = [("default", Identity::ReadOnly), ("night", Identity::NoDelete)];
    profiles(&scratch, "home/.aws/credentials", &in_home, "");
    let elsewhere = profiles(&scratch, "elsewhere", &[("default", Identity::NoDelete)], "");
    let lent = "aws_session_token = lent/for+an-hour\n";
    let named = profiles(
        &scratch,
        "named",
        &[("other", Identity::ReadOnly), ("profile shop", Identity::Admin)],
        lent,
    );

    let mut asked = |more: &[(&str, &str)], rules: &str| -> Request {
        let options = [with(keyless.clone(), more)];
        shop.walden.configure_repositories(&shop.cluster, &options, &IMPATIENT);
        proxy.rules(rules);
        let out = shop.walden.run(&["repo-ls"]);
        assert!(out.success() == (rules == "[]"), "{out}");
        proxy.log().pop().expect("a request")
    };
    let file = named.to_str().unwrap();
    let used = |identity: Identity| server.key(identity).0;
    let other = asked(&[("s3-profile-file", file), ("s3-profile", "other")], "[]");
    assert_eq!((other.said("key"), other.said(TOKEN)), (used(Identity::ReadOnly), ""));
    // This server would refuse a token that it has not lent.
    let refuse = r#"[{"do": "status", "status": 403, "code": "AccessDenied"}]"#;
    let shop_profile = asked(&[("s3-profile-file", file), ("s3-profile", "shop")], refuse);
    assert_eq!(shop_profile.said("key"), used(Identity::Admin));
    assert_eq!(shop_profile.said(TOKEN), hashed("lent/for+an-hour"));

    shop.walden.env("HOME", scratch.join("home").to_str().unwrap());
    let mut asked = |more: &[(&str, &str)]| -> String {
        let options = [with(keyless.clone(), more)];
        shop.walden.configure_repositories(&shop.cluster, &options, &IMPATIENT);
        proxy.rules("[]");
        shop.walden.ok(&["repo-ls"]);
        proxy.log().pop().expect("a request").said("key").to_owned()
    };
    assert_eq!(asked(&[]), used(Identity::ReadOnly));
    assert_eq!(asked(&[("s3-profile", "night")]), used(Identity::NoDelete));
    shop.walden.env("AWS_SHARED_CREDENTIALS_FILE", elsewhere.to_str().unwrap());
    let options = [keyless.clone()];
    shop.walden.configure_repositories(&shop.cluster, &options, &IMPATIENT);
    proxy.rules("[]");
    shop.walden.ok(&["repo-ls"]);
    assert_eq!(proxy.log().pop().expect("a request").said("key"), used(Identity::NoDelete));
}
