//! Frames out of a byte stream, in place: one reusable buffer, large reads, no copy per message.

use super::transport::Transport;
use bytes::{Buf, BytesMut};
use std::io;
use std::ops::Range;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The buffer's usual size. Twice the least read, so that moving a cut frame to the front (32 KiB or less in
/// a base backup) costs little.
const BUFFER: usize = 512 << 10;
/// The least space offered to one read.
const LEAST_READ: usize = 256 << 10;
/// The longest frame that may carry data of a copy: the server sends 32 KiB (base backup) or 128 KiB (WAL).
const LONGEST_COPY_DATA: usize = 4 << 20;
/// The longest row; the longest that we ask for is a timeline history.
const LONGEST_ROW: usize = 16 << 20;
/// The longest of all other messages.
const LONGEST_OTHER: usize = 1 << 20;
/// The type byte and the length that counts itself.
const HEADER: usize = 5;

/// One message: its type and where its body lies in the buffer until the next one is asked for.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    pub tag: u8,
    pub body: Range<usize>,
}

/// Why there is no frame.
#[derive(Debug)]
pub(super) enum WireError {
    /// The other side closed the connection.
    Closed,
    /// The system reported a failure.
    Io(io::Error),
    /// A length outside what this kind of message may have.
    Length { tag: u8, length: u32 },
}

/// A connection as frames in and bytes out.
pub(super) struct Wire {
    transport: Transport,
    buffer: Vec<u8>,
    /// Unread bytes are `buffer[start..end]`.
    start: usize,
    end: usize,
    outgoing: BytesMut,
}

impl Wire {
    pub(super) fn new(transport: Transport) -> Self {
        Self { transport, buffer: vec![0; BUFFER], start: 0, end: 0, outgoing: BytesMut::new() }
    }

    /// The next frame, if it has arrived completely. Gives up the frame before.
    pub(super) fn arrived(&mut self) -> Result<Option<Frame>, WireError> {
        let Some((tag, length)) = self.header() else { return Ok(None) };
        let total = 1 + check_length(tag, length)?;
        if self.end - self.start < total {
            return Ok(None);
        }
        let body = self.start + HEADER..self.start + total;
        self.start += total;
        Ok(Some(Frame { tag, body }))
    }

    /// Type and length of the frame that comes next, once these five bytes are here.
    fn header(&self) -> Option<(u8, u32)> {
        match self.buffer[self.start..self.end] {
            [tag, a, b, c, d, ..] => Some((tag, u32::from_be_bytes([a, b, c, d]))),
            _ => None,
        }
    }

    /// Reads once. Cancel-safe: what was read is in the buffer.
    pub(super) async fn fill(&mut self) -> Result<(), WireError> {
        self.make_room()?;
        match self.transport.read(&mut self.buffer[self.end..]).await {
            Ok(0) => Err(WireError::Closed),
            Ok(read) => {
                self.end += read;
                Ok(())
            }
            Err(error) => Err(WireError::Io(error)),
        }
    }

    /// At least [`LEAST_READ`] free bytes, and room for the whole frame that has begun.
    fn make_room(&mut self) -> Result<(), WireError> {
        let needed = match self.header() {
            Some((tag, length)) => 1 + check_length(tag, length)?,
            None => HEADER,
        };
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        if self.buffer.len() - self.end < LEAST_READ || self.buffer.len() - self.start < needed {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            let wanted = needed.max(self.end + LEAST_READ).max(BUFFER);
            if self.buffer.len() < wanted {
                self.buffer.resize(wanted, 0);
            }
        }
        Ok(())
    }

    /// The bytes of `frame`, which must be the last one that was handed out.
    pub(super) fn body(&self, frame: &Frame) -> &[u8] {
        self.slice(frame.body.clone())
    }

    /// Part of the last frame.
    pub(super) fn slice(&self, range: Range<usize>) -> &[u8] {
        self.buffer.get(range).unwrap_or_default()
    }

    /// What has arrived and was not handed out.
    pub(super) fn unread(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Where messages to send are put; [`Wire::flush`] sends them.
    pub(super) fn outgoing(&mut self) -> &mut BytesMut {
        &mut self.outgoing
    }

    /// Sends what is waiting. Cancel-safe: what was not sent yet still waits, from the right byte on.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        while !self.outgoing.is_empty() {
            let written = self.transport.write(&self.outgoing).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.outgoing.advance(written);
        }
        self.transport.flush().await
    }
}

/// The length field as the number of bytes it stands for, if this kind of message may be so long.
fn check_length(tag: u8, length: u32) -> Result<usize, WireError> {
    let longest = match tag {
        b'd' => LONGEST_COPY_DATA,
        b'D' => LONGEST_ROW,
        _ => LONGEST_OTHER,
    };
    match usize::try_from(length) {
        Ok(bytes) if (4..=longest).contains(&bytes) => Ok(bytes),
        _ => Err(WireError::Length { tag, length }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![tag];
        bytes.extend(u32::try_from(body.len() + 4).unwrap().to_be_bytes());
        bytes.extend(body);
        bytes
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    /// Every frame of `bytes`, sent in pieces of `piece`, as (tag, body), and how it ended.
    fn frames(bytes: Vec<u8>, piece: usize) -> (Vec<(u8, Vec<u8>)>, WireError) {
        run(async move {
            let (near, mut far) = tokio::io::duplex(1 << 16);
            let send = async move {
                for part in bytes.chunks(piece) {
                    if far.write_all(part).await.is_err() {
                        return;
                    }
                    tokio::task::yield_now().await;
                }
            };
            let receive = async move {
                let mut wire = Wire::new(Transport::Memory(near));
                let mut seen = Vec::new();
                loop {
                    match wire.arrived() {
                        Ok(Some(frame)) => seen.push((frame.tag, wire.body(&frame).to_vec())),
                        Ok(None) => match wire.fill().await {
                            Ok(()) => {}
                            Err(error) => return (seen, error),
                        },
                        Err(error) => return (seen, error),
                    }
                }
            };
            tokio::join!(send, receive).1
        })
    }

    #[test]
    fn frames_do_not_depend_on_how_the_bytes_arrive() {
        let bodies: Vec<Vec<u8>> = (0..200).map(|n| vec![n as u8; n * 377 % 40_000]).collect();
        let bytes: Vec<u8> = bodies.iter().flat_map(|body| frame(b'd', body)).collect();
        let wanted: Vec<_> = bodies.into_iter().map(|body| (b'd', body)).collect();
        for piece in [997, 4096, 65_536, usize::MAX] {
            let (seen, end) = frames(bytes.clone(), piece.min(bytes.len()));
            assert!(seen == wanted, "in pieces of {piece}");
            assert!(matches!(end, WireError::Closed));
        }
    }

    #[test]
    fn a_row_larger_than_the_buffer_arrives_whole() {
        let (seen, _) = frames([frame(b'Z', b"I"), frame(b'D', &vec![7; 3 << 20])].concat(), 1 << 16);
        assert_eq!(seen.len(), 2);
        assert!(seen[1].1 == vec![7; 3 << 20]);
    }

    #[test]
    fn lengths_outside_the_limits_end_it_before_memory_is_taken() {
        for (tag, length) in [(b'd', 3u32), (b'd', 5 << 20), (b'E', 2 << 20), (b'D', u32::MAX), (b'Z', 0)] {
            let mut bytes = vec![tag];
            bytes.extend(length.to_be_bytes());
            let (seen, end) = frames(bytes, 100);
            assert!(seen.is_empty());
            assert!(matches!(end, WireError::Length { tag: t, length: l } if (t, l) == (tag, length)));
        }
    }
}
