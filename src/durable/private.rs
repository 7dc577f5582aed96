//! A folder and files that only this user may read: what a host keeps between runs, and what is worth stealing.
//!
//! What is open is judged, never a path: no symbolic link is followed, and owner and mode are asked of the open file. So
//! it does not matter who may write to the directory above, such as /tmp: whoever puts something else there can take the
//! folder's use away, but is neither read from nor given anything. What belongs to somebody else is left as it is.

use super::{DIRECTORY, Directory, Draft, DurableError, IfPresent, create_directories};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use zeroize::Zeroizing;

/// A folder of this user's that nobody else may look into.
#[derive(Debug)]
pub struct PrivateFolder(Arc<Directory>);

/// Why a folder or file is not used.
#[derive(Debug)]
pub enum NotPrivate {
    /// There is none.
    Absent(PathBuf),
    /// It could be somebody else's, or somebody else could read it.
    Unsafe {
        /// What.
        path: PathBuf,
        /// What is wrong with it: `it belongs to user 33`.
        why: String,
    },
    /// The system would not.
    Failed {
        /// What.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// A file could not be written.
    NotWritten(DurableError),
}

impl fmt::Display for NotPrivate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent(path) => write!(f, "there is no {}", path.display()),
            Self::Unsafe { path, why } => write!(f, "{} is not used: {why}", path.display()),
            Self::Failed { path, source } => write!(f, "{} cannot be used: {source}", path.display()),
            Self::NotWritten(error) => match error.io() {
                Some(io) => write!(f, "{error}: {io}"),
                None => error.fmt(f),
            },
        }
    }
}

impl std::error::Error for NotPrivate {}

impl From<DurableError> for NotPrivate {
    fn from(error: DurableError) -> Self {
        Self::NotWritten(error)
    }
}

/// Judges what is open at `path`.
fn require_ours(fd: impl AsFd, path: &Path, kind: FileType) -> Result<rustix::fs::Stat, NotPrivate> {
    let unsafe_ = |why: String| Err(NotPrivate::Unsafe { path: path.to_owned(), why });
    let stat = rustix::fs::fstat(fd)
        .map_err(|errno| NotPrivate::Failed { path: path.to_owned(), source: errno.into() })?;
    let own = rustix::process::geteuid().as_raw();
    if FileType::from_raw_mode(stat.st_mode) != kind {
        return unsafe_("it is something else".to_owned());
    }
    if stat.st_uid != own {
        return unsafe_(format!("it belongs to user {}, and this is user {own}", stat.st_uid));
    }
    if stat.st_mode & 0o077 != 0 {
        return unsafe_(format!("others may use it (mode {:04o})", stat.st_mode & 0o7777));
    }
    Ok(stat)
}

/// Words for an `open` that follows no links.
fn refused(path: &Path, errno: Errno) -> NotPrivate {
    let path = path.to_owned();
    match errno {
        Errno::NOENT => NotPrivate::Absent(path),
        Errno::LOOP | Errno::NOTDIR => {
            NotPrivate::Unsafe { path, why: "it is a symbolic link, or no directory".to_owned() }
        }
        errno => NotPrivate::Failed { path, source: errno.into() },
    }
}

impl PrivateFolder {
    /// Opens the folder `name` in `above`.
    ///
    /// # Errors
    /// When there is none, or it is not ours alone.
    pub fn open(above: &Path, name: &str) -> Result<Self, NotPrivate> {
        let path = above.join(name);
        let parent = rustix::fs::open(above, DIRECTORY, Mode::empty());
        let parent = parent.map_err(|errno| refused(above, errno))?;
        let flags = DIRECTORY | OFlags::NOFOLLOW;
        let fd = rustix::fs::openat(&parent, name, flags, Mode::empty()).map_err(|e| refused(&path, e))?;
        require_ours(&fd, &path, FileType::Directory)?;
        Ok(Self(Arc::new(Directory { fd, path })))
    }

