//! The commands: names, arguments, help. What runs them is `commands::runner`.

/// One command.
#[derive(Clone, Copy, Debug)]
pub struct CommandSpec {
    /// What is typed.
    pub name: &'static str,
    /// Arguments beside options: the name shown, and whether it may be left out.
    pub arguments: &'static [(&'static str, Presence)],
    /// Whether the configuration is read. Commands that teach must work without one.
    pub reads_configuration: bool,
    /// Whether mistakes in the configuration that do not concern the command are warnings only, so that a
    /// typo or a downgrade cannot stop archiving or recovery.
    pub lenient: bool,
    /// One line, lower case, no full stop.
    pub short: &'static str,
    /// What a person about to use it should know.
    pub long: &'static str,
}

/// Whether an argument may be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It must be given.
    Required,
    /// It may be left out.
    Optional,
}

use Presence::{Optional, Required};

const fn command(
    name: &'static str,
    arguments: &'static [(&'static str, Presence)],
    short: &'static str,
    long: &'static str,
) -> CommandSpec {
    CommandSpec { name, arguments, reads_configuration: true, lenient: false, short, long }
}

const fn without_configuration(spec: CommandSpec) -> CommandSpec {
    CommandSpec { reads_configuration: false, ..spec }
}

const fn lenient(spec: CommandSpec) -> CommandSpec {
    CommandSpec { lenient: true, ..spec }
}

