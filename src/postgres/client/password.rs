//! Passwords, and the file that people keep them in.

use super::conninfo::{Address, ConninfoWarning};
use std::fmt;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// The longest password file that is read.
const LONGEST_FILE: u64 = 4 << 20;

/// A password: overwritten when dropped, never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Zeroizing<Vec<u8>>);

impl Password {
    /// A password of these bytes.
    #[must_use]
    pub fn new(password: impl Into<Vec<u8>>) -> Self {
        Self(Zeroizing::new(password.into()))
    }

    /// The bytes, for the authentication exchange alone.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(hidden)")
    }
}

/// Where a password came from, so that people know which one to mend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PasswordSource {
    /// A connection string or setting.
    Settings,
    /// `PGPASSWORD`.
    Environment,
    /// A line of this password file.
    File(PathBuf),
    /// The service's section in this `pg_service.conf`.
    ServiceFile(PathBuf),
}

impl fmt::Display for PasswordSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Settings => f.write_str("the connection settings"),
            Self::Environment => f.write_str("PGPASSWORD"),
            Self::File(path) => write!(f, "the password file \"{}\"", path.display()),
            Self::ServiceFile(path) => write!(f, "the service file \"{}\"", path.display()),
        }
    }
}

/// What to look for in a password file.
pub(super) struct Wanted<'a> {
    pub address: &'a Address,
    pub database: &'a str,
    pub user: &'a str,
}

/// The password that the file at `path` holds for a connection, as libpq finds it (fe-connect.c,
/// `passwordFromFile`): the first line that matches. A file that others may read is not used.
pub(super) fn from_file(
    path: &Path,
    wanted: &Wanted<'_>,
    warnings: &mut Vec<ConninfoWarning>,
) -> Option<Password> {
    let unusable = |why| Some(ConninfoWarning::PasswordFile { path: path.to_owned(), why });
    let warning = match std::fs::metadata(path) {
        // No such file is the normal case.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => unusable(format!("it cannot be read: {error}")),
        Ok(meta) if !meta.is_file() => unusable("it is not a plain file".to_owned()),
        Ok(meta) if meta.mode() & 0o077 != 0 => {
            unusable("its group or others have access to it; its mode should be 0600".to_owned())
        }
        Ok(_) => None,
    };
    if let Some(warning) = warning {
        warnings.push(warning);
        return None;
    }
    let mut contents = Zeroizing::new(Vec::new());
    let read = std::fs::File::open(path).and_then(|file| file.take(LONGEST_FILE).read_to_end(&mut contents));
    if let Err(error) = read {
        warnings.extend(unusable(format!("it cannot be read: {error}")));
        return None;
    }
    find(&contents, wanted)
}

/// The password of the first matching line of `contents`.
fn find(contents: &[u8], wanted: &Wanted<'_>) -> Option<Password> {
    let (host, port) = match wanted.address {
        Address::Tcp { host, port } => (host.as_str(), *port),
        Address::Unix { directory, port } => (localhost_or(directory), *port),
    };
    let port = port.to_string();
    contents.split(|&b| b == b'\n').find_map(|line| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.first() == Some(&b'#') {
            return None;
        }
        let rest = field(line, host)?;
        let rest = field(rest, &port)?;
        // Physical replication goes by the name "replication" here, and files written for pg_basebackup
        // have it; our connection reaches the same server either way.
        let rest = field(rest, wanted.database).or_else(|| field(rest, "replication"))?;
        let rest = field(rest, wanted.user)?;
        let password = unescape(rest);
        (!password.is_empty()).then(|| Password(password))
    })
}

/// libpq looks for `localhost` when the socket is in its default directory, which each build chooses.
fn localhost_or(directory: &Path) -> &str {
    if super::conninfo::DEFAULT_SOCKET_DIRECTORIES.iter().any(|default| Path::new(default) == directory) {
        "localhost"
    } else {
        directory.to_str().unwrap_or("localhost")
    }
}

