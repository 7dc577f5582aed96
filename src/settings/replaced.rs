//! pgBackRest's options that walden does not have, and what takes their place.

const WAL_GOES_WITH_BACKUPS: &str = "WAL goes with backups: all that a backup that stays can replay stays, too; see repo1-retention-full \
     and repo1-keep-window";
const ENDPOINT: &str = "give the host, and the port if need be, in repo1-s3-endpoint (or -azure-, -gcs-)";
const CA_FILE: &str = "use repo1-storage-ca-file, one file with all certificates";
const NO_AGENT: &str = "not needed: walden reads over PostgreSQL's replication protocol, with nothing installed on the database host";
const REPO_HOST: &str =
    "not needed: run the backup where the repository is, or mount it; remote repositories are object stores";
const ALWAYS_PACKED: &str = "not needed: files always share packs, see pack-size";
const ALWAYS_FRAMES: &str = "not needed: files are always kept in frames of 128 KiB";
const ASYNC: &str = "archiving through a spool comes with a later version; a push starts in milliseconds";
const LINKS: &str =
    "the replication protocol brings what links point to only for tablespaces and pg_wal, see wal-dir";
const SSH: &str = "walden runs nothing on other hosts";

/// Names without numbers; a `*` at the end stands for anything. The first that fits counts.
const REPLACED: &[(&str, &str)] = &[
    ("repo-retention-archive*", WAL_GOES_WITH_BACKUPS),
    (
        "repo-retention-diff",
        "every backup restores alone; repo1-retention-full keeps all since the oldest full that stays",
    ),
    ("repo-retention-history", "not needed: of a removed backup a name of 300 bytes stays, for ever"),
    ("archive-expire-before", WAL_GOES_WITH_BACKUPS),
    ("oldest", "not needed: `walden expire --set=ID` removes one backup, the oldest or any other"),
    ("repo-bundle*", ALWAYS_PACKED),
    ("repo-block*", ALWAYS_FRAMES),
    ("repo-hardlink", "not needed: an unchanged file is referenced, not linked"),
    ("repo-symlink", "not needed: backups are found by `walden info`"),
    (
        "repo-target-time",
        "not needed: nothing in a repository is ever overwritten, so there is no older state to read",
    ),
    ("repo-storage-host", ENDPOINT),
    ("repo-storage-port", ENDPOINT),
    ("repo-storage-ca-path", CA_FILE),
    ("repo-storage-tag", "objects carry no tags; give rules for the bucket or for the folder of repo1-path"),
    ("repo-storage-upload-chunk-size", "not needed: every object is one request, see pack-size"),
    ("repo-storage-prefetch", "not needed: what is read next is fetched meanwhile, as process-max allows"),
    ("repo-storage-read-over", "not needed: a restore reads what it needs in ranges of its own choice"),
    ("repo-s3-process-cmd", "not planned: let a profile file or an instance's role give the credentials"),
    ("repo-s3-service", "not needed: requests are signed for s3"),
    ("repo-s3-sts-host", "not needed: with repo1-s3-key-type=web-id AWS_ENDPOINT_URL_STS is heeded"),
    ("repo-s3-host", ENDPOINT),
    ("repo-s3-port", ENDPOINT),
    ("repo-s3-ca-*", CA_FILE),
    ("repo-s3-verify-tls", "use repo1-storage-verify-tls"),
    ("repo-s3-role", "not needed: repo1-s3-key-type=auto takes the role that the instance has"),
    ("repo-s3-requester-pays", "buckets whose reader pays are not supported"),
    ("repo-azure-host", ENDPOINT),
    ("repo-azure-port", ENDPOINT),
    ("repo-azure-ca-*", CA_FILE),
    ("repo-azure-verify-tls", "use repo1-storage-verify-tls"),
    ("repo-gcs-ca-*", CA_FILE),
    ("repo-gcs-verify-tls", "use repo1-storage-verify-tls"),
    ("repo-gcs-user-project", "buckets whose reader pays are not supported"),
    ("repo-sftp-*", "sftp is not planned; mount the directory, or use an object store"),
    ("repo-host*", REPO_HOST),
    ("repo-local", REPO_HOST),
    ("pg-host-*", NO_AGENT),
    ("pg-local", NO_AGENT),
    ("pg-version-force", "the version is read from the server and never overruled"),
    ("pg-socket", "use pg1-socket-path"),
    ("pg-password", "passwords belong in .pgpass or PGPASSWORD, where libpq looks for them, too"),
    (
        "backup-standby",
        "not needed: the backup is taken of the server that pg1-host names, which may be a standby",
    ),
    ("backup-user", SSH),
    ("archive-async", ASYNC),
    ("archive-get-queue-max", ASYNC),
    ("archive-push-queue-max", "walden never reports WAL as archived that it dropped"),
    ("archive-push-batch-size", ASYNC),
    ("archive-header-check", "always on: every segment's header is checked"),
    ("archive-missing-retry", "always on: archive-get looks again before it says that a segment is missing"),
    ("archive-copy", "not needed: see archive-check, which fetches the WAL with n"),
    ("archive-mode-check", "not needed: archive_mode = always is safe here, equal pushes succeed"),
    ("checksum-page", "always on where the cluster has checksums"),
    ("page-header-check", "always on where the cluster has checksums"),
    ("exclude", "not possible over the replication protocol, and a backup without some files is no backup"),
    ("manifest-save-threshold", "not needed: everything stored counts as soon as it is stored"),
    ("online", "walden backs up running servers only; a stopped one can be copied"),
    ("no-online", "walden backs up running servers only; a stopped one can be copied"),
    ("resume", "comes with a later version; an interrupted backup leaves nothing in the way"),
    ("stop-auto", "not needed since PostgreSQL 9.6"),
    (
        "delta",
        "restoring over a damaged directory comes with a later version; --force replaces what is there",
    ),
    ("db-include", "the whole cluster is restored; one can drop databases afterwards"),
    ("db-exclude", "the whole cluster is restored; one can drop databases afterwards"),
    ("link-all", LINKS),
    ("link-map", LINKS),
    ("allow-root", "not needed: who may run walden is decided by the rights on its files"),
    ("buffer-size", "not needed: memory is bounded by process-max and pack-size"),
    ("compress", "use compress-type"),
    ("compress-level-network", "not needed: data is compressed where walden runs"),
    ("job-retry*", "not needed: what may succeed on a second try is tried again as repo1-storage-retry says"),
    ("neutral-umask", "always on: what is stored carries no umask, restored files get PostgreSQL's modes"),
    ("priority", "use nice and ionice"),
    ("protocol-timeout", "use io-timeout"),
    ("cmd", SSH),
    ("cmd-ssh", SSH),
    ("sck-*", "not needed: keepalives are always on"),
    ("tcp-keep-alive-*", "not needed: keepalives are always on"),
    ("tls-*", NO_AGENT),
    ("log-timestamp", "log files always carry times, the console never does"),
    ("log-subprocess", "there are no subprocesses"),
    ("verbose", "use log-level-console=detail"),
    ("detail-level", "`walden info --output=json` always tells all"),
    ("filter", "use grep"),
    ("sort", "names are always sorted"),
    ("ignore-missing", "an object that is missing is always an error, with exit code 10 or 40"),
];