    /// The same; makes it where it is missing, and what is missing above with mode 0755: it may hold what all may see.
    ///
    /// # Errors
    /// When it cannot be made, or is not ours alone.
    pub fn open_or_make(above: &Path, name: &str) -> Result<Self, NotPrivate> {
        match Self::open(above, name) {
            Err(NotPrivate::Absent(_)) => {}
            answer => return answer,
        }
        let parent = match Directory::open(above) {
            Ok(parent) => parent,
            Err(error) if error.kind() == io::ErrorKind::NotFound => create_directories(above, 0o755)?,
            Err(source) => return Err(NotPrivate::Failed { path: above.to_owned(), source }),
        };
        let path = above.join(name);
        match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o700)) {
            // Made at the same moment by another run of ours, or by somebody else: it is judged like any other.
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(NotPrivate::Failed { path, source: errno.into() }),
        }
        Self::open(above, name)
    }

    /// The path that it was opened under.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Whether what is written here goes to memory and no disk, swapping aside.
    #[must_use]
    pub fn is_in_memory(&self) -> bool {
        rustix::fs::fstatfs(&self.0.fd).is_ok_and(|found| is_memory(&found))
    }

    /// The contents of the file `name`.
    ///
    /// # Errors
    /// When there is none, it is not ours alone, or it is longer than `limit`.
    pub fn read(&self, name: &str, limit: u64) -> Result<Zeroizing<Vec<u8>>, NotPrivate> {
        let path = self.0.path.join(name);
        // Not blocking: it may be a pipe.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        let fd = rustix::fs::openat(&self.0.fd, name, flags, Mode::empty()).map_err(|e| refused(&path, e))?;
        let stat = require_ours(&fd, &path, FileType::RegularFile)?;
        let length = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
        if length > limit {
            return Err(NotPrivate::Unsafe { path, why: format!("it has {length} bytes") });
        }
        // In one piece: a vector that grows leaves copies behind.
        let room = usize::try_from(length).unwrap_or(0) + 1;
        let mut contents = Zeroizing::new(Vec::with_capacity(room));
        match File::from(fd).take(length).read_to_end(&mut contents) {
            Ok(_) => Ok(contents),
            Err(source) => Err(NotPrivate::Failed { path, source }),
        }
    }

    /// Makes `contents` the file `name`, of mode 0600, in place of one of ours: whole or not at all.
    ///
    /// # Errors
    /// When it cannot be written, or the name is somebody else's: then it is what it was.
    pub fn replace(&self, name: &str, contents: &[u8]) -> Result<(), NotPrivate> {
        self.require_replaceable(name)?;
        let _ = super::remove_leftovers(&self.0);
        let mut draft = Draft::create(&self.0, None, 0o600)?;
        require_ours(draft.file()?, &self.0.path.join(name), FileType::RegularFile)?;
        draft.write(contents)?;
        Ok(draft.publish(&self.0, name, IfPresent::Replace)?)
    }

    /// Whether the name is free, or of a file of ours, whatever its mode.
    ///
    /// # Errors
    /// That it is not.
    pub fn require_replaceable(&self, name: &str) -> Result<(), NotPrivate> {
        let path = self.0.path.join(name);
        let own = rustix::process::geteuid().as_raw();
        match rustix::fs::statat(&self.0.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(NotPrivate::Failed { path, source: errno.into() }),
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile => {
                Err(NotPrivate::Unsafe { path, why: "it is no file".to_owned() })
            }
            Ok(stat) if stat.st_uid != own => Err(NotPrivate::Unsafe {
                path,
                why: format!("it belongs to user {}, and this is user {own}", stat.st_uid),
            }),
            Ok(_) => Ok(()),
        }
    }

    /// Removes the file `name` if it is ours.
    ///
    /// # Errors
    /// When it is not, or cannot be removed. None there is fine.
    pub fn remove(&self, name: &str) -> Result<(), NotPrivate> {
        self.require_replaceable(name)?;
        match rustix::fs::unlinkat(&self.0.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(NotPrivate::Failed { path: self.0.path.join(name), source: errno.into() }),
        }
    }
}

/// Whether the file at `path` lies in memory and on no disk, swapping aside.
///
/// # Errors
/// Of statfs(2).
pub fn lies_in_memory(path: &Path) -> io::Result<bool> {
    Ok(is_memory(&rustix::fs::statfs(path)?))
}

