//! Tests against a server that says exactly what the test wants, cut or bent at any place.

mod base_backup;

use base_backup::{backup_messages, events};

use super::cancel::Endpoint;
use super::connection::State;
use super::tls::{EndPoint, Session};
use super::transport::Transport;
use super::*;
use crate::units::{Lsn, TimelineId};
use bytes::BufMut;
use proptest::prelude::*;
use std::collections::BTreeMap;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

fn run<T>(future: impl Future<Output = T>) -> T {
    // Time stands still and jumps when everything waits: no test sleeps.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.unwrap().block_on(future)
}

fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    bytes.put_u32(u32::try_from(body.len() + 4).unwrap());
    bytes.extend(body);
    bytes
}

fn row(values: &[Option<&str>]) -> Vec<u8> {
    let mut body = Vec::new();
    body.put_i16(values.len().try_into().unwrap());
    for value in values {
        match value {
            None => body.put_i32(-1),
            Some(text) => {
                body.put_i32(text.len().try_into().unwrap());
                body.extend(text.as_bytes());
            }
        }
    }
    frame(b'D', &body)
}

fn complete(what: &str) -> Vec<u8> {
    frame(b'C', format!("{what}\0").as_bytes())
}

fn problem(tag: u8, severity: &str, sqlstate: &str, message: &str) -> Vec<u8> {
    frame(tag, format!("S{severity}\0V{severity}\0C{sqlstate}\0M{message}\0\0").as_bytes())
}

fn ready() -> Vec<u8> {
    frame(b'Z', b"I")
}

/// A client whose server has said `bytes` and nothing more; `open`: it keeps the connection, else it closes.
async fn client(bytes: &[u8], open: bool) -> (ReplicationClient, DuplexStream) {
    let (near, mut far) = tokio::io::duplex(bytes.len() + (1 << 20));
    far.write_all(bytes).await.unwrap();
    if !open {
        far.shutdown().await.unwrap();
    }
    (ReplicationClient::over(Transport::Memory(near), address(), true), far)
}

fn address() -> Address {
    Address::Tcp { host: "test".to_owned(), port: 1 }
}

#[test]
fn a_failed_question_leaves_the_connection_usable() {
    run(async {
        let script = [
            problem(b'E', "ERROR", "42704", "unrecognized configuration parameter"),
            ready(),
            frame(b'T', &[0, 0]),
            row(&[Some("170011")]),
            complete("SHOW"),
            ready(),
            frame(b'T', &[0, 0]),
            ready(),
        ];
        let (mut client, _far) = client(&script.concat(), false).await;
        assert!(matches!(client.show("no_such").await, Err(ClientError::Server { .. })));
        assert!(matches!(client.show("x; drop").await, Err(ClientError::Request(_))));
        assert_eq!(client.server_version_num().await.unwrap(), 170_011);
        assert!(matches!(client.identify_system().await, Err(ClientError::Protocol { .. })));
        assert!(matches!(client.identify_system().await, Err(ClientError::Unusable)));
    });
}

fn parameters(password: Option<&str>) -> ConnectionParameters {
    let settings = ConnectionSettings {
        user: Some("walden".to_owned()),
        conninfo: password.map(|password| Password::new(format!("password={password}"))),
        ..ConnectionSettings::default()
    };
    ConnectionParameters::resolve(&settings, &BTreeMap::new(), None).unwrap()
}

fn request(code: i32, rest: &[u8]) -> Vec<u8> {
    frame(b'R', &[&code.to_be_bytes(), rest].concat())
}

fn sign_in(script: &[Vec<u8>], password: Option<&str>) -> Result<bool, ClientError> {
    run(async {
        let (mut client, _far) = client(&script.concat(), false).await;
        client.sign_in(&parameters(password), Endpoint::Unix("/none".into())).await?;
        let has_key = client.cancel_handle().is_some();
        client.state = State::Ended;
        Ok(has_key)
    })
}

