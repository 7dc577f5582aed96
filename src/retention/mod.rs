//! Retention: which backups go, and how they and their WAL are deleted without harm to any other.
//!
//! Two values: a [`plan::Plan`] is what would be done and why, printable; [`plan::Plan::execute`] consumes it and
//! does it. Below both:
//! * [`survey`] reads what there is, [`policy`] decides what stays (a pure function).
//! * [`look`] is the heart of the deletion protocol: two listings, and what must be kept by them.
//! * [`sweep`] deletes: data of retired backups, then their records, then WAL that nothing needs ([`wal`]).
//!
//! What holds, whatever else is at work, however long a process sleeps and wherever it dies: nothing that a backup
//! uses is deleted while the backup exists, and no WAL from its start on. `FORMAT.md` §9 has the rules in words;
//! the tests in `interleavings` try the schedules.
//!
//! The clock only *chooses*: what looks stuck, what is old. A wrong clock costs a backup that a policy would have
//! kept, never one that stays listed.

pub mod error;
pub mod look;
pub mod plan;
pub mod policy;
mod read;
pub mod stanza;
mod step;
pub mod survey;
pub mod sweep;
pub mod wal;

#[cfg(test)]
mod interleavings;

pub use error::RetentionError;
pub use plan::{Done, Plan};
pub use policy::Policy;
pub use survey::Survey;
