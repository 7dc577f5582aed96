//! What a certificate says: names, validity, and what SCRAM binds to.

use sha2::Digest;
use std::net::IpAddr;
use x509_cert::certificate::Version;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Decode, Reader, TagMode, TagNumber};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::spki::AlgorithmIdentifierRef;
use x509_cert::time::Time;

/// `tls-server-end-point` of RFC 5929: a hash of the server's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum EndPoint {
    /// The hash.
    Hash(Vec<u8>),
    /// None is defined for this signature algorithm, or the certificate cannot be read.
    Unknown(Option<String>),
}

/// The hash that SCRAM-SHA-256-PLUS binds to (libpq's `pgtls_get_peer_certificate_hash`): with the hash of the
/// certificate's own signature, SHA-256 instead of MD5 and SHA-1.
pub(super) fn end_point(certificate: &[u8]) -> EndPoint {
    let Ok(parsed) = x509_cert::Certificate::from_der(certificate) else { return EndPoint::Unknown(None) };
    let algorithm = parsed.signature_algorithm();
    let mut number = algorithm.oid.to_string();
    if number == RSA_PSS {
        let hash = algorithm
            .parameters
            .as_ref()
            .map_or(Ok(SHA1), |parameters| pss_hash(x509_cert::der::asn1::AnyRef::from(parameters)));
        match hash {
            Ok(hash) => number = hash.to_string(),
            Err(_) => return EndPoint::Unknown(Some("RSA-PSS of an unknown form".to_owned())),
        }
    }
    match number.as_str() {
        // MD5 and SHA-1 with RSA, DSA, ECDSA; the hashes themselves.
        "1.2.840.113549.1.1.4" | "1.2.840.113549.1.1.5" | "1.2.840.10040.4.3" | "1.2.840.10045.4.1"
        | "1.3.14.3.2.26" | "1.2.840.113549.2.5"
        // SHA-256
        | "1.2.840.113549.1.1.11" | "1.2.840.10045.4.3.2" | "2.16.840.1.101.3.4.3.2"
        | "2.16.840.1.101.3.4.2.1" => EndPoint::Hash(sha2::Sha256::digest(certificate).to_vec()),
        // SHA-384
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" | "2.16.840.1.101.3.4.2.2" => {
            EndPoint::Hash(sha2::Sha384::digest(certificate).to_vec())
        }
        // SHA-512
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" | "2.16.840.1.101.3.4.2.3" => {
            EndPoint::Hash(sha2::Sha512::digest(certificate).to_vec())
        }
        // SHA-224
        "1.2.840.113549.1.1.14" | "1.2.840.10045.4.3.1" | "2.16.840.1.101.3.4.2.4" => {
            EndPoint::Hash(sha2::Sha224::digest(certificate).to_vec())
        }
        "1.3.101.112" => EndPoint::Unknown(Some("Ed25519".to_owned())),
        "1.3.101.113" => EndPoint::Unknown(Some("Ed448".to_owned())),
        other => EndPoint::Unknown(Some(format!("algorithm {other}"))),
    }
}

const RSA_PSS: &str = "1.2.840.113549.1.1.10";
const SHA1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.14.3.2.26");

/// The hash in RSASSA-PSS-params (RFC 4055): field 0, SHA-1 when it is left out.
fn pss_hash(parameters: x509_cert::der::asn1::AnyRef<'_>) -> Result<ObjectIdentifier, x509_cert::der::Error> {
    parameters.sequence(|reader| {
        let hash = reader.context_specific::<AlgorithmIdentifierRef<'_>>(TagNumber(0), TagMode::Explicit)?;
        // The mask, the salt's length and the trailer do not matter here.
        let rest = reader.remaining_len();
        reader.read_slice(rest)?;
        Ok::<_, x509_cert::der::Error>(hash.map_or(SHA1, |hash| hash.oid))
    })
}

/// What a certificate is for, as far as words and the comparison of names need it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    pub version1: bool,
    pub subject: String,
    pub issuer: String,
    /// In UTC, for people.
    pub from: String,
    pub until: String,
    /// Seconds since 1970.
    pub not_before: u64,
    pub not_after: u64,
    names: Vec<String>,
    addresses: Vec<IpAddr>,
    common_name: Option<String>,
}

impl Facts {
    /// `None` when the certificate cannot be read.
    pub(super) fn of(certificate: &[u8]) -> Option<Self> {
        let parsed = x509_cert::Certificate::from_der(certificate).ok()?;
        let content = parsed.tbs_certificate();
        let mut facts = Self {
            version1: content.version() == Version::V1,
            subject: printable(&content.subject().to_string()),
            issuer: printable(&content.issuer().to_string()),
            from: time(&content.validity().not_before),
            until: time(&content.validity().not_after),
            not_before: content.validity().not_before.to_unix_duration().as_secs(),
            not_after: content.validity().not_after.to_unix_duration().as_secs(),
            common_name: content.subject().common_name().ok().flatten().map(|name| name.value().into_owned()),
            ..Self::default()
        };
        let names = content.get_extension::<SubjectAltName>().ok()?;
        for name in names.map(|(_, names)| names.0).unwrap_or_default() {
            match name {
                GeneralName::DnsName(name) => facts.names.push(name.as_str().to_owned()),
                GeneralName::IpAddress(bytes) => facts.addresses.extend(address(bytes.as_bytes())),
                _ => {}
            }
        }
        Some(facts)
    }

