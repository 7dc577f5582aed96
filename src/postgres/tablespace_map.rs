//! `tablespace_map`: where each tablespace's files lie, one line each (`build_backup_content`'s companion in
//! `do_pg_backup_start` of access/transam/xlog.c; read by `read_tablespace_map` of access/transam/xlogrecovery.c).
//!
//! Never restore one as received: recovery relinks `pg_tblspc` from it, to the *original* directories.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// More than any cluster has; a limit for foreign input.
pub const LONGEST_MAP: usize = 16 << 20;

/// One tablespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tablespace {
    /// Its object id: the name of its link in `pg_tblspc`.
    pub oid: u32,
    /// The directory that the link points to.
    pub location: PathBuf,
}

/// Reads the whole file.
///
/// # Errors
/// When a line is not an object id, a blank and a path, is not ended, or an id comes twice.
pub fn parse(file: &[u8]) -> Result<Vec<Tablespace>, NotATablespaceMap> {
    if file.len() > LONGEST_MAP {
        return Err(NotATablespaceMap { line: 0 });
    }
    let mut found: Vec<Tablespace> = Vec::new();
    let mut line = Vec::new();
    let mut escaped = false;
    let mut number = 1;
    for byte in file {
        match byte {
            b'\n' | b'\r' if !escaped => {
                if !line.is_empty() {
                    let tablespace = parse_line(&line).ok_or(NotATablespaceMap { line: number })?;
                    found.push(tablespace);
                }
                line.clear();
                number += 1;
            }
            b'\\' if !escaped => escaped = true,
            other => {
                line.push(*other);
                escaped = false;
            }
        }
    }
    let mut ids: Vec<u32> = found.iter().map(|t| t.oid).collect();
    ids.sort_unstable();
    ids.dedup();
    if !line.is_empty() || escaped || ids.len() != found.len() {
        return Err(NotATablespaceMap { line: number });
    }
    Ok(found)
}

fn parse_line(line: &[u8]) -> Option<Tablespace> {
    let (oid, path) = line.split_at(line.iter().position(|b| *b == b' ')?);
    let path = path.get(1..).filter(|p| !p.is_empty() && !p.contains(&0))?;
    let digits = oid.first().is_some_and(|b| (b'1'..=b'9').contains(b)) && oid.iter().all(u8::is_ascii_digit);
    let oid = std::str::from_utf8(oid).ok()?.parse().ok().filter(|_| digits)?;
    Some(Tablespace { oid, location: PathBuf::from(OsString::from_vec(path.to_vec())) })
}

/// The file's contents, as PostgreSQL writes them; parses back to the same.
#[must_use]
pub fn write(tablespaces: &[Tablespace]) -> Vec<u8> {
    let mut file = Vec::new();
    for tablespace in tablespaces {
        file.extend_from_slice(tablespace.oid.to_string().as_bytes());
        file.push(b' ');
        for byte in tablespace.location.as_os_str().as_bytes() {
            // What ends a line, and what says that it does not.
            if matches!(byte, b'\n' | b'\r' | b'\\') {
                file.push(b'\\');
            }
            file.push(*byte);
        }
        file.push(b'\n');
    }
    file
}

/// The bytes are not a `tablespace_map`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotATablespaceMap {
    line: usize,
}

impl fmt::Display for NotATablespaceMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} of tablespace_map is not an object id and a path", self.line)
    }
}

impl std::error::Error for NotATablespaceMap {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_servers_own_are_read_and_written_the_same() {
        for major in 15..=19 {
            let file = std::fs::read(format!(
                "{}/fixtures/postgres/{major}/tablespace_map",
                env!("CARGO_MANIFEST_DIR")
            ))
            .unwrap();
            let map = parse(&file).unwrap();
            assert!(map.len() == 1 && map[0].oid >= 16_384 && map[0].location.is_absolute());
            assert_eq!(write(&map), file);
        }
    }

    #[test]
    fn an_escaped_newline_does_not_end_the_line() {
        let map = parse(b"16385 /a b\\\nc\\\\d\n\n16386 /e\n").unwrap();
        assert_eq!(map.len(), 2);
        assert_eq!(map[0].location, PathBuf::from("/a b\nc\\d"));
        assert_eq!(write(&map), b"16385 /a b\\\nc\\\\d\n16386 /e\n");
    }

    #[test]
    fn odd_lines_are_refused() {
        for bad in ["16385\n", "16385 \n", "x /a\n", "0 /a\n", "016385 /a\n", "99999999999 /a\n", " /a\n"] {
            assert_eq!(parse(bad.as_bytes()), Err(NotATablespaceMap { line: 1 }), "{bad:?}");
        }
        assert!(parse(b"16385 /a\n16385 /b\n").is_err());
        let whole = b"16385 /a\\\nb\n";
        for length in 1..whole.len() {
            assert!(parse(&whole[..length]).is_err(), "{length}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_parses_back(
            paths in prop::collection::btree_map(1u32.., prop::collection::vec(1u8.., 1..20), 0..5)
        ) {
            let map: Vec<_> = paths
                .into_iter()
                .map(|(oid, path)| Tablespace { oid, location: PathBuf::from(OsString::from_vec(path)) })
                .collect();
            prop_assert_eq!(parse(&write(&map)).unwrap(), map);
        }

        #[test]
        fn no_bytes_make_the_parser_panic(bytes: Vec<u8>) {
            let _ = parse(&bytes);
        }
    }
}
