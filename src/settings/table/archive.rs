//! Options of `archive-get`. `archive-push` has none of its own.

use super::{Kind, OptionSpec, Topic};

const GET: &[&str] = &["archive-get"];

const fn option(name: &'static str, kind: Kind, short: &'static str, long: &'static str) -> OptionSpec {
    OptionSpec::new(Topic::Archive, name, kind, short, long).on(GET).per_run()
}

pub(super) const OPTIONS: &[OptionSpec] = &[
    option(
        "system-id",
        Kind::Text,
        "the system identifier of the cluster whose WAL is wanted",
        "`walden restore` writes it into restore_command, so that a recovery never gets the WAL of another \
         cluster of the same stanza. Without it the control file beside %p, or in pg1-path, is asked; when two \
         clusters are possible the answer is 200.",
    )
    .unset("read from the control file"),
    option(
        "known-end",
        Kind::Text,
        "the last segment archived when the recovery was planned",
        "`walden restore` writes it into restore_command. A segment up to this one that is missing now has been \
         lost, so recovery stops (200) instead of taking it for the end of the archive.",
    )
    .unset("judged from what the archive holds"),
    option(
        "needed-to",
        Kind::Text,
        "the position at which the recovery stops",
        "`walden restore` writes it into restore_command where the last segment is held only in part, as the end of \
         a standby's backup may be. What is held of it is given then, although there was more.",
    )
    .unset("not known"),
    option(
        "if-unsure",
        Kind::Choice(&["auto", "stop", "standby"], &[]),
        "what to answer when it cannot be found out",
        "stop answers 200, and recovery stops instead of ending too early. standby answers 1, and a standby asks \
         again a few seconds later. auto does the latter if standby.signal stands in the working directory, \
         which is the data directory when PostgreSQL runs the command.",
    )
    .default("auto"),
];
