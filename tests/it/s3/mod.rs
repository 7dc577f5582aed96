//! Repositories on S3: real PostgreSQL, a real S3 server over TLS, and a faulty store in front of it.
//!
//! `cycle` brings clusters back; `rights` does it with less than all rights; `faults` breaks each request; `down` takes
//! the store away in the middle, `outage` for minutes; `words` is what a person reads; `keeping` verifies, expires and deletes; `wire` looks at
//! what is sent.

mod cycle;
mod down;
mod faults;
pub mod keeping;
mod outage;
mod rights;
mod wire;
mod words;

use crate::common::{
    BucketKind, Cluster, Identity, Output, Replace, RepositoryOptions, S3Proxy, S3Server, Scratch, Walden,
    newest_major,
};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// A server that archives to what the test says.
pub struct Shop {
    pub scratch: Scratch,
    pub walden: Walden,
    pub cluster: Cluster,
    buckets: Vec<String>,
    /// How the first repository is reached.
    pub options: RepositoryOptions,
    /// How each is.
    pub all_options: Vec<RepositoryOptions>,
}

/// A store that is away or says nothing is noticed in seconds, which is what tests have. For the first repository.
pub const IMPATIENT: [&str; 2] = ["io-timeout=2s", "repo1-storage-retry=4s"];

/// What every repository begins with: a key, and the objects it is kept by. Trying out a store takes hundreds of requests,
/// which not every test has to spend; `versioned_and_locked_buckets…` and others do.
struct Template {
    key: String,
    objects: Vec<(String, Vec<u8>)>,
}

static TEMPLATE: Mutex<Option<Arc<Template>>> = Mutex::new(None);

impl Shop {
    /// With `archive_command` set; configured, and the stanza made, in a bucket that was tried out before.
    pub fn open(
        major: u32,
        segment_mb: u32,
        repositories: impl FnOnce(&Scratch, &Walden) -> Vec<RepositoryOptions>,
    ) -> Self {
        // Held by the first one until it has made it; the others wait for that.
        let mut first = TEMPLATE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let server = S3Server::shared();
        if let Some(template) = first.clone() {
            drop(first);
            let shop = Self::prepare(major, segment_mb, repositories, Some(&template.key));
            for bucket in &shop.buckets {
                for (key, bytes) in &template.objects {
                    server.put(bucket, key, bytes);
                }
            }
            shop.walden.ok(&["stanza-create"]);
            return shop;
        }
        let shop = Self::open_new(major, segment_mb, repositories);
        let bucket = shop.buckets.first().expect("a bucket");
        let beginnings = |key: &String| key.ends_with("/walden.json") || key.contains("/keys/");
        let keys: Vec<String> = server.keys(bucket).into_iter().filter(beginnings).collect();
        assert!(keys.len() >= 2, "{keys:?}");
        let read = |key: String| {
            let bytes = server.object(bucket, &key);
            (key, bytes)
        };
        let objects = keys.into_iter().map(read).collect();
        let key = fs::read_to_string(shop.walden.key_path()).unwrap();
        *first = Some(Arc::new(Template { key, objects }));
        shop
    }

    /// The same with a repository of its own, which is tried out.
    pub fn open_new(
        major: u32,
        segment_mb: u32,
        repositories: impl FnOnce(&Scratch, &Walden) -> Vec<RepositoryOptions>,
    ) -> Self {
        let shop = Self::closed(major, segment_mb, repositories);
        shop.walden.ok(&["stanza-create"]);
        shop
    }

    /// The same, without its stanza.
    pub fn closed(
        major: u32,
        segment_mb: u32,
        repositories: impl FnOnce(&Scratch, &Walden) -> Vec<RepositoryOptions>,
    ) -> Self {
        Self::prepare(major, segment_mb, repositories, None)
    }

    fn prepare(
        major: u32,
        segment_mb: u32,
        repositories: impl FnOnce(&Scratch, &Walden) -> Vec<RepositoryOptions>,
        key: Option<&str>,
    ) -> Self {
        let scratch = Scratch::new();
        let mut walden = Walden::new(&scratch);
        if let Some(key) = key {
            scratch.write(walden.key_path(), key);
        }
        let repositories = repositories(&scratch, &walden);
        let cluster = Cluster::build(&scratch, major)
            .segment_size_mb(segment_mb)
            .conf(&["autovacuum = off"])
            .archive_command(&walden.archive_command())
            .start();
        let mut global = IMPATIENT.map(str::to_owned).to_vec();
        global.extend((2..=repositories.len()).map(|index| format!("repo{index}-storage-retry=4s")));
        let global: Vec<&str> = global.iter().map(String::as_str).collect();
        walden.configure_repositories(&cluster, &repositories, &global);
        let named = repositories.iter().flatten().filter(|(name, _)| name == "s3-bucket");
        let buckets = named.map(|(_, bucket)| bucket.clone()).collect();
        let options = repositories.first().cloned().unwrap_or_default();
        Self { scratch, walden, cluster, buckets, options, all_options: repositories }
    }

