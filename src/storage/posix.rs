//! A repository in a directory.
//!
//! An object `a/b` is the file `<root>/a/b`, mode 0640 in directories of 0750 whatever the umask. It is
//! written in `<root>/.walden-tmp/` under a random name, synced, and linked to its own name, which fails when
//! that is taken. The root is held open: as long as a store lives its file system cannot be unmounted from
//! under it, and no object can land in the empty directory of a missing mount. It is never made on the way;
//! [`PosixStore::create_root`] makes it.
//!
//! Before the first file enters a folder the whole way to it is synced; a folder with a file in it needs no
//! more ([`Directory::has_a_file`]).
//!
//! Trusted of the file system: link(2) or `renameat2(RENAME_NOREPLACE)` is atomic; fsync tells the truth. What [`Store::delete`] removed may be there again after power loss.

use super::posix_read::{self, Walk};
use super::{Created, Folder, Key, Listed, OWN_PREFIX, Pending, Store, StoreError, StoreErrorKind};
use crate::durable::{self, Directory, Draft, DurableError, IfPresent};
use crate::units::ByteCount;
use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const FILE_MODE: u32 = 0o640;
const DIRECTORY_MODE: u32 = 0o750;

/// Where temporary files lie, in the root.
const TEMPORARY: &str = ".walden-tmp";
const _: () = assert!(matches!(OWN_PREFIX.as_bytes(), b".walden-"));

/// What a [`Pending`] gathers before it writes.
const BUFFER: usize = 64 * 1024;
/// Pieces from here on are written as they are: a copy would cost more than the system call.
const DIRECT: usize = 8 * 1024;

/// How often a folder may vanish under a create (because its last object was deleted) before we give up.
const VANISHED_FOLDERS: u32 = 100;

/// See the module. Clones share the open root.
#[derive(Clone, Debug)]
pub struct PosixStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    root: Arc<Directory>,
    /// A sync failed after a name had become visible. A failed fsync is final: whether such names survive
    /// cannot be found out by this process any more, so it must not say so.
    sync_failed: AtomicBool,
    swept: AtomicBool,
}

