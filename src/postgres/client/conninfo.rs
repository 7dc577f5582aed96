//! Which server, as whom, how: libpq's conventions, resolved once into plain values.
//!
//! Explicit settings win over a connection string, that over a service of `pg_service.conf`, that over `PG*`,
//! that over defaults. The environment is handed in, so that a test decides what it holds. Nothing that concerns
//! security is ignored silently: what this version cannot honour is refused in words.

mod keywords;
mod service;
mod text;
mod tls;

use super::password::{self, Password, PasswordSource};
use super::tls::TlsSettings;
use keywords::{KEYWORDS, Role};
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where builds of PostgreSQL put their socket when nothing is said: Debian's and the others'.
pub(super) const DEFAULT_SOCKET_DIRECTORIES: [&str; 2] = ["/var/run/postgresql", "/tmp"];

/// What was set explicitly, on the command line or in the configuration.
#[derive(Clone, Debug, Default)]
pub struct ConnectionSettings {
    /// A host name or address; a path that begins with `/` is a socket directory.
    pub host: Option<String>,
    /// The port, also part of a socket's name.
    pub port: Option<u16>,
    /// The directory of the server's socket.
    pub socket_path: Option<PathBuf>,
    /// The role to sign in as.
    pub user: Option<String>,
    /// The database to name; a backup covers the whole cluster, whichever it is.
    pub database: Option<String>,
    /// A libpq connection string or URI. Holds a password perhaps: never printed.
    pub conninfo: Option<Password>,
}

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A unix socket, `directory/.s.PGSQL.port`.
    Unix {
        /// The directory.
        directory: PathBuf,
        /// The port in the socket's name.
        port: u16,
    },
    /// TCP.
    Tcp {
        /// Name or address as given.
        host: String,
        /// The port.
        port: u16,
    },
}

impl Address {
    /// The socket file, for a unix socket.
    #[must_use]
    pub fn socket_file(&self) -> Option<PathBuf> {
        match self {
            Self::Unix { directory, port } => Some(directory.join(format!(".s.PGSQL.{port}"))),
            Self::Tcp { .. } => None,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix { directory, port } => write!(f, "{}/.s.PGSQL.{port}", directory.display()),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

/// How the system watches over a TCP connection. A dead peer is noticed after `idle + interval × count`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keepalives {
    /// Whether to ask at all.
    pub on: bool,
    /// Silence before the first question.
    pub idle: Duration,
    /// Time between questions.
    pub interval: Duration,
    /// Unanswered questions that end the connection.
    pub count: u32,
    /// How long sent bytes may stay unacknowledged.
    pub user_timeout: Option<Duration>,
}

impl Default for Keepalives {
    fn default() -> Self {
        Self {
            on: true,
            idle: Duration::from_secs(30),
            interval: Duration::from_secs(10),
            count: 6,
            user_timeout: Some(Duration::from_secs(90)),
        }
    }
}

/// Everything needed to connect.
#[derive(Clone, Debug)]
pub struct ConnectionParameters {
    /// Where to try, in this order. Several only for the default socket directories.
    pub addresses: Vec<Address>,
    /// Connect to this address instead of resolving the host's name.
    pub host_address: Option<IpAddr>,
    /// The role.
    pub user: String,
    /// The database.
    pub database: String,
    /// Whether somebody named that database; if not, a server without it will do.
    pub database_was_named: bool,
    /// The password, if one was found, and where.
    pub password: Option<(Password, PasswordSource)>,
    /// `application_name`, what `pg_stat_activity` shows.
    pub application_name: String,
    /// Command-line options for the server process.
    pub options: Option<String>,
    /// For resolving the name, for opening a connection to each of its addresses, and for signing in;
    /// `None` waits for ever.
    pub connect_timeout: Option<Duration>,
    /// For TCP.
    pub keepalives: Keepalives,
    /// Encryption, over TCP, and what it proves.
    pub tls: TlsSettings,
    /// What a person should know about how these values came about.
    pub warnings: Vec<ConninfoWarning>,
}

/// Worth telling, no reason to stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConninfoWarning {
    /// A password file was not used.
    PasswordFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
}

impl fmt::Display for ConninfoWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PasswordFile { path, why } => {
                write!(f, "password file \"{}\" is ignored: {why}", path.display())
            }
        }
    }
}

