//! Every object of a repository × every kind of mutilation: noticed and named by whoever reads it, never restored
//! from, never handed to a recovery as something else or as the end of the archive.
//!
//! The repository is a real server's: two backups, a dozen segments, an unfinished one, a timeline, a note of a
//! base backup. The commands are the built program's. `WALDEN_TEST_ALL=1` flips every bit of the offsets below and
//! of many more.

use crate::common::{Cluster, Output, Scratch, StopMode, Walden, finish, newest_major, test_all};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use walden::repo::frame::FrameDecoder;
use walden::repo::keys::Secret;
use walden::repo::layout::named;
use walden::repo::{RepoError, Repository};
use walden::storage::Key;
use walden::storage::posix::PosixStore;

/// What an object is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Repository,
    Wrap,
    Cluster,
    Started,
    Outcome,
    Retired,
    Note,
    Pack,
    Map,
    Segment,
    Part,
    Partial,
    BackupHistory,
    History,
}

impl Kind {
    fn of(key: &str) -> Self {
        let name = key.rsplit('/').next().unwrap();
        match name {
            "walden.json" => Self::Repository,
            _ if key.starts_with("keys/") => Self::Wrap,
            _ if key.contains("/cluster/") => Self::Cluster,
            _ if name.ends_with(".1-started") => Self::Started,
            _ if name.ends_with(".2-outcome") => Self::Outcome,
            _ if name.ends_with(".3-retired") => Self::Retired,
            _ if key.contains("/catalog/") && name.contains(".9-") => Self::Note,
            _ if name.starts_with("pack-") => Self::Pack,
            _ if name.starts_with("map-") => Self::Map,
            _ if name.ends_with(".history") => Self::History,
            _ if key.contains(".part/") => Self::Part,
            _ if name.contains(".partial-") => Self::Partial,
            _ if name.contains(".backup-") => Self::BackupHistory,
            _ if key.contains("/wal/") && name.len() == 24 => Self::Segment,
            _ => panic!("{key} is of no kind this campaign knows"),
        }
    }

    /// Stands in the clear: has no header, footer and trailer.
    fn is_clear(self) -> bool {
        matches!(self, Self::Repository | Self::Wrap)
    }

    /// A restore cannot do without it.
    fn is_restored_from(self) -> bool {
        matches!(self, Self::Repository | Self::Wrap | Self::Outcome | Self::Pack | Self::Map)
    }
}

#[derive(Clone, Debug)]
enum Mutilation {
    Flip {
        at: usize,
        bit: u8,
    },
    CutByAByte,
    CutInHalf,
    Emptied,
    Removed,
    /// With another object of its kind in this repository.
    Swapped,
    /// An object of its name, or else its kind, in a repository of the same server and the same key.
    OfAnotherRepository,
}

impl fmt::Display for Mutilation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flip { at, bit } => write!(f, "bit {bit} of byte {at} flipped"),
            other => write!(f, "{other:?}"),
        }
    }
}

/// A repository of the same server twice, and what is needed to call every reader.
struct Campaign {
    scratch: Scratch,
    walden: Walden,
    /// Both backups of the first repository; the first is mutilated.
    ids: [String; 2],
    objects: BTreeMap<String, Vec<u8>>,
    foreign: BTreeMap<String, Vec<u8>>,
    /// A restored directory: asks for WAL as its recovery would.
    asker: PathBuf,
    /// Of it, with `%f` and `%p`.
    restore_command: String,
    /// What `archive-get` gave for each name while all was well.
    wal: BTreeMap<String, Vec<u8>>,
    /// What `repo-get` gave.
    clear: BTreeMap<String, Vec<u8>>,
    tried: usize,
    calls: usize,
    wrong: Vec<String>,
    repository: Repository,
    encrypted: bool,
}

fn objects_below(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut left = vec![root.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let key = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            match path.is_dir() {
                true if key == ".walden-tmp" => {}
                true => left.push(path),
                false => drop(all.insert(key, fs::read(&path).unwrap())),
            }
        }
    }
    all
}