impl PosixStore {
    /// The store in the directory `root`, which must exist; a symbolic link to it is fine.
    ///
    /// # Errors
    /// `NotFound` when there is no such directory (an unmounted file system, most likely): not to be taken
    /// for the absence of an object. Otherwise why it cannot be opened.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let directory = Directory::open(root).map_err(|e| {
            let what = if e.raw_os_error() == Some(Errno::NOENT.raw_os_error()) {
                format!("there is no directory {}: is its file system mounted?", root.display())
            } else {
                format!("could not open the repository directory {}", root.display())
            };
            let kind = match e.raw_os_error().map(Errno::from_raw_os_error) {
                Some(Errno::NOENT) => StoreErrorKind::NotFound,
                _ => kind_of(&e),
            };
            StoreError { kind, what, source: Some(Box::new(e)) }
        })?;
        Ok(Self::in_directory(directory))
    }

    /// Makes the directory `root`, with all that is missing on the way, durably, and opens the store in it.
    /// One that is there is taken as it is.
    ///
    /// # Errors
    /// Why it cannot be made.
    pub fn create_root(root: &Path) -> Result<Self, StoreError> {
        durable::create_directories(root, DIRECTORY_MODE).map(Self::in_directory).map_err(|e| {
            let kind = e.io().map_or(StoreErrorKind::Unsupported, kind_of);
            match e {
                // It names the directory on the way that could not be made.
                DurableError::Failed { what, source } => {
                    StoreError { kind, what, source: Some(Box::new(source)) }
                }
                other => StoreError {
                    kind,
                    what: format!("could not make the directory {}", root.display()),
                    source: Some(Box::new(other)),
                },
            }
        })
    }

    fn in_directory(root: Directory) -> Self {
        let shared = Shared {
            root: Arc::new(root),
            sync_failed: AtomicBool::new(false),
            swept: AtomicBool::new(false),
        };
        Self { shared: Arc::new(shared) }
    }

    /// `could not create /srv/repo/a/b`
    fn what(&self, doing: &str, key: &Key) -> String {
        format!("could not {doing} {}", self.shared.root.path().join(key.as_str()).display())
    }

    /// When a name was not found: is it the object that is missing, or the whole repository?
    fn if_root_exists<T>(&self, answer: T, what: impl FnOnce() -> String) -> Result<T, StoreError> {
        match self.shared.root.still_exists() {
            Ok(true) => Ok(answer),
            Ok(false) => Err(StoreError {
                kind: StoreErrorKind::Unavailable,
                what: what(),
                source: Some(
                    format!("the directory {} was removed", self.shared.root.path().display()).into(),
                ),
            }),
            Err(e) => Err(error(what(), e)),
        }
    }

    fn draft(&self) -> Result<Draft, DurableError> {
        let root = &self.shared.root;
        match Draft::create(root, Some(TEMPORARY), FILE_MODE) {
            Err(e) if vanished(&e) => {}
            other => return other,
        }
        // Not synced on the way: nothing in it needs to last.
        match rustix::fs::mkdirat(root, TEMPORARY, Mode::from_raw_mode(DIRECTORY_MODE)) {
            Ok(()) | Err(Errno::EXIST) => Draft::create(root, Some(TEMPORARY), FILE_MODE),
            Err(errno) => Err(DurableError::Failed {
                what: format!("could not make {}", root.path().join(TEMPORARY).display()),
                source: errno.into(),
            }),
        }
    }

    /// The folder of `key`, made when it is not there. `NOENT` when it was deleted while being made.
    fn folder_for(&self, key: &Key) -> Result<FolderOf<'_>, DurableError> {
        let root = &self.shared.root;
        let Some((folder, _)) = key.as_str().rsplit_once('/') else { return Ok(FolderOf::Root(root)) };
        match root.open_below(folder).and_then(|there| Ok((there.has_a_file()?, there))) {
            Ok((true, there)) => Ok(FolderOf::Below(there)),
            Err(source) if !is(&source, Errno::NOENT) => {
                let what = format!("could not open {}", root.path().join(folder).display());
                Err(DurableError::Failed { what, source })
            }
            // An empty one too: its maker may have died before it had synced the way to it.
            _ => root.create_below(folder, DIRECTORY_MODE).map(FolderOf::Below),
        }
    }

    fn publish(&self, key: &Key, draft: &mut Draft, contents: Contents<'_>) -> Result<Created, StoreError> {
        self.refuse_after_failed_sync(key)?;
        for _ in 0..VANISHED_FOLDERS {
            let folder = match self.folder_for(key) {
                Ok(folder) => folder,
                Err(e) if vanished(&e) => continue,
                Err(e) => return Err(self.refusal(key, e)),
            };
            match draft.publish(folder.directory(), key.file_name(), IfPresent::Refuse) {
                Ok(()) => return Ok(Created::New),
                Err(DurableError::NameTaken) => {
                    // `None`: deleted since. Only an owner deletes, but then the name is free.
                    if let Some(answer) = self.compare(key, folder.directory(), draft, contents)? {
                        return answer;
                    }
                }
                Err(e) if vanished(&e) => {}
                Err(e) => return Err(self.refusal(key, e)),
            }
        }
        Err(error(self.what("create", key), Errno::NOENT.into()))
    }

    /// What stands under the taken name: ours, made durable once more; or something else. `None` when it is
    /// gone.
    fn compare(
        &self,
        key: &Key,
        folder: &Directory,
        draft: &Draft,
        contents: Contents<'_>,
    ) -> Result<Option<Result<Created, StoreError>>, StoreError> {
        let trouble = |e: io::Error| error(self.what("compare", key), e);
        let there = match posix_read::open(&self.shared.root, key.as_str()) {
            Ok(file) => file,
            Err(Errno::NOENT) => {
                // Nothing, or a folder, a pipe, a link that leads nowhere: those stay, so no retry helps.
                let there = rustix::fs::statat(folder, key.file_name(), AtFlags::SYMLINK_NOFOLLOW);
                return if there.is_ok() { Err(trouble(Errno::ISDIR.into())) } else { Ok(None) };
            }
            Err(errno) => return Err(trouble(errno.into())),
        };
        let draft = draft.file().map_err(|e| self.refusal(key, e))?;
        let same = match contents {
            Contents::Memory(bytes) => posix_read::holds(&there, bytes),
            Contents::Draft => posix_read::hold_the_same(&there, draft),
        }
        .map_err(trouble)?;
        if !same {
            let what = self.what("create", key);
            let source = Some("the name is taken by other contents".into());
            return Ok(Some(Err(StoreError { kind: StoreErrorKind::Taken, what, source })));
        }
        // The one who made it may have died, or may still be, between naming and syncing.
        let synced = durable::sync_file(&there).and_then(|()| folder.sync());
        Ok(Some(match synced {
            Ok(()) => Ok(Created::Same),
            Err(e) => {
                self.shared.sync_failed.store(true, Ordering::SeqCst);
                Err(error(self.what("sync", key), e))
            }
        }))
    }

    fn refuse_after_failed_sync(&self, key: &Key) -> Result<(), StoreError> {
        if self.shared.sync_failed.load(Ordering::SeqCst) {
            return Err(StoreError {
                kind: StoreErrorKind::Unavailable,
                what: self.what("create", key),
                source: Some("an earlier write to this repository could not be synced".into()),
            });
        }
        Ok(())
    }

    fn refusal(&self, key: &Key, e: DurableError) -> StoreError {
        let kind = match &e {
            DurableError::NameTaken => StoreErrorKind::Taken,
            DurableError::NoAtomicCreate => StoreErrorKind::Unsupported,
            DurableError::NotProvenDurable { source, .. } => {
                self.shared.sync_failed.store(true, Ordering::SeqCst);
                // This one says that directories cannot be synced here at all. Any other, even "no rights" or
                // "no space": the name shows, so it may have happened.
                if is(source, Errno::INVAL) {
                    StoreErrorKind::Unsupported
                } else {
                    StoreErrorKind::Unavailable
                }
            }
            DurableError::Failed { source, .. } => kind_of(source),
        };
        let what = self.what("create", key);
        let source: Box<dyn std::error::Error + Send + Sync> = match e {
            // The same words twice in a row help nobody.
            DurableError::Failed { what: same, source } if same == what => Box::new(source),
            e => Box::new(e),
        };
        StoreError { kind, what, source: Some(source) }
    }
}

