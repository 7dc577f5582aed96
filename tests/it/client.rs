//! The replication client against real servers, and against a network that breaks.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use walden::postgres::client::{
    Address, BackupEnd, BackupOptions, BaseBackup, Checkpoint, ClientError, ConnectionParameters,
    ConnectionSettings, Event, Limits, Manifest, ManifestChecksums, MaxRate, PageFailures, Password,
    PasswordSource, ReplicationClient, ServerState, WalEvent, WalRequest,
};
use walden::postgres::tar::{Demultiplexer, EntryKind, TarEvent};
use walden::units::{ByteCount, Lsn, SegmentSize, TimelineId};

use crate::common::{Cluster, Scratch, StopMode, all_majors, majors_in_full, oldest_major, wait_until};

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn parameters(cluster: &Cluster, user: &str, password: Option<&str>) -> ConnectionParameters {
    let settings = ConnectionSettings {
        socket_path: Some(cluster.socket_dir().to_owned()),
        port: Some(u16::try_from(cluster.port()).unwrap()),
        user: Some(user.to_owned()),
        conninfo: password.map(|password| Password::new(format!("password='{password}'"))),
        ..ConnectionSettings::default()
    };
    ConnectionParameters::resolve(&settings, &BTreeMap::new(), None).unwrap()
}

async fn connect(cluster: &Cluster) -> ReplicationClient {
    ReplicationClient::connect(&parameters(cluster, "postgres", None)).await.unwrap()
}

fn wal_senders(cluster: &Cluster) -> u32 {
    cluster.sql("select count(*) from pg_stat_activity where backend_type = 'walsender'").parse().unwrap()
}

fn no_wal_sender_stays(cluster: &Cluster) {
    let start = Instant::now();
    wait_until("the WAL sender to end", || wal_senders(cluster) == 0);
    assert!(start.elapsed() < Duration::from_secs(20), "a WAL sender stayed for {:?}", start.elapsed());
}

fn fast() -> BackupOptions {
    BackupOptions { checkpoint: Checkpoint::Fast, ..BackupOptions::default() }
}

/// What a whole backup holds.
#[derive(Debug, Default)]
pub(crate) struct Received {
    /// Path as in the manifest → size, CRC-32C of the contents.
    files: BTreeMap<String, (u64, u32)>,
    manifest: Vec<u8>,
    archives: Vec<String>,
    progress: u64,
    data: u64,
    start: Option<(Lsn, TimelineId)>,
    total: Option<ByteCount>,
}

/// Reads a backup to its end through the demultiplexer.
pub(crate) async fn read_all(
    backup: &mut BaseBackup<'_>,
) -> Result<(Received, Result<BackupEnd, PageFailures>), ClientError> {
    let mut received = Received::default();
    let mut archive: Option<Demultiplexer> = None;
    let mut below = String::new();
    let mut file: Option<(String, u64, u32)> = None;
    loop {
        match backup.next().await? {
            Event::Started(start) => {
                received.start = Some((start.lsn, start.timeline));
                received.total = start.total_size();
            }
            Event::Archive(start) => {
                if let Some(before) = archive.replace(Demultiplexer::new()) {
                    before.finish().unwrap();
                }
                below = match start.name.strip_suffix(".tar").unwrap() {
                    "base" => String::new(),
                    oid => format!("pg_tblspc/{oid}/"),
                };
                assert_eq!(start.location.is_some(), !below.is_empty());
                received.archives.push(start.name);
            }
            Event::Data(mut bytes) => {
                received.data += bytes.len() as u64;
                let archive = archive.as_mut().unwrap();
                while let Some(event) = archive.next(&mut bytes).unwrap() {
                    match event {
                        TarEvent::Entry(entry) if entry.kind == EntryKind::File => {
                            let path = format!("{below}{}", String::from_utf8(entry.path).unwrap());
                            file = Some((path, entry.size, 0));
                        }
                        TarEvent::Entry(_) | TarEvent::ArchiveEnd => {}
                        TarEvent::Data(bytes) => {
                            let crc = &mut file.as_mut().unwrap().2;
                            *crc = crc32c::crc32c_append(*crc, bytes);
                        }
                        TarEvent::EntryEnd => {
                            if let Some((path, size, crc)) = file.take() {
                                assert!(received.files.insert(path, (size, crc)).is_none());
                            }
                        }
                    }
                }
            }
            Event::Progress(bytes) => received.progress = bytes.as_u64(),
            Event::ManifestBegin => archive.take().unwrap().finish().unwrap(),
            Event::ManifestData(bytes) => received.manifest.extend(bytes),
            Event::End(end) => return Ok((received, Ok(end))),
            Event::EndedWithPageFailures(failures) => return Ok((received, Err(*failures))),
        }
    }
}

