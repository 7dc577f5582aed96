//! What a worker does with a job: page checksums, hash and codec of its frames.

use super::CopySettings;
use super::job::{BadPage, Job, Step};
use crate::postgres::page::{self, PageState};
use crate::repo::frame::{EncodedFrame, FrameDecoder, FrameEncoder};
use crate::units::Lsn;
use std::io;

/// The state of one worker; reused from job to job.
pub(super) struct Worker {
    page_size: u32,
    encoder: FrameEncoder,
    /// Where every frame is decoded again.
    decoder: Option<FrameDecoder>,
    decoded: Vec<u8>,
}

impl Worker {
    /// # Errors
    /// When a codec finds no memory.
    pub fn new(settings: &CopySettings) -> io::Result<Self> {
        Ok(Self {
            page_size: settings.page_size,
            encoder: FrameEncoder::new(settings.compression, true)?,
            decoder: if settings.verify_writes { Some(FrameDecoder::new()?) } else { None },
            decoded: Vec::new(),
        })
    }

    /// Encodes every frame of `job`, and notes its bad pages.
    ///
    /// # Errors
    /// The codec's, and that a frame did not decode to what it was made of.
    pub fn work(&mut self, job: &mut Job) -> io::Result<()> {
        let mut frame = 0;
        for (index, step) in job.steps.iter().enumerate() {
            let bytes = match step {
                Step::Frame { bytes, first_block } => {
                    if let (Some(before), Some(first)) = (job.good_before, first_block) {
                        let plain = job.plain.get(bytes.clone()).unwrap_or_default();
                        check_pages(self.page_size, plain, *first, before, |offset| {
                            job.bad_pages.push(BadPage { step: index, offset });
                        });
                    }
                    bytes
                }
                Step::Shared { bytes, files } => {
                    if let Some(before) = job.good_before {
                        let plain = job.plain.get(bytes.clone()).unwrap_or_default();
                        for (head, offset) in files {
                            let Some(first) = head.first_block else { continue };
                            let start = *offset as usize;
                            let file = plain.get(start..start + head.size as usize).unwrap_or_default();
                            check_pages(self.page_size, file, first, before, |at| {
                                job.bad_pages.push(BadPage { step: index, offset: start + at });
                            });
                        }
                    }
                    bytes
                }
                _ => continue,
            };
            if job.encoded.len() <= frame {
                job.encoded.push(EncodedFrame::default());
            }
            let plain = job.plain.get(bytes.clone()).unwrap_or_default();
            let encoded = &mut job.encoded[frame];
            self.encoder.encode(plain, encoded)?;
            if let (Some(decoder), Some(info)) = (&mut self.decoder, encoded.info()) {
                decoder.decode(&info, &encoded.bytes, &mut self.decoded).map_err(|_| {
                    io::Error::other("a frame did not decode to what was encoded: faulty memory?")
                })?;
            }
            frame += 1;
        }
        Ok(())
    }
}

/// Gives the offset of each whole page that fails its checksum and was not being written. A part of a page at
/// the end is left alone: the file was being extended, WAL completes it.
fn check_pages(page_size: u32, bytes: &[u8], first: u32, before: Lsn, mut bad: impl FnMut(usize)) {
    for (index, page) in bytes.chunks_exact(page_size as usize).enumerate() {
        let block = first.wrapping_add(index as u32);
        // A page with a later LSN was being written while it was read: WAL holds all of it.
        if matches!(page::check(page, block), Some(PageState::Damaged { lsn, .. }) if lsn < before) {
            bad(index * page_size as usize);
        }
    }
}
