//! The test bench itself: if these fail, look here first.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{
    BucketKind, Cluster, Identity, Proxy, Recovery, S3Proxy, S3Server, Scratch, SegmentVerdict, Server,
    StopMode, Walden, all_majors, finish, majors_in_full, newest_major, other_majors, segment_verdicts,
    test_all,
};

/// A script of the test bench that proves something by itself, as whoever runs the tests.
fn proves_itself(script: &str, arguments: &[&Path]) {
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/env").join(script));
    command.args(arguments).stdin(Stdio::null());
    let out = finish(command);
    assert!(out.success() && !out.stdout.contains("FAIL"), "{script}:\n{out}");
}

#[test]
fn the_faulty_store_can_do_each_thing_that_its_rules_offer() {
    if test_all() {
        proves_itself("s3-proxy-test.py", &[&S3Server::shared().env_file()]);
    }
}

#[test]
fn a_longer_wire_delays_both_ways_and_changes_nothing() {
    let scratch = Scratch::new();
    let echo = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = echo.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let (mut here, _) = echo.accept().unwrap();
        let mut there = here.try_clone().unwrap();
        std::io::copy(&mut here, &mut there).unwrap();
        there.shutdown(Shutdown::Write).unwrap();
    });
    // The checkout may be closed to the server's user.
    let code = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/env/tcp-delay.py")).unwrap();
    let mut command = scratch.command("python3");
    command.arg(scratch.write("delay.py", code)).arg(&target).arg("40").stdout(Stdio::piped());
    let mut wire = command.spawn().unwrap();
    let mut said = String::new();
    BufReader::new(wire.stdout.take().unwrap()).read_line(&mut said).unwrap();
    let port: u16 = said.trim().strip_prefix("DELAY_PORT=").unwrap().parse().unwrap();

    let mut line = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let asked = Instant::now();
    line.write_all(b"?").unwrap();
    line.read_exact(&mut [0]).unwrap();
    assert!(asked.elapsed() >= Duration::from_millis(80), "after {:?}", asked.elapsed());

    let much: Vec<u8> = (0..32_u32 << 20).map(|n| (n % 251) as u8).collect();
    let mut back = Vec::new();
    let mut reading = line.try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| reading.read_to_end(&mut back).unwrap());
        line.write_all(&much).unwrap();
        line.shutdown(Shutdown::Write).unwrap();
    });
    assert!(back == much, "{} of {} bytes came back as they were sent", back.len(), much.len());
    wire.kill().unwrap();
    wire.wait().unwrap();
}

#[test]
fn the_bad_network_can_do_each_thing_that_its_rules_offer() {
    if test_all() {
        let server = Server::of(newest_major());
        proves_itself("chaos-proxy-test.py", &[&server.bin, &server.client]);
    }
}

#[test]
fn every_major_is_tested_in_full_or_on_the_main_path() {
    let mut majors = majors_in_full();
    majors.extend(other_majors());
    majors.sort_unstable();
    assert_eq!(majors, all_majors());
}

#[test]
fn a_server_of_every_major_starts_answers_crashes_and_comes_back() {
    for major in all_majors() {
        let scratch = Scratch::new();
        let mut cluster = Cluster::build(&scratch, major).segment_size_mb(1).checksums(false).start();
        assert!(cluster.sql("show server_version").starts_with(&major.to_string()));
        assert_eq!(cluster.sql("show wal_segment_size; show data_checksums"), "1MB\noff");
        cluster.sql("create table t (a int); insert into t select generate_series(1, 1000)");
        assert!(cluster.try_sql("select no_such_column from t").unwrap_err().contains("no_such_column"));
        cluster.kill9();
        cluster.start();
        cluster.restart(StopMode::Fast);
        cluster.restart(StopMode::Immediate);
        assert_eq!(cluster.sql("select count(*) from t"), "1000");
    }
}

#[test]
fn a_base_backup_and_a_plain_archive_restore_to_a_paused_target_and_to_the_end() {
    for major in all_majors() {
        let scratch = Scratch::new();
        let archive = scratch.dir("archive").display().to_string();
        let cluster =
            Cluster::build(&scratch, major).archive_command(&format!("cp \"%p\" {archive}/%f")).start();
        assert_eq!(cluster.sql("show data_checksums"), "on");
        cluster.pgbench_init(1);
        let load = cluster.load();
        let base = cluster.pg_basebackup("base", &[]);
        drop(load);
        let verified = cluster.pg_verifybackup(&base, &["-n"]);
        assert!(verified.success(), "{verified}");

        cluster.sql("create table t (a int); insert into t values (1); select pg_create_restore_point('here'); insert into t values (2)");
        let last = cluster.archive_now();
        assert!(fs::exists(scratch.join("archive").join(&last)).unwrap());
        let live = cluster.dump();

        let copy = |name: &str| {
            let target = scratch.join(name);
            let mut cp = scratch.command("cp");
            cp.arg("-a").arg(&base).arg(&target);
            assert!(finish(cp).success());
            scratch.write(target.join("recovery.signal"), "");
            target
        };
        let get = format!("restore_command=cp {archive}/%f \"%p\"");

        let mut paused = cluster
            .start_restored(&copy("paused"), &["archive_mode=off", &get, "recovery_target_name=here"])
            .unwrap();
        paused.wait_paused();
        assert_eq!(paused.sql("select a from t"), "1");
        paused.promote();
        assert_eq!(paused.sql("select a from t"), "1");
        paused.stop(StopMode::Fast);

        let mut whole = cluster.start_restored(&copy("whole"), &["archive_mode=off", &get]).unwrap();
        whole.wait_recovery_end();
        assert!(live == whole.dump(), "PostgreSQL {major}: the restored contents differ");

        let refuses = "restore_command=exit 200";
        // Whether the server dies before it answers or after: it never comes up with what it has.
        let log = match cluster.start_restored(&copy("refused"), &["archive_mode=off", refuses]) {
            Err(log) => log,
            Ok(mut refused) => match refused.wait_recovery() {
                Recovery::Stopped { log } => log,
                other => panic!("PostgreSQL {major}: {other:?} although restore_command exits with 200"),
            },
        };
        assert!(log.contains("FATAL"), "{log}");
    }
}