#[test]
fn a_backup_under_load_holds_exactly_the_files_of_its_manifest() {
    for major in all_majors() {
        let scratch = Scratch::new();
        let cluster = Cluster::build(&scratch, major).start();
        cluster.pgbench_init(2);
        let space = scratch.dir("space");
        cluster.sql(&format!("create tablespace space location '{}'", space.display()));
        cluster.sql("create table far tablespace space as select generate_series(1, 50000) as a");
        let load = cluster.load();
        run(async {
            let mut client = connect(&cluster).await;
            assert!(client.takes_sql());
            assert_eq!(client.server_version_num().await.unwrap() / 10_000, major);
            let identity = client.identify_system().await.unwrap();
            let options = BackupOptions {
                manifest: Manifest::Yes(ManifestChecksums::Crc32c),
                label: "it's".to_owned(),
                ..fast()
            };
            let mut backup = client.base_backup(&options).await.unwrap();
            let (received, end) = read_all(&mut backup).await.unwrap();
            let end = end.unwrap();
            let (start, timeline) = received.start.unwrap();
            assert!(start < end.lsn && timeline == end.timeline && timeline == identity.timeline);
            assert_eq!(received.archives.len(), 2);
            assert_eq!(received.archives[1], "base.tar");
            assert!(received.total.unwrap().as_u64() > 40 << 20);
            // Before 15 the server does not count along.
            let counted = if major < 15 { received.data } else { received.progress };
            assert!(counted >= received.data, "{counted} of {}", received.data);

            let manifest: serde_json::Value = serde_json::from_slice(&received.manifest).unwrap();
            let listed: BTreeMap<String, (u64, u32)> = manifest["Files"]
                .as_array()
                .unwrap()
                .iter()
                .map(|file| {
                    let bytes = file["Checksum"].as_str().unwrap();
                    let crc = u32::from_str_radix(bytes, 16).unwrap().swap_bytes();
                    (file["Path"].as_str().unwrap().to_owned(), (file["Size"].as_u64().unwrap(), crc))
                })
                .collect();
            let sent: BTreeMap<_, _> =
                received.files.into_iter().filter(|(path, _)| path != "tablespace_map").collect();
            let listed: BTreeMap<_, _> =
                listed.into_iter().filter(|(path, _)| path != "tablespace_map").collect();
            assert!(sent == listed, "PostgreSQL {major}: the archives differ from the manifest");
            assert!(sent.keys().any(|path| path.starts_with("pg_tblspc/")));

            // The connection takes other commands afterwards.
            assert_eq!(client.identify_system().await.unwrap().system, identity.system);
            assert_eq!(client.sql("select 1", "one").await.unwrap().first().unwrap().text(0), Some("1"));
            client.close().await;
        });
        drop(load);
        no_wal_sender_stays(&cluster);
    }
}