fn take_backup(walden: &Walden, repository: &str) -> String {
    let out = walden.ok(&["backup", "--type=full", "--start-fast", "--output=json", repository]);
    let taken: Value = serde_json::from_str(out.text()).expect("backup prints JSON");
    taken["backup_id"].as_str().expect("an id").to_owned()
}

/// Bytes that do not compress, the same each time.
fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed;
    (0..size)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}

impl Campaign {
    fn begin(encrypted: bool) -> Self {
        let scratch = Scratch::new();
        let walden = Walden::new(&scratch);
        let mut cluster = Cluster::build(&scratch, newest_major())
            .segment_size_mb(1)
            .conf(&["autovacuum = off", "wal_keep_size = 64MB"])
            .archive_command(&walden.archive_command())
            .start();
        let second = scratch.dir(walden.join("repo2"));
        if encrypted {
            let key = format!("repo2-cipher-pass-file={}", walden.key_path().display());
            let path = format!("repo2-path={}", second.display());
            walden.configure(&cluster, &["pack-size=4MiB", &path, "repo2-cipher-type=aes-256-gcm", &key]);
        } else {
            let path = format!("repo2-path={}", second.display());
            walden.configure_plain(&cluster, &["pack-size=4MiB", &path, "repo2-cipher-type=none"]);
        }
        walden.ok(&["stanza-create"]);
        // Without WAL: enough for a few packs.
        for n in 1..=2 {
            scratch.write(cluster.data().join(format!("noise{n}")), noise(n, 3_500_000));
        }
        cluster.sql("create table rounds (n int); insert into rounds values (1)");
        let ids = [take_backup(&walden, "--repo=1"), take_backup(&walden, "--repo=1")];
        let elsewhere = take_backup(&walden, "--repo=2");
        for id in &ids {
            walden.ok(&["pin", "--set", id]);
        }
        let removed = take_backup(&walden, "--repo=1");
        walden.ok(&["expire", "--repo=1", "--set", &removed]);
        for n in 2..=3 {
            cluster.sql(&format!("insert into rounds values ({n})"));
            cluster.archive_now();
        }
        // What is unfinished, as a promoted standby leaves it.
        cluster.sql("insert into rounds values (0)");
        let open = cluster.sql("select pg_walfile_name(pg_current_wal_lsn())");
        let unfinished = scratch.dir("unfinished").join(format!("{open}.partial"));
        scratch.write(&unfinished, fs::read(cluster.data().join("pg_wal").join(&open)).unwrap());
        walden.ok(&["archive-push", unfinished.to_str().unwrap()]);
        cluster.stop(StopMode::Fast);

        // A second timeline.
        let promoted = scratch.join("promoted");
        let path = format!("--pg1-path={}", promoted.display());
        walden.ok(&["restore", &path, "--archive-mode=preserve"]);
        let mut server = cluster.start_restored(&promoted, &[]).unwrap_or_else(|log| panic!("{log}"));
        server.wait_recovery_end();
        for n in 4..=5 {
            server.sql(&format!("insert into rounds values ({n})"));
            server.archive_now();
        }
        server.stop(StopMode::Fast);

        // From here on there is one repository, and no server.
        let config = fs::read_to_string(walden.config_path()).unwrap();
        let lines: Vec<&str> = config.lines().filter(|line| !line.starts_with("repo2-")).collect();
        walden.config(&lines);
        let asker = scratch.join("asker");
        let path = format!("--pg1-path={}", asker.display());
        walden.ok(&["restore", &path, "--archive-mode=off", "--set", &ids[0]]);
        let conf = fs::read_to_string(asker.join("postgresql.auto.conf")).unwrap();
        let line = conf.lines().find(|line| line.starts_with("restore_command")).expect("a restore_command");
        let quoted = line.split_once('\'').unwrap().1.trim_end().trim_end_matches('\'');
        let restore_command = quoted.replace("''", "'");

        let mut objects = objects_below(&walden.repo_path());
        // What is left of it is nobody's.
        objects.retain(|key, _| !key.contains(&removed) || Kind::of(key) == Kind::Retired);
        let foreign = objects_below(&second)
            .into_iter()
            .map(|(key, bytes)| (key.replace(&elsewhere, &ids[0]), bytes))
            .collect();
        let store = Arc::new(PosixStore::open(&walden.repo_path()).unwrap());
        let key = || match encrypted {
            true => Ok(Some(Secret::parse(fs::read_to_string(walden.key_path()).unwrap().trim()).unwrap())),
            false => Ok(None),
        };
        let repository = Repository::open(store, &key).unwrap();
        let mut campaign = Self {
            scratch,
            walden,
            ids,
            objects,
            foreign,
            asker,
            restore_command,
            wal: BTreeMap::new(),
            clear: BTreeMap::new(),
            tried: 0,
            calls: 0,
            wrong: Vec::new(),
            repository,
            encrypted,
        };
        for key in campaign.objects.keys().cloned().collect::<Vec<_>>() {
            let got = campaign.repo_get(&key);
            assert!(got.0.success(), "{key}: {}", got.0);
            campaign.clear.insert(key.clone(), got.1);
            if let Some(name) = recovery_asks_for(&key) {
                let (out, bytes) = campaign.archive_get(name);
                assert_eq!(out.code, Some(0), "{key}: {out}");
                campaign.wal.insert(name.to_owned(), bytes.expect("a file"));
            }
        }
        campaign
    }

