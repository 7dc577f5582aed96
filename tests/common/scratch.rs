//! A directory for one test.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::process::{command, kill_now, runs_as};

/// Where the process that made the directory left its number.
const OWNER: &str = ".owner";
/// Marks a directory that was left on purpose.
const KEPT: &str = ".kept";

/// A short, private directory that belongs to the server's user. Clones share it; the last one removes it,
/// unless the test failed or `KEEP=1`.
#[derive(Clone)]
pub struct Scratch(Arc<Inner>);

struct Inner {
    path: PathBuf,
    next: AtomicU32,
}

impl Scratch {
    /// Makes an empty one.
    pub fn new() -> Self {
        static SWEPT: Once = Once::new();
        let below = base();
        SWEPT.call_once(|| sweep(&below));
        let path = tempfile::Builder::new()
            .prefix("walden-")
            .rand_bytes(6)
            .tempdir_in(&below)
            .unwrap_or_else(|e| panic!("cannot make a directory in {}: {e}", below.display()))
            .keep();
        let scratch = Self(Arc::new(Inner { path, next: AtomicU32::new(0) }));
        fs::write(scratch.path().join(OWNER), std::process::id().to_string()).unwrap();
        scratch.give(scratch.path());
        fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o700)).unwrap();
        scratch
    }

    /// Its absolute path, about 20 bytes long: a socket's whole path must stay below 108.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// The path of `name` in it; nothing is made.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path().join(name)
    }

    /// Makes the directory `name` in it, mode 0700, for the server's user.
    pub fn dir(&self, name: impl AsRef<Path>) -> PathBuf {
        let path = self.join(name);
        fs::create_dir_all(&path).unwrap_or_else(|e| panic!("cannot make {}: {e}", path.display()));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        self.give(&path);
        path
    }

    /// Writes a file, mode 0600, for the server's user, and returns its path.
    pub fn write(&self, name: impl AsRef<Path>, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.join(name);
        fs::write(&path, contents).unwrap_or_else(|e| panic!("cannot write {}: {e}", path.display()));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        self.give(&path);
        path
    }

    /// Makes a path the server's user's own.
    pub fn give(&self, path: &Path) {
        if let Some((user, group)) = runs_as() {
            chown(path, Some(user), Some(group))
                .unwrap_or_else(|e| panic!("cannot give {} to the server's user: {e}", path.display()));
        }
    }

    /// A command that runs as the server's user in this directory with a clean environment.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        command(program, self.path())
    }

    /// A number no one else in this directory has, for names and ports.
    pub fn number(&self) -> u32 {
        self.0.next.fetch_add(1, Ordering::Relaxed)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        stop_servers(&self.path, 2);
        if std::thread::panicking() || std::env::var_os("KEEP").is_some_and(|v| !v.is_empty() && v != "0") {
            let _ = fs::write(self.path.join(KEPT), "");
            eprintln!("kept: {}", self.path.display());
        } else if let Err(e) = fs::remove_dir_all(&self.path) {
            eprintln!("could not remove {}: {e}", self.path.display());
        }
    }
}

/// The system's temporary directory, or `/tmp` where that is too long for sockets.
fn base() -> PathBuf {
    let temporary = std::env::temp_dir();
    if temporary.as_os_str().len() <= 60 { temporary } else { PathBuf::from("/tmp") }
}

/// Clears what test processes left that were killed: their servers still run. A directory whose maker
/// lives, or that was kept on purpose, is not touched.
fn sweep(below: &Path) {
    let Ok(entries) = fs::read_dir(below) else { return };
    for path in entries.flatten().map(|e| e.path()) {
        let ours = path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("walden-"));
        let Ok(owner) = fs::read_to_string(path.join(OWNER)) else { continue };
        if !ours || path.join(KEPT).exists() || Path::new("/proc").join(owner.trim()).exists() {
            continue;
        }
        stop_servers(&path, 2);
        let _ = fs::remove_dir_all(&path);
    }
}

/// Ends servers that still work in a directory up to `depth` levels below `path`.
fn stop_servers(path: &Path, depth: u32) {
    for below in fs::read_dir(path).into_iter().flatten().flatten().map(|e| e.path()) {
        if depth > 1 && below.is_dir() && !below.is_symlink() {
            stop_servers(&below, depth - 1);
        }
        let Ok(text) = fs::read_to_string(below.join("postmaster.pid")) else { continue };
        let Some(pid) = text.lines().next().and_then(|line| line.trim().parse::<u32>().ok()) else {
            continue;
        };
        // A number may have been given to another process: a server works in its data directory.
        if fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == below) {
            kill_now(pid, Signal::QUIT);
            let started = Instant::now();
            while Path::new(&format!("/proc/{pid}")).exists() && started.elapsed() < Duration::from_secs(10) {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}
