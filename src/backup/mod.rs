//! Taking backups: a base backup over the replication protocol into packs, a map and a record.
//!
//! ```text
//! examine the server ─ started ─ stream: packs ─ map ─ WAL has arrived ─ it is this server's ─ outcome
//! ```
//! Nothing is listed before the last step. This room prints nothing; see [`Observer`].

pub mod copy;
mod damage;
pub mod error;
mod observer;
mod proof;
mod replicate;
mod room;
mod run;
mod source;
mod standby;
mod wait;

pub use error::BackupError;
pub use observer::Observer;
pub use run::{BackupRequest, Taken, consistent_at, run, took};
pub use standby::Origin;
pub use wait::missing;

#[cfg(test)]
mod fault_tests;
