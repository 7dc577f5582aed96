//! The test bench: real servers, the real program, and a place to put them that cleans up after itself.
//!
//! Everything that touches a server runs as the server's user: whoever runs the tests, or, when that is
//! root (PostgreSQL refuses to run as root), `PGRUNAS`, by default `postgres`. No PostgreSQL listens on TCP unless TLS is
//! the point, no test
//! sees another's files, and the environment of what is started is empty but for what is named here.
//!
//! * [`Scratch`]: a short directory below the system's temporary one; gone at the end unless the test failed
//!   or `KEEP=1`.
//! * [`Cluster`]: a PostgreSQL server of its own, stopped when dropped; its log is shown when the test fails.
//! * [`Walden`]: the built program with a configuration, repository, spool and log of its own.
//! * [`Proxy`]: a network that breaks, in front of a server.
//! * [`S3Server`], [`Azurite`]: servers of objects, one of each for all tests of the process; they end with it, however
//!   it ends. [`S3Proxy`]: a store with faults, in front.
//! * [`golden`]: compares text with `fixtures/golden/NAME.txt`; `UPDATE=1` rewrites the file.
//!
//! A server that is missing fails the test and says how to get it; no test passes quietly without one.

// A harness offers more than each day's tests use.
#![allow(dead_code, unused_imports)]

mod cluster;
mod golden;
mod oracle;
mod process;
mod proxy;
mod scratch;
mod servers;
mod stores;
mod walden;

pub use cluster::{Cluster, ClusterBuilder, Load, Recovery, StopMode};
pub use golden::{Replace, golden};
pub use oracle::{SegmentVerdict, segment_verdicts};
pub use process::{Output, collect, finish, kill_now, runs_as, wait_until};
pub use proxy::Proxy;
pub use scratch::Scratch;
pub use servers::{Server, all_majors, majors_in_full, newest_major, oldest_major, other_majors, test_all};
pub use stores::{Azurite, BucketKind, Identity, RepositoryOptions, Request, S3Proxy, S3Server, runs};
pub use walden::{STANZA, Walden};
