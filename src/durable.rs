//! Making files and directories survive power loss: the only place that renames and links.
//!
//! Contents before name: a durable name over lost contents reads as a valid, wrong file. So a file is written
//! under a temporary name ([`Draft`]), synced, given its name in one step, and then its directory is synced.
//! A failed fsync is final: the kernel may have dropped the pages and forgotten the error, so asking again
//! proves nothing. What failed to sync is thrown away and written anew, never synced again.
//!
//! Not for: deciding what a file means, or retrying.

#![allow(clippy::disallowed_methods, reason = "this is the one place that renames and links")]

pub mod private;

use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What the names of temporary files begin with, wherever they lie.
pub const TEMPORARY_PREFIX: &str = ".walden-";

/// What to do when the name is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfPresent {
    /// Leave what is there and answer [`DurableError::NameTaken`].
    Refuse,
    /// Put the new file in its place, in one step.
    Replace,
}

/// Why a file was not made durable.
#[derive(Debug)]
pub enum DurableError {
    /// The name is taken, by something that is not this file. Nothing was changed.
    NameTaken,
    /// This file system has neither hard links nor a rename that refuses to overwrite: nothing can be
    /// created on it without a risk of overwriting.
    NoAtomicCreate,
    /// A step failed; the name is what it was.
    Failed {
        /// `could not write /srv/…`
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// The file is complete under its name, but whether that survives power loss is unknown.
    NotProvenDurable {
        /// `could not sync directory /srv/…`
        what: String,
        /// What the system said.
        source: io::Error,
    },
}

impl DurableError {
    /// What the system said, where it said anything.
    #[must_use]
    pub fn io(&self) -> Option<&io::Error> {
        match self {
            Self::NameTaken | Self::NoAtomicCreate => None,
            Self::Failed { source, .. } | Self::NotProvenDurable { source, .. } => Some(source),
        }
    }
}

impl fmt::Display for DurableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NameTaken => f.write_str("the name is taken"),
            Self::NoAtomicCreate => {
                f.write_str("this file system can create a file only by overwriting what may be there")
            }
            Self::Failed { what, .. } | Self::NotProvenDurable { what, .. } => f.write_str(what),
        }
    }
}

impl std::error::Error for DurableError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.io().map(|e| e as &(dyn std::error::Error + 'static))
    }
}

fn failed(what: impl FnOnce() -> String) -> impl FnOnce(Errno) -> DurableError {
    |errno| DurableError::Failed { what: what(), source: errno.into() }
}

/// Makes `contents` the file `dir/name`, whole and durable, or not at all. Its mode is 0600.
///
/// After `Ok` the file survives power loss. After `Err` or a crash `dir/name` is what it was before or the
/// complete new file, never a part; calling again is safe.
///
/// # Errors
/// `NameTaken` under [`IfPresent::Refuse`]; otherwise the step that failed.
pub fn publish(dir: &Path, name: &str, contents: &[u8], if_present: IfPresent) -> Result<(), DurableError> {
    let dir = Directory::open(dir).map_err(|source| DurableError::Failed {
        what: format!("could not open {}", dir.display()),
        source,
    })?;
    let dir = Arc::new(dir);
    let mut draft = Draft::create(&dir, None, 0o600)?;
    draft.write(contents)?;
    draft.publish(&dir, name, if_present)
}

/// A directory held open, so that what happens in it happens in this directory whatever becomes of its name.
///
/// While it is open its file system cannot be unmounted from under it.
#[derive(Debug)]
pub struct Directory {
    fd: OwnedFd,
    path: PathBuf,
}

/// How long [`Directory::try_lock`] waits for somebody else's lock to go.
const LOCK_PATIENCE: std::time::Duration = std::time::Duration::from_millis(400);

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

impl Directory {
    /// Opens the directory at `path`.
    ///
    /// # Errors
    /// Of open(2).
    pub fn open(path: &Path) -> io::Result<Self> {
        let fd = rustix::fs::open(path, DIRECTORY, Mode::empty())?;
        Ok(Self { fd, path: path.to_owned() })
    }

