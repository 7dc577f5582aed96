//! TLS under the protocol: the request for it, the handshake, and what the other side proves by it.
//!
//! The rules are libpq's (fe-connect.c, fe-secure-openssl.c); the TLS is rustls with aws-lc. Nothing here runs, and
//! no trusted certificate is read, until a server has agreed to TLS.
//!
//! Where rustls differs from OpenSSL, it is stricter, and the error says so:
//! * TLS 1.2 and 1.3 only; RSA keys of 2048 bits and more; no SHA-1 signatures.
//! * A server certificate of X.509 version 1 (what `openssl x509 -req` made without extensions) cannot be verified.
//! * A certificate of a CA is taken for a server's only when it is itself the one that is trusted.
//!
//! A certificate without names in `subjectAltName` is judged by its common name, as libpq does; rustls alone would not.

mod certificate;
mod files;
mod problem;
mod verify;

pub use problem::{BindingProblem, CertificateProblem, TlsFile, TlsProblem};

use super::conninfo::Address;
use super::error::{ClientError, Doing};
use super::message;
pub(super) use certificate::EndPoint;
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::pki_types::ServerName;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, SignatureScheme};
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_rustls::client::TlsStream;

/// SSLRequest: its length and its code.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
/// The name of PostgreSQL's protocol in TLS (ALPN).
const PROTOCOL: &[u8] = b"postgresql";

/// How much of TLS is wanted; libpq's `sslmode`. Never over unix sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SslMode {
    /// Never.
    Disable,
    /// Only where the server refuses without.
    Allow,
    /// Where the server can; the default.
    Prefer,
    /// Or not at all. Verifies as `VerifyCa` where a file of trusted certificates is there, else nothing.
    Require,
    /// The server's certificate must be of a trusted CA.
    VerifyCa,
    /// And be for the name that we connect to.
    VerifyFull,
}

/// One way to speak to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Plain,
    Tls,
}

impl SslMode {
    /// The ways to try, in this order.
    pub(super) const fn ways(self) -> &'static [Way] {
        match self {
            Self::Disable => &[Way::Plain],
            Self::Allow => &[Way::Plain, Way::Tls],
            Self::Prefer => &[Way::Tls, Way::Plain],
            Self::Require | Self::VerifyCa | Self::VerifyFull => &[Way::Tls],
        }
    }

    const fn verifies(self) -> bool {
        matches!(self, Self::VerifyCa | Self::VerifyFull)
    }
}

/// Whether authentication is bound to the TLS session (`channel_binding`), so that nobody in between can pass it on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelBinding {
    /// Never.
    Disable,
    /// Where the server offers it; the default.
    Prefer,
    /// Or not at all: refuses every other authentication.
    Require,
}

/// Whether a client certificate is shown (`sslcertmode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertificateMode {
    /// Never.
    Disable,
    /// When the server asks and there is one; the default.
    Allow,
    /// The server must ask for it.
    Require,
}

/// Whom to trust (`sslrootcert`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Roots {
    /// What the system trusts.
    System,
    /// The certificates in this file.
    File {
        /// The file.
        path: PathBuf,
        /// Whether nobody named it; it is then used where it exists.
        by_default: bool,
    },
    /// Nobody named a file, and there is no home directory to look in.
    NoHome,
}

/// Lists of revoked certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocations {
    /// `sslcrl`
    pub list: Option<PathBuf>,
    /// `sslcrldir`; every file in it is read.
    pub directory: Option<PathBuf>,
    /// `~/.postgresql/root.crl`, used where it exists and the two above are not set.
    pub by_default: Option<PathBuf>,
}

/// Versions of TLS, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// 1.0 and 1.1, which are never spoken.
    Older,
    /// 1.2
    Tls12,
    /// 1.3
    Tls13,
}

/// Everything that the `ssl…` parameters and `channel_binding` say. Holds paths, no secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    /// `sslmode`
    pub mode: SslMode,
    /// `channel_binding`
    pub channel_binding: ChannelBinding,
    /// `sslrootcert`
    pub roots: Roots,
    /// `sslcrl` and `sslcrldir`
    pub revocations: Revocations,
    /// `sslcert`; shown where it exists.
    pub certificate: Option<PathBuf>,
    /// `sslkey`
    pub key: Option<PathBuf>,
    /// `sslcertmode`
    pub certificate_mode: ClientCertificateMode,
    /// `sslsni`: whether the name is told to the server, readable for the network.
    pub send_server_name: bool,
    /// `sslnegotiation=direct`: begin with TLS at once (PostgreSQL 17 and later).
    pub direct: bool,
    /// `ssl_min_protocol_version`
    pub oldest: TlsVersion,
    /// `ssl_max_protocol_version`
    pub newest: TlsVersion,
}

/// The stream of an encrypted connection. rustls reads 4 KiB at a time; a larger buffer below it was measured and changed
/// nothing.
pub(super) type Encrypted = TlsStream<tokio::net::TcpStream>;

/// What is needed to open an encrypted connection to one server, also a second one for a cancel request.
#[derive(Clone)]
pub(super) struct Dial {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    direct: bool,
    verifies: bool,
    asked: Option<Arc<AsksNoted>>,
}

/// What an encrypted connection proved about the server.
#[derive(Clone, Debug)]
pub(super) struct Session {
    /// What SCRAM binds to.
    pub end_point: EndPoint,
    /// Whether the certificate was verified.
    pub verified: bool,
}

/// What the server says to a request for TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It begins the handshake.
    Willing,
    /// It has none; the connection goes on in the clear.
    None,
}

