//! `archive-get`: what PostgreSQL is given when it asks for a file, and what it is told when there is none.
//!
//! * [`decide`] is the decision, without a store or a clock.
//! * [`fetch`] gathers what the decision asks for, with as few calls as it can: a segment that is there costs
//!   one object read in the first repository that has a good copy, and nothing is listed.
//! * [`target`] is the file that PostgreSQL waits for: it shows when every byte of it was checked.
//!
//! Not for: exit codes, log lines and settings, which are the command's.

mod created;
pub mod decide;
pub mod fetch;
mod identity;
mod names;
mod pieces;
pub mod repositories;
pub mod tablespaces;
pub mod target;
#[cfg(test)]
mod tests;

use crate::units::{SegmentSize, Stanza, SystemIdentifier, WalFileName};
use decide::Question;
use std::time::{Duration, Instant};

/// Whose WAL is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Cluster<'a> {
    /// The stanza.
    pub stanza: &'a Stanza,
    /// The cluster.
    pub system: SystemIdentifier,
    /// Its segment size.
    pub size: SegmentSize,
}

/// What PostgreSQL asks for.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// Whose.
    pub cluster: Cluster<'a>,
    /// By whom, and on the way to where.
    pub question: Question,
    /// The file.
    pub name: WalFileName,
    /// The server that will replay it, where that is known and replays.
    pub server: Option<tablespaces::Server>,
}

/// How long a segment that must be there is waited for.
pub trait Patience {
    /// Waits a moment, then says whether to look again.
    fn wait(&mut self) -> bool;
}

/// How long a segment may be on its way while a later one is there already: several processes archive at once.
const ON_ITS_WAY: Duration = Duration::from_secs(10);

/// Ten seconds, with looks that become rarer.
#[derive(Debug)]
pub struct TenSeconds {
    since: Option<Instant>,
    pause: Duration,
}

impl Default for TenSeconds {
    fn default() -> Self {
        Self { since: None, pause: Duration::from_millis(100) }
    }
}

impl Patience for TenSeconds {
    fn wait(&mut self) -> bool {
        let since = *self.since.get_or_insert_with(Instant::now);
        if since.elapsed() >= ON_ITS_WAY {
            return false;
        }
        std::thread::sleep(self.pause);
        self.pause = (self.pause * 2).min(Duration::from_secs(2));
        true
    }
}