    /// Whether it was signed with its own key, as far as the names tell.
    pub(super) fn is_self_signed(&self) -> bool {
        self.subject == self.issuer
    }

    /// Whether it is for `host`, a name or an address, by libpq's rules
    /// (fe-secure-openssl.c, `pgtls_verify_peer_name_matches_certificate_guts`): the common name counts only where
    /// `subjectAltName` has no entry of the host's kind.
    pub(super) fn covers(&self, host: &str) -> bool {
        let by_name = self.names.iter().any(|pattern| covers(pattern, host));
        let (by_address, has_kind) = match host.parse::<IpAddr>() {
            Ok(address) => (self.addresses.contains(&address), !self.addresses.is_empty()),
            Err(_) => (false, !self.names.is_empty()),
        };
        by_name
            || by_address
            || (!has_kind && self.common_name.as_deref().is_some_and(|pattern| covers(pattern, host)))
    }

    /// The names that it is for, quoted, for people.
    pub(super) fn told_names(&self) -> Vec<String> {
        /// A certificate may hold thousands.
        const MOST: usize = 8;
        let common = self.names.is_empty() && self.addresses.is_empty();
        let all = self
            .names
            .iter()
            .cloned()
            .chain(self.addresses.iter().map(ToString::to_string))
            .chain(self.common_name.clone().filter(|_| common));
        let mut told: Vec<String> = all.map(|name| format!("\"{}\"", printable(&name))).collect();
        if told.len() > MOST {
            let more = told.len() - MOST;
            told.truncate(MOST);
            told.push(format!("{more} more"));
        }
        told
    }
}

/// libpq's `pq_verify_peer_name_matches_certificate_name`: equal but for case, or a wildcard for exactly the leftmost
/// label.
fn covers(pattern: &str, host: &str) -> bool {
    if host.is_empty() {
        return false;
    }
    if pattern.eq_ignore_ascii_case(host) {
        return true;
    }
    let Some(suffix) = pattern.strip_prefix('*').filter(|suffix| suffix.starts_with('.')) else {
        return false;
    };
    // An address is no name with labels.
    if host.parse::<IpAddr>().is_ok() {
        return false;
    }
    match host.split_once('.') {
        Some((label, rest)) => !label.is_empty() && suffix[1..].eq_ignore_ascii_case(rest),
        None => false,
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

fn time(time: &Time) -> String {
    time.to_string().replace('T', " ").replace('Z', " UTC")
}

/// Names come from whoever made the certificate.
fn printable(text: &str) -> String {
    text.chars().take(200).map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_compared_as_libpq_compares_them() {
        for (pattern, host, wanted) in [
            ("db1.example.com", "DB1.example.COM", true),
            ("db1.example.com", "db2.example.com", false),
            ("*.example.com", "db1.example.com", true),
            ("*.example.com", "a.db1.example.com", false),
            ("*.example.com", "example.com", false),
            ("*.example.com", ".example.com", false),
            ("*", "db1", false),
            ("d*.example.com", "db1.example.com", false),
            ("*.0.0.1", "127.0.0.1", false),
            ("127.0.0.1", "127.0.0.1", true),
            ("", "", false),
        ] {
            assert_eq!(covers(pattern, host), wanted, "{pattern} {host}");
        }
    }

    #[test]
    fn the_common_name_counts_where_there_is_no_name_of_the_hosts_kind() {
        let facts = |names: &[&str], addresses: &[&str]| Facts {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            common_name: Some("db1".to_owned()),
            ..Facts::default()
        };
        assert!(facts(&[], &[]).covers("db1"));
        assert!(!facts(&["db2"], &[]).covers("db1"));
        assert!(facts(&[], &["10.0.0.1"]).covers("db1"));
        assert!(facts(&["db2"], &["10.0.0.1"]).covers("10.0.0.1"));
        assert!(!facts(&[], &["::1"]).covers("10.0.0.1"));
        assert!(facts(&["10.0.0.1"], &[]).covers("10.0.0.1"));
        assert_eq!(facts(&[], &[]).told_names(), ["\"db1\""]);
        assert_eq!(facts(&["a"], &["::1"]).told_names(), ["\"a\"", "\"::1\""]);
        assert_eq!(facts(&["a"; 20], &[]).told_names().last().unwrap(), "12 more");
    }

    proptest! {
        #[test]
        fn no_certificate_makes_it_panic(bytes: Vec<u8>) {
            let _ = Facts::of(&bytes);
            let _ = end_point(&bytes);
        }

        #[test]
        fn no_name_makes_it_panic(pattern in "\\PC{0,12}", host in "\\PC{0,12}") {
            let _ = covers(&pattern, &host);
            let _ = covers(&format!("*.{pattern}"), &host);
        }
    }
}
