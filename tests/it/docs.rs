//! README.md is tried: its commands and options exist, its set-up and its rescue run as they stand there, and what it
//! says this version cannot do, it cannot.
//!
//! A block to be run stands after a line `<!-- docs: NAME -->`. Only places are replaced by those of the test.

use crate::common::{Cluster, Output, Scratch, StopMode, Walden, finish, newest_major, wait_until};
use std::fs;
use std::path::Path;
use walden::commands::{offered, runner};
use walden::failure::Class;
use walden::settings::{command_named, commands};

fn at_top(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn block(name: &str) -> String {
    let readme = at_top("README.md");
    let marker = format!("<!-- docs: {name} -->\n```sh\n");
    let (_, rest) = readme.split_once(&marker).unwrap_or_else(|| panic!("README.md has no block \"{name}\""));
    rest.split_once("```").expect("the block ends").0.to_owned()
}

/// The calls of walden in README.md: in blocks where a command begins, and in backquotes.
fn calls() -> Vec<Vec<String>> {
    let readme = at_top("README.md");
    let mut found = Vec::new();
    for (at, part) in readme.split("```").enumerate() {
        if at % 2 == 1 {
            for line in part.lines() {
                let line = line.trim().trim_start_matches("$ ");
                let call = line.strip_prefix("walden ").or_else(|| {
                    ["; walden ", "bin/walden "].iter().find_map(|before| Some(line.split_once(before)?.1))
                });
                found.extend(call.map(str::to_owned));
            }
        } else {
            let quoted = part.split('`').skip(1).step_by(2);
            found.extend(quoted.filter_map(|code| Some(code.strip_prefix("walden ")?.replace('\n', " "))));
        }
    }
    found
        .iter()
        .map(|call| {
            let end = call.find(['#', '>', '|']).unwrap_or(call.len());
            call[..end].split_whitespace().map(str::to_owned).collect()
        })
        .collect()
}

#[test]
fn every_command_and_option_in_the_readme_exists() {
    let scratch = Scratch::new();
    let calls = calls();
    assert!(calls.len() > 20, "README.md's commands were not found: {calls:?}");
    for call in calls {
        let (options, words): (Vec<&String>, Vec<&String>) =
            call.iter().partition(|word| word.starts_with("--"));
        let command = words.first().unwrap_or_else(|| panic!("no command in {call:?}")).as_str();
        let spec = command_named(command).unwrap_or_else(|| panic!("no command {command}: {call:?}"));
        assert!(runner(spec.name).is_some(), "{command} cannot be run");
        let mut pages: Vec<Vec<&str>> = options
            .iter()
            .map(|option| {
                let name = option.trim_start_matches("--");
                vec![command, name.split_once('=').map_or(name, |(name, _)| name)]
            })
            .collect();
        if command == "help" {
            // What stands in capitals is for the reader to fill in.
            pages.push(words[1..].iter().map(|w| w.as_str()).filter(|w| *w != w.to_uppercase()).collect());
        }
        for page in pages {
            let mut help = scratch.command(env!("CARGO_BIN_EXE_walden"));
            let out = finish({
                help.arg("help").args(&page);
                help
            });
            assert!(out.success(), "README.md says {call:?}, but\n{out}");
        }
    }
}

#[test]
fn every_command_has_a_runner_a_page_and_help() {
    let index = at_top("man/walden.1");
    for spec in commands() {
        assert!(runner(spec.name).is_some(), "{} cannot be run", spec.name);
        assert!(at_top(&format!("man/walden-{}.1", spec.name)).starts_with(".TH "), "{}", spec.name);
        let listed = format!("walden\\-{} (1)", spec.name.replace('-', "\\-"));
        assert!(index.contains(&listed), "man/walden.1 does not list {}", spec.name);
        let scratch = Scratch::new();
        let mut help = scratch.command(env!("CARGO_BIN_EXE_walden"));
        help.args(["help", spec.name]);
        let out = finish(help);
        assert!(out.success(), "{out}");
    }
    assert_eq!(offered().count(), commands().len());
    let pages = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("man")).unwrap().count();
    assert_eq!(pages, commands().len() + 1, "man/ has pages of commands that are gone");
}

#[test]
fn exit_codes_and_limits_are_what_the_readme_says() {
    assert!(Class::ALL.contains(&(Class::DoneWithWarnings, 50, "done, with warnings to read")));
    for name in ["stanza-upgrade", "stanza-delete", "stop", "start"] {
        assert!(calls().iter().flatten().any(|word| word == name), "README.md does not tell of {name}");
        assert!(command_named(name).is_some(), "README.md tells of {name}, which is not there");
    }
    let scratch = Scratch::new();
    for arguments in
        [&["backup", "--type=incr"][..], &["config", "--repo1-type=s3"], &["restore", "--db-include=a"]]
    {
        let mut command = scratch.command(env!("CARGO_BIN_EXE_walden"));
        command.args(arguments);
        let out = finish(command);
        assert_eq!(out.code, Some(2), "README.md's limits say that this is refused:\n{out}");
    }
}

/// The machine of README.md, in a scratch directory.
struct Machine {
    scratch: Scratch,
    cluster: Cluster,
    walden: Walden,
}

