//! Credentials that may do less.

use super::{IMPATIENT, Shop};
use crate::common::{BucketKind, Identity, S3Server, golden, newest_major};

#[test]
fn who_may_only_read_can_restore_and_is_told_why_not_when_writing() {
    let server = S3Server::shared();
    let bucket = server.bucket(BucketKind::Plain);
    let mut shop = Shop::open(newest_major(), 1, |_, _| vec![server.options(&bucket, Identity::NoDelete)]);
    shop.round(1);
    shop.backup();
    shop.round(2);
    shop.cluster.archive_now();
    let before = shop.cluster.dump();
    shop.cluster.configure(&["archive_command = 'false'"]);
    let (_, path) = shop.segment();
    let objects = server.keys(&bucket);

    let reading = server.options(&bucket, Identity::ReadOnly);
    shop.walden.configure_repositories(&shop.cluster, &[reading], &IMPATIENT);
    shop.walden.ok(&["info"]);
    let out = shop.walden.fails(30, &["archive-push", path.to_str().unwrap()]);
    golden("s3/push-read-only", &out.stderr, &shop.replacements());
    let out = shop.walden.fails(30, &["backup", "--type=full", "--start-fast"]);
    golden("s3/backup-read-only", &out.stderr, &shop.replacements());
    let mut restored = shop.restore("back", &[]);
    restored.wait_recovery_end();
    assert!(restored.dump() == before, "what came back differs");
    assert_eq!(server.keys(&bucket), objects);
}
