//! `archive-get` under real servers: what recovery makes of its answers.
//!
//! A server archives with `cp` into a plain directory; a test stores from there what the repository shall hold,
//! and damages it as it likes. The hazards of `tests/hazards/` are here turned round: where `cp` as
//! `restore_command` ends recovery early or follows a dead branch, walden comes out right.

mod recovery;
mod timelines;

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use walden::env::System;
use walden::postgres::control_file::ControlFile;
use walden::repo::frame::Compression;
use walden::repo::keys::Secret;
use walden::repo::{self, Repository};
use walden::storage::posix::PosixStore;
use walden::units::{Stanza, SystemIdentifier, WalFileName};
use walden::wal::push::{Push, push};

use crate::common::{Cluster, Output, Recovery, STANZA, Scratch, Walden, finish};

/// A primary, its plain archive, and repositories that hold what the test puts in.
struct Bench {
    scratch: Scratch,
    walden: Walden,
    /// What the server's `cp` archived.
    plain: PathBuf,
    repositories: Vec<PathBuf>,
    system: SystemIdentifier,
    /// The repositories' key, once they are encrypted.
    key: RefCell<Option<String>>,
}

impl Bench {
    /// A running primary with segments of 1 MB, and `repositories` empty repositories for it.
    fn start(major: u32, repositories: usize) -> (Self, Cluster) {
        let scratch = Scratch::new();
        let plain = scratch.dir("plain");
        let cluster = Cluster::build(&scratch, major)
            .segment_size_mb(1)
            .conf(&["wal_keep_size = 64MB", "autovacuum = off"])
            .archive_command(&copy_to(&plain))
            .start();
        let control = control_of(&cluster);
        let walden = Walden::new(&scratch);
        let repositories = (1..=repositories).map(|n| walden.join(format!("repo{n}"))).collect();
        let key = RefCell::default();
        let bench = Self { scratch, walden, plain, repositories, system: control.system_identifier, key };
        bench.make_repositories(&control);
        (bench, cluster)
    }

    /// Makes the repositories anew, empty, sealed with `key` if there is one, and writes the configuration.
    fn make_repositories(&self, control: &ControlFile) {
        for path in &self.repositories {
            let _ = fs::remove_dir_all(path);
            let store = Arc::new(PosixStore::create_root(path).unwrap());
            let repository = Repository::create(store, self.secret().as_ref(), "link", &System).unwrap();
            let cluster = repo::Cluster {
                system: control.system_identifier,
                major: control.major.unwrap(),
                page_size: control.page_size,
                segment_size: control.wal_segment_size,
                blocks_per_file: control.pages_per_relation_file,
            };
            repository.add_cluster(&STANZA.parse().unwrap(), &cluster, &System).unwrap();
        }
        let mut lines = vec!["[global]".to_owned()];
        for (index, path) in self.repositories.iter().enumerate() {
            lines.push(format!("repo{}-path={}", index + 1, path.display()));
            match &*self.key.borrow() {
                None => lines.push(format!("repo{}-cipher-type=none", index + 1)),
                Some(key) => {
                    let file = self.scratch.write(self.walden.key_path(), key);
                    lines.push(format!("repo{}-cipher-type=aes-256-gcm", index + 1));
                    lines.push(format!("repo{}-cipher-pass-file={}", index + 1, file.display()));
                }
            }
        }
        self.walden.config(&lines.iter().map(String::as_str).collect::<Vec<_>>());
        self.give();
    }

    fn secret(&self) -> Option<Secret> {
        self.key.borrow().as_deref().map(|text| Secret::parse(text).unwrap())
    }

    fn open(&self, path: &Path) -> Repository {
        let store = Arc::new(PosixStore::open(path).unwrap());
        Repository::open(store, &|| Ok(self.secret())).unwrap()
    }

    /// Makes everything the server's user's own.
    fn give(&self) {
        if let Some((user, group)) = crate::common::runs_as() {
            let mut chown = std::process::Command::new("chown");
            chown.arg("-R").arg(format!("{user}:{group}")).args(&self.repositories);
            assert!(finish(chown).success());
        }
    }

    /// Stores a file of the plain archive in every repository, as `archive-push` does.
    fn store(&self, file: &Path) {
        let name: WalFileName = file.file_name().unwrap().to_str().unwrap().parse().unwrap();
        self.store_as(file, name);
    }

    fn store_as(&self, file: &Path, name: WalFileName) {
        let stanza: Stanza = STANZA.parse().unwrap();
        let open: Vec<Repository> = self.repositories.iter().map(|path| self.open(path)).collect();
        let pushed = push(Push {
            repositories: &open.iter().collect::<Vec<_>>(),
            stanza: &stanza,
            path: file,
            name,
            data_directory: Some(&self.scratch.join("pg")),
            compression: Compression::Zstd(1),
            env: &System,
            stop: &walden::pipeline::StopFlag::new(),
        })
        .unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        assert!(pushed.is_done(), "{}: {:?}", file.display(), pushed.outcomes);
        self.give();
    }

