//! Repositories on Azure Blob Storage: the emulator Azurite, over TLS.

use crate::common::{Azurite, Replace, golden, newest_major};
use crate::s3::{IMPATIENT, Shop, keeping};
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

#[test]
fn by_signatures_that_permit_less_backups_are_taken_verified_and_expired() {
    let azurite = Azurite::shared();
    let by = |permissions: &str| azurite.options_by_signature("/keeping", permissions);
    let mut shop = Shop::open_new(newest_major(), 1, |_, _| vec![by("rwl")]);
    shop.round(1);
    shop.backup();
    shop.round(2);
    shop.backup();
    shop.cluster.archive_now();
    let mut replacements = shop.replacements();
    replacements.push(Replace::Shape("acctaaaaaaaa", "ACCOUNT"));
    replacements.extend(keeping::sizes());

    shop.walden.configure_repositories(&shop.cluster, &[by("rl")], &IMPATIENT);
    shop.walden.ok(&["verify"]);
    let stored = shop.walden.ok(&["repo-ls", "--recurse"]).stdout;
    shop.walden.configure_repositories(&shop.cluster, &[by("rwl")], &IMPATIENT);
    let out = shop.walden.fails(50, &keeping::EXPIRE);
    golden("azure/expire-may-not-delete", &format!("{}{}", out.stdout, out.stderr), &replacements);
    assert_eq!(shop.backups(), 1, "it is out of every list");
    let left = shop.walden.ok(&["repo-ls", "--recurse"]).stdout;
    assert!(stored.lines().all(|object| left.contains(object)), "nothing was deleted");

    shop.walden.configure_repositories(&shop.cluster, &[by("rwdl")], &IMPATIENT);
    shop.walden.ok(&keeping::EXPIRE);
    let after = shop.walden.ok(&["repo-ls", "--recurse"]).stdout;
    assert!(after.lines().count() < stored.lines().count(), "{after}");
    shop.walden.configure_repositories(&shop.cluster, &[by("rl")], &IMPATIENT);
    shop.walden.ok(&["verify"]);
    // What the account's own key sees is the same.
    shop.walden.configure_repositories(&shop.cluster, &[azurite.options("/keeping")], &IMPATIENT);
    assert_eq!(shop.backups(), 1);
    shop.comes_back("back");
}
