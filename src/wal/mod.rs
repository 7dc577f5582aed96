//! The WAL archive: storing what a server writes, reading it back, and knowing what is there.
//!
//! A segment that is complete lies under its own name; what is unfinished lies beside it (`.partial-…`,
//! `.tail/…`) and is never in its way. A name is used once: equal contents again are success, others are a
//! conflict, told by the hash of the plain contents that every object carries in its sealed footer.
//!
//! * [`write`] stores, [`read`] gets back in bounded memory with every byte checked.
//! * [`tails`] reads what is stored of a segment that is not there whole.
//! * [`get`] decides what `archive-get` answers.
//! * [`push`] is `archive-push`: one file into every repository.
//! * [`archive`] is what listing says: which segments are there, what is missing on the way.
//! * [`chain`] holds neighbouring segments against each other.
//!
//! This room prints nothing and knows no settings.

pub mod archive;
pub mod chain;
pub mod error;
pub mod get;
pub mod info;
pub mod push;
pub mod read;
pub mod scan;
mod scatter;
pub mod tails;
pub mod write;

#[cfg(test)]
pub(crate) mod craft;

pub use error::WalError;
pub use info::{
    CommitPoint, ContentHash, CreatedTablespace, FileInfo, SegmentInfo, ShortHash, TailInfo, Verdict,
};

use crate::repo::layout::{self, Place};
use crate::repo::{RepoError, Repository};
use crate::units::{SegmentName, Stanza, SystemIdentifier};

/// The WAL of one cluster in one repository.
#[derive(Clone, Copy, Debug)]
pub struct ClusterWal<'a> {
    /// The repository.
    pub repo: &'a Repository,
    /// The stanza.
    pub stanza: &'a Stanza,
    /// The cluster. To write, it must be one of the stanza's: see [`Repository::cluster`].
    pub system: SystemIdentifier,
}

impl ClusterWal<'_> {
    /// Where a segment's contents lie under `destination`.
    ///
    /// # Errors
    /// As [`layout::segment`].
    pub fn place(&self, name: SegmentName, destination: write::Destination) -> Result<Place, RepoError> {
        Ok(match destination {
            write::Destination::Complete => layout::segment(self.stanza, self.system, name)?,
            write::Destination::Partial(hash) => {
                layout::partial(self.stanza, self.system, name, hash.as_bytes())?
            }
        })
    }
}