    /// Opens the directory at `relative`, below this one.
    ///
    /// # Errors
    /// Of openat(2).
    pub fn open_below(&self, relative: &str) -> io::Result<Self> {
        let fd = rustix::fs::openat(&self.fd, relative, DIRECTORY, Mode::empty())?;
        Ok(Self { fd, path: self.path.join(relative) })
    }

    /// Makes the directory `relative` below this one with all that is missing on the way, of this mode
    /// whatever the umask, and opens it. Every step of the way is synced, also those that were there: their
    /// maker may have died before it got to it.
    ///
    /// # Errors
    /// `Failed` or `NotProvenDurable`, of the step that failed; a part of the way may have been made.
    pub fn create_below(&self, relative: &str, mode: u32) -> Result<Self, DurableError> {
        let fd = self.fd.try_clone().map_err(|source| DurableError::Failed {
            what: format!("could not open {}", self.path.display()),
            source,
        })?;
        make_way(fd, self.path.clone(), Path::new(relative), mode)
    }

    /// Makes the names in this directory survive power loss. After an error nothing is known of any name
    /// that is younger than the last success.
    ///
    /// # Errors
    /// Of fsync(2).
    pub fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.fd)?)
    }

    /// Whether there is a file among the first names in the directory.
    ///
    /// Where everyone puts files only into directories that they got from [`Directory::create_below`] or
    /// that this is true of, the way to a directory with a file in it is durable: whoever put the first one
    /// there had synced it. It costs one system call instead of three for each part of the way.
    ///
    /// # Errors
    /// Of getdents(2).
    pub fn has_a_file(&self) -> io::Result<bool> {
        let mut buffer = [std::mem::MaybeUninit::uninit(); 8192];
        let mut entries = rustix::fs::RawDir::new(&self.fd, &mut buffer);
        while let Some(entry) = entries.next() {
            if entry?.file_type() == rustix::fs::FileType::RegularFile {
                return Ok(true);
            }
            if entries.is_buffer_empty() {
                break;
            }
        }
        Ok(false)
    }

    /// Whether the directory still has a name somewhere.
    ///
    /// # Errors
    /// Of fstat(2).
    pub fn still_exists(&self) -> io::Result<bool> {
        Ok(rustix::fs::fstat(&self.fd)?.st_nlink > 0)
    }

    /// Gives the file or directory `from` in this directory the name `to`, in place of a file that has it,
    /// durably. What it contains must be durable already.
    ///
    /// # Errors
    /// `Failed` when nothing was changed; `NotProvenDurable` when it was, but may not survive power loss.
    pub fn replace(&self, from: &str, to: &str) -> Result<(), DurableError> {
        // COMMIT POINT. Readers see the file from the line below on; the sync makes that permanent.
        rustix::fs::renameat(&self.fd, from, &self.fd, to)
            .map_err(failed(|| format!("could not create {}", self.path.join(to).display())))?;
        self.sync().map_err(|source| DurableError::NotProvenDurable {
            what: format!("could not sync directory {}", self.path.display()),
            source,
        })
    }

    /// Whether this process now holds the directory's lock (flock), until this is closed. Where the file system
    /// has no locks everybody holds it: nothing may rest on it but the wish to fail early.
    ///
    /// A child process holds its parent's locks too, from fork to exec: a lock that goes away within
    /// [`LOCK_PATIENCE`] was one of those, or of somebody who is done.
    #[must_use]
    pub fn try_lock(&self) -> bool {
        let began = std::time::Instant::now();
        loop {
            match rustix::fs::flock(&self.fd, FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::WOULDBLOCK) if began.elapsed() >= LOCK_PATIENCE => return false,
                Err(Errno::WOULDBLOCK) => std::thread::sleep(LOCK_PATIENCE / 20),
                _ => return true,
            }
        }
    }

    /// The path that it was opened under.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Makes the directory `path` with all that is missing on the way, of this mode whatever the umask, durably,