#[test]
fn the_program_runs_as_the_servers_user_with_its_own_configuration() {
    let scratch = Scratch::new();
    let cluster = Cluster::build(&scratch, 18).create();
    let walden = Walden::new(&scratch);
    assert!(walden.ok(&["version"]).stdout.contains(env!("CARGO_PKG_VERSION")));
    walden.configure_plain(&cluster, &["process-max=3"]);
    let shown = walden.ok(&["config"]);
    assert!(shown.stdout.contains(&cluster.data().display().to_string()), "{shown}");
    walden.config(&["[global]", "no-such-option=1"]);
    walden.fails(2, &["config"]);
}

#[test]
fn a_proxy_passes_everything_on_until_a_rule_says_otherwise() {
    let scratch = Scratch::new();
    let cluster = Cluster::build(&scratch, 18).start();
    let proxy = Proxy::before(&cluster);
    let ask = || {
        let mut psql = cluster.program("psql");
        psql.env("PGHOST", proxy.socket_dir()).env("PGPORT", proxy.port().to_string());
        psql.args(["-XAtqc", "select repeat('x', 100000)"]);
        finish(psql)
    };
    assert_eq!(ask().text().len(), 100_000);
    proxy.rule(r#"{"do": "cut", "after": 5000}"#);
    assert!(!ask().success());
    proxy.rule("");
    assert_eq!(ask().text().len(), 100_000);
}

#[test]
fn the_oracle_tells_complete_segments_from_others() {
    let scratch = Scratch::new();
    let archive = scratch.dir("archive");
    let mut cluster = Cluster::build(&scratch, 18)
        .segment_size_mb(1)
        .archive_command(&format!("cp \"%p\" {}/%f", archive.display()))
        .start();
    cluster.sql("create table t as select g, md5(g::text) from generate_series(1, 10000) g");
    let done = archive.join(cluster.archive_now());
    cluster.sql("insert into t values (0, 'begun')");
    let begun =
        cluster.data().join("pg_wal").join(cluster.sql("select pg_walfile_name(pg_current_wal_lsn())"));
    cluster.stop(StopMode::Immediate);
    let neither = scratch.write("neither", [7; 8192]);
    use SegmentVerdict::{Complete, Incomplete, Unreadable};
    assert_eq!(segment_verdicts(&[done, begun, neither]), [Complete, Incomplete, Unreadable]);
}

#[test]
fn a_faulty_store_does_what_its_rules_say_and_tells_what_it_was_asked() {
    let scratch = Scratch::new();
    let server = S3Server::shared();
    let bucket = server.bucket(BucketKind::Plain);
    let mut proxy = S3Proxy::before(server, &scratch);
    let options = proxy.options(&bucket, Identity::Admin);
    let endpoint = options.iter().find(|(name, _)| name == "s3-endpoint").unwrap().1.clone();
    let ask = || {
        let mut curl = scratch.command("python3");
        let code = "import ssl, sys, urllib.request, urllib.error\n\
                    try: urllib.request.urlopen(sys.argv[1], context=ssl.create_default_context(cafile=sys.argv[2]))\n\
                    except urllib.error.HTTPError as e: print(e.code)\n\
                    except OSError as e: print('nothing')";
        curl.args(["-c", code]).arg(format!("{endpoint}/{bucket}/key")).arg(server.ca_file().unwrap());
        finish(curl).text().to_owned()
    };
    assert_eq!(ask(), "403", "without a signature");
    proxy.rules(r#"[{"do": "status", "status": 503, "count": 1, "path": "/key$"}]"#);
    assert_eq!((ask(), ask()), ("503".to_owned(), "403".to_owned()));
    let log = proxy.log();
    assert_eq!(log.iter().map(|r| r.status).collect::<Vec<_>>(), [Some(503), Some(403)]);
    assert_eq!((log[0].method.as_str(), log[0].path.clone()), ("GET", format!("/{bucket}/key")));
    assert_eq!(proxy.acted(), 1);
    proxy.down();
    assert_eq!(ask(), "nothing");
    proxy.up();
    assert_eq!(ask(), "403");
}
