//! The writing side of a restore against a store that fails at each of its calls, and disks that fill: without a
//! server, from an image made of files that real ones are made of, and some that they are hardly.

use crate::common::{Scratch, finish};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use walden::backup::copy::{CopySettings, FileHead, SourceEnd, copy};
use walden::env::Fixed;
use walden::postgres::backup_manifest::{ManifestEntry, ManifestReader};
use walden::repo::Repository;
use walden::repo::frame::Compression;
use walden::repo::map::{EntryKind, MapWriter};
use walden::repo::record::{
    ClusterState, LineageStep, PageChecksums, Record, Sizes, Started, Tablespace, Uses, WalProof,
};
use walden::restore::directory::{self, Found, Place, Wishes};
use walden::restore::error::RestoreError;
use walden::restore::execute::{Task, execute};
use walden::restore::owner::Owner;
use walden::restore::settings::{Configuration, GetCommand};
use walden::restore::tablespaces::Destinations;
use walden::restore::target::{Goal, Target, TargetTimeline};
use walden::restore::write::{Observer, Phase, Source, WriteSettings};
use walden::storage::Store;
use walden::storage::faulty::{Fault, FaultyStore};
use walden::storage::memory::MemoryStore;
use walden::units::{BackupId, BackupKind, Lsn, Stanza, SystemIdentifier, TimelineId, Timestamp};

const SYSTEM: SystemIdentifier = SystemIdentifier::new(7_572_093_145_086_623_041);
const LABEL: &str = "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n";
const SPACE: u32 = 16391;

struct Silent;
impl Observer for Silent {
    fn interrupted(&self) -> bool {
        false
    }
    fn wrote(&self, _: u64) {}
    fn phase(&self, _: Phase) {}
}

fn stanza() -> Stanza {
    "shop".parse().unwrap()
}

fn env() -> Fixed {
    Fixed::new(Timestamp::from_unix_seconds(1_795_227_660), 5)
}

/// Bytes that neither repeat nor compress to nothing, the same each time.
fn contents(path: &[u8], size: usize) -> Vec<u8> {
    let mut state = path.iter().fold(17_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(*byte)));
    (0..size)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 27) as u8
        })
        .collect()
}

