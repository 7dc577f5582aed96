//! libpq's connection parameters, and what each means to us.

/// What a keyword means to us.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Its value goes into the connection's parameters.
    Used,
    /// Without effect on a connection such as ours; accepted so that strings written for libpq work.
    Without,
    /// Set by walden itself.
    Ours,
    /// Accepted with these values (all without effect), refused with others because we cannot do what they ask.
    Only(&'static [&'static str], &'static str),
}

/// libpq's parameters (fe-connect.c, `PQconninfoOptions`) and their environment variables.
pub(super) const KEYWORDS: &[(&str, &str, Role)] = &[
    ("host", "PGHOST", Role::Used),
    ("hostaddr", "PGHOSTADDR", Role::Used),
    ("port", "PGPORT", Role::Used),
    ("user", "PGUSER", Role::Used),
    ("dbname", "PGDATABASE", Role::Used),
    ("password", "PGPASSWORD", Role::Used),
    ("passfile", "PGPASSFILE", Role::Used),
    ("application_name", "PGAPPNAME", Role::Used),
    ("options", "PGOPTIONS", Role::Used),
    ("connect_timeout", "PGCONNECT_TIMEOUT", Role::Used),
    ("keepalives", "", Role::Used),
    ("keepalives_idle", "", Role::Used),
    ("keepalives_interval", "", Role::Used),
    ("keepalives_count", "", Role::Used),
    ("tcp_user_timeout", "", Role::Used),
    ("service", "PGSERVICE", Role::Used),
    ("servicefile", "PGSERVICEFILE", Role::Used),
    ("sslmode", "PGSSLMODE", Role::Used),
    ("sslnegotiation", "PGSSLNEGOTIATION", Role::Used),
    ("sslrootcert", "PGSSLROOTCERT", Role::Used),
    ("sslcrl", "PGSSLCRL", Role::Used),
    ("sslcrldir", "PGSSLCRLDIR", Role::Used),
    ("sslcert", "PGSSLCERT", Role::Used),
    ("sslkey", "PGSSLKEY", Role::Used),
    ("sslcertmode", "PGSSLCERTMODE", Role::Used),
    ("sslsni", "PGSSLSNI", Role::Used),
    ("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION", Role::Used),
    ("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION", Role::Used),
    ("channel_binding", "PGCHANNELBINDING", Role::Used),
    ("replication", "", Role::Ours),
    ("client_encoding", "PGCLIENTENCODING", Role::Without),
    ("fallback_application_name", "", Role::Without),
    // TLS 1.2 and later as we speak them have no compression.
    ("sslcompression", "PGSSLCOMPRESSION", Role::Without),
    // Needed for an encrypted key only, which is refused by name.
    ("sslpassword", "", Role::Without),
    ("sslkeylogfile", "", Role::Only(&[], "write the keys of TLS sessions to a file")),
    ("min_protocol_version", "PGMINPROTOCOLVERSION", Role::Only(&["3.0"], "speak a newer protocol")),
    ("max_protocol_version", "PGMAXPROTOCOLVERSION", Role::Without),
    ("require_auth", "PGREQUIREAUTH", Role::Only(&[], "restrict the server's choice of authentication")),
    ("requirepeer", "PGREQUIREPEER", Role::Only(&[], "check who runs the server")),
    ("gssencmode", "PGGSSENCMODE", Role::Only(&["disable", "prefer"], "use GSSAPI encryption")),
    ("krbsrvname", "PGKRBSRVNAME", Role::Without),
    ("gsslib", "PGGSSLIB", Role::Without),
    ("gssdelegation", "PGGSSDELEGATION", Role::Without),
    ("target_session_attrs", "PGTARGETSESSIONATTRS", Role::Only(&["any"], "choose between servers")),
    ("load_balance_hosts", "PGLOADBALANCEHOSTS", Role::Only(&["disable"], "choose between servers")),
    ("scram_client_key", "", Role::Only(&[], "sign in with SCRAM keys")),
    ("scram_server_key", "", Role::Only(&[], "sign in with SCRAM keys")),
    ("oauth_issuer", "", Role::Without),
    ("oauth_client_id", "", Role::Without),
    ("oauth_client_secret", "", Role::Without),
    ("oauth_scope", "", Role::Without),
];
