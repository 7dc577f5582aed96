//! Who the server is: its chain up to what is trusted, and its name.

use super::certificate::Facts;
use super::files::{self, Trusted};
use super::problem::{CertificateProblem, TlsFile, TlsProblem};
use super::{Roots, SslMode, TlsSettings};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{VerifierBuilderError, WebPkiServerVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
    verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme};
use std::fmt;
use std::sync::Arc;
use x509_cert::der::{Decode, Encode};

/// The verdict on a server's certificate that is carried through rustls.
#[derive(Clone, Debug)]
pub(super) struct Rejected {
    pub problem: CertificateProblem,
    pub trusted: String,
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.problem.fmt(f)
    }
}

impl std::error::Error for Rejected {}

/// Verifies as `sslmode` says.
#[derive(Debug)]
pub(super) struct Verifier {
    chain: Option<Chain>,
    /// The name to be proved, with verify-full.
    host: Option<String>,
    algorithms: WebPkiSupportedAlgorithms,
}

#[derive(Debug)]
struct Chain {
    /// `None` when every certificate of the file is past its end.
    anchored: Option<Arc<WebPkiServerVerifier>>,
    trusted: Trusted,
    /// For people.
    described: String,
}

impl Verifier {
    /// libpq's rule: verify-ca and verify-full need trusted certificates, the other modes use them where the file
    /// exists.
    pub(super) fn new(
        settings: &TlsSettings,
        host: &str,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, TlsProblem> {
        let trusted = match &settings.roots {
            Roots::System => Some((files::system_roots()?, "what the system trusts".to_owned())),
            Roots::File { path, .. } => files::roots(path)?.map(|roots| (roots, path.display().to_string())),
            Roots::NoHome => None,
        };
        let chain = match trusted {
            Some((trusted, described)) => {
                let lists = files::revocations(&settings.revocations)?;
                Some(Chain::new(trusted, described, lists, provider)?)
            }
            None if settings.mode.verifies() => {
                let path = match &settings.roots {
                    Roots::File { path, .. } => Some(path.clone()),
                    _ => None,
                };
                return Err(TlsProblem::NoRoots { path });
            }
            None => None,
        };
        Ok(Self {
            chain,
            host: (settings.mode == SslMode::VerifyFull).then(|| host.to_owned()),
            algorithms: provider.signature_verification_algorithms,
        })
    }

    /// Whether it verifies anything at all.
    pub(super) const fn verifies(&self) -> bool {
        self.chain.is_some()
    }
}

impl Chain {
    fn new(
        mut trusted: Trusted,
        described: String,
        lists: files::Lists,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, TlsProblem> {
        let anchored = if trusted.store.is_empty() {
            None
        } else {
            let store = Arc::new(std::mem::replace(&mut trusted.store, rustls::RootCertStore::empty()));
            let mut builder = WebPkiServerVerifier::builder_with_provider(store, Arc::clone(provider));
            let mut blamed = (TlsFile::Roots, described.as_str().into());
            if let Some((path, lists)) = lists {
                // As OpenSSL with CRL_CHECK and CRL_CHECK_ALL: of every certificate below the trusted one, a list that has
                // not expired must say that it is good. One that signed itself is on nobody's list.
                trusted.themselves.clear();
                builder = builder.with_crls(lists).enforce_revocation_expiration();
                blamed = (TlsFile::Revocations, path);
            }
            let useless = |error: VerifierBuilderError| {
                let (file, path) = blamed;
                TlsProblem::FileUseless { file, path, why: error.to_string() }
            };
            Some(builder.build().map_err(useless)?)
        };
        Ok(Self { anchored, trusted, described })
    }

    fn check(
        &self,
        own: &CertificateDer<'_>,
        facts: Option<&Facts>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), CertificateProblem> {
        let told = |text: fn(&Facts) -> &String| facts.map(|facts| text(facts).clone()).unwrap_or_default();
        // A self-signed certificate that is itself trusted needs no CA.
        if let Some(facts) = facts
            && self.trusted.themselves.iter().any(|trusted| trusted.as_ref() == own.as_ref())
        {
            return match now.as_secs() {
                second if second > facts.not_after => {
                    Err(CertificateProblem::Expired { until: facts.until.clone() })
                }
                second if second < facts.not_before => {
                    Err(CertificateProblem::NotYetValid { from: facts.from.clone() })
                }
                _ => Ok(()),
            };
        }
        if facts.is_some_and(|facts| facts.version1) {
            return Err(CertificateProblem::Version1);
        }
        let untrusted = || {
            let issuer = told(|facts| &facts.issuer);
            match self.trusted.expired.iter().find(|(subject, _)| *subject == issuer) {
                Some((subject, until)) => {
                    CertificateProblem::RootExpired { subject: subject.clone(), until: until.clone() }
                }
                None => CertificateProblem::Untrusted { issuer },
            }
        };
        let Some(anchored) = &self.anchored else { return Err(untrusted()) };
        let Err(error) = anchored.verify_server_cert(own, intermediates, name, &[], now) else {
            return Ok(());
        };
        let Error::InvalidCertificate(error) = error else {
            return Err(CertificateProblem::Other(error.to_string()));
        };
        Err(match error {
            // The chain was good: names are compared after it, and by our own rule.
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                return Ok(());
            }
            CertificateError::UnknownIssuer | CertificateError::BadSignature => untrusted(),
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                let own = facts.is_some_and(|facts| now.as_secs() > facts.not_after);
                let until = if own { told(|facts| &facts.until) } else { String::new() };
                CertificateProblem::Expired { until }
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                let own = facts.is_some_and(|facts| now.as_secs() < facts.not_before);
                let from = if own { told(|facts| &facts.from) } else { String::new() };
                CertificateProblem::NotYetValid { from }
            }
            CertificateError::Revoked => CertificateProblem::Revoked,
            CertificateError::UnknownRevocationStatus => CertificateProblem::NoRevocationList,
            CertificateError::ExpiredRevocationList
            | CertificateError::ExpiredRevocationListContext { .. } => {
                CertificateProblem::RevocationListExpired
            }
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                CertificateProblem::NotForServers
            }
            other => match other.to_string() {
                text if text.contains("CaUsedAsEndEntity") => CertificateProblem::OfACa,
                text => CertificateProblem::Other(text),
            },
        })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        let facts = Facts::of(own);
        let mut verdict = chain.check(own, facts.as_ref(), intermediates, name, now);
        if let (Ok(()), Some(host)) = (&verdict, &self.host)
            && !facts.as_ref().is_some_and(|facts| facts.covers(host))
        {
            let names = facts.map(|facts| facts.told_names()).unwrap_or_default();
            verdict = Err(CertificateProblem::WrongName { host: host.clone(), names });
        }
        verdict.map(|()| ServerCertVerified::assertion()).map_err(|problem| {
            let rejected = Rejected { problem, trusted: chain.described.clone() };
            Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(rejected))))
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms).or_else(|error| {
            // A certificate that webpki cannot read (version 1) has a key all the same. Whether the certificate is
            // taken was decided before.
            let key = x509_cert::Certificate::from_der(certificate)
                .and_then(|parsed| parsed.tbs_certificate().subject_public_key_info().to_der())
                .map_err(|_| error)?;
            verify_tls13_signature_with_raw_key(
                message,
                &SubjectPublicKeyInfoDer::from(key),
                signature,
                &self.algorithms,
            )
        })
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
