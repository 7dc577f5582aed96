//! README.md is tried: its commands and options exist, its set-up and its rescue run as they stand there, and what it
//! says this version cannot do, it cannot.
//!
//! A block to be run stands after a line `<!-- docs: NAME -->`. Only places are replaced by those of the test.

use crate::common::{
    BucketKind, Cluster, Identity, Output, S3Server, STANZA, Scratch, StopMode, Walden, finish, newest_major,
    test_all, wait_until,
};
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
    let readme = at_top("README.md");
    for (words, arguments) in [
        ("**Full backups only.**", ["backup", "--type=incr"]),
        ("For each option that walden lacks", ["restore", "--db-include=a"]),
    ] {
        assert!(
            readme.contains(words),
            "README.md does not say \"{words}\" any more: is this test still right?"
        );
        let mut command = scratch.command(env!("CARGO_BIN_EXE_walden"));
        command.args(arguments);
        let out = finish(command);
        assert_eq!(out.code, Some(2), "README.md says \"{words}\":\n{out}");
    }
}

/// The settings that a text in Markdown shows, each as a configuration file: what is between `<<'END'` and `END`, blocks
/// of `ini`, and blocks of indented lines.
fn configurations(markdown: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, part) in markdown.split("```").enumerate() {
        if at % 2 == 1 {
            if let Some(lines) = part.strip_prefix("ini\n") {
                found.push(format!("[{STANZA}]\n{lines}"));
            }
            for text in part.split("<<'END'\n").skip(1) {
                found.push(text.split_once("\nEND\n").expect("it ends").0.to_owned());
            }
        } else {
            let lines: Vec<&str> = part.lines().filter_map(|line| line.strip_prefix("    ")).collect();
            let settings = lines.iter().filter(|line| line.contains('=') && !line.contains(' '));
            let settings: Vec<&str> = settings.copied().collect();
            if !settings.is_empty() {
                found.push(format!("[global]\n{}", settings.join("\n")));
            }
        }
    }
    found
}

/// What walden has against a configuration file.
fn complaint(scratch: &Scratch, contents: &str) -> Option<String> {
    let path = scratch.write("walden.conf", format!("{contents}\n"));
    let mut config = scratch.command(env!("CARGO_BIN_EXE_walden"));
    config.arg("config").arg(format!("--stanza={STANZA}")).arg(format!("--config={}", path.display()));
    let out = finish(config);
    (!out.success()).then(|| out.to_string())
}

#[test]
fn every_setting_shown_in_the_readme_is_accepted_and_a_typo_in_one_is_caught() {
    let scratch = Scratch::new();
    let readme = at_top("README.md");
    let shown = configurations(&readme);
    let names = ["repo1-path=/var/lib", "repo1-s3-bucket", "pg1-conninfo", "repo1-retention-full", "READER"];
    for name in names {
        assert!(shown.iter().any(|text| text.contains(name)), "README.md's {name} was not found: {shown:?}");
    }
    for text in &shown {
        assert_eq!(complaint(&scratch, text), None, "README.md shows\n{text}");
    }
    for (right, wrong) in
        [("repo1-s3-bucket=", "repo1-s3-buket="), ("pg1-conninfo=", "pg1-coninfo="), ("14d", "14q")]
    {
        let damaged = configurations(&readme.replace(right, wrong));
        assert!(damaged.iter().any(|text| complaint(&scratch, text).is_some()), "{wrong} was not caught");
    }
    // In prose, too: what stands in backquotes and begins like an option that has a number.
    let quoted = readme.split("```").step_by(2).flat_map(|part| part.split('`').skip(1).step_by(2));
    let mut options = 0;
    for option in quoted.filter(|word| word.starts_with("repo1-") || word.starts_with("pg1-")) {
        let name = option.split_once('=').map_or(option, |(name, _)| name);
        // `repo1-s3-…` stands for several.
        if name.ends_with('…') {
            continue;
        }
        options += 1;
        let known = commands().iter().any(|spec| {
            let mut help = scratch.command(env!("CARGO_BIN_EXE_walden"));
            help.args(["help", spec.name, name]);
            finish(help).success()
        });
        assert!(known, "README.md names `{option}`, which no command has");
    }
    assert!(options > 5, "only {options} options were found");
}

#[test]
fn the_demo_tells_its_story_to_the_end() {
    if !test_all() {
        return;
    }
    let mut demo = std::process::Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/env/demo"));
    demo.env("WALDEN", env!("CARGO_BIN_EXE_walden")).env_remove("KEEP").stdin(std::process::Stdio::null());
    let out = finish(demo);
    assert!(out.success(), "{out}");
    assert_eq!(
        out.stdout.matches("The same, to the cent.").count(),
        2,
        "two mistakes, two ways back:\n{out}"
    );
    assert!(out.stdout.contains(" s from the empty directory to here."), "{out}");
}

/// The machine of README.md, in a scratch directory.
struct Machine {
    scratch: Scratch,
    cluster: Cluster,
    walden: Walden,
}

impl Machine {
    fn new() -> Self {
        let mut machine = Self::without_server();
        machine.cluster.start();
        machine
    }

    /// A machine whose server was never started.
    fn without_server() -> Self {
        let scratch = Scratch::new();
        let major = newest_major();
        let cluster = Cluster::build(&scratch, major).conf(&["fsync = on"]).create();
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
        self.run_with(name, &[])
    }