enum FolderOf<'a> {
    Root(&'a Directory),
    Below(Directory),
}

impl FolderOf<'_> {
    fn directory(&self) -> &Directory {
        match self {
            Self::Root(root) => root,
            Self::Below(directory) => directory,
        }
    }
}

/// What a draft holds, for comparing it with what stands under its name.
#[derive(Clone, Copy)]
enum Contents<'a> {
    Memory(&'a [u8]),
    Draft,
}

struct PosixPending {
    store: PosixStore,
    key: Key,
    /// `None` once a write failed.
    draft: Option<Draft>,
    buffer: Vec<u8>,
}

impl PosixPending {
    fn write_out(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let written = match &mut self.draft {
            Some(draft) => draft.write(bytes),
            None => return Err(self.broken()),
        };
        written.map_err(|e| {
            self.draft = None;
            self.buffer = Vec::new();
            self.store.refusal(&self.key, e)
        })
    }

    fn broken(&self) -> StoreError {
        StoreError {
            kind: StoreErrorKind::Unavailable,
            what: self.store.what("create", &self.key),
            source: Some("an earlier write to it failed".into()),
        }
    }
}

impl Pending for PosixPending {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        if self.draft.is_none() {
            return Err(self.broken());
        }
        let direct = bytes.len() >= DIRECT;
        if !self.buffer.is_empty() && (direct || self.buffer.len() + bytes.len() > BUFFER) {
            let full = std::mem::take(&mut self.buffer);
            self.write_out(&full)?;
            self.buffer = full;
            self.buffer.clear();
        }
        if direct {
            return self.write_out(bytes);
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    fn commit(mut self: Box<Self>) -> Result<Created, StoreError> {
        let rest = std::mem::take(&mut self.buffer);
        self.write_out(&rest)?;
        let mut draft = self.draft.take().ok_or_else(|| self.broken())?;
        self.store.publish(&self.key, &mut draft, Contents::Draft)
    }
}

impl Store for PosixStore {
    fn describe(&self) -> String {
        self.shared.root.path().display().to_string()
    }

    fn create(&self, key: &Key, bytes: &[u8]) -> Result<Created, StoreError> {
        let mut draft = self.draft().map_err(|e| self.refusal(key, e))?;
        draft.write(bytes).map_err(|e| self.refusal(key, e))?;
        self.publish(key, &mut draft, Contents::Memory(bytes))
    }

    fn begin(&self, key: &Key) -> Result<Box<dyn Pending>, StoreError> {
        // Once a process, before it writes much: a killed backup may have left what now is missed.
        if !self.shared.swept.swap(true, Ordering::Relaxed) {
            let _ = self.remove_leftovers();
        }
        let draft = self.draft().map_err(|e| self.refusal(key, e))?;
        let (store, key) = (self.clone(), key.clone());
        Ok(Box::new(PosixPending { store, key, draft: Some(draft), buffer: Vec::new() }))
    }

