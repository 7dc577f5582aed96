//! The server: who it is, as whom we are there, and the settings that decide what a backup is worth.

use super::finding::Finding;
use crate::commands::open::{client_failure, connection};
use crate::commands::server::{questions, runtime, untested};
use crate::env::Env;
use crate::failure::Failure;
use crate::postgres::client::{Address, ClientError, Limits, ReplicationClient, SystemIdentity};
use crate::repo::Cluster;
use crate::report::{Report, render};
use crate::settings::ServerSettings;
use crate::units::{Lsn, SegmentName};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Beyond this, clocks are said to differ: moments to restore to are read off one of them.
const CLOCKS_AGREE: Duration = Duration::from_secs(2);

/// Every role may be shown these.
const SHOWN: [&str; 13] = [
    "archive_command",
    "archive_library",
    "archive_mode",
    "archive_timeout",
    "data_checksums",
    "fsync",
    "full_page_writes",
    "is_superuser",
    "max_wal_senders",
    "server_version",
    "summarize_wal",
    "transaction_read_only",
    "wal_level",
];

/// Where PostgreSQL reads its configuration; for `pg_read_all_settings`.
const PLACES: [&str; 4] = ["data_directory", "config_file", "hba_file", "ident_file"];

/// A connection, and the runtime it needs.
pub(super) struct Conversation {
    runtime: tokio::runtime::Runtime,
    client: ReplicationClient,
    user: String,
    what: String,
}

/// What `pg_stat_archiver` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Archiver {
    pub last_archived: Option<String>,
    pub archived_ago: Option<Duration>,
    pub last_failed: Option<String>,
    pub failed_ago: Option<Duration>,
    pub failures: u64,
}

impl Archiver {
    /// Whether the last thing that happened was a failure.
    pub(super) fn is_failing(&self) -> bool {
        match (self.failed_ago, self.archived_ago) {
            (Some(failed), Some(archived)) => failed < archived,
            (failed, _) => failed.is_some(),
        }
    }

    /// For a reason: what it failed at last.
    pub(super) fn failure(&self) -> Option<String> {
        let segment = self.last_failed.as_ref()?;
        let ago = render::duration(Duration::from_secs(self.failed_ago?.as_secs()));
        let last = match &self.last_archived {
            Some(last) => format!("the last one that it reported as stored is {last}"),
            None => "it has reported none as stored".to_owned(),
        };
        Some(format!("archive_command failed on {segment} {ago} ago; {last}"))
    }
}

/// What was learned of a server.
#[derive(Clone, Debug)]
pub(super) struct ServerFacts {
    pub at: Address,
    pub user: String,
    pub encrypted: bool,
    pub takes_sql: bool,
    pub cluster: Cluster,
    pub identity: SystemIdentity,
    /// Settings that could be read.
    pub settings: BTreeMap<&'static str, String>,
    pub standby: bool,
    /// WAL senders in use, ours included.
    pub senders: Option<u64>,
    /// The server's clock minus ours, in microseconds.
    pub clock_ahead: Option<i64>,
    /// Whether the configuration files' places could be asked for.
    pub outside: Outside,
}

/// Which configuration files lie outside the data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outside {
    /// These.
    Files(Vec<PathBuf>),
    /// The role may not ask where they are.
    NotTold,
}

impl ServerFacts {
    pub(super) fn setting(&self, name: &str) -> &str {
        self.settings.get(name).map_or("", String::as_str)
    }
}

impl Conversation {
    pub(super) fn open(server: &ServerSettings, report: &Report) -> Result<Self, Failure> {
        let parameters = connection(server)?;
        parameters.warnings.iter().for_each(|warning| report.warn(warning));
        let runtime = runtime()?;
        let mut client = runtime
            .block_on(ReplicationClient::connect(&parameters))
            .map_err(|error| client_failure(error, format!("could not connect to pg{}", server.index)))?;
        client.set_limits(Limits { answer: server.io_timeout.min(server.timeout), ..Limits::default() });
        let what = format!("could not ask the server at {}", client.address());
        Ok(Self { runtime, client, user: parameters.user, what })
    }

