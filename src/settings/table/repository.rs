//! Options of repositories.

use super::{Group, Kind, OptionSpec, Topic};

/// What opens a repository.
pub(super) const USERS: &[&str] = &[
    "annotate",
    "archive-get",
    "archive-push",
    "backup",
    "check",
    "expire",
    "info",
    "pin",
    "repo-get",
    "repo-ls",
    "restore",
    "stanza-create",
    "stanza-delete",
    "stanza-upgrade",
    "unpin",
    "verify",
];

pub(super) const fn option(
    name: &'static str,
    kind: Kind,
    short: &'static str,
    long: &'static str,
) -> OptionSpec {
    OptionSpec::new(Topic::Repository, name, kind, short, long).on(USERS).group(Group::Repository)
}

pub(super) const OPTIONS: &[OptionSpec] = &[
    OptionSpec::new(
        Topic::Repository,
        "repo",
        Kind::Integer(1, super::HIGHEST_INDEX as i64),
        "the number of the repository to use",
        "A backup is written to one repository and a restore reads from one: by default backup takes the one \
         with the lowest number, and what reads takes the first that answers with good bytes. WAL always goes \
         to all of them, so archive-push does not know this option.",
    )
    .on(&[
        "annotate", "archive-get", "backup", "expire", "info", "pin", "repo-get", "repo-ls", "restore", "stanza-create",
        "stanza-delete", "stanza-upgrade", "unpin",
        "verify",
    ])
    .unset("backup: the lowest number; repo-ls, repo-get: the first that serves; others: all of them")
    .per_run(),
    option(
        "repo-type",
        Kind::Choice(
            &["posix", "s3", "azure", "gcs"],
            &[
                ("cifs", "use posix: whether links and syncs work on the mount is found out by itself"),
                ("sftp", "mount the directory, or run an object store on the other side"),
            ],
        ),
        "what kind of storage it is",
        "posix is a directory on a local or mounted file system that can create a file only if its name is \
         free (hard links, or renameat2 with RENAME_NOREPLACE): nothing in a repository is ever overwritten. s3 is \
         Amazon's or any store that speaks like it and keeps `If-None-Match: *` on PUT, azure is Azure Blob \
         Storage, gcs Google Cloud Storage; stanza-create tries out whether a store keeps that.",
    )
    .default("posix"),
    option(
        "repo-path",
        Kind::Path,
        "the directory of the repository, or its folder in a bucket",
        "Give the repository a disk of its own, better a machine of its own: a backup beside the database \
         burns with it. For repo1 there is a default; every further repository needs a path. In an object store \
         it is the folder in the bucket (/walden), and without one the repository is the whole bucket.",
    )
    .default("/var/lib/walden")
    .only_first(),
    option(
        "repo-cipher-type",
        Kind::Choice(
            &["aes-256-gcm", "none"],
            &[("aes-256-cbc", "walden seals with aes-256-gcm, which also notices every changed byte")],
        ),
        "how the repository is encrypted",
        "With aes-256-gcm everything but sizes and object names is secret, and every byte is proved to be what \
         was stored, where it was stored. With none, accidents are still noticed by strong hashes, but whoever \
         can write to the repository can forge it. It is chosen once, at stanza-create. Keep the key in a second \
         place: without it nobody can read the backups.",
    )
    .default("none"),
    option(
        "repo-cipher-pass",
        Kind::Text,
        "the repository's key or passphrase",
        "Best a key string that `walden key-generate` printed (walden-key-1.…): it cannot be guessed and costs nothing. A \
         passphrase works too and is derived deliberately slowly, once on each host if it stands in a file or the \
         configuration (see lock-path), else for every archived segment. Only in a configuration file that \
         nobody else can read, or in the environment; never on the command line, where every user of the \
         machine sees it. Often repo1-cipher-pass-file or repo1-cipher-pass-command is the better place.",
    )
    .secret()
    .unset("no key"),
    option(
        "repo-cipher-pass-file",
        Kind::Path,
        "a file that holds the key or passphrase",
        "One line. It should belong to the user that runs walden and be readable by nobody else. The file is \
         read only when the key is needed.",
    )
    .unset("no file"),
    option(
        "repo-cipher-pass-command",
        Kind::Text,
        "a command that prints the key or passphrase",
        "Run with `sh -c` when the key is needed, and not before; the first line it prints is the key. For \
         secrets kept in a vault or sealed by a key service. For archive-push it runs once per segment, and a passphrase \
         that it prints is derived each time: nothing of it is kept on this host.",
    )
    .unset("no command"),
];
