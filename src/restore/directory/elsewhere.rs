//! What lies outside the data directory: `pg_wal` where it is a link, and tablespaces.
//!
//! A link proves little: a copy of a data directory (`cp -a`, a snapshot) has the links of the original, and what
//! they lead to is the original's. So before anything behind a link is moved or removed, the servers that can be
//! seen on this host are asked whether it is theirs.

use super::{
    DirectoryError, Place, Room, TablespacePlace, Wishes, exists, looking, metadata, names, nearest, room,
};
use super::{settled, usage};
use crate::restore::owner::Owner;
use crate::restore::running;
use crate::units::ByteCount;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The directory for WAL, and what is free there.
pub(super) fn examine_wal_dir(
    wanted: &Path,
    pgdata: &Path,
    aside: Option<&(PathBuf, PathBuf)>,
    owner: Owner,
) -> Result<(PathBuf, Room), DirectoryError> {
    let path = settled(wanted)?;
    // What is moved aside leaves its place free; what a restore left that was killed early is taken again.
    let moved = aside.is_some_and(|(from, _)| *from == path);
    let left = fs::canonicalize(pgdata.join("pg_wal")).is_ok_and(|target| target == path)
        && only(&path, |name| matches!(name.as_bytes(), b"archive_status" | b"summaries"))?;
    if !moved && !left && exists(&path)? && !names(&path)?.is_empty() {
        return Err(DirectoryError::NotEmpty { path });
    }
    if left {
        refuse_used(&path, pgdata, None, true)?;
    }
    require_writable(&path, owner)?;
    let room = room(&path)?;
    Ok((path, room))
}

/// The directory of tablespace `oid`. `replaces`: the data directory has contents that go.
pub(super) fn examine_tablespace(
    oid: u32,
    wanted: &Path,
    pgdata: &Path,
    wishes: &Wishes,
    replaces: bool,
    owner: Owner,
) -> Result<TablespacePlace, DirectoryError> {
    let path = settled(wanted)?;
    let there = if exists(&path)? { names(&path)? } else { Vec::new() };
    let own = OsStr::new(&wishes.version_folder);
    let (mut holds_own, mut shared) = (false, false);
    if !there.is_empty() {
        let linked = replaces && is_linked_from(pgdata, oid, &path);
        refuse_used(&path, pgdata, Some(oid), linked)?;
        holds_own = there.iter().any(|name| name == own);
        shared = there.iter().any(|name| name != own);
        // Only what a server makes may be there: PG_<major>_<catalog version>.
        let all_servers = there.iter().all(|name| name.as_bytes().starts_with(b"PG_"));
        // The folder of our own version goes only when the data directory that is replaced had it; beside those of
        // other versions (pg_upgrade leaves the old cluster's) there is place when that was asked for.
        let may = match holds_own {
            true => linked,
            false => wishes.force || linked,
        };
        if !all_servers || !may {
            return Err(DirectoryError::TablespaceNotEmpty { oid, path, holds_own });
        }
        let found = metadata(&path)?.map(|found| Owner::of(&found));
        if shared && found.is_some_and(|found| found.user != owner.user) {
            // Its mode and owner are not changed under the other cluster.
            return Err(DirectoryError::TablespaceNotEmpty { oid, path, holds_own });
        }
    }
    require_writable(&path, owner)?;
    let freed = if holds_own { usage(&path.join(own))? } else { ByteCount::ZERO };
    Ok(TablespacePlace { oid, room: room(&path)?, path, to_be_emptied: holds_own, shared, freed })
}

/// Directories to which the data directory that is replaced links its tablespaces, and that this restore does not
/// use: they stay as they are.
pub(super) fn left_behind(pgdata: &Path, places: &[PathBuf]) -> Result<Vec<PathBuf>, DirectoryError> {
    let links = pgdata.join("pg_tblspc");
    if !exists(&links)? {
        return Ok(Vec::new());
    }
    let mut left: Vec<PathBuf> = names(&links)?
        .into_iter()
        .filter_map(|name| {
            let link = links.join(name);
            let is_link = fs::symlink_metadata(&link).is_ok_and(|found| found.is_symlink());
            is_link.then(|| fs::canonicalize(link).ok())?
        })
        .filter(|target| !places.contains(target))
        .collect();
    left.sort();
    Ok(left)
}

