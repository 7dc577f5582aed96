//! Servers of objects: S3 (SeaweedFS, Ceph's gateway), Azure (Azurite), and a faulty store in front.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::process::{Output, PATIENCE, finish, kill_now};
use super::scratch::Scratch;

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/env").join(name)
}

/// A server that a `tests/env/start-*` script began. It ends when this is dropped, and when the test process ends in
/// whatever way: the script waits for the end of its standard input, whose other end is here.
struct Attached {
    facts: BTreeMap<String, String>,
    directory: PathBuf,
    child: Child,
    input: Option<ChildStdin>,
}

impl Attached {
    fn start(name: &str, arguments: &[&str]) -> Self {
        // The script removes it: a shared server is never dropped.
        let directory = tempfile::Builder::new().prefix("walden-store-").tempdir().unwrap().keep();
        let mut command = Command::new(script(name));
        command.args(arguments).arg("--attached").arg(&directory);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        // Of its own group: an interrupt from the keyboard ends the tests, and with them the server.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn().unwrap_or_else(|e| panic!("cannot start {name}: {e}"));
        let input = child.stdin.take();
        let facts = facts(child.stdout.take().unwrap());
        assert!(
            facts.keys().any(|key| key.ends_with("_PID")),
            "{name} did not start the server (its words are above): run tests/env/prepare, or `make test`"
        );
        Self { facts, directory, child, input }
    }

    fn fact(&self, name: &str) -> &str {
        self.facts.get(name).unwrap_or_else(|| panic!("the server says no {name}"))
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.wait();
    }
}

/// `NAME=value` lines up to the end of the output.
fn facts(output: impl Read) -> BTreeMap<String, String> {
    let lines = BufReader::new(output).lines().map_while(Result::ok);
    lines
        .filter_map(|line| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())))
        .collect()
}

/// Whose credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// May do everything.
    Admin,
    /// May read, write and list; every delete is refused.
    NoDelete,
    /// May read and list.
    ReadOnly,
}

/// What a bucket is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BucketKind {
    /// Nothing.
    Plain,
    /// Every version of an object is kept.
    Versioned,
    /// Object Lock, GOVERNANCE for one day.
    Locked,
}

/// One repository's settings: option names without `repoN-`, and values.
pub type RepositoryOptions = Vec<(String, String)>;

/// An S3 server.
pub struct S3Server(Attached);

