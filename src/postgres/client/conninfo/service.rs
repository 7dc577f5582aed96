//! `pg_service.conf`: connection parameters under a name (libpq's fe-connect.c, `parseServiceInfo` and
//! `parseServiceFile`).
//!
//! The first file that is there and has the service is the one; a section's first line for a parameter counts. A value is
//! everything after the `=` up to the blanks at the line's end: nothing is quoted.

use super::{ConninfoError, Layer, layer};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The directories that builds of PostgreSQL look in for the system's file: Debian's and Red Hat's.
const SYSTEM_DIRECTORIES: [&str; 2] = ["/etc/postgresql-common", "/etc/sysconfig/pgsql"];
/// The longest file that is read.
const LONGEST_FILE: u64 = 4 << 20;

/// What the service `name` stands for, and the file that says so. `named_file` is `servicefile` or
/// `PGSERVICEFILE`: it must be there.
///
/// # Errors
/// When no file has that service, or the one that has it cannot be understood.
pub(super) fn find(
    name: &str,
    named_file: Option<&str>,
    environment: &BTreeMap<String, String>,
) -> Result<(Layer, PathBuf), ConninfoError> {
    let variable = |name: &str| environment.get(name).filter(|value| !value.is_empty());
    let mut looked_in = Vec::new();
    let own = match named_file {
        Some(file) => Some(PathBuf::from(file)),
        None => variable("HOME").map(|home| Path::new(home).join(".pg_service.conf")),
    };
    let system = match variable("PGSYSCONFDIR") {
        Some(directory) => vec![Path::new(directory).join("pg_service.conf")],
        None => SYSTEM_DIRECTORIES.iter().map(|d| Path::new(d).join("pg_service.conf")).collect(),
    };
    for (is_own, path) in
        own.into_iter().map(|path| (true, path)).chain(system.into_iter().map(|path| (false, path)))
    {
        let wrong = |what: String| Err(ConninfoError::ServiceFile { path: path.clone(), line: None, what });
        let contents = match read(&path) {
            Ok(contents) => contents,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                if is_own && named_file.is_some() {
                    return wrong("there is no such file".to_owned());
                }
                looked_in.push(path);
                continue;
            }
            Err(error) => return wrong(format!("it cannot be read: {error}")),
        };
        if let Some(values) = section(&contents, name, &path)? {
            return Ok((values, path));
        }
        looked_in.push(path);
    }
    Err(ConninfoError::NoSuchService { name: name.to_owned(), looked_in })
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    let mut contents = Vec::new();
    let read = std::fs::File::open(path)?.take(LONGEST_FILE + 1).read_to_end(&mut contents)?;
    if u64::try_from(read).unwrap_or(u64::MAX) > LONGEST_FILE {
        return Err(std::io::Error::other("it is longer than 4 MiB"));
    }
    Ok(contents)
}

