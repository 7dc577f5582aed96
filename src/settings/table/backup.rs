//! Options of `backup`, and of everything that stores.

use super::{Kind, OptionSpec, Topic};

const BACKUP: &[&str] = &["backup"];
const CHECKED: &[&str] = &["backup", "check"];
const WRITERS: &[&str] = &["archive-push", "backup"];

const OTHER_CODEC: &str = "walden compresses with zst: at level 1 it is both smaller and faster";
const INCREMENTAL: &str = "incremental backups come with a later version; today every backup is full";

const fn option(name: &'static str, kind: Kind, short: &'static str, long: &'static str) -> OptionSpec {
    OptionSpec::new(Topic::Backup, name, kind, short, long).on(BACKUP)
}

pub(super) const OPTIONS: &[OptionSpec] = &[
    option(
        "type",
        Kind::Choice(&["full"], &[("incr", INCREMENTAL), ("diff", INCREMENTAL)]),
        "the kind of backup",
        "A full backup reads and stores the whole cluster and restores alone.",
    )
    .default("full")
    .per_run(),
    option(
        "start-fast",
        Kind::Boolean,
        "hurry the checkpoint with which a backup begins",
        "A backup waits for a checkpoint. Spread out it disturbs the server least and may take minutes \
         (checkpoint_timeout × checkpoint_completion_target); fast it costs a burst of writes and begins at once.",
    )
    .default("n"),
    option(
        "max-rate",
        Kind::Size(32 << 10, 1 << 40),
        "read at most so many bytes a second",
        "For backup: spares the server's disks and network. From 32kB to 1GB the server itself holds the rate \
         (MAX_RATE of the replication protocol), above that walden does. For verify: stored bytes, all workers \
         together; spares the storage.",
    )
    .on(&["backup", "verify"])
    .unset("as fast as it goes"),
    option(
        "page-errors",
        Kind::Choice(&["keep", "fail"], &[]),
        "what becomes of a backup in which pages fail their checksum",
        "Where the cluster has data checksums, every page is checked on its way into the repository, and the server \
         checks it too; one that was being written at that moment is no failure, because WAL holds it. A page that \
         fails was changed by a disk, a controller, memory or a program, and the server refuses to read it. keep: the \
         backup is complete and marked, with the file, the page's number and, where the server can tell, the table; it \
         ends with exit code 50, and info and check show it. It holds the page as it is, which is no worse than the \
         server. fail: nothing is kept, and it ends with 40. \
         What to do: keep the backups of before (`walden pin`), because an older one may hold the page whole; look \
         at the disk (its SMART values, the kernel's log) and move off it; restore that older backup beside the \
         server with --type=default, which replays the page's whole history, and copy the table over, or for an index \
         `reindex`.",
    )
    .default("keep"),
    option(
        "archive-check",
        Kind::Boolean,
        "wait for the archived WAL a backup needs, and prove whose it is",
        "With y, a backup is complete only when every WAL segment from its start to its stop has come through \
         archive_command into its repository, and its records prove that the archive is this server's. With n \
         those segments are fetched over the replication protocol instead, so that the backup stands alone even \
         where nothing is archived; there is then no going on from it to a later moment. From a standby, what its \
         primary has not archived yet is fetched with y, too, and kept beside the archive. For check, n means that no \
         WAL segment is switched to and awaited.",
    )
    .on(CHECKED)
    .default("y"),
    option(
        "archive-timeout",
        Kind::Duration(100, 86_400_000),
        "how long to wait for each WAL segment the backup needs",
        "When a segment has not come through archive_command by then, the backup fails and names it. Nothing is \
         lost: the next backup may begin at once. A backup of a standby does not fail: it takes the segment from the \
         standby, and ends with exit code 50. WAL that is fetched over the connection must not pause for longer. For check, \
         how long a fresh segment may take to arrive.",
    )
    .on(CHECKED)
    .default("1m"),
    option(
        "annotation",
        Kind::Map,
        "a note kept with the backup, key=value; repeatable",
        "`walden info` shows notes. For example --annotation=ticket=OPS-311 before a migration. With annotate, an \
         empty value removes the note.",
    )
    .on(&["backup", "annotate"])
    .required_by(&["annotate"])
    .unset("no notes")
    .per_run(),
    option(
        "reason",
        Kind::Text,
        "why the backup is to be kept",
        "A few words for whoever wonders later; `walden info` shows them.",
    )
    .on(&["pin"])
    .unset("no reason")
    .per_run(),
    option(
        "until",
        Kind::Text,
        "the moment from which the pin does not hold any more",
        "A date and time such as '2027-03-31 00:00:00+01'; without a zone, the one of this machine's clock, which \
         is said aloud. What looks at it is the clock of the machine that runs expire.",
    )
    .on(&["pin"])
    .unset("until it is unpinned")
    .per_run(),
    option(
        "pack-size",
        Kind::Size(4 << 20, 64 << 20),
        "how large the stored objects of a backup get",
        "Larger packs mean fewer objects and more memory: one is filled while others are written. 16MiB suits \
         disks and object stores alike.",
    )
    .default("16MiB"),
    option(
        "verify-writes",
        Kind::Boolean,
        "decode every frame again before it is stored",
        "Notices memory and compiler errors between encoding and storing, at about the cost of a restore. For \
         machines one does not trust.",
    )
    .on(WRITERS)
    .default("n"),
    option(
        "compress-type",
        Kind::Choice(&["zst", "none"], &[("gz", OTHER_CODEC), ("bz2", OTHER_CODEC), ("lz4", OTHER_CODEC)]),
        "how data is compressed",
        "With zst, what does not shrink is stored as it is, frame by frame. With none nothing is compressed: \
         for file systems that compress by themselves.",
    )
    .on(WRITERS)
    .default("zst"),
    option(
        "compress-level",
        Kind::Integer(-7, 22),
        "how hard to compress",
        "On database pages level 3 costs twice the time of level 1 for less than one per cent of size; above 10 \
         it is slow. Negative levels are faster and larger.",
    )
    .on(WRITERS)
    .default("1"),
    OptionSpec::new(
        Topic::General,
        "process-max",
        Kind::Integer(1, 999),
        "how many workers compress, seal and write (or delete) at once",
        "Workers share one process. Memory grows by a few megabytes a worker. On a database host that has \
         other work to do, set it to a fraction of the processors. A backup has one thread more than this: one at a \
         time reads the server's stream, and while nobody needs to, it compresses, too.",
    )
    .on(&["backup", "expire", "restore", "stanza-delete", "verify"])
    .unset("one for each processor, at most 8"),
    OptionSpec::new(
        Topic::General,
        "spool-path",
        Kind::Path,
        "the directory for what does not fit in memory",
        "A backup sorts its list of files here, about 60 bytes a file; restore keeps its plan here. Nothing \
         in it is needed after the command has ended.",
    )
    .on(&["backup", "check", "restore", "verify"])
    .default("/var/tmp"),
];
