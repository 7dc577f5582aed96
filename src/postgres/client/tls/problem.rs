//! What can go wrong between the request for TLS and the first encrypted byte of the protocol.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why a server's certificate is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CertificateProblem {
    /// No trusted certificate signed it.
    Untrusted {
        /// Who signed it, as the certificate says.
        issuer: String,
    },
    /// It is past its end.
    Expired {
        /// Its end, in UTC; empty when it is a certificate between it and the trusted one.
        until: String,
    },
    /// The trusted certificate that signed it is past its end.
    RootExpired {
        /// Whose it is.
        subject: String,
        /// Its end, in UTC.
        until: String,
    },
    /// Its time has not come.
    NotYetValid {
        /// Its beginning, in UTC; empty when it is a certificate between it and the trusted one.
        from: String,
    },
    /// It is for other names.
    WrongName {
        /// The name that was asked for.
        host: String,
        /// The names that it is for.
        names: Vec<String>,
    },
    /// A list of its issuer revokes it.
    Revoked,
    /// Lists are used, and none is of its issuer.
    NoRevocationList,
    /// The list of its issuer is past its end.
    RevocationListExpired,
    /// It is not made for servers.
    NotForServers,
    /// It is of X.509 version 1.
    Version1,
    /// It is that of a CA, and not among the trusted ones itself.
    OfACa,
    /// Anything else.
    Other(String),
}

impl fmt::Display for CertificateProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Untrusted { issuer } => write!(f, "it was signed by \"{issuer}\""),
            Self::Expired { until } if until.is_empty() => f.write_str("its chain has expired"),
            Self::Expired { until } => write!(f, "it expired on {until}"),
            Self::RootExpired { subject, until } => {
                write!(f, "the trusted certificate of \"{subject}\", which signed it, expired on {until}")
            }
            Self::NotYetValid { from } if from.is_empty() => f.write_str("its chain is not valid yet"),
            Self::NotYetValid { from } => write!(f, "it is valid from {from} on only"),
            Self::WrongName { host, names } if names.is_empty() => {
                write!(f, "it is for no host name at all, and we connect to \"{host}\"")
            }
            Self::WrongName { host, names } => {
                write!(f, "it is for {}, and we connect to \"{host}\"", names.join(", "))
            }
            Self::Revoked => f.write_str("it has been revoked"),
            Self::NoRevocationList => f.write_str("no list of revoked certificates is of its issuer"),
            Self::RevocationListExpired => {
                f.write_str("the list of revoked certificates of its issuer has expired")
            }
            Self::NotForServers => f.write_str("its extended key usage does not include serverAuth"),
            Self::Version1 => {
                f.write_str("it is an X.509 certificate of version 1, which cannot be verified here")
            }
            Self::OfACa => f.write_str("it is the certificate of a CA, not of a server"),
            Self::Other(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for CertificateProblem {}

/// A file that TLS needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsFile {
    /// `sslrootcert`
    Roots,
    /// `sslcrl`, `sslcrldir`
    Revocations,
    /// `sslcert`
    Certificate,
    /// `sslkey`
    Key,
}

impl TlsFile {
    /// The parameter that names it.
    #[must_use]
    pub const fn parameter(self) -> &'static str {
        match self {
            Self::Roots => "sslrootcert",
            Self::Revocations => "sslcrl",
            Self::Certificate => "sslcert",
            Self::Key => "sslkey",
        }
    }
}

impl fmt::Display for TlsFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Roots => "file of trusted certificates",
            Self::Revocations => "list of revoked certificates",
            Self::Certificate => "client certificate",
            Self::Key => "key of the client certificate",
        })
    }
}

/// Why a connection could not be encrypted. `Display` is one line without the cause.
#[derive(Debug)]
#[non_exhaustive]
pub enum TlsProblem {
    /// The server has no TLS, and the settings want it.
    NotOffered,
    /// The server answered the request with an error, which cannot be trusted and is not shown.
    ErrorBeforeHandshake,
    /// Bytes came where only the answer may stand: somebody in between put them there.
    BytesBeforeHandshake,
    /// Verification is wanted and there is nothing to verify with.
    NoRoots {
        /// The file that does not exist, unless there is no home directory to look in.
        path: Option<PathBuf>,
    },
    /// A file cannot be read.
    FileUnreadable {
        /// Which.
        file: TlsFile,
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file does not hold what it should.
    FileUseless {
        /// Which.
        file: TlsFile,
        /// Where.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// There is a client certificate and no key for it.
    KeyMissing {
        /// The certificate.
        certificate: PathBuf,
        /// Where the key should be.
        key: PathBuf,
    },
    /// Others may read the key.
    KeyExposed {
        /// The key.
        path: PathBuf,
    },
    /// The key is protected by a passphrase.
    KeyEncrypted {
        /// The key.
        path: PathBuf,
    },
    /// The server's certificate is not taken.
    Certificate {
        /// Why not.
        problem: CertificateProblem,
        /// What was trusted: a file, or what the system trusts.
        trusted: String,
    },
    /// The server ended the handshake, with this alert of TLS.
    Alert {
        /// Its name in the standard.
        alert: String,
        /// Whether it is about the client certificate: missing, unknown, expired.
        about_our_certificate: bool,
    },
    /// `sslnegotiation=direct`, and what answered did not say that it speaks PostgreSQL's protocol.
    NotDirect,
    /// `sslcertmode=require`, and the server did not ask for a certificate.
    CertificateNotAsked,
    /// The handshake failed.
    Handshake(io::Error),
}

impl TlsProblem {
    /// Sorts the error of a handshake.
    pub(super) fn of_handshake(error: io::Error) -> Self {
        match tls_error(&error) {
            Some(rustls::Error::AlertReceived(alert)) => Self::alert(*alert),
            Some(rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other))) => {
                match other.0.downcast_ref::<super::verify::Rejected>() {
                    Some(rejected) => Self::Certificate {
                        problem: rejected.problem.clone(),
                        trusted: rejected.trusted.clone(),
                    },
                    None => Self::Handshake(error),
                }
            }
            _ => Self::Handshake(error),
        }
    }