/// The parameters of section `name`; `None` when the file has no such section.
fn section(contents: &[u8], name: &str, path: &Path) -> Result<Option<Layer>, ConninfoError> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    let mut found = false;
    for (number, line) in contents.split(|&byte| byte == b'\n').enumerate() {
        let wrong = |what: &str| {
            let what = what.to_owned();
            Err(ConninfoError::ServiceFile { path: path.to_owned(), line: Some(number + 1), what })
        };
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        if let Some(title) = line.strip_prefix(b"[") {
            if found {
                break;
            }
            let title = title.split(|&byte| byte == b']').next().unwrap_or_default();
            found = title == name.as_bytes();
            continue;
        }
        if !found {
            continue;
        }
        let Ok(line) = std::str::from_utf8(line) else { return wrong("the line is not UTF-8 text") };
        if line.starts_with("ldap://") {
            return wrong("this version cannot ask an LDAP server");
        }
        let Some((keyword, value)) = line.split_once('=') else {
            return wrong("the line is neither [service] nor parameter=value");
        };
        if keyword.ends_with(|c: char| c.is_ascii_whitespace())
            || value.starts_with(|c: char| c.is_ascii_whitespace())
        {
            return wrong("there are blanks beside the \"=\": they would be part of the name or value");
        }
        if matches!(keyword, "service" | "servicefile") {
            return wrong("a service cannot refer to another one");
        }
        let one = layer(vec![(keyword.to_owned(), value.to_owned())]);
        if let Err(error) = one {
            return wrong(&error.to_string());
        }
        if !pairs.iter().any(|(earlier, _)| earlier == keyword) {
            pairs.push((keyword.to_owned(), value.to_owned()));
        }
    }
    if found { layer(pairs).map(Some) } else { Ok(None) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn look(contents: &str, name: &str) -> Result<Option<Layer>, ConninfoError> {
        section(contents.as_bytes(), name, Path::new("/x/pg_service.conf"))
    }

    #[test]
    fn a_section_is_read_as_libpq_reads_it() {
        let file = "# all\nstray line\n[shop2]\nhost=b\n [shop]  \n\n  host=db1  \nport=5433\nport=1\n\
                    password= x\n";
        assert!(look(file, "none").unwrap().is_none());
        assert!(look(file, "sho").unwrap().is_none());
        assert_eq!(look(file, "shop2").unwrap().unwrap().get("host").unwrap(), "b");
        let error = look(file, "shop").unwrap_err().to_string();
        assert!(error.contains("line 10") && error.contains("blanks"), "{error}");
        let file = file.replace("password= x", "password=x = 'y' #z\n[shop]\nuser=never");
        let values = look(&file, "shop").unwrap().unwrap();
        assert_eq!((values["host"].as_str(), values["port"].as_str()), ("db1", "5433"));
        assert_eq!((values["password"].as_str(), values.get("user")), ("x = 'y' #z", None));
    }

    #[test]
    fn mistakes_are_told_with_their_line_and_without_values() {
        for (line, word) in [
            ("host", "parameter=value"),
            ("hots=x", "hots"),
            ("service=other", "another"),
            ("ldap://x", "LDAP"),
            ("replication=1", "walden itself"),
            ("password =hunter2", "blanks"),
        ] {
            let error = look(&format!("[s]\nhost=a\n{line}\n"), "s").unwrap_err().to_string();
            assert!(error.contains("line 3") && error.contains(word), "{error}");
            assert!(error.contains("/x/pg_service.conf") && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "files of a test")]
    fn the_first_file_that_has_the_service_is_the_one() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name).display().to_string();
        std::fs::write(at(".pg_service.conf"), "[a]\nhost=own\n").unwrap();
        std::fs::write(at("pg_service.conf"), "[a]\nhost=system\n[b]\nhost=system\n").unwrap();
        std::fs::write(at("named"), "[c]\nhost=named\n").unwrap();
        let home = directory.path().display().to_string();
        let environment: BTreeMap<String, String> =
            [("HOME".to_owned(), home.clone()), ("PGSYSCONFDIR".to_owned(), home)].into();
        let host = |name: &str, file: Option<&str>| {
            find(name, file, &environment).map(|(values, _)| values["host"].clone())
        };
        assert_eq!(host("a", None).unwrap(), "own");
        assert_eq!(host("b", None).unwrap(), "system");
        assert_eq!(host("c", Some(&at("named"))).unwrap(), "named");
        assert_eq!(host("b", Some(&at("named"))).unwrap(), "system");
        let error = host("z", None).unwrap_err().to_string();
        assert!(error.contains(".pg_service.conf") && error.contains("\"z\""), "{error}");
        assert!(host("a", Some("/nonexistent")).unwrap_err().to_string().contains("no such file"));
    }

    proptest! {
        #[test]
        fn no_file_makes_it_panic(contents: Vec<u8>) {
            let _ = section(&contents, "s", Path::new("/"));
            let _ = section(&[b"[s]\n".as_slice(), &contents].concat(), "s", Path::new("/"));
        }
    }
}
