//! The directories that are being filled: where each path of the map goes, and with which owner and mode.

use super::directory::{CONTROL, CONTROL_DRAFT, DirectoryError, MARKER, Place};
use super::error::{RestoreError, file};
use super::owner::Owner;
use crate::durable::Directory;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// What becomes of a path of the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It is restored.
    Plain,
    /// It is restored, and rewritten afterwards: not in the manifest.
    Rewritten,
    /// `global/pg_control`: restored under another name, and moved into place last.
    Control,
    /// It is of the server the image was taken from, or of its recovery, and is not restored.
    LeftOut,
}

/// What becomes of `path`. With `keep_signals` the image's signal files are kept.
#[must_use]
pub fn role(path: &[u8], keep_signals: bool) -> Role {
    match path {
        b"global/pg_control" => Role::Control,
        b"postgresql.auto.conf" => Role::Rewritten,
        // PostgreSQL would link tablespaces to the original directories: the living server's.
        b"tablespace_map" | b"backup_manifest" | b"postmaster.pid" | b"postmaster.opts" => Role::LeftOut,
        b"recovery.signal" | b"standby.signal" if keep_signals => Role::Rewritten,
        b"recovery.signal" | b"standby.signal" => Role::LeftOut,
        path if path == MARKER.as_bytes() || path == CONTROL_DRAFT.as_bytes() => Role::LeftOut,
        // Whatever WAL an image has comes from the archive instead, checked.
        path if path.starts_with(b"pg_wal/") => Role::LeftOut,
        _ => Role::Plain,
    }
}

/// The OID in `pg_tblspc/<oid>` or a path below it, and the rest.
#[must_use]
pub fn tablespace_of(path: &[u8]) -> Option<(u32, &[u8])> {
    let rest = path.strip_prefix(b"pg_tblspc/")?;
    let end = rest.iter().position(|b| *b == b'/').unwrap_or(rest.len());
    let (oid, rest) = rest.split_at(end);
    let oid = std::str::from_utf8(oid).ok()?.parse().ok()?;
    Some((oid, rest.strip_prefix(b"/").unwrap_or(rest)))
}

struct Space {
    oid: u32,
    directory: Directory,
}

/// What `Tree::open` does about owner and mode.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ownership {
    /// Sets them.
    Ours,
    /// Leaves those of a directory that is there: other clusters use it, too.
    Shared,
}

/// The open directories.
pub struct Tree {
    pgdata: Directory,
    wal: Option<Directory>,
    spaces: Vec<Space>,
    in_place: BTreeSet<u32>,
    owner: Option<Owner>,
    group_access: bool,
}

impl std::fmt::Debug for Tree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tree({})", self.pgdata.path().display())
    }
}

fn owner_ids(owner: Owner) -> (Option<rustix::fs::Uid>, Option<rustix::fs::Gid>) {
    (Some(rustix::fs::Uid::from_raw(owner.user)), Some(rustix::fs::Gid::from_raw(owner.group)))
}

impl Tree {
    /// Makes and opens the directories of `place`. What is missing on the way belongs to the owner too.
    ///
    /// # Errors
    /// Of the file system.
    pub fn open(place: &Place, group_access: bool) -> Result<Self, RestoreError> {
        let owner = place.set_owner.then_some(place.owner);
        let mode = if group_access { 0o750 } else { 0o700 };
        let open = |path: &Path, ownership: Ownership| -> Result<Directory, RestoreError> {
            make_with_parents(path, owner, mode)?;
            let directory = Directory::open(path).map_err(file("could not open", path))?;
            if ownership == Ownership::Shared {
                return Ok(directory);
            }
            let metadata = std::fs::metadata(path).map_err(file("could not look at", path))?;
            if metadata.permissions().mode() & 0o777 != mode {
                rustix::fs::fchmod(&directory, Mode::from_raw_mode(mode))
                    .map_err(|errno| file("could not set the mode of", path)(errno.into()))?;
            }
            if let Some(owner) =
                owner.filter(|owner| (metadata.uid(), metadata.gid()) != (owner.user, owner.group))
            {
                let (user, group) = owner_ids(owner);
                rustix::fs::fchown(&directory, user, group)
                    .map_err(|errno| file("could not set the owner of", path)(errno.into()))?;
            }
            Ok(directory)
        };
        let pgdata = open(&place.pgdata, Ownership::Ours)?;
        let mut spaces = Vec::new();
        for space in &place.tablespaces {
            let ownership = if space.shared { Ownership::Shared } else { Ownership::Ours };
            spaces.push(Space { oid: space.oid, directory: open(&space.path, ownership)? });
        }
        let wal = match &place.wal_dir {
            Some((path, _)) => Some(open(path, Ownership::Ours)?),
            None => None,
        };
        Ok(Self { pgdata, wal, spaces, in_place: place.in_place.clone(), owner, group_access })
    }

