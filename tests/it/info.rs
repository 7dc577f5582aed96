//! `info`, `repo-ls` and `repo-get` over what real servers stored.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::Value;

use crate::common::{Cluster, Output, Replace, Scratch, Walden, golden, majors_in_full};

fn json(out: &Output) -> Value {
    serde_json::from_str(&out.stdout).unwrap_or_else(|e| panic!("{e}\n{out}"))
}

fn narrow(out: &Output) -> &str {
    assert!(out.stdout.lines().all(|line| line.chars().count() <= 100), "{out}");
    &out.stdout
}

/// Where an object of the first repository lies.
fn object(walden: &Walden, ends_with: &str) -> (String, PathBuf) {
    let all = walden.ok(&["repo-ls", "--recurse"]).stdout;
    let name = all.lines().find(|name| name.ends_with(ends_with));
    let name = name.unwrap_or_else(|| panic!("no {ends_with} in\n{all}")).to_owned();
    let path = walden.repo_path().join(&name);
    (name, path)
}

#[test]
fn a_backup_and_the_moments_after_it_are_shown_and_a_lost_segment_is_a_gap() {
    for major in majors_in_full() {
        let scratch = Scratch::new();
        let walden = Walden::new(&scratch);
        let cluster = Cluster::build(&scratch, major)
            .segment_size_mb(1)
            .archive_command(&walden.archive_command())
            .start();
        walden.configure(&cluster, &[]);
        walden.fails(10, &["info"]);
        walden.ok(&["stanza-create"]);
        let empty = walden.ok(&["info"]);
        assert!(
            narrow(&empty).contains("There is no moment yet") && empty.stdout.contains("no backup"),
            "{empty}"
        );

        walden.ok(&["backup", "--type=full", "--start-fast", "--annotation=ticket=OPS-311"]);
        cluster.sql("create table t (a int); insert into t values (1)");
        let second = cluster.archive_now();
        let told = json(&walden.ok(&["--output=json", "info"]));
        let stanza = &told["stanzas"][0];
        assert_eq!(
            (&stanza["name"], &stanza["status"]),
            (&Value::from("shop"), &Value::from("ok")),
            "{told:#}"
        );
        let backup = &stanza["backups"][0];
        assert_eq!(backup["annotations"]["ticket"], "OPS-311");
        assert_eq!((&backup["kind"], &backup["status"]), (&Value::from("full"), &Value::from("ok")));
        let files = cluster.sql("select count(*) from pg_ls_dir('base')").parse::<u64>().unwrap();
        assert!(backup["files"].as_u64().unwrap() > files);
        let windows = stanza["clusters"][0]["windows"].as_array().unwrap();
        assert_eq!(windows.len(), 1, "{told:#}");
        assert_eq!((&windows[0]["ends"], &windows[0]["backup"]), (&Value::from("newest"), &backup["id"]));
        assert_eq!(windows[0]["from_lsn"], backup["stop_lsn"]);
        let last = cluster.sql(&format!(
            "select pg_walfile_name('{}'::pg_lsn - 1)",
            windows[0]["until_lsn"].as_str().unwrap()
        ));
        assert_eq!(last, second);
        assert!(windows[0]["last_commit_at"].as_str() > backup["stopped_at"].as_str(), "{told:#}");

        let text = walden.ok(&["info"]);
        let id = backup["id"].as_str().unwrap();
        for part in ["You can go back to any moment in", &id[..25], "ticket=OPS-311", "newest commit"] {
            assert!(narrow(&text).contains(part), "{text}");
        }
        let one = walden.ok(&["info", &format!("--set={}", &id[..17])]);
        assert!(one.stdout.contains(id) && one.stdout.contains("all pages good"), "{one}");

        // What lies in the repository is what the server wrote.
        let (name, _) = object(&walden, &second);
        let copy = walden.join("segment");
        let mut get = walden.command(&["repo-get", &name]);
        get.stdout(fs::File::create(&copy).unwrap());
        assert!(get.status().unwrap().success());
        assert!(fs::read(copy).unwrap() == fs::read(cluster.data().join("pg_wal").join(&second)).unwrap());
        let (record, _) = object(&walden, ".2-outcome");
        assert!(walden.ok(&["repo-get", &record]).stdout.contains("\"backup_label\""));

        // A segment is lost: the window ends before it, and what lies behind it cannot be reached.
        cluster.sql("insert into t values (2)");
        let lost = cluster.archive_now();
        cluster.sql("insert into t values (3)");
        cluster.archive_now();
        fs::remove_file(object(&walden, &lost).1).unwrap();
        let gapped = walden.ok(&["info"]);
        assert!(narrow(&gapped).contains("ends at a gap"), "{gapped}");
        assert!(gapped.stdout.contains(&format!("{lost} is missing")), "{gapped}");
        let told = json(&walden.ok(&["--output=json", "info"]));
        let cluster_told = &told["stanzas"][0]["clusters"][0];
        assert_eq!(cluster_told["gaps"][0]["first_segment"], lost.as_str(), "{told:#}");
        assert_eq!(cluster_told["windows"][0]["ends"], "gap");
        // A backup behind it opens a window of its own.
        walden.ok(&["backup", "--type=full", "--start-fast"]);
        let told = json(&walden.ok(&["--output=json", "info"]));
        let windows = &told["stanzas"][0]["clusters"][0]["windows"];
        assert_eq!(
            (&windows[0]["ends"], &windows[1]["ends"]),
            (&Value::from("newest"), &Value::from("gap")),
            "{told:#}"
        );
        assert_eq!(told["stanzas"][0]["clusters"][0]["gaps"][0]["segments"], 1);

        // A record that was changed is shown as such; the other backup is still there.
        let (record, path) = object(&walden, &format!("{id}.2-outcome"));
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).unwrap();
        let damaged = walden.fails(50, &["info"]);
        assert!(
            narrow(&damaged).contains("cannot be read") && damaged.stdout.contains(" full "),
            "{damaged}"
        );
        walden.fails(40, &["repo-get", &record]);

        scratch.write(walden.key_path(), Walden::new(&scratch).ok(&["key-generate"]).stdout);
        walden.fails(12, &["info"]);
    }
}

