//! Servers for these tests, by the scripts of `tests/env`. They end with the test process.

use super::*;
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

fn script(name: &str) -> PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/env").join(name)
}

/// What a script said of its server; the server ends when the other end of its standard input does.
pub struct Server {
    pub facts: BTreeMap<String, String>,
    pub directory: PathBuf,
    _input: ChildStdin,
    _script: Child,
}

impl Server {
    fn start(name: &str, arguments: &[&str]) -> Self {
        let directory = tempfile::Builder::new().prefix("walden-store-").tempdir().unwrap().keep();
        let mut command = Command::new(script(name));
        command
            .args(arguments)
            .arg("--attached")
            .arg(&directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn().unwrap();
        let facts = facts(child.stdout.take().unwrap(), usize::MAX);
        assert!(
            facts.keys().any(|name| name.ends_with("_PID")),
            "{name} did not start (its words are above): run tests/env/prepare, or `make test`"
        );
        let input = child.stdin.take().unwrap();
        Self { facts, directory, _input: input, _script: child }
    }

    /// SeaweedFS with TLS.
    pub fn s3() -> &'static Self {
        static SHARED: OnceLock<Server> = OnceLock::new();
        SHARED.get_or_init(|| Self::start("start-s3", &["--tls"]))
    }

    /// Ceph's gateway, without TLS.
    pub fn ceph() -> &'static Self {
        static SHARED: OnceLock<Server> = OnceLock::new();
        SHARED.get_or_init(|| Self::start("start-rgw", &[]))
    }

    /// Azurite with TLS.
    pub fn azure() -> &'static Self {
        static SHARED: OnceLock<Server> = OnceLock::new();
        SHARED.get_or_init(|| Self::start("start-azurite", &["--tls"]))
    }

    /// A bucket of the S3 server, made with these options of `s3-request.py`.
    pub fn bucket(&self, options: &[&str]) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("unit-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        self.request(&[&["bucket", name.as_str()], options].concat());
        name
    }

    pub fn request(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(script("s3-request.py"));
        let out = command.arg(self.directory.join("env")).args(arguments).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }

    /// How a bucket of the S3 server is reached by the identity whose names begin so.
    pub fn place(&self, bucket: &str, identity: &str) -> Bucket {
        let fact = |name: &str| self.facts[name].clone();
        Bucket {
            place: format!("s3://{bucket}/some/folder"),
            service: Service::S3(S3 {
                region: "us-east-1".to_owned(),
                bucket_in_host: false,
                credentials: S3Credentials::Key(S3Key {
                    id: fact(&format!("{identity}_ACCESS_KEY")),
                    secret: fact(&format!("{identity}_SECRET_KEY")),
                    token: None,
                }),
                encryption: None,
                storage_class: None,
            }),
            name: bucket.to_owned(),
            endpoint: fact("S3_ENDPOINT"),
            folder: Some(Key::new("some/folder").unwrap()),
            trusted: self.facts.get("S3_CA_FILE").map(|path| std::fs::read(path).unwrap()),
            verify: true,
            silence: Duration::from_secs(20),
            retry: RetryPolicy::default(),
        }
    }

    /// How a folder of Azurite's container is reached.
    pub fn azure_place(&self, folder: &str) -> Bucket {
        let fact = |name: &str| self.facts[name].clone();
        Bucket {
            place: format!("azure://account/container/{folder}"),
            service: Service::Azure(Azure {
                account: fact("AZURE_ACCOUNT"),
                credentials: AzureCredentials::Shared(fact("AZURE_KEY")),
                account_in_host: false,
            }),
            name: fact("AZURE_CONTAINER"),
            endpoint: fact("AZURE_ENDPOINT"),
            folder: Some(Key::new(folder).unwrap()),
            trusted: Some(std::fs::read(fact("AZURE_CA_FILE")).unwrap()),
            verify: true,
            silence: Duration::from_secs(20),
            retry: RetryPolicy::default(),
        }
    }
}

fn facts(output: impl Read, lines: usize) -> BTreeMap<String, String> {
    let lines = BufReader::new(output).lines().map_while(Result::ok).take(lines);
    lines
        .filter_map(|line| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())))
        .collect()
}

/// The S3 server with faults.
pub struct Proxy {
    child: Child,
    facts: BTreeMap<String, String>,
    pub server: &'static Server,
}

impl Proxy {
    pub fn start() -> Self {
        let server = Server::s3();
        let file = |name: &str| server.directory.join(name);
        let mut command = Command::new("python3");
        command.arg(script("s3-proxy.py")).arg("--env").arg(file("env"));
        command.arg("--cert").arg(file("server.crt")).arg("--cert-key").arg(file("server.key"));
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let facts = facts(child.stdout.take().unwrap(), 3);
        Self { child, facts, server }
    }

    pub fn place(&self, bucket: &str) -> Bucket {
        Bucket { endpoint: self.facts["S3_PROXY_ENDPOINT"].clone(), ..self.server.place(bucket, "S3") }
    }

    /// From now on these rules hold (a JSON list); the log begins anew.
    pub fn rules(&self, json: &str) {
        self.admin("PUT", "/rules", &format!("{{\"rules\": {json}}}"));
        self.admin("DELETE", "/log", "");
    }

    /// The queries of the requests since.
    pub fn queries(&self) -> Vec<String> {
        let entries = self.admin("GET", "/log", "");
        entries.as_array().unwrap().iter().map(|entry| entry["query"].as_str().unwrap().to_owned()).collect()
    }

    /// The requests since: `GET 206`.
    pub fn log(&self) -> Vec<String> {
        let entries = self.admin("GET", "/log", "");
        let said = |entry: &serde_json::Value| {
            format!("{} {}", entry["method"].as_str().unwrap(), entry["status"].as_u64().unwrap_or(0))
        };
        entries.as_array().unwrap().iter().map(said).collect()
    }

    fn admin(&self, method: &str, path: &str, body: &str) -> serde_json::Value {
        let address = self.facts["S3_PROXY_ADMIN"].trim_start_matches("http://");
        let mut stream = TcpStream::connect(address).unwrap();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all((head + body).as_bytes()).unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        let (head, body) = reply.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{reply}");
        serde_json::from_str(body).unwrap()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
