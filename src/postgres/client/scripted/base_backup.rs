//! Base backups, of both dialects.

use super::super::connection::State;
use super::super::*;
use super::{client, complete, frame, problem, ready, row, run};
use crate::units::{ByteCount, Lsn, TimelineId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The messages of a small backup with a tablespace and a manifest.
pub(super) fn backup_messages(damaged: bool) -> Vec<Vec<u8>> {
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

/// The same backup as a server of version 14 sends it, and before it the answer to a question, with which it tells
/// its version.
fn backup_messages_of_14() -> Vec<Vec<u8>> {
    let modern = backup_messages(false);
    let mut messages = vec![
        [
            frame(b'S', b"server_version\x0014.23\0"),
            frame(b'T', &[0, 0]),
            row(&[Some("140023")]),
            complete("SHOW"),
            ready(),
        ]
        .concat(),
    ];
    messages.extend_from_slice(&modern[1..8]);
    for copy in [["tar ", "bytes"], ["mo", "re"], ["{", "}"]] {
        messages.push(frame(b'H', &[0, 0, 0]));
        messages.extend(copy.map(|bytes| frame(b'd', bytes.as_bytes())));
        messages.push(frame(b'c', b""));
    }
    messages.extend_from_slice(&modern[19..]);
    messages
}

/// Every event of [`backup_messages_of_14`], if as much of it comes.
async fn events_of_14(bytes: &[u8]) -> (Vec<String>, Option<ClientError>, State) {
    let (mut client, _far) = client(bytes, false).await;
    if let Err(error) = client.server_version_num().await {
        return (Vec::new(), Some(error), client.state);
    }
    let options = BackupOptions { manifest: Manifest::Yes(ManifestChecksums::None), ..Default::default() };
    let (seen, error) = events_with(&mut client, &options).await;
    (seen, error, client.state)
}

/// Every event as text, and the error that ended it.
pub(super) async fn events(client: &mut ReplicationClient) -> (Vec<String>, Option<ClientError>) {
    events_with(client, &BackupOptions::default()).await
}

async fn events_with(
    client: &mut ReplicationClient,
    options: &BackupOptions,
) -> (Vec<String>, Option<ClientError>) {
    let mut seen = Vec::new();
    let mut backup = match client.base_backup(options).await {
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
fn postgresql_14_names_nothing_and_tells_the_same() {
    let whole = backup_messages_of_14();
    let (all, error, state) = run(events_of_14(&whole.concat()));
    assert!(error.is_none(), "{error:?}");
    assert_eq!(state, State::Idle);
    let kinds: Vec<&str> = all.iter().map(|event| event.split(['(', ' ']).next().unwrap()).collect();
    let archive = ["Archive", "Data", "Data", "Data"];
    let wanted = [
        &["Started"],
        &archive[..],
        &archive[..],
        &["ManifestBegin", "ManifestData", "ManifestData"],
        &["End"],
    ];
    assert_eq!(kinds, wanted.concat());
    assert!(all[1].contains("16385.tar") && all[1].contains("/srv/space"), "{}", all[1]);
    assert!(all[5].contains("base.tar") && all[5].contains("location: None"), "{}", all[5]);
    // Cut anywhere, or with a message left out or twice, it has no end that was not earned.
    let bytes = whole.concat();
    for cut in 0..bytes.len() {
        let (seen, error, state) = run(events_of_14(&bytes[..cut]));
        assert_eq!(seen, all[..seen.len()], "cut at {cut}");
        assert!(matches!(error, Some(ClientError::ConnectionLost { .. })), "cut at {cut}: {error:?}");
        assert_ne!(state, State::Idle);
    }
    for at in 1..whole.len() {
        for twice in [false, true] {
            let mut bent = whole.clone();
            if twice {
                bent.insert(at, whole[at].clone());
            } else {
                bent.remove(at);
            }
            let (seen, error, _) = run(events_of_14(&bent.concat()));
            let ended = seen.last().is_some_and(|event| event.starts_with("End"));
            assert_eq!(ended, error.is_none());
            // Announcements of columns and the ends between results say nothing. Data are contents.
            let spare = matches!(whole[at][0], b'T' | b'C' | b'Z');
            assert!(spare || seen != all || error.is_some(), "message {at} does not matter (twice: {twice})");
            if matches!(whole[at][0], b'H' | b'c') {
                assert!(error.is_some(), "message {at} (twice: {twice})");
            }
        }
    }
}

#[test]
fn postgresql_14_is_asked_in_words() {
    run(async {
        let (mut client, mut far) = client(&backup_messages_of_14().concat(), true).await;
        client.server_version_num().await.unwrap();
        let options = BackupOptions {
            label: "it's".to_owned(),
            checkpoint: Checkpoint::Fast,
            max_rate: MaxRate::new(ByteCount::mib(1)),
            verify_checksums: false,
            ..BackupOptions::default()
        };
        client.base_backup(&options).await.unwrap();
        let mut sent = vec![0; 1000];
        let length = far.read(&mut sent).await.unwrap();
        let sent = String::from_utf8_lossy(&sent[..length]).into_owned();
        let words = "BASE_BACKUP LABEL 'it''s' FAST PROGRESS NOVERIFY_CHECKSUMS NOWAIT TABLESPACE_MAP MAX_RATE 1024 \
                     MANIFEST 'no'\0";
        assert!(sent.ends_with(words), "{sent}");
    });
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

        // Whoever looks up between two waits, for an interrupt say, waits no longer for that.
        let (mut stuck, _far) = client(&messages[..11].concat(), true).await;
        let mut backup = stuck.base_backup(&BackupOptions::default()).await.unwrap();
        let began = tokio::time::Instant::now();
        let look = std::time::Duration::from_millis(500);
        let error = loop {
            if let Ok(Err(error)) = tokio::time::timeout(look, backup.next()).await {
                break error;
            }
            assert!(began.elapsed() < 2 * Limits::default().silence, "it waits for ever");
        };
        assert!(matches!(error, ClientError::TimedOut { .. }), "{error:?}");
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
