//! The stored format: keys, objects, catalog, records, maps. Knows nothing of servers.
//!
//! Every object is created once and never changed; listing is the index. See `FORMAT.md` beside this file.
#![doc = include_str!("FORMAT.md")]

pub mod catalog;
pub mod cluster;
pub mod error;
pub mod frame;
pub mod keys;
pub mod layout;
pub mod map;
pub mod notes;
pub mod object;
pub mod record;
pub mod remembered;
pub mod repository;
pub mod seal;
pub mod varint;

pub use cluster::Cluster;
pub use error::RepoError;
pub use repository::{Repository, SecretSource};
