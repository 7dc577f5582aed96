//! Options that concern every command.

use super::{Kind, OptionSpec, Topic};

const LEVELS: Kind = Kind::Choice(&["off", "error", "warn", "info", "detail", "debug", "trace"], &[]);

const REPORTERS: &[&str] = &[
    "annotate",
    "backup",
    "check",
    "config",
    "expire",
    "info",
    "pin",
    "repo-ls",
    "restore",
    "stanza-create",
    "stanza-delete",
    "stanza-upgrade",
    "unpin",
    "verify",
    "version",
];

const fn option(name: &'static str, kind: Kind, short: &'static str, long: &'static str) -> OptionSpec {
    OptionSpec::new(Topic::General, name, kind, short, long)
}

pub(super) const OPTIONS: &[OptionSpec] = &[
    option(
        "stanza",
        Kind::Stanza,
        "the name under which the cluster is kept",
        "A stanza holds one cluster and those that succeed it. The section of that name in the configuration \
         file holds its options. Where the file has exactly one such section, it need not be named.",
    )
    .on(&[
        "annotate", "archive-get", "archive-push", "backup", "check", "config", "expire", "info", "pin", "restore", "stanza-create",
        "stanza-delete", "stanza-upgrade", "start", "stop", "unpin", "verify",
    ])
    .required_by(&[
        "annotate", "archive-get", "archive-push", "backup", "check", "expire", "pin", "restore", "stanza-create",
        "stanza-delete", "stanza-upgrade", "unpin", "verify",
    ])
    .per_run(),
    option(
        "config",
        Kind::Path,
        "the configuration file",
        "A file named here must exist; the default one may be missing, so that everything can be given on the \
         command line and in the environment.",
    )
    .default("/etc/walden/walden.conf")
    .per_run(),
    option(
        "config-include-path",
        Kind::Path,
        "a directory of *.conf files that are read after that",
        "In the order of their names. Sections may be spread over files; an option may stand only once in a \
         section. When --config names a file, that file stands alone unless a directory is named as well.",
    )
    .default("/etc/walden/conf.d")
    .per_run(),
    option(
        "config-path",
        Kind::Path,
        "the directory of walden.conf and conf.d",
        "Changes where both are looked for by default; --config and --config-include-path go before it.",
    )
    .default("/etc/walden")
    .per_run(),
    option(
        "output",
        Kind::Choice(&["text", "json"], &[]),
        "text for people or JSON for programs",
        "JSON goes to stdout as one document. Its keys are stable and carry their units (size_bytes, \
         duration_ms); exact values stand there, where text rounds.",
    )
    .on(REPORTERS)
    .default("text")
    .per_run(),
    option(
        "progress",
        Kind::Choice(&["auto", "bar", "lines", "none"], &[]),
        "how to show what is going on",
        "auto draws a bar on a terminal and writes a line a minute elsewhere. Progress goes to stderr.",
    )
    .on(&["backup", "check", "restore", "verify"])
    .default("auto"),
    option(
        "log-level-console",
        LEVELS,
        "how much to say on stderr",
        "From off over error, warn, info and detail to debug and trace. archive-push and archive-get speak into \
         PostgreSQL's log, so they say only what matters unless asked for more.",
    )
    .default("info")
    .default_for(&[("archive-push", "warn"), ("archive-get", "warn")]),
    option(
        "log-level-file",
        LEVELS,
        "how much to write to the log file",
        "The file is <log-path>/<stanza>-<command>.log; it is only ever appended to, so logrotate may take it away.",
    )
    .default("info"),
    option(
        "log-level-stderr",
        LEVELS,
        "accepted so that a pgbackrest.conf works; has no effect",
        "walden writes data to stdout and everything else to stderr; log-level-console decides how much.",
    )
    .default("off"),
    option(
        "log-path",
        Kind::Path,
        "the directory of the log files",
        "Where it does not exist there are no log files; everything works without them.",
    )
    .default("/var/log/walden"),
    option(
        "lock-path",
        Kind::Path,
        "the directory of the files that stop makes, and of a cache",
        "It must be the same for all who run walden on this host, and only they should be able to write there: \
         where everybody may, a file counts only for the user who made it, or if root did. What lies in /tmp, as by \
         default, may be gone after a restart of the host. No locks are needed: two backups at once, from any hosts, never \
         damage each other. In the folder cache-USER, which only this user may look into, archive-push and archive-get keep \
         for a repository with a passphrase what Argon2 makes of it, and for one in a bucket its wrapped keys, so that not \
         every segment pays for them; it may be removed at any time.",
    )
    .on(&[
        "annotate", "archive-get", "archive-push", "backup", "check", "expire", "info", "pin", "restore", "stanza-create",
        "stanza-delete", "stanza-upgrade", "start", "stop", "unpin",
    ])
    .default("/tmp/walden"),
    option(
        "io-timeout",
        Kind::Duration(100, 3_600_000),
        "how long a peer may be silent",
        "When neither data nor a sign of life comes from the server or from an object store for so long, the \
         connection is given up. What may help is then tried again: see repo1-storage-retry.",
    )
    .on(super::repository::USERS)
    .default("1m"),
    option(
        "yes",
        Kind::Boolean,
        "delete what the plan shows",
        "Without it stanza-delete shows what would go, and ends with an error so that no script takes that for done.",
    )
    .on(&["stanza-delete"])
    .default("n")
    .per_run(),
    option(
        "force",
        Kind::Boolean,
        "delete pinned backups, too",
        "Without it stanza-delete refuses while a backup is pinned: somebody wanted it kept.",
    )
    .on(&["stanza-delete"])
    .default("n")
    .per_run(),
    option(
        "recurse",
        Kind::Boolean,
        "list everything below the path, too",
        "Without it, repo-ls shows one level and marks what has more below it.",
    )
    .on(&["repo-ls"])
    .default("n")
    .per_run(),
    option(
        "output-dir",
        Kind::Path,
        "write every page into this directory",
        "Writes walden.1 and one page for each command, replacing older ones. Without it one page goes to stdout.",
    )
    .on(&["man"])
    .unset("the page goes to stdout")
    .per_run(),
];
