//! The files of TLS: whom to trust, whom no longer, and who we are.

use super::certificate::Facts;
use super::problem::{TlsFile, TlsProblem};
use super::{Revocations, TlsSettings};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{Error, RootCertStore};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use zeroize::Zeroizing;

/// The longest file that is read; the certificates that a system trusts are a quarter of a megabyte.
const LONGEST_FILE: u64 = 16 << 20;
/// The most files of `sslcrldir` that are read.
const MOST_LISTS: usize = 1024;

/// Lists of revoked certificates, and where they are from; `None` when there are none to go by.
pub(super) type Lists = Option<(PathBuf, Vec<CertificateRevocationListDer<'static>>)>;

/// Certificates to trust.
#[derive(Debug)]
pub(super) struct Trusted {
    /// Those that may sign others.
    pub store: RootCertStore,
    /// Self-signed ones, which a server may show as its own.
    pub themselves: Vec<CertificateDer<'static>>,
    /// Subject and end of those that are past it; rustls does not look at that.
    pub expired: Vec<(String, String)>,
}

fn read(file: TlsFile, path: &Path) -> Result<Zeroizing<Vec<u8>>, TlsProblem> {
    let mut contents = Zeroizing::new(Vec::new());
    let unreadable = |source: io::Error| TlsProblem::FileUnreadable { file, path: path.to_owned(), source };
    let opened = std::fs::File::open(path).map_err(unreadable)?;
    opened.take(LONGEST_FILE).read_to_end(&mut contents).map_err(unreadable)?;
    Ok(contents)
}

fn useless(file: TlsFile, path: &Path, why: impl Into<String>) -> TlsProblem {
    TlsProblem::FileUseless { file, path: path.to_owned(), why: why.into() }
}

/// The trusted certificates in the file at `path`; `None` when there is no such file.
pub(super) fn roots(path: &Path) -> Result<Option<Trusted>, TlsProblem> {
    if let Err(source) = std::fs::metadata(path) {
        return match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Ok(None),
            _ => Err(TlsProblem::FileUnreadable { file: TlsFile::Roots, path: path.to_owned(), source }),
        };
    }
    let contents = read(TlsFile::Roots, path)?;
    let now = UnixTime::now().as_secs();
    let mut trusted = Trusted { store: RootCertStore::empty(), themselves: Vec::new(), expired: Vec::new() };
    let mut why = "it holds no certificate in PEM form".to_owned();
    for certificate in CertificateDer::pem_slice_iter(&contents) {
        let certificate = certificate.map_err(|error| useless(TlsFile::Roots, path, error.to_string()))?;
        let facts = Facts::of(&certificate);
        if let Some(facts) = facts.as_ref().filter(|facts| facts.not_after < now) {
            trusted.expired.push((facts.subject.clone(), facts.until.clone()));
            // Shown by the server itself, it is named as what has expired there.
            if facts.is_self_signed() {
                trusted.themselves.push(certificate);
            }
            continue;
        }
        if facts.is_some_and(|facts| facts.is_self_signed()) {
            trusted.themselves.push(certificate.clone());
        }
        if let Err(error) = trusted.store.add(certificate) {
            why = error.to_string();
        }
    }
    if trusted.store.is_empty() && trusted.expired.is_empty() && trusted.themselves.is_empty() {
        return Err(useless(TlsFile::Roots, path, why));
    }
    Ok(Some(trusted))
}

/// What the system trusts (`SSL_CERT_FILE` and `SSL_CERT_DIR` included, as OpenSSL takes them).
pub(super) fn system_roots() -> Result<Trusted, TlsProblem> {
    let found = rustls_native_certs::load_native_certs();
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(found.certs);
    if store.is_empty() {
        let why = match found.errors.first() {
            Some(error) => error.to_string(),
            None => "the system has none; Debian's package is ca-certificates".to_owned(),
        };
        return Err(useless(TlsFile::Roots, Path::new("system"), why));
    }
    Ok(Trusted { store, themselves: Vec::new(), expired: Vec::new() })
}