impl S3Server {
    /// The server that all tests of this process share, with TLS; started when first asked for. Every test takes a
    /// bucket of its own.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<S3Server> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(true))
    }

    /// A server of the test's own.
    pub fn start(tls: bool) -> Self {
        Self(Attached::start("start-s3", if tls { &["--tls"] } else { &[] }))
    }

    /// Ceph's gateway, without TLS and without an identity that may not delete; shared.
    pub fn ceph() -> &'static Self {
        static SHARED: OnceLock<S3Server> = OnceLock::new();
        SHARED.get_or_init(|| Self(Attached::start("start-rgw", &[])))
    }

    /// `https://127.0.0.1:PORT`.
    pub fn endpoint(&self) -> &str {
        self.0.fact("S3_ENDPOINT")
    }

    /// Its CA, readable by everybody; `None` without TLS.
    pub fn ca_file(&self) -> Option<&Path> {
        self.0.facts.get("S3_CA_FILE").map(Path::new)
    }

    /// What the start script says of it, as a file.
    pub fn env_file(&self) -> PathBuf {
        self.0.directory.join("env")
    }

    /// Access key and secret.
    pub fn key(&self, identity: Identity) -> (&str, &str) {
        let prefix = match identity {
            Identity::Admin => "S3",
            Identity::NoDelete => "S3_NODELETE",
            Identity::ReadOnly => "S3_READONLY",
        };
        (self.0.fact(&format!("{prefix}_ACCESS_KEY")), self.0.fact(&format!("{prefix}_SECRET_KEY")))
    }

    /// Makes a bucket and returns its name.
    pub fn bucket(&self, kind: BucketKind) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("shop-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let more: &[&str] = match kind {
            BucketKind::Plain => &[],
            BucketKind::Versioned => &["--versioned"],
            BucketKind::Locked => &["--lock-days", "1"],
        };
        self.request("bucket", &[&[name.as_str()], more].concat());
        name
    }

    /// The keys of a bucket's objects.
    pub fn keys(&self, bucket: &str) -> Vec<String> {
        let listed = self.request("list", &[bucket]);
        listed.stdout.lines().filter_map(|l| l.split(' ').next()).map(str::to_owned).collect()
    }

    /// Every version in a bucket: key, version, `kept` or `deleted` (a delete marker).
    pub fn versions(&self, bucket: &str) -> Vec<(String, String, String)> {
        let listed = self.request("versions", &[bucket]);
        let words = |line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            (words[0].to_owned(), words[1].to_owned(), words[2].to_owned())
        };
        listed.stdout.lines().map(words).collect()
    }

    /// The bytes of an object, as they are stored.
    pub fn object(&self, bucket: &str, key: &str) -> Vec<u8> {
        let file = tempfile::NamedTempFile::new().unwrap();
        self.request("get", &[bucket, key, file.path().to_str().unwrap()]);
        fs::read(file.path()).unwrap()
    }

    /// Puts an object there as its administrator, whatever stood there.
    pub fn put(&self, bucket: &str, key: &str, bytes: &[u8]) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        self.request("put", &[bucket, key, file.path().to_str().unwrap()]);
    }

    /// A rule by which the bucket removes what is below `prefix` after so many days.
    pub fn let_expire(&self, bucket: &str, prefix: &str, days: u32) {
        self.request("lifecycle", &[bucket, prefix, &days.to_string()]);
    }

    /// Removes an object as its administrator.
    pub fn delete(&self, bucket: &str, key: &str) {
        self.request("delete", &[bucket, key]);
    }

    fn request(&self, verb: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new(script("s3-request.py"));
        command.arg(self.0.directory.join("env")).arg(verb).args(arguments);
        let out = finish(command);
        assert!(out.success(), "{out}");
        out
    }

    /// How walden reaches a bucket here.
    pub fn options(&self, bucket: &str, identity: Identity) -> RepositoryOptions {
        self.options_at(self.endpoint(), bucket, identity)
    }

    fn options_at(&self, endpoint: &str, bucket: &str, identity: Identity) -> RepositoryOptions {
        let (key, secret) = self.key(identity);
        let mut options = vec![
            ("type", "s3"),
            ("path", "/walden"),
            ("s3-bucket", bucket),
            ("s3-endpoint", endpoint),
            ("s3-region", "us-east-1"),
            ("s3-uri-style", "path"),
            ("s3-key", key),
            ("s3-key-secret", secret),
        ];
        let ca = self.ca_file().map(|path| path.display().to_string());
        if let Some(ca) = &ca {
            options.push(("storage-ca-file", ca));
        }
        options.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }
}

/// An Azure Blob Storage emulator.
pub struct Azurite(Attached);