#[test]
fn signing_in_takes_every_turn_the_protocol_allows() {
    let welcome = [
        request(0, b""),
        frame(b'S', b"server_version\x0017.1\0"),
        frame(b'K', &[0, 0, 0, 1, 0, 0, 0, 2]),
        ready(),
    ];
    let after = |first: &[Vec<u8>]| [first, &welcome].concat();
    assert!(sign_in(&welcome, None).unwrap());
    let negotiate = frame(b'v', &[0, 3, 0, 0, 0, 0, 0, 0]);
    assert!(sign_in(&after(&[negotiate]), None).unwrap());
    assert!(sign_in(&after(&[request(3, b"")]), Some("x")).is_ok());
    assert!(sign_in(&after(&[request(5, b"salt")]), Some("x")).is_ok());

    let refused = |script: &[Vec<u8>], password| sign_in(script, password).unwrap_err();
    assert!(matches!(refused(&[request(3, b"")], None), ClientError::PasswordMissing { .. }));
    assert!(matches!(refused(&[request(5, b"sal")], Some("x")), ClientError::Protocol { .. }));
    assert!(matches!(refused(&[request(7, b"")], Some("x")), ClientError::AuthenticationUnsupported { .. }));
    assert!(matches!(refused(&[request(99, b"")], Some("x")), ClientError::AuthenticationUnsupported { .. }));
    assert!(matches!(
        refused(&[request(10, b"OAUTHBEARER\0\0")], Some("x")),
        ClientError::AuthenticationUnsupported { .. }
    ));
    // One question only: no second try at the password by another way.
    assert!(matches!(
        refused(&[request(5, b"salt"), request(3, b"")], Some("x")),
        ClientError::Protocol { .. }
    ));
    assert!(matches!(refused(&[ready()], None), ClientError::NotPostgres { .. }));
    assert!(matches!(refused(&[request(0, b""), frame(b'D', b"\0\0")], None), ClientError::Protocol { .. }));
    let busy = problem(b'E', "FATAL", "53300", "sorry, too many clients already");
    assert!(matches!(refused(&[request(0, b""), busy], None), ClientError::TooManyClients { .. }));
    let whole = welcome.concat();
    for cut in 0..whole.len() {
        let error = refused(&[whole[..cut].to_vec()], None);
        let known = matches!(error, ClientError::ConnectionLost { .. } | ClientError::NotPostgres { .. });
        assert!(known, "cut at {cut}: {error:?}");
    }
}

/// Plays a SCRAM server up to its first message, then sends `then`.
fn scram(answer: impl FnOnce(&str) -> String, then: &[Vec<u8>]) -> ClientError {
    run(async {
        let (mut client, mut far) = client(&request(10, b"SCRAM-SHA-256\0\0"), true).await;
        let server = async {
            let mut sent = vec![0; 4096];
            let mut length = 0;
            let nonce = loop {
                length += far.read(&mut sent[length..]).await.unwrap();
                let text = String::from_utf8_lossy(&sent[..length]).into_owned();
                if let Some((_, nonce)) = text.split_once("n,,n=,r=") {
                    break nonce.to_owned();
                }
            };
            far.write_all(&request(11, answer(&nonce).as_bytes())).await.unwrap();
            far.write_all(&then.concat()).await.unwrap();
            far
        };
        let parameters = parameters(Some("secret"));
        let (outcome, _far) =
            tokio::join!(client.sign_in(&parameters, Endpoint::Unix("/none".into())), server);
        outcome.unwrap_err()
    })
}

