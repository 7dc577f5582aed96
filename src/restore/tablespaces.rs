//! Where the image's tablespaces are to go.
//!
//! A tablespace is named by its OID, which is the name of its link in `pg_tblspc`, or by the directory that the
//! original had it in; its SQL name is in `pg_tablespace`, a table, which no base backup tells. What is not mapped
//! goes back to the original's directory, and [`super::directory::examine`] refuses that where it is in use.
//! Tablespaces within the data directory (`allow_in_place_tablespaces`) stay within it unless they are mapped.

use crate::repo::record::Tablespace;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

/// What was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TablespaceMap {
    /// `--tablespace-map`: an OID or the original's directory, and the new directory.
    pub one: Vec<(String, PathBuf)>,
    /// `--tablespace-map-all`: each goes into a directory below, named by its OID.
    pub all: Option<PathBuf>,
}

/// Where each goes, by OID.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Destinations {
    /// Those with a directory of their own, to be linked.
    pub linked: BTreeMap<u32, PathBuf>,
    /// Those that are directories in `pg_tblspc`.
    pub in_place: BTreeSet<u32>,
}

/// Why a map cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TablespaceError {
    /// Neither an OID nor an absolute path: a name, most likely.
    NotAKey(String),
    /// The backup has no such tablespace.
    Unknown {
        /// What was given.
        key: String,
        /// Those that it has.
        known: Vec<Tablespace>,
    },
    /// The same tablespace is mapped to two directories.
    Twice(u32),
}

impl fmt::Display for TablespaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAKey(key) => write!(f, "\"{key}\" is neither a number nor an absolute path"),
            Self::Unknown { key, .. } => write!(f, "the backup has no tablespace {key}"),
            Self::Twice(oid) => write!(f, "tablespace {oid} is mapped to two directories"),
        }
    }
}

impl std::error::Error for TablespaceError {}

/// Whether the server keeps it in the data directory itself (`allow_in_place_tablespaces`): its location then is
/// the place where others have a link (`do_pg_backup_start` of access/transam/xlog.c).
#[must_use]
pub fn is_in_place(tablespace: &Tablespace) -> bool {
    tablespace.location == format!("pg_tblspc/{}", tablespace.oid)
}

impl TablespaceMap {
    /// Where each of the backup's tablespaces goes.
    ///
    /// # Errors
    /// When the map names what the backup does not have, or one tablespace twice.
    pub fn destinations(&self, tablespaces: &[Tablespace]) -> Result<Destinations, TablespaceError> {
        let mut wanted: BTreeMap<u32, &Path> = BTreeMap::new();
        for (key, path) in &self.one {
            let is_oid = key.bytes().all(|byte| byte.is_ascii_digit());
            if !is_oid && !key.starts_with('/') {
                return Err(TablespaceError::NotAKey(key.clone()));
            }
            let named = |one: &&Tablespace| match is_oid {
                true => key.parse() == Ok(one.oid),
                // By components, so that a slash at the end does not matter.
                false => Path::new(key) == Path::new(&one.location),
            };
            let Some(tablespace) = tablespaces.iter().find(named) else {
                return Err(TablespaceError::Unknown { key: key.clone(), known: tablespaces.to_vec() });
            };
            if wanted.insert(tablespace.oid, path).is_some_and(|earlier| earlier != path) {
                return Err(TablespaceError::Twice(tablespace.oid));
            }
        }
        let mut found = Destinations::default();
        for tablespace in tablespaces {
            let oid = tablespace.oid;
            if let Some(path) = wanted.get(&oid) {
                found.linked.insert(oid, path.to_path_buf());
            } else if is_in_place(tablespace) {
                found.in_place.insert(oid);
            } else {
                let path = match &self.all {
                    Some(all) => all.join(oid.to_string()),
                    None => PathBuf::from(&tablespace.location),
                };
                found.linked.insert(oid, path);
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backup() -> Vec<Tablespace> {
        [(16400, "/srv/fast"), (16401, "/srv/slow disk"), (16402, "pg_tblspc/16402")]
            .map(|(oid, location)| Tablespace { oid, location: location.to_owned() })
            .to_vec()
    }

    fn linked(one: &[(&str, &str)], all: Option<&str>) -> Result<Vec<(u32, String)>, TablespaceError> {
        let map = TablespaceMap {
            one: one.iter().map(|(key, path)| ((*key).to_owned(), PathBuf::from(path))).collect(),
            all: all.map(PathBuf::from),
        };
        let found = map.destinations(&backup())?;
        Ok(found.linked.into_iter().map(|(oid, path)| (oid, path.display().to_string())).collect())
    }

    #[test]
    fn a_tablespace_is_mapped_by_its_number_or_its_old_place_and_the_rest_stays() {
        let paths =
            |found: &[(u32, &str)]| Ok(found.iter().map(|(oid, p)| (*oid, (*p).to_owned())).collect());
        assert_eq!(linked(&[], None), paths(&[(16400, "/srv/fast"), (16401, "/srv/slow disk")]));
        assert_eq!(
            linked(&[("16400", "/new/a"), ("/srv/slow disk/", "/new/b")], None),
            paths(&[(16400, "/new/a"), (16401, "/new/b")])
        );
        assert_eq!(
            linked(&[("16401", "/one")], Some("/all")),
            paths(&[(16400, "/all/16400"), (16401, "/one")])
        );
        // One within the data directory moves out only when it is named.
        assert_eq!(linked(&[("16402", "/out")], Some("/all")).unwrap()[2], (16402, "/out".to_owned()));
        let found = TablespaceMap::default().destinations(&backup()).unwrap();
        assert_eq!(found.in_place, BTreeSet::from([16402]));
    }

    #[test]
    fn a_map_that_names_nothing_of_the_backup_is_refused() {
        assert_eq!(linked(&[("fast", "/x")], None), Err(TablespaceError::NotAKey("fast".into())));
        for key in ["16499", "/srv", "99999999999999999999"] {
            assert!(matches!(linked(&[(key, "/x")], None), Err(TablespaceError::Unknown { .. })), "{key}");
        }
        assert_eq!(linked(&[("16400", "/x"), ("/srv/fast", "/y")], None), Err(TablespaceError::Twice(16400)));
        assert!(linked(&[("16400", "/x"), ("/srv/fast", "/x")], None).is_ok());
    }
}