fn is_memory(found: &rustix::fs::StatFs) -> bool {
    /// `TMPFS_MAGIC` and `RAMFS_MAGIC` of linux/magic.h.
    const MEMORY: [i64; 2] = [0x0102_1994, 0x8584_58F6];
    #[allow(clippy::useless_conversion, reason = "its width and sign are the platform's")]
    let kind = i64::try_from(found.f_type);
    kind.is_ok_and(|kind| MEMORY.contains(&(kind & 0xFFFF_FFFF)))
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "what a test writes needs not last")]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    const NAME: &str = "private";

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn what_is_kept_is_read_again_and_only_ours() {
        let dir = tempfile::tempdir().unwrap();
        let above = dir.path().join("lock");
        assert!(matches!(PrivateFolder::open(&above, NAME), Err(NotPrivate::Absent(_))));
        let folder = PrivateFolder::open_or_make(&above, NAME).unwrap();
        assert_eq!((mode(&above), mode(folder.path())), (0o755, 0o700));
        assert!(matches!(folder.read("a", 10), Err(NotPrivate::Absent(_))));
        folder.replace("a", b"one").unwrap();
        folder.replace("a", b"two").unwrap();
        assert_eq!(mode(&folder.path().join("a")), 0o600);
        let again = PrivateFolder::open(&above, NAME).unwrap();
        assert_eq!(&again.read("a", 3).unwrap()[..], b"two");
        assert!(matches!(again.read("a", 2), Err(NotPrivate::Unsafe { .. })));
        assert_eq!(fs::read_dir(again.path()).unwrap().count(), 1, "nothing else is left");
        again.remove("a").unwrap();
        again.remove("a").unwrap();
        assert!(matches!(again.read("a", 3), Err(NotPrivate::Absent(_))));
    }

    #[test]
    fn a_folder_that_others_may_use_or_that_is_a_link_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let folder = PrivateFolder::open_or_make(dir.path(), NAME).unwrap();
        folder.replace("a", b"one").unwrap();
        for loose in [0o701, 0o710, 0o740, 0o1777] {
            fs::set_permissions(folder.path(), Permissions::from_mode(loose)).unwrap();
            for answer in
                [PrivateFolder::open(dir.path(), NAME), PrivateFolder::open_or_make(dir.path(), NAME)]
            {
                let said = answer.unwrap_err().to_string();
                assert!(said.contains("others may use it"), "{said}");
            }
            assert_eq!(mode(folder.path()), loose, "it is left as it is");
        }
        fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).unwrap();
        symlink(folder.path(), dir.path().join("link")).unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        for name in ["link", "file"] {
            let answer = PrivateFolder::open_or_make(dir.path(), name);
            assert!(matches!(answer, Err(NotPrivate::Unsafe { .. })), "{name}");
        }
        assert!(PrivateFolder::open_or_make(&dir.path().join("file"), NAME).is_err());
    }

    #[test]
    fn a_file_that_others_may_read_or_that_is_something_else_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let folder = PrivateFolder::open_or_make(dir.path(), NAME).unwrap();
        folder.replace("a", b"one").unwrap();
        let file = folder.path().join("a");
        for loose in [0o640, 0o604, 0o620] {
            fs::set_permissions(&file, Permissions::from_mode(loose)).unwrap();
            assert!(matches!(folder.read("a", 10), Err(NotPrivate::Unsafe { .. })), "{loose:o}");
        }
        // It is ours, so it may be replaced, and is closed again.
        folder.replace("a", b"two").unwrap();
        assert_eq!((&folder.read("a", 10).unwrap()[..], mode(&file)), (&b"two"[..], 0o600));

        let target = dir.path().join("target");
        fs::write(&target, "not to be touched").unwrap();
        fs::set_permissions(&target, Permissions::from_mode(0o600)).unwrap();
        symlink(&target, folder.path().join("link")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            folder.path().join("pipe"),
            FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        fs::create_dir(folder.path().join("folder")).unwrap();
        for name in ["link", "pipe", "folder"] {
            assert!(matches!(folder.read(name, 10), Err(NotPrivate::Unsafe { .. })), "{name}");
            assert!(matches!(folder.replace(name, b"x"), Err(NotPrivate::Unsafe { .. })), "{name}");
            assert!(matches!(folder.remove(name), Err(NotPrivate::Unsafe { .. })), "{name}");
        }
        assert_eq!(fs::read(&target).unwrap(), b"not to be touched");
    }

    #[test]
    fn what_is_a_strangers_is_neither_read_nor_written_over() {
        // Only root can make such a thing.
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let folder = PrivateFolder::open_or_make(dir.path(), NAME).unwrap();
        folder.replace("a", b"theirs").unwrap();
        std::os::unix::fs::chown(folder.path().join("a"), Some(33), None).unwrap();
        for said in [
            folder.read("a", 10).unwrap_err().to_string(),
            folder.replace("a", b"ours").unwrap_err().to_string(),
            folder.remove("a").unwrap_err().to_string(),
        ] {
            assert!(said.contains("belongs to user 33"), "{said}");
        }
        assert_eq!(fs::read(folder.path().join("a")).unwrap(), b"theirs");
        std::os::unix::fs::chown(folder.path(), Some(33), None).unwrap();
        let said = PrivateFolder::open_or_make(dir.path(), NAME).unwrap_err().to_string();
        assert!(said.contains("belongs to user 33"), "{said}");
    }

    #[test]
    fn what_lies_in_memory_is_told_from_what_lies_on_a_disk() {
        assert!(!lies_in_memory(Path::new("/proc")).unwrap());
        // Where it is mounted, as it is on most hosts.
        let shared = Path::new("/dev/shm");
        let is_tmpfs = fs::read_to_string("/proc/mounts")
            .is_ok_and(|mounts| mounts.lines().any(|line| line.contains(" /dev/shm tmpfs ")));
        if is_tmpfs {
            assert!(lies_in_memory(shared).unwrap());
        }
    }
}
