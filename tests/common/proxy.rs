//! A bad network in front of a server.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use super::cluster::Cluster;
use super::scratch::Scratch;

/// `tests/env/chaos-proxy.py` before a server's socket, on a socket of its own: refuses, cuts, stalls, corrupts and
/// throttles as its rules say (`--help` lists them). Ends when dropped.
pub struct Proxy {
    child: Child,
    scratch: Scratch,
    rules: PathBuf,
    sockets: PathBuf,
    port: u32,
}

impl Proxy {
    /// One that passes everything on.
    pub fn before(cluster: &Cluster) -> Self {
        let scratch = cluster.scratch().clone();
        let number = scratch.number();
        let sockets = scratch.dir(format!("p{number}"));
        let port = 6000 + number;
        let rules = scratch.write(sockets.join("rules.json"), "[]");
        // A copy: the checkout may be closed to the server's user.
        let script = scratch.write(
            sockets.join("proxy.py"),
            fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/env/chaos-proxy.py")).unwrap(),
        );
        let mut command = scratch.command("python3");
        command
            .arg(script)
            .arg("--to")
            .arg(cluster.socket_dir().join(format!(".s.PGSQL.{}", cluster.port())))
            .arg("--listen")
            .arg(sockets.join(format!(".s.PGSQL.{port}")))
            .arg("--rules")
            .arg(&rules)
            .stdout(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("cannot start python3: {e}"));
        let ready = BufReader::new(child.stdout.take().unwrap())
            .lines()
            .map_while(Result::ok)
            .any(|line| line.starts_with("CHAOS_PORT="));
        assert!(ready, "the proxy did not come up");
        Self { child, scratch, rules, sockets, port }
    }

    /// The directory of its socket: what a client is given instead of the server's.
    pub fn socket_dir(&self) -> &Path {
        &self.sockets
    }

    /// Its port.
    pub fn port(&self) -> u32 {
        self.port
    }

    /// Connections made from now on meet this one rule, written as JSON; an empty text means none.
    pub fn rule(&self, json: &str) {
        self.scratch.write(&self.rules, format!("[{json}]"));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
