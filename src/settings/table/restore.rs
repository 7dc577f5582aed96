//! Options of `restore`.

use super::{Kind, OptionSpec, Topic};

const RESTORE: &[&str] = &["restore"];

const fn option(name: &'static str, kind: Kind, short: &'static str, long: &'static str) -> OptionSpec {
    OptionSpec::new(Topic::Restore, name, kind, short, long).on(RESTORE).per_run()
}

pub(super) const OPTIONS: &[OptionSpec] = &[
    option(
        "type",
        Kind::Choice(
            &["default", "immediate", "time", "xid", "lsn", "name", "standby", "preserve", "none"],
            &[],
        ),
        "how far to recover",
        "default replays all WAL there is. immediate stops as soon as the backup is consistent. time, xid, lsn \
         and name stop at --target. standby makes a standby that follows. preserve leaves the recovery settings \
         of the image as they are. none puts the backup's own WAL into pg_wal, so that the server starts \
         without an archive.",
    )
    .default("default"),
    option(
        "target",
        Kind::Text,
        "the moment, transaction, WAL position or restore point to stop at",
        "For --type=time a date and time such as '2026-11-21 09:14:59+01'; without a zone, the one of this \
         machine's clock, which the plan says aloud; '10 minutes ago' works too. For xid a number, for lsn a \
         position such as A3/1C0041D8, for name what was given to pg_create_restore_point. A target that the \
         archive cannot reach is refused before anything is touched.",
    )
    .unset("none, unless --type needs one"),
    option(
        "target-exclusive",
        Kind::Boolean,
        "stop just before the target instead of just after it",
        "For time, xid and lsn. To undo a mistake whose transaction or position is known, stop just before it.",
    )
    .default("n"),
    option(
        "target-action",
        Kind::Choice(&["pause", "promote", "shutdown"], &[]),
        "what the server does when the target is reached",
        "pause lets you look first: the server answers read-only questions; select pg_wal_replay_resume() ends \
         the recovery. promote opens it for writing at once. shutdown stops it.",
    )
    .default("pause"),
    option(
        "target-timeline",
        Kind::Text,
        "the timeline to recover along",
        "A number, latest, or current (the backup's own). restore resolves it to a number that is proved to be \
         in the archive and writes that down, because PostgreSQL would follow a dead branch without a word.",
    )
    .on(&["restore", "archive-get"])
    .unset("the timeline that leads to the target"),
    option(
        "set",
        Kind::Text,
        "the backup that is meant",
        "A backup's id, or any beginning of it that is unique. By default restore takes the newest backup from \
         which the target can be reached.",
    )
    .on(&["restore", "info", "annotate", "pin", "unpin", "expire", "verify"])
    .required_by(&["annotate", "pin", "unpin"])
    .unset("restore: the newest that leads to the target; info, verify: all; expire: by policy"),
    option(
        "wal-dir",
        Kind::Path,
        "where pg_wal shall lie, if not in the data directory",
        "The directory must be empty or missing; pg_wal becomes a symbolic link to it.",
    )
    .unset("in the data directory"),
    OptionSpec::new(
        Topic::Restore,
        "tablespace-map",
        Kind::Map,
        "where a tablespace shall lie, OID=directory; repeatable",
        "A tablespace is named by its OID (`select oid, spcname from pg_tablespace`, and `walden info --set`) or by \
         the directory that the original has it in; its SQL name is in no base backup. The directory must be empty \
         or missing. Without a map a tablespace goes back to the original's directory, and the restore is refused \
         before anything is touched where a cluster has its files there: a restore beside a living server never \
         touches that server's tablespaces. With --force, when the data directory that is replaced had the \
         tablespace there, this cluster's folder in it (PG_17_…) is replaced, and those of other versions stay. \
         Tablespaces that are created in the WAL that is replayed cannot be mapped: PostgreSQL makes them where \
         the original has them. archive-get stops a recovery that would so come into another cluster's files.",
    )
    .on(RESTORE)
    .unset("the original's directories"),
    OptionSpec::new(
        Topic::Restore,
        "tablespace-map-all",
        Kind::Path,
        "the directory for all tablespaces, each in one named by its OID",
        "For tablespaces that --tablespace-map does not name. Those that are kept within the data directory \
         (allow_in_place_tablespaces) stay there.",
    )
    .on(RESTORE)
    .unset("the original's directories"),
    option(
        "recovery-option",
        Kind::Map,
        "a further line for postgresql.auto.conf, name=value; repeatable",
        "For example --recovery-option=primary_conninfo='host=db1' for a standby. restore_command is written by \
         walden; giving it here replaces it, with a warning.",
    )
    .unset("none"),
    option(
        "archive-mode",
        Kind::Choice(&["auto", "preserve", "off"], &[]),
        "whether the restored server archives",
        "auto switches archiving off when the primary of the stanza is alive, so that a copy made for looking \
         never writes into its archive, and says so in the plan; otherwise it is left as it was. preserve \
         always leaves it, off always switches it off.",
    )
    .default("auto"),
    option(
        "owner",
        Kind::Text,
        "the user the restored files shall belong to",
        "user or user:group. Needs root. The numbers in the backup are never used: they belong to another machine.",
    )
    .unset("the owner of the target directory, else of its parent"),
    option(
        "force",
        Kind::Boolean,
        "restore into a directory that is not empty",
        "What is there is replaced; WAL found in it is moved aside first, because it may be the only copy. \
         Never done while a server runs there.",
    )
    .default("n"),
    option(
        "dry-run",
        Kind::Boolean,
        "show the plan and change nothing",
        "For restore the plan names the backup and why it was chosen, the WAL needed and whether all of it is there, what \
         will be fetched, where it goes, and every setting that will be written. For expire it names every backup \
         and why it stays or goes, and what is freed; for stanza-delete all that would go.",
    )
    .on(&["expire", "restore", "stanza-delete"])
    .default("n"),
];