#[test]
fn every_way_to_sign_in_works_and_every_refusal_has_its_own_error() {
    for major in majors_in_full() {
        let scratch = Scratch::new();
        let cluster = Cluster::build(&scratch, major).conf(&["max_wal_senders = 2"]).start();
        cluster.sql(
            "set password_encryption = 'scram-sha-256';
             create role s login replication password 'pä:ss';
             create role plain login replication password 'secret';
             create role weak login password 'x';
             create role phys login replication; create role nobody login replication;
             set password_encryption = 'md5';
             create role m login replication password 'md5-secret'",
        );
        let hba = "local all postgres trust\nlocal all s scram-sha-256\nlocal all m md5\nlocal all plain password\n\
                   local all weak trust\nlocal replication phys trust\nlocal all ghost scram-sha-256\n";
        std::fs::write(cluster.data().join("pg_hba.conf"), hba).unwrap();
        cluster.configure(&[]);
        let attempt = |user: &str, password: Option<&str>| {
            wait_until("earlier WAL senders to end", || wal_senders(&cluster) == 0);
            run(async {
                let mut client = ReplicationClient::connect(&parameters(&cluster, user, password)).await?;
                let sql = client.takes_sql();
                client.identify_system().await?;
                assert_eq!(client.sql("select 1", "one").await.is_ok(), sql);
                client.close().await;
                Ok::<_, ClientError>(sql)
            })
        };
        assert!(attempt("postgres", None).unwrap());
        assert!(attempt("s", Some("pä:ss")).unwrap());
        assert!(attempt("m", Some("md5-secret")).unwrap());
        assert!(attempt("plain", Some("secret")).unwrap());
        assert!(!attempt("phys", None).unwrap(), "physical replication only");
        run(async {
            let mut client = ReplicationClient::connect(&parameters(&cluster, "phys", None)).await.unwrap();
            assert_eq!(client.server_version_num().await.unwrap() / 10_000, major);
            assert!(matches!(client.sql("select 1", "one").await, Err(ClientError::NoSql)));
            let mut backup = client.base_backup(&fast()).await.unwrap();
            read_all(&mut backup).await.unwrap().1.unwrap();
        });

        for user in ["s", "m", "plain"] {
            match attempt(user, Some("wrong")).unwrap_err() {
                ClientError::PasswordWrong { from: PasswordSource::Settings, user: told, .. } => {
                    assert_eq!(told, user)
                }
                other => panic!("{user}: {other:?}"),
            }
            assert!(matches!(attempt(user, None).unwrap_err(), ClientError::PasswordMissing { .. }));
        }
        match attempt("nobody", None).unwrap_err() {
            ClientError::NoHbaEntry { refusals, .. } => assert_eq!(refusals.len(), 2, "{refusals:?}"),
            other => panic!("{other:?}"),
        }
        assert!(matches!(attempt("weak", None).unwrap_err(), ClientError::NoReplicationRight { .. }));
        assert!(matches!(attempt("ghost", Some("x")).unwrap_err(), ClientError::PasswordWrong { .. }));

        // The database does not exist, and physical replication is not open to this user.
        let mut wrong_database = parameters(&cluster, "plain", Some("secret"));
        wrong_database.database = "none".to_owned();
        let error = run(ReplicationClient::connect(&wrong_database)).unwrap_err();
        assert!(matches!(error, ClientError::NoSuchDatabase { .. }), "{error:?}");

        run(async {
            wait_until("earlier WAL senders to end", || wal_senders(&cluster) == 0);
            let _one = connect(&cluster).await;
            let _two = connect(&cluster).await;
            let error =
                ReplicationClient::connect(&parameters(&cluster, "postgres", None)).await.unwrap_err();
            assert!(matches!(error, ClientError::NoFreeWalSender { .. }), "{error:?}");
        });
    }
}

#[test]
fn a_server_that_is_not_there_or_is_something_else_is_named() {
    let attempt = |address: Address| {
        let settings = ConnectionSettings { user: Some("u".to_owned()), ..ConnectionSettings::default() };
        let mut parameters = ConnectionParameters::resolve(&settings, &BTreeMap::new(), None).unwrap();
        parameters.addresses = vec![address];
        parameters.connect_timeout = Some(Duration::from_secs(2));
        run(ReplicationClient::connect(&parameters)).unwrap_err()
    };
    let scratch = Scratch::new();
    let error = attempt(Address::Unix { directory: scratch.path().to_owned(), port: 1 });
    assert!(
        matches!(&error, ClientError::Connect { .. }) && error.to_string().contains(".s.PGSQL.1"),
        "{error:?}"
    );
    let error = attempt(Address::Tcp { host: "no-such-host.invalid".to_owned(), port: 1 });
    assert!(matches!(error, ClientError::Resolve { .. }), "{error:?}");

    let serve = |answer: &'static [u8]| {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            use std::io::{Read, Write};
            for stream in listener.incoming().take(2) {
                let mut stream = stream.unwrap();
                let _ = stream.read(&mut [0; 1000]);
                if answer.is_empty() {
                    std::thread::sleep(Duration::from_secs(5));
                }
                let _ = stream.write_all(answer);
            }
        });
        Address::Tcp { host: "127.0.0.1".to_owned(), port }
    };
    for answer in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], b"SSH-2.0-x\r\n", b"J\0\0\0\n8.0.1\0"] {
        let error = attempt(serve(answer));
        assert!(matches!(error, ClientError::NotPostgres { .. }), "{error:?}");
    }
    let error = attempt(serve(b"Ecould not fork new process for connection: out of memory\n\0"));
    assert!(error.to_string().contains("could not fork"), "{error:?}");
    assert!(matches!(attempt(serve(b"")), ClientError::TimedOut { .. }));
}

