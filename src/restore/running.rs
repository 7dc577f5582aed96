//! Is a server running in a data directory?
//!
//! Three signs, each of which others miss: the process that `postmaster.pid` names; shared memory that backends
//! of a killed postmaster still hold; a socket that answers although the process cannot be seen from here (another
//! process namespace, as with containers). No one sign is trusted to say "no".

use std::fmt;
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// What `postmaster.pid` says (`utils/pidfile.h`); PostgreSQL writes more of it the further it has started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PostmasterPid {
    /// Process id; a single-user backend writes it negated.
    pub pid: i32,
    /// The data directory as the server knows it.
    pub data_directory: Option<PathBuf>,
    /// TCP port, also part of the socket's name.
    pub port: Option<u16>,
    /// Where the first Unix socket is.
    pub socket_directory: Option<PathBuf>,
    /// Id of the System V shared memory segment.
    pub shared_memory: Option<i64>,
}

/// The longest `postmaster.pid` looked at.
const LONGEST_PID_FILE: u64 = 16 * 1024;

impl PostmasterPid {
    /// Reads the file's text; `None` when its first line is no process id.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let pid: i32 = lines.next()?.trim().parse().ok().filter(|pid| *pid != 0 && *pid != i32::MIN)?;
        let mut field = || lines.next().map(str::trim).filter(|text| !text.is_empty());
        let data_directory = field().map(PathBuf::from);
        let _started = field();
        let port = field().and_then(|text| text.parse().ok());
        let socket_directory = field().map(PathBuf::from);
        let _listen = field();
        let shared_memory = field().and_then(|text| text.split_whitespace().nth(1)?.parse().ok());
        Some(Self { pid: pid.abs(), data_directory, port, socket_directory, shared_memory })
    }
}

/// Whether somebody works in the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Life {
    /// There is no `postmaster.pid`.
    None,
    /// There is one, and nothing else speaks for a server.
    Left(Option<PostmasterPid>),
    /// A server works there.
    Running {
        /// What the file says.
        server: PostmasterPid,
        /// How it was noticed.
        sign: Sign,
    },
}

/// How a running server was noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// Its process is there.
    Process,
    /// Its shared memory is in use, though its process is gone: backends outlived their postmaster.
    SharedMemory,
    /// Its socket answers, though its process cannot be seen.
    Socket,
}

impl fmt::Display for Sign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Process => "its process is there",
            Self::SharedMemory => "its process is gone, but its shared memory is still in use",
            Self::Socket => "its process cannot be seen from here, but its socket answers",
        })
    }
}

/// Looks for a server that works in `pgdata`.
///
/// # Errors
/// When `postmaster.pid` is there and cannot be read: then nothing is known.
pub fn look(pgdata: &Path) -> std::io::Result<Life> {
    let file = match fs::File::open(pgdata.join("postmaster.pid")) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Life::None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(LONGEST_PID_FILE).read_to_end(&mut bytes)?;
    let Some(server) = PostmasterPid::parse(&String::from_utf8_lossy(&bytes)) else {
        return Ok(Life::Left(None));
    };
    let sign = if works_in(server.pid, pgdata) {
        Some(Sign::Process)
    } else if server.shared_memory.is_some_and(shared_memory_in_use) {
        Some(Sign::SharedMemory)
    } else if answers(&server, pgdata) {
        Some(Sign::Socket)
    } else {
        None
    };
    Ok(match sign {
        Some(sign) => Life::Running { server, sign },
        None => Life::Left(Some(server)),
    })
}

/// Whether process `pid` is there and, as far as can be seen, works in `pgdata`: a postmaster's working
/// directory is its data directory, so a process id that was given to another program is told apart.
fn works_in(pid: i32, pgdata: &Path) -> bool {
    let Some(process) = rustix::process::Pid::from_raw(pid) else { return false };
    // Any other answer than this: EPERM says that it is there and somebody else's.
    if rustix::process::test_kill_process(process) == Err(rustix::io::Errno::SRCH) {
        return false;
    }
    let theirs = fs::metadata(format!("/proc/{pid}/cwd"));
    match (theirs, fs::metadata(pgdata)) {
        (Ok(theirs), Ok(ours)) => (theirs.dev(), theirs.ino()) == (ours.dev(), ours.ino()),
        _ => true,
    }
}

/// A server on this host, other than one in `pgdata`, that has `path` as a tablespace's directory or as its
/// `pg_wal`: the server's data directory, as its processes name it.
///
/// `None` proves nothing: without root, other users' processes cannot be looked at.
#[must_use]
pub fn user_of(path: &Path, pgdata: &Path) -> Option<PathBuf> {
    let same = |a: &fs::Metadata, b: &fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
    let wanted = fs::metadata(path).ok()?;
    let ours = fs::metadata(pgdata).ok();
    let mut seen: Vec<(u64, u64)> = Vec::new();
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        if entry.file_name().to_str().is_none_or(|name| name.parse::<u32>().is_err()) {
            continue;
        }
        let process = entry.path();
        // Somebody's shell may stand in a data directory, too.
        if !fs::read_to_string(process.join("comm")).is_ok_and(|name| name.starts_with("postgres")) {
            continue;
        }
        let data = process.join("cwd");
        let Ok(theirs) = fs::metadata(&data) else { continue };
        if ours.as_ref().is_some_and(|ours| same(ours, &theirs))
            || seen.contains(&(theirs.dev(), theirs.ino()))
        {
            continue;
        }
        seen.push((theirs.dev(), theirs.ino()));
        let spaces = fs::read_dir(data.join("pg_tblspc")).into_iter().flatten().flatten();
        let mut links = spaces.map(|entry| entry.path()).chain([data.join("pg_wal")]);
        let leads_here = |link: PathBuf| {
            let Ok(target) = fs::read_link(&link) else { return false };
            // As the process sees it, which may be in a container.
            let target = match target.strip_prefix("/") {
                Ok(below) => process.join("root").join(below),
                Err(_) => link.parent().unwrap_or(&data).join(target),
            };
            fs::metadata(target).is_ok_and(|found| same(&found, &wanted))
        };
        if links.any(leads_here) {
            return Some(fs::read_link(&data).unwrap_or(data));
        }
    }
    None
}

