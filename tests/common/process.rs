//! Starting programs as the server's user, and waiting for them without waiting for ever.

use std::fmt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, getuid, kill_process};

/// How long any program may take before the test gives it up; generous, because machines are shared.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// User and group number to run servers as; `None` when the tests already run as an ordinary user.
pub fn runs_as() -> Option<(u32, u32)> {
    static IDS: OnceLock<Option<(u32, u32)>> = OnceLock::new();
    *IDS.get_or_init(|| {
        if !getuid().is_root() {
            return None;
        }
        let name = std::env::var("PGRUNAS").unwrap_or_else(|_| "postgres".to_owned());
        let number = |option: &str| {
            let out = Command::new("id")
                .args([option, &name])
                .stderr(Stdio::null())
                .output()
                .expect("cannot run id");
            String::from_utf8_lossy(&out.stdout).trim().parse::<u32>().ok()
        };
        match (number("-u"), number("-g")) {
            (Some(user), Some(group)) => Some((user, group)),
            _ => panic!(
                "servers do not run as root, and there is no user {name:?} to run them as: \
                 run tests/env/prepare (or `make test`), or name a user in PGRUNAS"
            ),
        }
    })
}

/// A command that runs `program` as the server's user in `directory`, with a clean environment and no input.
pub fn command(program: impl AsRef<Path>, directory: &Path) -> Command {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(program.as_ref());
    command
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", directory)
        .env("LC_ALL", "C")
        .env("TZ", "UTC")
        .current_dir(directory)
        .stdin(Stdio::null());
    // Measuring coverage works through the environment.
    if let Some(profile) = std::env::var_os("LLVM_PROFILE_FILE") {
        command.env("LLVM_PROFILE_FILE", profile);
    }
    if let Some((user, group)) = runs_as() {
        command.uid(user).gid(group);
    }
    command
}

/// What a program said and how it ended.
#[derive(Debug, Clone)]
pub struct Output {
    /// The command line, for messages.
    pub command: String,
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// Whether it ended with exit code 0.
    pub fn success(&self) -> bool {
        self.code == Some(0)
    }

    /// Standard output without white space around it.
    pub fn text(&self) -> &str {
        self.stdout.trim()
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "$ {}", self.command)?;
        match (self.code, self.signal) {
            (Some(code), _) => writeln!(f, "exit code {code}")?,
            (None, signal) => writeln!(f, "ended by signal {}", signal.unwrap_or_default())?,
        }
        writeln!(f, "--- stdout\n{}\n--- stderr\n{}", self.stdout.trim_end(), self.stderr.trim_end())
    }
}

/// Runs a command to its end and collects what it says.
///
/// Panics when the program cannot be started or does not end in time (it is killed then).
pub fn finish(mut command: Command) -> Output {
    let line = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ");
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("cannot start {line}: {e}"));
    collect(child, line)
}

/// As [`finish`], for a program that has been started with piped output.
pub fn collect(child: Child, line: String) -> Output {
    use std::os::unix::process::ExitStatusExt;
    let pid = child.id();
    let (done, waiting) = mpsc::channel();
    thread::spawn(move || done.send(child.wait_with_output()));
    let (out, late) = match waiting.recv_timeout(PATIENCE) {
        Ok(out) => (out, false),
        Err(_) => {
            kill_now(pid, Signal::KILL);
            (waiting.recv().expect("the waiting thread is gone"), true)
        }
    };
    let out = out.unwrap_or_else(|e| panic!("cannot wait for {line}: {e}"));
    let output = Output {
        command: line,
        code: out.status.code(),
        signal: out.status.signal(),
        stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
    };
    assert!(!late, "did not end within {PATIENCE:?} and was killed:\n{output}");
    output
}

/// Sends a signal to a process the test started; one that is gone already is no error.
pub fn kill_now(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// Waits until `holds` does, and panics with `what` when it does not within [`PATIENCE`].
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain for: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}