/// and opens it. One that is there keeps its mode; the way to it is synced too, as far as we may read it.
///
/// # Errors
/// `Failed` or `NotProvenDurable`, of the step that failed; a part of the way may have been made.
pub fn create_directories(path: &Path, mode: u32) -> Result<Directory, DurableError> {
    let what = || format!("could not make the directory {}", path.display());
    if let Ok(there) = Directory::open(path) {
        let synced = sync_way_up(&there);
        let what = || format!("could not sync the way to {}", path.display());
        return synced
            .map(|()| there)
            .map_err(|source| DurableError::NotProvenDurable { what: what(), source });
    }
    // From the nearest directory that exists, so that its ancestors need not be readable.
    let mut base = path;
    let base_fd = loop {
        base = match base.parent() {
            Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
            Some(parent) => parent,
            None => Path::new("."),
        };
        match rustix::fs::openat(CWD, base, DIRECTORY, Mode::empty()) {
            Ok(fd) => break fd,
            Err(Errno::NOENT) if base != Path::new(".") && base != Path::new("/") => {}
            Err(errno) => return Err(failed(what)(errno)),
        }
    };
    let rest = path.strip_prefix(base).unwrap_or(path);
    let mut made = make_way(base_fd, base.to_owned(), rest, mode)?;
    path.clone_into(&mut made.path);
    Ok(made)
}

fn sync_way_up(from: &Directory) -> io::Result<()> {
    let mut at = from.fd.try_clone()?;
    loop {
        let below = rustix::fs::fstat(&at)?;
        // What we may not read we cannot have made.
        let Ok(above) = rustix::fs::openat(&at, "..", DIRECTORY, Mode::empty()) else { return Ok(()) };
        let stat = rustix::fs::fstat(&above)?;
        // Another file system: this one's top was there when it was mounted.
        if stat.st_dev != below.st_dev || stat.st_ino == below.st_ino {
            return Ok(());
        }
        rustix::fs::fsync(&above)?;
        at = above;
    }
}

fn make_way(mut at: OwnedFd, mut path: PathBuf, way: &Path, mode: u32) -> Result<Directory, DurableError> {
    for part in way.components() {
        let what = || format!("could not make the directory {}", path.join(part).display());
        match part {
            Component::CurDir => continue,
            Component::Normal(_) => {}
            _ => return Err(failed(what)(Errno::INVAL)),
        }
        let made = match rustix::fs::mkdirat(&at, part.as_os_str(), Mode::from_raw_mode(mode)) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(errno) => return Err(failed(what)(errno)),
        };
        let below =
            rustix::fs::openat(&at, part.as_os_str(), DIRECTORY, Mode::empty()).map_err(failed(what))?;
        if made {
            settle_mode(&below, mode).map_err(|source| DurableError::Failed { what: what(), source })?;
        }
        rustix::fs::fsync(&at).map_err(|errno| DurableError::NotProvenDurable {
            what: format!("could not sync directory {}", path.display()),
            source: errno.into(),
        })?;
        path.push(part);
        at = below;
    }
    Ok(Directory { fd: at, path })
}

/// Gives what we just made the permissions we want, which the umask may have cut. The set-group-id bit that
/// a directory inherits stays. A file system without permissions cannot, and that is no reason to fail.
fn settle_mode(fd: impl AsFd, mode: u32) -> io::Result<rustix::fs::Stat> {
    let stat = rustix::fs::fstat(&fd)?;
    if stat.st_mode & 0o777 != mode {
        let _ = rustix::fs::fchmod(&fd, Mode::from_raw_mode(stat.st_mode & 0o7000 | mode));
    }
    Ok(stat)
}

/// A file that is being written under a temporary name, which goes when this is dropped.
///
/// It is locked (flock) while it is open, so that [`remove_leftovers`] knows it from those that a killed
/// process left; the lock goes with the process.
#[derive(Debug)]
pub struct Draft {
    parent: Arc<Directory>,
    /// Relative to `parent`; `None` once there is nothing to remove.
    temporary: Option<String>,
    /// `None` once published.
    file: Option<File>,
}

