//! Tests against a server that says exactly what the test wants, cut or bent at any place.

use super::cancel::Endpoint;
use super::connection::State;
use super::tls::{EndPoint, Session};
use super::transport::Transport;
use super::*;
use crate::units::{ByteCount, Lsn, TimelineId};
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

/// The messages of a small backup with a tablespace and a manifest.
fn backup_messages(damaged: bool) -> Vec<Vec<u8>> {
    let warning =
        "checksum verification failed in file \"./base/5/16384.1\", block 7: calculated 1 but expected 2";
    let mut messages = vec![
        problem(b'N', "NOTICE", "00000", "hello"),
        frame(b'T', &[0, 0]),
        row(&[Some("0/2000028"), Some("1")]),
        complete("SELECT"),
        frame(b'T', &[0, 0]),
        row(&[Some("16385"), Some("/srv/space"), Some("10")]),
        row(&[None, None, Some("20")]),
        complete("SELECT"),
        frame(b'H', &[0, 0, 0]),
        frame(b'd', b"n16385.tar\0/srv/space\0"),
        frame(b'd', b"dtar bytes"),
        frame(b'd', b"nbase.tar\0\0"),
        frame(b'd', b"dmore"),
        frame(b'S', b"TimeZone\0UTC\0"),
        problem(b'N', "WARNING", "01000", warning),
        frame(b'd', b"p\0\0\0\0\0\0\x08\0"),
        frame(b'd', b"m"),
        frame(b'd', b"d{}"),
        frame(b'c', b""),
        frame(b'T', &[0, 0]),
        row(&[Some("0/2000100"), Some("2")]),
        complete("SELECT"),
    ];
    messages.push(if damaged {
        problem(b'E', "ERROR", "XX001", "checksum verification failure during base backup")
    } else {
        complete("BASE_BACKUP")
    });
    messages.push(ready());
    messages
}

/// Every event as text, and the error that ended it.
async fn events(client: &mut ReplicationClient) -> (Vec<String>, Option<ClientError>) {
    let mut seen = Vec::new();
    let mut backup = match client.base_backup(&BackupOptions::default()).await {
        Ok(backup) => backup,
        Err(error) => return (seen, Some(error)),
    };
    loop {
        match backup.next().await {
            Ok(event) => {
                let last = matches!(event, Event::End(_) | Event::EndedWithPageFailures(_));
                seen.push(format!("{event:?}"));
                if last {
                    assert!(backup.next().await.is_err(), "an event after the last");
                    return (seen, None);
                }
            }
            Err(error) => {
                assert!(backup.next().await.is_err(), "an event after an error");
                return (seen, Some(error));
            }
        }
    }
}

#[test]
fn a_backup_is_told_in_order_and_ends_with_the_servers_last_word() {
    run(async {
        let (mut client, _far) = client(&backup_messages(false).concat(), true).await;
        let mut backup = client.base_backup(&BackupOptions::default()).await.unwrap();
        let Event::Started(start) = backup.next().await.unwrap() else { panic!() };
        assert_eq!((start.lsn, start.timeline), (Lsn::new(0x0200_0028), TimelineId::FIRST));
        assert_eq!(start.total_size(), Some(ByteCount::new(30 << 10)));
        assert_eq!(start.tablespaces[0].location.to_str(), Some("/srv/space"));
        let mut kinds = Vec::new();
        let end = loop {
            match backup.next().await.unwrap() {
                Event::End(end) => break end,
                event => kinds.push(format!("{event:?}").split(['(', ' ']).next().unwrap().to_owned()),
            }
        };
        let wanted = ["Archive", "Data", "Archive", "Data", "Progress", "ManifestBegin", "ManifestData"];
        assert_eq!(kinds, wanted);
        assert_eq!((end.lsn, end.timeline.as_u32()), (Lsn::new(0x0200_0100), 2));
        assert_eq!(client.state, State::Idle);
        assert_eq!(client.take_notices().len(), 2);
        assert_eq!(client.parameter("TimeZone"), Some("UTC"));
    });
}

#[test]
fn damaged_pages_are_an_end_of_their_own_even_when_somebody_took_the_notices() {
    run(async {
        let (mut client, _far) = client(&backup_messages(true).concat(), true).await;
        let mut backup = client.base_backup(&BackupOptions::default()).await.unwrap();
        loop {
            match backup.next().await.unwrap() {
                Event::EndedWithPageFailures(failures) => {
                    assert_eq!(failures.pages, [PageFailure { file: "base/5/16384.1".to_owned(), block: 7 }]);
                    assert_eq!(failures.end.lsn, Lsn::new(0x0200_0100));
                    assert_eq!(failures.warnings.len(), 1);
                    return;
                }
                Event::End(_) => panic!("damage passed over"),
                _ => drop(backup.take_notices()),
            }
        }
    });
}

#[test]
fn a_backup_cut_at_any_byte_is_lost_and_never_ended() {
    for damaged in [false, true] {
        let whole = backup_messages(damaged).concat();
        let (all, none) = run(async { events(&mut client(&whole, false).await.0).await });
        assert!(none.is_none());
        for cut in 0..whole.len() {
            let (seen, error) = run(async {
                let (mut client, _far) = client(&whole[..cut], false).await;
                let outcome = events(&mut client).await;
                assert_ne!(client.state, State::Idle);
                outcome
            });
            assert_eq!(seen, all[..seen.len()], "cut at {cut}");
            match error {
                Some(ClientError::ConnectionLost { .. }) => {}
                // Its last words, when they came through.
                Some(ClientError::Server { server, .. }) if damaged => assert_eq!(server.sqlstate, "XX001"),
                other => panic!("cut at {cut}: {other:?} after {seen:?}"),
            }
        }
    }
}

