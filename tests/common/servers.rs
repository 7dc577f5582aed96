//! Which PostgreSQL servers there are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// Where the programs of one major version are.
#[derive(Clone, Debug)]
pub struct Server {
    /// 15, 16, …
    pub major: u32,
    /// As the server names it, for example `17.11`.
    pub version: String,
    /// `initdb`, `postgres`.
    pub bin: PathBuf,
    /// `psql`, `pg_basebackup`, …; usually the same directory.
    pub client: PathBuf,
}

impl Server {
    /// The server of this major; panics with the way to get it when there is none.
    pub fn of(major: u32) -> Self {
        static FOUND: Mutex<BTreeMap<u32, Server>> = Mutex::new(BTreeMap::new());
        // A test that panics here must not take the others' answers with it.
        let mut found = FOUND.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        found.entry(major).or_insert_with(|| look_for(major)).clone()
    }

    /// Path of a program, from the server's directory or the client's.
    pub fn program(&self, name: &str) -> PathBuf {
        let own = self.bin.join(name);
        if own.exists() { own } else { self.client.join(name) }
    }
}

fn look_for(major: u32) -> Server {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/env/get-postgres");
    let out = Command::new(&script)
        .args(["--if-present", &major.to_string()])
        .output()
        .unwrap_or_else(|e| panic!("cannot run {}: {e}", script.display()));
    let text = String::from_utf8_lossy(&out.stdout);
    let fact = |name: &str| {
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).map(str::to_owned)
    };
    match (out.status.success(), fact("PGVERSION"), fact("PGBIN"), fact("PGCLIENT")) {
        (true, Some(version), Some(bin), Some(client)) => {
            Server { major, version, bin: bin.into(), client: client.into() }
        }
        _ => panic!(
            "there is no PostgreSQL {major} to test with: run `make test`, which fetches it, \
             or tests/env/prepare, or tests/env/get-postgres {major}\n{}",
            String::from_utf8_lossy(&out.stderr)
        ),
    }
}

/// Whether the whole matrix was asked for (`make test-all`, `WALDEN_TEST_ALL=1`).
pub fn test_all() -> bool {
    std::env::var_os("WALDEN_TEST_ALL").is_some_and(|v| !v.is_empty() && v != "0")
}

/// Every supported major. 14 is past its end, 19 a release candidate.
pub fn all_majors() -> Vec<u32> {
    vec![14, 15, 16, 17, 18, 19]
}

/// The oldest major that a test runs on in full.
pub fn oldest_major() -> u32 {
    15
}

/// The newest major that is released: what a test of one major runs on. With `make test-all`, too.
pub fn newest_major() -> u32 {
    18
}

/// The majors on which a test runs in full: the oldest and the newest, or all.
pub fn majors_in_full() -> Vec<u32> {
    if test_all() { all_majors() } else { vec![oldest_major(), newest_major()] }
}

/// The majors that see only the main path: those that [`majors_in_full`] leaves out.
pub fn other_majors() -> Vec<u32> {
    let full = majors_in_full();
    all_majors().into_iter().filter(|major| !full.contains(major)).collect()
}
