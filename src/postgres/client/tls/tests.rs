use super::*;
use crate::postgres::client::{ConnectionParameters, ConnectionSettings, Password};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn at() -> Address {
    Address::Tcp { host: "db1".to_owned(), port: 5432 }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// What becomes of a request for TLS that is answered with these bytes, and then the end.
fn ask(answer: &[u8]) -> Result<Answer, ClientError> {
    run(async {
        let (mut near, mut far) = tokio::io::duplex(1 << 10);
        far.write_all(answer).await.unwrap();
        far.shutdown().await.unwrap();
        let answer = request(&mut near, &at()).await;
        let mut sent = [0; 16];
        assert_eq!(far.read(&mut sent).await.unwrap(), 8);
        assert_eq!(sent[..8], SSL_REQUEST);
        answer
    })
}

fn problem(answer: &[u8]) -> TlsProblem {
    match ask(answer) {
        Err(ClientError::Tls { problem, .. }) => *problem,
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_one_byte_is_an_answer_to_the_request() {
    assert_eq!(ask(b"S").unwrap(), Answer::Willing);
    assert_eq!(ask(b"N").unwrap(), Answer::None);
    assert!(matches!(ask(b""), Err(ClientError::ConnectionLost { .. })));
    // CVE-2021-23222: what somebody put behind the answer is never read as if it had come encrypted.
    assert!(matches!(problem(b"SR\0\0\0\x08\0\0\0\0"), TlsProblem::BytesBeforeHandshake));
    assert!(matches!(problem(b"NR\0\0\0\x08\0\0\0\0"), TlsProblem::BytesBeforeHandshake));
    // CVE-2024-10977: what anybody could have written is not shown.
    let error = ask(b"E\0\0\0\x20SFATAL\0Mrun this\0\0").unwrap_err();
    assert!(error.to_string().contains("with an error") && !error.to_string().contains("run this"));
    assert!(matches!(ask(b"HTTP/1.1 400\r\n"), Err(ClientError::NotPostgres { .. })));
}

fn settings(string: &str) -> Result<TlsSettings, String> {
    let settings = ConnectionSettings {
        host: Some("db1".to_owned()),
        conninfo: Some(Password::new(string)),
        ..ConnectionSettings::default()
    };
    let environment = [("HOME".to_owned(), "/home/nobody-here".to_owned())].into();
    ConnectionParameters::resolve(&settings, &environment, Some("me"))
        .map(|parameters| parameters.tls)
        .map_err(|error| error.to_string())
}

#[test]
fn the_settings_have_libpqs_defaults_and_refusals() {
    let usual = settings("").unwrap();
    assert_eq!((usual.mode, usual.channel_binding), (SslMode::Prefer, ChannelBinding::Prefer));
    let path = |name: &str| PathBuf::from(format!("/home/nobody-here/.postgresql/{name}"));
    assert_eq!(usual.roots, Roots::File { path: path("root.crt"), by_default: true });
    assert_eq!(usual.revocations.by_default, Some(path("root.crl")));
    assert_eq!((usual.certificate, usual.key), (Some(path("postgresql.crt")), Some(path("postgresql.key"))));
    assert_eq!((usual.oldest, usual.newest), (TlsVersion::Tls12, TlsVersion::Tls13));

    assert_eq!(settings("sslrootcert=system").unwrap().mode, SslMode::VerifyFull);
    assert_eq!(settings("sslmode=verify-ca").unwrap().mode, SslMode::VerifyCa);
    assert_eq!(settings("sslcrl=/x").unwrap().revocations.by_default, None);
    assert_eq!(settings("ssl_min_protocol_version=tlsv1.3").unwrap().oldest, TlsVersion::Tls13);
    assert_eq!(settings("ssl_min_protocol_version=TLSv1").unwrap().oldest, TlsVersion::Tls12);
    for (string, words) in [
        ("sslrootcert=system sslmode=require", "verify-full"),
        ("sslnegotiation=direct", "needs sslmode=require"),
        ("sslnegotiation=soon sslmode=require", "takes postgres or direct"),
        ("sslmode=on", "takes disable, allow"),
        ("channel_binding=yes", "takes disable, prefer or require"),
        ("sslsni=no", "takes 0 or 1"),
        ("sslcertmode=maybe", "takes disable, allow or require"),
        ("ssl_max_protocol_version=TLSv1.1", "not safe"),
        ("ssl_min_protocol_version=SSLv3", "takes TLSv1"),
        ("ssl_min_protocol_version=TLSv1.3 ssl_max_protocol_version=TLSv1.2", "is above"),
        ("sslkeylogfile=/tmp/x", "cannot write the keys"),
    ] {
        let error = settings(string).unwrap_err();
        assert!(error.contains(words), "{string}: {error}");
    }
    let old: BTreeMap<String, String> = [("PGREQUIRESSL".to_owned(), "1".to_owned())].into();
    let of = |string: &str| {
        let settings =
            ConnectionSettings { conninfo: Some(Password::new(string)), ..ConnectionSettings::default() };
        ConnectionParameters::resolve(&settings, &old, Some("me")).unwrap().tls.mode
    };
    assert_eq!((of(""), of("sslmode=disable")), (SslMode::Require, SslMode::Disable));
}

#[test]
fn without_trusted_certificates_nothing_is_verified_and_what_must_be_is_refused() {
    for mode in ["allow", "prefer", "require"] {
        let dial = Dial::new(&settings(&format!("sslmode={mode}")).unwrap(), "db1").unwrap();
        assert!(!dial.verifies, "{mode}");
    }
    for mode in ["verify-ca", "verify-full"] {
        match Dial::new(&settings(&format!("sslmode={mode}")).unwrap(), "db1").err() {
            Some(TlsProblem::NoRoots { path: Some(path) }) => assert!(path.ends_with("root.crt")),
            other => panic!("{mode}: {other:?}"),
        }
    }
    let named = settings("sslcrl=/nonexistent sslrootcert=/nonexistent sslmode=verify-ca").unwrap();
    assert!(matches!(Dial::new(&named, "db1").err(), Some(TlsProblem::NoRoots { .. })));
}

proptest! {
    #[test]
    fn no_answer_to_the_request_makes_it_panic(answer in proptest::collection::vec(any::<u8>(), 0..200)) {
        let agreed = ask(&answer);
        prop_assert_eq!(agreed.is_ok(), matches!(answer.as_slice(), [b'S' | b'N']));
    }

    /// Garbage instead of the handshake, from a server that was willing.
    #[test]
    fn no_handshake_makes_it_panic(garbage in proptest::collection::vec(any::<u8>(), 0..300), record: bool) {
        let settings = settings("sslmode=require").unwrap();
        let outcome = run(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let near = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (mut far, _) = listener.accept().await.unwrap();
            if record {
                // Looks like the beginning of a ServerHello.
                let length = u16::try_from(garbage.len()).unwrap();
                far.write_all(&[&[22, 3, 3][..], &length.to_be_bytes()].concat()).await.unwrap();
            }
            far.write_all(&garbage).await.unwrap();
            far.shutdown().await.unwrap();
            Dial::new(&settings, "db1").unwrap().handshake(near).await.map(|_| ())
        });
        prop_assert!(outcome.is_err());
    }
}
