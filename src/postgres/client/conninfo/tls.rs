//! What the `ssl…` parameters and `channel_binding` ask for, with libpq's defaults.

use super::super::tls::{
    ChannelBinding, ClientCertificateMode, Revocations, Roots, SslMode, TlsSettings, TlsVersion,
};
use super::ConninfoError;
use std::path::{Path, PathBuf};

/// libpq's directory for the files of TLS, below the home directory (fe-secure-openssl.c).
const DIRECTORY: &str = ".postgresql";

/// Reads the settings of TLS. `home` is the home directory, where there is one.
///
/// # Errors
/// When a value is none of those that libpq knows, or two exclude each other.
pub(super) fn settings<'a>(
    get: &impl Fn(&str) -> Option<&'a str>,
    home: Option<&Path>,
    require_by_old_variable: bool,
) -> Result<TlsSettings, ConninfoError> {
    let default = |name: &str| home.map(|home| home.join(DIRECTORY).join(name));
    let roots = match get("sslrootcert") {
        Some("system") => Roots::System,
        Some(file) => Roots::File { path: file.into(), by_default: false },
        None => match default("root.crt") {
            Some(path) => Roots::File { path, by_default: true },
            None => Roots::NoHome,
        },
    };
    let mode = match get("sslmode") {
        None if roots == Roots::System => SslMode::VerifyFull,
        None if require_by_old_variable => SslMode::Require,
        None | Some("prefer") => SslMode::Prefer,
        Some("disable") => SslMode::Disable,
        Some("allow") => SslMode::Allow,
        Some("require") => SslMode::Require,
        Some("verify-ca") => SslMode::VerifyCa,
        Some("verify-full") => SslMode::VerifyFull,
        Some(_) => {
            return bad("sslmode", "disable, allow, prefer, require, verify-ca or verify-full");
        }
    };
    if roots == Roots::System && mode != SslMode::VerifyFull {
        // Anybody can have a certificate of a public CA.
        return Err(ConninfoError::Contradiction("sslrootcert=system needs sslmode=verify-full"));
    }
    let direct = match get("sslnegotiation") {
        None | Some("postgres") => false,
        Some("direct") => true,
        Some(_) => return bad("sslnegotiation", "postgres or direct"),
    };
    if direct && matches!(mode, SslMode::Disable | SslMode::Allow | SslMode::Prefer) {
        return Err(ConninfoError::Contradiction(
            "sslnegotiation=direct needs sslmode=require, verify-ca or verify-full",
        ));
    }
    let (list, directory) = (get("sslcrl").map(PathBuf::from), get("sslcrldir").map(PathBuf::from));
    let oldest = version(get("ssl_min_protocol_version"), "ssl_min_protocol_version")?;
    let newest = version(get("ssl_max_protocol_version"), "ssl_max_protocol_version")?;
    if newest.is_some_and(|newest| newest < TlsVersion::Tls12) {
        return Err(ConninfoError::CannotYet {
            setting: "ssl_max_protocol_version".to_owned(),
            what: "speak TLS 1.1 and older, which are not safe,",
        });
    }
    if oldest.zip(newest).is_some_and(|(oldest, newest)| oldest > newest) {
        return Err(ConninfoError::Contradiction(
            "ssl_min_protocol_version is above ssl_max_protocol_version",
        ));
    }
    Ok(TlsSettings {
        mode,
        channel_binding: match get("channel_binding") {
            None | Some("prefer") => ChannelBinding::Prefer,
            Some("disable") => ChannelBinding::Disable,
            Some("require") => ChannelBinding::Require,
            Some(_) => return bad("channel_binding", "disable, prefer or require"),
        },
        roots,
        revocations: Revocations {
            by_default: if list.is_none() && directory.is_none() { default("root.crl") } else { None },
            list,
            directory,
        },
        certificate: get("sslcert").map(PathBuf::from).or_else(|| default("postgresql.crt")),
        key: get("sslkey").map(PathBuf::from).or_else(|| default("postgresql.key")),
        certificate_mode: match get("sslcertmode") {
            None | Some("allow") => ClientCertificateMode::Allow,
            Some("disable") => ClientCertificateMode::Disable,
            Some("require") => ClientCertificateMode::Require,
            Some(_) => return bad("sslcertmode", "disable, allow or require"),
        },
        send_server_name: match get("sslsni") {
            None | Some("1") => true,
            Some("0") => false,
            Some(_) => return bad("sslsni", "0 or 1"),
        },
        direct,
        oldest: oldest.unwrap_or(TlsVersion::Tls12).max(TlsVersion::Tls12),
        newest: newest.unwrap_or(TlsVersion::Tls13),
    })
}

fn bad<T>(keyword: &str, wanted: &'static str) -> Result<T, ConninfoError> {
    Err(ConninfoError::BadValue { keyword: keyword.to_owned(), wanted })
}

/// libpq takes these in any case.
fn version(text: Option<&str>, keyword: &str) -> Result<Option<TlsVersion>, ConninfoError> {
    match text.map(str::to_ascii_lowercase).as_deref() {
        None => Ok(None),
        Some("tlsv1" | "tlsv1.1") => Ok(Some(TlsVersion::Older)),
        Some("tlsv1.2") => Ok(Some(TlsVersion::Tls12)),
        Some("tlsv1.3") => Ok(Some(TlsVersion::Tls13)),
        Some(_) => bad(keyword, "TLSv1, TLSv1.1, TLSv1.2 or TLSv1.3"),
    }
}