/// What is in the image, and what of it should come back.
fn image() -> Vec<(Vec<u8>, Option<Vec<u8>>, bool)> {
    let mut image: Vec<(Vec<u8>, Option<Vec<u8>>, bool)> = Vec::new();
    let mut directory = |path: &str, back| image.push((path.as_bytes().to_vec(), None, back));
    for path in ["base", "base/5", "global", "pg_wal", "pg_wal/archive_status", "pg_tblspc", "pg_notify"] {
        directory(path, true);
    }
    directory("pg_tblspc/16391", false);
    directory("pg_tblspc/16391/PG_17_202406281", true);
    directory("pg_tblspc/16391/PG_17_202406281/5", true);
    let mut file = |path: &[u8], size: usize, back| {
        image.push((path.to_vec(), Some(contents(path, size)), back));
    };
    file(b"PG_VERSION", 3, true);
    file(b"postgresql.conf", 900, true);
    file(b"global/pg_control", 8192, true);
    file(b"global/1262", 8192, true);
    for n in 0..40 {
        file(format!("base/5/{}", 1000 + n).as_bytes(), 512 + n * 1700, true);
    }
    file(b"base/5/large", 3_000_000, true);
    file(b"base/5/pages", 262_144, true);
    file(b"base/5/empty", 0, true);
    file(b"base/5/\xFFnot\nutf8 \"'\\", 77, true);
    file(b"pg_tblspc/16391/PG_17_202406281/5/24576", 200_000, true);
    // Of another server, or of its recovery.
    file(b"tablespace_map", 30, false);
    file(b"standby.signal", 0, false);
    file(b"backup_manifest", 500, false);
    file(b"postmaster.pid", 50, false);
    file(b"pg_wal/000000010000000000000002", 70_000, false);
    image.push((b"backup_label".to_vec(), Some(LABEL.as_bytes().to_vec()), true));
    image.push((
        b"postgresql.auto.conf".to_vec(),
        Some(b"work_mem = '8MB'\nprimary_conninfo = 'host=old'\n".to_vec()),
        false,
    ));
    image
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// A repository in memory with one backup of the image.
fn stored(space: &Path) -> (MemoryStore, Record) {
    let store = MemoryStore::default();
    let env = env();
    let repository = Repository::create(Arc::new(store.clone()), None, "memory", &env).unwrap();
    let id = BackupId::new(Timestamp::from_unix_seconds(1_795_227_660), BackupKind::Full, [7; 13]);
    let started = Started {
        backup_id: id.clone(),
        system_identifier: SYSTEM,
        parents: Vec::new(),
        writer: "w".to_owned(),
        wal_floor_lsn: Lsn::new(1),
        wal_floor_timeline: TimelineId::FIRST,
        started_at_unix_us: Timestamp::from_unix_seconds(1),
        resume_of: None,
    };
    let draft = repository.begin_backup(&stanza(), &started, &env).unwrap();
    let spool = tempfile::tempdir().unwrap();
    let settings = CopySettings {
        workers: 1,
        compression: Compression::Zstd(1),
        pack_size: 400_000,
        page_size: 8192,
        spool: spool.path().to_owned(),
        verify_writes: false,
        commits: 1,
    };
    let copied = copy(&repository, &stanza(), &id, &settings, &env, &runtime(), |mut framer| async move {
        for (path, bytes, _) in image() {
            let size = bytes.as_ref().map_or(0, Vec::len) as u64;
            let head = FileHead { path, mode: 0o600, mtime: None, size, first_block: None };
            match bytes {
                None => framer.bare(FileHead { mode: 0o700, ..head }, EntryKind::Directory).await,
                Some(bytes) => {
                    framer.begin(head).await;
                    framer.data(&bytes).await?;
                }
            }
        }
        Ok::<_, SourceEnd<()>>(framer)
    })
    .unwrap();
    let stanza = stanza();
    let mut map = MapWriter::new(&repository, &stanza, &id, &env).unwrap();
    for entry in copied.entries {
        map.push(&entry.unwrap()).unwrap();
    }
    let (map, _) = map.finish().unwrap();
    let uses = Uses(vec![(id.clone(), copied.packs)]);
    let record = Record {
        backup_id: id,
        system_identifier: SYSTEM,
        timeline: TimelineId::FIRST,
        start_lsn: Lsn::new(0x200_0028),
        stop_lsn: Lsn::new(0x200_0120),
        checkpoint_lsn: Lsn::new(0x200_0060),
        started_at_unix_us: Timestamp::from_unix_seconds(1),
        stopped_at_unix_us: Timestamp::from_unix_seconds(2),
        from_standby: false,
        backup_label: LABEL.to_owned(),
        tablespaces: vec![Tablespace { oid: SPACE, location: space.display().to_string() }],
        lineage: vec![LineageStep { timeline: TimelineId::FIRST, begin_lsn: Lsn::new(0) }],
        wal_proof: WalProof {
            segment: "000000010000000000000002".parse().unwrap(),
            until_lsn: Lsn::new(0x200_0120),
            sha256: String::new(),
        },
        cluster: ClusterState {
            server_version_num: 170_000,
            control_version: 1300,
            catalog_version: 202_406_281,
            data_checksum_version: 0,
            page_size_bytes: 8192,
            wal_segment_size_bytes: 16 << 20,
            blocks_per_file: 131_072,
        },
        sizes: Sizes { database_bytes: copied.database_bytes, ..Sizes::default() },
        map,
        page_checksums: PageChecksums::default(),
        configuration_outside: Vec::new(),
        annotations: BTreeMap::new(),
        seen: Vec::new(),
        writer: "w".to_owned(),
        walden_version: "0".to_owned(),
    };
    draft.commit(&record, &uses, &env).unwrap();
    (store, record)
}

fn owner() -> Owner {
    match Owner::of_this_process() {
        Owner { user: 0, .. } => Owner { user: 12345, group: 54321 },
        me => me,
    }
}

fn wishes(target: &Path, space: &Path, wal_dir: Option<PathBuf>) -> Wishes {
    Wishes {
        pgdata: target.to_owned(),
        wal_dir,
        tablespaces: Destinations {
            linked: BTreeMap::from([(SPACE, space.to_owned())]),
            ..Destinations::default()
        },
        owner: Some(owner()),
        force: false,
        system: SYSTEM,
        version_folder: "PG_17_202406281".to_owned(),
        keep_out: Vec::new(),
    }
}

fn examine(target: &Path, space: &Path) -> Place {
    directory::examine(&wishes(target, space, None), "20261121T084116Z").unwrap()
}

fn restore(store: Arc<dyn Store>, record: &Record, place: &Place, spool: &Path) -> Result<u64, RestoreError> {
    let repository = Repository::open(store, &|| Ok(None))?;
    let stanza = stanza();
    let target =
        Target { goal: Goal::EndOfArchive, exclusive: false, action: None, timeline: TargetTimeline::Latest };
    let command = GetCommand {
        program: "/usr/bin/walden".into(),
        options: Vec::new(),
        system: SYSTEM,
        target_timeline: Some(TimelineId::FIRST),
        known_end: None,
        needed_to: None,
    };
    let configuration =
        Configuration::for_target(&target, TimelineId::FIRST, &command, None, true, &[]).unwrap();
    let task = Task {
        source: Source { repository: &repository, stanza: &stanza },
        record,
        place,
        configuration: &configuration,
        headline: "a test".to_owned(),
        how_to_go_on: "run it again".to_owned(),
        wal: None,
        settings: WriteSettings { workers: 2, spool: spool.to_owned(), keep_signals: false },
    };
    execute(&task, &env(), &Silent).map(|written| written.files)
}

/// Every file and directory below, with its kind.
fn below(root: &Path) -> BTreeMap<Vec<u8>, bool> {
    let mut found = BTreeMap::new();
    let mut left = vec![root.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let entry = entry.unwrap();
            let kind = entry.file_type().unwrap();
            let path = entry.path();
            found.insert(path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec(), kind.is_dir());
            if kind.is_dir() {
                left.push(path);
            }
        }
    }
    found
}

