//! Looking at where a restore is to go, before anything is touched.
//!
//! What may be replaced is narrow on purpose. An absent or empty directory may be filled. What a killed restore
//! left (a marker of ours and no `global/pg_control`) may be filled again. A data directory of the same cluster
//! may be replaced when that was asked for in so many words, never while a server works in it. Anything else is
//! left alone whatever was asked: a path with a slip in it must not cost somebody's home directory.

mod elsewhere;
mod refused;

pub use refused::DirectoryError;

use super::owner::Owner;
use super::running::{self, Life};
use super::tablespaces::Destinations;
use crate::durable::Directory;
use crate::postgres::control_file::ControlFile;
use crate::units::{ByteCount, SystemIdentifier};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

/// Says that a restore into this directory has not finished. Goes before `pg_control` comes.
pub const MARKER: &str = "walden-restore-unfinished";
/// `pg_control` before its last step.
pub const CONTROL_DRAFT: &str = "global/pg_control.walden-restore";
/// What makes a data directory startable.
pub const CONTROL: &str = "global/pg_control";

/// What was asked about the place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wishes {
    /// The data directory.
    pub pgdata: PathBuf,
    /// Where `pg_wal` is to be instead of in it.
    pub wal_dir: Option<PathBuf>,
    /// Where the image's tablespaces are to be.
    pub tablespaces: Destinations,
    /// `--owner`
    pub owner: Option<Owner>,
    /// `--force`
    pub force: bool,
    /// The cluster that is to be restored.
    pub system: SystemIdentifier,
    /// The folder that a server of its version has in a tablespace's directory: `PG_17_202406281`.
    pub version_folder: String,
    /// What must lie neither in a directory that is filled nor around it, with a name for each: repositories,
    /// configuration, keys.
    pub keep_out: Vec<(String, PathBuf)>,
}

/// What is in the way, and may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing, not even the directory.
    Absent,
    /// An empty directory.
    Empty,
    /// What a restore left that did not finish.
    Unfinished,
    /// A data directory that is to be replaced.
    DataDirectory {
        /// What its `PG_VERSION` says.
        version: String,
        /// A `postmaster.pid` was left by a server that did not stop properly.
        pid_left: bool,
    },
}

/// Where a directory's file system is and what is free there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// The file system.
    pub device: u64,
    /// What an ordinary user may still write to it.
    pub free: ByteCount,
}

/// Where one tablespace goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TablespacePlace {
    /// Its OID.
    pub oid: u32,
    /// The directory, absolute.
    pub path: PathBuf,
    /// What is free there.
    pub room: Room,
    /// It holds what the directory that is replaced had in it: this cluster's own folder in it goes, and no
    /// other's.
    pub to_be_emptied: bool,
    /// Clusters of other versions have their folders there: owner and mode are left alone.
    pub shared: bool,
    /// What the removal of the folder will free.
    pub freed: ByteCount,
}

/// A place that a restore may fill, and what it has to do there first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The data directory, absolute.
    pub pgdata: PathBuf,
    /// What is there.
    pub found: Found,
    /// What is free there.
    pub room: Room,
    /// What the removal of its contents will free.
    pub freed: ByteCount,
    /// To whom everything will belong.
    pub owner: Owner,
    /// Whether that has to be set: this process is somebody else.
    pub set_owner: bool,
    /// Whether the group may read; `None` leaves it to the image.
    pub group_access: Option<bool>,
    /// A `pg_wal` with something in it, that is moved aside: from where, to where.
    pub wal_aside: Option<(PathBuf, PathBuf)>,
    /// Where `pg_wal` will be, when not in the data directory, and what is free there.
    pub wal_dir: Option<(PathBuf, Room)>,
    /// Tablespaces with directories of their own, by OID.
    pub tablespaces: Vec<TablespacePlace>,
    /// Tablespaces that are directories in `pg_tblspc`.
    pub in_place: BTreeSet<u32>,
    /// Directories of tablespaces that the replaced data directory links to and that stay as they are.
    pub left_behind: Vec<PathBuf>,
    wishes: Wishes,
    named_at: String,
}

fn looking(path: &Path) -> impl FnOnce(io::Error) -> DirectoryError + use<> {
    let path = path.to_owned();
    |source| DirectoryError::Look { path, source }
}

/// Follows links; `None` when there is nothing.
fn metadata(path: &Path) -> Result<Option<Metadata>, DirectoryError> {
    match fs::metadata(path) {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(looking(path)(error)),
    }
}