impl Draft {
    /// Begins a file in `parent`, or in its directory `folder`, which must exist. The mode holds whatever
    /// the umask.
    ///
    /// # Errors
    /// `Failed` when it cannot be made.
    pub fn create(parent: &Arc<Directory>, folder: Option<&str>, mode: u32) -> Result<Self, DurableError> {
        let what = || format!("could not make a temporary file in {}", parent.path.display());
        // A name is free at the first try but for a wonder; more rounds only where leftovers are being
        // removed at this moment.
        for _ in 0..16 {
            let own = temporary_name().map_err(|source| DurableError::Failed { what: what(), source })?;
            let name = folder.map_or_else(|| own.clone(), |folder| format!("{folder}/{own}"));
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let fd = match rustix::fs::openat(&parent.fd, &*name, flags, Mode::from_raw_mode(mode)) {
                Ok(fd) => fd,
                Err(Errno::EXIST) => continue,
                Err(errno) => return Err(failed(what)(errno)),
            };
            let draft =
                Self { parent: Arc::clone(parent), temporary: Some(name), file: Some(File::from(fd)) };
            let file = draft.open_file()?;
            // Where the file system has no locks, leftovers are not removed either: they cannot be told.
            let _ = rustix::fs::flock(file, FlockOperation::LockExclusive);
            let stat =
                settle_mode(file, mode).map_err(|source| DurableError::Failed { what: what(), source })?;
            // Between the making and the lock somebody may have taken it for a leftover.
            if stat.st_nlink > 0 {
                return Ok(draft);
            }
        }
        Err(failed(what)(Errno::AGAIN))
    }

    fn open_file(&self) -> Result<&File, DurableError> {
        // Only a misuse of ours gets here: a draft that was published is not written to again.
        self.file.as_ref().ok_or_else(|| failed(|| "could not use a published draft".to_owned())(Errno::BADF))
    }

    /// The file, for reading back what was written.
    ///
    /// # Errors
    /// When it is published already.
    pub fn file(&self) -> Result<&File, DurableError> {
        self.open_file()
    }

    fn what(&self, doing: &str) -> String {
        let name = self.temporary.as_deref().unwrap_or_default();
        format!("could not {doing} {}", self.parent.path.join(name).display())
    }