#[test]
fn a_server_that_cannot_prove_itself_is_not_trusted() {
    let honest = |nonce: &str| format!("r={nonce}server,s=c2FsdA==,i=4096");
    let ok = request(0, b"");
    assert!(matches!(scram(honest, std::slice::from_ref(&ok)), ClientError::ServerNotAuthentic));
    let wrong = request(12, b"v=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
    assert!(matches!(scram(honest, &[wrong, ok.clone()]), ClientError::ServerNotAuthentic));
    assert!(matches!(scram(honest, &[request(3, b"")]), ClientError::Protocol { .. }));
    let other_nonce = |_: &str| "r=mine,s=c2FsdA==,i=4096".to_owned();
    assert!(matches!(scram(other_nonce, std::slice::from_ref(&ok)), ClientError::Protocol { .. }));
    let endless = |nonce: &str| format!("r={nonce}server,s=c2FsdA==,i=4000000000");
    assert!(matches!(scram(endless, &[ok]), ClientError::Protocol { .. }));
}

/// The mechanism that is chosen and how its first message begins, for an offer, an encrypted connection (its end
/// point, whether the server was verified) and a wish.
fn scram_begins(
    offer: &[u8],
    session: Option<(EndPoint, bool)>,
    wish: &str,
) -> Result<(String, String), ClientError> {
    run(async {
        let (mut client, mut far) = client(&request(10, offer), false).await;
        client.set_session(session.map(|(end_point, verified)| Session { end_point, verified }));
        let settings = ConnectionSettings {
            user: Some("walden".to_owned()),
            conninfo: Some(Password::new(format!("password=x {wish}"))),
            ..ConnectionSettings::default()
        };
        let parameters = ConnectionParameters::resolve(&settings, &BTreeMap::new(), None).unwrap();
        let outcome = client.sign_in(&parameters, Endpoint::Unix("/none".into())).await;
        let mut sent = vec![0; 4096];
        let length = far.read(&mut sent).await.unwrap();
        let text = String::from_utf8_lossy(&sent[..length]).into_owned();
        let Some((before, flag)) =
            text.split_once(",,n=,r=").map(|(before, _)| before.rsplit_once('\0').unwrap())
        else {
            client.state = State::Ended;
            return Err(outcome.unwrap_err());
        };
        let mechanism =
            before.rsplit_once("SCRAM").map(|(_, rest)| format!("SCRAM{}", rest.split('\0').next().unwrap()));
        client.state = State::Ended;
        // Behind the name stands the length of what follows.
        Ok((mechanism.unwrap(), flag.trim_start_matches(|c: char| !c.is_ascii_lowercase()).to_owned()))
    })
}

#[test]
fn channel_binding_is_never_given_up_without_the_server_being_told() {
    const BOTH: &[u8] = b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0";
    const PLAIN: &[u8] = b"SCRAM-SHA-256\0\0";
    let hash = || EndPoint::Hash(vec![7; 32]);
    let none = || EndPoint::Unknown(Some("Ed25519".to_owned()));
    let begins = |offer, session, wish: &str| {
        let (mechanism, flag) = scram_begins(offer, session, wish).unwrap();
        format!("{mechanism} {flag}")
    };
    let bound = "SCRAM-SHA-256-PLUS p=tls-server-end-point";
    assert_eq!(begins(BOTH, Some((hash(), false)), ""), bound);
    assert_eq!(begins(BOTH, Some((hash(), true)), "channel_binding=require"), bound);
    // "y": we could, and saw no offer. A server that made one knows then that somebody took it away.
    assert_eq!(begins(PLAIN, Some((hash(), true)), ""), "SCRAM-SHA-256 y");
    assert_eq!(begins(PLAIN, None, ""), "SCRAM-SHA-256 n");
    assert_eq!(begins(BOTH, Some((hash(), true)), "channel_binding=disable"), "SCRAM-SHA-256 n");
    assert_eq!(begins(BOTH, Some((none(), true)), ""), "SCRAM-SHA-256 n");

    let refused = |offer, session, wish: &str| match scram_begins(offer, session, wish).unwrap_err() {
        ClientError::ChannelBinding { problem, .. } => problem,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(BOTH, None, ""), BindingProblem::OfferedInTheClear);
    assert_eq!(refused(BOTH, None, "channel_binding=disable"), BindingProblem::OfferedInTheClear);
    assert_eq!(refused(PLAIN, None, "channel_binding=require"), BindingProblem::NoTls);
    assert!(matches!(
        refused(PLAIN, Some((hash(), true)), "channel_binding=require"),
        BindingProblem::Method(_)
    ));
    for (verified, wish, required) in [(false, "", false), (true, "channel_binding=require", true)] {
        let algorithm = "Ed25519".to_owned();
        let problem = refused(BOTH, Some((none(), verified)), wish);
        assert_eq!(problem, BindingProblem::Signature { algorithm, required });
    }
}

fn wal(at: u64, bytes: &[u8]) -> Vec<u8> {
    let mut body = vec![b'w'];
    body.put_u64(at);
    body.put_u64(at + bytes.len() as u64);
    body.put_i64(0);
    body.extend(bytes);
    frame(b'd', &body)
}

fn keepalive(end: u64, reply: bool) -> Vec<u8> {
    let mut body = vec![b'k'];
    body.put_u64(end);
    body.put_i64(800_000_000_000_000);
    body.put_u8(u8::from(reply));
    frame(b'd', &body)
}

async fn wal_events(client: &mut ReplicationClient, stop: Option<u64>) -> (Vec<String>, Option<ClientError>) {
    let request = WalRequest {
        start: Lsn::new(1000),
        timeline: TimelineId::FIRST,
        slot: None,
        stop: stop.map(Lsn::new),
    };
    let mut seen = Vec::new();
    let mut stream = client.start_replication(request).await.unwrap();
    loop {
        match stream.next().await {
            Ok(event) => {
                let last = matches!(event, WalEvent::Stopped { .. } | WalEvent::EndOfTimeline { .. });
                seen.push(match event {
                    WalEvent::Data { at, bytes } => format!("{} +{}", at.as_u64(), bytes.len()),
                    other => format!("{other:?}"),
                });
                if last {
                    return (seen, None);
                }
            }
            Err(error) => return (seen, Some(error)),
        }
    }
}

#[test]
fn wal_ends_at_the_wanted_byte_and_at_a_timelines_end_and_nowhere_else() {
    let both = frame(b'W', &[0, 0, 0]);
    let script = [
        both.clone(),
        wal(1000, &[1; 100]),
        keepalive(1100, true),
        wal(1100, &[2; 100]),
        wal(1200, &[3; 50]),
        frame(b'c', b""),
        complete("START_STREAMING"),
        complete("START_REPLICATION"),
        ready(),
    ];
    run(async {
        let (mut client, mut far) = client(&script.concat(), true).await;
        let (seen, error) = wal_events(&mut client, Some(1150)).await;
        assert!(error.is_none(), "{error:?}");
        assert_eq!(seen[0], "1000 +100");
        assert!(seen[1].starts_with("Keepalive"));
        assert_eq!(seen[2..], ["1100 +50".to_owned(), format!("Stopped {{ at: {:?} }}", Lsn::new(1150))]);
        assert_eq!(client.state, State::Idle);
        // A query, the answer to the keepalive, a last report and CopyDone.
        let mut sent = vec![0; 1000];
        let length = far.read(&mut sent).await.unwrap();
        assert!(sent[..length].ends_with(b"c\0\0\0\x04"));
        assert_eq!(sent[..length].windows(6).filter(|w| w == b"d\0\0\0\x26r").count(), 2);
    });
    // Without a wanted end the same is an end without a reason; a hole or a cut is an error.
    let lost = |script: &[Vec<u8>], stop| {
        run(async {
            let (mut client, _far) = client(&script.concat(), false).await;
            wal_events(&mut client, stop).await.1.expect("an error")
        })
    };
    assert!(matches!(lost(&script, None), ClientError::Protocol { .. }));
    assert!(matches!(lost(&[both.clone(), wal(1001, b"x")], Some(2000)), ClientError::Protocol { .. }));
    assert!(matches!(lost(&[both.clone(), wal(1000, b"x")], Some(2000)), ClientError::ConnectionLost { .. }));
    assert!(matches!(
        lost(&[both.clone(), complete("COPY 0")], Some(2000)),
        ClientError::EndedByServer { .. }
    ));
    let removed = problem(b'E', "ERROR", "58P01", "requested WAL segment has already been removed");
    assert!(matches!(lost(&[both.clone(), removed, ready()], Some(2000)), ClientError::WalRemoved { .. }));

    let switched = [
        both,
        wal(1000, b"abc"),
        frame(b'c', b""),
        frame(b'T', &[0, 0]),
        row(&[Some("2"), Some("0/3EB")]),
        complete("START_STREAMING"),
        complete("START_REPLICATION"),
        ready(),
    ];
    run(async {
        let (mut client, _far) = client(&switched.concat(), true).await;
        let (seen, error) = wal_events(&mut client, Some(5000)).await;
        assert!(error.is_none(), "{error:?}");
        let end = format!("EndOfTimeline {{ next: TimelineId(2), switch: {:?} }}", Lsn::new(0x3EB));
        assert_eq!(seen, ["1000 +3", end.as_str()]);
    });
}

#[test]
fn a_quiet_server_is_asked_whether_it_lives_and_given_up_when_it_does_not_answer() {
    run(async {
        let (mut client, mut far) = client(&frame(b'W', &[0, 0, 0]), true).await;
        let begin = tokio::time::Instant::now();
        let (_, error) = wal_events(&mut client, None).await;
        assert!(matches!(error, Some(ClientError::TimedOut { .. })), "{error:?}");
        assert!((60..=90).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());
        let mut sent = vec![0; 4000];
        let length = far.read(&mut sent).await.unwrap();
        assert!(sent[..length].windows(6).filter(|w| w == b"d\0\0\0\x26r").count() >= 5);

        // The same for whoever looks up between two waits.
        let (mut client, _far) = super::scripted::client(&frame(b'W', &[0, 0, 0]), true).await;
        let request =
            WalRequest { start: Lsn::new(1000), timeline: TimelineId::FIRST, slot: None, stop: None };
        let mut stream = client.start_replication(request).await.unwrap();
        let begin = tokio::time::Instant::now();
        let look = std::time::Duration::from_millis(500);
        let error = loop {
            if let Ok(Err(error)) = tokio::time::timeout(look, stream.next()).await {
                break error;
            }
            assert!(begin.elapsed().as_secs() < 200, "it waits for ever");
        };
        assert!(matches!(error, ClientError::TimedOut { .. }), "{error:?}");
    });
}

proptest! {
    #[test]
    fn no_server_can_make_the_client_panic(
        keep in 0usize..25,
        bent in proptest::collection::vec((0usize..2000, any::<u8>()), 0..6),
        tail in proptest::collection::vec((prop_oneof![Just(b'd'), Just(b'D'), Just(b'E'), Just(b'N'), Just(b'S'), any::<u8>()],
            proptest::collection::vec(any::<u8>(), 0..40)), 0..6),
    ) {
        let mut bytes: Vec<u8> = backup_messages(true).into_iter().take(keep).collect::<Vec<_>>().concat();
        for (tag, body) in tail {
            bytes.extend(frame(tag, &body));
        }
        for (at, byte) in bent {
            if let Some(there) = bytes.get_mut(at) {
                *there = byte;
            }
        }
        run(async {
            let (mut backup, _far) = client(&bytes, false).await;
            let _ = events(&mut backup).await;
            let (mut stream, _far) = client(&[frame(b'W', &[0, 0, 0]), bytes.clone()].concat(), false).await;
            let _ = wal_events(&mut stream, Some(9999)).await;
            let (mut first, _far) = client(&bytes, false).await;
            let _ = first.sign_in(&parameters(Some("x")), Endpoint::Unix("/none".into())).await;
            first.state = State::Ended;
            let (mut ask, _far) = client(&bytes, false).await;
            let _ = ask.identify_system().await;
        });
    }
}
