//! Values with a meaning: positions, names and sizes that must not be mixed up.
//!
//! Every type has a private field, a strict [`std::str::FromStr`], a [`std::fmt::Display`] that parses
//! back, and only the arithmetic that means something. This room depends on nothing.

mod backup_id;
mod bytes;
mod cluster;
mod lsn;
mod note_id;
mod segment;
mod time;

pub use backup_id::{BackupId, BackupKind, NotABackupId};
pub use bytes::{ByteCount, NotAByteCount};
pub use cluster::{NotAStanza, NotASystemIdentifier, PgMajor, Stanza, SystemIdentifier};
pub use lsn::{Lsn, NotAnLsn};
pub use note_id::{NotANoteId, NoteId};
pub use segment::{
    NotASegmentName, NotASegmentSize, NotATimeline, SegmentName, SegmentSize, TimelineId, WalFileName,
};
pub use time::Timestamp;
