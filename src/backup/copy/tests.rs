use super::*;
use crate::env::Fixed;
use crate::postgres::page;
use crate::repo::frame::FrameDecoder;
use crate::repo::keys::Secret;
use crate::repo::map::{Contents, EntryKind, MapReader, MapWriter};
use crate::repo::object::ObjectReader;
use crate::storage::memory::MemoryStore;
use crate::storage::{Created, Folder, Key, Listed, Pending, Store, StoreError};
use crate::units::{BackupKind, ByteCount, Lsn, Timestamp};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

fn env() -> Fixed {
    Fixed::new(Timestamp::from_unix_seconds(0), 11)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn repository(store: Arc<dyn Store>) -> Repository {
    Repository::create(store, Some(&Secret::generate(&env()).unwrap()), "memory", &env()).unwrap()
}

fn settings(spool: &std::path::Path) -> CopySettings {
    CopySettings {
        workers: 2,
        compression: Compression::Zstd(1),
        pack_size: 200_000,
        page_size: 8192,
        spool: spool.to_owned(),
        verify_writes: true,
        commits: 2,
    }
}

fn head(path: &str, size: u64) -> FileHead {
    FileHead { path: path.into(), mode: 0o600, mtime: Some(5), size, first_block: None }
}

/// Copies `files`, given to the framer in pieces of `piece` bytes.
fn copy_files(
    repository: &Repository,
    files: &BTreeMap<String, Vec<u8>>,
    piece: usize,
) -> Result<Copied, CopyError<()>> {
    let spool = tempfile::tempdir().unwrap();
    let id = BackupId::new(Timestamp::from_unix_seconds(0), BackupKind::Full, [1; 13]);
    copy(
        repository,
        &"shop".parse().unwrap(),
        &id,
        &settings(spool.path()),
        &env(),
        &runtime(),
        |mut framer| async move {
            for (path, bytes) in files {
                framer.begin(head(path, bytes.len() as u64)).await;
                for part in bytes.chunks(piece) {
                    framer.data(part).await?;
                }
            }
            Ok(framer)
        },
    )
}

fn read_back(repository: &Repository, copied: Copied) -> BTreeMap<String, Vec<u8>> {
    let stanza: Stanza = "shop".parse().unwrap();
    let id = BackupId::new(Timestamp::from_unix_seconds(0), BackupKind::Full, [1; 13]);
    let environment = env();
    let mut writer = MapWriter::new(repository, &stanza, &id, &environment).unwrap();
    for entry in copied.entries {
        writer.push(&entry.unwrap()).unwrap();
    }
    let (place, _) = writer.finish().unwrap();
    let mut map = MapReader::open(repository, &stanza, &id, &place).unwrap();
    let mut decoder = FrameDecoder::new().unwrap();
    let mut frame = |pack: u32, at: u32| {
        let place = layout_pack(&stanza, &id, pack);
        let reader: ObjectReader = repository.reader(&place).unwrap();
        let mut span = reader.fetch(repository.store(), at as usize..at as usize + 1).unwrap();
        let mut plain = Vec::new();
        reader.decode(&mut span, at as usize, &mut decoder, &mut plain).unwrap();
        plain
    };
    let mut files = BTreeMap::new();
    map.for_each(|entry| {
        let EntryKind::File { size, contents, .. } = entry.kind else { panic!("not a file") };
        let bytes = match contents {
            Contents::Empty => Vec::new(),
            Contents::Shared { pack, frame: at, offset } => {
                frame(pack.number, at)[offset as usize..offset as usize + size as usize].to_vec()
            }
            Contents::Frames { runs, .. } => runs
                .iter()
                .flat_map(|run| (run.first..run.first + run.count).map(|at| (run.pack.number, at)))
                .flat_map(|(pack, at)| frame(pack, at))
                .collect(),
        };
        assert_eq!(bytes.len() as u64, size);
        files.insert(String::from_utf8(entry.path).unwrap(), bytes);
        Ok::<(), RepoError>(())
    })
    .unwrap();
    files
}

fn layout_pack(stanza: &Stanza, id: &BackupId, pack: u32) -> crate::repo::layout::Place {
    crate::repo::layout::pack(stanza, id, pack).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn files_come_back_whatever_their_sizes_and_however_the_stream_is_cut(
        sizes in proptest::collection::vec(prop_oneof![0_usize..100, 60_000_usize..70_000, 100_000_usize..900_000], 0..12),
        piece in 1_usize..200_000,
        seed: u64,
    ) {
        let piece = piece.max(1000);
        let files: BTreeMap<String, Vec<u8>> = sizes
            .iter()
            .enumerate()
            .map(|(number, size)| {
                let mut bytes = vec![0; *size];
                // Half noise, half zeros, so that frames of either codec occur.
                let noise = size / 2;
                blake3::Hasher::new()
                    .update(&seed.to_le_bytes())
                    .update(&[number as u8])
                    .finalize_xof()
                    .fill(&mut bytes[..noise]);
                (format!("base/{number}"), bytes)
            })
            .collect();
        let repository = repository(Arc::new(MemoryStore::default()));
        let copied = copy_files(&repository, &files, piece).unwrap();
        prop_assert_eq!(copied.files, files.len() as u64);
        prop_assert_eq!(read_back(&repository, copied), files);
    }
}

#[test]
fn a_source_that_ends_inside_a_file_is_no_backup() {
    let repository = repository(Arc::new(MemoryStore::default()));
    let spool = tempfile::tempdir().unwrap();
    let id = BackupId::new(Timestamp::from_unix_seconds(0), BackupKind::Full, [1; 13]);
    for given in [1, 70_000] {
        let copied: Result<_, CopyError<()>> = copy(
            &repository,
            &"shop".parse().unwrap(),
            &id,
            &settings(spool.path()),
            &env(),
            &runtime(),
            |mut framer| async move {
                framer.begin(head("base/1", 100_000)).await;
                framer.data(&vec![1; given]).await?;
                Ok(framer)
            },
        );
        assert!(matches!(copied, Err(CopyError::Interrupted)), "{given}");
    }
}

#[test]
fn a_sources_own_error_is_the_one_that_is_told() {
    let repository = repository(Arc::new(MemoryStore::default()));
    let spool = tempfile::tempdir().unwrap();
    let id = BackupId::new(Timestamp::from_unix_seconds(0), BackupKind::Full, [1; 13]);
    let copied = copy(
        &repository,
        &"shop".parse().unwrap(),
        &id,
        &settings(spool.path()),
        &env(),
        &runtime(),
        |_| async { Err(SourceEnd::Failed("the server went away")) },
    );
    assert!(matches!(copied, Err(CopyError::Source("the server went away"))));
}

#[test]
fn a_worker_that_dies_ends_the_copy_and_keeps_nobody_waiting() {
    let (told, outcome) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let repository = repository(Arc::new(MemoryStore::default()));
        let spool = tempfile::tempdir().unwrap();
        let id = BackupId::new(Timestamp::from_unix_seconds(0), BackupKind::Full, [1; 13]);
        // Pages of no bytes: whoever checks them panics.
        let settings = CopySettings { page_size: 0, ..settings(spool.path()) };
        let stanza = "shop".parse().unwrap();
        let copied: Result<_, CopyError<()>> =
            copy(&repository, &stanza, &id, &settings, &env(), &runtime(), |mut framer| async move {
                framer.check_pages(Lsn::new(1));
                for number in 0..1000 {
                    let first_block = Some(0);
                    framer.begin(FileHead { first_block, ..head(&format!("base/{number}"), 60_000) }).await;
                    framer.data(&[1; 60_000]).await?;
                }
                Ok(framer)
            });
        let _ = told.send(matches!(copied, Err(CopyError::Interrupted)));
    });
    assert_eq!(outcome.recv_timeout(std::time::Duration::from_secs(30)), Ok(true));
}

