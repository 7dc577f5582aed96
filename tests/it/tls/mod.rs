//! TLS between walden and real servers; libpq, through the same server's psql, is the oracle of what each setting means.

mod forwarder;
mod matrix;
mod program;
mod sign_in;
mod stream;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use walden::postgres::client::{
    ClientError, ConnectionParameters, ConnectionSettings, Password, ReplicationClient, TlsProblem,
};

use crate::common::{Cluster, Scratch, finish, wait_until};

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// What `tests/env/make-certs` makes.
struct Certificates(PathBuf);

impl Certificates {
    fn new(scratch: &Scratch) -> Self {
        let directory = scratch.dir("certs");
        // A copy: the checkout may be closed to the server's user.
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/env/make-certs");
        let script = scratch.write("make-certs", std::fs::read(script).unwrap());
        let mut command = scratch.command("bash");
        command.arg(script).arg(&directory);
        let made = finish(command);
        assert!(made.success(), "{made}");
        Self(directory)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// As text for a connection string; these paths have nothing to quote.
    fn at(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn exists(&self, name: &str) -> bool {
        self.path(name).exists()
    }

    /// `postgresql.conf` of a server that shows this certificate and asks for one of `ca.crt`.
    fn server_lines(&self, name: &str) -> Vec<String> {
        vec![
            "ssl = on".to_owned(),
            format!("ssl_cert_file = '{}'", self.at(&format!("{name}.crt"))),
            format!("ssl_key_file = '{}'", self.at(&format!("{name}.key"))),
            format!("ssl_ca_file = '{}'", self.at("ca.crt")),
        ]
    }

    /// Makes the server show another certificate; `none` turns TLS off.
    fn show(&self, cluster: &Cluster, name: &str) {
        let lines = match name {
            "none" => vec!["ssl = off".to_owned()],
            name => self.server_lines(name),
        };
        cluster.configure(&lines.iter().map(String::as_str).collect::<Vec<_>>());
        // The server reads its certificate in the same turn as its settings.
        let setting = if name == "none" { "ssl" } else { "ssl_cert_file" };
        let wanted = if name == "none" { "off".to_owned() } else { self.at(&format!("{name}.crt")) };
        wait_until("the server to show another certificate", || {
            cluster.sql(&format!("show {setting}")) == wanted
                && (name == "none") == (cluster.sql("show ssl") == "off")
        });
    }
}

/// Parameters for `string`, to localhost unless it says otherwise, with a home directory that `home` names.
fn parameters(cluster: &Cluster, string: &str, home: &Path) -> ConnectionParameters {
    let settings = ConnectionSettings {
        host: (!string.contains("host=")).then(|| "localhost".to_owned()),
        port: (!string.contains("port=")).then(|| u16::try_from(cluster.port()).unwrap()),
        user: (!string.contains("user=")).then(|| "postgres".to_owned()),
        conninfo: Some(Password::new(string)),
        ..ConnectionSettings::default()
    };
    let environment: BTreeMap<String, String> =
        [("HOME".to_owned(), home.display().to_string())].into_iter().collect();
    ConnectionParameters::resolve(&settings, &environment, None).unwrap()
}

/// Connects and asks something; whether it was encrypted.
fn attempt_from(cluster: &Cluster, string: &str, home: &Path) -> Result<bool, ClientError> {
    let parameters = parameters(cluster, string, home);
    run(async {
        let mut client = ReplicationClient::connect(&parameters).await?;
        client.identify_system().await?;
        let encrypted = client.is_encrypted();
        client.close().await;
        Ok(encrypted)
    })
}

/// The same with an empty home directory.
fn attempt(cluster: &Cluster, string: &str) -> Result<bool, ClientError> {
    attempt_from(cluster, string, Path::new("/nonexistent"))
}

/// The trouble with TLS that a connection with `string` meets.
fn problem(cluster: &Cluster, string: &str) -> TlsProblem {
    match attempt(cluster, string) {
        Err(ClientError::Tls { problem, .. }) => *problem,
        other => panic!("{string}: {other:?}"),
    }
}
