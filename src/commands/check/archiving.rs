//! Whether the server is set up to archive here: its settings, and what `archive_command` says.

use super::command_line::{Call, Sense, sense};
use super::finding::Finding;
use super::server::ServerFacts;
use crate::failure::Class;
use std::path::{Path, PathBuf};

const TOPIC: &str = "archiving";
/// What is read without `--config`.
const DEFAULT_CONFIG: &str = "/etc/walden/walden.conf";

/// What `archive_command` should lead to.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    pub stanza: String,
    /// The configuration file of this run.
    pub config: Option<PathBuf>,
    /// The line for `postgresql.conf`.
    pub line: String,
}

/// What the settings say, and whether it makes sense to wait for a segment.
pub(super) struct Judged {
    pub found: Vec<Finding>,
    pub archives: bool,
}

pub(super) fn judge(facts: &ServerFacts, expected: &Expected) -> Judged {
    let mode = facts.setting("archive_mode");
    let refuses = |text: String| Finding::error(TOPIC, Class::PostgresRefuses, text);
    let mut found = Vec::new();
    if facts.standby && mode != "always" {
        found.push(Finding::note(
            TOPIC,
            "a standby does not archive: archive_command, archive_timeout and a fresh segment are not checked from here",
        ).next("Run `walden check` with pg1-host naming the primary, too."));
        return Judged { found, archives: false };
    }
    if facts.setting("wal_level") == "minimal" {
        found.push(
            refuses("wal_level = minimal: there is too little in the WAL to restore from".to_owned())
                .next("`alter system set wal_level = replica`, then restart the server."),
        );
    }
    if mode == "off" {
        found.push(
            refuses("archive_mode = off: the server does not archive its WAL".to_owned())
                .next(format!("In postgresql.conf set archive_mode = on and {}", expected.line))
                .next("Then restart the server: archive_mode needs that."),
        );
        return Judged { found, archives: false };
    }
    let library = facts.setting("archive_library");
    if !library.is_empty() {
        found.push(
            refuses(format!("archive_library = {library}: PostgreSQL does not run archive_command"))
                .next("`alter system reset archive_library`, then `select pg_reload_conf()`."),
        );
        return Judged { found, archives: false };
    }
    let (finding, archives) = command(facts.setting("archive_command"), mode, expected);
    found.push(finding);
    found.extend(timeout(facts.setting("archive_timeout")));
    Judged { found, archives }
}

fn timeout(setting: &str) -> Option<Finding> {
    (setting == "0").then(|| {
        Finding::warning(
            TOPIC,
            "archive_timeout is not set: a segment is archived when it is full, however long that takes, and what it \
             holds is lost with the host",
        )
        .next("`alter system set archive_timeout = '1min'`, then `select pg_reload_conf()`.")
    })
}

/// What is to be said of the command, and whether anything can come of it.
fn command(command: &str, mode: &str, expected: &Expected) -> (Finding, bool) {
    let reload = "Then `select pg_reload_conf()`.";
    let set = format!("In postgresql.conf set {}", expected.line);
    let wrong =
        |text: String| Finding::error(TOPIC, Class::PostgresRefuses, text).next(set.clone()).next(reload);
    match sense(command) {
        Sense::Empty => {
            (wrong(format!("archive_mode = {mode}, and archive_command is empty: WAL gathers in pg_wal until its disk is full")), false)
        }
        Sense::Discards => {
            (wrong(format!("archive_command = {command}: it reports success and stores nothing")), false)
        }
        Sense::Walden(call) => walden(&call, mode, expected, &wrong),
        Sense::Other { program } => (
            Finding::warning(TOPIC, format!("archive_command runs {program}, not walden: where its WAL goes shows only below"))
                .next(set)
                .next(reload),
            true,
        ),
        Sense::Shell { names_walden: true } => {
            (Finding::ok(TOPIC, format!("archive_mode = {mode}; archive_command is a line of shell that names walden")), true)
        }
        Sense::Shell { names_walden: false } => (
            Finding::warning(
                TOPIC,
                "archive_command is a line of shell that does not name walden: where its WAL goes shows only below",
            )
            .next(set)
            .next(reload),
            true,
        ),
    }
}