/// A store in which nothing can be committed without a panic.
#[derive(Debug, Default)]
struct Panicking(MemoryStore);

struct PanickingPending;

impl Pending for PanickingPending {
    fn write(&mut self, _: &[u8]) -> Result<(), StoreError> {
        Ok(())
    }
    fn commit(self: Box<Self>) -> Result<Created, StoreError> {
        panic!("a pack that cannot be committed")
    }
}

impl Store for Panicking {
    fn describe(&self) -> String {
        self.0.describe()
    }
    fn create(&self, key: &Key, bytes: &[u8]) -> Result<Created, StoreError> {
        self.0.create(key, bytes)
    }
    fn begin(&self, _: &Key) -> Result<Box<dyn Pending>, StoreError> {
        Ok(Box::new(PanickingPending))
    }
    fn make_durable(&self, key: &Key) -> Result<(), StoreError> {
        self.0.make_durable(key)
    }
    fn read(&self, key: &Key, limit: ByteCount) -> Result<Vec<u8>, StoreError> {
        self.0.read(key, limit)
    }
    fn read_range(&self, key: &Key, range: std::ops::Range<u64>) -> Result<Vec<u8>, StoreError> {
        self.0.read_range(key, range)
    }
    fn read_end(&self, key: &Key, length: u64) -> Result<(Vec<u8>, ByteCount), StoreError> {
        self.0.read_end(key, length)
    }
    fn size(&self, key: &Key) -> Result<Option<ByteCount>, StoreError> {
        self.0.size(key)
    }
    fn list(&self, folder: &Key, each: &mut dyn FnMut(Listed)) -> Result<(), StoreError> {
        self.0.list(folder, each)
    }
    fn folder(&self, folder: Option<&Key>) -> Result<Folder, StoreError> {
        self.0.folder(folder)
    }
    fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.0.delete(key)
    }
}