    fn free_space(&self) -> Option<ByteCount> {
        let there = rustix::fs::statvfs(self.shared.root.path()).ok()?;
        there.f_bavail.checked_mul(there.f_frsize).map(ByteCount::new)
    }

    fn make_durable(&self, key: &Key) -> Result<(), StoreError> {
        self.refuse_after_failed_sync(key)?;
        let trouble = |e| error(self.what("sync", key), e);
        let file = self.open_object(key)?;
        let folder = self.folder_for(key).map_err(|e| self.refusal(key, e))?;
        durable::sync_file(&file).and_then(|()| folder.directory().sync()).map_err(|e| {
            self.shared.sync_failed.store(true, Ordering::SeqCst);
            trouble(e)
        })
    }

    fn read(&self, key: &Key, limit: ByteCount) -> Result<Vec<u8>, StoreError> {
        let file = self.open_object(key)?;
        let trouble = |e| error(self.what("read", key), e);
        let size = posix_read::size(&file).map_err(trouble)?;
        if size > limit.as_u64() {
            return Err(StoreError {
                kind: StoreErrorKind::Unsupported,
                what: self.what("read", key),
                source: Some(format!("it has {size} bytes, more than the {} allowed", limit.as_u64()).into()),
            });
        }
        posix_read::range(&file, 0..size).map_err(trouble)
    }

    fn read_range(&self, key: &Key, range: Range<u64>) -> Result<Vec<u8>, StoreError> {
        let file = self.open_object(key)?;
        posix_read::size(&file)
            .and_then(|size| posix_read::range(&file, range.start..range.end.min(size)))
            .map_err(|e| error(self.what("read", key), e))
    }

    fn read_end(&self, key: &Key, length: u64) -> Result<(Vec<u8>, ByteCount), StoreError> {
        let file = self.open_object(key)?;
        posix_read::size(&file)
            .and_then(|size| {
                let bytes = posix_read::range(&file, size.saturating_sub(length)..size)?;
                Ok((bytes, ByteCount::new(size)))
            })
            .map_err(|e| error(self.what("read", key), e))
    }

    fn size(&self, key: &Key) -> Result<Option<ByteCount>, StoreError> {
        let what = || self.what("look at", key);
        match rustix::fs::statat(&self.shared.root, key.as_str(), AtFlags::empty()) {
            Ok(stat) => Ok(posix_read::size_of_object(&stat).map(ByteCount::new)),
            Err(Errno::NOENT | Errno::NOTDIR) => self.if_root_exists(None, what),
            Err(errno) => Err(error(what(), errno.into())),
        }
    }

    fn list(&self, folder: &Key, each: &mut dyn FnMut(Listed)) -> Result<(), StoreError> {
        let what = || self.what("list", folder);
        Walk::new(&self.shared.root)
            .below(folder.as_str(), each)
            .map_err(|(path, e)| error(format!("could not list {}", path.display()), e))?;
        self.if_root_exists((), what)
    }

    fn folder(&self, folder: Option<&Key>) -> Result<Folder, StoreError> {
        let name = folder.map_or("", Key::as_str);
        let what = || format!("could not list {}", self.shared.root.path().join(name).display());
        let mut found = Folder::default();
        posix_read::one_level(&self.shared.root, name, &mut |entry| match entry {
            posix_read::Entry::Object(listed) => found.objects.push(listed),
            posix_read::Entry::Folder(name) => found.folders.push(name),
        })
        .map_err(|e| error(what(), e))?;
        // A directory that was removed reads as an empty one.
        self.if_root_exists(found, what)
    }

    fn delete(&self, key: &Key) -> Result<(), StoreError> {
        let what = || self.what("delete", key);
        match rustix::fs::unlinkat(&self.shared.root, key.as_str(), AtFlags::empty()) {
            Ok(()) => {}
            Err(Errno::NOENT | Errno::NOTDIR | Errno::ISDIR) => return self.if_root_exists((), what),
            Err(errno) => return Err(error(what(), errno.into())),
        }
        // Folders that became empty go too, so that years of backups leave none behind. Fails, as it must,
        // when one is not empty; a create that was about to use it makes it again.
        let mut rest = key.as_str();
        while let Some((folder, _)) = rest.rsplit_once('/') {
            if rustix::fs::unlinkat(&self.shared.root, folder, AtFlags::REMOVEDIR).is_err() {
                break;
            }
            rest = folder;
        }
        Ok(())
    }

