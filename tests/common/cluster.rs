//! A PostgreSQL server for one test.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::process::{Output, PATIENCE, finish, kill_now, wait_until};
use super::scratch::Scratch;
use super::servers::Server;

/// What a cluster is made with.
pub struct ClusterBuilder {
    scratch: Scratch,
    server: Server,
    name: String,
    checksums: bool,
    segment_size_mb: u32,
    lines: Vec<String>,
    hba: Vec<String>,
    tcp: bool,
}

impl ClusterBuilder {
    /// Listens on 127.0.0.1 too, on a port that is free: TLS is spoken there only.
    pub fn tcp(mut self) -> Self {
        self.tcp = true;
        self
    }

    /// The data directory's name below the scratch directory; `pg` if not said.
    pub fn name(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// Page checksums; on if not said.
    pub fn checksums(mut self, on: bool) -> Self {
        self.checksums = on;
        self
    }

    /// Size of a WAL segment; 16 MB if not said. Small ones make many segments of little work.
    pub fn segment_size_mb(mut self, megabytes: u32) -> Self {
        self.segment_size_mb = megabytes;
        self
    }

    /// Lines for `postgresql.conf`, after the harness's own; the last one of a name counts.
    pub fn conf<S: AsRef<str>>(mut self, lines: &[S]) -> Self {
        self.lines.extend(lines.iter().map(|line| line.as_ref().to_owned()));
        self
    }

    /// Turns archiving on with this command, written as in a shell (`%p`, `%f`).
    pub fn archive_command(self, command: &str) -> Self {
        let quoted = command.replace('\'', "''");
        self.conf(&["archive_mode = on".to_owned(), format!("archive_command = '{quoted}'")])
    }

    /// Lines that come before those of `pg_hba.conf`, which trusts everybody.
    pub fn hba(mut self, lines: &[&str]) -> Self {
        self.hba.extend(lines.iter().map(|line| (*line).to_owned()));
        self
    }

    /// Runs initdb and starts the server; panics with their log when they fail.
    pub fn start(self) -> Cluster {
        let mut cluster = self.create();
        cluster.start();
        cluster
    }

    /// Runs initdb only.
    pub fn create(self) -> Cluster {
        let data = self.scratch.join(&self.name);
        let mut initdb = self.scratch.command(self.server.program("initdb"));
        initdb
            .arg("-D")
            .arg(&data)
            .args(["-U", "postgres", "-A", "trust", "--no-sync", "--no-locale", "--encoding=UTF8"])
            .arg(format!("--wal-segsize={}", self.segment_size_mb));
        if self.checksums {
            initdb.arg("--data-checksums");
        } else if self.server.major >= 18 {
            initdb.arg("--no-data-checksums");
        }
        let made = finish(initdb);
        assert!(made.success(), "initdb failed:\n{made}");

        // Small, because many run side by side; not durable, because no test pulls the plug.
        let smallest_wal = 2 * self.segment_size_mb.max(16);
        let mut conf = format!(
            "\nlisten_addresses = ''\nshared_buffers = 16MB\nfsync = off\nmax_connections = 30\n\
             min_wal_size = {smallest_wal}MB\nmax_wal_size = {}MB\nlog_timezone = UTC\ntimezone = UTC\n\
             log_line_prefix = '%m [%p] %a '\n",
            4 * smallest_wal
        );
        for line in &self.lines {
            let _ = writeln!(conf, "{line}");
        }
        append(&data.join("postgresql.conf"), &conf);
        if !self.hba.is_empty() {
            let path = data.join("pg_hba.conf");
            let rest = fs::read_to_string(&path).unwrap();
            fs::write(&path, format!("{}\n{rest}", self.hba.join("\n"))).unwrap();
        }
        let mut cluster = Cluster::at(&self.scratch, self.server, data);
        if self.tcp {
            let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            cluster.port = free.local_addr().unwrap().port().into();
            cluster.settings.push("listen_addresses=127.0.0.1".to_owned());
        }
        cluster
    }
}

fn append(path: &Path, text: &str) {
    use std::io::Write as _;
    let mut file =
        OpenOptions::new().append(true).open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    file.write_all(text.as_bytes()).unwrap();
}

/// How a server is told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopMode {
    /// Ends sessions, writes a checkpoint and the last WAL.
    Fast,
    /// As a crash of the server: the next start recovers.
    Immediate,
}

