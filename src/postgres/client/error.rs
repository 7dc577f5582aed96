//! What can go wrong between us and a server, told apart as far as a person would act differently.

use super::conninfo::Address;
use super::password::PasswordSource;
use super::tls::{BindingProblem, TlsProblem};
use crate::units::{Lsn, TimelineId};
use std::fmt;
use std::io;
use std::time::Duration;

/// A message of the server: an error, or a notice or warning on the way.
///
/// Texts are in the server's language (`lc_messages`); `sqlstate` and `routine` are not translated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notice {
    /// `ERROR`, `FATAL`, `PANIC`, `WARNING`, `NOTICE`, `DEBUG`, `INFO` or `LOG`, never translated.
    pub severity: String,
    /// Five characters (PostgreSQL, appendix A); empty when the server sent none.
    pub sqlstate: String,
    /// The message itself, one line as a rule.
    pub message: String,
    /// More about it, or empty.
    pub detail: String,
    /// What the server advises, or empty.
    pub hint: String,
    /// The C function in the server that reported it, or empty.
    pub routine: String,
}

impl Notice {
    /// Whether it is worth showing: a warning or worse.
    #[must_use]
    pub fn is_warning(&self) -> bool {
        matches!(self.severity.as_str(), "WARNING" | "ERROR" | "FATAL" | "PANIC")
    }

    /// Whether the server ends the session with it.
    pub(super) fn ends_the_session(&self) -> bool {
        matches!(self.severity.as_str(), "FATAL" | "PANIC")
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if !self.detail.is_empty() {
            write!(f, " ({})", self.detail)?;
        }
        if !self.sqlstate.is_empty() {
            write!(f, " [{}]", self.sqlstate)?;
        }
        Ok(())
    }
}

/// What the client was at when it failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doing {
    /// Opening the connection.
    Connecting,
    /// Asking whether the server speaks TLS.
    AskingForTls,
    /// The TLS handshake.
    Handshaking,
    /// Start-up and authentication.
    SigningIn,
    /// A short command, named.
    Asking(String),
    /// `BASE_BACKUP` was sent; the server makes its checkpoint.
    AwaitingCheckpoint,
    /// Files of the base backup are coming.
    ReceivingBackup,
    /// The manifest is coming.
    ReceivingManifest,
    /// Everything came; the server ends the backup.
    AwaitingBackupEnd,
    /// WAL is coming; everything before this position has arrived.
    ReceivingWal(Lsn),
}

impl fmt::Display for Doing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connecting => f.write_str("connecting"),
            Self::AskingForTls => f.write_str("asking for TLS"),
            Self::Handshaking => f.write_str("agreeing on TLS"),
            Self::SigningIn => f.write_str("signing in"),
            Self::Asking(what) => write!(f, "asking for {what}"),
            Self::AwaitingCheckpoint => f.write_str("waiting for the server's checkpoint"),
            Self::ReceivingBackup => f.write_str("receiving the base backup"),
            Self::ReceivingManifest => f.write_str("receiving the backup manifest"),
            Self::AwaitingBackupEnd => f.write_str("waiting for the server to end the backup"),
            Self::ReceivingWal(at) => write!(f, "receiving WAL at {at}"),
        }
    }
}

/// Why a server that is there takes no connections (SQLSTATE 57P03). Read from the English text;
/// [`ServerState::Unknown`] when the server speaks another language.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerState {
    /// "the database system is starting up".
    StartingUp,
    /// "the database system is shutting down".
    ShuttingDown,
    /// "the database system is in recovery mode": it crashed and repairs itself.
    InRecovery,
    /// A standby or a recovery that has not reached consistency.
    NotConsistentYet,
    /// `hot_standby` is off.
    HotStandbyOff,
    /// Something else, or in another language.
    Unknown,
}