    fn remove_leftovers(&self) -> Result<u64, StoreError> {
        let path = || self.shared.root.path().join(TEMPORARY);
        match self.shared.root.open_below(TEMPORARY).and_then(|dir| durable::remove_leftovers(&dir)) {
            Ok(removed) => Ok(removed),
            Err(e) if is(&e, Errno::NOENT) => Ok(0),
            Err(e) => Err(error(format!("could not tidy {}", path().display()), e)),
        }
    }
}

impl PosixStore {
    fn open_object(&self, key: &Key) -> Result<File, StoreError> {
        let what = || self.what("read", key);
        match posix_read::open(&self.shared.root, key.as_str()) {
            Ok(file) => Ok(file),
            Err(errno @ (Errno::NOENT | Errno::NOTDIR)) => self.if_root_exists((), what).and_then(|()| {
                let source: io::Error = errno.into();
                Err(StoreError {
                    kind: StoreErrorKind::NotFound,
                    what: what(),
                    source: Some(Box::new(source)),
                })
            }),
            Err(errno) => Err(error(what(), errno.into())),
        }
    }
}

fn vanished(e: &DurableError) -> bool {
    matches!(e, DurableError::Failed { source, .. } if is(source, Errno::NOENT))
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

fn error(what: String, source: io::Error) -> StoreError {
    StoreError { kind: kind_of(&source), what, source: Some(Box::new(source)) }
}

/// What the trouble is to a caller. What is unknown counts as passing: it never makes anything look absent.
fn kind_of(e: &io::Error) -> StoreErrorKind {
    let Some(errno) = e.raw_os_error().map(Errno::from_raw_os_error) else {
        return StoreErrorKind::Unavailable;
    };
    match errno {
        Errno::NOSPC | Errno::DQUOT => StoreErrorKind::Full,
        Errno::ACCESS | Errno::PERM | Errno::ROFS => StoreErrorKind::Denied,
        Errno::FBIG
        | Errno::NAMETOOLONG
        | Errno::INVAL
        | Errno::NOTDIR
        | Errno::ISDIR
        | Errno::LOOP
        | Errno::XDEV
        | Errno::NOSYS
        | Errno::OPNOTSUPP => StoreErrorKind::Unsupported,
        _ => StoreErrorKind::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn key(name: &str) -> Key {
        Key::new(name).unwrap()
    }

    fn put(path: std::path::PathBuf, bytes: &[u8]) {
        use std::io::Write;
        let mut file = fs::OpenOptions::new().write(true).create_new(true).open(path).unwrap();
        file.write_all(bytes).unwrap();
    }

    #[test]
    fn a_missing_root_is_told_and_made_only_on_request() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("mnt/repo");
        let missing = PosixStore::open(&root).unwrap_err();
        assert_eq!(missing.kind, StoreErrorKind::NotFound);
        assert!(missing.to_string().ends_with("mnt/repo: is its file system mounted?"), "{missing}");
        assert!(!dir.path().join("mnt").exists());
        let store = PosixStore::create_root(&root).unwrap();
        store.create(&key("a"), b"x").unwrap();
        assert_eq!(PosixStore::create_root(&root).unwrap().create(&key("a"), b"x").unwrap(), Created::Same);
        put(dir.path().join("file"), b"");
        assert_eq!(PosixStore::open(&dir.path().join("file")).unwrap_err().kind, StoreErrorKind::Unsupported);
        PosixStore::create_root(&dir.path().join("file")).unwrap_err();
    }

    #[test]
    fn a_root_that_was_removed_is_never_an_empty_repository() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("repo");
        let store = PosixStore::create_root(&root).unwrap();
        fs::remove_dir(&root).unwrap();
        let k = key("wal/segment");
        let kinds = [
            store.read(&k, ByteCount::mib(1)).unwrap_err().kind,
            store.read_range(&k, 0..1).unwrap_err().kind,
            store.read_end(&k, 1).unwrap_err().kind,
            store.size(&k).unwrap_err().kind,
            store.list(&k, &mut |_| ()).unwrap_err().kind,
            store.folder(None).unwrap_err().kind,
            store.folder(Some(&k)).unwrap_err().kind,
            store.delete(&k).unwrap_err().kind,
            store.create(&k, b"x").unwrap_err().kind,
            store.begin(&k).err().unwrap().kind,
        ];
        assert_eq!(kinds, [StoreErrorKind::Unavailable; 10]);
        assert!(!root.exists());
    }

    #[test]
    fn what_is_no_object_is_neither_listed_nor_read_nor_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().join("real");
        let root = dir.path().join("link-to-it");
        symlink(&real, &root).unwrap();
        PosixStore::create_root(&real).unwrap();
        let store = PosixStore::open(&root).unwrap();
        store.create(&key("f/object"), b"x").unwrap();
        fs::create_dir(root.join("f/folder")).unwrap();
        fs::create_dir(root.join("lost+found")).unwrap();
        for name in ["a b", "ümlaut", ".walden-x"] {
            put(root.join("f").join(name), b"?");
        }
        std::os::unix::net::UnixListener::bind(root.join("f/socket")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            root.join("f/pipe"),
            rustix::fs::FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        symlink("nowhere", root.join("f/broken")).unwrap();
        let mut seen = Vec::new();
        store.list(&key("f"), &mut |l| seen.push(l.key)).unwrap();
        assert_eq!(seen, [key("f/object")]);
        let level = store.folder(Some(&key("f"))).unwrap();
        assert_eq!((level.objects.len(), level.folders), (1, vec!["folder".to_owned()]));
        assert_eq!(store.folder(None).unwrap().folders, ["f"]);
        for name in ["f/folder", "f/pipe", "f/broken"] {
            let k = key(name);
            assert_eq!(
                store.read(&k, ByteCount::mib(1)).unwrap_err().kind,
                StoreErrorKind::NotFound,
                "{name}"
            );
            assert_eq!(store.size(&k).unwrap(), None);
            assert_eq!(store.create(&k, b"x").unwrap_err().kind, StoreErrorKind::Unsupported, "{name}");
        }
    }

    #[test]
    fn links_inside_are_followed_and_never_round_in_circles() {
        let dir = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let store = PosixStore::open(dir.path()).unwrap();
        store.create(&key("f/object"), b"x").unwrap();
        put(elsewhere.path().join("moved"), b"yz");
        symlink(elsewhere.path(), dir.path().join("f/other")).unwrap();
        symlink(elsewhere.path().join("moved"), dir.path().join("f/linked")).unwrap();
        symlink("..", dir.path().join("f/up")).unwrap();
        let mut seen = Vec::new();
        store.list(&key("f"), &mut |l| seen.push((l.key.to_string(), l.size.as_u64()))).unwrap();
        seen.sort();
        // "f/up" is the root, in which "f" lies, where we are already.
        let expected =
            [("f/linked", 2), ("f/object", 1), ("f/other/moved", 2)].map(|(k, s)| (k.to_owned(), s));
        assert_eq!(seen, expected);
        assert_eq!(store.read(&key("f/other/moved"), ByteCount::mib(1)).unwrap(), b"yz");
    }

    #[test]
    fn an_error_says_what_was_done_to_which_file_and_why() {
        let dir = tempfile::tempdir().unwrap();
        let store = PosixStore::open(dir.path()).unwrap();
        let e = store.read(&key("a/b"), ByteCount::mib(1)).unwrap_err();
        assert_eq!(e.to_string(), format!("could not read {}/a/b", dir.path().display()));
        assert!(e.source().unwrap().to_string().starts_with("No such file"));
        store.create(&key("a"), b"").unwrap();
        let e = store.create(&key("a/b"), b"").unwrap_err();
        assert_eq!(e.kind, StoreErrorKind::Unsupported);
        let step = e.source().unwrap();
        assert_eq!(step.to_string(), format!("could not open {}/a", dir.path().display()));
        assert!(step.source().unwrap().to_string().starts_with("Not a directory"));
    }

    #[test]
    fn a_store_that_could_not_sync_says_no_more_that_anything_is_safe() {
        let dir = tempfile::tempdir().unwrap();
        let store = PosixStore::open(dir.path()).unwrap();
        let source = Errno::IO.into();
        let e = store.refusal(&key("a"), DurableError::NotProvenDurable { what: String::new(), source });
        assert_eq!(e.kind, StoreErrorKind::Unavailable);
        assert_eq!(store.create(&key("b"), b"x").unwrap_err().kind, StoreErrorKind::Unavailable);
        assert_eq!(store.size(&key("b")).unwrap(), None);
        PosixStore::open(dir.path()).unwrap().create(&key("b"), b"x").unwrap();
    }
}
