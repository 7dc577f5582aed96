//! Options of PostgreSQL servers.

use super::{Group, Kind, OptionSpec, Topic};

/// What talks to a server.
const CLIENTS: &[&str] = &["backup", "check", "restore", "stanza-create", "stanza-upgrade"];

const fn option(name: &'static str, kind: Kind, short: &'static str, long: &'static str) -> OptionSpec {
    OptionSpec::new(Topic::Server, name, kind, short, long).on(CLIENTS).group(Group::Server)
}

pub(super) const OPTIONS: &[OptionSpec] = &[
    option(
        "pg-path",
        Kind::Path,
        "the data directory (PGDATA)",
        "restore writes here. archive-push and archive-get look here for the control file that says which \
         cluster they serve, when %p does not lead to it. A backup does not need it: it reads over the \
         replication protocol, from any host.",
    )
    .on(&["archive-get", "archive-push", "backup", "check", "restore", "stanza-create", "stanza-upgrade"])
    .required_by(&["restore"])
    .unset("found through %p where possible"),
    option(
        "pg-host",
        Kind::Text,
        "the server's host name or address",
        "Beginning with / it is the directory of the server's socket. Nothing of walden needs to be installed \
         on that host to take a backup.",
    )
    .unset("PGHOST, else the local socket"),
    option("pg-port", Kind::Integer(1, 65_535), "the server's port", "The port of TCP, and the number in the name of the socket.")
        .unset("PGPORT, else 5432"),
    option(
        "pg-socket-path",
        Kind::Path,
        "the directory of the server's socket",
        "As in unix_socket_directories. Takes the place of pg1-host for a server on this machine.",
    )
    .unset("/var/run/postgresql, else /tmp"),
    option(
        "pg-user",
        Kind::Text,
        "the role to log in as",
        "A role with LOGIN and REPLICATION is all that a backup needs; pg_hba.conf must let it in for the \
         database \"replication\".",
    )
    .unset("PGUSER, else the name of the operating system's user"),
    option(
        "pg-database",
        Kind::Text,
        "the database to log in to",
        "Only its name is needed, for pg_hba.conf and for a few questions in SQL; the backup always holds the \
         whole cluster.",
    )
    .unset("PGDATABASE, else postgres"),
    option(
        "pg-conninfo",
        Kind::Text,
        "a whole connection string",
        "As in libpq: keyword=value pairs or a postgresql:// URL, for one server; service=NAME takes them from \
         pg_service.conf. pg1-host, pg1-port, pg1-user and pg1-database win over what stands here, this over \
         PG* variables. TLS is set up here: sslmode (prefer, if not said: encrypted where the server can, \
         nothing verified unless ~/.postgresql/root.crt is there; verify-full is the one that proves the \
         server), sslrootcert (a file, or system), sslcrl, sslcert and sslkey, channel_binding. Passwords \
         belong in .pgpass, not here; on the command line one is refused.",
    )
    .unset("the options above and PG* variables (PGSSLMODE, PGSSLROOTCERT, PGSERVICE, …)"),
    OptionSpec::new(
        Topic::Server,
        "db-timeout",
        Kind::Duration(100, 7 * 86_400_000),
        "how long a question to the server may take",
        "Covers login, starting and stopping the backup (except the checkpoint that is waited for) and every \
         other question. Within the stream of data io-timeout counts.",
    )
    .on(CLIENTS)
    .default("30m"),
];
