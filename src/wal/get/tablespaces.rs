//! What no restore can map: tablespaces that are created in the WAL.
//!
//! Replaying `XLOG_TBLSPC_CREATE` links `pg_tblspc/<oid>` to the directory that the record names, whether or not a
//! folder of this version is in it already (`create_tablespace_directories` of commands/tablespace.c). Beside the
//! living original that folder is the original's, and the replay goes on in its files. So a segment that would do
//! that is not given.

use crate::units::Lsn;
use crate::wal::CreatedTablespace;
use std::fs;
use std::path::{Path, PathBuf};

/// The server that asks.
#[derive(Clone, Debug)]
pub struct Server {
    /// Its data directory.
    pub data: PathBuf,
    /// Its folder in a tablespace's directory: `PG_17_202406281`.
    pub version_folder: String,
    /// What begins before is not replayed: the redo position of its `backup_label`, else of its control file. `None`
    /// where that is not known.
    pub replays_from: Option<Lsn>,
}

impl Server {
    /// The first of `created` whose directory has a folder of this version that is not this server's own.
    #[must_use]
    pub fn in_use<'c>(&self, created: &'c [CreatedTablespace]) -> Option<&'c CreatedTablespace> {
        created.iter().find(|tablespace| {
            // Relative or empty: in the data directory itself (allow_in_place_tablespaces).
            let location = Path::new(&tablespace.location);
            if !location.is_absolute() || !location.join(&self.version_folder).is_dir() {
                return false;
            }
            // A recovery that starts again finds what it made itself.
            let own = fs::canonicalize(self.data.join("pg_tblspc").join(tablespace.oid.to_string()));
            match (own, fs::canonicalize(location)) {
                (Ok(own), Ok(location)) => own != location,
                _ => true,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_directory_is_in_use_unless_this_servers_own_link_leads_there() {
        let dir = tempfile::tempdir().unwrap();
        let (data, space) = (dir.path().join("data"), dir.path().join("space"));
        fs::create_dir_all(data.join("pg_tblspc")).unwrap();
        fs::create_dir_all(&space).unwrap();
        let server =
            Server { data: data.clone(), version_folder: "PG_17_202406281".to_owned(), replays_from: None };
        let created = [(16390, String::new()), (16391, space.display().to_string())]
            .map(|(oid, location)| CreatedTablespace { oid, location });
        assert_eq!(server.in_use(&created), None, "an empty directory may be taken");
        fs::create_dir(space.join("PG_16_202307071")).unwrap();
        assert_eq!(server.in_use(&created), None, "another version's folder is beside ours");
        fs::create_dir(space.join("PG_17_202406281")).unwrap();
        assert_eq!(server.in_use(&created), Some(&created[1]));
        // Mapped elsewhere when it was restored: the replay would link it to the original's again.
        symlink(dir.path(), data.join("pg_tblspc/16391")).unwrap();
        assert_eq!(server.in_use(&created), Some(&created[1]));
        fs::remove_file(data.join("pg_tblspc/16391")).unwrap();
        symlink(&space, data.join("pg_tblspc/16391")).unwrap();
        assert_eq!(server.in_use(&created), None);
    }
}