/// Refuses what a server on this host has as its tablespace or as its `pg_wal`.
fn refuse_used(
    path: &Path,
    pgdata: &Path,
    oid: Option<u32>,
    through_link: bool,
) -> Result<(), DirectoryError> {
    match running::user_of(path, pgdata) {
        None => Ok(()),
        Some(server) => {
            Err(DirectoryError::UsedByServer { path: path.to_owned(), oid, through_link, server })
        }
    }
}

fn only(path: &Path, fits: impl Fn(&OsString) -> bool) -> Result<bool, DirectoryError> {
    Ok(exists(path)? && names(path)?.iter().all(fits))
}

fn require_writable(path: &Path, owner: Owner) -> Result<(), DirectoryError> {
    let (near, found) = nearest(path)?;
    let fits = Owner::of_this_process().user == 0 || near != path || found.uid() == owner.user;
    if !fits || rustix::fs::access(&near, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK).is_err()
    {
        return Err(DirectoryError::NoRights {
            wanted: path.to_owned(),
            path: near,
            owner: Owner::of(&found),
        });
    }
    Ok(())
}

/// Whether the directory that is to be replaced had its tablespace `oid` there.
fn is_linked_from(pgdata: &Path, oid: u32, path: &Path) -> bool {
    let link = pgdata.join("pg_tblspc").join(oid.to_string());
    fs::canonicalize(link).is_ok_and(|target| target == path)
}

/// A `pg_wal` with a file in it, and the name beside the data directory (or beside what it links to) that it
/// is moved to.
pub(super) fn wal_to_move(
    pgdata: &Path,
    now_compact: &str,
) -> Result<Option<(PathBuf, PathBuf)>, DirectoryError> {
    let link = pgdata.join("pg_wal");
    if metadata(&link)?.is_none() {
        return Ok(None);
    }
    let from = fs::canonicalize(&link).map_err(looking(&link))?;
    let mut holds_files = false;
    for entry in fs::read_dir(&from).map_err(looking(&from))? {
        let entry = entry.map_err(looking(&from))?;
        holds_files |= !entry.file_type().map_err(looking(&from))?.is_dir();
    }
    if !holds_files {
        return Ok(None);
    }
    let is_link = fs::symlink_metadata(&link).map_err(looking(&link))?.is_symlink();
    if is_link {
        refuse_used(&from, pgdata, None, true)?;
    }
    let wal = from.clone();
    let cannot = || DirectoryError::WalCannotMove { wal: wal.clone() };
    let base = if is_link { from.as_path() } else { pgdata };
    let mut name = base.file_name().ok_or_else(cannot)?.to_owned();
    name.push(if is_link { "" } else { "-pg_wal" });
    name.push(format!("-before-{now_compact}"));
    let beside = base.parent().ok_or_else(cannot)?;
    let (from_device, beside_device) = (
        fs::metadata(&from).map_err(looking(&from))?.dev(),
        fs::metadata(beside).map_err(looking(beside))?.dev(),
    );
    let writable =
        rustix::fs::access(beside, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK).is_ok();
    if from_device != beside_device || !writable {
        return Err(cannot());
    }
    let to = beside.join(name);
    Ok(Some((from, to)))
}

impl Place {
    /// Directories that must lie apart: the data directory, that for WAL, and tablespaces.
    pub(super) fn roots(&self) -> Vec<PathBuf> {
        let mut roots = vec![self.pgdata.clone()];
        roots.extend(self.wal_dir.iter().map(|(path, _)| path.clone()));
        roots.extend(self.tablespaces.iter().map(|space| space.path.clone()));
        roots
    }

    /// Refuses directories that lie in each other, and such as hold, or lie in, what must not be touched.
    pub(super) fn require_apart(&self, wishes: &Wishes) -> Result<(), DirectoryError> {
        let roots = self.roots();
        for (index, one) in roots.iter().enumerate() {
            for (other_index, other) in roots.iter().enumerate() {
                if index != other_index && other.starts_with(one) {
                    return Err(DirectoryError::Nested { outer: one.clone(), inner: other.clone() });
                }
            }
        }
        for (what, path) in &wishes.keep_out {
            let Ok(path) = fs::canonicalize(path) else { continue };
            if let Some(root) = roots.iter().find(|root| path.starts_with(root) || root.starts_with(&path)) {
                return Err(DirectoryError::HoldsOther {
                    path: root.clone(),
                    what: what.clone(),
                    other: path,
                });
            }
        }
        Ok(())
    }
}