    fn path(&self, key: &str) -> PathBuf {
        self.walden.repo_path().join(key)
    }

    fn repo_get(&mut self, key: &str) -> (Output, Vec<u8>) {
        self.calls += 1;
        let to = self.scratch.join("got");
        let mut shell = self.scratch.command("/bin/sh");
        shell
            .args(["-c", "exec \"$0\" repo-get \"$1\" > \"$2\""])
            .arg(self.walden.binary())
            .arg(key)
            .arg(&to);
        shell.env("WALDEN_CONFIG", self.walden.config_path()).env("WALDEN_STANZA", "shop");
        let out = finish(shell);
        (out, fs::read(&to).unwrap_or_default())
    }

    /// As the recovery of the restored directory would: through its own `restore_command`, in its data directory.
    fn archive_get(&mut self, name: &str) -> (Output, Option<Vec<u8>>) {
        self.calls += 1;
        let target =
            if name.ends_with(".history") { "pg_wal/RECOVERYHISTORY" } else { "pg_wal/RECOVERYXLOG" };
        let _ = fs::remove_file(self.asker.join(target));
        let line = self.restore_command.replace("%f", name).replace("%p", target);
        let mut shell = self.scratch.command("/bin/sh");
        shell.arg("-c").arg(line).current_dir(&self.asker);
        let out = finish(shell);
        (out, fs::read(self.asker.join(target)).ok())
    }

    fn restore(&mut self) -> (Output, PathBuf) {
        self.calls += 1;
        let target = self.scratch.join("target");
        let _ = fs::remove_dir_all(&target);
        let path = format!("--pg1-path={}", target.display());
        let out = self.walden.run(&["restore", &path, "--archive-mode=off", "--set", &self.ids[0]]);
        (out, target)
    }

    /// Other objects of its kind; the ones whose exchange is hardest to notice first.
    fn sibling(&self, key: &str) -> Option<String> {
        let of_the_other_backup = key.replace(&self.ids[0], &self.ids[1]);
        let neighbours = self.objects.keys().filter(|other| Kind::of(other) == Kind::of(key));
        let mut all = Some(of_the_other_backup).into_iter().chain(neighbours.cloned());
        all.find(|other| other != key && self.objects.contains_key(other))
    }