    /// Runs a block in which more is replaced.
    fn run_with(&self, name: &str, more: &[(&str, String)]) -> Output {
        let sockets = self.cluster.socket_dir().display().to_string();
        let port = self.cluster.port().to_string();
        let data = self.cluster.data().display().to_string();
        let walden = self.walden.binary().display().to_string();
        let mut me = self.scratch.command("id");
        me.arg("-un");
        let me = finish(me).text().to_owned();
        let mut text = block(name);
        let rescued =
            format!("pg_ctl -o '-p {port} -k {sockets} -c listen_addresses=' -D {}", self.place("rescue"));
        let mut places: Vec<(&str, String)> = more.to_vec();
        places.extend([
            ("pg_ctl -D /mnt/rescue", rescued),
            ("sudo install -d -o postgres -g postgres", "install -d".to_owned()),
            ("sudo systemctl restart postgresql@17-main", ": restarted by the test".to_owned()),
            ("'walden postgres walden'", format!("'walden {me} walden'")),
            ("local all postgres peer", "local all postgres trust".to_owned()),
            ("/usr/local/bin/walden", format!("{walden} --config={}/walden.conf", self.place("etc"))),
            ("/etc/postgresql/17/main", data.clone()),
            ("/var/lib/postgresql/17/main", data),
            ("/var/lib/postgresql/17/back", self.place("back")),
            ("/var/lib/walden", self.place("varlib/walden")),
            ("/var/log/walden", self.place("log")),
            ("/etc/walden", self.place("etc")),
            ("/mnt/rescue", self.place("rescue")),
            ("/tmp/back.log", self.place("tmp/back.log")),
            ("-o '-p 5433'", format!("-o '-p 5433 -k {sockets} -c listen_addresses='")),
        ]);
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
            .env("PGPORT", port)
            .env("PGUSER", "postgres")
            .env("PGDATABASE", "postgres");
        if !name.starts_with("rescue") {
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
    machine.rescued_holds(43);
}

impl Machine {
    /// Starts what a rescue brought back, as the README says, and counts the orders in it.
    fn rescued_holds(&self, orders: u32) {
        self.run("rescue start");
        // At the address of the server that is gone.
        wait_until("the end of recovery", || !self.cluster.in_recovery());
        assert_eq!(self.cluster.sql("select count(*) from orders"), orders.to_string());
    }
}

/// The lines of README.md for a repository in an object store.
fn lines_for_a_bucket() -> String {
    let readme = at_top("README.md");
    let found = readme.split("```ini\n").find(|part| part.starts_with("repo1-type=s3\n"));
    found.expect("a block of ini").split_once("\n```").unwrap().0.to_owned()
}

#[test]
fn from_the_bucket_the_key_and_the_readme_alone_a_cluster_comes_back_on_another_machine() {
    let server = S3Server::shared();
    let bucket = server.bucket(BucketKind::Versioned);
    let here = |text: &str, machine: &Machine, identity: Identity| {
        // Certificates of one's own are the README's words, not its lines.
        let ca = machine.scratch.write("ca.crt", fs::read(server.ca_file().unwrap()).unwrap());
        let more = format!("\nrepo1-s3-uri-style=path\nrepo1-storage-ca-file={}", ca.display());
        let key = format!("repo1-s3-key={}", server.key(identity).0);
        let changes = [
            ("s3.eu-north-1.amazonaws.com", format!("{}{more}", server.endpoint())),
            ("eu-north-1", "us-east-1".to_owned()),
            ("shop-backups", bucket.clone()),
            ("repo1-s3-key=AKIA…", key.clone()),
            ("repo1-s3-key=READER", key),
        ];
        changes.iter().fold(text.to_owned(), |text, (there, here)| text.replace(there, here))
    };
    let key = {
        let mut machine = Machine::new();
        machine.run("set-up 1");
        machine.run("set-up 2");
        machine.scratch.write("etc/s3.secret", server.key(Identity::NoDelete).1);
        let lines = here(&lines_for_a_bucket(), &machine, Identity::NoDelete)
            .replace("/etc/walden", &machine.place("etc"));
        // The policy of "Least rights" comes with it.
        let lines = format!("{lines}\nexpire-auto=n");
        machine.run_with("set-up 3", &[("repo1-path=/var/lib/walden", lines)]);
        machine.run("set-up 4");
        machine.run("set-up 5");
        machine.run("set-up 6");
        machine.cluster.restart(StopMode::Fast);
        machine.cluster.sql("create table orders as select generate_series(1, 42) as n");
        machine.run("set-up 7");
        machine.cluster.sql("insert into orders values (43)");
        machine.cluster.archive_now();
        fs::read(machine.scratch.join("etc/repo1.key")).unwrap()
        // And the whole tree goes: server, configuration, log.
    };
    let machine = Machine::without_server();
    machine.scratch.write("rescue/repo1.key", key);
    machine.scratch.write("rescue/s3.secret", server.key(Identity::ReadOnly).1);
    // Only the block's own lines are changed, not the places in them.
    let written = block("rescue from a bucket");
    let (_, lines) = written.split_once("[global]\n").unwrap();
    let (lines, _) = lines.split_once("END").unwrap();
    let lines_here =
        here(lines, &machine, Identity::ReadOnly).replace("/mnt/rescue", &machine.place("rescue"));
    machine.run_with("rescue from a bucket", &[(lines, lines_here)]);
    machine.rescued_holds(43);
}
