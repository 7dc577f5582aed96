//! PostgreSQL 14's way of sending archives (`SendBaseBackup` and `sendTablespace`, replication/basebackup.c):
//!
//! * a copy-out of its own for each archive, in the order in which the tablespaces were listed, the data directory
//!   last, and one more for the manifest;
//! * no type byte before the data, no name and no progress;
//! * no zero blocks at the end of an archive: the copy's end is its end. They are put back here, so that whoever
//!   reads archives need not know.
//!
//! The results before and after, and the server's last word, are the same as later.

use super::{ArchiveStart, BackupStart, BaseBackup, Found, Manifest, Phase};
use std::collections::VecDeque;
use std::ops::Range;

/// The end of a tar archive.
pub(super) const TRAILER: &[u8] = &[0; 1024];

/// Which copies are still to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ToCome {
    archives: VecDeque<ArchiveStart>,
    manifest: bool,
}

impl ToCome {
    /// For a command that asks for this manifest.
    pub(super) fn new(manifest: Manifest) -> Self {
        Self { archives: VecDeque::new(), manifest: manifest != Manifest::No }
    }

    /// The server has listed its tablespaces.
    pub(super) fn announce(&mut self, start: &BackupStart) {
        self.archives = start
            .tablespaces
            .iter()
            .map(|one| ArchiveStart {
                name: format!("{}.tar", one.oid),
                location: Some(one.location.clone()),
            })
            .chain([ArchiveStart { name: "base.tar".to_owned(), location: None }])
            .collect();
    }

    fn is_done(&self) -> bool {
        self.archives.is_empty() && !self.manifest
    }
}

impl BaseBackup<'_> {
    /// A copy begins, goes on or ends. Between two of them the phase is [`Phase::CopyBegin`].
    pub(super) fn step_before_15(&mut self, tag: u8, range: Range<usize>) -> Result<Option<Found>, String> {
        let unexpected = || Err(format!("an unexpected message of type \"{}\"", tag.escape_ascii()));
        let Some(to_come) = &mut self.unnamed else { return unexpected() };
        match (tag, &self.phase) {
            (b'H', Phase::CopyBegin) => {
                if let Some(archive) = to_come.archives.pop_front() {
                    self.phase = Phase::InArchive;
                    return Ok(Some(Found::Archive(archive)));
                }
                to_come.manifest = false;
                self.phase = Phase::InManifest;
                Ok(Some(Found::ManifestBegin))
            }
            (b'd', Phase::InArchive) => Ok(Some(Found::Data(range))),
            (b'd', Phase::InManifest) => Ok(Some(Found::ManifestData(range))),
            (b'c', Phase::InArchive) => {
                self.phase = if to_come.is_done() { Phase::Stop } else { Phase::CopyBegin };
                Ok(Some(Found::Trailer))
            }
            (b'c', Phase::InManifest) => {
                self.phase = Phase::Stop;
                Ok(None)
            }
            _ => unexpected(),
        }
    }
}