fn shared_memory_in_use(id: i64) -> bool {
    let Ok(table) = fs::read_to_string("/proc/sysvipc/shm") else { return false };
    attached(&table, id)
}

/// Columns of /proc/sysvipc/shm: key shmid perms size cpid lpid nattch …
fn attached(table: &str, id: i64) -> bool {
    table.lines().skip(1).any(|line| {
        let mut columns = line.split_whitespace();
        let same = columns.nth(1).and_then(|text| text.parse::<i64>().ok()) == Some(id);
        let count = columns.nth(4).and_then(|text| text.parse::<u64>().ok());
        same && count.is_some_and(|count| count > 0)
    })
}

/// Whether a socket of this server answers and belongs to this directory. Another server may have taken the
/// port since; its lock file beside the socket names its directory.
fn answers(server: &PostmasterPid, pgdata: &Path) -> bool {
    let (Some(directory), Some(port)) = (&server.socket_directory, server.port) else { return false };
    let directory = if directory.is_absolute() { directory.clone() } else { pgdata.join(directory) };
    let socket = directory.join(format!(".s.PGSQL.{port}"));
    if UnixStream::connect(&socket).is_err() {
        return false;
    }
    let lock = fs::read_to_string(directory.join(format!(".s.PGSQL.{port}.lock"))).ok();
    match lock.as_deref().and_then(PostmasterPid::parse) {
        Some(holder) => holder.pid == server.pid && holder.data_directory == server.data_directory,
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_pid_file_is_read_as_far_as_it_was_written() {
        let whole = "1841\n/srv/pg17/main\n1795249000\n5432\n/run/postgresql\nlocalhost\n  5432001         7\nready   \n";
        let server = PostmasterPid::parse(whole).unwrap();
        assert_eq!((server.pid, server.port, server.shared_memory), (1841, Some(5432), Some(7)));
        assert_eq!(server.socket_directory.as_deref(), Some(Path::new("/run/postgresql")));
        assert_eq!(PostmasterPid::parse("-77\n").unwrap().pid, 77);
        for bad in ["", "\n", "x\n", "0\n", "-2147483648\n"] {
            assert_eq!(PostmasterPid::parse(bad), None);
        }
    }

    #[test]
    fn a_server_is_known_by_its_process_unless_another_program_has_its_number() {
        let place = tempfile::tempdir().unwrap();
        assert_eq!(look(place.path()).unwrap(), Life::None);
        // This test's own process is alive but does not work in the directory.
        fs::File::create_new(place.path().join("postmaster.pid")).unwrap();
        assert_eq!(look(place.path()).unwrap(), Life::Left(None));
        let write = |text: String| {
            let _ = fs::remove_file(place.path().join("postmaster.pid"));
            std::io::Write::write_all(
                &mut fs::File::create_new(place.path().join("postmaster.pid")).unwrap(),
                text.as_bytes(),
            )
            .unwrap();
        };
        write(format!("{}\n", std::process::id()));
        assert!(matches!(look(place.path()).unwrap(), Life::Left(Some(_))));
        let mut sleeper =
            std::process::Command::new("sleep").arg("60").current_dir(place.path()).spawn().unwrap();
        write(format!("{}\n", sleeper.id()));
        assert!(matches!(look(place.path()).unwrap(), Life::Running { sign: Sign::Process, .. }));
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
        assert!(matches!(look(place.path()).unwrap(), Life::Left(Some(_))));
    }

    #[test]
    fn a_socket_that_answers_is_a_server_in_another_namespace() {
        let place = tempfile::tempdir().unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(place.path().join(".s.PGSQL.7")).unwrap();
        let dir = place.path().display();
        // A process number that no Linux has.
        std::io::Write::write_all(
            &mut fs::File::create_new(place.path().join("postmaster.pid")).unwrap(),
            format!("2147483646\n{dir}\n1\n7\n{dir}\n\n").as_bytes(),
        )
        .unwrap();
        assert!(matches!(look(place.path()).unwrap(), Life::Running { sign: Sign::Socket, .. }));
    }

    #[test]
    fn shared_memory_counts_while_somebody_is_attached() {
        let table = "       key      shmid perms                  size  cpid  lpid nattch   uid\n\
                     5432001          7   600                    56  1841  1900      3   104\n\
                     5432002          8   600                    56  1842  1901      0   104\n";
        assert!(attached(table, 7) && !attached(table, 8) && !attached(table, 9));
    }

    proptest! {
        #[test]
        fn no_pid_file_makes_the_reader_panic(text in "\\PC{0,80}") {
            let _ = PostmasterPid::parse(&text);
            let _ = attached(&text, 7);
        }
    }
}