    /// Keeps other restores out of every one of the directories, as long as this lives.
    ///
    /// # Errors
    /// [`DirectoryError::RestoreRunning`] when one is at work in one of them.
    pub fn lock(&self) -> Result<(), DirectoryError> {
        let directories = std::iter::once(&self.pgdata)
            .chain(self.spaces.iter().map(|space| &space.directory))
            .chain(self.wal.as_ref());
        for directory in directories {
            if !directory.try_lock() {
                return Err(DirectoryError::RestoreRunning(directory.path().to_owned()));
            }
        }
        Ok(())
    }

    /// The data directory.
    #[must_use]
    pub const fn pgdata(&self) -> &Directory {
        &self.pgdata
    }

    /// Whether the group may read.
    #[must_use]
    pub const fn group_access(&self) -> bool {
        self.group_access
    }

    /// Every directory that may be on a file system of its own.
    #[must_use]
    pub fn roots(&self) -> Vec<PathBuf> {
        let mut roots = vec![self.pgdata.path().to_owned()];
        roots.extend(self.spaces.iter().map(|space| space.directory.path().to_owned()));
        roots.extend(self.wal.as_ref().map(|directory| directory.path().to_owned()));
        roots
    }

    const fn directory_mode(&self) -> u32 {
        if self.group_access { 0o750 } else { 0o700 }
    }

    const fn file_mode(&self) -> u32 {
        if self.group_access { 0o640 } else { 0o600 }
    }

    /// The directory and the path in it. Tablespaces are reached directly, never through their links.
    fn locate<'p>(&self, path: &'p [u8]) -> Result<(&Directory, &'p [u8]), RestoreError> {
        let Some((oid, rest)) = tablespace_of(path) else { return Ok((&self.pgdata, path)) };
        if self.in_place.contains(&oid) {
            return Ok((&self.pgdata, path));
        }
        let space =
            self.spaces.iter().find(|space| space.oid == oid).ok_or_else(|| RestoreError::Strange {
                path: OsStr::from_bytes(path).into(),
                why: "its tablespace is not in the record",
            })?;
        Ok((&space.directory, rest))
    }

    /// The path in the file system, for messages.
    #[must_use]
    pub fn shown(&self, path: &[u8]) -> PathBuf {
        self.pgdata.path().join(OsStr::from_bytes(path))
    }

    /// Makes a directory; there already is fine.
    ///
    /// # Errors
    /// Of the file system.
    pub fn make_directory(&self, path: &[u8]) -> Result<(), RestoreError> {
        let (base, below) = self.locate(path)?;
        let failed = |errno: Errno| file("could not make directory", self.shown(path))(errno.into());
        match rustix::fs::mkdirat(base, below, Mode::from_raw_mode(self.directory_mode())) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Ok(()),
            Err(errno) => return Err(failed(errno)),
        }
        if self.group_access {
            // The umask may have cut it.
            rustix::fs::chmodat(base, below, Mode::from_raw_mode(self.directory_mode()), AtFlags::empty())
                .map_err(failed)?;
        }
        if let Some(owner) = self.owner {
            let (user, group) = owner_ids(owner);
            rustix::fs::chownat(base, below, user, group, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        }
        Ok(())
    }

    /// Makes a file that was not there, empty, and opens it for writing.
    ///
    /// # Errors
    /// Of the file system; also when something stands under the name.
    pub fn create(&self, path: &[u8]) -> Result<File, RestoreError> {
        let (base, below) = self.locate(path)?;
        let failed = |errno: Errno| file("could not create", self.shown(path))(errno.into());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd =
            rustix::fs::openat(base, below, flags, Mode::from_raw_mode(self.file_mode())).map_err(failed)?;
        if self.group_access {
            rustix::fs::fchmod(&fd, Mode::from_raw_mode(self.file_mode())).map_err(failed)?;
        }
        if let Some(owner) = self.owner {
            let (user, group) = owner_ids(owner);
            rustix::fs::fchown(&fd, user, group).map_err(failed)?;
        }
        Ok(File::from(fd))
    }

    /// Makes a symbolic link with an absolute target.
    ///
    /// # Errors
    /// Of the file system.
    pub fn link(&self, path: &str, target: &Path) -> Result<(), RestoreError> {
        let failed = |errno: Errno| file("could not link", self.shown(path.as_bytes()))(errno.into());
        rustix::fs::symlinkat(target, &self.pgdata, path).map_err(failed)?;
        if let Some(owner) = self.owner {
            let (user, group) = owner_ids(owner);
            rustix::fs::chownat(&self.pgdata, path, user, group, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(failed)?;
        }
        Ok(())
    }

    /// The size of the regular file at `path`, and whether it is a directory; `None` when nothing is there.
    ///
    /// # Errors
    /// Of the file system.
    pub fn look(&self, path: &[u8]) -> Result<Option<Look>, RestoreError> {
        let (base, below) = self.locate(path)?;
        let below = if below.is_empty() { b"." } else { below };
        match rustix::fs::statat(base, below, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(match rustix::fs::FileType::from_raw_mode(stat.st_mode) {
                rustix::fs::FileType::RegularFile => Look::File(u64::try_from(stat.st_size).unwrap_or(0)),
                rustix::fs::FileType::Directory => Look::Directory,
                _ => Look::Other,
            })),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(file("could not look at", self.shown(path))(errno.into())),
        }
    }

    /// Links the tablespaces and `pg_wal`, and makes what PostgreSQL wants in the latter.
    ///
    /// # Errors
    /// Of the file system.
    pub fn link_elsewhere(&self) -> Result<(), RestoreError> {
        self.make_directory(b"global")?;
        match &self.wal {
            Some(directory) => self.link("pg_wal", directory.path())?,
            None => self.make_directory(b"pg_wal")?,
        }
        self.make_directory(b"pg_wal/archive_status")?;
        if !self.spaces.is_empty() || !self.in_place.is_empty() {
            self.make_directory(b"pg_tblspc")?;
        }
        for oid in &self.in_place {
            self.make_directory(format!("pg_tblspc/{oid}").as_bytes())?;
        }
        for space in &self.spaces {
            self.link(&format!("pg_tblspc/{}", space.oid), space.directory.path())?;
        }
        Ok(())
    }

    /// The draft of `pg_control` into its place, durably.
    ///
    /// # Errors
    /// Of the file system.
    pub fn publish_control(&self) -> Result<(), RestoreError> {
        let global =
            self.pgdata.open_below("global").map_err(file("could not open", self.shown(b"global")))?;
        let name = |path: &'static str| path.strip_prefix("global/").unwrap_or(path);
        Ok(global.replace(name(CONTROL_DRAFT), name(CONTROL))?)
    }
}