    pub(super) fn facts(&mut self, env: &dyn Env) -> Result<ServerFacts, Failure> {
        let at = self.client.address().clone();
        let cluster = self.runtime.block_on(questions(&mut self.client, &at.to_string()))?;
        let what = self.what.clone();
        self.ask(env, cluster).map_err(|error| client_failure(error, what))
    }

    fn ask(&mut self, env: &dyn Env, cluster: Cluster) -> Result<ServerFacts, ClientError> {
        let mut settings = BTreeMap::new();
        for name in SHOWN {
            if let Some(value) = self.show(name)? {
                settings.insert(name, value);
            }
        }
        let outside = self.outside()?;
        let senders = self.number("select count(*) from pg_stat_replication", "the WAL senders")?;
        let clock_ahead = self.clock_ahead(env)?;
        let identity = self.identity()?;
        let standby = match self.client.parameter("in_hot_standby") {
            Some(told) => told == "on",
            None => settings.get("transaction_read_only").is_some_and(|told| told == "on"),
        };
        Ok(ServerFacts {
            at: self.client.address().clone(),
            user: self.user.clone(),
            encrypted: self.client.is_encrypted(),
            takes_sql: self.client.takes_sql(),
            cluster,
            identity,
            settings,
            standby,
            senders: senders.and_then(|count| u64::try_from(count).ok()),
            clock_ahead,
            outside,
        })
    }

    pub(super) fn identity(&mut self) -> Result<SystemIdentity, ClientError> {
        self.runtime.block_on(self.client.identify_system())
    }