impl Machine {
    fn new() -> Self {
        let scratch = Scratch::new();
        let major = newest_major();
        let cluster = Cluster::build(&scratch, major).conf(&["fsync = on"]).start();
        // What Debian's configuration directory has besides.
        scratch.dir(cluster.data().join("conf.d"));
        let walden = Walden::new(&scratch);
        for name in ["etc", "varlib", "tmp", "rescue"] {
            scratch.dir(name);
        }
        Self { scratch, cluster, walden }
    }

    fn place(&self, name: &str) -> String {
        self.scratch.join(name).display().to_string()
    }

    fn run(&self, name: &str) -> Output {
        let sockets = self.cluster.socket_dir().display().to_string();
        let data = self.cluster.data().display().to_string();
        let walden = self.walden.binary().display().to_string();
        let mut me = self.scratch.command("id");
        me.arg("-un");
        let me = finish(me).text().to_owned();
        let mut text = block(name);
        let places: [(&str, &str); 14] = [
            ("sudo install -d -o postgres -g postgres", "install -d"),
            ("sudo systemctl restart postgresql@17-main", ": restarted by the test"),
            ("'walden postgres walden'", &format!("'walden {me} walden'")),
            ("local all postgres peer", "local all postgres trust"),
            ("/usr/local/bin/walden", &format!("{walden} --config={}/walden.conf", self.place("etc"))),
            ("/etc/postgresql/17/main", &data),
            ("/var/lib/postgresql/17/main", &data),
            ("/var/lib/postgresql/17/back", &self.place("back")),
            ("/var/lib/walden", &self.place("varlib/walden")),
            ("/var/log/walden", &self.place("log")),
            ("/etc/walden", &self.place("etc")),
            ("/mnt/rescue", &self.place("rescue")),
            ("/tmp/back.log", &self.place("tmp/back.log")),
            ("-o '-p 5433'", &format!("-o '-p 5433 -k {sockets} -c listen_addresses='")),
        ];
        // In two steps, so that a place of the test is not taken for one of README.md.
        for (at, (there, _)) in places.iter().enumerate() {
            text = text.replace(there, &format!("\u{1}{at}\u{1}"));
        }
        for (at, (_, here)) in places.iter().enumerate() {
            text = text.replace(&format!("\u{1}{at}\u{1}"), here);
        }
        let server = self.cluster.server();
        let directory = |program: &str| server.program(program).parent().unwrap().display().to_string();
        let path = format!(
            "{}:{}:{}:/usr/bin:/bin",
            self.walden.binary().parent().unwrap().display(),
            directory("psql"),
            directory("pg_ctl")
        );
        let mut shell = self.scratch.command("bash");
        shell
            .args(["-e", "-o", "pipefail", "-c", &text])
            .env("PATH", path)
            .env("PGHOST", sockets)
            .env("PGPORT", self.cluster.port().to_string())
            .env("PGUSER", "postgres")
            .env("PGDATABASE", "postgres");
        if name != "rescue" {
            shell.env("WALDEN_CONFIG", self.scratch.join("etc/walden.conf"));
        }
        let out = finish(shell);
        assert!(out.success(), "README.md, \"{name}\":\n{text}\n{out}");
        out
    }
}

#[test]
fn the_set_up_of_the_readme_works_line_by_line_and_so_does_its_rescue() {
    let mut machine = Machine::new();
    for step in ["set-up 1", "set-up 2", "set-up 3", "set-up 4", "set-up 5", "set-up 6"] {
        machine.run(step);
    }
    assert!(
        fs::read_to_string(machine.cluster.data().join("pg_hba.conf"))
            .unwrap()
            .starts_with("local replication walden")
    );
    machine.cluster.restart(StopMode::Fast);
    // The role comes in by the line of the set-up alone.
    machine.cluster.sql("create table orders as select generate_series(1, 42) as n");
    let taken = machine.run("set-up 7");
    assert!(taken.stdout.contains("You can go back to any moment in"), "{taken}");
    let checked = machine.run("set-up check");
    assert!(checked.stdout.ends_with("all is well\n"), "{checked}");
    machine.cluster.sql("insert into orders values (43)");
    machine.cluster.archive_now();

    machine.run("set-up 8");
    machine.run("configuration");
    machine.run("set-up 9");
    assert!(!machine.scratch.join("back").exists());

    // All configuration lost: PostgreSQL wants no less than what pg_control says.
    machine.run("set-up 8");
    for name in ["postgresql.conf", "pg_hba.conf", "pg_ident.conf"] {
        fs::remove_file(machine.scratch.join("back").join(name)).unwrap();
    }
    machine.run("new configuration");
    let written = fs::read_to_string(machine.scratch.join("back/postgresql.conf")).unwrap();
    assert!(
        written.contains("max_connections = 30\n") && written.contains("max_prepared_transactions = "),
        "{written}"
    );
    machine.run("set-up 9");

    // The host and its configuration are gone; the repository and the key are left.
    machine.cluster.stop(StopMode::Fast);
    let mut copy = machine.scratch.command("bash");
    copy.args(["-ec", "mv varlib/walden etc/repo1.key rescue/; rm -r etc"]);
    let copied = finish(copy);
    assert!(copied.success(), "{copied}");
    machine.run("rescue");
    let rescued =
        machine.cluster.start_restored(&machine.scratch.join("rescue/data"), &[]).expect("it starts");
    wait_until("the end of recovery", || !rescued.in_recovery());
    assert_eq!(rescued.sql("select count(*) from orders"), "43");
}