/// What follows the first field of `line`, if that field is `*` or `value`.
fn field<'a>(line: &'a [u8], value: &str) -> Option<&'a [u8]> {
    if let Some(rest) = line.strip_prefix(b"*:") {
        return Some(rest);
    }
    let mut value = value.bytes();
    let mut bytes = line.iter();
    loop {
        match bytes.next()? {
            b':' => return value.next().is_none().then_some(bytes.as_slice()),
            b'\\' => {
                if Some(*bytes.next()?) != value.next() {
                    return None;
                }
            }
            byte => {
                if Some(*byte) != value.next() {
                    return None;
                }
            }
        }
    }
}

/// The last field: up to the next colon that is not escaped.
fn unescape(field: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut password = Zeroizing::new(Vec::with_capacity(field.len()));
    let mut bytes = field.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b':' => break,
            b'\\' => password.push(*bytes.next().unwrap_or(&b'\\')),
            _ => password.push(byte),
        }
    }
    password
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};

    fn look(contents: &str, host: &str, database: &str, user: &str) -> Option<Vec<u8>> {
        let address = if host.starts_with('/') {
            Address::Unix { directory: host.into(), port: 5432 }
        } else {
            Address::Tcp { host: host.to_owned(), port: 5432 }
        };
        find(contents.as_bytes(), &Wanted { address: &address, database, user }).map(|p| p.bytes().to_vec())
    }

    #[test]
    fn the_first_matching_line_wins() {
        let file = "# comment\ndb2:5432:*:walden:other\n*:*:*:walden:first\n*:*:*:walden:second\n";
        assert_eq!(look(file, "db1", "postgres", "walden").unwrap(), b"first");
        assert_eq!(look(file, "db2", "postgres", "walden").unwrap(), b"other");
        assert_eq!(look(file, "db1", "postgres", "somebody"), None);
    }

    #[test]
    fn escapes_protect_colons_and_backslashes() {
        let file = "::1:5432:*:u:never\n\\:\\:1:5432:d\\:b:u\\\\v:p\\:a\\\\ss\\\r\n";
        assert_eq!(look(file, "::1", "d:b", "u\\v").unwrap(), b"p:a\\ss\\");
    }

    #[test]
    fn a_default_socket_directory_is_localhost_and_another_is_itself() {
        let file = "localhost:5432:*:u:local\n/srv/s:5432:*:u:own\n";
        assert_eq!(look(file, "/var/run/postgresql", "x", "u").unwrap(), b"local");
        assert_eq!(look(file, "/tmp", "x", "u").unwrap(), b"local");
        assert_eq!(look(file, "/srv/s", "x", "u").unwrap(), b"own");
        assert_eq!(look(file, "/srv/t", "x", "u"), None);
    }

    #[test]
    fn a_line_for_replication_serves_too() {
        assert_eq!(look("db:5432:replication:u:p", "db", "postgres", "u").unwrap(), b"p");
    }

    #[test]
    fn a_file_that_others_may_read_is_ignored_with_a_warning() {
        use std::io::Write;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pgpass");
        let mut file =
            std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).unwrap();
        file.write_all(b"*:*:*:*:secret\n").unwrap();
        let address = Address::Tcp { host: "db".to_owned(), port: 1 };
        let wanted = Wanted { address: &address, database: "d", user: "u" };
        let mut warnings = Vec::new();
        assert_eq!(from_file(&path, &wanted, &mut warnings).unwrap().bytes(), b"secret");
        assert!(warnings.is_empty());
        for mode in [0o640, 0o604, 0o660] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            warnings.clear();
            assert!(from_file(&path, &wanted, &mut warnings).is_none());
            assert!(warnings[0].to_string().contains("0600"), "{warnings:?}");
        }
        warnings.clear();
        assert!(from_file(dir.path(), &wanted, &mut warnings).is_none());
        assert!(warnings[0].to_string().contains("plain file"));
        warnings.clear();
        assert!(from_file(&dir.path().join("none"), &wanted, &mut warnings).is_none());
        assert!(warnings.is_empty());
    }

    #[test]
    fn a_password_is_never_printed() {
        let password = Password::new("hunter2");
        assert!(!format!("{password:?}").contains("hunter2"));
    }
}