    /// A table of rounds, one row for each call.
    pub fn round(&self, n: u32) {
        self.cluster.sql(&format!(
            "create table if not exists rounds (n int primary key, filler text);
             insert into rounds select {n}, repeat(md5('{n}'), 10)"
        ));
    }

    pub fn backup(&self) -> Output {
        self.walden.ok(&["backup", "--type=full", "--start-fast"])
    }

    /// The backups that `info` lists.
    pub fn backups(&self) -> usize {
        let out = self.walden.run(&["info", "--output=json"]);
        let info: serde_json::Value =
            serde_json::from_str(out.text()).unwrap_or_else(|e| panic!("{e}\n{out}"));
        info["stanzas"][0]["backups"].as_array().map_or(0, Vec::len)
    }

    /// Restores and starts the result; `--type=default` unless the arguments say otherwise.
    pub fn restore(&self, name: &str, arguments: &[&str]) -> Cluster {
        let target = restore_with(&self.walden, &self.scratch, name, arguments);
        let restored = self.cluster.start_restored(&target, &[]);
        restored.unwrap_or_else(|log| panic!("the restored server did not start:\n{log}"))
    }

    /// Everything comes back from the archive's end.
    pub fn comes_back(&self, name: &str) {
        self.cluster.archive_now();
        let before = self.cluster.dump();
        let mut restored = self.restore(name, &[]);
        restored.wait_recovery_end();
        assert!(restored.dump() == before, "what came back differs");
    }

    /// A segment that PostgreSQL has finished, by its path.
    pub fn segment(&self) -> (String, PathBuf) {
        let name = self.cluster.switch_wal();
        let path = self.cluster.data().join("pg_wal").join(&name);
        (name, path)
    }

    /// The repository gives this segment back as it is.
    pub fn holds(&self, name: &str, file: &Path) {
        let got = self.scratch.join(format!("got-{name}"));
        let _ = fs::remove_file(&got);
        self.walden.ok(&["archive-get", name, got.to_str().unwrap()]);
        assert!(fs::read(&got).unwrap() == fs::read(file).unwrap(), "{name} came back with other bytes");
    }

    /// What stands in texts for what differs from run to run.
    pub fn replacements(&self) -> Vec<Replace> {
        let mut all = vec![
            Replace::Shape("wal/0+", "wal/SYSTEM"),
            Replace::Shape("XXXXXXXX/XXXXXXXXXXXXXXXX", "TIMELINE/FOLDER"),
            Replace::Shape("pack-0+", "PACK"),
            Replace::text(self.walden.binary().display(), "/usr/bin/walden"),
            Replace::text(self.scratch.path().display(), "SCRATCH"),
            Replace::Shape("127.0.0.1:0+", "ENDPOINT"),
            Replace::Shape("shop-0+", "BUCKET"),
        ];
        all.extend(Replace::backup_ids());
        all.extend(Replace::times());
        all.extend(Replace::segments());
        all.extend(Replace::lsns());
        all
    }
}

/// Restores into `name` of the scratch directory.
pub fn restore_with(walden: &Walden, scratch: &Scratch, name: &str, arguments: &[&str]) -> PathBuf {
    let target = scratch.join(name);
    let path = format!("--pg1-path={}", target.display());
    let mut all = vec!["restore", path.as_str()];
    if !arguments.iter().any(|argument| argument.starts_with("--type")) {
        all.push("--type=default");
    }
    all.extend(arguments);
    walden.ok(&all);
    target
}

/// A shop whose only repository is behind a proxy of its own.
pub fn behind_a_proxy(segment_mb: u32) -> (Shop, S3Proxy) {
    let server = S3Server::shared();
    let mut proxy = None;
    let shop = Shop::open(newest_major(), segment_mb, |scratch, _| {
        let proxy = proxy.insert(S3Proxy::before(server, scratch));
        vec![proxy.options(&server.bucket(BucketKind::Plain), Identity::NoDelete)]
    });
    (shop, proxy.unwrap())
}
