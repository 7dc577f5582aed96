//! What a backup tells while it runs, and how it is asked to stop.

use crate::units::{ByteCount, Lsn, SegmentName};

/// Sees a backup's progress. Called often from the copying thread: must be quick.
pub trait Observer: Sync {
    /// Whether the backup should stop. Asked at least once for every piece of the stream and once a second
    /// while waiting.
    fn interrupted(&self) -> bool;

    /// The server was asked and makes its checkpoint.
    fn awaiting_checkpoint(&self);
    /// The repository may not have room for the backup. It goes on all the same.
    fn room_is_short(&self, free: ByteCount, expected: ByteCount);

    /// The stream begins; `total` where the server announced it.
    fn copying(&self, start: Lsn, total: Option<ByteCount>);

    /// So many bytes of the stream have been taken.
    fn copied(&self, bytes: ByteCount);

    /// All is copied; what is being waited for now is this segment.
    fn awaiting_wal(&self, segment: SegmentName);

    /// This segment, or its beginning, is being taken over the connection.
    fn fetching_wal(&self, segment: SegmentName);

    /// The archive is being compared with the server's.
    fn proving(&self);
}