#[test]
fn damaged_pages_are_named_and_the_stop_position_is_known_all_the_same() {
    for major in majors_in_full() {
        let scratch = Scratch::new();
        let mut cluster = Cluster::build(&scratch, major).start();
        cluster.sql("create table t as select generate_series(1, 20000) as a; checkpoint");
        let path = cluster.sql("select pg_relation_filepath('t')");
        cluster.stop(StopMode::Fast);
        let file = cluster.data().join(&path);
        let mut bytes = std::fs::read(&file).unwrap();
        for page in [3, 7] {
            bytes[page * 8192 + 5000] ^= 0xFF;
        }
        std::fs::write(&file, bytes).unwrap();
        cluster.start();
        run(async {
            let mut client = connect(&cluster).await;
            let mut backup = client.base_backup(&fast()).await.unwrap();
            let (received, end) = read_all(&mut backup).await.unwrap();
            let failures = end.unwrap_err();
            assert!(failures.end.lsn > received.start.unwrap().0);
            let pages: Vec<_> = failures.pages.iter().map(|page| (page.file.as_str(), page.block)).collect();
            assert_eq!(pages, [(path.as_str(), 3), (path.as_str(), 7)], "{failures:?}");
            assert_eq!(failures.error.sqlstate, "XX001");
            client.identify_system().await.unwrap();

            let options = BackupOptions { verify_checksums: false, ..fast() };
            let mut backup = client.base_backup(&options).await.unwrap();
            read_all(&mut backup).await.unwrap().1.unwrap();
        });
    }
}

#[test]
fn a_dropped_or_cancelled_backup_leaves_no_wal_sender() {
    for major in majors_in_full() {
        let scratch = Scratch::new();
        // A spread checkpoint then takes the better part of an hour.
        let slow = [
            "checkpoint_timeout = 1h",
            "checkpoint_completion_target = 0.9",
            "shared_buffers = 64MB",
            "max_wal_size = 4GB",
        ];
        let cluster = Cluster::build(&scratch, major).conf(&slow).start();
        cluster.pgbench_init(2);
        run(async {
            let mut client = connect(&cluster).await;
            let mut backup = client.base_backup(&BackupOptions::default()).await.unwrap();
            let waited = tokio::time::timeout(Duration::from_secs(1), backup.next()).await;
            assert!(waited.is_err(), "the checkpoint was not spread: {waited:?}");
            assert_eq!(wal_senders(&cluster), 1);
            drop(client);
        });
        no_wal_sender_stays(&cluster);

        run(async {
            let mut client = connect(&cluster).await;
            let handle = client.cancel_handle().unwrap();
            let mut backup = client.base_backup(&BackupOptions::default()).await.unwrap();
            assert!(tokio::time::timeout(Duration::from_secs(1), backup.next()).await.is_err());
            handle.cancel(Duration::from_secs(5)).await.unwrap();
            let error = backup.next().await.unwrap_err();
            assert!(matches!(error, ClientError::Interrupted { .. }), "{error:?}");
            // Cancelled, not broken.
            client.identify_system().await.unwrap();
            drop(client);

            let mut client = connect(&cluster).await;
            let mut backup = client.base_backup(&fast()).await.unwrap();
            while !matches!(backup.next().await.unwrap(), Event::Data(_)) {}
            drop(backup);
            assert!(matches!(client.identify_system().await, Err(ClientError::Unusable)));
            client.abandon(Duration::from_secs(5)).await;
        });
        no_wal_sender_stays(&cluster);
    }
}

