//! What to do about a connection that cannot be encrypted, or not with whom it should be.

use crate::failure::Class;
use crate::postgres::client::{Address, BindingProblem, CertificateProblem, TlsFile, TlsProblem};

/// The exit code and the next steps for trouble with TLS.
pub(super) fn steps(problem: &TlsProblem) -> (Class, Vec<String>) {
    let one = |step: &str| vec![step.to_owned()];
    let steps = match problem {
        TlsProblem::NotOffered => vec![
            "On the server: `alter system set ssl = on` with ssl_cert_file and ssl_key_file, then \
             `select pg_reload_conf()`."
                .to_owned(),
            "Only where nobody else can reach the network in between: sslmode=disable.".to_owned(),
        ],
        TlsProblem::ErrorBeforeHandshake => {
            one("The server's log has its own words: often it has no process or memory left for a connection.")
        }
        TlsProblem::BytesBeforeHandshake => {
            one("Find out what is between this host and the server, before any password is sent that way.")
        }
        TlsProblem::NoRoots { .. } => vec![
            "Name the CA's certificate that the server's was signed with: sslrootcert=FILE in pg1-conninfo, or \
             PGSSLROOTCERT."
                .to_owned(),
            "For a certificate of a public CA: sslrootcert=system.".to_owned(),
        ],
        TlsProblem::FileUnreadable { file, .. } => {
            vec![format!("Check {} and who may read it: walden runs as its own user.", file.parameter())]
        }
        TlsProblem::FileUseless { file: TlsFile::Key, .. } => {
            one("Check that sslkey is the key that the request for the certificate in sslcert was made with.")
        }
        TlsProblem::FileUseless { file, .. } => {
            vec![format!("Check {}: PEM text, which begins with -----BEGIN.", file.parameter())]
        }
        TlsProblem::KeyMissing { .. } => {
            one("Set sslkey=FILE (or PGSSLKEY), or sslcertmode=disable to show no certificate.")
        }
        TlsProblem::KeyExposed { path } => vec![format!(
            "`chmod 600 {}` (a key that belongs to root may be readable for its group: 640).",
            path.display()
        )],
        TlsProblem::KeyEncrypted { path } => vec![format!(
            "Store it without: `(umask 077; openssl pkey -in {} -out NEW.key)`, and set sslkey=NEW.key.",
            path.display()
        )],
        TlsProblem::Certificate { problem, .. } => certificate_steps(problem),
        TlsProblem::Alert { about_our_certificate: true, .. } => vec![
            "Show a certificate that was signed by a CA in the server's ssl_ca_file and has not expired: sslcert=FILE \
             and sslkey=FILE, by default ~/.postgresql/postgresql.crt and .key."
                .to_owned(),
            "Where the server does not need one: sslcertmode=disable.".to_owned(),
        ],
        TlsProblem::Alert { .. } => {
            one("The server's log tells more; its ssl_min_protocol_version and ssl_max_protocol_version have to allow \
                 TLS 1.2 or 1.3.")
        }
        TlsProblem::NotDirect => one("sslnegotiation=direct needs PostgreSQL 17 or later: leave it out."),
        TlsProblem::CertificateNotAsked => {
            one("Set ssl_ca_file on the server, so that it asks, or leave sslcertmode=require out.")
        }
        // The network, or a server that speaks something else.
        TlsProblem::Handshake(_) => {
            return (
                Class::PostgresUnreachable,
                one("Check that it is PostgreSQL that listens there, and look in its log."),
            );
        }
    };
    (Class::PostgresRefuses, steps)
}

fn certificate_steps(problem: &CertificateProblem) -> Vec<String> {
    let step = match problem {
        CertificateProblem::Untrusted { .. } => {
            "Is it the right server? Then put the certificate of the CA that signed its certificate into the file that \
             sslrootcert (or PGSSLROOTCERT) names."
        }
        CertificateProblem::Expired { .. } => {
            "Give the server a new certificate (ssl_cert_file), then `select pg_reload_conf()` there."
        }
        CertificateProblem::RootExpired { .. } => {
            "Put the CA's new certificate into the file that sslrootcert (or PGSSLROOTCERT) names."
        }
        CertificateProblem::NotYetValid { .. } => "Check the clocks of this host and the server.",
        CertificateProblem::WrongName { .. } => {
            "Set pg1-host to one of its names (hostaddr=ADDRESS in pg1-conninfo then says where that is), or give the \
             server a certificate for this one."
        }
        CertificateProblem::Revoked => {
            "Do not connect: its issuer no longer vouches for it. The server needs a new certificate."
        }
        CertificateProblem::NoRevocationList | CertificateProblem::RevocationListExpired => {
            "Put the current list of each CA of the chain into the file that sslcrl names (by default \
             ~/.postgresql/root.crl)."
        }
        CertificateProblem::NotForServers => {
            "Give the server a certificate with extendedKeyUsage=serverAuth, or without that extension."
        }
        CertificateProblem::Version1 => {
            "Have it signed again with extensions: `openssl x509 -req … -extfile FILE`, where FILE holds \
             subjectAltName=DNS:NAME."
        }
        CertificateProblem::OfACa => {
            "Put this very certificate into the file of sslrootcert, or give the server one of its own."
        }
        _ => "Have the certificate made again; `openssl x509 -noout -text -in FILE` shows what it holds.",
    };
    vec![step.to_owned()]
}

/// The next steps when authentication cannot be bound to TLS.
pub(super) fn binding_steps(problem: &BindingProblem) -> Vec<String> {
    let step = match problem {
        BindingProblem::NoTls => {
            "Set sslmode=verify-full (or require), or leave channel_binding=require out; a unix socket has no TLS."
        }
        BindingProblem::Method(_) => {
            "Use scram-sha-256 in pg_hba.conf, with a password that was stored with password_encryption = scram-sha-256."
        }
        BindingProblem::OfferedInTheClear => {
            "Find out what is between this host and the server; sslmode=verify-full shows it."
        }
        BindingProblem::Signature { required: true, .. } => {
            "Give the server a certificate signed with RSA or ECDSA; or sslmode=verify-full and channel_binding=prefer."
        }
        BindingProblem::Signature { .. } => {
            "Set sslmode=verify-full and sslrootcert; or channel_binding=disable."
        }
    };
    vec![step.to_owned()]
}

/// For a server whose `pg_hba.conf` has no line for us, when nothing was tried over TLS.
pub(super) fn unencrypted_step(at: &Address, encrypted: bool) -> Option<String> {
    let tcp = matches!(at, Address::Tcp { .. });
    (tcp && !encrypted).then(|| {
        "If its lines say hostssl: the connection was not encrypted. Set sslmode=verify-full (or require) in \
         pg1-conninfo or PGSSLMODE; the server needs ssl = on."
            .to_owned()
    })
}

/// For a server that wants to see another client certificate, or one at all.
pub(super) fn client_certificate_step(user: &str) -> String {
    format!(
        "Show a client certificate with CN={user} (or a line in pg_ident.conf): sslcert=FILE and sslkey=FILE, by default \
         ~/.postgresql/postgresql.crt and .key."
    )
}