    /// Stores all that a plain archive holds but the files named.
    fn store_all(&self, plain: &Path, but: &[&str]) {
        let mut files: Vec<PathBuf> = fs::read_dir(plain).unwrap().map(|e| e.unwrap().path()).collect();
        files.sort();
        for file in files {
            let name = file.file_name().unwrap().to_str().unwrap();
            if !name.starts_with('.') && !but.contains(&name) {
                self.store(&file);
            }
        }
    }

    /// The object that holds a file, in one repository.
    fn object(&self, repository: usize, name: &str) -> PathBuf {
        let root = self.repositories[repository].join(STANZA).join("wal").join(self.system.to_string());
        if name.ends_with(".history") {
            return root.join(name);
        }
        root.join(&name[..8]).join(format!("{}{}", &name[8..22], "00")).join(name)
    }

    /// The bytes of an object are replaced by what `mutilate` makes of them.
    fn mutilate(&self, repository: usize, name: &str, mutilate: impl FnOnce(Vec<u8>) -> Vec<u8>) {
        let path = self.object(repository, name);
        let bytes = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        fs::remove_file(&path).unwrap();
        self.scratch.write(&path, mutilate(bytes));
    }

    fn damage(&self, repository: usize, name: &str) {
        self.mutilate(repository, name, |mut bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            bytes
        });
    }

    /// The usual `restore_command` with more options.
    fn restore_command(&self, options: &str) -> String {
        self.walden.restore_command().replace("archive-get", &format!("archive-get {options}"))
    }

    /// A copy of a base backup, with the signal file of that name.
    fn copy(&self, base: &Path, name: &str, signal: &str) -> PathBuf {
        let target = self.scratch.join(name);
        let _ = fs::remove_dir_all(&target);
        let mut cp = self.scratch.command("cp");
        cp.arg("-a").arg(base).arg(&target);
        assert!(finish(cp).success());
        self.scratch.write(target.join(signal), "");
        target
    }

    /// Recovers a copy of `base` with this command and these settings, to its end.
    fn recover(&self, like: &Cluster, base: &Path, command: &str, settings: &[&str]) -> Recovered {
        let name = format!("r{}", self.scratch.number());
        let data = self.copy(base, &name, "recovery.signal");
        let command = format!("restore_command={command}");
        let mut all = vec!["archive_mode=off", command.as_str()];
        all.extend(settings);
        match like.start_restored(&data, &all) {
            Err(log) => Recovered::Stopped(log),
            Ok(mut server) => match server.wait_recovery() {
                Recovery::Stopped { log } => Recovered::Stopped(log),
                Recovery::Promoted => Recovered::Promoted(server),
                Recovery::Paused => panic!("nothing pauses here"),
            },
        }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.walden.run(arguments)
    }
}

fn control_of(cluster: &Cluster) -> ControlFile {
    ControlFile::parse(&fs::read(cluster.data().join("global/pg_control")).unwrap()).unwrap()
}

/// A new key, as `key-generate` prints it.
fn new_key() -> String {
    Secret::generate(&System).unwrap().key_string().unwrap().to_string()
}

/// An `archive_command` that shows each file whole or not at all.
fn copy_to(plain: &Path) -> String {
    let plain = plain.display();
    format!("cp \"%p\" {plain}/.%f && mv {plain}/.%f {plain}/%f")
}

enum Recovered {
    Promoted(Cluster),
    Stopped(String),
}

impl Recovered {
    /// What a query says on the recovered server; panics when recovery stopped.
    fn sql(&self, query: &str) -> String {
        match self {
            Self::Promoted(server) => server.sql(query),
            Self::Stopped(log) => panic!("recovery stopped:\n{log}"),
        }
    }

    /// The log of a recovery that stopped; panics when the server came up with `query`'s answer.
    fn stopped(&self, query: &str) -> &str {
        match self {
            Self::Promoted(server) => {
                panic!("recovery ended as if all were well, with {}", server.sql(query))
            }
            Self::Stopped(log) => {
                assert!(log.contains("FATAL"), "{log}");
                log
            }
        }
    }

    /// The lines that walden wrote into the server's log.
    fn lines(&self) -> String {
        let log = match self {
            Self::Promoted(server) => server.log(),
            Self::Stopped(log) => log.clone(),
        };
        log.lines().filter(|line| line.starts_with("walden ")).flat_map(|line| [line, "\n"]).collect()
    }
}
