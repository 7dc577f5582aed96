//! Objects: header, sealed frames, a sealed footer that lists them, and a trailer that finds the footer.
//!
//! ```text
//! header (96 bytes)                                   seal.rs
//! frame 0 ‖ tag, frame 1 ‖ tag, …                     sealed as number 0, 1, …
//! footer ‖ tag                                        sealed as number n, marked last
//! trailer (16 bytes): length of footer ‖ tag (u32 LE), n (u32 LE), "WALDENE\n"
//! ```
//! The lengths add up to the object's size exactly, so there is no byte that nothing checks.

mod reader;
mod writer;

pub use reader::{FrameSpan, ObjectReader};
pub use writer::{ObjectWriter, build};

/// Bytes of the trailer.
pub const TRAILER_LENGTH: usize = 16;
/// How objects end.
pub const TRAILER_MAGIC: &[u8; 8] = b"WALDENE\n";

#[cfg(test)]
mod tests;