#[test]
fn a_silent_server_may_make_its_checkpoint_for_hours_but_not_rest_later() {
    run(async {
        let messages = backup_messages(false);
        let (mut waiting, _far) = client(&messages[..1].concat(), true).await;
        let mut backup = waiting.base_backup(&BackupOptions::default()).await.unwrap();
        let hours = std::time::Duration::from_secs(36_000);
        assert!(tokio::time::timeout(hours, backup.next()).await.is_err());

        let (mut stuck, _far) = client(&messages[..11].concat(), true).await;
        let (seen, error) = events(&mut stuck).await;
        assert_eq!(seen.len(), 3);
        assert!(
            matches!(error, Some(ClientError::TimedOut { doing: Doing::ReceivingBackup, .. })),
            "{error:?}"
        );
        assert_eq!(stuck.state, State::Broken);
    });
}

#[test]
fn a_backup_with_a_message_left_out_or_twice_does_not_end_as_if_nothing_were() {
    let messages = backup_messages(false);
    let (whole, _) = run(async { events(&mut client(&messages.concat(), false).await.0).await });
    for at in 0..messages.len() {
        let harmless = matches!(messages[at][0], b'N' | b'S' | b'T');
        for twice in [false, true] {
            let mut bent = messages.clone();
            if twice {
                bent.insert(at, messages[at].clone());
            } else {
                bent.remove(at);
            }
            let (seen, error) = run(async { events(&mut client(&bent.concat(), false).await.0).await });
            // Data, sizes and tablespaces may differ: those are contents. What must not happen is an end that
            // was not earned.
            let ended = seen.last().is_some_and(|event| event.starts_with("End"));
            assert_eq!(ended, error.is_none());
            if !harmless && seen == whole {
                let spare = matches!(messages[at][0], b'C' | b'Z');
                assert!(
                    spare,
                    "message {at} ({}) does not matter (twice: {twice})",
                    char::from(messages[at][0])
                );
            }
            if !twice && (matches!(messages[at][0], b'c' | b'H' | b'Z') || at == 22) {
                assert!(error.is_some(), "message {at} is not missed");
            }
        }
    }
}

#[test]
fn errors_during_a_backup_leave_the_connection_usable_and_fatal_ones_do_not() {
    for (severity, sqlstate, usable) in
        [("ERROR", "58030", true), ("ERROR", "XX001", true), ("FATAL", "57P01", false)]
    {
        for at in [1, 4, 11, 18] {
            let mut messages = backup_messages(false)[..at].to_vec();
            messages.push(problem(b'E', severity, sqlstate, "no"));
            messages.extend(usable.then(ready));
            run(async {
                let (mut client, _far) = client(&messages.concat(), false).await;
                let (_, error) = events(&mut client).await;
                let error = error.expect("an error is an error");
                assert_eq!(error.server().unwrap().sqlstate, sqlstate);
                assert_eq!(matches!(error, ClientError::EndedByServer { .. }), !usable);
                assert_eq!(client.state, if usable { State::Idle } else { State::Ended });
            });
        }
    }
}

#[test]
fn an_event_that_nobody_waited_for_is_not_lost() {
    run(async {
        let (mut client, mut far) = client(&[], true).await;
        let mut backup = client.base_backup(&BackupOptions::default()).await.unwrap();
        let mut seen = 0;
        for byte in backup_messages(false).concat() {
            far.write_all(&[byte]).await.unwrap();
            // Given up again and again, in the middle of every message.
            while let Ok(event) =
                tokio::time::timeout(std::time::Duration::from_millis(1), backup.next()).await
            {
                seen += 1;
                if matches!(event.unwrap(), Event::End(_)) {
                    assert_eq!(seen, 9);
                    return;
                }
            }
        }
        panic!("no end");
    });
}

#[test]
fn labels_are_quoted_and_control_characters_refused() {
    run(async {
        let (mut client, mut far) = client(&backup_messages(false).concat(), true).await;
        let label = "it's 'so'".to_owned();
        let max_rate = MaxRate::new(ByteCount::mib(1));
        client.base_backup(&BackupOptions { label, max_rate, ..BackupOptions::default() }).await.unwrap();
        let mut sent = vec![0; 1000];
        let length = far.read(&mut sent).await.unwrap();
        let sent = String::from_utf8_lossy(&sent[..length]).into_owned();
        assert!(sent.contains("LABEL 'it''s ''so''',") && sent.contains("MAX_RATE 1024,"), "{sent}");
        // The command above was left in the middle.
        let again = client.base_backup(&BackupOptions::default()).await;
        assert!(matches!(again, Err(ClientError::Unusable)));
        for label in ["a\nSTART TIME: never", "a\0b", &"x".repeat(1024)] {
            let options = BackupOptions { label: label.to_owned(), ..BackupOptions::default() };
            assert!(matches!(client.base_backup(&options).await, Err(ClientError::Request(_))));
        }
    });
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
