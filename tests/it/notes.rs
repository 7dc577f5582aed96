//! `annotate`, `pin` and `unpin` on a backup of a real server, and what `info` shows of it.

use serde_json::Value;

use crate::common::{Cluster, Replace, Scratch, Walden, golden};

#[test]
fn what_is_noted_on_a_backup_later_is_shown_and_binds_nothing_but_itself() {
    let scratch = Scratch::new();
    let walden = Walden::new(&scratch);
    let cluster =
        Cluster::build(&scratch, 15).segment_size_mb(1).archive_command(&walden.archive_command()).start();
    walden.configure(&cluster, &[]);
    walden.ok(&["stanza-create"]);
    walden.ok(&[
        "backup",
        "--type=full",
        "--start-fast",
        "--annotation=ticket=OPS-311",
        "--annotation=by=night",
    ]);
    let info = || -> Value { serde_json::from_str(&walden.ok(&["info", "--output=json"]).stdout).unwrap() };
    let backup = |told: &Value| told["stanzas"][0]["backups"][0].clone();
    let id = backup(&info())["id"].as_str().unwrap().to_owned();
    let set = format!("--set={}", &id[..20]);

    let mut said = String::new();
    let mut say = |arguments: &[&str]| said.push_str(&walden.ok(arguments).stderr);
    say(&["annotate", &set, "--annotation=ticket=OPS-312", "--annotation=by="]);
    say(&["unpin", &set]);
    say(&["pin", &set, "--reason=the auditors come"]);
    say(&["pin", &set, "--until=2999-12-31 00:00:00Z"]);
    let one = backup(&info());
    assert_eq!(one["annotations"], serde_json::json!({ "ticket": "OPS-312" }));
    assert_eq!(one["pins"].as_array().unwrap().len(), 2);
    assert_eq!((&one["pins"][0]["holds"], &one["pins"][0]["until_at"]), (&Value::from(true), &Value::Null));
    say(&["info"]);
    said.push_str(
        &walden
            .ok(&["info"])
            .stdout
            .lines()
            .skip_while(|line| !line.starts_with("Backup"))
            .skip(2)
            .take_while(|line| !line.is_empty())
            .flat_map(|line| [line, "\n"])
            .collect::<String>(),
    );
    let unpinned: Value = serde_json::from_str(&walden.ok(&["unpin", &set, "--output=json"]).stdout).unwrap();
    assert_eq!((&unpinned["backup"], &unpinned["pins"]), (&Value::from(id.as_str()), &serde_json::json!([])));
    assert_eq!(backup(&info())["pins"], serde_json::json!([]));
    for refused in [
        walden.fails(10, &["pin", "--set=2025"]),
        walden.fails(2, &["pin", &set, "--until=2020-01-01 00:00:00Z"]),
        walden.fails(2, &["annotate", &set]),
        walden.fails(2, &["pin"]),
    ] {
        said.push_str(&refused.stderr);
    }
    golden("notes", &said, &Replace::backup_ids());

    // It restores as before, and each note is an object that opens.
    for line in walden.ok(&["repo-ls", "--recurse", "shop/catalog"]).stdout.lines() {
        assert!(walden.ok(&["repo-get", line]).stdout.contains(&id), "{line}");
    }
    walden.ok(&["restore", &format!("--pg1-path={}", scratch.join("back").display()), "--dry-run"]);
}
