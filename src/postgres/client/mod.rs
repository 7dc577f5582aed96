//! A client of the replication protocol: base backups, WAL streams and the few questions around them.
//!
//! Speaks protocol 3.0 with `replication=database`, so that backup commands and plain SQL share one
//! connection; where `pg_hba.conf` lets only physical replication in, it takes that and does without SQL.
//! It is *not* a general SQL client: simple queries only, text results only.
//!
//! What holds everywhere:
//! * A frame is handed out whole or not at all; every length from the server is checked against a limit.
//! * Methods named `next` are cancel-safe: dropping their future loses nothing. The others are not.
//! * A socket that closes is an error unless the protocol says that this is the end.
//! * A connection that failed once stays failed.
//! * Dropping a connection in the middle of a command asks the server to cancel it, so that no WAL sender
//!   is left behind in a wait in which it would not notice the closed socket.
//! * Over TCP the connection is encrypted and the server proved as libpq's `sslmode` says, its default included; a
//!   stream that is cut without TLS's own farewell is an error.
//! * Bytes are never converted: `client_encoding` is SQL_ASCII. Paths are bytes; messages are decoded for
//!   people, with replacement characters.

mod auth;
mod base_backup;
mod cancel;
mod connection;
mod conninfo;
mod error;
mod message;
mod opening;
mod password;
mod query;
#[cfg(test)]
mod scripted;
mod stream;
mod tls;
mod transport;
mod wire;

pub use base_backup::{
    ArchiveStart, BackupEnd, BackupOptions, BackupStart, BaseBackup, Checkpoint, Event, Manifest,
    ManifestChecksums, MaxRate, PageFailure, PageFailures, Tablespace,
};
pub use cancel::CancelHandle;
pub use connection::{Limits, ReplicationClient};
pub use conninfo::{
    Address, ConnectionParameters, ConnectionSettings, ConninfoError, ConninfoWarning, Keepalives,
    os_home_directory, os_user_name,
};
pub use error::{ClientError, Doing, Notice, ServerState};
pub use password::{Password, PasswordSource};
pub use query::{Row, Rows, SystemIdentity};
pub use stream::{SlotName, SlotPosition, TimelineHistory, WalEvent, WalRequest, WalStream};
pub use tls::{
    BindingProblem, CertificateProblem, ChannelBinding, ClientCertificateMode, Revocations, Roots, SslMode,
    TlsFile, TlsProblem, TlsSettings, TlsVersion,
};