/// What stands at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// A regular file of so many bytes.
    File(u64),
    /// A directory.
    Directory,
    /// Something else.
    Other,
}

fn make_with_parents(path: &Path, owner: Option<Owner>, mode: u32) -> Result<(), RestoreError> {
    let mut missing: Vec<&Path> = path.ancestors().take_while(|path| !path.exists()).collect();
    while let Some(path) = missing.pop() {
        let failed = |errno: Errno| file("could not make directory", path)(errno.into());
        match rustix::fs::mkdir(path, Mode::from_raw_mode(mode)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(failed(errno)),
        }
        if let Some(owner) = owner {
            let (user, group) = owner_ids(owner);
            rustix::fs::chown(path, user, group).map_err(failed)?;
        }
        if let Some(parent) = path.parent() {
            let parent_directory = Directory::open(parent).map_err(file("could not open", parent))?;
            parent_directory.sync().map_err(file("could not sync", parent))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_to_another_server_is_left_out() {
        for (path, expected) in [
            ("base/1/1259", Role::Plain),
            ("backup_label", Role::Plain),
            ("global/pg_control", Role::Control),
            ("postgresql.auto.conf", Role::Rewritten),
            ("tablespace_map", Role::LeftOut),
            ("standby.signal", Role::LeftOut),
            ("recovery.signal", Role::LeftOut),
            ("postmaster.pid", Role::LeftOut),
            ("backup_manifest", Role::LeftOut),
            ("pg_wal/000000010000000000000001", Role::LeftOut),
            ("pg_walx/1", Role::Plain),
            (MARKER, Role::LeftOut),
        ] {
            assert_eq!(role(path.as_bytes(), false), expected, "{path}");
        }
        assert_eq!(role(b"standby.signal", true), Role::Rewritten);
        assert_eq!(role(b"tablespace_map", true), Role::LeftOut);
    }

    #[test]
    fn tablespaces_are_known_by_their_numbers() {
        assert_eq!(tablespace_of(b"pg_tblspc/16391/PG_17_1/5/6"), Some((16391, b"PG_17_1/5/6".as_slice())));
        assert_eq!(tablespace_of(b"pg_tblspc/16391"), Some((16391, b"".as_slice())));
        for other in ["pg_tblspc", "pg_tblspc/x/1", "base/1", "pg_tblspc/-1/2"] {
            assert_eq!(tablespace_of(other.as_bytes()), None);
        }
    }
}