#[test]
fn the_server_keeps_to_the_rate_it_is_given() {
    let scratch = Scratch::new();
    let cluster = Cluster::build(&scratch, oldest_major()).start();
    run(async {
        let mut client = connect(&cluster).await;
        let max_rate = Some(MaxRate::new(ByteCount::mib(8)).unwrap());
        let begin = Instant::now();
        let mut backup = client.base_backup(&BackupOptions { max_rate, ..fast() }).await.unwrap();
        let (received, _) = read_all(&mut backup).await.unwrap();
        let least = received.data as f64 / f64::from(8 << 20) * 0.7;
        assert!(begin.elapsed().as_secs_f64() > least, "{} bytes in {:?}", received.data, begin.elapsed());
    });
    assert_eq!(MaxRate::new(ByteCount::new(31 << 10)), None);
    assert_eq!(MaxRate::new(ByteCount::new(2 << 30)), None);
}

/// WAL from `start` on, and how it ended.
async fn stream(
    client: &mut ReplicationClient,
    request: WalRequest,
) -> Result<(Vec<u8>, String), ClientError> {
    let mut wal = Vec::new();
    let mut stream = client.start_replication(request.clone()).await?;
    loop {
        match stream.next().await? {
            WalEvent::Data { at, bytes } => {
                assert_eq!(at.since(request.start), Some(wal.len() as u64));
                wal.extend(bytes);
            }
            WalEvent::Keepalive { .. } => {}
            end => return Ok((wal, format!("{end:?}"))),
        }
    }
}

#[test]
fn streamed_wal_is_the_archived_segment_byte_for_byte_and_follows_a_timeline_switch() {
    for major in majors_in_full() {
        let scratch = Scratch::new();
        let archive = scratch.dir("archive");
        let cluster = Cluster::build(&scratch, major)
            .segment_size_mb(1)
            .archive_command(&format!("cp \"%p\" {}/%f", archive.display()))
            .conf(&["wal_keep_size = 64MB"])
            .start();
        cluster.sql("create table t as select generate_series(1, 30000) as a");
        let name = cluster.archive_now();
        let size = SegmentSize::new(1 << 20).unwrap();
        let number = u64::from_str_radix(&name[16..], 16).unwrap()
            + u64::from_str_radix(&name[8..16], 16).unwrap() * 4096;
        let start = size.start_of(number).unwrap();
        let request =
            WalRequest { start, timeline: TimelineId::FIRST, slot: None, stop: start.forward(1 << 20) };
        run(async {
            let mut client = connect(&cluster).await;
            let (wal, end) = stream(&mut client, request.clone()).await.unwrap();
            assert!(wal == std::fs::read(archive.join(&name)).unwrap(), "PostgreSQL {major}: {name} differs");
            assert!(end.starts_with("Stopped"), "{end}");

            // Again on the same connection, through a slot, ending inside a segment.
            let slot = "walden_check".parse().unwrap();
            client.create_temporary_slot(&slot).await.unwrap();
            let held = client.read_slot(&slot).await.unwrap().unwrap();
            assert_eq!(held.timeline, TimelineId::FIRST);
            let stop = start.forward(5001);
            let part = WalRequest { slot: Some(slot), stop, ..request.clone() };
            let (part, _) = stream(&mut client, part).await.unwrap();
            assert!(part == wal[..5001]);
            assert_eq!(client.read_slot(&"none".parse().unwrap()).await.unwrap(), None);

            let ahead = WalRequest { start: Lsn::new(1 << 50), ..request.clone() };
            let error = stream(&mut client, ahead).await.unwrap_err();
            assert!(matches!(error, ClientError::Server { .. }), "{error:?}");
            client.timeline_history(TimelineId::new(2).unwrap()).await.unwrap_err();
            client.identify_system().await.unwrap();
        });

        let base = cluster.pg_basebackup("base", &[]);
        let last = cluster.archive_now();
        scratch.write(base.join("recovery.signal"), "");
        let get = format!("restore_command=cp {}/%f \"%p\"", archive.display());
        let mut promoted =
            cluster.start_restored(&base, &["archive_mode=off", &get, "wal_keep_size=64MB"]).unwrap();
        promoted.wait_recovery_end();
        run(async {
            let mut client = connect(&promoted).await;
            let identity = client.identify_system().await.unwrap();
            assert_eq!(identity.timeline.as_u32(), 2);
            let history = client.timeline_history(identity.timeline).await.unwrap();
            assert_eq!(history.file_name, "00000002.history");
            let line = String::from_utf8(history.contents).unwrap();
            let switch: Lsn = line.trim().split('\t').nth(1).unwrap().parse().unwrap();

            let number = u64::from_str_radix(&last[16..], 16).unwrap()
                + u64::from_str_radix(&last[8..16], 16).unwrap() * 4096;
            let start = size.start_of(number).unwrap();
            let old = WalRequest { start, timeline: TimelineId::FIRST, slot: None, stop: None };
            match stream(&mut client, old.clone()).await {
                Ok((wal, end)) => {
                    assert_eq!(end, format!("EndOfTimeline {{ next: TimelineId(2), switch: {switch:?} }}"));
                    assert_eq!(Some(wal.len() as u64), switch.since(start));
                }
                // The restored server never had this segment under the old timeline.
                Err(ClientError::WalRemoved { .. }) => {
                    panic!("PostgreSQL {major}: {last} is not on the promoted server")
                }
                Err(other) => panic!("{other:?}"),
            }
            let at_the_end = WalRequest { start: switch, ..old };
            let (wal, end) = stream(&mut client, at_the_end).await.unwrap();
            assert!(wal.is_empty() && end.starts_with("EndOfTimeline"), "{end}");
        });
    }
}

