//! PostgreSQL's file formats and its wire protocol, and nothing of repositories.
//!
//! The formats are little-endian with eight-byte alignment: what every server that walden supports writes.
//! Parsers are strict and never panic on foreign bytes; each names the file and symbol in PostgreSQL's
//! source that defines what it reads.

pub mod backup_label;
pub mod backup_manifest;
pub mod check_point;
pub mod client;
pub mod control_file;
pub mod history;
mod little_endian;
pub mod page;
pub mod relation_file;
pub mod tablespace_map;
pub mod tar;
pub mod wal;