/// The lists to go by. One that is named must be there and hold something; libpq would go on without it.
pub(super) fn revocations(settings: &Revocations) -> Result<Lists, TlsProblem> {
    let mut lists = Vec::new();
    let mut from = None;
    let mut add = |path: &Path| -> Result<usize, TlsProblem> {
        let contents = read(TlsFile::Revocations, path)?;
        let before = lists.len();
        for list in CertificateRevocationListDer::pem_slice_iter(&contents) {
            lists.push(list.map_err(|error| useless(TlsFile::Revocations, path, error.to_string()))?);
        }
        Ok(lists.len() - before)
    };
    const NOTHING: &str = "it holds no list of revoked certificates in PEM form";
    if let Some(path) = &settings.list {
        if add(path)? == 0 {
            return Err(useless(TlsFile::Revocations, path, NOTHING));
        }
        from = Some(path.clone());
    }
    if let Some(directory) = &settings.directory {
        let unreadable = |source| TlsProblem::FileUnreadable {
            file: TlsFile::Revocations,
            path: directory.clone(),
            source,
        };
        let mut found = 0;
        for entry in std::fs::read_dir(directory).map_err(unreadable)?.take(MOST_LISTS) {
            let path = entry.map_err(unreadable)?.path();
            if path.is_file() {
                found += add(&path)?;
            }
        }
        if found == 0 {
            return Err(useless(TlsFile::Revocations, directory, NOTHING));
        }
        from.get_or_insert_with(|| directory.clone());
    }
    if let Some(path) = settings.by_default.as_ref().filter(|path| path.exists())
        && add(path)? > 0
    {
        from = Some(path.clone());
    }
    Ok(from.map(|from| (from, lists)))
}

/// The client certificate and its key; `None` where there is no certificate, which is the usual case.
pub(super) fn identity(
    settings: &TlsSettings,
    provider: &CryptoProvider,
) -> Result<Option<Arc<CertifiedKey>>, TlsProblem> {
    let Some(path) = &settings.certificate else { return Ok(None) };
    match std::fs::metadata(path) {
        Ok(_) => {}
        // As libpq: the server decides whether it wants one.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(source) => {
            return Err(TlsProblem::FileUnreadable {
                file: TlsFile::Certificate,
                path: path.clone(),
                source,
            });
        }
    }
    let contents = read(TlsFile::Certificate, path)?;
    let chain = CertificateDer::pem_slice_iter(&contents)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| useless(TlsFile::Certificate, path, error.to_string()))?;
    if chain.is_empty() {
        return Err(useless(TlsFile::Certificate, path, "it holds no certificate in PEM form"));
    }
    let key_path = settings.key.clone().unwrap_or_default();
    let key = key(&key_path, path)?;
    let identity = CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
        Error::InconsistentKeys(_) => {
            useless(TlsFile::Key, &key_path, format!("it does not belong to {}", path.display()))
        }
        error => useless(TlsFile::Key, &key_path, error.to_string()),
    })?;
    Ok(Some(Arc::new(identity)))
}

/// The key at `path`, by libpq's rules of who else may read it.
fn key(path: &Path, certificate: &Path) -> Result<PrivateKeyDer<'static>, TlsProblem> {
    let meta = match std::fs::metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(TlsProblem::KeyMissing { certificate: certificate.to_owned(), key: path.to_owned() });
        }
        Err(source) => {
            return Err(TlsProblem::FileUnreadable { file: TlsFile::Key, path: path.to_owned(), source });
        }
    };
    if !meta.is_file() {
        return Err(useless(TlsFile::Key, path, "it is not a plain file"));
    }
    // A key of root's may be shared with a group; anybody else's is its owner's alone.
    let closed = if meta.uid() == 0 { 0o037 } else { 0o077 };
    if meta.mode() & closed != 0 {
        return Err(TlsProblem::KeyExposed { path: path.to_owned() });
    }
    let contents = read(TlsFile::Key, path)?;
    let holds = |text: &[u8]| contents.windows(text.len()).any(|window| window == text);
    if holds(b"-----BEGIN ENCRYPTED PRIVATE KEY") || holds(b"Proc-Type: 4,ENCRYPTED") {
        return Err(TlsProblem::KeyEncrypted { path: path.to_owned() });
    }
    if holds(b"-----BEGIN ") {
        PrivateKeyDer::from_pem_slice(&contents)
            .map_err(|error| useless(TlsFile::Key, path, error.to_string()))
    } else {
        PrivateKeyDer::try_from(contents.to_vec()).map_err(|why| useless(TlsFile::Key, path, why))
    }
}