fn assert_restored(target: &Path, space: &Path) {
    let mut expected = BTreeMap::new();
    for (path, bytes, back) in image() {
        let shown = String::from_utf8_lossy(&path).into_owned();
        if !back {
            continue;
        }
        let at = target.join(OsStr::from_bytes(&path));
        let metadata = fs::metadata(&at).unwrap_or_else(|error| panic!("{shown}: {error}"));
        assert_eq!((metadata.uid(), metadata.gid()), (owner().user, owner().group), "{shown}");
        match &bytes {
            Some(bytes) => {
                assert!(fs::read(&at).unwrap() == *bytes, "{shown} has other contents");
                assert_eq!(metadata.permissions().mode() & 0o7777, 0o600, "{shown}");
            }
            None => assert_eq!(metadata.permissions().mode() & 0o7777, 0o700, "{shown}"),
        }
        if !path.starts_with(b"pg_tblspc/") {
            expected.insert(path, bytes.is_none());
        }
    }
    for ours in ["backup_manifest", "postgresql.auto.conf", "recovery.signal", "pg_tblspc/16391"] {
        expected.insert(ours.as_bytes().to_vec(), false);
    }
    assert_eq!(below(target), expected, "something else is there, or something is not");
    assert_eq!(fs::read_link(target.join("pg_tblspc/16391")).unwrap(), space);
    let conf = fs::read_to_string(target.join("postgresql.auto.conf")).unwrap();
    assert!(
        conf.contains("work_mem") && conf.contains("archive_mode = 'off'") && !conf.contains("host=old"),
        "{conf}"
    );

    let mut reader = ManifestReader::new();
    let mut listed = BTreeMap::new();
    let manifest = fs::read(target.join("backup_manifest")).unwrap();
    reader
        .feed(&manifest, &mut |entry| {
            if let ManifestEntry::File(file) = entry {
                let crc = file.checksum.as_ref().and_then(|checksum| checksum.as_crc32c());
                listed.insert(file.path, (file.size, crc));
            }
        })
        .unwrap();
    reader.finish().unwrap();
    let files: BTreeMap<_, _> = image()
        .into_iter()
        .filter(|(_, bytes, back)| *back && bytes.is_some())
        .map(|(path, bytes, _)| {
            let bytes = bytes.unwrap();
            let crc = Some(crc32c::crc32c(&bytes));
            (path, (bytes.len() as u64, crc))
        })
        .collect();
    assert_eq!(listed, files);
}