    fn mutilations(&self, key: &str) -> Vec<Mutilation> {
        let bytes = &self.objects[key];
        let n = bytes.len();
        let mut offsets: Vec<usize> = if Kind::of(key).is_clear() {
            (0..n).step_by(if test_all() { 1 } else { 1 + n / 12 }).collect()
        } else {
            let trailer = n - 16;
            let footer =
                trailer - u32::from_le_bytes(bytes[trailer..trailer + 4].try_into().unwrap()) as usize;
            // Each field of the header, the frames, the footer and its tag, each field of the trailer.
            let header = [0, 8, 9, 10, 12, 14, 20, 40, 70];
            let rest = [
                96,
                (96 + footer) / 2,
                footer,
                (footer + trailer) / 2,
                trailer - 1,
                trailer,
                trailer + 4,
                n - 1,
            ];
            header.into_iter().chain(rest).collect()
        };
        if test_all() && !Kind::of(key).is_clear() {
            offsets.extend((0..40).map(|i| i * n / 40));
        }
        offsets.sort_unstable();
        offsets.dedup();
        let bits = |at: usize| if test_all() { (0..8).collect() } else { vec![(at % 8) as u8] };
        let mut all: Vec<Mutilation> = offsets
            .iter()
            .flat_map(|&at| bits(at).into_iter().map(move |bit| Mutilation::Flip { at, bit }))
            .collect();
        all.extend([Mutilation::CutByAByte, Mutilation::CutInHalf, Mutilation::Emptied, Mutilation::Removed]);
        if self.sibling(key).is_some() {
            all.push(Mutilation::Swapped);
        }
        if self.foreign_of(key).is_some() {
            all.push(Mutilation::OfAnotherRepository);
        }
        all
    }

    fn foreign_of(&self, key: &str) -> Option<&Vec<u8>> {
        let of_its_kind =
            || self.foreign.iter().find(|(other, _)| Kind::of(other) == Kind::of(key)).map(|(_, b)| b);
        self.foreign.get(key).or_else(of_its_kind)
    }

    /// Mutilates, lets every reader read, and puts back what was there.
    fn attempt(&mut self, key: &str, how: &Mutilation) {
        self.tried += 1;
        let whole = self.objects[key].clone();
        let mut names = vec![key.to_owned()];
        let put = |key: &str, bytes: &[u8]| self.scratch.write(self.path(key), bytes);
        match how {
            Mutilation::Flip { at, bit } => {
                let mut bytes = whole;
                bytes[*at] ^= 1 << bit;
                put(key, &bytes);
            }
            // The last line's end of what stands in the clear says nothing.
            Mutilation::CutByAByte if Kind::of(key).is_clear() => {
                put(key, &whole[..whole.trim_ascii_end().len() - 1]);
            }
            Mutilation::CutByAByte => drop(put(key, &whole[..whole.len() - 1])),
            Mutilation::CutInHalf => drop(put(key, &whole[..whole.len() / 2])),
            Mutilation::Emptied => drop(put(key, &[])),
            Mutilation::Removed => fs::remove_file(self.path(key)).unwrap(),
            Mutilation::Swapped => {
                let sibling = self.sibling(key).unwrap();
                put(key, &self.objects[&sibling]);
                put(&sibling, &whole);
                names.push(sibling);
            }
            Mutilation::OfAnotherRepository => drop(put(key, self.foreign_of(key).unwrap())),
        }
        let mut wrong = Vec::new();
        self.judge_repo_get(key, how, &mut wrong);
        self.judge_archive_get(key, how, &names, &mut wrong);
        self.judge_restore(key, how, &names, &mut wrong);
        self.judge_info(key, how, &names, &mut wrong);
        self.judge_verify(key, how, &names, &mut wrong);
        for name in &names {
            self.scratch.write(self.path(name), &self.objects[name]);
        }
        self.wrong.extend(wrong.into_iter().map(|what| format!("{key}, {how}: {what}")));
    }

    fn judge_repo_get(&mut self, key: &str, how: &Mutilation, wrong: &mut Vec<String>) {
        // Consistent in itself: that it is another's shows at the first sealed object.
        if Kind::of(key) == Kind::Repository && matches!(how, Mutilation::OfAnotherRepository) {
            return;
        }
        if !self.every_call() && matches!(how, Mutilation::Flip { .. }) && !Kind::of(key).is_clear() {
            return self.judge_library(key, wrong);
        }
        let (out, _) = self.repo_get(key);
        let removed = matches!(how, Mutilation::Removed);
        let right = match Kind::of(key) {
            Kind::Repository => matches!(out.code, Some(10 | 40)),
            Kind::Wrap => matches!(out.code, Some(10 | 12 | 40)),
            _ if removed => out.code == Some(10),
            _ => out.code == Some(40),
        };
        let named = out.stderr.contains(key) || Kind::of(key).is_clear() && removed;
        if !right || !named {
            wrong.push(format!("the generic reader: {out}"));
        }
    }