/// Connection settings that cannot be used. Never quotes values: one may be a password.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConninfoError {
    /// The connection string cannot be read.
    Syntax(String),
    /// No such connection parameter.
    UnknownKeyword(String),
    /// A parameter has a value that it cannot have.
    BadValue {
        /// The parameter.
        keyword: String,
        /// What it takes.
        wanted: &'static str,
    },
    /// A parameter asks for something that this version cannot do.
    CannotYet {
        /// The parameter, with its value where that is harmless.
        setting: String,
        /// What cannot be done.
        what: &'static str,
    },
    /// Settings that exclude each other.
    Contradiction(&'static str),
    /// A file of services cannot be used.
    ServiceFile {
        /// The file.
        path: PathBuf,
        /// The line, from 1, if it is about one.
        line: Option<usize>,
        /// What is wrong there.
        what: String,
    },
    /// No file of services has this one.
    NoSuchService {
        /// Its name.
        name: String,
        /// The files that were looked at, whether they are there or not.
        looked_in: Vec<PathBuf>,
    },
    /// Nobody said which user, and the system's user has no name.
    NoUser,
}

impl fmt::Display for ConninfoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(what) => write!(f, "the connection string cannot be read: {what}"),
            Self::UnknownKeyword(name) => write!(f, "\"{name}\" is no connection parameter"),
            Self::BadValue { keyword, wanted } => {
                write!(f, "connection parameter \"{keyword}\" takes {wanted}")
            }
            Self::CannotYet { setting, what } => write!(f, "{setting}: this version cannot {what} yet"),
            Self::Contradiction(what) => f.write_str(what),
            Self::ServiceFile { path, line: Some(line), what } => {
                write!(f, "{} line {line}: {what}", path.display())
            }
            Self::ServiceFile { path, line: None, what } => {
                write!(f, "service file {}: {what}", path.display())
            }
            Self::NoSuchService { name, looked_in } => {
                let files: Vec<_> = looked_in.iter().map(|path| path.display().to_string()).collect();
                write!(f, "there is no service \"{name}\" in {}", files.join(", "))
            }
            Self::NoUser => f.write_str(
                "there is no user to connect as: neither a setting, PGUSER nor the system names one",
            ),
        }
    }
}

impl std::error::Error for ConninfoError {}

/// One source of values.
type Layer = BTreeMap<&'static str, String>;

