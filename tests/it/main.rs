//! Integration tests: the built program against real servers.
//!
//! One program for all of them, because linking is what takes time. A topic is a module; `common` is the test bench.

#![allow(
    clippy::disallowed_methods,
    reason = "tests damage files on purpose, and what they write need not outlive a crash"
)]

#[path = "../common/mod.rs"]
mod common;

mod archive_get;
mod archive_push;
mod azure;
mod backup;
mod campaign_kill;
mod campaign_mutilation;
mod campaign_secrets;
mod campaign_store_secrets;
mod check;
mod cli;
mod client;
mod docs;
mod expire;
mod golden_repository;
mod harness;
mod hazards;
mod info;
mod lifecycle;
mod matrix;
mod notes;
mod object_store;
mod packaging;
mod page_errors;
mod restore;
mod restore_faults;
mod restore_kinds;
mod restore_words;
mod round_trip;
mod s3;
mod standby;
mod stanza;
mod tablespaces;
mod tls;
mod verify;