/// How a recovery ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// The server left recovery and is open for writing.
    Promoted,
    /// It stands still at its target and answers questions.
    Paused,
    /// The server is gone: FATAL, or `recovery_target_action = shutdown`. The log says why.
    Stopped {
        /// The server's whole log.
        log: String,
    },
}

/// A server of one test's own: reached through a socket in the scratch directory, stopped when dropped.
pub struct Cluster {
    scratch: Scratch,
    server: Server,
    data: PathBuf,
    sockets: PathBuf,
    port: u32,
    log: PathBuf,
    /// Settings for the command line, so that a restored directory need not be touched.
    settings: Vec<String>,
    running: Option<Child>,
}

impl Cluster {
    /// Describes a new cluster of a major version.
    pub fn build(scratch: &Scratch, major: u32) -> ClusterBuilder {
        ClusterBuilder {
            scratch: scratch.clone(),
            server: Server::of(major),
            name: "pg".to_owned(),
            checksums: true,
            segment_size_mb: 16,
            lines: Vec::new(),
            hba: Vec::new(),
            tcp: false,
        }
    }

    /// A data directory that exists, not running.
    fn at(scratch: &Scratch, server: Server, data: PathBuf) -> Self {
        let number = scratch.number();
        let sockets = scratch.dir(format!("s{number}"));
        let log = scratch.join(format!("s{number}.log"));
        Self {
            scratch: scratch.clone(),
            server,
            data,
            sockets,
            port: 5432 + number,
            log,
            settings: Vec::new(),
            running: None,
        }
    }

    /// A cluster on a directory that was restored or copied, not started yet.
    pub fn on_directory(scratch: &Scratch, major: u32, data: &Path) -> Self {
        Self::at(scratch, Server::of(major), data.to_owned())
    }

    /// Starts a server of the same major on a restored directory, with a socket and a port of its own and these
    /// settings besides (`name=value`); nothing in the directory is changed for it.
    ///
    /// # Errors
    /// The log of a server that did not come up.
    pub fn start_restored(&self, data: &Path, settings: &[&str]) -> Result<Self, String> {
        let mut restored = Self::at(&self.scratch, self.server.clone(), data.to_owned());
        restored.settings = settings.iter().map(|s| (*s).to_owned()).collect();
        restored.try_start()?;
        Ok(restored)
    }

    /// Settings for the command line of the next start (`name=value`).
    pub fn set_options(&mut self, settings: &[&str]) {
        self.settings = settings.iter().map(|s| (*s).to_owned()).collect();
    }

    /// Starts it; panics with the log when it does not come up.
    pub fn start(&mut self) {
        if let Err(log) = self.try_start() {
            panic!("PostgreSQL {} did not start:\n{log}", self.server.version);
        }
    }