impl ConnectionParameters {
    /// Puts the sources together. `os_user` is the name of the user who runs us, see [`os_user_name`].
    ///
    /// Reads the service file, if a service is named, and the password file, if a password is not given otherwise;
    /// nothing else is touched. `HOME` in the environment is where both are looked for, and the files of TLS.
    ///
    /// # Errors
    /// When the sources do not make sense, or ask for what this version cannot do.
    pub fn resolve(
        settings: &ConnectionSettings,
        environment: &BTreeMap<String, String>,
        os_user: Option<&str>,
    ) -> Result<Self, ConninfoError> {
        let explicit = explicit_layer(settings)?;
        let conninfo = match &settings.conninfo {
            Some(string) => layer(text::parse(string)?)?,
            None => Layer::new(),
        };
        let from_environment = environment_layer(environment);
        let named = |keyword: &str| {
            [&explicit, &conninfo, &from_environment].into_iter().find_map(|values| values.get(keyword))
        };
        let service = match named("service") {
            Some(name) => Some(service::find(name, named("servicefile").map(String::as_str), environment)?),
            None => None,
        };
        let (from_service, service_file) = service.unzip();
        let from_service = from_service.unwrap_or_default();
        let layers = [&explicit, &conninfo, &from_service, &from_environment];
        for values in layers {
            refuse_what_we_cannot(values)?;
        }
        let get = |keyword: &str| layers.iter().find_map(|values| values.get(keyword)).map(String::as_str);

        let port = number(get("port"), "port", "a port from 1 to 65535", 1..=65535)?.unwrap_or(5432);
        let port = u16::try_from(port).unwrap_or(5432);
        // Whoever names the host decides alone where that is: PGHOSTADDR must not lead --pg1-host elsewhere.
        let place =
            layers.iter().find(|values| values.contains_key("host") || values.contains_key("hostaddr"));
        let (addresses, host_address) = match place {
            Some(values) => place_of(values, port)?,
            None => {
                let socket = |directory: &&str| Address::Unix { directory: directory.into(), port };
                (DEFAULT_SOCKET_DIRECTORIES.iter().map(socket).collect(), None)
            }
        };
        let home = environment.get("HOME").filter(|home| !home.is_empty()).map(Path::new);
        let require_by_old_variable = environment.get("PGREQUIRESSL").is_some_and(|v| v.starts_with('1'));
        let tls = tls::settings(&get, home, require_by_old_variable)?;

        let user = get("user").or(os_user).ok_or(ConninfoError::NoUser)?.to_owned();
        // Not the user's name, as libpq would have it: a role for backups seldom has a database of its name,
        // and any database serves.
        let database = get("dbname").unwrap_or("postgres").to_owned();
        for (keyword, value) in
            [("user", Some(&*user)), ("dbname", Some(&*database)), ("options", get("options"))]
        {
            if value.is_some_and(|value| value.contains('\0')) {
                return Err(ConninfoError::BadValue {
                    keyword: keyword.to_owned(),
                    wanted: "text without zero bytes",
                });
            }
        }

        let mut warnings = Vec::new();
        let passfile = get("passfile").map(PathBuf::from).or_else(|| home.map(|home| home.join(".pgpass")));
        let password = if let Some(given) = explicit.get("password").or_else(|| conninfo.get("password")) {
            Some((Password::new(given.clone()), PasswordSource::Settings))
        } else if let Some((given, file)) = from_service.get("password").zip(service_file) {
            Some((Password::new(given.clone()), PasswordSource::ServiceFile(file)))
        } else if let Some(given) = from_environment.get("password") {
            Some((Password::new(given.clone()), PasswordSource::Environment))
        } else {
            passfile.and_then(|path| {
                let address = addresses.first()?;
                let wanted = password::Wanted { address, database: &database, user: &user };
                let found = password::from_file(&path, &wanted, &mut warnings)?;
                Some((found, PasswordSource::File(path)))
            })
        };

        Ok(Self {
            addresses,
            host_address,
            user,
            database,
            database_was_named: get("dbname").is_some(),
            password,
            application_name: get("application_name").unwrap_or("walden").replace('\0', ""),
            options: get("options").map(str::to_owned),
            connect_timeout: match number(get("connect_timeout"), "connect_timeout", "seconds", -1..=86_400)?
            {
                None => Some(Duration::from_secs(30)),
                Some(..=0) => None,
                Some(seconds) => Some(Duration::from_secs(seconds.unsigned_abs())),
            },
            keepalives: keepalives(&get)?,
            tls,
            warnings,
        })
    }
}

fn explicit_layer(settings: &ConnectionSettings) -> Result<Layer, ConninfoError> {
    let mut values = Layer::new();
    let mut set = |keyword, value: Option<String>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            values.insert(keyword, value);
        }
    };
    if settings.host.is_some() && settings.socket_path.is_some() {
        return Err(ConninfoError::Contradiction(
            "a host and a socket directory are both set: only one can be meant",
        ));
    }
    set("host", settings.host.clone());
    if let Some(directory) = &settings.socket_path {
        let directory = directory.to_str().filter(|text| text.starts_with('/'));
        let wanted = "an absolute path in UTF-8";
        let keyword = || "socket-path".to_owned();
        set(
            "host",
            Some(directory.ok_or_else(|| ConninfoError::BadValue { keyword: keyword(), wanted })?.to_owned()),
        );
    }
    set("port", settings.port.map(|port| port.to_string()));
    set("user", settings.user.clone());
    set("dbname", settings.database.clone());
    Ok(values)
}

/// Parsed pairs as a layer: known names only; an empty value counts as not given.
fn layer(pairs: Vec<(String, String)>) -> Result<Layer, ConninfoError> {
    let mut values = Layer::new();
    for (name, value) in pairs {
        let (keyword, _, role) = KEYWORDS
            .iter()
            .find(|(keyword, ..)| *keyword == name)
            .ok_or_else(|| ConninfoError::UnknownKeyword(name.clone()))?;
        if *role == Role::Ours {
            return Err(ConninfoError::Contradiction(
                "\"replication\" is set by walden itself: leave it out",
            ));
        }
        // The last of several wins, as in libpq.
        if value.is_empty() {
            values.remove(keyword);
        } else {
            values.insert(keyword, value);
        }
    }
    Ok(values)
}

fn environment_layer(environment: &BTreeMap<String, String>) -> Layer {
    KEYWORDS
        .iter()
        .filter(|(_, variable, _)| !variable.is_empty())
        .filter_map(|(keyword, variable, _)| Some((*keyword, environment.get(*variable)?.clone())))
        .filter(|(_, value)| !value.is_empty())
        .collect()
}

