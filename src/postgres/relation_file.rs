//! Which relation a file of a base backup belongs to (common/relpath.c; `parse_filename_for_nontemp_relation`
//! and `looks_like_temp_rel_name` of storage/file/reinit.c and fd.c; `isRelDataFile` of bin/pg_rewind/filemap.c).

/// A fork of a relation (`ForkNumber`, common/relpath.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fork {
    /// The data.
    Main,
    /// The free space map, `_fsm`.
    FreeSpace,
    /// The visibility map, `_vm`.
    Visibility,
    /// What an unlogged relation is reset to after a crash, `_init`.
    Init,
}

impl Fork {
    /// The number that WAL records and WAL summaries use.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Main => 0,
            Self::FreeSpace => 1,
            Self::Visibility => 2,
            Self::Init => 3,
        }
    }

    /// The fork of this number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Main,
            1 => Self::FreeSpace,
            2 => Self::Visibility,
            3 => Self::Init,
            _ => return None,
        })
    }

    fn from_suffix(suffix: &str) -> Option<Self> {
        Some(match suffix {
            "fsm" => Self::FreeSpace,
            "vm" => Self::Visibility,
            "init" => Self::Init,
            _ => return None,
        })
    }
}

/// The object id of `pg_default` (`DEFAULTTABLESPACE_OID`): relations under `base`.
pub const DEFAULT_TABLESPACE: u32 = 1663;
/// The object id of `pg_global` (`GLOBALTABLESPACE_OID`): relations under `global`.
pub const GLOBAL_TABLESPACE: u32 = 1664;

/// One file of one fork of a relation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelationFile {
    /// The tablespace's object id.
    pub tablespace: u32,
    /// The database's object id; 0 for shared relations.
    pub database: u32,
    /// The relation's file number; not its object id.
    pub relation: u32,
    /// The fork.
    pub fork: Fork,
    /// The file's place in the fork; each but the last holds the cluster's full number of pages.
    pub segment: u32,
}

/// What a path inside a base backup names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A relation's file.
    Relation(RelationFile),
    /// A temporary relation's file, `t<backend>_<number>`: base backups leave them out, and a restored
    /// server removes them.
    TemporaryRelation(RelationFile),
    /// Anything else.
    Other,
}

impl FileKind {
    /// What `path`, relative to PGDATA with `/` between its parts, names.
    #[must_use]
    pub fn of_path(path: &str) -> Self {
        parse(path).unwrap_or(Self::Other)
    }

    /// The relation, unless it is a temporary one.
    #[must_use]
    pub const fn relation(self) -> Option<RelationFile> {
        match self {
            Self::Relation(file) => Some(file),
            _ => None,
        }
    }
}

fn parse(path: &str) -> Option<FileKind> {
    let mut parts = path.split('/');
    let (tablespace, database) = match parts.next()? {
        "global" => (GLOBAL_TABLESPACE, 0),
        "base" => (DEFAULT_TABLESPACE, object_id(parts.next()?)?),
        "pg_tblspc" => {
            let tablespace = object_id(parts.next()?)?;
            let version = parts.next()?.strip_prefix("PG_")?;
            let (major, catalog) = version.split_once('_')?;
            (object_id(major).is_some() && object_id(catalog).is_some()).then_some(())?;
            (tablespace, object_id(parts.next()?)?)
        }
        _ => return None,
    };
    let name = parts.next()?;
    if parts.next().is_some() {
        return None;
    }
    let (temporary, name) = match name.strip_prefix('t') {
        Some(rest) => {
            let (backend, rest) = rest.split_once('_')?;
            number(backend)?;
            (true, rest)
        }
        None => (false, name),
    };
    let (name, segment) = match name.split_once('.') {
        // The first file of a fork has no number.
        Some((name, segment)) => (name, object_id(segment)?),
        None => (name, 0),
    };
    let (relation, fork) = match name.split_once('_') {
        Some((relation, fork)) => (relation, Fork::from_suffix(fork)?),
        None => (name, Fork::Main),
    };
    let file = RelationFile { tablespace, database, relation: object_id(relation)?, fork, segment };
    Some(if temporary { FileKind::TemporaryRelation(file) } else { FileKind::Relation(file) })
}

/// A decimal number above 0 without leading zeros, as PostgreSQL prints object ids.
fn object_id(text: &str) -> Option<u32> {
    number(text).filter(|n| *n > 0)
}

fn number(text: &str) -> Option<u32> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(tablespace: u32, database: u32, relation: u32, fork: Fork, segment: u32) -> RelationFile {
        RelationFile { tablespace, database, relation, fork, segment }
    }

    #[test]
    fn relations_are_told_from_other_files() {
        use FileKind::*;
        for (path, kind) in [
            ("base/5/1259", Relation(file(1663, 5, 1259, Fork::Main, 0))),
            ("base/5/16384.3", Relation(file(1663, 5, 16_384, Fork::Main, 3))),
            ("base/16401/2619_fsm.1", Relation(file(1663, 16_401, 2619, Fork::FreeSpace, 1))),
            ("global/1262_vm", Relation(file(1664, 0, 1262, Fork::Visibility, 0))),
            (
                "pg_tblspc/16385/PG_17_202406281/5/16390_init",
                Relation(file(16_385, 5, 16_390, Fork::Init, 0)),
            ),
            ("base/5/t3_16384", TemporaryRelation(file(1663, 5, 16_384, Fork::Main, 0))),
            ("base/5/t0_16384_fsm.2", TemporaryRelation(file(1663, 5, 16_384, Fork::FreeSpace, 2))),
        ] {
            assert_eq!(FileKind::of_path(path), kind, "{path}");
        }
        for other in [
            "",
            "base",
            "base/5",
            "base/5/",
            "base/5/PG_VERSION",
            "base/5/pg_filenode.map",
            "global/pg_control",
            "base/5/01259",
            "base/5/1259.0",
            "base/5/1259.01",
            "base/5/1259_x",
            "base/5/1259_fsm_vm",
            "base/5/0",
            "base/5/99999999999",
            "base/x/1259",
            "base/5/1259/1",
            "PG_VERSION",
            "pg_xact/0000",
            "base/pgsql_tmp/1",
            "pg_tblspc/16385",
            "pg_tblspc/16385/PG_17/5/1",
            "pg_tblspc/16385/5/16390",
            "base/5/1259 ",
            "base/5/+1",
            "./base/5/1259",
            "/base/5/1259",
            "base/5/t_16384",
            "base/5/tx_1",
            "base/5/1259.",
            "base/5/_fsm",
            "base/5/INCREMENTAL.1259",
            "pg_wal/000000010000000000000001",
            "base/5/１２５９",
        ] {
            assert_eq!(FileKind::of_path(other), Other, "{other}");
        }
    }

    proptest! {
        #[test]
        fn no_path_makes_the_parser_panic(path in "\\PC{0,40}|(base|global|pg_tblspc)/[0-9/_.tPG]{0,30}") {
            let _ = FileKind::of_path(&path);
        }
    }
}
