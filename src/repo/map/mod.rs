//! The map of a backup: every file, directory and link, and in which frames each file's contents lie.
//!
//! Entries are sorted by path and grouped into pages of about 64 KiB, each a frame of a `map` object. An
//! index of the pages' first paths is the last frame of the last map object. A page names its packs through
//! a table of owners, so that a later backup may reference the page as it is.
//!
//! A map holds no offsets, lengths or hashes of stored bytes: those are in the packs' footers, so packs may
//! be re-encrypted or recompressed without touching a map.

mod entry;
mod reader;
mod sort;
mod writer;

pub use entry::{Contents, Entry, EntryKind, FrameRun, PackRef};
pub use reader::MapReader;
pub use sort::{EntrySorter, SortedEntries};
pub use writer::MapWriter;

/// Plain bytes at which a page is closed.
const PAGE_TARGET: usize = 64 * 1024;
/// Stored bytes at which a map object is closed.
const OBJECT_TARGET: u64 = 16 << 20;
/// The longest path and link target that is kept (PostgreSQL's own limit is 1,024: `MAXPGPATH`).
pub const LONGEST_PATH: usize = 4096;

#[cfg(test)]
mod tests;