/// Absolute, `.` taken out, links of the part that exists resolved, so that two names of one place are equal.
fn settled(path: &Path) -> Result<PathBuf, DirectoryError> {
    let refuse = || DirectoryError::NotAbsolute(path.to_owned());
    if !path.is_absolute() || path.components().any(|part| part == Component::ParentDir) {
        return Err(refuse());
    }
    let mut existing: PathBuf = path.components().collect();
    let mut rest: Vec<OsString> = Vec::new();
    loop {
        match fs::canonicalize(&existing) {
            Ok(mut real) => {
                real.extend(rest.iter().rev());
                return Ok(real);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // A link that leads nowhere is not a place to make a directory.
                if fs::symlink_metadata(&existing).is_ok() {
                    return Err(DirectoryError::NotADirectory(existing));
                }
                rest.push(existing.file_name().ok_or_else(refuse)?.to_owned());
                existing.pop();
            }
            Err(error) => return Err(looking(&existing)(error)),
        }
    }
}

fn nearest(path: &Path) -> Result<(PathBuf, Metadata), DirectoryError> {
    let mut at = path;
    loop {
        if let Some(found) = metadata(at)? {
            return if found.is_dir() {
                Ok((at.to_owned(), found))
            } else {
                Err(DirectoryError::NotADirectory(at.to_owned()))
            };
        }
        at = at.parent().ok_or_else(|| DirectoryError::NotADirectory(path.to_owned()))?;
    }
}

fn room(path: &Path) -> Result<Room, DirectoryError> {
    let (there, found) = nearest(path)?;
    let stat = rustix::fs::statvfs(&there).map_err(|errno| looking(&there)(errno.into()))?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    Ok(Room { device: found.dev(), free: ByteCount::new(free) })
}

fn names(path: &Path) -> Result<Vec<OsString>, DirectoryError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path).map_err(looking(path))? {
        names.push(entry.map_err(looking(path))?.file_name());
    }
    names.sort();
    Ok(names)
}

fn exists(path: &Path) -> Result<bool, DirectoryError> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(looking(path)(error)),
    }
}

/// Looks at the place, and says what a restore would have to do there.
///
/// # Errors
/// [`DirectoryError`], when it may not be filled or could not be looked at. Nothing is touched either way.
pub fn examine(wishes: &Wishes, now_compact: &str) -> Result<Place, DirectoryError> {
    let pgdata = settled(&wishes.pgdata)?;
    if pgdata.parent().is_none() {
        return Err(DirectoryError::NotADirectory(pgdata));
    }
    let found = look_at_pgdata(&pgdata, wishes)?;
    let (owner, set_owner) = decide_owner(&pgdata, wishes.owner)?;
    let group_access = metadata(&pgdata)?.and_then(|found| match found.permissions().mode() & 0o777 {
        0o700 => Some(false),
        0o750 => Some(true),
        _ => None,
    });
    let replaces = matches!(found, Found::Unfinished | Found::DataDirectory { .. });
    let wal_aside = if replaces { elsewhere::wal_to_move(&pgdata, now_compact)? } else { None };
    let freed = if replaces { usage(&pgdata)? } else { ByteCount::ZERO };

    let wal_dir = match &wishes.wal_dir {
        None => None,
        Some(wanted) => Some(elsewhere::examine_wal_dir(wanted, &pgdata, wal_aside.as_ref(), owner)?),
    };
    let mut tablespaces = Vec::new();
    for (oid, wanted) in &wishes.tablespaces.linked {
        let place = elsewhere::examine_tablespace(*oid, wanted, &pgdata, wishes, replaces, owner)?;
        tablespaces.push(place);
    }
    let room = room(&pgdata)?;
    let mut place = Place {
        pgdata,
        found,
        room,
        freed,
        owner,
        set_owner,
        group_access,
        wal_aside,
        wal_dir,
        tablespaces,
        in_place: wishes.tablespaces.in_place.clone(),
        left_behind: Vec::new(),
        wishes: wishes.clone(),
        named_at: now_compact.to_owned(),
    };
    place.require_apart(wishes)?;
    if replaces {
        place.left_behind = elsewhere::left_behind(&place.pgdata, &place.roots())?;
    }
    Ok(place)
}

/// Refuses a directory that another restore holds at this moment. For the plan; while it is carried out the lock is
/// held.
///
/// # Errors
/// [`DirectoryError::RestoreRunning`].
pub fn require_unlocked(pgdata: &Path) -> Result<(), DirectoryError> {
    match Directory::open(pgdata) {
        Ok(directory) if !directory.try_lock() => Err(DirectoryError::RestoreRunning(pgdata.to_owned())),
        // What cannot be opened is looked at otherwise.
        _ => Ok(()),
    }
}

impl Place {
    /// Looks again, with the locks held and nothing touched but directories made: is there still what was planned
    /// for?
    ///
    /// # Errors
    /// [`DirectoryError::Changed`], or a reason to refuse it that came up since.
    pub fn require_unchanged(&self) -> Result<(), DirectoryError> {
        let now = examine(&self.wishes, &self.named_at)?;
        let found = |place: &Self| match &place.found {
            Found::Absent => Found::Empty,
            found => found.clone(),
        };
        let spaces = |place: &Self| -> Vec<(u32, PathBuf, bool, bool)> {
            let space =
                |space: &TablespacePlace| (space.oid, space.path.clone(), space.to_be_emptied, space.shared);
            place.tablespaces.iter().map(space).collect()
        };
        let same = found(self) == found(&now)
            && self.pgdata == now.pgdata
            && self.wal_aside == now.wal_aside
            && self.wal_dir.as_ref().map(|(path, _)| path) == now.wal_dir.as_ref().map(|(path, _)| path)
            && spaces(self) == spaces(&now);
        if same { Ok(()) } else { Err(DirectoryError::Changed(self.pgdata.clone())) }
    }