#[test]
fn wal_that_is_gone_is_told_apart() {
    let scratch = Scratch::new();
    let cluster = Cluster::build(&scratch, oldest_major()).segment_size_mb(1).start();
    for _ in 0..5 {
        cluster.switch_wal();
    }
    cluster.sql("checkpoint");
    wait_until("old WAL to be recycled", || {
        cluster.switch_wal();
        cluster.sql("checkpoint");
        !cluster.data().join("pg_wal/000000010000000000000001").exists()
    });
    run(async {
        let mut client = connect(&cluster).await;
        let request =
            WalRequest { start: Lsn::new(1 << 20), timeline: TimelineId::FIRST, slot: None, stop: None };
        let error = stream(&mut client, request).await.unwrap_err();
        assert!(matches!(error, ClientError::WalRemoved { .. }), "{error:?}");
        client.identify_system().await.unwrap();
    });
}

/// `tests/env/chaos-proxy.py` in front of a server.
struct Chaos {
    child: Child,
    rules: PathBuf,
    port: u16,
}

impl Chaos {
    fn before(cluster: &Cluster, scratch: &Scratch) -> Self {
        let rules = scratch.write("rules.json", "[]");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/env/chaos-proxy.py");
        let socket = cluster.socket_dir().join(format!(".s.PGSQL.{}", cluster.port()));
        let mut child = Command::new("python3")
            .arg(script)
            .arg("--to")
            .arg(socket)
            .arg("--rules")
            .arg(&rules)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = lines
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("CHAOS_PORT=")?.parse().ok())
            .unwrap();
        Self { child, rules, port }
    }

    fn rule(&self, rule: &str) {
        std::fs::write(&self.rules, format!("[{rule}]")).unwrap();
    }

    async fn connect(&self) -> Result<ReplicationClient, ClientError> {
        let settings = ConnectionSettings {
            host: Some("127.0.0.1".to_owned()),
            port: Some(self.port),
            user: Some("postgres".to_owned()),
            ..ConnectionSettings::default()
        };
        ReplicationClient::connect(&ConnectionParameters::resolve(&settings, &BTreeMap::new(), None).unwrap())
            .await
    }
}

