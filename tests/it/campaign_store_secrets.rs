//! No secret of an object store in anything that others can see, whichever way it is given, and whatever is run.

use crate::campaign_secrets::Watch;
use crate::common::{
    Azurite, BucketKind, Identity, RepositoryOptions, S3Server, Scratch, Walden, newest_major, test_all,
};
use crate::s3::{IMPATIENT, Shop};
use std::fs;
use std::path::PathBuf;

/// How a secret is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Given {
    Configuration,
    File,
    Environment,
    Profile,
}

/// The options with the secret of `option` taken out; and the secret.
fn without(options: &RepositoryOptions, option: &str) -> (RepositoryOptions, String) {
    let secret = options.iter().find(|(name, _)| name == option).map(|(_, value)| value.clone());
    let rest = options.iter().filter(|(name, _)| name != option).cloned().collect();
    (rest, secret.unwrap_or_else(|| panic!("no {option} in {options:?}")))
}

/// A shop that gives the secret of `option` this way, the secret, and the files that are there to hold it.
fn shop(
    options: impl FnOnce(&Scratch) -> RepositoryOptions,
    option: &str,
    given: Given,
) -> (Shop, String, Vec<PathBuf>) {
    let opened = |scratch: &Scratch, _: &Walden| vec![options(scratch)];
    let mut shop = match option.starts_with("s3") {
        true => Shop::open(newest_major(), 1, opened),
        false => Shop::open_new(newest_major(), 1, opened),
    };
    let all = shop.options.clone();
    let (mut rest, secret) = without(&all, option);
    let line = format!("{secret}\n");
    let mut meant = Vec::new();
    let mut export = String::new();
    match given {
        Given::Configuration => {
            rest.push((option.to_owned(), secret.clone()));
            meant.push(shop.walden.config_path());
        }
        Given::File => {
            let file = shop.scratch.write("the-secret", line);
            rest.push((format!("{option}-file"), file.display().to_string()));
            meant.push(file);
        }
        Given::Environment => {
            let variable = format!("WALDEN_REPO1_{}", option.to_uppercase().replace('-', "_"));
            shop.walden.env(&variable, &secret);
            export = format!("export {variable}='{secret}'\n");
        }
        Given::Profile => {
            let (others, id) = without(&rest, "s3-key");
            rest = others;
            let text = format!("[default]\naws_access_key_id = {id}\naws_secret_access_key = {line}");
            let file = shop.scratch.write("profiles", text);
            rest.push(("s3-profile-file".to_owned(), file.display().to_string()));
            meant.push(file);
        }
    }
    // The archiver has no environment of ours.
    let push = shop.walden.archive_command().replace("%p", "$1");
    let script = shop.scratch.write("archive", format!("{export}{push}\n"));
    shop.cluster.configure(&[&format!("archive_command = 'sh {} %p'", script.display())]);
    meant.push(script);
    // A passphrase's command whose words everybody reads, and who tells all it knows.
    let tell = format!("env >&2; cat {}", shop.walden.key_path().display());
    shop.walden.configure_repositories(&shop.cluster, &[rest], &IMPATIENT);
    let file_line = format!("repo1-cipher-pass-file={}", shop.walden.key_path().display());
    let configuration = fs::read_to_string(shop.walden.config_path()).unwrap();
    assert!(configuration.contains(&file_line), "{configuration}");
    let configuration = configuration.replace(&file_line, &format!("repo1-cipher-pass-command={tell}"));
    shop.scratch.write(shop.walden.config_path(), configuration);
    (shop, secret, meant)
}