const ALL: &[CommandSpec] = &[
    command(
        "stanza-create",
        &[],
        "prepare the repositories for a cluster",
        "Creates the repositories that do not exist yet, proves that their storage creates a name only once, \
         and records which cluster the stanza holds. Safe to run again: what is there is kept.",
    ),
    command(
        "check",
        &[],
        "try out everything that a backup and a restore will rest on",
        "Asks the server who it is, what this role may do and whether its settings archive WAL here; makes it finish a \
         WAL segment, where the role may, and waits until that has arrived in each repository; opens each repository, \
         tries its storage out with objects that are removed again, and looks at its newest backup, its key and its room. \
         Each finding is ok, note, warning or error and says what to do about it. Warnings alone end with exit code 50, \
         errors with the code of the first. With --output=json: stanza, status (ok, warnings, errors), warnings, errors, \
         and findings with level, topic, repository (or null), text, because, next and exit_code.",
    ),
    command(
        "stanza-upgrade",
        &[],
        "add the cluster that succeeds a stanza's, after pg_upgrade",
        "After pg_upgrade, or a new initdb for the same database, the cluster has a new system identifier. This adds \
         it to the stanza: backups and WAL of the old one stay and can be restored, those of the new one come \
         beside them. Take a backup right after it. Changes nothing when the cluster is held already.",
    ),
    command(
        "stanza-delete",
        &[],
        "delete a stanza with all its backups and WAL",
        "Shows what would go, and with --yes deletes it: all backups, all WAL, every cluster, at once and for good, \
         in all repositories or the one that --repo names. The stanza must be stopped on this host (`walden stop`). \
         A restore that is under way, anywhere, fails; a backup that is being taken fails, too. A few hundred \
         bytes for each backup stay for ever, so that none of them can come up again.",
    ),
    command(
        "stop",
        &[],
        "let nothing on this host write to a stanza's repositories",
        "Makes a file in lock-path. While it is there, annotate, archive-push, backup, expire, pin, stanza-create, \
         stanza-upgrade and unpin refuse to run on this host (11), for the stanza of --stanza or, without it, \
         for all; PostgreSQL keeps its WAL meanwhile. What runs goes on to its end, and is not ended. Reading \
         (archive-get, restore, info and the like) is never stopped.",
    ),
    command(
        "start",
        &[],
        "undo stop",
        "Removes the file that stop made, with the same --stanza, or without one as stop was.",
    ),
    command(
        "backup",
        &[],
        "take a backup over the replication protocol",
        "Reads the cluster over one replication connection, from any host, and stores it compressed and sealed. \
         It is complete only when the WAL it needs is in the repository too and the archive was proved to be \
         this server's; an interrupted backup leaves nothing that looks like one.",
    ),
    lenient(command(
        "archive-push",
        &[("PATH", Required)],
        "store a WAL file; for archive_command",
        "archive_command = 'walden --stanza=NAME archive-push %p'. An exit of 0 means that the file is durable \
         in every repository. While one of them is away it fails, and PostgreSQL keeps its WAL; the others get the \
         file, and the finished ones that wait behind it. Pushing the same contents again is fine; other contents \
         under a name that is taken is refused (41), because two servers are then archiving into one stanza.",
    )),
    lenient(command(
        "archive-get",
        &[("NAME", Required), ("TARGET", Required)],
        "fetch a WAL file; for restore_command",
        "restore_command = 'walden --stanza=NAME archive-get %f \"%p\"'. 0: the file is there and verified. 1: it \
         is certainly not in the archive. 200: could not find out, and recovery stops instead of ending too \
         early. `walden restore` writes the command with all that makes its answers certain.",
    )),
    command(
        "restore",
        &[],
        "bring a cluster back, to any moment the archive holds",
        "Makes a plan first and shows it (--dry-run stops there): the backup, the WAL and whether all of it is \
         there, what is written where. Nothing is touched before the plan holds. The control file comes last, \
         so that a directory that is not finished cannot be started.",
    ),
    command(
        "info",
        &[],
        "what there is, and which moments one can go back to",
        "Shows for each stanza the stretches of time to which one can recover, gaps in the archive, and the \
         backups with their sizes and notes. With several repositories that is what all of them bring back together: \
         a restore takes each segment from whichever has it. What a repository could bring back if the others were \
         gone stands under its line, after `alone:`, where it is something else; --output=json tells it of each. \
         Gaps and other things that are missing are no failure of it, as with pgBackRest: it ends with 0 and tells \
         them, and with 50 where something could not be looked at. A program reads `status` and `problems` of each \
         stanza in --output=json.",
    ),
    command(
        "annotate",
        &[],
        "change the notes on a backup",
        "--annotation=key=value sets a note, --annotation=key= removes one. The backup itself stays as it is: \
         what is noted is stored beside it, in every repository that holds it.",
    ),
    command(
        "pin",
        &[],
        "keep a backup until it is unpinned",
        "A pinned backup, and the WAL it needs, is not removed by expire, whatever retention says. --until lets \
         the pin end by itself. Several people may pin one backup.",
    ),
    command(
        "unpin",
        &[],
        "let retention decide about a backup again",
        "Undoes every pin that is there now. One that somebody sets meanwhile stays.",
    ),
    command(
        "verify",
        &[],
        "read everything that is stored, and say whether it is good",
        "Reads every object of every backup and all WAL, opens and hashes it, and holds maps, records, histories \
         and segments against each other. Names each damaged object and the files and pages in it. Ends with 0 \
         only if everything that was asked for was read and is good; 40: damaged, 42: something is missing, 30: \
         something could not be read. Needs no right to write, and may run beside everything else.",
    ),
    command(
        "expire",
        &[],
        "remove backups that retention does not keep, and WAL with them",
        "Makes a plan first: which backups stay and why, which go and why, what is freed, and how far back one can \
         go before and after; --dry-run stops there. What goes is out of every list at once, and its data is deleted \
         after expire-delay. --set removes one backup whatever retention says. Any other backup is left whole by it, \
         also while backups, restores or another expire run. Without a retention nothing is removed but what \
         --set removed.",
    ),
    command(
        "repo-ls",
        &[("PATH", Optional)],
        "list what is in a repository",
        "Paths are those of src/repo/FORMAT.md, relative to the repository. For looking; nothing in it needs \
         to be moved or deleted by hand. Without --repo the repository with the lowest number that can be listed; \
         where an earlier one could not be, that is told, and it ends with 50.",
    ),
    command(
        "repo-get",
        &[("PATH", Required)],
        "write the contents of one stored object to stdout",
        "Opened and checked: decrypted, decompressed, every byte verified. Without --repo from the first repository \
         that gives it whole; which one is told on stderr where it is not that of the lowest number. Where an earlier \
         one could not be looked into or has it damaged, it ends with 50.",
    ),
    without_configuration(command(
        "key-generate",
        &[],
        "print a new key for a repository",
        "A random key with a checksum, for repo1-cipher-pass-file or a vault. Keep it in a second place, away \
         from the repository: without it nobody can read the backups.",
    )),
    command(
        "config",
        &[("COMMAND", Optional)],
        "show every setting and where it came from",
        "With the name of a command, what that command would use; otherwise what the configuration file and the \
         environment say. Secrets are masked. Every mistake in the file is an error here.",
    ),
    without_configuration(command(
        "help",
        &[("COMMAND", Optional), ("OPTION", Optional)],
        "explain commands and options",
        "`walden help` lists the commands, `walden help COMMAND` its options, `walden help COMMAND OPTION` what an \
         option means, its values and default. `walden help exit-codes` and `walden help configuration` explain those.",
    )),
    without_configuration(command(
        "man",
        &[("COMMAND", Optional)],
        "write a manual page",
        "The page of walden or of one command, to stdout; --output-dir=DIR writes all of them.",
    )),
    without_configuration(command(
        "completion",
        &[("SHELL", Required)],
        "write the completions for a shell (bash, zsh or fish)",
        "For bash: walden completion bash > /etc/bash_completion.d/walden. Options with numbers are completed \
         for 1; others can be typed.",
    )),
    without_configuration(command(
        "version",
        &[],
        "show the version",
        "The version of the program. The version of the stored format stands in walden.json.",
    )),
];

/// Every command of this version, in the order of help.
#[must_use]
pub const fn commands() -> &'static [CommandSpec] {
    ALL
}

/// The command of that name.
#[must_use]
pub fn command_named(name: &str) -> Option<&'static CommandSpec> {
    ALL.iter().find(|spec| spec.name == name)
}

/// Commands of pgBackRest, or of later versions, that do not exist here, and what to do instead.
pub(crate) const ABSENT: &[(&str, &str)] = &[
    ("server", "walden needs no server of its own: it reads over PostgreSQL's replication protocol"),
    ("server-ping", "walden needs no server of its own: it reads over PostgreSQL's replication protocol"),
    ("manifest", "`walden info --set=ID` tells about one backup"),
    ("repo-put", "nothing is put into a repository by hand"),
    ("repo-rm", "nothing is removed from a repository by hand"),
];