impl Drop for Chaos {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_connection_that_breaks_anywhere_is_an_error_and_leaves_no_wal_sender() {
    for major in majors_in_full() {
        let scratch = Scratch::new();
        let cluster = Cluster::build(&scratch, major).start();
        let chaos = Chaos::before(&cluster, &scratch);
        let whole = run(async {
            let mut client = chaos.connect().await.unwrap();
            let mut backup = client
                .base_backup(&BackupOptions { manifest: Manifest::Yes(ManifestChecksums::None), ..fast() })
                .await
                .unwrap();
            read_all(&mut backup).await.unwrap().0.data
        });
        // In the rows at the start, in the data, and shortly before the end.
        let points = [0, 5, 60, 150, 1000, 1_000_000, whole - 10_000, whole + 20_000];
        for (at, how) in points.into_iter().flat_map(|at| [(at, ""), (at, ", \"rst\": true")]) {
            chaos.rule(&format!(
                "{{\"do\": \"cut\", \"after_query\": \"BASE_BACKUP\", \"after\": {at}{how}}}"
            ));
            run(async {
                let mut client = chaos.connect().await.unwrap();
                let mut backup = client
                    .base_backup(&BackupOptions {
                        manifest: Manifest::Yes(ManifestChecksums::None),
                        ..fast()
                    })
                    .await
                    .unwrap();
                let error = read_all(&mut backup).await.unwrap_err();
                assert!(matches!(error, ClientError::ConnectionLost { .. }), "cut at {at}{how}: {error:?}");
                assert!(matches!(
                    backup.next().await,
                    Err(ClientError::ConnectionLost { .. } | ClientError::Unusable)
                ));
            });
        }
        no_wal_sender_stays(&cluster);

        chaos.rule("{\"do\": \"blackhole\", \"after_query\": \"BASE_BACKUP\", \"after\": 500000}");
        run(async {
            let mut client = chaos.connect().await.unwrap();
            let second = Duration::from_secs(1);
            client.set_limits(Limits { answer: second, silence: second });
            let mut backup = client.base_backup(&fast()).await.unwrap();
            let error = read_all(&mut backup).await.unwrap_err();
            assert!(matches!(error, ClientError::TimedOut { .. }), "{error:?}");
        });
        no_wal_sender_stays(&cluster);

        chaos.rule("{\"do\": \"cut\", \"after\": 10}");
        let error = run(chaos.connect()).unwrap_err();
        assert!(matches!(error, ClientError::ConnectionLost { .. }), "{error:?}");
    }
}

#[test]
fn a_standby_serves_a_backup_and_a_server_that_takes_nobody_says_why() {
    for major in majors_in_full() {
        let scratch = Scratch::new();
        let cluster = Cluster::build(&scratch, major).start();
        cluster.pgbench_init(1);
        let base = cluster.pg_basebackup("base", &["-X", "fetch"]);
        scratch.write(base.join("standby.signal"), "");
        let source = format!("primary_conninfo={}", cluster.conninfo());

        let mut closed = cluster.start_restored(&base, &[&source, "hot_standby=off"]).unwrap();
        let error = run(ReplicationClient::connect(&parameters(&closed, "postgres", None))).unwrap_err();
        match &error {
            ClientError::NotReady { state, .. } => {
                let known =
                    [ServerState::HotStandbyOff, ServerState::NotConsistentYet, ServerState::StartingUp];
                assert!(known.contains(state), "{error:?}");
            }
            other => panic!("PostgreSQL {major}: {other:?}"),
        }
        closed.stop(StopMode::Fast);
        drop(closed);

        let mut standby = cluster.start_restored(&base, &[&source]).unwrap();
        run(async {
            let mut client = connect(&standby).await;
            assert_eq!(
                client.sql("select pg_is_in_recovery()", "the state").await.unwrap().first().unwrap().text(0),
                Some("t")
            );
            let mut backup = client.base_backup(&fast()).await.unwrap();
            let (received, end) = read_all(&mut backup).await.unwrap();
            assert!(received.files.contains_key("standby.signal"));
            assert!(end.unwrap().lsn >= received.start.unwrap().0);

            // The server is stopped in the middle.
            let mut backup = client.base_backup(&fast()).await.unwrap();
            while !matches!(backup.next().await.unwrap(), Event::Data(_)) {}
            standby.stop(StopMode::Immediate);
            let error = loop {
                match backup.next().await {
                    Ok(Event::End(_)) => panic!("a stopped server ended its backup"),
                    Ok(_) => {}
                    Err(error) => break error,
                }
            };
            // Its last words come through, or the system reports the reset before they are read.
            let known =
                matches!(error, ClientError::EndedByServer { .. } | ClientError::ConnectionLost { .. });
            assert!(known, "{error:?}");
            drop(client);

            // An administrator ends the session.
            let mut client = connect(&cluster).await;
            cluster.sql("select pg_terminate_backend(pid) from pg_stat_activity where backend_type = 'walsender' and application_name = 'walden'");
            wait_until("the session to end", || {
                cluster.sql("select count(*) from pg_stat_activity where application_name = 'walden'") == "0"
            });
            let error = client.identify_system().await.unwrap_err();
            assert!(matches!(error, ClientError::EndedByServer { .. }), "{error:?}");
        });
    }
}
