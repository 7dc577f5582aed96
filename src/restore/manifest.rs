//! The `backup_manifest` of what was really written.

use super::error::{RestoreError, file};
use crate::postgres::backup_manifest::{
    ManifestChecksum, ManifestFile, ManifestVersion, ManifestWriter, WalRange,
};
use crate::units::{PgMajor, SystemIdentifier, Timestamp};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// The manifest while workers add to it, with CRC-32C as `pg_basebackup` has it by default.
pub struct Manifest {
    path: PathBuf,
    writer: Mutex<ManifestWriter<BufWriter<File>>>,
}

impl std::fmt::Debug for Manifest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Manifest({})", self.path.display())
    }
}

impl Manifest {
    /// Begins it in `out`; `path` is for messages.
    ///
    /// # Errors
    /// Of the file system.
    pub fn begin(
        out: File,
        path: PathBuf,
        major: PgMajor,
        system: SystemIdentifier,
    ) -> Result<Self, RestoreError> {
        let out = BufWriter::with_capacity(64 * 1024, out);
        let writer = ManifestWriter::new(out, ManifestVersion::of_major(major), system)
            .map_err(file("could not write", &path))?;
        Ok(Self { path, writer: Mutex::new(writer) })
    }

    /// Adds a file that was written. Its path is the one that it will have in the end.
    ///
    /// # Errors
    /// Of the file system.
    pub fn add(&self, path: &[u8], size: u64, mtime: Option<i64>, crc: u32) -> Result<(), RestoreError> {
        let entry = ManifestFile {
            path: path.to_vec(),
            size,
            modified: mtime.map(Timestamp::from_unix_seconds),
            checksum: Some(ManifestChecksum::crc32c(crc)),
        };
        self.writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .file(&entry)
            .map_err(file("could not write", &self.path))
    }

    /// Ends it with the WAL that the backup needs.
    ///
    /// # Errors
    /// Of the file system.
    pub fn finish(self, ranges: &[WalRange]) -> Result<(), RestoreError> {
        let writer = self.writer.into_inner().unwrap_or_else(PoisonError::into_inner);
        writer.finish(ranges).and_then(|mut out| out.flush()).map_err(file("could not write", &self.path))
    }
}