/// A failure of the client. `Display` is one line without the cause.
#[derive(Debug)]
#[non_exhaustive]
pub enum ClientError {
    /// The host name has no address.
    Resolve {
        /// As it was given.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// Nothing answers there.
    Connect {
        /// The last address that was tried.
        at: Address,
        /// What the system said.
        source: io::Error,
    },
    /// The connection cannot be encrypted, or not with whom it should be.
    Tls {
        /// Where the server is.
        at: Address,
        /// What is wrong.
        problem: Box<TlsProblem>,
    },
    /// Authentication cannot be bound to the TLS session as it must be.
    ChannelBinding {
        /// Where the server is.
        at: Address,
        /// Why not.
        problem: BindingProblem,
    },
    /// `pg_hba.conf` lets this user and address not in: neither to the database nor to replication.
    NoHbaEntry {
        /// Where the server is.
        at: Address,
        /// The user who was refused.
        user: String,
        /// Whether one of the attempts was encrypted.
        encrypted: bool,
        /// The server's words, one for each way that was tried.
        refusals: Vec<Notice>,
    },
    /// The server wants a password and there is none.
    PasswordMissing {
        /// Where the server is.
        at: Address,
        /// The user it is asked of.
        user: String,
    },
    /// The server did not take the password.
    PasswordWrong {
        /// Where the server is.
        at: Address,
        /// The user.
        user: String,
        /// Where the password came from.
        from: PasswordSource,
        /// The server's words.
        server: Box<Notice>,
    },
    /// Authentication failed in another way: no such role, no `LOGIN`, `peer` and a different system user, …
    NotAuthorized {
        /// Where the server is.
        at: Address,
        /// The user.
        user: String,
        /// The server's words.
        server: Box<Notice>,
    },
    /// The server asks for a way to authenticate that we do not know.
    AuthenticationUnsupported {
        /// Its name.
        method: String,
    },
    /// The server could not prove that it knows the password's verifier: it is not who it should be.
    ServerNotAuthentic,
    /// The role exists but has no `REPLICATION` attribute.
    NoReplicationRight {
        /// The user.
        user: String,
        /// The server's words.
        server: Box<Notice>,
    },
    /// `max_connections` is reached.
    TooManyClients {
        /// The server's words.
        server: Box<Notice>,
    },
    /// `max_wal_senders` is reached.
    NoFreeWalSender {
        /// The server's words.
        server: Box<Notice>,
    },
    /// The database to connect to does not exist.
    NoSuchDatabase {
        /// Its name.
        database: String,
        /// The server's words.
        server: Box<Notice>,
    },
    /// The server is there and takes no connections now.
    NotReady {
        /// Why, as far as it can be told.
        state: ServerState,
        /// The server's words.
        server: Box<Notice>,
    },
    /// An administrator or the server's shutdown ended our session (57P01, 57P02).
    EndedByServer {
        /// What was under way.
        doing: Doing,
        /// The server's words.
        server: Box<Notice>,
    },
    /// What answers does not speak PostgreSQL's protocol.
    NotPostgres {
        /// Where.
        at: Address,
        /// The first bytes of the answer, for people.
        answer: String,
    },
    /// The server sent something that the protocol does not allow here.
    Protocol {
        /// What was under way.
        doing: Doing,
        /// What was wrong with it.
        what: String,
    },
    /// The connection has only physical replication: no SQL.
    NoSql,
    /// A request that cannot be sent, such as a label with control characters.
    Request(String),
    /// The WAL that was asked for is no longer on the server.
    WalRemoved {
        /// The position asked for.
        at: Lsn,
        /// The timeline asked for.
        timeline: TimelineId,
        /// The server's words.
        server: Box<Notice>,
    },
    /// The server refused or failed in some other way.
    Server {
        /// What was under way.
        doing: Doing,
        /// The server's words.
        server: Box<Notice>,
    },
    /// No answer for longer than allowed.
    TimedOut {
        /// What was under way.
        doing: Doing,
        /// The time that was allowed.
        after: Duration,
    },
    /// The command was cancelled (57014): by us, or by somebody with `pg_cancel_backend`.
    Interrupted {
        /// What was under way.
        doing: Doing,
        /// The server's words.
        server: Box<Notice>,
    },
    /// The connection broke.
    ConnectionLost {
        /// What was under way.
        doing: Doing,
        /// What the system said; `None` when the other side simply closed it.
        source: Option<io::Error>,
    },
    /// This connection failed before, or was left in the middle of a command, and cannot be used again.
    Unusable,
}

impl ClientError {
    /// The server's own words, where it said any.
    #[must_use]
    pub fn server(&self) -> Option<&Notice> {
        match self {
            Self::PasswordWrong { server, .. }
            | Self::NotAuthorized { server, .. }
            | Self::NoReplicationRight { server, .. }
            | Self::TooManyClients { server }
            | Self::NoFreeWalSender { server }
            | Self::NoSuchDatabase { server, .. }
            | Self::NotReady { server, .. }
            | Self::EndedByServer { server, .. }
            | Self::WalRemoved { server, .. }
            | Self::Server { server, .. }
            | Self::Interrupted { server, .. } => Some(server),
            Self::NoHbaEntry { refusals, .. } => refusals.first(),
            _ => None,
        }
    }