impl Dial {
    /// Reads the files that `settings` name.
    ///
    /// # Errors
    /// When one that is needed is missing or cannot be used.
    pub(super) fn new(settings: &TlsSettings, host: &str) -> Result<Self, TlsProblem> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let versions: Vec<_> =
            [(TlsVersion::Tls12, &rustls::version::TLS12), (TlsVersion::Tls13, &rustls::version::TLS13)]
                .into_iter()
                .filter(|(version, _)| (settings.oldest..=settings.newest).contains(version))
                .map(|(_, version)| version)
                .collect();
        let verifier = verify::Verifier::new(settings, host, &provider)?;
        let verifies = verifier.verifies();
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&versions)
            .map_err(|error| TlsProblem::Handshake(io::Error::other(error)))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let identity = match settings.certificate_mode {
            ClientCertificateMode::Disable => None,
            _ => files::identity(settings, &provider)?,
        };
        let asked = (identity.is_some() || settings.certificate_mode == ClientCertificateMode::Require)
            .then(|| Arc::new(AsksNoted { asked: AtomicBool::new(false), identity }));
        let mut config = match &asked {
            Some(resolver) => builder.with_client_cert_resolver(Arc::clone(resolver) as _),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        config.enable_sni = settings.send_server_name;
        // Each connection is one session; the server gives no tickets either.
        config.resumption = Resumption::disabled();
        // An address, or a name that cannot be one in TLS, is not told to the server; the verifier has its own copy.
        let name = ServerName::try_from(host.to_owned())
            .unwrap_or(ServerName::IpAddress(IpAddr::from([0, 0, 0, 0]).into()));
        let must_ask = settings.certificate_mode == ClientCertificateMode::Require;
        Ok(Self {
            config: Arc::new(config),
            name,
            direct: settings.direct,
            verifies,
            asked: asked.filter(|_| must_ask),
        })
    }

    /// Makes `stream`, on which [`request`] has succeeded (or nothing was said, when it is direct), an encrypted one.
    ///
    /// # Errors
    /// When the handshake fails; the server's certificate is part of it.
    pub(super) async fn handshake(
        &self,
        stream: tokio::net::TcpStream,
    ) -> Result<(Encrypted, Session), TlsProblem> {
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(&self.config));
        let stream = connector.connect(self.name.clone(), stream).await.map_err(TlsProblem::of_handshake)?;
        let connection = stream.get_ref().1;
        if self.direct && connection.alpn_protocol() != Some(PROTOCOL) {
            return Err(TlsProblem::NotDirect);
        }
        if self.asked.as_ref().is_some_and(|noted| !noted.asked.load(Ordering::Relaxed)) {
            return Err(TlsProblem::CertificateNotAsked);
        }
        let own = connection.peer_certificates().and_then(<[_]>::first);
        let end_point = own.map_or(EndPoint::Unknown(None), |own| certificate::end_point(own));
        Ok((stream, Session { end_point, verified: self.verifies }))
    }

    /// Sends `message` over an encrypted connection of its own and waits for its end, without a runtime.
    ///
    /// # Errors
    /// When TLS is refused or fails; `message` was not sent then.
    pub(super) fn send_blocking(&self, mut stream: std::net::TcpStream, message: &[u8]) -> io::Result<()> {
        use std::io::{Read, Write};
        if !self.direct {
            stream.write_all(&SSL_REQUEST)?;
            let mut answer = [0; 1];
            stream.read_exact(&mut answer)?;
            if answer != *b"S" {
                return Err(io::Error::other("the server does not take a cancel request over TLS"));
            }
        }
        let mut connection = rustls::ClientConnection::new(Arc::clone(&self.config), self.name.clone())
            .map_err(io::Error::other)?;
        let mut stream = rustls::Stream::new(&mut connection, &mut stream);
        stream.write_all(message)?;
        stream.flush()?;
        // The server closes once the signal is sent, with or without a farewell.
        match stream.read(&mut [0]) {
            Ok(_) => Ok(()),
            Err(error)
                if matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof) =>
            {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

/// Asks for TLS and reads the one byte of the answer.
///
/// Bytes behind it are refused: somebody on the way could have put them there, to be read as if they had come
/// encrypted (CVE-2021-23222).
///
/// # Errors
/// When the server answers neither yes nor no, or closes.
pub(super) async fn request<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    at: &Address,
) -> Result<Answer, ClientError> {
    let lost = |source| ClientError::ConnectionLost { doing: Doing::AskingForTls, source };
    stream.write_all(&SSL_REQUEST).await.map_err(|error| lost(Some(error)))?;
    stream.flush().await.map_err(|error| lost(Some(error)))?;
    let mut answer = [0; 64];
    let length = stream.read(&mut answer).await.map_err(|error| lost(Some(error)))?;
    let problem = |problem| Err(ClientError::Tls { at: at.clone(), problem: Box::new(problem) });
    match answer.get(..length).unwrap_or_default() {
        [] => Err(lost(None)),
        [b'S'] => Ok(Answer::Willing),
        [b'N'] => Ok(Answer::None),
        [b'S' | b'N', ..] => problem(TlsProblem::BytesBeforeHandshake),
        // Anybody on the way could have written its text (CVE-2024-10977): it is not shown.
        [b'E', ..] => problem(TlsProblem::ErrorBeforeHandshake),
        other => Err(ClientError::NotPostgres { at: at.clone(), answer: message::printable_line(other) }),
    }
}

/// Shows the client certificate, if there is one, and remembers whether it was asked for.
#[derive(Debug)]
struct AsksNoted {
    asked: AtomicBool,
    identity: Option<Arc<CertifiedKey>>,
}

impl ResolvesClientCert for AsksNoted {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.asked.store(true, Ordering::Relaxed);
        self.identity.clone()
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests;