/// Runs what there is, well and badly.
fn run_everything(shop: Shop, secret: String, mut meant: Vec<PathBuf>, what: &str) {
    let key = fs::read_to_string(shop.walden.key_path()).unwrap().trim().to_owned();
    meant.push(shop.walden.key_path());
    let Shop { scratch, walden, cluster, .. } = shop;
    let mut watch = Watch { scratch, walden, secrets: vec![secret, key], samples: 0 };
    let environment = watch.run(0, &["stanza-create"]).stderr;
    assert!(environment.contains("WALDEN_CONFIG="), "the command's words are shown: {environment}");
    cluster.sql("create table t (a int)");
    let name = cluster.switch_wal();
    let segment = cluster.data().join("pg_wal").join(&name).display().to_string();
    cluster.wait_archived(&name);
    watch.watched(&["archive-push", &segment]);
    watch.run(0, &["backup", "--type=full", "--start-fast"]);
    watch.run(0, &["backup", "--type=full", "--start-fast"]);
    watch.watched(&["check"]);
    let got = watch.scratch.join("got");
    watch.run(0, &["archive-get", &name, got.to_str().unwrap()]);
    for arguments in [
        &["info"][..],
        &["info", "--output=json"],
        &["config"],
        &["config", "--output=json"],
        &["verify"],
        &["verify", "--output=json"],
        &["repo-ls", "--recurse"],
        &["repo-get", "walden.json"],
        &["expire", "--repo1-retention-full=1", "--expire-delay=0"],
    ] {
        watch.run(0, arguments);
    }
    let info: serde_json::Value =
        serde_json::from_str(watch.run(0, &["info", "--output=json"]).text()).unwrap();
    let set = format!("--set={}", info["stanzas"][0]["backups"][0]["id"].as_str().unwrap());
    watch.run(0, &["annotate", &set, "--annotation=why=before the migration"]);
    watch.run(0, &["pin", &set, "--reason=audit"]);
    watch.run(0, &["unpin", &set]);
    let path = format!("--pg1-path={}", watch.scratch.join("back").display());
    let restored = watch.watched(&["restore", &path, "--type=immediate"]);
    assert!(matches!(restored.code, Some(0 | 50)), "{restored}");
    watch.watched(&["stanza-upgrade"]);
    // Failures say most: the store refuses, is not there, makes no sense.
    let good = fs::read_to_string(watch.walden.config_path()).unwrap();
    for (from, to) in [
        ("s3-bucket=", "s3-bucket=no-"),
        ("azure-container=", "azure-container=no-"),
        ("-endpoint=https", "-endpoint=http"),
        ("-region=us", "-region=eu"),
    ] {
        if !good.contains(from) {
            continue;
        }
        watch.scratch.write(watch.walden.config_path(), good.replace(from, to));
        for arguments in
            [&["info"][..], &["archive-push", &segment], &["verify"], &["check"], &["stanza-create"]]
        {
            watch.watched(arguments);
        }
    }
    watch.scratch.write(watch.walden.config_path(), good);
    watch.run(0, &["stop"]);
    watch.run(0, &["stanza-delete", "--yes"]);
    let looked = watch.look(&meant);
    assert!(looked > 1000 && watch.samples > 50, "{looked} files, {} samples", watch.samples);
    println!("{what}: {looked} files, {} samples of the process list", watch.samples);
}

#[test]
fn no_secret_of_s3_is_seen_anywhere() {
    let all = [Given::Environment, Given::Profile, Given::File, Given::Configuration];
    for given in all.into_iter().take(if test_all() { 4 } else { 2 }) {
        let server = S3Server::shared();
        let bucket = server.bucket(BucketKind::Plain);
        let options = |_: &Scratch| server.options(&bucket, Identity::Admin);
        let (shop, secret, meant) = shop(options, "s3-key-secret", given);
        run_everything(shop, secret, meant, &format!("s3 {given:?}"));
    }
}

#[test]
fn no_secret_of_azure_is_seen_anywhere() {
    let azurite = Azurite::shared();
    let (shop, secret, meant) = shop(|_| azurite.options("/secrets"), "azure-key", Given::Environment);
    run_everything(shop, secret, meant, "azure key");
    if test_all() {
        let options = |_: &Scratch| azurite.options_by_signature("/signature", "rwdl");
        let (shop, signature, meant) = self::shop(options, "azure-key", Given::File);
        run_everything(shop, signature, meant, "azure signature");
    }
}

/// The server knows no such token, so all of it fails, which says most.
#[test]
fn no_token_of_a_session_is_seen_anywhere() {
    let server = S3Server::shared();
    let scratch = Scratch::new();
    let walden = Walden::new(&scratch);
    let token = "FwoGZXIvYXdzEBYaDHqa0AP1xyzTOKEN/of+a=session";
    let secret = server.key(Identity::Admin).1.to_owned();
    let mut lines = vec!["[global]".to_owned()];
    let options = server.options("walden", Identity::Admin);
    lines.extend(options.iter().map(|(name, value)| format!("repo1-{name}={value}")));
    lines.push(format!("repo1-s3-token={token}"));
    lines.push("repo1-cipher-type=none".to_owned());
    lines.push("repo1-storage-retry=0".to_owned());
    for name in ["spool", "lock", "log"] {
        lines.push(format!("{name}-path={}", walden.join(name).display()));
    }
    lines.push("[shop]".to_owned());
    lines.push(format!("pg1-path={}", scratch.dir("pg").display()));
    walden.config(&lines.iter().map(String::as_str).collect::<Vec<_>>());
    let meant = [walden.config_path()];
    let mut watch = Watch { scratch, walden, secrets: vec![token.to_owned(), secret], samples: 0 };
    for arguments in [
        &["info"][..],
        &["config"],
        &["check"],
        &["verify"],
        &["expire"],
        &["repo-ls"],
        &["stanza-create"],
        &["archive-get", "000000010000000000000001", "nowhere"],
        &["annotate", "--set=2026", "--annotation=a=b"],
    ] {
        watch.watched(arguments);
    }
    let refused = watch.watched(&["info"]);
    assert!(refused.stderr.contains("answered 40") || refused.stdout.contains("answered 40"), "{refused}");
    assert!(watch.look(&meant) > 3 && watch.samples > 5);
}
