//! Repositories on Azure Blob Storage: the emulator Azurite, over TLS.

use crate::common::{Azurite, Replace, golden, newest_major};
use crate::s3::{IMPATIENT, Shop};
use std::time::Duration;

#[test]
fn a_cluster_comes_back_to_a_moment_from_a_container() {
    let azurite = Azurite::shared();
    let shop = Shop::open_new(newest_major(), 1, |_, _| vec![azurite.options("/cycle")]);
    shop.round(1);
    shop.backup();
    shop.round(2);
    let moment = shop.cluster.sql("select clock_timestamp()");
    let before = shop.cluster.dump();
    std::thread::sleep(Duration::from_millis(20));
    shop.cluster.sql("truncate rounds");
    let (name, path) = shop.segment();
    shop.cluster.wait_archived(&name);
    // A second time, as after a crash.
    if path.exists() {
        shop.walden.ok(&["archive-push", path.to_str().unwrap()]);
    }
    let target = format!("--target={moment}");
    let mut restored = shop.restore("back", &["--type=time", &target, "--target-action=promote"]);
    restored.wait_recovery_end();
    assert!(restored.dump() == before, "what came back differs");
    let info = shop.walden.ok(&["info"]);
    assert!(info.stdout.contains("azure://"), "{info}");
}

#[test]
fn what_is_wrong_with_a_container_is_said() {
    let azurite = Azurite::shared();
    let mut shop = Shop::closed(newest_major(), 1, |_, _| vec![azurite.options("/words")]);
    let good = azurite.options("/words");
    for (case, option, value) in [
        ("no-such-container", "azure-container", "nobodys"),
        ("wrong-key", "azure-key", "bm90IHRoZSBrZXkgb2YgdGhpcyBhY2NvdW50IGF0IGFsbA=="),
    ] {
        let mut options = good.clone();
        for (name, text) in &mut options {
            if name == option {
                value.clone_into(text);
            }
        }
        shop.walden.configure_repositories(&shop.cluster, &[options], &IMPATIENT);
        let out = shop.walden.run(&["stanza-create"]);
        let mut replacements = shop.replacements();
        replacements.push(Replace::Shape("acctaaaaaaaa", "ACCOUNT"));
        golden(
            &format!("azure/{case}"),
            &format!("{}exit code {}\n", out.stderr, out.code.unwrap()),
            &replacements,
        );
    }
}