#[test]
fn a_restored_tree_is_the_image_without_what_belongs_to_another_server() {
    let scratch = Scratch::new();
    let (target, space) = (scratch.join("data"), scratch.join("space"));
    let (store, record) = stored(&space);
    let files = restore(Arc::new(store), &record, &examine(&target, &space), scratch.path()).unwrap();
    assert_restored(&target, &space);
    let back = image().iter().filter(|(_, bytes, back)| *back && bytes.is_some()).count();
    // With the settings, which are rewritten.
    assert_eq!(files as usize, back + 1);
}

#[test]
fn wherever_the_store_fails_nothing_starts_and_the_next_restore_succeeds() {
    let scratch = Scratch::new();
    let space = scratch.join("space");
    let (store, record) = stored(&space);
    let counting = FaultyStore::counting(store.clone());
    let first = scratch.join("first");
    restore(Arc::new(counting.clone()), &record, &examine(&first, &space), scratch.path()).unwrap();
    fs::remove_dir_all(&space).unwrap();
    let calls = counting.calls();
    assert!(calls > 15, "{calls} calls are too few to mean anything:\n{}", counting.log().join("\n"));
    let target = scratch.join("data");
    let mut unfinished = 0;
    for fault in Fault::ALL {
        for at in 0..calls {
            let faulty = FaultyStore::failing_from(store.clone(), at, fault);
            let place = examine(&target, &space);
            unfinished += u32::from(place.found == Found::Unfinished);
            let died = restore(Arc::new(faulty.clone()), &record, &place, scratch.path());
            // Workers share the calls out differently each time: a late one may never come.
            if faulty.calls() > at {
                let error = died.expect_err("a restore that lost a call reported success");
                // Nobody asked it to stop: the worker that failed says why, whoever noticed first.
                assert!(
                    !matches!(error, RestoreError::Stopped | RestoreError::Interrupted),
                    "call {at} ({fault:?}): {error}"
                );
                assert!(!target.join("global/pg_control").exists(), "it could be started after call {at}");
                continue;
            }
            fs::remove_dir_all(&target).unwrap();
            fs::remove_dir_all(&space).unwrap();
        }
    }
    // All of them left something to the next; the last of them succeeds without force.
    assert!(unfinished > 10, "only {unfinished} were begun again in what another had left");
    let place = examine(&target, &space);
    restore(Arc::new(store), &record, &place, scratch.path()).unwrap();
    assert_restored(&target, &space);
}

#[test]
fn a_disk_that_fills_leaves_nothing_that_starts_and_goes_on_when_there_is_room() {
    if Owner::of_this_process().user != 0 {
        return;
    }
    let scratch = Scratch::new();
    let space = scratch.join("space");
    let (store, record) = stored(&space);
    let disk = scratch.dir("disk");
    let target = disk.join("data");
    let mount = |options: String| {
        let mut command = std::process::Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&disk);
        assert!(finish(command).success(), "cannot mount a small file system");
    };
    mount("size=64k,mode=0755".to_owned());
    let mut refused = 0;
    for kib in (64..6000).step_by(397) {
        mount(format!("remount,size={kib}k"));
        // The plan would refuse; somebody else fills the disk meanwhile.
        let place = examine(&target, &space);
        match restore(Arc::new(store.clone()), &record, &place, scratch.path()) {
            Ok(_) => break,
            Err(RestoreError::File { source, .. }) => {
                assert_eq!(source.kind(), std::io::ErrorKind::StorageFull);
                refused += 1;
            }
            Err(RestoreError::Durable(_)) => refused += 1,
            Err(other) => panic!("{other}"),
        }
        assert!(!target.join("global/pg_control").exists());
    }
    let whole = target.join("global/pg_control").exists();
    let compared = std::panic::catch_unwind(|| {
        if whole {
            assert_restored(&target, &space);
        }
    });
    let mut unmount = std::process::Command::new("umount");
    unmount.arg(&disk);
    assert!(finish(unmount).success(), "cannot unmount {}", disk.display());
    if let Err(panic) = compared {
        std::panic::resume_unwind(panic);
    }
    assert!(whole && refused > 4, "{refused} times refused, whole: {whole}");
}