#[test]
fn of_two_repositories_one_may_be_behind_or_gone() {
    let scratch = Scratch::new();
    let walden = Walden::new(&scratch);
    let cluster = Cluster::build(&scratch, 18).archive_command(&walden.archive_command()).start();
    let second = format!("repo2-path={}", walden.join("repo2").display());
    walden.configure_plain(&cluster, &[&second]);
    walden.ok(&["stanza-create"]);
    walden.ok(&["backup", "--type=full", "--start-fast"]);
    let text = walden.ok(&["info"]);
    assert!(text.stdout.lines().any(|line| line.starts_with("repo2") && line.ends_with("ok")), "{text}");

    let name = cluster.archive_now();
    let (held, _) = object(&walden, &name);
    fs::remove_file(walden.join("repo2").join(&held)).unwrap();
    let text = walden.ok(&["info"]);
    assert!(text.stdout.contains("1 segment behind"), "{text}");

    fs::rename(walden.join("repo2"), walden.join("elsewhere")).unwrap();
    let text = walden.fails(50, &["info"]);
    assert!(text.stdout.contains("You can go back to any moment in"), "{text}");
    assert!(
        text.stdout.lines().any(|line| line.starts_with("repo2") && line.ends_with("unavailable")),
        "{text}"
    );
    walden.fails(10, &["--repo=2", "info"]);
    walden.fails(50, &["--stanza=shop", "info"]);
    // The first one is there: what needs only one repository is as it always is.
    walden.ok(&["repo-ls"]);
    assert!(walden.ok(&["repo-get", &held]).stderr.is_empty());

    // The other way round, the second serves in its place, and says so.
    fs::rename(walden.join("elsewhere"), walden.join("repo2")).unwrap();
    let newest = cluster.archive_now();
    let (held, path) = object(&walden, &newest);
    let segment = fs::read(cluster.data().join("pg_wal").join(&newest)).unwrap();
    let get = |code: i32, more: &[&str]| {
        let copy = walden.join("segment");
        let mut get = walden.command(&[more, &["repo-get", &held]].concat());
        let output = get.stdout(fs::File::create(&copy).unwrap()).stderr(Stdio::piped()).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{told}");
        (fs::read(copy).unwrap() == segment, told)
    };
    assert_eq!(get(0, &["--repo=2"]), (true, String::new()));
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    let (right, told) = get(50, &[]);
    assert!(right && told.contains("repo1") && told.contains(&format!("{held} is from repo2")), "{told}");
    assert!(!get(40, &["--repo=1"]).0);
    fs::remove_file(path).unwrap();
    let (right, told) = get(0, &[]);
    assert!(right && told.contains("not in repo1"), "{told}");
    fs::rename(walden.repo_path(), walden.join("elsewhere")).unwrap();
    assert!(get(50, &[]).0);
    let listed = walden.fails(50, &["repo-ls", "--recurse"]);
    assert!(
        listed.stdout.contains(&held) && listed.stderr.contains("this is what lies in repo2"),
        "{listed}"
    );
    let listed = json(&walden.fails(50, &["--output=json", "repo-ls", "shop"]));
    assert!(listed.as_array().is_some_and(|all| all.iter().any(|one| one["name"] == "wal")), "{listed:#}");
    walden.fails(10, &["--repo=1", "repo-ls"]);
}

