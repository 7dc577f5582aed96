//! Proof that the archived WAL is this server's: a system identifier and a timeline number are shared by every
//! clone of a cluster, the bytes of the log are not.

use super::error::BackupError;
use crate::postgres::control_file::ControlFile;
use crate::postgres::history::TimelineHistory;
use crate::postgres::wal::page::Dialect;
use crate::postgres::wal::reader::{Begin, OwnedRecord, ReadError, Source, record_at, record_ending_at};
use crate::postgres::wal::records::{Known, decode};
use crate::repo::record::WalProof;
use crate::units::{Lsn, SegmentName, SegmentSize};
use crate::wal::tails::read_held_into;
use crate::wal::{ClusterWal, WalError};
use sha2::{Digest, Sha256};
use std::ops::ControlFlow;

/// Where a backup's WAL lies.
#[derive(Clone, Copy, Debug)]
pub struct ArchivedWal<'a> {
    /// The cluster's WAL in the repository that the backup is written to.
    pub cluster: ClusterWal<'a>,
    /// The timelines that lead to its end.
    pub lineage: &'a TimelineHistory,
    /// Bytes of a segment.
    pub size: SegmentSize,
}

impl ArchivedWal<'_> {
    /// The name of the segment of this number.
    ///
    /// # Errors
    /// When no segment can have it, which only a wrong position makes.
    pub fn name(&self, number: u64) -> Result<SegmentName, BackupError> {
        let owner = self.lineage.owner_of_segment(number, self.size);
        SegmentName::from_number(owner, number, self.size).ok_or(BackupError::Bug)
    }

    /// Gives a segment's bytes to `sink` until it breaks; where there are only tails of it, zeros behind them.
    fn give(&self, number: u64, sink: &mut dyn FnMut(&[u8]) -> ControlFlow<()>) -> Result<bool, BackupError> {
        let mut enough = false;
        let mut pass = |bytes: &[u8]| match sink(bytes) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => {
                enough = true;
                Err(std::io::Error::other("enough"))
            }
        };
        match read_held_into(self.cluster, self.name(number)?, self.size, &mut pass) {
            Ok(there) => Ok(there),
            Err(WalError::Sink(_)) if enough => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    fn source(&self) -> impl Source<Error = BackupError> + '_ {
        |number: u64, sink: &mut dyn FnMut(&[u8]) -> ControlFlow<()>| self.give(number, sink)
    }

    fn record_at(&self, at: Lsn) -> Result<OwnedRecord, BackupError> {
        record_at(at, self.size, &mut self.source()).map_err(|error| not_ours(at, error))
    }
}

fn not_ours(at: Lsn, error: ReadError<BackupError>) -> BackupError {
    match error {
        ReadError::Source { error, .. } => error,
        other => BackupError::NotThisServersWal { at, why: other.to_string() },
    }
}

fn known(record: &OwnedRecord) -> Result<Option<Known>, BackupError> {
    // Of a version that is not known the nearest known one's rules are tried: what is compared here would not agree by
    // accident.
    let dialect = record.found_in.dialect().unwrap_or_else(|| Dialect::nearest(record.found_in.magic));
    decode(dialect, &record.as_record())
        .map_err(|error| BackupError::NotThisServersWal { at: record.lsn, why: error.to_string() })
}

/// What a backup's end is told by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The record that `pg_backup_stop` writes on a primary.
    Record,
    /// A standby's `minRecoveryPoint`, where some record ends. The chain that leads there begins in the segment of
    /// this number, if it was archived, else in the one before the last.
    OfStandby(Option<u64>),
}

/// Compares the archive with what the copy carries. All WAL from start to stop must be there.
///
/// Two comparisons, because `pg_control` is read last: a checkpoint during the backup moves it away from the
/// one the label names. Then the record at the end.
///
/// # Errors
/// [`BackupError::NotThisServersWal`] when they differ; the repository's trouble.
pub fn prove_same_server(
    wal: &ArchivedWal<'_>,
    control: &ControlFile,
    label_start: Lsn,
    label_checkpoint: Lsn,
    stop: Lsn,
    end: End,
) -> Result<(), BackupError> {
    let differs = |at: Lsn, why: &str| BackupError::NotThisServersWal { at, why: why.to_owned() };

    let at = control.check_point;
    let copy = match known(&wal.record_at(at)?)? {
        Some(Known::OnlineCheckPoint(copy) | Known::ShutdownCheckPoint(copy)) => copy,
        _ => return Err(differs(at, "the record that pg_control names is no checkpoint there")),
    };
    if !control.check_point_copy.is_copy_of(&copy) {
        return Err(differs(at, "the checkpoint there is not the one in the server's pg_control"));
    }

    if label_checkpoint != at {
        match known(&wal.record_at(label_checkpoint)?)? {
            Some(Known::OnlineCheckPoint(copy) | Known::ShutdownCheckPoint(copy))
                if copy.redo == label_start => {}
            _ => {
                return Err(differs(label_checkpoint, "it is not the checkpoint that the backup began with"));
            }
        }
    } else if copy.redo != label_start {
        return Err(differs(at, "the checkpoint there is not the one that the backup began with"));
    }

    // The record may have begun in the segment before.
    let last = wal.size.number_before(stop);
    let near = last.saturating_sub(1).max(wal.size.number_of(label_start));
    let from = match end {
        End::OfStandby(Some(link)) => link.min(near),
        End::OfStandby(None) | End::Record => near,
    };
    let found = record_ending_at(stop, Begin::Segment(from), wal.size, &mut wal.source())
        .map_err(|error| not_ours(stop, error))?;
    match (end, known(&found)?) {
        (End::OfStandby(_), _) => Ok(()),
        (End::Record, Some(Known::BackupEnd { start })) if start == label_start => Ok(()),
        (End::Record, _) => Err(differs(found.lsn, "the record there does not end this backup")),
    }
}

/// What a later backup compares to know that it is on the same branch.
///
/// # Errors
/// The repository's trouble.
pub fn stop_segment(wal: &ArchivedWal<'_>, stop: Lsn) -> Result<WalProof, BackupError> {
    let number = wal.size.number_before(stop);
    let segment = wal.name(number)?;
    let mut left = wal.size.start_of(number).and_then(|start| stop.since(start)).ok_or(BackupError::Bug)?;
    let mut hasher = Sha256::new();
    let mut take = |bytes: &[u8]| {
        let now = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        hasher.update(&bytes[..now]);
        left -= now as u64;
        Ok(())
    };
    read_held_into(wal.cluster, segment, wal.size, &mut take)?;
    Ok(WalProof { segment, until_lsn: stop, sha256: crate::repo::layout::hex(&hasher.finalize()) })
}