/// What takes the place of pgBackRest's option `name` (without its number); `None` if it has none of that name.
#[must_use]
pub fn replacement(name: &str) -> Option<&'static str> {
    let fits = |pattern: &str| match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == pattern,
    };
    REPLACED.iter().find(|(pattern, _)| fits(pattern)).map(|(_, words)| *words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_that_exists_is_not_called_replaced() {
        for spec in crate::settings::table::options() {
            assert_eq!(replacement(spec.name), None, "{}", spec.name);
        }
    }

    /// The option reference of pgBackRest 2.60, without numbers, the internal ones left out.
    const OF_PGBACKREST: &str = "\
        annotation archive-async archive-check archive-copy archive-get-queue-max archive-header-check \
        archive-missing-retry archive-mode archive-mode-check archive-push-queue-max archive-timeout backup-standby \
        buffer-size checksum-page cmd cmd-ssh compress compress-level compress-level-network compress-type config \
        config-include-path config-path db-exclude db-include db-timeout delta dry-run exclude expire-auto force \
        ignore-missing io-timeout job-retry job-retry-interval link-all link-map lock-path log-level-console \
        log-level-file log-level-stderr log-path log-subprocess log-timestamp manifest-save-threshold neutral-umask \
        online output page-header-check pg-database pg-host pg-host-cmd pg-host-config pg-host-port pg-host-type \
        pg-host-user pg-path pg-port pg-socket-path pg-user pg-version-force priority process-max protocol-timeout \
        recovery-option recurse repo repo-azure-account repo-azure-container repo-azure-endpoint repo-azure-key \
        repo-azure-key-type repo-azure-uri-style repo-block repo-bundle repo-bundle-limit repo-bundle-size \
        repo-cipher-pass repo-cipher-type repo-gcs-bucket repo-gcs-endpoint repo-gcs-key repo-gcs-key-type \
        repo-gcs-user-project repo-hardlink repo-host repo-host-cmd repo-host-port repo-host-type repo-host-user \
        repo-path repo-retention-archive repo-retention-archive-type repo-retention-diff repo-retention-full \
        repo-retention-full-type repo-retention-history repo-s3-bucket repo-s3-endpoint repo-s3-key \
        repo-s3-key-secret repo-s3-key-type repo-s3-kms-key-id repo-s3-process-cmd repo-s3-region \
        repo-s3-requester-pays repo-s3-role repo-s3-service repo-s3-sse-customer-key repo-s3-sts-host repo-s3-token \
        repo-s3-uri-style repo-sftp-host repo-sftp-host-user repo-sftp-private-key-file repo-storage-ca-file \
        repo-storage-ca-path repo-storage-host repo-storage-port repo-storage-prefetch repo-storage-read-over \
        repo-storage-tag repo-storage-upload-chunk-size repo-storage-verify-tls repo-symlink repo-target-time \
        repo-type resume sck-block sck-keep-alive set spool-path stanza start-fast stop-auto tablespace-map \
        tablespace-map-all target target-action target-exclusive target-timeline tcp-keep-alive-count \
        tcp-keep-alive-idle tcp-keep-alive-interval tls-server-address tls-server-auth tls-server-ca-file \
        tls-server-cert-file tls-server-key-file tls-server-port type archive-mode";

    #[test]
    fn every_option_of_pgbackrest_is_there_or_has_words() {
        let ours: Vec<_> = crate::settings::table::options().map(|spec| spec.name).collect();
        let missing: Vec<_> = OF_PGBACKREST
            .split_whitespace()
            .filter(|name| !ours.contains(name) && replacement(name).is_none())
            .collect();
        assert!(missing.is_empty(), "{missing:?}");
    }

    #[test]
    fn a_star_stands_for_the_rest() {
        assert_eq!(replacement("repo-retention-archive-type"), Some(WAL_GOES_WITH_BACKUPS));
        assert_eq!(replacement("repo-retention"), None);
    }
}
