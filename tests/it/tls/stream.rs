//! What passes over an encrypted connection: all of it, or an error; and nothing beside it.

use super::forwarder::Forwarder;
use super::*;
use crate::client::read_all;
use crate::common::majors_in_full;
use std::time::Duration;
use walden::postgres::client::{BackupOptions, Checkpoint, TlsProblem};

#[test]
fn a_stream_that_is_cut_is_an_error_wherever_it_is_cut() {
    for major in majors_in_full() {
        let scratch = Scratch::new();
        let certificates = Certificates::new(&scratch);
        let cluster =
            Cluster::build(&scratch, major).tcp().conf(&certificates.server_lines("server")).start();
        let forwarder = Forwarder::to(cluster.port());
        let string = format!(
            "host=localhost port={} sslmode=verify-full sslrootcert={}",
            forwarder.port(),
            certificates.at("ca.crt")
        );
        let parameters = parameters(&cluster, &string, Path::new("/nonexistent"));
        let backup = || {
            let (before, _) = forwarder.last_said();
            let outcome = run(async {
                let mut client = ReplicationClient::connect(&parameters).await?;
                assert!(client.is_encrypted());
                let options = BackupOptions { checkpoint: Checkpoint::Fast, ..BackupOptions::default() };
                let mut backup = client.base_backup(&options).await?;
                let (received, end) = read_all(&mut backup).await?;
                end.unwrap();
                // Cut here, and no farewell: the whole backup was there.
                Ok::<_, ClientError>(received)
            });
            wait_until("the connection to end", || forwarder.last_said().0 > before);
            outcome
        };
        backup().unwrap();
        let (_, whole) = forwarder.last_said();
        assert!(whole > 20 << 20, "{whole}");
        // What follows the last message that counts: less than a ReadyForQuery in a record of TLS.
        let cuts = [0, 1, 2, 100, 1500, 4000, 1 << 20, whole / 2, whole - (64 << 10)];
        for cut in cuts {
            forwarder.cut_after(cut);
            let error = backup().expect_err("a cut backup ended");
            let known = match &error {
                ClientError::ConnectionLost { .. } => true,
                ClientError::Tls { problem, .. } => matches!(**problem, TlsProblem::Handshake(_)),
                _ => false,
            };
            assert!(known && error.may_pass(), "cut after {cut}: {error:?}");
        }
        forwarder.cut_after(u64::MAX);
        assert!(attempt(&cluster, &string).unwrap(), "the server is as before");
    }
}

#[test]
fn a_cancel_request_goes_as_safely_as_what_it_cancels() {
    for major in majors_in_full() {
        let scratch = Scratch::new();
        let certificates = Certificates::new(&scratch);
        let slow = [
            "checkpoint_timeout = 1h",
            "checkpoint_completion_target = 0.9",
            "shared_buffers = 64MB",
            "max_wal_size = 4GB",
        ];
        let cluster = Cluster::build(&scratch, major)
            .tcp()
            .conf(&certificates.server_lines("server"))
            .conf(&slow)
            .start();
        cluster.pgbench_init(2);
        let forwarder = Forwarder::to(cluster.port());
        let wal_senders =
            || cluster.sql("select count(*) from pg_stat_activity where backend_type = 'walsender'");
        let cancelled = |string: &str, dropped: bool| {
            let parameters = parameters(&cluster, string, Path::new("/nonexistent"));
            run(async {
                let mut client = ReplicationClient::connect(&parameters).await.unwrap();
                let handle = client.cancel_handle().unwrap();
                let mut backup = client.base_backup(&BackupOptions::default()).await.unwrap();
                let waited = tokio::time::timeout(Duration::from_millis(500), backup.next()).await;
                assert!(waited.is_err(), "the checkpoint was not spread: {waited:?}");
                if dropped {
                    drop(client);
                } else {
                    handle.cancel(Duration::from_secs(10)).await.unwrap();
                    let error = backup.next().await.unwrap_err();
                    assert!(matches!(error, ClientError::Interrupted { .. }), "{error:?}");
                }
            });
            wait_until("the WAL sender to end", || wal_senders() == "0");
        };
        let base = format!("host=localhost port={}", forwarder.port());
        cancelled(&format!("{base} sslmode=require"), true);
        cancelled(&format!("{base} sslmode=require"), false);
        if major >= 17 {
            cancelled(&format!("{base} sslmode=require sslnegotiation=direct"), false);
        }
        let begins = forwarder.begins();
        assert!(begins.len() >= 4, "{}", begins.len());
        for begin in &begins {
            let asked = [0, 0, 0, 8, 4, 210, 22, 47];
            let hello = begin.strip_prefix(&asked).unwrap_or(begin);
            assert_eq!(hello.first(), Some(&22), "not a TLS handshake: {begin:?}");
        }
        cancelled(&format!("{base} sslmode=disable"), false);
        assert_eq!(
            forwarder.begins().last().unwrap()[4..8],
            [4, 210, 22, 46],
            "a cancel request in the clear"
        );
    }
}
