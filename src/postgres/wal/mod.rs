//! The write-ahead log as it lies in files: pages, segments, records.
//!
//! * [`page`]: the headers of pages, and what tells the majors apart.
//! * [`segment`]: which cluster, timeline and place a segment file is of, from its first page.
//! * [`stream`]: the walk from record to record, fed with bytes as they come, in bounded memory.
//! * [`walk`]: that walk over one segment, to the verdict *complete or not*.
//! * [`records`]: what a record says, for the few kinds that matter to backup and recovery.
//! * [`reader`]: one record by its position, and long chains of segments.
//! * [`crossing`]: a short record that begins in one segment and ends in the next, from a few pages of each.
//!
//! Nothing here knows where segments are kept.

pub mod crossing;
pub mod page;
pub mod reader;
pub mod records;
pub mod segment;
pub mod stream;
pub mod walk;

#[cfg(test)]
mod walk_tests;