impl Azurite {
    /// The emulator that all tests of this process share, with TLS. Every test takes a path of its own in its container.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Azurite> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(true))
    }

    /// One of the test's own.
    pub fn start(tls: bool) -> Self {
        Self(Attached::start("start-azurite", if tls { &["--tls"] } else { &[] }))
    }

    /// The account's key.
    pub fn key(&self) -> &str {
        self.0.fact("AZURE_KEY")
    }

    /// How walden reaches `path` in the container with a signature that permits this: some of `rwdl`.
    pub fn options_by_signature(&self, path: &str, permissions: &str) -> RepositoryOptions {
        let mut command = Command::new(script("azure-sas.py"));
        command.arg(self.0.directory.join("env")).arg(permissions);
        let out = finish(command);
        assert!(out.success(), "{out}");
        let mut options = self.options(path);
        options.retain(|(name, _)| name != "azure-key");
        options.push(("azure-key-type".to_owned(), "sas".to_owned()));
        options.push(("azure-key".to_owned(), out.text().to_owned()));
        options
    }

    /// How walden reaches `path` in the container.
    pub fn options(&self, path: &str) -> RepositoryOptions {
        let mut options = vec![
            ("type", "azure"),
            ("path", path),
            ("azure-container", self.0.fact("AZURE_CONTAINER")),
            ("azure-account", self.0.fact("AZURE_ACCOUNT")),
            ("azure-key", self.key()),
            ("azure-endpoint", self.0.fact("AZURE_ENDPOINT").rsplit_once('/').unwrap().0),
        ];
        if let Some(ca) = self.0.facts.get("AZURE_CA_FILE") {
            options.push(("storage-ca-file", ca));
        }
        options.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }
}

/// One request that went through an [`S3Proxy`].
#[derive(Clone, Debug)]
pub struct Request {
    /// `GET`, `PUT`, …
    pub method: String,
    /// With the bucket: `/shop-1/walden/…`.
    pub path: String,
    /// Without the question mark.
    pub query: String,
    /// What was answered; `None` when nothing was.
    pub status: Option<u64>,
    /// Whether it was conditional.
    pub create_only: bool,
    /// The rules that acted on it.
    pub rules: Vec<String>,
    /// All that the log says of it: the name of the access key as `key`, headers by their names in lower case, secret
    /// ones by their SHA-256.
    pub entry: Value,
}

impl Request {
    /// What the log says of it under a name; empty where it says nothing.
    pub fn said(&self, name: &str) -> &str {
        self.entry[name].as_str().unwrap_or_default()
    }
}

/// `tests/env/s3-proxy.py` before an S3 server: an S3 server with faults, as its rules say (`--help` lists them).
/// Serves TLS with the server's own certificate when the server does. Ends when dropped.
pub struct S3Proxy {
    server: &'static S3Server,
    scratch: Scratch,
    directory: PathBuf,
    rules: PathBuf,
    child: Option<Child>,
    facts: BTreeMap<String, String>,
}

impl S3Proxy {
    /// One that passes everything on.
    pub fn before(server: &'static S3Server, scratch: &Scratch) -> Self {
        let directory = scratch.dir(format!("p{}", scratch.number()));
        let rules = scratch.write(directory.join("rules.json"), "[]");
        let copy = |name: &str, from: &Path| {
            // The checkout and the server's key may be closed to the server's user.
            let bytes = fs::read(from).unwrap_or_else(|e| panic!("{}: {e}", from.display()));
            scratch.write(directory.join(name), bytes);
        };
        copy("proxy.py", &script("s3-proxy.py"));
        for name in ["env", "server.crt", "server.key"] {
            let from = server.0.directory.join(name);
            if from.exists() {
                copy(name, &from);
            }
        }
        let mut proxy =
            Self { server, scratch: scratch.clone(), directory, rules, child: None, facts: BTreeMap::new() };
        proxy.start();
        proxy
    }

