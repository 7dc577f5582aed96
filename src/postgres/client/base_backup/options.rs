//! What is asked of `BASE_BACKUP`, and in which words (replication/repl_gram.y).

use super::super::error::ClientError;
use super::Dialect;
use crate::units::ByteCount;
use std::fmt::Write as _;

/// The longest label (`MAXPGPATH` in the server).
const LONGEST_LABEL: usize = 1023;

/// How the server makes the checkpoint that a backup begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checkpoint {
    /// At once, at the price of a burst of writes.
    Fast,
    /// Spread over `checkpoint_completion_target`: it may take minutes.
    Spread,
}

/// Whether the server sends a `backup_manifest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manifest {
    /// No manifest.
    No,
    /// With these checksums of the files.
    Yes(ManifestChecksums),
}

/// The checksums in a manifest; each costs the server processor time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ManifestChecksums {
    None,
    Crc32c,
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

impl ManifestChecksums {
    const fn word(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Crc32c => "CRC32C",
            Self::Sha224 => "SHA224",
            Self::Sha256 => "SHA256",
            Self::Sha384 => "SHA384",
            Self::Sha512 => "SHA512",
        }
    }
}

/// A rate that the server can hold: 32 kB/s to 1 GB/s, in units of 1,024 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxRate(u32);

impl MaxRate {
    /// `rate` bytes a second, rounded down to whole KiB; `None` outside what the server accepts.
    #[must_use]
    pub fn new(rate: ByteCount) -> Option<Self> {
        let kib = u32::try_from(rate.as_u64() >> 10).ok()?;
        (32..=1_048_576).contains(&kib).then_some(Self(kib))
    }
}

/// What to ask of the server. WAL is never included and archiving never waited for: both are the caller's.
#[derive(Clone, Debug)]
pub struct BackupOptions {
    /// The `LABEL` line of `backup_label`: one line.
    pub label: String,
    /// The checkpoint at the beginning.
    pub checkpoint: Checkpoint,
    /// Announce sizes at the start (the server walks all files first) and report progress.
    pub progress: bool,
    /// How fast the server may send.
    pub max_rate: Option<MaxRate>,
    /// The manifest.
    pub manifest: Manifest,
    /// Have the server verify page checksums, where the cluster has them.
    pub verify_checksums: bool,
}

impl Default for BackupOptions {
    fn default() -> Self {
        Self {
            label: "walden".to_owned(),
            checkpoint: Checkpoint::Spread,
            progress: true,
            max_rate: None,
            manifest: Manifest::No,
            verify_checksums: true,
        }
    }
}

impl BackupOptions {
    /// The command, in the words that `dialect` understands: neither understands the other's.
    pub(super) fn command(&self, dialect: Dialect) -> Result<String, ClientError> {
        if self.label.len() > LONGEST_LABEL || self.label.chars().any(char::is_control) {
            return Err(ClientError::Request(
                "a backup's label is one line of at most 1,023 bytes".to_owned(),
            ));
        }
        let label = self.label.replace('\'', "''");
        let mut command = match dialect {
            Dialect::Since15 => format!(
                "BASE_BACKUP (LABEL '{label}', CHECKPOINT '{}', PROGRESS {}, VERIFY_CHECKSUMS {}, \
                 WAL false, WAIT false, TABLESPACE_MAP true",
                match self.checkpoint {
                    Checkpoint::Fast => "fast",
                    Checkpoint::Spread => "spread",
                },
                self.progress,
                self.verify_checksums,
            ),
            Dialect::Before15 => format!(
                "BASE_BACKUP LABEL '{label}'{}{}{} NOWAIT TABLESPACE_MAP",
                match self.checkpoint {
                    Checkpoint::Fast => " FAST",
                    Checkpoint::Spread => "",
                },
                if self.progress { " PROGRESS" } else { "" },
                if self.verify_checksums { "" } else { " NOVERIFY_CHECKSUMS" },
            ),
        };
        let (comma, end) = match dialect {
            Dialect::Since15 => (",", ")"),
            Dialect::Before15 => ("", ""),
        };
        if let Some(MaxRate(kib)) = self.max_rate {
            let _ = write!(command, "{comma} MAX_RATE {kib}");
        }
        let _ = match self.manifest {
            Manifest::No => write!(command, "{comma} MANIFEST 'no'{end}"),
            Manifest::Yes(checksums) => {
                write!(
                    command,
                    "{comma} MANIFEST 'yes'{comma} MANIFEST_CHECKSUMS '{}'{end}",
                    checksums.word()
                )
            }
        };
        Ok(command)
    }
}