    /// Appends `bytes`. After an error the draft must be dropped.
    ///
    /// # Errors
    /// `Failed`, of write(2).
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), DurableError> {
        let mut file = self.open_file()?;
        file.write_all(bytes).map_err(|source| DurableError::Failed { what: self.what("write"), source })
    }

    /// Makes this file `into/name`, durably. `into` must be on the same file system.
    ///
    /// After `Ok` it survives power loss. After `NameTaken` nothing has changed and [`Draft::file`] can still
    /// be read. After another `Err` or a crash the name is what it was or the complete file.
    ///
    /// # Errors
    /// See [`DurableError`].
    pub fn publish(
        &mut self,
        into: &Directory,
        name: &str,
        if_present: IfPresent,
    ) -> Result<(), DurableError> {
        let file = self.open_file()?;
        rustix::fs::fsync(file).map_err(failed(|| self.what("sync")))?;
        let Some(temporary) = self.temporary.as_deref() else {
            return Err(failed(|| "could not publish a draft twice".to_owned())(Errno::BADF));
        };
        let step = match if_present {
            IfPresent::Replace => {
                rustix::fs::renameat(&self.parent.fd, temporary, &into.fd, name).map(|()| Placed::Moved)
            }
            IfPresent::Refuse => place_in_free_name(&self.parent.fd, temporary, &into.fd, name),
        };
        // COMMIT POINT. Readers see the file from the line above on; the sync below makes that permanent.
        let placed = match step {
            Ok(placed) => placed,
            // NFS sends a LINK again when the answer got lost, and the second finds the first one's work.
            Err(Errno::EXIST) if is_the_same_file(file, into, name) => Placed::Linked,
            Err(Errno::EXIST) => return Err(DurableError::NameTaken),
            Err(NO_ATOMIC_CREATE) => return Err(DurableError::NoAtomicCreate),
            Err(errno) => {
                return Err(failed(|| format!("could not create {}", into.path.join(name).display()))(errno));
            }
        };
        if placed == Placed::Moved {
            self.temporary = None;
        }
        self.discard();
        into.sync().map_err(|source| DurableError::NotProvenDurable {
            what: format!("could not sync directory {}", into.path.display()),
            source,
        })
    }

    fn discard(&mut self) {
        // Closed before its name goes: NFS would keep an open file under a name of its own.
        self.file = None;
        if let Some(name) = self.temporary.take() {
            let _ = rustix::fs::unlinkat(&self.parent.fd, &*name, AtFlags::empty());
        }
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        self.discard();
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Placed {
    /// The temporary name is there still.
    Linked,
    Moved,
}

/// Stands for "neither way exists here"; no call below answers with it.
const NO_ATOMIC_CREATE: Errno = Errno::NOTUNIQ;

/// Gives the file a second name if that is free: link(2) fails when it is taken, where rename(2) would
/// overwrite without a word.
fn place_in_free_name(from: &OwnedFd, temporary: &str, into: &OwnedFd, name: &str) -> Result<Placed, Errno> {
    let refused = match rustix::fs::linkat(from, temporary, into, name, AtFlags::empty()) {
        Ok(()) => return Ok(Placed::Linked),
        // File systems without links say EPERM, as do directories that may not be changed.
        Err(errno @ (Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::MLINK)) => errno,
        Err(errno) => return Err(errno),
    };
    match move_to_free_name(from, temporary, into, name) {
        Err(Errno::PERM) => Err(refused),
        other => other,
    }
}

fn move_to_free_name(from: &OwnedFd, temporary: &str, into: &OwnedFd, name: &str) -> Result<Placed, Errno> {
    match rustix::fs::renameat_with(from, temporary, into, name, rustix::fs::RenameFlags::NOREPLACE) {
        Ok(()) => Ok(Placed::Moved),
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => Err(NO_ATOMIC_CREATE),
        Err(errno) => Err(errno),
    }
}

fn move_to_free_name_at(base: BorrowedFd<'_>, from: &Path, to: &Path) -> Result<Placed, Errno> {
    match rustix::fs::renameat_with(base, from, base, to, rustix::fs::RenameFlags::NOREPLACE) {
        Ok(()) => Ok(Placed::Moved),
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => Err(NO_ATOMIC_CREATE),
        Err(errno) => Err(errno),
    }
}

fn is_the_same_file(file: &File, dir: &Directory, name: &str) -> bool {
    match (rustix::fs::fstat(file), rustix::fs::statat(&dir.fd, name, AtFlags::SYMLINK_NOFOLLOW)) {
        (Ok(ours), Ok(theirs)) => (ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino),
        _ => false,
    }
}

fn temporary_name() -> io::Result<String> {
    static PROCESS: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let process = match PROCESS.get() {
        Some(process) => *process,
        None => {
            let mut random = [0; 8];
            getrandom::fill(&mut random)?;
            *PROCESS.get_or_init(|| u64::from_le_bytes(random))
        }
    };
    Ok(format!("{TEMPORARY_PREFIX}{process:016x}-{}", NEXT.fetch_add(1, Ordering::Relaxed)))
}

/// Removes the temporary files in `dir` whose writers are gone, and says how many those were.
///
/// A writer that lives keeps its lock, so no clock and no age is asked. What cannot be told (no locks, no
/// rights) stays.
///
/// # Errors
/// When the directory cannot be read.
pub fn remove_leftovers(dir: &Directory) -> io::Result<u64> {
    let mut removed = 0;
    for entry in rustix::fs::Dir::read_from(&dir.fd)? {
        let entry = entry?;
        let name = entry.file_name();
        if !name.to_bytes().starts_with(TEMPORARY_PREFIX.as_bytes()) {
            continue;
        }
        // Open for writing: NFS gives an exclusive lock only then. Not blocking: it may be a pipe.
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let Ok(fd) = rustix::fs::openat(&dir.fd, name, flags, Mode::empty()) else { continue };
        if rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive).is_ok()
            && rustix::fs::unlinkat(&dir.fd, name, AtFlags::empty()).is_ok()
        {
            removed += 1;
        }
    }
    Ok(removed)
}