    fn start(&mut self) {
        let at = |name: &str| self.directory.join(name);
        let mut command = self.scratch.command("python3");
        command.arg(at("proxy.py")).arg("--env").arg(at("env")).arg("--rules").arg(&self.rules);
        if self.server.ca_file().is_some() {
            command.arg("--cert").arg(at("server.crt")).arg("--cert-key").arg(at("server.key"));
        }
        let port = |name: &str| self.facts.get(name).and_then(|url| url.rsplit(':').next());
        for (option, name) in [("--port", "S3_PROXY_ENDPOINT"), ("--admin-port", "S3_PROXY_ADMIN")] {
            if let Some(port) = port(name) {
                command.arg(option).arg(port);
            }
        }
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap_or_else(|e| panic!("python3: {e}"));
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        self.facts = lines
            .take(3)
            .filter_map(|line| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())))
            .collect();
        self.child = Some(child);
        assert_eq!(self.facts.len(), 3, "the proxy did not come up");
    }

    /// How walden reaches a bucket through it.
    pub fn options(&self, bucket: &str, identity: Identity) -> RepositoryOptions {
        self.server.options_at(&self.facts["S3_PROXY_ENDPOINT"], bucket, identity)
    }

    /// From the next request on these rules hold, a JSON list; counts begin anew, the log too.
    pub fn rules(&self, json: &str) {
        self.admin("PUT", "/rules", &format!("{{\"rules\": {json}}}"));
        self.admin("DELETE", "/log", "");
    }

    /// The requests since the rules were last set.
    pub fn log(&self) -> Vec<Request> {
        let text = |entry: &Value, name: &str| entry[name].as_str().unwrap_or_default().to_owned();
        let entries = self.admin("GET", "/log", "");
        let entries = entries.as_array().expect("the log is a list");
        let request = |entry: &Value| Request {
            method: text(entry, "method"),
            path: text(entry, "path"),
            query: text(entry, "query"),
            status: entry["status"].as_u64(),
            create_only: entry["if-none-match"] == "*",
            rules: entry["rules"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|r| r.as_str().unwrap().to_owned())
                .collect(),
            entry: entry.clone(),
        };
        entries.iter().map(request).collect()
    }

    /// How many requests the rules have acted on.
    pub fn acted(&self) -> u64 {
        let rules = self.admin("GET", "/rules", "");
        rules["rules"].as_array().into_iter().flatten().filter_map(|rule| rule["acted"].as_u64()).sum()
    }

    /// The store is gone: connections break off and new ones are refused.
    pub fn down(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// The store is back at the same address, without rules.
    pub fn up(&mut self) {
        assert!(self.child.is_none(), "it is not down");
        self.start();
    }

    fn admin(&self, method: &str, path: &str, body: &str) -> Value {
        let address = self.facts["S3_PROXY_ADMIN"].trim_start_matches("http://");
        let mut stream =
            TcpStream::connect(address).unwrap_or_else(|e| panic!("the proxy at {address}: {e}"));
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body.as_bytes()).unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        let (head, body) = reply.split_once("\r\n\r\n").unwrap_or_else(|| panic!("the proxy said {reply:?}"));
        assert!(head.starts_with("HTTP/1.1 200"), "{method} {path}: {reply}");
        serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {body}"))
    }
}

impl Drop for S3Proxy {
    fn drop(&mut self) {
        if thread::panicking() && self.child.is_some() {
            // A second panic would hide the first.
            let log =
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.log())).unwrap_or_default();
            eprintln!("--- the last of {} requests through the proxy", log.len());
            for request in log.iter().rev().take(40).rev() {
                eprintln!(
                    "{} {}?{} -> {:?} {:?}",
                    request.method, request.path, request.query, request.status, request.rules
                );
            }
        }
        self.down();
    }
}

/// Whether something still runs under this number.
pub fn runs(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn a_server_of_objects_ends_with_its_owner_and_leaves_nothing() {
    let server = S3Server::start(true);
    let pid: u32 = server.0.fact("S3_PID").parse().unwrap();
    let directory = server.0.directory.clone();
    let bucket = server.bucket(BucketKind::Locked);
    assert!(server.keys(&bucket).is_empty() && server.versions(&bucket).is_empty());
    assert!(runs(pid) && directory.exists());
    // As when the test process is killed: nobody says goodbye.
    let mut server = server;
    drop(server.0.input.take());
    let started = Instant::now();
    while runs(pid) || directory.exists() {
        assert!(started.elapsed() < Duration::from_secs(20), "the server is still there");
        thread::sleep(Duration::from_millis(20));
    }
}