#[test]
fn what_each_of_two_repositories_brings_back_alone_is_told_and_restore_agrees() {
    let scratch = Scratch::new();
    let walden = Walden::new(&scratch);
    let cluster =
        Cluster::build(&scratch, 18).segment_size_mb(1).archive_command(&walden.archive_command()).start();
    let second = format!("repo2-path={}", walden.join("repo2").display());
    walden.configure_plain(&cluster, &[&second, "repo2-cipher-type=none"]);
    walden.ok(&["stanza-create"]);
    // The second repository has all WAL and no backup.
    walden.ok(&["backup", "--type=full", "--start-fast"]);
    cluster.sql("create table t (a int)");
    // A moment between two commits, and the segment in which they are.
    let round = |row: u32| {
        cluster.sql(&format!("insert into t values ({row})"));
        let moment = cluster
            .sql("select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')");
        cluster.sql(&format!("insert into t values ({row})"));
        (moment, cluster.archive_now())
    };
    let (before, _) = round(1);
    let (_, lost) = round(2);
    let (after, newest) = round(3);
    let whole = walden.ok(&["info"]);
    assert_eq!(whole.stdout.matches("alone: ").count(), 1, "{whole}");
    // The first has the backup and not all WAL.
    let (held, path) = object(&walden, &lost);
    fs::remove_file(path).unwrap();
    let text = walden.ok(&["info"]);
    assert_eq!(narrow(&text).lines().nth(3), whole.stdout.lines().nth(3), "together they lack nothing");
    let told = json(&walden.ok(&["--output=json", "info"]));
    let stanza = &told["stanzas"][0];
    assert_eq!(stanza["status"], "ok", "{told:#}");
    let window = |of: &Value| of["windows"][0]["until_lsn"].clone();
    let (both, repositories) = (&stanza["clusters"][0], &stanza["repositories"]);
    assert_eq!(repositories[0]["clusters"][0]["gaps"][0]["first_segment"], lost.as_str(), "{told:#}");
    assert_eq!(repositories[1]["clusters"][0]["windows"], Value::Array(Vec::new()));
    let lsn = |value: &Value| value.as_str().unwrap().to_owned();
    let name = |value: &Value| cluster.sql(&format!("select pg_walfile_name('{}')", lsn(value)));
    assert_eq!(name(&window(&repositories[0]["clusters"][0])), lost);
    assert!(name(&window(both)) > newest);

    // One repository by its number is told as if it were the only one.
    let first = json(&walden.ok(&["--repo=1", "--output=json", "info"]));
    let of_first = &first["stanzas"][0]["clusters"][0];
    for key in ["windows", "gaps"] {
        assert_eq!(of_first[key], repositories[0]["clusters"][0][key]);
    }
    assert!(!walden.ok(&["--repo=1", "info"]).stdout.contains("alone"));

    // What is told is what a restore does: with the first alone it ends before the gap, with both it does not.
    let until = |of: &Value| of["windows"][0]["until_at"].as_str().unwrap().to_owned();
    assert!(before < until(of_first) && until(of_first) < after && after < until(both), "{told:#}");
    let target = format!("--pg1-path={}", scratch.join("back").display());
    let restore = |code: i32, to: &str, more: &[&str]| {
        let to = format!("--target={to}");
        let line: Vec<&str> =
            ["restore", "--dry-run", "--type=time", &target, &to].iter().chain(more).copied().collect();
        if code == 0 { walden.ok(&line) } else { walden.fails(code, &line) }
    };
    restore(0, &after, &[]);
    // Where the other repository is gone, it is out of the configuration.
    let only = |path: PathBuf| {
        let lines = format!("[global]\nrepo1-path={}\nrepo1-cipher-type=none\n", path.display());
        let config = scratch.write(walden.join("only.conf"), lines);
        format!("--config={}", config.display())
    };
    let first_only = only(walden.repo_path());
    restore(0, &before, &[&first_only]);
    restore(43, &after, &[&first_only]);
    restore(10, &before, &[&only(walden.join("repo2"))]);

    let lines = text.stdout.lines().skip_while(|line| !line.starts_with("repo1"));
    let said: String = lines
        .map(|line| match line.strip_prefix("repo") {
            // How wide a column is depends on sizes.
            Some(_) => format!("{}\n", line.split_whitespace().collect::<Vec<_>>().join(" ")),
            None => format!("{line}\n"),
        })
        .collect();
    let clusters: Vec<&Value> =
        repositories.as_array().unwrap().iter().map(|repository| &repository["clusters"]).collect();
    let clusters = serde_json::to_string_pretty(&clusters).unwrap();
    let mut replacements = vec![
        Replace::text(walden.join("repo2").display(), "REPO2"),
        Replace::text(walden.repo_path().display(), "REPO1"),
        Replace::text(stanza["clusters"][0]["system_identifier"].as_str().unwrap(), "SYSTEM"),
        Replace::Shape("0+.0 MB", "SIZE"),
        Replace::Shape("0+.0 kB", "SIZE"),
        Replace::Shape("0+ a+ ago", "AGO"),
        Replace::Shape("\"duration_seconds\": 0+", "\"duration_seconds\": SECONDS"),
    ];
    replacements.extend(Replace::backup_ids());
    replacements.extend(Replace::times());
    replacements.extend(Replace::segments());
    replacements.extend(Replace::lsns());
    golden("info/two-repositories", &format!("{said}\n{clusters}\n"), &replacements);
    assert!(walden.join("repo2").join(held).exists());
}
