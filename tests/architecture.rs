//! Who may use whom. A new arrow needs a change here, so that a reviewer sees it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Room → the rooms it may name as `crate::room`. A room may always name itself.
const MAY_USE: &[(&str, &[&str])] = &[
    ("units", &[]),
    ("failure", &["units"]),
    ("env", &["units"]),
    ("durable", &["env"]),
    ("pipeline", &["units"]),
    ("settings", &["units", "failure"]),
    // Is told by settings how much to say; log lines carry the time.
    ("report", &["units", "failure", "settings", "env"]),
    ("storage", &["units", "durable", "env"]),
    // Knows nothing of repositories.
    ("postgres", &["units"]),
    // Knows nothing of servers.
    ("repo", &["units", "storage", "pipeline", "env"]),
    ("wal", &["units", "postgres", "repo", "storage", "pipeline", "durable", "env"]),
    ("backup", &["units", "postgres", "repo", "storage", "wal", "pipeline", "env"]),
    ("restore", &["units", "postgres", "repo", "storage", "wal", "pipeline", "durable", "env"]),
    ("verify", &["units", "postgres", "repo", "storage", "wal", "pipeline", "env"]),
    ("retention", &["units", "postgres", "repo", "storage", "wal", "pipeline", "env"]),
    (
        "commands",
        &[
            "units",
            "failure",
            "settings",
            "storage",
            "postgres",
            "repo",
            "backup",
            "wal",
            "restore",
            "retention",
            "verify",
            "report",
            "env",
            "durable",
            "pipeline",
        ],
    ),
    ("cli", &["units", "settings", "commands", "report", "failure", "env", "pipeline"]),
];

fn rust_files(below: &Path, into: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(below).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push(path);
        }
    }
}

#[test]
fn every_arrow_between_rooms_is_in_the_table() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    let mut strangers = BTreeSet::new();
    for file in files {
        let inside = file.strip_prefix(&src).unwrap();
        let room = inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned();
        if matches!(room.as_str(), "lib" | "main") {
            continue;
        }
        let Some((_, allowed)) = MAY_USE.iter().find(|(name, _)| *name == room) else {
            strangers.insert(format!("{room} is no room of the table"));
            continue;
        };
        let text = fs::read_to_string(&file).unwrap();
        for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
            for part in line.split("crate::").skip(1) {
                let used: String = part.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                if !used.is_empty() && used != room && !allowed.contains(&used.as_str()) {
                    strangers.insert(format!("{room} uses {used} ({})", inside.display()));
                }
            }
        }
    }
    assert!(strangers.is_empty(), "{strangers:#?}");
}

#[test]
fn no_file_of_the_source_outgrows_its_room() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    for file in files {
        let lines = fs::read_to_string(&file).unwrap().lines().count();
        assert!(lines <= 900, "{} has {lines} lines: split it by meaning", file.display());
    }
}

#[test]
fn every_fuzz_target_is_in_the_manifest_of_its_workspace_and_the_other_way_round() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let mut files = Vec::new();
    rust_files(&fuzz.join("fuzz_targets"), &mut files);
    let there: BTreeSet<String> =
        files.iter().map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
    let mut listed = BTreeSet::new();
    for target in manifest.split("[[bin]]").skip(1) {
        let value = |key: &str| {
            let line = target.lines().find_map(|line| line.strip_prefix(&format!("{key} = ")));
            line.unwrap_or_else(|| panic!("a target without {key}: {target}")).trim_matches('"').to_owned()
        };
        let name = value("name");
        assert_eq!(value("path"), format!("fuzz_targets/{name}.rs"));
        assert!(listed.insert(name), "listed twice: {target}");
    }
    assert_eq!(listed, there);
}