    /// Where a process for each is too slow: what `repo-get` and every other reader stand on.
    fn judge_library(&mut self, key: &str, wrong: &mut Vec<String>) {
        let parsed = Key::new(key).unwrap();
        let place = named(&parsed).and_then(|named| named.place()).expect("an object");
        let read = || -> Result<(), RepoError> {
            let reader = self.repository.reader(&place)?;
            let mut decoder = FrameDecoder::new().unwrap();
            let mut plain = Vec::new();
            for frame in 0..reader.frames().len() {
                let mut span = reader.fetch(self.repository.store(), frame..frame + 1)?;
                reader.decode(&mut span, frame, &mut decoder, &mut plain)?;
            }
            Ok(())
        };
        match read() {
            Err(RepoError::Damaged { object, .. }) if object == parsed => {}
            other => wrong.push(format!("the library: {other:?}")),
        }
    }

    fn judge_archive_get(&mut self, key: &str, how: &Mutilation, names: &[String], wrong: &mut Vec<String>) {
        // For what is missing before more WAL a recovery waits ten seconds: the newest stands for all.
        let waits = matches!(how, Mutilation::Removed)
            && Kind::of(key) == Kind::Segment
            && self
                .objects
                .keys()
                .rfind(|key| Kind::of(key) == Kind::Segment)
                .is_some_and(|last| last != key);
        if waits && !self.every_call() {
            return;
        }
        if matches!(how, Mutilation::Flip { at, .. } if !self.every_call() && at % 4 != 0) {
            return;
        }
        let asked: Vec<String> = match Kind::of(key) {
            // Whatever is asked for, and what is not there any more than before: the next history.
            Kind::Repository | Kind::Wrap | Kind::Cluster => {
                self.wal.keys().take(1).cloned().chain(["00000003.history".to_owned()]).collect()
            }
            _ => names.iter().filter_map(|name| recovery_asks_for(name)).map(str::to_owned).collect(),
        };
        for name in asked {
            let (out, bytes) = self.archive_get(&name);
            let foreign = matches!(how, Mutilation::OfAnotherRepository);
            let right = match (Kind::of(key), out.code) {
                // Of a file that never was there is nothing that the other repository's seals could contradict.
                (Kind::Repository, Some(1)) => foreign && !self.encrypted && name == "00000003.history",
                // The directory itself tells whose WAL is meant.
                (Kind::Cluster, Some(0)) => bytes.as_ref() == self.wal.get(&name),
                (Kind::Cluster, Some(1)) => name == "00000003.history",
                (_, Some(200)) => bytes.is_none(),
                _ => false,
            };
            let told = match Kind::of(key) {
                Kind::Segment | Kind::History => out.stderr.contains(&name),
                _ => true,
            };
            if !right || !told {
                wrong.push(format!("a recovery that asks for {name}, {how}: {out}"));
            }
        }
    }

    fn judge_restore(&mut self, key: &str, how: &Mutilation, names: &[String], wrong: &mut Vec<String>) {
        let kind = Kind::of(key);
        if !(kind.is_restored_from() || kind == Kind::History || matches!(how, Mutilation::Removed)) {
            return;
        }
        // A few flips through the whole program, most slowly noticed in packs: all of them went through the library.
        let tag = self.objects[key].len() - 17;
        if let (false, Mutilation::Flip { at, .. }) = (self.every_call() || kind.is_clear(), how)
            && ![20, 96, tag].contains(at)
        {
            return;
        }
        let (out, target) = self.restore();
        let started = target.join("global/pg_control").exists();
        let right = match kind {
            Kind::Repository | Kind::Wrap => matches!(out.code, Some(10 | 12 | 40)),
            Kind::Outcome if matches!(how, Mutilation::Removed) => out.code != Some(0),
            Kind::Outcome | Kind::Pack | Kind::Map => out.code == Some(40),
            // What a restore does not read it may do without; what the recovery reads is asked for above.
            _ => matches!(out.code, Some(0 | 40 | 42 | 43)),
        };
        let named_there = |name: &String| out.stderr.contains(name);
        let named = match kind {
            Kind::Pack | Kind::Map => names.iter().any(named_there),
            Kind::Outcome => out.stderr.contains(&self.ids[0]) || names.iter().any(named_there),
            Kind::Repository | Kind::Wrap => !out.stderr.is_empty(),
            _ => true,
        };
        if !right || !named || started != (out.code == Some(0)) {
            wrong.push(format!("restore (pg_control is there: {started}): {out}"));
        }
    }

