//! The built program, with a place of its own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::cluster::Cluster;
use super::process::{Output, collect, finish};
use super::scratch::Scratch;
use super::stores::RepositoryOptions;

/// The stanza of the tests.
pub const STANZA: &str = "shop";

/// `walden` with a configuration file, repository, spool, lock and log directory below the scratch directory.
///
/// Runs as the server's user with a clean environment; `WALDEN_CONFIG` and `WALDEN_STANZA` are set, so tests write
/// commands as a person would.
pub struct Walden {
    scratch: Scratch,
    directory: PathBuf,
    binary: PathBuf,
    environment: Vec<(String, String)>,
    /// What no command may print, besides the repository's key.
    secrets: Vec<String>,
}

impl Walden {
    /// A place with an empty configuration.
    pub fn new(scratch: &Scratch) -> Self {
        let directory = scratch.dir(format!("w{}", scratch.number()));
        let walden = Self {
            scratch: scratch.clone(),
            binary: reachable_binary(scratch),
            directory,
            environment: Vec::new(),
            secrets: Vec::new(),
        };
        for name in ["repo", "spool", "lock", "log"] {
            scratch.dir(walden.directory.join(name));
        }
        walden.config(&[]);
        walden
    }

    /// Path of the program, as the server's user reaches it.
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// Path of its configuration file.
    pub fn config_path(&self) -> PathBuf {
        self.directory.join("walden.conf")
    }

    /// The directory of its first repository.
    pub fn repo_path(&self) -> PathBuf {
        self.directory.join("repo")
    }

