//! walden: PostgreSQL backup and point-in-time recovery.
//!
//! # Words
//! * **cluster**: one PostgreSQL instance, named by its system identifier.
//! * **stanza**: the name under which clusters that succeed each other are kept.
//! * **repository**: where everything is stored; `repo1`, `repo2`, …
//! * **backup**: one restorable image. **record**: the object that makes a backup exist.
//! * **object**: what the repository stores under one name, written once and never changed.
//! * **frame**: the unit of compression, sealing and fetching inside an object. **pack**: an object of data frames.
//! * **map**: for one backup, where each file's contents lie.
//! * **page**: a page of the cluster (8 KiB by default; never assume).
//! * **segment**, **timeline**, **history**, **fork**: as in PostgreSQL.
//! * **window**: a stretch of time (and of WAL) to which one can recover.
//! * **tail**: the part of an unfinished segment that is already stored.
//!
//! # Rooms
//! `tests/architecture.rs` holds the table of who may use whom. Engines (`wal`, `backup`, `restore`, `retention`,
//! `verify`) plan first and print nothing; `commands` is the only room that turns typed errors into what a person reads.

pub mod backup;
pub mod cli;
pub mod commands;
pub mod durable;
pub mod env;
pub mod failure;
pub mod pipeline;
pub mod postgres;
pub mod repo;
pub mod report;
pub mod restore;
pub mod retention;
pub mod settings;
pub mod storage;
pub mod units;
pub mod verify;
pub mod wal;