    /// `None` for a setting that this version does not have or this role may not see.
    fn show(&mut self, name: &str) -> Result<Option<String>, ClientError> {
        match self.runtime.block_on(self.client.show(name)) {
            Ok(value) => Ok(Some(value)),
            Err(error) if is_refusal(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn outside(&mut self) -> Result<Outside, ClientError> {
        let mut places = Vec::new();
        for name in PLACES {
            match self.show(name)? {
                Some(place) => places.push(PathBuf::from(place)),
                None => return Ok(Outside::NotTold),
            }
        }
        let data = places.remove(0);
        places.retain(|file| !file.as_os_str().is_empty() && !file.starts_with(&data));
        Ok(Outside::Files(places))
    }

    fn number(&mut self, statement: &str, what: &str) -> Result<Option<i64>, ClientError> {
        Ok(self.sql(statement, what)?.and_then(|mut row| row.pop().flatten()?.parse().ok()))
    }

    /// The first row; `None` where SQL cannot be had or the role may not ask this.
    fn sql(&mut self, statement: &str, what: &str) -> Result<Option<Vec<Option<String>>>, ClientError> {
        if !self.client.takes_sql() {
            return Ok(None);
        }
        match self.runtime.block_on(self.client.sql(statement, what)) {
            Ok(rows) => Ok(rows
                .first()
                .map(|row| (0..row.len()).map(|column| row.text(column).map(str::to_owned)).collect())),
            Err(error) if is_refusal(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn clock_ahead(&mut self, env: &dyn Env) -> Result<Option<i64>, ClientError> {
        let before = env.now().as_unix_micros();
        let told = self.number(
            "select (extract(epoch from clock_timestamp()) * 1000000)::bigint",
            "the server's clock",
        )?;
        let after = env.now().as_unix_micros();
        Ok(told.map(|told| match told {
            told if told < before => told.saturating_sub(before),
            told if told > after => told.saturating_sub(after),
            _ => 0,
        }))
    }

    /// What the archiver did; `None` where it cannot be asked.
    pub(super) fn archiver(&mut self) -> Result<Option<Archiver>, ClientError> {
        let row = self.sql(
            "select last_archived_wal, floor(extract(epoch from clock_timestamp() - last_archived_time) * 1000000)::bigint, \
             last_failed_wal, floor(extract(epoch from clock_timestamp() - last_failed_time) * 1000000)::bigint, \
             failed_count from pg_stat_archiver",
            "pg_stat_archiver",
        )?;
        let Some(row) = row else { return Ok(None) };
        let text = |column: usize| row.get(column).cloned().flatten();
        let ago = |column: usize| {
            text(column)?
                .parse::<i64>()
                .ok()
                .map(|micros| Duration::from_micros(micros.max(0).unsigned_abs()))
        };
        Ok(Some(Archiver {
            last_archived: text(0),
            archived_ago: ago(1),
            last_failed: text(2),
            failed_ago: ago(3),
            failures: text(4).and_then(|count| count.parse().ok()).unwrap_or(0),
        }))
    }

    /// Makes the server finish the segment it writes; the segment that is finished now. `None` where the role may not.
    pub(super) fn switch(&mut self, facts: &ServerFacts) -> Result<Option<SegmentName>, ClientError> {
        let may =
            self.sql("select has_function_privilege('pg_switch_wal()', 'execute')", "a right of the role")?;
        if may.and_then(|mut row| row.pop().flatten()).is_none_or(|may| may != "t") {
            return Ok(None);
        }
        // At a segment's very beginning a switch does nothing: some bytes first, which recovery passes over.
        self.sql("select pg_logical_emit_message(false, 'walden', 'check')", "a message in the WAL")?;
        let told = self.sql("select pg_switch_wal()", "a switch to a new WAL segment")?;
        let lsn = told.and_then(|mut row| row.pop().flatten()?.parse::<Lsn>().ok());
        Ok(lsn.map(|lsn| {
            // As pg_walfile_name: a position on the border is the end of the segment before.
            let last = Lsn::new(lsn.as_u64().saturating_sub(1));
            SegmentName::containing(facts.identity.timeline, last, facts.cluster.segment_size)
        }))
    }

    pub(super) fn failure(&self, error: ClientError) -> Failure {
        client_failure(error, self.what.clone())
    }

    pub(super) fn close(self) {
        let Self { runtime, client, .. } = self;
        runtime.block_on(client.close());
    }
}

/// 42501 insufficient_privilege, 42704 undefined_object (no such setting), 42883 undefined_function, 55000 and
/// 25006 (not during recovery).
fn is_refusal(error: &ClientError) -> bool {
    error.server().is_some_and(|notice| {
        matches!(notice.sqlstate.as_str(), "42501" | "42704" | "42883" | "55000" | "25006")
    })
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// What the server and the role are.
pub(super) fn judge(facts: &ServerFacts) -> Vec<Finding> {
    let mut found = vec![Finding::ok(
        "server",
        format!(
            "{} answers: PostgreSQL {}, {}, system {}",
            facts.at,
            facts.setting("server_version").split_whitespace().next().unwrap_or("?"),
            if facts.standby { "standby" } else { "primary" },
            facts.cluster.system
        ),
    )];
    found.extend(untested(facts.cluster.major).map(|text| Finding::warning("server", text)));
    found.push(way_in(facts));
    found.extend(rights(facts));
    found.extend(senders(facts));
    found.extend(settings(facts));
    found.extend(facts.clock_ahead.map(clock));
    found
}

fn way_in(facts: &ServerFacts) -> Finding {
    let user = &facts.user;
    let (how, exposed) = match &facts.at {
        Address::Unix { .. } => ("over its socket".to_owned(), false),
        Address::Tcp { .. } if facts.encrypted => ("over TLS".to_owned(), false),
        Address::Tcp { host, .. } => ("without TLS".to_owned(), !is_loopback(host)),
    };
    let text = format!("role {user} has REPLICATION; pg_hba.conf lets it in {how}");
    if exposed {
        Finding::warning("connection", format!("{text}: whoever is in between reads the database along"))
            .next("Set sslmode=verify-full and sslrootcert in pg1-conninfo; the server needs ssl = on.")
    } else {
        Finding::ok("connection", text)
    }
}

/// What the role may not do, and what would help.
fn rights(facts: &ServerFacts) -> Vec<Finding> {
    let user = &facts.user;
    let mut found = Vec::new();
    if facts.setting("is_superuser") == "on" {
        found.push(
            Finding::note(
                "role",
                format!("role {user} is a superuser; REPLICATION is all that a backup needs"),
            )
            .next("`create role walden login replication`, and pg1-user=walden."),
        );
    }
    if !facts.takes_sql {
        let line = match facts.at {
            Address::Unix { .. } => format!("local postgres {user} METHOD"),
            Address::Tcp { .. } => format!("host postgres {user} ADDRESS/32 METHOD"),
        };
        found.push(
            Finding::note(
                "role",
                format!(
                    "role {user} may replicate and not run SQL: enough for backups, but pg_stat_archiver and the clock \
                     are not looked at"
                ),
            )
            .next(format!(
                "To have these looked at, too: a line `{line}` in pg_hba.conf, METHOD as in its line for replication."
            )),
        );
    }
    found
}

fn senders(facts: &ServerFacts) -> Option<Finding> {
    let most: u64 = facts.setting("max_wal_senders").parse().ok()?;
    let used = facts.senders?;
    let free = most.saturating_sub(used);
    let text = format!("max_wal_senders = {most}, {used} in use");
    Some(if free == 0 {
        Finding::warning(
            "settings",
            format!("{text}: this check has the last one, and a standby may take it before a backup"),
        )
        .next("Raise max_wal_senders (it needs a restart); a backup takes one.")
    } else {
        Finding::ok("settings", text)
    })
}

fn settings(facts: &ServerFacts) -> Vec<Finding> {
    let mut found = Vec::new();
    let off = |name: &str| facts.setting(name) == "off";
    if off("data_checksums") {
        found.push(
            Finding::warning(
                "settings",
                "data_checksums is off: a page that the disk changed goes into backups unnoticed",
            )
            .next("With the server stopped: `pg_checksums --enable`."),
        );
    }
    if off("full_page_writes") {
        found.push(
            Finding::warning(
                "settings",
                "full_page_writes is off: a crash of the host can tear pages for good",
            )
            .because("a backup turns it on for itself; of a standby of this server none can be taken")
            .next("`alter system set full_page_writes = on`, then `select pg_reload_conf()`."),
        );
    }
    if off("fsync") {
        found.push(
            Finding::warning(
                "settings",
                "fsync is off: a crash of the host can leave the cluster damaged beyond repair",
            )
            .next("`alter system set fsync = on`, then `select pg_reload_conf()`."),
        );
    }
    if off("summarize_wal") {
        found.push(Finding::note(
            "settings",
            "summarize_wal is off: right for today's full backups; incremental ones, which a later version brings, will want it",
        ));
    }
    if let Outside::Files(files) = &facts.outside
        && let Some(first) = files.first()
    {
        let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
        let directory = first.parent().unwrap_or(Path::new("/")).display();
        found.push(
            Finding::warning(
                "configuration",
                format!(
                    "configuration lies outside the data directory, where no base backup holds it: {}",
                    names.join(", ")
                ),
            )
            .next(format!("Keep a copy of {directory} where this host's end does not take it along.")),
        );
    }
    found
}

fn clock(ahead: i64) -> Finding {
    let apart = Duration::from_micros(ahead.unsigned_abs());
    if apart <= CLOCKS_AGREE {
        return Finding::ok("clock", "this host's clock and the server's agree");
    }
    let which = if ahead > 0 { "ahead of" } else { "behind" };
    Finding::warning(
        "clock",
        format!("the server's clock is {} {which} this host's", render::duration(apart)),
    )
    .because(
        "a moment to restore to is compared with the server's clock, the moments of backups are this host's",
    )
    .next("Set both right (chrony, systemd-timesyncd).")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::units::{PgMajor, SegmentSize, TimelineId};

    pub(in super::super) fn facts() -> ServerFacts {
        let system = "7572093145086623041".parse().unwrap();
        let on = [
            ("archive_mode", "on"),
            ("archive_command", "/usr/bin/walden --stanza=shop archive-push \"%p\""),
            ("archive_timeout", "1min"),
            ("data_checksums", "on"),
            ("fsync", "on"),
            ("full_page_writes", "on"),
            ("is_superuser", "off"),
            ("max_wal_senders", "10"),
            ("server_version", "17.7 (Debian 17.7-1)"),
            ("wal_level", "replica"),
        ];
        ServerFacts {
            at: Address::Tcp { host: "db1".to_owned(), port: 5432 },
            user: "walden".to_owned(),
            encrypted: true,
            takes_sql: true,
            cluster: Cluster {
                system,
                major: PgMajor::new(17),
                page_size: 8192,
                segment_size: SegmentSize::new(16 << 20).unwrap(),
                blocks_per_file: 131_072,
            },
            identity: SystemIdentity {
                system,
                timeline: TimelineId::new(2).unwrap(),
                flushed: Lsn::new(0x00A5_0E00_0100),
            },
            settings: on.into_iter().map(|(name, value)| (name, value.to_owned())).collect(),
            standby: false,
            senders: Some(1),
            clock_ahead: Some(0),
            outside: Outside::Files(Vec::new()),
        }
    }

    fn text(facts: &ServerFacts) -> String {
        judge(facts).iter().map(Finding::line).collect()
    }

    #[test]
    fn a_server_as_it_should_be() {
        assert_eq!(
            text(&facts()),
            "ok       db1:5432 answers: PostgreSQL 17.7, primary, system 7572093145086623041\n\
             ok       role walden has REPLICATION; pg_hba.conf lets it in over TLS\n\
             ok       max_wal_senders = 10, 1 in use\n\
             ok       this host's clock and the server's agree\n"
        );
    }

    #[test]
    fn each_setting_that_will_be_regretted_is_named_with_what_helps() {
        let mut facts = facts();
        for name in ["data_checksums", "full_page_writes", "fsync", "summarize_wal"] {
            facts.settings.insert(name, "off".to_owned());
            assert!(text(&facts).contains(&format!("{name} is off")), "{}", text(&facts));
        }
        facts.encrypted = false;
        assert!(
            text(&facts).contains("warning  role walden has REPLICATION; pg_hba.conf lets it in without TLS")
        );
        facts.at = Address::Tcp { host: "127.0.0.1".to_owned(), port: 5432 };
        assert!(
            text(&facts).contains("ok       role walden has REPLICATION; pg_hba.conf lets it in without TLS")
        );
        facts.senders = Some(10);
        assert!(text(&facts).contains("warning  max_wal_senders = 10, 10 in use"));
        facts.outside = Outside::Files(vec![PathBuf::from("/etc/postgresql/17/main/postgresql.conf")]);
        assert!(
            text(&facts).contains("next: Keep a copy of /etc/postgresql/17/main where"),
            "{}",
            text(&facts)
        );
        facts.clock_ahead = Some(-95_000_000);
        assert!(
            text(&facts).contains("the server's clock is 1 min 35 s behind this host's"),
            "{}",
            text(&facts)
        );
    }

    #[test]
    fn whether_archiving_fails_now_is_told_by_which_came_last() {
        let at = |seconds| Some(Duration::from_secs(seconds));
        let archiver =
            |archived_ago, failed_ago| Archiver { archived_ago, failed_ago, ..Archiver::default() };
        assert!(!archiver(None, None).is_failing());
        assert!(!archiver(at(1), at(5)).is_failing());
        assert!(archiver(at(5), at(1)).is_failing());
        assert!(archiver(None, at(1)).is_failing());
    }
}