    /// The folder of the cluster's version in a tablespace's directory.
    #[must_use]
    pub fn version_folder(&self) -> &str {
        &self.wishes.version_folder
    }
}

fn look_at_pgdata(pgdata: &Path, wishes: &Wishes) -> Result<Found, DirectoryError> {
    let Some(there) = metadata(pgdata)? else { return Ok(Found::Absent) };
    if !there.is_dir() {
        return Err(DirectoryError::NotADirectory(pgdata.to_owned()));
    }
    let names = names(pgdata)?;
    if names.is_empty() {
        return Ok(Found::Empty);
    }
    let life = running::look(pgdata).map_err(looking(&pgdata.join("postmaster.pid")))?;
    if let Life::Running { server, sign } = life {
        return Err(DirectoryError::ServerRunning { path: pgdata.to_owned(), server, sign });
    }
    let has_control = exists(&pgdata.join(CONTROL))?;
    if !has_control && (exists(&pgdata.join(MARKER))? || exists(&pgdata.join(CONTROL_DRAFT))?) {
        return Ok(Found::Unfinished);
    }
    // Killed while it wrote the marker itself.
    if names
        .iter()
        .all(|name| name.as_encoded_bytes().starts_with(crate::durable::TEMPORARY_PREFIX.as_bytes()))
    {
        return Ok(Found::Unfinished);
    }
    let version = fs::read_to_string(pgdata.join("PG_VERSION")).ok().map(|text| text.trim().to_owned());
    let Some(version) = version.filter(|text| {
        !text.is_empty() && text.len() <= 8 && text.bytes().all(|b| b.is_ascii_digit() || b == b'.')
    }) else {
        let names = names.into_iter().take(3).collect();
        return Err(DirectoryError::OtherContents { path: pgdata.to_owned(), names });
    };
    let pid_left = matches!(life, Life::Left(_));
    if !wishes.force {
        return Err(if pid_left {
            DirectoryError::PidFileLeft(pgdata.to_owned())
        } else {
            DirectoryError::DataDirectory { path: pgdata.to_owned(), version }
        });
    }
    // Without its pg_control it can no longer be told whose it is; that it was a data directory is plain.
    if has_control {
        let control = fs::read(pgdata.join(CONTROL)).map_err(looking(&pgdata.join(CONTROL)))?;
        let system = ControlFile::parse(&control).ok().map(|control| control.system_identifier);
        if system != Some(wishes.system) {
            return Err(DirectoryError::OtherCluster { path: pgdata.to_owned(), system });
        }
    }
    Ok(Found::DataDirectory { version, pid_left })
}

/// The owner of the directory that is there, or of the one that will hold it; `--owner` over both.
fn decide_owner(pgdata: &Path, wanted: Option<Owner>) -> Result<(Owner, bool), DirectoryError> {
    let me = Owner::of_this_process();
    let (near, found) = nearest(pgdata)?;
    let is_root = me.user == 0;
    let owner = match (wanted, is_root) {
        (Some(owner), true) => owner,
        (Some(owner), false) if owner.user != me.user => return Err(DirectoryError::NotRoot(owner)),
        (Some(owner), false) => owner,
        (None, true) => Owner::of(&found),
        (None, false) => me,
    };
    if owner.user == 0 {
        return Err(DirectoryError::OwnerIsRoot(pgdata.to_owned()));
    }
    if !is_root {
        // PostgreSQL insists that the data directory is its user's own.
        let fits = if near == pgdata { found.uid() == me.user } else { true };
        if !fits
            || rustix::fs::access(&near, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK).is_err()
        {
            return Err(DirectoryError::NoRights {
                wanted: pgdata.to_owned(),
                path: near,
                owner: Owner::of(&found),
            });
        }
    }
    Ok((owner, owner != me))
}

/// Blocks that the directory holds, without `pg_wal` and without what links lead to.
fn usage(pgdata: &Path) -> Result<ByteCount, DirectoryError> {
    let mut total = 0_u64;
    let mut left = vec![pgdata.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(&dir).map_err(looking(&dir))? {
            let entry = entry.map_err(looking(&dir))?;
            let found = entry.metadata().map_err(looking(&entry.path()))?;
            if found.is_dir() {
                if dir != *pgdata || entry.file_name() != "pg_wal" {
                    left.push(entry.path());
                }
            } else if found.nlink() == 1 {
                total = total.saturating_add(found.blocks().saturating_mul(512));
            }
        }
    }
    Ok(ByteCount::new(total))
}

#[cfg(test)]
mod tests;
