//! Options of `expire`.

use super::{Group, Kind, OptionSpec, Topic};

const EXPIRE: &[&str] = &["backup", "expire"];
/// What says what stays.
const KEPT: &[&str] = &["backup", "check", "expire"];
const HOUR: u64 = 3_600_000;
const DAY: u64 = 24 * HOUR;

const fn option(name: &'static str, kind: Kind, short: &'static str, long: &'static str) -> OptionSpec {
    OptionSpec::new(Topic::Retention, name, kind, short, long).on(EXPIRE)
}

pub(super) const OPTIONS: &[OptionSpec] = &[
    option(
        "repo-retention-full",
        Kind::Integer(1, 9_999_999),
        "how many full backups stay, or for how many days",
        "As in pgBackRest: so many full backups stay, and every backup taken since the oldest of them; with \
         retention-full-type=time it is a number of days, the same as repoN-keep-window. Backups of all clusters \
         of the stanza are counted together; one whose own WAL is missing is not counted. WAL goes with backups: all \
         that a backup that stays can replay stays, too. A pinned backup, and the newest of each cluster, are \
         never removed by a policy.",
    )
    .on(KEPT)
    .group(Group::Repository)
    .unset("no backup is removed for its number"),
    option(
        "repo-retention-full-type",
        Kind::Choice(&["count", "time"], &[]),
        "whether retention-full counts full backups or days",
        "With time, repoN-retention-full=14 means the same as repoN-keep-window=14d.",
    )
    .on(KEPT)
    .group(Group::Repository)
    .default("count"),
    option(
        "repo-keep-window",
        Kind::Duration(HOUR, 36_500 * DAY),
        "how far back one must be able to go to any moment",
        "For example 14d. The newest backup from before that time stays, every one since, and all WAL from there on. \
         Counted from the newest backup, so that nothing is removed while no backups come. Where \
         retention-full is set as well, what either of them keeps stays.",
    )
    .on(KEPT)
    .group(Group::Repository)
    .unset("no backup is removed for its age"),
    option(
        "expire-auto",
        Kind::Boolean,
        "expire after each backup",
        "Runs when a backup is complete, on the repository it was written to, and only if a retention is set \
         there. If it fails, the backup stays good and the run ends with a warning (50). With credentials that may not \
         delete, set n and run `walden expire` with others.",
    )
    .on(&["backup", "check"])
    .default("y"),
    option(
        "expire-delay",
        Kind::Duration(0, 365 * DAY),
        "how long the data of a removed backup stays",
        "A removed backup is out of every list at once and cannot be had back; what it stored, and WAL that only \
         it needs, is deleted by the first run of expire after this time, so that a restore of it that is under way \
         can end. 0 deletes at once.",
    )
    .default("1d"),
    option(
        "expire-stuck-after",
        Kind::Duration(HOUR, 365 * DAY),
        "when a backup that did not end is given up",
        "A backup that was killed leaves what it stored so far, and keeps WAL from its start on. After this time it is \
         given up, even if it is still being taken: it then fails, and nothing else is harmed. Longer than the longest \
         backup takes.",
    )
    .default("3d"),
];
