//! What is kept, verified and removed, by whom.

use super::{IMPATIENT, Shop};
use crate::common::{BucketKind, Identity, Output, Replace, S3Proxy, S3Server, golden, newest_major};

/// The newest backup stays. One worker, so that what is refused first is the same each time.
pub const EXPIRE: [&str; 4] = ["expire", "--repo1-retention-full=1", "--expire-delay=0", "--process-max=1"];

/// How much it was differs from run to run.
pub fn sizes() -> Vec<Replace> {
    vec![
        Replace::Shape("0+.0 MB", "SIZE"),
        Replace::Shape("0+.0 kB", "SIZE"),
        Replace::Shape("0+ B", "SIZE"),
        Replace::Shape("0+ objects", "N objects"),
        Replace::Shape("0+ object", "N objects"),
        Replace::Shape("0+ segments", "N segments"),
        Replace::Shape("0+ segment", "N segments"),
        Replace::Shape("0+ s", "TIME"),
        Replace::Shape("0+ ms", "TIME"),
        Replace::Shape("00000000T000000Z-F-aaaaaa", "FULL_BACKUP"),
        Replace::Shape("map-0+", "MAP"),
    ]
}

fn said(out: &Output) -> String {
    format!("{}{}exit code {}\n", out.stdout, out.stderr, out.code.unwrap())
}

/// A shop with two backups and WAL, whose repository is behind a proxy.
fn with_two_backups(kind: BucketKind) -> (Shop, S3Proxy, String) {
    let server = S3Server::shared();
    let bucket = server.bucket(kind);
    let mut proxy = None;
    let shop = Shop::open(newest_major(), 1, |scratch, _| {
        let proxy = proxy.insert(S3Proxy::before(server, scratch));
        vec![proxy.options(&bucket, Identity::Admin)]
    });
    for round in 1..=2 {
        shop.round(round);
        shop.backup();
    }
    shop.cluster.archive_now();
    (shop, proxy.unwrap(), bucket)
}

/// From now on walden is somebody else.
fn shop_as(shop: &mut Shop, proxy: &S3Proxy, bucket: &str, identity: Identity) {
    let options = [proxy.options(bucket, identity)];
    shop.walden.configure_repositories(&shop.cluster, &options, &IMPATIENT);
    proxy.rules("[]");
}

#[test]
fn who_may_only_read_verifies_and_who_may_not_delete_expires_in_words_alone() {
    let server = S3Server::shared();
    let (mut shop, proxy, bucket) = with_two_backups(BucketKind::Plain);
    let before = shop.cluster.dump();
    shop.cluster.configure(&["archive_command = 'false'"]);
    let stored = server.keys(&bucket);
    let mut replacements = shop.replacements();
    replacements.extend(sizes());
    shop_as(&mut shop, &proxy, &bucket, Identity::ReadOnly);
    shop.walden.ok(&["verify"]);
    let asked = proxy.log();
    assert!(
        asked.len() > 10 && asked.iter().all(|r| matches!(r.method.as_str(), "GET" | "HEAD")),
        "{asked:?}"
    );
    assert_eq!(server.keys(&bucket), stored);

    // What was to go is out of every list, and all of it is there still.
    shop_as(&mut shop, &proxy, &bucket, Identity::NoDelete);
    let out = shop.walden.fails(50, &EXPIRE);
    golden("s3/expire-may-not-delete", &said(&out), &replacements);
    assert_eq!(shop.backups(), 1);
    let left = server.keys(&bucket);
    assert!(stored.iter().all(|key| left.contains(key)), "nothing was deleted");
    assert!(left.iter().any(|key| key.ends_with("-retired")), "{left:?}");

    // The bucket may keep what credentials could delete.
    shop_as(&mut shop, &proxy, &bucket, Identity::Admin);
    proxy.rules(
        r#"[{"do": "status", "method": "DELETE", "status": 409, "code": "ObjectLocked", "message": "It is kept until 2027."}]"#,
    );
    let out = shop.walden.fails(50, &EXPIRE);
    golden("s3/expire-kept-by-the-bucket", &said(&out), &replacements);
    assert_eq!(server.keys(&bucket).len(), left.len());

    shop_as(&mut shop, &proxy, &bucket, Identity::Admin);
    shop.walden.ok(&EXPIRE);
    let gone = left.iter().filter(|key| !server.keys(&bucket).contains(key)).count();
    assert!(gone > 3, "{gone} objects went");
    shop_as(&mut shop, &proxy, &bucket, Identity::ReadOnly);
    shop.walden.ok(&["verify"]);
    let mut restored = shop.restore("back", &[]);
    restored.wait_recovery_end();
    assert!(restored.dump() == before, "what came back differs");

    shop_as(&mut shop, &proxy, &bucket, Identity::NoDelete);
    shop.walden.ok(&["stop"]);
    let out = shop.walden.fails(50, &["stanza-delete", "--yes", "--process-max=1"]);
    let system = shop.cluster.sql("select system_identifier from pg_control_system()");
    replacements.push(Replace::text(system, "SYSTEM"));
    golden("s3/stanza-delete-may-not-delete", &said(&out), &replacements);
    assert_eq!(shop.backups(), 0);
    shop_as(&mut shop, &proxy, &bucket, Identity::Admin);
    shop.walden.ok(&["stanza-delete", "--yes"]);
    let last: Vec<String> = server.keys(&bucket).into_iter().filter(|key| key.contains("/shop/")).collect();
    assert!(!last.is_empty() && last.iter().all(|key| key.ends_with("-retired")), "{last:?}");
}