#[test]
fn a_data_directory_that_is_replaced_keeps_its_wal_and_loses_the_rest() {
    let scratch = Scratch::new();
    let (target, space) = (scratch.join("data"), scratch.join("space"));
    let wal = scratch.join("wal");
    let (store, record) = stored(&space);
    let place = directory::examine(&wishes(&target, &space, Some(wal.clone())), "20261121T084116Z").unwrap();
    restore(Arc::new(store.clone()), &record, &place, scratch.path()).unwrap();
    assert_eq!(fs::read_link(target.join("pg_wal")).unwrap(), wal);
    fs::write(wal.join("000000010000000000000009"), "the only copy").unwrap();
    fs::write(target.join("base/5/more"), "later").unwrap();
    // A pg_control that cannot be read is nobody's; without it, the marker alone decides.
    fs::remove_file(target.join("global/pg_control")).unwrap();
    fs::write(target.join(directory::MARKER), "").unwrap();
    let place = directory::examine(&wishes(&target, &space, Some(wal.clone())), "20261121T084117Z").unwrap();
    assert_eq!(place.found, Found::Unfinished);
    restore(Arc::new(store), &record, &place, scratch.path()).unwrap();
    let aside = scratch.join("wal-before-20261121T084117Z");
    assert_eq!(fs::read_to_string(aside.join("000000010000000000000009")).unwrap(), "the only copy");
    assert!(!target.join("base/5/more").exists());
    assert_eq!(fs::read_link(target.join("pg_wal")).unwrap(), wal);
    assert!(wal.join("archive_status").is_dir());
    assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn another_versions_cluster_keeps_its_folder_in_a_tablespace_that_both_use() {
    let scratch = Scratch::new();
    let (target, space) = (scratch.join("data"), scratch.join("space"));
    let (store, record) = stored(&space);
    restore(Arc::new(store.clone()), &record, &examine(&target, &space), scratch.path()).unwrap();
    // As pg_upgrade leaves it: the old cluster may still be run.
    fs::create_dir_all(space.join("PG_16_202307071/5")).unwrap();
    fs::write(space.join("PG_16_202307071/5/24576"), "the other cluster's").unwrap();
    fs::write(space.join("PG_17_202406281/5/1"), "gone since").unwrap();
    fs::remove_file(target.join("global/pg_control")).unwrap();
    fs::write(target.join(directory::MARKER), "").unwrap();
    restore(Arc::new(store), &record, &examine(&target, &space), scratch.path()).unwrap();
    assert_restored(&target, &space);
    assert!(!space.join("PG_17_202406281/5/1").exists());
    let kept = fs::read_to_string(space.join("PG_16_202307071/5/24576")).unwrap();
    assert_eq!(kept, "the other cluster's");
}

#[test]
fn a_server_that_came_up_after_the_plan_keeps_its_directory() {
    let scratch = Scratch::new();
    let (target, space) = (scratch.join("data"), scratch.join("space"));
    let (store, record) = stored(&space);
    restore(Arc::new(store.clone()), &record, &examine(&target, &space), scratch.path()).unwrap();
    fs::remove_file(target.join("global/pg_control")).unwrap();
    fs::write(target.join(directory::MARKER), "").unwrap();
    let place = examine(&target, &space);
    let mut server = std::process::Command::new("sleep").arg("60").current_dir(&target).spawn().unwrap();
    fs::write(target.join("postmaster.pid"), format!("{}\n", server.id())).unwrap();
    let before = below(&target);
    let refused = restore(Arc::new(store), &record, &place, scratch.path());
    server.kill().unwrap();
    server.wait().unwrap();
    assert!(matches!(refused, Err(RestoreError::ServerStarted(_))));
    assert_eq!(below(&target), before);
}
