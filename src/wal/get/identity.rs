//! Whose bytes are these? The last check before PostgreSQL sees them.
//!
//! Seals prove that an object is what was stored under its name. That the WAL in it is this cluster's and
//! lies where the name says is looked at once more: the check costs forty bytes.

use super::Cluster;
use crate::postgres::wal::page::LONG_HEADER;
use crate::postgres::wal::segment::SegmentIdentity;
use crate::units::SegmentName;

/// Bytes that are needed.
pub const NEEDED: usize = LONG_HEADER;

/// The first bytes of a segment, as they pass by.
#[derive(Debug, Default)]
pub struct Head(Vec<u8>);

impl Head {
    /// Keeps what is needed of the next bytes.
    pub fn take(&mut self, bytes: &[u8]) {
        let missing = NEEDED.saturating_sub(self.0.len()).min(bytes.len());
        self.0.extend_from_slice(bytes.get(..missing).unwrap_or_default());
    }

    /// Whether they begin this segment of this cluster.
    ///
    /// # Errors
    /// Why not, in words.
    pub fn check(&self, cluster: &Cluster<'_>, name: SegmentName) -> Result<(), String> {
        let identity =
            SegmentIdentity::parse(&self.0).map_err(|e| format!("its contents are no WAL: {e}"))?;
        if identity.system_identifier != cluster.system {
            return Err(format!("its contents are of another cluster, {}", identity.system_identifier));
        }
        if identity.size != cluster.size {
            return Err(format!(
                "its contents are of a cluster with segments of {} bytes",
                identity.size.bytes()
            ));
        }
        identity.fits(name).map_err(|e| format!("its contents are of another segment: {e}"))
    }
}