    fn judge_info(&mut self, key: &str, how: &Mutilation, names: &[String], wrong: &mut Vec<String>) {
        let kind = Kind::of(key);
        let flipped = matches!(how, Mutilation::Flip { at, .. } if at % 5 != 0);
        let cheap =
            matches!(kind, Kind::Repository | Kind::Wrap | Kind::Cluster | Kind::Outcome | Kind::History);
        if !self.every_call() && (!cheap || flipped) {
            return;
        }
        self.calls += 1;
        let json = self.walden.run(&["info", "--output=json"]);
        let all = format!("{}{}", json.stdout, json.stderr);
        let removed = matches!(how, Mutilation::Removed);
        let other_is_shown = all.contains(&self.ids[1]);
        let named = names.iter().any(|name| all.contains(name));
        let right = match kind {
            Kind::Repository | Kind::Wrap => json.code != Some(0) || all.contains("repo1"),
            // What was never written is no damage; its swapped sibling is the other backup's.
            Kind::Outcome => removed && other_is_shown || named && (other_is_shown || names.len() > 1),
            Kind::Cluster | Kind::History => other_is_shown && (removed || named),
            _ => other_is_shown,
        };
        if !right {
            wrong.push(format!("info: {json}"));
        }
    }

    /// `verify` names it, and says what it is. Of each kind one object, with one bit flipped and all else that
    /// can be done to it.
    fn judge_verify(&mut self, key: &str, how: &Mutilation, names: &[String], wrong: &mut Vec<String>) {
        let kind = Kind::of(key);
        let first = self.objects.keys().find(|other| {
            Kind::of(other) == kind && (!other.contains("/data/") || other.contains(&self.ids[0]))
        });
        let trailer = self.objects[key].len() - 16;
        let flipped = matches!(how, Mutilation::Flip { at, .. } if kind.is_clear() || *at != trailer - 1);
        if !self.every_call() && (!self.encrypted || first.is_none_or(|first| first != key) || flipped) {
            return;
        }
        let wal = key.rsplit('/').next().unwrap().get(..24).map(|name| format!("--wal={name}"));
        let scope = match kind {
            Kind::Started | Kind::Note | Kind::Pack | Kind::Map => vec!["--set", self.ids[0].as_str()],
            Kind::Outcome if !matches!(how, Mutilation::Removed) => vec!["--set", self.ids[0].as_str()],
            // Not the removed ones: nothing says that they were there.
            Kind::Segment | Kind::Part | Kind::Partial | Kind::BackupHistory => {
                vec![wal.as_deref().expect("a segment's name")]
            }
            _ => Vec::new(),
        };
        self.calls += 1;
        let out = self.walden.run(&[&["verify"][..], &scope].concat());
        let removed = matches!(how, Mutilation::Removed);
        let code = out.code.unwrap_or(-1);
        let named = names.iter().any(|name| out.stdout.contains(name.as_str()));
        let right = match kind {
            Kind::Repository | Kind::Wrap => matches!(code, 10 | 12 | 40),
            // PostgreSQL's own notes, and what is unfinished, may be missing.
            Kind::Partial | Kind::BackupHistory if removed => code == 0,
            // Told by their names alone: nothing says that they were there.
            Kind::Note | Kind::Retired if removed => code == 0,
            _ if removed => code == 42 && named,
            _ => code == 40 && named,
        };
        if !right {
            wrong.push(format!("verify: {out}"));
        }
    }

