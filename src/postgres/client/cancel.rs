//! Cancelling a command of another connection.

use super::tls::Dial;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::timeout;

/// Where exactly a connection leads: a cancel request must reach the same server, and as safely.
#[derive(Clone)]
pub(super) enum Endpoint {
    Unix(PathBuf),
    Tcp(SocketAddr, Option<Box<Dial>>),
}

/// Asks the server to cancel a connection's command, over a connection of its own (the protocol has no
/// other way), encrypted where the first one is. Asking when nothing is under way does no harm.
#[derive(Clone)]
pub struct CancelHandle {
    to: Endpoint,
    /// Process number and secret as the server sent them.
    key: Vec<u8>,
}

impl fmt::Debug for CancelHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CancelHandle")
    }
}

impl CancelHandle {
    /// From the body of a BackendKeyData message.
    pub(super) fn new(to: Endpoint, key: &[u8]) -> Option<Self> {
        // Protocol 3.2 allows secrets of up to 256 bytes.
        (8..=260).contains(&key.len()).then(|| Self { to, key: key.to_vec() })
    }

    /// CancelRequest: length, code, process number, secret.
    fn request(&self) -> Vec<u8> {
        const CANCEL_REQUEST: i32 = 80_877_102;
        let length = i32::try_from(self.key.len() + 8).unwrap_or(16);
        [&length.to_be_bytes(), &CANCEL_REQUEST.to_be_bytes(), self.key.as_slice()].concat()
    }

    /// Sends the request; `Ok` means that the server has passed it on, not that the command has ended.
    ///
    /// # Errors
    /// When the server cannot be reached within `limit`.
    pub async fn cancel(&self, limit: Duration) -> io::Result<()> {
        let handle = self.clone();
        let send = tokio::task::spawn_blocking(move || handle.cancel_blocking(limit));
        timeout(limit, send)
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
            .map_err(io::Error::other)?
    }

    /// The same without a runtime.
    ///
    /// # Errors
    /// When the server cannot be reached.
    pub fn cancel_blocking(&self, limit: Duration) -> io::Result<()> {
        fn exchange(mut stream: impl Read + Write, request: &[u8]) -> io::Result<()> {
            stream.write_all(request)?;
            // The server closes the connection once the signal is sent.
            match stream.read(&mut [0]) {
                Ok(_) => Ok(()),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(()),
                Err(error) => Err(error),
            }
        }
        let request = self.request();
        match &self.to {
            Endpoint::Unix(path) => {
                let stream = std::os::unix::net::UnixStream::connect(path)?;
                stream.set_read_timeout(Some(limit))?;
                stream.set_write_timeout(Some(limit))?;
                exchange(stream, &request)
            }
            Endpoint::Tcp(address, dial) => {
                let stream = std::net::TcpStream::connect_timeout(address, limit)?;
                stream.set_read_timeout(Some(limit))?;
                stream.set_write_timeout(Some(limit))?;
                match dial {
                    Some(dial) => dial.send_blocking(stream, &request),
                    None => exchange(stream, &request),
                }
            }
        }
    }
}
