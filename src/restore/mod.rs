//! Bringing a cluster back: the target, the plan, the directory, the files, the settings.
//!
//! Plan first: [`target`] and [`target_time`] read what a person asked for, [`directory`] looks at where it is
//! to go, and nothing is touched before all of it holds. This room prints nothing.

pub mod candidates;
pub mod conf;
pub mod directory;
pub mod error;
pub mod execute;
mod fetch;
pub mod manifest;
pub mod owner;
pub mod plan;
pub mod reach;
pub mod running;
pub mod scan;
pub mod settings;
pub mod tablespaces;
pub mod target;
pub mod target_time;
pub mod tree;
pub mod write;