    fn every_call(&self) -> bool {
        test_all()
    }

    fn run(mut self) {
        let begun = Instant::now();
        // The second backup's own objects are there to be mistaken for the first's.
        let keys: Vec<String> =
            self.objects.keys().filter(|key| !key.contains(&self.ids[1])).cloned().collect();
        let mut kinds: BTreeMap<Kind, usize> = BTreeMap::new();
        for key in &keys {
            *kinds.entry(Kind::of(key)).or_default() += 1;
            for how in self.mutilations(key) {
                self.attempt(key, &how);
            }
        }
        let wrong = &self.wrong;
        assert!(wrong.is_empty(), "{} of {} went wrong:\n{}", wrong.len(), self.tried, wrong.join("\n"));
        // Everything was put back.
        let (out, _) = self.restore();
        assert!(out.success(), "{out}");
        println!(
            "{} objects {kinds:?}, {} mutilations, {} calls, {:.1} s",
            keys.len(),
            self.tried,
            self.calls,
            begun.elapsed().as_secs_f32()
        );
        for kind in [Kind::Pack, Kind::Segment] {
            assert!(kinds[&kind] >= 2, "too few to swap: {kinds:?}");
        }
        for kind in [Kind::Repository, Kind::Cluster, Kind::Started, Kind::Outcome, Kind::Map, Kind::History]
        {
            assert!(kinds.contains_key(&kind), "{kinds:?}");
        }
        for kind in [Kind::Partial, Kind::BackupHistory, Kind::Note, Kind::Retired] {
            assert!(kinds.contains_key(&kind), "{kinds:?}");
        }
    }
}

/// The name under which a recovery asks for what the object holds.
fn recovery_asks_for(key: &str) -> Option<&str> {
    matches!(Kind::of(key), Kind::Segment | Kind::History).then(|| key.rsplit('/').next().unwrap())
}

/// Segments from 64 MB on are stored in parts.
#[test]
fn no_mutilated_part_of_a_large_segment_is_taken_for_whole() {
    let scratch = Scratch::new();
    let walden = Walden::new(&scratch);
    let cluster = Cluster::build(&scratch, newest_major())
        .segment_size_mb(64)
        .archive_command(&walden.archive_command())
        .start();
    walden.configure(&cluster, &[]);
    walden.ok(&["stanza-create"]);
    let segment = cluster.sql("select pg_walfile_name(pg_current_wal_lsn())");
    cluster.archive_now();
    let objects = objects_below(&walden.repo_path());
    let parts: Vec<&String> = objects.keys().filter(|key| Kind::of(key) == Kind::Part).collect();
    assert!(parts.len() >= 2, "{:?}", objects.keys());
    let (part, sibling) = (parts[0], parts[1]);
    let whole = &objects[part];
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 4;
    let target = scratch.join("asked");
    let get = || walden.run(&["archive-get", &segment, target.to_str().unwrap()]);
    assert_eq!(get().code, Some(0));
    for (how, bytes) in [
        ("flipped", Some(flipped.as_slice())),
        ("cut", Some(&whole[..whole.len() / 2])),
        ("emptied", Some(&[])),
        ("removed", None),
        ("swapped", Some(objects[sibling].as_slice())),
    ] {
        match bytes {
            Some(bytes) => drop(scratch.write(walden.repo_path().join(part), bytes)),
            None => fs::remove_file(walden.repo_path().join(part)).unwrap(),
        }
        let _ = fs::remove_file(&target);
        let got = get();
        assert!(got.code == Some(200) && !target.exists(), "{how}: {got}");
        let verified = walden.run(&["verify"]);
        assert_eq!(verified.code, Some(if bytes.is_some() { 40 } else { 42 }), "{how}: {verified}");
        assert!(verified.stdout.contains(part.as_str()), "{how}: {verified}");
    }
}

#[test]
fn no_mutilated_object_of_an_encrypted_repository_is_taken_for_whole() {
    Campaign::begin(true).run();
}

#[test]
fn no_mutilated_object_of_a_plain_repository_is_taken_for_whole() {
    Campaign::begin(false).run();
}