#[test]
fn a_committer_that_dies_ends_the_copy_and_keeps_nobody_waiting() {
    let (told, outcome) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let repository = repository(Arc::new(Panicking::default()));
        // Noise, so that there are more packs than threads that commit them.
        let mut noise = vec![0; 1 << 20];
        blake3::Hasher::new().finalize_xof().fill(&mut noise);
        let files = (0..8).map(|number| (format!("base/{number}"), noise.clone())).collect();
        let copied = copy_files(&repository, &files, 100_000);
        let _ = told.send(matches!(copied, Err(CopyError::Interrupted)));
    });
    assert_eq!(outcome.recv_timeout(std::time::Duration::from_secs(30)), Ok(true));
}

/// A page that is sound as block `block` of its fork.
fn page(block: u32, lsn: u32) -> Vec<u8> {
    let mut page = vec![block as u8 | 1; 8192];
    page[..4].fill(0);
    page[4..8].copy_from_slice(&lsn.to_le_bytes());
    let checksum = page::checksum(&page, block).unwrap();
    page[8..10].copy_from_slice(&checksum.to_le_bytes());
    page
}

/// Pages from `first` on, all of one LSN but those named here: damaged, with an LSN of their own.
fn relation(first: u32, pages: u32, damaged: &[(u32, u32)]) -> Vec<u8> {
    let one = |number: u32| {
        let bad = damaged.iter().find(|(block, _)| *block == number);
        let mut bytes = page(first + number, bad.map_or(50, |(_, lsn)| *lsn));
        if bad.is_some() {
            bytes[5000] ^= 1;
        }
        bytes
    };
    (0..pages).flat_map(one).collect()
}

#[test]
fn a_bad_page_is_named_wherever_it_lies_unless_it_was_being_written() {
    const SECOND_FILE: u32 = 131_072;
    let began = 100;
    let files = [
        // Of several frames. A page of the moment the backup began or later was being written: WAL has it.
        ("base/5/1", 0, relation(0, 40, &[(0, 99), (16, 50), (17, 100), (18, 4_000), (39, 50)])),
        ("base/5/1.1", SECOND_FILE, relation(SECOND_FILE, 20, &[(3, 50), (19, 50)])),
        // Two that share a frame.
        ("base/5/2", 0, relation(0, 2, &[(1, 50)])),
        ("base/5/2_vm", 0, relation(0, 1, &[])),
        ("base/5/3.1", SECOND_FILE, relation(SECOND_FILE, 2, &[(0, 50), (1, 200)])),
        // The last page is being added: a part of it is no page.
        ("pg_tblspc/16500/PG_18_202506291/5/9", 0, [relation(0, 30, &[(29, 50)]), vec![1; 4096]].concat()),
        // Never initialised.
        ("base/5/4", 0, vec![0; 8192 * 3]),
    ];
    let repository = repository(Arc::new(MemoryStore::default()));
    let spool = tempfile::tempdir().unwrap();
    let id = BackupId::new(Timestamp::from_unix_seconds(0), BackupKind::Full, [1; 13]);
    let settings = settings(spool.path());
    let stanza = "shop".parse().unwrap();
    let copied: Result<_, CopyError<()>> =
        copy(&repository, &stanza, &id, &settings, &env(), &runtime(), |mut framer| async move {
            framer.check_pages(Lsn::new(began));
            for (path, first, bytes) in &files {
                framer.begin(FileHead { first_block: Some(*first), ..head(path, bytes.len() as u64) }).await;
                for part in bytes.chunks(50_000) {
                    framer.data(part).await?;
                }
            }
            // No relation: what it holds is no page.
            framer.begin(head("pg_xact/0000", 8192)).await;
            framer.data(&relation(0, 1, &[(0, 50)])).await?;
            Ok(framer)
        });
    let copied = copied.unwrap();
    let mut named: Vec<(&str, u32)> =
        copied.failures.iter().map(|one| (one.path.as_str(), one.block)).collect();
    named.sort_unstable();
    let expected = [
        ("base/5/1", 0),
        ("base/5/1", 16),
        ("base/5/1", 39),
        ("base/5/1.1", 3),
        ("base/5/1.1", 19),
        ("base/5/2", 1),
        ("base/5/3.1", 0),
        ("pg_tblspc/16500/PG_18_202506291/5/9", 29),
    ];
    assert_eq!(named, expected);
    assert_eq!(copied.failure_count, expected.len() as u64);
}