/// A file system whose writes are to be synced all at once (`syncfs`).
///
/// Open it before the first write: the kernel reports the failures that happened since then, and forgets
/// older ones.
#[derive(Debug)]
pub struct FileSystem(Directory);

impl FileSystem {
    /// The file system that holds the directory `path`.
    ///
    /// # Errors
    /// Of open(2).
    pub fn of(path: &Path) -> io::Result<Self> {
        Directory::open(path).map(Self)
    }

    /// Makes everything written to the file system durable, by whomever. A failure is final, so this can be
    /// asked once.
    ///
    /// # Errors
    /// When anything that was written since this was opened may be lost.
    pub fn sync(self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(&self.0.fd)?)
    }
}

/// Moves the file or directory `from` to the free name `to` on the same file system, durably.
///
/// # Errors
/// `NameTaken` when `to` exists; otherwise the step that failed. After `NotProvenDurable` it is moved, but a
/// power loss may undo that.
pub fn move_aside(from: &Path, to: &Path) -> Result<(), DurableError> {
    let what = || format!("could not move {} to {}", from.display(), to.display());
    match move_to_free_name_at(CWD, from, to) {
        Ok(_) => {}
        Err(Errno::EXIST) => return Err(DurableError::NameTaken),
        Err(NO_ATOMIC_CREATE) => return Err(DurableError::NoAtomicCreate),
        Err(errno) => return Err(failed(what)(errno)),
    }
    for parent in [to.parent(), from.parent()].into_iter().flatten() {
        Directory::open(parent).and_then(|parent| parent.sync()).map_err(|source| {
            DurableError::NotProvenDurable {
                what: format!("could not sync directory {}", parent.display()),
                source,
            }
        })?;
    }
    Ok(())
}

/// Makes a file's contents durable.
///
/// # Errors
/// Of fsync(2); final.
pub fn sync_file(file: &File) -> io::Result<()> {
    file.sync_all()
}