    /// Whether the same attempt may succeed a little later without anybody changing anything.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Connect { .. }
            | Self::TooManyClients { .. }
            | Self::NoFreeWalSender { .. }
            | Self::EndedByServer { .. }
            | Self::TimedOut { .. }
            | Self::ConnectionLost { .. } => true,
            Self::NotReady { state, .. } => *state != ServerState::HotStandbyOff,
            Self::Tls { problem, .. } => problem.may_pass(),
            _ => false,
        }
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resolve { host, .. } => write!(f, "host name \"{host}\" has no address"),
            Self::Connect { at, .. } => write!(f, "nothing answers at {at}"),
            Self::Tls { at, problem } => write!(f, "no TLS with the server at {at}: {problem}"),
            Self::ChannelBinding { at, problem } => {
                write!(f, "the sign-in to the server at {at} was broken off: {problem}")
            }
            Self::NoHbaEntry { at, user, .. } => {
                write!(f, "pg_hba.conf of the server at {at} has no entry that lets user \"{user}\" in from here")
            }
            Self::PasswordMissing { at, user } => {
                write!(f, "the server at {at} wants a password for user \"{user}\", and none was given")
            }
            Self::PasswordWrong { at, user, from, .. } => {
                write!(f, "the server at {at} did not take the password for user \"{user}\" from {from}")
            }
            Self::NotAuthorized { at, user, server } => {
                write!(f, "the server at {at} does not let user \"{user}\" in: {server}")
            }
            Self::AuthenticationUnsupported { method } => {
                write!(f, "the server asks for {method} authentication, which this version cannot do")
            }
            Self::ServerNotAuthentic => {
                f.write_str("the server could not prove that it knows this user's password: it is not the server it claims to be")
            }
            Self::NoReplicationRight { user, .. } => {
                write!(f, "user \"{user}\" has no REPLICATION attribute")
            }
            Self::TooManyClients { server } => write!(f, "the server has no free connection: {server}"),
            Self::NoFreeWalSender { server } => write!(f, "the server has no free WAL sender: {server}"),
            Self::NoSuchDatabase { database, .. } => write!(f, "database \"{database}\" does not exist"),
            Self::NotReady { server, .. } => write!(f, "the server takes no connections now: {server}"),
            Self::EndedByServer { doing, server } => {
                write!(f, "the server ended the session while {doing}: {server}")
            }
            Self::NotPostgres { at, answer } => {
                write!(f, "what answers at {at} is not PostgreSQL (it said \"{answer}\")")
            }
            Self::Protocol { doing, what } => {
                write!(f, "the server broke the protocol while {doing}: {what}")
            }
            Self::NoSql => f.write_str("this connection has physical replication only and takes no SQL"),
            Self::Request(what) => f.write_str(what),
            Self::WalRemoved { at, timeline, .. } => {
                write!(f, "the server no longer has the WAL from {at} on timeline {timeline}")
            }
            Self::Server { doing, server } => write!(f, "the server failed while {doing}: {server}"),
            Self::TimedOut { doing, after } => {
                write!(f, "no answer within {} s while {doing}", after.as_secs())
            }
            Self::Interrupted { doing, .. } => write!(f, "cancelled while {doing}"),
            Self::ConnectionLost { doing, .. } => {
                write!(f, "the connection to the server was lost while {doing}")
            }
            Self::Unusable => f.write_str("the connection was left in the middle of a command"),
        }
    }
}

impl std::error::Error for ClientError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Resolve { source, .. } | Self::Connect { source, .. } => Some(source),
            Self::ConnectionLost { source: Some(source), .. } => Some(source),
            Self::Tls { problem, .. } => problem.source(),
            _ => None,
        }
    }
}