fn refuse_what_we_cannot(values: &Layer) -> Result<(), ConninfoError> {
    for (keyword, variable, role) in KEYWORDS {
        let (Some(value), Role::Only(harmless, what)) = (values.get(keyword), role) else { continue };
        if !harmless.contains(&value.as_str()) {
            let setting = if variable.is_empty() {
                (*keyword).to_owned()
            } else {
                format!("{keyword} (or {variable})")
            };
            return Err(ConninfoError::CannotYet { setting, what });
        }
    }
    Ok(())
}

/// The addresses that `host`, `hostaddr` and `port` stand for.
fn place_of(values: &Layer, port: u16) -> Result<(Vec<Address>, Option<IpAddr>), ConninfoError> {
    let several = |text: Option<&String>| text.is_some_and(|text| text.contains(','));
    if several(values.get("host")) || several(values.get("hostaddr")) {
        return Err(ConninfoError::CannotYet {
            setting: "several hosts".to_owned(),
            what: "choose between servers",
        });
    }
    let host_address = match values.get("hostaddr") {
        Some(text) => Some(text.parse::<IpAddr>().map_err(|_| ConninfoError::BadValue {
            keyword: "hostaddr".to_owned(),
            wanted: "a numeric address",
        })?),
        None => None,
    };
    let address = match (values.get("host"), host_address) {
        (Some(host), _) if host.starts_with('@') => {
            return Err(ConninfoError::CannotYet {
                setting: "host".to_owned(),
                what: "use abstract sockets",
            });
        }
        (Some(host), None) if host.starts_with('/') => Address::Unix { directory: host.into(), port },
        (Some(host), _) => Address::Tcp { host: host.clone(), port },
        (None, Some(ip)) => Address::Tcp { host: ip.to_string(), port },
        (None, None) => return Err(ConninfoError::Syntax("no host".to_owned())),
    };
    Ok((vec![address], host_address))
}

fn keepalives<'a>(get: &impl Fn(&str) -> Option<&'a str>) -> Result<Keepalives, ConninfoError> {
    let usual = Keepalives::default();
    let seconds = |keyword: &'static str, usual: Duration| {
        Ok(match number(get(keyword), keyword, "seconds", 0..=32_767)? {
            None | Some(0) => usual,
            Some(given) => Duration::from_secs(given.unsigned_abs()),
        })
    };
    let count = number(get("keepalives_count"), "keepalives_count", "a number from 0 to 127", 0..=127)?;
    let user_timeout =
        number(get("tcp_user_timeout"), "tcp_user_timeout", "milliseconds", 0..=i64::from(u32::MAX))?;
    Ok(Keepalives {
        on: number(get("keepalives"), "keepalives", "0 or 1", 0..=1)? != Some(0),
        idle: seconds("keepalives_idle", usual.idle)?,
        interval: seconds("keepalives_interval", usual.interval)?,
        count: count.filter(|&n| n > 0).and_then(|n| u32::try_from(n).ok()).unwrap_or(usual.count),
        user_timeout: match user_timeout {
            None => usual.user_timeout,
            Some(0) => None,
            Some(millis) => Some(Duration::from_millis(millis.unsigned_abs())),
        },
    })
}

fn number(
    text: Option<&str>,
    keyword: &str,
    wanted: &'static str,
    range: std::ops::RangeInclusive<i64>,
) -> Result<Option<i64>, ConninfoError> {
    text.map(|text| {
        let number = text.trim().parse().ok().filter(|number| range.contains(number));
        number.ok_or_else(|| ConninfoError::BadValue { keyword: keyword.to_owned(), wanted })
    })
    .transpose()
}

/// The name of the user who runs this process, from `/etc/passwd`; `None` when it is not there (then `USER`
/// or a setting must do).
#[must_use]
pub fn os_user_name() -> Option<String> {
    os_user_field(0)
}

/// The home directory of the user who runs this process, from `/etc/passwd`; libpq takes it where `HOME` is not set.
#[must_use]
pub fn os_home_directory() -> Option<String> {
    os_user_field(5)
}

fn os_user_field(number: usize) -> Option<String> {
    let uid = rustix::process::geteuid().as_raw().to_string();
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    let line = users.lines().find(|line| line.split(':').nth(2) == Some(&uid))?;
    line.split(':').nth(number).filter(|field| !field.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests;