fn walden(
    call: &Call,
    mode: &str,
    expected: &Expected,
    wrong: &dyn Fn(String) -> Finding,
) -> (Finding, bool) {
    if !call.pushes {
        return (wrong("archive_command runs walden without archive-push".to_owned()), false);
    }
    if !call.names_segment {
        return (wrong("archive_command does not say which segment: %p is missing".to_owned()), false);
    }
    if let Some(stanza) = call.stanza.as_ref().filter(|stanza| **stanza != expected.stanza) {
        let text =
            format!("archive_command archives to stanza {stanza}, and this is stanza {}", expected.stanza);
        return (wrong(text), true);
    }
    // Without --config it reads the default file, whatever this run was given.
    let reads = Path::new(call.config.as_deref().unwrap_or(DEFAULT_CONFIG));
    if let Some(ours) = expected.config.as_ref().filter(|ours| *ours != reads) {
        let text = format!(
            "archive_command runs walden with another configuration: {} there, {} here",
            reads.display(),
            ours.display()
        );
        let finding =
            Finding::warning(TOPIC, text).next("Run check with the configuration that the server uses.");
        return (finding, true);
    }
    if !call.program.starts_with('/') {
        let text = format!(
            "archive_command runs {}: which program that is depends on the PATH that the server was started with",
            call.program
        );
        return (
            Finding::warning(TOPIC, text).next(format!("In postgresql.conf set {}", expected.line)),
            true,
        );
    }
    (
        Finding::ok(
            TOPIC,
            format!("archive_mode = {mode}; archive_command runs walden with this configuration"),
        ),
        true,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::check::server::tests::facts;

    fn expected() -> Expected {
        Expected {
            stanza: "shop".to_owned(),
            config: Some(PathBuf::from("/etc/walden/walden.conf")),
            line: "archive_command = '/usr/bin/walden --stanza=shop archive-push \"%p\"'".to_owned(),
        }
    }

    fn with(settings: &[(&'static str, &str)]) -> (String, bool) {
        let mut facts = facts();
        for (name, value) in settings {
            facts.settings.insert(name, (*value).to_owned());
        }
        let judged = judge(&facts, &expected());
        (judged.found.iter().map(Finding::line).collect(), judged.archives)
    }

    #[test]
    fn a_server_that_archives_here() {
        assert_eq!(
            with(&[]),
            (
                "ok       archive_mode = on; archive_command runs walden with this configuration\n"
                    .to_owned(),
                true
            )
        );
    }

    #[test]
    fn what_keeps_wal_from_coming_here_is_an_error_with_the_line_to_set() {
        for (name, value, text, archives) in [
            ("archive_mode", "off", "archive_mode = off: the server does not archive", false),
            (
                "archive_library",
                "basic_archive",
                "archive_library = basic_archive: PostgreSQL does not run",
                false,
            ),
            ("archive_command", "", "archive_command is empty", false),
            ("archive_command", "/bin/true", "it reports success and stores nothing", false),
            ("archive_command", "/usr/bin/walden archive-push", "%p is missing", false),
            ("archive_command", "/usr/bin/walden info %p", "without archive-push", false),
            (
                "archive_command",
                "/usr/bin/walden --stanza=blog archive-push %p",
                "to stanza blog, and this is stanza shop",
                true,
            ),
            ("wal_level", "minimal", "wal_level = minimal", true),
        ] {
            let (said, goes_on) = with(&[(name, value)]);
            assert!(said.starts_with("error    ") && said.contains(text), "{said}");
            assert!(said.contains("           next: "), "{said}");
            assert_eq!(goes_on, archives, "{said}");
        }
    }

    #[test]
    fn what_may_be_right_or_wrong_is_a_warning_and_what_arrives_decides() {
        for (name, value, text) in [
            (
                "archive_command",
                "pgbackrest --stanza=a archive-push %p",
                "archive_command runs pgbackrest, not walden",
            ),
            ("archive_command", "cp %p /a/%f && true", "a line of shell that does not name walden"),
            ("archive_command", "walden archive-push %p", "depends on the PATH"),
            (
                "archive_command",
                "/usr/bin/walden --config=/a archive-push %p",
                "another configuration: /a there, /etc",
            ),
            ("archive_timeout", "0", "archive_timeout is not set"),
        ] {
            let (said, archives) = with(&[(name, value)]);
            assert!(said.contains("warning  ") && said.contains(text) && archives, "{said}");
        }
        let (said, _) = with(&[("archive_command", "walden archive-push %p || exit 1")]);
        assert!(said.starts_with("ok       "), "{said}");
    }

    #[test]
    fn of_a_standby_only_archive_mode_always_is_judged() {
        let mut standby = facts();
        standby.standby = true;
        let judged = judge(&standby, &expected());
        assert!(
            !judged.archives && judged.found[0].line().starts_with("note     a standby does not archive")
        );
        standby.settings.insert("archive_mode", "always".to_owned());
        assert!(judge(&standby, &expected()).archives);
    }
}