/// Sorts an error that the server sent after the session began.
pub(super) fn classify(doing: Doing, server: Notice) -> ClientError {
    let server = Box::new(server);
    match server.sqlstate.as_str() {
        "57014" => ClientError::Interrupted { doing, server },
        "57P01" | "57P02" => ClientError::EndedByServer { doing, server },
        "57P03" => ClientError::NotReady { state: state_of(&server), server },
        _ => ClientError::Server { doing, server },
    }
}

/// Sorts an error that the server sent during start-up. SQLSTATE and the untranslated C function decide;
/// `max_wal_senders` is a setting's name and stands in the message in every language.
pub(super) fn classify_at_start(
    (at, encrypted): (&Address, bool),
    user: &str,
    database: &str,
    from: Option<&PasswordSource>,
    server: Notice,
) -> ClientError {
    let (at, user) = (at.clone(), user.to_owned());
    let server = Box::new(server);
    match server.sqlstate.as_str() {
        "28P01" => match from {
            Some(from) => ClientError::PasswordWrong { at, user, from: from.clone(), server },
            None => ClientError::NotAuthorized { at, user, server },
        },
        "28000" if server.message.contains("pg_hba.conf") => {
            ClientError::NoHbaEntry { at, user, encrypted, refusals: vec![*server] }
        }
        "28000" => ClientError::NotAuthorized { at, user, server },
        "42501" => ClientError::NoReplicationRight { user, server },
        "53300" if server.message.contains("max_wal_senders") => ClientError::NoFreeWalSender { server },
        "53300" => ClientError::TooManyClients { server },
        "3D000" => ClientError::NoSuchDatabase { database: database.to_owned(), server },
        _ => classify(Doing::SigningIn, *server),
    }
}

fn state_of(server: &Notice) -> ServerState {
    let message = server.message.as_str();
    if message.contains("starting up") {
        ServerState::StartingUp
    } else if message.contains("shutting down") {
        ServerState::ShuttingDown
    } else if message.contains("recovery mode") {
        ServerState::InRecovery
    } else if message.contains("not yet accepting") {
        ServerState::NotConsistentYet
    } else if message.contains("not accepting") {
        ServerState::HotStandbyOff
    } else {
        ServerState::Unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(sqlstate: &str, message: &str) -> Notice {
        Notice { sqlstate: sqlstate.to_owned(), message: message.to_owned(), ..Notice::default() }
    }

    #[test]
    fn refusals_at_the_door_are_told_apart() {
        let at = Address::Tcp { host: "db1".to_owned(), port: 5432 };
        let sort = |sqlstate, message| {
            classify_at_start(
                (&at, false),
                "walden",
                "postgres",
                Some(&PasswordSource::Environment),
                said(sqlstate, message),
            )
        };
        assert!(matches!(
            sort(
                "28000",
                "no pg_hba.conf entry for host \"10.0.0.7\", user \"walden\", database \"postgres\", no encryption"
            ),
            ClientError::NoHbaEntry { .. }
        ));
        assert!(matches!(
            sort("28P01", "Passwort-Authentifizierung fehlgeschlagen"),
            ClientError::PasswordWrong { .. }
        ));
        assert!(matches!(sort("28000", "role \"walden\" does not exist"), ClientError::NotAuthorized { .. }));
        assert!(matches!(
            sort("42501", "permission denied to start WAL sender"),
            ClientError::NoReplicationRight { .. }
        ));
        assert!(matches!(
            sort("53300", "sorry, too many clients already"),
            ClientError::TooManyClients { .. }
        ));
        assert!(matches!(
            sort(
                "53300",
                "number of requested standby connections exceeds \"max_wal_senders\" (currently 1)"
            ),
            ClientError::NoFreeWalSender { .. }
        ));
        assert!(matches!(
            sort("57P03", "the database system is starting up"),
            ClientError::NotReady { state: ServerState::StartingUp, .. }
        ));
        assert!(matches!(sort("3D000", "database \"x\" does not exist"), ClientError::NoSuchDatabase { .. }));
    }

    #[test]
    fn no_error_prints_its_cause() {
        let error = ClientError::Connect {
            at: Address::Tcp { host: "db1".to_owned(), port: 5432 },
            source: io::Error::new(io::ErrorKind::ConnectionRefused, "refused, I say"),
        };
        assert!(!error.to_string().contains("refused"));
        assert!(std::error::Error::source(&error).is_some());
    }
}