    /// Path of a file or directory in its place.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.directory.join(name)
    }

    /// Writes the configuration file, all of it.
    pub fn config(&self, lines: &[&str]) {
        self.scratch.write(self.config_path(), format!("{}\n", lines.join("\n")));
    }

    /// The lines of an ordinary configuration: one posix repository, its places, the server's address.
    pub fn usual_lines(&self, cluster: &Cluster) -> Vec<String> {
        let at = |name: &str| self.directory.join(name).display().to_string();
        vec![
            "[global]".to_owned(),
            format!("repo1-path={}", at("repo")),
            format!("spool-path={}", at("spool")),
            format!("lock-path={}", at("lock")),
            format!("log-path={}", at("log")),
            String::new(),
            format!("[{STANZA}]"),
            format!("pg1-path={}", cluster.data().display()),
            format!("pg1-socket-path={}", cluster.socket_dir().display()),
            format!("pg1-port={}", cluster.port()),
            "pg1-user=postgres".to_owned(),
        ]
    }

    /// The ordinary configuration without encryption, with more lines for `[global]`.
    pub fn configure_plain(&self, cluster: &Cluster, global: &[&str]) {
        let mut lines = self.usual_lines(cluster);
        let more = ["repo1-cipher-type=none"].iter().chain(global).map(|line| (*line).to_owned());
        lines.splice(2..2, more);
        self.config(&lines.iter().map(String::as_str).collect::<Vec<_>>());
    }

    /// The ordinary configuration with a generated key in a file, with more lines for `[global]`.
    pub fn configure(&self, cluster: &Cluster, global: &[&str]) {
        let key = self.ok(&["key-generate"]);
        assert!(key.text().starts_with("walden-key-1"), "key-generate printed no key:\n{key}");
        let path = self.scratch.write(self.key_path(), format!("{}\n", key.text()));
        let mut lines = self.usual_lines(cluster);
        let cipher = [
            "repo1-cipher-type=aes-256-gcm".to_owned(),
            format!("repo1-cipher-pass-file={}", path.display()),
        ];
        lines.splice(2..2, cipher.into_iter().chain(global.iter().map(|line| (*line).to_owned())));
        self.config(&lines.iter().map(String::as_str).collect::<Vec<_>>());
    }

    /// As [`Self::configure`], with these repositories instead of the one on the file system, each encrypted with the
    /// same key (that of [`Self::key_path`], made where there is none). What they hold as secrets must not be printed by any command from then on.
    pub fn configure_repositories(
        &mut self,
        cluster: &Cluster,
        repositories: &[RepositoryOptions],
        global: &[&str],
    ) {
        if !self.key_path().exists() {
            let key = self.ok(&["key-generate"]);
            self.scratch.write(self.key_path(), format!("{}\n", key.text()));
        }
        let mut lines = self.usual_lines(cluster);
        lines.retain(|line| !line.starts_with("repo1-"));
        let mut more: Vec<String> = Vec::new();
        for (index, options) in (1..).zip(repositories) {
            more.push(format!("repo{index}-cipher-type=aes-256-gcm"));
            more.push(format!("repo{index}-cipher-pass-file={}", self.key_path().display()));
            for (name, value) in options {
                more.push(format!("repo{index}-{name}={value}"));
                if ["s3-key-secret", "s3-token", "azure-key"].contains(&name.as_str()) {
                    self.secrets.push(value.clone());
                }
            }
        }
        more.extend(global.iter().map(|line| (*line).to_owned()));
        lines.splice(1..1, more);
        self.config(&lines.iter().map(String::as_str).collect::<Vec<_>>());
    }

    /// The repository on the file system, as [`Self::configure_repositories`] takes it.
    pub fn posix_options(&self, name: &str) -> RepositoryOptions {
        let path = self.scratch.dir(self.directory.join(name));
        vec![("path".to_owned(), path.display().to_string())]
    }

    /// Where archive-push and archive-get keep what opens a repository.
    pub fn cache_folder(&self) -> PathBuf {
        let lock = self.directory.join("lock");
        let mut folders = fs::read_dir(&lock).into_iter().flatten().map(|entry| entry.unwrap().path());
        let is_cache = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with("cache-");
        folders.find(is_cache).unwrap_or_else(|| lock.join("cache-none"))
    }

    /// Where [`Self::configure`] keeps the key.
    pub fn key_path(&self) -> PathBuf {
        self.directory.join("repo1.key")
    }

    /// Sets a variable of the program's environment for all later runs.
    pub fn env(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// What `archive_command` is set to: absolute, with the configuration and the stanza named.
    pub fn archive_command(&self) -> String {
        format!("{} archive-push \"%p\"", self.command_words())
    }

    /// As [`Self::archive_command`], for a `restore_command` written by hand.
    pub fn restore_command(&self) -> String {
        format!("{} archive-get %f \"%p\"", self.command_words())
    }

    fn command_words(&self) -> String {
        format!("{} --config={} --stanza={STANZA}", self.binary.display(), self.config_path().display())
    }

    /// The program with these arguments, not started.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.scratch.command(&self.binary);
        command.env("WALDEN_CONFIG", self.config_path()).env("WALDEN_STANZA", STANZA).args(arguments);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs it to its end. Panics when it hangs, and when what it says holds the repository's key.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.keeps_secret(finish(self.command(arguments)))
    }

    /// Runs it; panics with all it said unless it ended with 0.
    pub fn ok(&self, arguments: &[&str]) -> Output {
        let out = self.run(arguments);
        assert!(out.success(), "walden should have succeeded:\n{out}");
        out
    }

    /// Runs it; panics with all it said unless it ended with this exit code.
    pub fn fails(&self, code: i32, arguments: &[&str]) -> Output {
        let out = self.run(arguments);
        assert!(out.code == Some(code), "walden should have ended with exit code {code}:\n{out}");
        out
    }

    /// Starts it and returns at once; end it with [`Self::finish`] (or kill it by its number first).
    pub fn spawn(&self, arguments: &[&str]) -> Child {
        let mut command = self.command(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap_or_else(|e| panic!("cannot start walden: {e}"))
    }

    /// Waits for what [`Self::spawn`] started.
    pub fn finish(&self, child: Child) -> Output {
        self.keeps_secret(collect(child, "walden (in the background)".to_owned()))
    }

    fn keeps_secret(&self, out: Output) -> Output {
        for secret in &self.secrets {
            let told = out.stdout.contains(secret) || out.stderr.contains(secret);
            assert!(!told, "a store's secret was printed by: {}", out.command);
        }
        if let Ok(key) = fs::read_to_string(self.key_path()) {
            let key = key.trim();
            let told = !key.is_empty() && (out.stdout.contains(key) || out.stderr.contains(key));
            assert!(!told, "the repository's key was printed by: {}", out.command);
        }
        out
    }
}

/// The program where the server's user can run it: as built, or, when a directory above it is closed, a hard link
/// or copy in the scratch directory.
fn reachable_binary(scratch: &Scratch) -> PathBuf {
    let built = PathBuf::from(env!("CARGO_BIN_EXE_walden"));
    let open = |path: &Path| fs::metadata(path).is_ok_and(|m| m.permissions().mode() & 0o001 != 0);
    if super::process::runs_as().is_none() || built.ancestors().all(open) {
        return built;
    }
    let copy = scratch.join("walden");
    if !copy.exists() && fs::hard_link(&built, &copy).is_err() {
        fs::copy(&built, &copy).unwrap_or_else(|e| panic!("cannot copy {}: {e}", built.display()));
    }
    copy
}