/// Gives `temporary` the name `target`, replacing what is there, in one step and **without syncing**.
///
/// For what may be lost in a crash but never seen half: readers find the old file, the whole new one, or,
/// after power loss, whatever is left. Both must lie in one directory.
///
/// # Errors
/// Of rename(2); the name is then what it was.
pub fn show_unsynced(temporary: &Path, target: &Path) -> io::Result<()> {
    std::fs::rename(temporary, target)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn publish_refuses_or_replaces_and_leaves_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        publish(dir.path(), "f", b"one", IfPresent::Refuse).unwrap();
        let taken = publish(dir.path(), "f", b"two", IfPresent::Refuse);
        assert!(matches!(taken, Err(DurableError::NameTaken)), "{taken:?}");
        assert_eq!(fs::read(dir.path().join("f")).unwrap(), b"one");
        publish(dir.path(), "f", b"two", IfPresent::Replace).unwrap();
        assert_eq!(fs::read(dir.path().join("f")).unwrap(), b"two");
        assert_eq!(mode(&dir.path().join("f")), 0o600);
        fs::create_dir(dir.path().join("d")).unwrap();
        for if_present in [IfPresent::Refuse, IfPresent::Replace] {
            publish(dir.path(), "d", b"", if_present).unwrap_err();
        }
        assert_eq!(names(dir.path()), ["d", "f"]);
        let nowhere = publish(&dir.path().join("missing"), "f", b"", IfPresent::Refuse).unwrap_err();
        assert_eq!(nowhere.io().unwrap().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_file_system_without_links_gets_a_rename_that_refuses() {
        let dir = tempfile::tempdir().unwrap();
        let fd = Directory::open(dir.path()).unwrap().fd;
        fs::OpenOptions::new().write(true).create_new(true).open(dir.path().join("tmp")).unwrap();
        fs::create_dir(dir.path().join("taken")).unwrap();
        assert_eq!(move_to_free_name(&fd, "tmp", &fd, "taken").err(), Some(Errno::EXIST));
        assert_eq!(names(dir.path()), ["taken", "tmp"]);
        assert!(matches!(move_to_free_name(&fd, "tmp", &fd, "free"), Ok(Placed::Moved)));
        assert_eq!(names(dir.path()), ["free", "taken"]);
    }

    #[test]
    fn a_link_that_was_made_though_the_answer_got_lost_is_ours() {
        let dir = tempfile::tempdir().unwrap();
        let open = Arc::new(Directory::open(dir.path()).unwrap());
        let mut draft = Draft::create(&open, None, 0o600).unwrap();
        draft.write(b"x").unwrap();
        let temporary = draft.temporary.clone().unwrap();
        fs::hard_link(dir.path().join(temporary), dir.path().join("f")).unwrap();
        draft.publish(&open, "f", IfPresent::Refuse).unwrap();
        assert_eq!(names(dir.path()), ["f"]);
        assert_eq!(draft.write(b"more").unwrap_err().io().unwrap().raw_os_error(), Some(9));
        draft.publish(&open, "g", IfPresent::Refuse).unwrap_err();
    }

    #[test]
    fn directories_are_made_with_all_that_is_missing_and_keep_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o2700)).unwrap();
        let deep = dir.path().join("a/b/c");
        let made = create_directories(&deep, 0o770).unwrap();
        assert_eq!(made.path(), deep);
        for (path, mode_of) in [("a", 0o2770), ("a/b", 0o2770), ("a/b/c", 0o2770), (".", 0o2700)] {
            assert_eq!(mode(&dir.path().join(path)), mode_of, "{path}");
        }
        create_directories(&deep, 0o700).unwrap();
        assert_eq!(mode(&deep), 0o2770);
        assert!(!made.has_a_file().unwrap());
        fs::create_dir(deep.join("folder")).unwrap();
        assert!(!Directory::open(&deep).unwrap().has_a_file().unwrap());
        publish(&deep, "f", b"", IfPresent::Refuse).unwrap();
        assert!(Directory::open(&deep).unwrap().has_a_file().unwrap());
        create_directories(&deep.join("f/x"), 0o700).unwrap_err();
        let root = Directory::open(dir.path()).unwrap();
        root.create_below("../out", 0o700).unwrap_err();
    }

    #[test]
    fn only_what_nobody_holds_is_a_leftover() {
        let dir = tempfile::tempdir().unwrap();
        let open = Arc::new(Directory::open(dir.path()).unwrap());
        let mut draft = Draft::create(&open, None, 0o600).unwrap();
        fs::OpenOptions::new().write(true).create_new(true).open(dir.path().join(".walden-dead")).unwrap();
        publish(dir.path(), "object", b"", IfPresent::Refuse).unwrap();
        fs::create_dir(dir.path().join(".walden-directory")).unwrap();
        assert_eq!(remove_leftovers(&open).unwrap(), 1);
        draft.publish(&open, "f", IfPresent::Refuse).unwrap();
        assert_eq!(names(dir.path()), [".walden-directory", "f", "object"]);
    }

    #[test]
    fn drafts_are_begun_while_leftovers_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let open = Arc::new(Directory::open(dir.path()).unwrap());
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    remove_leftovers(&Directory::open(dir.path()).unwrap()).unwrap();
                }
            });
            for i in 0..300 {
                let mut draft = Draft::create(&open, None, 0o600).unwrap();
                draft.write(b"x").unwrap();
                draft.publish(&open, &i.to_string(), IfPresent::Refuse).unwrap();
            }
            done.store(true, Ordering::Relaxed);
        });
        assert_eq!(names(dir.path()).len(), 300);
    }
}