    /// Whether the network may have been at fault.
    pub(in super::super) fn may_pass(&self) -> bool {
        match self {
            Self::Handshake(error) => tls_error(error).is_none(),
            Self::ErrorBeforeHandshake => true,
            _ => false,
        }
    }

    fn alert(alert: rustls::AlertDescription) -> Self {
        use rustls::AlertDescription as Alert;
        let about_our_certificate = matches!(
            alert,
            Alert::UnknownCA
                | Alert::CertificateRequired
                | Alert::BadCertificate
                | Alert::CertificateExpired
                | Alert::CertificateRevoked
                | Alert::CertificateUnknown
                | Alert::UnsupportedCertificate
                | Alert::NoCertificate
        );
        Self::Alert { alert: format!("{alert:?}"), about_our_certificate }
    }

    /// The alert by which the server ended an encrypted connection, if `error` is one: with TLS 1.3 it learns of the
    /// client certificate only after the handshake.
    #[must_use]
    pub(in super::super) fn of_alert(error: &io::Error) -> Option<Self> {
        match tls_error(error) {
            Some(rustls::Error::AlertReceived(alert)) => Some(Self::alert(*alert)),
            _ => None,
        }
    }
}

fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref::<rustls::Error>()
}

impl fmt::Display for TlsProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotOffered => f.write_str("the server does not support TLS, and sslmode wants it"),
            Self::ErrorBeforeHandshake => {
                f.write_str("the server answered the request for TLS with an error")
            }
            Self::BytesBeforeHandshake => f.write_str(
                "unencrypted bytes came after the server's agreement to TLS: somebody is in between",
            ),
            Self::NoRoots { path: Some(path) } => {
                write!(f, "there is no file of trusted certificates \"{}\"", path.display())
            }
            Self::NoRoots { path: None } => f.write_str(
                "no file of trusted certificates is named, and there is no home directory to look in",
            ),
            Self::FileUnreadable { file, path, .. } => {
                write!(f, "the {file} \"{}\" cannot be read", path.display())
            }
            Self::FileUseless { file, path, why } => {
                write!(f, "the {file} \"{}\" cannot be used: {why}", path.display())
            }
            Self::KeyMissing { certificate, key } => write!(
                f,
                "there is a client certificate \"{}\" and no key \"{}\"",
                certificate.display(),
                key.display()
            ),
            Self::KeyExposed { path } => write!(
                f,
                "the key of the client certificate \"{}\" can be read by others than its owner",
                path.display()
            ),
            Self::KeyEncrypted { path } => write!(
                f,
                "the key of the client certificate \"{}\" is protected by a passphrase, which this version cannot use",
                path.display()
            ),
            Self::Certificate { problem, trusted } => match problem {
                CertificateProblem::Untrusted { .. } => {
                    write!(f, "the server's certificate is not trusted: {problem}, which is not in {trusted}")
                }
                _ => write!(f, "the server's certificate is not taken: {problem}"),
            },
            Self::Alert { alert, about_our_certificate: true } => {
                write!(f, "the server did not take the client certificate ({alert})")
            }
            Self::Alert { alert, .. } => write!(f, "the server ended the TLS handshake ({alert})"),
            Self::NotDirect => {
                f.write_str("what answers did not say that it speaks PostgreSQL's protocol over TLS")
            }
            Self::CertificateNotAsked => f.write_str(
                "the server did not ask for a client certificate, and sslcertmode=require wants it to",
            ),
            Self::Handshake(_) => f.write_str("the TLS handshake failed"),
        }
    }
}

impl std::error::Error for TlsProblem {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::FileUnreadable { source, .. } | Self::Handshake(source) => Some(source),
            _ => None,
        }
    }
}

/// Why authentication cannot be bound to the TLS session, or must not go on without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BindingProblem {
    /// It is required, and the connection is not encrypted.
    NoTls,
    /// It is required, and the server signs in without it, by this method.
    Method(&'static str),
    /// The server offers it over a connection that is not encrypted: somebody in between took TLS away.
    OfferedInTheClear,
    /// Nothing to bind to is defined for a certificate with this signature.
    Signature {
        /// The algorithm, or its number.
        algorithm: String,
        /// Whether it was required; if not, the certificate was not verified either.
        required: bool,
    },
}

impl fmt::Display for BindingProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTls => f.write_str("channel_binding=require, and the connection is not encrypted"),
            Self::Method(method) => {
                write!(f, "channel_binding=require, and the server signs in by {method}, which has none")
            }
            Self::OfferedInTheClear => f.write_str(
                "the server offers channel binding over an unencrypted connection: somebody is in between",
            ),
            Self::Signature { algorithm, required: true } => write!(
                f,
                "channel_binding=require, and none is defined for a certificate signed with {algorithm}"
            ),
            Self::Signature { algorithm, required: false } => write!(
                f,
                "no channel binding is defined for a certificate signed with {algorithm}, and the certificate was not \
                 verified"
            ),
        }
    }
}

impl std::error::Error for BindingProblem {}