/// What is deleted there lives on as an older version behind a marker, which no listing may take for an object.
#[test]
fn in_a_versioned_bucket_retention_counts_what_is_there() {
    let server = S3Server::shared();
    let (shop, _proxy, bucket) = with_two_backups(BucketKind::Versioned);
    shop.walden.ok(&EXPIRE);
    assert_eq!(shop.backups(), 1);
    let markers = || server.versions(&bucket).iter().filter(|(_, _, state)| state == "deleted").count();
    let (keys, marked) = (server.keys(&bucket), markers());
    assert!(marked > 3, "{marked} objects went");
    shop.walden.ok(&EXPIRE);
    assert_eq!((server.keys(&bucket), markers()), (keys, marked), "there was nothing left to do");
    shop.round(3);
    shop.backup();
    assert_eq!(shop.backups(), 2);
    shop.walden.ok(&EXPIRE);
    assert_eq!(shop.backups(), 1);
    assert!(markers() > marked);
    shop.walden.ok(&["verify"]);
    shop.comes_back("back");
}

#[test]
fn a_bucket_that_removes_objects_by_itself_is_warned_of() {
    let server = S3Server::shared();
    let bucket = server.bucket(BucketKind::Plain);
    server.let_expire(&bucket, "walden/", 30);
    let mut shop = Shop::closed(newest_major(), 1, |_, _| vec![server.options(&bucket, Identity::Admin)]);
    let made = shop.walden.ok(&["stanza-create"]);
    let told = "repo1: its bucket removes objects of the repository by rules of its own";
    let named =
        "because: the rule \"tidy\" removes every object whose name begins with walden/ after 30 days";
    let off = "these credentials may delete objects, for good: versioning is off";
    assert!([told, named, off].iter().all(|words| made.stderr.contains(words)), "{made}");
    let check = shop.walden.run(&["check"]);
    assert!(check.stdout.contains(&format!("warning  {told}")), "{check}");
    assert!([named, off].iter().all(|words| check.stdout.contains(words)), "{check}");

    // Who may not ask is told that, and it is no reason to complain.
    shop.walden.configure_repositories(
        &shop.cluster,
        &[server.options(&bucket, Identity::NoDelete)],
        &IMPATIENT,
    );
    let check = shop.walden.run(&["check"]);
    let asked = "note     repo1: whether its bucket removes objects by rules of its own could not be asked";
    assert!(check.stdout.contains(asked), "{check}");
    assert!(check.stdout.contains("because: these credentials may not do this"), "{check}");

    let versioned = server.bucket(BucketKind::Versioned);
    let options = server.options(&versioned, Identity::Admin);
    shop.walden.configure_repositories(&shop.cluster, &[options], &IMPATIENT);
    let made = shop.walden.ok(&["stanza-create"]);
    assert!(!made.stderr.contains("may delete"), "{made}");
    let check = shop.walden.run(&["check"]);
    assert!(check.stdout.contains("may delete objects, and versioning keeps what is deleted"), "{check}");
    assert!(!check.stdout.contains("by rules of its own"), "{check}");
}
