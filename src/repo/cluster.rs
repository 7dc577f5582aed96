//! The clusters of a stanza: what must be known of each to name and cut its WAL.

use super::error::RepoError;
use super::layout;
use super::repository::Repository;
use crate::env::Env;
use crate::storage::Created;
use crate::units::{PgMajor, SegmentSize, Stanza, SystemIdentifier};
use serde::{Deserialize, Serialize};

/// What a cluster is. Never changes for one system identifier: `pg_upgrade` makes a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Its system identifier.
    pub system: SystemIdentifier,
    /// Its PostgreSQL major version.
    pub major: PgMajor,
    /// Bytes of a page.
    pub page_size: u32,
    /// Bytes of a WAL segment.
    pub segment_size: SegmentSize,
    /// Pages of a file of a relation (131,072 for 1 GiB files).
    pub blocks_per_file: u32,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    system_identifier: String,
    postgresql_major: u16,
    page_size_bytes: u32,
    wal_segment_size_bytes: u64,
    blocks_per_file: u32,
}

impl Repository {
    /// Makes `cluster` one of the stanza's. The stanza exists from its first cluster on.
    ///
    /// # Errors
    /// [`RepoError::Conflict`] when the same system identifier is held with other properties, or the
    /// store's trouble.
    pub fn add_cluster(
        &self,
        stanza: &Stanza,
        cluster: &Cluster,
        env: &dyn Env,
    ) -> Result<Created, RepoError> {
        let place = layout::cluster(stanza, cluster.system)?;
        let stored = Stored {
            system_identifier: cluster.system.to_string(),
            postgresql_major: cluster.major.as_u16(),
            page_size_bytes: cluster.page_size,
            wal_segment_size_bytes: cluster.segment_size.bytes(),
            blocks_per_file: cluster.blocks_per_file,
        };
        // COMMIT POINT of a stanza's first cluster.
        match self.create_json(&place, &stored, env) {
            Err(RepoError::Conflict { object }) => {
                // Made before, by us or at the same moment by another: equal contents are what we wanted.
                if self.cluster(stanza, cluster.system)? == Some(*cluster) {
                    Ok(Created::Same)
                } else {
                    Err(RepoError::Conflict { object })
                }
            }
            other => other,
        }
    }

    /// The cluster of this system identifier; `None` when the stanza does not hold it.
    ///
    /// # Errors
    /// Damage, or the store's trouble.
    pub fn cluster(&self, stanza: &Stanza, system: SystemIdentifier) -> Result<Option<Cluster>, RepoError> {
        let place = layout::cluster(stanza, system)?;
        let stored: Stored = match self.read_json(&place) {
            Err(RepoError::Missing { .. }) => return Ok(None),
            other => other?,
        };
        let segment_size = SegmentSize::new(stored.wal_segment_size_bytes)
            .map_err(|error| RepoError::damaged(&place.key, error.to_string()))?;
        if stored.system_identifier != system.to_string()
            || !stored.page_size_bytes.is_power_of_two()
            || !(1024..=65536).contains(&stored.page_size_bytes)
            || stored.blocks_per_file == 0
        {
            return Err(RepoError::damaged(&place.key, "its contents contradict themselves"));
        }
        Ok(Some(Cluster {
            system,
            major: PgMajor::new(stored.postgresql_major),
            page_size: stored.page_size_bytes,
            segment_size,
            blocks_per_file: stored.blocks_per_file,
        }))
    }

    /// Every cluster of the stanza, by system identifier; empty when there is no such stanza.
    ///
    /// # Errors
    /// Damage, or the store's trouble.
    pub fn clusters(&self, stanza: &Stanza) -> Result<Vec<Cluster>, RepoError> {
        let folder = self.store().folder(Some(&layout::clusters(stanza)?))?;
        let mut clusters = Vec::new();
        for object in folder.objects {
            let Ok(system) = object.key.file_name().parse() else { continue };
            if let Some(cluster) = self.cluster(stanza, system)? {
                clusters.push(cluster);
            }
        }
        clusters.sort_by_key(|cluster| cluster.system);
        Ok(clusters)
    }

    /// The names of the repository's stanzas, sorted.
    ///
    /// # Errors
    /// The store's trouble.
    pub fn stanzas(&self) -> Result<Vec<Stanza>, RepoError> {
        let mut stanzas = Vec::new();
        for name in self.store().folder(None)?.folders {
            let Ok(stanza) = name.parse::<Stanza>() else { continue };
            if !self.store().folder(Some(&layout::clusters(&stanza)?))?.objects.is_empty() {
                stanzas.push(stanza);
            }
        }
        stanzas.sort();
        Ok(stanzas)
    }
}