    /// Starts it and waits until it answers (in recovery: until it is consistent, if it answers then).
    ///
    /// # Errors
    /// The log of a server that ended or did not come up in time.
    pub fn try_start(&mut self) -> Result<(), String> {
        assert!(self.running.is_none(), "started twice");
        let log = OpenOptions::new().append(true).create(true).open(&self.log).unwrap();
        let mut command = self.scratch.command(self.server.program("postgres"));
        command
            .arg("-D")
            .arg(&self.data)
            .arg(format!("--unix_socket_directories={}", self.sockets.display()))
            .arg(format!("--port={}", self.port))
            .arg("--listen_addresses=")
            .stdout(Stdio::from(log.try_clone().unwrap()))
            .stderr(Stdio::from(log));
        for setting in &self.settings {
            command.arg("-c").arg(setting);
        }
        let child = command.spawn().unwrap_or_else(|e| panic!("cannot start postgres: {e}"));
        let pid = child.id();
        self.running = Some(child);
        let start = Instant::now();
        loop {
            if self.ended() {
                return Err(self.log());
            }
            if self.is_ready(pid) {
                return Ok(());
            }
            if start.elapsed() > PATIENCE {
                self.stop(StopMode::Immediate);
                return Err(format!("{}\n(not ready after {PATIENCE:?})", self.log()));
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// As `pg_ctl -w` knows it: the last line of `postmaster.pid`.
    fn is_ready(&self, pid: u32) -> bool {
        fs::read_to_string(self.data.join("postmaster.pid")).is_ok_and(|text| {
            let mut lines = text.lines();
            lines.next() == Some(&pid.to_string())
                && lines.nth(6).is_some_and(|l| matches!(l.trim(), "ready" | "standby"))
        })
    }

    /// Whether the server has ended by itself or was never started.
    pub fn ended(&mut self) -> bool {
        let Some(child) = &mut self.running else { return true };
        if child.try_wait().expect("cannot look after postgres").is_some() {
            self.running = None;
        }
        self.running.is_none()
    }

    /// Stops it and waits until it is gone; one that is not running is no error.
    pub fn stop(&mut self, mode: StopMode) {
        let Some(mut child) = self.running.take() else { return };
        kill_now(
            child.id(),
            match mode {
                StopMode::Fast => Signal::INT,
                StopMode::Immediate => Signal::QUIT,
            },
        );
        let start = Instant::now();
        while child.try_wait().expect("cannot wait for postgres").is_none() {
            if start.elapsed() > PATIENCE {
                kill_now(child.id(), Signal::KILL);
                let _ = child.wait();
                panic!("PostgreSQL did not stop ({mode:?}) within {PATIENCE:?}:\n{}", self.log());
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Stops and starts it.
    pub fn restart(&mut self, mode: StopMode) {
        self.stop(mode);
        self.start();
    }

    /// Kills the server and all its processes at once, as the machine's end would.
    pub fn kill9(&mut self) {
        let Some(mut child) = self.running.take() else { return };
        let children = children_of(child.id());
        kill_now(child.id(), Signal::KILL);
        for pid in &children {
            kill_now(*pid, Signal::KILL);
        }
        let _ = child.wait();
        wait_until("the killed server's processes to be gone", || {
            children.iter().all(|pid| !Path::new(&format!("/proc/{pid}/exe")).exists())
        });
    }

    /// Reads the configuration again after adding lines to `postgresql.conf`.
    pub fn configure(&self, lines: &[&str]) {
        append(&self.data.join("postgresql.conf"), &format!("\n{}\n", lines.join("\n")));
        if self.running.is_some() {
            self.sql("select pg_reload_conf()");
            // The signal is on its way: new sessions have read the file, the archiver may take a moment.
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// The data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The directory of its socket: `host` in a connection string.
    pub fn socket_dir(&self) -> &Path {
        &self.sockets
    }

    /// Its port, which only names the socket.
    pub fn port(&self) -> u32 {
        self.port
    }

    /// Its major version.
    pub fn major(&self) -> u32 {
        self.server.major
    }

    /// The programs that fit it.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// The scratch directory it lies in.
    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// The postmaster's process number; panics when it is not running.
    pub fn pid(&self) -> u32 {
        self.running.as_ref().expect("the server is not running").id()
    }

    /// A connection string.
    pub fn conninfo(&self) -> String {
        format!("host={} port={} user=postgres dbname=postgres", self.sockets.display(), self.port)
    }

    /// Everything its log holds so far.
    pub fn log(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// One of PostgreSQL's programs, set up to reach this server as user postgres.
    pub fn program(&self, name: &str) -> Command {
        let mut command = self.scratch.command(self.server.program(name));
        command
            .env("PGHOST", &self.sockets)
            .env("PGPORT", self.port.to_string())
            .env("PGUSER", "postgres")
            .env("PGDATABASE", "postgres")
            .env("PGCONNECT_TIMEOUT", "60");
        command
    }

    /// Runs statements, each on its own, and returns what they print: rows without titles, `|` between columns.
    ///
    /// Panics with psql's message and the log when one fails.
    pub fn sql(&self, statements: &str) -> String {
        self.sql_in("postgres", statements)
    }

    /// As [`Self::sql`], in another database.
    pub fn sql_in(&self, database: &str, statements: &str) -> String {
        self.try_sql_in(database, statements).unwrap_or_else(|e| {
            panic!("{statements}\n{e}\nthe server's log ends with:\n{}", tail(&self.log(), 20))
        })
    }

    /// As [`Self::sql`].
    ///
    /// # Errors
    /// What psql says.
    pub fn try_sql(&self, statements: &str) -> Result<String, String> {
        self.try_sql_in("postgres", statements)
    }

    /// As [`Self::try_sql`], in another database.
    ///
    /// # Errors
    /// What psql says.
    pub fn try_sql_in(&self, database: &str, statements: &str) -> Result<String, String> {
        use std::io::{Seek as _, Write as _};
        // A file and not a pipe: psql may answer more than a pipe holds before it has read everything.
        let mut input = tempfile::tempfile().unwrap();
        input.write_all(statements.as_bytes()).unwrap();
        input.rewind().unwrap();
        let mut psql = self.program("psql");
        psql.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-d", database, "-f", "-"]).stdin(Stdio::from(input));
        let out = finish(psql);
        if out.success() { Ok(out.text().to_owned()) } else { Err(out.stderr) }
    }

    /// Finishes the WAL segment being written, whether or not it holds anything, and returns its name.
    pub fn switch_wal(&self) -> String {
        // A switch at a segment's very beginning does nothing: a record first.
        self.sql(
            "select null from pg_logical_emit_message(true, 'test', 'before a switch');
             select pg_walfile_name(pg_switch_wal())",
        )
        .trim()
        .to_owned()
    }

    /// Waits until the archiver has been told that this file is stored.
    pub fn wait_archived(&self, name: &str) {
        let status = self.data.join("pg_wal/archive_status");
        let done = status.join(format!("{name}.done"));
        let ready = status.join(format!("{name}.ready"));
        let file = self.data.join("pg_wal").join(name);
        let start = Instant::now();
        while !(done.exists() || (!ready.exists() && !file.exists())) {
            assert!(
                start.elapsed() < PATIENCE,
                "{name} was not archived within {PATIENCE:?}; the server's log ends with:\n{}",
                tail(&self.log(), 20)
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// [`Self::switch_wal`] and [`Self::wait_archived`].
    pub fn archive_now(&self) -> String {
        let name = self.switch_wal();
        self.wait_archived(&name);
        name
    }

    /// The position up to which WAL is on disk, as text.
    pub fn flush_lsn(&self) -> String {
        self.sql("select pg_current_wal_flush_lsn()")
    }

    /// Whether the server is in recovery.
    pub fn in_recovery(&self) -> bool {
        self.sql("select pg_is_in_recovery()") == "t"
    }

    /// Makes a standby a primary, or ends a paused recovery, and waits for it.
    pub fn promote(&self) {
        self.sql("select pg_promote(true, 120)");
        wait_until("the promotion", || !self.in_recovery());
    }

    /// Waits for the end of recovery: promoted, paused at its target, or the server gone.
    pub fn wait_recovery(&mut self) -> Recovery {
        let start = Instant::now();
        loop {
            if self.ended() {
                return Recovery::Stopped { log: self.log() };
            }
            // The server may be on its way down, or not let anyone in yet: ask again.
            let state = self.try_sql(
                "select case when not pg_is_in_recovery() then 'promoted' else pg_get_wal_replay_pause_state() end",
            );
            match state.as_deref() {
                Ok("promoted") => return Recovery::Promoted,
                Ok("paused") => return Recovery::Paused,
                _ => {}
            }
            assert!(
                start.elapsed() < PATIENCE,
                "recovery did not end within {PATIENCE:?}:\n{}",
                tail(&self.log(), 60)
            );
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until the server is promoted; panics with the log at any other end of recovery.
    pub fn wait_recovery_end(&mut self) {
        let end = self.wait_recovery();
        assert!(end == Recovery::Promoted, "recovery ended otherwise: {end:?}");
    }

    /// Waits until recovery is paused at its target; panics with the log at any other end.
    pub fn wait_paused(&mut self) {
        let end = self.wait_recovery();
        assert!(end == Recovery::Paused, "recovery ended otherwise: {end:?}");
    }

    /// PostgreSQL's own base backup into the directory `name`, which it returns; `-X none` and a fast checkpoint unless
    /// the arguments say otherwise.
    pub fn pg_basebackup(&self, name: &str, arguments: &[&str]) -> PathBuf {
        let target = self.scratch.join(name);
        let mut command = self.program("pg_basebackup");
        command.arg("-D").arg(&target).args(["-c", "fast", "--no-sync"]);
        if !arguments.contains(&"-X") {
            command.args(["-X", "none"]);
        }
        command.args(arguments);
        let out = finish(command);
        assert!(out.success(), "pg_basebackup failed:\n{out}");
        target
    }

    /// Lets PostgreSQL check a restored tree against its `backup_manifest`. Programs of another major do not read
    /// the server's WAL.
    pub fn pg_verifybackup(&self, data: &Path, arguments: &[&str]) -> Output {
        let mut command = self.program("pg_verifybackup");
        if !self.server.bin.join("pg_waldump").exists() {
            command.arg("-n");
        }
        command.args(arguments).arg(data);
        finish(command)
    }

    /// The contents of all databases as text that two servers with the same contents agree on.
    pub fn dump(&self) -> String {
        let mut command = self.program("pg_dumpall");
        command.arg("--no-sync");
        let out = finish(command);
        assert!(out.success(), "pg_dumpall failed:\n{out}");
        // A random word guards psql against its input; it differs each time.
        out.stdout
            .lines()
            .filter(|line| !line.starts_with("\\restrict ") && !line.starts_with("\\unrestrict "))
            .flat_map(|line| [line, "\n"])
            .collect()
    }

    /// Fills the database with pgbench's tables (15 MB for each unit of scale).
    pub fn pgbench_init(&self, scale: u32) {
        let mut command = self.program("pgbench");
        command.args(["--initialize", "--quiet", "--scale", &scale.to_string()]);
        let out = finish(command);
        assert!(out.success(), "pgbench failed:\n{out}");
    }

    /// Two sessions that write without pause until the returned value is dropped; after [`Self::pgbench_init`].
    pub fn load(&self) -> Load {
        let mut command = self.program("pgbench");
        command.args(["--client=2", "--no-vacuum", "--time=3600"]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap_or_else(|e| panic!("cannot start pgbench: {e}"));
        let before = self.sql("select count(*) from pgbench_history");
        wait_until("the load to begin", || self.sql("select count(*) from pgbench_history") != before);
        Load(child)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!(
                "--- {} (PostgreSQL {}), end of {}\n{}",
                self.data.display(),
                self.server.version,
                self.log.display(),
                tail(&self.log(), 60)
            );
        }
        if let Some(mut child) = self.running.take() {
            kill_now(child.id(), Signal::QUIT);
            let start = Instant::now();
            while matches!(child.try_wait(), Ok(None)) {
                if start.elapsed() > Duration::from_secs(30) {
                    kill_now(child.id(), Signal::KILL);
                    let _ = child.wait();
                    break;
                }
                thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

/// Work that goes on while this lives.
pub struct Load(Child);

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The last lines of a text.
fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// The processes whose parent is `pid`.
fn children_of(pid: u32) -> Vec<u32> {
    let mut children = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(number) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        // "pid (name) state ppid …"; the name may hold anything, so count from its last parenthesis.
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let parent =
            stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse::<u32>().ok());
        if parent == Some(pid) {
            children.push(number);
        }
    }
    children
}
