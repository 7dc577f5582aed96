//! What is delivered around the program: units, cron lines, the sample configuration, completions and manual pages are
//! judged by the programs that read them, the images and the package (`WALDEN_TEST_ALL=1`) by being made.

use crate::common::{Output, Scratch, finish, test_all};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

fn at_top(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn text(name: &str) -> String {
    fs::read_to_string(at_top(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn files(folder: &str) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = fs::read_dir(at_top(folder)).unwrap().map(|e| e.unwrap().path()).collect();
    all.sort();
    assert!(!all.is_empty(), "{folder} is empty");
    all
}

fn run(scratch: &Scratch, program: &str, arguments: &[&str]) -> Output {
    let mut command = scratch.command(program);
    command.args(arguments);
    finish(command)
}

fn walden(scratch: &Scratch, arguments: &[&str]) -> Output {
    run(scratch, env!("CARGO_BIN_EXE_walden"), arguments)
}

/// Every option and command of a call of walden exists.
fn exists(scratch: &Scratch, call: &str) {
    let words: Vec<&str> = call.split_whitespace().collect();
    let (options, rest): (Vec<&str>, Vec<&str>) = words.iter().partition(|word| word.starts_with("--"));
    let command = rest.first().unwrap_or_else(|| panic!("no command: {call}"));
    for option in options {
        let name = option.trim_start_matches("--").split('=').next().unwrap();
        let out = walden(scratch, &["help", command, name]);
        assert!(out.success(), "{call}: {out}");
    }
    assert!(walden(scratch, &["help", command]).success(), "{call}");
}

#[test]
fn systemd_accepts_the_units_and_their_commands_exist() {
    let scratch = Scratch::new();
    let folder = scratch.dir("units");
    let mut instances = Vec::new();
    for unit in files("packaging/systemd") {
        let name = unit.file_name().unwrap().to_str().unwrap();
        let text = fs::read_to_string(&unit).unwrap();
        for line in text.lines().filter_map(|line| line.strip_prefix("ExecStart=/usr/bin/walden ")) {
            exists(&scratch, line);
        }
        // systemd looks whether the program is there.
        let text = text.replace("/usr/bin/walden", env!("CARGO_BIN_EXE_walden"));
        fs::write(folder.join(name), text).unwrap();
        instances.push(folder.join(name.replace('@', "@shop")));
    }
    for instance in &instances {
        let template = instance.to_str().unwrap().replace("@shop", "@");
        fs::copy(template, instance).unwrap();
    }
    for instance in instances {
        let out = run(&scratch, "systemd-analyze", &["verify", "--man=no", instance.to_str().unwrap()]);
        // An unknown key is only a message: any word is a finding.
        assert!(
            out.success() && out.text().is_empty() && out.stderr.is_empty(),
            "{}: {out}",
            instance.display()
        );
    }
}

#[test]
fn the_cron_lines_name_commands_that_exist() {
    let scratch = Scratch::new();
    let lines = text("packaging/cron/walden");
    let calls: Vec<&str> = lines
        .lines()
        .filter(|line| line.starts_with(|c: char| c.is_ascii_digit()))
        .map(|line| line.split_once(" walden ").expect("a call of walden").1.split_once(" ||").unwrap().0)
        .collect();
    assert_eq!(calls.len(), 2, "{calls:?}");
    for call in calls {
        exists(&scratch, call);
    }
}

#[test]
fn every_setting_of_the_sample_configuration_is_accepted() {
    let scratch = Scratch::new();
    let sample = text("packaging/walden.conf");
    let in_force: String = sample
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(setting) if !setting.starts_with(' ') => format!("{setting}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    for (name, contents) in [("sample.conf", &sample), ("whole.conf", &in_force)] {
        let path = scratch.write(name, contents);
        let out = walden(&scratch, &["config", "--stanza=shop", &format!("--config={}", path.display())]);
        assert!(out.success(), "{name}: {out}\n{contents}");
    }
    assert!(in_force.contains("\nrepo1-path=") && in_force.contains("\n[shop]"), "{in_force}");
}

#[test]
fn shells_accept_the_completions_and_complete_with_them() {
    let scratch = Scratch::new();
    for (shell, name) in [("bash", "walden"), ("zsh", "_walden"), ("fish", "walden.fish")] {
        let out = walden(&scratch, &["completion", shell]);
        assert!(out.success(), "{out}");
        scratch.write(name, out.text());
    }
    let bash = "source ./walden; COMP_WORDS=(walden re) COMP_CWORD=1; _walden walden re walden; echo \"${COMPREPLY[@]}\"";
    let zsh = "fpath=($PWD $fpath); autoload -Uz compinit; compinit -u -D; print ${_comps[walden]}";
    let fish = "source ./walden.fish; complete -C 'walden re'";
    let within = |program: &str, arguments: &[&str]| {
        let mut command = scratch.command(program);
        command.current_dir(scratch.path()).args(arguments);
        let out = finish(command);
        assert!(out.success(), "{program}: {out}");
        out.text().to_owned()
    };
    for said in [within("bash", &["--norc", "-c", bash]), within("fish", &["--no-config", "-c", fish])] {
        assert!(said.contains("restore") && said.contains("repo-ls") && !said.contains("backup"), "{said}");
    }
    within("zsh", &["-n", "_walden"]);
    assert_eq!(within("zsh", &["-f", "-c", zsh]).trim(), "_walden");
}

#[test]
fn the_manual_pages_are_well_formed() {
    let scratch = Scratch::new();
    for page in files("man") {
        // On standard output, and so without this machine's path in its complaints.
        let out = run(&scratch, "mandoc", &["-T", "lint", "-W", "warning", page.to_str().unwrap()]);
        assert!(out.success(), "{out}");
    }
}

#[test]
fn the_secrets_of_the_containers_agree_whatever_was_interrupted() {
    let scratch = Scratch::new();
    let secrets = scratch.join("secrets");
    let prepare = || {
        let mut command = scratch.command("bash");
        // The checkout may be closed to the server's user; the script needs nothing of it.
        command.args(["-c", &text("docker/prepare"), "docker/prepare"]).arg(&secrets);
        command.env("WALDEN", env!("CARGO_BIN_EXE_walden"));
        finish(command)
    };
    let read = |name: &str| fs::read_to_string(secrets.join(name)).unwrap_or_default();
    assert!(prepare().success());
    let (conf, json) = (read("s3.conf"), read("s3.json"));
    let setting = |name: &str| {
        conf.lines().find_map(|line| line.strip_prefix(&format!("{name}="))).expect("it is set").to_owned()
    };
    for value in [setting("repo1-s3-key"), setting("repo1-s3-key-secret")] {
        assert!(json.contains(&format!("\"{value}\"")), "{json}");
    }
    // Interrupted between the two: the second follows from the first. The other way round nobody knows the key.
    fs::remove_file(secrets.join("s3.json")).unwrap();
    assert!(prepare().success());
    assert_eq!((read("s3.conf"), read("s3.json")), (conf, json));
    fs::remove_file(secrets.join("s3.conf")).unwrap();
    let refused = prepare();
    assert_eq!(refused.code, Some(1), "{refused}");
    assert!(!secrets.join("s3.conf").exists());

    // What it wrote and docker/walden.conf make sense together.
    fs::remove_file(secrets.join("s3.json")).unwrap();
    assert!(prepare().success());
    let conf = scratch.write("walden.conf", text("docker/walden.conf"));
    let out = walden(
        &scratch,
        &[
            "config",
            "--stanza=shop",
            &format!("--config={}", conf.display()),
            &format!("--config-include-path={}", secrets.display()),
        ],
    );
    assert!(out.success() && out.stdout.contains("s3.conf line"), "{out}");
}

#[test]
fn the_package_makes_the_user_that_its_units_name_and_leaves_others_directories_alone() {
    let scratch = Scratch::new();
    for (name, body) in [
        ("getent", "test -e known"),
        ("adduser", "touch known"),
        ("stat", "case $3 in /etc/walden) echo 0 ;; /var/lib/walden) echo 999 ;; *) exit 1 ;; esac"),
        ("dpkg-statoverride", "exit 1"),
        ("install", ""),
    ] {
        scratch.dir("bin");
        let program = scratch.write(
            format!("bin/{name}"),
            format!("#!/bin/sh\ncd {}\necho {name} \"$@\" >>calls\n{body}\n", scratch.path().display()),
        );
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let configure = || {
        let mut command = scratch.command("sh");
        command.args(["-c", &text("packaging/debian/postinst"), "postinst", "configure"]);
        command.env("PATH", format!("{}:/usr/bin:/bin", scratch.join("bin").display()));
        let out = finish(command);
        assert!(out.success(), "{out}");
        let calls = fs::read_to_string(scratch.join("calls")).unwrap();
        fs::remove_file(scratch.join("calls")).unwrap();
        calls
    };
    let first = configure();
    let user = |line: &&str| line.starts_with("adduser ") && line.ends_with(" postgres");
    assert_eq!(first.lines().filter(user).count(), 1, "{first}");
    let made: Vec<&str> = first.lines().filter(|line| line.starts_with("install ")).collect();
    let own = "install -d -o postgres -g postgres -m 0750";
    assert_eq!(made, [format!("{own} /etc/walden"), format!("{own} /var/log/walden")], "{first}");
    assert!(!configure().contains("adduser"), "it is there already");
    for unit in
        files("packaging/systemd").iter().filter(|path| path.extension().is_some_and(|e| e == "service"))
    {
        assert!(fs::read_to_string(unit).unwrap().contains("\nUser=postgres\n"), "{}", unit.display());
    }
    assert!(text("packaging/logrotate").contains("\tsu postgres postgres\n"));
}

#[test]
fn the_debian_package_and_the_images_are_made_and_lint_clean() {
    if !test_all() {
        return;
    }
    let tool = |name: &str| at_top("tests/env").join(name).to_str().unwrap().to_owned();
    for arguments in
        [vec![tool("make-deb"), env!("CARGO_BIN_EXE_walden").to_owned()], vec![tool("check-docker")]]
    {
        let mut command = std::process::Command::new(&arguments[0]);
        command.args(&arguments[1..]);
        let out = finish(command);
        assert!(out.success(), "{arguments:?}: {out}");
    }
}
